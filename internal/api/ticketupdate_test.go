package api_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestUpdateTicket(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	uma := h.user(t, h.a.TenantID)
	category := h.category(t, "Network", "")
	child := h.category(t, "Wi-Fi", category)
	location := h.location(t, h.a.ClientID)
	id := h.createTicket(t, map[string]any{"tags": []string{"old"}})["ticket_id"]
	for _, tc := range []struct {
		name   string
		body   map[string]any
		want   map[string]any
		events string
	}{
		{"title", map[string]any{"title": "New"}, map[string]any{"title": "New", "updated_by": h.a.UserID}, "ticket.updated"},
		{"url", map[string]any{"url": "ftp://x.test/y"}, map[string]any{"url": "ftp://x.test/y"}, "ticket.updated"},
		{
			"refs", map[string]any{
				"priority_id": h.a.Priorities["High"], "category_id": category, "subcategory_id": child,
				"location_id": location, "contact_name_id": h.a.ContactID,
			},
			map[string]any{
				"priority_name": "High", "category_name": "Network", "subcategory_name": "Wi-Fi",
				"location_name": "Warehouse", "contact_name": "Alex Doe",
			}, "ticket.updated",
		},
		{
			"cleared", map[string]any{
				"url": nil, "category_id": nil, "subcategory_id": nil, "location_id": nil, "contact_name_id": nil,
			},
			map[string]any{
				"url": nil, "category_name": nil, "subcategory_name": nil, "location_name": nil, "contact_name": nil,
				"contact_email": nil,
			}, "ticket.updated",
		},
		{
			"due date", map[string]any{"due_date": "2031-01-02T03:04:05.6789Z"},
			map[string]any{"due_date": "2031-01-02T03:04:05.678Z"}, "ticket.updated",
		},
		{"no due date", map[string]any{"due_date": nil}, map[string]any{"due_date": nil}, "ticket.updated"},
		{"tags", map[string]any{"tags": []string{"B", "a"}}, map[string]any{"tags": []any{"a", "b"}}, "ticket.updated"},
		{"no tags", map[string]any{"tags": []string{}}, map[string]any{"tags": []any{}}, "ticket.updated"},
		{
			"assign", map[string]any{"assigned_to": uma.UserID},
			map[string]any{"assigned_to": uma.UserID, "assigned_to_name": "Uma User"}, "ticket.updated ticket.assigned",
		},
		{
			"unassign", map[string]any{"assigned_to": nil},
			map[string]any{"assigned_to": nil, "assigned_to_name": nil}, "ticket.updated ticket.assigned",
		},
		{
			"close", map[string]any{"status_id": h.a.Statuses["Closed"]},
			map[string]any{"is_closed": true, "status_is_closed": true, "closed_by": h.a.UserID, "status_name": "Closed"},
			"ticket.updated ticket.status_changed ticket.closed",
		},
		{
			"reopen", map[string]any{"status_id": h.a.Statuses["Open"]},
			map[string]any{"is_closed": false, "closed_at": nil, "closed_by": nil}, "ticket.updated ticket.status_changed",
		},
		{"empty", map[string]any{}, nil, ""},
		{"the same again", map[string]any{"title": "New"}, nil, ""},
		{"team is dropped", map[string]any{"assigned_team_id": h.team(t)}, map[string]any{"assigned_team_id": nil}, ""},
		{
			"unknown keys are dropped", map[string]any{"ticket_number": "X-1", "tenant": h.b.TenantID, "whatever": 1},
			map[string]any{"ticket_number": "TKT-1000", "tenant": h.a.TenantID}, "",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := h.get(t, id)
			var got map[string]any
			if events := h.newEvents(t, func() { got = h.put(t, id, tc.body) }); events != tc.events {
				t.Errorf("events %q, want %q", events, tc.events)
			}
			wantFields(t, got, tc.want)
			if moved := got["updated_at"] != before["updated_at"]; moved != (tc.events != "") {
				t.Errorf("updated_at moved: %v, but the events were %q", moved, tc.events)
			}
			if diff := cmp.Diff(h.get(t, id), got); diff != "" {
				t.Errorf("the answer is not what is stored (-stored +answer):\n%s", diff)
			}
		})
	}
}

// A ticket that is sent back as it was read is no change, whatever it holds.
func TestUpdateTicketWithItself(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for name, fields := range map[string]map[string]any{
		"bare": nil,
		"full": {
			"tags": []string{"a"}, "attributes": map[string]any{"n": 1.5}, "assigned_to": h.a.UserID,
			"due_date": "2031-01-02T03:04:05Z", "contact_name_id": h.a.ContactID, "url": "https://x.test",
		},
	} {
		t.Run(name, func(t *testing.T) {
			read := h.createTicket(t, fields)
			events := h.newEvents(t, func() {
				if diff := cmp.Diff(read, h.put(t, read["ticket_id"], read)); diff != "" {
					t.Error(diff)
				}
			})
			if events != "" {
				t.Errorf("events %q", events)
			}
		})
	}
}

func TestUpdateTicketRefuses(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	board, status := h.board(t, nil)
	id := h.createTicket(t)["ticket_id"].(string)
	h.refuses(t, "PUT", "/tickets/"+id, []refusal{
		{name: "title null", body: map[string]any{"title": nil}, issue: "title invalid_type"},
		{name: "title empty", body: map[string]any{"title": ""}, issue: "title too_small"},
		{name: "title too long", body: map[string]any{"title": long(256)}, issue: "title too_big"},
		{name: "status null", body: map[string]any{"status_id": nil}, issue: "status_id invalid_type"},
		{name: "status no UUID", body: map[string]any{"status_id": "Open"}, issue: "status_id invalid_string"},
		{name: "status of another board", body: map[string]any{"status_id": status}, issue: "status_id custom"},
		{name: "board without status", body: map[string]any{"board_id": board}, issue: "status_id custom"},
		{name: "assignee a number", body: map[string]any{"assigned_to": 7}, issue: "assigned_to invalid_type"},
		{name: "tags null", body: map[string]any{"tags": nil}, issue: "tags invalid_type"},
		{name: "attributes a text", body: map[string]any{"attributes": "x"}, issue: "attributes invalid_type"},
		{name: "due_date a day", body: map[string]any{"due_date": "2031-01-02"}, issue: "due_date invalid_string"},
		{name: "override a text", body: map[string]any{"override_close_rules": "yes"}, issue: "override_close_rules invalid_type"},
		{
			name: "reason a number", body: map[string]any{"override_close_rules_reason": 1},
			issue: "override_close_rules_reason invalid_type",
		},
		{
			name: "team silenced but not the contact", body: map[string]any{"suppressInternalNotifications": true},
			issue: "suppressInternalNotifications custom",
		},
		{
			name: "good and bad together", body: map[string]any{"title": "New", "client_id": unknownID},
			code: "BAD_REQUEST", message: "Invalid reference",
		},
		{name: "client of another tenant", body: map[string]any{"client_id": h.b.ClientID}, code: "BAD_REQUEST"},
		{name: "assignee of another tenant", body: map[string]any{"assigned_to": h.b.UserID}, code: "BAD_REQUEST"},
	})
	if got := h.get(t, id); got["title"] != "Printer on fire" {
		t.Errorf("a refused update changed the title to %v", got["title"])
	}
}

func TestTicketStatus(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.createTicket(t)["ticket_id"].(string)
	path := "/tickets/" + id + "/status"
	got := h.do(t, "PUT", path, h.a.APIKey, map[string]any{
		"status_id": h.a.Statuses["Closed"], "closed_at": "2001-01-01T00:00:00Z", "closed_by": unknownID,
		"suppressContactNotifications": true, "suppressInternalNotifications": true,
	}).want(t, http.StatusOK).data(t)
	wantFields(t, got, map[string]any{"closed_by": h.a.UserID, "closed_at": got["updated_at"], "is_closed": true})
	events := h.events(t)
	if got := strings.Join(events[1:], " "); got != "ticket.updated ticket.status_changed ticket.closed" {
		t.Errorf("events %q", got)
	}
	h.refuses(t, "PUT", path, []refusal{
		{name: "no status", body: map[string]any{}, issue: "status_id invalid_type"},
		{name: "null", body: map[string]any{"status_id": nil}, issue: "status_id invalid_type"},
		{name: "unknown", body: map[string]any{"status_id": unknownID}, code: "BAD_REQUEST"},
		{name: "of another tenant", body: map[string]any{"status_id": h.b.Statuses["Open"]}, code: "BAD_REQUEST"},
		{
			name:  "closed_at a day",
			body:  map[string]any{"status_id": h.a.Statuses["Open"], "closed_at": "2001-01-01"},
			issue: "closed_at invalid_string",
		},
		{
			name: "closed_by no UUID", body: map[string]any{"status_id": h.a.Statuses["Open"], "closed_by": "me"},
			issue: "closed_by invalid_string",
		},
	})
}

func TestCloseRules(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	board, open := h.board(t, map[string]any{"close_rules": []string{"resolution_comment"}})
	closed := h.status(t, board, map[string]any{"name": "Done", "is_closed": true})
	newTicket := func() string {
		return h.createTicket(t, map[string]any{"board_id": board, "status_id": open})["ticket_id"].(string)
	}
	id := newTicket()
	for _, path := range []string{"/tickets/" + id, "/tickets/" + id + "/status"} {
		e := h.do(t, "PUT", path, h.a.APIKey, map[string]any{"status_id": closed}).
			wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
		if e["message"] != "Ticket close rules not satisfied" {
			t.Errorf("message %q", e["message"])
		}
		want := []any{map[string]any{
			"code": "custom", "path": []any{"status_id"}, "rule": "resolution_comment",
			"message": "A resolution comment is required to close this ticket",
		}}
		if diff := cmp.Diff(any(want), e["details"]); diff != "" {
			t.Error(diff)
		}
	}
	got := h.do(t, "PUT", "/tickets/"+id+"/status", h.a.APIKey, map[string]any{
		"status_id": closed, "override_close_rules": true, "override_close_rules_reason": nil,
	}).want(t, http.StatusOK)
	if got.at("data", "is_closed") != true {
		t.Error("the override did not close the ticket")
	}
	id = newTicket()
	h.do(t, "POST", "/tickets/"+id+"/comments", h.a.APIKey, map[string]any{"comment_text": "Done", "is_resolution": true}).
		want(t, http.StatusCreated)
	if h.put(t, id, map[string]any{"status_id": closed})["is_closed"] != true {
		t.Error("the resolution comment did not let the ticket be closed")
	}
}

func TestAssignment(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.createTicket(t)["ticket_id"].(string)
	path := "/tickets/" + id + "/assignment"
	for _, tc := range []struct {
		name   string
		body   any
		want   any
		events string
	}{
		{"assign", map[string]any{"assigned_to": h.a.UserID}, h.a.UserID, "ticket.updated ticket.assigned"},
		{"absent", map[string]any{}, h.a.UserID, ""},
		{"unassign", map[string]any{"assigned_to": nil}, nil, "ticket.updated ticket.assigned"},
	} {
		events := h.newEvents(t, func() {
			if got := h.do(t, "PUT", path, h.a.APIKey, tc.body).want(t, http.StatusOK).at("data", "assigned_to"); got != tc.want {
				t.Errorf("%s: assigned_to %v, want %v", tc.name, got, tc.want)
			}
		})
		if events != tc.events {
			t.Errorf("%s: events %q, want %q", tc.name, events, tc.events)
		}
	}
	h.refuses(t, "PUT", path, []refusal{
		{name: "no UUID", body: map[string]any{"assigned_to": "Ada"}, issue: "assigned_to invalid_string"},
		{name: "unknown", body: map[string]any{"assigned_to": unknownID}, code: "BAD_REQUEST"},
		{name: "of another tenant", body: map[string]any{"assigned_to": h.b.UserID}, code: "BAD_REQUEST"},
	})
}
