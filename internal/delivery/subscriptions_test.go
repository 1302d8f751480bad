package delivery

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/ticketwire/ticketwire/webhook"
)

// texts draws texts that are equal to each other in one way and not in another.
func texts() *rapid.Generator[string] {
	return rapid.SampledFrom([]string{
		"", "a", "A", "s", "S", "\u017f", "k", "K", "\u212a", "\u00e9", "\u00c9", "\u00df", "ss", "\u0130", "i", "\u0131", "I",
		"\xff", "\xfe", "\ufffd", "7", "7.0", "07", "true", "null", "title",
		"e2a94b77-6f10-4c58-8d3e-90b1c2d3e4f5", "E2A94B77-6F10-4C58-8D3E-90B1C2D3E4F5",
	})
}

// values draws what a condition may be given, valid or not.
func values() *rapid.Generator[any] {
	return rapid.OneOf(
		texts().AsAny(), texts().AsAny(), rapid.Just[any](nil), rapid.Bool().AsAny(),
		rapid.Just[any](7.0), rapid.Just[any](json.Number("7")), rapid.Just[any]("2026-03-09T08:20:40Z"),
	)
}

// likely draws a value that has to do with what the event has in the field.
func likely(d *webhook.TicketData, field string) *rapid.Generator[any] {
	o := fieldOf(d, field)
	own := o.text
	if len(o.list) > 0 {
		own = o.list[len(o.list)-1]
	}
	switch {
	case o.null:
		return rapid.Just[any](nil)
	case o.kind == boolField:
		return rapid.Just[any](o.flag)
	}
	candidates := []any{own, own, strings.ToUpper(own), strings.ToLower(own), own[:len(own)/2]}
	if _, err := strconv.ParseFloat(own, 64); err == nil {
		candidates = append(candidates, 7.0, json.Number("7"))
	}
	return rapid.SampledFrom(candidates)
}

func conditions(d *webhook.TicketData) *rapid.Generator[Condition] {
	return rapid.Custom(func(t *rapid.T) Condition {
		c := Condition{
			Field: rapid.SampledFrom(append(FilterFields(), "nonsense")).Draw(t, "field"),
			Operator: rapid.SampledFrom([]string{
				OpEquals, OpEquals, OpIn, OpIn, OpContains, OpNotEquals, OpNotContains, OpGreaterThan, OpLessThan, OpNotIn, "like",
			}).Draw(t, "operator"),
		}
		value := rapid.OneOf(likely(d, c.Field), likely(d, c.Field), values())
		many := c.Operator == OpIn || c.Operator == OpNotIn
		if odd := rapid.IntRange(0, 9).Draw(t, "odd") == 0; odd != many {
			c.Value = rapid.SliceOfN(value, 0, 2*maxKeys).Draw(t, "values")
		} else {
			c.Value = value.Draw(t, "value")
		}
		return c
	})
}

// subscribers draws webhooks of which many want an event with the data d.
func subscribers(d *webhook.TicketData) *rapid.Generator[*Webhook] {
	types := rapid.SampledFrom([]string{webhook.TicketCreated, webhook.TicketUpdated, webhook.TicketClosed})
	return rapid.Custom(func(t *rapid.T) *Webhook {
		w := &Webhook{WebhookID: rapid.StringMatching(`[a-z]`).Draw(t, "id")}
		w.IsActive = rapid.IntRange(0, 4).Draw(t, "active") > 0
		w.EventTypes = rapid.SliceOfN(types, 1, 4).Draw(t, "types")
		part := func(name string) bool { return rapid.IntRange(0, 2).Draw(t, name) == 0 }
		w.EventFilter = &Filter{}
		if part("with entity_ids") {
			w.EventFilter.EntityIDs = rapid.SliceOfN(rapid.OneOf(texts(), rapid.Just(d.TicketID)), 1, 2*maxKeys).Draw(t, "entity_ids")
		}
		if part("with tags") {
			w.EventFilter.Tags = rapid.SliceOfN(rapid.OneOf(texts(), rapid.SampledFrom(append(d.Tags, "x"))), 1, 4).Draw(t, "tags")
		}
		if !part("without conditions") {
			w.EventFilter.Conditions = rapid.SliceOfN(conditions(d), 1, 2).Draw(t, "conditions")
		}
		if part("no filter") && part("at all") {
			w.EventFilter = nil
		}
		return w
	})
}

func ticketData() *rapid.Generator[*webhook.TicketData] {
	return rapid.Custom(func(t *rapid.T) *webhook.TicketData {
		nullable := func(name string) *string { return rapid.Ptr(texts(), true).Draw(t, name) }
		flag := func(name string) bool { return rapid.Bool().Draw(t, name) }
		d := &webhook.TicketData{
			TicketID: texts().Draw(t, "ticket_id"), URL: texts().Draw(t, "url"),
			TicketNumber: nullable("ticket_number"), Title: nullable("title"),
			StatusID: nullable("status_id"), StatusName: nullable("status_name"),
			PriorityID: nullable("priority_id"), PriorityName: nullable("priority_name"),
			ClientID: nullable("client_id"), ClientName: nullable("client_name"),
			ContactNameID: nullable("contact_name_id"), ContactName: nullable("contact_name"), ContactEmail: nullable("contact_email"),
			AssignedTo: nullable("assigned_to"), AssignedToName: nullable("assigned_to_name"), AssignedTeamID: nullable("assigned_team_id"),
			BoardID: nullable("board_id"), BoardName: nullable("board_name"),
			CategoryID: nullable("category_id"), SubcategoryID: nullable("subcategory_id"),
			PreviousStatusID: nullable("previous_status_id"), PreviousStatusName: nullable("previous_status_name"),
			IsClosed: flag("is_closed"), SuppressContactNotifications: flag("contact"), SuppressInternalNotifications: flag("internal"),
			Tags: rapid.SliceOfN(texts(), 0, 3).Draw(t, "tags"),
		}
		for _, field := range rapid.SliceOfN(texts(), 0, 2).Draw(t, "changes") {
			d.Changes = append(d.Changes, webhook.Change{Field: field})
		}
		if flag("comment") {
			d.Comment = &webhook.Comment{Text: texts().Draw(t, "comment")}
		}
		return d
	})
}

// walk is what Match must find: every webhook is asked.
func walk(all map[string]*Webhook, eventType, ticketID string, d *webhook.TicketData) []string {
	var ids []string
	for _, id := range slices.Sorted(maps.Keys(all)) {
		if w := all[id]; w.Wants(eventType) && w.EventFilter.Match(ticketID, d) {
			ids = append(ids, id)
		}
	}
	return ids
}

func idsOf(list []*Webhook) []string {
	var ids []string
	for _, w := range list {
		ids = append(ids, w.WebhookID)
	}
	return ids
}

// Whatever was put and removed, an event finds exactly the webhooks that a walk
// over all of them finds, in the order of their ids.
func TestSubscriptionsFindWhatAWalkFinds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var s Subscriptions
		all := map[string]*Webhook{}
		events := rapid.SliceOfN(ticketData(), 3, 3).Draw(t, "events")
		for range rapid.IntRange(1, 200).Draw(t, "changes") {
			w := subscribers(rapid.SampledFrom(events).Draw(t, "for")).Draw(t, "webhook")
			if rapid.IntRange(0, 3).Draw(t, "remove") == 0 {
				s.Remove(w.WebhookID)
				delete(all, w.WebhookID)
			} else {
				s.Put(w)
				all[w.WebhookID] = w
			}
		}
		for _, d := range append(events, nil) {
			eventType := rapid.SampledFrom([]string{webhook.TicketCreated, webhook.TicketUpdated, webhook.Test}).Draw(t, "type")
			ticketID := rapid.OneOf(texts(), rapid.Just(events[0].TicketID)).Draw(t, "ticket")
			if d != nil {
				ticketID = d.TicketID
			}
			want := walk(all, eventType, ticketID, d)
			if got := idsOf(s.Match(eventType, ticketID, d)); !slices.Equal(got, want) {
				t.Fatalf("%s about %q finds %q, a walk %q", eventType, ticketID, got, want)
			}
		}
		for id := range all {
			s.Remove(id)
		}
		if s.Len() != 0 || len(s.shelves) != 0 {
			t.Fatalf("%d webhooks and the shelves %v are left after all were removed", s.Len(), s.shelves)
		}
	})
}

// FuzzSubscriptions holds the keys against the comparisons they stand for, one
// text as a filter's and one as the event's.
func FuzzSubscriptions(f *testing.F) {
	for _, pair := range [][2]string{{"", ""}, {"K", "\u212a"}, {"\u017f", "S"}, {"\xff", "\ufffd"}, {"7", "7.0"}, {"\u00df", "ss"}, {"\u03a3", "\u03c2"}} {
		f.Add(pair[0], pair[1])
	}
	f.Fuzz(func(t *testing.T, filter, event string) {
		all, s := map[string]*Webhook{}, Subscriptions{}
		add := func(id string, f *Filter) {
			w := &Webhook{WebhookID: id, Spec: Spec{IsActive: true, EventTypes: []string{webhook.TicketUpdated}, EventFilter: f}}
			all[id] = w
			s.Put(w)
		}
		add("entity", &Filter{EntityIDs: []string{filter}})
		add("tag", &Filter{Tags: []string{filter}})
		for _, field := range []string{"ticket_id", "client_id", "title", "comment"} {
			for _, v := range []any{filter, nil, 7.0, json.Number("7"), true} {
				add(fmt.Sprintf("%s equals %T %[2]v", field, v), &Filter{Conditions: []Condition{{field, OpEquals, v}}})
				add(fmt.Sprintf("%s in %T %[2]v", field, v), &Filter{Conditions: []Condition{{field, OpIn, []any{"x", v}}}})
			}
		}
		for _, field := range []string{"tags", "changes"} {
			add(field+" contains", &Filter{Conditions: []Condition{{field, OpContains, filter}}})
			add(field+" in", &Filter{Conditions: []Condition{{field, OpIn, []any{"x", filter}}}})
		}
		for _, d := range []*webhook.TicketData{
			nil, {},
			{
				TicketID: event, ClientID: &event, Title: &event, Comment: &webhook.Comment{Text: event},
				Tags: []string{event, "y"}, Changes: webhook.Changes{{Field: event}},
			},
		} {
			want := walk(all, webhook.TicketUpdated, event, d)
			if got := idsOf(s.Match(webhook.TicketUpdated, event, d)); !slices.Equal(got, want) {
				t.Errorf("filter %q, event %q, data %+v: found %q, a walk finds %q", filter, event, d, got, want)
			}
		}
	})
}

// What a webhook is filed under decides what an event costs; that it is right,
// the tests above show.
func TestPlaceOf(t *testing.T) {
	t.Parallel()
	many := make([]any, 40)
	for i := range many {
		many[i] = fmt.Sprint("c", i)
	}
	tests := []struct {
		name   string
		filter string
		field  string
		keys   []string
	}{
		{"nothing demanded", `{}`, anyTicket, []string{""}},
		{"entity ids", `{"entity_ids":["x","y"]}`, entityField, []string{"x", "y"}},
		{"tags", `{"tags":["VIP","\u017fub"]}`, "tags", []string{"vip", "sub"}},
		{"an id in any case", `{"conditions":[{"field":"client_id","operator":"equals","value":"AB"}]}`, "client_id", []string{"ab"}},
		{"a text as it is", `{"conditions":[{"field":"title","operator":"equals","value":"AB"}]}`, "title", []string{"AB"}},
		{"a flag", `{"conditions":[{"field":"is_closed","operator":"equals","value":true}]}`, "is_closed", []string{"true"}},
		{"null", `{"conditions":[{"field":"assigned_to","operator":"equals","value":null}]}`, "assigned_to", []string{""}},
		{"any of several", `{"conditions":[{"field":"board_id","operator":"in","value":["A",null]}]}`, "board_id", []string{"a", ""}},
		{"a changed field", `{"conditions":[{"field":"changes","operator":"contains","value":"Title"}]}`, "changes", []string{"title"}},
		{"one tag of several", `{"conditions":[{"field":"tags","operator":"in","value":["A","b"]}]}`, "tags", []string{"a", "b"}},
		{"every value of a flag", `{"conditions":[{"field":"is_closed","operator":"in","value":[true,false]}]}`, anyTicket, []string{""}},
		{"a number", `{"conditions":[{"field":"ticket_number","operator":"equals","value":7}]}`, anyTicket, []string{""}},
		{"a number among texts", `{"conditions":[{"field":"ticket_number","operator":"in","value":["8",7]}]}`, anyTicket, []string{""}},
		{"a time", `{"conditions":[{"field":"due_date","operator":"equals","value":"2026-03-09T08:20:40Z"}]}`, anyTicket, []string{""}},
		{"no time", `{"conditions":[{"field":"closed_at","operator":"equals","value":null}]}`, anyTicket, []string{""}},
		{"part of a text", `{"conditions":[{"field":"title","operator":"contains","value":"a"}]}`, anyTicket, []string{""}},
		{"what it must not be", `{"conditions":[{"field":"client_id","operator":"not_equals","value":"a"}]}`, anyTicket, []string{""}},
		{"the rarest of several", `{"tags":["a"],"conditions":[
			{"field":"is_closed","operator":"equals","value":false},
			{"field":"client_id","operator":"equals","value":"c"},
			{"field":"status_name","operator":"equals","value":"Open"}]}`, "client_id", []string{"c"}},
		{"one ticket before everything", `{"entity_ids":["x"],"conditions":[{"field":"contact_email","operator":"equals","value":"c"}]}`, entityField, []string{"x"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := Webhook{Spec: Spec{EventTypes: []string{webhook.TicketUpdated}, EventFilter: &Filter{}}}
			if err := json.Unmarshal([]byte(tt.filter), w.EventFilter); err != nil {
				t.Fatal(err)
			}
			if p := placeOf(&w); p.field != tt.field || !slices.Equal(p.keys, tt.keys) {
				t.Errorf("filed under %q %q, want %q %q", p.field, p.keys, tt.field, tt.keys)
			}
		})
	}
	w := Webhook{Spec: Spec{EventTypes: EventTypes(), EventFilter: &Filter{Conditions: []Condition{{"client_id", OpIn, many}}}}}
	if got := placeOf(&w).shelves(&w); !slices.Equal(got, []string{manyTypes}) {
		t.Errorf("%d keys are filed on the shelves %q", len(many), got)
	}
}

// crowd is n webhooks of which the first 10 match: the others watch tickets,
// clients, tags or statuses of their own.
func crowd(n int) *Subscriptions {
	s := &Subscriptions{}
	for i := range n {
		w := &Webhook{WebhookID: fmt.Sprintf("%036d", i), Spec: Spec{IsActive: true, EventTypes: []string{webhook.TicketUpdated}}}
		other := fmt.Sprintf("%035dx", i)
		switch {
		case i < 10:
		case i%4 == 0:
			w.EventFilter = &Filter{EntityIDs: []string{other}}
		case i%4 == 1:
			w.EventFilter = &Filter{Tags: []string{other}}
		case i%4 == 2:
			w.EventFilter = &Filter{Conditions: []Condition{{"is_closed", OpEquals, false}, {"client_id", OpEquals, other}}}
		default:
			w.EventFilter = &Filter{Conditions: []Condition{{"status_name", OpIn, []any{"Open", "New"}}, {"ticket_number", OpEquals, other}}}
		}
		s.Put(w)
	}
	return s
}

func BenchmarkSubscriptions(b *testing.B) {
	id := strings.Repeat("0", 36)
	d := &webhook.TicketData{TicketID: id, ClientID: &id, StatusName: new("Open"), TicketNumber: new("TKT-1000"), Tags: []string{"onsite", "printer"}}
	for _, n := range []int{10, 1_000, 100_000} {
		s := crowd(n)
		b.Run(fmt.Sprint("match/", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if got := len(s.Match(webhook.TicketUpdated, id, d)); got != 10 {
					b.Fatalf("%d match", got)
				}
			}
		})
		b.Run(fmt.Sprint("put/", n), func(b *testing.B) {
			b.ReportAllocs()
			w := *s.webhooks[fmt.Sprintf("%036d", 5)]
			for b.Loop() {
				s.Put(&w)
			}
		})
	}
}
