package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/api"
	"github.com/ticketwire/ticketwire/internal/app"
	"github.com/ticketwire/ticketwire/internal/cutover"
	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/receiver"
	"github.com/ticketwire/ticketwire/internal/store"
)

type demoCmd struct {
	Once   bool          `help:"Exit after the report, instead of staying up: with 0 when every event arrived and the report has nothing against webhooks."`
	Pace   time.Duration `help:"Pause between two changes." default:"1.5s"`
	Poll   time.Duration `help:"Interval of the poller; stands for the guide's minute." default:"6s"`
	Report string        `help:"Where to write the whole cutover report. Default: ticketwire-demo.html." default:"ticketwire-demo.html" placeholder:"FILE" type:"path"`
}

// Help is shown below the flags.
func (demoCmd) Help() string {
	return `The guide "Migrate from polling to ticket webhooks", live, in about a minute: a server on
the embedded store in a temporary directory, six tickets, the "before" poller, a webhook
with its receiver, and work on the tickets. Each line is a change and when either side
learned of it. Then both are compared, as ticketwire cutover report does it after a day.

Nothing leaves this machine, and nothing but the report is left behind.

Examples:
  ticketwire demo
  ticketwire demo --once && echo every event arrived
  ticketwire demo --once --pace 100ms --poll 1s`
}

// watchedTickets is how many tickets the guide's example polls.
const watchedTickets = 6

// demo is the running scene.
type demo struct {
	cmd       *demoCmd
	t         terminal
	dir       string // of the server
	state     string // of the poller and the receiver: a cutover directory
	log       *journal
	file      *os.File // of the whole report
	serverLog *slog.Logger
	app       *app.App
	tenant    store.Bootstrapped
	api       *client.Client // makes the changes
	tickets   []*client.Ticket

	setup     *cutover.Setup
	polling   cutover.Config // has its own key, as an integration would
	collector *cutover.Collector
	record    *cutover.Record
	receiver  *receiver.Receiver // nil while it is down
	address   string             // of the receiver
	secret    string

	stops []func() error // in the order in which things were started
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
	d := &demo{cmd: c, t: t, dir: dir, state: filepath.Join(dir, "cutover"), log: newJournal(t)}
	defer func() {
		for _, stop := range slices.Backward(d.stops) {
			err = errors.Join(err, stop())
		}
	}()
	report, err := d.play(ctx)
	if err == nil {
		err = d.show(ctx, report)
	}
	if err == nil && !c.Once {
		err = d.stayUp(ctx)
	}
	switch {
	case ctx.Err() == nil:
		return err
	case c.Once:
		return ctx.Err()
	default:
		return nil // which is how a demo ends
	}
}

// play starts everything, lets the work be done and returns what came of it.
func (d *demo) play(ctx context.Context) (*cutover.Report, error) {
	for _, start := range []func(context.Context) error{d.openReport, d.serve, d.identify, d.openTickets, d.receive, d.collect, d.seed} {
		if err := start(ctx); err != nil {
			return nil, err
		}
	}
	d.introduce()
	watching, enough := context.WithCancel(ctx)
	defer enough()
	var running sync.WaitGroup
	var pollErr, collectErr error
	running.Go(func() { pollErr = d.poll(watching) })
	running.Go(func() { collectErr = d.collector.Run(watching) })
	// The comparison counts from the second round on.
	err := pause(ctx, d.rounds(1))
	if err == nil {
		err = d.work(ctx)
	}
	if err == nil {
		err = d.settle(ctx)
	}
	enough()
	running.Wait()
	if err := errors.Join(err, pollErr, collectErr); err != nil {
		return nil, err
	}
	if err := d.collector.Look(ctx); err != nil {
		return nil, err
	}
	return d.compare()
}

// serve starts the server on a free loopback port.
func (d *demo) serve(ctx context.Context) error {
	policy := delivery.DefaultPolicy()
	policy.Jitter = 0
	policy.Schedule = []time.Duration{time.Second, 5 * time.Second, 30 * time.Second, 2 * time.Minute, 12 * time.Minute}
	logFile, err := os.Create(filepath.Join(d.dir, "server.log"))
	if err != nil {
		return fmt.Errorf("make the log file: %w", err)
	}
	d.stops = append(d.stops, logFile.Close)
	d.serverLog = slog.New(slog.NewTextHandler(logFile, nil))
	// A minute of the guide lasts as long as a round here, for the keys too.
	rate, faster := api.DefaultRate(), max(1, int(time.Minute/d.cmd.Poll))
	rate.MaxTokens *= faster
	rate.RefillPerMin *= faster
	d.app, err = app.New(ctx, app.Config{
		Listen: "127.0.0.1:0", DataDir: d.dir, Version: version(), Policy: policy,
		AllowTargets: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Rate:         rate, Enforce: true, Retention: time.Hour, MaxWebhooks: 50,
		Log: d.serverLog,
	})
	if err != nil {
		return err
	}
	d.stops = append(d.stops, func() error {
		grace, cancel := context.WithTimeout(context.Background(), stopGrace)
		defer cancel()
		return d.app.Stop(grace)
	})
	return d.app.Start(ctx)
}

// stopGrace is how long the demo waits for its server and its receiver to end.
const stopGrace = 5 * time.Second

// identify makes the tenant and the API keys.
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
	d.polling = cutover.Config{URL: d.app.PublicURL(), Key: pollKey, Dir: d.state, Interval: d.cmd.Poll, Budget: 1, Now: time.Now}
	return nil
}

func (d *demo) openTickets(ctx context.Context) error {
	titles := [watchedTickets]string{
		"Label printer offline in warehouse 3", "VPN drops every ten minutes", "New laptop for the accounts team",
		"Shared mailbox is full", "Door badge does not open floor 2", "Phone system: no ring tone",
	}
	for _, title := range titles {
		t, err := d.openTicket(ctx, title)
		if err != nil {
			return fmt.Errorf("create a ticket: %w", err)
		}
		d.tickets = append(d.tickets, t)
		d.polling.IDs = append(d.polling.IDs, t.TicketID)
	}
	return nil
}

func (d *demo) openTicket(ctx context.Context, title string) (*client.Ticket, error) {
	return d.api.CreateTicket(ctx, client.TicketInput{
		Title: title, BoardID: d.tenant.BoardID, ClientID: d.tenant.ClientID,
		StatusID: d.tenant.Statuses["Open"], PriorityID: d.tenant.Priorities["Medium"],
	})
}

// receive makes the webhook and the receiver that it sends to, and with them the
// setup of the cutover.
func (d *demo) receive(ctx context.Context) (err error) {
	if d.record, err = cutover.OpenRecord(d.state); err != nil {
		return err
	}
	d.stops = append(d.stops, d.record.Close, d.stopReceiver)
	d.address = "127.0.0.1:0"
	if err := d.bindReceiver(ctx); err != nil {
		return err
	}
	w, err := d.api.CreateWebhook(ctx, client.WebhookInput{
		Name: client.Set("demo receiver"), URL: client.Set(d.receiver.URL()), EventTypes: client.Set(everyEvent()),
	})
	if err != nil {
		return fmt.Errorf("create the webhook: %w", err)
	}
	d.secret = w.SigningSecret
	now := time.Now().UTC()
	d.setup = &cutover.Setup{
		Server: d.app.PublicURL(), WebhookID: w.WebhookID, Tickets: d.polling.IDs, Interval: d.cmd.Poll.Seconds(), Started: now,
		Turns: []cutover.Turn{{At: now, From: now, Side: cutover.SidePoller}},
	}
	return errors.Join(d.setup.Save(d.state), d.receiver.Start(ctx))
}

// bindReceiver makes a receiver, on the address of the one before.
func (d *demo) bindReceiver(ctx context.Context) (err error) {
	d.receiver, err = receiver.New(ctx, receiver.Config{
		Listen: d.address, DataDir: d.state, Record: d.record,
		Secrets: func() []string { return []string{d.secret} },
		React:   func(_ context.Context, e *receiver.Event) error { return d.log.received(time.Now(), e.Envelope) },
		Silence: receiver.LearnSilence, Log: d.serverLog, Now: time.Now,
	})
	if err != nil {
		d.receiver = nil
		return err
	}
	d.address = d.receiver.Addr()
	return nil
}

func (d *demo) stopReceiver() error {
	if d.receiver == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	err := d.receiver.Stop(ctx)
	d.receiver = nil
	return err
}

// collect reads from the server for the first time what the comparison has to
// know of it.
func (d *demo) collect(ctx context.Context) (err error) {
	d.collector, err = cutover.OpenCollector(cutover.CollectorConfig{
		URL: d.app.PublicURL(), Key: d.tenant.APIKey, Dir: d.state, WebhookID: d.setup.WebhookID, Since: d.setup.Started,
		Interval: d.cmd.Poll, Budget: 0.5, Now: time.Now,
	})
	if err != nil {
		return err
	}
	d.stops = append(d.stops, d.collector.Close)
	return d.collector.Look(ctx)
}

// seed lets the poller see the tickets once, before anything happens to them: it
// reacts to what it knows.
func (d *demo) seed(ctx context.Context) error {
	once := d.polling
	once.Rounds = 1
	return runPoller(ctx, once)
}

// poll is the guide's "before" pattern with its flaws removed.
func (d *demo) poll(ctx context.Context) error {
	watching := d.polling
	watching.React = func(_ context.Context, c cutover.Change) error {
		d.log.polled(c.SeenAt, c.Ticket, c.UpdatedAt)
		return nil
	}
	return runPoller(ctx, watching)
}

// runPoller polls until ctx ends or the rounds are made.
func runPoller(ctx context.Context, cfg cutover.Config) (err error) {
	p, err := cutover.Open(cfg)
	if err != nil {
		return fmt.Errorf("poll: %w", err)
	}
	defer closing(p, &err)
	if err := p.Run(ctx); err != nil {
		return fmt.Errorf("poll: %w", err)
	}
	return nil
}
