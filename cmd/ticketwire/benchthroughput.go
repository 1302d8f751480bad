package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/webhook"
)

// benchTickets is how many tickets the changes of a throughput run fall on.
const benchTickets = 1000

// ahead is how many changes the writers may be ahead of the receiver. A service
// that is slower than its writers then shows how fast it is all in all; how fast
// it works off a long queue is another figure.
func (b *bench) ahead(webhooks int) int { return b.size(10_000, 500) / webhooks }

// benchLoad is a throughput run.
type benchLoad struct {
	name     string
	writers  int
	webhooks int // that get each event
	length   time.Duration
	change   func(ctx context.Context, n int) error // makes one event; n counts from 0
	nodes    []int                                  // processes of the service, besides this one
}

// benchOutcome is what a run of changes came to, from the first call until the
// last attempt was recorded.
type benchOutcome struct {
	changes  int64
	took     time.Duration
	cpu      time.Duration // of this process, the writers included
	nodes    time.Duration // of the processes of the load
	database time.Duration // of the server of the database; 0 where it is not known
	rss      float64       // highest, in MB
}

func (o benchOutcome) perSecond() float64 { return float64(o.changes) / o.took.Seconds() }

// cpuPerChange is in microseconds.
func (o benchOutcome) cpuPerChange() float64 { return 1000 * o.perThousand(o.cpu) }

// perThousand is the share of 1,000 changes in what something used, in seconds.
func (o benchOutcome) perThousand(used time.Duration) float64 {
	return 1000 * used.Seconds() / float64(max(1, o.changes))
}

// run makes changes for the length of the load, waits until they are delivered
// and recorded, and checks that every one of them arrived.
func (s *benchScene) run(ctx context.Context, l benchLoad) (o benchOutcome, err error) {
	usage := func() (own, nodes, database time.Duration) {
		for _, pid := range l.nodes {
			nodes += processCPU(pid)
		}
		if s.server != nil {
			database = serverCPU(s.server.Process)
		}
		return cpuTime(), nodes, database
	}
	own, nodes, database := usage()
	begun := time.Now()
	peak := watchMemory(ctx)
	o.changes, err = s.drive(ctx, l)
	if err == nil {
		err = s.settle(ctx, o.changes*int64(l.webhooks))
	}
	o.took, o.rss = time.Since(begun), peak()
	o.cpu, o.nodes, o.database = usage()
	o.cpu, o.nodes, o.database = o.cpu-own, o.nodes-nodes, o.database-database
	if err != nil {
		return o, err
	}
	return o, s.judge(ctx, l.name, o.changes, l.webhooks)
}

// judge adds what was lost and what came twice to the report.
func (s *benchScene) judge(ctx context.Context, name string, changes int64, webhooks int) error {
	s.b.show.note("checking that every event arrived")
	lost, duplicated, err := s.verify(ctx, changes, webhooks)
	if err != nil {
		return fmt.Errorf("check what arrived: %w", err)
	}
	s.b.report.count(name, lost, duplicated)
	return nil
}

// drive makes changes from all writers and returns how many were acknowledged.
func (s *benchScene) drive(ctx context.Context, l benchLoad) (int64, error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	timed, cancel := context.WithTimeout(ctx, l.length)
	defer cancel()
	ahead := make(chan struct{}, s.b.ahead(l.webhooks))
	var watcher, writers sync.WaitGroup
	watcher.Go(func() {
		if err := s.follow(timed, ahead, int64(l.webhooks)); err != nil {
			fail(err)
		}
	})
	var begun, done atomic.Int64
	for range l.writers {
		writers.Go(func() {
			for {
				select {
				case ahead <- struct{}{}:
				case <-timed.Done():
					return
				}
				if timed.Err() != nil {
					return
				}
				// Not with the timed context: a change that was begun is counted.
				if err := l.change(ctx, int(begun.Add(1))-1); err != nil {
					fail(err)
					return
				}
				done.Add(1)
			}
		})
	}
	writers.Wait()
	cancel()
	watcher.Wait()
	return done.Load(), context.Cause(ctx)
}

// follow takes one out of ahead for every event that has arrived at all of its
// webhooks, until ctx ends.
func (s *benchScene) follow(ctx context.Context, ahead chan struct{}, webhooks int64) error {
	delivered := int64(0)
	for pause(ctx, 5*time.Millisecond) == nil {
		got, err := s.b.hook.count(ctx)
		if err != nil && ctx.Err() == nil {
			return err
		}
		for ; delivered < got/webhooks; delivered++ {
			select {
			case <-ahead:
			case <-ctx.Done():
				return nil
			}
		}
		s.b.show.note("%d changes delivered", delivered)
	}
	return nil
}

// throughput makes a scene with one webhook for everything and runs a load on it.
func (b *bench) throughput(ctx context.Context, prepare func(*benchScene) benchLoad) (o benchOutcome, err error) {
	s, err := b.open(ctx, benchSetting{tickets: benchTickets, perWebhook: benchSlots})
	if err != nil {
		return o, err
	}
	defer closeScene(s, &err)
	if err := s.subscribe(ctx, s.subscription(benchPost)); err != nil {
		return o, err
	}
	if err := s.play(ctx); err != nil {
		return o, err
	}
	l := prepare(s)
	l.webhooks, l.length = 1, b.length
	return s.run(ctx, l)
}

// closeScene closes s and keeps the first error.
func closeScene(s *benchScene, err *error) {
	if cerr := s.close(); cerr != nil && *err == nil {
		*err = cerr
	}
}

// engine is figure (a): the store and the dispatcher without HTTP in front.
func (b *bench) engine(ctx context.Context) error {
	o, err := b.throughput(ctx, func(s *benchScene) benchLoad {
		return benchLoad{name: "engine", writers: 64, change: s.touchNext}
	})
	if err != nil {
		return err
	}
	b.report.EnginePerS = new(o.perSecond())
	b.report.CPUPer1000 = new(o.perThousand(o.cpu))
	if o.database > 0 {
		b.report.DatabaseCPUPer1000 = new(o.perThousand(o.database))
	}
	b.report.RSSMB = new(o.rss)
	return nil
}

// api is figure (b): the same over HTTP.
func (b *bench) api(ctx context.Context) error {
	o, err := b.throughput(ctx, func(s *benchScene) benchLoad {
		return benchLoad{name: "api", writers: 32, change: func(ctx context.Context, n int) error {
			return s.put(ctx, s.tickets[n%len(s.tickets)], fmt.Sprintf("Label printer is offline, note %d", n))
		}}
	})
	if err == nil {
		b.report.APIPerS = new(o.perSecond())
	}
	return err
}

// drain is figure (c): what was committed before the dispatcher started.
func (b *bench) drain(ctx context.Context) (err error) {
	s, err := b.open(ctx, benchSetting{tickets: benchTickets, perWebhook: benchSlots})
	if err != nil {
		return err
	}
	defer closeScene(s, &err)
	if err := s.subscribe(ctx, s.subscription(benchPost)); err != nil {
		return err
	}
	n := b.size(300_000, 3_000)
	b.show.note("queueing %d changes", n)
	if err := inParallel(ctx, 64, n, s.touchNext); err != nil {
		return err
	}
	b.show.note("draining %d changes", n)
	begun := time.Now()
	if err := s.play(ctx); err != nil {
		return err
	}
	if err := s.settle(ctx, int64(n)); err != nil {
		return err
	}
	took := time.Since(begun)
	if err := s.judge(ctx, "drain", int64(n), 1); err != nil {
		return err
	}
	b.report.Backlog, b.report.DrainPerS = n, new(float64(n)/took.Seconds())
	return nil
}

// bare is the yardstick: the same POSTs with nothing behind them. It is measured
// twice for half a run each, and the mean counts.
func (b *bench) bare(ctx context.Context) error {
	body, err := b.sampleBody(ctx)
	if err != nil {
		return err
	}
	transport := &http.Transport{MaxIdleConnsPerHost: benchInFlight, DisableCompression: true, WriteBufferSize: 8 << 10}
	defer transport.CloseIdleConnections()
	timed, cancel := context.WithTimeout(ctx, b.length/2)
	defer cancel()
	var sent atomic.Int64
	begun := time.Now()
	err = inParallel(ctx, benchInFlight, benchInFlight, func(ctx context.Context, _ int) error {
		for timed.Err() == nil {
			if err := barePost(ctx, transport, b.hook.url+benchPost, body); err != nil {
				return err
			}
			sent.Add(1)
		}
		return nil
	})
	if err != nil {
		return err
	}
	b.report.bare(len(body), sent.Load(), time.Since(begun))
	got, err := b.hook.count(ctx)
	b.report.count("bare", max(0, sent.Load()-got), 0)
	return err
}

// barePost signs and sends a body as internal/egress would, without its guard,
// deadline and classification. The body is a bytes.Reader, so that it leaves in
// one write with the head.
func barePost(ctx context.Context, t *http.Transport, url string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	id := store.NewID()
	req.Header = http.Header{
		"Content-Type":           {"application/json"},
		"User-Agent":             {"Ticketwire"},
		webhook.SignatureHeader:  {webhook.Sign("whsec_00000000000000000000000000000000", time.Now(), body)},
		webhook.WebhookIDHeader:  {id},
		webhook.EventIDHeader:    {id},
		webhook.EventTypeHeader:  {webhook.TicketUpdated},
		webhook.DeliveryIDHeader: {id},
		webhook.AttemptHeader:    {"1"},
	}
	res, err := t.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the receiver answered %s", res.Status)
	}
	return nil
}

// sampleBody is the body of a delivery as the service makes it.
func (b *bench) sampleBody(ctx context.Context) (body []byte, err error) {
	s, err := b.open(ctx, benchSetting{tickets: 1})
	if err != nil {
		return nil, err
	}
	defer closeScene(s, &err)
	if err := s.touchNext(ctx, 0); err != nil {
		return nil, err
	}
	err = s.events(ctx, func(envelope []byte) error {
		body = bytes.Clone(envelope)
		return nil
	})
	return body, err
}
