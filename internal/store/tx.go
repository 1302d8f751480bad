package store

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

// tx is one call's share of the writer's transaction. It must not outlive fn.
type tx struct {
	w      *writer
	intake *Intake   // nil: nobody delivers
	out    Committed // what the dispatcher learns once this commits
	wrote  bool      // a failure of the call leaves something to undo
	moved  bool      // it has changed what is remembered: what events ask for, a name, or what a key opens
	given  []Claimed // what other nodes get, under their name
}

// prepared is a statement of the write connection.
type prepared struct {
	*sql.Stmt
	writes bool
}

func (w *writer) stmt(q string) (prepared, error) {
	if st, ok := w.stmts[q]; ok {
		return st, nil
	}
	st, err := w.conn.PrepareContext(context.Background(), w.s.dialect.marks(q))
	if err != nil {
		return prepared{}, fmt.Errorf("prepare: %w", err)
	}
	p := prepared{Stmt: st, writes: !strings.HasPrefix(strings.TrimSpace(q), "select")}
	w.stmts[q] = p
	return p, nil
}

func (w *writer) exec(q string, args ...any) error {
	st, err := w.stmt(q)
	if err != nil {
		return err
	}
	w.s.dialect.texts(args)
	_, err = st.ExecContext(context.Background(), args...)
	return err
}

// stmt prepares a statement, sends what was deferred before it, and notes that the
// call has something to undo from now on if it writes.
func (t *tx) stmt(q string, args []any) (prepared, error) {
	if err := t.w.flush(); err != nil {
		return prepared{}, err
	}
	t.w.s.dialect.texts(args)
	st, err := t.w.stmt(q)
	t.wrote = t.wrote || st.writes
	return st, err
}

// exec runs a statement with a fixed text: it is prepared once and kept.
func (t *tx) exec(q string, args ...any) (int64, error) {
	st, err := t.stmt(q, args)
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
	st, err := t.stmt(q, args)
	if err != nil {
		return nil, err
	}
	return st.QueryContext(context.Background(), args...)
}

func (t *tx) row(q string, args ...any) *sql.Row {
	st, err := t.stmt(q, args)
	if err != nil {
		// database/sql reports the same error again from the row.
		return t.w.conn.QueryRowContext(context.Background(), q, args...)
	}
	return st.QueryRowContext(context.Background(), args...)
}

// due notes that a lane has work to do once the transaction is committed.
func (t *tx) due(l Lane) { t.out.Due = append(t.out.Due, l) }

// changed notes that a webhook is not what it was.
func (t *tx) changed(l Lane) {
	delete(t.w.recent.targets, l)
	delete(t.w.recent.there, l)
	t.out.Changed = append(t.out.Changed, l)
}
