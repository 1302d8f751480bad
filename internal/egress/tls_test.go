package egress

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
)

// authority signs certificates for the receivers of one test.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pool *x509.CertPool
	// above are the certificates that a receiver sends beside its own.
	above [][]byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key := newKey(t, 0)
	cert := sign(t, authorityTemplate("Test authority"), nil, key, key)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{cert: cert, key: key, pool: pool}
}

func authorityTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
}

// newKey makes an RSA key, or an elliptic one when bits is 0.
func newKey(t *testing.T, bits int) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	if bits > 0 {
		key, err = rsa.GenerateKey(rand.Reader, bits)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign makes a certificate of template for key. A nil parent makes it sign
// itself.
func sign(t *testing.T, template, parent *x509.Certificate, key, by crypto.Signer) *x509.Certificate {
	t.Helper()
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// intermediate is an authority below a.
func (a *authority) intermediate(t *testing.T, rsaBits int) *authority {
	t.Helper()
	key := newKey(t, rsaBits)
	cert := sign(t, authorityTemplate("Test intermediate"), a.cert, key, a.key)
	return &authority{cert: cert, key: key, pool: a.pool, above: append([][]byte{cert.Raw}, a.above...)}
}

// certificate makes a server certificate for 127.0.0.1, changed by edit.
func (a *authority) certificate(t *testing.T, rsaBits int, edit func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: "receiver"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if edit != nil {
		edit(template)
	}
	key := newKey(t, rsaBits)
	cert := sign(t, template, a.cert, key, a.key)
	return tls.Certificate{Certificate: append([][]byte{cert.Raw}, a.above...), PrivateKey: key, Leaf: cert}
}

func serverTLS(cert tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert}}
}

// serveTLS starts an HTTPS receiver that answers 200 with the protocol used.
func serveTLS(t *testing.T, cfg *tls.Config, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	return serveTLSOn(t, nil, cfg, handler)
}

// serveTLSOn is serveTLS with a listener of the caller's.
func serveTLSOn(t *testing.T, l net.Listener, cfg *tls.Config, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	if handler == nil {
		handler = func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			io.WriteString(w, r.Proto)
		}
	}
	s := httptest.NewUnstartedServer(handler)
	if l != nil {
		s.Listener.Close()
		s.Listener = l
	}
	s.TLS = cfg
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are the point
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ca, stranger := newAuthority(t), newAuthority(t)
	good := ca.certificate(t, 0, nil)
	edited := func(edit func(*x509.Certificate)) *tls.Config { return serverTLS(ca.certificate(t, 0, edit)) }
	version := func(v uint16) *tls.Config {
		cfg := serverTLS(good)
		cfg.MinVersion, cfg.MaxVersion = v, v
		return cfg
	}
	selfSigned := newKey(t, 0)
	alone := ca.intermediate(t, 0)
	alone.above = nil
	tests := []struct {
		name  string
		cfg   *tls.Config
		word  string // of the failure; "" for success
		never bool   // not even with verify_ssl=false
	}{
		{"good", serverTLS(good), "", false},
		{"only 1.0", version(tls.VersionTLS10), "version", true},
		{"only 1.1", version(tls.VersionTLS11), "version", true},
		{"only 1.2", version(tls.VersionTLS12), "", false},
		{"only 1.3", version(tls.VersionTLS13), "", false},
		{"RSA 2048", serverTLS(ca.certificate(t, 2048, nil)), "", false},
		{"RSA 1024", serverTLS(ca.certificate(t, 1024, nil)), "shorter than 2048", false},
		{"intermediate", serverTLS(ca.intermediate(t, 0).certificate(t, 0, nil)), "", false},
		{"intermediate of RSA 1024", serverTLS(ca.intermediate(t, 1024).certificate(t, 0, nil)), "shorter than 2048", false},
		{"missing intermediate", serverTLS(alone.certificate(t, 0, nil)), "unknown authority", false},
		{"untrusted authority", serverTLS(stranger.certificate(t, 0, nil)), "unknown authority", false},
		{"self-signed", serverTLS(tls.Certificate{PrivateKey: selfSigned, Certificate: [][]byte{sign(t, &x509.Certificate{
			SerialNumber: big.NewInt(3), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		}, nil, selfSigned, selfSigned).Raw}}), "unknown authority", false},
		{"SHA-1", edited(func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA1 }), "SHA1", false},
		{"expired", edited(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), "expired", false},
		{"not yet valid", edited(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }), "not yet valid", false},
		{"another name", edited(func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"other.example"} }), "127.0.0.1", false},
		{"another address", edited(func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 2)} }), "127.0.0.1", false},
		{"the address as a common name", edited(func(c *x509.Certificate) {
			c.IPAddresses, c.Subject.CommonName = nil, "127.0.0.1"
		}), "127.0.0.1", false},
		{"for clients", edited(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), "usage", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var hits atomic.Int32
			s := serveTLS(t, tt.cfg, func(w http.ResponseWriter, _ *http.Request) { hits.Add(1) })
			cfg := config(t, "127.0.0.1")
			cfg.RootCAs = ca.pool
			client := newClient(t, cfg)
			a := client.Do(t.Context(), post(s.URL, patience))
			if tt.word == "" {
				if !a.OK() || hits.Load() != 1 {
					t.Errorf("got %+v", a)
				}
				return
			}
			wantErr(t, a, delivery.ErrTLS, "127.0.0.1", tt.word)
			if hits.Load() != 0 {
				t.Error("the request was sent")
			}
			req := post(s.URL, patience)
			req.VerifySSL = false
			if a := client.Do(t.Context(), req); a.OK() == tt.never {
				t.Errorf("verify_ssl=false: got %+v", a)
			}
			// That one trust does not leak into the other pool.
			if a := client.Do(t.Context(), post(s.URL, patience)); a.Err != delivery.ErrTLS {
				t.Errorf("after verify_ssl=false: got %+v", a)
			}
		})
	}
}

// A receiver cannot ask for another handshake on a connection, which once let
// strangers put their bytes in front of ours.
func TestNoRenegotiation(t *testing.T) {
	t.Parallel()
	for _, cfg := range []*tls.Config{verifyingTLS(nil), acceptingTLS()} {
		if cfg.Renegotiation != tls.RenegotiateNever || cfg.MinVersion != tls.VersionTLS12 {
			t.Errorf("renegotiation %v, versions from %#x", cfg.Renegotiation, cfg.MinVersion)
		}
	}
}

// The operator may insist on certificates that count.
func TestInsecureTLSIsRefused(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	s := serveTLS(t, serverTLS(ca.certificate(t, 0, nil)), nil)
	plain := listen(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	cfg := config(t, "127.0.0.1")
	cfg.RefuseInsecureTLS, cfg.RootCAs = true, ca.pool
	client := newClient(t, cfg)
	req := post(s.URL, patience)
	req.VerifySSL = false
	wantErr(t, client.Do(t.Context(), req), delivery.ErrTLS, "verify_ssl=false is not permitted")
	if a := client.Do(t.Context(), post(s.URL, patience)); !a.OK() {
		t.Errorf("with verify_ssl=true: %+v", a)
	}
	req.URL = plain.url() // there is nothing to verify
	if a := client.Do(t.Context(), req); !a.OK() {
		t.Errorf("over http: %+v", a)
	}
}

// A receiver cannot talk us out of TLS.
func TestNoDowngrade(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	plain := listen(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	for _, code := range []int{301, 302, 303, 307, 308} {
		s := serveTLS(t, serverTLS(ca.certificate(t, 0, nil)), func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", plain.url())
			w.Header().Set("Alt-Svc", "http/1.1=\""+plain.addr+"\"")
			w.WriteHeader(code)
		})
		client := http2Client(t, ca)
		for range 2 {
			if a := client.Do(t.Context(), post(s.URL, patience)); a.Err != delivery.ErrStatus || a.StatusCode != code {
				t.Errorf("got %+v", a)
			}
		}
	}
	if plain.conns.Load() != 0 {
		t.Error("http was spoken")
	}
}

// listenTLS starts a receiver that makes a handshake, right or wrong, and then
// reads until the client is gone.
func listenTLS(t *testing.T, cfg *tls.Config) *receiver {
	t.Helper()
	return listen(t, func(_ *receiver, c *net.TCPConn) {
		// It fails after its alert was sent.
		tls.Server(c, cfg).Handshake()
		untilClosed(c)
	})
}

// withSNI is a receiver's TLS that notes which name it was asked for.
func withSNI(cert tls.Certificate, sni *atomic.Value) *tls.Config {
	cfg := serverTLS(cert)
	cfg.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		sni.Store(h.ServerName)
		return nil, nil
	}
	return cfg
}

// The name in the URL is checked and sent as SNI, whatever the address.
func TestTLSByName(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	var sni atomic.Value
	s := serveTLS(t, withSNI(ca.certificate(t, 0, func(c *x509.Certificate) {
		c.IPAddresses, c.DNSNames = nil, []string{"hooks.example.com"}
	}), &sni), nil)
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	for host, class := range map[string]delivery.ErrorType{
		"hooks.example.com": "", "hooks.example.com.": "", "HOOKS.example.com": "",
		"evil.example.com": delivery.ErrTLS, "hooks.example.com.evil.example": delivery.ErrTLS,
	} {
		cfg := config(t, "127.0.0.1")
		cfg.RootCAs = ca.pool
		cfg.Resolver = startNameServer(t, 0, addrs("127.0.0.1"))
		a := newClient(t, cfg).Do(t.Context(), post("https://"+host+":"+port, patience))
		if a.Err != class || sni.Load() != strings.TrimSuffix(host, ".") {
			t.Errorf("%s: got %+v, SNI %v", host, a, sni.Load())
		}
		if class != "" {
			wantErr(t, a, class, host)
		}
	}
}

// An address in the URL must be in the certificate, and is no name to ask for.
func TestTLSByAddress(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	for _, host := range []string{"127.0.0.1", "::1"} {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Logf("this machine has no %s: %v", host, err)
			continue
		}
		var sni atomic.Value
		cert := ca.certificate(t, 0, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.ParseIP(host)} })
		s := serveTLSOn(t, l, withSNI(cert, &sni), nil)
		cfg := config(t, host)
		cfg.RootCAs = ca.pool
		if a := newClient(t, cfg).Do(t.Context(), post(s.URL, patience)); !a.OK() || sni.Load() != "" {
			t.Errorf("%s: got %+v, SNI %q", host, a, sni.Load())
		}
	}
}

func TestHTTP2(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	var hits atomic.Int32
	s := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{ca.certificate(t, 0, nil)}}, func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		io.Copy(io.Discard, r.Body)
		switch r.URL.Path {
		case "/abort":
			panic(http.ErrAbortHandler) // RST_STREAM
		case "/endless":
			for {
				if _, err := w.Write(make([]byte, 32<<10)); err != nil {
					return
				}
			}
		case "/hang":
			<-r.Context().Done()
		default:
			io.WriteString(w, r.Proto)
		}
	})
	cfg := config(t, "127.0.0.1")
	cfg.RootCAs = ca.pool
	client := newClient(t, cfg)
	if a := client.Do(t.Context(), post(s.URL, patience)); !a.OK() || a.Body != "HTTP/2.0" || !a.RemoteAddr.IsValid() {
		t.Errorf("got %+v", a)
	}
	if a := client.Do(t.Context(), post(s.URL+"/endless", patience)); !a.OK() || len(a.Body) != delivery.MaxStoredBody*len("\ufffd") {
		t.Errorf("endless: %d bytes, %q", len(a.Body), a.Err)
	}
	before := hits.Load()
	a := client.Do(t.Context(), post(s.URL+"/abort", patience))
	if a.OK() || a.Err != delivery.ErrConnect || hits.Load() != before+1 {
		t.Errorf("abort: %+v, %d requests", a, hits.Load()-before)
	}
	wantErr(t, client.Do(t.Context(), post(s.URL+"/hang", impatience)), delivery.ErrTimeout, "waiting for the answer")
}

// Wherever in the handshake a receiver falls silent, or however slowly it speaks,
// the time limit holds.
func TestHandshakeStalls(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		cfg := serverTLS(ca.certificate(t, 0, nil))
		cfg.MaxVersion = v
		behind := serveTLS(t, cfg, nil).Listener.Addr().String()
		for _, passed := range []int64{0, 1, 5, 60, 150, 400} { // of the server's bytes; a handshake has some 800
			t.Run(fmt.Sprintf("%#x after %d bytes", v, passed), func(t *testing.T) {
				t.Parallel()
				r := listen(t, func(r *receiver, c *net.TCPConn) {
					server, err := net.Dial("tcp", behind)
					if err != nil {
						return
					}
					defer server.Close()
					go func() {
						io.Copy(server, c)
						server.Close()
					}()
					io.CopyN(c, server, passed)
					<-r.done
				})
				cfg := config(t, "127.0.0.1")
				cfg.RootCAs = ca.pool
				a := newClient(t, cfg).Do(t.Context(), post(r.secureURL(), impatience))
				wantErr(t, a, delivery.ErrTimeout, "connecting")
				if a.Duration > patience/2 {
					t.Errorf("took %v", a.Duration)
				}
			})
		}
	}
}

// A handshake at a byte a second runs over the limit, and is given up.
func TestHandshakeByDrops(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gone := make(chan time.Time, 1)
		client := New(Config{DialContext: func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go io.Copy(io.Discard, theirs)
			go func() {
				defer theirs.Close()
				theirs.Write([]byte{22, 3, 3, 0x40, 0}) // the head of a long record
				for {
					if _, err := theirs.Write([]byte{0}); err != nil {
						gone <- time.Now()
						return
					}
					time.Sleep(time.Second)
				}
			}()
			return ours, nil
		}})
		defer client.Close()
		start := time.Now()
		a := client.Do(t.Context(), post("https://hooks.example/", 0))
		wantErr(t, a, delivery.ErrTimeout, "connecting")
		if a.Duration != DefaultTimeout {
			t.Errorf("took %v", a.Duration)
		}
		// The dial goes on for a while, because another request may want it.
		if d := (<-gone).Sub(start); d > dialLimit+time.Second {
			t.Errorf("the dial went on for %v", d)
		}
	})
}
