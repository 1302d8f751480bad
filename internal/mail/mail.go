// Package mail sends one message to an SMTP server and writes the messages about
// webhooks in trouble (contract section 4.11).
//
// It hides the SMTP session: TLS, login, MIME, time limits, and which failures
// are worth another try. It leaves the outbox to internal/store and the timing
// of retries to internal/dispatch.
package mail

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	netmail "net/mail"
	"strings"
	"time"

	gomail "github.com/wneessen/go-mail"

	"github.com/ticketwire/ticketwire/internal/fault"
)

// SessionLimit bounds one Send from the dial to the server's last answer. It is
// below the lease of an outbox row, so that two nodes do not send one mail.
const SessionLimit = 30 * time.Second

// Config says which server takes our mail.
type Config struct {
	// URL is smtp://user:password@host:587?tls=starttls|opportunistic|none or
	// smtps://user:password@host:465. Without tls=, smtp:// insists on STARTTLS,
	// except for a loopback host, where it is used if offered.
	URL  string
	From string // sender, as in "Ticketwire <noreply@example.com>"

	RootCAs *x509.CertPool // nil: the system's

	// DialContext replaces the dialer, for tests; nil: net.Dialer.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Message is one mail.
type Message struct {
	ID      string // of the outbox row; a resend after a crash has the same Message-ID
	To      string // one address
	Subject string
	Text    string
	HTML    string // optional second form of Text
}

// Sender sends mail. It is immutable and safe for concurrent use.
type Sender struct {
	server server
	from   *netmail.Address
	roots  *x509.CertPool
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)
}

// New checks cfg. Its errors name the setting (smtp-url or mail-from) and never
// hold the password. It does not connect.
func New(cfg Config) (*Sender, error) {
	srv, err := parseServer(cfg.URL)
	if err != nil {
		return nil, err
	}
	from, err := netmail.ParseAddress(cfg.From)
	if err != nil {
		return nil, fault.New(fault.Invalid, "mail-from: %q is not a mail address", cfg.From)
	}
	s := &Sender{server: srv, from: from, roots: cfg.RootCAs, dial: cfg.DialContext}
	if s.dial == nil {
		s.dial = new(net.Dialer).DialContext
	}
	return s, nil
}

// Send hands m to the server in a session of its own and returns when the server
// has taken responsibility for it, or after SessionLimit. See Permanent for what
// an error means. When the connection breaks after the server took the mail but
// before it said so, the mail is sent again; its Message-ID shows that.
func (s *Sender) Send(ctx context.Context, m Message) error {
	msg, err := s.compose(m)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, SessionLimit, errors.New("the SMTP session ran over its time limit"))
	defer cancel()
	if err := s.session(ctx, msg); err != nil {
		// After the server took the mail, a failing RSET or QUIT changes nothing.
		if msg.IsDelivered() {
			return nil
		}
		return s.classify(ctx, err)
	}
	return nil
}

// compose builds the MIME message and refuses what cannot be a header.
func (s *Sender) compose(m Message) (*gomail.Msg, error) {
	if m.ID == "" {
		return nil, fault.New(fault.Invalid, "mail: the message has no id")
	}
	to, err := netmail.ParseAddress(m.To)
	if err != nil {
		return nil, fault.New(fault.Invalid, "mail: the recipient's address is not valid")
	}
	msg := gomail.NewMsg()
	if err := msg.FromFormat(s.from.Name, s.from.Address); err != nil {
		return nil, fault.New(fault.Invalid, "mail-from: %q cannot be used as a sender", s.from.Address)
	}
	if err := msg.AddToFormat(to.Name, to.Address); err != nil {
		return nil, fault.New(fault.Invalid, "mail: the recipient's address is not valid")
	}
	msg.Subject(oneLine(m.Subject, maxSubject))
	msg.SetMessageIDWithValue(messageID(m.ID, s.from.Address))
	// RFC 3834: vacation responders stay silent.
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	msg.SetBodyString(gomail.TypeTextPlain, m.Text)
	if m.HTML != "" {
		msg.AddAlternativeString(gomail.TypeTextHTML, m.HTML)
	}
	return msg, nil
}

// messageID is the same for every try of one outbox row (RFC 5322 section
// 3.6.4). An id with unusual characters goes in as a hash.
func messageID(id, from string) string {
	if strings.ContainsFunc(id, func(r rune) bool { return notHostRune(r) && r != '_' }) {
		sum := sha256.Sum256([]byte(id))
		id = hex.EncodeToString(sum[:16])
	}
	_, domain, _ := strings.Cut(from, "@")
	if strings.ContainsFunc(domain, notHostRune) {
		domain = "ticketwire.invalid"
	}
	return id + "@" + domain
}

func notHostRune(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.')
}

// session runs one SMTP session. It dials and closes by itself: the library
// leaves the connection open when the greeting or the login fails, and its
// deadlines are per step and not for the whole.
func (s *Sender) session(ctx context.Context, msg *gomail.Msg) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()

	given := func(context.Context, string, string) (net.Conn, error) { return conn, nil }
	client, err := gomail.NewClient(s.server.host, s.options(given)...)
	if err != nil {
		return fmt.Errorf("prepare SMTP client: %w", err)
	}
	return client.DialAndSendWithContext(ctx, msg)
}

// options translates the server's settings for the library.
func (s *Sender) options(dial gomail.DialContextFunc) []gomail.Option {
	policy := gomail.NoTLS // also for smtps://, where the connection is TLS already
	switch s.server.tls {
	case tlsStartTLS:
		policy = gomail.TLSMandatory
	case tlsOpportunistic:
		policy = gomail.TLSOpportunistic
	}
	opts := []gomail.Option{
		gomail.WithPort(s.server.port),
		gomail.WithTimeout(SessionLimit),
		gomail.WithTLSPolicy(policy),
		gomail.WithTLSConfig(s.tlsConfig()),
		gomail.WithDialContextFunc(dial),
		gomail.WithoutNoop(),
	}
	if s.server.user == "" {
		return opts
	}
	plain, login := gomail.SMTPAuthPlain, gomail.SMTPAuthLogin
	if s.server.loopback() {
		// What stays on this machine may go in the clear.
		plain, login = gomail.SMTPAuthPlainNoEnc, gomail.SMTPAuthLoginNoEnc
	}
	return append(opts,
		gomail.WithUsername(s.server.user),
		gomail.WithPassword(s.server.password),
		gomail.WithOpportunisticSMTPAuth(plain, login, gomail.SMTPAuthCramMD5),
	)
}

func (s *Sender) tlsConfig() *tls.Config {
	return &tls.Config{
		ServerName: s.server.host,
		RootCAs:    s.roots,
		MinVersion: tls.VersionTLS12,
		// Where plain text would do, any certificate is better (RFC 7435). No
		// password leaves the machine in this mode.
		InsecureSkipVerify: s.server.tls == tlsOpportunistic,
	}
}

// connect dials the server, with TLS from the first byte for smtps://.
func (s *Sender) connect(ctx context.Context) (net.Conn, error) {
	raw, err := s.dial(ctx, "tcp", s.server.addr())
	if err != nil || s.server.tls != tlsImplicit {
		return raw, err
	}
	conn := tls.Client(raw, s.tlsConfig())
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}
