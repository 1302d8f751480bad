package store

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const oneDay = 24 * time.Hour

// daysOf returns the days that have a partition, of events or of the log.
func daysOf(t *testing.T, s *Store, name string) []day {
	t.Helper()
	x := must(s.side.BeginTx(t.Context(), nil))(t)
	defer x.Rollback()
	p := daily{name: name}
	return slices.Sorted(maps.Keys(must(p.days(t.Context(), x))(t)))
}

// tableOf returns the partition that the rows of a table are in which meet a
// condition; they must be in one.
func tableOf(t *testing.T, s *Store, table, condition string) (name string) {
	t.Helper()
	err := s.read.QueryRowContext(t.Context(), `select string_agg(distinct tableoid::regclass::text, ' and ') from `+table+` where `+condition).Scan(&name)
	if err != nil {
		t.Fatalf("%s where %s: %v", table, condition, err)
	}
	return name
}

// TestPartitions holds what only a server has: a table for each day.
func TestPartitions(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]func(*testing.T, place){
		"days are made ahead":             daysAreMadeAhead,
		"old days are dropped":            oldDaysAreDropped,
		"what is needed outlives its day": neededOutlivesItsDay,
		"a clock that was ahead":          clockThatWasAhead,
		"a reader that stays long":        readerThatStaysLong,
		"drops under traffic":             dropsUnderTraffic,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onServers(t, test)
		})
	}
}

func forDays(n int) func(*Config) { return func(c *Config) { c.Retention = time.Duration(n) * oneDay } }

func daysAreMadeAhead(t *testing.T, p place) {
	s := openAt(t, p)
	today := dayOf(time.Now())
	for _, name := range []string{"events", "logged_deliveries"} {
		have := daysOf(t, s, name)
		for d := today; d < today+daysAhead; d++ {
			if !slices.Contains(have, d) {
				t.Errorf("after the start %s has %v, not %d", name, have, d)
			}
		}
	}
	later := start().Add(100 * oneDay)
	if _, _, err := s.Sweep(t.Context(), later, 100); err != nil {
		t.Fatal(err)
	}
	want := []day{}
	for d := dayOf(later); d <= dayOf(later)+daysAhead; d++ {
		want = append(want, d)
	}
	for _, name := range []string{"events", "logged_deliveries"} {
		have := daysOf(t, s, name)
		if !slices.Equal(have[:min(len(have), daysAhead+1)], want) {
			t.Errorf("%s has %v, want %v first", name, have, want)
		}
	}
}

// deliverDaily makes and delivers an event on each of some days, after that day was
// made, and returns their ids.
func (l *line) deliverDaily(from time.Time, days int) (ids []string) {
	l.t.Helper()
	for i := range days {
		now := from.Add(time.Duration(i) * oneDay)
		must(0, l.keepDays(l.t.Context(), now))(l.t)
		l.create(now, l.draft(fmt.Sprint("day ", i)))
		b := l.claimOne(now)
		l.answer(b, status(200), now)
		ids = append(ids, b.Deliveries[0].EventID)
	}
	return ids
}

// eventIDs returns the ids of the feed.
func (d *desk) eventIDs() (ids []string) {
	d.t.Helper()
	for _, e := range d.envelopes() {
		ids = append(ids, e.EventID)
	}
	return ids
}

func oldDaysAreDropped(t *testing.T, p place) {
	d := newDesk(t, openAt(t, p, guide, forDays(3)), "acme")
	l := d.hook(start())
	ids := l.deliverDaily(start(), 6) // the last of them drops the first two
	for i, want := range []string{
		"events_20260306", "events_20260307", "events_20260308", "events_20260309",
	} {
		if got := tableOf(t, d.Store, "events", "event_id = '"+ids[i+2]+"'"); got != want {
			t.Errorf("event %d is in %s, want %s", i+2, got, want)
		}
		log := strings.Replace(want, "events", "logged_deliveries", 1)
		if got := tableOf(t, d.Store, "deliveries", "event_id = '"+ids[i+2]+"'"); got != log {
			t.Errorf("its delivery is in %s, want %s", got, log)
		}
	}
	if got := d.eventIDs(); !slices.Equal(got, ids[2:]) {
		t.Errorf("the feed has %v, want %v", got, ids[2:])
	}
	if got := l.log(DeliveryQuery{}); len(got) != 4 {
		t.Errorf("the log has %d rows, want 4", len(got))
	}
	// A day goes when its last microsecond is old enough, and not before.
	end := start().Truncate(oneDay).Add(3 * oneDay) // of the day of ids[2]
	must(0, d.keepDays(t.Context(), end.Add(3*oneDay-time.Microsecond)))(t)
	if got := d.eventIDs(); !slices.Equal(got, ids[2:]) {
		t.Errorf("a day went too soon: %v", got)
	}
	must(0, d.keepDays(t.Context(), end.Add(3*oneDay)))(t)
	if got := d.eventIDs(); !slices.Equal(got, ids[3:]) {
		t.Errorf("the feed has %v, want %v", got, ids[3:])
	}
	// The newest stays for ever, and what follows is numbered after it.
	far := start().Add(900 * oneDay)
	must(0, d.keepDays(t.Context(), far))(t)
	if got := d.eventIDs(); !slices.Equal(got, ids[5:]) {
		t.Errorf("the feed has %v, want %v", got, ids[5:])
	}
	after := must(d.Events(t.Context(), d.TenantID, FeedQuery{}))(t).Next
	d.create(far, d.draft("again"))
	if got := must(d.Events(t.Context(), d.TenantID, FeedQuery{After: after}))(t); len(got.Envelopes) != 1 {
		t.Errorf("%d events after a long pause, want 1", len(got.Envelopes))
	}
}

func neededOutlivesItsDay(t *testing.T, p place) {
	d := newDesk(t, openAt(t, p, guide, forDays(3)), "acme")
	l, other := d.hook(start()), d.hook(start())
	must(0, d.keepDays(t.Context(), start()))(t)
	d.create(start(), d.draft("first"))
	first := other.claimOne(start())
	body := first.Deliveries[0].Body
	other.answer(first, status(200), start().Add(2*oneDay)) // ends two days later, and is logged until then
	b := l.claimOne(start())
	l.answer(b, status(500), start())
	for range keptBodies { // and one: more than one transaction keeps
		d.create(start(), d.draft("owed"))
	}
	now := start().Add(4*oneDay + time.Hour)
	must(0, d.keepDays(t.Context(), start().Add(2*oneDay)))(t)
	d.create(start().Add(2*oneDay), d.draft("newer"))
	must(0, d.keepDays(t.Context(), now))(t)
	if have := daysOf(t, d.Store, "events"); slices.Contains(have, dayOf(start())) {
		t.Fatalf("the first day is still there: %v", have)
	}
	if got := other.log(DeliveryQuery{Status: "delivered"}); len(got) != 1 || !bytes.Equal(got[0].Body, body) {
		t.Errorf("the log has lost what was sent: %d rows", len(got))
	}
	owed := 0
	for seen := map[string]bool{}; ; {
		batch := l.claim(now)
		if len(batch.Deliveries) == 0 {
			break
		}
		for _, c := range batch.Deliveries {
			if len(c.Body) == 0 || seen[c.DeliveryID] {
				t.Fatalf("delivery %s has %d bytes, seen %t", c.DeliveryID, len(c.Body), seen[c.DeliveryID])
			}
			seen[c.DeliveryID] = true
			owed++
			if c.EventID == b.Deliveries[0].EventID {
				sameBody(t, c.Body, b.Deliveries[0].Body)
			}
		}
	}
	if want := keptBodies + 1 + 1; owed != want {
		t.Errorf("%d deliveries are owed, want %d", owed, want)
	}
}

func clockThatWasAhead(t *testing.T, p place) {
	d := newDesk(t, openAt(t, p, guide, forDays(3)), "acme")
	l := d.hook(start())
	must(0, d.keepDays(t.Context(), start()))(t)
	d.create(start(), d.draft("one"))
	d.create(start().Add(50*oneDay), d.draft("from the future"))
	d.create(start(), d.draft("two"))
	ahead := start().Add(50 * oneDay)
	if got := tableOf(t, d.Store, "events", fmt.Sprintf("seq >= %d", dayOf(ahead).firstSeq())); got != "events_rest" {
		t.Errorf("what has no day is in %s", got)
	}
	b := l.claim(ahead)
	if len(b.Deliveries) != 3 {
		t.Fatalf("%d deliveries", len(b.Deliveries))
	}
	l.answer(b, status(200), ahead)
	if got := tableOf(t, d.Store, "deliveries", "true"); got != "logged_deliveries_rest" {
		t.Errorf("what has no day is in %s", got)
	}
	if got := len(d.envelopes()); got != 3 {
		t.Errorf("the feed has %d events", got)
	}
	// Their day is not made, and those after it are.
	d.sweep(ahead)
	if have := daysOf(t, d.Store, "events"); slices.Contains(have, dayOf(ahead)) || !slices.Contains(have, dayOf(ahead)+1) {
		t.Errorf("the days are %v", have)
	}
	d.create(ahead.Add(oneDay), d.draft("three"))
	d.sweep(ahead.Add(5 * oneDay))
	d.sweep(ahead.Add(5 * oneDay))
	if got := d.envelopes(); len(got) != 1 {
		t.Errorf("%d events are left, want the newest", len(got))
	}
	if got := l.log(DeliveryQuery{Status: "delivered"}); len(got) != 0 {
		t.Errorf("%d rows of the log are left", len(got))
	}
}

// A backup reads every table for as long as it takes.
func readerThatStaysLong(t *testing.T, p place) {
	d := newDesk(t, openAt(t, p, guide, forDays(3)), "acme")
	d.hook(start()).deliverDaily(start(), 3)
	x := must(d.read.BeginTx(t.Context(), nil))(t)
	defer x.Rollback() // again, where the test fails
	for _, table := range []string{"events", "deliveries"} {
		if _, err := x.ExecContext(t.Context(), `lock table `+table+` in access share mode`); err != nil {
			t.Fatal(err)
		}
	}
	later := start().Add(10 * oneDay)
	if _, _, err := d.Sweep(t.Context(), later, 100); err != nil {
		t.Errorf("retention under a backup: %v", err)
	}
	d.create(start().Add(2*oneDay), d.draft("meanwhile"))
	if have := daysOf(t, d.Store, "events"); !slices.Contains(have, dayOf(start())) {
		t.Errorf("a table that is read was dropped: %v", have)
	}
	must(0, x.Rollback())(t)
	d.sweep(later)
	if have := daysOf(t, d.Store, "events"); slices.Contains(have, dayOf(start())) || !slices.Contains(have, dayOf(later)) {
		t.Errorf("after the backup the days are %v", have)
	}
}

// Days come and go, from two processes at once, while others write, deliver and
// read. Whoever follows the feed gets every event once.
func dropsUnderTraffic(t *testing.T, p place) {
	d := newDesk(t, openAt(t, p, guide, forDays(2)), "acme")
	twin := beside(t, d.Store, guide, forDays(2))
	l := d.hook(start())
	const writers, days, each = 3, 8, 12
	var today atomic.Int64 // days since the start
	now := func() time.Time { return start().Add(time.Duration(today.Load()) * oneDay) }
	ctx, stop := context.WithCancel(t.Context())
	var others, writing sync.WaitGroup
	background := func(fn func() error) {
		others.Go(func() {
			for ctx.Err() == nil {
				if err := fn(); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for _, s := range []*Store{d.Store, twin} {
		background(func() error { _, _, err := s.Sweep(ctx, now(), 100); return err })
	}
	var seen []string
	after := ""
	follow := func() error {
		page, err := twin.Events(t.Context(), d.TenantID, FeedQuery{After: after})
		for _, e := range page.Envelopes {
			seen = append(seen, envelopeOf(t, e).EventID)
		}
		after = page.Next
		return err
	}
	background(follow)
	delivered := map[string]int{}
	send := func() error {
		b, err := d.Claim(t.Context(), now(), ClaimRequest{Lane: l.lane(), Owner: "a", Limit: 7, Lease: lease})
		if err != nil || len(b.Deliveries) == 0 {
			return err
		}
		for _, c := range b.Deliveries {
			if len(c.Body) == 0 {
				return fmt.Errorf("delivery %s has lost its body", c.DeliveryID)
			}
			delivered[c.EventID]++
		}
		l.answer(b, status(200), now())
		return nil
	}
	background(send)
	background(func() error {
		_, _, err := twin.Deliveries(t.Context(), d.TenantID, l.hook.WebhookID, DeliveryQuery{Page: 1, Limit: 100})
		return err
	})
	for range days {
		for w := range writers {
			s := []*Store{d.Store, twin}[w%2]
			writing.Go(func() {
				for range each {
					_, err := s.CreateTicket(t.Context(), now(), d.Actor, d.draft("x"))
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		writing.Wait()
		today.Add(1)
	}
	stop()
	others.Wait()
	must(0, follow())(t)
	for range writers * days * each {
		must(0, send())(t)
	}
	slices.Sort(seen)
	if n := len(slices.Compact(slices.Clone(seen))); len(seen) != writers*days*each || n != len(seen) {
		t.Errorf("the feed brought %d events, %d different ones, want %d", len(seen), n, writers*days*each)
	}
	for id, n := range delivered {
		if n != 1 {
			t.Errorf("event %s was claimed %d times", id, n)
		}
	}
	if len(delivered) != writers*days*each {
		t.Errorf("%d events were delivered, want %d", len(delivered), writers*days*each)
	}
	if have := daysOf(t, d.Store, "events"); slices.Contains(have, dayOf(start())) {
		t.Errorf("no day was dropped: %v", have)
	}
}

func TestCopiesHaveTheirDays(t *testing.T) {
	t.Parallel()
	p := onPostgres(t)
	from := place{dir: p.dir}
	t.Run("fill", func(t *testing.T) {
		d := newDesk(t, openAt(t, from, guide), "desk")
		l := d.hook(time.Now())
		for i := range 5 {
			now := time.Now().Add(-time.Duration(i) * oneDay)
			d.create(now, d.draft("x"))
			l.answer(l.claimOne(now), status(200), now)
		}
		d.create(time.Now(), d.draft("owed"))
	})
	copyAll(t, from, p)
	s := openAt(t, p)
	if got := tableOf(t, s, "deliveries", "status = 'pending'"); got != "owed_deliveries" {
		t.Errorf("what is owed is in %s", got)
	}
	if got := tableOf(t, s, "deliveries", "status <> 'pending'"); strings.Contains(got, "rest") || strings.Count(got, " and ") != 4 {
		t.Errorf("the log is in %s, want its five days", got)
	}
	if got := tableOf(t, s, "events", "true"); got != "events_embedded" {
		t.Errorf("the events are in %s", got)
	}
	back := place{dir: t.TempDir()}
	copyKeyFile(t, p, back)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	copyAll(t, p, back)
}

// BenchmarkRetention is what it takes until nothing old is left, for events with one
// row of the log each: of a day, and row by row as without partitions.
func BenchmarkRetention(b *testing.B) {
	for _, c := range []struct {
		name string
		made bool
	}{{"rows", false}, {"days", true}} {
		b.Run(c.name, func(b *testing.B) {
			d := benchDeskAt(b, onPostgres(b))
			const rows = 50_000
			old := dayOf(start()) - 40
			total := 0
			for b.Loop() {
				b.StopTimer()
				if c.made {
					must(0, d.makeDays(b.Context(), old, old))(b)
				}
				fillDay(b, d.Store, old, rows)
				b.StartTimer()
				for more := true; more; {
					var err error
					if _, more, err = d.Sweep(b.Context(), start(), 1000); err != nil {
						b.Fatal(err)
					}
				}
				total += 2 * rows
			}
			b.ReportMetric(float64(total)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// fillDay writes events of a day, each with its row of the log.
func fillDay(b *testing.B, s *Store, d day, n int) {
	b.Helper()
	for _, q := range []string{
		`insert into events (seq, prev_seq, tenant_id, event_id, event_type, ticket_id, occurred_at, created_at, body)
			select %[1]d + n, 0, 't' || n %% 50, gen_random_uuid(), 'ticket.updated', gen_random_uuid(), %[2]d + n, %[2]d + n,
				convert_to(repeat('x', 1300), 'UTF8') from generate_series(1, %[3]d) n`,
		`insert into deliveries (tenant_id, delivery_id, webhook_id, event_id, event_type, ticket_id, attempt, step, status,
				due_at, attempted_at, completed_at, created_at, event_seq)
			select tenant_id, gen_random_uuid(), 'w', event_id, event_type, ticket_id, 1, 0, 'delivered', created_at, created_at,
				created_at, created_at, seq from events where seq > %[1]d and seq <= %[1]d + %[3]d`,
	} {
		if _, err := s.read.ExecContext(b.Context(), fmt.Sprintf(q, d.firstSeq(), d.begin(), n)); err != nil {
			b.Fatal(err)
		}
	}
}
