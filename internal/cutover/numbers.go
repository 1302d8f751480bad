package cutover

import (
	"maps"
	"slices"
	"time"
)

// Numbers are what a user decides by, as far as polling goes. They are a
// function of the entries that were added, in their order. The zero value is
// ready. Not safe for concurrent use.
type Numbers struct {
	From, To time.Time       // first request and last answer
	Requests int             // sent, answered or not
	Useful   int             // showed at least one change
	Changes  int             // a change that was seen several times counts once
	Gone     int             // tickets that were answered 404 last
	Failures map[Failure]int // requests that were no observation
	Blind    time.Duration   // time in which the poller could not see a change of some ticket
	Limit    int             // the key's bucket, as last named; 0 for never

	interval              time.Duration
	down                  time.Duration // of Blind: the poller did not run
	firstRound, lastRound time.Time
	lags                  []time.Duration      // of each change
	counted               map[string]time.Time // ticket -> its last change that was counted
	gone                  map[string]bool
	open                  map[string]bool // what is blind now: a ticket, or "" for the list
	since                 time.Time       // since when open is not empty
	clock                 skew
}

// GoneTickets are the tickets that Gone counts, sorted.
func (n *Numbers) GoneTickets() []string { return slices.Sorted(maps.Keys(n.gone)) }

// Add counts one entry.
func (n *Numbers) Add(e Entry) {
	if n.counted == nil {
		n.Failures, n.counted = map[Failure]int{}, map[string]time.Time{}
		n.gone, n.open = map[string]bool{}, map[string]bool{}
	}
	switch {
	case e.Watch != nil:
		n.interval = time.Duration(e.Watch.Interval * float64(time.Second))
		for ticket := range n.open {
			if len(e.Watch.Tickets) > 0 && !slices.Contains(e.Watch.Tickets, ticket) {
				n.sees(ticket, e.Watch.At)
			}
		}
	case e.Gap != nil && e.Gap.Side == SidePoller:
		n.down += e.Gap.To.Sub(e.Gap.From)
		if len(n.open) == 0 { // else the time counts already
			n.Blind += e.Gap.To.Sub(e.Gap.From)
		}
	case e.Poll != nil:
		n.poll(e.Poll)
	}
}

func (n *Numbers) poll(p *Poll) {
	if n.Requests == 0 {
		n.From, n.firstRound = p.At, p.Round
	}
	n.lastRound = p.Round
	n.Requests++
	n.To = p.Done
	if p.Limit > 0 {
		n.Limit = p.Limit
	}
	if !p.Date.IsZero() {
		n.clock.learn(p.Date, p.At, p.Done)
	}
	if p.Failure != "" {
		n.Failures[p.Failure]++
	}
	if p.Failure.Blind() {
		if len(n.open) == 0 {
			n.since = p.At
		}
		n.open[p.Ticket] = true
		return
	}
	n.sees(p.Ticket, p.Done)
	if p.Failure == NotFound && !n.gone[p.Ticket] {
		n.gone[p.Ticket] = true
		n.Gone++
	}
	useful := false
	for _, o := range p.Seen {
		if n.gone[o.Ticket] {
			delete(n.gone, o.Ticket)
			n.Gone--
		}
		if last, has := n.counted[o.Ticket]; !o.Verdict.Reacts() || has && !o.UpdatedAt.After(last) {
			continue
		}
		n.counted[o.Ticket] = o.UpdatedAt
		n.Changes++
		useful = true
		n.lags = append(n.lags, max(0, p.Done.Sub(o.UpdatedAt)+n.clock.ahead()))
	}
	if useful {
		n.Useful++
	}
}

// sees ends the blindness for a ticket.
func (n *Numbers) sees(ticket string, at time.Time) {
	if !n.open[ticket] {
		return
	}
	delete(n.open, ticket)
	if len(n.open) == 0 {
		n.Blind += max(0, at.Sub(n.since))
	}
}

// BlindAt is Blind with the blindness that has not ended at now.
func (n *Numbers) BlindAt(now time.Time) time.Duration {
	if len(n.open) == 0 {
		return n.Blind
	}
	return n.Blind + max(0, now.Sub(n.since))
}

// NoObservation is how many requests showed nothing.
func (n *Numbers) NoObservation() int {
	total := 0
	for _, count := range n.Failures {
		total += count
	}
	return total
}

// Lag returns the median, the 95th percentile and the longest time from a change
// to the answer that showed it, by our clock corrected by the server's; zeros
// without changes.
func (n *Numbers) Lag() (median, p95, longest time.Duration) {
	if len(n.lags) == 0 {
		return 0, 0, 0
	}
	s := slices.Sorted(slices.Values(n.lags))
	return s[(len(s)-1)/2], s[(len(s)*95+99)/100-1], s[len(s)-1]
}

// PerHour is how many requests the poller makes in an hour in which it runs.
func (n *Numbers) PerHour() float64 {
	// The last round lasts until the next one would begin, or longer.
	ran := max(n.lastRound.Sub(n.firstRound)+n.interval, n.To.Sub(n.From)) - n.down
	if ran <= 0 {
		return 0
	}
	return float64(n.Requests) / ran.Hours()
}

// LimitShare is the part of the key's limit that the requests take, 1 for all of
// it; 0 where no answer named the limit.
func (n *Numbers) LimitShare() float64 {
	if n.Limit == 0 {
		return 0
	}
	return n.PerHour() / 60 / float64(perMinute(n.Limit))
}

// ClockAhead is how far the server's clock is ahead of ours, negative if it is
// behind; 0 where the answers cannot tell it from none.
func (n *Numbers) ClockAhead() time.Duration { return n.clock.ahead() }

// skew bounds how far the server's clock is ahead of ours. The Date of an answer
// is a second in which it was made, which was after the request and before the
// answer; every further answer narrows that. The zero value knows nothing.
type skew struct {
	low, high time.Duration
	known     bool
}

func (s *skew) learn(date, sent, answered time.Time) {
	low, high := date.Sub(answered), date.Add(time.Second).Sub(sent)
	if s.known && low <= s.high && high >= s.low {
		s.low, s.high = max(s.low, low), min(s.high, high)
		return
	}
	*s = skew{low, high, true} // the first answer, or a clock was set
}

func (s *skew) ahead() time.Duration {
	if s.low <= 0 && s.high >= 0 {
		return 0
	}
	return (s.low + s.high) / 2
}
