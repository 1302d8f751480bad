package api_test

import (
	"bytes"
	"context"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type envelope struct {
	EventID   string         `json:"event_id"`
	EventType string         `json:"event_type"`
	Occurred  time.Time      `json:"occurred_at"`
	TenantID  string         `json:"tenant_id"`
	Data      map[string]any `json:"data"`
}

func TestTestDelivery(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	says := &answers{}
	says.status.Store(http.StatusOK)
	rc := h.receiver(t, says.handle)
	made := h.createWebhook(t, rc.URL, map[string]any{"is_active": false, "name": "Off <&>", "event_filter": map[string]any{"tags": []string{"x"}}})
	id, secret := made["webhook_id"].(string), made["signing_secret"].(string)
	path := "/webhooks/" + id + "/test"

	r := h.do(t, "POST", path, h.a.APIKey, map[string]any{"test_event_type": "ticket.created"}).want(t, http.StatusOK)
	got, sent := r.data(t), rc.next(t)
	e := decode[envelope](t, sent.Body)
	if diff := cmp.Diff(map[string]any{"webhook_id": id, "webhook_name": "Off <&>", "is_test": true}, e.Data); diff != "" {
		t.Errorf("data (-want +got):\n%s", diff)
	}
	if e.EventType != "webhook.test" || e.TenantID != h.a.TenantID || e.EventID != got["test_id"] {
		t.Errorf("envelope %+v", e)
	}
	if sent.Header.Get("X-Alga-Event-Type") != "webhook.test" || sent.Header.Get("X-Alga-Delivery-Attempt") != "1" ||
		sent.Header.Get("X-Alga-Delivery-Id") != got["delivery_id"] || sent.Header.Get("X-Alga-Webhook-Id") != id {
		t.Errorf("headers %v", sent.Header)
	}
	if !verifies(sent, secret, time.Now()) {
		t.Error("the test is not signed with the webhook's secret")
	}
	if keys := slices.Sorted(maps.Keys(got)); strings.Join(keys, " ") != "delivery_id response_body response_time_ms status_code success test_id tested_at" {
		t.Errorf("a successful test answers %v", keys)
	}
	if got["success"] != true || got["status_code"] != 200.0 || got["response_body"] != "said the receiver" || got["tested_at"].(string) < "2026" {
		t.Errorf("a successful test answers %v", got)
	}
	row := h.do(t, "GET", "/webhooks/"+id+"/deliveries/"+got["delivery_id"].(string), h.a.APIKey, nil).want(t, http.StatusOK).data(t)
	if row["is_test"] != true || row["status"] != "delivered" || row["ticket_id"] != nil {
		t.Errorf("its row is %v", row)
	}

	says.status.Store(http.StatusBadGateway)
	got = h.do(t, "POST", path, h.a.APIKey, nil).want(t, http.StatusOK).data(t)
	rc.next(t)
	if got["success"] != false || got["status_code"] != 502.0 || got["error_message"] != "receiver answered 502 Bad Gateway" {
		t.Errorf("a failed test answers %v", got)
	}
	row = h.do(t, "GET", "/webhooks/"+id+"/deliveries/"+got["delivery_id"].(string), h.a.APIKey, nil).want(t, http.StatusOK).data(t)
	if row["status"] != "abandoned" || row["next_retry_at"] != nil {
		t.Errorf("a failed test's row is %v", row)
	}
	after := h.do(t, "GET", "/webhooks/"+id, h.a.APIKey, nil).want(t, http.StatusOK).data(t)
	if after["total_deliveries"] != 0.0 || after["last_failure_at"] != nil || after["is_active"] != false {
		t.Errorf("tests moved the webhook: %v", after)
	}

	// The same key is one request; a broken connection is an answer too.
	one := h.do(t, "POST", path, h.a.APIKey, nil, "X-Idempotency-Key", "t").want(t, http.StatusOK)
	two := h.do(t, "POST", path, h.a.APIKey, nil, "X-Idempotency-Key", "t").want(t, http.StatusOK)
	if !bytes.Equal(one.Raw, two.Raw) {
		t.Errorf("answers differ:\n%s\n%s", one.Raw, two.Raw)
	}
	rc.next(t)
	closed := h.createWebhook(t, "http://127.0.0.1:1/")["webhook_id"].(string)
	got = h.do(t, "POST", "/webhooks/"+closed+"/test", h.a.APIKey, "").want(t, http.StatusOK).data(t)
	if _, has := got["status_code"]; has || got["success"] != false || got["error_type"] != "connect" || got["error_message"] == nil {
		t.Errorf("a test without an answer answers %v", got)
	}

	h.refuses(t, "POST", path, []refusal{
		{name: "unknown type", body: map[string]any{"test_event_type": "ticket.deleted"}, issue: "test_event_type invalid_enum_value"},
		{name: "type is null", body: map[string]any{"test_event_type": nil}, issue: "test_event_type invalid_type"},
		{name: "not an object", body: `[]`},
	})
	h.do(t, "POST", "/webhooks/"+unknownID+"/test", h.a.APIKey, nil).wantError(t, http.StatusNotFound, "NOT_FOUND")
	select {
	case extra := <-rc.seen:
		t.Errorf("one request too many: %v", extra.Header)
	default:
	}
}

func TestAdHocTest(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	says := &answers{}
	says.status.Store(http.StatusOK)
	rc := h.receiver(t, says.handle)
	made := h.createWebhook(t, rc.URL+"/own", map[string]any{"method": "PUT", "custom_headers": map[string]string{"Authorization": "Bearer open-sesame"}})
	id, secret := made["webhook_id"].(string), made["signing_secret"].(string)
	probe := func(body map[string]any) (map[string]any, delivered, envelope) {
		t.Helper()
		got := h.do(t, "POST", "/webhooks/test", h.a.APIKey, merged(map[string]any{"test_event_type": "ticket.created"}, body)).want(t, http.StatusOK).data(t)
		sent := rc.next(t)
		e := decode[envelope](t, sent.Body)
		if e.EventID != got["test_id"] || got["tested_at"].(string) < "2026" || e.EventType != "ticket.created" || e.TenantID != h.a.TenantID || e.Occurred.IsZero() {
			t.Errorf("envelope %+v for %v", e, got)
		}
		if sent.Header.Get("X-Alga-Event-Id") != e.EventID || sent.Header.Get("X-Alga-Event-Type") != e.EventType {
			t.Errorf("headers %v for %+v", sent.Header, e)
		}
		return got, sent, e
	}

	got, sent, e := probe(map[string]any{"override_url": rc.URL + "/any"})
	if sent.Path != "/any" || sent.Method != "POST" || sent.Header.Get("X-Alga-Signature") != "" || sent.Header.Get("X-Alga-Webhook-Id") != "" {
		t.Errorf("a test without webhook sent %s %s %v", sent.Method, sent.Path, sent.Header)
	}
	if diff := cmp.Diff(map[string]any{"is_test": true}, e.Data); diff != "" {
		t.Errorf("data (-want +got):\n%s", diff)
	}
	if keys := slices.Sorted(maps.Keys(got)); strings.Join(keys, " ") != "response_body response_time_ms status_code success test_id tested_at" {
		t.Errorf("answers %v", keys)
	}

	_, sent, _ = probe(map[string]any{"webhook_id": id})
	if sent.Path != "/own" || sent.Method != "PUT" || !verifies(sent, secret, time.Now()) ||
		sent.Header.Get("Authorization") != "Bearer open-sesame" || sent.Header.Get("X-Alga-Webhook-Id") != id {
		t.Errorf("a test of a webhook sent %s %s %v", sent.Method, sent.Path, sent.Header)
	}
	if want := `"data":{"webhook_id":"` + id + `","webhook_name":"Test","is_test":true}`; !bytes.Contains(sent.Body, []byte(want)) {
		t.Errorf("sent %s, want the keys in the order of the contract: %s", sent.Body, want)
	}

	payload := map[string]any{"ticket_id": unknownID, "title": "<b>", "tags": []any{}}
	_, sent, e = probe(map[string]any{"webhook_id": id, "override_url": rc.URL + "/copy", "test_payload": payload})
	if sent.Path != "/copy" || !verifies(sent, secret, time.Now()) || sent.Header.Get("Authorization") != "" {
		t.Errorf("a test at another address sent %s %v", sent.Path, sent.Header)
	}
	if diff := cmp.Diff(payload, e.Data); diff != "" {
		t.Errorf("test_payload (-want +got):\n%s", diff)
	}

	// Another address has no switch that would take its certificate unchecked.
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // it complains when the certificate is refused
	self := map[string]any{"test_event_type": "ticket.created", "override_url": secure.URL}
	if got = h.do(t, "POST", "/webhooks/test", h.a.APIKey, self).want(t, http.StatusOK).data(t); got["error_type"] != "tls" {
		t.Errorf("a test of a certificate that nobody knows answers %v", got)
	}

	says.status.Store(http.StatusNotFound)
	got, _, _ = probe(map[string]any{"override_url": rc.URL})
	if got["success"] != false || got["status_code"] != 404.0 || got["error_message"] != "receiver answered 404 Not Found" || got["error_type"] != "status" {
		t.Errorf("a failed test answers %v", got)
	}
	list := h.do(t, "GET", "/webhooks/"+id+"/deliveries", h.a.APIKey, nil).want(t, http.StatusOK).list(t)
	if len(list) > 0 {
		t.Errorf("ad hoc tests left rows: %v", list)
	}

	e2 := h.do(t, "POST", "/webhooks/test", h.a.APIKey, map[string]any{"test_event_type": "ticket.created"}).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
	if e2["message"] != "No webhook URL provided for testing" {
		t.Errorf("without an address it says %q", e2["message"])
	}
	with := func(fields map[string]any) map[string]any {
		return merged(map[string]any{"test_event_type": "ticket.created", "override_url": rc.URL}, fields)
	}
	h.refuses(t, "POST", "/webhooks/test", []refusal{
		{name: "no type", body: map[string]any{"override_url": rc.URL}, issue: "test_event_type invalid_type"},
		{name: "unknown type", body: with(map[string]any{"test_event_type": "webhook.test"}), issue: "test_event_type invalid_enum_value"},
		{name: "private address", body: with(map[string]any{"override_url": "http://10.0.0.1/"}), issue: "override_url custom"},
		{name: "metadata address", body: with(map[string]any{"override_url": "http://169.254.169.254/"}), issue: "override_url custom"},
		{name: "other scheme", body: with(map[string]any{"override_url": "file:///etc/passwd"}), issue: "override_url custom"},
		{name: "long address", body: with(map[string]any{"override_url": rc.URL + "/" + strings.Repeat("x", 2048)}), issue: "override_url too_big"},
		{name: "empty address", body: with(map[string]any{"override_url": ""}), issue: "override_url too_small"},
		{name: "payload is a list", body: with(map[string]any{"test_payload": []any{}}), issue: "test_payload invalid_type"},
		{name: "bad id", body: with(map[string]any{"webhook_id": "7"}), issue: "webhook_id invalid_string"},
		{name: "unknown id", body: with(map[string]any{"webhook_id": unknownID}), status: http.StatusNotFound, code: "NOT_FOUND"},
	})
	select {
	case extra := <-rc.seen:
		t.Errorf("a refused test was sent: %v", extra.Header)
	default:
	}
}

// What was sent is answered once, for a caller too who hung up meanwhile: his key
// brings the answer and no second request (contract P10).
func TestTestsAreSentOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	hangUp := func() {}
	rc := h.receiver(t, func(http.ResponseWriter, *http.Request) { hangUp() })
	id := h.createWebhook(t, rc.URL)["webhook_id"].(string)
	for path, body := range map[string]string{
		"/webhooks/" + id + "/test": `{}`,
		"/webhooks/test":            `{"test_event_type":"ticket.created","webhook_id":"` + id + `"}`,
	} {
		ctx, cancel := context.WithCancel(t.Context())
		hangUp = cancel
		req := httptest.NewRequestWithContext(ctx, "POST", "/api/v1"+path, strings.NewReader(body))
		req.Header.Set("X-API-Key", h.a.APIKey)
		req.Header.Set("X-Idempotency-Key", "k")
		h.api.ServeHTTP(httptest.NewRecorder(), req)
		sent := rc.next(t)
		again := h.do(t, "POST", path, h.a.APIKey, body, "X-Idempotency-Key", "k").want(t, http.StatusOK)
		if again.Header.Get("X-Idempotent-Replay") != "true" || again.at("data", "success") != true ||
			again.at("data", "test_id") != sent.Header.Get("X-Alga-Event-Id") {
			t.Errorf("%s: the caller who hung up gets %s", path, again.Raw)
		}
		if len(rc.seen) > 0 {
			t.Errorf("%s: one request too many", path)
		}
	}
}
