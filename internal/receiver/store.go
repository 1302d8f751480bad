package receiver

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // for an inbox on PostgreSQL
	_ "modernc.org/sqlite"             // for one in the data directory

	"github.com/ticketwire/ticketwire/inbox"
	"github.com/ticketwire/ticketwire/internal/fault"
)

// databaseName is the file of the inbox in a data directory.
const databaseName = "inbox.db"

// StoreConfig says where the inbox of a receiver is.
type StoreConfig struct {
	Dir         string
	DatabaseURL string // postgres://...; "" means SQLite in Dir
	MustExist   bool   // do not make a database; without it Dir exists
	Log         *slog.Logger
	Now         func() time.Time
}

// Store is the inbox of a receiver with its database. Several processes may have
// it open: dead letters can be replayed while the receiver runs.
type Store struct {
	*inbox.Inbox
	db  *sql.DB
	now func() time.Time
}

// OpenStore opens the database and makes what is missing in it. Close it.
func OpenStore(ctx context.Context, cfg StoreConfig) (*Store, error) {
	driver, dsn, dialect := "pgx", cfg.DatabaseURL, inbox.PostgreSQL
	if cfg.DatabaseURL == "" {
		name := filepath.Join(cfg.Dir, databaseName)
		if _, err := os.Stat(name); cfg.MustExist && errors.Is(err, fs.ErrNotExist) {
			return nil, fault.Wrap(fault.NotFound, err, "There is no receiver in %s", cfg.Dir)
		}
		q := url.Values{"_pragma": {"busy_timeout(10000)", "journal_mode(wal)", "synchronous(full)"}}
		driver, dialect = "sqlite", inbox.SQLite
		dsn = (&url.URL{Scheme: "file", Opaque: url.PathEscape(name), RawQuery: q.Encode()}).String()
	} else if scheme, _, _ := strings.Cut(cfg.DatabaseURL, ":"); scheme != "postgres" && scheme != "postgresql" {
		return nil, errors.New("the database URL must begin with postgres://") // it may hold a password
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return nil, fmt.Errorf("open the inbox: %w", err)
	}
	db.SetMaxOpenConns(8)
	db.SetMaxIdleConns(8)
	s := &Store{db: db, now: cfg.Now}
	s.Inbox, err = inbox.Open(ctx, inbox.Config{DB: db, Dialect: dialect, Log: cfg.Log, Now: cfg.Now})
	if err == nil {
		err = s.prepare(ctx, dialect)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the inbox: %w", err), db.Close())
	}
	return s, nil
}

// prepare makes the table of Probe.
func (s *Store) prepare(ctx context.Context, dialect inbox.Dialect) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	if dialect == inbox.PostgreSQL {
		// Two receivers that create the same table at once fail on its name.
		if _, err := tx.ExecContext(ctx, `select pg_advisory_xact_lock(hashtext('receiver_probe'))`); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, `create table if not exists receiver_probe (id bigint primary key, at bigint not null)`); err != nil {
		return err
	}
	return tx.Commit()
}

// Probe writes something, durably, and returns why that failed: the only way to
// know that the next event could be kept.
func (s *Store) Probe(ctx context.Context) error {
	_, err := s.db.ExecContext(ctx, `insert into receiver_probe (id, at) values (1, $1)
		on conflict (id) do update set at = excluded.at`, s.now().UnixMicro())
	if err != nil {
		return fmt.Errorf("write into the inbox: %w", err)
	}
	return nil
}

// Close closes the database.
func (s *Store) Close() error { return s.db.Close() }
