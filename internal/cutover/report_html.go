package cutover

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
)

// page is the report.html that WriteHTML fills.
//
//go:embed report.html
var page string

// htmlReport is a report as the page takes it.
type htmlReport struct {
	*Report
	Title, Period, Sentence string
	Tone                    string
	Tiles                   []tile
	Findings                []findings
	Comparison              [][3]string
	Facts                   [][2]string
	Counted                 []counted
	LagPlot                 *lagPlot
	Timeline                *timeline
	RequestPlot             *barPlot
}

type tile struct{ Name, Value, Note, Tone string }

type findings struct {
	Name, Tone string
	All        []Finding
}

// counted is one line of the table of classes.
type counted struct {
	ClassInfo
	Tone                             string
	Changes, Events, Receipts, Other string
	Samples                          []string
}

// WriteHTML writes the report as one page that needs nothing else: no script, no
// font, no picture from elsewhere.
func (r *Report) WriteHTML(w io.Writer) error { return r.writePage(w, "report") }

// WriteSections writes what the page has below its title, for a page that has a
// style and a title of its own. There is neither script nor style in it.
func (r *Report) WriteSections(w io.Writer) error { return r.writePage(w, "sections") }

func (r *Report) writePage(w io.Writer, name string) error {
	t, err := template.New("report").Funcs(template.FuncMap{"duration": duration, "stamped": stamped, "text": printable}).Parse(page)
	if err != nil {
		return fmt.Errorf("the page of the report: %w", err)
	}
	return t.ExecuteTemplate(w, name, &htmlReport{
		Report: r, Title: r.title(), Period: r.Period(), Sentence: sentence(r.Headline), Tone: r.Outcome.Tone(), Tiles: r.tiles(),
		Findings: []findings{
			{"Must be put right", "bad", r.Blockers}, {"Not proved yet", "warn", r.Unproved}, {"To know", "good", r.Notes},
		},
		Comparison: r.comparison(), Facts: r.facts(), Counted: r.counted(),
		LagPlot: r.plotLags(), Timeline: r.plotWindow(), RequestPlot: r.plotRequests(),
	})
}

// Tone is how good the outcome is: good, warn or bad.
func (o Outcome) Tone() string {
	switch o {
	case Go, GoWithReconciler:
		return "good"
	case Extend:
		return "warn"
	default:
		return "bad"
	}
}

// tiles are the figures at the top.
func (r *Report) tiles() []tile {
	bad := func(n int) string {
		if n > 0 {
			return "bad"
		}
		return ""
	}
	c := r.Coverage
	out := []tile{
		{"compared changes", count(c.Eligible), fmt.Sprintf("of %s needed", count(c.Needed)), ""},
		{"missed", count(c.Missed + c.Events), "at most " + percent(c.MissBound) + " of changes", bad(c.Missed + c.Events)},
		{"mismatched", count(c.Mismatched), "payload and poll differ", bad(c.Mismatched)},
		{"unexplained", count(c.Doubtful), "block the cutover", bad(c.Doubtful)},
	}
	if r.Lag.Gain.N > 0 {
		out = append(out, tile{"earlier by", duration(r.Lag.Gain.Median), "in the median", ""})
	}
	if r.Requests.Polls > 0 {
		out = append(out, tile{"saved requests", count(int(r.Requests.SavedPerDay + 0.5)), "a day" + limitShare(r.Requests), ""})
	}
	return out
}

func (r *Report) counted() []counted {
	const samples = 5
	var out []counted
	for i := range r.Classes {
		c := &r.Classes[i]
		if c.Total == 0 {
			continue
		}
		n, e, k := c.Kinds[ChangeSeen], c.Kinds[EventKnown], c.Kinds[CopyGot]
		row := counted{
			ClassInfo: c.Class.Info(), Changes: count(n), Events: count(e), Receipts: count(k), Other: count(c.Total - n - e - k),
			Tone: map[Weight]string{Lost: "bad", Mismatch: "bad", Misset: "bad", Alarm: "bad", Doubt: "bad", Exposed: "warn", ByDesign: "warn"}[c.Weight],
		}
		if row.Tone == "" {
			row.Tone = "good"
		}
		if c.Class != Unsettled && c.Weight != Good {
			for _, s := range c.Samples[:min(samples, len(c.Samples))] {
				row.Samples = append(row.Samples, s.String())
			}
		}
		out = append(out, row)
	}
	return out
}
