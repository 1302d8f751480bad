package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/filelock"
)

// deliveryLock is the file that one delivering process per data directory
// holds. The zero value holds nothing.
type deliveryLock struct {
	mu   sync.Mutex
	held *filelock.Lock
}

// LockDeliveries makes sure that this process is the only one that delivers from
// the data directory; a second one is refused with a Conflict. Commands that
// only read or administer do not need it. Close releases the lock, and so does
// the end of the process, however it ends.
//
// On a server there is nothing to lock: several processes deliver, see Join.
func (s *Store) LockDeliveries() error {
	if s.dialect.server {
		return nil
	}
	s.lock.mu.Lock()
	defer s.lock.mu.Unlock()
	if s.lock.held != nil {
		return nil
	}
	held, err := filelock.Acquire(filepath.Join(s.cfg.Dir, "deliveries.lock"))
	if errors.Is(err, filelock.ErrHeld) {
		return fault.Wrap(fault.Conflict, err, "Another process delivers from the data directory %s", s.cfg.Dir)
	}
	if err != nil {
		return fmt.Errorf("lock the data directory: %w", err)
	}
	s.lock.held = held
	return nil
}

func (l *deliveryLock) release() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == nil {
		return nil
	}
	err := l.held.Release()
	l.held = nil
	return err
}
