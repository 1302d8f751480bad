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
