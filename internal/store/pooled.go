package store

import (
	"context"
	"database/sql/driver"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// A pooler such as PgBouncer may lend a session for one transaction, and the next
// one of the same connection meets another. So nothing may be left in a session:
// settings and locks are those of a transaction anyway, statements are not prepared
// there, and nobody listens (see hint.go). PgBouncer before 1.21 knows nothing of
// prepared statements; what is done here works with any.
//
// The driver remembers what arguments a statement takes and sends its text each
// time, so that it is one round trip as elsewhere. PostgreSQL parses and plans it
// each time, which is what a pooler costs.

// throughPooler returns what makes connections through a pooler.
func throughPooler(cfg *pgx.ConnConfig) driver.Connector {
	cfg.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	return pooledConnector{stdlib.GetConnector(*cfg)}
}

type pooledConnector struct{ driver.Connector }

// Connect makes a connection whose statements are prepared on this side only.
func (c pooledConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return pooledConn{conn.(*stdlib.Conn)}, nil //nolint:forcetypeassert // it is that package's
}

// driverOwn is embedded under a name that does not hide its method Conn.
type driverOwn = stdlib.Conn

type pooledConn struct{ *driverOwn }

// PrepareContext sends nothing.
func (c pooledConn) PrepareContext(_ context.Context, text string) (driver.Stmt, error) {
	return pooledStmt{conn: c.driverOwn, text: text}, nil
}

// pooledStmt is a statement that is sent as a text.
type pooledStmt struct {
	driver.Stmt // nil: database/sql calls its older methods where there are no newer ones
	conn        *stdlib.Conn
	text        string
}

// Close has nothing to close.
func (s pooledStmt) Close() error { return nil }

// NumInput leaves the count of arguments to the server.
func (s pooledStmt) NumInput() int { return -1 }

// ExecContext sends the statement.
func (s pooledStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return s.conn.ExecContext(ctx, s.text, args)
}

// QueryContext sends the statement and returns its rows.
func (s pooledStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return s.conn.QueryContext(ctx, s.text, args)
}
