package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/webhook"
)

// Target is what the sender needs to know about a webhook: where to send, and
// what to sign with. It is read in the transaction of the claim, so that an
// edit and a rotation hold from the next attempt on.
type Target struct {
	delivery.Webhook
	Secrets Secrets
}

// Claimed is a delivery under a lease. Only the holder may send and record it.
type Claimed struct {
	delivery.Delivery
	Owner      string    // who holds the lease
	Since      time.Time // since when
	Generation int64     // the fence: moves with every claim of the row

	// Of a delivery that was handed over: the end of its lease, its own body where
	// it does not get the event's, and the event's number.
	until time.Time
	own   []byte
	seq   int64
}

// Lane is the queue that the delivery belongs to.
func (c *Claimed) Lane() Lane { return Lane{c.TenantID, c.WebhookID} }

// owner names the dispatcher that is registered here, "" without one. Its leases
// do not run out as long as it lives: it knows in memory what it is sending, and
// a clock that jumps ahead, or a process that was stopped for a while, must not
// make it send that again. It gives back what it does not send. The leases of
// others end at their time.
func (s *Store) owner() string {
	if in := s.intake.Load(); in != nil {
		return in.Owner
	}
	return ""
}

// Batch is what one claim got. Without deliveries the Target is empty.
type Batch struct {
	Target     Target
	Deliveries []Claimed
}

// ClaimRequest asks for due deliveries of one lane.
type ClaimRequest struct {
	Lane
	Owner string        // names the process that sends
	Limit int           // at most that many; at least 1
	Lease time.Duration // longer than an attempt can take, recording included
}

// DueLanes returns the lanes with rows that became due after `after` and until
// upTo and that nobody is sending. A zero after looks at the whole queue, as at
// the start and in the safety poll; leases that ran out are found that way.
func (s *Store) DueLanes(ctx context.Context, after, upTo time.Time) ([]Lane, error) {
	r := s.reader(ctx)
	var rows *sql.Rows
	var err error
	if after.IsZero() {
		// One look per webhook, however long its queue is.
		rows, err = r.query(`select w.tenant_id, w.webhook_id from webhooks w
			where exists (select 1 from deliveries d where d.tenant_id = w.tenant_id and d.webhook_id = w.webhook_id
				and d.status = 'pending' and d.due_at <= $1
				and (d.lease_until is null or d.lease_until <= $1 and d.lease_owner <> $2))`, micros(upTo), s.owner())
	} else {
		rows, err = r.query(`select distinct tenant_id, webhook_id from deliveries
			where status = 'pending' and due_at > created_at and due_at > $1 and due_at <= $2
				and (lease_until is null or lease_until <= $2 and lease_owner <> $3)`,
			micros(after), micros(upTo), s.owner())
	}
	lanes, err := collect(rows, err, func(row scanner) (Lane, error) {
		var l Lane
		err := row.Scan(&l.TenantID, &l.WebhookID)
		return l, err
	})
	if err != nil {
		return nil, fmt.Errorf("find due lanes: %w", err)
	}
	return lanes, nil
}

// NextDue returns when the first pending row after the given time is due; ok is
// false when there is none.
func (s *Store) NextDue(ctx context.Context, after time.Time) (due time.Time, ok bool, err error) {
	var us sql.NullInt64
	err = s.reader(ctx).row(`select min(due_at) from deliveries
		where status = 'pending' and due_at > created_at and due_at > $1`, micros(after)).Scan(&us)
	if err != nil {
		return time.Time{}, false, fmt.Errorf("find the next due delivery: %w", err)
	}
	if !us.Valid {
		return time.Time{}, false, nil
	}
	return instant(us.Int64), true, nil
}

// Target loads a webhook for sending, active or not. Its secrets include one
// whose grace ends later; Secrets.At tells which count at a given time.
func (s *Store) Target(ctx context.Context, l Lane) (Target, error) {
	return s.targetOf(s.reader(ctx), l)
}

func (s *Store) targetOf(q querier, l Lane) (Target, error) {
	w, err := s.webhookOf(q, l.TenantID, l.WebhookID)
	if err != nil {
		return Target{}, err
	}
	secrets, err := s.secretsOf(q, time.Time{}, l)
	return Target{Webhook: w, Secrets: secrets}, err
}

// target is Target as the transaction sees it, but for the health, which may be
// that of an earlier one.
func (t *tx) target(l Lane) (Target, error) {
	r := &t.w.recent
	if known, ok := r.targets[l]; ok {
		return known, nil
	}
	target, err := t.w.s.targetOf(t, l)
	if err == nil {
		if len(r.targets) >= maxTargets {
			clear(r.targets)
		}
		r.targets[l] = target
	}
	return target, err
}

// Claim leases due deliveries of a lane, oldest first. A row whose lease has
// ended can be claimed again, with the same delivery id and attempt number. A
// lane whose webhook is gone or inactive has its rows abandoned and gives an
// empty batch.
func (s *Store) Claim(ctx context.Context, now time.Time, req ClaimRequest) (Batch, error) {
	if req.Limit < 1 { // a negative limit means none to the database
		return Batch{}, fault.New(fault.Internal, "claim: limit %d", req.Limit)
	}
	return write(ctx, s, func(t *tx) (Batch, error) {
		if t.w.shared.away {
			return Batch{}, fault.New(fault.Unavailable, "This node has lost its lease")
		}
		target, err := t.target(req.Lane)
		if fault.Is(err, fault.NotFound) || err == nil && !target.IsActive {
			return Batch{}, t.abandonOwed(now, req.Lane)
		}
		if err != nil {
			return Batch{}, fmt.Errorf("claim deliveries: %w", err)
		}
		claimed, err := t.claim(now, req)
		if err != nil {
			return Batch{}, fmt.Errorf("claim deliveries: %w", err)
		}
		if len(claimed) == 0 {
			return Batch{}, nil
		}
		return Batch{Target: target, Deliveries: claimed}, nil
	})
}

// claim is one statement for the whole batch; the columns it writes are in no
// index.
func (t *tx) claim(now time.Time, req ClaimRequest) ([]Claimed, error) {
	until := now.Add(req.Lease)
	rows, err := t.query(`update deliveries set lease_owner = $4, lease_until = $5, generation = generation + 1
		where status = 'pending' and (tenant_id, delivery_id) in (select d.tenant_id, d.delivery_id from deliveries d
			where d.tenant_id = $1 and d.webhook_id = $2 and d.status = 'pending' and d.due_at <= $3
				and (d.lease_until is null or d.lease_until <= $3 and d.lease_owner <> $7)
			order by d.due_at, d.delivery_id limit $6`+t.w.s.dialect.skip+`)
		returning delivery_id, event_id, event_type, ticket_id, attempt, step, is_test, is_manual, due_at, created_at,
			generation, coalesce(body, (select e.body from events e where e.seq = deliveries.event_seq))`,
		req.TenantID, req.WebhookID, micros(now), req.Owner, micros(until), req.Limit, t.w.s.owner())
	claimed, err := collect(rows, err, func(row scanner) (Claimed, error) {
		c := Claimed{Owner: req.Owner, Since: now}
		c.TenantID, c.WebhookID, c.Status, c.WaitReason = req.TenantID, req.WebhookID, delivery.Pending, delivery.WaitDue
		var due, created int64
		err := row.Scan(&c.DeliveryID, &c.EventID, &c.EventType, &c.TicketID, &c.Attempt, &c.Step, &c.IsTest, &c.IsManual,
			&due, &created, &c.Generation, &c.Body)
		c.DueAt, c.CreatedAt = instant(due), instant(created)
		c.NextRetryAt = &c.DueAt
		return c, err
	})
	// An update returns its rows in any order.
	slices.SortFunc(claimed, func(a, b Claimed) int {
		return cmp.Or(a.DueAt.Compare(b.DueAt), cmp.Compare(a.DeliveryID, b.DeliveryID))
	})
	return claimed, err
}

// Release gives leases back without counting an attempt: the program stops, and
// nothing was sent or nobody will know what became of it. A lease that somebody
// else holds by now is left alone. The rows are due at once.
func (s *Store) Release(ctx context.Context, list []Claimed) error {
	_, err := write(ctx, s, func(t *tx) (struct{}, error) {
		for i := range list {
			c := &list[i]
			if d := t.w.handovers.by[c.DeliveryID]; d != nil {
				if err := t.insertHanded(d, false); err != nil {
					return struct{}{}, fmt.Errorf("release delivery %s: %w", c.DeliveryID, err)
				}
				t.due(c.Lane())
				continue
			}
			n, err := t.exec(`update deliveries set lease_owner = null, lease_until = null
				where tenant_id = $1 and delivery_id = $2 and lease_owner = $3 and generation = $4 and status = 'pending'`,
				c.TenantID, c.DeliveryID, c.Owner, c.Generation)
			if err != nil {
				return struct{}{}, fmt.Errorf("release delivery %s: %w", c.DeliveryID, err)
			}
			if n > 0 {
				t.due(c.Lane())
			}
		}
		return struct{}{}, nil
	})
	return err
}

// ReleaseAll voids every lease, and queues what was handed over and not recorded.
// It is for the start, on an embedded database after LockDeliveries: the process
// that held them is gone. On a server, after Join, what other nodes hold stays.
func (s *Store) ReleaseAll(ctx context.Context) error {
	if s.dialect.server {
		_, err := write(ctx, s, func(t *tx) (struct{}, error) { return struct{}{}, t.recoverHeld() })
		if err != nil {
			return err
		}
		return s.takeOver(ctx)
	}
	_, err := write(ctx, s, func(t *tx) (struct{}, error) {
		if err := t.recoverHanded(); err != nil {
			return struct{}{}, err
		}
		_, err := t.exec(`update deliveries set lease_owner = null, lease_until = null
			where status = 'pending' and lease_until is not null`)
		if err != nil {
			return struct{}{}, fmt.Errorf("release deliveries: %w", err)
		}
		_, err = t.exec(`update mail_outbox set lease_owner = null, lease_until = null
			where sent_at is null and failed_at is null and lease_until is not null`)
		if err != nil {
			return struct{}{}, fmt.Errorf("release mails: %w", err)
		}
		return struct{}{}, nil
	})
	return err
}

// SetWait notes why the due rows of a lane wait: delivery.WaitRateLimited, or
// "" when they do not. until is when that ends, nil if it is not known. The log
// shows it for pending rows.
func (s *Store) SetWait(ctx context.Context, l Lane, reason string, until *time.Time) error {
	_, err := write(ctx, s, func(t *tx) (struct{}, error) {
		_, err := t.exec(`update webhook_health set wait_reason = $3, wait_until = $4
			where tenant_id = $1 and webhook_id = $2`, l.TenantID, l.WebhookID, reason, microsPtr(until))
		if err != nil {
			return struct{}{}, fmt.Errorf("note why a lane waits: %w", err)
		}
		return struct{}{}, nil
	})
	return err
}

// begun is a row that is inserted under a lease, to be sent by the caller.
type begun struct {
	delivery.Delivery
	owner string
	lease time.Duration
	seq   int64 // of the event; 0 of a test
}

// begin inserts a leased row that is due now.
func (t *tx) begin(now time.Time, b begun) (Claimed, error) {
	d := b.Delivery
	d.DeliveryID, d.Status, d.WaitReason, d.DueAt, d.CreatedAt = NewID(), delivery.Pending, delivery.WaitDue, now, now
	_, err := t.exec(`insert into deliveries (tenant_id, delivery_id, webhook_id, event_id, event_type, ticket_id,
			attempt, step, status, is_test, is_manual, due_at, created_at, lease_owner, lease_until, generation, body, event_seq)
		values ($1, $2, $3, $4, $5, $6, $7, $8, 'pending', $9, $10, $11, $11, $12, $13, 1, $14, $15)`,
		d.TenantID, d.DeliveryID, d.WebhookID, d.EventID, d.EventType, d.TicketID, d.Attempt, d.Step,
		d.IsTest, d.IsManual, micros(now), b.owner, micros(now.Add(b.lease)), nullBlob(d.Body), b.seq)
	if err != nil {
		return Claimed{}, fmt.Errorf("insert delivery: %w", err)
	}
	return Claimed{Delivery: d, Owner: b.owner, Since: now, Generation: 1}, nil
}

// BeginTest inserts a test delivery under a lease, to be sent by the caller at
// once (contract section 3.6). It works on an inactive webhook. An idempotency
// key in ctx is ignored: the answer is known later, see KeepAnswer.
func (s *Store) BeginTest(ctx context.Context, now time.Time, tenant, webhookID, owner string, lease time.Duration) (Batch, error) {
	var out Batch
	err := s.do(ctx, func(t *tx) error {
		target, err := t.target(Lane{tenant, lowerID(webhookID)})
		if err != nil {
			return err
		}
		d := delivery.Delivery{
			TenantID: tenant, WebhookID: target.WebhookID, EventID: NewID(), EventType: webhook.Test, Attempt: 1, IsTest: true,
		}
		d.Body = delivery.TestBody(delivery.Event{EventID: d.EventID, EventType: d.EventType, OccurredAt: now, TenantID: tenant},
			target.WebhookID, target.Name)
		c, err := t.begin(now, begun{Delivery: d, owner: owner, lease: lease})
		out = Batch{Target: target, Deliveries: []Claimed{c}}
		return err
	})
	if err != nil {
		return Batch{}, err
	}
	return out, nil
}

// BeginRetry inserts a manual attempt under a lease, to be sent by the caller at
// once. The chain of the event goes on as planned beside it: a pending row keeps
// its due time and only its attempt number moves up. It works on an inactive
// webhook, so that an owner can try his endpoint before he switches it on.
//
// Conflicts: the event was delivered, an attempt of it is being sent at this
// moment, or the webhook was deleted.
func (s *Store) BeginRetry(ctx context.Context, now time.Time, tenant, webhookID, deliveryID, owner string, lease time.Duration) (Batch, error) {
	var out Batch
	err := s.do(ctx, func(t *tx) error {
		// What was handed over has no row yet: it is being sent.
		if d := t.w.handovers.by[lowerID(deliveryID)]; d != nil && d.Lane() == (Lane{tenant, lowerID(webhookID)}) {
			return errBeingSent()
		}
		d, err := deliveryOf(t, tenant, webhookID, deliveryID)
		if err != nil {
			return err
		}
		target, err := t.target(Lane{tenant, d.WebhookID})
		if fault.Is(err, fault.NotFound) {
			return fault.New(fault.Conflict, "Cannot retry: the webhook was deleted")
		}
		if err != nil {
			return err
		}
		c, err := t.beginRetry(now, d, begun{owner: owner, lease: lease})
		out = Batch{Target: target, Deliveries: []Claimed{c}}
		return err
	})
	if err != nil {
		return Batch{}, err
	}
	return out, nil
}

func errBeingSent() error {
	return fault.New(fault.Conflict, "Cannot retry: an attempt of this delivery is being sent now")
}

func (t *tx) beginRetry(now time.Time, d delivery.Delivery, b begun) (Claimed, error) {
	c, err := t.chainOf(d.TenantID, d.WebhookID, d.EventID)
	if err != nil {
		return Claimed{}, err
	}
	if c.deliveredSince(d.CreatedAt) {
		return Claimed{}, fault.New(fault.Conflict, "Cannot retry successful delivery")
	}
	// Two attempts at once could both succeed, which is what the caller wants to
	// avoid when he waits for an answer to this one.
	var sending int
	err = t.row(`select count(*) from deliveries where tenant_id = $1 and event_id = $2 and webhook_id = $3
		and status = 'pending' and (lease_until > $4 or lease_owner = $5)`,
		d.TenantID, d.EventID, d.WebhookID, micros(now), t.w.s.owner()).Scan(&sending)
	if err != nil {
		return Claimed{}, fmt.Errorf("look for an attempt in flight: %w", err)
	}
	if sending > 0 {
		return Claimed{}, errBeingSent()
	}
	if again, err := t.resume(now, d, b); err != nil || again.DeliveryID != "" {
		return again, err
	}
	// The fence moves too: whoever lost the lease of this row would record an
	// attempt number that belongs to the manual attempt now.
	_, err = t.exec(`update deliveries set attempt = attempt + 1, generation = generation + 1,
			lease_owner = null, lease_until = null
		where tenant_id = $1 and event_id = $2 and webhook_id = $3 and status = 'pending'`,
		d.TenantID, d.EventID, d.WebhookID)
	if err != nil {
		return Claimed{}, fmt.Errorf("move the pending attempt: %w", err)
	}
	b.Delivery = delivery.Delivery{
		TenantID: d.TenantID, WebhookID: d.WebhookID, EventID: d.EventID, EventType: d.EventType, TicketID: d.TicketID,
		Attempt: c.sent + 1, Step: d.Step, IsTest: d.IsTest, IsManual: true,
	}
	// The row's own body only: what equals the event's is not stored twice.
	err = t.row(`select body, event_seq from deliveries where tenant_id = $1 and delivery_id = $2`, d.TenantID, d.DeliveryID).Scan(&b.Body, &b.seq)
	if err != nil {
		return Claimed{}, fmt.Errorf("read the body: %w", err)
	}
	claimed, err := t.begin(now, b)
	claimed.Body = d.Body
	return claimed, err
}

// resume claims a manual attempt again whose sender was lost, instead of adding
// another to it. Without one the result is empty.
func (t *tx) resume(now time.Time, d delivery.Delivery, b begun) (Claimed, error) {
	var id string
	err := t.row(`select delivery_id from deliveries where tenant_id = $1 and event_id = $2 and webhook_id = $3
		and status = 'pending' and is_manual limit 1`, d.TenantID, d.EventID, d.WebhookID).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return Claimed{}, nil
	}
	if err != nil {
		return Claimed{}, fmt.Errorf("look for a lost retry: %w", err)
	}
	c := Claimed{Owner: b.owner, Since: now}
	err = t.row(`update deliveries set lease_owner = $3, lease_until = $4, generation = generation + 1
		where tenant_id = $1 and delivery_id = $2 and status = 'pending' returning generation`,
		d.TenantID, id, b.owner, micros(now.Add(b.lease))).Scan(&c.Generation)
	if err != nil {
		return Claimed{}, fmt.Errorf("claim a lost retry: %w", err)
	}
	c.Delivery, err = deliveryOf(t, d.TenantID, d.WebhookID, id)
	return c, err
}
