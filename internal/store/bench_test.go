package store

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/ticket"
	"github.com/ticketwire/ticketwire/internal/vault"
	"github.com/ticketwire/ticketwire/webhook"
)

// benchDesk is a store with a tenant and 1,000 tickets.
type benchDesk struct {
	*Store
	ticket.Actor
	tickets []string
	changed atomic.Int64
}

func newBenchDesk(b *testing.B) *benchDesk {
	b.Helper()
	return benchDeskAt(b, place{dir: b.TempDir()})
}

func benchDeskAt(b *testing.B, p place) *benchDesk {
	b.Helper()
	v, err := vault.Open(p.dir + "/secret.key")
	if err != nil {
		b.Fatal(err)
	}
	s, err := Open(b.Context(), Config{Dir: p.dir, DatabaseURL: p.url, Now: time.Now, Vault: v, MaxWebhooks: 1_000_000})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	if p.url != "" { // as after a month
		if err := s.makeDays(b.Context(), dayOf(start())-30, dayOf(start())+daysAhead); err != nil {
			b.Fatal(err)
		}
	}
	boot, err := s.Bootstrap(b.Context(), start(), BootstrapDraft{Tenant: "acme", Email: "ada@desk.example"})
	if err != nil {
		b.Fatal(err)
	}
	d := &benchDesk{Store: s, Actor: ticket.Actor{TenantID: boot.TenantID, UserID: boot.UserID}}
	for range 1000 {
		tk := must(s.CreateTicket(b.Context(), start(), d.Actor, ticket.Draft{
			Title: "x", BoardID: boot.BoardID, ClientID: boot.ClientID,
			StatusID: boot.Statuses["Open"], PriorityID: boot.Priorities["Low"],
		}))(b)
		d.tickets = append(d.tickets, tk.TicketID)
	}
	return d
}

// change changes the title of the next ticket.
func (d *benchDesk) change(b *testing.B) {
	i := d.changed.Add(1)
	_, err := d.UpdateTicket(b.Context(), start(), d.Actor, d.tickets[i%1000], ticket.Patch{
		Title: ticket.Some(fmt.Sprint("title ", i)),
	})
	if err != nil {
		b.Error(err)
	}
}

// subscribe makes n webhooks of which the first few get every change; the others
// watch tickets of their own.
func (d *benchDesk) subscribe(b *testing.B, n, matching int) {
	b.Helper()
	const page = 10_000
	for done := 0; done < n; done += page {
		specs := make([]delivery.Spec, min(page, n-done))
		for i := range specs {
			specs[i] = delivery.Spec{
				Name: "n", URL: "https://hooks.example/in", Method: "POST", EventTypes: []string{webhook.TicketUpdated},
				IsActive: true, VerifySSL: true,
			}
			if done+i >= matching {
				specs[i].EventFilter = &delivery.Filter{EntityIDs: []string{NewID()}}
			}
		}
		if err := d.CreateWebhooks(b.Context(), start(), d.Actor, specs); err != nil {
			b.Fatal(err)
		}
	}
	d.change(b) // reads the subscriptions
}

// BenchmarkUpdateTicket changes the titles of 1,000 tickets from many goroutines:
// one durable commit for each, shared with the others that wait.
func BenchmarkUpdateTicket(b *testing.B) { changeInParallel(b, newBenchDesk(b)) }

// BenchmarkUpdateTicketOnPostgres is the same on a server on this machine, which
// does not sync: it shows what the way to it costs.
func BenchmarkUpdateTicketOnPostgres(b *testing.B) {
	changeInParallel(b, benchDeskAt(b, onPostgres(b)))
}

// BenchmarkUpdateTicketBehindPooler is the same through a pooler that lends a
// session for one transaction.
func BenchmarkUpdateTicketBehindPooler(b *testing.B) {
	changeInParallel(b, benchDeskAt(b, pooled(b, onPostgres(b))))
}

// BenchmarkUpdateTicketOnNodes is the same through two and three stores on one
// server: what passing the gate in turn costs.
func BenchmarkUpdateTicketOnNodes(b *testing.B) {
	for _, n := range []int{1, 2, 3} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := onPostgres(b)
			desks := []*benchDesk{benchDeskAt(b, p)}
			for range n - 1 {
				v, err := vault.Open(p.dir + "/secret.key")
				if err != nil {
					b.Fatal(err)
				}
				s, err := Open(b.Context(), Config{DatabaseURL: p.url, Now: time.Now, Vault: v})
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() {
					if err := s.Close(); err != nil {
						b.Error(err)
					}
				})
				desks = append(desks, &benchDesk{Store: s, Actor: desks[0].Actor, tickets: desks[0].tickets})
			}
			var next atomic.Int64
			b.SetParallelism(64)
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				d := desks[next.Add(1)%int64(n)]
				for pb.Next() {
					d.change(b)
				}
			})
		})
	}
}

func changeInParallel(b *testing.B, d *benchDesk) {
	b.SetParallelism(64)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			d.change(b)
		}
	})
}

// BenchmarkEventAmongWebhooks is BenchmarkUpdateTicket with so many webhooks, of
// which 10 want the event.
func BenchmarkEventAmongWebhooks(b *testing.B) {
	for _, n := range []int{10, 1_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			d := newBenchDesk(b)
			d.subscribe(b, n, 10)
			b.SetParallelism(64)
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					d.change(b)
				}
			})
		})
	}
}

// BenchmarkWebhookChange is what one webhook more costs, and the event after it,
// which must know it.
func BenchmarkWebhookChange(b *testing.B) {
	for _, n := range []int{10, 100_000} {
		d := newBenchDesk(b)
		d.subscribe(b, n, 10)
		spec := delivery.Spec{
			Name: "n", URL: "https://hooks.example/in", Method: "POST", EventTypes: []string{webhook.TicketUpdated},
			EventFilter: &delivery.Filter{EntityIDs: []string{NewID()}}, IsActive: true, VerifySSL: true,
		}
		b.Run(fmt.Sprint("create/", n), func(b *testing.B) {
			for b.Loop() {
				if _, _, err := d.CreateWebhook(b.Context(), start(), d.Actor, spec); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprint("create and event/", n), func(b *testing.B) {
			for b.Loop() {
				if _, _, err := d.CreateWebhook(b.Context(), start(), d.Actor, spec); err != nil {
					b.Fatal(err)
				}
				d.change(b)
			}
		})
	}
}

// BenchmarkWideEvent is how long the writer is busy with one event that so many
// webhooks want: other changes wait as long.
func BenchmarkWideEvent(b *testing.B) {
	for _, n := range []int{1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			d := newBenchDesk(b)
			d.subscribe(b, n, n)
			b.ResetTimer()
			for b.Loop() {
				d.change(b)
			}
		})
	}
}
