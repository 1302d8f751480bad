package api_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestEventFeed: a reader who follows the cursor sees every event once, oldest
// first, whether or not a webhook wanted it (contract P9).
func TestEventFeed(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	reader := h.key(t, h.a.TenantID, "webhook:read")
	feed := func(query string) (types []string, next string, more bool) {
		t.Helper()
		r := h.do(t, "GET", "/events?"+query, reader, nil).want(t, http.StatusOK)
		for _, e := range r.list(t) {
			types = append(types, e["event_type"].(string))
		}
		more, is := r.at("has_more").(bool)
		if next = r.text("next_cursor"); next == "" || !is {
			t.Fatalf("the feed answered %s", r.Raw)
		}
		return types, next, more
	}
	if types, _, more := feed(""); len(types) > 0 || more {
		t.Errorf("a new tenant has the events %v, more %v", types, more)
	}

	first := h.createTicket(t)["ticket_id"].(string)
	middle := time.Now().UTC().Add(time.Millisecond).Format("2006-01-02T15:04:05.000Z")
	h.wait(t, "the clock has moved on", func() bool { return time.Now().UTC().Format("2006-01-02T15:04:05.000Z") > middle })
	second := h.createTicket(t, map[string]any{"assigned_to": h.a.UserID})["ticket_id"].(string)
	h.do(t, "PUT", "/tickets/"+first, h.a.APIKey, map[string]any{"status_id": h.a.Statuses["Closed"]}).want(t, http.StatusOK)
	all := []string{"ticket.created", "ticket.created", "ticket.assigned", "ticket.updated", "ticket.status_changed", "ticket.closed"}

	var walked []string
	after := ""
	for pages := 1; ; pages++ {
		types, next, more := feed("limit=2&after=" + url.QueryEscape(after))
		walked, after = append(walked, types...), next
		if !more {
			if pages != 3 {
				t.Errorf("six events came on %d pages of two", pages)
			}
			break
		}
	}
	if diff := cmp.Diff(all, walked); diff != "" {
		t.Errorf("page by page (-want +got):\n%s", diff)
	}
	if types, next, _ := feed("after=" + url.QueryEscape(after)); len(types) > 0 || next != after {
		t.Errorf("behind the end are %v, and the cursor moved to %q", types, next)
	}
	h.createTicket(t)
	if types, _, _ := feed("after=" + url.QueryEscape(after)); len(types) != 1 {
		t.Errorf("the next event did not come: %v", types)
	}
	for query, want := range map[string]string{
		"types=ticket.closed,ticket.assigned&ticket_id=" + first: "ticket.closed",
		`types=["ticket.assigned"]`:                              "ticket.assigned",
		"types=invoice.paid":                                     "",
		"ticket_id=" + strings.ToUpper(second):                   "ticket.created ticket.assigned",
		"since=" + middle + "&ticket_id=" + first:                "ticket.updated ticket.status_changed ticket.closed",
		"since=2999-01-01T00:00:00Z":                             "",
		"limit=1000&types=ticket.status_changed":                 "ticket.status_changed",
	} {
		types, _, _ := feed(strings.NewReplacer("[", "%5B", "]", "%5D", `"`, "%22").Replace(query))
		if got := strings.Join(types, " "); got != want {
			t.Errorf("%s lists %q, want %q", query, got, want)
		}
	}

	// One event is the same envelope as in the feed.
	r := h.do(t, "GET", "/events?limit=1", reader, nil).want(t, http.StatusOK)
	id := r.text("data", 0, "event_id")
	one := h.do(t, "GET", "/events/"+strings.ToUpper(id), reader, nil).want(t, http.StatusOK)
	if diff := cmp.Diff(r.at("data", 0), one.at("data")); diff != "" {
		t.Errorf("event (-feed +single):\n%s", diff)
	}
	if one.text("data", "tenant_id") != h.a.TenantID || one.text("data", "data", "ticket_id") != first {
		t.Errorf("event %s", one.Raw)
	}
	h.do(t, "GET", "/events/"+id, h.b.APIKey, nil).wantError(t, http.StatusNotFound, "NOT_FOUND")
	e := h.do(t, "GET", "/events/7", reader, nil).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
	if e["message"] != "Invalid event ID format" {
		t.Errorf("message %q", e["message"])
	}

	for query, issue := range map[string]string{
		"after=yesterday":      "after custom",
		"limit=0":              "limit too_small",
		"limit=1001":           "limit too_big",
		"limit=all":            "limit invalid_type",
		"since=2026-01-01":     "since invalid_string",
		"ticket_id=TKT-1":      "ticket_id invalid_string",
		"types=ticket.deleted": "types.0 invalid_enum_value",
		"types=%5B1%5D":        "types custom",
	} {
		t.Run(query, func(t *testing.T) {
			e := h.do(t, "GET", "/events?"+query, reader, nil).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
			wantIssue(t, e, issue)
		})
	}
	h.do(t, "GET", fmt.Sprintf("/events/%s", unknownID), reader, nil).wantError(t, http.StatusNotFound, "NOT_FOUND")
}
