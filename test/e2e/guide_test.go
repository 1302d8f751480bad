package e2e

import (
	"go/format"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// block is a fenced block of a page in docs whose info string gives it a name:
// name=FILE is a file that the reader saves, run=STEP is a command that he runs.
type block struct{ kind, name, text string }

// fence finds the blocks that have a name. The others are not for the tests.
var fence = regexp.MustCompile("(?ms)^```[a-z]+ (name|run)=(\\S+)\n(.*?)^```$")

// page returns the named blocks of a page, in order.
func page(t *testing.T, name string) []block {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	var blocks []block
	seen := map[string]bool{}
	for _, m := range fence.FindAllStringSubmatch(string(text), -1) {
		b := block{kind: m[1], name: m[2], text: m[3]}
		if seen[b.kind+b.name] {
			t.Errorf("%s has two blocks with %s=%s", name, b.kind, b.name)
		}
		seen[b.kind+b.name] = true
		blocks = append(blocks, b)
	}
	// A fence that is written a little differently would not be tested.
	if n := strings.Count(string(text), " name=") + strings.Count(string(text), " run="); n != len(blocks) {
		t.Errorf("%s has %d blocks with a name, and %d of them can be read", name, n, len(blocks))
	}
	return blocks
}

// save writes the files of a page into a directory, as its reader would.
func save(t *testing.T, blocks []block, dir string) {
	t.Helper()
	for _, b := range blocks {
		if b.kind != "name" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, b.name), []byte(b.text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	modules, err := filepath.Abs("node_modules")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
}

// need skips a test for want of a program. make packages installs them all, and
// make e2e says which ones it could not have.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed, see make packages", p)
		}
	}
}

// portsGiven counts what freePort has tried, so that no two tests get one port.
var portsGiven atomic.Int64

// freePort returns a port on which nobody listens. It is below those that the
// system gives to connections of its own, so that it stays free.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		port := strconv.FormatInt(20000+(int64(os.Getpid())*101+portsGiven.Add(1))%12000, 10)
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return port
	}
	t.Fatal("no free port")
	return ""
}

// What is copied from the page should look as if one's own editor had saved it.
func TestGoOfTheGuideIsFormatted(t *testing.T) {
	t.Parallel()
	for _, b := range page(t, "receivers.md") {
		if !strings.HasSuffix(b.name, ".go") {
			continue
		}
		if got, err := format.Source([]byte(b.text)); err != nil || string(got) != b.text {
			t.Errorf("%s is not in the form of gofmt: %v", b.name, err)
		}
	}
}
