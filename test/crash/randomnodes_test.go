package crash

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/test/postgres"
)

// TestRandomFaultsOfNodes is TestRandomFaults with three nodes on one PostgreSQL:
// the trouble is that of a node, of its network, or of the database. Each fault ends
// before the next begins, but what follows from it need not have.
//
//nolint:paralleltest // three servers and a database are load enough
func TestRandomFaultsOfNodes(t *testing.T) {
	if !*long {
		t.Skip("a short run would find little: only with -long")
	}
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	length := 3 * time.Minute
	if *seconds > 0 {
		length = time.Duration(*seconds) * time.Second
	}
	t.Logf("repeat it with -run TestRandomFaultsOfNodes -long -seconds %.0f -seed %d", length.Seconds(), s)
	c := newNodesChaos(t, s)
	for began := time.Now(); time.Since(began) < length; {
		c.fault(t)
	}
	c.settle(t)
	c.check(t)
}

// nodesChaos is three nodes with two tenants under faults.
type nodesChaos struct {
	random  *rand.Rand // of the test's goroutine
	fleet   *fleet
	cables  []*cable // of the nodes
	first   *party
	second  *party
	outages []outage       // times in which a request may have been sent whose record was lost
	count   map[string]int // faults by name
}

func newNodesChaos(t *testing.T, seed uint64) *nodesChaos {
	t.Helper()
	c := &nodesChaos{random: rand.New(rand.NewPCG(seed, 0)), count: map[string]int{}}
	c.fleet = &fleet{server: postgres.Own(t), dir: t.TempDir(), skewed: true, args: []string{
		"--retry-schedule", "200ms,400ms,600ms,800ms,1s", "--request-timeout", "1s",
	}}
	for i := range 3 {
		if err := os.WriteFile(filepath.Join(c.fleet.dir, fmt.Sprint(i, ".clock")), []byte("0s"), 0o600); err != nil {
			t.Fatal(err)
		}
		cable := layCable(t, c.fleet.server.URL())
		c.cables = append(c.cables, cable)
		c.fleet.add(t, cable.url)
	}
	d := c.fleet.nodes[0]
	c.first = newParty(t, d, rand.NewPCG(seed, 1))
	c.second = newParty(t, d.another(t, "Second"), rand.NewPCG(seed, 2))
	for _, p := range []*party{c.first, c.second} {
		p.load.nodes = c.fleet.as(p.desk.tenant)
		p.load.start(t, 50)
	}
	return c
}

// fault makes one kind of trouble and waits until it is over.
func (c *nodesChaos) fault(t *testing.T) {
	t.Helper()
	pause(time.Duration(100+c.random.IntN(900)) * time.Millisecond)
	p := c.first
	if c.random.IntN(2) == 0 {
		p = c.second
	}
	i := c.random.IntN(len(c.fleet.nodes))
	n, cable := c.fleet.nodes[i], c.cables[i]
	// Half of what lasts is shorter than a lease, and half is longer.
	lasts := time.Duration(200+c.random.IntN(15_000)) * time.Millisecond
	o := outage{down: time.Now()}
	mayRepeat := true
	var name string
	switch k := c.random.IntN(100); {
	case k < 16:
		name = "kill -9"
		n.kill(t)
		c.restart(t, n)
	case k < 22:
		name = "node away"
		n.kill(t)
		pause(lasts)
		c.restart(t, n)
	case k < 32:
		name, mayRepeat = "SIGTERM", false
		if code := n.terminate(t); code != 0 {
			t.Errorf("exit code %d after SIGTERM", code)
		}
		c.restart(t, n)
	case k < 42:
		name = "SIGSTOP"
		n.signal(t, syscall.SIGSTOP)
		pause(lasts)
		n.signal(t, syscall.SIGCONT)
	case k < 50:
		name = "network cut"
		cable.cut()
		pause(lasts)
		cable.whole()
	case k < 56:
		name = "network reset"
		cable.reset()
	case k < 62:
		name = "sessions ended"
		c.fleet.endSessions(t)
	case k < 66:
		name = "database away"
		c.fleet.server.Stop(t, []string{"INT", "QUIT"}[c.random.IntN(2)])
		pause(lasts)
		c.fleet.server.Start(t)
	case k < 76:
		name, mayRepeat = "clock set", false
		n.setClock(t, time.Duration(c.random.IntN(361)-180)*time.Minute)
	case k < 84:
		mayRepeat = false
		name = p.strike(c.random, lasts/3)
	case k < 90:
		name, mayRepeat = "secret rotated", false
		p.rotate(t, c.random)
	case k < 96:
		name, mayRepeat = "webhook edited", false
		p.edit(t, c.random)
	default:
		name, mayRepeat = "webhook switched", false
		p.toggle(t)
	}
	if o.ready = time.Now(); mayRepeat {
		c.outages = append(c.outages, o)
	}
	t.Logf("%s to %s: %s, node %d", o.down.Format("15:04:05.000"), o.ready.Format("05.000"), name, i)
	c.count[name]++
}

// restart starts a node, every other time with something in its store or its
// attempts that will fail after a while.
func (c *nodesChaos) restart(t *testing.T, n *desk) {
	t.Helper()
	at := 20 + c.random.IntN(300)
	rules := []struct{ name, rule string }{
		{"store refuses", fmt.Sprintf("store.commit=error@%d:3s", at)},
		{"store refuses results", fmt.Sprintf("store.record=error@%d:3s", at)},
		{"store is slow", fmt.Sprintf("store.commit=sleep(40ms)@%dx50", at)},
		{"attempts panic", fmt.Sprintf("dispatch.attempt=panic@%dx5", at)},
	}
	faults := ""
	if k := c.random.IntN(2 * len(rules)); k < len(rules) {
		faults = rules[k].rule
		c.count[rules[k].name]++
	}
	n.start(t, faults)
}

// settle ends the trouble and lets everything that is owed go out.
func (c *nodesChaos) settle(t *testing.T) {
	t.Helper()
	for _, n := range c.fleet.nodes {
		within(t, patience, "every node is ready", func() bool { return n.ready(t) })
	}
	c.first.settle(t)
	c.second.settle(t)
	c.fleet.nodes[0].drain(t, 3*patience)
	t.Logf("faults: %v", c.count)
}

// check balances the books.
func (c *nodesChaos) check(t *testing.T) {
	t.Helper()
	for _, p := range []*party{c.first, c.second} {
		e := evidence{
			desk: p.desk, acked: p.load.acknowledged(), arrivals: p.r.arrived(),
			hooks: []hook{p.steady, p.edited}, types: []string{"ticket.updated"}, secrets: p.secrets,
		}
		c.fleet.judge(t, e, len(c.outages)*inFlight)
		p.desk.outages = c.outages
		var v verdict
		e.repeats(t, &v)
		refused, silent := p.check(t)
		t.Logf("%d refused, %d unanswered, at most %d repeated after one fault", refused, silent, v.most)
	}
	for _, n := range c.fleet.nodes {
		if code := n.terminate(t); code != 0 {
			t.Errorf("exit code %d after SIGTERM", code)
		}
	}
	db, err := sql.Open("pgx", c.fleet.server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, left := range []string{"deliveries where lease_owner is not null or lease_until is not null", "handovers", "nodes"} {
		if n := number(t, db, "select count(*) from "+left); n > 0 {
			t.Errorf("%d are left of %s", n, left)
		}
	}
}
