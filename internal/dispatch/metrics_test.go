package dispatch_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/dispatch"
)

// gathered returns the value of a counter or gauge, or the count of a histogram.
// label is the value of its only label, "" without one.
func gathered(t *testing.T, reg *prometheus.Registry, name, label string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	t.Fatalf("there is no %s %s", name, label)
	return 0
}

// The metrics say which webhooks wait and why, that a breaker is open, and what
// was switched off, and take it back when it is over.
func TestMetricsSayWhatWaits(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.policy.Timeout, b.policy.Schedule = 100*time.Millisecond, []time.Duration{10 * time.Millisecond}
	reg := prometheus.NewPedanticRegistry()
	e := b.start(func(c *dispatch.Config) { c.Metrics = reg })
	is := func(what string, want float64, name, label string) {
		t.Helper()
		eventually(t, what, func() bool { return gathered(t, reg, name, label) == want })
	}
	if !e.LastAttempt().IsZero() {
		t.Error("an attempt was begun before there was one")
	}
	gone := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) }))
	t.Cleanup(gone.Close)
	first := b.webhook(gone.URL, nil)
	b.ticket("switches off")
	is("the end of a webhook is counted", 1, "ticketwire_webhooks_disabled_total", delivery.DisabledGone)
	if at := e.LastAttempt(); time.Since(at) > time.Minute {
		t.Errorf("the last attempt was begun at %s", at)
	}
	if err := b.store.DeleteWebhook(t.Context(), time.Now(), b.actor, first); err != nil {
		t.Fatal(err)
	}

	r := newReceiver(t, true)
	on, one := true, 1
	limited := b.webhook(r.URL, func(s *delivery.Spec) {
		s.RateLimit = &delivery.RateLimit{Enabled: &on, RequestsPerMinute: &one, BurstLimit: &one}
	})
	b.ticket("goes out")
	b.ticket("waits for its token")
	is("a webhook waits for its rate limit", 1, "ticketwire_webhooks_waiting", delivery.WaitRateLimited)
	if err := b.store.DeleteWebhook(t.Context(), time.Now(), b.actor, limited); err != nil {
		t.Fatal(err)
	}
	is("it waits no more", 0, "ticketwire_webhooks_waiting", delivery.WaitRateLimited)
	is("its wait was measured", 1, "ticketwire_webhook_wait_seconds", delivery.WaitRateLimited)

	hangs := newReceiver(t, false)
	b.webhook(hangs.URL, nil)
	for range 10 {
		b.ticket("hangs")
	}
	is("a breaker is open", 1, "ticketwire_breakers_open", "")
	is("its webhook waits", 1, "ticketwire_webhooks_waiting", delivery.WaitBreakerOpen)
	hangs.open()
	is("the breaker is closed", 0, "ticketwire_breakers_open", "")
	is("nobody waits", 0, "ticketwire_webhooks_waiting", delivery.WaitBreakerOpen)
}
