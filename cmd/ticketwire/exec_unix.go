//go:build unix

package main

import (
	"os/exec"
	"syscall"
)

// isolate gives a command a process group of its own. Ctrl-C in the terminal does
// not reach it then, and when its time is up everything that it started ends too.
func isolate(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
