package ticket

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/webhook"
)

// optional draws a field that is absent about half of the time.
func optional[T any](rt *rapid.T, name string, values ...T) Opt[T] {
	if !rapid.Bool().Draw(rt, name+" set") {
		return Opt[T]{}
	}
	return Some(rapid.SampledFrom(values).Draw(rt, name))
}

func refs(ids ...string) []*string {
	list := []*string{nil}
	for i := range ids {
		list = append(list, &ids[i])
	}
	return list
}

func drawPatch(rt *rapid.T) Patch {
	p := Patch{
		Title:          optional(rt, "title", "a", "b", "<c> & d"),
		URL:            optional(rt, "url", refs("https://a.example", "https://b.example?x&y")...),
		ClientID:       optional(rt, "client", clientID, otherClientID),
		PriorityID:     optional(rt, "priority", highID, urgentID),
		LocationID:     optional(rt, "location", refs(locationID, otherLocationID)...),
		ContactNameID:  optional(rt, "contact", refs(contactID, contactID, contactID, unknownID)...),
		CategoryID:     optional(rt, "category", refs(categoryID, freeID, otherCategoryID)...),
		SubcategoryID:  optional(rt, "subcategory", refs(childID, otherChildID)...),
		AssignedTo:     optional(rt, "assignee", refs(maraID, theoID, goneID)...),
		AssignedTeamID: optional(rt, "team", refs(teamID)...),
		DueDate:        optional(rt, "due", nil, new(start), new(start.Add(time.Microsecond)), new(start.Add(time.Hour))),
		Tags:           optional(rt, "tags", nil, []string{"a"}, []string{"A ", "b"}, []string{"b", "a"}),
		Attributes: optional(rt, "attributes", nil, json.RawMessage(`{}`), json.RawMessage(`{"description":"x"}`),
			json.RawMessage(`{ "description" : "x" }`), json.RawMessage(`{"k":[1]}`)),
		Description: optional(rt, "description", refs("x", "y")...),
		Suppress:    Suppress{ContactNotifications: rapid.Bool().Draw(rt, "suppress")},
	}
	// Board and status go together most of the time, or most patches would fail.
	switch rapid.IntRange(0, 4).Draw(rt, "board") {
	case 0:
		p.BoardID = Some(boardID)
		p.StatusID = optional(rt, "status", openID, closedID)
	case 1:
		p.BoardID = Some(otherBoardID)
		p.StatusID = optional(rt, "status", otherOpenID, otherClosedID)
	default:
		p.StatusID = optional(rt, "status", openID, progressID, closedID, doneID)
	}
	return p
}

// TestAnySequenceOfChanges drives one ticket through random patches and comments
// with a clock that runs, stalls and goes backwards, and checks after each one
// what receivers rely on.
func TestAnySequenceOfChanges(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld()
		d := draft()
		d.AssignedTo = rapid.SampledFrom(refs(maraID, theoID)).Draw(rt, "first assignee")
		now := start
		tk, err := New(d, w.refs(d.Keys()), ticketID, "TKT-1", mara(), now)
		if err != nil {
			rt.Fatal(err)
		}
		newID := counter()
		log := timeline{}
		log.add(rt, Events(nil, &tk, Suppress{}, newID, publicURL)...)
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(-3000, 3000).Draw(rt, "clock in µs")) * time.Microsecond)
			if rapid.IntRange(0, 5).Draw(rt, "kind") == 0 {
				tk = Touch(tk, mara(), now)
				c := Comment{CreatedAt: tk.UpdatedAt, AuthorType: AuthorInternal}
				log.add(rt, CommentAdded(&tk, c, Suppress{}, newID, publicURL))
			} else {
				tk = patchOnce(rt, w, tk, now, newID, &log)
			}
			consistent(rt, w, &tk)
			agrees(rt, &tk)
		}
	})
}

// timeline holds the last event of a ticket.
type timeline struct {
	last time.Time
	ids  map[string]bool
}

func (l *timeline) add(rt *rapid.T, events ...Event) {
	for _, e := range events {
		if !e.OccurredAt.After(l.last) {
			rt.Fatalf("%s occurred at %v, the one before at %v", e.Type, e.OccurredAt, l.last)
		}
		if e.OccurredAt.Before(e.Data.UpdatedAt.Time) {
			rt.Fatalf("%s occurred at %v, before updated_at %v", e.Type, e.OccurredAt, e.Data.UpdatedAt)
		}
		l.last = e.OccurredAt.Time
		if l.ids[e.EventID] {
			rt.Fatalf("event id %s twice", e.EventID)
		}
		if l.ids == nil {
			l.ids = map[string]bool{}
		}
		l.ids[e.EventID] = true
	}
}

// patchOnce applies one random patch and checks that updated_at, changed and the
// events tell the same story.
func patchOnce(rt *rapid.T, w *world, old Ticket, now time.Time, newID func() string, log *timeline) Ticket {
	p := drawPatch(rt)
	next, changed, err := Apply(old, p, w.refs(p.Keys(old)), mara(), now)
	moved := next.UpdatedAt.After(old.UpdatedAt.Time)
	if err != nil && (changed || fault.KindOf(err) != fault.Invalid && fault.KindOf(err) != fault.BadReference) {
		rt.Fatalf("changed %v beside %v", changed, err)
	}
	if !changed {
		if diff := cmp.Diff(old, next); diff != "" {
			rt.Fatalf("nothing changed, but %s", diff)
		}
	}
	events := Events(&old, &next, p.Suppress, newID, publicURL)
	if moved != changed || moved != (len(events) > 0) {
		rt.Fatalf("changed %v, updated_at moved %v, events %v", changed, moved, types(events))
	}
	log.add(rt, events...)
	if !changed {
		return next
	}
	replay(rt, &old, &next, events[0].Data.Changes)
	again, changed, err := Apply(next, p, w.refs(p.Keys(next)), mara(), now.Add(time.Hour))
	if diff := cmp.Diff(next, again); diff != "" || changed || err != nil {
		rt.Fatalf("the same patch again: changed %v, error %v, %s", changed, err, diff)
	}
	return next
}

// consistent checks what holds for every ticket in every state.
func consistent(rt *rapid.T, w *world, tk *Ticket) {
	r := w.refs(Keys{
		BoardID: tk.BoardID, StatusID: tk.StatusID, ClientID: tk.ClientID, PriorityID: tk.PriorityID,
		LocationID: text(tk.LocationID), CategoryID: text(tk.CategoryID), SubcategoryID: text(tk.SubcategoryID),
		AssignedTo: text(tk.AssignedTo), ContactNameID: text(tk.ContactNameID),
	})
	if r.Status.BoardID != tk.BoardID {
		rt.Fatalf("status %s on board %s", tk.StatusName, tk.BoardName)
	}
	if r.Location != nil && r.Location.ClientID != tk.ClientID {
		rt.Fatalf("location %s of client %s", *tk.LocationName, tk.ClientName)
	}
	if r.Subcategory != nil && (tk.CategoryID == nil || *r.Subcategory.ParentCategory != *tk.CategoryID) {
		rt.Fatalf("subcategory %s of category %v", *tk.SubcategoryName, tk.CategoryName)
	}
	closed := r.Status.IsClosed
	if tk.IsClosed != closed || tk.StatusIsClosed != closed || (tk.ClosedAt != nil) != closed || (tk.ClosedBy != nil) != closed {
		rt.Fatalf("status closed %v, but is_closed %v, closed_at %v, closed_by %v", closed, tk.IsClosed, tk.ClosedAt, tk.ClosedBy)
	}
	names := []*string{&tk.BoardName, &tk.StatusName, &tk.ClientName, &tk.PriorityName, tk.LocationName, tk.CategoryName,
		tk.SubcategoryName, tk.AssignedToName, tk.ContactName, tk.ContactEmail, tk.ClientEmail}
	want := []*string{&r.Board.Name, &r.Status.Name, &r.Client.Name, &r.Priority.Name, nil, nil, nil, nil, nil, nil, r.Client.Email}
	if r.Location != nil {
		want[4] = &r.Location.Name
	}
	if r.Category != nil {
		want[5] = &r.Category.Name
	}
	if r.Subcategory != nil {
		want[6] = &r.Subcategory.Name
	}
	if r.Assignee != nil {
		want[7] = r.Assignee.DisplayName()
	}
	if r.Contact != nil {
		want[8], want[9] = &r.Contact.FullName, &r.Contact.Email
	}
	if diff := cmp.Diff(want, names); diff != "" {
		rt.Fatalf("names: %s", diff)
	}
	if tk.Tags == nil || tk.DescriptionHTML != DescriptionHTML(tk.Attributes) {
		rt.Fatalf("tags %v, description %q for %s", tk.Tags, tk.DescriptionHTML, tk.Attributes)
	}
}

// replay checks that the change list, put on top of the old tracked values, gives
// the new ones: nothing is missing and nothing is made up.
func replay(rt *rapid.T, old, next *Ticket, list webhook.Changes) {
	state := tracked(rt, old)
	for _, c := range list {
		if state[c.Field] != string(c.Previous) || string(c.Previous) == string(c.New) {
			rt.Fatalf("%s: previous %s, new %s, was %s", c.Field, c.Previous, c.New, state[c.Field])
		}
		state[c.Field] = string(c.New)
	}
	if diff := cmp.Diff(tracked(rt, next), state); diff != "" {
		rt.Fatalf("changes do not lead to the new state: %s", diff)
	}
}

func tracked(rt *rapid.T, tk *Ticket) map[string]string {
	values := map[string]any{
		"title": tk.Title, "url": tk.URL, "status_id": tk.StatusID, "priority_id": tk.PriorityID,
		"assigned_to": tk.AssignedTo, "board_id": tk.BoardID, "category_id": tk.CategoryID,
		"subcategory_id": tk.SubcategoryID, "due_date": tk.DueDate, "tags": tk.Tags,
	}
	out := map[string]string{}
	for field, v := range values {
		b := encode(v)
		if !json.Valid(b) {
			rt.Fatalf("%s: %s", field, b)
		}
		out[field] = string(b)
	}
	return out
}

func text(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

func BenchmarkApplyEvents(b *testing.B) {
	w := newWorld()
	d := draft()
	old := create(b, w, d)
	patches := map[string]Patch{
		"title":  {Title: Some("another title")},
		"status": {StatusID: Some(progressID)},
		"close":  {StatusID: Some(closedID), AssignedTo: Some(new(theoID)), Tags: Some([]string{"a", "b"})},
		"same":   {Title: Some(old.Title), StatusID: Some(openID)},
	}
	for _, name := range []string{"title", "status", "close", "same"} {
		p := patches[name]
		r := w.refs(p.Keys(old))
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			newID := func() string { return unknownID }
			for b.Loop() {
				next, changed, err := Apply(old, p, r, mara(), start)
				if err != nil {
					b.Fatal(err)
				}
				if changed {
					Events(&old, &next, p.Suppress, newID, publicURL)
				}
			}
		})
	}
}

func ExampleEvents() {
	board := Board{BoardID: "b", Name: "Service Desk"}
	open := Status{StatusID: "s1", BoardID: "b", Name: "Open"}
	done := Status{StatusID: "s2", BoardID: "b", Name: "Closed", IsClosed: true}
	actor := Actor{TenantID: "t", UserID: "u"}
	now := time.Date(2026, 3, 9, 8, 0, 0, 0, time.UTC)

	old, err := New(Draft{Title: "Printer", BoardID: "b", StatusID: "s1", ClientID: "c", PriorityID: "p"},
		Refs{Board: &board, Status: &open, Client: &Client{ClientID: "c"}, Priority: &Priority{PriorityID: "p"}},
		"1", "TKT-1000", actor, now)
	if err != nil {
		fmt.Println(err)
		return
	}
	patch := Patch{StatusID: Some("s2")}
	next, _, err := Apply(old, patch, Refs{Board: &board, Status: &done}, actor, now)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, e := range Events(&old, &next, patch.Suppress, func() string { return "e" }, "https://desk.example") {
		fmt.Println(e.Type, e.OccurredAt)
	}
	// Output:
	// ticket.updated 2026-03-09T08:00:00.001Z
	// ticket.status_changed 2026-03-09T08:00:00.002Z
	// ticket.closed 2026-03-09T08:00:00.003Z
}
