package cutover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/filelock"
)

const (
	// algaGivesUp is when AlgaPSA has made its five attempts, whatever the
	// retry_config says (contract section 4.9).
	algaGivesUp = 2*time.Hour + 36*time.Minute
	// sweepEvery is how often a server without a feed is swept.
	sweepEvery = time.Hour
	// gapEvery is how often the gap of a webhook that stays disabled is noted.
	gapEvery = 10 * time.Minute
)

// Topic is what a Collector asks about.
type Topic string

// The topics.
const (
	TopicWebhook    Topic = "webhook"    // its configuration and health
	TopicFeed       Topic = "feed"       // the event feed, or the list of tickets where there is none
	TopicDeliveries Topic = "deliveries" // the log of deliveries
)

// Collector reads from the server what neither pipeline can know, and writes it
// into the record: how the webhook is set up and whether it is enabled, what the
// sender says about its deliveries, and what really happened. Use OpenCollector.
//
// What it has written before a kill it may write again after it. A reader of the
// record ignores lines that say the same.
type Collector struct {
	cfg    CollectorConfig
	caller *caller
	lock   *filelock.Lock
	record *Record
	place  collectorPlace

	subscribed *Subscription // as the record of this run has it
	seen       map[string]Delivery
	noFeed     bool
	swept      time.Time // when the last sweep of this run began, by our clock
	answered   bool
	status     Collected
}

// CollectorConfig is what a Collector needs.
type CollectorConfig struct {
	URL, Key string       // as for client.New
	HTTP     *http.Client // sends the requests; nil for a default one
	Dir      string       // the cutover directory; made if it is missing

	WebhookID string
	Since     time.Time     // when the cutover began, by the server's clock
	Interval  time.Duration // from one look to the next; positive
	Budget    float64       // as in Config; together with the poller's it is what the key gives to the cutover
	Timeout   time.Duration // bounds one request; 0 for client.DefaultTimeout

	// Show is told how it goes after each look. It may be nil and is called by the
	// goroutine of Run.
	Show func(Collected)
	Now  func() time.Time
}

// Collected is how a Collector goes.
type Collected struct {
	Events, Deliveries, Tickets int // lines written in this run
	// Failing are the topics whose last request was no answer, and why.
	Failing map[Topic]string
}

// collectorPlace is how far the collector has come; it is kept in collect.json.
type collectorPlace struct {
	WebhookID string `json:"webhook_id"`
	Feed      string `json:"feed,omitempty"` // cursor of the event feed
	// Read is up to when each topic has been read.
	Read  map[Topic]time.Time `json:"read,omitempty"`
	Swept time.Time           `json:"swept,omitzero"` // the list of tickets likewise, by the server's clock
	// DisabledSince is since when the webhook is disabled, and NotedTo up to when
	// the record says so.
	DisabledSince time.Time `json:"disabled_since,omitzero"`
	NotedTo       time.Time `json:"noted_to,omitzero"`
	// ActiveAt is when it was last seen enabled.
	ActiveAt time.Time `json:"active_at,omitzero"`
}

// OpenCollector takes the directory's place of the collector and reads how far it
// came. It does not call the server. A directory with another collector in it is
// a Conflict.
func OpenCollector(cfg CollectorConfig) (_ *Collector, err error) {
	c := &Collector{cfg: cfg, seen: map[string]Delivery{}, status: Collected{Failing: map[Topic]string{}}}
	c.caller, err = newCaller(cfg.URL, cfg.Key, cfg.HTTP, cfg.Budget, cfg.Timeout, "ticketwire-collect", cfg.Now)
	if err != nil {
		return nil, err
	}
	if c.lock, err = occupy(cfg.Dir, "collect.lock", "A cutover runs already"); err != nil {
		return nil, err
	}
	if c.record, err = OpenRecord(cfg.Dir); err == nil {
		err = c.recall()
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Close gives the directory back.
func (c *Collector) Close() error {
	var err error
	if c.record != nil {
		err = c.record.Close()
	}
	return errors.Join(err, c.lock.Release())
}

func (c *Collector) placeFile() string { return filepath.Join(c.cfg.Dir, "collect.json") }

// recall reads the place. That of another webhook is none.
func (c *Collector) recall() error {
	text, err := os.ReadFile(c.placeFile())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the collector's place: %w", err)
	}
	if err == nil {
		if err := json.Unmarshal(text, &c.place); err != nil {
			return fmt.Errorf("read the collector's place, %s: %w", c.placeFile(), err)
		}
	}
	if c.place.WebhookID != c.cfg.WebhookID {
		c.place = collectorPlace{WebhookID: c.cfg.WebhookID}
	}
	if c.place.Read == nil {
		c.place.Read = map[Topic]time.Time{}
	}
	return nil
}

func (c *Collector) keep() error {
	text, err := json.Marshal(c.place)
	if err == nil {
		err = replaceFile(c.placeFile(), text)
	}
	if err != nil {
		return fmt.Errorf("save the collector's place: %w", err)
	}
	return nil
}

// Run looks until ctx ends, and returns nil then. A look that fails is made again
// the next time, since no answer says nothing. Run returns an error when the
// directory cannot be written, or when the first answer of all is that the key is
// not accepted.
func (c *Collector) Run(ctx context.Context) error {
	err := c.run(ctx)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = nil
	}
	return err
}

func (c *Collector) run(ctx context.Context) error {
	for {
		began := c.cfg.Now()
		if err := c.Look(ctx); err != nil {
			return err
		}
		if err := sleep(ctx, began.Add(c.cfg.Interval).Sub(c.cfg.Now())); err != nil {
			return err
		}
	}
}

// Look reads from every source what is new. Its errors are those of Run, and that
// of ctx.
func (c *Collector) Look(ctx context.Context) error {
	// The truth is read before the log: an event without a delivery is then one
	// whose delivery was really not there. It is read first of all, because whether
	// there is a feed says whose server this is.
	var read []Entry
	for _, source := range []struct {
		name Topic
		look func(context.Context) (*Reading, error)
	}{{TopicFeed, c.truth}, {TopicWebhook, c.webhook}, {TopicDeliveries, c.deliveries}} {
		reading, err := source.look(ctx)
		var failed noAnswer
		switch {
		case err == nil:
			delete(c.status.Failing, source.name)
			if reading != nil {
				read = append(read, Entry{Reading: reading})
			}
		case !errors.As(err, &failed):
			return err
		case !c.answered && failed.poll.HTTP == http.StatusUnauthorized:
			return failed.error
		default:
			c.status.Failing[source.name] = failed.Error()
		}
	}
	if c.cfg.Show != nil {
		c.cfg.Show(c.status)
	}
	if len(read) > 0 {
		if err := c.record.Append(read...); err != nil {
			return err
		}
	}
	for _, e := range read {
		c.place.Read[e.Reading.Topic] = e.Reading.To
	}
	return c.keep()
}

// reading describes a topic that was read by an answer of which the server's clock
// says to. Each goes on where the one before has ended, so that those of several
// runs are one, unless the server keeps less than what nobody has read. It returns
// nil where that is no time.
func (c *Collector) reading(topic Topic, to time.Time) *Reading {
	from := c.place.Read[topic]
	if from.IsZero() {
		from = c.cfg.Since
	}
	if kept := to.Add(-serverKeeps); from.Before(kept) {
		from = kept
	}
	if !to.After(from) { // the server's clock is known to the second
		return nil
	}
	return &Reading{At: c.cfg.Now(), Topic: topic, From: from, To: to}
}

// noAnswer is a request that showed nothing.
type noAnswer struct {
	error
	poll Poll
}

func (e noAnswer) Unwrap() error { return e.error }

// ask makes one request. Its error is a noAnswer, or ctx's.
func (c *Collector) ask(ctx context.Context, send func(context.Context) error) (*Poll, error) {
	poll := new(Poll)
	err, ended := c.caller.call(ctx, poll, nil, send)
	switch {
	case ended != nil:
		return nil, ended
	case err != nil:
		return poll, noAnswer{err, *poll}
	}
	c.answered = true
	return poll, nil
}

// webhook notes how the webhook is set up, when that is not what was noted last,
// and the time in which it is disabled.
func (c *Collector) webhook(ctx context.Context) (*Reading, error) {
	var w *client.Webhook
	poll, err := c.ask(ctx, func(ctx context.Context) (err error) {
		w, err = c.caller.api.Webhook(ctx, c.cfg.WebhookID)
		return err
	})
	if err != nil {
		return nil, err
	}
	earliest, latest := poll.serverTime()
	s := Subscription{
		// Not by auto_disabled_at: AlgaPSA never clears it (contract W7).
		WebhookID: w.WebhookID, Active: w.IsActive, EventTypes: w.EventTypes,
		Filter: notNull(w.EventFilter), Fields: notNull(w.PayloadFields), GivesUpAfter: c.givesUpAfter(w.RetryConfig).Seconds(),
	}
	var filter struct {
		EntityIDs []string `json:"entity_ids"`
	}
	if json.Unmarshal(w.EventFilter, &filter) == nil { // a filter of another form has no such list
		s.Tickets = filter.EntityIDs
	}
	var entries []Entry
	if !s.Active {
		s.DisabledAt, s.Why = c.disabled(w, earliest)
	}
	if gap := c.gap(s.Active, earliest, latest); gap != nil {
		entries = append(entries, Entry{Gap: gap})
	}
	if c.subscribed == nil || !reflect.DeepEqual(*c.subscribed, s) {
		kept := s
		c.subscribed = &kept
		s.At = earliest
		entries = append(entries, Entry{Subscription: &s})
	}
	if len(entries) > 0 {
		if err := c.record.Append(entries...); err != nil {
			return nil, err
		}
	}
	return c.reading(TopicWebhook, earliest), nil
}

func notNull(raw json.RawMessage) json.RawMessage {
	if string(raw) == "null" {
		return nil
	}
	return raw
}

// givesUpAfter is how long the sender tries. Which schedule a server was started
// with it does not say: one with a feed is taken for Ticketwire with its default.
func (c *Collector) givesUpAfter(raw json.RawMessage) time.Duration {
	if c.noFeed {
		return algaGivesUp
	}
	var rc *delivery.RetryConfig
	if json.Unmarshal(raw, &rc) != nil {
		rc = nil // not of the form that a server with a feed has
	}
	var all time.Duration
	for _, d := range delivery.DefaultPolicy().ScheduleFor(rc) {
		all += d
	}
	return all
}

// disabled says since when the webhook is disabled, and why. Somebody who
// disables it leaves no time, so it is since it was last seen enabled.
func (c *Collector) disabled(w *client.Webhook, now time.Time) (time.Time, string) {
	why := "disabled"
	if w.AutoDisabledAt != nil {
		why = "disabled by the server after failures"
		c.place.DisabledSince = *w.AutoDisabledAt
	}
	if c.place.DisabledSince.IsZero() {
		c.place.DisabledSince = now
		if !c.place.ActiveAt.IsZero() {
			c.place.DisabledSince = c.place.ActiveAt
		}
	}
	return c.place.DisabledSince, why
}

// gap returns the part of the time in which the webhook is disabled that the
// record does not have, now and then and when that time is over. now is the
// server's clock at the earliest, and latest at the latest.
func (c *Collector) gap(active bool, now, latest time.Time) *Gap {
	since, noted := c.place.DisabledSince, c.place.NotedTo
	if active {
		c.place.ActiveAt, c.place.DisabledSince, c.place.NotedTo = now, time.Time{}, time.Time{}
	}
	if since.IsZero() || !active && !noted.IsZero() && now.Sub(noted) < gapEvery {
		return nil
	}
	if !active {
		c.place.NotedTo = now
	}
	if noted.After(since) {
		since = noted
	}
	to := now
	if active {
		to = latest
	}
	return &Gap{From: since, To: to, Side: SideWebhook, Why: "the webhook was disabled"}
}

// truth reads the event feed, or what changed by the list where there is none.
func (c *Collector) truth(ctx context.Context) (*Reading, error) {
	if c.noFeed {
		return nil, c.sweepNow(ctx)
	}
	var to time.Time
	for more := true; more; {
		var page *client.EventPage
		poll, err := c.ask(ctx, func(ctx context.Context) (err error) {
			filter := client.EventFilter{Limit: 1000}
			if c.place.Feed == "" {
				filter.Since = c.cfg.Since
			}
			page, err = c.caller.api.Events(ctx, c.place.Feed, filter)
			return err
		})
		if feedless(err) {
			c.noFeed = true
			return nil, c.sweepNow(ctx)
		}
		if err != nil {
			return nil, err
		}
		to, _ = poll.serverTime()
		var entries []Entry
		for i := range page.Data {
			e, err := truthOf(&page.Data[i], poll.Done)
			if err != nil {
				return nil, noAnswer{err, *poll}
			}
			entries = append(entries, Entry{Truth: e})
		}
		if len(entries) > 0 {
			if err := c.record.Append(entries...); err != nil {
				return nil, err
			}
		}
		c.status.Events += len(entries)
		more = page.HasMore && page.NextCursor != c.place.Feed
		if c.place.Feed != page.NextCursor {
			c.place.Feed = page.NextCursor
			if err := c.keep(); err != nil {
				return nil, err
			}
		}
	}
	return c.reading(TopicFeed, to), nil
}

func truthOf(e *client.Event, at time.Time) (*Truth, error) {
	var d struct {
		TicketID string `json:"ticket_id"`
	}
	if err := json.Unmarshal(e.Data, &d); err != nil {
		return nil, fmt.Errorf("event %s: %w", e.EventID, err)
	}
	fields, hash, err := stateOf(e.Data)
	if err != nil {
		return nil, fmt.Errorf("event %s: %w", e.EventID, err)
	}
	return &Truth{
		At: at, Source: TruthOfFeed, EventID: e.EventID, EventType: e.EventType, OccurredAt: e.OccurredAt,
		Ticket: d.TicketID, UpdatedAt: updatedAtOf(e.Data), Hash: hash, Fields: fields,
	}, nil
}

// sweepNow sweeps what changed since the last sweep, once an hour.
func (c *Collector) sweepNow(ctx context.Context) error {
	now := c.cfg.Now()
	if !c.swept.IsZero() && now.Sub(c.swept) < sweepEvery {
		return nil
	}
	from := c.cfg.Since
	if back := c.place.Swept.Add(-overlap); back.After(from) {
		from = back
	}
	n, began, err := c.sweep(ctx, from)
	c.status.Tickets += n
	if err == nil {
		c.swept, c.place.Swept = now, began
	}
	return err
}
