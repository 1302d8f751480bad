package console_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/console"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// eventTypes are those of a ticket, newest first.
func (d *desk) eventTypes(t *testing.T, id string) string {
	t.Helper()
	bodies, _, err := d.store.TicketEvents(t.Context(), d.a.TenantID, id, 10)
	if err != nil {
		t.Fatal(err)
	}
	var types []string
	for _, body := range bodies {
		_, rest, _ := strings.Cut(string(body), `"event_type":"`)
		name, _, _ := strings.Cut(rest, `"`)
		types = append(types, name)
	}
	return strings.Join(types, " ")
}

func TestPeopleOfATicket(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	tk := d.open(t, "x")
	path := "/msp/tickets/" + tk.TicketID
	user := func(first string) ticket.User {
		return must(d.store.AddUser(t.Context(), time.Now(), d.a.TenantID, ticket.User{FirstName: first, LastName: "Keeper", Email: first + "@desk.example"}))(t)
	}
	bo, cy, di := user("Bo"), user("Cy"), user("<i>Di</i>")
	team := must(d.store.AddTeam(t.Context(), time.Now(), d.a.TenantID, ticket.Team{Name: "Second line"}))(t)
	b := d.signedIn(t, d.a.APIKey)
	post := func(to string, form url.Values, want string) {
		t.Helper()
		if r, _ := b.post(path+to, form); r.StatusCode != http.StatusSeeOther || r.Header.Get("Location") != path+"?done="+want {
			t.Errorf("%s with %v answers %d and leads to %q", to, form, r.StatusCode, r.Header.Get("Location"))
		}
	}
	post("/agents", url.Values{"user_id": {bo.UserID}, "role": {"lead"}}, "agentadded")
	post("/agents", url.Values{"user_id": {"cy keeper"}, "role": {"on site"}}, "agentadded")
	post("/agents", url.Values{"user_id": {di.UserID}, "role": {"<b>"}}, "agentadded")
	post("/team", url.Values{"team_id": {team.TeamID}}, "teamset")
	_, page := b.get(path)
	for _, want := range []string{"Bo Keeper</bdi> <span class=\"tag\">primary", "Cy Keeper</bdi> <span class=\"tag\">on site", "&lt;i&gt;Di&lt;/i&gt; Keeper", "Second line"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if types := d.eventTypes(t, tk.TicketID); strings.Count(types, "ticket.assigned") != 2 {
		t.Errorf("the events are %s", types)
	}
	for _, c := range []struct {
		to   string
		form url.Values
		want string
	}{
		{"/agents", url.Values{"role": {"x"}}, "choose a user"},
		{"/agents", url.Values{"user_id": {bo.UserID}, "role": {"x"}}, "is on this ticket already"},
		{"/agents", url.Values{"user_id": {"No Body"}, "role": {"x"}}, "no user has this name"},
		{"/agents", url.Values{"user_id": {d.a.UserID}}, "at least 1 character"},
		{"/team", nil, "choose a team"},
		{"/team", url.Values{"team_id": {store.NewID()}}, "no team has this name"},
		{"/agents/" + bo.UserID + "/remove", nil, "changed by assignment"},
	} {
		if r, page := b.post(path+c.to, c.form); r.StatusCode < 400 || r.StatusCode > 409 || !strings.Contains(page, c.want) {
			t.Errorf("%s with %v answers %d without %q", c.to, c.form, r.StatusCode, c.want)
		}
	}
	post("/agents/"+di.UserID+"/remove", nil, "agentremoved")
	if r, _ := b.post(path+"/agents/"+di.UserID+"/remove", nil); r.StatusCode != http.StatusNotFound {
		t.Errorf("removing an agent again answers %d", r.StatusCode)
	}
	post("/agents", url.Values{"user_id": {di.UserID}, "role": {"again"}}, "agentadded")
	post("/team/remove", url.Values{"keep": {cy.UserID}}, "teamremoved")
	l := must(d.store.TicketAgents(t.Context(), d.a.TenantID, tk.TicketID))(t)
	if len(l.Additional) != 1 || l.Additional[0].UserID != cy.UserID || must(d.store.Ticket(t.Context(), d.a.TenantID, tk.TicketID))(t).AssignedTeamID != nil {
		t.Errorf("without the team there are %+v", l)
	}
	for _, to := range []string{"/team", "/team/remove", "/agents", "/agents/" + cy.UserID + "/remove", "/attributes", "/delete"} {
		if r, _ := d.signedIn(t, d.b.APIKey).post(path+to, url.Values{"user_id": {cy.UserID}}); r.StatusCode != http.StatusNotFound {
			t.Errorf("%s answers %d to another tenant", to, r.StatusCode)
		}
	}
}

func TestAttributesAndTags(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	tk := must(d.store.CreateTicket(t.Context(), time.Now(), d.who, ticket.Draft{
		Title: "x", BoardID: d.a.BoardID, ClientID: d.a.ClientID, StatusID: d.a.Statuses["Open"], PriorityID: d.a.Priorities["Low"], Tags: []string{"keep", "lose"},
	}))(t)
	path := "/msp/tickets/" + tk.TicketID
	b := d.signedIn(t, d.a.APIKey)
	save := func(text string) (reply, string) { return b.post(path+"/attributes", url.Values{"attributes": {text}}) }
	if r, _ := save("{\n \"asset\": \"LP-1\", \"description\": \"</textarea><b>\"}"); r.Header.Get("Location") != path+"?done=attributes" {
		t.Errorf("saving leads to %q", r.Header.Get("Location"))
	}
	if r, _ := save(`{"description":"</textarea><b>", "asset":"LP-1"}`); r.Header.Get("Location") != path+"?done=unchanged" {
		t.Errorf("saving the same leads to %q", r.Header.Get("Location"))
	}
	if _, page := b.get(path); !strings.Contains(page, "&#34;asset&#34;: &#34;LP-1&#34;") || strings.Contains(page, "</textarea><b>") {
		t.Error("the page does not show them as text")
	}
	for text, want := range map[string]string{"{\n\"a\": 1,\n}": "is no JSON, see line 3", "[1]": "Expected object, received array", "{}x": "is no JSON"} {
		if r, page := save(text); r.StatusCode != http.StatusBadRequest || !strings.Contains(page, want) || !strings.Contains(page, ">"+strings.NewReplacer(`"`, "&#34;").Replace(text)+"</textarea>") {
			t.Errorf("%q answers %d without %q or without the text", text, r.StatusCode, want)
		}
	}
	if r, _ := save(""); r.StatusCode != http.StatusSeeOther || len(must(d.store.Ticket(t.Context(), d.a.TenantID, tk.TicketID))(t).Attributes) > len("null") {
		t.Errorf("removing them answers %d", r.StatusCode)
	}
	tags := must(d.store.Tags(t.Context(), d.a.TenantID, tk.TicketID))(t)
	i := slices.IndexFunc(tags, func(x ticket.Tag) bool { return x.Text == "lose" })
	for _, want := range []string{"tagremoved", "unchanged"} {
		if r, _ := b.post(path+"/tags/"+tags[i].TagID+"/remove", nil); r.Header.Get("Location") != path+"?done="+want {
			t.Errorf("removing a tag leads to %q, want %s", r.Header.Get("Location"), want)
		}
	}
	if got := must(d.store.Ticket(t.Context(), d.a.TenantID, tk.TicketID))(t).Tags; !slices.Equal(got, []string{"keep"}) {
		t.Errorf("the tags are %v", got)
	}
	if _, page := d.signedIn(t, d.key(t, "ticket:read")).get(path); strings.Contains(page, "<form class=\"form\"") || strings.Contains(page, "Remove the tag") || strings.Contains(page, "/delete") {
		t.Error("who may only read is offered to change something")
	}
}

// A comment that was refused is shown again as it was meant: an internal note does
// not become one for everybody.
func TestCommentThatIsRefused(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	path := "/msp/tickets/" + d.open(t, "x").TicketID
	b := d.signedIn(t, d.a.APIKey)
	text := strings.Repeat("x", 5001)
	for box, want := range map[string]string{"is_internal": `name="is_internal" checked`, "is_resolution": `name="is_resolution" checked`} {
		r, page := b.post(path+"/comments", url.Values{"comment_text": {text}, box: {"on"}})
		if r.StatusCode != http.StatusBadRequest || !strings.Contains(page, text) || !strings.Contains(page, want) || strings.Count(page, " checked") != 1 {
			t.Errorf("with %s ticked the answer is %d, and the form has lost it", box, r.StatusCode)
		}
	}
	id := strings.TrimPrefix(path, "/msp/tickets/")
	for _, boxes := range []url.Values{{}, {"is_internal": {"on"}}, {"is_resolution": {"on"}}} {
		boxes.Set("comment_text", "y")
		if r, _ := b.post(path+"/comments", boxes); r.Header.Get("Location") != path+"?done=commented" {
			t.Errorf("a comment answers %d and leads to %q", r.StatusCode, r.Header.Get("Location"))
		}
		got := must(d.store.Comments(t.Context(), d.a.TenantID, id, store.CommentQuery{Desc: true, Limit: 1}))(t)[0]
		if got.IsInternal != boxes.Has("is_internal") || got.IsResolution != boxes.Has("is_resolution") {
			t.Errorf("a comment with %v is %+v", boxes, got)
		}
	}
}

// The small fields of a ticket: a status of another board moves it there, and what no
// database takes as text is none.
func TestFieldsOfATicket(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	ctx := t.Context()
	board := must(d.store.CreateBoard(ctx, time.Now(), d.a.TenantID, ticket.Board{Name: "Projects"}))(t)
	status := must(d.store.CreateStatus(ctx, time.Now(), d.a.TenantID, ticket.Status{BoardID: board.BoardID, Name: "Planned", IsDefault: true}))(t)
	var code atomic.Int64
	code.Store(200)
	hook := d.hook(t, "Secret receiver", &code)
	tk := d.open(t, "x")
	d.rows(t, hook.WebhookID, "delivered", 1)
	path := "/msp/tickets/" + tk.TicketID
	b := d.signedIn(t, d.a.APIKey)
	_, page := b.get(path)
	if open, closed := strings.Index(page, `>Open<`), strings.Index(page, `>Closed<`); open < 0 || open > closed {
		t.Error("the statuses are not in their order")
	}
	if !strings.Contains(page, `hx-trigger="every 2s"`) || !strings.Contains(page, "Secret receiver") {
		t.Error("the timeline of a ticket that has just changed is not asked for again, or lacks a delivery")
	}
	if _, page := d.signedIn(t, d.key(t, "ticket:read")).get(path); strings.Contains(page, "Secret receiver") || strings.Contains(page, "No webhook was owed") {
		t.Error("who may not read webhooks sees deliveries")
	}
	if _, page := b.get("/console/tickets/new"); !strings.Contains(page, `<option value="`+d.a.ClientID+`" selected>`) {
		t.Error("the only client is not chosen")
	}
	form := url.Values{"title": {"a\x00b\xffc"}, "status_id": {status.StatusID}, "priority_id": {d.a.Priorities["High"]}, "tags": {" vpn, ,printer "}}
	if r, _ := b.post(path, form); r.Header.Get("Location") != path+"?done=saved" {
		t.Fatalf("saving answers %d and leads to %q", r.StatusCode, r.Header.Get("Location"))
	}
	got := must(d.store.Ticket(ctx, d.a.TenantID, tk.TicketID))(t)
	if got.Title != "a\uFFFDb\uFFFDc" || got.BoardID != board.BoardID || got.PriorityID != d.a.Priorities["High"] || strings.Join(got.Tags, " ") != "printer vpn" {
		t.Errorf("the ticket is %+v", got)
	}
}

func TestDeleteATicket(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	tk := d.open(t, "<b>Wrong</b>")
	path := "/msp/tickets/" + tk.TicketID + "/delete"
	b := d.signedIn(t, d.a.APIKey)
	if r, page := b.get("/msp/tickets/" + tk.Number + "/delete"); r.StatusCode != http.StatusOK || !strings.Contains(page, "&lt;b&gt;Wrong") || !strings.Contains(page, "no webhook hears of it") {
		t.Errorf("asking answers %d", r.StatusCode)
	}
	if _, err := d.store.Ticket(t.Context(), d.a.TenantID, tk.TicketID); err != nil {
		t.Fatal("asking has deleted it")
	}
	if r, _ := b.post(path, nil); r.Header.Get("Location") != "/console/tickets?done=ticketdeleted" {
		t.Errorf("deleting leads to %q", r.Header.Get("Location"))
	}
	if r, _ := b.post(path, nil); r.StatusCode != http.StatusNotFound {
		t.Errorf("deleting it again answers %d", r.StatusCode)
	}
}

// Only a status that there is not is to be chosen again. One that cannot be read at
// the moment is no mistake of the visitor's, whatever else is wrong with the form.
func TestStatusThatCannotBeRead(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	tk := d.open(t, "x")
	b := d.signedIn(t, d.a.APIKey)
	paths := []string{"/console/tickets/new", "/msp/tickets/" + tk.TicketID}
	form := url.Values{"title": {"x"}, "status_id": {store.NewID()}, "client_id": {"nobody"}, "assigned_to": {"No Body"}}
	for _, path := range paths {
		if r, page := b.post(path, form); r.StatusCode != http.StatusBadRequest || !strings.Contains(page, "choose a status") || !strings.Contains(page, "no user has this name") {
			t.Errorf("%s with a status that there is not answers %d", path, r.StatusCode)
		}
	}
	// Every second read of the status fails, by chance, so that sometimes only that of
	// the form does and not that of the page that is shown for it.
	odd := d.a.Statuses["In Progress"]
	form.Set("status_id", odd)
	db := must(sql.Open("sqlite", "file:"+filepath.Join(d.dir, "ticketwire.db")+"?_pragma=busy_timeout(5000)"))(t)
	defer db.Close()
	for _, q := range []string{
		`alter table statuses rename to readable`,
		`create view statuses as select tenant_id, status_id, board_id, name, is_closed, is_default,
			case when status_id = '` + odd + `' and random() > 0 then 'unreadable' else order_number end as order_number,
			color, icon, created_at from readable`,
	} {
		must(db.ExecContext(t.Context(), q))(t)
	}
	for _, path := range paths {
		answers := map[int]int{}
		for range 40 {
			r, page := b.post(path, form)
			if answers[r.StatusCode]++; strings.Contains(page, "choose a status") {
				t.Fatalf("%s answers %d and to choose a status, with one that there is", path, r.StatusCode)
			}
		}
		if answers[http.StatusInternalServerError] == 0 || answers[http.StatusBadRequest] == 0 || len(answers) != 2 {
			t.Errorf("%s answers %v", path, answers)
		}
	}
}

// A store that is away is not hidden behind the mistakes of the same form.
func TestMistakesOfOneForm(t *testing.T) {
	t.Parallel()
	one, two := fault.Field("a", "is wrong"), fault.New(fault.BadReference, "No such thing")
	if err := console.Mistakes(nil, nil); err != nil {
		t.Errorf("no mistakes are %v", err)
	}
	if err := console.Mistakes(one, nil, two); !errors.Is(err, one) || !errors.Is(err, two) {
		t.Errorf("two mistakes are %v", err)
	}
	for _, away := range []error{context.DeadlineExceeded, errors.New("disk I/O error"), fault.New(fault.Unavailable, "Too many wait")} {
		if err := console.Mistakes(one, away, two); err != away { // it alone
			t.Errorf("beside %v: %v", away, err)
		}
	}
}

// What a ticket refers to is chosen by name or id, within its client and its board, and
// what is wrong stands beside its field with what was sent.
func TestReferencesOfATicket(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	tk := d.open(t, "x")
	ctx, path := t.Context(), "/msp/tickets/"+tk.TicketID
	var twins [2]ticket.User
	for i := range twins {
		twins[i] = must(d.store.AddUser(ctx, time.Now(), d.a.TenantID, ticket.User{FirstName: "Sam", LastName: "Twin", Email: fmt.Sprintf("sam%d@desk.example", i)}))(t)
	}
	for i := range 101 { // more than a list shows
		must(d.store.AddUser(ctx, time.Now(), d.a.TenantID, ticket.User{FirstName: "A", LastName: fmt.Sprintf("Other %03d", i), Email: fmt.Sprintf("a%d@desk.example", i)}))(t)
	}
	zoe := must(d.store.AddUser(ctx, time.Now(), d.a.TenantID, ticket.User{FirstName: "Zoe", LastName: "Zimmer", Email: "zoe@desk.example"}))(t)
	other := must(d.store.CreateClient(ctx, time.Now(), d.a.TenantID, ticket.Client{Name: "Elsewhere", BillingCycle: "monthly"}))(t)
	here := must(d.store.CreateLocation(ctx, time.Now(), d.a.TenantID, ticket.Location{ClientID: tk.ClientID, Name: "Warehouse 3"}))(t)
	there := must(d.store.CreateLocation(ctx, time.Now(), d.a.TenantID, ticket.Location{ClientID: other.ClientID, Name: "Attic"}))(t)
	printers := must(d.store.CreateCategory(ctx, time.Now(), d.a.TenantID, ticket.Category{BoardID: tk.BoardID, Name: "Printers"}))(t)
	label := must(d.store.CreateCategory(ctx, time.Now(), d.a.TenantID, ticket.Category{BoardID: tk.BoardID, Name: "Label printers", ParentCategory: &printers.CategoryID}))(t)
	b := d.signedIn(t, d.a.APIKey)
	post := func(done string, pairs ...string) ticket.Ticket {
		t.Helper()
		form := url.Values{}
		for i := 0; i < len(pairs); i += 2 {
			form.Set(pairs[i], pairs[i+1])
		}
		if r, page := b.post(path, form); r.Header.Get("Location") != path+"?done="+done {
			t.Errorf("%v answers %d and leads to %q\n%s", pairs, r.StatusCode, r.Header.Get("Location"), page)
		}
		return must(d.store.Ticket(ctx, d.a.TenantID, tk.TicketID))(t)
	}
	got := post("saved", "assigned_to", "zoe zimmer", "location_id", here.LocationID, "contact_name_id", "", "category_id", printers.CategoryID,
		"subcategory_id", label.CategoryID, "due_date", "2026-03-04T05:06", "url", "https://example.com/a?b=<c>")
	if *got.AssignedTo != zoe.UserID || *got.LocationID != here.LocationID || *got.SubcategoryID != label.CategoryID || got.DueDate.String() != "2026-03-04T05:06:00.000Z" || *got.URL != "https://example.com/a?b=<c>" {
		t.Errorf("the ticket is %+v", got)
	}
	_, page := b.get(path)
	for _, want := range []string{
		`name="assigned_to" value="Zoe Zimmer"`, `<option value="` + here.LocationID + `" selected>Warehouse 3`, `value="2026-03-04T05:06"`,
		`<a href="https://example.com/a?b=%3cc%3e"`, `<del><bdi>nothing</bdi></del>`, `<ins><bdi>Zoe Zimmer</bdi></ins>`, `<ins><bdi>Label printers</bdi></ins>`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(page, "Attic") {
		t.Error("the page offers a location of another client")
	}
	// Seconds that the field does not show are not lost, nor is one of two with a name.
	due := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	must(d.store.UpdateTicket(ctx, time.Now(), d.who, tk.TicketID, ticket.Patch{DueDate: ticket.Some(&due), AssignedTo: ticket.Some(&twins[1].UserID)}))(t)
	got = post("unchanged", "due_date", "2026-03-04T05:06", "assigned_to", "Sam Twin", "location_id", here.LocationID, "url", "https://example.com/a?b=<c>")
	if !got.DueDate.Equal(due) || *got.AssignedTo != twins[1].UserID {
		t.Errorf("due at %s, assigned to %s", got.DueDate, *got.AssignedTo)
	}
	r, page := b.post(path, url.Values{
		"title": {"Kept"}, "location_id": {there.LocationID}, "assigned_to": {"Nobody Here"}, "due_date": {"soon"}, "url": {"nowhere"},
	})
	if r.StatusCode != http.StatusBadRequest || !strings.Contains(page, "no user has this name") || !strings.Contains(page, "must be a day or a time") || !strings.Contains(page, `value="Kept"`) || !strings.Contains(page, `value="Nobody Here"`) {
		t.Errorf("%d %s", r.StatusCode, page)
	}
	r, page = b.post(path, url.Values{"location_id": {there.LocationID}, "url": {"nowhere"}})
	if r.StatusCode != http.StatusBadRequest || !strings.Contains(page, "does not belong to client_id") || !strings.Contains(page, "Invalid url") || !strings.Contains(page, "<details open><summary>More fields") {
		t.Errorf("%d %s", r.StatusCode, page)
	}
	post("saved", "url", "javascript:alert(1)")
	if _, page = b.get(path); strings.Contains(page, `href="javascript`) || strings.Contains(page, "ZgotmplZ") {
		t.Error("a link that is none of the web is a link")
	}
	got = post("saved", "assigned_to", "", "location_id", "", "subcategory_id", "", "category_id", "", "due_date", "", "url", "")
	if got.AssignedTo != nil || got.LocationID != nil || got.CategoryID != nil || got.DueDate != nil || got.URL != nil {
		t.Errorf("the ticket is %+v", got)
	}
	if _, names := b.get("/console/tickets/names/location_id?of_client=" + tk.ClientID + "&location_id=a"); !strings.Contains(names, "Warehouse 3") || strings.Contains(names, "Attic") {
		t.Errorf("the names are %q", names)
	}
	r, page = b.post("/console/tickets/new", url.Values{"title": {"y"}, "status_id": {tk.StatusID}, "priority_id": {tk.PriorityID}, "client_id": {""}, "assigned_to": {"Sam Twin"}})
	if r.StatusCode != http.StatusBadRequest || !strings.Contains(page, "choose a client") || !strings.Contains(page, "more than one user has this name") {
		t.Errorf("%d %s", r.StatusCode, page)
	}
}

// The ends of a span take a bare day.
func TestDaysOfDeliveries(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	b := d.signedIn(t, d.a.APIKey)
	_, page := b.get("/console/deliveries?from=2026-03-04&to=2026-03-05")
	if !strings.Contains(page, `name="from" value="2026-03-04T00:00"`) || !strings.Contains(page, `name="to" value="2026-03-05T23:59"`) {
		t.Error(page)
	}
	if r, page := b.get("/console/deliveries?from=soon"); r.StatusCode != http.StatusBadRequest || !strings.Contains(page, "must be a day or a time") {
		t.Errorf("%d %s", r.StatusCode, page)
	}
}
