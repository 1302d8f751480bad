package cutover

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/filelock"
)

// Config is what a Poller needs.
type Config struct {
	URL, Key string       // as for client.New
	HTTP     *http.Client // sends the requests; nil for a default one
	Dir      string       // the cutover directory; made if it is missing

	// IDs are the tickets to poll one by one. Without any, all tickets are
	// watched by their list.
	IDs []string

	Interval time.Duration // from one round to the next; positive
	Jitter   float64       // a round is late by up to this share of Interval, 0 to 1
	Budget   float64       // the share of the key's rate limit to use at most, above 0 to 1
	Timeout  time.Duration // bounds one request; 0 for client.DefaultTimeout
	Rounds   int           // Run returns after so many; 0 for never

	// React is called for each New and Changed ticket, one at a time, unless the
	// directory has a Setup by which it is the receiver's turn. If it fails, the
	// change counts as not dealt with, and a later round sees and reacts to it
	// again. A crash while it runs does the same.
	React func(context.Context, Change) error
	// Show is told how it goes, after each request and before each wait. It may
	// be nil, is called by the goroutine of Run, and must not keep the Numbers.
	Show func(Status)

	Now func() time.Time // the clock; time.Now in production
}

// Change is what a Poller reacts to.
type Change struct {
	Verdict  Verdict   // New or Changed
	Previous time.Time // updated_at that was dealt with last; zero for New
	Observation
	SeenAt time.Time // when the answer was there
	Raw    []byte    // the ticket byte by byte as it came
}

// Status is how a Poller goes.
type Status struct {
	Numbers *Numbers
	Watched int
	Until   time.Time // waits until then; zero while it works
	Owed    int       // changes whose reaction failed in this round
}

// Poller watches tickets by asking for them. Use Open.
type Poller struct {
	cfg     Config
	caller  *caller
	turns   *Turns
	lock    *filelock.Lock
	record  *Record
	memory  *memory
	numbers Numbers

	answered bool                 // something that speaks the API has answered
	reported time.Duration        // the skew of the clocks that the record has
	failure  error                // why the last round was not complete; nil if it was
	owed     map[string]time.Time // changes of this round whose reaction failed
	next     progress             // what this round comes to; saved at its end
	walk     *walk                // a walk that the last round could not finish
	marks    []mark               // of earlier walks, oldest first
	floor    time.Time            // the earliest change since the walk began that was owed
	sweep    *sweep               // a sweep that goes on
	swept    time.Time            // when the last one ended
	differs  bool                 // the last count did not fit
	looked   map[string]time.Time // ticket, or "" for the list -> the server's clock when it was last dealt with in whole
}

// Open takes the cutover directory and reads what was seen before. It does not
// call the server. A directory with another poller in it is a Conflict.
func Open(cfg Config) (_ *Poller, err error) {
	p := &Poller{cfg: cfg, turns: FollowTurns(cfg.Dir), looked: map[string]time.Time{}}
	p.cfg.IDs = nil
	for _, id := range cfg.IDs {
		p.cfg.IDs = append(p.cfg.IDs, strings.ToLower(id)) // as the API spells them
	}
	slices.Sort(p.cfg.IDs)
	p.cfg.IDs = slices.Compact(p.cfg.IDs)
	p.caller, err = newCaller(cfg.URL, cfg.Key, cfg.HTTP, cfg.Budget, cfg.Timeout, "ticketwire-poll", cfg.Now)
	if err != nil {
		return nil, err
	}
	if p.lock, err = occupy(cfg.Dir, "poll.lock", "Another poller works"); err != nil {
		return nil, err
	}
	if p.record, err = OpenRecord(cfg.Dir); err == nil {
		p.memory, err = openMemory(filepath.Join(cfg.Dir, "seen.jsonl"))
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// Close gives the directory back.
func (p *Poller) Close() error {
	var err error
	if p.memory != nil {
		err = p.memory.close()
	}
	if p.record != nil {
		err = errors.Join(err, p.record.Close())
	}
	return errors.Join(err, p.lock.Release())
}

// Numbers are those of this run. They must not be used while Run runs.
func (p *Poller) Numbers() *Numbers { return &p.numbers }

// Incomplete is why the last round did not show everything that it should, or
// did not deal with it; nil if it did.
func (p *Poller) Incomplete() error { return p.failure }

// Run polls until ctx ends or the rounds are made, and returns nil then. It
// returns an error when going on makes no sense: nothing that speaks the API has
// answered, the key was refused from the beginning, or the directory cannot be
// written.
func (p *Poller) Run(ctx context.Context) error {
	err := p.run(ctx)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = nil
	}
	if last := p.memory.progress; p.numbers.Requests > 0 && !last.Last.Equal(p.numbers.To) {
		last.Last = p.numbers.To
		err = errors.Join(err, p.memory.save(memoryLine{Progress: &last}))
	}
	return err
}

func (p *Poller) run(ctx context.Context) error {
	base := p.cfg.Now()
	start := []Entry{{Watch: &Watch{At: base, Server: p.cfg.URL, Interval: p.cfg.Interval.Seconds(), Tickets: p.cfg.IDs}}}
	if last := p.memory.progress.Last; !last.IsZero() {
		if g := late(last.Add(p.cfg.Interval), base, p.cfg.Interval); g != nil {
			start = append(start, Entry{Gap: g})
		}
	}
	if err := p.note(start...); err != nil {
		return err
	}
	for n := 1; ; n++ {
		began := p.cfg.Now()
		if err := p.round(ctx, began); err != nil {
			return err
		}
		if n == p.cfg.Rounds {
			return nil
		}
		now := p.cfg.Now()
		due := slot(base, p.cfg.Interval, now).Add(time.Duration(rand.Float64() * p.cfg.Jitter * float64(p.cfg.Interval)))
		p.show(due)
		if err := sleep(ctx, due.Sub(now)); err != nil {
			return err
		}
		if g := late(due, p.cfg.Now(), p.cfg.Interval); g != nil {
			if err := p.note(Entry{Gap: g}); err != nil {
				return err
			}
		}
	}
}

// round asks once for everything that is watched.
func (p *Poller) round(ctx context.Context, began time.Time) error {
	p.failure, p.owed, p.next = nil, map[string]time.Time{}, p.memory.progress
	watch := p.list
	if len(p.cfg.IDs) > 0 {
		watch = p.byID
	}
	if err := watch(ctx, began); err != nil {
		return err
	}
	next := p.next
	next.Last = p.numbers.To
	if !p.floor.IsZero() && p.floor.Before(next.Cursor) {
		next.Cursor = p.floor // what is owed to a reaction is read again
	}
	return p.memory.save(memoryLine{Progress: &next})
}

// byID asks for each ticket of the watch list.
func (p *Poller) byID(ctx context.Context, round time.Time) error {
	for _, id := range p.cfg.IDs {
		if err := p.one(ctx, round, id); err != nil {
			return err
		}
	}
	return nil
}

// one asks for one ticket.
func (p *Poller) one(ctx context.Context, round time.Time, id string) error {
	poll := Poll{Round: round, Ticket: id}
	var got []client.Ticket
	err := p.ask(ctx, &poll, func(ctx context.Context) error {
		t, err := p.caller.api.Ticket(ctx, id)
		if err != nil {
			return err
		}
		got = append(got, *t)
		return nil
	})
	if err != nil {
		return err
	}
	_, err = p.took(ctx, &poll, got)
	if _, owed := p.owed[id]; err == nil && !owed && poll.Failure == "" {
		p.looked[id] = poll.Date
	}
	if last := p.memory.tickets[id]; err == nil && poll.Failure == NotFound && last != nil && !last.Gone {
		gone := *last
		gone.Gone = true
		err = p.memory.save(memoryLine{Seen: &gone})
	}
	return err
}

// took deals with an answer: it judges what the answer shows, records that,
// reacts, and saves. It reports whether anything was not known before.
func (p *Poller) took(ctx context.Context, poll *Poll, tickets []client.Ticket) (fresh bool, err error) {
	var changes []Change
	var save []memoryLine
	onPage := map[string]bool{} // a ticket that moves can be on one page twice
	for i := range tickets {
		o, err := observe(&tickets[i])
		if err == nil && poll.Ticket != "" && o.Ticket != poll.Ticket {
			err = fmt.Errorf("the answer is about ticket %s", o.Ticket)
		}
		if err != nil {
			poll.Failure, poll.Error = Malformed, err.Error()
			continue
		}
		last := p.memory.tickets[o.Ticket]
		o.Verdict = judge(o.UpdatedAt, last, poll.List != nil && p.memory.progress.Complete)
		owed, isOwed := p.owed[o.Ticket]
		if onPage[o.Ticket] || isOwed && !o.UpdatedAt.After(owed) {
			continue
		}
		onPage[o.Ticket] = true
		known := last != nil && o.Hash == last.Hash && !o.Verdict.Reacts()
		fresh = fresh || o.Verdict != Same && o.Verdict != Older
		if !known || poll.List == nil {
			kept := o
			if known {
				kept.Fields = nil
			}
			poll.Seen = append(poll.Seen, kept)
		}
		if o.Verdict.Reacts() {
			c := Change{Verdict: o.Verdict, Observation: o, SeenAt: poll.Done, Raw: tickets[i].Raw}
			if last != nil {
				c.Previous = last.UpdatedAt
			}
			changes = append(changes, c)
			continue
		}
		next := seen{Ticket: o.Ticket, UpdatedAt: o.UpdatedAt, Hash: o.Hash}
		if o.Verdict == Older {
			next.UpdatedAt, next.Hash = last.UpdatedAt, last.Hash
		}
		next.Unlisted = last != nil && last.Unlisted && poll.List == nil
		if last == nil || next != *last {
			save = append(save, memoryLine{Seen: &next})
		}
	}
	if poll.Failure.Blind() {
		p.failure = fault.New(fault.Unavailable, "no observation: %s", poll.Error)
	}
	entries := append([]Entry{{Poll: poll}}, p.skewed(poll)...)
	if err := p.note(entries...); err != nil {
		return fresh, err
	}
	p.show(time.Time{})
	if last := p.memory.progress; poll.Done.Sub(last.Last) >= p.cfg.Interval {
		last.Last = p.numbers.To
		save = append(save, memoryLine{Progress: &last})
	}
	if err := p.memory.save(save...); err != nil {
		return fresh, err
	}
	return fresh, p.react(ctx, changes)
}

// react runs the reactions, and saves each change that is dealt with.
func (p *Poller) react(ctx context.Context, changes []Change) error {
	for _, c := range changes {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := p.act(ctx, c); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			p.failure = fmt.Errorf("reaction to ticket %s failed: %w", c.Ticket, err)
			p.owed[c.Ticket] = c.UpdatedAt
			if p.floor.IsZero() || c.UpdatedAt.Before(p.floor) {
				p.floor = c.UpdatedAt
			}
			continue
		}
		if err := p.memory.save(memoryLine{Seen: &seen{Ticket: c.Ticket, UpdatedAt: c.UpdatedAt, Hash: c.Hash}}); err != nil {
			return err
		}
	}
	return nil
}

// skewed returns a gap when the clocks turn out to differ by other than what the
// record says, by seconds.
func (p *Poller) skewed(poll *Poll) []Entry {
	if poll.Date.IsZero() {
		return nil
	}
	clock := p.numbers.clock
	clock.learn(poll.Date, poll.At, poll.Done)
	ahead := clock.ahead()
	if (ahead - p.reported).Abs() < 2*time.Second {
		return nil
	}
	p.reported = ahead
	return []Entry{{Gap: &Gap{From: poll.At, To: poll.Done, Side: SideClock, Why: "the server's clock differs from ours", Ahead: ahead.Microseconds()}}}
}

// note records and counts.
func (p *Poller) note(entries ...Entry) error {
	// What is counted is what a reader of the record would count.
	for i, e := range entries {
		var err error
		if entries[i], err = e.exact(); err != nil {
			return err
		}
	}
	if err := p.record.Append(entries...); err != nil {
		return err
	}
	for _, e := range entries {
		p.numbers.Add(e)
	}
	return nil
}

func (p *Poller) show(until time.Time) {
	if p.cfg.Show == nil {
		return
	}
	watched := len(p.cfg.IDs)
	if watched == 0 {
		watched = p.memory.listed()
	}
	p.cfg.Show(Status{Numbers: &p.numbers, Watched: watched, Until: until, Owed: len(p.owed)})
}
