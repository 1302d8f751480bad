package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/ticketwire/ticketwire/internal/fault"
)

// deliveryLock is the file that one delivering process per data directory
// holds. The zero value holds nothing.
type deliveryLock struct {
	mu   sync.Mutex
	file *os.File
}

// errLocked is what lockFile returns when another process holds the lock.
var errLocked = errors.New("locked by another process")

// LockDeliveries makes sure that this process is the only one that delivers from
// the data directory; a second one is refused with a Conflict. Commands that
// only read or administer do not need it. Close releases the lock, and so does
// the end of the process, however it ends.
func (s *Store) LockDeliveries() error {
	s.lock.mu.Lock()
	defer s.lock.mu.Unlock()
	if s.lock.file != nil {
		return nil
	}
	f, err := lockFile(filepath.Join(s.cfg.Dir, "deliveries.lock"))
	if errors.Is(err, errLocked) {
		return fault.Wrap(fault.Conflict, err, "Another process delivers from the data directory %s", s.cfg.Dir)
	}
	if err != nil {
		return fmt.Errorf("lock the data directory: %w", err)
	}
	s.lock.file = f
	return nil
}

func (l *deliveryLock) release() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := unlockFile(l.file)
	l.file = nil
	return err
}
