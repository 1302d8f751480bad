package console_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/console"
	"github.com/ticketwire/ticketwire/internal/store"
)

// What changes something asks for the right that the API asks for it, and a page
// for the right to read it or for that of its form.
func TestRoutesAskForTheirRight(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"GET /console": "", "GET /console/{$}": "",
		"GET /console/overview": "webhook:analytics", "GET /console/overview/live": "webhook:analytics",

		"GET /console/tickets/new": "ticket:create", "POST /console/tickets/new": "ticket:create",
		"POST /msp/tickets/{id}": "ticket:update", "POST /msp/tickets/{id}/comments": "ticket:update",
		"POST /msp/tickets/{id}/team": "ticket:update", "POST /msp/tickets/{id}/team/remove": "ticket:update",
		"POST /msp/tickets/{id}/agents": "ticket:update", "POST /msp/tickets/{id}/agents/{user}/remove": "ticket:update",
		"POST /msp/tickets/{id}/attributes": "ticket:update", "POST /msp/tickets/{id}/tags/{tag}/remove": "tag:delete",
		"GET /msp/tickets/{id}/delete": "ticket:delete", "POST /msp/tickets/{id}/delete": "ticket:delete",

		"GET /console/webhooks/new": "webhook:create", "POST /console/webhooks/new": "webhook:create",
		"GET /console/webhooks/{id}/edit": "webhook:update", "POST /console/webhooks/{id}/edit": "webhook:update",
		"POST /console/webhooks/{id}/pause": "webhook:update", "POST /console/webhooks/{id}/enable": "webhook:update",
		"POST /console/webhooks/{id}/test": "webhook:test", "POST /console/webhooks/{id}/delete": "webhook:delete",
		"POST /console/webhooks/{id}/rotate": "webhook:manage_security", "POST /console/webhooks/{id}/promote": "webhook:manage_security",
		"POST /console/webhooks/preview":    "webhook:read", // it shows what the feed shows
		"GET /console/webhooks/{id}/replay": "webhook:retry", "POST /console/webhooks/{id}/replay": "webhook:retry",
		"POST /console/webhooks/{id}/replays/{replay}/cancel": "webhook:retry",
		"POST /console/deliveries/{id}/resend":                "webhook:retry", "POST /console/deliveries/resend": "webhook:retry",
		"POST /console/cutover": "webhook:update", "POST /console/cutover/{id}/delete": "webhook:update",

		"GET /console/keys/new": "api_key:create", "POST /console/keys/new": "api_key:create",
		"GET /console/keys/{id}/edit": "api_key:update", "POST /console/keys/{id}/edit": "api_key:update",
		"POST /console/keys/{id}/revoke": "api_key:delete",
	}
	for _, page := range []string{"tickets", "tickets/names/{of}"} {
		want["GET /console/"+page] = "ticket:read"
	}
	for _, page := range []string{"", "/timeline"} {
		want["GET /msp/tickets/{id}"+page] = "ticket:read"
	}
	for _, page := range []string{
		"webhooks", "webhooks/{id}", "webhooks/{id}/replays/{replay}", "webhooks/{id}/replays/{replay}/progress", "deliveries",
		"deliveries/{id}", "deliveries/{id}/attempts", "deliveries/resend", "events", "events/live", "events/{id}", "cutover", "cutover/{id}",
	} {
		want["GET /console/"+page] = "webhook:read"
	}
	want["GET /console/keys"] = "api_key:read"
	got := map[string]string{}
	for _, rt := range newDesk(t, "http://desk.example").srv.Routes() {
		got[rt.Pattern] = strings.Trim(rt.Resource+":"+rt.Action, ":")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the rights differ (-want +got):\n%s", diff)
	}
}

// Who has come with a key that may do little makes no key that may do more, however
// much his user may do.
func TestKeysHandOnNoMore(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	_, text := d.newKey(t, store.KeyDraft{Name: "Keys only", Permissions: []string{"api_key:read", "api_key:create", "api_key:delete", "ticket:read"}})
	b := d.signedIn(t, text)
	_, page := b.get("/console/keys/new")
	if !strings.Contains(page, `value="ticket:read"`) || strings.Contains(page, `value="ticket:delete"`) || strings.Contains(page, `value="webhook:`) {
		t.Error("the form offers other rights than those of the visitor")
	}
	if r, page := b.post("/console/keys/new", url.Values{"name": {"More"}, "mode": {"some"}, "permissions": {"ticket:read", "ticket:delete"}}); r.StatusCode != http.StatusForbidden || !strings.Contains(page, "Cannot grant ticket:delete") {
		t.Errorf("granting more answers %d", r.StatusCode)
	}
	made := func(form url.Values) store.APIKey {
		t.Helper()
		if r, page := b.post("/console/keys/new", form); r.StatusCode != http.StatusOK || !strings.Contains(page, "tw_") {
			t.Fatalf("%v answers %d", form, r.StatusCode)
		}
		list := must(d.store.Keys(t.Context(), d.a.TenantID))(t)
		return list[len(list)-1]
	}
	// All is all that the visitor may do; a box that was ticked before does not count.
	k := made(url.Values{"name": {"All"}, "mode": {"all"}, "permissions": {"ticket:read"}})
	if want := []string{"api_key:create", "api_key:delete", "api_key:read", "ticket:read"}; !slices.Equal(k.Permissions, want) || k.UserID != d.a.UserID {
		t.Errorf("all is %v, want %v", k.Permissions, want)
	}
	if k = made(url.Values{"name": {strings.Repeat("ä", 255)}, "mode": {"some"}, "expires_at": {"2999-01-01"}}); k.Permissions == nil || len(k.Permissions) > 0 {
		t.Errorf("nothing ticked is %v", k.Permissions)
	}
	if want := time.Date(2999, 1, 2, 0, 0, 0, 0, time.UTC).Add(-time.Microsecond); k.ExpiresAt == nil || !k.ExpiresAt.Equal(want) {
		t.Errorf("the last day ends at %v, want %s", k.ExpiresAt, want)
	}
	// Nobody revokes the key that he has come with, and is not offered to.
	_, page = b.get("/console/keys")
	own := must(d.store.Keys(t.Context(), d.a.TenantID))(t)[1].KeyID
	if r, _ := b.post("/console/keys/"+own+"/revoke", nil); r.StatusCode != http.StatusConflict || strings.Contains(page, "/"+own+"/revoke") {
		t.Errorf("revoking one's own key answers %d", r.StatusCode)
	}
	if r, _ := b.post("/console/keys/"+k.KeyID+"/revoke", nil); r.StatusCode != http.StatusSeeOther {
		t.Errorf("revoking another key answers %d", r.StatusCode)
	}
	if _, page = b.get("/console/keys?done=revoked"); strings.Contains(page, k.KeyID) || !strings.Contains(page, "The key was revoked.") {
		t.Error("a key that was revoked is in the list, or it is not said that it was")
	}
	if strings.Index(page, "<bdi>All</bdi>") > strings.Index(page, "<bdi>Keys only</bdi>") {
		t.Error("the newest key does not come first")
	}
}

// A page that panics is an error like another one: the visitor is told nothing of
// what went wrong, and the log has it.
func TestPanicIsAPage(t *testing.T) {
	t.Parallel()
	var logged bytes.Buffer
	d := newDesk(t, "http://desk.example", func(c *console.Config) {
		c.Log = slog.New(slog.NewTextHandler(&logged, nil))
		c.Remaining = func(context.Context, time.Time, string, []store.APIKey) (map[string]store.Remaining, error) {
			panic("the password is hunter2")
		}
	})
	r, page := d.signedIn(t, d.a.APIKey).get("/console/keys")
	if r.StatusCode != http.StatusInternalServerError || !strings.Contains(page, "The log of the server says what") || strings.Contains(page, "hunter2") {
		t.Errorf("a panic answers %d: %s", r.StatusCode, page)
	}
	d.srv.Close()
	if line := logged.String(); !strings.Contains(line, `level=ERROR msg=console route="GET /console/keys" status=500`) || !strings.Contains(line, "panic: the password is hunter2") {
		t.Errorf("the log has %s", line)
	}
}

// The first page is one that the visitor may see, and what is no page says so to
// those who are signed in alone.
func TestWhereAVisitorComes(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	for permission, want := range map[string]string{"webhook:analytics": "/console/overview", "ticket:read": "/console/tickets", "api_key:read": "/console/keys", "ticket:create": ""} {
		b := d.signedIn(t, d.key(t, permission))
		if r, _ := b.get("/console/"); r.Header.Get("Location") != want || (want == "") != (r.StatusCode == http.StatusForbidden) {
			t.Errorf("who may %s comes to %q with %d", permission, r.Header.Get("Location"), r.StatusCode)
		}
	}
	if r, _ := d.signedIn(t, d.a.APIKey).get("/console/nowhere"); r.StatusCode != http.StatusNotFound {
		t.Errorf("what is no page answers %d", r.StatusCode)
	}
	b := d.browser(t)
	if r, _ := b.get("/console/nowhere"); r.Header.Get("Location") != "/console/sign-in?next=%2Fconsole%2Fnowhere" {
		t.Errorf("without a session it answers %d and leads to %q", r.StatusCode, r.Header.Get("Location"))
	}
	// A form is not sent again by itself.
	if r, _ := b.post("/console/keys/new", nil); r.Header.Get("Location") != "/console/sign-in" {
		t.Errorf("a form without a session leads to %q", r.Header.Get("Location"))
	}
	for _, path := range []string{"/console/sign-in?next=/console/events", "/console/sign-in"} {
		answer := func() (reply, string) { return b.get(path) }
		if !strings.Contains(path, "?") {
			answer = func() (reply, string) {
				return b.post(path, url.Values{"key": {"wrong"}, "next": {"/console/events"}})
			}
		}
		if _, page := answer(); !strings.Contains(page, `name="next" value="/console/events"`) {
			t.Errorf("%s has forgotten where to go", path)
		}
	}
	if r, _ := b.get("/console/static/console.css"); r.StatusCode != http.StatusOK || r.Header.Get("Cache-Control") != "public, max-age=3600" {
		t.Errorf("a style answers %d, to be kept: %q", r.StatusCode, r.Header.Get("Cache-Control"))
	}
}
