package cutover

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/ticketwire/ticketwire/internal/fault"
)

// htmlOf is the report as a page.
func htmlOf(t interface{ Fatal(args ...any) }, r *Report) string {
	var b bytes.Buffer
	if err := r.WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// A report that was written and read again looks the same, with all its pictures.
func TestReportIsReadAgain(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]*Report{"everything": goldenReport(t), "nothing": emptyReport(t)} {
		var text bytes.Buffer
		if err := r.WriteJSON(&text); err != nil {
			t.Fatal(err)
		}
		again, err := ParseReport(text.Bytes())
		if name == "nothing" { // nobody publishes a report of no time at all
			if !fault.Is(err, fault.Invalid) || !strings.Contains(fmt.Sprint(err.(*fault.Error).Issues), "window to") {
				t.Errorf("a report of nothing: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(htmlOf(t, r), htmlOf(t, again)); diff != "" {
			t.Errorf("%s (-written +read):\n%s", name, diff)
		}
	}
}

// Whatever the record was, its report can be read again where it is one at all.
func TestAnyReportIsReadAgain(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r, err := Compare(sequence(rapid.SliceOfN(rapid.Custom(drawGarbage), 0, 60).Draw(t, "entries")), Question{})
		if err != nil {
			t.Fatal(err)
		}
		var text bytes.Buffer
		if err := r.WriteJSON(&text); err != nil {
			t.Fatal(err)
		}
		again, err := ParseReport(text.Bytes())
		if fault.Is(err, fault.Invalid) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if a, b := htmlOf(t, r), htmlOf(t, again); !strings.Contains(text.String(), "ufffd") && a != b {
			t.Fatal(firstDifference([]byte(a), []byte(b)))
		}
	})
}

// A report that is wrong says where.
func TestReportIsRefused(t *testing.T) {
	t.Parallel()
	golden, err := os.ReadFile(filepath.Join("testdata", "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseReport(golden); err != nil {
		t.Fatal(err)
	}
	type fields = map[string]any
	long := strings.Repeat("x", maxLine+1)
	for _, c := range []struct {
		path  string // of the value that is replaced
		value any
		want  string
	}{
		{"verdict", "PERHAPS", "verdict must be GO"},
		{"verdict", 7, "verdict must not be number"},
		{"exit_code", 0, "exit_code must be 30 for NO-GO"},
		{"headline", "", "headline must not be empty"},
		{"headline", "a\nb", "headline must be one line"},
		{"server", "\x00", "server must be one line"},
		{"webhook_id", long, "webhook_id must have at most 2000 characters"},
		{"window.to", "0001-01-01T00:00:00Z", "window.to must be a time"},
		{"window.to", "yesterday", "cannot parse"},
		{"window.from", "9000-01-01T00:00:00Z", "window.settled must be from"},
		{"window.seconds", 1e9, "window.seconds must be the time"},
		{"window.seconds", -1, "window.seconds must be the time"},
		{"coverage.changes", 2e12, "coverage.changes must be a number of at most"},
		{"coverage.changes", 1.5, "coverage.changes must not be number 1.5"},
		{"coverage.rate", 1.01, "coverage.rate must be from 0 to 1"},
		{"lag.gain.p50", -1e300, "lag.gain.p50 must be a number of at most"},
		{"attempts.histogram", fields{"one": 1}, "attempts.histogram"},
		{"requests.failures", fields{"x": 9e12}, "requests.failures.x must be a number"},
		{"classes.0.class", "Z9", "classes.0.class must be a class"},
		{"classes.1.class", "X1", "classes.1.class must be a class"},
		{"plots.poll", []any{3, 2}, "plots.poll must be empty or"},
		{"plots.poll", []any{-3}, "plots.poll must be empty or"},
		{"plots.changes", []any{1, 2}, "plots.changes must be empty or 96"},
		{"plots.down", []any{fields{"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}}, "plots.down.0.to must not be before"},
		{"plots.missed", make([]fields, maxMarks+1), "plots.missed must have at most 500"},
		{"blockers", "many", "blockers must not be string"},
		{"extra", 1, `unknown field "extra"`},
		{"window.extra", 1, `unknown field "extra"`},
	} {
		var report any
		if err := json.Unmarshal(golden, &report); err != nil {
			t.Fatal(err)
		}
		put(report, strings.Split(c.path, "."), c.value)
		text, err := json.Marshal(report)
		if err != nil {
			t.Fatal(err)
		}
		_, err = ParseReport(text)
		if !fault.Is(err, fault.Invalid) || !strings.Contains(said(err), c.want) {
			t.Errorf("%s = %v: %s, want %q", c.path, c.value, said(err), c.want)
		}
	}
	// What a class means is not for a report to say.
	r, err := ParseReport(bytes.ReplaceAll(golden, []byte(`"weight": "missed"`), []byte(`"weight": "good"`)))
	if err != nil || htmlOf(t, r) != htmlOf(t, goldenReport(t)) {
		t.Errorf("other weights make another page: %v", err)
	}
	for text, want := range map[string]string{
		"": "EOF", "[]": "must be an object, not array", "null": "verdict", "{}": "verdict", "nonsense": "invalid character", string(golden) + "{}": "behind it",
	} {
		if _, err := ParseReport([]byte(text)); !fault.Is(err, fault.Invalid) || !strings.Contains(said(err), want) {
			t.Errorf("%.10q: %s, want %q", text, said(err), want)
		}
	}
	if _, err := ParseReport(bytes.Repeat([]byte(" "), MaxReport+1)); !fault.Is(err, fault.TooLarge) {
		t.Errorf("a report that is too large: %v", err)
	}
}

// said is all that an error says to a caller.
func said(err error) string {
	e, ok := err.(*fault.Error)
	if !ok {
		return fmt.Sprint(err)
	}
	text := e.Message
	for _, is := range e.Issues {
		var path []string
		for _, part := range is.Path {
			path = append(path, fmt.Sprint(part))
		}
		text += "; " + strings.Join(path, ".") + " " + is.Message
	}
	return text
}

// put replaces the value at a path.
func put(in any, path []string, value any) {
	last := len(path) == 1
	switch x := in.(type) {
	case map[string]any:
		if last {
			x[path[0]] = value
			return
		}
		put(x[path[0]], path[1:], value)
	case []any:
		var i int
		fmt.Sscan(path[0], &i)
		if last {
			x[i] = value
			return
		}
		put(x[i], path[1:], value)
	}
}

// A report of a long record has room in what is taken.
func TestLargestReport(t *testing.T) {
	t.Parallel()
	r := goldenReport(t)
	row := Row{
		Kind: ChangeSeen, Class: NeverSent, At: day, Ticket: strings.Repeat("t", 36), UpdatedAt: day, EventID: strings.Repeat("e", 36),
		EventType: "ticket.status_changed", DeliveryID: strings.Repeat("d", 36), Reason: strings.Repeat("r", 120),
	}
	for i := range r.Classes {
		r.Classes[i].Samples = make([]Row, samplesKept)
		for n := range r.Classes[i].Samples {
			r.Classes[i].Samples[n] = row
		}
	}
	lags := make([]float64, maxLags)
	for i := range lags {
		lags[i] = float64(i) + 1.0/3
	}
	r.Plots.Poll, r.Plots.Webhook, r.Lag.Poll.N, r.Lag.FirstByte.N = lags, lags, 1e6, 1e6
	mark, band := Mark{day, row.String()}, Band{day, day}
	for range maxMarks {
		r.Plots.Missed, r.Plots.Doubtful = append(r.Plots.Missed, mark), append(r.Plots.Doubtful, mark)
		r.Plots.Blind, r.Plots.Down = append(r.Plots.Blind, band), append(r.Plots.Down, band)
	}
	r.Plots.Missed, r.Plots.Doubtful, r.Plots.Blind, r.Plots.Down = r.Plots.Missed[:maxMarks], r.Plots.Doubtful[:maxMarks], r.Plots.Blind[:maxMarks], r.Plots.Down[:maxMarks]
	var text bytes.Buffer
	if err := r.WriteJSON(&text); err != nil {
		t.Fatal(err)
	}
	if _, err := ParseReport(text.Bytes()); err != nil || text.Len() > MaxReport {
		t.Errorf("%d bytes: %s", text.Len(), said(err))
	}
	t.Logf("%d bytes", text.Len())
}

// Whatever is taken can be written in every form and read again.
func FuzzParseReport(f *testing.F) {
	golden, err := os.ReadFile(filepath.Join("testdata", "report.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Add([]byte(`{"verdict":"GO","headline":"x","window":{"to":"2026-01-01T00:00:00Z"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := ParseReport(text)
		if err != nil {
			return
		}
		render(t, r)
		page := htmlOf(t, r)
		if strings.Contains(page, "<script") || strings.ContainsAny(page, "\x1b\u202e") {
			t.Error("a text became more than text")
		}
		var again bytes.Buffer
		if err := r.WriteJSON(&again); err != nil {
			t.Fatal(err)
		}
		if again.Len() > MaxReport { // indented
			return
		}
		next, err := ParseReport(again.Bytes())
		if err != nil {
			t.Fatalf("what was taken is refused: %s", said(err))
		}
		if page != htmlOf(t, next) {
			t.Error("the page is another one")
		}
	})
}
