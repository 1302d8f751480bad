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

// replay lets the running replays go on, in turn.
func (e *Engine) replay() {
	leads := map[string]int{} // by replay
	e.job("replay", e.sched.intake.replays, func(ctx context.Context) (time.Time, error) {
		running, err := e.cfg.Store.RunningReplays(ctx)
		if err != nil {
			return time.Time{}, fmt.Errorf("look for replays: %w", err)
		}
		left := map[string]int{}
		next := time.Time{}
		var errs []error
		for i := range running {
			r := &running[i]
			lead, ok := leads[r.ReplayID]
			if !ok {
				lead = firstLead
			}
			turn, err := e.replaySome(ctx, r, lead)
			if err != nil {
				errs = append(errs, fmt.Errorf("replay %s of webhook %s: %w", r.ReplayID, r.WebhookID, err))
			}
			if r.Status != "running" {
				e.cfg.Log.Info("replay ended", "tenant", r.TenantID, "webhook", r.WebhookID, "replay", r.ReplayID,
					"status", r.Status, "queued", r.Queued, "skipped", r.Skipped)
				continue
			}
			left[r.ReplayID] = turn.lead
			at := e.cfg.Now()
			if !turn.more {
				at = at.Add(replayPause)
			}
			if next.IsZero() || at.Before(next) {
				next = at
			}
		}
		leads = left
		return next, errors.Join(errs...)
	})
}

// turn is how a replay stands when the next one has its turn.
type turn struct {
	lead int  // rows that it may keep due
	more bool // it has room for more at once
}

// replaySome queues what a replay may queue now, and leaves its new state in r.
func (e *Engine) replaySome(ctx context.Context, r *store.Replay, lead int) (turn, error) {
	due, limit, err := e.cfg.Store.DueIn(ctx, e.cfg.Now(), r.Lane(), maxLead)
	if err != nil {
		return turn{lead: lead}, err
	}
	switch {
	case due == 0:
		lead = min(2*lead, maxLead)
	case due > lead/2:
		lead = max(lead/2, 1)
	}
	// A bucket that is full would let more through at first, and what was queued
	// too much would hold up new events for as long as it takes to refill.
	if perMinute, _, limited := limit.PerMinute(); limited {
		lead = min(lead, perMinute/60+1)
	}
	room := lead - due
	for range replayTurn {
		if room <= 0 {
			return turn{lead: lead}, nil
		}
		queued := r.Queued
		after, err := e.cfg.Store.ReplayNext(ctx, e.cfg.Now(), r.TenantID, r.ReplayID, room)
		if err != nil {
			return turn{lead: lead}, err
		}
		*r = after
		if r.Status != "running" {
			return turn{}, nil
		}
		room -= r.Queued - queued
	}
	return turn{lead: lead, more: room > 0}, nil
}
