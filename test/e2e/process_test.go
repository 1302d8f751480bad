package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a program that a test started. What it prints on its outputs is
// kept line by line.
type process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	gone  chan struct{} // closed when it has ended and was read to the end

	mu      sync.Mutex
	lines   []string      // guarded by mu; both outputs, in the order they came
	changed chan struct{} // guarded by mu; closed and replaced with every line
}

// spawn starts a program. When the test ends it is killed if it still runs, and
// a failed test shows what it printed last.
func spawn(t *testing.T, name string, env []string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(name, args...), gone: make(chan struct{}), changed: make(chan struct{})}
	p.cmd.Env = env
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what it starts ends with it
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stdin = stdin
	var readers sync.WaitGroup
	for _, pipe := range []func() (io.ReadCloser, error){p.cmd.StdoutPipe, p.cmd.StderrPipe} {
		r, err := pipe()
		if err != nil {
			t.Fatal(err)
		}
		readers.Go(func() { p.read(r) })
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.gone)
		readers.Wait()
		_ = p.cmd.Wait() // the code is in ProcessState
	}()
	t.Cleanup(func() {
		p.kill(t)
		<-p.gone
		if t.Failed() {
			last := p.printed()
			t.Logf("%s printed last:\n%s", p.cmd.Args[0], strings.Join(last[max(0, len(last)-30):], "\n"))
		}
	})
	return p
}

func (p *process) read(r io.Reader) {
	scan := bufio.NewScanner(r)
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		p.mu.Lock()
		p.lines = append(p.lines, scan.Text())
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
	}
}

func (p *process) printed() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.lines)
}

// await returns the first line that was or will be printed and that is accepted.
func (p *process) await(t *testing.T, what string, accept func(line string) bool) string {
	t.Helper()
	limit := time.After(patience)
	gone := p.gone
	for seen := 0; ; {
		p.mu.Lock()
		lines, changed := p.lines[seen:], p.changed
		p.mu.Unlock()
		if i := slices.IndexFunc(lines, accept); i >= 0 {
			return lines[i]
		}
		seen += len(lines)
		select {
		case <-changed:
		case <-gone:
			if len(lines) == 0 {
				t.Fatalf("%s ended (%s) before %s", p.cmd.Args[0], p.cmd.ProcessState, what)
			}
		case <-limit:
			t.Fatalf("waited %s in vain: %s", patience, what)
		}
	}
}

// kill ends a process the hard way, with all that it has started.
func (p *process) kill(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		t.Error(err)
	}
}

// wait waits until the process has ended and returns its exit code, -1 for one
// that was killed.
func (p *process) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.gone:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		t.Fatalf("%s did not end", p.cmd.Args[0])
		return 0
	}
}

// script starts one of the integrations in Node.js.
func script(t *testing.T, file string, env ...string) *process {
	t.Helper()
	if _, err := os.Stat("node_modules"); err != nil {
		t.Fatal("the modules of the Node.js integrations are missing: run make e2e, or npm ci in test/e2e")
	}
	return spawn(t, "node", environment(env...), file)
}

// tell writes one line to the input of a process.
func (p *process) tell(t *testing.T, line string) {
	t.Helper()
	if _, err := io.WriteString(p.stdin, line+"\n"); err != nil {
		t.Fatal(err)
	}
}

// printedJSON returns the lines that are JSON objects, decoded.
func printedJSON[T any](t *testing.T, p *process) []T {
	t.Helper()
	var out []T
	for _, line := range p.printed() {
		var v T
		if !strings.HasPrefix(line, "{") {
			continue
		}
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		out = append(out, v)
	}
	return out
}

// awaitJSON is await for a line that is a JSON object with the key.
func awaitJSON[T any](t *testing.T, p *process, key string) T {
	t.Helper()
	line := p.await(t, "a line with "+key, func(l string) bool { return strings.HasPrefix(l, `{"`+key+`":`) })
	var v T
	if err := json.Unmarshal([]byte(line), &v); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return v
}
