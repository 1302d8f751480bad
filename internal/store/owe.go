package store

import (
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// owe owes a delivery, due now, to every active webhook of the event's tenant that
// wants the event. seq is the event's number and fullBody what its own row holds;
// only a webhook that gets something else has a body of its own. thread reads the
// ticket's comments, oldest first, and is called at most once.
func (t *tx) owe(now time.Time, ev ticket.Event, seq int64, fullBody []byte, thread func() ([]ticket.Comment, error)) error {
	subscribed, err := t.subscribed(ev.TenantID)
	if err != nil {
		return err
	}
	cut := cutter{tx: t, ev: ev, thread: thread}
	for _, w := range subscribed.active.Match(ev.Type, ev.TicketID, &ev.Data) {
		body, err := cut.body(w, fullBody)
		if err != nil {
			return err
		}
		err = t.insertOwed(now, owed{
			lane: Lane{w.TenantID, w.WebhookID}, seq: seq, eventID: ev.EventID, eventType: ev.Type, ticketID: ev.TicketID,
			attempt: 1, isTest: w.IsTestMode, body: body, full: fullBody,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// cutter makes the bodies of one event for the webhooks that want less or more
// than the full one.
type cutter struct {
	tx     *tx
	ev     ticket.Event
	thread func() ([]ticket.Comment, error)
	read   bool // the thread is in ev.Data.Comments
}

// body returns the webhook's own body, or nil if it gets the full one.
func (c *cutter) body(w *delivery.Webhook, full []byte) ([]byte, error) {
	shape := delivery.Shape{Fields: w.PayloadFields, Threads: c.tx.w.s.cfg.Threads}
	if shape.Fields["ticket"] == nil {
		return nil, nil
	}
	if shape.WantsComments() && !c.read {
		comments, err := c.thread()
		if err != nil {
			return nil, err
		}
		ticket.AddThread(&c.ev.Data, comments)
		c.read = true
	}
	body, err := delivery.Body(delivery.Event{
		EventID: c.ev.EventID, EventType: c.ev.Type, OccurredAt: c.ev.OccurredAt.Time, TenantID: c.ev.TenantID,
	}, &c.ev.Data, shape)
	if err != nil {
		return nil, err
	}
	if string(body) == string(full) {
		return nil, nil
	}
	return body, nil
}

// owed is a delivery that starts a chain.
type owed struct {
	lane                         Lane
	seq                          int64 // of the event
	eventID, eventType, ticketID string
	attempt                      int
	isTest                       bool
	body                         []byte // nil: the event's own
	full                         []byte // the event's own; nil keeps the delivery in the queue
}

// insertPending inserts the row of a delivery that is due since it was made.
const insertPending = `insert into deliveries (tenant_id, delivery_id, webhook_id, event_id, event_type, ticket_id,
		attempt, step, status, is_test, due_at, created_at, body, lease_owner, lease_until, generation, event_seq)
	values ($1, $2, $3, $4, $5, $6, $7, 0, 'pending', $8, $9, $10, $11, $12, $13, $14, $15)`

// insertOwed owes a delivery that is due now. Where the dispatcher has room for
// it, the commit hands it over, see handover.go, or gives it to the node that sends
// it, see given.go; otherwise it waits as a row of the queue.
func (t *tx) insertOwed(now time.Time, o owed) error {
	d := delivery.Delivery{
		TenantID: o.lane.TenantID, DeliveryID: NewID(), WebhookID: o.lane.WebhookID, EventID: o.eventID, EventType: o.eventType,
		TicketID: o.ticketID, Attempt: o.attempt, Status: delivery.Pending, WaitReason: delivery.WaitDue, IsTest: o.isTest,
		DueAt: now, CreatedAt: now,
	}
	d.Body = o.body
	if d.Body == nil {
		d.Body = o.full
	}
	straight := o.full != nil && t.intake != nil
	mine := t.w.s.Mine(o.lane)
	if straight && !mine && t.giveTo(now, o, d) {
		return nil
	}
	if straight && mine && t.intake.Reserve(o.lane, len(d.Body)) {
		t.out.Handed = append(t.out.Handed, Claimed{
			Delivery: d, Owner: t.intake.Owner, Since: now, Generation: 1, until: now.Add(t.intake.Lease), own: o.body, seq: o.seq,
		})
		return nil
	}
	err := t.change("insert delivery", insertPending,
		d.TenantID, d.DeliveryID, d.WebhookID, d.EventID, d.EventType, d.TicketID,
		d.Attempt, d.IsTest, micros(now), micros(now), nullBlob(o.body), nil, nil, 0, o.seq)
	if err != nil {
		return err
	}
	t.due(o.lane)
	return nil
}

// nullBlob keeps an absent body null: drivers write an empty blob for a nil
// slice.
func nullBlob(b []byte) any {
	if b == nil {
		return nil
	}
	return b
}
