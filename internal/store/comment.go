package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// noComment is the message for a comment that the ticket does not have.
const noComment = "Comment not found"

// CommentQuery asks for a ticket's comments (contract section 2.6).
type CommentQuery struct {
	Limit  int // 0 means all
	Offset int
	Desc   bool // newest first
}

const commentColumns = `select c.tenant_id, c.comment_id, c.ticket_id, c.user_id, c.contact_id, c.note, c.is_internal,
	c.is_resolution, c.is_system, c.author_type, c.metadata, c.thread_id, c.parent_comment_id, c.created_at, c.updated_at,
	c.deleted_at, coalesce(u.first_name, ''), coalesce(u.last_name, ''), n.full_name, n.email
	from comments c
	left join users u on u.tenant_id = c.tenant_id and u.user_id = c.user_id
	left join contacts n on n.tenant_id = c.tenant_id and n.contact_name_id = c.contact_id `

func scanComment(row scanner) (ticket.Comment, error) {
	var c ticket.Comment
	var author ticket.User
	var metadata sql.NullString
	var created int64
	var updated, deleted sql.NullInt64
	err := row.Scan(&c.TenantID, &c.CommentID, &c.TicketID, &c.UserID, &c.ContactID, &c.Note, &c.IsInternal,
		&c.IsResolution, &c.IsSystem, &c.AuthorType, &metadata, &c.ThreadID, &c.ParentCommentID, &created, &updated,
		&deleted, &author.FirstName, &author.LastName, &c.AuthorContactName, &c.AuthorContactEmail)
	if err != nil {
		return ticket.Comment{}, err
	}
	if metadata.Valid {
		c.Metadata = json.RawMessage(metadata.String)
	}
	c.CreatedAt, c.UpdatedAt, c.DeletedAt = wireTime(created), wireTimePtr(updated), wireTimePtr(deleted)
	c.PublishState = "published"
	c.Text, c.HTML = c.Note, ticket.RenderHTML(c.Note)
	c.CreatedBy, c.CreatedByName, c.AuthorContactID = c.UserID, author.DisplayName(), c.ContactID
	c.Reactions, c.ReactionUserNames = []ticket.Reaction{}, map[string]string{}
	return c, nil
}

// Comments returns a ticket's comments with their authors and reactions.
func (s *Store) Comments(ctx context.Context, tenant, id string, q CommentQuery) ([]ticket.Comment, error) {
	r := s.reader(ctx)
	id = lowerID(id)
	if err := haveTicket(r, tenant, id); err != nil {
		return nil, err
	}
	limit := q.Limit
	if limit < 1 {
		limit = 1<<31 - 1
	}
	text := commentColumns + `where c.tenant_id = $1 and c.ticket_id = $2
		order by c.created_at, c.comment_id limit $3 offset $4`
	if q.Desc {
		text = commentColumns + `where c.tenant_id = $1 and c.ticket_id = $2
			order by c.created_at desc, c.comment_id desc limit $3 offset $4`
	}
	rows, err := r.query(text, tenant, id, limit, max(q.Offset, 0))
	comments, err := collect(rows, err, scanComment)
	if err != nil {
		return nil, err
	}
	return comments, addReactions(r, tenant, id, comments)
}

// haveTicket refuses to list what belongs to a ticket that does not exist.
func haveTicket(q querier, tenant, id string) error {
	var one int
	return found(q.row(`select 1 from tickets where tenant_id = $1 and ticket_id = $2`, tenant, id).Scan(&one), noTicketOwner)
}

// addReactions fills in the reactions of a ticket's comments, oldest first.
func addReactions(q querier, tenant, ticketID string, comments []ticket.Comment) error {
	rows, err := q.query(`
		select r.comment_id, r.emoji, r.user_id, coalesce(u.first_name, ''), coalesce(u.last_name, '')
		from comment_reactions r
		left join users u on u.tenant_id = r.tenant_id and u.user_id = r.user_id
		where r.tenant_id = $1 and r.comment_id in (select comment_id from comments where tenant_id = $1 and ticket_id = $2)
		order by r.created_at, r.emoji, r.user_id`, tenant, ticketID)
	if err != nil {
		return err
	}
	defer rows.Close()
	byID := make(map[string]*ticket.Comment, len(comments))
	for i := range comments {
		byID[comments[i].CommentID] = &comments[i]
	}
	for rows.Next() {
		var commentID, emoji string
		var u ticket.User
		if err := rows.Scan(&commentID, &emoji, &u.UserID, &u.FirstName, &u.LastName); err != nil {
			return err
		}
		if c := byID[commentID]; c != nil { // not on this page otherwise
			react(c, emoji, &u)
		}
	}
	return rows.Err()
}

func react(c *ticket.Comment, emoji string, u *ticket.User) {
	i := slices.IndexFunc(c.Reactions, func(r ticket.Reaction) bool { return r.Emoji == emoji })
	if i < 0 {
		c.Reactions = append(c.Reactions, ticket.Reaction{Emoji: emoji})
		i = len(c.Reactions) - 1
	}
	c.Reactions[i].Count++
	c.Reactions[i].UserIDs = append(c.Reactions[i].UserIDs, u.UserID)
	if name := u.DisplayName(); name != nil {
		c.ReactionUserNames[u.UserID] = *name
	}
}

// AddComment adds a comment, moves the ticket's updated_at and fires
// ticket.comment.added. Errors are those of ticket.NewComment.
func (s *Store) AddComment(ctx context.Context, now time.Time, a ticket.Actor, id string, d ticket.CommentDraft) (ticket.Comment, error) {
	return write(ctx, s, func(t *tx) (ticket.Comment, error) {
		old, err := t.ticket(a.TenantID, id, noTicketOwner)
		if err != nil {
			return ticket.Comment{}, err
		}
		var parent *ticket.Comment
		if d.ParentCommentID != nil {
			if err := lookup(&parent, t, anyComment, a.TenantID, *d.ParentCommentID); err != nil {
				return ticket.Comment{}, err
			}
		}
		next := ticket.Touch(old, a, now)
		c, err := ticket.NewComment(d, parent, next.TicketID, NewID(), a, next.UpdatedAt.Time)
		if err != nil {
			return ticket.Comment{}, err
		}
		event := ticket.CommentAdded(&next, c, d.Suppress, NewID, t.w.s.cfg.PublicURL)
		if err := t.insertComment(&c); err != nil {
			return ticket.Comment{}, err
		}
		last, err := t.publish(now, []ticket.Event{event})
		if err != nil {
			return ticket.Comment{}, err
		}
		return c, t.saveTicket(&old, &next, last)
	})
}

func (t *tx) insertComment(c *ticket.Comment) error {
	var metadata any
	if len(c.Metadata) > 0 {
		metadata = string(c.Metadata)
	}
	return t.change("insert into comments", `
		insert into comments (tenant_id, ticket_id, comment_id, user_id, contact_id, note, is_internal, is_resolution,
			is_system, author_type, metadata, thread_id, parent_comment_id, created_at)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`,
		c.TenantID, c.TicketID, c.CommentID, c.UserID, c.ContactID, c.Note, c.IsInternal, c.IsResolution,
		c.IsSystem, c.AuthorType, metadata, c.ThreadID, c.ParentCommentID, c.CreatedAt.UnixMicro())
}

// anyComment finds a comment on whichever ticket of the tenant it is: that a
// reply may not cross tickets is a rule of its own.
func anyComment(q querier, tenant, id string) (ticket.Comment, error) {
	c, err := scanComment(q.row(commentColumns+`where c.tenant_id = $1 and c.comment_id = $2`, tenant, lowerID(id)))
	return c, found(err, noComment)
}

// commentOf finds a comment of one ticket that is not deleted.
func commentOf(q querier, tenant, ticketID, id string) (ticket.Comment, error) {
	c, err := scanComment(q.row(commentColumns+`where c.tenant_id = $1 and c.ticket_id = $2 and c.comment_id = $3`,
		tenant, lowerID(ticketID), lowerID(id)))
	if err == nil && c.DeletedAt != nil {
		err = sql.ErrNoRows
	}
	return c, found(err, noComment)
}

// EditComment replaces the text of the actor's own comment. The ticket's
// updated_at stays and no event fires (contract section 2.6).
func (s *Store) EditComment(ctx context.Context, now time.Time, a ticket.Actor, id, commentID, text string) (ticket.Comment, error) {
	return write(ctx, s, func(t *tx) (ticket.Comment, error) {
		old, err := commentOf(t, a.TenantID, id, commentID)
		if err != nil {
			return ticket.Comment{}, err
		}
		next, err := ticket.EditComment(old, text, a, now)
		if err != nil {
			return ticket.Comment{}, err
		}
		if err := t.change("update comments", `
			update comments set note = $1, updated_at = $2 where tenant_id = $3 and ticket_id = $4 and comment_id = $5`,
			next.Note, wireMicros(next.UpdatedAt), next.TenantID, next.TicketID, next.CommentID); err != nil {
			return ticket.Comment{}, err
		}
		one := []ticket.Comment{next}
		err = addReactions(t, next.TenantID, next.TicketID, one)
		return one[0], err
	})
}

// ToggleReaction adds the actor's reaction to a comment, or takes it back, and
// reports whether it is there now. It touches nothing else.
func (s *Store) ToggleReaction(ctx context.Context, now time.Time, a ticket.Actor, id, commentID, emoji string) (bool, error) {
	if emoji == "" {
		return false, fault.Field("emoji", "Required")
	}
	return write(ctx, s, func(t *tx) (bool, error) {
		c, err := commentOf(t, a.TenantID, id, commentID)
		if err != nil {
			return false, err
		}
		n, err := t.exec(`delete from comment_reactions
			where tenant_id = $1 and comment_id = $2 and user_id = $3 and emoji = $4`, a.TenantID, c.CommentID, a.UserID, emoji)
		if err != nil || n > 0 {
			return false, err
		}
		err = t.change("insert into comment_reactions",
			`insert into comment_reactions (tenant_id, comment_id, user_id, emoji, created_at)
			values ($1, $2, $3, $4, $5)`, a.TenantID, c.CommentID, a.UserID, emoji, micros(now))
		return err == nil, err
	})
}

// hasResolution reports whether a ticket has a resolution comment.
func (t *tx) hasResolution(tenant, ticketID string) (bool, error) {
	var one int
	err := t.row(`select 1 from comments
		where tenant_id = $1 and ticket_id = $2 and is_resolution and deleted_at is null limit 1`, tenant, ticketID).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// thread reads what the comments key of a ticket's payload is made of.
func (t *tx) thread(tenant, ticketID string) ([]ticket.Comment, error) {
	rows, err := t.query(commentColumns+`where c.tenant_id = $1 and c.ticket_id = $2 and c.deleted_at is null
		order by c.created_at desc, c.comment_id desc limit $3`, tenant, ticketID, ticket.MaxThread+1)
	comments, err := collect(rows, err, scanComment)
	if err != nil {
		return nil, fmt.Errorf("comments of ticket %s: %w", ticketID, err)
	}
	return comments, nil
}
