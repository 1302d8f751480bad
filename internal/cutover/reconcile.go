package cutover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/filelock"
	"github.com/ticketwire/ticketwire/webhook"
)

// From which age on a change that the receiver does not have is missed: a little
// more than the sender tries.
const (
	LateOurs = 15 * time.Hour // it tries for 14 h 36 m
	LateAlga = 3 * time.Hour  // by its code for 2 h 36 m
)

// rememberedDays is how long the figures of a day are kept.
const rememberedDays = 30

// SweeperConfig is what a Sweeper needs.
type SweeperConfig struct {
	URL, Key  string       // as for client.New
	HTTP      *http.Client // sends the API requests; nil for a default one
	Dir       string       // the state directory, with the record of the receiver if it has one
	WebhookID string       // whose log says what was delivered, where the record does not
	Since     time.Time    // where the first sweep begins; zero for now
	Every     time.Duration
	Late      time.Duration // zero: LateOurs, or LateAlga where the server has no event feed
	Budget    float64       // the share of the key's rate limit to use at most, above 0 to 1
	Repair    bool          // send what was missed
	Send      Send          // to the receiver, with Repair
	Retries   []time.Duration
	// Alarm is told of each sweep that found something missed for the first time.
	// It may be nil; its error is an error of the sweep.
	Alarm func(context.Context, Sweep) error
	Now   func() time.Time
}

// Missed is a change that the receiver did not get.
type Missed struct {
	Ticket    string    `json:"ticket_id"`
	Since     time.Time `json:"since"`      // updated_at of the first change that is missing
	UpdatedAt time.Time `json:"updated_at"` // of the last one
	Repaired  bool      `json:"repaired"`
	told      bool
}

// Sweep is what one look at the server came to.
type Sweep struct {
	At       time.Time `json:"at"`       // the server's clock
	Changed  int       `json:"changed"`  // tickets that changed since the last one
	Late     int       `json:"late"`     // changes that the sender may still bring
	Missed   []Missed  `json:"missed"`   // and not repaired before this sweep
	Vanished int       `json:"vanished"` // tickets that were deleted; no event says so
	Caught   int       `json:"caught"`   // changes of the last 30 days that came by webhook
	Changes  int       `json:"changes"`  // of the last 30 days that are judged
	Requests int       `json:"requests"`
}

// tally counts the changes of one day that are judged.
type tally struct {
	Caught int `json:"caught"`
	Missed int `json:"missed"`
}

// owed is a change that the receiver does not have yet.
type owed struct {
	Since     time.Time `json:"since"`
	UpdatedAt time.Time `json:"updated_at"`
	Missed    bool      `json:"missed,omitempty"` // it is counted as such
	Told      bool      `json:"told,omitempty"`   // the alarm was raised
}

// standing is what a Sweeper keeps between two sweeps.
type standing struct {
	Server string               `json:"server"`
	Cursor time.Time            `json:"cursor"` // updated_at from which the list is read next
	Judged map[string]time.Time `json:"judged"` // changes behind the cursor that were counted
	Owed   map[string]*owed     `json:"owed"`
	Sent   map[string]time.Time `json:"sent"` // repaired: ticket -> updated_at
	Days   map[string]*tally    `json:"days"`
	// Of the tickets that were entered until EnteredTo there were Entered.
	EnteredTo time.Time `json:"entered_to,omitzero"`
	Entered   int       `json:"entered"`
}

// Sweeper looks again and again for changes that the receiver did not get. Use
// OpenSweeper.
type Sweeper struct {
	cfg     SweeperConfig
	ask     *asker
	lock    *filelock.Lock
	record  *receipts
	acks    *acks
	want    *wanted
	feed    bool
	looked  bool // the feed and the webhook were asked for
	logRead time.Time
	state   standing
}

// OpenSweeper takes the state directory. It does not call the server. A directory
// with another reconciler in it is a Conflict.
func OpenSweeper(cfg SweeperConfig) (_ *Sweeper, err error) {
	s := &Sweeper{cfg: cfg, acks: newAcks()}
	if s.ask, err = newAsker(cfg.URL, cfg.Key, cfg.HTTP, cfg.Budget, cfg.Now); err != nil {
		return nil, err
	}
	if s.lock, err = occupy(cfg.Dir, "reconcile.lock", "Another reconciler works"); err != nil {
		return nil, err
	}
	if err = s.load(); err == nil {
		s.record, err = openReceipts(cfg.Dir)
	}
	if err == nil {
		s.record.whole = true
		err = s.record.read(s.acks)
	}
	if err == nil && s.record.last.IsZero() && cfg.WebhookID == "" {
		err = fault.New(fault.Invalid, "nothing says what the receiver got: %s has no receipt in it. Name the directory of the receiver's record, or the webhook", cfg.Dir)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close gives the directory back.
func (s *Sweeper) Close() error {
	var err error
	if s.record != nil {
		err = s.record.close()
	}
	return errors.Join(err, s.lock.Release())
}

func (s *Sweeper) file() string { return filepath.Join(s.cfg.Dir, "reconcile.json") }

func (s *Sweeper) load() error {
	s.state = standing{Server: s.cfg.URL}
	text, err := os.ReadFile(s.file())
	if err == nil {
		err = json.Unmarshal(text, &s.state)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the state of the reconciler, %s: %w", s.file(), err)
	}
	if s.state.Server != s.cfg.URL {
		return fault.New(fault.Conflict, "%s is about %s: use another directory for another server", s.file(), s.state.Server)
	}
	if s.state.Owed == nil {
		s.state.Judged, s.state.Owed = map[string]time.Time{}, map[string]*owed{}
		s.state.Sent, s.state.Days = map[string]time.Time{}, map[string]*tally{}
	}
	return nil
}

func (s *Sweeper) save() error {
	text, err := json.Marshal(s.state)
	if err == nil {
		err = replaceFile(s.file(), append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("save the state of the reconciler: %w", err)
	}
	return nil
}

// Run sweeps every SweeperConfig.Every until ctx ends, and tells show of each. A
// sweep that fails is told as its error, and the next one makes up for it.
func (s *Sweeper) Run(ctx context.Context, show func(Sweep, error)) error {
	base := s.cfg.Now()
	for {
		sweep, err := s.Sweep(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // an end that was asked for
		}
		show(sweep, err)
		now := s.cfg.Now()
		if err := sleep(ctx, slot(base, s.cfg.Every, now).Sub(now)); err != nil {
			return nil //nolint:nilerr // likewise
		}
	}
}

// Sweep looks once. Its error says that it is not complete; the next one begins
// where this one began.
func (s *Sweeper) Sweep(ctx context.Context) (Sweep, error) {
	before := s.ask.requests
	sweep := Sweep{Missed: []Missed{}}
	err := s.sweep(ctx, &sweep)
	sweep.Requests = s.ask.requests - before
	for _, d := range s.state.Days {
		sweep.Caught += d.Caught
		sweep.Changes += d.Caught + d.Missed
	}
	return sweep, err
}

func (s *Sweeper) sweep(ctx context.Context, out *Sweep) error {
	if err := s.look(ctx); err != nil {
		return err
	}
	st := &s.state
	changed := map[string]*client.Ticket{}
	clock, err := s.ask.changed(ctx, st.Cursor, func(t *client.Ticket, _ time.Time) error {
		changed[strings.ToLower(t.TicketID)] = t
		return nil
	})
	if err != nil {
		return err
	}
	out.At = clock
	// What the receiver has is read after the list, so that nothing is missed that
	// arrived in between.
	if err := s.learn(ctx, clock); err != nil {
		return err
	}
	for id, t := range changed {
		if s.owe(id, t, clock) {
			out.Changed++
		}
	}
	if err := s.settle(ctx, clock, changed, out); err != nil {
		return errors.Join(err, s.save())
	}
	if err := s.countVanished(ctx, clock, changed, out); err != nil {
		return errors.Join(err, s.save())
	}
	st.Cursor = clock.Add(-overlap)
	s.forget(clock)
	if err := s.save(); err != nil {
		return err
	}
	return s.alarm(ctx, out)
}

// alarm tells of what was missed, once. One that fails is repeated, unless all was
// repaired.
func (s *Sweeper) alarm(ctx context.Context, out *Sweep) error {
	if s.cfg.Alarm == nil || !slices.ContainsFunc(out.Missed, func(m Missed) bool { return !m.told }) {
		return nil
	}
	if err := s.cfg.Alarm(ctx, *out); err != nil {
		return fmt.Errorf("alarm: %w", err)
	}
	for _, m := range out.Missed {
		if o := s.state.Owed[m.Ticket]; o != nil {
			o.Told = true
		}
	}
	return s.save()
}

// look finds out about the server, once.
func (s *Sweeper) look(ctx context.Context) error {
	if s.looked {
		return nil
	}
	var err error
	if s.feed, err = s.ask.hasFeed(ctx); err != nil {
		return err
	}
	if s.cfg.WebhookID != "" {
		var h *client.Webhook
		if err := s.ask.ask(ctx, func(ctx context.Context) (err error) {
			h, err = s.ask.api.Webhook(ctx, s.cfg.WebhookID)
			return err
		}); err != nil {
			return fmt.Errorf("read the webhook: %w", err)
		}
		if s.want, err = wantedBy(h, s.feed); err != nil {
			return err
		}
	}
	if s.cfg.Late == 0 {
		s.cfg.Late = LateAlga
		if s.feed {
			s.cfg.Late = LateOurs
		}
	}
	if s.state.Cursor.IsZero() {
		s.state.Cursor = micros(s.cfg.Since)
		if s.cfg.Since.IsZero() {
			s.state.Cursor = s.ask.clock
		}
	}
	if !s.record.last.IsZero() {
		rec, err := OpenRecord(s.cfg.Dir)
		if err != nil {
			return err
		}
		if err := errors.Join(rec.Append(Entry{Reconciler: &Reconciler{At: s.cfg.Now(), Every: s.cfg.Every.Seconds()}}), rec.Close()); err != nil {
			return err
		}
	}
	s.looked = true
	return nil
}

// learn reads what the receiver has: from its own record if there is one, which
// every kind of server has in common, and else from the sender's log.
func (s *Sweeper) learn(ctx context.Context, clock time.Time) error {
	if err := s.record.read(s.acks); err != nil || !s.record.last.IsZero() {
		return err
	}
	since := s.logRead
	if since.IsZero() {
		since = s.state.Cursor // what is owed from before is read again too
		for _, o := range s.state.Owed {
			if o.Since.Before(since) {
				since = o.Since
			}
		}
	}
	if err := s.ask.delivered(ctx, s.cfg.WebhookID, since, s.acks); err != nil {
		return fmt.Errorf("read the log of the webhook: %w", err)
	}
	s.logRead = clock.Add(-overlap)
	return nil
}

func (s *Sweeper) has(id string, at time.Time) bool {
	sent, repaired := s.state.Sent[id]
	return repaired && !sent.Before(at) || s.acks.covers(id, at)
}

// owe takes a changed ticket into account, and reports whether that is news.
func (s *Sweeper) owe(id string, t *client.Ticket, clock time.Time) bool {
	at, err := changedAt(t)
	if err != nil || s.state.Judged[id].Equal(at) {
		return false // changed has refused a ticket without a time
	}
	if s.want != nil && s.want.filter != nil && len(s.want.filter.EntityIDs) > 0 && !slices.Contains(s.want.filter.EntityIDs, id) {
		return false
	}
	s.state.Judged[id] = at
	switch o := s.state.Owed[id]; {
	case o != nil:
		o.UpdatedAt = at
	case s.has(id, at):
		s.day(clock).Caught++
	default:
		s.state.Owed[id] = &owed{Since: at, UpdatedAt: at}
	}
	return true
}

func (s *Sweeper) day(t time.Time) *tally {
	key := t.UTC().Format(time.DateOnly)
	if s.state.Days[key] == nil {
		s.state.Days[key] = &tally{}
	}
	return s.state.Days[key]
}

// settle judges what is owed: it has arrived, is late, or is missed.
func (s *Sweeper) settle(ctx context.Context, clock time.Time, changed map[string]*client.Ticket, out *Sweep) error {
	for _, id := range slices.Sorted(maps.Keys(s.state.Owed)) {
		o := s.state.Owed[id]
		switch {
		case s.has(id, o.UpdatedAt):
			if !o.Missed {
				s.day(clock).Caught++
			}
			delete(s.state.Owed, id)
			continue
		case s.has(id, o.Since):
			o.Since = o.UpdatedAt // the older change has come, the newer one has its own time
		}
		if clock.Sub(o.Since) < s.cfg.Late {
			out.Late++
			continue
		}
		m := Missed{Ticket: id, Since: o.Since, UpdatedAt: o.UpdatedAt, told: o.Told}
		unwanted, err := s.repair(ctx, id, o, changed[id])
		if err != nil {
			return err
		}
		if unwanted {
			delete(s.state.Owed, id)
			continue
		}
		if !o.Missed {
			o.Missed = true
			s.day(clock).Missed++
		}
		if m.Repaired = s.cfg.Repair; m.Repaired {
			s.state.Sent[id] = o.UpdatedAt
			delete(s.state.Owed, id)
		}
		out.Missed = append(out.Missed, m)
		if err := s.save(); err != nil {
			return err
		}
	}
	return nil
}

// repair sends what was missed of a ticket, if that is asked for: the events
// themselves where the server has them, and a synthetic one for what no event
// explains. unwanted says that the webhook would not have got any of it, or that
// the ticket is gone.
func (s *Sweeper) repair(ctx context.Context, id string, o *owed, t *client.Ticket) (unwanted bool, err error) {
	letters, explained, err := s.missing(ctx, id, o)
	if err != nil {
		return false, err
	}
	if !explained {
		made, err := s.made(ctx, id, o, t)
		if err != nil {
			return false, err
		}
		letters = append(letters, made...)
	}
	for _, l := range letters {
		if !s.cfg.Repair || s.acks.accepted(l.key) {
			continue
		}
		if err := l.post(ctx, s.cfg.Send, s.cfg.Retries, nil); err != nil {
			return false, err
		}
	}
	return len(letters) == 0, nil
}

// made returns synthetic events for a ticket as it is now; none for one that is
// gone.
func (s *Sweeper) made(ctx context.Context, id string, o *owed, t *client.Ticket) ([]*letter, error) {
	if t == nil {
		err := s.ask.ask(ctx, func(ctx context.Context) (err error) {
			t, err = s.ask.api.Ticket(ctx, id)
			return err
		})
		if err != nil && classify(err, true) == NotFound {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
	}
	at, err := changedAt(t)
	if err != nil {
		return nil, err
	}
	o.UpdatedAt = at
	return synthesize(t, at, s.acks.newest[id], o.Since, s.want)
}

// missing reads the events of a ticket that the receiver does not have and the
// webhook wants. explained says that the feed has an event of the last change.
func (s *Sweeper) missing(ctx context.Context, id string, o *owed) (letters []*letter, explained bool, err error) {
	if !s.feed {
		return nil, false, nil
	}
	for cursor, more := "", true; more; {
		var page *client.EventPage
		if err := s.ask.ask(ctx, func(ctx context.Context) (err error) {
			page, err = s.ask.api.Events(ctx, cursor, client.EventFilter{TicketID: id, Since: o.Since, Limit: feedPage})
			return err
		}); err != nil {
			return nil, false, fmt.Errorf("read the event feed: %w", err)
		}
		for i := range page.Data {
			e := &page.Data[i]
			l, err := letterOf(e)
			if err != nil {
				return nil, false, err
			}
			explained = explained || !l.updatedAt.Before(o.UpdatedAt)
			if s.acks.accepted(l.key) || !s.want.event(l.key.EventType, id, e.Data) {
				continue
			}
			if l.body, err = s.want.cut(e.Raw); err != nil {
				return nil, false, err
			}
			letters = append(letters, l)
		}
		more = page.HasMore && page.NextCursor != cursor
		cursor = page.NextCursor
	}
	return letters, explained, nil
}

// countVanished finds out how many tickets were deleted, by how many there are of
// those that were entered until some time. Which ones, only the whole list could
// say.
func (s *Sweeper) countVanished(ctx context.Context, clock time.Time, changed map[string]*client.Ticket, out *Sweep) error {
	st := &s.state
	count := func(to time.Time) (n int, err error) {
		err = s.ask.ask(ctx, func(ctx context.Context) error {
			page, err := s.ask.api.TicketsPage(ctx, client.TicketFilter{EnteredTo: to}, 1, 1)
			if err == nil {
				n = page.Total
			}
			return err
		})
		return n, err
	}
	to := clock.Add(-overlap) // all that was entered until then was on the list, or counted
	if st.EnteredTo.IsZero() {
		n, err := count(to)
		st.EnteredTo, st.Entered = to, n
		return err
	}
	if !to.After(st.EnteredTo) {
		return nil
	}
	n, err := count(st.EnteredTo)
	if err != nil {
		return err
	}
	out.Vanished = max(0, st.Entered-n)
	for _, t := range changed {
		if t.EnteredAt != nil && t.EnteredAt.After(st.EnteredTo) && !t.EnteredAt.After(to) {
			n++
		}
	}
	st.EnteredTo, st.Entered = to, n
	return nil
}

// forget drops what is of no use any more.
func (s *Sweeper) forget(clock time.Time) {
	old := clock.AddDate(0, 0, -rememberedDays)
	maps.DeleteFunc(s.state.Judged, func(_ string, at time.Time) bool { return at.Before(s.state.Cursor) })
	maps.DeleteFunc(s.state.Sent, func(_ string, at time.Time) bool { return at.Before(old) })
	maps.DeleteFunc(s.state.Days, func(key string, _ *tally) bool { return key <= old.UTC().Format(time.DateOnly) })
	maps.DeleteFunc(s.acks.newest, func(_ string, at time.Time) bool { return at.Before(old) })
	maps.DeleteFunc(s.acks.events, func(_ webhook.Key, at time.Time) bool { return at.Before(old) })
}
