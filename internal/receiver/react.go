package receiver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/cutover"
	"github.com/ticketwire/ticketwire/webhook"
)

// refetchBurst is how many tickets can be read without a pause.
const refetchBurst = 10

// react is what the worker runs for an event. Where there is a record, the run is
// in it before the event counts as done; if that fails the event runs again, as
// it does after a crash at this place.
func (r *Receiver) react(ctx context.Context, e *webhook.Envelope) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(r.abort, func() { cancel(errors.New("the receiver was stopped")) })()

	acts, err := true, error(nil)
	if r.cfg.Acts != nil {
		acts, err = r.cfg.Acts(e)
	}
	switch {
	case err != nil: // asked again with the next attempt
	case acts:
		err = r.act(ctx, e)
	default:
		r.metrics.left.Inc()
	}
	if r.journal == nil {
		return err
	}
	entry := &cutover.Reaction{
		At: r.cfg.Now(), EventID: e.EventID, EventType: e.EventType, Ticket: e.TicketID(),
		Attempt: e.Claim.Attempt, Acted: acts, Stale: e.Claim.Stale,
	}
	if err != nil {
		entry.Error = err.Error()
	}
	return errors.Join(err, r.journal.append(cutover.Entry{Reaction: entry}))
}

// act calls the reaction, with the ticket as it is now if that is wanted. A panic
// becomes an error.
func (r *Receiver) act(ctx context.Context, e *webhook.Envelope) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &webhook.PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	x := &Event{Envelope: e, Attempt: e.Claim.Attempt}
	if id := e.TicketID(); id != "" && r.cfg.Refetch != nil {
		if x.Current, err = r.current(ctx, id); err != nil {
			return err
		}
		x.Refetched = true
	}
	return r.cfg.React(ctx, x)
}

// current reads a ticket within the rate that is allowed, nil for one that is
// gone.
func (r *Receiver) current(ctx context.Context, id string) (*client.Ticket, error) {
	if err := r.refetch.Wait(ctx); err != nil {
		return nil, fmt.Errorf("read ticket %s again: %w", id, err)
	}
	t, err := r.cfg.Refetch.Ticket(ctx, id)
	if answer, is := errors.AsType[*client.Error](err); is && answer.Status == http.StatusNotFound && answer.Code != "" {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read ticket %s again: %w", id, err)
	}
	return t, nil
}
