package ticket

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

// Events says what happened to a ticket between old and next (contract section
// 4.4, column "ours"). old is nil for a ticket that was just created. The order
// is created, assigned; or updated, status_changed, assigned, closed. There is
// none when updated_at did not move, and at least one when it did.
//
// Each event has its own id from newID and carries the whole state of next, so
// the payload is that of the commit, whatever happens later. The first one
// occurred at updated_at, each further one a millisecond later;
// next.LastOccurredAt becomes the last of them and has to be stored. publicURL is
// the base of the deep link in data.url.
func Events(old, next *Ticket, s Suppress, newID func() string, publicURL string) []Event {
	kinds := eventTypes(old, next)
	if len(kinds) == 0 {
		return nil
	}
	data := Data(next, publicURL)
	data.SuppressContactNotifications = s.ContactNotifications
	data.SuppressInternalNotifications = s.InternalNotifications
	events := make([]Event, len(kinds))
	for i, kind := range kinds {
		at := webhook.At(next.UpdatedAt.Add(time.Duration(i) * time.Millisecond))
		events[i] = Event{
			EventID: newID(), Type: kind, OccurredAt: at,
			TenantID: next.TenantID, TicketID: next.TicketID, Data: data,
		}
		switch kind {
		case webhook.TicketUpdated:
			events[i].Data.Changes = changes(old, next)
		case webhook.TicketStatusChanged:
			events[i].Data.PreviousStatusID = new(old.StatusID)
			events[i].Data.PreviousStatusName = new(old.StatusName)
		}
		next.LastOccurredAt = at.Time
	}
	return events
}

// eventTypes names the events of a change, in the order they are sent.
func eventTypes(old, next *Ticket) []string {
	if old == nil {
		if next.AssignedTo != nil { // a draft has no team
			return []string{webhook.TicketCreated, webhook.TicketAssigned}
		}
		return []string{webhook.TicketCreated}
	}
	if old.UpdatedAt.Equal(next.UpdatedAt.Time) {
		return nil
	}
	kinds := append(make([]string, 0, 4), webhook.TicketUpdated)
	if old.StatusID != next.StatusID {
		kinds = append(kinds, webhook.TicketStatusChanged)
	}
	if !sameText(old.AssignedTo, next.AssignedTo) || !sameText(old.AssignedTeamID, next.AssignedTeamID) {
		kinds = append(kinds, webhook.TicketAssigned)
	}
	if next.IsClosed && !old.IsClosed {
		kinds = append(kinds, webhook.TicketClosed)
	}
	return kinds
}

// CommentAdded is the event of a new comment. t is the ticket after Touch, which
// already moved LastOccurredAt to this event.
func CommentAdded(t *Ticket, c Comment, s Suppress, newID func() string, publicURL string) Event {
	data := Data(t, publicURL)
	data.SuppressContactNotifications = s.ContactNotifications
	data.SuppressInternalNotifications = s.InternalNotifications
	data.Comment = &webhook.Comment{
		Text: c.Note, Author: c.author(), Timestamp: c.CreatedAt, IsInternal: c.IsInternal,
	}
	if c.AuthorType != AuthorUnknown {
		data.Comment.AuthorType = &c.AuthorType
	}
	return Event{
		EventID: newID(), Type: webhook.TicketCommentAdded, OccurredAt: t.UpdatedAt,
		TenantID: t.TenantID, TicketID: t.TicketID, Data: data,
	}
}

// Data is the full payload for a ticket (contract section 4.4) without the keys
// that belong to one event: suppression, changes, previous status, comment. Every
// key that the ticket has too has the same value there, except url, which is the
// deep link <publicURL>/msp/tickets/<ticket_id> (contract D6, D24).
func Data(t *Ticket, publicURL string) webhook.TicketData {
	c := *t // the payload points into this copy: frozen, at the price of one allocation
	tags := c.Tags
	if tags == nil {
		tags = []string{} // a list on the wire, never null
	}
	return webhook.TicketData{
		TicketID:       c.TicketID,
		TicketNumber:   &c.Number,
		Title:          &c.Title,
		StatusID:       &c.StatusID,
		StatusName:     &c.StatusName,
		PriorityID:     &c.PriorityID,
		PriorityName:   &c.PriorityName,
		ClientID:       &c.ClientID,
		ClientName:     &c.ClientName,
		ContactNameID:  c.ContactNameID,
		ContactName:    c.ContactName,
		ContactEmail:   c.ContactEmail,
		AssignedTo:     c.AssignedTo,
		AssignedToName: c.AssignedToName,
		AssignedTeamID: c.AssignedTeamID,
		BoardID:        &c.BoardID,
		BoardName:      &c.BoardName,
		CategoryID:     c.CategoryID,
		SubcategoryID:  c.SubcategoryID,
		IsClosed:       c.IsClosed,
		EnteredAt:      &c.EnteredAt,
		UpdatedAt:      &c.UpdatedAt,
		ClosedAt:       c.ClosedAt,
		DueDate:        c.DueDate,
		Tags:           tags,
		URL:            strings.TrimRight(publicURL, "/") + "/msp/tickets/" + c.TicketID,
	}
}

// What of a thread goes into a payload: the newest comments, up to so many and to so
// many bytes of text, but the newest one whatever its length. Receivers take bodies
// up to a limit of theirs, often a megabyte, and one that is too large for them
// would fail each time.
const (
	MaxThread     = 1000
	maxThreadText = 256 << 10
)

// AddThread sets the comments key of a payload: every comment that was not deleted,
// internal ones included, oldest first (contract D9), and whether older ones had to
// be left out. The comments come in any order; of those beyond MaxThread one is
// enough.
func AddThread(d *webhook.TicketData, comments []Comment) {
	sorted := slices.Clone(comments)
	slices.SortStableFunc(sorted, func(a, b Comment) int { // newest first
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt.Time), strings.Compare(b.CommentID, a.CommentID))
	})
	messages := make([]webhook.Message, 0, len(sorted))
	d.CommentsTruncated = false
	size := 0
	for i := range sorted {
		c := &sorted[i]
		if c.DeletedAt != nil {
			continue
		}
		text := c.Note
		if c.Markdown != nil {
			text = *c.Markdown
		}
		if size += len(text); len(messages) > 0 && (size > maxThreadText || len(messages) == MaxThread) {
			d.CommentsTruncated = true
			break
		}
		messages = append(messages, webhook.Message{
			CommentID: c.CommentID, Text: text, Author: c.author(), IsInternal: c.IsInternal,
			IsResolution: c.IsResolution, CreatedAt: c.CreatedAt, UpdatedAt: c.UpdatedAt,
		})
	}
	slices.Reverse(messages)
	d.Comments = &messages
}

// changes lists the tracked fields that differ, in the order of contract section
// 2.5; nil when none does.
func changes(old, next *Ticket) webhook.Changes {
	var list webhook.Changes
	add := func(field string, same bool, previous, current any) {
		if !same {
			list = append(list, webhook.Change{Field: field, Previous: encode(previous), New: encode(current)})
		}
	}
	text := func(field string, previous, current *string) {
		add(field, sameText(previous, current), previous, current)
	}
	text("title", &old.Title, &next.Title)
	text("url", old.URL, next.URL)
	text("status_id", &old.StatusID, &next.StatusID)
	text("priority_id", &old.PriorityID, &next.PriorityID)
	text("assigned_to", old.AssignedTo, next.AssignedTo)
	text("board_id", &old.BoardID, &next.BoardID)
	text("category_id", old.CategoryID, next.CategoryID)
	text("subcategory_id", old.SubcategoryID, next.SubcategoryID)
	add("due_date", sameTime(old.DueDate, next.DueDate), old.DueDate, next.DueDate)
	add("tags", slices.Equal(old.Tags, next.Tags), old.Tags, next.Tags)
	return list
}

// encode writes a text, a time or a list of texts as JSON without escaping HTML.
// Such values always encode; the empty result of an error would be no valid JSON
// and make the encoding of the envelope fail.
func encode(v any) json.RawMessage {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if enc.Encode(v) != nil {
		return nil
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
}
