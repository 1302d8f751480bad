package store

import (
	"context"
	"fmt"
	"time"

	"github.com/ticketwire/ticketwire/internal/ticket"
)

// defaultLimit is the page size when none is asked for (contract section 1.4).
const defaultLimit = 25

// Tickets returns one page of the tenant's tickets and how many match in all.
// ticket_id breaks ties of the sort, so that pages do not overlap. An unknown
// sort column is Invalid.
func (s *Store) Tickets(ctx context.Context, tenant string, q ticket.Query) ([]ticket.Ticket, int, error) {
	if q.Sort == "" {
		q.Sort = "created_at"
	}
	if err := ticket.CheckSort(q.Sort); err != nil {
		return nil, 0, err
	}
	w := ticketWhere(tenant, q)
	r := s.reader(ctx)
	total, err := count(r, ticketFrom, w)
	if err != nil {
		return nil, 0, err
	}
	text := ticketColumns + `where ` + w.String() + ticketOrder(q.Sort, q.Desc) + w.page(q.Page, q.Limit)
	rows, err := r.list(text, w.args...)
	tickets, err := collect(rows, err, scanTicket)
	if err != nil {
		return nil, 0, fmt.Errorf("list tickets: %w", err)
	}
	return tickets, total, nil
}

// count counts what a list's conditions match.
func count(r *reader, from string, w *where) (int, error) {
	rows, err := r.list(`select count(*)`+from+` where `+w.String(), w.args...)
	counts, err := collect(rows, err, func(row scanner) (n int, err error) {
		err = row.Scan(&n)
		return n, err
	})
	if err != nil {
		return 0, err
	}
	return counts[0], nil
}

// ticketOrder turns a sort name, which CheckSort let through, into an order.
// Tickets without a value come last either way: SQLite and PostgreSQL would
// differ.
func ticketOrder(name string, desc bool) string {
	column := "t." + name
	switch name {
	case "created_at":
		column = "t.entered_at" // the contract's other name for it (section 2.3)
	case "client_name":
		column = "c.client_name"
	case "status_name":
		column = "s.name"
	case "priority_name":
		column = "p.priority_name"
	case "board_name":
		column = "b.board_name"
	case "category_name":
		column = "g.category_name"
	}
	return order(column, desc, "t.ticket_id", nullable(name))
}

// nullable reports whether tickets may lack a value for the sort column. The
// others keep a plain order, which an index can serve.
func nullable(name string) bool {
	switch name {
	case "closed_at", "due_date", "category_name", "category_id", "subcategory_id", "assigned_to":
		return true
	}
	return false
}

// order returns an order by clause with a tie-breaker in the same direction.
func order(column string, desc bool, tie string, nulls bool) string {
	direction, last := " asc", ""
	if desc {
		direction = " desc"
	}
	if nulls {
		last = " nulls last"
	}
	text := " order by " + column + direction + last
	if column != tie {
		text += ", " + tie + direction
	}
	return text
}

// ticketWhere turns the filters of contract section 2.3 into conditions.
func ticketWhere(tenant string, q ticket.Query) *where {
	w := &where{}
	w.and("t.tenant_id = ?", tenant)
	for _, f := range []struct{ column, id string }{
		{"t.board_id", q.BoardID}, {"t.client_id", q.ClientID}, {"t.location_id", q.LocationID},
		{"t.contact_name_id", q.ContactNameID}, {"t.status_id", q.StatusID}, {"t.category_id", q.CategoryID},
		{"t.subcategory_id", q.SubcategoryID}, {"t.entered_by", q.EnteredBy}, {"t.assigned_to", q.AssignedTo},
		{"t.priority_id", q.PriorityID},
	} {
		if f.id != "" {
			w.and(f.column+" = ?", lowerID(f.id))
		}
	}
	for _, f := range []struct{ column, name string }{
		{"c.client_name", q.ClientName}, {"n.full_name", q.ContactName}, {"s.name", q.StatusName},
		{"p.priority_name", q.PriorityName}, {"g.category_name", q.CategoryName}, {"b.board_name", q.BoardName},
	} {
		if f.name != "" {
			w.and(f.column+" = ?", f.name)
		}
	}
	w.contains(q.Title, "t.title")
	w.contains(q.Number, "t.ticket_number")
	w.contains(q.Search, "t.title", "t.ticket_number", "c.client_name")
	if len(q.StatusIDs) > 0 {
		w.in("t.status_id", lowerIDs(q.StatusIDs))
	}
	if len(q.Tags) > 0 {
		w.tagged(q.Tags)
	}
	ticketState(w, q)
	ticketTimes(w, q)
	return w
}

func ticketState(w *where, q ticket.Query) {
	if q.OnlyOpen {
		w.and("t.is_closed = false")
	}
	if q.OnlyClosed {
		w.and("t.is_closed = true")
	}
	if q.HasAssignment != nil && *q.HasAssignment {
		w.and("t.assigned_to is not null")
	}
	if q.HasAssignment != nil && !*q.HasAssignment {
		w.and("t.assigned_to is null")
	}
}

func ticketTimes(w *where, q ticket.Query) {
	for _, f := range []struct {
		cond string
		at   *time.Time
	}{
		{"t.entered_at >= ?", q.EnteredFrom}, {"t.entered_at <= ?", q.EnteredTo},
		{"t.updated_at >= ?", q.UpdatedFrom}, {"t.updated_at <= ?", q.UpdatedTo},
		{"t.closed_at >= ?", q.ClosedFrom}, {"t.closed_at <= ?", q.ClosedTo},
	} {
		if f.at != nil {
			w.and(f.cond, micros(*f.at))
		}
	}
}

// tagged adds "has any of the tags". A text that could not be a tag matches
// nothing.
func (w *where) tagged(tags []string) {
	texts := []string{}
	for _, tag := range tags {
		if text, err := ticket.NormalizeTag(tag); err == nil {
			texts = append(texts, text)
		}
	}
	if len(texts) == 0 {
		w.and("false")
		return
	}
	w.and("exists (select 1 from ticket_tags k where k.tenant_id = t.tenant_id and k.ticket_id = t.ticket_id and k.tag_text in (" +
		w.list(texts) + "))")
}

// SearchTickets returns the newest tickets that contain the text in one of the
// fields; without fields in title and number (contract section 2.7). Unknown
// field names are ignored: the API refuses them.
func (s *Store) SearchTickets(ctx context.Context, tenant string, q ticket.SearchQuery) ([]ticket.Ticket, error) {
	w := &where{}
	w.and("t.tenant_id = ?", tenant)
	var columns []string
	for _, f := range q.Fields {
		switch f {
		case "title", "ticket_number":
			columns = append(columns, "t."+f)
		case "client_name":
			columns = append(columns, "c.client_name")
		case "contact_name":
			columns = append(columns, "n.full_name")
		}
	}
	if len(columns) == 0 {
		columns = []string{"t.title", "t.ticket_number"}
	}
	w.contains(q.Text, columns...)
	for _, f := range []struct {
		column string
		ids    []string
	}{
		{"t.status_id", q.StatusIDs}, {"t.priority_id", q.PriorityIDs},
		{"t.client_id", q.ClientIDs}, {"t.assigned_to", q.AssignedToIDs},
	} {
		if len(f.ids) > 0 {
			w.in(f.column, lowerIDs(f.ids))
		}
	}
	if !q.IncludeClosed {
		w.and("t.is_closed = false")
	}
	text := ticketColumns + `where ` + w.String() + ticketOrder("created_at", true) + w.page(1, q.Limit)
	rows, err := s.reader(ctx).list(text, w.args...)
	return collect(rows, err, scanTicket)
}

// TicketStats counts the tenant's tickets (contract section 2.7). A day begins
// at midnight UTC, a week is 7 days back from now and a month 30.
func (s *Store) TicketStats(ctx context.Context, now time.Time, tenant string) (ticket.Stats, error) {
	now = now.UTC()
	day := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, time.UTC)
	var st ticket.Stats
	r := s.reader(ctx)
	err := r.row(`
		select count(*), count(case when not is_closed then 1 end), count(case when is_closed then 1 end),
			count(case when assigned_to is null then 1 end),
			count(case when not is_closed and due_date < $2 then 1 end),
			count(case when entered_at >= $3 then 1 end), count(case when entered_at >= $4 then 1 end),
			count(case when entered_at >= $5 then 1 end)
		from tickets where tenant_id = $1`,
		tenant, micros(now), micros(day), micros(now.AddDate(0, 0, -7)), micros(now.AddDate(0, 0, -30))).Scan(
		&st.Total, &st.Open, &st.Closed, &st.Unassigned, &st.Overdue, &st.CreatedDay, &st.CreatedWeek, &st.CreatedMonth)
	if err != nil {
		return ticket.Stats{}, fmt.Errorf("count tickets: %w", err)
	}
	for _, group := range []struct {
		into *map[string]int
		q    string
	}{
		{&st.ByStatus, `select status_id, count(*) from tickets where tenant_id = $1 group by status_id`},
		{&st.ByPriority, `select p.priority_name, count(*) from tickets t
			join priorities p on p.tenant_id = t.tenant_id and p.priority_id = t.priority_id
			where t.tenant_id = $1 group by p.priority_name`},
		{&st.ByCategory, `select g.category_name, count(*) from tickets t
			join categories g on g.tenant_id = t.tenant_id and g.category_id = t.category_id
			where t.tenant_id = $1 group by g.category_name`},
		{&st.ByBoard, `select b.board_name, count(*) from tickets t
			join boards b on b.tenant_id = t.tenant_id and b.board_id = t.board_id
			where t.tenant_id = $1 group by b.board_name`},
	} {
		if *group.into, err = countBy(r, group.q, tenant); err != nil {
			return ticket.Stats{}, fmt.Errorf("count tickets: %w", err)
		}
	}
	return st, nil
}

// countBy runs a statement that gives names and their counts.
func countBy(q querier, text, tenant string) (map[string]int, error) {
	rows, err := q.query(text, tenant)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	counts := map[string]int{}
	for rows.Next() {
		var name string
		var n int
		if err := rows.Scan(&name, &n); err != nil {
			return nil, err
		}
		counts[name] = n
	}
	return counts, rows.Err()
}
