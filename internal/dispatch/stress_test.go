package dispatch_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/dispatch"
	"github.com/ticketwire/ticketwire/webhook"
)

// ledger counts what a receiver was sent and what it accepted.
type ledger struct {
	mu       sync.Mutex
	sent     map[string]int
	accepted map[string]int
}

// Whatever happens to a webhook while events come in (another limit, another
// secret, an edit, a receiver that refuses one request in four), each event is
// accepted once: none is lost between memory and the store's queue, and none is
// in both.
func TestEachEventIsAcceptedOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	l := &ledger{sent: map[string]int{}, accepted: map[string]int{}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Errorf("read the body: %v", err)
		}
		id := r.Header.Get(webhook.EventIDHeader)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.sent[id]++
		if l.sent[id] == 1 && len(l.sent)%4 == 0 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		l.accepted[id]++
	}))
	t.Cleanup(srv.Close)
	soon := []int64{20, 20, 20, 20, 20}
	hook := b.webhook(srv.URL, func(s *delivery.Spec) { s.RetryConfig = &delivery.RetryConfig{Schedule: soon} })
	b.start(func(c *dispatch.Config) { c.PerLane, c.InFlight = 4, 8 })

	const writers, each = 8, 60
	stop := make(chan struct{})
	var editing, writing sync.WaitGroup
	editing.Go(func() { b.edit(hook, stop) })
	for w := range writers {
		writing.Go(func() {
			for n := range each {
				b.ticket(fmt.Sprint("ticket ", w, " ", n))
			}
		})
	}
	writing.Wait()
	close(stop)
	editing.Wait()
	b.limit(hook, nil)
	eventually(t, "every event is accepted", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.accepted) == writers*each
	})
	eventually(t, "nothing is owed any more", func() bool {
		left, err := b.store.Backlog(t.Context(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return left.Pending == 0
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, n := range l.accepted {
		if n != 1 {
			t.Errorf("event %s was accepted %d times", id, n)
		}
	}
}

// edit changes the webhook's limit and secret in turn until stop is closed.
func (b *bench) edit(hook string, stop <-chan struct{}) {
	off := false
	limits := []*delivery.RateLimit{{RequestsPerMinute: new(600), BurstLimit: new(3)}, {Enabled: &off}, nil}
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		b.limit(hook, limits[n%len(limits)])
		if _, err := b.store.RotateSecret(b.t.Context(), time.Now(), b.tenant.TenantID, hook, time.Hour); err != nil {
			b.t.Errorf("rotate: %v", err)
			return
		}
		if err := b.store.PromoteSecret(b.t.Context(), time.Now(), b.tenant.TenantID, hook); err != nil {
			b.t.Errorf("promote: %v", err)
			return
		}
	}
}

// limit sets the webhook's rate limit; nil lifts it.
func (b *bench) limit(hook string, r *delivery.RateLimit) {
	if r == nil {
		off := false
		r = &delivery.RateLimit{Enabled: &off}
	}
	_, _, err := b.store.UpdateWebhook(b.t.Context(), time.Now(), b.actor, hook, func(s *delivery.Spec) error {
		s.RateLimit = r
		return nil
	}, false)
	if err != nil {
		b.t.Errorf("update the webhook: %v", err)
	}
}

// A webhook that is switched off and on again gets what it missed once, whether
// that was in memory, in the queue or in flight at the time.
func TestSwitchingOffAndOnLosesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := newReceiver(t, true)
	hook := b.webhook(r.URL, nil)
	b.start(func(c *dispatch.Config) { c.PerLane, c.InFlight = 2, 4 })
	const n = 300
	var writing sync.WaitGroup
	writing.Go(func() {
		for i := range n {
			b.ticket(fmt.Sprint("ticket ", i))
		}
	})
	for range 10 {
		b.activate(hook, false)
		b.activate(hook, true)
	}
	writing.Wait()
	b.activate(hook, false)
	b.activate(hook, true)
	got := map[string]int{}
	for len(got) < n {
		got[r.next(t)]++
	}
	eventually(t, "nothing is owed any more", func() bool {
		left, err := b.store.Backlog(t.Context(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return left.Pending == 0
	})
	for len(r.hits) > 0 {
		got[r.next(t)]++
	}
	for id, times := range got {
		if times != 1 {
			t.Errorf("event %s was sent %d times", id, times)
		}
	}
}

func (b *bench) activate(hook string, on bool) {
	_, _, err := b.store.UpdateWebhook(b.t.Context(), time.Now(), b.actor, hook, func(s *delivery.Spec) error {
		s.IsActive = on
		return nil
	}, on)
	if err != nil {
		b.t.Errorf("switch the webhook: %v", err)
	}
}
