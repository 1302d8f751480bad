//go:build unix

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A command whose time is up ends with all that it has started, and so does one that
// is broken off.
func TestCommandEndsWithItsChildren(t *testing.T) {
	t.Parallel()
	const script = "sleep 60 & echo $!; wait"
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for want, start := range map[string]func() (context.Context, context.CancelFunc, time.Duration){
		"--exec took longer than 2s": func() (context.Context, context.CancelFunc, time.Duration) {
			return t.Context(), func() {}, 2 * time.Second
		},
		"--exec was broken off: context deadline exceeded": func() (context.Context, context.CancelFunc, time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			return ctx, cancel, time.Hour
		},
	} {
		ctx, cancel, limit := start()
		var out bytes.Buffer
		begun := time.Now()
		err := runCommand(ctx, terminal{out: &out, err: &out}, "--exec", script, limit, nil)
		cancel()
		if err == nil || err.Error() != want || time.Since(begun) > 30*time.Second {
			t.Errorf("after %s it ends with %v, want %q", time.Since(begun), err, want)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(out.String()))
		if err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); syscall.Kill(pid, 0) == nil && !zombie(pid); <-tick.C {
			if time.Now().After(deadline) {
				t.Fatalf("%q: what the command has started goes on", want)
			}
		}
	}
}

// zombie reports whether a process has ended and nobody has asked how.
func zombie(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(text), ") Z ")
}
