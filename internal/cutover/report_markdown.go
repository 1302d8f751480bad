package cutover

import (
	"fmt"
	"io"
	"strings"
)

// WriteMarkdown writes the report for an issue or a pull request.
func (r *Report) WriteMarkdown(w io.Writer) error {
	t := &textWriter{w: w}
	t.line("# Cutover report: %s", r.Outcome)
	t.line("")
	t.line("%s, %s", markdown(r.title()), markdown(r.Period()))
	t.line("")
	t.line("**%s**", markdown(sentence(r.Headline)))
	t.line("")
	t.line("| | poller | webhook |")
	t.line("| --- | --- | --- |")
	for _, row := range r.comparison() {
		t.line("| %s | %s | %s |", markdown(strings.TrimSpace(row[0])), markdown(row[1]), markdown(row[2]))
	}
	t.line("")
	t.line("Missed **%s**, mismatch **%s**, unexplained **%s**.", count(r.Coverage.Missed+r.Coverage.Events), count(r.Coverage.Mismatched), count(r.Coverage.Doubtful))
	t.line("")
	for _, l := range r.facts() {
		t.line("- %s: %s", markdown(l[0]), markdown(l[1]))
	}
	r.markFindings(t, "Must be put right", r.Blockers)
	r.markFindings(t, "Not proved yet", r.Unproved)
	r.markFindings(t, "To know", r.Notes)
	t.line("")
	t.line("## Classes")
	t.line("")
	t.line("| class | weight | changes | events | receipts | other | |")
	t.line("| --- | --- | ---: | ---: | ---: | ---: | --- |")
	for i := range r.Classes {
		if c := &r.Classes[i]; c.Total > 0 {
			n, e, k := c.Kinds[ChangeSeen], c.Kinds[EventKnown], c.Kinds[CopyGot]
			t.line("| %s | %s | %s | %s | %s | %s | %s |", c.Class, c.Weight, count(n), count(e), count(k), count(c.Total-n-e-k), c.Title)
		}
	}
	if len(r.Slowest) > 0 {
		t.line("")
		t.line("## Slowest webhooks")
		t.line("")
		t.line("| webhook | poll | attempt | ticket | event |")
		t.line("| ---: | ---: | ---: | --- | --- |")
		for _, s := range r.Slowest {
			t.line("| %s | %s | %d | %s | %s |", duration(s.Webhook), duration(s.Poll), s.Attempt, code(s.Ticket), code(s.EventID))
		}
	}
	if len(r.Rules) > 0 {
		t.line("")
		t.line("## Rules")
		t.line("")
		for _, s := range r.Rules {
			t.line("- %s", markdown(s.String()))
		}
	}
	return t.err
}

func (r *Report) markFindings(t *textWriter, title string, all []Finding) {
	if len(all) == 0 {
		return
	}
	t.line("")
	t.line("## %s", title)
	t.line("")
	for _, f := range all {
		t.line("- **%s**%s", markdown(f.Title), prefixed(" ", markdown(f.Cause)))
		for _, e := range f.Evidence {
			t.line("  - %s", markdown(e))
		}
		if f.Command != "" {
			t.line("  - next: %s", code(f.Command))
		}
	}
}

func prefixed(prefix, text string) string {
	if text == "" {
		return ""
	}
	return prefix + text
}

// markdown is a text that is nothing but text.
func markdown(text string) string {
	var b strings.Builder
	for _, c := range printable(text) {
		if strings.ContainsRune("\\`*_[]<>|#~&", c) {
			b.WriteByte('\\')
		}
		b.WriteRune(c)
	}
	return b.String()
}

// code is a text in a fixed font. Where it has a backtick in it the fence is
// longer.
func code(text string) string {
	text = strings.ReplaceAll(printable(text), "|", `\|`)
	fence := "`"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	if len(fence) > 1 {
		text = " " + text + " "
	}
	return fmt.Sprintf("%s%s%s", fence, text, fence)
}
