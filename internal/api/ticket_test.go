package api_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/ticket"
)

func decode[T any](t *testing.T, raw []byte) T {
	t.Helper()
	var v T
	must(t, json.Unmarshal(raw, &v))
	return v
}

// team makes a team of tenant A.
func (h *harness) team(t *testing.T) string {
	t.Helper()
	team, err := h.store.AddTeam(t.Context(), h.now(), h.a.TenantID, ticket.Team{Name: "Field"})
	must(t, err)
	return team.TeamID
}

// category makes a category of tenant A's board, below parent unless that is "".
func (h *harness) category(t *testing.T, name, parent string) string {
	t.Helper()
	body := map[string]any{"category_name": name, "board_id": h.a.BoardID}
	if parent != "" {
		body["parent_category"] = parent
	}
	return h.do(t, "POST", "/categories/ticket", h.a.APIKey, body).want(t, http.StatusCreated).text("data", "category_id")
}

func (h *harness) location(t *testing.T, client string) string {
	t.Helper()
	return h.do(t, "POST", "/clients/"+client+"/locations", h.a.APIKey, map[string]any{"location_name": "Warehouse"}).
		want(t, http.StatusCreated).text("data", "location_id")
}

func (h *harness) client(t *testing.T) string {
	t.Helper()
	body := map[string]any{"client_name": "Harbour & Pine", "billing_cycle": "weekly"}
	return h.do(t, "POST", "/clients", h.a.APIKey, body).want(t, http.StatusCreated).text("data", "client_id")
}

// board makes a second board of tenant A with one open status.
func (h *harness) board(t *testing.T, fields map[string]any) (board, status string) {
	t.Helper()
	board = h.do(t, "POST", "/boards", h.a.APIKey, merged(map[string]any{"board_name": "Projects"}, fields)).
		want(t, http.StatusCreated).text("data", "board_id")
	return board, h.status(t, board, map[string]any{"name": "New"})
}

func (h *harness) status(t *testing.T, board string, fields map[string]any) string {
	t.Helper()
	body := merged(map[string]any{"status_type": "ticket", "board_id": board}, fields)
	return h.do(t, "POST", "/statuses", h.a.APIKey, body).want(t, http.StatusCreated).text("data", "status_id")
}

// get reads a ticket of tenant A back.
func (h *harness) get(t *testing.T, id any) map[string]any {
	t.Helper()
	return h.do(t, "GET", "/tickets/"+id.(string), h.a.APIKey, nil).want(t, http.StatusOK).data(t)
}

// put updates a ticket of tenant A.
func (h *harness) put(t *testing.T, id any, body any) map[string]any {
	t.Helper()
	return h.do(t, "PUT", "/tickets/"+id.(string), h.a.APIKey, body).want(t, http.StatusOK).data(t)
}

func wantFields(t *testing.T, got, want map[string]any) {
	t.Helper()
	for key, v := range want {
		if diff := cmp.Diff(v, got[key]); diff != "" {
			t.Errorf("%s: %s", key, diff)
		}
	}
}

func TestCreateTicketWithEverything(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	uma := h.user(t, h.a.TenantID)
	category := h.category(t, "Network", "")
	child := h.category(t, "Wi-Fi", category)
	location := h.location(t, h.a.ClientID)
	created := h.createTicket(t, map[string]any{
		"title": long(255), "url": "https://example.test/a?b=c", "location_id": location,
		"board_id":        strings.ToUpper(h.a.BoardID), // ids are taken in any letter case
		"contact_name_id": h.a.ContactID, "category_id": category, "subcategory_id": child,
		"assigned_to": uma.UserID, "attributes": map[string]any{"rack": 7, "description": "a < b"},
		"tags": []string{" Printer ", "onsite", "PRINTER"}, "due_date": "2031-01-02T03:04Z",
		"entered_by": unknownID, "assigned_team_id": unknownID, "is_closed": true, // dropped (contract section 2.4)
	})
	wantFields(t, created, map[string]any{
		"tenant": h.a.TenantID, "title": long(255), "url": "https://example.test/a?b=c", "ticket_number": "TKT-1000",
		"board_id": h.a.BoardID, "board_name": "Service Desk", "status_name": "Open", "status_is_closed": false,
		"is_closed": false, "priority_name": "Medium", "client_name": "Acme Corp", "contact_name": "Alex Doe",
		"contact_email": "alex.doe@acme.example", "location_id": location, "location_name": "Warehouse",
		"category_name": "Network", "subcategory_name": "Wi-Fi", "entered_by": h.a.UserID, "entered_by_name": "Ada Alpha",
		"assigned_to": uma.UserID, "assigned_to_name": "Uma User", "assigned_team_id": nil,
		"due_date": "2031-01-02T03:04:00.000Z", "tags": []any{"onsite", "printer"}, "source": "api", "ticket_origin": "api",
		"attributes":       map[string]any{"rack": 7.0, "description": "a < b"},
		"description_html": "<p>a &lt; b</p>", "closed_at": nil, "closed_by": nil, "updated_by": nil,
	})
	if created["entered_at"] != created["updated_at"] {
		t.Errorf("entered_at %v, updated_at %v", created["entered_at"], created["updated_at"])
	}
	if got, want := strings.Join(h.events(t), " "), "ticket.created ticket.assigned"; got != want {
		t.Errorf("events %q, want %q", got, want)
	}
}

// Every route that returns a ticket returns the same one (contract section 2.1,
// "ours").
func TestTicketHasOneShape(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	created := h.createTicket(t, map[string]any{"tags": []string{"b", "a"}, "summary": "It burns"})
	id := created["ticket_id"].(string)
	shapes := map[string]any{
		"get":        h.get(t, id),
		"get upper":  h.get(t, strings.ToUpper(id)),
		"list":       h.do(t, "GET", "/tickets", h.a.APIKey, nil).at("data", 0),
		"search":     h.do(t, "GET", "/tickets/search?query=fire", h.a.APIKey, nil).at("data", 0),
		"update":     h.put(t, id, map[string]any{}),
		"assignment": h.do(t, "PUT", "/tickets/"+id+"/assignment", h.a.APIKey, map[string]any{"assigned_to": nil}).at("data"),
		"status": h.do(t, "PUT", "/tickets/"+id+"/status", h.a.APIKey, map[string]any{"status_id": created["status_id"]}).
			at("data"),
		"team": h.do(t, "DELETE", "/tickets/"+id+"/team", h.a.APIKey, nil).at("data"),
	}
	for route, got := range shapes {
		if diff := cmp.Diff(any(created), got); diff != "" {
			t.Errorf("%s (-create +%s):\n%s", route, route, diff)
		}
	}
}

func TestDescription(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for _, tc := range []struct {
		name   string
		create map[string]any
		update map[string]any
		want   any // attributes in the end
	}{
		{"summary", map[string]any{"summary": "s"}, nil, map[string]any{"description": "s"}},
		{"description before summary", map[string]any{"summary": "s", "description": "d"}, nil, map[string]any{"description": "d"}},
		{
			"beside attributes", map[string]any{"description": "d", "attributes": map[string]any{"n": 1}}, nil,
			map[string]any{"description": "d", "n": 1.0},
		},
		{
			"attributes.description wins", map[string]any{"description": "d", "attributes": map[string]any{"description": "a"}},
			nil, map[string]any{"description": "a"},
		},
		{"null is none", map[string]any{"description": nil}, nil, nil},
		{
			"update keeps the rest", map[string]any{"attributes": map[string]any{"n": 1}},
			map[string]any{"summary": "s"}, map[string]any{"description": "s", "n": 1.0},
		},
		{
			"update with attributes", map[string]any{"attributes": map[string]any{"n": 1}},
			map[string]any{"attributes": map[string]any{"m": 2}, "description": "d"}, map[string]any{"description": "d", "m": 2.0},
		},
		{
			"null removes it", map[string]any{"description": "d", "attributes": map[string]any{"n": 1}},
			map[string]any{"description": nil}, map[string]any{"n": 1.0},
		},
		{"null attributes", map[string]any{"description": "d"}, map[string]any{"attributes": nil}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := h.createTicket(t, tc.create)
			if tc.update != nil {
				got = h.put(t, got["ticket_id"], tc.update)
			}
			if diff := cmp.Diff(tc.want, got["attributes"]); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCreateTicketRefuses(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	board, status := h.board(t, nil)
	client := h.client(t)
	location, category := h.location(t, client), h.category(t, "Network", "")
	gone := h.user(t, h.a.TenantID)
	_, err := h.store.UpdateUser(t.Context(), h.a.TenantID, gone.UserID, func(u *ticket.User) error {
		u.IsInactive = true
		return nil
	})
	must(t, err)
	with := func(key string, v any) map[string]any { return h.draft(map[string]any{key: v}) }
	list := []refusal{
		{name: "empty body", body: "", issue: "title invalid_type"},
		{name: "empty object", body: map[string]any{}, issue: "board_id invalid_type", message: "Validation failed"},
		{name: "title empty", body: with("title", ""), issue: "title too_small"},
		{name: "title too long", body: with("title", long(256)), issue: "title too_big"},
		{name: "title a number", body: with("title", 7), issue: "title invalid_type"},
		{name: "title with NUL", body: with("title", "a\x00b"), issue: "title custom"},
		{name: "url", body: with("url", "not a url"), issue: "url invalid_string"},
		{name: "assigned_to null", body: with("assigned_to", nil), issue: "assigned_to invalid_type"},
		{name: "attributes a list", body: with("attributes", []int{1}), issue: "attributes invalid_type"},
		{name: "attributes null", body: with("attributes", nil), issue: "attributes invalid_type"},
		{name: "tags a text", body: with("tags", "a"), issue: "tags invalid_type"},
		{name: "tag a number", body: with("tags", []any{"a", 1}), issue: "tags.1 invalid_type"},
		{name: "tag empty", body: with("tags", []any{" "}), issue: "tags.0 too_small"},
		{name: "tag too long", body: with("tags", []any{long(51)}), issue: "tags.0 too_big"},
		{name: "51 tags", body: with("tags", tagTexts(51)), issue: "tags too_big"},
		{name: "due_date with an offset", body: with("due_date", "2031-01-02T03:04:05+01:00"), issue: "due_date invalid_string"},
		{name: "due_date of no day", body: with("due_date", "2031-02-30T03:04:05Z"), issue: "due_date invalid_string"},
		{name: "description a number", body: with("description", 7), issue: "description invalid_type"},
		{
			name: "team silenced but not the contact", body: with("suppressInternalNotifications", true),
			issue: "suppressInternalNotifications custom",
		},
		{name: "flag a text", body: with("suppressContactNotifications", "true"), issue: "suppressContactNotifications invalid_type"},
		{
			name: "status of another board", body: with("status_id", status), issue: "status_id custom",
		},
		{name: "category of another board", body: h.draft(map[string]any{
			"board_id": board, "status_id": status, "category_id": category,
		}), issue: "category_id custom"},
		{name: "location of another client", body: with("location_id", location), issue: "location_id custom"},
		{name: "subcategory that is none", body: with("subcategory_id", category), issue: "subcategory_id custom"},
		{name: "assignee who left", body: with("assigned_to", gone.UserID), issue: "assigned_to custom"},
	}
	for _, key := range []string{"title", "board_id", "client_id", "status_id", "priority_id"} {
		list = append(list, refusal{name: "no " + key, body: without(h.draft(nil), key), issue: key + " invalid_type"},
			refusal{name: key + " null", body: with(key, nil), issue: key + " invalid_type"})
	}
	foreign := map[string]string{
		"board_id": h.b.BoardID, "client_id": h.b.ClientID, "status_id": h.b.Statuses["Open"],
		"priority_id": h.b.Priorities["Low"], "contact_name_id": h.b.ContactID, "assigned_to": h.b.UserID,
		"location_id": unknownID, "category_id": unknownID, "subcategory_id": unknownID,
	}
	for key, id := range foreign {
		list = append(list,
			refusal{name: key + " no UUID", body: with(key, "TKT-1000"), issue: key + " invalid_string"},
			refusal{name: key + " unknown", body: with(key, unknownID), code: "BAD_REQUEST", message: "Invalid reference"},
			refusal{name: key + " of another tenant", body: with(key, id), code: "BAD_REQUEST", message: "Invalid reference"})
	}
	h.refuses(t, "POST", "/tickets", list)
}

// An unknown id, an id of another tenant and something that is no id, on every
// route below a ticket.
func TestTicketIDs(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.createTicket(t)["ticket_id"].(string)
	comment := h.do(t, "POST", "/tickets/"+id+"/comments", h.a.APIKey, map[string]any{"comment_text": "x"}).
		want(t, http.StatusCreated).text("data", "comment_id")
	for _, rt := range []struct {
		method, below string
		body          any
	}{
		{"GET", "", nil},
		{"PUT", "", map[string]any{"title": "x"}},
		{"DELETE", "", nil},
		{"PUT", "/status", map[string]any{"status_id": h.b.Statuses["Closed"]}},
		{"PUT", "/assignment", map[string]any{"assigned_to": nil}},
		{"PUT", "/team", map[string]any{"team_id": unknownID}},
		{"DELETE", "/team", nil},
		{"GET", "/agents", nil},
		{"POST", "/agents", map[string]any{"user_id": h.b.UserID, "role": "helper"}},
		{"DELETE", "/agents/" + unknownID, nil},
		{"GET", "/comments", nil},
		{"POST", "/comments", map[string]any{"comment_text": "x"}},
		{"PUT", "/comments/" + comment, map[string]any{"comment_text": "y"}},
		{"POST", "/comments/" + comment + "/reactions", map[string]any{"emoji": "👍"}},
	} {
		t.Run(rt.method+" "+rt.below, func(t *testing.T) {
			e := h.do(t, rt.method, "/tickets/TKT-1000"+rt.below, h.a.APIKey, rt.body).
				wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
			if e["message"] != "Invalid ticket ID format" {
				t.Errorf("message %q", e["message"])
			}
			h.do(t, rt.method, "/tickets/"+unknownID+rt.below, h.a.APIKey, rt.body).wantError(t, http.StatusNotFound, "NOT_FOUND")
			h.do(t, rt.method, "/tickets/"+id+rt.below, h.b.APIKey, rt.body).wantError(t, http.StatusNotFound, "NOT_FOUND")
		})
	}
	if e := h.do(t, "GET", "/tickets/"+unknownID, h.a.APIKey, nil).wantError(t, 404, "NOT_FOUND"); e["message"] != "ticket not found" {
		t.Errorf("message %q", e["message"])
	}
	if got := h.get(t, id); got["title"] != "Printer on fire" || got["status_name"] != "Open" {
		t.Errorf("another tenant changed the ticket: %v, %v", got["title"], got["status_name"])
	}
}

func TestDeleteTicket(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.createTicket(t)["ticket_id"].(string)
	events := h.newEvents(t, func() {
		r := h.do(t, "DELETE", "/tickets/"+id, h.a.APIKey, nil).want(t, http.StatusNoContent)
		if len(r.Raw) > 0 || r.Header.Get("Content-Type") != "" {
			t.Errorf("a 204 with a body %q of type %q", r.Raw, r.Header.Get("Content-Type"))
		}
	})
	if events != "" {
		t.Errorf("events %q", events)
	}
	h.do(t, "GET", "/tickets/"+id, h.a.APIKey, nil).wantError(t, http.StatusNotFound, "NOT_FOUND")
	h.do(t, "DELETE", "/tickets/"+id, h.a.APIKey, nil).wantError(t, http.StatusNotFound, "NOT_FOUND")
}
