package store

import (
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/fault"
)

func TestMail(t *testing.T) {
	t.Parallel()
	exercise(t, map[string]func(*testing.T, opener){
		"a mail is sent once":              mailOnce,
		"a mail is tried again, then not":  mailRetried,
		"a lost lease cannot be recorded":  mailFenced,
		"without texts nothing is written": mailWithoutTexts,
	})
}

// oneMail leaves one mail in the outbox of a new tenant, due at start.
func oneMail(t *testing.T, open opener) *desk {
	t.Helper()
	d := newDesk(t, open(t, guide, mails), "acme")
	l := d.hook(start())
	d.create(start(), d.draft("one"))
	l.answer(l.claimOne(start()), status(410), start())
	return d
}

func (d *desk) nextMail(want time.Time, wantOK bool) {
	d.t.Helper()
	next, ok, err := d.NextMail(d.t.Context())
	if err != nil || ok != wantOK || ok && !next.Equal(want.Truncate(time.Microsecond)) {
		d.t.Errorf("next mail %v %v %v, want %v %v", next, ok, err, want, wantOK)
	}
}

func mailOnce(t *testing.T, open opener) {
	d := oneMail(t, open)
	d.nextMail(start(), true)
	out := d.outbox(start())
	if len(out) != 1 || out[0].Attempts != 0 {
		t.Fatalf("outbox %+v", out)
	}
	d.nextMail(start().Add(lease), true)
	if n := len(d.outbox(start())); n != 0 {
		t.Errorf("%d mails under a live lease", n)
	}
	if err := d.MailSent(t.Context(), start(), out[0]); err != nil {
		t.Fatal(err)
	}
	d.nextMail(time.Time{}, false)
	if n := len(d.outbox(start().Add(24 * time.Hour))); n != 0 {
		t.Errorf("%d mails after it was sent", n)
	}
	wantKind(t, "sent twice", d.MailSent(t.Context(), start(), out[0]), fault.Conflict)
}

func mailRetried(t *testing.T, open opener) {
	d := oneMail(t, open)
	later := start().Add(time.Hour)
	if err := d.MailFailed(t.Context(), start(), d.outbox(start())[0], "421 later", &later); err != nil {
		t.Fatal(err)
	}
	d.nextMail(later, true)
	if n := len(d.outbox(later.Add(-time.Second))); n != 0 {
		t.Errorf("%d mails before their time", n)
	}
	out := d.outbox(later)
	if len(out) != 1 || out[0].Attempts != 1 {
		t.Fatalf("outbox %+v", out)
	}
	if err := d.MailFailed(t.Context(), later, out[0], "550 no such user", nil); err != nil {
		t.Fatal(err)
	}
	d.nextMail(time.Time{}, false)
	if n := len(d.outbox(later.Add(24 * time.Hour))); n != 0 {
		t.Errorf("%d mails after it was given up", n)
	}
}

func mailFenced(t *testing.T, open opener) {
	d := oneMail(t, open)
	lost := d.outbox(start())[0]
	again := d.outbox(start().Add(lease))
	if len(again) != 1 || again[0].MailID != lost.MailID || again[0].Attempts != 0 {
		t.Fatalf("after the lease %+v", again)
	}
	wantKind(t, "sent", d.MailSent(t.Context(), start(), lost), fault.Conflict)
	wantKind(t, "failed", d.MailFailed(t.Context(), start(), lost, "x", nil), fault.Conflict)
	if err := d.ReleaseAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantKind(t, "released", d.MailSent(t.Context(), start(), again[0]), fault.Conflict)
	if n := len(d.outbox(start())); n != 1 {
		t.Errorf("%d mails after their leases are void", n)
	}
}

func mailWithoutTexts(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	d.create(start(), d.draft("one"))
	if rec := l.answer(l.claimOne(start()), status(410), start()); !rec[0].Disabled || rec[0].NoRecipient {
		t.Errorf("recorded %+v", rec)
	}
	d.nextMail(time.Time{}, false)
}
