package delivery

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/ticketwire/ticketwire/webhook"
)

// Bounds of an event_filter. The ticket of a tag holds at most maxTagLength
// characters of it (contract P11), so a longer one could never match.
const (
	maxConditions      = 50
	maxEntityIDs       = 1000
	maxFilterTags      = 50
	maxTagLength       = 50
	maxConditionValues = 1000 // entries of one in or not_in list
)

// checkFilter validates an event_filter. A condition that could never be true,
// such as is_closed greater_than 3, is refused: a filter that silently matches
// nothing looks like a lost event.
func (is *issues) checkFilter(f *Filter) {
	if f == nil {
		return
	}
	within(is, at("event_filter", "entity_ids"), anArray, len(f.EntityIDs), size[int]{0, maxEntityIDs})
	for i, id := range f.EntityIDs {
		f.EntityIDs[i] = strings.ToLower(id)
		if !isUUID(id) {
			is.uuid(at("event_filter", "entity_ids", i))
		}
	}
	within(is, at("event_filter", "tags"), anArray, len(f.Tags), size[int]{0, maxFilterTags})
	for i, tag := range f.Tags {
		within(is, at("event_filter", "tags", i), aString, utf8.RuneCountInString(tag), size[int]{1, maxTagLength})
	}
	within(is, at("event_filter", "conditions"), anArray, len(f.Conditions), size[int]{0, maxConditions})
	for i := range f.Conditions {
		is.checkCondition(&f.Conditions[i], at("event_filter", "conditions", i))
	}
}

// Operators returns the names that Condition.Operator can have. The slice is the
// caller's.
func Operators() []string {
	return []string{OpEquals, OpNotEquals, OpContains, OpNotContains, OpGreaterThan, OpLessThan, OpIn, OpNotIn}
}

// checkCondition validates one condition whose place in the body is path.
func (is *issues) checkCondition(c *Condition, path []any) {
	path = slices.Clip(path) // appending to it twice must not share memory
	known := true
	if !slices.Contains(FilterFields(), c.Field) {
		is.enum(append(path, "field"), c.Field, FilterFields())
		known = false
	}
	if !slices.Contains(Operators(), c.Operator) {
		is.enum(append(path, "operator"), c.Operator, Operators())
		known = false
	}
	if !known {
		return
	}
	k := fieldOf(&webhook.TicketData{}, c.Field).kind
	if msg := operatorProblem(k, c.Operator); msg != "" {
		is.custom(append(path, "operator"), "%s: %s", c.Field, msg)
		return
	}
	if msg := valueProblem(k, c.Operator, c.Value); msg != "" {
		is.custom(append(path, "value"), "%s: %s", c.Field, msg)
	}
}

// operatorProblem says why a field of this kind cannot take the operator, or "".
func operatorProblem(k kind, op string) string {
	equality := op == OpEquals || op == OpNotEquals
	order := op == OpGreaterThan || op == OpLessThan
	part := op == OpContains || op == OpNotContains
	switch {
	case k == listField && (equality || order):
		return "a list takes contains, not_contains, in and not_in"
	case k == boolField && (order || part):
		return "a flag takes equals, not_equals, in and not_in"
	case k == idField && order:
		return "an id has no order"
	}
	return ""
}

// valueProblem says what is wrong with a condition's value, or "".
func valueProblem(k kind, op string, value any) string {
	switch op {
	case OpIn, OpNotIn:
		list, ok := value.([]any)
		if !ok || len(list) == 0 {
			return op + " needs a list with at least one value"
		}
		if len(list) > maxConditionValues {
			return op + " takes at most 1000 values"
		}
		for _, v := range list {
			if msg := scalarProblem(k, v, k != listField); msg != "" {
				return msg
			}
		}
		return ""
	case OpContains, OpNotContains:
		if s, ok := value.(string); !ok || s == "" {
			return op + " needs a text that is not empty"
		}
		return ""
	}
	return scalarProblem(k, value, op == OpEquals || op == OpNotEquals)
}

// scalarProblem says why a field of this kind is never compared with v, or "".
func scalarProblem(k kind, v any, nullable bool) string {
	if v == nil {
		if nullable {
			return ""
		}
		return "cannot be compared with null"
	}
	switch k {
	case boolField:
		if _, ok := v.(bool); !ok {
			return "the value must be true or false"
		}
	case timeField:
		if _, ok := instantOf(v); !ok {
			return "the value must be an RFC 3339 time such as 2026-03-09T08:00:00Z"
		}
	case textField:
		_, isText := v.(string)
		if _, isNumber := number(v); !isText && !isNumber {
			return "the value must be a text or a number"
		}
	default:
		if _, ok := v.(string); !ok {
			return "the value must be a text"
		}
	}
	return ""
}

// isUUID reports whether s is 8-4-4-4-12 hex digits in any case, which is what
// the contract accepts (section 1.2).
func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		default:
			hex := c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
			if !hex {
				return false
			}
		}
	}
	return true
}
