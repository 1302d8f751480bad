package ticket

import (
	"encoding/json"

	"github.com/ticketwire/ticketwire/webhook"
)

// Comment is one comment of a ticket with its author resolved, in the "full"
// form of contract section 2.6.
type Comment struct {
	TenantID        string          `json:"tenant"`
	CommentID       string          `json:"comment_id"`
	TicketID        string          `json:"ticket_id"`
	UserID          *string         `json:"user_id"`
	ContactID       *string         `json:"contact_id"`
	Note            string          `json:"note"` // the text as it was sent
	Markdown        *string         `json:"markdown_content"`
	IsInternal      bool            `json:"is_internal"`
	IsResolution    bool            `json:"is_resolution"`
	IsSystem        bool            `json:"is_system_generated"`
	AuthorType      string          `json:"author_type"` // "internal", "client" or "unknown"
	Metadata        json.RawMessage `json:"metadata"`
	ThreadID        string          `json:"thread_id"` // the comment_id of the thread's first comment
	ParentCommentID *string         `json:"parent_comment_id"`
	DeletedAt       *webhook.Time   `json:"deleted_at"`
	PublishState    string          `json:"publish_state"` // "published"
	ScheduledAt     *webhook.Time   `json:"scheduled_publish_at"`
	CreatedAt       webhook.Time    `json:"created_at"`
	UpdatedAt       *webhook.Time   `json:"updated_at"` // null until edited

	Text               string            `json:"comment_text"`
	HTML               string            `json:"comment_html"`
	CreatedBy          *string           `json:"created_by"`
	CreatedByName      *string           `json:"created_by_name"`
	CreatedByAvatarURL *string           `json:"created_by_avatar_url"`
	AuthorContactID    *string           `json:"author_contact_id"`
	AuthorContactName  *string           `json:"author_contact_name"`
	AuthorContactEmail *string           `json:"author_contact_email"`
	Reactions          []Reaction        `json:"reactions"`           // never nil
	ReactionUserNames  map[string]string `json:"reaction_user_names"` // user id to name; never nil
}

// Reaction is one emoji on a comment and who chose it.
type Reaction struct {
	Emoji   string   `json:"emoji"`
	Count   int      `json:"count"`
	UserIDs []string `json:"user_ids"`
}

// CommentDraft is the body of POST /tickets/{id}/comments.
type CommentDraft struct {
	Text            string
	IsInternal      bool
	IsResolution    bool
	Metadata        json.RawMessage
	ParentCommentID *string
	Suppress
}
