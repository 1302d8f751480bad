package delivery_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
)

// spec is the smallest valid Spec.
func spec() *delivery.Spec {
	return &delivery.Spec{
		Name:       "Ops bridge",
		URL:        "https://hooks.example.test/alga",
		Method:     "POST",
		EventTypes: []string{"ticket.created"},
	}
}

// found lists the issues of an error as "code path: message".
func found(t testing.TB, err error) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*fault.Error](err)
	if !ok || e.Kind != fault.Invalid || e.Message != "Validation failed" {
		t.Fatalf("Validate = %#v, want an Invalid fault", err)
	}
	var out []string
	for _, i := range e.Issues {
		path, err := json.Marshal(i.Path)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%s %s: %s", i.Code, path, i.Message))
	}
	return out
}

func TestValidate(t *testing.T) {
	t.Parallel()
	condition := func(field, op string, value any) func(*delivery.Spec) {
		return func(s *delivery.Spec) {
			s.EventFilter = &delivery.Filter{Conditions: []delivery.Condition{{Field: field, Operator: op, Value: value}}}
		}
	}
	header := func(name, value string) func(*delivery.Spec) {
		return func(s *delivery.Spec) { s.CustomHeaders = map[string]string{name: value} }
	}
	retry := func(rc delivery.RetryConfig) func(*delivery.Spec) {
		return func(s *delivery.Spec) { s.RetryConfig = &rc }
	}
	tests := []struct {
		name   string
		change func(*delivery.Spec)
		want   []string // parts of the issues, in order
	}{
		{"smallest", func(*delivery.Spec) {}, nil},
		{"name empty", func(s *delivery.Spec) { s.Name = "" }, []string{`too_small ["name"]: String must contain at least 1 character(s)`}},
		{"name of 255", func(s *delivery.Spec) { s.Name = strings.Repeat("é", 255) }, nil},
		{"name of 256", func(s *delivery.Spec) { s.Name = strings.Repeat("a", 256) }, []string{`too_big ["name"]: String must contain at most 255 character(s)`}},
		{"url empty", func(s *delivery.Spec) { s.URL = "" }, []string{`too_small ["url"]`}},
		{"url long", func(s *delivery.Spec) { s.URL = strings.Repeat("a", 2049) }, []string{`too_big ["url"]`}},
		{"method PUT", func(s *delivery.Spec) { s.Method = "PUT" }, nil},
		{"method PATCH", func(s *delivery.Spec) { s.Method = "PATCH" }, nil},
		{"method GET", func(s *delivery.Spec) { s.Method = "GET" }, []string{`invalid_enum_value ["method"]: Method must be POST, PUT or PATCH: GET sends no body, so the signature could not be verified`}},
		{"method HEAD", func(s *delivery.Spec) { s.Method = "HEAD" }, []string{`HEAD sends no body`}},
		{"method DELETE", func(s *delivery.Spec) { s.Method = "DELETE" }, []string{`DELETE sends no body`}},
		{"method unknown", func(s *delivery.Spec) { s.Method = "post" }, []string{`["method"]: Invalid enum value. Expected 'POST' | 'PUT' | 'PATCH', received 'post'`}},
		{"no event types", func(s *delivery.Spec) { s.EventTypes = nil }, []string{`too_small ["event_types"]: Array must contain at least 1 element(s)`}},
		{"all event types", func(s *delivery.Spec) { s.EventTypes = delivery.EventTypes() }, nil},
		{"unknown event type", func(s *delivery.Spec) { s.EventTypes = []string{"ticket.created", "webhook.test"} }, []string{`invalid_enum_value ["event_types",1]`}},
		{"all wrong at once", func(s *delivery.Spec) { *s = delivery.Spec{Method: "GET"} }, []string{`["name"]`, `["url"]`, `["method"]`, `["event_types"]`}},

		{"header", header("Authorization", "Bearer x"), nil},
		{"header with a space", header("X Y", "1"), []string{`custom ["custom_headers","X Y"]: not a valid header name`}},
		{"header without a name", header("", "1"), []string{`not a valid header name`}},
		{"header injection", header("X-A", "1\r\nX-B: 2"), []string{`custom ["custom_headers","X-A"]: header values must not contain control characters`}},
		{"header NUL", header("X-A", "\x00"), []string{`control characters`}},
		{"header DEL", header("X-A", "\x7f"), []string{`control characters`}},
		{"header twice", func(s *delivery.Spec) { s.CustomHeaders = map[string]string{"x-a": "1", "X-A": "2"} }, []string{`["custom_headers","x-a"]: same header as X-A`}},
		{"51 headers", func(s *delivery.Spec) { s.CustomHeaders = manyHeaders(51, 1) }, []string{`at most 50 headers, got 51`}},
		{"50 headers", func(s *delivery.Spec) { s.CustomHeaders = manyHeaders(50, 1) }, nil},
		{"8 KiB of headers", func(s *delivery.Spec) { s.CustomHeaders = map[string]string{"X-A": strings.Repeat("v", 8192-3)} }, nil},
		{"more than 8 KiB", func(s *delivery.Spec) { s.CustomHeaders = map[string]string{"X-A": strings.Repeat("v", 8192-2)} }, []string{`at most 8192 bytes of names and values, got 8193`}},

		{"fields", func(s *delivery.Spec) {
			s.PayloadFields = delivery.PayloadFields{"ticket": delivery.TicketFields(), "project": {"name"}}
		}, nil},
		{"fields null", func(s *delivery.Spec) { s.PayloadFields = delivery.PayloadFields{"ticket": nil} }, nil},
		{"field ticket_id", func(s *delivery.Spec) { s.PayloadFields = delivery.PayloadFields{"ticket": {"title", "ticket_id"}} }, []string{`invalid_enum_value ["payload_fields","ticket",1]`}},
		{"field suppressed", func(s *delivery.Spec) {
			s.PayloadFields = delivery.PayloadFields{"ticket": {"suppress_contact_notifications"}}
		}, []string{`["payload_fields","ticket",0]`}},
		{"field project_id", func(s *delivery.Spec) {
			s.PayloadFields = delivery.PayloadFields{"project": {"project_id", "Name", ""}}
		}, []string{`["payload_fields","project",0]`, `["payload_fields","project",1]`, `["payload_fields","project",2]`}},
		{"entity unknown", func(s *delivery.Spec) { s.PayloadFields = delivery.PayloadFields{"client": {}} }, []string{`unrecognized_keys ["payload_fields"]: Unrecognized key(s) in object: 'client'`}},

		{"entity ids", func(s *delivery.Spec) {
			s.EventFilter = &delivery.Filter{EntityIDs: []string{strings.ToUpper(ticketID), "x", ticketID + "0", strings.Replace(ticketID, "-", "0", 1), "g" + ticketID[1:]}}
		},
			[]string{`invalid_string ["event_filter","entity_ids",1]: Invalid uuid`, `["event_filter","entity_ids",2]`, `["event_filter","entity_ids",3]`, `["event_filter","entity_ids",4]`}},
		{"1001 entity ids", func(s *delivery.Spec) { s.EventFilter = &delivery.Filter{EntityIDs: repeat(ticketID, 1001)} }, []string{`too_big ["event_filter","entity_ids"]: Array must contain at most 1000`}},
		{"51 tags", func(s *delivery.Spec) { s.EventFilter = &delivery.Filter{Tags: repeat("a", 51)} }, []string{`too_big ["event_filter","tags"]`}},
		{"bad tags", func(s *delivery.Spec) { s.EventFilter = &delivery.Filter{Tags: []string{"", strings.Repeat("a", 51)}} }, []string{`too_small ["event_filter","tags",0]`, `too_big ["event_filter","tags",1]`}},
		{"51 conditions", func(s *delivery.Spec) {
			s.EventFilter = &delivery.Filter{Conditions: make([]delivery.Condition, 51)}
			for i := range s.EventFilter.Conditions {
				s.EventFilter.Conditions[i] = delivery.Condition{Field: "title", Operator: "equals", Value: "a"}
			}
		}, []string{`too_big ["event_filter","conditions"]`}},
		{"condition unknown", condition("titel", "like", "x"), []string{`invalid_enum_value ["event_filter","conditions",0,"field"]`, `invalid_enum_value ["event_filter","conditions",0,"operator"]`}},
		{"condition on the thread", condition("comments", "contains", "x"), []string{`["event_filter","conditions",0,"field"]`}},
		{"in without a list", condition("title", "in", "x"), []string{`custom ["event_filter","conditions",0,"value"]: title: in needs a list`}},
		{"not_in with nothing", condition("title", "not_in", []any{}), []string{`not_in needs a list`}},
		{"in with too much", condition("title", "in", make([]any, 1001)), []string{`at most 1000`}},
		{"in with an object", condition("title", "in", []any{"a", map[string]any{}}), []string{`the value must be a text or a number`}},
		{"in with null", condition("assigned_to", "in", []any{nil, "x"}), nil},
		{"tags in null", condition("tags", "in", []any{nil}), []string{`tags: cannot be compared with null`}},
		{"tags in numbers", condition("tags", "in", []any{1.0}), []string{`the value must be a text`}},
		{"tags in", condition("tags", "in", []any{"a"}), nil},
		{"tags equal", condition("tags", "equals", "a"), []string{`["event_filter","conditions",0,"operator"]: tags: a list takes contains`}},
		{"changes contain", condition("changes", "contains", "title"), nil},
		{"contains nothing", condition("title", "contains", ""), []string{`contains needs a text that is not empty`}},
		{"contains a number", condition("title", "not_contains", 5.0), []string{`not_contains needs a text`}},
		{"equals null", condition("title", "equals", nil), nil},
		{"greater than null", condition("title", "greater_than", nil), []string{`cannot be compared with null`}},
		{"greater than true", condition("title", "greater_than", true), []string{`the value must be a text or a number`}},
		{"greater than a number", condition("ticket_number", "greater_than", 5.0), nil},
		{"less than a JSON number", condition("ticket_number", "less_than", json.Number("5")), nil},
		{"after a time", condition("updated_at", "greater_than", "2026-01-01T00:00:00Z"), nil},
		{"after a word", condition("updated_at", "greater_than", "today"), []string{`must be an RFC 3339 time`}},
		{"flag", condition("is_closed", "equals", true), nil},
		{"flag equals text", condition("is_closed", "equals", "true"), []string{`must be true or false`}},
		{"flag greater", condition("is_closed", "greater_than", true), []string{`a flag takes equals`}},
		{"id ordered", condition("status_id", "less_than", "x"), []string{`an id has no order`}},
		{"id equals a number", condition("status_id", "equals", 5.0), []string{`the value must be a text`}},

		{"retry: all in range", retry(delivery.RetryConfig{Schedule: []int64{1, 604800000}, Strategy: ptr("custom"), MaxAttempts: ptr(10), InitialDelay: ptr(int64(1)), MaxDelay: ptr(int64(1000)), BackoffMultiplier: ptr(1.0), Timeout: ptr(int64(30000))}), nil},
		{"retry: schedule empty", retry(delivery.RetryConfig{Schedule: []int64{}}), []string{`too_small ["retry_config","schedule"]`}},
		{"retry: schedule long", retry(delivery.RetryConfig{Schedule: make([]int64, 21)}), append([]string{`too_big ["retry_config","schedule"]`}, repeat(`too_small ["retry_config","schedule",`, 21)...)},
		{"retry: week", retry(delivery.RetryConfig{Schedule: []int64{604800001}}), []string{`too_big ["retry_config","schedule",0]: Number must be less than or equal to 604800000`}},
		{"retry: strategy", retry(delivery.RetryConfig{Strategy: ptr("random")}), []string{`invalid_enum_value ["retry_config","strategy"]`}},
		{"retry: custom", retry(delivery.RetryConfig{Strategy: ptr("custom")}), []string{`custom ["retry_config","schedule"]: the custom strategy needs a schedule`}},
		{"retry: too small", retry(delivery.RetryConfig{MaxAttempts: ptr(0), InitialDelay: ptr(int64(0)), MaxDelay: ptr(int64(999)), BackoffMultiplier: ptr(0.5), Timeout: ptr(int64(999))}),
			[]string{`too_small ["retry_config","max_attempts"]: Number must be greater than or equal to 1`, `["retry_config","initial_delay"]`, `["retry_config","max_delay"]`, `["retry_config","backoff_multiplier"]`, `["retry_config","timeout"]`}},
		{"retry: too big", retry(delivery.RetryConfig{MaxAttempts: ptr(11), Timeout: ptr(int64(30001))}), []string{`too_big ["retry_config","max_attempts"]`, `too_big ["retry_config","timeout"]`}},
		{"retry: initial over max", retry(delivery.RetryConfig{InitialDelay: ptr(int64(2000)), MaxDelay: ptr(int64(1000))}), []string{`initial_delay is longer than max_delay`}},

		{"rate", func(s *delivery.Spec) {
			s.RateLimit = &delivery.RateLimit{RequestsPerMinute: ptr(1000), BurstLimit: ptr(1)}
		}, nil},
		{"rate out of range", func(s *delivery.Spec) {
			s.RateLimit = &delivery.RateLimit{RequestsPerMinute: ptr(0), BurstLimit: ptr(1001)}
		},
			[]string{`too_small ["rate_limit","requests_per_minute"]`, `too_big ["rate_limit","burst_limit"]`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := spec()
			tt.change(s)
			got := found(t, s.Validate())
			if len(got) != len(tt.want) {
				t.Fatalf("issues %q, want %d like %q", got, len(tt.want), tt.want)
			}
			for i := range got {
				if !strings.Contains(got[i], tt.want[i]) {
					t.Errorf("issue %d is %q, want %q in it", i, got[i], tt.want[i])
				}
			}
		})
	}
}

func manyHeaders(n, size int) map[string]string {
	out := make(map[string]string, n)
	for i := range n {
		out[fmt.Sprintf("X-%d", i)] = strings.Repeat("v", size)
	}
	return out
}

func repeat(s string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = s
	}
	return out
}

func TestValidateNormalises(t *testing.T) {
	t.Parallel()
	s := spec()
	s.EventTypes = []string{"ticket.closed", "ticket.created", "ticket.closed"}
	s.PayloadFields = delivery.PayloadFields{"ticket": {"title", "url", "title"}, "project": {}}
	s.EventFilter = &delivery.Filter{EntityIDs: []string{strings.ToUpper(ticketID)}}
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"ticket.closed", "ticket.created"}, s.EventTypes); diff != "" {
		t.Errorf("event types (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(delivery.PayloadFields{"ticket": {"title", "url"}, "project": {}}, s.PayloadFields); diff != "" {
		t.Errorf("payload fields (-want +got):\n%s", diff)
	}
	if s.EventFilter.EntityIDs[0] != ticketID {
		t.Errorf("entity id %s, want it in lower case", s.EventFilter.EntityIDs[0])
	}
}

// TestIssueShapes checks the keys that only some codes have, as Zod 3 sends
// them.
func TestIssueShapes(t *testing.T) {
	t.Parallel()
	s := spec()
	s.Name = ""
	s.Method = "TRACE"
	s.EventFilter = &delivery.Filter{EntityIDs: []string{"x"}}
	s.PayloadFields = delivery.PayloadFields{"team": nil}
	e, _ := errors.AsType[*fault.Error](s.Validate())
	want := []map[string]any{
		{"minimum": 1, "type": "string", "inclusive": true, "exact": false},
		{"received": "TRACE", "options": []string{"POST", "PUT", "PATCH"}},
		{"validation": "uuid"},
		{"keys": []string{"team"}},
	}
	var got []map[string]any
	for _, i := range e.Issues {
		got = append(got, i.Extra)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("extra keys (-want +got):\n%s", diff)
	}
}

func TestReservedHeader(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"X-Alga-Signature", "x-alga-event-id", "X-ALGA-ANYTHING", "webhook-id", "Webhook-Signature",
		"Content-Type", "content-length", "CONTENT-ENCODING", "Host", "Connection", "TE", "Trailer",
		"Transfer-Encoding", "upgrade", "Keep-Alive", "Proxy-Authorization", "proxy-connection", "Expect", "HTTP2-Settings",
	} {
		if !delivery.ReservedHeader(name) {
			t.Errorf("%s can be set", name)
		}
		s := spec()
		s.CustomHeaders = map[string]string{name: "v"}
		if got := found(t, s.Validate()); len(got) != 1 || !strings.Contains(got[0], "is reserved") {
			t.Errorf("%s: issues %q", name, got)
		}
	}
	for _, name := range []string{"Authorization", "X-Api-Key", "User-Agent", "X-Algae", "Hostname", "Accept", "Accept-Encoding"} {
		if delivery.ReservedHeader(name) {
			t.Errorf("%s is reserved", name)
		}
	}
}
