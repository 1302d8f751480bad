package cutover

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/webhook"
)

// publishedWithin is how long after its change an event occurs at most. AlgaPSA
// takes occurred_at when it publishes, milliseconds to seconds after updated_at;
// an updated_at that is older than that is of a stale payload (contract section
// 4.3).
const publishedWithin = 5 * time.Second

// ChangedAt is the time of the change that an event is about, as the poller sees
// it too: updated_at of its payload, unless that is missing or stale. The events
// of one change occur at different times and have this one in common.
func ChangedAt(occurred, updated time.Time) time.Time {
	if updated.IsZero() || updated.After(occurred) || occurred.Sub(updated) > publishedWithin {
		return occurred
	}
	return updated
}

// ChangeOf is ChangedAt for an envelope.
func ChangeOf(e *webhook.Envelope) time.Time {
	var updated time.Time
	if d, err := e.Ticket(); err == nil && d.UpdatedAt != nil {
		updated = d.UpdatedAt.Time
	}
	return ChangedAt(e.OccurredAt.Time, updated)
}

// Turns is whose turn it is, by the setup of a cutover directory. It reads the
// setup again whenever the file is another one, so that a turn reaches every
// process that works in the directory before its first change happens. Safe for
// concurrent use.
type Turns struct {
	dir string

	mu    sync.Mutex
	setup *Setup
	read  os.FileInfo // the file that setup is from
}

// FollowTurns returns the turns of a directory, which need not have a setup yet.
func FollowTurns(dir string) *Turns { return &Turns{dir: dir} }

// Setup returns the setup as it is now. It must not be changed. A directory
// without one is a NotFound.
func (t *Turns) Setup() (*Setup, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	// A file that is replaced between the two is read again the next time.
	info, err := os.Stat(filepath.Join(t.dir, SetupName))
	if err == nil && t.read != nil && os.SameFile(info, t.read) && info.ModTime().Equal(t.read.ModTime()) && info.Size() == t.read.Size() {
		return t.setup, nil
	}
	setup, err := LoadSetup(t.dir)
	switch {
	case t.setup != nil && fault.KindOf(err) == fault.NotFound:
		return nil, fmt.Errorf("the setup of the cutover in %s is gone", t.dir) // not the same as none yet
	case err != nil:
		return nil, err
	}
	t.setup, t.read = setup, info
	return setup, nil
}

// Acts returns the side whose turn it is for a change at that time; the poller's
// where there is no setup. An error means that nobody can say, so nobody may act
// yet.
func (t *Turns) Acts(at time.Time) (Side, error) {
	setup, err := t.Setup()
	switch {
	case fault.KindOf(err) == fault.NotFound:
		return SidePoller, nil
	case err != nil:
		return "", err
	}
	return setup.Acts(at), nil
}

// Receives reports whether it is the receiver's turn for an event.
func (t *Turns) Receives(e *webhook.Envelope) (bool, error) {
	side, err := t.Acts(ChangeOf(e))
	return side == SideReceiver, err
}

// ChangeSetup replaces the setup of a directory by what fn makes of it, while
// nobody else does. fn gets nil where there is none; after an error everything
// stays as it was.
func ChangeSetup(dir string, fn func(*Setup) (*Setup, error)) (_ *Setup, err error) {
	lock, err := occupy(dir, "cutover.lock", "Somebody else changes the cutover at this moment")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	s, err := LoadSetup(dir)
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return nil, err
	}
	if s, err = fn(s); err != nil {
		return nil, err
	}
	return s, s.Save(dir)
}

// TakeTurn gives the turn to a side. It begins at turn.From, by the server's
// clock, which must be in the future: a change that has already happened may have
// been acted on. TakeTurn writes the setup, which decides, and then the record. The
// turn that it returns begins behind the one before, whatever the clock says. A
// side whose turn it is already is a Conflict.
func TakeTurn(dir string, turn Turn) (Turn, error) {
	turn.At, turn.From = micros(turn.At), micros(turn.From)
	_, err := ChangeSetup(dir, func(s *Setup) (*Setup, error) {
		if s == nil || len(s.Turns) == 0 {
			return nil, fault.New(fault.NotFound, "There is no cutover in %s", dir)
		}
		last := s.Turns[len(s.Turns)-1]
		if last.Side == turn.Side {
			return nil, fault.New(fault.Conflict, "It is the %s's turn already, since %s", turn.Side, last.From.Format(time.RFC3339))
		}
		if !turn.From.After(last.From) {
			turn.From = last.From.Add(time.Millisecond)
		}
		s.Turns = append(s.Turns, turn)
		return s, nil
	})
	if err != nil {
		return Turn{}, err
	}
	record, err := OpenRecord(dir)
	if err == nil {
		err = errors.Join(record.Append(Entry{Turn: &turn}), record.Close())
	}
	if err != nil {
		return turn, fmt.Errorf("the turn has changed, but not in the record: %w", err)
	}
	return turn, nil
}
