package dispatch_test

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/dispatch"
	"github.com/ticketwire/ticketwire/internal/store"
)

// refuses opens the database beside the store, and lets it refuse what completes a
// delivery of a webhook until mend is called.
func (b *bench) refuses(hook string) (db *sql.DB, mend func()) {
	b.t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(b.dir, "ticketwire.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(1)
	each := func(do func(change string) string) {
		b.t.Helper()
		for _, change := range []string{"insert", "update"} {
			if _, err := db.ExecContext(b.t.Context(), do(change)); err != nil {
				b.t.Fatal(err)
			}
		}
	}
	each(func(change string) string {
		return `create trigger refuse_` + change + ` before ` + change + ` on deliveries
			when new.webhook_id = '` + hook + `' and new.status = 'delivered' begin select raise(abort, 'refused'); end`
	})
	return db, func() { b.t.Helper(); each(func(change string) string { return `drop trigger refuse_` + change }) }
}

// What a process that was killed held, as a list or as leases, the next one sends.
func TestWhatAKilledProcessHeldIsSent(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := newReceiver(t, true)
	hook := b.webhook(r.URL, nil)
	b.ticket("in the queue")
	lane := store.Lane{TenantID: b.tenant.TenantID, WebhookID: hook}
	claimed, err := b.store.Claim(t.Context(), time.Now(), store.ClaimRequest{Lane: lane, Owner: "killed", Limit: 1, Lease: time.Hour})
	if err != nil || len(claimed.Deliveries) != 1 {
		t.Fatalf("claimed %d, %v", len(claimed.Deliveries), err)
	}
	handed := 0
	b.store.SetIntake(&store.Intake{
		Owner: "killed", Lease: time.Hour, Reserve: func(store.Lane, int) bool { return true },
		Cancel: func([]store.Claimed) {}, Commit: func(c store.Committed) { handed += len(c.Handed) },
	})
	b.ticket("handed over")
	b.store.SetIntake(nil)
	if handed != 1 {
		t.Fatalf("%d handed over", handed)
	}
	b.start(nil)
	if first, second := r.next(t), r.next(t); first == second {
		t.Errorf("event %s came twice", first)
	}
	eventually(t, "both are recorded as first attempts", func() bool {
		rows := b.log(hook)
		return len(rows) == 2 && delivered(rows[0]) && delivered(rows[1])
	})
}

func delivered(d delivery.Delivery) bool { return d.Status == delivery.Delivered && d.Attempt == 1 }

// An attempt that somebody has asked for and that cannot be recorded is not forgotten:
// it goes out again by itself.
func TestAnAttemptByHandThatCannotBeRecorded(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := newReceiver(t, true)
	hook := b.webhook(r.URL, nil)
	e := b.start(nil)
	_, mend := b.refuses(hook)
	batch, err := b.store.BeginTest(t.Context(), time.Now(), b.tenant.TenantID, hook, e.Owner(), e.Lease())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Send(t.Context(), batch); err == nil {
		t.Error("no error")
	}
	id := r.next(t)
	mend()
	if again := r.next(t); again != id {
		t.Errorf("event %s came after %s", again, id)
	}
	eventually(t, "it is recorded", func() bool {
		rows := b.log(hook)
		return len(rows) == 1 && delivered(rows[0])
	})
}

// A result that the store refuses, and not for an outage, does not keep others from
// being recorded. Its delivery stays owed: it is sent again, until it can be recorded.
func TestAResultThatCannotBeRecorded(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	good, bad := newReceiver(t, false), newReceiver(t, false)
	healthy, refused := b.webhook(good.URL, nil), b.webhook(bad.URL, nil)
	db, mend := b.refuses(refused)
	exec := func(q string) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	registry := prometheus.NewRegistry()
	b.start(func(c *dispatch.Config) { c.Metrics = registry })
	const n = 3
	sent := map[string]int{}
	for i := range n {
		b.ticket(fmt.Sprint("ticket ", i))
		good.next(t)
		sent[bad.next(t)]++
	}
	// All results are there before one can be recorded, so that they share a batch.
	exec(`begin immediate`)
	good.open()
	bad.open()
	eventually(t, "all are answered", func() bool {
		return gathered(t, registry, "ticketwire_delivery_duration_seconds", "") == 2*n
	})
	exec(`commit`)
	eventually(t, "the other results are recorded", func() bool {
		rows := b.log(healthy)
		return len(rows) == n && !slices.ContainsFunc(rows, func(d delivery.Delivery) bool { return !delivered(d) })
	})
	for range n {
		sent[bad.next(t)]++
	}
	mend()
	eventually(t, "they are recorded", func() bool {
		rows := b.log(refused)
		return len(rows) == n && !slices.ContainsFunc(rows, func(d delivery.Delivery) bool { return !delivered(d) })
	})
	if len(sent) != n || len(good.hits) != 0 {
		t.Errorf("sent %v; of the others %d were sent again", sent, len(good.hits))
	}
}
