package cutover

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/filelock"
)

// Source is where a backfill gets what was missed.
type Source string

// The sources.
const (
	FromFeed   Source = "feed"   // the event feed: the events themselves. Ticketwire only
	FromReplay Source = "replay" // the server sends them again. Ticketwire only
	FromList   Source = "list"   // the list of tickets: synthetic events for what changed
)

// How long a sender tries, give or take: an outage that is shorter loses nothing.
const (
	ThresholdOurs = 14 * time.Hour // 1 m + 5 m + 30 m + 2 h + 12 h, as the guide counts
	ThresholdAlga = 2 * time.Hour  // by its code it stops after 2 h 36 m
)

// BackfillConfig is what a Backfill needs.
type BackfillConfig struct {
	URL, Key  string       // as for client.New
	HTTP      *http.Client // sends the API requests; nil for a default one
	Dir       string       // the state directory; made if it is missing
	WebhookID string       // the webhook that missed something; empty if it is not known
	Source    Source       // empty: the feed where the server has one, else the list
	From      time.Time    // zero: find out
	Until     time.Time    // zero: the present end
	Threshold time.Duration
	Budget    float64         // the share of the key's rate limit to use at most, above 0 to 1
	To        string          // names the receiver in the state
	Send      Send            // to the receiver; nil for FromReplay, and for looking only
	Retries   []time.Duration // before each further try of a request that failed
	Enable    bool            // switch the webhook on again at the end
	Wait      time.Duration   // for the first live event after that; 0 does not wait
	Show      func(what string)
	Now       func() time.Time
}

// Backfill delivers to a receiver what it missed. Use OpenBackfill.
type Backfill struct {
	cfg    BackfillConfig
	ask    *asker
	lock   *filelock.Lock
	ledger *ledger
	record *receipts
	acks   *acks // by the record, or by the webhook's log
	hook   *client.Webhook
	want   *wanted
	feed   bool
	report BackfillReport

	passed   map[string]time.Time // ticket -> updated_at up to which the feed had nothing that the webhook wants
	shown    map[string]bool      // tickets that the list showed
	liveFrom time.Time            // what changes later comes by webhook; zero: nobody knows
	enabled  time.Time            // by this run, by the server's clock; zero: not
	logRead  time.Time            // from when on the log of the webhook is read next
	counting bool                 // nothing is sent
}

// Plan is what a Backfill would do.
type Plan struct {
	Source  Source    `json:"source"`
	From    time.Time `json:"from"`
	Until   time.Time `json:"until"` // the present end where nobody asked for another
	Guessed bool      `json:"guessed"`
	Resumed bool      `json:"resumed"` // goes on with a job that did not come to its end
	Needed  bool      `json:"needed"`
	Why     []string  `json:"why"` // what the window was worked out from
	Notes   []string  `json:"notes"`
	// Counts are the events that would be sent, by type; after Count.
	Counts map[string]int `json:"counts,omitempty"`

	until time.Time // that was asked for
}

// BackfillReport is what came of a backfill.
type BackfillReport struct {
	Source    Source         `json:"source"`
	From      time.Time      `json:"from"`
	Until     time.Time      `json:"until"`
	Sent      map[string]int `json:"sent"`      // accepted by the receiver, by type; those of a replay are in Replayed
	Synthetic int            `json:"synthetic"` // of them
	Replayed  int            `json:"replayed"`  // queued by the server
	Known     int            `json:"known"`     // not sent, because the receiver had accepted them before
	Filtered  int            `json:"filtered"`  // not sent, because the webhook does not want them
	Sweeps    int            `json:"sweeps"`
	Differ    int            `json:"differ"` // tickets that the last sweep found to be newer than what the receiver has
	Moving    int            `json:"moving"` // tickets that changed while it looked; live traffic brings those
	Deleted   []string       `json:"deleted"`
	Requests  int            `json:"requests"` // of the API
	Webhook   string         `json:"webhook"`  // "", active, disabled, or enabled by this run
	Live      bool           `json:"live"`     // a live event has arrived since
	Notes     []string       `json:"notes"`
}

// OpenBackfill takes the state directory. It does not call the server. A
// directory with another backfill in it is a Conflict.
func OpenBackfill(cfg BackfillConfig) (_ *Backfill, err error) {
	b := &Backfill{cfg: cfg, passed: map[string]time.Time{}, shown: map[string]bool{}, acks: newAcks()}
	b.report.Sent = map[string]int{}
	b.report.Deleted, b.report.Notes = []string{}, []string{}
	if b.ask, err = newAsker(cfg.URL, cfg.Key, cfg.HTTP, cfg.Budget, cfg.Now); err != nil {
		return nil, err
	}
	b.ask.show = cfg.Show
	if b.lock, err = occupy(cfg.Dir, "backfill.lock", "Another backfill works"); err != nil {
		return nil, err
	}
	if b.record, err = openReceipts(cfg.Dir); err == nil {
		b.ledger, err = openLedger(cfg.Dir)
	}
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// Close gives the directory back.
func (b *Backfill) Close() error {
	var err error
	if b.ledger != nil {
		err = b.ledger.close()
	}
	if b.record != nil {
		err = errors.Join(err, b.record.close())
	}
	return errors.Join(err, b.lock.Release())
}

// Look works out what to do, and sends nothing.
func (b *Backfill) Look(ctx context.Context) (*Plan, error) {
	var err error
	if b.feed, err = b.ask.hasFeed(ctx); err != nil {
		return nil, err
	}
	began := b.clock()
	if err := b.lookAtWebhook(ctx); err != nil {
		return nil, err
	}
	if err := b.record.read(b.acks); err != nil {
		return nil, err
	}
	p := &Plan{Source: b.cfg.Source, From: micros(b.cfg.From), until: micros(b.cfg.Until), Needed: true, Why: []string{}, Notes: []string{}}
	if p.Source == "" {
		p.Source = FromList
		if b.feed {
			p.Source = FromFeed
		}
	}
	switch {
	case p.Source != FromList && !b.feed:
		return nil, fault.New(fault.Invalid, "the server has no event feed, so it can neither be read nor replayed: use the source list")
	case p.Source == FromReplay && b.hook == nil:
		return nil, fault.New(fault.Invalid, "a replay needs the webhook to replay to")
	case b.unfinished(p):
		j := b.ledger.job
		p.From, p.until, p.Resumed = j.From, j.Until, true
		p.Why = append(p.Why, fmt.Sprintf("a backfill that began at %s did not come to its end; %d events were accepted", stamp(j.Began), b.ledger.sent))
	case p.From.IsZero():
		if err := b.detect(ctx, p, began); err != nil {
			return nil, err
		}
	}
	p.Until = p.until
	if p.Until.IsZero() {
		p.Until = began
	}
	if p.From.After(p.Until.Add(time.Second)) { // a Date has no fractions
		return nil, fault.New(fault.Invalid, "the window ends before it begins: %s to %s", stamp(p.From), stamp(p.Until))
	}
	if p.Source == FromFeed {
		err = b.checkFeed(ctx, p, began)
	}
	return p, err
}

// unfinished reports whether there is a job to go on with. One that is asked to
// begin earlier begins anew; one that would begin later, as --since does when it
// is repeated, goes on, so that nothing is skipped.
func (b *Backfill) unfinished(p *Plan) bool {
	j := b.ledger.job
	return j != nil && j.sameReceiver(b.jobOf(p)) && j.Source == p.Source &&
		(p.From.IsZero() || !p.From.Before(j.From)) && (p.until.IsZero() && j.Until.IsZero() || p.until.Equal(j.Until))
}

// lookAtWebhook reads the subscription.
func (b *Backfill) lookAtWebhook(ctx context.Context) error {
	if b.cfg.WebhookID == "" {
		return nil
	}
	err := b.ask.ask(ctx, func(ctx context.Context) (err error) {
		b.hook, err = b.ask.api.Webhook(ctx, b.cfg.WebhookID)
		return err
	})
	if err != nil {
		return fmt.Errorf("read the webhook: %w", err)
	}
	b.want, err = wantedBy(b.hook, b.feed)
	return err
}

// disabledAfter is how long a webhook fails before its server disables it (contract
// section 4.11).
const disabledAfter = 24 * time.Hour

// detect finds the beginning of what was missed: the earliest of the signs that
// there are. It goes back by overlap behind that, for what was under way.
func (b *Backfill) detect(ctx context.Context, p *Plan, now time.Time) error {
	p.Guessed = true
	threshold := b.threshold()
	var good time.Time // until when all was well
	lost := false      // something was given up, however short the outage was
	sign := func(at time.Time, given bool, format string, args ...any) {
		p.Why = append(p.Why, fmt.Sprintf(format, args...))
		if at.Before(b.ledger.done) {
			at = b.ledger.done
		}
		if good.IsZero() || at.Before(good) {
			good = at
		}
		lost = lost || given
	}
	if h := b.hook; h != nil {
		since := h.CreatedAt
		if h.LastSuccessAt != nil {
			since = h.LastSuccessAt
		}
		switch {
		case since == nil:
		case !h.IsActive && h.AutoDisabledAt != nil:
			sign(*since, true, "the webhook was disabled at %s; its last success was at %s", stamp(*h.AutoDisabledAt), stamp(*since))
		case !h.IsActive:
			sign(*since, true, "the webhook is not active; its last success was at %s", stamp(*since))
		case h.LastFailureAt != nil && h.LastFailureAt.After(*since):
			sign(*since, false, "the webhook fails; its last success was at %s", stamp(*since))
		}
		// AlgaPSA keeps the mark of a webhook that is on again (contract W7), and its
		// last success tells nothing of what was before.
		if off := h.AutoDisabledAt; h.IsActive && off != nil && off.After(b.ledger.done) && now.Sub(*off) < serverKeeps {
			sign(off.Add(-disabledAfter), true, "the webhook was disabled at %s, after a day of failures, and is on again", stamp(*off))
		}
		if err := b.abandoned(ctx, now, sign); err != nil {
			return err
		}
	}
	if r := b.record; !r.last.IsZero() {
		if now.Sub(r.last) >= threshold {
			sign(r.last, false, "the last receipt in the record is of %s", stamp(r.last))
		}
		if g := r.longest; g.To.Sub(g.From) >= threshold && g.To.After(b.ledger.done) {
			sign(g.From, true, "the record has no receipt between %s and %s", stamp(g.From), stamp(g.To))
		}
	}
	switch {
	case good.IsZero() && b.hook == nil && b.record.last.IsZero():
		return fault.New(fault.Invalid, "nothing says when the receiver got its last event: there is no receipt in %s. Say where to begin, or name the webhook", b.cfg.Dir)
	case good.IsZero():
		p.Needed, p.From = false, now
		p.Why = append(p.Why, "nothing that is known is missing")
	default:
		p.From = micros(good.Add(-overlap))
		if now.Sub(good) < threshold && !lost {
			p.Needed = false
			p.Notes = append(p.Notes, fmt.Sprintf("That is less than %s ago: the sender still tries, so a backfill is not needed. It does no harm either.", threshold))
		}
	}
	return nil
}

// abandonedRows bounds how much of the log is read for a sign.
const abandonedRows = 1000

// abandoned looks for the oldest event that the sender gave up and that the
// receiver has not got since.
func (b *Backfill) abandoned(ctx context.Context, now time.Time, sign func(time.Time, bool, string, ...any)) error {
	var first time.Time
	n, since := 0, now.Add(-overlap-31*24*time.Hour)
	if b.ledger.done.After(since) {
		since = b.ledger.done
	}
	err := b.ask.log(ctx, b.cfg.WebhookID, client.DeliveryFilter{Status: "abandoned", From: since}, since, func(d *client.Delivery, e *client.Event) bool {
		if d.Status == "abandoned" && (first.IsZero() || e.OccurredAt.Before(first)) {
			first = e.OccurredAt
		}
		n++
		return n < abandonedRows
	})
	if _, answered := errors.AsType[*client.Error](err); answered && !b.feed {
		return nil // not every release of AlgaPSA has this route
	}
	if err != nil {
		return fmt.Errorf("read the log of the webhook: %w", err)
	}
	if !first.IsZero() {
		sign(first, true, "the sender has given up deliveries of the webhook; the oldest event among them is of %s", stamp(first))
	}
	return nil
}

func (b *Backfill) threshold() time.Duration {
	switch {
	case b.cfg.Threshold > 0:
		return b.cfg.Threshold
	case b.feed:
		return ThresholdOurs
	default:
		return ThresholdAlga
	}
}

// serverKeeps is how long a server keeps events and its log of deliveries, unless
// it is told otherwise.
const serverKeeps = 30 * 24 * time.Hour

// checkFeed says whether the feed reaches back to the window's begin.
func (b *Backfill) checkFeed(ctx context.Context, p *Plan, now time.Time) error {
	var page *client.EventPage
	if err := b.ask.ask(ctx, func(ctx context.Context) (err error) {
		page, err = b.ask.api.Events(ctx, "", client.EventFilter{Limit: 1})
		return err
	}); err != nil {
		return err
	}
	begins := now
	if len(page.Data) > 0 {
		begins = page.Data[0].OccurredAt
	}
	if begins.After(p.From) || now.Sub(p.From) > serverKeeps {
		if oldest := now.Add(-serverKeeps); oldest.After(begins) {
			begins = oldest
		}
		p.Notes = append(p.Notes, fmt.Sprintf("The event feed does not reach back to %s: what it may have had before %s is gone. Tickets that changed then come from the list, as they are now; what they were in between is lost.",
			stamp(p.From), stamp(begins)))
	}
	return nil
}

// Count counts what would be sent, and sends nothing.
func (b *Backfill) Count(ctx context.Context, p *Plan) error {
	counted := *b
	counted.counting, counted.acks = true, &acks{maps.Clone(b.acks.newest), maps.Clone(b.acks.events)}
	counted.report = BackfillReport{Sent: map[string]int{}}
	counted.passed, counted.shown = map[string]time.Time{}, map[string]bool{}
	j := b.jobOf(p)
	if p.Source == FromReplay && b.hook.IsActive {
		n, err := counted.countReplay(ctx, j)
		p.Counts = n
		return err
	}
	if err := counted.learn(ctx, j); err != nil {
		return err
	}
	at := b.ledger.place
	if !p.Resumed {
		at = place{}
	}
	if p.Source != FromList { // what a disabled webhook has missed is in the feed
		if err := counted.readFeed(ctx, j, &at); err != nil {
			return err
		}
	}
	if _, err := counted.sweep(ctx, j, j.From, nil); err != nil {
		return err
	}
	p.Counts = counted.report.Sent
	return nil
}

func (b *Backfill) jobOf(p *Plan) *job {
	return &job{Server: b.cfg.URL, WebhookID: b.cfg.WebhookID, To: b.cfg.To, Source: p.Source, From: p.From, Until: p.until, Began: b.clock()}
}

// clock is the server's, as far as it is known. A Date has no fractions, so the
// server may be up to a second ahead of this.
func (b *Backfill) clock() time.Time {
	if b.ask.clock.IsZero() {
		return micros(b.cfg.Now())
	}
	return b.ask.clock
}

func (b *Backfill) show(format string, args ...any) {
	if b.cfg.Show != nil {
		b.cfg.Show(fmt.Sprintf(format, args...))
	}
}

// stamp writes a time for a person who may be in another place.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// known returns the tickets that the receiver or the poller have met.
func (b *Backfill) known() ([]string, error) {
	m := &memory{tickets: map[string]*seen{}}
	if err := readNotebook(filepath.Join(b.cfg.Dir, "seen.jsonl"), m.keep); err != nil {
		return nil, fmt.Errorf("what was seen: %w", err)
	}
	met := map[string]bool{}
	for id, s := range m.tickets {
		if !s.Gone {
			met[id] = true
		}
	}
	for _, a := range []*acks{b.acks, b.ledger.acks} {
		for id := range a.newest {
			met[strings.ToLower(id)] = true
		}
	}
	for id := range b.shown {
		delete(met, id)
	}
	return slices.Sorted(maps.Keys(met)), nil
}
