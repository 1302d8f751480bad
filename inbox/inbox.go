package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

// Dialect names the kind of database.
type Dialect int

// The dialects. The zero Dialect is none of them.
const (
	SQLite     Dialect = iota + 1 // 3.35 or later
	PostgreSQL                    // 13 or later
)

const (
	// DefaultPrefix is what the names of tables and indexes begin with.
	DefaultPrefix = "inbox_"

	// purgeEvery and purgeLimit bound the deleting that happens along the way:
	// after so many events at most so many rows, in one transaction. More can go
	// than comes, so a backlog of expired rows shrinks.
	purgeEvery = 256
	purgeLimit = 1000
)

// Config says where an Inbox is. It is not changed after Open.
type Config struct {
	DB      *sql.DB // stays the caller's: Close of the Inbox does not exist
	Dialect Dialect
	Prefix  string // of all names; "" means DefaultPrefix. One prefix is one inbox
	// Retention is how long an event is remembered after it was done; 0 means
	// webhook.DefaultRetention, 35 days. Less lets a late replay through a second
	// time, and Open warns about it.
	Retention time.Duration
	Log       *slog.Logger     // nil means slog.Default
	Now       func() time.Time // nil means time.Now; the clock of Work and of DeadLetters' ages
}

// Inbox is the durable memory of a receiver. It implements webhook.Deduper, and
// Keep is for webhook.NewInboxHandler. Make one with Open; it holds nothing that
// has to be closed. Safe for concurrent use, by several processes on the same
// tables too.
type Inbox struct {
	db        *sql.DB
	dialect   Dialect
	prefix    string
	retention time.Duration
	log       *slog.Logger
	now       func() time.Time

	// turn is held while writing to SQLite, which has one writer: waiting here is
	// fairer and quicker than in its busy loop. nil on PostgreSQL.
	turn chan struct{}
	wake chan struct{} // something may be due, see Work
	seen atomic.Int64  // events, for the purge along the way
}

var _ webhook.Deduper = (*Inbox)(nil)

// ErrLost is what FinishTx returns when the event is not the caller's any more:
// its lease has ended and somebody else took it, or has done it. The transaction
// must be rolled back.
var ErrLost = errors.New("inbox: the event is held or done by somebody else")

// schema holds the state of an event and, per ticket, the queue. A lane is a
// ticket, or an event that has none. States of an event: claimed (a handler is
// reacting), queued and dead (kept for the worker), done.
//
// A lane's due_at is when its first event may be tried. Claiming the lane moves
// that to the end of the lease, so that a worker that dies needs nobody to clean
// up after it; fence is the claim's number, 0 without one.
const schema = `
create table {p}events (
	event_id text not null,
	event_type text not null,
	lane text not null,
	occurred_at bigint not null,
	received_at bigint not null,
	state text not null,
	fence bigint not null,
	lease_until bigint not null,
	attempts bigint not null,
	error text,
	body {blob},
	expires_at bigint,
	primary key (event_id, event_type)
);
create index {p}events_queued on {p}events (lane, occurred_at, received_at) where state = 'queued';
create index {p}events_dead on {p}events (received_at, event_id, event_type) where state = 'dead';
create index {p}events_expiry on {p}events (expires_at) where expires_at is not null;
create table {p}lanes (
	lane text not null primary key,
	newest bigint,
	due_at bigint,
	fence bigint not null,
	expires_at bigint not null
);
create index {p}lanes_due on {p}lanes (due_at) where due_at is not null;
create index {p}lanes_expiry on {p}lanes (expires_at) where due_at is null`

// prefixes are safe to put into a statement, and short enough for the longest
// name that PostgreSQL takes.
var prefixes = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,39}$`)

// schemaVersion is the number of this schema. It is kept in the database, so that
// a later release knows what it finds, and an earlier one keeps its hands off.
const schemaVersion = 1

// Open creates the tables if they are missing and returns the inbox. Any number
// of processes may do so at the same time, beside others that are at work.
func Open(ctx context.Context, cfg Config) (*Inbox, error) {
	b := &Inbox{
		db: cfg.DB, dialect: cfg.Dialect, prefix: cfg.Prefix, retention: cfg.Retention, log: cfg.Log, now: cfg.Now,
		wake: make(chan struct{}, 1),
	}
	if b.prefix == "" {
		b.prefix = DefaultPrefix
	}
	if b.retention == 0 {
		b.retention = webhook.DefaultRetention
	}
	if b.log == nil {
		b.log = slog.Default()
	}
	if b.now == nil {
		b.now = time.Now
	}
	switch {
	case b.db == nil:
		return nil, errors.New("inbox: Config.DB is missing")
	case b.dialect != SQLite && b.dialect != PostgreSQL:
		return nil, errors.New("inbox: Config.Dialect must be inbox.SQLite or inbox.PostgreSQL")
	case !prefixes.MatchString(b.prefix):
		return nil, fmt.Errorf("inbox: Config.Prefix %q must be lower-case letters, digits and underscores, at most 40, and not begin with a digit", b.prefix)
	case b.retention < 0:
		return nil, fmt.Errorf("inbox: Config.Retention %s is negative", b.retention)
	}
	if b.dialect == SQLite {
		b.turn = make(chan struct{}, 1)
	}
	if b.retention < webhook.DefaultRetention {
		b.log.WarnContext(ctx, "the inbox forgets events earlier than their sender: a replay reacts again",
			"retention", b.retention, "recommended", webhook.DefaultRetention)
	}
	if err := b.createAmongOthers(ctx); err != nil {
		return nil, fmt.Errorf("inbox: create the tables %s*: %w", b.prefix, err)
	}
	return b, b.checkSettings(ctx)
}

// createTries and createPause bound how long Open goes on where others open the
// same file: about a second.
const (
	createTries = 20
	createPause = 50 * time.Millisecond
)

// createAmongOthers is create for several processes at once. SQLite tells some of
// those who open a new file at the same moment that it is locked, at once and
// whatever the busy timeout: the switch to the write-ahead log does not wait.
func (b *Inbox) createAmongOthers(ctx context.Context) error {
	for try := 1; ; try++ {
		err := b.create(ctx)
		locked := err != nil && b.dialect == SQLite && strings.Contains(err.Error(), "database is locked")
		if !locked || try == createTries {
			return err
		}
		select {
		case <-time.After(time.Duration(rand.Int64N(int64(2 * createPause)))):
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx))
		}
	}
}

// create makes the tables in one transaction, once. It does not touch them when
// they are there: even an index that exists would be a lock that stops those who
// are at work.
func (b *Inbox) create(ctx context.Context) error {
	return b.write(ctx, func(tx *sql.Tx) error {
		if b.dialect == PostgreSQL {
			// Two processes that create the same table at once fail on its name.
			if _, err := b.exec(ctx, tx, `select pg_advisory_xact_lock(hashtext($1))`, b.prefix+"schema"); err != nil {
				return err
			}
		}
		if _, err := b.exec(ctx, tx, `create table if not exists {p}schema (version bigint not null)`); err != nil {
			return err
		}
		var version int64
		if err := b.row(ctx, tx, `select coalesce(max(version), 0) from {p}schema`).Scan(&version); err != nil {
			return err
		}
		if version == schemaVersion {
			return nil
		}
		if version > schemaVersion {
			return fmt.Errorf("they were made by a newer release (version %d, this one knows %d); use that release", version, schemaVersion)
		}
		for statement := range strings.SplitSeq(schema, ";") {
			if _, err := b.exec(ctx, tx, statement); err != nil {
				return err
			}
		}
		_, err := b.exec(ctx, tx, `insert into {p}schema (version) values ($1)`, schemaVersion)
		return err
	})
}

// checkSettings warns about an SQLite that does not wait, or does not sync.
func (b *Inbox) checkSettings(ctx context.Context) error {
	if b.dialect != SQLite {
		return nil
	}
	for _, c := range []struct {
		pragma, without string
		least           int
	}{
		{"busy_timeout", "writers fail instead of waiting for each other", 1},
		{"synchronous", "a power cut can take back what was acknowledged", 2},
	} {
		var got int
		if err := b.db.QueryRowContext(ctx, `pragma `+c.pragma).Scan(&got); err != nil {
			return fmt.Errorf("inbox: read pragma %s: %w", c.pragma, err)
		}
		if got < c.least {
			b.log.WarnContext(ctx, "a setting of SQLite does not fit an inbox",
				"pragma", c.pragma, "value", got, "least", c.least, "risk", c.without)
		}
	}
	return nil
}

// querier is what *sql.DB and *sql.Tx have in common.
type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// text completes a statement with the prefix and what differs: the type for bytes,
// and passing over rows that somebody else has locked. Its arguments are numbered in the order in which
// they appear first, because some SQLite drivers bind them in that order.
func (b *Inbox) text(q string) string {
	blob, skip := "blob", ""
	if b.dialect == PostgreSQL {
		blob, skip = "bytea", "for update skip locked"
	}
	return strings.NewReplacer("{p}", b.prefix, "{blob}", blob, "{skip}", skip).Replace(q)
}

// exec returns the number of rows that changed.
func (b *Inbox) exec(ctx context.Context, db querier, q string, args ...any) (int64, error) {
	res, err := db.ExecContext(ctx, b.text(q), args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func (b *Inbox) row(ctx context.Context, db querier, q string, args ...any) *sql.Row {
	return db.QueryRowContext(ctx, b.text(q), args...)
}

// write runs fn in a transaction, one at a time where the database has one
// writer. The first statement of fn must write: SQLite then waits for its turn
// with nothing read yet, so that it cannot fail for a newer commit.
func (b *Inbox) write(ctx context.Context, fn func(tx *sql.Tx) error) (err error) {
	if b.turn != nil {
		select {
		case b.turn <- struct{}{}:
			defer func() { <-b.turn }()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	tx, err := b.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := fn(tx); err != nil {
		// What failed has usually ended the transaction already.
		if rerr := tx.Rollback(); rerr != nil && !errors.Is(rerr, sql.ErrTxDone) {
			err = errors.Join(err, rerr)
		}
		return err
	}
	return tx.Commit()
}

// Purge forgets at most limit events that were done longer ago than the
// retention, and as many tickets, and returns how many rows went. The inbox does
// so by itself as events come in; call it where hardly any do. Events that are
// queued or dead are never purged.
func (b *Inbox) Purge(ctx context.Context, now time.Time, limit int) (int, error) {
	var events, lanes int64
	err := b.write(ctx, func(tx *sql.Tx) (err error) {
		events, err = b.exec(ctx, tx, `delete from {p}events where (event_id, event_type) in (
			select event_id, event_type from {p}events where expires_at <= $1 order by expires_at limit $2 {skip})`, micros(now), max(limit, 0))
		if err != nil {
			return err
		}
		lanes, err = b.exec(ctx, tx, `delete from {p}lanes where due_at is null and lane in (
			select lane from {p}lanes where due_at is null and expires_at <= $1 order by expires_at limit $2 {skip})`, micros(now), max(limit, 0))
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("inbox: purge: %w", err)
	}
	return int(events + lanes), nil
}

// count notes an event, and purges now and then. A purge that fails costs space
// and no event.
func (b *Inbox) count(ctx context.Context, now time.Time) {
	if b.seen.Add(1)%purgeEvery != 0 {
		return
	}
	if _, err := b.Purge(ctx, now, purgeLimit); err != nil {
		b.log.WarnContext(ctx, "inbox purge failed", "error", err)
	}
}

// laneOf names the queue of an event.
func laneOf(c webhook.Claim) string {
	if c.TicketID != "" {
		return c.TicketID
	}
	return "/" + c.Key.EventID + "/" + c.Key.EventType
}

// newFence returns a number that no other claim has.
func newFence() int64 { return rand.Int64N(1<<63-1) + 1 }

// Times are microseconds since 1970 in the database.

func micros(t time.Time) int64   { return t.UnixMicro() }
func instant(us int64) time.Time { return time.UnixMicro(us).UTC() }
