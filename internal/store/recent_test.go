package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/ticketwire/ticketwire/internal/ticket"
)

// What the writer remembers of a ticket is the ticket as it is in the database,
// whatever happened to it: changes of every kind, calls that failed after a
// write, and changes that another process made.
func TestRememberedTicketsAreTheStoredOnes(t *testing.T) {
	t.Parallel()
	onEach(t, rememberedTickets)
}

func rememberedTickets(t *testing.T, p place) {
	d := newDesk(t, openAt(t, p), "acme")
	other := openAt(t, p) // another process, as far as the database knows
	full := d.everything(t)
	now := start()
	var ids []string
	for i := range 4 {
		full.Title = fmt.Sprint("ticket ", i)
		ids = append(ids, d.create(now, full).TicketID)
	}
	rapid.Check(t, func(rt *rapid.T) {
		ctx := context.Background()
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			now = now.Add(time.Second)
			id := rapid.SampledFrom(ids).Draw(rt, "ticket")
			if err := d.anyChange(ctx, rt, now, id, other); err != nil {
				rt.Fatal(err)
			}
		}
		for _, id := range ids {
			var got ticket.Ticket
			var known bool
			// refresh comes first, as it does for every call.
			if err := d.do(ctx, func(tx *tx) error {
				k, ok := tx.w.recent.tickets[ticketKey{d.TenantID, id}]
				got, known = k.Ticket, ok
				return nil
			}); err != nil {
				rt.Fatal(err)
			}
			if !known {
				continue
			}
			want, err := d.Ticket(ctx, d.TenantID, id)
			if err != nil {
				rt.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				rt.Fatalf("remembered differently (-stored +remembered):\n%s", diff)
			}
		}
	})
}

// anyChange does one thing to a ticket.
func (d *desk) anyChange(ctx context.Context, rt *rapid.T, now time.Time, id string, other *Store) error {
	var err error
	switch rapid.SampledFrom([]string{
		"title", "status", "assign", "unassign", "tags", "tag", "comment", "due", "attributes", "nothing", "fail", "elsewhere", "name",
	}).Draw(rt, "change") {
	case "title":
		_, err = d.UpdateTicket(ctx, now, d.Actor, id, ticket.Patch{Title: ticket.Some(rapid.StringMatching(`[a-z]{1,9}`).Draw(rt, "title"))})
	case "status":
		name := rapid.SampledFrom([]string{"Open", "In Progress", "Closed"}).Draw(rt, "status")
		_, err = d.UpdateTicket(ctx, now, d.Actor, id, ticket.Patch{StatusID: ticket.Some(d.rows.Statuses[name])})
	case "assign":
		_, err = d.UpdateTicket(ctx, now, d.Actor, id, ticket.Patch{AssignedTo: ticket.Some(&d.UserID)})
	case "unassign":
		_, err = d.UpdateTicket(ctx, now, d.Actor, id, ticket.Patch{AssignedTo: ticket.Some[*string](nil)})
	case "tags":
		_, err = d.UpdateTicket(ctx, now, d.Actor, id, ticket.Patch{Tags: ticket.Some([]string{"b", "a"})})
	case "tag":
		_, err = d.AddTags(ctx, now, d.Actor, id, []TagDraft{{Text: rapid.StringMatching(`[a-c]`).Draw(rt, "tag")}})
	case "comment":
		_, err = d.AddComment(ctx, now, d.Actor, id, ticket.CommentDraft{Text: "noted"})
	case "due":
		_, err = d.UpdateTicket(ctx, now, d.Actor, id, ticket.Patch{DueDate: ticket.Some(&now)})
	case "attributes":
		_, err = d.UpdateTicket(ctx, now, d.Actor, id, ticket.Patch{Attributes: ticket.Some(json.RawMessage(`{"description":"a\nb"}`))})
	case "nothing":
		_, err = d.UpdateTicket(ctx, now, d.Actor, id, ticket.Patch{})
	case "fail":
		late := errors.New("after the write")
		err = d.do(ctx, func(tx *tx) error {
			old, err := tx.ticket(d.TenantID, id, noTicket)
			if err != nil {
				return err
			}
			if _, err := tx.apply(now, d.Actor, old, ticket.Patch{Title: ticket.Some("never seen")}); err != nil {
				return err
			}
			return late
		})
		if errors.Is(err, late) {
			err = nil
		}
	case "elsewhere":
		_, err = other.UpdateTicket(ctx, now, d.Actor, id, ticket.Patch{Title: ticket.Some("elsewhere")})
	case "name":
		_, err = d.UpdateUser(ctx, d.TenantID, d.UserID, func(u *ticket.User) error {
			u.LastName = rapid.StringMatching(`[A-Z][a-z]{1,9}`).Draw(rt, "name")
			return nil
		})
	}
	return err
}
