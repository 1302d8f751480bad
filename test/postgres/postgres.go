// Package postgres gives a test a PostgreSQL of its own: a database on a private
// cluster that is made from the installed programs, listens on a socket in a
// temporary directory only, and ends with the tests, even when they are killed.
//
// TICKETWIRE_TEST_POSTGRES, a connection string, names another server to use
// instead; its user must be allowed to create databases.
package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
)

// Server names the variable with the connection string of another server.
const Server = "TICKETWIRE_TEST_POSTGRES"

// patience bounds the start and the end of a cluster on a busy machine.
const patience = time.Minute

// shared is the cluster of this process. Tests that run at the same time share
// it; it ends when the last of them does.
//
//nolint:gochecknoglobals // one per process is the point
var shared struct {
	sync.Mutex
	users   int
	cluster *cluster
}

// Start returns the connection string of an empty database for the driver "pgx".
// The database is dropped when the test ends. Without the programs of PostgreSQL
// the test fails: make packages installs them.
func Start(t testing.TB) string {
	t.Helper()
	server := os.Getenv(Server)
	if server == "" {
		server = share(t)
	}
	name := "ticketwire_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	admin(t, server, "create database "+name)
	t.Cleanup(func() { admin(t, server, "drop database "+name+" with (force)") })
	return database(t, server, name)
}

// share starts the cluster if nobody has.
func share(t testing.TB) string {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.users == 0 {
		c, err := start()
		if err != nil {
			t.Fatal(err)
		}
		shared.cluster = c
	}
	shared.users++
	t.Cleanup(func() {
		shared.Lock()
		defer shared.Unlock()
		if shared.users--; shared.users == 0 {
			if err := shared.cluster.stop(); err != nil {
				t.Error(err)
			}
		}
	})
	return shared.cluster.dsn()
}

func admin(t testing.TB, server, statement string) {
	t.Helper()
	db, err := sql.Open("pgx", server)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := db.ExecContext(ctx, statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// database returns the connection string with another database in it.
func database(t testing.TB, server, name string) string {
	t.Helper()
	if !strings.Contains(server, "://") {
		return server + " dbname=" + name // the last one counts
	}
	u, err := url.Parse(server)
	if err != nil {
		t.Fatalf("%s: %v", Server, err)
	}
	u.Path = "/" + name
	return u.String()
}

// cluster is a running server.
type cluster struct{ *process }

// process is a program that runs in a directory of its own. Its parent is a shell
// that waits for the end of its input, which comes with stop and with any end of
// this process.
type process struct {
	what, dir string
	shell     *exec.Cmd
	input     io.WriteCloser
	ended     chan struct{}
}

// script makes and runs a cluster in the directory $1 with the programs in $2. It
// reads the signal to end it with, and keeps the directory after one.
// What it holds is worth nothing after the tests, so nothing is synced.
const script = `
[ -d "$1/data" ] || "$2/initdb" -D "$1/data" -U postgres --auth=trust --encoding=UTF8 --locale=C --no-sync >"$1/log" 2>&1 || exit 1
"$2/postgres" -D "$1/data" -k "$1" -c listen_addresses= -c fsync=off -c max_connections=200 -c max_wal_size=128MB >>"$1/log" 2>&1 </dev/null &
read how
kill -${how:-INT} $!
wait $!
[ "$how" ] || rm -rf "$1"
`

// memory is where a cluster is fast: a test makes and drops a database, which is
// hundreds of files.
const memory = "/dev/shm"

func start() (*cluster, error) {
	dir, err := makeDir()
	if err != nil {
		return nil, err
	}
	return run(dir)
}

func makeDir() (string, error) {
	parent := ""
	if info, err := os.Stat(memory); err == nil && info.IsDir() {
		parent = memory
	}
	return os.MkdirTemp(parent, "ticketwire-pg-")
}

// run starts the server in a directory, which is empty or that of one before.
func run(dir string) (*cluster, error) {
	programs, err := find()
	if err != nil {
		return nil, err
	}
	c, err := begin("PostgreSQL", script, dir, programs)
	if err != nil {
		return nil, err
	}
	if err := c.ready(c.dsn()); err != nil {
		return nil, err
	}
	return &cluster{c}, nil
}

// begin runs a script with a directory and another argument.
func begin(what, script, dir, arg string) (*process, error) {
	c := &process{what: what, dir: dir, ended: make(chan struct{})}
	args := []string{"/bin/sh", "-c", script, "sh", dir, arg}
	if os.Geteuid() == 0 { // neither PostgreSQL nor PgBouncer runs as root
		if err := giveAway(dir); err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
		args = append([]string{"setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"}, args...)
	}
	c.shell = exec.Command(args[0], args[1:]...) //nolint:gosec,noctx // programs of this machine, ended by stop
	c.shell.Dir = dir
	var err error
	if c.input, err = c.shell.StdinPipe(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := c.shell.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", what, err), os.RemoveAll(dir))
	}
	go func() {
		defer close(c.ended)
		_ = c.shell.Wait() // what went wrong is in the log
	}()
	return c, nil
}

// find returns the directory of the newest server that is installed. Debian
// keeps them off the path.
func find() (string, error) {
	if p, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(p), nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("PostgreSQL is not installed (make packages does that), and %s is not set", Server)
	}
	version := func(p string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(p)))) // 0 for what is no number
		return n
	}
	return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })), nil
}

func giveAway(dir string) error {
	u, err := user.Lookup("postgres")
	if err != nil {
		return fmt.Errorf("PostgreSQL does not run as root: %w", err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return err
	}
	return os.Chown(dir, uid, gid)
}

func (c *process) dsn() string { return "host=" + c.dir + " user=postgres dbname=postgres" }

// ready waits until the server answers. One that does not is stopped.
func (c *process) ready(dsn string) error {
	err := c.answers(dsn)
	if err != nil {
		text, rerr := os.ReadFile(filepath.Join(c.dir, "log"))
		return fmt.Errorf("start %s: %w\n%s", c.what, errors.Join(err, rerr, c.stop()), text)
	}
	return nil
}

func (c *process) answers(dsn string) error {
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := db.PingContext(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-c.ended:
			return errors.New("it ended at once")
		case <-ctx.Done():
			return err
		}
	}
}

// Instance is a server of one test, which may end and start it.
type Instance struct{ cluster *cluster }

// Own returns a server that nobody else uses. It ends with the test.
func Own(t testing.TB) *Instance {
	t.Helper()
	c, err := start()
	if err != nil {
		t.Fatal(err)
	}
	s := &Instance{c}
	t.Cleanup(func() {
		if err := s.cluster.stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// URL is the connection string of its database.
func (s *Instance) URL() string { return s.cluster.dsn() }

// Stop ends the server: with the signal INT as its operator does, with QUIT at
// once and without a checkpoint, as after a crash. Its files stay.
func (s *Instance) Stop(t testing.TB, signal string) {
	t.Helper()
	s.cluster.end(t, signal)
}

func (c *process) end(t testing.TB, signal string) {
	t.Helper()
	if _, err := fmt.Fprintln(c.input, signal); err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.ended:
	case <-time.After(patience):
		t.Fatalf("%s did not stop", c.what)
	}
}

// Start starts the server again after Stop, and returns when it answers.
func (s *Instance) Start(t testing.TB) {
	t.Helper()
	c, err := run(s.cluster.dir)
	if err != nil {
		t.Fatal(err)
	}
	s.cluster = c
}

// stop ends the server and removes its files.
func (c *process) stop() error {
	if err := c.input.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("stop %s: %w", c.what, err)
	}
	select {
	case <-c.ended:
	case <-time.After(patience):
		return errors.Join(fmt.Errorf("%s did not stop", c.what), c.shell.Process.Kill())
	}
	return os.RemoveAll(c.dir)
}

// URL turns a connection string into a URL, for who takes nothing else.
func URL(t testing.TB, dsn string) string {
	t.Helper()
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(dsn, "://") {
		return dsn
	}
	q := url.Values{"host": {cfg.Host}, "port": {strconv.Itoa(int(cfg.Port))}, "user": {cfg.User}}
	return (&url.URL{Scheme: "postgres", Path: "/" + cfg.Database, RawQuery: q.Encode()}).String()
}
