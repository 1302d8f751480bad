package api_test

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTeam(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	team := h.team(t)
	id := h.createTicket(t, map[string]any{"assigned_to": h.a.UserID})["ticket_id"].(string)
	path := "/tickets/" + id + "/team"
	set := func() {
		got := h.do(t, "PUT", path, h.a.APIKey, map[string]any{"team_id": team}).want(t, http.StatusOK)
		if got.at("data", "assigned_team_id") != team {
			t.Errorf("assigned_team_id %v", got.at("data", "assigned_team_id"))
		}
	}
	if events := h.newEvents(t, set); events != "ticket.updated ticket.assigned" {
		t.Errorf("events %q", events)
	}
	h.refuses(t, "PUT", path, []refusal{
		{name: "no team", body: map[string]any{}, issue: "team_id invalid_type"},
		{name: "null", body: map[string]any{"team_id": nil}, issue: "team_id invalid_type"},
		{name: "unknown", body: map[string]any{"team_id": unknownID}, code: "BAD_REQUEST", message: "Invalid reference"},
	})
	h.refuses(t, "DELETE", path, []refusal{
		{name: "mode", body: map[string]any{"mode": "some"}, issue: "mode invalid_enum_value"},
		{name: "selective without a list", body: map[string]any{"mode": "selective"}, issue: "keep_user_ids invalid_type"},
		{
			name: "selective without ids", body: map[string]any{"mode": "selective", "keep_user_ids": []any{"Uma"}},
			issue: "keep_user_ids.0 invalid_string",
		},
	})
	for _, tc := range []struct {
		name string
		body func(uma string) any
		left int
	}{
		{"remove_all by default", func(string) any { return nil }, 0},
		{"remove_all", func(string) any { return map[string]any{"mode": "remove_all"} }, 0},
		{"keep_all", func(string) any { return map[string]any{"mode": "keep_all"} }, 2},
		{"selective", func(uma string) any { return map[string]any{"mode": "selective", "keep_user_ids": []any{uma}} }, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			set()
			uma, other := h.user(t, h.a.TenantID).UserID, h.user(t, h.a.TenantID).UserID
			for _, u := range []string{uma, other} {
				h.do(t, "POST", "/tickets/"+id+"/agents", h.a.APIKey, map[string]any{"user_id": u, "role": "field"}).
					want(t, http.StatusCreated)
			}
			events := h.newEvents(t, func() {
				got := h.do(t, "DELETE", path, h.a.APIKey, tc.body(uma)).want(t, http.StatusOK)
				if got.at("data", "assigned_team_id") != nil {
					t.Error("the team is still there")
				}
			})
			if events != "ticket.updated ticket.assigned" {
				t.Errorf("events %q", events)
			}
			agents := h.do(t, "GET", "/tickets/"+id+"/agents", h.a.APIKey, nil).at("data", "additional_agents").([]any)
			if len(agents) != tc.left {
				t.Errorf("%d additional agents are left, want %d", len(agents), tc.left)
			}
			for _, a := range agents {
				h.do(t, "DELETE", "/tickets/"+id+"/agents/"+a.(map[string]any)["user_id"].(string), h.a.APIKey, nil).
					want(t, http.StatusNoContent)
			}
		})
	}
}

func TestAgents(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.createTicket(t)["ticket_id"].(string)
	path := "/tickets/" + id + "/agents"
	uma := h.user(t, h.a.TenantID)
	none := h.do(t, "GET", path, h.a.APIKey, nil).want(t, http.StatusOK).data(t)
	if diff := cmp.Diff(map[string]any{"ticket_id": id, "primary_agent": nil, "additional_agents": []any{}}, none); diff != "" {
		t.Error(diff)
	}
	add := func(user string) *response {
		return h.do(t, "POST", path, h.a.APIKey, map[string]any{"user_id": user, "role": "helper"})
	}
	events := h.newEvents(t, func() { // the first one becomes the primary agent
		if got := add(h.a.UserID).want(t, http.StatusCreated).text("data", "primary_agent", "user_id"); got != h.a.UserID {
			t.Errorf("primary agent %q", got)
		}
	})
	if events != "ticket.updated ticket.assigned" {
		t.Errorf("events %q", events)
	}
	events = h.newEvents(t, func() {
		got := add(uma.UserID).want(t, http.StatusCreated)
		want := []any{map[string]any{"user_id": uma.UserID, "name": "Uma User", "email": uma.Email, "role": "helper"}}
		if diff := cmp.Diff(any(want), got.at("data", "additional_agents")); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(got.at("data"), h.do(t, "GET", path, h.a.APIKey, nil).at("data")); diff != "" {
			t.Error(diff)
		}
	})
	if events != "" {
		t.Errorf("events %q", events)
	}
	add(uma.UserID).wantError(t, http.StatusConflict, "CONFLICT")
	add(h.a.UserID).wantError(t, http.StatusConflict, "CONFLICT")
	h.refuses(t, "POST", path, []refusal{
		{name: "no role", body: map[string]any{"user_id": uma.UserID}, issue: "role invalid_type"},
		{name: "role empty", body: map[string]any{"user_id": uma.UserID, "role": ""}, issue: "role too_small"},
		{name: "role too long", body: map[string]any{"user_id": uma.UserID, "role": long(51)}, issue: "role too_big"},
		{name: "no user", body: map[string]any{"role": "helper"}, issue: "user_id invalid_type"},
		{name: "unknown user", body: map[string]any{"user_id": unknownID, "role": "helper"}, code: "BAD_REQUEST"},
		{name: "of another tenant", body: map[string]any{"user_id": h.b.UserID, "role": "helper"}, code: "BAD_REQUEST"},
	})
	h.do(t, "DELETE", path+"/"+h.a.UserID, h.a.APIKey, nil).wantError(t, http.StatusConflict, "CONFLICT")
	h.do(t, "DELETE", path+"/Uma", h.a.APIKey, nil).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
	h.do(t, "DELETE", path+"/"+uma.UserID, h.a.APIKey, nil).want(t, http.StatusNoContent)
	h.do(t, "DELETE", path+"/"+uma.UserID, h.a.APIKey, nil).wantError(t, http.StatusNotFound, "NOT_FOUND")
}
