package main

import (
	"testing"
	"time"
)

// The clock of the process stands still while the machine sleeps; the wall clock
// tells.
func TestAsleep(t *testing.T) {
	t.Parallel()
	last := time.Date(2026, 3, 9, 8, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		last    time.Time
		passed  time.Duration
		planned time.Duration
		want    time.Duration
	}{
		{last, 2 * time.Second, 2 * time.Second, 0},
		{last, 11 * time.Second, 2 * time.Second, 0},
		{last, 12 * time.Second, 2 * time.Second, 12 * time.Second},
		{last, 3 * time.Hour, 2 * time.Second, 3 * time.Hour},
		{last, time.Minute, time.Minute, 0},
		{last, -time.Hour, time.Second, 0}, // the clock was set back
		{time.Time{}, time.Hour, time.Second, 0},
	} {
		if got := asleep(tt.last, last.Add(tt.passed), tt.planned); got != tt.want {
			t.Errorf("asleep after %s, planned %s, = %s, want %s", tt.passed, tt.planned, got, tt.want)
		}
	}
}
