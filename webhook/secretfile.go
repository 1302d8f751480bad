package webhook

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// rereadAfter is how often a secret file is read at most.
const rereadAfter = time.Second

// SecretFile holds the signing secrets of a file, one per line; empty lines and
// lines that begin with # do not count. A change takes effect within a second
// and without a restart: to rotate, add the new secret, and remove the old one
// when the sender has changed over. Safe for concurrent use. Use
// OpenSecretFile.
type SecretFile struct {
	path string
	list SecretList
	read atomic.Int64 // when it was read last, in unix nanoseconds

	mu  sync.Mutex
	err error // of the last read
}

// OpenSecretFile reads the file. The error says why there are no secrets in it.
func OpenSecretFile(path string) (*SecretFile, error) {
	f := &SecretFile{path: path}
	f.read.Store(time.Now().UnixNano())
	f.load()
	if f.err != nil {
		return nil, f.err
	}
	return f, nil
}

// All returns the current secrets, for NewHandler. It reads the file again when
// the last time is more than a second ago; the request that finds it so waits
// for that, the others do not. A file that is gone, cannot be read or has no
// secrets changes nothing, because it may be half written: see Err.
func (f *SecretFile) All() []string {
	now, last := time.Now().UnixNano(), f.read.Load()
	// A clock that was set back must not stop the reading.
	if due := now-last >= int64(rereadAfter) || now < last; due && f.read.CompareAndSwap(last, now) {
		f.load()
	}
	return f.list.All()
}

// Err returns why the last read of the file failed, nil if it did not: the
// secrets in use may then be old ones.
func (f *SecretFile) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

func (f *SecretFile) load() {
	secrets, err := readSecrets(f.path)
	if err == nil {
		f.list.Set(secrets...)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func readSecrets(path string) ([]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the signing secrets: %w", err)
	}
	var secrets []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			secrets = append(secrets, line)
		}
	}
	if len(secrets) == 0 {
		return nil, fmt.Errorf("read the signing secrets: %s has none: write one per line", path)
	}
	return secrets, nil
}
