package ticket

import (
	"slices"
	"strings"

	"github.com/ticketwire/ticketwire/internal/fault"
)

// MobileList is the name in fields= that stands for all FieldNames.
const MobileList = "mobile_list"

// FieldNames are the names that fields= accepts beside MobileList (contract
// section 2.3).
func FieldNames() []string {
	return []string{
		"ticket_id", "ticket_number", "title", "status_id", "status_name", "status_is_closed", "priority_name",
		"assigned_to_name", "client_name", "contact_name", "updated_at", "entered_at", "closed_at", "tags",
	}
}

// CheckSort refuses a sort column that is not one of SortColumns: an Invalid
// error with path sort.
func CheckSort(name string) error {
	columns := SortColumns()
	if slices.Contains(columns, name) {
		return nil
	}
	return &fault.Error{
		Kind:    fault.Invalid,
		Message: "Query validation failed",
		Issues: []fault.Issue{{
			Code: "invalid_enum_value", Path: []any{"sort"},
			Message: "Invalid enum value. Expected '" + strings.Join(columns, "' | '") + "', received '" + name + "'",
			Extra:   map[string]any{"received": name, "options": columns},
		}},
	}
}

// ParseFields reads the comma list of fields=. It is nil for an empty list, which
// asks for whole tickets. Unknown names are an Invalid error that lists them.
func ParseFields(list string) ([]string, error) {
	known := FieldNames()
	var fields, unknown []string
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		switch {
		case name == "" || slices.Contains(fields, name):
		case name == MobileList:
			fields = append(fields, known...)
		case slices.Contains(known, name):
			fields = append(fields, name)
		default:
			unknown = append(unknown, name)
		}
	}
	if len(unknown) > 0 {
		return nil, fault.New(fault.Invalid, "Unknown fields requested: %s", strings.Join(unknown, ", "))
	}
	return fields, nil
}

// Project cuts a ticket down to fields, plus the ids that always ride along
// (contract section 2.3). tags are the rows for the field "tags", which is a list
// of objects here, not of strings (contract D23).
func Project(t *Ticket, tags []Tag, fields []string) map[string]any {
	out := map[string]any{
		"ticket_id":        t.TicketID,
		"status_id":        t.StatusID,
		"entered_by":       t.EnteredBy,
		"assigned_to":      t.AssignedTo,
		"client_id":        t.ClientID,
		"board_id":         t.BoardID,
		"assigned_team_id": t.AssignedTeamID,
	}
	for _, field := range fields {
		switch field {
		case "ticket_number":
			out[field] = t.Number
		case "title":
			out[field] = t.Title
		case "status_name":
			out[field] = t.StatusName
		case "status_is_closed":
			out[field] = t.StatusIsClosed
		case "priority_name":
			out[field] = t.PriorityName
		case "assigned_to_name":
			out[field] = t.AssignedToName
		case "client_name":
			out[field] = t.ClientName
		case "contact_name":
			out[field] = t.ContactName
		case "updated_at":
			out[field] = t.UpdatedAt
		case "entered_at":
			out[field] = t.EnteredAt
		case "closed_at":
			out[field] = t.ClosedAt
		case "tags":
			out[field] = tagFields(tags)
		}
	}
	return out
}

// tagField is a tag as fields=tags shows it.
type tagField struct {
	TagID           string  `json:"tag_id"`
	Text            string  `json:"tag_text"`
	BackgroundColor *string `json:"background_color"`
	TextColor       *string `json:"text_color"`
}

func tagFields(tags []Tag) []tagField {
	list := make([]tagField, len(tags))
	for i, t := range tags {
		list[i] = tagField{TagID: t.TagID, Text: t.Text, BackgroundColor: t.BackgroundColor, TextColor: t.TextColor}
	}
	slices.SortFunc(list, func(a, b tagField) int { return strings.Compare(a.Text, b.Text) })
	return list
}
