// Package e2e tests the program as its users meet it: the real binary as a
// process, integrations in four languages, kill -9 and signals. It knows the service
// only by its command line, its API and what arrives at receivers; rules and
// formats are tested in the packages that own them.
//
// It needs node and the modules of package-lock.json (make e2e installs them).
// What it takes from the pages in docs needs python3, php, curl and jq besides.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// patience bounds every wait for something that has to happen. It is long
// because the machine may be busy; no test waits for it when all is well.
const patience = 30 * time.Second

// binary is the program under test. TestMain builds it once.
var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "ticketwire-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "ticketwire")
	build := exec.Command("go", "build", "-o", binary, "github.com/ticketwire/ticketwire/cmd/ticketwire")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the program:", err)
		return 1
	}
	return m.Run()
}
