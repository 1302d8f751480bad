package store

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/webhook"
)

// replayPage bounds how many bodies a replay holds in memory.
const replayPage = 500

// replay queues what an inactive webhook has missed, oldest first: the
// deliveries that were dropped when it was switched off, then the events since.
// What was delivered by hand in the meantime, or was in flight at the switch-off
// and goes on by itself, is left out. It returns how many deliveries it queued.
func (t *tx) replay(now time.Time, w *delivery.Webhook) (int, error) {
	var since, at sql.NullInt64
	err := t.row(`select disabled_seq, disabled_at from webhooks where tenant_id = $1 and webhook_id = $2`,
		w.TenantID, w.WebhookID).Scan(&since, &at)
	if err != nil {
		return 0, fmt.Errorf("replay: %w", err)
	}
	if !since.Valid {
		return 0, nil
	}
	dropped, err := t.replayDropped(now, w, at.Int64)
	if err != nil {
		return 0, fmt.Errorf("replay dropped deliveries: %w", err)
	}
	missed, err := t.replayMissed(now, w, since.Int64)
	if err != nil {
		return 0, fmt.Errorf("replay missed events: %w", err)
	}
	return dropped + missed, nil
}

// dropped is a delivery that was abandoned unsent by the switch-off.
type dropped struct {
	deliveryID, eventID, eventType, ticketID string
	isTest                                   bool
}

// replayDropped starts a new chain for every chain that the switch-off ended.
// The body is copied: the bytes of an event do not change once it is frozen.
func (t *tx) replayDropped(now time.Time, w *delivery.Webhook, disabledAt int64) (int, error) {
	rows, err := t.query(`select delivery_id, event_id, event_type, ticket_id, is_test from deliveries
		where tenant_id = $1 and webhook_id = $2 and status = 'abandoned' and wait_reason = 'webhook_disabled'
			and completed_at >= $3 and ticket_id <> ''
		order by event_id, delivery_id`, w.TenantID, w.WebhookID, disabledAt)
	list, err := collect(rows, err, func(row scanner) (dropped, error) {
		var d dropped
		err := row.Scan(&d.deliveryID, &d.eventID, &d.eventType, &d.ticketID, &d.isTest)
		return d, err
	})
	if err != nil {
		return 0, err
	}
	n := 0
	for _, d := range list {
		// Read again for each: a chain may have two dropped rows, one of them a
		// person's, and is started once.
		c, err := t.chainOf(w.TenantID, w.WebhookID, d.eventID)
		if err != nil {
			return n, err
		}
		if c.delivered || c.planned {
			continue
		}
		var body []byte
		err = t.row(`select body from deliveries where tenant_id = $1 and delivery_id = $2`, w.TenantID, d.deliveryID).Scan(&body)
		if err != nil {
			return n, err
		}
		err = t.insertOwed(now, owed{
			lane: Lane{w.TenantID, w.WebhookID}, eventID: d.eventID, eventType: d.eventType, ticketID: d.ticketID,
			attempt: c.taken + 1, isTest: d.isTest, body: body,
		})
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// storedEvent is an event of the feed.
type storedEvent struct {
	seq                          int64
	eventID, eventType, ticketID string
	body                         []byte
}

// replayMissed queues the events after seq that the webhook, as it is now,
// would have received.
func (t *tx) replayMissed(now time.Time, w *delivery.Webhook, seq int64) (int, error) {
	n := 0
	for {
		rows, err := t.query(`select seq, event_id, event_type, ticket_id, body from events
			where tenant_id = $1 and seq > $2 order by seq limit $3`, w.TenantID, seq, replayPage)
		page, err := collect(rows, err, func(row scanner) (storedEvent, error) {
			var e storedEvent
			err := row.Scan(&e.seq, &e.eventID, &e.eventType, &e.ticketID, &e.body)
			return e, err
		})
		if err != nil {
			return n, err
		}
		for i := range page {
			e := &page[i]
			seq = e.seq
			queued, err := t.replayEvent(now, w, e)
			if err != nil {
				return n, fmt.Errorf("event %s: %w", e.eventID, err)
			}
			if queued {
				n++
			}
		}
		if len(page) < replayPage {
			return n, nil
		}
	}
}

// replayEvent queues one stored event if the webhook wants it and has not had
// it.
func (t *tx) replayEvent(now time.Time, w *delivery.Webhook, e *storedEvent) (bool, error) {
	if !w.Wants(e.eventType) {
		return false, nil
	}
	var env webhook.Envelope
	if err := json.Unmarshal(e.body, &env); err != nil {
		return false, err
	}
	data, err := env.Ticket()
	if err != nil {
		return false, err
	}
	if !w.EventFilter.Match(e.ticketID, data) {
		return false, nil
	}
	c, err := t.chainOf(w.TenantID, w.WebhookID, e.eventID)
	if err != nil || c.rows > 0 {
		return false, err
	}
	o := owed{
		lane: Lane{w.TenantID, w.WebhookID}, eventID: e.eventID, eventType: e.eventType, ticketID: e.ticketID,
		attempt: 1, isTest: w.IsTestMode,
	}
	if w.PayloadFields["ticket"] != nil {
		o.body, err = delivery.FromFull(e.body, delivery.Shape{Fields: w.PayloadFields, Threads: t.w.s.cfg.Threads})
		if err != nil {
			return false, err
		}
	}
	return true, t.insertOwed(now, o)
}

// chain sums up every row of one event and one webhook.
type chain struct {
	rows      int
	sent      int  // the highest attempt number that was really sent
	taken     int  // the highest that was sent or belongs to a pending row
	delivered bool // one of them succeeded
	planned   bool // the schedule goes on: one that nobody asked for by hand is pending
}

// chainOf reads the chain of an event. A chain without rows is the zero value.
func (t *tx) chainOf(tenant, webhookID, eventID string) (chain, error) {
	var c chain
	err := t.row(`select count(*),
			coalesce(max(case when attempted_at is not null then attempt end), 0),
			coalesce(max(case when attempted_at is not null or status = 'pending' then attempt end), 0),
			coalesce(max(case when status = 'delivered' then 1 end), 0) = 1,
			coalesce(max(case when status = 'pending' and not is_manual then 1 end), 0) = 1
		from deliveries where tenant_id = $1 and event_id = $2 and webhook_id = $3`, tenant, eventID, webhookID).
		Scan(&c.rows, &c.sent, &c.taken, &c.delivered, &c.planned)
	if err != nil {
		return chain{}, fmt.Errorf("chain of event %s: %w", eventID, err)
	}
	return c, nil
}
