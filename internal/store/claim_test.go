package store

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
)

func TestClaims(t *testing.T) {
	t.Parallel()
	exercise(t, map[string]func(*testing.T, opener){
		"an expired lease gives the same attempt": expiredLease,
		"the dispatcher's own leases do not end":  ownLease,
		"a released row counts for nothing":       released,
		"a new process voids every lease":         releasedAll,
		"claims are oldest first and bounded":     claimOrder,
		"due lanes and the next due time":         dueLanes,
		"waiting lanes say why":                   waiting,
		"a burst keeps its attempt numbers":       limitedBurst,
		"the queue wakes the dispatcher":          wakes,
		"the backlog is counted":                  backlog,
		"two results for one row count once":      claimedTwice,
	})
}

func expiredLease(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	d.create(start(), d.draft("one"))
	lost := l.claimOne(start())
	if n := len(l.claim(start().Add(lease - time.Microsecond)).Deliveries); n != 0 {
		t.Fatalf("claimed %d deliveries under a live lease", n)
	}
	again := l.claimOne(start().Add(lease))
	a, b := lost.Deliveries[0], again.Deliveries[0]
	if a.DeliveryID != b.DeliveryID || b.Attempt != 1 || b.Generation != a.Generation+1 {
		t.Errorf("second claim %+v, first %+v", b, a)
	}
	sameBody(t, b.Body, a.Body)
	if rec := l.answer(lost, status(500), start().Add(lease)); !rec[0].Fenced {
		t.Error("who lost the lease could record")
	}
	if diff := cmp.Diff([]string{"1/0 pending"}, shapes(l.log(DeliveryQuery{}))); diff != "" {
		t.Error(diff)
	}
	if err := d.Release(t.Context(), lost.Deliveries); err != nil {
		t.Fatal(err)
	}
	if rec := l.answer(again, status(200), start().Add(lease)); rec[0].Fenced {
		t.Error("a release by who lost the lease took it from its holder")
	}
	if rec := l.answer(again, status(200), start().Add(lease)); !rec[0].Fenced {
		t.Error("the same attempt was recorded twice")
	}
	if h := l.current(); h.TotalDeliveries != 1 {
		t.Errorf("health %+v", h.Health)
	}
}

// What the registered dispatcher sends is nobody else's, whatever the clock says:
// it has jumped a day ahead, or the process was stopped for as long.
func ownLease(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	d.create(start(), d.draft("one"))
	d.SetIntake(&Intake{Owner: "self", Lease: lease, Reserve: func(Lane, int) bool { return false }, Commit: func(Committed) {}})
	claim := func(now time.Time, owner string) Batch {
		return must(d.Claim(t.Context(), now, ClaimRequest{Lane: l.lane(), Owner: owner, Limit: 1, Lease: lease}))(t)
	}
	held := claim(start(), "self")
	jumped := start().Add(24 * time.Hour)
	for _, owner := range []string{"self", "other"} {
		if n := len(claim(jumped, owner).Deliveries); n != 0 {
			t.Errorf("%s claimed what is being sent", owner)
		}
	}
	for _, after := range []time.Time{{}, start().Add(-time.Second)} {
		if lanes := must(d.DueLanes(t.Context(), after, jumped))(t); len(lanes) != 0 {
			t.Errorf("what is being sent is due in %v", lanes)
		}
	}
	if _, err := l.retry(jumped, held.Deliveries[0].DeliveryID); !fault.Is(err, fault.Conflict) {
		t.Errorf("a manual attempt beside it: %v", err)
	}
	l.active(jumped, false, false)
	if rec := l.answer(held, status(200), jumped); rec[0].Fenced {
		t.Error("its result was fenced off")
	}
	if diff := cmp.Diff([]string{"1/0 delivered"}, shapes(l.log(DeliveryQuery{}))); diff != "" {
		t.Error(diff)
	}
	// Once it is not the dispatcher any more, its leases end at their time.
	l.active(jumped, true, false)
	d.create(jumped, d.draft("two"))
	claim(jumped, "self")
	d.SetIntake(nil)
	if n := len(claim(jumped.Add(lease), "other").Deliveries); n != 1 {
		t.Errorf("%d of a dispatcher that is gone were claimed, want 1", n)
	}
}

func released(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	d.create(start(), d.draft("one"))
	b := l.claimOne(start())
	if err := d.Release(t.Context(), b.Deliveries); err != nil {
		t.Fatal(err)
	}
	if rec := l.answer(b, status(200), start()); !rec[0].Fenced {
		t.Error("a released lease could record")
	}
	again := l.claimOne(start()).Deliveries[0]
	if again.DeliveryID != b.Deliveries[0].DeliveryID || again.Attempt != 1 {
		t.Errorf("second claim %+v", again)
	}
}

func releasedAll(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	d.create(start(), d.draft("one"))
	b := l.claimOne(start())
	if err := d.ReleaseAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rec := l.answer(b, status(200), start()); !rec[0].Fenced {
		t.Error("a void lease could record")
	}
	l.claimOne(start())
}

func claimOrder(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	for i := range 5 {
		// The later ones are due earlier.
		d.create(start().Add(time.Duration(-i)*time.Second), d.draft(fmt.Sprint(i)))
	}
	b := must(d.Claim(t.Context(), start(), ClaimRequest{Lane: l.lane(), Owner: "a", Limit: 3, Lease: lease}))(t)
	rest := l.claim(start())
	if len(b.Deliveries) != 3 || len(rest.Deliveries) != 2 {
		t.Fatalf("claimed %d and %d", len(b.Deliveries), len(rest.Deliveries))
	}
	all := slices.Concat(b.Deliveries, rest.Deliveries)
	if !slices.IsSortedFunc(all, func(a, b Claimed) int { return a.DueAt.Compare(b.DueAt) }) {
		t.Error("not oldest first")
	}
	if b.Target.WebhookID != l.hook.WebhookID || b.Target.Secrets.Current == "" || b.Target.URL != l.hook.URL {
		t.Errorf("target %+v", b.Target.Webhook)
	}
}

func dueLanes(t *testing.T, open opener) {
	s := open(t, guide)
	d := newDesk(t, s, "acme")
	a, b := d.hook(start()), newDesk(t, s, "other").hook(start())
	at := start().Truncate(time.Microsecond).Add(time.Hour)
	// Retries, since only they become due by time alone.
	retry := func(l *line, due time.Time) {
		failed := due.Add(-time.Minute)
		l.create(failed, l.draft("x"))
		l.answer(l.claimOne(failed), status(500), failed)
	}
	retry(a, at)
	retry(b, at.Add(time.Minute))
	lanes := func(after, upTo time.Time) []Lane { return must(s.DueLanes(t.Context(), after, upTo))(t) }
	sorted := func(l ...Lane) []Lane {
		slices.SortFunc(l, func(a, b Lane) int { return strings.Compare(a.WebhookID, b.WebhookID) })
		return l
	}
	for _, c := range []struct {
		name        string
		after, upTo time.Time
		want        []Lane
	}{
		{"nothing yet", time.Time{}, at.Add(-time.Microsecond), []Lane{}},
		{"the first", time.Time{}, at, []Lane{a.lane()}},
		{"both", time.Time{}, at.Add(time.Hour), sorted(a.lane(), b.lane())},
		{"after is exclusive", at, at.Add(time.Hour), []Lane{b.lane()}},
		{"upTo is inclusive", at.Add(-time.Microsecond), at, []Lane{a.lane()}},
	} {
		if diff := cmp.Diff(c.want, sorted(lanes(c.after, c.upTo)...)); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
	next, ok, err := s.NextDue(t.Context(), at)
	if !ok || err != nil || !next.Equal(at.Add(time.Minute)) {
		t.Errorf("next due %v %v %v", next, ok, err)
	}
	a.claimOne(at)
	for _, c := range []struct {
		name string
		upTo time.Time
		want []Lane
	}{
		{"leased", at, []Lane{}},
		{"lease ended", at.Add(lease), sorted(a.lane(), b.lane())},
	} {
		if diff := cmp.Diff(c.want, sorted(lanes(time.Time{}, c.upTo)...)); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		if diff := cmp.Diff(c.want, sorted(lanes(at.Add(-time.Second), c.upTo)...)); diff != "" {
			t.Errorf("%s, window: %s", c.name, diff)
		}
	}
}

func waiting(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	d.create(start(), d.draft("due"))
	until := start().Add(30 * time.Second)
	d.create(start().Add(time.Hour), d.draft("later"))
	if err := d.SetWait(t.Context(), l.lane(), delivery.WaitRateLimited, &until); err != nil {
		t.Fatal(err)
	}
	reasons := func() []string {
		var out []string
		for _, row := range l.log(DeliveryQuery{}) {
			out = append(out, row.WaitReason)
		}
		return out
	}
	if diff := cmp.Diff([]string{delivery.WaitDue, delivery.WaitRateLimited}, reasons()); diff != "" {
		t.Error(diff)
	}
	l.claimOne(start())
	if diff := cmp.Diff([]string{delivery.WaitDue, delivery.WaitDue}, reasons()); diff != "" {
		t.Errorf("being sent: %s", diff)
	}
	if err := d.ReleaseAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.SetWait(t.Context(), l.lane(), "", nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{delivery.WaitDue, delivery.WaitDue}, reasons()); diff != "" {
		t.Errorf("over: %s", diff)
	}
}

func limitedBurst(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	for range 30 {
		d.create(start(), d.draft("burst"))
	}
	// The limiter lets few through at a time; who waits uses up nothing.
	now, sent := start(), 0
	for sent < 30 {
		now = now.Add(10 * time.Second)
		b := must(d.Claim(t.Context(), now, ClaimRequest{Lane: l.lane(), Owner: "a", Limit: 4, Lease: lease}))(t)
		for _, c := range b.Deliveries {
			if c.Attempt != 1 {
				t.Fatalf("attempt %d", c.Attempt)
			}
		}
		l.answer(b, status(200), now)
		sent += len(b.Deliveries)
	}
	if n := len(l.log(DeliveryQuery{Status: "delivered"})); n != 30 {
		t.Errorf("%d delivered", n)
	}
}

func wakes(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	woken := make(chan []Lane, 10)
	d.SetIntake(&Intake{
		Owner: "test", Lease: lease,
		Reserve: func(Lane, int) bool { return false },
		Cancel:  func([]Claimed) { t.Error("cancelled what was never reserved") },
		Commit: func(c Committed) {
			if len(c.Due) > 0 {
				woken <- c.Due
			}
		},
	})
	want := func(what string, n int) {
		t.Helper()
		select {
		case lanes := <-woken:
			for _, got := range lanes {
				if got != l.lane() {
					t.Errorf("%s: woke %v", what, got)
				}
			}
			if n == 0 {
				t.Errorf("%s: woke", what)
			}
		default:
			if n > 0 {
				t.Errorf("%s: no wake-up", what)
			}
		}
	}
	d.create(start(), d.draft("one"))
	want("an event", 1)
	b := l.claimOne(start())
	if err := d.Release(t.Context(), b.Deliveries); err != nil {
		t.Fatal(err)
	}
	want("a release", 1)
	l.answer(l.claimOne(start()), status(500), start())
	want("a failure whose retry is far", 0)
}

func backlog(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	at := func(now time.Time) Backlog { return must(d.Store.Backlog(t.Context(), now))(t) }
	if diff := cmp.Diff(Backlog{}, at(start())); diff != "" {
		t.Error(diff)
	}
	d.create(start(), d.draft("retried in a minute"))
	l.answer(l.claimOne(start()), status(500), start())
	d.create(start(), d.draft("due"))
	oldest := start().Truncate(time.Microsecond)
	if diff := cmp.Diff(Backlog{Pending: 2, Due: 1, OldestDue: &oldest}, at(start().Add(30*time.Second))); diff != "" {
		t.Error(diff)
	}
}

func claimedTwice(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	d.create(start(), d.draft("one"))
	b := l.claimOne(start())
	b.Deliveries = append(b.Deliveries, b.Deliveries[0])
	if rec := l.answer(b, status(500), start()); rec[0].Fenced || !rec[1].Fenced {
		t.Errorf("recorded %+v", rec)
	}
	if h, log := l.current(), l.log(DeliveryQuery{}); h.TotalDeliveries != 1 || len(log) != 2 {
		t.Errorf("health %+v, %d rows", h.Health, len(log))
	}
}
