package api

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/store"
)

// eventRoutes are the event feed of contract P9: every event of the tenant,
// oldest first, whether or not a webhook wanted it.
func (s *Server) eventRoutes() []route {
	return []route{
		{http.MethodGet, "/events", "webhook", "read", (*call).listEvents},
		{http.MethodGet, "/events/{event_id}", "webhook", "read", (*call).getEvent},
	}
}

// maxFeed is the largest page of the feed. It is larger than that of other
// lists, because the feed is read to the end.
const maxFeed = 1000

func (c *call) listEvents() (answer, error) {
	p := c.params()
	q := store.FeedQuery{
		After: p.text("after"), Since: p.datetime("since"), Types: p.list("types"),
		TicketID: p.uuid("ticket_id"), Limit: p.integer("limit", 100, 1, maxFeed),
	}
	for i, name := range q.Types {
		// A misspelt type would match nothing for ever.
		if !delivery.Known(name) {
			p.issueAt([]any{"types", i}, "invalid_enum_value",
				fmt.Sprintf("Invalid enum value. Expected '%s', received '%s'", strings.Join(delivery.EventTypes(), "' | '"), name),
				map[string]any{"received": name, "options": delivery.EventTypes()})
		}
	}
	if err := p.err(); err != nil {
		return answer{}, err
	}
	feed, err := c.store().Events(c.ctx, c.tenant(), q)
	if err != nil {
		return answer{}, err
	}
	a := ok(feed.Envelopes)
	a.top = map[string]any{"next_cursor": feed.Next, "has_more": feed.More}
	return a, nil
}

func (c *call) getEvent() (answer, error) {
	id, err := c.id("event_id", "event")
	if err != nil {
		return answer{}, err
	}
	body, err := c.store().Event(c.ctx, c.tenant(), id)
	if err != nil {
		return answer{}, err
	}
	return ok(body), nil
}
