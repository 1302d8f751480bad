package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"modernc.org/sqlite"
)

// Whatever is wrong with the file is said with what to do.
func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	whole := place{dir: t.TempDir()}
	t.Run("fill", func(t *testing.T) { newDesk(t, openAt(t, whole), "desk") })
	file := must(os.ReadFile(filepath.Join(whole.dir, fileName)))(t)
	for name, damaged := range map[string][]byte{
		"another file":    bytes.Repeat([]byte("x"), len(file)),
		"the first page":  append(bytes.Repeat([]byte{0xff}, 4096), file[4096:]...),
		"the second page": append(append(append([]byte(nil), file[:4096]...), bytes.Repeat([]byte{0xff}, 4096)...), file[8192:]...),
		"cut short":       file[:len(file)-4096],
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := place{dir: t.TempDir()}
			copyKeyFile(t, whole, p)
			if err := os.WriteFile(filepath.Join(p.dir, fileName), damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := Open(t.Context(), Config{Dir: p.dir, Vault: openKey(t, p)})
			if err == nil {
				_, err = s.Check(t.Context(), 0)
				if closed := s.Close(); closed != nil {
					t.Error(closed)
				}
			}
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A disk that is full is no reason to restore a backup.
func TestFullDiskIsNoDamage(t *testing.T) {
	t.Parallel()
	db := must(sqliteDialect().open(filepath.Join(t.TempDir(), fileName), 1, 1))(t)
	defer db.Close()
	var err error
	for _, q := range []string{`create table full (x text)`, `pragma max_page_count = 2`, `insert into full values (hex(randomblob(9000)))`} {
		if err == nil {
			_, err = db.ExecContext(t.Context(), q)
		}
	}
	_, is := errors.AsType[*sqlite.Error](err)
	if err = remedied(err); !is || errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "make room on the disk") {
		t.Errorf("got %v", err)
	}
}
