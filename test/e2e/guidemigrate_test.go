package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The migration as its reader walks it: the commands of docs/migrate.md in one
// shell, in their order, against the real server and a receiver of the guide.
// The comparisons are the page's own; a command that fails ends the walk.
func TestMigrationOfTheGuide(t *testing.T) {
	t.Parallel()
	need(t, "bash", "curl", "jq", "python3")
	dir := t.TempDir()
	blocks := page(t, "migrate.md")
	save(t, slices.Concat(blocks, page(t, "receivers.md")), dir)

	var script strings.Builder
	// What the page starts in the background would outlive a step that fails.
	script.WriteString("set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n")
	steps := 0
	for _, b := range blocks {
		if b.kind == "run" {
			fmt.Fprintf(&script, "echo '== %s'\n%s", b.name, b.text)
			steps++
		}
	}
	script.WriteString("wait\necho '== over'\n")
	// The page's ports may be taken.
	ports := strings.NewReplacer("8080", freePort(t), "9000", freePort(t))
	shell := spawn(t, "bash", environment("PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH")),
		"-c", `cd "$0" && eval "$1"`, dir, ports.Replace(script.String()))
	if code := shell.wait(t); code != 0 {
		t.Fatalf("the walk ended with code %d", code)
	}

	got := map[string][]string{}
	step := ""
	for _, l := range shell.printed() {
		if name, is := strings.CutPrefix(l, "== "); is {
			step = name
			continue
		}
		got[step] = append(got[step], l)
	}
	for _, l := range got["recover"] {
		if !strings.HasSuffix(l, " ticket.updated") && !strings.HasSuffix(l, " ticket.comment.added") {
			t.Errorf("recover printed %q", l)
		}
	}
	got["recover"] = []string{fmt.Sprint(len(got["recover"]), " missed")}
	want := map[string][]string{"receiver": {"true"}, "health": {"true"}, "recover": {"2 missed"}, "replay": {"0"}}
	if !maps.EqualFunc(got, want, slices.Equal) || step != "over" || steps != 15 {
		t.Errorf("after %d steps up to %q the page printed %v, want %v", steps, step, got, want)
	}

	polled, err := os.ReadFile(filepath.Join(dir, "polled.log"))
	if err != nil {
		t.Fatal(err)
	}
	handled, err := os.ReadFile(filepath.Join(dir, "tickets.log"))
	if err != nil {
		t.Fatal(err)
	}
	// The poller looked three times: it saw three of the four changes to its two
	// tickets. The work made ten events, the outage two.
	if p, h := strings.Count(string(polled), "\n"), strings.Count(string(handled), "\n"); p != 3 || h != 10 {
		t.Errorf("%d changes were polled and %d events handled, want 3 and 10:\n%s\n%s", p, h, polled, handled)
	}
}
