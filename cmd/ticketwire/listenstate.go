package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/vault"
)

// listenState is what a listener keeps between two runs.
type listenState struct {
	Secret string    `json:"secret"` // made once, so that the receiver's configuration stays right
	Server string    `json:"server,omitempty"`
	Cursor string    `json:"cursor,omitempty"`
	Since  time.Time `json:"since,omitzero"` // where to begin while there is no cursor
	Done   []string  `json:"done,omitempty"` // events behind the cursor that were dealt with
	Seen   time.Time `json:"seen,omitzero"`  // when the feed was last read, by the wall clock, which goes on while the machine sleeps; zero: never

	file string // "": it is not kept
}

// loadListenState reads the file, or makes a new state where there is none.
func loadListenState(file string) (*listenState, error) {
	s := &listenState{file: file}
	text, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.Secret = vault.NewSigningSecret()
		return s, nil
	case err != nil:
		return nil, usageError{fmt.Errorf("--state: %w", err), ""}
	}
	if err := json.Unmarshal(text, s); err != nil || s.Secret == "" {
		return nil, usageError{fmt.Errorf("--state: %s is not a state of listen", file), "remove the file, or name another one with --state"}
	}
	return s, nil
}

// save replaces the file as a whole, so that an interrupted save leaves the one
// before. The secret is for its owner's eyes.
func (s *listenState) save() error {
	if s.file == "" {
		return nil
	}
	text, err := json.MarshalIndent(s, "", "  ") //nolint:gosec // the secret is kept on purpose, see mode below
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(s.file), filepath.Base(s.file)+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("save the state: %w", err)
	}
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), s.file)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("save the state: %w", err)
	}
	return nil
}

// forwarded is what became of one event.
type forwarded struct {
	EventID      string    `json:"event_id"`
	EventType    string    `json:"event_type"`
	OccurredAt   time.Time `json:"occurred_at"`
	TicketID     string    `json:"ticket_id"`
	TicketNumber string    `json:"ticket_number"`
	Attempts     int       `json:"attempts"`
	StatusCode   int       `json:"status_code"` // of the last attempt; 0 when none came
	DurationMS   int64     `json:"duration_ms"`
	Answer       string    `json:"answer"` // the beginning of the body, or why there is none
	Accepted     bool      `json:"accepted"`

	took time.Duration
}

func newForwarded(e *client.Event) forwarded {
	var d struct {
		TicketID     string `json:"ticket_id"`
		TicketNumber string `json:"ticket_number"`
	}
	_ = json.Unmarshal(e.Data, &d) // an event of another form has no ticket
	return forwarded{EventID: e.EventID, EventType: e.EventType, OccurredAt: e.OccurredAt, TicketID: d.TicketID, TicketNumber: d.TicketNumber}
}

func (f forwarded) line() string {
	text := fmt.Sprintf("%s  %-21s %-9s %s  %s  in %s", f.OccurredAt.Local().Format("15:04:05.000"), f.EventType,
		printable(f.TicketNumber), f.EventID, f.Answer, short(f.took))
	if f.Attempts > 1 {
		text += fmt.Sprintf("  (attempt %d)", f.Attempts)
	}
	return text
}

// summary says what was done, what the receiver did not accept, and how to go on.
func (l *listener) summary() {
	out := l.t.err
	fmt.Fprintf(out, "\nEvents forwarded: %d. Accepted: %d.\n", l.accepted+len(l.failed), l.accepted)
	if len(l.failed) > 0 {
		fmt.Fprintln(out, "Not accepted:")
		for _, f := range l.failed {
			fmt.Fprintln(out, "  "+f.line())
		}
		since := slices.MinFunc(l.failed, func(a, b forwarded) int { return a.OccurredAt.Compare(b.OccurredAt) }).OccurredAt
		fmt.Fprintf(out, "Forward them again, with what came after: %s --since %s\n", l.cmd.again(), since.UTC().Format(time.RFC3339Nano))
	}
	if !l.cmd.Once {
		fmt.Fprintf(out, "Go on from here, with what happens meanwhile: %s\n", l.cmd.again())
	}
}

// again is the command that continues this one. Keys and secrets stay in the
// environment, or have to be given again.
func (c *listenCmd) again() string {
	words := []string{"ticketwire listen --forward-to", shellWord(c.ForwardTo), "--url", shellWord(c.URL)}
	if len(c.Types) > 0 {
		words = append(words, "--types", shellWord(strings.Join(c.Types, ",")))
	}
	if c.Ticket != "" {
		words = append(words, "--ticket", shellWord(c.Ticket))
	}
	if c.SecretFile != "" {
		words = append(words, "--secret-file", shellWord(c.SecretFile))
	}
	if c.State != defaultState {
		words = append(words, "--state", shellWord(c.State))
	}
	return strings.Join(words, " ")
}

// shellWord quotes what a shell would take apart.
func shellWord(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:,@%+=", r)
	}) {
		return s
	}
	return shellQuote(s)
}
