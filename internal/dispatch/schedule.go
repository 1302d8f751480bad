package dispatch

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"golang.org/x/time/rate"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/vault"
)

// scheduler decides which lane may send next. A lane is the queue of one
// webhook: it has its own concurrency cap and token bucket, and lanes with work
// take turns, so a webhook that hangs, floods or is out of tokens holds up
// nobody else. A lane that has to wait costs no goroutine and no attempt.
//
// Work comes to a lane in two ways: straight from the commit that owes it, as
// long as the lane keeps up (see intake.go), and from the queue in the store,
// which is for retries, restarts, and all that is more than memory should hold.
//
// All fields but intake belong to the goroutine of run.
type scheduler struct {
	e      *Engine
	intake *intake

	done     chan finding
	finished chan []finished

	lanes    map[store.Lane]*lane
	ready    []*lane            // lanes that may go on now, in turn
	waiting  map[*lane]struct{} // lanes with work that are blocked for a while
	inFlight int
	helpers  int       // goroutines that load or claim for a lane
	scanned  time.Time // due rows up to here were seen
	nextDue  time.Time // when the next row falls due, zero when none is known
	fullScan time.Time // when everything is looked at again
}

// lane is the state of one webhook's queue.
type lane struct {
	id       store.Lane
	memory   []store.Claimed // leased to us, not started
	dirty    bool            // the queue in the store may hold due rows
	queued   bool            // it is in ready
	busy     bool            // a goroutine loads or claims for it
	inFlight int
	moved    time.Time     // when it last started or ended a request
	target   *store.Target // nil: to be loaded
	stale    bool          // the webhook changed while it was being loaded
	blocked  time.Time     // nothing goes out before then
	limited  bool          // blocked by the limiter, not by an error
	breaker  breaker
	checked  time.Time     // when the limiter was last asked in vain
	limiter  *rate.Limiter // nil: no limit
	limits   [2]int        // per minute and burst that limiter was made for
	told     time.Time     // when the store was last told that it waits; zero when it does not
	reason   string        // why it waits, as the metrics have it; "" when it does not
	since    time.Time     // since when, or since when it does not
	open     bool          // its breaker is open, as the metrics have it
}

// finding is what a goroutine did for a lane.
type finding struct {
	lane   *lane
	load   bool // a target was loaded; otherwise rows were claimed
	target store.Target
	batch  store.Batch
	asked  int
	slots  int // requests in flight that were kept free for what was asked
	err    error
}

// finished says that one attempt of a lane is recorded, or was broken off.
type finished struct {
	lane  store.Lane
	retry time.Time // when its next attempt is due; zero when there is none
	omen  omen      // what it says about the receiver
	pause time.Duration
}

// fullScanEvery is the slow safety net behind wake-ups and the due timer: it
// finds work that another process committed and leases that ran out.
const fullScanEvery = time.Minute

// claimPerSlot is how many deliveries one claim may bring for each request that
// its lane may have in flight: it is one transaction, and others wait for it.
const claimPerSlot = 8

// handedPatience is how long all requests of a lane may hang before nothing more is
// handed to it: a receiver that has died takes few into memory then, that would all
// have to go back when its breaker opens.
const handedPatience = 100 * time.Millisecond

// pauseAfterError is how long a lane rests when the store refused it, and
// pauseUnopened when it is the lane's own secrets that do not open: only a change of
// the webhook, which ends the pause, or another key file helps.
const (
	pauseAfterError = 250 * time.Millisecond
	pauseUnopened   = time.Minute
)

// recheckLimit is how often a lane that is out of tokens is looked at again when
// something woke it. It is what a person waits after lifting a limit, and what
// keeps a flood of new events from asking for the limit with each of them.
const recheckLimit = time.Second

func newScheduler(e *Engine) *scheduler {
	return &scheduler{
		e:        e,
		intake:   newIntake(e.cfg.PerLane),
		done:     make(chan finding),
		finished: make(chan []finished, e.cfg.InFlight),
		lanes:    map[store.Lane]*lane{},
		waiting:  map[*lane]struct{}{},
	}
}

func (s *scheduler) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-s.e.stop:
			s.end()
			return
		case <-s.intake.bell:
			s.collect()
		case f := <-s.done:
			s.helpers--
			s.settle(f)
		case list := <-s.finished:
			for _, f := range list {
				s.finish(f)
			}
		case <-timer.C:
			s.scan()
		}
		s.dispatch()
		timer.Reset(s.sleep())
	}
}

// end waits for the goroutines that work for lanes, and gives back what was
// claimed or handed over and not started.
func (s *scheduler) end() {
	s.intake.close()
	for ; s.helpers > 0; s.helpers-- {
		f := <-s.done
		f.lane.memory = append(f.lane.memory, f.batch.Deliveries...)
	}
	var left []store.Claimed
	for _, l := range s.lanes {
		left = append(left, l.memory...)
	}
	c, _ := s.intake.take()
	s.e.release(append(left, c.Handed...)...)
}

// collect takes over what commits have left.
func (s *scheduler) collect() {
	c, lost := s.intake.take()
	if lost {
		s.forgetAll()
	}
	s.heed(&c)
	for _, id := range c.Changed {
		if l := s.lanes[id]; l != nil {
			l.target, l.stale = nil, l.busy
			// It may have another address now.
			l.breaker, l.blocked = breaker{}, time.Time{}
			s.rest(l)
		}
	}
	for i := range c.Handed {
		l := s.lane(c.Handed[i].Lane())
		l.memory = append(l.memory, c.Handed[i])
		if i+1 == len(c.Handed) || c.Handed[i+1].Lane() != l.id {
			s.rest(l)
		}
	}
	for _, id := range c.Due {
		if !s.e.cfg.Store.Mine(id) {
			continue // it has moved meanwhile, and the other node looks
		}
		l := s.lane(id)
		l.dirty = true
		if again := l.checked.Add(recheckLimit); l.limited && again.Before(l.blocked) {
			l.blocked = again
		}
		s.rest(l)
	}
}

func (s *scheduler) lane(id store.Lane) *lane {
	l := s.lanes[id]
	if l == nil {
		l = &lane{id: id}
		if pause, gained := s.e.cfg.Store.Gained(id); gained {
			l.blocked = s.e.cfg.Now().Add(pause) // the node that had it may not know yet
		}
		s.lanes[id] = l
	}
	return l
}

// rest gives a lane its turn if it can use one, notes how much may be handed to
// it, and forgets it when it is idle. It is called after every change of a lane.
func (s *scheduler) rest(l *lane) {
	now := s.e.cfg.Now()
	work := l.dirty || len(l.memory) > 0
	switch {
	case l.queued || l.busy || !work || l.inFlight >= l.breaker.width(s.e.cfg.PerLane):
	case now.Before(l.blocked):
		s.waiting[l] = struct{}{}
	default:
		delete(s.waiting, l)
		l.queued = true
		s.ready = append(s.ready, l)
	}
	if !work && !l.busy {
		s.mark(l, now, "")
		if !l.told.IsZero() {
			l.told = time.Time{}
			s.e.waits.note(l.id, wait{})
		}
	}
	s.markBreaker(l, l.breaker.open())
	s.intake.open(l.id, s.room(l, now))
	idle := !work && !l.queued && !l.busy && l.inFlight == 0
	if idle && (l.limiter == nil || l.limiter.TokensAt(now) >= float64(l.limits[1])) && s.intake.forget(l.id) {
		s.markBreaker(l, false)
		delete(s.waiting, l) // it may have given away what it waited with
		delete(s.lanes, l.id)
	}
}

// room is how many deliveries may be handed to a lane beside those that it has.
// A lane that does not keep up, or has older work in the store, gets none: what
// waits for long should wait in the store.
func (s *scheduler) room(l *lane, now time.Time) int {
	if l.dirty || now.Before(l.blocked) {
		return 0
	}
	if l.breaker.open() || l.inFlight >= s.e.cfg.PerLane && now.Sub(l.moved) > handedPatience {
		return 0
	}
	room := s.e.cfg.PerLane*handedPerSlot - l.inFlight - len(l.memory)
	if l.limiter != nil {
		room = min(room, int(l.limiter.TokensAt(now))-len(l.memory))
	}
	return max(0, room)
}

// dispatch gives ready lanes their turn while there is room in flight.
func (s *scheduler) dispatch() {
	if !s.e.cfg.Store.InOffice() {
		return
	}
	for len(s.ready) > 0 && s.inFlight < s.e.cfg.InFlight {
		l := s.ready[0]
		s.ready = s.ready[1:]
		l.queued = false
		// It may have been blocked, or its breaker opened, since it got in line.
		if !s.e.cfg.Now().Before(l.blocked) && s.slots(l) > 0 {
			s.serve(l)
		}
		s.rest(l)
	}
	if len(s.ready) == 0 {
		s.ready = nil
	}
}

// serve does the next thing for a lane: learn about the webhook, send what was
// handed over, or claim from the store.
func (s *scheduler) serve(l *lane) {
	now := s.e.cfg.Now()
	if !s.e.cfg.Store.Mine(l.id) {
		s.handOn(l)
		return
	}
	if l.target == nil {
		s.help(l, func(ctx context.Context) finding {
			t, err := s.e.cfg.Store.Target(ctx, l.id)
			if fault.Is(err, fault.NotFound) {
				err = nil // deleted: an empty target is not active
			}
			return finding{load: true, target: t, err: err}
		})
		return
	}
	tokens := math.MaxInt
	if !l.target.IsActive {
		s.putBack(l, len(l.memory))
	} else if l.limiter != nil {
		left := l.limiter.TokensAt(now)
		if left < 1 {
			s.block(l, now, left)
			return
		}
		tokens = int(left)
	}
	s.mark(l, now, "")
	if len(l.memory) > 0 {
		s.sendMemory(l, now, tokens)
		return
	}
	s.claim(l, now, tokens)
}

// slots is how many requests a lane may start now.
func (s *scheduler) slots(l *lane) int {
	return min(l.breaker.width(s.e.cfg.PerLane)-l.inFlight, s.e.cfg.InFlight-s.inFlight)
}

// sendMemory starts what the lane holds. What has waited for long goes back into
// the store's queue: memory is for lanes that keep up.
func (s *scheduler) sendMemory(l *lane, now time.Time, tokens int) {
	old := 0
	for old < len(l.memory) && now.Sub(l.memory[old].Since) > s.e.Lease()/3 {
		old++
	}
	s.putBack(l, old)
	n := min(s.slots(l), tokens, len(l.memory))
	if l.limiter != nil {
		l.limiter.AllowN(now, n)
	}
	l.inFlight += n
	s.inFlight += n
	l.moved = now
	s.intake.leave(l.id, l.memory[:n])
	for _, c := range l.memory[:n] {
		s.e.start(*l.target, c)
	}
	l.drop(n)
}

// drop forgets the first n deliveries in memory, and lets go of their bodies.
func (l *lane) drop(n int) {
	clear(l.memory[:n])
	if l.memory = l.memory[n:]; len(l.memory) == 0 {
		l.memory = nil
	}
}

// putBack gives the first n handed-over deliveries back to the store's queue.
func (s *scheduler) putBack(l *lane, n int) {
	if n == 0 {
		return
	}
	back := append([]store.Claimed(nil), l.memory[:n]...)
	l.drop(n)
	s.intake.leave(l.id, back)
	// The release wakes the lane by itself.
	s.e.errands.Go(func() { s.e.release(back...) })
}

// claim leases rows of the store's queue: as many as may be started now, and
// some more to go on with while memory allows, since a claim costs the store
// nearly the same for one row and for many.
func (s *scheduler) claim(l *lane, now time.Time, tokens int) {
	if s.e.stuck.Load() {
		l.blocked, l.limited = now.Add(pauseAfterError), false
		return
	}
	slots := min(s.slots(l), tokens)
	more := s.intake.room(s.e.cfg.PerLane * claimPerSlot)
	if l.breaker.open() {
		more = 0 // a probe, and nothing to go on with
	}
	asked := min(slots+more, tokens)
	l.dirty = false // a wake-up meanwhile sets it again
	l.inFlight += slots
	s.inFlight += slots
	s.help(l, func(ctx context.Context) finding {
		b, err := s.e.cfg.Store.Claim(ctx, now, store.ClaimRequest{
			Lane: l.id, Owner: s.e.owner, Limit: asked, Lease: s.e.Lease(),
		})
		if err != nil {
			err = fmt.Errorf("claim deliveries: %w", err)
		}
		return finding{batch: b, asked: asked, slots: slots, err: err}
	})
}

// help runs fn on a goroutine of its own for a lane, which is busy until then.
func (s *scheduler) help(l *lane, fn func(context.Context) finding) {
	l.busy = true
	s.helpers++
	s.e.errands.Go(func() {
		f := fn(context.Background())
		f.lane = l
		s.done <- f
	})
}

// settle takes what a goroutine found back into the loop.
func (s *scheduler) settle(f finding) {
	l, now := f.lane, s.e.cfg.Now()
	l.busy = false
	unopened := errors.Is(f.err, vault.ErrUnopened)
	if !unopened { // or one webhook would make the whole node unready
		s.e.trouble.set("lanes", f.err)
	}
	switch {
	case f.load && f.err == nil:
		s.configure(l, f.target)
	case !f.load:
		s.settleClaim(f, now)
	}
	switch {
	case unopened:
		s.e.cfg.Log.Error("the key file does not open what a webhook needs, nothing is sent to it: put its key back, or rotate its secret",
			"tenant", l.id.TenantID, "webhook", l.id.WebhookID, "error", f.err)
		pause := pauseUnopened
		if l.stale { // it was changed while it was being loaded
			pause = pauseAfterError
		}
		l.blocked, l.limited, l.stale = now.Add(pause), false, false
	case f.err != nil:
		s.e.cfg.Log.Error("the store refused a lane, will be tried again", "webhook", l.id.WebhookID, "error", f.err)
		l.blocked, l.limited = now.Add(pauseAfterError), false
	}
	s.rest(l)
}

// settleClaim starts what there is room for and keeps the rest in memory.
func (s *scheduler) settleClaim(f finding, now time.Time) {
	l, got := f.lane, f.batch.Deliveries
	n := min(f.slots, len(got))
	l.inFlight -= f.slots - n
	s.inFlight -= f.slots - n
	l.moved = now
	if f.err != nil || len(got) == f.asked {
		l.dirty = true // there may be more
	}
	if l.limiter != nil {
		l.limiter.AllowN(now, n)
	}
	for i := range got[:n] {
		s.e.start(f.batch.Target, got[i])
	}
	l.memory = append(l.memory, got[n:]...)
	s.intake.hold(l.id, got[n:])
}

// configure takes a loaded webhook over, and makes the lane's bucket anew when
// its limit is another one.
func (s *scheduler) configure(l *lane, t store.Target) {
	if l.stale {
		l.stale = false
		return // load it again
	}
	l.target = &t
	perMinute, burst, limited := t.RateLimit.PerMinute()
	if !limited || !t.IsActive {
		l.limiter, l.limits = nil, [2]int{}
		return
	}
	if want := [2]int{perMinute, burst}; l.limiter == nil || l.limits != want {
		l.limiter, l.limits = rate.NewLimiter(rate.Limit(float64(perMinute)/60), burst), want
		if _, gained := s.e.cfg.Store.Gained(l.id); gained {
			l.limiter.AllowN(s.e.cfg.Now(), burst) // the node that had it may have used it up
		}
	}
}

// block makes a lane wait for its next token.
func (s *scheduler) block(l *lane, now time.Time, tokens float64) {
	pause := time.Duration((1 - tokens) / float64(l.limiter.Limit()) * float64(time.Second))
	l.limited, l.checked = true, now
	s.hold(l, now, now.Add(max(pause, time.Millisecond)), delivery.WaitRateLimited)
}

// hold lets a lane send nothing before until, and tells the store why its rows
// wait, so that the API can show it, and the metrics. What the lane had in memory waits in the
// store too.
func (s *scheduler) hold(l *lane, now, until time.Time, reason string) {
	s.mark(l, now, reason)
	l.blocked, l.dirty = until, true
	s.putBack(l, len(l.memory))
	if now.Sub(l.told) > waitShown/2 {
		l.told = now
		s.e.waits.note(l.id, wait{reason: reason, until: now.Add(waitShown)})
	}
}

// finish takes a recorded attempt back into the loop.
func (s *scheduler) finish(f finished) {
	s.inFlight--
	if !f.retry.IsZero() && (s.nextDue.IsZero() || f.retry.Before(s.nextDue)) {
		s.nextDue = f.retry
	}
	l := s.lanes[f.lane]
	l.inFlight--
	now := s.e.cfg.Now()
	l.moved = now
	if until := l.breaker.note(now, f); until.After(l.blocked) {
		l.limited = false
		s.hold(l, now, until, delivery.WaitBreakerOpen)
	}
	s.rest(l)
}

// scan looks into the store for what fell due, and wakes lanes whose wait is
// over.
func (s *scheduler) scan() {
	now := s.e.cfg.Now()
	for l := range s.waiting {
		s.rest(l)
	}
	after := s.scanned
	// A clock that was set back makes rows due that were scheduled since then
	// before the last look: only a look at everything finds them.
	full := !now.Before(s.fullScan) || now.UnixMicro() < s.scanned.UnixMicro()
	if full {
		after = time.Time{}
		for _, l := range s.lanes {
			s.rest(l)
		}
	}
	if !full && (s.nextDue.IsZero() || now.Before(s.nextDue)) {
		return
	}
	err := s.look(after, now)
	s.e.trouble.set("scan", err)
	if err != nil {
		s.e.cfg.Log.Error("could not look for due deliveries, will be tried again", "error", err)
		s.nextDue = now.Add(pauseAfterError)
		if full {
			s.fullScan = s.nextDue // or it would be due at once, again and again
		}
		return
	}
	s.scanned = now
	if full {
		s.fullScan = now.Add(fullScanEvery)
	}
	if s.e.cfg.Store.Among() > 1 {
		s.lookSoon(now, full)
	}
}

func (s *scheduler) look(after, now time.Time) error {
	ctx := context.Background()
	due, err := s.e.cfg.Store.DueLanes(ctx, after, now)
	if err != nil {
		return fmt.Errorf("list due lanes: %w", err)
	}
	next, found, err := s.e.cfg.Store.NextDue(ctx, now)
	if err != nil {
		return fmt.Errorf("find the next due delivery: %w", err)
	}
	s.nextDue = time.Time{}
	if found {
		s.nextDue = next
	}
	for _, id := range due {
		if !s.e.cfg.Store.Mine(id) {
			continue
		}
		l := s.lane(id)
		l.dirty = true
		s.rest(l)
	}
	return nil
}

// sleep is how long the loop may wait for something to fall due.
func (s *scheduler) sleep() time.Duration {
	now := s.e.cfg.Now()
	until := s.fullScan
	if !s.nextDue.IsZero() && s.nextDue.Before(until) {
		until = s.nextDue
	}
	for l := range s.waiting {
		if l.blocked.Before(until) {
			until = l.blocked
		}
	}
	if !s.e.cfg.Store.InOffice() {
		return outOfOffice
	}
	return max(0, until.Sub(now))
}
