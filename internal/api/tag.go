package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// tagRoutes are the routes of contract section 2.8, for tickets only. Unlike
// AlgaPSA's they bring ticket.updated with changes.tags (section 4.4).
func (s *Server) tagRoutes() []route {
	return []route{
		{http.MethodGet, "/tags/entity/ticket/{id}", "tag", "read", (*call).listTags},
		{http.MethodPost, "/tags/entity/ticket/{id}", "tag", "create", (*call).addTags},
		{http.MethodDelete, "/tags/entity/ticket/{id}", "tag", "delete", (*call).removeTags},
		{http.MethodPost, "/tags", "tag", "create", (*call).createTag},
	}
}

// taggedType is the one entity that has tags here.
const taggedType = "ticket"

// invalidTags is the message that tag bodies have of their own (contract section
// 1.2).
const invalidTags = "Request validation failed"

func (c *call) listTags() (answer, error) {
	id, err := c.id("id", "ticket")
	if err != nil {
		return answer{}, err
	}
	tags, err := c.store().Tags(c.ctx, c.tenant(), id)
	if err != nil {
		return answer{}, err
	}
	return ok(map[string]any{
		"entity_id": id, "entity_type": taggedType, "tags": tags, "total_tags": len(tags),
	}), nil
}

// addTags and removeTags take the ticket from the body: the ids in the path do
// not count (contract section 2.8).
func (c *call) addTags() (answer, error) {
	o, err := c.object()
	if err != nil {
		return answer{}, err
	}
	id := o.entity("entity_id", "entity_type")
	o.need("tags", "array")
	list, _ := o.items("tags", 1, ticket.MaxTags)
	drafts := make([]store.TagDraft, 0, len(list))
	for i, raw := range list {
		drafts = append(drafts, o.tagAt(o.at("tags", i), raw))
	}
	if err := o.errAs(invalidTags); err != nil {
		return answer{}, err
	}
	return change(c, func(ctx context.Context) ([]ticket.Tag, error) {
		return c.store().AddTags(ctx, c.now, c.who.Actor(), id, drafts)
	}, func(tags []ticket.Tag) answer {
		return created(map[string]any{
			"entity_id": id, "entity_type": taggedType, "tags": tags, "created_count": len(tags),
		})
	})
}

func (c *call) removeTags() (answer, error) {
	o, err := c.object()
	if err != nil {
		return answer{}, err
	}
	id := o.entity("entity_id", "entity_type")
	o.need("tag_ids", "array")
	ids := o.uuids("tag_ids", 1, ticket.MaxTags)
	if err := o.errAs(invalidTags); err != nil {
		return answer{}, err
	}
	return change(c, func(ctx context.Context) (int, error) {
		return c.store().RemoveTags(ctx, c.now, c.who.Actor(), id, ids)
	}, func(n int) answer {
		return ok(map[string]any{
			"entity_id": id, "entity_type": taggedType, "removed_count": n,
			"message": fmt.Sprintf("%d tag(s) removed from ticket", n),
		})
	})
}

// createTag is POST /tags: one tag, answered as itself. A tag that the ticket has
// already is a duplicate.
func (c *call) createTag() (answer, error) {
	o, err := c.object()
	if err != nil {
		return answer{}, err
	}
	id := o.entity("tagged_id", "tagged_type")
	draft := o.tag()
	if err := o.errAs(invalidTags); err != nil {
		return answer{}, err
	}
	return change(c, func(ctx context.Context) ([]ticket.Tag, error) {
		return c.store().AddTags(ctx, c.now, c.who.Actor(), id, []store.TagDraft{draft})
	}, func(tags []ticket.Tag) answer {
		if len(tags) == 0 {
			return errorAnswer(fault.New(fault.Conflict, "Resource already exists"))
		}
		return created(tags[0])
	})
}

// entity reads which ticket a tag body is about.
func (o *object) entity(idKey, typeKey string) string {
	if o.need(typeKey, "string") {
		o.enum(typeKey, taggedType)
	}
	return o.needUUID(idKey)
}

// tagAt reads one element of a list of tags: a text, or an object.
func (o *object) tagAt(path []any, raw json.RawMessage) store.TagDraft {
	if typeName(raw) == "string" {
		var s string
		if json.Unmarshal(raw, &s) != nil {
			o.wrongType(path, "string", raw)
		}
		return store.TagDraft{Text: o.tagText(path, s)}
	}
	if child := o.childAt(path, raw); child != nil {
		return child.tag()
	}
	return store.TagDraft{}
}

func (o *object) tag() store.TagDraft {
	d := store.TagDraft{
		BackgroundColor: nullable(o, "background_color", o.color).Value,
		TextColor:       nullable(o, "text_color", o.color).Value,
	}
	if o.need("tag_text", "string") {
		if s := o.text("tag_text", 0, 0); s != nil {
			d.Text = o.tagText(o.at("tag_text"), *s)
		}
	}
	return d
}

// tagText applies the rule for tags here already, so that an issue names the
// place in the body rather than the tag alone.
func (o *object) tagText(path []any, s string) string {
	text, err := ticket.NormalizeTag(s)
	o.adopt(path, err)
	return text
}
