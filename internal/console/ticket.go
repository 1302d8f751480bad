package console

import (
	"cmp"
	"encoding/json"
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
		{"POST /msp/tickets/{id}", "ticket", "update", (*visit).updateTicket},
		{"POST /msp/tickets/{id}/comments", "ticket", "update", (*visit).addComment},
	}
}

// choices are what the fields of a ticket can be.
type choices struct {
	Statuses   []statusGroup
	Priorities []ticket.Priority
	Clients    []ticket.Client
	Users      []ticket.User
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
	if c.Priorities, _, err = v.store().Priorities(v.ctx, v.tenant(), store.ResourceQuery{All: true}); err != nil {
		return c, err
	}
	if c.Clients, _, err = v.store().Clients(v.ctx, v.tenant(), store.ResourceQuery{Limit: maxChoices}); err != nil {
		return c, err
	}
	c.Users, _, err = v.store().Users(v.ctx, v.tenant(), store.ResourceQuery{Limit: maxChoices})
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
	choices
	Errors map[string]string // by field; "" is about the whole form
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
	p := ticketPage{Ticket: t, Errors: fieldErrors(problem)}
	var attributes struct {
		Description string `json:"description"`
	}
	if json.Unmarshal(t.Attributes, &attributes) == nil {
		p.Description = attributes.Description
	}
	if p.choices, err = v.choices(); err != nil {
		return err
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
	return v.page(status, "ticket", "tickets", t.Number+" "+t.Title, p)
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
	names, err := v.names()
	if err != nil {
		return out, err
	}
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
			m.Changes = changesOf(m.Data.Changes, names)
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

// names returns what the ids stand for that a change can name.
func (v *visit) names() (map[string]string, error) {
	c, err := v.choices()
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, g := range c.Statuses {
		for _, s := range g.Statuses {
			names[s.StatusID], names[s.BoardID] = s.Name, g.Board
		}
	}
	for _, p := range c.Priorities {
		names[p.PriorityID] = p.Name
	}
	for _, cl := range c.Clients {
		names[cl.ClientID] = cl.Name
	}
	for i := range c.Users {
		names[c.Users[i].UserID] = cmp.Or(deref(c.Users[i].DisplayName()), c.Users[i].Email)
	}
	return names, nil
}

func changesOf(list webhook.Changes, names map[string]string) []change {
	out := make([]change, len(list))
	for i, c := range list {
		out[i] = change{Field: c.Field, Old: plainValue(c.Previous, names), New: plainValue(c.New, names)}
	}
	return out
}

// plainValue is a JSON value as a person writes it, a name where it is a known id.
func plainValue(raw json.RawMessage, names map[string]string) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return cmp.Or(names[s], s, "nothing")
	}
	return string(raw)
}

// updateTicket reads the form of the ticket's fields. A field that is not in the
// form stays, so each of the small forms of the page changes its own.
func (v *visit) updateTicket() error {
	f := v.form
	var p ticket.Patch
	if f.Has("title") {
		p.Title = ticket.Some(strings.TrimSpace(f.Get("title")))
	}
	if f.Has("status_id") {
		p.StatusID = ticket.Some(f.Get("status_id"))
	}
	if f.Has("priority_id") {
		p.PriorityID = ticket.Some(f.Get("priority_id"))
	}
	if f.Has("assigned_to") {
		p.AssignedTo = ticket.Some(orNil(f.Get("assigned_to")))
	}
	if f.Has("tags") {
		p.Tags = ticket.Some(commaList(f.Get("tags")))
	}
	t, err := v.store().Ticket(v.ctx, v.tenant(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	if p.StatusID.Set {
		// A status says its board: choosing one of another board moves the ticket.
		s, err := v.store().Status(v.ctx, v.tenant(), p.StatusID.Value)
		if err != nil {
			return v.ticketPage(http.StatusBadRequest, fault.Field("status_id", "choose a status"))
		}
		if s.BoardID != t.BoardID {
			p.BoardID = ticket.Some(s.BoardID)
		}
	}
	changed, err := v.store().UpdateTicket(v.ctx, v.now, v.who.Actor(), t.TicketID, p)
	if formFailed(err) {
		return v.ticketPage(fault.KindOf(err).HTTPStatus(), err)
	}
	if err != nil {
		return err
	}
	done := "saved"
	if changed.UpdatedAt.Equal(t.UpdatedAt.Time) {
		done = "unchanged"
	}
	return v.redirect("/msp/tickets/"+t.TicketID, done)
}

func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// commaList reads a field with several texts. It is never nil.
func commaList(s string) []string {
	out := []string{}
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
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
	Form   url.Values
	Errors map[string]string
}

func (v *visit) newTicket() error { return v.ticketForm(http.StatusOK, nil) }

func (v *visit) ticketForm(status int, problem error) error {
	p := ticketForm{Form: v.form, Errors: fieldErrors(problem)}
	var err error
	if p.choices, err = v.choices(); err != nil {
		return err
	}
	return v.page(status, "newticket", "tickets", "New ticket", p)
}

func (v *visit) createTicket() error {
	f := v.form
	d := ticket.Draft{
		Title: strings.TrimSpace(f.Get("title")), StatusID: f.Get("status_id"), PriorityID: f.Get("priority_id"),
		ClientID: f.Get("client_id"), AssignedTo: orNil(f.Get("assigned_to")), Description: orNil(strings.TrimSpace(f.Get("description"))),
		Tags: commaList(f.Get("tags")),
	}
	s, err := v.store().Status(v.ctx, v.tenant(), d.StatusID)
	if err != nil {
		return v.ticketForm(http.StatusBadRequest, fault.Field("status_id", "choose a status"))
	}
	d.BoardID = s.BoardID
	t, err := v.store().CreateTicket(v.ctx, v.now, v.who.Actor(), d)
	if formFailed(err) {
		return v.ticketForm(fault.KindOf(err).HTTPStatus(), err)
	}
	if err != nil {
		return err
	}
	return v.redirect("/msp/tickets/"+t.TicketID, "created")
}
