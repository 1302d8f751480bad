package webhook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// The six event types that are delivered, and the type of a test delivery
// (contract sections 3.4 and 4.7). A receiver must accept others and ignore
// them with a 2xx.
const (
	TicketCreated       = "ticket.created"
	TicketUpdated       = "ticket.updated"
	TicketStatusChanged = "ticket.status_changed"
	TicketAssigned      = "ticket.assigned"
	TicketClosed        = "ticket.closed"
	TicketCommentAdded  = "ticket.comment.added"
	Test                = "webhook.test"
)

// timeLayout is the wire form of every instant: UTC, milliseconds, Z.
const timeLayout = "2006-01-02T15:04:05.000Z"

// Time is an instant in the wire form of the contract: UTC with milliseconds
// and Z. It reads any RFC 3339 form.
type Time struct{ time.Time }

// At returns t as a wire instant, in UTC and cut to the millisecond.
func At(t time.Time) Time { return Time{t.UTC().Truncate(time.Millisecond)} }

// String returns the wire form.
func (t Time) String() string { return t.UTC().Format(timeLayout) }

// MarshalJSON writes the wire form.
func (t Time) MarshalJSON() ([]byte, error) {
	b := make([]byte, 0, len(timeLayout)+2)
	b = append(b, '"')
	b = t.UTC().AppendFormat(b, timeLayout)
	return append(b, '"'), nil
}

// UnmarshalJSON reads an RFC 3339 instant of any precision and offset.
func (t *Time) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("time: want a string: %w", err)
	}
	v, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return fmt.Errorf("time: want RFC 3339: %w", err)
	}
	t.Time = v.UTC()
	return nil
}

// Envelope is the body of every webhook request (contract section 4.3). Data
// is kept raw: read it with Ticket, or with json.Unmarshal for types that this
// package does not know.
type Envelope struct {
	EventID    string          `json:"event_id"`
	EventType  string          `json:"event_type"`
	OccurredAt Time            `json:"occurred_at"`
	TenantID   string          `json:"tenant_id"`
	Data       json.RawMessage `json:"data"`

	// Claim is what the event is held by while a reaction runs; zero elsewhere.
	// It tells a reaction that the event is stale, and lets it record the event
	// as done in a transaction of its own (see package inbox).
	Claim Claim `json:"-"`

	// Raw is the event byte by byte as it was signed, for handing it on. A reaction
	// has it and must not change it; elsewhere it can be nil.
	Raw []byte `json:"-"`
}

// TicketID returns the ticket that the event is about, in lower case, and "" for
// an event without one.
func (e *Envelope) TicketID() string {
	var d struct {
		TicketID string `json:"ticket_id"`
	}
	if json.Unmarshal(e.Data, &d) != nil {
		return ""
	}
	return strings.ToLower(d.TicketID)
}

// Ticket reads Data as a ticket. Every field but TicketID may be nil or empty:
// a webhook's payload_fields can remove it (contract section 4.5).
func (e *Envelope) Ticket() (*TicketData, error) {
	var d TicketData
	if err := json.Unmarshal(e.Data, &d); err != nil {
		return nil, fmt.Errorf("ticket data of event %s: %w", e.EventID, err)
	}
	return &d, nil
}

// TicketData is the curated subset of a ticket that events carry, in the key
// order of contract section 4.4. A nil pointer is null on the wire.
type TicketData struct {
	TicketID                      string   `json:"ticket_id"`
	TicketNumber                  *string  `json:"ticket_number"`
	Title                         *string  `json:"title"`
	StatusID                      *string  `json:"status_id"`
	StatusName                    *string  `json:"status_name"`
	PriorityID                    *string  `json:"priority_id"`
	PriorityName                  *string  `json:"priority_name"`
	ClientID                      *string  `json:"client_id"`
	ClientName                    *string  `json:"client_name"`
	ContactNameID                 *string  `json:"contact_name_id"`
	ContactName                   *string  `json:"contact_name"`
	ContactEmail                  *string  `json:"contact_email"`
	AssignedTo                    *string  `json:"assigned_to"`
	AssignedToName                *string  `json:"assigned_to_name"`
	AssignedTeamID                *string  `json:"assigned_team_id"`
	BoardID                       *string  `json:"board_id"`
	BoardName                     *string  `json:"board_name"`
	CategoryID                    *string  `json:"category_id"`
	SubcategoryID                 *string  `json:"subcategory_id"`
	IsClosed                      bool     `json:"is_closed"`
	EnteredAt                     *Time    `json:"entered_at"`
	UpdatedAt                     *Time    `json:"updated_at"`
	ClosedAt                      *Time    `json:"closed_at"`
	DueDate                       *Time    `json:"due_date"`
	Tags                          []string `json:"tags"`
	URL                           string   `json:"url"` // deep link into the console, not the ticket's own url field
	SuppressContactNotifications  bool     `json:"suppress_contact_notifications"`
	SuppressInternalNotifications bool     `json:"suppress_internal_notifications"`

	Changes            Changes    `json:"changes,omitempty"`              // ticket.updated only
	PreviousStatusID   *string    `json:"previous_status_id,omitempty"`   // ticket.status_changed only
	PreviousStatusName *string    `json:"previous_status_name,omitempty"` // ticket.status_changed only
	Comment            *Comment   `json:"comment,omitempty"`              // ticket.comment.added only
	Comments           *[]Message `json:"comments,omitempty"`             // only where payload_fields asks for it (AlgaPSA: always)
	CommentsTruncated  bool       `json:"comments_truncated,omitempty"`   // Ticketwire only: the thread is longer, and these are the newest
}

// Change is one field's change in a ticket.updated event.
type Change struct {
	Field    string
	Previous json.RawMessage
	New      json.RawMessage
}

// Changes is the "changes" object of a ticket.updated event. It is a list
// because the order of its keys is part of the body that is signed.
type Changes []Change

// MarshalJSON writes {field: {previous, new}} in the order of the list.
func (c Changes) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, ch := range c {
		if i > 0 {
			b = append(b, ',')
		}
		k, err := json.Marshal(ch.Field)
		if err != nil {
			return nil, err
		}
		b = append(append(append(b, k...), `:{"previous":`...), ch.Previous...)
		b = append(append(append(b, `,"new":`...), ch.New...), '}')
	}
	return append(b, '}'), nil
}

// UnmarshalJSON reads the object and keeps the order of its keys.
func (c *Changes) UnmarshalJSON(b []byte) error {
	*c = nil
	dec := json.NewDecoder(bytes.NewReader(b))
	t, err := dec.Token()
	if err != nil {
		return err
	}
	if t == nil {
		return nil
	}
	if t != json.Delim('{') {
		return fmt.Errorf("changes: want an object, got %v", t)
	}
	for dec.More() {
		k, err := dec.Token()
		if err != nil {
			return err
		}
		var v struct{ Previous, New json.RawMessage }
		if err := dec.Decode(&v); err != nil {
			return fmt.Errorf("changes.%v: %w", k, err)
		}
		field, _ := k.(string) // an object's key is always a string
		*c = append(*c, Change{Field: field, Previous: v.Previous, New: v.New})
	}
	return nil
}

// Comment is the comment that a ticket.comment.added event is about.
type Comment struct {
	Text       string  `json:"text"`
	Author     *string `json:"author"`
	Timestamp  Time    `json:"timestamp"`
	IsInternal bool    `json:"is_internal"`
	AuthorType *string `json:"author_type"` // "internal", "client" or null; AlgaPSA may leave it out
}

// Message is one comment of a ticket's whole thread, oldest first.
type Message struct {
	CommentID    string  `json:"comment_id"`
	Text         string  `json:"text"`
	Author       *string `json:"author"`
	IsInternal   bool    `json:"is_internal"`
	IsResolution bool    `json:"is_resolution"`
	CreatedAt    Time    `json:"created_at"`
	UpdatedAt    *Time   `json:"updated_at"`
}
