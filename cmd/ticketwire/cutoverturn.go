package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ticketwire/ticketwire/internal/cutover"
)

// turnMargin is how far ahead a turn begins, so that every process of a cutover
// knows of it before the first change that it is for.
const turnMargin = 5 * time.Second

// turnFlags are those of commands that change whose turn it is.
type turnFlags struct {
	cutoverFlags
	Margin time.Duration `help:"How far ahead the turn begins: time in which the setup must reach whoever runs elsewhere." default:"5s"`
}

// take gives the turn to a side.
func (c *turnFlags) take(ctx context.Context, side cutover.Side) (cutover.Turn, error) {
	if c.Margin <= 0 {
		return cutover.Turn{}, usageError{errors.New("--margin must be positive: the turn must not begin before it is known"), "--margin " + turnMargin.String()}
	}
	clock, err := cutover.ServerClock(ctx, c.URL, c.APIKey, nil, time.Now)
	if err != nil {
		return cutover.Turn{}, err
	}
	return cutover.TakeTurn(c.State, time.Now(), clock.Add(c.Margin), side)
}

type cutoverRollbackCmd struct{ turnFlags }

// Help is shown below the flags.
func (cutoverRollbackCmd) Help() string {
	return `Gives the turn back to the poller, for changes from a few seconds ahead on. It is safe at
any time and needs no restart: what the receiver has been sent until then it still acts on.`
}

// Run takes the turn.
func (c *cutoverRollbackCmd) Run(ctx context.Context, t terminal) error {
	if _, _, err := c.open(); err != nil {
		return err
	}
	turn, err := c.take(ctx, cutover.SidePoller)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(t.out, `The poller acts on changes from %s on. The receiver goes on to write down what it gets,
and acts on what changed before, however late it comes.

Check:
  ticketwire cutover status               does the poller run?
  ticketwire cutover report               what did the receiver miss while it was its turn?
  ticketwire cutover finish               to try it again
`, turn.From.Format(time.RFC3339Nano))
	return err
}
