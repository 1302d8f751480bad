package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"time"
)

// runCommand runs the shell command of a flag with input on its standard input.
// It is killed when limit is over or ctx ends, with all that it has started.
func runCommand(ctx context.Context, t terminal, flag, command string, limit time.Duration, input []byte) error {
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(bounded, "sh", "-c", command) //nolint:gosec // running what the flag says is its purpose
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), t.out, t.err
	cmd.WaitDelay = time.Second // for what holds on to its standard input
	isolate(cmd)
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s was broken off: %w", flag, context.Cause(ctx))
	case bounded.Err() != nil:
		return fmt.Errorf("%s took longer than %s", flag, limit)
	}
	return err
}
