package store

import (
	"context"
	"fmt"

	"github.com/ticketwire/ticketwire/internal/ticket"
)

// maxRecent bounds how many tickets the writer remembers; over it, all are
// forgotten. A ticket is about two kilobytes.
const maxRecent = 8192

// maxTargets bounds how many webhooks it remembers, likewise, and maxThere of how many
// it remembers that they are there.
const (
	maxTargets = 1024
	maxThere   = 65536
)

// recent is what the writer remembers of rows that it has read or written, so
// that a ticket that changes again is not joined together again. Nobody else on
// this connection writes, so it is right until another process commits, which
// the database tells, or until a transaction is rolled back. It belongs to the
// writer's goroutine.
type recent struct {
	version int64 // of the database, as of the last look
	seq     int64 // of the newest event; 0 when it is not known
	tickets map[ticketKey]known
	targets map[Lane]Target // as of the last change of any webhook
	there   map[Lane]bool   // webhooks that are not deleted, as of the same
	names   knownNames      // as of the same; of a server only
	checked map[string]bool // tenants whose subscriptions are known to be current in this transaction
}

type ticketKey struct{ tenant, id string }

// known is a ticket and the number of its newest event.
type known struct {
	ticket.Ticket
	lastSeq int64
}

func newRecent() recent {
	return recent{tickets: map[ticketKey]known{}, targets: map[Lane]Target{}, there: map[Lane]bool{}, names: knownNames{}, checked: map[string]bool{}}
}

// forget drops everything, after a rollback.
func (r *recent) forget() {
	r.forgetTickets()
	clear(r.targets)
	clear(r.there)
	clear(r.names)
	clear(r.checked)
	r.seq = 0
}

func (r *recent) forgetTickets() { clear(r.tickets) }

// refresh begins a transaction: what another process has changed meanwhile must
// not be remembered.
func (w *writer) refresh() error {
	clear(w.recent.checked)
	st, err := w.stmt(w.s.dialect.version)
	if err != nil {
		return err
	}
	var version int64
	if err := st.QueryRowContext(context.Background()).Scan(&version); err != nil {
		return fmt.Errorf("read the version of the database: %w", err)
	}
	if version != w.recent.version {
		w.recent.forget()
		w.recent.version = version
	}
	return nil
}

// ticket returns a ticket as the transaction sees it. The caller must not change
// what its pointers and slices refer to.
func (t *tx) ticket(tenant, id, missing string) (ticket.Ticket, error) {
	key := ticketKey{tenant, lowerID(id)}
	if k, ok := t.w.recent.tickets[key]; ok {
		return k.Ticket, nil
	}
	tk, err := ticketOf(t, tenant, id, missing)
	if err != nil {
		return tk, err
	}
	seq, err := t.lastSeq(tk.TenantID, tk.TicketID)
	if err == nil {
		t.remember(&tk, seq)
	}
	return tk, err
}

// noteThere notes that a webhook is not deleted.
func (r *recent) noteThere(l Lane) {
	if len(r.there) >= maxThere {
		clear(r.there)
	}
	r.there[l] = true
}

// remember notes a ticket as it now is in the transaction.
func (t *tx) remember(tk *ticket.Ticket, lastSeq int64) {
	r := &t.w.recent
	if len(r.tickets) >= maxRecent {
		clear(r.tickets)
	}
	r.tickets[ticketKey{tk.TenantID, tk.TicketID}] = known{*tk, lastSeq}
}
