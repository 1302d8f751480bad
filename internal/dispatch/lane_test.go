package dispatch

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/egress"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/ticket"
	"github.com/ticketwire/ticketwire/internal/vault"
	"github.com/ticketwire/ticketwire/webhook"
)

// byHand is an engine on a real store whose scheduler the test turns, so that
// things happen in the order that the test wants. Its clock stands.
type byHand struct {
	*scheduler
	t      *testing.T
	store  *store.Store
	tenant store.Bootstrapped
	actor  ticket.Actor
	now    time.Time
	made   []string // the events of the tickets, in order
}

func newByHand(t *testing.T, change func(*Config)) *byHand {
	v, err := vault.New(make([]byte, vault.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	policy := delivery.DefaultPolicy()
	policy.Jitter = 0
	st, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), Vault: v, Policy: policy, PublicURL: "http://desk.example"})
	if err != nil {
		t.Fatal(err)
	}
	b := &byHand{t: t, store: st, now: time.Now()}
	if b.tenant, err = st.Bootstrap(t.Context(), b.now, store.BootstrapDraft{Tenant: "Bench", Email: "a@example.com", FirstName: "A", LastName: "B"}); err != nil {
		t.Fatal(err)
	}
	b.actor = ticket.Actor{TenantID: b.tenant.TenantID, UserID: b.tenant.UserID}
	client := egress.New(egress.Config{AllowTargets: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	cfg := Config{Store: st, Client: client, Policy: policy, Now: func() time.Time { return b.now }, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	e := New(cfg)
	b.scheduler = e.sched
	e.recorder.Go(e.record)
	b.listens(true)
	t.Cleanup(func() {
		close(e.stop)
		e.giveUp()
		b.end()
		e.attempts.Wait()
		e.errands.Wait()
		close(e.results)
		e.recorder.Wait()
		client.Close()
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// listens lets commits hand over what they owe, or leave it in the queue.
func (b *byHand) listens(on bool) {
	in := b.intake
	all := &store.Intake{Owner: b.e.owner, Lease: b.e.Lease(), Reserve: in.reserve, Cancel: in.cancel, Commit: in.commit}
	if !on {
		all.Reserve = func(store.Lane, int) bool { return false }
	}
	b.store.SetIntake(all)
}

// takenOver does what another node does that takes over from this one: it puts what
// is held here into the queue, of which nobody here hears.
func (b *byHand) takenOver() {
	b.t.Helper()
	b.store.SetIntake(nil)
	if err := b.store.ReleaseAll(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	b.listens(true)
	b.intake.lose()
}

func (b *byHand) webhook(url string) store.Lane {
	b.t.Helper()
	off := false
	w, _, err := b.store.CreateWebhook(b.t.Context(), b.now, b.actor, delivery.Spec{
		Name: "hook", URL: url, Method: http.MethodPost, EventTypes: []string{webhook.TicketCreated},
		VerifySSL: true, IsActive: true, RateLimit: &delivery.RateLimit{Enabled: &off},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return store.Lane{TenantID: w.TenantID, WebhookID: w.WebhookID}
}

func (b *byHand) edit(id store.Lane, change func(*delivery.Spec)) {
	b.t.Helper()
	if _, _, err := b.store.UpdateWebhook(b.t.Context(), b.now, b.actor, id.WebhookID, func(s *delivery.Spec) error {
		change(s)
		return nil
	}, false); err != nil {
		b.t.Fatal(err)
	}
}

// tickets makes n tickets, each of which owes a delivery.
func (b *byHand) tickets(n int) {
	b.t.Helper()
	for range n {
		b.now = b.now.Add(time.Millisecond)
		tk, err := b.store.CreateTicket(b.t.Context(), b.now, b.actor, ticket.Draft{
			Title: "one", BoardID: b.tenant.BoardID, ClientID: b.tenant.ClientID,
			StatusID: b.tenant.Statuses["Open"], PriorityID: b.tenant.Priorities["High"],
		})
		if err != nil {
			b.t.Fatal(err)
		}
		b.made = append(b.made, tk.TicketID)
	}
}

// loop does what run does until nothing is left to do at this time.
func (b *byHand) loop() {
	b.t.Helper()
	for over := time.After(20 * time.Second); ; {
		b.dispatch()
		if b.helpers+b.inFlight == 0 {
			b.e.errands.Wait() // for what is given back, which rings the bell
			if len(b.intake.bell) == 0 {
				if b.sleep() > 0 {
					return
				}
				b.scan()
				continue
			}
		}
		select {
		case <-b.intake.bell:
			b.collect()
		case f := <-b.done:
			b.helpers--
			b.settle(f)
		case list := <-b.finished:
			for _, f := range list {
				b.finish(f)
			}
		case <-over:
			b.t.Fatal("the loop does not come to rest")
		}
	}
}

// inbox is a receiver that notes the tickets it is sent, in order.
type inbox struct {
	*httptest.Server
	busy atomic.Bool // it asks for a pause of seven seconds
	mu   sync.Mutex
	got  []string
}

func newInbox(t *testing.T) *inbox {
	in := &inbox{}
	in.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("read the body: %v", err)
		}
		var e webhook.Envelope
		if err := json.Unmarshal(body, &e); err != nil {
			t.Errorf("read the event: %v", err)
		}
		in.mu.Lock()
		defer in.mu.Unlock()
		in.got = append(in.got, e.TicketID())
		if in.busy.Load() {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(in.Close)
	return in
}

func (in *inbox) took() []string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.got)
}

// What another node has taken over is sent by whoever finds it in the queue, and not
// from memory too; and nothing newer goes before it. It is the same for what had come
// to its lane and for what was on the way there.
func TestWhatIsLostToAnotherNodeIsNotSentFromMemory(t *testing.T) {
	t.Parallel()
	b, in := newByHand(t, func(c *Config) { c.PerLane = 1 }), newInbox(t)
	id := b.webhook(in.URL)
	b.loop()
	for n := range 3 {
		b.tickets(1)
		b.collect()
		if got := len(b.lane(id).memory); got != n+1 {
			t.Fatalf("%d in memory, want %d", got, n+1)
		}
	}
	b.tickets(2) // on the way
	b.takenOver()
	b.collect()
	if b.intake.held != 0 || b.intake.bytes != 0 {
		t.Errorf("%d deliveries and %d bytes are still counted", b.intake.held, b.intake.bytes)
	}
	b.tickets(1)
	b.loop()
	if got := in.took(); !slices.Equal(got, b.made) {
		t.Errorf("sent %v, want %v once and in order", got, b.made)
	}
}

// All work is looked for after a loss: there may be some of a lane that is not known.
func TestALossIsLookedFor(t *testing.T) {
	t.Parallel()
	b, in := newByHand(t, nil), newInbox(t)
	b.webhook(in.URL)
	b.loop()
	b.tickets(1) // on the way to a lane that the scheduler has not heard of
	b.takenOver()
	b.loop()
	if got := in.took(); !slices.Equal(got, b.made) {
		t.Errorf("sent %v, want %v", got, b.made)
	}
}

// A webhook that changes while its lane loads it is loaded again, whoever has changed
// it: nothing goes to the old address.
func TestAWebhookThatChangesWhileItIsLoaded(t *testing.T) {
	t.Parallel()
	for _, elsewhere := range []bool{false, true} {
		b, before, after := newByHand(t, func(c *Config) { c.PerLane = 1 }), newInbox(t), newInbox(t)
		id := b.webhook(before.URL)
		b.tickets(1)
		b.collect()
		b.dispatch()
		loaded := <-b.done
		if !loaded.load || loaded.target.URL != before.URL {
			t.Fatalf("found %+v", loaded)
		}
		if elsewhere {
			b.store.SetIntake(nil) // nobody here hears of it
		}
		b.edit(id, func(s *delivery.Spec) { s.URL = after.URL })
		if elsewhere {
			b.listens(true)
			b.intake.commit(store.Committed{Refresh: true})
		}
		b.collect()
		b.helpers--
		b.settle(loaded)
		b.loop()
		if old, got := before.took(), after.took(); len(old) != 0 || !slices.Equal(got, b.made) {
			t.Errorf("another node: %t; %v went to the old address, %v to the new one, want %v", elsewhere, old, got, b.made)
		}
	}
}

// A webhook whose secrets do not open is looked at again soon if somebody has changed
// it meanwhile, which may have mended it, but once: else it is after a while.
func TestAWebhookThatIsMendedWhileItIsLoaded(t *testing.T) {
	t.Parallel()
	b := newByHand(t, nil)
	l := b.lane(store.Lane{TenantID: store.NewID(), WebhookID: store.NewID()})
	l.stale = true
	for i, want := range []time.Duration{pauseAfterError, pauseUnopened} {
		l.dirty, l.busy = true, true
		b.settle(finding{lane: l, load: true, err: vault.ErrUnopened})
		if got := l.blocked.Sub(b.now); got != want {
			t.Errorf("load %d: it rests for %s, want %s", i+1, got, want)
		}
	}
}

// What is in memory when a webhook is switched off is given up, and not sent.
func TestMemoryOfAWebhookThatIsSwitchedOff(t *testing.T) {
	t.Parallel()
	b, in := newByHand(t, nil), newInbox(t)
	id := b.webhook(in.URL)
	b.tickets(3)
	b.collect()
	if n := len(b.lane(id).memory); n != 3 {
		t.Fatalf("%d in memory", n)
	}
	b.edit(id, func(s *delivery.Spec) { s.IsActive = false })
	b.loop()
	if got := in.took(); len(got) != 0 {
		t.Errorf("%d were sent", len(got))
	}
	rows, _, err := b.store.Deliveries(t.Context(), id.TenantID, id.WebhookID, store.DeliveryQuery{Page: 1, Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 3 || slices.ContainsFunc(rows, func(d delivery.Delivery) bool { return d.Status != delivery.Abandoned }) {
		t.Errorf("the log has %+v", rows)
	}
}

// Nothing newer is handed to a lane while older work waits in the store: it would be
// sent before that.
func TestOlderWorkInTheStoreGoesFirst(t *testing.T) {
	t.Parallel()
	b, in := newByHand(t, func(c *Config) { c.PerLane = 1 }), newInbox(t)
	b.webhook(in.URL)
	b.listens(false)
	b.tickets(3)
	b.listens(true)
	b.collect()
	b.tickets(2)
	b.loop()
	if got := in.took(); !slices.Equal(got, b.made) {
		t.Errorf("sent %v, want %v", got, b.made)
	}
}

// A lane that has to pause while it is in line sends nothing before the pause is over.
func TestALaneThatIsPausedInLine(t *testing.T) {
	t.Parallel()
	b, in := newByHand(t, func(c *Config) { c.InFlight = 1 }), newInbox(t)
	in.busy.Store(true)
	b.webhook(in.URL)
	b.tickets(3)
	b.loop()
	if got := in.took(); len(got) != 1 {
		t.Errorf("%d requests, and the answer to the first asks for a pause", len(got))
	}
	in.busy.Store(false)
	b.now = b.now.Add(7 * time.Second)
	b.loop()
	if got := in.took(); !slices.Equal(got, b.made) {
		t.Errorf("sent %v after the pause, want %v, of which the first waits for its time", got, b.made)
	}
}

// Whatever happens to a lane that is in line, it gets a turn only if it may send then.
func TestATurnIsOnlyForALaneThatMaySend(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*byHand, *lane)
		turns  int
	}{
		"nothing":                            {func(*byHand, *lane) {}, 1},
		"a pause":                            {func(b *byHand, l *lane) { l.blocked = b.now.Add(time.Second) }, 0},
		"a breaker that sends its one probe": {func(_ *byHand, l *lane) { l.breaker.strikes, l.inFlight = breakerTrips, 1 }, 0},
	} {
		b := newByHand(t, nil)
		l := b.lane(store.Lane{TenantID: store.NewID(), WebhookID: store.NewID()})
		l.dirty = true
		b.rest(l)
		c.change(b, l)
		b.dispatch()
		if b.helpers != c.turns {
			t.Errorf("%s: %d turns, want %d", name, b.helpers, c.turns)
		}
	}
}

// An edit by somebody here ends what the lane has learned of its receiver, which may
// be another one now. What other nodes do, of which it is not told that it is this
// webhook's, does not.
func TestAnEditForgivesTheReceiver(t *testing.T) {
	t.Parallel()
	for _, elsewhere := range []bool{false, true} {
		b := newByHand(t, nil)
		l := b.lane(store.Lane{TenantID: store.NewID(), WebhookID: store.NewID()})
		l.dirty, l.blocked, l.breaker = true, b.now.Add(breakerLimit), breaker{strikes: breakerTrips, probes: 9}
		b.rest(l)
		news := store.Committed{Changed: []store.Lane{l.id}}
		if elsewhere {
			news = store.Committed{Refresh: true}
		}
		b.intake.commit(news)
		b.collect()
		if l.queued == elsewhere || l.breaker.open() != elsewhere {
			t.Errorf("another node: %t; in line: %t, the breaker is open: %t", elsewhere, l.queued, l.breaker.open())
		}
	}
}

// A lane that does not keep up is handed nothing.
func TestALaneThatWaitsGetsNoRoom(t *testing.T) {
	t.Parallel()
	s := newScheduler(&Engine{cfg: Config{PerLane: 2}})
	now := time.Date(2026, time.May, 4, 9, 0, 0, 0, time.UTC)
	for name, l := range map[string]*lane{
		"older work is in the store": {dirty: true},
		"it pauses":                  {blocked: now.Add(time.Microsecond)},
		"it sends probes":            {breaker: breaker{strikes: breakerTrips}},
	} {
		if got := s.room(l, now); got != 0 {
			t.Errorf("%s: room for %d", name, got)
		}
	}
	if got := s.room(&lane{blocked: now}, now); got == 0 {
		t.Error("a lane that waits for nothing has no room")
	}
}
