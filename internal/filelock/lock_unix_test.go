//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package filelock

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// A program that is being started has every open file of its parent for a
// moment. The lock is not held by that.
func TestReleaseWhileAProgramStarts(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "work.lock")
	l, err := Acquire(name)
	if err != nil {
		t.Fatal(err)
	}
	child, err := syscall.Dup(int(l.file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(child)
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	if err := l.file.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a lock that was given back has its file open: %v", err)
	}
	again, err := Acquire(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Release(); err != nil {
		t.Error(err)
	}
}
