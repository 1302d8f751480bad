package store

import (
	"context"
	"database/sql"
	"maps"
	"slices"
	"time"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/vault"
)

// APIKey is a key as lists show it. The key itself is known only to whoever made
// it; the store has its hash.
type APIKey struct {
	TenantID    string
	KeyID       string
	UserID      string // the key acts as this user
	Name        string
	Prefix      string // the first characters of the key, to recognise it
	Active      bool
	Permissions []string // nil: all of the user's; otherwise only these of them
	ExpiresAt   *time.Time
	LastUsedAt  *time.Time // may lag by about a second
	UsageCount  int64      // may lag by about a second for a key without a limit
	UsageLimit  *int64
	Rate        RateLimit
	CreatedAt   time.Time
}

// KeyDraft describes a key to make.
type KeyDraft struct {
	UserID      string
	Name        string
	Permissions []string // nil: all of the user's
	ExpiresAt   *time.Time
	UsageLimit  *int64
	Rate        RateLimit
}

// noKey is the message for a key id that the tenant does not have.
const noKey = "API key not found"

// CreatedKey is what CreateKey hands to Idempotency.Render.
type CreatedKey struct {
	Key  APIKey
	Text string // the key itself, shown this once
}

// CreateKey makes a key for a user and returns it, with its text, which is shown
// this once. An unknown user is a BadReference, a client user Invalid.
func (s *Store) CreateKey(ctx context.Context, now time.Time, tenant string, d KeyDraft) (APIKey, string, error) {
	k, err := write(ctx, s, func(t *tx) (CreatedKey, error) {
		k, text, err := t.createKey(now, tenant, d)
		return CreatedKey{Key: k, Text: text}, err
	})
	return k.Key, k.Text, err
}

func (t *tx) createKey(now time.Time, tenant string, d KeyDraft) (APIKey, string, error) {
	text, prefix, hash := vault.NewAPIKey()
	k := APIKey{
		TenantID: tenant, KeyID: NewID(), UserID: lowerID(d.UserID), Name: d.Name, Prefix: prefix, Active: true,
		Permissions: d.Permissions, ExpiresAt: d.ExpiresAt, UsageLimit: d.UsageLimit, Rate: d.Rate,
		CreatedAt: instant(micros(now)),
	}
	u, err := userOf(t, tenant, k.UserID)
	switch {
	case err != nil:
		return APIKey{}, "", reference(err)
	case u.UserType != userInternal:
		return APIKey{}, "", fault.Field("user_id", "A client user cannot own an API key")
	}
	if err := k.check(); err != nil {
		return APIKey{}, "", err
	}
	permissions, err := jsonText(k.Permissions)
	if err != nil {
		return APIKey{}, "", err
	}
	err = t.change("insert into api_keys", `
		insert into api_keys (tenant_id, api_key_id, user_id, name, prefix, key_hash, active, permissions, expires_at,
			usage_limit, rate_enabled, rate_max_tokens, rate_refill_per_min, created_at)
		values ($1, $2, $3, $4, $5, $6, true, $7, $8, $9, $10, $11, $12, $13)`,
		tenant, k.KeyID, k.UserID, k.Name, k.Prefix, hash, permissions, microsPtr(k.ExpiresAt),
		k.UsageLimit, k.Rate.Enabled, k.Rate.MaxTokens, k.Rate.RefillPerMin, micros(now))
	return k, text, err
}

// check refuses a key that could never do what it says.
func (k *APIKey) check() error {
	if k.Name == "" {
		return fault.Field("name", "Required")
	}
	if k.UsageLimit != nil && *k.UsageLimit < 0 {
		return fault.Field("usage_limit", "Number must be greater than or equal to 0")
	}
	if err := checkPermissions(k.Permissions); err != nil {
		return err
	}
	return k.Rate.check()
}

func (r RateLimit) check() error {
	if r.MaxTokens != nil && *r.MaxTokens < 1 {
		return fault.Field("max_tokens", "Number must be greater than or equal to 1")
	}
	if r.RefillPerMin != nil && *r.RefillPerMin < 1 {
		return fault.Field("refill_per_min", "Number must be greater than or equal to 1")
	}
	return nil
}

// Ended reports whether the key opens nothing any more.
func (k *APIKey) Ended(now time.Time) bool {
	return !k.Active || k.ExpiresAt != nil && !k.ExpiresAt.After(now)
}

const keyColumns = `select tenant_id, api_key_id, user_id, name, prefix, active, permissions, expires_at, last_used_at,
	usage_count, usage_limit, rate_enabled, rate_max_tokens, rate_refill_per_min, created_at from api_keys `

func scanKey(row scanner) (APIKey, error) {
	var k APIKey
	var permissions sql.NullString
	var expires, used sql.NullInt64
	var created int64
	err := row.Scan(&k.TenantID, &k.KeyID, &k.UserID, &k.Name, &k.Prefix, &k.Active, &permissions, &expires, &used,
		&k.UsageCount, &k.UsageLimit, &k.Rate.Enabled, &k.Rate.MaxTokens, &k.Rate.RefillPerMin, &created)
	if err != nil {
		return APIKey{}, err
	}
	k.ExpiresAt, k.LastUsedAt, k.CreatedAt = instantPtr(expires), instantPtr(used), instant(created)
	err = fromJSON(permissions, &k.Permissions)
	return k, err
}

// Keys returns the tenant's keys, oldest first.
func (s *Store) Keys(ctx context.Context, tenant string) ([]APIKey, error) {
	rows, err := s.reader(ctx).query(keyColumns+`where tenant_id = $1 order by created_at, api_key_id`, tenant)
	return collect(rows, err, scanKey)
}

// Key returns one key.
func (s *Store) Key(ctx context.Context, tenant, id string) (APIKey, error) {
	return keyOf(s.reader(ctx), tenant, id)
}

func keyOf(q querier, tenant, id string) (APIKey, error) {
	k, err := scanKey(q.row(keyColumns+`where tenant_id = $1 and api_key_id = $2`, tenant, lowerID(id)))
	return k, found(err, noKey)
}

// OwnList returns what a key that p makes without a list of its own may be given:
// nil, which is everything its user may do, or p's rights where his key has a list.
func (s *Store) OwnList(ctx context.Context, p Principal) ([]string, error) {
	if p.KeyID == "" {
		return nil, nil // signed in by a link: the user himself
	}
	k, err := s.Key(ctx, p.TenantID, p.KeyID)
	if err != nil || k.Permissions == nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(p.Permissions)), nil
}

// UpdateKey changes a key's name, Active, permissions, expiry, usage limit or
// rate; what change does to other fields is ignored. It takes effect with the
// next call that presents the key; on another node of a server after a second at
// most.
func (s *Store) UpdateKey(ctx context.Context, now time.Time, tenant, id string, change func(*APIKey) error) (APIKey, error) {
	return write(ctx, s, func(t *tx) (APIKey, error) {
		old, err := keyOf(t, tenant, id)
		if err != nil {
			return APIKey{}, err
		}
		next := old
		if err := change(&next); err != nil {
			return APIKey{}, err
		}
		if err := next.check(); err != nil {
			return APIKey{}, err
		}
		permissions, err := jsonText(next.Permissions)
		if err != nil {
			return APIKey{}, err
		}
		t.moved = true
		if err := t.change("update api_keys", `
			update api_keys set name = $1, active = $2, permissions = $3, expires_at = $4, usage_limit = $5,
				rate_enabled = $6, rate_max_tokens = $7, rate_refill_per_min = $8
			where tenant_id = $9 and api_key_id = $10`,
			next.Name, next.Active, permissions, microsPtr(next.ExpiresAt), next.UsageLimit,
			next.Rate.Enabled, next.Rate.MaxTokens, next.Rate.RefillPerMin, tenant, old.KeyID); err != nil {
			return APIKey{}, err
		}
		return keyOf(t, tenant, id)
	})
}

// DeleteKey removes a key.
func (s *Store) DeleteKey(ctx context.Context, tenant, id string) error {
	_, err := write(ctx, s, func(t *tx) (struct{}, error) {
		t.moved = true
		n, err := t.exec(`delete from api_keys where tenant_id = $1 and api_key_id = $2`, tenant, lowerID(id))
		if err == nil && n == 0 {
			err = fault.New(fault.NotFound, noKey)
		}
		return struct{}{}, err
	})
	return err
}
