package webhook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Reaction is the integrator's answer to an event. nil means that the event is
// done with for good; an error gives it back, so that the sender tries again.
//
// ctx ends with the lease of the claim, not when the sender hangs up: a
// reaction that outlives the sender's 10 seconds still finishes, and the retry
// finds it done.
type Reaction func(ctx context.Context, e *Envelope) error

const (
	// slowAfter is when a running reaction is logged: the sender gives up two
	// seconds later.
	slowAfter = 8 * time.Second

	// recordTimeout bounds a Deduper call that must not die with the request.
	recordTimeout = 5 * time.Second
)

// Outcome says what became of one request. The texts are stable, for counters.
type Outcome string

// The outcomes with their status codes.
const (
	Processed      Outcome = "processed"       // 200: the reaction returned nil
	Kept           Outcome = "kept"            // 200: durable in an inbox, to be processed later
	Duplicate      Outcome = "duplicate"       // 200: processed before
	InProgress     Outcome = "in_progress"     // 503: a copy is being processed; Retry-After: 1
	TestEvent      Outcome = "test"            // 200: webhook.test
	IgnoredType    Outcome = "ignored_type"    // 200: an event type that nobody asked for
	Unwatched      Outcome = "unwatched"       // 200: a ticket that is not watched, recorded as done
	SkippedStale   Outcome = "skipped_stale"   // 200: older than what was done of its ticket, recorded as done
	ReactionFailed Outcome = "reaction_failed" // 500: the reaction returned an error or panicked
	StoreFailed    Outcome = "store_failed"    // 503: the Deduper or the inbox returned an error
	BadSignature   Outcome = "bad_signature"   // 401
	BadEnvelope    Outcome = "bad_envelope"    // 400: not an envelope, or headers that disagree
	BadRequest     Outcome = "bad_request"     // 400: the body could not be read; 405: a method without a body
	TooLarge       Outcome = "too_large"       // 413
)

// Outcomes returns all of them, for metrics that begin at zero.
func Outcomes() []Outcome {
	return []Outcome{
		Processed, Kept, Duplicate, InProgress, TestEvent, IgnoredType, Unwatched, SkippedStale,
		ReactionFailed, StoreFailed, BadSignature, BadEnvelope, BadRequest, TooLarge,
	}
}

// Keep makes a verified event durable, so that it can be processed later, and
// answers its state: Fresh for one that is new, Done for one that was kept or
// processed before, Running for one that somebody is processing without having
// kept it. body is the event as it was signed; it must not be changed. Every
// error makes the handler answer 503. package inbox has the durable one.
type Keep func(ctx context.Context, now time.Time, e *Envelope, body []byte) (State, error)

// Receipt describes one request after it was answered.
type Receipt struct {
	Outcome Outcome
	Status  int // what was answered
	// Event is the verified envelope; nil where the request was refused before.
	Event *Envelope
	// DeliveryID and Attempt are from headers that nobody signed. Attempt is 0
	// where the header has no number.
	DeliveryID string
	Attempt    int
	Took       time.Duration
	// Err is why Outcome is a failure: a *SignatureError, an *EnvelopeError,
	// what the reaction or the Deduper returned, or a *PanicError.
	Err error
}

// PanicError is a panic in a reaction.
type PanicError struct {
	Value any    // what was passed to panic
	Stack []byte // of the goroutine, at the panic
}

// Error returns the panic's value.
func (e *PanicError) Error() string { return fmt.Sprintf("reaction panicked: %v", e.Value) }

// Handler is an http.Handler that receives webhooks: it verifies, deduplicates
// and reacts. The package comment has the order of its steps, the Outcome
// constants its answers. Its plain-text answers name the reason of a refusal
// and nothing of the reaction's error. Use NewHandler. Safe for concurrent use.
type Handler struct {
	verifier Verifier
	react    Reaction // nil with keep
	deduper  Deduper
	keep     Keep // nil with react
	lease    time.Duration
	types    map[string]bool
	watch    func(ticketID string) bool
	skip     bool // stale events
	log      *slog.Logger
	observe  func(context.Context, Receipt)
	counts   map[Outcome]*atomic.Int64 // has all outcomes; the map itself does not change
}

// Option changes a Handler that NewHandler makes.
type Option func(*Handler)

// NewHandler returns a handler that verifies with the secrets that the function
// returns at the moment of each request, and reacts to the six ticket events.
// Without options it deduplicates in the memory of this process and logs to
// slog.Default.
func NewHandler(secrets func() []string, react Reaction, opts ...Option) *Handler {
	h := newHandler(secrets, opts)
	h.react = react
	if h.deduper == nil {
		h.deduper = NewMemory(0, 0)
	}
	return h
}

// NewInboxHandler returns a handler that does not react: it hands what it has
// verified to keep and answers 200 once that is durable. Who processes it, and
// how, is not its business, so WithDeduper, WithLease and WithoutStale change
// nothing. Events of tickets that are not watched are not kept.
func NewInboxHandler(secrets func() []string, keep Keep, opts ...Option) *Handler {
	h := newHandler(secrets, opts)
	h.keep = keep
	return h
}

func newHandler(secrets func() []string, opts []Option) *Handler {
	h := &Handler{
		verifier: Verifier{Secrets: secrets},
		lease:    DefaultLease,
		log:      slog.Default(),
		counts:   make(map[Outcome]*atomic.Int64),
	}
	for _, o := range Outcomes() {
		h.counts[o] = new(atomic.Int64)
	}
	WithEventTypes(TicketCreated, TicketUpdated, TicketStatusChanged, TicketAssigned, TicketClosed, TicketCommentAdded)(h)
	for _, o := range opts {
		o(h)
	}
	return h
}

// WithDeduper replaces the memory of this process, for example by a durable one.
func WithDeduper(d Deduper) Option { return func(h *Handler) { h.deduper = d } }

// WithLease replaces DefaultLease: how long a reaction may take, and how long
// an event stays claimed after a crash.
func WithLease(d time.Duration) Option { return func(h *Handler) { h.lease = d } }

// WithTolerance replaces DefaultTolerance.
func WithTolerance(d time.Duration) Option { return func(h *Handler) { h.verifier.Tolerance = d } }

// WithMaxBody replaces MaxBody, in bytes. AlgaPSA sends all comments of a ticket
// with every event, and a ticket that has outgrown the bound is never received.
func WithMaxBody(n int64) Option { return func(h *Handler) { h.verifier.MaxBody = n } }

// WithNow replaces time.Now, for tests.
func WithNow(now func() time.Time) Option { return func(h *Handler) { h.verifier.Now = now } }

// WithEventTypes replaces the list of event types that are handed to the
// reaction. All others are acknowledged with 200 and not remembered.
func WithEventTypes(types ...string) Option {
	return func(h *Handler) {
		h.types = make(map[string]bool, len(types))
		for _, t := range types {
			h.types[t] = true
		}
	}
}

// WithWatch restricts the reaction to the tickets for which watch returns true:
// webhooks deliver every ticket of the tenant. Events of other tickets are
// acknowledged and remembered as done. watch gets the id in lower case, is
// called from many goroutines, and is not asked about an event without a
// ticket_id, which is handed over.
func WithWatch(watch func(ticketID string) bool) Option { return func(h *Handler) { h.watch = watch } }

// WithTickets is WithWatch for a fixed list of ticket ids.
func WithTickets(ids ...string) Option {
	list := make(map[string]bool, len(ids))
	for _, id := range ids {
		list[strings.ToLower(id)] = true
	}
	return WithWatch(func(id string) bool { return list[id] })
}

// WithoutStale acknowledges stale events without a reaction: those that occurred
// before an event of the same ticket that is done. Without it they are handed
// over with Envelope.Claim.Stale set, since a comment is news however late it
// comes. Two events of a ticket that are processed at the same moment do not see
// each other; package inbox processes them one after the other.
func WithoutStale() Option { return func(h *Handler) { h.skip = true } }

// WithLogger replaces slog.Default. Each request is one line: failures of the
// receiver at level error, refusals at warn, the rest at debug. A reaction that
// is about to outlast the sender's patience gets a warning of its own.
func WithLogger(l *slog.Logger) Option { return func(h *Handler) { h.log = l } }

// WithObserver sets a function that is called with the receipt of every
// request, for counters and alarms. It runs before the answer is complete, so
// it must be quick.
func WithObserver(f func(context.Context, Receipt)) Option {
	return func(h *Handler) { h.observe = f }
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := h.verifier.now()
	rec, text := h.handle(w, r)
	rec.DeliveryID = r.Header.Get(DeliveryIDHeader)
	rec.Attempt, _ = strconv.Atoi(r.Header.Get(AttemptHeader))
	rec.Took = h.verifier.now().Sub(start)

	if rec.Outcome == InProgress {
		w.Header().Set("Retry-After", "1")
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(rec.Status)
	_, _ = io.WriteString(w, text+"\n") // the sender reads the status; if it is gone it will come again

	h.counts[rec.Outcome].Add(1)
	h.record(r.Context(), rec)
	if h.observe != nil {
		h.observe(r.Context(), rec)
	}
}

// Counts returns how many requests had each outcome since the handler was made.
// All outcomes are in it.
func (h *Handler) Counts() map[Outcome]int64 {
	out := make(map[Outcome]int64, len(h.counts))
	for o, n := range h.counts {
		out[o] = n.Load()
	}
	return out
}

// handle decides what becomes of a request, and the text of the answer.
func (h *Handler) handle(w http.ResponseWriter, r *http.Request) (Receipt, string) {
	switch r.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch: // the method of a webhook can be chosen
	default:
		w.Header().Set("Allow", "POST, PUT, PATCH")
		return Receipt{Outcome: BadRequest, Status: http.StatusMethodNotAllowed}, "webhooks are sent with POST, PUT or PATCH"
	}
	e, body, bad := h.verifier.receive(w, r)
	if bad != nil {
		return Receipt{Outcome: bad.outcome, Status: bad.status, Err: bad.err}, bad.text
	}
	// A 4xx here would be retried and in the end disable the webhook.
	switch {
	case e.EventType == Test:
		return Receipt{Outcome: TestEvent, Status: http.StatusOK, Event: e}, "ok: test"
	case !h.types[e.EventType]:
		return Receipt{Outcome: IgnoredType, Status: http.StatusOK, Event: e}, "ok: ignored"
	}
	// The sender hanging up must not leave an event half done.
	ctx := context.WithoutCancel(r.Context())
	process := h.process
	if h.keep != nil {
		process = func(ctx context.Context, e *Envelope) (Receipt, string) { return h.store(ctx, e, body) }
	}
	rec, text := process(ctx, e)
	rec.Event = e
	return rec, text
}

// store hands the event to the inbox.
func (h *Handler) store(ctx context.Context, e *Envelope, body []byte) (Receipt, string) {
	if !h.watched(e) {
		return Receipt{Outcome: Unwatched, Status: http.StatusOK}, "ok: not watched"
	}
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	switch state, err := h.keep(ctx, h.verifier.now(), e, body); {
	case err == nil && state == Fresh:
		return Receipt{Outcome: Kept, Status: http.StatusOK}, "ok: kept"
	case err == nil && state == Done:
		return Receipt{Outcome: Duplicate, Status: http.StatusOK}, "ok: duplicate"
	case err == nil && state == Running:
		return Receipt{Outcome: InProgress, Status: http.StatusServiceUnavailable}, "this event is being processed"
	case err == nil:
		err = fmt.Errorf("the inbox answered %s", state)
		fallthrough
	default:
		err = fmt.Errorf("keep event %s: %w", e.EventID, err)
		return Receipt{Outcome: StoreFailed, Status: http.StatusServiceUnavailable, Err: err}, "the inbox is not available"
	}
}

// process claims the event, reacts, and records the end of the claim.
func (h *Handler) process(ctx context.Context, e *Envelope) (Receipt, string) {
	claim, err := h.claim(ctx, e)
	if err != nil {
		return Receipt{Outcome: StoreFailed, Status: http.StatusServiceUnavailable, Err: err}, "deduplication is not available"
	}
	switch claim.State {
	case Done:
		return Receipt{Outcome: Duplicate, Status: http.StatusOK}, "ok: duplicate"
	case Running:
		return Receipt{Outcome: InProgress, Status: http.StatusServiceUnavailable}, "this event is being processed"
	}
	rec, text := Receipt{Outcome: Processed, Status: http.StatusOK}, "ok"
	e.Claim = claim
	switch {
	case !h.watched(e):
		rec.Outcome, text = Unwatched, "ok: not watched"
	case claim.Stale && h.skip:
		rec.Outcome, text = SkippedStale, "ok: stale"
	default:
		if err := h.run(ctx, e); err != nil {
			err = errors.Join(err, h.release(ctx, claim))
			return Receipt{Outcome: ReactionFailed, Status: http.StatusInternalServerError, Err: err}, "the reaction failed"
		}
	}
	if err := h.finish(ctx, claim); err != nil {
		// The claim stays: released, the event could run again at once; left
		// alone, the sender's next attempt finds the lease ended and tries.
		return Receipt{Outcome: StoreFailed, Status: http.StatusServiceUnavailable, Err: err}, "deduplication is not available"
	}
	return rec, text
}

// watched tells whether the event is about a ticket that the integrator watches.
func (h *Handler) watched(e *Envelope) bool {
	if h.watch == nil {
		return true
	}
	id := e.TicketID()
	return id == "" || h.watch(id)
}

// run calls the reaction. A panic becomes an error: it must not keep the claim.
func (h *Handler) run(ctx context.Context, e *Envelope) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, h.lease, errors.New("the lease of the event has ended"))
	defer cancel()
	slow := time.AfterFunc(slowAfter, func() {
		h.log.WarnContext(ctx, "webhook reaction is slow: the sender gives up after 10 seconds",
			"event_id", e.EventID, "event_type", e.EventType)
	})
	defer slow.Stop()
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return h.react(ctx, e)
}

func (h *Handler) claim(ctx context.Context, e *Envelope) (Claim, error) {
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	c, err := h.deduper.Claim(ctx, h.verifier.now(), e, h.lease)
	if err != nil {
		return Claim{}, fmt.Errorf("claim event %s: %w", e.EventID, err)
	}
	if c.State != Fresh && c.State != Running && c.State != Done {
		return Claim{}, fmt.Errorf("claim event %s: the deduper answered %s", e.EventID, c.State)
	}
	return c, nil
}

func (h *Handler) finish(ctx context.Context, c Claim) error {
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	if err := h.deduper.Finish(ctx, h.verifier.now(), c); err != nil {
		return fmt.Errorf("finish event %s: %w", c.Key.EventID, err)
	}
	return nil
}

func (h *Handler) release(ctx context.Context, c Claim) error {
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	if err := h.deduper.Release(ctx, h.verifier.now(), c); err != nil {
		return fmt.Errorf("release event %s: %w", c.Key.EventID, err)
	}
	return nil
}

// record writes the request's one log line.
func (h *Handler) record(ctx context.Context, rec Receipt) {
	level := slog.LevelDebug
	switch rec.Outcome {
	case ReactionFailed, StoreFailed:
		level = slog.LevelError
	case BadSignature, BadEnvelope, BadRequest, TooLarge:
		level = slog.LevelWarn
	}
	if errors.Is(rec.Err, NoSecret) {
		level = slog.LevelError // every delivery fails until somebody acts
	}
	if !h.log.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("outcome", string(rec.Outcome)),
		slog.Int("status", rec.Status),
		slog.String("delivery_id", rec.DeliveryID),
		slog.Int("attempt", rec.Attempt),
		slog.Duration("took", rec.Took),
	}
	if rec.Event != nil {
		attrs = append(attrs, slog.String("event_id", rec.Event.EventID), slog.String("event_type", rec.Event.EventType))
	}
	if rec.Err != nil {
		attrs = append(attrs, slog.Any("error", rec.Err))
	}
	if p, ok := errors.AsType[*PanicError](rec.Err); ok {
		attrs = append(attrs, slog.String("stack", string(p.Stack)))
	}
	h.log.LogAttrs(ctx, level, "webhook received", attrs...)
}
