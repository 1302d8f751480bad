package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ticketwire/ticketwire/webhook"
)

const lease = 45 * time.Second

// claim fails the test unless the claim has the state.
func claim(t testing.TB, b *Inbox, now time.Time, e *webhook.Envelope, want webhook.State) webhook.Claim {
	t.Helper()
	c, err := b.Claim(context.Background(), now, e, lease)
	if err != nil || c.State != want {
		t.Fatalf("Claim = %s, %v, want %s", c.State, err, want)
	}
	return c
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Claims live in the database: each step uses another Inbox.
func testClaim(t *testing.T, p place) {
	ctx, now := t.Context(), start()
	one, two := p.open(t), p.open(t)
	e, _ := event(t, "e1", "T1", now)
	c := claim(t, one, now, e, webhook.Fresh)
	claim(t, two, now, e, webhook.Running)
	must(t, two.Release(ctx, now, c))
	slow := claim(t, one, now, e, webhook.Fresh)
	if slow.Fence == c.Fence {
		t.Error("two claims have one fence")
	}
	must(t, one.Release(ctx, now, c)) // given back already: not the second one
	claim(t, two, now.Add(lease-time.Microsecond), e, webhook.Running)

	later := now.Add(lease)
	second := claim(t, two, later, e, webhook.Fresh)
	must(t, one.Release(ctx, later, slow))
	claim(t, one, later, e, webhook.Running)
	must(t, one.Finish(ctx, later, slow)) // late, but its work counts
	claim(t, two, later, e, webhook.Done)
	must(t, two.Release(ctx, later, second))
	claim(t, two, later, e, webhook.Done)

	alias := *e
	alias.EventType = webhook.TicketClosed
	must(t, one.Finish(ctx, later, claim(t, one, later, &alias, webhook.Fresh)))
	claim(t, two, later, &alias, webhook.Done)
}

// testClaimModel holds the inbox against a plain map under random calls, as the
// tests of webhook do with Memory.
func testClaimModel(t *testing.T, p place) {
	type held struct {
		fence int64
		until time.Time
		done  bool
	}
	boxes := []*Inbox{p.open(t), p.open(t)}
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		ctx, now := context.Background(), start()
		model := map[webhook.Key]held{}
		var claims []webhook.Claim
		b := func() *Inbox { return boxes[rapid.IntRange(0, 1).Draw(t, "box")] }
		pick := func() webhook.Claim { return rapid.SampledFrom(claims).Draw(t, "claim") }
		actions := map[string]func(*rapid.T){
			"claim": func(t *rapid.T) {
				e := &webhook.Envelope{
					EventID:    fmt.Sprint(run, rapid.SampledFrom([]string{"a", "b"}).Draw(t, "id")),
					EventType:  rapid.SampledFrom([]string{"x", "y"}).Draw(t, "type"),
					OccurredAt: webhook.At(now),
				}
				want, m := webhook.Fresh, model[webhook.KeyOf(e)]
				switch {
				case m.done:
					want = webhook.Done
				case m.until.After(now):
					want = webhook.Running
				}
				c, err := b().Claim(ctx, now, e, lease)
				if err != nil || c.State != want {
					t.Fatalf("Claim(%v) = %s, %v, want %s", c.Key, c.State, err, want)
				}
				if want == webhook.Fresh {
					model[c.Key] = held{fence: c.Fence, until: now.Add(lease)}
					claims = append(claims, c)
				}
			},
			"wait": func(t *rapid.T) { now = now.Add(time.Duration(rapid.IntRange(1, 60).Draw(t, "seconds")) * time.Second) },
		}
		end := map[string]func(webhook.Claim) error{
			"finish": func(c webhook.Claim) error {
				model[c.Key] = held{done: true}
				return b().Finish(ctx, now, c)
			},
			"finish in a transaction": func(c webhook.Claim) error {
				m := model[c.Key]
				var want error
				if m.done || m.fence != c.Fence {
					want = ErrLost
				} else {
					model[c.Key] = held{done: true}
				}
				box := b()
				if err := box.write(ctx, func(tx *sql.Tx) error { return box.FinishTx(ctx, tx, now, c) }); !errors.Is(err, want) {
					return fmt.Errorf("FinishTx: %w, want %w", err, want)
				}
				return nil
			},
			"release": func(c webhook.Claim) error {
				if m := model[c.Key]; !m.done && m.fence == c.Fence {
					delete(model, c.Key)
				}
				return b().Release(ctx, now, c)
			},
		}
		for name, f := range end {
			actions[name] = func(t *rapid.T) {
				if len(claims) == 0 {
					t.Skip("nothing is claimed")
				}
				if err := f(pick()); err != nil {
					t.Fatal(err)
				}
			}
		}
		t.Repeat(actions)
	})
}

// Case 112 across two processes' worth of handlers.
func testCopies(t *testing.T, p place) {
	const copies = 100
	entered, leave := make(chan struct{}), make(chan struct{})
	var runs, busy, ok atomic.Int32
	react := func(context.Context, *webhook.Envelope) error {
		if runs.Add(1) == 1 {
			close(entered)
		}
		<-leave
		return nil
	}
	_, body := event(t, "e1", "T1", time.Now())
	var handlers []http.Handler
	for range 2 {
		handlers = append(handlers, webhook.NewHandler(secrets, react, quiet(webhook.WithDeduper(p.open(t)))...))
	}
	var wg sync.WaitGroup
	for i := range copies {
		wg.Go(func() {
			switch code := post(handlers[i%2], body); code {
			case http.StatusServiceUnavailable:
				if busy.Add(1) == copies-1 {
					close(leave)
				}
			case http.StatusOK:
				ok.Add(1)
			default:
				t.Errorf("answer %d", code)
			}
		})
	}
	<-entered
	wg.Wait()
	if runs.Load() != 1 || ok.Load() != 1 {
		t.Errorf("%d reactions, %d answers of 200, want 1 and 1", runs.Load(), ok.Load())
	}
	if code := post(handlers[0], body); code != http.StatusOK || runs.Load() != 1 {
		t.Errorf("afterwards: answer %d, %d reactions", code, runs.Load())
	}
}

func testStaleClaim(t *testing.T, p place) {
	ctx, now := t.Context(), start()
	b := p.open(t)
	finish := func(id, ticket string, occurred time.Time, stale bool) {
		t.Helper()
		e, _ := event(t, id, ticket, occurred)
		c := claim(t, b, now, e, webhook.Fresh)
		if c.Stale != stale {
			t.Errorf("%s: stale = %t, want %t", id, c.Stale, stale)
		}
		must(t, b.Finish(ctx, now, c))
	}
	finish("e2", "T1", now, false)
	finish("e1", "t1", now.Add(-2*time.Millisecond), true)
	finish("e9", "T1", now.Add(-time.Millisecond), true) // the older one has not moved it back
	finish("e3", "T1", now, false)                       // the same millisecond: nobody knows
	finish("e4", "T2", now.Add(-time.Hour), false)
	finish("e5", "T1", now.Add(time.Second), false)
	finish("e6", "T1", now.Add(time.Millisecond), true)
	finish("e7", "", now.Add(-time.Hour), false)
	finish("e8", "", now.Add(-2*time.Hour), false)
}

// The handler's reaction writes and marks in one transaction. It is the last
// moment at which a crash can strike: the commit decides.
func testHandlerTransaction(t *testing.T, p place) {
	b := p.open(t)
	ctx, db := t.Context(), p.pool(t)
	effects := effectsTable(t, b, db)
	crash := errors.New("the process dies after its commit")
	h := webhook.NewHandler(secrets, func(ctx context.Context, e *webhook.Envelope) error {
		if err := effects.once(ctx, e); err != nil {
			return err
		}
		return crash
	}, quiet(webhook.WithDeduper(b))...)
	_, body := event(t, "e1", "T1", time.Now())
	if code := post(h, body); code != http.StatusInternalServerError {
		t.Fatalf("answer %d, want 500", code)
	}
	// The sender comes again, to a release that must not have undone the mark.
	if code := post(h, body); code != http.StatusOK {
		t.Errorf("answer %d, want 200", code)
	}
	if n := effects.count(ctx, t, "e1"); n != 1 {
		t.Errorf("%d effects, want 1", n)
	}
}

func testOpenTogether(t *testing.T, p place) {
	var wg sync.WaitGroup
	for range 8 {
		db := p.pool(t)
		wg.Go(func() {
			if _, err := Open(t.Context(), Config{DB: db, Dialect: p.dialect, Prefix: p.prefix}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()

	// And beside somebody who is at work, with rows of both tables locked.
	b := p.open(t)
	e := keep(t, b, start(), "e1", "T1", start())
	tx, err := b.db.BeginTx(t.Context(), nil)
	must(t, err)
	defer func() { _ = tx.Rollback() }()
	claimed := take(t, b)
	if claimed.event.EventID != e.EventID {
		t.Fatalf("took %s", claimed.event.EventID)
	}
	if p.dialect == PostgreSQL { // SQLite has one writer
		must(t, b.FinishTx(t.Context(), tx, time.Now(), claimed.event.Claim))
	}
	p.impatient().open(t)
}

// Another process holds the tables: the handler answers 503 in both ways of use,
// in time, and takes the same event when the lock is gone.
// testGivenBack asks about an event that another has given back between two statements:
// whoever acknowledged it as done would lose it.
func testGivenBack(t *testing.T, p place) {
	b := p.open(t)
	must(t, b.write(t.Context(), func(tx *sql.Tx) error {
		state, err := b.state(t.Context(), tx, webhook.Key{EventID: "e1", EventType: webhook.TicketUpdated})
		if state != webhook.Running {
			t.Errorf("got %s, want running", state)
		}
		return err
	}))
}

// spoilCommits lets every commit fail that has added an event: what was written is
// checked at the end of the transaction only. mend ends that.
func (p place) spoilCommits(t *testing.T) (mend func()) {
	t.Helper()
	name := p.prefix + "spoiled"
	setup, drop := []string{
		"create table " + name + "_parents (id integer primary key)",
		"create table " + name + " (id integer references " + name + "_parents (id) deferrable initially deferred)",
		"create trigger " + name + "_event after insert on " + p.prefix + "events begin insert into " + name + " values (1); end",
	}, "drop trigger "+name+"_event"
	if p.dialect == PostgreSQL {
		setup, drop = []string{
			"create function " + name + "() returns trigger language plpgsql as $$ begin raise exception 'spoiled'; end $$",
			"create constraint trigger " + name + "_event after insert on " + p.prefix + "events deferrable initially deferred for each row execute function " + name + "()",
		}, drop+" on "+p.prefix+"events"
	}
	db := p.pool(t)
	for _, q := range setup {
		_, err := db.ExecContext(t.Context(), q)
		must(t, err)
	}
	return func() {
		_, err := db.ExecContext(t.Context(), drop)
		must(t, err)
	}
}

// testCommitFails has a database that takes every statement and not the commit. Nothing
// may be acknowledged then, and nothing be done.
func testCommitFails(t *testing.T, p place) {
	if p.dialect == SQLite {
		p.dsn += "&_pragma=foreign_keys(on)"
	}
	var runs atomic.Int32
	b := p.open(t)
	mend := p.spoilCommits(t)
	handlers := map[string]http.Handler{
		"claim": webhook.NewHandler(secrets, counter(&runs), quiet(webhook.WithDeduper(b))...),
		"keep":  webhook.NewInboxHandler(secrets, b.Keep, quiet()...),
	}
	for name, h := range handlers {
		_, body := event(t, name, "T1", time.Now())
		if code := post(h, body); code != http.StatusServiceUnavailable {
			t.Errorf("%s: answer %d without a commit, want 503", name, code)
		}
	}
	if s := stats(t, b); runs.Load() != 0 || s.Queued != 0 {
		t.Errorf("%d reactions, %+v", runs.Load(), s)
	}
	mend()
	for name, h := range handlers {
		_, body := event(t, name, "T1", time.Now())
		if code := post(h, body); code != http.StatusOK {
			t.Errorf("%s: answer %d afterwards, want 200", name, code)
		}
	}
	if s := stats(t, b); runs.Load() != 1 || s.Queued != 1 {
		t.Errorf("%d reactions, %+v", runs.Load(), s)
	}
}

func testLocked(t *testing.T, p place) {
	var runs atomic.Int32
	b := p.impatient().open(t)
	handlers := map[string]http.Handler{
		"claim": webhook.NewHandler(secrets, counter(&runs), quiet(webhook.WithDeduper(b))...),
		"keep":  webhook.NewInboxHandler(secrets, b.Keep, quiet()...),
	}
	conn, err := p.pool(t).Conn(t.Context())
	must(t, err)
	defer conn.Close()
	lock := []string{"begin immediate"}
	if p.dialect == PostgreSQL {
		lock = []string{"begin", "lock table " + p.prefix + "events"}
	}
	for _, s := range lock {
		_, err := conn.ExecContext(t.Context(), s)
		must(t, err)
	}
	for name, h := range handlers {
		_, body := event(t, name, "T1", time.Now())
		if code := post(h, body); code != http.StatusServiceUnavailable {
			t.Errorf("%s: answer %d while locked, want 503", name, code)
		}
	}
	_, err = conn.ExecContext(t.Context(), "rollback")
	must(t, err)
	for name, h := range handlers {
		_, body := event(t, name, "T1", time.Now())
		if code := post(h, body); code != http.StatusOK {
			t.Errorf("%s: answer %d afterwards, want 200", name, code)
		}
	}
	work(t, b, counter(&runs), Work{})
	drained(t, b)
	if runs.Load() != 2 {
		t.Errorf("%d reactions, want 2", runs.Load())
	}
}

// The database goes away for good: 503, and Work still ends when it is told to.
func testAway(t *testing.T, p place) {
	b := p.open(t)
	keep(t, b, start(), "e1", "T1", start())
	stop := work(t, b, func(context.Context, *webhook.Envelope) error { return nil }, Work{})
	drained(t, b)
	must(t, b.db.Close())
	for _, h := range []http.Handler{
		webhook.NewHandler(secrets, nil, quiet(webhook.WithDeduper(b))...),
		webhook.NewInboxHandler(secrets, b.Keep, quiet()...),
	} {
		w := httptest.NewRecorder()
		_, body := event(t, "e2", "T1", time.Now())
		h.ServeHTTP(w, request(body))
		if w.Code != http.StatusServiceUnavailable {
			t.Errorf("answer %d %q, want 503", w.Code, w.Body)
		}
	}
	stop()
}

func testPurge(t *testing.T, p place) {
	ctx, now := t.Context(), start()
	b := p.open(t)
	for i := range 25 {
		e, _ := event(t, fmt.Sprint("old", i), fmt.Sprint("T", i%5), now)
		must(t, b.Finish(ctx, now, claim(t, b, now, e, webhook.Fresh)))
	}
	keep(t, b, now, "queued", "T9", now)
	worked := keep(t, b, now, "worked", "T7", now)
	must(t, b.Finish(ctx, now, webhook.ClaimOf(worked)))
	taken, body := event(t, "taken", "T6", now) // by a handler that died with it
	claim(t, b, now, taken, webhook.Fresh)
	if state, err := b.Keep(ctx, now.Add(lease), taken, body); state != webhook.Fresh || err != nil {
		t.Fatalf("Keep = %s, %v", state, err)
	}
	keep(t, b, now, "dead", "T5", now)
	_, err := b.db.ExecContext(ctx, b.text(`update {p}events set state = 'dead' where event_id = 'dead'`))
	must(t, err)
	forgotten, _ := event(t, "forgotten", "T8", now)
	claim(t, b, now, forgotten, webhook.Fresh) // and then: kill -9, and no redelivery

	almost := now.Add(webhook.DefaultRetention - time.Microsecond)
	if n, err := b.Purge(ctx, almost, 100); n != 0 || err != nil {
		t.Fatalf("Purge = %d, %v before the retention has ended", n, err)
	}
	old, _ := event(t, "old3", "T3", now)
	claim(t, b, almost, old, webhook.Done)

	late := now.Add(webhook.DefaultRetention + lease)
	var steps []int
	for {
		n, err := b.Purge(ctx, late, 10)
		must(t, err)
		if steps = append(steps, n); n == 0 {
			break
		}
		if n > 20 {
			t.Errorf("one purge took %d rows with a limit of 10", n)
		}
	}
	if len(steps) != 4 { // 27 events and 5 tickets, ten of each at a time
		t.Errorf("purged %v", steps)
	}
	claim(t, b, late, old, webhook.Fresh)
	claim(t, b, late, worked, webhook.Fresh)
	if s := stats(t, b); s.Queued != 2 || s.Dead != 1 {
		t.Errorf("%+v after the purge, want 2 queued and 1 dead: what is kept is never purged", s)
	}
}

// Without anybody calling Purge, old events go as new ones come.
func testPurgeAlong(t *testing.T, p place) {
	b := p.open(t, func(c *Config) { c.Retention = time.Hour })
	ctx, now := t.Context(), start()
	e, _ := event(t, "old", "T1", now)
	must(t, b.Finish(ctx, now, claim(t, b, now, e, webhook.Fresh)))
	now = now.Add(2 * time.Hour)
	for range purgeEvery {
		claim(t, b, now, e, webhook.Done)
		if b.seen.Load()%purgeEvery == 0 {
			break
		}
	}
	claim(t, b, now, e, webhook.Fresh)
}
