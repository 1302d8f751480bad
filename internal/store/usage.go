package store

import (
	"context"
	"sync"
	"time"
)

// usageEvery is how long accepted calls are collected before they are written.
const usageEvery = time.Second

// usage collects last_used_at and usage_count of the keys without a usage limit,
// so that a read costs no write of its own. What a crash takes from it is at
// most a second of statistics. Keys with a limit never come here (see
// Authenticate).
type usage struct {
	s        *Store
	wake     chan struct{} // holds one token while something was noted and not seen by run
	quit     chan struct{}
	done     chan struct{}
	stopping sync.Once

	mu   sync.Mutex // guards seen
	seen map[keyRef]keyUse
}

type keyRef struct{ tenantID, keyID string }

type keyUse struct {
	last  time.Time
	calls int64
}

func startUsage(s *Store) *usage {
	u := &usage{
		s:    s,
		wake: make(chan struct{}, 1),
		quit: make(chan struct{}),
		done: make(chan struct{}),
		seen: map[keyRef]keyUse{},
	}
	go u.run()
	return u
}

// note counts one accepted call.
func (u *usage) note(tenant, key string, now time.Time) {
	u.add(keyRef{tenant, key}, keyUse{last: now, calls: 1})
}

func (u *usage) add(k keyRef, more keyUse) {
	u.mu.Lock()
	sum := u.seen[k]
	sum.calls += more.calls
	if more.last.After(sum.last) {
		sum.last = more.last
	}
	u.seen[k] = sum
	u.mu.Unlock()
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

// stop writes what is left and ends the goroutine. It is safe to call twice.
func (u *usage) stop() {
	u.stopping.Do(func() { close(u.quit) })
	<-u.done
}

// run sleeps without a timer until there is something to write, so that an idle
// store costs nothing and a test's clock is not kept busy.
func (u *usage) run() {
	defer close(u.done)
	for {
		select {
		case <-u.quit:
			u.flush()
			return
		case <-u.wake:
		}
		timer := time.NewTimer(usageEvery)
		select {
		case <-u.quit:
		case <-timer.C:
		}
		timer.Stop()
		u.flush()
	}
}

// flush writes the counts in one transaction. When that fails they are put back
// and written the next time: nobody waits for them.
func (u *usage) flush() {
	u.mu.Lock()
	seen := u.seen
	u.seen = map[keyRef]keyUse{}
	u.mu.Unlock()
	if len(seen) == 0 {
		return
	}
	err := u.s.do(context.Background(), func(t *tx) error {
		for k, use := range seen {
			if err := t.change("update api_keys", `
				update api_keys set usage_count = usage_count + $1,
					last_used_at = case when last_used_at > $2 then last_used_at else $2 end
				where tenant_id = $3 and api_key_id = $4`,
				use.calls, micros(use.last), k.tenantID, k.keyID); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		for k, use := range seen {
			u.add(k, use)
		}
	}
}
