package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ticketwire/ticketwire/internal/store"
)

// A replay does not run ahead of its webhook: new events wait behind what it has
// queued. So it keeps no more rows due than the webhook works off between two
// looks at it, which it finds out by trying.
const (
	replayPause = 250 * time.Millisecond // between two looks
	firstLead   = 64                     // rows that may be due at the first
	maxLead     = 1000                   // and at any
	replayTurn  = 16                     // pages of the feed before it is the next job's turn
)

// pace is how a replay goes on.
type pace struct {
	lead int       // rows of the webhook that may be due
	next time.Time // when it is its turn again
	more bool      // it has room left and goes on at once
}

// replay lets the running replays go on, in turn.
func (e *Engine) replay() {
	paces := map[string]pace{} // by replay
	e.job("replay", e.sched.intake.replays, func(ctx context.Context) (time.Time, error) {
		running, err := e.cfg.Store.RunningReplays(ctx)
		if err != nil {
			return time.Time{}, fmt.Errorf("look for replays: %w", err)
		}
		left := map[string]pace{}
		next := time.Time{}
		var errs []error
		for i := range running {
			r := &running[i]
			p, known := paces[r.ReplayID]
			if !known {
				p = pace{lead: firstLead}
			}
			if !e.cfg.Now().Before(p.next) {
				if err := e.replaySome(ctx, r, &p); err != nil {
					errs = append(errs, fmt.Errorf("replay %s of webhook %s: %w", r.ReplayID, r.WebhookID, err))
				}
			}
			if r.Status != "running" {
				e.cfg.Log.Info("replay ended", "tenant", r.TenantID, "webhook", r.WebhookID, "replay", r.ReplayID,
					"status", r.Status, "queued", r.Queued, "skipped", r.Skipped)
				continue
			}
			left[r.ReplayID] = p
			if next.IsZero() || p.next.Before(next) {
				next = p.next
			}
		}
		paces = left
		return next, errors.Join(errs...)
	})
}

// replaySome queues what a replay may queue now, and leaves its new state in r
// and p.
func (e *Engine) replaySome(ctx context.Context, r *store.Replay, p *pace) error {
	now := e.cfg.Now()
	p.next = now.Add(replayPause)
	due, limit, err := e.cfg.Store.DueIn(ctx, now, r.Lane(), maxLead)
	if err != nil {
		return err
	}
	switch {
	case p.more: // nothing can be told from what was queued just now
	case due == 0:
		p.lead = min(2*p.lead, maxLead)
	case due > p.lead/2:
		p.lead = max(p.lead/2, 1)
	}
	// A bucket that is full would let more through at first, and what was queued
	// too much would hold up new events for as long as it takes to refill.
	if perMinute, _, limited := limit.PerMinute(); limited {
		p.lead = min(p.lead, perMinute/60+1)
	}
	p.more = false
	room := p.lead - due
	for range replayTurn {
		if room <= 0 {
			return nil
		}
		queued := r.Queued
		after, err := e.cfg.Store.ReplayNext(ctx, now, r.TenantID, r.ReplayID, room)
		if err != nil {
			return err
		}
		*r = after
		if r.Status != "running" {
			return nil
		}
		room -= r.Queued - queued
	}
	if room > 0 {
		p.more, p.next = true, now
	}
	return nil
}
