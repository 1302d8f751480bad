package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
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

// How often links are asked for by mail within LinkLife. An office behind one address
// has room, and nobody's mailbox fills.
const (
	linksPerAddress = 3
	linksPerSender  = 20
	linkTenants     = 20 // that one request writes for
)

// MailLinks puts a mail with a link into the outbox, to the active internal user with
// this mail address, for each tenant that has one. Whether there is one shows neither
// in the result nor in what has to be written before it. sender is the network address
// of whoever asks: one that has asked too often is RateLimited. An address for which
// too much was asked gets nothing more for a while.
func (s *Store) MailLinks(ctx context.Context, now time.Time, address, sender string) error {
	addressHash, senderHash := vault.HashAPIKey(strings.ToLower(address)), vault.HashAPIKey(sender)
	return s.do(ctx, func(t *tx) error {
		var byAddress, bySender int
		since := micros(now.Add(-LinkLife))
		if err := t.row(`select (select count(*) from link_requests where address_hash = $1 and requested_at > $3),
			(select count(*) from link_requests where sender_hash = $2 and requested_at > $3)`,
			addressHash, senderHash, since).Scan(&byAddress, &bySender); err != nil {
			return fmt.Errorf("count requests for links: %w", err)
		}
		if bySender >= linksPerSender {
			return fault.New(fault.RateLimited, "Too many links were asked for from your network; wait %d minutes, or use an API key", int(LinkLife.Minutes()))
		}
		full := byAddress >= linksPerAddress
		if full {
			addressHash = "" // or whoever goes on asking would keep the owner out for good
		}
		if err := t.change("insert into link_requests", `insert into link_requests (request_id, address_hash, sender_hash, requested_at)
			values ($1, $2, $3, $4)`, NewID(), addressHash, senderHash, micros(now)); err != nil || full {
			return err
		}
		return t.mailLinks(now, address)
	})
}

// linkUser is somebody who gets a link by mail.
type linkUser struct{ tenantID, userID, first, last, email, tenantName string }

// mailLinks writes the mails of one request.
func (t *tx) mailLinks(now time.Time, address string) error {
	compose := t.w.s.cfg.Mails.Link
	if compose == nil {
		return nil
	}
	rows, err := t.query(`select u.tenant_id, u.user_id, u.first_name, u.last_name, u.email, t.name
		from users u join tenants t on t.tenant_id = u.tenant_id
		where lower(u.email) = lower($1) and u.user_type = 'internal' and not u.is_inactive and not t.suspended
		order by t.name, u.tenant_id, u.created_at, u.user_id limit $2`, address, 5*linkTenants)
	users, err := collect(rows, err, func(row scanner) (u linkUser, err error) {
		err = row.Scan(&u.tenantID, &u.userID, &u.first, &u.last, &u.email, &u.tenantName)
		return u, err
	})
	if err != nil {
		return fmt.Errorf("find who has a mail address: %w", err)
	}
	users = slices.CompactFunc(users, func(a, b linkUser) bool { return a.tenantID == b.tenantID })
	until := now.Add(LinkLife)
	for _, u := range users[:min(linkTenants, len(users))] {
		token, err := t.newToken(now, tokenLink, u.tenantID, u.userID, "", LinkLife)
		if err != nil {
			return err
		}
		text := compose(LinkNotice{UserName: strings.TrimSpace(u.first + " " + u.last), TenantName: u.tenantName, Token: token, Until: until})
		id := NewID()
		place, seal := mailPlace(id), t.w.s.cfg.Vault.Seal
		if err := t.change("put a mail into the outbox", `insert into mail_outbox (mail_id, tenant_id, dedupe_key, recipient, subject,
				text_body, html_body, due_at, created_at, expires_at)
			values ($1, $2, $3, $4, $5, $6, $7, $8, $8, $9)`, id, u.tenantID, "link/"+id, u.email, text.Subject,
			seal(place, []byte(text.Text)), seal(place, []byte(text.HTML)), micros(now), micros(until)); err != nil {
			return err
		}
	}
	return nil
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
