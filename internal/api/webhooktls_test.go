package api_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
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
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/ticket"
	"github.com/ticketwire/ticketwire/webhook"
)

// pair is a certificate with its key, in PEM form.
type pair struct {
	cert, key string
	parsed    *x509.Certificate
	signer    crypto.Signer
}

// newPair makes a certificate that by signs, or that signs itself without one.
func newPair(t *testing.T, name string, notAfter time.Time, by *pair) pair {
	t.Helper()
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: notAfter, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, parentKey := template, crypto.Signer(signer)
	if by == nil {
		template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	} else {
		parent, parentKey = by.parsed, by.signer
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, signer.Public(), parentKey)
	must(t, err)
	parsed, err := x509.ParseCertificate(der)
	must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(signer)
	must(t, err)
	return pair{
		cert:   string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		key:    string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})),
		parsed: parsed, signer: signer,
	}
}

// secureReceiver starts an HTTPS target with a certificate of ca that takes
// clients of the same authority, and no others if it demands one. It sends the
// name of each client, "" without one.
func secureReceiver(t *testing.T, ca pair, auth tls.ClientAuthType) (url string, clients chan string) {
	t.Helper()
	clients = make(chan string, 100)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		name := ""
		if len(r.TLS.PeerCertificates) > 0 {
			name = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		clients <- name
	}))
	own := newPair(t, "receiver", time.Now().Add(time.Hour), &ca)
	cert, err := tls.X509KeyPair([]byte(own.cert), []byte(own.key))
	must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(ca.parsed)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: auth, ClientCAs: pool}
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are the point
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL, clients
}

// nextClient waits for the next name.
func nextClient(t *testing.T, clients chan string) string {
	t.Helper()
	select {
	case name := <-clients:
		return name
	case <-time.After(patience):
		t.Fatal("the receiver got no further request")
		return ""
	}
}

// TestWebhookTLS: a webhook's certificate and authorities work for it, for
// nobody else, and its key is not seen again.
func TestWebhookTLS(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	ca := newPair(t, "Our authority", time.Now().Add(time.Hour), nil)
	url, clients := secureReceiver(t, ca, tls.RequireAndVerifyClientCert)
	open, anybody := secureReceiver(t, ca, tls.RequestClientCert)
	mine := newPair(t, "mine", time.Now().Add(time.Hour), &ca)

	made := h.createWebhook(t, url, map[string]any{"tls": map[string]any{"client_cert": mine.cert, "client_key": mine.key, "ca_bundle": ca.cert}})
	id := made["webhook_id"].(string)
	view := map[string]any{
		"client_cert_subject": "CN=mine", "client_cert_expires_at": webhook.At(mine.parsed.NotAfter).String(),
		"has_client_key": true, "has_ca_bundle": true,
	}
	if diff := cmp.Diff(any(view), made["tls"]); diff != "" {
		t.Errorf("the record shows (-want +got):\n%s", diff)
	}
	h.createTicket(t)
	if got := nextClient(t, clients); got != "mine" {
		t.Errorf("a delivery was made as %q", got)
	}
	try := func(id string) any {
		t.Helper()
		return h.do(t, "POST", "/webhooks/"+id+"/test", h.a.APIKey, nil).want(t, http.StatusOK).at("data", "success")
	}
	if try(id) != true || nextClient(t, clients) != "mine" {
		t.Error("a test does not use the certificate")
	}
	probe := func(fields map[string]any) *response {
		t.Helper()
		return h.do(t, "POST", "/webhooks/test", h.a.APIKey, merged(map[string]any{"test_event_type": "ticket.created"}, fields)).want(t, http.StatusOK)
	}
	if probe(map[string]any{"webhook_id": id}).at("data", "success") != true || nextClient(t, clients) != "mine" {
		t.Error("an ad hoc test does not use the certificate")
	}
	// Another address gets neither the certificate nor the trust.
	if r := probe(map[string]any{"webhook_id": id, "override_url": open}); r.at("data", "error_type") != "tls" {
		t.Errorf("with another address: %s", r.Raw)
	}
	other := h.createWebhook(t, open, map[string]any{"is_active": false, "tls": map[string]any{"ca_bundle": ca.cert}})
	if try(other["webhook_id"].(string)) != true || nextClient(t, anybody) != "" {
		t.Error("a webhook with a bundle alone fails, or shows the certificate of another")
	}

	deliveries := h.do(t, "GET", "/webhooks/"+id+"/deliveries", h.a.APIKey, nil).want(t, http.StatusOK)
	for _, r := range []*response{
		h.do(t, "GET", "/webhooks/"+id, h.a.APIKey, nil), h.do(t, "GET", "/webhooks", h.a.APIKey, nil), deliveries,
		h.do(t, "GET", "/webhooks/"+id+"/deliveries/"+deliveries.text("data", 0, "delivery_id"), h.a.APIKey, nil),
		h.do(t, "PUT", "/webhooks/"+id, h.a.APIKey, map[string]any{"name": "n"}, "X-Idempotency-Key", "one"),
		h.do(t, "PUT", "/webhooks/"+id, h.a.APIKey, map[string]any{"tls": map[string]any{"client_cert": "x"}}),
	} {
		if bytes.Contains(r.Raw, []byte("PRIVATE KEY")) || bytes.Contains(r.Raw, []byte(strings.Split(mine.key, "\n")[1])) {
			t.Errorf("the key is in %s", r.Raw)
		}
	}
}

// TestWebhookTLSMerges: what an update leaves out stays, because nobody can send
// back a key that is never shown.
func TestWebhookTLSMerges(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	soon := time.Now().Add(time.Hour)
	ca := newPair(t, "Our authority", soon, nil)
	url, clients := secureReceiver(t, ca, tls.RequestClientCert)
	one, two := newPair(t, "one", soon, &ca), newPair(t, "two", soon, &ca)
	id := h.createWebhook(t, url, map[string]any{"is_active": false})["webhook_id"].(string)
	for i, step := range []struct {
		tls        any
		cert       any // the subject that the record shows
		key, trust bool
		client     string // whom the receiver sees; "-" when the exchange fails
	}{
		{map[string]any{"ca_bundle": ca.cert}, nil, false, true, ""},
		{map[string]any{"client_cert": one.cert, "client_key": one.key}, "CN=one", true, true, "one"},
		{map[string]any{}, "CN=one", true, true, "one"},
		{map[string]any{"client_cert": two.cert, "client_key": two.key}, "CN=two", true, true, "two"},
		{map[string]any{"ca_bundle": nil}, "CN=two", true, false, "-"},
		{map[string]any{"ca_bundle": ca.cert, "client_cert": nil, "client_key": nil}, nil, false, true, ""},
		{nil, nil, false, false, "-"},
	} {
		got := h.do(t, "PUT", "/webhooks/"+id, h.a.APIKey, map[string]any{"tls": step.tls}).want(t, http.StatusOK).data(t)
		view, _ := got["tls"].(map[string]any)
		if step.tls == nil && got["tls"] != nil || step.tls != nil &&
			(view["client_cert_subject"] != step.cert || view["has_client_key"] != step.key || view["has_ca_bundle"] != step.trust) {
			t.Errorf("step %d: the record shows %v", i, got["tls"])
		}
		// What a client reads it can send back, and that changes nothing.
		back := h.do(t, "PUT", "/webhooks/"+id, h.a.APIKey, got).want(t, http.StatusOK).data(t)
		if diff := cmp.Diff(got["tls"], back["tls"]); diff != "" {
			t.Errorf("step %d: sent back (-before +after):\n%s", i, diff)
		}
		h.do(t, "POST", "/webhooks/"+id+"/test", h.a.APIKey, nil).want(t, http.StatusOK)
		select {
		case name := <-clients:
			if name != step.client {
				t.Errorf("step %d: the receiver saw %q", i, name)
			}
		default:
			if step.client != "-" {
				t.Errorf("step %d: the receiver saw nobody", i)
			}
		}
	}
}

// TestWebhookTLSRefusals: what could not work is refused when it is sent.
func TestWebhookTLSRefusals(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	soon := time.Now().Add(time.Hour)
	ca := newPair(t, "Our authority", soon, nil)
	one, two := newPair(t, "one", soon, &ca), newPair(t, "two", soon, &ca)
	old := newPair(t, "old", time.Now().Add(-time.Hour), &ca)
	made := h.createWebhook(t, nowhere, map[string]any{"tls": map[string]any{"client_cert": one.cert, "client_key": one.key}})
	id := made["webhook_id"].(string)
	base := map[string]any{"name": "x", "url": nowhere, "event_types": []string{"ticket.created"}}
	for _, tt := range []struct {
		tls    any
		issue  string
		create bool // otherwise only in an update
	}{
		{"x", "tls invalid_type", true},
		{map[string]any{"client_cert": 1}, "tls.client_cert invalid_type", true},
		{map[string]any{"client_cert": ""}, "tls.client_cert too_small", true},
		{map[string]any{"pfx": "x"}, "tls unrecognized_keys", true},
		{map[string]any{"client_cert": "x", "client_key": one.key}, "tls.client_cert custom", true},
		{map[string]any{"client_cert": one.cert, "client_key": "x"}, "tls.client_key custom", true},
		{map[string]any{"client_cert": one.cert, "client_key": two.key}, "tls.client_key custom", true},
		{map[string]any{"client_cert": old.cert, "client_key": old.key}, "tls.client_cert custom", true},
		{map[string]any{"ca_bundle": one.key}, "tls.ca_bundle custom", true},
		{map[string]any{"ca_bundle": old.cert}, "tls.ca_bundle custom", true},
		{map[string]any{"client_cert": two.cert}, "tls.client_key custom", false},
		{map[string]any{"client_key": two.key}, "tls.client_key custom", false},
		{map[string]any{"client_key": nil}, "tls.client_key custom", false},
		{map[string]any{"client_cert": nil}, "tls.client_cert custom", false},
	} {
		if tt.create {
			e := h.do(t, "POST", "/webhooks", h.a.APIKey, merged(base, map[string]any{"tls": tt.tls})).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
			wantIssue(t, e, tt.issue)
		}
		e := h.do(t, "PUT", "/webhooks/"+id, h.a.APIKey, map[string]any{"name": "changed", "tls": tt.tls}).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
		wantIssue(t, e, tt.issue)
	}
	got := h.do(t, "GET", "/webhooks/"+id, h.a.APIKey, nil).want(t, http.StatusOK).data(t)
	if diff := cmp.Diff(without(made, "signing_secret"), got); diff != "" {
		t.Errorf("refused bodies changed the webhook (-before +after):\n%s", diff)
	}
	parts := map[string]any{"client_cert": nil, "client_key": nil, "ca_bundle": nil}
	if got := h.do(t, "PUT", "/webhooks/"+id, h.a.APIKey, map[string]any{"tls": parts}).want(t, http.StatusOK); got.at("data", "tls") != nil {
		t.Errorf("without any part the record shows %s", got.Raw)
	}
}

// TestExpiredCertificateBlocksNoEdit: a certificate that expires later fails its
// deliveries with a reason, and nothing else.
func TestExpiredCertificateBlocksNoEdit(t *testing.T) {
	t.Parallel()
	now := time.Now()
	var passed atomic.Int64 // hours, from two before now
	h := newHarness(t, func(s *settings) {
		s.now = func() time.Time { return now.Add(time.Duration(passed.Load()-2) * time.Hour) }
	})
	ca := newPair(t, "Our authority", now.Add(time.Hour), nil)
	url, _ := secureReceiver(t, ca, tls.RequestClientCert)
	old := newPair(t, "old", now.Add(-time.Hour), &ca) // expired for the connection, valid for the harness
	id := h.createWebhook(t, url, map[string]any{"is_active": false, "tls": map[string]any{
		"client_cert": old.cert, "client_key": old.key, "ca_bundle": newPair(t, "x", now.Add(time.Hour), nil).cert,
	}})["webhook_id"].(string)
	r := h.do(t, "POST", "/webhooks/"+id+"/test", h.a.APIKey, nil).want(t, http.StatusOK)
	if want := "expired on " + old.parsed.NotAfter.UTC().Format(time.DateOnly); r.at("data", "error_type") != "tls" || !strings.Contains(r.text("data", "error_message"), want) {
		t.Errorf("a delivery with an expired certificate: %s", r.Raw)
	}
	passed.Store(2)
	h.do(t, "PUT", "/webhooks/"+id, h.a.APIKey, map[string]any{"name": "renamed"}).want(t, http.StatusOK)
	h.do(t, "PUT", "/webhooks/"+id, h.a.APIKey, map[string]any{"tls": map[string]any{}}).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
}

func TestTLSWarnings(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	bundle := map[string]any{"ca_bundle": newPair(t, "x", time.Now().Add(time.Hour), nil).cert}
	for _, tt := range []struct {
		fields map[string]any
		want   string
	}{
		{map[string]any{"verify_ssl": false}, "whoever answers"},
		{map[string]any{"verify_ssl": false, "tls": bundle}, "ca_bundle has no effect"},
		{map[string]any{"url": "http://receiver.example/", "tls": bundle}, "no effect on an http url"},
	} {
		body := merged(map[string]any{"name": "x", "url": nowhere, "event_types": []string{"ticket.created"}}, tt.fields)
		got := h.do(t, "POST", "/webhooks", h.a.APIKey, body).want(t, http.StatusCreated)
		if list := fmt.Sprint(got.at("meta", "warnings")); !strings.Contains(list, tt.want) {
			t.Errorf("%v: warnings %s", tt.fields, list)
		}
	}
}

// TestOperatorPolicy: what the operator does not permit is refused when a
// webhook is saved, and no webhook from before gets through.
func TestOperatorPolicy(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("the receiver was called")
	}))
	t.Cleanup(server.Close)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	h := newHarness(t, func(s *settings) { s.egress.HTTPSOnly, s.egress.RefuseInsecureTLS = true, true })
	base := map[string]any{"name": "x", "url": nowhere, "event_types": []string{"ticket.created"}}
	id := h.createWebhook(t, server.URL)["webhook_id"].(string)
	for _, tt := range []struct {
		fields map[string]any
		issue  string
	}{
		{map[string]any{"verify_ssl": false}, "verify_ssl custom"},
		{map[string]any{"url": "http://receiver.example/"}, "url custom"},
	} {
		wantIssue(t, h.do(t, "POST", "/webhooks", h.a.APIKey, merged(base, tt.fields)).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR"), tt.issue)
		wantIssue(t, h.do(t, "PUT", "/webhooks/"+id, h.a.APIKey, tt.fields).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR"), tt.issue)
	}
	wantIssue(t, h.do(t, "POST", "/webhooks/test", h.a.APIKey, map[string]any{"test_event_type": "ticket.created", "override_url": "http://receiver.example/"}).
		wantError(t, http.StatusBadRequest, "VALIDATION_ERROR"), "override_url custom")

	// As if it had been saved when that was permitted.
	_, _, err := h.store.UpdateWebhook(t.Context(), h.now(), ticket.Actor{TenantID: h.a.TenantID, UserID: h.a.UserID}, id, func(s *delivery.Spec) error { s.VerifySSL = false; return nil }, false)
	must(t, err)
	r := h.do(t, "POST", "/webhooks/"+id+"/test", h.a.APIKey, nil).want(t, http.StatusOK)
	if r.at("data", "error_type") != "tls" || !strings.Contains(r.text("data", "error_message"), "not permitted") {
		t.Errorf("verify_ssl=false from before: %s", r.Raw)
	}
}
