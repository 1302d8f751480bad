package api_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// outage makes a webhook that has missed n tickets, and switches it on again.
func (h *harness) outage(t *testing.T, url string, n int) (id string) {
	t.Helper()
	id, _ = h.createWebhook(t, url, map[string]any{"event_types": []string{"ticket.created"}})["webhook_id"].(string)
	h.switchWebhook(t, id, false)
	for range n {
		h.createTicket(t)
	}
	h.switchWebhook(t, id, true)
	return id
}

func (h *harness) switchWebhook(t *testing.T, id string, on bool) {
	t.Helper()
	h.do(t, "PUT", "/webhooks/"+id, h.a.APIKey, map[string]any{"is_active": on}).want(t, http.StatusOK)
}

// replayed waits until a replay has ended and returns it.
func (h *harness) replayed(t *testing.T, id string, replay any) map[string]any {
	t.Helper()
	var r map[string]any
	h.wait(t, "the replay has ended", func() bool {
		r = h.do(t, "GET", "/webhooks/"+id+"/replays/"+replay.(string), h.a.APIKey, nil).want(t, http.StatusOK).data(t)
		return r["status"] != "running"
	})
	return r
}

// TestReplay: a dry run counts, a replay sends, and what it has sent can be sent
// once more.
func TestReplay(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	rc := h.receiver(t, nil)
	since := time.Now().Add(-time.Hour).UTC().Format("2006-01-02T15:04Z")
	id := h.outage(t, rc.URL, 3)
	post := func(body map[string]any, header ...string) *response {
		t.Helper()
		return h.do(t, "POST", "/webhooks/"+id+"/replay", h.a.APIKey, merged(map[string]any{"since": since}, body), header...)
	}
	for range 2 {
		n := post(map[string]any{"dry_run": true}).want(t, http.StatusOK).data(t)
		if n["abandoned"] != 0.0 || n["missed"] != 3.0 || n["delivered"] != 0.0 || n["total"] != 3.0 || n["only"] != "failed" {
			t.Errorf("the dry run says %v", n)
		}
	}
	r := post(nil).want(t, http.StatusAccepted).data(t)
	from := strings.TrimSuffix(since, "Z") + ":00.000Z"
	if r["since"] != from || r["until"].(string) <= from || r["created_at"].(string) <= from {
		t.Errorf("the replay of what happened since %s is %v", from, r)
	}
	done := h.replayed(t, id, r["replay_id"])
	if done["status"] != "done" || done["queued"] != 3.0 || done["finished_at"] == nil || done["cancel_reason"] != nil {
		t.Errorf("the replay ended as %v", done)
	}
	bodies := map[string]string{}
	for range 3 {
		d := rc.next(t)
		bodies[d.Header.Get("X-Alga-Event-Id")] = string(d.Body)
		if d.Header.Get("X-Alga-Delivery-Attempt") != "1" {
			t.Errorf("a missed event came as attempt %s", d.Header.Get("X-Alga-Delivery-Attempt"))
		}
	}
	h.settled(t, id, 3)
	// Twice in a row: nothing is left to do.
	if again := h.replayed(t, id, post(nil).want(t, http.StatusAccepted).data(t)["replay_id"]); again["queued"] != 0.0 {
		t.Errorf("the second replay ended as %v", again)
	}
	if n := post(map[string]any{"only": "all", "dry_run": true}).want(t, http.StatusOK).data(t); n["delivered"] != 3.0 || n["total"] != 3.0 || n["since"] != from {
		t.Errorf("the dry run of all says %v", n)
	}
	if n := post(map[string]any{"dry_run": true, "until": from}).want(t, http.StatusOK).data(t); n["until"] != from || n["total"] != 0.0 {
		t.Errorf("the dry run until its beginning says %v", n)
	}
	all := post(map[string]any{"only": "all"}, "X-Idempotency-Key", "all").want(t, http.StatusAccepted)
	if done := h.replayed(t, id, all.at("data", "replay_id")); done["queued"] != 3.0 || done["only"] != "all" {
		t.Errorf("the replay of all ended as %v", done)
	}
	if repeat := post(map[string]any{"only": "all"}, "X-Idempotency-Key", "all").want(t, http.StatusAccepted); string(repeat.Raw) != string(all.Raw) {
		t.Errorf("the same key answered %s, was %s", repeat.Raw, all.Raw)
	}
	for range 3 {
		d := rc.next(t)
		if bodies[d.Header.Get("X-Alga-Event-Id")] != string(d.Body) || d.Header.Get("X-Alga-Delivery-Attempt") != "2" {
			t.Errorf("sent again with %v %s", d.Header, d.Body)
		}
	}
	list := h.do(t, "GET", "/webhooks/"+id+"/replays?limit=2", h.a.APIKey, nil).want(t, http.StatusOK)
	if list.at("pagination", "total") != 3.0 || len(list.list(t)) != 2 || list.at("data", 0, "replay_id") != all.at("data", "replay_id") {
		t.Errorf("listed %s", list.Raw)
	}
}

// TestReplayOfChosenEvents: a list of events says what happens to each of them.
func TestReplayOfChosenEvents(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	rc := h.receiver(t, nil)
	id := h.outage(t, rc.URL, 2)
	var missed []string
	for _, e := range h.do(t, "GET", "/webhooks/"+id+"/missed", h.a.APIKey, nil).want(t, http.StatusOK).list(t) {
		missed = append(missed, e["event_id"].(string))
	}
	h.createTicket(t)
	delivered := rc.next(t).Header.Get("X-Alga-Event-Id")
	h.settled(t, id, 1)
	path, unknown := "/webhooks/"+id+"/replay", "0199d2a4-6c1e-7b53-9a0f-1f5e0c7a9d11"
	body := map[string]any{"event_ids": []string{missed[1], strings.ToUpper(delivered), unknown}}
	n := h.do(t, "POST", path, h.a.APIKey, merged(body, map[string]any{"dry_run": true})).want(t, http.StatusOK)
	if n.at("data", "missed") != 1.0 || n.at("data", "total") != 1.0 || n.at("data", "left_alone", 0, "event_id") != delivered ||
		n.at("data", "left_alone", 0, "reason") != "delivered" || n.at("data", "left_alone", 1, "reason") != "unknown" {
		t.Errorf("the dry run says %s", n.Raw)
	}
	r := h.do(t, "POST", path, h.a.APIKey, body).want(t, http.StatusAccepted).data(t)
	if r["event_count"] != 3.0 {
		t.Errorf("the replay is %v", r)
	}
	if done := h.replayed(t, id, r["replay_id"]); done["queued"] != 1.0 || done["skipped"] != 1.0 {
		t.Errorf("the replay ended as %v", done)
	}
	if got := rc.next(t).Header.Get("X-Alga-Event-Id"); got != missed[1] {
		t.Errorf("event %s was sent, want %s", got, missed[1])
	}
	many := make([]string, 201)
	for i := range many {
		many[i] = unknown
	}
	for what, wrong := range map[string]map[string]any{
		"a time beside them": {"event_ids": missed, "since": "2026-01-01T00:00:00Z"}, "none": {"event_ids": []string{}},
		"too many": {"event_ids": many}, "no ids": {"event_ids": []string{"x"}}, "null": {"event_ids": nil}, "not in the feed": {"event_ids": []string{unknown}},
	} {
		if r := h.do(t, "POST", path, h.a.APIKey, wrong); r.Status != http.StatusBadRequest {
			t.Errorf("%s answers %d %s", what, r.Status, r.Raw)
		}
	}
	// What belongs to somebody else is not in the feed.
	other, _ := h.do(t, "POST", "/webhooks", h.b.APIKey, map[string]any{"name": "n", "url": rc.URL, "event_types": []string{"ticket.created"}}).want(t, http.StatusCreated).data(t)["webhook_id"].(string)
	h.do(t, "POST", "/webhooks/"+other+"/replay", h.b.APIKey, map[string]any{"event_ids": missed}).want(t, http.StatusBadRequest)
	h.do(t, "POST", path, h.b.APIKey, body).want(t, http.StatusNotFound)
}

// A receiver that takes one request per minute keeps a replay running for as long
// as the test needs it.
func TestReplayRunsOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	rc := h.receiver(t, nil)
	id := h.outage(t, rc.URL, 5)
	h.do(t, "PUT", "/webhooks/"+id, h.a.APIKey, map[string]any{
		"rate_limit": map[string]any{"requests_per_minute": 1, "burst_limit": 1},
	}).want(t, http.StatusOK)
	path, body := "/webhooks/"+id+"/replay", map[string]any{"since": "2026-01-01T00:00:00Z"}
	r := h.do(t, "POST", path, h.a.APIKey, body).want(t, http.StatusAccepted).data(t)
	rc.next(t)
	again := h.do(t, "POST", path, h.a.APIKey, body).want(t, http.StatusAccepted).data(t)
	if again["replay_id"] != r["replay_id"] || again["status"] != "running" {
		t.Errorf("the same request answered %v", again)
	}
	e := h.do(t, "POST", path, h.a.APIKey, merged(body, map[string]any{"only": "all"})).wantError(t, http.StatusConflict, "CONFLICT")
	if message, _ := e["message"].(string); !strings.Contains(message, r["replay_id"].(string)) {
		t.Errorf("a second replay says %q", message)
	}
	path = "/webhooks/" + id + "/replays/" + r["replay_id"].(string)
	h.do(t, "DELETE", path, h.key(t, h.a.TenantID, "webhook:read"), nil).wantError(t, http.StatusForbidden, "FORBIDDEN")
	h.do(t, "DELETE", path, h.b.APIKey, nil).wantError(t, http.StatusNotFound, "NOT_FOUND")
	ended := h.do(t, "DELETE", path, h.a.APIKey, nil).want(t, http.StatusOK).data(t)
	if ended["status"] != "cancelled" || ended["cancel_reason"] != "user" || ended["queued"].(float64) >= 5 {
		t.Errorf("cancelled: %v", ended)
	}
	h.do(t, "DELETE", path, h.a.APIKey, nil).wantError(t, http.StatusConflict, "CONFLICT")
	h.do(t, "DELETE", "/webhooks/"+id+"/replays/"+unknownID, h.a.APIKey, nil).wantError(t, http.StatusNotFound, "NOT_FOUND")
	h.do(t, "GET", "/webhooks/"+id+"/replays?order=asc", h.a.APIKey, nil).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
}

func TestReplayIsRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.createWebhook(t, nowhere)["webhook_id"].(string)
	since := "2026-01-01T00:00:00Z"
	for issue, body := range map[string]map[string]any{
		"since invalid_type":       {},
		"since invalid_string":     {"since": "yesterday"},
		"since custom":             {"since": "2999-01-01T00:00:00Z"},
		"until invalid_string":     {"since": since, "until": "2026-01-01T00:00:00+01:00"},
		"until custom":             {"since": since, "until": "2025-01-01T00:00:00Z"},
		"only invalid_enum_value":  {"since": since, "only": "missed"},
		"dry_run invalid_type":     {"since": since, "dry_run": "yes"},
		" unrecognized_keys":       {"since": since, "dryrun": true},
		"until custom, the future": {"since": since, "until": "2999-01-01T00:00:00Z"},
	} {
		e := h.do(t, "POST", "/webhooks/"+id+"/replay", h.a.APIKey, body)
		issue, _, _ = strings.Cut(issue, ",")
		wantIssue(t, e.wantError(t, http.StatusBadRequest, "VALIDATION_ERROR"), issue)
	}
	if list := h.do(t, "GET", "/webhooks/"+id+"/replays", h.a.APIKey, nil).want(t, http.StatusOK).list(t); len(list) != 0 {
		t.Errorf("refused requests left %v", list)
	}
	for _, dry := range []bool{true, false} {
		body := map[string]any{"since": since, "dry_run": dry}
		h.do(t, "POST", "/webhooks/"+unknownID+"/replay", h.a.APIKey, body).wantError(t, http.StatusNotFound, "NOT_FOUND")
		h.do(t, "POST", "/webhooks/"+id+"/replay", h.b.APIKey, body).wantError(t, http.StatusNotFound, "NOT_FOUND")
		h.do(t, "POST", "/webhooks/"+id+"/replay", h.key(t, h.a.TenantID, "webhook:update"), body).wantError(t, http.StatusForbidden, "FORBIDDEN")
	}
	h.switchWebhook(t, id, false)
	for _, dry := range []bool{true, false} {
		h.do(t, "POST", "/webhooks/"+id+"/replay", h.a.APIKey, map[string]any{"since": since, "dry_run": dry}).wantError(t, http.StatusConflict, "CONFLICT")
	}
}

// An attempt that was owed when the outage began is in the list as well.
func TestMissedAttempts(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	rc := h.receiver(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	id := h.createWebhook(t, rc.URL, map[string]any{"event_types": []string{"ticket.created"}})["webhook_id"].(string)
	h.createTicket(t)
	event := rc.next(t).Header.Get("X-Alga-Event-Id")
	h.settled(t, id, 1)
	h.switchWebhook(t, id, false)
	r := h.do(t, "GET", "/webhooks/"+id+"/missed", h.a.APIKey, nil).want(t, http.StatusOK)
	if len(r.list(t)) != 1 || r.at("data", 0, "reason") != "dropped" || r.at("data", 0, "event_id") != event {
		t.Errorf("listed %s", r.Raw)
	}
}

// TestMissed: what an outage has kept back is listed until it was sent.
func TestMissed(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	rc := h.receiver(t, nil)
	id := h.createWebhook(t, rc.URL, map[string]any{"event_types": []string{"ticket.created"}})["webhook_id"].(string)
	get := func(query string) *response {
		t.Helper()
		return h.do(t, "GET", "/webhooks/"+id+"/missed"+query, h.a.APIKey, nil).want(t, http.StatusOK)
	}
	if r := get(""); len(r.list(t)) != 0 || r.at("meta", "disabled_at") != nil || r.at("pagination", "total") != 0.0 {
		t.Errorf("before any outage %s", r.Raw)
	}
	h.switchWebhook(t, id, false)
	var tickets []any
	for range 3 {
		tickets = append(tickets, h.createTicket(t)["ticket_id"])
	}
	first := get("?limit=2")
	if first.at("pagination", "total") != 3.0 || first.at("meta", "disabled_at") == nil || first.at("meta", "enabled_at") != nil ||
		first.at("meta", "disabled_reason") != "user" {
		t.Errorf("during it %s", first.Raw)
	}
	var listed []any
	for _, e := range append(first.list(t), get("?limit=2&page=2").list(t)...) {
		listed = append(listed, e["ticket_id"])
		if e["reason"] != "not_queued" || e["event_type"] != "ticket.created" || e["occurred_at"].(string) < "2026" {
			t.Errorf("listed %v", e)
		}
	}
	if diff := cmp.Diff(tickets, listed); diff != "" {
		t.Errorf("listed (-want +got):\n%s", diff)
	}
	on := h.do(t, "PUT", "/webhooks/"+id, h.a.APIKey, map[string]any{"is_active": true, "replay_missed": true}).want(t, http.StatusOK)
	if on.at("meta", "replayed") != 3.0 {
		t.Errorf("enabled: %s", on.Raw)
	}
	h.settled(t, id, 3)
	if r := get(""); r.at("pagination", "total") != 0.0 || r.at("meta", "enabled_at") == nil {
		t.Errorf("after the replay %s", r.Raw)
	}
	jobs := h.do(t, "GET", "/webhooks/"+id+"/replays", h.a.APIKey, nil).want(t, http.StatusOK)
	if jobs.at("data", 0, "only") != "missed" || jobs.at("data", 0, "queued") != 3.0 {
		t.Errorf("the job of replay_missed is %s", jobs.Raw)
	}
	h.do(t, "GET", "/webhooks/"+id+"/missed?order=desc", h.a.APIKey, nil).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
	h.do(t, "GET", "/webhooks/"+id+"/missed", h.b.APIKey, nil).wantError(t, http.StatusNotFound, "NOT_FOUND")
}
