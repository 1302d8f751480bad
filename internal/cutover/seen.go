package cutover

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// seen is what the poller has dealt with of one ticket.
type seen struct {
	Ticket    string    `json:"ticket"`
	UpdatedAt time.Time `json:"updated_at"`
	Hash      string    `json:"hash"`
	Gone      bool      `json:"gone,omitempty"`     // answered 404 since
	Unlisted  bool      `json:"unlisted,omitempty"` // there, but the list does not show it
}

// progress is how far the poller has come.
type progress struct {
	Last     time.Time `json:"last"`            // the last answer, give or take the interval of a killed poller
	Cursor   time.Time `json:"cursor,omitzero"` // updated_at from which the list is read next
	Complete bool      `json:"complete"`        // the whole list has been seen once
}

// memory is what the poller knows, in memory and in a file. The file is a list
// of what changed in it, so that saving one ticket costs one line however many
// there are. Used by one goroutine, of the process that holds the lock.
type memory struct {
	name     string
	lines    *lines
	written  int // lines in the file
	tickets  map[string]*seen
	progress progress
}

// memoryLine is one line of the file: one of its fields is set.
type memoryLine struct {
	Seen     *seen     `json:"seen,omitempty"`
	Progress *progress `json:"progress,omitempty"`
}

func openMemory(name string) (*memory, error) {
	m := &memory{name: name, tickets: map[string]*seen{}}
	if err := m.read(); err != nil {
		return nil, fmt.Errorf("read what was seen, %s: %w", name, err)
	}
	var err error
	if m.lines, err = openLines(name); err != nil {
		return nil, fmt.Errorf("open what was seen: %w", err)
	}
	return m, nil
}

func (m *memory) read() error {
	f, err := os.Open(m.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	r := newLineReader(f)
	for {
		var l memoryLine
		switch err := r.next(&l); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		m.keep(l)
		m.written++
	}
}

func (m *memory) keep(l memoryLine) {
	if l.Seen != nil {
		m.tickets[l.Seen.Ticket] = l.Seen
	}
	if l.Progress != nil {
		m.progress = *l.Progress
	}
}

// save changes the memory and returns when that is on disk.
func (m *memory) save(changes ...memoryLine) error {
	if len(changes) == 0 {
		return nil
	}
	values := make([]any, len(changes))
	for i, l := range changes {
		values[i] = l
	}
	if err := m.lines.append(values...); err != nil {
		return fmt.Errorf("save what was seen: %w", err)
	}
	for _, l := range changes {
		m.keep(l)
	}
	m.written += len(changes)
	if m.written > 2*len(m.tickets)+1000 {
		return m.compact()
	}
	return nil
}

// compact writes the file anew, without what was overtaken.
func (m *memory) compact() error {
	values := []any{memoryLine{Progress: &m.progress}}
	for _, s := range m.tickets {
		values = append(values, memoryLine{Seen: s})
	}
	err := replaceLines(m.name, values)
	if err == nil {
		var renewed *lines
		if renewed, err = openLines(m.name); err == nil {
			err = m.lines.close()
			m.lines, m.written = renewed, len(values)
		}
	}
	if err != nil {
		return fmt.Errorf("shorten the file of what was seen: %w", err)
	}
	return nil
}

func (m *memory) close() error { return m.lines.close() }

// listed is how many tickets the list should show.
func (m *memory) listed() int {
	n := 0
	for _, s := range m.tickets {
		if !s.Gone && !s.Unlisted {
			n++
		}
	}
	return n
}
