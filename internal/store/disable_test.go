package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/ticket"
	"github.com/ticketwire/ticketwire/internal/vault"
)

func TestDisable(t *testing.T) {
	t.Parallel()
	exercise(t, map[string]func(*testing.T, opener){
		"24 hours of failures end at the next failure": disabledByAttempt,
		"24 hours of failures end by the timer":        disabledByTimer,
		"headers that do not open hold up nobody":      unopenedHeaders,
		"a success in between resets":                  successResets,
		"one incident is one mail":                     oneMailPerIncident,
		"410 disables at once":                         goneDisables,
		"a re-enabled webhook starts a new streak":     reenabledStreak,
		"warnings come once each":                      warningsOnce,
		"the mail goes to whom it concerns":            recipients,
		"switching off abandons and can be replayed":   switchedOff,
		"without asking nothing is replayed":           notReplayed,
		"a replay honours filters and fields":          replayFiltered,
		"an attempt in flight at the switch-off":       inFlightAtSwitchOff,
		"a second outage does not replay the first":    secondOutage,
		"attempts by hand during an outage":            handDuringOutage,
		"a webhook that is made inactive misses":       madeInactive,
	})
}

// fail makes and fails a delivery at each of the times.
func (l *line) fail(times ...time.Time) (last Recorded) {
	l.t.Helper()
	for _, at := range times {
		l.create(at, l.draft("fails"))
		b := must(l.Claim(context.Background(), at, ClaimRequest{Lane: l.lane(), Owner: "test", Limit: 1, Lease: lease}))(l.t)
		last = l.answer(b, status(500), at)[0]
	}
	return last
}

func disabledByAttempt(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide, mails), "acme")
	l := d.hook(start())
	if rec := l.fail(start(), start().Add(12*time.Hour), start().Add(24*time.Hour-time.Microsecond)); rec.Disabled {
		t.Fatal("disabled before 24 hours")
	}
	at := start().Add(24 * time.Hour)
	if rec := l.fail(at); !rec.Disabled || rec.NoRecipient || rec.Lane != l.lane() {
		t.Fatalf("recorded %+v", rec)
	}
	w := l.current()
	if w.IsActive || w.AutoDisabledAt == nil || !w.AutoDisabledAt.Equal(at.Truncate(time.Microsecond)) ||
		w.DisabledReason != delivery.DisabledByFailures || w.DisabledAt == nil || delivery.HealthStatus(&w) != delivery.Disabled {
		t.Errorf("webhook %+v", w)
	}
	if b := must(d.Store.Backlog(t.Context(), at))(t); b.Pending != 0 {
		t.Errorf("still owed %d", b.Pending)
	}
	out := d.outbox(at)
	if len(out) != 1 {
		t.Fatalf("%d mails", len(out))
	}
	want := OutboxMail{
		MailID: out[0].MailID, TenantID: d.TenantID, Recipient: "acme@desk.example", Subject: "disabled Main",
		Text: "Ada Lovelace|acme|https://hooks.example/in|failures|" + start().Format(time.RFC3339) +
			"|true|receiver answered 500 Internal Server Error",
		HTML: "<p>" + at.Format(time.RFC3339) + "</p>", Generation: 1,
	}
	if diff := cmp.Diff(want, out[0]); diff != "" {
		t.Error(diff)
	}
}

func disabledByTimer(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide, mails, func(c *Config) { c.Policy.WarnAfter = nil }), "acme")
	l := d.hook(start())
	if _, ok, err := d.NextDisable(t.Context(), start()); ok || err != nil {
		t.Errorf("something to do for healthy webhooks (%v)", err)
	}
	l.fail(start())
	at := start().Truncate(time.Microsecond).Add(24 * time.Hour)
	next, ok, err := d.NextDisable(t.Context(), start())
	if !ok || err != nil || !next.Equal(at) {
		t.Errorf("next %v %v %v", next, ok, err)
	}
	if lanes := must(d.DisableOverdue(t.Context(), at.Add(-time.Microsecond)))(t); len(lanes) != 0 {
		t.Errorf("early: %v", lanes)
	}
	if diff := cmp.Diff([]Lane{l.lane()}, must(d.DisableOverdue(t.Context(), at))(t)); diff != "" {
		t.Error(diff)
	}
	if lanes := must(d.DisableOverdue(t.Context(), at.Add(time.Hour)))(t); len(lanes) != 0 {
		t.Errorf("twice: %v", lanes)
	}
	if w := l.current(); w.IsActive || w.AutoDisabledAt == nil {
		t.Errorf("webhook %+v", w)
	}
	if n := len(d.outbox(at)); n != 1 {
		t.Errorf("%d mails", n)
	}
	if _, ok, _ := d.NextDisable(t.Context(), at); ok {
		t.Error("something left to do")
	}
}

func unopenedHeaders(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide, mails), "acme")
	l := d.hook(start())
	l.fail(start())
	d.create(start(), d.draft("is being sent"))
	b := must(d.Claim(t.Context(), start(), ClaimRequest{Lane: l.lane(), Owner: "test", Limit: 1, Lease: lease}))(t)
	err := d.do(t.Context(), func(t *tx) error {
		return t.change("seal with a key that is gone", `update webhooks set custom_headers = 'v1.00000000.AAAA' where webhook_id = $1`, l.lane().WebhookID)
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Webhook(t.Context(), d.TenantID, l.lane().WebhookID); !errors.Is(err, vault.ErrUnopened) {
		t.Errorf("got the webhook with %v", err)
	}
	list, n, err := d.Webhooks(t.Context(), d.TenantID, WebhookQuery{Page: 1, Limit: 10})
	if err != nil || n != 1 || list[0].WebhookID != l.lane().WebhookID || list[0].CustomHeaders != nil {
		t.Errorf("listed %+v, %v", list, err)
	}
	rows, _, err := d.Deliveries(t.Context(), d.TenantID, l.lane().WebhookID, DeliveryQuery{Page: 1, Limit: 10})
	if err != nil || len(rows) != 3 {
		t.Errorf("its log has %d rows, %v", len(rows), err)
	}
	if a, err := d.Analytics(t.Context(), d.TenantID, l.lane().WebhookID, start().Add(-time.Hour), start()); err != nil || a.Total != 1 {
		t.Errorf("summed up %+v, %v", a, err)
	}
	if rec := l.answer(b, status(500), start()); rec[0].Fenced {
		t.Error("an attempt under way was not recorded")
	}
	if off := must(d.DisableOverdue(t.Context(), start().Add(24*time.Hour)))(t); !slices.Equal(off, []Lane{l.lane()}) {
		t.Errorf("switched off %v", off)
	}
}

func successResets(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide, mails), "acme")
	l := d.hook(start())
	l.fail(start())
	at := start().Add(24*time.Hour - time.Minute)
	d.create(at, d.draft("works"))
	b := l.claim(at)
	l.answer(Batch{Target: b.Target, Deliveries: b.Deliveries[:1]}, status(200), at)
	if rec := l.fail(at.Add(23 * time.Hour)); rec.Disabled {
		t.Error("disabled although there was a success")
	}
	if lanes := must(d.DisableOverdue(t.Context(), at.Add(23*time.Hour)))(t); len(lanes) != 0 {
		t.Errorf("timer: %v", lanes)
	}
}

func oneMailPerIncident(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide, mails, func(c *Config) { c.Policy.WarnAfter = nil }), "acme")
	l := d.hook(start())
	l.fail(start())
	at := start().Add(25 * time.Hour)
	for range 20 {
		d.create(at, d.draft("x"))
	}
	b := l.claim(at)
	var wg sync.WaitGroup
	var mu sync.Mutex
	disabled := 0
	count := func(n int) { mu.Lock(); disabled += n; mu.Unlock() }
	for _, c := range b.Deliveries {
		wg.Go(func() {
			out, err := d.Record(context.Background(), []Result{l.answered(&b.Target.Webhook, c, status(500), at)})
			if err != nil {
				t.Error(err)
			} else if out[0].Disabled {
				count(1)
			}
		})
		wg.Go(func() {
			lanes, err := d.DisableOverdue(context.Background(), at)
			if err != nil {
				t.Error(err)
			}
			count(len(lanes))
		})
	}
	wg.Wait()
	if disabled != 1 {
		t.Errorf("disabled %d times", disabled)
	}
	if n := len(d.outbox(at)); n != 1 {
		t.Errorf("%d mails for one incident", n)
	}
}

func goneDisables(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide, mails), "acme")
	l := d.hook(start())
	d.create(start(), d.draft("one"))
	d.create(start(), d.draft("two"))
	rec := l.answer(l.claim(start()), status(410), start())
	if !rec[0].Disabled || rec[1].Disabled {
		t.Errorf("recorded %+v", rec)
	}
	if w := l.current(); w.IsActive || w.DisabledReason != delivery.DisabledGone || w.AutoDisabledAt == nil {
		t.Errorf("webhook %+v", w)
	}
	if out := d.outbox(start()); len(out) != 1 {
		t.Errorf("%d mails", len(out))
	}
	if diff := cmp.Diff([]string{"1/0 abandoned", "1/0 abandoned"}, byID(l.log(DeliveryQuery{}))); diff != "" {
		t.Error(diff)
	}
}

func reenabledStreak(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide, mails), "acme")
	l := d.hook(start())
	at := start().Add(24 * time.Hour)
	l.fail(start())
	if rec := l.fail(at); !rec.Disabled {
		t.Fatal("not disabled")
	}
	l.active(at.Add(time.Hour), true, false)
	w := l.current()
	if !w.IsActive || w.AutoDisabledAt != nil || w.DisabledAt != nil || w.DisabledReason != "" || w.FailingSince != nil || w.TotalDeliveries != 2 {
		t.Fatalf("webhook %+v", w)
	}
	again := at.Add(2 * time.Hour)
	if rec := l.fail(again, again.Add(24*time.Hour-time.Second)); rec.Disabled {
		t.Error("the old streak disabled the webhook again")
	}
	if rec := l.fail(again.Add(24 * time.Hour)); !rec.Disabled {
		t.Error("the new streak does not count")
	}
	if n := len(d.outbox(again.Add(48 * time.Hour))); n != 2 {
		t.Errorf("%d mails for two incidents", n)
	}
}

func warningsOnce(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide, mails), "acme")
	l := d.hook(start())
	l.fail(start())
	since := start().Truncate(time.Microsecond)
	for _, c := range []struct {
		after     time.Duration
		mails     int
		next      time.Duration // after the check
		wantFinal string
	}{
		{59 * time.Minute, 0, time.Hour, ""},
		{time.Hour, 1, 12 * time.Hour, "false"},
		{2 * time.Hour, 0, 12 * time.Hour, ""},
		{13 * time.Hour, 1, 24 * time.Hour, "true"},
		{14 * time.Hour, 0, 24 * time.Hour, ""},
	} {
		at := since.Add(c.after)
		must(d.DisableOverdue(t.Context(), at))(t)
		out := d.outbox(at)
		if len(out) != c.mails {
			t.Fatalf("after %v: %d mails, want %d", c.after, len(out), c.mails)
		}
		for _, m := range out {
			want := fmt.Sprintf("Ada Lovelace|acme|https://hooks.example/in|failures|%s|%s|receiver answered 500 Internal Server Error",
				since.Format(time.RFC3339), c.wantFinal)
			if m.Subject != "warning Main" || m.Text != want {
				t.Errorf("mail %+v", m)
			}
			if err := d.MailSent(t.Context(), at, m); err != nil {
				t.Error(err)
			}
		}
		if next, ok, err := d.NextDisable(t.Context(), at); !ok || err != nil || !next.Equal(since.Add(c.next)) {
			t.Errorf("after %v: next %v %v %v", c.after, next, ok, err)
		}
	}
	// An outage of ours over both warnings sends one.
	other := d.hook(start())
	other.fail(start())
	must(d.DisableOverdue(t.Context(), since.Add(20*time.Hour)))(t)
	if n := len(d.outbox(since.Add(20 * time.Hour))); n != 1 {
		t.Errorf("%d warnings at once", n)
	}
}

func recipients(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide, mails), "acme")
	add := func(name string, permissions ...string) string {
		u := must(d.AddUser(t.Context(), start().Add(time.Hour), d.TenantID, ticket.User{
			FirstName: name, LastName: "X", Email: name + "@desk.example", UserType: "internal", Permissions: permissions,
		}))(t)
		return u.UserID
	}
	add("reader", "webhook:read")
	second := add("second", "webhook:update")
	add("third", "webhook:update")
	deactivate := func(id string) {
		if _, err := d.UpdateUser(t.Context(), d.TenantID, id, func(u *ticket.User) error { u.IsInactive = true; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	gone := func() (string, Recorded) {
		l := d.hook(start())
		d.create(start(), d.draft("one"))
		rec := l.answer(l.claimOne(start()), status(410), start())[0]
		out := d.outbox(start())
		if len(out) == 0 {
			return "", rec
		}
		return out[0].Recipient, rec
	}
	want := func(what, address string) {
		t.Helper()
		if got, rec := gone(); got != address || !rec.Disabled || rec.NoRecipient != (address == "") {
			t.Errorf("%s: mailed %q, want %q (%+v)", what, got, address, rec)
		}
	}
	want("the creator", "acme@desk.example")
	deactivate(d.UserID)
	want("the creator is inactive", "second@desk.example")
	deactivate(second)
	want("the next", "third@desk.example")
	users, _, err := d.Users(t.Context(), d.TenantID, ResourceQuery{All: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range users {
		if u.FirstName == "third" {
			deactivate(u.UserID)
		}
	}
	want("nobody", "")
}

func switchedOff(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	d.create(start(), d.draft("retrying"))
	l.answer(l.claimOne(start()), status(500), start())
	d.create(start(), d.draft("owed"))
	l.active(start().Add(time.Second), false, false)
	want := []string{"1/0 retrying", "2/1 abandoned webhook_disabled", "1/0 abandoned webhook_disabled"}
	if diff := cmp.Diff(want, byID(l.log(DeliveryQuery{}))); diff != "" {
		t.Error(diff)
	}
	if w := l.current(); w.DisabledReason != delivery.DisabledByUser || w.AutoDisabledAt != nil || w.DisabledAt == nil {
		t.Errorf("webhook %+v", w)
	}
	d.create(start().Add(time.Minute), d.draft("missed"))
	at := start().Add(time.Hour)
	if n := l.active(at, true, true); n != 3 {
		t.Errorf("replayed %d, want 3", n)
	}
	b := l.claim(at)
	var got []string
	for _, c := range b.Deliveries {
		got = append(got, fmt.Sprintf("%d/%d", c.Attempt, c.Step))
		sameBody(t, c.Body, must(d.Event(t.Context(), d.TenantID, c.EventID))(t))
	}
	// Oldest first, and the attempt that was made still counts.
	if diff := cmp.Diff([]string{"2/0", "1/0", "1/0"}, got); diff != "" {
		t.Error(diff)
	}
	l.answer(b, status(200), at)
	if n := l.active(at, true, true); n != 0 {
		t.Errorf("an active webhook replayed %d", n)
	}
	if n := len(l.log(DeliveryQuery{Status: "delivered"})); n != 3 {
		t.Errorf("%d delivered", n)
	}
}

func notReplayed(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	d.create(start(), d.draft("owed"))
	l.active(start(), false, false)
	d.create(start(), d.draft("missed"))
	if n := l.active(start(), true, false); n != 0 {
		t.Errorf("replayed %d", n)
	}
	if n := len(l.claim(start().Add(time.Hour)).Deliveries); n != 0 {
		t.Errorf("claimed %d deliveries of the outage", n)
	}
	d.create(start(), d.draft("new"))
	l.claimOne(start())
}

func replayFiltered(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start(), func(s *delivery.Spec) {
		s.EventFilter = &delivery.Filter{Tags: []string{"vip"}}
		s.PayloadFields = delivery.PayloadFields{"ticket": {"title", "tags"}}
	})
	draft := d.draft("wanted")
	draft.Tags = []string{"vip"}
	d.create(start(), draft)
	fresh := l.claimOne(start())
	l.answer(fresh, status(200), start())
	l.active(start(), false, false)
	tk := d.create(start(), draft)
	d.create(start(), d.draft("other"))
	d.update(start(), tk.TicketID, ticket.Patch{Title: ticket.Some("another type")})
	if n := l.active(start(), true, true); n != 1 {
		t.Fatalf("replayed %d, want 1", n)
	}
	c := l.claimOne(start()).Deliveries[0]
	want := `"data":{"ticket_id":"` + tk.TicketID + `","title":"wanted","tags":["vip"]}}`
	if got := string(c.Body); len(got) < len(want) || got[len(got)-len(want):] != want {
		t.Errorf("body %s\nwant the end %s", got, want)
	}
}

func inFlightAtSwitchOff(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	d.create(start(), d.draft("one"))
	d.create(start(), d.draft("two"))
	b := l.claim(start())
	l.active(start().Add(3*time.Second), false, false)
	// Both ended before the switch-off and are recorded after it.
	l.answer(Batch{Target: b.Target, Deliveries: b.Deliveries[:1]}, status(500), start().Add(time.Second))
	l.answer(Batch{Target: b.Target, Deliveries: b.Deliveries[1:]}, status(200), start().Add(time.Second))
	want := []string{"1/0 retrying", "1/0 delivered", "2/1 abandoned webhook_disabled"}
	if diff := cmp.Diff(want, byID(l.log(DeliveryQuery{}))); diff != "" {
		t.Error(diff)
	}
	if n := l.active(start().Add(time.Hour), true, true); n != 1 {
		t.Errorf("replayed %d, want the one that was not delivered", n)
	}
}

func handDuringOutage(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	for _, title := range []string{"delivered by hand", "failed by hand", "in flight by hand"} {
		d.create(start(), d.draft(title))
	}
	rows := l.log(DeliveryQuery{})
	slices.Reverse(rows)
	l.active(start(), false, false)
	l.answer(must(l.retry(start(), rows[0].DeliveryID))(t), status(200), start())
	l.answer(must(l.retry(start(), rows[1].DeliveryID))(t), status(500), start())
	flying := must(l.retry(start(), rows[2].DeliveryID))(t)
	if n := l.active(start(), true, true); n != 2 {
		t.Errorf("replayed %d, want the two that were not delivered", n)
	}
	l.answer(flying, status(500), start())
	var got []string
	for _, c := range l.claim(start()).Deliveries {
		got = append(got, fmt.Sprintf("%d/%d %v", c.Attempt, c.Step, c.EventID == rows[0].EventID))
	}
	if diff := cmp.Diff([]string{"2/0 false", "2/0 false"}, got); diff != "" {
		t.Error(diff)
	}
}

func secondOutage(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	d.create(start(), d.draft("first"))
	l.active(start().Add(1*time.Second), false, false)
	d.create(start().Add(2*time.Second), d.draft("first, missed"))
	l.active(start().Add(3*time.Second), true, false)
	d.create(start().Add(4*time.Second), d.draft("second"))
	l.active(start().Add(5*time.Second), false, false)
	d.create(start().Add(6*time.Second), d.draft("second, missed"))
	if n := l.active(start().Add(7*time.Second), true, true); n != 2 {
		t.Errorf("replayed %d, want the two of the second outage", n)
	}
}

func madeInactive(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	d.create(start(), d.draft("before it existed"))
	l := d.hook(start(), func(s *delivery.Spec) { s.IsActive = false })
	d.create(start(), d.draft("missed"))
	if n := l.active(start(), true, true); n != 1 {
		t.Errorf("replayed %d, want 1", n)
	}
}
