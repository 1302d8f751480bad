package client

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/go-cmp/cmp"
)

// Every key that the client reads or sends is one of docs/openapi.yaml, and no two
// fields have the same.
func TestKeysAreDocumented(t *testing.T) {
	t.Parallel()
	spec, err := openapi3.NewLoader().LoadFromFile("../docs/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		value  any
		places []string // schemas, and operations for what they are sent
	}{
		{Ticket{}, []string{"Ticket"}},
		{TicketInput{}, []string{"POST /tickets"}},
		{TicketUpdate{}, []string{"PUT /tickets/{id}"}},
		{CommentInput{}, []string{"POST /tickets/{id}/comments"}},
		{Comment{}, []string{"Comment"}},
		{Webhook{}, []string{"WebhookCreated"}},
		{WebhookInput{}, []string{"POST /webhooks", "PUT /webhooks/{id}"}},
		{WebhookHealth{}, []string{"Health"}},
		{WebhookAnalytics{}, []string{"Analytics"}},
		{WebhookAnalytics{}.Metrics, []string{"Analytics"}},
		{TestEvent{}, []string{"POST /webhooks/test"}},
		{TestResult{}, []string{"TestResult"}},
		{Delivery{}, []string{"Delivery"}},
		{Replay{}, []string{"Replay"}},
		{replayBody{}, []string{"POST /webhooks/{id}/replay"}},
		{ReplayCount{}, []string{"ReplayCount", "ChosenReplayCount"}},
		{MissedEvent{}, []string{"MissedEvent"}},
		{Key{}, []string{"KeyCreated"}},
		{KeyInput{}, []string{"POST /api-keys", "PUT /api-keys/{id}"}},
		{CutoverReport{}, []string{"CutoverReport"}},
	} {
		known, seen := map[string]bool{}, map[string]bool{}
		for _, place := range x.places {
			if method, path, is := strings.Cut(place, " "); is {
				keys(spec.Paths.Find("/api/v1" + path).GetOperation(method).RequestBody.Value.Content["application/json"].Schema, known)
			} else {
				keys(spec.Components.Schemas[place], known)
			}
		}
		for f := range reflect.TypeOf(x.value).Fields() {
			key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if key == "-" {
				continue
			}
			if !known[key] || seen[key] {
				t.Errorf("%T.%s is %q on the wire: in the document %t, there before %t", x.value, f.Name, key, known[key], seen[key])
			}
			seen[key] = true
		}
	}
}

// keys collects the names of the properties of a schema, and of what is in it.
func keys(ref *openapi3.SchemaRef, into map[string]bool) {
	if ref == nil || ref.Value == nil {
		return
	}
	for name, p := range ref.Value.Properties {
		into[name] = true
		keys(p, into)
	}
	for _, part := range slices.Concat(ref.Value.AllOf, ref.Value.OneOf, ref.Value.AnyOf) {
		keys(part, into)
	}
}

// Each field of a filter becomes the parameter of its name, and the server knows it.
func TestFiltersOnTheWire(t *testing.T) {
	t.Parallel()
	spec, err := openapi3.NewLoader().LoadFromFile("../docs/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var tickets TicketFilter
	var webhooks WebhookFilter
	var deliveries DeliveryFilter
	asked := make(url.Values)
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		maps.Copy(asked, r.URL.Query())
		_, _ = w.Write([]byte(`{"data":[]}`))
	})
	for _, x := range []struct {
		filter any
		path   string
		send   func() error
	}{
		{&tickets, "/tickets", func() error { _, err := collect(c.Tickets(t.Context(), tickets)); return err }},
		{&webhooks, "/webhooks", func() error { _, err := collect(c.Webhooks(t.Context(), webhooks)); return err }},
		{&deliveries, "/webhooks/{id}/deliveries", func() error { _, err := collect(c.Deliveries(t.Context(), id1, deliveries)); return err }},
	} {
		item := spec.Paths.Find("/api/v1" + x.path)
		if item == nil {
			t.Fatalf("no path %s", x.path)
		}
		for f, v := range reflect.ValueOf(x.filter).Elem().Fields() {
			text := f.Name
			switch v.Interface().(type) {
			case string:
				v.SetString(text)
			case []string:
				v.Set(reflect.ValueOf([]string{text}))
			case *bool:
				text = "false"
				v.Set(reflect.ValueOf(new(bool)))
			case time.Time:
				text = "2026-01-02T03:04:05Z"
				v.Set(reflect.ValueOf(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)))
			default:
				continue // Other: has no name
			}
			clear(asked)
			if err := x.send(); err != nil {
				t.Fatal(err)
			}
			key := strings.ToLower(regexp.MustCompile(`([a-z])([A-Z])`).ReplaceAllString(f.Name, "${1}_$2"))
			if key == "from" || key == "to" {
				key += "_date"
			}
			if asked.Get(key) != text || len(asked) != 3 { // beside page and limit
				t.Errorf("%T.%s asks for %v, want %s=%s", x.filter, f.Name, asked, key, text)
			}
			if item.Get.Parameters.GetByInAndName("query", key) == nil {
				t.Errorf("%s has no parameter %s", x.path, key)
			}
			v.SetZero()
		}
	}
}

// A server cannot fill the memory of its client.
func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	const most = 1000
	var more atomic.Int64
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"data":{}`+strings.Repeat(" ", most-11+int(more.Load()))+`}`)
	})
	c.maxAnswer = most
	if _, err := c.Ticket(t.Context(), id1); err != nil {
		t.Errorf("an answer of %d bytes: %v", most, err)
	}
	more.Store(1)
	if _, err := c.Ticket(t.Context(), id1); err == nil || !strings.Contains(err.Error(), "larger than 1000 bytes") {
		t.Errorf("one more: %v", err)
	}
	more.Store(100 << 20) // more than connections hold: nobody waits for the rest
	if _, err := c.Ticket(t.Context(), id1); err == nil || !strings.Contains(err.Error(), "larger than 1000 bytes") {
		t.Errorf("far more: %v", err)
	}
}

// Raw is what came, whatever becomes of the buffer that it was read from.
func TestRawIsACopy(t *testing.T) {
	t.Parallel()
	var e Event
	var tk Ticket
	for _, v := range []json.Unmarshaler{&e, &tk} {
		buffer := []byte(`{"x":1}`)
		if err := v.UnmarshalJSON(buffer); err != nil {
			t.Fatal(err)
		}
		clear(buffer)
	}
	if string(e.Raw) != `{"x":1}` || string(tk.Raw) != `{"x":1}` {
		t.Errorf("the event is %q, the ticket %q", e.Raw, tk.Raw)
	}
}

// AlgaPSA's published code spells the keys of the log in camel case.
func TestDeliveryInCamelCase(t *testing.T) {
	t.Parallel()
	var snake, camel Delivery
	for to, text := range map[*Delivery]string{
		&snake: `{"delivery_id":"d","event_id":"e","event_type":"ticket.updated","status":"retrying","attempt_number":2,"response_status_code":503,"is_test":true,"attempted_at":"2026-05-05T09:00:00.000Z"}`,
		&camel: `{"deliveryId":"d","eventId":"e","eventType":"ticket.updated","status":"retrying","attemptNumber":2,"responseStatusCode":503,"isTest":true,"attemptedAt":"2026-05-05T09:00:00.000Z"}`,
	} {
		if err := json.Unmarshal([]byte(text), to); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(snake, camel); diff != "" || snake.AttemptNumber != 2 || snake.AttemptedAt == nil {
		t.Errorf("%+v, -snake +camel\n%s", snake, diff)
	}
}
