package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/ticketwire/ticketwire/internal/fault"
)

// writer runs every write on one goroutine and one connection. Calls that wait
// at the same time share one transaction, and so one fsync; each runs in its own
// savepoint, so that one that fails takes nobody with it. A lone call commits at
// once: nothing ever waits for company.
type writer struct {
	s     *Store
	conn  *sql.Conn
	calls chan *call
	done  chan struct{}

	mu     sync.RWMutex // guards closed against a send on calls
	closed bool

	stmts      map[string]*sql.Stmt     // owned by the writer goroutine
	subscribed map[string]subscriptions // by tenant; owned by the writer goroutine
}

type call struct {
	fn   func(*tx) error
	err  error
	tx   *tx
	done chan struct{}
}

// tx is one call's share of the writer's transaction. It must not outlive fn.
type tx struct {
	w     *writer
	lanes []Lane // lanes that have due work once this commits
}

func startWriter(s *Store) (*writer, error) {
	conn, err := s.write.Conn(context.Background())
	if err != nil {
		return nil, fmt.Errorf("open the write connection: %w", err)
	}
	w := &writer{
		s:     s,
		conn:  conn,
		calls: make(chan *call, s.cfg.QueueLimit),
		done:  make(chan struct{}),
		stmts: map[string]*sql.Stmt{},

		subscribed: map[string]subscriptions{},
	}
	go w.run()
	return w, nil
}

func (w *writer) stop() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.calls)
	}
	w.mu.Unlock()
	<-w.done
}

// errClosed is what a call gets when the store is shutting down.
var errClosed = fault.New(fault.Unavailable, "The service is shutting down")

// do runs fn in a transaction and returns once it is durable. It does not give
// up when ctx ends after fn was queued: the caller must learn what happened to
// its write. A full queue is an answer at once, not a wait (contract P12).
func (s *Store) do(ctx context.Context, fn func(*tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c := &call{fn: fn, done: make(chan struct{})}
	s.writer.mu.RLock()
	if s.writer.closed {
		s.writer.mu.RUnlock()
		return errClosed
	}
	select {
	case s.writer.calls <- c:
		s.writer.mu.RUnlock()
	default:
		s.writer.mu.RUnlock()
		return fault.New(fault.Unavailable, "The service is overloaded, try again")
	}
	<-c.done
	return c.err
}

// write is do for a function with a result. When ctx carries an idempotency key
// the answer is recorded in the same transaction (see idempotency.go).
func write[T any](ctx context.Context, s *Store, fn func(*tx) (T, error)) (T, error) {
	var out T
	err := s.do(ctx, func(t *tx) error {
		v, err := fn(t)
		if err != nil {
			return err
		}
		out = v
		return t.recordAnswer(ctx, v)
	})
	if err != nil {
		var zero T
		return zero, err
	}
	return out, nil
}

func (w *writer) run() {
	defer close(w.done)
	defer func() {
		for _, st := range w.stmts {
			st.Close()
		}
		w.conn.Close()
	}()
	for first := range w.calls {
		batch := append(make([]*call, 0, 16), first)
	fill:
		for len(batch) < w.s.cfg.CommitLimit {
			select {
			case c, ok := <-w.calls:
				if !ok {
					break fill
				}
				batch = append(batch, c)
			default:
				break fill
			}
		}
		w.commit(batch)
	}
}

// commit runs a batch in one transaction. When the transaction as a whole fails
// (the disk is full, the database is locked by another process for too long),
// every call of it fails and nothing of it is kept.
func (w *writer) commit(batch []*call) {
	err := w.exec("begin immediate")
	if err == nil {
		for _, c := range batch {
			c.tx = &tx{w: w}
			c.err = w.runCall(c, len(batch) > 1)
			if errors.Is(c.err, errRollback) {
				// A lone call failed: there is nothing to commit.
				c.err = errors.Unwrap(c.err)
				close(c.done)
				return
			}
		}
		if err = w.exec("commit"); err != nil {
			err = errors.Join(err, ignoreNoTx(w.exec("rollback")))
		}
	}
	var lanes []Lane
	for _, c := range batch {
		switch {
		case err != nil:
			c.err = fault.Wrap(fault.Unavailable, fmt.Errorf("commit: %w", err), "The store cannot write now, try again")
		case c.err == nil:
			lanes = append(lanes, c.tx.lanes...)
		}
	}
	w.s.wakeLanes(lanes)
	for _, c := range batch {
		close(c.done)
	}
}

// errRollback marks the failure of a lone call, whose transaction is already
// rolled back.
var errRollback = errors.New("rolled back")

type rolledBack struct{ err error }

func (e rolledBack) Error() string        { return e.err.Error() }
func (e rolledBack) Unwrap() error        { return e.err }
func (e rolledBack) Is(target error) bool { return target == errRollback }

// runCall runs one call. In company it gets a savepoint; alone the transaction
// itself is its savepoint.
func (w *writer) runCall(c *call, company bool) error {
	if company {
		if err := w.exec("savepoint c"); err != nil {
			return fmt.Errorf("savepoint: %w", err)
		}
	}
	err := protect(c)
	switch {
	case err == nil && company:
		return w.exec("release c")
	case err == nil:
		return nil
	case company:
		return errors.Join(err, w.exec("rollback to c"), w.exec("release c"))
	default:
		if rerr := ignoreNoTx(w.exec("rollback")); rerr != nil {
			return rolledBack{errors.Join(err, rerr)}
		}
		return rolledBack{err}
	}
}

// protect turns a panic in a call into its error, so that one defect cannot stop
// every write of the process.
func protect(c *call) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in a transaction: %v\n%s", p, debug.Stack())
		}
	}()
	return c.fn(c.tx)
}

// ignoreNoTx drops the error of a rollback when SQLite has already rolled back by
// itself, as it does when the disk is full.
func ignoreNoTx(err error) error {
	if err != nil && isNoTransaction(err) {
		return nil
	}
	return err
}

func (w *writer) stmt(q string) (*sql.Stmt, error) {
	if st, ok := w.stmts[q]; ok {
		return st, nil
	}
	st, err := w.conn.PrepareContext(context.Background(), q)
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	w.stmts[q] = st
	return st, nil
}

func (w *writer) exec(q string, args ...any) error {
	st, err := w.stmt(q)
	if err != nil {
		return err
	}
	_, err = st.ExecContext(context.Background(), args...)
	return err
}

// exec runs a statement with a fixed text: it is prepared once and kept.
func (t *tx) exec(q string, args ...any) (int64, error) {
	st, err := t.w.stmt(q)
	if err != nil {
		return 0, err
	}
	res, err := st.ExecContext(context.Background(), args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// query runs a statement with a fixed text. The rows must be closed before the
// next statement of the transaction.
func (t *tx) query(q string, args ...any) (*sql.Rows, error) {
	st, err := t.w.stmt(q)
	if err != nil {
		return nil, err
	}
	return st.QueryContext(context.Background(), args...)
}

func (t *tx) row(q string, args ...any) *sql.Row {
	st, err := t.w.stmt(q)
	if err != nil {
		return t.w.conn.QueryRowContext(context.Background(), q, args...)
	}
	return st.QueryRowContext(context.Background(), args...)
}

// due notes that a lane has work to do once the transaction is committed.
func (t *tx) due(l Lane) { t.lanes = append(t.lanes, l) }
