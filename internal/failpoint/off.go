//go:build !failpoint

package failpoint

// Enabled says whether points can act in this build.
const Enabled = false

// Hit does nothing and is compiled away.
func Hit(Point) error { return nil }
