package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
)

// replayPage is how many events a replay looks at in one transaction or one
// statement: few enough that a write that waits behind it waits for
// milliseconds.
const replayPage = 300

// Why a replay job ended before it was done.
const (
	CancelledByUser     = "user"             // somebody asked for it
	CancelledByDisable  = "webhook_disabled" // its webhook was switched off
	CancelledByDeletion = "webhook_deleted"  // its webhook was deleted
)

// Replay is a job that sends events again, or for the first time, in the
// background. It is made by StartReplay and by UpdateWebhook, goes on page by
// page with ReplayNext, and survives the process.
type Replay struct {
	TenantID     string
	ReplayID     string
	WebhookID    string
	Only         string    // ReplayFailed, ReplayAll or ReplayMissed
	EventIDs     []string  // the events that were chosen; nil for a job of a time
	Since, Until time.Time // of occurred_at, inclusive; with ReplayMissed the outages that it makes up for
	Status       string    // running, done or cancelled
	CancelReason string    // one of the Cancelled constants; "" unless cancelled
	Queued       int       // events that were queued so far
	Skipped      int       // events that were looked at and left alone so far
	CreatedAt    time.Time
	FinishedAt   *time.Time // nil while it runs
}

// Lane is the queue that the job fills.
func (r *Replay) Lane() Lane { return Lane{r.TenantID, r.WebhookID} }

// MaxReplayEvents bounds the events that are chosen for one replay.
const MaxReplayEvents = 200

// ReplayQuery says what a replay is about: a time, or events that were chosen.
type ReplayQuery struct {
	Since    time.Time  // inclusive
	Until    *time.Time // inclusive; nil means now
	EventIDs []string   // at most MaxReplayEvents; nil means a time, otherwise Since and Until are those of the events
	Only     string     // ReplayFailed or ReplayAll
}

// ReplayCount is how many events a replay would queue, by the reason why.
type ReplayCount struct {
	Abandoned int         // their chains ended without a delivery
	Missed    int         // they were never queued, since the webhook was inactive
	Delivered int         // they were delivered, and are sent once more
	Left      []LeftAlone // of ReplayQuery.EventIDs, those that are not queued; nil for a time
}

// LeftAlone is an event that was chosen and that a replay does not queue.
type LeftAlone struct {
	EventID string
	Reason  string // one of the Left constants
}

// Why a replay leaves an event alone.
const (
	LeftDelivered = "delivered" // it was delivered, and only what failed was asked for
	LeftPending   = "pending"   // an attempt is planned anyway
	LeftNotOwed   = "not_owed"  // the webhook was never to get it
	LeftExpired   = "expired"   // the log may have forgotten what became of it
	LeftUnknown   = "unknown"   // the feed does not have it, or not any more
)

// Total is the sum.
func (c ReplayCount) Total() int { return c.Abandoned + c.Missed + c.Delivered }

func (c *ReplayCount) add(class replayClass) {
	switch class {
	case classAbandoned:
		c.Abandoned++
	case classMissed:
		c.Missed++
	case classDelivered:
		c.Delivered++
	case classNone:
	}
}

const replayColumns = `tenant_id, replay_id, webhook_id, scope, status, cancel_reason, since_at, until_at, until_given,
	after_seq, end_seq, queued, skipped, created_at, finished_at, event_ids`

// replayRow is a job with what only the store needs.
type replayRow struct {
	Replay
	untilGiven bool
	after, end int64
}

func scanReplay(row scanner) (replayRow, error) {
	var r replayRow
	var since, until, created int64
	var finished sql.NullInt64
	var events sql.NullString
	err := row.Scan(&r.TenantID, &r.ReplayID, &r.WebhookID, &r.Only, &r.Status, &r.CancelReason, &since, &until,
		&r.untilGiven, &r.after, &r.end, &r.Queued, &r.Skipped, &created, &finished, &events)
	if err != nil {
		return r, err
	}
	r.Since, r.Until, r.CreatedAt, r.FinishedAt = instant(since), instant(until), instant(created), instantPtr(finished)
	return r, fromJSON(events, &r.EventIDs)
}

// span is what the job has yet to look at.
func (r *replayRow) span(s *Store, now time.Time) span {
	sp := span{
		lane: r.Lane(), scope: r.Only, since: micros(r.Since), until: untilTop,
		after: r.after, end: r.end, oldest: s.oldest(now), events: r.EventIDs,
	}
	if r.untilGiven {
		sp.until = micros(r.Until)
	}
	return sp
}

// errInactive answers to a replay of a webhook that sends nothing.
var errInactive = fault.New(fault.Conflict,
	"The webhook is not active; switch it on first, with replay_missed to send what it has missed")

// CountReplay says what StartReplay would queue at this moment, and changes
// nothing. Its errors are those of StartReplay.
func (s *Store) CountReplay(ctx context.Context, now time.Time, tenant, webhookID string, q ReplayQuery) (ReplayCount, error) {
	if q.EventIDs != nil {
		s.show(ctx, tenant, lowerID(webhookID)) // what is being sent has no row yet
	}
	r := s.reader(ctx)
	w, err := closedOf(r, tenant, webhookID)
	if err != nil {
		return ReplayCount{}, err
	}
	if !w.IsActive {
		return ReplayCount{}, errInactive
	}
	sp, err := s.between(r, now, Lane{w.TenantID, w.WebhookID}, q)
	if err != nil {
		return ReplayCount{}, err
	}
	return sp.count(r, &w)
}

// count walks a span to its end.
func (sp span) count(q querier, w *delivery.Webhook) (ReplayCount, error) {
	var n ReplayCount
	seen := map[string]bool{} // of the events that were chosen
	for sp.after < sp.end {
		page, err := sp.walk(q, w, replayPage)
		if err != nil {
			return n, err
		}
		for i := range page {
			c := &page[i]
			n.add(c.class)
			if sp.events == nil {
				continue
			}
			seen[c.eventID] = true
			if c.class == classNone {
				n.Left = append(n.Left, LeftAlone{c.eventID, sp.left(c)})
			}
		}
	}
	for _, id := range sp.events {
		if !seen[id] {
			n.Left = append(n.Left, LeftAlone{id, LeftUnknown})
		}
	}
	return n, nil
}

// StartReplay makes a job that queues the events of a time, or those that were
// chosen, again. A webhook has one running job: the same request meanwhile returns
// it, another one is a Conflict, as is a webhook that is not active. What happens
// after the call is not part of the job. Chosen events of which the feed has none
// are Invalid with path event_ids.
func (s *Store) StartReplay(ctx context.Context, now time.Time, tenant, webhookID string, q ReplayQuery) (Replay, error) {
	return write(ctx, s, func(t *tx) (Replay, error) {
		w, err := closedOf(t, tenant, webhookID)
		if err != nil {
			return Replay{}, err
		}
		if !w.IsActive {
			return Replay{}, errInactive
		}
		l := Lane{w.TenantID, w.WebhookID}
		running, err := scanReplay(t.row(`select `+replayColumns+` from replay_jobs
			where tenant_id = $1 and webhook_id = $2 and status = 'running'`, l.TenantID, l.WebhookID))
		switch {
		case err == nil && running.same(q):
			return running.Replay, nil
		case err == nil:
			return Replay{}, fault.New(fault.Conflict,
				"Replay %s of this webhook is still running; wait until it is done, or cancel it", running.ReplayID)
		case !errors.Is(err, sql.ErrNoRows):
			return Replay{}, fmt.Errorf("look for a running replay: %w", err)
		}
		sp, err := s.between(t, now, l, q)
		if err != nil {
			return Replay{}, err
		}
		until := q.Until
		if sp.events != nil {
			until = new(instant(sp.until))
		}
		return t.insertReplay(now, sp, until)
	})
}

// same reports whether the job is the answer to a request.
func (r *replayRow) same(q ReplayQuery) bool {
	if r.EventIDs != nil || q.EventIDs != nil {
		return r.Only == q.Only && slices.Equal(r.EventIDs, chosen(q.EventIDs))
	}
	if r.Only != q.Only || micros(r.Since) != micros(q.Since) || r.untilGiven != (q.Until != nil) {
		return false
	}
	return q.Until == nil || micros(r.Until) == micros(*q.Until)
}

// insertReplay makes a job of a span. until is what was asked for.
func (t *tx) insertReplay(now time.Time, sp span, until *time.Time) (Replay, error) {
	id, end := NewID(), now
	if until != nil {
		end = *until
	}
	events, err := jsonText(sp.events)
	if err != nil {
		return Replay{}, err
	}
	_, err = t.exec(`insert into replay_jobs (tenant_id, replay_id, webhook_id, scope, status, since_at, until_at,
			until_given, after_seq, end_seq, created_at, event_ids)
		values ($1, $2, $3, $4, 'running', $5, $6, $7, $8, $9, $10, $11)`,
		sp.lane.TenantID, id, sp.lane.WebhookID, sp.scope, sp.since, micros(end), until != nil, sp.after, sp.end, micros(now), events)
	if err != nil {
		return Replay{}, fmt.Errorf("insert a replay: %w", err)
	}
	t.out.Replay = true
	return Replay{
		TenantID: sp.lane.TenantID, ReplayID: id, WebhookID: sp.lane.WebhookID, Only: sp.scope, EventIDs: sp.events,
		Since: instant(sp.since), Until: instant(micros(end)), Status: "running", CreatedAt: instant(micros(now)),
	}, nil
}

// ReplayNext lets a job go on by one page of the feed and queues at most room of
// its events. How far it has come is committed with the deliveries, so that no
// event is queued twice by one job, whatever happens to the process. The result
// is the job afterwards; one that does not run any more is left alone.
func (s *Store) ReplayNext(ctx context.Context, now time.Time, tenant, replayID string, room int) (Replay, error) {
	return write(ctx, s, func(t *tx) (Replay, error) {
		r, err := replayOf(t, tenant, replayID)
		if err != nil || r.Status != "running" {
			return r.Replay, err
		}
		w, err := closedOf(t, tenant, r.WebhookID)
		if err != nil {
			return Replay{}, err
		}
		sp := r.span(s, now)
		page, err := sp.walk(t, &w, replayPage)
		if err != nil {
			return Replay{}, err
		}
		queued, looked := 0, 0
		for i := range page {
			c := &page[i]
			if c.class == classNone {
				looked++
				continue
			}
			if queued == room {
				sp.after = c.seq - 1
				break
			}
			if err := t.requeue(now, &w, c); err != nil {
				return Replay{}, err
			}
			queued++
			looked++
		}
		if sp.after >= sp.end {
			r.Status, r.FinishedAt = "done", new(instant(micros(now)))
		}
		r.Queued, r.Skipped = r.Queued+queued, r.Skipped+looked-queued
		_, err = t.exec(`update replay_jobs set after_seq = $3, queued = $4, skipped = $5, status = $6, finished_at = $7
			where tenant_id = $1 and replay_id = $2`,
			tenant, r.ReplayID, sp.after, r.Queued, r.Skipped, r.Status, microsPtr(r.FinishedAt))
		if err != nil {
			return Replay{}, fmt.Errorf("note how far a replay has come: %w", err)
		}
		return r.Replay, nil
	})
}

// RunningReplays returns the jobs of all tenants that have something left to do,
// oldest first.
func (s *Store) RunningReplays(ctx context.Context) ([]Replay, error) {
	rows, err := s.reader(ctx).query(`select ` + replayColumns + ` from replay_jobs
		where status = 'running' order by tenant_id, webhook_id`)
	list, err := collect(rows, err, scanReplay)
	if err != nil {
		return nil, fmt.Errorf("list running replays: %w", err)
	}
	return jobs(list), nil
}

func jobs(list []replayRow) []Replay {
	out := make([]Replay, len(list))
	for i := range list {
		out[i] = list[i].Replay
	}
	return out
}

// DueIn counts the rows of a lane that are due, those included that are being
// sent from the queue. It stops counting at limit. rateLimit is the webhook's own.
func (s *Store) DueIn(ctx context.Context, now time.Time, l Lane, limit int) (n int, rateLimit *delivery.RateLimit, err error) {
	r := s.reader(ctx)
	rows, err := r.query(`select 1 from deliveries
		where tenant_id = $1 and webhook_id = $2 and status = 'pending' and due_at <= $3 limit $4`,
		l.TenantID, l.WebhookID, micros(now), limit)
	due, err := collect(rows, err, scanCount)
	if err != nil {
		return 0, nil, fmt.Errorf("count what a webhook is owed: %w", err)
	}
	var text sql.NullString
	err = r.row(`select rate_limit from webhooks where tenant_id = $1 and webhook_id = $2`, l.TenantID, l.WebhookID).Scan(&text)
	if err != nil {
		return 0, nil, fmt.Errorf("read a rate limit: %w", err)
	}
	return len(due), rateLimit, fromJSON(text, &rateLimit)
}

func replayOf(q querier, tenant, replayID string) (replayRow, error) {
	r, err := scanReplay(q.row(`select `+replayColumns+` from replay_jobs where tenant_id = $1 and replay_id = $2`,
		tenant, lowerID(replayID)))
	return r, found(err, "Replay not found")
}

// Replay returns one job of a webhook.
func (s *Store) Replay(ctx context.Context, tenant, webhookID, replayID string) (Replay, error) {
	return replayIn(s.reader(ctx), tenant, webhookID, replayID)
}

func replayIn(q querier, tenant, webhookID, replayID string) (Replay, error) {
	w, err := closedOf(q, tenant, webhookID)
	if err != nil {
		return Replay{}, err
	}
	r, err := replayOf(q, tenant, replayID)
	if err == nil && r.WebhookID != w.WebhookID {
		return Replay{}, fault.New(fault.NotFound, "Replay not found")
	}
	return r.Replay, err
}

// Replays returns one page of the webhook's jobs, newest first, and how many
// there are. Pages count from 1.
func (s *Store) Replays(ctx context.Context, tenant, webhookID string, page, limit int) ([]Replay, int, error) {
	r := s.reader(ctx)
	w, err := closedOf(r, tenant, webhookID)
	if err != nil {
		return nil, 0, err
	}
	var total int
	if err := r.row(`select count(*) from replay_jobs where tenant_id = $1 and webhook_id = $2`,
		tenant, w.WebhookID).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("count replays: %w", err)
	}
	rows, err := r.query(`select `+replayColumns+` from replay_jobs where tenant_id = $1 and webhook_id = $2
		order by replay_id desc limit $3 offset $4`, tenant, w.WebhookID, limit, (page-1)*limit)
	list, err := collect(rows, err, scanReplay)
	if err != nil {
		return nil, 0, fmt.Errorf("list replays: %w", err)
	}
	return jobs(list), total, nil
}

// CancelReplay ends a running job. What it has queued is sent all the same. A
// job that has ended is a Conflict.
func (s *Store) CancelReplay(ctx context.Context, now time.Time, tenant, webhookID, replayID string) (Replay, error) {
	return write(ctx, s, func(t *tx) (Replay, error) {
		r, err := replayIn(t, tenant, webhookID, replayID)
		if err != nil {
			return Replay{}, err
		}
		if r.Status != "running" {
			return Replay{}, fault.New(fault.Conflict, "The replay has ended already: it is %s", r.Status)
		}
		if err := t.cancelReplay(now, r.Lane(), CancelledByUser); err != nil {
			return Replay{}, err
		}
		return replayIn(t, tenant, webhookID, replayID)
	})
}

// cancelReplay ends the running job of a lane, if there is one.
func (t *tx) cancelReplay(now time.Time, l Lane, reason string) error {
	_, err := t.exec(`update replay_jobs set status = 'cancelled', cancel_reason = $3, finished_at = $4
		where tenant_id = $1 and webhook_id = $2 and status = 'running'`, l.TenantID, l.WebhookID, reason, micros(now))
	if err != nil {
		return fmt.Errorf("cancel a replay: %w", err)
	}
	return nil
}
