package alga

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// What the desk has besides tickets. The tenant has one board, one client and two
// users.
const (
	BoardID   = "19e8d7c6-b5a4-4392-8170-6f5e4d3c2b10"
	ClientID  = "8f21d0b4-59aa-4c3d-9e76-0a1b2c3d4e5f"
	ContactID = "c64e1a09-2d3f-4b5c-8a7e-6f5e4d3c2b1a"
	High      = "3b9c1f50-7e24-4d88-a0f1-2c4d6e8f0a13" // a priority
	Mara      = "51f4c7de-08b2-4a35-b6c9-1e2f3a4b5c61" // a user, the owner of the key
	Jonas     = "51f4c7de-08b2-4a35-b6c9-1e2f3a4b5c62" // a user

	// Statuses: two open ones and two closed ones.
	Open       = "0d5f6a11-3c1e-4b7a-9d02-6a1b7c8d9e01"
	InProgress = "0d5f6a11-3c1e-4b7a-9d02-6a1b7c8d9e02"
	Resolved   = "0d5f6a11-3c1e-4b7a-9d02-6a1b7c8d9e08"
	Closed     = "0d5f6a11-3c1e-4b7a-9d02-6a1b7c8d9e09"
)

// name returns what an id of the desk is called.
func name(id string) string {
	return map[string]string{
		BoardID: "Service Desk", ClientID: "Harbour & Pine Logistics", ContactID: "Inês Duarte", High: "High",
		Mara: "Mara Lindqvist", Jonas: "Jonas Weber",
		Open: "Open", InProgress: "In Progress", Resolved: "Resolved", Closed: "Closed",
	}[id]
}

func closes(status string) bool { return status == Resolved || status == Closed }

// ticket is a row of the desk, with its comments and tags.
type ticket struct {
	id, number, title, status string
	assigned                  string // "" for nobody
	description               json.RawMessage
	tags                      []string
	isClosed                  *bool // nil until the first change of status (2.1)
	entered, updated          time.Time
	closed                    time.Time // zero while it is open
	closedBy                  string
	comments                  []comment
}

type comment struct {
	id, text           string
	internal, resolves bool
	created            time.Time
}

// Via is the way in which a change comes in: they fire other events (4.4).
type Via int

// The ways.
const (
	REST  Via = iota // the API
	WebUI            // the pages for people
)

// Change is what changes of a ticket. Fields that are nil stay.
type Change struct {
	Title, Status, Assign *string  // Assign "" is nobody
	Tags                  []string // replace all; by themselves
}

// Create opens a ticket and returns its id.
func (s *Server) Create(title string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.create(title, Open, "", nil)
}

// create opens a ticket. The API fires ticket.created only, even when it is
// assigned, and a closed status does nothing special (2.2, 2.4).
func (s *Server) create(title, status, assigned string, attributes json.RawMessage) string {
	s.numbers++
	now := s.cfg.Now().UTC().Truncate(time.Microsecond)
	t := &ticket{
		id: uuid.NewString(), number: "TIC" + strconv.Itoa(s.numbers), title: title, status: status, assigned: assigned,
		description: attributes, entered: now, updated: now,
	}
	s.tickets[t.id] = t
	s.publish(t, happened{kind: "ticket.created"})
	return t.id
}

// Update changes tickets in one transaction, so with one updated_at, the time at
// which it began.
func (s *Server) Update(via Via, c Change, ids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now().UTC().Truncate(time.Microsecond)
	for _, id := range ids {
		if t := s.tickets[id]; t != nil {
			s.update(via, t, now, c)
		}
	}
}

// happened is an event before it has an id.
type happened struct {
	kind  string
	extra object // keys of its own (4.4)
}

// update changes a ticket and publishes what that fires. Even an empty update
// moves updated_at and fires ticket.updated (2.1, 2.2).
func (s *Server) update(via Via, t *ticket, now time.Time, c Change) {
	before := *t
	t.updated = now
	var changes object
	if c.Title != nil && *c.Title != t.title {
		changes = append(changes, pair{"title", object{{"previous", t.title}, {"new", *c.Title}}})
		t.title = *c.Title
	}
	if c.Status != nil && *c.Status != t.status {
		changes = append(changes, pair{"status_id", object{{"previous", t.status}, {"new", *c.Status}}})
		t.setStatus(*c.Status, now)
	}
	if c.Assign != nil && *c.Assign != t.assigned {
		changes = append(changes, pair{"assigned_to", object{{"previous", null(t.assigned)}, {"new", null(*c.Assign)}}})
		t.assigned = *c.Assign
	}
	if c.Tags != nil {
		tags := slices.Sorted(slices.Values(c.Tags)) // ascending by text (2.8)
		changes = append(changes, pair{"tags", object{{"previous", append([]string{}, t.tags...)}, {"new", tags}}})
		t.tags, t.updated = tags, before.updated // tags do not move it (2.1)
	}
	updated := happened{kind: "ticket.updated"}
	if changes != nil {
		updated.extra = object{{"changes", changes}}
	}
	moved := before.status != t.status
	status := happened{"ticket.status_changed", object{{"previous_status_id", before.status}, {"previous_status_name", name(before.status)}}}
	closing := happened{kind: "ticket.closed"}
	var all []happened
	switch {
	case via == REST && moved && closes(t.status):
		all = []happened{updated, closing} // from one closed status to another too
	case via == REST:
		all = []happened{updated}
	case moved && closes(t.status) && !closes(before.status):
		all = []happened{status, closing}
	case moved:
		all = []happened{status, updated}
	case before.assigned != t.assigned && t.assigned != "":
		all = []happened{{kind: "ticket.assigned"}}
	default:
		all = []happened{updated}
	}
	s.publish(t, all...)
}

// setStatus is what a change of status does to the row (2.5).
func (t *ticket) setStatus(status string, now time.Time) {
	was, is := closes(t.status), closes(status)
	t.status, t.isClosed = status, &is
	switch {
	case is && !was:
		t.closed, t.closedBy = now, Mara
	case was && !is:
		t.closed, t.closedBy = time.Time{}, ""
	}
}

// Comment adds a comment, which moves updated_at (2.1).
func (s *Server) Comment(id, text string, internal bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tickets[id]; t != nil {
		s.comment(t, text, internal, false)
	}
}

func (s *Server) comment(t *ticket, text string, internal, resolves bool) comment {
	now := s.cfg.Now().UTC().Truncate(time.Microsecond)
	c := comment{uuid.NewString(), text, internal, resolves, now}
	t.comments, t.updated = append(t.comments, c), now
	// Without author_type, which the documentation has (D8).
	s.publish(t, happened{"ticket.comment.added", object{{"comment", object{
		{"text", text}, {"author", name(Mara)}, {"timestamp", wire(now)}, {"is_internal", internal},
	}}}})
	return c
}

// Delete removes tickets. There is no event for that (2.2).
func (s *Server) Delete(ids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		delete(s.tickets, id)
	}
}

// row returns the columns of a ticket as JSON has them (2.1).
func (t *ticket) row() map[string]any {
	return map[string]any{
		"tenant": TenantID, "ticket_id": t.id, "ticket_number": t.number, "title": t.title, "url": nil,
		"client_id": ClientID, "contact_name_id": ContactID, "location_id": nil, "billing_profile_id": nil,
		"status_id": t.status, "board_id": BoardID, "category_id": nil, "subcategory_id": nil, "priority_id": High,
		"entered_by": Mara, "updated_by": nil, "assigned_to": null(t.assigned), "assigned_team_id": nil, "closed_by": null(t.closedBy),
		"entered_at": wire(t.entered), "updated_at": wire(t.updated), "closed_at": wire(t.closed), "due_date": nil,
		"is_closed": t.isClosed, "attributes": t.description, "source": "api", "ticket_origin": "api",
		"master_ticket_id": nil, "response_state": nil, "email_metadata": nil, "escalated": nil,
		"sla_policy_id": nil, "sla_total_pause_minutes": 0,
	}
}

// payload returns what the cache keeps of a ticket: data without what belongs to
// one event (4.4).
func (t *ticket) payload(base string) object {
	return object{
		{"ticket_id", t.id}, {"ticket_number", t.number}, {"title", t.title},
		{"status_id", t.status}, {"status_name", name(t.status)}, {"priority_id", High}, {"priority_name", name(High)},
		{"client_id", ClientID}, {"client_name", name(ClientID)},
		{"contact_name_id", ContactID}, {"contact_name", name(ContactID)}, {"contact_email", "ines.duarte@harbourpine.example"},
		{"assigned_to", null(t.assigned)}, {"assigned_to_name", null(name(t.assigned))}, {"assigned_team_id", nil},
		{"board_id", BoardID}, {"board_name", name(BoardID)}, {"category_id", nil}, {"subcategory_id", nil},
		{"is_closed", closes(t.status)}, {"entered_at", wire(t.entered)}, {"updated_at", wire(t.updated)},
		{"closed_at", wire(t.closed)}, {"due_date", nil}, {"tags", append([]string{}, t.tags...)},
		{"url", base + "/msp/tickets/" + t.id},
	}
}

// thread returns the comments of a ticket, oldest first, internal ones included.
// They are never cached.
func (t *ticket) thread() []object {
	out := []object{}
	for _, c := range t.comments {
		out = append(out, object{
			{"comment_id", c.id}, {"text", c.text}, {"author", name(Mara)}, {"is_internal", c.internal}, {"is_resolution", c.resolves},
			{"created_at", wire(c.created)}, {"updated_at", nil},
		})
	}
	return out
}

// object is a JSON object whose keys keep their order.
type object []pair

type pair struct {
	key   string
	value any
}

// MarshalJSON writes the object as JSON.stringify does: & < > stay.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, p := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		value, err := compact(p.value)
		if err != nil {
			return nil, err
		}
		b.WriteString(strconv.Quote(p.key) + ":" + string(value))
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func compact(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// null is nil for the empty text.
func null(text string) any {
	if text == "" {
		return nil
	}
	return text
}

// wire is an instant as the API shows it, null for none: the database keeps more
// than the milliseconds.
func wire(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

func contains(text, part string) bool {
	return strings.Contains(strings.ToLower(text), strings.ToLower(part))
}
