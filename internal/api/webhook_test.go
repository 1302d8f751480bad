package api_test

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/store"
)

// nowhere is a receiver that no test calls.
const nowhere = "https://receiver.example/hook"

func TestWebhookLifecycle(t *testing.T) {
	t.Parallel()
	h := newHarness(t)

	made := h.createWebhook(t, nowhere, map[string]any{"description": "Ticket mirror", "tags": []string{"ops"}})
	id := made["webhook_id"].(string)
	secret, _ := made["signing_secret"].(string)
	if len(secret) != 43 {
		t.Errorf("signing_secret has %d characters, want 43", len(secret))
	}
	want := map[string]any{
		"tenant": h.a.TenantID, "created_by": h.a.UserID, "name": "Test", "description": "Ticket mirror", "url": nowhere,
		"method": "POST", "event_types": anys(delivery.EventTypes()[:6]), "payload_format": "json", "content_type": "application/json",
		"custom_headers": nil, "event_filter": nil, "payload_fields": nil, "payload_transformation": nil, "retry_config": nil,
		"rate_limit": nil, "rate_limit_per_min": 100.0, "is_active": true, "is_test_mode": false, "verify_ssl": true, "tls": nil,
		"metadata": nil, "tags": []any{"ops"}, "total_deliveries": 0.0, "successful_deliveries": 0.0, "failed_deliveries": 0.0,
		"last_delivery_at": nil, "last_success_at": nil, "last_failure_at": nil, "auto_disabled_at": nil,
		"disabled_at": nil, "disabled_reason": nil,
	}
	got := merged(made)
	for _, key := range []string{"webhook_id", "signing_secret", "created_at", "updated_at"} {
		if s, _ := got[key].(string); s == "" {
			t.Errorf("%s is missing", key)
		}
		delete(got, key)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("created record (-want +got):\n%s", diff)
	}

	read := h.do(t, "GET", "/webhooks/"+strings.ToUpper(id), h.a.APIKey, nil).want(t, http.StatusOK).data(t)
	if diff := cmp.Diff(without(made, "signing_secret"), read); diff != "" {
		t.Errorf("read record (-created +read):\n%s", diff)
	}
	subs := h.do(t, "GET", "/webhooks/"+id+"/subscriptions", h.a.APIKey, nil).want(t, http.StatusOK).data(t)
	if diff := cmp.Diff(map[string]any{"webhook_id": id, "event_types": made["event_types"]}, subs); diff != "" {
		t.Errorf("subscriptions (-want +got):\n%s", diff)
	}

	after := h.do(t, "PUT", "/webhooks/"+id, h.a.APIKey, map[string]any{"name": "Mirror"}).want(t, http.StatusOK).data(t)
	if diff := cmp.Diff(merged(read, map[string]any{"name": "Mirror", "updated_at": after["updated_at"]}), after); diff != "" {
		t.Errorf("a partial update touched more than it names (-want +got):\n%s", diff)
	}
	cleared := h.do(t, "PUT", "/webhooks/"+id, h.a.APIKey, map[string]any{"description": nil}).want(t, http.StatusOK)
	if cleared.at("data", "description") != nil {
		t.Errorf("description was not cleared: %s", cleared.Raw)
	}

	gone := h.do(t, "DELETE", "/webhooks/"+id, h.a.APIKey, nil).want(t, http.StatusNoContent)
	if len(gone.Raw) > 0 {
		t.Errorf("delete answered a body: %s", gone.Raw)
	}
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		e := h.do(t, method, "/webhooks/"+id, h.a.APIKey, nil).wantError(t, http.StatusNotFound, "NOT_FOUND")
		if e["message"] != "Webhook not found" {
			t.Errorf("%s of a deleted webhook says %q", method, e["message"])
		}
	}
}

func anys(list []string) []any {
	out := make([]any, len(list))
	for i, s := range list {
		out[i] = s
	}
	return out
}

func TestEventTypeNames(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	got := h.do(t, "GET", "/webhooks/events", h.a.APIKey, nil).want(t, http.StatusOK)
	if diff := cmp.Diff(any(anys(delivery.EventTypes())), got.at("data")); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	if n := len(delivery.EventTypes()); n != 40 {
		t.Errorf("%d names, want 40", n)
	}
}

// TestTemplates: templates are not offered, and the word is no webhook's id.
func TestTemplates(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for _, method := range []string{"GET", "POST"} {
		h.do(t, method, "/webhooks/templates", h.a.APIKey, nil).wantError(t, http.StatusNotFound, "NOT_FOUND")
	}
	h.do(t, "POST", "/webhooks/templates/"+unknownID+"/create", h.a.APIKey, nil).wantError(t, http.StatusNotFound, "NOT_FOUND")
}

func TestWebhookWarnings(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	body := map[string]any{"name": "x", "url": "http://receiver.example/", "event_types": []string{"ticket.created", "invoice.paid"}}
	got := h.do(t, "POST", "/webhooks", h.a.APIKey, body).want(t, http.StatusCreated)
	list, _ := got.at("meta", "warnings").([]any)
	if len(list) != 2 || !strings.Contains(fmt.Sprint(list[0]), "http:") || !strings.Contains(fmt.Sprint(list[1]), "invoice.paid") {
		t.Errorf("warnings are %v", list)
	}
	changed := h.do(t, "PUT", "/webhooks/"+got.text("data", "webhook_id"), h.a.APIKey, map[string]any{"url": nowhere}).want(t, http.StatusOK)
	if list, _ := changed.at("meta", "warnings").([]any); len(list) != 1 || !strings.Contains(fmt.Sprint(list[0]), "invoice.paid") {
		t.Errorf("warnings of a change are %v", list)
	}
	body = map[string]any{"name": "x", "url": nowhere, "event_types": []string{"ticket.created"}}
	if m := h.do(t, "POST", "/webhooks", h.a.APIKey, body).want(t, http.StatusCreated).at("meta"); m != nil {
		t.Errorf("a plain webhook got meta %v", m)
	}
}

func TestWebhookLimit(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(s *settings) { s.store.MaxWebhooks = 2 })
	first := h.createWebhook(t, nowhere)
	h.createWebhook(t, nowhere)
	body := map[string]any{"name": "x", "url": nowhere, "event_types": []string{"ticket.created"}}
	h.do(t, "POST", "/webhooks", h.a.APIKey, body).wantError(t, http.StatusConflict, "CONFLICT")
	h.do(t, "DELETE", "/webhooks/"+first["webhook_id"].(string), h.a.APIKey, nil).want(t, http.StatusNoContent)
	h.do(t, "POST", "/webhooks", h.a.APIKey, body).want(t, http.StatusCreated)
}

func TestWebhookListFilters(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	bad := h.receiver(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	good := h.receiver(t, nil)
	start := time.Now().UTC().Add(-time.Minute).Format("2006-01-02T15:04:05Z")
	h.createWebhook(t, nowhere, map[string]any{"name": "Quiet", "is_active": false, "event_types": []string{"project.created"}})
	h.createWebhook(t, bad.URL, map[string]any{"name": "Broken", "description": "teapot", "event_types": []string{"ticket.created"}})
	h.createWebhook(t, good.URL, map[string]any{"name": "Fine", "is_test_mode": false, "event_types": []string{"ticket.created"}})
	h.createWebhook(t, nowhere, map[string]any{"name": "Trial", "is_test_mode": true, "event_types": []string{"ticket.closed"}})
	h.createTicket(t)
	names := func(query string) string {
		t.Helper()
		r := h.do(t, "GET", "/webhooks?sort=name&order=asc"+query, h.a.APIKey, nil).want(t, http.StatusOK)
		var out []string
		for _, w := range r.list(t) {
			out = append(out, w["name"].(string))
		}
		return strings.Join(out, " ")
	}
	h.wait(t, "both deliveries are recorded", func() bool { return names("&last_delivery_from="+start) == "Broken Fine" })

	day, _, _ := strings.Cut(h.do(t, "GET", "/webhooks?name=fine", h.a.APIKey, nil).text("data", 0, "last_delivery_at"), "T")
	for query, want := range map[string]string{
		"":                                   "Broken Fine Quiet Trial",
		"&name=fine&last_delivery_to=" + day: "Fine", // to its end
		"&name=broken":                       "Broken",
		"&url=receiver.example":              "Quiet Trial",
		"&event_type=ticket.created":         "Broken Fine",
		"&is_active=false":                   "Quiet",
		"&is_active=true&name=tri":           "Trial",
		"&is_test_mode=true":                 "Trial",
		"&payload_format=json&name=fine":     "Fine",
		"&payload_format=xml":                "",
		"&has_failures=true":                 "Broken",
		"&has_failures=false":                "Fine Quiet Trial",
		"&last_delivery_to=" + start:         "",
		"&last_delivery_to=2999-01-01":       "Broken Fine",
		"&delivery_rate_max=50":              "Broken",
		"&delivery_rate_min=50":              "Fine Quiet Trial",
		"&query=TEAPOT":                      "Broken",
		"&limit=2":                           "Broken Fine",
		"&limit=2&page=2":                    "Quiet Trial",
		"&page=9":                            "",
	} {
		if got := names(query); got != want {
			t.Errorf("%q lists %q, want %q", query, got, want)
		}
	}
	r := h.do(t, "GET", "/webhooks?limit=500&name=o", h.a.APIKey, nil).want(t, http.StatusOK)
	want := map[string]any{"page": 1.0, "limit": 100.0, "total": 1.0, "totalPages": 1.0, "hasNext": false, "hasPrev": false}
	if diff := cmp.Diff(any(want), r.at("pagination")); diff != "" {
		t.Errorf("a limit over 100 is capped (-want +got):\n%s", diff)
	}
	if got := r.at("meta", "filters", "name"); got != "o" {
		t.Errorf("meta.filters.name is %v", got)
	}
	for _, query := range []string{
		"page=0", "page=x", "limit=0", "limit=x", "sort=secret", "order=up", "is_active=yes", "event_type=ticket.deleted",
		"last_delivery_from=yesterday", "delivery_rate_min=low", "delivery_rate_max=NaN",
	} {
		h.do(t, "GET", "/webhooks?"+query, h.a.APIKey, nil).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
	}
}

// TestReenable: events of an outage are queued when replay_missed asks for it,
// and only then (contract P8).
func TestReenable(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	rc := h.receiver(t, nil)
	id := h.createWebhook(t, rc.URL, map[string]any{"event_types": []string{"ticket.created"}})["webhook_id"].(string)
	put := func(body map[string]any) *response {
		t.Helper()
		return h.do(t, "PUT", "/webhooks/"+id, h.a.APIKey, body)
	}
	off := put(map[string]any{"is_active": false}).want(t, http.StatusOK).data(t)
	if off["disabled_reason"] != "user" || off["disabled_at"] == nil || off["is_active"] != false {
		t.Errorf("a webhook that was switched off says %v", off)
	}
	health := h.do(t, "GET", "/webhooks/"+id+"/health", h.a.APIKey, nil).want(t, http.StatusOK)
	if health.text("data", "status") != "disabled" {
		t.Errorf("health is %s", health.Raw)
	}
	wantIssue(t, put(map[string]any{"replay_missed": true}).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR"), "replay_missed custom")
	wantIssue(t, put(map[string]any{"is_active": true, "replay_missed": 1}).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR"), "replay_missed invalid_type")

	h.createTicket(t, map[string]any{"title": "lost"})
	on := put(map[string]any{"is_active": true}).want(t, http.StatusOK)
	if on.at("meta", "replayed") != nil {
		t.Errorf("a plain re-enable replayed: %s", on.Raw)
	}
	put(map[string]any{"is_active": false}).want(t, http.StatusOK)
	h.createTicket(t, map[string]any{"title": "missed 1"})
	h.createTicket(t, map[string]any{"title": "missed 2"})
	on = put(map[string]any{"is_active": true, "replay_missed": true}).want(t, http.StatusOK)
	if on.at("meta", "replayed") != 2.0 || on.at("data", "disabled_at") != nil || on.at("data", "disabled_reason") != nil {
		t.Errorf("re-enable with replay answered %s", on.Raw)
	}
	var titles []string
	for range 2 {
		title, _ := decode[envelope](t, rc.next(t).Body).Data["title"].(string)
		titles = append(titles, title)
	}
	slices.Sort(titles)
	if diff := cmp.Diff([]string{"missed 1", "missed 2"}, titles); diff != "" {
		t.Errorf("replayed (-want +got):\n%s", diff)
	}
}

// TestCreateIsIdempotent: a repeated create gets the first answer, its secret
// included, and makes nothing new (contract P10).
func TestCreateIsIdempotent(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	body := map[string]any{"name": "once", "url": nowhere, "event_types": []string{"ticket.created"}}
	first := h.do(t, "POST", "/webhooks", h.a.APIKey, body, "X-Idempotency-Key", "k1").want(t, http.StatusCreated)
	again := h.do(t, "POST", "/webhooks", h.a.APIKey, body, "X-Idempotency-Key", "k1").want(t, http.StatusCreated)
	if !bytes.Equal(first.Raw, again.Raw) {
		t.Errorf("answers differ:\n%s\n%s", first.Raw, again.Raw)
	}
	body["name"] = "twice"
	h.do(t, "POST", "/webhooks", h.a.APIKey, body, "X-Idempotency-Key", "k1").wantError(t, http.StatusConflict, "CONFLICT")
	list := h.do(t, "GET", "/webhooks", h.a.APIKey, nil).want(t, http.StatusOK)
	if list.at("pagination", "total") != 1.0 {
		t.Errorf("there are webhooks: %s", list.Raw)
	}
	id := first.text("data", "webhook_id")
	for _, path := range []string{"/webhooks/" + id + "/secret/rotate", "/webhooks/" + id + "/secret/promote"} {
		one := h.do(t, "POST", path, h.a.APIKey, nil, "X-Idempotency-Key", "k2").want(t, http.StatusOK)
		two := h.do(t, "POST", path, h.a.APIKey, nil, "X-Idempotency-Key", "k2").want(t, http.StatusOK)
		if !bytes.Equal(one.Raw, two.Raw) {
			t.Errorf("%s answers differ:\n%s\n%s", path, one.Raw, two.Raw)
		}
	}
}

func TestRotation(t *testing.T) {
	t.Parallel()
	c := newStillClock()
	h := newHarness(t, func(s *settings) { s.now = c.now })
	rc := h.receiver(t, nil)
	made := h.createWebhook(t, rc.URL)
	id, first := made["webhook_id"].(string), made["signing_secret"].(string)
	rotate := func(body any) (secret string, r *response) {
		t.Helper()
		r = h.do(t, "POST", "/webhooks/"+id+"/secret/rotate", h.a.APIKey, body).want(t, http.StatusOK)
		secret = r.text("data", "signing_secret")
		if len(secret) != 43 || r.text("data", "webhook_id") != id {
			t.Fatalf("rotation answered %s", r.Raw)
		}
		return secret, r
	}
	// signedWith names the secrets that the next delivery verifies with.
	signedWith := func(secrets map[string]string) string {
		t.Helper()
		h.do(t, "POST", "/webhooks/"+id+"/test", h.a.APIKey, nil).want(t, http.StatusOK)
		d := rc.next(t)
		var out []string
		for name, secret := range secrets {
			if verifies(d, secret, c.now()) {
				out = append(out, name)
			}
		}
		slices.Sort(out)
		return fmt.Sprintf("%s %d", strings.Join(out, "+"), strings.Count(d.Header.Get("X-Alga-Signature"), "v1="))
	}

	second, r := rotate(nil)
	if r.at("data", "previous_secret_expires_at") != nil {
		t.Errorf("a rotation without grace answered %s", r.Raw)
	}
	secrets := map[string]string{"first": first, "second": second}
	if got := signedWith(secrets); got != "second 1" {
		t.Errorf("after a cut-over deliveries are signed with %s", got)
	}
	third, r := rotate(map[string]any{"grace_period_seconds": 3600})
	if r.text("data", "previous_secret_expires_at") == "" {
		t.Errorf("a rotation with grace answered %s", r.Raw)
	}
	secrets["third"] = third
	if got := signedWith(secrets); got != "second+third 3" {
		t.Errorf("during the grace deliveries are signed with %s", got)
	}
	h.do(t, "POST", "/webhooks/"+id+"/secret/promote", h.a.APIKey, nil).want(t, http.StatusOK)
	if got := signedWith(secrets); got != "third 1" {
		t.Errorf("after a promotion deliveries are signed with %s", got)
	}
	fourth, _ := rotate(map[string]any{"grace_period_seconds": 604800})
	secrets["fourth"] = fourth
	c.advance(604801 * time.Second)
	if got := signedWith(secrets); got != "fourth 1" {
		t.Errorf("after the grace deliveries are signed with %s", got)
	}

	for _, grace := range []any{-1, 604801, 1.5, "60", true} {
		body := map[string]any{"grace_period_seconds": grace}
		h.do(t, "POST", "/webhooks/"+id+"/secret/rotate", h.a.APIKey, body).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
	}
	for _, what := range []string{"rotate", "promote"} {
		h.do(t, "POST", "/webhooks/"+unknownID+"/secret/"+what, h.a.APIKey, nil).wantError(t, http.StatusNotFound, "NOT_FOUND")
	}
}

// TestNoSecretIsShown asks every route that reads about a webhook and its
// deliveries, and looks for the signing secrets and the credential in a header.
func TestNoSecretIsShown(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	rc := h.receiver(t, nil)
	credential := "Bearer open-sesame"
	made := h.createWebhook(t, rc.URL, map[string]any{"custom_headers": map[string]string{"Authorization": credential}})
	id := made["webhook_id"].(string)
	h.createTicket(t)
	if got := rc.next(t).Header.Get("Authorization"); got != credential {
		t.Errorf("the receiver got Authorization %q", got)
	}
	rotated := h.do(t, "POST", "/webhooks/"+id+"/secret/rotate", h.a.APIKey, map[string]any{"grace_period_seconds": 60}).want(t, http.StatusOK)
	secrets := []string{made["signing_secret"].(string), rotated.text("data", "signing_secret")}
	reader := h.key(t, h.a.TenantID, "webhook:read", "webhook:test", "webhook:analytics")

	h.wait(t, "the delivery is recorded", func() bool {
		return h.do(t, "GET", "/webhooks/"+id, reader, nil).at("data", "total_deliveries") == 1.0
	})
	deliveries := h.do(t, "GET", "/webhooks/"+id+"/deliveries", reader, nil).want(t, http.StatusOK)
	answers := []*response{
		deliveries,
		h.do(t, "GET", "/webhooks", reader, nil),
		h.do(t, "GET", "/webhooks/"+id, reader, nil),
		h.do(t, "GET", "/webhooks/"+id+"/health", reader, nil),
		h.do(t, "GET", "/webhooks/"+id+"/subscriptions", reader, nil),
		h.do(t, "GET", "/webhooks/"+id+"/analytics", reader, nil),
		h.do(t, "GET", "/webhooks/"+id+"/deliveries/"+deliveries.text("data", 0, "delivery_id"), reader, nil),
		h.do(t, "POST", "/webhooks/"+id+"/test", reader, nil),
		h.do(t, "GET", "/events", reader, nil),
	}
	for _, r := range answers {
		r.want(t, http.StatusOK)
		for _, s := range append(secrets, credential) {
			if bytes.Contains(r.Raw, []byte(s)) {
				t.Errorf("a secret is in %s", r.Raw)
			}
		}
	}
	bare := h.createWebhook(t, nowhere)["webhook_id"].(string)
	if r := h.do(t, "GET", "/webhooks/"+bare, reader, nil).want(t, http.StatusOK); r.at("data", "custom_headers") != nil {
		t.Errorf("a reader sees headers where there are none: %s", r.Raw)
	}
	if got := answers[2].at("data", "custom_headers", "Authorization"); got != "[REDACTED]" {
		t.Errorf("a reader sees the header as %v", got)
	}
	owner := h.do(t, "PUT", "/webhooks/"+id, h.a.APIKey, map[string]any{"name": "n"}).want(t, http.StatusOK)
	if got := owner.at("data", "custom_headers", "Authorization"); got != credential {
		t.Errorf("an owner sees the header as %v", got)
	}
	if owner.at("data", "signing_secret") != nil {
		t.Error("an update shows the signing secret")
	}
	// What a reader saw must not be saved in place of the credential.
	e := h.do(t, "PUT", "/webhooks/"+id, h.a.APIKey, map[string]any{"custom_headers": map[string]string{"Authorization": "[REDACTED]"}}).
		wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
	wantIssue(t, e, "custom_headers.Authorization custom")
}

// webhookRoutes are the operations on webhooks with the action that each needs.
func webhookRoutes(id, deliveryID string) []struct{ method, path, action string } {
	return []struct{ method, path, action string }{
		{"GET", "/webhooks", "read"},
		{"POST", "/webhooks", "create"},
		{"GET", "/webhooks/events", "read"},
		{"GET", "/webhooks/" + id, "read"},
		{"PUT", "/webhooks/" + id, "update"},
		{"POST", "/webhooks/" + id + "/test", "test"},
		{"POST", "/webhooks/test", "test"},
		{"POST", "/webhooks/verify", "verify"},
		{"POST", "/webhooks/" + id + "/secret/rotate", "manage_security"},
		{"POST", "/webhooks/" + id + "/secret/promote", "manage_security"},
		{"GET", "/webhooks/" + id + "/subscriptions", "read"},
		{"GET", "/webhooks/" + id + "/health", "read"},
		{"GET", "/webhooks/" + id + "/deliveries", "read"},
		{"GET", "/webhooks/" + id + "/deliveries/" + deliveryID, "read"},
		{"POST", "/webhooks/" + id + "/deliveries/" + deliveryID + "/retry", "retry"},
		{"GET", "/webhooks/" + id + "/analytics", "analytics"},
		{"GET", "/webhooks/analytics", "analytics"},
		{"POST", "/webhooks/templates", "system_settings"},
		{"GET", "/events", "read"},
		{"GET", "/events/" + unknownID, "read"},
		{"DELETE", "/webhooks/" + id, "delete"},
	}
}

func TestWebhookPermissions(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	rc := h.receiver(t, nil)
	id := h.createWebhook(t, rc.URL)["webhook_id"].(string)
	var all []string
	for _, p := range store.AllPermissions() {
		if strings.HasPrefix(p, "webhook:") {
			all = append(all, p)
		}
	}
	keys := map[string]string{}
	for _, p := range all {
		rest := slices.DeleteFunc(slices.Clone(all), func(other string) bool { return other == p })
		keys["no "+p] = h.key(t, h.a.TenantID, rest...)
		keys[p] = h.key(t, h.a.TenantID, p)
	}
	for _, rt := range webhookRoutes(id, unknownID) {
		e := h.do(t, rt.method, rt.path, keys["no webhook:"+rt.action], nil).wantError(t, http.StatusForbidden, "FORBIDDEN")
		if want := "Permission denied: Cannot " + rt.action + " webhook"; e["message"] != want {
			t.Errorf("%s %s says %q, want %q", rt.method, rt.path, e["message"], want)
		}
		if r := h.do(t, rt.method, rt.path, keys["webhook:"+rt.action], nil); r.Status == http.StatusForbidden {
			t.Errorf("%s %s is closed to webhook:%s", rt.method, rt.path, rt.action)
		}
		h.do(t, rt.method, rt.path, "", nil).wantError(t, http.StatusUnauthorized, "UNAUTHORIZED")
	}
}

func TestWebhooksOfAnotherTenant(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	rc := h.receiver(t, nil)
	made := h.createWebhook(t, rc.URL)
	id := made["webhook_id"].(string)
	h.createTicket(t)
	d := rc.next(t).Header.Get("X-Alga-Delivery-Id")
	h.wait(t, "the delivery is recorded", func() bool {
		return h.do(t, "GET", "/webhooks/"+id+"/deliveries/"+d, h.a.APIKey, nil).text("data", "status") == "delivered"
	})
	for _, rt := range webhookRoutes(id, d) {
		if strings.Contains(rt.path, id) {
			h.do(t, rt.method, rt.path, h.b.APIKey, nil).wantError(t, http.StatusNotFound, "NOT_FOUND")
		}
	}
	verify := map[string]any{"algorithm": "sha256", "signature": "x", "body": "{}", "webhook_id": id}
	h.do(t, "POST", "/webhooks/verify", h.b.APIKey, verify).wantError(t, http.StatusNotFound, "NOT_FOUND")
	probe := map[string]any{"test_event_type": "ticket.created", "webhook_id": id}
	h.do(t, "POST", "/webhooks/test", h.b.APIKey, probe).wantError(t, http.StatusNotFound, "NOT_FOUND")
	if list := h.do(t, "GET", "/webhooks", h.b.APIKey, nil).want(t, http.StatusOK).list(t); len(list) > 0 {
		t.Errorf("tenant B sees %v", list)
	}
	if list := h.do(t, "GET", "/events", h.b.APIKey, nil).want(t, http.StatusOK).list(t); len(list) > 0 {
		t.Errorf("tenant B sees the events %v", list)
	}
	if after := h.do(t, "GET", "/webhooks/"+id, h.a.APIKey, nil).want(t, http.StatusOK).data(t); after["name"] != made["name"] {
		t.Errorf("tenant B changed the webhook: %v", after)
	}
	select {
	case extra := <-rc.seen:
		t.Errorf("tenant B made a request to the receiver: %+v", extra)
	default:
	}
}

func TestWebhookIDs(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for _, rt := range webhookRoutes("TKT-1000", unknownID) {
		if strings.Contains(rt.path, "TKT-1000") {
			e := h.do(t, rt.method, rt.path, h.a.APIKey, nil).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
			if e["message"] != "Invalid webhook ID format" {
				t.Errorf("%s %s says %q", rt.method, rt.path, e["message"])
			}
		}
	}
	for _, rt := range webhookRoutes(unknownID, "7") {
		if strings.Contains(rt.path, "/deliveries/7") {
			e := h.do(t, rt.method, rt.path, h.a.APIKey, nil).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
			if e["message"] != "Invalid delivery ID format" {
				t.Errorf("%s %s says %q", rt.method, rt.path, e["message"])
			}
		}
	}
	for _, rt := range webhookRoutes(unknownID, unknownID) {
		if strings.Contains(rt.path, unknownID) {
			h.do(t, rt.method, rt.path, h.a.APIKey, nil).wantError(t, http.StatusNotFound, "NOT_FOUND")
		}
	}
}

func TestProductGate(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.createWebhook(t, nowhere)["webhook_id"].(string)
	_, err := h.store.UpdateTenant(t.Context(), h.a.TenantID, func(tn *store.Tenant) error { tn.Product = "algadesk"; return nil })
	must(t, err)
	for _, rt := range webhookRoutes(id, unknownID) {
		e := h.do(t, rt.method, rt.path, h.a.APIKey, nil).wantError(t, http.StatusForbidden, "PRODUCT_ACCESS_DENIED")
		if e["details"] != nil {
			t.Errorf("%s %s has details %v", rt.method, rt.path, e["details"])
		}
	}
	h.do(t, "GET", "/tickets", h.a.APIKey, nil).want(t, http.StatusOK)
}
