package store

import (
	"fmt"
	"reflect"
)

// Of what is deferred, the inserts that come with every change and every delivery
// are merged: one statement with a column of values for each of their arguments
// costs PostgreSQL, and the way there, half of as many statements. They move up to
// the first of their kind, past statements that neither need nor touch what they
// insert.

// mergeable returns the statement for many that a statement for one has, and the
// kinds of its arguments: i for an integer, t for a text, b for bytes and o for a
// boolean. "" where there is none.
func mergeable(text string) (many, kinds string) {
	switch text {
	case insertEvent:
		return insertEvents, eventKinds
	case insertRecorded:
		return insertManyRecorded, recordedKinds
	}
	return "", ""
}

// merge returns what to send in place of a list.
func merge(list []deferred) ([]deferred, error) {
	out := make([]deferred, 0, len(list))
	rows := map[string][][]any{} // by the statement for one
	at := map[string]int{}       // where it stands in out
	for _, d := range list {
		many, _ := mergeable(d.text)
		if many == "" {
			out = append(out, d)
			continue
		}
		if _, begun := rows[d.text]; !begun {
			at[d.text] = len(out)
			out = append(out, d)
		}
		rows[d.text] = append(rows[d.text], d.args)
	}
	for one, args := range rows {
		if len(args) == 1 {
			continue
		}
		many, kinds := mergeable(one)
		cols, err := columns(kinds, args)
		if err != nil {
			return nil, err
		}
		out[at[one]].text, out[at[one]].args = many, cols
	}
	return out, nil
}

// columns turns rows of arguments into one slice for each column.
func columns(kinds string, rows [][]any) ([]any, error) {
	cols := make([]any, len(kinds))
	for i, kind := range kinds {
		var err error
		switch kind {
		case 'i':
			cols[i], err = column64(rows, i)
		case 't':
			cols[i], err = columnOf(rows, i, func(v reflect.Value) (string, bool) { return v.String(), v.Kind() == reflect.String })
		case 'o':
			cols[i], err = columnOf(rows, i, func(v reflect.Value) (bool, bool) {
				return v.Kind() == reflect.Bool && v.Bool(), v.Kind() == reflect.Bool
			})
		default:
			cols[i], err = columnBytes(rows, i)
		}
		if err != nil {
			return nil, err
		}
	}
	return cols, nil
}

// column64 is columnOf for the integers, most of which are an int64.
func column64(rows [][]any, i int) ([]*int64, error) {
	return columnOf(rows, i, func(v reflect.Value) (int64, bool) {
		if !v.CanInt() {
			return 0, false
		}
		return v.Int(), true
	})
}

// columnOf reads a column; null is nil.
func columnOf[T any](rows [][]any, i int, read func(reflect.Value) (T, bool)) ([]*T, error) {
	values, out := make([]T, len(rows)), make([]*T, len(rows))
	for n, row := range rows {
		if row[i] == nil {
			continue
		}
		var fits bool
		if values[n], fits = read(reflect.ValueOf(row[i])); !fits {
			return nil, fmt.Errorf("argument %d is a %T", i+1, row[i])
		}
		out[n] = &values[n]
	}
	return out, nil
}

func columnBytes(rows [][]any, i int) ([][]byte, error) {
	out := make([][]byte, len(rows))
	for n, row := range rows {
		if row[i] == nil {
			continue
		}
		b, fits := row[i].([]byte)
		if !fits {
			return nil, fmt.Errorf("argument %d is a %T", i+1, row[i])
		}
		out[n] = b
	}
	return out, nil
}
