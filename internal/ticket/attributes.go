package ticket

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/ticketwire/ticketwire/internal/fault"
)

// DescriptionHTML renders attributes.description, the text that 2.1 calls
// description_html. It is "" when there is no such text.
func DescriptionHTML(attributes json.RawMessage) string {
	if len(attributes) == 0 {
		return ""
	}
	var a struct {
		Description json.RawMessage `json:"description"`
	}
	var text string
	if json.Unmarshal(attributes, &a) != nil || json.Unmarshal(a.Description, &text) != nil {
		return "" // a description that is no text has no rendering
	}
	return RenderHTML(text)
}

// RenderHTML turns plain text into HTML that is safe to show: everything is
// escaped, blank lines part paragraphs, other line ends become <br>. U+0000
// becomes U+FFFD, as in an HTML parser, because PostgreSQL cannot store it.
func RenderHTML(text string) string {
	var b strings.Builder
	open := false
	for line := range strings.Lines(strings.ReplaceAll(text, "\x00", "\uFFFD")) {
		line = strings.TrimRight(line, "\r\n")
		switch blank := strings.TrimSpace(line) == ""; {
		case blank && open:
			b.WriteString("</p>")
			open = false
		case blank:
		case open:
			b.WriteString("<br>")
			b.WriteString(html.EscapeString(line))
		default:
			b.WriteString("<p>")
			b.WriteString(html.EscapeString(line))
			open = true
		}
	}
	if open {
		b.WriteString("</p>")
	}
	return b.String()
}

// object checks that raw is a JSON object or null and returns it in compact
// form, nil for null.
func object(raw json.RawMessage, field string) (compact json.RawMessage, issue fault.Issue, bad bool) {
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil, fault.Issue{}, false
	}
	var buf bytes.Buffer
	if err := json.Compact(&buf, raw); err != nil {
		return nil, custom(field, "%s is not valid JSON", field), true
	}
	compact = buf.Bytes()
	received := "number"
	switch compact[0] {
	case '{':
		return compact, fault.Issue{}, false
	case 'n':
		return nil, fault.Issue{}, false
	case '[':
		received = "array"
	case '"':
		received = "string"
	case 't', 'f':
		received = "boolean"
	}
	return nil, fault.Issue{
		Code: "invalid_type", Path: []any{field}, Message: "Expected object, received " + received,
		Extra: map[string]any{"expected": "object", "received": received},
	}, true
}

// withDescription returns an attributes object with another description, nil for
// none. The other attributes stay: whoever sends only a description has not seen
// them. attributes is an object that object() has let through, or nil.
func withDescription(attributes json.RawMessage, description *string) json.RawMessage {
	fields := map[string]json.RawMessage{}
	if attributes != nil && json.Unmarshal(attributes, &fields) != nil {
		return attributes
	}
	if description == nil {
		if _, is := fields["description"]; !is {
			return attributes
		}
		delete(fields, "description")
	} else {
		fields["description"] = encode(*description)
	}
	return encode(fields)
}

// sameJSON compares two JSON texts as values: spacing, the order of keys and the
// spelling of numbers do not count. Texts that are no JSON differ.
func sameJSON(a, b json.RawMessage) bool {
	if bytes.Equal(a, b) {
		return true
	}
	x, errA := decode(a)
	y, errB := decode(b)
	return errA == nil && errB == nil && sameValue(x, y)
}

// decode reads one JSON value. Numbers stay text, because a float64 would make
// two neighbouring large integers equal and lose a change.
func decode(raw json.RawMessage) (any, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, fmt.Errorf("decode json: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("decode json: data after the value")
	}
	return v, nil
}

func sameValue(a, b any) bool {
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		return ok && maps.EqualFunc(x, y, sameValue)
	case []any:
		y, ok := b.([]any)
		return ok && slices.EqualFunc(x, y, sameValue)
	case json.Number:
		y, ok := b.(json.Number)
		return ok && (x == y || canonical(string(x)) == canonical(string(y)))
	default:
		return a == b
	}
}

// canonical spells a JSON number as <digits>e<exponent> without outer zeros, so
// that 1, 1.0 and 10e-1 are one text. It never expands the number: an exponent
// of a billion costs nothing. An exponent that does not fit keeps its own form.
func canonical(number string) string {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(number), "e")
	exp := 0
	if exponent != "" {
		n, err := strconv.ParseInt(exponent, 10, 32)
		if err != nil {
			return number
		}
		exp = int(n)
	}
	digits, negative := strings.CutPrefix(mantissa, "-")
	whole, fraction, _ := strings.Cut(digits, ".")
	digits = whole + fraction
	exp -= len(fraction)
	short := strings.TrimRight(digits, "0")
	exp += len(digits) - len(short)
	short = strings.TrimLeft(short, "0")
	if short == "" {
		return "0"
	}
	if negative {
		short = "-" + short
	}
	return short + "e" + strconv.Itoa(exp)
}
