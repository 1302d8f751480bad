package app_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httputil"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ticketwire/ticketwire/internal/cutover"
	"github.com/ticketwire/ticketwire/internal/receiver"
	"github.com/ticketwire/ticketwire/test/pipe"
	"github.com/ticketwire/ticketwire/webhook"
)

// pipelines is a cutover in a bubble, with the real parts: the service, the poller,
// the collector, and the ready-made receiver behind something that stands before
// it, as a proxy does. What stands between them can break, and each can be stopped
// and killed. What was broken, and what passed, is noted.
type pipelines struct {
	*desk
	hook   string
	random *rand.Rand // of the test
	lucky  *rand.Rand
	ids    []string // tickets that are there
	made   int      // changes

	watched     []string // nil: all, by the list
	interval    time.Duration
	stopPoll    func() *cutover.Numbers
	stopCollect func()
	seen        map[seenKey]time.Time                              // what the poller reacted to, and when it had the answer
	acts        func(context.Context, seenKey, cutover.Side) error // the reaction of both sides; nil: the poller has none
	types       []string                                           // of the webhook; nil: all
	keeps       bool                                               // no ticket is deleted
	began       map[string]time.Time                               // updated_at of the tickets when it began

	record  *cutover.Record
	dir     string // of the receiver's inbox
	rcv     *receiver.Receiver
	behind  *pipe.Listener // where it listens
	config  func(*receiver.Config)
	hanging chan struct{} // reactions wait for it to be closed; nil: they do not
	mirror  map[string]mirrored
	effects map[webhook.Key]int

	front    func(key webhook.Key, attempt int) int // what answers in the receiver's place, 0 for nobody
	wire     map[webhook.Key][]passed
	down     []cut // the receiver did not run
	disabled []cut // the webhook was disabled
	blind    []cut // the API did not answer to the poller
}

// seenKey is a change.
type seenKey struct {
	ticket  string
	updated time.Time
}

// cut is a time in which something was off.
type cut struct{ from, to time.Time }

func (c cut) holds(t time.Time) bool { return !t.Before(c.from) && !t.After(c.to) }

// passed is one delivery as it passed what is before the receiver.
type passed struct {
	at      time.Time
	attempt int
	status  int  // that the sender got; 0 for none
	reached bool // the receiver answered
	taken   bool // with a 2xx
	byOther bool // the webhook did not send it
}

// mirrored is a ticket as the receiver's program has it.
type mirrored struct {
	at             time.Time
	title, assigns string
	closed         bool
}

// What is before the receiver answers instead of a status.
const (
	hang = -1 // nothing, until the sender gives up
	drop = -2 // the receiver gets it, and its answer is lost
)

// openPipelines starts everything with some tickets. watch is how many of them are
// polled one by one; 0 polls the list of all.
func openPipelines(t *testing.T, seed uint64, watch int, interval time.Duration, change ...func(*pipelines)) *pipelines {
	p := &pipelines{
		desk: openDesk(t, nil), random: rand.New(rand.NewPCG(seed, 500)), lucky: rand.New(rand.NewPCG(seed, 501)), interval: interval, dir: t.TempDir(),
		seen: map[seenKey]time.Time{}, began: map[string]time.Time{}, mirror: map[string]mirrored{}, effects: map[webhook.Key]int{},
		wire: map[webhook.Key][]passed{},
	}
	p.desk.dir = t.TempDir()
	for _, f := range change {
		f(p)
	}
	p.serve = p.pass
	var err error
	if p.record, err = cutover.OpenRecord(p.desk.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.record.Close() })
	more := map[string]any{}
	if p.types != nil {
		more["event_types"] = p.types
	}
	p.hook = p.createWebhook(more)
	p.listen()
	for range 8 {
		p.ids = append(p.ids, p.createTicket())
	}
	p.watched = append(p.watched, p.ids[:watch]...)
	sleep(time.Minute)
	setup := &cutover.Setup{
		Server: "http://desk.example", WebhookID: p.hook, Tickets: p.watched, Interval: interval.Seconds(), Started: time.Now(),
		Turns: []cutover.Turn{{At: time.Now(), From: time.Now(), Side: cutover.SidePoller}},
	}
	if err := setup.Save(p.desk.dir); err != nil {
		t.Fatal(err)
	}
	for _, id := range p.ids {
		p.began[id] = p.updatedAt(id)
	}
	p.poll()
	p.collect()
	t.Cleanup(func() {
		p.stopPoll()
		p.stopCollect()
		p.hangUp(t.Context())
	})
	sleep(5 * time.Second)
	return p
}

func (p *pipelines) poll() {
	stop := p.polling(p.watched, func(cfg *cutover.Config) {
		cfg.Interval = p.interval
		cfg.React = func(ctx context.Context, c cutover.Change) error {
			p.mu.Lock()
			if k := (seenKey{c.Ticket, c.UpdatedAt}); p.seen[k].IsZero() {
				p.seen[k] = c.SeenAt
			}
			p.mu.Unlock()
			if p.acts == nil {
				return nil
			}
			return p.acts(ctx, seenKey{c.Ticket, c.UpdatedAt}, cutover.SidePoller)
		}
	})
	stopped := false
	p.stopPoll = func() *cutover.Numbers {
		if stopped {
			return nil
		}
		stopped = true
		return stop()
	}
}

const collectEvery = 5 * time.Minute

func (p *pipelines) collect() {
	setup, err := cutover.LoadSetup(p.desk.dir)
	if err != nil {
		p.t.Fatal(err)
	}
	stop := p.collecting(p.hook, setup.Started, func(cfg *cutover.CollectorConfig) { cfg.Interval = collectEvery })
	stopped := false
	p.stopCollect = func() {
		if !stopped {
			stopped = true
			stop()
		}
	}
}

// listen starts the receiver.
func (p *pipelines) listen() {
	p.t.Helper()
	p.behind = pipe.Listen()
	cfg := receiver.Config{
		Listener: p.behind, Path: "/in", DataDir: p.dir, Secrets: func() []string { return []string{p.secret} }, SecretFrom: "file",
		React: p.react, Record: p.record, Silence: receiver.LearnSilence, Log: slog.New(slog.DiscardHandler), Now: time.Now,
	}
	if p.config != nil {
		p.config(&cfg)
	}
	var err error
	if p.rcv, err = receiver.New(p.t.Context(), cfg); err == nil {
		err = p.rcv.Start(p.t.Context())
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// hangUp stops the receiver; with a context that has ended it does not wait.
func (p *pipelines) hangUp(ctx context.Context) {
	if p.rcv == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err := p.rcv.Stop(ctx); err != nil {
		p.t.Error(err)
	}
	p.rcv = nil
}

// restart stops the receiver, with what it is doing, and starts it again later.
func (p *pipelines) restart(down time.Duration) {
	p.t.Helper()
	from := time.Now()
	p.hangUp(p.t.Context())
	p.comesBack(from, down)
}

func (p *pipelines) comesBack(from time.Time, down time.Duration) {
	sleep(down)
	p.listen()
	p.down = append(p.down, cut{from, time.Now()})
	sleep(time.Second)
}

// kill ends the receiver in the middle of a reaction, as kill -9 does: what it has
// on its disk is as it was at that moment, and nothing was said at the end.
func (p *pipelines) kill(down time.Duration) {
	p.t.Helper()
	p.hang(make(chan struct{}))
	p.edit(p.pick())
	sleep(time.Second)
	from := time.Now()
	files := map[string][]byte{}
	names, err := filepath.Glob(filepath.Join(p.dir, "*"))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, name := range names {
		if files[name], err = os.ReadFile(name); err != nil {
			p.t.Fatal(err)
		}
	}
	record := filepath.Join(p.desk.dir, cutover.RecordName)
	written, err := os.Stat(record)
	if err != nil {
		p.t.Fatal(err)
	}
	ended, cancel := context.WithCancel(p.t.Context())
	cancel()
	_ = p.rcv.Stop(ended) // it says that it was cut short
	p.rcv = nil
	p.hang(nil)
	for name, text := range files {
		if filepath.Ext(name) == ".db-shm" { // not of the disk, but of the processes
			os.Remove(name)
			continue
		}
		if err := os.WriteFile(name, text, 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
	if err := os.Truncate(record, written.Size()); err != nil {
		p.t.Fatal(err)
	}
	p.comesBack(from, down)
}

// hang makes reactions wait until they are broken off; nil ends that.
func (p *pipelines) hang(until chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hanging = until
}

// restartServer stops the service, lets what is under way finish or not, and starts
// it again.
func (p *pipelines) restartServer(down time.Duration, drained bool) {
	p.t.Helper()
	from := time.Now()
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	if !drained {
		cancel()
	}
	if err := p.app.Stop(ctx); err != nil && drained {
		p.t.Error(err)
	}
	p.api.CloseIdleConnections()
	sleep(down)
	p.begin()
	p.blind = append(p.blind, cut{from, time.Now()})
}

// react is the receiver's program: it keeps each ticket as its newest event says.
func (p *pipelines) react(ctx context.Context, e *receiver.Event) error {
	p.mu.Lock()
	hanging := p.hanging
	p.mu.Unlock()
	if hanging != nil {
		select {
		case <-hanging:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	d, err := e.Ticket()
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.effects[webhook.KeyOf(e.Envelope)]++
	if at := e.OccurredAt.Time; !at.Before(p.mirror[d.TicketID].at) {
		m := mirrored{at: at, title: *d.Title, closed: d.IsClosed}
		if d.AssignedTo != nil {
			m.assigns = *d.AssignedTo
		}
		p.mirror[d.TicketID] = m
	}
	return nil
}

// pass is what is before the receiver.
func (p *pipelines) pass(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		p.t.Error(err)
	}
	key := webhook.Key{EventID: r.Header.Get(webhook.EventIDHeader), EventType: r.Header.Get(webhook.EventTypeHeader)}
	x := passed{at: time.Now(), byOther: r.Header.Get(webhook.WebhookIDHeader) != p.hook}
	if x.attempt, err = strconv.Atoi(r.Header.Get(webhook.AttemptHeader)); err != nil {
		p.t.Error(err)
	}
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.wire[key] = append(p.wire[key], x)
	}()
	p.mu.Lock()
	front, behind := p.front, p.behind
	p.mu.Unlock()
	answer := 0
	if front != nil && !x.byOther {
		answer = front(key, x.attempt)
	}
	switch {
	case answer == hang:
		<-r.Context().Done()
		return
	case answer > 0:
		x.status = answer
		w.WriteHeader(answer)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "behind.example" },
		// One connection for each request, as the receiver may be another one the next time.
		Transport: &http.Transport{DialContext: behind.Dial, DisableKeepAlives: true},
		ModifyResponse: func(res *http.Response) error {
			x.reached, x.taken, x.status = true, res.StatusCode < 300, res.StatusCode
			if answer == drop {
				x.status = 0
				return errors.New("lost")
			}
			return nil
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ErrorLog:     log.New(io.Discard, "", 0),
	}
	proxy.ServeHTTP(w, r)
}

// luck is a number from 0 to n-1 for what is before the receiver, which is asked from
// many goroutines.
func (p *pipelines) luck(n int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lucky.IntN(n)
}

// stands replaces what is before the receiver.
func (p *pipelines) stands(front func(key webhook.Key, attempt int) int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.front = front
}

// disable switches the webhook off, by hand, and enable on again.
func (p *pipelines) disable() {
	p.t.Helper()
	p.disabled = append(p.disabled, cut{from: time.Now()})
	p.call("PUT", "/webhooks/"+p.hook, map[string]any{"is_active": false})
}

func (p *pipelines) enable() {
	p.t.Helper()
	p.call("PUT", "/webhooks/"+p.hook, map[string]any{"is_active": true})
	p.disabled[len(p.disabled)-1].to = time.Now()
}

// pick is a ticket that is there.
func (p *pipelines) pick() string { return p.ids[p.random.IntN(len(p.ids))] }

// edit changes the title.
func (p *pipelines) edit(id string) {
	p.made++
	p.call("PUT", "/tickets/"+id, map[string]any{"title": fmt.Sprintf("Change %d", p.made)})
}

// change makes one change: mostly to a ticket that is there.
func (p *pipelines) change() {
	p.t.Helper()
	id := p.pick()
	put := func(path string, body map[string]any) {
		p.made++
		p.call("PUT", "/tickets/"+id+path, body)
	}
	switch n := p.random.IntN(100); {
	case n < 40:
		p.edit(id)
	case n < 60: // closes, or opens again
		is := p.call("GET", "/tickets/"+id, nil)["data"].(map[string]any)["status_id"]
		to := []string{"Open", "Closed", "In Progress", "Closed"}[p.random.IntN(4)]
		if is == p.tenant.Statuses[to] {
			to = "Waiting on Client"
		}
		if is == p.tenant.Statuses[to] {
			to = "Closed"
		}
		put("", map[string]any{"status_id": p.tenant.Statuses[to]})
	case n < 72: // assigns, or takes away
		var to any = p.tenant.UserID
		if p.call("GET", "/tickets/"+id, nil)["data"].(map[string]any)["assigned_to"] != nil {
			to = nil
		}
		put("/assignment", map[string]any{"assigned_to": to})
	case n < 88:
		p.made++
		p.call("POST", "/tickets/"+id+"/comments", map[string]any{"comment_text": fmt.Sprintf("Comment %d", p.made)})
	case n < 95 || len(p.ids) < 6 || p.keeps:
		p.made++
		p.ids = append(p.ids, p.createTicket())
	case slices.Contains(p.watched, id):
		p.edit(id) // what is polled one by one stays
	default:
		p.made++
		p.deleteTicket(id)
		p.ids = slices.DeleteFunc(p.ids, func(other string) bool { return other == id })
	}
}

// work makes about n changes over d, some of them close together.
func (p *pipelines) work(d time.Duration, n int) {
	p.t.Helper()
	end := time.Now().Add(d)
	for made := p.made + n; p.made < made; {
		left := time.Until(end) / time.Duration(made-p.made+1)
		sleep(left/2 + time.Duration(p.random.Int64N(int64(left)+1)))
		p.change()
		for range p.random.IntN(8) - 4 { // up to three more at once
			sleep(time.Duration(p.random.Int64N(int64(15 * time.Second))))
			p.change()
		}
	}
	sleep(max(0, time.Until(end)))
}

// compare judges the record.
func (p *pipelines) compare() *cutover.Report {
	p.t.Helper()
	synctest.Wait()
	setup, err := cutover.LoadSetup(p.desk.dir)
	if err != nil {
		p.t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(p.desk.dir, cutover.RecordName))
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	report, err := cutover.Compare(cutover.NewReader(f).Entries(), cutover.Question{Setup: setup, Dir: "cutover"})
	if err != nil {
		p.t.Fatal(err)
	}
	return report
}
