package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
)

// Outage is a time in which a webhook was inactive.
type Outage struct {
	DisabledAt time.Time
	EnabledAt  *time.Time // nil while it lasts
	Reason     string     // why: one of the delivery.Disabled constants
}

// MissedEvent is an event that a webhook would have got but for an outage.
type MissedEvent struct {
	EventID, EventType, TicketID string
	OccurredAt                   time.Time
	Dropped                      bool // it was owed when the outage began; otherwise it was not queued
}

// Missed lists what the webhook, as it is now, has missed in its current or last
// outage and not been sent since, oldest first: one page and how many there are
// in all. It is what UpdateWebhook with replayMissed would queue. Without any
// outage in the log's time the first result is nil.
func (s *Store) Missed(ctx context.Context, now time.Time, tenant, webhookID string, page, limit int) (*Outage, []MissedEvent, int, error) {
	r := s.reader(ctx)
	list := []MissedEvent{}
	w, err := closedOf(r, tenant, webhookID)
	if err != nil {
		return nil, nil, 0, err
	}
	out, err := lastOutage(r, &w)
	if err != nil || out == nil {
		return nil, list, 0, err
	}
	l := Lane{w.TenantID, w.WebhookID}
	first, err := missedSince(r, l, micros(out.DisabledAt))
	if err != nil {
		return nil, nil, 0, err
	}
	sp, err := s.since(r, now, l, first)
	if err != nil {
		return nil, nil, 0, err
	}
	w.IsActive = true // as it would be
	total := 0
	for sp.after < sp.end {
		events, err := sp.walk(r, &w, replayPage)
		if err != nil {
			return nil, nil, 0, err
		}
		for _, e := range events {
			if e.class == classNone {
				continue
			}
			if total++; total > (page-1)*limit && len(list) < limit {
				list = append(list, MissedEvent{
					EventID: e.eventID, EventType: e.eventType, TicketID: e.ticketID,
					OccurredAt: instant(e.occurredAt), Dropped: e.class == classAbandoned,
				})
			}
		}
	}
	return out, list, total, nil
}

// lastOutage returns the current outage of w, or the last one.
func lastOutage(q querier, w *delivery.Webhook) (*Outage, error) {
	if !w.IsActive && w.DisabledAt != nil {
		return &Outage{DisabledAt: *w.DisabledAt, Reason: w.DisabledReason}, nil
	}
	var from, to int64
	var o Outage
	err := q.row(`select disabled_at, enabled_at, reason from disabled_periods
		where tenant_id = $1 and webhook_id = $2 order by period_id desc limit 1`, w.TenantID, w.WebhookID).
		Scan(&from, &to, &o.Reason)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the last outage: %w", err)
	}
	o.DisabledAt, o.EnabledAt = instant(from), new(instant(to))
	return &o, nil
}

// missedSince returns when the first of the outages began that a webhook, which
// was switched off at a time, has to be made up for. That is the same time,
// unless the switch-off broke off a job that was making up for an earlier one:
// its owner has asked for those events too.
func missedSince(q querier, l Lane, disabledAt int64) (first int64, err error) {
	err = q.row(`select coalesce(min(since_at), $3) from replay_jobs
		where tenant_id = $1 and webhook_id = $2 and scope = 'missed' and cancel_reason = 'webhook_disabled'
			and finished_at = $3`, l.TenantID, l.WebhookID, disabledAt).Scan(&first)
	if err != nil {
		return 0, fmt.Errorf("look for a replay that was broken off: %w", err)
	}
	return first, nil
}

// missedCount is what replayMissed of a webhook would queue, counted before its
// transaction, which should not hold up all writes for that.
type missedCount struct {
	spec  delivery.Spec // as it will be
	first int64         // see missedSince
	upTo  int64         // the last event that was counted
	n     int
}

// countMissed counts what a webhook with change applied has missed. It returns
// nil when only the transaction can tell: an attempt that was in flight at the
// switch-off may still end either way, or the change cannot be made at all.
func (s *Store) countMissed(ctx context.Context, now time.Time, l Lane, change func(*delivery.Spec) error) (*missedCount, error) {
	r := s.reader(ctx)
	w, err := s.webhookOf(r, l.TenantID, l.WebhookID)
	if err != nil || w.IsActive || w.DisabledAt == nil || change(&w.Spec) != nil {
		return nil, err
	}
	s.show(ctx, l.TenantID, l.WebhookID)
	if due, _, err := s.DueIn(ctx, now, l, 1); err != nil || due > 0 {
		return nil, err
	}
	first, err := missedSince(r, l, micros(*w.DisabledAt))
	if err != nil {
		return nil, err
	}
	sp, err := s.since(r, now, l, first)
	if err != nil {
		return nil, err
	}
	n, err := sp.count(r, &w)
	return &missedCount{spec: w.Spec, first: first, upTo: sp.end, n: n.Total()}, err
}

// endOutage notes that w is active again and what it has missed.
func (t *tx) endOutage(now time.Time, w *delivery.Webhook) error {
	_, err := t.exec(`insert into disabled_periods (tenant_id, webhook_id, period_id, from_seq, to_seq,
			disabled_at, enabled_at, reason)
		select tenant_id, webhook_id, $3, disabled_seq,
			(select coalesce(max(e.seq), 0) from events e where e.tenant_id = $1), disabled_at, $4, disabled_reason
		from webhooks where tenant_id = $1 and webhook_id = $2 and disabled_seq is not null`,
		w.TenantID, w.WebhookID, NewID(), micros(now))
	if err != nil {
		return fmt.Errorf("note the end of an outage: %w", err)
	}
	_, err = t.exec(`update webhooks set disabled_at = null, disabled_seq = null, disabled_reason = ''
		where tenant_id = $1 and webhook_id = $2`, w.TenantID, w.WebhookID)
	if err != nil {
		return fmt.Errorf("mark webhook active: %w", err)
	}
	return nil
}

// replayMissed makes the job that sends what w has missed in the outage that
// has just ended, and returns how many events those are. counted may be nil, or
// out of date.
func (t *tx) replayMissed(now time.Time, w *delivery.Webhook, counted *missedCount) (int, error) {
	l := Lane{w.TenantID, w.WebhookID}
	first, err := missedSince(t, l, micros(*w.DisabledAt))
	if err != nil {
		return 0, err
	}
	sp, err := t.w.s.since(t, now, l, first)
	if err != nil {
		return 0, err
	}
	rest, before := sp, 0
	if counted != nil && counted.first == first && reflect.DeepEqual(counted.spec, w.Spec) {
		rest.after, before = max(sp.after, counted.upTo), counted.n
	}
	n, err := rest.count(t, w)
	if err != nil || before+n.Total() == 0 {
		return 0, err
	}
	_, err = t.insertReplay(now, sp, nil)
	return before + n.Total(), err
}
