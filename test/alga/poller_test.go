package alga_test

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/cutover"
	"github.com/ticketwire/ticketwire/test/alga"
)

// polling is a poller at work.
type polling struct {
	t    *testing.T
	p    *cutover.Poller
	stop func() *cutover.Numbers

	mu  sync.Mutex
	got []cutover.Change
}

// poll starts a poller of the desk; without ids it reads the list.
func (p *place) poll(dir string, budget float64, ids ...string) *polling {
	p.t.Helper()
	w := &polling{t: p.t}
	poller, err := cutover.Open(cutover.Config{
		URL: p.URL, Key: alga.Key, HTTP: p.http, Dir: dir, IDs: ids, Interval: time.Minute, Budget: budget, Now: time.Now,
		React: func(_ context.Context, c cutover.Change) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.got = append(w.got, c)
			return nil
		},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	w.p = poller
	ctx, cancel := context.WithCancel(p.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- poller.Run(ctx) }()
	w.stop = sync.OnceValue(func() *cutover.Numbers {
		cancel()
		if err := errors.Join(<-ended, poller.Close()); err != nil {
			p.t.Error(err)
		}
		return poller.Numbers()
	})
	p.t.Cleanup(func() { w.stop() })
	return w
}

// took returns how often each ticket was reacted to since the last time.
func (w *polling) took() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[string]int{}
	for _, c := range w.got {
		out[c.Ticket]++
	}
	w.got = nil
	return out
}

func each(ids []string) map[string]int {
	out := map[string]int{}
	for _, id := range ids {
		out[id] = 1
	}
	return out
}

// By ids: no first look is a change, every change is seen once, answers without a
// ticket are no observation, and a restart repeats nothing.
func TestPollerByIDs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var fault atomic.Pointer[alga.Fault]
		p := start(t, alga.Config{Enforce: true, Fault: func(r *http.Request) alga.Fault {
			if f := fault.Load(); f != nil && strings.Contains(r.URL.Path, "/tickets/") {
				return *f
			}
			return alga.Fault{}
		}})
		var ids []string
		for range 20 {
			ids = append(ids, p.Create("Printer"))
		}
		dir := t.TempDir()
		w := p.poll(dir, 0.9, ids...)
		time.Sleep(5*time.Minute + time.Second)
		if got := w.took(); len(got) != 0 {
			t.Errorf("the first looks were changes: %v", got)
		}
		p.Update(alga.REST, alga.Change{}, ids[0]) // moves updated_at alone
		p.Comment(ids[1], "hello", true)
		p.Update(alga.WebUI, alga.Change{Tags: []string{"vip"}}, ids[2]) // does not move it
		p.Update(alga.REST, alga.Change{Status: ptr(alga.Closed)}, ids[3])
		time.Sleep(2 * time.Minute)
		if got, want := w.took(), each([]string{ids[0], ids[1], ids[3]}); !maps.Equal(got, want) {
			t.Errorf("reactions %v, want %v", got, want)
		}
		for _, f := range []alga.Fault{{Status: 503}, {Status: 503, RetryAfter: 90}, {Status: 429, RetryAfter: 5}, {Status: 502}, {Status: 404}} {
			fault.Store(&f)
			time.Sleep(3 * time.Minute)
			p.Update(alga.REST, alga.Change{Title: ptr("Plotter")}, ids[4])
			time.Sleep(3 * time.Minute)
			if got := w.took(); len(got) != 0 {
				t.Errorf("%d: reactions without an observation: %v", f.Status, got)
			}
			fault.Store(nil)
			time.Sleep(3 * time.Minute)
			if got := w.took(); !maps.Equal(got, each(ids[4:5])) {
				t.Errorf("after %d: reactions %v", f.Status, got)
			}
		}
		p.Delete(ids[5])
		time.Sleep(2 * time.Minute)
		n := w.stop()
		if n.Gone != 1 || n.Failures[cutover.NotFound] == 0 || n.Failures[cutover.RateLimited] == 0 || n.Failures[cutover.ServerError] == 0 || n.Failures[cutover.Refused] == 0 {
			t.Errorf("gone %d, failures %v", n.Gone, n.Failures)
		}
		p.Update(alga.REST, alga.Change{Title: ptr("while it was down")}, ids[6], ids[7])
		w = p.poll(dir, 0.9, ids...)
		time.Sleep(3 * time.Minute)
		if got := w.took(); !maps.Equal(got, each(ids[6:8])) {
			t.Errorf("after the restart: reactions %v", got)
		}
	})
}

// A poller stays within its share, so that the limiter never refuses it, nor the
// other programs that use the key.
func TestPollerKeepsTheBudget(t *testing.T) {
	t.Parallel()
	for _, down := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var requests atomic.Int64
			p := start(t, alga.Config{Enforce: true, LimiterDown: down, Fault: func(*http.Request) alga.Fault {
				requests.Add(1)
				return alga.Fault{}
			}})
			var ids []string
			for range 100 { // more than fits into a minute
				ids = append(ids, p.Create("Printer"))
			}
			w := p.poll(t.TempDir(), 0.5, ids...)
			time.Sleep(20 * time.Minute)
			if n := w.stop(); n.Failures[cutover.RateLimited] != 0 || n.NoObservation() != 0 || requests.Load() > 60+20*30 || requests.Load() < 20*29 {
				t.Errorf("limiter down %t: %d requests, failures %v", down, requests.Load(), n.Failures)
			}
		})
	}
}

// The list has no tie-breaker: where more tickets have one time than fit on a
// page, the pages of AlgaPSA overlap and leave tickets out. Every change is found.
func TestPollerByTheList(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2) {
		synctest.Test(t, func(t *testing.T) {
			p := start(t, alga.Config{Seed: seed})
			var ids []string
			for range 350 {
				ids = append(ids, p.Create("imported"))
			}
			w := p.poll(t.TempDir(), 1)
			time.Sleep(3*time.Minute + time.Second)
			if got := w.took(); len(got) != 0 {
				t.Errorf("seed %d: %d false changes", seed, len(got))
			}
			for _, n := range []int{250, 120, 1, 350} {
				p.Update(alga.REST, alga.Change{Title: ptr("in bulk")}, ids[:n]...)
				time.Sleep(2 * time.Minute)
				if got := w.took(); !maps.Equal(got, each(ids[:n])) {
					t.Errorf("seed %d: %d of %d changes were seen", seed, len(got), n)
				}
			}
			fresh := p.Create("new")
			time.Sleep(2 * time.Minute)
			if got := w.took(); !maps.Equal(got, each([]string{fresh})) {
				t.Errorf("seed %d: reactions %v, want the new ticket", seed, got)
			}
			p.Delete(ids[7])
			time.Sleep(5 * time.Minute)
			if n := w.stop(); n.Gone != 1 {
				t.Errorf("seed %d: %d tickets gone, want 1", seed, n.Gone)
			}
		})
	}
}

// What webhooks lose, the poller sees: the cutover compares both.
func TestPollerSeesWhatWebhooksLose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := start(t, alga.Config{Fate: func(e alga.Event) alga.Fate { return alga.Fate{Lose: e.N%3 == 0} }})
		p.Subscribe(hookURL, 0)
		a := &answering{status: http.StatusOK}
		p.listen(a)
		w := p.poll(t.TempDir(), 1)
		time.Sleep(time.Minute)
		var ids []string
		for range 9 {
			ids = append(ids, p.Create("Printer"))
		}
		time.Sleep(3 * time.Minute)
		if got := w.took(); !maps.Equal(got, each(ids)) || len(a.took()) != 6 {
			t.Errorf("the poller saw %d of 9 tickets, %d webhooks arrived", len(got), len(a.took()))
		}
	})
}

// Our client reads every answer of AlgaPSA's.
func TestClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := start(t, alga.Config{Webhooks: alga.Documented})
		ctx := t.Context()
		made, err := p.api.CreateTicket(ctx, client.TicketInput{
			Title: "Printer", BoardID: alga.BoardID, ClientID: alga.ClientID, StatusID: alga.Open, PriorityID: alga.High,
			AssignedTo: alga.Mara, Tags: []string{"VIP"}, Attributes: map[string]string{"description": "No paper"},
		})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := p.api.Ticket(ctx, strings.ToUpper(made.TicketID)); err != nil || got.IsClosed != nil || *got.AssignedToName != "Mara Lindqvist" || got.BoardName != nil || got.Tags != nil {
			t.Errorf("get: %+v, %v", got, err)
		}
		if got, err := p.api.UpdateTicket(ctx, made.TicketID, client.TicketUpdate{StatusID: client.Set(alga.Closed)}); err != nil || got.IsClosed != nil || got.ClosedAt != nil || *got.StatusID != alga.Closed {
			t.Errorf("close: %+v, %v", got, err)
		}
		if c, err := p.api.AddComment(ctx, made.TicketID, client.CommentInput{Text: "hello"}); err != nil || *c.AuthorType != "unknown" {
			t.Errorf("comment: %+v, %v", c, err)
		}
		for name, tt := range map[string]struct {
			in     client.TicketUpdate
			status int
			code   string
		}{
			"unassign": {client.TicketUpdate{AssignedTo: client.Null[string]()}, 400, "VALIDATION_ERROR"},
			"tags":     {client.TicketUpdate{Tags: client.Set([]string{"a"})}, 500, "INTERNAL_CONFIGURATION"},
		} {
			_, err := p.api.UpdateTicket(ctx, made.TicketID, tt.in)
			if e, is := errors.AsType[*client.Error](err); !is || e.Status != tt.status || e.Code != tt.code {
				t.Errorf("%s: %v", name, err)
			}
		}
		for range 249 {
			p.Create("Plotter")
		}
		seen := map[string]bool{}
		for x, err := range p.api.Tickets(ctx, client.TicketFilter{Sort: "ticket_id", Order: "asc"}) {
			if err != nil {
				t.Fatal(err)
			}
			seen[x.TicketID] = true
		}
		if len(seen) != 250 {
			t.Errorf("%d tickets on the list, want 250", len(seen))
		}
		hook, err := p.api.CreateWebhook(ctx, client.WebhookInput{Name: client.Set("Ops"), URL: client.Set(hookURL), EventTypes: client.Set([]string{"ticket.created"})})
		if err != nil || len(hook.SigningSecret) != 43 {
			t.Fatalf("webhook: %+v, %v", hook, err)
		}
		p.Create("Scanner")
		time.Sleep(3 * time.Hour)
		for status, want := range map[string]int{"": 5, "delivered": 0, "retrying": 4, "abandoned": 1, "failed": 5} { // AlgaPSA filters nothing
			n := 0
			for _, err := range p.api.Deliveries(ctx, hook.WebhookID, client.DeliveryFilter{Status: status}) {
				if err != nil {
					t.Fatal(err)
				}
				n++
			}
			if n != want {
				t.Errorf("%d deliveries with status %q, want %d", n, status, want)
			}
		}
		if _, err := p.api.Webhook(ctx, hook.WebhookID); err != nil {
			t.Error(err)
		}
		for w, err := range p.api.Webhooks(ctx, client.WebhookFilter{}) {
			if err != nil || w.WebhookID != hook.WebhookID || w.FailedDeliveries != 5 || w.SigningSecret != "" {
				t.Errorf("webhooks: %+v, %v", w, err)
			}
		}
		for _, err := range p.api.EventPages(ctx, "", client.EventFilter{}) {
			if e, is := errors.AsType[*client.Error](err); !is || e.Status != 404 || e.Code != "" {
				t.Errorf("events: %v", err)
			}
		}
	})
}

// A webhook that only fails is off after a day. What happens until it is switched
// on again is lost, and nothing clears the mark (W7, W30).
func TestDisabledWebhook(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := start(t, alga.Config{Webhooks: alga.Documented})
		id, _ := p.Subscribe(hookURL, 0)
		state := func() *client.Webhook {
			w, err := p.api.Webhook(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			return w
		}
		p.Create("one")
		time.Sleep(23 * time.Hour)
		p.Create("two")
		time.Sleep(10 * time.Minute)
		if w := state(); !w.IsActive || w.FailedDeliveries != 5+3 {
			t.Fatalf("after 23 hours: %+v", w)
		}
		time.Sleep(3 * time.Hour)
		if w := state(); w.IsActive || w.AutoDisabledAt == nil {
			t.Fatalf("after a day: %+v", w)
		}
		a := &answering{status: http.StatusOK}
		p.listen(a)
		p.Create("three")
		if _, err := p.api.UpdateWebhook(t.Context(), id, client.WebhookInput{IsActive: client.Set(true)}); err != nil {
			t.Fatal(err)
		}
		p.Create("four")
		time.Sleep(5 * time.Hour)
		if w := state(); !w.IsActive || w.AutoDisabledAt == nil || len(a.took()) != 1 || p.Waiting() != 0 {
			t.Errorf("switched on again: %d requests, %+v", len(a.took()), w)
		}
	})
}
