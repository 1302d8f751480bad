package store

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/ticketwire/ticketwire/internal/fault"
)

// Transfer moves an installation between the embedded database and a server, with
// nobody writing to either. Make one with Hold. It is for one goroutine.
type Transfer struct {
	from, to *held
	tables   []table
}

// CopyReport is what came of a Copy.
type CopyReport struct {
	Tables  []CopiedTable
	Rows    int64 // that this run has copied
	Resumed bool  // an earlier run had begun, and this one went on where it ended
	Again   bool  // the source has changed since an earlier run, so this one began again
	Done    bool  // an earlier run had finished, so this one has only compared
}

// CopiedTable compares one table of both databases.
type CopiedTable struct {
	Name         string
	Rows, Copies int64 // rows of the source and of the target
	// Checksum is that of the source's rows, in hex: over every column, and the same
	// in whatever order rows are read.
	Checksum string
	// Altered counts by column the texts that PostgreSQL does not take as they are: a
	// byte 0, or what is not UTF-8, is U+FFFD in the copy.
	Altered map[string]int64
	// Difference names the first row that differs, and in what; "" of a table that is
	// identical.
	Difference string
}

// CopyStep tells how far a transfer is.
type CopyStep struct {
	Comparing bool // not copying
	Table     string
	Rows      int64 // of the table, as far as this run has come
}

// Same reports whether every table is the same on both sides.
func Same(tables []CopiedTable) bool {
	for i := range tables {
		if tables[i].Difference != "" {
			return false
		}
	}
	return true
}

// Copy copies what is not there yet, one page in each transaction of the target,
// and then compares. source names where it comes from, for a later run. The target
// must be empty, or hold what an earlier Copy from the same source has left, which
// this one continues; otherwise it is a Conflict. Only when both sides are the same
// is the copy finished, and servers may start on it.
func (x *Transfer) Copy(ctx context.Context, source string, heard func(CopyStep)) (CopyReport, error) {
	var out CopyReport
	if err := x.from.opensSecrets(ctx); err != nil {
		return out, err
	}
	if err := x.begin(ctx, source, &out); err != nil {
		return out, err
	}
	for i := range x.tables {
		if out.Done {
			break
		}
		n, err := x.copyTable(ctx, &x.tables[i], heard)
		out.Rows += n
		if err != nil {
			return out, fmt.Errorf("copy %s: %w", x.tables[i].name, err)
		}
	}
	var err error
	if out.Tables, err = x.Compare(ctx, heard); err != nil || out.Done || !Same(out.Tables) {
		return out, err
	}
	return out, x.finish(ctx)
}

// begin decides what the target is good for.
func (x *Transfer) begin(ctx context.Context, source string, out *CopyReport) error {
	state, err := x.from.state(ctx)
	if err != nil {
		return err
	}
	var earlier, as string
	err = x.to.conn.QueryRowContext(ctx, `select source, state, finished from copies`).Scan(&earlier, &as, &out.Done)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		if err := x.refuseFull(ctx); err != nil {
			return err
		}
	case err != nil:
		return fmt.Errorf("read how far a copy has come: %w", err)
	case earlier == source && as == state:
		out.Resumed = !out.Done
		return nil
	case out.Done:
		return x.refuseFull(ctx)
	case earlier != source:
		return fault.New(fault.Conflict, "The target holds an unfinished copy of %s: go on with --from %s, or name an empty target", earlier, earlier)
	default:
		out.Again = true
	}
	if err := x.makeDays(ctx); err != nil {
		return err
	}
	return x.to.transaction(ctx, func() error {
		for _, q := range x.emptying(out.Again) {
			if _, err := x.to.conn.ExecContext(ctx, q); err != nil {
				return fmt.Errorf("begin the copy again: %w", err)
			}
		}
		_, err := x.to.conn.ExecContext(ctx, `insert into copies (source, state) values ($1, $2)`, source, state)
		if err != nil {
			return fmt.Errorf("begin the copy: %w", err)
		}
		return nil
	})
}

// copiedDays is how many days of the past a server gets a partition for; what is
// older is swept row by row.
const copiedDays = 100

// makeDays makes the partitions of the days that the source has something of, if the
// target is a server. Events that an embedded database has numbered have one anyway.
func (x *Transfer) makeDays(ctx context.Context) error {
	if !x.to.s.dialect.server {
		return nil
	}
	today := dayOf(x.to.s.cfg.Now())
	var first sql.NullInt64
	err := x.from.conn.QueryRowContext(ctx, `select min(completed_at) from deliveries where completed_at >= $1`,
		(today - copiedDays).begin()).Scan(&first)
	if err != nil {
		return fmt.Errorf("find the first day of the source: %w", err)
	}
	from := today
	if first.Valid {
		from = min(today, day(first.Int64/microsPerDay))
	}
	return x.to.s.makeDays(ctx, from, today)
}

// emptying returns the statements that clear an unfinished copy away.
func (x *Transfer) emptying(again bool) []string {
	if !again {
		return nil
	}
	all := "delete from " // which SQLite does at once for a whole table
	if x.to.s.dialect.server {
		all = "truncate "
	}
	out := []string{all + "copies", all + "copied_tables"}
	for _, t := range x.tables {
		out = append(out, all+t.name)
	}
	return out
}

// refuseFull refuses a target that has something, by name.
func (x *Transfer) refuseFull(ctx context.Context) error {
	var full []string
	for _, t := range x.tables {
		var has bool
		if err := x.to.conn.QueryRowContext(ctx, `select exists (select 1 from `+t.name+`)`).Scan(&has); err != nil {
			return fmt.Errorf("look whether the target is empty: %w", err)
		}
		if has {
			full = append(full, t.name)
		}
	}
	if len(full) == 0 {
		return nil
	}
	rows, err := x.to.conn.QueryContext(ctx, `select name from tenants order by created_at limit 3`)
	tenants, err := collect(rows, err, func(r scanner) (name string, err error) {
		err = r.Scan(&name)
		return name, err
	})
	if err != nil {
		return err
	}
	return fault.New(fault.Conflict, "The target is not empty: it has rows in %s (first tenants: %s). Name a new database or directory; nothing was changed in this one",
		strings.Join(full, ", "), strings.Join(tenants, ", "))
}

// copyTable copies what the target does not have of a table. How far it is stands
// in the transaction of each page.
func (x *Transfer) copyTable(ctx context.Context, t *table, heard func(CopyStep)) (copied int64, err error) {
	after, err := x.to.lastKey(ctx, t)
	if err != nil {
		return 0, err
	}
	for {
		rows, err := x.from.page(ctx, t, after)
		if err != nil || len(rows) == 0 {
			return copied, err
		}
		after = t.key(rows[len(rows)-1])
		key, err := encodeKey(after)
		if err != nil {
			return copied, err
		}
		for _, r := range rows {
			x.alter(t, r, nil)
		}
		err = x.to.transaction(ctx, func() error {
			if err := x.to.insert(ctx, t, rows); err != nil {
				return err
			}
			_, err := x.to.conn.ExecContext(ctx, `insert into copied_tables (table_name, last_key) values ($1, $2)
				on conflict (table_name) do update set last_key = excluded.last_key`, t.name, key)
			return err
		})
		if err != nil {
			return copied, err
		}
		copied += int64(len(rows))
		heard(CopyStep{Table: t.name, Rows: copied})
	}
}

// alter makes the texts of a row what a server takes, if one side is that of one,
// and counts those that were not.
func (x *Transfer) alter(t *table, row []any, count map[string]int64) {
	for i, v := range row {
		text, is := v.(string)
		if !is {
			continue
		}
		if s := storable(text); s != text {
			row[i] = s
			if count != nil {
				count[t.columns[i].name]++
			}
		}
	}
}

// Compare reads both sides and says what differs. The source is read as the target
// can keep it.
func (x *Transfer) Compare(ctx context.Context, heard func(CopyStep)) ([]CopiedTable, error) {
	var out []CopiedTable
	for i := range x.tables {
		c, err := x.compareTable(ctx, &x.tables[i], heard)
		if err != nil {
			return nil, fmt.Errorf("compare %s: %w", x.tables[i].name, err)
		}
		out = append(out, c)
	}
	return out, nil
}

// sum is the checksum of rows: the hashes of all of them in one, so that texts
// which were altered may sort elsewhere.
type sum [sha256.Size]byte

func (s *sum) add(row []byte) {
	h := sha256.Sum256(row)
	subtle.XORBytes(s[:], s[:], h[:])
}

func (x *Transfer) compareTable(ctx context.Context, t *table, heard func(CopyStep)) (CopiedTable, error) {
	out := CopiedTable{Name: t.name, Altered: map[string]int64{}}
	var source, target sum
	var ours, theirs []byte
	first := "" // the row at which the two part
	next, stop := iter.Pull2(x.to.rows(ctx, t))
	defer stop()
	for row, err := range x.from.rows(ctx, t) {
		if err != nil {
			return out, err
		}
		x.alter(t, row, out.Altered)
		ours = appendRow(ours[:0], row)
		source.add(ours)
		if out.Rows++; out.Rows%pageRows == 0 {
			heard(CopyStep{Comparing: true, Table: t.name, Rows: out.Rows})
		}
		other, err, more := next()
		if err != nil {
			return out, err
		}
		if more {
			theirs = appendRow(theirs[:0], other)
			target.add(theirs)
			out.Copies++
		}
		if first == "" && (!more || string(ours) != string(theirs)) {
			first = t.difference(row, other)
		}
	}
	for {
		other, err, more := next()
		if err != nil {
			return out, err
		}
		if !more {
			break
		}
		target.add(appendRow(theirs[:0], other))
		if out.Copies++; first == "" {
			first = t.difference(nil, other)
		}
	}
	out.Checksum = fmt.Sprintf("%x", source)
	if source != target || out.Rows != out.Copies {
		out.Difference = first
	}
	return out, nil
}

// finish lets numbers go on after those that were copied, and servers start.
func (x *Transfer) finish(ctx context.Context) error {
	if err := x.to.continueNumbers(ctx, x.tables); err != nil {
		return err
	}
	return x.to.transaction(ctx, func() error {
		for _, q := range []string{`delete from copied_tables`, `update copies set finished = true`} {
			if _, err := x.to.conn.ExecContext(ctx, q); err != nil {
				return fmt.Errorf("finish the copy: %w", err)
			}
		}
		return nil
	})
}

// refuseUnfinished refuses a database that is half a copy.
func (s *Store) refuseUnfinished(ctx context.Context) error {
	if s.cfg.CopyTarget {
		return nil
	}
	var source string // asked once, so that the statement is not worth keeping
	err := s.read.QueryRowContext(ctx, `select source from copies where not finished`).Scan(&source)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return fmt.Errorf("look for an unfinished copy: %w", err)
	}
	return fault.New(fault.Conflict, "This database holds an unfinished copy of %s: run ticketwire copy again, or go on with the source", source)
}
