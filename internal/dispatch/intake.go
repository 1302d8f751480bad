package dispatch

import (
	"sync"

	"github.com/ticketwire/ticketwire/internal/store"
)

// handedPerSlot is how many deliveries a lane may be handed for each request it
// may have in flight: enough that a lane that keeps up never goes to the store's
// queue, also while a burst of changes is ahead of it. One that hangs sends what
// waits there for long.
const handedPerSlot = 256

// What all lanes together hold in memory: deliveries, and bytes of their bodies.
const (
	maxHeld      = 16384
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
	held   int // reserved, on their way to a lane, or in its memory
	bytes  int // of their bodies
}

// room says how much may still be handed to a lane.
type room struct {
	open     int // as the scheduler last said, less what was reserved since
	reserved int // reserved, or handed over and not yet taken
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
		r = &room{open: in.perLane}
		in.rooms[id] = r
	}
	if r.open <= 0 {
		return false
	}
	r.open--
	r.reserved++
	in.held++
	in.bytes += size
	return true
}

// cancel takes reservations back.
func (in *intake) cancel(list []store.Claimed) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for i := range list {
		in.drop(&list[i])
		r := in.rooms[laneOf(&list[i])]
		r.reserved--
		r.open++
	}
}

// hold counts deliveries that came into memory from the store's queue.
func (in *intake) hold(list []store.Claimed) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for i := range list {
		in.held++
		in.bytes += len(list[i].Body)
	}
}

// leave counts deliveries out again that were started or put back.
func (in *intake) leave(list []store.Claimed) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for i := range list {
		in.drop(&list[i])
	}
}

func (in *intake) drop(c *store.Claimed) {
	in.held--
	in.bytes -= len(c.Body)
}

// room returns how many deliveries a claim may bring into memory.
func (in *intake) room(most int) int {
	in.mu.Lock()
	defer in.mu.Unlock()
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
	in.mu.Unlock()
	nudge(in.bell)
	if c.Replay {
		nudge(in.replays)
	}
}

// take returns what has come in, and with it the room that it had reserved.
func (in *intake) take() store.Committed {
	in.mu.Lock()
	defer in.mu.Unlock()
	out := in.left
	in.left = store.Committed{}
	clear(in.due)
	for i := range out.Handed {
		in.rooms[laneOf(&out.Handed[i])].reserved--
	}
	return out
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
	r.open = max(0, n-r.reserved)
}

// forget drops a lane that nothing is reserved for, and reports whether it did.
func (in *intake) forget(id store.Lane) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if r := in.rooms[id]; r != nil && r.reserved > 0 {
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
