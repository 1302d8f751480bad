package store

import (
	"context"
	"fmt"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// CreateWebhooks stores all of the specs in one transaction, or none of them.
// The webhooks are complete, but their secrets are told to nobody.
//
// It is for measuring what many webhooks cost: 100,000 calls of CreateWebhook are
// as many commits, one after the other. Errors are those of CreateWebhook.
func (s *Store) CreateWebhooks(ctx context.Context, now time.Time, a ticket.Actor, specs []delivery.Spec) error {
	for i := range specs {
		if err := specs[i].Validate(); err != nil {
			return err
		}
	}
	_, err := write(ctx, s, func(t *tx) (struct{}, error) {
		if err := t.roomForWebhooks(a.TenantID, len(specs)); err != nil {
			return struct{}{}, err
		}
		for i := range specs {
			if _, err := t.insertWebhook(now, a, specs[i]); err != nil {
				return struct{}{}, fmt.Errorf("webhook %d of %d: %w", i+1, len(specs), err)
			}
		}
		return struct{}{}, nil
	})
	return err
}

// GiveUp turns at most limit pending deliveries, of all tenants, the longest due
// first, into history: rows that look as if their webhook had been switched off.
// given is how many there were.
//
// It is for measuring behind a long history. Switching off webhooks with
// millions of deliveries gives the same rows, but walks over the whole table
// once for each of them; here the rows are changed in the order in which they
// lie in it, which is several times faster. The engine must not be running.
func (s *Store) GiveUp(ctx context.Context, now time.Time, limit int) (given int, err error) {
	return write(ctx, s, func(t *tx) (int, error) {
		n, err := t.exec(`update deliveries set status = 'abandoned', wait_reason = 'webhook_disabled', completed_at = $1,
				lease_owner = null, lease_until = null
			where status = 'pending' and (tenant_id, delivery_id) in (
				select tenant_id, delivery_id from deliveries where status = 'pending' order by due_at limit $2)`,
			micros(now), limit)
		if err != nil {
			return 0, fmt.Errorf("give up deliveries: %w", err)
		}
		return int(n), nil
	})
}
