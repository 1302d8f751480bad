package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/ticketwire/ticketwire/internal/store"
)

// refusal is a request that has to be refused and how.
type refusal struct {
	name    string
	body    any
	status  int    // 0 means 400
	code    string // "" means VALIDATION_ERROR
	message string // "" for any
	issue   string // "<path> <code>" of one of the details, e.g. "tags.0 too_big"; "" for any
}

// refuses sends every body to one route and then asks whether anything was left
// behind: no refused request may have changed a ticket or made an event.
func (h *harness) refuses(t *testing.T, method, path string, list []refusal) {
	t.Helper()
	before := h.state(t)
	for _, r := range list {
		t.Run(r.name, func(t *testing.T) {
			got := h.do(t, method, path, h.a.APIKey, r.body)
			if r.status == 0 {
				r.status = http.StatusBadRequest
			}
			if r.code == "" {
				r.code = "VALIDATION_ERROR"
			}
			e := got.wantError(t, r.status, r.code)
			if r.message != "" && e["message"] != r.message {
				t.Errorf("message %q, want %q", e["message"], r.message)
			}
			if r.issue != "" {
				wantIssue(t, e, r.issue)
			}
		})
	}
	if after := h.state(t); after != before {
		t.Errorf("the refused requests left something behind: %s, was %s", after, before)
	}
}

// state sums up what tenant A has.
func (h *harness) state(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, path := range []string{
		"/tickets", "/boards", "/clients", "/contacts", "/categories/ticket",
		"/clients/" + h.a.ClientID + "/locations", "/statuses?board_id=" + h.a.BoardID,
	} {
		fmt.Fprintf(&b, "%s %v; ", path, h.do(t, "GET", path, h.a.APIKey, nil).want(t, http.StatusOK).at("pagination", "total"))
	}
	fmt.Fprintf(&b, "%d events", len(h.events(t)))
	return b.String()
}

// events returns the types of tenant A's events, oldest first.
func (h *harness) events(t *testing.T) []string {
	t.Helper()
	feed, err := h.store.Events(t.Context(), h.a.TenantID, store.FeedQuery{Limit: 1000})
	must(t, err)
	types := make([]string, len(feed.Envelopes))
	for i, raw := range feed.Envelopes {
		types[i] = decode[struct {
			Type string `json:"event_type"`
		}](t, raw).Type
	}
	return types
}

// newEvents returns the types of the events that fn brings about.
func (h *harness) newEvents(t *testing.T, fn func()) string {
	t.Helper()
	before := len(h.events(t))
	fn()
	return strings.Join(h.events(t)[before:], " ")
}

// wantIssue looks for "<path> <code>" among the details of an error.
func wantIssue(t *testing.T, e map[string]any, want string) {
	t.Helper()
	details, _ := e["details"].([]any)
	for _, d := range details {
		issue, _ := d.(map[string]any)
		path, isPath := issue["path"].([]any)
		if message, isText := issue["message"].(string); !isPath || !isText || message == "" {
			t.Errorf("an issue without path or message: %v", issue)
		}
		words := make([]string, len(path))
		for i, p := range path {
			words[i] = fmt.Sprint(p)
		}
		if want == fmt.Sprintf("%s %v", strings.Join(words, "."), issue["code"]) {
			return
		}
	}
	t.Errorf("no issue %q in %v", want, e["details"])
}

// without returns a copy of a body that lacks a key.
func without(body map[string]any, key string) map[string]any {
	out := merged(body)
	delete(out, key)
	return out
}

// long is a text of n characters that are two bytes each.
func long(n int) string { return strings.Repeat("ü", n) }

const unknownID = "ffffffff-0000-4000-8000-000000000000"
