package api_test

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/client"
)

// answers is a receiver's answer that a test can change.
type answers struct{ status atomic.Int32 }

func (a *answers) handle(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("X-Receiver", "yes")
	w.WriteHeader(int(a.status.Load()))
	fmt.Fprint(w, "said the receiver")
}

// settled waits until the webhook has n rows that are not pending.
func (h *harness) settled(t *testing.T, webhookID string, n int) {
	t.Helper()
	h.wait(t, fmt.Sprintf("%d attempts are recorded", n), func() bool {
		done := 0
		for _, d := range h.do(t, "GET", "/webhooks/"+webhookID+"/deliveries?limit=100", h.a.APIKey, nil).want(t, http.StatusOK).list(t) {
			if d["status"] != "pending" {
				done++
			}
		}
		return done == n
	})
}

func TestDeliveryRecord(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	says := &answers{}
	says.status.Store(http.StatusServiceUnavailable)
	rc := h.receiver(t, says.handle)
	made := h.createWebhook(t, rc.URL, map[string]any{
		"event_types": []string{"ticket.created"}, "custom_headers": map[string]string{"Authorization": "Bearer open-sesame"},
	})
	id := made["webhook_id"].(string)
	ticketID := h.createTicket(t)["ticket_id"].(string)
	sent := rc.next(t)
	h.settled(t, id, 1)

	deliveryID := sent.Header.Get("X-Alga-Delivery-Id")
	got := h.do(t, "GET", "/webhooks/"+id+"/deliveries/"+deliveryID, h.a.APIKey, nil).want(t, http.StatusOK)
	d := got.data(t)
	// The keys of contract section 3.9, P1 and P3, in snake case.
	keys := slices.Sorted(maps.Keys(d))
	wantKeys := strings.Fields(`attempt_number attempted_at completed_at delivery_id duration_ms error_message error_type event_id
		event_type is_manual is_test next_retry_at request_body request_headers response_body response_headers response_status_code
		status tenant ticket_id wait_reason webhook_id`)
	if diff := cmp.Diff(wantKeys, keys); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	want := map[string]any{
		"tenant": h.a.TenantID, "delivery_id": deliveryID, "webhook_id": id, "event_id": sent.Header.Get("X-Alga-Event-Id"),
		"event_type": "ticket.created", "ticket_id": ticketID, "status": "retrying", "attempt_number": 1.0,
		"response_status_code": 503.0, "response_body": "said the receiver", "error_type": "status",
		"error_message": "receiver answered 503 Service Unavailable", "is_test": false, "is_manual": false, "wait_reason": nil,
	}
	for key, v := range want {
		if d[key] != v {
			t.Errorf("%s is %v, want %v", key, d[key], v)
		}
	}
	for _, key := range []string{"attempted_at", "completed_at", "next_retry_at", "duration_ms"} {
		if d[key] == nil {
			t.Errorf("a failed attempt has no %s", key)
		}
	}
	body := decode[struct {
		Data struct {
			Body any `json:"request_body"`
		}
	}](t, got.Raw).Data.Body
	if diff := cmp.Diff(decode[any](t, sent.Body), body); diff != "" {
		t.Errorf("request_body (-sent +logged):\n%s", diff)
	}
	if got.text("data", "response_headers", "x-receiver") != "yes" {
		t.Errorf("response_headers are %v", d["response_headers"])
	}
	headers := got.at("data", "request_headers").(map[string]any)
	signature, _ := headers["X-Alga-Signature"].(string)
	if headers["Authorization"] != "[REDACTED]" || !strings.HasPrefix(signature, "t=") || !strings.HasSuffix(signature, "v1=[REDACTED]") {
		t.Errorf("request_headers are %v", headers)
	}

	// The next attempt has its own row, which says when it is due.
	list := h.do(t, "GET", "/webhooks/"+id+"/deliveries?status=pending", h.a.APIKey, nil).want(t, http.StatusOK).list(t)
	if len(list) != 1 {
		t.Fatalf("%d pending rows, want 1", len(list))
	}
	next := list[0]
	if next["attempt_number"] != 2.0 || next["attempted_at"] != nil || next["next_retry_at"] != d["next_retry_at"] ||
		next["wait_reason"] != "due" || next["duration_ms"] != nil || next["response_body"] != nil || next["request_headers"] != nil {
		t.Errorf("the pending row is %v", next)
	}

	// A deleted webhook's log stays readable by delivery_id (contract P7).
	h.do(t, "DELETE", "/webhooks/"+id, h.a.APIKey, nil).want(t, http.StatusNoContent)
	h.do(t, "GET", "/webhooks/"+id+"/deliveries/"+deliveryID, h.a.APIKey, nil).want(t, http.StatusOK)
	h.do(t, "GET", "/webhooks/"+id+"/deliveries", h.a.APIKey, nil).wantError(t, http.StatusNotFound, "NOT_FOUND")
	h.do(t, "POST", "/webhooks/"+id+"/deliveries/"+deliveryID+"/retry", h.a.APIKey, nil).wantError(t, http.StatusConflict, "CONFLICT")
}

func TestDeliveryFilters(t *testing.T) {
	t.Parallel()
	c := newStillClock()
	c.advance(678 * time.Microsecond) // which no record shows
	h := newHarness(t, func(s *settings) { s.now = c.now })
	says := &answers{}
	rc := h.receiver(t, says.handle)
	id := h.createWebhook(t, rc.URL)["webhook_id"].(string)
	says.status.Store(http.StatusOK)
	first := h.createTicket(t)["ticket_id"].(string)
	event := rc.next(t).Header.Get("X-Alga-Event-Id")
	h.settled(t, id, 1)
	says.status.Store(http.StatusInternalServerError)
	second := h.createTicket(t)["ticket_id"].(string)
	rc.next(t)
	h.settled(t, id, 2)
	h.do(t, "PUT", "/webhooks/"+id, h.a.APIKey, map[string]any{"retry_config": map[string]any{"max_attempts": 1}}).want(t, http.StatusOK)
	comment := map[string]any{"comment_text": "Any news?"}
	h.do(t, "POST", "/tickets/"+second+"/comments", h.a.APIKey, comment).want(t, http.StatusCreated)
	rc.next(t)
	h.settled(t, id, 3)

	count := func(query string) string {
		t.Helper()
		r := h.do(t, "GET", "/webhooks/"+id+"/deliveries?"+query, h.a.APIKey, nil).want(t, http.StatusOK)
		var out []string
		for _, d := range r.list(t) {
			out = append(out, d["status"].(string))
		}
		if total := r.at("pagination", "total"); total != float64(len(out)) && !strings.Contains(query, "page") {
			t.Errorf("%q has total %v and %d rows", query, total, len(out))
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	today, tomorrow := c.now().Format(time.DateOnly), c.now().Add(24*time.Hour).Format(time.DateOnly)
	shown := h.do(t, "GET", "/webhooks/"+id+"/deliveries?event_id="+event, h.a.APIKey, nil).text("data", 0, "attempted_at")
	for query, want := range map[string]string{
		"":                                "abandoned delivered pending retrying",
		"status=failed":                   "abandoned retrying", // contract D13
		"status=delivered":                "delivered",
		"status=retrying":                 "retrying",
		"status=abandoned":                "abandoned",
		"status=pending":                  "pending",
		"event_type=ticket.comment.added": "abandoned",
		"event_type=webhook.test":         "",
		"event_id=" + event:               "delivered",
		"ticket_id=" + first:              "delivered",
		"ticket_id=" + second:             "abandoned pending retrying",
		"status=failed&from_date=" + today + "&to_date=" + tomorrow: "abandoned retrying",
		"status_code=500":                "abandoned retrying",
		"status_code=5XX":                "abandoned retrying",
		"status_code=2xx":                "delivered",
		"status_code=404":                "",
		"error_type=status":              "abandoned retrying",
		"error_type=timeout":             "",
		"from_date=2999-01-01T00:00:00Z": "",
		"to_date=2000-01-01":             "",
		"limit=3&page=2":                 "delivered",
		"limit=1000":                     "abandoned delivered pending retrying",
		"limit=9223372036854775807":      "abandoned delivered pending retrying",
		"event_id=" + event + "&from_date=" + shown + "&to_date=" + shown: "delivered",
	} {
		if got := count(query); got != want {
			t.Errorf("%q lists %q, want %q", query, got, want)
		}
	}
	r := h.do(t, "GET", "/webhooks/"+id+"/deliveries?limit=1000&status=failed", h.a.APIKey, nil).want(t, http.StatusOK)
	if r.at("pagination", "limit") != 100.0 || r.text("meta", "filters", "status") != "failed" {
		t.Errorf("pagination and meta: %s", r.Raw)
	}
	for _, query := range []string{
		"status=lost", "from_date=today", "event_id=7", "ticket_id=TKT-1", "event_type=ticket.deleted", "page=0", "limit=x", "status_code=50", "status_code=xxx", "error_type=bad", "order=asc", "sort=status",
	} {
		h.do(t, "GET", "/webhooks/"+id+"/deliveries?"+query, h.a.APIKey, nil).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
	}
}

func TestManualRetry(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	says := &answers{}
	says.status.Store(http.StatusBadRequest)
	rc := h.receiver(t, says.handle)
	id := h.createWebhook(t, rc.URL, map[string]any{"event_types": []string{"ticket.created"}})["webhook_id"].(string)
	h.createTicket(t)
	sent := rc.next(t)
	h.settled(t, id, 1)
	path := "/webhooks/" + id + "/deliveries/" + sent.Header.Get("X-Alga-Delivery-Id") + "/retry"

	e := h.do(t, "POST", path, h.a.APIKey, nil, "X-Idempotency-Key", "r1").wantError(t, http.StatusBadGateway, "BAD_GATEWAY")
	details, _ := e["details"].(map[string]any)
	if details["is_manual"] != true || details["status"] != "abandoned" || details["response_status_code"] != 400.0 || details["attempt_number"] != 2.0 {
		t.Errorf("details of a failed retry are %v", details)
	}
	again := rc.next(t)
	if !bytes.Equal(again.Body, sent.Body) || again.Header.Get("X-Alga-Event-Id") != sent.Header.Get("X-Alga-Event-Id") ||
		again.Header.Get("X-Alga-Delivery-Id") != details["delivery_id"] || again.Header.Get("X-Alga-Delivery-Attempt") != "2" {
		t.Errorf("the retry sent %v %s", again.Header, again.Body)
	}
	// The same key again is the same answer, not another request.
	repeat := h.do(t, "POST", path, h.a.APIKey, nil, "X-Idempotency-Key", "r1").wantError(t, http.StatusBadGateway, "BAD_GATEWAY")
	if diff := cmp.Diff(e, repeat); diff != "" {
		t.Errorf("the repeated call (-first +second):\n%s", diff)
	}

	says.status.Store(http.StatusAccepted)
	first := h.do(t, "POST", path, h.a.APIKey, nil, "X-Idempotency-Key", "r2").want(t, http.StatusOK)
	good := first.data(t)
	if repeat := h.do(t, "POST", path, h.a.APIKey, nil, "X-Idempotency-Key", "r2").want(t, http.StatusOK); !bytes.Equal(repeat.Raw, first.Raw) {
		t.Errorf("the repeated call answers %s, first %s", repeat.Raw, first.Raw)
	}
	if got := rc.next(t).Header.Get("X-Alga-Delivery-Attempt"); got != "3" {
		t.Errorf("the second retry was attempt %s, want 3", got)
	}
	if good["status"] != "delivered" || good["is_manual"] != true || good["attempt_number"] != 3.0 {
		t.Errorf("a successful retry answered %v", good)
	}
	for range 2 {
		e = h.do(t, "POST", path, h.a.APIKey, nil).wantError(t, http.StatusConflict, "CONFLICT")
		if e["message"] != "Cannot retry successful delivery" {
			t.Errorf("a delivered event says %q", e["message"])
		}
	}
	// The planned retry of the chain is not needed any more.
	left := h.do(t, "GET", "/webhooks/"+id+"/deliveries?status=pending", h.a.APIKey, nil).want(t, http.StatusOK).list(t)
	if len(left) > 0 {
		t.Errorf("still pending: %v", left)
	}
	e = h.do(t, "POST", "/webhooks/"+id+"/deliveries/"+unknownID+"/retry", h.a.APIKey, nil).wantError(t, http.StatusNotFound, "NOT_FOUND")
	if e["message"] != "Delivery not found" {
		t.Errorf("an unknown delivery says %q", e["message"])
	}
	select {
	case extra := <-rc.seen:
		t.Errorf("one request too many: %v", extra.Header)
	default:
	}
}

func TestHealthAndAnalytics(t *testing.T) {
	t.Parallel()
	c := newStillClock()
	h := newHarness(t, func(s *settings) { s.now = c.now })
	says := &answers{}
	rc := h.receiver(t, says.handle)
	id := h.createWebhook(t, rc.URL)["webhook_id"].(string)
	idle := h.createWebhook(t, nowhere, map[string]any{"event_types": []string{"invoice.paid"}})["webhook_id"].(string)

	health := func(id, status string, total, good, bad, rate float64) {
		t.Helper()
		d := h.do(t, "GET", "/webhooks/"+id+"/health", h.a.APIKey, nil).want(t, http.StatusOK).data(t)
		if d["status"] != status || d["total_deliveries"] != total || d["successful_deliveries"] != good ||
			d["failed_deliveries"] != bad || d["success_rate"] != rate || d["checked_at"] == nil || d["webhook_id"] != id {
			t.Errorf("health is %v, want %s %v %v %v %v", d, status, total, good, bad, rate)
		}
	}
	health(id, "healthy", 0, 0, 0, 1)
	steps := []struct {
		answer int
		do     func()
	}{
		{200, func() { h.createTicket(t) }},
		{204, func() { h.createTicket(t) }},
		{500, func() { h.createTicket(t) }},
	}
	for i, s := range steps {
		c.advance(time.Second)
		says.status.Store(int32(s.answer))
		s.do()
		rc.next(t)
		h.settled(t, id, i+1)
	}
	health(id, "failing", 3, 2, 1, 2.0/3)
	health(idle, "healthy", 0, 0, 0, 1)
	own, err := client.New(h.URL, h.a.APIKey)
	must(t, err)
	got, err := own.WebhookHealth(t.Context(), id)
	must(t, err)
	failed := c.now()
	if diff := cmp.Diff(&client.WebhookHealth{
		WebhookID: id, Status: "failing", IsActive: true, TotalDeliveries: 3, SuccessfulDeliveries: 2, FailedDeliveries: 1,
		SuccessRate: 2.0 / 3, LastDeliveryAt: &failed, LastSuccessAt: new(failed.Add(-time.Second)), LastFailureAt: &failed, CheckedAt: failed,
	}, got); diff != "" {
		t.Errorf("what the client makes of it (-want +got):\n%s", diff)
	}
	// A test counts for nothing, in health and in analytics.
	h.do(t, "POST", "/webhooks/"+id+"/test", h.a.APIKey, nil).want(t, http.StatusOK)
	health(id, "failing", 3, 2, 1, 2.0/3)

	today := c.now().Format(time.DateOnly)
	wantMetrics := map[string]any{
		"total_deliveries": 3.0, "successful_deliveries": 2.0, "failed_deliveries": 1.0, "success_rate": 66.67,
		"deliveries_by_status":     map[string]any{"delivered": 2.0, "retrying": 1.0, "pending": 1.0},
		"deliveries_by_event_type": map[string]any{"ticket.created": 4.0},
		"deliveries_timeline":      []any{map[string]any{"date": today, "successful": 2.0, "failed": 1.0}},
	}
	for _, path := range []string{"/webhooks/" + id + "/analytics", "/webhooks/analytics"} {
		r := h.do(t, "GET", path+"?date_from="+today+"&date_to=2999-12-31", h.a.APIKey, nil).want(t, http.StatusOK)
		d := r.data(t)
		metrics := d["metrics"].(map[string]any)
		times := metrics["response_time_percentiles"].(map[string]any)
		for _, p := range []string{"p50", "p90", "p95", "p99"} {
			if _, is := times[p].(float64); !is {
				t.Errorf("%s has percentiles %v", path, times)
			}
		}
		if metrics["average_response_time"] == nil {
			t.Errorf("%s has no average", path)
		}
		if diff := cmp.Diff(wantMetrics, without(without(metrics, "response_time_percentiles"), "average_response_time")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
		if _, has := d["webhook_id"]; has != strings.Contains(path, id) {
			t.Errorf("%s has webhook_id %v", path, d["webhook_id"])
		}
		if !strings.HasPrefix(d["date_from"].(string), today+"T00:00:00.000Z") || d["date_to"] != "2999-12-31T23:59:59.999Z" {
			t.Errorf("%s covers %v to %v", path, d["date_from"], d["date_to"])
		}
	}
	none := h.do(t, "GET", "/webhooks/"+idle+"/analytics", h.a.APIKey, nil).want(t, http.StatusOK)
	if none.at("data", "metrics", "total_deliveries") != 0.0 || len(none.at("data", "metrics", "deliveries_timeline").([]any)) != 0 {
		t.Errorf("analytics of a webhook without deliveries: %s", none.Raw)
	}
	from, err := time.Parse(time.RFC3339, none.text("data", "date_from"))
	must(t, err)
	to, err := time.Parse(time.RFC3339, none.text("data", "date_to"))
	must(t, err)
	if to.Sub(from) != 30*24*time.Hour {
		t.Errorf("the default period is %v", to.Sub(from))
	}
	old := h.do(t, "GET", "/webhooks/analytics?date_to=2020-01-01", h.a.APIKey, nil).want(t, http.StatusOK)
	if old.at("data", "metrics", "total_deliveries") != 0.0 {
		t.Errorf("analytics of the past: %s", old.Raw)
	}
	for _, query := range []string{"date_from=x", "date_to=x", "date_from=2026-02-01&date_to=2026-01-01"} {
		h.do(t, "GET", "/webhooks/analytics?"+query, h.a.APIKey, nil).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
		h.do(t, "GET", "/webhooks/"+id+"/analytics?"+query, h.a.APIKey, nil).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
	}
	c.advance(time.Second)
	says.status.Store(http.StatusOK)
	h.createTicket(t)
	rc.next(t)
	h.settled(t, id, 5) // the test is a row too
	health(id, "healthy", 4, 3, 1, 0.75)
	c.advance(time.Second)
	says.status.Store(http.StatusGone)
	h.createTicket(t)
	rc.next(t)
	h.settled(t, id, 7) // and the retry that was planned is abandoned
	health(id, "disabled", 5, 3, 2, 0.6)
	state := h.do(t, "GET", "/webhooks/"+id+"/health", h.a.APIKey, nil).want(t, http.StatusOK).data(t)
	ago := func(d time.Duration) any { return c.now().Add(-d).Format("2006-01-02T15:04:05.000Z") }
	wantFields(t, state, map[string]any{
		"auto_disabled_at": ago(0), "last_failure_at": ago(0), "last_delivery_at": ago(0), "last_success_at": ago(time.Second), "is_active": false,
	})
	// The record says the same.
	record := h.do(t, "GET", "/webhooks/"+id, h.a.APIKey, nil).want(t, http.StatusOK).data(t)
	wantFields(t, record, without(without(without(state, "status"), "success_rate"), "checked_at"))
	wantFields(t, record, map[string]any{"disabled_at": ago(0), "disabled_reason": "gone", "created_at": ago(5 * time.Second), "updated_at": ago(0)})
}

// Retries by hand while one is planned: each is exactly one more request, as
// often as they are asked for, and the planned one keeps its time.
func TestRetriesBesideAPlannedOne(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	says := &answers{}
	says.status.Store(http.StatusInternalServerError)
	rc := h.receiver(t, says.handle)
	id := h.createWebhook(t, rc.URL, map[string]any{"event_types": []string{"ticket.created"}})["webhook_id"].(string)
	h.createTicket(t)
	sent := rc.next(t)
	planned := func() map[string]any {
		t.Helper()
		var list []map[string]any
		h.wait(t, "an attempt is planned", func() bool {
			list = h.do(t, "GET", "/webhooks/"+id+"/deliveries?status=pending", h.a.APIKey, nil).want(t, http.StatusOK).list(t)
			return len(list) == 1 && list[0]["attempted_at"] == nil && list[0]["attempt_number"] != 1.0
		})
		return list[0]
	}
	first := planned()
	for i := range 2 {
		e := h.do(t, "POST", "/webhooks/"+id+"/deliveries/"+sent.Header.Get("X-Alga-Delivery-Id")+"/retry", h.a.APIKey, nil).
			wantError(t, http.StatusBadGateway, "BAD_GATEWAY")
		details, _ := e["details"].(map[string]any)
		again := rc.next(t)
		if want := 2.0 + float64(i); details["attempt_number"] != want || details["is_manual"] != true ||
			again.Header.Get("X-Alga-Delivery-Id") != details["delivery_id"] || !bytes.Equal(again.Body, sent.Body) {
			t.Errorf("retry %d: %v %v", i+1, details, again.Header)
		}
		p := planned()
		if p["delivery_id"] != first["delivery_id"] || p["next_retry_at"] != first["next_retry_at"] || p["attempt_number"] != 3.0+float64(i) {
			t.Errorf("after retry %d the planned attempt is %v, was %v", i+1, p, first)
		}
	}
	select {
	case extra := <-rc.seen:
		t.Errorf("one request too many: %v", extra.Header)
	default:
	}
}
