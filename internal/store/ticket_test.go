package store

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/ticket"
	"github.com/ticketwire/ticketwire/webhook"
)

func TestTickets(t *testing.T) {
	t.Parallel()
	exercise(t, map[string]func(*testing.T, opener){
		"create returns what a read returns":          createRoundTrip,
		"numbers count up and survive failures":       numbers,
		"update returns what a read returns":          updateRoundTrip,
		"payload equals the ticket":                   payloadEqualsTicket,
		"an empty update does nothing":                emptyUpdate,
		"occurred_at strictly increases":              occurredAtIncreases,
		"closing follows the board's rules":           closeRules,
		"unknown references are refused":              unknownReferences,
		"ids are taken in any letter case":            anyCase,
		"a deleted ticket leaves its events":          deleteLeavesEvents,
		"agents":                                      agents,
		"team":                                        team,
		"tags":                                        tags,
		"tags of a patch keep colours and mapping id": tagsOfPatch,
	})
}

// everything fills every field of a draft.
func (d *desk) everything(t *testing.T) ticket.Draft {
	t.Helper()
	location := must(d.CreateLocation(t.Context(), start(), d.TenantID, ticket.Location{ClientID: d.rows.ClientID, Name: "HQ"}))(t)
	categories, _, err := d.Categories(t.Context(), d.TenantID, ResourceQuery{})
	if err != nil {
		t.Fatal(err)
	}
	draft := d.draft("Printer <on> fire & \u2028smoke")
	draft.URL = new("https://example.com/a?b=c&d=e")
	draft.LocationID, draft.ContactNameID, draft.AssignedTo = &location.LocationID, &d.rows.ContactID, &d.UserID
	for _, c := range categories {
		if c.ParentCategory == nil {
			draft.CategoryID = &c.CategoryID
		} else {
			draft.SubcategoryID = &c.CategoryID
		}
	}
	draft.DueDate = new(start().Add(48 * time.Hour))
	draft.Attributes = json.RawMessage(`{"description":"It <burns>.\n\nHelp","n":1}`)
	draft.Tags = []string{" VIP ", "fire", "vip"}
	return draft
}

func createRoundTrip(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	for _, draft := range []ticket.Draft{d.draft("Help"), d.everything(t)} {
		made, name := d.create(start(), draft), draft.Title
		read := must(d.Ticket(t.Context(), d.TenantID, made.TicketID))(t)
		if diff := cmp.Diff(made, read); diff != "" {
			t.Errorf("%s: created and read differ (-created +read):\n%s", name, diff)
		}
		byNumber := must(d.Ticket(t.Context(), d.TenantID, made.Number))(t)
		if byNumber.TicketID != made.TicketID {
			t.Errorf("%s: number %s finds %s, want %s", name, made.Number, byNumber.TicketID, made.TicketID)
		}
	}
	most := must(d.Ticket(t.Context(), d.TenantID, "TKT-1001"))(t)
	for field, ok := range map[string]bool{
		"names":       most.StatusName == "Open" && most.BoardName == "Service Desk" && most.PriorityName == "Medium",
		"contact":     most.ContactName != nil && *most.ContactName == "Alex Doe",
		"assignee":    most.AssignedToName != nil && *most.AssignedToName == "Ada Lovelace",
		"entered by":  most.EnteredByName != nil && *most.EnteredByName == "Ada Lovelace",
		"category":    most.CategoryName != nil && *most.CategoryName == "Hardware",
		"subcategory": most.SubcategoryName != nil && *most.SubcategoryName == "Printer",
		"location":    most.LocationName != nil && *most.LocationName == "HQ",
		"tags":        slices.Equal(most.Tags, []string{"fire", "vip"}),
		"updated_at":  most.UpdatedAt.Equal(most.EnteredAt.Time) && most.UpdatedAt.String() == "2026-03-04T05:06:07.891Z",
		"html":        strings.Contains(most.DescriptionHTML, "It &lt;burns&gt;."),
	} {
		if !ok {
			t.Errorf("%s is wrong", field)
		}
	}
}

func numbers(t *testing.T, open opener) {
	s := open(t)
	d, other := newDesk(t, s, "acme"), newDesk(t, s, "other")
	first := d.create(start(), d.draft("one"))
	bad := d.draft("two")
	bad.PriorityID = NewID()
	_, err := d.CreateTicket(t.Context(), start(), d.Actor, bad)
	wantKind(t, "create with an unknown priority", err, fault.BadReference)
	second := d.create(start(), d.draft("two"))
	foreign := other.create(start(), other.draft("one"))
	if got := []string{first.Number, second.Number, foreign.Number}; !slices.Equal(got, []string{"TKT-1000", "TKT-1001", "TKT-1000"}) {
		t.Errorf("numbers are %q", got)
	}
	var wg sync.WaitGroup
	seen := make([]string, 40)
	for i := range seen {
		wg.Go(func() {
			tk, err := d.CreateTicket(t.Context(), start(), d.Actor, d.draft("many"))
			if err != nil {
				t.Error(err)
			}
			seen[i] = tk.Number
		})
	}
	wg.Wait()
	slices.Sort(seen)
	if len(slices.Compact(seen)) != 40 {
		t.Error("two tickets share a number")
	}
}

func updateRoundTrip(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	made := d.create(start(), d.everything(t))
	next := d.update(start().Add(time.Minute), made.TicketID, ticket.Patch{
		Title: ticket.Some("Out"), StatusID: ticket.Some(d.rows.Statuses["Closed"]), PriorityID: ticket.Some(d.rows.Priorities["Low"]),
		AssignedTo: ticket.Some[*string](nil), Attributes: ticket.Some(json.RawMessage(nil)),
		LocationID: ticket.Some[*string](nil), Tags: ticket.Some([]string{"out"}),
	})
	read := must(d.Ticket(t.Context(), d.TenantID, made.TicketID))(t)
	if diff := cmp.Diff(next, read); diff != "" {
		t.Errorf("updated and read differ (-updated +read):\n%s", diff)
	}
	if !next.IsClosed || next.ClosedAt == nil || next.ClosedBy == nil || *next.ClosedBy != d.UserID {
		t.Errorf("closing did not take: %+v", next)
	}
	_, err := d.UpdateTicket(t.Context(), start(), d.Actor, NewID(), ticket.Patch{Title: ticket.Some("x")})
	wantKind(t, "update of an unknown ticket", err, fault.NotFound)
}

// envelopes reads the tenant's whole feed.
func (d *desk) envelopes() []webhook.Envelope {
	d.t.Helper()
	var all []webhook.Envelope
	for q := (FeedQuery{Limit: 1000}); ; {
		page := must(d.Events(d.t.Context(), d.TenantID, q))(d.t)
		for _, body := range page.Envelopes {
			var e webhook.Envelope
			if err := json.Unmarshal(body, &e); err != nil {
				d.t.Fatal(err)
			}
			all = append(all, e)
		}
		if !page.More {
			return all
		}
		q.After = page.Next
	}
}

func types(envelopes []webhook.Envelope) []string {
	names := make([]string, len(envelopes))
	for i, e := range envelopes {
		names[i] = e.EventType
	}
	return names
}

func payloadEqualsTicket(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	made := d.create(start(), d.everything(t))
	next := d.update(start().Add(time.Minute), made.TicketID, ticket.Patch{
		Title: ticket.Some("Out"), StatusID: ticket.Some(d.rows.Statuses["Closed"]), AssignedTo: ticket.Some[*string](nil),
	})
	feed := d.envelopes()
	want := []string{
		"ticket.created", "ticket.assigned",
		"ticket.updated", "ticket.status_changed", "ticket.assigned", "ticket.closed",
	}
	if diff := cmp.Diff(want, types(feed)); diff != "" {
		t.Fatalf("events (-want +got):\n%s", diff)
	}
	for i, e := range feed {
		state := next
		if i < 2 {
			state = made
		}
		var data, row map[string]any
		raw, err := json.Marshal(state)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, &row); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(e.Data, &data); err != nil {
			t.Fatal(err)
		}
		shared := 0
		for key, v := range data {
			want, ok := row[key]
			if !ok || key == "url" {
				continue
			}
			shared++
			if !cmp.Equal(v, want) {
				t.Errorf("%s: data.%s is %v, the ticket says %v", e.EventType, key, v, want)
			}
		}
		if shared < 24 {
			t.Errorf("%s: only %d keys of data are keys of the ticket", e.EventType, shared)
		}
		if want := "https://desk.example/msp/tickets/" + made.TicketID; data["url"] != want {
			t.Errorf("%s: data.url is %v, want %s", e.EventType, data["url"], want)
		}
	}
}

func emptyUpdate(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	made := d.create(start(), d.everything(t))
	before := len(d.envelopes())
	for name, p := range map[string]ticket.Patch{
		"nothing":   {},
		"the same":  {Title: ticket.Some(made.Title), StatusID: ticket.Some(strings.ToUpper(made.StatusID)), Tags: ticket.Some([]string{"VIP", "fire"})},
		"same json": {Attributes: ticket.Some(json.RawMessage(`{ "n": 1.0, "description": "It <burns>.\n\nHelp" }`))},
	} {
		next := d.update(start().Add(time.Hour), made.TicketID, p)
		if diff := cmp.Diff(made, next); diff != "" {
			t.Errorf("%s changed the ticket:\n%s", name, diff)
		}
	}
	if diff := cmp.Diff(made, must(d.Ticket(t.Context(), d.TenantID, made.TicketID))(t)); diff != "" {
		t.Errorf("the stored ticket changed:\n%s", diff)
	}
	if after := len(d.envelopes()); after != before {
		t.Errorf("%d events before, %d after", before, after)
	}
}

// occurredAtIncreases updates one ticket from 64 goroutines with one clock
// reading between them.
func occurredAtIncreases(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	made := d.create(start(), d.draft("hot"))
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			status := d.rows.Statuses["In Progress"]
			if i%2 == 0 {
				status = d.rows.Statuses["Open"]
			}
			if _, err := d.UpdateTicket(t.Context(), start(), d.Actor, made.TicketID, ticket.Patch{
				Title: ticket.Some(fmt.Sprint("hot ", i)), StatusID: ticket.Some(status),
			}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	feed := d.envelopes()
	if len(feed) < 65 {
		t.Fatalf("only %d events", len(feed))
	}
	updated := time.Time{}
	for i := 1; i < len(feed); i++ {
		gap := feed[i].OccurredAt.Sub(feed[i-1].OccurredAt.Time)
		if gap < time.Millisecond {
			t.Errorf("event %d occurred %v after the one before it", i, gap)
		}
		if feed[i].EventType != webhook.TicketUpdated {
			continue
		}
		data, err := feed[i].Ticket()
		if err != nil {
			t.Fatal(err)
		}
		if !data.UpdatedAt.After(updated) {
			t.Errorf("event %d: updated_at %v is not after %v", i, data.UpdatedAt, updated)
		}
		updated = data.UpdatedAt.Time
	}
	last := must(d.Ticket(t.Context(), d.TenantID, made.TicketID))(t)
	if !last.LastOccurredAt.Equal(feed[len(feed)-1].OccurredAt.Time) || !last.UpdatedAt.Equal(updated) {
		t.Errorf("the ticket says %v and %v, the feed %v and %v",
			last.UpdatedAt, last.LastOccurredAt, updated, feed[len(feed)-1].OccurredAt)
	}
}

func closeRules(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	board := must(d.CreateBoard(t.Context(), start(), d.TenantID, ticket.Board{
		Name: "Strict", CloseRules: []string{ticket.CloseResolutionComment},
	}))(t)
	draft := d.draft("strict")
	draft.BoardID = board.BoardID
	for _, st := range []ticket.Status{{Name: "Open"}, {Name: "Done", IsClosed: true}} {
		st.BoardID = board.BoardID
		made := must(d.CreateStatus(t.Context(), start(), d.TenantID, st))(t)
		d.rows.Statuses["Strict "+st.Name] = made.StatusID
	}
	draft.StatusID = d.rows.Statuses["Strict Open"]
	tk := d.create(start(), draft)
	done := ticket.Patch{StatusID: ticket.Some(d.rows.Statuses["Strict Done"])}
	_, err := d.UpdateTicket(t.Context(), start(), d.Actor, tk.TicketID, done)
	wantKind(t, "closing without a resolution", err, fault.Invalid)
	must(d.AddComment(t.Context(), start(), d.Actor, tk.TicketID, ticket.CommentDraft{Text: "fixed", IsResolution: true}))(t)
	if next := d.update(start(), tk.TicketID, done); !next.IsClosed {
		t.Error("the ticket did not close after a resolution")
	}
	_, err = d.UpdateTicket(t.Context(), start(), d.Actor, tk.TicketID, ticket.Patch{StatusID: ticket.Some(d.rows.Statuses["Open"])})
	wantKind(t, "a status of another board", err, fault.Invalid)
}

func unknownReferences(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	tk := d.create(start(), d.draft("one"))
	before := len(d.envelopes())
	nobody := NewID()
	for name, p := range map[string]ticket.Patch{
		"board":    {BoardID: ticket.Some(nobody), StatusID: ticket.Some(nobody)},
		"status":   {StatusID: ticket.Some(nobody)},
		"priority": {PriorityID: ticket.Some(nobody)},
		"client":   {ClientID: ticket.Some(nobody)},
		"contact":  {ContactNameID: ticket.Some(&nobody)},
		"location": {LocationID: ticket.Some(&nobody)},
		"category": {CategoryID: ticket.Some(&nobody)},
		"sub":      {SubcategoryID: ticket.Some(&nobody)},
		"assignee": {AssignedTo: ticket.Some(&nobody)},
		"team":     {AssignedTeamID: ticket.Some(&nobody)},
	} {
		_, err := d.UpdateTicket(t.Context(), start(), d.Actor, tk.TicketID, p)
		wantKind(t, name, err, fault.BadReference)
	}
	if after := len(d.envelopes()); after != before {
		t.Errorf("refused updates fired %d events", after-before)
	}
}

func anyCase(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	draft := d.draft("UPPER")
	draft.BoardID, draft.StatusID = strings.ToUpper(draft.BoardID), strings.ToUpper(draft.StatusID)
	draft.AssignedTo = new(strings.ToUpper(d.UserID))
	made := d.create(start(), draft)
	if made.BoardID != d.rows.BoardID || made.StatusID != d.rows.Statuses["Open"] || *made.AssignedTo != d.UserID {
		t.Errorf("ids were stored as they came: %+v", made)
	}
	if read := must(d.Ticket(t.Context(), d.TenantID, strings.ToUpper(made.TicketID)))(t); read.TicketID != made.TicketID {
		t.Errorf("found %s", read.TicketID)
	}
}

func deleteLeavesEvents(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	tk := d.create(start(), d.everything(t))
	c := must(d.AddComment(t.Context(), start(), d.Actor, tk.TicketID, ticket.CommentDraft{Text: "hi"}))(t)
	must(d.ToggleReaction(t.Context(), start(), d.Actor, tk.TicketID, c.CommentID, "+1"))(t)
	before := types(d.envelopes())
	if err := d.DeleteTicket(t.Context(), d.Actor, tk.TicketID); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, types(d.envelopes())); diff != "" {
		t.Errorf("deleting changed the feed:\n%s", diff)
	}
	for _, table := range []string{"tickets", "ticket_tags", "ticket_agents", "comments", "comment_reactions"} {
		var n int
		if err := d.read.QueryRow(`select count(*) from ` + table).Scan(&n); err != nil || n != 0 {
			t.Errorf("%d rows are left in %s (%v)", n, table, err)
		}
	}
	wantKind(t, "deleting again", d.DeleteTicket(t.Context(), d.Actor, tk.TicketID), fault.NotFound)
	_, err := d.Ticket(t.Context(), d.TenantID, tk.TicketID)
	if wantKind(t, "reading", err, fault.NotFound); !strings.Contains(fmt.Sprint(err), "ticket not found") {
		t.Errorf("message is %v", err)
	}
	if _, err := uuid.Parse(tk.TicketID); err != nil || tk.TicketID[14] != '7' {
		t.Errorf("%s is no UUIDv7", tk.TicketID)
	}
}

func agents(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	tk := d.create(start(), d.draft("alone"))
	helper := must(d.AddUser(t.Context(), start(), d.TenantID, ticket.User{FirstName: "Bo", Email: "bo@desk.example"}))(t)
	list := must(d.AddAgent(t.Context(), start(), d.Actor, tk.TicketID, d.UserID, "lead", ticket.Suppress{}))(t)
	if list.Primary == nil || list.Primary.UserID != d.UserID || len(list.Additional) != 0 {
		t.Fatalf("the first agent is not the primary one: %+v", list)
	}
	promoted := must(d.Ticket(t.Context(), d.TenantID, tk.TicketID))(t)
	list = must(d.AddAgent(t.Context(), start().Add(time.Hour), d.Actor, tk.TicketID, helper.UserID, "helper", ticket.Suppress{}))(t)
	if len(list.Additional) != 1 || list.Additional[0].Role != "helper" || *list.Additional[0].Name != "Bo" {
		t.Fatalf("the second agent is not an additional one: %+v", list)
	}
	if diff := cmp.Diff(promoted, must(d.Ticket(t.Context(), d.TenantID, tk.TicketID))(t)); diff != "" {
		t.Errorf("an additional agent changed the ticket:\n%s", diff)
	}
	want := []string{"ticket.created", "ticket.updated", "ticket.assigned"}
	if diff := cmp.Diff(want, types(d.envelopes())); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	_, err := d.AddAgent(t.Context(), start(), d.Actor, tk.TicketID, helper.UserID, "again", ticket.Suppress{})
	wantKind(t, "the same agent again", err, fault.Conflict)
	// Who becomes the primary agent is no additional one any more.
	d.update(start(), tk.TicketID, ticket.Patch{AssignedTo: ticket.Some(&helper.UserID)})
	list = must(d.TicketAgents(t.Context(), d.TenantID, tk.TicketID))(t)
	if list.Primary.UserID != helper.UserID || len(list.Additional) != 0 {
		t.Errorf("after the assignment: %+v", list)
	}
	list = must(d.AddAgent(t.Context(), start(), d.Actor, tk.TicketID, d.UserID, "helper", ticket.Suppress{}))(t)
	if err := d.RemoveAgent(t.Context(), start(), d.Actor, tk.TicketID, strings.ToUpper(d.UserID)); err != nil || len(list.Additional) != 1 {
		t.Errorf("remove: %v from %+v", err, list)
	}
	wantKind(t, "removing again", d.RemoveAgent(t.Context(), start(), d.Actor, tk.TicketID, d.UserID), fault.NotFound)
	wantKind(t, "removing the primary", d.RemoveAgent(t.Context(), start(), d.Actor, tk.TicketID, helper.UserID), fault.Conflict)
}

func team(t *testing.T, open opener) {
	for _, c := range []struct {
		mode string
		left int
	}{{"", 0}, {"remove_all", 0}, {"keep_all", 2}, {"selective", 1}} {
		d := newDesk(t, open(t), "acme")
		teams, _, err := d.Teams(t.Context(), d.TenantID, ResourceQuery{})
		if err != nil || len(teams) != 1 {
			t.Fatalf("%d teams, %v", len(teams), err)
		}
		draft := d.draft("team")
		draft.AssignedTo = &d.UserID
		tk := d.create(start(), draft)
		var keep []string
		for _, name := range []string{"bo", "cy"} {
			u := must(d.AddUser(t.Context(), start(), d.TenantID, ticket.User{FirstName: name, Email: name + "@desk.example"}))(t)
			must(d.AddAgent(t.Context(), start(), d.Actor, tk.TicketID, u.UserID, "member", ticket.Suppress{}))(t)
			keep = []string{strings.ToUpper(u.UserID)}
		}
		d.update(start(), tk.TicketID, ticket.Patch{AssignedTeamID: ticket.Some(&teams[0].TeamID)})
		next := must(d.RemoveTeam(t.Context(), start(), d.Actor, tk.TicketID, c.mode, keep))(t)
		again := must(d.RemoveTeam(t.Context(), start(), d.Actor, tk.TicketID, c.mode, nil))(t)
		list := must(d.TicketAgents(t.Context(), d.TenantID, tk.TicketID))(t)
		if next.AssignedTeamID != nil || len(list.Additional) != c.left || !again.UpdatedAt.Equal(next.UpdatedAt.Time) {
			t.Errorf("mode %q: team %v, agents %+v, updated %v then %v", c.mode, next.AssignedTeamID, list, next.UpdatedAt, again.UpdatedAt)
		}
		want := []string{"ticket.created", "ticket.assigned", "ticket.updated", "ticket.assigned", "ticket.updated", "ticket.assigned"}
		if diff := cmp.Diff(want, types(d.envelopes())); diff != "" {
			t.Errorf("mode %q: events (-want +got):\n%s", c.mode, diff)
		}
		_, err = d.RemoveTeam(t.Context(), start(), d.Actor, tk.TicketID, "some", nil)
		wantKind(t, "an unknown mode", err, fault.Invalid)
	}
}

func tags(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	draft := d.draft("tagged")
	draft.Tags = []string{"vip"}
	tk := d.create(start(), draft)
	made := must(d.AddTags(t.Context(), start(), d.Actor, tk.TicketID, []TagDraft{
		{Text: " Fire", BackgroundColor: new("#f00")}, {Text: "VIP"}, {Text: "fire"},
	}))(t)
	if len(made) != 1 || made[0].Text != "fire" || *made[0].BackgroundColor != "#f00" {
		t.Fatalf("created %+v", made)
	}
	next := must(d.Ticket(t.Context(), d.TenantID, tk.TicketID))(t)
	if !slices.Equal(next.Tags, []string{"fire", "vip"}) || !next.UpdatedAt.After(tk.UpdatedAt.Time) {
		t.Errorf("the ticket has %q, updated %v", next.Tags, next.UpdatedAt)
	}
	if again := must(d.AddTags(t.Context(), start(), d.Actor, tk.TicketID, []TagDraft{{Text: "FIRE"}}))(t); len(again) != 0 {
		t.Errorf("created %+v a second time", again)
	}
	list := must(d.Tags(t.Context(), d.TenantID, tk.TicketID))(t)
	if len(list) != 2 || list[0].Text != "fire" || list[0].TagID != made[0].TagID {
		t.Errorf("tags are %+v", list)
	}
	bare := d.create(start(), d.draft("bare"))
	of := must(d.TagsOf(t.Context(), d.TenantID, []string{tk.TicketID, bare.TicketID}))(t)
	if diff := cmp.Diff(map[string][]ticket.Tag{tk.TicketID: list}, of); diff != "" {
		t.Errorf("tags of several tickets (-want +got):\n%s", diff)
	}
	if n := must(d.RemoveTags(t.Context(), start(), d.Actor, bare.TicketID, []string{list[0].TagID}))(t); n != 0 {
		t.Errorf("removed %d tags of another ticket", n)
	}
	if n := must(d.RemoveTags(t.Context(), start(), d.Actor, tk.TicketID, []string{strings.ToUpper(list[0].TagID), NewID()}))(t); n != 1 {
		t.Errorf("removed %d tags", n)
	}
	feed := d.envelopes()
	want := []string{"ticket.created", "ticket.updated", "ticket.created", "ticket.updated"}
	if diff := cmp.Diff(want, types(feed)); diff != "" {
		t.Fatalf("events (-want +got):\n%s", diff)
	}
	for i, want := range map[int]string{
		1: `"changes":{"tags":{"previous":["vip"],"new":["fire","vip"]}}`,
		3: `"changes":{"tags":{"previous":["fire","vip"],"new":["vip"]}}`,
	} {
		if !strings.Contains(string(feed[i].Data), want) {
			t.Errorf("event %d is %s, want %s in it", i, feed[i].Data, want)
		}
	}
	_, err := d.AddTags(t.Context(), start(), d.Actor, tk.TicketID, []TagDraft{{Text: strings.Repeat("x", 51)}})
	wantKind(t, "a long tag", err, fault.Invalid)
}

func tagsOfPatch(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	tk := d.create(start(), d.draft("tagged"))
	made := must(d.AddTags(t.Context(), start(), d.Actor, tk.TicketID, []TagDraft{{Text: "a", TextColor: new("#000")}, {Text: "b"}}))(t)
	d.update(start(), tk.TicketID, ticket.Patch{Tags: ticket.Some([]string{"c", "a"})})
	list := must(d.Tags(t.Context(), d.TenantID, tk.TicketID))(t)
	if len(list) != 2 || list[0].TagID != made[0].TagID || list[0].TextColor == nil || list[1].Text != "c" {
		t.Errorf("tags are %+v", list)
	}
}
