// Package egress makes one guarded HTTP request to a receiver: the answer is
// data, never an error.
//
// It hides what makes calling a stranger's URL dangerous: the address that is
// dialled is the one that is checked, redirects are not followed, no proxy is
// taken from the environment, and headers, body and time are bounded. It also
// hides the connection pools and the classification of failures (contract
// sections 4.1, 4.8 and 4.12, P2 to P5).
//
// It leaves to others what the request says (signature, headers, body), when it
// is sent, and what follows from the answer: that is internal/delivery and
// internal/dispatch.
package egress

import (
	"context"
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
)

const (
	// DefaultTimeout is the limit of one exchange whose Request sets none
	// (contract section 4.8).
	DefaultTimeout = 10 * time.Second

	// defaultIdlePerHost lets a busy receiver keep as many connections as a
	// dispatcher has in flight to it.
	defaultIdlePerHost = 128

	// maxIdle bounds the sockets kept for receivers that are quiet now.
	maxIdle = 1024

	// idleTimeout is below the keep-alive limit of common servers (Node.js and
	// Apache close after 5 s). So we are the side that closes, and a request does
	// not meet a connection that is just being closed.
	idleTimeout = 4 * time.Second

	// maxHeaderBytes bounds the head of an answer, 1xx heads included.
	maxHeaderBytes = 64 << 10

	// maxBodyBytes is how much of an answer's body is read, so that connections
	// of receivers that answer with a page are kept, and no longer body is waited
	// for.
	maxBodyBytes = 64 << 10

	// keptBodyBytes is how much of it is held in memory. That is enough for
	// delivery.MaxStoredBody UTF-16 units of any text: a unit is at most three
	// bytes of UTF-8.
	keptBodyBytes = 3 * delivery.MaxStoredBody

	// writeBuffer holds the head and body of a usual request, so that both leave
	// in one write.
	writeBuffer = 8 << 10
)

// Config is what an operator decides about outgoing requests. The zero value
// works and opens no private network.
type Config struct {
	AllowTargets []netip.Prefix // private networks the operator opened (--allow-targets)
	UserAgent    string         // default "Ticketwire"

	// OwnAddrs are what this program listens on. They are never dialled, not even
	// inside AllowTargets: a webhook to ourselves could make the change that it
	// reports, for ever. One without an address (0.0.0.0, ::) stands for every
	// address of this machine.
	OwnAddrs []netip.AddrPort

	HTTPSOnly         bool // refuse http URLs (--https-only)
	RefuseInsecureTLS bool // refuse verify_ssl=false (--no-allow-insecure-tls)

	// Proxy carries every request, http and https alike, in a tunnel to an address
	// that was looked up and checked here (--egress-proxy). nil: receivers are
	// called directly; the environment is not asked.
	Proxy *Proxy

	// Bind is the source address of connections, to receivers or to the proxy
	// (--egress-bind). Receivers without an address of its family cannot be called
	// directly. Invalid: the kernel chooses.
	Bind netip.Addr

	// MaxConnsPerHost is 0 for no limit. A request that waits for a connection
	// spends its own timeout, so whoever calls Do should bound its concurrency
	// instead.
	MaxConnsPerHost int
	MaxIdlePerHost  int // 0: 128

	// DialContext replaces the guarded dialer, and with it the address check.
	// It is for tests that bring net.Pipe; leave it nil elsewhere.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)

	Resolver *net.Resolver  // nil: the system's
	RootCAs  *x509.CertPool // nil: the system's
}

// Request is one request to one receiver.
type Request struct {
	Method string // POST, PUT or PATCH
	URL    string

	// Header is written with its keys spelled as they are. A key that repeats
	// another one in a different case is dropped; the contract's spelling
	// (X-Alga-Signature, content-type) stays. Keys that belong to the transport
	// (Host, Content-Length, Connection, ...) are dropped too.
	Header    http.Header
	Body      []byte        // not changed, but kept until Do returns
	VerifySSL bool          // false: any certificate will do
	TLS       *delivery.TLS // client certificate and authorities of this webhook; nil: none
	Timeout   time.Duration // for the whole exchange, body included; 0: DefaultTimeout
}

// Client sends requests. It is safe for concurrent use.
type Client struct {
	guard        *guard
	pools        *pools
	verifyAlways bool // verify_ssl=false is refused
	userAgent    string
	stop         context.CancelFunc // ends dials that no request waits for any more
}

// New makes a client. Close it to release its connections.
func New(cfg Config) *Client {
	closing, stop := context.WithCancel(context.Background())
	c := &Client{guard: newGuard(cfg), stop: stop, verifyAlways: cfg.RefuseInsecureTLS, userAgent: cfg.UserAgent}
	connect := cfg.DialContext
	if connect == nil {
		connect = newGuardedDialer(c.guard, cfg).dial
	}
	if c.userAgent == "" {
		c.userAgent = "Ticketwire"
	}
	c.pools = newPools(closing, cfg, connect)
	return c
}

// Close drops idle connections and ends dials under way. Requests that are
// being sent run on; cancel their contexts to end them.
func (c *Client) Close() {
	c.stop()
	c.pools.closeIdle()
}

// Do sends r and reports what came of it. It returns at the latest when
// r.Timeout has passed or ctx ends; in the second case the Answer is marked
// Interrupted. A success is a 2xx whose body arrived in full or up to the 64 KiB
// that are read; a body that trickles beyond the timeout is a failure of class
// timeout, with the status code kept.
//
// A request is written to the network at most once. Go's transport would repeat
// one that failed on a reused connection; it cannot here, because the body
// cannot be rewound. So a connection that the receiver closes just as we write
// to it costs a failed attempt of class connect, and the schedule repeats it.
func (c *Client) Do(ctx context.Context, r Request) delivery.Answer {
	start := time.Now()
	x := &exchange{parent: ctx, limit: r.Timeout}
	if x.limit <= 0 {
		x.limit = DefaultTimeout
	}
	a := x.run(c, r)
	a.Duration = time.Since(start)
	return a
}
