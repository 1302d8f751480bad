package main

import (
	"context"
	"fmt"
	"time"

	"github.com/ticketwire/ticketwire/client"
)

// step is one piece of simulated ticket work. what is shown beside the ticket.
type step struct {
	ticket int // index of the ticket
	what   string
	do     func(ctx context.Context, d *demo, id string) (*client.Ticket, error)
	down   bool // the receiver is down while this happens
	hurry  bool // no pause before it, so that a poll sees both changes as one
}

// work makes the changes, one after the other.
func (d *demo) work(ctx context.Context, tickets []*client.Ticket) error {
	for _, s := range script() {
		if !s.hurry {
			if err := pause(ctx, d.cmd.Pace); err != nil {
				return err
			}
		}
		if s.down {
			d.log.note("the receiver goes down for a moment: its event is retried")
		}
		d.down.Store(s.down)
		t := tickets[s.ticket]
		at := time.Now()
		next, err := s.do(ctx, d, t.TicketID)
		if err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
		d.log.changed(at, next, s.what)
		if s.down {
			if err := d.log.awaitRefusal(ctx); err != nil {
				return err
			}
			d.down.Store(false)
		}
	}
	return nil
}

// script is the work: what a small help desk does in a quarter of an hour.
func script() []step {
	return []step{
		{ticket: 0, what: "status: In Progress", do: status("In Progress")},
		{ticket: 0, what: "assigned to Demo Agent", do: assign},
		{ticket: 1, what: "priority: High", do: priority("High")},
		{ticket: 2, what: "comment", do: comment("Ordered, arrives on Thursday.")},
		{ticket: 3, what: "tags: mail, quota", do: tags("mail", "quota")},
		{ticket: 4, what: "status: In Progress", do: status("In Progress")},
		{ticket: 4, what: "status: Waiting on Client", do: status("Waiting on Client"), hurry: true},
		{ticket: 5, what: "title changed", do: title("Phone system: no ring tone on line 2")},
		{ticket: 1, what: "assigned to Demo Agent", do: assign, down: true},
		{ticket: 3, what: "status: Closed", do: status("Closed")},
		{ticket: 0, what: "comment", do: comment("New fuser fitted, test page is fine.")},
		{ticket: 0, what: "status: Closed", do: status("Closed"), hurry: true},
		{ticket: 2, what: "priority: Low", do: priority("Low")},
		{ticket: 4, what: "status: Open", do: status("Open")},
		{ticket: 5, what: "priority: Urgent", do: priority("Urgent")},
		{ticket: 5, what: "assigned to Demo Agent", do: assign, hurry: true},
		{ticket: 5, what: "status: In Progress", do: status("In Progress"), hurry: true},
		{ticket: 1, what: "tags: vpn", do: tags("vpn")},
		{ticket: 3, what: "reopened", do: status("Open")},
		{ticket: 2, what: "status: In Progress", do: status("In Progress")},
		{ticket: 1, what: "status: Closed", do: status("Closed")},
		{ticket: 5, what: "comment", do: comment("Line 2 rings again.")},
		{ticket: 5, what: "status: Closed", do: status("Closed"), hurry: true},
	}
}

type doing = func(ctx context.Context, d *demo, id string) (*client.Ticket, error)

func update(in func(d *demo) client.TicketUpdate) doing {
	return func(ctx context.Context, d *demo, id string) (*client.Ticket, error) {
		return d.api.UpdateTicket(ctx, id, in(d))
	}
}

func status(name string) doing {
	return update(func(d *demo) client.TicketUpdate {
		return client.TicketUpdate{StatusID: client.Set(d.tenant.Statuses[name])}
	})
}

func priority(name string) doing {
	return update(func(d *demo) client.TicketUpdate {
		return client.TicketUpdate{PriorityID: client.Set(d.tenant.Priorities[name])}
	})
}

func title(text string) doing {
	return update(func(*demo) client.TicketUpdate { return client.TicketUpdate{Title: client.Set(text)} })
}

func tags(texts ...string) doing {
	return update(func(*demo) client.TicketUpdate { return client.TicketUpdate{Tags: client.Set(texts)} })
}

func assign(ctx context.Context, d *demo, id string) (*client.Ticket, error) {
	return d.api.UpdateTicket(ctx, id, client.TicketUpdate{AssignedTo: client.Set(d.tenant.UserID)})
}

// comment adds a comment, which moves the ticket's updated_at, and reads the
// ticket to learn where to.
func comment(text string) doing {
	return func(ctx context.Context, d *demo, id string) (*client.Ticket, error) {
		if _, err := d.api.AddComment(ctx, id, client.CommentInput{Text: text}); err != nil {
			return nil, err
		}
		return d.api.Ticket(ctx, id)
	}
}
