package crash

import (
	"math/rand/v2"
	"testing"
	"time"
)

// briefly answers 200 after up to 20 ms, so that a kill finds requests in flight.
func briefly(*arrival) reply { return reply{wait: rand.N(20 * time.Millisecond)} }

// Case 1: random kill -9 under load. It runs alone, since its recovery times are
// measured.
//
//nolint:paralleltest // it measures
func TestRandomKills(t *testing.T) {
	kills, changes, rate := form(4, 20), form(1000, 10_000), form(400, 200)
	gap := func() time.Duration { return time.Second + rand.N(4*time.Second) }
	if !*long {
		gap = func() time.Duration { return 200*time.Millisecond + rand.N(600*time.Millisecond) }
	}
	d := openDesk(t)
	r := receive(t, briefly)
	hooks := []hook{d.subscribe(t, r.url, nil, "ticket.updated"), d.subscribe(t, r.url, nil, "ticket.updated")}
	l := startLoad(t, d, rate)
	for range kills {
		pause(gap())
		d.kill(t)
		d.start(t, "")
	}
	within(t, 10*patience, "enough changes are acknowledged", func() bool { return l.count() >= changes })
	l.end()
	d.drain(t, patience)
	v := judge(t, evidence{desk: d, acked: l.acknowledged(), arrivals: r.arrived(), hooks: hooks, types: []string{"ticket.updated"}})
	t.Logf("%d kills: %s", kills, v)
	if v.recovery > form(5*time.Second, time.Second) {
		t.Errorf("an interrupted delivery went out %s after the server was ready", v.recovery)
	}
}
