package crash

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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
