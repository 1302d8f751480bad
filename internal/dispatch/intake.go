package dispatch

import (
	"sync"

	"github.com/ticketwire/ticketwire/internal/store"
)

// handedPerSlot is how many deliveries a lane may be handed for each request it
// may have in flight: enough that a lane that keeps up never goes to the store's
// queue, also while a burst of changes is ahead of it. What waits for long in the
// lane of a receiver that hangs goes back there.
const handedPerSlot = 256

// What all lanes together hold in memory: deliveries, and bytes of their bodies.
// A lane gets at most as much as it leaves free, so that some that hang do not
// take all of it.
const (
	maxHeld      = 32768
	maxHeldBytes = 64 << 20
)

// intake is the meeting point of the writer, which commits deliveries, and the
// scheduler, which sends them. Its methods are safe for concurrent use and never
// block: the writer calls some of them in the middle of a transaction.
type intake struct {
	bell    chan struct{} // left holds something
	replays chan struct{} // a replay was made
	perLane int           // what a lane may take that the scheduler does not know yet

	mu     sync.Mutex
	closed bool
	left   store.Committed
	due    map[store.Lane]struct{} // of left.Due
	rooms  map[store.Lane]*room
	lost   bool // another node has what is in memory, see lose
	held   int  // reserved, on their way to a lane, or in its memory
	bytes  int  // of their bodies
}

// room says how much a lane holds and how much may still be handed to it.
type room struct {
	limit    int // as the scheduler last said
	open     int // the same, less what was reserved since
	reserved int // reserved, or handed over and not yet taken
	held     int // reserved, on the way to the lane, or in its memory
	bytes    int // of their bodies
}

func newIntake(perLane int) *intake {
	return &intake{
		bell: make(chan struct{}, 1), replays: make(chan struct{}, 1), perLane: perLane,
		due: map[store.Lane]struct{}{}, rooms: map[store.Lane]*room{},
	}
}

// reserve is the store's question for room; see store.Intake.
func (in *intake) reserve(id store.Lane, size int) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed || in.held >= maxHeld || in.bytes+size > maxHeldBytes {
		return false
	}
	r := in.rooms[id]
	if r == nil {
		r = &room{limit: in.perLane, open: in.perLane}
		in.rooms[id] = r
	}
	if r.open <= 0 || r.held > 0 && (r.held >= maxHeld-in.held || r.bytes >= maxHeldBytes-in.bytes) {
		return false
	}
	r.open--
	r.reserved++
	in.count(r, 1, size)
	return true
}

// count adds to what a lane holds.
func (in *intake) count(r *room, n, size int) {
	r.held += n
	r.bytes += size
	in.held += n
	in.bytes += size
}

// cancel takes reservations back.
func (in *intake) cancel(list []store.Claimed) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for i := range list {
		r := in.rooms[list[i].Lane()]
		in.count(r, -1, -len(list[i].Body))
		r.reserved--
		if r.limit > 0 {
			r.open++
		}
	}
}

// hold counts deliveries of a lane that came into memory from the store's queue.
func (in *intake) hold(id store.Lane, list []store.Claimed) { in.change(id, list, 1) }

// leave counts deliveries of a lane out again that were started or put back.
func (in *intake) leave(id store.Lane, list []store.Claimed) { in.change(id, list, -1) }

func (in *intake) change(id store.Lane, list []store.Claimed, sign int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	r := in.rooms[id]
	if r == nil {
		r = &room{}
		in.rooms[id] = r
	}
	for i := range list {
		in.count(r, sign, sign*len(list[i].Body))
	}
}

// room returns how many deliveries a claim may bring into memory.
func (in *intake) room(most int) int {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.bytes >= maxHeldBytes {
		return 0
	}
	return max(0, min(most, maxHeld-in.held))
}

// commit takes what a transaction has left.
func (in *intake) commit(c store.Committed) {
	in.mu.Lock()
	for _, id := range c.Due {
		if _, known := in.due[id]; !known {
			in.due[id] = struct{}{}
			in.left.Due = append(in.left.Due, id)
		}
	}
	in.left.Handed = append(in.left.Handed, c.Handed...)
	in.left.Changed = append(in.left.Changed, c.Changed...)
	in.left.Refresh = in.left.Refresh || c.Refresh
	in.left.Moved = in.left.Moved || c.Moved
	in.left.Look = in.left.Look || c.Look
	in.mu.Unlock()
	nudge(in.bell)
	if c.Replay || c.Refresh {
		nudge(in.replays)
	}
}

// take returns what has come in, and with it the room that it had reserved. lost says
// that another node has what came before.
func (in *intake) take() (out store.Committed, lost bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	out, lost = in.left, in.lost
	in.lost = false
	in.left = store.Committed{}
	clear(in.due)
	for i := range out.Handed {
		in.rooms[out.Handed[i].Lane()].reserved--
	}
	return out, lost
}

// lose notes that another node has taken over what is in memory, and drops what is
// on its way there.
func (in *intake) lose() {
	in.mu.Lock()
	in.lost = true
	for i := range in.left.Handed {
		c := &in.left.Handed[i]
		r := in.rooms[c.Lane()]
		r.reserved--
		in.count(r, -1, -len(c.Body))
	}
	in.left.Handed = nil
	in.mu.Unlock()
	nudge(in.bell)
}

// open sets how many more deliveries may be handed to a lane.
func (in *intake) open(id store.Lane, n int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	r := in.rooms[id]
	if r == nil {
		r = &room{}
		in.rooms[id] = r
	}
	r.limit, r.open = n, max(0, n-r.reserved)
}

// forget drops a lane that nothing is reserved for, and reports whether it did.
func (in *intake) forget(id store.Lane) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if r := in.rooms[id]; r != nil && r.held > 0 {
		return false
	}
	delete(in.rooms, id)
	return true
}

// close lets nothing more be reserved.
func (in *intake) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = true
}
