package postgres

import (
	"database/sql"
	"os"
	"testing"
)

// Two tests share a server and see nothing of each other; nothing is left.
func TestStart(t *testing.T) {
	t.Parallel()
	var dir string
	t.Run("databases", func(t *testing.T) {
		for range 2 {
			db, err := sql.Open("pgx", Start(t))
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if _, err := db.ExecContext(t.Context(), `create table mine (x int)`); err != nil {
				t.Fatal(err)
			}
		}
		if shared.cluster != nil {
			dir = shared.cluster.dir
		}
	})
	if os.Getenv(Server) != "" {
		return
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", dir, err)
	}
}

// A server of one test keeps what it holds when it is ended and started again.
func TestOwn(t *testing.T) {
	t.Parallel()
	s := Own(t)
	for i, signal := range []string{"INT", "QUIT"} {
		db, err := sql.Open("pgx", s.URL())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.ExecContext(t.Context(), `create table if not exists mine (x int)`); err != nil {
			t.Fatal(err)
		}
		var n int
		if err := db.QueryRowContext(t.Context(), `insert into mine values (1) returning (select count(*) from mine)`).Scan(&n); err != nil || n != i {
			t.Fatalf("%d rows, want %d: %v", n, i, err)
		}
		db.Close()
		s.Stop(t, signal)
		s.Start(t)
	}
}
