// Package receiver is the ready-made receiver of webhooks: an HTTP server that
// verifies each request, commits its event, answers 200, and processes it
// afterwards, with retries, backoff and dead letters. Package webhook has the
// handler and package inbox the memory; this package makes a running program of
// them, which watches itself, and writes down what it did while a cutover is
// under way.
//
// # What it promises
//
// What was answered with 200 is committed, and is reacted to at least once, one
// ticket in order. While the store, or the record of a cutover, cannot be
// written, it answers 503, and the sender comes again. A receiver that is killed
// goes on where it was.
//
// # Files
//
// The data directory has inbox.db, unless the inbox is on PostgreSQL;
// receiver.json, which says when the receiver was last alive; and receiver.lock,
// which one receiver at a time holds.
package receiver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/inbox"
	"github.com/ticketwire/ticketwire/internal/cutover"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/filelock"
	"github.com/ticketwire/ticketwire/webhook"
)

// DefaultPath is where webhooks are received unless Config says otherwise.
const DefaultPath = "/webhooks/alga"

// Event is what a reaction gets.
type Event struct {
	*webhook.Envelope
	Attempt int // which run of the reaction this is, from 1
	// Refetched says that the ticket was read from the API after the event came
	// in: Current is what it is now, nil for one that is gone.
	Refetched bool
	Current   *client.Ticket
}

// Reaction does what the integrator wants for an event. It runs at least once;
// an error or a panic repeats it after a pause. Its context ends with Config's
// Lease, and when a Stop has no more time.
type Reaction func(ctx context.Context, e *Event) error

// Config says what a Receiver does. It is not changed after New.
type Config struct {
	Listen          string       // host:port; port 0 picks one
	Listener        net.Listener // in place of Listen, for tests in a bubble of fake time
	Path            string       // "" means DefaultPath
	TLSCert, TLSKey string       // PEM files; both or none
	// AdminListen is the address of /healthz, /readyz and /metrics; "" means that
	// nobody can ask. They are never on the address that senders know.
	AdminListen string

	DataDir     string // made if missing
	DatabaseURL string // postgres://... keeps the inbox there; "" means SQLite in DataDir

	Secrets   func() []string // asked for each request
	Tickets   []string        // ids; empty for all
	Types     []string        // event types; empty for the six of the contract
	SkipStale bool            // events older than what was done of their ticket are done without a reaction
	MaxBody   int64           // bytes; larger requests are refused with 413. 0 means webhook.MaxBody

	React Reaction
	// Refetch reads the ticket of each event before React runs; nil means that the
	// payload will do. RefetchRate is how many requests per minute that may be at
	// most; 0 means 30, half of what a key usually may make.
	Refetch     *client.Client
	RefetchRate float64

	Workers  int                              // reactions at a time, each for another ticket; 0 means 4
	Lease    time.Duration                    // how long a reaction may take; 0 means a minute
	Attempts int                              // failures after which an event is a dead letter; 0 means 15
	Backoff  func(failures int) time.Duration // nil means inbox.DefaultBackoff

	// Record is where a cutover writes down what happens; nil without one. It stays
	// the caller's.
	Record     *cutover.Record
	SecretFrom string // for the record: file, environment, flag or config
	// Acts tells whether it is this side's turn for an event. If not, the event is
	// done without a reaction, since the poller acts on it. An error repeats the
	// question later, as one of React does. nil means that it always is.
	Acts func(*webhook.Envelope) (bool, error)
	// Refuse tells whether to answer 503 to an event that would have been kept, for
	// drills; nil for never.
	Refuse func(*webhook.Envelope) bool

	// Silence is how long no event may come before that is an alarm: 0 for never,
	// LearnSilence for as long as the traffic of before suggests.
	Silence time.Duration
	Watch   *Watch // nil: nobody asks the server
	// OnAlarm is called when an alarm begins and when it is over, one call at a
	// time. Alarms are logged in any case.
	OnAlarm func(context.Context, Alarm)

	Log *slog.Logger
	Now func() time.Time
}

// Watch says which webhook to look after at its server: one that was disabled
// calls nobody, so its receiver cannot notice by itself.
type Watch struct {
	API       *client.Client
	WebhookID string
	Every     time.Duration // 0 means 5 minutes
}

// Receiver receives webhooks. Use New, Start and Stop.
type Receiver struct {
	cfg     Config
	log     *slog.Logger
	lock    *filelock.Lock
	store   *Store
	handler *webhook.Handler
	journal *journal // nil without a record
	pulse   *pulse
	alarms  *alarms
	metrics *metrics
	refetch *rate.Limiter
	strange *rate.Limiter // receipts of requests that nobody signed
	probing sync.Mutex    // one probe for room at a time

	listener, admin net.Listener
	server, asked   *http.Server // asked is nil without admin
	served          chan error

	// quit ends what runs beside the server, abort what a Stop does not wait for.
	quit, abort       context.Context
	endQuit, endAbort context.CancelFunc
	tasks             sync.WaitGroup
	stop              sync.Once
	stopped           error
}

// New opens the store and binds the addresses, so that Addr is known and a port
// that is taken is an error here. On an error nothing is left open.
func New(ctx context.Context, cfg Config) (_ *Receiver, err error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	r := &Receiver{
		cfg: cfg, log: cfg.Log, served: make(chan error, 2),
		refetch: rate.NewLimiter(rate.Limit(cfg.RefetchRate/60), refetchBurst),
		strange: rate.NewLimiter(strangeRate, strangeBurst),
	}
	r.quit, r.endQuit = context.WithCancel(context.Background())
	r.abort, r.endAbort = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	r.lock, err = filelock.Acquire(filepath.Join(cfg.DataDir, "receiver.lock"))
	if errors.Is(err, filelock.ErrHeld) {
		return nil, fault.Wrap(fault.Conflict, err, "Another receiver works in %s", cfg.DataDir)
	}
	if err != nil {
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	if r.store, err = OpenStore(ctx, StoreConfig{Dir: cfg.DataDir, DatabaseURL: cfg.DatabaseURL, Log: cfg.Log, Now: cfg.Now}); err != nil {
		return nil, err
	}
	if cfg.Record != nil {
		r.journal = &journal{record: cfg.Record, now: cfg.Now}
	}
	r.pulse = readPulse(filepath.Join(cfg.DataDir, pulseName), cfg.Now())
	r.alarms = newAlarms(r)
	r.metrics = newMetrics(r)
	r.handler = webhook.NewInboxHandler(cfg.Secrets, r.keep, r.options()...)
	return r, r.bind()
}

// complete checks what is given and fills in the rest.
func (cfg *Config) complete() error {
	if cfg.Path == "" {
		cfg.Path = DefaultPath
	}
	if cfg.RefetchRate == 0 {
		cfg.RefetchRate = 30
	}
	if cfg.MaxBody == 0 {
		cfg.MaxBody = webhook.MaxBody
	}
	if cfg.Watch != nil && cfg.Watch.Every == 0 {
		w := *cfg.Watch
		w.Every = 5 * time.Minute
		cfg.Watch = &w
	}
	switch {
	case cfg.Secrets == nil || cfg.React == nil || cfg.Log == nil || cfg.Now == nil:
		return errors.New("the receiver needs Secrets, React, Log and Now")
	case cfg.DataDir == "":
		return errors.New("the receiver needs a data directory")
	case !strings.HasPrefix(cfg.Path, "/"):
		return fmt.Errorf("the path %q does not begin with /", cfg.Path)
	case (cfg.TLSCert == "") != (cfg.TLSKey == ""):
		return errors.New("the TLS certificate and its key belong together")
	case cfg.Silence < 0 && cfg.Silence != LearnSilence:
		return fmt.Errorf("the silence of %s is negative", cfg.Silence)
	case cfg.MaxBody < 0:
		return fmt.Errorf("the bound of %d bytes on bodies is negative", cfg.MaxBody)
	case cfg.RefetchRate < 0:
		return fmt.Errorf("the refetch rate of %g per minute is negative", cfg.RefetchRate)
	}
	return nil
}

// options are those of the webhook handler.
func (r *Receiver) options() []webhook.Option {
	opts := []webhook.Option{
		webhook.WithLogger(r.log), webhook.WithNow(r.cfg.Now), webhook.WithObserver(observe), webhook.WithMaxBody(r.cfg.MaxBody),
	}
	if len(r.cfg.Types) > 0 {
		opts = append(opts, webhook.WithEventTypes(r.cfg.Types...))
	}
	if len(r.cfg.Tickets) > 0 {
		opts = append(opts, webhook.WithTickets(r.cfg.Tickets...))
	}
	return opts
}

// bind listens. Who connects waits until Start.
func (r *Receiver) bind() error {
	var err error
	if r.listener = r.cfg.Listener; r.listener == nil {
		if r.listener, err = net.Listen("tcp", r.cfg.Listen); err != nil {
			return fmt.Errorf("listen on %s: %w", r.cfg.Listen, err)
		}
	}
	r.server = newServer(http.HandlerFunc(r.receive), r.log)
	if r.cfg.TLSCert != "" {
		cert, err := tls.LoadX509KeyPair(r.cfg.TLSCert, r.cfg.TLSKey)
		if err != nil {
			return fmt.Errorf("load the TLS certificate: %w", err)
		}
		r.server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	}
	if r.cfg.AdminListen == "" {
		return nil
	}
	if r.admin, err = net.Listen("tcp", r.cfg.AdminListen); err != nil {
		return fmt.Errorf("listen on %s for /readyz and /metrics: %w", r.cfg.AdminListen, err)
	}
	r.asked = newServer(r.adminHandler(prometheus.NewRegistry()), r.log)
	return nil
}

// newServer bounds what a slow or hostile client can hold. A proxy may speak
// HTTP/2 without TLS.
func newServer(h http.Handler, log *slog.Logger) *http.Server {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		Protocols:         new(http.Protocols),
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	return s
}

// Addr is the address that is listened on.
func (r *Receiver) Addr() string { return r.listener.Addr().String() }

// URL is where to send webhooks to, as seen from this machine.
func (r *Receiver) URL() string {
	scheme := "http"
	if r.cfg.TLSCert != "" {
		scheme = "https"
	}
	return scheme + "://" + r.Addr() + r.cfg.Path
}

// AdminURL is the base of /healthz, /readyz and /metrics; "" without them.
func (r *Receiver) AdminURL() string {
	if r.admin == nil {
		return ""
	}
	return "http://" + r.admin.Addr().String()
}

// Store is the inbox, for those who look after dead letters in this process.
func (r *Receiver) Store() *Store { return r.store }

// Start writes into the record that the receiver is here, and since when it was
// not, and returns when requests are accepted. ctx bounds the starting only.
func (r *Receiver) Start(ctx context.Context) error {
	if err := r.store.Probe(ctx); err != nil {
		return err
	}
	if err := r.begin(); err != nil {
		return err
	}
	go func() { r.served <- r.serve(r.server, r.listener) }()
	if r.asked != nil {
		go func() { r.served <- r.serve(r.asked, r.admin) }()
	}
	r.tasks.Go(func() { r.store.Work(r.quit, r.react, r.work()) })
	r.tasks.Go(r.beat)
	r.tasks.Go(r.alarms.watch)
	r.tasks.Go(r.alarms.tell)
	return nil
}

func (r *Receiver) serve(s *http.Server, l net.Listener) error {
	if s.TLSConfig != nil {
		return s.ServeTLS(l, "", "")
	}
	return s.Serve(l)
}

// work says how the worker works.
func (r *Receiver) work() inbox.Work {
	return inbox.Work{
		Concurrency: r.cfg.Workers, Lease: r.cfg.Lease, Attempts: r.cfg.Attempts, Backoff: r.cfg.Backoff,
		SkipStale: r.cfg.SkipStale, Observe: r.metrics.reacted,
	}
}

// Wait returns when a server has ended by itself, which is an error, or when ctx
// ends.
func (r *Receiver) Wait(ctx context.Context) error {
	select {
	case err := <-r.served:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
		return nil
	}
}

// Stop accepts nothing more, lets requests and reactions that run finish until
// ctx ends, and then breaks them off: a reaction that was broken off has failed
// once and runs again after the next start, as does everything that was
// acknowledged. It may be called several times, and without Start.
func (r *Receiver) Stop(ctx context.Context) error {
	r.stop.Do(func() {
		defer context.AfterFunc(ctx, r.endAbort)()
		r.endQuit()
		err := r.server.Shutdown(ctx)
		if err != nil {
			err = errors.Join(fmt.Errorf("requests were cut short: %w", err), r.server.Close())
		}
		if r.asked != nil {
			err = errors.Join(err, r.asked.Close())
		}
		r.tasks.Wait()
		r.stopped = errors.Join(err, r.pulse.save(r.cfg.Now()), r.close())
	})
	return r.stopped
}

// close gives back what New has opened.
func (r *Receiver) close() error {
	var err error
	for _, l := range []net.Listener{r.listener, r.admin} {
		if l == nil {
			continue
		}
		if cerr := l.Close(); !errors.Is(cerr, net.ErrClosed) { // the server closes it too
			err = errors.Join(err, cerr)
		}
	}
	r.endQuit()
	r.endAbort()
	if r.store != nil {
		err = errors.Join(err, r.store.Close())
	}
	if r.lock != nil {
		err = errors.Join(err, r.lock.Release())
	}
	return err
}
