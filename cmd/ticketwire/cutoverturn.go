package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"time"

	"github.com/ticketwire/ticketwire/internal/cutover"
	"github.com/ticketwire/ticketwire/internal/fault"
)

// turnFlags are those of commands that change whose turn it is.
type turnFlags struct {
	cutoverFlags
	Margin time.Duration `help:"How far ahead the turn begins: time in which the setup must reach whoever runs elsewhere." default:"5s"`
}

// take gives the turn to a side.
func (c *turnFlags) take(ctx context.Context, turn cutover.Turn) (cutover.Turn, error) {
	if c.Margin <= 0 {
		return cutover.Turn{}, usageError{errors.New("--margin must be positive: the turn must not begin before it is known"), "--margin 5s"}
	}
	clock, err := cutover.ServerClock(ctx, c.URL, c.APIKey, nil, time.Now)
	if err != nil {
		return cutover.Turn{}, err
	}
	turn.At, turn.From = time.Now(), clock.Add(c.Margin)
	return cutover.TakeTurn(c.State, turn)
}

type cutoverFinishCmd struct {
	turnFlags
	Force bool   `help:"Give the receiver its turn against the report; needs --why."`
	Why   string `help:"Why --force is right. It goes into the setup and the record, with your name." placeholder:"TEXT"`
}

// Help is shown below the flags.
func (cutoverFinishCmd) Help() string {
	return `Judges the record as cutover report does. If the verdict is GO, or GO WITH RECONCILER, the
receiver acts from a few seconds ahead on, and the poller goes on to watch without acting.
Nothing is restarted, and every change is acted on by one side: whose turn it is goes by the
time of the change. Otherwise nothing happens but that it says why.

A server without an event feed is swept first: every ticket that changed is read once.

Exit codes: 0 done; 20 the verdict is EXTEND; 30 it is NO-GO; 5 it is the receiver's turn
already.

Examples:
  ticketwire cutover finish
  ticketwire cutover finish --force --why "five changes a day: 299 take two months"`
}

// Run takes the turn if the report says so.
func (c *cutoverFinishCmd) Run(ctx context.Context, t terminal) error {
	if c.Force != (c.Why != "") {
		return usageError{errors.New("--force and --why belong together"), `--force --why "what makes it right"`}
	}
	setup, _, err := c.open()
	if err != nil {
		return err
	}
	if last := setup.Turns[len(setup.Turns)-1]; last.Side == cutover.SideReceiver {
		return fault.New(fault.Conflict, "It is the receiver's turn already, since %s", last.From.Format(time.RFC3339))
	}
	n, err := cutover.ClosingSweep(ctx, cutover.CollectorConfig{
		URL: setup.Server, Key: c.APIKey, Dir: c.State, Since: setup.Started, Budget: drillShare, Now: time.Now,
	})
	if err != nil {
		return fmt.Errorf("read the tickets that changed: %w", err)
	}
	if n > 0 {
		fmt.Fprintf(t.err, "%d tickets changed and were read.\n", n)
	}
	report, err := c.report(setup, nil)
	if err != nil {
		return err
	}
	turn := cutover.Turn{Side: cutover.SideReceiver}
	switch report.Outcome {
	case cutover.Go, cutover.GoWithReconciler:
	default:
		printFindings(t.err, report)
		if !c.Force {
			fmt.Fprintf(t.err, "Error: the verdict is %s: %s\n", report.Outcome, report.Headline)
			return exitStatus(report.Exit)
		}
		turn.Why, turn.By = fmt.Sprintf("%s overridden: %s", report.Outcome, c.Why), whoAmI()
	}
	if turn, err = c.take(ctx, turn); err != nil {
		return err
	}
	if turn.Why != "" {
		fmt.Fprintf(t.err, "%s, by %s.\n", turn.Why, turn.By)
	}
	_, err = fmt.Fprintf(t.out, `VERDICT  %s
The receiver acts on changes from %s on. The poller watches and does not act.

Next:
  ticketwire cutover status --watch       see the receiver act; leave cutover start running
  ticketwire reconcile --every 15m        the look that stays when nobody polls
  ticketwire cutover report               a day later; when it is clean, stop the poller
  ticketwire cutover rollback             the way back, at any time
`, report.Outcome, turn.From.Format(time.RFC3339Nano))
	return err
}

// whoAmI names whoever runs this.
func whoAmI() string {
	name := "somebody"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}

// report judges the record. each sees every entry on the way; it may be nil.
func (c *stateFlag) report(setup *cutover.Setup, each func(cutover.Entry)) (*cutover.Report, error) {
	torn := 0
	entries := entriesOf([]string{filepath.Join(c.State, cutover.RecordName)}, &torn)
	report, err := cutover.Compare(func(yield func(cutover.Entry, error) bool) {
		for e, err := range entries {
			if err == nil && each != nil {
				each(e)
			}
			if !yield(e, err) {
				return
			}
		}
	}, cutover.Question{Setup: setup, Dir: c.typed()})
	if err == nil {
		report.Record.Torn = torn
	}
	return report, err
}

type cutoverRollbackCmd struct{ turnFlags }

// Help is shown below the flags.
func (cutoverRollbackCmd) Help() string {
	return `Gives the turn back to the poller, for changes from a few seconds ahead on. It is safe at
any time and needs no restart: what changed before, the receiver still acts on, however late
it comes.`
}

// Run takes the turn.
func (c *cutoverRollbackCmd) Run(ctx context.Context, t terminal) error {
	if _, _, err := c.open(); err != nil {
		return err
	}
	turn, err := c.take(ctx, cutover.Turn{Side: cutover.SidePoller})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(t.out, `The poller acts on changes from %s on. The receiver goes on to write down what it gets,
and acts on what changed before.

Check:
  ticketwire cutover status               does the poller run?
  ticketwire cutover report               what did the receiver miss while it was its turn?
  ticketwire cutover finish               when that is put right
`, turn.From.Format(time.RFC3339Nano))
	return err
}
