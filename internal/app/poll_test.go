package app_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/app"
	"github.com/ticketwire/ticketwire/internal/cutover"
	"github.com/ticketwire/ticketwire/test/pipe"
)

// desk is a service with a poller in front of it, and between them a proxy that
// can break what goes through.
type desk struct {
	*bubble
	dir  string
	http *http.Client // of the poller, to the proxy

	mu       sync.Mutex
	fault    func(http.ResponseWriter, *http.Request) bool // answers in place of the service; nil for nothing
	requests int
	reacted  []cutover.Change
	refuse   func(cutover.Change) error // what the reaction returns; nil for nil
}

func openDesk(t *testing.T, change func(*app.Config)) *desk {
	return deskOf(openBubble(t, change))
}

// deskOf puts the proxy in front of whatever answers as desk.example.
func deskOf(b *bubble) *desk {
	d := &desk{bubble: b, dir: b.t.TempDir()}
	front := pipe.Listen()
	behind := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "desk.example"
		},
		Transport: d.api.Transport,
		ErrorLog:  log.New(io.Discard, "", 0), // it complains when a client hangs up
	}
	proxy := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		d.requests++
		fault := d.fault
		d.mu.Unlock()
		if fault == nil || !fault(w, r) {
			behind.ServeHTTP(w, r)
		}
	})}
	go proxy.Serve(front)
	d.http = &http.Client{Transport: &http.Transport{DialContext: front.Dial}}
	b.t.Cleanup(func() {
		d.http.CloseIdleConnections()
		proxy.Close()
	})
	return d
}

// asked is how many requests the proxy has seen.
func (d *desk) asked() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.requests
}

// breaks makes the proxy answer in place of the service; nil heals it.
func (d *desk) breaks(fault func(http.ResponseWriter, *http.Request) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = fault
}

func answers(status int, header ...string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		return true
	}
}

func hangs(_ http.ResponseWriter, r *http.Request) bool {
	<-r.Context().Done()
	return true
}

// poller opens a poller of these tickets, or of all.
func (d *desk) poller(ids []string, change func(*cutover.Config)) *cutover.Poller {
	d.t.Helper()
	cfg := cutover.Config{
		URL: "http://desk.example", Key: d.tenant.APIKey, HTTP: d.http, Dir: d.dir, IDs: ids,
		Interval: time.Minute, Budget: 0.5, Timeout: 10 * time.Second, Now: time.Now,
		React: func(_ context.Context, c cutover.Change) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.refuse != nil {
				if err := d.refuse(c); err != nil {
					return err
				}
			}
			d.reacted = append(d.reacted, c)
			return nil
		},
	}
	if change != nil {
		change(&cfg)
	}
	p, err := cutover.Open(cfg)
	if err != nil {
		d.t.Fatal(err)
	}
	return p
}

// polling runs a poller until the function it returns is called, which returns
// its numbers.
func (d *desk) polling(ids []string, change func(*cutover.Config)) (stop func() *cutover.Numbers) {
	d.t.Helper()
	p := d.poller(ids, change)
	ctx, cancel := context.WithCancel(d.t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	synctest.Wait()
	return func() *cutover.Numbers {
		d.t.Helper()
		cancel()
		if err := errors.Join(<-done, p.Close()); err != nil {
			d.t.Error(err)
		}
		return p.Numbers()
	}
}

// took returns the reactions so far and forgets them.
func (d *desk) took() []cutover.Change {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := d.reacted
	d.reacted = nil
	return out
}

// record reads the whole record.
func (d *desk) record() []cutover.Entry {
	d.t.Helper()
	f, err := os.Open(filepath.Join(d.dir, cutover.RecordName))
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	var out []cutover.Entry
	for e, err := range cutover.NewReader(f).Entries() {
		if err != nil {
			d.t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

// lastSeen returns the last observation of each ticket in the record.
func (d *desk) lastSeen() map[string]cutover.Observation {
	out := map[string]cutover.Observation{}
	for _, e := range d.record() {
		if e.Poll != nil {
			for _, o := range e.Poll.Seen {
				out[o.Ticket] = o
			}
		}
	}
	return out
}

// updatedAt is what the service has.
func (d *desk) updatedAt(id string) time.Time {
	d.t.Helper()
	c, err := client.New("http://desk.example", d.tenant.APIKey, client.WithHTTPClient(d.api))
	if err != nil {
		d.t.Fatal(err)
	}
	got, err := c.Ticket(d.t.Context(), id)
	if err != nil {
		d.t.Fatal(err)
	}
	return *got.UpdatedAt
}

// deleteTicket removes a ticket.
func (d *desk) deleteTicket(id string) {
	d.t.Helper()
	r, err := http.NewRequestWithContext(d.t.Context(), http.MethodDelete, "http://desk.example/api/v1/tickets/"+id, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	r.Header.Set("X-API-Key", d.tenant.APIKey)
	res, err := d.api.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusNoContent {
		d.t.Fatalf("delete answered %d", res.StatusCode)
	}
}

func tickets(changes []cutover.Change) []string {
	var out []string
	for _, c := range changes {
		out = append(out, c.Ticket)
	}
	slices.Sort(out)
	return out
}

// The guide's six tickets for an hour: 360 requests, no reaction to what was
// there, one to each change that a poll can see.
func TestPollingSixTickets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := openDesk(t, nil)
		var ids []string
		for range 6 {
			ids = append(ids, d.createTicket())
		}
		stop := d.polling(ids, nil)
		if got := d.took(); len(got) != 0 {
			t.Fatalf("reacted to what was there: %v", tickets(got))
		}
		sleep(30 * time.Second)
		before := d.updatedAt(ids[0])
		d.retitle(ids[0], 1)
		sleep(10 * time.Second)
		d.retitle(ids[0], 2) // between two polls: one observation
		d.call("POST", "/tickets/"+ids[1]+"/comments", map[string]any{"comment_text": "hello"})
		sleep(time.Minute)
		got := d.took()
		if want := slices.Sorted(slices.Values([]string{ids[0], ids[1]})); !slices.Equal(tickets(got), want) {
			t.Fatalf("reacted to %v, want %v", tickets(got), want)
		}
		for _, c := range got {
			if c.Verdict != cutover.Changed || !c.UpdatedAt.Equal(d.updatedAt(c.Ticket)) || c.Ticket == ids[0] && !c.Previous.Equal(before) {
				t.Errorf("change %+v", c)
			}
		}
		sleep(time.Hour - 101*time.Second) // one second short of the next round
		n := stop()
		if n.Requests != 360 || n.Changes != 2 || n.Useful != 2 || n.NoObservation() != 0 || n.Blind != 0 {
			t.Errorf("numbers %+v", n)
		}
		if r, s := n.PerHour(), n.LimitShare(); r < 359 || r > 361 || s < 0.099 || s > 0.101 {
			t.Errorf("%.1f requests per hour, %.3f of the limit; want 360 and 0.1", r, s)
		}
		if median, _, longest := n.Lag(); median != 20*time.Second || longest != 20*time.Second {
			t.Errorf("lag %v, longest %v", median, longest)
		}
	})
}

// A poller that is stopped and started again goes on where it was: what changed
// meanwhile is found, and nothing is reacted to twice.
func TestPollerRestarts(t *testing.T) {
	t.Parallel()
	for _, list := range []bool{false, true} {
		t.Run(fmt.Sprintf("list %t", list), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := openDesk(t, nil)
				ids := []string{d.createTicket(), d.createTicket(), d.createTicket()}
				watch := ids
				if list {
					watch = nil
				}
				d.polling(watch, nil)()
				sleep(90 * time.Minute)
				d.retitle(ids[0], 1)
				d.retitle(ids[1], 1)
				// The process is killed between the reaction and what comes after it.
				crash := errors.New("killed")
				d.refuse = func(c cutover.Change) error {
					if c.Ticket == ids[1] {
						return crash
					}
					return nil
				}
				d.polling(watch, nil)()
				if got := d.took(); !slices.Equal(tickets(got), ids[:1]) {
					t.Fatalf("reacted to %v, want %v", tickets(got), ids[:1])
				}
				d.refuse = nil
				stop := d.polling(watch, nil)
				if got := d.took(); !slices.Equal(tickets(got), ids[1:2]) {
					t.Errorf("reacted to %v, want what failed before", tickets(got))
				}
				sleep(10 * time.Minute)
				stop()
				if got := d.took(); len(got) != 0 {
					t.Errorf("reacted again to %v", tickets(got))
				}
				var gaps []cutover.Gap
				for _, e := range d.record() {
					if e.Gap != nil {
						gaps = append(gaps, *e.Gap)
					}
				}
				if len(gaps) != 1 || gaps[0].Side != cutover.SidePoller || gaps[0].To.Sub(gaps[0].From) != 89*time.Minute {
					t.Errorf("gaps %+v; want the 89 minutes in which polls were due", gaps)
				}
			})
		})
	}
}

// Whatever is not a ticket is no observation, and what changed meanwhile is seen
// as soon as there is an answer.
func TestNoObservation(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		fault   func(http.ResponseWriter, *http.Request) bool
		failure cutover.Failure
		blind   time.Duration // after five minutes of it, from the first to the first good answer
	}{
		{"500", answers(500), cutover.ServerError, 5 * time.Minute},
		{"503", answers(503), cutover.ServerError, 5 * time.Minute},
		{"503 with Retry-After", answers(503, "Retry-After", "150"), cutover.ServerError, 5 * time.Minute},
		{"429 without Retry-After", answers(429), cutover.RateLimited, 5 * time.Minute},
		{"429 with Retry-After", answers(429, "Retry-After", "600"), cutover.RateLimited, 10 * time.Minute},
		{"404 of a proxy", answers(404), cutover.Refused, 5 * time.Minute},
		{"401", answers(401), cutover.Refused, 5 * time.Minute},
		{"a page of a proxy", answers(200), cutover.Malformed, 5 * time.Minute},
		{"hangs", hangs, cutover.Timeout, 5 * time.Minute},
		{"breaks off", func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }, cutover.Network, 5 * time.Minute},
	} {
		for _, list := range []bool{false, true} {
			if list && testing.Short() {
				continue // the same under the race detector, which is slow
			}
			t.Run(fmt.Sprintf("%s, list %t", tt.name, list), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					d := openDesk(t, nil)
					id := d.createTicket()
					watch := []string{id}
					if list {
						watch = nil
					}
					stop := d.polling(watch, nil)
					sleep(30 * time.Second)
					d.breaks(tt.fault)
					sleep(time.Minute)
					d.retitle(id, 1)
					sleep(4 * time.Minute)
					if got := d.took(); len(got) != 0 {
						t.Fatalf("reacted to %v without an answer", tickets(got))
					}
					d.breaks(nil)
					sleep(7 * time.Minute)
					if got := d.took(); len(got) != 1 || !got[0].UpdatedAt.Equal(d.updatedAt(id)) {
						t.Errorf("reactions %v, want one", got)
					}
					n := stop()
					if n.Failures[tt.failure] == 0 || len(n.Failures) != 1 {
						t.Errorf("failures %v, want %s only", n.Failures, tt.failure)
					}
					if off := n.Blind - tt.blind; off < -time.Second || off > 15*time.Second {
						t.Errorf("blind for %v, want %v", n.Blind, tt.blind)
					}
				})
			})
		}
	}
}

// The service's own limit: a poller that has it all to itself keeps to half of
// it, and one that shares its key waits as long as it is told.
func TestPollerKeepsToItsBudget(t *testing.T) {
	if testing.Short() {
		t.Skip("hundreds of requests take too long under the race detector")
	}
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := openDesk(t, func(c *app.Config) { c.Enforce = true })
		var ids []string
		for range 100 {
			ids = append(ids, d.createTicket())
		}
		sleep(time.Hour) // the bucket is full again
		stop := d.polling(ids, func(c *cutover.Config) { c.Interval = time.Second })
		sleep(10 * time.Minute)
		n := stop()
		if n.Requests < 60+298 || n.Requests > 60+301 || n.NoObservation() != 0 {
			t.Errorf("%d requests in 10 minutes with %v; half of 120 at once and 60 per minute are 360", n.Requests, n.Failures)
		}
		// The key's other user takes everything.
		for {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://desk.example/api/v1/tickets", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("X-API-Key", d.tenant.APIKey)
			res, err := d.api.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode == http.StatusTooManyRequests {
				break
			}
		}
		stop = d.polling(ids[:1], func(c *cutover.Config) { c.Interval = 10 * time.Second })
		sleep(time.Minute)
		n = stop()
		if n.Requests != 7 || n.Failures[cutover.RateLimited] != 1 || n.Blind != 10*time.Second {
			t.Errorf("%d requests, failures %v, blind %v; want one 429 of 7 and the next poll after it", n.Requests, n.Failures, n.Blind)
		}
	})
}

// A poller whose clock is wrong sees the same changes, and knows by how much.
func TestPollerWithAWrongClock(t *testing.T) {
	t.Parallel()
	for _, off := range []time.Duration{-90 * time.Second, 3 * time.Hour} {
		for _, list := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v, list %t", off, list), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					d := openDesk(t, nil)
					id := d.createTicket()
					watch := []string{id}
					if list {
						watch = nil
					}
					stop := d.polling(watch, func(c *cutover.Config) { c.Now = func() time.Time { return time.Now().Add(off) } })
					for n := range 10 {
						sleep(50 * time.Second)
						d.retitle(id, n)
						sleep(13700 * time.Millisecond)
					}
					sleep(time.Minute)
					n := stop()
					if got := d.took(); len(got) != 10 || n.Changes != 10 {
						t.Errorf("%d reactions, %d changes", len(got), n.Changes)
					}
					if err := n.ClockAhead() + off; err.Abs() > 600*time.Millisecond {
						t.Errorf("the server's clock is said to be %v ahead, want %v", n.ClockAhead(), -off)
					}
					if _, _, longest := n.Lag(); longest > time.Minute+time.Second || longest < time.Second {
						t.Errorf("longest lag %v", longest)
					}
					gaps := 0
					for _, e := range d.record() {
						if e.Gap != nil && e.Gap.Side == cutover.SideClock {
							gaps++
							if diff := time.Duration(e.Gap.Ahead)*time.Microsecond + off; diff.Abs() > time.Second {
								t.Errorf("gap %+v", e.Gap)
							}
						}
					}
					if gaps != 1 {
						t.Errorf("%d entries about the clock, want one", gaps)
					}
				})
			})
		}
	}
}
