package ticket

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/webhook"
)

// The table of contract section 4.4, column "ours".
func TestWhichEventsAChangeMakes(t *testing.T) {
	t.Parallel()
	const (
		updated, status = webhook.TicketUpdated, webhook.TicketStatusChanged
		assigned, done  = webhook.TicketAssigned, webhook.TicketClosed
	)
	in := func(statusID string) Draft {
		d := draft()
		d.StatusID, d.AssignedTo = statusID, new(theoID)
		return d
	}
	bare := draft()
	bare.ContactNameID = nil
	tests := []struct {
		name  string
		draft Draft
		patch Patch
		want  []string
	}{
		{"edit fields", draft(), Patch{Title: Some("x")}, []string{updated}},
		{"untracked field", draft(), Patch{ContactNameID: Some[*string](nil)}, []string{updated}},
		{"url", draft(), Patch{URL: Some(new("https://x.example"))}, []string{updated}},
		{"priority", draft(), Patch{PriorityID: Some(urgentID)}, []string{updated}},
		{"client", draft(), Patch{ClientID: Some(otherClientID)}, []string{updated}},
		{"location", draft(), Patch{LocationID: Some(new(locationID))}, []string{updated}},
		{"contact", bare, Patch{ContactNameID: Some(new(contactID))}, []string{updated}},
		{"category", draft(), Patch{CategoryID: Some(new(freeID))}, []string{updated}},
		{"subcategory", draft(), Patch{SubcategoryID: Some(new(childID))}, []string{updated}},
		{"open to open", draft(), Patch{StatusID: Some(progressID)}, []string{updated, status}},
		{"open to closed", draft(), Patch{StatusID: Some(closedID)}, []string{updated, status, done}},
		{"closed to closed", in(closedID), Patch{StatusID: Some(doneID)}, []string{updated, status}},
		{"reopen", in(closedID), Patch{StatusID: Some(openID)}, []string{updated, status}},
		{"assign", draft(), Patch{AssignedTo: Some(new(maraID))}, []string{updated, assigned}},
		{"reassign", in(openID), Patch{AssignedTo: Some(new(maraID))}, []string{updated, assigned}},
		{"unassign", in(openID), Patch{AssignedTo: Some[*string](nil)}, []string{updated, assigned}},
		{"assign team", draft(), Patch{AssignedTeamID: Some(new(teamID))}, []string{updated, assigned}},
		{"tags", draft(), Patch{Tags: Some([]string{"b"})}, []string{updated}},
		{"assign and close", draft(), Patch{AssignedTo: Some(new(theoID)), StatusID: Some(closedID)}, []string{updated, status, assigned, done}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld()
			old := create(t, w, tt.draft)
			next := apply(t, w, old, tt.patch, start.Add(time.Minute))
			events := Events(&old, &next, Suppress{ContactNotifications: true, InternalNotifications: true}, counter(), publicURL)
			if diff := cmp.Diff(tt.want, types(events)); diff != "" {
				t.Error(diff)
			}
			seen := map[string]bool{}
			for i, e := range events {
				if want := next.UpdatedAt.Add(time.Duration(i) * time.Millisecond); !e.OccurredAt.Equal(want) {
					t.Errorf("%s occurred at %v, want %v", e.Type, e.OccurredAt, want)
				}
				if e.TenantID != tenantID || e.TicketID != ticketID || seen[e.EventID] {
					t.Errorf("%s: tenant %s, ticket %s, event %s", e.Type, e.TenantID, e.TicketID, e.EventID)
				}
				seen[e.EventID] = true
				if (e.Data.PreviousStatusID != nil) != (e.Type == status) || e.Type != updated && e.Data.Changes != nil {
					t.Errorf("%s carries keys of another event: %+v", e.Type, e.Data)
				}
				if !e.Data.SuppressContactNotifications || !e.Data.SuppressInternalNotifications {
					t.Errorf("%s lost the suppression flags", e.Type)
				}
			}
			if last := events[len(events)-1].OccurredAt; !next.LastOccurredAt.Equal(last.Time) {
				t.Errorf("LastOccurredAt %v, want %v", next.LastOccurredAt, last)
			}
		})
	}
}

func TestEventsOfACreate(t *testing.T) {
	t.Parallel()
	w := newWorld()
	d := draft()
	plain := create(t, w, d)
	if diff := cmp.Diff([]string{webhook.TicketCreated}, types(Events(nil, &plain, Suppress{}, counter(), publicURL))); diff != "" {
		t.Error(diff)
	}
	d.AssignedTo = new(theoID)
	assigned := create(t, w, d)
	want := []string{webhook.TicketCreated, webhook.TicketAssigned}
	if diff := cmp.Diff(want, types(Events(nil, &assigned, Suppress{}, counter(), publicURL))); diff != "" {
		t.Error(diff)
	}
}

func TestChanges(t *testing.T) {
	t.Parallel()
	w := newWorld()
	d := draft()
	d.SubcategoryID = new(childID)
	old := create(t, w, d)
	next := apply(t, w, old, Patch{
		Tags: Some([]string{"z<1>", "a"}), DueDate: Some(new(at("2026-04-01T08:00:00Z"))),
		CategoryID: Some(new(otherCategoryID)), SubcategoryID: Some(new(otherChildID)),
		BoardID: Some(otherBoardID), StatusID: Some(otherOpenID), AssignedTo: Some(new(theoID)),
		PriorityID: Some(urgentID), URL: Some(new("https://x.example/?a&b")), Title: Some(`R&D "<b>"`),
		ClientID: Some(otherClientID), Attributes: Some(json.RawMessage(`{}`)),
	}, start.Add(time.Minute))
	got := encodeCompact(t, Events(&old, &next, Suppress{}, counter(), publicURL)[0].Data.Changes)
	want := `{"title":{"previous":"Label printer offline in warehouse 3","new":"R&D \"<b>\""},` +
		`"url":{"previous":null,"new":"https://x.example/?a&b"},` +
		`"status_id":{"previous":"` + openID + `","new":"` + otherOpenID + `"},` +
		`"priority_id":{"previous":"` + highID + `","new":"` + urgentID + `"},` +
		`"assigned_to":{"previous":null,"new":"` + theoID + `"},` +
		`"board_id":{"previous":"` + boardID + `","new":"` + otherBoardID + `"},` +
		`"category_id":{"previous":"` + categoryID + `","new":"` + otherCategoryID + `"},` +
		`"subcategory_id":{"previous":"` + childID + `","new":"` + otherChildID + `"},` +
		`"due_date":{"previous":null,"new":"2026-04-01T08:00:00.000Z"},` +
		`"tags":{"previous":["printer"],"new":["a","z<1>"]}}`
	if got != want {
		t.Errorf("changes\n got %s\nwant %s", got, want)
	}

	moved := apply(t, w, old, Patch{ContactNameID: Some[*string](nil)}, start.Add(time.Minute))
	data := encodeCompact(t, Events(&old, &moved, Suppress{}, counter(), publicURL)[0].Data)
	if strings.Contains(data, "changes") {
		t.Errorf("changes although nothing tracked changed: %s", data)
	}
}

// The payload is that of the commit: later changes must not show in it.
func TestDataIsFrozen(t *testing.T) {
	t.Parallel()
	tk := create(t, newWorld(), draft())
	data := Data(&tk, publicURL)
	before := encodeCompact(t, data)
	tk.Title, tk.StatusName, tk.UpdatedAt = "later", "later", wire("2030-01-01T00:00:00Z")
	if after := encodeCompact(t, data); after != before {
		t.Errorf("payload followed the ticket: %s", after)
	}
}

func TestDataURL(t *testing.T) {
	t.Parallel()
	tk := create(t, newWorld(), draft())
	for _, base := range []string{publicURL, publicURL + "/", publicURL + "//"} {
		if got, want := Data(&tk, base).URL, publicURL+"/msp/tickets/"+ticketID; got != want {
			t.Errorf("url %q, want %q", got, want)
		}
	}
}

// agrees holds every key that a payload shares with the ticket's JSON against it.
// url is another field there (contract D24).
func agrees(t interface {
	Helper()
	Errorf(string, ...any)
	Fatal(...any)
}, tk *Ticket) {
	t.Helper()
	ticketKeys, dataKeys := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	for v, into := range map[any]*map[string]json.RawMessage{tk: &ticketKeys, new(Data(tk, publicURL)): &dataKeys} {
		b, err := json.Marshal(v)
		if err == nil {
			err = json.Unmarshal(b, into)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	shared := 0
	for key, value := range dataKeys {
		other, ok := ticketKeys[key]
		if !ok || key == "url" {
			continue
		}
		shared++
		if !bytes.Equal(value, other) {
			t.Errorf("%s: payload %s, ticket %s", key, value, other)
		}
	}
	if shared != 25 {
		t.Errorf("%d shared keys, want the 25 of contract section 4.4", shared)
	}
}

func TestDataAgreesWithTheTicket(t *testing.T) {
	t.Parallel()
	tk := create(t, newWorld(), draft())
	fill(reflect.ValueOf(&tk).Elem())
	agrees(t, &tk)
	agrees(t, &Ticket{Tags: []string{}})
	if got := encodeCompact(t, Data(&Ticket{}, publicURL).Tags); got != "[]" {
		t.Errorf("no tags: %s", got)
	}
}

// fill sets every field to a value of its own, so that a key that is filled from
// the wrong field shows.
func fill(v reflect.Value) {
	for i := range v.NumField() {
		f, name := v.Field(i), v.Type().Field(i).Name
		switch p := f.Addr().Interface().(type) {
		case *string:
			*p = name
		case **string:
			*p = new(name)
		case *webhook.Time:
			*p = webhook.At(start.Add(time.Duration(i) * time.Hour))
		case **webhook.Time:
			*p = new(webhook.At(start.Add(time.Duration(i) * time.Hour)))
		case *bool:
			*p = name == "IsClosed"
		case *[]string:
			*p = []string{name}
		}
	}
}

func encodeCompact(t testing.TB, v any) string {
	t.Helper()
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(buf.String(), "\n")
}

// goldenData reads the data object of a golden payload in compact form.
func goldenData(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "webhook", "testdata", "payloads", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var e webhook.Envelope
	if err := json.Unmarshal(b, &e); err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := json.Compact(&buf, e.Data); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}

// The states behind the golden payloads, rebuilt as changes, give their data
// byte for byte.
func TestGoldenPayloads(t *testing.T) {
	t.Parallel()
	w := newWorld()
	created := create(t, w, draft())
	createdEvents := Events(nil, &created, Suppress{}, counter(), publicURL)

	// step applies one patch and picks the event of one type.
	step := func(old Ticket, p Patch, when, kind string) (Ticket, Event) {
		t.Helper()
		next := apply(t, w, old, p, at(when))
		for _, e := range Events(&old, &next, p.Suppress, counter(), publicURL) {
			if e.Type == kind {
				return next, e
			}
		}
		t.Fatalf("no %s", kind)
		return Ticket{}, Event{}
	}
	_, updated := step(created, Patch{
		Title: Some("Label printer offline in warehouses 3 and 4"), PriorityID: Some(urgentID),
	}, "2026-03-09T08:20:40.951Z", webhook.TicketUpdated)
	tagged, tags := step(created, Patch{Tags: Some([]string{"printer", "Onsite"})}, "2026-03-09T08:20:40.951Z", webhook.TicketUpdated)
	assigned, assignment := step(tagged, Patch{AssignedTo: Some(new(maraID))}, "2026-03-09T08:30:12.001Z", webhook.TicketAssigned)
	_, team := step(assigned, Patch{AssignedTo: Some(new(theoID)), AssignedTeamID: Some(new(teamID))},
		"2026-03-09T08:30:55.655Z", webhook.TicketAssigned)
	moved, status := step(assigned, Patch{StatusID: Some(progressID)}, "2026-03-09T08:31:00.251Z", webhook.TicketStatusChanged)

	firstTicket := Touch(moved, mara(), at("2026-03-09T09:05:33.090Z"))
	first := comment(t, CommentDraft{Text: "Replacement fuser ordered — arrives 14:00. ✅"}, nil,
		"6e5d4c3b-2a19-4807-9f6e-5d4c3b2a1901", firstTicket.UpdatedAt.Time)
	firstEvent := CommentAdded(&firstTicket, first, Suppress{}, counter(), publicURL)

	secondTicket := Touch(firstTicket, mara(), at("2026-03-09T09:40:07.510Z"))
	second := comment(t, CommentDraft{Text: "Obrigada! Estou no local até às 16h."}, nil,
		"6e5d4c3b-2a19-4807-9f6e-5d4c3b2a1902", secondTicket.UpdatedAt.Time)
	second.UserID, second.CreatedByName, second.AuthorType = nil, nil, AuthorClient
	second.AuthorContactName = new("Inês Duarte")
	secondEvent := CommentAdded(&secondTicket, second, Suppress{}, counter(), publicURL)
	first.UpdatedAt = &first.CreatedAt // the file has an edit in the same millisecond
	AddThread(&secondEvent.Data, []Comment{second, first})

	_, closed := step(secondTicket, Patch{StatusID: Some(closedID), Suppress: Suppress{ContactNotifications: true}},
		"2026-03-09T11:02:19.811Z", webhook.TicketClosed)

	for name, e := range map[string]Event{
		"ticket.created": createdEvents[0], "ticket.updated": updated, "ticket.updated.tags": tags,
		"ticket.assigned": assignment, "ticket.assigned.team": team, "ticket.status_changed": status,
		"ticket.comment.added": firstEvent, "ticket.comment.added.with-thread": secondEvent, "ticket.closed": closed,
	} {
		if got, want := encodeCompact(t, e.Data), goldenData(t, name); got != want {
			t.Errorf("%s\n got %s\nwant %s", name, got, want)
		}
		if e.Type == "" || !strings.HasPrefix(name, e.Type) {
			t.Errorf("%s has type %s", name, e.Type)
		}
	}
}
