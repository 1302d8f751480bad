package store

import (
	"context"
	"fmt"
	"time"
)

// Token is what came of asking an API key's bucket for one.
type Token struct {
	Allowed bool
	Left    float64 // tokens that the bucket has now
}

// filled is what a bucket would have now.
const filled = `least($3, b.tokens + greatest(0, $4 - b.filled_at) * $5::double precision)`

// TakeToken spends one token of an API key's bucket, which holds at most burst and
// gets perMinute more each minute. A server has one bucket for all nodes; known is
// false on an embedded database, whose one process has its own.
func (s *Store) TakeToken(ctx context.Context, now time.Time, tenant, keyID string, burst, perMinute int) (took Token, known bool, err error) {
	if !s.dialect.server {
		return Token{}, false, nil
	}
	err = s.reader(ctx).row(`insert into rate_buckets as b (tenant_id, api_key_id, tokens, allowed, filled_at)
		values ($1, $2, $3::double precision - 1, true, $4)
		on conflict (tenant_id, api_key_id) do update set
			tokens = `+filled+` - case when `+filled+` >= 1 then 1 else 0 end,
			allowed = `+filled+` >= 1,
			filled_at = greatest(b.filled_at, $4)
		returning allowed, tokens`,
		tenant, keyID, float64(burst), micros(now), float64(perMinute)/60e6).Scan(&took.Allowed, &took.Left)
	if err != nil {
		return Token{}, true, fmt.Errorf("take a token of API key %s: %w", keyID, err)
	}
	return took, true, nil
}

// Bucket is an API key's bucket as it was when a token was last asked of it.
type Bucket struct {
	KeyID    string
	Tokens   float64
	FilledAt time.Time
	Rate     RateLimit // the key's, over its tenant's
}

// Buckets returns the buckets of a tenant's keys that all nodes share, without
// spending anything. shared is false on an embedded database, see TakeToken.
func (s *Store) Buckets(ctx context.Context, tenant string) (list []Bucket, shared bool, err error) {
	if !s.dialect.server {
		return nil, false, nil
	}
	rows, err := s.reader(ctx).query(`select b.api_key_id, b.tokens, b.filled_at,
			k.rate_enabled, k.rate_max_tokens, k.rate_refill_per_min, t.rate_enabled, t.rate_max_tokens, t.rate_refill_per_min
		from rate_buckets b
		join api_keys k on k.tenant_id = b.tenant_id and k.api_key_id = b.api_key_id
		join tenants t on t.tenant_id = b.tenant_id
		where b.tenant_id = $1`, tenant)
	list, err = collect(rows, err, func(r scanner) (b Bucket, err error) {
		var filled int64
		var key, desk RateLimit
		err = r.Scan(&b.KeyID, &b.Tokens, &filled, &key.Enabled, &key.MaxTokens, &key.RefillPerMin, &desk.Enabled, &desk.MaxTokens, &desk.RefillPerMin)
		b.FilledAt, b.Rate = instant(filled), key.over(desk)
		return b, err
	})
	if err != nil {
		return nil, true, fmt.Errorf("read the buckets of tenant %s: %w", tenant, err)
	}
	return list, true, nil
}

// Remaining is how many calls an API key may make at a moment, of how many at most.
type Remaining struct{ Calls, Limit int }
