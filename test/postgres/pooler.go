package postgres

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Pooler is a PgBouncer of one test in front of a server. It listens on a socket in
// a temporary directory only, and a test may end and start it.
type Pooler struct {
	process *process
	program string
	url     string
}

// poolerScript runs the program $2 in the directory $1, as script does.
const poolerScript = `
rm -f "$1"/.s.PGSQL.*
"$2" "$1/pgbouncer.ini" >>"$1/log" 2>&1 </dev/null &
read how
kill -${how:-TERM} $!
wait $!
[ "$how" ] || rm -rf "$1"
`

// Pool starts a pooler in a mode (session, transaction or statement) in front of the
// server of a connection string, with so many sessions for each of its databases.
// It ends with the test. Where PgBouncer is not installed the test is skipped: make
// packages installs it.
func Pool(t testing.TB, server, mode string, sessions int) *Pooler {
	t.Helper()
	program, err := findPooler()
	if err != nil {
		t.Skipf("NOT TESTED: %v", err)
	}
	cfg, err := pgx.ParseConfig(server)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := makeDir()
	if err != nil {
		t.Fatal(err)
	}
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
	login := "user=" + quote(cfg.User)
	if cfg.Password != "" { // it takes '' for a mistake
		login += " password=" + quote(cfg.Password)
	}
	// The rest is as it comes, but for what a fast test asks for: that sessions which
	// end are replaced at once. As they are lent in turn, the one before is no answer.
	text := fmt.Sprintf(`[databases]
* = host=%s port=%d %s
[pgbouncer]
listen_port = 6432
unix_socket_dir = %s
auth_type = any
pool_mode = %s
default_pool_size = %d
max_client_conn = 200
server_round_robin = 1
server_login_retry = 1
`, quote(cfg.Host), cfg.Port, login, dir, mode, sessions)
	if err := os.WriteFile(filepath.Join(dir, "pgbouncer.ini"), []byte(text), 0o644); err != nil { //nolint:gosec // another user reads it
		t.Fatal(err)
	}
	p := &Pooler{
		process: &process{dir: dir}, program: program,
		url: fmt.Sprintf("host=%s port=6432 user=%s dbname=%s", dir, cfg.User, cfg.Database),
	}
	p.Start(t)
	t.Cleanup(func() {
		if err := p.process.stop(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// findPooler returns the program. Debian keeps it where only root looks.
func findPooler() (string, error) {
	if p, err := exec.LookPath("pgbouncer"); err == nil {
		return p, nil
	}
	const debian = "/usr/sbin/pgbouncer"
	if _, err := os.Stat(debian); err != nil {
		return "", fmt.Errorf("PgBouncer is not installed (make packages does that): %w", err)
	}
	return debian, nil
}

// URL is the connection string of the server's database, through the pooler.
func (p *Pooler) URL() string { return p.url }

// Stop ends the pooler with a signal: TERM and KILL end it at once, INT when nobody
// is in a transaction.
func (p *Pooler) Stop(t testing.TB, signal string) {
	t.Helper()
	p.process.end(t, signal)
}

// Start starts the pooler again after Stop, and returns when the server answers
// through it.
func (p *Pooler) Start(t testing.TB) {
	t.Helper()
	started, err := begin("PgBouncer", poolerScript, p.process.dir, p.program)
	if err != nil {
		t.Fatal(err)
	}
	p.process = started
	if err := started.ready(p.url); err != nil {
		t.Fatal(err)
	}
}
