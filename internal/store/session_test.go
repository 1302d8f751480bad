package store

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

func TestSessions(t *testing.T) {
	t.Parallel()
	exercise(t, map[string]func(*testing.T, opener){
		"key":      sessionOfKey,
		"link":     sessionOfLink,
		"ends":     sessionEnds,
		"upkeep":   sessionsAreSwept,
		"no mixup": tokensOfOneKind,
	})
}

func sessionOfKey(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	k, text, err := d.CreateKey(t.Context(), start(), d.TenantID, KeyDraft{UserID: d.UserID, Name: "x", Permissions: []string{"ticket:read"}})
	if err != nil {
		t.Fatal(err)
	}
	token := must(d.SignIn(t.Context(), start(), text))(t)
	p := must(d.Session(t.Context(), start().Add(SessionLife-time.Second), token))(t)
	if p.KeyID != k.KeyID || p.TenantID != d.TenantID || p.User.UserID != d.UserID || !p.Can("ticket", "read") || p.Can("ticket", "update") {
		t.Errorf("the session is that of %+v", p)
	}
	_, err = d.Session(t.Context(), start().Add(SessionLife), token)
	wantKind(t, "an old session", err, fault.Unauthorized)
	_, err = d.SignIn(t.Context(), start(), "wrong")
	wantKind(t, "a wrong key", err, fault.Unauthorized)
}

func sessionOfLink(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	link := must(d.NewLink(t.Context(), start(), d.TenantID, d.UserID))(t)
	token := must(d.UseLink(t.Context(), start().Add(LinkLife-time.Second), link))(t)
	p := must(d.Session(t.Context(), start(), token))(t)
	if p.KeyID != "" || len(p.Permissions) != len(AllPermissions()) {
		t.Errorf("the session is that of key %q with %d permissions", p.KeyID, len(p.Permissions))
	}
	_, err := d.UseLink(t.Context(), start(), link)
	wantKind(t, "a used link", err, fault.Unauthorized)
	old := must(d.NewLink(t.Context(), start(), d.TenantID, d.UserID))(t)
	_, err = d.UseLink(t.Context(), start().Add(LinkLife), old)
	wantKind(t, "an old link", err, fault.Unauthorized)
	other := newDesk(t, d.Store, "other")
	_, err = d.NewLink(t.Context(), start(), d.TenantID, other.UserID)
	wantKind(t, "a link for a user of another tenant", err, fault.NotFound)
	client := must(d.AddUser(t.Context(), start(), d.TenantID, ticket.User{FirstName: "C", Email: "c@x", UserType: "client"}))(t)
	_, err = d.NewLink(t.Context(), start(), d.TenantID, client.UserID)
	wantKind(t, "a link for a client", err, fault.Invalid)
}

// sessionEnds ends what a session stands on, each in its own way.
func sessionEnds(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	ctx := t.Context()
	for name, end := range map[string]func(k APIKey, token string) error{
		"signed out":  func(_ APIKey, token string) error { return d.SignOut(ctx, token) },
		"key deleted": func(k APIKey, _ string) error { return d.DeleteKey(ctx, d.TenantID, k.KeyID) },
		"key switched off": func(k APIKey, _ string) error {
			_, err := d.UpdateKey(ctx, start(), d.TenantID, k.KeyID, func(k *APIKey) error { k.Active = false; return nil })
			return err
		},
		"key expired": func(k APIKey, _ string) error {
			_, err := d.UpdateKey(ctx, start(), d.TenantID, k.KeyID, func(k *APIKey) error { k.ExpiresAt = new(start()); return nil })
			return err
		},
		"user inactive": func(k APIKey, _ string) error {
			_, err := d.UpdateUser(ctx, d.TenantID, k.UserID, func(u *ticket.User) error { u.IsInactive = true; return nil })
			return err
		},
		"user a client": func(k APIKey, _ string) error {
			_, err := d.UpdateUser(ctx, d.TenantID, k.UserID, func(u *ticket.User) error { u.UserType = "client"; return nil })
			return err
		},
	} {
		u := must(d.AddUser(ctx, start(), d.TenantID, ticket.User{FirstName: "U", Email: name + "@x", Permissions: []string{"ticket:read"}}))(t)
		k, text, err := d.CreateKey(ctx, start(), d.TenantID, KeyDraft{UserID: u.UserID, Name: name})
		if err != nil {
			t.Fatal(err)
		}
		token := must(d.SignIn(ctx, start(), text))(t)
		must(d.Session(ctx, start(), token))(t)
		if err := end(k, token); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_, err = d.Session(ctx, start(), token)
		wantKind(t, name, err, fault.Unauthorized)
	}
	token := must(d.UseLink(ctx, start(), must(d.NewLink(ctx, start(), d.TenantID, d.UserID))(t)))(t)
	must(d.UpdateTenant(ctx, d.TenantID, func(x *Tenant) error { x.Suspended = true; return nil }))(t)
	_, err := d.Session(ctx, start(), token)
	wantKind(t, "tenant suspended", err, fault.Unauthorized)
}

func sessionsAreSwept(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	must(d.NewLink(t.Context(), start(), d.TenantID, d.UserID))(t)
	token := must(d.SignIn(t.Context(), start(), d.rows.APIKey))(t)
	if n := d.sweep(start().Add(LinkLife)); n != 1 {
		t.Errorf("%d rows deleted, want the link", n)
	}
	must(d.Session(t.Context(), start(), token))(t)
	if n := d.sweep(start().Add(SessionLife)); n != 1 {
		t.Errorf("%d rows deleted, want the session", n)
	}
}

func tokensOfOneKind(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	link := must(d.NewLink(t.Context(), start(), d.TenantID, d.UserID))(t)
	_, err := d.Session(t.Context(), start(), link)
	wantKind(t, "a link as a session", err, fault.Unauthorized)
	token := must(d.SignIn(t.Context(), start(), d.rows.APIKey))(t)
	_, err = d.UseLink(t.Context(), start(), token)
	wantKind(t, "a session as a link", err, fault.Unauthorized)
	_, err = d.Session(t.Context(), start(), d.rows.APIKey)
	wantKind(t, "a key as a session", err, fault.Unauthorized)
}

func TestLinkMails(t *testing.T) {
	t.Parallel()
	exercise(t, map[string]func(*testing.T, opener){"sealed": linkIsSealed, "bounds": linkBounds})
}

func withLinks(c *Config) {
	c.Mails.Link = func(n LinkNotice) MailText {
		return MailText{Subject: n.TenantName, Text: "text " + n.Token, HTML: "page " + n.Token}
	}
}

// Who reads the database, or a mail that is late, gets no session out of it.
func linkIsSealed(t *testing.T, open opener) {
	s := open(t, withLinks)
	d, ctx := newDesk(t, s, "acme"), t.Context()
	if err := s.MailLinks(ctx, start(), "ACME@desk.example", "127.0.0.1/32"); err != nil {
		t.Fatal(err)
	}
	var text, page string
	if err := s.reader(ctx).row(`select text_body, html_body from mail_outbox`).Scan(&text, &page); err != nil {
		t.Fatal(err)
	}
	mails := must(s.ClaimMail(ctx, start(), "me", time.Minute, 10))(t)
	if len(mails) != 1 || mails[0].Recipient != "acme@desk.example" || !mails[0].ExpiresAt.Equal(start().Add(LinkLife)) {
		t.Fatalf("claimed %+v", mails)
	}
	token := strings.TrimPrefix(mails[0].Text, "text ")
	if mails[0].HTML != "page "+token || strings.Contains(text+page, token) {
		t.Errorf("the outbox has %q and %q of %+v", text, page, mails[0])
	}
	session := must(s.UseLink(ctx, start().Add(LinkLife-time.Second), token))(t)
	if who := must(s.Session(ctx, start().Add(LinkLife), session))(t); who.User.UserID != d.UserID {
		t.Errorf("it is the session of %+v", who)
	}
	// What does not open any more is over, and holds up nothing.
	if err := s.do(ctx, func(t *tx) error {
		return t.change("spoil", `update mail_outbox set text_body = 'damaged', lease_owner = null, lease_until = null`)
	}); err != nil {
		t.Fatal(err)
	}
	mails = must(s.ClaimMail(ctx, start(), "me", time.Minute, 10))(t)
	if len(mails) != 1 || mails[0].ExpiresAt.After(start()) {
		t.Errorf("claimed %+v", mails)
	}
}

func linkBounds(t *testing.T, open opener) {
	s := open(t, withLinks)
	d, ctx := newDesk(t, s, "acme"), t.Context()
	suspended := newDesk(t, s, "suspended")
	for _, u := range []ticket.User{
		{FirstName: "Second", Email: "acme@desk.example"},
		{FirstName: "Gone", Email: "gone@x", IsInactive: true},
		{FirstName: "Client", Email: "client@x", UserType: "client"},
	} {
		must(s.AddUser(ctx, start().Add(time.Second), d.TenantID, u))(t)
	}
	must(s.UpdateTenant(ctx, suspended.TenantID, func(x *Tenant) error { x.Suspended = true; return nil }))(t)
	outbox := func() (n int) {
		t.Helper()
		if err := s.reader(ctx).row(`select count(*) from mail_outbox`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, address := range []string{"suspended@desk.example", "gone@x", "client@x", "nobody@x", "%", ""} {
		if err := s.MailLinks(ctx, start(), address, "a"); err != nil {
			t.Error(err)
		}
	}
	if n := outbox(); n != 0 {
		t.Errorf("%d mails to nobody", n)
	}
	for i := range linksPerAddress + 2 {
		if err := s.MailLinks(ctx, start(), "acme@desk.example", fmt.Sprint("sender ", i)); err != nil {
			t.Error(err)
		}
	}
	if n := outbox(); n != linksPerAddress {
		t.Errorf("%d mails, want %d", n, linksPerAddress)
	}
	// What was too much does not make the pause longer.
	later := start().Add(LinkLife)
	if err := s.MailLinks(ctx, later, "acme@desk.example", "b"); err != nil || outbox() != linksPerAddress+1 {
		t.Errorf("after the pause: %v, %d mails", err, outbox())
	}
	var asked error
	n := 0
	for ; asked == nil && n < 100; n++ {
		asked = s.MailLinks(ctx, later, fmt.Sprint(n, "@x"), "c")
	}
	wantKind(t, "a sender who asks and asks", asked, fault.RateLimited)
	if n != linksPerSender+1 {
		t.Errorf("refused at request %d", n)
	}
	if err := s.MailLinks(ctx, later, "x@x", "d"); err != nil {
		t.Errorf("another sender: %v", err)
	}
	if _, _, err := s.Sweep(ctx, later.Add(LinkLife), 1000); err != nil {
		t.Fatal(err)
	}
	left := 0
	if err := s.reader(ctx).row(`select count(*) from link_requests`).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d requests are kept, %v", left, err)
	}
}
