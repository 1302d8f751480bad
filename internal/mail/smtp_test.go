package mail

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// mailServer is a real SMTP server on loopback that keeps what it takes and
// refuses what a test wants refused.
type mailServer struct {
	addr                   string
	login                  bool // offers AUTH and wants it
	onRcpt, onMail, onData error

	mu       sync.Mutex
	taken    []taken
	sessions int
}

type taken struct {
	from, to, user string
	encrypted      bool
	data           string
}

type session struct {
	s    *mailServer
	conn *smtp.Conn
	mail taken
}

func (s *session) Reset()        { s.mail = taken{user: s.mail.user} }
func (s *session) Logout() error { return nil }

func (s *session) AuthMechanisms() []string {
	if !s.s.login {
		return nil
	}
	return []string{sasl.Plain}
}

func (s *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != "ada" || password != "hunter2" {
			return &smtp.SMTPError{Code: 535, EnhancedCode: smtp.EnhancedCode{5, 7, 8}, Message: "wrong password " + password}
		}
		s.mail.user = user
		return nil
	}), nil
}

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	if s.s.login && s.mail.user == "" {
		return smtp.ErrAuthRequired
	}
	s.mail.from = from
	return s.s.onMail
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.mail.to = to
	return s.s.onRcpt
}

func (s *session) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if s.s.onData != nil {
		return s.s.onData
	}
	s.mail.data = string(data)
	_, s.mail.encrypted = s.conn.TLSConnectionState()
	s.s.mu.Lock()
	s.s.taken = append(s.s.taken, s.mail)
	s.s.mu.Unlock()
	return nil
}

// start serves s on 127.0.0.1. tlsConfig nil offers no STARTTLS; implicit wraps
// the listener.
func (s *mailServer) start(t *testing.T, tlsConfig *tls.Config, implicit bool) *mailServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	server := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		s.mu.Lock()
		s.sessions++
		s.mu.Unlock()
		return &session{s: s, conn: c}, nil
	}))
	server.Domain = "mx.test"
	server.AllowInsecureAuth = tlsConfig == nil
	server.EnableSMTPUTF8 = true
	server.ErrorLog = log.New(io.Discard, "", 0)
	if implicit {
		l = tls.NewListener(l, tlsConfig)
	} else {
		server.TLSConfig = tlsConfig
	}
	var wg sync.WaitGroup
	wg.Go(func() { server.Serve(l) })
	t.Cleanup(func() {
		server.Close()
		wg.Wait()
	})
	return s
}

func (s *mailServer) only(t *testing.T) taken {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.taken) != 1 {
		t.Fatalf("the server took %d mails", len(s.taken))
	}
	return s.taken[0]
}

// certificate makes a self-signed one for 127.0.0.1 and the pool that trusts it.
func certificate(t *testing.T) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, pool
}

// scripted serves one connection with a function.
func scripted(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		handle(c)
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

// script is the server's side of a session, line by line.
type script struct {
	conn net.Conn
	in   *bufio.Reader
}

func newScript(c net.Conn) *script { return &script{c, bufio.NewReader(c)} }

func (s *script) say(line string) { io.WriteString(s.conn, line+"\r\n") }

// expect skips lines up to one that begins with prefix and answers it.
func (s *script) expect(prefix, answer string) {
	for {
		line, err := s.in.ReadString('\n')
		if err != nil {
			return
		}
		if prefix == "." && line != ".\r\n" {
			continue
		}
		if strings.HasPrefix(line, prefix) {
			s.say(answer)
			return
		}
	}
}
