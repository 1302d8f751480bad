package crash

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// cable stands between a node and its database. Cut, it passes nothing on and ends
// nothing, as a network does that swallows packets.
type cable struct {
	url  string // of the database behind it
	all  sync.WaitGroup
	mu   sync.Mutex
	open []net.Conn    // guarded by mu
	mend chan struct{} // guarded by mu; closed while the cable is whole
}

func layCable(t *testing.T, url string) *cable {
	t.Helper()
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{url: fmt.Sprintf("postgres://%s@%s:%s/%s?sslmode=disable", cfg.User, host, port, cfg.Database), mend: make(chan struct{})}
	close(c.mend)
	network, server := pgconn.NetworkAddress(cfg.Host, cfg.Port)
	c.all.Go(func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial(network, server)
			if err != nil {
				from.Close()
				continue
			}
			c.mu.Lock()
			c.open = append(c.open, from, to)
			c.mu.Unlock()
			c.all.Go(func() { c.pass(from, to) })
			c.all.Go(func() { c.pass(to, from) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		c.whole()
		c.reset()
		c.all.Wait()
	})
	return c
}

func (c *cable) pass(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 1<<16)
	for {
		n, err := from.Read(buf)
		c.mu.Lock()
		mend := c.mend
		c.mu.Unlock()
		<-mend
		if n > 0 {
			if _, werr := to.Write(buf[:n]); werr != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// reset ends all connections, as a firewall does that forgets them.
func (c *cable) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.open {
		n.Close()
	}
	c.open = nil
}

// cut and whole may be called in turn.
func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mend = make(chan struct{})
}

func (c *cable) whole() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.mend:
	default:
		close(c.mend)
	}
}

// The network between one node and the database swallows everything. The node says
// that it is not ready and stops to send, the other sends for its webhooks, and
// afterwards nobody has to touch it.
//
//nolint:paralleltest // it measures
func TestNodeWithoutNetwork(t *testing.T) {
	away := form(20*time.Second, time.Minute)
	f := openFleet(t, 1)
	d := f.nodes[0]
	cable := layCable(t, f.server.URL())
	far := f.add(t, cable.url)
	r := receive(t, briefly)
	var hooks []hook
	for range 6 { // each node has some
		hooks = append(hooks, d.subscribe(t, r.url, nil, "ticket.updated"))
	}
	pause(5 * time.Second) // they are known to be shared
	l := newLoad(t, d)
	l.start(t, 50)
	pause(time.Second)
	began := time.Now()
	cable.cut()
	within(t, 15*time.Second, "the node says that it is not ready", func() bool { return !far.ready(t) })
	arrived := func() bool {
		got := map[string]bool{}
		for _, a := range r.arrived() {
			if a.at.Sub(began) > 2*time.Second {
				got[a.hook] = true
			}
		}
		return !slices.ContainsFunc(hooks, func(h hook) bool { return !got[h.ID] })
	}
	within(t, 15*time.Second, "the other node sends for all webhooks", arrived)
	t.Logf("all webhooks get events %s after the cut", time.Since(began).Round(time.Millisecond))
	pause(away - time.Since(began))
	if said := far.server.printed(); !strings.Contains(said, "ended, or its clock was set a moment ago: renew the lease of the node: ") {
		t.Errorf("the log does not say why the node sends nothing:\n%s", said)
	}
	cable.whole()
	within(t, patience, "the node is ready again", func() bool { return far.ready(t) })
	pause(time.Second)
	l.end()
	d.drain(t, patience)
	f.judge(t, evidence{acked: l.acknowledged(), arrivals: r.arrived(), hooks: hooks, types: []string{"ticket.updated"}}, 2*len(hooks)*perWebhook)
}

// The rate limit of a webhook is one for all nodes, also when its node dies and
// another goes on: in no time of any length more than its share and one burst.
//
//nolint:paralleltest // it measures
func TestOneRateLimitForAllNodes(t *testing.T) {
	f := openFleet(t, 3)
	d := f.nodes[0]
	r := receive(t, briefly)
	pause(5 * time.Second)
	const perMinute, burst = 600, 50
	d.subscribe(t, r.url, object{"rate_limit": object{"enabled": true, "requests_per_minute": perMinute, "burst_limit": burst}}, "ticket.updated")
	l := f.load(t, 100)
	for i, n := range f.nodes {
		pause(form(4*time.Second, 25*time.Second))
		if i == 0 {
			continue // it is asked in the end
		}
		n.kill(t)
		n.start(t, "")
	}
	pause(form(10*time.Second, 20*time.Second))
	l.end()
	var at []time.Time
	for _, a := range r.arrived() {
		at = append(at, a.at)
	}
	slices.SortFunc(at, time.Time.Compare)
	worst := 0.0
	for i := range at {
		for j := i; j < len(at) && at[j].Sub(at[i]) <= time.Minute; j++ {
			allowed := burst + perMinute*at[j].Sub(at[i]).Minutes()
			worst = max(worst, float64(j-i+1)/allowed)
		}
	}
	t.Logf("%d requests in %s; at most %.0f %% of what the limit allows", len(at), at[len(at)-1].Sub(at[0]).Round(time.Second), 100*worst)
	if worst > 1.02 { // requests wait for their turn on a busy machine
		t.Errorf("%.2f times of what the limit allows", worst)
	}
	// The nodes that are killed can be those that send: then nothing goes out until
	// their leases have ended, twice up to 13 s.
	if len(at) < form(40, 100) {
		t.Errorf("%d requests: the limit was not used", len(at))
	}
}
