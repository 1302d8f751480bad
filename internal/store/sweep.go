package store

import (
	"context"
	"fmt"
	"time"
)

// answerLife is how long an idempotency key is remembered (contract P10).
const answerLife = 24 * time.Hour

// sweepPages bounds how many pages of rows one Sweep looks at.
const sweepPages = 20

// swept is how far retention has come in the tables that it walks from their
// oldest row. Rows that have to stay are passed over; when the walk meets what is
// young, or the end, it begins again at the front next time.
type swept struct{ deliveries, events int64 }

// Sweep deletes what is older than Config.Retention, at most limit rows in one
// transaction, so that no write waits long for it; call it again while it
// returns limit. Calls must not overlap.
//
// Pending deliveries stay however old they are, and an event stays as long as a
// delivery refers to it: the body of that delivery is the event's. The newest
// event stays in any case, see nextSeq.
func (s *Store) Sweep(ctx context.Context, now time.Time, limit int) (deleted int, err error) {
	old := micros(now.Add(-s.cfg.Retention))
	steps := []struct {
		what   string
		before int64
		query  string
	}{
		{"ends of deleted tickets", 0, `delete from ticket_ends where (tenant_id, ticket_id) in (
			select tenant_id, ticket_id from ticket_ends
			where last_seq > $1 and last_seq < (select min(e.seq) from events e) limit $2)`},
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
	at := s.swept
	deleted, err = write(ctx, s, func(t *tx) (int, error) {
		at = s.swept // fn may run again
		done, err := t.sweepRows(sweptTable{
			what:   "deliveries",
			page:   `select id, created_at from deliveries where id > $1 order by id limit $2`,
			delete: `delete from deliveries where id > $1 and id <= $2 and status <> 'pending'`,
		}, &at.deliveries, old, limit)
		if err != nil {
			return 0, err
		}
		n, err := t.sweepRows(sweptTable{
			what: "events",
			page: `select seq, created_at from events where seq > $1 order by seq limit $2`,
			delete: `delete from events where seq > $1 and seq <= $2
				and seq < (select max(m.seq) from events m) and not exists (
					select 1 from deliveries d where d.tenant_id = events.tenant_id and d.event_id = events.event_id)`,
		}, &at.events, old, limit-done)
		if err != nil {
			return 0, err
		}
		done += n
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
	if err == nil {
		s.swept = at
	}
	return deleted, err
}

// sweptTable is a table whose rows are numbered in the order of their age.
type sweptTable struct {
	what   string // for errors
	page   string // numbers and ages after $1, at most $2
	delete string // what may go, after $1 and up to $2
}

// sweepRows deletes at most limit rows that were made before old, and moves after
// to where it has come.
func (t *tx) sweepRows(table sweptTable, after *int64, old int64, limit int) (deleted int, err error) {
	for range sweepPages {
		if deleted >= limit {
			return deleted, nil
		}
		rows, err := t.query(table.page, *after, limit-deleted)
		type row struct{ id, created int64 }
		page, err := collect(rows, err, func(r scanner) (out row, err error) {
			err = r.Scan(&out.id, &out.created)
			return out, err
		})
		if err != nil {
			return 0, fmt.Errorf("sweep %s: %w", table.what, err)
		}
		until := *after
		for _, r := range page {
			if r.created >= old {
				break
			}
			until = r.id
		}
		if until > *after {
			n, err := t.exec(table.delete, *after, until)
			if err != nil {
				return 0, fmt.Errorf("sweep %s: %w", table.what, err)
			}
			deleted += int(n)
		}
		if len(page) == 0 || until < page[len(page)-1].id || len(page) < limit-deleted {
			*after = 0
			return deleted, nil
		}
		*after = until
	}
	return deleted, nil
}
