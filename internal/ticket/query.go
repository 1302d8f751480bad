package ticket

import "time"

// Query is the list query of contract section 2.3. A zero field does not
// filter. Times are inclusive.
type Query struct {
	Title, Number, Search                                                string // contains, without case
	BoardID, ClientID, LocationID, ContactNameID, StatusID               string
	CategoryID, SubcategoryID, EnteredBy, AssignedTo, PriorityID         string
	StatusIDs                                                            []string
	Tags                                                                 []string // any of them, without case
	ClientName, ContactName, StatusName, PriorityName                    string   // exact
	CategoryName, BoardName                                              string   // exact
	OnlyOpen, OnlyClosed                                                 bool
	HasAssignment                                                        *bool
	EnteredFrom, EnteredTo, UpdatedFrom, UpdatedTo, ClosedFrom, ClosedTo *time.Time

	Sort  string // one of SortColumns; default "created_at"
	Desc  bool
	Page  int // from 1
	Limit int // 1..100
}

// SortColumns are the names that sort= accepts; anything else is a 400
// (contract section 2.3, "ours").
func SortColumns() []string {
	return []string{
		"created_at", "entered_at", "updated_at", "closed_at", "due_date", "ticket_number", "title",
		"client_name", "status_name", "priority_name", "board_name", "category_name", "ticket_id", "is_closed",
		"status_id", "priority_id", "board_id", "client_id", "category_id", "subcategory_id", "assigned_to", "entered_by",
	}
}

// SearchQuery is the query of GET /tickets/search (contract section 2.7).
type SearchQuery struct {
	Text          string
	Fields        []string // of title, ticket_number, client_name, contact_name
	StatusIDs     []string
	PriorityIDs   []string
	ClientIDs     []string
	AssignedToIDs []string
	IncludeClosed bool
	Limit         int // 1..100
}

// Stats is the answer of GET /tickets/stats (contract section 2.7).
type Stats struct {
	Total        int            `json:"total_tickets"`
	Open         int            `json:"open_tickets"`
	Closed       int            `json:"closed_tickets"`
	Unassigned   int            `json:"unassigned_tickets"`
	Overdue      int            `json:"overdue_tickets"`
	ByStatus     map[string]int `json:"tickets_by_status"`   // keyed by status id
	ByPriority   map[string]int `json:"tickets_by_priority"` // keyed by name, as are the next two
	ByCategory   map[string]int `json:"tickets_by_category"`
	ByBoard      map[string]int `json:"tickets_by_board"`
	CreatedDay   int            `json:"tickets_created_today"`
	CreatedWeek  int            `json:"tickets_created_this_week"`
	CreatedMonth int            `json:"tickets_created_this_month"`
}
