package egress

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
)

// authority signs certificates for the receivers of one test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "Test authority"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
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
	return &authority{cert, key, pool}
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
	var public, private any
	if rsaBits > 0 {
		key, err := rsa.GenerateKey(rand.Reader, rsaBits)
		if err != nil {
			t.Fatal(err)
		}
		public, private = key.Public(), key
	} else {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		public, private = key.Public(), key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
}

// serveTLS starts an HTTPS receiver that answers 200 with the protocol used.
func serveTLS(t *testing.T, cfg *tls.Config, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	if handler == nil {
		handler = func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			io.WriteString(w, r.Proto)
		}
	}
	s := httptest.NewUnstartedServer(handler)
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
	tests := []struct {
		name string
		cfg  *tls.Config
		word string // of the failure; "" for success
	}{
		{"good", &tls.Config{Certificates: []tls.Certificate{good}}, ""},
		{"only 1.2", &tls.Config{Certificates: []tls.Certificate{good}, MaxVersion: tls.VersionTLS12}, ""},
		{"RSA 2048", &tls.Config{Certificates: []tls.Certificate{ca.certificate(t, 2048, nil)}}, ""},
		{"RSA 1024", &tls.Config{Certificates: []tls.Certificate{ca.certificate(t, 1024, nil)}}, "shorter than 2048"},
		{"only 1.1", &tls.Config{Certificates: []tls.Certificate{good}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, "version"},
		{"stranger", &tls.Config{Certificates: []tls.Certificate{stranger.certificate(t, 0, nil)}}, "unknown authority"},
		{"expired", &tls.Config{Certificates: []tls.Certificate{ca.certificate(t, 0, func(c *x509.Certificate) {
			c.NotAfter = time.Now().Add(-time.Minute)
		})}}, "expired"},
		{"not yet valid", &tls.Config{Certificates: []tls.Certificate{ca.certificate(t, 0, func(c *x509.Certificate) {
			c.NotBefore = time.Now().Add(time.Minute)
		})}}, "not yet valid"},
		{"wrong name", &tls.Config{Certificates: []tls.Certificate{ca.certificate(t, 0, func(c *x509.Certificate) {
			c.IPAddresses, c.DNSNames = nil, []string{"other.example"}
		})}}, "127.0.0.1"},
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
			if tt.name == "only 1.1" {
				return
			}
			req := post(s.URL, patience)
			req.VerifySSL = false
			if a := client.Do(t.Context(), req); !a.OK() || hits.Load() != 1 {
				t.Errorf("verify_ssl=false: got %+v", a)
			}
			// That one trust does not leak into the other pool.
			if a := client.Do(t.Context(), post(s.URL, patience)); a.Err != delivery.ErrTLS {
				t.Errorf("after verify_ssl=false: got %+v", a)
			}
		})
	}
}

// The name in the URL is checked and sent as SNI, whatever the address.
func TestTLSByName(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	var sni atomic.Value
	cert := ca.certificate(t, 0, func(c *x509.Certificate) {
		c.IPAddresses, c.DNSNames = nil, []string{"hooks.example.com"}
	})
	s := serveTLS(t, &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		sni.Store(h.ServerName)
		return &cert, nil
	}}, nil)
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	cfg := config(t, "127.0.0.1")
	cfg.RootCAs = ca.pool
	cfg.Resolver = startNameServer(t, 0, addrs("127.0.0.1"))
	client := newClient(t, cfg)
	if a := client.Do(t.Context(), post("https://hooks.example.com:"+port, patience)); !a.OK() || sni.Load() != "hooks.example.com" {
		t.Errorf("got %+v, SNI %v", a, sni.Load())
	}
	wantErr(t, client.Do(t.Context(), post("https://evil.example.com:"+port, patience)), delivery.ErrTLS, "evil.example.com")
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

func TestHandshakeStalls(t *testing.T) {
	t.Parallel()
	r := listen(t, func(_ *receiver, c *net.TCPConn) { untilClosed(c) })
	a := localClient(t).Do(t.Context(), post(strings.Replace(r.url(), "http:", "https:", 1), impatience))
	wantErr(t, a, delivery.ErrTimeout, "connecting")
}
