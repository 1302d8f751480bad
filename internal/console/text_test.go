package console

import (
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/store"
)

func TestCleanTextsAreHarmless(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain äöü 漢字 🙂":       "plain äöü 漢字 🙂",
		"a\tb\nc":              "a\tb\nc",
		"\x00\x1b[31m\x7f":     "␀␛[31m␡",
		"a\u202egnp.exe\u202c": "a�gnp.exe�",
		"\u2066\u200f\u061c":   "���",
		"a\u2028b\u0085":       "a�b�",
		"עברית":                "עברית", // letters keep their direction, see bdi
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestDistances(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for d, want := range map[time.Duration]string{
		0: "just now", 900 * time.Millisecond: "just now", -900 * time.Millisecond: "just now",
		time.Second: "1 s ago", 59 * time.Second: "59 s ago", 61 * time.Second: "1 min 1 s ago", 20*time.Minute + 5*time.Second: "20 min ago",
		-90 * time.Minute: "in 1 h 30 min", 12*time.Hour + 5*time.Minute: "12 h ago", 50 * time.Hour: "2 d 2 h ago", 500 * time.Hour: "20 d ago",
	} {
		if got := distance(now.Add(-d), now); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
	for n, want := range map[any]string{0: "0", 999: "999", 1000: "1,000", int64(-1234567): "-1,234,567", int64(-100): "-100"} {
		if got := num(n); got != want {
			t.Errorf("num(%v) = %q, want %q", n, got, want)
		}
	}
	for share, want := range map[float64]string{0: "0 %", 1: "100 %", 0.99999: "99.9 %", 0.5: "50 %", 0.9999: "99.9 %", 0.123: "12.3 %"} {
		if got := percent(share); got != want {
			t.Errorf("percent(%v) = %q, want %q", share, got, want)
		}
	}
}

func TestPageNumber(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"": 1, "x": 1, "-1": 1, "0": 1, "1": 1, "2": 2, "1000000": 1_000_000, "1000001": 1} {
		if got := pageNumber(text); got != want {
			t.Errorf("page %q is %d, want %d", text, got, want)
		}
	}
}

func TestQuantiles(t *testing.T) {
	t.Parallel()
	var b bin
	if _, ok := b.quantile(.5); ok {
		t.Error("nothing has a median")
	}
	b.Latency[0], b.Latency[3] = 50, 50 // below 10 ms, and from 50 to 100 ms
	for share, want := range map[float64]float64{.25: 5, .5: 10, .75: 75, 1: 100} {
		if got, ok := b.quantile(share); !ok || got != want {
			t.Errorf("quantile %v = %v, want %v", share, got, want)
		}
	}
	var slow bin
	slow.Latency[len(slow.Latency)-1] = 1
	if got, _ := slow.quantile(.5); got < 10_000 {
		t.Errorf("the open class gives %v", got)
	}
}

func TestBins(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	minute := func(ago int, n int64) store.Minute {
		return store.Minute{Start: now.Truncate(time.Minute).Add(-time.Duration(ago) * time.Minute), Delivered: n}
	}
	bins := binsOf([]store.Minute{minute(70, 1), minute(59, 2), minute(1, 4), minute(0, 8), minute(-1, 16)}, now, time.Minute, 60)
	if bins[0].Delivered != 2 || bins[58].Delivered != 4 || bins[59].Delivered != 8 || sum(bins).Delivered != 14 {
		t.Errorf("%+v", bins)
	}
	c := rates(bins, time.Minute, "15:04")
	if c.Empty || len(c.Bars) != 3 || c.Bars[2].Y >= c.Bars[1].Y {
		t.Errorf("%+v", c)
	}
	if !rates(binsOf(nil, now, time.Minute, 60), time.Minute, "15:04").Empty || !latencies(binsOf(nil, now, time.Minute, 60), "15:04").Empty {
		t.Error("a chart of nothing is not empty")
	}
}
