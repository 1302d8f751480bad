package cutover

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// The pictures of the HTML report: what of a comparison they show, and where that is
// in the view boxes of report.html.

// Bounds of what a picture shows.
const (
	maxLags  = 201 // more points of a line would not be seen
	maxBars  = 96  // of the window
	maxMarks = 500 // of a lane: more would not be told apart
)

// spread returns all of a sorted list of lags, or maxLags of them.
func spread(sorted []moment) []float64 {
	n := len(sorted)
	out := make([]float64, min(n, maxLags))
	for i := range out {
		out[i] = secs(sorted[spreadFrom(i, n)])
	}
	return out
}

// spreadFrom is which of n lags is at place i of those that are shown.
func spreadFrom(i, n int) int {
	if n <= maxLags {
		return i
	}
	return min(n-1, i*n/(maxLags-1))
}

// fillPlots puts into a report what its pictures show.
func (c *comparison) fillPlots(r *Report) {
	p := &r.Plots
	p.Changes, p.Missed, p.Doubtful = []int{}, []Mark{}, []Mark{}
	var blind []stretch
	for _, g := range c.gaps {
		if g.Side == SidePoller {
			blind = append(blind, stretch{momentOf(g.From) + c.ahead, momentOf(g.To) + c.ahead})
		}
	}
	for i := range c.polls {
		if p := &c.polls[i]; Failure(c.text(p.failure)).Blind() {
			blind = append(blind, stretch{p.at + c.ahead, p.done + c.ahead})
		}
	}
	p.Blind, p.Down, p.Disabled = c.bands(union(blind)), c.bands(c.down), c.bands(c.disabled)
	if r.Window.Seconds <= 0 {
		return
	}
	p.Changes = make([]int, maxBars)
	for i := range r.Rows {
		row := &r.Rows[i]
		if row.Kind == ChangeSeen && row.Class != Unsettled && !row.UpdatedAt.IsZero() {
			if at := int(row.UpdatedAt.Sub(r.Window.From).Seconds() / r.Window.Seconds * maxBars); at >= 0 && at <= maxBars {
				p.Changes[min(at, maxBars-1)]++
			}
		}
		lane := &p.Missed
		switch weight := row.Class.Info().Weight; {
		case weight == Lost && (row.Kind == ChangeSeen || row.Kind == EventKnown):
		case weight == Doubt && !row.At.IsZero():
			lane = &p.Doubtful
		default:
			continue
		}
		if len(*lane) < maxMarks {
			*lane = append(*lane, Mark{row.At, row.String()})
		}
	}
}

// bands are the parts of stretches that are in the window, without those that the
// one before would cover.
func (c *comparison) bands(all []stretch) []Band {
	out := []Band{}
	whole := float64(c.settled - c.from)
	end := 0.0
	for _, o := range all {
		from, to := max(o.from, c.from), min(o.to, c.settled)
		if from > to || whole <= 0 {
			continue
		}
		if left := laneWidth * float64(from-c.from) / whole; left >= end {
			end = left + leastBand
			out = append(out, Band{c.time(from), c.time(to)})
		}
	}
	return out
}

// The lanes of the timeline, in the units of its view box.
const (
	laneLeft  = 130.0
	laneWidth = 855.0
	leastBand = 2.0 // what is shorter is drawn as wide
)

// label is a text at a place of an axis.
type label struct {
	At, Y        string
	Text, Anchor string
}

type box struct{ Class, X, Y, W, H, Title string }

type dot struct{ Class, X, Y, Title string }

type lagPlot struct {
	Label           string
	Shares, Times   []label
	Poller, Webhook string
}

type timeline struct {
	Label string
	Ticks []label
	Lanes []label
	Boxes []box
	Marks []dot
}

type barPlot struct {
	Label  string
	Saved  string // a day
	Lanes  []label
	Boxes  []box
	Values []label
}

func px(v float64) string { return fmt.Sprintf("%.1f", v) }

// plotLags draws the distributions of both lags, by the logarithm of time.
func (r *Report) plotLags() *lagPlot {
	if len(r.Plots.Poll) == 0 {
		return nil
	}
	const least = 0.001 // seconds
	most := max(r.Lag.Poll.Max, r.Lag.FirstByte.Max, 1)
	width := math.Log10(most/least) * 1.02
	x := func(seconds float64) float64 { return 50 + 935*math.Log10(max(seconds, least)/least)/width }
	y := func(share float64) float64 { return 215 - 200*share }
	p := &lagPlot{Label: fmt.Sprintf("Half of the changes are known after %s by the poller and %s by webhooks, 95 percent after %s and %s.",
		duration(r.Lag.Poll.Median), duration(r.Lag.FirstByte.Median), duration(r.Lag.Poll.P95), duration(r.Lag.FirstByte.P95))}
	for _, share := range []float64{0, 0.25, 0.5, 0.75, 1} {
		p.Shares = append(p.Shares, label{At: px(y(share)), Text: fmt.Sprintf("%.0f %%", share*100)})
	}
	for _, t := range []float64{0.001, 0.01, 0.1, 1, 10, 60, 600, 3600, 6 * 3600, 86400} {
		if t <= most {
			p.Times = append(p.Times, label{At: px(x(t)), Text: duration(t)})
		}
	}
	line := func(lags []float64, n int) string {
		var b strings.Builder
		fmt.Fprintf(&b, "%s,%s", px(x(least)), px(y(0)))
		last := 0.0
		for i, lag := range lags {
			at, share := x(lag), float64(spreadFrom(i, n)+1)/float64(n)
			fmt.Fprintf(&b, " %s,%s %s,%s", px(at), px(y(last)), px(at), px(y(share)))
			last = share
		}
		fmt.Fprintf(&b, " %s,%s", px(985), px(y(1)))
		return b.String()
	}
	p.Poller, p.Webhook = line(r.Plots.Poll, r.Lag.Poll.N), line(r.Plots.Webhook, r.Lag.FirstByte.N)
	return p
}

// Lanes of the timeline: from y, and how high.
const (
	laneChanges = 10.0
	laneBlind   = 92.0
	laneDown    = 118.0
	laneLost    = 150.0
	laneDoubt   = 176.0
)

// plotWindow draws what happened in the window.
func (r *Report) plotWindow() *timeline {
	w := r.Window
	if w.From.IsZero() || w.Seconds <= 0 {
		return nil
	}
	x := func(t time.Time) float64 {
		return laneLeft + laneWidth*min(max(t.Sub(w.From).Seconds()/w.Seconds, 0), 1)
	}
	p := &timeline{Label: fmt.Sprintf("%d changes between %s and %s; %d missed, %d unexplained.",
		r.Coverage.Changes, stamped(w.From), stamped(w.Settled), r.Coverage.Missed, r.Coverage.Doubtful)}
	layout := "Jan 2 15:04"
	if w.Seconds < 3600 {
		layout = "15:04:05"
	}
	for i := range 5 {
		at := w.From.Add(time.Duration(float64(i) / 4 * w.Seconds * float64(time.Second)))
		p.Ticks = append(p.Ticks, label{At: px(x(at)), Text: at.Format(layout), Anchor: []string{"start", "middle", "middle", "middle", "end"}[i]})
	}
	p.Lanes = []label{
		{At: px(laneChanges + 36), Text: "changes"}, {At: px(laneBlind + 9), Text: "poller blind"}, {At: px(laneDown + 9), Text: "receiver off"},
		{At: px(laneLost + 6), Text: "missed"}, {At: px(laneDoubt + 6), Text: "unexplained"},
	}
	p.Boxes = r.changeBars()
	for _, lane := range []struct {
		all   []Band
		y     float64
		class string
		what  string
	}{{r.Plots.Blind, laneBlind, "fp", "the poller was blind"}, {r.Plots.Down, laneDown, "fw", "the receiver was down"}, {r.Plots.Disabled, laneDown, "fb", "the webhook was disabled"}} {
		for _, o := range lane.all {
			p.Boxes = append(p.Boxes, box{
				Class: lane.class, X: px(x(o.From)), Y: px(lane.y), W: px(max(leastBand, x(o.To)-x(o.From))), H: "18",
				Title: fmt.Sprintf("%s for %s from %s on", lane.what, duration(o.To.Sub(o.From).Seconds()), o.From.UTC().Format("Jan 2 15:04:05")),
			})
		}
	}
	for _, m := range r.Plots.Missed {
		p.Marks = append(p.Marks, dot{Class: "fb", X: px(x(m.At)), Y: px(laneLost + 6), Title: m.Text})
	}
	for _, m := range r.Plots.Doubtful {
		p.Marks = append(p.Marks, dot{Class: "fo", X: px(x(m.At)), Y: px(laneDoubt + 6), Title: m.Text})
	}
	return p
}

// changeBars draws how many changes there were in each slice of the window.
func (r *Report) changeBars() []box {
	const high = 72.0
	most := 1
	for _, v := range r.Plots.Changes {
		most = max(most, v)
	}
	var out []box
	n := float64(len(r.Plots.Changes))
	for i, v := range r.Plots.Changes {
		if v == 0 {
			continue
		}
		h := high * float64(v) / float64(most)
		at := r.Window.From.Add(time.Duration(float64(i) / n * r.Window.Seconds * float64(time.Second)))
		out = append(out, box{
			Class: "fs", X: px(laneLeft + laneWidth*float64(i)/n), Y: px(laneChanges + high - h), W: px(laneWidth/n - 1), H: px(h),
			Title: fmt.Sprintf("%s from %s on", plural(v, "change", "changes"), at.Format("Jan 2 15:04")),
		})
	}
	return out
}

// plotRequests draws how many requests both sides took.
func (r *Report) plotRequests() *barPlot {
	q := r.Requests
	if q.Polls == 0 {
		return nil
	}
	hooks := q.Webhook + q.Refetches
	whole := float64(max(q.Polls, hooks, 1))
	wide := func(n int) float64 { return 650 * float64(n) / whole }
	p := &barPlot{Saved: count(int(q.SavedPerDay + 0.5)), Label: fmt.Sprintf("%d polls, %d of them of use; %d webhook requests and %d refetches.", q.Polls, q.Useful, q.Webhook, q.Refetches)}
	p.Lanes = []label{{At: "24", Text: "poller"}, {At: "68", Text: "webhook"}}
	p.Boxes = []box{
		{Class: "fs", X: "130", Y: "8", W: px(wide(q.Polls)), H: "32", Title: plural(q.Polls, "poll", "polls")},
		{Class: "fp", X: "130", Y: "8", W: px(max(1, wide(q.Useful))), H: "32", Title: plural(q.Useful, "poll", "polls") + " that showed a change"},
		{Class: "fw", X: "130", Y: "52", W: px(max(1, wide(hooks))), H: "32", Title: plural(hooks, "request", "requests")},
	}
	p.Values = []label{
		{At: px(138 + wide(q.Polls)), Y: "24", Text: fmt.Sprintf("%s, %s of use", count(q.Polls), percent(q.UsefulShare))},
		{At: px(138 + wide(hooks)), Y: "68", Text: count(hooks)},
	}
	return p
}
