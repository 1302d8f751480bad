package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log" //nolint:depguard // net/http uses it, see netHTTPLogsTo
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/internal/api"
	"github.com/ticketwire/ticketwire/internal/app"
	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/egress"
	"github.com/ticketwire/ticketwire/internal/mail"
	"github.com/ticketwire/ticketwire/internal/store"
)

// storeFlags say where the data is.
type storeFlags struct {
	Data          string `help:"Data directory of the embedded database." default:"./ticketwire-data"`
	DatabaseURL   string `name:"database-url" help:"PostgreSQL 13 or later in place of the embedded database: postgres://USER:PASSWORD@HOST/NAME. The data directory then holds only the key file. Several servers may share one database." placeholder:"URL"`
	SecretKeyFile string `help:"File with the key that seals secrets at rest; made if missing. Default: secret.key in the data directory." placeholder:"FILE"`
}

// serviceFlags are the settings of the service (DESIGN section 5).
type serviceFlags struct {
	storeFlags

	Listen    string `help:"Address to listen on, HOST:PORT; port 0 picks a free one." default:"127.0.0.1:8080"`
	PublicURL string `help:"Base of the links in payloads and mails. Default: the address that is listened on." placeholder:"URL"`
	TLSCert   string `help:"PEM certificate chain; serves HTTPS together with --tls-key." placeholder:"FILE"`
	TLSKey    string `help:"PEM private key." placeholder:"FILE"`

	TrustedProxies string `help:"Proxies before this server whose X-Forwarded-For is believed; nobody's unless listed." placeholder:"CIDR,..."`

	RetrySchedule  string        `help:"Delay before each retry." default:"1m,5m,30m,2h,12h"`
	RetryJitter    float64       `help:"A retry is late by up to this share of its delay, never early (0 to 1)." default:"0.05"`
	RequestTimeout time.Duration `help:"Limit for a whole exchange with a receiver." default:"10s"`
	DisableAfter   time.Duration `help:"Disable a webhook after only failures for so long; 0 never does." default:"24h"`
	WarnAfter      string        `help:"Mail a warning after only failures for so long, or none." default:"${warn_after}"`
	RemindEvery    time.Duration `help:"Mail a reminder each time a webhook has stayed disabled for so long, unless a user did it; 0 never does." default:"168h"`
	GoneDisables   bool          `help:"Disable a webhook whose receiver answers 410." default:"true" negatable:""`
	AllowTargets   string        `help:"Private networks that webhooks may reach; refused unless listed." placeholder:"CIDR,..."`
	HTTPSOnly      bool          `name:"https-only" help:"Refuse webhooks with an http URL." negatable:""`
	AllowInsecure  bool          `name:"allow-insecure-tls" help:"Let webhooks set verify_ssl to false; --no-allow-insecure-tls refuses that." default:"true" negatable:""`
	EgressProxy    string        `help:"Proxy for all requests to receivers, http://HOST:PORT or https://USER:PASSWORD@HOST:PORT. Names are looked up and checked here as without it." placeholder:"URL"`
	EgressBind     string        `help:"Source address of connections to receivers, or to the proxy." placeholder:"ADDR"`
	InFlight       int           `help:"Requests to receivers at once." default:"256"`
	PerWebhook     int           `help:"Requests to one webhook at once." default:"16"`
	MaxWebhooks    int           `help:"Webhooks per tenant." default:"50"`
	CommentThreads bool          `help:"Put the whole comment thread into every full payload, as AlgaPSA does." negatable:""`
	Standard       bool          `name:"standard-webhooks" help:"Send the headers of Standard Webhooks too, for receivers that verify with its libraries." negatable:""`
	Retention      time.Duration `help:"How long events and delivery rows are kept." default:"720h"`

	APIRate          rateFlag `name:"api-rate" help:"Rate limit of an API key: burst/refill per minute." default:"120/60"`
	RateLimitEnforce bool     `help:"Enforce rate limits; --no-rate-limit-enforce only observes them." default:"true" negatable:""`

	SMTPURL  string `name:"smtp-url" help:"Mail server, smtp://user:password@host:587 or smtps://...; without it mail stays in the outbox." placeholder:"URL"`
	MailFrom string `help:"Sender of mails." default:"Ticketwire <ticketwire@localhost>"`

	logFlags
}

// logFlags say how a command that runs on and on tells what it does.
type logFlags struct {
	LogFormat string `help:"text or json." enum:"text,json" default:"text"`
	LogLevel  string `help:"debug, info, warn or error." enum:"debug,info,warn,error" default:"info"`
}

// rateFlag is burst/refill.
type rateFlag api.Rate

// UnmarshalText reads "120/60".
func (r *rateFlag) UnmarshalText(text []byte) error {
	burst, refill, found := strings.Cut(string(text), "/")
	b, err1 := strconv.Atoi(burst)
	f, err2 := strconv.Atoi(refill)
	if !found || err1 != nil || err2 != nil || b < 1 || f < 1 {
		return errors.New("want BURST/REFILL with two positive numbers, such as 120/60")
	}
	*r = rateFlag{MaxTokens: b, RefillPerMin: f}
	return nil
}

// MarshalText writes it back, for ticketwire config.
func (r rateFlag) MarshalText() ([]byte, error) {
	return fmt.Appendf(nil, "%d/%d", r.MaxTokens, r.RefillPerMin), nil
}

// config turns the flags into an app.Config; what is wrong is an error that names
// the flag.
func (f *serviceFlags) config(logTo io.Writer) (app.Config, error) {
	policy, err := f.policy()
	if err != nil {
		return app.Config{}, err
	}
	targets, err := egress.ParseNetworks(f.AllowTargets)
	if err != nil {
		return app.Config{}, usageError{fmt.Errorf("--allow-targets: %w", err), "--allow-targets 127.0.0.0/8,10.1.0.0/16"}
	}
	proxies, err := app.ParseProxies(f.TrustedProxies)
	if err != nil {
		return app.Config{}, usageError{fmt.Errorf("--trusted-proxies: %w", err), "--trusted-proxies 10.1.0.4,10.1.0.5"}
	}
	if f.DatabaseURL != "" {
		if err := store.CheckURL(f.DatabaseURL); err != nil {
			return app.Config{}, usageError{fmt.Errorf("--database-url: %w", err), ""}
		}
	}
	if (f.TLSCert == "") != (f.TLSKey == "") {
		return app.Config{}, usageError{errors.New("--tls-cert and --tls-key belong together"), ""}
	}
	if err := f.bounds(); err != nil {
		return app.Config{}, usageError{err, "ticketwire serve --help"}
	}
	egressProxy, egressBind, err := f.egress()
	if err != nil {
		return app.Config{}, err
	}
	if f.SMTPURL != "" {
		if _, err := mail.New(mail.Config{URL: f.SMTPURL, From: f.MailFrom}); err != nil {
			return app.Config{}, usageError{fmt.Errorf("--%w", err), "--smtp-url smtp://user:password@mail.example.com:587 --mail-from desk@example.com"}
		}
	}
	return app.Config{
		Listen: f.Listen, TLSCert: f.TLSCert, TLSKey: f.TLSKey, DataDir: f.Data, DatabaseURL: f.DatabaseURL,
		SecretKeyFile: f.SecretKeyFile, PublicURL: f.PublicURL, Version: version(), TrustedProxies: proxies, Policy: policy, AllowTargets: targets, HTTPSOnly: f.HTTPSOnly,
		VerifyTLS: !f.AllowInsecure, InFlight: f.InFlight, PerWebhook: f.PerWebhook, Retention: f.Retention, Threads: f.CommentThreads, Standard: f.Standard, MaxWebhooks: f.MaxWebhooks,
		SMTPURL: f.SMTPURL, MailFrom: f.MailFrom, Rate: api.Rate(f.APIRate), Enforce: f.RateLimitEnforce,
		EgressProxy: egressProxy, EgressBind: egressBind, Log: f.logger(logTo),
	}, nil
}

// egress reads which way requests leave.
func (f *serviceFlags) egress() (proxy *egress.Proxy, bind netip.Addr, err error) {
	if f.EgressProxy != "" {
		if proxy, err = egress.ParseProxy(f.EgressProxy); err != nil {
			return nil, bind, usageError{fmt.Errorf("--egress-proxy %w", err), "--egress-proxy http://proxy.example.com:3128"}
		}
	}
	if f.EgressBind != "" {
		if bind, err = egress.ParseBind(f.EgressBind); err != nil {
			return nil, bind, usageError{fmt.Errorf("--egress-bind: %w", err), ""}
		}
	}
	return proxy, bind, nil
}

// bounds refuses values that would stop the service, empty the event feed, or
// put links that lead nowhere into payloads and mails.
func (f *serviceFlags) bounds() error {
	if _, port, err := net.SplitHostPort(f.Listen); err != nil {
		return fmt.Errorf("--listen: %w; want HOST:PORT, such as 127.0.0.1:8080 or :8080", err)
	} else if n, err := strconv.Atoi(port); err == nil && (n < 0 || n > 65535) {
		return fmt.Errorf("--listen: there is no port %d, want 0 to 65535", n)
	}
	switch base, err := url.Parse(f.PublicURL); {
	case f.PublicURL == "":
	case err != nil, base.Scheme != "http" && base.Scheme != "https", base.Host == "":
		return errors.New("--public-url must be an http or https URL such as https://desk.example.com")
	}
	switch {
	case f.InFlight < 1:
		return fmt.Errorf("--in-flight is %d, want 1 or more", f.InFlight)
	case f.PerWebhook < 1:
		return fmt.Errorf("--per-webhook is %d, want 1 or more", f.PerWebhook)
	case f.MaxWebhooks < 1:
		return fmt.Errorf("--max-webhooks is %d, want 1 or more", f.MaxWebhooks)
	case f.Retention <= 0:
		return fmt.Errorf("--retention is %s, want more than 0", f.Retention)
	}
	return nil
}

// defaultWarnAfter is --warn-after, of which only what comes before --disable-after
// is left.
const defaultWarnAfter = "1h,12h"

func (f *serviceFlags) policy() (delivery.Policy, error) {
	schedule, err := delivery.ParseSchedule(f.RetrySchedule)
	if err != nil {
		return delivery.Policy{}, usageError{fmt.Errorf("--retry-schedule: %w", err), "--retry-schedule 1m,5m,30m,2h,12h"}
	}
	warn, err := delivery.ParseSchedule(f.WarnAfter)
	if err != nil {
		return delivery.Policy{}, usageError{fmt.Errorf("--warn-after: %w", err), "--warn-after 1h,12h"}
	}
	if f.DisableAfter > 0 {
		late := func(d time.Duration) bool { return d >= f.DisableAfter }
		if i := slices.IndexFunc(warn, late); i >= 0 && f.WarnAfter != defaultWarnAfter {
			return delivery.Policy{}, usageError{fmt.Errorf("--warn-after: %s is not before --disable-after %s, so nobody would be warned", warn[i], f.DisableAfter), ""}
		}
		warn = slices.DeleteFunc(warn, late)
	}
	p := delivery.Policy{
		Schedule: schedule, Jitter: f.RetryJitter, Timeout: f.RequestTimeout, DisableAfter: f.DisableAfter,
		WarnAfter: warn, RemindEvery: f.RemindEvery, GoneDisables: f.GoneDisables,
	}
	if err := p.Validate(); err != nil {
		return delivery.Policy{}, usageError{err, "ticketwire serve --help"}
	}
	return p, nil
}

func (f *logFlags) logger(w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.LogLevel)); err != nil {
		level = slog.LevelInfo // kong has checked the name already
	}
	opts := &slog.HandlerOptions{Level: level}
	if f.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

type serveCmd struct {
	serviceFlags
}

// Help is shown below the flags.
func (serveCmd) Help() string {
	return `Serves the API on --listen and delivers webhooks until it gets SIGINT or SIGTERM;
then it finishes what is in flight. A second signal ends it at once, and what was
in flight goes out after the next start.

Examples:
  ticketwire serve
  ticketwire serve --listen 0.0.0.0:8080 --public-url https://desk.example.com
  ticketwire serve --allow-targets 127.0.0.0/8 --retry-schedule 5s,10s,20s
  TICKETWIRE_SMTP_URL=smtp://user:password@mail.example.com:587 ticketwire serve`
}

// Run serves until ctx ends.
func (c *serveCmd) Run(ctx context.Context, t terminal) error {
	cfg, err := c.config(t.err)
	if err != nil {
		return err
	}
	if len(cfg.AllowTargets) > 0 {
		cfg.Log.Warn("webhooks may reach private networks", "allow_targets", c.AllowTargets)
	}
	netHTTPLogsTo(cfg.Log)
	a, err := app.New(ctx, cfg)
	if err != nil {
		return err
	}
	if err := a.Start(ctx); err != nil {
		return err
	}
	fmt.Fprintf(t.out, "ticketwire %s is ready on %s\n", version(), a.PublicURL())
	if app.HasConsole {
		fmt.Fprintf(t.out, "console at %s/console, sign in with an API key or ticketwire console link\n", a.PublicURL())
	}
	if tenants, err := a.Store().Tenants(ctx); err == nil && len(tenants) == 0 {
		fmt.Fprintln(t.out, "no tenant yet: ticketwire bootstrap on the same data makes one and prints its API key")
	}
	waitErr := a.Wait(ctx)
	secondSignalExits(t)
	cfg.Log.Info("stopping", "grace", c.grace())
	stopCtx, cancel := context.WithTimeout(context.Background(), c.grace())
	defer cancel()
	return errors.Join(waitErr, a.Stop(stopCtx))
}

// netHTTPLogsTo turns what net/http tells the standard logger about receivers
// into debug lines: a hostile one could fill a disk with them. What became of an
// attempt is in its own line.
func netHTTPLogsTo(l *slog.Logger) {
	log.SetFlags(0)
	log.SetOutput(slog.NewLogLogger(l.Handler(), slog.LevelDebug).Writer())
}

// grace lets the slowest delivery finish.
func (c *serveCmd) grace() time.Duration { return c.RequestTimeout + 5*time.Second }
