package api_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// Every reason to reject a key looks the same from outside (contract section
// 1.1).
func TestRejectedKeys(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	const invalid = `{"error":{"code":"UNAUTHORIZED","message":"Invalid API key"}}`
	keyOf := func(d store.KeyDraft) string {
		if d.UserID == "" {
			d.UserID = h.user(t, h.a.TenantID, "ticket:read").UserID
		}
		d.Name = "test"
		return h.keyOf(t, h.a.TenantID, d)
	}
	ownerAs := func(change func(*ticket.User)) string {
		u := h.user(t, h.a.TenantID, "ticket:read")
		key := keyOf(store.KeyDraft{UserID: u.UserID})
		h.do(t, "GET", "/tickets", key, nil).want(t, http.StatusOK)
		_, err := h.store.UpdateUser(t.Context(), h.a.TenantID, u.UserID, func(u *ticket.User) error { change(u); return nil })
		must(t, err)
		return key
	}
	past, once := h.now().Add(-time.Second), int64(1)
	spent := keyOf(store.KeyDraft{UsageLimit: &once})
	h.do(t, "GET", "/tickets", spent, nil).want(t, http.StatusOK)
	inactive := keyOf(store.KeyDraft{})
	keys, err := h.store.Keys(t.Context(), h.a.TenantID)
	must(t, err)
	for _, k := range keys {
		if strings.HasPrefix(inactive, k.Prefix) {
			_, err := h.store.UpdateKey(t.Context(), h.now(), h.a.TenantID, k.KeyID, func(k *store.APIKey) error {
				k.Active = false
				return nil
			})
			must(t, err)
		}
	}
	suspended := h.bootstrap(t, "Gamma")
	_, err = h.store.UpdateTenant(t.Context(), suspended.TenantID, func(tn *store.Tenant) error { tn.Suspended = true; return nil })
	must(t, err)
	for name, key := range map[string]string{
		"unknown": "no-such-key", "almost": h.a.APIKey + "x", "inactive": inactive, "expired": keyOf(store.KeyDraft{ExpiresAt: &past}),
		"owner inactive": ownerAs(func(u *ticket.User) { u.IsInactive = true }),
		"owner a client": ownerAs(func(u *ticket.User) { u.UserType = "client" }),
		"used up":        spent, "tenant suspended": suspended.APIKey,
	} {
		for range 2 { // the second time the key has been deactivated
			r := h.do(t, "GET", "/tickets", key, nil).want(t, http.StatusUnauthorized)
			if string(r.Raw) != invalid {
				t.Errorf("%s: %s", name, r.Raw)
			}
		}
	}
	if r := h.do(t, "GET", "/tickets", "", nil).want(t, 401); string(r.Raw) != `{"error":{"code":"UNAUTHORIZED","message":"API key required"}}` {
		t.Errorf("no key: %s", r.Raw)
	}
	if r := h.do(t, "GET", "/tickets", "", nil, "Authorization", "Bearer "+h.a.APIKey).want(t, 401); r.at("error", "message") != "API key required" {
		t.Errorf("bearer: %s", r.Raw)
	}
	for tenant, status := range map[string]int{
		h.a.TenantID: 200, strings.ToUpper(h.a.TenantID): 200, h.b.TenantID: 401, unknownID: 401, "alpha": 401,
	} {
		r := h.do(t, "GET", "/tickets", h.a.APIKey, nil, "X-Tenant-Id", tenant).want(t, status)
		if status == 401 && string(r.Raw) != invalid {
			t.Errorf("tenant %s: %s", tenant, r.Raw)
		}
	}
}

// Every route needs a key, and a permission of the key's owner.
func TestEveryRouteIsGuarded(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	powerless := h.key(t, h.a.TenantID)
	narrow := h.keyOf(t, h.a.TenantID, store.KeyDraft{UserID: h.a.UserID, Name: "narrow", Permissions: []string{"ticket:read"}})
	ids := strings.NewReplacer("{id}", unknownID, "{userId}", unknownID, "{commentId}", unknownID,
		"{delivery_id}", unknownID, "{replay_id}", unknownID, "{event_id}", unknownID)
	for _, rt := range h.api.RouteList() {
		method, path, _ := strings.Cut(rt, " ")
		if path == "/openapi.yaml" {
			continue
		}
		path = ids.Replace(path)
		if strings.Contains(path, "{") {
			t.Errorf("%s: a path parameter that this test does not fill", rt)
		}
		h.do(t, method, path, "", nil).wantError(t, http.StatusUnauthorized, "UNAUTHORIZED")
		e := h.do(t, method, path, powerless, nil).wantError(t, http.StatusForbidden, "FORBIDDEN")
		if message, _ := e["message"].(string); !strings.HasPrefix(message, "Permission denied: Cannot ") {
			t.Errorf("%s: message %q", rt, message)
		}
		if method != "GET" {
			h.do(t, method, path, narrow, nil).wantError(t, http.StatusForbidden, "FORBIDDEN")
		}
	}
	h.do(t, "GET", "/tickets", narrow, nil).want(t, http.StatusOK)
	e := h.do(t, "POST", "/tickets", narrow, h.draft(nil)).wantError(t, http.StatusForbidden, "FORBIDDEN")
	if e["message"] != "Permission denied: Cannot create ticket" {
		t.Errorf("message %q", e["message"])
	}
}

// The product gate closes the webhook routes and leaves the tickets open.
func TestProductGateLeavesTickets(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, err := h.store.UpdateTenant(t.Context(), h.a.TenantID, func(tn *store.Tenant) error { tn.Product = "algadesk"; return nil })
	must(t, err)
	h.do(t, "GET", "/webhooks/events", h.a.APIKey, nil).wantError(t, http.StatusForbidden, "PRODUCT_ACCESS_DENIED")
	id := h.createTicket(t)["ticket_id"]
	h.comment(t, id, nil)
	h.do(t, "GET", tagPath(id), h.a.APIKey, nil).want(t, http.StatusOK)
}

func TestUnknownRoutes(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.createTicket(t)["ticket_id"].(string)
	for _, rt := range []string{
		"GET /", "GET /nothing", "GET /tickets/", "GET /tickets/" + id + "/", "POST /tickets/bulk/close",
		"GET /tickets/" + id + "/assets", "GET /tickets/" + id + "/documents", "POST /tickets/" + id + "/documents",
		"GET /tickets/" + id + "/materials", "GET /tickets/" + id + "/time-entries", "GET /tickets/" + id + "/checklist",
		"POST /tickets/" + id + "/bundle", "GET /tickets/" + id + "/bundle/children", "POST /tickets/from-asset",
		"GET /tags/entity/client/" + id, "GET //nothing",
	} {
		method, path, _ := strings.Cut(rt, " ")
		e := h.do(t, method, path, h.a.APIKey, nil).wantError(t, http.StatusNotFound, "NOT_FOUND")
		if e["message"] != "Route not found" {
			t.Errorf("%s: message %q", rt, e["message"])
		}
	}
	h.do(t, "GET", "/api/v1//tickets", h.a.APIKey, nil).want(t, http.StatusOK) // by way of the path without the double
	for rt, allow := range map[string]string{
		"PATCH /tickets/" + id:              "DELETE, GET, HEAD, PUT",
		"DELETE /tickets":                   "GET, HEAD, POST",
		"DELETE /tickets/" + id + "/agents": "GET, HEAD, POST",
		"GET /tags":                         "POST",
		"GET /tickets/from-asset":           "",
	} {
		method, path, _ := strings.Cut(rt, " ")
		r := h.do(t, method, path, h.a.APIKey, nil)
		r.wantError(t, http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED")
		if got := r.Header.Get("Allow"); got != allow {
			t.Errorf("%s: Allow %q, want %q", rt, got, allow)
		}
	}
}

// bodyRoutes are the routes of this half of the API that read a body.
func (h *harness) bodyRoutes(t *testing.T) []string {
	t.Helper()
	id := h.createTicket(t)["ticket_id"]
	comment := h.comment(t, id, nil)["comment_id"]
	ticket := fmt.Sprintf("/tickets/%v", id)
	return []string{
		"POST /tickets", "PUT " + ticket, "PUT " + ticket + "/status", "PUT " + ticket + "/assignment", "PUT " + ticket + "/team",
		"DELETE " + ticket + "/team", "POST " + ticket + "/agents", "POST " + ticket + "/comments",
		fmt.Sprintf("PUT %s/comments/%v", ticket, comment), fmt.Sprintf("POST %s/comments/%v/reactions", ticket, comment),
		"POST " + tagPath(id), "DELETE " + tagPath(id), "POST /tags", "POST /boards", "POST /statuses", "POST /clients",
		"POST /contacts", "POST /categories/ticket", "POST /clients/" + h.a.ClientID + "/locations",
	}
}

func TestBodiesThatAreNoObject(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	routes := h.bodyRoutes(t)
	before := h.state(t)
	for name, body := range map[string]string{
		"malformed": `{"title": `, "trailing": `{"title":"x"} {}`, "single quotes": `{'title':'x'}`, "list": `[{"title":"x"}]`,
		"text": `"x"`, "number": `1`, "boolean": `true`, "null": `null`, "form": `title=x`,
		"invalid UTF-8": "{\"title\":\"\xff\xfe\"}", "NUL": "{\"title\":\"x\"}\x00", "UTF-16": "\xff\xfe{\x00}\x00",
		"deep": `{"attributes":` + strings.Repeat(`{"a":`, 20_000) + `1` + strings.Repeat(`}`, 20_001),
	} {
		for _, rt := range routes {
			method, path, _ := strings.Cut(rt, " ")
			h.do(t, method, path, h.a.APIKey, body).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
			if t.Failed() {
				t.Fatalf("%s to %s", name, rt)
			}
		}
	}
	broken := httptest.NewRequestWithContext(t.Context(), "POST", "/api/v1/tickets", iotest.ErrReader(io.ErrUnexpectedEOF))
	broken.Header.Set("X-API-Key", h.a.APIKey)
	w := httptest.NewRecorder()
	h.api.ServeHTTP(w, broken)
	if want := `{"error":{"code":"VALIDATION_ERROR","message":"The request body could not be read"}}`; w.Code != http.StatusBadRequest || w.Body.String() != want {
		t.Errorf("a body that is broken off: %d %s, want %s", w.Code, w.Body, want)
	}
	e := h.do(t, "POST", "/tickets", h.a.APIKey, `[]`).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
	want := []any{map[string]any{
		"code": "invalid_type", "path": []any{}, "message": "Expected object, received array", "expected": "object", "received": "array",
	}}
	if diff := cmp.Diff(any(want), e["details"]); diff != "" {
		t.Error(diff)
	}
	if after := h.state(t); after != before {
		t.Errorf("something was left behind: %s, was %s", after, before)
	}
}

func TestLargeBodies(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	large := `{"title":"` + strings.Repeat("x", 10<<20) + `"}`
	h.do(t, "POST", "/tickets", h.a.APIKey, large).wantError(t, http.StatusRequestEntityTooLarge, "PAYLOAD_TOO_LARGE")
	for _, rt := range h.bodyRoutes(t) {
		method, path, _ := strings.Cut(rt, " ")
		h.do(t, method, path, h.a.APIKey, large[:2<<20]).wantError(t, http.StatusRequestEntityTooLarge, "PAYLOAD_TOO_LARGE")
	}
	exact := func(n int) string { return fmt.Sprintf(`{"title":"%s"}`, strings.Repeat("x", n-len(`{"title":""}`))) }
	h.do(t, "POST", "/tickets", h.a.APIKey, exact(1<<20)).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
	h.do(t, "POST", "/tickets", h.a.APIKey, exact(1<<20+1)).wantError(t, http.StatusRequestEntityTooLarge, "PAYLOAD_TOO_LARGE")
	h.do(t, "POST", "/tickets", h.a.APIKey, large, "X-Idempotency-Key", "large").
		wantError(t, http.StatusRequestEntityTooLarge, "PAYLOAD_TOO_LARGE")
}

// The issues have the words and keys of Zod, because clients parse them
// (contract section 1.2).
func TestIssueShapes(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	e := h.do(t, "POST", "/tickets", h.a.APIKey, map[string]any{
		"board_id": "x", "client_id": 1, "status_id": unknownID, "priority_id": unknownID, "url": "x", "title": "",
	}).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
	want := []any{
		map[string]any{
			"code": "too_small", "path": []any{"title"}, "message": "String must contain at least 1 character(s)",
			"minimum": 1.0, "type": "string", "inclusive": true, "exact": false,
		},
		map[string]any{"code": "invalid_string", "path": []any{"url"}, "message": "Invalid url", "validation": "url"},
		map[string]any{"code": "invalid_string", "path": []any{"board_id"}, "message": "Invalid uuid", "validation": "uuid"},
		map[string]any{
			"code": "invalid_type", "path": []any{"client_id"}, "message": "Expected string, received number",
			"expected": "string", "received": "number",
		},
	}
	if diff := cmp.Diff(any(want), e["details"]); diff != "" {
		t.Error(diff)
	}
	e = h.do(t, "POST", "/contacts", h.a.APIKey, map[string]any{"full_name": "x", "b": 1, "a": 2}).
		wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
	want = []any{
		map[string]any{
			"code": "unrecognized_keys", "path": []any{}, "message": "Unrecognized key(s) in object: 'a', 'b'", "keys": []any{"a", "b"},
		},
		map[string]any{
			"code": "invalid_type", "path": []any{"email"}, "message": "Required", "expected": "string", "received": "undefined",
		},
	}
	if diff := cmp.Diff(any(want), e["details"]); diff != "" {
		t.Error(diff)
	}
}

func TestPreflight(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for _, path := range []string{"/tickets", "/tickets/" + unknownID, "/nothing"} {
		r := h.do(t, "OPTIONS", path, "", nil, "Origin", "https://app.example", "Access-Control-Request-Method", "PUT").
			want(t, http.StatusNoContent)
		for name, want := range map[string]string{
			"Access-Control-Allow-Origin":      "https://app.example",
			"Access-Control-Allow-Credentials": "true",
			"Access-Control-Allow-Methods":     "GET,POST,PUT,PATCH,DELETE,OPTIONS",
			"Access-Control-Allow-Headers":     "Content-Type,Authorization,X-API-Key,X-Tenant-ID,X-Request-ID,X-Idempotency-Key",
			"Access-Control-Max-Age":           "86400",
			"Vary":                             "Origin",
		} {
			if got := r.Header.Get(name); got != want {
				t.Errorf("%s: %s %q, want %q", path, name, got, want)
			}
		}
		if len(r.Raw) > 0 {
			t.Errorf("%s: body %q", path, r.Raw)
		}
	}
	for key, status := range map[string]int{h.a.APIKey: 200, "": 401} {
		r := h.do(t, "GET", "/tickets", key, nil, "Origin", "https://app.example").want(t, status)
		if got := r.Header.Get("Access-Control-Allow-Origin"); got != "https://app.example" {
			t.Errorf("%d: Access-Control-Allow-Origin %q", status, got)
		}
	}
	if r := h.do(t, "GET", "/tickets", h.a.APIKey, nil); r.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("an answer to no origin allows one")
	}
}

// What went wrong inside stays inside.
func TestInternalError(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	must(t, h.store.Close())
	r := h.do(t, "GET", "/tickets", h.a.APIKey, nil).want(t, http.StatusInternalServerError)
	if want := `{"error":{"code":"INTERNAL_ERROR","message":"An unexpected error occurred"}}`; string(r.Raw) != want {
		t.Errorf("%s, want %s", r.Raw, want)
	}
}

// A panic is one answer of 500, and the log has all that the answer lacks. It has no
// query string, since that may hold personal data.
func TestRequestsAreLoggedAndCounted(t *testing.T) {
	t.Parallel()
	var log safeBuffer
	metrics := prometheus.NewRegistry()
	h := newHarness(t, func(s *settings) { s.log, s.metrics = &log, metrics })
	h.api.Handle("/boom", func() { panic("the reason") })
	h.do(t, "GET", "/tickets?title=Personal", h.a.APIKey, nil).want(t, http.StatusOK)
	h.do(t, "POST", "/tickets?title=Personal", h.a.APIKey, map[string]any{"title": ""}).want(t, http.StatusBadRequest)
	h.do(t, "GET", "/nothing", h.a.APIKey, nil).want(t, http.StatusNotFound)
	r := h.do(t, "GET", "/boom?title=Personal", h.a.APIKey, nil).want(t, http.StatusInternalServerError)
	if want := `{"error":{"code":"INTERNAL_ERROR","message":"An unexpected error occurred"}}`; string(r.Raw) != want {
		t.Errorf("%s, want %s", r.Raw, want)
	}
	var got []string
	for line := range strings.Lines(log.String()) {
		if !strings.Contains(line, "msg=request ") {
			continue
		}
		_, line, _ = strings.Cut(line, " ") // the time
		if !strings.Contains(line, " tenant="+h.a.TenantID+" key=") || strings.Contains(line, " key=\"\"") {
			t.Errorf("who called is not in %s", line)
		}
		line, _, _ = strings.Cut(line, " took=")
		got = append(got, line)
	}
	want := []string{
		"level=INFO msg=request method=GET route=/api/v1/tickets status=200",
		"level=INFO msg=request method=POST route=/api/v1/tickets status=400",
		"level=ERROR msg=request method=GET route=/api/v1/boom status=500",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
	for text, logged := range map[string]bool{"Personal": false, "the reason": true, "Validation failed": true} {
		if strings.Contains(log.String(), text) != logged {
			t.Errorf("that the log holds %q is %v:\n%s", text, !logged, log.String())
		}
	}
	if diff := cmp.Diff(map[string]float64{"2xx": 1, "4xx": 2, "5xx": 1, "panics": 1, "rate_limited": 0}, counted(t, metrics)); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

// safeBuffer is a log that may be read while it is written.
type safeBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// counted reads the metrics of the API: requests by class, and the two counters by
// the middle of their names.
func counted(t *testing.T, metrics *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := metrics.Gather()
	must(t, err)
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if m.GetHistogram() != nil {
				got[m.GetLabel()[0].GetValue()] = float64(m.GetHistogram().GetSampleCount())
			} else {
				got[strings.TrimSuffix(strings.TrimPrefix(f.GetName(), "ticketwire_api_"), "_total")] = m.GetCounter().GetValue()
			}
		}
	}
	return got
}

// A service with more work than it can queue says so at once and sheds nothing
// that it has accepted (contract P12).
func TestOverload(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(s *settings) { s.store.QueueLimit = 1 })
	body, err := json.Marshal(h.draft(nil))
	must(t, err)
	entered, release := make(chan struct{}), make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	defer free()
	held := make(chan error, 1)
	go func() { // occupies the one writer until release
		for {
			_, err := h.store.UpdateTenant(t.Context(), h.b.TenantID, func(*store.Tenant) error {
				close(entered)
				<-release
				return nil
			})
			if !fault.Is(err, fault.Unavailable) { // a job of the engine was faster
				held <- err
				return
			}
		}
	}()
	<-entered
	const callers = 3 // one call fits into the queue, or none if something else was faster
	answers := make(chan *response, callers)
	for range callers {
		go func() { answers <- h.post(t.Context(), "/tickets", body) }()
	}
	accepted := 0.0
	for i := range callers {
		if i == callers-1 {
			free()
		}
		r := <-answers
		if r.Status == http.StatusCreated && i == callers-1 {
			accepted++
			continue
		}
		e := r.wantError(t, http.StatusServiceUnavailable, "UNAVAILABLE")
		if r.Header.Get("Retry-After") != "1" || e["message"] == "" {
			t.Errorf("Retry-After %q, message %q", r.Header.Get("Retry-After"), e["message"])
		}
	}
	must(t, <-held)
	if got := h.do(t, "GET", "/tickets", h.a.APIKey, nil).at("pagination", "total"); got != accepted {
		t.Errorf("%v tickets, but %v were acknowledged", got, accepted)
	}
}
