package mail

import (
	"context"
	"errors"
	"net/textproto"

	gomail "github.com/wneessen/go-mail"

	"github.com/ticketwire/ticketwire/internal/fault"
)

// Permanent reports whether an error of Send means that the same message will
// never be taken: the server refused it for good (kind fault.BadGateway), or it
// cannot be sent at all (fault.Invalid). All other errors are worth a retry
// (fault.Unavailable): the server is away, overloaded or misconfigured, and mail
// should outlive the repair.
func Permanent(err error) bool {
	return fault.Is(err, fault.BadGateway) || fault.Is(err, fault.Invalid)
}

// classify turns an error of a session into a *fault.Error. The message is fit
// for an outbox row; the server's words are quoted in the cause only.
func (s *Sender) classify(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fault.Wrap(fault.Unavailable, context.Cause(ctx), "mail server %s: the session was cut off", s.server.addr())
	}
	if send, ok := errors.AsType[*gomail.SendError](err); ok {
		code := send.ErrorCode()
		switch {
		case code >= 550:
			return fault.Wrap(fault.BadGateway, err, "mail server %s refused the message (%d)", s.server.addr(), code)
		case code >= 500:
			// Only 55x speak of the mail (RFC 5321 section 4.2.1). The others speak
			// of the session, as "log in first" does: our settings are at fault.
			return fault.Wrap(fault.Unavailable, err, "mail server %s refused the session (%d)", s.server.addr(), code)
		case code >= 400:
			return fault.Wrap(fault.Unavailable, err, "mail server %s put the message off (%d)", s.server.addr(), code)
		}
		return fault.Wrap(fault.Unavailable, err, "mail server %s: the session broke", s.server.addr())
	}
	if answer, ok := errors.AsType[*textproto.Error](err); ok {
		// Before the mail itself: greeting, STARTTLS or login. The answer to a
		// login may echo what was sent, so only its code is kept.
		return fault.New(fault.Unavailable, "mail server %s refused the session (%d)", s.server.addr(), answer.Code)
	}
	return fault.Wrap(fault.Unavailable, err, "mail server %s: no session", s.server.addr())
}
