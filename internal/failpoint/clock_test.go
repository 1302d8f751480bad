//go:build failpoint

package failpoint

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestSetClock(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, d := range []time.Duration{0, time.Second, -time.Second, 2 * time.Hour, -2 * time.Hour, 24 * 365 * time.Hour} {
		then := set(now, d)
		if got := time.Duration(then.UnixNano() - now.UnixNano()); got != d {
			t.Errorf("the wall clock moved by %s, want %s", got, d)
		}
		if got := then.Sub(now); got != 0 {
			t.Errorf("with %s, %s have passed", d, got)
		}
		if got := then.Add(time.Minute).Sub(now); got != time.Minute {
			t.Errorf("with %s, a minute later %s have passed", d, got)
		}
	}
}

func TestClockFollowsItsFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "clock")
	t.Setenv("TICKETWIRE_FAILPOINT_CLOCK", name)
	fixed := time.Now()
	clock := Clock(func() time.Time { return fixed })
	for _, text := range []string{"", "2h\n", "-30m", "0"} {
		want := time.Duration(0)
		if text != "" {
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			want = map[string]time.Duration{"2h\n": 2 * time.Hour, "-30m": -30 * time.Minute}[text]
		}
		if got := time.Duration(clock().UnixNano() - fixed.UnixNano()); got != want {
			t.Errorf("%q moves the clock by %s, want %s", text, got, want)
		}
	}
}
