package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

//go:embed migrations
var migrations embed.FS

// migrate applies the embedded files that the database has not seen, in the order
// of their names, each in one transaction. The lock of the transaction keeps two
// processes from migrating at once. A database that is newer than the program is
// refused: an old program must not write to it.
func migrate(ctx context.Context, db *sql.DB, d dialect) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	defer conn.Close()
	known := map[string]bool{}
	for _, pattern := range d.migrations {
		names, err := fs.Glob(migrations, pattern)
		if err != nil {
			return fmt.Errorf("list migrations: %w", err)
		}
		for _, n := range names {
			known[migrationName(n)] = true
			if err := applyMigration(ctx, conn, d, n); err != nil {
				return fmt.Errorf("migration %s: %w", migrationName(n), err)
			}
		}
	}
	return refuseNewer(ctx, conn, known)
}

// migrationName is how the database knows a migration.
func migrationName(file string) string { return strings.TrimPrefix(file, "migrations/") }

func applyMigration(ctx context.Context, conn *sql.Conn, d dialect, name string) (err error) {
	text, err := migrations.ReadFile(name)
	if err != nil {
		return err
	}
	if _, err := conn.ExecContext(ctx, d.begin); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_, rerr := conn.ExecContext(context.WithoutCancel(ctx), "rollback")
			err = errors.Join(err, rerr)
		}
	}()
	for _, q := range []string{d.lock, `create table if not exists migrations (name text not null primary key)`} {
		if q == "" {
			continue
		}
		if _, err := conn.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	var n int
	if err := conn.QueryRowContext(ctx, `select count(*) from migrations where name = $1`, migrationName(name)).Scan(&n); err != nil {
		return err
	}
	if n == 0 {
		if d.server {
			// Who waits for a lock of a table makes all others wait behind it.
			if _, err := conn.ExecContext(ctx, `set local lock_timeout = '10s'`); err != nil {
				return err
			}
		}
		if _, err := conn.ExecContext(ctx, d.words(string(text))); err != nil {
			return err
		}
		if _, err := conn.ExecContext(ctx, `insert into migrations (name) values ($1)`, migrationName(name)); err != nil {
			return err
		}
	}
	_, err = conn.ExecContext(ctx, "commit")
	return err
}

func refuseNewer(ctx context.Context, conn *sql.Conn, known map[string]bool) error {
	rows, err := conn.QueryContext(ctx, `select name from migrations order by name`)
	if err != nil {
		return err
	}
	defer rows.Close()
	var newer []string
	for rows.Next() {
		var n string
		if err := rows.Scan(&n); err != nil {
			return err
		}
		if !known[n] {
			newer = append(newer, n)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if len(newer) > 0 {
		return fmt.Errorf("the database was written by a newer release (it has %s); use that release", strings.Join(newer, ", "))
	}
	return nil
}
