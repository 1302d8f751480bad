package dispatch

import (
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/store"
)

func TestBreaker(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var b breaker
	for i := range breakerTrips - 1 {
		if until := b.note(now, finished{omen: hung}); until.After(now) || b.open() {
			t.Fatalf("open after %d slow failures", i+1)
		}
	}
	// It opens, and what was in flight then does not make the pause longer.
	for range 10 {
		if until := b.note(now, finished{omen: hung}); until.Sub(now) != breakerPause || b.width(16) != 1 {
			t.Fatalf("paused for %s with %d requests", until.Sub(now), b.width(16))
		}
	}
	// Probes that fail pause longer each time, up to the limit.
	want := breakerPause
	for range 10 {
		now = b.until
		want = min(2*want, breakerLimit)
		if until := b.note(now, finished{omen: hung}); until.Sub(now) != want {
			t.Fatalf("paused for %s, want %s", until.Sub(now), want)
		}
	}
	// What tells nothing changes nothing, and an answer closes it.
	if b.note(now, finished{omen: unknown}); !b.open() {
		t.Error("closed by an attempt that tells nothing")
	}
	if until := b.note(now, finished{omen: answered}); until.After(now) || b.open() || b.width(16) != 16 {
		t.Errorf("still open after an answer: %+v", b)
	}
	// A pause that the receiver asks for counts at once and has a bound.
	if until := b.note(now, finished{omen: answered, pause: 7 * time.Second}); until.Sub(now) != 7*time.Second || b.open() {
		t.Errorf("asked for 7s, pauses for %s", until.Sub(now))
	}
	if until := b.note(now, finished{omen: answered, pause: time.Hour}); until.Sub(now) != breakerLimit {
		t.Errorf("asked for an hour, pauses for %s", until.Sub(now))
	}
}

func TestOmens(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer delivery.Answer
		want   omen
		pause  time.Duration
	}{
		"delivered":           {answer: delivery.Answer{StatusCode: 200}, want: answered},
		"an error":            {answer: delivery.Answer{StatusCode: 500, Err: delivery.ErrStatus}, want: answered},
		"no answer in time":   {answer: delivery.Answer{Err: delivery.ErrTimeout, Duration: 10 * time.Second}, want: hung},
		"a body without end":  {answer: delivery.Answer{StatusCode: 200, Err: delivery.ErrTimeout, Duration: 10 * time.Second}, want: hung},
		"refused at once":     {answer: delivery.Answer{Err: delivery.ErrConnect, Duration: time.Millisecond}, want: unknown},
		"no way to connect":   {answer: delivery.Answer{Err: delivery.ErrConnect, Duration: 5 * time.Second}, want: hung},
		"an address of ours":  {answer: delivery.Answer{Err: delivery.ErrSSRF}, want: unknown},
		"overloaded":          {answer: delivery.Answer{StatusCode: 503, Err: delivery.ErrStatus}, want: answered},
		"too many, 12 s":      {answer: delivery.Answer{StatusCode: 429, Err: delivery.ErrStatus, RetryAfter: []string{"12"}}, want: answered, pause: 12 * time.Second},
		"Retry-After on 500":  {answer: delivery.Answer{StatusCode: 500, Err: delivery.ErrStatus, RetryAfter: []string{"12"}}, want: answered},
		"an unreadable pause": {answer: delivery.Answer{StatusCode: 503, Err: delivery.ErrStatus, RetryAfter: []string{"soon"}}, want: answered},
	} {
		if got, pause := omenOf(&store.Result{Answer: c.answer}); got != c.want || pause != c.pause {
			t.Errorf("%s: omen %d and a pause of %s, want %d and %s", name, got, pause, c.want, c.pause)
		}
	}
}
