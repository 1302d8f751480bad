package webhook

import (
	"encoding/json"
	"testing"
	"time"
)

func TestTimeForms(t *testing.T) {
	t.Parallel()
	tests := []struct{ in, want string }{
		{`"2026-03-09T08:14:02.140Z"`, "2026-03-09T08:14:02.140Z"},
		{`"2026-03-09T08:14:02Z"`, "2026-03-09T08:14:02.000Z"},
		{`"2026-03-09T10:14:02.140999+02:00"`, "2026-03-09T08:14:02.140Z"},
		{`7`, ""},
		{`"yesterday"`, ""},
	}
	for _, tt := range tests {
		var got Time
		err := json.Unmarshal([]byte(tt.in), &got)
		if (err == nil) != (tt.want != "") || err == nil && got.String() != tt.want {
			t.Errorf("%s: %s, %v, want %q", tt.in, got, err, tt.want)
		}
	}
	in := time.Date(2026, 3, 9, 10, 14, 2, 140_999_999, time.FixedZone("", 7200))
	if got := At(in).String(); got != "2026-03-09T08:14:02.140Z" {
		t.Errorf("At = %s", got)
	}
}

func TestChangesForms(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in   string
		want int // changes; -1 for an error
	}{
		{`{"b":{"previous":1,"new":null},"a":{"previous":{"x":[1]},"new":"<"}}`, 2},
		{`{}`, 0},
		{`null`, 0},
		{`[]`, -1},
		{`{"a":1}`, -1},
	}
	for _, tt := range tests {
		var got Changes
		err := json.Unmarshal([]byte(tt.in), &got)
		if (err != nil) != (tt.want < 0) || err == nil && len(got) != tt.want {
			t.Errorf("%s: %v, %v, want %d changes", tt.in, got, err, tt.want)
		}
		if len(got) == 2 && (got[0].Field != "b" || got[1].Field != "a") {
			t.Errorf("the order of %s is lost: %v", tt.in, got)
		}
	}
}

func TestTicketOfOtherData(t *testing.T) {
	t.Parallel()
	if _, err := (&Envelope{EventID: "e", Data: json.RawMessage(`{"ticket_id":7}`)}).Ticket(); err == nil {
		t.Error("a numeric ticket_id was read as a string")
	}
}
