package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ticketwire/ticketwire/internal/api"
	"github.com/ticketwire/ticketwire/internal/delivery"
)

// A service is ready while it delivers and its store answers. The reason why not is
// none of a stranger's business, and the answer is for this moment.
func TestReadiness(t *testing.T) {
	t.Parallel()
	a, err := New(t.Context(), Config{
		Listen: "127.0.0.1:0", DataDir: t.TempDir(), Policy: delivery.DefaultPolicy(), Rate: api.DefaultRate(),
		Retention: time.Hour, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	asked := func(ctx context.Context, want int, text string) {
		t.Helper()
		w := httptest.NewRecorder()
		a.server.Handler.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/readyz", http.NoBody))
		if w.Code != want || w.Body.String() != text || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("readiness is %d %q with %v, want %d %q", w.Code, w.Body, w.Header(), want, text)
		}
	}
	is := func(want float64) {
		t.Helper()
		if got := a.readiness(); got != want {
			t.Errorf("the metric is %g, want %g", got, want)
		}
	}
	asked(t.Context(), http.StatusServiceUnavailable, "not ready\n")
	is(0)
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	asked(t.Context(), http.StatusOK, "ready\n")
	is(1)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	asked(over, http.StatusServiceUnavailable, "not ready\n") // the store has not answered in time
	if err := a.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	asked(t.Context(), http.StatusServiceUnavailable, "not ready\n")
	is(0)
}

// What leads back to this program is what it listens on, and the public URL if that is
// an address.
func TestOwnAddresses(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for public, want := range map[string]string{
		"http://198.51.100.7":         " 198.51.100.7:80",
		"https://198.51.100.7/desk":   " 198.51.100.7:443",
		"https://198.51.100.7:8443":   " 198.51.100.7:8443",
		"http://[2001:db8::7]:8080":   " [2001:db8::7]:8080",
		"https://desk.example.com:80": "",
	} {
		a := &App{listener: l, cfg: Config{PublicURL: public}}
		if got, want := fmt.Sprint(a.ownAddrs()), "["+a.Addr()+want+"]"; got != want {
			t.Errorf("behind %s it has the addresses %s, want %s", public, got, want)
		}
	}
}

// A commit is counted with its calls and its time, and once more when it fails.
func TestCommitsAreCounted(t *testing.T) {
	t.Parallel()
	now := time.Now()
	c := newCommits(func() time.Time { return now })
	for calls, err := range map[int]error{3: nil, 5: errors.New("the disk is full")} {
		ended := c.begin(calls)
		now = now.Add(2 * time.Second)
		ended(err)
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(c.calls, c.took, c.failed)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		m := f.GetMetric()[0]
		got[f.GetName()] = m.GetCounter().GetValue() + m.GetHistogram().GetSampleSum()
	}
	if got["ticketwire_commit_calls"] != 8 || got["ticketwire_commit_duration_seconds"] != 4 || got["ticketwire_commit_errors_total"] != 1 {
		t.Errorf("counted %v", got)
	}
}
