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

// people is who works on a ticket, and who else could.
type people struct {
	store.AgentList
	Team  string  // its name; "" without one
	Teams chooser // to give the ticket to
	Users chooser // to add
	Role  string  // of the form that failed
}

func teamReference() referred {
	return refers("team_id", "Team", "team", (*store.Store).Teams, (*store.Store).Team,
		func(t *ticket.Team) option { return option{t.TeamID, t.Name} })
}

func agentReference() referred { return userReference("user_id", "Agent") }

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
	limit := store.ResourceQuery{Limit: maxChoices}
	for _, c := range []struct {
		into *chooser
		ref  referred
	}{{&p.Teams, teamReference()}, {&p.Users, agentReference()}} {
		if *c.into, err = v.chooser(c.ref, limit, ""); err != nil {
			return p, err
		}
		c.into.Any, c.into.Error = "Choose", errs[c.ref.name]
		if c.into.Error != "" { // what was chosen or typed is shown again
			c.into.Value, c.into.Text = v.form.Get(c.ref.name), v.form.Get(c.ref.name)
		}
	}
	p.Role = v.form.Get("role")
	return p, nil
}

// chosenID resolves what a form has chosen by id or by name. The error is one of the
// field.
func (v *visit) chosenID(ref referred) (string, error) {
	text := strings.TrimSpace(v.form.Get(ref.name))
	if text == "" {
		return "", fault.Field(ref.name, "choose a %s", ref.kind)
	}
	o, err := v.named(ref, store.ResourceQuery{Limit: maxChoices}, text)
	if problem, ok := errors.AsType[*fault.Error](err); ok && problem.Kind == fault.Invalid {
		return "", fault.Field(ref.name, "%s", problem.Message)
	}
	return o.ID, err
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

func (v *visit) setTeam() error {
	t, err := v.store().Ticket(v.ctx, v.tenant(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	id, err := v.chosenID(teamReference())
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
	id, err := v.chosenID(agentReference())
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
