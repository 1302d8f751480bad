package store

import (
	"context"
	"slices"
	"time"

	"github.com/ticketwire/ticketwire/internal/ticket"
)

// TagDraft is a tag to put on a ticket.
type TagDraft struct {
	Text            string
	BackgroundColor *string
	TextColor       *string
}

const tagColumns = `select g.tag_id, g.tenant_id, t.board_id, g.tag_text, g.ticket_id, g.background_color, g.text_color,
	g.created_by from ticket_tags g
	left join tickets t on t.tenant_id = g.tenant_id and t.ticket_id = g.ticket_id `

func scanTag(row scanner) (ticket.Tag, error) {
	tag := ticket.Tag{TaggedType: itemTicket}
	err := row.Scan(&tag.TagID, &tag.TenantID, &tag.BoardID, &tag.Text, &tag.TaggedID, &tag.BackgroundColor,
		&tag.TextColor, &tag.CreatedBy)
	return tag, err
}

// Tags returns the tags of a ticket, ascending by text.
func (s *Store) Tags(ctx context.Context, tenant, ticketID string) ([]ticket.Tag, error) {
	r := s.reader(ctx)
	if err := haveTicket(r, tenant, lowerID(ticketID)); err != nil {
		return nil, err
	}
	return tagsOf(r, tenant, ticketID)
}

func tagsOf(q querier, tenant, ticketID string) ([]ticket.Tag, error) {
	rows, err := q.query(tagColumns+`where g.tenant_id = $1 and g.ticket_id = $2 order by g.tag_text`,
		tenant, lowerID(ticketID))
	return collect(rows, err, scanTag)
}

// TagsOf returns the tags of several tickets, keyed by ticket id and ascending by
// text. Tickets without tags are missing from the map.
func (s *Store) TagsOf(ctx context.Context, tenant string, ids []string) (map[string][]ticket.Tag, error) {
	tags := map[string][]ticket.Tag{}
	if len(ids) == 0 {
		return tags, nil
	}
	w := &where{}
	w.and("g.tenant_id = ?", tenant)
	w.in("g.ticket_id", lowerIDs(ids))
	rows, err := s.reader(ctx).list(tagColumns+`where `+w.String()+` order by g.ticket_id, g.tag_text`, w.args...)
	all, err := collect(rows, err, scanTag)
	for _, tag := range all {
		tags[tag.TaggedID] = append(tags[tag.TaggedID], tag)
	}
	return tags, err
}

// AddTags puts tags on a ticket and returns those that were new to it. When
// there are any, updated_at moves and ticket.updated fires with changes.tags
// (contract section 4.4). Errors are those of ticket.NormalizeTags, and NotFound.
func (s *Store) AddTags(ctx context.Context, now time.Time, a ticket.Actor, ticketID string, drafts []TagDraft) ([]ticket.Tag, error) {
	return write(ctx, s, func(t *tx) ([]ticket.Tag, error) {
		old, err := t.ticket(a.TenantID, ticketID, noTicketOwner)
		if err != nil {
			return nil, err
		}
		created := []ticket.Tag{}
		texts := slices.Clone(old.Tags)
		for _, d := range drafts {
			text, err := ticket.NormalizeTag(d.Text)
			if err != nil {
				return nil, err
			}
			if slices.Contains(texts, text) {
				continue
			}
			texts = append(texts, text)
			created = append(created, ticket.Tag{
				TagID: NewID(), TenantID: a.TenantID, BoardID: &old.BoardID, Text: text, TaggedID: old.TicketID,
				TaggedType: itemTicket, BackgroundColor: d.BackgroundColor, TextColor: d.TextColor, CreatedBy: &a.UserID,
			})
		}
		for i := range created {
			if err := t.insertTag(now, &created[i]); err != nil {
				return nil, err
			}
		}
		_, err = t.apply(now, a, old, ticket.Patch{Tags: ticket.Some(texts)})
		return created, err
	})
}

func (t *tx) insertTag(now time.Time, tag *ticket.Tag) error {
	return t.change("insert into ticket_tags", `
		insert into ticket_tags (tenant_id, ticket_id, tag_text, tag_id, background_color, text_color, created_by, created_at)
		values ($1, $2, $3, $4, $5, $6, $7, $8)
		on conflict (tenant_id, ticket_id, tag_text) do nothing`,
		tag.TenantID, tag.TaggedID, tag.Text, tag.TagID, tag.BackgroundColor, tag.TextColor, tag.CreatedBy, micros(now))
}

// RemoveTags takes the tags with these mapping ids off a ticket and returns how
// many there were. Ids of other tickets count for nothing.
func (s *Store) RemoveTags(ctx context.Context, now time.Time, a ticket.Actor, ticketID string, tagIDs []string) (int, error) {
	return write(ctx, s, func(t *tx) (int, error) {
		old, err := t.ticket(a.TenantID, ticketID, noTicketOwner)
		if err != nil {
			return 0, err
		}
		tags, err := tagsOf(t, a.TenantID, old.TicketID)
		if err != nil {
			return 0, err
		}
		gone := lowerIDs(tagIDs)
		left := []string{}
		for _, tag := range tags {
			if !slices.Contains(gone, tag.TagID) {
				left = append(left, tag.Text)
			}
		}
		_, err = t.apply(now, a, old, ticket.Patch{Tags: ticket.Some(left)})
		return len(tags) - len(left), err
	})
}

// syncTags makes the rows of ticket_tags those of the ticket's list, which was
// before until this change. Tags that stay keep their mapping id and colours.
func (t *tx) syncTags(now time.Time, a ticket.Actor, tk *ticket.Ticket, before []string) error {
	if slices.Equal(tk.Tags, before) {
		return nil
	}
	for _, text := range before {
		if slices.Contains(tk.Tags, text) {
			continue
		}
		if err := t.change("delete from ticket_tags",
			`delete from ticket_tags where tenant_id = $1 and ticket_id = $2 and tag_text = $3`,
			tk.TenantID, tk.TicketID, text); err != nil {
			return err
		}
	}
	for _, text := range tk.Tags {
		if slices.Contains(before, text) {
			continue
		}
		// A row that AddTags has put there already, with its colours, stays.
		if err := t.insertTag(now, &ticket.Tag{
			TagID: NewID(), TenantID: tk.TenantID, Text: text, TaggedID: tk.TicketID, CreatedBy: &a.UserID,
		}); err != nil {
			return err
		}
	}
	return nil
}
