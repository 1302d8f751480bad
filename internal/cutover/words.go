package cutover

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// How the reports write numbers.

// plural is a number and its noun.
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return count(n) + " " + many
}

// count writes a number with a comma between thousands.
func count(n int) string {
	s := strconv.Itoa(n)
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}

// percent writes a share with two or three digits. What is not all is never 100.
func percent(share float64) string {
	p := share * 100
	switch {
	case share >= 1 || share <= 0:
		return strconv.FormatFloat(p, 'f', 0, 64) + " %"
	case p > 99.9:
		return strconv.FormatFloat(math.Floor(p*1000)/1000, 'f', -1, 64) + " %"
	case p >= 10:
		return strconv.FormatFloat(p, 'f', 1, 64) + " %"
	default:
		return strconv.FormatFloat(p, 'f', 2, 64) + " %"
	}
}

// duration writes seconds in the unit that fits.
func duration(seconds float64) string {
	d := math.Abs(seconds)
	switch {
	case d == 0:
		return "0 s"
	case d < 0.001:
		return fmt.Sprintf("%.0f µs", seconds*1e6)
	case d < 1:
		return fmt.Sprintf("%.0f ms", seconds*1e3)
	case d < 10:
		return fmt.Sprintf("%.1f s", seconds)
	case d < 120:
		return fmt.Sprintf("%.0f s", seconds)
	case d < 2*3600:
		return fmt.Sprintf("%.0f min", seconds/60)
	case d < 48*3600:
		return fmt.Sprintf("%.1f h", seconds/3600)
	default:
		return fmt.Sprintf("%.1f d", seconds/86400)
	}
}

func days(n float64) string {
	switch {
	case n < 0.1:
		return duration(n * 86400)
	case n < 10:
		return fmt.Sprintf("%.1f days", n)
	default:
		return fmt.Sprintf("%.0f days", n)
	}
}

// stamped writes a time to the minute.
func stamped(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04Z")
}
