package dispatch

import (
	"time"

	"github.com/ticketwire/ticketwire/internal/store"
)

// What the scheduler does because there are other nodes (see internal/store,
// node.go). It is called on the goroutine of run.

// How often the queue is looked at among several nodes, what fell due and all of
// it: each records retries of lanes that have moved to another, and tells others of
// their work by hints that may be lost.
const (
	peerScanEvery     = time.Second
	peerFullScanEvery = 10 * time.Second
)

// outOfOffice is how often a node whose lease has ended looks whether it runs again.
const outOfOffice = 200 * time.Millisecond

// heed takes news of other nodes.
func (s *scheduler) heed(c *store.Committed) {
	if c.Refresh {
		for _, l := range s.lanes {
			l.target, l.stale = nil, l.busy
		}
	}
	if c.Moved {
		for _, l := range s.lanes {
			if !s.e.cfg.Store.Mine(l.id) {
				s.handOn(l)
			}
		}
	}
	if c.Moved || c.Look {
		s.fullScan = time.Time{}
	}
}

// handOn leaves a lane to the node that it belongs to now.
func (s *scheduler) handOn(l *lane) {
	s.putBack(l, len(l.memory))
	l.dirty, l.target, l.stale = false, nil, l.busy
	l.limiter, l.limits = nil, [2]int{}
	s.rest(l)
}

// forgetAll drops what is in memory: another node sends it.
func (s *scheduler) forgetAll() {
	for _, l := range s.lanes {
		s.intake.leave(l.id, l.memory)
		l.drop(len(l.memory))
		l.dirty = true
		s.rest(l)
	}
	s.fullScan = time.Time{}
}

// lookSoon makes the next look at the queue early: another node may have recorded
// a failure of a lane of ours, or a hint may be lost.
func (s *scheduler) lookSoon(now time.Time, full bool) {
	if soon := now.Add(peerScanEvery); s.nextDue.IsZero() || soon.Before(s.nextDue) {
		s.nextDue = soon
	}
	if full {
		s.fullScan = now.Add(peerFullScanEvery)
	}
}

// office says in the log once that this node may not send, and once that it may
// again. It does not go by the scheduler, which waits for the database too.
func (e *Engine) office() func(error) {
	away := false
	return func(err error) {
		switch {
		case err != nil && !away:
			e.cfg.Log.Error("this node sends nothing until it has renewed its lease", "error", err)
		case err == nil && away:
			e.cfg.Log.Info("this node has its lease again and sends")
		}
		away = err != nil
	}
}
