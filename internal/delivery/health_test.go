package delivery_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/ticketwire/ticketwire/internal/delivery"
)

func TestRecord(t *testing.T) {
	t.Parallel()
	t0 := ended()
	var h delivery.Health
	h.Record(true, t0)
	h.Record(false, t0.Add(time.Minute))
	h.Record(false, t0.Add(2*time.Minute))
	h.WarningsSent = 1
	want := delivery.Health{
		TotalDeliveries: 3, SuccessfulDeliveries: 1, FailedDeliveries: 2,
		LastDeliveryAt: ptr(t0.Add(2 * time.Minute)), LastSuccessAt: ptr(t0),
		LastFailureAt: ptr(t0.Add(2 * time.Minute)), FailingSince: ptr(t0.Add(time.Minute)), WarningsSent: 1,
	}
	if diff := cmp.Diff(want, h); diff != "" {
		t.Errorf("while failing (-want +got):\n%s", diff)
	}
	h.Record(true, t0.Add(3*time.Minute))
	if h.FailingSince != nil || h.WarningsSent != 0 {
		t.Errorf("a success leaves FailingSince %v, WarningsSent %d", h.FailingSince, h.WarningsSent)
	}
	// A slow attempt that ended before the success is recorded after it.
	h.Record(false, t0.Add(150*time.Second))
	if h.FailingSince != nil || !h.LastDeliveryAt.Equal(t0.Add(3*time.Minute)) {
		t.Errorf("a late record starts a streak at %v or moves LastDeliveryAt to %v", h.FailingSince, h.LastDeliveryAt)
	}
	copied := h
	h.Record(false, t0.Add(time.Hour))
	if copied.LastFailureAt.Equal(*h.LastFailureAt) {
		t.Error("a record changed a copy of the health")
	}
}

func TestCounts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		d    delivery.Delivery
		a    delivery.Answer
		want bool
	}{
		{"success", delivery.Delivery{}, status(200), true},
		{"failure", delivery.Delivery{}, status(500), true},
		{"manual", delivery.Delivery{IsManual: true}, status(500), true},
		{"test", delivery.Delivery{IsTest: true}, status(200), false},
		{"refused by us", delivery.Delivery{}, delivery.Answer{Err: delivery.ErrSSRF}, false},
	} {
		if got := tt.d.Counts(tt.a); got != tt.want {
			t.Errorf("%s: Counts = %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestDisableDue(t *testing.T) {
	t.Parallel()
	p := delivery.DefaultPolicy()
	t0 := ended()
	var h delivery.Health
	if p.DisableDue(h, true, t0) {
		t.Error("due without any attempt")
	}
	h.Record(false, t0)
	for _, tt := range []struct {
		after time.Duration
		want  bool
	}{
		{0, false},
		{24*time.Hour - time.Nanosecond, false},
		{24 * time.Hour, true}, // by the timer: no attempt at this time
		{30 * time.Hour, true},
		{-time.Hour, false}, // the clock went back
	} {
		if got := p.DisableDue(h, true, t0.Add(tt.after)); got != tt.want {
			t.Errorf("after %v: DisableDue = %v, want %v", tt.after, got, tt.want)
		}
	}
	if p.DisableDue(h, false, t0.Add(30*time.Hour)) {
		t.Error("due though inactive")
	}
	never := p
	never.DisableAfter = 0
	if never.DisableDue(h, true, t0.Add(1000*time.Hour)) {
		t.Error("due though disabling is off")
	}
	// One success at 23 h 59 m resets the day.
	h.Record(true, t0.Add(24*time.Hour-time.Minute))
	h.Record(false, t0.Add(24*time.Hour))
	if p.DisableDue(h, true, t0.Add(47*time.Hour)) || !p.DisableDue(h, true, t0.Add(48*time.Hour)) {
		t.Error("the streak after a success does not last its own 24 h")
	}
	// Re-enabling starts anew: the failure right after it disables nothing.
	at := t0.Add(49 * time.Hour)
	h.AutoDisabledAt, h.WarningsSent = &at, 2
	h.Reenable()
	h.Record(false, at)
	if h.AutoDisabledAt != nil || h.WarningsSent != 0 || p.DisableDue(h, true, at.Add(time.Minute)) {
		t.Errorf("after Reenable: %+v", h)
	}
	if h.FailedDeliveries != 3 {
		t.Errorf("Reenable changed the counters: %d failed, want 3", h.FailedDeliveries)
	}
}

func TestWarningDue(t *testing.T) {
	t.Parallel()
	p := delivery.DefaultPolicy()
	t0 := ended()
	var h delivery.Health
	if n := p.WarningDue(h, t0); n != 0 {
		t.Errorf("healthy: %d warnings due", n)
	}
	h.Record(false, t0)
	for after, want := range map[time.Duration]int{
		0: 0, 59 * time.Minute: 0, time.Hour: 1, 11 * time.Hour: 1, 12 * time.Hour: 2, 100 * time.Hour: 2,
	} {
		if got := p.WarningDue(h, t0.Add(after)); got != want {
			t.Errorf("after %v: %d warnings due, want %d", after, got, want)
		}
	}
}

func TestHealthStatus(t *testing.T) {
	t.Parallel()
	t0, t1 := ended(), ended().Add(time.Minute)
	tests := []struct {
		name   string
		active bool
		h      delivery.Health
		want   string
	}{
		{"new", true, delivery.Health{}, "healthy"},
		{"inactive", false, delivery.Health{}, "disabled"},
		{"auto-disabled", true, delivery.Health{AutoDisabledAt: &t0}, "disabled"},
		{"only failures", true, delivery.Health{LastFailureAt: &t0}, "failing"},
		{"failed since", true, delivery.Health{LastSuccessAt: &t0, LastFailureAt: &t1}, "failing"},
		{"recovered", true, delivery.Health{LastSuccessAt: &t1, LastFailureAt: &t0}, "healthy"},
		{"same instant", true, delivery.Health{LastSuccessAt: &t0, LastFailureAt: &t0}, "healthy"},
	}
	for _, tt := range tests {
		w := &delivery.Webhook{Spec: delivery.Spec{IsActive: tt.active}, Health: tt.h}
		if got := delivery.HealthStatus(w); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestSuccessRate(t *testing.T) {
	t.Parallel()
	if got := (delivery.Health{}).SuccessRate(); got != 1 {
		t.Errorf("before the first attempt: %v, want 1", got)
	}
	if got := (delivery.Health{TotalDeliveries: 8, SuccessfulDeliveries: 6}).SuccessRate(); got != 0.75 {
		t.Errorf("6 of 8: %v", got)
	}
}

// TestHealthModel compares Record with a plain reading of contract section
// 4.11: the streak starts at the oldest failure since the last success.
func TestHealthModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var h delivery.Health
		var since *time.Time
		now := ended()
		wins := int64(0)
		results := rapid.SliceOf(rapid.Bool()).Draw(t, "results")
		for _, ok := range results {
			now = now.Add(time.Duration(rapid.Int64Range(0, 3600).Draw(t, "gap")) * time.Second)
			h.Record(ok, now)
			switch {
			case ok:
				since = nil
				wins++
			case since == nil:
				since = ptr(now)
			}
		}
		if diff := cmp.Diff(since, h.FailingSince); diff != "" {
			t.Fatalf("FailingSince (-want +got):\n%s", diff)
		}
		if h.TotalDeliveries != int64(len(results)) || h.SuccessfulDeliveries != wins || h.FailedDeliveries != int64(len(results))-wins {
			t.Fatalf("counters %+v after %v", h, results)
		}
	})
}

func TestPerMinute(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name      string
		r         *delivery.RateLimit
		perMinute int
		burst     int
		limited   bool
	}{
		{"absent", nil, 100, 100, true},
		{"empty", &delivery.RateLimit{}, 100, 100, true},
		{"number only", &delivery.RateLimit{RequestsPerMinute: ptr(30)}, 30, 30, true},
		{"enabled", &delivery.RateLimit{Enabled: ptr(true), RequestsPerMinute: ptr(30), BurstLimit: ptr(5)}, 30, 5, true},
		{"burst only", &delivery.RateLimit{BurstLimit: ptr(7)}, 100, 7, true},
		{"lifted", &delivery.RateLimit{Enabled: ptr(false), RequestsPerMinute: ptr(30)}, 0, 0, false},
	}
	for _, tt := range tests {
		perMinute, burst, limited := tt.r.PerMinute()
		if perMinute != tt.perMinute || burst != tt.burst || limited != tt.limited {
			t.Errorf("%s: %d, %d, %v, want %d, %d, %v", tt.name, perMinute, burst, limited, tt.perMinute, tt.burst, tt.limited)
		}
	}
}
