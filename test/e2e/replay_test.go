package e2e

import (
	"fmt"
	"sync"
	"testing"
)

// replay is a job as the API shows it.
type replay struct {
	ID      string `json:"replay_id"`
	Status  string `json:"status"`
	Queued  int    `json:"queued"`
	Skipped int    `json:"skipped"`
}

// hold is where a receiver stops answering, until it is opened.
type hold struct {
	at   int
	open chan struct{}
}

// A replay that is killed goes on where it was: every event is queued once, and
// arrives.
func TestKillInTheMiddleOfAReplay(t *testing.T) {
	t.Parallel()
	const (
		people = 4
		missed = 3000
	)
	d := openDesk(t)
	// It stops answering at these requests, so that the replay is under way when
	// the server dies.
	holds := []hold{{at: 200, open: make(chan struct{})}, {at: 1200, open: make(chan struct{})}}
	r := receive(t, func(n int) {
		for _, h := range holds {
			if n < h.at {
				continue
			}
			select {
			case <-h.open:
			case <-t.Context().Done(): // the test has failed
			}
		}
	})
	h := d.subscribe(t, r.url, nil, "ticket.updated")
	call[any](t, d, "PUT", "/webhooks/"+h.ID, object{"is_active": false})
	var all sync.WaitGroup
	for i := range people {
		tk := d.newTicket(t, fmt.Sprintf("Desk %d", i))
		all.Go(func() {
			for n := range missed / people {
				if status, err := d.try("PUT", "/tickets/"+tk.ID, object{"title": fmt.Sprint(n)}, nil); err != nil || status != 200 {
					t.Errorf("update: status %d, %v", status, err)
					return
				}
			}
		})
	}
	all.Wait()
	call[any](t, d, "PUT", "/webhooks/"+h.ID, object{"is_active": true})
	job := call[replay](t, d, "POST", "/webhooks/"+h.ID+"/replay", object{"since": "2020-01-01T00:00:00Z"})
	path := "/webhooks/" + h.ID + "/replays/" + job.ID
	for _, hold := range holds {
		r.await(t, fmt.Sprintf("%d requests arrive", hold.at), count(hold.at))
		if job = call[replay](t, d, "GET", path, nil); job.Status != "running" || job.Queued >= missed {
			t.Errorf("the replay is %+v, which leaves nothing to kill", job)
		}
		t.Logf("killed when %d of %d were queued", job.Queued, missed)
		d.kill(t)
		close(hold.open)
		d.start(t)
	}
	got := r.await(t, "every event arrives", func(a []arrival) bool { return len(eventIDs(a)) == missed })
	t.Logf("%d requests for %d events", len(got), missed)
	eventually(t, "the replay is done", func() bool {
		job = call[replay](t, d, "GET", path, nil)
		return job.Status == "done"
	})
	if job.Queued != missed || job.Skipped != people {
		t.Errorf("the replay ended as %+v", job)
	}
	// The log is in the order of what was sent when: it has to stand still.
	eventually(t, "every answer is recorded", func() bool {
		return len(call[[]delivery](t, d, "GET", "/webhooks/"+h.ID+"/deliveries?status=pending", nil)) == 0
	})
	rows := map[string]int{}
	for page := 1; ; page++ {
		list := call[[]delivery](t, d, "GET", fmt.Sprintf("/webhooks/%s/deliveries?limit=100&page=%d", h.ID, page), nil)
		if len(list) == 0 {
			break
		}
		for _, row := range list {
			rows[row.EventID]++
		}
	}
	if len(rows) != missed {
		t.Errorf("%d events in the log, want %d", len(rows), missed)
	}
	for id, n := range rows {
		if n != 1 {
			t.Errorf("event %s has %d rows", id, n)
		}
	}
	checkAgainstFeed(t, d, r.arrived(), 2*16)
}
