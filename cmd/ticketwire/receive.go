package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/alecthomas/kong"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/cutover"
	"github.com/ticketwire/ticketwire/internal/receiver"
	"github.com/ticketwire/ticketwire/webhook"
)

type receiveCmd struct {
	Run  receiveRunCmd  `cmd:"" default:"withargs" help:"Receive webhooks. receive alone does it too."`
	Dead receiveDeadCmd `cmd:"" help:"List the events that failed in every attempt, run them again, or give them up."`
}

// Help is shown below the subcommands.
func (receiveCmd) Help() string {
	return `"ticketwire receive run --help" has the flags of the receiver.

Examples:
  ticketwire receive --secret-file secret.txt --exec ./react.sh
  ticketwire receive dead
  ticketwire receive dead replay --all`
}

// inboxFlags say where the events of the receiver are.
type inboxFlags struct {
	Data        string `help:"Data directory of the receiver." default:"./ticketwire-receiver" type:"path"`
	DatabaseURL string `name:"database-url" help:"Keep the events in this PostgreSQL instead of SQLite in the data directory; better given as TICKETWIRE_DATABASE_URL." placeholder:"postgres://..."`
}

type receiveRunCmd struct {
	inboxFlags
	logFlags
	apiFlags
	reactionFlags

	Listen      string `help:"Address to listen on, HOST:PORT; port 0 picks a free one." default:"127.0.0.1:9000"`
	Path        string `help:"Path that webhooks are sent to." default:"/webhooks/alga"`
	TLSCert     string `help:"PEM certificate chain; receives over HTTPS together with --tls-key." placeholder:"FILE"`
	TLSKey      string `help:"PEM private key." placeholder:"FILE"`
	AdminListen string `help:"Address of /healthz, /readyz and /metrics; none for no such address." default:"127.0.0.1:9001"`

	Secret     string   `help:"Signing secret; better given as TICKETWIRE_SECRET, where other users cannot see it." placeholder:"SECRET"`
	SecretFile string   `help:"File with signing secrets, one on a line, taken before --secret. It is read again when it changes." placeholder:"FILE"`
	Watch      []string `help:"Ids of the tickets to react to. Default: all, or those of the cutover." placeholder:"ID"`
	WatchFile  string   `help:"File with such ids, one on a line; # begins a comment, - is standard input." placeholder:"FILE"`
	Types      []string `help:"Event types to react to. Default: all six." placeholder:"TYPE"`
	SkipStale  bool     `help:"Do not react to an event that is older than one of its ticket that is done."`
	MaxBody    int64    `help:"Refuse larger requests with 413. AlgaPSA sends all comments of a ticket with each new one." default:"1048576" placeholder:"BYTES"`
	Refetch    bool     `help:"Read the ticket from --url before each reaction; the event gets it as ticket."`

	Silence   string `help:"Alarm after so long without an event, or auto to learn that from the traffic." default:"off" placeholder:"DURATION"`
	Webhook   string `help:"Id of the webhook at --url: ask there every five minutes whether it is enabled." placeholder:"ID"`
	AlarmExec string `help:"Shell command to run for each alarm, with the alarm as JSON on its standard input." placeholder:"CMD"`
	Cutover   string `help:"Cutover directory: write down what comes, and react when it is not the poller's turn." placeholder:"DIR" type:"path"`
}

// Help is shown below the flags.
func (receiveRunCmd) Help() string {
	return `Receives webhooks of Ticketwire and AlgaPSA. A request is verified, its event is written to
the disk, and the answer is 200; then the reaction runs, one ticket in order, and again
after a pause while it fails. What failed every time is a dead letter, see receive dead.
A receiver that is killed goes on where it was: what was acknowledged is reacted to at
least once, and not again when it is done.

A reaction is any of --exec, --forward, --append and --nats; with several, all must work.
Without one, events are lines of JSON on standard output. An event is the envelope that
was signed, on one line, with stale if a newer one of the ticket is done, and ticket if
--refetch has read it (null for one that is gone).

Nothing but the path of the webhooks is on --listen: /readyz and /metrics have an address
of their own, which senders cannot reach.

Examples:
  ticketwire receive --secret-file secret.txt --exec ./react.sh
  ticketwire receive --secret-file secret.txt --forward http://127.0.0.1:3000/hook --append events.jsonl
  ticketwire receive --listen :443 --tls-cert chain.pem --tls-key key.pem --nats nats://127.0.0.1:4222 --subject tickets
  ticketwire receive --silence 1h --webhook 0199... --url https://desk.example.com --alarm-exec ./page.sh`
}

// Run receives until a signal.
func (c *receiveRunCmd) Run(ctx context.Context, k *kong.Context, t terminal) (err error) {
	log := c.logger(t.err)
	netHTTPLogsTo(log)
	cfg, err := c.config(k, t, log)
	if err != nil {
		return err
	}
	if cfg.Record != nil {
		defer closing(cfg.Record, &err)
	}
	reaction, err := c.reaction(t, log, cfg.Secrets)
	if err != nil {
		return err
	}
	defer closing(reaction, &err)
	cfg.React = reaction.run
	r, err := receiver.New(ctx, cfg)
	if err != nil {
		return err
	}
	err = r.Start(ctx)
	if err == nil {
		fmt.Fprintf(t.err, "ticketwire %s receives webhooks on %s\n", version(), r.URL())
		if r.AdminURL() != "" {
			fmt.Fprintf(t.err, "readiness and metrics are at %s/readyz and /metrics\n", r.AdminURL())
		}
		err = r.Wait(ctx)
		secondSignalExits(t)
	}
	grace := c.ReactTimeout + 5*time.Second
	log.Info("stopping", "grace", grace)
	stopCtx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	return errors.Join(err, r.Stop(stopCtx))
}

// config turns the flags into a receiver.Config without a reaction; what is wrong
// is an error that names the flag. The record, if there is one, is open.
func (c *receiveRunCmd) config(k *kong.Context, t terminal, log *slog.Logger) (receiver.Config, error) {
	cfg := receiver.Config{
		Listen: c.Listen, Path: c.Path, TLSCert: c.TLSCert, TLSKey: c.TLSKey, AdminListen: c.AdminListen,
		DataDir: c.Data, DatabaseURL: c.DatabaseURL, Types: c.Types, SkipStale: c.SkipStale, MaxBody: c.MaxBody,
		Workers: c.Workers, Lease: c.ReactTimeout, Attempts: c.Retries + 1, Log: log, Now: time.Now,
	}
	if c.AdminListen == "none" {
		cfg.AdminListen = ""
	}
	err := c.check()
	if err == nil {
		cfg.Secrets, cfg.SecretFrom, err = c.secrets(k)
	}
	if err == nil {
		cfg.Silence, err = c.silence()
	}
	if err == nil {
		cfg.Tickets, err = c.watched()
	}
	if err == nil && c.Cutover != "" {
		err = c.join(&cfg)
	}
	if err == nil && (c.Refetch || c.Webhook != "") {
		err = c.ask(&cfg)
	}
	if err != nil && cfg.Record != nil {
		err = errors.Join(err, cfg.Record.Close())
	}
	if c.AlarmExec != "" {
		cfg.OnAlarm = func(ctx context.Context, a receiver.Alarm) {
			line, _ := json.Marshal(a) // texts and times always encode
			if err := runCommand(ctx, t, "--alarm-exec", c.AlarmExec, time.Minute, append(line, '\n')); err != nil {
				log.Error("the command of --alarm-exec failed", "error", err)
			}
		}
	}
	return cfg, err
}

func (c *receiveRunCmd) check() error {
	var wrong string
	switch {
	case (c.TLSCert == "") != (c.TLSKey == ""):
		wrong = "--tls-cert and --tls-key belong together"
	case c.Path == "" || c.Path[0] != '/':
		wrong = "--path must begin with /"
	case c.MaxBody <= 0:
		wrong = "--max-body must be positive"
	case c.Workers < 1:
		wrong = "--workers must be 1 or more"
	case c.Retries < 0:
		wrong = "--retries must not be negative"
	case c.ReactTimeout <= 0:
		wrong = "--react-timeout must be positive"
	default:
		return nil
	}
	return usageError{errors.New(wrong), "ticketwire receive run --help"}
}

// secrets returns the signing secrets, and where they come from.
func (c *receiveRunCmd) secrets(k *kong.Context) (all func() []string, from string, err error) {
	if c.SecretFile != "" {
		f, err := webhook.OpenSecretFile(c.SecretFile)
		if err != nil {
			return nil, "", usageError{fmt.Errorf("--secret-file: %w", err), ""}
		}
		return f.All, "file", nil
	}
	if c.Secret == "" {
		return nil, "", usageError{errors.New("a signing secret is needed"), "TICKETWIRE_SECRET=... ticketwire receive, or --secret-file"}
	}
	from = "environment"
	for _, p := range k.Path {
		switch {
		case p.Flag == nil || p.Flag.Name != "secret":
		case p.Resolved:
			from = "config"
		default:
			from = "flag"
		}
	}
	return webhook.NewSecretList(c.Secret).All, from, nil
}

func (c *receiveRunCmd) silence() (time.Duration, error) {
	switch c.Silence {
	case "off", "0":
		return 0, nil
	case "auto":
		return receiver.LearnSilence, nil
	}
	d, err := time.ParseDuration(c.Silence)
	if err != nil || d <= 0 {
		return 0, usageError{fmt.Errorf("--silence: %q is no duration", c.Silence), "--silence 1h, or --silence auto"}
	}
	return d, nil
}

// watched returns the tickets to react to; nil for all.
func (c *receiveRunCmd) watched() ([]string, error) {
	ids := c.Watch
	if c.WatchFile != "" {
		more, err := readIDs("--watch-file", c.WatchFile)
		if err != nil {
			return nil, err
		}
		if ids = append(ids, more...); len(ids) == 0 {
			return nil, usageError{fmt.Errorf("--watch-file: %s has no ids", c.WatchFile), ""}
		}
	}
	for _, id := range ids {
		if !ticketID.MatchString(id) {
			return nil, usageError{fmt.Errorf("%q is not the id of a ticket: ids are UUIDs, the ticket_id of the API", id), ""}
		}
	}
	return ids, nil
}

// join makes the receiver one side of a cutover.
func (c *receiveRunCmd) join(cfg *receiver.Config) error {
	turns := cutover.FollowTurns(c.Cutover)
	setup, err := turns.Setup()
	if err != nil {
		return err
	}
	if cfg.Record, err = cutover.OpenRecord(c.Cutover); err != nil {
		return err
	}
	if len(cfg.Tickets) == 0 {
		cfg.Tickets = setup.Tickets
	}
	if c.Webhook == "" && c.APIKey != "" {
		c.Webhook = setup.WebhookID
	}
	cfg.Acts = turns.Receives
	return nil
}

// ask adds what needs the API.
func (c *receiveRunCmd) ask(cfg *receiver.Config) error {
	api, err := c.connect(client.WithTimeout(10 * time.Second))
	if err != nil {
		return err
	}
	if c.Refetch {
		cfg.Refetch = api
	}
	if c.Webhook != "" {
		cfg.Watch = &receiver.Watch{API: api, WebhookID: c.Webhook}
	}
	return nil
}
