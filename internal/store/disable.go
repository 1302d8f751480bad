package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
)

// disable switches a webhook off on behalf of its receiver's failures and puts
// the mail about it into the outbox, in the transaction at hand: there is no
// moment at which one has happened without the other. done is false when it was
// switched off already, so that each incident is mailed once. The caller saves
// the health of w.
func (t *tx) disable(at time.Time, w *delivery.Webhook, reason, lastError string) (done, noRecipient bool, err error) {
	n, err := t.exec(`update webhooks set is_active = false, updated_at = $3
		where tenant_id = $1 and webhook_id = $2 and is_active and deleted_at is null`, w.TenantID, w.WebhookID, micros(at))
	if err != nil {
		return false, false, fmt.Errorf("disable webhook: %w", err)
	}
	if n == 0 {
		return false, false, nil
	}
	if err := t.switchOff(at, w, reason); err != nil {
		return false, false, err
	}
	t.changed(Lane{w.TenantID, w.WebhookID})
	w.AutoDisabledAt = &at
	since := at
	if w.FailingSince != nil {
		since = *w.FailingSince
	}
	mailed, err := t.mailOwner(at, w, incident{
		kind: "disabled", key: strconv.FormatInt(micros(at), 10),
		notice: Notice{Reason: reason, Since: since, At: at, LastError: lastError, Final: true},
	})
	return true, !mailed, err
}

// failingWebhooks returns the active webhooks whose streak began before the
// given time, longest first, without what is sealed of them.
func failingWebhooks(q querier, before time.Time) ([]delivery.Webhook, error) {
	rows, err := q.query(`select `+webhookColumns+webhookTables+`
		where h.failing_since is not null and h.failing_since <= $1 and w.is_active and w.deleted_at is null
		order by h.failing_since`, micros(before))
	found, err := collect(rows, err, func(row scanner) (webhookRow, error) {
		var r webhookRow
		err := row.Scan(r.dest()...)
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("find failing webhooks: %w", err)
	}
	list := make([]delivery.Webhook, len(found))
	for i := range found {
		if list[i], err = found[i].closed(); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// DisableOverdue switches off the webhooks that have failed for
// Policy.DisableAfter, also those that get no new events (contract section
// 4.11), and puts the warnings that are due into the outbox. It returns the
// lanes that were switched off.
func (s *Store) DisableOverdue(ctx context.Context, now time.Time) ([]Lane, error) {
	p := s.cfg.Policy
	shortest := p.DisableAfter
	if len(p.WarnAfter) > 0 && (shortest == 0 || p.WarnAfter[0] < shortest) {
		shortest = p.WarnAfter[0]
	}
	if shortest == 0 {
		return nil, nil
	}
	return write(ctx, s, func(t *tx) ([]Lane, error) {
		list, err := failingWebhooks(t, now.Add(-shortest))
		if err != nil {
			return nil, err
		}
		var off []Lane
		for i := range list {
			w := &list[i]
			disabled, err := t.judge(now, w)
			if err != nil {
				return nil, fmt.Errorf("webhook %s: %w", w.WebhookID, err)
			}
			if disabled {
				off = append(off, Lane{w.TenantID, w.WebhookID})
			}
		}
		return off, nil
	})
}

// judge does what is due for one failing webhook.
func (t *tx) judge(now time.Time, w *delivery.Webhook) (disabled bool, err error) {
	p := t.w.s.cfg.Policy
	due := p.WarningDue(w.Health, now)
	disabled = p.DisableDue(w.Health, w.IsActive, now)
	if !disabled && due <= w.WarningsSent {
		return false, nil
	}
	lastError, err := t.lastError(Lane{w.TenantID, w.WebhookID})
	if err != nil {
		return false, err
	}
	if disabled {
		disabled, _, err = t.disable(now, w, delivery.DisabledByFailures, lastError)
	} else {
		// After an outage of ours several may be due: one mail says it all.
		w.WarningsSent = due
		_, err = t.mailOwner(now, w, incident{
			kind: "warning", key: fmt.Sprintf("%d/%d", micros(*w.FailingSince), due),
			notice: Notice{
				Reason: delivery.DisabledByFailures, Since: *w.FailingSince, At: w.FailingSince.Add(p.DisableAfter),
				LastError: lastError, Final: due == len(p.WarnAfter),
			},
		})
	}
	if err != nil {
		return false, err
	}
	return disabled, t.saveHealth(w)
}

// lastError returns what the newest failed attempt of a lane said.
func (t *tx) lastError(l Lane) (string, error) {
	var message string
	err := t.row(`select error_message from deliveries
		where tenant_id = $1 and webhook_id = $2 and attempted_at is not null and error_type <> ''
		order by coalesce(attempted_at, due_at) desc, delivery_id desc limit 1`, l.TenantID, l.WebhookID).Scan(&message)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("read the last error: %w", err)
	}
	return message, nil
}

// NextDisable returns when DisableOverdue has something to do next: now if it
// has already. ok is false while no webhook is failing.
func (s *Store) NextDisable(ctx context.Context, now time.Time) (next time.Time, ok bool, err error) {
	list, err := failingWebhooks(s.reader(ctx), now)
	if err != nil {
		return time.Time{}, false, err
	}
	p := s.cfg.Policy
	sooner := func(at time.Time) {
		if !ok || at.Before(next) {
			next, ok = at, true
		}
	}
	for i := range list {
		since := *list[i].FailingSince
		if p.DisableAfter > 0 {
			sooner(since.Add(p.DisableAfter))
		}
		if n := list[i].WarningsSent; n < len(p.WarnAfter) {
			sooner(since.Add(p.WarnAfter[n]))
		}
	}
	if ok && next.Before(now) {
		next = now
	}
	return next, ok, nil
}
