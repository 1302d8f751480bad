package store

import (
	"context"
	"fmt"
	"time"
)

// answerLife is how long an idempotency key is remembered (contract P10).
const answerLife = 24 * time.Hour

// Sweep deletes what is older than Config.Retention, at most limit rows in one
// transaction, so that no write waits long for it; call it again while it
// returns limit.
//
// Pending deliveries stay however old they are, and an event stays as long as a
// delivery refers to it: the body of that delivery is the event's.
func (s *Store) Sweep(ctx context.Context, now time.Time, limit int) (deleted int, err error) {
	old := micros(now.Add(-s.cfg.Retention))
	steps := []struct {
		what   string
		before int64
		query  string
	}{
		{"deliveries", old, `delete from deliveries where (tenant_id, delivery_id) in (
			select tenant_id, delivery_id from deliveries
			where created_at < $1 and status <> 'pending' order by created_at limit $2)`},
		{"events", old, `delete from events where seq in (
			select e.seq from events e where e.created_at < $1 and not exists (
				select 1 from deliveries d where d.tenant_id = e.tenant_id and d.event_id = e.event_id)
			order by e.created_at limit $2)`},
		{"mails", old, `delete from mail_outbox where mail_id in (
			select mail_id from mail_outbox
			where created_at < $1 and (sent_at is not null or failed_at is not null) order by created_at limit $2)`},
		{"idempotency keys", micros(now.Add(-answerLife)), `delete from idempotency_keys
			where (tenant_id, api_key_id, route, key) in (
				select tenant_id, api_key_id, route, key from idempotency_keys
				where created_at <= $1 order by created_at limit $2)`},
		{"replays", old, `delete from replay_jobs where (tenant_id, replay_id) in (
			select tenant_id, replay_id from replay_jobs
			where finished_at is not null and finished_at < $1 order by finished_at limit $2)`},
		{"outages", old, `delete from disabled_periods where (tenant_id, webhook_id, period_id) in (
			select tenant_id, webhook_id, period_id from disabled_periods
			where enabled_at < $1 order by enabled_at limit $2)`},
		{"webhook health", old, `delete from webhook_health where (tenant_id, webhook_id) in (
			select w.tenant_id, w.webhook_id from webhooks w
			join webhook_health h on h.tenant_id = w.tenant_id and h.webhook_id = w.webhook_id
			where w.deleted_at < $1 and not exists (
				select 1 from deliveries d where d.tenant_id = w.tenant_id and d.webhook_id = w.webhook_id)
			limit $2)`},
		{"webhooks", old, `delete from webhooks where (tenant_id, webhook_id) in (
			select w.tenant_id, w.webhook_id from webhooks w
			where w.deleted_at < $1 and not exists (
				select 1 from webhook_health h where h.tenant_id = w.tenant_id and h.webhook_id = w.webhook_id)
			limit $2)`},
	}
	return write(ctx, s, func(t *tx) (int, error) {
		done := 0
		for _, step := range steps {
			if done >= limit {
				break
			}
			n, err := t.exec(step.query, step.before, limit-done)
			if err != nil {
				return 0, fmt.Errorf("sweep %s: %w", step.what, err)
			}
			done += int(n)
		}
		return done, nil
	})
}
