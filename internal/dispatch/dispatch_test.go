package dispatch_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/dispatch"
	"github.com/ticketwire/ticketwire/internal/egress"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/ticket"
	"github.com/ticketwire/ticketwire/internal/vault"
	"github.com/ticketwire/ticketwire/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a real store and a real client; the engine is started by the test.
type bench struct {
	t      *testing.T
	dir    string
	store  *store.Store
	client *egress.Client
	tenant store.Bootstrapped
	actor  ticket.Actor
	policy delivery.Policy
}

func newBench(t *testing.T) *bench {
	v, err := vault.New(make([]byte, vault.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	policy := delivery.DefaultPolicy()
	policy.Jitter = 0
	dir := t.TempDir()
	s, err := store.Open(t.Context(), store.Config{Dir: dir, Vault: v, Policy: policy, PublicURL: "http://desk.example"})
	if err != nil {
		t.Fatal(err)
	}
	client := egress.New(egress.Config{AllowTargets: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	t.Cleanup(func() {
		client.Close()
		if err := s.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	})
	b := &bench{t: t, dir: dir, store: s, client: client, policy: policy}
	if b.tenant, err = s.Bootstrap(t.Context(), time.Now(), store.BootstrapDraft{Tenant: "Bench", Email: "a@example.com", FirstName: "A", LastName: "B"}); err != nil {
		t.Fatal(err)
	}
	b.actor = ticket.Actor{TenantID: b.tenant.TenantID, UserID: b.tenant.UserID}
	return b
}

// start starts an engine; the test stops it, or the end of the test does.
func (b *bench) start(change func(*dispatch.Config)) *dispatch.Engine {
	b.t.Helper()
	cfg := dispatch.Config{Store: b.store, Client: b.client, Policy: b.policy, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	e := dispatch.New(cfg)
	if err := e.Start(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { e.Stop(context.Background()) })
	return e
}

func (b *bench) webhook(url string, change func(*delivery.Spec)) string {
	b.t.Helper()
	off := false
	spec := delivery.Spec{
		Name: "hook", URL: url, Method: http.MethodPost, EventTypes: []string{webhook.TicketCreated},
		VerifySSL: true, IsActive: true, RateLimit: &delivery.RateLimit{Enabled: &off},
	}
	if change != nil {
		change(&spec)
	}
	w, _, err := b.store.CreateWebhook(b.t.Context(), time.Now(), b.actor, spec)
	if err != nil {
		b.t.Fatal(err)
	}
	return w.WebhookID
}

func (b *bench) ticket(title string) string {
	b.t.Helper()
	tk, err := b.store.CreateTicket(b.t.Context(), time.Now(), b.actor, ticket.Draft{
		Title: title, BoardID: b.tenant.BoardID, ClientID: b.tenant.ClientID,
		StatusID: b.tenant.Statuses["Open"], PriorityID: b.tenant.Priorities["High"],
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return tk.TicketID
}

func (b *bench) log(webhookID string) []delivery.Delivery {
	b.t.Helper()
	rows, _, err := b.store.Deliveries(b.t.Context(), b.tenant.TenantID, webhookID, store.DeliveryQuery{Page: 1, Limit: 100})
	if err != nil {
		b.t.Fatal(err)
	}
	return rows
}

// receiver is an HTTP server that reports each event id it is sent and answers
// when the test lets it.
type receiver struct {
	*httptest.Server
	hits chan string
	gate chan struct{} // closed: answer
	open func()
}

func newReceiver(t *testing.T, open bool) *receiver {
	r := &receiver{hits: make(chan string, 1000), gate: make(chan struct{})}
	r.open = sync.OnceFunc(func() { close(r.gate) })
	if open {
		r.open()
	}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			t.Errorf("read the body: %v", err)
		}
		r.hits <- req.Header.Get(webhook.EventIDHeader)
		select {
		case <-r.gate:
		case <-req.Context().Done():
		}
	}))
	t.Cleanup(r.Close)
	t.Cleanup(r.open)
	return r
}

// within is how long a test waits for what should happen at once.
const within = 20 * time.Second

func (r *receiver) next(t *testing.T) string {
	t.Helper()
	select {
	case id := <-r.hits:
		return id
	case <-time.After(within):
		t.Fatal("nothing arrived")
		return ""
	}
}

// eventually waits for what the engine writes behind an answer.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(within)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatal("not in time: " + what)
		case <-tick.C:
		}
	}
}

// A receiver that hangs holds its own lane and nobody else's (contract W10: 50
// hanging requests stop every tenant elsewhere).
func TestHangingReceiverHoldsUpNobody(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hanging, healthy := newReceiver(t, false), newReceiver(t, true)
	b.webhook(hanging.URL, nil)
	b.start(func(c *dispatch.Config) { c.PerLane, c.InFlight = 4, 8 })
	for n := range 50 {
		b.ticket(fmt.Sprint("for the hanging one ", n))
	}
	for range 4 {
		hanging.next(t)
	}
	b.webhook(healthy.URL, nil)
	for n := range 20 {
		b.ticket(fmt.Sprint("for both ", n))
		healthy.next(t)
	}
	if n := len(hanging.hits); n != 0 {
		t.Errorf("%d requests over the lane's limit", n)
	}
	hanging.open()
	for range 66 {
		hanging.next(t)
	}
}

// Stop lets a request in flight finish and record; nothing is sent twice.
func TestStopDrains(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := newReceiver(t, false)
	hook := b.webhook(r.URL, nil)
	e := b.start(nil)
	b.ticket("one")
	r.next(t)
	stopped := make(chan struct{})
	go func() {
		e.Stop(context.Background())
		close(stopped)
	}()
	eventually(t, "the engine says that it stops", func() bool { return e.Ready() != nil })
	b.ticket("while stopping")
	r.open()
	select {
	case <-stopped:
	case <-time.After(within):
		t.Fatal("Stop did not return")
	}
	var delivered, pending int
	for _, d := range b.log(hook) {
		switch d.Status {
		case delivery.Delivered:
			delivered++
		case delivery.Pending:
			pending++
		}
	}
	if delivered != 1 || pending != 1 {
		t.Errorf("%d delivered and %d pending, want 1 and 1", delivered, pending)
	}
	// The next engine sends the one that was owed, and only that one.
	b.start(nil)
	r.next(t)
	eventually(t, "both are delivered", func() bool {
		rows := b.log(hook)
		return rows[0].Status == delivery.Delivered && rows[1].Status == delivery.Delivered
	})
	if n := len(r.hits); n != 0 {
		t.Errorf("%d requests too many", n)
	}
}

// A request that outlives the grace is broken off, and that is not a failed
// attempt: the next engine sends it again as the same attempt.
func TestStopBreaksOff(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := newReceiver(t, false)
	hook := b.webhook(r.URL, nil)
	e := b.start(nil)
	b.ticket("one")
	first := r.next(t)
	over, cancel := context.WithCancel(context.Background())
	cancel()
	e.Stop(over)
	rows := b.log(hook)
	if len(rows) != 1 || rows[0].Status != delivery.Pending || rows[0].Attempt != 1 {
		t.Fatalf("after a broken-off attempt: %+v", rows)
	}
	r.open()
	b.start(nil)
	if again := r.next(t); again != first {
		t.Errorf("event %s came back as %s", first, again)
	}
	eventually(t, "it is delivered", func() bool { return b.log(hook)[0].Status == delivery.Delivered })
	if rows := b.log(hook); len(rows) != 1 || rows[0].Attempt != 1 {
		t.Errorf("the attempt was counted: %+v", rows)
	}
}

// A defect in an attempt costs neither the delivery nor the process.
func TestPanicInAnAttempt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := newReceiver(t, true)
	hook := b.webhook(r.URL, nil)
	reg := prometheus.NewPedanticRegistry()
	var once sync.Once
	b.start(func(c *dispatch.Config) {
		c.Metrics = reg
		c.Random = func() float64 {
			once.Do(func() { panic("defect") })
			return 0
		}
	})
	b.ticket("one")
	first, second := r.next(t), r.next(t)
	if first != second {
		t.Error("the second request is another event")
	}
	eventually(t, "it is delivered", func() bool { return b.log(hook)[0].Status == delivery.Delivered })
	if rows := b.log(hook); rows[0].Attempt != 1 {
		t.Errorf("the attempt was counted: %+v", rows)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "ticketwire_delivery_panics_total" && f.GetMetric()[0].GetCounter().GetValue() != 1 {
			t.Errorf("panics are exported as %v", f.GetMetric())
		}
	}
}

// Everything that is committed while no engine runs goes out once one starts,
// and a switched-off webhook's rows do not.
func TestBacklogGoesOutAtTheStart(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := newReceiver(t, true)
	b.webhook(r.URL, nil)
	gone := b.webhook(r.URL+"/gone", nil)
	const n = 200
	want := map[string]bool{}
	for i := range n {
		b.ticket(fmt.Sprint("ticket ", i))
	}
	if err := b.store.DeleteWebhook(t.Context(), time.Now(), b.actor, gone); err != nil {
		t.Fatal(err)
	}
	b.start(func(c *dispatch.Config) { c.PerLane = 3 })
	for range n {
		want[r.next(t)] = true
	}
	if len(want) != n {
		t.Errorf("%d distinct events, want %d", len(want), n)
	}
}

// The log never holds what may be a secret (contract P2).
func TestLoggedHeadersAreRedacted(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := newReceiver(t, true)
	hook := b.webhook(r.URL, func(s *delivery.Spec) { s.CustomHeaders = map[string]string{"Authorization": "Bearer hunter2"} })
	b.start(nil)
	b.ticket("one")
	r.next(t)
	eventually(t, "it is delivered", func() bool { return b.log(hook)[0].Status == delivery.Delivered })
	d, err := b.store.Delivery(t.Context(), b.tenant.TenantID, hook, b.log(hook)[0].DeliveryID)
	if err != nil {
		t.Fatal(err)
	}
	if got := d.RequestHeaders["Authorization"]; got != "[REDACTED]" {
		t.Errorf("Authorization is logged as %q", got)
	}
	if got := d.RequestHeaders[webhook.AttemptHeader]; got != "1" {
		t.Errorf("%s is logged as %q", webhook.AttemptHeader, got)
	}
	if got := d.RequestHeaders[webhook.SignatureHeader]; len(got) > 30 {
		t.Errorf("the signature is logged: %q", got)
	}
}

// A receiver of Standard Webhooks gets all that it needs: one id for all attempts,
// and during a rotation a signature with either secret. The log shows no digits.
func TestStandardWebhooks(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.policy.Schedule = []time.Duration{time.Millisecond}
	type request struct {
		header http.Header
		body   []byte
	}
	got := make(chan request, 2)
	r := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Errorf("read the body: %v", err)
		}
		if req.Header.Get(webhook.AttemptHeader) == "1" {
			w.WriteHeader(http.StatusInternalServerError)
		}
		got <- request{req.Header, body}
	}))
	t.Cleanup(r.Close)
	hook := b.webhook(r.URL, nil)
	before, err := b.store.Secrets(t.Context(), time.Now(), b.tenant.TenantID, hook)
	if err != nil {
		t.Fatal(err)
	}
	after, err := b.store.RotateSecret(t.Context(), time.Now(), b.tenant.TenantID, hook, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	b.start(func(c *dispatch.Config) { c.Standard = true })
	b.ticket("one")
	ids := map[string]bool{}
	for range 2 {
		r := <-got
		id, sent := r.header.Get(webhook.StandardIDHeader), r.header.Get(webhook.StandardTimestampHeader)
		ids[id] = true
		if id != r.header.Get(webhook.EventIDHeader) || !strings.HasPrefix(r.header.Get(webhook.SignatureHeader), "t="+sent+",v1=") {
			t.Errorf("the headers disagree: %v", r.header)
		}
		want := ""
		for i, secret := range []string{after, before.Current} {
			mac := hmac.New(sha256.New, []byte(secret))
			fmt.Fprintf(mac, "%s.%s.%s", id, sent, r.body)
			want += strings.Repeat(" ", i) + "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
		}
		if signature := r.header.Get(webhook.StandardSignatureHeader); signature != want {
			t.Errorf("signature %q, want %q", signature, want)
		}
	}
	if len(ids) != 1 {
		t.Errorf("two attempts had the ids %v", ids)
	}
	eventually(t, "both are recorded", func() bool { rows := b.log(hook); return len(rows) == 2 && rows[0].Status == delivery.Delivered })
	logged := b.log(hook)[0].RequestHeaders
	if logged[webhook.StandardIDHeader] == "" || logged[webhook.StandardTimestampHeader] == "" || logged[webhook.StandardSignatureHeader] != "v1,[REDACTED]" {
		t.Errorf("the log says %v", logged)
	}
}

// A custom header cannot stand in for one of the contract's, in any spelling
// (contract W14).
func TestHeaderWinsOverCustom(t *testing.T) {
	t.Parallel()
	d := delivery.Delivery{WebhookID: "w", EventID: "e", EventType: "ticket.created", DeliveryID: "d", Attempt: 3}
	h := dispatch.Header(map[string]string{webhook.AttemptHeader: "9", "X-Team": "ops"}, d)
	if got := h[webhook.AttemptHeader]; len(got) != 1 || got[0] != "3" {
		t.Errorf("attempt header is %q", got)
	}
	if got := h["X-Team"]; len(got) != 1 || got[0] != "ops" {
		t.Errorf("custom header is %q", got)
	}
}

// What the key file does not open stands still, says so once, and leaves everybody
// else and the readiness of the node alone. A new secret ends it.
func TestSecretsThatDoNotOpen(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r, silent := newReceiver(t, true), newReceiver(t, true)
	lost, err := vault.New(bytes.Repeat([]byte{7}, vault.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	before, err := store.Open(t.Context(), store.Config{Dir: b.dir, Vault: lost, Policy: b.policy, PublicURL: "http://desk.example"})
	if err != nil {
		t.Fatal(err)
	}
	spec := delivery.Spec{
		Name: "sealed", URL: silent.URL, Method: http.MethodPost, EventTypes: []string{webhook.TicketCreated}, VerifySSL: true, IsActive: true,
	}
	w, _, err := before.CreateWebhook(t.Context(), time.Now(), b.actor, spec)
	if err := errors.Join(err, before.Close()); err != nil {
		t.Fatal(err)
	}
	if n, of, err := b.store.CheckSecrets(t.Context()); n != 1 || of != 1 || err != nil {
		t.Errorf("%d of %d secrets do not open (%v), want 1 of 1", n, of, err)
	}
	b.webhook(r.URL, nil)
	var complaints, ahead atomic.Int64
	e := b.start(func(c *dispatch.Config) {
		c.Log = slog.New(slog.NewTextHandler(writerFunc(func(line []byte) (int, error) {
			if bytes.Contains(line, []byte("rotate its secret")) {
				complaints.Add(1)
			}
			return len(line), nil
		}), nil))
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	const n = 20
	for i := range n {
		if i == n/2 {
			eventually(t, "the log says what is wrong", func() bool { return complaints.Load() > 0 })
			ahead.Store(int64(time.Second)) // longer than what other errors of the store wait for
		}
		b.ticket(fmt.Sprint("ticket ", i))
		r.next(t)
		if err := e.Ready(); err != nil {
			t.Errorf("the engine is not ready: %v", err)
		}
	}
	if got := complaints.Load(); got != 1 {
		t.Errorf("it is logged %d times", got)
	}
	if _, err := b.store.RotateSecret(t.Context(), time.Now(), b.tenant.TenantID, w.WebhookID, 0); err != nil {
		t.Fatal(err)
	}
	for range n {
		silent.next(t)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
