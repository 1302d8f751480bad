package cutover

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"time"
)

// RecordName is the name of the record in a cutover directory.
const RecordName = "record.jsonl"

// Entry is one line of the record. Exactly one field is set. All times are UTC
// and exact to the microsecond.
type Entry struct {
	Watch    *Watch    `json:"watch,omitempty"`
	Poll     *Poll     `json:"poll,omitempty"`
	Receipt  *Receipt  `json:"receipt,omitempty"`
	Delivery *Delivery `json:"delivery,omitempty"`
	Truth    *Truth    `json:"truth,omitempty"`
	Gap      *Gap      `json:"gap,omitempty"`

	Subscription *Subscription `json:"subscription,omitempty"`
	Receiver     *Receiver     `json:"receiver,omitempty"`
	Reading      *Reading      `json:"reading,omitempty"`
	Reaction     *Reaction     `json:"reaction,omitempty"`
	Reconciler   *Reconciler   `json:"reconciler,omitempty"`
	Turn         *Turn         `json:"turn,omitempty"`
	Drill        *Drill        `json:"drill,omitempty"`
}

// Watch is written when a poller starts. From then on it watches these tickets,
// and no others.
type Watch struct {
	At       time.Time `json:"at"`
	Server   string    `json:"server"`            // base URL
	Interval float64   `json:"interval"`          // seconds from one round to the next
	Tickets  []string  `json:"tickets,omitempty"` // empty: all tickets, by the list
}

// Poll is one request of the poller and what it showed. A request without an
// answer that shows tickets has an Error and no Seen.
type Poll struct {
	At      time.Time `json:"at"`    // the request was sent
	Done    time.Time `json:"done"`  // the answer was read, or given up
	Round   time.Time `json:"round"` // when the round began that the request belongs to
	Ticket  string    `json:"ticket,omitempty"`
	List    *ListPage `json:"list,omitempty"`
	HTTP    int       `json:"http,omitempty"` // status; 0 for no answer
	Failure Failure   `json:"failure,omitempty"`
	Error   string    `json:"err,omitempty"`

	Date      time.Time `json:"date,omitzero"`       // the server's clock, to the second
	Limit     int       `json:"limit,omitempty"`     // X-RateLimit-Limit; 0 for none
	Remaining int       `json:"remaining,omitempty"` // X-RateLimit-Remaining, where there is a Limit

	// Seen are the tickets that the answer showed; of a list only those that are
	// not as they were.
	Seen []Observation `json:"seen,omitempty"`
}

// ListPage says what a request asked of the list of tickets, and how much it got.
type ListPage struct {
	For   Purpose   `json:"for"`
	From  time.Time `json:"from,omitzero"` // updated_from; zero for the whole list
	Page  int       `json:"page"`
	Got   int       `json:"got"`   // tickets on the page
	Total int       `json:"total"` // tickets on all pages, as the server counts
	Last  bool      `json:"last,omitempty"`
}

// Purpose says why a page of the list was asked for.
type Purpose string

// The purposes.
const (
	ForChanges Purpose = "changes" // what changed since the last round
	ForCount   Purpose = "count"   // whether tickets vanished
	ForSweep   Purpose = "sweep"   // which ones
)

// Failure says why a request is no observation.
type Failure string

// The failures. NotFound is an answer: the ticket is not there. During the
// others the poller is blind.
const (
	NotFound    Failure = "not_found"    // 404 in the form of the API
	RateLimited Failure = "rate_limited" // 429
	ServerError Failure = "server_error" // 5xx
	Refused     Failure = "refused"      // any other status that is not 2xx
	Timeout     Failure = "timeout"
	Network     Failure = "network"
	Malformed   Failure = "malformed" // a 2xx that is not what the API answers
)

// Blind reports whether the failure says nothing about the ticket.
func (f Failure) Blind() bool { return f != "" && f != NotFound }

// Observation is the state of one ticket as one poll showed it.
type Observation struct {
	Ticket    string    `json:"ticket"`
	UpdatedAt time.Time `json:"updated_at"`
	Verdict   Verdict   `json:"verdict"`
	// Hash stands for the fields that webhooks carry too. It does not cover
	// updated_at: states that are equal have equal hashes.
	Hash string `json:"hash"`
	// Fields are those fields as they came, whenever Hash is not the one that was
	// dealt with last. A field that the answer did not have is missing.
	Fields map[string]json.RawMessage `json:"fields,omitempty"`
}

// Receipt is one webhook request as the receiver got it. An event that arrives
// several times has several.
type Receipt struct {
	At         time.Time `json:"at"`                   // the request was read
	Done       time.Time `json:"done"`                 // the answer was written: the event was handled
	HTTP       int       `json:"http"`                 // what the receiver answered
	Outcome    string    `json:"outcome"`              // a webhook.Outcome
	Signed     bool      `json:"signed"`               // the signature was good
	EventID    string    `json:"event_id"`             // of the body, or, unsigned, of the header
	EventType  string    `json:"event_type"`           // likewise
	DeliveryID string    `json:"delivery_id"`          // of the header, which is not signed
	WebhookID  string    `json:"webhook_id,omitempty"` // likewise
	Attempt    int       `json:"attempt,omitempty"`    // of the header
	OccurredAt time.Time `json:"occurred_at,omitzero"`
	Ticket     string    `json:"ticket,omitempty"`
	UpdatedAt  time.Time `json:"updated_at,omitzero"`
	Hash       string    `json:"hash,omitempty"` // as in Observation, of data
	BodyHash   string    `json:"body_hash"`      // of the body byte by byte
	Body       string    `json:"body,omitempty"`
	Synthetic  bool      `json:"synthetic,omitempty"` // made by a backfill
}

// Delivery is a row of the sender's log of deliveries, as it was read at At. A
// row that is read again later has another entry.
type Delivery struct {
	At          time.Time `json:"at"`
	WebhookID   string    `json:"webhook_id"`
	DeliveryID  string    `json:"delivery_id"`
	EventID     string    `json:"event_id"`
	EventType   string    `json:"event_type"`
	Ticket      string    `json:"ticket,omitempty"` // where the row shows it
	Attempt     int       `json:"attempt"`
	Status      string    `json:"status"` // pending, delivered, retrying, abandoned
	HTTP        int       `json:"http,omitempty"`
	Error       string    `json:"err,omitempty"`
	Test        bool      `json:"test,omitempty"`
	Manual      bool      `json:"manual,omitempty"` // a person or a replay asked for it
	AttemptedAt time.Time `json:"attempted_at,omitzero"`
	CompletedAt time.Time `json:"completed_at,omitzero"`
	NextRetryAt time.Time `json:"next_retry_at,omitzero"`
}

// Truth is what a third observer knows of a change: the event feed, or a sweep
// at the end that reads every ticket once.
type Truth struct {
	At         time.Time                  `json:"at"`     // when it was read
	Source     string                     `json:"source"` // TruthOfFeed or TruthOfSweep
	EventID    string                     `json:"event_id,omitempty"`
	EventType  string                     `json:"event_type,omitempty"`
	OccurredAt time.Time                  `json:"occurred_at,omitzero"`
	Ticket     string                     `json:"ticket"`
	UpdatedAt  time.Time                  `json:"updated_at,omitzero"`
	Hash       string                     `json:"hash,omitempty"`
	Fields     map[string]json.RawMessage `json:"fields,omitempty"`
}

// Where the truth is from.
const (
	TruthOfFeed  = "feed"  // an event; all of them are there
	TruthOfSweep = "sweep" // the state of a ticket that changed, by the list; those between are not
)

// Gap is a time in which one side could not learn of changes, for a reason that
// no other entry shows.
type Gap struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	Side Side      `json:"side"`
	Why  string    `json:"why"`
	// Ahead is how far the server's clock is ahead of ours, in microseconds, for
	// a gap of the clock.
	Ahead int64 `json:"ahead_us,omitempty"`
}

// Side is whose gap it is.
type Side string

// The sides.
const (
	SidePoller   Side = "poller"   // it did not run
	SideReceiver Side = "receiver" // it did not run
	SideWebhook  Side = "webhook"  // it was disabled
	SideClock    Side = "clock"    // the clocks of server and poller differ
)

// Record is the append-only file that both pipelines write. It is safe for
// concurrent use, and several processes may have it open.
type Record struct{ lines *lines }

// OpenRecord opens the record of a cutover directory, which it makes if it is
// missing.
func OpenRecord(dir string) (*Record, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the cutover directory: %w", err)
	}
	l, err := openLines(filepath.Join(dir, RecordName))
	if err != nil {
		return nil, fmt.Errorf("open the record: %w", err)
	}
	return &Record{l}, nil
}

// Append adds the entries and returns when they are on disk: what it returned
// nil for survives a kill and a power cut. It cuts times to microseconds.
func (r *Record) Append(entries ...Entry) error {
	values := make([]any, len(entries))
	for i, e := range entries {
		exact, err := e.exact()
		if err != nil {
			return err
		}
		values[i] = exact
	}
	if err := r.lines.append(values...); err != nil {
		return fmt.Errorf("append to the record: %w", err)
	}
	return nil
}

// Dir is the cutover directory.
func (r *Record) Dir() string { return filepath.Dir(r.lines.file.Name()) }

// Close closes the file.
func (r *Record) Close() error { return r.lines.close() }

// exact returns a copy whose times are UTC microseconds.
func (e Entry) exact() (Entry, error) {
	set := 0
	if e.Watch != nil {
		set++
		e.Watch = copyWith(e.Watch, func(w *Watch) []*time.Time { return []*time.Time{&w.At} })
	}
	if e.Poll != nil {
		set++
		e.Poll = exactPoll(e.Poll)
	}
	if e.Receipt != nil {
		set++
		e.Receipt = copyWith(e.Receipt, func(r *Receipt) []*time.Time {
			return []*time.Time{&r.At, &r.Done, &r.OccurredAt, &r.UpdatedAt}
		})
	}
	if e.Delivery != nil {
		set++
		e.Delivery = copyWith(e.Delivery, func(d *Delivery) []*time.Time {
			return []*time.Time{&d.At, &d.AttemptedAt, &d.CompletedAt, &d.NextRetryAt}
		})
	}
	if e.Truth != nil {
		set++
		e.Truth = copyWith(e.Truth, func(t *Truth) []*time.Time { return []*time.Time{&t.At, &t.OccurredAt, &t.UpdatedAt} })
	}
	if e.Gap != nil {
		set++
		e.Gap = copyWith(e.Gap, func(g *Gap) []*time.Time { return []*time.Time{&g.From, &g.To} })
	}
	if e.Subscription != nil {
		set++
		e.Subscription = copyWith(e.Subscription, func(s *Subscription) []*time.Time { return []*time.Time{&s.At, &s.DisabledAt} })
	}
	if e.Receiver != nil {
		set++
		e.Receiver = copyWith(e.Receiver, func(r *Receiver) []*time.Time { return []*time.Time{&r.At} })
	}
	if e.Reading != nil {
		set++
		e.Reading = copyWith(e.Reading, func(r *Reading) []*time.Time { return []*time.Time{&r.At, &r.From, &r.To} })
	}
	if e.Reaction != nil {
		set++
		e.Reaction = copyWith(e.Reaction, func(r *Reaction) []*time.Time { return []*time.Time{&r.At} })
	}
	if e.Reconciler != nil {
		set++
		e.Reconciler = copyWith(e.Reconciler, func(r *Reconciler) []*time.Time { return []*time.Time{&r.At} })
	}
	if e.Turn != nil {
		set++
		e.Turn = copyWith(e.Turn, func(t *Turn) []*time.Time { return []*time.Time{&t.At, &t.From} })
	}
	if e.Drill != nil {
		set++
		e.Drill = copyWith(e.Drill, func(d *Drill) []*time.Time { return []*time.Time{&d.At} })
	}
	if set != 1 {
		return Entry{}, fmt.Errorf("an entry of the record has one kind, not %d", set)
	}
	return e, nil
}

func exactPoll(p *Poll) *Poll {
	p = copyWith(p, func(p *Poll) []*time.Time { return []*time.Time{&p.At, &p.Done, &p.Round, &p.Date} })
	if p.List != nil {
		p.List = copyWith(p.List, func(l *ListPage) []*time.Time { return []*time.Time{&l.From} })
	}
	seen := make([]Observation, len(p.Seen))
	for i := range p.Seen {
		seen[i] = *copyWith(&p.Seen[i], func(o *Observation) []*time.Time { return []*time.Time{&o.UpdatedAt} })
	}
	p.Seen = seen
	return p
}

func copyWith[T any](v *T, times func(*T) []*time.Time) *T {
	out := *v
	for _, t := range times(&out) {
		*t = micros(*t)
	}
	return &out
}

// micros is the form in which times are kept and compared.
func micros(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// Reader reads a record in the order in which it was written, also while it is
// written.
type Reader struct{ lines *lineReader }

// NewReader returns a reader of a record, usually of the file RecordName.
// Records of several machines can be read one behind the other.
func NewReader(r io.Reader) *Reader { return &Reader{newLineReader(r)} }

// Next returns the next entry, or io.EOF when there is no whole one yet; a later
// call goes on from there. A line that a kill cut off is dropped. A line that is
// damaged, and an entry of a kind that this version does not know, are errors.
func (r *Reader) Next() (Entry, error) {
	var e Entry
	if err := r.lines.next(&e); err != nil {
		if errors.Is(err, io.EOF) {
			return Entry{}, io.EOF
		}
		return Entry{}, fmt.Errorf("read the record: %w", err)
	}
	if e == (Entry{}) {
		return Entry{}, fmt.Errorf("read the record: line %d is of a kind that this version does not know", r.lines.line)
	}
	return e, nil
}

// Entries yields what is left up to the present end. An error comes as the last
// pair.
func (r *Reader) Entries() iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for {
			e, err := r.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// Torn is how many lines were dropped so far because they were cut off.
func (r *Reader) Torn() int { return r.lines.torn }
