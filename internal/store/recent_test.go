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

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
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

// targets changes two webhooks at random, from two processes as far as the database
// knows.
type targets struct {
	*desk
	other *Store
	lanes []Lane
	now   time.Time
}

// What a claim sends to, and signs with, is the webhook as it is stored, whatever
// happened to it: changes of every kind here and in another process, and calls that
// failed after a change that they had looked at.
func TestRememberedTargetsAreTheStoredOnes(t *testing.T) {
	t.Parallel()
	onEach(t, rememberedTargets)
	behindPooler(t, rememberedTargets)
}

func rememberedTargets(t *testing.T, p place) {
	d := newDesk(t, openAt(t, p), "acme")
	s := &targets{desk: d, other: openAt(t, p), now: start(), lanes: []Lane{d.hook(start()).lane(), d.hook(start()).lane()}}
	ctx := context.Background()
	rapid.Check(t, func(rt *rapid.T) {
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			s.now = s.now.Add(time.Second)
			var err error
			switch rapid.SampledFrom([]string{"here", "here", "elsewhere", "fail", "batch"}).Draw(rt, "step") {
			case "here":
				err = s.change(rt, d.Store)()
			case "elsewhere":
				err = s.change(rt, s.other)()
			case "fail":
				err = s.failing(rt)()
			default:
				err = together(t, d.Store, s.change(rt, d.Store), s.failing(rt), s.change(rt, d.Store), s.failing(rt))
			}
			if err != nil {
				rt.Fatal(err)
			}
			for _, l := range s.lanes {
				want, err := d.Target(ctx, l)
				if err != nil {
					rt.Fatal(err)
				}
				for range 2 { // read, and remembered
					var got Target
					if err := d.do(ctx, func(tx *tx) (err error) { got, err = tx.target(l); return err }); err != nil {
						rt.Fatal(err)
					}
					if diff := cmp.Diff(want, got, cmp.AllowUnexported(Secrets{})); diff != "" {
						rt.Fatalf("remembered differently (-stored +remembered):\n%s", diff)
					}
				}
			}
		}
	})
}

// change draws something that a process does to a webhook.
func (s *targets) change(rt *rapid.T, by *Store) func() error {
	ctx, l := context.Background(), rapid.SampledFrom(s.lanes).Draw(rt, "webhook")
	var edit func(*delivery.Spec)
	switch rapid.SampledFrom([]string{"url", "headers", "active", "rotate", "promote"}).Draw(rt, "change") {
	case "url":
		url := "https://hooks.example/" + rapid.StringMatching(`[a-z]{1,9}`).Draw(rt, "url")
		edit = func(sp *delivery.Spec) { sp.URL = url }
	case "headers":
		value := rapid.StringMatching(`[a-z]{1,9}`).Draw(rt, "header")
		edit = func(sp *delivery.Spec) { sp.CustomHeaders = map[string]string{"X-Desk": value} }
	case "active":
		edit = func(sp *delivery.Spec) { sp.IsActive = !sp.IsActive }
	case "rotate":
		grace := rapid.SampledFrom([]time.Duration{0, time.Hour}).Draw(rt, "grace")
		return func() error {
			_, err := by.RotateSecret(ctx, s.now, l.TenantID, l.WebhookID, grace)
			if fault.Is(err, fault.Conflict) { // one is under way
				err = nil
			}
			return err
		}
	default:
		return func() error { return by.PromoteSecret(ctx, s.now, l.TenantID, l.WebhookID) }
	}
	return func() error {
		_, _, err := by.UpdateWebhook(ctx, s.now, s.Actor, l.WebhookID, func(sp *delivery.Spec) error { edit(sp); return nil }, false)
		return err
	}
}

// failing draws a call that changes a webhook, looks at it, and fails.
func (s *targets) failing(rt *rapid.T) func() error {
	l := rapid.SampledFrom(s.lanes).Draw(rt, "webhook")
	return func() error {
		err := s.do(context.Background(), func(tx *tx) error {
			w, err := s.webhookOf(tx, l.TenantID, l.WebhookID)
			if err != nil {
				return err
			}
			w.URL = "https://hooks.example/never"
			if err := tx.saveSpec(&w); err != nil {
				return err
			}
			tx.changed(l)
			if _, err := tx.target(l); err != nil {
				return err
			}
			return errLate
		})
		if !errors.Is(err, errLate) {
			return fmt.Errorf("a call that must fail: %w", err)
		}
		return nil
	}
}
