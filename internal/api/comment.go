package api

import (
	"context"
	"math"
	"net/http"

	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/ticket"
	"github.com/ticketwire/ticketwire/webhook"
)

// maxEmoji is the longest reaction, in characters. The longest emoji there are,
// flags of regions and families, are sequences of about ten.
const maxEmoji = 32

// commentRoutes are the routes of contract section 2.6. Comments are part of a
// ticket, so they need its permissions and have none of their own.
func (s *Server) commentRoutes() []route {
	return []route{
		{http.MethodGet, "/tickets/{id}/comments", "ticket", "read", (*call).listComments},
		{http.MethodPost, "/tickets/{id}/comments", "ticket", "update", (*call).addComment},
		{http.MethodPut, "/tickets/{id}/comments/{commentId}", "ticket", "update", (*call).editComment},
		{http.MethodPost, "/tickets/{id}/comments/{commentId}/reactions", "ticket", "update", (*call).toggleReaction},
	}
}

// markdownComment is a comment with content_format=markdown.
type markdownComment struct {
	CommentID         string        `json:"comment_id"`
	TicketID          string        `json:"ticket_id"`
	Markdown          *string       `json:"markdown_content"`
	AuthorType        string        `json:"author_type"`
	IsInternal        bool          `json:"is_internal"`
	IsResolution      bool          `json:"is_resolution"`
	CreatedAt         webhook.Time  `json:"created_at"`
	UpdatedAt         *webhook.Time `json:"updated_at"`
	CreatedBy         *string       `json:"created_by"`
	CreatedByName     *string       `json:"created_by_name"`
	AuthorContactID   *string       `json:"author_contact_id"`
	AuthorContactName *string       `json:"author_contact_name"`
	ThreadID          string        `json:"thread_id"`
	ParentCommentID   *string       `json:"parent_comment_id"`
	DeletedAt         *webhook.Time `json:"deleted_at"`
}

func viewMarkdown(list []ticket.Comment) []markdownComment {
	out := make([]markdownComment, len(list))
	for i := range list {
		c := &list[i]
		out[i] = markdownComment{
			CommentID: c.CommentID, TicketID: c.TicketID, Markdown: c.Markdown, AuthorType: c.AuthorType,
			IsInternal: c.IsInternal, IsResolution: c.IsResolution, CreatedAt: c.CreatedAt, UpdatedAt: c.UpdatedAt,
			CreatedBy: c.CreatedBy, CreatedByName: c.CreatedByName, AuthorContactID: c.AuthorContactID,
			AuthorContactName: c.AuthorContactName, ThreadID: c.ThreadID, ParentCommentID: c.ParentCommentID,
			DeletedAt: c.DeletedAt,
		}
	}
	return out
}

func (c *call) listComments() (answer, error) {
	id, err := c.id("id", "ticket")
	if err != nil {
		return answer{}, err
	}
	p := c.params()
	q := store.CommentQuery{
		Limit:  p.integer("limit", 0, 1, 200), // without one, all
		Offset: p.integer("offset", 0, 0, math.MaxInt32),
		Desc:   p.oneOf("order", "asc", []string{"asc", "desc"}) == "desc",
	}
	format := p.oneOf("content_format", "full", []string{"full", "markdown"})
	if err := p.err(); err != nil {
		return answer{}, err
	}
	list, err := c.store().Comments(c.ctx, c.tenant(), id, q)
	if err != nil {
		return answer{}, err
	}
	if format == "markdown" {
		return ok(viewMarkdown(list)), nil
	}
	return ok(list), nil
}

func (c *call) addComment() (answer, error) {
	id, err := c.id("id", "ticket")
	if err != nil {
		return answer{}, err
	}
	o, err := c.object()
	if err != nil {
		return answer{}, err
	}
	o.number("time_spent", 0, math.MaxFloat64) // known and without effect, as in the contract
	d := ticket.CommentDraft{
		Text:            o.needText("comment_text", 0, 0), // visible characters count, see ticket.NewComment
		IsInternal:      o.flag("is_internal"),
		IsResolution:    o.flag("is_resolution"),
		Metadata:        o.raw("metadata"),
		ParentCommentID: o.uuid("parent_comment_id"),
		Suppress:        o.suppress(),
	}
	if err := o.err(); err != nil {
		return answer{}, err
	}
	return change(c, func(ctx context.Context) (ticket.Comment, error) {
		return c.store().AddComment(ctx, c.now, c.who.Actor(), id, d)
	}, func(m ticket.Comment) answer { return created(m) })
}

func (c *call) editComment() (answer, error) {
	id, comment, err := c.commentIDs()
	if err != nil {
		return answer{}, err
	}
	o, err := c.object()
	if err != nil {
		return answer{}, err
	}
	text := o.needText("comment_text", 0, 0)
	if err := o.err(); err != nil {
		return answer{}, err
	}
	return change(c, func(ctx context.Context) (ticket.Comment, error) {
		return c.store().EditComment(ctx, c.now, c.who.Actor(), id, comment, text)
	}, func(m ticket.Comment) answer { return ok(m) })
}

// toggleReaction adds the caller's reaction, or takes it back when it is there.
func (c *call) toggleReaction() (answer, error) {
	id, comment, err := c.commentIDs()
	if err != nil {
		return answer{}, err
	}
	o, err := c.object()
	if err != nil {
		return answer{}, err
	}
	emoji := o.needText("emoji", 1, maxEmoji)
	if err := o.err(); err != nil {
		return answer{}, err
	}
	return change(c, func(ctx context.Context) (bool, error) {
		return c.store().ToggleReaction(ctx, c.now, c.who.Actor(), id, comment, emoji)
	}, func(added bool) answer { return ok(map[string]bool{"added": added}) })
}

func (c *call) commentIDs() (ticketID, commentID string, err error) {
	if ticketID, err = c.id("id", "ticket"); err != nil {
		return "", "", err
	}
	commentID, err = c.id("commentId", "comment")
	return ticketID, commentID, err
}
