package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// eventCost is what one event costs with so many webhooks of which 10 match.
type eventCost struct {
	Webhooks int     `json:"webhooks"`
	CPUUS    float64 `json:"cpu_us"` // of this process, deliveries to the 10 included
	PerS     float64 `json:"events_per_s"`
}

// startup is a start of serve on a data directory with so many deliveries owed.
type startup struct {
	Pending int64   `json:"pending"`
	ReadyMS float64 `json:"ready_ms"` // from the start of the process until it serves
	FirstMS float64 `json:"first_delivery_ms"`
	RSSMB   float64 `json:"rss_mb"` // highest in the first seconds of draining; 0 where it is not known
}

// matching is how many of the webhooks want an event.
const matching = 10

// webhooks is the first half of figure (g). The webhooks that do not match are
// subscribed to the event's type and filter for tickets of their own, as
// integrations do that watch a few tickets each.
func (b *bench) webhooks(ctx context.Context) error {
	sizes := []int{matching, 1_000, 100_000}
	if b.cmd.Quick {
		sizes = []int{matching, b.size(0, 50), b.size(0, 250)}
	}
	for _, n := range sizes {
		c, err := b.eventCost(ctx, n)
		if err != nil {
			return err
		}
		b.report.EventCost = append(b.report.EventCost, c)
	}
	return nil
}

func (b *bench) eventCost(ctx context.Context, n int) (c eventCost, err error) {
	s, err := b.open(ctx, benchSetting{tickets: benchTickets, webhooks: n})
	if err != nil {
		return c, err
	}
	defer closeScene(s, &err)
	err = s.subscribeMany(ctx, n, func(i int) []string {
		if i < matching {
			return nil
		}
		return []string{store.NewID()}
	})
	if err != nil {
		return c, err
	}
	if err := s.play(ctx); err != nil {
		return c, err
	}
	// The first event reads the subscriptions.
	if err := s.touchNext(ctx, 0); err != nil {
		return c, err
	}
	if err := s.settle(ctx, matching); err != nil {
		return c, err
	}
	if err := errors.Join(s.mark(ctx), b.hook.reset(ctx)); err != nil {
		return c, err
	}
	b.show.note("%d webhooks", n)
	o, err := s.run(ctx, benchLoad{
		name: "webhooks", writers: 32, webhooks: matching, length: b.length / 4, change: s.touchNext,
	})
	return eventCost{Webhooks: n, CPUUS: o.cpuPerChange(), PerS: o.perSecond()}, err
}

// owing is how many webhooks share the deliveries that rows makes.
const owing = 100

// rows is the second half of figure (g): start-up with more and more pending
// deliveries, and then throughput behind as many rows of history.
//
// The deliveries are owed as in real life, and it is a hundred webhooks wanting
// each event that makes it quick. The history consists of deliveries that were
// given up: rows of the same table and indexes as delivered ones.
func (b *bench) rows(ctx context.Context) error {
	dir := b.sceneDir()
	for _, n := range []int{b.size(1_000_000, 2_000), b.size(10_000_000, 8_000)} {
		pending, err := b.owe(ctx, dir, int64(n))
		if err != nil {
			return err
		}
		if err := b.hook.reset(ctx); err != nil {
			return err
		}
		b.show.note("starting with %d pending deliveries", pending)
		at, err := b.startup(ctx, dir)
		if err != nil {
			return err
		}
		at.Pending = pending
		b.report.Startup = append(b.report.Startup, at)
	}
	return b.history(ctx, dir)
}

// owe fills the data directory until about n deliveries are pending, and returns
// how many are.
func (b *bench) owe(ctx context.Context, dir string, n int64) (pending int64, err error) {
	s, err := b.open(ctx, benchSetting{dir: dir, tickets: benchTickets, webhooks: owing})
	if err != nil {
		return 0, err
	}
	defer closeScene(s, &err)
	if err := s.subscribeMany(ctx, owing, func(int) []string { return nil }); err != nil {
		return 0, err
	}
	before, err := s.store.Backlog(ctx, time.Now())
	if err != nil {
		return 0, err
	}
	events := int(max(0, n-before.Pending) / owing)
	err = inParallel(ctx, 64, events, func(ctx context.Context, i int) error {
		if i%100 == 0 {
			b.show.note("queueing %d of %d deliveries", before.Pending+int64(i)*owing, n)
		}
		return s.touchNext(ctx, i)
	})
	if err != nil {
		return 0, err
	}
	after, err := s.store.Backlog(ctx, time.Now())
	return after.Pending, err
}

// startup starts serve as a process of its own, as after a crash, and ends it
// once it has delivered for a while.
func (b *bench) startup(ctx context.Context, dir string) (at startup, err error) {
	cmd, err := benchChild(ctx, "serve", "--data", dir, "--listen", "127.0.0.1:0",
		"--allow-targets", "127.0.0.0/8", "--log-level", "error")
	if err != nil {
		return at, err
	}
	begun := time.Now()
	if _, err := startChild(cmd); err != nil {
		return at, fmt.Errorf("start serve: %w", err)
	}
	defer func() {
		kill := cmd.Process.Kill()
		if exit := cmd.Wait(); kill != nil {
			err = errors.Join(err, kill, exit)
		}
	}()
	at.ReadyMS = milliseconds(time.Since(begun))
	if err := b.hook.await(ctx, 1, time.Minute); err != nil {
		return at, err
	}
	arrivals, err := b.hook.arrivals(ctx)
	if err != nil {
		return at, err
	}
	if len(arrivals) == 0 {
		return at, errors.New("serve delivered nothing within a minute")
	}
	first := time.Now()
	for _, a := range arrivals {
		if t := time.Unix(0, a.first); t.Before(first) {
			first = t
		}
	}
	at.FirstMS = milliseconds(first.Sub(begun))
	if err := pause(ctx, min(b.length/2, 5*time.Second)); err != nil {
		return at, err
	}
	at.RSSMB = peakMemory(cmd.Process.Pid)
	return at, nil
}

// history is an engine run in a data directory where all that was pending has
// been given up.
func (b *bench) history(ctx context.Context, dir string) (err error) {
	s, err := b.open(ctx, benchSetting{dir: dir, tickets: benchTickets, perWebhook: benchInFlight})
	if err != nil {
		return err
	}
	defer closeScene(s, &err)
	rows, err := s.giveUp(ctx)
	if err != nil {
		return err
	}
	if err := s.subscribe(ctx, s.subscription(benchPost)); err != nil {
		return err
	}
	if err := errors.Join(b.hook.reset(ctx), s.play(ctx)); err != nil {
		return err
	}
	b.show.note("%d rows of history", rows)
	o, err := s.run(ctx, benchLoad{name: "history", writers: 64, webhooks: 1, length: b.length, change: s.touchNext})
	if err != nil {
		return err
	}
	b.report.HistoryRows, b.report.HistoryPerS = rows, new(o.perSecond())
	return nil
}

// giveUp turns all that is owed into history and switches off every webhook. It
// returns how many deliveries there were.
func (s *benchScene) giveUp(ctx context.Context) (int64, error) {
	const page = 10_000 // one transaction
	given := int64(0)
	for n := page; n == page; given += int64(n) {
		s.b.show.note("%d rows of history", given)
		var err error
		if n, err = s.store.GiveUp(ctx, time.Now(), page); err != nil {
			return 0, err
		}
	}
	tenants, err := s.store.Tenants(ctx)
	if err != nil {
		return 0, err
	}
	for _, t := range tenants {
		list, _, err := s.store.Webhooks(ctx, t.TenantID, store.WebhookQuery{Page: 1, Limit: owing})
		if err != nil {
			return 0, err
		}
		for _, w := range list {
			_, _, err := s.store.UpdateWebhook(ctx, time.Now(), ticket.Actor{TenantID: t.TenantID}, w.WebhookID,
				func(spec *delivery.Spec) error { spec.IsActive = false; return nil }, false)
			if err != nil {
				return 0, err
			}
		}
	}
	return given, nil
}
