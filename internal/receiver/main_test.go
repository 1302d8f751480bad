package receiver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ticketwire/ticketwire/internal/cutover"
	"github.com/ticketwire/ticketwire/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "whsec_receiver_test"

// patience bounds every wait for something that has to happen.
const patience = 30 * time.Second

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited %s in vain: %s", patience, what)
		}
	}
}

// seen collects the events that a reaction got, and is told what to answer.
type seen struct {
	mu     sync.Mutex
	events []*Event
	answer atomic.Pointer[error]
}

func (s *seen) react(_ context.Context, e *Event) error {
	s.mu.Lock()
	s.events = append(s.events, e)
	s.mu.Unlock()
	if err := s.answer.Load(); err != nil {
		return *err
	}
	return nil
}

// fail makes the reaction return err, nil for success.
func (s *seen) fail(err error) { s.answer.Store(&err) }

func (s *seen) all() []*Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*Event(nil), s.events...)
}

func (s *seen) await(t *testing.T, n int) []*Event {
	t.Helper()
	eventually(t, fmt.Sprint(n, " reactions"), func() bool { return len(s.all()) >= n })
	return s.all()
}

// config is one that fits a test.
func config(t *testing.T, react Reaction) Config {
	t.Helper()
	return Config{
		Listen: "127.0.0.1:0", AdminListen: "127.0.0.1:0", DataDir: t.TempDir(), React: react,
		Secrets: func() []string { return []string{secret} }, SecretFrom: "config",
		Backoff: func(int) time.Duration { return 10 * time.Millisecond },
		Log:     slog.New(slog.DiscardHandler), Now: time.Now,
	}
}

// start starts a receiver that ends with the test.
func start(t *testing.T, cfg Config) *Receiver {
	t.Helper()
	r, err := New(t.Context(), cfg)
	must(t, err)
	t.Cleanup(func() { stop(t, r) })
	must(t, r.Start(t.Context()))
	return r
}

func stop(t *testing.T, r *Receiver) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.Stop(ctx); err != nil {
		t.Error(err)
	}
}

// caller is a client that does not outlive its test.
func caller(t *testing.T) *http.Client {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 100, ExpectContinueTimeout: patience}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// envelope is the body of an event about a ticket.
func envelope(id, ticket string, at time.Time) []byte {
	return fmt.Appendf(nil, `{"event_id":%q,"event_type":"ticket.updated","occurred_at":%q,"tenant_id":"T","data":{"ticket_id":%q,"title":"Printer","updated_at":%q}}`,
		id, webhook.At(at), ticket, webhook.At(at))
}

// request is a webhook with that body, signed as of now.
func request(t *testing.T, url string, body []byte) *http.Request {
	t.Helper()
	var e webhook.Envelope
	_ = json.Unmarshal(body, &e) // some tests send what is none
	req, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	must(t, err)
	req.Header.Set(webhook.SignatureHeader, webhook.Sign(secret, time.Now(), body))
	req.Header.Set(webhook.EventIDHeader, e.EventID)
	req.Header.Set(webhook.EventTypeHeader, e.EventType)
	req.Header.Set(webhook.DeliveryIDHeader, "D-"+e.EventID)
	req.Header.Set(webhook.AttemptHeader, "1")
	return req
}

// send returns the status and the text of the answer.
func send(t *testing.T, c *http.Client, req *http.Request) (int, string) {
	t.Helper()
	res, err := c.Do(req)
	must(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	must(t, err)
	return res.StatusCode, strings.TrimSpace(string(text))
}

// accepted sends an event that has to be acknowledged.
func accepted(t *testing.T, c *http.Client, r *Receiver, body []byte) {
	t.Helper()
	if status, text := send(t, c, request(t, r.URL(), body)); status != http.StatusOK {
		t.Fatalf("the answer is %d %s", status, text)
	}
}

// get asks one of the operator's routes.
func get(t *testing.T, c *http.Client, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	must(t, err)
	return send(t, c, req)
}

// openRecord opens the record of a directory until the test ends.
func openRecord(t *testing.T, dir string) *cutover.Record {
	t.Helper()
	rec, err := cutover.OpenRecord(dir)
	must(t, err)
	t.Cleanup(func() { rec.Close() }) // some tests close it before
	return rec
}

// written reads a record.
func written(t *testing.T, dir string) []cutover.Entry {
	t.Helper()
	var out []cutover.Entry
	f, err := os.Open(filepath.Join(dir, cutover.RecordName))
	must(t, err)
	defer f.Close()
	for e, err := range cutover.NewReader(f).Entries() {
		must(t, err)
		out = append(out, e)
	}
	return out
}

// pick returns the entries of one kind.
func pick[T any](entries []cutover.Entry, kind func(cutover.Entry) *T) []*T {
	var out []*T
	for _, e := range entries {
		if v := kind(e); v != nil {
			out = append(out, v)
		}
	}
	return out
}
