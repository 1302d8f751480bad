package crash

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Case 11, the database: its last bytes are gone. Either they meant nothing, and
// every change is there; or the server refuses to start and says why, and so does
// the command that checks. The log is another matter, see docs/reliability.md.
func TestDatabaseCutShort(t *testing.T) {
	t.Parallel()
	d := openDesk(t)
	l := startLoad(t, d, 400)
	l.reach(t, 300)
	l.end()
	want := d.feed(t)
	d.terminate(t) // the log is moved into the database
	file := filepath.Join(d.dir, "ticketwire.db")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	cuts := []int{0, 1, 4096}
	for range form(6, 100) {
		cuts = append(cuts, 1+rand.IntN(4096))
	}
	harmless := 0
	for _, n := range cuts {
		for _, name := range []string{file + "-wal", file + "-shm"} {
			if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(file, whole[:len(whole)-n], 0o600); err != nil {
			t.Fatal(err)
		}
		check := exec.CommandContext(t.Context(), normal, "check", "--data", d.dir)
		check.Env = environment("")
		out, checkErr := check.CombinedOutput()
		cut := d.restored(d.dir)
		startErr := cut.tryStart(t, "")
		switch {
		case startErr != nil && checkErr != nil:
			for _, said := range []string{string(out), startErr.Error()} {
				if !strings.Contains(said, "damaged") && !strings.Contains(said, "malformed") {
					t.Errorf("%d bytes are gone, and it is refused with %q", n, said)
				}
			}
		case startErr == nil && checkErr == nil && string(out) == "ok\n":
			harmless++
			if got := cut.feed(t); !slices.Equal(got, want) {
				t.Errorf("%d bytes are gone, and the feed has %d events of %d", n, len(got), len(want))
			}
			cut.kill(t)
		default:
			t.Errorf("%d bytes are gone: the check says %q, the start %v", n, out, startErr)
		}
		if n == 0 && startErr != nil {
			t.Fatalf("the whole database is refused: %v", startErr)
		}
	}
	t.Logf("%d cuts, %d of them harmless", len(cuts)-1, harmless-1)
}
