package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testSecret = "kQ3v9xTn2b7LwUeYp0sJ4hGdR8aFzCmE1iOoXtVuNqA"
	testID     = "4f0c2f5e-9b1d-4c77-9f0e-000000000001"
	testTicket = "e2a94b77-6f10-4c58-8d3e-90b1c2d3e4f5"
)

func testNow() time.Time { return time.Unix(1760000000, 0) }

// delivery makes a signed request for an event.
func delivery(id, eventType string) *http.Request {
	return signed(id, eventType, []byte(fmt.Sprintf(
		`{"event_id":%q,"event_type":%q,"occurred_at":"2026-03-09T08:14:02.140Z","tenant_id":"t","data":{"ticket_id":%q}}`,
		id, eventType, testTicket)))
}

func signed(id, eventType string, body []byte) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/webhooks/alga", bytes.NewReader(body))
	r.Header.Set(SignatureHeader, Sign(testSecret, testNow(), body))
	r.Header.Set(EventIDHeader, id)
	r.Header.Set(EventTypeHeader, eventType)
	r.Header.Set(DeliveryIDHeader, "d1")
	r.Header.Set(AttemptHeader, "2")
	return r
}

// bench is a handler under test with what it did.
type bench struct {
	*Handler
	reactions atomic.Int32
	mu        sync.Mutex
	receipts  []Receipt
	logs      bytes.Buffer
}

func newBench(react Reaction, opts ...Option) *bench {
	b := new(bench)
	opts = append([]Option{
		WithNow(testNow),
		WithLogger(slog.New(slog.NewTextHandler(&b.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))),
		WithObserver(func(_ context.Context, rec Receipt) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.receipts = append(b.receipts, rec)
		}),
	}, opts...)
	b.Handler = NewHandler(NewSecretList(testSecret).All, func(ctx context.Context, e *Envelope) error {
		b.reactions.Add(1)
		if react == nil {
			return nil
		}
		return react(ctx, e)
	}, opts...)
	return b
}

func (b *bench) send(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	b.ServeHTTP(w, r)
	return w
}

func (b *bench) want(t *testing.T, r *http.Request, status int, outcome Outcome) *httptest.ResponseRecorder {
	t.Helper()
	w := b.send(r)
	b.mu.Lock()
	defer b.mu.Unlock()
	last := b.receipts[len(b.receipts)-1]
	if w.Code != status || last.Outcome != outcome || last.Status != status {
		t.Fatalf("answer %d %q, receipt %s %d (%v), want %d %s", w.Code, w.Body, last.Outcome, last.Status, last.Err, status, outcome)
	}
	return w
}

func TestHandlerAnswers(t *testing.T) {
	t.Parallel()
	good := func() *http.Request { return delivery(testID, TicketCreated) }
	with := func(change func(*http.Request)) *http.Request {
		r := good()
		change(r)
		return r
	}
	tests := []struct {
		name      string
		request   *http.Request
		status    int
		outcome   Outcome
		text      string
		reactions int32
	}{
		{"good", good(), 200, Processed, "ok", 1},
		{"put", with(func(r *http.Request) { r.Method = http.MethodPut }), 200, Processed, "ok", 1},
		{"patch", with(func(r *http.Request) { r.Method = http.MethodPatch }), 200, Processed, "ok", 1},
		{"delete", with(func(r *http.Request) { r.Method = http.MethodDelete }), 405, BadRequest, "POST", 0},
		{"get", httptest.NewRequest(http.MethodGet, "/", nil), 405, BadRequest, "POST", 0},
		{"no signature", with(func(r *http.Request) { r.Header.Del(SignatureHeader) }), 401, BadSignature, "missing_header", 0},
		{"wrong signature", with(func(r *http.Request) {
			r.Header.Set(SignatureHeader, Sign("other", testNow(), nil))
		}), 401, BadSignature, "signature_mismatch", 0},
		{"a second signature header", with(func(r *http.Request) {
			r.Header.Add(SignatureHeader, r.Header.Get(SignatureHeader))
		}), 401, BadSignature, "duplicate_timestamp", 0},
		{"signed, not JSON", signed(testID, TicketCreated, []byte("hello")), 400, BadEnvelope, "malformed_json", 0},
		{"unsigned, not JSON", with(func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader("hello")), 5
		}), 401, BadSignature, "signature_mismatch", 0},
		{"another event id", with(func(r *http.Request) { r.Header.Set(EventIDHeader, "x") }), 400, BadEnvelope, "event_id_mismatch", 0},
		{"another event type", with(func(r *http.Request) { r.Header.Set(EventTypeHeader, "x") }), 400, BadEnvelope, "event_type_mismatch", 0},
		{"test event", delivery(testID, Test), 200, TestEvent, "ok", 0},
		{"unknown type", delivery(testID, "ticket.reopened"), 200, IgnoredType, "ok", 0},
		{"consumed, read to the end", with(func(r *http.Request) { _, _ = io.ReadAll(r.Body) }), 400, BadRequest, "already read", 0},
		{"consumed in part", with(func(r *http.Request) { _, _ = io.CopyN(io.Discard, r.Body, 10) }), 400, BadRequest, "already read", 0},
		{"consumed, replaced by nothing", with(func(r *http.Request) { r.Body = http.NoBody }), 400, BadRequest, "already read", 0},
		{"consumed, taken away", with(func(r *http.Request) { r.Body = nil }), 400, BadRequest, "already read", 0},
		{"consumed, chunked", with(func(r *http.Request) { r.Body, r.ContentLength = http.NoBody, -1 }), 400, BadRequest, "already read", 0},
		{"consumed, closed", with(func(r *http.Request) {
			r.Body = io.NopCloser(iotest.ErrReader(http.ErrBodyReadAfterClose))
		}), 400, BadRequest, "already read", 0},
		{"connection lost", with(func(r *http.Request) {
			r.Body = io.NopCloser(iotest.ErrReader(io.ErrUnexpectedEOF))
		}), 400, BadRequest, "ended early", 0},
		{"announced too large", with(func(r *http.Request) { r.ContentLength = MaxBody + 1 }), 413, TooLarge, "1048576", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(nil)
			w := b.want(t, tt.request, tt.status, tt.outcome)
			if !strings.Contains(w.Body.String(), tt.text) {
				t.Errorf("answer %q, want %q in it", w.Body, tt.text)
			}
			if strings.Contains(w.Body.String()+b.logs.String(), testSecret) {
				t.Error("the secret is in the answer or the log")
			}
			if got := b.reactions.Load(); got != tt.reactions {
				t.Errorf("%d reactions, want %d", got, tt.reactions)
			}
			if tt.status == 405 && w.Header().Get("Allow") != "POST, PUT, PATCH" {
				t.Errorf("Allow = %q", w.Header().Get("Allow"))
			}
			if got := strings.Count(b.logs.String(), "\n"); got != 1 {
				t.Errorf("%d log lines, want 1:\n%s", got, &b.logs)
			}
		})
	}
}

func TestHandlerDeduplicates(t *testing.T) {
	t.Parallel()
	b := newBench(nil)
	b.want(t, delivery(testID, TicketCreated), 200, Processed)
	b.want(t, delivery(testID, TicketCreated), 200, Duplicate)
	b.want(t, delivery(strings.ToUpper(testID), TicketCreated), 200, Duplicate)
	b.want(t, delivery(testID, TicketUpdated), 200, Processed) // one id, two types: two events
	if got := b.reactions.Load(); got != 2 {
		t.Errorf("%d reactions, want 2", got)
	}
	if rec := b.receipts[1]; rec.DeliveryID != "d1" || rec.Attempt != 2 || rec.Event == nil || rec.Event.EventID != testID {
		t.Errorf("receipt %+v", rec)
	}
}

func TestHandlerOneReactionForManyCopies(t *testing.T) {
	t.Parallel()
	const copies = 100
	entered, leave := make(chan struct{}), make(chan struct{})
	b := newBench(func(context.Context, *Envelope) error {
		close(entered) // a second reaction would panic here
		<-leave
		return nil
	})
	var wg sync.WaitGroup
	var busy, ok atomic.Int32
	send := func() {
		w := b.send(delivery(testID, TicketCreated))
		switch {
		case w.Code == 503 && w.Header().Get("Retry-After") == "1":
			// The reaction runs until every copy but the first was answered.
			if busy.Add(1) == copies-1 {
				close(leave)
			}
		case w.Code == 200:
			ok.Add(1)
		default:
			t.Errorf("answer %d %q", w.Code, w.Body)
		}
	}
	for range copies {
		wg.Go(send)
	}
	<-entered
	wg.Wait()
	if b.reactions.Load() != 1 || busy.Load() != copies-1 || ok.Load() != 1 {
		t.Errorf("%d reactions, %d busy, %d ok, want 1, %d, 1", b.reactions.Load(), busy.Load(), ok.Load(), copies-1)
	}
	b.want(t, delivery(testID, TicketCreated), 200, Duplicate)
}

func TestHandlerReleasesAfterFailure(t *testing.T) {
	t.Parallel()
	broken := errors.New("database password is hunter2")
	tests := []struct {
		name  string
		fail  Reaction
		check func(error) bool
	}{
		{"error", func(context.Context, *Envelope) error { return broken }, func(err error) bool { return errors.Is(err, broken) }},
		{"panic", func(context.Context, *Envelope) error { panic("boom") }, func(err error) bool {
			var p *PanicError
			return errors.As(err, &p) && p.Value == "boom" && bytes.Contains(p.Stack, []byte("handler_test.go"))
		}},
		{"abort", func(context.Context, *Envelope) error { panic(http.ErrAbortHandler) }, func(err error) bool {
			var p *PanicError
			return errors.As(err, &p) && p.Value == http.ErrAbortHandler
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var healthy atomic.Bool
			b := newBench(func(ctx context.Context, e *Envelope) error {
				if healthy.Load() {
					return nil
				}
				return tt.fail(ctx, e)
			})
			w := b.want(t, delivery(testID, TicketCreated), 500, ReactionFailed)
			if strings.Contains(w.Body.String(), "hunter2") || strings.Contains(w.Body.String(), "boom") {
				t.Errorf("the answer tells the cause: %q", w.Body)
			}
			if err := b.receipts[0].Err; !tt.check(err) {
				t.Errorf("receipt error %v", err)
			}
			if tt.name == "panic" && !strings.Contains(b.logs.String(), "stack=") {
				t.Errorf("no stack in the log: %s", &b.logs)
			}
			healthy.Store(true)
			b.want(t, delivery(testID, TicketCreated), 200, Processed)
			b.want(t, delivery(testID, TicketCreated), 200, Duplicate)
		})
	}
}

// failing is a Memory that can fail in one method, or answer nonsense.
type failing struct {
	*Memory
	claim, finish, release error
	nonsense               bool
}

func (f *failing) Claim(ctx context.Context, now time.Time, e *Envelope, lease time.Duration) (Claim, error) {
	if f.claim != nil || f.nonsense {
		return Claim{}, f.claim
	}
	return f.Memory.Claim(ctx, now, e, lease)
}

func (f *failing) Finish(ctx context.Context, now time.Time, c Claim) error {
	if f.finish != nil {
		return f.finish
	}
	return f.Memory.Finish(ctx, now, c)
}

func (f *failing) Release(ctx context.Context, now time.Time, c Claim) error {
	if f.release != nil {
		return f.release
	}
	return f.Memory.Release(ctx, now, c)
}

func TestHandlerFailsClosed(t *testing.T) {
	t.Parallel()
	full := errors.New("disk full")
	broken := errors.New("broken")
	tests := []struct {
		name      string
		store     failing
		react     error
		status    int
		outcome   Outcome
		reactions int32
		cause     error
	}{
		{"claim", failing{claim: full}, nil, 503, StoreFailed, 0, full},
		{"claim without a state", failing{nonsense: true}, nil, 503, StoreFailed, 0, nil},
		{"finish", failing{finish: full}, nil, 503, StoreFailed, 1, full},
		{"release", failing{release: full}, broken, 500, ReactionFailed, 1, full},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.store.Memory = NewMemory(0, 0)
			b := newBench(func(context.Context, *Envelope) error { return tt.react }, WithDeduper(&tt.store))
			b.want(t, delivery(testID, TicketCreated), tt.status, tt.outcome)
			if got := b.reactions.Load(); got != tt.reactions {
				t.Errorf("%d reactions, want %d", got, tt.reactions)
			}
			for _, want := range []error{tt.cause, tt.react} {
				if err := b.receipts[0].Err; err == nil || want != nil && !errors.Is(err, want) {
					t.Errorf("receipt error %v, want %v in it", err, want)
				}
			}
			if !strings.Contains(b.logs.String(), "level=ERROR") {
				t.Errorf("not logged as an error: %s", &b.logs)
			}
		})
	}
}

func TestHandlerWatch(t *testing.T) {
	t.Parallel()
	b := newBench(nil, WithTickets(strings.ToUpper(testTicket)))
	b.want(t, delivery(testID, TicketCreated), 200, Processed)

	b = newBench(nil, WithTickets("another"))
	b.want(t, delivery(testID, TicketCreated), 200, Unwatched)
	b.want(t, delivery(testID, TicketCreated), 200, Duplicate)
	if got := b.reactions.Load(); got != 0 {
		t.Errorf("%d reactions, want 0", got)
	}
	for i, data := range []string{`{}`, `{"ticket_id":7}`} {
		id := fmt.Sprint("e", i)
		body := fmt.Sprintf(`{"event_id":%q,"event_type":%q,"occurred_at":"2026-03-09T08:14:02.140Z","data":%s}`, id, TicketCreated, data)
		b.want(t, signed(id, TicketCreated, []byte(body)), 200, Processed)
	}
}

func TestHandlerEventTypes(t *testing.T) {
	t.Parallel()
	b := newBench(nil, WithEventTypes("project.created"))
	b.want(t, delivery(testID, "project.created"), 200, Processed)
	b.want(t, delivery(testID, TicketCreated), 200, IgnoredType)
	b.want(t, delivery(testID, Test), 200, TestEvent)
}

func TestHandlerTolerance(t *testing.T) {
	t.Parallel()
	late := WithNow(func() time.Time { return testNow().Add(10 * time.Minute) })
	newBench(nil, late).want(t, delivery(testID, TicketCreated), 401, BadSignature)
	newBench(nil, late, WithTolerance(10*time.Minute)).want(t, delivery(testID, TicketCreated), 200, Processed)
}

// TestHandlerSurvivesHangUp: the sender's time-out must not undo a reaction
// that is about to succeed.
func TestHandlerSurvivesHangUp(t *testing.T) {
	t.Parallel()
	b := newBench(func(ctx context.Context, _ *Envelope) error { return ctx.Err() })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	b.want(t, delivery(testID, TicketCreated).WithContext(ctx), 200, Processed)
}

func TestHandlerLeaseAndSlowWarning(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(func(ctx context.Context, _ *Envelope) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}, WithLease(20*time.Second), WithNow(nil), WithTolerance(100*365*24*time.Hour))
		w := b.send(delivery(testID, TicketCreated))
		if w.Code != 500 || b.receipts[0].Took != 20*time.Second {
			t.Errorf("answer %d after %s, want 500 after 20s", w.Code, b.receipts[0].Took)
		}
		if err := b.receipts[0].Err; !strings.Contains(err.Error(), "lease") {
			t.Errorf("receipt error %v, want the lease in it", err)
		}
		if got := strings.Count(b.logs.String(), "reaction is slow"); got != 1 {
			t.Errorf("%d warnings, want 1:\n%s", got, &b.logs)
		}
	})
}

// TestHandlerAfterCrash: a claim whose process died is taken over after its
// lease and not before.
func TestHandlerAfterCrash(t *testing.T) {
	t.Parallel()
	m, now := NewMemory(0, 0), testNow()
	mustClaim(t, m, now, Key{EventID: testID, EventType: TicketCreated}, Fresh) // and then: kill -9
	b := newBench(nil, WithDeduper(m), WithNow(func() time.Time { return now }))
	b.want(t, delivery(testID, TicketCreated), 503, InProgress)
	now = now.Add(time.Minute) // the sender's first retry
	b.want(t, delivery(testID, TicketCreated), 200, Processed)
}

func TestDefaultsFitTheSender(t *testing.T) {
	t.Parallel()
	if DefaultLease >= time.Minute {
		t.Error("a crashed claim would outlive the first retry's delay")
	}
	if b := NewHandler(nil, nil); b.deduper == nil || b.log == nil || b.lease != DefaultLease {
		t.Errorf("defaults are missing: %+v", b)
	}
}

func BenchmarkHandler(b *testing.B) {
	h := NewHandler(NewSecretList(testSecret).All, func(context.Context, *Envelope) error { return nil },
		WithNow(testNow), WithLogger(slog.New(slog.DiscardHandler)), WithDeduper(NewMemory(0, 1000)))
	body, err := io.ReadAll(delivery(testID, TicketCreated).Body)
	if err != nil {
		b.Fatal(err)
	}
	// Events differ only in their id, which is as long in all of them.
	at, i := bytes.Index(body, []byte(testID)), 0
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		i++
		id := fmt.Sprintf("%s%012d", testID[:24], i)
		copy(body[at:], id)
		r, w := signed(id, TicketCreated, body), httptest.NewRecorder()
		b.StartTimer()
		if h.ServeHTTP(w, r); w.Code != 200 {
			b.Fatal(w.Code)
		}
	}
}
