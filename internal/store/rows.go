package store

import (
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ticketwire/ticketwire/internal/fault"
)

// scanner is one row, alone (*sql.Row) or of many (*sql.Rows).
type scanner interface{ Scan(dest ...any) error }

// collect reads every row and closes rows. The result is never nil, since lists
// go to the wire as they are.
func collect[T any](rows *sql.Rows, err error, scan func(scanner) (T, error)) ([]T, error) {
	if err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	defer rows.Close()
	out := []T{}
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("scan a row: %w", err)
		}
		out = append(out, v)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read rows: %w", err)
	}
	return out, nil
}

// found turns the absence of a row into a NotFound error with the contract's
// message.
func found(err error, message string) error {
	if errors.Is(err, sql.ErrNoRows) {
		return fault.New(fault.NotFound, "%s", message)
	}
	if err != nil {
		return fmt.Errorf("read a row (%s without it): %w", message, err)
	}
	return nil
}

// change runs a statement whose count of rows does not matter, at once or, where
// the way to the database is long, together with the next that has an answer to
// wait for. what names it in the error; a violated unique key is the caller's
// Conflict (contract section 1.2).
func (t *tx) change(what, q string, args ...any) error {
	t.wrote = true
	return t.w.change(what, q, args...)
}

func (w *writer) change(what, q string, args ...any) error {
	if w.s.dialect.server {
		return w.postpone(what, q, args)
	}
	return changeError(what, w.exec(q, args...))
}

func changeError(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case isDuplicate(err):
		return fault.Wrap(fault.Conflict, err, "Resource already exists")
	}
	return fmt.Errorf("%s: %w", what, err)
}

// where collects the conditions of a statement that is built for one call. Its
// texts are ours; whatever came from outside is an argument.
type where struct {
	text []string
	args []any
}

// and adds a condition in which every ? stands for the next argument.
func (w *where) and(cond string, args ...any) {
	var b strings.Builder
	for _, arg := range args {
		before, after, _ := strings.Cut(cond, "?")
		b.WriteString(before)
		b.WriteString(w.arg(arg))
		cond = after
	}
	b.WriteString(cond)
	w.text = append(w.text, b.String())
}

// arg adds an argument and returns its placeholder.
func (w *where) arg(v any) string {
	w.args = append(w.args, v)
	return "$" + strconv.Itoa(len(w.args))
}

// in adds "column is one of the values".
func (w *where) in(column string, values []string) {
	w.text = append(w.text, column+" in ("+w.list(values)+")")
}

// list adds the values as arguments and returns their placeholders.
func (w *where) list(values []string) string {
	marks := make([]string, len(values))
	for i, v := range values {
		marks[i] = w.arg(v)
	}
	return strings.Join(marks, ", ")
}

// contains adds "one of the columns contains s", without regard to case. An empty s
// adds nothing.
func (w *where) contains(s string, columns ...string) {
	if s == "" {
		return
	}
	s, others := oneCase(s)
	mark := w.arg(containing(s))
	marks := make([][2]string, len(others))
	for i, o := range others {
		marks[i] = [2]string{w.arg(string(o.from)), w.arg(string(o.to))}
	}
	tests := make([]string, len(columns))
	for i, c := range columns {
		// The database folds ASCII on both sides, so that it is folded alike, and
		// nothing else.
		c = "lower(" + c + ")"
		for _, m := range marks {
			c = "replace(" + c + ", " + m[0] + ", " + m[1] + ")"
		}
		tests[i] = c + " like lower(" + mark + `) escape '\'`
	}
	w.text = append(w.text, "("+strings.Join(tests, " or ")+")")
}

// respelt is a letter and the one in another case to put for it.
type respelt struct{ from, to rune }

// maxRespelt bounds how deep replace is nested in a statement. No search has so many
// different letters beyond ASCII; what a text has more counts with its case.
const maxRespelt = 100

// oneCase returns s with each letter beyond ASCII in one case only, and what has to
// be put for its other cases where s is looked for.
func oneCase(s string) (string, []respelt) {
	var others []respelt
	chosen := map[rune]rune{}
	s = strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf {
			return r
		}
		if c, is := chosen[r]; is {
			return c
		}
		for f := unicode.SimpleFold(r); f != r && len(others) < maxRespelt; f = unicode.SimpleFold(f) {
			if f >= utf8.RuneSelf { // an ASCII letter stays one, see contains
				chosen[f] = r
				others = append(others, respelt{from: f, to: r})
			}
		}
		return r
	}, s)
	return s, others
}

// page returns the limit clause of a page, counted from 1. A page number beyond
// any table is cut before the multiplication can overflow.
func (w *where) page(page, limit int) string {
	if limit < 1 {
		limit = defaultLimit
	}
	return " limit " + w.arg(limit) + " offset " + w.arg(min(max(page-1, 0), 1<<40)*limit)
}

// String returns the conditions without the word where.
func (w *where) String() string { return strings.Join(w.text, " and ") }

// containing returns the pattern of "contains s" for like with escape '\', with
// the wildcards of s taken literally.
func containing(s string) string {
	return "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(s) + "%"
}

// lowerID returns an id in the form in which ids are stored. The contract takes
// them in any letter case.
func lowerID(id string) string { return strings.ToLower(id) }

func lowerIDs(ids []string) []string {
	lower := make([]string, len(ids))
	for i, id := range ids {
		lower[i] = lowerID(id)
	}
	return lower
}
