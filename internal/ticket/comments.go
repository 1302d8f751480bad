package ticket

import (
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/webhook"
)

// The author types of a comment. AlgaPSA keeps AuthorUnknown for comments that
// came over its API; here the key's owner is known to be internal.
const (
	AuthorInternal = "internal"
	AuthorClient   = "client"
	AuthorUnknown  = "unknown" // null in events (contract D8)
)

// NewComment makes the comment that a draft asks for on one ticket (contract
// section 2.6). parent is the row of d.ParentCommentID, nil if there is none; a
// reply takes its thread and visibility from it. now is the new UpdatedAt of the
// ticket (see Touch), so that both show the same time.
//
// Errors: Invalid for the text, the metadata, the suppression flags, a parent of
// another ticket or a deleted one; NotFound for a parent that does not exist.
func NewComment(d CommentDraft, parent *Comment, ticketID, commentID string, actor Actor, now time.Time) (Comment, error) {
	var issues []fault.Issue
	if issue, bad := commentTextIssue(d.Text); bad {
		issues = append(issues, issue)
	}
	metadata, issue, bad := object(d.Metadata, "metadata")
	if bad {
		issues = append(issues, issue)
	}
	if issue, bad := d.Suppress.issue(); bad {
		issues = append(issues, issue)
	}
	if len(issues) > 0 {
		return Comment{}, invalid(issues)
	}
	c := Comment{
		TenantID:          actor.TenantID,
		CommentID:         commentID,
		TicketID:          ticketID,
		UserID:            &actor.UserID,
		Note:              d.Text,
		IsInternal:        d.IsInternal,
		IsResolution:      d.IsResolution,
		AuthorType:        AuthorInternal,
		Metadata:          metadata,
		ThreadID:          commentID,
		PublishState:      "published",
		CreatedAt:         webhook.At(now),
		Text:              d.Text,
		HTML:              RenderHTML(d.Text),
		CreatedBy:         &actor.UserID,
		CreatedByName:     actor.Name,
		Reactions:         []Reaction{},
		ReactionUserNames: map[string]string{},
	}
	if d.ParentCommentID == nil {
		return c, nil
	}
	switch {
	case parent == nil:
		return Comment{}, fault.New(fault.NotFound, "Comment not found")
	case !sameID(parent.TicketID, ticketID):
		return Comment{}, fault.Field("parent_comment_id", "parent_comment_id belongs to another ticket")
	case parent.DeletedAt != nil:
		return Comment{}, fault.Field("parent_comment_id", "parent_comment_id names a deleted comment")
	}
	c.ParentCommentID, c.ThreadID, c.IsInternal = &parent.CommentID, parent.ThreadID, parent.IsInternal
	return c, nil
}

// EditComment returns c with another text. It neither touches the ticket nor
// brings an event (contract section 2.6).
//
// Errors: Invalid for the text, for a system comment and for an actor who is not
// the author; NotFound for a deleted comment.
func EditComment(c Comment, text string, actor Actor, now time.Time) (Comment, error) {
	switch {
	case c.DeletedAt != nil:
		return c, fault.New(fault.NotFound, "Comment not found")
	case c.IsSystem:
		return c, fault.New(fault.Invalid, "System comments cannot be edited")
	case c.UserID == nil || !sameID(*c.UserID, actor.UserID):
		return c, fault.New(fault.Invalid, "You can only edit your own comments")
	}
	if issue, bad := commentTextIssue(text); bad {
		return c, invalid([]fault.Issue{issue})
	}
	last := c.CreatedAt
	if c.UpdatedAt != nil {
		last = *c.UpdatedAt
	}
	at := webhook.At(Instant(last.Time, now))
	c.Note, c.Text, c.HTML, c.UpdatedAt = text, text, RenderHTML(text), &at
	c.Markdown = nil // it was made from the old text, and payloads prefer it
	return c, nil
}

// commentTextIssue counts what a reader sees: outer white space is kept, but does
// not count.
func commentTextIssue(text string) (issue fault.Issue, bad bool) {
	return textIssue(strings.TrimSpace(text), MaxComment, "comment_text")
}

// author is the name that events show: the user's, else the contact's.
func (c *Comment) author() *string {
	if c.CreatedByName != nil {
		return c.CreatedByName
	}
	return c.AuthorContactName
}
