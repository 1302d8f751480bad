package inbox

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ticketwire/ticketwire/webhook"
)

// clocked opens an inbox whose time is what *now says.
func clocked(t testing.TB, p place, now *time.Time) *Inbox {
	t.Helper()
	return p.open(t, func(c *Config) { c.Now = func() time.Time { return *now } })
}

// take leases the next event, nil for none.
func take(t testing.TB, b *Inbox) *job {
	t.Helper()
	j, err := b.take(context.Background(), Work{}.withDefaults())
	must(t, err)
	return j
}

// effects is a table of the application beside the inbox: no constraint keeps an
// event from having two.
type effects struct {
	b    *Inbox
	db   *sql.DB
	name string
}

func effectsTable(t testing.TB, b *Inbox, db *sql.DB) effects {
	t.Helper()
	e := effects{b: b, db: db, name: b.prefix + "effects"}
	_, err := db.ExecContext(context.Background(), `create table `+e.name+` (event_id text not null)`)
	must(t, err)
	return e
}

// once has the effect and marks the event, in one transaction.
func (f effects) once(ctx context.Context, e *webhook.Envelope) error {
	tx, err := f.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	if _, err := tx.ExecContext(ctx, `insert into `+f.name+` (event_id) values ($1)`, e.EventID); err != nil {
		return err
	}
	if err := f.b.FinishTx(ctx, tx, time.Now(), e.Claim); err != nil {
		return err
	}
	return tx.Commit()
}

func (f effects) count(ctx context.Context, t testing.TB, id string) int {
	t.Helper()
	var n int
	must(t, f.db.QueryRowContext(ctx, `select count(*) from `+f.name+` where event_id = $1`, id).Scan(&n))
	return n
}

func testKeep(t *testing.T, p place) {
	b := p.open(t)
	h := webhook.NewInboxHandler(secrets, b.Keep, quiet(webhook.WithTickets("T1"))...)
	_, body := event(t, "e1", "T1", time.Now())
	_, unwatched := event(t, "e2", "T2", time.Now())
	unknown := bodyOf("e3", "ticket.reopened", time.Now(), `"ticket_id":"T1"`)
	test := bodyOf("e4", webhook.Test, time.Now(), "")
	for _, body := range [][]byte{body, body, unwatched, unknown, test} {
		if code := post(h, body); code != 200 {
			t.Fatalf("answer %d to %s", code, body)
		}
	}
	want := map[webhook.Outcome]int64{webhook.Kept: 1, webhook.Duplicate: 1, webhook.Unwatched: 1, webhook.IgnoredType: 1, webhook.TestEvent: 1}
	for o, n := range h.Counts() {
		if n != want[o] {
			t.Errorf("%d of %s, want %d", n, o, want[o])
		}
	}
	if s := stats(t, b); s.Queued != 1 || time.Since(s.Oldest) > time.Minute || s.Dead != 0 {
		t.Errorf("stats %+v", s)
	}

	// Another process finds it.
	var runs atomic.Int32
	results := make(chan Result, 1)
	other := p.open(t)
	work(t, other, counter(&runs), Work{Observe: func(_ context.Context, r Result) { results <- r }})
	if r := <-results; r.Outcome != webhook.Processed || r.Event.EventID != "e1" || r.Attempt != 1 || r.Err != nil || r.Dead {
		t.Errorf("result %+v", r)
	}
	drained(t, b)
	if code := post(h, body); code != 200 || h.Counts()[webhook.Duplicate] != 2 {
		t.Errorf("answer %d, outcomes %v", code, h.Counts())
	}
	if runs.Load() != 1 || stats(t, b).Queued != 0 {
		t.Errorf("%d reactions, want 1", runs.Load())
	}
}

// A handler that reacts and one that keeps may meet on one table while a program
// is changed over.
func testKeepAndClaim(t *testing.T, p place) {
	ctx, now := t.Context(), start()
	b := p.open(t)
	e, body := event(t, "e1", "T1", now)
	claim(t, b, now, e, webhook.Fresh)
	if state, err := b.Keep(ctx, now, e, body); state != webhook.Running || err != nil {
		t.Errorf("Keep of what is being processed = %s, %v: it would be acknowledged too early", state, err)
	}
	now = now.Add(lease)
	if state, err := b.Keep(ctx, now, e, body); state != webhook.Fresh || err != nil {
		t.Errorf("Keep after the lease = %s, %v, want fresh", state, err)
	}
	claim(t, b, now, e, webhook.Done)
}

func testPoison(t *testing.T, p place) {
	var broken atomic.Bool
	broken.Store(true)
	var runs, good atomic.Int32
	b := p.open(t)
	dead := make(chan Result, 10)
	poison := keep(t, b, time.Now(), "poison", "T1", time.Now())
	keep(t, b, time.Now(), "behind it", "T1", time.Now().Add(time.Second))
	work(t, b, func(_ context.Context, e *webhook.Envelope) error {
		switch {
		case e.EventID != "poison":
			good.Add(1)
		case broken.Load():
			if runs.Add(1)%2 == 0 {
				panic("boom\x00\xff")
			}
			return errors.New("cannot be done")
		case !e.Claim.Stale:
			return errors.New("it is older than what was done and not marked so")
		}
		return nil
	}, Work{Attempts: 4, Observe: func(_ context.Context, r Result) {
		if r.Dead {
			dead <- r
		}
	}})
	if r := <-dead; r.Attempt != 4 || r.Outcome != webhook.ReactionFailed {
		t.Errorf("dead after %+v", r)
	}
	drained(t, b)
	if runs.Load() != 4 || good.Load() != 1 {
		t.Errorf("%d runs of the poison and %d of what was behind it, want 4 and 1", runs.Load(), good.Load())
	}
	list, err := b.DeadLetters(t.Context(), DeadLetter{}, 10)
	must(t, err)
	if len(list) != 1 || list[0].Key.EventID != "poison" || list[0].TicketID != "t1" || list[0].Attempts != 4 ||
		!strings.Contains(list[0].Error, "boom") || !strings.Contains(string(list[0].Body), `"poison"`) || !list[0].OccurredAt.Equal(poison.OccurredAt.Time) {
		t.Fatalf("dead letters %+v", list)
	}
	if more, err := b.DeadLetters(t.Context(), list[0], 10); len(more) != 0 || err != nil {
		t.Errorf("after the last one: %v, %v", more, err)
	}
	broken.Store(false)
	must(t, b.Replay(t.Context(), time.Now(), list[0].Key))
	eventually(t, "the replayed event is done", func() bool { s := stats(t, b); return s.Queued == 0 && s.Dead == 0 })
	if err := b.Replay(t.Context(), time.Now(), list[0].Key); !errors.Is(err, ErrNotDead) {
		t.Errorf("a second replay: %v, want %v", err, ErrNotDead)
	}
}

func testDiscard(t *testing.T, p place) {
	ctx, now := t.Context(), start()
	b := clocked(t, p, &now)
	e := keep(t, b, now, "e1", "", now)
	must(t, b.fail(ctx, take(t, b), errors.New("no"), time.Time{}))
	list, err := b.DeadLetters(ctx, DeadLetter{}, 10)
	must(t, err)
	if len(list) != 1 || list[0].TicketID != "" {
		t.Fatalf("dead letters %+v", list)
	}
	must(t, b.Discard(ctx, now, list[0].Key))
	if err := b.Discard(ctx, now, list[0].Key); !errors.Is(err, ErrNotDead) {
		t.Errorf("a second discard: %v", err)
	}
	claim(t, b, now, e, webhook.Done)
	if s := stats(t, b); s.Dead != 0 {
		t.Errorf("stats %+v", s)
	}
}

// A worker stands still for longer than its lease: another one takes over, and
// the first cannot change anything any more.
func testTakeover(t *testing.T, p place) {
	ctx, now := t.Context(), start()
	b := clocked(t, p, &now)
	f := effectsTable(t, b, b.db)
	keep(t, b, now, "e1", "T1", now)
	first := take(t, b)
	now = now.Add(time.Minute - time.Microsecond)
	if j := take(t, b); j != nil {
		t.Fatalf("taken over before the end of the lease: %+v", j)
	}
	now = now.Add(time.Microsecond)
	second := take(t, b)
	if second == nil || second.attempt != 2 || second.event.EventID != "e1" {
		t.Fatalf("took %+v", second)
	}
	if err := b.fail(ctx, first, errors.New("late"), now); !errors.Is(err, ErrLost) {
		t.Errorf("a late failure: %v, want %v", err, ErrLost)
	}
	if err := f.once(ctx, first.event); !errors.Is(err, ErrLost) {
		t.Errorf("a late transaction: %v, want %v", err, ErrLost)
	}
	must(t, f.once(ctx, second.event))

	// What the first one does late leaves the ticket in the hands of who has it.
	keep(t, b, now, "e2", "T1", now)
	keep(t, b, now, "e3", "T1", now)
	if j := take(t, b); j.event.EventID != "e2" {
		t.Fatalf("took %s, want e2", j.event.EventID)
	}
	must(t, b.Finish(ctx, now, first.event.Claim))
	if j := take(t, b); j != nil {
		t.Errorf("took %s beside e2", j.event.EventID)
	}
	must(t, b.Finish(ctx, now, second.event.Claim))
	if n := f.count(ctx, t, "e1"); n != 1 {
		t.Errorf("%d effects, want 1", n)
	}
	if err := f.once(ctx, second.event); !errors.Is(err, ErrLost) {
		t.Errorf("a second transaction: %v, want %v", err, ErrLost)
	}
}

// A process that dies with an event in every attempt must not do so for ever.
func testLastAttempt(t *testing.T, p place) {
	now := start()
	b := clocked(t, p, &now)
	keep(t, b, now, "killer", "T1", now)
	keep(t, b, now, "next", "T1", now.Add(time.Second))
	attempts := 0
	for j := take(t, b); j.event.EventID == "killer"; j = take(t, b) {
		attempts++
		now = now.Add(time.Minute) // and then: kill -9
	}
	if want := (Work{}).withDefaults().Attempts; attempts != want {
		t.Errorf("%d attempts, want %d", attempts, want)
	}
	if s := stats(t, b); s.Dead != 1 {
		t.Errorf("stats %+v, want the killer dead", s)
	}
}

// Effects in the inbox's database happen once, whatever happens to the worker
// after the commit, and not at all when it fails before.
func testTransaction(t *testing.T, p place) {
	b := p.open(t)
	f := effectsTable(t, b, p.pool(t))
	const events = 40
	for i := range events {
		keep(t, b, time.Now(), fmt.Sprint("e", i), fmt.Sprint("T", i%7), time.Now())
	}
	var n atomic.Int32
	work(t, b, func(ctx context.Context, e *webhook.Envelope) error {
		if n.Add(1)%3 == 0 {
			return errors.New("before it began")
		}
		if err := f.once(ctx, e); err != nil {
			return err
		}
		if n.Add(1)%3 == 0 {
			return errors.New("after the commit")
		}
		return nil
	}, Work{})
	drained(t, b)
	for i := range events {
		if got := f.count(t.Context(), t, fmt.Sprint("e", i)); got != 1 {
			t.Errorf("e%d has %d effects, want 1", i, got)
		}
	}
}

// Two workers with many slots each, tickets with many events that came in any
// order, and failures: never two events of one ticket at once, and each ticket's
// in the order in which they occurred.
func testOrder(t *testing.T, p place) {
	const tickets, each = 12, 15
	type name struct{ ticket, n int }
	var all []name
	for i := range tickets {
		for n := range each {
			all = append(all, name{i, n})
		}
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	boxes := []*Inbox{p.open(t), p.open(t)}
	for _, e := range all {
		keep(t, boxes[0], time.Now(), fmt.Sprintf("%d-%d", e.ticket, e.n), fmt.Sprint("T", e.ticket), start().Add(time.Duration(e.n)*time.Millisecond))
	}
	var (
		mu     sync.Mutex
		inside = map[string]bool{}
		done   = map[string][]string{}
	)
	react := func(_ context.Context, e *webhook.Envelope) error {
		id := e.TicketID()
		mu.Lock()
		if inside[id] {
			t.Errorf("two events of %s at once", id)
		}
		inside[id] = true
		mu.Unlock()
		<-time.After(rand.N(3 * time.Millisecond))
		mu.Lock()
		defer mu.Unlock()
		inside[id] = false
		if e.Claim.Stale {
			t.Errorf("%s came after a newer one", e.EventID)
		}
		if rand.N(5) == 0 {
			return errors.New("again")
		}
		done[id] = append(done[id], e.EventID)
		return nil
	}
	for _, b := range boxes {
		work(t, b, react, Work{Concurrency: 6, Attempts: 100})
	}
	drained(t, boxes[0])
	mu.Lock()
	defer mu.Unlock()
	for i := range tickets {
		var want []string
		for n := range each {
			want = append(want, fmt.Sprintf("%d-%d", i, n))
		}
		if got := done[fmt.Sprint("t", i)]; !slices.Equal(got, want) {
			t.Errorf("ticket %d was processed in the order %v", i, got)
		}
	}
}

// testOrderModel holds the queue against a plain one under random calls: which
// tickets are busy, which event of a ticket comes next, whether it is stale, and
// that nothing is ever lost.
func testOrderModel(t *testing.T, p place) {
	type queued struct {
		id, ticket         string
		occurred, received time.Time
		attempts           int
	}
	now := start()
	b := clocked(t, p, &now)
	cleared := func() {
		for _, table := range []string{"events", "lanes"} {
			_, err := b.exec(context.Background(), b.db, `delete from {p}`+table)
			must(t, err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		cleared()
		now = start()
		ctx, seq := context.Background(), 0
		lanes := map[string][]*queued{} // by ticket, in the order of processing
		busy := map[string]time.Time{}  // by ticket: until when nobody else gets it
		newest := map[string]time.Time{}
		held := map[string]*job{}
		tickets := []string{"t1", "t2", "t3"}
		somebody := func(t *rapid.T) string {
			if len(held) == 0 {
				t.Skip("nobody holds an event")
			}
			return rapid.SampledFrom(slices.Sorted(maps.Keys(held))).Draw(t, "ticket")
		}
		t.Repeat(map[string]func(*rapid.T){
			"keep": func(t *rapid.T) {
				seq++
				q := &queued{
					id: fmt.Sprintf("e%04d", seq), ticket: rapid.SampledFrom(tickets).Draw(t, "ticket"),
					occurred: start().Add(time.Duration(rapid.IntRange(0, 5).Draw(t, "occurred")) * time.Millisecond), received: now,
				}
				body := bodyOf(q.id, webhook.TicketUpdated, q.occurred, fmt.Sprintf(`"ticket_id":%q`, q.ticket))
				e := &webhook.Envelope{EventID: q.id, EventType: webhook.TicketUpdated, OccurredAt: webhook.At(q.occurred), Data: fmt.Appendf(nil, `{"ticket_id":%q}`, q.ticket)}
				if state, err := b.Keep(ctx, now, e, body); err != nil || state != webhook.Fresh {
					t.Fatalf("Keep = %s, %v", state, err)
				}
				lane := append(lanes[q.ticket], q)
				slices.SortStableFunc(lane, func(a, b *queued) int {
					return cmp.Or(a.occurred.Compare(b.occurred), a.received.Compare(b.received), cmp.Compare(a.id, b.id))
				})
				lanes[q.ticket] = lane
			},
			"take": func(t *rapid.T) {
				var free []string
				for _, id := range tickets {
					if len(lanes[id]) > 0 && !busy[id].After(now) {
						free = append(free, id)
					}
				}
				j, err := b.take(ctx, Work{Attempts: 1000}.withDefaults())
				if err != nil {
					t.Fatal(err)
				}
				if j == nil {
					if len(free) > 0 {
						t.Fatalf("nothing to take, but %v are free", free)
					}
					return
				}
				id := j.event.TicketID()
				if !slices.Contains(free, id) {
					t.Fatalf("took an event of %s, which is busy until %s at %s", id, busy[id], now)
				}
				first := lanes[id][0]
				first.attempts++
				if j.event.EventID != first.id || j.attempt != first.attempts || j.event.Claim.Stale != first.occurred.Before(newest[id]) {
					t.Fatalf("took %s, attempt %d, stale %t, want %+v with newest %s", j.event.EventID, j.attempt, j.event.Claim.Stale, first, newest[id])
				}
				held[id], busy[id] = j, now.Add(time.Minute)
			},
			"finish": func(t *rapid.T) {
				id := somebody(t)
				j := held[id]
				delete(held, id)
				if err := b.Finish(ctx, now, j.event.Claim); err != nil {
					t.Fatal(err)
				}
				lanes[id] = slices.DeleteFunc(lanes[id], func(q *queued) bool { return q.id == j.event.EventID })
				busy[id] = now
				if at := j.event.OccurredAt.Time; at.After(newest[id]) {
					newest[id] = at
				}
			},
			"fail": func(t *rapid.T) {
				id := somebody(t)
				again := now.Add(time.Duration(rapid.IntRange(0, 120).Draw(t, "pause")) * time.Second)
				if err := b.fail(ctx, held[id], errors.New("no"), again); err != nil {
					t.Fatal(err)
				}
				delete(held, id)
				busy[id] = again
			},
			"die": func(t *rapid.T) { delete(held, somebody(t)) },
			"wait": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 50).Draw(t, "seconds")) * time.Second)
				maps.DeleteFunc(held, func(id string, _ *job) bool { return !busy[id].After(now) }) // leases that others may take
			},
		})
	})
}

// Events that are kept at the moment at which their ticket's last one is done
// must find somebody to process them.
func testKeepBesideWork(t *testing.T, p place) {
	const senders, each = 4, 60
	boxes := []*Inbox{p.open(t), p.open(t)}
	var runs atomic.Int32
	for _, b := range boxes {
		work(t, b, counter(&runs), Work{Poll: time.Millisecond})
	}
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for i := range each {
				keep(t, boxes[s%2], time.Now(), fmt.Sprintf("%d-%d", s, i), fmt.Sprint("T", i%2), time.Now())
			}
		})
	}
	wg.Wait()
	drained(t, boxes[0])
	if runs.Load() != senders*each {
		t.Errorf("%d reactions, want %d", runs.Load(), senders*each)
	}
}

func testSkipStale(t *testing.T, p place) {
	ctx, now := t.Context(), time.Now()
	b := p.open(t)
	newer, _ := event(t, "newer", "T1", now)
	must(t, b.Finish(ctx, now, claim(t, b, now, newer, webhook.Fresh)))
	keep(t, b, now, "older", "T1", now.Add(-time.Minute))
	var runs atomic.Int32
	results := make(chan Result, 1)
	work(t, b, counter(&runs), Work{SkipStale: true, Observe: func(_ context.Context, r Result) { results <- r }})
	if r := <-results; r.Outcome != webhook.SkippedStale || r.Err != nil {
		t.Errorf("result %+v", r)
	}
	drained(t, b)
	if runs.Load() != 0 {
		t.Error("the reaction saw it")
	}
}

// Work lets a reaction finish when it is told to end, and claims nothing more.
func testDrain(t *testing.T, p place) {
	b := p.open(t)
	keep(t, b, time.Now(), "e1", "T1", time.Now())
	entered, leave := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() {
		defer close(over)
		b.Work(ctx, func(ctx context.Context, _ *webhook.Envelope) error {
			close(entered)
			<-leave
			return ctx.Err()
		}, Work{})
	}()
	<-entered
	cancel()
	keep(t, b, time.Now(), "e2", "T2", time.Now())
	select {
	case <-over:
		t.Error("Work ended before its reaction")
	default:
	}
	close(leave)
	<-over
	if s := stats(t, b); s.Queued != 1 {
		t.Errorf("%d queued, want e2 alone", s.Queued)
	}
}
