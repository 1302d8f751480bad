package store

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/filelock"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

func TestUpkeep(t *testing.T) {
	t.Parallel()
	exercise(t, map[string]func(*testing.T, opener){
		"what is old is deleted":                 sweepOld,
		"what is owed stays with its event":      sweepKeepsOwed,
		"a sweep is bounded":                     sweepBounded,
		"rows from the future hold up nothing":   sweepPassesFuture,
		"analytics count what was sent":          analytics,
		"analytics of a period without attempts": analyticsEmpty,
	})
}

// sweep deletes everything that is old at the given time.
func (d *desk) sweep(now time.Time) (total int) {
	d.t.Helper()
	for {
		n, more, err := d.Sweep(d.t.Context(), now, 100)
		if err != nil {
			d.t.Fatal(err)
		}
		if total += n; !more {
			return total
		}
	}
}

// younger makes an event that nobody wants and retention never deletes: the
// newest one stays, so that its number is not given again.
func (d *desk) younger(ticketID string) {
	d.update(start().Add(2000*time.Hour), ticketID, ticket.Patch{Title: ticket.Some("younger")})
}

func sweepOld(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide, mails, func(c *Config) { c.Retention = time.Hour }), "acme")
	l, gone := d.hook(start()), d.hook(start())
	i := idempotency(d, "k", "body")
	tk := must(d.CreateTicket(WithIdempotency(t.Context(), i), start(), d.Actor, d.draft("one")))(t)
	d.younger(tk.TicketID)
	l.answer(l.claimOne(start()), status(410), start())
	gone.answer(gone.claimOne(start()), status(200), start())
	out := d.outbox(start())
	if err := d.MailSent(t.Context(), start(), out[0]); err != nil {
		t.Fatal(err)
	}
	if err := d.DeleteWebhook(t.Context(), start(), d.Actor, gone.hook.WebhookID); err != nil {
		t.Fatal(err)
	}
	if n := d.sweep(start().Add(time.Hour)); n != 0 {
		t.Errorf("%d rows deleted before their time", n)
	}
	// 2 deliveries, the event, the mail, and the deleted webhook with its health.
	if n := d.sweep(start().Add(time.Hour + time.Microsecond)); n != 6 {
		t.Errorf("%d rows deleted, want 6", n)
	}
	if _, _, found, _ := d.Answer(t.Context(), i); !found {
		t.Error("an idempotency key is forgotten within a day")
	}
	if n := d.sweep(start().Add(24 * time.Hour)); n != 1 {
		t.Errorf("%d rows deleted, want the idempotency key", n)
	}
	l.current()
}

func sweepKeepsOwed(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide, func(c *Config) { c.Retention = time.Hour }), "acme")
	l := d.hook(start())
	d.younger(d.create(start(), d.draft("one")).TicketID)
	b := l.claimOne(start())
	l.answer(b, status(500), start())
	late := start().Add(1000 * time.Hour)
	if n := d.sweep(late); n != 2 {
		t.Errorf("%d rows deleted, want the first attempt and the minute that counts it", n)
	}
	again := l.claimOne(late)
	sameBody(t, again.Deliveries[0].Body, b.Deliveries[0].Body)
	l.answer(again, status(200), late)
	// On a server the second attempt goes with the day on which it ended.
	d.sweep(late.Add(49 * time.Hour))
	if left := l.log(DeliveryQuery{}); len(left) != 0 {
		t.Errorf("%d attempts are left", len(left))
	}
	d.sweep(late.Add(49 * time.Hour))
	_, err := d.Event(t.Context(), d.TenantID, b.Deliveries[0].EventID)
	wantKind(t, "event", err, fault.NotFound)
}

// A clock that was ahead for a while leaves rows that are young for long.
func sweepPassesFuture(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide, func(c *Config) { c.Retention = time.Hour }), "acme")
	d.create(start().Add(10_000*time.Hour), d.draft("from the future"))
	d.create(start(), d.draft("old"))
	d.younger(d.create(start(), d.draft("old")).TicketID)
	if n := d.sweep(start().Add(2 * time.Hour)); n != 2 {
		t.Errorf("%d rows deleted, want the two old events", n)
	}
}

func sweepBounded(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide, func(c *Config) { c.Retention = time.Hour }), "acme")
	for range 10 {
		d.create(start(), d.draft("x"))
	}
	var got []int
	for range 4 {
		n, more, err := d.Sweep(t.Context(), start().Add(2*time.Hour), 4)
		if err != nil || more != (n == 4) {
			t.Errorf("%d deleted, more %v, %v", n, more, err)
		}
		got = append(got, n)
	}
	if diff := cmp.Diff([]int{4, 4, 1, 0}, got); diff != "" {
		t.Error(diff)
	}
	// The newest stays, and what comes is numbered after it.
	page := must(d.Events(t.Context(), d.TenantID, FeedQuery{}))(t)
	d.create(start().Add(3*time.Hour), d.draft("x"))
	if next := must(d.Events(t.Context(), d.TenantID, FeedQuery{After: page.Next}))(t); len(page.Envelopes) != 1 || len(next.Envelopes) != 1 {
		t.Errorf("the feed has %d and then %d events, want 1 and 1", len(page.Envelopes), len(next.Envelopes))
	}
}

func analytics(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l, other := d.hook(start()), d.hook(start())
	day := 24 * time.Hour
	noon := start().Truncate(day).Add(12 * time.Hour)
	for i, c := range []struct {
		at   time.Time
		code int
		ms   int
	}{{noon, 200, 10}, {noon, 200, 20}, {noon.Add(day), 500, 30}, {noon.Add(day), 200, 1000}} {
		d.create(c.at, d.draft("x"))
		a := status(c.code)
		a.Duration = time.Duration(c.ms) * time.Millisecond
		b := must(d.Claim(t.Context(), c.at, ClaimRequest{Lane: l.lane(), Owner: "a", Limit: 1, Lease: lease}))(t)
		if len(b.Deliveries) != 1 {
			t.Fatalf("delivery %d: claimed %d", i, len(b.Deliveries))
		}
		l.answer(b, a, c.at)
	}
	l.answer(must(d.BeginTest(t.Context(), noon, d.TenantID, l.hook.WebhookID, "a", lease))(t), status(500), noon)
	first := noon.Format(time.DateOnly)
	from, to := noon.Add(-time.Hour), noon.Add(2*day)
	want := Analytics{
		From: from, To: to, Total: 4, Successful: 3, Failed: 1, SuccessRate: 75, AverageMS: 265,
		ByStatus:    map[string]int{"delivered": 3, "retrying": 1, "pending": 1},
		ByEventType: map[string]int{"ticket.created": 5},
		Timeline:    []Day{{first, 2, 0}, {noon.Add(day).Format(time.DateOnly), 1, 1}},
		P50:         20, P90: 1000, P95: 1000, P99: 1000,
	}
	if diff := cmp.Diff(want, must(d.Store.Analytics(t.Context(), d.TenantID, l.hook.WebhookID, from, to))(t)); diff != "" {
		t.Error(diff)
	}
	// All webhooks: the other one is owed four.
	want.ByStatus["pending"], want.ByEventType["ticket.created"] = 5, 9
	if diff := cmp.Diff(want, must(d.Store.Analytics(t.Context(), d.TenantID, "", from, to))(t)); diff != "" {
		t.Error(diff)
	}
	got := must(d.Store.Analytics(t.Context(), d.TenantID, other.hook.WebhookID, from, to))(t)
	if got.Total != 0 || got.SuccessRate != 100 || got.ByStatus["pending"] != 4 {
		t.Errorf("%+v", got)
	}
	if got := must(d.Store.Analytics(t.Context(), d.TenantID, "", from, noon.Add(time.Hour)))(t); got.Total != 2 {
		t.Errorf("a part of the period has %d attempts, want 2", got.Total)
	}
}

func analyticsEmpty(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	got := must(d.Store.Analytics(t.Context(), d.TenantID, "", start(), start()))(t)
	want := Analytics{
		From: start(), To: start(), SuccessRate: 100, ByStatus: map[string]int{}, ByEventType: map[string]int{}, Timeline: []Day{},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestLockDeliveries opens one data directory twice, as two processes do: the
// lock belongs to the open file, so that one process can stand for both.
func TestLockDeliveries(t *testing.T) {
	t.Parallel()
	p := place{dir: t.TempDir()}
	first, second := openAt(t, p), openAt(t, p)
	for range 2 {
		if err := first.LockDeliveries(); err != nil {
			t.Fatal(err)
		}
	}
	err := second.LockDeliveries()
	if !errors.Is(err, filelock.ErrHeld) || fault.KindOf(err) != fault.Conflict {
		t.Errorf("second lock: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := second.LockDeliveries(); err != nil {
		t.Errorf("after the first was closed: %v", err)
	}
}
