package store

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ticketwire/ticketwire/internal/vault"
)

// openPlace opens a place and returns what that says.
func openPlace(t *testing.T, p place) error {
	t.Helper()
	v, err := vault.Open(filepath.Join(p.dir, "secret.key"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), Config{Dir: p.dir, DatabaseURL: p.url, Now: time.Now, Vault: v})
	if err != nil {
		return err
	}
	return s.Close()
}

// Processes that start at the same time on an empty database migrate it once.
func TestManyOpenAnEmptyServer(t *testing.T) {
	t.Parallel()
	onServers(t, manyOpen)
}

func manyOpen(t *testing.T, p place) {
	if _, err := vault.Open(filepath.Join(p.dir, "secret.key")); err != nil { // made by one of them
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := openPlace(t, p); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// A server that cannot be used is refused with what is wrong and without the
// password.
func TestServersThatAreRefused(t *testing.T) {
	t.Parallel()
	p := onPostgres(t)
	if err := openPlace(t, p); err != nil {
		t.Fatal(err)
	}
	admin := func(t *testing.T, p place, statements ...string) {
		t.Helper()
		ctx := context.Background() // cleanups call it too
		c, err := pgx.Connect(ctx, p.url)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(ctx)
		for _, q := range statements {
			if _, err := c.Exec(ctx, q); err != nil {
				t.Fatalf("%s: %v", q, err)
			}
		}
	}
	for name, c := range map[string]struct {
		change func(*testing.T, *place)
		want   string
	}{
		"another key": {func(t *testing.T, p *place) { p.dir = t.TempDir() }, "another key"},
		"nobody there": {func(_ *testing.T, p *place) {
			p.url = "postgres://me:s3cret@127.0.0.1:1/x"
		}, "connect to `user=me database=x`: 127.0.0.1:1 (127.0.0.1): dial error: dial tcp 127.0.0.1:1: connect: connection refused"},
		"a standby": {func(t *testing.T, p *place) {
			*p = onPostgres(t)
			admin(t, *p, `do $$ begin execute format('alter database %I set default_transaction_read_only = on', current_database()); end $$`)
		}, "the database is read-only"},
		"no URL": {func(_ *testing.T, p *place) { p.url = "postgres://me:s3cret@host:port/x" }, "want postgres://USER"},
		"no rights": {func(t *testing.T, p *place) {
			*p = onPostgres(t)
			role := "reader_" + strings.ReplaceAll(NewID(), "-", "")
			admin(t, *p, `create role `+role+` login`, `revoke create on schema public from public`)
			owner := *p
			t.Cleanup(func() { admin(t, owner, `drop role `+role) })
			if strings.Contains(p.url, "://") {
				t.Skip("the user of the other server cannot be exchanged here")
			}
			p.url += " user=" + role
		}, "may not create tables"},
		"a newer release": {func(t *testing.T, p *place) {
			*p = onPostgres(t)
			if err := openPlace(t, *p); err != nil {
				t.Fatal(err)
			}
			admin(t, *p, `insert into migrations (name) values ('9999_later.sql')`)
		}, "newer release (it has 9999_later.sql)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := p
			c.change(t, &at)
			err := openPlace(t, at)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret") || strings.Count(err.Error(), "connection refused") > 1 {
				t.Errorf("got %v, want something about %q", err, c.want)
			}
		})
	}
}

// A database that does not wait for its disk is made to: what was acknowledged would
// be lost with the machine. One that waits for more keeps that.
func TestCommitsWaitForTheDisk(t *testing.T) {
	t.Parallel()
	p := onPostgres(t)
	admin := openAt(t, p)
	for set, want := range map[string]string{"off": "on", "on": "on", "remote_apply": "remote_apply"} {
		_, err := admin.side.ExecContext(t.Context(), `do $$ begin
			execute format('alter database %I set synchronous_commit = `+set+`', current_database()); end $$`)
		if err != nil {
			t.Fatal(err)
		}
		var got string
		err = openAt(t, p).do(t.Context(), func(x *tx) error {
			return x.row(`select current_setting('synchronous_commit')`).Scan(&got)
		})
		if err != nil || got != want {
			t.Errorf("%s: transactions have %q (%v), want %q", set, got, err, want)
		}
	}
}
