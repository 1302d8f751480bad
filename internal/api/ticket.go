package api

import (
	"context"
	"net/http"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// ticketRoutes are the routes of contract section 2.2 without the peripheral
// ones (documents, materials, bundles, checklists, assets, time entries).
func (s *Server) ticketRoutes() []route {
	return []route{
		{http.MethodGet, "/tickets", "ticket", "read", (*call).listTickets},
		{http.MethodPost, "/tickets", "ticket", "create", (*call).createTicket},
		{http.MethodGet, "/tickets/search", "ticket", "read", (*call).searchTickets},
		{http.MethodGet, "/tickets/stats", "ticket", "read", (*call).ticketStats},
		{http.MethodGet, "/tickets/statuses", "ticket", "read", (*call).ticketStatuses},
		{http.MethodGet, "/tickets/priorities", "ticket", "read", (*call).ticketPriorities},
		{http.MethodGet, "/tickets/from-asset", "ticket", "read", noAssets(fault.MethodNotAllowed)},
		{http.MethodPost, "/tickets/from-asset", "ticket", "create", noAssets(fault.NotFound)},
		{http.MethodGet, "/tickets/{id}", "ticket", "read", (*call).getTicket},
		{http.MethodPut, "/tickets/{id}", "ticket", "update", (*call).updateTicket},
		{http.MethodDelete, "/tickets/{id}", "ticket", "delete", (*call).deleteTicket},
		{http.MethodPut, "/tickets/{id}/status", "ticket", "update", (*call).setStatus},
		{http.MethodPut, "/tickets/{id}/assignment", "ticket", "update", (*call).setAssignment},
		{http.MethodPut, "/tickets/{id}/team", "ticket", "update", (*call).setTeam},
		{http.MethodDelete, "/tickets/{id}/team", "ticket", "update", (*call).removeTeam},
		{http.MethodGet, "/tickets/{id}/agents", "ticket", "read", (*call).listAgents},
		{http.MethodPost, "/tickets/{id}/agents", "ticket", "update", (*call).addAgent},
		{http.MethodDelete, "/tickets/{id}/agents/{userId}", "ticket", "update", (*call).removeAgent},
	}
}

// noAssets answers for the one peripheral path that /tickets/{id} would catch:
// the contract names a 405 for its GET (section 1.2), and there are no assets to
// make tickets from.
func noAssets(k fault.Kind) func(*call) (answer, error) {
	message := "Route not found"
	if k == fault.MethodNotAllowed {
		message = "Method GET is not allowed here"
	}
	return func(*call) (answer, error) { return answer{}, fault.New(k, "%s", message) }
}

func (c *call) getTicket() (answer, error) {
	id, err := c.id("id", "ticket")
	if err != nil {
		return answer{}, err
	}
	t, err := c.store().Ticket(c.ctx, c.tenant(), id)
	if err != nil {
		return answer{}, err
	}
	return ok(t), nil
}

func (c *call) createTicket() (answer, error) {
	o, err := c.object()
	if err != nil {
		return answer{}, err
	}
	d := o.ticketDraft()
	if err := o.err(); err != nil {
		return answer{}, err
	}
	return change(c, func(ctx context.Context) (ticket.Ticket, error) {
		return c.store().CreateTicket(ctx, c.now, c.who.Actor(), d)
	}, func(t ticket.Ticket) answer { return created(t) })
}

func (c *call) updateTicket() (answer, error) {
	return c.patchTicket((*object).ticketPatch)
}

func (c *call) setStatus() (answer, error) {
	return c.patchTicket((*object).statusPatch)
}

func (c *call) setAssignment() (answer, error) {
	return c.patchTicket((*object).assignmentPatch)
}

func (c *call) setTeam() (answer, error) {
	return c.patchTicket((*object).teamPatch)
}

// patchTicket is every route that changes fields of a ticket; they differ only
// in which keys of the body they read.
func (c *call) patchTicket(read func(*object) ticket.Patch) (answer, error) {
	id, err := c.id("id", "ticket")
	if err != nil {
		return answer{}, err
	}
	o, err := c.object()
	if err != nil {
		return answer{}, err
	}
	p := read(o)
	if err := o.err(); err != nil {
		return answer{}, err
	}
	return change(c, func(ctx context.Context) (ticket.Ticket, error) {
		return c.store().UpdateTicket(ctx, c.now, c.who.Actor(), id, p)
	}, func(t ticket.Ticket) answer { return ok(t) })
}

func (c *call) deleteTicket() (answer, error) {
	id, err := c.id("id", "ticket")
	if err != nil {
		return answer{}, err
	}
	return change(c, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, c.store().DeleteTicket(ctx, c.who.Actor(), id)
	}, func(struct{}) answer { return noContent() })
}

// removeTeam reads an optional body: mode says which agents leave with the team,
// and selective names those who stay (contract section 2.2).
func (c *call) removeTeam() (answer, error) {
	id, err := c.id("id", "ticket")
	if err != nil {
		return answer{}, err
	}
	o, err := c.object()
	if err != nil {
		return answer{}, err
	}
	mode := "remove_all"
	if m := o.enum("mode", "remove_all", "keep_all", "selective"); m != nil {
		mode = *m
	}
	if mode == "selective" {
		o.need("keep_user_ids", "array")
	}
	keep := o.uuids("keep_user_ids", 0, 0)
	if err := o.err(); err != nil {
		return answer{}, err
	}
	return change(c, func(ctx context.Context) (ticket.Ticket, error) {
		return c.store().RemoveTeam(ctx, c.now, c.who.Actor(), id, mode, keep)
	}, func(t ticket.Ticket) answer { return ok(t) })
}
