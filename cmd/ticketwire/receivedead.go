package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/inbox"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/receiver"
	"github.com/ticketwire/ticketwire/webhook"
)

type receiveDeadCmd struct {
	List    deadListCmd    `cmd:"" default:"withargs" help:"List them. receive dead alone does it too."`
	Replay  deadReplayCmd  `cmd:"" help:"Put events back into the queue, with all their attempts."`
	Discard deadDiscardCmd `cmd:"" help:"Give events up: they count as done."`
}

// Help is shown below the subcommands.
func (receiveDeadCmd) Help() string {
	return `Works on the data directory, whether or not the receiver runs. A receiver that runs takes
up what is replayed within a second.

Examples:
  ticketwire receive dead
  ticketwire receive dead replay 0199...
  ticketwire receive dead replay --all
  ticketwire receive dead discard 0199...`
}

// deadLetter is a dead letter as it is printed.
type deadLetter struct {
	EventID    string          `json:"event_id"`
	EventType  string          `json:"event_type"`
	TicketID   string          `json:"ticket_id,omitempty"`
	OccurredAt time.Time       `json:"occurred_at"`
	ReceivedAt time.Time       `json:"received_at"`
	Attempts   int             `json:"attempts"`
	Error      string          `json:"error"`
	Event      json.RawMessage `json:"event"`
}

func deadColumns() []column[deadLetter] {
	return []column[deadLetter]{
		{"EVENT", func(d *deadLetter) string { return d.EventID }},
		{"TYPE", func(d *deadLetter) string { return d.EventType }},
		{"TICKET", func(d *deadLetter) string { return d.TicketID }},
		{"RECEIVED", func(d *deadLetter) string { return stamp(&d.ReceivedAt) }},
		{"ATTEMPTS", func(d *deadLetter) string { return strconv.Itoa(d.Attempts) }},
		{"ERROR", func(d *deadLetter) string { return d.Error }},
	}
}

func (f inboxFlags) open(ctx context.Context, t terminal) (*receiver.Store, error) {
	return receiver.OpenStore(ctx, receiver.StoreConfig{
		Dir: f.Data, DatabaseURL: f.DatabaseURL, MustExist: true, Now: time.Now,
		Log: slog.New(slog.NewTextHandler(t.err, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
}

// deadLetters walks through all of them, in the order in which they came.
func deadLetters(ctx context.Context, s *receiver.Store) iter.Seq2[*deadLetter, error] {
	const page = 100
	return func(yield func(*deadLetter, error) bool) {
		var after inbox.DeadLetter
		for {
			letters, err := s.DeadLetters(ctx, after, page)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, d := range letters {
				out := &deadLetter{
					EventID: d.Key.EventID, EventType: d.Key.EventType, TicketID: d.TicketID, OccurredAt: d.OccurredAt,
					ReceivedAt: d.ReceivedAt, Attempts: d.Attempts, Error: d.Error, Event: d.Body,
				}
				if !yield(out, nil) {
					return
				}
				after = d
			}
			if len(letters) < page {
				return
			}
		}
	}
}

type deadListCmd struct {
	inboxFlags
	Limit int  `help:"How many to print at most; 0 prints all." default:"50"`
	JSON  bool `name:"json" help:"Print a JSON array, with the events."`
}

// Run prints them, oldest first.
func (c *deadListCmd) Run(ctx context.Context, t terminal) (err error) {
	s, err := c.open(ctx, t)
	if err != nil {
		return err
	}
	defer closing(s, &err)
	return printList(t, listFlags{Limit: c.Limit, JSON: c.JSON}, deadLetters(ctx, s), deadColumns())
}

// deadChoice says which dead letters.
type deadChoice struct {
	inboxFlags
	ID   string `arg:"" optional:"" help:"The event's id, from receive dead."`
	All  bool   `help:"All of them."`
	JSON bool   `name:"json" help:"Print a JSON array of the events."`
}

// each does something to the chosen dead letters and prints which they were.
func (c *deadChoice) each(ctx context.Context, t terminal, done string, do func(*receiver.Store, webhook.Key) error) (err error) {
	if (c.ID == "") != c.All {
		return usageError{errors.New("say which: an event's id, or --all"), "ticketwire receive dead"}
	}
	s, err := c.open(ctx, t)
	if err != nil {
		return err
	}
	defer closing(s, &err)
	chosen := []*deadLetter{}
	for d, err := range deadLetters(ctx, s) {
		if err != nil {
			return err
		}
		if !c.All && !strings.EqualFold(d.EventID, c.ID) {
			continue
		}
		switch err := do(s, webhook.Key{EventID: d.EventID, EventType: d.EventType}); {
		case errors.Is(err, inbox.ErrNotDead): // somebody else was quicker
		case err != nil:
			return err
		default:
			chosen = append(chosen, d)
		}
	}
	if !c.All && len(chosen) == 0 {
		return fault.New(fault.NotFound, "No dead letter has the id %s", c.ID)
	}
	if c.JSON {
		return printJSON(t.out, chosen)
	}
	_, err = fmt.Fprintf(t.out, "%d %s\n", len(chosen), done)
	return err
}

type deadReplayCmd struct{ deadChoice }

// Run puts them back.
func (c *deadReplayCmd) Run(ctx context.Context, t terminal) error {
	return c.each(ctx, t, "back in the queue", func(s *receiver.Store, k webhook.Key) error { return s.Replay(ctx, time.Now(), k) })
}

type deadDiscardCmd struct{ deadChoice }

// Run gives them up.
func (c *deadDiscardCmd) Run(ctx context.Context, t terminal) error {
	return c.each(ctx, t, "given up", func(s *receiver.Store, k webhook.Key) error { return s.Discard(ctx, time.Now(), k) })
}
