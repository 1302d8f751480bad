package cutover

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// content compares what an event said with what the poll showed. It returns "" if
// they agree.
func (c *comparison) content(e *event, g *change) (Class, string) {
	if e.state == g.state && e.state != 0 {
		return "", ""
	}
	diff, missing, known := c.differences(g.state, e.state)
	switch {
	case !known && e.state == 0:
		return FieldsMissing, "the record does not have what the payload said"
	case !known:
		diff = []string{"the hashes differ, and the record does not have the fields"}
	case len(diff) == 0 && len(missing) > 0:
		return FieldsMissing, "not in the payload: " + strings.Join(missing, ", ")
	case len(diff) == 0:
		return "", ""
	}
	what := strings.Join(diff, "; ")
	switch {
	case e.updated == never:
		return FieldsDiffer, "the payload has no updated_at; " + what
	case e.updated < g.updated:
		return StalePayload, fmt.Sprintf("the payload is of %s, its event of %s; %s", c.clock(e.updated), c.clock(e.occurred), what)
	case e.updated > g.updated:
		return Followed, what
	default:
		return FieldsDiffer, what
	}
}

// differences compares a polled state with one of a payload, field by field. It
// does not know the answer where the record has not the fields of both.
func (c *comparison) differences(poll, payload int32) (diff, missing []string, known bool) {
	a, b := c.states[poll].fields, c.states[payload].fields
	if a == nil || b == nil {
		return nil, nil, false
	}
	for i, name := range c.names {
		switch {
		case a[i] == b[i] || a[i] == 0:
		case b[i] == 0:
			missing = append(missing, name)
		case c.ignore[name]:
			if !sameJSON(c.text(a[i]), c.text(b[i])) {
				c.ignoring[name]++
			}
		case !sameJSON(c.text(a[i]), c.text(b[i])):
			diff = append(diff, fmt.Sprintf("%s: poll %s, payload %s", name, clip(c.text(a[i])), clip(c.text(b[i]))))
		}
	}
	return diff, missing, true
}

// sameJSON reports whether two values mean the same. Times are compared as times.
func sameJSON(a, b string) bool {
	x, y, ok := decode(a, b)
	if !ok {
		return a == b
	}
	s, isText := x.(string)
	t, areTexts := y.(string)
	if isText && areTexts {
		p, err := time.Parse(time.RFC3339Nano, s)
		q, err2 := time.Parse(time.RFC3339Nano, t)
		if err == nil && err2 == nil {
			return p.Equal(q)
		}
	}
	return reflect.DeepEqual(x, y)
}

func decode(a, b string) (x, y any, ok bool) {
	read := func(text string, v *any) bool {
		d := json.NewDecoder(bytes.NewReader([]byte(text)))
		d.UseNumber()
		return d.Decode(v) == nil
	}
	ok = read(a, &x) && read(b, &y)
	return x, y, ok
}

// clip shortens a value to what a line has room for.
func clip(text string) string {
	const most = 80
	if r := []rune(text); len(r) > most {
		return string(r[:most]) + "..."
	}
	return text
}

// rules reads the rules about fields: which ones count, and why others do not.
func (c *comparison) rules(all []Ignore) []RuleState {
	var out []RuleState
	for _, r := range all {
		s := RuleState{Field: r.Field, Owner: r.Owner, Until: r.Until, Why: r.Why}
		switch {
		case !slices.Contains(c.names, r.Field):
			s.Void = "no field that is compared"
		case strings.TrimSpace(r.Owner) == "":
			s.Void = "nobody answers for it"
		case r.Until.IsZero():
			s.Void = "it has no end"
		case !c.time(c.to).Before(r.Until):
			s.Void = "expired"
		default:
			c.ignore[r.Field] = true
		}
		out = append(out, s)
	}
	return out
}
