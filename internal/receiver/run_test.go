package receiver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A receiver that could keep nothing does not begin to serve.
func TestStartWithoutAnInbox(t *testing.T) {
	t.Parallel()
	r, err := New(t.Context(), config(t, new(seen).react))
	must(t, err)
	defer stop(t, r)
	_, err = r.store.db.ExecContext(t.Context(), `drop table receiver_probe`)
	must(t, err)
	if err := r.Start(t.Context()); err == nil {
		t.Error("it began")
	}
}

// A server that ends by itself ends the program, and a request that does not come to
// its end is cut short by a Stop.
func TestServerThatEnds(t *testing.T) {
	t.Parallel()
	r, err := New(t.Context(), config(t, new(seen).react))
	must(t, err)
	must(t, r.Start(t.Context()))
	conn, err := net.Dial("tcp", r.Addr())
	must(t, err)
	defer conn.Close()
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n", DefaultPath)
	_, err = conn.Read(make([]byte, 100)) // it is being handled
	must(t, err)
	must(t, r.listener.Close())
	if err := r.Wait(t.Context()); err == nil {
		t.Error("a server that ended is no error")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.Stop(ctx); err == nil || !strings.Contains(err.Error(), "requests were cut short") {
		t.Errorf("stop: %v", err)
	}
	must(t, conn.SetReadDeadline(time.Now().Add(patience)))
	if _, err := conn.Read(make([]byte, 100)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection is left open")
	}
}

// What is acknowledged and not done when a receiver stops is done by the next one,
// and what runs is finished or, after the grace, broken off and repeated.
func TestStop(t *testing.T) {
	t.Parallel()
	began, finish := make(chan string, 10), make(chan struct{})
	var done atomic.Int64
	cfg := config(t, func(ctx context.Context, e *Event) error {
		began <- e.EventID
		select {
		case <-finish:
			done.Add(1)
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	r, c := start(t, cfg), caller(t)
	at := time.Now()
	for i := range 3 { // of one ticket: the second waits for the first
		accepted(t, c, r, envelope(fmt.Sprint("E", i), "T1", at.Add(time.Duration(i)*time.Second)))
	}
	if id := <-began; id != "E0" {
		t.Fatalf("%s began first", id)
	}
	over, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond) // the reaction does not end by itself
	defer cancel()
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			if err := r.Stop(over); err != nil {
				t.Errorf("stop: %v", err)
			}
		})
	}
	all.Wait()
	if conn, err := net.Dial("tcp", r.Addr()); err == nil {
		conn.Close()
		t.Error("a stopped receiver can be reached")
	}

	r = start(t, cfg) // in the same directory
	if id := <-began; id != "E0" {
		t.Errorf("%s was broken off and %s began", "E0", id)
	}
	go close(finish)
	stop(t, r)
	if n := done.Load(); n < 1 {
		t.Error("a reaction that ran was not finished")
	}
	start(t, cfg)
	eventually(t, "all events are done", func() bool { return done.Load() >= 3 })
}

// Whoever is slow, or has no end, is cut off.
func TestServersAreBounded(t *testing.T) {
	t.Parallel()
	s := newServer(http.NotFoundHandler(), config(t, nil).Log)
	if s.ReadHeaderTimeout != 10*time.Second || s.ReadTimeout != 30*time.Second || s.WriteTimeout != time.Minute ||
		s.IdleTimeout != 2*time.Minute || s.MaxHeaderBytes != 64<<10 {
		t.Errorf("the bounds are %s, %s, %s, %s, %d", s.ReadHeaderTimeout, s.ReadTimeout, s.WriteTimeout, s.IdleTimeout, s.MaxHeaderBytes)
	}
}

// The worker gets what the caller decides.
func TestWorkIsAsConfigured(t *testing.T) {
	t.Parallel()
	r := &Receiver{cfg: Config{Workers: 7, Lease: time.Second, Attempts: 3, SkipStale: true, Backoff: func(int) time.Duration { return 5 }}}
	if w := r.work(); w.Concurrency != 7 || w.Lease != time.Second || w.Attempts != 3 || !w.SkipStale || w.Backoff(1) != 5 {
		t.Errorf("the work is %+v", w)
	}
}
