package webhook

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

const (
	// DefaultRetention is how long Memory remembers an event: longer than the
	// sender retries (14 h 36 min) and than it keeps events for a replay (30
	// days by default). A shorter time reacts again to a late replay.
	DefaultRetention = 35 * 24 * time.Hour

	// DefaultLease is how long a claim holds without an answer. It is shorter
	// than the first retry's delay of one minute, so that a delivery that died
	// with its process is claimable when it comes again.
	DefaultLease = 45 * time.Second

	// DefaultLimit is how many events Memory remembers, about 100 MB of them.
	DefaultLimit = 1_000_000
)

// Key identifies an event for deduplication. It comes from the signed body,
// never from the headers. The type is part of it, so that a sender that uses
// one id for two aliases of a change loses neither.
type Key struct {
	EventID   string // lower-case
	EventType string
}

// KeyOf returns the key of e.
func KeyOf(e *Envelope) Key {
	return Key{EventID: strings.ToLower(e.EventID), EventType: e.EventType}
}

// State is what a Deduper knows about an event at the moment of a claim.
type State int

// The states. The zero State is none of them.
const (
	Fresh   State = iota + 1 // nobody has it: the claim is the caller's
	Running                  // another claim holds it and its lease has not ended
	Done                     // it was processed
)

// String returns the state's name.
func (s State) String() string {
	switch s {
	case Fresh:
		return "fresh"
	case Running:
		return "running"
	case Done:
		return "done"
	}
	return fmt.Sprintf("State(%d)", int(s))
}

// Claim is the answer to a claim. Only a Fresh one may be given back to
// Finish and Release.
type Claim struct {
	Key        Key
	TicketID   string    // Envelope.TicketID; "" for an event without one
	OccurredAt time.Time // the event's
	State      State
	// Fence tells this claim from others of the same key. A store counts it up,
	// or writes a random number, on every Fresh claim.
	Fence int64
	// Attempt is which run of the reaction this is, from 1, where the store
	// counts them; 0 elsewhere.
	Attempt int
	// Stale says that an event of the same ticket that occurred later was done
	// before. Events of the same millisecond are not stale: their order is not
	// known.
	Stale bool
}

// ClaimOf returns a claim on e that has no answer yet.
func ClaimOf(e *Envelope) Claim {
	return Claim{Key: KeyOf(e), TicketID: e.TicketID(), OccurredAt: e.OccurredAt.Time}
}

// Deduper remembers which events were processed, so that a duplicate delivery
// does not react twice. An implementation must be safe for concurrent use, by
// several processes if they share it. Every error makes the handler answer 503,
// so that the sender comes again: a store that cannot tell must not guess.
//
// Memory is the one for a single process; package inbox has the durable one.
type Deduper interface {
	// Claim takes e for the caller until now+lease, atomically: of any number
	// of concurrent callers one gets Fresh. A claim whose lease has ended counts
	// as never made. A Fresh claim must survive a crash of the process if the
	// store is durable, or else the lease has no meaning.
	Claim(ctx context.Context, now time.Time, e *Envelope, lease time.Duration) (Claim, error)
	// Finish marks the event as processed, and its time as the ticket's newest
	// if it is. It does so even when the lease has ended and another claim holds
	// the key, because the work was done.
	Finish(ctx context.Context, now time.Time, c Claim) error
	// Release gives the key back, so that the next delivery is Fresh. It does
	// nothing when the event is done or another claim holds the key.
	Release(ctx context.Context, now time.Time, c Claim) error
}

// ErrMemoryFull is returned by Memory.Claim when every place is held by a
// reaction that is still running.
var ErrMemoryFull = errors.New("webhook: deduplication memory is full of running events")

// Memory is a Deduper for one process. It forgets everything when the process
// ends, so a restart can react a second time to an event that is delivered
// twice. It is bounded: at its limit the oldest processed events are forgotten
// first. Use NewMemory.
type Memory struct {
	retention time.Duration
	limit     int

	mu     sync.Mutex
	fence  int64
	events map[digest]entry // no pointers inside: the collector skips it
	done   []place          // processed events in the order in which they expire
	head   int              // done[:head] is used up

	// newest has the time of the newest processed event per ticket, in unix
	// nanoseconds. Half as many tickets as events fit into it; then it becomes
	// older, and what was in older is forgotten.
	newest, older map[digest]int64
}

// digest stands for a Key. 128 bits of SHA-256 take a third of the space of the
// key and do not collide by chance.
type digest [16]byte

type entry struct {
	fence int64
	until int64 // unix nanoseconds: end of the lease, or of the retention when done
	done  bool
}

type place struct {
	event digest
	until int64
}

// NewMemory returns an empty memory that remembers processed events for
// retention, and at most limit events. Zero or less means DefaultRetention and
// DefaultLimit.
func NewMemory(retention time.Duration, limit int) *Memory {
	if retention <= 0 {
		retention = DefaultRetention
	}
	if limit <= 0 {
		limit = DefaultLimit
	}
	return &Memory{retention: retention, limit: limit, events: make(map[digest]entry), newest: make(map[digest]int64)}
}

// Claim implements Deduper. Its only error is ErrMemoryFull.
func (m *Memory) Claim(_ context.Context, now time.Time, event *Envelope, lease time.Duration) (Claim, error) {
	c, at := ClaimOf(event), now.UnixNano()
	d := digestOf(c.Key)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expire(at)
	e, known := m.events[d]
	switch {
	case known && e.done:
		c.State = Done
		return c, nil
	case known && e.until > at:
		c.State = Running
		return c, nil
	case !known && !m.makeRoom(at):
		return Claim{}, ErrMemoryFull
	}
	m.fence++
	m.events[d] = entry{fence: m.fence, until: now.Add(lease).UnixNano()}
	c.State, c.Fence = Fresh, m.fence
	c.Stale = c.TicketID != "" && c.OccurredAt.UnixNano() < m.newestOf(ticketDigest(c.TicketID))
	return c, nil
}

// Finish implements Deduper. It returns no error.
func (m *Memory) Finish(_ context.Context, now time.Time, c Claim) error {
	d := digestOf(c.Key)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expire(now.UnixNano())
	m.advance(c)
	if m.events[d].done {
		return nil // a later claim of the same event was faster
	}
	until := now.Add(m.retention).UnixNano()
	m.events[d] = entry{fence: c.Fence, until: until, done: true}
	m.done = append(m.done, place{event: d, until: until})
	return nil
}

// Release implements Deduper. It returns no error.
func (m *Memory) Release(_ context.Context, _ time.Time, c Claim) error {
	d := digestOf(c.Key)
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.events[d]; !e.done && e.fence == c.Fence {
		delete(m.events, d)
	}
	return nil
}

// Len returns how many events are remembered, running ones included.
func (m *Memory) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.events)
}

// newestOf returns 0 for a ticket that it does not know. The caller holds mu.
func (m *Memory) newestOf(ticket digest) int64 { return max(m.newest[ticket], m.older[ticket]) }

// advance notes the time of a processed event. The caller holds mu.
func (m *Memory) advance(c Claim) {
	d, at := ticketDigest(c.TicketID), c.OccurredAt.UnixNano()
	if c.TicketID == "" || at <= m.newestOf(d) {
		return
	}
	if m.newest[d] = at; len(m.newest) >= max(m.limit/2, 1) {
		m.newest, m.older = make(map[digest]int64), m.newest
	}
}

// expire forgets processed events whose retention has ended. The caller holds
// mu.
func (m *Memory) expire(at int64) {
	for m.head < len(m.done) && m.done[m.head].until <= at {
		m.forgetOldest()
	}
}

// makeRoom frees a place where the memory is at its limit, and tells whether
// there is one. The caller holds mu.
func (m *Memory) makeRoom(at int64) bool {
	if len(m.events) < m.limit {
		return true
	}
	if m.head < len(m.done) {
		m.forgetOldest()
		return true
	}
	for d, e := range m.events {
		if e.until <= at {
			delete(m.events, d)
		}
	}
	return len(m.events) < m.limit
}

// forgetOldest drops the processed event that expires first. The caller holds
// mu and has checked that there is one.
func (m *Memory) forgetOldest() {
	delete(m.events, m.done[m.head].event)
	m.head++
	// Moving the rest down only when half is used up keeps the cost of one
	// event constant on average.
	if m.head*2 >= len(m.done) {
		m.done = append(m.done[:0], m.done[m.head:]...)
		m.head = 0
	}
}

func digestOf(k Key) digest { return ticketDigest(k.EventID + "\x00" + k.EventType) }

func ticketDigest(id string) digest {
	sum := sha256.Sum256([]byte(id))
	return digest(sum[:16])
}
