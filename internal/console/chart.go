package console

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/internal/store"
)

// The plane of a chart, in the units of its viewBox.
const (
	chartWidth, chartHeight = 480.0, 176.0
	chartLeft, chartRight   = 46.0, 478.0
	chartTop, chartBottom   = 10.0, 150.0
	plotWidth, plotHeight   = chartRight - chartLeft, chartBottom - chartTop
)

// bin is the traffic of one stretch of time.
type bin struct {
	Start time.Time
	store.Minute
}

// binsOf sorts minutes into n bins of a width that end with now.
func binsOf(minutes []store.Minute, now time.Time, width time.Duration, n int) []bin {
	bins := make([]bin, n)
	first := now.UTC().Truncate(width).Add(-time.Duration(n-1) * width)
	for i := range bins {
		bins[i].Start = first.Add(time.Duration(i) * width)
	}
	for _, m := range minutes {
		i := int(m.Start.Sub(first) / width)
		if m.Start.Before(first) || i >= n {
			continue
		}
		bins[i].Delivered += m.Delivered
		bins[i].Failed += m.Failed
		for c, k := range m.Latency {
			bins[i].Latency[c] += k
		}
	}
	return bins
}

// sum is all bins in one.
func sum(bins []bin) (all bin) {
	for _, b := range bins {
		all.Delivered += b.Delivered
		all.Failed += b.Failed
		for c, k := range b.Latency {
			all.Latency[c] += k
		}
	}
	return all
}

// quantile is the duration in milliseconds that a share of the attempts stays
// below, taken as evenly spread within its class. ok is false without attempts.
func (b *bin) quantile(share float64) (ms float64, ok bool) {
	var total int64
	for _, n := range b.Latency {
		total += n
	}
	if total == 0 {
		return 0, false
	}
	rank, low := share*float64(total), 0.0
	for c, bound := range store.LatencyBounds() {
		n := float64(b.Latency[c])
		if rank <= n && n > 0 {
			return low + (float64(bound)-low)*rank/n, true
		}
		rank, low = rank-n, float64(bound)
	}
	return low + 2*low*rank/float64(b.Latency[len(b.Latency)-1]), true // the open class, taken as three times as wide
}

// mark is a line of the grid with its label.
type mark struct {
	At   float64
	Text string
}

// chart is a picture that the template draws.
type chart struct {
	Label        string // for who does not see it
	Rows, Times  []mark
	Bars         []bar
	P50, P95     string // points of the lines
	Dots50       []dot  // of stretches without neighbours
	Dots95       []dot
	Empty        bool
	Width        float64
	Height       float64
	Left, Right  float64
	Bottom, Text float64
}

// bar is a rectangle.
type bar struct {
	X, Y, W, H float64
	Kind       string
}

type dot struct{ X, Y float64 }

func newChart(bins []bin, layout string) chart {
	c := chart{Width: chartWidth, Height: chartHeight, Left: chartLeft, Right: chartRight, Bottom: chartBottom, Text: chartBottom + 18}
	step := max(1, len(bins)/4)
	for i := 0; i < len(bins); i += step {
		c.Times = append(c.Times, mark{round(x(i, len(bins))), bins[i].Start.Format(layout)})
	}
	return c
}

func x(i, n int) float64 { return chartLeft + plotWidth*float64(i)/float64(n) }

func round(f float64) float64 { return math.Round(f*10) / 10 }

// nice is the smallest round number that is not below f.
func nice(f float64) float64 {
	if f <= 0 {
		return 1
	}
	base := math.Pow(10, math.Floor(math.Log10(f)))
	for _, m := range []float64{1, 2, 5, 10} {
		if f <= m*base {
			return m * base
		}
	}
	return 10 * base
}

// grid draws the lines of an axis that ends at top.
func (c *chart) grid(top float64, label func(float64) string) {
	for i := range 3 {
		c.Rows = append(c.Rows, mark{round(chartBottom - plotHeight*float64(i)/2), label(top * float64(i) / 2)})
	}
}

// milliseconds writes a duration in its usual unit.
func milliseconds(ms float64) string {
	if ms >= 1000 {
		return trimmed(ms/1000) + " s"
	}
	return trimmed(ms) + " ms"
}

func trimmed(f float64) string {
	switch {
	case f >= 10_000:
		return trimmed(f/1000) + "k"
	case f >= 10:
		return fmt.Sprintf("%.0f", f)
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", f), ".0")
}

// rates draws delivered and failed attempts per minute.
func rates(bins []bin, width time.Duration, layout string) chart {
	c := newChart(bins, layout)
	highest := 0.0
	minutes := width.Minutes()
	for _, b := range bins {
		highest = max(highest, float64(b.Delivered+b.Failed)/minutes)
	}
	all := sum(bins)
	c.Empty = all.Delivered+all.Failed == 0
	c.Label = fmt.Sprintf("Attempts per minute: %d delivered and %d failed in all, at most %s per minute", all.Delivered, all.Failed, trimmed(highest))
	top := max(2, nice(highest))
	c.grid(top, trimmed)
	w := plotWidth/float64(len(bins)) - 1.2
	for i, b := range bins {
		y := chartBottom
		for _, part := range []struct {
			n    int64
			kind string
		}{{b.Delivered, "good"}, {b.Failed, "bad"}} {
			if part.n == 0 {
				continue
			}
			h := max(1.5, plotHeight*float64(part.n)/minutes/top)
			y -= h
			c.Bars = append(c.Bars, bar{round(x(i, len(bins))), round(y), round(w), round(h), part.kind})
		}
	}
	return c
}

// latencies draws the median and the 95th percentile of how long attempts took.
func latencies(bins []bin, layout string) chart {
	c := newChart(bins, layout)
	highest := 0.0
	for i := range bins {
		p, _ := bins[i].quantile(.95)
		highest = max(highest, p)
	}
	all := sum(bins)
	p50, ok := all.quantile(.5)
	p95, _ := all.quantile(.95)
	c.Empty = !ok
	c.Label = fmt.Sprintf("How long attempts took: half of them less than %s, 95 percent less than %s", milliseconds(p50), milliseconds(p95))
	top := max(10, nice(highest))
	c.grid(top, milliseconds)
	c.P50, c.Dots50 = line(bins, .5, top)
	c.P95, c.Dots95 = line(bins, .95, top)
	return c
}

// line is a quantile over time. Bins without attempts are passed over.
func line(bins []bin, share, top float64) (points string, dots []dot) {
	var b strings.Builder
	for i := range bins {
		p, ok := bins[i].quantile(share)
		if !ok {
			continue
		}
		d := dot{round(x(i, len(bins)) + plotWidth/float64(len(bins))/2), round(chartBottom - plotHeight*min(p, top)/top)}
		fmt.Fprintf(&b, "%g,%g ", d.X, d.Y)
		dots = append(dots, d)
	}
	if len(dots) > 1 {
		dots = nil
	}
	return b.String(), dots
}
