package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/cutover"
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
func (d *demo) work(ctx context.Context) error {
	for _, s := range script() {
		if !s.hurry {
			if err := pause(ctx, d.cmd.Pace); err != nil {
				return err
			}
		}
		do := d.change
		if s.down {
			do = d.changeWhileDown
		}
		if err := do(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return nil
}

// change makes one change.
func (d *demo) change(ctx context.Context, s step) error {
	at := time.Now()
	t, err := s.do(ctx, d, d.tickets[s.ticket].TicketID)
	if err != nil {
		return err
	}
	d.log.changed(at, t, s.what)
	return nil
}

// retryLimit is how long the demo waits for an attempt.
const retryLimit = 30 * time.Second

// changeWhileDown makes a change while the receiver is restarted. Its event comes
// with a later attempt.
func (d *demo) changeWhileDown(ctx context.Context, s step) (err error) {
	ctx, cancel := context.WithTimeout(ctx, retryLimit)
	defer cancel()
	tail, err := cutover.OpenTail(d.state)
	if err != nil {
		return err
	}
	defer closing(tail, &err)
	d.log.note("the receiver is stopped, as for an update")
	if err := d.stopReceiver(); err != nil {
		return err
	}
	if err := d.change(ctx, s); err != nil {
		return err
	}
	if err := d.awaitRetry(ctx); err != nil {
		return err
	}
	d.log.note("nobody answers the webhook, which tries again; the receiver is started")
	if err := d.bindReceiver(ctx); err != nil {
		return err
	}
	if err := d.receiver.Start(ctx); err != nil {
		return err
	}
	e, err := tail.Await(ctx, func(e cutover.Entry) bool {
		return e.Receipt != nil && e.Receipt.Attempt > 1 && e.Receipt.HTTP == http.StatusOK
	})
	if err != nil {
		return err
	}
	d.log.note(fmt.Sprintf("%s arrived with attempt %d", e.Receipt.EventType, e.Receipt.Attempt))
	return nil
}

// awaitRetry waits until the log of deliveries has an attempt that failed.
func (d *demo) awaitRetry(ctx context.Context) error {
	for {
		for _, err := range d.api.Deliveries(ctx, d.setup.WebhookID, client.DeliveryFilter{Status: "retrying"}) {
			return err
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// pause waits between two changes, or ends with the demo.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
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
		{what: "new, and not on the list", do: openNew("Screen flickers")},
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

// openNew makes a ticket that the poller does not watch.
func openNew(title string) doing {
	return func(ctx context.Context, d *demo, _ string) (*client.Ticket, error) { return d.openTicket(ctx, title) }
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
