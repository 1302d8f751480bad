package crash

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/test/postgres"
)

// fleet is several nodes on one PostgreSQL, with one tenant.
type fleet struct {
	server *postgres.Instance
	dir    string
	args   []string // of every node
	nodes  []*desk
}

// openFleet starts n nodes on a server of their own.
func openFleet(t *testing.T, n int, args ...string) *fleet {
	t.Helper()
	f := &fleet{server: postgres.Own(t), dir: t.TempDir(), args: args}
	for range n {
		f.add(t, f.server.URL())
	}
	return f
}

// add starts a node that reaches the database under a URL.
func (f *fleet) add(t *testing.T, url string) *desk {
	t.Helper()
	d := &desk{dir: filepath.Join(f.dir, fmt.Sprint(len(f.nodes))), args: f.args, url: new(atomic.Pointer[string])}
	d.store = []string{"--data", d.dir, "--secret-key-file", filepath.Join(f.dir, "secret.key"), "--database-url", url}
	if len(f.nodes) == 0 {
		d.tenant = d.bootstrap(t, "First")
	} else {
		d.tenant = f.nodes[0].tenant
	}
	f.nodes = append(f.nodes, d)
	d.start(t, "")
	return d
}

// load is a load that goes to all nodes in turn.
func (f *fleet) load(t *testing.T, perSecond int) *load {
	t.Helper()
	l := newLoad(t, f.nodes[0])
	l.nodes = f.nodes
	l.start(t, perSecond)
	return l
}

// judge compares what was acknowledged with the feed, and the feed with what
// arrived, and returns how many requests came again. most is how many may.
func (f *fleet) judge(t *testing.T, e evidence, most int) {
	t.Helper()
	e.desk = f.nodes[0]
	feed := e.desk.feed(t, e.types...)
	first, again := map[key]*arrival{}, 0
	seen := map[key]int{} // by delivery
	for _, a := range e.arrivals {
		if k := (key{a.hook, a.event.ID}); first[k] == nil {
			first[k] = a
		}
		k := key{a.hook, a.delivery}
		if seen[k]++; seen[k] > 1 {
			again++
		}
	}
	lost := e.lost(t, feed, first)
	e.signatures(t)
	t.Logf("%d acknowledged changes, %d events, %d requests: %d lost, %d repeated", len(e.acked), len(feed), len(e.arrivals), lost, again)
	if again > most {
		t.Errorf("%d requests came again, want at most %d", again, most)
	}
}

// inFlight is how many requests of two webhooks one node can have on their way.
const inFlight = 2 * perWebhook

// Case A1 on three nodes: random kill -9 of one after the other under load.
//
//nolint:paralleltest // three servers and a database are load enough
func TestRandomKillsOfNodes(t *testing.T) {
	kills, changes, rate := form(3, 20), form(1500, 10_000), form(300, 200)
	f := openFleet(t, 3)
	r := receive(t, briefly)
	d := f.nodes[0]
	hooks := []hook{d.subscribe(t, r.url, nil, "ticket.updated"), d.subscribe(t, r.url, nil, "ticket.updated")}
	l := f.load(t, rate)
	for i := range kills {
		pause(time.Duration(form(300, 1000)+rand.N(form(700, 4000))) * time.Millisecond)
		n := f.nodes[i%len(f.nodes)]
		n.kill(t)
		pause(time.Duration(rand.N(500)) * time.Millisecond)
		n.start(t, "")
	}
	within(t, 3*patience, "enough changes are acknowledged", func() bool { return l.count() >= changes })
	l.end()
	d.drain(t, patience)
	f.judge(t, evidence{acked: l.acknowledged(), arrivals: r.arrived(), hooks: hooks, types: []string{"ticket.updated"}}, kills*inFlight)
}

// A rolling restart: every node is asked to stop and started again, under load.
// Nothing is lost and, since each finishes what it has begun, nothing is repeated.
//
//nolint:paralleltest // as above
func TestRollingRestart(t *testing.T) {
	f := openFleet(t, 3)
	r := receive(t, briefly)
	d := f.nodes[0]
	hooks := []hook{d.subscribe(t, r.url, nil, "ticket.updated"), d.subscribe(t, r.url, nil, "ticket.updated")}
	l := f.load(t, 200)
	for range form(1, 3) {
		for _, n := range f.nodes {
			pause(time.Second)
			if code := n.terminate(t); code != 0 {
				t.Errorf("a node that was asked to stop ended with %d", code)
			}
			n.start(t, "")
		}
	}
	pause(time.Second)
	l.end()
	d.drain(t, patience)
	f.judge(t, evidence{acked: l.acknowledged(), arrivals: r.arrived(), hooks: hooks, types: []string{"ticket.updated"}}, 0)
}

// The database ends and comes back, as its operator does it and as after a crash.
// While it is away the nodes say so, and afterwards nobody has to touch them.
//
//nolint:paralleltest // as above
func TestDatabaseRestarts(t *testing.T) {
	away := form(2*time.Second, 22*time.Second)
	f := openFleet(t, 2)
	r := receive(t, briefly)
	d := f.nodes[0]
	hooks := []hook{d.subscribe(t, r.url, nil, "ticket.updated"), d.subscribe(t, r.url, nil, "ticket.updated")}
	l := f.load(t, 200)
	for _, signal := range []string{"INT", "QUIT"} {
		pause(time.Second)
		f.server.Stop(t, signal)
		pause(away)
		for i, n := range f.nodes {
			if n.ready(t) {
				t.Errorf("node %d says that it is ready without its database", i)
			}
		}
		f.server.Start(t)
		had, began := l.count(), time.Now()
		within(t, 10*time.Second, "changes are acknowledged again", func() bool { return l.count() > had })
		for _, n := range f.nodes {
			within(t, 15*time.Second, "every node is ready again", func() bool { return n.ready(t) })
		}
		t.Logf("all is well %s after the database", time.Since(began).Round(time.Millisecond))
	}
	l.end()
	d.drain(t, patience)
	refused, silent := l.refusals()
	t.Logf("refused meanwhile: %v, without an answer: %d", refused, silent)
	for status := range refused {
		if status != http.StatusServiceUnavailable {
			t.Errorf("answered %d while the database was away", status)
		}
	}
	f.judge(t, evidence{acked: l.acknowledged(), arrivals: r.arrived(), hooks: hooks, types: []string{"ticket.updated"}}, 4*inFlight)
}

// A node that stands still for longer than its lease, and wakes up: the others
// have its work, and what it believes to hold does no harm.
//
//nolint:paralleltest // as above
func TestPausedNode(t *testing.T) {
	f := openFleet(t, 2)
	r := receive(t, briefly)
	d, paused := f.nodes[0], f.nodes[1]
	var hooks []hook
	for range 4 { // each node has some
		hooks = append(hooks, d.subscribe(t, r.url, nil, "ticket.updated"))
	}
	l := f.load(t, 100)
	for range form(1, 3) {
		pause(time.Second)
		// Requests to it wait meanwhile, those of its workers too.
		l.mu.Lock()
		l.nodes = f.nodes[:1]
		l.mu.Unlock()
		paused.signal(t, syscall.SIGSTOP)
		pause(13 * time.Second)
		paused.signal(t, syscall.SIGCONT)
	}
	within(t, patience, "the paused node is ready again", func() bool { return paused.ready(t) })
	l.end()
	d.drain(t, patience)
	f.judge(t, evidence{acked: l.acknowledged(), arrivals: r.arrived(), hooks: hooks, types: []string{"ticket.updated"}}, 3*2*inFlight)
}
