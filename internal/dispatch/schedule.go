package dispatch

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/store"
)

// scheduler decides which lane may claim next. A lane is the queue of one
// webhook: it has its own concurrency cap and token bucket, and lanes with work
// take turns, so a webhook that hangs, floods or is out of tokens holds up
// nobody else. A lane that has to wait costs no goroutine and no attempt.
//
// Everything below "loop only" is touched by the goroutine of run alone. A
// lane's limiter belongs to the one claim that is under way for the lane.
type scheduler struct {
	e *Engine

	mu    sync.Mutex // guards woken
	woken map[store.Lane]struct{}
	bell  chan struct{} // woken is not empty

	claimed  chan claimDone
	finished chan finished

	// loop only
	lanes    map[store.Lane]*lane
	ready    []*lane            // lanes that may claim now, in turn
	waiting  map[*lane]struct{} // lanes with work that are blocked for a while
	inFlight int
	scanned  time.Time // due rows up to here were seen
	nextDue  time.Time // when the next row falls due, zero when none is known
	fullScan time.Time // when everything is looked at again
}

// lane is the state of one webhook's queue.
type lane struct {
	id       store.Lane
	dirty    bool // the queue may hold due rows
	queued   bool // it is in ready
	claiming bool
	inFlight int
	blocked  time.Time // no tokens before then
	checked  time.Time // when a claim last looked
	limiter  *rate.Limiter
	limits   [2]int // per minute and burst that limiter was made for
	told     bool   // SetWait told the store that it waits
}

// claimDone is what a claim found.
type claimDone struct {
	lane    *lane
	got     int
	asked   int
	blocked time.Time // the bucket is empty until then
	err     error
}

// finished says that one attempt of a lane is recorded.
type finished struct {
	lane  store.Lane
	retry time.Time // when its next attempt is due; zero when there is none
}

// fullScanEvery is the slow safety net behind wake-ups and the due timer: it
// finds work that another process committed and leases that ran out.
const fullScanEvery = time.Minute

func newScheduler(e *Engine) *scheduler {
	return &scheduler{
		e:        e,
		woken:    map[store.Lane]struct{}{},
		bell:     make(chan struct{}, 1),
		claimed:  make(chan claimDone),
		finished: make(chan finished, e.cfg.InFlight),
		lanes:    map[store.Lane]*lane{},
		waiting:  map[*lane]struct{}{},
	}
}

// wake notes lanes that have due work. It never blocks: the store calls it right
// after a commit.
func (s *scheduler) wake(lanes []store.Lane) {
	s.mu.Lock()
	for _, l := range lanes {
		s.woken[l] = struct{}{}
	}
	s.mu.Unlock()
	nudge(s.bell)
}

func (s *scheduler) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	claims := 0 // claim goroutines that have not reported yet
	for {
		select {
		case <-s.e.stop:
			for ; claims > 0; claims-- {
				<-s.claimed
			}
			return
		case <-s.bell:
			s.collect()
		case c := <-s.claimed:
			claims--
			s.settle(c)
		case f := <-s.finished:
			s.finish(f)
		case <-timer.C:
			s.scan()
		}
		claims += s.dispatch()
		timer.Reset(s.sleep())
	}
}

// collect takes over what was woken.
func (s *scheduler) collect() {
	s.mu.Lock()
	woken := s.woken
	s.woken = make(map[store.Lane]struct{}, len(woken))
	s.mu.Unlock()
	for id := range woken {
		if l := s.lanes[id]; l != nil {
			l.recheck()
		}
		s.touch(id)
	}
}

// recheckLimit is how often a lane that is out of tokens is looked at again when
// something woke it. It is what a person waits after lifting a limit, and what
// keeps a flood of new events from asking for the limit with each of them.
const recheckLimit = time.Second

// recheck shortens the wait of a lane whose limit may have changed.
func (l *lane) recheck() {
	if again := l.checked.Add(recheckLimit); again.Before(l.blocked) {
		l.blocked = again
	}
}

// touch marks a lane as having work and queues it when it may claim.
func (s *scheduler) touch(id store.Lane) {
	l := s.lanes[id]
	if l == nil {
		l = &lane{id: id}
		s.lanes[id] = l
	}
	l.dirty = true
	s.enqueue(l)
}

// enqueue gives a lane its turn, unless it is busy, full or blocked.
func (s *scheduler) enqueue(l *lane) {
	if l.queued || l.claiming || !l.dirty || l.inFlight >= s.e.cfg.PerLane {
		return
	}
	if s.e.cfg.Now().Before(l.blocked) {
		s.waiting[l] = struct{}{}
		return
	}
	delete(s.waiting, l)
	l.queued = true
	s.ready = append(s.ready, l)
}

// dispatch starts a claim for each ready lane while there is room, and returns
// how many it started.
func (s *scheduler) dispatch() int {
	n := 0
	for len(s.ready) > 0 && s.inFlight < s.e.cfg.InFlight {
		l := s.ready[0]
		s.ready = s.ready[1:]
		l.queued = false
		room := min(s.e.cfg.PerLane-l.inFlight, s.e.cfg.InFlight-s.inFlight)
		l.claiming = true
		l.dirty = false // a wake-up during the claim sets it again
		l.inFlight += room
		s.inFlight += room
		n++
		s.e.attempts.Go(func() { s.claimed <- s.claim(l, room) })
	}
	if len(s.ready) == 0 {
		s.ready = nil
	}
	return n
}

// claim runs on its own goroutine: it asks the limiter, leases rows and starts
// their attempts.
func (s *scheduler) claim(l *lane, room int) claimDone {
	ctx := context.Background()
	now := s.e.cfg.Now()
	w, err := s.e.cfg.Store.Webhook(ctx, l.id.TenantID, l.id.WebhookID)
	if err == nil {
		s.configure(l, w.RateLimit, now)
	} else {
		// Gone: the claim below clears the queue of a deleted webhook.
		l.limiter = nil
	}
	limit := room
	if l.limiter != nil {
		tokens := l.limiter.TokensAt(now)
		if limit = min(room, int(tokens)); limit <= 0 {
			return s.block(l, room, now, tokens)
		}
	}
	batch, err := s.e.cfg.Store.Claim(ctx, now, store.ClaimRequest{
		Lane: l.id, Owner: s.e.owner, Limit: limit, Lease: s.e.Lease(),
	})
	if err != nil {
		return claimDone{lane: l, asked: room, err: fmt.Errorf("claim deliveries: %w", err)}
	}
	got := len(batch.Deliveries)
	if l.limiter != nil {
		l.limiter.AllowN(now, got)
	}
	if l.told && got > 0 {
		s.tellWait(l, "", nil)
	}
	for i := range batch.Deliveries {
		s.e.start(batch.Target, batch.Deliveries[i])
	}
	done := claimDone{lane: l, asked: room, got: got}
	if l.limiter != nil && got == limit && limit < room {
		blocked := s.block(l, room, now, l.limiter.TokensAt(now))
		done.blocked = blocked.blocked
	}
	return done
}

// configure makes the lane's bucket, and makes it anew when the limit changed.
func (s *scheduler) configure(l *lane, r *delivery.RateLimit, now time.Time) {
	perMinute, burst, limited := r.PerMinute()
	if !limited {
		l.limiter, l.limits = nil, [2]int{}
		return
	}
	if want := [2]int{perMinute, burst}; l.limiter == nil || l.limits != want {
		l.limiter, l.limits = rate.NewLimiter(rate.Limit(float64(perMinute)/60), burst), want
		l.limiter.TokensAt(now)
	}
}

// block reports that the bucket is empty, and tells the store why the lane's
// rows wait, so that the API can show it.
func (s *scheduler) block(l *lane, room int, now time.Time, tokens float64) claimDone {
	wait := time.Duration((1 - tokens) / float64(l.limiter.Limit()) * float64(time.Second))
	until := now.Add(max(wait, time.Millisecond))
	s.e.metrics.rateLimited.Inc()
	if !l.told {
		s.tellWait(l, delivery.WaitRateLimited, &until)
	}
	return claimDone{lane: l, asked: room, blocked: until}
}

// tellWait is best effort: the reason is for people, and the next change of
// state writes it again.
func (s *scheduler) tellWait(l *lane, reason string, until *time.Time) {
	if err := s.e.cfg.Store.SetWait(context.Background(), l.id, reason, until); err != nil {
		s.e.cfg.Log.Warn("could not note why a webhook waits", "tenant", l.id.TenantID, "webhook", l.id.WebhookID, "error", err)
		return
	}
	l.told = reason != ""
}

// retryClaim is how long a lane rests after a claim that the store refused.
const retryClaim = 250 * time.Millisecond

// settle takes a claim's outcome back into the loop.
func (s *scheduler) settle(c claimDone) {
	l := c.lane
	l.claiming, l.checked = false, s.e.cfg.Now()
	free := c.asked - c.got
	l.inFlight -= free
	s.inFlight -= free
	s.e.trouble.set("claim", c.err)
	switch {
	case c.err != nil:
		s.e.cfg.Log.Error("claim failed, will be tried again", "webhook", l.id.WebhookID, "error", c.err)
		l.dirty, l.blocked = true, s.e.cfg.Now().Add(retryClaim)
	case !c.blocked.IsZero():
		woken := l.dirty // while the claim was under way
		l.dirty, l.blocked = true, c.blocked
		if woken {
			l.recheck()
		}
	case c.got == c.asked:
		l.dirty = true // the queue may hold more
	}
	s.rest(l)
}

// finish takes a recorded attempt back into the loop.
func (s *scheduler) finish(f finished) {
	s.inFlight--
	if !f.retry.IsZero() && (s.nextDue.IsZero() || f.retry.Before(s.nextDue)) {
		s.nextDue = f.retry
	}
	l := s.lanes[f.lane]
	l.inFlight--
	s.rest(l)
}

// rest queues a lane that has more to do and forgets one that is idle.
func (s *scheduler) rest(l *lane) {
	s.enqueue(l)
	idle := !l.dirty && !l.queued && !l.claiming && l.inFlight == 0
	if idle && (l.limiter == nil || l.limiter.TokensAt(s.e.cfg.Now()) >= float64(l.limits[1])) {
		delete(s.lanes, l.id)
	}
}

// scan looks into the store for what fell due, and releases lanes whose wait is
// over.
func (s *scheduler) scan() {
	now := s.e.cfg.Now()
	for l := range s.waiting {
		s.enqueue(l)
	}
	after := s.scanned
	full := !now.Before(s.fullScan)
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
		s.nextDue = now.Add(retryClaim)
		return
	}
	s.scanned = now
	if full {
		s.fullScan = now.Add(fullScanEvery)
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
		s.touch(id)
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
	return max(0, until.Sub(now))
}
