package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Scratch is an empty database on a server, made for one purpose. It keeps one
// connection to the database that it was made from and changes nothing there. It is
// for one goroutine.
type Scratch struct {
	URL string // the connection string of the new database
	// Process is the server's process of the connection, by its number on this
	// machine; 0 when the server is on another machine.
	Process int

	conn *pgx.Conn
	name string
}

// NewScratch makes a database with a name of its own on the server of a connection
// string. now is the clock that its answers are waited for by. Drop it in the end.
func NewScratch(ctx context.Context, target string, now func() time.Time) (s *Scratch, err error) {
	cfg, err := postgresConfig(target, now)
	if err != nil {
		return nil, err
	}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec // as for checkServer
	s = &Scratch{name: "ticketwire_scratch_" + strings.ToLower(rand.Text())}
	if s.URL, err = elsewhere(target, s.name); err != nil {
		return nil, err
	}
	if s.conn, err = pgx.ConnectConfig(ctx, cfg); err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	if onThisMachine(s.conn) {
		s.Process = int(s.conn.PgConn().PID())
	}
	if _, err := s.conn.Exec(ctx, "create database "+s.name); err != nil {
		if postgresCode(err) == insufficientPrivilege {
			err = fmt.Errorf("a database of its own is needed and may not be made; allow it (alter role %s createdb): %w", cfg.User, err)
		}
		return nil, errors.Join(fmt.Errorf("make a database: %w", err), s.conn.Close(ctx))
	}
	return s, nil
}

// Drop removes the database with everything in it, whoever is connected to it.
func (s *Scratch) Drop(ctx context.Context) error {
	_, err := s.conn.Exec(ctx, "drop database "+s.name+" with (force)")
	if err != nil {
		err = fmt.Errorf("drop the database %s: %w", s.name, err)
	}
	return errors.Join(err, s.conn.Close(ctx))
}

// onThisMachine reports whether the server is reached without a network.
func onThisMachine(c *pgx.Conn) bool {
	switch a := c.PgConn().Conn().RemoteAddr(); a.Network() {
	case "unix":
		return true
	case "tcp":
		host := strings.Trim(a.String()[:strings.LastIndexByte(a.String(), ':')], "[]")
		return host == "::1" || strings.HasPrefix(host, "127.")
	}
	return false
}

// elsewhere is a connection string with another database in it.
func elsewhere(target, name string) (string, error) {
	there := target + " dbname=" + name // the last one counts
	if strings.Contains(target, "://") {
		u, err := url.Parse(target)
		if err != nil {
			return "", errors.New("the connection string is no URL") // the error would quote it, with its password
		}
		u.Path, u.RawPath = "/"+name, ""
		q := u.Query()
		q.Del("dbname")
		q.Del("database")
		u.RawQuery = q.Encode()
		there = u.String()
	}
	if cfg, err := pgx.ParseConfig(there); err != nil || cfg.Database != name {
		return "", errors.New("the connection string cannot be given the name of another database; write it as postgres://USER:PASSWORD@HOST/NAME")
	}
	return there, nil
}
