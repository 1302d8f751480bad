package cutover

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// actedKept is how many changes of a ticket are remembered. The events of one
// change come within seconds, or with retries, hours later, when few others of
// its ticket have happened.
const actedKept = 64

// Acted remembers which changes were acted on, so that a reaction runs once per
// change: whichever side sees it, and however many events it has. Safe for
// concurrent use, in one process per directory.
type Acted struct {
	mu      sync.Mutex
	book    *notebook[actedLine]
	done    map[string][]time.Time // ticket -> changes, in the order in which they were acted on
	running map[string]chan struct{}
}

// actedLine is one line of the file.
type actedLine struct {
	Ticket string    `json:"ticket"`
	At     time.Time `json:"at"`
}

// OpenActed reads what was acted on before, from acted.jsonl in a cutover
// directory that exists.
func OpenActed(dir string) (*Acted, error) {
	a := &Acted{done: map[string][]time.Time{}, running: map[string]chan struct{}{}}
	var err error
	if a.book, err = openNotebook(filepath.Join(dir, "acted.jsonl"), a.keep); err != nil {
		return nil, fmt.Errorf("what was acted on: %w", err)
	}
	return a, nil
}

func (a *Acted) keep(l actedLine) {
	done := append(a.done[l.Ticket], l.At)
	a.done[l.Ticket] = done[max(0, len(done)-actedKept):]
}

// Close closes the file.
func (a *Acted) Close() error { return a.book.close() }

// Do runs act for the change of a ticket at that time, unless it has been acted
// on, and remembers that when act returns nil. It reports whether act ran. One
// ticket is acted on by one caller at a time. A crash between act and the end of
// Do makes act run again for the same change.
func (a *Acted) Do(ctx context.Context, ticket string, at time.Time, act func(context.Context) error) (bool, error) {
	at = micros(at)
	if err := a.enter(ctx, ticket); err != nil {
		return false, err
	}
	defer a.leave(ticket)
	a.mu.Lock()
	was := slices.ContainsFunc(a.done[ticket], at.Equal)
	a.mu.Unlock()
	if was {
		return false, nil
	}
	if err := act(ctx); err != nil {
		return true, err
	}
	return true, a.save(actedLine{ticket, at})
}

// enter waits until nobody acts on the ticket.
func (a *Acted) enter(ctx context.Context, ticket string) error {
	for {
		a.mu.Lock()
		busy := a.running[ticket]
		if busy == nil {
			a.running[ticket] = make(chan struct{})
			a.mu.Unlock()
			return nil
		}
		a.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (a *Acted) leave(ticket string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.running[ticket])
	delete(a.running, ticket)
}

// save keeps a line and writes the file anew when most of it was overtaken.
func (a *Acted) save(l actedLine) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.book.add(l); err != nil {
		return fmt.Errorf("save what was acted on: %w", err)
	}
	a.keep(l)
	if a.book.written <= 2*actedKept*len(a.done)+1000 {
		return nil
	}
	var all []actedLine
	for ticket, done := range a.done {
		for _, at := range done {
			all = append(all, actedLine{ticket, at})
		}
	}
	return a.book.renew(all)
}
