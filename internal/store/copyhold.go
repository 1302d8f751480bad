package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ticketwire/ticketwire/internal/fault"
)

// held is one side of a transfer, which nobody else writes to. All of it goes
// through one connection: when that ends, so does the hold, and nothing is
// written without it.
type held struct {
	s    *Store
	role string // "source" or "target"
	conn *sql.Conn
}

// holdLimit is how long a writer is waited for that is about to end, in
// milliseconds; a copy that was killed, for one.
const holdLimit = "20000"

// Hold keeps everybody else from writing to two stores, one of them embedded and
// one on a server, until Release: it takes the lock of the data directory and the
// gate of the server. While somebody delivers from either it is a Conflict. Writers
// that come later are refused or wait in vain. A server behind a pooler is Invalid:
// the lock would stay in a session that others get.
func Hold(ctx context.Context, from, to *Store) (_ *Transfer, err error) {
	if from.dialect.server == to.dialect.server {
		return nil, fault.New(fault.Invalid, "A copy goes from the embedded database to PostgreSQL, or back")
	}
	if from.dialect.pooled || to.dialect.pooled {
		return nil, fault.New(fault.Invalid, "A copy holds a session of PostgreSQL, and the URL leads to a pooler that lends them: give the server's own address")
	}
	x := &Transfer{from: &held{s: from, role: "source"}, to: &held{s: to, role: "target"}}
	defer func() {
		if err != nil {
			err = errors.Join(err, x.Release())
		}
	}()
	for _, h := range []*held{x.from, x.to} {
		if h.conn, err = h.s.read.Conn(ctx); err != nil {
			return nil, fmt.Errorf("connect to the %s: %w", h.role, err)
		}
		if err := h.take(ctx); err != nil {
			return nil, err
		}
	}
	embedded, server := x.from, x.to
	if from.dialect.server {
		embedded, server = server, embedded
	}
	x.tables, err = tablesOf(ctx, embedded, server)
	return x, err
}

// take makes this process the only one that writes.
func (h *held) take(ctx context.Context) error {
	if h.s.dialect.server {
		return h.takeServer(ctx)
	}
	if err := h.s.LockDeliveries(); err != nil {
		return fmt.Errorf("the %s is in use, stop the server first: %w", h.role, err)
	}
	if h.role == "target" {
		return nil
	}
	// What is committed goes to its place, so that state sees it. The transaction
	// that begins then writes nothing; it keeps out commands that would.
	for _, q := range []string{`pragma wal_checkpoint(truncate)`, h.s.dialect.begin} {
		if _, err := h.conn.ExecContext(ctx, q); err != nil {
			return fmt.Errorf("hold the %s: %w", h.role, err)
		}
	}
	return nil
}

func (h *held) takeServer(ctx context.Context) error {
	for _, q := range []string{
		`select set_config('lock_timeout', '` + holdLimit + `', false), set_config('synchronous_commit', 'on', false)`,
		`select pg_advisory_lock(` + gateNumber + `)`,
	} {
		if _, err := h.conn.ExecContext(ctx, q); err != nil {
			if isBusy(err) {
				return fault.Wrap(fault.Conflict, err, "Somebody writes to the %s, or another copy does: end it first", h.role)
			}
			return fmt.Errorf("hold the %s: %w", h.role, err)
		}
	}
	var node string
	err := h.conn.QueryRowContext(ctx, `select node_id from nodes where lease_until > `+databaseNow+` order by node_id limit 1`).Scan(&node)
	switch {
	case err == nil:
		return fault.New(fault.Conflict, "The %s is in use: the server %s delivers from it. Stop all servers first; one that was killed counts for %s", h.role, node, nodeLease)
	case !errors.Is(err, sql.ErrNoRows):
		return fmt.Errorf("look for servers on the %s: %w", h.role, err)
	}
	return nil
}

// Release lets others write again. Close the stores after it.
func (x *Transfer) Release() error {
	var errs []error
	for _, h := range []*held{x.from, x.to} {
		if h.conn == nil {
			continue
		}
		// An end of the session is the end of what it holds; it must not go back to the
		// pool with that.
		err := h.conn.Raw(func(any) error { return driver.ErrBadConn })
		if err != nil && !errors.Is(err, driver.ErrBadConn) && !errors.Is(err, sql.ErrConnDone) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// transaction runs fn in a transaction of a target.
func (h *held) transaction(ctx context.Context, fn func() error) error {
	if _, err := h.conn.ExecContext(ctx, h.s.dialect.begin); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	err := fn()
	if err == nil {
		_, err = h.conn.ExecContext(ctx, "commit")
	}
	if err != nil {
		_, rerr := h.conn.ExecContext(context.WithoutCancel(ctx), "rollback")
		if rerr != nil && (isNoTransaction(rerr) || errors.Is(rerr, sql.ErrConnDone)) {
			rerr = nil
		}
		return errors.Join(err, rerr)
	}
	return nil
}

// state says when the source was last written to: it is another one after each
// write, and the same as long as there was none.
func (h *held) state(ctx context.Context) (string, error) {
	if h.s.dialect.server {
		var version int64
		if err := h.conn.QueryRowContext(ctx, `select last_value from gate_version`).Scan(&version); err != nil {
			return "", fmt.Errorf("read the state of the %s: %w", h.role, err)
		}
		return fmt.Sprintf("gate %d", version), nil
	}
	info, err := os.Stat(filepath.Join(h.s.cfg.Dir, fileName))
	if err != nil {
		return "", fmt.Errorf("read the state of the %s: %w", h.role, err)
	}
	log := int64(0) // what another command has written since take
	if wal, err := os.Stat(filepath.Join(h.s.cfg.Dir, fileName+"-wal")); err == nil {
		log = wal.Size()
	}
	return fmt.Sprintf("file %d %d %d", info.Size(), info.ModTime().UnixNano(), log), nil
}

// opensSecrets refuses a key that does not open what is sealed: the copy would be
// of no use. An embedded database does not know its key, so one secret of each
// webhook is tried; a deleted one has none any more.
func (h *held) opensSecrets(ctx context.Context) error {
	rows, err := h.conn.QueryContext(ctx, `select tenant_id, webhook_id, secret from webhooks where deleted_at is null order by tenant_id, webhook_id`)
	_, err = collect(rows, err, func(r scanner) (struct{}, error) {
		var tenant, webhook, secret string
		if err := r.Scan(&tenant, &webhook, &secret); err != nil {
			return struct{}{}, err
		}
		if _, err := h.s.cfg.Vault.Open(secretPlace(tenant, webhook), secret); err != nil {
			return struct{}{}, fmt.Errorf("the key file does not open the secret of webhook %s: give the one of the %s with --secret-key-file (%w)", webhook, h.role, err)
		}
		return struct{}{}, nil
	})
	return err
}

// continueNumbers lets the sequences of a server go on after what was copied, and
// tells it how much of everything there is. The embedded database goes by the
// largest number.
func (h *held) continueNumbers(ctx context.Context, tables []table) error {
	if !h.s.dialect.server {
		return nil
	}
	for _, t := range tables {
		if t.identity != "" {
			q := `select setval(pg_get_serial_sequence($1, $2), (select max(` + t.identity + `) from ` + t.name + `))` //nolint:gosec // names of the schema
			_, err := h.conn.ExecContext(ctx, q, t.name, t.identity)
			if err != nil {
				return fmt.Errorf("continue the numbers of %s: %w", t.name, err)
			}
		}
		if _, err := h.conn.ExecContext(ctx, `analyze `+t.name); err != nil {
			return fmt.Errorf("analyze %s: %w", t.name, err)
		}
	}
	// A list of handovers is numbered after its transaction, see listID.
	_, err := h.conn.ExecContext(ctx, `select setval('gate_version', greatest(v.last_value, (select max(handover_id) / $1 + 1 from handovers)))
		from gate_version v`, listsOfCommit)
	if err != nil {
		return fmt.Errorf("continue the numbers of transactions: %w", err)
	}
	return nil
}
