package ticket

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/webhook"
)

func TestNew(t *testing.T) {
	t.Parallel()
	d := draft()
	d.LocationID, d.SubcategoryID, d.AssignedTo = new(locationID), new(strings.ToUpper(childID)), new(theoID)
	d.BoardID = strings.ToUpper(boardID)
	d.Attributes = json.RawMessage(`{ "description": "a < b\n\nsecond" }`)
	d.Tags = []string{" Printer ", "onsite", "PRINTER"}
	d.URL = new("https://x.example/1")
	got := create(t, newWorld(), d)
	want := Ticket{
		TenantID: tenantID, TicketID: ticketID, Number: "TKT-1042", Title: d.Title, URL: d.URL,
		ClientID: clientID, ClientName: "Harbour & Pine Logistics",
		ClientEmail: new("hello@harbourpine.example"), ClientPhone: new("+351 1"),
		ContactNameID: new(contactID), ContactName: new("Inês Duarte"),
		ContactEmail: new("ines.duarte@harbourpine.example"), ContactPhone: new("+351 2"),
		LocationID: new(locationID), LocationName: new("Warehouse 3"),
		StatusID: openID, StatusName: "Open", BoardID: boardID, BoardName: "Service Desk",
		CategoryID: new(categoryID), CategoryName: new("Hardware"),
		SubcategoryID: new(childID), SubcategoryName: new("Printers"),
		PriorityID: highID, PriorityName: "High",
		EnteredBy: maraID, EnteredByName: new("Mara Lindqvist"),
		AssignedTo: new(theoID), AssignedToName: new("Theo Okafor"),
		EnteredAt: webhook.At(start), UpdatedAt: webhook.At(start), LastOccurredAt: start,
		Attributes: json.RawMessage(`{"description":"a < b\n\nsecond"}`), DescriptionHTML: "<p>a &lt; b</p><p>second</p>",
		Source: "api", Origin: "api", Tags: []string{"onsite", "printer"}, Unused: Unused{Documents: []string{}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestNewWithoutTheOptionalFields(t *testing.T) {
	t.Parallel()
	d := draft()
	d.ContactNameID, d.CategoryID, d.Tags = nil, nil, nil
	b, err := json.Marshal(create(t, newWorld(), d))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"attributes":null`, `"tags":[]`, `"documents":[]`, `"contact_name":null`, `"description_html":""`,
		`"is_closed":false`, `"closed_at":null`, `"updated_at":"2026-03-09T08:14:02.117Z"`, `"ticket_origin":"api"`,
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%s is not in %s", want, b)
		}
	}
	if strings.Contains(string(b), "LastOccurredAt") {
		t.Error("LastOccurredAt is on the wire")
	}
}

func TestNewInAClosedStatusIsConsistent(t *testing.T) {
	t.Parallel()
	d := draft()
	d.StatusID = closedID
	got := create(t, newWorld(CloseResolutionComment), d)
	if !got.IsClosed || !got.StatusIsClosed || got.ClosedAt == nil || got.ClosedBy == nil {
		t.Fatalf("is_closed %v, closed_at %v, closed_by %v", got.IsClosed, got.ClosedAt, got.ClosedBy)
	}
	if !got.ClosedAt.Equal(got.UpdatedAt.Time) || *got.ClosedBy != maraID {
		t.Errorf("closed_at %v by %s, want %v by %s", got.ClosedAt, *got.ClosedBy, got.UpdatedAt, maraID)
	}
	if diff := cmp.Diff([]string{webhook.TicketCreated}, types(Events(nil, &got, Suppress{}, counter(), publicURL))); diff != "" {
		t.Error(diff)
	}
}

// A draft that breaks a rule names the field and says what is wrong.
func TestNewRules(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		edit    func(*Draft)
		kind    fault.Kind
		path    []any
		message string
	}{
		{"no title", func(d *Draft) { d.Title = "" }, fault.Invalid, []any{"title"}, "String must contain at least 1 character(s)"},
		{"title of 256", func(d *Draft) { d.Title = strings.Repeat("é", 256) }, fault.Invalid, []any{"title"}, "String must contain at most 255 character(s)"},
		{"title with U+0000", func(d *Draft) { d.Title = "a\x00" }, fault.Invalid, []any{"title"}, "String must not contain the character U+0000"},
		{"status of another board", func(d *Draft) { d.StatusID = otherOpenID }, fault.Invalid, []any{"status_id"},
			"status_id " + otherOpenID + " does not belong to board_id " + boardID},
		{"location of another client", func(d *Draft) { d.LocationID = new(otherLocationID) }, fault.Invalid, []any{"location_id"},
			"location_id " + otherLocationID + " does not belong to client_id " + clientID},
		{"category of another board", func(d *Draft) { d.CategoryID = new(otherCategoryID) }, fault.Invalid, []any{"category_id"},
			"category_id " + otherCategoryID + " does not belong to board_id " + boardID},
		{"subcategory of another category", func(d *Draft) { d.SubcategoryID = new(otherChildID) }, fault.Invalid, []any{"subcategory_id"},
			"subcategory_id " + otherChildID + " is not a child of the ticket's category_id"},
		{"subcategory that has no parent", func(d *Draft) { d.SubcategoryID = new(freeID) }, fault.Invalid, []any{"subcategory_id"},
			"subcategory_id " + freeID + " is not a child of the ticket's category_id"},
		{"subcategory without category", func(d *Draft) { d.CategoryID, d.SubcategoryID = nil, new(childID) }, fault.Invalid, []any{"subcategory_id"},
			"subcategory_id " + childID + " is not a child of the ticket's category_id"},
		{"inactive assignee", func(d *Draft) { d.AssignedTo = new(goneID) }, fault.Invalid, []any{"assigned_to"}, "assigned_to " + goneID + " is inactive"},
		{"attributes is a list", func(d *Draft) { d.Attributes = json.RawMessage(`[1]`) }, fault.Invalid, []any{"attributes"}, "Expected object, received array"},
		{"empty tag", func(d *Draft) { d.Tags = []string{"ok", " "} }, fault.Invalid, []any{"tags", 1}, "String must contain at least 1 character(s)"},
		{"one flag without the other", func(d *Draft) { d.InternalNotifications = true }, fault.Invalid, []any{"suppressInternalNotifications"},
			"suppressInternalNotifications requires suppressContactNotifications"},
		{"unknown board", func(d *Draft) { d.BoardID = unknownID }, fault.BadReference, nil, "Invalid reference"},
		{"no board", func(d *Draft) { d.BoardID = "" }, fault.BadReference, nil, "Invalid reference"},
		{"unknown status", func(d *Draft) { d.StatusID = unknownID }, fault.BadReference, nil, "Invalid reference"},
		{"unknown client", func(d *Draft) { d.ClientID = unknownID }, fault.BadReference, nil, "Invalid reference"},
		{"unknown priority", func(d *Draft) { d.PriorityID = unknownID }, fault.BadReference, nil, "Invalid reference"},
		{"unknown contact", func(d *Draft) { d.ContactNameID = new(unknownID) }, fault.BadReference, nil, "Invalid reference"},
		{"unknown location", func(d *Draft) { d.LocationID = new(unknownID) }, fault.BadReference, nil, "Invalid reference"},
		{"unknown category", func(d *Draft) { d.CategoryID = new(unknownID) }, fault.BadReference, nil, "Invalid reference"},
		{"unknown subcategory", func(d *Draft) { d.SubcategoryID = new(unknownID) }, fault.BadReference, nil, "Invalid reference"},
		{"unknown assignee", func(d *Draft) { d.AssignedTo = new(unknownID) }, fault.BadReference, nil, "Invalid reference"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := draft()
			tt.edit(&d)
			got, err := New(d, newWorld().refs(d.Keys()), ticketID, "TKT-1", mara(), start)
			wantFault(t, err, tt.kind, tt.path, tt.message)
			if diff := cmp.Diff(Ticket{}, got); diff != "" {
				t.Errorf("a ticket beside the error: %s", diff)
			}
		})
	}
}

// wantFault checks kind, path and message; without a path the message is the
// error's own.
func wantFault(t *testing.T, err error, kind fault.Kind, path []any, message string) {
	t.Helper()
	f, ok := err.(*fault.Error)
	if !ok {
		t.Fatalf("error is %T (%v), want *fault.Error", err, err)
	}
	if f.Kind != kind {
		t.Errorf("kind %d, want %d (%v)", f.Kind, kind, err)
	}
	if path == nil {
		if f.Message != message {
			t.Errorf("message %q, want %q", f.Message, message)
		}
		return
	}
	if len(f.Issues) != 1 {
		t.Fatalf("issues %+v, want one", f.Issues)
	}
	if diff := cmp.Diff(path, f.Issues[0].Path); diff != "" {
		t.Error(diff)
	}
	if f.Issues[0].Message != message {
		t.Errorf("message %q, want %q", f.Issues[0].Message, message)
	}
}

func TestNewReportsEveryBrokenRule(t *testing.T) {
	t.Parallel()
	d := draft()
	d.Title, d.StatusID, d.PriorityID = "", otherOpenID, unknownID
	_, err := New(d, newWorld().refs(d.Keys()), ticketID, "TKT-1", mara(), start)
	f, ok := err.(*fault.Error)
	if !ok || f.Kind != fault.Invalid || len(f.Issues) != 2 {
		t.Fatalf("got %+v, want the issues of title and status_id", err)
	}
}

// The issues have the codes and keys of Zod, because clients parse them (contract
// section 1.2).
func TestIssueShapes(t *testing.T) {
	t.Parallel()
	d := draft()
	d.Title, d.Attributes, d.Tags = "", json.RawMessage(`[]`), []string{strings.Repeat("x", MaxTag+1)}
	for i := range MaxTags + 1 {
		d.Tags = append(d.Tags, fmt.Sprint("t", i))
	}
	_, err := New(d, newWorld().refs(d.Keys()), ticketID, "TKT-1", mara(), start)
	want := &fault.Error{Kind: fault.Invalid, Message: "Validation failed", Issues: []fault.Issue{
		{
			Code: "too_small", Path: []any{"title"}, Message: "String must contain at least 1 character(s)",
			Extra: map[string]any{"minimum": 1, "type": "string", "inclusive": true, "exact": false},
		},
		{
			Code: "invalid_type", Path: []any{"attributes"}, Message: "Expected object, received array",
			Extra: map[string]any{"expected": "object", "received": "array"},
		},
		{
			Code: "too_big", Path: []any{"tags", 0}, Message: "String must contain at most 50 character(s)",
			Extra: map[string]any{"maximum": 50, "type": "string", "inclusive": true, "exact": false},
		},
		{
			Code: "too_big", Path: []any{"tags"}, Message: "Array must contain at most 50 element(s)",
			Extra: map[string]any{"maximum": 50, "type": "array", "inclusive": true, "exact": false},
		},
	}}
	if diff := cmp.Diff(error(want), err, cmpopts.IgnoreUnexported(fault.Error{})); diff != "" {
		t.Error(diff)
	}
}

func TestTitleIsCountedInCharacters(t *testing.T) {
	t.Parallel()
	d := draft()
	d.Title = strings.Repeat("é", MaxTitle)
	if got := create(t, newWorld(), d).Title; got != d.Title {
		t.Errorf("title %q", got)
	}
}

func TestApplyRules(t *testing.T) {
	t.Parallel()
	full := draft()
	full.LocationID, full.SubcategoryID = new(locationID), new(childID)
	tests := []struct {
		name    string
		patch   Patch
		kind    fault.Kind
		path    []any
		message string
	}{
		{"board without status", Patch{BoardID: Some(otherBoardID)}, fault.Invalid, []any{"status_id"}, "status_id is required when board_id changes"},
		{"board with the old status", Patch{BoardID: Some(otherBoardID), StatusID: Some(openID)}, fault.Invalid, []any{"status_id"},
			"status_id " + openID + " does not belong to board_id " + otherBoardID},
		{"board with a status of the old board", Patch{BoardID: Some(otherBoardID), StatusID: Some(closedID)}, fault.Invalid, []any{"status_id"},
			"status_id " + closedID + " does not belong to board_id " + otherBoardID},
		{"status of another board", Patch{StatusID: Some(otherClosedID)}, fault.Invalid, []any{"status_id"},
			"status_id " + otherClosedID + " does not belong to board_id " + boardID},
		{"client leaves its location", Patch{ClientID: Some(otherClientID)}, fault.Invalid, []any{"location_id"},
			"location_id " + locationID + " does not belong to client_id " + otherClientID},
		{"category leaves its subcategory", Patch{CategoryID: Some(new(freeID))}, fault.Invalid, []any{"subcategory_id"},
			"subcategory_id " + childID + " is not a child of the ticket's category_id"},
		{"category cleared alone", Patch{CategoryID: Some[*string](nil)}, fault.Invalid, []any{"subcategory_id"},
			"subcategory_id " + childID + " is not a child of the ticket's category_id"},
		{"empty title", Patch{Title: Some("")}, fault.Invalid, []any{"title"}, "String must contain at least 1 character(s)"},
		{"unknown team", Patch{AssignedTeamID: Some(new(unknownID))}, fault.BadReference, nil, "Invalid reference"},
		{"unknown board", Patch{BoardID: Some(unknownID), StatusID: Some(otherOpenID)}, fault.BadReference, nil, "Invalid reference"},
		{"flags", Patch{Suppress: Suppress{InternalNotifications: true}}, fault.Invalid, []any{"suppressInternalNotifications"},
			"suppressInternalNotifications requires suppressContactNotifications"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld()
			old := create(t, w, full)
			got, changed, err := Apply(old, tt.patch, w.refs(tt.patch.Keys(old)), mara(), start.Add(time.Hour))
			wantFault(t, err, tt.kind, tt.path, tt.message)
			if diff := cmp.Diff(old, got); diff != "" || changed {
				t.Errorf("changed %v beside the error: %s", changed, diff)
			}
		})
	}
}

func TestApplyAllows(t *testing.T) {
	t.Parallel()
	full := draft()
	full.LocationID, full.SubcategoryID = new(locationID), new(childID)
	tests := []struct {
		name  string
		patch Patch
		check func(Ticket) bool
	}{
		{"a board with one of its statuses, category kept", Patch{BoardID: Some(otherBoardID), StatusID: Some(otherOpenID)},
			func(t Ticket) bool {
				return t.BoardName == "Projects" && t.StatusName == "New" && *t.CategoryID == categoryID
			}},
		{"a client with one of its locations", Patch{ClientID: Some(otherClientID), LocationID: Some(new(otherLocationID))},
			func(t Ticket) bool { return *t.LocationName == "Kitchen" && t.ClientEmail == nil }},
		{"a client without location", Patch{ClientID: Some(otherClientID), LocationID: Some[*string](nil)},
			func(t Ticket) bool { return t.LocationID == nil && t.LocationName == nil }},
		{"a category of no board", Patch{CategoryID: Some(new(freeID)), SubcategoryID: Some[*string](nil)},
			func(t Ticket) bool { return *t.CategoryName == "Anything" && t.SubcategoryName == nil }},
		{"no contact", Patch{ContactNameID: Some[*string](nil)},
			func(t Ticket) bool {
				return t.ContactNameID == nil && t.ContactName == nil && t.ContactEmail == nil && t.ContactPhone == nil
			}},
		{"no attributes", Patch{Attributes: Some(json.RawMessage(`{"a":1}`))},
			func(t Ticket) bool { return string(t.Attributes) == `{"a":1}` && t.DescriptionHTML == "" }},
		{"a url", Patch{URL: Some(new("https://x.example/1"))}, func(t Ticket) bool { return *t.URL == "https://x.example/1" }},
		{"a due date", Patch{DueDate: Some(new(at("2026-04-01T10:00:00.123456+02:00")))},
			func(t Ticket) bool { return t.DueDate.String() == "2026-04-01T08:00:00.123Z" }},
		{"no tags", Patch{Tags: Some[[]string](nil)}, func(t Ticket) bool { return t.Tags != nil && len(t.Tags) == 0 }},
		{"a team", Patch{AssignedTeamID: Some(new(teamID))}, func(t Ticket) bool { return *t.AssignedTeamID == teamID }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld()
			next := apply(t, w, create(t, w, full), tt.patch, start.Add(time.Hour))
			if !tt.check(next) {
				t.Errorf("got %+v", next)
			}
			if next.UpdatedBy == nil || *next.UpdatedBy != maraID || !next.UpdatedAt.Equal(start.Add(time.Hour)) {
				t.Errorf("updated_at %v by %v", next.UpdatedAt, next.UpdatedBy)
			}
		})
	}
}

// A client may send a whole ticket back: nothing has changed, even where the rows
// would not pass as new values any more.
func TestApplyOfTheSameValuesChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld()
	d := draft()
	d.AssignedTo, d.Attributes = new(theoID), json.RawMessage(`{"a":1,"b":[{"c":10}]}`)
	d.DueDate = new(at("2026-04-01T08:00:00.123Z"))
	old := create(t, w, d)
	old.URL = new("as it was kept before links were checked")
	w.users[1].IsInactive = true
	for name, p := range map[string]Patch{
		"empty": {},
		"same": {
			Title: Some(old.Title), BoardID: Some(strings.ToUpper(boardID)), ClientID: Some(clientID), StatusID: Some(openID),
			PriorityID: Some(highID), AssignedTo: Some(new(strings.ToUpper(theoID))), LocationID: Some[*string](nil),
			URL: Some(new(*old.URL)), DueDate: Some(new(at("2026-04-01T08:00:00.123456Z"))),
			Attributes: Some(json.RawMessage(`{ "b": [{"c": 1e1}], "a": 1.0 }`)), Tags: Some([]string{"PRINTER", "printer"}),
			Suppress: Suppress{ContactNotifications: true},
		},
	} {
		if k := p.Keys(old); k != (Keys{}) {
			t.Errorf("%s: needs the rows %+v", name, k)
		}
		got, changed, err := Apply(old, p, w.refs(p.Keys(old)), mara(), start.Add(time.Hour))
		if err != nil || changed {
			t.Errorf("%s: changed %v, error %v", name, changed, err)
		}
		if diff := cmp.Diff(old, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if events := Events(&old, &got, p.Suppress, counter(), publicURL); events != nil {
			t.Errorf("%s: events %v", name, types(events))
		}
	}
}

func TestClosingAndReopening(t *testing.T) {
	t.Parallel()
	w := newWorld()
	first := apply(t, w, create(t, w, draft()), Patch{StatusID: Some(closedID)}, start.Add(time.Minute))
	if !first.IsClosed || !first.ClosedAt.Equal(start.Add(time.Minute)) || *first.ClosedBy != maraID {
		t.Fatalf("closed: %v %v %v", first.IsClosed, first.ClosedAt, first.ClosedBy)
	}
	second := apply(t, w, first, Patch{StatusID: Some(doneID)}, start.Add(time.Hour))
	if !second.IsClosed || !second.ClosedAt.Equal(first.ClosedAt.Time) {
		t.Errorf("closed to closed moved closed_at to %v", second.ClosedAt)
	}
	third := apply(t, w, second, Patch{StatusID: Some(openID)}, start.Add(2*time.Hour))
	if third.IsClosed || third.StatusIsClosed || third.ClosedAt != nil || third.ClosedBy != nil {
		t.Errorf("reopened: %v %v %v", third.IsClosed, third.ClosedAt, third.ClosedBy)
	}
}

func TestCloseRules(t *testing.T) {
	t.Parallel()
	w := newWorld(CloseResolutionComment)
	open := create(t, w, draft())
	done := open
	done.IsClosed, done.StatusIsClosed, done.StatusID = true, true, doneID
	tests := []struct {
		name          string
		old           Ticket
		patch         Patch
		hasResolution bool
		needs, refuse bool
	}{
		{"no resolution", open, Patch{StatusID: Some(closedID)}, false, true, true},
		{"resolution", open, Patch{StatusID: Some(closedID)}, true, true, false},
		{"override", open, Patch{StatusID: Some(closedID), OverrideCloseRules: true}, false, false, false},
		{"open to open", open, Patch{StatusID: Some(progressID)}, false, false, false},
		{"closed to closed", done, Patch{StatusID: Some(closedID)}, false, false, false},
		{"to a board without the rule", open, Patch{BoardID: Some(otherBoardID), StatusID: Some(otherClosedID)}, false, false, false},
		{"another field", open, Patch{Title: Some("x")}, false, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := w.refs(tt.patch.Keys(tt.old))
			if got := NeedsResolution(tt.old, tt.patch, r); got != tt.needs {
				t.Errorf("NeedsResolution = %v", got)
			}
			r.HasResolution = tt.hasResolution
			_, changed, err := Apply(tt.old, tt.patch, r, mara(), start.Add(time.Hour))
			if !tt.refuse {
				if err != nil || !changed {
					t.Fatalf("changed %v, error %v", changed, err)
				}
				return
			}
			wantFault(t, err, fault.Invalid, nil, "Ticket close rules not satisfied")
			issues := err.(*fault.Error).Issues
			want := []fault.Issue{{
				Code: "custom", Path: []any{"status_id"}, Message: "A resolution comment is required to close this ticket",
				Extra: map[string]any{"rule": "resolution_comment"},
			}}
			if diff := cmp.Diff(want, issues); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Without the board's row the rules cannot be known, so closing must not pass.
func TestStatusChangeNeedsTheBoard(t *testing.T) {
	t.Parallel()
	w := newWorld(CloseResolutionComment)
	old := create(t, w, draft())
	p := Patch{StatusID: Some(closedID)}
	r := w.refs(p.Keys(old))
	r.Board = nil
	if _, _, err := Apply(old, p, r, mara(), start); err == nil || fault.KindOf(err) != fault.Internal {
		t.Errorf("error %v, want an internal one", err)
	}
}

func TestInstant(t *testing.T) {
	t.Parallel()
	last := at("2026-03-09T08:00:00.500Z")
	tests := []struct{ now, want string }{
		{"2026-03-09T08:00:01Z", "2026-03-09T08:00:01Z"},
		{"2026-03-09T08:00:00.501999Z", "2026-03-09T08:00:00.501Z"},
		{"2026-03-09T08:00:00.500999Z", "2026-03-09T08:00:00.501Z"},
		{"2026-03-09T08:00:00.5Z", "2026-03-09T08:00:00.501Z"},
		{"1999-01-01T00:00:00Z", "2026-03-09T08:00:00.501Z"},
		{"2026-03-09T10:00:00.7+01:00", "2026-03-09T09:00:00.7Z"},
	}
	for _, tt := range tests {
		got := Instant(last, at(tt.now))
		if !got.Equal(at(tt.want)) || got.Location() != time.UTC {
			t.Errorf("Instant(last, %s) = %v, want %s", tt.now, got, tt.want)
		}
	}
}

// A row without LastOccurredAt, as an import leaves it, still moves forward.
func TestStampWithoutLastOccurredAt(t *testing.T) {
	t.Parallel()
	w := newWorld()
	old := create(t, w, draft())
	old.LastOccurredAt = time.Time{}
	if next := Touch(old, mara(), start.Add(-time.Hour)); !next.UpdatedAt.Equal(start.Add(time.Millisecond)) {
		t.Errorf("updated_at %v", next.UpdatedAt)
	}
}

func TestDisplayName(t *testing.T) {
	t.Parallel()
	tests := []struct {
		first, last string
		want        *string
	}{
		{"Mara", "Lindqvist", new("Mara Lindqvist")},
		{" Mara ", "", new("Mara")},
		{"Mara ", " Lindqvist", new("Mara Lindqvist")},
		{"", "Lindqvist", new("Lindqvist")},
		{" ", "", nil},
	}
	for _, tt := range tests {
		u := User{FirstName: tt.first, LastName: tt.last}
		if diff := cmp.Diff(tt.want, u.DisplayName()); diff != "" {
			t.Errorf("%q %q: %s", tt.first, tt.last, diff)
		}
	}
}

// description is a short form for attributes.description (contract D26). It is
// merged before anything is compared, so the pair of them can be sent twice.
func TestDescription(t *testing.T) {
	t.Parallel()
	w := newWorld()
	d := draft()
	d.Attributes, d.Description = json.RawMessage(`{"k":1,"description":"<old>"}`), new("new & <b>")
	created := create(t, w, d)
	if got, want := string(created.Attributes), `{"description":"new & <b>","k":1}`; got != want {
		t.Errorf("attributes %s, want %s", got, want)
	}
	tests := []struct {
		name       string
		patch      Patch
		want, html string
	}{
		{"replaced, the rest kept", Patch{Description: Some(new("x"))}, `{"description":"x","k":1}`, "<p>x</p>"},
		{"removed", Patch{Description: Some[*string](nil)}, `{"k":1}`, ""},
		{"wins over attributes", Patch{Description: Some(new("x")), Attributes: Some(json.RawMessage(`{"description":"y"}`))},
			`{"description":"x"}`, "<p>x</p>"},
		{"onto cleared attributes", Patch{Description: Some(new("x")), Attributes: Some(json.RawMessage(`null`))},
			`{"description":"x"}`, "<p>x</p>"},
		{"removed from cleared attributes", Patch{Description: Some[*string](nil), Attributes: Some(json.RawMessage(`null`))}, "", ""},
	}
	for _, tt := range tests {
		next := apply(t, w, created, tt.patch, start.Add(time.Minute))
		if string(next.Attributes) != tt.want || next.DescriptionHTML != tt.html {
			t.Errorf("%s: %s %q, want %s %q", tt.name, next.Attributes, next.DescriptionHTML, tt.want, tt.html)
		}
		if _, changed, err := Apply(next, tt.patch, Refs{}, mara(), start); changed || err != nil {
			t.Errorf("%s: the same again: changed %v, error %v", tt.name, changed, err)
		}
	}
}

func TestLinkOfATicket(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"https://example.com/a?b=c": true, "mailto:ada@example.com": true, "file:///a": true,
		"": false, "nowhere": false, "/a": false, "https:": false, "https://exa mple": false, "a\x00:b": false,
		"https://" + strings.Repeat("a", MaxLink-len("https://")): true, "https://" + strings.Repeat("a", MaxLink-len("https://")+1): false,
		// What `new URL()` says, which is what Zod asks.
		"https://example.com/100%": true, "https://example.com/%zz#a%": true, "https://u:50%@example.com/": true,
		" https://example.com/a ": true, "https://example.com:65535/": true, "https://example.com:65536/": false,
		"50%:a": false,
	} {
		if issue, bad := linkIssue(text); bad == want {
			t.Errorf("%.40q: bad is %v, %s", text, bad, issue.Message)
		}
	}
}
