package console

import (
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
type chip struct {
	Label, Value, Without string
	name                  string // of its field
}

// timeField is a bound of a time.
type timeField struct{ Name, Label, Value, Error string }

// Chosen reports whether one of the filters applies that are folded away.
func (p *ticketList) Chosen() bool {
	return slices.ContainsFunc(p.Chips, func(c chip) bool {
		return !slices.Contains([]string{"search", "state", "status", "assigned"}, c.name)
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

// Two words in place of a user.
const (
	nobody   = "nobody"
	somebody = "somebody"
)

// filterReferences are what the list chooses by name, in the order of the page: a
// client and a board come before what belongs to them.
func filterReferences() []referred {
	var list []referred
	for _, f := range [][2]string{
		{"assigned_to", "assigned"}, {"priority_id", "priority"}, {"client_id", "client"}, {"contact_name_id", "contact"},
		{"location_id", "location"}, {"board_id", "board"}, {"category_id", "category"}, {"subcategory_id", "subcategory"},
		{"entered_by", "entered_by"},
	} {
		list = append(list, reference(f[0]).as(f[1]))
	}
	return list
}

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
		var t timeField
		if t, *f.into = bound(q, f.name, f.label, f.end); t.Error != "" {
			p.Errors[f.name] = t.Error
		}
		if text := get(f.name); text != "" {
			p.chip(f.label, strings.Replace(text, "T", " ", 1), f.name, "")
		}
		p.Times = append(p.Times, t)
	}
	return out, v.choose(p, &out, filterReferences())
}

// bound reads one end of a span of time from a filter, a time or a bare day, and makes
// the field that shows it.
func bound(q url.Values, name, label string, end bool) (timeField, *time.Time) {
	f := timeField{Name: name, Label: label, Value: strings.TrimSpace(q.Get(name))}
	at, err := moment(name, f.Value, end)
	switch {
	case err != nil:
		f.Error = fieldErrors(err)[name]
		f.Value = "" // the field shows nothing that is no time
	case len(f.Value) == len(time.DateOnly): // nor a day without one
		f.Value += map[bool]string{false: "T00:00", true: "T23:59"}[end]
	}
	return f, at
}

// choose resolves the filters by name.
func (v *visit) choose(p *ticketList, out *ticket.Query, refs []referred) error {
	into := map[string]*string{
		"assigned": &out.AssignedTo, "priority": &out.PriorityID, "client": &out.ClientID, "contact": &out.ContactNameID,
		"location": &out.LocationID, "board": &out.BoardID, "category": &out.CategoryID, "subcategory": &out.SubcategoryID,
		"entered_by": &out.EnteredBy,
	}
	known := map[question]names{}
	for _, ref := range refs {
		within := store.ResourceQuery{Limit: maxChoices}
		switch ref.kind { // a client has few contacts and locations, a board few categories
		case "contact", "location":
			within.ClientID = out.ClientID
		case "category":
			within.BoardID = out.BoardID
		}
		c, err := v.chooser(ref.once(known), within, strings.TrimSpace(p.Query.Get(ref.name)))
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
	p.Chips = append(p.Chips, chip{label, text, to, name})
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
