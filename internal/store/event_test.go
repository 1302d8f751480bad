package store

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/ticket"
	"github.com/ticketwire/ticketwire/webhook"
)

func TestFeed(t *testing.T) {
	t.Parallel()
	exercise(t, map[string]func(*testing.T, opener){
		"filters":                            feedFilters,
		"a cursor outlives retention":        cursorOutlivesRetention,
		"bad cursors are refused":            badCursors,
		"one event":                          oneEvent,
		"a failed write leaves nothing":      failedWrite,
		"since begins where it says":         feedSince,
		"the next cursor passes other types": cursorPassesOthers,
	})
}

// TestFeedUnderWriters lets two stores on one directory, as two processes have
// it, write while a reader pages with a small limit. The reader has to see the
// whole feed, each event once, in its order.
func TestFeedUnderWriters(t *testing.T) {
	t.Parallel()
	onEach(t, feedUnderWriters)
}

func feedUnderWriters(t *testing.T, p place) {
	serving, beside := openAt(t, p), openAt(t, p)
	d := newDesk(t, serving, "acme")
	newDesk(t, serving, "noise")
	const writers, changes = 8, 25
	var wg sync.WaitGroup
	for i := range writers {
		through := serving
		if i%4 == 3 {
			through = beside
		}
		tk := d.create(start(), d.draft("busy"))
		wg.Go(func() {
			for n := range changes {
				if _, err := through.UpdateTicket(t.Context(), start(), d.Actor, tk.TicketID, ticket.Patch{
					Title: ticket.Some(fmt.Sprint(n)),
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	var seen []string
	q := FeedQuery{Limit: 7}
	for last := false; ; {
		page, err := serving.Events(t.Context(), d.TenantID, q)
		if err != nil {
			t.Fatal(err)
		}
		for _, body := range page.Envelopes {
			seen = append(seen, envelopeOf(t, body).EventID)
		}
		q.After = page.Next
		if page.More {
			continue
		}
		if last {
			break
		}
		select {
		case <-done:
			last = true // one more time around, for what came since
		default:
		}
	}
	var want []string
	for _, e := range d.envelopes() {
		want = append(want, e.EventID)
	}
	if diff := cmp.Diff(want, seen); diff != "" || len(seen) != writers*(changes+1) {
		t.Errorf("the reader saw %d events, there are %d (-want +seen):\n%s", len(seen), len(want), diff)
	}
}

func envelopeOf(t *testing.T, body json.RawMessage) webhook.Envelope {
	t.Helper()
	var e webhook.Envelope
	if err := json.Unmarshal(body, &e); err != nil {
		t.Fatal(err)
	}
	return e
}

func feedFilters(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	a, b := d.create(start(), d.draft("a")), d.create(start(), d.draft("b"))
	d.update(start().Add(time.Minute), a.TicketID, ticket.Patch{StatusID: ticket.Some(d.rows.Statuses["Closed"])})
	d.comment(start().Add(time.Hour), b.TicketID, ticket.CommentDraft{Text: "x"})
	for _, c := range []struct {
		name string
		q    FeedQuery
		want string
	}{
		{"all", FeedQuery{}, "created created updated status_changed closed added"},
		{"one type", FeedQuery{Types: []string{"ticket.closed"}}, "closed"},
		{"two types", FeedQuery{Types: []string{"ticket.created", "ticket.comment.added"}}, "created created added"},
		{"a type nobody makes", FeedQuery{Types: []string{"project.created"}}, ""},
		{"a ticket", FeedQuery{TicketID: strings.ToUpper(b.TicketID)}, "created added"},
		{"a ticket and a type", FeedQuery{TicketID: b.TicketID, Types: []string{"ticket.created"}}, "created"},
		{"limit", FeedQuery{Limit: 2}, "created created"},
	} {
		page := must(d.Events(t.Context(), d.TenantID, c.q))(t)
		var got []string
		for _, body := range page.Envelopes {
			name := envelopeOf(t, body).EventType
			got = append(got, name[strings.LastIndex(name, ".")+1:])
		}
		if strings.Join(got, " ") != c.want || page.More != (c.q.Limit > 0) {
			t.Errorf("%s: got %q, more %v, want %q", c.name, got, page.More, c.want)
		}
	}
}

func feedSince(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	for i := range 5 {
		d.create(start().Add(time.Duration(i)*time.Minute), d.draft(fmt.Sprint(i)))
	}
	page := must(d.Events(t.Context(), d.TenantID, FeedQuery{Since: new(webhook.At(start().Add(3 * time.Minute)).Time)}))(t)
	if len(page.Envelopes) != 2 {
		t.Fatalf("%d events since then", len(page.Envelopes))
	}
	empty := must(d.Events(t.Context(), d.TenantID, FeedQuery{Since: new(start().Add(time.Hour))}))(t)
	if empty.Envelopes == nil || len(empty.Envelopes) != 0 || empty.More {
		t.Errorf("the future holds %+v", empty)
	}
	// The cursor of the empty page must not lead back to what was before since.
	after := must(d.Events(t.Context(), d.TenantID, FeedQuery{After: empty.Next}))(t)
	if len(after.Envelopes) != 0 {
		t.Errorf("the cursor of an empty page leads back to %d events", len(after.Envelopes))
	}
	d.create(start(), d.draft("late"))
	if after = must(d.Events(t.Context(), d.TenantID, FeedQuery{After: after.Next}))(t); len(after.Envelopes) != 1 {
		t.Errorf("a new event after an empty page: %d", len(after.Envelopes))
	}
}

func cursorPassesOthers(t *testing.T, open opener) {
	s := open(t)
	d := newDesk(t, s, "acme")
	tk := d.create(start(), d.draft("a"))
	for i := range 5 {
		d.update(start(), tk.TicketID, ticket.Patch{Title: ticket.Some(fmt.Sprint(i))})
	}
	page := must(d.Events(t.Context(), d.TenantID, FeedQuery{Types: []string{"ticket.created"}}))(t)
	if rest := must(d.Events(t.Context(), d.TenantID, FeedQuery{After: page.Next}))(t); len(page.Envelopes) != 1 || len(rest.Envelopes) != 0 {
		t.Errorf("%d created, then %d events that were passed over", len(page.Envelopes), len(rest.Envelopes))
	}
}

func cursorOutlivesRetention(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	if page := must(d.Events(t.Context(), d.TenantID, FeedQuery{}))(t); page.Next == "" || len(page.Envelopes) != 0 {
		t.Errorf("the empty feed is %+v", page)
	}
	for i := range 3 {
		d.create(start(), d.draft(fmt.Sprint(i)))
	}
	cursor := must(d.Events(t.Context(), d.TenantID, FeedQuery{}))(t).Next
	other := newDesk(t, d.Store, "other") // the newest event stays, and it is this one's
	other.create(start(), other.draft("newest"))
	if err := d.do(t.Context(), func(x *tx) error {
		_, err := x.exec(`delete from events where tenant_id = $1`, d.TenantID)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	page := must(d.Events(t.Context(), d.TenantID, FeedQuery{After: cursor}))(t)
	if page.Next != cursor {
		t.Errorf("the cursor went from %s to %s", cursor, page.Next)
	}
	d.create(start(), d.draft("next"))
	if page = must(d.Events(t.Context(), d.TenantID, FeedQuery{After: page.Next}))(t); len(page.Envelopes) != 1 {
		t.Errorf("%d events after the gap, want 1", len(page.Envelopes))
	}
}

func badCursors(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	for _, cursor := range []string{"x", "c1-", "c1--1", "c1-+1", "c1-01", "c1-ZZ", "c2-1", "c1-1 ", "1", "c1-zzzzzzzzzzzzzz", "c1-_1"} {
		_, err := d.Events(t.Context(), d.TenantID, FeedQuery{After: cursor})
		wantKind(t, cursor, err, fault.Invalid)
	}
	// A cursor of what a restored backup does not have.
	d.create(start(), d.draft("in the backup"))
	cursor := must(d.Events(t.Context(), d.TenantID, FeedQuery{}))(t).Next
	seq := must(parseCursor(cursor))(t)
	if page := must(d.Events(t.Context(), d.TenantID, FeedQuery{After: cursor}))(t); page.Next != cursor {
		t.Errorf("the cursor went from %s to %s", cursor, page.Next)
	}
	_, err := d.Events(t.Context(), d.TenantID, FeedQuery{After: formatCursor(seq + 1)})
	wantKind(t, "a cursor ahead of the feed", err, fault.Conflict)
}

func oneEvent(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	d.create(start(), d.draft("a"))
	page := must(d.Events(t.Context(), d.TenantID, FeedQuery{}))(t)
	id := envelopeOf(t, page.Envelopes[0]).EventID
	if body := must(d.Event(t.Context(), d.TenantID, strings.ToUpper(id)))(t); !slices.Equal(body, page.Envelopes[0]) {
		t.Errorf("the event is %s, in the feed %s", body, page.Envelopes[0])
	}
	_, err := d.Event(t.Context(), d.TenantID, NewID())
	wantKind(t, "an unknown event", err, fault.NotFound)
}

// failedWrite makes the last step of a change fail: neither the ticket nor the
// event may remain of it.
func failedWrite(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	tk := d.create(start(), d.draft("a"))
	before := len(d.envelopes())
	broken := fmt.Errorf("broken")
	ctx := WithIdempotency(t.Context(), &Idempotency{Render: func(any) (int, []byte, error) { return 0, nil, broken }})
	_, err := d.UpdateTicket(ctx, start(), d.Actor, tk.TicketID, ticket.Patch{Title: ticket.Some("b")})
	if err == nil || !strings.Contains(err.Error(), "broken") {
		t.Fatalf("the update gave %v", err)
	}
	if diff := cmp.Diff(tk, must(d.Ticket(t.Context(), d.TenantID, tk.TicketID))(t)); diff != "" {
		t.Errorf("the ticket changed:\n%s", diff)
	}
	if n := len(d.envelopes()); n != before {
		t.Errorf("%d events remain", n-before)
	}
}
