package dispatch

import (
	"sync"

	"github.com/ticketwire/ticketwire/internal/store"
)

// memoryPerSlot is how many deliveries a lane may hold in memory for each request
// it may have in flight: enough that a lane that keeps up never goes to the
// store's queue, and little enough that one that hangs sends what waits there.
const memoryPerSlot = 8

// maxHanded bounds what all lanes together hold in memory. A delivery is a few
// kilobytes.
const maxHanded = 8192

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
	total  int // reserved, or handed over and not yet taken
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
func (in *intake) reserve(id store.Lane) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed || in.total >= maxHanded {
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
	in.total++
	return true
}

// cancel takes reservations back.
func (in *intake) cancel(lanes []store.Lane) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, id := range lanes {
		in.total--
		r := in.rooms[id]
		r.reserved--
		r.open++
	}
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
		in.total--
		in.rooms[store.Lane{TenantID: out.Handed[i].TenantID, WebhookID: out.Handed[i].WebhookID}].reserved--
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
