package store

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"
)

// answerLife is how long an idempotency key is remembered (contract P10).
const answerLife = 24 * time.Hour

// sweepPage is how many rows retention looks at with one statement, and
// sweepPages how many times it does so in one Sweep.
const (
	sweepPage  = 500
	sweepPages = 20
)

// swept is how far retention has come in each table that it walks from its oldest
// row. Rows that have to stay are passed over; when the walk meets what is
// young, or the end, it begins again at the front next time.
type swept map[string]int64

// Sweep deletes what is older than Config.Retention, about limit rows in one
// transaction, so that no write waits long for it; more says that there may be
// more to delete at once. Calls must not overlap.
//
// Pending deliveries stay however old they are, and an event stays as long as a
// delivery refers to it: the body of that delivery is the event's. The newest
// event stays in any case, see nextSeq.
//
// On a server this is about the rows that have no partition of their day. Those
// that have go with it, which is dropped when all of it is old, and deliveries that
// stay keep the bodies of its events; see partition.go.
func (s *Store) Sweep(ctx context.Context, now time.Time, limit int) (deleted int, more bool, err error) {
	old := micros(now.Add(-s.cfg.Retention))
	var at swept
	deleted, err = write(ctx, s, func(t *tx) (int, error) {
		if at = maps.Clone(s.swept); at == nil { // fn may run again
			at = swept{}
		}
		// A delivery that was handed over refers to its event too.
		for _, d := range t.w.handovers.by {
			if micros(d.CreatedAt) < old {
				if err := t.insertHanded(d, true); err != nil {
					return 0, err
				}
			}
		}
		w := walk{tx: t, now: micros(now), old: old, limit: limit, pages: sweepPages}
		more = false
		for _, table := range s.dialect.walked {
			if err := w.sweep(table, at); err != nil {
				return 0, fmt.Errorf("sweep %s: %w", table, err)
			}
			more = more || at[table] > 0
		}
		more = more || w.deleted >= limit
		n, err := t.sweepSmall(now, old, limit-w.deleted)
		return w.deleted + n, err
	})
	if err == nil {
		s.swept = at
		err = s.keepDays(ctx, now)
	}
	return deleted, more || deleted >= limit, err
}

// walk goes through tables whose rows are numbered in the order of their age.
type walk struct {
	tx       *tx
	now, old int64
	limit    int // rows to delete
	pages    int // left to look at
	deleted  int
}

// stepsOf returns the statements of the walk through a table. page reads numbers and
// ages after $1, at most $2; remove deletes what may go of those after $1 and up to
// $2, made before $3.
func stepsOf(table string) (page, remove string) {
	if strings.Contains(table, "deliveries") {
		return `select id, created_at from ` + table + ` where id > $1 order by id limit $2`,
			`delete from ` + table + ` where id > $1 and id <= $2 and created_at < $3 and status <> 'pending'`
	}
	return `select seq, created_at from ` + table + ` where seq > $1 order by seq limit $2`,
		`delete from ` + table + ` as e where seq > $1 and seq <= $2 and created_at < $3
			and seq < (select max(m.seq) from events m) and not exists (
				select 1 from deliveries d where d.tenant_id = e.tenant_id and d.event_id = e.event_id)`
}

// sweep deletes rows that were made before old, and notes in at where it has come:
// 0 where nothing is left.
//
// A row from the future, made while the clock was ahead, does not end the walk:
// it would keep all rows behind it until its time has come.
func (w *walk) sweep(table string, at swept) error {
	page, remove := stepsOf(table)
	size := min(w.limit, sweepPage)
	for ; w.deleted < w.limit && w.pages > 0; w.pages-- {
		rows, err := w.tx.query(page, at[table], size)
		type row struct{ id, created int64 }
		list, err := collect(rows, err, func(r scanner) (out row, err error) {
			err = r.Scan(&out.id, &out.created)
			return out, err
		})
		if err != nil {
			return err
		}
		until, young := at[table], false
		for _, r := range list {
			if young = r.created >= w.old && r.created <= w.now; young {
				break
			}
			until = r.id
		}
		if until > at[table] {
			n, err := w.tx.exec(remove, at[table], until, w.old)
			if err != nil {
				return err
			}
			w.deleted += int(n)
		}
		if at[table] = until; young || len(list) < size {
			at[table] = 0
			return nil
		}
	}
	return nil
}

// sweepSmall deletes at most limit old rows of the tables that have an index by
// age.
func (t *tx) sweepSmall(now time.Time, old int64, limit int) (deleted int, err error) {
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
		{"ended sessions", micros(now), `delete from console_tokens where token_hash in (
			select token_hash from console_tokens where expires_at <= $1 order by expires_at limit $2)`},
		{"requests for links", micros(now.Add(-LinkLife)), `delete from link_requests where request_id in (
			select request_id from link_requests where requested_at <= $1 order by requested_at limit $2)`},
		{"minutes of traffic", now.Add(-trafficLife).Unix() / 60, `delete from delivery_minutes where (tenant_id, minute) in (
			select tenant_id, minute from delivery_minutes where minute < $1 order by minute limit $2)`},
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
	for _, step := range steps {
		if deleted >= limit {
			break
		}
		n, err := t.exec(step.query, step.before, limit-deleted)
		if err != nil {
			return 0, fmt.Errorf("sweep %s: %w", step.what, err)
		}
		deleted += int(n)
	}
	return deleted, nil
}
