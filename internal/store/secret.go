package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/vault"
)

// Secrets opens the signing secrets of a webhook, for signing and for the
// verify route.
func (s *Store) Secrets(ctx context.Context, now time.Time, tenant, id string) (Secrets, error) {
	return s.secretsOf(s.reader(ctx), now, Lane{tenant, lowerID(id)})
}

func (s *Store) secretsOf(q querier, now time.Time, l Lane) (Secrets, error) {
	var current string
	var previous sql.NullString
	var expires sql.NullInt64
	err := q.row(`select secret, previous_secret, previous_expires_at from webhooks
		where tenant_id = $1 and webhook_id = $2 and deleted_at is null`, l.TenantID, l.WebhookID).
		Scan(&current, &previous, &expires)
	if err != nil {
		return Secrets{}, found(err, "Webhook not found")
	}
	place := secretPlace(l.TenantID, l.WebhookID)
	opened, err := s.cfg.Vault.Open(place, current)
	if err != nil {
		return Secrets{}, fmt.Errorf("secret of webhook %s: %w", l.WebhookID, err)
	}
	out := Secrets{Current: string(opened)}
	// An expired one stays in its column until the next rotation, unused.
	if previous.Valid && expires.Int64 > micros(now) {
		if opened, err = s.cfg.Vault.Open(place, previous.String); err != nil {
			return Secrets{}, fmt.Errorf("previous secret of webhook %s: %w", l.WebhookID, err)
		}
		out.Previous, out.previousUntil = string(opened), instant(expires.Int64)
	}
	return out, nil
}

// RotateSecret gives the webhook a new signing secret and returns it, this
// once. With a grace the old one stays valid for that long beside the new one;
// without, it ends at once (contract section 4.2).
//
// A second rotation with a grace within the first one's is a Conflict: it would
// end the oldest secret without the warning that a grace is for. One without a
// grace always works, since a secret that has leaked must not wait.
func (s *Store) RotateSecret(ctx context.Context, now time.Time, tenant, id string, grace time.Duration) (secret string, err error) {
	l := Lane{tenant, lowerID(id)}
	out, err := write(ctx, s, func(t *tx) (RotatedSecret, error) {
		fresh := vault.NewSigningSecret()
		var expires any
		if grace > 0 {
			expires = micros(now.Add(grace))
		}
		n, err := t.exec(`update webhooks set secret = $3, updated_at = $5, previous_expires_at = $4,
				previous_secret = case when $6 then secret else null end
			where tenant_id = $1 and webhook_id = $2 and deleted_at is null
				and (not $6 or previous_secret is null or previous_expires_at <= $5)`,
			l.TenantID, l.WebhookID, s.cfg.Vault.Seal(secretPlace(l.TenantID, l.WebhookID), []byte(fresh)),
			expires, micros(now), grace > 0)
		if err != nil {
			return RotatedSecret{}, fmt.Errorf("rotate secret: %w", err)
		}
		if n == 0 {
			if _, err := s.secretsOf(t, now, l); err != nil {
				return RotatedSecret{}, err
			}
			return RotatedSecret{}, fault.New(fault.Conflict, "A rotation is under way: promote it first, or rotate without a grace period")
		}
		t.changed(l)
		return RotatedSecret{WebhookID: l.WebhookID, Secret: fresh}, nil
	})
	return out.Secret, err
}

// PromoteSecret ends the grace of a rotation: the previous secret is gone.
func (s *Store) PromoteSecret(ctx context.Context, now time.Time, tenant, id string) error {
	_, err := write(ctx, s, func(t *tx) (struct{}, error) {
		n, err := t.exec(`update webhooks set previous_secret = null, previous_expires_at = null, updated_at = $3
			where tenant_id = $1 and webhook_id = $2 and deleted_at is null`, tenant, lowerID(id), micros(now))
		if err != nil {
			return struct{}{}, fmt.Errorf("promote secret: %w", err)
		}
		if n == 0 {
			return struct{}{}, fault.New(fault.NotFound, "Webhook not found")
		}
		t.changed(Lane{tenant, lowerID(id)})
		return struct{}{}, nil
	})
	return err
}
