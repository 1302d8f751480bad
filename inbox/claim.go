package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

// Claim implements webhook.Deduper. An event that is kept for the worker is Done
// here: it is in good hands.
func (b *Inbox) Claim(ctx context.Context, now time.Time, e *webhook.Envelope, lease time.Duration) (webhook.Claim, error) {
	c := webhook.ClaimOf(e)
	c.Fence = newFence()
	err := b.write(ctx, func(tx *sql.Tx) error {
		until := now.Add(lease)
		n, err := b.exec(ctx, tx, `insert into {p}events (event_id, event_type, lane, occurred_at, received_at, state, fence, lease_until, attempts, expires_at)
			values ($1, $2, $3, $4, $5, 'claimed', $6, $7, 1, $8) on conflict (event_id, event_type) do nothing`,
			c.Key.EventID, c.Key.EventType, laneOf(c), micros(c.OccurredAt), micros(now), c.Fence, micros(until), micros(until.Add(b.retention)))
		if err != nil {
			return err
		}
		if n == 0 {
			if n, c.State, err = b.claimAgain(ctx, tx, now, until, c); err != nil {
				return err
			}
		}
		if n == 0 {
			return nil
		}
		c.State = webhook.Fresh
		var newest sql.NullInt64
		err = b.row(ctx, tx, `select newest from {p}lanes where lane = $1`, laneOf(c)).Scan(&newest)
		c.Stale = newest.Valid && micros(c.OccurredAt) < newest.Int64
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	if err != nil {
		return webhook.Claim{}, fmt.Errorf("inbox: claim: %w", err)
	}
	b.count(ctx, now)
	return c, nil
}

// claimAgain takes over a claim whose lease has ended, or says who has the event.
func (b *Inbox) claimAgain(ctx context.Context, tx *sql.Tx, now, until time.Time, c webhook.Claim) (int64, webhook.State, error) {
	n, err := b.exec(ctx, tx, `update {p}events set fence = $1, lease_until = $2, expires_at = $3, attempts = attempts + 1
		where event_id = $4 and event_type = $5 and state = 'claimed' and lease_until <= $6`,
		c.Fence, micros(until), micros(until.Add(b.retention)), c.Key.EventID, c.Key.EventType, micros(now))
	if err != nil || n > 0 {
		return n, 0, err
	}
	state, err := b.state(ctx, tx, c.Key)
	return 0, state, err
}

// state says what became of an event that is not the caller's.
func (b *Inbox) state(ctx context.Context, tx *sql.Tx, k webhook.Key) (webhook.State, error) {
	var state string
	err := b.row(ctx, tx, `select state from {p}events where event_id = $1 and event_type = $2`, k.EventID, k.EventType).Scan(&state)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return webhook.Running, nil // it was given back a moment ago: the sender comes again
	case state == "claimed":
		return webhook.Running, err
	}
	return webhook.Done, err
}

// Release implements webhook.Deduper.
func (b *Inbox) Release(ctx context.Context, _ time.Time, c webhook.Claim) error {
	err := b.write(ctx, func(tx *sql.Tx) error {
		_, err := b.exec(ctx, tx, `delete from {p}events where event_id = $1 and event_type = $2 and state = 'claimed' and fence = $3`,
			c.Key.EventID, c.Key.EventType, c.Fence)
		return err
	})
	if err != nil {
		return fmt.Errorf("inbox: release: %w", err)
	}
	return nil
}

// Finish implements webhook.Deduper. It does nothing to an event that FinishTx
// has marked already.
func (b *Inbox) Finish(ctx context.Context, now time.Time, c webhook.Claim) error {
	err := b.write(ctx, func(tx *sql.Tx) error {
		if err := b.advance(ctx, tx, now, c); err != nil {
			return err
		}
		_, err := b.exec(ctx, tx, `insert into {p}events as e (event_id, event_type, lane, occurred_at, received_at, state, fence, lease_until, attempts, expires_at)
			values ($1, $2, $3, $4, $5, 'done', 0, 0, 1, $6) on conflict (event_id, event_type) do update
			set state = 'done', fence = 0, lease_until = 0, error = null, body = null, expires_at = excluded.expires_at where e.state <> 'done'`,
			c.Key.EventID, c.Key.EventType, laneOf(c), micros(c.OccurredAt), micros(now), micros(now.Add(b.retention)))
		if err != nil {
			return err
		}
		return b.next(ctx, tx, now, c)
	})
	if err != nil {
		return fmt.Errorf("inbox: finish: %w", err)
	}
	return nil
}

// FinishTx marks the event of a reaction as done in tx, a transaction of the
// reaction's on the inbox's database. c is Envelope.Claim. What else is written
// in tx then happens exactly once: it is committed with the mark, and only if the
// event is still the caller's. With ErrLost, as with any error, roll back.
//
// A reaction that has committed returns nil as usual.
func (b *Inbox) FinishTx(ctx context.Context, tx *sql.Tx, now time.Time, c webhook.Claim) error {
	err := b.advance(ctx, tx, now, c)
	if err != nil {
		return fmt.Errorf("inbox: finish: %w", err)
	}
	n, err := b.exec(ctx, tx, `update {p}events set state = 'done', fence = 0, lease_until = 0, error = null, body = null, expires_at = $1
		where event_id = $2 and event_type = $3 and (state = 'claimed' and fence = $4
			or state = 'queued' and exists (select 1 from {p}lanes l where l.lane = {p}events.lane and l.fence = $4))`,
		micros(now.Add(b.retention)), c.Key.EventID, c.Key.EventType, c.Fence)
	if err != nil {
		return fmt.Errorf("inbox: finish: %w", err)
	}
	if n == 0 {
		return ErrLost
	}
	if err := b.next(ctx, tx, now, c); err != nil {
		return fmt.Errorf("inbox: finish: %w", err)
	}
	return nil
}

// advance notes the time of an event that is done as its ticket's newest, if it
// is. It also locks the lane, so it comes first: whoever adds to the queue of
// this lane has committed before, or waits for us.
func (b *Inbox) advance(ctx context.Context, tx *sql.Tx, now time.Time, c webhook.Claim) error {
	_, err := b.exec(ctx, tx, `insert into {p}lanes as l (lane, newest, fence, expires_at) values ($1, $2, 0, $3)
		on conflict (lane) do update set expires_at = excluded.expires_at,
			newest = case when l.newest > excluded.newest then l.newest else excluded.newest end`,
		laneOf(c), micros(c.OccurredAt), micros(now.Add(b.retention)))
	return err
}

// next gives the lane back, for its next event if there is one. It does nothing
// when the lane is not held by c. The lane is locked already, and this is a
// statement of its own so that it sees every event that was queued until then.
func (b *Inbox) next(ctx context.Context, tx *sql.Tx, now time.Time, c webhook.Claim) error {
	_, err := b.exec(ctx, tx, `update {p}lanes set fence = 0, due_at = case when exists (
			select 1 from {p}events e where e.lane = {p}lanes.lane and e.state = 'queued') then cast($1 as bigint) end
		where lane = $2 and fence = $3`,
		micros(now), laneOf(c), c.Fence)
	return err
}
