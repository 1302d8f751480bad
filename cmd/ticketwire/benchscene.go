package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/ticketwire/ticketwire/internal/api"
	"github.com/ticketwire/ticketwire/internal/app"
	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/ticket"
	"github.com/ticketwire/ticketwire/webhook"
)

// benchScene is a service on a data directory of its own, with one tenant and
// its tickets, so that no figure works on the rows of another.
type benchScene struct {
	b       *bench
	app     *app.App
	store   *store.Store
	dir     string         // of the service's data
	server  *store.Scratch // its database with --postgres; nil: it is in dir
	actor   ticket.Actor
	client  *http.Client
	key     string // an API key without a limit
	tickets []string
	start   string       // cursor of the event feed behind everything that set the scene
	titles  atomic.Int64 // given out, so that each is a change
}

// benchSetting is what differs between scenes.
type benchSetting struct {
	dir        string // "": a new one
	tickets    int
	perWebhook int // 0: the default of serve
	webhooks   int // how many the tenant may have
}

// benchInFlight is the number of requests at once to one webhook wherever
// throughput is compared with the bare loop, which has as many.
const benchInFlight = 64
const benchSlots = 128

// benchCallers is how many callers of the API keep their connection. No figure
// has more of them at a time.
const benchCallers = 256

// open makes a scene. Its deliveries wait until play.
func (b *bench) open(ctx context.Context, set benchSetting) (s *benchScene, err error) {
	s = &benchScene{b: b, dir: set.dir, client: &http.Client{
		Timeout:   time.Minute,
		Transport: &http.Transport{MaxIdleConnsPerHost: benchCallers, DisableCompression: true},
	}}
	if s.dir == "" {
		s.dir = b.sceneDir()
	}
	database := ""
	if b.cmd.Postgres != "" {
		if s.server, err = store.NewScratch(ctx, b.cmd.Postgres, time.Now); err != nil {
			return nil, fmt.Errorf("--postgres: %w", err)
		}
		database = s.server.URL
	}
	policy := delivery.DefaultPolicy()
	// A failed attempt is repeated while the run still waits for its end.
	policy.Jitter, policy.Schedule = 0, []time.Duration{time.Second, time.Second, time.Second, time.Second, time.Second}
	s.app, err = app.New(ctx, app.Config{
		Listen: "127.0.0.1:0", DataDir: s.dir, DatabaseURL: database,
		Version: version(), Policy: policy,
		AllowTargets: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Rate:         api.DefaultRate(), Enforce: true, Retention: 30 * 24 * time.Hour,
		MaxWebhooks: set.webhooks, PerWebhook: set.perWebhook,
		Log: slog.New(slog.NewTextHandler(b.t.err, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	if err != nil {
		return nil, errors.Join(err, s.drop())
	}
	s.store = s.app.Store()
	if err := s.furnish(ctx, set.tickets); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// furnish makes the tenant, its key and its tickets.
func (s *benchScene) furnish(ctx context.Context, tickets int) error {
	now := time.Now()
	tenant, err := s.store.Bootstrap(ctx, now, store.BootstrapDraft{
		Tenant: "Bench Desk", Email: "bench@example.com", FirstName: "Bench", LastName: "Agent",
	})
	if err != nil {
		return err
	}
	s.actor = ticket.Actor{TenantID: tenant.TenantID, UserID: tenant.UserID, Name: new("Bench Agent")}
	if _, s.key, err = s.store.CreateKey(ctx, now, tenant.TenantID, store.KeyDraft{
		UserID: tenant.UserID, Name: "without limit", Rate: store.RateLimit{Enabled: new(false)},
	}); err != nil {
		return err
	}
	s.tickets = make([]string, tickets)
	err = inParallel(ctx, 64, tickets, func(ctx context.Context, i int) error {
		t, err := s.store.CreateTicket(ctx, time.Now(), s.actor, ticket.Draft{
			Title: fmt.Sprintf("Label printer %d is offline", i), BoardID: tenant.BoardID, ClientID: tenant.ClientID,
			StatusID: tenant.Statuses["Open"], PriorityID: tenant.Priorities["Medium"],
			ContactNameID: &tenant.ContactID, AssignedTo: &tenant.UserID,
			Description: new("It prints nothing and blinks twice. A restart did not help."),
			Tags:        []string{"hardware", "warehouse"},
		})
		s.tickets[i] = t.TicketID
		return err
	})
	if err != nil {
		return fmt.Errorf("create tickets: %w", err)
	}
	return s.mark(ctx)
}

// mark moves start to the end of the event feed.
func (s *benchScene) mark(ctx context.Context) error {
	for {
		page, err := s.store.Events(ctx, s.actor.TenantID, store.FeedQuery{After: s.start, Limit: 1000})
		if err != nil {
			return err
		}
		s.start = page.Next
		if !page.More {
			return nil
		}
	}
}

// subscription is a webhook for title changes of the given tickets, or of all of
// them, without an outbound limit.
func (s *benchScene) subscription(path string, tickets ...string) delivery.Spec {
	spec := delivery.Spec{
		Name: "bench", URL: s.b.hook.url + path, Method: http.MethodPost, EventTypes: []string{webhook.TicketUpdated},
		VerifySSL: true, IsActive: true, RateLimit: &delivery.RateLimit{Enabled: new(false)},
	}
	if len(tickets) > 0 {
		spec.EventFilter = &delivery.Filter{EntityIDs: tickets}
	}
	return spec
}

// subscribe makes one webhook.
func (s *benchScene) subscribe(ctx context.Context, spec delivery.Spec) error {
	_, _, err := s.store.CreateWebhook(ctx, time.Now(), s.actor, spec)
	return err
}

// subscribeMany makes n webhooks. tickets says which tickets the i-th is for.
func (s *benchScene) subscribeMany(ctx context.Context, n int, tickets func(i int) []string) error {
	for i := 0; i < n; {
		var specs []delivery.Spec
		for ; i < n && len(specs) < 1000; i++ {
			specs = append(specs, s.subscription(benchPost, tickets(i)...))
		}
		s.b.show.note("making %d webhooks, %d to go", n, n-i)
		if err := s.store.CreateWebhooks(ctx, time.Now(), s.actor, specs); err != nil {
			return err
		}
	}
	return nil
}

// play begins to deliver and to serve.
func (s *benchScene) play(ctx context.Context) error { return s.app.Start(ctx) }

// close ends the service. What it still had to deliver is of no interest.
func (s *benchScene) close() error {
	// The server would wait for connections that were opened and never used.
	s.client.CloseIdleConnections()
	grace, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return errors.Join(s.app.Stop(grace), s.drop())
}

// drop removes the database that open has made on a server.
func (s *benchScene) drop() error {
	if s.server == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return s.server.Drop(ctx)
}

// touch changes the title of a ticket through the store: one event.
func (s *benchScene) touch(ctx context.Context, id string) error {
	title := fmt.Sprintf("Label printer is offline, note %d", s.titles.Add(1))
	_, err := s.store.UpdateTicket(ctx, time.Now(), s.actor, id, ticket.Patch{Title: ticket.Some(title)})
	return err
}

// touchNext is touch on one ticket after the other.
func (s *benchScene) touchNext(ctx context.Context, n int) error {
	return s.touch(ctx, s.tickets[n%len(s.tickets)])
}

// put changes the title of a ticket over HTTP, through the service in this process.
func (s *benchScene) put(ctx context.Context, id, title string) error {
	return s.putTo(ctx, s.app.PublicURL(), id, title)
}

// putTo is put through the service with a URL.
func (s *benchScene) putTo(ctx context.Context, base, id, title string) error {
	body := fmt.Appendf(nil, `{"title":%q}`, title)
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, base+"/api/v1/tickets/"+id, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("X-API-Key", s.key)
	req.Header.Set("Content-Type", "application/json")
	res, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("PUT of a ticket: %s: %s", res.Status, answer)
	}
	return nil
}

// inParallel runs do for 0 to n-1 in that many goroutines and returns the first
// error, which ends the others.
func inParallel(ctx context.Context, goroutines, n int, do func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var all sync.WaitGroup
	for range goroutines {
		all.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := do(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// benchPatience is several times the longest retry of open.
const benchPatience = 10 * time.Second

// settle waits until n deliveries in all have arrived since the last reset and
// nothing is owed any more, or until nothing has moved for a while, which verify
// finds out.
func (s *benchScene) settle(ctx context.Context, n int64) error {
	moved, last := time.Now(), int64(-1)
	for time.Since(moved) < benchPatience {
		got, err := s.b.hook.count(ctx)
		if err != nil {
			return err
		}
		left := n - got
		if left <= 0 {
			backlog, err := s.store.Backlog(ctx, time.Now())
			if err != nil {
				return err
			}
			if left = backlog.Pending; left == 0 {
				return nil
			}
		}
		if left != last {
			moved, last = time.Now(), left
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// verify compares the event feed since mark with what has arrived: want events,
// each once at each of so many webhooks.
func (s *benchScene) verify(ctx context.Context, want int64, webhooks int) (lost, duplicated int64, err error) {
	arrived, err := s.b.hook.arrivals(ctx)
	if err != nil {
		return 0, 0, err
	}
	copies := map[[16]byte]int{} // webhooks that got the event
	for k, a := range arrived {
		copies[k.event]++
		duplicated += int64(a.copies) - 1
	}
	found := int64(0)
	err = s.events(ctx, func(envelope []byte) error {
		id, err := benchEventID(envelope)
		if err == nil && copies[id] >= webhooks {
			found++
		}
		return err
	})
	return max(0, want-found), duplicated, err
}

// events calls f with every envelope of the feed since mark.
func (s *benchScene) events(ctx context.Context, f func(envelope []byte) error) error {
	for q := (store.FeedQuery{After: s.start, Limit: 1000}); ; {
		page, err := s.store.Events(ctx, s.actor.TenantID, q)
		if err != nil {
			return err
		}
		for _, e := range page.Envelopes {
			if err := f(e); err != nil {
				return err
			}
		}
		if q.After = page.Next; !page.More {
			return nil
		}
	}
}

// benchEventID reads the event id of an envelope without parsing the rest: the
// contract puts it first, and a run has a million of them.
func benchEventID(envelope []byte) ([16]byte, error) {
	rest, ok := bytes.CutPrefix(envelope, []byte(`{"event_id":"`))
	if !ok || len(rest) < 36 {
		return [16]byte{}, fmt.Errorf("no event id in %.60q", envelope)
	}
	return uuid.ParseBytes(rest[:36])
}
