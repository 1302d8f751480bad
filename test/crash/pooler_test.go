package crash

import (
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/test/postgres"
)

// Two nodes behind a pooler that has fewer sessions than they have connections: the
// nodes are killed in turn, and the pooler ends, as its operator does it and as
// after a crash, and starts again.
//
//nolint:paralleltest // three servers and a database are load enough
func TestNodesBehindPooler(t *testing.T) {
	rounds := form(1, 5)
	f := openFleet(t, 0)
	pooler := postgres.Pool(t, f.server.URL(), "transaction", 4)
	d := f.add(t, pooler.URL())
	f.add(t, pooler.URL())
	r := receive(t, briefly)
	hooks := []hook{d.subscribe(t, r.url, nil, "ticket.updated"), d.subscribe(t, r.url, nil, "ticket.updated")}
	l := f.load(t, 200)
	for range rounds {
		for _, n := range f.nodes {
			pause(time.Second + rand.N(time.Second))
			n.kill(t)
			n.start(t, "")
		}
		for _, signal := range []string{"TERM", "KILL"} {
			pause(time.Second + rand.N(time.Second))
			pooler.Stop(t, signal)
			pause(form(time.Second, 8*time.Second))
			pooler.Start(t)
			had, began := l.count(), time.Now()
			within(t, 10*time.Second, "changes are acknowledged again", func() bool { return l.count() > had })
			for _, n := range f.nodes {
				within(t, 15*time.Second, "every node is ready again", func() bool { return n.ready(t) })
			}
			t.Logf("all is well %s after the pooler", time.Since(began).Round(time.Millisecond))
		}
	}
	l.end()
	d.drain(t, patience)
	refused, silent := l.refusals()
	t.Logf("refused meanwhile: %v, without an answer: %d", refused, silent)
	for status := range refused {
		if status != http.StatusServiceUnavailable {
			t.Errorf("answered %d while the pooler was away", status)
		}
	}
	f.judge(t, evidence{acked: l.acknowledged(), arrivals: r.arrived(), hooks: hooks, types: []string{"ticket.updated"}}, len(f.nodes)*rounds*inFlight)
}
