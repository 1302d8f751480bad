package console_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"maps"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/store"
)

// credentials are a certificate, which is an authority too, and its key, as PEM.
func credentials(t *testing.T, name string) (cert, key string) {
	t.Helper()
	private := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private))(t)
	encoded := must(x509.MarshalPKCS8PrivateKey(private))(t)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}))
}

// Credentials are given, replaced and taken away in the form, and a key is in no
// page, not even in that of a mistake.
func TestCredentialsOfAWebhook(t *testing.T) {
	t.Parallel()
	clock, ahead := aheadOf(t)
	d := newDesk(t, "http://desk.example", clock)
	b := d.signedIn(t, d.a.APIKey)
	cert, key := credentials(t, "<b>board</b>")
	other, otherKey := credentials(t, "other")
	secret := strings.Split(key, "\n")[1]
	form := url.Values{"name": {"n"}, "url": {"https://hooks.example/in"}, "method": {"POST"}, "event_types": {"ticket.created"}, "verify_ssl": {"on"}, "fields_mode": {"all"}}
	with := func(pairs ...string) url.Values {
		out := url.Values{}
		maps.Copy(out, form)
		for i := 0; i < len(pairs); i += 2 {
			out.Set(pairs[i], pairs[i+1])
		}
		return out
	}
	post := func(path string, form url.Values, status int, want string) {
		t.Helper()
		r, page := b.post(path, form)
		if r.StatusCode != status || !strings.Contains(page, want) {
			t.Errorf("%s answers %d without %q", path, r.StatusCode, want)
		}
		if strings.Contains(page, secret) || strings.Contains(page, strings.Split(otherKey, "\n")[1]) {
			t.Errorf("the answer of %s has the key", path)
		}
	}
	post("/console/webhooks/new", with("client_cert", cert), http.StatusBadRequest, "client_cert needs client_key")
	post("/console/webhooks/new", with("client_key", key), http.StatusBadRequest, "client_key needs client_cert")
	post("/console/webhooks/new", with("client_cert", cert, "client_key", otherKey), http.StatusBadRequest, "give it once more")
	post("/console/webhooks/new", with("ca_bundle", "no PEM"), http.StatusBadRequest, "no PEM</textarea>")
	post("/console/webhooks/new", with("client_cert", cert, "client_key", strings.ReplaceAll(key, "\n", "\r\n"), "ca_bundle", other), http.StatusOK, "It is not shown again.")
	list, _, err := d.store.Webhooks(t.Context(), d.a.TenantID, store.WebhookQuery{Limit: 10})
	if err != nil || len(list) != 1 {
		t.Fatal(len(list), err)
	}
	path := "/console/webhooks/" + list[0].WebhookID
	tls := func() *delivery.TLS {
		return must(d.store.Webhook(t.Context(), d.a.TenantID, list[0].WebhookID))(t).TLS
	}
	if got := tls(); got == nil || *got != (delivery.TLS{ClientCert: cert, ClientKey: key, CABundle: other}) {
		t.Fatalf("created with %+v", got)
	}
	for _, p := range []string{path, path + "/edit"} {
		_, page := b.get(p)
		if !strings.Contains(page, `CN=\&lt;b\&gt;board`) || strings.Contains(page, "<b>board") || strings.Contains(page, secret) {
			t.Errorf("%s shows too much or too little", p)
		}
	}
	post(path+"/edit", with("name", "renamed"), http.StatusSeeOther, "")
	if got := tls(); got == nil || got.ClientKey != key || got.CABundle != other {
		t.Errorf("a new name left %+v", got)
	}
	// One that has expired is said to be, and is no reason to refuse a new name.
	ahead(2 * time.Hour)
	if _, page := b.get(path); !strings.Contains(page, `<span class="badge bad">expired</span>`) {
		t.Error("a certificate that has expired is not said to be")
	}
	post(path+"/edit", with("name", "once more"), http.StatusSeeOther, "")
	ahead(0)
	if _, page := b.get(path); !strings.Contains(page, "valid until") {
		t.Error("a certificate that is valid is not said to be")
	}
	post(path+"/edit", with("client_cert", other), http.StatusBadRequest, "does not belong")
	post(path+"/edit", with("client_cert", other, "client_key", otherKey, "drop_ca", "on"), http.StatusSeeOther, "")
	if got := tls(); got == nil || *got != (delivery.TLS{ClientCert: other, ClientKey: otherKey}) {
		t.Errorf("replaced by %+v", got)
	}
	post(path+"/edit", with("drop_client", "on"), http.StatusSeeOther, "")
	if got := tls(); got != nil {
		t.Errorf("taken away left %+v", got)
	}
}
