package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/webhook"
)

// keysOf returns the keys of an object in their order, with those of objects
// inside it.
func keysOf(t *testing.T, prefix string, raw []byte) []string {
	t.Helper()
	ms, err := members(raw)
	if err != nil {
		return nil
	}
	var out []string
	for _, m := range ms {
		out = append(out, prefix+m.key)
		if prefix == "" || m.key == "comment" { // changes has keys of its own in each event
			out = append(out, keysOf(t, m.key+".", m.value)...)
		}
	}
	return out
}

// A made event has every key of a real one, in the same order, and no other.
func TestMadeEventsAreComplete(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 9, 8, 14, 2, 117e6, time.UTC)
	for _, eventType := range madeEventTypes() {
		sent, err := os.ReadFile(filepath.Join("..", "..", "webhook", "testdata", "payloads", eventType+".json"))
		if err != nil {
			t.Fatal(err)
		}
		made := plainJSON(madeEvent(eventType, now))
		if diff := cmp.Diff(keysOf(t, "", sent), keysOf(t, "", made)); diff != "" {
			t.Errorf("%s (-sent +made):\n%s", eventType, diff)
		}
		var e webhook.Envelope
		if err := json.Unmarshal(made, &e); err != nil || !e.OccurredAt.Equal(now) {
			t.Errorf("%s: %v, %v", eventType, e, err)
		}
	}
}

// What the contract orders, inContractOrder leaves as it is, and restores.
func TestContractOrder(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join("..", "..", "webhook", "testdata", "payloads", "*.json"))
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		want, err := compact(text)
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains([]string{"ticket.updated.json", "ticket.updated.tags.json", "ticket.updated.required-only.json"}, filepath.Base(name)) {
			continue // changes are in the order of the change, which nobody can restore
		}
		if diff := cmp.Diff(string(want), string(inContractOrder(plainJSON(decoded(want))))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestSetAt(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		path  []string
		value string
		want  string // "" for an error
	}{
		{[]string{"b"}, "2", `{"a":{"x":[1,2]},"b":2}`},
		{[]string{"a", "x", "0"}, `"y"`, `{"a":{"x":["y",2]},"b":null}`},
		{[]string{"a", "x", "2"}, `3`, `{"a":{"x":[1,2,3]},"b":null}`},
		{[]string{"b", "c", "d"}, `true`, `{"a":{"x":[1,2]},"b":{"c":{"d":true}}}`},
		{[]string{"new"}, `"<&>"`, `{"a":{"x":[1,2]},"b":null,"new":"<&>"}`},
		{[]string{"a", "x", "4"}, `3`, ""},
		{[]string{"a", "x", "-1"}, `3`, ""},
		{[]string{"a", "x", "0", "y"}, `3`, ""},
	} {
		got, err := setAt(json.RawMessage(`{"a":{"x":[1,2]},"b":null}`), tt.path, json.RawMessage(tt.value))
		if string(got) != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("setAt(%v, %s) = %s, %v, want %s", tt.path, tt.value, got, err, tt.want)
		}
	}
}
