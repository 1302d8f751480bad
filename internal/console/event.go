package console

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/webhook"
)

func eventRoutes() []route {
	return []route{
		{"GET /console/events", "webhook", "read", (*visit).listEvents},
		{"GET /console/events/live", "webhook", "read", (*visit).liveEvents},
		{"GET /console/events/{id}", "webhook", "read", (*visit).showEvent},
	}
}

// eventRow is an event in a list.
type eventRow struct {
	webhook.Envelope
	Number, Title string
}

func eventRows(bodies [][]byte) ([]eventRow, error) {
	out := make([]eventRow, len(bodies))
	for i, body := range bodies {
		if err := json.Unmarshal(body, &out[i].Envelope); err != nil {
			return nil, fault.Wrap(fault.Internal, err, "read an event")
		}
		if d, err := out[i].Ticket(); err == nil {
			out[i].Number, out[i].Title = deref(d.TicketNumber), deref(d.Title)
		}
	}
	return out, nil
}

// eventList is the newest events, and from then on all that follow.
type eventList struct {
	Rows   []eventRow
	Query  url.Values
	Cursor string // of the feed, behind the newest
	Live   string // the address of what follows; "" when it is paused
	Toggle string // the address with and without what follows
	More   string
	Paged  bool // older events: nothing follows them
	Error  string
}

// Types are the types of events that there are.
func (*eventList) Types() []string {
	return slices.DeleteFunc(delivery.EventTypes(), func(s string) bool { return !delivery.Fires(s) })
}

func (v *visit) listEvents() error {
	q := v.r.URL.Query()
	p := eventList{Query: q, Paged: q.Get("after") != ""}
	search := store.EventSearch{After: q.Get("after"), Limit: 50}
	if t := q.Get("type"); t != "" {
		search.Types = []string{t}
	}
	found, cursor, err := v.store().SearchEvents(v.ctx, v.tenant(), search)
	if err == nil && q.Get("ticket") != "" {
		found.Next = ""
		found.Rows, err = v.eventsOfTicket(strings.TrimSpace(q.Get("ticket")), q.Get("type"))
	}
	if fault.Is(err, fault.Invalid) {
		p.Error, err = messageOf(err), nil
	}
	if err != nil {
		return err
	}
	if p.Rows, err = eventRows(found.Rows); err != nil {
		return err
	}
	p.Cursor, p.More = cursor, next(v.r, found.Next)
	follow := url.Values{}
	for _, name := range []string{"type", "ticket"} {
		if q.Get(name) != "" {
			follow.Set(name, q.Get(name))
		}
	}
	if q.Get("live") == "off" {
		p.Toggle = "/console/events?" + follow.Encode()
	} else {
		live := with(follow, "after", cursor)
		p.Live, p.Toggle = "/console/events/live?"+live.Encode(), "/console/events?"+with(follow, "live", "off").Encode()
	}
	if p.Paged {
		p.Live = ""
	}
	return v.page(statusOf(p.Error), "events", "events", "Events", &p)
}

// with returns a copy of the values with one more.
func with(v url.Values, key, value string) url.Values {
	out := maps.Clone(v)
	out.Set(key, value)
	return out
}

func (v *visit) eventsOfTicket(ticket, eventType string) ([][]byte, error) {
	id, err := v.ticketID(ticket)
	if err != nil {
		return nil, err
	}
	bodies, _, err := v.store().TicketEvents(v.ctx, v.tenant(), id, 100)
	return slices.DeleteFunc(bodies, func(body []byte) bool {
		var e struct {
			Type string `json:"event_type"`
		}
		return eventType != "" && (json.Unmarshal(body, &e) != nil || e.Type != eventType)
	}), err
}

// ticketID turns a number into an id. What is neither stays as it is and finds
// nothing, as the id of a ticket that was deleted finds its events.
func (v *visit) ticketID(text string) (string, error) {
	t, err := v.store().Ticket(v.ctx, v.tenant(), text)
	if fault.Is(err, fault.NotFound) {
		return text, nil
	}
	return t.TicketID, err
}

// liveEvents sends events as they are committed, after a cursor of the feed. A
// browser that lost the connection says where it was.
func (v *visit) liveEvents() error {
	q := v.r.URL.Query()
	feed := store.FeedQuery{After: cmp.Or(v.r.Header.Get("Last-Event-ID"), q.Get("after")), Limit: 50}
	if t := q.Get("type"); t != "" {
		feed.Types = []string{t}
	}
	if t := q.Get("ticket"); t != "" {
		var err error
		if feed.TicketID, err = v.ticketID(t); err != nil {
			return err
		}
	}
	return v.live(500*time.Millisecond, func() (message, error) {
		page, err := v.store().Events(v.ctx, v.tenant(), feed)
		if err != nil || page.Next == feed.After {
			return message{}, err
		}
		feed.After = page.Next
		if len(page.Envelopes) == 0 {
			return message{id: page.Next}, nil
		}
		bodies := make([][]byte, len(page.Envelopes))
		for i, e := range page.Envelopes {
			bodies[len(bodies)-1-i] = e // the newest comes first
		}
		rows, err := eventRows(bodies)
		if err != nil {
			return message{}, err
		}
		body, err := v.fragment("events", "rows", rows)
		return message{id: page.Next, body: body}, err
	})
}

// eventPage is one event and where it went.
type eventPage struct {
	eventRow
	Pretty, Exact string
	Chains        []chain
}

func (v *visit) showEvent() error {
	body, err := v.store().Event(v.ctx, v.tenant(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	rows, err := eventRows([][]byte{body})
	if err != nil {
		return err
	}
	line := timeline{Events: []happening{{Envelope: rows[0].Envelope}}}
	if _, err := v.addChains(&line, []string{rows[0].EventID}); err != nil {
		return err
	}
	p := eventPage{eventRow: rows[0], Exact: string(body), Chains: line.Events[0].Chains}
	var pretty bytes.Buffer
	if json.Indent(&pretty, body, "", "  ") == nil {
		p.Pretty = pretty.String()
	}
	return v.page(http.StatusOK, "event", "events", p.EventType, &p)
}
