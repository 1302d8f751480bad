package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/store"
)

const idempotent = "X-Idempotency-Key"

func TestIdempotentCreate(t *testing.T) {
	t.Parallel()
	c := newStillClock()
	h := newHarness(t, func(s *settings) { s.now = c.now })
	send := func(body any, header ...string) *response {
		return h.do(t, "POST", "/tickets", h.a.APIKey, body, header...)
	}
	first := send(h.draft(nil), idempotent, "one").want(t, http.StatusCreated)
	if first.Header.Get("X-Idempotent-Replay") != "" {
		t.Error("the first answer calls itself a replay")
	}
	again := send(h.draft(nil), idempotent, "one").want(t, http.StatusCreated)
	if !bytes.Equal(first.Raw, again.Raw) || again.Header.Get("X-Idempotent-Replay") != "true" {
		t.Errorf("the replay differs: %s, was %s", again.Raw, first.Raw)
	}
	if got := len(h.events(t)); got != 1 {
		t.Errorf("%d events for one ticket", got)
	}
	e := send(h.draft(map[string]any{"title": "Other"}), idempotent, "one").wantError(t, http.StatusConflict, "CONFLICT")
	if message, _ := e["message"].(string); !strings.Contains(message, "X-Idempotency-Key") {
		t.Errorf("message %q", message)
	}
	other := send(h.draft(nil), idempotent, "two").want(t, http.StatusCreated)
	without := send(h.draft(nil)).want(t, http.StatusCreated)
	if other.text("data", "ticket_id") == first.text("data", "ticket_id") || without.text("data", "ticket_id") == first.text("data", "ticket_id") {
		t.Error("another key or none gave the same ticket")
	}
	// The key of another caller is another key.
	mine := h.do(t, "POST", "/tickets", h.key(t, h.a.TenantID, "ticket:create"), h.draft(nil), idempotent, "one").want(t, 201)
	if mine.text("data", "ticket_id") == first.text("data", "ticket_id") {
		t.Error("another API key got this one's answer")
	}
	sibling := h.keyOf(t, h.a.TenantID, store.KeyDraft{UserID: h.a.UserID, Name: "sibling"})
	if own := h.do(t, "POST", "/tickets", sibling, h.draft(nil), idempotent, "one").want(t, 201); own.text("data", "ticket_id") == first.text("data", "ticket_id") {
		t.Error("another API key of the same user got this one's answer")
	}
	c.advance(24*time.Hour + time.Second)
	if late := send(h.draft(nil), idempotent, "one").want(t, 201); late.text("data", "ticket_id") == first.text("data", "ticket_id") {
		t.Error("the answer is still replayed after a day")
	}
	for _, wrong := range []string{strings.Repeat("x", 256), "a\xff"} {
		wantIssue(t, send(h.draft(nil), idempotent, wrong).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR"), "X-Idempotency-Key custom")
	}
}

// A replay shows the answer of that time, and a failure is not kept: the caller
// may repair the request and try again.
func TestIdempotentUpdate(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.createTicket(t)["ticket_id"].(string)
	put := func(body any, key string) *response {
		return h.do(t, "PUT", "/tickets/"+id, h.a.APIKey, body, idempotent, key)
	}
	first := put(map[string]any{"title": "A"}, "one").want(t, http.StatusOK)
	put(map[string]any{"title": "B"}, "two").want(t, http.StatusOK)
	if again := put(map[string]any{"title": "A"}, "one").want(t, http.StatusOK); !bytes.Equal(first.Raw, again.Raw) {
		t.Errorf("the replay differs: %s", again.Raw)
	}
	if got := h.get(t, id)["title"]; got != "B" {
		t.Errorf("the replay set the title to %v", got)
	}
	put(map[string]any{"title": ""}, "three").want(t, http.StatusBadRequest)
	put(map[string]any{"title": "C"}, "three").want(t, http.StatusOK)
	same := h.do(t, "POST", "/tickets/"+id+"/comments", h.a.APIKey, map[string]any{"comment_text": "x"}, idempotent, "one")
	same.want(t, http.StatusCreated) // another route
	h.do(t, "GET", "/tickets/"+id, h.a.APIKey, nil, idempotent, "one").want(t, http.StatusOK)
	other := h.createTicket(t)["ticket_id"].(string)
	spare := "/tickets/" + h.createTicket(t)["ticket_id"].(string)
	for _, status := range []int{http.StatusNoContent, http.StatusNotFound} { // the key is for POST and PUT
		h.do(t, "DELETE", spare, h.a.APIKey, nil, idempotent, "one").want(t, status)
	}
	h.do(t, "PUT", "/tickets/"+other, h.a.APIKey, map[string]any{"title": "A"}, idempotent, "one").want(t, http.StatusOK)
	if got := h.get(t, other)["title"]; got != "A" {
		t.Errorf("the same body for another ticket left its title %v", got)
	}
}

// Every kind of write of this half of the API is replayed.
func TestIdempotentRoutes(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.createTicket(t)["ticket_id"].(string)
	comment := h.comment(t, id, nil)["comment_id"]
	for rt, body := range map[string]any{
		"PUT /tickets/" + id + "/status":                                   map[string]any{"status_id": h.a.Statuses["In Progress"]},
		"PUT /tickets/" + id + "/assignment":                               map[string]any{"assigned_to": h.a.UserID},
		"PUT /tickets/" + id + "/team":                                     map[string]any{"team_id": h.team(t)},
		"POST /tickets/" + id + "/agents":                                  map[string]any{"user_id": h.user(t, h.a.TenantID).UserID, "role": "x"},
		"POST /tickets/" + id + "/comments":                                map[string]any{"comment_text": "x"},
		fmt.Sprintf("PUT /tickets/%s/comments/%v", id, comment):            map[string]any{"comment_text": "y"},
		fmt.Sprintf("POST /tickets/%s/comments/%v/reactions", id, comment): map[string]any{"emoji": "👍"},
		"POST " + tagPath(id):                                              tagBody(id, map[string]any{"tags": []string{"a"}}),
		"POST /tags":                                                       map[string]any{"tag_text": "b", "tagged_id": id, "tagged_type": "ticket"},
		"POST /boards":                                                     map[string]any{"board_name": "x"},
		"POST /clients":                                                    map[string]any{"client_name": "x", "billing_cycle": "weekly"},
		"POST /contacts":                                                   map[string]any{"full_name": "x", "email": "x@y.example"},
	} {
		method, path, _ := strings.Cut(rt, " ")
		first := h.do(t, method, path, h.a.APIKey, body, idempotent, "k")
		if first.Status >= 300 {
			t.Fatalf("%s: %d %s", rt, first.Status, first.Raw)
		}
		again := h.do(t, method, path, h.a.APIKey, body, idempotent, "k").want(t, first.Status)
		if !bytes.Equal(first.Raw, again.Raw) || again.Header.Get("X-Idempotent-Replay") != "true" {
			t.Errorf("%s: the replay differs: %s, was %s", rt, again.Raw, first.Raw)
		}
	}
}

// post is do for POST from any goroutine: it ends no test, and when there is no
// answer it returns the status 0 and the error as Raw.
func (h *harness) post(ctx context.Context, path string, body []byte, header ...string) *response {
	req, err := http.NewRequestWithContext(ctx, "POST", h.URL+"/api/v1"+path, bytes.NewReader(body))
	if err != nil {
		return &response{Raw: []byte(err.Error())}
	}
	req.Header.Set("X-API-Key", h.a.APIKey)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return &response{Raw: []byte(err.Error())}
	}
	defer resp.Body.Close()
	r := &response{Status: resp.StatusCode, Header: resp.Header}
	if r.Raw, err = io.ReadAll(resp.Body); err == nil {
		err = json.Unmarshal(r.Raw, &r.JSON)
	}
	if err != nil {
		return &response{Raw: []byte(err.Error())}
	}
	return r
}

// Requests with one key that arrive together make one ticket and get one answer.
func TestIdempotentRace(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	body, err := json.Marshal(h.draft(nil))
	must(t, err)
	const callers = 8
	answers := make([]string, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			r := h.post(t.Context(), "/tickets", body, idempotent, "race")
			answers[i] = fmt.Sprint(r.Status, " ", string(r.Raw))
		})
	}
	wg.Wait()
	for i, got := range answers {
		if got != answers[0] || !strings.HasPrefix(got, "201") {
			t.Errorf("caller %d: %s\ncaller 0: %s", i, got, answers[0])
		}
	}
	if got := h.do(t, "GET", "/tickets", h.a.APIKey, nil).at("pagination", "total"); got != 1.0 {
		t.Errorf("%v tickets", got)
	}
}
