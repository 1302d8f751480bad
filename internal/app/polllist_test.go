package app_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/cutover"
)

// The list finds changes and new tickets, with two requests per round however
// many tickets there are, and notices those that vanish.
func TestPollingTheList(t *testing.T) {
	if testing.Short() {
		t.Skip("hundreds of changes take too long under the race detector")
	}
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := openDesk(t, nil)
		var ids []string
		for range 250 { // all at one instant: two and a half pages of one time
			ids = append(ids, d.createTicket())
		}
		sleep(time.Hour)
		ids = append(ids, d.createTicket())
		stop := d.polling(nil, nil)
		if got := d.took(); len(got) != 0 || len(d.lastSeen()) != len(ids) {
			t.Fatalf("%d reactions, %d of %d tickets seen", len(got), len(d.lastSeen()), len(ids))
		}
		sleep(10 * time.Minute)
		before := d.asked()
		sleep(10 * time.Minute)
		if n := d.asked() - before; n != 20 {
			t.Errorf("%d requests in 10 rounds, want 20", n)
		}
		// A bulk change of one instant, across pages.
		for _, id := range ids[:220] {
			d.retitle(id, 1)
		}
		sleep(time.Minute)
		if got := d.took(); !slices.Equal(tickets(got), slices.Sorted(slices.Values(ids[:220]))) {
			t.Errorf("%d reactions, want 220", len(got))
		}
		fresh := d.createTicket()
		sleep(time.Minute)
		if got := d.took(); len(got) != 1 || got[0].Ticket != fresh || got[0].Verdict != cutover.New || !got[0].Previous.IsZero() {
			t.Errorf("reactions %+v, want the new ticket", got)
		}
		d.deleteTicket(ids[3])
		d.deleteTicket(ids[240])
		sleep(5 * time.Minute)
		if got := d.took(); len(got) != 0 {
			t.Errorf("reacted to what vanished: %v", tickets(got))
		}
		n := stop()
		if n.Gone != 2 || n.Failures[cutover.NotFound] != 2 || n.NoObservation() != 2 || n.Changes != 221 || n.Blind != 0 {
			t.Errorf("numbers %+v", n)
		}
		gone := map[string]bool{}
		for _, e := range d.record() {
			if e.Poll != nil && e.Poll.Failure == cutover.NotFound {
				gone[e.Poll.Ticket] = true
			}
		}
		if !gone[ids[3]] || !gone[ids[240]] {
			t.Errorf("the record has 404 for %v", gone)
		}
		// A restart knows all of that.
		stop = d.polling(nil, nil)
		sleep(10 * time.Minute)
		if n := stop(); n.Requests > 22 || n.NoObservation() != 0 || len(d.took()) != 0 {
			t.Errorf("after a restart: %+v", n)
		}
	})
}

// A ticket that is watched by id and deleted is no observation and no change.
func TestPollingADeletedTicket(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := openDesk(t, nil)
		id, other := d.createTicket(), d.createTicket()
		stop := d.polling([]string{id, other}, nil)
		d.deleteTicket(id)
		sleep(10*time.Minute + time.Second)
		d.retitle(other, 1)
		sleep(time.Minute)
		if got := d.took(); !slices.Equal(tickets(got), []string{other}) {
			t.Errorf("reacted to %v", tickets(got))
		}
		if n := stop(); n.Gone != 1 || n.Failures[cutover.NotFound] != 11 || n.Blind != 0 {
			t.Errorf("numbers %+v", n)
		}
	})
}

// Tickets that change while their pages are read move to the end of the list, and
// everything behind them across the edges of pages. Nothing is left out.
func TestChangesDuringAWalk(t *testing.T) {
	if testing.Short() {
		t.Skip("hundreds of changes take too long under the race detector")
	}
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := openDesk(t, nil)
		var ids []string
		for i := range 550 {
			ids = append(ids, d.createTicket())
			if i%7 == 0 && i < 300 {
				sleep(time.Millisecond)
			}
		}
		sleep(time.Hour)
		random := rand.New(rand.NewPCG(1, 2))
		changed := map[string]bool{}
		// Before each page some tickets change that it, or an earlier one, may hold.
		d.breaks(func(_ http.ResponseWriter, r *http.Request) bool {
			if r.URL.Query().Get("sort") == "updated_at" {
				for range 3 {
					id := ids[random.IntN(len(ids))]
					changed[id] = true
					d.retitle(id, random.Int())
				}
			}
			return false
		})
		stop := d.polling(nil, nil)
		sleep(3 * time.Minute)
		d.breaks(nil)
		sleep(10 * time.Minute)
		seen := d.lastSeen()
		for _, id := range ids {
			if got, want := seen[id].UpdatedAt, d.updatedAt(id); !got.Equal(want) {
				t.Errorf("ticket %s was last seen at %v, is at %v", id, got, want)
			}
		}
		// Only what changed after it was first seen is a change.
		for _, c := range d.took() {
			if !changed[c.Ticket] || c.Verdict != cutover.Changed {
				t.Errorf("reaction to %s: %s", c.Ticket, c.Verdict)
			}
		}
		stop()
	})
}

// Ten thousand tickets: the first reading takes a hundred requests at the pace of
// the budget, every further round two.
func TestPollingTenThousandTickets(t *testing.T) {
	if testing.Short() {
		t.Skip("ten thousand tickets take minutes under the race detector")
	}
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const count = 10_000
		d := openDesk(t, nil)
		done := make(chan bool)
		for range 10 {
			go func() {
				for range count / 10 {
					d.createTicket()
					time.Sleep(time.Second)
				}
				done <- true
			}()
		}
		for range 10 {
			<-done
		}
		id := d.createTicket()
		sleep(time.Hour)
		began := time.Now()
		var complete atomic.Int64
		stop := d.polling(nil, func(c *cutover.Config) {
			c.Show = func(s cutover.Status) {
				if s.Watched == count+1 && complete.Load() == 0 {
					complete.Store(int64(time.Since(began)))
				}
			}
		})
		sleep(20 * time.Minute)
		if took := time.Duration(complete.Load()); took == 0 || took > 8*time.Minute {
			t.Errorf("all tickets were known after %v", took)
		} else {
			t.Logf("all tickets were known after %v", took)
		}
		d.retitle(id, 1)
		fresh := d.createTicket()
		before := d.asked()
		sleep(time.Minute)
		if got := d.took(); len(got) != 2 || d.asked()-before != 2 {
			t.Errorf("%d reactions with %d requests, want 2 with 2", len(got), d.asked()-before)
		}
		d.deleteTicket(fresh)
		sleep(30 * time.Minute)
		n := stop()
		if n.Gone != 1 || n.Blind != 0 {
			t.Errorf("numbers %+v", n)
		}
		t.Logf("%d requests, %.0f per hour", n.Requests, n.PerHour())
	})
}

// For any sequence of changes, failures of the server and restarts of the
// poller: in the end every state is seen, every change that a poll could see is
// reacted to, and none twice after it was dealt with.
func TestPollerProperty(t *testing.T) {
	if testing.Short() {
		t.Skip("hundreds of changes take too long under the race detector")
	}
	t.Parallel()
	for _, list := range []bool{false, true} {
		t.Run(fmt.Sprintf("list %t", list), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := openDesk(t, nil)
				// Not *testing.T itself: a bubble refuses its Deadline.
				rapid.Check(struct{ *testing.T }{t}, func(rt *rapid.T) { d.history(rt, list) })
			})
		})
	}
}

// history plays one sequence on new tickets and an own cutover directory.
func (d *desk) history(rt *rapid.T, list bool) {
	d.dir = d.t.TempDir()
	var ids []string
	for range rapid.IntRange(1, 4).Draw(rt, "tickets") {
		ids = append(ids, d.createTicket())
	}
	watch := ids
	if list {
		watch = nil
	}
	dealt := map[string]time.Time{} // the last change whose reaction returned nil
	var twice []string
	var failing atomic.Bool
	d.refuse = func(c cutover.Change) error {
		if last := dealt[c.Ticket]; !c.UpdatedAt.After(last) {
			twice = append(twice, fmt.Sprintf("ticket %s: reacted to %v, after %v was dealt with", c.Ticket, c.UpdatedAt, last))
		}
		if failing.Load() {
			return errors.New("killed")
		}
		dealt[c.Ticket] = c.UpdatedAt
		return nil
	}
	faults := map[string]func(http.ResponseWriter, *http.Request) bool{
		"500": answers(500), "503": answers(503, "Retry-After", "90"), "429": answers(429, "Retry-After", "7"),
		"404": answers(404), "html": answers(200), "hang": hangs,
		"cut":   func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) },
		"every": d.everyOther(),
	}
	stop := d.polling(watch, nil)
	seeded := map[string]time.Time{}
	for id, o := range d.lastSeen() {
		seeded[id] = o.UpdatedAt
	}
	rt.Repeat(map[string]func(*rapid.T){
		"change":  func(rt *rapid.T) { d.retitle(rapid.SampledFrom(ids).Draw(rt, "id"), rapid.Int().Draw(rt, "title")) },
		"comment": func(rt *rapid.T) { d.comment(rapid.SampledFrom(ids).Draw(rt, "id")) },
		"create": func(*rapid.T) {
			if list {
				ids = append(ids, d.createTicket())
			}
		},
		"wait": func(rt *rapid.T) { sleep(time.Duration(rapid.IntRange(1, 900).Draw(rt, "seconds")) * time.Second) },
		"break": func(rt *rapid.T) {
			d.breaks(faults[rapid.SampledFrom(slices.Sorted(maps.Keys(faults))).Draw(rt, "fault")])
		},
		"heal":     func(*rapid.T) { d.breaks(nil) },
		"reaction": func(rt *rapid.T) { failing.Store(rapid.Bool().Draw(rt, "fails")) },
		"restart": func(*rapid.T) {
			stop()
			d.breaks(nil) // a start without any answer ends
			stop = d.polling(watch, nil)
		},
	})
	d.breaks(nil)
	failing.Store(false)
	sleep(10 * time.Minute)
	stop()
	for _, text := range twice {
		rt.Error(text)
	}
	final := d.lastSeen()
	for _, id := range ids {
		want := d.updatedAt(id)
		if got := final[id].UpdatedAt; !got.Equal(want) {
			rt.Errorf("ticket %s was last seen at %v, is at %v", id, got, want)
		}
		if was, had := seeded[id]; (!had || want.After(was)) && !dealt[id].Equal(want) {
			rt.Errorf("ticket %s is at %v, the last reaction was to %v", id, want, dealt[id])
		}
	}
}

// everyOther breaks every other request.
func (d *desk) everyOther() func(http.ResponseWriter, *http.Request) bool {
	n := 0
	return func(w http.ResponseWriter, r *http.Request) bool {
		n++
		return n%2 == 0 && answers(502)(w, r)
	}
}

func (d *desk) comment(id string) {
	c, err := client.New("http://desk.example", d.tenant.APIKey, client.WithHTTPClient(d.api))
	if err != nil {
		d.t.Fatal(err)
	}
	if _, err := c.AddComment(context.Background(), id, client.CommentInput{Text: "hello"}); err != nil {
		d.t.Fatal(err)
	}
}
