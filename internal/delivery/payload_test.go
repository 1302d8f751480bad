package delivery_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/webhook"
)

// golden returns one payload of package webhook's testdata, compact.
func golden(t testing.TB, name string) []byte {
	t.Helper()
	indented, err := os.ReadFile(filepath.Join("..", "..", "webhook", "testdata", "payloads", name))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := json.Compact(&out, indented); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// parse splits a body into what Body takes.
func parse(t testing.TB, body []byte) (delivery.Event, *webhook.TicketData) {
	t.Helper()
	var env webhook.Envelope
	if err := json.Unmarshal(body, &env); err != nil {
		t.Fatal(err)
	}
	d, err := env.Ticket()
	if err != nil {
		t.Fatal(err)
	}
	return delivery.Event{
		EventID:    env.EventID,
		EventType:  env.EventType,
		OccurredAt: env.OccurredAt.Time,
		TenantID:   env.TenantID,
	}, d
}

func TestBodyGolden(t *testing.T) {
	t.Parallel()
	list := func(names ...string) delivery.PayloadFields {
		return delivery.PayloadFields{"ticket": append([]string{}, names...)}
	}
	tests := []struct {
		want  string
		full  string // the payload whose data is cut; "" for want itself
		shape delivery.Shape
	}{
		{want: "ticket.created.json"},
		{want: "ticket.updated.json"},
		{want: "ticket.updated.tags.json"},
		{want: "ticket.status_changed.json"},
		{want: "ticket.assigned.json"},
		{want: "ticket.assigned.team.json"},
		{want: "ticket.closed.json"},
		{want: "ticket.comment.added.json"},
		{want: "ticket.comment.added.with-thread.json", shape: delivery.Shape{Threads: true}},
		{
			want:  "ticket.updated.allowlist.json",
			full:  "ticket.updated.json",
			shape: delivery.Shape{Fields: list("changes", "status_name", "title")}, // order of the list is no order
		},
		{
			want:  "ticket.updated.required-only.json",
			full:  "ticket.updated.json",
			shape: delivery.Shape{Fields: list(), Threads: true},
		},
		{want: "ticket.created.json", shape: delivery.Shape{Fields: delivery.PayloadFields{}}},
		{want: "ticket.created.json", shape: delivery.Shape{Fields: delivery.PayloadFields{"ticket": nil}}},
		{want: "ticket.created.json", shape: delivery.Shape{Fields: delivery.PayloadFields{"project": {}}}},
	}
	for _, tt := range tests {
		t.Run(tt.want, func(t *testing.T) {
			t.Parallel()
			want := golden(t, tt.want)
			e, d := parse(t, want)
			if tt.full != "" {
				_, d = parse(t, golden(t, tt.full))
			}
			got, err := delivery.Body(e, d, tt.shape)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("Body (-want +got):\n%s", diff)
			}
			// Replay cuts the stored full body to the same bytes.
			full, err := delivery.Body(e, d, delivery.Shape{Threads: true})
			if err != nil {
				t.Fatal(err)
			}
			got, err = delivery.FromFull(full, tt.shape)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("FromFull (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTestBodyGolden(t *testing.T) {
	t.Parallel()
	e := delivery.Event{
		EventID:    "4f0c2f5e-9b1d-4c77-9f0e-00000000000a",
		OccurredAt: time.Date(2026, 3, 9, 8, 59, 0, 0, time.FixedZone("", 3600)),
		TenantID:   "7c1d2f0a-5b64-4e0e-9a3b-2f6d8c41e7b5",
	}
	got := string(delivery.TestBody(e, "b0a7f3c2-1d9e-4f67-8a11-5c3e9d20f4aa", "Ops bridge"))
	if want := string(golden(t, "webhook.test.json")); got != want {
		t.Errorf("TestBody = %s, want %s", got, want)
	}
	got = string(delivery.TestBody(e, "", `a "quoted" name`))
	if want := `"data":{"webhook_name":"a \"quoted\" name","is_test":true}}`; !strings.HasSuffix(got, want) {
		t.Errorf("TestBody without a webhook = %s, want it to end in %s", got, want)
	}
}

func TestBodyThread(t *testing.T) {
	t.Parallel()
	e, d := parse(t, golden(t, "ticket.comment.added.with-thread.json"))
	listed := delivery.PayloadFields{"ticket": {"title", "comments"}}
	tests := []struct {
		name  string
		shape delivery.Shape
		want  bool
	}{
		{"full payload", delivery.Shape{}, false},
		{"full payload of a server that sends threads", delivery.Shape{Threads: true}, true},
		{"listed", delivery.Shape{Fields: listed}, true},
		{"other list, server sends threads", delivery.Shape{Fields: delivery.PayloadFields{"ticket": {"title"}}, Threads: true}, false},
		{"only the id", delivery.Shape{Fields: delivery.PayloadFields{"ticket": {}}, Threads: true}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b, err := delivery.Body(e, d, tt.shape)
			if err != nil {
				t.Fatal(err)
			}
			if got := bytes.Contains(b, []byte(`"comments":[{`)); got != tt.want {
				t.Errorf("thread in body = %v, want %v", got, tt.want)
			}
			if got := tt.shape.WantsComments(); got != tt.want {
				t.Errorf("WantsComments = %v, want %v", got, tt.want)
			}
		})
	}
}

func TestBodyDetails(t *testing.T) {
	t.Parallel()
	id := "s1"
	e := delivery.Event{EventID: "e", EventType: webhook.TicketStatusChanged}
	tests := []struct {
		name string
		d    webhook.TicketData
		list []string
		want string
	}{
		{"no tags is an empty list", webhook.TicketData{TicketID: "t"}, []string{"tags"}, `{"ticket_id":"t","tags":[]}`},
		{
			"previous name may be null", webhook.TicketData{TicketID: "t", PreviousStatusID: &id},
			[]string{"previous_status_id", "previous_status_name"},
			`{"ticket_id":"t","previous_status_id":"s1","previous_status_name":null}`,
		},
		{
			"unknown previous status is absent", webhook.TicketData{TicketID: "t", PreviousStatusName: &id},
			[]string{"previous_status_id", "previous_status_name"}, `{"ticket_id":"t"}`,
		},
		{
			"changes are compacted", webhook.TicketData{TicketID: "t", Changes: webhook.Changes{
				{Field: "tags", Previous: json.RawMessage("[ \"<a>\" ,\n1 ]")},
			}},
			[]string{"changes"}, `{"ticket_id":"t","changes":{"tags":{"previous":["<a>",1],"new":null}}}`,
		},
		{
			"empty thread is a list", webhook.TicketData{TicketID: "t", Comments: &[]webhook.Message{}},
			[]string{"comments"}, `{"ticket_id":"t","comments":[]}`,
		},
		{
			"a truncated thread says so", webhook.TicketData{TicketID: "t", Comments: &[]webhook.Message{}, CommentsTruncated: true},
			[]string{"comments"}, `{"ticket_id":"t","comments":[],"comments_truncated":true}`,
		},
		{
			"and nobody else", webhook.TicketData{TicketID: "t", Comments: &[]webhook.Message{}, CommentsTruncated: true},
			[]string{"tags"}, `{"ticket_id":"t","tags":[]}`,
		},
		{
			"text as it is", webhook.TicketData{TicketID: "t", URL: "<b>&\u2028\u2029é✅\x00\x1f\b\t\n\f\r\"\\/\x7f\xff"},
			[]string{"url"}, `{"ticket_id":"t","url":"<b>&` + "\u2028\u2029é✅" + `\u0000\u001f\b\t\n\f\r\"\\/` + "\x7f\uFFFD" + `"}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b, err := delivery.Body(e, &tt.d, delivery.Shape{Fields: delivery.PayloadFields{"ticket": tt.list}})
			if err != nil {
				t.Fatal(err)
			}
			_, got, _ := strings.Cut(string(b), `"data":`)
			if want := tt.want + "}"; got != want {
				t.Errorf("data = %s\nwant   %s", got, want)
			}
			if !json.Valid(b) {
				t.Errorf("not JSON: %s", b)
			}
			full, err := delivery.Body(e, &tt.d, delivery.Shape{Threads: true})
			if err != nil {
				t.Fatal(err)
			}
			later, err := delivery.FromFull(full, delivery.Shape{Fields: delivery.PayloadFields{"ticket": tt.list}})
			if err != nil || !bytes.Equal(later, b) {
				t.Errorf("cut from the stored body: %s, %v", later, err)
			}
		})
	}
}

func TestBodyErrors(t *testing.T) {
	t.Parallel()
	bad := webhook.Changes{{Field: "title", Previous: json.RawMessage(`"a"`), New: json.RawMessage(`{`)}}
	for name, d := range map[string]*webhook.TicketData{
		"no data":      nil,
		"bad new":      {Changes: bad},
		"bad previous": {Changes: webhook.Changes{{Field: "title", Previous: json.RawMessage(`x`)}}},
	} {
		if b, err := delivery.Body(delivery.Event{EventID: "e"}, d, delivery.Shape{}); err == nil {
			t.Errorf("%s: Body = %s, want an error", name, b)
		}
	}
	for _, body := range []string{``, `[]`, `{"event_type":"ticket.created","occurred_at":"2026-01-01T00:00:00Z","data":[]}`} {
		shape := delivery.Shape{Fields: delivery.PayloadFields{"ticket": {}}}
		if b, err := delivery.FromFull([]byte(body), shape); err == nil {
			t.Errorf("FromFull(%s) = %s, want an error", body, b)
		}
	}
}

func TestFromFullOtherEntities(t *testing.T) {
	t.Parallel()
	const head = `{"event_id":"e","event_type":"`
	const rest = `","occurred_at":"2026-01-01T00:00:00.000Z","tenant_id":"t","data":`
	shape := delivery.Shape{Fields: delivery.PayloadFields{"ticket": {}, "project": {"name"}}}
	for _, tt := range []struct{ eventType, data, want string }{
		{"project.updated", `{"project_id":"p","name":"n","budget":1}`, `{"project_id":"p","name":"n"}`},
		{"webhook.test", `{"webhook_id":"w"}`, `{"webhook_id":"w"}`},
	} {
		got, err := delivery.FromFull([]byte(head+tt.eventType+rest+tt.data+"}"), shape)
		if want := head + tt.eventType + rest + tt.want + "}"; err != nil || string(got) != want {
			t.Errorf("%s: FromFull = %s, %v, want %s", tt.eventType, got, err, want)
		}
	}
}

// anyTicket draws ticket data with any text in it.
func anyTicket(t *rapid.T) *webhook.TicketData {
	text := rapid.Ptr(rapid.String(), true)
	at := rapid.Custom(func(t *rapid.T) webhook.Time {
		return webhook.At(time.UnixMilli(rapid.Int64Range(0, 4e12).Draw(t, "ms")))
	})
	d := &webhook.TicketData{
		TicketID:           rapid.String().Draw(t, "id"),
		Title:              text.Draw(t, "title"),
		ContactName:        text.Draw(t, "contact"),
		IsClosed:           rapid.Bool().Draw(t, "closed"),
		UpdatedAt:          rapid.Ptr(at, true).Draw(t, "updated"),
		Tags:               rapid.SliceOf(rapid.String()).Draw(t, "tags"),
		URL:                rapid.String().Draw(t, "url"),
		PreviousStatusID:   text.Draw(t, "previous"),
		PreviousStatusName: nil,
	}
	if d.Tags == nil {
		d.Tags = []string{}
	}
	if rapid.Bool().Draw(t, "commented") {
		d.Comment = &webhook.Comment{Text: rapid.String().Draw(t, "text"), Author: text.Draw(t, "author"), Timestamp: at.Draw(t, "at")}
		d.Comments = &[]webhook.Message{{Text: d.Comment.Text, CreatedAt: d.Comment.Timestamp, UpdatedAt: rapid.Ptr(at, true).Draw(t, "edited")}}
	}
	return d
}

func TestBodyReadsBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		d := anyTicket(t)
		e := delivery.Event{EventID: rapid.String().Draw(t, "event"), EventType: webhook.TicketUpdated, OccurredAt: time.Unix(1, 0)}
		full, err := delivery.Body(e, d, delivery.Shape{Threads: true})
		if err != nil {
			t.Fatal(err)
		}
		var env webhook.Envelope
		if err := json.Unmarshal(full, &env); err != nil {
			t.Fatalf("%v in %q", err, full)
		}
		got, err := env.Ticket()
		if err != nil {
			t.Fatal(err)
		}
		if env.EventID != e.EventID || !reflect.DeepEqual(d, got) {
			t.Fatalf("sent and read back differ:\n%s", cmp.Diff(d, got))
		}
		// Cutting the stored body and building the cut body are the same.
		shape := delivery.Shape{Fields: delivery.PayloadFields{
			"ticket": rapid.SliceOf(rapid.SampledFrom(delivery.TicketFields())).Draw(t, "fields"),
		}}
		direct, err := delivery.Body(e, d, shape)
		if err != nil {
			t.Fatal(err)
		}
		replayed, err := delivery.FromFull(full, shape)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(direct, replayed) {
			t.Fatalf("direct   %s\nreplayed %s", direct, replayed)
		}
	})
}

func BenchmarkBody(b *testing.B) {
	e, d := parse(b, golden(b, "ticket.updated.json"))
	for name, shape := range map[string]delivery.Shape{
		"full": {},
		"list": {Fields: delivery.PayloadFields{"ticket": {"title", "status_name", "changes"}}},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := delivery.Body(e, d, shape); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
