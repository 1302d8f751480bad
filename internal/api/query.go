package api

import (
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ticketwire/ticketwire/internal/fault"
)

// params reads the query string and collects what is wrong with it.
type params struct {
	v       url.Values
	issues  []fault.Issue
	filters map[string]any // what was given, echoed as meta.filters
}

// The bounds of a query string. The contract sets none; a database does, on the
// length of a pattern and on the number of arguments.
const (
	maxParam = 1000 // characters of one text
	maxList  = 500  // elements of one list
)

// params parses the query string. One that cannot be read is refused as a whole:
// a filter that was lost on the way would answer with everything.
func (c *call) params() *params {
	v, err := url.ParseQuery(c.r.URL.RawQuery)
	p := &params{v: v, filters: map[string]any{}}
	if err != nil {
		p.issues = append(p.issues, fault.Issue{Code: "custom", Message: "The query string is malformed"})
	}
	return p
}

func (p *params) err() error {
	if len(p.issues) == 0 {
		return nil
	}
	return &fault.Error{Kind: fault.Invalid, Message: "Query validation failed", Issues: p.issues}
}

func (p *params) issue(key, code, msg string, extra map[string]any) {
	p.issueAt([]any{key}, code, msg, extra)
}

func (p *params) issueAt(path []any, code, msg string, extra map[string]any) {
	p.issues = append(p.issues, fault.Issue{Code: code, Path: path, Message: msg, Extra: extra})
}

// text returns a parameter, "" when absent.
func (p *params) text(key string) string {
	s := p.value(key)
	if utf8.RuneCountInString(s) > maxParam {
		p.issue(key, "too_big", fmt.Sprintf("String must contain at most %d character(s)", maxParam),
			map[string]any{"maximum": maxParam, "type": "string", "inclusive": true, "exact": false})
		return ""
	}
	return s
}

// needText is text for a required parameter.
func (p *params) needText(key string) string {
	s := p.text(key)
	switch {
	case s != "":
	case !p.v.Has(key):
		p.issue(key, "invalid_type", "Required", map[string]any{"expected": "string", "received": "undefined"})
	case p.v.Get(key) == "":
		p.issue(key, "too_small", "String must contain at least 1 character(s)",
			map[string]any{"minimum": 1, "type": "string", "inclusive": true, "exact": false})
	}
	return s
}

// value returns a parameter of any length, "" when absent or not text.
func (p *params) value(key string) string {
	s := p.v.Get(key)
	if s == "" {
		return ""
	}
	if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
		p.issue(key, "custom", "must be valid UTF-8 without NUL", nil)
		return ""
	}
	p.filters[key] = s
	return s
}

func (p *params) uuid(key string) string {
	s := p.text(key)
	if s != "" && !uuidForm.MatchString(s) {
		p.issue(key, "invalid_string", "Invalid uuid", map[string]any{"validation": "uuid"})
		return ""
	}
	return strings.ToLower(s)
}

// list reads a comma-separated list or a JSON array of strings.
func (p *params) list(key string) []string {
	out := p.elements(key)
	if len(out) > maxList {
		p.issue(key, "too_big", fmt.Sprintf("Array must contain at most %d element(s)", maxList),
			map[string]any{"maximum": maxList, "type": "array", "inclusive": true, "exact": false})
		return nil
	}
	return out
}

func (p *params) elements(key string) []string {
	s := p.value(key)
	if s == "" {
		return nil
	}
	var out []string
	if strings.HasPrefix(s, "[") {
		if err := json.Unmarshal([]byte(s), &out); err != nil {
			p.issue(key, "custom", "must be a comma-separated list or a JSON array of strings", nil)
			return nil
		}
		return out
	}
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

// listOf reads a list whose elements must be among the options.
func (p *params) listOf(key string, options []string) []string {
	list := p.list(key)
	for i, s := range list {
		if !slices.Contains(options, s) {
			p.issues = append(p.issues, fault.Issue{
				Code: "invalid_enum_value", Path: []any{key, i},
				Message: fmt.Sprintf("Invalid enum value. Expected '%s', received '%s'", strings.Join(options, "' | '"), s),
				Extra:   map[string]any{"received": s, "options": options},
			})
			return nil
		}
	}
	return list
}

func (p *params) uuids(key string) []string {
	list := p.list(key)
	for i, s := range list {
		if !uuidForm.MatchString(s) {
			p.issues = append(p.issues, fault.Issue{Code: "invalid_string", Path: []any{key, i}, Message: "Invalid uuid", Extra: map[string]any{"validation": "uuid"}})
			return nil
		}
		list[i] = strings.ToLower(s)
	}
	return list
}

// boolean accepts true and false only.
func (p *params) boolean(key string) *bool {
	switch s := p.text(key); s {
	case "":
		return nil
	case "true", "false":
		b := s == "true"
		return &b
	default:
		p.issue(key, "invalid_enum_value", fmt.Sprintf("Invalid enum value. Expected 'true' | 'false', received '%s'", s),
			map[string]any{"received": s, "options": []string{"true", "false"}})
		return nil
	}
}

func (p *params) datetime(key string) *time.Time {
	s := p.text(key)
	if s == "" {
		return nil
	}
	t, valid := parseDatetime(s)
	if !valid {
		p.issue(key, "invalid_string", "Invalid datetime", map[string]any{"validation": "datetime"})
		return nil
	}
	return &t
}

// moment is datetime for filters that people type: a bare date means its first
// instant in UTC, or its last where it ends a range. So does a millisecond, which is
// as exactly as records show a time: a range that ends at what one shows has it.
func (p *params) moment(key string, end bool) *time.Time {
	day, err := time.Parse(time.DateOnly, p.v.Get(key))
	if err != nil {
		at := p.datetime(key)
		if end && at != nil && at.Equal(at.Truncate(time.Millisecond)) {
			at = new(at.Add(time.Millisecond - time.Microsecond))
		}
		return at
	}
	p.filters[key] = p.v.Get(key)
	if end {
		day = day.AddDate(0, 0, 1).Add(-time.Microsecond)
	}
	return &day
}

func (p *params) number(key string) *float64 {
	s := p.text(key)
	if s == "" {
		return nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f != f {
		p.issue(key, "invalid_type", "Expected number, received nan", map[string]any{"expected": "number", "received": "nan"})
		return nil
	}
	return &f
}

// integer reads a number as JavaScript's parseInt does, since the contract's
// service does: "2x" is 2 (contract section 1.4).
func (p *params) integer(key string, def, lo, hi int) int {
	s := strings.TrimSpace(p.v.Get(key))
	if s == "" {
		return def
	}
	end := 0
	for end < len(s) && (s[end] >= '0' && s[end] <= '9' || end == 0 && (s[0] == '-' || s[0] == '+')) {
		end++
	}
	n, err := strconv.Atoi(s[:end])
	switch {
	case err != nil:
		p.issue(key, "invalid_type", "Expected number, received nan", map[string]any{"expected": "number", "received": "nan"})
	case n < lo:
		p.issue(key, "too_small", fmt.Sprintf("Number must be greater than or equal to %d", lo),
			map[string]any{"minimum": lo, "type": "number", "inclusive": true, "exact": false})
	case n > hi:
		p.issue(key, "too_big", fmt.Sprintf("Number must be less than or equal to %d", hi),
			map[string]any{"maximum": hi, "type": "number", "inclusive": true, "exact": false})
	default:
		return n
	}
	return def
}

// oneOf reads a parameter that must be one of the options.
func (p *params) oneOf(key, def string, options []string) string {
	s := p.v.Get(key)
	if s == "" {
		return def
	}
	if slices.Contains(options, s) {
		return s
	}
	p.issue(key, "invalid_enum_value", fmt.Sprintf("Invalid enum value. Expected '%s', received '%s'", strings.Join(options, "' | '"), s),
		map[string]any{"received": s, "options": options})
	return def
}

// choice is oneOf for a filter: "" when absent, and echoed when given.
func (p *params) choice(key string, options []string) string {
	s := p.oneOf(key, "", options)
	if s != "" {
		p.filters[key] = s
	}
	return s
}

// paging is what page, limit, sort and order ask for.
type paging struct {
	page, limit int
	sort        string
	desc        bool
}

// maxPage keeps the offset of a page within an int32 at any limit.
const maxPage = 20_000_000

// paging reads the pagination parameters of contract section 1.4. capLimit cuts
// a limit over 100 instead of refusing it, as webhook lists do.
func (p *params) paging(defSort string, sorts []string, capLimit bool) paging {
	hi := 100
	if capLimit {
		hi = math.MaxInt
	}
	return paging{
		page:  p.integer("page", 1, 1, maxPage),
		limit: min(100, p.integer("limit", 25, 1, hi)),
		sort:  p.oneOf("sort", defSort, sorts),
		desc:  p.oneOf("order", "desc", []string{"asc", "desc"}) == "desc",
	}
}

// id reads a UUID from the path; the message names the resource as the contract
// does (`Invalid ticket ID format`).
func (c *call) id(name, resource string) (string, error) {
	s := c.r.PathValue(name)
	if !uuidForm.MatchString(s) {
		msg := "Invalid " + resource + " ID format"
		return "", &fault.Error{Kind: fault.Invalid, Message: msg, Issues: []fault.Issue{{
			Code: "invalid_string", Path: []any{name}, Message: "Invalid uuid", Extra: map[string]any{"validation": "uuid"},
		}}}
	}
	return strings.ToLower(s), nil
}
