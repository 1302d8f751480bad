package webhook

import (
	"context"
	"fmt"
	"time"
)

// Refetch makes a reaction that gets the current ticket beside the event. A
// payload is the ticket at some moment before: a sender may have taken it from a
// cache (AlgaPSA keeps one for a minute, so that a second change ships the first
// state), and payload_fields may have removed what the reaction needs.
//
// when chooses the events for which get is called, nil means every one with a
// ticket; OldPayload is made for it. get returns the ticket as it is now, with
// the client package for example, or nil for one that is gone; its error is the
// reaction's, so the event comes again. react gets nil where get was not asked.
// Both run under the reaction's context.
func Refetch[T any](
	when func(*Envelope) bool,
	get func(ctx context.Context, ticketID string) (*T, error),
	react func(ctx context.Context, e *Envelope, current *T) error,
) Reaction {
	return func(ctx context.Context, e *Envelope) error {
		id := e.TicketID()
		if id == "" || when != nil && !when(e) {
			return react(ctx, e, nil)
		}
		current, err := get(ctx, id)
		if err != nil {
			return fmt.Errorf("get ticket %s: %w", id, err)
		}
		return react(ctx, e, current)
	}
}

// OldPayload returns a condition for Refetch: it is true for an event whose
// payload has no updated_at, and for one whose updated_at lies more than slack
// before occurred_at, as it does when the state of before the change was sent.
// The two times come from two clocks, so slack should be a few seconds.
func OldPayload(slack time.Duration) func(*Envelope) bool {
	return func(e *Envelope) bool {
		t, err := e.Ticket()
		return err != nil || t.UpdatedAt == nil || e.OccurredAt.Sub(t.UpdatedAt.Time) > slack
	}
}
