package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// itemTicket is the one kind of thing that statuses, priorities and tags are
// about here.
const itemTicket = "ticket"

// ResourceQuery is the list query of the supporting resources (contract section
// 2.9). A filter that a resource does not have is ignored.
type ResourceQuery struct {
	Search          string // contained in the name, for people in the address too; without case
	BoardID         string // statuses and categories
	ClientID        string // contacts and locations
	Email           string // contacts and users; exact, without case
	Name            string // exact
	IncludeInactive bool
	Sort            string // created_at, the name, or the order of the resource; "" is its own order
	Desc            bool
	Page            int  // from 1
	Limit           int  // 1..100; 0 means 25
	All             bool // everything on one page
}

// resource says how one of the supporting resources is listed. Its texts are
// ours: what comes from outside only chooses among them.
type resource[T any] struct {
	columns  string // the select list
	table    string
	id       string   // key column, the tie-breaker
	order    string   // order without a sort, and a name for sort
	search   []string // the first one is the name
	filters  []filter
	inactive bool // has is_inactive
	scan     func(scanner) (T, error)
}

// filter is a condition that applies when the query has a value for it.
type filter struct {
	cond  string
	value func(ResourceQuery) string
}

// one finds a row by its id.
func (d resource[T]) one(q querier, tenant, id, missing string) (T, error) {
	v, err := d.scan(q.row(`select `+d.columns+` from `+d.table+` where tenant_id = $1 and `+d.id+` = $2`,
		tenant, lowerID(id)))
	return v, found(err, missing)
}

// list returns one page and how many rows match in all.
func (d resource[T]) list(ctx context.Context, s *Store, tenant string, q ResourceQuery) ([]T, int, error) {
	w := &where{}
	w.and("tenant_id = ?", tenant)
	if d.inactive && !q.IncludeInactive {
		w.and("is_inactive = false")
	}
	if q.Name != "" {
		w.and(d.search[0]+" = ?", q.Name)
	}
	w.contains(q.Search, d.search...)
	for _, f := range d.filters {
		if v := f.value(q); v != "" {
			w.and(f.cond, v)
		}
	}
	r := s.reader(ctx)
	total, err := count(r, ` from `+d.table, w)
	if err != nil {
		return nil, 0, err
	}
	by, err := d.sort(q)
	if err != nil {
		return nil, 0, err
	}
	text := `select ` + d.columns + ` from ` + d.table + ` where ` + w.String() + by
	if !q.All {
		text += w.page(q.Page, q.Limit)
	}
	rows, err := r.list(text, w.args...)
	page, err := collect(rows, err, d.scan)
	if err != nil {
		return nil, 0, fmt.Errorf("list %s: %w", d.table, err)
	}
	return page, total, nil
}

// sort returns the order of a list. Every column of the resource's own order has
// the direction of the query.
func (d resource[T]) sort(q ResourceQuery) (string, error) {
	columns := strings.Split(d.order, ", ")
	switch {
	case q.Sort == "":
	case q.Sort == "created_at" || slices.Contains(d.search, q.Sort) || slices.Contains(columns, q.Sort):
		columns = []string{q.Sort}
	default:
		return "", fault.Field("sort", "Unknown sort column")
	}
	direction := " asc"
	if q.Desc {
		direction = " desc"
	}
	return " order by " + strings.Join(append(columns, d.id), direction+", ") + direction, nil
}

// reference turns a parent that does not exist into the error that the contract
// gives for it (section 2.4).
func reference(err error) error {
	if fault.Is(err, fault.NotFound) {
		return fault.New(fault.BadReference, "Invalid reference")
	}
	return err
}

func boards() resource[ticket.Board] {
	return resource[ticket.Board]{
		columns: `tenant_id, board_id, board_name, description, display_order, is_default, is_inactive, close_rules`,
		table:   "boards", id: "board_id", order: "display_order, board_name", search: []string{"board_name"}, inactive: true,
		scan: func(row scanner) (ticket.Board, error) {
			var b ticket.Board
			var rules sql.NullString
			err := row.Scan(&b.TenantID, &b.BoardID, &b.Name, &b.Description, &b.DisplayOrder, &b.IsDefault, &b.IsInactive, &rules)
			if err == nil {
				err = fromJSON(rules, &b.CloseRules)
			}
			return b, err
		},
	}
}

func boardOf(q querier, tenant, id string) (ticket.Board, error) {
	return boards().one(q, tenant, id, "Board not found")
}

// Boards lists the tenant's boards.
func (s *Store) Boards(ctx context.Context, tenant string, q ResourceQuery) ([]ticket.Board, int, error) {
	return boards().list(ctx, s, tenant, q)
}

// Board returns one board.
func (s *Store) Board(ctx context.Context, tenant, id string) (ticket.Board, error) {
	return boardOf(s.reader(ctx), tenant, id)
}

// CreateBoard makes a board. A new default board takes that role from the old
// one.
func (s *Store) CreateBoard(ctx context.Context, now time.Time, tenant string, b ticket.Board) (ticket.Board, error) {
	return write(ctx, s, func(t *tx) (ticket.Board, error) { return t.createBoard(now, tenant, b) })
}

func (t *tx) createBoard(now time.Time, tenant string, b ticket.Board) (ticket.Board, error) {
	b.TenantID, b.BoardID = tenant, NewID()
	if b.CloseRules == nil {
		b.CloseRules = []string{}
	}
	for _, rule := range b.CloseRules {
		if rule != ticket.CloseResolutionComment {
			return ticket.Board{}, fault.Field("close_rules", "Unknown close rule: %s", rule)
		}
	}
	rules, err := jsonText(b.CloseRules)
	if err != nil {
		return ticket.Board{}, err
	}
	if b.IsDefault {
		if err := t.change("update boards",
			`update boards set is_default = false where tenant_id = $1 and is_default`, tenant); err != nil {
			return ticket.Board{}, err
		}
	}
	err = t.change("insert into boards", `
		insert into boards (tenant_id, board_id, board_name, description, display_order, is_default, is_inactive,
			close_rules, created_at)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		tenant, b.BoardID, b.Name, b.Description, b.DisplayOrder, b.IsDefault, b.IsInactive, rules, micros(now))
	return b, err
}

func statuses() resource[ticket.Status] {
	return resource[ticket.Status]{
		columns: `tenant_id, status_id, board_id, name, is_closed, is_default, order_number, color, icon`,
		table:   "statuses", id: "status_id", order: "board_id, order_number, name", search: []string{"name"},
		filters: []filter{{"board_id = ?", byBoard}},
		scan: func(row scanner) (ticket.Status, error) {
			st := ticket.Status{StatusType: itemTicket}
			err := row.Scan(&st.TenantID, &st.StatusID, &st.BoardID, &st.Name, &st.IsClosed, &st.IsDefault, &st.OrderNumber,
				&st.Color, &st.Icon)
			return st, err
		},
	}
}

func byBoard(q ResourceQuery) string  { return lowerID(q.BoardID) }
func byClient(q ResourceQuery) string { return lowerID(q.ClientID) }
func byEmail(q ResourceQuery) string  { return strings.ToLower(q.Email) }

func statusOf(q querier, tenant, id string) (ticket.Status, error) {
	return statuses().one(q, tenant, id, "Status not found")
}

// Statuses lists the tenant's ticket statuses, by board and order.
func (s *Store) Statuses(ctx context.Context, tenant string, q ResourceQuery) ([]ticket.Status, int, error) {
	return statuses().list(ctx, s, tenant, q)
}

// Status returns one status.
func (s *Store) Status(ctx context.Context, tenant, id string) (ticket.Status, error) {
	return statusOf(s.reader(ctx), tenant, id)
}

// CreateStatus makes a status of a board. An unknown board is a BadReference. A
// new default status takes that role from the board's old one.
func (s *Store) CreateStatus(ctx context.Context, now time.Time, tenant string, st ticket.Status) (ticket.Status, error) {
	return write(ctx, s, func(t *tx) (ticket.Status, error) { return t.createStatus(now, tenant, st) })
}

func (t *tx) createStatus(now time.Time, tenant string, st ticket.Status) (ticket.Status, error) {
	board, err := boardOf(t, tenant, st.BoardID)
	if err != nil {
		return ticket.Status{}, reference(err)
	}
	st.TenantID, st.StatusID, st.BoardID, st.StatusType = tenant, NewID(), board.BoardID, itemTicket
	if st.IsDefault {
		if err := t.change("update statuses",
			`update statuses set is_default = false where tenant_id = $1 and board_id = $2 and is_default`,
			tenant, st.BoardID); err != nil {
			return ticket.Status{}, err
		}
	}
	err = t.change("insert into statuses", `
		insert into statuses (tenant_id, status_id, board_id, name, is_closed, is_default, order_number, color, icon, created_at)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		tenant, st.StatusID, st.BoardID, st.Name, st.IsClosed, st.IsDefault, st.OrderNumber, st.Color, st.Icon, micros(now))
	return st, err
}

func priorities() resource[ticket.Priority] {
	return resource[ticket.Priority]{
		columns: `tenant_id, priority_id, priority_name, order_number, color`,
		table:   "priorities", id: "priority_id", order: "order_number, priority_name", search: []string{"priority_name"},
		scan: func(row scanner) (ticket.Priority, error) {
			p := ticket.Priority{ItemType: itemTicket}
			err := row.Scan(&p.TenantID, &p.PriorityID, &p.Name, &p.OrderNumber, &p.Color)
			return p, err
		},
	}
}

func priorityOf(q querier, tenant, id string) (ticket.Priority, error) {
	return priorities().one(q, tenant, id, "Priority not found")
}

// Priorities lists the tenant's priorities.
func (s *Store) Priorities(ctx context.Context, tenant string, q ResourceQuery) ([]ticket.Priority, int, error) {
	return priorities().list(ctx, s, tenant, q)
}

// Priority returns one priority.
func (s *Store) Priority(ctx context.Context, tenant, id string) (ticket.Priority, error) {
	return priorityOf(s.reader(ctx), tenant, id)
}

func categories() resource[ticket.Category] {
	return resource[ticket.Category]{
		columns: `tenant_id, category_id, category_name, board_id, parent_category, display_order`,
		table:   "categories", id: "category_id", order: "display_order, category_name", search: []string{"category_name"},
		filters: []filter{{"board_id = ?", byBoard}},
		scan: func(row scanner) (ticket.Category, error) {
			var c ticket.Category
			err := row.Scan(&c.TenantID, &c.CategoryID, &c.Name, &c.BoardID, &c.ParentCategory, &c.DisplayOrder)
			return c, err
		},
	}
}

func categoryOf(q querier, tenant, id string) (ticket.Category, error) {
	return categories().one(q, tenant, id, "Category not found")
}

// Categories lists the tenant's ticket categories.
func (s *Store) Categories(ctx context.Context, tenant string, q ResourceQuery) ([]ticket.Category, int, error) {
	return categories().list(ctx, s, tenant, q)
}

// Category returns one category.
func (s *Store) Category(ctx context.Context, tenant, id string) (ticket.Category, error) {
	return categoryOf(s.reader(ctx), tenant, id)
}

// CreateCategory makes a category of a board, or below another category of that
// board. An unknown board or parent is a BadReference.
func (s *Store) CreateCategory(ctx context.Context, now time.Time, tenant string, c ticket.Category) (ticket.Category, error) {
	return write(ctx, s, func(t *tx) (ticket.Category, error) { return t.createCategory(now, tenant, c) })
}

func (t *tx) createCategory(now time.Time, tenant string, c ticket.Category) (ticket.Category, error) {
	board, err := boardOf(t, tenant, c.BoardID)
	if err != nil {
		return ticket.Category{}, reference(err)
	}
	c.TenantID, c.CategoryID, c.BoardID = tenant, NewID(), board.BoardID
	if c.ParentCategory != nil {
		parent, err := categoryOf(t, tenant, *c.ParentCategory)
		switch {
		case err != nil:
			return ticket.Category{}, reference(err)
		case parent.BoardID != c.BoardID:
			return ticket.Category{}, fault.Field("parent_category", "parent_category %s does not belong to board_id %s",
				parent.CategoryID, c.BoardID)
		case parent.ParentCategory != nil:
			return ticket.Category{}, fault.Field("parent_category", "A subcategory cannot have subcategories")
		}
		c.ParentCategory = &parent.CategoryID
	}
	err = t.change("insert into categories", `
		insert into categories (tenant_id, category_id, category_name, board_id, parent_category, display_order, created_at)
		values ($1, $2, $3, $4, $5, $6, $7)`,
		tenant, c.CategoryID, c.Name, c.BoardID, c.ParentCategory, c.DisplayOrder, micros(now))
	return c, err
}
