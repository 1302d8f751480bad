package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

// A server that dies while a receiver is answering cannot know what the receiver
// did. It sends the event once more, the same in every byte, and the attempt
// counts once.
func TestKillBetweenSendAndRecord(t *testing.T) {
	t.Parallel()
	d := openDesk(t)
	open := make(chan struct{})
	r := receive(t, func(n int) {
		if n == 1 {
			<-open
		}
	})
	defer close(open)
	h := d.subscribe(t, r.url, nil, "ticket.created")
	d.newTicket(t, "Sent but not recorded")
	r.await(t, "the event arrives", count(1))

	d.kill(t)
	d.start(t)
	ready := time.Now()
	got := r.await(t, "the event arrives again", count(2))
	t.Logf("it went out again %s after the server was ready", got[1].at.Sub(ready).Round(time.Millisecond))

	rows := d.settled(t, h, 1)
	if rows[0].Attempt != 1 {
		t.Errorf("the log counts attempt %d, want 1: a crash is not a failure of the receiver", rows[0].Attempt)
	}
	got = r.arrived()
	if len(got) != 2 {
		t.Fatalf("the event arrived %d times, want 2", len(got))
	}
	for _, name := range []string{"X-Alga-Event-Id", "X-Alga-Event-Type", "X-Alga-Delivery-Id", "X-Alga-Delivery-Attempt"} {
		if a, b := got[0].header.Get(name), got[1].header.Get(name); a != b || a == "" {
			t.Errorf("%s was %q and is %q", name, a, b)
		}
	}
	if !bytes.Equal(got[0].body, got[1].body) {
		t.Errorf("the body changed:\n%s\n%s", got[0].body, got[1].body)
	}
	for i, a := range got {
		if err := webhook.Verify(a.header.Get(webhook.SignatureHeader), a.body, a.at, h.Secret); err != nil {
			t.Errorf("request %d: %v", i+1, err)
		}
	}
}

// Events that wait for their turn when the server dies are in the database, and
// nowhere else.
func TestKillBetweenCommitAndSend(t *testing.T) {
	t.Parallel()
	const updates = 20
	d := openDesk(t)
	r := receive(t, nil)
	h := d.subscribe(t, r.url,
		object{"rate_limit": object{"enabled": true, "requests_per_minute": 1, "burst_limit": 1}}, "ticket.updated")
	tk := d.newTicket(t, "Waits")
	for i := range updates {
		d.retitle(t, tk.ID, fmt.Sprintf("Update %d", i))
	}
	r.await(t, "the one event that the limit allows arrives", count(1))
	eventually(t, "it is recorded, and the others wait", func() bool {
		byStatus := map[string]int{}
		for _, row := range d.log(t, h) {
			byStatus[row.Status]++
		}
		return byStatus["delivered"] == 1 && byStatus["pending"] == updates-1
	})

	d.kill(t)
	d.start(t)
	call[any](t, d, "PUT", "/webhooks/"+h.ID, object{"rate_limit": object{"enabled": false}})
	r.await(t, "every update arrives", func(a []arrival) bool { return len(eventIDs(a)) == updates })
	d.settled(t, h, updates)
	checkAgainstFeed(t, d, r.arrived(), 0)
}

// Five kills at random moments while four people work: what was acknowledged
// arrives.
func TestKillUnderLoad(t *testing.T) {
	t.Parallel()
	const (
		updates = 200
		kills   = 5
		people  = 4
	)
	d := openDesk(t)
	r := receive(t, nil)
	d.subscribe(t, r.url, nil, "ticket.updated")
	var tickets []ticket
	for i := range people {
		tickets = append(tickets, d.newTicket(t, fmt.Sprintf("Desk %d", i)))
	}

	w := &workload{desk: d, acked: make(chan string, updates)}
	var all sync.WaitGroup
	for i := range people {
		all.Go(func() { w.retitle(t, tickets[i].ID, updates/people) })
	}
	// The moments are counted in acknowledged updates, so that a slow machine is
	// killed as often as a fast one.
	var at []int
	for range kills {
		at = append(at, 1+rand.IntN(updates-10))
	}
	t.Logf("kills after %v acknowledged updates", at)
	var titles []string
	for len(titles) < updates && !t.Failed() {
		select {
		case title := <-w.acked:
			titles = append(titles, title)
		case <-time.After(patience):
			t.Error("the load does not get through")
		}
		for range slices.DeleteFunc(slices.Clone(at), func(n int) bool { return n != len(titles) }) {
			w.crash(t)
		}
	}
	all.Wait()

	got := r.await(t, "every acknowledged update arrives", func(a []arrival) bool {
		seen := map[string]bool{}
		for _, one := range a {
			seen[titleOf(t, one)] = true
		}
		return t.Failed() || !slices.ContainsFunc(titles, func(title string) bool { return !seen[title] })
	})
	t.Logf("%d requests for %d events", len(got), len(eventIDs(got)))
	// An update whose answer was lost may have happened too: wait for all that
	// the feed knows.
	want := len(d.feed(t, url.Values{"types": {"ticket.updated"}}))
	r.await(t, "every event of the feed arrives", func(a []arrival) bool { return len(eventIDs(a)) >= want })
	// What was in flight to the receiver at a kill goes out again: at most the
	// requests that one webhook may have open.
	checkAgainstFeed(t, d, r.arrived(), kills*16)
}

// workload changes tickets while its server is killed and started again.
type workload struct {
	acked chan string // the titles that the server acknowledged

	mu   sync.RWMutex // held for writing while the server is down
	desk *desk
}

// retitle gives a ticket n new titles, each acknowledged. A request that ended
// without an answer is repeated with another title, since it may have worked.
func (w *workload) retitle(t *testing.T, id string, n int) {
	for done, try := 0, 0; done < n && !t.Failed(); try++ {
		title := fmt.Sprintf("%s, change %d", id, try)
		w.mu.RLock()
		desk := *w.desk
		w.mu.RUnlock()
		status, err := desk.try("PUT", "/tickets/"+id, object{"title": title}, nil)
		switch {
		case err == nil && status == 200:
			w.acked <- title
			done++
		case err == nil && status != 503:
			t.Errorf("update: status %d", status)
		}
	}
}

// crash kills the server under the requests that are on their way, and starts it
// again.
func (w *workload) crash(t *testing.T) {
	t.Helper()
	w.desk.kill(t)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.desk.start(t)
}

func titleOf(t *testing.T, a arrival) string {
	t.Helper()
	var e event
	if err := json.Unmarshal(a.body, &e); err != nil {
		t.Fatal(err)
	}
	return e.Data.Title
}

// checkAgainstFeed compares what arrived with the updates in the event feed:
// nothing is missing, nothing was made up, at most repeats requests came twice,
// and a repeated one is the same in every byte and in its attempt.
func checkAgainstFeed(t *testing.T, d *desk, arrivals []arrival, repeats int) {
	t.Helper()
	seen := eventIDs(arrivals)
	for _, e := range d.feed(t, url.Values{"types": {"ticket.updated"}}) {
		if seen[e.ID] == 0 {
			t.Errorf("event %s (%s) was lost", e.ID, e.Data.Title)
		}
		delete(seen, e.ID)
	}
	for id := range seen {
		t.Errorf("event %s arrived and is not in the feed", id)
	}
	first := map[string]arrival{}
	for _, a := range arrivals {
		b, again := first[a.eventID]
		if !again {
			first[a.eventID] = a
			continue
		}
		repeats--
		if !bytes.Equal(a.body, b.body) {
			t.Errorf("event %s came with two bodies", a.eventID)
		}
	}
	for _, a := range arrivals {
		if n := a.header.Get("X-Alga-Delivery-Attempt"); n != "1" {
			t.Errorf("event %s came as attempt %s: a crash uses up no attempt", a.eventID, n)
		}
	}
	if repeats < 0 {
		t.Errorf("%d more requests came twice than can have been in flight", -repeats)
	}
}
