package cutover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func openActed(t *testing.T, dir string) *Acted {
	t.Helper()
	a, err := OpenActed(dir)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAChangeIsActedOnOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := openActed(t, dir)
	ran := 0
	do := func(ticket string, at time.Time, err error) (bool, error) {
		return a.Do(t.Context(), ticket, at, func(context.Context) error { ran++; return err })
	}
	failure := errors.New("no")
	for i, step := range []struct {
		ticket string
		at     time.Time
		err    error
		runs   bool
	}{
		{"a", day, failure, true},
		{"a", day, nil, true}, // what failed is not done
		{"a", day, nil, false},
		{"a", day.Add(time.Millisecond), nil, true},
		{"b", day, nil, true},
		{"a", day.In(time.FixedZone("", 3600)), nil, false},
	} {
		got, err := do(step.ticket, step.at, step.err)
		if got != step.runs || !errors.Is(err, step.err) {
			t.Errorf("step %d: ran is %t, %v", i, got, err)
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = openActed(t, dir)
	if got, err := do("a", day, nil); got || err != nil {
		t.Errorf("after a restart: %t, %v", got, err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if ran != 4 {
		t.Errorf("%d runs, want 4", ran)
	}
}

// The events of one change come at the same time.
func TestEventsOfAChangeAtTheSameTime(t *testing.T) {
	t.Parallel()
	a := openActed(t, t.TempDir())
	defer a.Close()
	var ran, most, now atomic.Int32
	var wait sync.WaitGroup
	for i := range 40 {
		wait.Go(func() {
			_, err := a.Do(t.Context(), "a", day.Add(time.Duration(i%4)*time.Second), func(context.Context) error {
				most.Store(max(most.Load(), now.Add(1)))
				ran.Add(1)
				now.Add(-1)
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if ran.Load() != 4 || most.Load() != 1 {
		t.Errorf("%d runs, up to %d at a time, want 4 and 1", ran.Load(), most.Load())
	}
	// Who waits for another one of its ticket can be called off.
	entered, leave := make(chan struct{}), make(chan struct{})
	wait.Go(func() {
		a.Do(t.Context(), "b", day, func(context.Context) error { close(entered); <-leave; return nil })
	})
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if ran, err := a.Do(ctx, "b", day, nil); ran || !errors.Is(err, context.Canceled) {
		t.Errorf("called off: %t, %v", ran, err)
	}
	close(leave)
	wait.Wait()
}

// The file does not grow for ever, and the latest changes stay known.
func TestActedIsShortened(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := openActed(t, dir)
	const changes = 1300
	for i := range changes {
		if _, err := a.Do(t.Context(), "a", day.Add(time.Duration(i)*time.Second), func(context.Context) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "acted.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), `"ticket"`); n > 2*actedKept+1000 {
		t.Errorf("%d lines", n)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = openActed(t, dir)
	defer a.Close()
	for i := changes - actedKept; i < changes; i++ {
		if ran, err := a.Do(t.Context(), "a", day.Add(time.Duration(i)*time.Second), nil); ran || err != nil {
			t.Errorf("change %d: %t, %v", i, ran, err)
		}
	}
}

func TestActedOnADamagedFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, text := range []string{`{"ticket":"a","at":"2026-0`, fmt.Sprintf("{\"ticket\":\"a\",\"at\":%q}\nnonsense\n", day.Format(time.RFC3339))} {
		if err := os.WriteFile(filepath.Join(dir, "acted.jsonl"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := OpenActed(dir)
		if torn := !strings.Contains(text, "nonsense"); torn != (err == nil) {
			t.Errorf("%q: %v", text, err)
		}
		if err == nil {
			a.Close()
		}
	}
}
