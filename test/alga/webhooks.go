package alga

import (
	"cmp"
	"net/http"
	"slices"
)

// onWebhooks is the state of the management of webhooks (3.1): no key has the
// permission, or, where it was added by hand, the service fails on what it was
// built without. The routes behind it are the documented ones.
func (s *Server) onWebhooks(action string, route func(*http.Request, *hook) answer) func(*http.Request) answer {
	return func(r *http.Request) answer {
		if s.cfg.Webhooks == Forbidden {
			return failed(http.StatusForbidden, "FORBIDDEN", "Permission denied: Cannot "+action+" webhook")
		}
		var h *hook
		if id := r.PathValue("id"); id != "" {
			if !uuids.MatchString(id) {
				return failed(http.StatusBadRequest, "VALIDATION_ERROR", "Invalid webhook ID format")
			}
			h = s.hook(id)
		}
		if s.cfg.Webhooks == Broken {
			return s.brokenWebhooks(r)
		}
		if h == nil && r.PathValue("id") != "" {
			return failed(http.StatusNotFound, "NOT_FOUND", "Webhook not found")
		}
		return route(r, h)
	}
}

// brokenWebhooks checks three event types that are accepted, and fails.
func (s *Server) brokenWebhooks(r *http.Request) answer {
	for _, t := range texts(body(r)["event_types"]) {
		if !slices.Contains([]string{"ticket.created", "ticket.updated", "project.created"}, t) {
			return failed(http.StatusBadRequest, "VALIDATION_ERROR", "Unsupported event type: "+t)
		}
	}
	return failed(http.StatusInternalServerError, "INTERNAL_ERROR", "An unexpected error occurred")
}

// texts are the texts of a JSON array.
func texts(v any) (out []string) {
	list, _ := v.([]any) // anything else has none
	for _, x := range list {
		if text, is := x.(string); is {
			out = append(out, text)
		}
	}
	return out
}

func (s *Server) listWebhooks(r *http.Request, _ *hook) answer {
	q := r.URL.Query()
	if len(q.Get("limit")) > 2 {
		q.Set("limit", "100") // capped without a word (1.4)
	}
	page, limit, bad := paging(q)
	if bad != nil {
		return *bad
	}
	data := []any{}
	for _, h := range slices.Backward(s.webhooks) { // by created_at, newest first
		data = append(data, h.record())
	}
	total := len(data)
	data = data[min(total, (page-1)*limit):min(total, page*limit)]
	return answer{status: http.StatusOK, data: data, more: map[string]any{"pagination": pagination(page, limit, total)}}
}

func (s *Server) getWebhook(_ *http.Request, h *hook) answer { return ok(h.record()) }

// postWebhook shows the secret, once (3.3).
func (s *Server) postWebhook(r *http.Request, _ *hook) answer {
	in := body(r)
	name, _ := in["name"].(string)
	url, _ := in["url"].(string)
	types := texts(in["event_types"])
	switch {
	case name == "":
		return invalid("Validation failed", "name", "invalid_type", "Required")
	case url == "":
		return invalid("Validation failed", "url", "invalid_type", "Required")
	case len(types) == 0:
		return invalid("Validation failed", "event_types", "too_small", "Array must contain at least 1 element(s)")
	}
	h := s.subscribe(name, url, types, 0)
	record := h.record()
	record["signing_secret"] = h.secret
	return answer{status: http.StatusCreated, data: record}
}

// putWebhook merges. Switching it on again does not clear auto_disabled_at (W7).
func (s *Server) putWebhook(r *http.Request, h *hook) answer {
	in := body(r)
	if v, is := in["name"].(string); is {
		h.name = v
	}
	if v, is := in["url"].(string); is {
		h.url = v
	}
	if v := texts(in["event_types"]); v != nil {
		h.types = v
	}
	if v, is := in["is_active"].(bool); is {
		h.active = v
	}
	h.changed = s.cfg.Now()
	return ok(h.record())
}

// record never has the secret (3.3).
func (h *hook) record() map[string]any {
	return map[string]any{
		"webhook_id": h.id, "tenant": TenantID, "name": h.name, "description": nil, "url": h.url, "method": http.MethodPost,
		"event_types": h.types, "custom_headers": nil, "is_active": h.active, "is_test_mode": false, "verify_ssl": true,
		"total_deliveries": h.total, "successful_deliveries": h.succeeded, "failed_deliveries": h.failed,
		"last_delivery_at": wire(h.lastAt), "last_success_at": wire(h.lastSuccess), "last_failure_at": wire(h.lastFailureAt),
		"auto_disabled_at": wire(h.disabled), "created_at": wire(h.created), "updated_at": wire(h.changed),
	}
}

// deliveries lists attempts, newest first. Its filters are read and not applied
// (D13), and only what was sent has a row: nothing is pending (3.9, W18).
func (s *Server) deliveries(r *http.Request, h *hook) answer {
	page, limit, bad := paging(r.URL.Query())
	if bad != nil {
		return *bad
	}
	var own []Delivery
	for _, d := range s.sent {
		if d.WebhookID == h.id {
			own = append(own, d)
		}
	}
	slices.SortStableFunc(own, func(a, b Delivery) int { return cmp.Compare(b.At.UnixNano(), a.At.UnixNano()) })
	data := []any{}
	for _, d := range own[min(len(own), (page-1)*limit):min(len(own), page*limit)] {
		data = append(data, d.record())
	}
	return answer{status: http.StatusOK, data: data, more: map[string]any{"pagination": pagination(page, limit, len(own))}}
}

func (d Delivery) record() map[string]any {
	headers := map[string]string{}
	for key := range d.Header {
		headers[key] = d.Header.Get(key)
	}
	r := map[string]any{
		"tenant": TenantID, "delivery_id": d.ID, "webhook_id": d.WebhookID, "event_id": d.Event.ID, "event_type": d.Event.Type,
		"request_headers": headers, "request_body": raw(d.Body), "response_status_code": nil, "response_headers": nil, "response_body": nil,
		"status": d.State, "attempt_number": d.Attempt, "duration_ms": 0, "error_message": nil,
		"next_retry_at": wire(d.Next), "is_test": false, "attempted_at": wire(d.At), "completed_at": wire(d.At),
	}
	if d.Status != 0 {
		r["response_status_code"], r["response_body"] = d.Status, d.Answer
	} else {
		r["error_message"] = d.Answer
	}
	return r
}

// raw keeps the bytes of JSON.
type raw []byte

// MarshalJSON implements json.Marshaler.
func (r raw) MarshalJSON() ([]byte, error) { return r, nil }
