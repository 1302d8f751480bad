package console_test

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// Every filter finds its tickets and no others, by id and by name, is shown as a
// chip, and is gone at the address of the chip.
func TestTicketFilters(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	ctx, now, tenant := t.Context(), time.Now(), d.a.TenantID
	board, err := d.store.CreateBoard(ctx, now, tenant, ticket.Board{Name: "Night"})
	must(board, err)(t)
	status := must(d.store.CreateStatus(ctx, now, tenant, ticket.Status{BoardID: board.BoardID, Name: "Dark", StatusType: "ticket", IsDefault: true}))(t)
	client := must(d.store.CreateClient(ctx, now, tenant, ticket.Client{Name: "Zoo & Sons", BillingCycle: "monthly"}))(t)
	contact := must(d.store.CreateContact(ctx, now, tenant, ticket.Contact{FullName: "Zed Zebra", Email: "zed@zoo.example", ClientID: &client.ClientID}))(t)
	place := must(d.store.CreateLocation(ctx, now, tenant, ticket.Location{ClientID: client.ClientID, Name: "Cage 3"}))(t)
	category := must(d.store.CreateCategory(ctx, now, tenant, ticket.Category{Name: "Animals", BoardID: board.BoardID}))(t)
	sub := must(d.store.CreateCategory(ctx, now, tenant, ticket.Category{Name: "Striped", BoardID: board.BoardID, ParentCategory: &category.CategoryID}))(t)
	user := must(d.store.AddUser(ctx, now, tenant, ticket.User{FirstName: "Bo", LastName: "Keeper", Email: "bo@desk.example"}))(t)
	d.open(t, "The other one")
	wanted := must(d.store.CreateTicket(ctx, now.Add(-48*time.Hour), ticket.Actor{TenantID: tenant, UserID: user.UserID}, ticket.Draft{
		Title: "Zebra out", BoardID: board.BoardID, ClientID: client.ClientID, StatusID: status.StatusID, PriorityID: d.a.Priorities["High"],
		ContactNameID: &contact.ContactNameID, LocationID: &place.LocationID, CategoryID: &category.CategoryID, SubcategoryID: &sub.CategoryID,
		AssignedTo: &user.UserID, Tags: []string{"escape"},
	}))(t)
	must(d.store.CreateTicket(ctx, now.Add(-72*time.Hour), d.who, ticket.Draft{
		Title: "Done", BoardID: d.a.BoardID, ClientID: d.a.ClientID, StatusID: d.a.Statuses["Closed"], PriorityID: d.a.Priorities["Low"],
	}))(t)
	day := func(days int) string { return now.UTC().AddDate(0, 0, days).Format(time.DateOnly) }
	b := d.signedIn(t, d.a.APIKey)
	find := func(query string) (titles []string, page string) {
		t.Helper()
		r, page := b.get("/console/tickets?" + query)
		if r.StatusCode != http.StatusOK {
			t.Fatalf("%s answers %d", query, r.StatusCode)
		}
		for _, m := range regexp.MustCompile(`<td class="main"><a [^>]*><span class="mono">[^<]*</span> <bdi>([^<]*)`).FindAllStringSubmatch(page, -1) {
			titles = append(titles, m[1])
		}
		return titles, page
	}
	for query, want := range map[string]string{
		"board=" + board.BoardID: "Zebra out", "board=night": "Zebra out", "client=" + strings.ToUpper(client.ClientID): "Zebra out",
		"client=zoo+%26+sons": "Zebra out", "contact=" + contact.ContactNameID: "Zebra out", "contact=Zed+Zebra": "Zebra out",
		"location=" + place.LocationID: "Zebra out", "category=Animals": "Zebra out", "subcategory=" + sub.CategoryID: "Zebra out",
		"entered_by=" + user.UserID: "Zebra out", "assigned=Bo+Keeper": "Zebra out", "assigned=somebody": "Zebra out",
		"assigned=nobody": "Done|The other one", "priority=high": "Zebra out", "title=ebra": "Zebra out", "number=" + wanted.Number: "Zebra out",
		"statuses=" + status.StatusID + "&statuses=" + d.a.Statuses["Closed"]: "Done|Zebra out", "status=" + status.StatusID: "Zebra out",
		"tags=escape": "Zebra out", "state=closed": "Done", "closed_from=" + day(-4): "Done", "closed_to=" + day(-4): "", "closed_to=" + day(-3): "Done",
		"opened_to=" + day(-1): "Done|Zebra out", "opened_from=" + day(-1): "The other one", "from=" + day(-2) + "&to=" + day(-2): "Zebra out",
	} {
		titles, page := find(query)
		want := strings.Split(want, "|")
		if want[0] == "" {
			want = nil
		}
		if len(titles) != len(want) {
			t.Errorf("%s finds %v, want %v", query, titles, want)
		}
		for _, title := range want {
			if !strings.Contains(strings.Join(titles, "|"), title) {
				t.Errorf("%s finds %v, want %v", query, titles, want)
			}
		}
		chips := regexp.MustCompile(`href="([^"]*)" aria-label="Without`).FindAllStringSubmatch(page, -1)
		if len(chips) == 0 {
			t.Errorf("%s has no chip", query)
		}
		for _, m := range chips {
			if strings.Contains(query, "&") == strings.HasSuffix(m[1], "/tickets") {
				t.Errorf("without a filter, %s is %q", query, m[1])
			}
		}
	}
	// A chip says the name, and the form holds what was chosen.
	_, page := find("client=" + client.ClientID + "&location=Cage+3")
	for _, want := range []string{"Zoo &amp; Sons</bdi>", `value="` + client.ClientID + `" selected`, `value="` + place.LocationID + `" selected`, `href="/console/tickets?location=Cage&#43;3"`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	// A filter that is folded away is unfolded when it applies.
	for query, open := range map[string]bool{"statuses=" + status.StatusID: true, "board=night": true, "status=" + status.StatusID: false, "search=x&state=open&assigned=nobody": false, "": false} {
		if _, page := find(query); strings.Contains(page, "<details open><summary>More filters") != open {
			t.Errorf("with %q the other filters are open: %t", query, !open)
		}
	}
	// What is not clear is said beside its field, and nothing is listed.
	must(d.store.CreateLocation(ctx, now, tenant, ticket.Location{ClientID: d.a.ClientID, Name: "Cage 3"}))(t)
	for query, want := range map[string]string{
		"client=Nobody%27s": "no client has this name", "location=cage+3": "more than one location has this name", "state=x": "must be open or closed",
		"closed_from=soon": "must be a day or a time", "status=" + d.a.UserID: "there is no such status", "board=" + store.NewID(): "no board has this name",
		"after=x": "Invalid cursor",
	} {
		r, page := b.get("/console/tickets?" + query)
		if r.StatusCode != http.StatusBadRequest || !strings.Contains(page, want) || strings.Contains(page, "Zebra out") {
			t.Errorf("%s answers %d without %q", query, r.StatusCode, want)
		}
	}
	// Another tenant's ids and names are none.
	for _, query := range []string{"client=" + client.ClientID, "client=Zoo+%26+Sons"} {
		if r, page := d.signedIn(t, d.b.APIKey).get("/console/tickets?" + query); r.StatusCode != http.StatusBadRequest || strings.Contains(page, "Zoo") && !strings.Contains(query, "Zoo") {
			t.Errorf("%s answers %d to another tenant", query, r.StatusCode)
		}
	}
}

// More names than a page should have are completed while typing.
func TestManyNamesAreCompleted(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	var last ticket.Client
	for i := range 101 {
		last = must(d.store.CreateClient(t.Context(), time.Now(), d.a.TenantID, ticket.Client{Name: fmt.Sprintf("Customer %03d <b>", i), BillingCycle: "monthly"}))(t)
	}
	b := d.signedIn(t, d.a.APIKey)
	_, page := b.get("/console/tickets")
	if n := strings.Count(page, `<option value="Customer`); n == 0 || n > 100 || !strings.Contains(page, `list="names-client"`) {
		t.Errorf("the page has %d names", n)
	}
	r, names := b.get("/console/tickets/names/client?client=" + url.QueryEscape("mer 100"))
	if r.StatusCode != http.StatusOK || strings.TrimSpace(names) != `<option value="Customer 100 &lt;b&gt;"></option>` {
		t.Errorf("%d %q", r.StatusCode, names)
	}
	if r, names := b.get("/console/tickets/names/assigned?assigned=Ada+Love"); r.StatusCode != http.StatusOK || !strings.Contains(names, "Ada Lovelace") {
		t.Errorf("%d %q", r.StatusCode, names)
	}
	if _, names := d.signedIn(t, d.b.APIKey).get("/console/tickets/names/client?client=Customer"); strings.Contains(names, "option") {
		t.Errorf("another tenant's names: %q", names)
	}
	if r, _ := b.get("/console/tickets/names/secrets"); r.StatusCode != http.StatusNotFound {
		t.Errorf("an unknown list answers %d", r.StatusCode)
	}
	r, page = b.get("/console/tickets?client=" + last.ClientID)
	if r.StatusCode != http.StatusOK || !strings.Contains(page, `name="client" value="Customer 100`) {
		t.Errorf("a chosen client answers %d", r.StatusCode)
	}
}

// What two filters choose among is asked for once, whatever is chosen, and each of
// them has its own of it.
func TestNamesAreAskedForOnce(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	user := must(d.store.AddUser(t.Context(), time.Now(), d.a.TenantID, ticket.User{FirstName: "Bo", LastName: "Gone", Email: "bo@desk.example", IsInactive: true}))(t)
	once := map[string]int{"user": 1, "priority": 1, "client": 1, "contact": 1, "location": 1, "board": 1, "category": 1}
	for _, filters := range []url.Values{
		{}, {"client": {d.a.ClientID}, "board": {d.a.BoardID}, "assigned": {"nobody"}, "entered_by": {d.a.UserID}}, {"assigned": {user.UserID}},
	} {
		asked, err := d.srv.NamesAsked(t.Context(), d.a.TenantID, filters)
		if diff := cmp.Diff(once, asked); diff != "" || err != nil {
			t.Errorf("%v: %v (-want +got):\n%s", filters, err, diff)
		}
	}
	_, page := d.signedIn(t, d.a.APIKey).get("/console/tickets?assigned=" + user.UserID)
	if n := strings.Count(page, "Bo Gone</option>"); n != 1 {
		t.Errorf("a user who is gone is offered %d times, want where he was chosen", n)
	}
	if n := strings.Count(page, "Ada Lovelace</option>"); n != 2 {
		t.Errorf("a user is offered %d times, want in both fields", n)
	}
}

// A name that is a part of a hundred others is found all the same, and so is one with a
// mark that a page does not show.
func TestNameAmongMany(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	client := func(name string) {
		must(d.store.CreateClient(t.Context(), time.Now(), d.a.TenantID, ticket.Client{Name: name, BillingCycle: "monthly"}))(t)
	}
	user := func(first, last, email string) {
		must(d.store.AddUser(t.Context(), time.Now(), d.a.TenantID, ticket.User{FirstName: first, LastName: last, Email: email}))(t)
	}
	for i := range 101 {
		client(fmt.Sprintf("A zoo %03d", i))
		user("A", fmt.Sprintf("Keeper %03d", i), fmt.Sprintf("a%d@zoo.example", i))
	}
	const hidden = "نمی\u200cدانم"
	client("Zoo")
	client(hidden)
	user("Jo", "Zoo", "jo@desk.example")
	b := d.signedIn(t, d.a.APIKey)
	for _, query := range []string{"client=Zoo", "client=" + url.QueryEscape(hidden), "assigned=Jo+Zoo"} {
		if r, page := b.get("/console/tickets?" + query); r.StatusCode != http.StatusOK || !strings.Contains(page, `aria-label="Without`) {
			t.Errorf("%s answers %d", query, r.StatusCode)
		}
	}
	if _, names := b.get("/console/tickets/names/client?client=" + url.QueryEscape("دانم")); !strings.Contains(names, hidden) {
		t.Errorf("a name that is offered is not its client's: %q", names)
	}
}
