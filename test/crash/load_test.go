package crash

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

// change is one acknowledged change of a ticket. updatedAt strictly increases
// per ticket (contract P14), so it names the change.
type change struct {
	ticket, updatedAt string
	at                time.Time // when the acknowledgement was read to its end
	mark              int64     // what load.mark said then
}

// load changes tickets at a steady rate and keeps the ledger of what was
// acknowledged. A request that got no answer may have worked or not: it is not
// in the ledger, and nothing is owed to it.
type load struct {
	desk    *desk
	tickets []ticket
	mark    func() int64 // notes a position together with each acknowledgement; nil: none
	stop    context.CancelFunc
	workers sync.WaitGroup

	mu      sync.Mutex
	nodes   []*desk     // guarded by mu; take the changes in turn; nil: desk alone
	acked   []change    // guarded by mu
	refused map[int]int // guarded by mu; answers but 200, by status
	silent  int         // guarded by mu; requests without an answer
}

// people is how many change tickets at the same time, each his own.
const people = 8

// startLoad makes its tickets and begins. perSecond is for all together.
func startLoad(t *testing.T, d *desk, perSecond int) *load {
	t.Helper()
	l := newLoad(t, d)
	l.start(t, perSecond)
	return l
}

func newLoad(t *testing.T, d *desk) *load {
	t.Helper()
	l := &load{desk: d, refused: map[int]int{}}
	for i := range people {
		l.tickets = append(l.tickets, d.newTicket(t, fmt.Sprintf("Desk %d", i)))
	}
	return l
}

func (l *load) start(t *testing.T, perSecond int) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	l.stop = stop
	t.Cleanup(l.end)
	for i := range people {
		l.workers.Go(func() {
			// The tick drops what it cannot keep up with, so nothing piles up
			// behind a server that is down.
			tick := time.NewTicker(time.Second * people / time.Duration(perSecond))
			defer tick.Stop()
			for n := 0; ; n++ {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
					l.change(ctx, l.node(i+n), l.tickets[i].ID, fmt.Sprintf("Desk %d, change %d", i, n))
				}
			}
		})
	}
}

// node returns who takes the n-th change.
func (l *load) node(n int) *desk {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.nodes) == 0 {
		return l.desk
	}
	return l.nodes[n%len(l.nodes)]
}

func (l *load) change(ctx context.Context, to *desk, id, title string) {
	var out struct{ Data ticket }
	// Stopping the load must not leave a request in doubt.
	status, err := to.try(context.WithoutCancel(ctx), http.MethodPut, "/api/v1/tickets/"+id, object{"title": title}, &out)
	c := change{ticket: id, updatedAt: out.Data.UpdatedAt, at: time.Now()}
	if l.mark != nil {
		c.mark = l.mark()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil:
		l.silent++
	case status != http.StatusOK:
		l.refused[status]++
	default:
		l.acked = append(l.acked, c)
	}
}

// end stops the load and waits for its last answers. It is safe to call twice.
func (l *load) end() {
	l.stop()
	l.workers.Wait()
}

func (l *load) acknowledged() []change {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.acked)
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

// refusals returns how often a status was answered, and how often none.
func (l *load) refusals() (byStatus map[int]int, silent int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.refused), l.silent
}

// reach waits until n changes are acknowledged.
func (l *load) reach(t *testing.T, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d changes are acknowledged", n), func() bool { return l.count() >= n })
}
