package delivery_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/webhook"
)

const ticketID = "e2a94b77-6f10-4c58-8d3e-90b1c2d3e4f5"

func TestWants(t *testing.T) {
	t.Parallel()
	w := delivery.Webhook{Spec: delivery.Spec{IsActive: true, EventTypes: []string{webhook.TicketClosed, webhook.TicketUpdated}}}
	if !w.Wants(webhook.TicketUpdated) || w.Wants(webhook.TicketCreated) || w.Wants(webhook.Test) {
		t.Error("an active webhook wants what it subscribed to and nothing else")
	}
	w.IsActive = false
	if w.Wants(webhook.TicketUpdated) {
		t.Error("an inactive webhook wants an event")
	}
}

func TestFilterParts(t *testing.T) {
	t.Parallel()
	_, d := parse(t, golden(t, "ticket.assigned.json")) // tags onsite, printer
	cond := []delivery.Condition{{Field: "status_name", Operator: "equals", Value: "Open"}}
	other := []delivery.Condition{cond[0], {Field: "priority_name", Operator: "equals", Value: "Low"}}
	tests := []struct {
		name string
		f    *delivery.Filter
		d    *webhook.TicketData
		want bool
	}{
		{"none", nil, d, true},
		{"none, no data", nil, nil, true},
		{"empty", &delivery.Filter{}, d, true},
		{"empty, no data", &delivery.Filter{}, nil, true},
		{"id", &delivery.Filter{EntityIDs: []string{"x", ticketID}}, d, true},
		{"id, no data", &delivery.Filter{EntityIDs: []string{ticketID}}, nil, true},
		{"other id", &delivery.Filter{EntityIDs: []string{"x"}}, d, false},
		{"any tag, any case", &delivery.Filter{Tags: []string{"vip", "OnSite"}}, d, true},
		{"no such tag", &delivery.Filter{Tags: []string{"vip", "print"}}, d, false},
		{"tag, no data", &delivery.Filter{Tags: []string{"onsite"}}, nil, false},
		{"condition", &delivery.Filter{Conditions: cond}, d, true},
		{"condition, no data", &delivery.Filter{Conditions: cond}, nil, false},
		{"all conditions", &delivery.Filter{Conditions: other}, d, false},
		{"all parts", &delivery.Filter{EntityIDs: []string{ticketID}, Tags: []string{"printer"}, Conditions: cond}, d, true},
		{"all parts, one fails", &delivery.Filter{EntityIDs: []string{ticketID}, Tags: []string{"vip"}, Conditions: cond}, d, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := tt.f.Match(ticketID, tt.d); got != tt.want {
				t.Errorf("Match = %v, want %v", got, tt.want)
			}
		})
	}
}

func TestConditions(t *testing.T) {
	t.Parallel()
	_, d := parse(t, golden(t, "ticket.updated.json")) // tags printer; changes title, priority_id; assigned_to null
	number := "1042"
	d.TicketNumber = &number
	author := "A"
	d.Comment = &webhook.Comment{Text: "Fuser ordered", Author: &author}
	tests := []struct {
		field, op, value string // value as JSON
		want             bool
	}{
		{"status_name", "equals", `"Open"`, true},
		{"status_name", "equals", `"open"`, false},
		{"status_name", "not_equals", `"Closed"`, true},
		{"status_name", "not_equals", `"Open"`, false},
		{"status_name", "equals", `5`, false},
		{"status_name", "equals", `true`, false},
		{"status_id", "equals", `"0D5F6A11-3C1E-4B7A-9D02-6A1B7C8D9E01"`, true},
		{"status_id", "in", `["x","0d5f6a11-3c1e-4b7a-9d02-6a1b7c8d9e01"]`, true},
		{"status_id", "equals", `7`, false},
		{"title", "contains", `"warehouses 3"`, true},
		{"title", "contains", `"Warehouses 3"`, false},
		{"title", "not_contains", `"scanner"`, true},
		{"title", "contains", `3`, false},
		{"title", "greater_than", `"Laa"`, true},
		{"title", "less_than", `"Laa"`, false},
		{"ticket_number", "equals", `1042`, true},
		{"ticket_number", "equals", `1042.0`, true},
		{"ticket_number", "greater_than", `999`, true},
		{"ticket_number", "greater_than", `"999"`, false}, // text orders by bytes
		{"ticket_number", "less_than", `1042.5`, true},
		{"title", "greater_than", `1`, false},
		{"title", "less_than", `1`, false},
		{"is_closed", "equals", `false`, true},
		{"is_closed", "equals", `"false"`, false},
		{"is_closed", "in", `[true,false]`, true},
		{"is_closed", "contains", `"f"`, false},
		{"is_closed", "greater_than", `false`, false},
		{"suppress_contact_notifications", "equals", `true`, false},
		{"suppress_internal_notifications", "not_equals", `true`, true},
		{"updated_at", "greater_than", `"2026-03-09T09:20:40.950+01:00"`, true},
		{"updated_at", "equals", `"2026-03-09T08:20:40.951Z"`, true},
		{"updated_at", "less_than", `"2026-03-09T08:20:41Z"`, true},
		{"updated_at", "contains", `"2026-03-09"`, true},
		{"updated_at", "greater_than", `"yesterday"`, false},
		{"updated_at", "greater_than", `5`, false},
		{"entered_at", "in", `["2026-03-09T08:14:02.117Z"]`, true},
		{"closed_at", "equals", `null`, true},
		{"due_date", "less_than", `"2099-01-01T00:00:00Z"`, false}, // null undercuts nothing
		{"assigned_to", "equals", `null`, true},
		{"assigned_to", "not_equals", `null`, false},
		{"assigned_to", "equals", `""`, false},
		{"assigned_to", "not_equals", `"x"`, true},
		{"assigned_to", "in", `["x",null]`, true},
		{"assigned_to", "in", `["x"]`, false},
		{"assigned_to", "not_in", `["x"]`, true},
		{"assigned_to_name", "contains", `"M"`, false},
		{"assigned_to_name", "not_contains", `"M"`, true},
		{"assigned_team_id", "greater_than", `"a"`, false},
		{"status_name", "equals", `null`, false},
		{"status_name", "not_equals", `null`, true},
		{"priority_name", "in", `["High","Urgent"]`, true},
		{"priority_name", "not_in", `["High","Urgent"]`, false},
		{"priority_name", "in", `"Urgent"`, false}, // not a list
		{"tags", "contains", `"PRINTER"`, true},
		{"tags", "contains", `"print"`, false},
		{"tags", "not_contains", `"onsite"`, true},
		{"tags", "in", `["onsite","printer"]`, true},
		{"tags", "not_in", `["onsite"]`, true},
		{"tags", "equals", `"printer"`, false}, // Validate refuses it
		{"changes", "contains", `"title"`, true},
		{"changes", "in", `["status_id","priority_id"]`, true},
		{"changes", "not_contains", `"title"`, false},
		{"comment", "contains", `"ordered"`, true},
		{"url", "contains", `"/msp/tickets/"`, true},
		{"ticket_id", "equals", `"` + ticketID + `"`, true},
		{"client_name", "equals", `"Harbour & Pine Logistics"`, true},
		{"previous_status_name", "equals", `"Open"`, false},
		{"previous_status_id", "not_equals", `"x"`, true},
		{"nonsense", "equals", `null`, true}, // absent is null
		{"nonsense", "not_equals", `"x"`, true},
		{"status_name", "like", `"Open"`, false},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s %s %s", tt.field, tt.op, tt.value), func(t *testing.T) {
			t.Parallel()
			var value any
			if err := json.Unmarshal([]byte(tt.value), &value); err != nil {
				t.Fatal(err)
			}
			f := &delivery.Filter{Conditions: []delivery.Condition{{Field: tt.field, Operator: tt.op, Value: value}}}
			if got := f.Match(ticketID, d); got != tt.want {
				t.Errorf("Match = %v, want %v", got, tt.want)
			}
		})
	}
}

// TestConditionFields reads every payload key through a filter: with "equals"
// and its own value the event must pass, with another it must not.
func TestConditionFields(t *testing.T) {
	t.Parallel()
	body := golden(t, "ticket.status_changed.json")
	_, d := parse(t, body)
	var env struct{ Data map[string]any }
	if err := json.Unmarshal(body, &env); err != nil {
		t.Fatal(err)
	}
	for field, value := range env.Data {
		if field == "tags" {
			continue
		}
		c := delivery.Condition{Field: field, Operator: "equals", Value: value}
		f := &delivery.Filter{Conditions: []delivery.Condition{c}}
		if !f.Match(ticketID, d) {
			t.Errorf("%s equals %v: no match", field, value)
		}
		f.Conditions[0].Value = "something else"
		if f.Match(ticketID, d) {
			t.Errorf("%s equals something else: match", field)
		}
		s := delivery.Spec{Name: "n", URL: "u", Method: "POST", EventTypes: []string{"ticket.created"}, EventFilter: &delivery.Filter{Conditions: []delivery.Condition{c}}}
		if err := s.Validate(); err != nil {
			t.Errorf("%s equals %v: %v", field, value, err)
		}
	}
}

func TestConditionJSONNumber(t *testing.T) {
	t.Parallel()
	n := "7"
	d := &webhook.TicketData{TicketNumber: &n}
	f := &delivery.Filter{Conditions: []delivery.Condition{{Field: "ticket_number", Operator: "less_than", Value: json.Number("8")}}}
	if !f.Match("", d) {
		t.Error("7 is not less than json.Number 8")
	}
	inf := "Inf"
	d.TicketNumber = &inf
	f.Conditions[0].Operator = "greater_than"
	if f.Match("", d) {
		t.Error("the text Inf counts as a number")
	}
}

// scalar draws a value that a condition may hold.
func scalar() *rapid.Generator[any] {
	return rapid.OneOf(
		rapid.Just[any](nil),
		rapid.Bool().AsAny(),
		rapid.Float64().AsAny(),
		rapid.String().AsAny(),
		rapid.SampledFrom([]string{"Open", "1042", "2026-03-09T08:20:40.951Z", "printer", ticketID}).AsAny(),
	)
}

func TestOperatorsComplement(t *testing.T) {
	t.Parallel()
	_, d := parse(t, golden(t, "ticket.updated.json"))
	fields := []string{"title", "status_id", "is_closed", "updated_at", "closed_at", "tags", "changes", "assigned_to", "comment", "x"}
	rapid.Check(t, func(t *rapid.T) {
		field := rapid.SampledFrom(fields).Draw(t, "field")
		holds := func(op string, v any) bool {
			f := &delivery.Filter{Conditions: []delivery.Condition{{Field: field, Operator: op, Value: v}}}
			return f.Match(ticketID, d)
		}
		v := scalar().Draw(t, "value")
		list := rapid.SliceOf(scalar()).Draw(t, "list")
		for _, op := range []string{"equals", "contains", "in"} {
			for _, value := range []any{v, list} {
				if holds(op, value) == holds("not_"+op, value) {
					t.Fatalf("%s %s %v and its opposite are both %v", field, op, value, holds(op, value))
				}
			}
		}
		ordered := 0
		for _, op := range []string{"equals", "greater_than", "less_than"} {
			if holds(op, v) {
				ordered++
			}
		}
		if ordered > 1 {
			t.Fatalf("%s is at once equal to, over or under %v", field, v)
		}
	})
}

func FuzzFilterMatch(f *testing.F) {
	f.Add([]byte(`{"conditions":[{"field":"title","operator":"contains","value":"a"}]}`))
	f.Add([]byte(`{"tags":["x"],"entity_ids":["y"]}`))
	f.Add([]byte(`{"conditions":[{"field":"tags","operator":"in","value":[1,null,"printer"]}]}`))
	_, d := parse(f, golden(f, "ticket.updated.json"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var filter delivery.Filter
		if json.Unmarshal(b, &filter) != nil {
			return
		}
		first := filter.Match(ticketID, d)
		if filter.Match(ticketID, d) != first {
			t.Error("Match is not stable")
		}
		filter.Match(ticketID, &webhook.TicketData{}) // nulls everywhere: must not panic
	})
}

func BenchmarkMatch(b *testing.B) {
	_, d := parse(b, golden(b, "ticket.updated.json"))
	ids := make([]string, 1000)
	for i := range ids {
		ids[i] = fmt.Sprintf("e2a94b77-6f10-4c58-8d3e-%012d", i)
	}
	for name, f := range map[string]*delivery.Filter{
		"none":      nil,
		"1000 ids":  {EntityIDs: ids},
		"condition": {Conditions: []delivery.Condition{{Field: "status_name", Operator: "equals", Value: "Open"}}},
		"time":      {Conditions: []delivery.Condition{{Field: "updated_at", Operator: "greater_than", Value: "2026-03-09T08:00:00Z"}}},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f.Match(ticketID, d)
			}
		})
	}
}
