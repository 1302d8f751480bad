package cutover

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/ticketwire/ticketwire/webhook"
)

// goldenReport is a report with something of everything.
func goldenReport(t *testing.T) *Report {
	s := &scene{&world{start: day.Truncate(time.Hour), end: day.Truncate(time.Hour).Add(2 * time.Hour), interval: time.Minute, watched: []string{"a"}}, t}
	s.begin()
	s.changes = []*worldChange{{ticket: "a", at: s.start.Add(-time.Hour)}, {ticket: "b", at: s.start.Add(-time.Hour), n: 1}}
	for i := range 12 {
		e := s.fed(s.event(s.changed("a", time.Duration(i-20)*time.Minute), "fine-"+string(rune('a'+i))))
		s.got(e, time.Duration(10+i*7)*time.Millisecond, 1)
		s.entries = append(s.entries, Entry{Reaction: &Reaction{At: e.occurred.Add(200 * time.Millisecond), EventID: e.id, EventType: e.typ, Ticket: "a", Attempt: 1}})
	}
	retried := s.fed(s.event(s.changed("a", 0), "retried"))
	s.got(retried, 10*time.Millisecond, 1, refusedWith(500, webhook.ReactionFailed))
	s.got(retried, time.Minute, 2)
	s.got(retried, 2*time.Minute, 3, func(r *Receipt) { r.Outcome = string(webhook.Duplicate) })
	s.fed(s.event(s.changed("a", 10*time.Minute), "lost"))
	given := s.fed(s.event(s.changed("a", 12*time.Minute), "given-up"))
	s.logged(given, 4, "abandoned", func(d *Delivery) { d.Error = "connect: <refused> | `really`" })
	other := s.fed(s.event(s.changed("a", 14*time.Minute), "differs"))
	s.got(other, 10*time.Millisecond, 1, func(r *Receipt) { r.Hash, r.Body = "other", `{"data":{"title":"=1+1 <script>","is_closed":false}}` })
	s.logged(s.fed(s.event(s.changed("a", 16*time.Minute), "unknown")), 1, "delivered", func(d *Delivery) { d.HTTP = 200 })
	s.got(s.fed(s.event(s.changed("b", 18*time.Minute), "elsewhere")), 10*time.Millisecond, 1)
	s.changed("a", 20*time.Minute) // no event
	s.pollerBad = []stretch{{momentOf(happens.Add(30 * time.Minute)), momentOf(happens.Add(33 * time.Minute))}}
	s.down = []stretch{{momentOf(happens.Add(40 * time.Minute)), momentOf(happens.Add(41 * time.Minute))}}
	s.entries = append(s.entries,
		Entry{Receiver: &Receiver{At: happens.Add(5 * time.Minute), SecretFrom: "config"}},
		Entry{Drill: &Drill{At: happens.Add(4 * time.Minute), Kind: DrillRestart}},
		Entry{Receipt: &Receipt{}})
	s.poll(0)
	s.finish()
	setup := s.setup()
	setup.Rules = Rules{Waived: []string{webhook.TicketClosed}, Ignore: []Ignore{
		{Field: "due_date", Owner: "Ann", Until: s.end.Add(time.Hour), Why: "computed"},
		{Field: "tags", Owner: "Bob", Until: s.start, Why: "REST does not tell"},
	}}
	r, err := Compare(sequence(s.entries), Question{Setup: setup, At: s.end})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// UPDATE_GOLDEN=1 rewrites what the reports should look like.
func TestReportsLookAsTheyShould(t *testing.T) {
	t.Parallel()
	r := goldenReport(t)
	for name, write := range map[string]func(*bytes.Buffer) error{
		"report.txt":      func(b *bytes.Buffer) error { return r.WriteText(b) },
		"report.md":       func(b *bytes.Buffer) error { return r.WriteMarkdown(b) },
		"report.html":     func(b *bytes.Buffer) error { return r.WriteHTML(b) },
		"report.json":     func(b *bytes.Buffer) error { return r.WriteJSON(b) },
		"report.csv":      func(b *bytes.Buffer) error { return r.WriteCSV(b) },
		"report-none.txt": func(b *bytes.Buffer) error { return emptyReport(t).WriteText(b) },
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("testdata", name)
		if os.Getenv("UPDATE_GOLDEN") != "" {
			if err := os.MkdirAll("testdata", 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), b.String()); diff != "" {
			t.Errorf("%s, -want +got\n%s", name, diff)
		}
	}
}

func emptyReport(t *testing.T) *Report {
	t.Helper()
	r, err := Compare(sequence(nil), Question{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// The forms of an empty record are whole, too.
func TestReportOfNothing(t *testing.T) {
	t.Parallel()
	r := emptyReport(t)
	if r.Outcome != Extend || r.Exit != 20 {
		t.Errorf("%s, exit %d", r.Outcome, r.Exit)
	}
	render(t, r)
}

// What strangers wrote into the record is text in every form.
func TestReportsAreText(t *testing.T) {
	t.Parallel()
	const nasty = "=cmd|' /C calc'!A0\x1b[31m<script>alert(1)</script>\r\n| `x` [y](javascript:z)"
	at := day.Truncate(time.Hour)
	entries := []Entry{
		{Watch: &Watch{At: at, Server: "https://" + nasty, Interval: 60, Tickets: []string{nasty}}},
		{Receiver: &Receiver{At: at, SecretFrom: nasty}},
		{Subscription: &Subscription{At: at, WebhookID: "w", Active: true, EventTypes: []string{nasty}}},
		{Receipt: &Receipt{At: at.Add(time.Hour), Done: at.Add(time.Hour), HTTP: 401, Outcome: nasty, EventID: nasty, EventType: nasty, DeliveryID: nasty}},
		{Delivery: &Delivery{At: at.Add(time.Hour), WebhookID: "w", DeliveryID: nasty, EventID: nasty, EventType: nasty, Ticket: nasty, Status: "abandoned", Error: nasty, AttemptedAt: at.Add(time.Hour)}},
		{Gap: &Gap{From: at, To: at.Add(time.Minute), Side: SideReceiver, Why: nasty}},
	}
	r, err := Compare(sequence(entries), Question{At: at.Add(3 * time.Hour), Setup: &Setup{Server: nasty, WebhookID: "w", Rules: Rules{Ignore: []Ignore{{Field: nasty, Owner: nasty, Why: nasty}}}}})
	if err != nil {
		t.Fatal(err)
	}
	var text, page, table, marked bytes.Buffer
	for _, err := range []error{r.WriteText(&text), r.WriteHTML(&page), r.WriteCSV(&table), r.WriteMarkdown(&marked)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if strings.ContainsAny(text.String()+marked.String(), "\x1b\r") {
		t.Error("a terminal gets control sequences")
	}
	if strings.Contains(page.String(), "<script") {
		t.Error("the page has a script in it")
	}
	if strings.Contains(strings.ReplaceAll(marked.String(), `\<`, ""), "<script") {
		t.Error("Markdown has a tag in it")
	}
	rows, err := csv.NewReader(&table).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		for _, cell := range row {
			if cell != "" && strings.ContainsRune("=+-@\t\r|%", rune(cell[0])) {
				t.Errorf("a spreadsheet would compute %q", cell)
			}
		}
	}
}

// drawTime is a time that may be anything.
func drawTime(t *rapid.T) time.Time {
	switch rapid.IntRange(0, 3).Draw(t, "time") {
	case 0:
		return time.Time{}
	case 1:
		return time.Date(rapid.IntRange(1, 9999).Draw(t, "year"), 2, 3, 4, 5, 6, 7, time.UTC)
	default:
		return day.Add(time.Duration(rapid.IntRange(0, 7_200_000).Draw(t, "ms")) * time.Millisecond)
	}
}

// drawGarbage is an entry that no program writes.
func drawGarbage(t *rapid.T) Entry {
	text := func(name string) string {
		return rapid.SampledFrom([]string{"", "a", "b", "w", "e", "ticket.updated", "feed", "deliveries", "sweep", "delivered", "pending", "abandoned", "webhook", "poller", "changed", "first", "\x00\xff"}).Draw(t, name)
	}
	n := func(name string) int { return rapid.IntRange(-5, 600).Draw(t, name) }
	at := func() time.Time { return drawTime(t) }
	raw := func() json.RawMessage { return json.RawMessage(text("raw")) }
	switch rapid.IntRange(0, 13).Draw(t, "kind") {
	case 0:
		return Entry{Watch: &Watch{At: at(), Interval: float64(n("interval")), Tickets: []string{text("ticket")}}}
	case 1:
		return Entry{Poll: &Poll{At: at(), Done: at(), Round: at(), Ticket: text("ticket"), HTTP: n("http"), Failure: Failure(text("failure")), Date: at(), Limit: n("limit"), List: &ListPage{For: ForChanges, Last: true},
			Seen: []Observation{{Ticket: text("ticket"), UpdatedAt: at(), Verdict: Verdict(text("verdict")), Hash: text("hash"), Fields: map[string]json.RawMessage{"title": raw(), text("field"): raw()}}}}}
	case 2:
		return Entry{Receipt: &Receipt{At: at(), Done: at(), HTTP: n("http"), Outcome: text("outcome"), Signed: rapid.Bool().Draw(t, "signed"), EventID: text("event"), EventType: text("type"), DeliveryID: text("delivery"), WebhookID: text("webhook"),
			Attempt: n("attempt"), OccurredAt: at(), Ticket: text("ticket"), UpdatedAt: at(), Hash: text("hash"), BodyHash: text("body"), Body: text("body text"), Synthetic: rapid.Bool().Draw(t, "synthetic")}}
	case 3:
		return Entry{Delivery: &Delivery{At: at(), WebhookID: text("webhook"), DeliveryID: text("delivery"), EventID: text("event"), EventType: text("type"), Attempt: n("attempt"), Status: text("status"), HTTP: n("http"), AttemptedAt: at(), CompletedAt: at(), NextRetryAt: at()}}
	case 4:
		return Entry{Truth: &Truth{At: at(), Source: text("source"), EventID: text("event"), EventType: text("type"), OccurredAt: at(), Ticket: text("ticket"), UpdatedAt: at(), Hash: text("hash")}}
	case 5:
		return Entry{Gap: &Gap{From: at(), To: at(), Side: Side(text("side"))}}
	case 6:
		return Entry{Subscription: &Subscription{At: at(), WebhookID: text("webhook"), Active: rapid.Bool().Draw(t, "active"), EventTypes: []string{text("type")}, Filter: raw(), DisabledAt: at(), GivesUpAfter: float64(n("gives up"))}}
	case 7:
		return Entry{Receiver: &Receiver{At: at(), Silence: float64(n("silence"))}}
	case 8:
		return Entry{Reaction: &Reaction{At: at(), EventID: text("event"), EventType: text("type"), Attempt: n("attempt"), Acted: true}}
	case 9:
		return Entry{Reconciler: &Reconciler{At: at(), Every: float64(n("every"))}}
	case 10:
		return Entry{Turn: &Turn{At: at(), From: at(), Side: Side(text("side"))}}
	case 12:
		return Entry{Reading: &Reading{At: at(), Topic: Topic(text("topic")), From: at(), To: at()}}
	case 11:
		return Entry{Drill: &Drill{At: at(), Kind: text("drill")}}
	default:
		return Entry{}
	}
}

// Garbage makes no report impossible, is in it, and has no order either.
func TestGarbageIsNotDropped(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		entries := rapid.SliceOfN(rapid.Custom(drawGarbage), 0, 60).Draw(t, "entries")
		q := Question{Setup: &Setup{WebhookID: rapid.SampledFrom([]string{"", "w"}).Draw(t, "webhook")}}
		if rapid.Bool().Draw(t, "at") {
			q.At = drawTime(t)
		}
		r, err := Compare(sequence(entries), q)
		if err != nil {
			t.Fatal(err)
		}
		if r.Record.Entries != len(entries) {
			t.Errorf("%d entries, want %d", r.Record.Entries, len(entries))
		}
		broken, total := 0, 0
		for _, row := range r.Rows {
			if row.Kind == LineBroken {
				broken++
			}
		}
		for _, c := range r.Classes {
			total += c.Total
		}
		if broken != r.Record.Broken || total != len(r.Rows) {
			t.Errorf("%d broken entries in the rows, %d counted; %d rows, %d in classes", broken, r.Record.Broken, len(r.Rows), total)
		}
		if broken > 0 && r.Outcome != NoGo {
			t.Errorf("%d entries say nothing, and the verdict is %s", broken, r.Outcome)
		}
		again, err := Compare(sequence(rapid.Permutation(entries).Draw(t, "order")), q)
		if err != nil {
			t.Fatal(err)
		}
		if a, b := render(t, r), render(t, again); !bytes.Equal(a, b) {
			t.Fatalf("the order of the lines shows:\n%s", firstDifference(a, b))
		}
	})
}
