package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/vault"
)

// How long a session of the console lasts, and a link that opens one.
const (
	SessionLife = 12 * time.Hour
	LinkLife    = 15 * time.Minute
)

// The kinds of rows in console_tokens.
const (
	tokenSession = "session"
	tokenLink    = "link"
)

// SignIn opens a session of the console for whoever holds the key. It counts as
// one call of the key, and its errors are those of Authenticate. The session ends
// with the key.
func (s *Store) SignIn(ctx context.Context, now time.Time, presentedKey string) (token string, err error) {
	p, err := s.Authenticate(ctx, now, presentedKey)
	if err != nil {
		return "", err
	}
	err = s.do(ctx, func(t *tx) error {
		token, err = t.newToken(now, tokenSession, p.TenantID, p.User.UserID, p.KeyID, SessionLife)
		return err
	})
	return token, err
}

// NewLink makes a link that opens one session for a user of the tenant, with all
// that he may do. An unknown user is NotFound, a client user Invalid.
func (s *Store) NewLink(ctx context.Context, now time.Time, tenant, userID string) (link string, err error) {
	err = s.do(ctx, func(t *tx) error {
		u, err := userOf(t, tenant, lowerID(userID))
		if err != nil {
			return err
		}
		if u.UserType != userInternal || u.IsInactive {
			return fault.Field("user_id", "Only an active internal user can use the console")
		}
		link, err = t.newToken(now, tokenLink, tenant, u.UserID, "", LinkLife)
		return err
	})
	return link, err
}

// UseLink opens the session of a link, which is gone then. A link that was used,
// has expired or never was gives the same Unauthorized error.
func (s *Store) UseLink(ctx context.Context, now time.Time, link string) (token string, err error) {
	err = s.do(ctx, func(t *tx) error {
		var tenant, user string
		err := t.row(`select tenant_id, user_id from console_tokens
			where token_hash = $1 and kind = 'link' and expires_at > $2`, vault.HashAPIKey(link), micros(now)).Scan(&tenant, &user)
		if errors.Is(err, sql.ErrNoRows) {
			return fault.New(fault.Unauthorized, "This link was used already, or is more than %d minutes old", int(LinkLife.Minutes()))
		}
		if err != nil {
			return fmt.Errorf("look up a link: %w", err)
		}
		if err := t.change("use a link", `delete from console_tokens where token_hash = $1`, vault.HashAPIKey(link)); err != nil {
			return err
		}
		token, err = t.newToken(now, tokenSession, tenant, user, "", SessionLife)
		return err
	})
	return token, err
}

func (t *tx) newToken(now time.Time, kind, tenant, user, key string, life time.Duration) (string, error) {
	token, hash := vault.NewToken()
	err := t.change("insert into console_tokens", `
		insert into console_tokens (token_hash, kind, tenant_id, user_id, api_key_id, created_at, expires_at)
		values ($1, $2, $3, $4, $5, $6, $7)`, hash, kind, tenant, user, key, micros(now), micros(now.Add(life)))
	return token, err
}

// Session returns whose session it is, with the rights that he has now: those of
// the user, less what the key leaves out that he signed in with. Whatever has
// ended gives the same Unauthorized error.
func (s *Store) Session(ctx context.Context, now time.Time, token string) (Principal, error) {
	ended := fault.New(fault.Unauthorized, "The session has ended, sign in again")
	c, err := s.scanCredential(s.reader(ctx).row(`
		select c.tenant_id, c.api_key_id, c.user_id, coalesce(k.active, c.api_key_id = ''), `+credentialColumns+`
		from console_tokens c
		join tenants t on t.tenant_id = c.tenant_id
		left join api_keys k on k.tenant_id = c.tenant_id and k.api_key_id = c.api_key_id
		left join users u on u.tenant_id = c.tenant_id and u.user_id = c.user_id
		where c.token_hash = $1 and c.kind = 'session' and c.expires_at > $2`, vault.HashAPIKey(token), micros(now)))
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return Principal{}, ended
	case err != nil:
		return Principal{}, fmt.Errorf("look up a session: %w", err)
	case !c.opens(now) || c.principal.User.UserType != userInternal:
		return Principal{}, ended
	}
	return c.principal, nil
}

// SignOut ends a session. One that has ended already is fine.
func (s *Store) SignOut(ctx context.Context, token string) error {
	return s.do(ctx, func(t *tx) error {
		return t.change("end a session", `delete from console_tokens where token_hash = $1`, vault.HashAPIKey(token))
	})
}
