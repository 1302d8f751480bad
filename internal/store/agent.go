package store

import (
	"context"
	"slices"
	"time"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// AgentList is who works on a ticket (contract section 2.2).
type AgentList struct {
	TicketID   string         `json:"ticket_id"`
	Primary    *ticket.Agent  `json:"primary_agent"`
	Additional []ticket.Agent `json:"additional_agents"` // in the order they were added; never nil
}

// TicketAgents returns the primary and the additional agents of a ticket.
func (s *Store) TicketAgents(ctx context.Context, tenant, id string) (AgentList, error) {
	r := s.reader(ctx)
	tk, err := ticketOf(r, tenant, id, noTicketOwner)
	if err != nil {
		return AgentList{}, err
	}
	return agentsOf(r, tk)
}

func agentsOf(q querier, tk ticket.Ticket) (AgentList, error) {
	list := AgentList{TicketID: tk.TicketID}
	if tk.AssignedTo != nil {
		u, err := userOf(q, tk.TenantID, *tk.AssignedTo)
		if err != nil {
			return AgentList{}, err
		}
		list.Primary = &ticket.Agent{
			UserID: u.UserID, Name: u.DisplayName(), Email: u.Email, Role: rolePrimary, IsPrimary: true,
		}
	}
	rows, err := q.query(`
		select a.user_id, a.role, coalesce(u.first_name, ''), coalesce(u.last_name, ''), coalesce(u.email, '')
		from ticket_agents a
		left join users u on u.tenant_id = a.tenant_id and u.user_id = a.user_id
		where a.tenant_id = $1 and a.ticket_id = $2
		order by a.created_at, a.user_id`, tk.TenantID, tk.TicketID)
	list.Additional, err = collect(rows, err, func(row scanner) (ticket.Agent, error) {
		var a ticket.Agent
		var u ticket.User
		err := row.Scan(&a.UserID, &a.Role, &u.FirstName, &u.LastName, &a.Email)
		a.Name = u.DisplayName()
		return a, err
	})
	return list, err
}

// rolePrimary is the role that the primary agent is shown with; it has none of
// its own.
const rolePrimary = "primary"

// AddAgent puts a user on a ticket: as its primary agent, with the events of an
// assignment, when it has none, otherwise as an additional one without an event.
// Errors are those of ticket.AddAgent, and NotFound.
func (s *Store) AddAgent(ctx context.Context, now time.Time, a ticket.Actor, id, userID, role string, sup ticket.Suppress) (AgentList, error) {
	return write(ctx, s, func(t *tx) (AgentList, error) {
		tk, err := t.ticket(a.TenantID, id, noTicketOwner)
		if err != nil {
			return AgentList{}, err
		}
		list, err := agentsOf(t, tk)
		if err != nil {
			return AgentList{}, err
		}
		var user *ticket.User
		if err := lookup(&user, t, userOf, a.TenantID, userID); err != nil {
			return AgentList{}, err
		}
		change, err := ticket.AddAgent(tk, list.Additional,
			ticket.AgentDraft{UserID: userID, Role: role, Suppress: sup}, user)
		if err != nil {
			return AgentList{}, err
		}
		if change.Patch != nil {
			if tk, err = t.apply(now, a, tk, *change.Patch); err != nil {
				return AgentList{}, err
			}
			return agentsOf(t, tk)
		}
		if err := t.change("insert into ticket_agents", `
			insert into ticket_agents (tenant_id, ticket_id, user_id, role, created_at) values ($1, $2, $3, $4, $5)`,
			tk.TenantID, tk.TicketID, change.Agent.UserID, change.Agent.Role, micros(now)); err != nil {
			return AgentList{}, err
		}
		return agentsOf(t, tk)
	})
}

// RemoveAgent takes an additional agent off a ticket, without an event. Errors
// are those of ticket.RemoveAgent, and NotFound.
func (s *Store) RemoveAgent(ctx context.Context, now time.Time, a ticket.Actor, id, userID string) error {
	_, err := write(ctx, s, func(t *tx) (struct{}, error) {
		tk, err := t.ticket(a.TenantID, id, noTicketOwner)
		if err != nil {
			return struct{}{}, err
		}
		list, err := agentsOf(t, tk)
		if err != nil {
			return struct{}{}, err
		}
		if err := ticket.RemoveAgent(tk, list.Additional, userID); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, t.deleteAgent(tk, lowerID(userID))
	})
	return err
}

func (t *tx) deleteAgent(tk ticket.Ticket, userID string) error {
	return t.change("delete from ticket_agents",
		`delete from ticket_agents where tenant_id = $1 and ticket_id = $2 and user_id = $3`,
		tk.TenantID, tk.TicketID, userID)
}

// The modes of RemoveTeam (contract section 2.2).
const (
	removeAll  = "remove_all"
	keepAll    = "keep_all"
	selective  = "selective"
	modeWanted = "Invalid enum value. Expected 'remove_all' | 'keep_all' | 'selective'"
)

// RemoveTeam takes the team off a ticket. mode says what happens to the
// additional agents: remove_all (also for ""), keep_all, or selective, which
// keeps those in keep. A ticket without a team stays as it is.
func (s *Store) RemoveTeam(ctx context.Context, now time.Time, a ticket.Actor, id, mode string, keep []string) (ticket.Ticket, error) {
	switch mode {
	case "", removeAll:
		keep = nil
	case keepAll, selective:
	default:
		return ticket.Ticket{}, fault.Field("mode", modeWanted)
	}
	return write(ctx, s, func(t *tx) (ticket.Ticket, error) {
		old, err := t.ticket(a.TenantID, id, noTicketOwner)
		if err != nil || old.AssignedTeamID == nil {
			return old, err
		}
		list, err := agentsOf(t, old)
		if err != nil {
			return ticket.Ticket{}, err
		}
		kept := lowerIDs(keep)
		for _, agent := range list.Additional {
			if mode == keepAll || slices.Contains(kept, agent.UserID) {
				continue
			}
			if err := t.deleteAgent(old, agent.UserID); err != nil {
				return ticket.Ticket{}, err
			}
		}
		return t.apply(now, a, old, ticket.Patch{AssignedTeamID: ticket.Some[*string](nil)})
	})
}
