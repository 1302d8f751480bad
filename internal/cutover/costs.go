package cutover

import "maps"

// fillRequests counts what the poller asked in the window and what the webhooks
// would save.
func (c *comparison) fillRequests(r *Report) {
	var n Numbers
	n.Add(Entry{Watch: &Watch{Interval: secs(c.interval)}})
	gaps := c.gaps
	for i := range c.polls {
		p := &c.polls[i]
		if p.at+c.ahead < c.from || p.at+c.ahead > c.to {
			continue
		}
		for len(gaps) > 0 && momentOf(gaps[0].From) <= p.at {
			n.Add(Entry{Gap: c.clipped(gaps[0])})
			gaps = gaps[1:]
		}
		n.Add(Entry{Poll: c.pollOf(p)})
	}
	for _, g := range gaps {
		n.Add(Entry{Gap: c.clipped(g)})
	}
	r.Blind.Poller = n.BlindAt(c.time(c.to - c.ahead)).Seconds()
	q := Requests{Polls: n.Requests, Useful: n.Useful, UsefulShare: ratio(n.Useful, n.Requests), Failures: map[Failure]int{}, LimitShare: n.LimitShare()}
	maps.Copy(q.Failures, n.Failures)
	for i := range c.copies {
		if at := c.copies[i].at + c.hookLag; at >= c.from && at <= c.to && c.copies[i].aside == "" {
			q.Webhook++
		}
	}
	if k := len(c.receivers); k > 0 && c.receivers[k-1].Refetch {
		for _, x := range c.reactions {
			if at := x.at + c.hookLag; at >= c.from && at <= c.to && !x.stale {
				q.Refetches++
			}
		}
	}
	if n.Requests > 0 {
		q.PollsPerHour = n.PerHour()
		hours := secs(c.to-c.from) / 3600
		q.SavedPerHour = q.PollsPerHour
		if hours > 0 {
			q.SavedPerHour -= float64(q.Refetches) / hours
		}
		q.SavedPerDay, q.SavedPerMon = q.SavedPerHour*24, q.SavedPerHour*24*30
	}
	r.Requests = q
}

// clipped is the part of a gap that is in the window.
func (c *comparison) clipped(g *Gap) *Gap {
	out := *g
	from := max(momentOf(g.From), c.from-c.ahead)
	out.From, out.To = c.time(from), c.time(max(from, min(momentOf(g.To), c.to-c.ahead)))
	return &out
}

// pollOf is what Numbers want to know of a poll.
func (c *comparison) pollOf(p *polled) *Poll {
	out := &Poll{
		At: c.time(p.at), Done: c.time(p.done), Round: c.time(p.round), Ticket: c.text(p.ticket), Failure: Failure(c.text(p.failure)),
		Date: c.time(p.date), Limit: int(p.limit),
	}
	for _, l := range c.looks[p.from:p.to] {
		out.Seen = append(out.Seen, Observation{Ticket: c.text(l.ticket), UpdatedAt: c.time(l.updated), Verdict: Verdict(c.text(l.verdict))})
	}
	return out
}

// length is how many seconds of the window the stretches take.
func (s *sides) length(all []stretch) float64 {
	total := moment(0)
	for _, o := range all {
		total += max(0, min(o.to, s.to)-max(o.from, s.from))
	}
	return secs(total)
}
