package app_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	_ "modernc.org/sqlite" // the receiver's database

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/inbox"
	"github.com/ticketwire/ticketwire/internal/app"
	"github.com/ticketwire/ticketwire/internal/cutover"
	"github.com/ticketwire/ticketwire/webhook"
)

// outage is a desk whose webhook goes to a real receiver: a handler with an inbox
// on SQLite, which keeps the newest state of each ticket. It can be down.
type outage struct {
	*desk
	hook     string
	front    *http.Client // to the receiver, for a backfill
	inbox    *inbox.Inbox
	state    string // directory of the backfill
	db       *sql.DB
	down     atomic.Bool
	recorded *cutover.Record // receipts of the receiver; nil for none

	rmu     sync.Mutex
	refuses func() int        // a status in place of the handler's answer; nil or 0 for none
	titles  map[string]string // of each ticket, as the receiver has it
	closed  map[string]bool
	newest  map[string]time.Time
	effects map[webhook.Key]int
	kinds   map[string]int // effects of synthetic events by type
}

func openOutage(t *testing.T, change func(*app.Config)) *outage {
	o := &outage{
		desk: openDesk(t, change), state: t.TempDir(),
		titles: map[string]string{}, closed: map[string]bool{}, newest: map[string]time.Time{},
		effects: map[webhook.Key]int{}, kinds: map[string]int{},
	}
	var err error
	if o.db, err = sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "inbox.db")+"?_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_pragma=synchronous(full)"); err != nil {
		t.Fatal(err)
	}
	o.db.SetMaxOpenConns(1)
	if o.inbox, err = inbox.Open(t.Context(), inbox.Config{DB: o.db, Dialect: inbox.SQLite, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	handler := webhook.NewHandler(func() []string { return []string{o.secret} }, o.react,
		webhook.WithDeduper(o.inbox), webhook.WithLogger(slog.New(slog.DiscardHandler)), webhook.WithObserver(o.observe))
	o.serve = func(w http.ResponseWriter, r *http.Request) {
		if o.down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if status := o.refusal(); status != 0 {
			http.Error(w, "not now", status)
			return
		}
		handler.ServeHTTP(w, r)
	}
	o.front = &http.Client{Transport: &http.Transport{DialContext: o.receiver.Dial}}
	t.Cleanup(func() {
		o.front.CloseIdleConnections()
		o.db.Close()
	})
	o.hook = o.createWebhook(map[string]any{"rate_limit": map[string]any{"enabled": false}})
	return o
}

// title is what the receiver has of a ticket.
func (o *outage) title(id string) string {
	o.rmu.Lock()
	defer o.rmu.Unlock()
	return o.titles[id]
}

// made returns how many effects synthetic events had, by type, and all events.
func (o *outage) made() (synthetic map[string]int, all int) {
	o.rmu.Lock()
	defer o.rmu.Unlock()
	return maps.Clone(o.kinds), len(o.effects)
}

// refuse makes the receiver answer with what f returns; nil heals it.
func (o *outage) refuse(f func() int) {
	o.rmu.Lock()
	defer o.rmu.Unlock()
	o.refuses = f
}

func (o *outage) refusal() int {
	o.rmu.Lock()
	defer o.rmu.Unlock()
	if o.refuses == nil {
		return 0
	}
	return o.refuses()
}

// react is the receiver's program: the newest state of a ticket counts.
func (o *outage) react(_ context.Context, e *webhook.Envelope) error {
	d, err := e.Ticket()
	if err != nil {
		return err
	}
	o.rmu.Lock()
	defer o.rmu.Unlock()
	o.effects[webhook.KeyOf(e)]++
	if d.URL == "" {
		o.kinds[e.EventType]++
	}
	if !e.Claim.Stale && !e.OccurredAt.Before(o.newest[d.TicketID]) {
		o.newest[d.TicketID] = e.OccurredAt.Time
		o.titles[d.TicketID], o.closed[d.TicketID] = *d.Title, d.IsClosed
	}
	return nil
}

// observe writes the receipts of a receiver that keeps a record.
func (o *outage) observe(_ context.Context, r webhook.Receipt) {
	if o.recorded == nil || r.Event == nil {
		return
	}
	d, err := r.Event.Ticket()
	if err != nil {
		o.t.Error(err)
		return
	}
	p := &cutover.Receipt{
		At: time.Now(), Done: time.Now(), HTTP: r.Status, Outcome: string(r.Outcome), Signed: true,
		EventID: r.Event.EventID, EventType: r.Event.EventType, OccurredAt: r.Event.OccurredAt.Time,
		Ticket: d.TicketID, Synthetic: d.URL == "",
	}
	if d.UpdatedAt != nil {
		p.UpdatedAt = d.UpdatedAt.Time
	}
	if err := o.recorded.Append(cutover.Entry{Receipt: p}); err != nil {
		o.t.Error(err)
	}
}

// send signs as the service does.
func (o *outage) send(ctx context.Context, body []byte, attempt int) cutover.Reply {
	var e webhook.Envelope
	if err := json.Unmarshal(body, &e); err != nil {
		o.t.Error(err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://receiver.example/in", bytes.NewReader(body))
	if err != nil {
		o.t.Error(err)
		return cutover.Reply{}
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set(webhook.SignatureHeader, webhook.Sign(o.secret, time.Now(), body))
	r.Header.Set(webhook.EventIDHeader, e.EventID)
	r.Header.Set(webhook.EventTypeHeader, e.EventType)
	r.Header.Set(webhook.AttemptHeader, strconv.Itoa(attempt))
	res, err := o.front.Do(r)
	if err != nil {
		return cutover.Reply{Text: err.Error()}
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	return cutover.Reply{OK: res.StatusCode < 300, Status: res.StatusCode, Text: fmt.Sprintf("%d %s", res.StatusCode, text)}
}

func (o *outage) config() cutover.BackfillConfig {
	return cutover.BackfillConfig{
		URL: "http://desk.example", Key: o.tenant.APIKey, HTTP: o.http, Dir: o.state, WebhookID: o.hook,
		Budget: 0.5, Send: o.send, To: "receiver", Retries: []time.Duration{time.Second, 5 * time.Second}, Enable: true, Now: time.Now,
	}
}

// backfill looks and runs once.
func (o *outage) backfill(ctx context.Context, change func(*cutover.BackfillConfig)) (*cutover.Plan, *cutover.BackfillReport, error) {
	o.t.Helper()
	cfg := o.config()
	if change != nil {
		change(&cfg)
	}
	b, err := cutover.OpenBackfill(cfg)
	if err != nil {
		o.t.Fatal(err)
	}
	defer func() {
		if err := b.Close(); err != nil {
			o.t.Error(err)
		}
	}()
	p, err := b.Look(ctx)
	if err != nil {
		return nil, nil, err
	}
	r, err := b.Run(ctx, p)
	return p, r, err
}

// mustBackfill wants a backfill that comes to its end with nothing left.
func (o *outage) mustBackfill(change func(*cutover.BackfillConfig)) (*cutover.Plan, *cutover.BackfillReport) {
	o.t.Helper()
	p, r, err := o.backfill(o.t.Context(), change)
	if err != nil {
		o.t.Fatal(err)
	}
	if r.Differ != 0 || r.Sweeps == 0 {
		o.t.Errorf("%d tickets differ after %d sweeps", r.Differ, r.Sweeps)
	}
	return p, r
}

// agrees compares what the receiver has with what the service has, and wants one
// effect per event.
func (o *outage) agrees() {
	o.t.Helper()
	c, err := client.New("http://desk.example", o.tenant.APIKey, client.WithHTTPClient(o.api))
	if err != nil {
		o.t.Fatal(err)
	}
	o.rmu.Lock()
	defer o.rmu.Unlock()
	for truth, err := range c.Tickets(o.t.Context(), client.TicketFilter{Sort: "entered_at", Order: "asc"}) {
		if err != nil {
			o.t.Fatal(err)
		}
		if has := o.titles[truth.TicketID]; has != *truth.Title || o.closed[truth.TicketID] != *truth.IsClosed {
			o.t.Errorf("ticket %s: the receiver has %q, closed %t; the service %q, %t", truth.TicketID, has, o.closed[truth.TicketID], *truth.Title, *truth.IsClosed)
		}
	}
	for k, n := range o.effects {
		if n != 1 {
			o.t.Errorf("%d effects of %s %s", n, k.EventType, k.EventID)
		}
	}
}

// withoutFeed makes the proxy a server that knows no feed, as AlgaPSA does.
func (o *outage) withoutFeed() {
	o.breaks(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/api/v1/events") {
			return false
		}
		w.WriteHeader(http.StatusNotFound)
		return true
	})
}

// edits changes tickets, a new one among them and one that is closed, in steps
// over d, and returns the ids of all.
func (o *outage) edits(ids []string, d time.Duration, steps int) []string {
	o.t.Helper()
	for n := range steps {
		sleep(d / time.Duration(steps))
		o.retitle(ids[n%len(ids)], n)
		if n == steps/2 {
			ids = append(ids, o.createTicket())
			o.call("PUT", "/tickets/"+ids[0]+"/status", map[string]any{"status_id": o.tenant.Statuses["Closed"]})
		}
	}
	return ids
}

// working lets people go on editing until the function it returns is called.
func (o *outage) working(ids []string) (rest func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(700 * time.Millisecond):
				o.retitle(ids[n%len(ids)], 1000+n)
			}
		}
	}()
	return sync.OnceFunc(func() {
		close(stop)
		<-done
	})
}

// Outages of all lengths, each with edits while the receiver is down and
// while it is made up for.
func TestBackfillAfterAnOutage(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		down   time.Duration
		needed bool
	}{
		{time.Minute, false}, {3 * time.Hour, false}, {14 * time.Hour, false}, {15 * time.Hour, true},
		{3 * 24 * time.Hour, true}, {31 * 24 * time.Hour, true},
	} {
		for _, source := range []cutover.Source{cutover.FromFeed, cutover.FromReplay, cutover.FromList} {
			if source == cutover.FromReplay && tt.down > 30*24*time.Hour {
				continue // the server has no events of that time to send
			}
			if testing.Short() && tt.down != 15*time.Hour {
				continue // days take too long under the race detector
			}
			t.Run(fmt.Sprintf("%s, %s", tt.down, source), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					o := openOutage(t, nil)
					ids := []string{o.createTicket(), o.createTicket(), o.createTicket()}
					sleep(time.Hour)
					good := time.Now()
					o.retitle(ids[1], 0)
					sleep(time.Second)
					o.down.Store(true)
					o.retitle(ids[2], 1)
					ids = o.edits(ids, tt.down-time.Second, 24)
					o.down.Store(false)
					if source == cutover.FromList {
						o.withoutFeed()
					}

					rest := o.working(ids[:2])
					defer rest()
					p, r := o.mustBackfill(func(c *cutover.BackfillConfig) {
						c.Source, c.Wait, c.Threshold = source, 10*time.Minute, cutover.ThresholdOurs
						if tt.down < 15*time.Hour { // nothing was given up
							c.From = good.Add(-5 * time.Minute)
						}
					})
					rest()
					if off := good.Sub(p.From); p.Needed != (tt.needed || !p.Guessed) || off < 4*time.Minute || off > 6*time.Minute {
						t.Errorf("needed %t, from %s before the last good event: %q", p.Needed, off, p.Why)
					}
					// Retries of what was still being tried come within their schedule.
					sleep(13 * time.Hour)
					o.agrees()
					if tt.down > 24*time.Hour && (r.Webhook != "enabled" || !r.Live) {
						t.Errorf("the webhook is %s, live %t", r.Webhook, r.Live)
					}
					gone := slices.ContainsFunc(r.Notes, func(n string) bool { return strings.Contains(n, "does not reach back") })
					if source == cutover.FromFeed && gone != (tt.down > 30*24*time.Hour) {
						t.Errorf("notes %q", r.Notes)
					}
					if source == cutover.FromFeed && tt.down < 30*24*time.Hour && r.Synthetic != 0 {
						t.Errorf("%d synthetic events beside a whole feed", r.Synthetic)
					}
					kinds, _ := o.made()
					if made := kinds[webhook.TicketCreated] + kinds[webhook.TicketClosed]; source == cutover.FromList &&
						(r.Synthetic == 0 || made > 2 || made < 2 && tt.down > 24*time.Hour) { // a retry can be quicker
						t.Errorf("synthetic events %v", kinds)
					}
				})
			})
		}
	}
}

// A backfill that is broken off at any step goes on where it was: nothing is
// skipped, and nothing has two effects.
func TestBackfillIsBrokenOff(t *testing.T) {
	t.Parallel()
	for _, source := range []cutover.Source{cutover.FromFeed, cutover.FromList} {
		t.Run(string(source), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := openOutage(t, nil)
				ids := []string{o.createTicket(), o.createTicket(), o.createTicket()}
				sleep(time.Hour)
				o.down.Store(true)
				o.edits(ids, 48*time.Hour, 24)
				o.down.Store(false)
				if source == cutover.FromList {
					o.withoutFeed()
				}
				// The request number n of all, to the receiver or the API, is the last one.
				steps := 0
				for limit := 1; ; limit++ {
					ctx, cancel := context.WithCancel(t.Context())
					var left atomic.Int64
					left.Store(int64(limit))
					tick := func() int {
						if left.Add(-1) == 0 {
							cancel()
						}
						return 0
					}
					o.refuse(tick)
					fault := o.fault
					o.breaks(func(w http.ResponseWriter, r *http.Request) bool {
						tick()
						return fault != nil && fault(w, r)
					})
					_, r, err := o.backfill(ctx, func(c *cutover.BackfillConfig) { c.Source = source })
					o.breaks(fault)
					cancel()
					if err == nil {
						if r.Differ != 0 {
							t.Errorf("%d tickets differ", r.Differ)
						}
						break
					}
					if !errors.Is(err, context.Canceled) {
						t.Fatal(err)
					}
					o.retitle(ids[1], 100+limit)
					if steps++; steps > 200 {
						t.Fatal("it does not come to an end")
					}
				}
				o.refuse(nil)
				if steps < 6 {
					t.Errorf("broken off %d times only", steps)
				}
				sleep(13 * time.Hour)
				o.agrees()
			})
		})
	}
}

// What a receiver refuses stops the backfill, at once for a 4xx, and the next run
// begins with that event.
func TestBackfillStopsAtARefusal(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ status, tries int }{{http.StatusUnauthorized, 1}, {http.StatusInternalServerError, 3}, {http.StatusTooManyRequests, 3}} {
		t.Run(strconv.Itoa(tt.status), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := openOutage(t, nil)
				id := o.createTicket()
				sleep(time.Hour)
				o.down.Store(true)
				o.edits([]string{id}, 30*time.Hour, 5)
				o.down.Store(false)
				seen, tries := 0, 0
				o.refuse(func() int {
					if seen++; seen <= 3 {
						return 0
					}
					tries++
					return tt.status
				})
				_, r, err := o.backfill(t.Context(), nil)
				if err == nil || !strings.Contains(err.Error(), fmt.Sprint(tt.status)) || !strings.Contains(err.Error(), "ticket.") {
					t.Fatalf("error %v", err)
				}
				if tries != tt.tries || total(r.Sent) != 3 {
					t.Errorf("%d tries, %v sent", tries, r.Sent)
				}
				o.refuse(nil)
				if _, r := o.mustBackfill(nil); r.Webhook != "enabled" {
					t.Errorf("the webhook is %s", r.Webhook)
				}
				sleep(13 * time.Hour)
				o.agrees()
			})
		})
	}
}

func total(n map[string]int) int {
	sum := 0
	for _, v := range n {
		sum += v
	}
	return sum
}

// Only what the webhook would have got is sent, in the form in which it gets it.
func TestBackfillKeepsToTheSubscription(t *testing.T) {
	t.Parallel()
	for _, source := range []cutover.Source{cutover.FromFeed, cutover.FromList} {
		t.Run(string(source), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := openOutage(t, nil)
				ids := []string{o.createTicket(), o.createTicket()}
				sleep(time.Hour)
				begin := time.Now()
				o.call("PUT", "/webhooks/"+o.hook, map[string]any{
					"is_active": false, "event_types": []string{webhook.TicketClosed, webhook.TicketUpdated},
					"event_filter": map[string]any{"entity_ids": ids[:1]}, "payload_fields": map[string]any{"ticket": []string{"title", "is_closed", "updated_at"}},
				})
				sleep(time.Hour)
				o.edits(ids, time.Hour, 6)
				if source == cutover.FromList {
					o.withoutFeed()
				}
				var bodies []string
				p, r := o.mustBackfill(func(c *cutover.BackfillConfig) {
					c.Source, c.From = source, begin
					c.Send = func(ctx context.Context, body []byte, attempt int) cutover.Reply {
						bodies = append(bodies, string(body))
						return o.send(ctx, body, attempt)
					}
				})
				if p.Guessed || r.Filtered == 0 || len(bodies) == 0 {
					t.Errorf("guessed %t, %d filtered, %d sent", p.Guessed, r.Filtered, len(bodies))
				}
				for _, body := range bodies {
					if !strings.Contains(body, ids[0]) || strings.Contains(body, "client_id") || strings.Contains(body, webhook.TicketStatusChanged) {
						t.Errorf("sent %s", body)
					}
				}
				if want := (source == cutover.FromList); strings.Contains(strings.Join(bodies, ""), `"synthetic":true`) != want {
					t.Errorf("synthetic: want %t", want)
				}
			})
		})
	}
}

// The receiver's own record says what need not be sent, when it went down, and
// which tickets are gone.
func TestBackfillReadsTheRecord(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := openOutage(t, nil)
		var err error
		if o.recorded, err = cutover.OpenRecord(o.state); err != nil {
			t.Fatal(err)
		}
		defer o.recorded.Close()
		ids := []string{o.createTicket(), o.createTicket(), o.createTicket()}
		sleep(time.Hour)
		last := time.Now()
		o.retitle(ids[0], 1)
		sleep(time.Minute)
		o.down.Store(true)
		o.retitle(ids[0], 2)
		sleep(15 * time.Hour)
		o.down.Store(false)
		o.retitle(ids[1], 3) // live again
		o.deleteTicket(ids[2])
		sleep(time.Hour)
		p, r := o.mustBackfill(func(c *cutover.BackfillConfig) { c.WebhookID = "" })
		if off := last.Sub(p.From); !p.Guessed || !p.Needed || off < 5*time.Minute-time.Second || off > 5*time.Minute+time.Second {
			t.Errorf("the window begins %s before the last receipt: %q", off, p.Why)
		}
		if total(r.Sent) != 1 || r.Known == 0 {
			t.Errorf("sent %v, %d known; want the one event that is missing", r.Sent, r.Known)
		}
		if !slices.Equal(r.Deleted, ids[2:]) {
			t.Errorf("deleted %v", r.Deleted)
		}
		o.agrees()
		// Now nothing is missing.
		if p, _ := o.mustBackfill(func(c *cutover.BackfillConfig) { c.WebhookID = "" }); p.Needed {
			t.Errorf("needed again: %q", p.Why)
		}
	})
}

// AlgaPSA keeps the mark of a webhook that it has disabled when that is switched on
// again: what it has missed begins before the mark, once, and then it is over.
func TestBackfillOfAWebhookThatIsOnAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := openOutage(t, nil)
		ids := []string{o.createTicket(), o.createTicket()}
		sleep(48 * time.Hour)
		off := time.Now()
		o.call("PUT", "/webhooks/"+o.hook, map[string]any{"is_active": false})
		ids = o.edits(ids, 5*time.Hour, 5)
		o.call("PUT", "/webhooks/"+o.hook, map[string]any{"is_active": true})
		sleep(time.Hour)
		o.retitle(ids[0], 9) // its last success
		sleep(time.Hour)
		o.breaks(func(w http.ResponseWriter, r *http.Request) bool {
			switch {
			case strings.HasPrefix(r.URL.Path, "/api/v1/events"), strings.HasSuffix(r.URL.Path, "/deliveries"):
				return answers(http.StatusNotFound)(w, r)
			case !strings.HasSuffix(r.URL.Path, "/webhooks/"+o.hook):
				return false
			}
			record := o.call("GET", "/webhooks/"+o.hook, nil)["data"].(map[string]any)
			record["auto_disabled_at"] = webhook.At(off)
			if err := json.NewEncoder(w).Encode(map[string]any{"data": record}); err != nil {
				t.Error(err)
			}
			return true
		})
		p, _ := o.mustBackfill(nil)
		if want := off.Add(-24*time.Hour - 5*time.Minute); !p.Needed || !p.From.Equal(want) {
			t.Errorf("needed %t from %s, want from %s: %q", p.Needed, p.From, want, p.Why)
		}
		o.agrees()
		sleep(time.Hour)
		if p, _ := o.mustBackfill(nil); p.Needed {
			t.Errorf("needed again from %s: %q", p.From, p.Why)
		}
	})
}

// A count sends nothing and says what would be sent.
func TestBackfillCounts(t *testing.T) {
	t.Parallel()
	for _, source := range []cutover.Source{cutover.FromFeed, cutover.FromReplay, cutover.FromList} {
		t.Run(string(source), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := openOutage(t, nil)
				ids := []string{o.createTicket(), o.createTicket()}
				sleep(time.Hour)
				o.call("PUT", "/webhooks/"+o.hook, map[string]any{"is_active": false})
				o.edits(ids, 40*time.Hour, 10)
				_, before := o.made()
				b, err := cutover.OpenBackfill(func() cutover.BackfillConfig {
					c := o.config()
					c.Source = source
					return c
				}())
				if err != nil {
					t.Fatal(err)
				}
				p, err := b.Look(t.Context())
				if err == nil {
					err = b.Count(t.Context(), p)
				}
				if err != nil {
					t.Fatal(err)
				}
				if _, after := o.made(); before != after {
					t.Error("counting sent something")
				}
				r, err := b.Run(t.Context(), p)
				if err = errors.Join(err, b.Close()); err != nil {
					t.Fatal(err)
				}
				sent := total(r.Sent) + r.Replayed
				if total(p.Counts) != sent || sent == 0 {
					t.Errorf("counted %v, sent %v and %d replayed", p.Counts, r.Sent, r.Replayed)
				}
				o.agrees()
			})
		})
	}
}

// A backfill keeps to its share of the key's limit, waits as long as a 429 says,
// and outlasts a server that fails for a while.
func TestBackfillKeepsToItsBudget(t *testing.T) {
	if testing.Short() {
		t.Skip("a hundred requests take too long under the race detector")
	}
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := openOutage(t, func(c *app.Config) { c.Enforce = true })
		var err error
		if o.recorded, err = cutover.OpenRecord(o.state); err != nil {
			t.Fatal(err)
		}
		defer o.recorded.Close()
		for range 90 { // each is asked for by its id
			o.createTicket()
		}
		sleep(time.Hour) // the bucket is full again
		from, before := time.Now(), o.asked()
		refused, limited := 0, false
		o.breaks(func(w http.ResponseWriter, r *http.Request) bool {
			switch {
			case !limited && strings.HasPrefix(r.URL.Path, "/api/v1/tickets/"):
				limited = true
				return answers(http.StatusTooManyRequests, "Retry-After", "300")(w, r)
			case limited && refused < 4:
				refused++
				return answers(http.StatusBadGateway)(w, r)
			}
			return false
		})
		_, r := o.mustBackfill(func(c *cutover.BackfillConfig) { c.From = from })
		if !limited || refused != 4 || r.Requests != o.asked()-before || r.Requests < 95 {
			t.Errorf("%d requests of %d, %d failures", r.Requests, o.asked()-before, refused)
		}
		if took := time.Since(from); took < 5*time.Minute || took > 7*time.Minute {
			t.Errorf("it took %s; want the 300 s that it was told to wait, and the pace of its budget", took)
		}
		if len(r.Deleted) != 0 {
			t.Errorf("deleted %v", r.Deleted)
		}
		// Now the bucket is not full: 30 requests a minute.
		from = time.Now()
		_, r = o.mustBackfill(func(c *cutover.BackfillConfig) { c.From = from })
		if least := time.Duration(r.Requests-60-1) * 2 * time.Second; time.Since(from) < least {
			t.Errorf("%d requests in %s", r.Requests, time.Since(from))
		}
	})
}
