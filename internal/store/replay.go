package store

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/webhook"
)

// What a replay is to send.
const (
	ReplayFailed = "failed" // what was never delivered, the missed included
	ReplayAll    = "all"    // the same, and what was delivered, once more
	ReplayMissed = "missed" // what outages kept back (contract P8): dropped or not queued in them
)

// Why an event is replayed.
type replayClass int

const (
	classNone      replayClass = iota // it is not
	classAbandoned                    // its chain ended without a delivery
	classMissed                       // it was never queued, since the webhook was inactive
	classDelivered                    // it was delivered
)

// span is a part of the feed, and what of it a replay is about.
type span struct {
	lane  Lane
	scope string // ReplayFailed, ReplayAll or ReplayMissed
	// since and until are microseconds. They bound occurred_at, both inclusive.
	// With ReplayMissed since is when the first of the outages began, and bounds
	// no event.
	since, until int64
	after, end   int64 // sequence numbers: what comes after the one, up to the other
	oldest       int64 // what was committed before has left the log, or is about to
	// events are the ids to which the span is limited, as chosen returns them; nil
	// for none but the bounds above.
	events []string
}

// outage is a time in which a webhook was inactive: what follows the one number,
// up to the other, was not queued for it.
type outage struct{ from, to int64 }

// candidate is an event of the feed beside what the log of one webhook says
// about it.
type candidate struct {
	seq                          int64
	eventID, eventType, ticketID string
	occurredAt, createdAt        int64
	chain                        chain
	class                        replayClass
}

// chain sums up every row of one event and one webhook.
type chain struct {
	rows      int
	sent      int           // the highest attempt number that was really sent
	taken     int           // the highest that was sent or belongs to a pending row
	delivered sql.NullInt64 // when one of them succeeded last
	planned   bool          // the schedule goes on: one that nobody asked for by hand is pending
	dropped   sql.NullInt64 // when a switch-off gave one of them up last
	last      sql.NullString
}

// chainColumns are read from deliveries d, all rows of one event and one webhook.
const chainColumns = `count(d.delivery_id),
	coalesce(max(case when d.attempted_at is not null then d.attempt end), 0),
	coalesce(max(case when d.attempted_at is not null or d.status = 'pending' then d.attempt end), 0),
	max(case when d.status = 'delivered' then d.completed_at end),
	coalesce(max(case when d.status = 'pending' and not d.is_manual then 1 end), 0) = 1,
	max(case when d.status = 'abandoned' and d.wait_reason = 'webhook_disabled' then d.completed_at end),
	max(d.delivery_id)`

// dest lists the places of chainColumns.
func (c *chain) dest() []any {
	return []any{&c.rows, &c.sent, &c.taken, &c.delivered, &c.planned, &c.dropped, &c.last}
}

// deliveredSince reports whether the event was delivered after a row of its
// chain was made. What was delivered before that is the reason why a replay made
// the row, not a reason to give it up.
func (c *chain) deliveredSince(made time.Time) bool {
	return c.delivered.Valid && c.delivered.Int64 >= micros(made)
}

// chainOf reads the chain of an event. A chain without rows is the zero value.
func (t *tx) chainOf(tenant, webhookID, eventID string) (chain, error) {
	var c chain
	err := t.row(`select `+chainColumns+` from deliveries d
		where d.tenant_id = $1 and d.event_id = $2 and d.webhook_id = $3`, tenant, eventID, webhookID).Scan(c.dest()...)
	if err != nil {
		return chain{}, fmt.Errorf("chain of event %s: %w", eventID, err)
	}
	return c, nil
}

// walkFeed reads every event of a stretch of the feed.
const walkFeed = `select e.seq, e.event_id, e.event_type, e.ticket_id, e.occurred_at, e.created_at, ` + chainColumns + `
		from events e left join deliveries d
			on d.tenant_id = e.tenant_id and d.event_id = e.event_id and d.webhook_id = $2
		where e.tenant_id = $1 and e.seq > $3 and e.seq <= $4
		group by e.seq order by e.seq limit $5`

// walkChosen reads those of a list, which are found by their ids however far apart
// they lie. The list always has the same length, so that there is one text, and one
// prepared statement, for all lists.
func walkChosen() string {
	return `with c as materialized (
			select seq, event_id, event_type, ticket_id, occurred_at, created_at
			from events where tenant_id = $1 and event_id in (` + marks(5) + `))
		select c.seq, c.event_id, c.event_type, c.ticket_id, c.occurred_at, c.created_at, ` + chainColumns + `
		from c left join deliveries d on d.tenant_id = $1 and d.event_id = c.event_id and d.webhook_id = $2
		where c.seq > $3 and c.seq <= $4
		group by c.seq, c.event_id, c.event_type, c.ticket_id, c.occurred_at, c.created_at order by c.seq`
}

// spanChosen finds the ends of a list.
func spanChosen() string {
	return `select min(e.seq), max(e.seq), min(e.occurred_at), max(e.occurred_at)
		from events e where e.tenant_id = $1 and e.event_id in (` + marks(2) + `)`
}

// marks are the placeholders of a list of events, from a number on.
func marks(first int) string {
	all := make([]string, MaxReplayEvents)
	for i := range all {
		all[i] = "$" + strconv.Itoa(first+i)
	}
	return strings.Join(all, ", ")
}

// padded are the arguments of marks: the last id stands for those that are missing.
func padded(ids []string) []any {
	all := make([]any, MaxReplayEvents)
	for i := range all {
		all[i] = ids[min(i, len(ids)-1)]
	}
	return all
}

// chosen brings a list of event ids into one form: as stored, sorted, each once.
func chosen(ids []string) []string {
	all := lowerIDs(ids)
	slices.Sort(all)
	return slices.Compact(all)
}

// walk reads up to limit events of a span, or all that were chosen, and says of each
// whether it is replayed to w as w is now. The span begins after them then; it is
// empty once everything was read.
func (sp *span) walk(q querier, w *delivery.Webhook, limit int) ([]candidate, error) {
	outages, err := sp.outages(q)
	if err != nil {
		return nil, err
	}
	text, args := walkFeed, []any{sp.lane.TenantID, sp.lane.WebhookID, sp.after, sp.end}
	if sp.events == nil {
		args = append(args, limit)
	} else {
		text, args = walkChosen(), append(args, padded(sp.events)...)
	}
	rows, err := q.query(text, args...)
	page, err := collect(rows, err, func(row scanner) (candidate, error) {
		var c candidate
		err := row.Scan(append([]any{&c.seq, &c.eventID, &c.eventType, &c.ticketID, &c.occurredAt, &c.createdAt},
			c.chain.dest()...)...)
		return c, err
	})
	if err != nil {
		return nil, fmt.Errorf("walk the event feed: %w", err)
	}
	for i := range page {
		c := &page[i]
		if c.class, err = sp.classify(q, w, c, outages); err != nil {
			return nil, fmt.Errorf("event %s: %w", c.eventID, err)
		}
	}
	sp.after = sp.end
	if len(page) == limit {
		sp.after = page[limit-1].seq
	}
	return page, nil
}

// outages returns the times within the span in which the webhook was inactive.
func (sp *span) outages(q querier) ([]outage, error) {
	first := int64(0)
	if sp.scope == ReplayMissed {
		first = sp.since
	}
	rows, err := q.query(`select from_seq, to_seq from disabled_periods
		where tenant_id = $1 and webhook_id = $2 and to_seq > $3 and disabled_at >= $4
		union all
		select disabled_seq, $5 from webhooks
		where tenant_id = $1 and webhook_id = $2 and not is_active and disabled_seq is not null`,
		sp.lane.TenantID, sp.lane.WebhookID, sp.after, first, sp.end)
	list, err := collect(rows, err, func(row scanner) (outage, error) {
		var o outage
		err := row.Scan(&o.from, &o.to)
		return o, err
	})
	if err != nil {
		return nil, fmt.Errorf("read when the webhook was inactive: %w", err)
	}
	return list, nil
}

// classify says why an event is replayed, if it is.
func (sp *span) classify(q querier, w *delivery.Webhook, c *candidate, outages []outage) (replayClass, error) {
	ours := sp.scope == ReplayMissed || c.occurredAt >= sp.since && c.occurredAt <= sp.until
	switch {
	case !ours || c.chain.planned || c.createdAt < sp.oldest:
		return classNone, nil
	case c.chain.rows == 0:
		if !w.Wants(c.eventType) || !missedIn(outages, c.seq) {
			return classNone, nil
		}
		wanted, err := matches(q, w, c)
		if err != nil || !wanted {
			return classNone, err
		}
		return classMissed, nil
	case c.chain.delivered.Valid:
		if sp.scope != ReplayAll {
			return classNone, nil
		}
		return classDelivered, nil
	case sp.scope == ReplayMissed && (!c.chain.dropped.Valid || c.chain.dropped.Int64 < sp.since):
		return classNone, nil
	}
	return classAbandoned, nil
}

// left says why an event is not replayed.
func (sp *span) left(c *candidate) string {
	switch {
	case c.createdAt < sp.oldest:
		return LeftExpired
	case c.chain.planned:
		return LeftPending
	case c.chain.rows == 0:
		return LeftNotOwed
	}
	return LeftDelivered
}

func missedIn(outages []outage, seq int64) bool {
	for _, o := range outages {
		if seq > o.from && seq <= o.to {
			return true
		}
	}
	return false
}

// matches applies the webhook's filter to an event.
func matches(q querier, w *delivery.Webhook, c *candidate) (bool, error) {
	if w.EventFilter == nil {
		return true, nil
	}
	body, err := fullBody(q, w.TenantID, c.eventID)
	if err != nil {
		return false, err
	}
	var env webhook.Envelope
	if err := json.Unmarshal(body, &env); err != nil {
		return false, fmt.Errorf("decode the body: %w", err)
	}
	data, err := env.Ticket()
	if err != nil {
		return false, fmt.Errorf("decode the ticket: %w", err)
	}
	return w.EventFilter.Match(c.ticketID, data), nil
}

// fullBody reads the envelope of an event as it was frozen at its commit.
func fullBody(q querier, tenant, eventID string) ([]byte, error) {
	var body []byte
	err := q.row(`select body from events where tenant_id = $1 and event_id = $2`, tenant, eventID).Scan(&body)
	return body, found(err, "Event not found")
}

// requeue starts a new chain for an event, due now. Its attempt numbers go on
// where the old one's ended, and so do the bytes: those of an event do not
// change for a receiver once they are frozen.
func (t *tx) requeue(now time.Time, w *delivery.Webhook, c *candidate) error {
	var body []byte
	var err error
	switch {
	case c.chain.last.Valid:
		err = t.row(`select body from deliveries where tenant_id = $1 and delivery_id = $2`,
			w.TenantID, c.chain.last.String).Scan(&body)
	case w.PayloadFields["ticket"] != nil:
		if body, err = fullBody(t, w.TenantID, c.eventID); err == nil {
			body, err = delivery.FromFull(body, delivery.Shape{Fields: w.PayloadFields, Threads: t.w.s.cfg.Threads})
		}
	}
	if err != nil {
		return fmt.Errorf("body of event %s: %w", c.eventID, err)
	}
	return t.insertOwed(now, owed{
		lane: Lane{w.TenantID, w.WebhookID}, seq: c.seq, eventID: c.eventID, eventType: c.eventType, ticketID: c.ticketID,
		attempt: c.chain.taken + 1, isTest: w.IsTestMode, body: body,
	})
}

// clockSlack is how far the times of events may be out of the order of their
// commits: a call that waited for the writer, a clock that was set back. A span
// looks at that much more of the feed than its times say.
const clockSlack = time.Hour

// untilTop is the until of a span that ends with what is committed. Events of a
// ticket that changes fast occur ahead of the clock, by a millisecond each.
const untilTop = math.MaxInt64

// between returns the span of what a query is about.
func (s *Store) between(q querier, now time.Time, l Lane, rq ReplayQuery) (span, error) {
	sp := span{lane: l, scope: rq.Only, since: micros(rq.Since), until: untilTop, oldest: s.oldest(now)}
	if rq.EventIDs != nil {
		return sp, sp.choose(q, rq.EventIDs)
	}
	top, err := topOf(q, l.TenantID, 0)
	if err != nil {
		return sp, err
	}
	sp.after, sp.end = top, top
	first, err := firstSince(q, rq.Since.Add(-clockSlack))
	if err != nil {
		return sp, err
	}
	if first.Valid {
		sp.after = min(first.Int64-1, top)
	}
	if rq.Until == nil {
		return sp, nil
	}
	sp.until = micros(*rq.Until)
	behind, err := firstSince(q, rq.Until.Add(clockSlack))
	if behind.Valid {
		sp.end = max(sp.after, min(behind.Int64-1, top))
	}
	return sp, err
}

// choose limits a span to events, from the first of them to the last.
func (sp *span) choose(q querier, ids []string) error {
	if sp.events = chosen(ids); len(sp.events) == 0 || len(sp.events) > MaxReplayEvents {
		return fault.Field("event_ids", "must be 1 to %d events", MaxReplayEvents)
	}
	var first, last, since, until sql.NullInt64
	err := q.row(spanChosen(), append([]any{sp.lane.TenantID}, padded(sp.events)...)...).Scan(&first, &last, &since, &until)
	if err != nil {
		return fmt.Errorf("find events by their ids: %w", err)
	}
	if !first.Valid {
		return fault.Field("event_ids", "none of these events is in the event feed")
	}
	sp.after, sp.end, sp.since, sp.until = first.Int64-1, last.Int64, since.Int64, until.Int64
	return nil
}

// since returns the span of what the outages have kept back that began at first
// or later.
func (s *Store) since(q querier, now time.Time, l Lane, first int64) (span, error) {
	sp := span{lane: l, scope: ReplayMissed, since: first, until: untilTop, oldest: s.oldest(now)}
	var err error
	if sp.end, err = topOf(q, l.TenantID, 0); err != nil {
		return sp, err
	}
	// What was dropped is older than the outage that dropped it.
	var dropped, missed sql.NullInt64
	err = q.row(`select min(d.event_seq) from deliveries d
		where d.tenant_id = $1 and d.webhook_id = $2 and d.status = 'abandoned'
			and d.wait_reason = 'webhook_disabled' and d.completed_at >= $3 and d.event_seq > 0`,
		l.TenantID, l.WebhookID, first).Scan(&dropped)
	if err != nil {
		return sp, fmt.Errorf("find the first dropped event: %w", err)
	}
	outages, err := sp.outages(q)
	if err != nil {
		return sp, err
	}
	for _, o := range outages {
		if !missed.Valid || o.from < missed.Int64 {
			missed = sql.NullInt64{Int64: o.from, Valid: true}
		}
	}
	sp.after = sp.end
	if missed.Valid {
		sp.after = min(sp.after, missed.Int64)
	}
	if dropped.Valid {
		sp.after = min(sp.after, dropped.Int64-1)
	}
	return sp, nil
}

// oldest is the retention's bound. An event of which the log's rows are gone
// already would look as if it had never been queued.
func (s *Store) oldest(now time.Time) int64 { return micros(now.Add(-s.cfg.Retention)) }

// topOf returns the number of the tenant's newest event, 0 if it has none after a
// number.
func topOf(q querier, tenant string, after int64) (top int64, err error) {
	// The range, which is one tenant, makes PostgreSQL take the index of the tenant
	// and not walk back through the events of all others.
	err = q.row(`select coalesce((select seq from events where tenant_id >= $1 and tenant_id <= $1
		and seq > $2 order by tenant_id desc, seq desc limit 1), 0)`, tenant, after).Scan(&top)
	if err != nil {
		return 0, fmt.Errorf("end of the event feed: %w", err)
	}
	return top, nil
}

// firstSince returns the number of the first event, of any tenant, that was
// committed at a time or later; it is not valid without one. Numbers are given in
// the order of the commits, so the time can be searched for in halves.
func firstSince(q querier, at time.Time) (seq sql.NullInt64, err error) {
	var low, high sql.NullInt64
	err = q.row(`select (select min(seq) from events), (select max(seq) from events)`).
		Scan(&low, &high)
	if err != nil {
		return seq, fmt.Errorf("find the ends of the event feed: %w", err)
	}
	// Events before from are too old, and seq is the first known to be young enough.
	for from, to := low.Int64, high.Int64; low.Valid && from <= to; {
		middle := from + (to-from)/2
		var found, created int64
		err := q.row(`select seq, created_at from events where seq >= $1 order by seq limit 1`, middle).Scan(&found, &created)
		if err != nil {
			return seq, fmt.Errorf("find an event by its time: %w", err)
		}
		if created >= micros(at) {
			seq, to = sql.NullInt64{Int64: found, Valid: true}, middle-1
		} else {
			from = found + 1
		}
	}
	return seq, nil
}
