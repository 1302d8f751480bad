package client

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Ticket is a ticket as the API answers it: the row, the names behind its ids,
// and its tags (contract section 2.1). A nil pointer is null or a key that this
// answer did not have: AlgaPSA leaves names and tags out of some answers.
type Ticket struct {
	Tenant           string          `json:"tenant"`
	TicketID         string          `json:"ticket_id"`
	TicketNumber     *string         `json:"ticket_number"`
	Title            *string         `json:"title"`
	URL              *string         `json:"url"` // a stored link; not the deep link that webhooks call url
	ClientID         *string         `json:"client_id"`
	ContactNameID    *string         `json:"contact_name_id"`
	LocationID       *string         `json:"location_id"`
	BillingProfileID *string         `json:"billing_profile_id"`
	StatusID         *string         `json:"status_id"`
	BoardID          *string         `json:"board_id"`
	CategoryID       *string         `json:"category_id"`
	SubcategoryID    *string         `json:"subcategory_id"`
	PriorityID       *string         `json:"priority_id"`
	EnteredBy        *string         `json:"entered_by"`
	UpdatedBy        *string         `json:"updated_by"`
	AssignedTo       *string         `json:"assigned_to"`
	AssignedTeamID   *string         `json:"assigned_team_id"`
	ClosedBy         *string         `json:"closed_by"`
	EnteredAt        *time.Time      `json:"entered_at"`
	UpdatedAt        *time.Time      `json:"updated_at"`
	ClosedAt         *time.Time      `json:"closed_at"`
	DueDate          *time.Time      `json:"due_date"`
	IsClosed         *bool           `json:"is_closed"`  // AlgaPSA: null until the first status change
	Attributes       json.RawMessage `json:"attributes"` // object or null; attributes.description is the description
	Source           *string         `json:"source"`
	TicketOrigin     *string         `json:"ticket_origin"`
	MasterTicketID   *string         `json:"master_ticket_id"`
	ResponseState    *string         `json:"response_state"`
	EmailMetadata    json.RawMessage `json:"email_metadata"`
	ITILImpact       *int            `json:"itil_impact"`
	ITILUrgency      *int            `json:"itil_urgency"`
	ITILPriority     *int            `json:"itil_priority_level"`
	Escalated        *bool           `json:"escalated"`
	EscalationLevel  *int            `json:"escalation_level"`
	EscalatedAt      *time.Time      `json:"escalated_at"`
	EscalatedBy      *string         `json:"escalated_by"`

	SLAPolicyID          *string    `json:"sla_policy_id"`
	SLAStartedAt         *time.Time `json:"sla_started_at"`
	SLAResponseDueAt     *time.Time `json:"sla_response_due_at"`
	SLAResponseAt        *time.Time `json:"sla_response_at"`
	SLAResponseMet       *bool      `json:"sla_response_met"`
	SLAResolutionDueAt   *time.Time `json:"sla_resolution_due_at"`
	SLAResolutionAt      *time.Time `json:"sla_resolution_at"`
	SLAResolutionMet     *bool      `json:"sla_resolution_met"`
	SLAPausedAt          *time.Time `json:"sla_paused_at"`
	SLATotalPauseMinutes *int       `json:"sla_total_pause_minutes"`

	ClientName      *string `json:"client_name"`
	ContactName     *string `json:"contact_name"`
	StatusName      *string `json:"status_name"`
	StatusIsClosed  *bool   `json:"status_is_closed"`
	PriorityName    *string `json:"priority_name"`
	CategoryName    *string `json:"category_name"`
	SubcategoryName *string `json:"subcategory_name"`
	BoardName       *string `json:"board_name"`
	EnteredByName   *string `json:"entered_by_name"`
	AssignedToName  *string `json:"assigned_to_name"`
	LocationName    *string `json:"location_name"`
	ContactEmail    *string `json:"contact_email"`
	ContactPhone    *string `json:"contact_phone"`
	ClientEmail     *string `json:"client_email"`
	ClientPhone     *string `json:"client_phone"`
	DescriptionHTML *string `json:"description_html"`
	Tags            Tags    `json:"tags"`

	// Raw is the ticket as it came, with the keys that have no field here. In it
	// a key that is null and one that is missing differ.
	Raw json.RawMessage `json:"-"`
}

// UnmarshalJSON reads a ticket and keeps its bytes.
func (t *Ticket) UnmarshalJSON(b []byte) error {
	type plain Ticket // without this method
	var p plain
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	*t = Ticket(p)
	t.Raw = append(json.RawMessage(nil), b...)
	return nil
}

// Tags are a ticket's tags as text. They are read from strings and from the tag
// objects that AlgaPSA sends in some answers.
type Tags []string

// UnmarshalJSON reads a list of strings or of objects with tag_text.
func (t *Tags) UnmarshalJSON(b []byte) error {
	*t = nil
	var list []json.RawMessage
	if err := json.Unmarshal(b, &list); err != nil {
		return fmt.Errorf("tags: %w", err)
	}
	for _, raw := range list {
		var text string
		if json.Unmarshal(raw, &text) != nil {
			var object struct {
				Text string `json:"tag_text"`
			}
			if err := json.Unmarshal(raw, &object); err != nil {
				return fmt.Errorf("tags: %w", err)
			}
			text = object.Text
		}
		*t = append(*t, text)
	}
	return nil
}

// Ticket returns one ticket. id is the ticket's UUID, not its number. The
// *Error of an unknown one has the status 404.
func (c *Client) Ticket(ctx context.Context, id string) (*Ticket, error) {
	return one[Ticket](ctx, c, call{method: http.MethodGet, path: []string{"tickets", id}})
}

// TicketFilter restricts and sorts Tickets (contract section 2.3). Unset fields
// do not restrict. Time bounds include the instant itself.
type TicketFilter struct {
	Title, TicketNumber, Search                                  string // contains, without regard to case
	BoardID, ClientID, LocationID, ContactNameID                 string
	StatusID, PriorityID, CategoryID, SubcategoryID              string
	EnteredBy, AssignedTo                                        string
	ClientName, ContactName, StatusName, PriorityName, BoardName string   // exact
	StatusIDs                                                    []string // any of them
	Tags                                                         []string // any of them, without regard to case
	IsOpen, IsClosed                                             *bool    // only true restricts
	HasAssignment                                                *bool
	EnteredFrom, EnteredTo                                       time.Time
	UpdatedFrom, UpdatedTo                                       time.Time
	ClosedFrom, ClosedTo                                         time.Time
	Sort                                                         string // a column; entered_at if empty
	Order                                                        string // "asc" or "desc"; "desc" if empty
	// Other holds further parameters under their names on the wire.
	Other url.Values
}

func (f TicketFilter) values() url.Values {
	q := make(query)
	maps.Copy(q, f.Other)
	for key, v := range map[string]string{
		"title": f.Title, "ticket_number": f.TicketNumber, "search": f.Search,
		"board_id": f.BoardID, "client_id": f.ClientID, "location_id": f.LocationID, "contact_name_id": f.ContactNameID,
		"status_id": f.StatusID, "priority_id": f.PriorityID, "category_id": f.CategoryID, "subcategory_id": f.SubcategoryID,
		"entered_by": f.EnteredBy, "assigned_to": f.AssignedTo,
		"client_name": f.ClientName, "contact_name": f.ContactName, "status_name": f.StatusName,
		"priority_name": f.PriorityName, "board_name": f.BoardName,
		"status_ids": listed(f.StatusIDs), "tags": listed(f.Tags),
		"sort": f.Sort, "order": f.Order,
	} {
		q.text(key, v)
	}
	q.flag("is_open", f.IsOpen)
	q.flag("is_closed", f.IsClosed)
	q.flag("has_assignment", f.HasAssignment)
	q.time("entered_from", f.EnteredFrom)
	q.time("entered_to", f.EnteredTo)
	q.time("updated_from", f.UpdatedFrom)
	q.time("updated_to", f.UpdatedTo)
	q.time("closed_from", f.ClosedFrom)
	q.time("closed_to", f.ClosedTo)
	return url.Values(q)
}

// listed writes a list with commas, or as JSON where an element has one of its own
// (contract section 2.3).
func listed(list []string) string {
	plain := strings.Join(list, ",")
	if !strings.HasPrefix(plain, "[") && !slices.ContainsFunc(list, func(s string) bool { return strings.Contains(s, ",") }) {
		return plain
	}
	text, err := json.Marshal(list)
	if err != nil {
		return plain // texts always encode
	}
	return string(text)
}

// Tickets walks through the tickets that fit the filter, page by page. An error
// comes as the last pair. A ticket that moves in the sort order meanwhile can
// come twice or be missed, and with AlgaPSA, which does not order what is equal,
// so can tickets with the same time: for a complete walk sort by ticket_number.
func (c *Client) Tickets(ctx context.Context, f TicketFilter) iter.Seq2[*Ticket, error] {
	return pages[Ticket](ctx, c, f.values(), "tickets")
}

// TicketPage is one page of tickets.
type TicketPage struct {
	Data    []Ticket
	Total   int  // tickets that fit the filter, on all pages
	HasNext bool // whether there is a page behind this one
}

// TicketsPage returns page n, from 1, of the tickets that fit the filter, with at
// most limit of them, 1 to 100. It is for those who pace the requests of a walk
// themselves; Tickets makes the whole walk.
func (c *Client) TicketsPage(ctx context.Context, f TicketFilter, n, limit int) (*TicketPage, error) {
	q := f.values()
	q.Set("limit", strconv.Itoa(limit))
	p, err := onePage[Ticket](ctx, c, q, n, "tickets")
	if err != nil {
		return nil, err
	}
	return &TicketPage{Data: p.Data, Total: p.Pagination.Total, HasNext: p.Pagination.HasNext}, nil
}

// TicketInput is what CreateTicket sends. Title, BoardID, ClientID, StatusID and
// PriorityID are required by the server (contract section 2.4).
type TicketInput struct {
	Title         string   `json:"title"`
	BoardID       string   `json:"board_id"`
	ClientID      string   `json:"client_id"`
	StatusID      string   `json:"status_id"`
	PriorityID    string   `json:"priority_id"`
	URL           string   `json:"url,omitempty"`
	LocationID    string   `json:"location_id,omitempty"`
	ContactNameID string   `json:"contact_name_id,omitempty"`
	CategoryID    string   `json:"category_id,omitempty"`
	SubcategoryID string   `json:"subcategory_id,omitempty"`
	AssignedTo    string   `json:"assigned_to,omitempty"`
	Attributes    any      `json:"attributes,omitempty"` // encodes to an object
	Tags          []string `json:"tags,omitempty"`
}

// CreateTicket creates a ticket. Without WithIdempotencyKey it is not sent
// again after a lost connection, because the ticket may exist by then.
func (c *Client) CreateTicket(ctx context.Context, in TicketInput, opts ...CallOption) (*Ticket, error) {
	return one[Ticket](ctx, c, call{method: http.MethodPost, path: []string{"tickets"}, in: in}, opts...)
}

// TicketUpdate is what UpdateTicket changes (contract section 2.5). Fields that
// are not set stay as they are.
type TicketUpdate struct {
	Title         Field[string]   `json:"title,omitzero"`
	URL           Field[string]   `json:"url,omitzero"`
	BoardID       Field[string]   `json:"board_id,omitzero"` // needs StatusID beside it
	ClientID      Field[string]   `json:"client_id,omitzero"`
	LocationID    Field[string]   `json:"location_id,omitzero"`
	ContactNameID Field[string]   `json:"contact_name_id,omitzero"`
	StatusID      Field[string]   `json:"status_id,omitzero"`
	PriorityID    Field[string]   `json:"priority_id,omitzero"`
	CategoryID    Field[string]   `json:"category_id,omitzero"`
	SubcategoryID Field[string]   `json:"subcategory_id,omitzero"`
	AssignedTo    Field[string]   `json:"assigned_to,omitzero"` // AlgaPSA refuses null
	Attributes    Field[any]      `json:"attributes,omitzero"`
	Tags          Field[[]string] `json:"tags,omitzero"` // replaces all; AlgaPSA fails on it

	SuppressContactNotifications  bool `json:"suppressContactNotifications,omitempty"`
	SuppressInternalNotifications bool `json:"suppressInternalNotifications,omitempty"` // only with the other one
}

// UpdateTicket changes a ticket and returns it. It is sent again after a lost
// connection: the second time changes nothing.
func (c *Client) UpdateTicket(ctx context.Context, id string, in TicketUpdate, opts ...CallOption) (*Ticket, error) {
	return one[Ticket](ctx, c, call{method: http.MethodPut, path: []string{"tickets", id}, in: in}, opts...)
}

// CommentInput is what AddComment sends (contract section 2.6).
type CommentInput struct {
	Text            string `json:"comment_text"` // 1 to 5,000 characters
	IsInternal      bool   `json:"is_internal,omitempty"`
	IsResolution    bool   `json:"is_resolution,omitempty"`
	ParentCommentID string `json:"parent_comment_id,omitempty"` // a reply has its thread's visibility
	Metadata        any    `json:"metadata,omitempty"`          // encodes to an object

	SuppressContactNotifications  bool `json:"suppressContactNotifications,omitempty"`
	SuppressInternalNotifications bool `json:"suppressInternalNotifications,omitempty"` // only with the other one
}

// Comment is a comment as the API answers it.
type Comment struct {
	CommentID       string     `json:"comment_id"`
	TicketID        string     `json:"ticket_id"`
	Text            *string    `json:"comment_text"`
	IsInternal      *bool      `json:"is_internal"`
	IsResolution    *bool      `json:"is_resolution"`
	AuthorType      *string    `json:"author_type"`
	ThreadID        *string    `json:"thread_id"`
	ParentCommentID *string    `json:"parent_comment_id"`
	CreatedBy       *string    `json:"created_by"`
	CreatedByName   *string    `json:"created_by_name"`
	CreatedAt       *time.Time `json:"created_at"`
	UpdatedAt       *time.Time `json:"updated_at"`
}

// AddComment adds a comment to a ticket. Like CreateTicket it is only repeated
// with WithIdempotencyKey.
func (c *Client) AddComment(ctx context.Context, ticketID string, in CommentInput, opts ...CallOption) (*Comment, error) {
	return one[Comment](ctx, c, call{method: http.MethodPost, path: []string{"tickets", ticketID, "comments"}, in: in}, opts...)
}
