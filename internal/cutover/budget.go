package cutover

import (
	"time"

	"golang.org/x/time/rate"
)

const (
	// assumedLimit is the size of a key's bucket while no answer has named it
	// (contract section 1.6).
	assumedLimit = 120
	// maxPause bounds how long one answer can silence the poller.
	maxPause = 24 * time.Hour
	// untoldPause follows a 429 that does not say when to come back.
	untoldPause = 10 * time.Second
)

// budget spaces the requests of the poller, so that they take a share of what
// its key may do. It is a copy of the server's token bucket, smaller by that
// share: the server names the size of the bucket, X-RateLimit-Limit, and half of
// it flows back in a minute, as in the contract's 120 and 60. So over any time
// the poller takes its share at most. Used by one goroutine.
type budget struct {
	share float64 // of the key's limit
	limit int     // size of the key's bucket
	lim   *rate.Limiter
	until time.Time // nothing before: the server asked for it
}

func newBudget(share float64) *budget {
	b := &budget{share: share, limit: assumedLimit}
	b.lim = rate.NewLimiter(b.rate(), b.size())
	return b
}

func (b *budget) rate() rate.Limit { return rate.Limit(float64(perMinute(b.limit)) / 60 * b.share) }
func (b *budget) size() int        { return max(1, int(float64(b.limit)*b.share)) }

// perMinute is how many requests a key with this limit can make for long.
func perMinute(limit int) int { return max(1, limit/2) }

// take spends one request and returns 0, or returns how long to wait before
// asking again.
func (b *budget) take(now time.Time) time.Duration {
	if d := b.until.Sub(now); d > 0 {
		return d
	}
	r := b.lim.ReserveN(now, 1)
	d := r.DelayFrom(now)
	if d > 0 {
		r.CancelAt(now)
	}
	return d
}

// learn takes over the limit that an answer names; 0 for an answer without one.
func (b *budget) learn(now time.Time, limit int) {
	if limit <= 0 || limit == b.limit {
		return
	}
	b.limit = limit
	b.lim.SetLimitAt(now, b.rate())
	b.lim.SetBurstAt(now, b.size())
}

// pause keeps the poller from asking before the server said it may. asked is 0
// for a 429 that does not say; spread, 0 to 1, keeps apart those that were told
// the same.
func (b *budget) pause(now time.Time, asked time.Duration, spread float64) {
	if asked <= 0 {
		asked = untoldPause
	}
	asked = min(asked, maxPause)
	asked += time.Duration(spread * float64(min(asked/10, 5*time.Second)))
	if t := now.Add(asked); t.After(b.until) {
		b.until = t
	}
}
