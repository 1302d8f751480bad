package ticket

import (
	"encoding/json"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

// Ticket is a ticket with the names of everything it refers to: the one shape
// that every ticket route returns (contract section 2.1, "ours"). The JSON
// names are the wire names.
type Ticket struct {
	TenantID       string          `json:"tenant"`
	TicketID       string          `json:"ticket_id"`
	Number         string          `json:"ticket_number"`
	Title          string          `json:"title"`
	URL            *string         `json:"url"` // a stored link, not the deep link that events call url
	ClientID       string          `json:"client_id"`
	ContactNameID  *string         `json:"contact_name_id"`
	LocationID     *string         `json:"location_id"`
	StatusID       string          `json:"status_id"`
	BoardID        string          `json:"board_id"`
	CategoryID     *string         `json:"category_id"`
	SubcategoryID  *string         `json:"subcategory_id"`
	PriorityID     string          `json:"priority_id"`
	EnteredBy      string          `json:"entered_by"`
	UpdatedBy      *string         `json:"updated_by"`
	AssignedTo     *string         `json:"assigned_to"`
	AssignedTeamID *string         `json:"assigned_team_id"`
	ClosedBy       *string         `json:"closed_by"`
	EnteredAt      webhook.Time    `json:"entered_at"`
	UpdatedAt      webhook.Time    `json:"updated_at"`
	ClosedAt       *webhook.Time   `json:"closed_at"`
	DueDate        *webhook.Time   `json:"due_date"`
	IsClosed       bool            `json:"is_closed"`
	Attributes     json.RawMessage `json:"attributes"`    // an object or null; attributes.description holds the description
	Source         string          `json:"source"`        // "api"
	Origin         string          `json:"ticket_origin"` // "api"
	ResponseState  *string         `json:"response_state"`
	Unused

	StatusName      string  `json:"status_name"`
	StatusIsClosed  bool    `json:"status_is_closed"`
	PriorityName    string  `json:"priority_name"`
	BoardName       string  `json:"board_name"`
	ClientName      string  `json:"client_name"`
	ClientEmail     *string `json:"client_email"`
	ClientPhone     *string `json:"client_phone"`
	ContactName     *string `json:"contact_name"`
	ContactEmail    *string `json:"contact_email"`
	ContactPhone    *string `json:"contact_phone"`
	LocationName    *string `json:"location_name"`
	CategoryName    *string `json:"category_name"`
	SubcategoryName *string `json:"subcategory_name"`
	EnteredByName   *string `json:"entered_by_name"`
	AssignedToName  *string `json:"assigned_to_name"`

	Tags            []string `json:"tags"`             // sorted by text, never nil
	DescriptionHTML string   `json:"description_html"` // attributes.description, escaped

	// LastOccurredAt is the occurred_at of the newest event of the ticket. The
	// next change happens after it, so that occurred_at strictly increases
	// (contract P14). Not on the wire.
	LastOccurredAt time.Time `json:"-"`
}

// Unused holds the columns of contract section 2.1 that belong to features this
// service does not have (SLA, ITIL, escalation, bundles, documents). They are
// always null, false, zero or empty, and present so that the shape is complete.
type Unused struct {
	BillingProfileID     *string  `json:"billing_profile_id"`
	MasterTicketID       *string  `json:"master_ticket_id"`
	EmailMetadata        *string  `json:"email_metadata"`
	ItilImpact           *int     `json:"itil_impact"`
	ItilUrgency          *int     `json:"itil_urgency"`
	ItilPriorityLevel    *int     `json:"itil_priority_level"`
	Escalated            *bool    `json:"escalated"`
	EscalationLevel      *int     `json:"escalation_level"`
	EscalatedAt          *string  `json:"escalated_at"`
	EscalatedBy          *string  `json:"escalated_by"`
	SLAPolicyID          *string  `json:"sla_policy_id"`
	SLAStartedAt         *string  `json:"sla_started_at"`
	SLAResponseDueAt     *string  `json:"sla_response_due_at"`
	SLAResponseAt        *string  `json:"sla_response_at"`
	SLAResponseMet       *bool    `json:"sla_response_met"`
	SLAResolutionDueAt   *string  `json:"sla_resolution_due_at"`
	SLAResolutionAt      *string  `json:"sla_resolution_at"`
	SLAResolutionMet     *bool    `json:"sla_resolution_met"`
	SLAPausedAt          *string  `json:"sla_paused_at"`
	SLATotalPauseMinutes *int     `json:"sla_total_pause_minutes"`
	Documents            []string `json:"documents"` // never nil, always empty
	ContactAvatarURL     *string  `json:"contact_avatar_url"`
	ClientLogoURL        *string  `json:"client_logo_url"`
}

// Opt is a value that may be absent from a patch, which is not the same as
// null: Opt[*string]{Set: true} clears a field.
type Opt[T any] struct {
	Set   bool
	Value T
}

// Some returns a value that is present.
func Some[T any](v T) Opt[T] { return Opt[T]{Set: true, Value: v} }

// Draft is the body of a create (contract section 2.4).
type Draft struct {
	Title         string
	URL           *string
	BoardID       string
	ClientID      string
	StatusID      string
	PriorityID    string
	LocationID    *string
	ContactNameID *string
	CategoryID    *string
	SubcategoryID *string
	AssignedTo    *string
	DueDate       *time.Time
	Attributes    json.RawMessage // an object, or nil
	Description   *string         // becomes attributes.description (contract D26); nil adds none
	Tags          []string
	Suppress
}

// Patch is the body of an update (contract section 2.5). Absent fields stay as
// they are.
type Patch struct {
	Title              Opt[string]
	URL                Opt[*string]
	BoardID            Opt[string]
	ClientID           Opt[string]
	StatusID           Opt[string]
	PriorityID         Opt[string]
	LocationID         Opt[*string]
	ContactNameID      Opt[*string]
	CategoryID         Opt[*string]
	SubcategoryID      Opt[*string]
	AssignedTo         Opt[*string]
	AssignedTeamID     Opt[*string]
	DueDate            Opt[*time.Time]
	Attributes         Opt[json.RawMessage] // replaces the object; null clears it
	Description        Opt[*string]         // sets attributes.description and keeps the rest; null removes it (contract D26)
	Tags               Opt[[]string]        // replaces the list
	OverrideCloseRules bool
	Suppress
}

// Suppress are the two suppression flags of contract section 2.2. They change
// nothing on the ticket and travel in the payload of the events.
type Suppress struct {
	ContactNotifications  bool
	InternalNotifications bool
}

// Refs are the rows that a draft or patch refers to, looked up by the store for
// the same tenant. A nil pointer for an id that was given means there is no such
// row.
type Refs struct {
	Board       *Board
	Status      *Status
	Priority    *Priority
	Client      *Client
	Contact     *Contact
	Location    *Location
	Category    *Category
	Subcategory *Category
	Assignee    *User
	Team        *Team
	// HasResolution says whether the ticket has a resolution comment; only
	// looked up when the board asks for one before closing.
	HasResolution bool
}

// Actor is who makes a change: the user who owns the API key.
type Actor struct {
	TenantID string
	UserID   string
	Name     *string // display name, for events
}

// Event is one thing that happened to a ticket, ready to be stored and sent.
type Event struct {
	EventID    string
	Type       string
	OccurredAt webhook.Time
	TenantID   string
	TicketID   string
	Data       webhook.TicketData
}
