package ticket

import "github.com/ticketwire/ticketwire/webhook"

// Board groups tickets and owns their statuses.
type Board struct {
	TenantID     string   `json:"tenant"`
	BoardID      string   `json:"board_id"`
	Name         string   `json:"board_name"`
	Description  *string  `json:"description"`
	DisplayOrder int      `json:"display_order"`
	IsDefault    bool     `json:"is_default"`
	IsInactive   bool     `json:"is_inactive"`
	CloseRules   []string `json:"close_rules"` // subset of CloseRuleNames; never nil
}

// CloseResolutionComment is the close rule that wants a resolution comment
// before a ticket may be closed (contract section 2.5). It is the one rule that
// a board can have here; the others of the contract belong to features left out.
const CloseResolutionComment = "resolution_comment"

// Status is a step of a board's workflow.
type Status struct {
	TenantID    string  `json:"tenant"`
	StatusID    string  `json:"status_id"`
	BoardID     string  `json:"board_id"`
	Name        string  `json:"name"`
	StatusType  string  `json:"status_type"` // always "ticket"
	IsClosed    bool    `json:"is_closed"`
	IsDefault   bool    `json:"is_default"`
	OrderNumber int     `json:"order_number"`
	Color       *string `json:"color"`
	Icon        *string `json:"icon"`
}

// Priority ranks tickets. Priorities are made by the operator, not over the API.
type Priority struct {
	TenantID    string  `json:"tenant"`
	PriorityID  string  `json:"priority_id"`
	Name        string  `json:"priority_name"`
	OrderNumber int     `json:"order_number"`
	Color       *string `json:"color"`
	ItemType    string  `json:"item_type"` // always "ticket"
}

// Client is a customer.
type Client struct {
	TenantID     string       `json:"tenant"`
	ClientID     string       `json:"client_id"`
	Name         string       `json:"client_name"`
	Email        *string      `json:"email"`
	Phone        *string      `json:"phone_no"`
	URL          *string      `json:"url"`
	BillingCycle string       `json:"billing_cycle"`
	IsInactive   bool         `json:"is_inactive"`
	CreatedAt    webhook.Time `json:"created_at"`
	UpdatedAt    webhook.Time `json:"updated_at"`
}

// Contact is a person at a client.
type Contact struct {
	TenantID      string       `json:"tenant"`
	ContactNameID string       `json:"contact_name_id"`
	FullName      string       `json:"full_name"`
	Email         string       `json:"email"`
	Phone         *string      `json:"phone_number"`
	ClientID      *string      `json:"client_id"`
	IsInactive    bool         `json:"is_inactive"`
	CreatedAt     webhook.Time `json:"created_at"`
	UpdatedAt     webhook.Time `json:"updated_at"`
}

// Location is a place of a client.
type Location struct {
	TenantID   string `json:"tenant"`
	LocationID string `json:"location_id"`
	ClientID   string `json:"client_id"`
	Name       string `json:"location_name"`
}

// User is somebody who works on tickets. Keys act as their owning user.
type User struct {
	TenantID    string   `json:"tenant"`
	UserID      string   `json:"user_id"`
	FirstName   string   `json:"first_name"`
	LastName    string   `json:"last_name"`
	Email       string   `json:"email"`
	UserType    string   `json:"user_type"` // "internal" or "client"; client users may not hold keys
	IsInactive  bool     `json:"is_inactive"`
	Permissions []string `json:"-"` // "resource:action"; contract section 1.1
}

// Team is a group of users.
type Team struct {
	TenantID  string  `json:"tenant"`
	TeamID    string  `json:"team_id"`
	Name      string  `json:"team_name"`
	ManagerID *string `json:"manager_id"`
}

// Category sorts the tickets of a board; one with a parent is a subcategory.
type Category struct {
	TenantID       string  `json:"tenant"`
	CategoryID     string  `json:"category_id"`
	Name           string  `json:"category_name"`
	BoardID        string  `json:"board_id"`
	ParentCategory *string `json:"parent_category"`
	DisplayOrder   int     `json:"display_order"`
}

// Tag is one tag on one ticket. TagID names the mapping, not the text.
type Tag struct {
	TagID           string  `json:"tag_id"`
	TenantID        string  `json:"tenant"`
	BoardID         *string `json:"board_id"`
	Text            string  `json:"tag_text"`
	TaggedID        string  `json:"tagged_id"`
	TaggedType      string  `json:"tagged_type"` // always "ticket"
	BackgroundColor *string `json:"background_color"`
	TextColor       *string `json:"text_color"`
	CreatedBy       *string `json:"created_by"`
}

// Agent is an additional agent of a ticket, beside the primary one in
// assigned_to.
type Agent struct {
	UserID    string  `json:"user_id"`
	Name      *string `json:"name"`
	Email     string  `json:"email"`
	Role      string  `json:"role"`
	IsPrimary bool    `json:"-"`
}
