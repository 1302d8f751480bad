package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// The messages for a ticket that the tenant does not have: on the ticket's own
// routes, and below them (contract section 1.2).
const (
	noTicket      = "ticket not found"
	noTicketOwner = "Ticket not found"
)

// ticketFrom joins a ticket with everything it refers to. The joins are left
// ones: a name that is gone must not take the ticket with it, and a count can
// leave out the joins that its conditions do not read.
const ticketFrom = ` from tickets t
	left join statuses s on s.tenant_id = t.tenant_id and s.status_id = t.status_id
	left join priorities p on p.tenant_id = t.tenant_id and p.priority_id = t.priority_id
	left join boards b on b.tenant_id = t.tenant_id and b.board_id = t.board_id
	left join clients c on c.tenant_id = t.tenant_id and c.client_id = t.client_id
	left join contacts n on n.tenant_id = t.tenant_id and n.contact_name_id = t.contact_name_id
	left join locations l on l.tenant_id = t.tenant_id and l.location_id = t.location_id
	left join categories g on g.tenant_id = t.tenant_id and g.category_id = t.category_id
	left join categories h on h.tenant_id = t.tenant_id and h.category_id = t.subcategory_id
	left join users e on e.tenant_id = t.tenant_id and e.user_id = t.entered_by
	left join users a on a.tenant_id = t.tenant_id and a.user_id = t.assigned_to
`

const ticketColumns = ticketFields + ticketFrom

// ownColumns are those of the ticket's own row; scanTicket wants the names after them.
const ownColumns = `t.tenant_id, t.ticket_id, t.ticket_number, t.title, t.url, t.client_id, t.contact_name_id,
	t.location_id, t.status_id, t.board_id, t.category_id, t.subcategory_id, t.priority_id, t.entered_by, t.updated_by,
	t.assigned_to, t.assigned_team_id, t.closed_by, t.entered_at, t.updated_at, t.closed_at, t.due_date, t.is_closed,
	t.attributes, t.tags, t.source, t.ticket_origin, t.response_state, t.last_occurred_at`

const ticketFields = `select ` + ownColumns + `,
	coalesce(s.name, ''), coalesce(s.is_closed, t.is_closed), coalesce(p.priority_name, ''), coalesce(b.board_name, ''),
	coalesce(c.client_name, ''), c.email, c.phone_no, n.full_name, n.email, n.phone_number, l.location_name,
	g.category_name, h.category_name, coalesce(e.first_name, ''), coalesce(e.last_name, ''),
	coalesce(a.first_name, ''), coalesce(a.last_name, '')`

func scanTicket(row scanner) (ticket.Ticket, error) {
	var t ticket.Ticket
	var entered, updated, occurred int64
	var closed, due sql.NullInt64
	var attributes sql.NullString
	var tags string
	var enteredBy, assignedTo ticket.User
	err := row.Scan(&t.TenantID, &t.TicketID, &t.Number, &t.Title, &t.URL, &t.ClientID, &t.ContactNameID,
		&t.LocationID, &t.StatusID, &t.BoardID, &t.CategoryID, &t.SubcategoryID, &t.PriorityID, &t.EnteredBy, &t.UpdatedBy,
		&t.AssignedTo, &t.AssignedTeamID, &t.ClosedBy, &entered, &updated, &closed, &due, &t.IsClosed,
		&attributes, &tags, &t.Source, &t.Origin, &t.ResponseState, &occurred,
		&t.StatusName, &t.StatusIsClosed, &t.PriorityName, &t.BoardName,
		&t.ClientName, &t.ClientEmail, &t.ClientPhone, &t.ContactName, &t.ContactEmail, &t.ContactPhone, &t.LocationName,
		&t.CategoryName, &t.SubcategoryName, &enteredBy.FirstName, &enteredBy.LastName,
		&assignedTo.FirstName, &assignedTo.LastName)
	if err != nil {
		return ticket.Ticket{}, err
	}
	t.EnteredAt, t.UpdatedAt, t.LastOccurredAt = wireTime(entered), wireTime(updated), instant(occurred)
	t.ClosedAt, t.DueDate = wireTimePtr(closed), wireTimePtr(due)
	t.EnteredByName, t.AssignedToName = enteredBy.DisplayName(), assignedTo.DisplayName()
	if attributes.Valid {
		t.Attributes = json.RawMessage(attributes.String)
	}
	t.DescriptionHTML = ticket.DescriptionHTML(t.Attributes)
	t.Unused.Documents = []string{}
	t.Tags = []string{}
	if tags == "[]" { // most tickets have none, and this is the hottest read there is
		return t, nil
	}
	err = fromJSON(sql.NullString{String: tags, Valid: true}, &t.Tags)
	return t, err
}

func ticketOf(q querier, tenant, id, missing string) (ticket.Ticket, error) {
	tk, err := scanTicket(q.row(ticketColumns+`where t.tenant_id = $1 and t.ticket_id = $2`, tenant, lowerID(id)))
	return tk, found(err, missing)
}

// Ticket returns one ticket by its id or its number. What looks like a UUID is
// an id.
func (s *Store) Ticket(ctx context.Context, tenant, idOrNumber string) (ticket.Ticket, error) {
	if uuid.Validate(idOrNumber) == nil {
		return ticketOf(s.reader(ctx), tenant, idOrNumber, noTicket)
	}
	tk, err := scanTicket(s.reader(ctx).row(
		ticketColumns+`where t.tenant_id = $1 and t.ticket_number = $2`, tenant, idOrNumber))
	return tk, found(err, noTicket)
}

// CreateTicket makes a ticket with the tenant's next number. Errors are those of
// ticket.New.
func (s *Store) CreateTicket(ctx context.Context, now time.Time, a ticket.Actor, d ticket.Draft) (ticket.Ticket, error) {
	return write(ctx, s, func(t *tx) (ticket.Ticket, error) {
		refs, err := t.refs(a.TenantID, d.Keys())
		if err != nil {
			return ticket.Ticket{}, err
		}
		number, err := t.nextNumber(a.TenantID)
		if err != nil {
			return ticket.Ticket{}, err
		}
		tk, err := ticket.New(d, refs, NewID(), number, a, now)
		if err != nil {
			return ticket.Ticket{}, err
		}
		events := ticket.Events(nil, &tk, d.Suppress, NewID, t.w.s.cfg.PublicURL)
		last, err := t.publish(now, events)
		if err != nil {
			return ticket.Ticket{}, err
		}
		if err := t.insertTicket(&tk, last); err != nil {
			return ticket.Ticket{}, err
		}
		return tk, t.syncTags(now, a, &tk, nil)
	})
}

// nextNumber takes the tenant's next ticket number. A number whose transaction
// fails is given again.
func (t *tx) nextNumber(tenant string) (string, error) {
	var number string
	err := t.row(`
		update tenants set next_ticket_number = next_ticket_number + 1 where tenant_id = $1
		returning ticket_prefix || (next_ticket_number - 1)`, tenant).Scan(&number)
	return number, found(err, "Tenant not found")
}

func (t *tx) insertTicket(tk *ticket.Ticket, lastSeq int64) error {
	tags, err := jsonText(tk.Tags)
	if err != nil {
		return err
	}
	return t.change("insert into tickets", `
		insert into tickets (tenant_id, ticket_id, ticket_number, title, url, client_id, contact_name_id, location_id,
			status_id, board_id, category_id, subcategory_id, priority_id, entered_by, updated_by, assigned_to,
			assigned_team_id, closed_by, entered_at, updated_at, closed_at, due_date, is_closed, attributes, tags, source,
			ticket_origin, response_state, last_occurred_at, last_seq)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23,
			$24, $25, $26, $27, $28, $29, $30)`,
		tk.TenantID, tk.TicketID, tk.Number, tk.Title, tk.URL, tk.ClientID, tk.ContactNameID, tk.LocationID,
		tk.StatusID, tk.BoardID, tk.CategoryID, tk.SubcategoryID, tk.PriorityID, tk.EnteredBy, tk.UpdatedBy, tk.AssignedTo,
		tk.AssignedTeamID, tk.ClosedBy, tk.EnteredAt.UnixMicro(), tk.UpdatedAt.UnixMicro(), wireMicros(tk.ClosedAt),
		wireMicros(tk.DueDate), tk.IsClosed, attributesText(tk), tags, tk.Source, tk.Origin, tk.ResponseState,
		micros(tk.LastOccurredAt), lastSeq)
}

// attributesText returns the attributes column; null when there are none.
func attributesText(tk *ticket.Ticket) any {
	if len(tk.Attributes) == 0 {
		return nil
	}
	return string(tk.Attributes)
}

// UpdateTicket applies a patch. A patch that says nothing new changes nothing
// and fires nothing (contract section 4.4). Errors are those of ticket.Apply,
// and NotFound.
func (s *Store) UpdateTicket(ctx context.Context, now time.Time, a ticket.Actor, id string, p ticket.Patch) (ticket.Ticket, error) {
	return writeTo(ctx, s, ticketKey{a.TenantID, lowerID(id)}, func(t *tx) (ticket.Ticket, error) {
		old, err := t.ticket(a.TenantID, id, noTicket)
		if err != nil {
			return ticket.Ticket{}, err
		}
		return t.apply(now, a, old, p)
	})
}

// apply is the way of every change of a ticket's fields: decide, write what
// changed, publish.
func (t *tx) apply(now time.Time, a ticket.Actor, old ticket.Ticket, p ticket.Patch) (ticket.Ticket, error) {
	refs, err := t.refs(old.TenantID, p.Keys(old))
	if err != nil {
		return ticket.Ticket{}, err
	}
	if ticket.NeedsResolution(old, p, refs) {
		if refs.HasResolution, err = t.hasResolution(old.TenantID, old.TicketID); err != nil {
			return ticket.Ticket{}, err
		}
	}
	next, changed, err := ticket.Apply(old, p, refs, a, now)
	if err != nil {
		return ticket.Ticket{}, err
	}
	if !changed {
		return old, nil
	}
	events := ticket.Events(&old, &next, p.Suppress, NewID, t.w.s.cfg.PublicURL)
	last, err := t.publish(now, events)
	if err != nil {
		return ticket.Ticket{}, err
	}
	if err := t.saveTicket(&old, &next, last); err != nil {
		return ticket.Ticket{}, err
	}
	if err := t.syncTags(now, a, &next, old.Tags); err != nil {
		return ticket.Ticket{}, err
	}
	if next.AssignedTo != nil && refs.Assignee != nil {
		// The new primary agent stops being an additional one.
		if err := t.deleteAgent(next, *next.AssignedTo); err != nil {
			return ticket.Ticket{}, err
		}
	}
	return next, nil
}

// ticketGroup is some columns of a ticket's row that move together.
type ticketGroup struct {
	columns string // with commas
	same    func(a, b *ticket.Ticket) bool
	values  func(args []any, t *ticket.Ticket) ([]any, error) // appends those of the columns
}

// ticketGroups are the columns that a change can move, by what moves them together:
// its words, its place in the workflow, and its people.
func ticketGroups() [3]ticketGroup {
	return [...]ticketGroup{{
		"title, url, attributes, tags",
		func(a, b *ticket.Ticket) bool {
			return a.Title == b.Title && equal(a.URL, b.URL) && slices.Equal(a.Attributes, b.Attributes) && slices.Equal(a.Tags, b.Tags)
		},
		func(args []any, t *ticket.Ticket) ([]any, error) {
			tags, err := jsonText(t.Tags)
			return append(args, t.Title, t.URL, attributesText(t), tags), err
		},
	}, {
		"status_id, board_id, category_id, subcategory_id, priority_id, closed_by, closed_at, due_date, is_closed",
		func(a, b *ticket.Ticket) bool {
			return a.StatusID == b.StatusID && a.BoardID == b.BoardID && equal(a.CategoryID, b.CategoryID) &&
				equal(a.SubcategoryID, b.SubcategoryID) && a.PriorityID == b.PriorityID && equal(a.ClosedBy, b.ClosedBy) &&
				equal(a.ClosedAt, b.ClosedAt) && equal(a.DueDate, b.DueDate) && a.IsClosed == b.IsClosed
		},
		func(args []any, t *ticket.Ticket) ([]any, error) {
			return append(args, t.StatusID, t.BoardID, t.CategoryID, t.SubcategoryID, t.PriorityID, t.ClosedBy,
				wireMicros(t.ClosedAt), wireMicros(t.DueDate), t.IsClosed), nil
		},
	}, {
		"client_id, contact_name_id, location_id, assigned_to, assigned_team_id, response_state",
		func(a, b *ticket.Ticket) bool {
			return a.ClientID == b.ClientID && equal(a.ContactNameID, b.ContactNameID) && equal(a.LocationID, b.LocationID) &&
				equal(a.AssignedTo, b.AssignedTo) && equal(a.AssignedTeamID, b.AssignedTeamID) && equal(a.ResponseState, b.ResponseState)
		},
		func(args []any, t *ticket.Ticket) ([]any, error) {
			return append(args, t.ClientID, t.ContactNameID, t.LocationID, t.AssignedTo, t.AssignedTeamID, t.ResponseState), nil
		},
	}}
}

// equal compares what two pointers point at; nil is nothing else's equal.
func equal[T comparable](a, b *T) bool {
	return a == b || a != nil && b != nil && *a == *b
}

// saveTicket writes what has changed. Columns go in groups: few statements serve
// all changes, and a title costs no rewrite of everything else.
func (t *tx) saveTicket(old, next *ticket.Ticket, lastSeq int64) error {
	args := make([]any, 0, 26)
	args = append(args, next.UpdatedBy, next.UpdatedAt.UnixMicro(), micros(next.LastOccurredAt), lastSeq)
	which := 0
	for i, g := range ticketGroups() {
		if g.same(old, next) {
			continue
		}
		which |= 1 << i
		var err error
		if args, err = g.values(args, next); err != nil {
			return err
		}
	}
	args = append(args, next.TenantID, next.TicketID)
	if err := t.change("update tickets", t.w.ticketUpdate(which), args...); err != nil {
		return err
	}
	t.remember(next, lastSeq)
	return nil
}

// ticketUpdate returns the statement that writes the groups of which, one bit for
// each, and what every change moves.
func (w *writer) ticketUpdate(which int) string {
	if q := w.updates[which]; q != "" {
		return q
	}
	var q strings.Builder
	q.WriteString("update tickets set updated_by = $1, updated_at = $2, last_occurred_at = $3, last_seq = $4")
	n := 4
	for i, g := range ticketGroups() {
		if which&(1<<i) == 0 {
			continue
		}
		for name := range strings.SplitSeq(g.columns, ", ") {
			n++
			fmt.Fprintf(&q, ", %s = $%d", name, n)
		}
	}
	fmt.Fprintf(&q, " where tenant_id = $%d and ticket_id = $%d", n+1, n+2)
	w.updates[which] = q.String()
	return w.updates[which]
}

// refs looks up the rows that a draft or patch refers to. An id without a row
// stays nil: what that means is a rule of the ticket.
func (t *tx) refs(tenant string, k ticket.Keys) (ticket.Refs, error) {
	var r ticket.Refs
	err := errors.Join(
		lookup(&r.Board, t, boardOf, tenant, k.BoardID),
		lookup(&r.Status, t, statusOf, tenant, k.StatusID),
		lookup(&r.Priority, t, priorityOf, tenant, k.PriorityID),
		lookup(&r.Client, t, clientOf, tenant, k.ClientID),
		lookup(&r.Contact, t, contactOf, tenant, k.ContactNameID),
		lookup(&r.Location, t, locationOf, tenant, k.LocationID),
		lookup(&r.Category, t, categoryOf, tenant, k.CategoryID),
		lookup(&r.Subcategory, t, categoryOf, tenant, k.SubcategoryID),
		lookup(&r.Assignee, t, userOf, tenant, k.AssignedTo),
		lookup(&r.Team, t, teamOf, tenant, k.AssignedTeamID),
	)
	return r, err
}

// lookup points at the row of id, or leaves nil when there is none.
func lookup[T any](into **T, q querier, of func(querier, string, string) (T, error), tenant, id string) error {
	if id == "" {
		return nil
	}
	v, err := of(q, tenant, id)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err == nil {
		*into = &v
	}
	return err
}

// DeleteTicket removes a ticket with its tags, agents and comments. Its events
// stay in the feed until retention ends, and there is no event for the deletion
// (contract section 2.2).
func (s *Store) DeleteTicket(ctx context.Context, a ticket.Actor, id string) error {
	_, err := write(ctx, s, func(t *tx) (struct{}, error) {
		ticketID := lowerID(id)
		delete(t.w.recent.tickets, ticketKey{a.TenantID, ticketID})
		if _, err := t.exec(`insert into ticket_ends (tenant_id, ticket_id, last_seq)
			select tenant_id, ticket_id, last_seq from tickets where tenant_id = $1 and ticket_id = $2`,
			a.TenantID, ticketID); err != nil {
			return struct{}{}, fmt.Errorf("keep the end of the ticket's events: %w", err)
		}
		n, err := t.exec(`delete from tickets where tenant_id = $1 and ticket_id = $2`, a.TenantID, ticketID)
		if err == nil && n == 0 {
			err = fault.New(fault.NotFound, noTicket)
		}
		for _, q := range []string{
			`delete from comment_reactions where tenant_id = $1 and comment_id in (
				select comment_id from comments where tenant_id = $1 and ticket_id = $2)`,
			`delete from comments where tenant_id = $1 and ticket_id = $2`,
			`delete from ticket_tags where tenant_id = $1 and ticket_id = $2`,
			`delete from ticket_agents where tenant_id = $1 and ticket_id = $2`,
		} {
			if err == nil {
				_, err = t.exec(q, a.TenantID, ticketID)
			}
		}
		return struct{}{}, err
	})
	return err
}
