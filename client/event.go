package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Event is one event of the feed: the envelope that webhooks carry.
type Event struct {
	EventID    string          `json:"event_id"`
	EventType  string          `json:"event_type"`
	OccurredAt time.Time       `json:"occurred_at"`
	TenantID   string          `json:"tenant_id"`
	Data       json.RawMessage `json:"data"`

	// Raw is the envelope byte by byte as it came, for signing it again and for
	// handing it to a receiver.
	Raw json.RawMessage `json:"-"`
}

// UnmarshalJSON reads an envelope and keeps its bytes.
func (e *Event) UnmarshalJSON(b []byte) error {
	type plain Event // without this method
	var p plain
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	*e = Event(p)
	e.Raw = append(json.RawMessage(nil), b...)
	return nil
}

// EventFilter restricts the feed. Unset fields do not restrict.
type EventFilter struct {
	Types    []string
	TicketID string
	Since    time.Time // where to begin without a cursor
	Limit    int       // events per page, 1 to 1,000; the server's default if 0
}

// EventPage is one page of the feed, oldest first.
type EventPage struct {
	Data []Event `json:"data"`
	// NextCursor continues behind this page. It is there even when nothing more
	// is, so that a later call finds what came meanwhile: store it after the
	// page is dealt with.
	NextCursor string `json:"next_cursor"`
	HasMore    bool   `json:"has_more"`
}

// Events returns the page of the event feed behind cursor, which is empty for
// the beginning (contract section 8, P9). A later page never misses an event
// that was committed earlier.
func (c *Client) Events(ctx context.Context, cursor string, f EventFilter) (*EventPage, error) {
	q := make(query)
	q.text("after", cursor)
	q.text("types", strings.Join(f.Types, ","))
	q.text("ticket_id", f.TicketID)
	q.time("since", f.Since)
	if f.Limit > 0 {
		q.text("limit", strconv.Itoa(f.Limit))
	}
	page := new(EventPage)
	if err := c.do(ctx, call{method: http.MethodGet, path: []string{"events"}, query: url.Values(q)}, page); err != nil {
		if answer, is := errors.AsType[*Error](err); is && answer.Status == http.StatusNotFound {
			err = fmt.Errorf("the server has no event feed (AlgaPSA has none): %w", err)
		}
		return nil, err
	}
	if page.NextCursor == "" {
		page.NextCursor = cursor // an empty feed has no place of its own yet
	}
	return page, nil
}

// EventsEnd returns the cursor behind the newest event: what is committed later,
// and nothing else, is behind it. It reads no event, however long the feed is.
func (c *Client) EventsEnd(ctx context.Context) (string, error) {
	// A page that has nothing on it leads to the end of the feed.
	page, err := c.Events(ctx, "", EventFilter{TicketID: "00000000-0000-4000-8000-000000000000", Limit: 1})
	if err != nil {
		return "", err
	}
	return page.NextCursor, nil
}

// Event returns one event of the feed.
func (c *Client) Event(ctx context.Context, id string) (*Event, error) {
	return one[Event](ctx, c, call{method: http.MethodGet, path: []string{"events", id}})
}

// EventPages walks through the feed from cursor to its present end, page by
// page. An error comes as the last pair. To follow the feed, call it again with
// the last NextCursor.
func (c *Client) EventPages(ctx context.Context, cursor string, f EventFilter) iter.Seq2[*EventPage, error] {
	return func(yield func(*EventPage, error) bool) {
		for {
			page, err := c.Events(ctx, cursor, f)
			if err == nil && page.HasMore && page.NextCursor == cursor {
				err = errors.New("event feed: the server has more but its cursor does not move")
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(page, nil) || !page.HasMore {
				return
			}
			cursor = page.NextCursor
		}
	}
}
