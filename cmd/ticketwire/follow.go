package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/client"
)

// feedFlags say which part of the event feed to follow, and how.
type feedFlags struct {
	Since  string        `help:"Begin with what happened since then: how long ago (2h), a date and time, unix seconds, or a cursor of the feed (c1-...). Default: where the last run stopped, if that is known, or else now." placeholder:"TIME"`
	Types  []string      `help:"Only these event types." placeholder:"TYPE"`
	Ticket string        `help:"Only events of this ticket." placeholder:"ID"`
	Poll   time.Duration `help:"Longest pause between two looks at the feed; it is shorter while events come." default:"2s"`
}

const (
	// firstPoll is the shortest pause between two looks at the feed.
	firstPoll = 250 * time.Millisecond

	// feedTimeout makes a connection that hangs a lost one.
	feedTimeout = 10 * time.Second

	// The pause between two tries to get the connection back doubles from
	// firstReconnect to lastReconnect.
	firstReconnect = 500 * time.Millisecond
	lastReconnect  = 15 * time.Second

	// asleepAfter is how much later than planned a look at the feed may be before
	// it is mentioned: the machine was asleep, or the process was stopped.
	asleepAfter = 10 * time.Second
)

// follower reads the event feed without an end.
type follower struct {
	api    *client.Client
	server string
	t      terminal
	filter client.EventFilter
	since  time.Time // asked for; zero: not
	cursor string    // asked for instead; "": not
	state  *listenState
	poll   time.Duration
	once   bool // end when caught up, or when the connection is lost

	shortest time.Duration // pause; grows when the server limits the rate
	active   time.Time     // of the last event or look at the feed, by the wall clock
}

// newFollower checks the flags. It does not call the server.
func (c feedFlags) newFollower(to apiFlags, t terminal, state *listenState, once bool) (*follower, error) {
	if c.Poll <= 0 {
		return nil, usageError{errors.New("--poll must be positive"), "--poll 2s"}
	}
	f := &follower{
		server: to.URL, t: t, state: state, poll: c.Poll, once: once, shortest: min(firstPoll, c.Poll),
		filter: client.EventFilter{Types: c.Types, TicketID: c.Ticket},
	}
	var err error
	switch {
	case strings.HasPrefix(c.Since, "c1-"):
		f.cursor = c.Since
	case c.Since != "":
		if f.since, err = parseMoment("--since", c.Since, time.Now()); err != nil {
			return nil, err
		}
	}
	// One try each: this program waits itself, and says so.
	f.api, err = to.connect(client.WithTries(1), client.WithTimeout(feedTimeout))
	return f, err
}

// begin finds the place in the feed to begin at.
func (f *follower) begin(ctx context.Context) error {
	end, err := f.api.EventsEnd(ctx)
	if err != nil {
		return err
	}
	s := f.state
	switch {
	case f.cursor != "":
		s.Cursor, s.Since, s.Done = f.cursor, time.Time{}, nil
	case !f.since.IsZero():
		s.Cursor, s.Since, s.Done = "", f.since, nil
	case s.Server == f.server && !s.Seen.IsZero():
		f.note("Going on from %s.", clock(s.Seen))
		if err := f.keepPlace(ctx, end); err != nil {
			return err
		}
	default:
		if s.Server != "" {
			f.note("The place that was saved is one of %s. Beginning with what happens from now on.", s.Server)
		}
		s.Cursor, s.Since, s.Done = end, time.Time{}, nil
	}
	s.Server, s.Seen = f.server, time.Now().Round(0)
	return s.save()
}

// keepPlace finds out whether the place is one of this feed. One that lies behind
// the end is of another database, and nothing would ever come from there.
func (f *follower) keepPlace(ctx context.Context, end string) error {
	s := f.state
	if s.Cursor == end || s.Cursor == "" {
		return nil
	}
	_, err := f.api.Events(ctx, s.Cursor, client.EventFilter{Limit: 1})
	if e, refused := errors.AsType[*client.Error](err); refused && e.Status == http.StatusConflict {
		f.note("The feed of %s ends before the place that was saved: it is another one now. Going on with what happened since %s.", f.server, clock(s.Seen))
		s.Cursor, s.Since, s.Done = "", s.Seen, nil
		return nil
	}
	return err
}

// run hands over event by event. It returns nil when it is interrupted, or caught
// up and asked for no more, and an error when going on makes no sense.
func (f *follower) run(ctx context.Context, handle func(*client.Event) error) error {
	if err := f.follow(ctx, handle); ctx.Err() == nil {
		return err
	}
	return nil
}

func (f *follower) follow(ctx context.Context, handle func(*client.Event) error) error {
	wait := f.shortest
	for {
		page, err := f.read(ctx)
		if err != nil {
			return err
		}
		s := f.state
		for i := range page.Data {
			e := &page.Data[i]
			if slices.Contains(s.Done, e.EventID) {
				continue
			}
			if err := handle(e); err != nil {
				return err
			}
			f.active = time.Now().Round(0)
			s.Done = append(s.Done, e.EventID)
			if err := s.save(); err != nil {
				return err
			}
		}
		if s.Cursor != page.NextCursor {
			s.Cursor, s.Since, s.Done = page.NextCursor, time.Time{}, nil
			if err := s.save(); err != nil {
				return err
			}
		}
		switch {
		case page.HasMore:
			continue
		case f.once:
			return nil
		case len(page.Data) > 0:
			wait = f.shortest
		default:
			wait = min(2*wait, f.poll)
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// read returns the next page. It waits out a server that cannot be reached, and
// says so; an error is one that waiting does not mend.
func (f *follower) read(ctx context.Context) (*client.EventPage, error) {
	if off := asleep(f.active, time.Now(), f.poll); off > 0 {
		f.note("Nothing was read for %s. Catching up.", off)
	}
	var lostAt, saidAt time.Time
	wait := firstReconnect
	for {
		page, err := f.page(ctx, !lostAt.IsZero())
		now := time.Now()
		if err == nil {
			if !lostAt.IsZero() {
				f.note("Connected again after %s. Catching up.", now.Sub(lostAt).Round(100*time.Millisecond))
			}
			f.state.Seen = now.Round(0)
			f.active = f.state.Seen
			return page, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		answer, is := errors.AsType[*client.Error](err)
		switch {
		case is && answer.Status == http.StatusTooManyRequests:
			wait = max(answer.RetryAfter, wait)
			f.shortest = min(2*f.shortest, f.poll)
			f.note("The server limits the rate: next look in %s.", wait)
		case f.once, is && answer.Status < 500 && answer.Status != http.StatusRequestTimeout:
			return nil, err
		case lostAt.IsZero():
			lostAt, saidAt = now, now
			f.note("Connection lost: %v. Trying again until it is back; what happens meanwhile comes then.", err)
		case now.Sub(saidAt) >= time.Minute:
			saidAt = now
			f.note("Still no connection after %s: %v", now.Sub(lostAt).Round(time.Second), err)
		}
		if err := pause(ctx, wait); err != nil {
			return nil, err
		}
		wait = min(2*wait, lastReconnect)
	}
}

// page asks for the next page, after a loss with a look at whether it is still
// the same feed.
func (f *follower) page(ctx context.Context, lost bool) (*client.EventPage, error) {
	if lost {
		end, err := f.api.EventsEnd(ctx)
		if err != nil {
			return nil, err
		}
		if err := f.keepPlace(ctx, end); err != nil {
			return nil, err
		}
	}
	filter := f.filter
	filter.Since = f.state.Since
	return f.api.Events(ctx, f.state.Cursor, filter)
}

// asleep returns for how long the feed was not read beyond what was planned, by
// the wall clock; 0 for less than a moment.
func asleep(last, now time.Time, planned time.Duration) time.Duration {
	off := now.Round(0).Sub(last)
	if last.IsZero() || off < planned+asleepAfter {
		return 0
	}
	return off.Round(time.Second)
}

// note tells what is not an event.
func (f *follower) note(format string, args ...any) {
	fmt.Fprintln(f.t.err, printable(fmt.Sprintf(format, args...)))
}

// clock writes a time for a person.
func clock(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }
