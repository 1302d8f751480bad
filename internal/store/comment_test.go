package store

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/ticket"
	"github.com/ticketwire/ticketwire/webhook"
)

func TestComments(t *testing.T) {
	t.Parallel()
	exercise(t, map[string]func(*testing.T, opener){
		"add moves the ticket and fires":     addComment,
		"list pages and orders":              listComments,
		"replies stay in their thread":       replies,
		"edit touches nothing but the text":  editComment,
		"reactions toggle":                   reactions,
		"threads travel only when asked for": threads,
	})
}

func (d *desk) comment(now time.Time, id string, draft ticket.CommentDraft) ticket.Comment {
	d.t.Helper()
	return must(d.AddComment(d.t.Context(), now, d.Actor, id, draft))(d.t)
}

func addComment(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	tk := d.create(start(), d.draft("talk"))
	c := d.comment(start(), tk.TicketID, ticket.CommentDraft{
		Text: "Is it <on>?", IsInternal: true, Metadata: json.RawMessage(`{"via": "mail"}`),
		Suppress: ticket.Suppress{ContactNotifications: true},
	})
	next := must(d.Ticket(t.Context(), d.TenantID, tk.TicketID))(t)
	if !next.UpdatedAt.After(tk.UpdatedAt.Time) || !next.UpdatedAt.Equal(c.CreatedAt.Time) {
		t.Errorf("updated_at is %v after %v, the comment is from %v", next.UpdatedAt, tk.UpdatedAt, c.CreatedAt)
	}
	list := must(d.Comments(t.Context(), d.TenantID, tk.TicketID, CommentQuery{}))(t)
	if diff := cmp.Diff([]ticket.Comment{c}, list); diff != "" {
		t.Errorf("added and listed differ (-added +listed):\n%s", diff)
	}
	feed := d.envelopes()
	if len(feed) != 2 || feed[1].EventType != webhook.TicketCommentAdded {
		t.Fatalf("events are %q", types(feed))
	}
	data := must(feed[1].Ticket())(t)
	want := &webhook.Comment{
		Text: "Is it <on>?", Author: new("Ada Lovelace"), Timestamp: c.CreatedAt, IsInternal: true, AuthorType: new("internal"),
	}
	if diff := cmp.Diff(want, data.Comment); diff != "" {
		t.Errorf("comment of the event (-want +got):\n%s", diff)
	}
	if !data.UpdatedAt.Equal(next.UpdatedAt.Time) || !data.SuppressContactNotifications || data.Comments != nil {
		t.Errorf("event data is %+v", data)
	}
	_, err := d.AddComment(t.Context(), start(), d.Actor, tk.TicketID, ticket.CommentDraft{Text: " \n"})
	wantKind(t, "an empty comment", err, fault.Invalid)
	_, err = d.AddComment(t.Context(), start(), d.Actor, NewID(), ticket.CommentDraft{Text: "x"})
	wantKind(t, "a comment on nothing", err, fault.NotFound)
}

func listComments(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	tk := d.create(start(), d.draft("talk"))
	for _, text := range []string{"a", "b", "c", "d"} {
		d.comment(start(), tk.TicketID, ticket.CommentDraft{Text: text})
	}
	for _, c := range []struct {
		q    CommentQuery
		want string
	}{
		{CommentQuery{}, "abcd"},
		{CommentQuery{Desc: true}, "dcba"},
		{CommentQuery{Limit: 2}, "ab"},
		{CommentQuery{Limit: 2, Offset: 3}, "d"},
		{CommentQuery{Limit: 2, Offset: 1, Desc: true}, "cb"},
		{CommentQuery{Offset: 9}, ""},
	} {
		var got strings.Builder
		for _, comment := range must(d.Comments(t.Context(), d.TenantID, tk.TicketID, c.q))(t) {
			got.WriteString(comment.Text)
		}
		if got.String() != c.want {
			t.Errorf("%+v: got %q, want %q", c.q, got.String(), c.want)
		}
	}
	_, err := d.Comments(t.Context(), d.TenantID, NewID(), CommentQuery{})
	wantKind(t, "comments of nothing", err, fault.NotFound)
}

func replies(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	tk, other := d.create(start(), d.draft("talk")), d.create(start(), d.draft("other"))
	first := d.comment(start(), tk.TicketID, ticket.CommentDraft{Text: "secret", IsInternal: true})
	reply := d.comment(start(), tk.TicketID, ticket.CommentDraft{
		Text: "me too", ParentCommentID: new(strings.ToUpper(first.CommentID)),
	})
	if reply.ThreadID != first.CommentID || !reply.IsInternal || *reply.ParentCommentID != first.CommentID {
		t.Errorf("reply is %+v", reply)
	}
	_, err := d.AddComment(t.Context(), start(), d.Actor, other.TicketID,
		ticket.CommentDraft{Text: "x", ParentCommentID: &first.CommentID})
	wantKind(t, "a reply across tickets", err, fault.Invalid)
	_, err = d.AddComment(t.Context(), start(), d.Actor, tk.TicketID,
		ticket.CommentDraft{Text: "x", ParentCommentID: new(NewID())})
	wantKind(t, "a reply to nothing", err, fault.NotFound)
}

func editComment(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	tk := d.create(start(), d.draft("talk"))
	c := d.comment(start(), tk.TicketID, ticket.CommentDraft{Text: "tpyo"})
	must(d.ToggleReaction(t.Context(), start(), d.Actor, tk.TicketID, c.CommentID, "+1"))(t)
	before, events := must(d.Ticket(t.Context(), d.TenantID, tk.TicketID))(t), len(d.envelopes())
	next := must(d.EditComment(t.Context(), start().Add(time.Hour), d.Actor, tk.TicketID, c.CommentID, "typo"))(t)
	list := must(d.Comments(t.Context(), d.TenantID, tk.TicketID, CommentQuery{}))(t)
	if diff := cmp.Diff([]ticket.Comment{next}, list); diff != "" {
		t.Errorf("edited and listed differ (-edited +listed):\n%s", diff)
	}
	if next.Text != "typo" || next.UpdatedAt == nil || len(next.Reactions) != 1 {
		t.Errorf("edited: %+v", next)
	}
	if diff := cmp.Diff(before, must(d.Ticket(t.Context(), d.TenantID, tk.TicketID))(t)); diff != "" {
		t.Errorf("editing changed the ticket:\n%s", diff)
	}
	if n := len(d.envelopes()); n != events {
		t.Errorf("editing fired %d events", n-events)
	}
	other := must(d.AddUser(t.Context(), start(), d.TenantID, ticket.User{FirstName: "Bo", Email: "bo@desk.example"}))(t)
	_, err := d.EditComment(t.Context(), start(), ticket.Actor{TenantID: d.TenantID, UserID: other.UserID},
		tk.TicketID, c.CommentID, "mine")
	wantKind(t, "editing another's comment", err, fault.Invalid)
	_, err = d.EditComment(t.Context(), start(), d.Actor, NewID(), c.CommentID, "x")
	wantKind(t, "editing on another ticket", err, fault.NotFound)
}

func reactions(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	tk := d.create(start(), d.draft("talk"))
	c, bare := d.comment(start(), tk.TicketID, ticket.CommentDraft{Text: "a"}), d.comment(start(), tk.TicketID, ticket.CommentDraft{Text: "b"})
	other := must(d.AddUser(t.Context(), start(), d.TenantID, ticket.User{FirstName: "Bo", Email: "bo@desk.example"}))(t)
	second := ticket.Actor{TenantID: d.TenantID, UserID: other.UserID}
	for i, step := range []struct {
		by    ticket.Actor
		emoji string
		added bool
	}{{d.Actor, "🎉", true}, {second, "🎉", true}, {d.Actor, "+1", true}, {d.Actor, "+1", false}} {
		got := must(d.ToggleReaction(t.Context(), start().Add(time.Duration(i)*time.Second), step.by, tk.TicketID, c.CommentID, step.emoji))(t)
		if got != step.added {
			t.Errorf("step %d: added is %v", i, got)
		}
	}
	list := must(d.Comments(t.Context(), d.TenantID, tk.TicketID, CommentQuery{}))(t)
	want := []ticket.Reaction{{Emoji: "🎉", Count: 2, UserIDs: []string{d.UserID, other.UserID}}}
	if diff := cmp.Diff(want, list[0].Reactions); diff != "" {
		t.Errorf("reactions (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{d.UserID: "Ada Lovelace", other.UserID: "Bo"}, list[0].ReactionUserNames); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	if list[1].CommentID != bare.CommentID || len(list[1].Reactions) != 0 {
		t.Errorf("the other comment has %+v", list[1].Reactions)
	}
	_, err := d.ToggleReaction(t.Context(), start(), d.Actor, tk.TicketID, NewID(), "+1")
	wantKind(t, "a reaction to nothing", err, fault.NotFound)
	_, err = d.ToggleReaction(t.Context(), start(), d.Actor, tk.TicketID, c.CommentID, "")
	wantKind(t, "an empty reaction", err, fault.Invalid)
}

func threads(t *testing.T, open opener) {
	for _, on := range []bool{false, true} {
		d := newDesk(t, open(t, func(c *Config) { c.Threads = on }), "acme")
		tk := d.create(start(), d.draft("talk"))
		d.comment(start(), tk.TicketID, ticket.CommentDraft{Text: "a"})
		d.comment(start(), tk.TicketID, ticket.CommentDraft{Text: "b", IsInternal: true})
		d.update(start(), tk.TicketID, ticket.Patch{Title: ticket.Some("b"), AssignedTo: ticket.Some(&d.UserID)})
		var sizes []int
		for _, e := range d.envelopes() {
			data := must(e.Ticket())(t)
			if (data.Comments != nil) != on {
				t.Errorf("threads %v: %s has comments %v", on, e.EventType, data.Comments)
			}
			if data.Comments != nil {
				sizes = append(sizes, len(*data.Comments))
			}
		}
		if want := []int{0, 1, 2, 2, 2}; on && !slices.Equal(sizes, want) {
			t.Errorf("threads have %v comments, want %v", sizes, want)
		}
	}
}
