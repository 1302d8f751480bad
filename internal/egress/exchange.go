package egress

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/ticketwire/ticketwire/internal/delivery"
)

// errLimit is the cause of a context that ended because the exchange took too
// long, as opposed to one that our caller ended.
var errLimit = errors.New("the exchange ran over its time limit")

// jamGrace is how long an exchange whose time is over may take to return.
const jamGrace = time.Second

// phase is how far an exchange came. It names the place where time ran out.
type phase int32

const (
	connecting phase = iota
	sending
	waiting
	reading
)

func (p phase) String() string {
	return [...]string{"connecting", "sending the request", "waiting for the answer", "reading the answer"}[p]
}

// exchange is the state of one Do. The transport's goroutines write phase,
// remote and conn through the trace; run reads them.
type exchange struct {
	parent context.Context
	limit  time.Duration
	host   string // host and port as in the URL, for messages
	phase  atomic.Int32
	remote atomic.Pointer[netip.AddrPort]
	conn   atomic.Pointer[net.Conn]
	first  atomic.Bool // the first byte of an answer arrived
}

func (x *exchange) run(c *Client, r Request) delivery.Answer {
	ctx, cancel := context.WithTimeoutCause(x.parent, x.limit, errLimit)
	defer cancel()

	u, bad := c.guard.target(r.URL)
	if bad != nil {
		a := delivery.Answer{Err: delivery.ErrUnknown, Message: bad.msg}
		if bad.refused {
			a.Err = delivery.ErrSSRF
		}
		return a
	}
	x.host = u.Host
	// The URL comes after: it need not be put into words and be parsed again.
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, x.trace()), r.Method, "/", nil)
	if err != nil {
		return delivery.Answer{Err: delivery.ErrUnknown, Message: "the request cannot be built: method " + fmt.Sprintf("%.20q", r.Method)}
	}
	req.URL, req.Host = u, u.Host
	// A bytes.Reader lets head and body leave in one write. GetBody stays nil,
	// see Do.
	req.Body = io.NopCloser(bytes.NewReader(r.Body))
	req.ContentLength = int64(len(r.Body))
	if len(r.Body) == 0 {
		req.Body = http.NoBody
	}
	req.Header = outgoing(r.Header, c.userAgent)

	transport, refusal := c.transport(r, u.Scheme)
	if refusal != "" {
		return delivery.Answer{Err: delivery.ErrTLS, Message: fmt.Sprintf("TLS with %s: %s", x.host, refusal)}
	}
	// RoundTrip, not http.Client: that one follows redirects and knows cookies.
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return x.failed(ctx, delivery.Answer{}, err)
	}
	if resp.ProtoMajor == 2 {
		defer x.leash(ctx)()
	}
	defer resp.Body.Close()
	return x.receive(ctx, resp)
}

// leash keeps Do's promise on an HTTP/2 connection that a receiver jams: one
// that sends, but takes nothing in, blocks our answers to its frames, and with
// them the reading and closing of a body, whatever the context says. The
// connection may carry other requests; they are stuck in it too.
func (x *exchange) leash(ctx context.Context) (release func()) {
	released := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-released:
		case <-time.After(jamGrace):
			if conn := x.conn.Load(); conn != nil {
				(*conn).Close()
			}
		}
	})
	return func() {
		close(released)
		stop()
	}
}

// receive turns a response into an answer. Closing the body before its end
// drops the connection, so a receiver cannot make us read on.
func (x *exchange) receive(ctx context.Context, resp *http.Response) delivery.Answer {
	x.phase.Store(int32(reading))
	a := delivery.Answer{
		StatusCode: resp.StatusCode,
		Headers:    storedHeaders(resp.Header),
		RetryAfter: resp.Header.Values("Retry-After"),
		RemoteAddr: x.remoteAddr(),
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		// The "body" of a 101 is the raw connection and never ends.
		return x.judged(a)
	}
	raw, err := readBody(resp.Body)
	a.Body = storedText(string(raw), delivery.MaxStoredBody)
	if err != nil {
		return x.failed(ctx, a, err)
	}
	return x.judged(a)
}

// readBody reads up to maxBodyBytes and returns the first keptBodyBytes of them.
// err is nil at the end of the body and where it is cut.
func readBody(body io.Reader) (kept []byte, err error) {
	if body == http.NoBody {
		return nil, nil
	}
	kept, err = io.ReadAll(io.LimitReader(body, keptBodyBytes))
	if err == nil && len(kept) == keptBodyBytes {
		_, err = io.Copy(io.Discard, io.LimitReader(body, maxBodyBytes-keptBodyBytes))
	}
	return kept, err
}

// judged sets the outcome of an exchange that went through (contract section
// 4.8 and P4).
func (x *exchange) judged(a delivery.Answer) delivery.Answer {
	switch {
	case a.StatusCode >= 200 && a.StatusCode <= 299:
	case a.StatusCode >= 300 && a.StatusCode <= 399:
		a.Err = delivery.ErrStatus
		a.Message = fmt.Sprintf("%s answered with status %d; redirects are not followed", x.host, a.StatusCode)
	default:
		a.Err = delivery.ErrStatus
		a.Message = fmt.Sprintf("%s answered with status %d", x.host, a.StatusCode)
	}
	return a
}

// trace follows the exchange through the transport.
func (x *exchange) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			if addr, ok := info.Conn.RemoteAddr().(*net.TCPAddr); ok {
				ap := addr.AddrPort()
				ap = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
				x.remote.Store(&ap)
			}
			x.conn.Store(&info.Conn)
			x.phase.Store(int32(sending))
		},
		WroteRequest: func(info httptrace.WroteRequestInfo) {
			if info.Err == nil {
				x.phase.CompareAndSwap(int32(sending), int32(waiting))
			}
		},
		GotFirstResponseByte: func() { x.first.Store(true) },
	}
}

func (x *exchange) remoteAddr() netip.AddrPort {
	if ap := x.remote.Load(); ap != nil {
		return *ap
	}
	return netip.AddrPort{}
}

// storedHeaders keeps all headers (contract section 4.8), names in lower case
// as AlgaPSA's client reports them, repeated ones joined as RFC 9110 section 5.3
// allows.
func storedHeaders(h http.Header) map[string]string {
	out := make(map[string]string, len(h))
	for name, values := range h {
		out[strings.ToLower(name)] = storedText(strings.Join(values, ", "), maxHeaderBytes)
	}
	return out
}

// storedText makes text of a receiver's bytes that any store and any JSON
// parser takes: valid UTF-8, no NUL, at most limit UTF-16 units, no half pair.
func storedText(raw string, limit int) string {
	n, clean := 0, true
	for units := 0; n < len(raw); {
		r, size := utf8.DecodeRuneInString(raw[n:])
		units++
		if r > 0xffff {
			units++
		}
		if units > limit {
			break
		}
		clean = clean && r != 0 && (r != utf8.RuneError || size > 1)
		n += size
	}
	raw = raw[:n]
	if clean {
		return raw
	}
	var b strings.Builder
	for _, r := range raw { // what is no UTF-8 comes as RuneError
		if r == 0 {
			r = utf8.RuneError
		}
		b.WriteRune(r)
	}
	return b.String()
}
