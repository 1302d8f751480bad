package cutover

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/filelock"
)

// SetupName is the name of the setup in a cutover directory.
const SetupName = "cutover.json"

// Setup is what a cutover is about: which server, which webhook, which tickets,
// and whose turn it is to act. It holds no key and no secret.
type Setup struct {
	Server    string    `json:"server"` // base URL
	WebhookID string    `json:"webhook_id"`
	Tickets   []string  `json:"tickets,omitempty"` // empty: all tickets, by the list
	Interval  float64   `json:"interval"`          // of the poller, in seconds
	Started   time.Time `json:"started"`
	Rules     Rules     `json:"rules"`
	Turns     []Turn    `json:"turns"` // oldest first; never empty
}

// Turn says who acts on the changes from a time on, until the next turn.
type Turn struct {
	At   time.Time `json:"at"`   // when it was decided
	From time.Time `json:"from"` // the first change it is for, by the server's clock
	Side Side      `json:"side"` // SidePoller or SideReceiver
	// Why and By are set where somebody decided against the report.
	Why string `json:"why,omitempty"`
	By  string `json:"by,omitempty"`
}

// Acts returns the side whose turn it is for a change at t: updated_at for what
// the poller sees, ChangedAt for an event. As both sides ask for the time of the
// change and not for that of its arrival, what is under way when the turn changes
// is acted on once.
func (s *Setup) Acts(t time.Time) Side {
	side := SidePoller // what was there before the cutover began is polled
	for _, turn := range s.Turns {
		if t.Before(turn.From) {
			break
		}
		side = turn.Side
	}
	return side
}

// occupy takes a lock in a directory, which it makes if it is missing. A lock that
// somebody else holds is a Conflict; held says what that one does.
func occupy(dir, lock, held string) (*filelock.Lock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory: %w", err)
	}
	l, err := filelock.Acquire(filepath.Join(dir, lock))
	if errors.Is(err, filelock.ErrHeld) {
		return nil, fault.Wrap(fault.Conflict, err, "%s in %s", held, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("lock the directory: %w", err)
	}
	return l, nil
}

// LoadSetup reads the setup of a cutover directory. A directory without one is a
// NotFound.
func LoadSetup(dir string) (*Setup, error) {
	name := filepath.Join(dir, SetupName)
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "There is no cutover in %s: ticketwire cutover start begins one", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("read the setup of the cutover: %w", err)
	}
	s := new(Setup)
	if err := json.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf("read the setup of the cutover, %s: %w", name, err)
	}
	return s, nil
}

// Save replaces the setup of a cutover directory, which it makes if it is
// missing. It is whole on disk before Save returns, or the one before is.
func (s *Setup) Save(dir string) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = replaceFile(filepath.Join(dir, SetupName), append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("save the setup of the cutover: %w", err)
	}
	return nil
}

// Rules are what the people who do the cutover have decided about the
// comparison. All of them are shown in the report.
type Rules struct {
	// Ignore are fields whose differences are no mismatch.
	Ignore []Ignore `json:"ignore,omitempty"`
	// Waived are subscribed event types that need not have been seen.
	Waived []string `json:"waived,omitempty"`
	// MissRate is the bound on the share of missed changes, above 0 to 1; 0 means
	// DefaultMissRate.
	MissRate float64 `json:"miss_rate,omitempty"`
	// Window is how long both must have run, in seconds; 0 means DefaultWindow.
	Window float64 `json:"window,omitempty"`
}

// Ignore is a rule about one field, with somebody who answers for it and an end.
type Ignore struct {
	Field string    `json:"field"`
	Owner string    `json:"owner"`
	Until time.Time `json:"until"`
	Why   string    `json:"why"`
}

// What Rules have if they do not say otherwise.
const (
	DefaultMissRate = 0.01
	DefaultWindow   = 24 * time.Hour
)
