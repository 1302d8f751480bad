// Package filelock keeps two processes from doing the same work: whoever holds
// the lock on a file is the only one. The lock goes with the process, however it
// ends, where the system has such locks.
package filelock

import (
	"errors"
	"os"
)

// ErrHeld is what Acquire returns, maybe wrapped, when another process, or
// another part of this one, holds the lock.
var ErrHeld = errors.New("locked by another process")

// Lock is a held lock. Use Acquire.
type Lock struct{ file *os.File }

// Acquire takes the lock on the file name, which it makes if it is missing, and
// does not wait for it. The file stays behind.
func Acquire(name string) (*Lock, error) {
	f, err := lockFile(name)
	if err != nil {
		return nil, err
	}
	return &Lock{f}, nil
}

// Release gives the lock back. It must be called once.
func (l *Lock) Release() error { return unlockFile(l.file) }
