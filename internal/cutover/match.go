package cutover

import (
	"cmp"
	"slices"
	"sort"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

// change is a state that the poller saw for the first time: a change, or where
// watching the ticket began.
type change struct {
	ticket   textID
	updated  moment
	at, done moment // of the first poll that showed it, by the server's clock
	state    int32
	before   int32 // the state before, 0 if that is not known
	previous moment
	begins   bool // not a change: the poller began there
	isNew    bool
	gone     bool  // the ticket was there and now is not; it has no updated
	silent   bool  // the poller did not react: updated_at did not move on
	repeats  int32 // further reactions, of a poller that was killed or whose reaction failed
	hits     []int32
	first    int32 // the copy that told of it first; -1 for none
	class    Class
	reason   string
}

// stance says where an event stands to what the poller saw of its ticket.
type stance uint8

const (
	unseen  stance = iota // the poller has seen nothing that late
	told                  // it tells of a change that the poller saw
	between               // of one that was overwritten before the next poll
	unmoved               // of one that did not move updated_at
	earlier               // of what was there when the poller began
)

// matcher finds for every event the change that it tells of.
//
// The key is updated_at: an event whose payload has the updated_at of a change is
// about that change. A payload can be a snapshot of another time than its event,
// though: AlgaPSA keeps rows for 60 s and reads them when it sends. Then the time
// of the event decides: it is about the last change before it, if the poll that
// showed that change was not asked before the event. An event that is about an
// earlier change never matches a later one, because that would hide the loss of
// the later one's own event.
type matcher struct {
	*sides
	changes  []change // by ticket and updated_at
	ofTicket map[textID][2]int32
	others   []change          // gone and silent
	goneAt   map[textID]moment // when the poller was first told that a ticket is not there

	early, fresh moment   // how much earlier, and later, than updated_at events occur
	delays       []moment // occurred_at - updated_at of the changes, sorted

	second   []bool // events whose payload is that of a change before theirs, whatever the times say
	standsAs []stance
	changeOf []int32 // -1 for none
}

func match(s *sides) *matcher {
	m := &matcher{sides: s, ofTicket: map[textID][2]int32{}, goneAt: map[textID]moment{}}
	m.collect()
	m.vanished()
	m.measure()
	m.second = make([]bool, len(s.events))
	if !s.hasFeed { // a server with a feed has no such payloads
		m.findSeconds()
	}
	m.standsAs = make([]stance, len(s.events))
	m.changeOf = make([]int32, len(s.events))
	for i := range s.events {
		m.standsAs[i], m.changeOf[i] = m.find(int32(i))
		if c := m.changeOf[i]; m.standsAs[i] == told {
			m.changes[c].hits = append(m.changes[c].hits, int32(i))
		}
	}
	for i := range m.changes {
		slices.SortFunc(m.changes[i].hits, m.compareEvents)
	}
	return m
}

// collect makes changes of looks. What a poller shows again after a kill is the
// same change.
func (m *matcher) collect() {
	var looks []look
	for i := range m.polls {
		looks = append(looks, m.looks[m.polls[i].from:m.polls[i].to]...)
	}
	slices.SortFunc(looks, func(a, b look) int {
		return cmp.Or(m.compareText(a.ticket, b.ticket), cmp.Compare(a.updated, b.updated), m.compareLooks(a, b))
	})
	for i := 0; i < len(looks); {
		n := i + 1
		for n < len(looks) && looks[n].ticket == looks[i].ticket && looks[n].updated == looks[i].updated {
			n++
		}
		m.take(looks[i:n])
		i = n
	}
	for i := 0; i < len(m.changes); {
		n := i + 1
		for n < len(m.changes) && m.changes[n].ticket == m.changes[i].ticket {
			m.changes[n].before, m.changes[n].previous = m.changes[n-1].state, m.changes[n-1].updated
			n++
		}
		m.ofTicket[m.changes[i].ticket] = [2]int32{int32(i), int32(n)}
		i = n
	}
}

// take makes one change of all looks at one ticket with one updated_at, and what
// the poller did not react to.
func (m *matcher) take(looks []look) {
	c := change{ticket: looks[0].ticket, updated: looks[0].updated, previous: never, first: -1}
	found := false
	for _, l := range looks {
		v := Verdict(m.text(l.verdict))
		if !v.Reacts() {
			continue
		}
		if found {
			c.repeats++
			continue
		}
		found = true
		c.at, c.done, c.state, c.isNew = l.at+m.ahead, l.done+m.ahead, l.state, v == New
	}
	if !found {
		if i := slices.IndexFunc(looks, func(l look) bool { return Verdict(m.text(l.verdict)) == First }); i >= 0 {
			found = true
			c.at, c.done, c.state, c.begins = looks[i].at+m.ahead, looks[i].done+m.ahead, looks[i].state, true
		}
	}
	states := map[int32]bool{c.state: found}
	for _, l := range looks {
		v := Verdict(m.text(l.verdict))
		if (v == Same || v == Older) && !states[l.state] {
			states[l.state] = true
			m.others = append(m.others, change{
				ticket: l.ticket, updated: l.updated, at: l.at + m.ahead, done: l.done + m.ahead, state: l.state, before: c.state,
				previous: never, silent: true, first: -1,
			})
		}
	}
	if found {
		m.changes = append(m.changes, c)
	}
}

// vanished finds the tickets that were there and then were not.
func (m *matcher) vanished() {
	there := map[textID]bool{}
	for i := range m.polls {
		p := &m.polls[i]
		for _, l := range m.looks[p.from:p.to] {
			there[l.ticket] = true
		}
		missing := p.ticket != 0 && Failure(m.text(p.failure)) == NotFound
		if _, has := m.goneAt[p.ticket]; missing && !has {
			m.goneAt[p.ticket] = p.at + m.ahead
		}
		switch {
		case p.ticket == 0:
		case p.failure == 0:
			there[p.ticket] = true
		case missing && there[p.ticket]:
			there[p.ticket] = false
			m.others = append(m.others, change{ticket: p.ticket, updated: never, previous: never, at: p.at + m.ahead, done: p.done + m.ahead, gone: true, first: -1})
		}
	}
}

// between the clocks of the server that tells updated_at and of the one that
// tells occurred_at, this much is nothing.
const anyway = 250 * time.Millisecond

// measure learns from the changes that have an event of their own how much later
// than updated_at events occur.
func (m *matcher) measure() {
	nearest := map[int32]moment{}
	for i := range m.events {
		e := &m.events[i]
		if e.updated == never || e.occurred == never {
			continue
		}
		if c, has := m.at(e.ticket, e.updated); has && !m.changes[c].begins {
			delay := e.occurred - e.updated
			if d, known := nearest[c]; !known || max(delay, -delay) < max(d, -d) {
				nearest[c] = delay
			}
		}
	}
	for _, d := range nearest {
		m.delays = append(m.delays, d)
	}
	slices.Sort(m.delays)
	m.early, m.fresh = span(anyway), span(2*time.Second)
	if n := len(m.delays); n > 0 {
		low := m.delays[n/2] // a few can all be of snapshots of another time
		if n >= 20 {
			low = m.delays[n/20]
		}
		m.early += min(max(0, -low), span(5*time.Minute))
		m.fresh = min(max(2*quantile(m.delays, 95), span(time.Second)), span(30*time.Second))
	}
}

// quantile returns the smallest value that percent of the sorted ones do not
// exceed.
func quantile(sorted []moment, percent int) moment {
	return sorted[(len(sorted)*percent+99)/100-1]
}

// at finds the change of a ticket with this updated_at.
func (m *matcher) at(ticket textID, updated moment) (int32, bool) {
	i := m.upTo(ticket, updated)
	return i, i >= 0 && m.changes[i].updated == updated
}

// upTo returns the last change of the ticket up to t; -1 for none.
func (m *matcher) upTo(ticket textID, t moment) int32 {
	r, has := m.ofTicket[ticket]
	if !has {
		return -1
	}
	n := sort.Search(int(r[1]-r[0]), func(i int) bool { return m.changes[int(r[0])+i].updated > t })
	if n == 0 {
		return -1
	}
	return r[0] + int32(n) - 1
}

// until is the time up to which an event can have occurred that tells of the
// change: soon after it, or surely before the poll that showed it was asked. What
// occurred later may be about a change behind it; taking it for this one could
// hide that this one's own event was lost.
func (m *matcher) until(c int32) moment {
	return max(m.changes[c].updated+m.fresh, m.changes[c].at-m.early)
}

// findSeconds finds payloads that the cache of AlgaPSA gave to a second change, so
// soon after the first that the times alone do not show it: of the events with one
// updated_at only those can be of one change that the change can have side by side.
func (m *matcher) findSeconds() {
	var all []int32
	for i := range m.events {
		if e := &m.events[i]; e.ticket != 0 && e.updated != never && e.occurred != never && !m.backfilled(e) {
			all = append(all, int32(i))
		}
	}
	slices.SortFunc(all, func(a, b int32) int {
		x, y := &m.events[a], &m.events[b]
		return cmp.Or(cmp.Compare(x.ticket, y.ticket), cmp.Compare(x.updated, y.updated), cmp.Compare(x.occurred, y.occurred))
	})
	for n, i := range all {
		e := &m.events[i]
		for k := n - 1; k >= 0 && !m.second[i]; k-- {
			first := &m.events[all[k]]
			if first.ticket != e.ticket || first.updated != e.updated {
				break
			}
			m.second[i] = first.occurred < e.occurred && apart(m.text(first.typ), m.text(e.typ))
		}
	}
}

// apart reports whether events of these types are never of one change: a change has
// one event of a type, and comments and new tickets have nothing beside them (contract
// section 4.4).
func apart(a, b string) bool {
	alone := func(t string) bool { return t == webhook.TicketCommentAdded || t == webhook.TicketCreated }
	return a == b || alone(a) || alone(b)
}

// find finds the place of an event.
func (m *matcher) find(i int32) (stance, int32) {
	e := &m.events[i]
	r, has := m.ofTicket[e.ticket]
	occurred := e.occurred
	logged := occurred == never
	if logged && e.rowsTo > e.rows { // what only the log knows has no occurred_at
		occurred = m.rows[e.rows].attempted
	}
	if !has || e.ticket == 0 || occurred == never && e.updated == never {
		return unseen, -1
	}
	if occurred == never {
		occurred = e.updated
	}
	exact, isExact := m.at(e.ticket, e.updated)
	current := m.upTo(e.ticket, occurred+m.early)
	newer := e.updated != never && e.updated > occurred+m.early
	switch {
	case newer && current >= 0 && !m.changes[current].begins && occurred <= m.until(current):
		return told, current // the payload has a later change in it
	case isExact && (newer || exact >= current || occurred-e.updated <= m.fresh && !m.second[i]):
		return m.about(e, exact, occurred, false)
	case isExact:
		return m.about(e, current, occurred, false)
	case e.updated == never && current < 0:
		return between, r[0]
	case e.updated == never:
		return m.about(e, current, occurred, logged)
	case e.updated > m.changes[r[1]-1].updated:
		return unseen, -1
	}
	next := max(m.upTo(e.ticket, e.updated)+1, r[0])
	if current < next || occurred-e.updated <= m.fresh && !m.second[i] {
		return m.overwritten(next)
	}
	return m.about(e, current, occurred, false)
}

// overwritten is an event whose change was not there any more when the next one
// was seen.
func (m *matcher) overwritten(next int32) (stance, int32) {
	if m.changes[next].begins {
		return earlier, next
	}
	return between, next
}

// about is an event that can tell of the change, if it did not occur too late.
func (m *matcher) about(e *event, current int32, occurred moment, logged bool) (stance, int32) {
	switch {
	case m.changes[current].begins && occurred <= m.changes[current].at+m.fresh:
		return earlier, current
	case !m.changes[current].begins && (logged || occurred <= m.until(current)):
		return told, current
	default:
		return m.after(e, current, occurred)
	}
}

// after is an event that occurred after the poll that showed the last change
// before it.
func (m *matcher) after(e *event, current int32, occurred moment) (stance, int32) {
	look, looked := m.lookAfter(e.ticket, occurred)
	switch next := current + 1; {
	case next < m.ofTicket[e.ticket][1] && (!looked || look >= m.changes[next].at):
		return m.overwritten(next)
	case looked:
		return unmoved, current
	default:
		return unseen, -1
	}
}
