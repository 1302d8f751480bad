package main

import (
	"fmt"
	"io"
	"iter"
	"strings"
	"text/tabwriter"
	"time"
)

// column is one column of a table of T, or one line about a T.
type column[T any] struct {
	head string
	cell func(*T) string
}

// listFlags are those of commands that print a list.
type listFlags struct {
	apiFlags
	Limit int  `help:"How many to print at most; 0 prints all." default:"50"`
	JSON  bool `name:"json" help:"Print a JSON array."`
}

// oneFlags are those of commands that print one thing.
type oneFlags struct {
	apiFlags
	JSON bool `name:"json" help:"Print one JSON object."`
}

// printList prints what a walk yields, as a table or as JSON. That there is more
// than the limit is said beside it.
func printList[T any](t terminal, f listFlags, walk iter.Seq2[*T, error], columns []column[T]) error {
	rows, more, err := take(walk, f.Limit)
	if err != nil {
		return err
	}
	if more {
		fmt.Fprintf(t.err, "There are more than %d: --limit 0 prints all.\n", f.Limit)
	}
	if f.JSON {
		return printJSON(t.out, rows)
	}
	return printTable(t.out, rows, columns)
}

// take collects at most limit items and tells whether there are more.
func take[T any](walk iter.Seq2[*T, error], limit int) (rows []*T, more bool, err error) {
	rows = []*T{} // an empty list in JSON, not null
	for v, err := range walk {
		if err != nil {
			return nil, false, err
		}
		if limit > 0 && len(rows) == limit {
			return rows, true, nil
		}
		rows = append(rows, v)
	}
	return rows, false, nil
}

// printTable prints one row per item under a line of headings.
func printTable[T any](out io.Writer, rows []*T, columns []column[T]) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(cell func(column[T]) string) {
		cells := make([]string, len(columns))
		for i, c := range columns {
			cells[i] = cell(c)
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	line(func(c column[T]) string { return c.head })
	for _, v := range rows {
		line(func(c column[T]) string { return printable(c.cell(v)) })
	}
	return w.Flush()
}

// printOne prints one thing, a line per column, or as JSON.
func printOne[T any](t terminal, asJSON bool, v *T, columns []column[T]) error {
	if asJSON {
		return printJSON(t.out, v)
	}
	w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	for _, c := range columns {
		fmt.Fprintf(w, "%s\t%s\n", c.head, printable(c.cell(v)))
	}
	return w.Flush()
}

func stamp(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

// text writes what may be missing.
func text[T any](p *T) string {
	if p == nil {
		return "-"
	}
	return fmt.Sprint(*p)
}
