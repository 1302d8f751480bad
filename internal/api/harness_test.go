package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ticketwire/ticketwire/docs"
	"github.com/ticketwire/ticketwire/internal/api"
	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/dispatch"
	"github.com/ticketwire/ticketwire/internal/egress"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/ticket"
	"github.com/ticketwire/ticketwire/internal/vault"
)

// patience is how long a test waits for something that happens in the
// background. It is only ever spent in full by a test that fails.
const patience = 20 * time.Second

// harness is a whole service but its command line: a real database, a running
// engine that may call loopback addresses, and the API on a real socket.
type harness struct {
	URL    string // of the API server, without a path
	store  *store.Store
	engine *dispatch.Engine
	api    *api.Server
	now    func() time.Time
	a, b   store.Bootstrapped // two tenants; a.APIKey and b.APIKey may do everything
}

// settings is what a test may choose before the service starts.
type settings struct {
	now    func() time.Time
	store  store.Config // Dir and Vault are set by the harness
	policy delivery.Policy
	rate   api.Rate // zero: no inbound limit
	// observe lets calls over the limit through, see api.Config.Enforce.
	observe bool
	egress  egress.Config // AllowTargets is set by the harness
	log     io.Writer     // nil: the test's output
	metrics prometheus.Registerer
}

// newHarness starts a service and stops it when the test ends. Each option
// changes the settings:
//
//	h := newHarness(t, func(s *settings) { s.rate = api.DefaultRate() })
func newHarness(t *testing.T, options ...func(*settings)) *harness {
	t.Helper()
	set := settings{now: time.Now, policy: delivery.DefaultPolicy()}
	set.store.PublicURL = "https://desk.example"
	for _, choose := range options {
		choose(&set)
	}
	if set.log == nil {
		set.log = t.Output()
	}
	log := slog.New(slog.NewTextHandler(set.log, nil))
	dir := t.TempDir()
	safe, err := vault.Open(filepath.Join(dir, "secret.key"))
	must(t, err)
	set.store.Dir, set.store.Vault, set.store.Policy = dir, safe, set.policy
	st, err := store.Open(t.Context(), set.store)
	must(t, err)
	t.Cleanup(func() { must(t, st.Close()) })
	h := &harness{store: st, now: set.now}
	// Before the jobs of the engine, which may be all that a small queue has room for.
	h.a = h.bootstrap(t, "Alpha")
	h.b = h.bootstrap(t, "Beta")

	targets := set.egress
	targets.AllowTargets = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	client := egress.New(targets)
	t.Cleanup(client.Close)
	engine := dispatch.New(dispatch.Config{Store: st, Client: client, Policy: set.policy, Now: set.now, Log: log})
	must(t, engine.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		engine.Stop(ctx)
	})

	h.engine = engine
	h.api = api.New(api.Config{
		Store: st, Engine: engine, Egress: targets, PublicURL: set.store.PublicURL,
		Rate: set.rate, Enforce: !set.observe, Now: set.now, Log: log, Metrics: set.metrics, OpenAPI: docs.OpenAPI(),
	})
	server := httptest.NewServer(h.api)
	t.Cleanup(server.Close)
	h.URL = server.URL
	return h
}

func (h *harness) bootstrap(t *testing.T, name string) store.Bootstrapped {
	t.Helper()
	b, err := h.store.Bootstrap(t.Context(), h.now(), store.BootstrapDraft{
		Tenant: name, Email: "admin@" + strings.ToLower(name) + ".example", FirstName: "Ada", LastName: name,
	})
	must(t, err)
	return b
}

// user makes another internal user of a tenant with exactly these permissions.
func (h *harness) user(t *testing.T, tenant string, permissions ...string) ticket.User {
	t.Helper()
	u, err := h.store.AddUser(t.Context(), h.now(), tenant, ticket.User{
		FirstName: "Uma", LastName: "User", Email: store.NewID() + "@users.example", Permissions: permissions,
	})
	must(t, err)
	return u
}

// key makes a user of a tenant with exactly these permissions and returns its
// API key.
func (h *harness) key(t *testing.T, tenant string, permissions ...string) string {
	t.Helper()
	return h.keyOf(t, tenant, store.KeyDraft{UserID: h.user(t, tenant, permissions...).UserID, Name: "test"})
}

// keyOf makes a key as drafted and returns its text.
func (h *harness) keyOf(t *testing.T, tenant string, d store.KeyDraft) string {
	t.Helper()
	_, text, err := h.store.CreateKey(t.Context(), h.now(), tenant, d)
	must(t, err)
	return text
}

// response is an answer of the API that agrees with the document.
type response struct {
	Status int
	Header http.Header
	Raw    []byte
	JSON   any // Raw decoded; nil for an empty body
}

// do sends a request and checks the answer against docs/openapi.yaml. A path
// that does not begin with /api/ is below /api/v1. An empty key sends none. The
// body is sent as it is when it is a string or bytes, as JSON otherwise, and not
// at all when it is nil. header holds names and values in turn:
//
//	h.do(t, "POST", "/tickets", h.a.APIKey, draft, "X-Idempotency-Key", "one")
func (h *harness) do(t *testing.T, method, path, key string, body any, header ...string) *response {
	t.Helper()
	if !strings.HasPrefix(path, "/api/") {
		path = "/api/v1" + path
	}
	sent := encodeBody(t, body)
	req, err := http.NewRequestWithContext(t.Context(), method, h.URL+path, bytes.NewReader(sent))
	must(t, err)
	if sent != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("X-API-Key", key)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	defer resp.Body.Close()
	r := &response{Status: resp.StatusCode, Header: resp.Header}
	r.Raw, err = io.ReadAll(resp.Body)
	must(t, err)
	if len(r.Raw) > 0 {
		if err := json.Unmarshal(r.Raw, &r.JSON); err != nil {
			t.Fatalf("%s %s: the answer is not JSON: %v\n%s", method, path, err, r.Raw)
		}
	}
	if err := contract().check(req, sent, r); err != nil {
		t.Errorf("%s %s -> %d does not agree with docs/openapi.yaml: %v\nrequest: %s\nanswer: %s", method, path, r.Status, err, sent, r.Raw)
	}
	return r
}

func encodeBody(t *testing.T, body any) []byte {
	t.Helper()
	switch b := body.(type) {
	case nil:
		return nil
	case string:
		return []byte(b)
	case []byte:
		return b
	case json.RawMessage:
		return b
	}
	b, err := json.Marshal(body)
	must(t, err)
	return b
}

// want ends the test unless the status is the expected one.
func (r *response) want(t *testing.T, status int) *response {
	t.Helper()
	if r.Status != status {
		t.Fatalf("status %d, want %d: %s", r.Status, status, r.Raw)
	}
	return r
}

// wantError ends the test unless the answer is an error with this status and
// code. It returns the error object.
func (r *response) wantError(t *testing.T, status int, code string) map[string]any {
	t.Helper()
	r.want(t, status)
	e, _ := r.at("error").(map[string]any)
	if e["code"] != code {
		t.Fatalf("error code %v, want %s: %s", e["code"], code, r.Raw)
	}
	return e
}

// at walks down object keys and list positions; nil when there is nothing.
//
//	r.at("data", 0, "ticket_id")
func (r *response) at(path ...any) any {
	v := r.JSON
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[p]
		case int:
			l, _ := v.([]any)
			if p < 0 || p >= len(l) {
				return nil
			}
			v = l[p]
		}
	}
	return v
}

// text is at for a string; "" when there is none.
func (r *response) text(path ...any) string {
	s, _ := r.at(path...).(string)
	return s
}

// data returns data as an object.
func (r *response) data(t *testing.T) map[string]any {
	t.Helper()
	m, is := r.at("data").(map[string]any)
	if !is {
		t.Fatalf("data is no object: %s", r.Raw)
	}
	return m
}

// list returns data as a list of objects.
func (r *response) list(t *testing.T) []map[string]any {
	t.Helper()
	items, is := r.at("data").([]any)
	if !is {
		t.Fatalf("data is no list: %s", r.Raw)
	}
	out := make([]map[string]any, len(items))
	for i, item := range items {
		if out[i], is = item.(map[string]any); !is {
			t.Fatalf("data[%d] is no object: %s", i, r.Raw)
		}
	}
	return out
}

// draft is the smallest body of a ticket of tenant A, with fields on top.
func (h *harness) draft(fields map[string]any) map[string]any {
	return merged(map[string]any{
		"title": "Printer on fire", "board_id": h.a.BoardID, "client_id": h.a.ClientID,
		"status_id": h.a.Statuses["Open"], "priority_id": h.a.Priorities["Medium"],
	}, fields)
}

// createTicket creates a ticket of tenant A and returns it as answered.
func (h *harness) createTicket(t *testing.T, fields ...map[string]any) map[string]any {
	t.Helper()
	return h.do(t, "POST", "/tickets", h.a.APIKey, h.draft(merged(nil, fields...))).want(t, http.StatusCreated).data(t)
}

// createWebhook creates a webhook of tenant A for every ticket event, unless
// fields say otherwise, and returns it as answered, signing_secret included.
func (h *harness) createWebhook(t *testing.T, url string, fields ...map[string]any) map[string]any {
	t.Helper()
	body := map[string]any{"name": "Test", "url": url, "event_types": delivery.EventTypes()[:6]}
	return h.do(t, "POST", "/webhooks", h.a.APIKey, merged(body, fields...)).want(t, http.StatusCreated).data(t)
}

func merged(base map[string]any, on ...map[string]any) map[string]any {
	out := map[string]any{}
	for _, m := range append([]map[string]any{base}, on...) {
		maps.Copy(out, m)
	}
	return out
}

// wait returns once cond holds, and fails the test when it does not in time.
// Where something can be waited for directly (receiver.next), do that.
func (h *harness) wait(t *testing.T, what string, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// delivered is one request that a receiver got.
type delivered struct {
	Method string
	Path   string
	Header http.Header
	Body   []byte
}

// receiver is a webhook target that keeps every request it gets.
type receiver struct {
	URL  string
	seen chan delivered
}

// receiver starts a target. handler answers after the request was kept; nil
// answers 200.
func (h *harness) receiver(t *testing.T, handler http.HandlerFunc) *receiver {
	t.Helper()
	rc := &receiver{seen: make(chan delivered, 4096)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the engine broke the request off
		}
		rc.seen <- delivered{Method: r.Method, Path: r.URL.Path, Header: r.Header.Clone(), Body: body}
		if handler != nil {
			r.Body = io.NopCloser(bytes.NewReader(body))
			handler(w, r)
		}
	}))
	t.Cleanup(server.Close)
	rc.URL = server.URL
	return rc
}

// next returns the oldest request that next has not returned yet, and waits for
// it if need be.
func (rc *receiver) next(t *testing.T) delivered {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	select {
	case d := <-rc.seen:
		return d
	case <-ctx.Done():
		t.Fatal("the receiver got no further request")
		return delivered{}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
