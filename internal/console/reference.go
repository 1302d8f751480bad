package console

import (
	"cmp"
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// option is something to choose.
type option struct{ ID, Name string }

// chooser is a field for something that tickets refer to: a list of names, or, where
// there are too many, a field that completes them.
type chooser struct {
	Name, Label, Any string
	Value            string // the id, or the text of one that was not found
	Text             string // its name
	Options          []option
	Many             bool // there are more than the options
	Required         bool
	Within           string // of what the names are completed, as a query
	Error            string
}

// Main reports whether the filter stands with the first ones.
func (c *chooser) Main() bool { return c.Name == "assigned" }

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

// references are what a ticket refers to, by the names of its fields on the wire.
func references() []referred {
	category := func(c *ticket.Category) option { return option{c.CategoryID, c.Name} }
	user := func(u *ticket.User) option { return option{u.UserID, cmp.Or(deref(u.DisplayName()), u.Email)} }
	type s = store.Store
	return []referred{
		refers("assigned_to", "Assigned to", "user", (*s).Users, (*s).User, user),
		refers("entered_by", "Opened by", "user", (*s).Users, (*s).User, user),
		refers("assigned_team_id", "Team", "team", (*s).Teams, (*s).Team,
			func(t *ticket.Team) option { return option{t.TeamID, t.Name} }),
		refers("status_id", "Status", "status", (*s).Statuses, (*s).Status,
			func(t *ticket.Status) option { return option{t.StatusID, t.Name} }),
		refers("priority_id", "Priority", "priority", (*s).Priorities, (*s).Priority,
			func(p *ticket.Priority) option { return option{p.PriorityID, p.Name} }),
		refers("client_id", "Client", "client", (*s).Clients, (*s).Client,
			func(c *ticket.Client) option { return option{c.ClientID, c.Name} }),
		refers("contact_name_id", "Contact", "contact", (*s).Contacts, (*s).Contact,
			func(c *ticket.Contact) option { return option{c.ContactNameID, c.FullName} }),
		refers("location_id", "Location", "location", (*s).Locations, (*s).Location,
			func(l *ticket.Location) option { return option{l.LocationID, l.Name} }),
		refers("board_id", "Board", "board", (*s).Boards, (*s).Board,
			func(b *ticket.Board) option { return option{b.BoardID, b.Name} }),
		refers("category_id", "Category", "category", (*s).Categories, (*s).Category, category),
		refers("subcategory_id", "Subcategory", "category", (*s).Categories, (*s).Category, category),
	}
}

// reference is one of references, which has to be there.
func reference(name string) referred {
	all := references()
	return all[slices.IndexFunc(all, func(r referred) bool { return r.name == name })]
}

// as is the same reference as a field of another name.
func (r referred) as(name string) referred {
	r.name = name
	return r
}

// question is what a list of names depends on, and names are the answer.
type (
	question struct {
		kind string
		store.ResourceQuery
	}
	names struct {
		options []option
		total   int
	}
)

// once is the same reference for a page on which several fields choose among the same
// things: what one of them has asked for is known to the others.
func (r referred) once(known map[question]names) referred {
	ask := r.list
	r.list = func(s *store.Store, ctx context.Context, tenant string, q store.ResourceQuery) ([]option, int, error) {
		about := question{r.kind, q}
		if n, is := known[about]; is {
			return n.options, n.total, nil
		}
		options, total, err := ask(s, ctx, tenant, q)
		if err == nil {
			known[about] = names{slices.Clip(options), total} // each field appends to its own
		}
		return options, total, err
	}
	return r
}

func teamReference() referred { return reference("assigned_team_id").as("team_id") }

func agentReference() referred {
	r := reference("assigned_to").as("user_id")
	r.label = "Agent"
	return r
}

// chooser is a field with what there is to choose, and what was chosen: by id, or by
// a name that only one has.
func (v *visit) chooser(ref referred, within store.ResourceQuery, chosen string) (chooser, error) {
	c := chooser{Name: ref.name, Label: ref.label, Any: "Any", Value: chosen, Text: chosen}
	if within.ClientID+within.BoardID != "" {
		c.Within = "?" + url.Values{"of_client": {within.ClientID}, "of_board": {within.BoardID}}.Encode()
	}
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

// named finds what a field means that is not among its options: an id, or a name, in
// any letter case unless a hundred others have it in theirs. What is inactive still
// has tickets.
func (v *visit) named(ref referred, within store.ResourceQuery, text string) (option, error) {
	o, err := ref.one(v.store(), v.ctx, v.tenant(), text)
	if err == nil || !fault.Is(err, fault.NotFound) {
		return o, err
	}
	within.IncludeInactive = true
	// As it is written first: a name that is a part of many others may not be among the
	// first of those.
	exact := within
	exact.Name = text
	if i := strings.LastIndexByte(text, ' '); ref.kind == "user" && i > 0 {
		exact.Name = strings.TrimSpace(text[:i]) // of a person, the first name
	}
	for _, q := range []store.ResourceQuery{exact, within} {
		list, err := v.search(ref, q, text)
		if err != nil {
			return o, err
		}
		list = slices.DeleteFunc(list, func(o option) bool { return !strings.EqualFold(o.Name, text) })
		switch len(list) {
		case 0:
			continue
		case 1:
			return list[0], nil
		}
		return o, fault.New(fault.Invalid, "more than one %s has this name; give its id", ref.kind)
	}
	return o, fault.New(fault.Invalid, "no %s has this name", ref.kind)
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
	all = append(all, references()...)
	i := slices.IndexFunc(all, func(r referred) bool { return r.name == v.r.PathValue("of") })
	if i < 0 {
		return fault.New(fault.NotFound, "There is no such list")
	}
	q := v.r.URL.Query()
	within := store.ResourceQuery{ClientID: q.Get("of_client"), BoardID: q.Get("of_board"), Limit: maxChoices}
	list, err := v.search(all[i], within, strings.TrimSpace(q.Get(all[i].name)))
	if err != nil {
		return err
	}
	return v.part("tickets", "names", list)
}

// field is the chooser of a form: it shows what was sent, or else what is held.
func (v *visit) field(ref referred, within store.ResourceQuery, held, none string, errs map[string]string) (chooser, error) {
	if v.form.Has(ref.name) {
		held = strings.TrimSpace(v.form.Get(ref.name))
	}
	within.Limit = maxChoices
	c, err := v.chooser(ref, within, held)
	c.Any, c.Error = none, cmp.Or(errs[ref.name], c.Error)
	return c, err
}

// chosenID resolves what a form has chosen by id or by name. The error is one of the
// field.
func (v *visit) chosenID(ref referred, within store.ResourceQuery) (string, error) {
	text := strings.TrimSpace(v.form.Get(ref.name))
	if text == "" {
		return "", fault.Field(ref.name, "choose a %s", ref.kind)
	}
	within.Limit = maxChoices
	o, err := v.named(ref, within, text)
	if problem, ok := errors.AsType[*fault.Error](err); ok && problem.Kind == fault.Invalid {
		return "", fault.Field(ref.name, "%s", problem.Message)
	}
	return o.ID, err
}

// changed is what a form makes of a reference that may be none. What is shown and
// sent back as it was stays, even if another has the same name.
func (v *visit) changed(ref referred, within store.ResourceQuery, held *string) (ticket.Opt[*string], error) {
	same := ticket.Opt[*string]{}
	text := strings.TrimSpace(v.form.Get(ref.name))
	switch {
	case !v.form.Has(ref.name):
		return same, nil
	case text == "":
		return ticket.Some[*string](nil), nil
	case held != nil:
		o, err := ref.one(v.store(), v.ctx, v.tenant(), *held)
		if err == nil && (o.ID == text || o.Name == text) {
			return same, nil
		}
		if err != nil && !fault.Is(err, fault.NotFound) {
			return same, err
		}
	}
	id, err := v.chosenID(ref, within)
	return ticket.Some(&id), err
}
