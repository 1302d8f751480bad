package dispatch_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/dispatch"
	"github.com/ticketwire/ticketwire/webhook"
)

// After the clock was set back, retries come when they are due by it, and not
// when the slow look at everything finds them: the due rows lie before the time
// up to which the queue was seen.
func TestRetriesComeAfterTheClockWasSetBack(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.policy.Schedule = []time.Duration{100 * time.Millisecond, 100 * time.Millisecond, time.Hour}
	got := make(chan string, 100)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			t.Errorf("read the body: %v", err)
		}
		got <- req.Header.Get(webhook.AttemptHeader)
		w.WriteHeader(http.StatusInternalServerError)
	}))
	t.Cleanup(s.Close)
	b.webhook(s.URL, nil)
	var offset atomic.Int64
	b.start(func(c *dispatch.Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	})
	for _, back := range []time.Duration{0, -2 * time.Hour} {
		offset.Store(int64(back))
		b.ticket("fails")
		for _, want := range []string{"1", "2", "3"} {
			select {
			case attempt := <-got:
				if attempt != want {
					t.Errorf("attempt %s came, want %s", attempt, want)
				}
			case <-time.After(within):
				t.Fatalf("clock %s: attempt %s did not come", back, want)
			}
		}
	}
}
