package dispatch

import (
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/store"
)

// breaker keeps a receiver that hangs from holding requests that others need:
// after some slow failures in a row its lane sends one request at a time, a
// probe, with growing pauses between them, until one is answered. Nothing is
// given up meanwhile, and no attempt is spent on waiting.
//
// A receiver that fails quickly is not its business: such attempts cost nobody
// anything, and the schedule says when they are repeated. One that asks for a
// pause with Retry-After gets it, for all its deliveries.
//
// The zero breaker is closed.
type breaker struct {
	strikes int       // failures in a row that count
	probes  int       // of them, those since it opened
	until   time.Time // no probe before then
}

// omen is what an attempt says about its receiver.
type omen int

const (
	unknown  omen = iota // nothing: it was broken off by us, or refused before it was sent
	answered             // the receiver is there, whatever it said
	hung                 // it held the request until it failed
)

// breakerTrips is how many slow failures in a row open the breaker, and the
// pauses before a probe double from breakerPause to breakerLimit. slowFailure is
// how long a request must have been held for its failure to count.
const (
	breakerTrips = 5
	slowFailure  = 2 * time.Second
	breakerPause = time.Second
	breakerLimit = 30 * time.Second
)

// open reports whether only probes are sent.
func (b *breaker) open() bool { return b.strikes >= breakerTrips }

// width is how many requests may be in flight.
func (b *breaker) width(full int) int {
	if b.open() {
		return 1
	}
	return full
}

// note takes an attempt's omen and returns until when the lane should pause; a
// time that has passed means that it need not.
func (b *breaker) note(now time.Time, f finished) time.Time {
	switch f.omen {
	case answered:
		*b = breaker{}
	case hung:
		b.strikes++
		// What was in flight when it opened is no probe: it would let the
		// pauses grow to their limit at once.
		if b.open() && !now.Before(b.until) {
			b.until = now.Add(min(breakerLimit, breakerPause<<min(b.probes, 10)))
			b.probes++
		}
	}
	if asked := now.Add(min(f.pause, breakerLimit)); f.pause > 0 && asked.After(b.until) {
		b.until = asked
	}
	return b.until
}

// omenOf reads an answer. pause is what the receiver asked for with Retry-After.
func omenOf(r *store.Result) (o omen, pause time.Duration) {
	a := r.Answer
	switch {
	case a.StatusCode == 429 || a.StatusCode == 503:
		pause, _ = delivery.ParseRetryAfter(a.RetryAfter, r.EndedAt)
		return answered, pause
	case a.StatusCode != 0 && a.Err != delivery.ErrTimeout:
		return answered, 0
	case a.Err == delivery.ErrTimeout || a.Duration >= slowFailure:
		return hung, 0
	default:
		return unknown, 0
	}
}
