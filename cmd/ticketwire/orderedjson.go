package main

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// The order of an object's keys is part of the bytes that are signed, and maps
// lose it.

// member is one key of an object with its value.
type member struct {
	key   string
	value json.RawMessage
}

// members reads an object and keeps the order of its keys.
func members(raw []byte) ([]member, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if start, err := dec.Token(); err != nil || start != json.Delim('{') {
		return nil, fmt.Errorf("want a JSON object, have %.40s", raw)
	}
	var out []member
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		name, _ := key.(string) // a key is always a string
		out = append(out, member{name, value})
	}
	return out, nil
}

// object writes members as compact JSON; values stay as they are.
func object(ms []member) json.RawMessage {
	b := []byte{'{'}
	for i, m := range ms {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, plainJSON(m.key)...), ':')
		b = append(b, m.value...)
	}
	return append(b, '}')
}

// plainJSON encodes without escaping what only HTML would mind.
func plainJSON(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // strings and decoded JSON always encode
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}
