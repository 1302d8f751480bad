package cutover

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/webhook"
)

// What a poll shows of a ticket and what an event carries are the same state when
// they are, although each has fields that the other lacks.
func TestReceiptAndObservationAreComparable(t *testing.T) {
	t.Parallel()
	at := time.Date(2027, 1, 31, 8, 0, 0, 123456000, time.UTC)
	const common = `"ticket_id":"T1","title":"Drucker \u0026 Söhne","status_name":"Open","is_closed":false,"due_date":null`
	polled := new(client.Ticket)
	if err := json.Unmarshal([]byte(`{`+common+`,"updated_at":"2027-01-31T08:00:00.123Z","tags":[{"tag_id":"1","tag_text":"b"},{"tag_id":"2","tag_text":"a"}],"url":"x","response_state":"awaiting"}`), polled); err != nil {
		t.Fatal(err)
	}
	o, err := observe(polled)
	if err != nil {
		t.Fatal(err)
	}
	e := &webhook.Envelope{EventID: "E1", EventType: "ticket.updated", OccurredAt: webhook.At(at)}
	e.Data = json.RawMessage(`{"tags":["a","b"],` + common + `,"updated_at":"2027-01-31T08:00:00.123Z","url":"y","changes":{}}`)
	body := []byte(`{"event_id":"E1","event_type":"ticket.updated","occurred_at":"2027-01-31T08:00:00.123Z","data":` + string(e.Data) + `}`)
	r := NewReceipt(at, at, http.Header{}, body, webhook.Receipt{Outcome: webhook.Kept, Status: 200, Event: e})
	if r.Hash != o.Hash || !r.UpdatedAt.Equal(o.UpdatedAt) || r.Ticket != "t1" || r.Synthetic || !r.Signed || r.Body != string(body) {
		t.Errorf("the receipt is %+v and the observation %+v", r, o)
	}
	// AlgaPSA's rows have no is_closed before a status was changed, its payloads do.
	if err := json.Unmarshal([]byte(`{`+strings.Replace(common, `"is_closed":false`, `"is_closed":null,"status_is_closed":false`, 1)+`,"updated_at":"2027-01-31T08:00:00.123Z","tags":["a","b"]}`), polled); err != nil {
		t.Fatal(err)
	}
	if o, err = observe(polled); err != nil || r.Hash != o.Hash {
		t.Errorf("without is_closed the observation is %+v, %v", o, err)
	}
	e.Data = json.RawMessage(strings.Replace(string(e.Data), "Open", "Closed", 1))
	if x := NewReceipt(at, at, http.Header{}, body, webhook.Receipt{Outcome: webhook.Kept, Status: 200, Event: e}); x.Hash == o.Hash {
		t.Error("another state has the same hash")
	}
}

func TestReceiptIsBounded(t *testing.T) {
	t.Parallel()
	at := time.Now()
	long := strings.Repeat("x", keptBody)
	e := &webhook.Envelope{EventID: "E1", EventType: "ticket.created", Data: json.RawMessage(`{"ticket_id":"T1","title":"` + long + `"}`)}
	body := []byte(`{"synthetic":true,"data":` + string(e.Data) + `}`)
	if r := NewReceipt(at, at, http.Header{}, body, webhook.Receipt{Status: 200, Event: e}); r.Body != "" || r.Hash == "" || !r.Synthetic {
		t.Errorf("of a long body %d bytes are kept, with the hash %q", len(r.Body), r.Hash)
	}
	h := http.Header{}
	h.Set(webhook.EventIDHeader, long)
	r := NewReceipt(at, at, h, []byte(`{"event_id":"E9","synthetic":true}`), webhook.Receipt{Outcome: webhook.BadSignature, Status: 401})
	if len(r.EventID) > keptHeader || r.Body != "" || r.Signed || r.Synthetic || r.Ticket != "" {
		t.Errorf("of a stranger's request is kept %+v", r)
	}
	r = NewReceipt(at, at, h, []byte(`{"event_id":"E9","event_type":7}`), webhook.Receipt{Outcome: webhook.BadEnvelope, Status: 400})
	if r.EventID != "E9" || !r.Signed || r.Body != "" {
		t.Errorf("of a signed body that is no envelope is kept %+v", r)
	}
}

// AlgaPSA keeps whatever a filter has beside its ids, and goes by the ids.
func TestFilterOfAlgaPSA(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		filter string
		ours   bool
		want   bool // the event of ticket a
	}{
		{`null`, false, true},
		{`{}`, false, true},
		{`{"entity_ids": []}`, false, true},
		{`{"entity_ids": ["A"], "tags": ["vip"], "conditions": {"priority": "High"}, "entity_types": ["ticket"]}`, false, true},
		{`{"entity_ids": ["b"], "conditions": "any"}`, false, false},
		{`{"conditions": [{"field": "title", "operator": "equals", "value": "x"}]}`, false, true},
		{`{"conditions": [{"field": "title", "operator": "equals", "value": "x"}]}`, true, false},
		{`{"tags": ["VIP"]}`, true, true},
	} {
		w, err := wantedBy(&client.Webhook{EventTypes: []string{webhook.TicketUpdated}, EventFilter: json.RawMessage(tt.filter)}, tt.ours)
		if err != nil {
			t.Errorf("%s: %v", tt.filter, err)
			continue
		}
		if got := w.event(webhook.TicketUpdated, "a", json.RawMessage(`{"ticket_id":"a","title":"y","tags":["vip"]}`)); got != tt.want {
			t.Errorf("%s, ours %t: wanted %t, want %t", tt.filter, tt.ours, got, tt.want)
		}
	}
}

// Who is not let in because of the product has no feed either; who may not read it
// is told so.
func TestServersWithoutAFeed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		status int
		body   string
		feed   bool
		fails  bool
	}{
		{http.StatusOK, `{"data":[],"next_cursor":"c1-1","has_more":false}`, true, false},
		{http.StatusNotFound, `<html>not found</html>`, false, false},
		{http.StatusForbidden, `{"error":{"code":"PRODUCT_ACCESS_DENIED","message":"no"}}`, false, false},
		{http.StatusForbidden, `{"error":{"code":"FORBIDDEN","message":"no"}}`, false, true},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(tt.status)
			io.WriteString(w, tt.body)
		}))
		t.Cleanup(s.Close)
		a, err := newAsker(s.URL, "key", nil, 1, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		if feed, err := a.hasFeed(t.Context()); feed != tt.feed || (err != nil) != tt.fails {
			t.Errorf("%d %s: feed %t, error %v", tt.status, tt.body, feed, err)
		}
	}
}
