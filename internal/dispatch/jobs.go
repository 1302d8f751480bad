package dispatch

import (
	"context"
	"fmt"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/failpoint"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/mail"
	"github.com/ticketwire/ticketwire/internal/store"
)

// Each job sleeps until the store says that something falls due, or until it is
// nudged; jobPoll is the safety net behind that, and the pause after an error.
const (
	jobPoll  = 10 * time.Minute
	jobPause = 5 * time.Second
)

// job runs step whenever nudge rings or the time it returned has come, until the
// engine stops. step returns when it wants to run next; zero means jobPoll.
func (e *Engine) job(name string, bell <-chan struct{}, step func(ctx context.Context) (time.Time, error)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-e.stop:
			return
		case <-bell:
		case <-timer.C:
		}
		if !e.cfg.Store.Leads() {
			timer.Reset(jobPause)
			continue
		}
		next, err := step(e.sending)
		wait := jobPoll
		switch {
		case err != nil:
			e.cfg.Log.Error("job failed, will be tried again", "job", name, "error", err)
			wait = jobPause
		case !next.IsZero():
			wait = min(jobPoll, max(0, next.Sub(e.cfg.Now())))
		}
		if e.cfg.Store.Among() > 1 {
			wait = min(wait, jobPause) // nobody tells of what the others have done
		}
		timer.Reset(wait)
	}
}

// guardHealth switches off webhooks that have only failed for the policy's time,
// and writes the warnings before that. It goes by the clock, so a webhook that
// gets no events any more is switched off as well.
func (e *Engine) guardHealth() {
	e.job("auto-disable", e.failed, func(ctx context.Context) (time.Time, error) {
		off, err := e.cfg.Store.DisableOverdue(ctx, e.cfg.Now())
		if err != nil {
			return time.Time{}, fmt.Errorf("disable failing webhooks: %w", err)
		}
		for _, l := range off {
			e.noteDisabled(l, delivery.DisabledByFailures)
		}
		nudge(e.mailDue)
		next, found, err := e.cfg.Store.NextDisable(ctx, e.cfg.Now())
		if err != nil || !found {
			return time.Time{}, err
		}
		return next, nil
	})
}

// remindBatch is how many reminders are written before the engine looks whether it
// has to stop: of each it is counted what the webhook has missed.
const remindBatch = 5

// remind writes the reminders of webhooks that stay switched off. Nobody has to tell
// it of one: the first is due long after jobPoll.
func (e *Engine) remind() {
	e.job("reminders", nil, func(ctx context.Context) (time.Time, error) {
		now := e.cfg.Now() // one for both, so that nothing falls due in between
		more, err := e.cfg.Store.Remind(ctx, now, remindBatch)
		nudge(e.mailDue)
		if more || err != nil {
			return now, err
		}
		next, found, err := e.cfg.Store.NextReminder(ctx, now)
		if err != nil || !found {
			return time.Time{}, err
		}
		return next, nil
	})
}

// noteDisabled counts a webhook that was switched off for us, and says so.
func (e *Engine) noteDisabled(l store.Lane, reason string) {
	e.metrics.disabled.WithLabelValues(reason).Inc()
	e.cfg.Log.Warn("webhook disabled", "tenant", l.TenantID, "webhook", l.WebhookID, "reason", reason)
}

// sweepEvery and sweepBatch bound what retention deletes in one transaction, so
// that it never holds up deliveries.
const (
	sweepEvery = 5 * time.Minute
	sweepBatch = 1000
)

// sweep deletes what is past its retention.
func (e *Engine) sweep() {
	e.job("retention", nil, func(ctx context.Context) (time.Time, error) {
		now := e.cfg.Now()
		_, more, err := e.cfg.Store.Sweep(ctx, now, sweepBatch)
		if err != nil {
			return time.Time{}, fmt.Errorf("delete what is past its retention: %w", err)
		}
		if more {
			return now.Add(time.Second), nil
		}
		return now.Add(sweepEvery), nil
	})
}

// mailLease is how long one mail may take before another run tries it again.
const mailLease = 2 * time.Minute

// mailTries is how often a mail is tried: with mailWait, for about five days.
const mailTries = 45

// mailWait is how long a mail waits after its n-th temporary failure, from 0.
func mailWait(n int) time.Duration {
	delays := [...]time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 3 * time.Hour}
	return delays[min(n, len(delays)-1)]
}

// sendMail empties the outbox.
func (e *Engine) sendMail() {
	e.job("mail", e.mailDue, func(ctx context.Context) (time.Time, error) {
		for {
			mails, err := e.cfg.Store.ClaimMail(ctx, e.cfg.Now(), e.owner, mailLease, 10)
			if err != nil {
				return time.Time{}, fmt.Errorf("claim mail: %w", err)
			}
			if len(mails) == 0 {
				break
			}
			for _, m := range mails {
				if err := e.mailOne(ctx, m); err != nil {
					return time.Time{}, err
				}
			}
		}
		next, found, err := e.cfg.Store.NextMail(ctx)
		if err != nil || !found {
			return time.Time{}, err
		}
		return next, nil
	})
}

func (e *Engine) mailOne(ctx context.Context, m store.OutboxMail) error {
	if m.ExpiresAt != nil && !e.cfg.Now().Before(*m.ExpiresAt) {
		e.metrics.mails.WithLabelValues(mailAbandoned).Inc()
		e.cfg.Log.Warn("mail is too late to be sent", "mail", m.MailID, "tenant", m.TenantID)
		return e.noteFailed(ctx, m, "what it says is over", nil)
	}
	sendErr := failpoint.Hit(failpoint.Mail)
	if sendErr == nil {
		sendErr = e.cfg.Mail.Send(ctx, mail.Message{ID: m.MailID, To: m.Recipient, Subject: m.Subject, Text: m.Text, HTML: m.HTML})
	}
	now := e.cfg.Now()
	if sendErr == nil {
		e.metrics.mails.WithLabelValues(mailSent).Inc()
		e.cfg.Log.Info("mail sent", "mail", m.MailID, "tenant", m.TenantID)
		// A Conflict: it was given up meanwhile, since what it says is over, or the
		// lease has ended and somebody else sends it.
		if err := e.cfg.Store.MailSent(ctx, now, m); err != nil && !fault.Is(err, fault.Conflict) {
			return fmt.Errorf("note a sent mail: %w", err)
		}
		return nil
	}
	var retry *time.Time
	outcome := mailAbandoned
	if !mail.Permanent(sendErr) && m.Attempts+1 < mailTries {
		at := now.Add(mailWait(m.Attempts))
		retry, outcome = &at, mailRetrying
	}
	e.metrics.mails.WithLabelValues(outcome).Inc()
	e.cfg.Log.Warn("mail failed", "mail", m.MailID, "tenant", m.TenantID, "final", retry == nil, "error", sendErr)
	return e.noteFailed(ctx, m, sendErr.Error(), retry)
}

func (e *Engine) noteFailed(ctx context.Context, m store.OutboxMail, cause string, retry *time.Time) error {
	if err := e.cfg.Store.MailFailed(ctx, e.cfg.Now(), m, cause, retry); err != nil && !fault.Is(err, fault.Conflict) {
		return fmt.Errorf("note a failed mail: %w", err)
	}
	return nil
}

// MailDue says that there is something new in the outbox.
func (e *Engine) MailDue() { nudge(e.mailDue) }
