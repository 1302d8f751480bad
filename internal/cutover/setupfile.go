package cutover

import (
	"os"
	"path/filepath"
	"sync"
)

// SetupFile is the setup of a cutover directory as it is now: whose turn it is
// can change while both pipelines run, and does so without a restart. Safe for
// concurrent use. Use OpenSetupFile.
type SetupFile struct {
	dir string

	mu    sync.Mutex
	setup *Setup
	info  os.FileInfo // of the file that was read
	err   error       // of the last look at it
}

// OpenSetupFile reads the setup. A directory without one is a NotFound.
func OpenSetupFile(dir string) (*SetupFile, error) {
	f := &SetupFile{dir: dir}
	f.Current()
	if f.setup == nil {
		return nil, f.err
	}
	return f, nil
}

// Current returns the setup, which the caller must not change. It reads the file
// when there is another one than at the last time; while that fails the last
// setup stays in force, and Err says why.
func (f *SetupFile) Current() *Setup {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(filepath.Join(f.dir, SetupName))
	// Save puts a new file in the place of the old one.
	if err == nil && f.info != nil && os.SameFile(info, f.info) && info.ModTime().Equal(f.info.ModTime()) && info.Size() == f.info.Size() {
		f.err = nil
		return f.setup
	}
	setup, err := LoadSetup(f.dir)
	if f.err = err; err == nil {
		f.setup, f.info = setup, info
	}
	return f.setup
}

// Err returns why the last look at the file failed, nil if it did not.
func (f *SetupFile) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}
