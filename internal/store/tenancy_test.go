package store

import (
	"errors"
	"testing"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// TestTenantsDoNotMeet calls every method as one tenant with the ids of another.
func TestTenantsDoNotMeet(t *testing.T) {
	t.Parallel()
	exercise(t, map[string]func(*testing.T, opener){
		"rows":       foreignRows,
		"references": foreignReferences,
		"lists":      foreignLists,
	})
}

// foreign is what a tenant owns, and the tenant that wants to get at it.
type foreign struct {
	me       *desk
	owner    *desk
	tk       ticket.Ticket
	comment  ticket.Comment
	tag      ticket.Tag
	helper   ticket.User
	location string
	team     string
	key      string
	event    string
}

func newForeign(t *testing.T, s *Store) foreign {
	t.Helper()
	f := foreign{me: newDesk(t, s, "me"), owner: newDesk(t, s, "owner")}
	o := f.owner
	draft := o.everything(t)
	f.tk = o.create(start(), draft)
	f.location = *draft.LocationID
	f.comment = o.comment(start(), f.tk.TicketID, ticket.CommentDraft{Text: "ours"})
	f.tag = must(o.Tags(t.Context(), o.TenantID, f.tk.TicketID))(t)[0]
	f.helper = must(o.AddUser(t.Context(), start(), o.TenantID, ticket.User{FirstName: "Bo", Email: "bo@x"}))(t)
	must(o.AddAgent(t.Context(), start(), o.Actor, f.tk.TicketID, f.helper.UserID, "helper", ticket.Suppress{}))(t)
	teams, _, err := o.Teams(t.Context(), o.TenantID, ResourceQuery{})
	if err != nil {
		t.Fatal(err)
	}
	f.team = teams[0].TeamID
	f.key = must(o.Keys(t.Context(), o.TenantID))(t)[0].KeyID
	f.event = o.envelopes()[0].EventID
	return f
}

func foreignRows(t *testing.T, open opener) {
	s := open(t)
	f := newForeign(t, s)
	me, ctx := f.me, t.Context()
	before := f.owner.envelopes()
	reject := errors.New("change must not run")
	for name, call := range map[string]func() error{
		"Ticket":        func() error { _, err := s.Ticket(ctx, me.TenantID, f.tk.TicketID); return err },
		"Ticket number": func() error { _, err := s.Ticket(ctx, me.TenantID, f.tk.Number); return err },
		"UpdateTicket": func() error {
			_, err := s.UpdateTicket(ctx, start(), me.Actor, f.tk.TicketID, ticket.Patch{Title: ticket.Some("x")})
			return err
		},
		"DeleteTicket": func() error { return s.DeleteTicket(ctx, me.Actor, f.tk.TicketID) },
		"RemoveTeam":   func() error { _, err := s.RemoveTeam(ctx, start(), me.Actor, f.tk.TicketID, "", nil); return err },
		"TicketAgents": func() error { _, err := s.TicketAgents(ctx, me.TenantID, f.tk.TicketID); return err },
		"AddAgent": func() error {
			_, err := s.AddAgent(ctx, start(), me.Actor, f.tk.TicketID, me.UserID, "x", ticket.Suppress{})
			return err
		},
		"RemoveAgent": func() error { return s.RemoveAgent(ctx, start(), me.Actor, f.tk.TicketID, f.helper.UserID) },
		"Comments":    func() error { _, err := s.Comments(ctx, me.TenantID, f.tk.TicketID, CommentQuery{}); return err },
		"AddComment": func() error {
			_, err := s.AddComment(ctx, start(), me.Actor, f.tk.TicketID, ticket.CommentDraft{Text: "x"})
			return err
		},
		"EditComment": func() error {
			_, err := s.EditComment(ctx, start(), me.Actor, f.tk.TicketID, f.comment.CommentID, "x")
			return err
		},
		"ToggleReaction": func() error {
			_, err := s.ToggleReaction(ctx, start(), me.Actor, f.tk.TicketID, f.comment.CommentID, "x")
			return err
		},
		"Tags": func() error { _, err := s.Tags(ctx, me.TenantID, f.tk.TicketID); return err },
		"AddTags": func() error {
			_, err := s.AddTags(ctx, start(), me.Actor, f.tk.TicketID, []TagDraft{{Text: "x"}})
			return err
		},
		"RemoveTags": func() error {
			_, err := s.RemoveTags(ctx, start(), me.Actor, f.tk.TicketID, []string{f.tag.TagID})
			return err
		},
		"Event":    func() error { _, err := s.Event(ctx, me.TenantID, f.event); return err },
		"Board":    func() error { _, err := s.Board(ctx, me.TenantID, f.tk.BoardID); return err },
		"Status":   func() error { _, err := s.Status(ctx, me.TenantID, f.tk.StatusID); return err },
		"Priority": func() error { _, err := s.Priority(ctx, me.TenantID, f.tk.PriorityID); return err },
		"Client":   func() error { _, err := s.Client(ctx, me.TenantID, f.tk.ClientID); return err },
		"Contact":  func() error { _, err := s.Contact(ctx, me.TenantID, *f.tk.ContactNameID); return err },
		"Location": func() error { _, err := s.Location(ctx, me.TenantID, f.location); return err },
		"User":     func() error { _, err := s.User(ctx, me.TenantID, f.owner.UserID); return err },
		"Team":     func() error { _, err := s.Team(ctx, me.TenantID, f.team); return err },
		"Category": func() error { _, err := s.Category(ctx, me.TenantID, *f.tk.CategoryID); return err },
		"Key":      func() error { _, err := s.Key(ctx, me.TenantID, f.key); return err },
		"UpdateKey": func() error {
			_, err := s.UpdateKey(ctx, start(), me.TenantID, f.key, func(*APIKey) error { return reject })
			return err
		},
		"DeleteKey": func() error { return s.DeleteKey(ctx, me.TenantID, f.key) },
		"UpdateUser": func() error {
			_, err := s.UpdateUser(ctx, me.TenantID, f.owner.UserID, func(*ticket.User) error { return reject })
			return err
		},
	} {
		if err := call(); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: got %v, want NotFound", name, err)
		}
	}
	if after := f.owner.envelopes(); len(after) != len(before) {
		t.Errorf("%d events were made", len(after)-len(before))
	}
	if tk := must(s.Ticket(ctx, f.owner.TenantID, f.tk.TicketID))(t); tk.Title != f.tk.Title || len(tk.Tags) != len(f.tk.Tags) {
		t.Errorf("the ticket is now %+v", tk)
	}
}

func foreignReferences(t *testing.T, open opener) {
	s := open(t)
	f := newForeign(t, s)
	me, ctx := f.me, t.Context()
	for name, spoil := range map[string]func(*ticket.Draft){
		"board":    func(d *ticket.Draft) { d.BoardID = f.tk.BoardID },
		"status":   func(d *ticket.Draft) { d.StatusID = f.tk.StatusID },
		"priority": func(d *ticket.Draft) { d.PriorityID = f.tk.PriorityID },
		"client":   func(d *ticket.Draft) { d.ClientID = f.tk.ClientID },
		"contact":  func(d *ticket.Draft) { d.ContactNameID = f.tk.ContactNameID },
		"location": func(d *ticket.Draft) { d.LocationID = &f.location },
		"category": func(d *ticket.Draft) { d.CategoryID = f.tk.CategoryID },
		"assignee": func(d *ticket.Draft) { d.AssignedTo = &f.owner.UserID },
	} {
		draft := me.draft("x")
		spoil(&draft)
		_, err := s.CreateTicket(ctx, start(), me.Actor, draft)
		wantKind(t, name, err, fault.BadReference)
	}
	mine := me.create(start(), me.draft("mine"))
	_, err := s.UpdateTicket(ctx, start(), me.Actor, mine.TicketID, ticket.Patch{AssignedTeamID: ticket.Some(&f.team)})
	wantKind(t, "team", err, fault.BadReference)
	_, err = s.AddAgent(ctx, start(), me.Actor, mine.TicketID, f.helper.UserID, "x", ticket.Suppress{})
	wantKind(t, "agent", err, fault.BadReference)
	_, err = s.AddComment(ctx, start(), me.Actor, mine.TicketID, ticket.CommentDraft{Text: "x", ParentCommentID: &f.comment.CommentID})
	wantKind(t, "parent comment", err, fault.NotFound)
	_, err = s.CreateStatus(ctx, start(), me.TenantID, ticket.Status{Name: "x", BoardID: f.tk.BoardID})
	wantKind(t, "board of a status", err, fault.BadReference)
	_, err = s.CreateCategory(ctx, start(), me.TenantID, ticket.Category{Name: "x", BoardID: me.rows.BoardID, ParentCategory: f.tk.CategoryID})
	wantKind(t, "parent category", err, fault.BadReference)
	_, err = s.CreateContact(ctx, start(), me.TenantID, ticket.Contact{FullName: "x", Email: "x@y", ClientID: &f.tk.ClientID})
	wantKind(t, "client of a contact", err, fault.BadReference)
	_, err = s.CreateLocation(ctx, start(), me.TenantID, ticket.Location{Name: "x", ClientID: f.tk.ClientID})
	wantKind(t, "client of a location", err, fault.BadReference)
	_, err = s.AddTeam(ctx, start(), me.TenantID, ticket.Team{Name: "x", ManagerID: &f.owner.UserID})
	wantKind(t, "manager of a team", err, fault.BadReference)
	_, _, err = s.CreateKey(ctx, start(), me.TenantID, KeyDraft{UserID: f.owner.UserID, Name: "x"})
	wantKind(t, "owner of a key", err, fault.BadReference)
	if n := must(s.RemoveTags(ctx, start(), me.Actor, mine.TicketID, []string{f.tag.TagID}))(t); n != 0 {
		t.Errorf("removed %d tags", n)
	}
}

func foreignLists(t *testing.T, open opener) {
	s := open(t)
	f := newForeign(t, s)
	me, ctx := f.me, t.Context()
	// Both were bootstrapped with the same rows, so the owner's show up by number.
	all := ResourceQuery{IncludeInactive: true, All: true}
	for name, size := range map[string]func() (int, int, error){
		"tickets": func() (int, int, error) {
			v, n, err := s.Tickets(ctx, me.TenantID, ticket.Query{})
			return len(v) + n, 0, err
		},
		"tickets of a tag": func() (int, int, error) {
			v, n, err := s.Tickets(ctx, me.TenantID, ticket.Query{Tags: []string{"vip"}})
			return len(v) + n, 0, err
		},
		"search": func() (int, int, error) {
			v, err := s.SearchTickets(ctx, me.TenantID, ticket.SearchQuery{Text: "e", IncludeClosed: true})
			return len(v), 0, err
		},
		"stats": func() (int, int, error) {
			v, err := s.TicketStats(ctx, start(), me.TenantID)
			return v.Total + len(v.ByBoard) + len(v.ByStatus), 0, err
		},
		"tags of": func() (int, int, error) {
			v, err := s.TagsOf(ctx, me.TenantID, []string{f.tk.TicketID})
			return len(v), 0, err
		},
		"feed": func() (int, int, error) {
			v, err := s.Events(ctx, me.TenantID, FeedQuery{})
			return len(v.Envelopes), 0, err
		},
		"keys":       func() (int, int, error) { v, err := s.Keys(ctx, me.TenantID); return len(v), 1, err },
		"boards":     func() (int, int, error) { v, _, err := s.Boards(ctx, me.TenantID, all); return len(v), 1, err },
		"statuses":   func() (int, int, error) { v, _, err := s.Statuses(ctx, me.TenantID, all); return len(v), 4, err },
		"priorities": func() (int, int, error) { v, _, err := s.Priorities(ctx, me.TenantID, all); return len(v), 4, err },
		"clients":    func() (int, int, error) { v, _, err := s.Clients(ctx, me.TenantID, all); return len(v), 1, err },
		"contacts":   func() (int, int, error) { v, _, err := s.Contacts(ctx, me.TenantID, all); return len(v), 1, err },
		"locations":  func() (int, int, error) { v, _, err := s.Locations(ctx, me.TenantID, all); return len(v), 0, err },
		"users":      func() (int, int, error) { v, _, err := s.Users(ctx, me.TenantID, all); return len(v), 1, err },
		"teams":      func() (int, int, error) { v, _, err := s.Teams(ctx, me.TenantID, all); return len(v), 1, err },
		"categories": func() (int, int, error) { v, _, err := s.Categories(ctx, me.TenantID, all); return len(v), 2, err },
	} {
		if got, want, err := size(); err != nil || got != want {
			t.Errorf("%s: %d rows (%v), want %d", name, got, err, want)
		}
	}
	of := FeedQuery{TicketID: f.tk.TicketID}
	if page := must(s.Events(ctx, me.TenantID, of))(t); len(page.Envelopes) != 0 {
		t.Errorf("the feed of a foreign ticket has %d events", len(page.Envelopes))
	}
}
