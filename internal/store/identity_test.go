package store

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

func TestIdentity(t *testing.T) {
	t.Parallel()
	exercise(t, map[string]func(*testing.T, opener){
		"bootstrap":                      bootstrap,
		"a key opens its tenant":         authenticate,
		"whatever is wrong is one error": rejections,
		"a usage limit is exact":         usageLimit,
		"a limit of the key wins":        rateLevels,
		"keys":                           keys,
		"tenants":                        tenants,
		"users":                          administerUsers,
	})
}

func bootstrap(t *testing.T, open opener) {
	s := open(t)
	b := must(s.Bootstrap(t.Context(), start(), BootstrapDraft{Tenant: "Acme", Email: "ada@acme.example", TicketPrefix: "A"}))(t)
	raw, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	var printed map[string]json.RawMessage
	if err := json.Unmarshal(raw, &printed); err != nil {
		t.Fatal(err)
	}
	want := []string{"api_key", "board_id", "client_id", "contact_id", "priorities", "statuses", "tenant_id", "user_id"}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(printed))); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	if got := slices.Sorted(maps.Keys(b.Statuses)); !slices.Equal(got, []string{"Closed", "In Progress", "Open", "Waiting on Client"}) {
		t.Errorf("statuses are %q", got)
	}
	if got := slices.Sorted(maps.Keys(b.Priorities)); !slices.Equal(got, []string{"High", "Low", "Medium", "Urgent"}) {
		t.Errorf("priorities are %q", got)
	}
	p := must(s.Authenticate(t.Context(), start(), b.APIKey))(t)
	for _, name := range AllPermissions() {
		resource, action, _ := strings.Cut(name, ":")
		if !p.Can(resource, action) {
			t.Errorf("the user may not %s", name)
		}
	}
	tk := must(s.CreateTicket(t.Context(), start(), p.Actor(), ticket.Draft{
		Title: "first", BoardID: b.BoardID, ClientID: b.ClientID, ContactNameID: &b.ContactID,
		StatusID: b.Statuses["Open"], PriorityID: b.Priorities["Low"],
	}))(t)
	if tk.Number != "A1000" || *tk.EnteredByName != "ada" {
		t.Errorf("ticket is %+v", tk)
	}
	again := must(s.Bootstrap(t.Context(), start(), BootstrapDraft{Tenant: "Acme", Email: "ada@acme.example"}))(t)
	if again.TenantID == b.TenantID || again.APIKey == b.APIKey {
		t.Error("two bootstraps share something")
	}
	_, err = s.Bootstrap(t.Context(), start(), BootstrapDraft{Tenant: " ", Email: "a@b"})
	wantKind(t, "no name", err, fault.Invalid)
	_, err = s.Bootstrap(t.Context(), start(), BootstrapDraft{Tenant: "x", Email: "nobody"})
	wantKind(t, "no address", err, fault.Invalid)
	if list := must(s.Tenants(t.Context()))(t); len(list) != 2 {
		t.Errorf("a refused bootstrap left a tenant: %+v", list)
	}
}

func authenticate(t *testing.T, open opener) {
	s := open(t)
	d, other := newDesk(t, s, "acme"), newDesk(t, s, "other")
	for _, who := range []*desk{d, other} {
		p := must(s.Authenticate(t.Context(), start(), who.rows.APIKey))(t)
		if p.TenantID != who.TenantID || p.User.UserID != who.UserID || p.Product != "psa" || !p.Can("ticket", "read") || p.Can("ticket", "fly") {
			t.Errorf("principal is %+v", p)
		}
		if diff := cmp.Diff(who.Actor, p.Actor()); diff != "" {
			t.Errorf("actor (-want +got):\n%s", diff)
		}
	}
	// A key's list cuts the user's permissions and never adds to them.
	must(s.UpdateUser(t.Context(), d.TenantID, d.UserID, func(u *ticket.User) error {
		u.Permissions = []string{"ticket:read", "ticket:update"}
		return nil
	}))(t)
	_, key, err := s.CreateKey(t.Context(), start(), d.TenantID, KeyDraft{
		UserID: strings.ToUpper(d.UserID), Name: "narrow", Permissions: []string{"ticket:read", "webhook:read"},
	})
	if err != nil {
		t.Fatal(err)
	}
	p := must(s.Authenticate(t.Context(), start(), key))(t)
	if diff := cmp.Diff(map[string]bool{"ticket:read": true}, p.Permissions); diff != "" {
		t.Errorf("permissions (-want +got):\n%s", diff)
	}
	_, none, err := s.CreateKey(t.Context(), start(), d.TenantID, KeyDraft{UserID: d.UserID, Name: "none", Permissions: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	if p := must(s.Authenticate(t.Context(), start(), none))(t); len(p.Permissions) != 0 {
		t.Errorf("an empty list leaves %v", p.Permissions)
	}
}

func rejections(t *testing.T, open opener) {
	s := open(t)
	changeKey := func(change func(*APIKey)) func(*desk) {
		return func(d *desk) {
			list := must(s.Keys(t.Context(), d.TenantID))(t)
			must(s.UpdateKey(t.Context(), start(), d.TenantID, list[0].KeyID, func(k *APIKey) error { change(k); return nil }))(t)
		}
	}
	changeUser := func(change func(*ticket.User)) func(*desk) {
		return func(d *desk) {
			must(s.UpdateUser(t.Context(), d.TenantID, d.UserID, func(u *ticket.User) error { change(u); return nil }))(t)
		}
	}
	for _, c := range []struct {
		name        string
		spoil       func(*desk)
		deactivates bool
	}{
		{"unknown", func(d *desk) { d.rows.APIKey += "x" }, false},
		{"empty", func(d *desk) { d.rows.APIKey = "" }, false},
		{"inactive", changeKey(func(k *APIKey) { k.Active = false }), true},
		{"expired", changeKey(func(k *APIKey) { k.ExpiresAt = new(start()) }), false},
		{"used up", changeKey(func(k *APIKey) { k.UsageLimit = new(int64(0)) }), true},
		{"owner inactive", changeUser(func(u *ticket.User) { u.IsInactive = true }), false},
		{"owner a client", changeUser(func(u *ticket.User) { u.UserType = "client" }), true},
		{"owner missing", func(d *desk) {
			if err := s.do(t.Context(), func(x *tx) error {
				x.moved = true
				_, err := x.exec(`delete from users where tenant_id = $1 and user_id = $2`, d.TenantID, d.UserID)
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"tenant suspended", func(d *desk) {
			must(s.UpdateTenant(t.Context(), d.TenantID, func(x *Tenant) error { x.Suspended = true; return nil }))(t)
		}, false},
	} {
		d := newDesk(t, s, strings.ReplaceAll(c.name, " ", "-"))
		must(s.Authenticate(t.Context(), start(), d.rows.APIKey))(t)
		c.spoil(d)
		_, err := s.Authenticate(t.Context(), start(), d.rows.APIKey)
		wantKind(t, c.name, err, fault.Unauthorized)
		if e, ok := errors.AsType[*fault.Error](err); ok && (e.Message != "Invalid API key" || e.Err != nil) {
			t.Errorf("%s: message is %v", c.name, e)
		}
		if list := must(s.Keys(t.Context(), d.TenantID))(t); list[0].Active == c.deactivates {
			t.Errorf("%s: active is %v", c.name, list[0].Active)
		}
	}
	d := newDesk(t, s, "late")
	changeKey(func(k *APIKey) { k.ExpiresAt = new(start().Add(time.Microsecond)) })(d)
	must(s.Authenticate(t.Context(), start(), d.rows.APIKey))(t)
}

func usageLimit(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	k, text, err := d.CreateKey(t.Context(), start(), d.TenantID, KeyDraft{UserID: d.UserID, Name: "ten", UsageLimit: new(int64(10))})
	if err != nil {
		t.Fatal(err)
	}
	var accepted atomic.Int64
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			switch _, err := d.Authenticate(t.Context(), start().Add(time.Second), text); {
			case err == nil:
				accepted.Add(1)
			case fault.KindOf(err) != fault.Unauthorized:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := accepted.Load(); n != 10 {
		t.Errorf("%d calls were accepted, the limit is 10", n)
	}
	k = must(d.Key(t.Context(), d.TenantID, k.KeyID))(t)
	if k.UsageCount != 10 || k.Active || k.LastUsedAt == nil || !k.LastUsedAt.Equal(start().Add(time.Second)) {
		t.Errorf("key is %+v", k)
	}
}

// TestUsageIsCounted runs on a fake clock: counts are written about a second
// after the first call, and what is left when the store is closed.
func TestUsageIsCounted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(context.Background(), Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		d := newDesk(t, s, "acme")
		id := must(s.Keys(t.Context(), d.TenantID))(t)[0].KeyID
		for i := range 3 {
			must(s.Authenticate(t.Context(), start().Add(time.Duration(2-i)*time.Minute), d.rows.APIKey))(t)
		}
		if k := must(s.Key(t.Context(), d.TenantID, id))(t); k.UsageCount != 0 || k.LastUsedAt != nil {
			t.Errorf("counted at once: %+v", k)
		}
		time.Sleep(2 * usageEvery)
		synctest.Wait()
		k := must(s.Key(t.Context(), d.TenantID, id))(t)
		if k.UsageCount != 3 || k.LastUsedAt == nil || !k.LastUsedAt.Equal(start().Add(2*time.Minute)) {
			t.Errorf("after the flush: %+v", k)
		}
		must(s.Authenticate(t.Context(), start(), d.rows.APIKey))(t)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if s, err = Open(context.Background(), Config{Dir: dir}); err != nil {
			t.Fatal(err)
		}
		k = must(s.Key(t.Context(), d.TenantID, id))(t)
		if k.UsageCount != 4 || !k.LastUsedAt.Equal(start().Add(2*time.Minute)) {
			t.Errorf("after closing: %+v", k)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func rateLevels(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	if p := must(d.Authenticate(t.Context(), start(), d.rows.APIKey))(t); p.Rate != (RateLimit{}) {
		t.Errorf("rate is %+v", p.Rate)
	}
	must(d.UpdateTenant(t.Context(), d.TenantID, func(x *Tenant) error {
		x.Rate = RateLimit{Enabled: new(true), MaxTokens: new(100)}
		return nil
	}))(t)
	_, text, err := d.CreateKey(t.Context(), start(), d.TenantID, KeyDraft{
		UserID: d.UserID, Name: "slow", Rate: RateLimit{MaxTokens: new(5), RefillPerMin: new(6)},
	})
	if err != nil {
		t.Fatal(err)
	}
	p := must(d.Authenticate(t.Context(), start(), text))(t)
	want := RateLimit{Enabled: new(true), MaxTokens: new(5), RefillPerMin: new(6)}
	if diff := cmp.Diff(want, p.Rate); diff != "" {
		t.Errorf("rate (-want +got):\n%s", diff)
	}
}

func keys(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	made, text, err := d.CreateKey(t.Context(), start(), d.TenantID, KeyDraft{
		UserID: d.UserID, Name: "ci", Permissions: []string{"ticket:read"}, ExpiresAt: new(start().Add(time.Hour)),
		UsageLimit: new(int64(7)), Rate: RateLimit{Enabled: new(false)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(made, must(d.Key(t.Context(), d.TenantID, made.KeyID))(t)); diff != "" {
		t.Errorf("made and read differ (-made +read):\n%s", diff)
	}
	if !strings.HasPrefix(text, made.Prefix) || len(made.Prefix) >= len(text)/2 {
		t.Errorf("prefix is %d of %d characters", len(made.Prefix), len(text))
	}
	next := must(d.UpdateKey(t.Context(), start(), d.TenantID, made.KeyID, func(k *APIKey) error {
		k.Name, k.KeyID, k.UserID, k.UsageLimit = "cd", NewID(), NewID(), nil
		return nil
	}))(t)
	made.Name, made.UsageLimit = "cd", nil
	if diff := cmp.Diff(made, next); diff != "" {
		t.Errorf("updated (-want +got):\n%s", diff)
	}
	client := must(d.AddUser(t.Context(), start(), d.TenantID, ticket.User{FirstName: "C", Email: "c@x", UserType: "client"}))(t)
	for name, draft := range map[string]KeyDraft{
		"no name":            {UserID: d.UserID},
		"client user":        {UserID: client.UserID, Name: "x"},
		"unknown permission": {UserID: d.UserID, Name: "x", Permissions: []string{"ticket:fly"}},
		"negative limit":     {UserID: d.UserID, Name: "x", UsageLimit: new(int64(-1))},
		"empty bucket":       {UserID: d.UserID, Name: "x", Rate: RateLimit{MaxTokens: new(0)}},
	} {
		_, _, err := d.CreateKey(t.Context(), start(), d.TenantID, draft)
		wantKind(t, name, err, fault.Invalid)
	}
	_, _, err = d.CreateKey(t.Context(), start(), d.TenantID, KeyDraft{UserID: NewID(), Name: "x"})
	wantKind(t, "unknown user", err, fault.BadReference)
	if err := d.DeleteKey(t.Context(), d.TenantID, made.KeyID); err != nil {
		t.Fatal(err)
	}
	wantKind(t, "deleting again", d.DeleteKey(t.Context(), d.TenantID, made.KeyID), fault.NotFound)
	_, err = d.Authenticate(t.Context(), start(), text)
	wantKind(t, "a deleted key", err, fault.Unauthorized)
	if list := must(d.Keys(t.Context(), d.TenantID))(t); len(list) != 1 || list[0].Name != "bootstrap" {
		t.Errorf("keys are %+v", list)
	}
}

func tenants(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	next := must(d.UpdateTenant(t.Context(), d.TenantID, func(x *Tenant) error {
		x.Product, x.TicketPrefix, x.TenantID = "algadesk", "", NewID()
		return nil
	}))(t)
	if list := must(d.Tenants(t.Context()))(t); len(list) != 1 || !cmp.Equal(list[0], next) || next.TenantID != d.TenantID {
		t.Errorf("tenants are %+v, want %+v", list, next)
	}
	if p := must(d.Authenticate(t.Context(), start(), d.rows.APIKey))(t); p.Product != "algadesk" {
		t.Errorf("product is %q", p.Product)
	}
	if tk := d.create(start(), d.draft("plain")); tk.Number != "1000" {
		t.Errorf("number is %q", tk.Number)
	}
	_, err := d.UpdateTenant(t.Context(), d.TenantID, func(x *Tenant) error { x.Product = "crm"; return nil })
	wantKind(t, "an unknown product", err, fault.Invalid)
	_, err = d.UpdateTenant(t.Context(), d.TenantID, func(x *Tenant) error { x.TicketPrefix = "T1"; return nil })
	wantKind(t, "a prefix that runs into the number", err, fault.Invalid)
	_, err = d.UpdateTenant(t.Context(), NewID(), func(*Tenant) error { return nil })
	wantKind(t, "an unknown tenant", err, fault.NotFound)
	_, err = d.AddUser(t.Context(), start(), NewID(), ticket.User{Email: "a@b"})
	wantKind(t, "a user of nobody", err, fault.NotFound)
}

func administerUsers(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	made := must(d.AddUser(t.Context(), start(), d.TenantID, ticket.User{LastName: "Bo", Email: "bo@x", Permissions: []string{"ticket:read"}}))(t)
	if read := must(d.User(t.Context(), d.TenantID, made.UserID))(t); !cmp.Equal(made, read) || *read.DisplayName() != "Bo" || read.UserType != "internal" {
		t.Errorf("made %+v, read %+v", made, read)
	}
	next := must(d.UpdateUser(t.Context(), d.TenantID, made.UserID, func(u *ticket.User) error {
		u.FirstName, u.IsInactive, u.UserID = "Al", true, NewID()
		return nil
	}))(t)
	if read := must(d.User(t.Context(), d.TenantID, made.UserID))(t); !cmp.Equal(next, read) || *read.DisplayName() != "Al Bo" {
		t.Errorf("updated %+v, read %+v", next, read)
	}
	p := must(d.AddPriority(t.Context(), start(), d.TenantID, ticket.Priority{Name: "Now", OrderNumber: 9}))(t)
	if read := must(d.Priority(t.Context(), d.TenantID, p.PriorityID))(t); !cmp.Equal(p, read) {
		t.Errorf("made %+v, read %+v", p, read)
	}
	for name, u := range map[string]ticket.User{
		"no address":         {Email: "x"},
		"unknown type":       {Email: "a@b", UserType: "robot"},
		"unknown permission": {Email: "a@b", Permissions: []string{"*"}},
	} {
		_, err := d.AddUser(t.Context(), start(), d.TenantID, u)
		wantKind(t, name, err, fault.Invalid)
	}
}
