package cutover

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// The pictures of the HTML report, as coordinates in the view boxes of
// report.html.

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
	if len(r.plots.poll) == 0 {
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
	line := func(sorted []moment) string {
		const points = 200
		var b strings.Builder
		fmt.Fprintf(&b, "%s,%s", px(x(least)), px(y(0)))
		last := 0.0
		for i := range points + 1 {
			n := min(len(sorted)-1, i*len(sorted)/points)
			at, share := x(secs(sorted[n])), float64(n+1)/float64(len(sorted))
			fmt.Fprintf(&b, " %s,%s %s,%s", px(at), px(y(last)), px(at), px(y(share)))
			last = share
		}
		fmt.Fprintf(&b, " %s,%s", px(985), px(y(1)))
		return b.String()
	}
	p.Poller, p.Webhook = line(r.plots.poll), line(r.plots.hook)
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
		return 130 + 855*min(max(t.Sub(w.From).Seconds()/w.Seconds, 0), 1)
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
		all   []stretch
		y     float64
		class string
		what  string
	}{{r.plots.blind, laneBlind, "fp", "the poller was blind"}, {r.plots.down, laneDown, "fw", "the receiver was down"}, {r.plots.disabled, laneDown, "fb", "the webhook was disabled"}} {
		p.Boxes = append(p.Boxes, r.bands(lane.all, lane.y, lane.class, lane.what)...)
	}
	const most = 500 // marks of a lane: more would not be told apart
	drawn := map[float64]int{}
	for i := range r.Rows {
		row := &r.Rows[i]
		y, class := laneLost+6, "fb"
		switch weight := row.Class.Info().Weight; {
		case weight == Lost && (row.Kind == ChangeSeen || row.Kind == EventKnown):
		case weight == Doubt && !row.At.IsZero():
			y, class = laneDoubt+6, "fo"
		default:
			continue
		}
		if drawn[y]++; drawn[y] <= most {
			p.Marks = append(p.Marks, dot{Class: class, X: px(x(row.At)), Y: px(y), Title: row.String()})
		}
	}
	return p
}

// changeBars draws how many changes there were in each slice of the window.
func (r *Report) changeBars() []box {
	const slices, high = 96, 72.0
	var n [slices]int
	most := 1
	for i := range r.Rows {
		row := &r.Rows[i]
		if row.Kind != ChangeSeen || row.Class == Unsettled || row.UpdatedAt.IsZero() {
			continue
		}
		at := int(row.UpdatedAt.Sub(r.Window.From).Seconds() / r.Window.Seconds * slices)
		if at >= 0 && at <= slices {
			at = min(at, slices-1)
			n[at]++
			most = max(most, n[at])
		}
	}
	var out []box
	each := r.Window.Seconds / slices
	for i, v := range n {
		if v == 0 {
			continue
		}
		h := high * float64(v) / float64(most)
		at := r.Window.From.Add(time.Duration(float64(i) * each * float64(time.Second)))
		out = append(out, box{
			Class: "fs", X: px(130 + 855*float64(i)/slices), Y: px(laneChanges + high - h), W: px(855.0/slices - 1), H: px(h),
			Title: fmt.Sprintf("%s from %s on", plural(v, "change", "changes"), at.Format("Jan 2 15:04")),
		})
	}
	return out
}

// bands draws stretches of time, at least two pixels wide.
func (r *Report) bands(all []stretch, y float64, class, what string) []box {
	var out []box
	whole := float64(r.plots.settled - r.plots.from)
	end := 0.0
	for _, o := range all {
		from, to := max(o.from, r.plots.from), min(o.to, r.plots.settled)
		if from > to || whole <= 0 {
			continue
		}
		left := 130 + 855*float64(from-r.plots.from)/whole
		wide := max(2, 855*float64(to-from)/whole)
		if left < end { // is under the one before
			continue
		}
		end = left + 2
		out = append(out, box{Class: class, X: px(left), Y: px(y), W: px(wide), H: "18",
			Title: fmt.Sprintf("%s for %s from %s on", what, duration(secs(to-from)), time.UnixMicro(from).UTC().Format("Jan 2 15:04:05"))})
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
