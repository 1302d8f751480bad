//go:build !failpoint

package failpoint

import "testing"

// What a point costs in a normal build: as much as the empty loop. That nothing
// of the package is left in the program is tested in test/crash.
func BenchmarkHit(b *testing.B) {
	for b.Loop() {
		if err := Hit(StoreCommit); err != nil {
			b.Fatal(err)
		}
	}
}

func TestPointsDoNothingInANormalBuild(t *testing.T) {
	t.Setenv("TICKETWIRE_FAILPOINTS", string(StoreCommit)+"=panic")
	if err := Hit(StoreCommit); err != nil || Enabled {
		t.Errorf("Hit returned %v, Enabled is %t", err, Enabled)
	}
}
