package delivery

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ticketwire/ticketwire/webhook"
)

// Subscriptions finds the webhooks of one tenant that want an event at a cost of
// what matches, not of what exists. The zero value is empty.
//
// Each webhook is filed under one thing that its filter demands: the keys of one
// field, of which an event must have one. An event looks up its own keys. What
// is found there is checked with Wants and Filter.Match, so a key may stand for
// more than it should, but never for less: the test of this type holds it
// against the walk over all webhooks. A filter that demands nothing which has
// keys (not_in, greater_than, a number) is checked for every event of its types.
type Subscriptions struct {
	webhooks map[string]*Webhook // by id
	shelves  map[string]shelf    // by event type
}

// shelf holds webhooks by field and key, each list in the order of their ids.
type shelf map[string]map[string][]*Webhook

// The fields of a shelf that are no payload keys.
const (
	anyTicket   = ""           // its only key is "", and every event has it
	entityField = "entity_ids" // the ids of Filter.EntityIDs
)

// manyTypes is the shelf of the webhooks with more than maxKeys keys. They are
// filed once, and not once for each of their event types: with a thousand ids
// and every type that would be 40,000 places.
const (
	manyTypes = ""
	maxKeys   = 16
)

// Len returns how many webhooks there are.
func (s *Subscriptions) Len() int { return len(s.webhooks) }

// Put files w in place of the webhook with its id, if there is one. A webhook
// that is not active is only removed. w must not be changed afterwards.
func (s *Subscriptions) Put(w *Webhook) {
	s.Remove(w.WebhookID)
	if !w.IsActive {
		return
	}
	if s.webhooks == nil {
		s.webhooks, s.shelves = map[string]*Webhook{}, map[string]shelf{}
	}
	s.webhooks[w.WebhookID] = w
	p := placeOf(w)
	for _, name := range p.shelves(w) {
		sh := s.shelves[name]
		if sh == nil {
			sh = shelf{}
			s.shelves[name] = sh
		}
		sh.add(p, w)
	}
}

// Remove forgets the webhook with this id, if there is one.
func (s *Subscriptions) Remove(webhookID string) {
	w := s.webhooks[webhookID]
	if w == nil {
		return
	}
	delete(s.webhooks, webhookID)
	p := placeOf(w)
	for _, name := range p.shelves(w) {
		s.shelves[name].remove(p, w)
		if len(s.shelves[name]) == 0 {
			delete(s.shelves, name)
		}
	}
}

// Match returns the webhooks that want an event of this type about this ticket,
// in the order of their ids. The arguments are those of Filter.Match. What is
// returned must not be changed.
func (s *Subscriptions) Match(eventType, ticketID string, d *webhook.TicketData) []*Webhook {
	var found []*Webhook
	var keys []string
	for _, name := range [...]string{eventType, manyTypes} {
		for field, lists := range s.shelves[name] {
			keys = appendKeys(keys[:0], field, ticketID, d)
			for _, key := range keys {
				for _, w := range lists[key] {
					if w.Wants(eventType) && w.EventFilter.Match(ticketID, d) {
						found = append(found, w)
					}
				}
			}
		}
	}
	slices.SortFunc(found, compareIDs)
	return slices.Compact(found) // two tags of a ticket may lead to one webhook
}

func (sh shelf) add(p place, w *Webhook) {
	lists := sh[p.field]
	if lists == nil {
		lists = map[string][]*Webhook{}
		sh[p.field] = lists
	}
	for _, key := range p.keys {
		list := lists[key]
		if i, known := slices.BinarySearchFunc(list, w, compareIDs); !known {
			lists[key] = slices.Insert(list, i, w)
		}
	}
}

func (sh shelf) remove(p place, w *Webhook) {
	lists := sh[p.field]
	for _, key := range p.keys {
		list := lists[key]
		i, known := slices.BinarySearchFunc(list, w, compareIDs)
		switch {
		case !known: // a key that the filter names twice
		case len(list) == 1:
			delete(lists, key)
		default:
			lists[key] = slices.Delete(list, i, i+1)
		}
	}
	if len(lists) == 0 {
		delete(sh, p.field)
	}
}

func compareIDs(a, b *Webhook) int { return cmp.Compare(a.WebhookID, b.WebhookID) }

// place is where a webhook is filed. It follows from the webhook alone, so that
// it can be found again.
type place struct {
	field string
	keys  []string
	share float64 // a guess: of all events, how many have one of the keys
}

// shelves returns the names of the shelves on which w is filed.
func (p place) shelves(w *Webhook) []string {
	if len(p.keys) > maxKeys {
		return []string{manyTypes}
	}
	return w.EventTypes
}

// placeOf picks what the fewest events have, of all that the filter demands.
func placeOf(w *Webhook) place {
	best := place{anyTicket, []string{""}, 1}
	f := w.EventFilter
	if f == nil {
		return best
	}
	offer := func(field string, keys []string) {
		p := place{field: field, keys: keys}
		for _, key := range keys {
			p.share += share(field, key)
		}
		if p.share < best.share {
			best = p
		}
	}
	for i := range f.Conditions {
		if keys, ok := f.Conditions[i].keys(); ok {
			offer(f.Conditions[i].Field, keys)
		}
	}
	if len(f.Tags) > 0 {
		keys := make([]string, len(f.Tags))
		for i, tag := range f.Tags {
			keys[i] = foldKey(tag)
		}
		offer("tags", keys)
	}
	if len(f.EntityIDs) > 0 {
		offer(entityField, f.EntityIDs)
	}
	return best
}

// share guesses which part of all events has this key: one in as many as the
// field has values in a large help desk. A wrong guess costs checks that find
// nothing, and no delivery.
func share(field, key string) float64 {
	if key == "" { // null, which is common where it is possible
		return 0.5
	}
	switch field {
	case entityField, "ticket_id", "ticket_number", "url":
		return 1e-6
	case "title", "comment":
		return 1e-5
	case "contact_name_id", "contact_name", "contact_email":
		return 1e-4
	case "client_id", "client_name":
		return 1e-3
	case "assigned_to", "assigned_to_name", "tags":
		return 0.01
	case "category_id", "subcategory_id", "assigned_team_id":
		return 0.02
	case "status_id", "status_name", "previous_status_id", "previous_status_name", "board_id", "board_name", "changes":
		return 0.1
	case "priority_id", "priority_name":
		return 0.2
	}
	return 0.5 // flags
}

// keys returns the keys of which an event must have one for the condition to be
// true. ok is false where keys cannot say that.
func (c *Condition) keys() (keys []string, ok bool) {
	k := fieldOf(&webhook.TicketData{}, c.Field).kind
	var values []any
	switch {
	case c.Operator == OpEquals && k != listField, c.Operator == OpContains && k == listField:
		values = []any{c.Value}
	case c.Operator == OpIn:
		if values, ok = c.Value.([]any); !ok {
			return nil, false
		}
	default:
		return nil, false
	}
	for _, v := range values {
		key, ok := k.key(v)
		if !ok {
			return nil, false
		}
		keys = append(keys, key)
	}
	return keys, true
}

// key returns the key of the fields of kind k that are equal to v, or of the
// lists that have it. It must agree with operand.equals and operand.contains:
// whatever they take for equal has one key. Times have none, because one instant
// has many texts, and neither have numbers, because they equal texts as
// different as 7 and 7.0.
func (k kind) key(v any) (key string, ok bool) {
	switch v := v.(type) {
	case nil:
		return "", k == idField || k == textField
	case bool:
		return strconv.FormatBool(v), k == boolField
	case string:
		switch k {
		case idField, listField:
			return foldKey(v), true
		case textField:
			return v, true
		}
	}
	return "", false
}

// appendKeys appends the keys that an event has in a field of a shelf.
func appendKeys(keys []string, field, ticketID string, d *webhook.TicketData) []string {
	switch {
	case field == anyTicket:
		return append(keys, "")
	case field == entityField:
		return append(keys, ticketID)
	case d == nil:
		return keys // it fails every tag and condition
	}
	o := fieldOf(d, field)
	switch {
	case o.null:
		return append(keys, "")
	case o.kind == boolField:
		return append(keys, strconv.FormatBool(o.flag))
	case o.kind == idField:
		return append(keys, foldKey(o.text))
	case o.kind == listField:
		for _, entry := range o.list {
			keys = append(keys, foldKey(entry))
		}
		return keys
	}
	return append(keys, o.text)
}

// foldKey returns one text for all that strings.EqualFold takes for equal:
// strings.ToLower does not, it keeps ſ and s apart. A text that is lower case
// and ASCII, as stored ids are, stays as it is.
func foldKey(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf || 'A' <= r && r <= 'Z' }) < 0 {
		return s
	}
	return strings.Map(func(r rune) rune {
		least := r
		for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
			least = min(least, next)
		}
		if least >= 'A' && least <= 'Z' {
			return least + 'a' - 'A'
		}
		return least
	}, s)
}
