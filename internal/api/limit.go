package api

import (
	"context"
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/webhook"
)

// Rate is a token bucket: MaxTokens at most, RefillPerMin more each minute.
type Rate struct {
	MaxTokens    int
	RefillPerMin int
}

// DefaultRate is the limit of contract section 1.6.
func DefaultRate() Rate { return Rate{MaxTokens: 120, RefillPerMin: 60} }

// idleBucket is how long an unused bucket is kept. A bucket that has been idle
// for so long is full again at any sane rate, so dropping it changes nothing.
const idleBucket = time.Hour

// limiter holds one bucket per API key, for a store that keeps none. It is safe for
// concurrent use.
type limiter struct {
	def Rate

	mu      sync.Mutex
	buckets map[string]*bucket // tenant and key id
	swept   time.Time
}

type bucket struct {
	rate     Rate
	lim      *rate.Limiter
	lastSeen time.Time
}

func newLimiter(def Rate) *limiter { return &limiter{def: def, buckets: map[string]*bucket{}} }

// budget is what one call was told about its bucket.
type budget struct {
	limit, remaining int
	allowed          bool
	full             time.Time     // when the bucket is full again
	wait             time.Duration // until the next token; 0 when allowed
}

// take spends one token of who's bucket.
func (l *limiter) take(who store.Principal, r Rate, now time.Time) store.Token {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweep(now)
	id := who.TenantID + "/" + who.KeyID
	b := l.buckets[id]
	if b == nil || b.rate != r {
		b = &bucket{rate: r, lim: rate.NewLimiter(rate.Limit(float64(r.RefillPerMin)/60), r.MaxTokens)}
		l.buckets[id] = b
	}
	b.lastSeen = now
	allowed := b.lim.AllowN(now, 1)
	return store.Token{Allowed: allowed, Left: b.lim.TokensAt(now)}
}

// budgetOf says what a token means to the caller.
func budgetOf(t store.Token, r Rate, now time.Time) budget {
	perSecond := float64(r.RefillPerMin) / 60
	out := budget{
		limit: r.MaxTokens, remaining: max(0, int(math.Floor(t.Left))), allowed: t.Allowed,
		full: now.Add(seconds((float64(r.MaxTokens) - t.Left) / perSecond)),
	}
	if !t.Allowed {
		out.wait = seconds((1 - t.Left) / perSecond)
	}
	return out
}

// spend takes a token of the caller's bucket: the one that all nodes share, where
// the store has it and the limit is more than an observation. limited is false for
// a key without limit.
func (s *Server) spend(c *call) (b budget, limited bool, err error) {
	r, limited := s.limiter.rateOf(c.who.Rate)
	if !limited {
		return budget{}, false, nil
	}
	if s.cfg.Enforce {
		t, known, err := s.cfg.Store.TakeToken(c.ctx, c.now, c.who.TenantID, c.who.KeyID, r.MaxTokens, r.RefillPerMin)
		if known || err != nil {
			return budgetOf(t, r, c.now), true, err
		}
	}
	return budgetOf(s.limiter.take(c.who, r, c.now), r, c.now), true, nil
}

// Remaining says by key id how many calls a tenant's keys may make at this moment:
// over all nodes, where they share the limit, and on this one otherwise. A key that
// is not in it has made none lately and has all of them, or has no limit.
func (s *Server) Remaining(ctx context.Context, now time.Time, tenant string, keys []store.APIKey) (map[string]store.Remaining, error) {
	out := map[string]store.Remaining{}
	if s.cfg.Enforce {
		buckets, shared, err := s.cfg.Store.Buckets(ctx, tenant)
		if err != nil {
			return nil, err
		}
		for _, b := range buckets {
			r, limited := s.limiter.rateOf(b.Rate)
			if !limited {
				continue
			}
			tokens := b.Tokens + max(0, now.Sub(b.FilledAt).Minutes())*float64(r.RefillPerMin)
			out[b.KeyID] = store.Remaining{Calls: max(0, int(min(tokens, float64(r.MaxTokens)))), Limit: r.MaxTokens}
		}
		if shared {
			return out, nil
		}
	}
	l := s.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range keys {
		if b := l.buckets[tenant+"/"+k.KeyID]; b != nil {
			out[k.KeyID] = store.Remaining{Calls: max(0, int(math.Floor(b.lim.TokensAt(now)))), Limit: b.rate.MaxTokens}
		}
	}
	return out, nil
}

func (l *limiter) rateOf(o store.RateLimit) (Rate, bool) {
	r := l.def
	if o.MaxTokens != nil {
		r.MaxTokens = *o.MaxTokens
	}
	if o.RefillPerMin != nil {
		r.RefillPerMin = *o.RefillPerMin
	}
	return r, (o.Enabled == nil || *o.Enabled) && r.MaxTokens > 0 && r.RefillPerMin > 0
}

// sweep drops idle buckets, at most once a minute. The caller holds mu.
func (l *limiter) sweep(now time.Time) {
	if now.Sub(l.swept) < time.Minute {
		return
	}
	l.swept = now
	for id, b := range l.buckets {
		if now.Sub(b.lastSeen) > idleBucket {
			delete(l.buckets, id)
		}
	}
}

func seconds(f float64) time.Duration { return time.Duration(max(0, f) * float64(time.Second)) }

// limit spends a token and labels the answer (contract section 1.6 and D16): the
// reset is when the bucket is full, or on a 429 when the next token comes. In
// observation mode a denial is logged and let through.
func (s *Server) limit(c *call, w http.ResponseWriter) error {
	b, limited, err := s.spend(c)
	if err != nil || !limited {
		return err
	}
	h := w.Header()
	// Not by Set, which would spell them X-Ratelimit.
	h["X-RateLimit-Limit"] = []string{strconv.Itoa(b.limit)}
	h["X-RateLimit-Remaining"] = []string{strconv.Itoa(b.remaining)}
	h["X-RateLimit-Reset"] = []string{webhook.At(b.full).String()}
	if b.allowed {
		return nil
	}
	s.metrics.rateLimited.Inc()
	if !s.cfg.Enforce {
		s.cfg.Log.WarnContext(c.ctx, "rate limit exceeded, let through in observation mode", "tenant", c.who.TenantID, "key", c.who.KeyID)
		return nil
	}
	h["X-RateLimit-Reset"] = []string{webhook.At(c.now.Add(b.wait)).String()}
	h.Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(b.wait.Seconds())))))
	e := fault.New(fault.RateLimited, "Too many requests")
	e.Details = map[string]any{"retry_after_ms": int(math.Ceil(float64(b.wait) / float64(time.Millisecond))), "remaining": b.remaining}
	return e
}
