package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/vault"
)

type copyCmd struct {
	From          installation `help:"What to copy: sqlite:DIR or postgres://USER:PASSWORD@HOST/NAME." required:"" placeholder:"PLACE"`
	To            installation `help:"Where to, in the same form, and the other kind of database; empty, or an unfinished copy." required:"" placeholder:"PLACE"`
	SecretKeyFile string       `help:"File with the key that seals secrets at rest. Default: secret.key in the data directory." placeholder:"FILE"`
	VerifyOnly    bool         `help:"Copy nothing, compare both."`
	JSON          bool         `name:"json" help:"Print one JSON object."`
}

// Help is shown below the flags.
func (copyCmd) Help() string {
	return `Moves an installation from the embedded database to PostgreSQL, or back, with every
row and every number, and compares both sides. Stop all servers first: while one
delivers from either side, it is refused. It may be killed at any moment; the same
command then goes on where it ended, or begins again if the source has changed
meanwhile. No server starts on a copy that is not finished. The source stays as it
is; only its schema is brought up to date, as by every command.

The copy is sealed with the same key. A new data directory gets a copy of the key
file. A URL with a password is better given as TICKETWIRE_FROM or TICKETWIRE_TO.

Exit code 0: the copy is identical. 1: something differs, or failed. 5: somebody
uses one of the two, or the target is not empty.

Examples:
  ticketwire copy --from sqlite:./ticketwire-data --to postgres://ticketwire@db.example.com/ticketwire
  ticketwire copy --from postgres://ticketwire@db.example.com/ticketwire --to sqlite:./new-data --secret-key-file secret.key`
}

// installation is one side of a copy.
type installation struct{ dir, url string }

// UnmarshalText reads sqlite:DIR, or the URL of a PostgreSQL.
func (p *installation) UnmarshalText(text []byte) error {
	dir, embedded := strings.CutPrefix(string(text), "sqlite:")
	switch {
	case embedded && dir != "":
		p.dir = filepath.Clean(dir)
	case bytes.HasPrefix(text, []byte("postgres://")) || bytes.HasPrefix(text, []byte("postgresql://")):
		p.url = string(text)
	default:
		return errors.New("want sqlite:DIR, or postgres://USER:PASSWORD@HOST/NAME")
	}
	return nil
}

// name is the same for the same place, and holds no password.
func (p installation) name() (string, error) {
	if p.url == "" {
		dir, err := filepath.Abs(p.dir)
		return "sqlite:" + dir, err
	}
	u, err := url.Parse(p.url)
	if err != nil {
		return "", usageError{errors.New("the URL of PostgreSQL cannot be read"), "ticketwire copy --help"}
	}
	if u.User != nil {
		u.User = url.User(u.User.Username())
	}
	q := u.Query()
	q.Del("password")
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// copyResult is what the command prints.
type copyResult struct {
	From      string        `json:"from"`
	To        string        `json:"to"`
	Identical bool          `json:"identical"`
	Copied    int64         `json:"copied"` // rows, by this run
	Resumed   bool          `json:"resumed"`
	Seconds   float64       `json:"seconds"`
	Tables    []copiedTable `json:"tables"`
	Next      string        `json:"next,omitempty"` // commands
	Back      string        `json:"back,omitempty"`
}

type copiedTable struct {
	Name       string           `json:"name"`
	Rows       int64            `json:"rows"`
	Copies     int64            `json:"rows_of_target"`
	Checksum   string           `json:"checksum"`
	Identical  bool             `json:"identical"`
	Difference string           `json:"first_difference,omitempty"`
	Altered    map[string]int64 `json:"altered,omitempty"`
}

// Run copies and compares.
func (c *copyCmd) Run(ctx context.Context, t terminal) error {
	r, key, err := c.prepare()
	if err != nil {
		return err
	}
	began := time.Now()
	report, err := c.move(ctx, t, r.From, key)
	if err != nil {
		return err
	}
	r.Seconds = time.Since(began).Seconds()
	r.Copied, r.Resumed, r.Identical = report.Rows, report.Resumed, store.Same(report.Tables)
	for _, x := range report.Tables {
		r.Tables = append(r.Tables, copiedTable{x.Name, x.Rows, x.Copies, x.Checksum, x.Difference == "", x.Difference, x.Altered})
	}
	if r.Identical && !c.VerifyOnly {
		r.Next, r.Back = c.next(r)
	}
	if c.JSON {
		err = printJSON(t.out, r)
	} else {
		err = c.print(t.out, r, report)
	}
	if err == nil && !r.Identical {
		return exitStatus(exitFailed)
	}
	return err
}

// prepare checks what was given, before anything is opened or made.
func (c *copyCmd) prepare() (r copyResult, key string, err error) {
	if (c.From.url == "") == (c.To.url == "") {
		return r, "", usageError{
			errors.New("--from and --to are the same kind of database: copy a data directory with the server stopped, and a PostgreSQL with pg_dump"),
			"ticketwire copy --from sqlite:./ticketwire-data --to postgres://ticketwire@db.example.com/ticketwire",
		}
	}
	if r.From, err = c.From.name(); err != nil {
		return r, "", err
	}
	if r.To, err = c.To.name(); err != nil {
		return r, "", err
	}
	if c.From.dir != "" || c.VerifyOnly {
		file := filepath.Join(c.dir(), "ticketwire.db")
		if _, err := os.Stat(file); err != nil {
			return r, "", usageError{fmt.Errorf("there is no installation in %s: %w", c.dir(), err), ""}
		}
	}
	key = c.SecretKeyFile
	if key == "" {
		key = c.ownKey()
	}
	if _, err := os.Stat(key); err != nil {
		return r, "", usageError{fmt.Errorf("the key file that the source is sealed with is needed: %w", err), "--secret-key-file FILE"}
	}
	return r, key, nil
}

// dir is the data directory of the embedded side.
func (c *copyCmd) dir() string { return c.From.dir + c.To.dir }

func (c *copyCmd) ownKey() string { return filepath.Join(c.dir(), "secret.key") }

// move opens both sides, the source first: a target is made when it is known that
// there is something to copy.
func (c *copyCmd) move(ctx context.Context, t terminal, source, key string) (report store.CopyReport, err error) {
	v, err := vault.Open(key)
	if err != nil {
		return report, err
	}
	open := func(p installation, target bool) (*store.Store, error) {
		s, err := store.Open(ctx, store.Config{Dir: p.dir, DatabaseURL: p.url, Now: time.Now, Vault: v, CopyTarget: target})
		if err != nil {
			return nil, fmt.Errorf("open %s%s: %w", p.dir, redactURL(p.url), err)
		}
		return s, nil
	}
	from, err := open(c.From, false)
	if err != nil {
		return report, err
	}
	defer closing(from, &err)
	tenants, err := from.Tenants(ctx)
	if err != nil {
		return report, err
	}
	if len(tenants) == 0 {
		return report, fault.New(fault.NotFound, "The source has no tenant: there is nothing to copy")
	}
	to, err := open(c.To, true)
	if err != nil {
		return report, err
	}
	defer closing(to, &err)
	x, err := store.Hold(ctx, from, to)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, x.Release()) }()
	p := newProgress(t)
	defer p.end()
	p.begin("copy")
	began := time.Now()
	heard := func(s store.CopyStep) {
		doing := "copying"
		if s.Comparing {
			doing = "comparing"
		}
		p.note("%s %s: %d rows, %s", doing, s.Table, s.Rows, time.Since(began).Round(time.Second))
	}
	if c.VerifyOnly {
		report.Tables, err = x.Compare(ctx, heard)
		return report, err
	}
	if c.To.dir != "" {
		if err := copyKey(key, c.ownKey()); err != nil {
			return report, err
		}
	}
	return x.Copy(ctx, source, heard)
}

// copyKey puts the key file into a new data directory: a server that starts there
// must not make another one.
func copyKey(from, to string) error {
	key, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("read the key file: %w", err)
	}
	switch there, err := os.ReadFile(to); {
	case err == nil && bytes.Equal(there, key):
		return nil
	case err == nil:
		return fault.New(fault.Conflict, "%s is another key than %s: name an empty directory, or move it away", to, from)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("read the key file: %w", err)
	}
	if err := os.WriteFile(to, key, 0o600); err != nil { //nolint:gosec // where the operator says
		return fmt.Errorf("copy the key file: %w", err)
	}
	return nil
}

// next returns the commands to go on with.
func (c *copyCmd) next(r copyResult) (next, back string) {
	where := "--data " + shellWord(c.dir())
	if c.From.dir == "" {
		back = fmt.Sprintf("ticketwire serve --database-url %s --secret-key-file %s", shellWord(r.From), shellWord(c.ownKey()))
		return "ticketwire serve " + where, back
	}
	back = "ticketwire serve " + where
	if c.SecretKeyFile != "" {
		back += " --secret-key-file " + shellWord(c.SecretKeyFile)
		where = "--secret-key-file " + shellWord(c.SecretKeyFile)
	}
	return fmt.Sprintf("ticketwire serve %s --database-url %s", where, shellWord(r.To)), back
}

func (c *copyCmd) print(out io.Writer, r copyResult, report store.CopyReport) error {
	switch {
	case report.Again:
		fmt.Fprintln(out, "The source has changed since the unfinished copy that was there: it began again.")
	case report.Resumed:
		fmt.Fprintln(out, "Went on with the unfinished copy that was there.")
	case report.Done:
		fmt.Fprintln(out, "The copy was finished before: it was compared once more.")
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TABLE\tROWS\tCHECKSUM\t")
	for _, x := range r.Tables {
		state := "identical"
		if !x.Identical {
			state = fmt.Sprintf("DIFFERS: %d rows in the target; %s", x.Copies, printable(x.Difference))
		}
		fmt.Fprintf(w, "%s\t%d\t%.16s\t%s\n", x.Name, x.Rows, x.Checksum, state)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, x := range r.Tables {
		for _, column := range slices.Sorted(maps.Keys(x.Altered)) {
			fmt.Fprintf(out, "%s.%s: %d texts have a byte 0 or are not UTF-8, which PostgreSQL does not take; it has U+FFFD there.\n", x.Name, column, x.Altered[column])
		}
	}
	if !c.VerifyOnly {
		fmt.Fprintf(out, "%d rows were copied and all were compared in %.1f s.\n", r.Copied, r.Seconds)
	}
	if !r.Identical {
		_, err := fmt.Fprintln(out, "The copy differs from its source.")
		return err
	}
	fmt.Fprintln(out, "The copy is identical.")
	if r.Next == "" {
		return nil
	}
	_, err := fmt.Fprintf(out, "Next:     %s\nGo back:  %s\n          (while nothing has changed; later: ticketwire copy in the other direction, to an empty target)\n", r.Next, r.Back)
	return err
}
