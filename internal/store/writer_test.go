package store

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/ticketwire/ticketwire/internal/fault"
)

// hold keeps the writer busy until the returned function is called, so that the
// calls made meanwhile end up in one batch.
func hold(t *testing.T, s *Store) (release func()) {
	t.Helper()
	busy, free := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		err := s.do(t.Context(), func(*tx) error {
			close(busy)
			<-free
			return nil
		})
		if err != nil {
			t.Errorf("the holding call: %v", err)
		}
	})
	<-busy
	return func() {
		close(free)
		wg.Wait()
	}
}

// awaitQueue returns once n calls wait for the writer, which takes microseconds.
func awaitQueue(s *Store, n int) {
	for len(s.writer.calls) < n {
		runtime.Gosched()
	}
}

// together makes calls of a store share a transaction, in their order. If one of them
// fails in it, they run again apart.
func together(t *testing.T, s *Store, calls ...func() error) error {
	t.Helper()
	errs := make([]error, len(calls))
	release := hold(t, s)
	var wg sync.WaitGroup
	for i, call := range calls {
		wg.Go(func() { errs[i] = call() })
		awaitQueue(s, i+1)
	}
	release()
	wg.Wait()
	return errors.Join(errs...)
}

// Each call fails alone, whether it fails before or after it has written, and
// whatever the others of its batch do.
func TestCallsFailAlone(t *testing.T) {
	t.Parallel()
	exercise(t, map[string]func(*testing.T, opener){"writer": func(t *testing.T, open opener) {
		s := open(t)
		errEarly, errLate := errors.New("before the write"), errors.New("after the write")
		release := hold(t, s)
		const n = 64
		errs := make([]error, n)
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				errs[i] = s.do(t.Context(), func(tx *tx) error {
					if i%8 == 1 {
						return errEarly
					}
					if _, err := tx.exec(`insert into mail_outbox (mail_id, tenant_id, dedupe_key, recipient, subject, text_body, html_body, due_at, created_at)
						values ($1, 't', $1, 'r', 's', 't', 'h', 0, 0)`, fmt.Sprint("mail ", i)); err != nil {
						return err
					}
					switch i % 8 {
					case 2:
						return errLate
					case 3:
						panic("defect")
					}
					return nil
				})
			})
		}
		awaitQueue(s, n)
		release()
		wg.Wait()
		for i, err := range errs {
			var kept int
			if serr := s.reader(t.Context()).row(`select count(*) from mail_outbox where mail_id = $1`, fmt.Sprint("mail ", i)).Scan(&kept); serr != nil {
				t.Fatal(serr)
			}
			var want error
			switch i % 8 {
			case 1:
				want = errEarly
			case 2:
				want = errLate
			}
			failed := i%8 == 1 || i%8 == 2 || i%8 == 3
			if failed != (err != nil) || want != nil && !errors.Is(err, want) {
				t.Errorf("call %d returned %v", i, err)
			}
			if failed == (kept == 1) {
				t.Errorf("call %d returned %v and left %d rows", i, err, kept)
			}
		}
	}})
}

// A queue that is full answers at once; what was accepted is written.
func TestFullQueueIsUnavailable(t *testing.T) {
	t.Parallel()
	exercise(t, map[string]func(*testing.T, opener){"writer": func(t *testing.T, open opener) {
		s := open(t, func(c *Config) { c.QueueLimit = 4 })
		release := hold(t, s)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if err := s.do(t.Context(), func(*tx) error { return nil }); err != nil {
					t.Errorf("an accepted call: %v", err)
				}
			})
		}
		awaitQueue(s, 4)
		if err := s.do(t.Context(), func(*tx) error { return nil }); !fault.Is(err, fault.Unavailable) {
			t.Errorf("the call over the limit returned %v", err)
		}
		release()
		wg.Wait()
	}})
}
