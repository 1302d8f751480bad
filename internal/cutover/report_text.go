package cutover

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// WriteJSON writes the report without its rows. The names of its fields are
// stable.
func (r *Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// WriteCSV writes all rows. A spreadsheet takes no cell for a formula.
func (r *Report) WriteCSV(w io.Writer) error {
	out := csv.NewWriter(w)
	rows := append(make([][]string, 0, 1), []string{"at", "kind", "class", "weight", "ticket_id", "updated_at", "event_id", "event_type", "delivery_id", "reason"})
	if err := out.WriteAll(rows); err != nil {
		return err
	}
	weight := map[Class]Weight{}
	for _, i := range Classes() {
		weight[i.Class] = i.Weight
	}
	for i := range r.Rows {
		row := &r.Rows[i]
		err := out.Write([]string{
			exactly(row.At), string(row.Kind), string(row.Class), string(weight[row.Class]), plainCell(row.Ticket), exactly(row.UpdatedAt),
			plainCell(row.EventID), plainCell(row.EventType), plainCell(row.DeliveryID), plainCell(row.Reason),
		})
		if err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// plainCell is a text that a spreadsheet does not compute.
func plainCell(text string) string {
	if text != "" && strings.ContainsRune("=+-@\t\r\n|%", rune(text[0])) {
		return "'" + text
	}
	return text
}

func exactly(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format("2006-01-02T15:04:05.000000Z")
}

// textWriter keeps the first error.
type textWriter struct {
	w   io.Writer
	err error
}

func (t *textWriter) line(format string, args ...any) {
	if t.err == nil {
		_, t.err = fmt.Fprintln(t.w, strings.TrimRight(fmt.Sprintf(format, args...), " "))
	}
}

// WriteBrief writes the verdict, the table of both sides, and what is to be done,
// without evidence: a screen of a terminal.
func (r *Report) WriteBrief(w io.Writer) error {
	t := &textWriter{w: w}
	r.writeHead(t)
	for _, part := range []struct {
		title string
		all   []Finding
	}{{"MUST BE PUT RIGHT", r.Blockers}, {"NOT PROVED YET", r.Unproved}} {
		if len(part.all) > 0 {
			t.line("")
			t.line("%s", part.title)
		}
		for _, f := range part.all {
			t.line("  - %s", printable(f.Title))
		}
	}
	return t.err
}

// writeHead writes the verdict and the table of both sides.
func (r *Report) writeHead(t *textWriter) {
	t.line("CUTOVER REPORT  %s", printable(r.title()))
	t.line("%s", r.Period())
	t.line("")
	t.line("VERDICT  %s", r.Outcome)
	for _, l := range wrap(sentence(r.Headline), 96) {
		t.line("  %s", l)
	}
	t.line("")
	t.line("%-26s %-26s %s", "", "poller", "webhook")
	for _, row := range r.comparison() {
		t.line("%-26s %-26s %s", row[0], row[1], row[2])
	}
	t.line("")
	t.line("MISSED %s   MISMATCH %s   UNEXPLAINED %s", count(r.Coverage.Missed+r.Coverage.Events), count(r.Coverage.Mismatched), count(r.Coverage.Doubtful))
}

// WriteText writes the report for a terminal.
func (r *Report) WriteText(w io.Writer) error {
	t := &textWriter{w: w}
	r.writeHead(t)
	for _, l := range r.facts() {
		t.line("%-16s %s", l[0], printable(l[1]))
	}
	r.writeFindings(t, "MUST BE PUT RIGHT", r.Blockers)
	r.writeFindings(t, "NOT PROVED YET", r.Unproved)
	r.writeFindings(t, "TO KNOW", r.Notes)
	t.line("")
	t.line("CLASSES  %37s %9s %9s %9s", "changes", "events", "receipts", "other")
	for i := range r.Classes {
		c := &r.Classes[i]
		if c.Total == 0 {
			continue
		}
		n, e, k := c.Kinds[ChangeSeen], c.Kinds[EventKnown], c.Kinds[CopyGot]
		t.line("  %-4s %-11s %27s %9s %9s %9s   %s", c.Class, c.Weight, count(n), count(e), count(k), count(c.Total-n-e-k), c.Title)
	}
	if len(r.Slowest) > 0 {
		t.line("")
		t.line("SLOWEST WEBHOOKS")
		for _, s := range r.Slowest[:min(5, len(r.Slowest))] {
			t.line("  %-8s (poll %s)  attempt %d  ticket %s  event %s", duration(s.Webhook), duration(s.Poll), s.Attempt, printable(s.Ticket), printable(s.EventID))
		}
	}
	if len(r.Rules) > 0 {
		t.line("")
		t.line("RULES")
		for _, s := range r.Rules {
			t.line("  %s", printable(s.String()))
		}
	}
	return t.err
}

func (r *Report) writeFindings(t *textWriter, title string, all []Finding) {
	if len(all) == 0 {
		return
	}
	t.line("")
	t.line("%s", title)
	for _, f := range all {
		for i, l := range wrap(printable(f.Title), 92) {
			if i == 0 {
				t.line("  - %s", l)
			} else {
				t.line("    %s", l)
			}
		}
		for _, e := range f.Evidence {
			t.line("      %s", printable(e))
		}
		if f.Cause != "" {
			for i, l := range wrap(printable(f.Cause), 86) {
				t.line("      %-6s %s", []string{"why", ""}[min(i, 1)], l)
			}
		}
		if f.Command != "" {
			t.line("      %-6s %s", "run", printable(f.Command))
		}
	}
}

// printable leaves out what would move the cursor or colour the terminal.
func printable(text string) string {
	return strings.Map(func(c rune) rune {
		if !strconv.IsPrint(c) {
			return '?'
		}
		return c
	}, text)
}

func (r *Report) title() string {
	return strings.Trim(strings.TrimPrefix(strings.TrimPrefix(r.Server, "https://"), "http://")+" / webhook "+r.WebhookID, "/ ")
}

// Period is the window in words.
func (r *Report) Period() string {
	w := r.Window
	if w.From.IsZero() {
		return "no window yet, at " + stamped(w.To)
	}
	at := stamped
	if w.Seconds < 600 {
		at = func(t time.Time) string { return t.Format("2006-01-02 15:04:05Z") }
	}
	return fmt.Sprintf("%s to %s (%s, settled to %s)", at(w.From), at(w.To), duration(w.Seconds), at(w.Settled))
}

// sentence begins with a capital letter and ends with a full stop.
func sentence(text string) string {
	if text == "" {
		return text
	}
	return strings.ToUpper(text[:1]) + text[1:] + "."
}

// comparison is the table of both pipelines.
func (r *Report) comparison() [][3]string {
	recall := [3]string{"changes caught", "-", fmt.Sprintf("%s of %s", count(r.Coverage.Matched), count(r.Coverage.Eligible))}
	if r.Coverage.Eligible > 0 {
		recall[1] = "(it is the control)"
		recall[2] += " (" + percent(r.Coverage.Rate) + ")"
	}
	out := [][3]string{recall}
	if r.Recall.Changes > 0 {
		out = append(out, [3]string{fmt.Sprintf("of %s in the %s", count(r.Recall.Changes), r.Recall.Source), percent(r.Recall.Poller), percent(r.Recall.Webhook)})
	}
	lag := func(d Distribution) string {
		if d.N == 0 {
			return "-"
		}
		return fmt.Sprintf("%s / %s / %s", duration(d.Median), duration(d.P95), duration(d.Max))
	}
	out = append(out, [3]string{"lag p50 / p95 / max", lag(r.Lag.Poll), lag(r.Lag.FirstByte)})
	if r.Lag.Handled.N > 0 {
		out = append(out, [3]string{"  until handled", "", lag(r.Lag.Handled)})
	}
	refetch := ""
	if r.Requests.Refetches > 0 {
		refetch = fmt.Sprintf(" (and %s refetches)", count(r.Requests.Refetches))
	}
	return append(out,
		[3]string{"requests", count(r.Requests.Polls), count(r.Requests.Webhook) + refetch},
		[3]string{"  of use", fmt.Sprintf("%s (%s)", count(r.Requests.Useful), percent(r.Requests.UsefulShare)), ""},
		[3]string{"blind", duration(r.Blind.Poller), fmt.Sprintf("%s down, %s disabled", duration(r.Blind.Receiver), duration(r.Blind.Disabled))},
	)
}

// facts are the figures that are about one side.
func (r *Report) facts() [][2]string {
	c, q, a, k := r.Coverage, r.Requests, r.Attempts, r.Copies
	out := [][2]string{}
	add := func(what, format string, args ...any) {
		out = append(out, [2]string{what, fmt.Sprintf(format, args...)})
	}
	add("missed at most", "%s with 95 %% confidence (%s of %s clean changes for %s)", percent(c.MissBound), count(c.Eligible), count(c.Needed), percent(c.Allowed))
	if r.Lag.Gain.N > 0 {
		add("earlier by", "%s in the median", duration(r.Lag.Gain.Median))
	}
	if c.Unseen > 0 {
		add("only webhooks", "%s that no poll shows", plural(c.Unseen, "change", "changes"))
	}
	add("saved", "%s requests a day, %s a month%s", count(int(q.SavedPerDay+0.5)), count(int(q.SavedPerMon+0.5)), limitShare(q))
	if len(q.Failures) > 0 {
		add("poll failures", "%s", failures(q))
	}
	if a.Events > 0 {
		add("attempts", "%s at the first; %s; the longest took %s", percent(a.First), histogram(a), duration(a.Longest))
	}
	if !a.LastFailure.IsZero() {
		add("last failure", "%s, %s before the end", stamped(a.LastFailure), duration(r.Window.To.Sub(a.LastFailure).Seconds()))
	}
	if k.Receipts > 0 {
		add("copies", "%s, %s out of order, %s with a stale payload (%s)", plural(k.Duplicates, "duplicate", "duplicates"), count(k.OutOfOrder), count(k.Stale), percent(k.StaleShare))
	}
	if r.Traffic.Events > 0 {
		add("traffic", "%s of %s are about watched tickets (%s)", count(r.Traffic.Watched), plural(r.Traffic.Events, "event", "events"), percent(r.Traffic.Share))
	}
	if len(r.Types) > 0 {
		add("event types", "%s", typesSeen(r.Types))
	}
	if len(r.Window.Weekdays) > 0 {
		add("covered", "%s; %.1f h of them from Monday to Friday", strings.Join(r.Window.Weekdays, ", "), r.Window.Business)
	}
	if r.Window.Peak > 0 {
		add("busiest hour", "%s with %s", stamped(r.Window.PeakHour), plural(r.Window.Peak, "change", "changes"))
	}
	add("clocks", "the server is %s ahead of the poller (%s to %s) and at least %s of the receiver; events occur %s after updated_at (%s to %s)",
		duration(r.Clocks.Poller), duration(r.Clocks.Least), duration(r.Clocks.Most), duration(r.Clocks.Receiver), duration(r.Clocks.Publish.Median), duration(r.Clocks.Earliest), duration(r.Clocks.Publish.Max))
	for _, p := range r.Drills {
		if p.Proved {
			add("proved", "%s: %s", p.Kind, p.Evidence)
		}
	}
	add("turn", "the %s acts", r.Safety.Acts)
	add("record", "%s", recordText(r.Record))
	return out
}

func limitShare(q Requests) string {
	if q.LimitShare == 0 {
		return ""
	}
	return ", " + percent(q.LimitShare) + " of the key's limit"
}

func failures(q Requests) string {
	var out []string
	for _, f := range slices.Sorted(maps.Keys(q.Failures)) {
		out = append(out, fmt.Sprintf("%s x%d", f, q.Failures[f]))
	}
	return strings.Join(out, ", ")
}

func histogram(a Attempts) string {
	var out []string
	for _, n := range slices.Sorted(maps.Keys(a.Histogram)) {
		out = append(out, fmt.Sprintf("%d: %s", n, count(a.Histogram[n])))
	}
	return strings.Join(out, ", ")
}

func typesSeen(types []Type) string {
	var out []string
	for _, t := range types {
		text := fmt.Sprintf("%s %s", t.Name, count(t.Seen))
		if t.Waived {
			text += " (waived)"
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

func recordText(n Counts) string {
	out := []string{plural(n.Entries, "entry", "entries")}
	for _, part := range []struct {
		n    int
		what string
	}{{n.Broken, "that say nothing"}, {n.Torn, "cut off"}, {n.Later, "from later"}, {n.Other, "about other webhooks"}} {
		if part.n > 0 {
			out = append(out, count(part.n)+" "+part.what)
		}
	}
	return strings.Join(out, ", ")
}

// String is a rule on one line.
func (s RuleState) String() string {
	text := fmt.Sprintf("ignore %s, %s, until %s: %s", s.Field, s.Owner, s.Until.UTC().Format("2006-01-02"), s.Why)
	if s.Void != "" {
		return text + " [does not count: " + s.Void + "]"
	}
	return text + fmt.Sprintf(" [%s]", plural(s.Hits, "difference", "differences"))
}

// wrap breaks a text into lines of at most width letters, where there are spaces.
func wrap(text string, width int) []string {
	var out []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case len([]rune(line))+1+len([]rune(word)) <= width:
			line += " " + word
		default:
			out = append(out, line)
			line = word
		}
	}
	return append(out, line)
}
