package api_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/ticket"
)

// stepClock goes on by a second at every look, so that no two tickets have one
// time.
func stepClock() func() time.Time {
	ticks := make(chan time.Time, 1)
	ticks <- time.Date(2031, 5, 1, 12, 0, 0, 0, time.UTC)
	return func() time.Time {
		now := <-ticks
		ticks <- now.Add(time.Second)
		return now
	}
}

func stepping(s *settings) { s.now = stepClock() }

// numbers returns the ticket numbers of a list without their prefix, as one text.
func numbers(t *testing.T, r *response) string {
	t.Helper()
	list := r.want(t, http.StatusOK).list(t)
	out := make([]string, len(list))
	for i, tk := range list {
		out[i] = strings.TrimPrefix(fmt.Sprint(tk["ticket_number"]), "TKT-100")
	}
	return strings.Join(out, " ")
}

func TestListFilters(t *testing.T) {
	t.Parallel()
	h := newHarness(t, stepping)
	uma := h.user(t, h.a.TenantID)
	board, status := h.board(t, nil)
	client := h.client(t)
	location := h.location(t, client)
	category := h.category(t, "Network", "")
	child := h.category(t, "Wi-Fi", category)
	first := h.createTicket(t, map[string]any{ // 0
		"title": "Paper jam 100%", "tags": []string{"Printer", "onsite"}, "contact_name_id": h.a.ContactID,
	})
	h.createTicket(t, map[string]any{ // 1
		"title": "No network", "category_id": category, "subcategory_id": child, "assigned_to": uma.UserID,
		"priority_id": h.a.Priorities["High"], "status_id": h.a.Statuses["In Progress"], "tags": []string{"printer"},
	})
	h.createTicket(t, map[string]any{ // 2
		"title": "Roll-out", "board_id": board, "status_id": status, "client_id": client, "location_id": location,
	})
	last := h.createTicket(t, map[string]any{"title": "paper", "status_id": h.a.Statuses["Closed"]}) // 3
	h.put(t, first["ticket_id"], map[string]any{"title": "Paper jam, 100%"})

	at := func(tk map[string]any, key string) string { return url.QueryEscape(tk[key].(string)) }
	updated := at(h.get(t, first["ticket_id"]), "updated_at")
	for query, want := range map[string]string{
		"":                          "0 1 2 3",
		"title=PAPER":               "0 3",
		"title=100%25":              "0",
		"title=1__%25":              "",
		"ticket_number=tkt-1002":    "2",
		"ticket_number=100":         "0 1 2 3",
		"search=paper":              "0 3",
		"search=tkt-1001":           "1",
		"search=harbour":            "2",
		"search=%5C":                "",
		"board_id=" + board:         "2",
		"client_id=" + client:       "2",
		"location_id=" + location:   "2",
		"status_id=" + status:       "2",
		"category_id=" + category:   "1",
		"subcategory_id=" + child:   "1",
		"assigned_to=" + uma.UserID: "1",
		"entered_by=" + h.a.UserID:  "0 1 2 3",
		"entered_by=" + uma.UserID:  "",
		"priority_id=" + strings.ToUpper(h.a.Priorities["High"]): "1",
		"contact_name_id=" + h.a.ContactID:                       "0",
		"board_id=" + unknownID:                                  "",
		"status_ids=" + status + "," + h.a.Statuses["Closed"]:    "2 3",
		"status_ids=" + url.QueryEscape(`["`+status+`"]`):        "2",
		"tags=PRINTER":           "0 1",
		"tags=onsite,%20missing": "0",
		"tags=" + url.QueryEscape(`["onsite","printer"]`): "0 1",
		"tags=missing": "",
		"client_name=" + url.QueryEscape("Harbour & Pine"): "2",
		"client_name=harbour":                              "",
		"contact_name=Alex+Doe":                            "0",
		"status_name=In+Progress":                          "1",
		"priority_name=High":                               "1",
		"category_name=Network":                            "1",
		"board_name=Projects":                              "2",
		"is_open=true":                                     "0 1 2",
		"is_open=false":                                    "0 1 2 3",
		"is_closed=true":                                   "3",
		"is_closed=false":                                  "0 1 2 3",
		"is_open=true&is_closed=true":                      "",
		"has_assignment=true":                              "1",
		"has_assignment=false":                             "0 2 3",
		"is_active=false":                                  "0 1 2 3",
		"entered_from=" + at(last, "entered_at"):           "3",
		"created_from=" + at(last, "entered_at"):           "3",
		"entered_to=" + at(first, "entered_at"):            "0",
		"created_to=" + at(first, "entered_at"):            "0",
		"entered_from=2001-01-01T00:00Z&created_from=2101-01-01T00:00:00Z": "",
		"entered_to=2101-01-01T00:00Z&created_to=2001-01-01T00:00:00.5Z":   "",
		"updated_from=" + updated:               "0",
		"updated_to=" + at(first, "entered_at"): "",
		"closed_from=" + at(last, "closed_at"):  "3",
		"closed_to=2001-01-01T00:00:00Z":        "",
		"title=paper&is_closed=true&tags=":      "3",
	} {
		r := h.do(t, "GET", "/tickets?sort=ticket_number&order=asc&"+query, h.a.APIKey, nil)
		if got := numbers(t, r); got != want {
			t.Errorf("%s: tickets %q, want %q", query, got, want)
		}
		if total := r.at("pagination", "total"); total != float64(len(strings.Fields(want))) {
			t.Errorf("%s: total %v, want %d", query, total, len(strings.Fields(want)))
		}
	}
	if got := numbers(t, h.do(t, "GET", "/tickets", h.b.APIKey, nil)); got != "" {
		t.Errorf("another tenant sees %q", got)
	}
}

func TestListSort(t *testing.T) {
	t.Parallel()
	h := newHarness(t, stepping)
	h.createTicket(t, map[string]any{"title": "b", "due_date": "2031-01-02T00:00:00Z"})
	h.createTicket(t, map[string]any{"title": "c", "status_id": h.a.Statuses["Closed"], "priority_id": h.a.Priorities["Low"]})
	h.createTicket(t, map[string]any{"title": "a", "due_date": "2031-01-01T00:00:00Z"})
	for query, want := range map[string]string{
		"":                               "2 1 0", // newest first
		"order=asc":                      "0 1 2",
		"sort=created_at&order=desc":     "2 1 0",
		"sort=title&order=asc":           "2 0 1",
		"sort=updated_at&order=asc":      "0 1 2",
		"sort=status_name&order=asc":     "1 0 2",
		"sort=priority_name&order=desc":  "2 0 1",
		"sort=is_closed":                 "1 2 0",
		"sort=due_date&order=asc":        "2 0 1", // without a value last
		"sort=due_date&order=desc":       "0 2 1",
		"sort=board_name&order=asc":      "0 1 2", // the same for all: the id decides
		"sort=ticket_number&order=desc":  "2 1 0",
		"sort=client_name&order=desc":    "2 1 0",
		"sort=category_name&order=asc":   "0 1 2",
		"sort=assigned_to&order=asc":     "0 1 2",
		"sort=subcategory_id&order=desc": "2 1 0",
	} {
		if got := numbers(t, h.do(t, "GET", "/tickets?"+query, h.a.APIKey, nil)); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
}

func TestListPages(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	empty := h.do(t, "GET", "/tickets", h.a.APIKey, nil).want(t, http.StatusOK)
	want := map[string]any{
		"data": []any{},
		"pagination": map[string]any{
			"page": 1.0, "limit": 25.0, "total": 0.0, "totalPages": 0.0, "hasNext": false, "hasPrev": false,
		},
		"meta": map[string]any{"sort": "created_at", "order": "desc", "filters": map[string]any{}},
	}
	if diff := cmp.Diff(any(want), empty.JSON); diff != "" {
		t.Error(diff)
	}
	for range 5 {
		h.createTicket(t)
	}
	for query, want := range map[string]string{
		"limit=2":              "4 3 | 1 2 5 3 true false",
		"limit=2&page=2":       "2 1 | 2 2 5 3 true true",
		"limit=2&page=3":       "0 | 3 2 5 3 false true",
		"limit=2&page=4":       " | 4 2 5 3 false true",
		"limit=2x&page=1.9":    "4 3 | 1 2 5 3 true false", // read as parseInt does
		"limit=%202":           "4 3 | 1 2 5 3 true false",
		"limit=5":              "4 3 2 1 0 | 1 5 5 1 false false",
		"limit=100&page=":      "4 3 2 1 0 | 1 100 5 1 false false",
		"page=20000000":        " | 20000000 25 5 1 false true",
		"order=asc&limit=%2b1": "0 | 1 1 5 5 true false",
	} {
		r := h.do(t, "GET", "/tickets?"+query, h.a.APIKey, nil)
		p := func(key string) any {
			if f, is := r.at("pagination", key).(float64); is {
				return int(f)
			}
			return r.at("pagination", key)
		}
		got := fmt.Sprintf("%s | %v %v %v %v %v %v", numbers(t, r),
			p("page"), p("limit"), p("total"), p("totalPages"), p("hasNext"), p("hasPrev"))
		if got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	for range 21 {
		h.createTicket(t)
	}
	if got := len(h.do(t, "GET", "/tickets/search?query=printer", h.a.APIKey, nil).want(t, http.StatusOK).list(t)); got != 25 {
		t.Errorf("a search without limit finds %d tickets, want 25", got)
	}
	meta := h.do(t, "GET", "/tickets?sort=title&order=asc&title=x&is_open=true", h.a.APIKey, nil).at("meta")
	if diff := cmp.Diff(any(map[string]any{
		"sort": "title", "order": "asc", "filters": map[string]any{"title": "x", "is_open": "true"},
	}), meta); diff != "" {
		t.Error(diff)
	}
}

func TestListFields(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	tk := h.createTicket(t, map[string]any{"tags": []string{"b", "a"}, "assigned_to": h.a.UserID})
	riders := []string{"assigned_team_id", "assigned_to", "board_id", "client_id", "entered_by", "status_id", "ticket_id"}
	fields := func(query string) map[string]any {
		t.Helper()
		return h.do(t, "GET", "/tickets?fields="+query, h.a.APIKey, nil).want(t, http.StatusOK).list(t)[0]
	}
	got := fields("title,%20updated_at")
	wantFields(t, got, map[string]any{"title": tk["title"], "updated_at": tk["updated_at"]})
	if keys := keysOf(got); !slices.Equal(keys, sorted(append(riders, "title", "updated_at"))) {
		t.Errorf("keys %v", keys)
	}
	all := []string{
		"ticket_number", "title", "status_name", "status_is_closed", "priority_name", "assigned_to_name", "client_name",
		"contact_name", "updated_at", "entered_at", "closed_at", "tags",
	}
	mobile := fields("mobile_list")
	if keys := keysOf(mobile); !slices.Equal(keys, sorted(append(riders, all...))) {
		t.Errorf("keys %v", keys)
	}
	for key, v := range mobile {
		if key != "tags" && !cmp.Equal(v, tk[key]) {
			t.Errorf("%s is %v, and %v on the ticket", key, v, tk[key])
		}
	}
	tags, _ := mobile["tags"].([]any)
	if len(tags) != 2 {
		t.Fatalf("tags %v", mobile["tags"])
	}
	first, _ := tags[0].(map[string]any)
	if keys := keysOf(first); first["tag_text"] != "a" ||
		!slices.Equal(keys, []string{"background_color", "tag_id", "tag_text", "text_color"}) {
		t.Errorf("first tag %v", first)
	}
	if got := len(fields("")); got < 40 {
		t.Errorf("an empty list of fields gave %d keys, want the whole ticket", got)
	}
	e := h.do(t, "GET", "/tickets?fields=title,secret,x", h.a.APIKey, nil).wantError(t, 400, "VALIDATION_ERROR")
	if e["message"] != "Unknown fields requested: secret, x" {
		t.Errorf("message %q", e["message"])
	}
}

func keysOf(m map[string]any) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	return sorted(keys)
}

func sorted(list []string) []string { return slices.Sorted(slices.Values(list)) }

// queryRefuses sends GET requests whose query string is wrong.
func (h *harness) queryRefuses(t *testing.T, path string, queries map[string]string) {
	t.Helper()
	for query, issue := range queries {
		e := h.do(t, "GET", path+"?"+query, h.a.APIKey, nil).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
		if e["message"] != "Query validation failed" {
			t.Errorf("%s: message %q", query, e["message"])
		}
		wantIssue(t, e, issue)
	}
}

func TestListRefuses(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	queries := map[string]string{
		"limit=101": "limit too_big", "limit=0": "limit too_small", "limit=-1": "limit too_small", "limit=abc": "limit invalid_type",
		"limit=999999999999999999999": "limit invalid_type", "page=0": "page too_small", "page=99999999": "page too_big",
		"sort=password": "sort invalid_enum_value", "sort=title;drop": "", "order=up": "order invalid_enum_value",
		"sort=title--": "sort invalid_enum_value",
		"is_open=1":    "is_open invalid_enum_value", "is_closed=yes": "is_closed invalid_enum_value",
		"has_assignment=TRUE": "has_assignment invalid_enum_value", "is_active=x": "is_active invalid_enum_value",
		"status_ids=x": "status_ids.0 invalid_string", "status_ids=[1]": "status_ids custom", "tags=[": "tags custom",
		"tags=" + strings.Repeat("a,", 500) + "b":                      "tags too_big",
		"status_ids=" + strings.Repeat(unknownID+",", 500) + unknownID: "status_ids too_big",
		"search=" + strings.Repeat("a", 1001):                          "search too_big",
		"title=%ff":                                                    "title custom", "title=a%00b": "title custom",
		"title=%zz": " custom",
	}
	delete(queries, "sort=title;drop")
	for _, key := range []string{
		"entered_from", "entered_to", "created_from", "created_to", "updated_from", "updated_to", "closed_from", "closed_to",
	} {
		queries[key+"=yesterday"] = key + " invalid_string"
		queries[key+"=2031-01-02T03:04:05%2b01:00"] = key + " invalid_string"
	}
	for _, key := range []string{
		"board_id", "client_id", "location_id", "contact_name_id", "status_id", "category_id", "subcategory_id",
		"entered_by", "assigned_to", "priority_id",
	} {
		queries[key+"=TKT-1"] = key + " invalid_string"
	}
	h.queryRefuses(t, "/tickets", queries)
}

func TestSearch(t *testing.T) {
	t.Parallel()
	h := newHarness(t, stepping)
	uma := h.user(t, h.a.TenantID)
	client := h.client(t)
	h.createTicket(t, map[string]any{"title": "Paper jam", "contact_name_id": h.a.ContactID})                      // 0
	h.createTicket(t, map[string]any{"title": "No paper", "assigned_to": uma.UserID, "client_id": client})         // 1
	h.createTicket(t, map[string]any{"title": "Old paper", "status_id": h.a.Statuses["Closed"]})                   // 2
	h.createTicket(t, map[string]any{"title": "Else", "priority_id": h.a.Priorities["High"], "client_id": client}) // 3
	for query, want := range map[string]string{
		"query=PAPER":                                                          "1 0",
		"query=tkt-100":                                                        "3 1 0",
		"query=paper&include_closed=true":                                      "2 1 0",
		"query=paper&include_closed=false":                                     "1 0",
		"query=paper&limit=1":                                                  "1",
		"query=harbour":                                                        "",
		"query=harbour&fields=client_name":                                     "3 1",
		"query=alex&fields=contact_name,title":                                 "0",
		"query=paper&fields=ticket_number":                                     "",
		"query=e&fields=" + url.QueryEscape(`["title"]`):                       "3 1 0",
		"query=paper&assigned_to_ids=" + uma.UserID + "," + unknownID:          "1",
		"query=tkt&client_ids=" + client:                                       "3 1",
		"query=tkt&priority_ids=" + h.a.Priorities["High"]:                     "3",
		"query=paper&include_closed=true&status_ids=" + h.a.Statuses["Closed"]: "2",
	} {
		if got := numbers(t, h.do(t, "GET", "/tickets/search?"+query, h.a.APIKey, nil)); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	if got := numbers(t, h.do(t, "GET", "/tickets/search?query=paper", h.b.APIKey, nil)); got != "" {
		t.Errorf("another tenant finds %q", got)
	}
	h.queryRefuses(t, "/tickets/search", map[string]string{
		"": "query invalid_type", "query=": "query too_small", "query=x&fields=secret": "fields.0 invalid_enum_value",
		"query=x&limit=101": "limit too_big", "query=x&include_closed=1": "include_closed invalid_enum_value",
		"query=x&status_ids=open": "status_ids.0 invalid_string", "query=x&client_ids=open": "client_ids.0 invalid_string",
		"query=x&priority_ids=open":    "priority_ids.0 invalid_string",
		"query=x&assigned_to_ids=open": "assigned_to_ids.0 invalid_string",
	})
}

func TestStats(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	category := h.category(t, "Network", "")
	h.createTicket(t, map[string]any{"category_id": category, "assigned_to": h.a.UserID})
	h.createTicket(t, map[string]any{"priority_id": h.a.Priorities["High"]})
	h.createTicket(t, map[string]any{"status_id": h.a.Statuses["Closed"]})
	got := h.do(t, "GET", "/tickets/stats", h.a.APIKey, nil).want(t, http.StatusOK).data(t)
	wantFields(t, got, map[string]any{
		"total_tickets": 3.0, "open_tickets": 2.0, "closed_tickets": 1.0, "unassigned_tickets": 2.0, "overdue_tickets": 0.0,
		"tickets_by_status":   map[string]any{h.a.Statuses["Open"]: 2.0, h.a.Statuses["Closed"]: 1.0},
		"tickets_by_priority": map[string]any{"Medium": 2.0, "High": 1.0},
		"tickets_by_category": map[string]any{"Network": 1.0}, "tickets_by_board": map[string]any{"Service Desk": 3.0},
		"tickets_created_today": 3.0, "tickets_created_this_week": 3.0, "tickets_created_this_month": 3.0,
	})
	other := h.do(t, "GET", "/tickets/stats", h.b.APIKey, nil).want(t, http.StatusOK).data(t)
	wantFields(t, other, map[string]any{"total_tickets": 0.0, "tickets_by_status": map[string]any{}})
}

func TestTicketStatuses(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	board, status := h.board(t, nil)
	early := h.status(t, board, map[string]any{"name": "Early", "order_number": 0, "is_closed": true, "is_default": true})
	list := h.do(t, "GET", "/tickets/statuses?board_id="+strings.ToUpper(board), h.a.APIKey, nil).want(t, http.StatusOK).at("data")
	want := []any{
		map[string]any{
			"status_id": early, "board_id": board, "name": "Early", "is_closed": true, "is_default": true, "order_number": 0.0,
		},
		map[string]any{
			"status_id": status, "board_id": board, "name": "New", "is_closed": false, "is_default": false, "order_number": 0.0,
		},
	}
	if diff := cmp.Diff(any(want), list); diff != "" {
		t.Error(diff)
	}
	var names []string
	for _, st := range h.do(t, "GET", "/tickets/statuses", h.a.APIKey, nil).want(t, http.StatusOK).list(t) {
		names = append(names, fmt.Sprint(st["name"]))
	}
	if got := strings.Join(names, ", "); got != "Open, In Progress, Waiting on Client, Closed, Early, New" {
		t.Errorf("statuses %s", got)
	}
	for i := range 100 { // which is a page of other lists
		_, err := h.store.CreateStatus(t.Context(), h.now(), h.a.TenantID, ticket.Status{BoardID: board, Name: fmt.Sprint("Step ", i), StatusType: "ticket"})
		must(t, err)
	}
	if got := len(h.do(t, "GET", "/tickets/statuses?board_id="+board, h.a.APIKey, nil).want(t, http.StatusOK).list(t)); got != 102 {
		t.Errorf("%d statuses of one board, want all 102", got)
	}
	if got := h.do(t, "GET", "/tickets/statuses?board_id="+h.b.BoardID, h.a.APIKey, nil).want(t, 200).list(t); len(got) > 0 {
		t.Errorf("statuses of another tenant's board: %v", got)
	}
	h.queryRefuses(t, "/tickets/statuses", map[string]string{"board_id=x": "board_id invalid_string"})
}

func TestTicketPriorities(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var want []any
	for _, name := range []string{"High", "Low", "Medium", "Urgent"} {
		want = append(want, map[string]any{"priority_id": h.a.Priorities[name], "priority_name": name})
	}
	got := h.do(t, "GET", "/tickets/priorities", h.a.APIKey, nil).want(t, http.StatusOK).at("data")
	if diff := cmp.Diff(any(want), got); diff != "" {
		t.Error(diff)
	}
}
