package main

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/ticketwire/ticketwire/webhook"
)

// What programs do to a body between the socket and the check of its signature.
// Each spelling is undone, or done, and tried.

// spelling is a body that the signature may fit, and what that says.
type spelling struct {
	body  []byte
	cause string // stable name; "" for the body as it is
	form  string // what this body is, for "the signature fits ..."
}

// spellings returns the body as it is and what usual mistakes make of it, the
// simplest first and each text once.
func spellings(body []byte) []spelling {
	seen := map[string]bool{string(body): true}
	out := []spelling{{body: body}}
	add := func(b []byte, cause, form string) {
		if !seen[string(b)] {
			seen[string(b)] = true
			out = append(out, spelling{b, cause, form})
		}
	}
	add(bytes.TrimRight(body, "\r\n"), "body_line_break", "the body without the line break at its end")
	add(append(slices.Clip(body), '\n'), "body_line_break", "the body with a line break at its end")
	add(append(slices.Clip(body), "\r\n"...), "body_line_break", "the body with a CRLF at its end")
	unix := bytes.ReplaceAll(body, []byte("\r\n"), []byte("\n"))
	add(unix, "body_line_break", "the body with LF where this one has CRLF")
	add(bytes.ReplaceAll(unix, []byte("\n"), []byte("\r\n")), "body_line_break", "the body with CRLF where this one has LF")
	const bom = "\uFEFF"
	add(bytes.TrimPrefix(body, []byte(bom)), "body_bom", "the body without the byte order mark at its start")
	add(append([]byte(bom), body...), "body_bom", "the body with a byte order mark at its start")
	serialised(bytes.TrimPrefix(body, []byte(bom)), add)
	wrapped(body, add)
	return out
}

// wrapped undoes encodings around the whole body.
func wrapped(body []byte, add func(b []byte, cause, form string)) {
	text := strings.TrimSpace(string(body))
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		if b, err := enc.DecodeString(text); err == nil && len(b) > 0 {
			add(b, "body_base64", "the body decoded from base64")
		}
	}
	var inner string
	if json.Unmarshal(body, &inner) == nil && inner != "" {
		add([]byte(inner), "body_encoded_twice", "the text inside the JSON string that the body is")
	}
	add(plainJSON(text), "body_encoded_twice", "the body as a JSON string")
	if z, err := gzip.NewReader(bytes.NewReader(body)); err == nil {
		if b, err := io.ReadAll(io.LimitReader(z, webhook.MaxBody)); err == nil {
			add(b, "body_compressed", "the body unpacked with gzip")
		}
	}
	if b, ok := latin1(text); ok {
		add(b, "body_charset", "the body before it was read as Latin-1 and written as UTF-8")
	}
	add([]byte(utf8AsLatin1(text)), "body_charset", "the body read as Latin-1 and written as UTF-8")
	if s, err := url.QueryUnescape(strings.TrimSuffix(text, "=")); err == nil {
		add([]byte(s), "body_form_encoded", "the body without the form encoding")
	}
	if form, err := url.ParseQuery(text); err == nil {
		for key, values := range form {
			for _, v := range values {
				add([]byte(v), "body_form_encoded", fmt.Sprintf("the form field %.40q", key))
			}
		}
	}
	add([]byte(url.QueryEscape(text)), "body_form_encoded", "the body with form encoding")
	add([]byte(url.QueryEscape(text)+"="), "body_form_encoded", "the body as the name of a form field")
	for _, field := range []string{"payload", "body", "data"} {
		add([]byte(field+"="+url.QueryEscape(text)), "body_form_encoded", "the body as the form field "+field)
	}
}

// serialised writes a JSON body anew, in the ways of the usual libraries.
func serialised(body []byte, add func(b []byte, cause, form string)) {
	var compact bytes.Buffer
	if json.Compact(&compact, body) != nil {
		return
	}
	var value any
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber() // 1.0 stays 1.0
	if dec.Decode(&value) != nil {
		return
	}
	orders := []struct {
		body []byte
		form string
	}{
		{compact.Bytes(), ""},
		{inContractOrder(compact.Bytes()), ", keys in the order of the contract"},
		{plainJSON(value), ", keys sorted"},
	}
	for _, end := range []struct{ text, form string }{{"", ""}, {"\n", " and a line break at its end"}} {
		for _, order := range orders {
			for _, e := range escapings() {
				strung := mapStrings(order.body, e.write)
				for _, layout := range layouts() {
					add(append(layout.write(strung), end.text...), "body_reserialised", layout.form+order.form+e.form+end.form)
				}
			}
		}
	}
}

type layout struct {
	form  string
	write func(compact []byte) []byte
}

func layouts() []layout {
	indented := func(by string) func([]byte) []byte {
		return func(compact []byte) []byte {
			var b bytes.Buffer
			if json.Indent(&b, compact, "", by) != nil {
				return compact
			}
			return b.Bytes()
		}
	}
	return []layout{
		{"compact JSON", slices.Clone[[]byte]},
		{"JSON with a space after commas and colons (Python's json.dumps)", spaced},
		{"pretty JSON, indented by 2 spaces", indented("  ")},
		{"pretty JSON, indented by 4 spaces", indented("    ")},
		{"pretty JSON, indented by tabs", indented("\t")},
	}
}

// spaced puts a space behind each comma and colon of the structure.
func spaced(compact []byte) []byte {
	out := make([]byte, 0, len(compact)+len(compact)/8)
	inside := false
	for i := 0; i < len(compact); i++ {
		c := compact[i]
		out = append(out, c)
		switch {
		case inside && c == '\\':
			i++
			out = append(out, compact[i])
		case c == '"':
			inside = !inside
		case !inside && (c == ',' || c == ':'):
			out = append(out, ' ')
		}
	}
	return out
}

type escaping struct {
	form  string
	write func(s string) []byte // nil: as it is
}

// escapings are the ways in which libraries write strings.
func escapings() []escaping {
	with := func(ascii, upper bool, short, long string) func(string) []byte {
		return func(s string) []byte { return quoted(s, ascii, upper, short, long) }
	}
	return []escaping{
		{"", nil},
		{", without \\u-escapes (JSON.stringify)", with(false, false, "", "")},
		{", with \\u-escapes for every character that is not ASCII (Python)", with(true, false, "", "")},
		{", with \\u-escapes for <, > and & (Go)", with(false, false, "", "<>&\u2028\u2029")},
		{", with \\u-escapes and \\/ (PHP)", with(true, false, "/", "")},
		{", with \\/ (PHP)", with(false, false, "/", "")},
		{", with \\u-escapes for ', <, >, & and = (Gson)", with(false, false, "", "'<>&=\u2028\u2029")},
		{", with upper-case \\u-escapes (.NET)", with(true, true, "", "\"'<>&+`\x7f")},
	}
}

// quoted writes a JSON string. ascii escapes everything beyond ASCII; short gets
// a backslash, long a \u-escape.
func quoted(s string, ascii, upper bool, short, long string) []byte {
	u := "\\u%04x"
	if upper {
		u = "\\u%04X"
	}
	b := []byte{'"'}
	for _, r := range s {
		switch {
		case strings.ContainsRune(long, r):
			b = fmt.Appendf(b, u, r)
		case r == '"' || r == '\\' || strings.ContainsRune(short, r):
			b = append(b, '\\', byte(r))
		case strings.ContainsRune("\b\f\n\r\t", r):
			b = append(b, '\\', "btn_fr"[r-'\b'])
		case r < ' ':
			b = fmt.Appendf(b, u, r)
		case r > 0xffff && ascii:
			high, low := utf16.EncodeRune(r)
			b = fmt.Appendf(b, u+u, high, low)
		case r > 0x7e && ascii && r != 0x7f:
			b = fmt.Appendf(b, u, r)
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}

// mapStrings writes every string of compact JSON anew.
func mapStrings(compact []byte, write func(string) []byte) []byte {
	if write == nil {
		return compact
	}
	out := make([]byte, 0, len(compact))
	for i := 0; i < len(compact); i++ {
		if compact[i] != '"' {
			out = append(out, compact[i])
			continue
		}
		end := i + 1
		for compact[end] != '"' {
			if compact[end] == '\\' {
				end++
			}
			end++
		}
		var s string
		if json.Unmarshal(compact[i:end+1], &s) != nil {
			s = string(compact[i+1 : end]) // valid JSON has no such string
		}
		out = append(out, write(s)...)
		i = end
	}
	return out
}

// contractOrder are the keys of contract sections 4.3, 4.4 and 4.7 in an order
// that fits each object that has some of them.
const contractOrder = ` event_id event_type occurred_at tenant_id data webhook_id webhook_name is_test
 ticket_id ticket_number title status_id status_name priority_id priority_name client_id client_name
 contact_name_id contact_name contact_email assigned_to assigned_to_name assigned_team_id board_id board_name
 category_id subcategory_id is_closed entered_at comment_id text author timestamp is_internal is_resolution
 author_type created_at updated_at closed_at due_date tags url suppress_contact_notifications
 suppress_internal_notifications changes previous_status_id previous_status_name comment comments previous new `

// inContractOrder restores the order of keys that a library sorted. Keys that
// the contract does not know stay behind the others.
func inContractOrder(compact []byte) []byte {
	keys := strings.Fields(contractOrder)
	rank := func(m member) int {
		if i := slices.Index(keys, m.key); i >= 0 {
			return i
		}
		return len(keys)
	}
	const deepest = 8 // envelopes have four levels; a body that goes deeper stays as it is there
	var walk func(raw json.RawMessage, depth int) json.RawMessage
	walk = func(raw json.RawMessage, depth int) json.RawMessage {
		if depth > deepest {
			return raw
		}
		if ms, err := members(raw); err == nil {
			slices.SortStableFunc(ms, func(a, b member) int { return rank(a) - rank(b) })
			for i := range ms {
				ms[i].value = walk(ms[i].value, depth+1)
			}
			return object(ms)
		}
		var list []json.RawMessage
		if len(raw) > 0 && raw[0] == '[' && json.Unmarshal(raw, &list) == nil {
			parts := make([][]byte, len(list))
			for i := range list {
				parts[i] = walk(list[i], depth+1)
			}
			return slices.Concat([]byte{'['}, bytes.Join(parts, []byte{','}), []byte{']'})
		}
		return raw
	}
	return walk(compact, 0)
}

// latin1 writes each character as one byte, which undoes the reading of UTF-8 as
// Latin-1.
func latin1(s string) ([]byte, bool) {
	out := make([]byte, 0, len(s))
	for _, r := range s {
		if r > 0xff {
			return nil, false
		}
		out = append(out, byte(r))
	}
	return out, true
}

func utf8AsLatin1(s string) string {
	out := make([]rune, len(s))
	for i := range len(s) {
		out[i] = rune(s[i])
	}
	return string(out)
}
