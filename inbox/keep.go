package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

// Keep commits a verified event for the worker: it is a webhook.Keep. body is the
// event as it was signed. Use it, too, to put events into the inbox that were
// fetched from the event feed: the bytes of one (client.Event.Raw) are body, and
// json.Unmarshal makes the envelope of them. Those that are there already stay as
// they are.
func (b *Inbox) Keep(ctx context.Context, now time.Time, e *webhook.Envelope, body []byte) (webhook.State, error) {
	c, state := webhook.ClaimOf(e), webhook.Fresh
	err := b.write(ctx, func(tx *sql.Tx) error {
		// A handler that reacts by itself may have died with the event in hand.
		n, err := b.exec(ctx, tx, `insert into {p}events as e (event_id, event_type, lane, occurred_at, received_at, state, fence, lease_until, attempts, body)
			values ($1, $2, $3, $4, $5, 'queued', 0, 0, 0, $6) on conflict (event_id, event_type) do update
			set state = 'queued', received_at = excluded.received_at, fence = 0, lease_until = 0, attempts = 0, body = excluded.body, expires_at = null
			where e.state = 'claimed' and e.lease_until <= excluded.received_at`,
			c.Key.EventID, c.Key.EventType, laneOf(c), micros(c.OccurredAt), micros(now), body)
		if err != nil {
			return err
		}
		if n == 0 {
			state, err = b.state(ctx, tx, c.Key)
			return err
		}
		return b.queue(ctx, tx, now, laneOf(c))
	})
	if err != nil {
		return 0, fmt.Errorf("inbox: keep: %w", err)
	}
	b.count(ctx, now)
	b.nudge()
	return state, nil
}

// queue makes a lane due that has nothing else to do.
func (b *Inbox) queue(ctx context.Context, tx *sql.Tx, now time.Time, lane string) error {
	_, err := b.exec(ctx, tx, `insert into {p}lanes as l (lane, due_at, fence, expires_at) values ($1, $2, 0, $3)
		on conflict (lane) do update set due_at = coalesce(l.due_at, excluded.due_at), expires_at = excluded.expires_at`,
		lane, micros(now), micros(now.Add(b.retention)))
	return err
}

// nudge wakes the worker of this process.
func (b *Inbox) nudge() {
	select {
	case b.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// DeadLetter is an event that failed in every attempt.
type DeadLetter struct {
	Key        webhook.Key
	TicketID   string // "" for an event without one
	OccurredAt time.Time
	ReceivedAt time.Time
	Attempts   int
	Error      string // of the last attempt
	Body       []byte // as it was signed
}

// DeadLetters lists dead letters in the order in which they were received, at
// most limit of those after the given one; a zero DeadLetter begins at the front.
func (b *Inbox) DeadLetters(ctx context.Context, after DeadLetter, limit int) ([]DeadLetter, error) {
	since := int64(-1)
	if !after.ReceivedAt.IsZero() {
		since = micros(after.ReceivedAt)
	}
	rows, err := b.db.QueryContext(ctx, b.text(`select event_id, event_type, lane, occurred_at, received_at, attempts, error, body from {p}events
		where state = 'dead' and (received_at, event_id, event_type) > ($1, $2, $3)
		order by received_at, event_id, event_type limit $4`), since, after.Key.EventID, after.Key.EventType, max(limit, 0))
	if err != nil {
		return nil, fmt.Errorf("inbox: list dead letters: %w", err)
	}
	defer rows.Close()
	var out []DeadLetter
	for rows.Next() {
		var (
			d                  DeadLetter
			occurred, received int64
			cause              sql.NullString
		)
		if err := rows.Scan(&d.Key.EventID, &d.Key.EventType, &d.TicketID, &occurred, &received, &d.Attempts, &cause, &d.Body); err != nil {
			return nil, fmt.Errorf("inbox: list dead letters: %w", err)
		}
		if d.TicketID[:1] == "/" { // see laneOf
			d.TicketID = ""
		}
		d.OccurredAt, d.ReceivedAt, d.Error = instant(occurred), instant(received), cause.String
		out = append(out, d)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("inbox: list dead letters: %w", err)
	}
	return out, nil
}

// ErrNotDead is returned for an event that is no dead letter.
var ErrNotDead = errors.New("inbox: no dead letter has this key")

// Replay puts a dead letter back into the queue, with all its attempts. It may be
// stale by then.
func (b *Inbox) Replay(ctx context.Context, now time.Time, k webhook.Key) error {
	err := b.write(ctx, func(tx *sql.Tx) error {
		var lane string
		err := b.row(ctx, tx, `update {p}events set state = 'queued', attempts = 0
			where event_id = $1 and event_type = $2 and state = 'dead' returning lane`, k.EventID, k.EventType).Scan(&lane)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNotDead
		}
		if err != nil {
			return fmt.Errorf("inbox: replay: %w", err)
		}
		return b.queue(ctx, tx, now, lane)
	})
	if err == nil {
		b.nudge()
	}
	return err
}

// Discard gives a dead letter up: it counts as done.
func (b *Inbox) Discard(ctx context.Context, now time.Time, k webhook.Key) error {
	return b.write(ctx, func(tx *sql.Tx) error {
		n, err := b.exec(ctx, tx, `update {p}events set state = 'done', body = null, expires_at = $1
			where event_id = $2 and event_type = $3 and state = 'dead'`, micros(now.Add(b.retention)), k.EventID, k.EventType)
		if err != nil {
			return fmt.Errorf("inbox: discard: %w", err)
		}
		if n == 0 {
			return ErrNotDead
		}
		return nil
	})
}

// Stats says how much is waiting. Watch Oldest for a worker that stands still,
// and Dead for what needs a person.
type Stats struct {
	Queued int       // kept and not done, those under way included
	Oldest time.Time // when the first of them was received; zero without any
	Dead   int
}

// Stats counts what is waiting. It reads the whole queue.
func (b *Inbox) Stats(ctx context.Context) (Stats, error) {
	var (
		s      Stats
		oldest sql.NullInt64
	)
	err := b.row(ctx, b.db, `select count(*), min(received_at) from {p}events where state = 'queued'`).Scan(&s.Queued, &oldest)
	if err == nil {
		err = b.row(ctx, b.db, `select count(*) from {p}events where state = 'dead'`).Scan(&s.Dead)
	}
	if err != nil {
		return Stats{}, fmt.Errorf("inbox: count: %w", err)
	}
	if oldest.Valid {
		s.Oldest = instant(oldest.Int64)
	}
	return s, nil
}
