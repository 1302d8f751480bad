package api_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What a receiver reads in data is what a poller reads from GET /tickets/{id},
// key by key with the same values (the guide's field mapping). Only url means
// something else (contract D24), and three kinds of keys belong to the event.
func TestPayloadAgreesWithTheTicket(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	target := h.receiver(t, nil)
	h.createWebhook(t, target.URL)
	uma := h.user(t, h.a.TenantID)
	at := map[any]map[string]any{} // what a poller would have read, by updated_at
	poll := func(id any) {
		read := h.get(t, id)
		at[read["updated_at"]] = read
	}
	id := h.createTicket(t, map[string]any{
		"title": "<b>Ünïcode</b> & \u2028 more", "tags": []string{"b", "a"}, "contact_name_id": h.a.ContactID,
		"due_date": "2031-01-02T03:04:05.678Z", "url": "https://stored.example",
	})["ticket_id"]
	poll(id)
	h.comment(t, id, nil)
	poll(id)
	h.put(t, id, map[string]any{"assigned_to": uma.UserID, "category_id": h.category(t, "Network", "")})
	poll(id)
	h.put(t, id, map[string]any{"status_id": h.a.Statuses["Closed"], "tags": []string{}, "contact_name_id": nil, "due_date": nil})
	poll(id)

	var kinds []string
	for range 7 {
		env := decode[struct {
			Type string         `json:"event_type"`
			Data map[string]any `json:"data"`
		}](t, target.next(t).Body)
		kinds = append(kinds, strings.TrimPrefix(env.Type, "ticket."))
		read := at[env.Data["updated_at"]]
		if read == nil {
			t.Fatalf("%s: no poll saw updated_at %v", env.Type, env.Data["updated_at"])
		}
		comparePayload(t, env.Type, env.Data, read)
	}
	if got := strings.Join(sorted(kinds), " "); got != "assigned closed comment.added created status_changed updated updated" {
		t.Errorf("events %s", got)
	}
}

func comparePayload(t *testing.T, kind string, data, ticket map[string]any) {
	t.Helper()
	for key, v := range data {
		switch key {
		case "url":
			if want := "https://desk.example/msp/tickets/" + ticket["ticket_id"].(string); v != want {
				t.Errorf("%s: url %v, want %s", kind, v, want)
			}
		case "changes", "comment", "previous_status_id", "previous_status_name",
			"suppress_contact_notifications", "suppress_internal_notifications":
			if _, has := ticket[key]; has {
				t.Errorf("%s: the ticket has %s, too", kind, key)
			}
		default:
			now, has := ticket[key]
			if diff := cmp.Diff(now, v); diff != "" || !has {
				t.Errorf("%s: %s differs (-ticket +payload):\n%s", kind, key, diff)
			}
		}
	}
	if len(data) < 28 {
		t.Errorf("%s: only %d keys in the payload", kind, len(data))
	}
}

// The suppression flags of a request reach the receiver under their other names
// (contract section 2.2).
func TestSuppressionReachesTheReceiver(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	target := h.receiver(t, nil)
	h.createWebhook(t, target.URL, map[string]any{"event_types": []string{"ticket.created", "ticket.updated", "ticket.comment.added"}})
	both := map[string]any{"suppressContactNotifications": true, "suppressInternalNotifications": true}
	id := h.createTicket(t, both)["ticket_id"].(string)
	put := func(below string, body map[string]any) {
		t.Helper()
		h.do(t, "PUT", "/tickets/"+id+below, h.a.APIKey, merged(both, body)).want(t, http.StatusOK)
	}
	put("/assignment", map[string]any{"assigned_to": h.a.UserID})
	put("/team", map[string]any{"team_id": h.team(t)})
	put("", map[string]any{"title": "New"})
	put("/status", map[string]any{"status_id": h.a.Statuses["Closed"]})
	h.comment(t, id, map[string]any{"suppressContactNotifications": true})
	seen := map[string]string{}
	for range 6 {
		env := decode[struct {
			Type string `json:"event_type"`
			Data struct {
				Contact  json.RawMessage `json:"suppress_contact_notifications"`
				Internal json.RawMessage `json:"suppress_internal_notifications"`
			} `json:"data"`
		}](t, target.next(t).Body)
		seen[env.Type] += string(env.Data.Contact) + " " + string(env.Data.Internal) + "; "
	}
	want := map[string]string{
		"ticket.created": "true true; ", "ticket.updated": strings.Repeat("true true; ", 4), "ticket.comment.added": "true false; ",
	}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Error(diff)
	}
}
