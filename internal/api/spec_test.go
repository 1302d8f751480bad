package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/delivery"
)

// TestFieldsAreAccepted: every field of contract section 3.3 that is taken is
// returned as it was sent.
func TestFieldsAreAccepted(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(s *settings) { s.store.MaxWebhooks = 1000 })
	for name, fields := range map[string]map[string]any{
		"name":               {"name": long(255)},
		"method PUT":         {"method": "PUT"},
		"method PATCH":       {"method": "PATCH"},
		"all 40 event types": {"event_types": anys(delivery.EventTypes())},
		"http":               {"url": "http://receiver.example:8080/a?b=c#d"},
		"custom headers":     {"custom_headers": map[string]any{"Authorization": "Basic eA==", "x-team": "ops"}},
		"no headers":         {"custom_headers": nil},
		"no filter":          {"event_filter": nil},
		"empty filter":       {"event_filter": map[string]any{}},
		"filter": {"event_filter": map[string]any{
			"entity_ids": []any{unknownID}, "tags": []any{"VIP"},
			"conditions": []any{
				map[string]any{"field": "priority_name", "operator": "in", "value": []any{"High", "Urgent"}},
				map[string]any{"field": "is_closed", "operator": "equals", "value": false},
				map[string]any{"field": "assigned_to", "operator": "equals", "value": nil},
			},
		}},
		"every payload field":     {"payload_fields": map[string]any{"ticket": anys(delivery.TicketFields())}},
		"empty payload fields":    {"payload_fields": map[string]any{}},
		"null entity":             {"payload_fields": map[string]any{"ticket": nil}},
		"only the id":             {"payload_fields": map[string]any{"ticket": []any{}, "project": []any{"project_name"}}},
		"switches":                {"verify_ssl": false, "is_active": false, "is_test_mode": true},
		"schedule":                {"retry_config": map[string]any{"schedule": []any{1000.0, 60000.0}, "strategy": "custom", "max_attempts": 3.0}},
		"exponential":             {"retry_config": map[string]any{"strategy": "exponential_backoff", "initial_delay": 1.0, "max_delay": 1000.0, "backoff_multiplier": 1.5, "max_attempts": 10.0, "timeout": 30000.0}},
		"linear":                  {"retry_config": map[string]any{"strategy": "linear_backoff", "timeout": 1000.0}},
		"fixed":                   {"retry_config": map[string]any{"strategy": "fixed_interval"}},
		"rate limit":              {"rate_limit": map[string]any{"enabled": true, "requests_per_minute": 1000.0, "burst_limit": 1.0}, "rate_limit_per_min": 1000.0},
		"rate limit lifted":       {"rate_limit": map[string]any{"enabled": false}, "rate_limit_per_min": nil},
		"rate limit by default":   {"rate_limit": map[string]any{"enabled": true}, "rate_limit_per_min": 100.0},
		"json":                    {"payload_format": "json", "content_type": "application/json"},
		"no transformation":       {"payload_transformation": nil},
		"largest metadata":        {"metadata": map[string]any{"x": strings.Repeat("v", 16<<10-len(`{"x":""}`))}},
		"metadata":                {"metadata": map[string]any{"owner": map[string]any{"team": "ops", "n": 1.5}}},
		"description and tags":    {"description": "Notes\nof two lines", "tags": []any{"a", long(50)}},
		"nothing in the optional": {"description": nil, "metadata": nil, "retry_config": nil, "rate_limit": nil, "tags": []any{}},
	} {
		t.Run(name, func(t *testing.T) {
			made := h.createWebhook(t, nowhere, fields)
			got := map[string]any{}
			for key := range fields {
				got[key] = made[key]
			}
			if diff := cmp.Diff(fields, got); diff != "" {
				t.Errorf("created (-sent +returned):\n%s", diff)
			}
			// What a client reads it can send back, and that changes nothing.
			id := made["webhook_id"].(string)
			record := h.do(t, "GET", "/webhooks/"+id, h.a.APIKey, nil).want(t, http.StatusOK).data(t)
			after := h.do(t, "PUT", "/webhooks/"+id, h.a.APIKey, record).want(t, http.StatusOK).data(t)
			for _, key := range []string{"updated_at", "disabled_at"} {
				delete(record, key)
				delete(after, key)
			}
			if diff := cmp.Diff(record, after); diff != "" {
				t.Errorf("sent back (-before +after):\n%s", diff)
			}
		})
	}
	alone := h.createWebhook(t, nowhere, map[string]any{"rate_limit_per_min": 7})
	if diff := cmp.Diff(any(map[string]any{"requests_per_minute": 7.0}), alone["rate_limit"]); diff != "" {
		t.Errorf("rate_limit_per_min alone (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(any([]any{}), alone["tags"]); diff != "" {
		t.Errorf("without tags (-want +got):\n%s", diff)
	}
	// Clients of the older documentation send a security block with a secret of
	// their own. It has no effect and is never shown (contract D35).
	for _, security := range []any{
		map[string]any{"type": "hmac", "secret": "their-own"}, map[string]any{"type": "none"},
		map[string]any{"secret": "their-own", "algorithm": "sha256"}, nil,
	} {
		made := h.createWebhook(t, nowhere, map[string]any{"security": security, "secret_token": nil})
		if _, shown := made["security"]; shown || made["signing_secret"] == "their-own" {
			t.Errorf("security %v gave %v", security, made)
		}
	}
}

// TestNullClears: what was set is taken back by null, field by field.
func TestNullClears(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	made := h.createWebhook(t, nowhere, map[string]any{
		"description": "x", "metadata": map[string]any{"n": 1}, "custom_headers": map[string]any{"X-Team": "ops"},
		"event_filter": map[string]any{"tags": []any{"vip"}}, "payload_fields": map[string]any{"ticket": []any{"title"}},
		"retry_config": map[string]any{"max_attempts": 2}, "rate_limit": map[string]any{"requests_per_minute": 5},
	})
	for _, key := range []string{"description", "metadata", "custom_headers", "event_filter", "payload_fields", "retry_config", "rate_limit"} {
		if made[key] == nil {
			t.Errorf("%s was not set", key)
		}
		after := h.do(t, "PUT", "/webhooks/"+made["webhook_id"].(string), h.a.APIKey, map[string]any{key: nil}).want(t, http.StatusOK).data(t)
		if after[key] != nil {
			t.Errorf("null left %s %v", key, after[key])
		}
	}
}

// A number is the same number in every spelling that JSON has for it.
func TestWholeNumbersInAnySpelling(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	sent := json.RawMessage(`{"schedule": [6e4, 60000.0, 60000], "max_attempts": 3.0, "timeout": 1e3}`)
	got := h.createWebhook(t, nowhere, map[string]any{"retry_config": sent})["retry_config"]
	want := map[string]any{"schedule": []any{60000.0, 60000.0, 60000.0}, "max_attempts": 3.0, "timeout": 1000.0}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestFieldsAreRefused: what would have no effect, or could never work, is a 400
// that names the field.
func TestFieldsAreRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	headers := map[string]any{}
	for _, c := range "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz" {
		headers["x-"+strings.Repeat(string(c), len(headers)+1)] = "v"
	}
	condition := func(field, op string, value any) map[string]any {
		return map[string]any{"event_filter": map[string]any{"conditions": []any{map[string]any{"field": field, "operator": op, "value": value}}}}
	}
	retry := func(key string, v any) map[string]any { return map[string]any{"retry_config": map[string]any{key: v}} }
	rate := func(key string, v any) map[string]any { return map[string]any{"rate_limit": map[string]any{key: v}} }
	cases := []struct {
		fields map[string]any
		issue  string
	}{
		{map[string]any{"name": nil}, "name invalid_type"},
		{map[string]any{"name": 7}, "name invalid_type"},
		{map[string]any{"name": ""}, "name too_small"},
		{map[string]any{"name": long(256)}, "name too_big"},
		{map[string]any{"url": nil}, "url invalid_type"},
		{map[string]any{"url": ""}, "url too_small"},
		{map[string]any{"url": "not a url"}, "url custom"},
		{map[string]any{"url": "ftp://receiver.example/"}, "url custom"},
		{map[string]any{"url": "javascript:alert(1)"}, "url custom"},
		{map[string]any{"url": "https://user:pass@receiver.example/"}, "url custom"},
		{map[string]any{"url": "https://10.0.0.1/"}, "url custom"},
		{map[string]any{"url": "https://169.254.169.254/latest/meta-data"}, "url custom"},
		{map[string]any{"url": "https://[fd00::1]/"}, "url custom"},
		{map[string]any{"url": "https://db.internal/"}, "url custom"},
		{map[string]any{"url": "https://receiver.example/" + strings.Repeat("x", 2048)}, "url too_big"},
		{map[string]any{"event_types": nil}, "event_types invalid_type"},
		{map[string]any{"event_types": []any{}}, "event_types too_small"},
		{map[string]any{"event_types": "ticket.created"}, "event_types invalid_type"},
		{map[string]any{"event_types": []any{7}}, "event_types.0 invalid_type"},
		{map[string]any{"event_types": []any{"ticket.created", "ticket.deleted"}}, "event_types.1 invalid_enum_value"},
		{map[string]any{"event_types": []any{"webhook.test"}}, "event_types.0 invalid_enum_value"},
		{map[string]any{"method": "GET"}, "method invalid_enum_value"},
		{map[string]any{"method": "DELETE"}, "method invalid_enum_value"},
		{map[string]any{"method": "post"}, "method invalid_enum_value"},
		{map[string]any{"custom_headers": []any{}}, "custom_headers invalid_type"},
		{map[string]any{"custom_headers": map[string]any{"x-a": 1}}, "custom_headers.x-a invalid_type"},
		{map[string]any{"custom_headers": map[string]any{"X-ALGA-Signature": "v"}}, "custom_headers.X-ALGA-Signature custom"},
		{map[string]any{"custom_headers": map[string]any{"webhook-id": "v"}}, "custom_headers.webhook-id custom"},
		{map[string]any{"custom_headers": map[string]any{"Content-Type": "v"}}, "custom_headers.Content-Type custom"},
		{map[string]any{"custom_headers": map[string]any{"HOST": "v"}}, "custom_headers.HOST custom"},
		{map[string]any{"custom_headers": map[string]any{"transfer-encoding": "v"}}, "custom_headers.transfer-encoding custom"},
		{map[string]any{"custom_headers": map[string]any{"x a": "v"}}, "custom_headers.x a custom"},
		{map[string]any{"custom_headers": map[string]any{"x-a": "v\r\nx-b: w"}}, "custom_headers.x-a custom"},
		{map[string]any{"custom_headers": map[string]any{"x-a": strings.Repeat("v", 8<<10)}}, "custom_headers custom"},
		{map[string]any{"custom_headers": headers}, "custom_headers custom"},
		{map[string]any{"event_filter": map[string]any{"entity_types": []any{"ticket"}}}, "event_filter unrecognized_keys"},
		{map[string]any{"event_filter": map[string]any{"priority": "High"}}, "event_filter unrecognized_keys"},
		{map[string]any{"event_filter": "tag"}, "event_filter invalid_type"},
		{map[string]any{"event_filter": map[string]any{"entity_ids": []any{"TKT-1"}}}, "event_filter.entity_ids.0 invalid_string"},
		{map[string]any{"event_filter": map[string]any{"tags": []any{""}}}, "event_filter.tags.0 too_small"},
		{map[string]any{"event_filter": map[string]any{"tags": "vip"}}, "event_filter.tags invalid_type"},
		{map[string]any{"event_filter": map[string]any{"conditions": []any{"x"}}}, "event_filter.conditions.0 invalid_type"},
		{map[string]any{"event_filter": map[string]any{"conditions": []any{map[string]any{}}}}, "event_filter.conditions.0.field invalid_type"},
		{map[string]any{"event_filter": map[string]any{"conditions": []any{map[string]any{"field": "title", "operator": "equals", "value": "x", "or": 1}}}}, "event_filter.conditions.0 unrecognized_keys"},
		{map[string]any{"event_filter": map[string]any{"conditions": []any{map[string]any{"field": "title", "operator": "equals"}}}}, "event_filter.conditions.0.value invalid_type"},
		{condition("colour", "equals", "red"), "event_filter.conditions.0.field invalid_enum_value"},
		{condition("title", "like", "red"), "event_filter.conditions.0.operator invalid_enum_value"},
		{condition("is_closed", "greater_than", true), "event_filter.conditions.0.operator custom"},
		{condition("is_closed", "equals", "yes"), "event_filter.conditions.0.value custom"},
		{map[string]any{"payload_fields": []any{"title"}}, "payload_fields invalid_type"},
		{map[string]any{"payload_fields": map[string]any{"client": []any{}}}, "payload_fields unrecognized_keys"},
		{map[string]any{"payload_fields": map[string]any{"ticket": "title"}}, "payload_fields.ticket invalid_type"},
		{map[string]any{"payload_fields": map[string]any{"ticket": []any{"ticket_id"}}}, "payload_fields.ticket.0 invalid_enum_value"},
		{map[string]any{"payload_fields": map[string]any{"ticket": []any{"suppress_contact_notifications"}}}, "payload_fields.ticket.0 invalid_enum_value"},
		{map[string]any{"verify_ssl": "false"}, "verify_ssl invalid_type"},
		{map[string]any{"is_active": 1}, "is_active invalid_type"},
		{map[string]any{"is_test_mode": nil}, "is_test_mode invalid_type"},
		{map[string]any{"retry_config": []any{}}, "retry_config invalid_type"},
		{retry("jitter", 1), "retry_config unrecognized_keys"},
		{retry("schedule", []any{}), "retry_config.schedule too_small"},
		{retry("schedule", []any{0}), "retry_config.schedule.0 too_small"},
		{retry("schedule", []any{1.5}), "retry_config.schedule.0 invalid_type"},
		{retry("schedule", []any{"1m"}), "retry_config.schedule.0 invalid_type"},
		{retry("schedule", make([]int, 21)), "retry_config.schedule too_big"},
		{retry("strategy", "random"), "retry_config.strategy invalid_enum_value"},
		{retry("strategy", "custom"), "retry_config.schedule custom"},
		{retry("max_attempts", 0), "retry_config.max_attempts too_small"},
		{retry("max_attempts", 11), "retry_config.max_attempts too_big"},
		{retry("initial_delay", 0), "retry_config.initial_delay too_small"},
		{retry("max_delay", 999), "retry_config.max_delay too_small"},
		{retry("backoff_multiplier", 0.5), "retry_config.backoff_multiplier too_small"},
		{retry("timeout", 999), "retry_config.timeout too_small"},
		{retry("timeout", 30001), "retry_config.timeout too_big"},
		{retry("timeout", "10s"), "retry_config.timeout invalid_type"},
		{map[string]any{"rate_limit": 100}, "rate_limit invalid_type"},
		{rate("requests_per_minute", 0), "rate_limit.requests_per_minute too_small"},
		{rate("requests_per_minute", 1001), "rate_limit.requests_per_minute too_big"},
		{rate("burst_limit", 0), "rate_limit.burst_limit too_small"},
		{rate("enabled", "no"), "rate_limit.enabled invalid_type"},
		{rate("per_second", 1), "rate_limit unrecognized_keys"},
		{map[string]any{"rate_limit_per_min": 0}, "rate_limit_per_min too_small"},
		{map[string]any{"rate_limit_per_min": nil}, "rate_limit_per_min custom"},
		{map[string]any{"rate_limit_per_min": 50, "rate_limit": map[string]any{"requests_per_minute": 60}}, "rate_limit_per_min custom"},
		{map[string]any{"rate_limit_per_min": nil, "rate_limit": nil}, "rate_limit_per_min custom"},
		{map[string]any{"payload_format": "xml"}, "payload_format custom"},
		{map[string]any{"content_type": "text/xml"}, "content_type custom"},
		{map[string]any{"payload_transformation": map[string]any{"template": "x"}}, "payload_transformation custom"},
		{map[string]any{"security": map[string]any{"type": "bearer", "token": "x"}}, "security.type custom"},
		{map[string]any{"security": "hmac"}, "security invalid_type"},
		{map[string]any{"secret_token": "mine"}, "secret_token custom"},
		{map[string]any{"metadata": []any{}}, "metadata invalid_type"},
		{map[string]any{"metadata": map[string]any{"x": strings.Repeat("v", 16<<10-len(`{"x":""}`)+1)}}, "metadata custom"},
		{map[string]any{"tags": nil}, "tags invalid_type"},
		{map[string]any{"tags": []any{""}}, "tags.0 custom"},
		{map[string]any{"tags": []any{long(51)}}, "tags.0 custom"},
		{map[string]any{"tags": make([]string, 51)}, "tags too_big"},
		{map[string]any{"description": 7}, "description invalid_type"},
		{map[string]any{"description": long(5001)}, "description too_big"},
	}
	base := map[string]any{"name": "x", "url": nowhere, "event_types": []string{"ticket.created"}}
	made := h.createWebhook(t, nowhere)
	id := made["webhook_id"].(string)
	for _, c := range cases {
		for method, path := range map[string]string{"POST": "/webhooks", "PUT": "/webhooks/" + id} {
			body := c.fields
			if method == "POST" {
				body = merged(base, c.fields)
			}
			e := h.do(t, method, path, h.a.APIKey, body).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
			if e["message"] != "Validation failed" {
				t.Errorf("%s %v says %q", method, c.fields, e["message"])
			}
			wantIssue(t, e, c.issue)
			seen := map[string]bool{}
			for _, d := range e["details"].([]any) {
				path := fmt.Sprint(d.(map[string]any)["path"])
				if seen[path] {
					t.Errorf("%v: %s is named twice: %v", c.fields, path, e["details"])
				}
				seen[path] = true
			}
		}
	}
	for _, key := range []string{"name", "url", "event_types"} {
		e := h.do(t, "POST", "/webhooks", h.a.APIKey, without(base, key)).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
		wantIssue(t, e, key+" invalid_type")
	}
	list := h.do(t, "GET", "/webhooks", h.a.APIKey, nil).want(t, http.StatusOK).list(t)
	if len(list) != 1 {
		t.Fatalf("refused bodies left %d webhooks, want the 1 there was", len(list))
	}
	if diff := cmp.Diff(without(made, "signing_secret"), list[0]); diff != "" {
		t.Errorf("refused bodies changed the webhook (-before +after):\n%s", diff)
	}
}

// TestIssuesComeTogether: one answer names everything that is wrong.
func TestIssuesComeTogether(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	body := map[string]any{"name": nil, "url": "ftp://x", "event_types": []string{"nope"}, "method": "GET", "is_active": "yes"}
	e := h.do(t, "POST", "/webhooks", h.a.APIKey, body).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
	for _, issue := range []string{
		"name invalid_type", "url custom", "event_types.0 invalid_enum_value", "method invalid_enum_value", "is_active invalid_type",
	} {
		wantIssue(t, e, issue)
	}
	if n := len(e["details"].([]any)); n != 5 {
		t.Errorf("%d issues, want 5: %v", n, e["details"])
	}
	for _, body := range []any{`[]`, `"x"`, `{`, `null`, "{\"name\":\"\xff\"}"} {
		h.do(t, "POST", "/webhooks", h.a.APIKey, body).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
	}
}

// TestFieldsWork: the fields that change what is sent do so.
func TestFieldsWork(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	rc := h.receiver(t, nil)
	vip := h.createTicket(t, map[string]any{"tags": []string{"vip"}})["ticket_id"].(string)

	h.createWebhook(t, rc.URL+"/plain", map[string]any{
		"method": "PATCH", "custom_headers": map[string]string{"x-team": "ops"}, "event_types": []string{"ticket.closed"},
		"payload_fields": map[string]any{"ticket": []string{"title"}},
	})
	h.createWebhook(t, rc.URL+"/other-tag", map[string]any{
		"event_types": []string{"ticket.closed"}, "event_filter": map[string]any{"tags": []string{"other"}},
	})
	trial := h.createWebhook(t, rc.URL+"/trial", map[string]any{
		"event_types": []string{"ticket.closed"}, "is_test_mode": true,
		"event_filter": map[string]any{
			"entity_ids": []string{vip}, "tags": []string{"VIP"},
			"conditions": []any{map[string]any{"field": "is_closed", "operator": "equals", "value": true}},
		},
	})["webhook_id"].(string)
	other := h.createTicket(t)["ticket_id"].(string)
	for _, id := range []string{other, vip} {
		body := map[string]any{"status_id": h.a.Statuses["Closed"]}
		h.do(t, "PUT", "/tickets/"+id, h.a.APIKey, body).want(t, http.StatusOK)
	}

	got := map[string]int{}
	for range 3 {
		d := rc.next(t)
		got[d.Path]++
		if d.Path != "/plain" {
			continue
		}
		if d.Method != "PATCH" || d.Header.Get("X-Team") != "ops" {
			t.Errorf("%s with X-Team %q", d.Method, d.Header.Get("X-Team"))
		}
		data := decode[struct{ Data map[string]any }](t, d.Body).Data
		if len(data) != 2 || data["title"] == nil || data["ticket_id"] == nil {
			t.Errorf("payload_fields left %v", data)
		}
	}
	if diff := cmp.Diff(map[string]int{"/plain": 2, "/trial": 1}, got); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	// Deliveries of a webhook in test mode are marked and count for nothing.
	h.wait(t, "the trial is recorded", func() bool {
		r := h.do(t, "GET", "/webhooks/"+trial+"/deliveries?status=delivered", h.a.APIKey, nil)
		return r.at("data", 0, "is_test") == true
	})
	record := h.do(t, "GET", "/webhooks/"+trial, h.a.APIKey, nil).want(t, http.StatusOK).data(t)
	if record["total_deliveries"] != 0.0 || record["last_delivery_at"] != nil {
		t.Errorf("a trial was counted: %v", record)
	}
}

// TestCertificatesCount: verify_ssl decides whether a receiver's own
// certificate is good enough.
func TestCertificatesCount(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(server.Close)
	id := h.createWebhook(t, server.URL)["webhook_id"].(string)
	r := h.do(t, "POST", "/webhooks/"+id+"/test", h.a.APIKey, nil).want(t, http.StatusOK)
	if r.at("data", "success") != false || r.at("data", "error_type") != "tls" {
		t.Errorf("an unknown certificate: %s", r.Raw)
	}
	h.do(t, "PUT", "/webhooks/"+id, h.a.APIKey, map[string]any{"verify_ssl": false}).want(t, http.StatusOK)
	r = h.do(t, "POST", "/webhooks/"+id+"/test", h.a.APIKey, nil).want(t, http.StatusOK)
	if r.at("data", "success") != true {
		t.Errorf("with verify_ssl false: %s", r.Raw)
	}
}
