package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/internal/store"
)

type benchCmd struct {
	Quick    bool     `help:"Short runs and small queues, less than 50 seconds in all."`
	Seconds  float64  `help:"Length of one run in seconds. Default: 30, with --quick 2." placeholder:"N"`
	Only     []string `help:"Measure only these: bare, engine, api, drain, nodes, latency, fanout, neighbour, webhooks, rows." placeholder:"FIGURE,..."`
	Postgres string   `help:"Measure on this PostgreSQL, in databases that are made beside this one and dropped: postgres://... Not webhooks and rows." placeholder:"URL"`
	Nodes    int      `help:"With --postgres: how many processes of the service share the database in nodes." default:"1" placeholder:"N"`
	Dir      string   `help:"Directory on the disk to measure. Default: the one for temporary files." placeholder:"DIR"`
	Profile  string   `help:"Write a CPU profile of the service's process to this file, for go tool pprof." placeholder:"FILE"`
	JSON     bool     `name:"json" help:"Print one JSON object."`
}

// Help is shown below the flags.
func (benchCmd) Help() string {
	return `Measures this machine. The service runs inside this process with everything durable, the
receiver is a process of its own, and nothing leaves the machine. The yardstick is the
bare loop: signed POSTs of the same size to the same receiver, with no service behind
them. A change counts when it was acknowledged, delivered and durably recorded; a run in
which an event id did not arrive is void, and the exit code is 1.

  bare       the bare loop, half of it before and half after the next three
  engine     changes through the store, 64 writers on 1,000 tickets
  api        PUT ticket updates over HTTP, 32 clients, keys without limit
  drain      a committed backlog
  nodes      api with --nodes processes of the service on one --postgres, each ticket
             changed through all of them, and 12 webhooks that share the tickets
  latency    from the start of an API call to the first byte at the receiver, 50 calls/s
  fanout     one event to 10 and to 1,000 webhooks
  neighbour  100 healthy webhooks with and without a dead one that has a deep queue
  webhooks   cost of an event with 10, 1,000 and 100,000 webhooks of which 10 match
  rows       start-up and memory with 1 and 10 million pending deliveries, and throughput
             with 10 million rows of history

With --postgres each figure has a database of its own, so the user of the URL has to be
allowed to make them; what is in the database of the URL stays as it is. A run that was
killed leaves one behind whose name begins with ticketwire_scratch_. Where the server is
on this machine, its CPU time is shown beside that of the service.

A full run takes about half an hour and 12 GB in --dir, most of it for webhooks and
rows. With --quick those two are scaled down, so their figures say little.

Examples:
  ticketwire bench --quick
  ticketwire bench --json --dir /var/lib | jq .engine_ratio
  ticketwire bench --seconds 60 --only bare,engine,api
  ticketwire bench --quick --postgres postgres://bench@localhost/postgres
  ticketwire bench --only bare,engine,nodes --nodes 3 --postgres postgres://bench@localhost/postgres`
}

// bench is one run of the command.
type bench struct {
	cmd    *benchCmd
	t      terminal
	show   *progress
	length time.Duration // of one run
	dir    string        // removed at the end
	hook   *benchHook
	report benchReport
	scenes int // made so far, to name their directories
}

// benchFigure is one thing that is measured.
type benchFigure struct {
	name     string
	measure  func(*bench, context.Context) error
	embedded bool // only without --postgres: it makes its own database, as a file
	server   bool // only with --postgres
}

// benchFigures are the figures in the order they are measured. The bare loop
// stands on both sides of what is compared with it, so that a machine that
// slows down in between slows down both.
func benchFigures() []benchFigure {
	return []benchFigure{
		{name: "bare", measure: (*bench).bare},
		{name: "engine", measure: (*bench).engine},
		{name: "api", measure: (*bench).api},
		{name: "drain", measure: (*bench).drain},
		{name: "nodes", measure: (*bench).nodes, server: true},
		{name: "bare", measure: (*bench).bare},
		{name: "latency", measure: (*bench).latency},
		{name: "fanout", measure: (*bench).fanout},
		{name: "neighbour", measure: (*bench).neighbour},
		{name: "webhooks", measure: (*bench).webhooks, embedded: true},
		{name: "rows", measure: (*bench).rows, embedded: true},
	}
}

// Run measures and prints.
func (c *benchCmd) Run(ctx context.Context, t terminal) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	b := &bench{cmd: c, t: t, show: newProgress(t), length: c.length()}
	if b.dir, err = os.MkdirTemp(c.Dir, "ticketwire-bench-"); err != nil {
		return fmt.Errorf("make a temporary directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if b.hook, err = startBenchHook(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.hook.stop()) }()
	b.report.describe(c.Quick, b.length)
	err = b.profiled(func() error { return b.measure(ctx) })
	b.show.end()
	b.report.finish()
	// What was measured before a failure or Ctrl-C took a while to get.
	if c.JSON {
		err = errors.Join(err, printJSON(t.out, &b.report))
	} else {
		err = errors.Join(err, b.report.table(t.out))
	}
	if err == nil && b.report.Lost > 0 {
		err = fmt.Errorf("%d events did not arrive, void: %s", b.report.Lost, strings.Join(b.report.Void, ", "))
	}
	return err
}

// profiled runs f under the profiler if a profile is wanted.
func (b *bench) profiled(f func() error) (err error) {
	if b.cmd.Profile == "" {
		return f()
	}
	file, err := os.Create(b.cmd.Profile)
	if err != nil {
		return usageError{fmt.Errorf("--profile: %w", err), "ticketwire bench --only engine --profile cpu.pprof"}
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := pprof.StartCPUProfile(file); err != nil {
		return fmt.Errorf("start the profiler: %w", err)
	}
	defer pprof.StopCPUProfile()
	return f()
}

// measure goes through the figures and stops at the first that fails.
func (b *bench) measure(ctx context.Context) error {
	for _, f := range benchFigures() {
		onServer := b.cmd.Postgres != ""
		if len(b.cmd.Only) > 0 && !slices.Contains(b.cmd.Only, f.name) || onServer && f.embedded || !onServer && f.server {
			continue
		}
		b.show.begin(f.name)
		if err := b.hook.reset(ctx); err != nil {
			return err
		}
		if err := f.measure(b, ctx); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

func (c *benchCmd) check() error {
	if c.Seconds < 0 {
		return usageError{errors.New("--seconds must be positive"), "ticketwire bench --quick"}
	}
	switch {
	case c.Nodes < 1:
		return usageError{errors.New("--nodes must be 1 or more"), "ticketwire bench --nodes 2 --postgres postgres://..."}
	case c.Nodes > 1 && len(c.Only) > 0 && !slices.Contains(c.Only, "nodes"):
		return usageError{errors.New("--nodes is for the figure nodes, which --only leaves out"), "ticketwire bench --only bare,nodes --nodes 2 --postgres postgres://..."}
	case c.Nodes > 1 && c.Postgres == "", c.Postgres == "" && slices.Contains(c.Only, "nodes"):
		return usageError{errors.New("nodes share a database: --postgres is missing"), "ticketwire bench --nodes 2 --postgres postgres://..."}
	}
	if c.Postgres != "" {
		if err := store.CheckURL(c.Postgres); err != nil {
			return usageError{fmt.Errorf("--postgres: %w", err), "ticketwire bench --postgres postgres://bench@localhost/postgres"}
		}
	}
	for _, name := range c.Only {
		at := slices.IndexFunc(benchFigures(), func(f benchFigure) bool { return f.name == name })
		switch {
		case at < 0:
			return usageError{fmt.Errorf("--only: there is no figure %q", name), "ticketwire bench --only bare,engine"}
		case c.Postgres != "" && benchFigures()[at].embedded:
			return usageError{fmt.Errorf("--only: %s is measured without --postgres", name), "ticketwire bench --only " + name}
		}
	}
	return nil
}

func (c *benchCmd) length() time.Duration {
	switch {
	case c.Seconds > 0:
		return time.Duration(c.Seconds * float64(time.Second))
	case c.Quick:
		return 2 * time.Second
	default:
		return 30 * time.Second
	}
}

// size is how large something is made: full in a full run, and in a quick one so
// many per second of its length, at least 10.
func (b *bench) size(full, quickPerSecond int) int {
	if !b.cmd.Quick {
		return full
	}
	return max(100, int(float64(quickPerSecond)*b.length.Seconds()))
}

// sceneDir names a new data directory.
func (b *bench) sceneDir() string {
	b.scenes++
	return filepath.Join(b.dir, fmt.Sprint("data-", b.scenes))
}
