package app_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/cutover"
	"github.com/ticketwire/ticketwire/webhook"
)

// changeOver is a cutover in a bubble: a poller, a receiver, and who acted on what.
type changeOver struct {
	*desk
	turns   *cutover.Turns
	webhook string

	failing atomic.Bool // the receiver's reaction
	actedMu sync.Mutex
	acts    map[changed][]cutover.Side
}

// changed is a change of a ticket.
type changed struct {
	ticket string
	at     int64 // updated_at in milliseconds
}

func openChangeOver(t *testing.T) *changeOver {
	c := &changeOver{desk: openDesk(t, nil), acts: map[changed][]cutover.Side{}}
	setup := &cutover.Setup{
		Server: "http://desk.example", Interval: 60, Started: time.Now(),
		Turns: []cutover.Turn{{At: time.Now(), From: time.Now(), Side: cutover.SidePoller}},
	}
	if err := setup.Save(c.dir); err != nil {
		t.Fatal(err)
	}
	c.turns = cutover.FollowTurns(c.dir)
	c.webhook = c.createWebhook(nil)
	// The reaction of every event, so that a change with several has several.
	h := webhook.NewHandler(func() []string { return []string{c.secret} }, func(_ context.Context, e *webhook.Envelope) error {
		if c.failing.Load() {
			return errors.New("the receiver's work fails")
		}
		ours, err := c.turns.Receives(e)
		if err == nil && ours {
			c.acted(e.TicketID(), cutover.ChangeOf(e), cutover.SideReceiver)
		}
		return err
	}, webhook.WithNow(time.Now), webhook.WithLogger(slog.New(slog.DiscardHandler)),
		webhook.WithObserver(func(ctx context.Context, r webhook.Receipt) { *ctx.Value(receiptKey{}).(*webhook.Receipt) = r }))
	record, err := cutover.OpenRecord(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { record.Close() })
	if err := record.Append(cutover.Entry{Receiver: &cutover.Receiver{At: time.Now(), SecretFrom: "file"}}); err != nil {
		t.Fatal(err)
	}
	c.serve = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		var got webhook.Receipt
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), receiptKey{}, &got)))
		if err := record.Append(cutover.Entry{Receipt: cutover.NewReceipt(time.Now(), time.Now(), r.Header, body, got)}); err != nil {
			t.Error(err)
		}
	})
	return c
}

type receiptKey struct{}

func (c *changeOver) acted(ticket string, at time.Time, side cutover.Side) {
	c.actedMu.Lock()
	defer c.actedMu.Unlock()
	k := changed{ticket, at.UnixMilli()}
	c.acts[k] = append(c.acts[k], side)
}

// react is the poller's reaction.
func (c *changeOver) react(_ context.Context, change cutover.Change) error {
	c.acted(change.Ticket, change.UpdatedAt, cutover.SidePoller)
	return nil
}

// turn gives the turn to a side, a few seconds ahead as the commands do.
func (c *changeOver) turn(side cutover.Side) {
	c.t.Helper()
	clock, err := cutover.ServerClock(c.t.Context(), "http://desk.example", c.tenant.APIKey, c.http, time.Now)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := cutover.TakeTurn(c.dir, cutover.Turn{At: time.Now(), From: clock.Add(5 * time.Second), Side: side}); err != nil {
		c.t.Fatal(err)
	}
}

// happened returns all changes that the feed knows, by ticket and in their order.
func (c *changeOver) happened() map[string][]time.Time {
	c.t.Helper()
	api, err := client.New("http://desk.example", c.tenant.APIKey, client.WithHTTPClient(c.api))
	if err != nil {
		c.t.Fatal(err)
	}
	out := map[string][]time.Time{}
	for page, err := range api.EventPages(c.t.Context(), "", client.EventFilter{Limit: 1000}) {
		if err != nil {
			c.t.Fatal(err)
		}
		for _, e := range page.Data {
			w := webhook.Envelope{EventID: e.EventID, OccurredAt: webhook.Time{Time: e.OccurredAt}, Data: e.Data}
			at := cutover.ChangeOf(&w)
			if id := w.TicketID(); !slices.ContainsFunc(out[id], at.Equal) {
				out[id] = append(out[id], at)
			}
		}
	}
	return out
}

// judge wants every change of the poller's turns to be covered by the poller, whose
// look shows the last one, and every other one to be acted on by the receiver; none
// by both, and none of the poller's twice.
func (c *changeOver) judge(began time.Time) {
	c.t.Helper()
	setup, err := c.turns.Setup()
	if err != nil {
		c.t.Fatal(err)
	}
	byReceiver, byPoller := 0, 0
	for ticket, all := range c.happened() {
		for i, at := range all {
			if at.Before(began) {
				continue
			}
			acts := c.acts[changed{ticket, at.UnixMilli()}]
			sides := slices.Compact(slices.Sorted(slices.Values(acts)))
			if len(sides) > 1 {
				c.t.Errorf("change %d of %s at %s was acted on by both", i, ticket, at)
			}
			if setup.Acts(at) == cutover.SideReceiver {
				byReceiver++
				if !slices.Equal(sides, []cutover.Side{cutover.SideReceiver}) {
					c.t.Errorf("change %d of %s at %s: acted on by %v, want the receiver", i, ticket, at, sides)
				}
				continue
			}
			// A later change of the same turn stands for this one.
			last := at
			for _, later := range all[i+1:] {
				if setup.Acts(later) != cutover.SidePoller {
					break
				}
				if len(c.acts[changed{ticket, last.UnixMilli()}]) > 0 {
					break
				}
				last = later
			}
			if got := c.acts[changed{ticket, last.UnixMilli()}]; !slices.Equal(got, []cutover.Side{cutover.SidePoller}) {
				c.t.Errorf("change %d of %s at %s, and what followed until %s: acted on by %v, want the poller, once", i, ticket, at, last, got)
			}
			if last.Equal(at) {
				byPoller++
			}
		}
	}
	if byReceiver == 0 || byPoller == 0 {
		c.t.Errorf("%d changes were the receiver's and %d the poller's: the test shows nothing", byReceiver, byPoller)
	}
}

// Changes flow all the time, more of them than the poller can see, while the turn
// goes to the receiver, back and there again: each is acted on by one side, and
// none falls between the two.
func TestNoChangeFallsBetweenTheTurns(t *testing.T) {
	t.Parallel()
	for n, kind := range []struct{ all, feed bool }{{false, true}, {true, true}, {false, false}, {true, false}} {
		seeds := uint64(2)
		if testing.Short() {
			seeds = 1
		}
		if testing.Short() && kind.all { // the walk is the same, and slow with the race detector
			continue
		}
		for seed := range seeds {
			t.Run(fmt.Sprintf("all=%t/feed=%t/%d", kind.all, kind.feed, seed), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					c := openChangeOver(t)
					var ids []string
					for range 6 {
						ids = append(ids, c.createTicket())
					}
					watch := ids
					if kind.all {
						watch = nil
					}
					if !kind.feed { // as with AlgaPSA
						c.breaks(func(w http.ResponseWriter, r *http.Request) bool {
							return r.URL.Path == "/api/v1/events" && answers(http.StatusNotFound)(w, r)
						})
					}
					sleep(time.Second)
					stop := c.polling(watch, func(cfg *cutover.Config) { cfg.React = c.react })
					sleep(10 * time.Second) // the first looks are over
					began := time.Now()
					random := rand.New(rand.NewPCG(seed, uint64(n)))
					sides := []cutover.Side{cutover.SideReceiver, cutover.SidePoller, cutover.SideReceiver}
					next := began.Add(5 * time.Minute)
					for n := 0; len(sides) > 0 || time.Until(next) > 0; n++ {
						id := ids[random.IntN(len(ids))]
						if random.IntN(4) == 0 {
							c.call("PUT", "/tickets/"+id, map[string]any{"status_id": c.tenant.Statuses[[]string{"Open", "Closed"}[n%2]]})
						} else {
							c.retitle(id, n)
						}
						sleep(time.Duration(random.Int64N(int64(6 * time.Second))))
						if len(sides) > 0 && time.Until(next) <= 0 {
							c.turn(sides[0])
							sides, next = sides[1:], time.Now().Add(4*time.Minute)
						}
					}
					sleep(3 * time.Minute)
					stop()
					c.judge(began)
				})
			})
		}
	}
}

// What the poller owes of its own turn is not known without the feed: then it is
// not dealt with, and the next round asks again.
func TestWhatIsOwedIsAskedForAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := openChangeOver(t)
		id := c.createTicket()
		sleep(time.Second)
		stop := c.polling([]string{id}, func(cfg *cutover.Config) { cfg.React = c.react })
		sleep(10 * time.Second)
		began := time.Now()
		c.turn(cutover.SideReceiver)
		sleep(time.Second)
		c.retitle(id, 1) // before the turn changes, in the same round as the next
		sleep(10 * time.Second)
		c.retitle(id, 2)
		c.breaks(func(w http.ResponseWriter, r *http.Request) bool {
			return r.URL.Path == "/api/v1/events" && answers(http.StatusServiceUnavailable)(w, r)
		})
		sleep(2 * time.Minute)
		all := c.happened()[id]
		first := changed{id, all[len(all)-2].UnixMilli()}
		if got := c.acts[first]; got != nil {
			t.Errorf("without the feed the first change was acted on by %v", got)
		}
		c.breaks(nil)
		sleep(2 * time.Minute)
		stop()
		c.judge(began)
	})
}

// A day with everything that goes wrong on a day: what the poller, the receiver and
// the collector wrote down explains every difference.
func TestADayWithFaultsIsExplained(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("a day of polling takes too long under the race detector")
	}
	synctest.Test(t, func(t *testing.T) {
		c := openChangeOver(t)
		ids := []string{c.createTicket(), c.createTicket(), c.createTicket()}
		c.createTicket() // not watched
		sleep(time.Second)
		stop := c.polling(ids, func(cfg *cutover.Config) { cfg.React, cfg.Budget = c.react, 0.35 })
		stopCollector := c.collecting(c.webhook, c.start, nil)
		faults := map[int]func(){
			10: func() { c.breaks(answers(http.StatusServiceUnavailable)) }, // nobody can read
			12: func() { c.breaks(nil) },
			30: func() { c.failing.Store(true) }, // retries
			33: func() { c.failing.Store(false) },
			60: func() { c.call("PUT", "/webhooks/"+c.webhook, map[string]any{"is_active": false}) },
			62: func() { c.call("PUT", "/webhooks/"+c.webhook, map[string]any{"is_active": true}) },
			80: func() { // the cutover is killed, and comes back
				stop()
				stopCollector()
			},
			82: func() {
				stop = c.polling(ids, func(cfg *cutover.Config) { cfg.React, cfg.Budget = c.react, 0.35 })
				stopCollector = c.collecting(c.webhook, c.start, nil)
			},
		}
		for n := range 150 { // a change every ten minutes
			if fault := faults[n]; fault != nil {
				fault()
			}
			if id := ids[n%len(ids)]; n%4 == 0 {
				c.call("PUT", "/tickets/"+id, map[string]any{"status_id": c.tenant.Statuses[[]string{"Closed", "Open"}[n/4%2]]})
			} else {
				c.retitle(id, n)
			}
			sleep(10 * time.Minute)
		}
		sleep(3 * time.Hour)
		stop()
		stopCollector()
		setup, err := cutover.LoadSetup(c.dir)
		if err != nil {
			t.Fatal(err)
		}
		setup.WebhookID = c.webhook
		f, err := os.Open(filepath.Join(c.dir, cutover.RecordName))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		report, err := cutover.Compare(cutover.NewReader(f).Entries(), cutover.Question{Setup: setup})
		if err != nil {
			t.Fatal(err)
		}
		var text bytes.Buffer
		if err := report.WriteText(&text); err != nil {
			t.Fatal(err)
		}
		cover := report.Coverage
		switch {
		case report.Outcome != cutover.Extend || cover.Missed > 0 || cover.Doubtful > 0 || cover.Mismatched > 0:
			t.Error("the day is not explained")
		case cover.Matched < 120 || cover.Changes < 140 || report.Recall.Source != cutover.TruthOfFeed || report.Recall.Changes < 140:
			t.Error("the day is not in the report")
		case report.Blind.Exposed < 2 || report.Blind.Disabled < (19*time.Minute).Seconds() || report.Blind.Disabled > (21*time.Minute).Seconds():
			t.Errorf("disabled for %g s, with %d changes", report.Blind.Disabled, report.Blind.Exposed)
		}
		if t.Failed() {
			t.Log(text.String())
		}
	})
}
