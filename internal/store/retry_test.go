package store

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/webhook"
)

func TestRetries(t *testing.T) {
	t.Parallel()
	exercise(t, map[string]func(*testing.T, opener){
		"a manual attempt goes beside the schedule":   retryBeside,
		"a manual success ends the chain":             retrySucceeds,
		"a manual attempt follows an abandoned chain": retryAbandoned,
		"a lost manual attempt is taken over":         retryLost,
		"an attempt in flight outlives a success":     retryRace,
		"what cannot be retried":                      retryRefused,
		"tests count for nothing":                     testsDoNotCount,
		"a test works on an inactive webhook":         testInactive,
		"a webhook in test mode counts for nothing":   testMode,
	})
}

func retryBeside(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	d.create(start(), d.draft("one"))
	b := l.claimOne(start())
	body := b.Deliveries[0].Body
	l.answer(b, status(500), start())
	due := l.log(DeliveryQuery{Status: "pending"})[0].DueAt
	for i := range 2 {
		m := must(l.retry(start().Add(time.Second), b.Deliveries[0].DeliveryID))(t)
		c := m.Deliveries[0]
		if c.Attempt != 2+i || !c.IsManual || c.DeliveryID == b.Deliveries[0].DeliveryID {
			t.Errorf("manual attempt %+v", c)
		}
		sameBody(t, c.Body, body)
		if n := len(l.claim(start().Add(2 * time.Second)).Deliveries); n != 0 {
			t.Errorf("the dispatcher claimed %d rows that are being sent or not due", n)
		}
		l.answer(m, status(500), start().Add(2*time.Second))
	}
	want := []string{"1/0 retrying", "4/1 pending", "2/0 abandoned manual", "3/0 abandoned manual"}
	if diff := cmp.Diff(want, byID(l.log(DeliveryQuery{}))); diff != "" {
		t.Error(diff)
	}
	if got := l.log(DeliveryQuery{Status: "pending"})[0].DueAt; !got.Equal(due) {
		t.Errorf("the pending attempt moved from %v to %v", due, got)
	}
	next := l.claimOne(due)
	sameBody(t, next.Deliveries[0].Body, body)
	l.answer(next, status(500), due)
	if got := l.log(DeliveryQuery{Status: "pending"}); shape(got[0]) != "5/2 pending" || !got[0].DueAt.Equal(due.Add(5*time.Minute)) {
		t.Errorf("the schedule went on with %s at %v", shape(got[0]), got[0].DueAt)
	}
	if h := l.current(); h.TotalDeliveries != 4 {
		t.Errorf("health %+v", h.Health)
	}
}

func retrySucceeds(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	d.create(start(), d.draft("one"))
	b := l.claimOne(start())
	l.answer(b, status(500), start())
	l.answer(must(l.retry(start(), b.Deliveries[0].DeliveryID))(t), status(200), start())
	want := []string{"1/0 retrying", "3/1 abandoned superseded", "2/0 delivered manual"}
	if diff := cmp.Diff(want, byID(l.log(DeliveryQuery{}))); diff != "" {
		t.Error(diff)
	}
	if n := len(l.claim(start().Add(24 * time.Hour)).Deliveries); n != 0 {
		t.Errorf("claimed %d deliveries of an event that was delivered", n)
	}
}

func retryAbandoned(t *testing.T, open opener) {
	d := newDesk(t, open(t, func(c *Config) { c.Policy = delivery.Policy{} }), "acme")
	l := d.hook(start())
	d.create(start(), d.draft("one"))
	b := l.claimOne(start())
	l.answer(b, status(500), start())
	m := must(l.retry(start(), b.Deliveries[0].DeliveryID))(t)
	l.answer(m, status(500), start())
	l.answer(must(l.retry(start(), m.Deliveries[0].DeliveryID))(t), status(200), start())
	want := []string{"1/0 abandoned", "2/0 abandoned manual", "3/0 delivered manual"}
	if diff := cmp.Diff(want, byID(l.log(DeliveryQuery{}))); diff != "" {
		t.Error(diff)
	}
}

func retryLost(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	d.create(start(), d.draft("one"))
	b := l.claimOne(start())
	l.answer(b, status(500), start())
	id := b.Deliveries[0].DeliveryID
	lost := must(l.retry(start(), id))(t).Deliveries[0]
	again := must(l.retry(start().Add(lease), id))(t).Deliveries[0]
	if again.DeliveryID != lost.DeliveryID || again.Attempt != lost.Attempt || again.Generation <= lost.Generation || !again.IsManual {
		t.Errorf("taken over as %+v, was %+v", again, lost)
	}
	sameBody(t, again.Body, lost.Body)
	// Nobody comes back a second time: the dispatcher finds it.
	found := false
	for _, c := range l.claim(start().Add(3 * lease)).Deliveries {
		found = found || c.DeliveryID == lost.DeliveryID && c.Attempt == 2
	}
	if !found {
		t.Error("a lost manual attempt is never sent")
	}
}

func retryRace(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	d.create(start(), d.draft("one"))
	first := l.claimOne(start())
	l.answer(first, status(500), start())
	at := start().Add(time.Minute)
	m := must(l.retry(at, first.Deliveries[0].DeliveryID))(t)
	planned := l.claimOne(at)
	l.answer(m, status(200), at.Add(time.Second))
	l.answer(planned, status(500), at.Add(2*time.Second))
	want := []string{"1/0 retrying", "3/1 retrying", "2/0 delivered manual", "4/2 abandoned superseded"}
	if diff := cmp.Diff(want, byID(l.log(DeliveryQuery{}))); diff != "" {
		t.Error(diff)
	}
}

func retryRefused(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	d.create(start(), d.draft("one"))
	b := l.claimOne(start())
	id := b.Deliveries[0].DeliveryID
	_, err := l.retry(start(), id)
	wantKind(t, "retry while it is being sent", err, fault.Conflict)
	l.answer(b, status(500), start())
	m := must(l.retry(start(), id))(t)
	_, err = l.retry(start(), id)
	wantKind(t, "retry during a retry", err, fault.Conflict)
	l.answer(m, status(200), start())
	_, err = l.retry(start(), id)
	wantKind(t, "retry of a chain that was delivered", err, fault.Conflict)
	if err == nil || err.Error() != "Cannot retry successful delivery" {
		t.Errorf("message %v", err)
	}
	_, err = l.retry(start(), NewID())
	wantKind(t, "unknown delivery", err, fault.NotFound)
	_, err = d.BeginRetry(t.Context(), start(), NewID(), l.hook.WebhookID, id, "hand", lease)
	wantKind(t, "another tenant", err, fault.NotFound)
}

func testsDoNotCount(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide, mails), "acme")
	l := d.hook(start())
	for i, a := range []delivery.Answer{status(500), status(410), status(200)} {
		at := start().Add(time.Duration(i) * 48 * time.Hour)
		b := must(d.BeginTest(t.Context(), at, d.TenantID, l.hook.WebhookID, "hand", lease))(t)
		c := b.Deliveries[0]
		if c.Attempt != 1 || !c.IsTest || c.EventType != webhook.Test || len(c.Body) == 0 || b.Target.Secrets.Current == "" {
			t.Errorf("test %+v", c)
		}
		if rec := l.answer(b, a, at); rec[0].Disabled || rec[0].Fenced {
			t.Errorf("recorded %+v", rec[0])
		}
		row := must(d.Delivery(t.Context(), d.TenantID, l.hook.WebhookID, c.DeliveryID))(t)
		sameBody(t, row.Body, c.Body)
	}
	want := []string{"1/0 abandoned test", "1/0 abandoned test", "1/0 delivered test"}
	if diff := cmp.Diff(want, byID(l.log(DeliveryQuery{}))); diff != "" {
		t.Error(diff)
	}
	if h := l.current(); h.TotalDeliveries != 0 || !h.IsActive || h.FailingSince != nil || h.LastDeliveryAt != nil {
		t.Errorf("health %+v", h.Health)
	}
}

func testInactive(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start(), func(s *delivery.Spec) { s.IsActive = false })
	b := must(d.BeginTest(t.Context(), start(), d.TenantID, l.hook.WebhookID, "hand", lease))(t)
	// The dispatcher must not take the row away from its sender.
	if n := len(l.claim(start()).Deliveries); n != 0 {
		t.Errorf("claimed %d", n)
	}
	if rec := l.answer(b, status(200), start()); rec[0].Fenced {
		t.Error("fenced")
	}
	lost := must(d.BeginTest(t.Context(), start(), d.TenantID, l.hook.WebhookID, "hand", lease))(t)
	l.claim(start().Add(lease))
	if row := must(d.Delivery(t.Context(), d.TenantID, l.hook.WebhookID, lost.Deliveries[0].DeliveryID))(t); row.Status != delivery.Abandoned {
		t.Errorf("a lost test of an inactive webhook stays %s", row.Status)
	}
}

func testMode(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start(), func(s *delivery.Spec) { s.IsTestMode = true })
	d.create(start(), d.draft("one"))
	l.answer(l.claimOne(start()), status(500), start())
	d.create(start(), d.draft("two"))
	l.answer(l.claimOne(start()), status(200), start())
	want := []string{"1/0 abandoned test", "1/0 delivered test"}
	if diff := cmp.Diff(want, byID(l.log(DeliveryQuery{}))); diff != "" {
		t.Error(diff)
	}
	if h := l.current(); h.TotalDeliveries != 0 || h.FailingSince != nil {
		t.Errorf("health %+v", h.Health)
	}
}
