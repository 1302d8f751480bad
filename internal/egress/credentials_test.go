package egress

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
)

// clientCertificate makes credentials that a names, changed by edit.
func (a *authority) clientCertificate(t *testing.T, name string, edit func(*x509.Certificate)) *delivery.TLS {
	t.Helper()
	cert := a.certificate(t, 0, func(c *x509.Certificate) {
		c.SerialNumber, c.Subject.CommonName, c.IPAddresses = big.NewInt(time.Now().UnixNano()), name, nil
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		if edit != nil {
			edit(c)
		}
	})
	return &delivery.TLS{ClientCert: certPEM(cert.Certificate...), ClientKey: keyPEM(t, cert.PrivateKey)}
}

func certPEM(ders ...[]byte) string {
	var out []byte
	for _, der := range ders {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return string(out)
}

func keyPEM(t *testing.T, key crypto.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// demanding is the TLS of a receiver that takes clients of one authority only.
func demanding(t *testing.T, ca, clients *authority, version uint16) *tls.Config {
	t.Helper()
	cfg := serverTLS(ca.certificate(t, 0, nil))
	cfg.ClientAuth, cfg.ClientCAs, cfg.MaxVersion = tls.RequireAndVerifyClientCert, clients.pool, version
	return cfg
}

// shown answers with the name in the client's certificate, "" for none, and
// whether the TLS session was resumed.
func shown(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	name := ""
	if len(r.TLS.PeerCertificates) > 0 {
		name = r.TLS.PeerCertificates[0].Subject.CommonName
	}
	fmt.Fprintf(w, "%q resumed=%t", name, r.TLS.DidResume)
}

func postWith(url string, credentials *delivery.TLS) Request {
	req := post(url, patience)
	req.TLS = credentials
	return req
}

func TestClientCertificates(t *testing.T) {
	t.Parallel()
	ca, clients, strangers := newAuthority(t), newAuthority(t), newAuthority(t)
	right := clients.clientCertificate(t, "right", nil)
	expired := clients.clientCertificate(t, "expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	early := clients.clientCertificate(t, "early", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })
	mixed := &delivery.TLS{ClientCert: right.ClientCert, ClientKey: expired.ClientKey}
	tests := []struct {
		name string
		tls  *delivery.TLS
		word string // of the failure
	}{
		{"right", right, ""},
		{"chain", clients.intermediate(t, 0).clientCertificate(t, "chain", nil), ""},
		{"none", nil, "the receiver says: "},
		{"of another authority", strangers.clientCertificate(t, "wrong", nil), "the receiver says: "},
		{"for servers", clients.clientCertificate(t, "server", func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}), "the receiver says: "},
		{"expired", expired, "expired on "},
		{"not yet valid", early, "not valid before "},
		{"with another key", mixed, "cannot be used"},
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		s := serveTLS(t, demanding(t, ca, clients, version), shown)
		client := http2Client(t, ca)
		for _, tt := range tests {
			// Twice: what was refused once is refused from the pool too.
			for range 2 {
				a := client.Do(t.Context(), postWith(s.URL, tt.tls))
				if tt.word == "" {
					if !a.OK() || !strings.HasPrefix(a.Body, fmt.Sprintf("%q", tt.name)) {
						t.Errorf("%#x, %s: got %+v", version, tt.name, a)
					}
					continue
				}
				if version == tls.VersionTLS13 && a.Err == delivery.ErrConnect && strings.HasPrefix(tt.word, "the receiver") {
					// The receiver closes before it has read our request, and the
					// reset may overtake its alert.
					continue
				}
				wantErr(t, a, delivery.ErrTLS, "127.0.0.1", tt.word)
			}
		}
		// verify_ssl=false is about the receiver's certificate, not about ours.
		req := postWith(s.URL, right)
		req.VerifySSL = false
		if a := client.Do(t.Context(), req); !a.OK() {
			t.Errorf("%#x, verify_ssl=false: got %+v", version, a)
		}
	}
}

// A TLS 1.3 receiver that reads on after it refused our certificate gets its
// reason through.
func TestRefusedAfterTheHandshake(t *testing.T) {
	t.Parallel()
	ca, clients := newAuthority(t), newAuthority(t)
	cfg := demanding(t, ca, clients, tls.VersionTLS13)
	r := listenTLS(t, cfg)
	client := http2Client(t, ca)
	wantErr(t, client.Do(t.Context(), post(r.secureURL(), patience)), delivery.ErrTLS, r.addr, "certificate required")
	wrong := newAuthority(t).clientCertificate(t, "wrong", nil)
	wantErr(t, client.Do(t.Context(), postWith(r.secureURL(), wrong)), delivery.ErrTLS, r.addr, "the receiver says: ")
}

// Each webhook shows its own certificate or none, on connections and in TLS
// sessions of its own, whoever else calls the same receiver.
func TestCertificatesDoNotLeak(t *testing.T) {
	t.Parallel()
	ca, clients := newAuthority(t), newAuthority(t)
	one, two := clients.clientCertificate(t, "one", nil), clients.clientCertificate(t, "two", nil)
	bundle := &delivery.TLS{CABundle: certPEM(ca.cert.Raw)}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, keep := range []bool{true, false} { // without kept connections sessions are resumed
			cfg := serverTLS(ca.certificate(t, 0, nil))
			cfg.ClientAuth, cfg.MaxVersion = tls.RequestClientCert, version
			s := serveTLS(t, cfg, func(w http.ResponseWriter, r *http.Request) {
				if !keep {
					w.Header().Set("Connection", "close") // GOAWAY in HTTP/2
				}
				shown(w, r)
			})
			client := http2Client(t, ca)
			resumed := map[string]bool{}
			for round := range 4 {
				for _, tt := range []struct {
					credentials *delivery.TLS
					insecure    bool
					want        string
				}{{one, false, "one"}, {nil, false, ""}, {two, false, "two"}, {bundle, false, ""}, {one, true, "one"}, {nil, true, ""}} {
					req := postWith(s.URL, tt.credentials)
					req.VerifySSL = !tt.insecure
					a := client.Do(t.Context(), req)
					if !a.OK() || !strings.HasPrefix(a.Body, fmt.Sprintf("%q", tt.want)) {
						t.Errorf("%#x, keep %t, round %d, %q: got %+v", version, keep, round, tt.want, a)
					}
					resumed[tt.want] = resumed[tt.want] || strings.HasSuffix(a.Body, "resumed=true")
				}
			}
			want := map[string]bool{"one": !keep, "two": !keep, "": !keep}
			if diff := cmp.Diff(want, resumed); diff != "" {
				t.Errorf("%#x, keep %t: resumed sessions (-want +got):\n%s", version, keep, diff)
			}
		}
	}
}

// The bundle of one webhook is trusted for that webhook only, beside what
// everybody trusts, and it does not excuse anything else.
func TestBundle(t *testing.T) {
	t.Parallel()
	public, private := newAuthority(t), newAuthority(t)
	known := serveTLS(t, serverTLS(public.certificate(t, 0, nil)), nil)
	ours := serveTLS(t, serverTLS(private.certificate(t, 0, nil)), nil)
	otherName := serveTLS(t, serverTLS(private.certificate(t, 0, func(c *x509.Certificate) { c.IPAddresses = nil })), nil)
	client := http2Client(t, public)
	bundle := &delivery.TLS{CABundle: "our authority\n" + certPEM(newAuthority(t).cert.Raw, private.cert.Raw)}
	for range 2 {
		for i, tt := range []struct {
			url    string
			tls    *delivery.TLS
			verify bool
			class  delivery.ErrorType
		}{
			{ours.URL, bundle, true, ""},
			{known.URL, bundle, true, ""},
			{otherName.URL, bundle, false, ""},
			{otherName.URL, bundle, true, delivery.ErrTLS},
			{ours.URL, nil, true, delivery.ErrTLS},
			{ours.URL, &delivery.TLS{CABundle: certPEM(public.cert.Raw)}, true, delivery.ErrTLS},
			{ours.URL, &delivery.TLS{CABundle: "nothing"}, true, delivery.ErrTLS},
			{known.URL, nil, true, ""},
		} {
			req := postWith(tt.url, tt.tls)
			req.VerifySSL = tt.verify
			if a := client.Do(t.Context(), req); a.Err != tt.class {
				t.Errorf("case %d: got %+v, want class %q", i, a, tt.class)
			}
		}
	}
}

// Pools are bounded, and one that comes back works.
func TestPoolsAreBounded(t *testing.T) {
	t.Parallel()
	ca, clients := newAuthority(t), newAuthority(t)
	cfg := serverTLS(ca.certificate(t, 0, nil))
	cfg.ClientAuth = tls.RequestClientCert
	s := serveTLS(t, cfg, shown)
	client := http2Client(t, ca)
	one := clients.clientCertificate(t, "one", nil)
	for i := range maxPools + 2 {
		// Another text is another set of credentials, and cheap to make.
		set := *one
		set.ClientKey = fmt.Sprintf("key %d\n%s", i%(maxPools+1), one.ClientKey)
		if a := client.Do(t.Context(), postWith(s.URL, &set)); !a.OK() {
			t.Fatalf("set %d: got %+v", i, a)
		}
	}
	if n := len(client.pools.byKey); n != maxPools || client.pools.recent.Len() != n {
		t.Errorf("%d pools, %d in the list", n, client.pools.recent.Len())
	}
}

func TestPoolsUnderLoad(t *testing.T) {
	t.Parallel()
	ca, clients := newAuthority(t), newAuthority(t)
	cfg := serverTLS(ca.certificate(t, 0, nil))
	cfg.ClientAuth = tls.RequestClientCert
	s := serveTLS(t, cfg, shown)
	client := http2Client(t, ca)
	var wg sync.WaitGroup
	for i := range 8 {
		name := fmt.Sprint("client ", i)
		credentials := clients.clientCertificate(t, name, nil)
		wg.Go(func() {
			for range 20 {
				if a := client.Do(t.Context(), postWith(s.URL, credentials)); !strings.HasPrefix(a.Body, fmt.Sprintf("%q", name)) {
					t.Errorf("%s: got %+v", name, a)
				}
			}
		})
	}
	wg.Wait()
}

func TestCheckTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	good, other := ca.clientCertificate(t, "good", nil), ca.clientCertificate(t, "other", nil)
	expired := ca.clientCertificate(t, "old", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	early := ca.clientCertificate(t, "early", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })
	weak := ca.certificate(t, 1024, nil)
	bundle := certPEM(ca.cert.Raw)
	block, _ := pem.Decode([]byte(good.ClientKey))
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(key.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	asPEM := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	tests := []struct {
		name  string
		tls   *delivery.TLS
		field string // "" passes
		word  string
	}{
		{"nothing", nil, "", ""},
		{"empty", &delivery.TLS{}, "", ""},
		{"pair", good, "", ""},
		{"chain", ca.intermediate(t, 0).clientCertificate(t, "chain", nil), "", ""},
		{"SEC 1 key", &delivery.TLS{ClientCert: good.ClientCert, ClientKey: asPEM("EC PRIVATE KEY", sec1)}, "", ""},
		{"pair and bundle", &delivery.TLS{ClientCert: good.ClientCert, ClientKey: good.ClientKey, CABundle: bundle}, "", ""},
		{"text around the blocks", &delivery.TLS{CABundle: "subject=x\n" + bundle + "\nsubject=y\n" + bundle + "\n\n"}, "", ""},
		{"certificate alone", &delivery.TLS{ClientCert: good.ClientCert}, "client_key", "needs"},
		{"key alone", &delivery.TLS{ClientKey: good.ClientKey}, "client_cert", "needs"},
		{"no PEM", &delivery.TLS{ClientCert: "MIIB", ClientKey: good.ClientKey}, "client_cert", "no certificate in PEM form"},
		{"damaged", &delivery.TLS{ClientCert: asPEM("CERTIFICATE", []byte("x")), ClientKey: good.ClientKey}, "client_cert", "damaged"},
		{"key in the certificate", &delivery.TLS{ClientCert: good.ClientCert + good.ClientKey, ClientKey: good.ClientKey}, "client_cert", "PRIVATE KEY"},
		{"key of another", &delivery.TLS{ClientCert: good.ClientCert, ClientKey: other.ClientKey}, "client_key", "does not belong"},
		{"certificate as key", &delivery.TLS{ClientCert: good.ClientCert, ClientKey: good.ClientCert}, "client_key", "no private key"},
		{"damaged key", &delivery.TLS{ClientCert: good.ClientCert, ClientKey: asPEM("PRIVATE KEY", []byte("x"))}, "client_key", "damaged"},
		{"encrypted key", &delivery.TLS{ClientCert: good.ClientCert, ClientKey: asPEM("ENCRYPTED PRIVATE KEY", []byte("x"))}, "client_key", "pass phrase"},
		{"expired", expired, "client_cert", "expired on 2"},
		{"not yet valid", early, "client_cert", "not valid before 2"},
		{"weak", &delivery.TLS{ClientCert: certPEM(weak.Certificate...), ClientKey: keyPEM(t, weak.PrivateKey)}, "client_cert", "2048"},
		{"long certificate", &delivery.TLS{ClientCert: strings.Repeat(good.ClientCert, 100), ClientKey: good.ClientKey}, "client_cert", "longer"},
		{"long key", &delivery.TLS{ClientCert: good.ClientCert, ClientKey: strings.Repeat(" ", 1<<20) + good.ClientKey}, "client_key", "longer"},
		{"bundle without certificates", &delivery.TLS{CABundle: "\n"}, "ca_bundle", "no certificate in PEM form"},
		{"key in the bundle", &delivery.TLS{CABundle: bundle + good.ClientKey}, "ca_bundle", "PRIVATE KEY"},
		{"expired bundle", &delivery.TLS{CABundle: bundle + expired.ClientCert}, "ca_bundle", "CN=old: expired"},
		{"long bundle", &delivery.TLS{CABundle: strings.Repeat(bundle, 300)}, "ca_bundle", "longer"},
	}
	for _, tt := range tests {
		err := CheckTLS(time.Now(), tt.tls)
		if tt.field == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		f, ok := err.(*fault.Error)
		if !ok || f.Kind != fault.Invalid || len(f.Issues) != 1 {
			t.Errorf("%s: got %#v", tt.name, err)
			continue
		}
		if diff := cmp.Diff([]any{"tls", tt.field}, f.Issues[0].Path); diff != "" {
			t.Errorf("%s: path (-want +got):\n%s", tt.name, diff)
		}
		if !strings.Contains(f.Issues[0].Message, tt.word) {
			t.Errorf("%s: %q does not say %q", tt.name, f.Issues[0].Message, tt.word)
		}
	}
	both := CheckTLS(time.Now(), &delivery.TLS{ClientCert: "x", ClientKey: "y", CABundle: "z"})
	if f, ok := both.(*fault.Error); !ok || len(f.Issues) != 2 {
		t.Errorf("two mistakes: got %#v", both)
	}
}
