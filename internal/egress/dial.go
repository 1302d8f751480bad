package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
)

const (
	// lookupLimit bounds a DNS lookup, so that a dead resolver is reported as
	// what it is before the exchange runs out of time.
	lookupLimit = 5 * time.Second

	// dialLimit is a leash for dials that outlive their request: the transport
	// lets them go on, because another request may want the connection. It is
	// the longest timeout a webhook can have (contract section 3.3).
	dialLimit = 30 * time.Second

	// nextAddress is how long one address may be silent before the next one is
	// tried beside it (RFC 8305 section 5).
	nextAddress = 250 * time.Millisecond

	// maxAddresses bounds how many addresses of one name are tried.
	maxAddresses = 16
)

// errRefused is the answer of the socket-level check.
var errRefused = errors.New("the address is not a permitted target")

// dialError says in which step a dial failed. The cause is kept for its type;
// its text may hold addresses and is not shown.
type dialError struct {
	class delivery.ErrorType
	cause error
}

func (e *dialError) Error() string { return string(e.class) + ": " + e.cause.Error() }
func (e *dialError) Unwrap() error { return e.cause }

type connectFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// dialer makes the connections of one transport. It does the TLS handshake
// itself, so that its failures are told apart from those of the connection.
type dialer struct {
	connect connectFunc
	closing context.Context // ends when the Client is closed
	tls     *tls.Config
}

func (d *dialer) plain(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	defer context.AfterFunc(d.closing, cancel)()
	return d.raw(ctx, network, addr)
}

func (d *dialer) secure(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	defer context.AfterFunc(d.closing, cancel)()
	raw, err := d.raw(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		raw.Close()
		return nil, &dialError{delivery.ErrTLS, err}
	}
	cfg := d.tls.Clone()
	cfg.ServerName = strings.TrimSuffix(host, ".")
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, &dialError{delivery.ErrTLS, err}
	}
	return conn, nil
}

func (d *dialer) raw(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := d.connect(ctx, network, addr)
	if err == nil {
		return conn, nil
	}
	if _, ok := errors.AsType[*dialError](err); ok {
		return nil, err
	}
	return nil, &dialError{delivery.ErrConnect, err}
}

// errNoSource: a socket with a source address reaches its own family only.
var errNoSource = errors.New("it has no address of the family of the server's --egress-bind")

// guardedDialer resolves a name and connects to the first of its addresses that
// is permitted and answers.
type guardedDialer struct {
	guard    *guard
	resolver *net.Resolver
	bind     netip.Addr // source address; invalid: any
	net      net.Dialer
	proxy    *proxyDialer // nil: receivers are dialled
}

func newGuardedDialer(g *guard, cfg Config) *guardedDialer {
	d := &guardedDialer{guard: g, resolver: cfg.Resolver, bind: cfg.Bind}
	if d.resolver == nil {
		d.resolver = net.DefaultResolver
	}
	unguarded := net.Dialer{Resolver: d.resolver}
	if d.bind.IsValid() {
		unguarded.LocalAddr = sourceOf(d.bind)
	}
	if cfg.Proxy != nil {
		d.proxy = newProxyDialer(cfg, &unguarded)
		d.bind = netip.Addr{} // is ours, and the proxy's families are its own
	}
	d.net = unguarded
	// This check counts: it sees the address the kernel is about to connect to,
	// whatever the name resolved to a moment ago.
	d.net.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil || !g.allows(ap) {
			return errRefused
		}
		return nil
	}
	return d
}

func (d *guardedDialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, &dialError{delivery.ErrConnect, err}
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, &dialError{delivery.ErrConnect, err}
	}
	addrs, err := d.lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	permitted, targets := false, make([]netip.AddrPort, 0, maxAddresses)
	for _, a := range addrs {
		ap := netip.AddrPortFrom(a.Unmap(), uint16(port))
		if !d.guard.allows(ap) {
			continue
		}
		permitted = true
		if d.suits(ap) && len(targets) < maxAddresses {
			targets = append(targets, ap)
		}
	}
	// Of a name with public and private addresses only the public ones are
	// dialled. With none left it is refused without touching the network, so
	// open and closed private ports look and take the same.
	switch {
	case !permitted:
		return nil, &dialError{delivery.ErrSSRF, errRefused}
	case len(targets) == 0:
		return nil, &dialError{delivery.ErrConnect, errNoSource}
	}
	return d.race(ctx, network, targets)
}

// suits reports whether a socket with our source address can reach ap.
func (d *guardedDialer) suits(ap netip.AddrPort) bool {
	return !d.bind.IsValid() || d.bind.Is4() == ap.Addr().Is4()
}

// connect makes a connection to one address.
func (d *guardedDialer) connect(ctx context.Context, network string, target netip.AddrPort) (net.Conn, error) {
	if d.proxy != nil {
		return d.proxy.tunnel(ctx, target)
	}
	return d.net.DialContext(ctx, network, target.String())
}

// lookup returns the addresses of host, at least one.
func (d *guardedDialer) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if literal, ok := parseHost(host); ok && literal.IsValid() {
		return []netip.Addr{literal}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupLimit)
	defer cancel()
	addrs, err := d.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, &dialError{delivery.ErrDNS, err}
	}
	return addrs, nil
}

type dialed struct {
	n    int // of the target
	conn net.Conn
	err  error
}

// race dials the targets in order, the next one when the last failed or was
// silent for a while, and returns the first connection. A failure that the others
// would share ends it, but for those that began before: they are further.
func (d *guardedDialer) race(ctx context.Context, network string, targets []netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the losers
	results := make(chan dialed, len(targets))
	start := func(n int) {
		conn, err := d.connect(ctx, network, targets[n])
		results <- dialed{n, conn, err}
	}
	timer := time.NewTimer(nextAddress)
	defer timer.Stop()

	go start(0)
	var first error
	next, open := 1, 1
	over, limit := make([]bool, len(targets)), len(targets) // what has failed, and before which one it may go on
	for slices.Contains(over[:min(next, limit)], false) {
		var silent <-chan time.Time
		if next < limit {
			silent = timer.C
		}
		select {
		case r := <-results:
			open--
			if r.err == nil {
				go closeLosers(results, open)
				return r.conn, nil
			}
			over[r.n] = true
			if first == nil {
				first = r.err
			}
			if isFinal(r.err) && r.n < limit {
				first, limit = r.err, r.n
			}
		case <-silent:
		}
		if next < limit && ctx.Err() == nil {
			go start(next)
			next, open = next+1, open+1
			timer.Reset(nextAddress)
		}
	}
	go closeLosers(results, open)
	if errors.Is(first, errRefused) {
		return nil, &dialError{delivery.ErrSSRF, first}
	}
	return nil, &dialError{delivery.ErrConnect, first}
}

// closeLosers ends the connections that came too late. Their dials were
// cancelled, so it does not wait long.
func closeLosers(results <-chan dialed, open int) {
	for range open {
		if r := <-results; r.conn != nil {
			r.conn.Close()
		}
	}
}
