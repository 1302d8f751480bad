package app_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ticketwire/ticketwire/internal/cutover"
)

// sweeper opens a reconciler.
func (o *outage) sweeper(change func(*cutover.SweeperConfig)) *cutover.Sweeper {
	o.t.Helper()
	cfg := cutover.SweeperConfig{
		URL: "http://desk.example", Key: o.tenant.APIKey, HTTP: o.http, Dir: o.state, WebhookID: o.hook,
		Every: 15 * time.Minute, Budget: 0.5, Repair: true, Send: o.send, Now: time.Now,
	}
	if change != nil {
		change(&cfg)
	}
	s, err := cutover.OpenSweeper(cfg)
	if err != nil {
		o.t.Fatal(err)
	}
	return s
}

// standing runs a reconciler until the function it returns is called, which
// returns its sweeps.
func (o *outage) standing(change func(*cutover.SweeperConfig)) (stop func() []cutover.Sweep) {
	o.t.Helper()
	s := o.sweeper(change)
	ctx, cancel := context.WithCancel(o.t.Context())
	var sweeps []cutover.Sweep
	done := make(chan error, 1)
	go func() {
		done <- s.Run(ctx, func(sweep cutover.Sweep, err error) {
			if err != nil {
				o.t.Error(err)
			}
			sweeps = append(sweeps, sweep)
		})
	}()
	synctest.Wait()
	return func() []cutover.Sweep {
		o.t.Helper()
		cancel()
		if err := <-done; err != nil {
			o.t.Error(err)
		}
		if err := s.Close(); err != nil {
			o.t.Error(err)
		}
		return sweeps
	}
}

// missedOf returns what the sweeps found.
func missedOf(sweeps []cutover.Sweep) []cutover.Missed {
	var out []cutover.Missed
	for _, s := range sweeps {
		out = append(out, s.Missed...)
	}
	return out
}

// While webhooks bring everything a sweep costs two requests and finds nothing,
// by the record and by the log. A change that nobody brings is late as long as the
// sender tries, and then missed and repaired.
func TestReconcile(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name         string
		record, feed bool
	}{{"record", true, true}, {"log", false, true}, {"record without feed", true, false}, {"log without feed", false, false}} {
		if testing.Short() && tt.record != tt.feed {
			continue // the same under the race detector, which is slow
		}
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := openOutage(t, nil)
				late := cutover.LateOurs
				if !tt.feed {
					o.withoutFeed()
					late = cutover.LateAlga
				}
				if tt.record {
					var err error
					if o.recorded, err = cutover.OpenRecord(o.state); err != nil {
						t.Fatal(err)
					}
					defer o.recorded.Close()
				}
				ids := []string{o.createTicket(), o.createTicket(), o.createTicket()}
				sleep(time.Hour)
				var told atomic.Int64
				start := func() func() []cutover.Sweep {
					return o.standing(func(c *cutover.SweeperConfig) {
						if tt.record {
							c.WebhookID = ""
						}
						c.Alarm = func(context.Context, cutover.Sweep) error {
							told.Add(1)
							return nil
						}
					})
				}
				stop := start()
				for n := range 20 {
					sleep(7 * time.Minute)
					o.retitle(ids[n%2], n)
				}
				sleep(30 * time.Minute)
				sweeps := stop()
				last := sweeps[len(sweeps)-1]
				if last.Caught < 15 || last.Changes != last.Caught || last.Late != 0 || len(missedOf(sweeps)) != 0 || told.Load() != 0 {
					t.Errorf("last sweep %+v, missed %v", last, missedOf(sweeps))
				}
				if most := map[bool]int{true: 2, false: 3}[tt.record]; last.Requests > most {
					t.Errorf("%d requests for a sweep, want %d at most", last.Requests, most)
				}

				// Nobody brings the change of the third ticket: the webhook is narrowed
				// and back before the sender could have tried.
				o.call("PUT", "/webhooks/"+o.hook, map[string]any{"is_active": false})
				o.retitle(ids[2], 99)
				at := time.Now()
				o.call("PUT", "/webhooks/"+o.hook, map[string]any{"is_active": true})
				o.deleteTicket(ids[1])
				stop = start()
				sleep(late - 20*time.Minute)
				if o.title(ids[2]) == "Printer 99" || told.Load() != 0 {
					t.Error("missed before its time")
				}
				sleep(time.Hour)
				sweeps = stop()
				missed := missedOf(sweeps)
				if len(missed) != 1 || missed[0].Ticket != ids[2] || !missed[0].Repaired || missed[0].Since.Sub(at).Abs() > time.Second || told.Load() != 1 {
					t.Errorf("missed %+v, told %d times", missed, told.Load())
				}
				if o.title(ids[2]) != "Printer 99" {
					t.Errorf("not repaired: %q", o.title(ids[2]))
				}
				now := sweeps[len(sweeps)-1]
				if now.Changes != last.Changes+1 || now.Caught != last.Caught || now.Late != 0 {
					t.Errorf("counts %+v after %+v", now, last)
				}
				vanished := 0
				for _, s := range sweeps {
					vanished += s.Vanished
				}
				if vanished != 1 {
					t.Errorf("%d tickets vanished, want 1", vanished)
				}
				o.agrees()

				// After a month the figures are forgotten, and a new start repairs nothing
				// twice.
				if tt.record && tt.feed && !testing.Short() {
					sleep(31 * 24 * time.Hour)
				}
				sweeps = start()()
				if end := sweeps[len(sweeps)-1]; tt.record && tt.feed && !testing.Short() && end.Changes != 0 || len(missedOf(sweeps)) != 0 {
					t.Errorf("a month later: %+v", end)
				}
				if tt.record {
					entries := 0
					for _, e := range readRecord(t, o.state) {
						if e.Reconciler != nil && e.Reconciler.Every == (15*time.Minute).Seconds() {
							entries++
						}
					}
					if entries != 3 {
						t.Errorf("%d entries of the reconciler in the record, want 3", entries)
					}
				}
			})
		})
	}
}

// A sweep that cannot reach the server or the receiver is made up for by a later
// one, and what is not repaired stays open.
func TestReconcileThroughFailures(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := openOutage(t, nil)
		id := o.createTicket()
		sleep(time.Hour)
		sweep := func(change func(*cutover.SweeperConfig)) (cutover.Sweep, error) {
			s := o.sweeper(change)
			got, err := s.Sweep(t.Context())
			if cerr := s.Close(); cerr != nil {
				t.Error(cerr)
			}
			return got, err
		}
		if _, err := sweep(nil); err != nil {
			t.Fatal(err)
		}
		o.call("PUT", "/webhooks/"+o.hook, map[string]any{"is_active": false})
		o.retitle(id, 1)
		o.call("PUT", "/webhooks/"+o.hook, map[string]any{"is_active": true})
		fails := answers(http.StatusInternalServerError)
		o.breaks(fails)
		if _, err := sweep(nil); err == nil || !strings.Contains(err.Error(), "500") {
			t.Errorf("error %v of a server that fails", err)
		}
		o.breaks(nil)
		sleep(16 * time.Hour)
		if s, err := sweep(nil); err != nil || s.Late != 0 || len(s.Missed) != 1 {
			t.Errorf("%+v, %v: found late, it is missed at once", s, err)
		}
		// Another one, which is not repaired at first.
		o.call("PUT", "/webhooks/"+o.hook, map[string]any{"is_active": false})
		o.retitle(id, 2)
		o.call("PUT", "/webhooks/"+o.hook, map[string]any{"is_active": true})
		sleep(16 * time.Hour)
		report := func(c *cutover.SweeperConfig) { c.Repair = false }
		for range 2 {
			if s, err := sweep(report); err != nil || len(s.Missed) != 1 || s.Missed[0].Repaired || s.Changes != 2 {
				t.Errorf("%+v, %v: want one that is missed and counted once", s, err)
			}
		}
		o.down.Store(true)
		if _, err := sweep(nil); err == nil || !strings.Contains(err.Error(), "503") {
			t.Errorf("error %v of a receiver that is down", err)
		}
		o.down.Store(false)
		if s, err := sweep(nil); err != nil || len(s.Missed) != 1 || !s.Missed[0].Repaired {
			t.Errorf("%+v, %v", s, err)
		}
		if s, err := sweep(nil); err != nil || len(s.Missed) != 0 || s.Caught != 0 || s.Changes != 2 {
			t.Errorf("%+v, %v: nothing is left", s, err)
		}
		o.agrees()
	})
}

func readRecord(t *testing.T, dir string) []cutover.Entry {
	t.Helper()
	return (&desk{bubble: &bubble{t: t}, dir: dir}).record()
}

// A change is missed when its own time is over, however often its ticket has changed
// since: one that is never left alone would never be.
func TestATicketThatKeepsChangingIsMissed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := openOutage(t, nil)
		id := o.createTicket()
		sleep(time.Hour)
		var told atomic.Int64
		stop := o.standing(func(c *cutover.SweeperConfig) {
			c.Repair = false
			c.Alarm = func(context.Context, cutover.Sweep) error { told.Add(1); return nil }
		})
		o.call("PUT", "/webhooks/"+o.hook, map[string]any{"is_active": false})
		first := time.Now()
		for n := range 14 {
			o.retitle(id, n)
			sleep(time.Hour)
		}
		if told.Load() != 0 {
			t.Error("missed before its time")
		}
		for n := range 4 {
			o.retitle(id, 100+n)
			sleep(time.Hour)
		}
		missed := missedOf(stop())
		if len(missed) == 0 || told.Load() != 1 {
			t.Fatalf("missed %v, told %d times", missed, told.Load())
		}
		if since := missed[0].Since.Sub(first); since < 0 || since > time.Second {
			t.Errorf("missed since %s after the first change", since)
		}
	})
}
