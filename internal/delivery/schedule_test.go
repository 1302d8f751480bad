package delivery_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
)

func ptr[T any](v T) *T { return &v }

func TestScheduleFor(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		rc   *delivery.RetryConfig
		want string
	}{
		{"none", nil, "1m,5m,30m,2h,12h"},
		{"empty", &delivery.RetryConfig{}, "1m,5m,30m,2h,12h"},
		{"only a timeout", &delivery.RetryConfig{Timeout: ptr(int64(2000))}, "1m,5m,30m,2h,12h"},
		{"fewer attempts", &delivery.RetryConfig{MaxAttempts: ptr(3)}, "1m,5m"},
		{"same attempts", &delivery.RetryConfig{MaxAttempts: ptr(6)}, "1m,5m,30m,2h,12h"},
		{"more attempts", &delivery.RetryConfig{MaxAttempts: ptr(8)}, "1m,5m,30m,2h,12h,12h,12h"},
		{"one attempt", &delivery.RetryConfig{MaxAttempts: ptr(1)}, "none"},
		{"own schedule", &delivery.RetryConfig{Schedule: []int64{1, 1500, 60000}}, "1ms,1.5s,1m"},
		{"own schedule wins", &delivery.RetryConfig{Schedule: []int64{1000}, Strategy: ptr("linear_backoff"), InitialDelay: ptr(int64(5))}, "1s"},
		{"own schedule, fewer", &delivery.RetryConfig{Schedule: []int64{1000, 2000, 3000}, MaxAttempts: ptr(2)}, "1s"},
		{"own schedule, more", &delivery.RetryConfig{Schedule: []int64{1000, 2000}, MaxAttempts: ptr(4)}, "1s,2s,2s"},
		{"exponential", &delivery.RetryConfig{Strategy: ptr("exponential_backoff")}, "1s,2s,4s,8s,16s"},
		{"exponential by a number alone", &delivery.RetryConfig{BackoffMultiplier: ptr(3.0)}, "1s,3s,9s,27s,1m21s"},
		{"exponential, capped", &delivery.RetryConfig{InitialDelay: ptr(int64(60000)), MaxAttempts: ptr(5)}, "1m,2m,4m,5m"},
		{"initial delay over the default cap", &delivery.RetryConfig{InitialDelay: ptr(int64(600000)), MaxAttempts: ptr(3)}, "10m,10m"},
		{"max delay alone", &delivery.RetryConfig{MaxDelay: ptr(int64(3000))}, "1s,2s,3s,3s,3s"},
		{"factor beyond any number", &delivery.RetryConfig{BackoffMultiplier: ptr(1e308)}, "1s,5m,5m,5m,5m"},
		{"linear", &delivery.RetryConfig{Strategy: ptr("linear_backoff"), InitialDelay: ptr(int64(120000))}, "2m,4m,5m,5m,5m"},
		{"fixed", &delivery.RetryConfig{Strategy: ptr("fixed_interval"), InitialDelay: ptr(int64(700)), MaxAttempts: ptr(10)},
			"700ms,700ms,700ms,700ms,700ms,700ms,700ms,700ms,700ms"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := delivery.FormatSchedule(delivery.DefaultPolicy().ScheduleFor(tt.rc))
			if got != tt.want {
				t.Errorf("ScheduleFor = %s, want %s", got, tt.want)
			}
		})
	}
	none := delivery.Policy{}
	if got := none.ScheduleFor(&delivery.RetryConfig{MaxAttempts: ptr(4)}); len(got) != 0 {
		t.Errorf("a server without retries repeats %v", got)
	}
}

func TestScheduleForLeavesPolicyAlone(t *testing.T) {
	t.Parallel()
	p := delivery.DefaultPolicy()
	cut := p.ScheduleFor(&delivery.RetryConfig{MaxAttempts: ptr(3)})
	_ = append(cut, time.Nanosecond)
	if diff := cmp.Diff(delivery.DefaultPolicy().Schedule, p.Schedule); diff != "" {
		t.Errorf("appending to a cut schedule changed the policy:\n%s", diff)
	}
}

func TestTimeoutFor(t *testing.T) {
	t.Parallel()
	p := delivery.DefaultPolicy()
	for _, tt := range []struct {
		rc   *delivery.RetryConfig
		want time.Duration
	}{
		{nil, 10 * time.Second},
		{&delivery.RetryConfig{}, 10 * time.Second},
		{&delivery.RetryConfig{Timeout: ptr(int64(1500))}, 1500 * time.Millisecond},
	} {
		if got := p.TimeoutFor(tt.rc); got != tt.want {
			t.Errorf("TimeoutFor(%+v) = %v, want %v", tt.rc, got, tt.want)
		}
	}
}

func TestParseSchedule(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in   string
		want string // the written form
		err  string // part of the message
	}{
		{in: "1m,5m,30m,2h,12h", want: "1m,5m,30m,2h,12h"},
		{in: " 90s , 1h30m", want: "1m30s,1h30m"},
		{in: "1ms", want: "1ms"},
		{in: "168h", want: "168h"},
		{in: "none", want: "none"},
		{in: "", err: `delay 1 is ""`},
		{in: "1m,,5m", err: `delay 2 is ""`},
		{in: "1m,5x", err: `delay 2 is "5x", want a duration such as`},
		{in: "60", err: `delay 1 is "60"`},
		{in: "0s", err: "delay 1 is 0s, want 1ms to 168h"},
		{in: "-1m", err: "delay 1 is -1m0s"},
		{in: "169h", err: "delay 1 is 169h"},
		{in: strings.Repeat("1s,", 20) + "1s", err: "21 delays, at most 20"},
	}
	for _, tt := range tests {
		got, err := delivery.ParseSchedule(tt.in)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) || !fault.Is(err, fault.Invalid) {
				t.Errorf("ParseSchedule(%q) = %v, %v, want an error with %q", tt.in, got, err, tt.err)
			}
			continue
		}
		if err != nil || delivery.FormatSchedule(got) != tt.want {
			t.Errorf("ParseSchedule(%q) = %s, %v, want %s", tt.in, delivery.FormatSchedule(got), err, tt.want)
		}
	}
}

func TestScheduleRoundTrip(t *testing.T) {
	t.Parallel()
	delay := rapid.OneOf(
		rapid.Int64Range(1, 604800000),
		rapid.Map(rapid.Int64Range(1, 10080), func(m int64) int64 { return m * 60000 }),
	)
	rapid.Check(t, func(t *rapid.T) {
		ms := rapid.SliceOfN(delay, 0, 20).Draw(t, "schedule")
		want := make([]time.Duration, len(ms))
		for i, v := range ms {
			want[i] = time.Duration(v) * time.Millisecond
		}
		written := delivery.FormatSchedule(want)
		got, err := delivery.ParseSchedule(written)
		if err != nil || !cmp.Equal(want, got, cmpopts.EquateEmpty()) {
			t.Fatalf("%v written as %s reads as %v, %v", want, written, got, err)
		}
	})
}

// TestBackoffBounds: whatever a valid retry_config says, the schedule it makes
// is one that a policy could hold, and has the number of attempts it asks for.
func TestBackoffBounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rc := &delivery.RetryConfig{
			Strategy:          rapid.Ptr(rapid.SampledFrom([]string{"exponential_backoff", "linear_backoff", "fixed_interval"}), true).Draw(t, "strategy"),
			MaxAttempts:       rapid.Ptr(rapid.IntRange(1, 10), true).Draw(t, "attempts"),
			InitialDelay:      rapid.Ptr(rapid.Int64Range(1, 604800000), true).Draw(t, "initial"),
			MaxDelay:          rapid.Ptr(rapid.Int64Range(1000, 604800000), true).Draw(t, "max"),
			BackoffMultiplier: rapid.Ptr(rapid.Float64Min(1), true).Draw(t, "factor"),
		}
		s := spec()
		s.RetryConfig = rc
		if s.Validate() != nil {
			return // initial over max
		}
		p := delivery.DefaultPolicy()
		p.Schedule = p.ScheduleFor(rc)
		if err := p.Validate(); err != nil {
			t.Fatal(err)
		}
		if rc.MaxAttempts != nil && len(p.Schedule) != *rc.MaxAttempts-1 {
			t.Fatalf("%d retries for %d attempts", len(p.Schedule), *rc.MaxAttempts)
		}
		for i := 1; i < len(p.Schedule); i++ {
			if p.Schedule[i] < p.Schedule[i-1] {
				t.Fatalf("%v gets shorter", p.Schedule)
			}
		}
	})
}

func TestPolicyValidate(t *testing.T) {
	t.Parallel()
	if err := delivery.DefaultPolicy().Validate(); err != nil {
		t.Fatalf("the default policy: %v", err)
	}
	nan := 0.0
	nan /= nan
	tests := []struct {
		name   string
		change func(*delivery.Policy)
		want   string
	}{
		{"too many delays", func(p *delivery.Policy) { p.Schedule = make([]time.Duration, 21) }, "21 delays"},
		{"zero delay", func(p *delivery.Policy) { p.Schedule[2] = 0 }, "delay 3 is 0s"},
		{"long delay", func(p *delivery.Policy) { p.Schedule[0] = 200 * time.Hour }, "delay 1"},
		{"negative jitter", func(p *delivery.Policy) { p.Jitter = -0.1 }, "jitter"},
		{"jitter over 1", func(p *delivery.Policy) { p.Jitter = 1.1 }, "jitter"},
		{"jitter NaN", func(p *delivery.Policy) { p.Jitter = nan }, "jitter"},
		{"no timeout", func(p *delivery.Policy) { p.Timeout = 0 }, "timeout"},
		{"negative disable after", func(p *delivery.Policy) { p.DisableAfter = -1 }, "disable after"},
		{"warnings out of order", func(p *delivery.Policy) { p.WarnAfter = []time.Duration{2, 1} }, "entry 2"},
		{"reminders all the time", func(p *delivery.Policy) { p.RemindEvery = time.Minute }, "remind every is 1m0s"},
		{"a reminder in a lifetime", func(p *delivery.Policy) { p.RemindEvery = 100_000 * time.Hour }, "remind every is"},
		{"reminders backwards", func(p *delivery.Policy) { p.RemindEvery = -time.Hour }, "remind every is -1h0m0s"},
		{"warning at once", func(p *delivery.Policy) { p.WarnAfter = []time.Duration{0} }, "entry 1"},
	}
	for _, tt := range tests {
		p := delivery.DefaultPolicy()
		tt.change(&p)
		if err := p.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error with %q", tt.name, err, tt.want)
		}
	}
	for _, change := range []func(*delivery.Policy){
		func(p *delivery.Policy) { p.Schedule = nil },
		func(p *delivery.Policy) { p.DisableAfter = 0 },
		func(p *delivery.Policy) { p.WarnAfter = nil },
		func(p *delivery.Policy) { p.RemindEvery = 0 },
	} {
		p := delivery.DefaultPolicy()
		change(&p)
		if err := p.Validate(); err != nil {
			t.Errorf("%+v: %v", p, err)
		}
	}
}
