package delivery

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

// Event is the identity of an event: the part of its envelope that no webhook
// can filter (contract section 4.3).
type Event struct {
	EventID    string
	EventType  string
	OccurredAt time.Time
	TenantID   string
}

// Shape is what one webhook gets of an event.
type Shape struct {
	Fields PayloadFields
	// Threads sends the whole comment thread with every full payload, internal
	// notes included, as AlgaPSA does. Off, only a webhook that lists comments
	// gets it (contract D9).
	Threads bool
}

// TicketFields returns the names that payload_fields.ticket may list (contract
// section 4.5). The slice is the caller's.
func TicketFields() []string {
	return []string{
		"ticket_number", "title", "url", "status_id", "status_name", "is_closed",
		"previous_status_id", "previous_status_name", "priority_id", "priority_name",
		"client_id", "client_name", "contact_name_id", "contact_name", "contact_email",
		"assigned_to", "assigned_to_name", "assigned_team_id", "board_id", "board_name",
		"category_id", "subcategory_id", "entered_at", "updated_at", "closed_at",
		"due_date", "tags", "comment", "changes", "comments",
	}
}

// WantsComments reports whether the thread has to be read for this webhook.
func (s Shape) WantsComments() bool {
	list := s.Fields["ticket"]
	if list == nil {
		return s.Threads
	}
	return slices.Contains(list, "comments")
}

// Body returns the envelope of a ticket event as it is sent and signed: compact
// JSON in the key order of contract section 4.4, cut to the webhook's fields,
// text as it is except for what JSON itself must escape. d holds the extra keys
// (changes, previous_status_*, comment) only where the event type has them.
//
// The only errors are a nil d and a change whose values are not JSON. The slice
// is the caller's.
func Body(e Event, d *webhook.TicketData, s Shape) ([]byte, error) {
	if d == nil {
		return nil, errors.New("body of a ticket event: no ticket data")
	}
	o := object{fields: s.Fields["ticket"], idKey: "ticket_id", threads: s.Threads}
	o.buf = make([]byte, 0, 1536+threadSize(d))
	o.open(e)
	if err := o.ticket(d); err != nil {
		return nil, fmt.Errorf("body of event %s: %w", e.EventID, err)
	}
	return append(o.buf, '}', '}'), nil
}

// threadSize guesses how long the longest parts of d become.
func threadSize(d *webhook.TicketData) int {
	n := 0
	if d.Comment != nil {
		n += len(d.Comment.Text) + 160
	}
	if d.Comments != nil {
		for i := range *d.Comments {
			n += len((*d.Comments)[i].Text) + 256
		}
	}
	return n
}

// TestBody returns the envelope of a test delivery (contract section 4.7).
// e.EventType is ignored. An empty webhookID is left out, for a test of an
// address that no webhook has.
func TestBody(e Event, webhookID, name string) []byte {
	e.EventType = webhook.Test
	o := object{buf: make([]byte, 0, 384)}
	o.open(e)
	if webhookID != "" {
		o.text("webhook_id", &webhookID)
	}
	o.text("webhook_name", &name)
	o.flag("is_test", true)
	return append(o.buf, '}', '}')
}

// FromFull cuts a stored full body to what one webhook gets, without reading
// the ticket again: the bytes that stay are those of the stored body. It serves
// replay and the event feed. It works for ticket and project events; other
// events are returned whole. The result may be body itself.
func FromFull(body []byte, s Shape) ([]byte, error) {
	var env webhook.Envelope
	if err := json.Unmarshal(body, &env); err != nil {
		return nil, fmt.Errorf("stored body: %w", err)
	}
	entity, _, _ := strings.Cut(env.EventType, ".")
	if entity != "ticket" && entity != "project" {
		return body, nil
	}
	o := object{fields: s.Fields[entity], idKey: entity + "_id", threads: s.Threads}
	if o.fields == nil && !bytes.Contains(body, []byte(`"comments":`)) {
		return body, nil // nothing to cut; a quote inside a text is escaped, so this is the key
	}
	o.buf = make([]byte, 0, len(body))
	o.open(Event{EventID: env.EventID, EventType: env.EventType, OccurredAt: env.OccurredAt.Time, TenantID: env.TenantID})
	dec := json.NewDecoder(bytes.NewReader(env.Data))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("stored body of event %s: data is not an object", env.EventID)
	}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("stored body of event %s: %w", env.EventID, err)
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, fmt.Errorf("stored body of event %s: %w", env.EventID, err)
		}
		if key, _ := t.(string); o.key(key) {
			o.buf = append(o.buf, raw...)
		}
	}
	return append(o.buf, '}', '}'), nil
}

// object appends the members of a data object that the webhook wants.
type object struct {
	buf     []byte
	fields  []string // nil: all
	idKey   string   // always kept
	threads bool
	begun   bool
}

// open appends the envelope up to the inside of data.
func (o *object) open(e Event) {
	b := append(o.buf, `{"event_id":`...)
	b = appendString(b, e.EventID)
	b = append(b, `,"event_type":`...)
	b = appendString(b, e.EventType)
	b = append(b, `,"occurred_at":`...)
	b = appendTime(b, webhook.At(e.OccurredAt))
	b = append(b, `,"tenant_id":`...)
	b = appendString(b, e.TenantID)
	o.buf = append(b, `,"data":{`...)
}

// key appends the name of the next member, or reports false for one that the
// webhook does not get.
func (o *object) key(name string) bool {
	field := name
	if name == "comments_truncated" { // is part of the field comments
		field = "comments"
	}
	switch {
	case name == o.idKey:
	case o.fields != nil:
		if !slices.Contains(o.fields, field) {
			return false
		}
	case field == "comments" && !o.threads:
		return false
	}
	if o.begun {
		o.buf = append(o.buf, ',')
	}
	o.begun = true
	o.buf = appendString(o.buf, name)
	o.buf = append(o.buf, ':')
	return true
}

// ticket appends d in the order of contract section 4.4.
func (o *object) ticket(d *webhook.TicketData) error {
	o.text("ticket_id", &d.TicketID)
	o.text("ticket_number", d.TicketNumber)
	o.text("title", d.Title)
	o.text("status_id", d.StatusID)
	o.text("status_name", d.StatusName)
	o.text("priority_id", d.PriorityID)
	o.text("priority_name", d.PriorityName)
	o.text("client_id", d.ClientID)
	o.text("client_name", d.ClientName)
	o.text("contact_name_id", d.ContactNameID)
	o.text("contact_name", d.ContactName)
	o.text("contact_email", d.ContactEmail)
	o.text("assigned_to", d.AssignedTo)
	o.text("assigned_to_name", d.AssignedToName)
	o.text("assigned_team_id", d.AssignedTeamID)
	o.text("board_id", d.BoardID)
	o.text("board_name", d.BoardName)
	o.text("category_id", d.CategoryID)
	o.text("subcategory_id", d.SubcategoryID)
	o.flag("is_closed", d.IsClosed)
	o.time("entered_at", d.EnteredAt)
	o.time("updated_at", d.UpdatedAt)
	o.time("closed_at", d.ClosedAt)
	o.time("due_date", d.DueDate)
	o.strings("tags", d.Tags)
	o.text("url", &d.URL)
	o.flag("suppress_contact_notifications", d.SuppressContactNotifications)
	o.flag("suppress_internal_notifications", d.SuppressInternalNotifications)
	return o.extras(d)
}

// extras appends the keys that only some events have.
func (o *object) extras(d *webhook.TicketData) error {
	if len(d.Changes) > 0 && o.key("changes") {
		var err error
		if o.buf, err = appendChanges(o.buf, d.Changes); err != nil {
			return err
		}
	}
	if d.PreviousStatusID != nil {
		// Both or neither: the name alone may be null (contract section 4.4).
		o.text("previous_status_id", d.PreviousStatusID)
		o.text("previous_status_name", d.PreviousStatusName)
	}
	if d.Comment != nil && o.key("comment") {
		o.buf = appendComment(o.buf, d.Comment)
	}
	if d.Comments != nil && o.key("comments") {
		o.buf = appendThread(o.buf, *d.Comments)
	}
	if d.Comments != nil && d.CommentsTruncated {
		o.flag("comments_truncated", true)
	}
	return nil
}

func (o *object) text(name string, v *string) {
	if o.key(name) {
		o.buf = appendNullable(o.buf, v)
	}
}

func (o *object) flag(name string, v bool) {
	if o.key(name) {
		o.buf = appendBool(o.buf, v)
	}
}

func (o *object) time(name string, v *webhook.Time) {
	if !o.key(name) {
		return
	}
	if v == nil {
		o.buf = append(o.buf, "null"...)
		return
	}
	o.buf = appendTime(o.buf, *v)
}

func (o *object) strings(name string, v []string) {
	if !o.key(name) {
		return
	}
	o.buf = append(o.buf, '[')
	for i, s := range v {
		if i > 0 {
			o.buf = append(o.buf, ',')
		}
		o.buf = appendString(o.buf, s)
	}
	o.buf = append(o.buf, ']')
}
