package api

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// listTickets is GET /tickets (contract section 2.3).
func (c *call) listTickets() (answer, error) {
	p := c.params()
	q := p.ticketQuery()
	pg := p.paging("created_at", ticket.SortColumns(), false)
	q.Sort, q.Desc, q.Page, q.Limit = pg.sort, pg.desc, pg.page, pg.limit
	if err := p.err(); err != nil {
		return answer{}, err
	}
	fields, err := ticket.ParseFields(p.v.Get("fields"))
	if err != nil {
		return answer{}, err
	}
	list, total, err := c.store().Tickets(c.ctx, c.tenant(), q)
	if err != nil {
		return answer{}, err
	}
	if fields == nil {
		return page(list, pg, total, p.filters), nil
	}
	cut, err := c.projected(list, fields)
	if err != nil {
		return answer{}, err
	}
	return page(cut, pg, total, p.filters), nil
}

func (p *params) ticketQuery() ticket.Query {
	q := ticket.Query{
		Title: p.text("title"), Number: p.text("ticket_number"), Search: p.text("search"),
		BoardID: p.uuid("board_id"), ClientID: p.uuid("client_id"), LocationID: p.uuid("location_id"),
		ContactNameID: p.uuid("contact_name_id"), StatusID: p.uuid("status_id"), CategoryID: p.uuid("category_id"),
		SubcategoryID: p.uuid("subcategory_id"), EnteredBy: p.uuid("entered_by"),
		AssignedTo: p.uuid("assigned_to"), PriorityID: p.uuid("priority_id"),
		StatusIDs: p.uuids("status_ids"), Tags: p.list("tags"),
		ClientName: p.text("client_name"), ContactName: p.text("contact_name"), StatusName: p.text("status_name"),
		PriorityName: p.text("priority_name"), CategoryName: p.text("category_name"), BoardName: p.text("board_name"),
		OnlyOpen: orZero(p.boolean("is_open")), OnlyClosed: orZero(p.boolean("is_closed")),
		HasAssignment: p.boolean("has_assignment"),
		UpdatedFrom:   p.datetime("updated_from"), UpdatedTo: p.datetime("updated_to"),
		ClosedFrom: p.datetime("closed_from"), ClosedTo: p.datetime("closed_to"),
	}
	// created_* and entered_* are two names of one column; both together narrow.
	q.EnteredFrom = latest(p.datetime("entered_from"), p.datetime("created_from"))
	q.EnteredTo = earliest(p.datetime("entered_to"), p.datetime("created_to"))
	p.boolean("is_active") // known and without effect, as in the contract
	return q
}

func latest(a, b *time.Time) *time.Time {
	if a == nil || b != nil && b.After(*a) {
		return b
	}
	return a
}

func earliest(a, b *time.Time) *time.Time {
	if a == nil || b != nil && b.Before(*a) {
		return b
	}
	return a
}

// projected cuts a page of tickets down to the fields that were asked for.
func (c *call) projected(list []ticket.Ticket, fields []string) ([]map[string]any, error) {
	var tags map[string][]ticket.Tag
	if slices.Contains(fields, "tags") && len(list) > 0 {
		ids := make([]string, len(list))
		for i := range list {
			ids[i] = list[i].TicketID
		}
		var err error
		if tags, err = c.store().TagsOf(c.ctx, c.tenant(), ids); err != nil {
			return nil, err
		}
	}
	out := make([]map[string]any, len(list))
	for i := range list {
		out[i] = ticket.Project(&list[i], tags[list[i].TicketID], fields)
	}
	return out, nil
}

// searchFields are what GET /tickets/search can look into (contract section 2.7).
func searchFields() []string {
	return []string{"title", "ticket_number", "client_name", "contact_name"}
}

func (c *call) searchTickets() (answer, error) {
	p := c.params()
	q := ticket.SearchQuery{
		Text:          p.needText("query"),
		Fields:        p.listOf("fields", searchFields()),
		StatusIDs:     p.uuids("status_ids"),
		PriorityIDs:   p.uuids("priority_ids"),
		ClientIDs:     p.uuids("client_ids"),
		AssignedToIDs: p.uuids("assigned_to_ids"),
		IncludeClosed: orZero(p.boolean("include_closed")),
		Limit:         p.integer("limit", 25, 1, 100),
	}
	if err := p.err(); err != nil {
		return answer{}, err
	}
	if q.Fields == nil {
		q.Fields = searchFields()[:2]
	}
	list, err := c.store().SearchTickets(c.ctx, c.tenant(), q)
	if err != nil {
		return answer{}, err
	}
	return ok(list), nil
}

func (c *call) ticketStats() (answer, error) {
	stats, err := c.store().TicketStats(c.ctx, c.now, c.tenant())
	if err != nil {
		return answer{}, err
	}
	return ok(stats), nil
}

// statusView is a status as GET /tickets/statuses shows it.
type statusView struct {
	StatusID    string `json:"status_id"`
	BoardID     string `json:"board_id"`
	Name        string `json:"name"`
	IsClosed    bool   `json:"is_closed"`
	IsDefault   bool   `json:"is_default"`
	OrderNumber int    `json:"order_number"`
}

// ticketStatuses lists the statuses of one board or of all, by board, order and
// name (contract section 2.2).
func (c *call) ticketStatuses() (answer, error) {
	p := c.params()
	board := p.uuid("board_id")
	if err := p.err(); err != nil {
		return answer{}, err
	}
	list, _, err := c.store().Statuses(c.ctx, c.tenant(), store.ResourceQuery{BoardID: board, All: true})
	if err != nil {
		return answer{}, err
	}
	out := make([]statusView, len(list))
	for i, st := range list {
		out[i] = statusView{
			StatusID: st.StatusID, BoardID: st.BoardID, Name: st.Name,
			IsClosed: st.IsClosed, IsDefault: st.IsDefault, OrderNumber: st.OrderNumber,
		}
	}
	slices.SortFunc(out, func(a, b statusView) int {
		return cmp.Or(strings.Compare(a.BoardID, b.BoardID), cmp.Compare(a.OrderNumber, b.OrderNumber),
			strings.Compare(a.Name, b.Name), strings.Compare(a.StatusID, b.StatusID))
	})
	return ok(out), nil
}

// priorityView is a priority as GET /tickets/priorities shows it.
type priorityView struct {
	PriorityID string `json:"priority_id"`
	Name       string `json:"priority_name"`
}

func (c *call) ticketPriorities() (answer, error) {
	list, _, err := c.store().Priorities(c.ctx, c.tenant(), store.ResourceQuery{All: true})
	if err != nil {
		return answer{}, err
	}
	out := make([]priorityView, len(list))
	for i, p := range list {
		out[i] = priorityView{PriorityID: p.PriorityID, Name: p.Name}
	}
	slices.SortFunc(out, func(a, b priorityView) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.PriorityID, b.PriorityID))
	})
	return ok(out), nil
}
