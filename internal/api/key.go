package api

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/webhook"
)

// keyRoutes administer API keys. They are ours: the contract knows keys only
// by what they open (section 1.1).
func (s *Server) keyRoutes() []route {
	return []route{
		{http.MethodGet, "/api-keys", "api_key", "read", (*call).listKeys},
		{http.MethodPost, "/api-keys", "api_key", "create", (*call).createKey},
		{http.MethodGet, "/api-keys/{id}", "api_key", "read", (*call).getKey},
		{http.MethodPut, "/api-keys/{id}", "api_key", "update", (*call).updateKey},
		{http.MethodDelete, "/api-keys/{id}", "api_key", "delete", (*call).deleteKey},
	}
}

// keyRecord is a key as everybody may see it, and on create the key itself.
type keyRecord struct {
	KeyID       string          `json:"api_key_id"`
	Name        string          `json:"name"`
	UserID      string          `json:"user_id"`
	Prefix      string          `json:"prefix"`
	Active      bool            `json:"active"`
	ExpiresAt   *webhook.Time   `json:"expires_at"`
	LastUsedAt  *webhook.Time   `json:"last_used_at"`
	UsageCount  int64           `json:"usage_count"`
	UsageLimit  *int64          `json:"usage_limit"`
	Permissions []string        `json:"permissions"` // null: all of the user's
	RateLimit   store.RateLimit `json:"rate_limit"`
	CreatedAt   webhook.Time    `json:"created_at"`
	APIKey      string          `json:"api_key,omitempty"`
}

func viewKey(k store.APIKey) keyRecord {
	return keyRecord{
		KeyID: k.KeyID, Name: k.Name, UserID: k.UserID, Prefix: k.Prefix, Active: k.Active,
		ExpiresAt: wireTime(k.ExpiresAt), LastUsedAt: wireTime(k.LastUsedAt), UsageCount: k.UsageCount, UsageLimit: k.UsageLimit,
		Permissions: k.Permissions, RateLimit: k.Rate, CreatedAt: webhook.At(k.CreatedAt),
	}
}

func (c *call) listKeys() (answer, error) {
	keys, err := c.store().Keys(c.ctx, c.tenant())
	if err != nil {
		return answer{}, err
	}
	records := make([]keyRecord, len(keys))
	for i, k := range keys {
		records[i] = viewKey(k)
	}
	return ok(records), nil
}

func (c *call) getKey() (answer, error) {
	id, err := c.id("id", "API key")
	if err != nil {
		return answer{}, err
	}
	k, err := c.store().Key(c.ctx, c.tenant(), id)
	if err != nil {
		return answer{}, err
	}
	return ok(viewKey(k)), nil
}

// keyPatch is what a body says about a key.
type keyPatch []func(*store.APIKey)

func (p *keyPatch) set(fn func(*store.APIKey)) { *p = append(*p, fn) }

func (p keyPatch) apply(k *store.APIKey) {
	for _, fn := range p {
		fn(k)
	}
}

// readKey reads the fields that a key's maker may choose.
func readKey(o *object) keyPatch {
	var p keyPatch
	if v := o.text("name", 1, 255); v != nil {
		p.set(func(k *store.APIKey) { k.Name = *v })
	}
	if v := o.boolean("active"); v != nil {
		p.set(func(k *store.APIKey) { k.Active = *v })
	}
	if o.null("expires_at") {
		p.set(func(k *store.APIKey) { k.ExpiresAt = nil })
	} else if v := o.datetime("expires_at"); v != nil {
		p.set(func(k *store.APIKey) { k.ExpiresAt = v })
	}
	if o.null("usage_limit") {
		p.set(func(k *store.APIKey) { k.UsageLimit = nil })
	} else if v := o.integer("usage_limit", 1, anyInt); v != nil {
		p.set(func(k *store.APIKey) { k.UsageLimit = v })
	}
	if o.null("permissions") {
		p.set(func(k *store.APIKey) { k.Permissions = nil })
	} else if v := o.permissions(); v != nil {
		p.set(func(k *store.APIKey) { k.Permissions = v })
	}
	if r := o.child("rate_limit"); r != nil {
		r.only("enabled", "max_tokens", "refill_per_min")
		rate := store.RateLimit{Enabled: r.boolean("enabled"), MaxTokens: r.positive("max_tokens"), RefillPerMin: r.positive("refill_per_min")}
		p.set(func(k *store.APIKey) { k.Rate = rate })
	} else if o.null("rate_limit") {
		p.set(func(k *store.APIKey) { k.Rate = store.RateLimit{} })
	}
	return p
}

// permissions reads a list of "resource:action".
func (o *object) permissions() []string {
	list := o.texts("permissions", 0, 0)
	for i, name := range list {
		if !slices.Contains(store.AllPermissions(), name) {
			o.issue(o.at("permissions", i), "custom", fmt.Sprintf("Unknown permission: %s", name), nil)
		}
	}
	return list
}

// positive reads a whole number from 1 on, or null for what the next level says.
func (o *object) positive(key string) *int {
	if o.null(key) {
		return nil
	}
	n := o.integer(key, 1, math.MaxInt32)
	if n == nil {
		return nil
	}
	return new(int(*n))
}

// createKey makes a key for the caller's own user. Without a list it may do
// what the caller's key may do.
func (c *call) createKey() (answer, error) {
	o, err := c.object()
	if err != nil {
		return answer{}, err
	}
	o.need("name", "string")
	patch := readKey(o)
	if id := o.uuid("user_id"); id != nil && *id != c.who.User.UserID {
		o.custom("user_id", "a key acts as the user who makes it")
	}
	k := store.APIKey{Active: true, UserID: c.who.User.UserID}
	patch.apply(&k)
	if !k.Active {
		o.custom("active", "a new key is active")
	}
	if k.ExpiresAt != nil && !k.ExpiresAt.After(c.now) {
		o.custom("expires_at", "must be in the future")
	}
	if err := o.err(); err != nil {
		return answer{}, err
	}
	if k.Permissions == nil {
		if k.Permissions, err = c.store().OwnList(c.ctx, c.who); err != nil {
			return answer{}, err
		}
	}
	if err := c.who.MayGrant(k.Permissions); err != nil {
		return answer{}, err
	}
	draft := store.KeyDraft{
		UserID: k.UserID, Name: k.Name, Permissions: k.Permissions, ExpiresAt: k.ExpiresAt, UsageLimit: k.UsageLimit, Rate: k.Rate,
	}
	return change(c,
		func(ctx context.Context) (store.CreatedKey, error) {
			k, text, err := c.store().CreateKey(ctx, c.now, c.tenant(), draft)
			return store.CreatedKey{Key: k, Text: text}, err
		},
		func(m store.CreatedKey) answer {
			r := viewKey(m.Key)
			r.APIKey = m.Text
			return created(r)
		})
}

func (c *call) updateKey() (answer, error) {
	id, err := c.id("id", "API key")
	if err != nil {
		return answer{}, err
	}
	o, err := c.object()
	if err != nil {
		return answer{}, err
	}
	patch := readKey(o)
	if err := o.err(); err != nil {
		return answer{}, err
	}
	own, err := c.store().OwnList(c.ctx, c.who)
	if err != nil {
		return answer{}, err
	}
	apply := func(k *store.APIKey) error {
		patch.apply(k)
		if k.Ended(c.now) {
			if err := c.who.MayEnd(k.KeyID, "deactivate"); err != nil {
				return err
			}
		}
		if !o.has("permissions") {
			return nil
		}
		if k.Permissions == nil && (own != nil || k.UserID != c.who.User.UserID) {
			return fault.New(fault.Forbidden, "Permission denied: Cannot grant everything that the key's user may do")
		}
		return c.who.MayGrant(k.Permissions)
	}
	return change(c,
		func(ctx context.Context) (store.APIKey, error) {
			return c.store().UpdateKey(ctx, c.now, c.tenant(), id, apply)
		},
		func(k store.APIKey) answer { return ok(viewKey(k)) })
}

func (c *call) deleteKey() (answer, error) {
	id, err := c.id("id", "API key")
	if err != nil {
		return answer{}, err
	}
	if err := c.who.MayEnd(id, "delete"); err != nil {
		return answer{}, err
	}
	return change(c,
		func(ctx context.Context) (struct{}, error) {
			return struct{}{}, c.store().DeleteKey(ctx, c.tenant(), id)
		},
		func(struct{}) answer { return noContent() })
}
