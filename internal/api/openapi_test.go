package api_test

import (
	"bytes"
	"io"
	"net/http"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/docs"
	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// The document describes what is served, no more and no less, and says who may.
// The operator's routes are added outside this package.
func TestDocumentHasEveryRoute(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	served, permissions := map[string]string{}, h.api.Permissions()
	for _, pattern := range h.api.RouteList() {
		served[pattern] = permissions[pattern]
	}
	for _, pattern := range refusedRoutes() {
		if _, is := served[pattern]; !is {
			t.Errorf("%s is not served", pattern)
		}
		delete(served, pattern)
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		served["GET "+path] = ""
	}
	need := regexp.MustCompile("Needs\\s+`([a-z_]+:[a-z_]+)`\\.")
	documented := map[string]string{}
	for path, item := range contract().spec.Paths.Map() {
		for method, op := range item.Operations() {
			documented[method+" "+path] = ""
			if m := need.FindStringSubmatch(op.Description); m != nil {
				documented[method+" "+path] = m[1]
			}
		}
	}
	if diff := cmp.Diff(served, documented); diff != "" {
		t.Errorf("routes with their permissions, served (-) and documented (+):\n%s", diff)
	}
}

// Lists of names that the document repeats.
func TestDocumentNamesTheSame(t *testing.T) {
	t.Parallel()
	schemas := contract().spec.Components.Schemas
	sorts := func(path string) []any {
		for _, p := range contract().spec.Paths.Value(path).Get.Parameters {
			if p.Value.Name == "sort" {
				return p.Value.Schema.Value.Enum
			}
		}
		return nil
	}
	fields := schemas["PayloadFields"].Value.Properties["ticket"].Value.Items.Value.Enum
	for _, tt := range []struct {
		what       string
		code       []string
		documented []any
	}{
		{"event types", delivery.EventTypes(), schemas["EventType"].Value.Enum},
		{"payload fields", delivery.TicketFields(), fields},
		{"sort columns of tickets", ticket.SortColumns(), sorts("/api/v1/tickets")},
		{"sort columns of webhooks", store.WebhookSortColumns(), sorts("/api/v1/webhooks")},
	} {
		documented := make([]string, len(tt.documented))
		for i, v := range tt.documented {
			documented[i], _ = v.(string)
		}
		if diff := cmp.Diff(tt.code, documented); diff != "" {
			t.Errorf("%s in the code (-) and in the document (+):\n%s", tt.what, diff)
		}
	}
}

func TestDocumentIsServed(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	resp, err := http.Get(h.URL + "/openapi.yaml")
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/yaml" {
		t.Errorf("status %d, content type %q", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	if !bytes.Equal(body, docs.OpenAPI()) {
		t.Error("the served document is not the embedded one")
	}
}

// A check that never fails would be worth nothing: each of these answers differs
// from a real one in a single place.
func TestCheckSeesDrift(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	rc := h.receiver(t, nil)
	hook := "/api/v1/webhooks/" + h.createWebhook(t, rc.URL)["webhook_id"].(string)
	ticket := "/api/v1/tickets/" + h.createTicket(t)["ticket_id"].(string)
	data := func(body map[string]any) map[string]any { return body["data"].(map[string]any) }
	first := func(body map[string]any) map[string]any { return body["data"].([]any)[0].(map[string]any) }
	for _, tt := range []struct {
		name, path string
		status     int // 0: as it came
		drift      func(body map[string]any)
	}{
		{"ticket: another key", ticket, 0, func(b map[string]any) { data(b)["mood"] = "good" }},
		{"ticket: a missing key", ticket, 0, func(b map[string]any) { delete(data(b), "board_name") }},
		{"ticket: null where none may be", ticket, 0, func(b map[string]any) { data(b)["title"] = nil }},
		{"ticket: an id in capitals", ticket, 0, func(b map[string]any) { data(b)["ticket_id"] = "01990B2E-7C11-7A10-9A55-0D6F2F6B6D01" }},
		{"ticket: a time without milliseconds", ticket, 0, func(b map[string]any) { data(b)["updated_at"] = "2026-03-09T08:00:00Z" }},
		{"ticket: another status", ticket, http.StatusAccepted, func(map[string]any) {}},
		{"list: another key in an item", "/api/v1/tickets", 0, func(b map[string]any) { first(b)["mood"] = "good" }},
		{"list: no pagination", "/api/v1/tickets", 0, func(b map[string]any) { delete(b, "pagination") }},
		{"list: pagination in snake case", "/api/v1/tickets", 0, func(b map[string]any) { b["pagination"].(map[string]any)["total_pages"] = 1 }},
		{"webhook: a signing secret on read", hook, 0, func(b map[string]any) { data(b)["signing_secret"] = "s" }},
		{"webhook: a security block", hook, 0, func(b map[string]any) { data(b)["security"] = map[string]any{} }},
		{"webhook: an unknown reason", hook, 0, func(b map[string]any) { data(b)["disabled_reason"] = "mood" }},
		{"event: data of another type", "/api/v1/events", 0, func(b map[string]any) {
			first(b)["event_type"] = "ticket.closed"
			data(first(b))["comment"] = map[string]any{}
		}},
		{"event: a curated payload", "/api/v1/events", 0, func(b map[string]any) { delete(data(first(b)), "due_date") }},
		{"event: another key in data", "/api/v1/events", 0, func(b map[string]any) { data(first(b))["mood"] = "good" }},
		{"error: another shape", "/api/v1/tickets/1", 0, func(b map[string]any) { b["error"] = "Invalid ticket ID format" }},
		{"error: an unknown code", "/api/v1/tickets/1", 0, func(b map[string]any) { b["error"].(map[string]any)["code"] = "OOPS" }},
		{"error: an unknown path", "/api/v1/nothing", 0, func(b map[string]any) { b["error"].(map[string]any)["hint"] = "?" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := h.do(t, "GET", tt.path, h.a.APIKey, nil)
			if tt.status != 0 {
				r.Status = tt.status
			}
			tt.drift(r.JSON.(map[string]any))
			r.Raw = encodeBody(t, r.JSON)
			req, err := http.NewRequestWithContext(t.Context(), "GET", h.URL+tt.path, nil)
			must(t, err)
			if contract().check(req, nil, r) == nil {
				t.Errorf("the check let it through: %s", r.Raw)
			}
		})
	}
}

// What receivers get is part of the document too: the headers, and a body of the
// schema for its type, whole or cut down.
func TestSentRequestsAreDocumented(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	whole, cut := h.receiver(t, nil), h.receiver(t, nil)
	hook := h.createWebhook(t, whole.URL)
	h.createWebhook(t, cut.URL, map[string]any{"payload_fields": map[string]any{"ticket": []string{"title", "comments"}}})

	id := h.createTicket(t)["ticket_id"].(string)
	for _, c := range []struct {
		method, path string
		body         map[string]any
	}{
		{"PUT", "/tickets/" + id, map[string]any{"title": "Printer smokes", "tags": []string{"fire"}, "due_date": "2030-01-02T03:04Z"}},
		{"PUT", "/tickets/" + id + "/assignment", map[string]any{"assigned_to": h.a.UserID}},
		{"POST", "/tickets/" + id + "/comments", map[string]any{"comment_text": "On my way", "is_internal": true}},
		{"PUT", "/tickets/" + id + "/status", map[string]any{"status_id": h.a.Statuses["Closed"]}},
	} {
		h.do(t, c.method, c.path, h.a.APIKey, c.body)
	}
	h.do(t, "POST", "/webhooks/"+hook["webhook_id"].(string)+"/test", h.a.APIKey, nil).want(t, http.StatusOK)

	counts := map[string]int{}
	collect := func(rc *receiver, n int) {
		for range n {
			d := rc.next(t)
			counts[d.Header.Get("X-Alga-Event-Type")]++
			if err := contract().checkSent(d); err != nil {
				t.Errorf("%s does not agree with docs/openapi.yaml: %v\n%s", d.Header.Get("X-Alga-Event-Type"), err, d.Body)
			}
		}
	}
	// created; updated; updated, assigned; comment; updated, status_changed, closed
	const events = 8
	collect(whole, events+1)
	collect(cut, events)
	want := map[string]int{
		"ticket.created": 2, "ticket.updated": 6, "ticket.assigned": 2, "ticket.comment.added": 2,
		"ticket.status_changed": 2, "ticket.closed": 2, "webhook.test": 1,
	}
	if diff := cmp.Diff(want, counts); diff != "" {
		t.Errorf("requests by event type (-want +got):\n%s", diff)
	}
}
