package crash

import (
	"fmt"
	"net/http"
	"slices"
	"syscall"
	"testing"
	"time"
)

// The cases here are faults that were seen in other delivery engines on a
// machine like ours. The comments say what those did; the long form has the
// numbers with which they did it.

// Case 133: restarts in a row with a full queue and a slow receiver. A peer left
// 1,720 of 2,000 deliveries in a queue that nothing reads.
func TestRestartLoop(t *testing.T) {
	t.Parallel()
	events, slow, restarts := form(400, 2000), form(300*time.Millisecond, time.Second), form(4, 8)
	every := form(700*time.Millisecond, 2500*time.Millisecond)
	for name, signal := range map[string]syscall.Signal{"kill": syscall.SIGKILL, "terminate": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := openDesk(t)
			r := receive(t, func(*arrival) reply { return reply{wait: slow} })
			var hooks []hook
			for range 2 {
				hooks = append(hooks, d.subscribe(t, r.url, nil, "ticket.created"))
			}
			d.burst(t, events/2)
			for range restarts {
				pause(every)
				d.signal(t, signal)
				if code := d.ended(t); signal == syscall.SIGTERM && code != 0 {
					t.Errorf("exit code %d, want 0", code)
				}
				d.start(t, "")
			}
			r.behave(nil)
			d.drain(t, patience)
			v := judge(t, evidence{desk: d, arrivals: r.arrived(), hooks: hooks, types: []string{"ticket.created"}})
			t.Log(v)
			if signal == syscall.SIGTERM && v.repeats > 0 {
				t.Errorf("%d deliveries were sent twice although the server was asked to stop", v.repeats)
			}
			for _, h := range hooks {
				checkLog(t, d, h, r.arrived(), 1)
			}
		})
	}
}

// Case 134: chains that fail together make every attempt, none more and none
// fewer, and the log has a row for each. A peer lost 36 of 1,000 half way.
func TestChainsThatFailTogether(t *testing.T) {
	t.Parallel()
	chains, step := form(150, 1000), form(400, 3000)
	const attempts = 6
	d := openDesk(t)
	r := receive(t, func(*arrival) reply { return reply{status: http.StatusInternalServerError} })
	h := d.subscribe(t, r.url, object{"retry_config": object{"schedule": slices.Repeat([]int{step}, attempts-1)}}, "ticket.created")
	d.burst(t, chains)
	d.drain(t, 2*patience)
	v := judge(t, evidence{desk: d, arrivals: r.arrived(), hooks: []hook{h}, types: []string{"ticket.created"}})
	t.Log(v)
	if v.requests != chains*attempts || v.repeats != 0 {
		t.Errorf("%d requests, %d of them repeated, want %d and 0", v.requests, v.repeats, chains*attempts)
	}
	ends := map[string]int{}
	for _, row := range d.log(t, h) {
		ends[row.Status]++
	}
	if ends["retrying"] != chains*(attempts-1) || ends["abandoned"] != chains || len(ends) != 2 {
		t.Errorf("the log has %v", ends)
	}
	checkLog(t, d, h, r.arrived(), attempts)
}

// Case 135: a short schedule is kept to the second: never early, and hardly late.
// A peer was 30 s late at each step and made 16 attempts instead of 5.
func TestShortScheduleIsKept(t *testing.T) {
	t.Parallel()
	schedule := form([]int{1000, 2000, 4000}, []int{5000, 10_000, 20_000})
	d := openDesk(t)
	r := receive(t, func(*arrival) reply { return reply{status: http.StatusInternalServerError} })
	h := d.subscribe(t, r.url, object{"retry_config": object{"schedule": schedule}}, "ticket.created")
	d.newTicket(t, "On time")
	got := r.await(t, "every attempt is made", count(len(schedule)+1))
	d.drain(t, patience)
	due := got[0].at
	for i, ms := range schedule {
		due = due.Add(time.Duration(ms) * time.Millisecond)
		late := got[i+1].at.Sub(due)
		// Each delay counts from the end of the attempt before, which is a
		// moment after its arrival.
		if late < 0 || late > form(2*time.Second, time.Second) {
			t.Errorf("attempt %d was late by %s", i+2, late)
		}
		t.Logf("attempt %d: %s after the first", i+2, got[i+1].at.Sub(got[0].at).Round(time.Millisecond))
		due = got[i+1].at
	}
	if n := len(r.arrived()); n != len(schedule)+1 {
		t.Errorf("%d attempts, want %d", n, len(schedule)+1)
	}
	checkLog(t, d, h, r.arrived(), len(schedule)+1)
}

// Case 136: a tenant with a slow receiver and a long queue costs another tenant
// nothing. At a peer the other one's events took 43 s.
func TestSlowTenantHoldsUpNobody(t *testing.T) {
	t.Parallel()
	const queued, healthy = 640, 20
	limit := form(time.Second, 100*time.Millisecond) // other cases want the processor too
	slow := openDesk(t)
	tar := receive(t, func(*arrival) reply { return reply{wait: 4500 * time.Millisecond} })
	slow.subscribe(t, tar.url, nil, "ticket.created")
	slow.burst(t, queued)
	tar.await(t, "the slow receiver is busy", count(perWebhook))

	d := slow.another(t, "Second")
	r := receive(t, nil)
	d.subscribe(t, r.url, nil, "ticket.created")
	asked := map[string]time.Time{}
	var worst time.Duration
	for i := range healthy {
		at := time.Now()
		asked[d.newTicket(t, fmt.Sprintf("Healthy %d", i)).ID] = at
	}
	for _, a := range r.await(t, "the healthy events arrive", count(healthy)) {
		worst = max(worst, a.at.Sub(asked[a.event.Data.TicketID]))
	}
	t.Logf("%d events beside %d of a slow tenant: the slowest took %s from the call", healthy, queued, worst.Round(time.Millisecond))
	if worst > limit {
		t.Errorf("an event of the healthy tenant took %s, want at most %s", worst, limit)
	}
}

// Cases 137 and 138: another process locks the database. The API and /readyz say
// so while it lasts, the backlog shows in the metrics, and everything recovers
// without a hand. A peer accepted everything, delivered nothing and was healthy.
func TestStoreAway(t *testing.T) {
	t.Parallel()
	for _, away := range form([]time.Duration{13 * time.Second}, []time.Duration{22 * time.Second, 105 * time.Second}) {
		t.Run(away.String(), func(t *testing.T) {
			t.Parallel()
			d := openDesk(t)
			r := receive(t, briefly)
			h := d.subscribe(t, r.url, nil, "ticket.updated")
			l := startLoad(t, d, 200)
			l.reach(t, 50)
			unlock := lockDatabase(t, d)
			began := time.Now()
			eventually(t, "the API says so", func() bool { refused, _ := l.refusals(); return refused[http.StatusServiceUnavailable] > 0 })
			said := time.Since(began)
			if said > 15*time.Second {
				t.Errorf("it took %s until the API said so", said)
			}
			if d.ready(t) {
				t.Error("the server says that it is ready while it cannot write")
			}
			pause(time.Until(began.Add(away)))
			unlock()
			freed := time.Now()
			eventually(t, "the server is ready again", func() bool { return d.ready(t) })
			ready := time.Since(freed)
			l.reach(t, l.count()+50)
			l.end()
			d.drain(t, patience)
			refused, silent := l.refusals()
			v := judge(t, evidence{desk: d, acked: l.acknowledged(), arrivals: r.arrived(), hooks: []hook{h}, types: []string{"ticket.updated"}})
			t.Logf("refused: %v, first after %s, ready %s after the end; %s",
				refused, said.Round(time.Millisecond), ready.Round(time.Millisecond), v)
			if silent > 0 || len(refused) != 1 {
				t.Errorf("the outage was answered with %v, and %d times not at all", refused, silent)
			}
			checkLog(t, d, h, r.arrived(), 1)
		})
	}
}

// lockDatabase takes the write lock of the database, as a stuck program would.
func lockDatabase(t *testing.T, d *desk) (unlock func()) {
	t.Helper()
	db := d.open(t)
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ExecContext(t.Context(), "begin immediate"); err != nil {
		t.Fatal(err)
	}
	return func() {
		if _, err := conn.ExecContext(t.Context(), "rollback"); err != nil {
			t.Error(err)
		}
		conn.Close()
		db.Close()
	}
}

// Case 138, the other half: due work that does not move is a number that an
// alert can be made of, while the server is ready: it is the receiver that
// hangs.
func TestBacklogShows(t *testing.T) {
	t.Parallel()
	d := openDesk(t)
	open := make(chan struct{})
	r := receive(t, func(*arrival) reply { return reply{hold: open} })
	h := d.subscribe(t, r.url, nil, "ticket.created")
	d.burst(t, 100)
	eventually(t, "the backlog shows", func() bool {
		due, _ := d.metric(t, "ticketwire_deliveries_due")
		age, _ := d.metric(t, "ticketwire_oldest_due_seconds")
		return due >= 100 && age >= 2
	})
	if !d.ready(t) {
		t.Error("a receiver that hangs makes the server unready")
	}
	close(open)
	d.drain(t, patience)
	if age, ok := d.metric(t, "ticketwire_oldest_due_seconds"); !ok || age != 0 {
		t.Errorf("nothing is due, and the oldest is %v s old", age)
	}
	judge(t, evidence{desk: d, arrivals: r.arrived(), hooks: []hook{h}, types: []string{"ticket.created"}})
}

// Case 139: a burst to a webhook with a rate limit waits for its turn, and every
// delivery is attempt 1. A peer lost 634 of 1,000 at the default limit.
func TestBurstOverTheRateLimit(t *testing.T) {
	t.Parallel()
	events := form(60, 1000)
	rate := form[any](object{"enabled": true, "requests_per_minute": 600, "burst_limit": 20}, nil) // long: the default of 100 per minute
	d := openDesk(t)
	r := receive(t, nil)
	h := d.subscribe(t, r.url, object{"rate_limit": rate}, "ticket.created")
	d.burst(t, events)
	began := time.Now()
	d.drain(t, form(patience, 15*time.Minute))
	v := judge(t, evidence{desk: d, arrivals: r.arrived(), hooks: []hook{h}, types: []string{"ticket.created"}})
	t.Logf("%d events in %s: %s", events, time.Since(began).Round(time.Second), v)
	if v.requests != events {
		t.Errorf("%d requests, want %d", v.requests, events)
	}
	checkLog(t, d, h, r.arrived(), 1)
}
