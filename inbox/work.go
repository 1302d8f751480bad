package inbox

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

// Work says how the worker works. The zero Work has the defaults.
type Work struct {
	// Concurrency is how many reactions run at a time, each for another ticket; 0
	// means 4.
	Concurrency int
	// Lease is how long a reaction may take, and how long its ticket waits when
	// the process died with it; 0 means a minute. The reaction's context ends
	// with it.
	Lease time.Duration
	// Attempts is after how many failures an event becomes a dead letter; 0 means
	// 15, about an hour with DefaultBackoff. An attempt that died with its
	// process counts.
	Attempts int
	// Backoff returns the pause after the given number of failures; nil means
	// DefaultBackoff.
	Backoff func(failures int) time.Duration
	// Poll is how often the queue is looked at without a sign that something came,
	// for the events that other processes keep; 0 means a second.
	Poll time.Duration
	// SkipStale marks stale events as done without a reaction. Without it they
	// are handed over with Envelope.Claim.Stale set.
	SkipStale bool
	// Observe is called after every attempt, from many goroutines, for metrics.
	Observe func(context.Context, Result)
}

// Result is one attempt to process an event.
type Result struct {
	// Outcome is Processed, SkippedStale, ReactionFailed, or StoreFailed when the
	// reaction is over and could not be recorded, so that it will run again.
	Outcome webhook.Outcome
	Event   *webhook.Envelope
	Attempt int  // from 1
	Dead    bool // this failure was the last one
	Took    time.Duration
	Err     error
}

// DefaultBackoff doubles from 1 second up to 10 minutes, less up to a tenth at
// random, so that what failed together does not come back together.
func DefaultBackoff(failures int) time.Duration {
	d := min(time.Second<<min(max(failures, 1)-1, 20), 10*time.Minute)
	return d - rand.N(d/10)
}

// recordTimeout bounds what is written before and after a reaction, so that a
// database that is away does not keep Work from ending.
const recordTimeout = 10 * time.Second

// job is an event under a lease.
type job struct {
	event   *webhook.Envelope
	attempt int
}

// Work processes what is kept until ctx ends, then lets what is running finish,
// which takes a lease at most, and returns. It does not end for an error: while
// the database does not answer it logs that and tries again. Any number of
// processes may work on the same inbox, and one process may call it once.
//
// A reaction that returns an error or panics runs again after a pause; see the
// package comment for the order of events. It must expect that it ran before.
func (b *Inbox) Work(ctx context.Context, react webhook.Reaction, w Work) {
	w = w.withDefaults()
	slots := make(chan struct{}, w.Concurrency)
	var running sync.WaitGroup
	defer running.Wait()
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		j, err := b.take(ctx, w)
		if j == nil {
			<-slots
			if err != nil {
				b.log.ErrorContext(ctx, "the inbox cannot be read", "error", err)
			}
			if !b.wait(ctx, w, err) {
				return
			}
			continue
		}
		running.Go(func() {
			b.process(context.WithoutCancel(ctx), react, w, j)
			<-slots
			b.nudge() // for the next event of the ticket
		})
	}
}

func (w Work) withDefaults() Work {
	w.Concurrency = or(w.Concurrency, 4)
	w.Lease = or(w.Lease, time.Minute)
	w.Attempts = or(w.Attempts, 15)
	w.Poll = or(w.Poll, time.Second)
	if w.Backoff == nil {
		w.Backoff = DefaultBackoff
	}
	return w
}

// or returns fallback for what is not positive.
func or[T int | time.Duration](v, fallback T) T {
	if v <= 0 {
		return fallback
	}
	return v
}

// wait returns when there may be something to do, false when ctx has ended.
func (b *Inbox) wait(ctx context.Context, w Work, failed error) bool {
	pause := w.Poll
	var due sql.NullInt64
	if failed == nil && b.row(ctx, b.db, `select min(due_at) from {p}lanes where due_at is not null`).Scan(&due) == nil && due.Valid {
		pause = min(pause, max(instant(due.Int64).Sub(b.now()), 0))
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	wake := b.wake
	if failed != nil {
		wake = nil // what comes in meanwhile does not mend the database
	}
	select {
	case <-wake:
	case <-timer.C:
	case <-ctx.Done():
		return false
	}
	return ctx.Err() == nil
}

// take leases the lane that is due first and returns its oldest event, nil when
// no lane is due. An event without attempts left, because a process died in the
// last one, becomes a dead letter here.
func (b *Inbox) take(ctx context.Context, w Work) (*job, error) {
	// Broken off here, a lane would be leased to nobody.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	for {
		j, empty, err := b.takeOne(ctx, w)
		if err != nil || empty || j != nil {
			return j, err
		}
	}
}

// takeOne returns no job when no lane is due (empty), and when the one that was
// had nothing to run.
func (b *Inbox) takeOne(ctx context.Context, w Work) (j *job, empty bool, err error) {
	now, fence := b.now(), newFence()
	var (
		c                  webhook.Claim
		lane               string
		newest             sql.NullInt64
		occurred, attempts int64
		body               []byte
	)
	err = b.write(ctx, func(tx *sql.Tx) error {
		err := b.row(ctx, tx, `update {p}lanes set due_at = $1, fence = $2 where lane = (
			select lane from {p}lanes where due_at <= $3 order by due_at limit 1 {skip}) returning lane, newest`,
			micros(now.Add(w.Lease)), fence, micros(now)).Scan(&lane, &newest)
		if errors.Is(err, sql.ErrNoRows) {
			empty = true
			return nil
		}
		if err != nil {
			return err
		}
		err = b.row(ctx, tx, `update {p}events set attempts = attempts + 1 where (event_id, event_type) = (
			select event_id, event_type from {p}events where lane = $1 and state = 'queued'
			order by occurred_at, received_at, event_id, event_type limit 1)
			returning event_id, event_type, occurred_at, attempts, body`, lane).Scan(&c.Key.EventID, &c.Key.EventType, &occurred, &attempts, &body)
		if errors.Is(err, sql.ErrNoRows) {
			// A lane is due only with events, unless a person has deleted some.
			_, err := b.exec(ctx, tx, `update {p}lanes set fence = 0, due_at = null where lane = $1`, lane)
			return err
		}
		return err
	})
	if err != nil || empty || c.Key.EventID == "" {
		return nil, empty, err
	}
	e := new(webhook.Envelope)
	err = json.Unmarshal(body, e)
	e.Claim = webhook.ClaimOf(e)
	e.Claim.Key, e.Claim.OccurredAt = c.Key, instant(occurred)
	e.Claim.State, e.Claim.Fence, e.Claim.Attempt = webhook.Fresh, fence, int(attempts)
	e.Raw = body
	e.Claim.Stale = newest.Valid && occurred < newest.Int64
	j = &job{event: e, attempt: int(attempts)}
	switch {
	case err != nil: // it was verified and parsed once
		err = fmt.Errorf("read the body: %w", err)
	case j.attempt > w.Attempts:
		err = errors.New("the process ended during the last attempt")
	default:
		return j, false, nil
	}
	if err := b.fail(ctx, j, err, time.Time{}); err != nil {
		return nil, false, err
	}
	b.report(ctx, w, Result{Outcome: webhook.ReactionFailed, Event: e, Attempt: j.attempt, Dead: true, Err: err})
	return nil, false, nil
}

// process reacts to an event and records what became of it.
func (b *Inbox) process(ctx context.Context, react webhook.Reaction, w Work, j *job) {
	start := b.now()
	r := Result{Outcome: webhook.Processed, Event: j.event, Attempt: j.attempt}
	if j.event.Claim.Stale && w.SkipStale {
		r.Outcome = webhook.SkippedStale
	} else if r.Err = run(ctx, react, w.Lease, j.event); r.Err != nil {
		r.Outcome = webhook.ReactionFailed
	}
	now := b.now()
	r.Took = now.Sub(start)

	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	var err error
	if r.Err == nil {
		err = b.Finish(ctx, now, j.event.Claim)
	} else {
		again := now.Add(w.Backoff(j.attempt))
		if r.Dead = j.attempt >= w.Attempts; r.Dead {
			again = time.Time{}
		}
		err = b.fail(ctx, j, r.Err, again)
	}
	if err != nil { // the lease ends, and then it runs again
		r.Outcome, r.Dead, r.Err = webhook.StoreFailed, false, errors.Join(r.Err, err)
	}
	b.report(ctx, w, r)
}

// run calls the reaction. A panic becomes an error.
func run(ctx context.Context, react webhook.Reaction, lease time.Duration, e *webhook.Envelope) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, lease, errors.New("the lease of the event has ended"))
	defer cancel()
	defer func() {
		if v := recover(); v != nil {
			err = &webhook.PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return react(ctx, e)
}

// maxError bounds what is stored of an error.
const maxError = 2000

// fail records a failure: the event is tried again then, or is dead with a zero
// time. A worker that has lost its lease changes nothing.
func (b *Inbox) fail(ctx context.Context, j *job, cause error, again time.Time) error {
	c, now := j.event.Claim, b.now()
	text := []rune(strings.ReplaceAll(cause.Error(), "\x00", "")) // PostgreSQL takes neither zeros nor broken UTF-8
	text = text[:min(len(text), maxError)]
	dead := again.IsZero()
	err := b.write(ctx, func(tx *sql.Tx) error {
		// The lane first, like everybody.
		n, err := b.exec(ctx, tx, `update {p}lanes set due_at = $1 where lane = $2 and fence = $3`, micros(again), laneOf(c), c.Fence)
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrLost
		}
		state := "queued"
		if dead {
			state = "dead"
		}
		if _, err := b.exec(ctx, tx, `update {p}events set state = $1, error = $2 where event_id = $3 and event_type = $4 and state = 'queued'`,
			state, string(text), c.Key.EventID, c.Key.EventType); err != nil {
			return err
		}
		if dead {
			return b.next(ctx, tx, now, c)
		}
		_, err = b.exec(ctx, tx, `update {p}lanes set fence = 0 where lane = $1`, laneOf(c))
		return err
	})
	if err != nil {
		return fmt.Errorf("inbox: record a failure: %w", err)
	}
	return nil
}

// report logs an attempt and shows it to the observer.
func (b *Inbox) report(ctx context.Context, w Work, r Result) {
	level := slog.LevelDebug
	switch {
	case r.Dead || r.Outcome == webhook.StoreFailed:
		level = slog.LevelError
	case r.Err != nil:
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{
		slog.String("outcome", string(r.Outcome)), slog.String("event_id", r.Event.EventID), slog.String("event_type", r.Event.EventType),
		slog.Int("attempt", r.Attempt), slog.Bool("dead", r.Dead), slog.Duration("took", r.Took),
	}
	if r.Err != nil {
		attrs = append(attrs, slog.Any("error", r.Err))
	}
	b.log.LogAttrs(ctx, level, "webhook event processed", attrs...)
	if w.Observe != nil {
		w.Observe(ctx, r)
	}
}
