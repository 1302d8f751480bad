package cutover

import "math"

// missBound is the exact one-sided 95 % upper bound (Clopper and Pearson) on the
// share of changes that are missed, after n changes of which missed were: the
// share at which so few would be missed in one of twenty such windows. It is 1
// without changes.
func missBound(missed, n int) float64 {
	if n <= 0 || missed >= n {
		return 1
	}
	low, high := float64(missed)/float64(n), 1.0
	for range 100 {
		mid := (low + high) / 2
		if atMost(missed, n, mid) > 0.05 {
			low = mid
		} else {
			high = mid
		}
	}
	return high
}

// atMost is the probability that at most k of n are missed, each with p.
func atMost(k, n int, p float64) float64 {
	lgN, _ := math.Lgamma(float64(n) + 1)
	sum := 0.0
	for i := range k + 1 {
		a, _ := math.Lgamma(float64(i) + 1)
		b, _ := math.Lgamma(float64(n-i) + 1)
		sum += math.Exp(lgN - a - b + float64(i)*math.Log(p) + float64(n-i)*math.Log1p(-p))
	}
	return sum
}

// cleanNeeded is how many changes, none of them missed, bring the bound down to
// rate.
func cleanNeeded(rate float64) int {
	if rate >= 1 {
		return 1
	}
	// 0.05 = (1 - rate)^n; the margin is for rounding only.
	return int(math.Ceil(math.Log(0.05)/math.Log1p(-rate) - 1e-9))
}
