package delivery

import (
	"math"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/internal/fault"
)

// The names of RetryConfig.Strategy (contract section 3.3).
const (
	StrategyExponential = "exponential_backoff"
	StrategyLinear      = "linear_backoff"
	StrategyFixed       = "fixed_interval"
	StrategyCustom      = "custom"
)

// Bounds of a schedule, the server's and a webhook's.
const (
	maxRetries = 20
	minDelay   = time.Millisecond
	maxDelay   = 7 * 24 * time.Hour
)

// Bounds of the time between reminders.
const (
	minRemind = time.Hour
	maxRemind = 365 * 24 * time.Hour
)

// What a retry_config falls back to where it names a strategy but no numbers.
const (
	defaultInitialDelay = int64(1000)   // ms
	defaultMaxDelay     = int64(300000) // ms
	defaultMultiplier   = 2.0
	defaultAttempts     = 6
)

// DefaultPolicy returns the rules of the guide: 1 + 5 attempts over 14 h 36 m,
// 10 s for an exchange, switched off after 24 h of failures. The jitter is
// ours: without it all subscribers of a host retry in the same instant.
func DefaultPolicy() Policy {
	return Policy{
		Schedule:     []time.Duration{time.Minute, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 12 * time.Hour},
		Jitter:       0.05,
		Timeout:      10 * time.Second,
		DisableAfter: 24 * time.Hour,
		WarnAfter:    []time.Duration{time.Hour, 12 * time.Hour},
		RemindEvery:  7 * 24 * time.Hour,
		GoneDisables: true,
	}
}

// Validate returns the first thing wrong with p as a *fault.Error of kind
// Invalid. An empty Schedule is fine and means no retries.
func (p Policy) Validate() error {
	if len(p.Schedule) > maxRetries {
		return fault.New(fault.Invalid, "retry schedule: %d delays, at most %d are allowed", len(p.Schedule), maxRetries)
	}
	for i, d := range p.Schedule {
		if d < minDelay || d > maxDelay {
			return fault.New(fault.Invalid, "retry schedule: delay %d is %v, want %v to %v", i+1, d, minDelay, maxDelay)
		}
	}
	if !(p.Jitter >= 0 && p.Jitter <= 1) { // written so that NaN fails too
		return fault.New(fault.Invalid, "retry jitter is %v, want 0 to 1", p.Jitter)
	}
	if p.Timeout <= 0 {
		return fault.New(fault.Invalid, "request timeout is %v, want more than 0", p.Timeout)
	}
	if p.DisableAfter < 0 {
		return fault.New(fault.Invalid, "disable after is %v, want 0 (never) or more", p.DisableAfter)
	}
	last := time.Duration(0)
	for i, d := range p.WarnAfter {
		if d <= last {
			return fault.New(fault.Invalid, "warn after: entry %d is %v, want more than %v", i+1, d, last)
		}
		last = d
	}
	if p.RemindEvery != 0 && (p.RemindEvery < minRemind || p.RemindEvery > maxRemind) {
		return fault.New(fault.Invalid, "remind every is %v, want 0 (never) or %v to %v", p.RemindEvery, minRemind, maxRemind)
	}
	return nil
}

// ScheduleFor returns the delay before each retry of a webhook with this
// retry_config; its length plus one is the number of attempts. The slice may be
// p.Schedule itself and must not be changed.
//
// A schedule in rc wins over everything else in it. Otherwise a strategy, or
// any number that only a strategy can use, computes the delays. Otherwise the
// server's schedule applies. max_attempts then cuts the result, or repeats its
// last delay, until it fits (contract D20).
func (p Policy) ScheduleFor(rc *RetryConfig) []time.Duration {
	if rc == nil {
		return p.Schedule
	}
	if len(rc.Schedule) > 0 {
		out := make([]time.Duration, len(rc.Schedule))
		for i, ms := range rc.Schedule {
			out[i] = millis(ms)
		}
		return fit(out, rc.MaxAttempts)
	}
	if rc.Strategy == nil && rc.InitialDelay == nil && rc.MaxDelay == nil && rc.BackoffMultiplier == nil {
		return fit(p.Schedule, rc.MaxAttempts)
	}
	return rc.backoff()
}

// backoff computes the delays of a strategy, none longer than max_delay. An
// initial_delay over the default max_delay raises it: the owner asked for it.
func (rc *RetryConfig) backoff() []time.Duration {
	strategy := or(rc.Strategy, StrategyExponential)
	initial := or(rc.InitialDelay, defaultInitialDelay)
	limit := or(rc.MaxDelay, max(defaultMaxDelay, initial))
	factor := or(rc.BackoffMultiplier, defaultMultiplier)
	out := make([]time.Duration, max(or(rc.MaxAttempts, defaultAttempts)-1, 0))
	for i := range out {
		ms := float64(initial)
		switch strategy {
		case StrategyLinear:
			ms *= float64(i + 1)
		case StrategyExponential:
			ms *= math.Pow(factor, float64(i))
		}
		// The minimum is taken before the conversion: ms may be +Inf.
		out[i] = millis(int64(math.Min(ms, float64(limit))))
	}
	return out
}

// fit makes a schedule of attempts-1 delays out of s without changing s. A
// schedule without any delay has nothing to repeat and stays empty.
func fit(s []time.Duration, attempts *int) []time.Duration {
	if attempts == nil || len(s) == 0 {
		return s
	}
	n := max(*attempts-1, 0)
	if n <= len(s) {
		return s[:n:n]
	}
	out := make([]time.Duration, n)
	copy(out, s)
	for i := len(s); i < n; i++ {
		out[i] = s[len(s)-1]
	}
	return out
}

// TimeoutFor returns how long a whole exchange with this webhook may take.
func (p Policy) TimeoutFor(rc *RetryConfig) time.Duration {
	if rc == nil || rc.Timeout == nil {
		return p.Timeout
	}
	return millis(*rc.Timeout)
}

// millis converts wire milliseconds.
func millis(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond }

// or returns what p points to, or the fallback.
func or[T any](p *T, fallback T) T {
	if p == nil {
		return fallback
	}
	return *p
}

// noRetries is the written form of a schedule without delays.
const noRetries = "none"

// ParseSchedule reads the written form of a schedule: 1 to 20 durations of 1 ms
// to 168 h, separated by commas, as in 1m,5m,30m,2h,12h, or none. Errors name
// the entry and are of kind Invalid.
func ParseSchedule(s string) ([]time.Duration, error) {
	if strings.TrimSpace(s) == noRetries {
		return nil, nil
	}
	parts := strings.Split(s, ",")
	if len(parts) > maxRetries {
		return nil, fault.New(fault.Invalid, "retry schedule: %d delays, at most %d are allowed", len(parts), maxRetries)
	}
	out := make([]time.Duration, len(parts))
	for i, part := range parts {
		part = strings.TrimSpace(part)
		d, err := time.ParseDuration(part)
		if err != nil {
			return nil, fault.New(fault.Invalid, "retry schedule: delay %d is %q, want a duration such as 90s, 5m or 2h", i+1, part)
		}
		if d < minDelay || d > maxDelay {
			return nil, fault.New(fault.Invalid, "retry schedule: delay %d is %v, want %v to %v", i+1, d, minDelay, maxDelay)
		}
		out[i] = d
	}
	return out, nil
}

// FormatSchedule writes s in the form that ParseSchedule reads, without the
// zero parts that time.Duration prints: 12h, not 12h0m0s.
func FormatSchedule(s []time.Duration) string {
	if len(s) == 0 {
		return noRetries
	}
	parts := make([]string, len(s))
	for i, d := range s {
		part := d.String()
		if d >= time.Minute && d%time.Minute == 0 {
			part = strings.TrimSuffix(part, "0s")
		}
		if d >= time.Hour && d%time.Hour == 0 {
			part = strings.TrimSuffix(part, "0m")
		}
		parts[i] = part
	}
	return strings.Join(parts, ",")
}
