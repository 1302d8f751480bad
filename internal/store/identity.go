package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/ticket"
	"github.com/ticketwire/ticketwire/internal/vault"
)

// Principal is who makes a call: the user who owns the presented key, with the
// rights that are left after the key's own list.
type Principal struct {
	TenantID    string
	Product     string // "psa" or "algadesk" (contract section 1.1)
	User        ticket.User
	KeyID       string
	Permissions map[string]bool // "resource:action"
	Rate        RateLimit       // the key's, and the tenant's where the key says nothing
}

// Can reports whether the principal may do this. There is no role that may do
// everything (contract section 1.1).
func (p Principal) Can(resource, action string) bool { return p.Permissions[resource+":"+action] }

// Check returns nil if the principal may do this, and otherwise why not: the
// product of his tenant has no webhooks, and so no event feed either, or he lacks
// the right.
func (p Principal) Check(resource, action string) error {
	if p.Product == "algadesk" && resource == "webhook" {
		return fault.New(fault.ProductDenied, "The product %s does not include this route", p.Product)
	}
	if !p.Can(resource, action) {
		return fault.New(fault.Forbidden, "Permission denied: Cannot %s %s", action, resource)
	}
	return nil
}

// MayGrant refuses to hand out a right that the principal does not have.
func (p Principal) MayGrant(permissions []string) error {
	for _, name := range permissions {
		resource, action, _ := strings.Cut(name, ":")
		if !p.Can(resource, action) {
			return fault.New(fault.Forbidden, "Permission denied: Cannot grant %s", name)
		}
	}
	return nil
}

// MayEnd refuses to end the key that the principal has come with. what is the verb
// of the message.
func (p Principal) MayEnd(keyID, what string) error {
	if p.KeyID != "" && lowerID(keyID) == p.KeyID {
		return fault.New(fault.Conflict, "A key cannot %s itself; use another one", what)
	}
	return nil
}

// Actor returns the principal as the author of changes.
func (p Principal) Actor() ticket.Actor {
	return ticket.Actor{TenantID: p.TenantID, UserID: p.User.UserID, Name: p.User.DisplayName()}
}

// RateLimit is an override of the inbound rate limit (contract section 1.6). A
// nil field leaves the decision to the next level: key, then tenant, then the
// server's default.
type RateLimit struct {
	Enabled      *bool `json:"enabled"`
	MaxTokens    *int  `json:"max_tokens"`     // bucket size
	RefillPerMin *int  `json:"refill_per_min"` // tokens per minute
}

// over returns r with the gaps filled from the level below.
func (r RateLimit) over(next RateLimit) RateLimit {
	if r.Enabled == nil {
		r.Enabled = next.Enabled
	}
	if r.MaxTokens == nil {
		r.MaxTokens = next.MaxTokens
	}
	if r.RefillPerMin == nil {
		r.RefillPerMin = next.RefillPerMin
	}
	return r
}

// credential is a key with everything that decides whether it opens.
type credential struct {
	principal                   Principal
	active, suspended, hasOwner bool
	expiresAt                   *time.Time
	limit                       *int64
}

// Authenticate finds the principal of a presented key. Whatever is wrong with
// the key, its owner or its tenant gives the same Unauthorized error (contract
// section 1.1), so that a caller learns nothing by trying.
//
// An accepted call is counted. For a key with a usage limit that happens in a
// transaction before Authenticate returns, so that the limit is exact even among
// concurrent calls; for others within about a second.
func (s *Store) Authenticate(ctx context.Context, now time.Time, presentedKey string) (Principal, error) {
	denied := fault.New(fault.Unauthorized, "Invalid API key")
	hash := vault.HashAPIKey(presentedKey)
	c, turn, known := s.credentials.of(hash, now)
	if !known {
		var err error
		c, err = s.credentialOf(s.reader(ctx), hash)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return Principal{}, denied
		case err != nil:
			return Principal{}, fmt.Errorf("look up an API key: %w", err)
		}
		s.credentials.keep(hash, c, now, turn)
	}
	p := c.principal
	if !c.opens(now) {
		return Principal{}, denied
	}
	if p.User.UserType != userInternal {
		denied.Err = s.deactivateKey(ctx, p.TenantID, p.KeyID)
		return Principal{}, denied
	}
	if c.limit == nil {
		s.usage.note(p.TenantID, p.KeyID, now)
		return p, nil
	}
	counted, err := s.countCall(ctx, now, p.TenantID, p.KeyID)
	if err != nil {
		return Principal{}, fmt.Errorf("count a call of API key %s: %w", p.KeyID, err)
	}
	if !counted {
		return Principal{}, denied
	}
	return p, nil
}

// opens reports whether neither the key nor its owner nor its tenant has ended.
func (c *credential) opens(now time.Time) bool {
	expired := c.expiresAt != nil && !c.expiresAt.After(now)
	return c.active && !expired && !c.suspended && c.hasOwner && !c.principal.User.IsInactive
}

func (s *Store) credentialOf(q querier, hash string) (credential, error) {
	return s.scanCredential(q.row(`
		select k.tenant_id, k.api_key_id, k.user_id, k.active, `+credentialColumns+`
		from api_keys k
		join tenants t on t.tenant_id = k.tenant_id
		left join users u on u.tenant_id = k.tenant_id and u.user_id = k.user_id
		where k.key_hash = $1`, hash))
}

// credentialColumns follow the ids and the state of a credential; k is its key, t
// its tenant and u its owner.
const credentialColumns = `k.permissions, k.expires_at, k.usage_limit,
	k.rate_enabled, k.rate_max_tokens, k.rate_refill_per_min,
	t.product, t.suspended, t.rate_enabled, t.rate_max_tokens, t.rate_refill_per_min,
	u.first_name, u.last_name, u.email, u.user_type, u.is_inactive, u.permissions`

func (s *Store) scanCredential(row scanner) (credential, error) {
	var c credential
	var userPermissions, keyPermissions sql.NullString
	var first, last, email, userType sql.NullString
	var inactive sql.NullBool
	var expires sql.NullInt64
	var key, tenant RateLimit
	p := &c.principal
	err := row.Scan(
		&p.TenantID, &p.KeyID, &p.User.UserID, &c.active, &keyPermissions, &expires, &c.limit,
		&key.Enabled, &key.MaxTokens, &key.RefillPerMin,
		&p.Product, &c.suspended, &tenant.Enabled, &tenant.MaxTokens, &tenant.RefillPerMin,
		&first, &last, &email, &userType, &inactive, &userPermissions)
	if err != nil {
		return credential{}, err
	}
	c.hasOwner = userPermissions.Valid
	c.expiresAt = instantPtr(expires)
	p.User.TenantID = p.TenantID
	p.User.FirstName, p.User.LastName, p.User.Email = first.String, last.String, email.String
	p.User.UserType, p.User.IsInactive = userType.String, inactive.Bool
	p.Rate = key.over(tenant)
	g, err := s.grants.of(userPermissions, keyPermissions)
	p.User.Permissions, p.Permissions = g.ofUser, g.granted
	return c, err
}

// maxGrants bounds how many grants are remembered; over it, all are forgotten.
const maxGrants = 1000

// grants remembers what the permission columns of a user and of a key come to.
// Few different ones exist, and reading them took a third of the time of an
// authentication. It is safe for concurrent use; what it returns must not be
// changed.
type grants struct {
	mu    sync.RWMutex
	known map[[2]sql.NullString]grant
}

// grant is the permissions of a user, and those of them that a key has.
type grant struct {
	ofUser  []string
	granted map[string]bool
}

// of returns the grant of two columns; a null one of the key grants everything
// that the user has.
func (g *grants) of(user, key sql.NullString) (grant, error) {
	columns := [2]sql.NullString{user, key}
	g.mu.RLock()
	out, ok := g.known[columns]
	g.mu.RUnlock()
	if ok {
		return out, nil
	}
	var own []string
	if err := errors.Join(fromJSON(user, &out.ofUser), fromJSON(key, &own)); err != nil {
		return grant{}, err
	}
	out.granted = make(map[string]bool, len(out.ofUser))
	for _, name := range out.ofUser {
		if !key.Valid || slices.Contains(own, name) {
			out.granted[name] = true
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.known == nil || len(g.known) >= maxGrants {
		g.known = map[[2]sql.NullString]grant{}
	}
	g.known[columns] = out
	return out, nil
}

// countCall counts one call of a key with a usage limit and reports whether the
// call is still within it. A key that is used up is deactivated.
func (s *Store) countCall(ctx context.Context, now time.Time, tenant, key string) (bool, error) {
	counted := false
	err := s.do(ctx, func(t *tx) error {
		n, err := t.exec(`
			update api_keys set usage_count = usage_count + 1, last_used_at = $1
			where tenant_id = $2 and api_key_id = $3 and active and (usage_limit is null or usage_count < usage_limit)`,
			micros(now), tenant, key)
		if err != nil {
			return err
		}
		if counted = n > 0; counted {
			return nil
		}
		// Only a key that is used up: one that was changed meanwhile stays.
		t.moved = true
		return t.change("deactivate a key", `
			update api_keys set active = false where tenant_id = $1 and api_key_id = $2 and usage_count >= usage_limit`,
			tenant, key)
	})
	return counted, err
}

func (s *Store) deactivateKey(ctx context.Context, tenant, key string) error {
	return s.do(ctx, func(t *tx) error {
		t.moved = true
		return t.change("deactivate a key", `update api_keys set active = false where tenant_id = $1 and api_key_id = $2`,
			tenant, key)
	})
}
