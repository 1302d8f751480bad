package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// readBody returns the whole request body; it may be called twice. Over the
// limit it is a 413, and nothing of it was used.
func (c *call) readBody() ([]byte, error) {
	b, err := io.ReadAll(http.MaxBytesReader(nil, c.r.Body, maxBody))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return nil, fault.New(fault.TooLarge, "The request body is larger than %d bytes", maxBody)
	}
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "The request body could not be read")
	}
	c.r.Body = io.NopCloser(bytes.NewReader(b))
	return b, nil
}

// object reads a JSON object one field at a time and collects what is wrong with
// it as issues in Zod's shape (contract section 1.2). Keys that nobody asks for
// are dropped silently (contract section 1.3). A field method returns nil when
// the key is absent, or wrong and noted.
type object struct {
	fields map[string]json.RawMessage
	path   []any
	issues *[]fault.Issue
}

// object parses the body. An empty body counts as an empty object, because the
// bodies of tests and rotations are optional; required fields report themselves.
func (c *call) object() (*object, error) {
	raw, err := c.readBody()
	if err != nil {
		return nil, err
	}
	o := &object{issues: new([]fault.Issue)}
	if len(bytes.TrimSpace(raw)) == 0 {
		return o, nil
	}
	if !utf8.Valid(raw) {
		return nil, malformed("The request body is not valid UTF-8")
	}
	if err := json.Unmarshal(raw, &o.fields); err != nil {
		if _, wrongType := errors.AsType[*json.UnmarshalTypeError](err); wrongType {
			o.wrongType(nil, "object", raw)
			return nil, o.err()
		}
		return nil, malformed("The request body is not valid JSON: " + err.Error())
	}
	if o.fields == nil {
		o.wrongType(nil, "object", raw)
		return nil, o.err()
	}
	return o, nil
}

func malformed(msg string) error {
	return &fault.Error{Kind: fault.Invalid, Message: msg, Issues: []fault.Issue{{Code: "custom", Message: msg}}}
}

// err returns the collected issues as one error, or nil.
func (o *object) err() error { return o.errAs("Validation failed") }

// errAs is err for the bodies that the contract gives a message of their own.
func (o *object) errAs(message string) error {
	if len(*o.issues) == 0 {
		return nil
	}
	return &fault.Error{Kind: fault.Invalid, Message: message, Issues: *o.issues}
}

// adopt notes the issues of a rule that was applied to the value at path.
func (o *object) adopt(path []any, err error) {
	if e, is := errors.AsType[*fault.Error](err); is {
		for _, i := range e.Issues {
			o.issue(path, i.Code, i.Message, i.Extra)
		}
	}
}

func (o *object) at(keys ...any) []any {
	return append(append(make([]any, 0, len(o.path)+len(keys)), o.path...), keys...)
}

func (o *object) issue(path []any, code, msg string, extra map[string]any) {
	*o.issues = append(*o.issues, fault.Issue{Code: code, Path: path, Message: msg, Extra: extra})
}

// custom notes an issue of our own about a field.
func (o *object) custom(key, format string, args ...any) {
	o.issue(o.at(key), "custom", fmt.Sprintf(format, args...), nil)
}

// merge adds the issues of a domain rule. A field that was already noted is
// left out: what was wrong with its type explains the rest.
func (o *object) merge(err error) {
	e, is := errors.AsType[*fault.Error](err)
	if !is {
		return
	}
	noted := map[any]bool{}
	for _, is := range *o.issues {
		if len(is.Path) > 0 {
			noted[is.Path[0]] = true
		}
	}
	for _, is := range e.Issues {
		if len(is.Path) == 0 || !noted[is.Path[0]] {
			*o.issues = append(*o.issues, is)
		}
	}
}

// keys returns the keys in order, so that answers do not depend on a map's.
func (o *object) keys() []string { return slices.Sorted(maps.Keys(o.fields)) }

// has reports whether the key is present, null included.
func (o *object) has(key string) bool { _, is := o.fields[key]; return is }

// null reports whether the key is present and null.
func (o *object) null(key string) bool { return string(o.fields[key]) == "null" }

func typeName(raw json.RawMessage) string {
	switch b := bytes.TrimSpace(raw); {
	case len(b) == 0:
		return "undefined"
	case b[0] == '"':
		return "string"
	case b[0] == '{':
		return "object"
	case b[0] == '[':
		return "array"
	case b[0] == 't' || b[0] == 'f':
		return "boolean"
	case b[0] == 'n':
		return "null"
	default:
		return "number"
	}
}

func (o *object) wrongType(path []any, want string, raw json.RawMessage) {
	got := typeName(raw)
	o.issue(path, "invalid_type", "Expected "+want+", received "+got, map[string]any{"expected": want, "received": got})
}

// need notes that a required key is missing and reports whether it is there.
func (o *object) need(key, want string) bool {
	if o.has(key) {
		return true
	}
	o.issue(o.at(key), "invalid_type", "Required", map[string]any{"expected": want, "received": "undefined"})
	return false
}

// text reads a string of min to max characters.
func (o *object) text(key string, minLen, maxLen int) *string {
	raw, is := o.fields[key]
	if !is {
		return nil
	}
	var s string
	if typeName(raw) != "string" || json.Unmarshal(raw, &s) != nil {
		o.wrongType(o.at(key), "string", raw)
		return nil
	}
	n := utf8.RuneCountInString(s)
	switch {
	case strings.ContainsRune(s, 0):
		o.custom(key, "must not contain the NUL character")
	case n < minLen:
		o.size(o.at(key), "too_small", "string", minLen)
	case maxLen > 0 && n > maxLen:
		o.size(o.at(key), "too_big", "string", maxLen)
	default:
		return &s
	}
	return nil
}

// needText is text for a required key; it returns "" after noting an issue.
func (o *object) needText(key string, minLen, maxLen int) string {
	if !o.need(key, "string") {
		return ""
	}
	return orZero(o.text(key, minLen, maxLen))
}

func orZero[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// size notes a too_small or too_big issue with Zod's wording for its type.
func (o *object) size(path []any, code, kind string, bound int) {
	bounds := map[string]any{"type": kind, "inclusive": true, "exact": false}
	word, numWord := "at least", "greater than or equal to"
	bounds["minimum"] = bound
	if code == "too_big" {
		word, numWord = "at most", "less than or equal to"
		delete(bounds, "minimum")
		bounds["maximum"] = bound
	}
	var msg string
	switch kind {
	case "string":
		msg = fmt.Sprintf("String must contain %s %d character(s)", word, bound)
	case "array":
		msg = fmt.Sprintf("Array must contain %s %d element(s)", word, bound)
	default:
		msg = fmt.Sprintf("Number must be %s %d", numWord, bound)
	}
	o.issue(path, code, msg, bounds)
}

var uuidForm = regexp.MustCompile(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)

// uuid reads an id and returns it in lower case, as the store keeps them.
func (o *object) uuid(key string) *string {
	raw, is := o.fields[key]
	if !is {
		return nil
	}
	return o.uuidAt(o.at(key), raw)
}

func (o *object) uuidAt(path []any, raw json.RawMessage) *string {
	var s string
	if typeName(raw) != "string" || json.Unmarshal(raw, &s) != nil {
		o.wrongType(path, "string", raw)
		return nil
	}
	if !uuidForm.MatchString(s) {
		o.issue(path, "invalid_string", "Invalid uuid", map[string]any{"validation": "uuid"})
		return nil
	}
	s = strings.ToLower(s)
	return &s
}

func (o *object) needUUID(key string) string {
	if !o.need(key, "string") {
		return ""
	}
	return orZero(o.uuid(key))
}

func (o *object) boolean(key string) *bool {
	raw, is := o.fields[key]
	if !is {
		return nil
	}
	var b bool
	if typeName(raw) != "boolean" || json.Unmarshal(raw, &b) != nil {
		o.wrongType(o.at(key), "boolean", raw)
		return nil
	}
	return &b
}

// flag is boolean for a switch that is off when absent.
func (o *object) flag(key string) bool { return orZero(o.boolean(key)) }

// number reads a finite number between lo and hi.
func (o *object) number(key string, lo, hi float64) *float64 {
	raw, is := o.fields[key]
	if !is {
		return nil
	}
	return o.numberAt(o.at(key), raw, lo, hi)
}

func (o *object) numberAt(path []any, raw json.RawMessage, lo, hi float64) *float64 {
	var f float64
	if typeName(raw) != "number" || json.Unmarshal(raw, &f) != nil {
		o.wrongType(path, "number", raw)
		return nil
	}
	switch {
	case f < lo:
		o.size(path, "too_small", "number", int(lo))
	case f > hi:
		o.size(path, "too_big", "number", int(min(hi, math.MaxInt32)))
	default:
		return &f
	}
	return nil
}

// integer reads a whole number between lo and hi.
func (o *object) integer(key string, lo, hi int64) *int64 {
	raw, is := o.fields[key]
	if !is {
		return nil
	}
	return o.integerAt(o.at(key), raw, lo, hi)
}

// integerAt takes 1000.0 and 1e3 too: to JSON they are the same number.
func (o *object) integerAt(path []any, raw json.RawMessage, lo, hi int64) *int64 {
	f := o.numberAt(path, raw, float64(lo), float64(hi))
	if f == nil {
		return nil
	}
	if *f != math.Trunc(*f) {
		o.issue(path, "invalid_type", "Expected integer, received float", map[string]any{"expected": "integer", "received": "float"})
		return nil
	}
	n := int64(*f)
	return &n
}

// int reads a whole number whose range is checked by whoever it is for.
func (o *object) int(key string) *int {
	n := o.integer(key, math.MinInt32, math.MaxInt32)
	if n == nil {
		return nil
	}
	return new(int(*n))
}

// emailForm and email together are the check of Zod 3.25.
var emailForm = regexp.MustCompile(`(?i)^[a-z0-9_'+\-.]*[a-z0-9_+-]@([a-z0-9][a-z0-9-]*\.)+[a-z]{2,}$`)

func (o *object) email(key string) *string {
	s := o.text(key, 0, 254)
	if s == nil {
		return nil
	}
	if !emailForm.MatchString(*s) || strings.HasPrefix(*s, ".") || strings.Contains(*s, "..") {
		o.issue(o.at(key), "invalid_string", "Invalid email", map[string]any{"validation": "email"})
		return nil
	}
	return s
}

var colorForm = regexp.MustCompile(`^#[0-9a-fA-F]{6}$`)

// color reads #rrggbb.
func (o *object) color(key string) *string {
	s := o.text(key, 0, 0)
	if s == nil {
		return nil
	}
	if !colorForm.MatchString(*s) {
		o.issue(o.at(key), "invalid_string", "Invalid", map[string]any{"validation": "regex"})
		return nil
	}
	return s
}

// only notes keys that are not in the list: for contacts (contract section 1.3),
// and for objects in which an unknown key would be a wish that nobody hears.
func (o *object) only(known ...string) {
	extra := slices.DeleteFunc(o.keys(), func(key string) bool { return slices.Contains(known, key) })
	if len(extra) == 0 {
		return
	}
	o.issue(o.at(), "unrecognized_keys", "Unrecognized key(s) in object: '"+strings.Join(extra, "', '")+"'",
		map[string]any{"keys": extra})
}

var datetimeForm = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d+)?)?Z$`)

// parseDatetime reads the one form the contract accepts: it ends in Z, seconds
// are optional, offsets are not allowed.
func parseDatetime(s string) (time.Time, bool) {
	if !datetimeForm.MatchString(s) {
		return time.Time{}, false
	}
	if len(s) == len("2006-01-02T15:04Z") {
		s = strings.TrimSuffix(s, "Z") + ":00Z"
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	return t.UTC(), err == nil
}

func (o *object) datetime(key string) *time.Time {
	s := o.text(key, 0, 64)
	if s == nil {
		return nil
	}
	t, valid := parseDatetime(*s)
	if !valid {
		o.issue(o.at(key), "invalid_string", "Invalid datetime", map[string]any{"validation": "datetime"})
		return nil
	}
	return &t
}

// link reads a URL of any scheme.
func (o *object) link(key string, maxLen int) *string {
	s := o.text(key, 0, maxLen)
	if s == nil {
		return nil
	}
	if !ticket.IsLink(*s) {
		o.issue(o.at(key), "invalid_string", "Invalid url", map[string]any{"validation": "url"})
		return nil
	}
	return s
}

// enum reads one of the options.
func (o *object) enum(key string, options ...string) *string {
	s := o.text(key, 0, 0)
	if s == nil {
		return nil
	}
	if slices.Contains(options, *s) {
		return s
	}
	o.issue(o.at(key), "invalid_enum_value",
		fmt.Sprintf("Invalid enum value. Expected '%s', received '%s'", strings.Join(options, "' | '"), *s),
		map[string]any{"received": *s, "options": options})
	return nil
}

// items returns the elements of an array, or false after noting an issue.
func (o *object) items(key string, minLen, maxLen int) ([]json.RawMessage, bool) {
	raw, is := o.fields[key]
	if !is {
		return nil, false
	}
	var list []json.RawMessage
	if typeName(raw) != "array" || json.Unmarshal(raw, &list) != nil {
		o.wrongType(o.at(key), "array", raw)
		return nil, false
	}
	switch {
	case len(list) < minLen:
		o.size(o.at(key), "too_small", "array", minLen)
		return nil, false
	case maxLen > 0 && len(list) > maxLen:
		o.size(o.at(key), "too_big", "array", maxLen)
		return nil, false
	}
	return list, true
}

// texts reads an array of strings; nil when absent or wrong.
func (o *object) texts(key string, minLen, maxLen int) []string {
	list, valid := o.items(key, minLen, maxLen)
	if !valid {
		return nil
	}
	out := make([]string, 0, len(list))
	for i, raw := range list {
		var s string
		if typeName(raw) != "string" || json.Unmarshal(raw, &s) != nil {
			o.wrongType(o.at(key, i), "string", raw)
			continue
		}
		out = append(out, s)
	}
	return out
}

// uuids reads an array of ids; nil when absent or wrong.
func (o *object) uuids(key string, minLen, maxLen int) []string {
	list, valid := o.items(key, minLen, maxLen)
	if !valid {
		return nil
	}
	out := make([]string, 0, len(list))
	for i, raw := range list {
		if id := o.uuidAt(o.at(key, i), raw); id != nil {
			out = append(out, *id)
		}
	}
	return out
}

// child returns the object under a key; nil when absent, null or wrong. Its
// issues land in the same list with their full path.
func (o *object) child(key string) *object {
	raw, is := o.fields[key]
	if !is || o.null(key) {
		return nil
	}
	return o.childAt(o.at(key), raw)
}

func (o *object) childAt(path []any, raw json.RawMessage) *object {
	var m map[string]json.RawMessage
	if typeName(raw) != "object" || json.Unmarshal(raw, &m) != nil {
		o.wrongType(path, "object", raw)
		return nil
	}
	return &object{fields: m, path: path, issues: o.issues}
}

// raw returns an object's JSON as it was sent; nil when absent, null or wrong.
func (o *object) raw(key string) json.RawMessage {
	if o.child(key) == nil {
		return nil
	}
	return o.fields[key]
}
