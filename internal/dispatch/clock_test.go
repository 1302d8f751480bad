package dispatch_test

import (
	"bytes"
	"database/sql"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
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

// lines counts how often a text was logged.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Count(l.text.Bytes(), []byte(what))
}

// When the look at everything fails, it is repeated after a pause and not at
// once, and all goes on when the store can be read again.
func TestLookThatFailsPauses(t *testing.T) {
	t.Parallel()
	const failed = "could not look for due deliveries"
	b := newBench(t)
	r := newReceiver(t, true)
	hook := b.webhook(r.URL, nil)
	db, err := sql.Open("sqlite", filepath.Join(b.dir, "ticketwire.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rename := func(from, to string) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), "alter table "+from+" rename to "+to); err != nil {
			t.Fatal(err)
		}
	}
	var log lines
	var offset atomic.Int64
	b.start(func(c *dispatch.Config) {
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
		c.Now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	})
	b.ticket("before")
	r.next(t)
	eventually(t, "it is recorded", func() bool { return b.log(hook)[0].Status == delivery.Delivered })
	rename("deliveries", "away")
	offset.Store(int64(2 * time.Minute)) // everything is to be looked at
	if _, _, err := b.store.UpdateWebhook(t.Context(), time.Now(), b.actor, hook, func(s *delivery.Spec) error {
		s.Name = "wakes the scheduler"
		return nil
	}, false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the look fails", func() bool { return log.count(failed) > 0 })
	<-time.After(time.Second)
	if n := log.count(failed); n > 10 {
		t.Errorf("it failed %d times in a second", n)
	}
	rename("away", "deliveries")
	b.ticket("after")
	r.next(t)
}
