package store

import (
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// dialect is the little that differs between databases. Everything else is one
// SQL text for all of them.
type dialect struct {
	words      func(string) string // writes a migration in the words of the database
	migrations []string            // globs of its migrations
	open       func(target string, conns, cacheMB int) (*sql.DB, error)
	// server says that the database is one for several processes, see postgres.go:
	// connections to it end, and others write at the same time.
	server bool
	// pooled says that the session behind a connection is another with each
	// transaction, see pooled.go.
	pooled bool
	begin  string // begins a transaction that writes
	lock   string // keeps others from migrating until its end; "" where begin does
	// version asks for a number that changes when another process commits; "" where
	// begin tells.
	version string
	// checkpoint moves what is committed from the log to its place; "" where the
	// database does so by itself.
	checkpoint string
	// marks writes the placeholders of a statement as the driver likes them best.
	marks func(q string) string
	// text returns an argument as the database can keep it; nil where it keeps all.
	text func(arg any) any
	// check reads everything and answers ok, or what is wrong; size is the
	// database's in bytes. "" where the database does so by itself.
	check, size string
	walked      []string // the tables that retention walks row by row, deliveries before their events
	skip        string   // appended to a claim's inner select to pass over locked rows
}

func sqliteDialect() dialect {
	return dialect{
		words:      strings.NewReplacer("{{serial}}", "integer primary key", "{{blob}}", "blob").Replace,
		migrations: []string{"migrations/*.sql"},
		open:       openSQLite,
		begin:      "begin immediate",
		version:    `pragma data_version`,
		checkpoint: `pragma wal_checkpoint(passive)`,
		marks:      plainMarks,
		check:      `pragma integrity_check(1)`,
		walked:     []string{"deliveries", "events"},
		size:       `select page_count * page_size from pragma_page_count, pragma_page_size`,
	}
}

var numberedMark = regexp.MustCompile(`\$\d+`)

// plainMarks turns $1, $2, $3 into question marks where they come in order and
// once each. To SQLite a numbered mark has a name, and the driver copies and
// compares the name of every one each time the statement runs.
func plainMarks(q string) string {
	for i, m := range numberedMark.FindAllString(q, -1) {
		if m != "$"+strconv.Itoa(i+1) {
			return q
		}
	}
	return numberedMark.ReplaceAllString(q, "?")
}

// openSQLite opens a pool; cacheMB is what each of its connections may keep of the
// database in memory. busy_timeout comes first: the pragmas after it may
// meet a lock held by another process. Full synchronous is what makes an
// acknowledged write survive a power cut in WAL mode; fdatasync is as durable as
// fsync here, and spares the file system a write of the file's times.
//
// A commit checkpoints only when the log has grown to 64 MB: until then that is
// left to the checkpointer, off the commit path.
func openSQLite(file string, conns, cacheMB int) (*sql.DB, error) {
	if _, err := sqlite.Fdatasync(true); err != nil && !errors.Is(err, sqlite.ErrFdatasyncUnavailable) {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	q := url.Values{"_pragma": {
		"busy_timeout(10000)", "journal_mode(wal)", "synchronous(full)",
		fmt.Sprintf("cache_size(-%d)", cacheMB*1024), "temp_store(memory)", "wal_autocheckpoint(16000)",
	}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: url.PathEscape(file), RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

func sqliteCode(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code()
	}
	return 0
}

// isDuplicate recognises a unique key that was violated.
func isDuplicate(err error) bool {
	if c := postgresCode(err); c != "" {
		return c == uniqueViolation
	}
	c := sqliteCode(err)
	return c == sqlite3.SQLITE_CONSTRAINT_UNIQUE || c == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
}

// isBusy recognises a lock of another process that lasted longer than we wait.
func isBusy(err error) bool {
	return sqliteCode(err)&0xff == sqlite3.SQLITE_BUSY || postgresCode(err) == lockNotAvailable
}

// isTrouble recognises what is wrong with the disk, the machine or the server, and
// not with a call. The database may have rolled the transaction back by itself.
func isTrouble(err error) bool {
	if c := postgresCode(err); c != "" {
		return isServerTrouble(c)
	}
	switch sqliteCode(err) & 0xff {
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_CORRUPT:
		return true
	}
	return false
}

// ErrDamaged is in the error of a database whose file is not what it should be.
var ErrDamaged = errors.New("restore a backup of the data directory, the database with its key file")

// remedied adds to an error of the embedded database what to do about it.
func remedied(err error) error {
	switch sqliteCode(err) & 0xff {
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("%w: %w", err, ErrDamaged)
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("%w: make room on the disk of the data directory", err)
	}
	return err
}

// isNoTransaction recognises the complaint of a rollback that has nothing to
// roll back; SQLite gives it no code of its own.
func isNoTransaction(err error) bool {
	return strings.Contains(err.Error(), "no transaction is active")
}
