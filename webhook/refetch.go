package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
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
// payload is older than the event itself. Such a payload has no updated_at, or one
// that lies more than slack before occurred_at, or it contradicts the event: it
// does not have what "changes" says is new, is not closed in a ticket.closed, or
// still has the previous status. The two times come from two clocks, so slack
// should be a few seconds.
//
// Of a change within slack of another one, a ticket.assigned or
// ticket.comment.added does not show that the rest of its payload is of before.
// Where that matters, and the sender has a cache, let Refetch ask for every event.
func OldPayload(slack time.Duration) func(*Envelope) bool {
	return func(e *Envelope) bool {
		t, err := e.Ticket()
		return err != nil || t.UpdatedAt == nil || e.OccurredAt.Sub(t.UpdatedAt.Time) > slack || contradicts(e, t)
	}
}

// contradicts reports whether a payload cannot be the state after its event.
// Fields that were left out say nothing.
func contradicts(e *Envelope, t *TicketData) bool {
	var sent map[string]any
	if json.Unmarshal(e.Data, &sent) != nil {
		return true
	}
	switch closed, has := sent["is_closed"]; {
	case e.EventType == TicketClosed && has && closed != true:
		return true
	case t.PreviousStatusID != nil && t.StatusID != nil && *t.PreviousStatusID == *t.StatusID:
		return true
	}
	for _, c := range t.Changes {
		var after any
		if v, has := sent[c.Field]; has && json.Unmarshal(c.New, &after) == nil && !reflect.DeepEqual(v, after) {
			return true
		}
	}
	return false
}
