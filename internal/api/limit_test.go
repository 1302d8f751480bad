package api_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ticketwire/ticketwire/internal/api"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/test/postgres"
)

// stillClock stands still until it is told otherwise.
type stillClock struct{ nanos atomic.Int64 }

func newStillClock() *stillClock {
	c := &stillClock{}
	c.nanos.Store(time.Date(2031, 5, 1, 12, 0, 0, 0, time.UTC).UnixNano())
	return c
}

func (c *stillClock) now() time.Time          { return time.Unix(0, c.nanos.Load()).UTC() }
func (c *stillClock) advance(d time.Duration) { c.nanos.Add(int64(d)) }

// budget sums up the rate limit headers, times as seconds from now.
func budget(t *testing.T, c *stillClock, r *response) string {
	t.Helper()
	reset := "-"
	if s := r.Header.Get("X-RateLimit-Reset"); s != "" {
		at, err := time.Parse("2006-01-02T15:04:05.000Z", s)
		must(t, err)
		reset = at.Sub(c.now()).String()
	}
	return fmt.Sprintf("%d limit %s remaining %s reset %s retry %s", r.Status, r.Header.Get("X-RateLimit-Limit"),
		r.Header.Get("X-RateLimit-Remaining"), reset, r.Header.Get("Retry-After"))
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	c := newStillClock()
	h := newHarness(t, func(s *settings) { s.now, s.rate = c.now, api.Rate{MaxTokens: 3, RefillPerMin: 30} })
	id := h.do(t, "POST", "/tickets", h.a.APIKey, h.draft(nil)).want(t, http.StatusCreated).text("data", "ticket_id")
	for i, step := range []struct {
		wait         time.Duration
		method, path string
		want         string
	}{
		{0, "PUT", "/tickets/" + id, "200 limit 3 remaining 1 reset 4s retry "}, // every route counts (contract D17)
		{0, "GET", "/tickets/search", "400 limit 3 remaining 0 reset 6s retry "},
		{0, "GET", "/tickets/" + id, "429 limit 3 remaining 0 reset 2s retry 2"},
		{500 * time.Millisecond, "GET", "/tickets/" + id, "429 limit 3 remaining 0 reset 1.5s retry 2"},
		{1400 * time.Millisecond, "GET", "/webhooks", "429 limit 3 remaining 0 reset 100ms retry 1"},
		{100 * time.Millisecond, "GET", "/webhooks", "200 limit 3 remaining 0 reset 6s retry "},
		{3 * time.Second, "GET", "/tickets/" + id, "200 limit 3 remaining 0 reset 5s retry "},
		{time.Hour, "GET", "/tickets/" + id, "200 limit 3 remaining 2 reset 2s retry "},
	} {
		c.advance(step.wait)
		r := h.do(t, step.method, step.path, h.a.APIKey, nil)
		if got := budget(t, c, r); got != step.want {
			t.Errorf("step %d: %s, want %s", i, got, step.want)
		}
	}
	other := h.do(t, "GET", "/tickets", h.key(t, h.a.TenantID, "ticket:read"), nil)
	if got, want := budget(t, c, other), "200 limit 3 remaining 2 reset 2s retry "; got != want {
		t.Errorf("another key shares the bucket: %s, want %s", got, want)
	}
	powerless := h.key(t, h.a.TenantID)
	for _, want := range []string{"403 limit 3 remaining 2 reset 2s retry ", "403 limit 3 remaining 1 reset 4s retry "} {
		if got := budget(t, c, h.do(t, "GET", "/tickets", powerless, nil)); got != want {
			t.Errorf("without permission: %s, want %s", got, want)
		}
	}
	rejected := h.do(t, "GET", "/tickets", "no-such-key", nil)
	if got, want := budget(t, c, rejected), "401 limit  remaining  reset - retry "; got != want {
		t.Errorf("without a caller: %s, want %s", got, want)
	}
}

// On the wire the names are spelled as documented, for those who look for them
// with regard to case. A client of this language would not show it.
func TestRateLimitSpelling(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(s *settings) { s.rate = api.Rate{MaxTokens: 1, RefillPerMin: 1} })
	for _, status := range []int{http.StatusOK, http.StatusTooManyRequests} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/tickets", nil)
		r.Header.Set("X-API-Key", h.a.APIKey)
		w := httptest.NewRecorder()
		h.api.ServeHTTP(w, r)
		var got []string
		for name := range w.Result().Header {
			if strings.HasPrefix(strings.ToLower(name), "x-ratelimit-") {
				got = append(got, name)
			}
		}
		slices.Sort(got)
		want := []string{"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"}
		if !slices.Equal(got, want) || w.Code != status {
			t.Errorf("%d with %q, want %d with %q", w.Code, got, status, want)
		}
	}
}

func TestRateLimitBody(t *testing.T) {
	t.Parallel()
	c := newStillClock()
	h := newHarness(t, func(s *settings) { s.now, s.rate = c.now, api.Rate{MaxTokens: 1, RefillPerMin: 60} })
	h.do(t, "GET", "/tickets", h.a.APIKey, nil).want(t, http.StatusOK)
	c.advance(250 * time.Millisecond)
	events := h.newEvents(t, func() {
		e := h.do(t, "POST", "/tickets", h.a.APIKey, h.draft(nil)).wantError(t, http.StatusTooManyRequests, "RATE_LIMITED")
		want := map[string]any{
			"code": "RATE_LIMITED", "message": "Too many requests",
			"details": map[string]any{"retry_after_ms": 750.0, "remaining": 0.0},
		}
		if diff := cmp.Diff(want, e); diff != "" {
			t.Error(diff)
		}
	})
	if events != "" {
		t.Errorf("a limited call made events %q", events)
	}
}

// A key's own limit comes before its tenant's, and that before the server's,
// field by field (contract section 1.6).
func TestRateLimitOverrides(t *testing.T) {
	t.Parallel()
	c := newStillClock()
	h := newHarness(t, func(s *settings) { s.now, s.rate = c.now, api.Rate{MaxTokens: 9, RefillPerMin: 60} })
	keyOf := func(tenant store.Bootstrapped, r store.RateLimit) string {
		return h.keyOf(t, tenant.TenantID, store.KeyDraft{UserID: tenant.UserID, Name: "test", Rate: r})
	}
	_, err := h.store.UpdateTenant(t.Context(), h.b.TenantID, func(tn *store.Tenant) error {
		tn.Rate = store.RateLimit{MaxTokens: new(5), RefillPerMin: new(30)}
		return nil
	})
	must(t, err)
	for name, tc := range map[string]struct{ key, want string }{
		"server":          {h.a.APIKey, "200 limit 9 remaining 8 reset 1s retry "},
		"tenant":          {h.b.APIKey, "200 limit 5 remaining 4 reset 2s retry "},
		"key":             {keyOf(h.a, store.RateLimit{MaxTokens: new(2)}), "200 limit 2 remaining 1 reset 1s retry "},
		"key over tenant": {keyOf(h.b, store.RateLimit{MaxTokens: new(2)}), "200 limit 2 remaining 1 reset 2s retry "},
		"key without":     {keyOf(h.b, store.RateLimit{Enabled: new(false)}), "200 limit  remaining  reset - retry "},
	} {
		if got := budget(t, c, h.do(t, "GET", "/tickets", tc.key, nil)); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
	// A new limit begins with its own bucket, and what was left of the old one is gone.
	_, err = h.store.UpdateTenant(t.Context(), h.b.TenantID, func(tn *store.Tenant) error { tn.Rate.MaxTokens = new(1); return nil })
	must(t, err)
	for _, want := range []string{"200 limit 1 remaining 0 reset 2s retry ", "429 limit 1 remaining 0 reset 2s retry 2"} {
		if got := budget(t, c, h.do(t, "GET", "/tickets", h.b.APIKey, nil)); got != want {
			t.Errorf("the tenant's new limit: %s, want %s", got, want)
		}
	}
}

func TestRateLimitObserved(t *testing.T) {
	t.Parallel()
	c := newStillClock()
	var log safeBuffer
	metrics := prometheus.NewRegistry()
	h := newHarness(t, func(s *settings) {
		s.now, s.rate, s.observe = c.now, api.Rate{MaxTokens: 1, RefillPerMin: 60}, true
		s.log, s.metrics = &log, metrics
	})
	for i, want := range []string{
		"200 limit 1 remaining 0 reset 1s retry ", "200 limit 1 remaining 0 reset 1s retry ", "200 limit 1 remaining 0 reset 1s retry ",
	} {
		if got := budget(t, c, h.do(t, "GET", "/tickets", h.a.APIKey, nil)); got != want {
			t.Errorf("call %d: %s, want %s", i, got, want)
		}
	}
	warned := strings.Count(log.String(), `level=WARN msg="rate limit exceeded, let through in observation mode" tenant=`+h.a.TenantID)
	if n := counted(t, metrics)["rate_limited"]; warned != 2 || n != 2 {
		t.Errorf("two calls over the limit are %d warnings and counted as %v", warned, n)
	}
}

// What the console shows as left is what the next call is told, on one node and
// over several.
func TestRemaining(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) { t.Parallel(); remaining(t, "") })
	t.Run("postgres", func(t *testing.T) { t.Parallel(); remaining(t, postgres.Start(t)) })
}

func remaining(t *testing.T, databaseURL string) {
	c := newStillClock()
	h := newHarness(t, func(s *settings) {
		s.now, s.rate = c.now, api.Rate{MaxTokens: 10, RefillPerMin: 60}
		s.store.DatabaseURL, s.store.Now = databaseURL, time.Now
	})
	draft := func(rate store.RateLimit) store.KeyDraft {
		return store.KeyDraft{UserID: h.a.UserID, Name: "k", Rate: rate}
	}
	h.keyOf(t, h.a.TenantID, draft(store.RateLimit{})) // makes no call
	own := h.keyOf(t, h.a.TenantID, draft(store.RateLimit{MaxTokens: new(4), RefillPerMin: new(6)}))
	free := h.keyOf(t, h.a.TenantID, draft(store.RateLimit{Enabled: new(false)}))
	h.do(t, "GET", "/tickets", h.b.APIKey, nil).want(t, http.StatusOK)
	keys, err := h.store.Keys(t.Context(), h.a.TenantID)
	must(t, err)
	prefix := map[string]string{}
	for _, k := range keys {
		prefix[k.KeyID] = k.Prefix
	}
	for _, step := range []struct {
		wait            time.Duration
		calls           int
		normal, limited store.Remaining
	}{
		{0, 3, store.Remaining{Calls: 7, Limit: 10}, store.Remaining{Calls: 1, Limit: 4}},
		{2 * time.Second, 0, store.Remaining{Calls: 9, Limit: 10}, store.Remaining{Calls: 1, Limit: 4}},
		{8 * time.Second, 0, store.Remaining{Calls: 10, Limit: 10}, store.Remaining{Calls: 2, Limit: 4}},
		{time.Hour, 0, store.Remaining{Calls: 10, Limit: 10}, store.Remaining{Calls: 4, Limit: 4}},
	} {
		c.advance(step.wait)
		for range step.calls {
			for _, key := range []string{h.a.APIKey, own, free} {
				h.do(t, "GET", "/tickets", key, nil).want(t, http.StatusOK)
			}
		}
		left, err := h.api.Remaining(t.Context(), c.now(), h.a.TenantID, keys)
		must(t, err)
		got := map[string]store.Remaining{}
		for id, r := range left {
			got[prefix[id]] = r
		}
		want := map[string]store.Remaining{h.a.APIKey[:len(keys[0].Prefix)]: step.normal, own[:len(keys[0].Prefix)]: step.limited}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("after %s (-want +got):\n%s", step.wait, diff)
		}
	}
}
