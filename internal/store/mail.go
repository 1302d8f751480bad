package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
)

// Mails writes the texts of the mails that follow from a transaction. The
// functions are pure and fast: they run inside it. A nil one sends no mail.
type Mails struct {
	Disabled func(Notice) MailText // the webhook was switched off (contract section 4.11, D19)
	Warning  func(Notice) MailText // it will be, if it goes on like this
	Reminder func(Notice) MailText // it still is
	Link     func(LinkNotice) MailText
}

// LinkNotice is what a mail with a link to the console is about.
type LinkNotice struct {
	UserName   string // of the recipient
	TenantName string
	Token      string    // of the link
	Until      time.Time // when it ends
}

// Notice is what a mail is about.
type Notice struct {
	UserName    string // of the recipient
	WebhookName string
	WebhookID   string
	TenantName  string
	URL         string      // of the receiver
	Reason      string      // delivery.DisabledByFailures or delivery.DisabledGone
	Since       time.Time   // the first failure of the streak
	At          time.Time   // when it was switched off, or for a warning when it will be
	LastError   string      // of the newest failed attempt; "" if unknown
	Final       bool        // nothing follows but the end: the last warning or reminder, or the end itself
	Missed      MissedSoFar // of a reminder
}

// MailText is a finished mail.
type MailText struct{ Subject, Text, HTML string }

// OutboxMail is a claimed mail of the outbox.
type OutboxMail struct {
	MailID, TenantID, Recipient, Subject, Text, HTML string
	Attempts                                         int   // tries before this one
	Generation                                       int64 // the fence, as in Claimed
	// ExpiresAt is when the mail is of no use any more; nil for never.
	ExpiresAt *time.Time
}

// incident is one reason to write to the owner of a webhook. kind and key tell
// it from others of the same webhook: the outbox takes each once.
type incident struct {
	kind   string // "disabled", "warning" or "reminder"
	key    string
	notice Notice // what depends on the incident
}

// mailOwner puts a mail to the owner of w into the outbox. mailed is false when
// there is nobody to write to.
func (t *tx) mailOwner(now time.Time, w *delivery.Webhook, in incident) (mailed bool, err error) {
	compose := t.w.s.cfg.Mails.Warning
	switch in.kind {
	case "disabled":
		compose = t.w.s.cfg.Mails.Disabled
	case "reminder":
		compose = t.w.s.cfg.Mails.Reminder
	}
	if compose == nil {
		return true, nil
	}
	to, err := recipient(t, w)
	if err != nil || to.email == "" {
		return false, err
	}
	n := in.notice
	n.UserName, n.WebhookName, n.WebhookID, n.URL = to.name, w.Name, w.WebhookID, w.URL
	if err := t.row(`select name from tenants where tenant_id = $1`, w.TenantID).Scan(&n.TenantName); err != nil {
		return false, fmt.Errorf("read the tenant's name: %w", err)
	}
	text := compose(n)
	_, err = t.exec(`insert into mail_outbox (mail_id, tenant_id, dedupe_key, recipient, subject, text_body, html_body,
			due_at, created_at)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $8) on conflict (tenant_id, dedupe_key) do nothing`,
		NewID(), w.TenantID, in.kind+"/"+w.WebhookID+"/"+in.key, to.email,
		text.Subject, text.Text, text.HTML, micros(now))
	if err != nil {
		return false, fmt.Errorf("put a mail into the outbox: %w", err)
	}
	return true, nil
}

// person is somebody who can be mailed. Nobody is the zero value.
type person struct{ name, email string }

// recipient returns the user who created the webhook, or, if he is gone,
// inactive or has no address, the oldest other user who may change it.
func recipient(q querier, w *delivery.Webhook) (person, error) {
	type user struct {
		person
		id          string
		permissions string
	}
	rows, err := q.query(`select user_id, first_name, last_name, email, permissions from users
		where tenant_id = $1 and user_type = 'internal' and not is_inactive and email <> ''
		order by case when user_id = $2 then 0 else 1 end, created_at, user_id`, w.TenantID, w.CreatedBy)
	users, err := collect(rows, err, func(row scanner) (user, error) {
		var u user
		var first, last string
		err := row.Scan(&u.id, &first, &last, &u.email, &u.permissions)
		u.name = strings.TrimSpace(first + " " + last)
		return u, err
	})
	if err != nil {
		return person{}, fmt.Errorf("find somebody to mail: %w", err)
	}
	for _, u := range users {
		if u.id == w.CreatedBy {
			return u.person, nil
		}
		var may []string
		if err := json.Unmarshal([]byte(u.permissions), &may); err != nil {
			return person{}, fmt.Errorf("permissions of user %s: %w", u.id, err)
		}
		if slices.Contains(may, "webhook:update") {
			return u.person, nil
		}
	}
	return person{}, nil
}

// ClaimMail leases mails that are due, oldest first. One whose lease has ended
// can be claimed again.
func (s *Store) ClaimMail(ctx context.Context, now time.Time, owner string, lease time.Duration, limit int) ([]OutboxMail, error) {
	return write(ctx, s, func(t *tx) ([]OutboxMail, error) {
		rows, err := t.query(`update mail_outbox set lease_owner = $2, lease_until = $3, generation = generation + 1
			where mail_id in (select m.mail_id from mail_outbox m
				where m.sent_at is null and m.failed_at is null and m.due_at <= $1
					and (m.lease_until is null or m.lease_until <= $1)
				order by m.due_at, m.mail_id limit $4`+s.dialect.skip+`)
			returning mail_id, tenant_id, recipient, subject, text_body, html_body, attempts, generation, expires_at`,
			micros(now), owner, micros(now.Add(lease)), limit)
		list, err := collect(rows, err, func(row scanner) (OutboxMail, error) {
			var m OutboxMail
			var expires sql.NullInt64
			err := row.Scan(&m.MailID, &m.TenantID, &m.Recipient, &m.Subject, &m.Text, &m.HTML, &m.Attempts, &m.Generation, &expires)
			if m.ExpiresAt = instantPtr(expires); err == nil && expires.Valid {
				s.openMail(now, &m)
			}
			return m, err
		})
		if err != nil {
			return nil, fmt.Errorf("claim mails: %w", err)
		}
		slices.SortFunc(list, func(a, b OutboxMail) int { return strings.Compare(a.MailID, b.MailID) })
		return list, nil
	})
}

// mailPlace is where the texts of a sealed mail belong.
func mailPlace(mailID string) string { return "mail_outbox.link/" + mailID }

// openMail opens the texts of a sealed mail. What does not open, as its key is gone,
// is of no use to anybody and must not hold up the rest: it has expired.
func (s *Store) openMail(now time.Time, m *OutboxMail) {
	text, err := s.cfg.Vault.Open(mailPlace(m.MailID), m.Text)
	page, err2 := s.cfg.Vault.Open(mailPlace(m.MailID), m.HTML)
	m.Text, m.HTML = string(text), string(page)
	if err != nil || err2 != nil {
		m.ExpiresAt = &now
	}
}

// MailSent notes that a claimed mail was accepted by the mail server. The text
// is kept until retention ends. A Conflict means that the lease was lost.
func (s *Store) MailSent(ctx context.Context, now time.Time, m OutboxMail) error {
	return s.mailTried(ctx, m, `update mail_outbox set sent_at = $3, attempts = attempts + 1, last_error = '',
			lease_owner = null, lease_until = null
		where mail_id = $1 and generation = $2 and lease_owner is not null and sent_at is null and failed_at is null`,
		micros(now))
}

// MailFailed notes why a claimed mail could not be sent, and when to try again;
// with a nil retryAt it is given up. A Conflict means that the lease was lost.
func (s *Store) MailFailed(ctx context.Context, now time.Time, m OutboxMail, cause string, retryAt *time.Time) error {
	if retryAt == nil {
		return s.mailTried(ctx, m, `update mail_outbox set failed_at = $3, attempts = attempts + 1, last_error = $4,
				lease_owner = null, lease_until = null
			where mail_id = $1 and generation = $2 and lease_owner is not null and sent_at is null and failed_at is null`,
			micros(now), cause)
	}
	return s.mailTried(ctx, m, `update mail_outbox set due_at = $3, attempts = attempts + 1, last_error = $4,
			lease_owner = null, lease_until = null
		where mail_id = $1 and generation = $2 and lease_owner is not null and sent_at is null and failed_at is null`,
		micros(*retryAt), cause)
}

func (s *Store) mailTried(ctx context.Context, m OutboxMail, update string, args ...any) error {
	_, err := write(ctx, s, func(t *tx) (struct{}, error) {
		n, err := t.exec(update, append([]any{m.MailID, m.Generation}, args...)...)
		if err != nil {
			return struct{}{}, fmt.Errorf("record mail %s: %w", m.MailID, err)
		}
		if n == 0 {
			return struct{}{}, fault.New(fault.Conflict, "The mail is not under this lease any more")
		}
		return struct{}{}, nil
	})
	return err
}

// NextMail returns when the next mail can be claimed, which may be in the past.
// ok is false when the outbox is empty.
func (s *Store) NextMail(ctx context.Context) (due time.Time, ok bool, err error) {
	var us sql.NullInt64
	err = s.reader(ctx).row(`select min(case when lease_until > due_at then lease_until else due_at end)
		from mail_outbox where sent_at is null and failed_at is null`).Scan(&us)
	if err != nil {
		return time.Time{}, false, fmt.Errorf("find the next mail: %w", err)
	}
	if !us.Valid {
		return time.Time{}, false, nil
	}
	return instant(us.Int64), true, nil
}
