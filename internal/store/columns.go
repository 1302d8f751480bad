package store

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

// The conversions between Go values and columns: instants are microseconds,
// lists and objects are JSON text.

func micros(t time.Time) int64 { return t.UnixMicro() }

func microsPtr(t *time.Time) any {
	if t == nil {
		return nil
	}
	return t.UnixMicro()
}

func wireMicros(t *webhook.Time) any {
	if t == nil {
		return nil
	}
	return t.UnixMicro()
}

func instant(us int64) time.Time { return time.UnixMicro(us).UTC() }

func instantPtr(n sql.NullInt64) *time.Time {
	if !n.Valid {
		return nil
	}
	t := instant(n.Int64)
	return &t
}

func wireTime(us int64) webhook.Time { return webhook.At(instant(us)) }

func wireTimePtr(n sql.NullInt64) *webhook.Time {
	if !n.Valid {
		return nil
	}
	t := wireTime(n.Int64)
	return &t
}

// jsonText returns v as a JSON column, or nil for a value that encodes to null.
func jsonText(v any) (any, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode a column: %w", err)
	}
	if string(b) == "null" {
		return nil, nil
	}
	return string(b), nil
}

// fromJSON reads a JSON column into v; a null column leaves v alone.
func fromJSON(s sql.NullString, v any) error {
	if !s.Valid || s.String == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(s.String), v); err != nil {
		return fmt.Errorf("decode a column: %w", err)
	}
	return nil
}
