package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
)

// remindLook is how many events of the feed a reminder looks at to count what was
// missed.
const remindLook = 10_000

// MissedSoFar is what a webhook has missed in an outage that goes on.
type MissedSoFar struct {
	Kept    int  // events that replayMissed would still send
	AtLeast bool // only so many events of the feed were looked at: there may be more
	// DeletedFrom is when retention deletes the oldest of them; zero if there are none.
	DeletedFrom time.Time
	// GoneBefore is set once retention has come to the outage: what was missed before
	// is deleted.
	GoneBefore time.Time
}

// reminder is a mail that is due about a webhook which is still switched off.
type reminder struct {
	w    delivery.Webhook // without what is sealed
	due  int64            // since when, in microseconds
	last bool             // none follows
}

// A reminder is due each time Policy.RemindEvery has passed since a switch-off that
// no person asked for. The last is the first that comes when Config.Retention has
// passed as well: from then on there is always something deleted, and the rest
// follows. The number of the last is lastReminder.
func (s *Store) lastReminder() int64 {
	every := s.cfg.Policy.RemindEvery
	return int64((s.cfg.Retention + every - 1) / every)
}

// reminds reports whether there are reminders at all.
func (s *Store) reminds() bool { return s.cfg.Policy.RemindEvery > 0 && s.cfg.Mails.Reminder != nil }

// offByItself are the conditions of a webhook that was switched off by the service
// and still is: switching it on clears the reason.
const offByItself = `disabled_reason in ('failures', 'gone') and deleted_at is null`

// remindersDue finds the newest reminder of each webhook that has come due, unless
// it or a later one was written already. So whoever was away for several writes one,
// and so does a clock that is set back none.
//
// The outbox forgets a mail when it is as old as the retention, but no reminder is
// due for as long as that: by then the next one is, and the last is given up.
//
// Beside an error there is a list, without the webhooks that it is about.
func (s *Store) remindersDue(q querier, now time.Time) ([]reminder, error) {
	every, last := s.cfg.Policy.RemindEvery, s.lastReminder()
	ended := now.Add(-time.Duration(last)*every - s.cfg.Retention)
	rows, err := q.query(`select `+webhookColumns+`, w.due
		from (select *, disabled_at + $2 * case when ($1 - disabled_at) / $2 < $3 then ($1 - disabled_at) / $2 else $3 end as due
			from webhooks where disabled_at > $4 and disabled_at <= $5 and `+offByItself+`) w
		join webhook_health h on h.tenant_id = w.tenant_id and h.webhook_id = w.webhook_id
		where not exists (select 1 from mail_outbox m where m.tenant_id = w.tenant_id
			and m.dedupe_key >= 'reminder/' || w.webhook_id || '/' || w.disabled_at || '/' || w.due
			and m.dedupe_key <= 'reminder/' || w.webhook_id || '/' || w.disabled_at || '/`+allReminders+`')
		order by w.disabled_at`,
		micros(now), every.Microseconds(), last, micros(ended), micros(now.Add(-every)))
	type dueRow struct {
		webhookRow
		due int64
	}
	found, err := collect(rows, err, func(row scanner) (dueRow, error) {
		var r dueRow
		err := row.Scan(append(r.dest(), &r.due)...)
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("find reminders that are due: %w", err)
	}
	var list []reminder
	var wrong []error
	for i := range found {
		w, err := found[i].closed()
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		list = append(list, reminder{w: w, due: found[i].due, last: found[i].due == micros(*w.DisabledAt)+last*every.Microseconds()})
	}
	return list, errors.Join(wrong...)
}

// NextReminder returns when the first reminder after now is due. ok is false while
// no webhook is to be reminded of.
func (s *Store) NextReminder(ctx context.Context, now time.Time) (due time.Time, ok bool, err error) {
	if !s.reminds() {
		return time.Time{}, false, nil
	}
	every := s.cfg.Policy.RemindEvery
	var us sql.NullInt64
	err = s.reader(ctx).row(`select min(disabled_at + $2 * (($1 - disabled_at) / $2 + 1)) from webhooks
		where disabled_at > $3 and `+offByItself,
		micros(now), every.Microseconds(), micros(now.Add(-time.Duration(s.lastReminder())*every))).Scan(&us)
	if err != nil {
		return time.Time{}, false, fmt.Errorf("find the next reminder: %w", err)
	}
	return instant(us.Int64), us.Valid, nil
}

// Remind puts a mail into the outbox for each reminder that is due, for limit of them
// at most, and more says that others are left. Each has a transaction of its own, and
// what was missed is counted before that, so that no write waits for it. A webhook
// whose owner cannot be mailed is looked at again next time, and one with which
// something is wrong stands in the error and holds up no other.
func (s *Store) Remind(ctx context.Context, now time.Time, limit int) (more bool, err error) {
	if !s.reminds() {
		return false, nil
	}
	due, err := s.remindersDue(s.reader(ctx), now)
	wrong := []error{err}
	for i := range due {
		if limit == 0 {
			return true, errors.Join(wrong...)
		}
		written, err := s.remind(ctx, now, &due[i])
		if err != nil {
			wrong = append(wrong, fmt.Errorf("remind of webhook %s: %w", due[i].w.WebhookID, err))
		}
		if written {
			limit--
		}
	}
	return false, errors.Join(wrong...)
}

func (s *Store) remind(ctx context.Context, now time.Time, d *reminder) (written bool, err error) {
	r, w := s.reader(ctx), &d.w
	to, err := recipient(r, w)
	if err != nil || to.email == "" {
		return false, err
	}
	missed, err := s.missedSoFar(r, now, w)
	if err != nil {
		return false, err
	}
	return write(ctx, s, func(t *tx) (bool, error) {
		key := fmt.Sprintf("%d/%d", micros(*w.DisabledAt), d.due)
		var still int
		err := t.row(`select count(*) from webhooks where tenant_id = $1 and webhook_id = $2 and disabled_at = $3 and `+offByItself+`
				and not exists (select 1 from mail_outbox where tenant_id = $1 and dedupe_key >= $4 and dedupe_key < $5)`,
			w.TenantID, w.WebhookID, micros(*w.DisabledAt), reminderKey(w.WebhookID, key), reminderKey(w.WebhookID, allReminders)).Scan(&still)
		if err != nil {
			return false, fmt.Errorf("look whether a reminder is still due: %w", err)
		}
		if still == 0 {
			return false, nil
		}
		if err := t.dropReminders(now, Lane{w.TenantID, w.WebhookID}, key, "a later reminder takes its place"); err != nil {
			return false, err
		}
		n := Notice{Reason: w.DisabledReason, At: *w.DisabledAt, Final: d.last, Missed: missed}
		if n.LastError, err = t.lastError(Lane{w.TenantID, w.WebhookID}); err != nil {
			return false, err
		}
		return t.mailOwner(now, w, incident{kind: "reminder", key: key, notice: n})
	})
}

// reminderKey is what the outbox knows a reminder by, see incident. Of one webhook they
// are in the order of their time.
func reminderKey(webhookID, key string) string { return "reminder/" + webhookID + "/" + key }

// allReminders is behind the keys of all reminders of a webhook.
const allReminders = "~"

// dropReminders gives up the reminders of a webhook, before one with a key, that are
// not sent yet, since they are not true any more, and says why. One that is being sent
// at this moment arrives, or is not tried again.
func (t *tx) dropReminders(now time.Time, l Lane, before, why string) error {
	_, err := t.exec(`update mail_outbox set failed_at = $4, last_error = $5
		where tenant_id = $1 and dedupe_key >= $2 and dedupe_key < $3 and sent_at is null and failed_at is null`,
		l.TenantID, reminderKey(l.WebhookID, ""), reminderKey(l.WebhookID, before), micros(now), why)
	if err != nil {
		return fmt.Errorf("give up reminders: %w", err)
	}
	return nil
}

// missedSoFar counts what replayMissed of w, which is switched off, would queue now.
func (s *Store) missedSoFar(q querier, now time.Time, w *delivery.Webhook) (MissedSoFar, error) {
	var m MissedSoFar
	l := Lane{w.TenantID, w.WebhookID}
	first, err := missedSince(q, l, micros(*w.DisabledAt))
	if err != nil {
		return m, err
	}
	sp, err := s.since(q, now, l, first)
	if err != nil {
		return m, err
	}
	active := *w
	active.IsActive = true // as it would be
	oldest := first
	for left := remindLook; sp.after < sp.end && left > 0; {
		page, err := sp.walk(q, &active, min(replayPage, left))
		if err != nil {
			return m, err
		}
		left -= len(page)
		for i := range page {
			if page[i].class == classNone {
				continue
			}
			if m.Kept == 0 {
				oldest = page[i].createdAt
			}
			m.Kept++
		}
	}
	m.AtLeast = sp.after < sp.end
	if m.Kept > 0 || m.AtLeast {
		m.DeletedFrom = instant(oldest).Add(s.cfg.Retention)
	}
	if sp.oldest > first {
		m.GoneBefore = instant(sp.oldest)
	}
	return m, nil
}
