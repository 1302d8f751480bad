package receiver

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What was acknowledged survives a power cut, a process that looks after dead letters
// does not fail the receiver, and the directory may have any name.
func TestStoreOnDisk(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a?b#c%41 d")
	must(t, os.Mkdir(dir, 0o700))
	s, err := OpenStore(t.Context(), StoreConfig{Dir: dir, Log: config(t, nil).Log, Now: time.Now})
	must(t, err)
	defer s.Close()
	if _, err := os.Stat(filepath.Join(dir, databaseName)); err != nil {
		t.Error(err)
	}
	var got []string
	for _, name := range []string{"synchronous", "journal_mode", "busy_timeout"} {
		var value any
		must(t, s.db.QueryRowContext(t.Context(), "pragma "+name).Scan(&value))
		got = append(got, fmt.Sprint(name, "=", value))
	}
	if text := strings.Join(got, " "); text != "synchronous=2 journal_mode=wal busy_timeout=10000" { // 2 is full
		t.Errorf("the database has %s", text)
	}
}
