package console

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/ticket"
	"github.com/ticketwire/ticketwire/webhook"
)

func ticketRoutes() []route {
	return []route{
		{"GET /console/tickets", "ticket", "read", (*visit).listTickets},
		{"GET /console/tickets/names/{of}", "ticket", "read", (*visit).completeName},
		{"GET /console/tickets/new", "ticket", "create", (*visit).newTicket},
		{"POST /console/tickets/new", "ticket", "create", (*visit).createTicket},
		{"GET /msp/tickets/{id}", "ticket", "read", (*visit).showTicket},
		{"GET /msp/tickets/{id}/timeline", "ticket", "read", (*visit).ticketTimeline},
		{"POST /msp/tickets/{id}/comments", "ticket", "update", (*visit).addComment},
	}
}

// choices are what the fields of every ticket can be.
type choices struct {
	Statuses   []statusGroup
	Priorities []ticket.Priority
}

// statusGroup is a board with its statuses: a status says the board too.
type statusGroup struct {
	Board    string
	Statuses []ticket.Status
}

// maxChoices bounds a list to choose from.
const maxChoices = 100

// statusGroups are the boards with their statuses.
func (v *visit) statusGroups() ([]statusGroup, error) {
	all := store.ResourceQuery{All: true}
	boards, _, err := v.store().Boards(v.ctx, v.tenant(), all)
	if err != nil {
		return nil, err
	}
	statuses, _, err := v.store().Statuses(v.ctx, v.tenant(), all)
	if err != nil {
		return nil, err
	}
	var groups []statusGroup
	for _, b := range boards {
		g := statusGroup{Board: b.Name}
		for _, s := range statuses {
			if s.BoardID == b.BoardID {
				g.Statuses = append(g.Statuses, s)
			}
		}
		slices.SortFunc(g.Statuses, func(a, b ticket.Status) int { return cmp.Compare(a.OrderNumber, b.OrderNumber) })
		groups = append(groups, g)
	}
	return groups, nil
}

func (v *visit) choices() (c choices, err error) {
	if c.Statuses, err = v.statusGroups(); err != nil {
		return c, err
	}
	c.Priorities, _, err = v.store().Priorities(v.ctx, v.tenant(), store.ResourceQuery{All: true})
	return c, err
}

// statusOf is the status of a page that shows what is wrong with its query.
func statusOf(problem string) int {
	if problem != "" {
		return http.StatusBadRequest
	}
	return http.StatusOK
}

// next returns the address of the next page, "" for no cursor.
func next(r *http.Request, cursor string) string {
	if cursor == "" {
		return ""
	}
	q := r.URL.Query()
	q.Set("after", cursor)
	q.Del("done")
	return r.URL.Path + "?" + q.Encode()
}

// times reads the fields from and to of a filter: the form of a datetime-local
// field, in UTC, or a bare day.
func times(q url.Values) (from, to *time.Time, err error) {
	if from, err = moment("from", q.Get("from"), false); err != nil {
		return nil, nil, err
	}
	to, err = moment("to", q.Get("to"), true)
	return from, to, err
}

// moment reads one instant of a form. A day or a minute that ends a span is meant to
// its end. The result is nil for an empty field.
func moment(field, text string, end bool) (*time.Time, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // an empty field is no error
	}
	for _, form := range []struct {
		layout string
		size   time.Duration
	}{
		{time.DateOnly, 24 * time.Hour}, {"2006-01-02T15:04", time.Minute}, {"2006-01-02T15:04:05", time.Second},
		{time.RFC3339Nano, time.Microsecond},
	} {
		t, err := time.Parse(form.layout, text)
		if err != nil {
			continue
		}
		if end {
			t = t.Add(form.size - time.Microsecond)
		}
		return &t, nil
	}
	return nil, fault.Field(field, "must be a day or a time such as 2026-03-04T05:06")
}

// ticketPage is a ticket with all that has happened to it.
type ticketPage struct {
	Ticket      ticket.Ticket
	Description string
	Comments    []ticket.Comment
	Timeline    timeline
	People      people
	Tags        []ticket.Tag
	Attributes  string // as its form shows them
	Assignee    chooser
	Parties     []chooser // the others that it refers to, by name
	choices
	form   url.Values        // that failed; nil without one
	Errors map[string]string // by field; "" is about the whole form
}

// Shown is what a field shows: what was sent, or else what the ticket has.
func (p *ticketPage) Shown(field, held string) string {
	if p.form.Has(field) {
		return p.form.Get(field)
	}
	return held
}

// Due is the due date as its field shows it, in UTC and to the minute.
func (p *ticketPage) Due() string { return p.Shown("due_date", dueText(&p.Ticket)) }

func dueText(t *ticket.Ticket) string {
	if t.DueDate == nil {
		return ""
	}
	return t.DueDate.UTC().Format("2006-01-02T15:04")
}

// MoreWrong reports whether something is wrong with the fields that are folded away.
func (p *ticketPage) MoreWrong() bool {
	return p.Errors["due_date"] != "" || p.Errors["url"] != "" || slices.ContainsFunc(p.Parties, func(c chooser) bool { return c.Error != "" })
}

// timeline is what happened to a ticket, newest first.
type timeline struct {
	TicketID string
	Events   []happening
	More     bool   // there are older events
	Refresh  string // when htmx asks again, as hx-trigger has it; "" when all is settled
	ByHooks  bool   // the visitor may see deliveries
}

// happening is one event and where it was delivered.
type happening struct {
	webhook.Envelope
	Data    *webhook.TicketData // nil if it cannot be read
	Changes []change
	Chains  []chain
}

// change is one changed field of ticket.updated, as text.
type change struct{ Field, Old, New string }

// chain is the attempts of one event at one webhook, oldest first.
type chain struct {
	WebhookID string
	Webhook   string // its name
	Attempts  []delivery.Delivery
	Last      delivery.Delivery // the newest
	Sent      int               // attempts that were sent
}

// shownEvents bounds a timeline.
const shownEvents = 50

func (v *visit) showTicket() error { return v.ticketPage(http.StatusOK, nil) }

// ticketPage shows a ticket, after a form that failed with what was wrong.
func (v *visit) ticketPage(status int, problem error) error {
	t, err := v.store().Ticket(v.ctx, v.tenant(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	p := ticketPage{Ticket: t, Errors: fieldErrors(problem), form: v.form}
	var attributes struct {
		Description string `json:"description"`
	}
	if json.Unmarshal(t.Attributes, &attributes) == nil {
		p.Description = attributes.Description
	}
	if p.choices, err = v.choices(); err != nil {
		return err
	}
	if p.Assignee, err = v.field(reference("assigned_to"), store.ResourceQuery{}, deref(t.AssignedTo), "Nobody", p.Errors); err != nil {
		return err
	}
	for _, f := range parties(&t) {
		c, err := v.field(reference(f.name), f.within, deref(f.held), "None", p.Errors)
		if err != nil {
			return err
		}
		p.Parties = append(p.Parties, c)
	}
	if p.People, err = v.people(&t, p.Errors); err != nil {
		return err
	}
	if p.Tags, err = v.store().Tags(v.ctx, v.tenant(), t.TicketID); err != nil {
		return err
	}
	if p.Attributes = attributesText(t.Attributes); p.Errors["attributes"] != "" {
		p.Attributes = v.form.Get("attributes")
	}
	if p.Comments, err = v.store().Comments(v.ctx, v.tenant(), t.TicketID, store.CommentQuery{Desc: true, Limit: maxChoices}); err != nil {
		return err
	}
	if p.Timeline, err = v.timeline(t.TicketID, t.UpdatedAt.Time); err != nil {
		return err
	}
	return v.page(status, "ticket", "tickets", t.Number+" "+t.Title, &p)
}

// fieldErrors sorts what is wrong with a form by field.
func fieldErrors(err error) map[string]string {
	if err == nil {
		return nil
	}
	out := map[string]string{}
	list := issuesOf(err)
	for _, is := range list {
		name := fieldName(is.Path)
		if out[name] != "" {
			out[name] += "; "
		}
		out[name] += is.Message
	}
	if len(list) == 0 {
		out[""] = messageOf(err)
	}
	return out
}

// formFailed reports whether an error is about what the visitor has filled in, so
// that the form is shown again with it.
func formFailed(err error) bool {
	switch fault.KindOf(err) {
	case fault.Invalid, fault.BadReference, fault.Conflict:
		return true
	}
	return false
}

// mistakes joins what is wrong with the fields of a form. An error of another kind,
// such as a store that is away, is none of the visitor's and is returned alone.
func mistakes(errs ...error) error {
	for _, err := range errs {
		if err != nil && !formFailed(err) {
			return err
		}
	}
	return errors.Join(errs...)
}

func (v *visit) ticketTimeline() error {
	t, err := v.store().Ticket(v.ctx, v.tenant(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	line, err := v.timeline(t.TicketID, t.UpdatedAt.Time)
	if err != nil {
		return err
	}
	return v.part("ticket", "timeline", line)
}

func (v *visit) timeline(ticketID string, changed time.Time) (timeline, error) {
	out := timeline{TicketID: ticketID, ByHooks: v.who.Check("webhook", "read") == nil}
	bodies, more, err := v.store().TicketEvents(v.ctx, v.tenant(), ticketID, shownEvents)
	if err != nil {
		return out, err
	}
	out.More = more
	names := map[string]string{}
	ids := make([]string, len(bodies))
	out.Events = make([]happening, len(bodies))
	for i, body := range bodies {
		m := &out.Events[i]
		if err := json.Unmarshal(body, &m.Envelope); err != nil {
			return out, fault.Wrap(fault.Internal, err, "read event %d of ticket %s", i, ticketID)
		}
		if m.Data, err = m.Envelope.Ticket(); err != nil {
			m.Data = nil // an event of another kind
		} else {
			if m.Changes, err = v.changes(m.Data.Changes, names); err != nil {
				return out, err
			}
		}
		ids[i] = m.EventID
	}
	soon := v.now.Sub(changed) < 15*time.Second // its deliveries may just be under way
	if out.ByHooks {
		pending, err := v.addChains(&out, ids)
		if err != nil {
			return out, err
		}
		soon = soon || pending
	}
	if soon {
		out.Refresh = "every 2s"
	}
	return out, nil
}

// addChains puts the deliveries of the events beside them, and reports whether one
// is due within a minute.
func (v *visit) addChains(out *timeline, ids []string) (pending bool, err error) {
	list, err := v.store().DeliveriesOf(v.ctx, v.tenant(), ids)
	if err != nil {
		return false, err
	}
	names, err := v.webhookNames()
	if err != nil {
		return false, err
	}
	at := map[string]*happening{}
	for i := range out.Events {
		at[out.Events[i].EventID] = &out.Events[i]
	}
	for _, d := range list {
		m := at[d.EventID]
		i := slices.IndexFunc(m.Chains, func(c chain) bool { return c.WebhookID == d.WebhookID })
		if i < 0 {
			i = len(m.Chains)
			m.Chains = append(m.Chains, chain{WebhookID: d.WebhookID, Webhook: cmp.Or(names[d.WebhookID], "a deleted webhook")})
		}
		c := &m.Chains[i]
		c.Attempts, c.Last = append(c.Attempts, d), d
		if d.AttemptedAt != nil {
			c.Sent++
		}
		pending = pending || d.Status == delivery.Pending && d.DueAt.Before(v.now.Add(time.Minute))
	}
	return pending, nil
}

// webhookNames returns the names of the tenant's webhooks by id, those of the first
// few hundred where there are more.
func (v *visit) webhookNames() (map[string]string, error) {
	names := map[string]string{}
	for page := 1; page <= 3; page++ {
		list, total, err := v.store().Webhooks(v.ctx, v.tenant(), store.WebhookQuery{Limit: maxChoices, Page: page})
		if err != nil {
			return nil, err
		}
		for i := range list {
			names[list[i].WebhookID] = list[i].Name
		}
		if page*maxChoices >= total {
			break
		}
	}
	return names, nil
}

// changes are changed fields in words. names has the names of ids that are known, and
// gets those that had to be looked up.
func (v *visit) changes(list webhook.Changes, names map[string]string) ([]change, error) {
	out := make([]change, len(list))
	for i, c := range list {
		out[i].Field = c.Field
		for _, side := range []struct {
			raw  json.RawMessage
			into *string
		}{{c.Previous, &out[i].Old}, {c.New, &out[i].New}} {
			var err error
			if *side.into, err = v.plainValue(c.Field, side.raw, names); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// plainValue is a JSON value as a person writes it, a name where the field holds the
// id of something that there still is.
func (v *visit) plainValue(field string, raw json.RawMessage, names map[string]string) (string, error) {
	var s string
	if isText := json.Unmarshal(raw, &s) == nil; !isText {
		return string(raw), nil
	}
	all := references()
	i := slices.IndexFunc(all, func(r referred) bool { return r.name == field })
	if s == "" || i < 0 {
		return cmp.Or(s, "nothing"), nil
	}
	if names[s] == "" {
		o, err := all[i].one(v.store(), v.ctx, v.tenant(), s)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return "", err
		}
		names[s] = cmp.Or(o.Name, s)
	}
	return names[s], nil
}

func (v *visit) addComment() error {
	f := v.form
	t, err := v.store().Ticket(v.ctx, v.tenant(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	_, err = v.store().AddComment(v.ctx, v.now, v.who.Actor(), t.TicketID, ticket.CommentDraft{
		Text: strings.TrimSpace(f.Get("comment_text")), IsInternal: f.Has("is_internal"), IsResolution: f.Has("is_resolution"),
	})
	if formFailed(err) {
		return v.ticketPage(fault.KindOf(err).HTTPStatus(), err)
	}
	if err != nil {
		return err
	}
	return v.redirect("/msp/tickets/"+t.TicketID, "commented")
}

// ticketForm is the form of a new ticket.
type ticketForm struct {
	choices
	Client, Assignee chooser
	Form             url.Values
	Errors           map[string]string
}

func (v *visit) newTicket() error { return v.ticketForm(http.StatusOK, nil) }

func (v *visit) ticketForm(status int, problem error) error {
	p := ticketForm{Form: v.form, Errors: fieldErrors(problem)}
	var err error
	if p.choices, err = v.choices(); err != nil {
		return err
	}
	if p.Client, err = v.field(reference("client_id"), store.ResourceQuery{}, "", "Choose", p.Errors); err != nil {
		return err
	}
	if p.Client.Required = true; len(p.Client.Options) == 1 && p.Client.Value == "" {
		p.Client.Value = p.Client.Options[0].ID
	}
	if p.Assignee, err = v.field(reference("assigned_to"), store.ResourceQuery{}, "", "Nobody", p.Errors); err != nil {
		return err
	}
	return v.page(status, "newticket", "tickets", "New ticket", p)
}

func (v *visit) createTicket() error {
	f := v.form
	d := ticket.Draft{
		Title: strings.TrimSpace(f.Get("title")), StatusID: f.Get("status_id"), PriorityID: f.Get("priority_id"),
		Description: orNil(strings.TrimSpace(f.Get("description"))), Tags: commaList(f.Get("tags")),
	}
	s, noStatus := v.chosenStatus(d.StatusID)
	client, noClient := v.chosenID(reference("client_id"), store.ResourceQuery{})
	assignee, noUser := v.changed(reference("assigned_to"), store.ResourceQuery{}, nil)
	if err := mistakes(noStatus, noClient, noUser); formFailed(err) {
		return v.ticketForm(fault.KindOf(err).HTTPStatus(), err)
	} else if err != nil {
		return err
	}
	d.BoardID, d.ClientID, d.AssignedTo = s.BoardID, client, assignee.Value
	t, err := v.store().CreateTicket(v.ctx, v.now, v.who.Actor(), d)
	if formFailed(err) {
		return v.ticketForm(fault.KindOf(err).HTTPStatus(), err)
	}
	if err != nil {
		return err
	}
	return v.redirect("/msp/tickets/"+t.TicketID, "created")
}
