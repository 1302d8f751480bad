package egress

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// proxyLimit bounds how long the way to the proxy may take, its TLS included,
	// so that a dead proxy is reported as what it is before the exchange runs out
	// of time. What comes after that is the receiver's time too.
	proxyLimit = 5 * time.Second

	// maxProxyHead bounds what a proxy may say before the tunnel stands.
	maxProxyHead = 16 << 10
)

// Proxy is an HTTP proxy through which all requests leave, made by ParseProxy. It
// holds a password, so it is not for printing.
type Proxy struct {
	addr   string // host:port
	host   string // the name in its certificate
	secure bool   // TLS to the proxy itself
	auth   string // the line of the head that holds the credentials, or ""
}

// ParseProxy reads a setting such as --egress-proxy: http://HOST:PORT or
// https://USER:PASSWORD@HOST:PORT, the port by default 80 or 443. The error never
// quotes the setting, since it may hold a password; whoever calls names it.
func ParseProxy(raw string) (*Proxy, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("is not a valid URL; want http://HOST:PORT, and write odd characters of a password as %XX")
	}
	port, ok := portOf(u)
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("must be an http or https URL such as http://proxy.example.com:3128")
	case u.Hostname() == "":
		return nil, errors.New("has no host; want http://HOST:PORT")
	case !ok:
		return nil, errors.New("must have a port between 1 and 65535")
	case strings.TrimSuffix(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("must end after the port; a proxy has no path")
	}
	p := &Proxy{
		addr: net.JoinHostPort(u.Hostname(), strconv.Itoa(int(port))),
		host: strings.TrimSuffix(u.Hostname(), "."), secure: u.Scheme == "https",
	}
	if u.User == nil {
		return p, nil
	}
	user := u.User.Username()
	password, _ := u.User.Password()
	switch {
	case user == "" || password == "":
		return nil, errors.New("has a user without a password or the other way round; they belong together")
	case strings.Contains(user, ":"):
		return nil, errors.New("has a user with a colon, which no proxy can tell from the password")
	}
	p.auth = "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password)) + "\r\n"
	return p, nil
}

// ParseBind reads a setting such as --egress-bind: an address of this machine. That
// it is one is found out by a connection from it to itself: a socket can be bound to
// the address of a group or a network too. Whoever calls names the setting.
func ParseBind(raw string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(raw)
	if err != nil || addr.IsUnspecified() || addr.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%q is not an IP address of this machine, such as 192.0.2.10", raw)
	}
	addr = addr.Unmap()
	l, err := net.ListenTCP("tcp", sourceOf(addr))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%s is not an address of this machine: %s", addr, cause(err))
	}
	defer l.Close() //nolint:errcheck // nothing was written

	conn, err := net.DialTCP("tcp", sourceOf(addr), l.Addr().(*net.TCPAddr)) //nolint:forcetypeassert // of a TCP listener
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%s is not an address of this machine: %s", addr, cause(err))
	}
	return addr, conn.Close()
}

// sourceOf is addr with any port.
func sourceOf(addr netip.Addr) *net.TCPAddr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, 0))
}

// proxyError is why there is no tunnel, in words that name neither the proxy nor what
// it said: the owner of a webhook reads them, and what it said may hold our password.
type proxyError struct {
	msg   string
	final bool // another address of the receiver would fare no better
}

func (e *proxyError) Error() string { return e.msg }

// isFinal reports whether it is the proxy that fails, and not the way from it to a
// receiver.
func isFinal(err error) bool {
	e, ok := errors.AsType[*proxyError](err)
	return ok && e.final
}

// proxyDialer makes connections to receivers through the proxy.
type proxyDialer struct {
	*Proxy
	tls  *tls.Config
	dial connectFunc // without the guard: the operator chose the proxy
}

func newProxyDialer(cfg Config, d *net.Dialer) *proxyDialer {
	p := &proxyDialer{Proxy: cfg.Proxy, tls: verifyingTLS(cfg.RootCAs), dial: d.DialContext}
	p.tls.ServerName = p.host
	p.tls.NextProtos = []string{"http/1.1"}
	return p
}

// tunnel asks the proxy for a connection to target, which the guard has permitted. It
// is asked for the address and not for the name: a proxy that looks the name up would
// choose an address that nobody has checked.
func (p *proxyDialer) tunnel(ctx context.Context, target netip.AddrPort) (net.Conn, error) {
	conn, err := p.reach(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	through, err := p.ask(conn, target)
	if !stop() { // it was closed, whatever had come by then
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return through, nil
}

// reach connects to the proxy itself.
func (p *proxyDialer) reach(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, proxyLimit)
	defer cancel()
	conn, err := p.dial(ctx, "tcp", p.addr)
	if err != nil {
		return nil, unreachable(err, "no connection")
	}
	if !p.secure {
		return conn, nil
	}
	secured := tls.Client(conn, p.tls)
	if err := secured.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, unreachable(err, "TLS with it failed")
	}
	return secured, nil
}

// unreachable says of the cause what an owner of a webhook may know; where the cause
// has names or texts in it, that is why.
func unreachable(err error, why string) error {
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		why = "its name cannot be looked up"
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		why = errno.Error()
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		why = fmt.Sprintf("no answer within %s", proxyLimit)
	}
	return &proxyError{msg: "the egress proxy cannot be reached: " + why, final: true}
}

// ask sends CONNECT and reads the answer (RFC 9110 section 9.3.6).
func (p *proxyDialer) ask(conn net.Conn, target netip.AddrPort) (net.Conn, error) {
	to := target.String()
	if _, err := io.WriteString(conn, "CONNECT "+to+" HTTP/1.1\r\nHost: "+to+"\r\n"+p.auth+"\r\n"); err != nil {
		return nil, &proxyError{msg: "the egress proxy closed the connection"}
	}
	bounded := &io.LimitedReader{R: conn, N: maxProxyHead}
	head := bufio.NewReader(bounded)
	for {
		resp, err := http.ReadResponse(head, &http.Request{Method: http.MethodConnect}) //nolint:bodyclose // the body is the tunnel
		switch {
		case err != nil && bounded.N <= 0:
			return nil, &proxyError{msg: fmt.Sprintf("the egress proxy answered CONNECT with a head of more than %d bytes", maxProxyHead)}
		case err != nil && broken(err):
			return nil, &proxyError{msg: "the egress proxy closed the connection"}
		case err != nil:
			return nil, &proxyError{msg: "the answer of the egress proxy to CONNECT is not valid HTTP"}
		case resp.StatusCode/100 == 2:
			return newTunnel(conn, head, target), nil
		case resp.StatusCode/100 != 1 || resp.StatusCode == http.StatusSwitchingProtocols:
			return nil, &proxyError{
				msg:   fmt.Sprintf("the egress proxy answered CONNECT with status %d", resp.StatusCode),
				final: resp.StatusCode == http.StatusProxyAuthRequired,
			}
		}
	}
}

// tunnel is a connection to a receiver through the proxy.
type tunnel struct {
	net.Conn
	rest io.Reader
	to   net.Addr
}

// newTunnel begins with what head has read beyond the head.
func newTunnel(conn net.Conn, head *bufio.Reader, target netip.AddrPort) *tunnel {
	t := &tunnel{Conn: conn, rest: conn, to: net.TCPAddrFromAddrPort(target)}
	if early, _ := head.Peek(head.Buffered()); len(early) > 0 {
		t.rest = io.MultiReader(bytes.NewReader(bytes.Clone(early)), conn)
	}
	return t
}

func (t *tunnel) Read(b []byte) (int, error) { return t.rest.Read(b) }

// RemoteAddr is the receiver's: it is what the log of deliveries shows.
func (t *tunnel) RemoteAddr() net.Addr { return t.to }
