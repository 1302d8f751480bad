// Package app wires a Config into a running service: store, dispatcher, mail and
// HTTP server. It is the only package that sees all of them, and it holds no
// rules of its own.
package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ticketwire/ticketwire/docs"
	"github.com/ticketwire/ticketwire/internal/api"
	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/dispatch"
	"github.com/ticketwire/ticketwire/internal/egress"
	"github.com/ticketwire/ticketwire/internal/failpoint"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/mail"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/vault"
)

// Config is everything that an operator decides. DESIGN's flags map to it one to
// one; cmd/ticketwire owns names, defaults and help.
type Config struct {
	Listen        string // host:port; port 0 picks one
	TLSCert       string // PEM files; both or none
	TLSKey        string
	DataDir       string
	DatabaseURL   string // of a PostgreSQL; "": the embedded database in DataDir
	SecretKeyFile string // "": secret.key in DataDir
	PublicURL     string // "": http(s)://<address that is listened on>
	Version       string // for the User-Agent

	TrustedProxies []netip.Prefix // whose X-Forwarded-For is believed, see ParseProxies

	Policy       delivery.Policy
	AllowTargets []netip.Prefix
	HTTPSOnly    bool          // webhooks must use https
	VerifyTLS    bool          // webhooks must not set verify_ssl to false
	EgressProxy  *egress.Proxy // nil: receivers are called directly
	EgressBind   netip.Addr    // source address; invalid: any
	InFlight     int           // requests at once; 0: the dispatcher's default
	PerWebhook   int           // requests at once to one webhook; 0: the dispatcher's default
	Retention    time.Duration
	Threads      bool // the whole comment thread on every full payload (contract D9)
	Standard     bool // the headers of Standard Webhooks beside those of the contract
	MaxWebhooks  int

	SMTPURL  string // "": mail stays in the outbox
	MailFrom string

	Rate    api.Rate
	Enforce bool // false: rate limits are observed, not enforced

	Log *slog.Logger
	Now func() time.Time // nil: time.Now

	// For tests in a bubble of fake time, which bring pipes instead of sockets.
	Listener   net.Listener
	DialTarget func(ctx context.Context, network, addr string) (net.Conn, error)
	DialMail   func(ctx context.Context, network, addr string) (net.Conn, error)
}

// App is a service that is wired but, until Start, not running.
type App struct {
	cfg      Config
	store    *store.Store
	commits  *commits
	client   *egress.Client
	engine   *dispatch.Engine
	listener net.Listener
	server   *http.Server
	served   chan error
	endLive  func()         // ends the console's live pages; nil without a console
	cleanup  []func() error // run in reverse order
}

// Open opens the store that cfg names, migrated and ready. bootstrap and the
// tenants command use it beside a running server.
func Open(ctx context.Context, cfg Config) (*store.Store, error) { return open(ctx, cfg, nil) }

func open(ctx context.Context, cfg Config, commit func(calls int) (ended func(error))) (*store.Store, error) {
	keyFile := cfg.SecretKeyFile
	if keyFile == "" {
		if err := store.MakeDir(cfg.DataDir); err != nil {
			return nil, err
		}
		keyFile = filepath.Join(cfg.DataDir, "secret.key")
	}
	if err := refuseLostKey(cfg, keyFile); err != nil {
		return nil, err
	}
	v, err := vault.Open(keyFile)
	if err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = failpoint.Clock(time.Now)
	}
	s, err := store.Open(ctx, store.Config{
		Dir: cfg.DataDir, DatabaseURL: cfg.DatabaseURL, Now: cfg.Now, Vault: v, Policy: cfg.Policy, PublicURL: cfg.PublicURL, Threads: cfg.Threads,
		MaxWebhooks: cfg.MaxWebhooks, Retention: cfg.Retention, Mails: mails(cfg), Commit: commit,
	})
	switch {
	case err != nil && cfg.DatabaseURL != "":
		return nil, fmt.Errorf("open the store on PostgreSQL (--database-url): %w", err)
	case err != nil:
		return nil, fmt.Errorf("open the store in %s: %w", cfg.DataDir, err)
	}
	return s, nil
}

// refuseLostKey refuses a database whose key file is not there: a new key would open
// none of its secrets. The key file is always made before the database.
func refuseLostKey(cfg Config, keyFile string) error {
	if cfg.DatabaseURL != "" { // it knows its key
		return nil
	}
	if _, err := os.Stat(keyFile); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if there, err := store.Exists(cfg.DataDir); err != nil || !there {
		return err
	}
	return fault.New(fault.Internal, "the key file %s is missing, and what is secret in the database of %s is sealed with it: "+
		"put it back from the backup, or name it with --secret-key-file; if it is lost, see Backup in docs/operations.md", keyFile, cfg.DataDir)
}

// checkAtStart bounds the database that every start reads as a whole, in bytes:
// a fifth of a second. ticketwire check is for larger ones.
const checkAtStart = 64 << 20

// New opens everything and binds the listener, so that Addr is known and a port
// that is taken is an error here. On an error nothing is left open.
func New(ctx context.Context, cfg Config) (a *App, err error) {
	if cfg.Now == nil {
		cfg.Now = failpoint.Clock(time.Now)
	}
	a = &App{served: make(chan error, 1)}
	opened := a // the result is nil again on an error
	defer func() {
		if err != nil {
			err = errors.Join(err, opened.close())
		}
	}()
	if err := a.listen(&cfg); err != nil {
		return nil, err
	}
	a.cfg = cfg
	a.commits = newCommits(cfg.Now)
	if a.store, err = open(ctx, cfg, a.commits.begin); err != nil {
		return nil, err
	}
	a.cleanup = append(a.cleanup, a.store.Close)
	// All nodes of a database go by its clock.
	cfg.Now = a.store.Clock(cfg.Now)
	a.cfg.Now = cfg.Now
	if _, err := a.store.Check(ctx, checkAtStart); err != nil {
		return nil, fmt.Errorf("check the store in %s: %w", cfg.DataDir, err)
	}
	if err := a.store.LockDeliveries(); err != nil {
		return nil, err
	}
	switch unopened, of, err := a.store.CheckSecrets(ctx); {
	case err != nil:
		return nil, err
	case unopened > 0:
		cfg.Log.Error("the key file does not open the secrets of webhooks, nothing is sent to them: put its key back, or rotate their secrets",
			"unopened", unopened, "tried", of)
	}
	var sender *mail.Sender
	if cfg.SMTPURL != "" {
		if sender, err = mail.New(mail.Config{URL: cfg.SMTPURL, From: cfg.MailFrom, DialContext: cfg.DialMail}); err != nil {
			return nil, err
		}
	}
	target := a.targets()
	a.client = egress.New(target)
	a.cleanup = append(a.cleanup, func() error { a.client.Close(); return nil })
	reg := prometheus.NewRegistry()
	a.engine = dispatch.New(dispatch.Config{
		Store: a.store, Client: a.client, Policy: cfg.Policy, Mail: sender, Now: cfg.Now, Log: cfg.Log,
		Metrics: reg, InFlight: cfg.InFlight, PerLane: cfg.PerWebhook, Standard: cfg.Standard,
	})
	a.register(reg)
	a.server = newServer(a.handler(api.New(api.Config{
		Store: a.store, Engine: a.engine, Egress: target, PublicURL: cfg.PublicURL, Rate: cfg.Rate,
		Enforce: cfg.Enforce, Now: cfg.Now, Log: cfg.Log, Metrics: reg, OpenAPI: docs.OpenAPI(),
	}), reg, target), cfg.Log)
	return a, nil
}

// listen binds the address and completes the public URL with it.
func (a *App) listen(cfg *Config) error {
	a.listener = cfg.Listener
	if a.listener == nil {
		l, err := net.Listen("tcp", cfg.Listen)
		if err != nil {
			return fmt.Errorf("listen on %s: %w", cfg.Listen, err)
		}
		a.listener = l
	}
	a.cleanup = append(a.cleanup, func() error {
		// The HTTP server closes it too; twice is fine.
		if err := a.listener.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	scheme := "http"
	if cfg.TLSCert != "" {
		cert, err := tls.LoadX509KeyPair(cfg.TLSCert, cfg.TLSKey)
		if err != nil {
			return fmt.Errorf("load the TLS certificate: %w", err)
		}
		scheme = "https"
		a.listener = tls.NewListener(a.listener, &tls.Config{
			Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		})
	}
	if cfg.PublicURL == "" {
		cfg.PublicURL = scheme + "://" + a.listener.Addr().String()
	}
	cfg.PublicURL = strings.TrimRight(cfg.PublicURL, "/")
	return nil
}

// newServer bounds what a slow or hostile client can hold (RFC 9110 leaves it to
// us). The write limit covers a manual retry, which waits for the receiver.
func newServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// Addr is the address that is listened on.
func (a *App) Addr() string { return a.listener.Addr().String() }

// PublicURL is the base of the service's links.
func (a *App) PublicURL() string { return a.cfg.PublicURL }

// Store gives commands that run the service in their own process (demo) the
// administration that has no route.
func (a *App) Store() *store.Store { return a.store }

// Start begins to deliver and to serve, and returns when both do.
func (a *App) Start(ctx context.Context) error {
	if err := a.engine.Start(ctx); err != nil {
		return fmt.Errorf("start the dispatcher: %w", err)
	}
	go func() { a.served <- a.server.Serve(a.listener) }()
	return nil
}

// Wait returns when the HTTP server has ended by itself, which is an error, or
// when ctx ends.
func (a *App) Wait(ctx context.Context) error {
	select {
	case err := <-a.served:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
		return nil
	}
}

// Stop lets requests and deliveries in flight finish until ctx ends, then breaks
// them off; what was broken off is still owed and goes out after the next start.
func (a *App) Stop(ctx context.Context) error {
	if a.endLive != nil {
		a.endLive()
	}
	err := a.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("requests were cut short: %w", err), a.server.Close())
	}
	a.engine.Stop(ctx)
	return errors.Join(err, a.close())
}

func (a *App) close() error {
	var err error
	for _, v := range slices.Backward(a.cleanup) {
		err = errors.Join(err, v())
	}
	a.cleanup = nil
	return err
}
