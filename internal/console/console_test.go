package console_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ticketwire/ticketwire/internal/console"
	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/dispatch"
	"github.com/ticketwire/ticketwire/internal/egress"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/ticket"
	"github.com/ticketwire/ticketwire/internal/vault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what happens in the background. It is only
// ever spent in full by a test that fails.
const patience = 20 * time.Second

// desk is the console on a real store and a running engine.
type desk struct {
	url   string
	dir   string // of the store
	store *store.Store
	srv   *console.Server
	a, b  store.Bootstrapped
	who   ticket.Actor
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newDesk(t *testing.T, publicURL string, change ...func(*console.Config)) *desk {
	t.Helper()
	dir := t.TempDir()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	safe := must(vault.Open(filepath.Join(dir, "secret.key")))(t)
	st := must(store.Open(t.Context(), store.Config{Dir: dir, Vault: safe, Policy: delivery.DefaultPolicy(), PublicURL: publicURL, Mails: store.Mails{Link: linkText}}))(t)
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	targets := egress.Config{AllowTargets: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	client := egress.New(targets)
	t.Cleanup(client.Close)
	engine := dispatch.New(dispatch.Config{Store: st, Client: client, Policy: delivery.DefaultPolicy(), Now: time.Now, Log: log})
	if err := engine.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		engine.Stop(ctx)
	})
	d := &desk{dir: dir, store: st}
	cfg := console.Config{Store: st, Engine: engine, Egress: targets, PublicURL: publicURL, Policy: delivery.DefaultPolicy(), Now: time.Now, Log: log}
	for _, c := range change {
		c(&cfg)
	}
	d.srv = console.New(cfg)
	server := httptest.NewServer(d.srv)
	t.Cleanup(server.Close)
	t.Cleanup(d.srv.Close) // before the server waits for its connections
	d.url = server.URL
	for i, into := range []*store.Bootstrapped{&d.a, &d.b} {
		*into = must(st.Bootstrap(t.Context(), time.Now(), store.BootstrapDraft{
			Tenant: []string{"Alpha", "Beta"}[i], Email: "ada@desk.example", FirstName: "Ada", LastName: "Lovelace",
		}))(t)
	}
	d.who = ticket.Actor{TenantID: d.a.TenantID, UserID: d.a.UserID}
	return d
}

// linkText is a mail with a link, as short as it can be.
func linkText(n store.LinkNotice) store.MailText {
	return store.MailText{Subject: n.TenantName, Text: n.UserName + " " + n.Token}
}

// browser keeps cookies and follows no redirects.
type browser struct {
	t    *testing.T
	base string
	c    *http.Client
}

func (d *desk) browser(t *testing.T) *browser {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &browser{t, d.url, &http.Client{
		Jar: must(cookiejar.New(nil))(t), Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// signedIn is a browser whose visitor came with a key.
func (d *desk) signedIn(t *testing.T, key string) *browser {
	t.Helper()
	b := d.browser(t)
	if r, _ := b.post("/console/sign-in", url.Values{"key": {key}}); r.StatusCode != http.StatusSeeOther {
		t.Fatalf("signing in answers %d", r.StatusCode)
	}
	return b
}

// key is an API key of tenant a with exactly these permissions.
func (d *desk) key(t *testing.T, permissions ...string) string {
	t.Helper()
	u := must(d.store.AddUser(t.Context(), time.Now(), d.a.TenantID, ticket.User{
		FirstName: "Uma", LastName: "User", Email: store.NewID() + "@users.example", Permissions: permissions,
	}))(t)
	_, text, err := d.store.CreateKey(t.Context(), time.Now(), d.a.TenantID, store.KeyDraft{UserID: u.UserID, Name: "test"})
	return must(text, err)(t)
}

// reply is an answer whose body was read.
type reply struct {
	StatusCode int
	Header     http.Header
}

func (b *browser) do(method, path, body string, header ...string) (reply, string) {
	b.t.Helper()
	req := must(http.NewRequestWithContext(b.t.Context(), method, b.base+path, strings.NewReader(body)))(b.t)
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := b.c.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	return reply{resp.StatusCode, resp.Header}, string(must(io.ReadAll(resp.Body))(b.t))
}

func (b *browser) get(path string) (reply, string) { return b.do(http.MethodGet, path, "") }

func (b *browser) post(path string, form url.Values) (reply, string) {
	return b.do(http.MethodPost, path, form.Encode())
}

func TestNobodyIsLetIn(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	b := d.browser(t)
	for _, rt := range d.srv.Routes() {
		method, path, _ := strings.Cut(rt.Pattern, " ")
		path = strings.NewReplacer("{$}", "", "{id}", d.a.UserID, "{replay}", "x").Replace(path)
		r, _ := b.do(method, path, "")
		if to := r.Header.Get("Location"); r.StatusCode != http.StatusSeeOther || !strings.HasPrefix(to, "/console/sign-in") {
			t.Errorf("%s answers %d and leads to %q without a session", rt.Pattern, r.StatusCode, to)
		}
	}
	r, _ := b.get("/msp/tickets/TKT-1000?x=1")
	if to := r.Header.Get("Location"); to != "/console/sign-in?next=%2Fmsp%2Ftickets%2FTKT-1000%3Fx%3D1" {
		t.Errorf("a deep link leads to %q", to)
	}
	if r, _ := b.do(http.MethodGet, "/console/overview", "", "Hx-Request", "true"); r.StatusCode != http.StatusUnauthorized || r.Header.Get("Hx-Redirect") == "" {
		t.Errorf("a part of a page answers %d", r.StatusCode)
	}
}

// Every right but the one that a route asks for opens nothing.
func TestRightsAreAskedFor(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	for _, rt := range d.srv.Routes() {
		if rt.Resource == "" {
			continue
		}
		var others []string
		for _, p := range store.AllPermissions() {
			if p != rt.Resource+":"+rt.Action {
				others = append(others, p)
			}
		}
		method, path, _ := strings.Cut(rt.Pattern, " ")
		path = strings.NewReplacer("{$}", "", "{id}", d.a.UserID, "{replay}", "x").Replace(path)
		if strings.HasSuffix(path, "/live") {
			continue // its page has the same right
		}
		if r, _ := d.signedIn(t, d.key(t, others...)).do(method, path, ""); r.StatusCode != http.StatusForbidden {
			t.Errorf("%s answers %d to who has every right but %s:%s", rt.Pattern, r.StatusCode, rt.Resource, rt.Action)
		}
	}
	_, page := d.signedIn(t, d.key(t, "ticket:read")).get("/console/tickets")
	for _, missing := range []string{"New ticket", "/console/webhooks", "/console/keys", "/console/overview"} {
		if strings.Contains(page, missing) {
			t.Errorf("who may only read tickets is offered %q", missing)
		}
	}
	must(d.store.UpdateTenant(t.Context(), d.b.TenantID, func(x *store.Tenant) error { x.Product = "algadesk"; return nil }))(t)
	if r, _ := d.signedIn(t, d.b.APIKey).get("/console/webhooks"); r.StatusCode != http.StatusForbidden {
		t.Errorf("a product without webhooks shows them: %d", r.StatusCode)
	}
}

func TestOtherSitesAreRefused(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	b := d.signedIn(t, d.a.APIKey)
	for _, header := range [][]string{
		{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"},
	} {
		if r, _ := b.do(http.MethodPost, "/console/tickets/new", "title=x", header...); r.StatusCode != http.StatusForbidden {
			t.Errorf("a form with %v answers %d", header, r.StatusCode)
		}
	}
	r, page := b.get("/console/tickets")
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'", "X-Content-Type-Options": "nosniff",
		"Referrer-Policy": "same-origin", "Cache-Control": "no-store", "Cross-Origin-Opener-Policy": "same-origin",
	} {
		if got := r.Header.Get(name); !strings.HasPrefix(got, want) {
			t.Errorf("%s is %q", name, got)
		}
	}
	csp := r.Header.Get("Content-Security-Policy")
	if !strings.Contains(csp, "form-action 'self'; frame-ancestors 'none'; base-uri 'none'") || strings.Contains(csp, "unsafe") {
		t.Errorf("the policy lets a page be framed, a form lead elsewhere, or scripts stand in it: %s", csp)
	}
	if regexp.MustCompile(`(?i)<style|\sstyle=|\son[a-z]+=|<script>`).MatchString(page) {
		t.Error("there is a style or a script in the page")
	}
	for _, next := range []string{"https://evil.example", "//evil.example", "/\\evil.example", "/console/\r\nX: y", "/console/\t", "/console/\\evil.example", "/api/v1/tickets", "javascript:x"} {
		if r, _ := b.get("/console/sign-in?next=" + url.QueryEscape(next)); r.Header.Get("Location") != "/console/" {
			t.Errorf("next=%q leads to %q", next, r.Header.Get("Location"))
		}
	}
}

func TestCookie(t *testing.T) {
	t.Parallel()
	for base, want := range map[string]string{
		"http://desk.example":  "ticketwire-session=",
		"https://desk.example": "__Host-ticketwire-session=",
	} {
		d := newDesk(t, base)
		r, _ := d.browser(t).post("/console/sign-in", url.Values{"key": {" " + d.a.APIKey + "\n"}, "next": {"/msp/tickets/TKT-1"}})
		c := r.Header.Get("Set-Cookie")
		secure := strings.Contains(c, "; Secure")
		if !strings.HasPrefix(c, want) || !strings.Contains(c, "; Max-Age=43200;") || !strings.Contains(c, "HttpOnly") || !strings.Contains(c, "SameSite=Lax") || secure != strings.HasPrefix(base, "https") {
			t.Errorf("%s: the cookie is %q", base, c)
		}
		if r.Header.Get("Location") != "/msp/tickets/TKT-1" {
			t.Errorf("signing in leads to %q", r.Header.Get("Location"))
		}
		if r, page := d.browser(t).post("/console/sign-in", url.Values{"key": {"<b>wrong</b>"}}); r.StatusCode != http.StatusUnauthorized || strings.Contains(page, "<b>wrong") {
			t.Errorf("a wrong key answers %d", r.StatusCode)
		}
	}
}

// Programs that look into mails open links; that must not use them up.
func TestLinkIsUsedByPressing(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	link := must(d.store.NewLink(t.Context(), time.Now(), d.a.TenantID, d.a.UserID))(t)
	b := d.browser(t)
	for range 2 {
		if r, page := b.get("/console/link?token=" + link); r.StatusCode != http.StatusOK || !strings.Contains(page, link) {
			t.Fatalf("the link answers %d", r.StatusCode)
		}
	}
	if r, _ := b.post("/console/link", url.Values{"token": {link}}); r.StatusCode != http.StatusSeeOther {
		t.Fatalf("pressing answers %d", r.StatusCode)
	}
	if r, _ := b.get("/console/tickets"); r.StatusCode != http.StatusOK {
		t.Errorf("the session answers %d", r.StatusCode)
	}
	if r, page := d.browser(t).post("/console/link", url.Values{"token": {link}}); r.StatusCode != http.StatusUnauthorized || !strings.Contains(page, "used already") {
		t.Errorf("a second use answers %d", r.StatusCode)
	}
	if r, _ := b.post("/console/sign-out", nil); r.StatusCode != http.StatusSeeOther || !strings.Contains(r.Header.Get("Set-Cookie"), "; Max-Age=0;") {
		t.Errorf("signing out answers %d and sets %q", r.StatusCode, r.Header.Get("Set-Cookie"))
	}
	if r, _ := b.get("/console/tickets"); r.StatusCode != http.StatusSeeOther {
		t.Errorf("after signing out a page answers %d", r.StatusCode)
	}
}

// Live pages go on where they were, and end with their session and their server.
func TestLiveEvents(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	b := d.signedIn(t, d.a.APIKey)
	open := func(path, last string) *bufio.Scanner {
		req := must(http.NewRequestWithContext(t.Context(), http.MethodGet, d.url+path, nil))(t)
		req.Header.Set("Last-Event-ID", last)
		resp, err := b.c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		if ct := resp.Header.Get("Content-Type"); ct != "text/event-stream" || resp.Header.Get("X-Accel-Buffering") != "no" {
			t.Fatalf("%s answers %d as %s", path, resp.StatusCode, ct)
		}
		return bufio.NewScanner(resp.Body)
	}
	line := func(s *bufio.Scanner, prefix string) string {
		t.Helper()
		for s.Scan() {
			if rest, ok := strings.CutPrefix(s.Text(), prefix); ok {
				return rest
			}
		}
		t.Fatalf("the stream ended before %q: %v", prefix, s.Err())
		return ""
	}
	create := func(title string) {
		must(d.store.CreateTicket(t.Context(), time.Now(), d.who, ticket.Draft{
			Title: title, BoardID: d.a.BoardID, ClientID: d.a.ClientID, StatusID: d.a.Statuses["Open"], PriorityID: d.a.Priorities["Low"],
		}))(t)
	}
	first := open("/console/events/live", "")
	create("one\r\ntwo")
	id := line(first, "id: ")
	if text := line(first, "data: <li>"); !strings.Contains(text, "ticket.created") {
		t.Errorf("the event is %q", text)
	}
	create("three")
	again := open("/console/events/live", id)
	if text := line(again, "data: <li>"); !strings.Contains(text, "three") {
		t.Errorf("after a broken connection comes %q, want what was missed", text)
	}
	board := open("/console/overview/live", "")
	line(board, "data: ")
	if r, _ := b.post("/console/sign-out", nil); r.StatusCode != http.StatusSeeOther {
		t.Fatal("signing out failed")
	}
	for first.Scan() { // until it ends
	}
	b = d.signedIn(t, d.a.APIKey)
	last := open("/console/events/live", id)
	line(last, "data: ")
	// Their number is bounded, and those that have ended do not count.
	d.srv.Viewers().Add(499)
	resp, err := b.c.Do(must(http.NewRequestWithContext(t.Context(), http.MethodGet, d.url+"/console/events/live", nil))(t))
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body.Close(); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one live page too many answers %d", resp.StatusCode)
	}
	d.srv.Viewers().Add(-499)
	d.srv.Close()
	for _, page := range []*bufio.Scanner{last, again, board} {
		for page.Scan() {
		}
	}
	if n := d.srv.Viewers().Load(); n != 0 {
		t.Errorf("%d live pages count that have ended", n)
	}
}

// A live page is open for longer than the server waits for other requests and
// answers, and no longer than its session.
func TestLivePageOutlastsTheTimeouts(t *testing.T) {
	t.Parallel()
	clock, ahead := aheadOf(t)
	d := newDesk(t, "http://desk.example", clock)
	b := d.signedIn(t, d.a.APIKey)
	server := httptest.NewUnstartedServer(d.srv)
	server.Config.ReadTimeout, server.Config.WriteTimeout = 700*time.Millisecond, 700*time.Millisecond
	server.Start()
	t.Cleanup(server.Close)
	t.Cleanup(d.srv.Close)
	resp, err := b.c.Do(must(http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/console/events/live", nil))(t))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for beats := 0; beats < 4; { // half a second from one to the next
		if !lines.Scan() {
			t.Fatalf("the stream ended after %d beats: %v", beats, lines.Err())
		}
		if lines.Text() == ": still here" {
			beats++
		}
	}
	ahead(store.SessionLife)
	for lines.Scan() { // until it ends
	}
}

// aheadOf is a clock of the console that can be put ahead.
func aheadOf(t *testing.T) (clock func(*console.Config), ahead func(time.Duration)) {
	t.Helper()
	var by atomic.Int64
	return func(c *console.Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(by.Load())) }
	}, func(d time.Duration) { by.Store(int64(d)) }
}

// What is embedded is what its makers have published.
func TestVendoredScripts(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"htmx-2.0.11.min.js":        "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717",
		"htmx-ext-sse-2.2.4.min.js": "98a46496de0c3605fbffdce9167ba427bdd9553184f83f149c261891a92c0136",
	} {
		text := must(os.ReadFile(filepath.Join("static", name)))(t)
		sum := sha256.Sum256(text)
		if got := hex.EncodeToString(sum[:]); got != want {
			t.Errorf("%s has the checksum %s, want %s", name, got, want)
		}
	}
}

// A page that fails to render would be a 500 for somebody: forms with mistakes and
// lists without rows are pages too.
func TestMistakesAreShown(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	b := d.signedIn(t, d.a.APIKey)
	hook, _, err := d.store.CreateWebhook(t.Context(), time.Now(), d.who, delivery.Spec{
		Name: "n", URL: "https://hooks.example/in", Method: "POST", EventTypes: []string{"ticket.created"}, VerifySSL: true, IsActive: true,
		CustomHeaders: map[string]string{"X-Room": "secret value"}, RetryConfig: &delivery.RetryConfig{Strategy: new("linear_backoff"), InitialDelay: new(int64(5000))},
		RateLimit:   &delivery.RateLimit{Enabled: new(false)},
		EventFilter: &delivery.Filter{Conditions: []delivery.Condition{{Field: "priority_name", Operator: "in", Value: []any{"High", "5"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	id := hook.WebhookID
	for _, c := range []struct {
		path string
		form url.Values
		want string
	}{
		{"/console/tickets/new", url.Values{"title": {"x"}}, "choose a status"},
		{"/console/webhooks/new", url.Values{"name": {"n"}, "url": {"ftp://x"}, "method": {"POST"}}, "at least 1 element"},
		{"/console/webhooks/new", url.Values{"name": {"n"}, "url": {"http://10.0.0.1/"}, "method": {"POST"}, "event_types": {"ticket.created"}}, "10.0.0.1"},
		{"/console/webhooks/" + id + "/edit", url.Values{"name": {"n"}, "method": {"POST"}, "schedule": {"soon"}, "rate": {"many"}, "timeout": {"x"}, "max_attempts": {"99"}}, "must be a whole number"},
		{"/console/webhooks/" + id + "/edit", url.Values{"header_name": {"Host"}, "header_value": {"x"}}, "reserved"},
		{"/console/webhooks/" + id + "/rotate", url.Values{"grace": {"900h"}}, "between 0 and 7 days"},
		{"/console/webhooks/" + id + "/replay", url.Values{"from": {"yesterday"}}, "must be a day or a time"},
		{"/console/webhooks/" + id + "/replay", url.Values{"from": {"2999-01-01"}}, "in the future"},
		{"/console/keys/new", url.Values{"name": {"x"}, "mode": {"some"}, "permissions": {"ticket:everything"}}, "Cannot grant"},
		{"/console/keys/new", url.Values{"name": {"x"}, "max_tokens": {"0"}}, "greater than or equal to 1"},
	} {
		r, page := b.post(c.path, c.form)
		if r.StatusCode < 400 || r.StatusCode > 409 || !strings.Contains(page, c.want) {
			t.Errorf("%s with %v answers %d without %q", c.path, c.form, r.StatusCode, c.want)
		}
		if strings.Contains(page, "secret value") {
			t.Errorf("%s shows the value of a header", c.path)
		}
	}
	if r, _ := b.post("/console/tickets/new", url.Values{"title": {strings.Repeat("x", 2<<20)}}); r.StatusCode != http.StatusBadRequest {
		t.Errorf("a form of 2 MiB answers %d", r.StatusCode)
	}
	// What the form does not show stays as it was.
	_, page := b.get("/console/webhooks/" + id + "/edit")
	form := url.Values{"name": {"renamed"}, "url": {hook.URL}, "method": {"POST"}, "event_types": hook.EventTypes, "verify_ssl": {"on"}, "header_keep": {"X-Room"}, "no_limit": {"on"}, "fields_mode": {"all"}}
	for _, m := range regexp.MustCompile(`name="cond_value" value="([^"]*)"`).FindAllStringSubmatch(page, -1) {
		form.Add("cond_value", strings.ReplaceAll(m[1], "&#34;", `"`))
		form.Add("cond_field", map[bool]string{true: "priority_name"}[m[1] != ""])
		form.Add("cond_op", "in")
	}
	if r, page := b.post("/console/webhooks/"+id+"/edit", form); r.StatusCode != http.StatusSeeOther {
		t.Fatalf("saving answers %d: %s", r.StatusCode, page)
	}
	got := must(d.store.Webhook(t.Context(), d.a.TenantID, id))(t)
	if got.Name != "renamed" || got.CustomHeaders["X-Room"] != "secret value" || got.RetryConfig == nil || *got.RetryConfig.InitialDelay != 5000 ||
		got.RateLimit == nil || *got.RateLimit.Enabled || len(got.EventFilter.Conditions) != 1 || len(got.EventFilter.Conditions[0].Value.([]any)) != 2 {
		t.Errorf("saving a name made %+v", got.Spec)
	}
}
