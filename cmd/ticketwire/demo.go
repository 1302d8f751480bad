package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/api"
	"github.com/ticketwire/ticketwire/internal/app"
	"github.com/ticketwire/ticketwire/internal/cutover"
	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/webhook"
)

type demoCmd struct {
	Once bool          `help:"Exit when every event has arrived, instead of staying up."`
	Pace time.Duration `help:"Pause between two changes." default:"1.5s"`
	Poll time.Duration `help:"Interval of the poller; stands for the guide's minute." default:"6s"`
}

// Help is shown below the flags.
func (demoCmd) Help() string {
	return `Starts a server on the embedded store in a temporary directory, six tickets, the guide's
"before" poller and a webhook with its receiver, and then works on the tickets. Each
line is a change and when either side learned of it. Nothing leaves this machine and
nothing is left behind.

Examples:
  ticketwire demo
  ticketwire demo --once && echo every event arrived`
}

// watchedTickets is how many tickets the guide's example polls.
const watchedTickets = 6

// demo is the running scene.
type demo struct {
	cmd     *demoCmd
	t       terminal
	app     *app.App
	tenant  store.Bootstrapped
	api     *client.Client // makes the changes
	dir     string
	polling cutover.Config // has its own key, as an integration would
	log     *journal
	secret  string
	hook    *http.Server
	hookURL string
	down    atomic.Bool // the receiver answers 503
}

// Run plays the demo.
func (c *demoCmd) Run(ctx context.Context, t terminal) (err error) {
	if c.Pace < 0 || c.Poll <= 0 {
		return usageError{errors.New("--pace must not be negative and --poll must be positive"), "ticketwire demo --help"}
	}
	dir, err := os.MkdirTemp("", "ticketwire-demo-")
	if err != nil {
		return fmt.Errorf("make a temporary directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d := &demo{cmd: c, t: t, dir: dir, log: newJournal(t)}
	stop, err := d.start(ctx, dir)
	defer func() { err = errors.Join(err, stop()) }()
	if err != nil {
		return err
	}
	tickets, err := d.openTickets(ctx)
	if err != nil {
		return err
	}
	if err := d.subscribe(ctx); err != nil {
		return err
	}
	if err := d.seed(ctx, tickets); err != nil {
		return err
	}
	d.introduce()
	polling, endPolling := context.WithCancel(ctx)
	polled := make(chan error, 1)
	go func() { polled <- d.poll(polling) }()
	workErr := d.work(ctx, tickets)
	if workErr == nil {
		workErr = d.settle(ctx)
	}
	endPolling()
	if err := errors.Join(workErr, <-polled); err != nil {
		if ctx.Err() != nil {
			return nil // interrupted, which is how a demo ends
		}
		return err
	}
	missing, err := d.report(ctx)
	if err != nil {
		return err
	}
	if missing > 0 {
		return fmt.Errorf("%d events did not arrive", missing)
	}
	if c.Once {
		return nil
	}
	return d.stayUp(ctx, tickets[0])
}

// start brings up the server and the receiver, both on free loopback ports. The
// function it returns takes them down again and is never nil.
func (d *demo) start(ctx context.Context, dir string) (stop func() error, err error) {
	var stops []func() error
	stop = func() error {
		var all error
		for _, stop := range slices.Backward(stops) {
			all = errors.Join(all, stop())
		}
		return all
	}
	policy := delivery.DefaultPolicy()
	policy.Jitter = 0
	policy.Schedule = []time.Duration{time.Second, 5 * time.Second, 30 * time.Second, 2 * time.Minute, 12 * time.Minute}
	logFile, err := os.Create(filepath.Join(dir, "server.log"))
	if err != nil {
		return stop, fmt.Errorf("make the log file: %w", err)
	}
	stops = append(stops, logFile.Close)
	d.app, err = app.New(ctx, app.Config{
		Listen: "127.0.0.1:0", DataDir: dir, Version: version(), Policy: policy,
		AllowTargets: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Rate:         api.DefaultRate(), Enforce: true, Retention: time.Hour, MaxWebhooks: 50,
		Log: slog.New(slog.NewTextHandler(logFile, nil)),
	})
	if err != nil {
		return stop, err
	}
	stops = append(stops, func() error {
		grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		return d.app.Stop(grace)
	})
	if err := d.app.Start(ctx); err != nil {
		return stop, err
	}
	if err := d.identify(ctx); err != nil {
		return stop, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return stop, fmt.Errorf("listen for webhooks: %w", err)
	}
	d.hookURL = "http://" + l.Addr().String() + "/webhooks/alga"
	d.hook = &http.Server{Handler: d.receiver(), ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- d.hook.Serve(l) }()
	stops = append(stops, func() error {
		err := d.hook.Close()
		if serr := <-served; !errors.Is(serr, http.ErrServerClosed) {
			err = errors.Join(err, serr)
		}
		return err
	})
	return stop, nil
}

// identify makes the tenant and the two API keys.
func (d *demo) identify(ctx context.Context) (err error) {
	d.tenant, err = d.app.Store().Bootstrap(ctx, time.Now(), store.BootstrapDraft{
		Tenant: "Demo Desk", Email: "demo@example.com", FirstName: "Demo", LastName: "Agent",
	})
	if err != nil {
		return err
	}
	if d.api, err = client.New(d.app.PublicURL(), d.tenant.APIKey); err != nil {
		return err
	}
	_, pollKey, err := d.app.Store().CreateKey(ctx, time.Now(), d.tenant.TenantID, store.KeyDraft{
		UserID: d.tenant.UserID, Name: "poller", Permissions: []string{"ticket:read"},
	})
	if err != nil {
		return err
	}
	// The whole limit of its key: a minute of the guide lasts seconds here.
	d.polling = cutover.Config{
		URL: d.app.PublicURL(), Key: pollKey, Dir: filepath.Join(d.dir, "poller"), Interval: d.cmd.Poll, Budget: 1, Now: time.Now,
	}
	return nil
}

// receiver is the guide's "after" pattern: verify, deduplicate, react.
func (d *demo) receiver() http.Handler {
	verified := webhook.NewHandler(
		func() []string { return []string{d.secret} },
		func(_ context.Context, e *webhook.Envelope) error { return d.log.received(time.Now(), e) },
		webhook.WithLogger(slog.New(slog.DiscardHandler)),
		webhook.WithObserver(func(_ context.Context, r webhook.Receipt) { d.log.observed(r) }),
	)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d.down.Load() {
			d.log.refused()
			http.Error(w, "down for a restart", http.StatusServiceUnavailable)
			return
		}
		verified.ServeHTTP(w, r)
	})
}

func (d *demo) openTickets(ctx context.Context) ([]*client.Ticket, error) {
	titles := [watchedTickets]string{
		"Label printer offline in warehouse 3", "VPN drops every ten minutes", "New laptop for the accounts team",
		"Shared mailbox is full", "Door badge does not open floor 2", "Phone system: no ring tone",
	}
	var out []*client.Ticket
	for _, title := range titles {
		t, err := d.api.CreateTicket(ctx, client.TicketInput{
			Title: title, BoardID: d.tenant.BoardID, ClientID: d.tenant.ClientID,
			StatusID: d.tenant.Statuses["Open"], PriorityID: d.tenant.Priorities["Medium"],
		})
		if err != nil {
			return nil, fmt.Errorf("create a ticket: %w", err)
		}
		d.log.know(t.TicketID, *t.TicketNumber)
		out = append(out, t)
	}
	return out, nil
}

func (d *demo) subscribe(ctx context.Context) error {
	w, err := d.api.CreateWebhook(ctx, client.WebhookInput{
		Name: client.Set("demo receiver"), URL: client.Set(d.hookURL),
		EventTypes: client.Set([]string{
			webhook.TicketCreated, webhook.TicketUpdated, webhook.TicketStatusChanged,
			webhook.TicketAssigned, webhook.TicketClosed, webhook.TicketCommentAdded,
		}),
	})
	if err != nil {
		return fmt.Errorf("create the webhook: %w", err)
	}
	d.secret = w.SigningSecret
	return nil
}

func (d *demo) introduce() {
	fmt.Fprintf(d.t.out, `Polling and webhooks side by side, on this machine.

  server    %s
  poller    GET /api/v1/tickets/{id}, %d tickets every %s (stands for the guide's minute)
  webhook   %s (verified, deduplicated)

`, d.app.PublicURL(), watchedTickets, d.cmd.Poll, d.hookURL)
}

// seed lets the poller see the tickets once, before anything happens to them: it
// reacts to what it knows.
func (d *demo) seed(ctx context.Context, tickets []*client.Ticket) error {
	for _, t := range tickets {
		d.polling.IDs = append(d.polling.IDs, t.TicketID)
	}
	once := d.polling
	once.Rounds = 1
	_, err := runPoller(ctx, once)
	return err
}

// poll is the guide's "before" pattern with its flaws removed.
func (d *demo) poll(ctx context.Context) error {
	watching := d.polling
	watching.React = func(_ context.Context, c cutover.Change) error {
		d.log.polled(c.SeenAt, c.Ticket, c.UpdatedAt)
		return nil
	}
	requests, err := runPoller(ctx, watching)
	d.log.requested(requests)
	return err
}

// runPoller polls until ctx ends or the rounds are made, and returns how many
// requests that took.
func runPoller(ctx context.Context, cfg cutover.Config) (requests int, err error) {
	p, err := cutover.Open(cfg)
	if err != nil {
		return 0, fmt.Errorf("poll: %w", err)
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	if err := p.Run(ctx); err != nil {
		return 0, fmt.Errorf("poll: %w", err)
	}
	return p.Numbers().Requests, nil
}

// pause waits between two changes, or ends with the demo.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// settleLimit is how long the demo waits for the last retry.
const settleLimit = 30 * time.Second

// settle waits until the receiver has every event of the feed and the poller has
// had one more round.
func (d *demo) settle(ctx context.Context) error {
	if err := pause(ctx, d.cmd.Poll+100*time.Millisecond); err != nil {
		return err
	}
	deadline := time.Now().Add(settleLimit)
	for time.Now().Before(deadline) {
		missing, _, err := d.missing(ctx)
		if err != nil || missing == 0 {
			return err
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	return nil // report says what is missing
}

// missing compares the event feed, which is the truth, with what was received.
// Tickets that were opened before the webhook existed do not count.
func (d *demo) missing(ctx context.Context) (missing, total int, err error) {
	for p, err := range d.api.EventPages(ctx, "", client.EventFilter{}) {
		if err != nil {
			return 0, 0, fmt.Errorf("read the event feed: %w", err)
		}
		for _, e := range p.Data {
			if e.EventType == webhook.TicketCreated {
				continue
			}
			total++
			if !d.log.has(e.EventID) {
				missing++
			}
		}
	}
	return missing, total, nil
}

func (d *demo) report(ctx context.Context) (missing int, err error) {
	missing, total, err := d.missing(ctx)
	if err != nil {
		return 0, err
	}
	return missing, d.log.summary(total, missing)
}

// stayUp lets the newcomer make changes of his own and shows their events.
func (d *demo) stayUp(ctx context.Context, first *client.Ticket) error {
	fmt.Fprintf(d.t.out, `
The server and the receiver stay up until you press Ctrl-C. Cause an event yourself:

  curl -X PUT %s/api/v1/tickets/%s \
    -H 'X-API-Key: %s' -H 'Content-Type: application/json' \
    -d '{"title":"Changed by hand"}'

`, d.app.PublicURL(), first.TicketID, d.tenant.APIKey)
	if app.HasConsole {
		link, err := consoleLink(ctx, d.app.Store(), time.Now(), d.app.PublicURL(), d.tenant.TenantID, d.tenant.UserID)
		if err != nil {
			return err
		}
		fmt.Fprintf(d.t.out, "Or in the console; this link signs you in once:\n\n  %s\n\n", link)
	}
	d.log.announce()
	return d.app.Wait(ctx)
}
