package client

import "encoding/json"

// Field is one field of an update: absent (the zero Field, which leaves the
// server's value as it is), null, or a value. Use Set and Null.
type Field[T any] struct {
	value T
	state fieldState
}

type fieldState int8

const (
	absent fieldState = iota
	null
	present
)

// Set returns a field that changes the value to v.
func Set[T any](v T) Field[T] { return Field[T]{value: v, state: present} }

// Null returns a field that takes the value away.
func Null[T any]() Field[T] { return Field[T]{state: null} }

// IsZero tells encoding/json to leave an absent field out (omitzero).
func (f Field[T]) IsZero() bool { return f.state == absent }

// MarshalJSON writes the value or null.
func (f Field[T]) MarshalJSON() ([]byte, error) {
	if f.state != present {
		return []byte("null"), nil
	}
	return json.Marshal(f.value)
}
