package console

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

func ticketEditRoutes() []route {
	return []route{
		{"POST /msp/tickets/{id}", "ticket", "update", (*visit).updateTicket},
		{"POST /msp/tickets/{id}/team", "ticket", "update", (*visit).setTeam},
		{"POST /msp/tickets/{id}/team/remove", "ticket", "update", (*visit).removeTeam},
		{"POST /msp/tickets/{id}/agents", "ticket", "update", (*visit).addAgent},
		{"POST /msp/tickets/{id}/agents/{user}/remove", "ticket", "update", (*visit).removeAgent},
		{"POST /msp/tickets/{id}/attributes", "ticket", "update", (*visit).setAttributes},
		{"POST /msp/tickets/{id}/tags/{tag}/remove", "tag", "delete", (*visit).removeTag},
		{"GET /msp/tickets/{id}/delete", "ticket", "delete", (*visit).confirmDelete},
		{"POST /msp/tickets/{id}/delete", "ticket", "delete", (*visit).deleteTicket},
	}
}

// parties are the fields of a ticket that choose by name and may be empty, with what
// it holds. A contact and a location are those of its client, a category is one of
// its board.
func parties(t *ticket.Ticket) []struct {
	name   string
	within store.ResourceQuery
	held   *string
} {
	client, board := store.ResourceQuery{ClientID: t.ClientID}, store.ResourceQuery{BoardID: t.BoardID}
	return []struct {
		name   string
		within store.ResourceQuery
		held   *string
	}{
		{"contact_name_id", client, t.ContactNameID}, {"location_id", client, t.LocationID},
		{"category_id", board, t.CategoryID}, {"subcategory_id", board, t.SubcategoryID},
	}
}

// people is who works on a ticket, and who else could.
type people struct {
	store.AgentList
	Team  string  // its name; "" without one
	Teams chooser // to give the ticket to
	Users chooser // to add
	Role  string  // of the form that failed
}

// people fills in the part of the ticket's page that is about them.
func (v *visit) people(t *ticket.Ticket, errs map[string]string) (p people, err error) {
	if p.AgentList, err = v.store().TicketAgents(v.ctx, v.tenant(), t.TicketID); err != nil {
		return p, err
	}
	if id := deref(t.AssignedTeamID); id != "" {
		team, err := v.store().Team(v.ctx, v.tenant(), id)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return p, err
		}
		p.Team = team.Name
	}
	if p.Teams, err = v.field(teamReference(), store.ResourceQuery{}, "", "Choose", errs); err != nil {
		return p, err
	}
	if p.Users, err = v.field(agentReference(), store.ResourceQuery{}, "", "Choose", errs); err != nil {
		return p, err
	}
	p.Role = v.form.Get("role")
	return p, nil
}

// edited ends a form of the ticket's page: with the page again and what was wrong,
// or with the page as it is now.
func (v *visit) edited(id string, err error, done string) error {
	if formFailed(err) {
		return v.ticketPage(fault.KindOf(err).HTTPStatus(), err)
	}
	if err != nil {
		return err
	}
	return v.redirect("/msp/tickets/"+id, done)
}

// updateTicket reads the form of the ticket's fields. A field that is not in the
// form stays, so each of the small forms of the page changes its own.
func (v *visit) updateTicket() error {
	t, err := v.store().Ticket(v.ctx, v.tenant(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	p, err := v.ticketPatch(&t)
	changed := t
	if err == nil {
		changed, err = v.store().UpdateTicket(v.ctx, v.now, v.who.Actor(), t.TicketID, p)
	}
	if err == nil && changed.UpdatedAt.Equal(t.UpdatedAt.Time) {
		return v.edited(t.TicketID, nil, "unchanged")
	}
	return v.edited(t.TicketID, err, "saved")
}

// ticketPatch is what the form makes of a ticket. The error has all that is wrong.
func (v *visit) ticketPatch(t *ticket.Ticket) (p ticket.Patch, err error) {
	f := v.form
	var wrong []error
	if f.Has("title") {
		p.Title = ticket.Some(strings.TrimSpace(f.Get("title")))
	}
	if f.Has("status_id") {
		// A status says its board: choosing one of another board moves the ticket.
		p.StatusID = ticket.Some(f.Get("status_id"))
		s, err := v.chosenStatus(p.StatusID.Value)
		if err != nil {
			wrong = append(wrong, err)
		} else if s.BoardID != t.BoardID {
			p.BoardID = ticket.Some(s.BoardID)
		}
	}
	if f.Has("priority_id") {
		p.PriorityID = ticket.Some(f.Get("priority_id"))
	}
	if f.Has("tags") {
		p.Tags = ticket.Some(commaList(f.Get("tags")))
	}
	if f.Has("url") {
		p.URL = ticket.Some(orNil(strings.TrimSpace(f.Get("url"))))
	}
	// The field shows minutes: what is shown and sent back keeps its seconds.
	if text := strings.TrimSpace(f.Get("due_date")); f.Has("due_date") && text != dueText(t) {
		due, err := moment("due_date", text, false)
		p.DueDate, wrong = ticket.Some(due), append(wrong, err)
	}
	if p.AssignedTo, err = v.changed(reference("assigned_to"), store.ResourceQuery{}, t.AssignedTo); err != nil {
		wrong = append(wrong, err)
	}
	into := map[string]*ticket.Opt[*string]{
		"contact_name_id": &p.ContactNameID, "location_id": &p.LocationID, "category_id": &p.CategoryID, "subcategory_id": &p.SubcategoryID,
	}
	for _, field := range parties(t) {
		if *into[field.name], err = v.changed(reference(field.name), field.within, field.held); err != nil {
			wrong = append(wrong, err)
		}
	}
	return p, mistakes(wrong...)
}

// chosenStatus is the status that a form has chosen. There being none is an error of
// the field.
func (v *visit) chosenStatus(id string) (ticket.Status, error) {
	s, err := v.store().Status(v.ctx, v.tenant(), id)
	if fault.Is(err, fault.NotFound) {
		err = fault.Field("status_id", "choose a status")
	}
	return s, err
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

func (v *visit) setTeam() error {
	t, err := v.store().Ticket(v.ctx, v.tenant(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	id, err := v.chosenID(teamReference(), store.ResourceQuery{})
	if err == nil {
		_, err = v.store().UpdateTicket(v.ctx, v.now, v.who.Actor(), t.TicketID, ticket.Patch{AssignedTeamID: ticket.Some(&id)})
	}
	return v.edited(t.TicketID, err, "teamset")
}

// removeTeam takes the team off, and with it the additional agents that are not to
// stay.
func (v *visit) removeTeam() error {
	t, err := v.store().Ticket(v.ctx, v.tenant(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	_, err = v.store().RemoveTeam(v.ctx, v.now, v.who.Actor(), t.TicketID, "selective", v.form["keep"])
	return v.edited(t.TicketID, err, "teamremoved")
}

func (v *visit) addAgent() error {
	t, err := v.store().Ticket(v.ctx, v.tenant(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	id, err := v.chosenID(agentReference(), store.ResourceQuery{})
	if err == nil {
		_, err = v.store().AddAgent(v.ctx, v.now, v.who.Actor(), t.TicketID, id, strings.TrimSpace(v.form.Get("role")), ticket.Suppress{})
		if fault.Is(err, fault.Conflict) {
			err = fault.Field("user_id", "is on this ticket already")
		}
	}
	return v.edited(t.TicketID, err, "agentadded")
}

func (v *visit) removeAgent() error {
	t, err := v.store().Ticket(v.ctx, v.tenant(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	return v.edited(t.TicketID, v.store().RemoveAgent(v.ctx, v.now, v.who.Actor(), t.TicketID, v.r.PathValue("user")), "agentremoved")
}

// setAttributes replaces the free object of a ticket.
func (v *visit) setAttributes() error {
	t, err := v.store().Ticket(v.ctx, v.tenant(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	text := strings.TrimSpace(v.form.Get("attributes"))
	changed := t
	if err = checkJSON(text); err == nil {
		changed, err = v.store().UpdateTicket(v.ctx, v.now, v.who.Actor(), t.TicketID, ticket.Patch{Attributes: ticket.Some(json.RawMessage(text))})
	}
	if err == nil && changed.UpdatedAt.Equal(t.UpdatedAt.Time) {
		return v.edited(t.TicketID, nil, "unchanged")
	}
	return v.edited(t.TicketID, err, "attributes")
}

// checkJSON says in which line a text stops being JSON. No text is none.
func checkJSON(text string) error {
	var value json.RawMessage
	err := json.Unmarshal([]byte(text), &value)
	if text == "" || err == nil {
		return nil
	}
	line := 1
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		line += strings.Count(text[:min(int(syntax.Offset), len(text))], "\n")
	}
	return fault.Field("attributes", "is no JSON, see line %d: %s", line, err)
}

// attributesText is the object as its form shows it, a key on each line.
func attributesText(raw json.RawMessage) string {
	var b bytes.Buffer
	if len(raw) == 0 || json.Indent(&b, raw, "", "  ") != nil {
		return ""
	}
	return b.String()
}

func (v *visit) removeTag() error {
	t, err := v.store().Ticket(v.ctx, v.tenant(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	n, err := v.store().RemoveTags(v.ctx, v.now, v.who.Actor(), t.TicketID, []string{v.r.PathValue("tag")})
	if n == 0 { // somebody else was faster
		return v.edited(t.TicketID, err, "unchanged")
	}
	return v.edited(t.TicketID, err, "tagremoved")
}

// deletePage asks whether a ticket is to be deleted.
type deletePage struct {
	Ticket   ticket.Ticket
	Comments int
	Agents   int // additional ones
}

func (v *visit) confirmDelete() error {
	t, err := v.store().Ticket(v.ctx, v.tenant(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	comments, err := v.store().Comments(v.ctx, v.tenant(), t.TicketID, store.CommentQuery{})
	if err != nil {
		return err
	}
	agents, err := v.store().TicketAgents(v.ctx, v.tenant(), t.TicketID)
	if err != nil {
		return err
	}
	return v.page(http.StatusOK, "deleteticket", "tickets", "Delete "+t.Number, deletePage{t, len(comments), len(agents.Additional)})
}

func (v *visit) deleteTicket() error {
	t, err := v.store().Ticket(v.ctx, v.tenant(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	if err := v.store().DeleteTicket(v.ctx, v.who.Actor(), t.TicketID); err != nil {
		return err
	}
	return v.redirect("/console/tickets", "ticketdeleted")
}
