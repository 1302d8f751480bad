package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/failpoint"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// publish puts the events of one change into the feed and owes them to the
// webhooks that want them. The bytes that receivers get are frozen here, in the
// transaction of the change. There is at least one event. It returns the number of
// the newest, which the ticket's row has to keep.
func (t *tx) publish(now time.Time, evs []ticket.Event) (last int64, err error) {
	last, err = t.lastSeq(evs[0].TenantID, evs[0].TicketID)
	if err != nil {
		return 0, err
	}
	if err := failpoint.Hit(failpoint.StoreEvents); err != nil {
		return 0, err
	}
	// All events of one call are about one ticket; its thread is read when the
	// first of them needs it.
	thread := sync.OnceValues(func() ([]ticket.Comment, error) {
		return t.thread(evs[0].TenantID, evs[0].TicketID)
	})
	shape := delivery.Shape{Threads: t.w.s.cfg.Threads}
	for i := range evs {
		ev := &evs[i]
		if shape.Threads {
			comments, err := thread()
			if err != nil {
				return 0, err
			}
			ticket.AddThread(&ev.Data, comments)
		}
		body, err := delivery.Body(delivery.Event{
			EventID: ev.EventID, EventType: ev.Type, OccurredAt: ev.OccurredAt.Time, TenantID: ev.TenantID,
		}, &ev.Data, shape)
		if err != nil {
			return 0, err
		}
		seq, err := t.nextSeq(now)
		if err != nil {
			return 0, err
		}
		if err := t.change("insert into events", insertEvent,
			seq, last, ev.TenantID, ev.EventID, ev.Type, ev.TicketID, ev.OccurredAt.UnixMicro(), micros(now), body); err != nil {
			return 0, err
		}
		last = seq
		if err := t.owe(now, *ev, seq, body, thread); err != nil {
			return 0, err
		}
	}
	return last, nil
}

// insertEvent inserts an event, and insertEvents a column of them, see merge.go.
const (
	insertEvent = eventColumns + ` values ($1, $2, $3, $4, $5, $6, $7, $8, $9)`

	insertEvents = eventColumns + ` select * from unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[],
		$6::text[], $7::bigint[], $8::bigint[], $9::bytea[])`
	eventKinds = "iittttiib"

	eventColumns = `insert into events (seq, prev_seq, tenant_id, event_id, event_type, ticket_id, occurred_at, created_at, body)`
)

// nextSeq gives the next event its number. Retention leaves the newest event
// alone, so that no number is ever given twice and a cursor stays true. On a server
// the first of a day begins the numbers of that day, see partition.go.
func (t *tx) nextSeq(now time.Time) (int64, error) {
	r := &t.w.recent
	if r.seq == 0 {
		if err := t.row(`select coalesce(max(seq), 0) from events`).Scan(&r.seq); err != nil {
			return 0, fmt.Errorf("number of the newest event: %w", err)
		}
	}
	r.seq++
	if t.w.s.dialect.server {
		r.seq = max(r.seq, dayOf(now).firstSeq())
	}
	return r.seq, nil
}

// lastSeq returns the newest event of a ticket, 0 without one.
func (t *tx) lastSeq(tenant, ticketID string) (int64, error) {
	if known, ok := t.w.recent.tickets[ticketKey{tenant, ticketID}]; ok {
		return known.lastSeq, nil
	}
	var seq int64
	err := t.row(`select last_seq from tickets where tenant_id = $1 and ticket_id = $2`, tenant, ticketID).Scan(&seq)
	if err != nil && !errors.Is(err, sql.ErrNoRows) { // none: it is being created
		return 0, fmt.Errorf("newest event of ticket %s: %w", ticketID, err)
	}
	return seq, nil
}

// FeedQuery asks for a page of the event feed (contract P9).
type FeedQuery struct {
	After    string     // cursor of the page before; empty starts at the oldest event that is kept
	Since    *time.Time // only events that occurred then or later
	Types    []string   // only these event types; empty means all
	TicketID string     // only events of this ticket; empty means all
	Limit    int        // 1..1000; 0 means 100
}

// Feed is a page of the event feed, oldest first.
type Feed struct {
	Envelopes []json.RawMessage // never nil
	Next      string            // where to go on, also after an empty page
	More      bool              // there is a next page already
}

// Events returns the next page of a tenant's events in the order of their
// commits. A reader who follows Next sees every event exactly once, whatever is
// written meanwhile: numbers are given out under the write lock, so an event that
// becomes visible later has a higher one. A malformed cursor is Invalid with path
// after, and one ahead of all events a Conflict.
func (s *Store) Events(ctx context.Context, tenant string, q FeedQuery) (Feed, error) {
	after, err := parseCursor(q.After)
	if err != nil {
		return Feed{}, err
	}
	if q.Limit < 1 {
		q.Limit = 100
	}
	r := s.reader(ctx)
	// The page is bounded by what was there before it was read. So everything up
	// to top is either on the page or does not match, and an empty page may move
	// the cursor to top.
	top, err := topOf(r, tenant, after)
	if err != nil {
		return Feed{}, err
	}
	if top == 0 && after > 0 {
		if err := refuseAhead(r, after); err != nil {
			return Feed{}, err
		}
	}
	feed := Feed{Envelopes: []json.RawMessage{}, Next: formatCursor(max(top, after))}
	rows, err := feedRows(r, tenant, after, top, q)
	type event struct {
		seq  int64
		body []byte
	}
	page, err := collect(rows, err, func(row scanner) (event, error) {
		var e event
		err := row.Scan(&e.seq, &e.body)
		return e, err
	})
	if err != nil {
		return Feed{}, fmt.Errorf("read the event feed: %w", err)
	}
	if len(page) > q.Limit {
		page = page[:q.Limit]
		feed.More, feed.Next = true, formatCursor(page[q.Limit-1].seq)
	}
	for _, e := range page {
		feed.Envelopes = append(feed.Envelopes, e.body)
	}
	return feed, nil
}

// refuseAhead refuses a cursor ahead of the newest event of all. Retention leaves
// that event alone, so the cursor is of a database that has gone since, as when a
// backup was restored: what happens next would get numbers that its reader has passed.
func refuseAhead(r *reader, after int64) error {
	var reached bool
	if err := r.row(`select exists (select 1 from events where seq >= $1)`, after).Scan(&reached); err != nil {
		return fmt.Errorf("look behind a cursor: %w", err)
	}
	if !reached {
		return fault.New(fault.Conflict, "The cursor in after is ahead of the feed, as after a backup was restored: begin without it, or with since")
	}
	return nil
}

// feedRows reads one event more than the page holds, to know whether there is
// more. The plain feed, which pollers ask for all the time, has a fixed text.
func feedRows(r *reader, tenant string, after, top int64, q FeedQuery) (*sql.Rows, error) {
	if q.Since == nil && len(q.Types) == 0 && q.TicketID == "" {
		return r.query(`select seq, body from events where tenant_id = $1 and seq > $2 and seq <= $3 order by seq limit $4`,
			tenant, after, top, q.Limit+1)
	}
	var w where
	w.and("e.tenant_id = ? and e.seq > ? and e.seq <= ?", tenant, after, top)
	if q.Since != nil {
		w.and("e.occurred_at >= ?", micros(*q.Since))
	}
	if len(q.Types) > 0 {
		w.in("e.event_type", q.Types)
	}
	from := `select e.seq, e.body from events e where `
	if q.TicketID != "" {
		from = chainOfTicket + `select e.seq, e.body from found e where `
		mark := w.arg(lowerID(q.TicketID))
		from = strings.ReplaceAll(from, "{ticket}", mark)
	}
	limit := w.arg(q.Limit + 1)
	return r.list(from+w.String()+` order by e.seq limit `+limit, w.args...)
}

// chainOfTicket walks from the newest event of a ticket back to the cursor. $1 is
// the tenant and $2 the cursor. It ends at an event that retention has deleted,
// also where it has kept an older one that a delivery still refers to. Each event is
// looked up by its number, and not joined, see bodyOfEvent; one that is gone has a
// prev_seq of null.
const chainOfTicket = `with recursive chain (seq, prev_seq) as (
		select e.seq, e.prev_seq from events e where e.seq = coalesce(
			(select t.last_seq from tickets t where t.tenant_id = $1 and t.ticket_id = {ticket}),
			(select d.last_seq from ticket_ends d where d.tenant_id = $1 and d.ticket_id = {ticket}))
		union all
		select c.prev_seq, (select e.prev_seq from events e where e.seq = c.prev_seq) from chain c where c.prev_seq > $2),
	found (tenant_id, seq, event_type, occurred_at, body) as (
		select $1, c.seq, (select e.event_type from events e where e.seq = c.seq),
			(select e.occurred_at from events e where e.seq = c.seq), (select e.body from events e where e.seq = c.seq)
		from chain c where c.prev_seq is not null)
	`

// cursorMark begins every cursor, so that a cursor of another form can follow in
// a later release.
const cursorMark = "c1-"

func formatCursor(seq int64) string { return cursorMark + strconv.FormatInt(seq, 36) }

func parseCursor(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	digits, ok := strings.CutPrefix(text, cursorMark)
	seq, err := strconv.ParseInt(digits, 36, 64)
	if !ok || err != nil || formatCursor(seq) != text || seq < 0 {
		return 0, fault.Field("after", "Invalid cursor")
	}
	return seq, nil
}

// Event returns the full envelope of one event as it was frozen at its commit.
func (s *Store) Event(ctx context.Context, tenant, eventID string) (json.RawMessage, error) {
	var body []byte
	err := s.reader(ctx).row(`select body from events where tenant_id = $1 and event_id = $2`,
		tenant, lowerID(eventID)).Scan(&body)
	return body, found(err, "Event not found")
}
