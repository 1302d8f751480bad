package api_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/store"
)

func tagPath(id any) string { return fmt.Sprintf("/tags/entity/ticket/%v", id) }

// tagBody is a body of the tag routes for a ticket.
func tagBody(id any, fields map[string]any) map[string]any {
	return merged(map[string]any{"entity_id": id, "entity_type": "ticket"}, fields)
}

// tagTexts is a list of n different tags.
func tagTexts(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("t%d", i)
	}
	return list
}

func TestTags(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.createTicket(t, map[string]any{"tags": []string{"old"}})["ticket_id"]
	var added *response
	events := h.newEvents(t, func() {
		added = h.do(t, "POST", tagPath(id), h.a.APIKey, tagBody(id, map[string]any{"tags": []any{
			" VIP ", "old", map[string]any{"tag_text": "Amber", "background_color": "#ffbf00", "text_color": nil},
		}})).want(t, http.StatusCreated)
	})
	if events != "ticket.updated" {
		t.Errorf("events %q", events)
	}
	wantFields(t, added.data(t), map[string]any{"entity_id": id, "entity_type": "ticket", "created_count": 2.0})
	h.wantLastTags(t, []string{"old"}, []string{"amber", "old", "vip"})

	read := h.do(t, "GET", tagPath(id), h.a.APIKey, nil).want(t, http.StatusOK).data(t)
	wantFields(t, read, map[string]any{"entity_id": id, "entity_type": "ticket", "total_tags": 3.0})
	tags := read["tags"].([]any)
	amber := tags[0].(map[string]any)
	want := map[string]any{
		"tag_id": amber["tag_id"], "tenant": h.a.TenantID, "board_id": h.a.BoardID, "tag_text": "amber", "tagged_id": id,
		"tagged_type": "ticket", "background_color": "#ffbf00", "text_color": nil, "created_by": h.a.UserID,
	}
	if diff := cmp.Diff(want, amber); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(any([]any{"amber", "old", "vip"}), h.get(t, id)["tags"]); diff != "" {
		t.Error(diff)
	}

	events = h.newEvents(t, func() { // the ticket has it already
		again := h.do(t, "POST", tagPath(id), h.a.APIKey, tagBody(id, map[string]any{"tags": []string{"VIP"}}))
		wantFields(t, again.want(t, http.StatusCreated).data(t), map[string]any{"created_count": 0.0, "tags": []any{}})
	})
	if events != "" {
		t.Errorf("events %q", events)
	}

	events = h.newEvents(t, func() {
		body := tagBody(id, map[string]any{"tag_ids": []any{strings.ToUpper(amber["tag_id"].(string)), unknownID}})
		gone := h.do(t, "DELETE", tagPath(id), h.a.APIKey, body).want(t, http.StatusOK).data(t)
		wantFields(t, gone, map[string]any{"entity_id": id, "entity_type": "ticket", "removed_count": 1.0})
		if gone["message"] == "" {
			t.Error("no message")
		}
		gone = h.do(t, "DELETE", tagPath(id), h.a.APIKey, body).want(t, http.StatusOK).data(t)
		wantFields(t, gone, map[string]any{"removed_count": 0.0})
	})
	if events != "ticket.updated" {
		t.Errorf("events %q", events)
	}
	h.wantLastTags(t, []string{"amber", "old", "vip"}, []string{"old", "vip"})
}

// wantLastTags checks changes.tags of the newest event.
func (h *harness) wantLastTags(t *testing.T, previous, next []string) {
	t.Helper()
	feed, err := h.store.Events(t.Context(), h.a.TenantID, store.FeedQuery{Limit: 1000})
	must(t, err)
	type list struct{ Previous, New []string }
	got := decode[struct {
		Data struct{ Changes struct{ Tags list } }
	}](t, feed.Envelopes[len(feed.Envelopes)-1])
	if diff := cmp.Diff(list{previous, next}, got.Data.Changes.Tags); diff != "" {
		t.Error(diff)
	}
}

// The ids in the body count, those in the path do not (contract section 2.8).
func TestTagBodyWins(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.createTicket(t)["ticket_id"]
	h.do(t, "POST", tagPath(unknownID), h.a.APIKey, tagBody(id, map[string]any{"tags": []string{"a"}})).want(t, http.StatusCreated)
	if diff := cmp.Diff(any([]any{"a"}), h.get(t, id)["tags"]); diff != "" {
		t.Error(diff)
	}
}

func TestCreateTag(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.createTicket(t)["ticket_id"]
	body := map[string]any{"tag_text": " Red ", "tagged_id": id, "tagged_type": "ticket", "background_color": "#FF0000"}
	got := h.do(t, "POST", "/tags", h.a.APIKey, body).want(t, http.StatusCreated).data(t)
	wantFields(t, got, map[string]any{"tag_text": "red", "tagged_id": id, "background_color": "#FF0000", "text_color": nil})
	h.do(t, "POST", "/tags", h.a.APIKey, body).wantError(t, http.StatusConflict, "CONFLICT")
	with := func(key string, v any) map[string]any { return merged(body, map[string]any{key: v}) }
	const message = "Request validation failed"
	h.refuses(t, "POST", "/tags", []refusal{
		{name: "no text", body: without(body, "tag_text"), issue: "tag_text invalid_type", message: message},
		{name: "blank", body: with("tag_text", " "), issue: "tag_text too_small"},
		{name: "too long", body: with("tag_text", long(51)), issue: "tag_text too_big"},
		{name: "no ticket", body: without(body, "tagged_id"), issue: "tagged_id invalid_type"},
		{name: "no type", body: without(body, "tagged_type"), issue: "tagged_type invalid_type"},
		{name: "another type", body: with("tagged_type", "client"), issue: "tagged_type invalid_enum_value"},
		{name: "colour", body: with("text_color", "red"), issue: "text_color invalid_string"},
		{name: "unknown ticket", body: with("tagged_id", unknownID), status: http.StatusNotFound, code: "NOT_FOUND"},
	})
}

func TestTagsRefuse(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.createTicket(t, map[string]any{"tags": []string{"a"}})["ticket_id"]
	foreign := h.do(t, "GET", tagPath(id), h.b.APIKey, nil)
	foreign.wantError(t, http.StatusNotFound, "NOT_FOUND")
	h.do(t, "GET", tagPath(unknownID), h.a.APIKey, nil).wantError(t, http.StatusNotFound, "NOT_FOUND")
	e := h.do(t, "GET", tagPath("TKT-1000"), h.a.APIKey, nil).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
	if diff := cmp.Diff(map[string]any{"code": "VALIDATION_ERROR", "message": "Invalid ticket ID format", "details": []any{
		map[string]any{"code": "invalid_string", "path": []any{"id"}, "message": "Invalid uuid", "validation": "uuid"},
	}}, e); diff != "" {
		t.Error(diff)
	}
	const message = "Request validation failed"
	h.refuses(t, "POST", tagPath(id), []refusal{
		{name: "empty body", body: "", issue: "tags invalid_type", message: message},
		{name: "no tags", body: tagBody(id, nil), issue: "tags invalid_type"},
		{name: "tags a text", body: tagBody(id, map[string]any{"tags": "a"}), issue: "tags invalid_type"},
		{name: "no tag", body: tagBody(id, map[string]any{"tags": []any{}}), issue: "tags too_small"},
		{name: "51 tags", body: tagBody(id, map[string]any{"tags": tagTexts(51)}), issue: "tags too_big"},
		{name: "51 times one tag", body: tagBody(id, map[string]any{"tags": slices.Repeat([]string{"x"}, 51)}), issue: "tags too_big"},
		{name: "a number", body: tagBody(id, map[string]any{"tags": []any{"x", 1}}), issue: "tags.1 invalid_type"},
		{name: "blank", body: tagBody(id, map[string]any{"tags": []any{" "}}), issue: "tags.0 too_small"},
		{name: "too long", body: tagBody(id, map[string]any{"tags": []any{long(51)}}), issue: "tags.0 too_big"},
		{name: "NUL", body: tagBody(id, map[string]any{"tags": []any{"x", "a\x00"}}), issue: "tags.1 custom"},
		{
			name: "object without text", body: tagBody(id, map[string]any{"tags": []any{map[string]any{}}}),
			issue: "tags.0.tag_text invalid_type",
		},
		{
			name:  "colour",
			body:  tagBody(id, map[string]any{"tags": []any{map[string]any{"tag_text": "x", "background_color": "#fff"}}}),
			issue: "tags.0.background_color invalid_string",
		},
		{name: "another type", body: tagBody(id, map[string]any{"tags": []any{"x"}, "entity_type": "user"}), issue: "entity_type invalid_enum_value"},
		{name: "id", body: tagBody("TKT-1000", map[string]any{"tags": []any{"x"}}), issue: "entity_id invalid_string"},
		{
			name: "unknown ticket", body: tagBody(unknownID, map[string]any{"tags": []any{"x"}}),
			status: http.StatusNotFound, code: "NOT_FOUND", message: "Ticket not found",
		},
	})
	h.refuses(t, "DELETE", tagPath(id), []refusal{
		{name: "empty body", body: nil, issue: "tag_ids invalid_type", message: message},
		{name: "no ids", body: tagBody(id, map[string]any{"tag_ids": []any{}}), issue: "tag_ids too_small"},
		{name: "51 ids", body: tagBody(id, map[string]any{"tag_ids": slices.Repeat([]string{unknownID}, 51)}), issue: "tag_ids too_big"},
		{name: "a text", body: tagBody(id, map[string]any{"tag_ids": []any{"a"}}), issue: "tag_ids.0 invalid_string"},
		{
			name: "unknown ticket", body: tagBody(unknownID, map[string]any{"tag_ids": []any{unknownID}}),
			status: http.StatusNotFound, code: "NOT_FOUND",
		},
	})
	e = h.do(t, "POST", tagPath(id), h.a.APIKey, tagBody(id, map[string]any{"tags": []any{long(51)}})).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
	if diff := cmp.Diff(any([]any{map[string]any{
		"code": "too_big", "path": []any{"tags", 0.0}, "message": "String must contain at most 50 character(s)",
		"maximum": 50.0, "type": "string", "inclusive": true, "exact": false,
	}}), e["details"]); diff != "" {
		t.Error(diff)
	}
	h.put(t, id, map[string]any{"tags": tagTexts(50)})
	h.do(t, "POST", tagPath(id), h.a.APIKey, tagBody(id, map[string]any{"tags": []string{"one more"}})).
		wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
	// Another tenant's tags stay whatever ids are sent.
	tag := h.do(t, "GET", tagPath(id), h.a.APIKey, nil).text("data", "tags", 0, "tag_id")
	mine := h.do(t, "POST", "/tickets", h.b.APIKey, map[string]any{
		"title": "x", "board_id": h.b.BoardID, "client_id": h.b.ClientID, "status_id": h.b.Statuses["Open"],
		"priority_id": h.b.Priorities["Low"],
	}).want(t, http.StatusCreated).text("data", "ticket_id")
	gone := h.do(t, "DELETE", tagPath(mine), h.b.APIKey, tagBody(mine, map[string]any{"tag_ids": []string{tag}})).want(t, http.StatusOK)
	if gone.at("data", "removed_count") != 0.0 || len(h.get(t, id)["tags"].([]any)) != 50 {
		t.Error("another tenant removed a tag")
	}
}
