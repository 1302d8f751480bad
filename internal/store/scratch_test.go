package store

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ticketwire/ticketwire/test/postgres"
)

func TestElsewhere(t *testing.T) {
	t.Parallel()
	for target, want := range map[string]string{
		"postgres://me:s3%20cret@db.example.com/prod?sslmode=disable": "postgres://me:s3%20cret@db.example.com/other?sslmode=disable",
		"postgres:///prod?dbname=prod&host=/run/pg":                   "postgres:///other?host=%2Frun%2Fpg",
		"postgres://db.example.com":                                   "postgres://db.example.com/other",
		"host=/run/pg dbname=prod user=me":                            "host=/run/pg dbname=prod user=me dbname=other",
	} {
		if got, err := elsewhere(target, "other"); got != want || err != nil {
			t.Errorf("%s becomes %s, %v, want %s", target, got, err, want)
		}
	}
	if got, err := elsewhere("postgres://me:s3cret@db:x/prod", "other"); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("got %q, %v", got, err)
	}
}

// A scratch database is one beside that of the connection string, which stays as it
// is, and nothing is left of it. Who may make none is told how to be allowed.
func TestScratch(t *testing.T) {
	t.Parallel()
	target := postgres.Start(t)
	there, err := pgx.Connect(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = there.Close(t.Context()) })
	count := func(q string, args ...any) (n int) {
		if err := there.QueryRow(t.Context(), q, args...).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	s, err := NewScratch(t.Context(), target, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	const named = `select count(*) from pg_database where datname = $1`
	if s.Process == 0 || count(named, s.name) != 1 {
		t.Errorf("process %d, %d databases", s.Process, count(named, s.name))
	}
	in, err := Open(t.Context(), Config{DatabaseURL: s.URL, Now: time.Now, Vault: openAt(t, place{dir: t.TempDir()}).cfg.Vault})
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if n := count(`select count(*) from pg_tables where schemaname = 'public'`); n != 0 {
		t.Errorf("%d tables beside it", n)
	}
	if err := s.Drop(t.Context()); err != nil || count(named, s.name) != 0 {
		t.Errorf("drop: %v", err)
	}
	if strings.Contains(target, "://") {
		return // of a server that is not the test's own
	}
	role := "poor_" + s.name
	if _, err := there.Exec(t.Context(), "create role "+role+" login"); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = there.Exec(t.Context(), "drop role "+role) }()
	if _, err = NewScratch(t.Context(), target+" user="+role, time.Now); err == nil || !strings.Contains(err.Error(), "alter role "+role+" createdb") {
		t.Errorf("who may not: %v", err)
	}
}
