package delivery

import (
	"cmp"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

// The operators of a Condition. Each not_ operator is true exactly where its
// counterpart is false, so it is true for a field that is null or absent.
const (
	OpEquals      = "equals"
	OpNotEquals   = "not_equals"
	OpContains    = "contains"
	OpNotContains = "not_contains"
	OpGreaterThan = "greater_than"
	OpLessThan    = "less_than"
	OpIn          = "in"
	OpNotIn       = "not_in"
)

// Wants reports whether an event of this type is for w at all. Whether its
// ticket is, Filter.Match says.
func (w *Webhook) Wants(eventType string) bool {
	return w.IsActive && slices.Contains(w.EventTypes, eventType)
}

// Match reports whether an event about this ticket passes the filter. ticketID
// is lower case, d is the event's own data in full: changes and comment are
// compared as the event carries them. A nil Filter matches everything; a nil d
// fails every tag and condition.
//
// How a condition compares (contract D34 leaves it open):
//
//   - Ids are compared without case, other text exactly and by bytes.
//   - entered_at, updated_at, closed_at and due_date are compared as instants
//     with an RFC 3339 value; contains looks at the wire form, so a condition
//     can ask for a day.
//   - A number as value makes the comparison numeric; text that is no number
//     then equals nothing and is neither greater nor less.
//   - is_closed and the suppression flags equal true or false.
//   - tags and changes are lists, of tags and of names of changed fields.
//     contains asks for one entry, in for any of several; without case.
//   - comment is its text.
//   - null equals null only, and contains, exceeds and undercuts nothing.
func (f *Filter) Match(ticketID string, d *webhook.TicketData) bool {
	if f == nil {
		return true
	}
	if len(f.EntityIDs) > 0 && !slices.Contains(f.EntityIDs, ticketID) {
		return false
	}
	if d == nil {
		return len(f.Tags) == 0 && len(f.Conditions) == 0
	}
	if len(f.Tags) > 0 && !slices.ContainsFunc(f.Tags, func(t string) bool { return containsFold(d.Tags, t) }) {
		return false
	}
	for i := range f.Conditions {
		if !f.Conditions[i].holds(d) {
			return false
		}
	}
	return true
}

// holds reports whether the condition is true for d.
func (c *Condition) holds(d *webhook.TicketData) bool {
	o := fieldOf(d, c.Field)
	switch c.Operator {
	case OpEquals:
		return o.equals(c.Value)
	case OpNotEquals:
		return !o.equals(c.Value)
	case OpContains:
		return o.contains(c.Value)
	case OpNotContains:
		return !o.contains(c.Value)
	case OpIn:
		return o.in(c.Value)
	case OpNotIn:
		return !o.in(c.Value)
	case OpGreaterThan:
		n, ok := o.compare(c.Value)
		return ok && n > 0
	case OpLessThan:
		n, ok := o.compare(c.Value)
		return ok && n < 0
	}
	return false // not an operator: Validate refuses it
}

// kind is how a payload key is compared.
type kind int

const (
	unknownField kind = iota
	idField
	textField
	boolField
	timeField
	listField
)

// operand is the left side of a condition. null is set for a field without a
// value; otherwise the member that belongs to the kind is.
type operand struct {
	kind kind
	null bool
	text string
	flag bool
	at   time.Time
	list []string
}

// FilterFields returns the payload keys a condition may name, in the order of
// contract section 4.4. The thread is not among them: it is only read for
// webhooks that want it. The slice is the caller's.
func FilterFields() []string {
	return []string{
		"ticket_id", "ticket_number", "title", "status_id", "status_name",
		"priority_id", "priority_name", "client_id", "client_name",
		"contact_name_id", "contact_name", "contact_email",
		"assigned_to", "assigned_to_name", "assigned_team_id",
		"board_id", "board_name", "category_id", "subcategory_id", "is_closed",
		"entered_at", "updated_at", "closed_at", "due_date", "tags", "url",
		"suppress_contact_notifications", "suppress_internal_notifications",
		"changes", "previous_status_id", "previous_status_name", "comment",
	}
}

// fieldOf reads one payload key.
func fieldOf(d *webhook.TicketData, key string) operand {
	switch key {
	case "ticket_id":
		return operand{kind: idField, text: d.TicketID}
	case "status_id":
		return pointed(idField, d.StatusID)
	case "priority_id":
		return pointed(idField, d.PriorityID)
	case "client_id":
		return pointed(idField, d.ClientID)
	case "contact_name_id":
		return pointed(idField, d.ContactNameID)
	case "assigned_to":
		return pointed(idField, d.AssignedTo)
	case "assigned_team_id":
		return pointed(idField, d.AssignedTeamID)
	case "board_id":
		return pointed(idField, d.BoardID)
	case "category_id":
		return pointed(idField, d.CategoryID)
	case "subcategory_id":
		return pointed(idField, d.SubcategoryID)
	case "previous_status_id":
		return pointed(idField, d.PreviousStatusID)
	case "ticket_number":
		return pointed(textField, d.TicketNumber)
	case "title":
		return pointed(textField, d.Title)
	case "status_name":
		return pointed(textField, d.StatusName)
	case "priority_name":
		return pointed(textField, d.PriorityName)
	case "client_name":
		return pointed(textField, d.ClientName)
	case "contact_name":
		return pointed(textField, d.ContactName)
	case "contact_email":
		return pointed(textField, d.ContactEmail)
	case "assigned_to_name":
		return pointed(textField, d.AssignedToName)
	case "board_name":
		return pointed(textField, d.BoardName)
	case "previous_status_name":
		return pointed(textField, d.PreviousStatusName)
	}
	return otherFieldOf(d, key)
}

// otherFieldOf reads the payload keys that are no nullable strings.
func otherFieldOf(d *webhook.TicketData, key string) operand {
	switch key {
	case "url":
		return operand{kind: textField, text: d.URL}
	case "comment":
		if d.Comment == nil {
			return operand{kind: textField, null: true}
		}
		return operand{kind: textField, text: d.Comment.Text}
	case "is_closed":
		return operand{kind: boolField, flag: d.IsClosed}
	case "suppress_contact_notifications":
		return operand{kind: boolField, flag: d.SuppressContactNotifications}
	case "suppress_internal_notifications":
		return operand{kind: boolField, flag: d.SuppressInternalNotifications}
	case "entered_at":
		return instant(d.EnteredAt)
	case "updated_at":
		return instant(d.UpdatedAt)
	case "closed_at":
		return instant(d.ClosedAt)
	case "due_date":
		return instant(d.DueDate)
	case "tags":
		return operand{kind: listField, list: d.Tags}
	case "changes":
		names := make([]string, len(d.Changes))
		for i, c := range d.Changes {
			names[i] = c.Field
		}
		return operand{kind: listField, list: names}
	}
	return operand{kind: unknownField, null: true}
}

// pointed makes the operand of a nullable string.
func pointed(k kind, s *string) operand {
	if s == nil {
		return operand{kind: k, null: true}
	}
	return operand{kind: k, text: *s}
}

// instant makes the operand of a nullable time.
func instant(t *webhook.Time) operand {
	if t == nil {
		return operand{kind: timeField, null: true}
	}
	return operand{kind: timeField, at: t.Time}
}

// equals compares with one scalar.
func (o operand) equals(value any) bool {
	if value == nil || o.null {
		return value == nil && o.null
	}
	if o.kind == boolField {
		b, ok := value.(bool)
		return ok && b == o.flag
	}
	n, ok := o.compare(value)
	return ok && n == 0
}

// in reports whether any of the values equals the operand or, for a list, is in
// it.
func (o operand) in(value any) bool {
	values, ok := value.([]any)
	if !ok {
		return false
	}
	if o.kind == listField {
		return slices.ContainsFunc(values, o.contains)
	}
	return slices.ContainsFunc(values, o.equals)
}

// contains reports whether the value is part of the text or of the list.
func (o operand) contains(value any) bool {
	s, ok := value.(string)
	if !ok || o.null {
		return false
	}
	switch o.kind {
	case listField:
		return containsFold(o.list, s)
	case timeField:
		return strings.Contains(webhook.Time{Time: o.at}.String(), s)
	case idField, textField:
		return strings.Contains(o.text, s)
	}
	return false
}

// compare orders the operand against the value, as cmp.Compare does. ok is
// false where the two have no order.
func (o operand) compare(value any) (n int, ok bool) {
	if o.null {
		return 0, false
	}
	switch o.kind {
	case timeField:
		at, ok := instantOf(value)
		return o.at.Compare(at), ok
	case idField:
		s, ok := value.(string)
		if ok && strings.EqualFold(o.text, s) {
			return 0, true
		}
		return strings.Compare(o.text, s), ok
	case textField:
		if s, ok := value.(string); ok {
			return strings.Compare(o.text, s), true
		}
		right, ok := number(value)
		if !ok {
			return 0, false
		}
		left, err := strconv.ParseFloat(o.text, 64)
		if err != nil || math.IsNaN(left) || math.IsInf(left, 0) {
			return 0, false
		}
		return cmp.Compare(left, right), true
	}
	return 0, false
}

// instantOf reads an RFC 3339 value.
func instantOf(value any) (time.Time, bool) {
	s, ok := value.(string)
	if !ok {
		return time.Time{}, false
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	return t, err == nil
}

// number reads a value that came as a JSON number, by either way of decoding.
func number(value any) (float64, bool) {
	switch v := value.(type) {
	case float64:
		return v, true
	case json.Number:
		f, err := v.Float64()
		return f, err == nil
	}
	return 0, false
}

// containsFold reports whether list has s, in any letter case.
func containsFold(list []string, s string) bool {
	return slices.ContainsFunc(list, func(t string) bool { return strings.EqualFold(t, s) })
}
