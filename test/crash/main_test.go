// Package crash tests the one promise that everything else stands on: what was
// acknowledged arrives, whatever happens to the process, its disk, its store or
// its receivers. It runs the real program, ends it with kill -9 at random and at
// exact moments, cuts its power in simulation, and compares the ledger of what
// was acknowledged with what the receivers have got.
//
// The short form runs with every build in about a minute. The long form has the
// numbers of docs/reliability.md and takes about a quarter of an hour:
//
//	go test ./test/crash
//	go test ./test/crash -long -timeout 60m
//	go test ./test/crash -run TestRandomFaults -seconds 600 -seed 42
//
// All load is on the loopback and bounded, and every process that is killed was
// started here. Formats and commands are the business of test/e2e, rules that of
// the packages that own them.
package crash

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

var (
	long    = flag.Bool("long", false, "run with the full numbers")
	seconds = flag.Int("seconds", 0, "how long TestRandomFaults makes trouble; 0: 12, and 120 with -long")
	seed    = flag.Uint64("seed", 0, "what TestRandomFaults does; 0: something new")
)

// normal is the program as it is shipped, faulty the same with failpoints.
// TestMain builds both.
var normal, faulty string

// atOnce is how many cases run beside each other. Nearly all of their time they
// wait for a clock, so it has nothing to do with the number of cores.
const atOnce = "6"

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", atOnce); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	dir, err := os.MkdirTemp("", "ticketwire-crash-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	normal, faulty = filepath.Join(dir, "ticketwire"), filepath.Join(dir, "ticketwire-faulty")
	for _, args := range [][]string{{"-o", normal}, {"-tags", "failpoint", "-o", faulty}} {
		args = append([]string{"build", "-trimpath", "-ldflags=-s -w"}, args...)
		build := exec.Command("go", append(args, "github.com/ticketwire/ticketwire/cmd/ticketwire")...)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		if err := build.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "build the program:", err)
			return 1
		}
	}
	return m.Run()
}

// form chooses between the two forms.
func form[T any](short, full T) T {
	if *long {
		return full
	}
	return short
}

// patience bounds every wait for something that has to happen. It is long
// because the machine may be busy; no test waits for it when all is well.
const patience = time.Minute

// eventually asks until ok is true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	within(t, patience, what, ok)
}

func within(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	over := time.After(limit)
	for !ok() {
		select {
		case <-tick.C:
		case <-over:
			t.Fatalf("waited %s in vain: %s", limit, what)
		}
	}
}

// pause waits for real time to pass, where the case itself is about time.
func pause(d time.Duration) { <-time.After(d) }
