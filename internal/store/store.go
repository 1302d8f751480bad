// Package store holds every SQL statement of the service. One exported method
// is one transaction: when it returns without an error, what it did is durable
// (SQLite in WAL mode with synchronous=FULL), and the deliveries that follow
// from it are committed with it.
//
// The rules themselves (which events a change makes, who gets them, when a
// retry is due) are pure functions in internal/ticket and internal/delivery;
// store loads what they need and writes what they return. Sending is left to
// internal/dispatch, wire formats to internal/api.
//
// A Store is safe for concurrent use. All writes pass through one goroutine that
// shares one commit among the calls that wait for it (see writer.go); reads use
// their own connections and never wait for a writer.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/vault"
)

// Config says where the data lives and which server-wide rules are applied
// inside a transaction. It is not changed after Open.
type Config struct {
	Dir         string // data directory of the embedded database; made if missing
	DatabaseURL string // of a PostgreSQL, in place of Dir
	// Now is the clock of this process, for what a server is waited for, the lease of
	// the node and Clock; its times have a monotonic reading. Needed with DatabaseURL
	// only.
	Now         func() time.Time
	Vault       *vault.Vault // seals signing secrets and custom headers
	Policy      delivery.Policy
	PublicURL   string        // base of the deep links in payloads, without a trailing slash
	Threads     bool          // send the whole comment thread on every full payload (contract D9)
	MaxWebhooks int           // per tenant (contract P11); 0 means the default of 50
	CommitLimit int           // calls that may share one commit; 0 means 256
	QueueLimit  int           // calls that may wait for the writer before Unavailable (contract P12); 0 means 8192
	Retention   time.Duration // how long events and delivery rows are kept; 0 means 30 days
	Mails       Mails         // writes the mails about failing webhooks; a nil function sends none
	CopyTarget  bool          // take a database that is an unfinished copy, to go on with it; see Hold

	// Commit hears of every commit of the writer: of its begin with the number of
	// calls that share it, and through what it returns of its end, with the error
	// that all of them got. Both run on the writer's goroutine. nil: nobody listens.
	Commit func(calls int) (ended func(error))
}

// Store is the open database. Make one with Open and release it with Close.
type Store struct {
	cfg         Config
	dialect     dialect
	write       *sql.DB // one connection, owned by the writer goroutine
	read        *sql.DB
	side        *sql.DB  // of a server: what must not wait for either
	stmts       sync.Map // query text -> *sql.Stmt on read
	writer      *writer
	usage       *usage
	grants      grants
	credentials credentials

	lock   deliveryLock           // see LockDeliveries
	node   atomic.Pointer[node]   // of a server, see Join; nil: it has not
	anchor atomic.Pointer[anchor] // of a server, see Clock; nil: it has not joined

	swept  swept        // see Sweep
	losses atomic.Int64 // how often this node has lost what it held, see given.go

	handedCount atomic.Int64 // deliveries that the dispatcher holds and that have no row, see handover.go
	handedSince atomic.Int64 // since when the oldest of them is due, in microseconds; 0 without any

	intake atomic.Pointer[Intake]
}

// fileName is the embedded database in the data directory.
const fileName = "ticketwire.db"

// Lane names the queue of one webhook.
type Lane struct{ TenantID, WebhookID string }

// What the write connection and each read connection may keep of the database in
// memory, in megabytes. Readers mostly find their pages in the system's cache.
const (
	writeCache = 32
	readCache  = 8
)

// Open opens the database, migrates it and starts the writer. Several processes
// may have the same embedded database open (bootstrap beside serve); only one of
// them may deliver, see LockDeliveries.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.MaxWebhooks == 0 {
		cfg.MaxWebhooks = 50
	}
	if cfg.CommitLimit == 0 {
		cfg.CommitLimit = 256
	}
	if cfg.QueueLimit == 0 {
		cfg.QueueLimit = 8192
	}
	if cfg.Retention == 0 {
		cfg.Retention = 30 * 24 * time.Hour
	}
	if cfg.Commit == nil {
		cfg.Commit = func(int) func(error) { return func(error) {} }
	}
	s := &Store{cfg: cfg, dialect: sqliteDialect()}
	target, readers := filepath.Join(cfg.Dir, fileName), 4
	if cfg.DatabaseURL != "" {
		if cfg.Now == nil {
			return nil, errors.New("a store on a server needs a clock")
		}
		pooled, err := checkServer(ctx, cfg.DatabaseURL, cfg.Now)
		if err != nil {
			return nil, err
		}
		s.dialect, target, readers = postgresDialect(cfg.Now, pooled), cfg.DatabaseURL, 8
	} else if err := MakeDir(cfg.Dir); err != nil {
		return nil, err
	}
	var err error
	if s.write, err = s.dialect.open(target, 1, writeCache); err != nil {
		return nil, err
	}
	if s.read, err = s.dialect.open(target, readers, readCache); err != nil {
		return nil, errors.Join(err, s.write.Close())
	}
	if err := migrate(ctx, s.write, s.dialect); err != nil {
		return nil, errors.Join(remedied(err), s.read.Close(), s.write.Close())
	}
	if s.dialect.server {
		if s.side, err = s.dialect.open(target, 3, 0); err != nil {
			return nil, errors.Join(err, s.read.Close(), s.write.Close())
		}
		if err := s.makeDays(ctx, dayOf(cfg.Now()), dayOf(cfg.Now())+daysAhead); err != nil && !passing(err) {
			return nil, errors.Join(err, s.closeSide(), s.read.Close(), s.write.Close())
		}
	}
	if s.writer, err = startWriter(s); err != nil {
		return nil, errors.Join(err, s.closeSide(), s.read.Close(), s.write.Close())
	}
	s.usage = startUsage(s)
	for _, check := range []func(context.Context) error{s.checkKey, s.refuseUnfinished} {
		if err := check(ctx); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// MakeDir makes the data directory, for its owner alone.
func MakeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	return nil
}

// Exists says whether the data directory has a database.
func Exists(dir string) (bool, error) {
	info, err := os.Stat(filepath.Join(dir, fileName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for a database: %w", err)
	}
	return info.Size() > 0, nil
}

// Close waits for the calls that were accepted, then closes the database. Calls
// made after Close return an error. It is safe to call twice.
func (s *Store) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), connectLimit)
	defer cancel()
	err := s.Leave(ctx)
	s.usage.stop()
	s.writer.stop()
	return errors.Join(err, s.closeStmts(), s.closeSide(), s.read.Close(), s.write.Close(), s.lock.release())
}

func (s *Store) closeSide() error {
	if s.side == nil {
		return nil
	}
	return s.side.Close()
}

// Intake is where the dispatcher takes what the store has for it. All functions
// are called on the writer's goroutine and must not block.
type Intake struct {
	Owner string        // holds the leases of what is handed over
	Lease time.Duration // how long
	// Reserve says whether a delivery of the lane that is about to be owed may be
	// handed over straight from its commit; size is that of its body. false leaves
	// it in the queue.
	Reserve func(l Lane, size int) bool
	// Cancel takes reservations back whose transaction was rolled back.
	Cancel func([]Claimed)
	// Commit tells what a transaction has left, once it is durable, and of what
	// other nodes have done. It may also be called by other goroutines.
	Commit func(Committed)
	// Lost says that another node has taken over what this one holds. It returns
	// before anything else can be leased. nil on an embedded database.
	Lost func()
	// Office hears after each beat whether this node may send: what Store.Office
	// returns. It is called by one goroutine. nil on an embedded database.
	Office func(error)
}

// Committed is what a commit means to the dispatcher.
type Committed struct {
	Due     []Lane    // lanes whose queue has work that is due now
	Handed  []Claimed // deliveries under the intake's lease, one for each reservation
	Changed []Lane    // webhooks whose settings or secrets are not what they were
	Replay  bool      // a replay job was made

	// Of other nodes.
	Refresh bool // any webhook may have changed, and a replay may have been made
	Moved   bool // lanes that were Mine may be no more, and others may be
	Look    bool // there may be due rows of any lane
}

// SetIntake registers the dispatcher; nil removes it. A transaction that is
// under way may still report to the one before.
func (s *Store) SetIntake(in *Intake) { s.intake.Store(in) }

// NewID returns a new UUIDv7 in lower case: ids sort by the time they were made,
// so new rows land next to each other in every index (contract P13).
func NewID() string { return uuid.Must(uuid.NewV7()).String() }

// querier runs statements, inside a write transaction (*tx) or on a read
// connection (*reader), so that a lookup is written once and used by both.
type querier interface {
	query(q string, args ...any) (*sql.Rows, error)
	row(q string, args ...any) *sql.Row
}

// reader is a querier on the read connections. Each statement sees the newest
// commit; two statements may see different ones.
type reader struct {
	ctx context.Context
	s   *Store
}

func (s *Store) reader(ctx context.Context) *reader { return &reader{ctx: ctx, s: s} }

func (r *reader) query(q string, args ...any) (*sql.Rows, error) {
	r.s.dialect.texts(args)
	return again(r.s, func() (*sql.Rows, error) {
		st, err := r.s.prepared(r.ctx, q)
		if err != nil {
			return nil, err
		}
		return st.QueryContext(r.ctx, args...)
	})
}

func (r *reader) row(q string, args ...any) *sql.Row {
	r.s.dialect.texts(args)
	row, _ := again(r.s, func() (row *sql.Row, err error) { // the row has the error too
		st, err := r.s.prepared(r.ctx, q)
		if err != nil {
			// database/sql reports the same error again from the row.
			row = r.s.read.QueryRowContext(r.ctx, q, args...)
		} else {
			row = st.QueryRowContext(r.ctx, args...)
		}
		return row, row.Err()
	})
	return row
}

// list runs a statement that was built for one call (filters, sort) and is not
// worth keeping: a caller must not be able to fill the cache with variants.
func (r *reader) list(q string, args ...any) (*sql.Rows, error) {
	r.s.dialect.texts(args)
	return again(r.s, func() (*sql.Rows, error) { return r.s.read.QueryContext(r.ctx, q, args...) })
}

// again asks once more where the server had ended the session, which the first to
// use it learns: a restart, or an operator, ends all of them, and that is no reason
// to refuse a read that the next session answers. Each try uses one of them up.
func again[T any](s *Store, ask func() (T, error)) (T, error) {
	out, err := ask()
	for tries := s.read.Stats().MaxOpenConnections; tries > 0 && sessionEnded(err); tries-- {
		out, err = ask()
	}
	return out, err
}

func (s *Store) prepared(ctx context.Context, q string) (*sql.Stmt, error) {
	if st, ok := s.stmts.Load(q); ok {
		return st.(*sql.Stmt), nil
	}
	st, err := s.read.PrepareContext(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	if old, loaded := s.stmts.LoadOrStore(q, st); loaded {
		return old.(*sql.Stmt), st.Close()
	}
	return st, nil
}

func (s *Store) closeStmts() error {
	var err error
	s.stmts.Range(func(k, v any) bool {
		err = errors.Join(err, v.(*sql.Stmt).Close())
		s.stmts.Delete(k)
		return true
	})
	return err
}

// Ping reports whether the database answers reads and the writer commits; a store
// that does not within ctx does not. After a commit that failed it writes
// something itself, since an empty transaction fits on a full disk.
func (s *Store) Ping(ctx context.Context) error {
	var one int
	if err := s.reader(ctx).row(`select 1`).Scan(&one); err != nil {
		return fmt.Errorf("read from the store: %w", err)
	}
	done := make(chan error, 1)
	go func() {
		done <- s.do(ctx, func(t *tx) error {
			if !s.writer.failed.Load() {
				return nil
			}
			if _, err := t.exec(`insert into handovers (handover_id, list) values (-1, $1)`, []byte{}); err != nil {
				return fmt.Errorf("write to the store: %w", err)
			}
			_, err := t.exec(`delete from handovers where handover_id = -1`)
			return err
		})
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("write to the store: %w", context.Cause(ctx))
	}
}
