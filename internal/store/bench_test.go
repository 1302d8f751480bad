package store

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/ticketwire/ticketwire/internal/ticket"
	"github.com/ticketwire/ticketwire/internal/vault"
)

// BenchmarkUpdateTicket changes the titles of 1,000 tickets from many goroutines:
// one durable commit for each, shared with the others that wait.
func BenchmarkUpdateTicket(b *testing.B) {
	dir := b.TempDir()
	v, err := vault.Open(dir + "/secret.key")
	if err != nil {
		b.Fatal(err)
	}
	s, err := Open(b.Context(), Config{Dir: dir, Vault: v})
	if err != nil {
		b.Fatal(err)
	}
	boot, err := s.Bootstrap(b.Context(), start(), BootstrapDraft{Tenant: "acme", Email: "ada@desk.example"})
	if err != nil {
		b.Fatal(err)
	}
	a := ticket.Actor{TenantID: boot.TenantID, UserID: boot.UserID}
	ids := make([]string, 1000)
	for i := range ids {
		tk := must(s.CreateTicket(b.Context(), start(), a, ticket.Draft{
			Title: "x", BoardID: boot.BoardID, ClientID: boot.ClientID,
			StatusID: boot.Statuses["Open"], PriorityID: boot.Priorities["Low"],
		}))(b)
		ids[i] = tk.TicketID
	}
	var n atomic.Int64
	b.SetParallelism(64)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := n.Add(1)
			if _, err := s.UpdateTicket(b.Context(), start(), a, ids[i%1000], ticket.Patch{
				Title: ticket.Some(fmt.Sprint("title ", i)),
			}); err != nil {
				b.Error(err)
			}
		}
	})
	b.StopTimer()
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}
