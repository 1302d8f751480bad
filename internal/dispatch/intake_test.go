package dispatch

import (
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/store"
)

// Lanes that never send leave room for others, in deliveries and in bytes, and
// what is counted in is counted out again.
func TestIntakeLeavesRoom(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		size int
	}{{"small", 1000}, {"large", 64 << 10}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			in := newIntake(16)
			var held []store.Claimed
			for _, hook := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
				id := store.Lane{TenantID: "t", WebhookID: hook}
				in.open(id, 1<<20)
				n := 0
				for in.reserve(id, c.size) {
					var d store.Claimed
					d.TenantID, d.WebhookID, d.Body = id.TenantID, id.WebhookID, make([]byte, 0, c.size)[:c.size]
					held = append(held, d)
					n++
				}
				if n == 0 {
					t.Errorf("lane %s gets nothing", hook)
				}
			}
			in.commit(store.Committed{Handed: held[:len(held)/2]})
			in.cancel(held[len(held)/2:])
			c, _ := in.take()
			for _, d := range c.Handed {
				in.leave(d.Lane(), []store.Claimed{d})
			}
			if in.held != 0 || in.bytes != 0 {
				t.Errorf("%d deliveries and %d bytes are still counted", in.held, in.bytes)
			}
			for id, r := range in.rooms {
				if r.held != 0 || r.bytes != 0 || r.reserved != 0 {
					t.Errorf("lane %s: %+v", id.WebhookID, *r)
				}
			}
		})
	}
}

// A loss is taken together with what came after it, and with nothing from before.
func TestIntakeLosesAllAtOnce(t *testing.T) {
	t.Parallel()
	in := newIntake(16)
	for attempt := range 3 {
		var c store.Claimed
		c.TenantID, c.WebhookID, c.Attempt = "t", "h", attempt
		if !in.reserve(c.Lane(), 1) {
			t.Fatal("there is no room")
		}
		in.commit(store.Committed{Handed: []store.Claimed{c}})
		if attempt < 2 {
			in.lose()
		}
	}
	c, lost := in.take()
	if !lost || len(c.Handed) != 1 || c.Handed[0].Attempt != 2 {
		t.Errorf("lost: %t, and %+v came after it", lost, c.Handed)
	}
	if c, lost = in.take(); lost || len(c.Handed) != 0 {
		t.Errorf("lost again: %t, with %+v", lost, c.Handed)
	}
}

// A lane whose requests all hang is handed nothing more after a moment, long before
// its breaker opens; one request that starts or ends shows that it goes on.
func TestLaneThatHangsGetsNoRoom(t *testing.T) {
	t.Parallel()
	s := newScheduler(&Engine{cfg: Config{PerLane: 2}})
	began := time.Date(2026, time.May, 4, 9, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		inFlight int
		after    time.Duration
		room     bool
	}{
		{2, handedPatience, true},
		{2, handedPatience + time.Microsecond, false},
		{1, time.Minute, true},
	} {
		l := &lane{inFlight: c.inFlight, moved: began}
		if got := s.room(l, began.Add(c.after)); got > 0 != c.room {
			t.Errorf("%d in flight, nothing moved for %v: room for %d", c.inFlight, c.after, got)
		}
	}
}
