package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/webhook"
)

// benchProbe asks how long an event takes while calls come at a steady rate,
// whether or not earlier ones have been answered.
type benchProbe struct {
	perSecond int
	length    time.Duration
}

// probe makes one PUT after the other on the scene's tickets and returns the
// times from the start of each call to the first byte at the receiver, ascending.
// An event that went to several webhooks counts with the first of them.
func (s *benchScene) probe(ctx context.Context, p benchProbe) ([]time.Duration, error) {
	if err := s.b.hook.reset(ctx); err != nil {
		return nil, err
	}
	if err := s.mark(ctx); err != nil {
		return nil, err
	}
	n := max(1, int(p.length.Seconds()*float64(p.perSecond)))
	begun, err := s.calls(ctx, p, n)
	if err != nil {
		return nil, err
	}
	if err := s.b.hook.await(ctx, int64(n), benchPatience); err != nil {
		return nil, err
	}
	return s.latencies(ctx, begun)
}

// calls makes n calls and returns when each of them began.
func (s *benchScene) calls(ctx context.Context, p benchProbe, n int) ([]time.Time, error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	begun := make([]time.Time, n)
	var all sync.WaitGroup
	tick := time.NewTicker(time.Second / time.Duration(p.perSecond))
	defer tick.Stop()
	for i := range n {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		all.Go(func() {
			begun[i] = time.Now()
			if err := s.put(ctx, s.tickets[i%len(s.tickets)], probeTitle(i)); err != nil {
				fail(err)
			}
		})
	}
	all.Wait()
	return begun, context.Cause(ctx)
}

// probeTitle and probeNumber let an event name the call that caused it.
func probeTitle(n int) string { return fmt.Sprintf("Probe %d", n) }

func probeNumber(envelope []byte) (n int, err error) {
	var e webhook.Envelope
	if err := json.Unmarshal(envelope, &e); err != nil {
		return 0, err
	}
	d, err := e.Ticket()
	if err != nil {
		return 0, err
	}
	_, err = fmt.Sscanf(*d.Title, "Probe %d", &n)
	return n, err
}

// latencies matches arrivals with calls. Calls without an arrival are lost.
func (s *benchScene) latencies(ctx context.Context, begun []time.Time) ([]time.Duration, error) {
	arrivals, err := s.b.hook.arrivals(ctx)
	if err != nil {
		return nil, err
	}
	first := map[[16]byte]int64{}
	duplicated := int64(0)
	for k, a := range arrivals {
		if at, ok := first[k.event]; !ok || a.first < at {
			first[k.event] = a.first
		}
		duplicated += int64(a.copies) - 1
	}
	var out []time.Duration
	err = s.events(ctx, func(envelope []byte) error {
		id, err := benchEventID(envelope)
		if err != nil {
			return err
		}
		at, ok := first[id]
		if !ok {
			return nil
		}
		n, err := probeNumber(envelope)
		if err == nil && n < len(begun) {
			out = append(out, time.Unix(0, at).Sub(begun[n]))
		}
		return err
	})
	s.b.report.count("latency", int64(len(begun)-len(out)), duplicated)
	slices.Sort(out)
	return out, err
}

// percentile is the nearest rank in ascending values, in milliseconds; 0 without
// values.
func percentile(ascending []time.Duration, p float64) float64 {
	if len(ascending) == 0 {
		return 0
	}
	rank := int(math.Ceil(p / 100 * float64(len(ascending))))
	return milliseconds(ascending[max(0, rank-1)])
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// latency is figure (d).
func (b *bench) latency(ctx context.Context) (err error) {
	s, err := b.open(ctx, benchSetting{tickets: 100})
	if err != nil {
		return err
	}
	defer closeScene(s, &err)
	if err := s.subscribe(ctx, s.subscription(benchPost)); err != nil {
		return err
	}
	if err := s.play(ctx); err != nil {
		return err
	}
	b.show.note("50 calls per second")
	times, err := s.probe(ctx, benchProbe{perSecond: 50, length: b.length})
	if err != nil {
		return err
	}
	b.report.LatencyP50 = new(percentile(times, 50))
	b.report.LatencyP99 = new(percentile(times, 99))
	return nil
}

// fanout is figure (e).
func (b *bench) fanout(ctx context.Context) (err error) {
	s, err := b.open(ctx, benchSetting{tickets: 2, webhooks: 1010})
	if err != nil {
		return err
	}
	defer closeScene(s, &err)
	sizes := []int{10, 1000}
	for i, n := range sizes {
		if err := s.subscribeMany(ctx, n, func(int) []string { return s.tickets[i : i+1] }); err != nil {
			return err
		}
	}
	if err := s.play(ctx); err != nil {
		return err
	}
	for i, into := range []**float64{&b.report.Fanout10, &b.report.Fanout1000} {
		b.show.note("one event to %d webhooks", sizes[i])
		took, err := s.spread(ctx, s.tickets[i], sizes[i])
		if err != nil {
			return err
		}
		*into = &took
	}
	return nil
}

// spread returns the median time, in milliseconds, from the start of a change to
// its arrival at the last of its webhooks.
func (s *benchScene) spread(ctx context.Context, id string, webhooks int) (float64, error) {
	var times []time.Duration
	for range 3 {
		if err := s.b.hook.reset(ctx); err != nil {
			return 0, err
		}
		if err := s.mark(ctx); err != nil {
			return 0, err
		}
		begun := time.Now()
		if err := s.touch(ctx, id); err != nil {
			return 0, err
		}
		if err := s.settle(ctx, int64(webhooks)); err != nil {
			return 0, err
		}
		arrivals, err := s.b.hook.arrivals(ctx)
		if err != nil {
			return 0, err
		}
		last := begun
		for _, a := range arrivals {
			if at := time.Unix(0, a.first); at.After(last) {
				last = at
			}
		}
		times = append(times, last.Sub(begun))
		if err := s.judge(ctx, "fanout", 1, webhooks); err != nil {
			return 0, err
		}
	}
	slices.Sort(times)
	return percentile(times, 50), nil
}

// neighbour is figure (f): 100 webhooks, each for a ticket of its own, get 200
// events a second between them after a burst of many more; alone, and beside one
// that gets all of them too, and never answers. The two take turns, each on a
// service of its own, so that a machine that is slow for some seconds is slow for
// both. The p99 is made by the few events that met a slow sync of the disk: with
// sixty of them the ratio lies between 0.9 and 1.4 by chance, so turns are long.
func (b *bench) neighbour(ctx context.Context) error {
	turns, length := 3, b.length
	if b.cmd.Quick {
		turns, length = 2, 2*b.length
	}
	b.report.DeadQueue = b.size(20_000, 500)
	p := benchProbe{perSecond: 200, length: length}
	var alone, beside []time.Duration
	for range turns {
		for _, dead := range []bool{false, true} {
			times, err := b.healthy(ctx, p, dead)
			if err != nil {
				return err
			}
			if dead {
				beside = append(beside, times...)
			} else {
				alone = append(alone, times...)
			}
		}
	}
	slices.Sort(alone)
	slices.Sort(beside)
	b.report.NeighbourAloneP99 = new(percentile(alone, 99))
	b.report.NeighbourP99 = new(percentile(beside, 99))
	return nil
}

// healthy probes 100 healthy webhooks, with or without a dead one beside them.
func (b *bench) healthy(ctx context.Context, p benchProbe, dead bool) (times []time.Duration, err error) {
	const webhooks = 100
	s, err := b.open(ctx, benchSetting{tickets: webhooks, webhooks: webhooks + 1})
	if err != nil {
		return nil, err
	}
	defer closeScene(s, &err)
	if err := s.subscribeMany(ctx, webhooks, func(i int) []string { return s.tickets[i : i+1] }); err != nil {
		return nil, err
	}
	if err := s.play(ctx); err != nil {
		return nil, err
	}
	if dead {
		spec := s.subscription(benchHang)
		if b.cmd.Quick { // the shortest there is, so that there are deadlines to meet within the run
			spec.RetryConfig = &delivery.RetryConfig{Timeout: new(int64(1000))}
		}
		if err := s.subscribe(ctx, spec); err != nil {
			return nil, err
		}
	}
	if err := b.hook.reset(ctx); err != nil {
		return nil, err
	}
	// The burst comes in both, so that all that differs is whose queue it is in.
	b.show.note("%d changes for %d webhooks", b.report.DeadQueue, webhooks)
	if err := inParallel(ctx, 64, b.report.DeadQueue, s.touchNext); err != nil {
		return nil, err
	}
	// What the burst has brought must not count for what comes: the probe would
	// begin, and take in, before the last of it has arrived.
	if err := b.hook.await(ctx, int64(b.report.DeadQueue), benchPatience); err != nil { // at the healthy ones
		return nil, err
	}
	b.show.note("200 calls per second for them, dead neighbour: %t", dead)
	return s.probe(ctx, p)
}
