package cutover

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"time"
	"unicode/utf8"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/fault"
)

// The kinds of drills.
const (
	DrillRestart = "restart" // the receiver was restarted while something changed
	DrillRetry   = "retry"   // the receiver refused an event, which came again
	DrillEdit    = "edit"    // a ticket was changed many times
)

// DrillRequest is what a drill asks of the process in which the receiver runs. It
// is a file in the cutover directory, which goes away when the request is met:
// the receiver refuses the next event of Ticket, or does not listen for Down.
type DrillRequest struct {
	Kind   string        `json:"kind"` // DrillRestart or DrillRetry
	Ticket string        `json:"ticket"`
	Down   time.Duration `json:"down_ns,omitempty"`
}

const (
	// drillName is the file of a DrillRequest.
	drillName = "drill.json"
	// lookEvery is how often a file is looked at while somebody waits for it.
	lookEvery = 200 * time.Millisecond
)

// AskForDrill asks for a drill and returns when the request is met. When nobody
// meets it within patience it is withdrawn, and the error is a Conflict.
func AskForDrill(ctx context.Context, dir string, r DrillRequest, patience time.Duration) error {
	name := filepath.Join(dir, drillName)
	text, err := json.Marshal(r)
	if err == nil {
		err = replaceFile(name, text)
	}
	if err != nil {
		return fmt.Errorf("ask for a drill: %w", err)
	}
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if sleep(bounded, lookEvery) == nil {
			continue
		}
		if err := os.Remove(name); errors.Is(err, fs.ErrNotExist) {
			return nil // met in the last moment
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fault.New(fault.Conflict, "No receiver of a cutover start runs in %s", dir)
	}
}

// MeetDrills hands over each request for a drill until ctx ends. meet returns when
// the request is met.
func MeetDrills(ctx context.Context, dir string, meet func(DrillRequest)) error {
	name := filepath.Join(dir, drillName)
	// What was asked of a process that is gone is asked of nobody.
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove an old drill: %w", err)
	}
	for sleep(ctx, lookEvery) == nil {
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var r DrillRequest
		if err == nil {
			err = json.Unmarshal(text, &r)
		}
		if err == nil {
			meet(r)
			err = os.Remove(name)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("meet a drill: %w", err)
		}
	}
	return nil
}

// Scratch is a ticket that drills may change: a mark is added to its title, and
// taken away again. Use OpenScratch. Used by one goroutine.
type Scratch struct {
	asker *asker
	id    string
	title string // without the mark
	n     int
}

// ScratchConfig says which ticket it is.
type ScratchConfig struct {
	URL, Key string       // as for client.New
	HTTP     *http.Client // nil for a default one
	Ticket   string
	Budget   float64 // as in Config
	Now      func() time.Time
}

// maxTitle is the longest title (contract section 8, P11), in characters.
const maxTitle = 255

// drillMark finds what an edit leaves in a title. One that was killed leaves it there,
// and the next takes it away.
var drillMark = regexp.MustCompile(`( \[drill [0-9]+\])+$`)

// OpenScratch reads the ticket.
func OpenScratch(ctx context.Context, cfg ScratchConfig) (*Scratch, error) {
	a, err := newAsker(cfg.URL, cfg.Key, cfg.HTTP, cfg.Budget, cfg.Now)
	if err != nil {
		return nil, err
	}
	s := &Scratch{asker: a, id: cfg.Ticket}
	var t *client.Ticket
	err = s.asker.ask(ctx, func(ctx context.Context) (err error) {
		t, err = a.api.Ticket(ctx, s.id)
		return err
	})
	if err != nil {
		return nil, err
	}
	if t.Title != nil {
		s.title = drillMark.ReplaceAllString(*t.Title, "")
	}
	if utf8.RuneCountInString(s.title) > maxTitle-len(" [drill 1000000]") {
		return nil, fault.New(fault.Invalid, "The title of ticket %s has no room for a mark: take another ticket, or shorten it", s.id)
	}
	return s, nil
}

// Edit changes the title and returns the ticket's updated_at then.
func (s *Scratch) Edit(ctx context.Context) (time.Time, error) {
	s.n++
	return s.set(ctx, fmt.Sprintf("%s [drill %d]", s.title, s.n))
}

// Restore puts the title back.
func (s *Scratch) Restore(ctx context.Context) error {
	_, err := s.set(ctx, s.title)
	return err
}

func (s *Scratch) set(ctx context.Context, title string) (at time.Time, err error) {
	err = s.asker.ask(ctx, func(ctx context.Context) error {
		t, err := s.asker.api.UpdateTicket(ctx, s.id, client.TicketUpdate{Title: client.Set(title)})
		if err == nil && t.UpdatedAt == nil {
			err = errors.New("the answer has no updated_at")
		}
		if err == nil {
			at = micros(*t.UpdatedAt)
		}
		return err
	})
	if err != nil {
		return at, fmt.Errorf("change the title of ticket %s: %w", s.id, err)
	}
	return at, nil
}

// ServerClock returns a time that the server's clock had not passed when it
// answered, and that was at most a second ahead of it: what a server says of its
// clock has no fractions.
func ServerClock(ctx context.Context, url, key string, h *http.Client, now func() time.Time) (time.Time, error) {
	a, err := newAsker(url, key, h, 1, now)
	if err != nil {
		return time.Time{}, err
	}
	err = a.ask(ctx, func(ctx context.Context) error {
		_, err := a.api.TicketsPage(ctx, client.TicketFilter{}, 1, 1)
		return err
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("ask the server for its clock: %w", err)
	}
	if a.clock.IsZero() {
		return time.Time{}, errors.New("the server's answer has no Date, so nobody knows its clock")
	}
	return a.clock.Add(time.Second), nil
}

// Tail follows a record from its present end on.
type Tail struct {
	file   *os.File
	reader *Reader
}

// OpenTail opens the record of a cutover directory, which must exist, at its end.
func OpenTail(dir string) (*Tail, error) {
	f, err := os.Open(filepath.Join(dir, RecordName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Wrap(fault.NotFound, err, "There is no record in %s", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("open the record: %w", err)
	}
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("go to the end of the record: %w", err), f.Close())
	}
	// The end may be inside of a line that is being written. One append begins with
	// a line break, so nothing is lost by what is skipped.
	return &Tail{f, NewReader(&skipLine{r: io.NewSectionReader(f, end, 1<<62)})}, nil
}

// Await returns the first entry behind the last one for which found is true. It
// returns ctx's error when there is none in time.
func (t *Tail) Await(ctx context.Context, found func(Entry) bool) (Entry, error) {
	for {
		e, err := t.reader.Next()
		switch {
		case errors.Is(err, io.EOF):
			if err := sleep(ctx, lookEvery); err != nil {
				return Entry{}, err
			}
		case err != nil:
			return Entry{}, err
		case found(e):
			return e, nil
		}
	}
}

// Close closes the file.
func (t *Tail) Close() error { return t.file.Close() }

// skipLine leaves out everything up to the first line break.
type skipLine struct {
	r    io.Reader
	text *bufio.Reader
	done bool
}

// Read is io.Reader's.
func (s *skipLine) Read(b []byte) (int, error) {
	if s.text == nil {
		s.text = bufio.NewReader(s.r)
	}
	for !s.done {
		c, err := s.text.ReadByte()
		if err != nil {
			return 0, err
		}
		s.done = c == '\n'
	}
	return s.text.Read(b)
}
