package main

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"

	"github.com/ticketwire/ticketwire/client"
)

type eventsCmd struct {
	List eventsListCmd `cmd:"" help:"List events, oldest first."`
	Get  eventsGetCmd  `cmd:"" help:"Print the envelope of an event."`
	Tail eventsTailCmd `cmd:"" help:"Print events as they happen."`
}

// Help is shown below the subcommands.
func (eventsCmd) Help() string {
	return `Every event of the tenant, whether or not a webhook wanted it.

Examples:
  export TICKETWIRE_API_KEY=tw_...
  ticketwire events list --since 2h --types ticket.closed
  ticketwire events tail --json | jq .data.title
  ticketwire events get 0199... --raw | ticketwire sign --secret ...`
}

func eventColumns() []column[client.Event] {
	return []column[client.Event]{
		{"OCCURRED", func(e *client.Event) string { return stamp(&e.OccurredAt) }},
		{"TYPE", func(e *client.Event) string { return e.EventType }},
		{"TICKET", func(e *client.Event) string { return newForwarded(e).TicketNumber }},
		{"ID", func(e *client.Event) string { return e.EventID }},
	}
}

type eventsListCmd struct {
	listFlags
	Since  string   `help:"Events since then: how long ago (2h), a date and time, or unix seconds. Default: from the beginning." placeholder:"TIME"`
	Types  []string `help:"Only these event types." placeholder:"TYPE"`
	Ticket string   `help:"Only events of this ticket." placeholder:"ID"`
}

// Run prints the feed from its beginning.
func (c *eventsListCmd) Run(ctx context.Context, t terminal) error {
	f := client.EventFilter{Types: c.Types, TicketID: c.Ticket}
	var err error
	if f.Since, _, err = window(c.Since, ""); err != nil {
		return err
	}
	api, err := c.connect()
	if err != nil {
		return err
	}
	walk := eventsOf(api.EventPages(ctx, "", f))
	if !c.JSON {
		return printList(t, c.listFlags, walk, eventColumns())
	}
	return printList(t, c.listFlags, envelopesOf(walk), nil)
}

// eventsOf walks through the events of pages.
func eventsOf(pages iter.Seq2[*client.EventPage, error]) iter.Seq2[*client.Event, error] {
	return func(yield func(*client.Event, error) bool) {
		for p, err := range pages {
			if err != nil {
				yield(nil, err)
				return
			}
			for i := range p.Data {
				if !yield(&p.Data[i], nil) {
					return
				}
			}
		}
	}
}

// envelopesOf walks through the envelopes with every key that they came with.
func envelopesOf(walk iter.Seq2[*client.Event, error]) iter.Seq2[*json.RawMessage, error] {
	return func(yield func(*json.RawMessage, error) bool) {
		for e, err := range walk {
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(&e.Raw, nil) {
				return
			}
		}
	}
}

type eventsGetCmd struct {
	apiFlags
	ID  string `arg:"" help:"The event's id."`
	Raw bool   `help:"Print the bytes that webhooks carry and that signatures cover, without a line break."`
}

// Run prints the envelope.
func (c *eventsGetCmd) Run(ctx context.Context, t terminal) error {
	api, err := c.connect()
	if err != nil {
		return err
	}
	e, err := api.Event(ctx, c.ID)
	if err != nil {
		return err
	}
	if c.Raw {
		_, err = t.out.Write(e.Raw)
		return err
	}
	return printJSON(t.out, e.Raw)
}

type eventsTailCmd struct {
	apiFlags
	feedFlags
	JSON bool `name:"json" help:"Print the envelopes, one a line."`
}

// Run prints events until it is interrupted.
func (c *eventsTailCmd) Run(ctx context.Context, t terminal) error {
	f, err := c.newFollower(c.apiFlags, t, new(listenState), false)
	if err != nil {
		return err
	}
	if err := f.begin(ctx); err != nil {
		return err
	}
	f.note("Ready: events of %s.", c.URL)
	return f.run(ctx, func(e *client.Event) error {
		line := string(e.Raw)
		if !c.JSON {
			d := newForwarded(e)
			line = fmt.Sprintf("%s  %-21s %-9s %s", e.OccurredAt.Local().Format("15:04:05.000"), printable(e.EventType), printable(d.TicketNumber), printable(e.EventID))
		}
		_, err := fmt.Fprintln(t.out, line)
		return err
	})
}
