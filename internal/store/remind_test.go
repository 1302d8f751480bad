package store

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

func TestRemind(t *testing.T) {
	t.Parallel()
	exercise(t, map[string]func(*testing.T, opener){
		"one mail for each week, until things are deleted": remindWeekly,
		"it says why a webhook is off after 24 hours":      remindOfFailures,
		"an outage of ours is one mail":                    remindOnceAfterOutage,
		"another interval counts on":                       remindAtAnotherInterval,
		"longer than the retention is one mail":            remindBeyondRetention,
		"nobody is reminded of what is as it should be":    remindOfNothing,
		"what is not off any more needs no mail":           remindTooLate,
		"what waits for the mail server stays true":        remindWaiting,
		"one with which something is wrong holds up none":  remindPastTrouble,
		"a few at a time":                                  remindSome,
		"the next outage counts anew":                      remindOfNextOutage,
		"nobody to mail holds up nobody":                   remindNobody,
		"what it has missed":                               remindMissed,
		"the count is bounded":                             remindBounded,
	})
}

const week = 7 * 24 * time.Hour

// gone is a webhook that a 410 switches off at start.
func (d *desk) gone() *line {
	d.t.Helper()
	l := d.hook(start())
	d.create(start(), d.draft("goes to nobody"))
	if rec := l.answer(l.claimOne(start()), status(410), start()); !rec[0].Disabled {
		d.t.Fatalf("recorded %+v", rec)
	}
	return l
}

// remindAll writes all reminders that are due, two at a time.
func (d *desk) remindAll(now time.Time) {
	d.t.Helper()
	for more := true; more; {
		var err error
		if more, err = d.Remind(context.Background(), now, 2); err != nil {
			d.t.Fatal(err)
		}
	}
}

// reminders are the reminders that came into the outbox since it was asked last. The
// others are sent away.
func (d *desk) reminders(now time.Time) (texts []string) {
	d.t.Helper()
	d.remindAll(now)
	for _, m := range d.outbox(now) {
		if strings.HasPrefix(m.Subject, "reminder ") {
			texts = append(texts, m.Text)
		}
		if err := d.MailSent(context.Background(), now, m); err != nil {
			d.t.Fatal(err)
		}
	}
	return texts
}

// remindedAt wants n reminders at a time, and none when it is asked again.
func (d *desk) remindedAt(now time.Time, n int) {
	d.t.Helper()
	if got := d.reminders(now); len(got) != n {
		d.t.Errorf("%v after the start: reminders %q, want %d", now.Sub(start()), got, n)
	}
	if again := d.reminders(now); len(again) != 0 {
		d.t.Errorf("%v after the start: again %q", now.Sub(start()), again)
	}
}

// nextAt wants the next reminder at a time; zero for none at all.
func (d *desk) nextAt(now, want time.Time) {
	d.t.Helper()
	next, ok, err := d.NextReminder(context.Background(), now)
	if err != nil || ok == want.IsZero() || ok && !next.Equal(want) {
		d.t.Errorf("%v after the start: next %v %v %v, want %v", now.Sub(start()), next, ok, err, want)
	}
}

func remindWeekly(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide, mails), "acme")
	d.gone()
	off := start().Truncate(time.Microsecond)
	for n := range time.Duration(5) {
		due := off.Add((n + 1) * week)
		d.nextAt(off.Add(n*week), due)
		d.nextAt(due.Add(-time.Microsecond), due)
		d.remindedAt(due.Add(-time.Microsecond), 0)
		got := d.reminders(due)
		// Retention is 30 days: it has come to the outage before the fifth.
		if last := n == 4; len(got) != 1 || strings.Contains(got[0], "|true|") != last || strings.Contains(got[0], "GoneBefore:0001") == last {
			t.Errorf("reminders of week %d: %q", n+1, got)
		}
		d.remindedAt(due.Add(week-time.Microsecond), 0)
	}
	d.nextAt(off.Add(5*week), time.Time{})
	// The outbox forgets its mails in the meantime.
	d.younger(d.create(start(), d.draft("younger")).TicketID)
	forgets := 5*week + 30*24*time.Hour
	for _, after := range []time.Duration{6 * week, forgets - time.Microsecond, forgets, forgets + time.Microsecond, 10 * week, 20 * week} {
		d.sweep(off.Add(after))
		d.remindedAt(off.Add(after), 0)
	}
	var left int
	if err := d.reader(t.Context()).row(`select count(*) from mail_outbox`).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d mails were not forgotten (%v)", left, err)
	}
}

func remindOfFailures(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide, mails), "acme")
	l := d.hook(start())
	l.fail(start(), start().Add(24*time.Hour))
	off := start().Add(24 * time.Hour).Truncate(time.Microsecond)
	if w := l.current(); w.IsActive {
		t.Fatal("not disabled")
	}
	d.nextAt(off, off.Add(week))
	want := []string{"Ada Lovelace|failures|" + off.Format(time.RFC3339) + "|receiver answered 500 Internal Server Error|false|"}
	got := d.reminders(off.Add(week))
	if len(got) != 1 || !strings.HasPrefix(got[0], want[0]) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func remindOnceAfterOutage(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide, mails), "acme")
	d.gone()
	off := start().Truncate(time.Microsecond)
	d.remindedAt(off.Add(3*week+time.Hour), 1)
	// The clock is set back, also to before the switch-off.
	for _, at := range []time.Duration{2*week + time.Hour, week, time.Hour, -time.Hour, -5 * week} {
		d.remindedAt(off.Add(at), 0)
	}
	d.nextAt(off.Add(3*week+time.Hour), off.Add(4*week))
	d.remindedAt(off.Add(4*week), 1)
	// The last one is not lost when nobody is there in its week.
	d.remindedAt(off.Add(7*week), 1)
	// After that long what is late helps nobody.
	other := newDesk(t, open(t, guide, mails), "other")
	other.gone()
	other.remindedAt(off.Add(5*week+30*24*time.Hour), 0)
}

func remindAtAnotherInterval(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide, mails), "acme")
	d.gone()
	off := start().Truncate(time.Microsecond)
	d.remindedAt(off.Add(week), 1)
	d.cfg.Policy.RemindEvery = 24 * time.Hour
	d.remindedAt(off.Add(week), 0)
	d.nextAt(off.Add(week), off.Add(week+24*time.Hour))
	d.remindedAt(off.Add(week+24*time.Hour), 1)
	d.cfg.Policy.RemindEvery = 5 * 24 * time.Hour
	d.remindedAt(off.Add(9*24*time.Hour), 0)
	d.remindedAt(off.Add(10*24*time.Hour), 1)
	d.cfg.Policy.RemindEvery = 0
	d.remindedAt(off.Add(15*24*time.Hour), 0)
	d.nextAt(off.Add(10*24*time.Hour), time.Time{})
}

func remindBeyondRetention(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide, mails, func(c *Config) { c.Retention = time.Hour }), "acme")
	d.gone()
	off := start().Truncate(time.Microsecond)
	d.nextAt(off, off.Add(week))
	got := d.reminders(off.Add(week))
	if len(got) != 1 || !strings.Contains(got[0], "|true|{Kept:0 AtLeast:false") || strings.Contains(got[0], "GoneBefore:0001") {
		t.Errorf("reminders %q", got)
	}
	for minutes := time.Duration(0); minutes < 150; minutes += 10 {
		at := off.Add(week + minutes*time.Minute)
		d.sweep(at)
		d.remindedAt(at, 0)
	}
	d.nextAt(off.Add(week), time.Time{})
}

func remindOfNothing(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide, mails, func(c *Config) { c.Policy.WarnAfter, c.Policy.DisableAfter = nil, 0 }), "acme")
	d.hook(start())
	d.hook(start()).fail(start())
	d.hook(start()).active(start(), false, false)
	d.hook(start(), func(s *delivery.Spec) { s.IsActive = false })
	d.gone().active(start().Add(time.Hour), true, false)
	deleted := d.gone()
	if err := d.DeleteWebhook(t.Context(), start().Add(time.Hour), d.Actor, deleted.hook.WebhookID); err != nil {
		t.Fatal(err)
	}
	d.remindedAt(start().Add(week+time.Hour), 0)
	d.nextAt(start().Add(time.Hour), time.Time{})
	// Who switches it on and off himself knows.
	by := d.gone()
	by.active(start().Add(time.Hour), true, false)
	by.active(start().Add(2*time.Hour), false, false)
	d.remindedAt(start().Add(2*week), 0)
}

// What is done between the count and the mail is seen.
func remindTooLate(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide, mails), "acme")
	at := start().Add(week)
	for n, change := range []func(l *line){
		func(l *line) { l.remindedAt(at.Add(week), 1) },
		func(l *line) { l.active(at, true, false) },
		func(l *line) {
			l.active(at, true, false)
			l.create(at, l.draft("gone again"))
			l.answer(l.claimOne(at), status(410), at)
		},
		func(l *line) {
			if err := l.DeleteWebhook(t.Context(), at, l.Actor, l.hook.WebhookID); err != nil {
				t.Fatal(err)
			}
		},
	} {
		d := newDesk(t, d.Store, fmt.Sprint("tenant ", n))
		l := d.gone()
		due := must(d.remindersDue(d.reader(t.Context()), at))(t)
		if len(due) != 1 || due[0].w.WebhookID != l.hook.WebhookID {
			t.Fatalf("due %+v", due)
		}
		change(l)
		if written, err := d.remind(t.Context(), at, &due[0]); err != nil || written {
			t.Errorf("written: %t, %v", written, err)
		}
		d.remindedAt(at, 0)
	}
}

// While the mail server is away the newest reminder takes the place of those before
// it, and none is left when the outage is over.
func remindWaiting(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide, mails), "acme")
	l, deleted, stays := d.gone(), d.gone(), d.gone()
	d.reminders(start())
	for n := range time.Duration(3) {
		d.remindAll(start().Add((n + 1) * week))
	}
	at := start().Add(3 * week)
	if n := len(d.outbox(at)); n != 3 {
		t.Fatalf("%d reminders wait, want one of each webhook", n)
	}
	over := at.Add(2 * lease)
	l.active(over, true, false)
	if err := d.DeleteWebhook(t.Context(), over, d.Actor, deleted.hook.WebhookID); err != nil {
		t.Fatal(err)
	}
	out := d.outbox(over)
	if len(out) != 1 || out[0].Recipient != "acme@desk.example" {
		t.Errorf("waiting: %+v, want the one of the webhook that is still off", out)
	}
	// The one that is being sent now is not tried again when that fails.
	stays.active(over, true, false)
	later := over.Add(time.Hour)
	for _, err := range []error{d.MailSent(t.Context(), over, out[0]), d.MailFailed(t.Context(), over, out[0], "away", &later)} {
		if !fault.Is(err, fault.Conflict) {
			t.Errorf("its end was noted with %v", err)
		}
	}
	if out := d.outbox(later.Add(lease)); len(out) != 0 {
		t.Errorf("waiting: %+v, want none", out)
	}
}

func remindSome(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide, mails), "acme")
	for range 3 {
		d.gone()
	}
	d.reminders(start())
	at := start().Add(week)
	for _, want := range []struct {
		mails int
		more  bool
	}{{2, true}, {1, false}, {0, false}} {
		more, err := d.Remind(t.Context(), at, 2)
		if n := len(d.outbox(at)); err != nil || more != want.more || n != want.mails {
			t.Errorf("%d reminders, more: %t, %v; want %+v", n, more, err, want)
		}
	}
}

// A webhook with which something is wrong holds up no other.
func remindPastTrouble(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide, mails), "acme")
	l := d.gone()
	other := newDesk(t, d.Store, "other")
	other.gone()
	d.reminders(start())
	err := d.do(t.Context(), func(t *tx) error {
		return t.change("break a row", `update webhooks set tags = 'x' where webhook_id = $1`, l.hook.WebhookID)
	})
	if err != nil {
		t.Fatal(err)
	}
	more, err := d.Remind(t.Context(), start().Add(week), 10)
	if err == nil || !strings.Contains(err.Error(), l.hook.WebhookID) || more {
		t.Errorf("more: %t, %v", more, err)
	}
	if out := d.outbox(start().Add(week)); len(out) != 1 || out[0].Recipient != "other@desk.example" {
		t.Errorf("mails %+v", out)
	}
}

func remindOfNextOutage(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide, mails), "acme")
	l := d.gone()
	d.remindedAt(start().Add(3*week), 1)
	again := start().Add(3*week + time.Hour)
	l.active(again, true, false)
	d.create(again, d.draft("gone again"))
	l.answer(l.claimOne(again), status(410), again)
	d.nextAt(again, again.Truncate(time.Microsecond).Add(week))
	d.remindedAt(again.Add(week-time.Second), 0)
	d.remindedAt(again.Add(week), 1)
}

func remindNobody(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide, mails), "acme")
	d.gone()
	set := func(inactive bool) {
		if _, err := d.UpdateUser(t.Context(), d.TenantID, d.UserID, func(u *ticket.User) error { u.IsInactive = inactive; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	other := newDesk(t, d.Store, "other")
	other.gone()
	set(true)
	at := start().Truncate(time.Microsecond).Add(week)
	d.remindedAt(at, 1)
	// Nobody spins until there is somebody, who is told then.
	d.nextAt(at, at.Add(week))
	set(false)
	d.remindedAt(at.Add(time.Hour), 1)
}

func remindMissed(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide, mails), "acme")
	l := d.gone()
	_, _, err := d.UpdateWebhook(t.Context(), start(), d.Actor, l.hook.WebhookID, func(s *delivery.Spec) error {
		s.EventFilter = &delivery.Filter{Tags: []string{"vip"}}
		return nil
	}, false)
	if err != nil {
		t.Fatal(err)
	}
	missed := func(at time.Time) MissedSoFar {
		t.Helper()
		w := l.current()
		return must(d.missedSoFar(d.reader(t.Context()), at, &w))(t)
	}
	if diff := cmp.Diff(MissedSoFar{}, missed(start())); diff != "" {
		t.Error(diff)
	}
	vip := d.draft("wanted")
	vip.Tags = []string{"vip"}
	day := 24 * time.Hour
	for n := range time.Duration(4) {
		at := start().Add((n + 1) * day)
		d.create(at, vip)
		d.create(at, d.draft("not wanted"))
	}
	first := start().Add(day).Truncate(time.Microsecond)
	if diff := cmp.Diff(MissedSoFar{Kept: 4, DeletedFrom: first.Add(30 * day)}, missed(start().Add(29*day))); diff != "" {
		t.Error(diff)
	}
	if _, list, n, err := d.Missed(t.Context(), start().Add(29*day), d.TenantID, l.hook.WebhookID, 1, 10); n != 4 || err != nil {
		t.Errorf("%d missed, %v", len(list), err)
	}
	// Retention has come to the outage when the switch-off is past it.
	begun := start().Truncate(time.Microsecond).Add(30 * day)
	if m := missed(begun); m.Kept != 4 || !m.GoneBefore.IsZero() {
		t.Errorf("got %+v, want nothing gone", m)
	}
	if m := missed(begun.Add(time.Microsecond)); m.Kept != 4 || m.GoneBefore.IsZero() {
		t.Errorf("got %+v, want that deleting has begun", m)
	}
	// Two of the four are past their retention, whether or not it has been there.
	at := start().Add(33*day - time.Hour)
	want := MissedSoFar{Kept: 2, DeletedFrom: first.Add(32 * day), GoneBefore: at.Add(-30 * day).Truncate(time.Microsecond)}
	if diff := cmp.Diff(want, missed(at)); diff != "" {
		t.Error(diff)
	}
	d.sweep(at)
	if diff := cmp.Diff(want, missed(at)); diff != "" {
		t.Error(diff)
	}
	// It is what the mail says.
	if got := d.reminders(at); len(got) != 1 || !strings.HasSuffix(got[0], fmt.Sprintf("%+v", want)) {
		t.Errorf("reminders %q, want %+v", got, want)
	}
}

func remindBounded(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide, mails), "acme")
	l := d.gone()
	l.missedEvents(start(), remindLook)
	w := l.current()
	count := func(w *delivery.Webhook) MissedSoFar {
		t.Helper()
		m := must(d.missedSoFar(d.reader(t.Context()), start().Add(time.Hour), w))(t)
		m.DeletedFrom = m.DeletedFrom.UTC()
		return m
	}
	if m := count(&w); m.Kept != remindLook || m.AtLeast {
		t.Errorf("got %+v, want all of them", m)
	}
	d.create(start().Add(time.Hour), d.draft("one more"))
	if m := count(&w); m.Kept != remindLook || !m.AtLeast {
		t.Errorf("got %+v, want the bound", m)
	}
	// Nothing is known of what is behind the bound but that it is not older.
	w.EventTypes = []string{"ticket.closed"}
	want := MissedSoFar{AtLeast: true, DeletedFrom: w.DisabledAt.Add(30 * 24 * time.Hour).UTC()}
	if diff := cmp.Diff(want, count(&w)); diff != "" {
		t.Error(diff)
	}
}
