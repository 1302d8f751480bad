package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/cutover"
	"github.com/ticketwire/ticketwire/internal/receiver"
	"github.com/ticketwire/ticketwire/webhook"
)

type cutoverStartCmd struct {
	cutoverFlags
	watchFlags

	Webhook     string `help:"Id of the webhook to compare with." placeholder:"ID"`
	ReceiverURL string `name:"receiver-url" help:"Without --webhook: make a webhook that sends to this URL, to all that moves updated_at." placeholder:"URL"`

	Interval time.Duration `help:"From one round of the poller to the next. Default: 60s, or that of the cutover." placeholder:"DURATION"`
	Jitter   float64       `help:"A round is late by up to this share of the interval (0 to 1)." default:"0.05"`
	Budget   float64       `help:"Share of the API key's rate limit to use at most for all of it (above 0 to 1)." default:"0.5"`
	Timeout  time.Duration `help:"How long to wait for an answer." default:"10s"`
	Collect  time.Duration `help:"From one look at the event feed and the delivery log to the next." default:"30s"`

	Listen     string `help:"Address of the receiver, HOST:PORT; port 0 picks a free one." default:"127.0.0.1:9000"`
	Path       string `help:"Path that webhooks are sent to." default:"/webhooks/alga"`
	TLSCert    string `help:"PEM certificate chain; receives over HTTPS together with --tls-key." placeholder:"FILE"`
	TLSKey     string `help:"PEM private key." placeholder:"FILE"`
	SecretFile string `help:"File with the signing secrets, one on a line. Default: secret in the cutover directory." placeholder:"FILE" type:"path"`
	Refetch    bool   `help:"Have the receiver read the ticket before each reaction. AlgaPSA's payloads can be a minute old."`
	NoPoll     bool   `help:"The poller runs elsewhere: ticketwire poll --state DIR."`
	NoReceive  bool   `help:"The receiver runs elsewhere: ticketwire receive --cutover DIR."`

	Exec        string        `help:"Shell command to run once for each change, with the event on its standard input. Without it events are lines of JSON on standard output." placeholder:"CMD"`
	ExecTimeout time.Duration `help:"How long the command may take." default:"1m"`
	Quiet       bool          `short:"q" help:"No summary."`
}

// Help is shown below the flags.
func (cutoverStartCmd) Help() string {
	return `Runs what a move from polling to webhooks needs, in one process until a signal: the poller,
the receiver, and a collector, which reads from the server what neither of them can know
(the event feed, the delivery log, the webhook's state; where there is no feed, as with
AlgaPSA, the list of tickets once an hour). All of them write into the record, which cutover
report judges. A second start in the same directory goes on where the first was, killed or
not, and refuses other parameters.

Both sides see every change and one of them acts: the poller, until cutover finish gives its
turn to the receiver. Whose turn it is goes by the time of the change. So the command runs
once for each change, across finish and rollback too, and twice only when a kill falls
between its end and the note of it.

An event has seen_by (poller or receiver), ticket_id, change (changed or new for the poller,
the event type for the receiver), updated_at, seen_at, and ticket: what the poll showed, or
the data of the webhook, or with --refetch the ticket as it is then (null for one that is
gone). A change that has several events is the first of them: a reaction that needs each is
one for ticketwire receive.

Examples:
  ticketwire cutover start --url https://desk.example.com --all \
    --receiver-url https://hooks.example.com/webhooks/alga --exec ./react.sh
  ticketwire cutover start --ids-file watched.txt --webhook 0199... --secret-file secret.txt
  ticketwire cutover start`
}

// Run runs the parts until a signal or the first failure.
func (c *cutoverStartCmd) Run(ctx context.Context, t terminal) error {
	if err := c.check(); err != nil {
		return err
	}
	setup, err := c.prepare(ctx, t)
	if err != nil {
		return err
	}
	if _, err := c.api(); err != nil {
		return err
	}
	run := &cutoverRun{cmd: c, t: t, setup: setup, turns: cutover.FollowTurns(c.State), out: &locked{out: t.out}, show: newProgress(t)}
	return run.all(ctx)
}

// check finds what is wrong with the flags.
func (c *cutoverStartCmd) check() error {
	var wrong string
	switch {
	case c.All && c.byID():
		wrong = "--all watches every ticket: leave --ids, --ids-file and --query out"
	case c.Webhook != "" && c.ReceiverURL != "":
		wrong = "--webhook takes one that is there, --receiver-url makes one: give one of them"
	case c.Interval < 0:
		wrong = "--interval must be positive"
	case c.Jitter < 0 || c.Jitter > 1:
		wrong = "--jitter must be 0 to 1"
	case c.Budget <= 0 || c.Budget > 1:
		wrong = "--budget must be above 0 and at most 1"
	case c.Timeout <= 0 || c.ExecTimeout <= 0 || c.Collect <= 0:
		wrong = "--timeout, --exec-timeout and --collect must be positive"
	case c.Path == "" || c.Path[0] != '/':
		wrong = "--path must begin with /"
	case (c.TLSCert == "") != (c.TLSKey == ""):
		wrong = "--tls-cert and --tls-key belong together"
	default:
		return nil
	}
	return usageError{errors.New(wrong), "ticketwire cutover start --help"}
}

// collectShare is the collector's part of the budget; the rest is the poller's.
const collectShare = 0.3

// cutoverRun is one run of cutover start.
type cutoverRun struct {
	cmd    *cutoverStartCmd
	t      terminal
	setup  *cutover.Setup
	turns  *cutover.Turns
	record *cutover.Record
	acted  *cutover.Acted
	out    *locked // of reactions
	show   *progress

	mu      sync.Mutex
	refused map[string]bool        // tickets whose next event a drill wants to be refused
	restart chan time.Duration     // asks the receiver not to listen for that long
	down    chan struct{}          // it does not listen now
	failing map[cutover.Topic]bool // sources that were complained about
}

// all runs the parts and returns when all of them have ended.
func (r *cutoverRun) all(ctx context.Context) (err error) {
	dir := r.cmd.State
	if r.record, err = cutover.OpenRecord(dir); err != nil {
		return err
	}
	defer closing(r.record, &err)
	// A turn that a kill has kept out of the record is in the setup.
	for i := range r.setup.Turns {
		if err := r.record.Append(cutover.Entry{Turn: &r.setup.Turns[i]}); err != nil {
			return err
		}
	}
	if r.acted, err = cutover.OpenActed(dir); err != nil {
		return err
	}
	defer closing(r.acted, &err)
	r.refused, r.failing = map[string]bool{}, map[cutover.Topic]bool{}
	r.restart, r.down = make(chan time.Duration), make(chan struct{})

	parts, err := r.parts(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	errs := make([]error, len(parts))
	for i, part := range parts {
		running.Go(func() {
			if errs[i] = part(ctx); errs[i] != nil {
				cancel(errs[i])
			}
		})
	}
	<-ctx.Done()
	secondSignalExits(r.t)
	running.Wait()
	r.show.end()
	return errors.Join(errs...)
}

// parts opens what runs. Each part ends with its context and gives back what it
// has.
func (r *cutoverRun) parts(ctx context.Context) (parts []func(context.Context) error, err error) {
	var opened []func() error
	defer func() {
		if err != nil {
			for _, shut := range opened {
				err = errors.Join(err, shut())
			}
		}
	}()
	collector, err := cutover.OpenCollector(cutover.CollectorConfig{
		URL: r.setup.Server, Key: r.cmd.APIKey, Dir: r.cmd.State, WebhookID: r.setup.WebhookID, Since: r.setup.Started,
		Interval: r.cmd.Collect, Budget: r.cmd.Budget * collectShare, Timeout: r.cmd.Timeout, Show: r.collected, Now: time.Now,
	})
	if err != nil {
		return nil, err
	}
	opened = append(opened, collector.Close)
	parts = append(parts, func(ctx context.Context) error { return errors.Join(collector.Run(ctx), collector.Close()) })
	if !r.cmd.NoPoll {
		p, err := r.poller()
		if err != nil {
			return nil, err
		}
		opened = append(opened, p.Close)
		parts = append(parts, func(ctx context.Context) error { return r.poll(ctx, p) })
	}
	if !r.cmd.NoReceive {
		config, err := r.receiverConfig()
		if err != nil {
			return nil, err
		}
		rcv, err := r.listen(ctx, config)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(r.t.err, "The receiver listens on %s\n", rcv.URL())
		parts = append(parts,
			func(ctx context.Context) error { return r.receive(ctx, rcv, config) },
			func(ctx context.Context) error {
				return cutover.MeetDrills(ctx, r.cmd.State, func(d cutover.DrillRequest) { r.meet(ctx, d) })
			})
	}
	r.announce()
	return parts, nil
}

// announce says what begins.
func (r *cutoverRun) announce() {
	watched := "all tickets"
	if n := len(r.setup.Tickets); n > 0 {
		watched = counted(n, "ticket")
	}
	last := r.setup.Turns[len(r.setup.Turns)-1]
	fmt.Fprintf(r.t.err, "Cutover of webhook %s at %s: %s every %s since %s. The %s acts.\n", r.setup.WebhookID, r.setup.Server,
		watched, seconds(r.setup.Interval), r.setup.Started.Local().Format(time.DateTime), last.Side)
}

func (r *cutoverRun) poller() (*cutover.Poller, error) {
	share := r.cmd.Budget * (1 - collectShare)
	warnOfBudget(r.t, len(r.setup.Tickets), seconds(r.setup.Interval), share)
	r.show.begin("cutover")
	return cutover.Open(cutover.Config{
		URL: r.setup.Server, Key: r.cmd.APIKey, Dir: r.cmd.State, IDs: r.setup.Tickets,
		Interval: seconds(r.setup.Interval), Jitter: r.cmd.Jitter, Budget: share, Timeout: r.cmd.Timeout,
		React: func(ctx context.Context, change cutover.Change) error {
			err := r.react(ctx, changeEvent{
				SeenBy: cutover.SidePoller, TicketID: change.Ticket, Change: string(change.Verdict),
				Updated: change.UpdatedAt, SeenAt: change.SeenAt, Ticket: change.Raw,
			})
			if err != nil {
				r.note("ticket %s: the reaction failed and will be repeated: %v", change.Ticket, err)
			}
			return err
		},
		Show: func(s cutover.Status) {
			if s.Until.IsZero() {
				r.show.note("%s", statusLine(s, time.Now()))
			} else {
				r.show.rest("%s", statusLine(s, time.Now()))
			}
		},
		Now: time.Now,
	})
}

func (r *cutoverRun) poll(ctx context.Context, p *cutover.Poller) error {
	err := p.Run(ctx)
	r.show.end()
	if !r.cmd.Quiet && p.Numbers().Requests > 0 {
		fmt.Fprint(r.t.err, summary(p.Numbers()))
	}
	return errors.Join(err, p.Close())
}

// receiverConfig is the receiver's, whose turn begins with the cutover's finish.
func (r *cutoverRun) receiverConfig() (receiver.Config, error) {
	secrets, err := webhook.OpenSecretFile(r.cmd.secretFile())
	if err != nil {
		return receiver.Config{}, usageError{
			fmt.Errorf("the signing secret of webhook %s: %w", r.setup.WebhookID, err),
			"--secret-file FILE; if nobody has it: ticketwire webhooks rotate " + r.setup.WebhookID + " > " + r.cmd.secretFile(),
		}
	}
	log := slog.New(slog.NewTextHandler(r.t.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	var refetch *client.Client
	if r.cmd.Refetch {
		if refetch, err = r.cmd.api(); err != nil {
			return receiver.Config{}, err
		}
	}
	return receiver.Config{
		Listen: r.cmd.Listen, Path: r.cmd.Path, TLSCert: r.cmd.TLSCert, TLSKey: r.cmd.TLSKey, DataDir: r.cmd.State,
		Secrets: secrets.All, SecretFrom: "file", Tickets: r.setup.Tickets,
		React: func(ctx context.Context, e *receiver.Event) error {
			ticket := e.Data
			switch {
			case e.Refetched && e.Current == nil:
				ticket = json.RawMessage("null")
			case e.Refetched:
				ticket = e.Current.Raw
			}
			return r.react(ctx, changeEvent{
				SeenBy: cutover.SideReceiver, TicketID: e.TicketID(), Change: e.EventType, EventID: e.EventID,
				Updated: cutover.ChangeOf(e.Envelope), SeenAt: time.Now(), Ticket: ticket,
			})
		},
		Refetch: refetch, Acts: r.turns.Receives, Refuse: r.refuses, Record: r.record, Lease: 2*r.cmd.ExecTimeout + 5*time.Second,
		Silence: receiver.LearnSilence, Log: log, Now: time.Now,
	}, nil
}

// listen starts a receiver.
func (r *cutoverRun) listen(ctx context.Context, cfg receiver.Config) (*receiver.Receiver, error) {
	rcv, err := receiver.New(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := rcv.Start(ctx); err != nil {
		return nil, errors.Join(err, r.hangUp(rcv))
	}
	return rcv, nil
}

// hangUp stops a receiver and lets its reactions end.
func (r *cutoverRun) hangUp(rcv *receiver.Receiver) error {
	ctx, cancel := context.WithTimeout(context.Background(), r.cmd.ExecTimeout+5*time.Second)
	defer cancel()
	return rcv.Stop(ctx)
}

// receive keeps a receiver running until ctx ends, and restarts it for drills: on
// the same port, as one that is restarted is.
func (r *cutoverRun) receive(ctx context.Context, rcv *receiver.Receiver, cfg receiver.Config) error {
	cfg.Listen = rcv.Addr()
	for {
		failed, cancel := context.WithCancel(ctx)
		broken := make(chan error, 1)
		go func() { broken <- rcv.Wait(failed) }()
		var down time.Duration
		select {
		case err := <-broken:
			cancel()
			return errors.Join(err, r.hangUp(rcv))
		case down = <-r.restart:
		}
		cancel()
		if err := errors.Join(<-broken, r.hangUp(rcv)); err != nil {
			return err
		}
		select {
		case r.down <- struct{}{}:
		case <-ctx.Done():
		}
		select {
		case <-time.After(down):
		case <-ctx.Done():
			return nil
		}
		var err error
		if rcv, err = r.listen(ctx, cfg); err != nil {
			return fmt.Errorf("start the receiver again: %w", err)
		}
	}
}

// meet does what a drill asks for.
func (r *cutoverRun) meet(ctx context.Context, d cutover.DrillRequest) {
	switch d.Kind {
	case cutover.DrillRetry:
		r.mu.Lock()
		r.refused[strings.ToLower(d.Ticket)] = true
		r.mu.Unlock()
	case cutover.DrillRestart:
		select {
		case r.restart <- d.Down:
		case <-ctx.Done():
			return
		}
		select {
		case <-r.down:
		case <-ctx.Done():
		}
	}
}

// refuses reports whether a drill wants this event to come again.
func (r *cutoverRun) refuses(e *webhook.Envelope) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := e.TicketID()
	refused := r.refused[id]
	delete(r.refused, id)
	return refused
}

// changeEvent is what the command or the reader of standard output gets.
type changeEvent struct {
	SeenBy   cutover.Side    `json:"seen_by"`
	TicketID string          `json:"ticket_id"`
	Change   string          `json:"change"`
	EventID  string          `json:"event_id,omitempty"`
	Updated  time.Time       `json:"updated_at"`
	SeenAt   time.Time       `json:"seen_at"`
	Ticket   json.RawMessage `json:"ticket"`
}

// react runs the reaction, unless the change was acted on before.
func (r *cutoverRun) react(ctx context.Context, e changeEvent) error {
	e.SeenAt = e.SeenAt.UTC().Truncate(time.Microsecond)
	_, err := r.acted.Do(ctx, e.TicketID, e.Updated, func(ctx context.Context) error {
		var line bytes.Buffer
		enc := json.NewEncoder(&line)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(e); err != nil {
			return err
		}
		r.show.end()
		if r.cmd.Exec == "" {
			_, err := r.out.Write(line.Bytes())
			return err
		}
		// A signal lets the command finish: broken off, it would run again.
		return runCommand(context.WithoutCancel(ctx), r.t, "--exec", r.cmd.Exec, r.cmd.ExecTimeout, line.Bytes())
	})
	return err
}

// collected says once when a source gives no answers, and when it does again.
func (r *cutoverRun) collected(c cutover.Collected) {
	for _, source := range slices.Sorted(maps.Keys(c.Failing)) {
		if !r.failing[source] {
			r.failing[source] = true
			r.note("no answer about the %s, which is asked for again: %s", what(source), c.Failing[source])
		}
	}
	for source := range r.failing {
		if _, still := c.Failing[source]; !still {
			delete(r.failing, source)
			r.note("there are answers about the %s again", what(source))
		}
	}
}

func what(s cutover.Topic) string {
	switch s {
	case cutover.TopicFeed:
		return "event feed or the list of tickets"
	case cutover.TopicDeliveries:
		return "delivery log"
	default:
		return "webhook"
	}
}

func (r *cutoverRun) note(format string, args ...any) {
	r.show.end()
	fmt.Fprintf(r.t.err, format+"\n", args...)
}
