// Package alga is a stand-in for AlgaPSA in tests: a desk in memory with the
// ticket API that integrators use, and the sender of its webhooks, with the flaws
// that AlgaPSA's published source has. It exists because the real one cannot be
// started here, and because our receiver, client and poller promise to work with
// it as it is and not as its guide says it should be.
//
// What it does is taken from the contract of this project, an account in our own
// words of AlgaPSA's guide, public documentation and source; the section is named
// beside each behaviour (W5 and so on are rows of its section 6). It shares no
// code with what it tests: it has an envelope, a signature and answers of its own.
// A zero Config behaves as published; each flaw has a switch.
//
// Left out, because no receiver, client or poller of ours meets it: the check of
// target addresses (4.12; as with WEBHOOK_SSRF_ALLOW_PRIVATE=true), payload_fields
// and event_filter (4.5, 4.6), rotation, agents, teams, search, projects, jobs
// that a crash of the sender loses (W1), and events published before the commit
// of their change (W3).
package alga

import (
	"context"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// Key is the API key that the server takes.
const Key = "alga_0123456789abcdef"

// TenantID is the one tenant.
const TenantID = "7c1d2f0a-5b64-4e0e-9a3b-2f6d8c41e7b5"

// Config says what differs from AlgaPSA as published. It is not changed after
// Start; its functions are called from many goroutines.
type Config struct {
	Now       func() time.Time  // nil means time.Now, which is the bubble's inside one
	Listener  net.Listener      // of the API; nil means 127.0.0.1:0. Fake time needs one without sockets
	Transport http.RoundTripper // of the sender; nil means one of its own
	// Compress divides the sender's times, so that a day passes in seconds of real
	// time: its poll, its schedule, its cache and the 24 hours. 0 means 1.
	Compress float64
	Seed     uint64 // of what has no order: rows with equal times, deliveries of one moment

	FreshPayloads bool // no cache of rows (W5)
	InOrder       bool // one delivery after the other, the oldest first (4.13)
	NoThread      bool // no comments on payloads (D9)
	NoRedirects   bool // a redirect is a failure (4.8)
	LimitWaits    bool // a delivery over the limit waits and loses no attempt (4.10, W2)
	// SharedIDs gives all events of one change one id. The published source has an
	// id for each (4.13); receivers that deduplicate on it alone would notice.
	SharedIDs bool

	Webhooks    WebhookAPI // what the routes of webhooks do
	Enforce     bool       // RATE_LIMIT_ENFORCE=true; as published it is false (1.6)
	LimiterDown bool       // the store of the limiter is away: fail open, -1 remaining (1.6)

	// Fate is asked about each event that goes to a webhook; nil means that
	// nothing special happens.
	Fate func(Event) Fate
	// Fault is asked about each API request; a status other than 0 is answered in
	// place of the desk. nil means never.
	Fault func(*http.Request) Fault
}

// WebhookAPI is the state of the routes under /webhooks (3.1).
type WebhookAPI int

// The states.
const (
	Forbidden  WebhookAPI = iota // as published: nobody has the permission
	Broken                       // with the permission added by hand
	Documented                   // as the guide and the site say
)

// Event is an event on its way to a webhook.
type Event struct {
	N          int // of all events of the desk, from 1
	ID         string
	Type       string
	TicketID   string
	OccurredAt time.Time // when it was published, in milliseconds (4.3)
}

// Fate is what a test does to an event. The zero Fate is to be sent once.
type Fate struct {
	Lose   bool          // it is never sent (W3, W4)
	Copies int           // it is sent so many times more, as after a retry by hand (W20)
	Hold   time.Duration // it is not sent before, in the sender's time
}

// Fault is an answer in place of the desk's.
type Fault struct {
	Status     int // 429 has the API's body, anything else that of a proxy
	RetryAfter int // seconds; 0 for no header
}

// Server is a running stand-in. Its methods are safe for concurrent use.
type Server struct {
	URL string // base URL of the API, without /api/v1

	cfg    Config
	server *http.Server
	sender *http.Client
	stop   context.CancelFunc
	tasks  sync.WaitGroup

	mu       sync.Mutex // guards what follows
	random   *rand.Rand
	numbers  int // the last ticket number
	tickets  map[string]*ticket
	cache    map[string]cached
	events   []Event
	webhooks []*hook
	queue    []job
	slots    int // deliveries in flight
	made     int // jobs, for the order of those that are due together
	sent     []Delivery
	tokens   bucket // of the API key
}

// Start starts the desk and its sender, which end with the test.
func Start(t testing.TB, cfg Config) *Server {
	t.Helper()
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Compress == 0 {
		cfg.Compress = 1
	}
	if cfg.Listener == nil {
		var err error
		if cfg.Listener, err = new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	own := http.DefaultTransport.(*http.Transport).Clone()
	if cfg.Transport == nil {
		cfg.Transport = own
	}
	s := &Server{
		URL: "http://" + cfg.Listener.Addr().String(), cfg: cfg,
		random: rand.New(rand.NewPCG(cfg.Seed, 1)), numbers: 999, // the first is TIC1000 (2.1)
		tickets: map[string]*ticket{}, cache: map[string]cached{}, tokens: bucket{size: 120, perMinute: 60},
	}
	s.sender = &http.Client{Transport: cfg.Transport, Timeout: attemptTimeout, CheckRedirect: s.redirect}
	s.server = &http.Server{Handler: s.routes(), ReadHeaderTimeout: time.Minute}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	s.tasks.Go(func() { _ = s.server.Serve(cfg.Listener) }) // it ends with Close
	s.tasks.Go(func() { s.work(ctx) })
	t.Cleanup(func() {
		s.stop()
		if err := s.server.Close(); err != nil {
			t.Error(err)
		}
		s.tasks.Wait()
		s.sender.CloseIdleConnections()
	})
	return s
}

// scaled is a time of the sender's as long as it really takes.
func (s *Server) scaled(d time.Duration) time.Duration {
	return max(time.Duration(float64(d)/s.cfg.Compress), time.Millisecond)
}

// bucket is a token bucket. It is written once here for both sides (1.6, 4.10).
type bucket struct {
	size, perMinute float64
	spent           float64
	at              time.Time
}

// take spends a token and returns 0, or how long it is until the next one.
func (b *bucket) take(now time.Time) time.Duration {
	perSecond := b.perMinute / 60
	if !b.at.IsZero() {
		b.spent = max(0, b.spent-now.Sub(b.at).Seconds()*perSecond)
	}
	b.at = now
	if left := b.size - b.spent; left < 1 {
		return max(time.Duration((1-left)/perSecond*float64(time.Second)), time.Millisecond)
	}
	b.spent++
	return 0
}

// left is how many whole tokens there are.
func (b *bucket) left() int { return int(b.size - b.spent) }
