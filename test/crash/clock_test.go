package crash

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/test/postgres"
)

// setClock moves the clock of the server, running or yet to start, so that it is
// ahead of the machine's by so much: whole seconds, negative for behind.
func (d *desk) setClock(t *testing.T, ahead time.Duration) {
	t.Helper()
	// A rename, so that nobody reads half a number.
	next := d.clock + ".next"
	err := os.WriteFile(next, []byte(ahead.String()), 0o600)
	if err == nil {
		err = os.Rename(next, d.clock)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// The clock is set two hours ahead and two hours back under load, while requests
// are in flight and retries wait. Nothing is lost, nothing is sent twice: what is
// in flight stays with its sender however old its lease looks. No retry comes
// before its time, by the clock of its row, and the times of a ticket's events
// rise all the same.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "--retry-schedule", "1s,1s,1s,1s,1s", "--request-timeout", "2s")
	d.clock = filepath.Join(t.TempDir(), "clock")
	d.start(t, "")
	r := receive(t, nil)
	slow := d.subscribe(t, r.url, nil, "ticket.updated")
	failing := d.subscribe(t, r.url, nil, "ticket.updated")
	r.behave(func(a *arrival) reply {
		switch {
		case a.hook == slow.ID:
			return reply{wait: 150 * time.Millisecond} // more than it can take: it has a backlog
		case a.attempt <= 2 && strings.HasSuffix(a.event.ID, "0"):
			return reply{status: http.StatusInternalServerError}
		}
		return reply{}
	})
	l := startLoad(t, d, 200)
	for _, ahead := range []time.Duration{0, 2 * time.Hour, 0, -2 * time.Hour, 2 * time.Hour} {
		d.setClock(t, ahead)
		pause(form(2*time.Second, 10*time.Second))
	}
	l.end()
	r.behave(nil)
	// What fell due by the last jump is found by the look at everything, once a
	// minute; the short form does not wait for it.
	if !*long {
		d.terminate(t)
		d.start(t, "")
	}
	d.drain(t, 3*patience)
	v := judge(t, evidence{
		desk: d, acked: l.acknowledged(), arrivals: r.arrived(), hooks: []hook{slow, failing}, types: []string{"ticket.updated"}, ownClock: true,
	})
	refused, silent := l.refusals()
	t.Logf("refused: %v, unanswered: %d; %s", refused, silent, v)
	if v.repeats > 0 || len(refused) > 0 || silent > 0 {
		t.Errorf("%d deliveries were repeated, %v changes refused, %d not answered", v.repeats, refused, silent)
	}
	checkLog(t, d, slow, r.arrived(), 6)
	checkLog(t, d, failing, r.arrived(), 6)
	if n := checkRetries(t, d.log(t, failing), r.arrived()); n < 20 {
		t.Errorf("only %d retries were looked at", n)
	}
	checkTimes(t, d.feed(t))
	d.terminate(t)
	if n := number(t, d.open(t), "select count(*) from deliveries where lease_owner is not null or lease_until is not null"); n > 0 {
		t.Errorf("%d leases are left", n)
	}
}

// Three nodes, of which one is ten minutes ahead, one ten minutes behind, and both
// clocks are set in the midst of work, past each other. All go by the clock of the
// database: nothing is lost or sent twice, no lease ends before its time, retries
// come when they are due, events bear the right time, and a receiver that takes a
// signature for five minutes takes them all.
//
//nolint:paralleltest // three servers and a database are load enough
func TestClocksOfNodesDiffer(t *testing.T) {
	f := &fleet{server: postgres.Own(t), dir: t.TempDir(), skewed: true, args: []string{"--retry-schedule", "1s,2s,3s"}}
	for i, ahead := range []string{"0s", "10m", "-10m"} {
		if err := os.WriteFile(filepath.Join(f.dir, fmt.Sprint(i, ".clock")), []byte(ahead), 0o600); err != nil {
			t.Fatal(err)
		}
		f.add(t, f.server.URL())
	}
	d := f.nodes[0]
	r := receive(t, func(a *arrival) reply {
		if a.attempt <= 2 && strings.HasSuffix(a.event.ID, "0") {
			return reply{status: http.StatusInternalServerError}
		}
		return briefly(a)
	})
	var hooks []hook
	for range 6 { // each node has some
		hooks = append(hooks, d.subscribe(t, r.url, nil, "ticket.updated"))
	}
	pause(form(3*time.Second, 5*time.Second)) // they are known to be shared
	began := time.Now()
	l := f.load(t, 60)
	var set []time.Time // when clocks were set
	for _, ahead := range []time.Duration{0, -10 * time.Minute, 3 * time.Hour}[:form(2, 3)] {
		if ahead != 0 {
			set = append(set, time.Now())
			f.nodes[1].setClock(t, ahead)
			f.nodes[2].setClock(t, -2*ahead)
		}
		pause(form(3*time.Second, 20*time.Second))
	}
	l.end()
	ended := time.Now()
	d.drain(t, patience)
	refused, silent := l.refusals()
	if len(refused) > 0 || silent > 0 {
		t.Errorf("%v changes refused, %d not answered", refused, silent)
	}
	f.judge(t, evidence{acked: l.acknowledged(), arrivals: r.arrived(), hooks: hooks, types: []string{"ticket.updated"}}, 0)
	for _, h := range hooks {
		checkLog(t, d, h, r.arrived(), 4)
	}
	feed := d.feed(t, "ticket.updated")
	checkTimes(t, feed)
	for _, ev := range feed {
		if at, err := time.Parse(time.RFC3339, ev.OccurredAt); err != nil || at.Before(began.Add(-time.Second)) || at.After(ended.Add(time.Second)) {
			t.Errorf("event %s is of %s, and all happened from %s to %s", ev.ID, ev.OccurredAt, began, ended)
		}
	}
	checkSchedule(t, r.arrived(), []time.Duration{time.Second, 2 * time.Second}, set)
}

// checkSchedule checks that each retry comes by the schedule after the attempt
// before, a second late at most, and as late as a first attempt can be on a busy
// machine. A node whose clock was set sends nothing until it has asked the database
// for the time.
func checkSchedule(t *testing.T, arrivals []*arrival, schedule []time.Duration, set []time.Time) {
	t.Helper()
	away := func(due time.Time) bool {
		return slices.ContainsFunc(set, func(s time.Time) bool { return due.After(s.Add(-time.Second)) && due.Before(s.Add(3*time.Second)) })
	}
	at := map[key]map[int]time.Time{} // by event and attempt
	busy := time.Duration(0)
	for _, a := range arrivals {
		k := key{a.hook, a.event.ID}
		if at[k] == nil {
			at[k] = map[int]time.Time{}
		}
		at[k][a.attempt] = a.at
		if happened, err := time.Parse(time.RFC3339, a.event.OccurredAt); err == nil && a.attempt == 1 && !away(happened) {
			busy = max(busy, a.at.Sub(happened))
		}
	}
	retries, wrong, worst := 0, 0, time.Duration(0)
	for k, attempts := range at {
		for n, step := range schedule {
			before, after := attempts[n+1], attempts[n+2]
			if before.IsZero() || after.IsZero() {
				continue
			}
			retries++
			late, may := after.Sub(before)-step, time.Second+busy
			if away(before.Add(step)) {
				may += 3 * time.Second
			}
			if worst = max(worst, late); late < -100*time.Millisecond || late > may {
				if wrong++; wrong <= 5 {
					t.Errorf("attempt %d of event %s came %s after its time, want %s at most", n+2, k.id, late, may)
				}
			}
		}
	}
	t.Logf("first attempts took %s at most; of %d retries the latest was %s late, %d wrong",
		busy.Round(time.Millisecond), retries, worst.Round(time.Millisecond), wrong)
	if retries < 20 {
		t.Errorf("only %d retries were looked at", retries)
	}
}

// checkRetries compares when retries were made with when they were promised, both
// by the clock of the server, and returns how many there were. One that seems
// early may have been due when it was claimed, a moment before the clock was set
// back: then it came no earlier after the attempt before than the schedule says,
// whose steps are a second at most.
func checkRetries(t *testing.T, log []delivery, arrivals []*arrival) (retries int) {
	t.Helper()
	instant := func(text *string) time.Time {
		at, err := time.Parse(time.RFC3339, *text)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	arrived := map[string]time.Time{} // by delivery
	for _, a := range arrivals {
		arrived[a.delivery] = a.at
	}
	type chain struct {
		event   string
		attempt int
	}
	failed := map[chain]delivery{}
	for _, row := range log {
		if row.Status == "retrying" {
			failed[chain{row.EventID, row.Attempt}] = row
		}
	}
	for _, row := range log {
		before, isRetry := failed[chain{row.EventID, row.Attempt - 1}]
		if !isRetry || row.AttemptedAt == nil {
			continue
		}
		retries++
		due, made := instant(before.NextRetryAt), instant(row.AttemptedAt)
		step := min(due.Sub(instant(before.AttemptedAt)), time.Second)
		// An arrival is noted a moment after the attempt began.
		if waited := arrived[row.ID].Sub(arrived[before.ID]); made.Before(due) && waited < step-200*time.Millisecond {
			t.Errorf("attempt %d of event %s was made %s before its time, %s after the one before", row.Attempt, row.EventID, due.Sub(made), waited)
		}
	}
	return retries
}

// checkTimes checks that the times of each ticket's events rise, whatever the
// clock did (contract P14).
func checkTimes(t *testing.T, feed []event) {
	t.Helper()
	last := map[string]string{}
	for _, ev := range feed {
		at, err := time.Parse(time.RFC3339Nano, ev.OccurredAt)
		if err != nil {
			t.Fatal(err)
		}
		before := last[ev.Data.TicketID]
		if now := at.UTC().Format("2006-01-02T15:04:05.000000000"); now <= before {
			t.Errorf("event %s of ticket %s is of %s, the one before of %s", ev.ID, ev.Data.TicketID, now, before)
		} else {
			last[ev.Data.TicketID] = now
		}
	}
	if len(feed) == 0 {
		t.Error("there are no events")
	}
}
