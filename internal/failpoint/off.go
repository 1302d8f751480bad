//go:build !failpoint

package failpoint

import "time"

// Enabled says whether points can act in this build.
const Enabled = false

// Hit does nothing and is compiled away.
func Hit(Point) error { return nil }

// Clock returns now.
func Clock(now func() time.Time) func() time.Time { return now }
