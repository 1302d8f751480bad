package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func headersOf(m map[string]string) http.Header {
	h := make(http.Header)
	for k, v := range m {
		h.Set(k, v)
	}
	return h
}

func TestParseVectors(t *testing.T) {
	t.Parallel()
	for _, v := range loadVectors(t).Envelope {
		t.Run(v.ID, func(t *testing.T) {
			t.Parallel()
			header, body := headersOf(v.Headers), []byte(v.Body)
			now := time.Unix(v.Timestamp, 0)
			if err := Verify(header.Get(SignatureHeader), body, now, v.Secret); err != nil {
				t.Fatalf("the vector's signature: %v", err)
			}
			e, err := Parse(header, body)
			if v.Expected != "reject" {
				if err != nil {
					t.Fatalf("Parse: %v", err)
				}
				if e.EventID == "" || e.EventType == "" || len(e.Data) == 0 {
					t.Errorf("Parse = %+v, want every field", e)
				}
				return
			}
			var typed *EnvelopeError
			if !errors.As(err, &typed) || !errors.Is(err, v.Reason) {
				t.Errorf("Parse = %v, want %s", err, v.Reason)
			}
		})
	}
}

func TestParseRules(t *testing.T) {
	t.Parallel()
	const id = "4f0c2f5e-9b1d-4c77-9f0e-000000000001"
	const body = `{"event_id":"` + id + `","event_type":"ticket.created","occurred_at":"2026-03-09T08:14:02.140Z","tenant_id":"x","data":{}}`
	header := func(kv ...string) http.Header {
		h := make(http.Header)
		for i := 0; i < len(kv); i += 2 {
			h.Add(kv[i], kv[i+1])
		}
		return h
	}
	both := header(EventIDHeader, id, EventTypeHeader, "ticket.created")
	tests := []struct {
		name   string
		header http.Header
		body   string
		want   Reason
	}{
		{"plain", both, body, Valid},
		{"white space around", both, "\r\n\t " + body + " \n", Valid},
		{"empty body", both, "", MalformedJSON},
		{"two documents", both, body + body, MalformedJSON},
		{"byte order mark", both, "\ufeff" + body, MalformedJSON},
		{"deep nesting", both, strings.Repeat("[", 100_000), MalformedJSON},
		{"null", both, "null", MalformedEnvelope},
		{"string", both, `"x"`, MalformedEnvelope},
		{"event_id is a number", both, strings.Replace(body, `"`+id+`"`, "1", 1), MalformedEnvelope},
		{"event_id is null", both, strings.Replace(body, `"`+id+`"`, "null", 1), MissingEventID},
		{"event_id is empty", both, strings.Replace(body, id, "", 1), MissingEventID},
		{"no event_type", both, strings.Replace(body, "event_type", "kind", 1), MalformedEnvelope},
		{"no occurred_at", both, strings.Replace(body, "occurred_at", "at", 1), MalformedEnvelope},
		{"occurred_at is no time", both, strings.Replace(body, "2026-03", "soon", 1), MalformedEnvelope},
		{"no data", both, strings.Replace(body, `,"data":{}`, "", 1), MalformedEnvelope},
		{"data is null", both, strings.Replace(body, `{}`, "null", 1), MalformedEnvelope},
		{"data is a list", both, strings.Replace(body, `{}`, "[]", 1), MalformedEnvelope},
		{"no id header", header(EventTypeHeader, "ticket.created"), body, MissingEventID},
		{"no type header", header(EventIDHeader, id), body, EventTypeMismatch},
		{"type in another case", header(EventIDHeader, id, EventTypeHeader, "Ticket.Created"), body, EventTypeMismatch},
		{"a second id header", header(EventIDHeader, id, EventIDHeader, "other", EventTypeHeader, "ticket.created"), body, EventIDMismatch},
		{"a second type header", header(EventIDHeader, id, EventTypeHeader, "ticket.created", EventTypeHeader, "x"), body, EventTypeMismatch},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := Parse(tt.header, []byte(tt.body)); ReasonOf(err) != tt.want {
				t.Errorf("Parse = %v, want %s", err, tt.want)
			}
		})
	}
}

func TestEnvelopeDoesNotAliasBody(t *testing.T) {
	t.Parallel()
	v := loadVectors(t).Envelope[0]
	body := []byte(v.Body)
	e, err := Parse(headersOf(v.Headers), body)
	if err != nil {
		t.Fatal(err)
	}
	want := string(e.Data)
	clear(body)
	if string(e.Data) != want {
		t.Error("the envelope changed with the body's buffer")
	}
}

// TestDeliveryVectors checks what the sender makes: header and body bytes.
func TestDeliveryVectors(t *testing.T) {
	t.Parallel()
	for _, v := range loadVectors(t).Deliveries {
		t.Run(v.ID, func(t *testing.T) {
			t.Parallel()
			body := []byte(v.Body)
			if len(body) != v.BodyBytes {
				t.Fatalf("body has %d bytes, want %d", len(body), v.BodyBytes)
			}
			if got := compacted(t, v.File); !bytes.Equal(got, body) {
				t.Errorf("the payload file differs from the body:\n%s", cmp.Diff(string(body), string(got)))
			}
			header := headersOf(v.Headers)
			if got, want := Sign(v.Secret, time.Unix(v.Timestamp, 0), body), header.Get(SignatureHeader); got != want {
				t.Errorf("Sign = %q, want %q", got, want)
			}
			e, err := Parse(header, body)
			if err != nil {
				t.Fatalf("Parse: %v", err)
			}
			if got := encode(t, e); !bytes.Equal(got, body) {
				t.Errorf("the envelope encodes differently:\n%s", cmp.Diff(string(body), string(got)))
			}
		})
	}
}

// TestPayloadsKeepTheirBytes decodes every payload into the types and encodes
// it again: no key is lost, renamed or moved.
func TestPayloadsKeepTheirBytes(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/payloads/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("payload files: %v, %v", files, err)
	}
	// What a payload_fields list has cut is not a full TicketData, and a test
	// event is none at all.
	partial := map[string]bool{
		"ticket.updated.allowlist.json": true, "ticket.updated.required-only.json": true, "webhook.test.json": true,
	}
	for _, f := range files {
		name := filepath.Base(f)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := compacted(t, "payloads/"+name)
			var e Envelope
			if err := json.Unmarshal(want, &e); err != nil {
				t.Fatal(err)
			}
			d, err := e.Ticket()
			if err != nil {
				t.Fatal(err)
			}
			if partial[name] {
				if (d.TicketID == "") != (e.EventType == Test) {
					t.Errorf("%s has the ticket id %q", e.EventType, d.TicketID)
				}
			} else {
				e.Data = encode(t, d)
			}
			if got := encode(t, e); !bytes.Equal(got, want) {
				t.Errorf("encoded again:\n%s", cmp.Diff(string(want), string(got)))
			}
		})
	}
}

// compacted reads a file of testdata and takes its white space out.
func compacted(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", filepath.FromSlash(file)))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := json.Compact(&out, b); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// encode is json.Marshal without HTML escaping.
func encode(t *testing.T, v any) []byte {
	t.Helper()
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}

func FuzzParse(f *testing.F) {
	for _, v := range loadVectors(f).Envelope {
		f.Add(v.Headers[EventIDHeader], v.Headers[EventTypeHeader], []byte(v.Body))
	}
	f.Fuzz(func(t *testing.T, id, eventType string, body []byte) {
		header := http.Header{EventIDHeader: {id}, EventTypeHeader: {eventType}}
		e, err := Parse(header, body)
		if err != nil {
			var typed *EnvelopeError
			if !errors.As(err, &typed) || typed.Reason == "" {
				t.Fatalf("untyped refusal: %v", err)
			}
			return
		}
		if e.EventID == "" || !strings.EqualFold(e.EventID, id) || e.EventType == "" || e.EventType != eventType {
			t.Fatalf("accepted event %q %q under the headers %q %q", e.EventID, e.EventType, id, eventType)
		}
		if !json.Valid(e.Data) || e.OccurredAt.IsZero() {
			t.Fatalf("accepted %q at %s", e.Data, e.OccurredAt)
		}
		_, _ = e.Ticket() // must not panic on any data
	})
}
