//go:build failpoint

package failpoint

import (
	"fmt"
	"os"
	"strings"
	"time"
	"unsafe" //nolint:depguard // nothing else can set the one clock of a time and not the other; see set
)

// Clock returns a clock that is ahead of now, or behind it, by what the file says
// that TICKETWIRE_FAILPOINT_CLOCK names, such as -2h30m: whole seconds, 0 while
// there is no such file. The file is read again each time, so that a test can set
// the clock of a running process.
func Clock(now func() time.Time) func() time.Time {
	name := os.Getenv("TICKETWIRE_FAILPOINT_CLOCK")
	if name == "" {
		return now
	}
	return func() time.Time {
		text, err := os.ReadFile(name) //nolint:gosec // the test names its own file
		if os.IsNotExist(err) {
			return now()
		}
		var d time.Duration
		if err == nil {
			d, err = time.ParseDuration(strings.TrimSpace(string(text)))
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "TICKETWIRE_FAILPOINT_CLOCK=%s: %v\n", name, err)
			os.Exit(2) //nolint:forbidigo // as for a rule that cannot be read
		}
		return set(now(), d)
	}
}

// set moves what the clock on the wall shows and leaves the monotonic reading
// alone, as the kernel does when somebody sets a clock; Add would move both, and
// a program that measures with the one what it should measure with the other
// would get away with it. A time with a monotonic reading begins with a word of
// seconds above 30 bits of nanoseconds; TestSetClock would notice another layout.
func set(t time.Time, d time.Duration) time.Time {
	wall := (*uint64)(unsafe.Pointer(&t)) //nolint:gosec // see above; in builds for tests only
	*wall += uint64(int64(d/time.Second) << 30)
	return t
}
