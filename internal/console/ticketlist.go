package console

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// ticketList is the list of tickets and what it is filtered by.
type ticketList struct {
	store.Found[ticket.Ticket]
	Query    url.Values
	Statuses []statusGroup
	Choosers []chooser // the filters that choose by name
	Times    []timeField
	Chips    []chip // what is filtered
	Errors   map[string]string
	More     string // the address of the next page; "" at the end
}

// chip is one filter that applies, with the address of the list without it.
type chip struct{ Label, Value, Without string }

// timeField is a bound of a time.
type timeField struct{ Name, Label, Value, Error string }

// option is something to choose.
type option struct{ ID, Name string }

// chooser is a filter by something that tickets refer to: a list of names, or,
// where there are too many, a field that completes them.
type chooser struct {
	Name, Label, Any string
	Value            string // the id, or the text of one that was not found
	Text             string // its name
	Options          []option
	Many             bool // there are more than the options
	Error            string
}

// Main reports whether the filter stands with the first ones.
func (c *chooser) Main() bool { return c.Name == "assigned" }

// Chosen reports whether one of the filters applies that are folded away.
func (p *ticketList) Chosen() bool {
	return slices.ContainsFunc(p.Chips, func(c chip) bool {
		return !slices.Contains([]string{"Search", "State", "Status", "Assigned to"}, c.Label)
	}) || len(p.Errors) > 0
}

// FewStatuses reports whether a page can show a box for every status.
func (p *ticketList) FewStatuses() bool {
	n := 0
	for _, g := range p.Statuses {
		n += len(g.Statuses)
	}
	return n <= maxChoices
}

// Picked reports whether a status is among those of the filter "any of".
func (p *ticketList) Picked(id string) bool { return slices.Contains(p.Query["statuses"], id) }

// referred is how the things that tickets refer to are listed and found.
type referred struct {
	name, label, kind string // kind is the word for one
	list              func(*store.Store, context.Context, string, store.ResourceQuery) ([]option, int, error)
	one               func(*store.Store, context.Context, string, string) (option, error)
}

// refers makes a referred of the methods of the store.
func refers[T any](name, label, kind string,
	list func(*store.Store, context.Context, string, store.ResourceQuery) ([]T, int, error),
	one func(*store.Store, context.Context, string, string) (T, error), show func(*T) option,
) referred {
	return referred{
		name, label, kind,
		func(s *store.Store, ctx context.Context, tenant string, q store.ResourceQuery) ([]option, int, error) {
			found, total, err := list(s, ctx, tenant, q)
			out := make([]option, len(found))
			for i := range found {
				out[i] = show(&found[i])
			}
			return out, total, err
		},
		func(s *store.Store, ctx context.Context, tenant, id string) (option, error) {
			x, err := one(s, ctx, tenant, id)
			return show(&x), err
		},
	}
}

// filterReferences are what the list chooses by name, in the order of the page: a
// client and a board come before what belongs to them.
func filterReferences() []referred {
	category := func(c *ticket.Category) option { return option{c.CategoryID, c.Name} }
	type s = store.Store
	return []referred{
		userReference("assigned", "Assigned to"),
		refers("priority", "Priority", "priority", (*s).Priorities, (*s).Priority,
			func(p *ticket.Priority) option { return option{p.PriorityID, p.Name} }),
		refers("client", "Client", "client", (*s).Clients, (*s).Client,
			func(c *ticket.Client) option { return option{c.ClientID, c.Name} }),
		refers("contact", "Contact", "contact", (*s).Contacts, (*s).Contact,
			func(c *ticket.Contact) option { return option{c.ContactNameID, c.FullName} }),
		refers("location", "Location", "location", (*s).Locations, (*s).Location,
			func(l *ticket.Location) option { return option{l.LocationID, l.Name} }),
		refers("board", "Board", "board", (*s).Boards, (*s).Board,
			func(b *ticket.Board) option { return option{b.BoardID, b.Name} }),
		refers("category", "Category", "category", (*s).Categories, (*s).Category, category),
		refers("subcategory", "Subcategory", "category", (*s).Categories, (*s).Category, category),
		userReference("entered_by", "Opened by"),
	}
}

func userReference(name, label string) referred {
	return refers(name, label, "user", (*store.Store).Users, (*store.Store).User,
		func(u *ticket.User) option { return option{u.UserID, cmp.Or(deref(u.DisplayName()), u.Email)} })
}

// Two words in place of a user.
const (
	nobody   = "nobody"
	somebody = "somebody"
)

func (v *visit) listTickets() error {
	q := v.r.URL.Query()
	p := ticketList{Query: q, Errors: map[string]string{}}
	var err error
	if p.Statuses, err = v.statusGroups(); err != nil {
		return err
	}
	query, err := v.ticketQuery(&p)
	if err != nil {
		return err
	}
	if len(p.Errors) == 0 {
		p.Found, err = v.store().ListTickets(v.ctx, v.tenant(), query, q.Get("after"))
		if fault.Is(err, fault.Invalid) {
			p.Errors[""], err = messageOf(err), nil
		}
		if err != nil {
			return err
		}
	}
	status := http.StatusOK
	if len(p.Errors) > 0 {
		status = http.StatusBadRequest
	}
	p.More = next(v.r, p.Next)
	return v.page(status, "tickets", "tickets", "Tickets", &p)
}

// ticketQuery reads the filters of the address, and fills in the form and its
// chips. What is wrong goes to p.Errors, by field.
func (v *visit) ticketQuery(p *ticketList) (ticket.Query, error) {
	q := p.Query
	get := func(name string) string { return strings.TrimSpace(q.Get(name)) }
	out := ticket.Query{
		Search: get("search"), Title: get("title"), Number: get("number"), StatusID: get("status"),
		OnlyOpen: get("state") == "open", OnlyClosed: get("state") == "closed",
	}
	for _, f := range []struct{ name, label, value string }{
		{"search", "Search", out.Search}, {"state", "State", get("state")}, {"status", "Status", p.statusName(out.StatusID)},
		{"title", "Title", out.Title}, {"number", "Number", out.Number},
	} {
		if f.value != "" {
			p.chip(f.label, f.value, f.name, "")
		}
	}
	if state := get("state"); state != "" && !out.OnlyOpen && !out.OnlyClosed {
		p.Errors["state"] = "must be open or closed"
	}
	for _, id := range q["statuses"] {
		if id != "" {
			out.StatusIDs = append(out.StatusIDs, id)
			p.chip("Status", p.statusName(id), "statuses", id)
		}
	}
	if tags := commaList(q.Get("tags")); len(tags) > 0 {
		out.Tags = tags
		p.chip("Tags", strings.Join(tags, ", "), "tags", "")
	}
	for _, f := range []struct {
		name, label string
		end         bool
		into        **time.Time
	}{
		{"opened_from", "Opened from", false, &out.EnteredFrom}, {"opened_to", "Opened until", true, &out.EnteredTo},
		{"from", "Changed from", false, &out.UpdatedFrom}, {"to", "Changed until", true, &out.UpdatedTo},
		{"closed_from", "Closed from", false, &out.ClosedFrom}, {"closed_to", "Closed until", true, &out.ClosedTo},
	} {
		t := timeField{Name: f.name, Label: f.label, Value: get(f.name)}
		if t.Value != "" {
			p.chip(f.label, strings.Replace(t.Value, "T", " ", 1), f.name, "")
		}
		var err error
		switch *f.into, err = moment(f.name, t.Value, f.end); {
		case err != nil:
			t.Error = fieldErrors(err)[f.name]
			p.Errors[f.name] = t.Error
			t.Value = "" // the field shows nothing that is no time
		case len(t.Value) == len(time.DateOnly): // nor a day without one
			t.Value += map[bool]string{false: "T00:00", true: "T23:59"}[f.end]
		}
		p.Times = append(p.Times, t)
	}
	return out, v.choose(p, &out)
}

// choose resolves the filters by name.
func (v *visit) choose(p *ticketList, out *ticket.Query) error {
	into := map[string]*string{
		"assigned": &out.AssignedTo, "priority": &out.PriorityID, "client": &out.ClientID, "contact": &out.ContactNameID,
		"location": &out.LocationID, "board": &out.BoardID, "category": &out.CategoryID, "subcategory": &out.SubcategoryID,
		"entered_by": &out.EnteredBy,
	}
	for _, ref := range filterReferences() {
		// A client has few contacts and locations, a board few categories.
		within := store.ResourceQuery{ClientID: out.ClientID, BoardID: out.BoardID, Limit: maxChoices}
		c, err := v.chooser(ref, within, strings.TrimSpace(p.Query.Get(ref.name)))
		if err != nil {
			return err
		}
		switch {
		case c.Error != "":
			p.Errors[c.Name] = c.Error
		case c.Value == nobody || c.Value == somebody:
			out.HasAssignment = new(c.Value == somebody)
		default:
			*into[c.Name] = c.Value
		}
		if c.Value != "" {
			p.chip(c.Label, c.Text, c.Name, "")
		}
		p.Choosers = append(p.Choosers, c)
	}
	return nil
}

// chooser is a filter with what there is to choose, and what was chosen: by id, or
// by a name that only one has.
func (v *visit) chooser(ref referred, within store.ResourceQuery, chosen string) (chooser, error) {
	c := chooser{Name: ref.name, Label: ref.label, Any: "Any", Value: chosen, Text: chosen}
	var total int
	var err error
	if c.Options, total, err = ref.list(v.store(), v.ctx, v.tenant(), within); err != nil {
		return c, err
	}
	if c.Many = total > len(c.Options); ref.name == "assigned" {
		c.Any = "Anybody"
		c.Options = append([]option{{nobody, "Nobody"}, {somebody, "Somebody"}}, c.Options...)
	}
	if chosen == "" {
		return c, nil
	}
	is := func(o option) bool { return strings.EqualFold(o.ID, chosen) }
	if i := slices.IndexFunc(c.Options, is); i >= 0 {
		c.Value, c.Text = c.Options[i].ID, c.Options[i].Name
		return c, nil
	}
	found, err := v.named(ref, within, chosen)
	problem, ok := errors.AsType[*fault.Error](err)
	switch {
	case ok && problem.Kind == fault.Invalid:
		c.Error = problem.Message
		return c, nil
	case err != nil:
		return c, err
	}
	c.Value, c.Text = found.ID, found.Name
	if !slices.Contains(c.Options, found) {
		c.Options = append(c.Options, found)
	}
	return c, nil
}

// named finds what a filter means that is not among its options: an id, or a name in
// any letter case. What is inactive still has tickets.
func (v *visit) named(ref referred, within store.ResourceQuery, text string) (option, error) {
	o, err := ref.one(v.store(), v.ctx, v.tenant(), text)
	if err == nil || !fault.Is(err, fault.NotFound) {
		return o, err
	}
	within.IncludeInactive = true
	list, err := v.search(ref, within, text)
	if err != nil {
		return o, err
	}
	list = slices.DeleteFunc(list, func(o option) bool { return !strings.EqualFold(o.Name, text) })
	switch len(list) {
	case 0:
		return o, fault.New(fault.Invalid, "no %s has this name", ref.kind)
	case 1:
		return list[0], nil
	}
	return o, fault.New(fault.Invalid, "more than one %s has this name; give its id", ref.kind)
}

// search lists what has a text in its name. A user has it in two parts.
func (v *visit) search(ref referred, within store.ResourceQuery, text string) ([]option, error) {
	within.Search = text
	if words := strings.Fields(text); ref.kind == "user" && len(words) > 0 {
		within.Search = words[len(words)-1]
	}
	list, _, err := ref.list(v.store(), v.ctx, v.tenant(), within)
	return list, err
}

// completeName answers with the names that fit what was typed, for a field with more
// names than a page should have.
func (v *visit) completeName() error {
	all := append(filterReferences(), teamReference(), agentReference())
	i := slices.IndexFunc(all, func(r referred) bool { return r.name == v.r.PathValue("of") })
	if i < 0 {
		return fault.New(fault.NotFound, "There is no such list")
	}
	list, err := v.search(all[i], store.ResourceQuery{Limit: maxChoices}, strings.TrimSpace(v.r.URL.Query().Get(all[i].name)))
	if err != nil {
		return err
	}
	return v.part("tickets", "names", list)
}

// chip notes a filter that applies. value tells apart several of one name; "" for
// the only one.
func (p *ticketList) chip(label, text, name, value string) {
	rest := url.Values{}
	for k, list := range p.Query {
		if k == "after" || k == "done" || k == name && value == "" {
			continue
		}
		for _, x := range list {
			if x != "" && (k != name || x != value) {
				rest.Add(k, x)
			}
		}
	}
	to := "/console/tickets"
	if len(rest) > 0 {
		to += "?" + rest.Encode()
	}
	p.Chips = append(p.Chips, chip{label, text, to})
}

// statusName is a status as a filter shows it; "" for no id. One that there is not is
// noted as a mistake.
func (p *ticketList) statusName(id string) string {
	if id == "" {
		return ""
	}
	for _, g := range p.Statuses {
		for _, s := range g.Statuses {
			if strings.EqualFold(s.StatusID, id) {
				return g.Board + ": " + s.Name
			}
		}
	}
	p.Errors["status"] = "there is no such status"
	return id
}
