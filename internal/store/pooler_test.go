package store

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// A pooler that lends a session for one transaction is refused at the start, and
// one that lends it for as long as the connection is not.
func TestPoolers(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		t.Skip("NOT TESTED: PgBouncer is not installed (apt-get install pgbouncer)")
	}
	if os.Geteuid() == 0 {
		// It refuses to run as root, as PostgreSQL does.
		program = "setpriv --reuid=postgres --regid=postgres --clear-groups " + program
	}
	p := onPostgres(t)
	cfg, err := pgx.ParseConfig(p.url)
	if err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[string]string{"transaction": "pooler in transaction or statement mode", "session": ""} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp("", "pgb-") //nolint:usetesting // the path of a socket is short
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			ini := filepath.Join(dir, "ini")
			text := fmt.Sprintf("[databases]\n%s = host=%s port=%d user=%s\n[pgbouncer]\nlisten_port = 6432\nauth_type = any\npool_mode = %s\nunix_socket_dir = %s\n",
				cfg.Database, cfg.Host, cfg.Port, cfg.User, mode, dir)
			if err := os.WriteFile(ini, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			words := append(strings.Fields(program), "-q", ini)
			cmd := exec.CommandContext(t.Context(), words[0], words[1:]...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = cmd.Wait() }) // the end of the test's context ends it
			socket := filepath.Join(dir, ".s.PGSQL.6432")
			for range 500 {
				if _, err := os.Stat(socket); err == nil {
					break
				}
				<-time.After(10 * time.Millisecond)
			}
			err = openPlace(t, place{dir: p.dir, url: fmt.Sprintf("host=%s port=6432 user=%s dbname=%s", dir, cfg.User, cfg.Database)})
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("got %v, want %q", err, want)
			}
		})
	}
}
