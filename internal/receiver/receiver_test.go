package receiver

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/inbox"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/filelock"
	"github.com/ticketwire/ticketwire/test/postgres"
	"github.com/ticketwire/ticketwire/webhook"
)

// Case 112: whatever arrives how often at the same moment, the reaction runs once.
func TestHundredCopiesAreOneReaction(t *testing.T) {
	t.Parallel()
	for _, place := range []string{"sqlite", "postgres"} {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			var got seen
			cfg := config(t, got.react)
			if place == "postgres" {
				cfg.DatabaseURL = urlOf(postgres.Start(t))
			}
			r, c := start(t, cfg), caller(t)
			body := envelope("E1", "T1", time.Now())
			var all sync.WaitGroup
			for range 100 {
				all.Go(func() {
					if status, text := send(t, c, request(t, r.URL(), body)); status != http.StatusOK {
						t.Errorf("a copy was answered with %d %s", status, text)
					}
				})
			}
			all.Wait()
			accepted(t, c, r, envelope("E2", "T1", time.Now().Add(time.Second))) // behind it in the same queue
			events := got.await(t, 2)
			if len(events) != 2 || events[0].EventID != "E1" || events[0].Attempt != 1 {
				t.Errorf("%d reactions, want one for each of two events", len(events))
			}
			if !bytes.Equal(events[0].Raw, body) {
				t.Errorf("the reaction got the bytes %s", events[0].Raw)
			}
		})
	}
}

// urlOf turns the connection string of package postgres into a URL.
func urlOf(dsn string) string {
	parts := map[string]string{}
	for field := range strings.FieldsSeq(dsn) {
		k, v, _ := strings.Cut(field, "=")
		parts[k] = v
	}
	return fmt.Sprintf("postgres://%s@/%s?host=%s", parts["user"], parts["dbname"], parts["host"])
}

// Case 114: what fails every time waits for a person, and runs again when he says
// so.
func TestPoisonIsADeadLetterUntilReplayed(t *testing.T) {
	t.Parallel()
	var got seen
	got.fail(errors.New("the other system is down"))
	cfg := config(t, got.react)
	cfg.Attempts = 3
	r, c := start(t, cfg), caller(t)
	accepted(t, c, r, envelope("E1", "T1", time.Now()))
	var dead []inbox.DeadLetter
	eventually(t, "a dead letter", func() bool {
		var err error
		dead, err = r.Store().DeadLetters(t.Context(), inbox.DeadLetter{}, 10)
		must(t, err)
		return len(dead) == 1
	})
	if n := len(got.all()); n != 3 || dead[0].Attempts != 3 || !strings.Contains(dead[0].Error, "is down") {
		t.Errorf("after %d reactions: %+v", n, dead[0])
	}
	if _, text := get(t, c, r.AdminURL()+"/metrics"); !strings.Contains(text, "ticketwire_receiver_dead_letters 1") ||
		!strings.Contains(text, `ticketwire_receiver_reactions_total{result="dead"} 1`) {
		t.Errorf("the metrics do not show it:\n%s", text)
	}
	got.fail(nil)
	// Another process does it, as receive dead.
	other, err := OpenStore(t.Context(), StoreConfig{Dir: cfg.DataDir, MustExist: true, Log: cfg.Log, Now: time.Now})
	must(t, err)
	defer other.Close()
	must(t, other.Replay(t.Context(), time.Now(), dead[0].Key))
	if events := got.await(t, 4); events[3].Attempt != 1 {
		t.Errorf("the replay began with attempt %d", events[3].Attempt)
	}
	accepted(t, c, r, envelope("E1", "T1", time.Now())) // done: nothing happens
	accepted(t, c, r, envelope("E2", "T2", time.Now()))
	if events := got.await(t, 5); len(events) != 5 || events[4].EventID != "E2" {
		t.Errorf("%d reactions, want 5", len(events))
	}
}

func TestOneReceiverPerDirectory(t *testing.T) {
	t.Parallel()
	cfg := config(t, new(seen).react)
	start(t, cfg)
	if _, err := New(t.Context(), cfg); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second receiver got %v", err)
	}
}

func TestConfigThatIsWrong(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Config){
		"Secrets":        func(c *Config) { c.Secrets = nil },
		"data directory": func(c *Config) { c.DataDir = "" },
		"/":              func(c *Config) { c.Path = "hook" },
		"TLS":            func(c *Config) { c.TLSCert = "chain.pem" },
		"key belong":     func(c *Config) { c.TLSKey = "key.pem" },
		"silence":        func(c *Config) { c.Silence = -time.Hour },
		"bodies":         func(c *Config) { c.MaxBody = -1 },
		"refetch rate":   func(c *Config) { c.RefetchRate = -1 },
		"listen on":      func(c *Config) { c.Listen = "nowhere" },
		"/readyz":        func(c *Config) { c.AdminListen = "nowhere" },
		"postgres://":    func(c *Config) { c.DatabaseURL = "mysql://u:password@h/d" },
	} {
		cfg := config(t, new(seen).react)
		change(&cfg)
		r, err := New(t.Context(), cfg)
		if err == nil {
			stop(t, r)
		}
		if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "password") {
			t.Errorf("%s: %v", name, err)
		}
		if cfg.DataDir == "" {
			continue
		}
		l, err := filelock.Acquire(filepath.Join(cfg.DataDir, "receiver.lock"))
		if err != nil {
			t.Errorf("%s: after that the directory is %v", name, err)
			continue
		}
		must(t, l.Release())
		if _, err := OpenStore(t.Context(), StoreConfig{Dir: t.TempDir(), MustExist: true, Log: cfg.Log, Now: time.Now}); !fault.Is(err, fault.NotFound) {
			t.Errorf("a store that is not there: %v", err)
		}
	}
}

// Case 120, in a receiver that runs: both secrets while the file has both, and
// never one that was taken out.
func TestSecretsChangeWithoutARestart(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "secrets")
	must(t, os.WriteFile(file, []byte("old\n"), 0o600))
	secrets, err := webhook.OpenSecretFile(file)
	must(t, err)
	cfg := config(t, new(seen).react)
	cfg.Secrets = secrets.All
	r, c := start(t, cfg), caller(t)
	n := 0
	takes := func(secret string) bool {
		n++
		body := envelope(fmt.Sprint("E", n), "T1", time.Now())
		req := request(t, r.URL(), body)
		req.Header.Set(webhook.SignatureHeader, webhook.Sign(secret, time.Now(), body))
		status, _ := send(t, c, req)
		return status == http.StatusOK
	}
	if !takes("old") || takes("new") {
		t.Fatal("the first secret is not the only one")
	}
	must(t, os.WriteFile(file, []byte("old\nnew\n"), 0o600))
	eventually(t, "the new secret is taken", func() bool { return takes("new") })
	if !takes("old") {
		t.Error("the old secret stopped while the file has it")
	}
	must(t, os.WriteFile(file, []byte("new\n"), 0o600))
	eventually(t, "the old secret is refused", func() bool { return !takes("old") })
	if !takes("new") {
		t.Error("the new secret is refused")
	}
}

func packed(t *testing.T, body []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write(body)
	must(t, err)
	must(t, z.Close())
	return b.Bytes()
}

// Case 124: what proxies do to a request. The signature is over what the sender
// sent, whatever the coding on the way.
func TestBehindAProxy(t *testing.T) {
	t.Parallel()
	var got seen
	cfg := config(t, got.react)
	cfg.Path = "/tickets/hook"
	r, c := start(t, cfg), caller(t)
	h2c := new(http.Protocols)
	h2c.SetUnencryptedHTTP2(true)
	two := &http.Transport{Protocols: h2c}
	defer two.CloseIdleConnections()

	nothing := bytes.Repeat(packed(t, nil), 100_000)
	bomb := packed(t, bytes.Repeat([]byte("x"), 64<<20))
	for i, x := range []struct {
		what   string
		change func(req *http.Request, body []byte)
		client *http.Client
		want   int
		says   string
	}{
		{"plain", func(*http.Request, []byte) {}, c, 200, "ok: kept"},
		{"gzip", func(req *http.Request, body []byte) { encode(req, "gzip", packed(t, body)) }, c, 200, "ok: kept"},
		{"gzip that is longer than what is in it", func(req *http.Request, body []byte) {
			var b bytes.Buffer
			z, err := gzip.NewWriterLevel(&b, gzip.NoCompression)
			must(t, err)
			_, err = z.Write(body)
			must(t, errors.Join(err, z.Close()))
			encode(req, "gzip", b.Bytes())
		}, c, 200, "ok: kept"},
		{"x-gzip", func(req *http.Request, body []byte) { encode(req, "X-GZIP", packed(t, body)) }, c, 200, "ok: kept"},
		{"identity", func(req *http.Request, body []byte) { encode(req, "identity", body) }, c, 200, "ok: kept"},
		{"chunked", func(req *http.Request, body []byte) {
			req.Body, req.ContentLength = io.NopCloser(io.MultiReader(bytes.NewReader(body[:9]), bytes.NewReader(body[9:]))), -1
		}, c, 200, "ok: kept"},
		{"chunked gzip", func(req *http.Request, body []byte) {
			encode(req, "gzip", packed(t, body))
			req.ContentLength = -1
		}, c, 200, "ok: kept"},
		{"HTTP/2 without TLS", func(*http.Request, []byte) {}, &http.Client{Transport: two, Timeout: patience}, 200, "ok: kept"},
		{"what is no gzip", func(req *http.Request, body []byte) { encode(req, "gzip", body) }, c, 400, "ended early"},
		{"gzip cut off", func(req *http.Request, body []byte) { encode(req, "gzip", packed(t, body)[:40]) }, c, 400, "ended early"},
		{"another coding", func(req *http.Request, body []byte) { encode(req, "br", body) }, c, 400, "ended early"},
		{"gzip of nothing, without end", func(req *http.Request, _ []byte) { encode(req, "gzip", nothing) }, c, 413, "larger than"},
		{"a bomb", func(req *http.Request, _ []byte) { encode(req, "gzip", bomb) }, c, 413, "larger than"},
		{"a body that is too large", func(req *http.Request, _ []byte) {
			encode(req, "", make([]byte, 2<<20))
			req.Header.Set("Expect", "100-continue") // the answer comes first, and the connection ends
		}, c, 413, "larger than"},
		{"PUT", func(req *http.Request, _ []byte) { req.Method = http.MethodPut }, c, 200, "ok: kept"},
		{"PATCH", func(req *http.Request, _ []byte) { req.Method = http.MethodPatch }, c, 200, "ok: kept"},
		{"a method without a body", func(req *http.Request, _ []byte) { req.Method = http.MethodDelete }, c, 405, "POST"},
		{"another path", func(req *http.Request, _ []byte) { req.URL.Path = DefaultPath }, c, 404, "not found"},
		{"the operator's", func(req *http.Request, _ []byte) { req.URL.Path = "/metrics" }, c, 404, "not found"},
	} {
		body := envelope(fmt.Sprint("E", i), fmt.Sprint("T", i), time.Now())
		req := request(t, r.URL(), body)
		x.change(req, body)
		if status, text := send(t, x.client, req); status != x.want || !strings.Contains(text, x.says) {
			t.Errorf("%s: %d %s, want %d %s", x.what, status, text, x.want, x.says)
		}
	}
	if n := len(got.await(t, 10)); n != 10 {
		t.Errorf("%d reactions", n)
	}
}

// A ticket with years of comments is more than the usual bound.
func TestLongThread(t *testing.T) {
	t.Parallel()
	var got seen
	cfg := config(t, got.react)
	cfg.MaxBody = 4 << 20
	r, c := start(t, cfg), caller(t)
	for i, coding := range []string{"", "gzip"} {
		body := envelope(fmt.Sprint("E", i), fmt.Sprint("T", i), time.Now())
		body = fmt.Appendf(bytes.TrimSuffix(body, []byte("}")), `,"thread":%q}`, strings.Repeat("comment ", 300_000))
		req := request(t, r.URL(), body)
		if coding != "" {
			encode(req, coding, packed(t, body))
		}
		if status, text := send(t, c, req); status != 200 {
			t.Errorf("%d bytes, coding %q: %d %s", len(body), coding, status, text)
		}
	}
	if n := len(got.await(t, 2)); n != 2 {
		t.Errorf("%d reactions", n)
	}
}

func encode(req *http.Request, coding string, body []byte) {
	if coding != "" {
		req.Header.Set("Content-Encoding", coding)
	}
	req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
}

func TestTLS(t *testing.T) {
	t.Parallel()
	other := httptest.NewUnstartedServer(nil) // it has a certificate for 127.0.0.1
	other.StartTLS()
	defer other.Close()
	cert := other.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	must(t, err)
	cfg := config(t, new(seen).react)
	cfg.TLSCert, cfg.TLSKey = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	must(t, os.WriteFile(cfg.TLSCert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}), 0o600))
	must(t, os.WriteFile(cfg.TLSKey, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
	r := start(t, cfg)
	roots := x509.NewCertPool()
	roots.AddCert(other.Certificate())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport, Timeout: patience}).Do(request(t, r.URL(), envelope("E1", "T1", time.Now())))
	must(t, err)
	res.Body.Close()
	old := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}}
	if res, err := (&http.Client{Transport: old, Timeout: patience}).Get(r.URL()); err == nil {
		res.Body.Close()
		t.Error("TLS 1.1 is spoken")
	}
	if !strings.HasPrefix(r.URL(), "https://") || res.StatusCode != 200 || res.ProtoMajor != 2 {
		t.Errorf("%s answered %s in %s", r.URL(), res.Status, res.Proto)
	}
}

// A sender must be told the truth, and so must whoever asks for readiness.
func TestReadiness(t *testing.T) {
	t.Parallel()
	var secrets atomic.Pointer[[]string]
	secrets.Store(&[]string{secret})
	cfg := config(t, new(seen).react)
	cfg.Secrets = func() []string { return *secrets.Load() }
	cfg.Record = openRecord(t, t.TempDir())
	r, c := start(t, cfg), caller(t)
	ready := func() int {
		res, err := c.Get(r.AdminURL() + "/readyz")
		must(t, err)
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		must(t, err)
		// The reason is for the log, and the answer for this moment.
		if want := map[int]string{200: "ready\n", 503: "not ready\n"}[res.StatusCode]; string(text) != want || res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("readiness is %d %q with %v", res.StatusCode, text, res.Header)
		}
		return res.StatusCode
	}
	if status, text := get(t, c, r.AdminURL()+"/healthz"); status != 200 || text != "ok" || ready() != 200 {
		t.Errorf("a new receiver is not ready: %d %s", status, text)
	}
	secrets.Store(&[]string{""})
	if ready() != 503 {
		t.Error("ready without a secret")
	}
	if _, text := get(t, c, r.AdminURL()+"/metrics"); !strings.Contains(text, "\nticketwire_receiver_ready 0\n") {
		t.Error("the metric says that it is ready")
	}
	secrets.Store(&[]string{secret})
	// What cannot be written in a directory, where something else has the name.
	for _, name := range []string{
		filepath.Join(cfg.DataDir, "receiver.probe"), filepath.Join(cfg.Record.Dir(), "receiver.probe"), filepath.Join(cfg.DataDir, pulseName+".new"),
	} {
		if _, err := os.Stat(name); err == nil {
			t.Errorf("%s was left behind", name)
		}
		must(t, os.MkdirAll(filepath.Join(name, "x"), 0o700))
		_ = r.pulse.save(time.Now())
		if ready() != 503 {
			t.Errorf("ready while %s cannot be written", name)
		}
		r.alarms.set(Unstored, "")
		if r.lookAtStorage(); r.alarms.isOn(Unstored) != strings.HasSuffix(name, ".new") { // of the others the next request tells
			t.Errorf("%s: alarm %t", name, r.alarms.isOn(Unstored))
		}
		must(t, os.RemoveAll(name))
		must(t, r.pulse.save(time.Now()))
		if r.lookAtStorage(); r.alarms.isOn(Unstored) || ready() != 200 {
			t.Errorf("not ready after %s could be written again", name)
		}
	}
	_, err := r.store.db.ExecContext(t.Context(), `drop table receiver_probe`)
	must(t, err)
	if ready() != 503 {
		t.Error("ready while the inbox cannot be written")
	}
	_, err = r.store.db.ExecContext(t.Context(), `drop table inbox_lanes`) // as a database that is damaged
	must(t, err)
	if status, text := send(t, c, request(t, r.URL(), envelope("E1", "T1", time.Now()))); status != 503 || text != "the inbox is not available" {
		t.Errorf("the answer is %d %s", status, text)
	}
	if !r.alarms.isOn(Unstored) {
		t.Error("no alarm")
	}
	stop(t, r)
	if err := r.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "stopping") {
		t.Errorf("after the end: %v", err)
	}
}

func TestRefetch(t *testing.T) {
	t.Parallel()
	var got seen
	cfg := config(t, got.react)
	var asked atomic.Int64
	cfg.Refetch = apiServer(t, func(w http.ResponseWriter, req *http.Request) {
		n := asked.Add(1)
		switch {
		case strings.HasSuffix(req.URL.Path, "/hidden"):
			answer(w, 404, "<html>")
		case strings.HasSuffix(req.URL.Path, "/gone"):
			answer(w, 404, `{"error":{"code":"NOT_FOUND","message":"Ticket not found"}}`)
		case n == 1:
			answer(w, 500, `{"error":{"code":"INTERNAL_ERROR","message":"no"}}`)
		default:
			answer(w, 200, `{"data":{"ticket_id":"t1","title":"Printer is back"}}`)
		}
	})
	r, c := start(t, cfg), caller(t)
	accepted(t, c, r, envelope("E1", "t1", time.Now()))
	events := got.await(t, 1)
	if e := events[0]; !e.Refetched || e.Attempt != 2 || e.Current == nil || *e.Current.Title != "Printer is back" {
		t.Errorf("the reaction got %+v with %+v", e, e.Current)
	}
	accepted(t, c, r, envelope("E2", "gone", time.Now()))
	if e := got.await(t, 2)[1]; !e.Refetched || e.Current != nil {
		t.Errorf("a ticket that is gone came as %+v", e.Current)
	}
	if ticket, err := r.current(t.Context(), "hidden"); err == nil { // by a proxy on the way
		t.Errorf("a server without the API says of a ticket %+v", ticket)
	}
	if r.refetch.Limit() != 0.5 || r.refetch.Burst() != refetchBurst {
		t.Errorf("%g tickets are read per second, %d at once", r.refetch.Limit(), r.refetch.Burst())
	}
	for r.refetch.Allow() { // until the budget is spent
	}
	soon, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	before := asked.Load()
	if _, err := r.current(soon, "t1"); err == nil || asked.Load() != before {
		t.Errorf("beyond the budget: %v, asked %d times", err, asked.Load()-before)
	}
}
