package delivery

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/ticketwire/ticketwire/webhook"
)

// The appenders here write what JSON.stringify writes. encoding/json does not:
// it escapes U+2028 and U+2029 always, and <, > and & by default. Both forms are
// valid and verify, but receivers are tested with the shorter one, and a body is
// built for every event, so it is also made in one allocation.

const hexDigits = "0123456789abcdef"

// appendString appends s as a JSON string. Bytes that are not UTF-8 become
// U+FFFD, since JSON cannot carry them.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				b = append(append(b, s[start:i]...), "\uFFFD"...)
				start = i + 1
			}
			i += size
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		b = append(b, s[start:i]...)
		b = appendEscape(b, c)
		i++
		start = i
	}
	return append(append(b, s[start:]...), '"')
}

// appendEscape appends the escape of a quote, a backslash or a control
// character.
func appendEscape(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\b':
		return append(b, '\\', 'b')
	case '\t':
		return append(b, '\\', 't')
	case '\n':
		return append(b, '\\', 'n')
	case '\f':
		return append(b, '\\', 'f')
	case '\r':
		return append(b, '\\', 'r')
	}
	return append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}

func appendNullable(b []byte, s *string) []byte {
	if s == nil {
		return append(b, "null"...)
	}
	return appendString(b, *s)
}

func appendBool(b []byte, v bool) []byte { return strconv.AppendBool(b, v) }

// appendTime appends the wire form of contract P14.
func appendTime(b []byte, t webhook.Time) []byte {
	b = append(b, '"')
	b = t.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
	return append(b, '"')
}

// appendChanges appends {field: {previous, new}} in the order of the list.
func appendChanges(b []byte, changes webhook.Changes) ([]byte, error) {
	b = append(b, '{')
	for i, c := range changes {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, c.Field)
		b = append(b, `:{"previous":`...)
		var err error
		if b, err = appendRaw(b, c.Previous); err != nil {
			return nil, fmt.Errorf("changes.%s.previous: %w", c.Field, err)
		}
		b = append(b, `,"new":`...)
		if b, err = appendRaw(b, c.New); err != nil {
			return nil, fmt.Errorf("changes.%s.new: %w", c.Field, err)
		}
		b = append(b, '}')
	}
	return append(b, '}'), nil
}

// appendRaw appends a value that is JSON already, without its white space. An
// empty one is null.
func appendRaw(b []byte, raw json.RawMessage) ([]byte, error) {
	if len(raw) == 0 {
		return append(b, "null"...), nil
	}
	buf := bytes.NewBuffer(b)
	if err := json.Compact(buf, raw); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func appendComment(b []byte, c *webhook.Comment) []byte {
	b = append(b, `{"text":`...)
	b = appendString(b, c.Text)
	b = append(b, `,"author":`...)
	b = appendNullable(b, c.Author)
	b = append(b, `,"timestamp":`...)
	b = appendTime(b, c.Timestamp)
	b = append(b, `,"is_internal":`...)
	b = appendBool(b, c.IsInternal)
	b = append(b, `,"author_type":`...)
	b = appendNullable(b, c.AuthorType)
	return append(b, '}')
}

func appendThread(b []byte, thread []webhook.Message) []byte {
	b = append(b, '[')
	for i := range thread {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendMessage(b, &thread[i])
	}
	return append(b, ']')
}

func appendMessage(b []byte, m *webhook.Message) []byte {
	b = append(b, `{"comment_id":`...)
	b = appendString(b, m.CommentID)
	b = append(b, `,"text":`...)
	b = appendString(b, m.Text)
	b = append(b, `,"author":`...)
	b = appendNullable(b, m.Author)
	b = append(b, `,"is_internal":`...)
	b = appendBool(b, m.IsInternal)
	b = append(b, `,"is_resolution":`...)
	b = appendBool(b, m.IsResolution)
	b = append(b, `,"created_at":`...)
	b = appendTime(b, m.CreatedAt)
	b = append(b, `,"updated_at":`...)
	if m.UpdatedAt == nil {
		return append(b, "null}"...)
	}
	b = appendTime(b, *m.UpdatedAt)
	return append(b, '}')
}
