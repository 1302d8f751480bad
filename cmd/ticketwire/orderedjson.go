package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
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

// compact takes the space out of a JSON text.
func compact(raw []byte) (json.RawMessage, error) {
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// setAt sets one value of a JSON text. path is dotted; a number is an index of
// a list, or its length to append. Objects on the way are made when missing.
func setAt(raw json.RawMessage, path []string, value json.RawMessage) (json.RawMessage, error) {
	if len(path) == 0 {
		return value, nil
	}
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) == nil && list != nil {
		i, err := strconv.Atoi(path[0])
		if err != nil || i < 0 || i > len(list) {
			return nil, fmt.Errorf("%s: want an index from 0 to %d", path[0], len(list))
		}
		if i == len(list) {
			list = append(list, json.RawMessage("null"))
		}
		if list[i], err = setAt(list[i], path[1:], value); err != nil {
			return nil, err
		}
		return plainJSON(list), nil
	}
	if trimmed := strings.TrimSpace(string(raw)); trimmed == "" || trimmed == "null" {
		raw = json.RawMessage("{}")
	}
	ms, err := members(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path[0], err)
	}
	i := slices.IndexFunc(ms, func(m member) bool { return m.key == path[0] })
	if i < 0 {
		i, ms = len(ms), append(ms, member{key: path[0]})
	}
	if ms[i].value, err = setAt(ms[i].value, path[1:], value); err != nil {
		return nil, err
	}
	return object(ms), nil
}
