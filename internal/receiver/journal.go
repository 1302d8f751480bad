package receiver

import (
	"sync"
	"time"

	"github.com/ticketwire/ticketwire/internal/cutover"
)

// journal is the record of a cutover as the receiver writes it. It knows since
// when it cannot be written, and says so in it afterwards: what was refused
// meanwhile no other entry shows. Safe for concurrent use.
type journal struct {
	record *cutover.Record
	now    func() time.Time

	mu    sync.Mutex
	since time.Time // of the first append that failed; zero while they work
	err   error
}

// append adds the entries, and before them the gap in which nothing could be
// added. Without entries it tries that alone.
func (j *journal) append(entries ...cutover.Entry) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := j.now()
	if !j.since.IsZero() {
		entries = append([]cutover.Entry{gap(j.since, now, "the record could not be written")}, entries...)
	}
	if len(entries) == 0 {
		return nil
	}
	j.err = j.record.Append(entries...)
	switch {
	case j.err == nil:
		j.since = time.Time{}
	case j.since.IsZero():
		j.since = now
	}
	return j.err
}

// failing returns why the last append failed, nil if it did not.
func (j *journal) failing() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err
}

func gap(from, to time.Time, why string) cutover.Entry {
	return cutover.Entry{Gap: &cutover.Gap{From: from, To: to, Side: cutover.SideReceiver, Why: why}}
}

// begin writes down that the receiver is here now, and since when it was not.
func (r *Receiver) begin() error {
	now := r.cfg.Now()
	if r.journal != nil {
		var entries []cutover.Entry
		if alive := r.pulse.alive(); !alive.IsZero() && alive.Before(now) {
			entries = append(entries, gap(alive, now, "the receiver did not run"))
		}
		silence := r.cfg.Silence
		if silence == LearnSilence {
			silence = max(r.pulse.usual(now), learnFor)
		}
		entries = append(entries, cutover.Entry{Receiver: &cutover.Receiver{
			At: now, Types: r.cfg.Types, Tickets: r.cfg.Tickets, SecretFrom: r.cfg.SecretFrom,
			Silence: silence.Seconds(), Refetch: r.cfg.Refetch != nil, SkipStale: r.cfg.SkipStale,
		}})
		if err := r.journal.append(entries...); err != nil {
			return err
		}
	}
	return r.pulse.save(now)
}

// beatEvery is how exactly the next start knows when this process ended. A beat
// that is later than lateBeat is a gap: the machine slept, or the process was
// stopped.
const (
	beatEvery = 2 * time.Second
	lateBeat  = 5 * beatEvery
)

// beat says that the receiver is alive until it is stopped, and looks whether
// what could not be written can be written again.
func (r *Receiver) beat() {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	last := r.cfg.Now().Round(0) // the wall clock goes on while a machine sleeps
	for {
		select {
		case <-tick.C:
		case <-r.quit.Done():
			return
		}
		now := r.cfg.Now().Round(0)
		if r.journal != nil {
			var missed []cutover.Entry
			if now.Sub(last) > lateBeat {
				missed = append(missed, gap(last, now, "the receiver stood still, or the clock was set"))
			}
			// A short entry fits in where the next request does not.
			if r.journal.failing() == nil || r.room() == nil {
				_ = r.journal.append(missed...) // the journal remembers
			}
		}
		last = now
		_ = r.pulse.save(now) // and so does the pulse
		r.lookAtStorage()
	}
}
