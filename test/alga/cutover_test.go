package alga_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ticketwire/ticketwire/internal/cutover"
	"github.com/ticketwire/ticketwire/internal/receiver"
	"github.com/ticketwire/ticketwire/test/alga"
	"github.com/ticketwire/ticketwire/test/pipe"
	"github.com/ticketwire/ticketwire/webhook"
)

// parallel is a cutover beside AlgaPSA: poller, collector and the ready-made
// receiver. It notes which events each change had.
type parallel struct {
	*place
	dir     string // of the cutover
	hook    string
	secret  string
	random  *rand.Rand
	ids     []string
	polls   *polling
	record  *cutover.Record
	inbox   string
	refetch bool
	down    func()       // ends the receiver
	refuse  atomic.Int64 // so many more requests, or all if it is negative
	hold    atomic.Bool  // the next event

	all  []*made
	lose bool          // the events of the next changes
	lost cutover.Class // what a loss of the next changes has to be
	fast bool          // the next changes are in a burst with losses

	hmu    sync.Mutex
	behind *pipe.Listener
	front  func() int // a status in the receiver's place; nil or 0 for none
	mirror map[string]mirrored
}

// made is a change and the numbers of its events.
type made struct {
	ticket      string
	updated     time.Time
	first, last int
	ifLost      cutover.Class // what a loss of all its events has to be
	doubt       bool          // it can be U all the same: nobody can tell which of two quick changes an old payload is about
}

// mirrored is a ticket as the receiver's program has it.
type mirrored struct {
	at     time.Time
	title  string
	status string
}

// startParallel starts everything, on a Sunday.
func startParallel(t *testing.T, cfg alga.Config, refetch bool) *parallel {
	time.Sleep(37 * time.Hour) // bubbles begin on a Saturday
	var c *parallel
	copies := rand.New(rand.NewPCG(cfg.Seed, 3))
	cfg.Fate = func(alga.Event) alga.Fate {
		switch {
		case c == nil:
			return alga.Fate{}
		case c.lose:
			return alga.Fate{Lose: true}
		case c.hold.CompareAndSwap(true, false):
			return alga.Fate{Hold: 20 * time.Second}
		default:
			return alga.Fate{Copies: copies.IntN(20) / 19}
		}
	}
	desk := start(t, cfg)
	c = &parallel{
		place: desk, dir: t.TempDir(), inbox: t.TempDir(), random: rand.New(rand.NewPCG(cfg.Seed, 2)), refetch: refetch,
		mirror: map[string]mirrored{},
	}
	c.hook, c.secret = c.Subscribe(hookURL, 0)
	for range 8 {
		c.ids = append(c.ids, c.Create("Printer"))
	}
	time.Sleep(2 * time.Minute) // what nobody listened to is tried again later
	clock, err := cutover.ServerClock(t.Context(), c.URL, alga.Key, c.http, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	setup := &cutover.Setup{
		Server: c.URL, WebhookID: c.hook, Interval: 60, Started: clock,
		Turns: []cutover.Turn{{At: time.Now(), From: clock, Side: cutover.SidePoller}},
	}
	if err := setup.Save(c.dir); err != nil {
		t.Fatal(err)
	}
	if c.record, err = cutover.OpenRecord(c.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.record.Close() })
	c.place.listen(http.HandlerFunc(c.pass))
	c.receive()
	c.polls = c.poll(c.dir, 0.35)
	collector, err := cutover.OpenCollector(c.collecting())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- collector.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, collector.Close()); err != nil {
			t.Error(err)
		}
		c.polls.stop()
		c.down()
	})
	time.Sleep(2 * time.Minute)
	return c
}

func (c *parallel) collecting() cutover.CollectorConfig {
	setup, err := cutover.LoadSetup(c.dir)
	if err != nil {
		c.t.Fatal(err)
	}
	return cutover.CollectorConfig{
		URL: c.URL, Key: alga.Key, HTTP: c.http, Dir: c.dir, WebhookID: c.hook, Since: setup.Started,
		Interval: 5 * time.Minute, Budget: 0.15, Now: time.Now,
	}
}

// receive starts the receiver.
func (c *parallel) receive() {
	c.t.Helper()
	behind := pipe.Listen()
	cfg := receiver.Config{
		Listener: behind, DataDir: c.inbox, Secrets: webhook.NewSecretList(c.secret).All, SecretFrom: "file",
		React: c.react, Record: c.record, Silence: receiver.LearnSilence, Log: quiet(), Now: time.Now,
	}
	if c.refetch {
		cfg.Refetch = c.api
	}
	cfg.Refuse = func(*webhook.Envelope) bool {
		switch left := c.refuse.Load(); {
		case left > 0:
			c.refuse.Add(-1)
			return true
		default:
			return left < 0
		}
	}
	r, err := receiver.New(c.t.Context(), cfg)
	if err == nil {
		err = r.Start(c.t.Context())
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.hmu.Lock()
	c.behind = behind
	c.hmu.Unlock()
	c.down = sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := r.Stop(ctx); err != nil {
			c.t.Error(err)
		}
	})
}

// react keeps each ticket as the receiver's program has it: as it is now where it
// reads the ticket again, and else as the newest event says.
func (c *parallel) react(_ context.Context, e *receiver.Event) error {
	d, err := e.Ticket()
	if err != nil {
		return err
	}
	c.hmu.Lock()
	defer c.hmu.Unlock()
	m := mirrored{at: e.OccurredAt.Time, title: *d.Title, status: *d.StatusID}
	switch {
	case e.Refetched && e.Current == nil:
		delete(c.mirror, d.TicketID)
		return nil
	case e.Refetched:
		m.title, m.status = *e.Current.Title, *e.Current.StatusID
	case m.at.Before(c.mirror[d.TicketID].at):
		return nil
	}
	c.mirror[d.TicketID] = m
	return nil
}

// pass is what is before the receiver.
func (c *parallel) pass(w http.ResponseWriter, r *http.Request) {
	c.hmu.Lock()
	front, behind := c.front, c.behind
	c.hmu.Unlock()
	if front != nil {
		if status := front(); status != 0 {
			w.WriteHeader(status)
			return
		}
	}
	(&httputil.ReverseProxy{
		Rewrite:      func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "behind.example" },
		Transport:    &http.Transport{DialContext: behind.Dial, DisableKeepAlives: true},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ErrorLog:     log.New(io.Discard, "", 0),
	}).ServeHTTP(w, r)
}

// stands replaces what is before the receiver.
func (c *parallel) stands(front func() int) {
	c.hmu.Lock()
	defer c.hmu.Unlock()
	c.front = front
}

// change makes a change of some ticket, in any of the ways, and notes it.
func (c *parallel) change() *made { return c.changeOf(c.ids[c.random.IntN(len(c.ids))]) }

func (c *parallel) changeOf(id string) *made {
	c.t.Helper()
	m := &made{ticket: id, first: len(c.Events()) + 1, ifLost: c.lost, doubt: c.fast}
	via := []alga.Via{alga.REST, alga.WebUI}[c.random.IntN(2)]
	switch n := c.random.IntN(100); {
	case n < 45:
		c.Update(via, alga.Change{Title: ptr(fmt.Sprintf("Change %d", len(c.all)))}, id)
	case n < 65:
		c.Update(via, alga.Change{Status: ptr([]string{alga.Open, alga.InProgress, alga.Resolved, alga.Closed}[c.random.IntN(4)])}, id)
	case n < 75:
		c.Update(via, alga.Change{Assign: ptr([]string{alga.Mara, alga.Jonas, ""}[c.random.IntN(3)])}, id)
	case n < 95:
		c.Comment(id, fmt.Sprintf("comment %d", len(c.all)), n%2 == 0)
	default:
		m.ticket = c.Create(fmt.Sprintf("New %d", len(c.all)))
		c.ids = append(c.ids, m.ticket)
	}
	m.last = len(c.Events())
	now, err := c.api.Ticket(c.t.Context(), m.ticket)
	if err != nil {
		c.t.Fatal(err)
	}
	m.updated = *now.UpdatedAt
	c.all = append(c.all, m)
	return m
}

// work makes about n changes over d, some of them so close together that payloads
// are stale.
func (c *parallel) work(d time.Duration, n int) {
	c.t.Helper()
	end := time.Now().Add(d)
	for done := len(c.all) + n; len(c.all) < done; {
		left := time.Until(end) / time.Duration(done-len(c.all)+1)
		time.Sleep(left/2 + time.Duration(c.random.Int64N(int64(left)+1)))
		c.change()
		for range c.random.IntN(8) - 4 {
			time.Sleep(time.Second + time.Duration(c.random.Int64N(int64(20*time.Second))))
			c.change()
		}
	}
	time.Sleep(max(0, time.Until(end)))
}

// reconcile makes one sweep of a reconciler, which says in the record that there is one.
func (c *parallel) reconcile(change func(*cutover.SweeperConfig)) cutover.Sweep {
	c.t.Helper()
	cfg := cutover.SweeperConfig{URL: c.URL, Key: alga.Key, HTTP: c.http, Dir: c.dir, Every: 15 * time.Minute, Budget: 0.25, Now: time.Now}
	if change != nil {
		change(&cfg)
	}
	s, err := cutover.OpenSweeper(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	defer s.Close()
	sweep, err := s.Sweep(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	return sweep
}

// finish does what the command does before it takes the turn: it sweeps and judges.
func (c *parallel) finish() *cutover.Report {
	c.t.Helper()
	if n, err := cutover.ClosingSweep(c.t.Context(), c.collecting()); err != nil || n == 0 {
		c.t.Fatalf("the closing sweep read %d tickets, %v", n, err)
	}
	return c.compare()
}

func (c *parallel) compare() *cutover.Report {
	c.t.Helper()
	synctest.Wait()
	setup, err := cutover.LoadSetup(c.dir)
	if err != nil {
		c.t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(c.dir, cutover.RecordName))
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	report, err := cutover.Compare(cutover.NewReader(f).Entries(), cutover.Question{Setup: setup, Dir: "cutover"})
	if err != nil {
		c.t.Fatal(err)
	}
	return report
}

func (c *parallel) show(r *cutover.Report) {
	c.t.Helper()
	var text bytes.Buffer
	if err := r.WriteText(&text); err != nil {
		c.t.Fatal(err)
	}
	c.t.Log(text.String())
}

// told says of each change whether the receiver was told of it by the webhook.
func (c *parallel) told() map[[2]string]bool {
	delivered := map[int]bool{}
	for _, d := range c.Deliveries() {
		delivered[d.Event.N] = delivered[d.Event.N] || d.State == "delivered"
	}
	out := map[[2]string]bool{}
	for _, m := range c.all {
		for n := m.first; n <= m.last; n++ {
			if delivered[n] {
				out[m.key()] = true
			}
		}
		out[m.key()] = out[m.key()]
	}
	return out
}

func (m *made) key() [2]string {
	return [2]string{m.ticket, m.updated.UTC().Format(time.RFC3339Nano)}
}

// check wants every change that the webhook told of to be seen as caught, and no
// other one: what was lost is never explained. It returns how many were lost.
func (c *parallel) check(r *cutover.Report) map[cutover.Class]int {
	c.t.Helper()
	told := c.told()
	changes := map[[2]string]*made{}
	for _, m := range c.all {
		changes[m.key()] = m
	}
	caught := []cutover.Class{cutover.WebhookFirst, cutover.PollerFirstR, cutover.PollerFirstS}
	lost := map[cutover.Class]int{}
	for _, row := range r.Rows {
		if row.Kind != cutover.ChangeSeen || row.UpdatedAt.IsZero() || row.Class == cutover.Unsettled {
			continue
		}
		key := [2]string{row.Ticket, row.UpdatedAt.UTC().Format(time.RFC3339Nano)}
		was, m := told[key], changes[key]
		if m == nil {
			c.t.Errorf("%s: no such change was made", row)
			continue
		}
		if is := slices.Contains(caught, row.Class); is != was && !(was && m.doubt && row.Class == cutover.Unexplained) {
			c.t.Errorf("%s: the webhook told of it: %t", row, was)
		}
		if !was {
			lost[row.Class]++
			if row.Class != m.ifLost {
				c.t.Errorf("%s: want %s", row, m.ifLost)
			}
		}
	}
	return lost
}

// backfill brings the receiver what it does not have, by the list of tickets.
func (c *parallel) backfill() *cutover.BackfillReport {
	c.t.Helper()
	b, err := cutover.OpenBackfill(cutover.BackfillConfig{
		URL: c.URL, Key: alga.Key, HTTP: c.http, Dir: c.dir, Budget: 0.5, To: "receiver", Now: time.Now,
		Send: func(ctx context.Context, body []byte, attempt int) cutover.Reply {
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, hookURL, bytes.NewReader(body))
			if err != nil {
				c.t.Error(err)
				return cutover.Reply{}
			}
			var e webhook.Envelope
			if err := json.Unmarshal(body, &e); err != nil {
				c.t.Error(err)
			}
			for name, value := range map[string]string{
				webhook.SignatureHeader: webhook.Sign(c.secret, time.Now(), body), webhook.EventIDHeader: e.EventID, webhook.EventTypeHeader: e.EventType,
				webhook.WebhookIDHeader: "of a backfill", webhook.AttemptHeader: strconv.Itoa(attempt),
			} {
				r.Header.Set(name, value)
			}
			w := httptest.NewRecorder()
			c.pass(w, r)
			return cutover.Reply{OK: w.Code < 300, Status: w.Code, Text: w.Body.String()}
		},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	plan, err := b.Look(c.t.Context())
	var out *cutover.BackfillReport
	if err == nil {
		out, err = b.Run(c.t.Context(), plan)
	}
	if err = errors.Join(err, b.Close()); err != nil {
		c.t.Fatal(err)
	}
	time.Sleep(5 * time.Minute)
	return out
}

// agrees compares what the receiver's program has with the desk.
func (c *parallel) agrees() {
	c.t.Helper()
	c.hmu.Lock()
	defer c.hmu.Unlock()
	for _, id := range c.ids {
		now, err := c.api.Ticket(c.t.Context(), id)
		if err != nil {
			c.t.Fatal(err)
		}
		if m := c.mirror[id]; m.title != *now.Title || m.status != *now.StatusID {
			c.t.Errorf("ticket %s: the receiver has %+v, the desk %s, %s", id, m, *now.Title, *now.StatusID)
		}
	}
}
