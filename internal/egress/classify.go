package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
)

// failed fills in why an exchange broke. a holds what had arrived by then.
// Messages name the host of the URL, the phase and the cause. They never hold
// err's own text where that may name an address, a query or a user.
func (x *exchange) failed(ctx context.Context, a delivery.Answer, err error) delivery.Answer {
	a.RemoteAddr = x.remoteAddr()
	at := phase(x.phase.Load())
	dial, dialing := errors.AsType[*dialError](err)
	switch {
	case x.parent.Err() != nil:
		a.Interrupted = true
		a.Err = delivery.ErrUnknown
		a.Message = fmt.Sprintf("the exchange with %s was interrupted while %s", x.host, at)
	case errors.Is(context.Cause(ctx), errLimit):
		a.Err = delivery.ErrTimeout
		a.Message = fmt.Sprintf("no complete answer from %s within %s (%s)", x.host, x.limit.Round(time.Millisecond), at)
	case dialing:
		a.Err = dial.class
		a.Message = x.dialMessage(dial)
	case at == connecting:
		// No connection was asked for: the transport refused the request.
		a.Err = delivery.ErrUnknown
		a.Message = fmt.Sprintf("the request to %s cannot be sent: %s", x.host, excerpt(err.Error()))
	case alert(err) != nil:
		// TLS 1.3 receivers judge our certificate after the handshake.
		a.Err = delivery.ErrTLS
		a.Message = fmt.Sprintf("TLS with %s: %s", x.host, tlsCause(err))
	case offended(err):
		a.Err = delivery.ErrProtocol
		a.Message = fmt.Sprintf("the answer of %s is not valid HTTP: %s", x.host, excerpt(err.Error()))
	case a.StatusCode == 0 && !x.first.Load() || broken(err):
		a.Err = delivery.ErrConnect
		a.Message = fmt.Sprintf("the connection to %s broke while %s: %s", x.host, at, cause(err))
	default:
		a.Err = delivery.ErrProtocol
		a.Message = fmt.Sprintf("the answer of %s is not valid HTTP: %s", x.host, excerpt(err.Error()))
	}
	return a
}

func (x *exchange) dialMessage(e *dialError) string {
	switch e.class {
	case delivery.ErrSSRF:
		return fmt.Sprintf("connect to %s: %s", x.host, errRefused)
	case delivery.ErrDNS:
		return fmt.Sprintf("look up %s: %s", x.host, dnsCause(e.cause))
	case delivery.ErrTLS:
		return fmt.Sprintf("TLS handshake with %s: %s", x.host, tlsCause(e.cause))
	}
	return fmt.Sprintf("connect to %s: %s", x.host, cause(e.cause))
}

// wasReset reports whether the receiver gave up an HTTP/2 stream, as opposed to
// us because of what came over it. The types of net/http's HTTP/2 errors are
// hidden; tests keep the texts true.
func wasReset(err error) bool {
	text := err.Error()
	return strings.Contains(text, "stream error: stream ID ") && strings.Contains(text, "; received from peer")
}

// offended reports whether the receiver broke a rule of HTTP/2 and we left.
func offended(err error) bool {
	text := err.Error()
	return strings.HasPrefix(text, "stream error: ") && !wasReset(err) ||
		strings.HasPrefix(text, "connection error: ") || strings.Contains(text, "http2: frame too large")
}

// broken reports whether the connection itself failed, as opposed to what came
// over it.
func broken(err error) bool {
	if wasReset(err) {
		return true
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	if _, ok := errors.AsType[syscall.Errno](err); ok {
		return true
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// cause names the reason a connection failed, without addresses.
func cause(err error) string {
	if e, ok := errors.AsType[*proxyError](err); ok {
		return e.msg
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return "timed out"
	}
	switch {
	case wasReset(err):
		return "reset by the receiver"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "it ended too early"
	case errors.Is(err, context.Canceled):
		return "cancelled"
	case errors.Is(err, errNoSource):
		return errNoSource.Error()
	}
	return "closed by the receiver"
}

// dnsCause does not use the error's text: it names our resolver.
func dnsCause(err error) string {
	e, ok := errors.AsType[*net.DNSError](err)
	switch {
	case errors.Is(err, context.DeadlineExceeded) || ok && e.IsTimeout:
		return fmt.Sprintf("no answer within %s", lookupLimit)
	case ok && e.IsNotFound:
		return "no such host"
	}
	return "the name server failed"
}

// tlsCause names what was wrong with the handshake. The texts of certificate
// errors speak of names and dates that are public.
func tlsCause(err error) string {
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return excerpt(e.Err.Error())
	}
	if e := alert(err); e != nil {
		return excerpt("the receiver says: " + strings.TrimPrefix(e.Error(), "tls: "))
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "the receiver does not speak TLS on this port"
	}
	if broken(err) {
		return cause(err)
	}
	return excerpt(err.Error())
}

// alert finds the TLS alert in err: how the receiver says what it did not like.
// nil: there is none.
func alert(err error) error {
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "remote error" {
		return e.Err
	}
	return nil
}

// excerpt keeps a message that may quote the receiver short and on one line.
func excerpt(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	return storedText(s, 200)
}
