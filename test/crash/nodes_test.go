package crash

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
	skewed bool     // each node has a clock of its own
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
	if f.skewed {
		d.clock = d.dir + ".clock"
	}
	f.nodes = append(f.nodes, d)
	d.start(t, "")
	return d
}

// as returns the nodes as another tenant sees them.
func (f *fleet) as(to tenant) (nodes []*desk) {
	for _, n := range f.nodes {
		nodes = append(nodes, &desk{dir: n.dir, store: n.store, url: n.url, tenant: to})
	}
	return nodes
}

// endSessions ends all sessions of the nodes, as an operator may who needs the
// database for himself, or a failover. It returns how many there were.
func (f *fleet) endSessions(t *testing.T) int {
	t.Helper()
	db, err := sql.Open("pgx", f.server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	return number(t, db, "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'ticketwire'")
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
// arrived. most is how many requests may have come again.
func (f *fleet) judge(t *testing.T, e evidence, most int) {
	t.Helper()
	if e.desk == nil {
		e.desk = f.nodes[0]
	}
	feed := e.desk.feed(t, e.types...)
	again := 0
	seen := map[key]int{} // by delivery: its attempt
	for _, a := range e.arrivals {
		k := key{a.hook, a.delivery}
		if before := seen[k]; before != 0 {
			again++
			if before != a.attempt {
				t.Errorf("delivery %s was attempt %d and is attempt %d: a crash uses up no attempt", a.delivery, before, a.attempt)
			}
		}
		seen[k] = a.attempt
	}
	lost := e.lost(t, feed, e.first(t))
	e.signatures(t)
	t.Logf("%d acknowledged changes, %d events, %d requests: %d lost, %d repeated", len(e.acked), len(feed), len(e.arrivals), lost, again)
	if again > most {
		t.Errorf("%d requests came again, want at most %d", again, most)
	}
}

// inFlight is how many requests of two webhooks one node can have on their way.
const inFlight = 2 * perWebhook

// Case B17: three nodes that nothing happens to send each event once to each webhook,
// as attempt 1.
//
//nolint:paralleltest // three servers and a database are load enough
func TestNodesSendOnce(t *testing.T) {
	changes := form(500, 10_000)
	f := openFleet(t, 3)
	r := receive(t, briefly)
	d := f.nodes[0]
	var hooks []hook
	for range form(2, 6) {
		hooks = append(hooks, d.subscribe(t, r.url, nil, "ticket.updated"))
	}
	l := f.load(t, form(300, 250))
	within(t, 5*patience, "enough changes are acknowledged", func() bool { return l.count() >= changes })
	l.end()
	d.drain(t, patience)
	if refused, silent := l.refusals(); len(refused) > 0 || silent > 0 {
		t.Errorf("%v changes refused, %d not answered", refused, silent)
	}
	f.judge(t, evidence{acked: l.acknowledged(), arrivals: r.arrived(), hooks: hooks, types: []string{"ticket.updated"}}, 0)
	for _, h := range hooks {
		checkLog(t, d, h, r.arrived(), 1)
	}
}

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

// A rolling upgrade: each node in turn is replaced by one of a release that has
// more columns and tables. Old and new work beside each other, and one of the old
// that dies cannot come back and says why.
//
//nolint:paralleltest // as above
func TestRollingUpgrade(t *testing.T) {
	if !*long {
		t.Skip("it builds the program once more: only with -long")
	}
	next := nextRelease(t)
	f := openFleet(t, 3)
	r := receive(t, briefly)
	d := f.nodes[0]
	var hooks []hook
	for range 4 { // each node has some
		hooks = append(hooks, d.subscribe(t, r.url, nil, "ticket.updated"))
	}
	probe := d.newTicket(t, "Probe")
	l := f.load(t, 30)
	for i, n := range f.nodes {
		pause(2 * time.Second)
		if i < 2 {
			if code := n.terminate(t); code != 0 {
				t.Errorf("a node that was asked to stop ended with %d", code)
			}
		} else {
			n.kill(t)
			if err := n.tryStart(t, ""); err == nil || !strings.Contains(err.Error(), "newer release") {
				t.Errorf("a node of the release before started: %v", err)
			}
		}
		n.binary = next
		n.start(t, "")
		began := time.Now()
		within(t, patience, "old and new work side by side", func() bool { return f.atOnce(t, r, hooks, probe) })
		t.Logf("all is well %s after node %d is new", time.Since(began).Round(time.Millisecond), i)
	}
	l.end()
	d.drain(t, patience)
	refused, _ := l.refusals()
	if len(refused) > 0 {
		t.Errorf("%v changes were refused", refused)
	}
	f.judge(t, evidence{acked: l.acknowledged(), arrivals: r.arrived(), hooks: hooks, types: []string{"ticket.updated"}}, len(hooks)*perWebhook)
}

// nextRelease builds a program that has a migration more than this one.
func nextRelease(t *testing.T) (binary string) {
	t.Helper()
	dir := t.TempDir()
	place, err := filepath.Abs("../../internal/store/migrations/9999_next.sql")
	if err != nil {
		t.Fatal(err)
	}
	migration, overlay := filepath.Join(dir, "next.sql"), filepath.Join(dir, "overlay.json")
	text, err := json.Marshal(object{"Replace": object{place: migration}})
	if err == nil {
		err = errors.Join(os.WriteFile(overlay, text, 0o600), os.WriteFile(migration, []byte(`
			alter table tickets add column next text;
			alter table webhooks add column next text not null default 'x';
			alter table events add column next text;
			alter table deliveries add column next text;
			create table next (id text not null primary key);`), 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	binary = filepath.Join(dir, "ticketwire-next")
	build := exec.CommandContext(t.Context(), "go", "build", "-overlay", overlay, "-o", binary, "github.com/ticketwire/ticketwire/cmd/ticketwire")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the next release: %v\n%s", err, out)
	}
	return binary
}

// The database ends and comes back, as its operator does it and as after a crash,
// and once only the sessions end. While it is away every node says so, and
// afterwards nobody has to touch them: within five seconds a change of any node is
// at its webhooks as fast as ever.
//
//nolint:paralleltest // as above
func TestDatabaseRestarts(t *testing.T) {
	f := openFleet(t, 3)
	r := receive(t, briefly)
	d := f.nodes[0]
	var hooks []hook
	for range form(2, 6) {
		hooks = append(hooks, d.subscribe(t, r.url, nil, "ticket.updated"))
	}
	probe := d.newTicket(t, "Probe")
	within(t, patience, "the nodes know each other", func() bool { return f.atOnce(t, r, hooks, probe) })
	l := f.load(t, form(200, 100))
	for _, outage := range []struct {
		signal string // "": the sessions end
		away   time.Duration
	}{
		{"INT", form(2*time.Second, 22*time.Second)},
		{"", 0},
		{"QUIT", form(2*time.Second, 105*time.Second)},
	} {
		pause(time.Second)
		if outage.signal == "" {
			t.Logf("%d sessions are ended", f.endSessions(t))
		} else {
			f.server.Stop(t, outage.signal)
			for began := time.Now(); time.Since(began) < outage.away; pause(time.Second) {
				for i, n := range f.nodes {
					if n.ready(t) {
						t.Errorf("node %d says that it is ready without its database", i)
					}
				}
			}
			f.server.Start(t)
		}
		began := time.Now()
		within(t, 5*time.Second, "a change of any node is at all webhooks at once", func() bool {
			return f.atOnce(t, r, hooks, probe)
		})
		t.Logf("all is well %s after %q and %s", time.Since(began).Round(time.Millisecond), outage.signal, outage.away)
		for _, n := range f.nodes {
			within(t, 5*time.Second, "every node is ready again", func() bool { return n.ready(t) })
		}
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

// atOnce changes a ticket on every node, and reports whether each change was at all
// webhooks a second after its call.
func (f *fleet) atOnce(t *testing.T, r *receiver, hooks []hook, probe ticket) bool {
	t.Helper()
	for i, n := range f.nodes {
		title, began := fmt.Sprintf("Node %d at %s", i, time.Now()), time.Now()
		status, err := n.try(t.Context(), http.MethodPut, "/api/v1/tickets/"+probe.ID, object{"title": title}, nil)
		if err != nil || status != http.StatusOK {
			return false
		}
		for missing := len(hooks); missing > 0; pause(10 * time.Millisecond) {
			if missing = len(hooks); time.Since(began) > time.Second {
				return false
			}
			for _, a := range r.arrived() {
				if a.event.Data.Title == title {
					missing--
				}
			}
		}
	}
	return true
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
