package store

import "github.com/ticketwire/ticketwire/internal/ticket"

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
const bareTicket = `select t.tenant_id, t.ticket_id, t.ticket_number, t.title, t.url, t.client_id, t.contact_name_id,
		t.location_id, t.status_id, t.board_id, t.category_id, t.subcategory_id, t.priority_id, t.entered_by, t.updated_by,
		t.assigned_to, t.assigned_team_id, t.closed_by, t.entered_at, t.updated_at, t.closed_at, t.due_date, t.is_closed,
		t.attributes, t.tags, t.source, t.ticket_origin, t.response_state, t.last_occurred_at,
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
