package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/ticket"
	"github.com/ticketwire/ticketwire/internal/vault"
)

// BenchmarkDeliver measures what the store does for one delivery: it is owed by
// a new ticket, claimed and recorded, in batches as the dispatcher makes them.
func BenchmarkDeliver(b *testing.B) {
	for _, batch := range []int{1, 32, 256} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) { deliverInBatches(b, place{dir: b.TempDir()}, batch) })
	}
}

// BenchmarkDeliverOnPostgres is the same on a server on this machine, which does not
// sync.
func BenchmarkDeliverOnPostgres(b *testing.B) {
	for _, batch := range []int{1, 32, 256} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) { deliverInBatches(b, onPostgres(b), batch) })
	}
}

func deliverInBatches(b *testing.B, p place, batch int) {
	b.Helper()
	v, err := vault.Open(p.dir + "/secret.key")
	if err != nil {
		b.Fatal(err)
	}
	s, err := Open(b.Context(), Config{Dir: p.dir, DatabaseURL: p.url, Now: time.Now, Vault: v, Policy: delivery.DefaultPolicy()})
	if err != nil {
		b.Fatal(err)
	}
	if p.url != "" { // as after a month
		if err := s.makeDays(b.Context(), dayOf(start())-30, dayOf(start())+daysAhead); err != nil {
			b.Fatal(err)
		}
	}
	boot := must(s.Bootstrap(b.Context(), start(), BootstrapDraft{Tenant: "acme", Email: "ada@desk.example"}))(b)
	owner := ticket.Actor{TenantID: boot.TenantID, UserID: boot.UserID}
	w, _, err := s.CreateWebhook(b.Context(), start(), owner, spec())
	if err != nil {
		b.Fatal(err)
	}
	lane := Lane{boot.TenantID, w.WebhookID}
	err = s.do(b.Context(), func(t *tx) error {
		for range b.N {
			if err := t.insertOwed(start(), owed{lane: lane, eventID: NewID(), eventType: "ticket.created", ticketID: "t", attempt: 1, body: make([]byte, 1000)}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for done := 0; done < b.N; {
		got := must(s.Claim(b.Context(), start(), ClaimRequest{Lane: lane, Owner: "b", Limit: batch, Lease: time.Minute}))(b)
		results := make([]Result, len(got.Deliveries))
		for i, c := range got.Deliveries {
			results[i] = Result{
				Claimed: c, Answer: status(200), Verdict: delivery.Verdict{Status: delivery.Delivered},
				StartedAt: start(), EndedAt: start(), CustomHeaders: []string{"a"},
			}
		}
		must(s.Record(b.Context(), results))(b)
		done += len(results)
	}
	b.StopTimer()
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}
