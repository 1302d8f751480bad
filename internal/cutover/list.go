package cutover

import (
	"context"
	"errors"
	"time"

	"github.com/ticketwire/ticketwire/client"
)

const (
	// listPage is the largest page of the API (contract section 1.4).
	listPage = 100
	// sweepStep is how many requests of a sweep are made in one round, so that
	// changes do not wait for it.
	sweepStep = 10
	// sweepPause is the least time between two sweeps.
	sweepPause = 15 * time.Minute
)

// list reads what changed since the last round, and looks for tickets that
// vanished.
func (p *Poller) list(ctx context.Context, round time.Time) error {
	done, err := p.readChanges(ctx, round)
	if err != nil || !done {
		return err
	}
	if p.sweep != nil {
		return p.goOnSweeping(ctx, round)
	}
	return p.count(ctx, round)
}

// readChanges walks through what changed. A page without an answer leaves the
// walk where it is for the next round; the cursor moves with the end of a walk
// only, when everything on it is dealt with or owed.
func (p *Poller) readChanges(ctx context.Context, round time.Time) (done bool, err error) {
	if p.walk == nil {
		p.walk = &walk{from: p.memory.progress.Cursor, page: 1, began: p.cfg.Now()}
		p.floor = time.Time{}
	}
	for !p.walk.done {
		poll, page, fresh, err := p.page(ctx, round, ForChanges, p.walk.filter(), p.walk.page, listPage)
		if err != nil || page == nil {
			return false, err
		}
		if p.walk.clock.IsZero() {
			p.walk.clock = poll.Date
		}
		last, err := lastUpdate(page.Data, !p.walk.one)
		if err != nil {
			return false, err
		}
		w := p.walk.next(last, fresh, page.HasNext)
		p.walk = &w
	}
	// While the server's clock is wrong a ticket can be ahead of it. Going there
	// would skip what changes until then.
	high := p.walk.high
	if most := p.walk.clock.Add(time.Second); !p.walk.clock.IsZero() && most.Before(high) {
		high = most
	}
	var settled time.Time
	settled, p.marks = settle(p.marks, p.walk.began)
	p.marks = append(p.marks, mark{p.cfg.Now(), high})
	if len(p.owed) == 0 {
		p.looked[""] = p.walk.clock
	}
	p.next.Complete = true
	p.next.Cursor = cursorAfter(p.next.Cursor, high, settled)
	p.walk = nil
	return true, nil
}

// lastUpdate returns the latest updated_at of a page, and an error if the page is
// to be in that order and is not. Rows that were never updated come last and do
// not count.
func lastUpdate(tickets []client.Ticket, sorted bool) (last time.Time, err error) {
	for i := range tickets {
		at := tickets[i].UpdatedAt
		switch {
		case at == nil:
		case !at.Before(last):
			last = micros(*at)
		case sorted:
			return last, errors.New("the server does not sort its list by updated_at: poll the tickets by their ids")
		}
	}
	return last, nil
}

// page asks for one page of the list and deals with what is on it. It returns no
// page where there was no answer.
func (p *Poller) page(ctx context.Context, round time.Time, why Purpose, f client.TicketFilter, n, limit int) (*Poll, *client.TicketPage, bool, error) {
	poll := &Poll{Round: round, List: &ListPage{For: why, From: f.UpdatedFrom, Page: n}}
	var page *client.TicketPage
	var tickets []client.Ticket
	err := p.ask(ctx, poll, func(ctx context.Context) (err error) {
		if page, err = p.caller.api.TicketsPage(ctx, f, n, limit); err == nil {
			poll.List.Got, poll.List.Total, poll.List.Last = len(page.Data), page.Total, !page.HasNext
		}
		return err
	})
	if err != nil {
		return nil, nil, false, err
	}
	if page != nil && why != ForCount {
		tickets = page.Data
	}
	fresh, err := p.took(ctx, poll, tickets)
	return poll, page, fresh, err
}

// sweep is a walk through the whole list in an order in which no ticket moves and
// no two are equal, to find those that are not on it any more.
type sweep struct {
	page   int
	seen   map[string]bool
	listed bool     // the list was read to its end
	check  []string // what was not on it
}

// count compares how many tickets the server counts with how many are known. Two
// rounds that differ, since a ticket may come between a walk and its count, start
// a sweep.
func (p *Poller) count(ctx context.Context, round time.Time) error {
	_, page, _, err := p.page(ctx, round, ForCount, client.TicketFilter{}, 1, 1)
	if err != nil || page == nil {
		return err
	}
	before := p.differs
	p.differs = page.Total != p.memory.listed()
	if before && p.differs && (p.swept.IsZero() || round.Sub(p.swept) >= sweepPause) {
		p.sweep = &sweep{page: 1, seen: map[string]bool{}}
		return p.goOnSweeping(ctx, round)
	}
	return nil
}

// goOnSweeping makes the next requests of a sweep. A ticket that the list left
// out is asked for by its id: only a 404 says that it is gone.
func (p *Poller) goOnSweeping(ctx context.Context, round time.Time) error {
	s := p.sweep
	for range sweepStep {
		if !s.listed {
			_, page, _, err := p.page(ctx, round, ForSweep, client.TicketFilter{Sort: "ticket_number", Order: "asc"}, s.page, listPage)
			if err != nil || page == nil {
				return err
			}
			for i := range page.Data {
				s.seen[page.Data[i].TicketID] = true
			}
			s.page++
			if !page.HasNext {
				s.listed, s.check = true, p.missing(s.seen)
			}
			continue
		}
		if len(s.check) == 0 {
			p.sweep, p.swept, p.differs = nil, round, false
			return nil
		}
		id := s.check[0]
		if err := p.one(ctx, round, id); err != nil || p.failure != nil {
			return err
		}
		s.check = s.check[1:]
		if last := p.memory.tickets[id]; last != nil && !last.Gone && !last.Unlisted {
			there := *last
			there.Unlisted = true
			if err := p.memory.save(memoryLine{Seen: &there}); err != nil {
				return err
			}
		}
	}
	return nil
}

// missing returns the tickets that the list should have shown.
func (p *Poller) missing(shown map[string]bool) []string {
	var out []string
	for id, s := range p.memory.tickets {
		if !shown[id] && !s.Gone && !s.Unlisted {
			out = append(out, id)
		}
	}
	return out
}
