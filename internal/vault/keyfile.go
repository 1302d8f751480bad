package vault

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/ticketwire/ticketwire/internal/fault"
)

// maxKeyFile bounds what is read, in case the path names something else.
const maxKeyFile = 64 << 10

// Open opens the key file, or creates one with a new key if there is none. Two
// processes that start at once end up with the same key.
//
// The file holds one key of 64 hex digits per line; empty lines and lines that
// begin with # are skipped. The first key seals, all of them open: to rotate,
// put a new line on top and keep the old ones until nothing is sealed with them.
// A file that group or others can read is refused.
func Open(keyFile string) (*Vault, error) {
	keys, err := readKeys(keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		if err := createKeyFile(keyFile); err != nil {
			return nil, err
		}
		keys, err = readKeys(keyFile)
	}
	if err != nil {
		return nil, err
	}
	return newVault(keys)
}

func readKeys(keyFile string) ([][]byte, error) {
	f, err := os.Open(keyFile)
	if err != nil {
		return nil, fmt.Errorf("open secret key file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat() // of the open file, so that it cannot be exchanged in between
	if err != nil {
		return nil, fmt.Errorf("open secret key file: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxKeyFile {
		return nil, fault.New(fault.Internal, "secret key file %s is not a key file", keyFile)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, fault.New(fault.Internal,
			"secret key file %s has mode %#o: others can read it; run chmod 600 %s", keyFile, info.Mode().Perm(), keyFile)
	}
	text := make([]byte, info.Size())
	n, err := f.ReadAt(text, 0)
	if err != nil && n < len(text) {
		return nil, fmt.Errorf("read secret key file: %w", err)
	}
	return parseKeys(keyFile, string(text))
}

// parseKeys never quotes a line: it may be a key with one wrong digit.
func parseKeys(keyFile, text string) ([][]byte, error) {
	var keys [][]byte
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, err := hex.DecodeString(line)
		if err != nil || len(key) != KeySize {
			return nil, fault.New(fault.Internal,
				"secret key file %s, line %d: expected %d hex digits", keyFile, number, 2*KeySize)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fault.New(fault.Internal, "secret key file %s holds no key", keyFile)
	}
	return keys, nil
}

// createKeyFile writes a new key beside the final name and links it there. The
// link appears complete or not at all, and fails if another process was first,
// in which case that one's key counts.
func createKeyFile(keyFile string) error {
	dir := filepath.Dir(keyFile)
	tmp, err := os.CreateTemp(dir, ".secret-key-*") // mode 0600
	if err != nil {
		return fmt.Errorf("create secret key file: %w", err)
	}
	defer os.Remove(tmp.Name())
	key := make([]byte, KeySize)
	rand.Read(key)
	_, err = tmp.WriteString(hex.EncodeToString(key) + "\n")
	if err == nil {
		err = tmp.Sync() // what is sealed is worthless without the key
	}
	if err := errors.Join(err, tmp.Close()); err != nil {
		return fmt.Errorf("create secret key file: %w", err)
	}
	if err := os.Link(tmp.Name(), keyFile); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create secret key file: %w", err)
	}
	return syncDir(dir)
}

// syncDir makes the new name durable.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // directories cannot be synced there
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("create secret key file: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("create secret key file: sync directory: %w", err)
	}
	return nil
}
