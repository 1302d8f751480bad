package console_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/console"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// mails takes what is in the outbox.
func (d *desk) mails(t *testing.T) []store.OutboxMail {
	t.Helper()
	return must(d.store.ClaimMail(t.Context(), time.Now(), "test", time.Minute, 100))(t)
}

func withMail(c *console.Config) { c.Mail = true }

// A link is mailed to whoever has the address, once for each of his tenants, and
// the answer tells nobody whether there is somebody.
func TestLinkByMail(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example", withMail)
	for _, u := range []ticket.User{
		{FirstName: "Gone", Email: "gone@desk.example", IsInactive: true},
		{FirstName: "Client", Email: "client@desk.example", UserType: "client"},
	} {
		must(d.store.AddUser(t.Context(), time.Now(), d.a.TenantID, u))(t)
	}
	b := d.browser(t)
	answers := map[string]string{}
	for _, address := range []string{"ADA@desk.example", "gone@desk.example", "client@desk.example", "nobody@desk.example"} {
		r, page := b.post("/console/sign-in/mail", url.Values{"address": {address}})
		if r.StatusCode != http.StatusOK || len(r.Header["Set-Cookie"]) > 0 {
			t.Errorf("%s: the answer is %d", address, r.StatusCode)
		}
		answers[strings.ReplaceAll(page, address, "ADDRESS")] = address
	}
	if len(answers) != 1 {
		t.Errorf("%d different answers", len(answers))
	}
	mails := d.mails(t)
	if len(mails) != 2 {
		t.Fatalf("%d mails, want one for each tenant: %+v", len(mails), mails)
	}
	for i, m := range mails {
		name, token, _ := strings.Cut(m.Text, "Lovelace ")
		if m.Recipient != "ada@desk.example" || name != "Ada " || m.Subject != []string{"Alpha", "Beta"}[i] || m.TenantID != []string{d.a.TenantID, d.b.TenantID}[i] {
			t.Errorf("the mail is %+v", m)
		}
		c := d.browser(t)
		if r, _ := c.post("/console/link", url.Values{"token": {token}}); r.StatusCode != http.StatusSeeOther {
			t.Errorf("the link answers %d", r.StatusCode)
		}
		if _, page := c.get("/console/tickets"); !strings.Contains(page, "Ada Lovelace") {
			t.Error("the link signs somebody else in")
		}
	}
}

func TestLinkByMailIsBounded(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example", withMail)
	b := d.browser(t)
	ask := func(address string) (reply, string) {
		return b.post("/console/sign-in/mail", url.Values{"address": {address}, "next": {"/console/events"}})
	}
	for _, address := range []string{"", "ada", "<script>alert(1)</script>@x", "Ada <ada@desk.example>", "a\x00@x", "\xff@x", strings.Repeat("a", 242) + "@desk.example"} {
		if r, page := ask(address); r.StatusCode != http.StatusBadRequest || !strings.Contains(page, "must be a mail address") || strings.Contains(page, "<script>alert") {
			t.Errorf("%.40q answers %d", address, r.StatusCode)
		}
	}
	if r, _ := ask(strings.Repeat("a", 241) + "@desk.example"); r.StatusCode != http.StatusOK {
		t.Errorf("an address of 254 characters answers %d", r.StatusCode)
	}
	for range 5 {
		if r, page := ask("ada@desk.example"); r.StatusCode != http.StatusOK || !strings.Contains(page, `value="/console/events"`) {
			t.Errorf("asking answers %d", r.StatusCode)
		}
	}
	if n := len(d.mails(t)); n != 6 {
		t.Errorf("5 requests made %d mails, want 3 for each of 2 tenants", n)
	}
	limited := 0
	for range 20 {
		r, page := ask("other@desk.example")
		switch {
		case r.StatusCode == http.StatusTooManyRequests && strings.Contains(page, "Too many links"):
			limited++
		case r.StatusCode != http.StatusOK:
			t.Errorf("asking answers %d", r.StatusCode)
		}
	}
	if limited != 6 {
		t.Errorf("%d of 26 requests were too many, want 6", limited)
	}
	if r, _ := b.do(http.MethodPost, "/console/sign-in/mail", "address=ada%40desk.example", "Sec-Fetch-Site", "cross-site"); r.StatusCode != http.StatusForbidden {
		t.Errorf("a form of another site answers %d", r.StatusCode)
	}
}

// Where no mail is sent nothing offers one.
func TestNoLinkWithoutMail(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	b := d.browser(t)
	if _, page := b.get("/console/sign-in"); strings.Contains(page, "sign-in/mail") || !strings.Contains(page, "console link") {
		t.Error("the page offers a mail")
	}
	if r, _ := b.post("/console/sign-in/mail", url.Values{"address": {"ada@desk.example"}}); r.StatusCode == http.StatusOK {
		t.Errorf("asking answers %d", r.StatusCode)
	}
	if n := len(d.mails(t)); n != 0 {
		t.Errorf("%d mails", n)
	}
}
