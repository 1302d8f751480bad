package api_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// comment adds a comment to a ticket of tenant A and returns it as answered.
func (h *harness) comment(t *testing.T, id any, fields map[string]any) map[string]any {
	t.Helper()
	body := merged(map[string]any{"comment_text": "Looking into it"}, fields)
	return h.do(t, "POST", fmt.Sprintf("/tickets/%v/comments", id), h.a.APIKey, body).want(t, http.StatusCreated).data(t)
}

func TestAddComment(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	ticket := h.createTicket(t)
	id := ticket["ticket_id"]
	var got map[string]any
	events := h.newEvents(t, func() {
		got = h.comment(t, id, map[string]any{
			"comment_text": "a < b\n\nc", "is_internal": true, "is_resolution": true, "time_spent": 1.5,
			"metadata": map[string]any{"from": "phone"}, "suppressContactNotifications": true, "author_type": "client",
		})
	})
	if events != "ticket.comment.added" {
		t.Errorf("events %q", events)
	}
	wantFields(t, got, map[string]any{
		"tenant": h.a.TenantID, "ticket_id": id, "user_id": h.a.UserID, "contact_id": nil, "note": "a < b\n\nc",
		"comment_text": "a < b\n\nc", "comment_html": "<p>a &lt; b</p><p>c</p>", "markdown_content": nil,
		"is_internal": true, "is_resolution": true, "is_system_generated": false, "author_type": "internal",
		"metadata": map[string]any{"from": "phone"}, "thread_id": got["comment_id"], "parent_comment_id": nil,
		"deleted_at": nil, "publish_state": "published", "scheduled_publish_at": nil, "updated_at": nil,
		"created_by": h.a.UserID, "created_by_name": "Ada Alpha", "created_by_avatar_url": nil, "author_contact_id": nil,
		"author_contact_name": nil, "author_contact_email": nil, "reactions": []any{}, "reaction_user_names": map[string]any{},
	})
	after := h.get(t, id)
	if after["updated_at"] == ticket["updated_at"] || after["updated_at"] != got["created_at"] {
		t.Errorf("updated_at %v, was %v, the comment is of %v", after["updated_at"], ticket["updated_at"], got["created_at"])
	}
	list := h.do(t, "GET", fmt.Sprintf("/tickets/%v/comments", id), h.a.APIKey, nil).want(t, http.StatusOK).list(t)
	if diff := cmp.Diff([]map[string]any{got}, list); diff != "" {
		t.Errorf("the list has another comment than the answer:\n%s", diff)
	}
}

func TestCommentLength(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.createTicket(t)["ticket_id"]
	for _, text := range []string{"x", long(5000), "  " + long(5000) + "\n"} {
		if got := h.comment(t, id, map[string]any{"comment_text": text})["comment_text"]; got != text {
			t.Errorf("the text of %d bytes came back changed", len(text))
		}
	}
}

func TestReply(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.createTicket(t)["ticket_id"]
	parent := h.comment(t, id, map[string]any{"is_internal": true})
	reply := h.comment(t, id, map[string]any{
		"parent_comment_id": strings.ToUpper(parent["comment_id"].(string)), "is_internal": false,
	})
	wantFields(t, reply, map[string]any{
		"parent_comment_id": parent["comment_id"], "thread_id": parent["comment_id"], "is_internal": true,
	})
	other := h.createTicket(t)["ticket_id"]
	h.refuses(t, "POST", fmt.Sprintf("/tickets/%v/comments", other), []refusal{
		{
			name:  "to a comment of another ticket",
			body:  map[string]any{"comment_text": "x", "parent_comment_id": parent["comment_id"]},
			issue: "parent_comment_id custom",
		},
		{
			name: "to no comment", body: map[string]any{"comment_text": "x", "parent_comment_id": unknownID},
			status: http.StatusNotFound, code: "NOT_FOUND", message: "Comment not found",
		},
	})
}

func TestAddCommentRefuses(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.createTicket(t)["ticket_id"]
	with := func(key string, v any) map[string]any { return map[string]any{"comment_text": "x", key: v} }
	h.refuses(t, "POST", fmt.Sprintf("/tickets/%v/comments", id), []refusal{
		{name: "no text", body: map[string]any{}, issue: "comment_text invalid_type"},
		{name: "null", body: with("comment_text", nil), issue: "comment_text invalid_type"},
		{name: "empty", body: with("comment_text", ""), issue: "comment_text too_small"},
		{name: "blank", body: with("comment_text", " \n\t"), issue: "comment_text too_small"},
		{name: "too long", body: with("comment_text", long(5001)), issue: "comment_text too_big"},
		{name: "NUL", body: with("comment_text", "a\x00"), issue: "comment_text custom"},
		{name: "is_internal a text", body: with("is_internal", "no"), issue: "is_internal invalid_type"},
		{name: "is_resolution null", body: with("is_resolution", nil), issue: "is_resolution invalid_type"},
		{name: "time_spent negative", body: with("time_spent", -0.5), issue: "time_spent too_small"},
		{name: "time_spent a text", body: with("time_spent", "1"), issue: "time_spent invalid_type"},
		{name: "metadata a list", body: with("metadata", []int{1}), issue: "metadata invalid_type"},
		{name: "parent no UUID", body: with("parent_comment_id", "first"), issue: "parent_comment_id invalid_string"},
		{
			name: "team silenced but not the contact", body: with("suppressInternalNotifications", true),
			issue: "suppressInternalNotifications custom",
		},
	})
}

func TestListComments(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.createTicket(t)["ticket_id"]
	path := fmt.Sprintf("/tickets/%v/comments", id)
	if diff := cmp.Diff([]map[string]any{}, h.do(t, "GET", path, h.a.APIKey, nil).want(t, http.StatusOK).list(t)); diff != "" {
		t.Error(diff)
	}
	for i := range 5 {
		h.comment(t, id, map[string]any{"comment_text": fmt.Sprint(i)})
	}
	for query, want := range map[string]string{
		"": "0 1 2 3 4", "order=desc": "4 3 2 1 0", "limit=2": "0 1", "limit=2&offset=3": "3 4", "offset=4": "4", "offset=9": "",
		"limit=200&order=asc&content_format=full": "0 1 2 3 4",
	} {
		var texts []string
		for _, c := range h.do(t, "GET", path+"?"+query, h.a.APIKey, nil).want(t, http.StatusOK).list(t) {
			texts = append(texts, fmt.Sprint(c["comment_text"]))
		}
		if got := strings.Join(texts, " "); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	parent := h.comment(t, id, map[string]any{"is_internal": true})["comment_id"]
	reply := h.comment(t, id, map[string]any{"is_resolution": true, "parent_comment_id": parent})["comment_id"]
	h.do(t, "PUT", fmt.Sprintf("%s/%v", path, reply), h.a.APIKey, map[string]any{"comment_text": "z"}).want(t, http.StatusOK)
	full := h.do(t, "GET", path, h.a.APIKey, nil).want(t, http.StatusOK).list(t)
	short := h.do(t, "GET", path+"?content_format=markdown", h.a.APIKey, nil).want(t, http.StatusOK).list(t)
	wantKeys := []string{
		"author_contact_id", "author_contact_name", "author_type", "comment_id", "created_at", "created_by", "created_by_name",
		"deleted_at", "is_internal", "is_resolution", "markdown_content", "parent_comment_id", "thread_id", "ticket_id",
		"updated_at",
	}
	for i := range short {
		if keys := keysOf(short[i]); !slices.Equal(keys, wantKeys) {
			t.Errorf("keys %v", keys)
		}
		for key, v := range short[i] {
			if !cmp.Equal(v, full[i][key]) {
				t.Errorf("comment %d: %s is %v in markdown and %v in full", i, key, v, full[i][key])
			}
		}
	}
	h.queryRefuses(t, path, map[string]string{
		"limit=0": "limit too_small", "limit=201": "limit too_big", "limit=x": "limit invalid_type",
		"offset=-1": "offset too_small", "offset=x": "offset invalid_type", "order=up": "order invalid_enum_value",
		"content_format=html": "content_format invalid_enum_value",
	})
}

func TestEditComment(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.createTicket(t)["ticket_id"]
	comment := h.comment(t, id, nil)
	path := fmt.Sprintf("/tickets/%v/comments/%v", id, comment["comment_id"])
	before := h.get(t, id)
	events := h.newEvents(t, func() {
		got := h.do(t, "PUT", path, h.a.APIKey, map[string]any{"comment_text": "Better"}).want(t, http.StatusOK).data(t)
		wantFields(t, got, map[string]any{
			"comment_text": "Better", "note": "Better", "comment_html": "<p>Better</p>", "created_at": comment["created_at"],
		})
		if got["updated_at"] == nil {
			t.Error("updated_at is null after an edit")
		}
	})
	if events != "" {
		t.Errorf("events %q", events)
	}
	if diff := cmp.Diff(before, h.get(t, id)); diff != "" {
		t.Errorf("an edit changed the ticket:\n%s", diff)
	}
	h.refuses(t, "PUT", path, []refusal{
		{name: "no text", body: map[string]any{}, issue: "comment_text invalid_type"},
		{name: "empty", body: map[string]any{"comment_text": " "}, issue: "comment_text too_small"},
		{name: "too long", body: map[string]any{"comment_text": long(5001)}, issue: "comment_text too_big"},
	})
	other := h.key(t, h.a.TenantID, "ticket:read", "ticket:update")
	e := h.do(t, "PUT", path, other, map[string]any{"comment_text": "Mine"}).
		wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
	if e["message"] != "You can only edit your own comments" {
		t.Errorf("message %q", e["message"])
	}
	for below, status := range map[string]int{"/comments/" + unknownID: 404, "/comments/first": 400} {
		h.do(t, "PUT", fmt.Sprintf("/tickets/%v%s", id, below), h.a.APIKey, map[string]any{"comment_text": "x"}).want(t, status)
	}
	second := h.createTicket(t)["ticket_id"]
	h.do(t, "PUT", fmt.Sprintf("/tickets/%v/comments/%v", second, comment["comment_id"]), h.a.APIKey,
		map[string]any{"comment_text": "x"}).wantError(t, http.StatusNotFound, "NOT_FOUND")
}

func TestReactions(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.createTicket(t)["ticket_id"]
	comment := h.comment(t, id, nil)["comment_id"]
	path := fmt.Sprintf("/tickets/%v/comments/%v/reactions", id, comment)
	react := func(key, emoji string) any {
		return h.do(t, "POST", path, key, map[string]any{"emoji": emoji}).want(t, http.StatusOK).at("data", "added")
	}
	other := h.key(t, h.a.TenantID, "ticket:update")
	events := h.newEvents(t, func() {
		if react(h.a.APIKey, "👍") != true || react(other, "👍") != true || react(h.a.APIKey, "👀") != true {
			t.Error("a first reaction was not added")
		}
		if react(h.a.APIKey, "👀") != false {
			t.Error("the second time did not take the reaction back")
		}
	})
	if events != "" {
		t.Errorf("events %q", events)
	}
	got := h.do(t, "GET", fmt.Sprintf("/tickets/%v/comments", id), h.a.APIKey, nil).list(t)[0]
	reactions, _ := got["reactions"].([]any)
	if len(reactions) != 1 || reactions[0].(map[string]any)["count"] != 2.0 || len(got["reaction_user_names"].(map[string]any)) != 2 {
		t.Errorf("reactions %v by %v", got["reactions"], got["reaction_user_names"])
	}
	h.refuses(t, "POST", path, []refusal{
		{name: "none", body: map[string]any{}, issue: "emoji invalid_type"},
		{name: "empty", body: map[string]any{"emoji": ""}, issue: "emoji too_small"},
		{name: "too long", body: map[string]any{"emoji": long(33)}, issue: "emoji too_big"},
	})
	missing := fmt.Sprintf("/tickets/%v/comments/%s/reactions", id, unknownID)
	h.do(t, "POST", missing, h.a.APIKey, map[string]any{"emoji": "👍"}).wantError(t, http.StatusNotFound, "NOT_FOUND")
}
