package api_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/store"
)

func TestKeyLifecycle(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	expires := time.Now().Add(time.Hour).UTC().Truncate(time.Second).Format("2006-01-02T15:04:05.000Z")
	body := map[string]any{
		"name": "Mirror", "user_id": h.a.UserID, "expires_at": expires, "usage_limit": 5, "permissions": []string{"ticket:read"},
		"rate_limit": map[string]any{"enabled": true, "max_tokens": 10, "refill_per_min": 60},
	}
	made := h.do(t, "POST", "/api-keys", h.a.APIKey, body, "X-Idempotency-Key", "k").want(t, http.StatusCreated)
	again := h.do(t, "POST", "/api-keys", h.a.APIKey, body, "X-Idempotency-Key", "k").want(t, http.StatusCreated)
	if !bytes.Equal(made.Raw, again.Raw) {
		t.Errorf("the repeated create answered %s, first %s", again.Raw, made.Raw)
	}
	got := made.data(t)
	key, id := got["api_key"].(string), got["api_key_id"].(string)
	if prefix := got["prefix"].(string); len(prefix) < 4 || !strings.HasPrefix(key, prefix) || len(key) < 40 || got["created_at"].(string) < "2026" {
		t.Errorf("created %v", got)
	}
	record := without(got, "api_key")
	want := map[string]any{
		"api_key_id": id, "name": "Mirror", "user_id": h.a.UserID, "prefix": got["prefix"], "active": true, "expires_at": expires,
		"last_used_at": nil, "usage_count": 0.0, "usage_limit": 5.0, "permissions": []any{"ticket:read"},
		"rate_limit": map[string]any{"enabled": true, "max_tokens": 10.0, "refill_per_min": 60.0}, "created_at": got["created_at"],
	}
	if diff := cmp.Diff(want, record); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
	read := h.do(t, "GET", "/api-keys/"+id, h.a.APIKey, nil).want(t, http.StatusOK).data(t)
	if diff := cmp.Diff(record, read); diff != "" {
		t.Errorf("read (-created +read):\n%s", diff)
	}

	// The new key opens what it was given, and nothing else.
	r := h.do(t, "GET", "/tickets", key, nil).want(t, http.StatusOK)
	if got := r.Header.Get("X-RateLimit-Limit"); got != "10" {
		t.Errorf("the key's own limit is %q, want 10", got)
	}
	h.do(t, "GET", "/webhooks", key, nil).wantError(t, http.StatusForbidden, "FORBIDDEN")
	list := h.do(t, "GET", "/api-keys", h.a.APIKey, nil).want(t, http.StatusOK)
	if len(list.list(t)) != 2 || bytes.Contains(list.Raw, []byte(key)) || list.at("data", 1, "usage_count") != 2.0 ||
		list.text("data", 1, "last_used_at") < got["created_at"].(string) {
		t.Errorf("list %s", list.Raw)
	}

	put := func(body map[string]any) map[string]any {
		t.Helper()
		r := h.do(t, "PUT", "/api-keys/"+id, h.a.APIKey, body).want(t, http.StatusOK)
		if bytes.Contains(r.Raw, []byte(key)) {
			t.Errorf("an update shows the key: %s", r.Raw)
		}
		return r.data(t)
	}
	after := put(map[string]any{"name": "Renamed"})
	if after["name"] != "Renamed" || after["expires_at"] != expires || after["usage_limit"] != 5.0 {
		t.Errorf("a partial update gave %v", after)
	}
	if diff := cmp.Diff(record["rate_limit"], after["rate_limit"]); diff != "" {
		t.Errorf("a partial update changed the limit (-before +after):\n%s", diff)
	}
	after = put(map[string]any{"expires_at": nil, "usage_limit": nil, "permissions": nil, "rate_limit": nil})
	if after["expires_at"] != nil || after["usage_limit"] != nil || after["permissions"] != nil {
		t.Errorf("cleared to %v", after)
	}
	h.do(t, "GET", "/webhooks", key, nil).want(t, http.StatusOK)
	if got := h.do(t, "GET", "/tickets", key, nil).want(t, http.StatusOK).Header.Get("X-RateLimit-Limit"); got != "" {
		t.Errorf("without a limit of its own the key has %q", got)
	}
	put(map[string]any{"active": false})
	h.do(t, "GET", "/tickets", key, nil).wantError(t, http.StatusUnauthorized, "UNAUTHORIZED")
	put(map[string]any{"active": true, "expires_at": "2020-01-01T00:00:00Z"})
	h.do(t, "GET", "/tickets", key, nil).wantError(t, http.StatusUnauthorized, "UNAUTHORIZED")

	h.do(t, "DELETE", "/api-keys/"+id, h.a.APIKey, nil).want(t, http.StatusNoContent)
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		h.do(t, method, "/api-keys/"+id, h.a.APIKey, nil).wantError(t, http.StatusNotFound, "NOT_FOUND")
		h.do(t, method, "/api-keys/7", h.a.APIKey, nil).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
	}
}

func TestKeysAreRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	key := func(fields map[string]any) map[string]any { return merged(map[string]any{"name": "x"}, fields) }
	cases := []refusal{
		{name: "no name", body: map[string]any{}, issue: "name invalid_type"},
		{name: "empty name", body: map[string]any{"name": ""}, issue: "name too_small"},
		{name: "long name", body: map[string]any{"name": long(256)}, issue: "name too_big"},
		{name: "another user", body: key(map[string]any{"user_id": unknownID}), issue: "user_id custom"},
		{name: "inactive", body: key(map[string]any{"active": false}), issue: "active custom"},
		{name: "expired", body: key(map[string]any{"expires_at": "2020-01-01T00:00:00Z"}), issue: "expires_at custom"},
		{name: "bad time", body: key(map[string]any{"expires_at": "tomorrow"}), issue: "expires_at invalid_string"},
		{name: "no use", body: key(map[string]any{"usage_limit": 0}), issue: "usage_limit too_small"},
		{name: "half a use", body: key(map[string]any{"usage_limit": 1.5}), issue: "usage_limit invalid_type"},
		{name: "unknown permission", body: key(map[string]any{"permissions": []any{"ticket:read", "ticket:burn"}}), issue: "permissions.1 custom"},
		{name: "permissions as text", body: key(map[string]any{"permissions": "ticket:read"}), issue: "permissions invalid_type"},
		{name: "no tokens", body: key(map[string]any{"rate_limit": map[string]any{"max_tokens": 0}}), issue: "rate_limit.max_tokens too_small"},
		{name: "no refill", body: key(map[string]any{"rate_limit": map[string]any{"refill_per_min": -1}}), issue: "rate_limit.refill_per_min too_small"},
		{name: "other limit", body: key(map[string]any{"rate_limit": map[string]any{"burst": 1}}), issue: "rate_limit unrecognized_keys"},
	}
	h.refuses(t, "POST", "/api-keys", cases)
	if n := len(h.do(t, "GET", "/api-keys", h.a.APIKey, nil).want(t, http.StatusOK).list(t)); n != 1 {
		t.Errorf("refused bodies left %d keys", n)
	}
	other := h.do(t, "POST", "/api-keys", h.a.APIKey, key(nil)).want(t, http.StatusCreated).text("data", "api_key_id")
	for _, c := range cases {
		// These are rules of a new key, or about fields that an update ignores.
		if c.name == "no name" || c.name == "another user" || c.name == "inactive" || c.name == "expired" {
			continue
		}
		e := h.do(t, "PUT", "/api-keys/"+other, h.a.APIKey, c.body).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
		wantIssue(t, e, c.issue)
	}
}

// TestKeysDoNotEscalate: nobody gets more out of a key than he put in.
func TestKeysDoNotEscalate(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	manage := []string{"api_key:read", "api_key:create", "api_key:update", "ticket:read"}
	maker := h.key(t, h.a.TenantID, manage...)
	forbidden := func(method, path, key string, body map[string]any) {
		t.Helper()
		h.do(t, method, path, key, body).wantError(t, http.StatusForbidden, "FORBIDDEN")
	}
	e := h.do(t, "POST", "/api-keys", maker, map[string]any{"name": "x", "permissions": []string{"ticket:read", "ticket:delete"}}).
		wantError(t, http.StatusForbidden, "FORBIDDEN")
	if e["message"] != "Permission denied: Cannot grant ticket:delete" {
		t.Errorf("message %q", e["message"])
	}
	h.do(t, "POST", "/api-keys", maker, map[string]any{"name": "x", "permissions": []string{"ticket:read"}}).want(t, http.StatusCreated)

	// A key with a list makes keys with no more than that list, even where its
	// user could do more.
	limited := h.keyOf(t, h.a.TenantID, store.KeyDraft{UserID: h.a.UserID, Name: "limited", Permissions: manage})
	made := h.do(t, "POST", "/api-keys", limited, map[string]any{"name": "x"}).want(t, http.StatusCreated).data(t)
	if diff := cmp.Diff([]any{"api_key:create", "api_key:read", "api_key:update", "ticket:read"}, made["permissions"]); diff != "" {
		t.Errorf("inherited list (-want +got):\n%s", diff)
	}
	child := "/api-keys/" + made["api_key_id"].(string)
	forbidden("PUT", child, limited, map[string]any{"permissions": nil})
	forbidden("PUT", child, limited, map[string]any{"permissions": []string{"webhook:read"}})
	forbidden("DELETE", child, limited, nil)
	h.do(t, "PUT", child, limited, map[string]any{"permissions": []string{"ticket:read"}}).want(t, http.StatusOK)
	// Giving a key of somebody else everything that he may do is not the
	// caller's to decide.
	forbidden("PUT", child, maker, map[string]any{"permissions": nil})
	h.do(t, "PUT", child, h.a.APIKey, map[string]any{"permissions": nil}).want(t, http.StatusOK)
}

func TestKeyCannotEndItself(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	own := "/api-keys/" + h.do(t, "GET", "/api-keys", h.a.APIKey, nil).want(t, http.StatusOK).text("data", 0, "api_key_id")
	h.do(t, "DELETE", own, h.a.APIKey, nil).wantError(t, http.StatusConflict, "CONFLICT")
	h.do(t, "PUT", own, h.a.APIKey, map[string]any{"active": false}).wantError(t, http.StatusConflict, "CONFLICT")
	h.do(t, "PUT", own, h.a.APIKey, map[string]any{"expires_at": "2020-01-01T00:00:00Z"}).wantError(t, http.StatusConflict, "CONFLICT")
	h.do(t, "PUT", own, h.a.APIKey, map[string]any{"name": "Main"}).want(t, http.StatusOK)
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		h.do(t, method, own, h.b.APIKey, nil).wantError(t, http.StatusNotFound, "NOT_FOUND")
	}
}

func TestKeyPermissions(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.do(t, "GET", "/api-keys", h.a.APIKey, nil).want(t, http.StatusOK).text("data", 0, "api_key_id")
	all := []string{"api_key:read", "api_key:create", "api_key:update", "api_key:delete"}
	for _, rt := range []struct{ method, path, action string }{
		{"GET", "/api-keys", "read"}, {"POST", "/api-keys", "create"}, {"GET", "/api-keys/" + id, "read"},
		{"PUT", "/api-keys/" + id, "update"}, {"DELETE", "/api-keys/" + id, "delete"},
	} {
		var rest []string
		for _, p := range all {
			if p != "api_key:"+rt.action {
				rest = append(rest, p)
			}
		}
		e := h.do(t, rt.method, rt.path, h.key(t, h.a.TenantID, rest...), nil).wantError(t, http.StatusForbidden, "FORBIDDEN")
		if want := "Permission denied: Cannot " + rt.action + " api_key"; e["message"] != want {
			t.Errorf("%s %s says %q, want %q", rt.method, rt.path, e["message"], want)
		}
		if r := h.do(t, rt.method, rt.path, h.key(t, h.a.TenantID, "api_key:"+rt.action), nil); r.Status == http.StatusForbidden {
			t.Errorf("%s %s is closed to api_key:%s: %s", rt.method, rt.path, rt.action, r.Raw)
		}
	}
}
