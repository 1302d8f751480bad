package alga

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
)

const (
	cacheTime      = time.Minute      // of a row (W5)
	pollEvery      = 2 * time.Second  // how often the queue is looked at (4.9)
	batchSize      = 100              // jobs that one look takes (4.9)
	inFlight       = 50               // deliveries at a time, of all tenants (4.9, W10)
	attempts       = 5                // requests in all; the 12 h step is out of reach (4.9, W9)
	attemptTimeout = 10 * time.Second // the whole exchange (4.8)
	maxRedirects   = 20               // (4.8)
	keptAnswer     = 8192             // of an answer (4.8)
	disableAfter   = 24 * time.Hour   // of failures (4.11)
)

// backoff is the pause after failure n; there is no jitter (4.9, W24).
func backoff(n int) time.Duration {
	return []time.Duration{time.Minute, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 12 * time.Hour}[n-1]
}

// cached is a row in the cache, which no write makes invalid.
type cached struct {
	data object
	ends time.Time
}

// hook is a webhook.
type hook struct {
	id, name, url, secret              string
	types                              []string
	active                             bool
	disabled                           time.Time // auto_disabled_at
	created, changed                   time.Time
	total, succeeded, failed           int // attempts (3.8)
	lastAt, lastSuccess, lastFailureAt time.Time
	tokens                             bucket
}

// job is a delivery that is due.
type job struct {
	hook    string
	event   Event
	body    []byte
	attempt int
	due     time.Time
	n       int
}

// Delivery is an attempt that was made.
type Delivery struct {
	Event     Event
	WebhookID string
	ID        string // new for every attempt (4.1)
	Attempt   int
	At        time.Time
	Header    http.Header // as it was sent
	Body      []byte
	Status    int       // 0 without an answer
	Answer    string    // the beginning of the answer, or what went wrong
	State     string    // delivered, retrying or abandoned (3.9)
	Next      time.Time // of the retry
}

// Subscribe makes a webhook the way that works in the published source, the web
// UI (3.1), and returns its id and secret. Without types it gets the six ticket
// events. perMinute is its rate limit; 0 means 100 (4.10).
func (s *Server) Subscribe(url string, perMinute int, types ...string) (id, secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(types) == 0 {
		types = []string{"ticket.created", "ticket.updated", "ticket.status_changed", "ticket.assigned", "ticket.closed", "ticket.comment.added"}
	}
	h := s.subscribe("Subscribed by hand", url, types, perMinute)
	return h.id, h.secret
}

func (s *Server) subscribe(name, url string, types []string, perMinute int) *hook {
	key := make([]byte, 32)
	rand.Read(key) // it never fails
	limit := float64(cmp.Or(perMinute, 100))
	h := &hook{
		id: uuid.NewString(), name: name, url: url, types: types, active: true, created: s.cfg.Now(), changed: s.cfg.Now(),
		secret: base64.RawURLEncoding.EncodeToString(key), // used as text, never decoded (3.3, 4.2)
		tokens: bucket{size: limit, perMinute: limit * s.cfg.Compress},
	}
	s.webhooks = append(s.webhooks, h)
	return h
}

func (s *Server) hook(id string) *hook {
	for _, h := range s.webhooks {
		if h.id == id {
			return h
		}
	}
	return nil
}

// publish gives events their id and time, reads the payload and queues one job
// for each subscriber. occurred_at is this moment, and events of one millisecond
// have the same one (4.3, W26).
func (s *Server) publish(t *ticket, all ...happened) {
	now := s.cfg.Now()
	shared := uuid.NewString()
	for _, h := range all {
		e := Event{N: len(s.events) + 1, ID: uuid.NewString(), Type: h.kind, TicketID: t.id, OccurredAt: now.UTC().Truncate(time.Millisecond)}
		if s.cfg.SharedIDs {
			e.ID = shared
		}
		s.events = append(s.events, e)
		data := s.payload(t, now)
		data = append(data, pair{"suppress_contact_notifications", false}, pair{"suppress_internal_notifications", false})
		data = append(data, h.extra...)
		if !s.cfg.NoThread {
			data = append(data, pair{"comments", t.thread()}) // on every full payload (D9, W23)
		}
		body, err := compact(object{
			{"event_id", e.ID}, {"event_type", e.Type}, {"occurred_at", wire(e.OccurredAt)}, {"tenant_id", TenantID}, {"data", data},
		})
		if err != nil {
			panic(err) // it is made of texts
		}
		var fate Fate
		if s.cfg.Fate != nil {
			fate = s.cfg.Fate(e)
		}
		for _, w := range s.webhooks {
			// Events while it is inactive are gone (4.9, W30).
			for range 1 + fate.Copies {
				if w.active && slices.Contains(w.types, e.Type) && !fate.Lose {
					s.enqueue(job{hook: w.id, event: e, body: body, attempt: 1, due: now.Add(s.scaled(fate.Hold))})
				}
			}
		}
	}
}

// payload reads the row through the cache (W5).
func (s *Server) payload(t *ticket, now time.Time) object {
	c, known := s.cache[t.id]
	if !known || !now.Before(c.ends) || s.cfg.FreshPayloads {
		c = cached{t.payload(s.URL), now.Add(s.scaled(cacheTime))}
		s.cache[t.id] = c
	}
	return slices.Clone(c.data)
}

func (s *Server) enqueue(j job) {
	s.made++
	j.n = s.made
	s.queue = append(s.queue, j)
}

// work looks at the queue until ctx ends, and then lets what is in flight go.
func (s *Server) work(ctx context.Context) {
	tick := time.NewTicker(s.scaled(pollEvery))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		for _, j := range s.claim() {
			if s.cfg.InOrder {
				s.deliver(ctx, j)
				continue
			}
			s.tasks.Go(func() { s.deliver(ctx, j) })
		}
	}
}

// claim takes the jobs that are due, as far as there are slots. Those of one look
// run side by side, so the order in which they arrive is anybody's.
func (s *Server) claim() []job {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	slices.SortFunc(s.queue, func(a, b job) int { return cmp.Or(a.due.Compare(b.due), cmp.Compare(a.n, b.n)) })
	n := 0
	for n < min(len(s.queue), batchSize) && s.slots < inFlight && !s.queue[n].due.After(now) {
		n++
		s.slots++
	}
	batch := slices.Clone(s.queue[:n])
	s.queue = slices.Delete(s.queue, 0, n)
	if !s.cfg.InOrder {
		s.random.Shuffle(n, func(i, k int) { batch[i], batch[k] = batch[k], batch[i] })
	}
	return batch
}

// deliver makes an attempt, or finds that it may not. It gives the slot back.
func (s *Server) deliver(ctx context.Context, j job) {
	d, url := s.begin(j)
	if d == nil {
		return
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(j.body))
	if err == nil {
		req.Header = d.Header.Clone()
		d.Status, d.Answer, err = s.exchange(req)
	}
	if ctx.Err() != nil {
		return // the desk is closed
	}
	if err != nil {
		d.Answer = err.Error()
	}
	s.end(j, d)
}

// begin answers nil where nothing is sent and nothing recorded: the webhook is
// gone or inactive (4.9), or over its limit. Then the job comes again when the
// next token is due, as its next attempt, and after the last one is gone (4.10).
func (s *Server) begin(j job) (d *Delivery, url string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	h := s.hook(j.hook)
	if h == nil || !h.active {
		s.slots--
		return nil, ""
	}
	if wait := h.tokens.take(now); wait > 0 {
		s.slots--
		j.due = now.Add(wait)
		if !s.cfg.LimitWaits {
			j.attempt++
		}
		if j.attempt <= attempts {
			s.enqueue(j)
		}
		return nil, ""
	}
	d = &Delivery{Event: j.event, WebhookID: h.id, ID: uuid.NewString(), Attempt: j.attempt, At: now, Body: j.body, Header: http.Header{}}
	for k, v := range map[string]string{
		"Content-Type": "application/json", "User-Agent": "undici", "Accept": "*/*",
		"X-Alga-Signature": signature(h.secret, now, j.body), "X-Alga-Webhook-Id": h.id,
		"X-Alga-Event-Id": j.event.ID, "X-Alga-Event-Type": j.event.Type,
		"X-Alga-Delivery-Id": d.ID, "X-Alga-Delivery-Attempt": strconv.Itoa(j.attempt),
	} {
		d.Header.Set(k, v)
	}
	return d, h.url
}

// signature signs with the time of sending, so each attempt has another one over
// the same bytes (4.2).
func signature(secret string, at time.Time, body []byte) string {
	m := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(m, "%d.%s", at.Unix(), body)
	return fmt.Sprintf("t=%d,v1=%s", at.Unix(), hex.EncodeToString(m.Sum(nil)))
}

// exchange sends and reads the whole answer, however long (W13).
func (s *Server) exchange(req *http.Request) (int, string, error) {
	res, err := s.sender.Do(req)
	if err != nil {
		return 0, "", errors.New("fetch failed") // whatever it was (W21)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, "", err
	}
	return res.StatusCode, string(answer[:min(len(answer), keptAnswer)]), nil
}

// redirect follows: 307 posts body and signature again, 302 gets without a body,
// and what answers that counts (4.8, W12).
func (s *Server) redirect(_ *http.Request, via []*http.Request) error {
	if s.cfg.NoRedirects || len(via) > maxRedirects {
		return http.ErrUseLastResponse
	}
	return nil
}

// end records an attempt and queues the next one.
func (s *Server) end(j job, d *Delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	s.slots--
	ok := d.Status >= 200 && d.Status <= 299
	switch {
	case ok:
		d.State = "delivered"
	case j.attempt < attempts:
		d.State, d.Next = "retrying", now.Add(s.scaled(backoff(j.attempt)))
		j.due = d.Next
		j.attempt++
		s.enqueue(j)
	default:
		d.State = "abandoned"
	}
	s.sent = append(s.sent, *d)
	h := s.hook(d.WebhookID)
	if h == nil {
		return
	}
	h.total++
	h.lastAt = now
	if ok {
		h.succeeded++
		h.lastSuccess = now
		return
	}
	h.failed++
	h.lastFailureAt = now
	s.disable(h, now)
}

// disable switches a webhook off when the oldest failure since its last success
// is a day old. Once auto_disabled_at is set it never does so again, because
// nothing clears it (4.11, W7).
func (s *Server) disable(h *hook, now time.Time) {
	if !h.active || !h.disabled.IsZero() {
		return
	}
	for _, d := range s.sent {
		if d.WebhookID == h.id && d.State != "delivered" && d.At.After(h.lastSuccess) {
			if now.Sub(d.At) >= s.scaled(disableAfter) {
				h.active, h.disabled = false, now
			}
			return
		}
	}
}

// Events returns all events of the desk so far, lost ones too.
func (s *Server) Events() []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

// Deliveries returns the attempts so far, in the order in which they ended.
func (s *Server) Deliveries() []Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.sent)
}

// Waiting returns how many deliveries are queued or in flight.
func (s *Server) Waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue) + s.slots
}
