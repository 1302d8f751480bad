package dispatch

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/egress"
	"github.com/ticketwire/ticketwire/internal/failpoint"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/webhook"
)

// panicPause is how long a delivery that met a defect of ours keeps its place in
// flight before it is tried again: one that meets it every time must not spin.
const panicPause = time.Second

// order is a claimed delivery that is to be sent, and where to.
type order struct {
	target  store.Target
	claimed store.Claimed
}

// start sends one claimed delivery on a goroutine that has sent another before, or on
// a new one. Those that are free wait for the next: a stack that grows anew to the
// depth of net/http is a twentieth of what a delivery costs. There are never more of
// them than requests were in flight at once.
func (e *Engine) start(t store.Target, c store.Claimed) {
	select {
	case e.orders <- order{t, c}:
	default:
		first := order{t, c}
		e.attempts.Go(func() { e.work(first) })
	}
}

// work sends one delivery after the other until the engine stops.
func (e *Engine) work(o order) {
	for more := true; more; {
		e.deliver(o.target, o.claimed)
		o, more = e.next()
	}
}

// next waits for something to send; more is false when there will be nothing.
func (e *Engine) next() (o order, more bool) {
	select {
	case o = <-e.orders:
		return o, true
	case <-e.stop:
		return order{}, false
	}
}

// deliver makes an attempt. The result goes to the recorder; an attempt that we broke
// off, or that another node may make by now, gives its lease back and counts for
// nothing.
func (e *Engine) deliver(t store.Target, c store.Claimed) {
	e.metrics.inFlight.Inc()
	defer e.metrics.inFlight.Dec()
	var r store.Result
	sent := e.cfg.Store.InOffice() // a claim may have come back late
	if sent {
		r, sent = e.attempt(e.sending, t, c)
	}
	if !sent {
		e.release(c)
		e.done(finished{lane: c.Lane()})
		return
	}
	e.results <- r
}

// done tells the scheduler that attempts are over, unless it has stopped.
func (e *Engine) done(list ...finished) {
	select {
	case e.sched.finished <- list:
	case <-e.stop:
	}
}

// A receiver that stops answering has thousands of deliveries to give back, and
// every change waits while the writer does it. So they go in small pages with
// pauses between them, which nobody notices; only at the end, when nobody else is
// there, in large ones.
const (
	releasePage     = 32
	releaseRest     = 5 * time.Millisecond
	releasePageLast = 256
)

// release gives leases back. It tries until it has, since nobody else may send
// what this process holds, or until Stop's grace is over: the next start voids
// every lease.
func (e *Engine) release(list ...store.Claimed) {
	for len(list) > 0 {
		n := releasePage
		if e.stopping() {
			n = releasePageLast
		}
		n = min(n, len(list))
		e.releaseSome(list[:n])
		if list = list[n:]; len(list) > 0 {
			select {
			case <-time.After(releaseRest):
			case <-e.stop:
			}
		}
	}
}

// stopping reports whether Stop was called.
func (e *Engine) stopping() bool {
	select {
	case <-e.stop:
		return true
	default:
		return false
	}
}

func (e *Engine) releaseSome(list []store.Claimed) {
	wait := releasePause
	for try := 1; ; try++ {
		err := e.cfg.Store.Release(context.Background(), list)
		switch {
		case err == nil:
			return
		case fault.Is(err, fault.Unavailable):
		case len(list) > 1: // one of them is the reason: the others must not suffer
			for i := range list {
				e.releaseSome(list[i : i+1])
			}
			return
		case try >= poisonTries:
			e.cfg.Log.Error("could not give a lease back, the delivery waits for the next start", "delivery", list[0].DeliveryID, "error", err)
			return
		}
		e.cfg.Log.Warn("could not give leases back, will be tried again", "deliveries", len(list), "error", err)
		if e.pause(wait) {
			return
		}
		wait = min(2*wait, recordPause)
	}
}

// releasePause is the time before a second try to release; it doubles up to
// recordPause.
const releasePause = 50 * time.Millisecond

// attempt makes one request and decides what follows. sent is false when the
// exchange was broken off by us, or our own code failed: then nothing is known
// about the receiver, and the attempt does not count.
func (e *Engine) attempt(ctx context.Context, t store.Target, c store.Claimed) (r store.Result, sent bool) {
	defer func() {
		if p := recover(); p != nil {
			e.metrics.panics.Inc()
			e.cfg.Log.Error("panic in an attempt, the delivery stays owed", "delivery", c.DeliveryID, "panic", p, "stack", string(debug.Stack()))
			sent = false
			e.pause(panicPause)
		}
	}()
	if failpoint.Hit(failpoint.Attempt) != nil {
		return store.Result{}, false
	}
	started := e.cfg.Now()
	e.last.Store(started.UnixMicro())
	e.metrics.delay.Observe(max(0, started.Sub(c.DueAt).Seconds()))
	header := Header(t.CustomHeaders, c.Delivery)
	e.sign(header, t.Secrets.At(started), c.EventID, started, c.Body)
	a := e.cfg.Client.Do(ctx, egress.Request{
		Method: t.Method, URL: t.URL, Header: header, Body: c.Body,
		VerifySSL: t.VerifySSL, TLS: t.TLS, Timeout: e.cfg.Policy.TimeoutFor(t.RetryConfig),
	})
	if a.Interrupted || failpoint.Hit(failpoint.Answered) != nil {
		return store.Result{}, false
	}
	ended := e.cfg.Now()
	v := e.cfg.Policy.Decide(&t.Webhook, &c.Delivery, a, ended, e.cfg.Random())
	e.observe(t, c, a, v)
	return store.Result{
		Claimed: c, Answer: a, Verdict: v, StartedAt: started, EndedAt: ended,
		CustomHeaders: e.names(t.CustomHeaders),
	}, true
}

// Header returns the headers of a request but the signature (contract section
// 4.1). Custom headers come first, so that no spelling of theirs can replace one
// of the contract's.
func Header(custom map[string]string, d delivery.Delivery) http.Header {
	h := make(http.Header, len(custom)+8)
	values := make([]string, 0, len(custom)+8) // of all of them
	set := func(k, v string) bool {
		values = append(values, v)
		h[k] = values[len(values)-1 : len(values) : len(values)]
		return true
	}
	for k, v := range custom {
		set(k, v)
	}
	d.Headers(set)
	return h
}

// names returns the names of the headers that not every request has: the custom
// ones and those of Standard Webhooks. It is nil without any.
func (e *Engine) names(custom map[string]string) []string {
	if len(custom) == 0 && !e.cfg.Standard {
		return nil
	}
	list := slices.Sorted(maps.Keys(custom))
	if e.cfg.Standard {
		list = append(list, webhook.StandardIDHeader, webhook.StandardTimestampHeader, webhook.StandardSignatureHeader)
	}
	return list
}

// sign adds the signature, and what Standard Webhooks wants if that is asked for.
func (e *Engine) sign(h http.Header, s store.Secrets, eventID string, now time.Time, body []byte) {
	signature := webhook.Sign(s.Current, now, body)
	if s.Previous != "" {
		signature = webhook.SignRotating(s.Previous, s.Current, now, body)
	}
	h[webhook.SignatureHeader] = []string{signature}
	if !e.cfg.Standard {
		return
	}
	secrets := []string{s.Current}
	if s.Previous != "" {
		secrets = append(secrets, s.Previous)
	}
	h[webhook.StandardIDHeader] = []string{eventID}
	h[webhook.StandardTimestampHeader] = []string{strconv.FormatInt(now.Unix(), 10)}
	h[webhook.StandardSignatureHeader] = []string{webhook.SignStandard(eventID, now, body, secrets...)}
}

// observe writes the one line of an attempt and counts it.
func (e *Engine) observe(t store.Target, c store.Claimed, a delivery.Answer, v delivery.Verdict) {
	class := string(v.ErrorType)
	if class == "" {
		class = noError
	}
	e.metrics.attempts.WithLabelValues(string(v.Status), class).Inc()
	e.metrics.duration.Observe(a.Duration.Seconds())
	level := slog.LevelInfo
	if v.Status != delivery.Delivered {
		level = slog.LevelWarn
	}
	if !e.cfg.Log.Enabled(context.Background(), level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("tenant", c.TenantID), slog.String("webhook", c.WebhookID), slog.String("host", hostOf(t.URL)),
		slog.String("event", c.EventID), slog.String("event_type", c.EventType), slog.String("delivery", c.DeliveryID),
		slog.Int("attempt", c.Attempt), slog.String("status", string(v.Status)), slog.Int("code", a.StatusCode),
		slog.Duration("took", a.Duration),
	}
	if v.Status != delivery.Delivered {
		attrs = append(attrs, slog.String("error_type", class), slog.String("error", v.ErrorMessage))
	}
	if !v.RetryAt.IsZero() {
		attrs = append(attrs, slog.Time("retry_at", v.RetryAt))
	}
	e.cfg.Log.LogAttrs(context.Background(), level, "attempt", attrs...)
}

// hostOf keeps paths and queries, which often hold tokens, out of the log.
func hostOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return u.Host
}

// Send makes the deliveries of a batch now, outside the queue, and returns them
// as recorded: test deliveries and manual retries.
func (e *Engine) Send(ctx context.Context, b store.Batch) ([]delivery.Delivery, error) {
	// The caller may hang up; the request goes on, since its row is owed, and so does
	// the answer, which his idempotency key may ask for later.
	ctx = context.WithoutCancel(ctx)
	out := make([]delivery.Delivery, 0, len(b.Deliveries))
	for _, c := range b.Deliveries {
		r, sent := e.attempt(ctx, b.Target, c)
		if !sent {
			e.release(c)
			return nil, fmt.Errorf("delivery %s was broken off", c.DeliveryID)
		}
		recorded, err := e.cfg.Store.Record(ctx, []store.Result{r})
		if err != nil {
			// What was sent comes again, as after a crash. The caller need not wait
			// until the store can say so, and a server that stops need not say it.
			select {
			case <-e.stop:
			default:
				e.errands.Go(func() { e.release(c) })
			}
			return nil, fmt.Errorf("record delivery %s: %w", c.DeliveryID, err)
		}
		e.afterRecord(r, recorded[0])
		d, err := e.cfg.Store.Delivery(ctx, c.TenantID, c.WebhookID, c.DeliveryID)
		if err != nil {
			return nil, fmt.Errorf("read delivery %s: %w", c.DeliveryID, err)
		}
		out = append(out, d)
	}
	return out, nil
}

// Probe is a request that belongs to no delivery: the ad hoc test of contract
// section 3.6.
type Probe struct {
	URL       string
	Body      []byte
	EventID   string
	EventType string
	WebhookID string        // "" without a webhook
	Webhook   delivery.Spec // method, custom headers, TLS and timeout
	Secrets   store.Secrets // an empty Current leaves the signature out
}

// Probe sends p once and records nothing.
func (e *Engine) Probe(ctx context.Context, p Probe) delivery.Answer {
	d := delivery.Delivery{
		DeliveryID: store.NewID(), WebhookID: p.WebhookID, EventID: p.EventID, EventType: p.EventType, Attempt: 1,
	}
	h := Header(p.Webhook.CustomHeaders, d)
	if p.WebhookID == "" {
		delete(h, webhook.WebhookIDHeader)
	}
	if p.Secrets.Current != "" {
		e.sign(h, p.Secrets, p.EventID, e.cfg.Now(), p.Body)
	}
	return e.cfg.Client.Do(ctx, egress.Request{
		Method: p.Webhook.Method, URL: p.URL, Header: h, Body: p.Body,
		VerifySSL: p.Webhook.VerifySSL, TLS: p.Webhook.TLS, Timeout: e.cfg.Policy.TimeoutFor(p.Webhook.RetryConfig),
	})
}
