package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The migration as its reader walks it: the commands of docs/migrate.md in one
// shell, in their order, against the real server. A command that fails ends the
// walk, and what the page says of the output is looked for in it.
func TestMigrationOfTheGuide(t *testing.T) {
	t.Parallel()
	need(t, "bash", "curl", "jq")
	dir := t.TempDir()
	blocks := page(t, "migrate.md")
	save(t, blocks, dir)

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
	// The page's ports may be taken, and so may those that it leaves to the commands.
	hook := freePort(t)
	ports := strings.NewReplacer("8080", freePort(t), "9000", hook)
	shell := spawn(t, "bash", environment("PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"),
		"TICKETWIRE_LISTEN=127.0.0.1:"+hook, "TICKETWIRE_ADMIN_LISTEN=none"),
		"-c", `cd "$0" && eval "$1"`, dir, ports.Replace(script.String()))
	for _, b := range blocks {
		if b.kind == "run" {
			shell.await(t, "step "+b.name, func(l string) bool { return l == "== "+b.name })
		}
	}
	if code := shell.wait(t); code != 0 {
		t.Fatalf("the walk ended with code %d", code)
	}

	got := map[string]string{}
	step := ""
	for _, l := range shell.printed() {
		if name, is := strings.CutPrefix(l, "== "); is {
			step = name
			continue
		}
		got[step] += l + "\n"
	}
	if step != "over" || steps != 21 {
		t.Errorf("the page has %d steps, and the last was %q", steps, step)
	}
	for step, want := range map[string]string{
		"before":    `(?m)^changed: Label printer offline in warehouse 3$`,
		"receiver":  `(?m)^ACCEPTED +true$`,
		"start":     `The poller acts\.\n$`,
		"drills":    `(?s)\nEvent [^\n]* arrived with attempt 2, .*\nEvent [^\n]* arrived with attempt 2, .*\n6 changes in `,
		"status":    `(?m)^verdict +EXTEND: clean so far: `,
		"report":    `(?m)^MISSED 0   MISMATCH 0   UNEXPLAINED 0$`,
		"finish":    `\nError: the verdict is EXTEND: (?s:.*)\nVERDICT  EXTEND\nThe receiver acts on changes from `,
		"reconcile": `, 0 missed; webhooks caught ([1-9][0-9]*) of `,
		"recover":   `(?m)^Missing: 2 \(1 ticket\.comment\.added, 1 ticket\.updated\)$`,
		"backfill":  `\nDelivered: 2 \(1 ticket\.comment\.added, 1 ticket\.updated\)\.\n0 tickets differ\.\nThe webhook is enabled\.\n$`,
		"rollback":  `^The poller acts on changes from `,
		"joined":    `^MISSED 0   MISMATCH 0   UNEXPLAINED 0\n$`,
	} {
		if !regexp.MustCompile(want).MatchString(got[step]) {
			t.Errorf("step %s printed %q, want %s", step, got[step], want)
		}
	}

	acts, err := os.ReadFile(filepath.Join(dir, "reactions.log"))
	if err != nil {
		t.Fatal(err)
	}
	// What the receiver saw while it was the poller's turn, and the other way round,
	// nobody acted on.
	for line, times := range map[string]int{
		"ticket.assigned: ": 0, "ticket.created: ": 0,
		"ticket.updated: Label printer works again": 1, "changed: Label printer works again": 0,
		"ticket.updated: Label printer on fire": 1, "ticket.comment.added: Label printer on fire": 1, "changed: Label printer on fire": 0,
		"changed: VPN down again": 1, "ticket.updated: VPN down again": 0,
		"changed: VPN up": 1, "ticket.updated: VPN up": 0,
	} {
		if n := strings.Count(string(acts), line); n != times {
			t.Errorf("%q is in what was done %d times, want %d:\n%s", line, n, times, acts)
		}
	}
}
