package crash

import (
	"bytes"
	"os"
	"testing"
)

// The program that is shipped has no failpoints: not the variable that arms
// them or sets the clock, not the code that reads it, not one name of a point. What is not there
// costs nothing.
func TestNormalBuildHasNoFailpoints(t *testing.T) {
	t.Parallel()
	for _, word := range []string{"TICKETWIRE_FAILPOINTS", "TICKETWIRE_FAILPOINT_CLOCK", "internal/failpoint", "store.committed"} {
		for binary, want := range map[string]bool{normal: false, faulty: true} {
			text, err := os.ReadFile(binary)
			if err != nil {
				t.Fatal(err)
			}
			if got := bytes.Contains(text, []byte(word)); got != want {
				t.Errorf("%s has %q: %t, want %t", binary, word, got, want)
			}
		}
	}
}
