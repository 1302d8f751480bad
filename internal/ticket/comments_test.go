package ticket

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/webhook"
)

const commentID = "6e5d4c3b-2a19-4807-9f6e-5d4c3b2a1901"

func comment(t testing.TB, d CommentDraft, parent *Comment, id string, now time.Time) Comment {
	t.Helper()
	c, err := NewComment(d, parent, ticketID, id, mara(), now)
	if err != nil {
		t.Fatalf("NewComment: %v", err)
	}
	return c
}

func TestNewComment(t *testing.T) {
	t.Parallel()
	got := comment(t, CommentDraft{
		Text: " a & b\nc ", IsInternal: true, IsResolution: true, Metadata: json.RawMessage(`{ "k": 1 }`),
	}, nil, commentID, start)
	want := Comment{
		TenantID: tenantID, CommentID: commentID, TicketID: ticketID, UserID: new(maraID), Note: " a & b\nc ",
		IsInternal: true, IsResolution: true, AuthorType: "internal", Metadata: json.RawMessage(`{"k":1}`),
		ThreadID: commentID, PublishState: "published", CreatedAt: webhook.At(start),
		Text: " a & b\nc ", HTML: "<p> a &amp; b<br>c </p>", CreatedBy: new(maraID), CreatedByName: new("Mara Lindqvist"),
		Reactions: []Reaction{}, ReactionUserNames: map[string]string{},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	b, err := json.Marshal(comment(t, CommentDraft{Text: "x"}, nil, commentID, start))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"metadata":null`, `"reactions":[]`, `"reaction_user_names":{}`, `"updated_at":null`, `"markdown_content":null`} {
		if !strings.Contains(string(b), part) {
			t.Errorf("%s is not in %s", part, b)
		}
	}
}

func TestReplyTakesThreadAndVisibilityOfItsParent(t *testing.T) {
	t.Parallel()
	parent := comment(t, CommentDraft{Text: "x", IsInternal: true}, nil, commentID, start)
	reply := comment(t, CommentDraft{Text: "y", ParentCommentID: new(commentID)}, &parent, "reply", start)
	again := comment(t, CommentDraft{Text: "z", ParentCommentID: new("reply")}, &reply, "again", start)
	if !reply.IsInternal || reply.ThreadID != commentID || *reply.ParentCommentID != commentID {
		t.Errorf("reply: %+v", reply)
	}
	if !again.IsInternal || again.ThreadID != commentID || *again.ParentCommentID != "reply" {
		t.Errorf("reply to the reply: %+v", again)
	}
}

func TestNewCommentRules(t *testing.T) {
	t.Parallel()
	parent := comment(t, CommentDraft{Text: "x"}, nil, commentID, start)
	deleted, elsewhere := parent, parent
	deleted.DeletedAt, elsewhere.TicketID = &deleted.CreatedAt, unknownID
	reply := CommentDraft{Text: "x", ParentCommentID: new(commentID)}
	tests := []struct {
		name    string
		draft   CommentDraft
		parent  *Comment
		kind    fault.Kind
		path    []any
		message string
	}{
		{"no text", CommentDraft{}, nil, fault.Invalid, []any{"comment_text"}, "String must contain at least 1 character(s)"},
		{"blank", CommentDraft{Text: " \n\t "}, nil, fault.Invalid, []any{"comment_text"}, "String must contain at least 1 character(s)"},
		{"5001", CommentDraft{Text: strings.Repeat("ß", 5001)}, nil, fault.Invalid, []any{"comment_text"}, "String must contain at most 5000 character(s)"},
		{"metadata", CommentDraft{Text: "x", Metadata: json.RawMessage(`"m"`)}, nil, fault.Invalid, []any{"metadata"}, "Expected object, received string"},
		{"flags", CommentDraft{Text: "x", Suppress: Suppress{InternalNotifications: true}}, nil, fault.Invalid,
			[]any{"suppressInternalNotifications"}, "suppressInternalNotifications requires suppressContactNotifications"},
		{"unknown parent", reply, nil, fault.NotFound, nil, "Comment not found"},
		{"parent of another ticket", reply, &elsewhere, fault.Invalid, []any{"parent_comment_id"}, "parent_comment_id belongs to another ticket"},
		{"deleted parent", reply, &deleted, fault.Invalid, []any{"parent_comment_id"}, "parent_comment_id names a deleted comment"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := NewComment(tt.draft, tt.parent, ticketID, "new", mara(), start)
			wantFault(t, err, tt.kind, tt.path, tt.message)
		})
	}
	comment(t, CommentDraft{Text: strings.Repeat("ß", MaxComment) + "\n"}, nil, "new", start)
}

func TestEditComment(t *testing.T) {
	t.Parallel()
	c := comment(t, CommentDraft{Text: "one"}, nil, commentID, start)
	c.Markdown = new("one")
	got, err := EditComment(c, "two <", mara(), start.Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if got.Text != "two <" || got.Note != "two <" || got.HTML != "<p>two &lt;</p>" || got.Markdown != nil {
		t.Errorf("got %+v", got)
	}
	if !got.UpdatedAt.After(c.CreatedAt.Time) || !got.CreatedAt.Equal(c.CreatedAt.Time) {
		t.Errorf("created %v, updated %v", got.CreatedAt, got.UpdatedAt)
	}
	if again, err := EditComment(got, "three", mara(), start); err != nil || !again.UpdatedAt.After(got.UpdatedAt.Time) {
		t.Errorf("second edit at %v, error %v", again.UpdatedAt, err)
	}
}

func TestEditCommentRules(t *testing.T) {
	t.Parallel()
	own := comment(t, CommentDraft{Text: "one"}, nil, commentID, start)
	system, deleted, contact := own, own, own
	system.IsSystem, deleted.DeletedAt, contact.UserID = true, &deleted.CreatedAt, nil
	theo := Actor{TenantID: tenantID, UserID: theoID}
	tests := []struct {
		name    string
		comment Comment
		text    string
		actor   Actor
		kind    fault.Kind
		path    []any
		message string
	}{
		{"another's", own, "two", theo, fault.Invalid, nil, "You can only edit your own comments"},
		{"a contact's", contact, "two", mara(), fault.Invalid, nil, "You can only edit your own comments"},
		{"system", system, "two", mara(), fault.Invalid, nil, "System comments cannot be edited"},
		{"deleted", deleted, "two", mara(), fault.NotFound, nil, "Comment not found"},
		{"no text", own, " ", mara(), fault.Invalid, []any{"comment_text"}, "String must contain at least 1 character(s)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := EditComment(tt.comment, tt.text, tt.actor, start)
			wantFault(t, err, tt.kind, tt.path, tt.message)
			if diff := cmp.Diff(tt.comment, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCommentAddedHidesAnUnknownAuthorType(t *testing.T) {
	t.Parallel()
	tk := Touch(create(t, newWorld(), draft()), mara(), start.Add(time.Second))
	c := comment(t, CommentDraft{Text: "x"}, nil, commentID, tk.UpdatedAt.Time)
	c.AuthorType, c.CreatedByName, c.IsInternal = AuthorUnknown, nil, true
	e := CommentAdded(&tk, c, Suppress{ContactNotifications: true, InternalNotifications: true}, counter(), publicURL)
	want := `{"text":"x","author":null,"timestamp":"2026-03-09T08:14:03.117Z","is_internal":true,"author_type":null}`
	if got := encodeCompact(t, e.Data.Comment); got != want {
		t.Errorf("comment %s, want %s", got, want)
	}
	if !e.Data.SuppressContactNotifications || !e.Data.SuppressInternalNotifications {
		t.Error("the suppression flags are lost")
	}
	if e.EventID == "" || e.TenantID != tenantID || e.TicketID != ticketID {
		t.Errorf("event %q of ticket %q, tenant %q", e.EventID, e.TicketID, e.TenantID)
	}
	if !e.OccurredAt.Equal(tk.UpdatedAt.Time) || !tk.LastOccurredAt.Equal(e.OccurredAt.Time) {
		t.Errorf("occurred at %v, ticket at %v, last %v", e.OccurredAt, tk.UpdatedAt, tk.LastOccurredAt)
	}
}

func TestThread(t *testing.T) {
	t.Parallel()
	a := comment(t, CommentDraft{Text: "a"}, nil, "1", start.Add(time.Second))
	b := comment(t, CommentDraft{Text: "b"}, nil, "2", start.Add(time.Second))
	first := comment(t, CommentDraft{Text: "first", IsInternal: true, IsResolution: true}, nil, "3", start)
	gone := comment(t, CommentDraft{Text: "gone"}, nil, "4", start)
	gone.DeletedAt, b.Markdown = &gone.CreatedAt, new("**b**")
	in := []Comment{a, gone, b, first}
	var d webhook.TicketData
	AddThread(&d, in)
	var got []string
	for _, m := range *d.Comments {
		got = append(got, fmt.Sprint(m.CommentID, " ", m.Text, " ", m.IsInternal, m.IsResolution))
	}
	if diff := cmp.Diff([]string{"3 first true true", "1 a false false", "2 **b** false false"}, got); diff != "" || d.CommentsTruncated {
		t.Error(diff, d.CommentsTruncated)
	}
	if in[0].CommentID != "1" {
		t.Error("the caller's list was sorted")
	}
	d.CommentsTruncated = true
	AddThread(&d, nil)
	if got := encodeCompact(t, *d.Comments); got != "[]" || d.CommentsTruncated {
		t.Errorf("no comments: %s, truncated %v", got, d.CommentsTruncated)
	}
}

// A receiver that takes no more than a megabyte gets every event of a long thread.
func TestLongThread(t *testing.T) {
	t.Parallel()
	long := func(n, size int) []Comment {
		list := make([]Comment, n)
		for i := range list {
			list[i] = comment(t, CommentDraft{Text: strings.Repeat("x", size)}, nil, fmt.Sprintf("%06d", i), start.Add(time.Duration(i)*time.Second))
		}
		return list
	}
	for _, tt := range []struct {
		comments     []Comment
		first, count int
	}{
		{long(MaxThread, 1), 0, MaxThread},
		{long(MaxThread+1, 1), 1, MaxThread},
		{long(64, 4096), 0, 64},
		{long(65, 4096), 1, 64},
		{append(long(5, 1), Comment{CommentID: "900000", Note: strings.Repeat("\n", maxThreadText+1), CreatedAt: webhook.At(start.Add(time.Hour))}), 900000, 1},
	} {
		var d webhook.TicketData
		AddThread(&d, tt.comments)
		if got := *d.Comments; len(got) != tt.count || got[0].CommentID != fmt.Sprintf("%06d", tt.first) {
			t.Errorf("%d comments from %s, want %d from %d", len(got), got[0].CommentID, tt.count, tt.first)
		}
		if left := tt.first > 0; d.CommentsTruncated != left {
			t.Errorf("from %d of %d: truncated %t", tt.first, len(tt.comments), d.CommentsTruncated)
		}
	}
}
