package dispatch

import (
	"context"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
)

// maxBatch is how many results share one transaction.
const maxBatch = 256

// record writes results in batches, as many as have come in while the last batch
// was being written. It runs until results is closed, so everything that was
// sent is recorded before Stop returns.
func (e *Engine) record() {
	room := make([]store.Result, 0, maxBatch)
	for first := range e.results {
		batch := append(room, first)
	fill:
		for len(batch) < maxBatch {
			select {
			case r, more := <-e.results:
				if !more {
					break fill
				}
				batch = append(batch, r)
			default:
				break fill
			}
		}
		smooth := e.recordBatch(batch)
		// A batch that is not full had all that was waiting.
		if len(e.results) == 0 || smooth && len(batch) < maxBatch {
			e.stuck.Store(false)
		}
		clear(batch)
	}
}

// poisonTries is how often a single result that the store refuses for another
// reason than an outage is tried before its lane gets the slot back.
const poisonTries = 5

// recordPause is the longest time between two tries to record: it is what
// deliveries wait for after the store is back.
const recordPause = time.Second

// recordBatch does not give up while the store is away: the results stay in
// memory, their lanes stay busy, and nothing is claimed before they are
// recorded. An outage may outlast their leases, and a claim would take for lost
// what was sent. Only when Stop's grace is over is a result left to its lease,
// which means one more delivery under the same event id. It reports whether the
// first try succeeded.
func (e *Engine) recordBatch(batch []store.Result) (smooth bool) {
	wait := 50 * time.Millisecond
	for try := 1; ; try++ {
		recorded, err := e.cfg.Store.Record(context.Background(), batch)
		e.trouble.set("record", err)
		if err == nil {
			over := make([]finished, len(batch))
			for i := range batch {
				e.afterRecord(batch[i], recorded[i])
				over[i] = finished{lane: batch[i].Lane(), retry: batch[i].Verdict.RetryAt}
				over[i].omen, over[i].pause = omenOf(&batch[i])
			}
			e.done(over...)
			return try == 1
		}
		e.stuck.Store(true)
		e.metrics.recordErrors.Inc()
		outage := fault.Is(err, fault.Unavailable)
		if !outage && len(batch) > 1 {
			// One result breaks the transaction: find it without losing the others.
			for i := range batch {
				e.recordBatch(batch[i : i+1])
			}
			return false
		}
		e.cfg.Log.Error("could not record attempts, will be tried again", "attempts", len(batch), "error", err)
		if e.pause(wait) || !outage && try >= poisonTries {
			e.cfg.Log.Error("gave up recording attempts, they will be sent again", "attempts", len(batch))
			for i := range batch {
				e.release(batch[i].Claimed)
				e.done(finished{lane: batch[i].Lane()})
			}
			return false
		}
		wait = min(2*wait, recordPause)
	}
}

// pause waits and reports whether Stop's grace ended meanwhile.
func (e *Engine) pause(d time.Duration) (over bool) {
	select {
	case <-time.After(d):
		return false
	case <-e.sending.Done():
		return true
	}
}

// afterRecord counts what a record has done beside the log, and wakes the jobs
// that a failure concerns.
func (e *Engine) afterRecord(r store.Result, did store.Recorded) {
	if did.Fenced {
		e.metrics.fenced.Inc()
	}
	if did.Disabled {
		reason := delivery.DisabledByFailures
		if r.Verdict.Disable != "" {
			reason = r.Verdict.Disable
		}
		e.noteDisabled(did.Lane, reason)
	}
	if r.Verdict.Status != delivery.Delivered {
		nudge(e.failed)
		nudge(e.mailDue)
	}
}
