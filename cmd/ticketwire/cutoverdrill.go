package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/internal/cutover"
)

type cutoverDrillCmd struct {
	Retry   cutoverRetryCmd   `cmd:"" help:"Refuse an event once, and prove that it comes again."`
	Restart cutoverRestartCmd `cmd:"" help:"Restart the receiver while something changes, and prove that it arrives."`
	Edit    cutoverEditCmd    `cmd:"" help:"Change a scratch ticket many times, to have enough changes to compare."`
}

// Help is shown below the subcommands.
func (cutoverDrillCmd) Help() string {
	return `Drills change the title of a scratch ticket, which must be one that the poller watches, and
put it back. Both ways are changes like any other: reactions run for them.

Examples:
  ticketwire cutover drill retry --ticket 0199...
  ticketwire cutover drill restart --ticket 0199... --down 30s
  ticketwire cutover drill edit --ticket 0199... --ticket 019a... --count 150`
}

// drillShare is the drill's share of the key's limit, beside the half that the
// cutover takes.
const drillShare = 0.25

// metWithin is how long the process with the receiver has to meet a request: a
// reaction that runs may end first.
const metWithin = 90 * time.Second

// drillFlags are those of every drill.
type drillFlags struct {
	cutoverFlags
}

// scratch opens the ticket, if the poller watches it.
func (c *drillFlags) scratch(ctx context.Context, setup *cutover.Setup, id string) (*cutover.Scratch, error) {
	id = strings.ToLower(id)
	switch {
	case !ticketID.MatchString(id):
		return nil, usageError{fmt.Errorf("--ticket: %q is not the id of a ticket: ids are UUIDs, the ticket_id of the API", id), ""}
	case len(setup.Tickets) > 0 && !slices.Contains(setup.Tickets, id):
		return nil, usageError{fmt.Errorf("--ticket: the poller of this cutover does not watch %s", id), "--ticket " + setup.Tickets[0]}
	}
	return cutover.OpenScratch(ctx, cutover.ScratchConfig{
		URL: setup.Server, Key: c.APIKey, Ticket: id, Budget: drillShare, Now: time.Now,
	})
}

// restore puts the titles back, also when the drill was broken off.
func restore(ctx context.Context, err *error, tickets ...*cutover.Scratch) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	for _, s := range tickets {
		*err = errors.Join(*err, s.Restore(ctx))
	}
}

// prove appends the drill to the record.
func (c *drillFlags) prove(d cutover.Drill) error {
	record, err := cutover.OpenRecord(c.State)
	if err != nil {
		return err
	}
	return errors.Join(record.Append(cutover.Entry{Drill: &d}), record.Close())
}

// proofFlags are those of drills that wait for an event.
type proofFlags struct {
	drillFlags
	Ticket  string        `help:"Id of a scratch ticket." required:"" placeholder:"ID"`
	Timeout time.Duration `help:"How long to wait for the event. The first retry comes after a minute." default:"5m"`
	Own     bool          `help:"The receiver runs elsewhere: say what to do to it, and wait."`
}

// landing is how the event of an edit arrived.
type landing struct {
	event   string
	attempt int
}

// await waits until the change of a ticket at that time has arrived, by the record:
// what the receiver wrote, or what the sender says in its log of deliveries. Where
// retried is set, the first attempts must have failed.
func (c *proofFlags) await(ctx context.Context, tail *cutover.Tail, at time.Time, retried bool) (*landing, error) {
	bounded, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	about := map[string]bool{} // events of the change
	var got landing
	_, err := tail.Await(bounded, func(e cutover.Entry) bool {
		switch {
		case e.Truth != nil && e.Truth.EventID != "" && e.Truth.UpdatedAt.Equal(at):
			about[e.Truth.EventID] = true
		case e.Receipt != nil:
			r := e.Receipt
			if !r.Signed || !strings.EqualFold(r.Ticket, c.Ticket) || !cutover.ChangedAt(r.OccurredAt, r.UpdatedAt).Equal(at) {
				return false
			}
			about[r.EventID] = true
			got = landing{r.EventID, r.Attempt}
			return r.HTTP < 300 && (!retried || r.Attempt > 1)
		case e.Delivery != nil && (about[e.Delivery.EventID] || strings.EqualFold(e.Delivery.Ticket, c.Ticket) && !e.Delivery.AttemptedAt.Before(at)):
			got = landing{e.Delivery.EventID, e.Delivery.Attempt}
			return e.Delivery.Status == "delivered" && (!retried || e.Delivery.Attempt > 1)
		}
		return false
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		hint := "does the receiver run, and does it write into this directory?"
		if got.event != "" {
			hint = fmt.Sprintf("the last that is known is attempt %d of event %s; the webhook's retry_config says when the next is due", got.attempt, got.event)
		}
		return nil, fmt.Errorf("nothing arrived within %s: %s", c.Timeout, hint)
	}
	return &got, err
}

type cutoverRetryCmd struct{ proofFlags }

// Help is shown below the flags.
func (cutoverRetryCmd) Help() string {
	return `Has the receiver of cutover start answer 503 to the next event of a ticket, once, changes
the ticket, and waits until the same event has arrived with a later attempt. That is a
minute by the usual schedule.`
}

// Run makes the drill.
func (c *cutoverRetryCmd) Run(ctx context.Context, t terminal) (err error) {
	return c.drill(ctx, t, cutover.DrillRequest{Kind: cutover.DrillRetry, Ticket: c.Ticket},
		"Make your receiver answer 503 to the next event of this ticket, and 200 from then on.")
}

type cutoverRestartCmd struct {
	proofFlags
	Down time.Duration `help:"How long the receiver does not listen." default:"10s"`
}

// Help is shown below the flags.
func (cutoverRestartCmd) Help() string {
	return `Has cutover start close the address of its receiver for a while, changes a ticket meanwhile,
and waits until the event has arrived at the receiver that was started again.`
}

// Run makes the drill.
func (c *cutoverRestartCmd) Run(ctx context.Context, t terminal) (err error) {
	if c.Down <= 0 {
		return usageError{errors.New("--down must be positive"), "--down 10s"}
	}
	return c.drill(ctx, t, cutover.DrillRequest{Kind: cutover.DrillRestart, Ticket: c.Ticket, Down: c.Down},
		fmt.Sprintf("Stop your receiver now, and start it again in %s.", 2*c.Down))
}

// ownPause is how long somebody has to follow an instruction.
const ownPause = 10 * time.Second

// drill asks for something to happen to the receiver, changes the ticket, waits
// for the event, and notes that it came.
func (c *proofFlags) drill(ctx context.Context, t terminal, request cutover.DrillRequest, instruction string) (err error) {
	setup, _, err := c.open()
	if err != nil {
		return err
	}
	scratch, err := c.scratch(ctx, setup, c.Ticket)
	if err != nil {
		return err
	}
	tail, err := cutover.OpenTail(c.State)
	if err != nil {
		return err
	}
	defer closing(tail, &err)
	began := time.Now()
	if c.Own {
		fmt.Fprintln(t.err, instruction)
		err = pause(ctx, max(ownPause, request.Down))
	} else {
		err = cutover.AskForDrill(ctx, c.State, request, metWithin)
	}
	if err != nil {
		return err
	}
	defer restore(ctx, &err, scratch)
	at, err := scratch.Edit(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(t.err, "Ticket %s was changed. Waiting for the event.\n", c.Ticket)
	got, err := c.await(ctx, tail, at, true)
	if err != nil {
		return err
	}
	fmt.Fprintf(t.out, "Event %s arrived with attempt %d, %s after the change.\n", got.event, got.attempt, time.Since(began).Round(time.Second))
	return c.prove(cutover.Drill{
		At: began, Kind: request.Kind, Ticket: strings.ToLower(c.Ticket), Note: fmt.Sprintf("event %s arrived with attempt %d", got.event, got.attempt),
	})
}

type cutoverEditCmd struct {
	drillFlags
	Ticket []string      `help:"Id of a scratch ticket; with several, one after the other is changed." required:"" placeholder:"ID"`
	Count  int           `help:"How many changes to make." default:"299"`
	Every  time.Duration `help:"From one change to the next. Default: so long that the poller sees each of them." placeholder:"DURATION"`
}

// Help is shown below the flags.
func (cutoverEditCmd) Help() string {
	return `Changes scratch tickets so often that "no more than one in a hundred is missed" can be said:
for that, 299 changes must have been compared. The poller sees one change of a ticket per
round, so with one ticket and an interval of a minute this takes five and a half hours; ten
tickets take half an hour. A signal ends it. The title is put back at the end.`
}

// Run makes the changes.
func (c *cutoverEditCmd) Run(ctx context.Context, t terminal) (err error) {
	if c.Count < 1 || c.Every < 0 {
		return usageError{errors.New("--count and --every must be positive"), "ticketwire cutover drill edit --help"}
	}
	setup, _, err := c.open()
	if err != nil {
		return err
	}
	round := seconds(setup.Interval) * 11 / 10 // with the poller's jitter
	need := round / time.Duration(len(c.Ticket))
	if c.Every == 0 {
		c.Every = need
	}
	if c.Every < need {
		fmt.Fprintf(t.err, "A ticket is changed every %s and polled every %s: the poller will not see every change. --every %s, or more tickets.\n",
			c.Every*time.Duration(len(c.Ticket)), seconds(setup.Interval), need)
	}
	var scratches []*cutover.Scratch
	for _, id := range c.Ticket {
		s, err := c.scratch(ctx, setup, id)
		if err != nil {
			return err
		}
		scratches = append(scratches, s)
	}
	defer restore(ctx, &err, scratches...)
	began, made := time.Now(), 0
	show := newProgress(t)
	show.begin("drill")
	for ; made < c.Count; made++ {
		show.rest("%d of %d changes", made, c.Count)
		if made > 0 && pause(ctx, c.Every) != nil {
			break
		}
		if _, err := scratches[made%len(scratches)].Edit(ctx); err != nil {
			if ctx.Err() != nil {
				break
			}
			return err
		}
	}
	show.end()
	fmt.Fprintf(t.out, "%d changes in %s.\n", made, time.Since(began).Round(time.Second))
	if made == 0 {
		return nil
	}
	return c.prove(cutover.Drill{At: began, Kind: cutover.DrillEdit, Note: fmt.Sprintf("%d changes of %s", made, strings.Join(c.Ticket, ", "))})
}
