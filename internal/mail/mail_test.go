package mail

import (
	"context"
	"crypto/hmac"
	"crypto/md5"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	netmail "net/mail"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-smtp"
	"go.uber.org/goleak"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/test/pipe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newSender(t *testing.T, url string, roots *x509.CertPool) *Sender {
	t.Helper()
	s, err := New(Config{URL: url, From: "Ticketwire <noreply@example.com>", RootCAs: roots})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func message() Message {
	return Message{
		ID: "0198c0de-0000-7000-8000-000000000001", To: "Ada <ada@example.org>",
		Subject: "Grüße, Webhook", Text: "Hällo\n.\nend", HTML: "<p>Hällo</p>",
	}
}

// parsed is a received mail, decoded.
type parsed struct {
	header              netmail.Header
	subject, text, html string
}

func parse(t *testing.T, data string) parsed {
	t.Helper()
	m, err := netmail.ReadMessage(strings.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	p := parsed{header: m.Header}
	if p.subject, err = new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject")); err != nil {
		t.Fatal(err)
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/alternative" {
		t.Fatalf("content type %q, %v", kind, err)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	for {
		part, err := parts.NextRawPart()
		if errors.Is(err, io.EOF) {
			return p
		}
		if err != nil {
			t.Fatal(err)
		}
		if enc := part.Header.Get("Content-Transfer-Encoding"); enc != "quoted-printable" {
			t.Fatalf("transfer encoding %q", enc)
		}
		raw, err := io.ReadAll(quotedprintable.NewReader(part))
		if err != nil {
			t.Fatal(err)
		}
		body := strings.ReplaceAll(string(raw), "\r\n", "\n")
		switch kind := part.Header.Get("Content-Type"); kind {
		case "text/plain; charset=UTF-8":
			p.text = body
		case "text/html; charset=UTF-8":
			p.html = body
		default:
			t.Fatalf("part of type %q", kind)
		}
	}
}

func TestSendPlain(t *testing.T) {
	t.Parallel()
	srv := (&mailServer{}).start(t, nil, false)
	if err := newSender(t, "smtp://"+srv.addr, nil).Send(t.Context(), message()); err != nil {
		t.Fatal(err)
	}
	got := srv.only(t)
	if got.from != "noreply@example.com" || got.to != "ada@example.org" || got.encrypted {
		t.Errorf("got %+v", got)
	}
	p := parse(t, got.data)
	if p.subject != "Grüße, Webhook" || p.text != "Hällo\n.\nend" || p.html != "<p>Hällo</p>" {
		t.Errorf("got %+v", p)
	}
	for name, want := range map[string]string{
		"Message-Id":     "<0198c0de-0000-7000-8000-000000000001@example.com>",
		"Auto-Submitted": "auto-generated",
		"From":           `"Ticketwire" <noreply@example.com>`,
		"To":             `"Ada" <ada@example.org>`,
	} {
		if p.header.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, p.header.Get(name), want)
		}
	}
	if _, err := p.header.Date(); err != nil {
		t.Errorf("Date: %v", err)
	}
}

func TestSendTextAlone(t *testing.T) {
	t.Parallel()
	srv := (&mailServer{}).start(t, nil, false)
	m := message()
	m.HTML = ""
	if err := newSender(t, "smtp://"+srv.addr, nil).Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	got, err := netmail.ReadMessage(strings.NewReader(srv.only(t).data))
	if err != nil || got.Header.Get("Content-Type") != "text/plain; charset=UTF-8" {
		t.Errorf("sent as %v, %v", got.Header, err)
	}
}

func TestSendEncrypted(t *testing.T) {
	t.Parallel()
	tlsConfig, pool := certificate(t)
	tests := []struct {
		name, scheme, query string
		implicit            bool
		roots               *x509.CertPool
		fails               bool
	}{
		{"starttls", "smtp", "?tls=starttls", false, pool, false},
		{"starttls, unknown certificate", "smtp", "?tls=starttls", false, nil, true},
		{"opportunistic, unknown certificate", "smtp", "", false, nil, false},
		{"smtps", "smtps", "", true, pool, false},
		{"smtps, unknown certificate", "smtps", "", true, nil, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			srv := (&mailServer{login: true}).start(t, tlsConfig, tt.implicit)
			err := newSender(t, tt.scheme+"://ada:hunter2@"+srv.addr+tt.query, tt.roots).Send(t.Context(), message())
			if tt.fails {
				if !fault.Is(err, fault.Unavailable) || Permanent(err) || len(srv.taken) != 0 {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := srv.only(t); !got.encrypted || got.user != "ada" {
				t.Errorf("encrypted %v, user %q", got.encrypted, got.user)
			}
		})
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	t.Parallel()
	old, pool := certificate(t)
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	srv := (&mailServer{}).start(t, old, true)
	if err := newSender(t, "smtps://"+srv.addr, pool).Send(t.Context(), message()); !fault.Is(err, fault.Unavailable) || len(srv.taken) != 0 {
		t.Errorf("got %v", err)
	}
}

func TestStartTLSIsNotSkipped(t *testing.T) {
	t.Parallel()
	srv := (&mailServer{}).start(t, nil, false)
	err := newSender(t, "smtp://"+srv.addr+"?tls=starttls", nil).Send(t.Context(), message())
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "STARTTLS") || len(srv.taken) != 0 {
		t.Errorf("got %v", err)
	}
}

// A host that is not this machine gets no password before TLS, whatever it
// offers.
func TestNoPasswordWithoutTLS(t *testing.T) {
	t.Parallel()
	srv := (&mailServer{login: true}).start(t, nil, false)
	s, err := New(Config{
		URL: "smtp://ada:hunter2@mail.example.com", From: "noreply@example.com",
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, srv.addr)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(t.Context(), message()); !fault.Is(err, fault.Unavailable) || len(srv.taken) != 0 {
		t.Errorf("got %v", err)
	}
}

func TestLogin(t *testing.T) {
	t.Parallel()
	srv := (&mailServer{login: true}).start(t, nil, false)
	if err := newSender(t, "smtp://ada:hunter2@"+srv.addr, nil).Send(t.Context(), message()); err != nil {
		t.Fatal(err)
	}
	if got := srv.only(t); got.user != "ada" {
		t.Errorf("user %q", got.user)
	}
	for name, url := range map[string]string{
		"wrong password": "smtp://ada:hunter3@" + srv.addr,
		"no login":       "smtp://" + srv.addr,
	} {
		err := newSender(t, url, nil).Send(t.Context(), message())
		if !fault.Is(err, fault.Unavailable) || Permanent(err) || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%s: %v", name, err)
		}
	}
	bare := (&mailServer{}).start(t, nil, false)
	err := newSender(t, "smtp://ada:hunter2@"+bare.addr, nil).Send(t.Context(), message())
	if !fault.Is(err, fault.Unavailable) || len(bare.taken) != 0 {
		t.Errorf("server without AUTH: %v", err)
	}
}

// The ways to log in that other servers have.
func TestOtherLogins(t *testing.T) {
	t.Parallel()
	text := base64.StdEncoding.EncodeToString
	digest := hmac.New(md5.New, []byte("hunter2"))
	digest.Write([]byte("<1@mx.test>"))
	for way, login := range map[string]func(*script){
		"LOGIN": func(s *script) {
			s.expect("AUTH LOGIN", "334 "+text([]byte("Username:")))
			s.expect(text([]byte("ada")), "334 "+text([]byte("Password:")))
			s.expect(text([]byte("hunter2")), "235 welcome")
		},
		"CRAM-MD5": func(s *script) {
			s.expect("AUTH CRAM-MD5", "334 "+text([]byte("<1@mx.test>")))
			s.expect(text(fmt.Appendf(nil, "ada %x", digest.Sum(nil))), "235 welcome")
		},
	} {
		addr := scripted(t, func(c net.Conn) {
			s := newScript(c)
			s.say("220 mx.test")
			s.expect("EHLO", "250-mx.test\r\n250 AUTH "+way)
			login(s)
			s.expect("MAIL", "250 ok")
			s.expect("RCPT", "250 ok")
			s.expect("DATA", "354 go")
			s.expect(".", "250 taken")
		})
		if err := newSender(t, "smtp://ada:hunter2@"+addr, nil).Send(t.Context(), message()); err != nil {
			t.Errorf("%s: %v", way, err)
		}
	}
}

func TestServerRefuses(t *testing.T) {
	t.Parallel()
	answer := func(code int) error {
		return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 1, 1}, Message: "no"}
	}
	tests := []struct {
		name string
		srv  *mailServer
		kind fault.Kind
	}{
		{"MAIL 550", &mailServer{onMail: answer(550)}, fault.BadGateway},
		{"MAIL 451", &mailServer{onMail: answer(451)}, fault.Unavailable},
		{"MAIL 503", &mailServer{onMail: answer(503)}, fault.Unavailable},
		{"MAIL 530", &mailServer{onMail: answer(530)}, fault.Unavailable},
		{"RCPT 550", &mailServer{onRcpt: answer(550)}, fault.BadGateway},
		{"RCPT 450", &mailServer{onRcpt: answer(450)}, fault.Unavailable},
		{"DATA 554", &mailServer{onData: answer(554)}, fault.BadGateway},
		{"DATA 421", &mailServer{onData: answer(421)}, fault.Unavailable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			srv := tt.srv.start(t, nil, false)
			err := newSender(t, "smtp://"+srv.addr, nil).Send(t.Context(), message())
			if fault.KindOf(err) != tt.kind || Permanent(err) != (tt.kind == fault.BadGateway) {
				t.Errorf("got %v, kind %d", err, fault.KindOf(err))
			}
			if srv.sessions != 1 {
				t.Errorf("%d sessions", srv.sessions)
			}
		})
	}
}

func TestServerIsAway(t *testing.T) {
	t.Parallel()
	for name, addr := range map[string]string{
		"closes at once": scripted(t, func(net.Conn) {}),
		"says 554":       scripted(t, func(c net.Conn) { io.WriteString(c, "554 not today\r\n") }),
		"says 421":       scripted(t, func(c net.Conn) { io.WriteString(c, "421 later\r\n") }),
		"speaks HTTP":    scripted(t, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }),
		"nothing listens": func() string {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			return l.Addr().String()
		}(),
	} {
		err := newSender(t, "smtp://"+addr, nil).Send(t.Context(), message())
		if !fault.Is(err, fault.Unavailable) || Permanent(err) || !strings.Contains(err.Error(), addr) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSendStopsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancelCause(t.Context())
	over := errors.New("the lease is over")
	addr := scripted(t, func(c net.Conn) {
		io.WriteString(c, "220 mx.test\r\n")
		c.Read(make([]byte, 1)) // EHLO has begun
		stop(over)
		io.Copy(io.Discard, c)
	})
	err := newSender(t, "smtp://"+addr, nil).Send(ctx, message())
	if !errors.Is(err, over) || Permanent(err) {
		t.Errorf("got %v", err)
	}
}

// A server that answers each step in time holds a session for SessionLimit, and no
// longer.
func TestSessionIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := pipe.Listen()
		var served sync.WaitGroup
		defer served.Wait()
		served.Go(func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			slow := newScript(c)
			time.Sleep(20 * time.Second)
			slow.say("220 mx.test")
			for _, step := range []string{"EHLO", "MAIL", "RCPT"} {
				time.Sleep(20 * time.Second)
				slow.expect(step, "250 ok")
			}
		})
		s, err := New(Config{URL: "smtp://127.0.0.1", From: "noreply@example.com", DialContext: l.Dial})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		err = s.Send(t.Context(), message())
		if took := time.Since(began); took != SessionLimit || !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "time limit") {
			t.Errorf("after %s: %v", took, err)
		}
	})
}

// closing notes that a connection was closed.
type closing struct {
	net.Conn
	closed atomic.Bool
}

func (c *closing) Close() error { c.closed.Store(true); return c.Conn.Close() }

func TestConnectionsAreClosed(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"smtp", "smtps"} {
		addr := scripted(t, func(c net.Conn) { // no TLS, and a login that fails
			s := newScript(c)
			s.say("220 mx.test")
			s.expect("EHLO", "250-mx.test\r\n250 AUTH PLAIN")
			s.expect("AUTH", "535 no")
			s.expect("*", "501 no")
		})
		var conn *closing
		s, err := New(Config{URL: scheme + "://ada:hunter2@" + addr, From: "noreply@example.com", DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, addr)
			conn = &closing{Conn: c}
			return conn, err
		}})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Send(t.Context(), message()); err == nil || !conn.closed.Load() {
			t.Errorf("%s: closed %t after %v", scheme, conn.closed.Load(), err)
		}
	}
}

// The server took the mail and then lost the connection: that is a success, or
// the mail would be sent twice for certain.
func TestBrokenQuitIsNotAFailure(t *testing.T) {
	t.Parallel()
	addr := scripted(t, func(c net.Conn) {
		tp := newScript(c)
		tp.say("220 mx.test")
		tp.expect("EHLO", "250 mx.test")
		tp.expect("MAIL", "250 ok")
		tp.expect("RCPT", "250 ok")
		tp.expect("DATA", "354 go")
		tp.expect(".", "250 taken")
	})
	if err := newSender(t, "smtp://"+addr, nil).Send(t.Context(), message()); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestHeaderInjection(t *testing.T) {
	t.Parallel()
	srv := (&mailServer{}).start(t, nil, false)
	sender := newSender(t, "smtp://"+srv.addr, nil)
	m := message()
	m.Subject = "a\r\nBcc: evil@example.net\r\n\r\nbody \x00 \u202e " + strings.Repeat("é", 500)
	m.ID = "x>\r\nX-Evil: 1"
	if err := sender.Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	p := parse(t, srv.only(t).data)
	if p.header.Get("Bcc") != "" || p.header.Get("X-Evil") != "" || strings.ContainsAny(p.subject, "\r\n\x00\u202e") {
		t.Errorf("header %v", p.header)
	}
	if n := len([]rune(p.subject)); n != maxSubject+1 {
		t.Errorf("subject of %d characters", n)
	}
	for _, to := range []string{"", "ada", "a@example.org, b@example.org", "a@example.org\r\nBcc: b@example.org", "a@example.org>\r\nRCPT TO:<b@example.org"} {
		m := message()
		m.To = to
		if err := sender.Send(t.Context(), m); !fault.Is(err, fault.Invalid) || !Permanent(err) {
			t.Errorf("to %q: %v", to, err)
		}
	}
	m = message()
	m.ID = ""
	if err := sender.Send(t.Context(), m); !fault.Is(err, fault.Invalid) {
		t.Errorf("no id: %v", err)
	}
}

func TestMessageIDIsStable(t *testing.T) {
	t.Parallel()
	a := messageID("odd id\n", "noreply@example.com")
	if a != messageID("odd id\n", "noreply@example.com") || a == messageID("odd id", "noreply@example.com") {
		t.Errorf("message id %q", a)
	}
	if got := messageID("tw_1.a-B", "x@mx.example"); got != "tw_1.a-B@mx.example" {
		t.Errorf("message id %q", got)
	}
	if got := messageID("a-1", "x@münchen.example"); got != "a-1@ticketwire.invalid" {
		t.Errorf("message id %q", got)
	}
}
