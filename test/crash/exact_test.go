package crash

import (
	"bytes"
	"database/sql"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the driver of the embedded store
)

// open opens the database of a desk, to look at what no route shows.
func (d *desk) open(t *testing.T) *sql.DB {
	t.Helper()
	return openDatabase(t, filepath.Join(d.dir, "ticketwire.db"))
}

func openDatabase(t *testing.T, file string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: file, RawQuery: "_pragma=busy_timeout(10000)"}).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// number runs a query with one number as its answer.
func number(t *testing.T, db *sql.DB, query string, args ...any) (n int) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

// Case 2 and its neighbours: the server ends inside a commit, and on both sides
// of it. A ticket and its events are there together or not at all, and what was
// acknowledged is there.
func TestKillInsideTheCommit(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"store.events", "store.commit", "store.committed"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			d := openDesk(t)
			r := receive(t, briefly)
			h := d.subscribe(t, r.url, nil, "ticket.updated")
			l := newLoad(t, d)
			d.terminate(t)
			rounds := form(2, 10)
			for i := range rounds {
				d.start(t, fmt.Sprintf("%s=kill@%d", point, 40+17*i))
				if i == 0 {
					l.start(t, 400)
				}
				d.killedItself(t)
			}
			d.start(t, "")
			l.end()
			d.drain(t, patience)
			v := judge(t, evidence{
				desk: d, acked: l.acknowledged(), arrivals: r.arrived(), hooks: []hook{h}, types: []string{"ticket.updated"},
			})
			t.Logf("%d kills at %s: %s", rounds, point, v)

			// Each ticket is as its newest event says.
			newest := map[string]event{}
			for _, ev := range d.feed(t) {
				newest[ev.Data.TicketID] = ev
			}
			for _, tk := range l.tickets {
				now := call[ticket](t, d, "GET", "/tickets/"+tk.ID, nil)
				if ev := newest[tk.ID]; now.Title != ev.Data.Title || now.UpdatedAt != ev.Data.UpdatedAt {
					t.Errorf("the ticket is %q of %s, its newest event says %q of %s",
						now.Title, now.UpdatedAt, ev.Data.Title, ev.Data.UpdatedAt)
				}
			}
		})
	}
}

// Case 3: the server ends with deliveries claimed or handed over and nothing
// sent. They are sent after the restart, not after their leases, and as the same
// attempts.
func TestKillBeforeConnect(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.start(t, "dispatch.attempt=kill@60")
	r := receive(t, briefly)
	h := d.subscribe(t, r.url, nil, "ticket.updated")
	l := startLoad(t, d, 400)
	d.killedItself(t)
	d.start(t, "")
	l.end()
	d.drain(t, patience)
	v := judge(t, evidence{desk: d, acked: l.acknowledged(), arrivals: r.arrived(), hooks: []hook{h}, types: []string{"ticket.updated"}})
	t.Log(v)
	if v.recovery > 10*time.Second {
		t.Errorf("a claimed delivery went out %s after the restart", v.recovery)
	}
	checkLog(t, d, h, r.arrived(), 1)
}

// checkLog compares the delivery log with what arrived: a row for every attempt
// that was sent, at most so many attempts per event, numbered from 1 without a
// gap, and none that is still owed.
func checkLog(t *testing.T, d *desk, h hook, arrivals []*arrival, most int) {
	t.Helper()
	rows := map[string]delivery{}
	attempts := map[string]map[int]bool{}
	for _, row := range d.log(t, h) {
		rows[row.ID] = row
		if row.Status == "pending" {
			t.Errorf("delivery %s is still owed", row.ID)
		}
		if row.IsTest || row.IsManual || row.AttemptedAt == nil {
			continue
		}
		if attempts[row.EventID] == nil {
			attempts[row.EventID] = map[int]bool{}
		}
		if attempts[row.EventID][row.Attempt] {
			t.Errorf("event %s has attempt %d twice in the log", row.EventID, row.Attempt)
		}
		attempts[row.EventID][row.Attempt] = true
	}
	for id, seen := range attempts {
		for n := 1; n <= len(seen); n++ {
			if !seen[n] {
				t.Errorf("the log of event %s has no attempt %d, but %d attempts", id, n, len(seen))
			}
		}
		if len(seen) > most {
			t.Errorf("event %s took %d attempts, want at most %d", id, len(seen), most)
		}
	}
	for _, a := range arrivals {
		if row, found := rows[a.delivery]; a.hook == h.ID && (!found || row.Attempt != a.attempt || row.EventID != a.event.ID) {
			t.Errorf("delivery %s arrived as attempt %d of event %s and is in the log as %+v", a.delivery, a.attempt, a.event.ID, row)
		}
	}
}

// Case 4: the server ends when the request is out: while the receiver thinks, and
// after it has answered. The event comes again with the same bytes under the same
// ids, and its signature is fresh.
func TestKillBetweenSendAndRecord(t *testing.T) {
	t.Parallel()
	for name, faults := range map[string]string{"the answer is not read": "", "the answer is not recorded": "dispatch.answered=kill"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			d.start(t, faults)
			open, acked := make(chan struct{}), make(chan struct{})
			r := receive(t, func(*arrival) reply {
				if faults == "" {
					return reply{hold: open}
				}
				return reply{hold: acked} // the server may end before it has answered the call otherwise
			})
			h := d.subscribe(t, r.url, nil, "ticket.created")
			d.newTicket(t, "Sent and not recorded")
			close(acked)
			r.await(t, "the event arrives", count(1))
			if faults == "" {
				d.kill(t)
			} else {
				d.killedItself(t)
			}
			close(open)
			pause(1100 * time.Millisecond) // the time in a signature has seconds
			d.start(t, "")
			got := r.await(t, "the event arrives again", count(2))
			d.drain(t, patience)
			if a, b := got[0], got[1]; a.event.ID != b.event.ID || a.delivery != b.delivery || a.attempt != 1 || b.attempt != 1 ||
				!bytes.Equal(a.body, b.body) {
				t.Errorf("it came as %+v and then as %+v", a, b)
			} else if stamp(a.signature) >= stamp(b.signature) {
				t.Errorf("the signatures are of %s and %s", stamp(a.signature), stamp(b.signature))
			}
			v := judge(t, evidence{desk: d, arrivals: r.arrived(), hooks: []hook{h}, types: []string{"ticket.created"}})
			if v.requests != 2 {
				t.Errorf("%d requests, want 2", v.requests)
			}
			checkLog(t, d, h, got, 1)
			t.Log(v)
		})
	}
}

func stamp(signature string) string {
	t, _, _ := strings.Cut(signature, ",")
	return t
}

// Case 6: a retry that sleeps for 12 hours is due when it was due, however the
// server ends.
func TestSleepingRetrySurvives(t *testing.T) {
	t.Parallel()
	d := openDesk(t)
	r := receive(t, func(*arrival) reply { return reply{status: 500} })
	h := d.subscribe(t, r.url, object{"retry_config": object{"schedule": []int{12 * 3600 * 1000}}}, "ticket.created")
	d.newTicket(t, "Sleeps")
	var before []delivery
	eventually(t, "the retry is scheduled", func() bool { before = d.log(t, h); return len(before) == 2 })
	d.kill(t)
	d.start(t, "")
	d.terminate(t)
	d.start(t, "")
	after := d.log(t, h)
	if len(after) != 2 {
		t.Fatalf("the log has %d rows, want 2", len(after))
	}
	for i := range after {
		a, b := before[i], after[i]
		if a.ID != b.ID || a.Status != b.Status || a.Attempt != b.Attempt || *a.NextRetryAt != *b.NextRetryAt {
			t.Errorf("row %d was %+v and is %+v", i, a, b)
		}
	}
	due, err := time.Parse(time.RFC3339, *after[0].NextRetryAt)
	if err != nil {
		t.Fatal(err)
	}
	if in := time.Until(due); in < 12*time.Hour-patience || in > 12*time.Hour {
		t.Errorf("the retry is due in %s", in)
	}
	if n := len(r.arrived()); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

// Case 7, the first half: SIGTERM, and SIGKILL before the requests in flight have
// ended.
func TestKillWhileStopping(t *testing.T) {
	t.Parallel()
	d := openDesk(t)
	open := make(chan struct{})
	r := receive(t, func(a *arrival) reply { return reply{hold: open} })
	h := d.subscribe(t, r.url, nil, "ticket.created")
	d.burst(t, 40)
	r.await(t, "the webhook has all the requests that it may have", count(perWebhook))
	d.signal(t, syscall.SIGTERM)
	pause(time.Second)
	d.kill(t)
	close(open)
	d.start(t, "")
	d.drain(t, patience)
	v := judge(t, evidence{desk: d, arrivals: r.arrived(), hooks: []hook{h}, types: []string{"ticket.created"}})
	t.Log(v)
	if v.events != 40 || v.repeats != perWebhook {
		t.Errorf("%d events, %d came twice, want 40 and %d", v.events, v.repeats, perWebhook)
	}
	checkLog(t, d, h, r.arrived(), 1)
}

// Case 7, the second half: SIGTERM alone under load. What is in flight ends, and
// nothing comes twice.
func TestTerminateUnderLoad(t *testing.T) {
	t.Parallel()
	d := openDesk(t)
	r := receive(t, func(*arrival) reply { return reply{wait: 300 * time.Millisecond} })
	h := d.subscribe(t, r.url, nil, "ticket.updated")
	l := startLoad(t, d, 200)
	for range form(2, 10) {
		pause(700 * time.Millisecond)
		if code := d.terminate(t); code != 0 {
			t.Errorf("exit code %d, want 0", code)
		}
		d.start(t, "")
	}
	l.end()
	r.behave(nil)
	d.drain(t, patience)
	v := judge(t, evidence{desk: d, acked: l.acknowledged(), arrivals: r.arrived(), hooks: []hook{h}, types: []string{"ticket.updated"}})
	t.Log(v)
	if v.repeats != 0 {
		t.Errorf("%d deliveries came twice although the server was asked to stop", v.repeats)
	}
	checkLog(t, d, h, r.arrived(), 1)
}

// Case 8: the server was away for 20 hours. The clock cannot be moved, so the
// rows are: they become 20 hours older while it is stopped.
func TestOverdueRetriesGoOut(t *testing.T) {
	t.Parallel()
	events, perMinute, burst := form(60, 600), 600, 20
	d := openDesk(t)
	r := receive(t, func(*arrival) reply { return reply{status: 503} })
	h := d.subscribe(t, r.url, object{"retry_config": object{"schedule": []int{3600_000, 3600_000}}}, "ticket.created")
	d.burst(t, events)
	eventually(t, "every event has failed once", func() bool {
		n, ok := d.metric(t, "ticketwire_deliveries_pending")
		due, _ := d.metric(t, "ticketwire_deliveries_due")
		return ok && int(n) == events && due == 0
	})
	limit := object{"rate_limit": object{"enabled": true, "requests_per_minute": perMinute, "burst_limit": burst}}
	call[any](t, d, "PUT", "/webhooks/"+h.ID, limit)
	d.terminate(t)
	db := d.open(t)
	const past = int64(20 * time.Hour / time.Microsecond)
	for _, q := range []string{
		"update deliveries set due_at = due_at - ?1, created_at = created_at - ?1, next_retry_at = next_retry_at - ?1, attempted_at = attempted_at - ?1, completed_at = completed_at - ?1",
		"update events set created_at = created_at - ?1",
	} {
		if _, err := db.ExecContext(t.Context(), q, past); err != nil {
			t.Fatal(err)
		}
	}
	db.Close()
	r.behave(nil)
	d.start(t, "")
	d.drain(t, patience)
	got := r.arrived()[events:]
	if len(got) != events {
		t.Fatalf("%d requests after the restart, want %d", len(got), events)
	}
	for i, a := range got {
		if a.attempt != 2 {
			t.Errorf("event %s came as attempt %d, want 2", a.event.ID, a.attempt)
		}
		// The bucket's law for any second, and a second more for a machine that
		// is busy when they arrive.
		in := 0
		for _, b := range got[i:] {
			if b.at.Sub(a.at) < time.Second {
				in++
			}
		}
		if most := burst + 2*perMinute/60; in > most {
			t.Errorf("%d requests in the second after the %dth, want at most %d", in, i+1, most)
		}
	}
	checkLog(t, d, h, r.arrived(), 2)
	t.Logf("%d overdue retries went out in %s", events, got[events-1].at.Sub(got[0].at).Round(time.Millisecond))
}
