package filelock_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/ticketwire/ticketwire/internal/filelock"
)

func TestOneHolder(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "work.lock")
	for range 3 {
		l, err := filelock.Acquire(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := filelock.Acquire(name); !errors.Is(err, filelock.ErrHeld) {
			t.Errorf("a second one got %v, want ErrHeld", err)
		}
		if err := l.Release(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := filelock.Acquire(filepath.Join(name, "no", "directory")); err == nil || errors.Is(err, filelock.ErrHeld) {
		t.Errorf("without a directory: %v", err)
	}
}
