package api

import (
	"context"

	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// listAgents says who works on a ticket: the primary agent, who is assigned_to,
// and the additional ones (contract section 2.2).
func (c *call) listAgents() (answer, error) {
	id, err := c.id("id", "ticket")
	if err != nil {
		return answer{}, err
	}
	l, err := c.store().TicketAgents(c.ctx, c.tenant(), id)
	if err != nil {
		return answer{}, err
	}
	return ok(l), nil
}

func (c *call) addAgent() (answer, error) {
	id, err := c.id("id", "ticket")
	if err != nil {
		return answer{}, err
	}
	o, err := c.object()
	if err != nil {
		return answer{}, err
	}
	user, role, sup := o.needUUID("user_id"), o.needText("role", 1, ticket.MaxRole), o.suppress()
	if err := o.err(); err != nil {
		return answer{}, err
	}
	return change(c, func(ctx context.Context) (store.AgentList, error) {
		return c.store().AddAgent(ctx, c.now, c.who.Actor(), id, user, role, sup)
	}, func(l store.AgentList) answer { return created(l) })
}

func (c *call) removeAgent() (answer, error) {
	id, err := c.id("id", "ticket")
	if err != nil {
		return answer{}, err
	}
	user, err := c.id("userId", "user")
	if err != nil {
		return answer{}, err
	}
	return change(c, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, c.store().RemoveAgent(ctx, c.now, c.who.Actor(), id, user)
	}, func(struct{}) answer { return noContent() })
}
