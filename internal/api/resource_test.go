package api_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/ticket"
)

// names returns one field of every row of a list, as one text.
func names(t *testing.T, r *response, field string) string {
	t.Helper()
	var out []string
	for _, row := range r.want(t, http.StatusOK).list(t) {
		out = append(out, fmt.Sprint(row[field]))
	}
	return strings.Join(out, ", ")
}

// Every resource: what a created row holds, that reading gives the same, and
// that neither another tenant nor a wrong id gets at it.
func TestResources(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	category := h.category(t, "Network", "")
	for _, rc := range []struct {
		path, id string
		label    string // of the id in messages
		body     map[string]any
		want     map[string]any // beyond the body
	}{
		{
			"/boards", "board_id", "board",
			map[string]any{
				"board_name": "Projects", "description": "Long ones", "display_order": 3.0,
				"close_rules": []any{"resolution_comment"}, "is_inactive": false,
			},
			map[string]any{"tenant": h.a.TenantID, "is_default": false},
		},
		{"/boards", "board_id", "board", map[string]any{"board_name": "Bare"}, map[string]any{
			"description": nil, "display_order": 0.0, "is_inactive": false, "close_rules": []any{},
		}},
		{
			"/statuses", "status_id", "status",
			map[string]any{
				"name": "Parked", "status_type": "ticket", "board_id": h.a.BoardID, "is_closed": true, "is_default": true,
				"order_number": 9.0, "color": "#00ff7F", "icon": "pause",
			},
			map[string]any{"tenant": h.a.TenantID},
		},
		{
			"/clients", "client_id", "client",
			map[string]any{
				"client_name": "Müller & Söhne", "billing_cycle": "semi-annually", "email": "Info@mueller.example",
				"phone_no": "+49 1", "url": "https://mueller.example", "is_inactive": false,
			},
			map[string]any{"tenant": h.a.TenantID},
		},
		{
			"/contacts", "contact_name_id", "contact",
			map[string]any{"full_name": "Inês Duarte", "phone_number": "+351 2", "client_id": h.a.ClientID, "email": "ines@x.example"},
			map[string]any{"tenant": h.a.TenantID, "is_inactive": false},
		},
		{
			"/contacts", "contact_name_id", "contact",
			map[string]any{"full_name": "Nobody's", "client_id": nil, "email": "o'neil.a-b+c@mail.x.example", "is_inactive": true}, nil,
		},
		{
			"/categories/ticket", "category_id", "category",
			map[string]any{"category_name": "Wi-Fi", "board_id": h.a.BoardID, "parent_category": category, "display_order": 2.0},
			map[string]any{"tenant": h.a.TenantID},
		},
	} {
		t.Run(rc.path+" "+fmt.Sprint(rc.body), func(t *testing.T) {
			row := h.do(t, "POST", rc.path, h.a.APIKey, rc.body).want(t, http.StatusCreated).data(t)
			wantFields(t, row, rc.body)
			wantFields(t, row, rc.want)
			one := rc.path + "/" + row[rc.id].(string)
			if diff := cmp.Diff(row, h.do(t, "GET", one, h.a.APIKey, nil).want(t, http.StatusOK).data(t)); diff != "" {
				t.Errorf("created and read differ:\n%s", diff)
			}
			h.do(t, "GET", rc.path+"/"+strings.ToUpper(row[rc.id].(string)), h.a.APIKey, nil).want(t, http.StatusOK)
			h.do(t, "GET", one, h.b.APIKey, nil).wantError(t, http.StatusNotFound, "NOT_FOUND")
			h.do(t, "GET", rc.path+"/"+unknownID, h.a.APIKey, nil).wantError(t, http.StatusNotFound, "NOT_FOUND")
			e := h.do(t, "GET", rc.path+"/first", h.a.APIKey, nil).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
			if want := "Invalid " + rc.label + " ID format"; e["message"] != want {
				t.Errorf("message %q, want %q", e["message"], want)
			}
		})
	}
}

// What only the operator makes can be listed and read.
func TestReadOnlyResources(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	team := h.team(t)
	for _, rc := range []struct {
		path, id, value string
		want            map[string]any
	}{
		{"/priorities", "priority_id", h.a.Priorities["High"], map[string]any{"priority_name": "High", "item_type": "ticket"}},
		{"/users", "user_id", h.a.UserID, map[string]any{
			"first_name": "Ada", "last_name": "Alpha", "email": "admin@alpha.example", "user_type": "internal",
		}},
		{"/teams", "team_id", team, map[string]any{"team_name": "Field", "manager_id": nil}},
	} {
		one := h.do(t, "GET", rc.path+"/"+rc.value, h.a.APIKey, nil).want(t, http.StatusOK).data(t)
		wantFields(t, one, rc.want)
		if !slices.ContainsFunc(h.do(t, "GET", rc.path, h.a.APIKey, nil).want(t, http.StatusOK).list(t),
			func(row map[string]any) bool { return cmp.Equal(row, one) }) {
			t.Errorf("%s: the list lacks %v", rc.path, one)
		}
		h.do(t, "GET", rc.path+"/"+rc.value, h.b.APIKey, nil).wantError(t, http.StatusNotFound, "NOT_FOUND")
		h.do(t, "GET", rc.path+"/x", h.a.APIKey, nil).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
		h.do(t, "POST", rc.path, h.a.APIKey, map[string]any{}).wantError(t, http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED")
	}
}

func TestResourceLists(t *testing.T) {
	t.Parallel()
	h := newHarness(t, stepping)
	board, _ := h.board(t, map[string]any{"display_order": 2})
	h.do(t, "POST", "/boards", h.a.APIKey, map[string]any{"board_name": "Old", "is_inactive": true, "display_order": 1}).
		want(t, http.StatusCreated)
	client := h.client(t)
	h.location(t, client)
	h.do(t, "POST", "/clients", h.a.APIKey, map[string]any{"client_name": "Gone", "billing_cycle": "weekly", "is_inactive": true}).
		want(t, http.StatusCreated)
	h.do(t, "POST", "/contacts", h.a.APIKey, map[string]any{"full_name": "Ines", "email": "ines@x.example", "client_id": client}).
		want(t, http.StatusCreated)
	h.user(t, h.a.TenantID)
	h.do(t, "POST", "/contacts", h.a.APIKey, map[string]any{"full_name": "Left", "email": "left@x.example", "is_inactive": true}).
		want(t, http.StatusCreated)
	_, err := h.store.AddUser(t.Context(), h.now(), h.a.TenantID, ticket.User{FirstName: "Away", Email: "away@x.example", IsInactive: true})
	must(t, err)
	h.team(t)
	h.category(t, "Network", "")
	statuses := "/statuses?type=ticket&board_id=" + h.a.BoardID
	for _, tc := range []struct{ path, field, want string }{
		{"/boards", "board_name", "Projects, Service Desk"}, // by display_order, descending by default
		{"/boards?order=asc&include_inactive=true", "board_name", "Service Desk, Old, Projects"},
		{"/boards?search=DESK&include_inactive=false", "board_name", "Service Desk"},
		{"/boards?sort=board_name&order=asc", "board_name", "Projects, Service Desk"},
		{statuses, "name", "Closed, Waiting on Client, In Progress, Open"},
		{statuses + "&order=asc", "name", "Open, In Progress, Waiting on Client, Closed"},
		{statuses + "&search=wait", "name", "Waiting on Client"},
		{statuses + "&limit=1&page=2&order=asc", "name", "In Progress"},
		{"/statuses?board_id=" + strings.ToUpper(board), "name", "New"},
		{"/statuses?board_id=" + h.b.BoardID, "name", ""},
		{"/priorities?item_type=ticket&order=asc", "priority_name", "Low, Medium, High, Urgent"},
		{"/priorities?search=u&sort=priority_name", "priority_name", "Urgent, Medium"},
		{"/clients", "client_name", "Harbour & Pine, Acme Corp"},
		{"/clients?include_inactive=true&sort=client_name&order=asc", "client_name", "Acme Corp, Gone, Harbour & Pine"},
		{"/clients?search=acme", "client_name", "Acme Corp"},
		{"/clients?client_name=Acme+Corp", "client_name", "Acme Corp"},
		{"/clients?client_name=Acme", "client_name", ""},
		{"/contacts", "full_name", "Ines, Alex Doe"},
		{"/contacts?client_id=" + client, "full_name", "Ines"},
		{"/contacts?email=INES@x.example", "full_name", "Ines"},
		{"/contacts?search=acme.example", "full_name", "Alex Doe"},
		{"/contacts?sort=full_name&order=asc", "full_name", "Alex Doe, Ines"},
		{"/contacts?sort=full_name&order=asc&include_inactive=true", "full_name", "Alex Doe, Ines, Left"},
		{"/clients/" + client + "/contacts", "full_name", "Ines"},
		{"/clients/" + client + "/contacts?client_id=" + h.a.ClientID, "full_name", "Ines"},
		{"/clients/" + client + "/locations", "location_name", "Warehouse"},
		{"/clients/" + h.a.ClientID + "/locations", "location_name", ""},
		{"/users?sort=first_name&order=asc", "first_name", "Ada, Uma"},
		{"/users?search=alpha", "first_name", "Ada"},
		{"/users?search=away", "first_name", ""},
		{"/users?search=away&include_inactive=true", "first_name", "Away"},
		{"/users?email=admin@alpha.example", "first_name", "Ada"},
		{"/teams?sort=team_name&order=asc", "team_name", "Field, Support"},
		{"/teams?search=sup", "team_name", "Support"},
		{"/categories/ticket?sort=category_name&order=asc", "category_name", "Hardware, Network, Printer"},
		{"/categories/ticket?search=net", "category_name", "Network"},
		{"/categories/ticket?board_id=" + board, "category_name", ""},
	} {
		if got := names(t, h.do(t, "GET", tc.path, h.a.APIKey, nil), tc.field); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.path, got, tc.want)
		}
	}
	for _, path := range []string{
		"/boards", "/statuses", "/priorities", "/clients", "/contacts", "/users", "/teams", "/categories/ticket",
		"/clients/" + client + "/contacts", "/clients/" + client + "/locations",
	} {
		board := "&board_id=" + h.a.BoardID
		h.queryRefuses(t, path, map[string]string{
			"sort=password" + board: "sort invalid_enum_value", "order=up" + board: "order invalid_enum_value",
			"limit=101" + board: "limit too_big", "page=0" + board: "page too_small", "search=%ff" + board: "search custom",
		})
	}
	h.queryRefuses(t, "/statuses", map[string]string{
		"type=ticket": "board_id invalid_type", "board_id=": "board_id too_small", "board_id=x": "board_id invalid_string",
		"type=project&board_id=" + h.a.BoardID: "type invalid_enum_value",
	})
	h.queryRefuses(t, "/priorities", map[string]string{"item_type=project": "item_type invalid_enum_value"})
	h.queryRefuses(t, "/boards", map[string]string{"include_inactive=1": "include_inactive invalid_enum_value"})
	h.queryRefuses(t, "/contacts", map[string]string{"client_id=x": "client_id invalid_string"})
	h.queryRefuses(t, "/categories/ticket", map[string]string{"board_id=x": "board_id invalid_string"})
}

func TestOfClientNeedsTheClient(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for _, rt := range []struct {
		method, below string
		body          any
	}{
		{"GET", "/contacts", nil}, {"GET", "/locations", nil}, {"POST", "/locations", map[string]any{"location_name": "x"}},
	} {
		h.do(t, rt.method, "/clients/"+unknownID+rt.below, h.a.APIKey, rt.body).wantError(t, http.StatusNotFound, "NOT_FOUND")
		h.do(t, rt.method, "/clients/"+h.b.ClientID+rt.below, h.a.APIKey, rt.body).wantError(t, http.StatusNotFound, "NOT_FOUND")
		h.do(t, rt.method, "/clients/acme"+rt.below, h.a.APIKey, rt.body).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
	}
}

func TestCreateResourcesRefuse(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	board, _ := h.board(t, nil)
	category := h.category(t, "Network", "")
	child := h.category(t, "Wi-Fi", category)
	with := func(body map[string]any) func(string, any) map[string]any {
		return func(key string, v any) map[string]any { return merged(body, map[string]any{key: v}) }
	}
	b := with(map[string]any{"board_name": "x"})
	h.refuses(t, "POST", "/boards", []refusal{
		{name: "board", body: map[string]any{}, issue: "board_name invalid_type"},
		{name: "board name empty", body: b("board_name", ""), issue: "board_name too_small"},
		{name: "board name too long", body: b("board_name", long(256)), issue: "board_name too_big"},
		{name: "board name with NUL", body: b("board_name", "a\x00"), issue: "board_name custom"},
		{name: "board description too long", body: b("description", long(5001)), issue: "description too_big"},
		{name: "board description a number", body: b("description", 1), issue: "description invalid_type"},
		{name: "display_order a fraction", body: b("display_order", 1.5), issue: "display_order invalid_type"},
		{name: "display_order negative", body: b("display_order", -1), issue: "display_order too_small"},
		{name: "display_order too large", body: b("display_order", 1_000_001), issue: "display_order too_big"},
		{name: "is_default a text", body: b("is_default", "true"), issue: "is_default invalid_type"},
		{name: "close rule", body: b("close_rules", []string{"time_entry"}), issue: "close_rules.0 invalid_enum_value"},
	})
	s := with(map[string]any{"name": "x", "status_type": "ticket", "board_id": h.a.BoardID})
	h.refuses(t, "POST", "/statuses", []refusal{
		{name: "status", body: map[string]any{}, issue: "status_type invalid_type"},
		{name: "status without board", body: without(s("x", 1), "board_id"), issue: "board_id invalid_type"}, // contract D27
		{name: "status type", body: s("status_type", "project"), issue: "status_type invalid_enum_value"},
		{name: "status name", body: s("name", nil), issue: "name invalid_type"},
		{name: "colour", body: s("color", "#12345"), issue: "color invalid_string"},
		{name: "order_number a text", body: s("order_number", "1"), issue: "order_number invalid_type"},
		{name: "unknown board", body: s("board_id", unknownID), code: "BAD_REQUEST", message: "Invalid reference"},
		{name: "another tenant's board", body: s("board_id", h.b.BoardID), code: "BAD_REQUEST"},
	})
	c := with(map[string]any{"client_name": "x", "billing_cycle": "weekly"})
	h.refuses(t, "POST", "/clients", []refusal{
		{name: "client", body: map[string]any{}, issue: "client_name invalid_type"},
		{name: "client without cycle", body: without(c("x", 1), "billing_cycle"), issue: "billing_cycle invalid_type"},
		{name: "cycle", body: c("billing_cycle", "daily"), issue: "billing_cycle invalid_enum_value"},
		{name: "client email", body: c("email", "nobody"), issue: "email invalid_string"},
		{name: "client url too long", body: c("url", long(2049)), issue: "url too_big"},
		{name: "client url a number", body: c("url", 1), issue: "url invalid_type"},
	})
	p := with(map[string]any{"full_name": "x", "email": "x@y.example"})
	h.refuses(t, "POST", "/contacts", []refusal{
		{name: "contact", body: map[string]any{}, issue: "full_name invalid_type"},
		{name: "contact without email", body: without(p("client_id", nil), "email"), issue: "email invalid_type"},
		{name: "email with two dots", body: p("email", "a..b@y.example"), issue: "email invalid_string"},
		{name: "email with a dot first", body: p("email", ".a@y.example"), issue: "email invalid_string"},
		{name: "email too long", body: p("email", strings.Repeat("a", 246)+"@y.exampl"), issue: "email too_big"},
		{name: "email with a space", body: p("email", "a b@y.example"), issue: "email invalid_string"},
		{name: "unknown key", body: p("nickname", "y"), issue: " unrecognized_keys"},
		{name: "unknown client", body: p("client_id", unknownID), code: "BAD_REQUEST"},
		{name: "another tenant's client", body: p("client_id", h.b.ClientID), code: "BAD_REQUEST"},
		{
			name: "email taken", body: p("email", "ALEX.doe@acme.example"), status: http.StatusConflict, code: "CONFLICT",
			message: "Resource already exists",
		},
	})
	g := with(map[string]any{"category_name": "x", "board_id": h.a.BoardID})
	h.refuses(t, "POST", "/categories/ticket", []refusal{
		{name: "category", body: map[string]any{}, issue: "category_name invalid_type"},
		{name: "category without board", body: without(g("x", 1), "board_id"), issue: "board_id invalid_type"},
		{name: "parent no UUID", body: g("parent_category", "Network"), issue: "parent_category invalid_string"},
		{name: "unknown parent", body: g("parent_category", unknownID), code: "BAD_REQUEST"},
		{name: "unknown board", body: g("board_id", unknownID), code: "BAD_REQUEST"},
		{name: "parent on another board", body: merged(g("parent_category", category), map[string]any{"board_id": board}), issue: "parent_category custom"},
		{name: "parent that is a child", body: g("parent_category", child), issue: "parent_category custom"},
	})
	h.refuses(t, "POST", "/clients/"+h.a.ClientID+"/locations", []refusal{
		{name: "location", body: map[string]any{}, issue: "location_name invalid_type"},
		{name: "location name empty", body: map[string]any{"location_name": ""}, issue: "location_name too_small"},
	})
}

// A ticket with everything that was made over the API alone, as an integration
// that starts on an empty tenant does.
func TestResourcesMakeATicket(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	board, status := h.board(t, nil)
	client := h.client(t)
	_, err := h.store.AddPriority(t.Context(), h.now(), h.a.TenantID, ticket.Priority{Name: "P1"})
	must(t, err)
	priority := h.do(t, "GET", "/priorities?search=P1", h.a.APIKey, nil).text("data", 0, "priority_id")
	got := h.createTicket(t, map[string]any{
		"board_id": board, "status_id": status, "client_id": client, "priority_id": priority, "location_id": h.location(t, client),
	})
	wantFields(t, got, map[string]any{"board_name": "Projects", "status_name": "New", "client_name": "Harbour & Pine", "priority_name": "P1"})
}
