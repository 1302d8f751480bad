package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/ticketwire/ticketwire/client"
)

type ticketsCmd struct {
	List    ticketsListCmd    `cmd:"" help:"List tickets."`
	Get     ticketsGetCmd     `cmd:"" help:"Show a ticket."`
	Create  ticketsCreateCmd  `cmd:"" help:"Open a ticket."`
	Update  ticketsUpdateCmd  `cmd:"" help:"Change a ticket."`
	Comment ticketsCommentCmd `cmd:"" help:"Add a comment to a ticket."`
}

// Help is shown below the subcommands.
func (ticketsCmd) Help() string {
	return `Boards, clients, statuses and priorities are named by their ids, which bootstrap prints.

Examples:
  export TICKETWIRE_API_KEY=tw_...
  ticketwire tickets list --open --sort updated_at
  ticketwire tickets create --title "Printer offline" --board 0199... --client 0199... --status 0199... --priority 0199...
  ticketwire tickets update 0199... --status 0199... --tag printer --tag onsite
  ticketwire tickets comment 0199... "New fuser fitted." --resolution`
}

func ticketColumns() []column[client.Ticket] {
	return []column[client.Ticket]{
		{"ID", func(x *client.Ticket) string { return x.TicketID }},
		{"NUMBER", func(x *client.Ticket) string { return text(x.TicketNumber) }},
		{"STATUS", func(x *client.Ticket) string { return text(x.StatusName) }},
		{"PRIORITY", func(x *client.Ticket) string { return text(x.PriorityName) }},
		{"ASSIGNED TO", func(x *client.Ticket) string { return text(x.AssignedToName) }},
		{"UPDATED", func(x *client.Ticket) string { return stamp(x.UpdatedAt) }},
		{"TITLE", func(x *client.Ticket) string { return text(x.Title) }},
	}
}

func ticketDetails() []column[client.Ticket] {
	return append(ticketColumns(), []column[client.Ticket]{
		{"BOARD", func(x *client.Ticket) string { return text(x.BoardName) }},
		{"CLIENT", func(x *client.Ticket) string { return text(x.ClientName) }},
		{"CONTACT", func(x *client.Ticket) string { return text(x.ContactName) }},
		{"TAGS", func(x *client.Ticket) string { return fmt.Sprint([]string(x.Tags)) }},
		{"ENTERED", func(x *client.Ticket) string { return stamp(x.EnteredAt) }},
		{"CLOSED", func(x *client.Ticket) string { return stamp(x.ClosedAt) }},
		{"ATTRIBUTES", func(x *client.Ticket) string { return string(x.Attributes) }},
	}...)
}

type ticketsListCmd struct {
	listFlags
	Search   string   `help:"Text in the title or number." placeholder:"TEXT"`
	Open     bool     `help:"Only open tickets." xor:"state"`
	Closed   bool     `help:"Only closed tickets." xor:"state"`
	Status   string   `help:"Name of the status." placeholder:"NAME"`
	Priority string   `help:"Name of the priority." placeholder:"NAME"`
	Board    string   `help:"Name of the board." placeholder:"NAME"`
	Client   string   `help:"Name of the client." placeholder:"NAME"`
	Assigned string   `help:"Assigned to the user with this id." placeholder:"USER_ID"`
	Tag      []string `help:"With this tag; repeat it." placeholder:"TEXT"`
	Since    string   `help:"Updated since then: how long ago (2h), a date and time, or unix seconds." placeholder:"TIME"`
	Sort     string   `help:"Field to sort by." placeholder:"FIELD"`
	Order    string   `help:"asc or desc." placeholder:"ORDER"`
}

// Run prints the tickets.
func (c *ticketsListCmd) Run(ctx context.Context, t terminal) error {
	f := client.TicketFilter{
		Search: c.Search, IsOpen: &c.Open, IsClosed: &c.Closed, StatusName: c.Status, PriorityName: c.Priority, BoardName: c.Board,
		ClientName: c.Client, AssignedTo: c.Assigned, Tags: c.Tag, Sort: c.Sort, Order: c.Order,
	}
	var err error
	if f.UpdatedFrom, _, err = window(c.Since, ""); err != nil {
		return err
	}
	api, err := c.connect()
	if err != nil {
		return err
	}
	return printList(t, c.listFlags, api.Tickets(ctx, f), ticketColumns())
}

// oneTicket names a ticket.
type oneTicket struct {
	oneFlags
	ID string `arg:"" help:"The ticket's id, from tickets list."`
}

type ticketsGetCmd struct{ oneTicket }

// Run shows the ticket.
func (c *ticketsGetCmd) Run(ctx context.Context, t terminal) error {
	api, err := c.connect()
	if err != nil {
		return err
	}
	x, err := api.Ticket(ctx, c.ID)
	if err != nil {
		return err
	}
	return printOne(t, c.JSON, x, ticketDetails())
}

type ticketsCreateCmd struct {
	oneFlags
	Title       string   `help:"Title." required:"" placeholder:"TEXT"`
	Board       string   `help:"Board." required:"" placeholder:"ID"`
	Client      string   `help:"Client." required:"" placeholder:"ID"`
	Status      string   `help:"Status." required:"" placeholder:"ID"`
	Priority    string   `help:"Priority." required:"" placeholder:"ID"`
	Contact     string   `help:"Contact." placeholder:"ID"`
	Assign      string   `help:"User to assign it to." placeholder:"USER_ID"`
	Tag         []string `help:"Tag; repeat it." placeholder:"TEXT"`
	Description string   `help:"Description." placeholder:"TEXT"`
	Once        string   `help:"Idempotency key: the same key and ticket again makes no second one." placeholder:"KEY"`
}

// Run opens the ticket.
func (c *ticketsCreateCmd) Run(ctx context.Context, t terminal) error {
	api, err := c.connect()
	if err != nil {
		return err
	}
	in := client.TicketInput{
		Title: c.Title, BoardID: c.Board, ClientID: c.Client, StatusID: c.Status, PriorityID: c.Priority,
		ContactNameID: c.Contact, AssignedTo: c.Assign, Tags: c.Tag,
	}
	if c.Description != "" {
		in.Attributes = map[string]string{"description": c.Description}
	}
	var opts []client.CallOption
	if c.Once != "" {
		opts = append(opts, client.WithIdempotencyKey(c.Once))
	}
	x, err := api.CreateTicket(ctx, in, opts...)
	if err != nil {
		return err
	}
	return printOne(t, c.JSON, x, ticketDetails())
}

type ticketsUpdateCmd struct {
	oneTicket
	Title    *string  `help:"New title." placeholder:"TEXT"`
	Status   *string  `help:"New status." placeholder:"ID"`
	Priority *string  `help:"New priority." placeholder:"ID"`
	Board    *string  `help:"New board; needs a status of it." placeholder:"ID"`
	Client   *string  `help:"New client." placeholder:"ID"`
	Contact  *string  `help:"New contact." placeholder:"ID"`
	Assign   *string  `help:"User to assign it to." placeholder:"USER_ID" xor:"assign"`
	Unassign bool     `help:"Assign it to nobody." xor:"assign"`
	Tag      []string `help:"Tag; repeat it. The ones that are given replace all." placeholder:"TEXT"`
}

// Run changes what was given and leaves the rest.
func (c *ticketsUpdateCmd) Run(ctx context.Context, t terminal) error {
	api, err := c.connect()
	if err != nil {
		return err
	}
	var in client.TicketUpdate
	setField(&in.Title, c.Title)
	setField(&in.StatusID, c.Status)
	setField(&in.PriorityID, c.Priority)
	setField(&in.BoardID, c.Board)
	setField(&in.ClientID, c.Client)
	setField(&in.ContactNameID, c.Contact)
	setField(&in.AssignedTo, c.Assign)
	if c.Unassign {
		in.AssignedTo = client.Null[string]()
	}
	if len(c.Tag) > 0 {
		in.Tags = client.Set(c.Tag)
	}
	x, err := api.UpdateTicket(ctx, c.ID, in)
	if err != nil {
		return err
	}
	return printOne(t, c.JSON, x, ticketDetails())
}

type ticketsCommentCmd struct {
	oneTicket
	Text       string `arg:"" help:"The comment; - reads standard input."`
	Internal   bool   `help:"Not for the client."`
	Resolution bool   `help:"It is the resolution."`
}

// Run adds the comment.
func (c *ticketsCommentCmd) Run(ctx context.Context, t terminal) error {
	if c.Text == "-" {
		in, err := readInput("-")
		if err != nil {
			return err
		}
		c.Text = string(in)
	}
	if c.Text == "" {
		return usageError{errors.New("the comment is empty"), ""}
	}
	api, err := c.connect()
	if err != nil {
		return err
	}
	k, err := api.AddComment(ctx, c.ID, client.CommentInput{Text: c.Text, IsInternal: c.Internal, IsResolution: c.Resolution})
	if err != nil {
		return err
	}
	return printOne(t, c.JSON, k, []column[client.Comment]{
		{"ID", func(k *client.Comment) string { return k.CommentID }},
		{"TICKET", func(k *client.Comment) string { return k.TicketID }},
		{"AUTHOR", func(k *client.Comment) string { return text(k.CreatedByName) }},
		{"INTERNAL", func(k *client.Comment) string { return text(k.IsInternal) }},
		{"RESOLUTION", func(k *client.Comment) string { return text(k.IsResolution) }},
		{"TEXT", func(k *client.Comment) string { return text(k.Text) }},
	})
}
