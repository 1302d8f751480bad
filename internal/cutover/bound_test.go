package cutover

import (
	"fmt"
	"math"
	"testing"
)

func TestMissBound(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		missed, n int
		want      string
	}{
		{0, 20, "13.91"}, {0, 50, "5.82"}, {0, 100, "2.95"}, {0, 299, "1.00"}, {0, 500, "0.60"}, {0, 1000, "0.30"}, {1, 300, "1.57"},
		{3, 3, "100.00"}, {0, 0, "100.00"}, {0, 1, "95.00"}, {10, 1000, "1.69"}, {2, 1_000_000, "0.00"},
	} {
		if got := fmt.Sprintf("%.2f", 100*missBound(tt.missed, tt.n)); got != tt.want {
			t.Errorf("%d of %d: at most %s %%, want %s", tt.missed, tt.n, got, tt.want)
		}
	}
	// The bound is where so few are missed in one of twenty windows.
	for _, missed := range []int{0, 1, 7, 60} {
		if p := atMost(missed, 400, missBound(missed, 400)); math.Abs(p-0.05) > 1e-9 {
			t.Errorf("%d of 400: %g", missed, p)
		}
	}
}

func TestCleanNeeded(t *testing.T) {
	t.Parallel()
	for rate, want := range map[float64]int{0.01: 299, 0.005: 598, 0.05: 59, 0.1: 29, 0.5: 5, 1: 1} {
		n := cleanNeeded(rate)
		if n != want || missBound(0, n) > rate+1e-9 || rate < 1 && missBound(0, n-1) <= rate {
			t.Errorf("for %g: %d, want %d", rate, n, want)
		}
	}
}
