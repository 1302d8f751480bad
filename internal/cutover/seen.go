package cutover

import (
	"fmt"
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
	book     *notebook[memoryLine]
	tickets  map[string]*seen
	progress progress
}

// memoryLine is one line of the file: one of its fields is set.
type memoryLine struct {
	Seen     *seen     `json:"seen,omitempty"`
	Progress *progress `json:"progress,omitempty"`
}

func openMemory(name string) (*memory, error) {
	m := &memory{tickets: map[string]*seen{}}
	var err error
	if m.book, err = openNotebook(name, m.keep); err != nil {
		return nil, fmt.Errorf("what was seen: %w", err)
	}
	return m, nil
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
	if err := m.book.add(changes...); err != nil {
		return fmt.Errorf("save what was seen: %w", err)
	}
	for _, l := range changes {
		m.keep(l)
	}
	if m.book.written <= 2*len(m.tickets)+1000 {
		return nil
	}
	all := []memoryLine{{Progress: &m.progress}}
	for _, s := range m.tickets {
		all = append(all, memoryLine{Seen: s})
	}
	return m.book.renew(all)
}

func (m *memory) close() error { return m.book.close() }

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
