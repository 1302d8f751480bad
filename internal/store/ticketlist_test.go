package store

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

func TestTicketLists(t *testing.T) {
	t.Parallel()
	exercise(t, map[string]func(*testing.T, opener){
		"filters":               listFilters,
		"every sort is stable":  listSorts,
		"rows equal the ticket": listRows,
		"search":                search,
		"case beyond ASCII":     listCases,
		"stats":                 stats,
	})
}

// letters makes four tickets a to d, a minute apart, that differ in everything a
// list can ask for. b and d are closed; d is assigned.
func letters(t *testing.T, d *desk) map[string]ticket.Ticket {
	t.Helper()
	client := must(d.CreateClient(t.Context(), start(), d.TenantID, ticket.Client{Name: "Zeta_Corp 100%", BillingCycle: "weekly"}))(t)
	full := d.everything(t)
	made := map[string]ticket.Ticket{}
	for i, name := range []string{"a", "b", "c", "d"} {
		draft := d.draft("Ticket " + name)
		switch name {
		case "b":
			draft.ClientID, draft.Tags = client.ClientID, []string{"red", "blue"}
		case "c":
			draft.PriorityID, draft.Tags = d.rows.Priorities["Urgent"], []string{"red"}
			draft.CategoryID, draft.SubcategoryID = full.CategoryID, full.SubcategoryID
			draft.DueDate = new(start().Add(-time.Hour))
		case "d":
			draft.AssignedTo, draft.ContactNameID, draft.LocationID = &d.UserID, &d.rows.ContactID, full.LocationID
			draft.StatusID = d.rows.Statuses["In Progress"]
		}
		made[name] = d.create(start().Add(time.Duration(i)*time.Minute), draft)
	}
	for i, name := range []string{"d", "b"} {
		made[name] = d.update(start().Add(time.Duration(10+i)*time.Minute), made[name].TicketID,
			ticket.Patch{StatusID: ticket.Some(d.rows.Statuses["Closed"])})
	}
	return made
}

// names returns the last letters of the titles.
func names(tickets []ticket.Ticket) string {
	var b strings.Builder
	for _, tk := range tickets {
		b.WriteByte(tk.Title[len(tk.Title)-1])
	}
	return b.String()
}

func listFilters(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	made := letters(t, d)
	at := func(minutes int) *time.Time {
		return new(made["a"].EnteredAt.Add(time.Duration(minutes) * time.Minute))
	}
	for _, c := range []struct {
		name string
		q    ticket.Query
		want string
	}{
		{"none", ticket.Query{}, "abcd"},
		{"title", ticket.Query{Title: "TICKET B"}, "b"},
		{"title wildcard is literal", ticket.Query{Title: "%"}, ""},
		{"number", ticket.Query{Number: strings.ToLower(made["c"].Number)}, "c"},
		{"search client", ticket.Query{Search: "zeta"}, "b"},
		{"search underscore", ticket.Query{Search: "a_c"}, "b"},
		{"search percent", ticket.Query{Search: "100%"}, "b"},
		{"search backslash", ticket.Query{Search: `\`}, ""},
		{"search title", ticket.Query{Search: "ticket d"}, "d"},
		{"board", ticket.Query{BoardID: strings.ToUpper(d.rows.BoardID)}, "abcd"},
		{"client", ticket.Query{ClientID: made["b"].ClientID}, "b"},
		{"location", ticket.Query{LocationID: *made["d"].LocationID}, "d"},
		{"contact", ticket.Query{ContactNameID: d.rows.ContactID}, "d"},
		{"status", ticket.Query{StatusID: d.rows.Statuses["Closed"]}, "bd"},
		{"statuses", ticket.Query{StatusIDs: []string{d.rows.Statuses["Closed"], strings.ToUpper(d.rows.Statuses["Open"])}}, "abcd"},
		{"category", ticket.Query{CategoryID: *made["c"].CategoryID}, "c"},
		{"subcategory", ticket.Query{SubcategoryID: *made["c"].SubcategoryID}, "c"},
		{"entered by", ticket.Query{EnteredBy: d.UserID}, "abcd"},
		{"assigned to", ticket.Query{AssignedTo: d.UserID}, "d"},
		{"priority", ticket.Query{PriorityID: d.rows.Priorities["Urgent"]}, "c"},
		{"tags", ticket.Query{Tags: []string{" RED "}}, "bc"},
		{"any tag", ticket.Query{Tags: []string{"blue", "green"}}, "b"},
		{"no such tag", ticket.Query{Tags: []string{"", strings.Repeat("x", 99)}}, ""},
		{"client name", ticket.Query{ClientName: "Zeta_Corp 100%"}, "b"},
		{"contact name", ticket.Query{ContactName: "Alex Doe"}, "d"},
		{"status name", ticket.Query{StatusName: "Open"}, "ac"},
		{"priority name", ticket.Query{PriorityName: "Urgent"}, "c"},
		{"category name", ticket.Query{CategoryName: "Hardware"}, "c"},
		{"board name", ticket.Query{BoardName: "service desk"}, ""},
		{"open", ticket.Query{OnlyOpen: true}, "ac"},
		{"closed", ticket.Query{OnlyClosed: true}, "bd"},
		{"assigned", ticket.Query{HasAssignment: new(true)}, "d"},
		{"unassigned", ticket.Query{HasAssignment: new(false)}, "abc"},
		{"entered, inclusive", ticket.Query{EnteredFrom: at(1), EnteredTo: at(2)}, "bc"},
		{"updated from", ticket.Query{UpdatedFrom: at(10)}, "bd"},
		{"updated to", ticket.Query{UpdatedTo: at(9)}, "ac"},
		{"closed at", ticket.Query{ClosedFrom: at(10), ClosedTo: at(10)}, "d"},
		{"several", ticket.Query{OnlyClosed: true, Tags: []string{"red"}}, "b"},
	} {
		page, total, err := d.Tickets(t.Context(), d.TenantID, c.q)
		if err != nil || names(page) != c.want || total != len(c.want) {
			t.Errorf("%s: got %q of %d (%v), want %q", c.name, names(page), total, err, c.want)
		}
	}
	_, _, err := d.Tickets(t.Context(), d.TenantID, ticket.Query{Sort: "t.title; drop table tickets"})
	wantKind(t, "an unknown sort column", err, fault.Invalid)
}

func listSorts(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	letters(t, d)
	want := map[string]string{ // ascending
		"created_at": "abcd", "entered_at": "abcd", "title": "abcd", "ticket_number": "abcd", "ticket_id": "abcd",
		"updated_at": "acdb", "client_name": "acdb", "status_name": "bdac", "closed_at": "dbac", "due_date": "cabd",
		"category_name": "cabd", "assigned_to": "dabc", "is_closed": "acbd", "priority_name": "abdc",
	}
	for _, column := range ticket.SortColumns() {
		for _, desc := range []bool{false, true} {
			q := ticket.Query{Sort: column, Desc: desc, Limit: 100}
			all, _, err := d.Tickets(t.Context(), d.TenantID, q)
			if err != nil || len(all) != 4 {
				t.Fatalf("%s: %d tickets, %v", column, len(all), err)
			}
			if order := want[column]; order != "" && !desc && names(all) != order {
				t.Errorf("sort %s: %s, want %s", column, names(all), order)
			}
			var paged []ticket.Ticket
			for q.Page, q.Limit = 1, 1; q.Page <= 5; q.Page++ {
				page, total, err := d.Tickets(t.Context(), d.TenantID, q)
				if err != nil || total != 4 {
					t.Fatalf("%s page %d: total %d, %v", column, q.Page, total, err)
				}
				paged = append(paged, page...)
			}
			if names(paged) != names(all) {
				t.Errorf("sort %s, desc %v: pages give %s, the list %s", column, desc, names(paged), names(all))
			}
		}
	}
	page, total, err := d.Tickets(t.Context(), d.TenantID, ticket.Query{Page: 1 << 62, Limit: 100})
	if err != nil || len(page) != 0 || total != 4 {
		t.Errorf("the page after the last one: %d of %d, %v", len(page), total, err)
	}
}

func listRows(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	made := d.create(start(), d.everything(t))
	page, _, err := d.Tickets(t.Context(), d.TenantID, ticket.Query{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]ticket.Ticket{made}, page); diff != "" {
		t.Errorf("made and listed differ (-made +listed):\n%s", diff)
	}
	found := must(d.SearchTickets(t.Context(), d.TenantID, ticket.SearchQuery{Text: "printer"}))(t)
	if diff := cmp.Diff(page, found); diff != "" {
		t.Errorf("listed and found differ (-listed +found):\n%s", diff)
	}
	if raw, err := json.Marshal(page[0]); err != nil || !strings.Contains(string(raw), `"documents":[]`) {
		t.Errorf("%s, %v", raw, err)
	}
}

func search(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	made := letters(t, d)
	for _, c := range []struct {
		name string
		q    ticket.SearchQuery
		want string
	}{
		{"newest first, open only", ticket.SearchQuery{Text: "ticket"}, "ca"},
		{"closed too", ticket.SearchQuery{Text: "ticket", IncludeClosed: true}, "dcba"},
		{"limit", ticket.SearchQuery{Text: "ticket", IncludeClosed: true, Limit: 2}, "dc"},
		{"number", ticket.SearchQuery{Text: made["a"].Number}, "a"},
		{"client is not searched by default", ticket.SearchQuery{Text: "zeta", IncludeClosed: true}, ""},
		{"client", ticket.SearchQuery{Text: "zeta", Fields: []string{"client_name"}, IncludeClosed: true}, "b"},
		{"contact", ticket.SearchQuery{Text: "alex", Fields: []string{"title", "contact_name"}, IncludeClosed: true}, "d"},
		{"title only", ticket.SearchQuery{Text: made["a"].Number, Fields: []string{"title"}}, ""},
		{"status", ticket.SearchQuery{Text: "t", StatusIDs: []string{d.rows.Statuses["Closed"]}, IncludeClosed: true}, "db"},
		{"priority", ticket.SearchQuery{Text: "t", PriorityIDs: []string{d.rows.Priorities["Urgent"]}}, "c"},
		{"client id", ticket.SearchQuery{Text: "t", ClientIDs: []string{made["b"].ClientID}, IncludeClosed: true}, "b"},
		{"assigned", ticket.SearchQuery{Text: "t", AssignedToIDs: []string{strings.ToUpper(d.UserID)}, IncludeClosed: true}, "d"},
		{"wildcard is literal", ticket.SearchQuery{Text: "_"}, ""},
	} {
		if got := names(must(d.SearchTickets(t.Context(), d.TenantID, c.q))(t)); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func stats(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	empty := must(d.TicketStats(t.Context(), start(), d.TenantID))(t)
	if empty.Total != 0 || empty.ByStatus == nil || empty.ByPriority == nil || empty.ByCategory == nil || empty.ByBoard == nil {
		t.Errorf("empty: %+v", empty)
	}
	letters(t, d)
	for _, c := range []struct {
		after            time.Duration
		day, week, month int
	}{{time.Hour, 4, 4, 4}, {24 * time.Hour, 0, 4, 4}, {8 * 24 * time.Hour, 0, 0, 4}, {31 * 24 * time.Hour, 0, 0, 0}} {
		got := must(d.TicketStats(t.Context(), start().Add(c.after), d.TenantID))(t)
		want := ticket.Stats{
			Total: 4, Open: 2, Closed: 2, Unassigned: 3, Overdue: 1,
			ByStatus:   map[string]int{d.rows.Statuses["Open"]: 2, d.rows.Statuses["Closed"]: 2},
			ByPriority: map[string]int{"Medium": 3, "Urgent": 1},
			ByCategory: map[string]int{"Hardware": 1},
			ByBoard:    map[string]int{"Service Desk": 4},
			CreatedDay: c.day, CreatedWeek: c.week, CreatedMonth: c.month,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("after %v (-want +got):\n%s", c.after, diff)
		}
	}
}

func TestResources(t *testing.T) {
	t.Parallel()
	exercise(t, map[string]func(*testing.T, opener){
		"lists filter, sort and page":  resourceLists,
		"parents have to exist":        resourceParents,
		"a default replaces the other": resourceDefaults,
	})
}

func resourceLists(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	for i := range 4 {
		must(d.CreateBoard(t.Context(), start(), d.TenantID, ticket.Board{
			Name: fmt.Sprint("board ", i), DisplayOrder: 9 - i, IsInactive: i == 3,
		}))(t)
	}
	for _, c := range []struct {
		name  string
		q     ResourceQuery
		want  []string
		total int
	}{
		{"own order", ResourceQuery{}, []string{"Service Desk", "board 2", "board 1", "board 0"}, 4},
		{"backwards", ResourceQuery{Desc: true, Limit: 2}, []string{"board 0", "board 1"}, 4},
		{"second page", ResourceQuery{Page: 2, Limit: 3}, []string{"board 0"}, 4},
		{"all", ResourceQuery{All: true, IncludeInactive: true, Sort: "board_name", Limit: 1},
			[]string{"Service Desk", "board 0", "board 1", "board 2", "board 3"}, 5},
		{"search", ResourceQuery{Search: "BOARD 1"}, []string{"board 1"}, 1},
		{"name", ResourceQuery{Name: "board 2"}, []string{"board 2"}, 1},
		{"past the end", ResourceQuery{Page: 9}, []string{}, 4},
		{"created", ResourceQuery{Sort: "created_at", Limit: 1}, []string{"Service Desk"}, 4},
	} {
		boards, total, err := d.Boards(t.Context(), d.TenantID, c.q)
		got := make([]string, len(boards))
		for i, b := range boards {
			got[i] = b.Name
		}
		if err != nil || !slices.Equal(got, c.want) || total != c.total {
			t.Errorf("%s: got %q of %d (%v), want %q of %d", c.name, got, total, err, c.want, c.total)
		}
	}
	_, _, err := d.Boards(t.Context(), d.TenantID, ResourceQuery{Sort: "close_rules"})
	wantKind(t, "an unknown sort column", err, fault.Invalid)
	statuses, total, err := d.Statuses(t.Context(), d.TenantID, ResourceQuery{BoardID: strings.ToUpper(d.rows.BoardID)})
	if err != nil || total != 4 || statuses[0].Name != "Open" || !statuses[0].IsDefault || !statuses[3].IsClosed {
		t.Errorf("statuses are %+v of %d, %v", statuses, total, err)
	}
	contacts, _, err := d.Contacts(t.Context(), d.TenantID, ResourceQuery{Email: "ALEX.doe@acme.example", ClientID: d.rows.ClientID})
	if err != nil || len(contacts) != 1 || contacts[0].ContactNameID != d.rows.ContactID {
		t.Errorf("contacts are %+v, %v", contacts, err)
	}
	users, _, err := d.Users(t.Context(), d.TenantID, ResourceQuery{Search: "lovelace", Email: "Acme@desk.example"})
	if err != nil || len(users) != 1 || users[0].UserID != d.UserID || len(users[0].Permissions) == 0 {
		t.Errorf("users are %+v, %v", users, err)
	}
}

func resourceParents(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	nobody := NewID()
	board := must(d.CreateBoard(t.Context(), start(), d.TenantID, ticket.Board{Name: "Other"}))(t)
	hardware, _, err := d.Categories(t.Context(), d.TenantID, ResourceQuery{Name: "Hardware"})
	if err != nil || len(hardware) != 1 {
		t.Fatalf("%+v, %v", hardware, err)
	}
	parent := &hardware[0].CategoryID
	_, err = d.CreateStatus(t.Context(), start(), d.TenantID, ticket.Status{Name: "x", BoardID: nobody})
	wantKind(t, "status of an unknown board", err, fault.BadReference)
	_, err = d.CreateCategory(t.Context(), start(), d.TenantID, ticket.Category{Name: "x", BoardID: nobody})
	wantKind(t, "category of an unknown board", err, fault.BadReference)
	_, err = d.CreateCategory(t.Context(), start(), d.TenantID, ticket.Category{Name: "x", BoardID: board.BoardID, ParentCategory: &nobody})
	wantKind(t, "category below an unknown one", err, fault.BadReference)
	_, err = d.CreateCategory(t.Context(), start(), d.TenantID, ticket.Category{Name: "x", BoardID: board.BoardID, ParentCategory: parent})
	wantKind(t, "category below one of another board", err, fault.Invalid)
	_, err = d.CreateLocation(t.Context(), start(), d.TenantID, ticket.Location{Name: "x", ClientID: nobody})
	wantKind(t, "location of an unknown client", err, fault.BadReference)
	_, err = d.CreateContact(t.Context(), start(), d.TenantID, ticket.Contact{FullName: "x", Email: "x@y", ClientID: &nobody})
	wantKind(t, "contact of an unknown client", err, fault.BadReference)
	_, err = d.CreateContact(t.Context(), start(), d.TenantID, ticket.Contact{FullName: "x", Email: " Alex.Doe@ACME.example"})
	wantKind(t, "the same address again", err, fault.Conflict)
	_, err = d.AddTeam(t.Context(), start(), d.TenantID, ticket.Team{Name: "x", ManagerID: &nobody})
	wantKind(t, "team of an unknown manager", err, fault.BadReference)
	_, err = d.CreateBoard(t.Context(), start(), d.TenantID, ticket.Board{Name: "x", CloseRules: []string{"open_children"}})
	wantKind(t, "an unknown close rule", err, fault.Invalid)
}

func resourceDefaults(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	next := must(d.CreateBoard(t.Context(), start(), d.TenantID, ticket.Board{Name: "New", IsDefault: true}))(t)
	if old := must(d.Board(t.Context(), d.TenantID, d.rows.BoardID))(t); old.IsDefault || !next.IsDefault {
		t.Error("there are two default boards, or none")
	}
	must(d.CreateStatus(t.Context(), start(), d.TenantID, ticket.Status{Name: "x", BoardID: next.BoardID, IsDefault: true}))(t)
	if st := must(d.Status(t.Context(), d.TenantID, d.rows.Statuses["Open"]))(t); !st.IsDefault {
		t.Error("a default of another board was taken away")
	}
	must(d.CreateStatus(t.Context(), start(), d.TenantID, ticket.Status{Name: "y", BoardID: d.rows.BoardID, IsDefault: true}))(t)
	if st := must(d.Status(t.Context(), d.TenantID, d.rows.Statuses["Open"]))(t); st.IsDefault {
		t.Error("the board has two default statuses")
	}
}

// Case does not count in any script (contract section 2.3), and a letter that only
// looks like another is another.
func listCases(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	d.create(start(), d.draft("MÜLLER Straße 100% ΟΔΟΣ Ёлка"))
	d.create(start().Add(time.Minute), d.draft("Muller strasse"))
	var many []rune
	for r := 'а'; r <= 'я'; r++ {
		many = append(many, r)
	}
	for r := 'α'; r <= 'ω'; r++ {
		many = append(many, r)
	}
	d.create(start().Add(2*time.Minute), d.draft(string(many)+"x"))
	for _, c := range []struct{ text, want string }{ // want is how the one title ends
		{"müller", "Ёлка"},
		{"MÜLLER STRAẞE 100%", "Ёлка"},
		{"οδος", "Ёлка"},
		{"οδοσ", "Ёлка"},
		{"ёЛКА", "Ёлка"},
		{"MULLER", "strasse"},
		{"ü_", ""},
		{strings.Repeat("ß", 1000), ""},
		{strings.ToUpper(string(many)), "x"},
		{string(many) + "X", "x"},
		{strings.ToUpper(string(many)) + "ԱԲԳԴԵԶԷԸԹԺԻԼԽԾԿՀՁՂՃՄՅՆՇՈՉՊՋՌՍՎՏՐՑՒՓՔՕՖ", ""}, // more than are respelt
	} {
		check := func(how string, list []ticket.Ticket, err error) {
			if fits := len(list) == 0 && c.want == "" ||
				len(list) == 1 && c.want != "" && strings.HasSuffix(list[0].Title, c.want); !fits || err != nil {
				t.Errorf("%s %q: %d tickets, error %v, want one that ends in %q", how, c.text, len(list), err, c.want)
			}
		}
		list, _, err := d.Tickets(t.Context(), d.TenantID, ticket.Query{Title: c.text})
		check("title", list, err)
		list, _, err = d.Tickets(t.Context(), d.TenantID, ticket.Query{Search: c.text})
		check("search", list, err)
		list, err = d.SearchTickets(t.Context(), d.TenantID, ticket.SearchQuery{Text: c.text, Limit: 9})
		check("the search route with", list, err)
	}
}
