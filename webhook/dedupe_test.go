package webhook

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var testKey = Key{EventID: "e1", EventType: TicketCreated}

// eventOf returns an event without a ticket.
func eventOf(k Key) *Envelope { return &Envelope{EventID: k.EventID, EventType: k.EventType} }

func mustClaim(t testing.TB, d Deduper, now time.Time, k Key, want State) Claim {
	t.Helper()
	c, err := d.Claim(context.Background(), now, eventOf(k), DefaultLease)
	if err != nil {
		t.Fatalf("Claim: %v", err)
	}
	if c.State != want {
		t.Fatalf("Claim = %s, want %s", c.State, want)
	}
	return c
}

func mustFinish(t testing.TB, d Deduper, now time.Time, c Claim) {
	t.Helper()
	if err := d.Finish(context.Background(), now, c); err != nil {
		t.Fatal(err)
	}
}

func mustRelease(t testing.TB, d Deduper, now time.Time, c Claim) {
	t.Helper()
	if err := d.Release(context.Background(), now, c); err != nil {
		t.Fatal(err)
	}
}

func TestMemoryLife(t *testing.T) {
	t.Parallel()
	now := time.Unix(1760000000, 0)
	m := NewMemory(0, 0)
	c := mustClaim(t, m, now, testKey, Fresh)
	mustClaim(t, m, now, testKey, Running)
	mustRelease(t, m, now, c)
	c = mustClaim(t, m, now, testKey, Fresh)
	mustFinish(t, m, now, c)
	mustClaim(t, m, now, testKey, Done)
	mustRelease(t, m, now, c)
	mustClaim(t, m, now.Add(DefaultRetention-time.Nanosecond), testKey, Done)
	// The same id under another type is another event.
	mustClaim(t, m, now, Key{EventID: testKey.EventID, EventType: TicketClosed}, Fresh)
	mustClaim(t, m, now.Add(DefaultRetention), testKey, Fresh)
}

func TestMemoryLease(t *testing.T) {
	t.Parallel()
	now := time.Unix(1760000000, 0)
	m := NewMemory(0, 0)
	slow := mustClaim(t, m, now, testKey, Fresh)
	mustClaim(t, m, now.Add(DefaultLease-time.Nanosecond), testKey, Running)
	later := now.Add(DefaultLease)
	second := mustClaim(t, m, later, testKey, Fresh)

	mustRelease(t, m, later, slow) // its lease is over: it must not free the second claim
	mustClaim(t, m, later, testKey, Running)

	mustFinish(t, m, later, slow) // but its work counts
	mustClaim(t, m, later, testKey, Done)
	mustRelease(t, m, later, second)
	mustClaim(t, m, later, testKey, Done)
	mustFinish(t, m, later, second)
	if got := m.Len(); got != 1 {
		t.Errorf("Len = %d, want 1", got)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	const limit = 10
	now := time.Unix(1760000000, 0)
	m := NewMemory(0, limit)
	key := func(i int) Key { return Key{EventID: strconv.Itoa(i), EventType: TicketUpdated} }
	for i := range 100 {
		mustFinish(t, m, now, mustClaim(t, m, now, key(i), Fresh))
		if m.Len() > limit {
			t.Fatalf("Len = %d after %d events, limit %d", m.Len(), i+1, limit)
		}
	}
	mustClaim(t, m, now, key(99), Done)
	mustClaim(t, m, now, key(90), Done)

	for i := range limit {
		mustClaim(t, m, now, key(1000+i), Fresh) // pushes out the processed ones
	}
	if _, err := m.Claim(context.Background(), now, eventOf(key(2000)), DefaultLease); !errors.Is(err, ErrMemoryFull) {
		t.Errorf("Claim with every place running: %v, want %v", err, ErrMemoryFull)
	}
	mustClaim(t, m, now.Add(DefaultLease), key(2000), Fresh)
	if got := m.Len(); got != 1 {
		t.Errorf("Len = %d after the leases ended, want 1", got)
	}
}

// TestMemoryModel holds Memory against a plain map under random calls.
func TestMemoryModel(t *testing.T) {
	t.Parallel()
	type held struct {
		fence int64
		until time.Time
		done  bool
	}
	rapid.Check(t, func(t *rapid.T) {
		const retention, lease = 100 * time.Second, 10 * time.Second
		ctx, now := context.Background(), time.Unix(1760000000, 0)
		m, model := NewMemory(retention, 0), map[Key]held{}
		var claims []Claim
		claim := rapid.Custom(func(t *rapid.T) Claim { return rapid.SampledFrom(claims).Draw(t, "claim") })
		t.Repeat(map[string]func(*rapid.T){
			"claim": func(t *rapid.T) {
				k := Key{EventID: rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "id"), EventType: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "type")}
				want, e := Fresh, model[k]
				if e.until.After(now) {
					want = Running
					if e.done {
						want = Done
					}
				}
				c, err := m.Claim(ctx, now, eventOf(k), lease)
				if err != nil || c.State != want {
					t.Fatalf("Claim(%v) = %s, %v, want %s", k, c.State, err, want)
				}
				if want == Fresh {
					model[k] = held{fence: c.Fence, until: now.Add(lease)}
					claims = append(claims, c)
				}
			},
			"finish": func(t *rapid.T) {
				if len(claims) == 0 {
					t.Skip("nothing is claimed")
				}
				c := claim.Draw(t, "finish")
				_ = m.Finish(ctx, now, c)
				if e := model[c.Key]; !e.done || !e.until.After(now) {
					model[c.Key] = held{fence: c.Fence, until: now.Add(retention), done: true}
				}
			},
			"release": func(t *rapid.T) {
				if len(claims) == 0 {
					t.Skip("nothing is claimed")
				}
				c := claim.Draw(t, "release")
				_ = m.Release(ctx, now, c)
				if e := model[c.Key]; !e.done && e.fence == c.Fence {
					delete(model, c.Key)
				}
			},
			"wait": func(t *rapid.T) { now = now.Add(time.Duration(rapid.IntRange(1, 40).Draw(t, "seconds")) * time.Second) },
		})
	})
}

func TestMemoryOneOfManyIsFresh(t *testing.T) {
	t.Parallel()
	m, now := NewMemory(0, 0), time.Unix(1760000000, 0)
	var fresh atomic.Int32
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if c, err := m.Claim(context.Background(), now, eventOf(testKey), DefaultLease); err == nil && c.State == Fresh {
				fresh.Add(1)
			}
		})
	}
	wg.Wait()
	if got := fresh.Load(); got != 1 {
		t.Errorf("%d fresh claims, want 1", got)
	}
}

func BenchmarkMemory(b *testing.B) {
	ctx, now := context.Background(), time.Unix(1760000000, 0)
	m, i := NewMemory(0, 100_000), 0
	b.ReportAllocs()
	for b.Loop() {
		i++
		c, err := m.Claim(ctx, now, eventOf(Key{EventID: strconv.Itoa(i), EventType: TicketUpdated}), DefaultLease)
		if err != nil {
			b.Fatal(err)
		}
		_ = m.Finish(ctx, now, c)
	}
}
