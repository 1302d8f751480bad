package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ticketwire/ticketwire/internal/cutover"
)

type reconcileCmd struct {
	apiFlags
	deliverFlags
	Every        time.Duration `help:"From one sweep to the next." default:"15m"`
	Since        string        `help:"Where the first sweep of a new state directory begins: how long ago (2h), a date and time, or unix seconds. Default: now." placeholder:"TIME"`
	Late         time.Duration `help:"A change that is younger and has not arrived is late, not missed. Default: 15h, 3h where the server has no event feed."`
	Once         bool          `help:"Make one sweep, for cron."`
	Repair       bool          `help:"Deliver what was missed, to --to."`
	AlarmExec    string        `help:"Shell command to run when something was missed, with the sweep on its standard input." placeholder:"CMD"`
	AlarmTimeout time.Duration `help:"How long that command may take." default:"1m"`
	JSON         bool          `name:"json" help:"Print one JSON object per sweep, one a line."`
}

// Help is shown below the flags.
func (reconcileCmd) Help() string {
	return `Watches, after the cutover, that webhooks bring everything. Each sweep asks for the tickets
that changed since the last one, mostly in two requests and never for the whole list, and
compares them with what the receiver got: by the receiver's own record in --state, or, if
it keeps none, by the delivery log of --webhook. A change that the sender may still bring
is late. An older one is missed: it is reported, and with --repair delivered as backfill
does it, by its events where the server has a feed and else as a synthetic one. That also
covers changes without an event. Deleted tickets are counted; no event type says so.

It says in how many of the changes of the last 30 days the webhooks were enough.

Examples:
  export TICKETWIRE_API_KEY=tw_... TICKETWIRE_SECRET=...
  ticketwire reconcile --state ticketwire-cutover --alarm-exec ./page.sh
  ticketwire reconcile --webhook 0199... --repair --to http://127.0.0.1:9000/webhooks/alga
  ticketwire reconcile --webhook 0199... --once

Exit codes: 0 ended by a signal, or with --once nothing is missed, or all was repaired;
1 with --once, something is missed; 2 a flag is wrong, or nothing says what the receiver
got; 3 the key is refused; 5 another reconciler uses the directory; 6 with --once, server
or receiver did not answer.`
}

// Run sweeps once, or until a signal.
func (c *reconcileCmd) Run(ctx context.Context, t terminal) (err error) {
	retries, err := c.check()
	if err != nil {
		return err
	}
	if c.Every <= 0 || c.AlarmTimeout <= 0 {
		return usageError{errors.New("--every and --alarm-timeout must be positive"), "--every 15m"}
	}
	if _, err := c.connect(); err != nil {
		return err
	}
	cfg := cutover.SweeperConfig{
		URL: c.URL, Key: c.APIKey, Dir: c.State, WebhookID: c.Webhook, Every: c.Every, Late: c.Late, Budget: c.Budget,
		Repair: c.Repair, Retries: retries, Now: time.Now,
	}
	if c.Since != "" {
		if cfg.Since, err = parseMoment("--since", c.Since, time.Now()); err != nil {
			return err
		}
	}
	if c.Repair {
		send, done, err := c.way()
		if err != nil {
			return err
		}
		defer done()
		cfg.Send = send
	}
	if c.AlarmExec != "" {
		cfg.Alarm = func(ctx context.Context, s cutover.Sweep) error {
			return runCommand(context.WithoutCancel(ctx), t, "--alarm-exec", c.AlarmExec, c.AlarmTimeout, append(plainJSON(s), '\n'))
		}
	}
	s, err := cutover.OpenSweeper(cfg)
	if err != nil {
		return err
	}
	defer closing(s, &err)
	if !c.Once {
		return s.Run(ctx, func(sweep cutover.Sweep, err error) { c.print(t, sweep, err) })
	}
	sweep, err := s.Sweep(ctx)
	if err != nil {
		return err
	}
	c.print(t, sweep, nil)
	if n := unrepaired(sweep); n > 0 {
		return fmt.Errorf("%d changes were missed; --repair delivers them", n)
	}
	return nil
}

func unrepaired(s cutover.Sweep) int {
	return len(slices.DeleteFunc(slices.Clone(s.Missed), func(m cutover.Missed) bool { return m.Repaired }))
}

// print writes one sweep.
func (c *reconcileCmd) print(t terminal, s cutover.Sweep, err error) {
	if err != nil {
		fmt.Fprintf(t.err, "%s  sweep failed: %s. The next one makes up for it.\n", clock(time.Now()), printable(message(err)))
		return
	}
	if c.JSON {
		fmt.Fprintf(t.out, "%s\n", plainJSON(s))
		return
	}
	for _, m := range s.Missed {
		what := "missed"
		if m.Repaired {
			what = "missed and repaired"
		}
		fmt.Fprintf(t.out, "%s  %s: ticket %s, changed at %s, last at %s\n", clock(s.At), what, printable(m.Ticket), wireMoment(m.Since), wireMoment(m.UpdatedAt))
	}
	if s.Vanished > 0 {
		fmt.Fprintf(t.out, "%s  %d tickets were deleted, which no event says; poll --all --once finds out which\n", clock(s.At), s.Vanished)
	}
	fmt.Fprintf(t.out, "%s  %d changed, %d late, %d missed; webhooks caught %d of %d in the last 30 d\n", clock(s.At), s.Changed, s.Late, len(s.Missed), s.Caught, s.Changes)
}
