package store

import (
	"fmt"

	"github.com/ticketwire/ticketwire/internal/ticket"
)

// A ticket shows the names of what it refers to, from ten other tables. On a server,
// where another node may have changed any ticket since this one passed the gate, a
// batch reads its tickets anew each time; their names it remembers, because next to
// nobody changes those. Who does (UpdateUser) tells all nodes, as of a changed
// webhook. Rows that are gone have no name, and are not remembered.

// maxNames bounds how many rows are remembered; over it, all are forgotten.
const maxNames = 16384

// knownNames are those of the rows that tickets refer to, by tenant and id.
type knownNames map[ticketKey]named

// named is what a ticket shows of a row: a name, and of some what is beside it.
type named struct {
	name, email, phone *string
	closed             bool
}

// bareTicket reads a ticket's own row as scanTicket wants it, with the number of its
// newest event.
const bareTicket = `select ` + ownColumns + `,
		'', t.is_closed, '', '', '', null, null, null, null, null, null, null, null, '', '', '', '', t.last_seq
	from tickets t where t.tenant_id = $1 and t.ticket_id = $2`

// learn remembers what a whole ticket shows. Of the ticket itself it keeps nothing.
func (n knownNames) learn(t *ticket.Ticket) {
	if len(n) > maxNames {
		clear(n)
	}
	note := func(id *string, row named) {
		if id != nil && row.name != nil && *row.name != "" {
			n[ticketKey{t.TenantID, *id}] = row
		}
	}
	note(&t.StatusID, named{name: new(t.StatusName), closed: t.StatusIsClosed})
	note(&t.PriorityID, named{name: new(t.PriorityName)})
	note(&t.BoardID, named{name: new(t.BoardName)})
	note(&t.ClientID, named{name: new(t.ClientName), email: t.ClientEmail, phone: t.ClientPhone})
	note(t.ContactNameID, named{name: t.ContactName, email: t.ContactEmail, phone: t.ContactPhone})
	note(t.LocationID, named{name: t.LocationName})
	note(t.CategoryID, named{name: t.CategoryName})
	note(t.SubcategoryID, named{name: t.SubcategoryName})
	note(&t.EnteredBy, named{name: t.EnteredByName})
	note(t.AssignedTo, named{name: t.AssignedToName})
}

// dress completes a ticket that was read without names, and reports false if not all
// of them are known.
func (n knownNames) dress(t *ticket.Ticket) bool {
	all := true
	get := func(id *string) (row named) {
		if id == nil {
			return row
		}
		row, known := n[ticketKey{t.TenantID, *id}]
		all = all && known
		return row
	}
	text := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	status, client, contact := get(&t.StatusID), get(&t.ClientID), get(t.ContactNameID)
	t.StatusName, t.StatusIsClosed = text(status.name), status.closed
	t.PriorityName, t.BoardName = text(get(&t.PriorityID).name), text(get(&t.BoardID).name)
	t.ClientName, t.ClientEmail, t.ClientPhone = text(client.name), client.email, client.phone
	t.ContactName, t.ContactEmail, t.ContactPhone = contact.name, contact.email, contact.phone
	t.LocationName, t.CategoryName, t.SubcategoryName = get(t.LocationID).name, get(t.CategoryID).name, get(t.SubcategoryID).name
	t.EnteredByName, t.AssignedToName = get(&t.EnteredBy).name, get(t.AssignedTo).name
	return all
}

// fetch remembers the tickets that the calls of a batch will ask for. Those that are
// neither remembered nor read already it reads in one round trip, and not in one for
// each. It takes another one for those with a name that is not remembered.
func (w *writer) fetch(batch []*call, tickets bareTickets) error {
	t := &tx{w: w}
	err := t.ask(tickets.of(batch, w.recent.tickets))
	var whole []asked
	for i := range tickets {
		tk := &tickets[i]
		if w.recent.names.dress(&tk.Ticket) {
			t.remember(&tk.Ticket, tk.lastSeq)
		} else {
			whole = append(whole, asked{text: wholeTicket, args: []any{tk.TenantID, tk.TicketID}, scan: t.learnTicket})
		}
	}
	if err == nil {
		err = t.ask(whole)
	}
	if err != nil {
		return fmt.Errorf("read tickets: %w", err)
	}
	return nil
}

// bareTickets are tickets that were read without their names.
type bareTickets []known

// of asks for the tickets that the calls of a batch will ask for, but for those that
// are known or here already.
func (b *bareTickets) of(batch []*call, remembered map[ticketKey]known) (list []asked) {
	listed := map[ticketKey]bool{{}: true}
	for i := range *b {
		listed[ticketKey{(*b)[i].TenantID, (*b)[i].TicketID}] = true
	}
	for _, c := range batch {
		if _, is := remembered[c.on]; is || listed[c.on] {
			continue
		}
		listed[c.on] = true
		list = append(list, asked{text: bareTicket, args: []any{c.on.tenant, c.on.id}, scan: func(row scanner) error {
			var k known
			var err error
			k.Ticket, err = scanTicket(alsoScan{row, &k.lastSeq})
			*b = append(*b, k)
			return err
		}})
	}
	return list
}

// wholeTicket reads a ticket with all names, and the number of its newest event.
const wholeTicket = ticketFields + `, t.last_seq` + ticketFrom + `where t.tenant_id = $1 and t.ticket_id = $2`

// learnTicket remembers the ticket of a row, and the names that it shows.
func (t *tx) learnTicket(row scanner) error {
	var seq int64
	tk, err := scanTicket(alsoScan{row, &seq})
	if err == nil {
		t.remember(&tk, seq)
		t.w.recent.names.learn(&tk)
	}
	return err
}

// alsoScan is a row with one column more than who scans it knows of.
type alsoScan struct {
	scanner
	last any
}

// Scan reads the columns into dest and the last one into its own place.
func (a alsoScan) Scan(dest ...any) error { return a.scanner.Scan(append(dest, a.last)...) }
