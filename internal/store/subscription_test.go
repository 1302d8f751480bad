package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/ticket"
	"github.com/ticketwire/ticketwire/webhook"
)

// errLate is how the tests make a call fail after it has written.
var errLate = errors.New("after the write")

// subscribers changes webhooks at random, from two processes as far as the
// database knows, and holds each event against what is stored.
type subscribers struct {
	*desk
	other   *Store
	tickets []string
	now     time.Time
	ids     []string // of the webhooks that are not deleted
	events  int      // made so far
}

// An event is owed to the webhooks that want it as they are stored at the time,
// whatever happened to them: changes here and in another process, calls that
// failed after a change or after an event, and batches of all that.
func TestEventsKnowTheStoredWebhooks(t *testing.T) {
	t.Parallel()
	onEach(t, eventsKnowWebhooks)
	behindPooler(t, eventsKnowWebhooks)
}

func eventsKnowWebhooks(t *testing.T, p place) {
	d := newDesk(t, openAt(t, p), "acme")
	s := &subscribers{desk: d, other: openAt(t, p), now: start()}
	for i := range 3 {
		s.tickets = append(s.tickets, d.create(s.now, d.draft(fmt.Sprint("ticket ", i))).TicketID)
	}
	rapid.Check(t, func(rt *rapid.T) {
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			s.now = s.now.Add(time.Second)
			s.step(t, rt)
		}
		s.event(rt)
	})
}

// step does one thing.
func (s *subscribers) step(t *testing.T, rt *rapid.T) {
	step := rapid.SampledFrom([]string{
		"create", "create", "change", "change", "delete", "elsewhere", "elsewhere", "event", "event", "fail", "batch", "batch",
	}).Draw(rt, "step")
	switch {
	case step == "event":
		s.event(rt)
	case step == "create" && len(s.ids) < 12 || len(s.ids) == 0:
		w, _, err := s.CreateWebhook(context.Background(), s.now, s.Actor, s.spec(rt))
		if err != nil {
			rt.Fatal(err)
		}
		s.ids = append(s.ids, w.WebhookID)
	case step == "create" || step == "delete":
		i := rapid.IntRange(0, len(s.ids)-1).Draw(rt, "webhook")
		if err := s.DeleteWebhook(context.Background(), s.now, s.Actor, s.ids[i]); err != nil {
			rt.Fatal(err)
		}
		s.ids = slices.Delete(s.ids, i, i+1)
	case step == "change":
		s.must(rt, s.change(rt, s.Store)())
	case step == "elsewhere":
		s.must(rt, s.change(rt, s.other)())
	case step == "fail":
		s.must(rt, s.failing(rt)())
	default:
		s.batch(t, rt)
	}
}

func (s *subscribers) must(rt *rapid.T, err error) {
	if err != nil {
		rt.Fatal(err)
	}
}

// spec draws what a webhook may look at.
func (s *subscribers) spec(rt *rapid.T) delivery.Spec {
	equals := func(field string, value any) []delivery.Condition {
		return []delivery.Condition{{Field: field, Operator: delivery.OpEquals, Value: value}}
	}
	return delivery.Spec{
		Name: "n", URL: "https://hooks.example/in", Method: "POST", VerifySSL: true,
		EventTypes: rapid.SampledFrom([][]string{
			{webhook.TicketUpdated}, {webhook.TicketUpdated, webhook.TicketClosed}, {webhook.TicketCreated},
		}).Draw(rt, "types"),
		EventFilter: rapid.SampledFrom([]*delivery.Filter{
			nil,
			{EntityIDs: s.tickets[:1]},
			{EntityIDs: s.tickets[1:]},
			{Conditions: equals("ticket_id", s.tickets[0])},
			{Conditions: equals("priority_name", "Medium")},
			{Conditions: equals("priority_name", "Low")},
			{Conditions: equals("is_closed", true)},
			{Conditions: []delivery.Condition{{Field: "title", Operator: delivery.OpContains, Value: "title 1"}}},
		}).Draw(rt, "filter"),
		IsActive: rapid.IntRange(0, 3).Draw(rt, "active") > 0,
	}
}

// change draws a change of one webhook through a process.
func (s *subscribers) change(rt *rapid.T, by *Store) func() error {
	spec, id := s.spec(rt), rapid.SampledFrom(s.ids).Draw(rt, "webhook")
	return func() error {
		_, _, err := by.UpdateWebhook(context.Background(), s.now, s.Actor, id,
			func(old *delivery.Spec) error { *old = spec; return nil }, false)
		return err
	}
}

// retitle draws a ticket and makes an event of it.
func (s *subscribers) retitle(rt *rapid.T) func() error {
	s.events++
	title := fmt.Sprint("title ", s.events)
	id := rapid.SampledFrom(s.tickets).Draw(rt, "ticket")
	return func() error {
		_, err := s.UpdateTicket(context.Background(), s.now, s.Actor, id, ticket.Patch{Title: ticket.Some(title)})
		return err
	}
}

// failing draws a call that changes a webhook, lets an event happen, or both,
// and fails.
func (s *subscribers) failing(rt *rapid.T) func() error {
	spec, id := s.spec(rt), rapid.SampledFrom(s.ids).Draw(rt, "webhook")
	what := rapid.SampledFrom([]string{"change", "event", "both"}).Draw(rt, "failing")
	return func() error {
		err := s.do(context.Background(), func(tx *tx) error {
			if what != "event" {
				w, err := s.webhookOf(tx, s.TenantID, id)
				if err != nil {
					return err
				}
				w.Spec = spec
				if err := tx.saveSpec(&w); err != nil {
					return err
				}
			}
			if what != "change" {
				old, err := tx.ticket(s.TenantID, s.tickets[0], noTicket)
				if err != nil {
					return err
				}
				if _, err := tx.apply(s.now, s.Actor, old, ticket.Patch{Title: ticket.Some("never seen")}); err != nil {
					return err
				}
			}
			return errLate
		})
		if !errors.Is(err, errLate) {
			return fmt.Errorf("a call that must fail: %w", err)
		}
		return nil
	}
}

// batch makes a few calls share a transaction. If one of them fails, it is rolled
// back, and they run again apart.
func (s *subscribers) batch(t *testing.T, rt *rapid.T) {
	calls := []func() error{
		s.change(rt, s.Store), s.retitle(rt), s.failing(rt), s.retitle(rt), s.change(rt, s.Store), s.retitle(rt),
	}
	calls = calls[rapid.IntRange(0, 4).Draw(rt, "without"):]
	s.must(rt, together(t, s.Store, calls...))
	s.check(rt) // the last call comes after every change
}

// event lets something happen to a ticket.
func (s *subscribers) event(rt *rapid.T) {
	s.must(rt, s.retitle(rt)())
	s.check(rt)
}

// check holds what the newest event is owed to against the stored webhooks.
func (s *subscribers) check(rt *rapid.T) {
	ctx := context.Background()
	list, count, err := s.Webhooks(ctx, s.TenantID, WebhookQuery{Limit: 100})
	s.must(rt, err)
	s.must(rt, s.do(ctx, func(tx *tx) error {
		known, err := tx.subscribed(s.TenantID)
		if err == nil && known.count() != count {
			err = fmt.Errorf("%d webhooks are known, and %d exist", known.count(), count)
		}
		return err
	}))
	var seq int64
	var e candidate
	var body []byte
	s.must(rt, s.read.QueryRow(`select seq, event_id, event_type, ticket_id, body from events order by seq desc limit 1`).
		Scan(&seq, &e.eventID, &e.eventType, &e.ticketID, &body))
	var env webhook.Envelope
	s.must(rt, json.Unmarshal(body, &env))
	data, err := env.Ticket()
	s.must(rt, err)
	want := []string{}
	for i := range list {
		if w := &list[i]; w.Wants(e.eventType) && w.EventFilter.Match(e.ticketID, data) {
			want = append(want, w.WebhookID)
		}
	}
	slices.Sort(want)
	rows, err := s.read.Query(`select webhook_id from deliveries where tenant_id = $1 and event_id = $2 order by webhook_id`,
		s.TenantID, e.eventID)
	got, err := collect(rows, err, func(row scanner) (id string, err error) { err = row.Scan(&id); return id, err })
	s.must(rt, err)
	if !slices.Equal(got, want) {
		rt.Fatalf("event %d is owed to %q, and %q want it", seq, got, want)
	}
}

// A change of one webhook is one row to read for the next event. Only what the
// writer cannot know makes it read all.
func TestOneChangeReadsOneWebhook(t *testing.T) {
	t.Parallel()
	onEach(t, oneChangeReadsOne)
}

func oneChangeReadsOne(t *testing.T, p place) {
	d := newDesk(t, openAt(t, p), "acme")
	other := openAt(t, p)
	now := start()
	var ids []string
	for range 3 {
		ids = append(ids, d.hook(now).hook.WebhookID)
	}
	known := func() (k *subscriptions) {
		err := d.do(t.Context(), func(tx *tx) (err error) { k, err = tx.subscribed(d.TenantID); return err })
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	rename := func(by *Store) error {
		_, _, err := by.UpdateWebhook(t.Context(), now, d.Actor, ids[0], func(s *delivery.Spec) error { s.Name = "new"; return nil }, false)
		return err
	}
	undone := func() error {
		err := d.do(t.Context(), func(tx *tx) error { return errors.Join(tx.subscriptionChanged(d.TenantID, ids[2]), errLate) })
		if errors.Is(err, errLate) {
			return nil
		}
		return fmt.Errorf("a call that must fail: %w", err)
	}
	steps := []struct {
		name string
		do   func() error
		same bool // what was known is kept
	}{
		{"nothing", func() error { return nil }, true},
		{"a change", func() error { return rename(d.Store) }, true},
		{"a new webhook", func() error { d.hook(now); return nil }, true},
		{"a deletion", func() error { return d.DeleteWebhook(t.Context(), now, d.Actor, ids[1]) }, true},
		{"a change after one that was rolled back", func() error { return errors.Join(undone(), rename(d.Store)) }, true},
		{"a change before one that was rolled back", func() error {
			return together(t, d.Store, func() error { return rename(d.Store) }, undone)
		}, true},
		{"a change elsewhere", func() error { return rename(other) }, false},
		{"changes elsewhere and here", func() error { return errors.Join(rename(other), rename(d.Store)) }, false},
		{"too many changes", func() error {
			return d.do(t.Context(), func(tx *tx) error {
				for range maxMoves + 1 {
					if err := tx.subscriptionChanged(d.TenantID, ids[0]); err != nil {
						return err
					}
				}
				return nil
			})
		}, false},
	}
	before := known()
	for _, step := range steps {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		after := known()
		if same := before == after; same != step.same {
			t.Errorf("%s: all were read again: %v", step.name, !same)
		}
		if len(after.moves) > 0 {
			t.Errorf("%s: %d webhooks would be read once more", step.name, len(after.moves))
		}
		before = after
	}
	if p.url != "" {
		return // TestPlansOnPostgres
	}
	path := plan(t, d.Store, subscriptionColumns+` and webhook_id = $2`)
	if len(path) != 1 || !strings.HasSuffix(path[0], "(tenant_id=? AND webhook_id=?)") {
		t.Errorf("one webhook is read by %q", path)
	}
}
