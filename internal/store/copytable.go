package store

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// notCopied says of a table why it belongs to its database and not to the
// installation; "" of one that is copied, as every other table of the schema is.
func notCopied(table string) (reason string) {
	switch table {
	case "migrations":
		return "both sides have the same"
	case "copies", "copied_tables":
		return "about the copy itself"
	case "gate":
		return "counts what happens on one server"
	case "nodes":
		return "the processes of one server"
	case "rate_buckets":
		return "full again after a pause"
	case "lives":
		return "about one run of the server"
	}
	return ""
}

// table is one that is copied.
type table struct {
	name     string
	columns  []tableColumn
	keys     []int  // places of the primary key in columns
	identity string // the column that numbers itself on a server; "" without one
}

type tableColumn struct {
	name string
	kind string // as SQLite's schema has it: text, bigint, integer, boolean, blob
}

// tablesOf takes the tables from the schema, so that one which is added later is
// copied too. They come in the order in which the schema makes them: what refers to
// something comes after it. What one side has and the other has not is an error.
func tablesOf(ctx context.Context, embedded, server *held) ([]table, error) {
	rows, err := embedded.conn.QueryContext(ctx, `select t.name, c.name, lower(c.type), c.pk
		from sqlite_master t, pragma_table_info(t.name) c
		where t.type = 'table' order by t.rowid, c.cid`)
	type key struct{ at, place int }
	var out []table
	keys := map[string][]key{}
	known := map[string]bool{}
	_, err = collect(rows, err, func(r scanner) (struct{}, error) {
		var name string
		var c tableColumn
		var pk int
		if err := r.Scan(&name, &c.name, &c.kind, &pk); err != nil || notCopied(name) != "" {
			return struct{}{}, err
		}
		if len(out) == 0 || out[len(out)-1].name != name {
			out = append(out, table{name: name})
		}
		t := &out[len(out)-1]
		if pk > 0 {
			keys[name] = append(keys[name], key{len(t.columns), pk})
		}
		t.columns = append(t.columns, c)
		known[name+"."+c.name] = true
		return struct{}{}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the schema: %w", err)
	}
	for i := range out {
		list := keys[out[i].name]
		if len(list) == 0 {
			return nil, fmt.Errorf("table %s has no primary key to copy it by", out[i].name)
		}
		slices.SortFunc(list, func(a, b key) int { return a.place - b.place })
		for _, k := range list {
			out[i].keys = append(out[i].keys, k.at)
		}
	}
	return out, server.sameColumns(ctx, out, known)
}

// sameColumns compares the server's columns with those of the embedded database,
// and learns which of them number themselves.
func (h *held) sameColumns(ctx context.Context, tables []table, known map[string]bool) error {
	rows, err := h.conn.QueryContext(ctx, `select table_name, column_name, is_identity = 'YES'
		from information_schema.columns where table_schema = current_schema() and table_name not in (
			select relname from pg_class where relispartition and relnamespace = current_schema()::regnamespace)`)
	_, err = collect(rows, err, func(r scanner) (struct{}, error) {
		var name, column string
		var identity bool
		if err := r.Scan(&name, &column, &identity); err != nil || notCopied(name) != "" {
			return struct{}{}, err
		}
		if !known[name+"."+column] {
			return struct{}{}, fmt.Errorf("only PostgreSQL has %s.%s", name, column)
		}
		delete(known, name+"."+column)
		if i := slices.IndexFunc(tables, func(t table) bool { return t.name == name }); identity {
			tables[i].identity = column
		}
		return struct{}{}, nil
	})
	if err != nil {
		return fmt.Errorf("compare the schemas: %w", err)
	}
	for c := range known {
		return fmt.Errorf("compare the schemas: only the embedded database has %s", c)
	}
	return nil
}

func (t *table) names() []string {
	var out []string
	for _, c := range t.columns {
		out = append(out, c.name)
	}
	return out
}

func (t *table) keyNames() []string {
	var out []string
	for _, k := range t.keys {
		out = append(out, t.columns[k].name)
	}
	return out
}

// key is the primary key of a row.
func (t *table) key(row []any) []any {
	var out []any
	for _, k := range t.keys {
		out = append(out, row[k])
	}
	return out
}

// difference says in what two rows at the same place differ; nil is none.
func (t *table) difference(source, target []any) string {
	order := 0
	for _, k := range t.keys {
		switch {
		case target == nil:
			order = -1
		case source == nil:
			order = 1
		case order == 0:
			order = compareKeys(source[k], target[k])
		}
	}
	switch order {
	case -1:
		return t.keyText(source) + " is missing in the target"
	case 1:
		return t.keyText(target) + " is not in the source"
	}
	var columns []string
	for i := range source {
		if string(appendRow(nil, source[i:i+1])) != string(appendRow(nil, target[i:i+1])) {
			columns = append(columns, t.columns[i].name)
		}
	}
	return t.keyText(source) + " has another " + strings.Join(columns, ", ")
}

func compareKeys(a, b any) int {
	if n, is := a.(int64); is {
		m, _ := b.(int64) // of the same column
		return cmp.Compare(n, m)
	}
	return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b))
}

// keyText names a row to a person.
func (t *table) keyText(row []any) string {
	var out []string
	for _, k := range t.keys {
		out = append(out, fmt.Sprintf("%s %v", t.columns[k].name, row[k]))
	}
	return strings.Join(out, ", ")
}

// A page has at most so many rows, and no more once it has so many bytes.
const (
	pageRows  = 2000
	pageBytes = 4 << 20
)

// page returns the rows that follow a key, nil for the first page.
func (h *held) page(ctx context.Context, t *table, after []any) ([][]any, error) {
	keys := strings.Join(t.keyNames(), ", ")
	q := `select ` + strings.Join(t.names(), ", ") + ` from ` + t.name
	if after != nil {
		marks := make([]string, len(after))
		for i := range marks {
			marks[i] = fmt.Sprintf("$%d", i+1)
		}
		q += ` where (` + keys + `) > (` + strings.Join(marks, ", ") + `)`
	}
	rows, err := h.conn.QueryContext(ctx, fmt.Sprintf(`%s order by %s limit %d`, q, keys, pageRows), after...)
	if err != nil {
		return nil, fmt.Errorf("read from the %s: %w", h.role, err)
	}
	defer rows.Close()
	var out [][]any
	for size := 0; size < pageBytes && rows.Next(); {
		row := make([]any, len(t.columns))
		into := make([]any, len(row))
		for i := range row {
			into[i] = &row[i]
		}
		if err := rows.Scan(into...); err != nil {
			return nil, fmt.Errorf("read from the %s: %w", h.role, err)
		}
		for i, v := range row {
			if row[i], err = t.columns[i].value(v); err != nil {
				return nil, fmt.Errorf("%s.%s: %w", t.name, t.columns[i].name, err)
			}
			size += sizeOf(row[i])
		}
		out = append(out, row)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read from the %s: %w", h.role, err)
	}
	return out, nil
}

// rows walks a table in the order of its key.
func (h *held) rows(ctx context.Context, t *table) iter.Seq2[[]any, error] {
	return func(yield func([]any, error) bool) {
		for after := []any(nil); ; {
			page, err := h.page(ctx, t, after)
			if err != nil {
				yield(nil, err)
				return
			}
			if len(page) == 0 {
				return
			}
			after = t.key(page[len(page)-1])
			for _, row := range page {
				if !yield(row, nil) {
					return
				}
			}
		}
	}
}

// value returns what a driver has read in the one form for the column: nil, string,
// int64, bool or []byte. SQLite keeps what it is given, whatever the column is.
func (c *tableColumn) value(v any) (any, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil //nolint:nilnil // null
	case string:
		switch c.kind {
		case "text":
			return v, nil
		case "blob":
			return []byte(v), nil
		}
	case []byte:
		switch c.kind {
		case "text":
			return string(v), nil
		case "blob":
			return append([]byte{}, v...), nil // to a driver a nil slice would be null
		}
	case int64:
		switch c.kind {
		case "bigint", "integer":
			return v, nil
		case "boolean":
			return v != 0, nil
		}
	case bool:
		if c.kind == "boolean" {
			return v, nil
		}
	}
	return nil, fmt.Errorf("a %T in a column of type %s", v, c.kind)
}

func sizeOf(v any) int {
	switch v := v.(type) {
	case string:
		return len(v)
	case []byte:
		return len(v)
	}
	return 8
}

// appendRow writes a row so that two rows have the same bytes only if they are the
// same.
func appendRow(b []byte, row []any) []byte {
	for _, v := range row {
		switch v := v.(type) {
		case nil:
			b = append(b, 0)
		case int64:
			b = binary.BigEndian.AppendUint64(append(b, 1), uint64(v))
		case bool:
			b = append(b, 2, 0)
			if v {
				b[len(b)-1] = 1
			}
		case string:
			b = append(binary.AppendUvarint(append(b, 3), uint64(len(v))), v...)
		case []byte:
			b = append(binary.AppendUvarint(append(b, 4), uint64(len(v))), v...)
		}
	}
	return b
}

// insert adds rows, in the transaction at hand.
func (h *held) insert(ctx context.Context, t *table, rows [][]any) error {
	if h.s.dialect.server {
		return h.conn.Raw(func(c any) error {
			conn, ok := c.(*stdlib.Conn)
			if !ok {
				return fmt.Errorf("the connection is a %T", c)
			}
			_, err := conn.Conn().CopyFrom(ctx, pgx.Identifier{t.name}, t.names(), pgx.CopyFromRows(rows))
			return err
		})
	}
	marks := strings.TrimSuffix(strings.Repeat("?, ", len(t.columns)), ", ")
	q := `insert into ` + t.name + ` (` + strings.Join(t.names(), ", ") + `) values (` + marks + `)` //nolint:gosec // names of the schema
	st, err := h.conn.PrepareContext(ctx, q)
	if err != nil {
		return err
	}
	defer st.Close()
	for _, row := range rows {
		if _, err := st.ExecContext(ctx, row...); err != nil {
			return err
		}
	}
	return nil
}

// lastKey returns the key of the last row that was copied, nil before the first.
func (h *held) lastKey(ctx context.Context, t *table) (key []any, err error) {
	var text []byte
	err = h.conn.QueryRowContext(ctx, `select last_key from copied_tables where table_name = $1`, t.name).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err == nil {
		err = gob.NewDecoder(bytes.NewReader(text)).Decode(&key)
	}
	if err != nil {
		return nil, fmt.Errorf("read how far the copy has come: %w", err)
	}
	return key, nil
}

// encodeKey writes a key as lastKey reads it, also one that is no text to a server.
func encodeKey(key []any) ([]byte, error) {
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(key); err != nil {
		return nil, fmt.Errorf("note how far the copy has come: %w", err)
	}
	return b.Bytes(), nil
}
