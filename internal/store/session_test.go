package store

import (
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
