package cutover

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"sort"
	"strings"
	"time"
)

// sides is what each side could know, and when. All its times are by the
// server's clock.
type sides struct {
	*digest

	ahead    moment // how far the server's clock is ahead of the poller's
	offset   skew   // what is known of that
	hookLag  moment // how far it is ahead of the receiver's, as far as that is known
	interval moment // of the poller
	givesUp  moment // how long the sender tries

	from, settled, to moment // the window; from is after settled where there is none

	watching []map[textID]bool // of each watch; nil for all tickets
	walks    []moment          // when walks through the list began that reached the end
	looked   map[textID][]moment
	disabled []stretch // the webhook was
	down     []stretch // the receiver was
	log      []stretch // for which the log of deliveries is known
	feed     []stretch // and the event feed
	hasFeed  bool      // the server has one, as Ticketwire and not AlgaPSA
	setupTo  moment    // the webhook's setup is known up to here; never if it is not
}

// stretch is a time from, to.
type stretch struct{ from, to moment }

func (s stretch) holds(t moment) bool { return s.from <= t && t <= s.to }

// defaultGivesUp is how long a sender tries that does not say it: the guide's
// schedule, 1 min + 5 min + 30 min + 2 h + 12 h.
const defaultGivesUp = 14*time.Hour + 36*time.Minute

func newSides(d *digest, q Question) *sides {
	s := &sides{digest: d, to: d.last, interval: span(time.Minute), givesUp: span(defaultGivesUp), looked: map[textID][]moment{}}
	if !q.At.IsZero() {
		s.to = momentOf(q.At)
	}
	if q.Setup != nil && q.Setup.Interval > 0 {
		s.interval = seconds(q.Setup.Interval)
	}
	if n := len(d.watches); n > 0 && d.watches[n-1].Interval > 0 {
		s.interval = seconds(d.watches[n-1].Interval)
	}
	for _, sub := range d.subscriptions {
		if sub.GivesUpAfter > 0 {
			s.givesUp = seconds(sub.GivesUpAfter)
		}
	}
	s.coverage()
	if len(d.subscriptions) == 0 && len(d.sweeps) > 0 && !s.hasFeed {
		s.givesUp = span(algaGivesUp) // only a server without a feed is swept
	}
	s.asked()
	s.setAside()
	s.clocks()
	s.observations()
	s.outages()
	s.window(q)
	return s
}

// seconds reads a number of seconds, up to ten years.
func seconds(n float64) moment { return int64(min(max(n, 0), 10*366*24*3600) * 1e6) }

// asked finds the rows of the log that came of a replay, which the log does not
// say: those of an event that the sender had given up, or that it did not owe when
// the log was read before. A server with a feed has a row for what it owes.
func (s *sides) asked() {
	var reads []stretch // when the log was read, and up to where it was known then
	for _, r := range s.readings {
		if r.Topic == TopicDeliveries {
			reads = append(reads, stretch{momentOf(r.At), momentOf(r.To)})
			if n := len(reads); n > 1 {
				reads[n-1].to = max(reads[n-1].to, reads[n-2].to)
			}
		}
	}
	for i := range s.events {
		e := &s.events[i]
		rows := s.rows[e.rows:e.rowsTo]
		first, over := latest, latest
		for n := range rows {
			r := &rows[n]
			first = min(first, r.first)
			if !r.manual && s.text(r.status) == "abandoned" {
				gaveUp := r.attempted
				if gaveUp == never { // with the webhook, when that was switched off
					gaveUp = r.completed
				}
				over = min(over, gaveUp)
			}
		}
		without := latest // when the log was read that had none of them
		if i := sort.Search(len(reads), func(i int) bool { return reads[i].to >= e.occurred+span(inLog) }); e.fed.at != never && i < len(reads) {
			if reads[i].from < first && throughout(s.log, e.occurred, reads[i].to) {
				without = reads[i].from
			}
		}
		for n := range rows {
			r := &rows[n]
			// What was already being sent when the log was read is not in it for want of a result.
			later := without != latest && (r.attempted == never || r.attempted > without)
			behind := r.attempted > over || r.attempted == never && s.text(r.status) != "abandoned"
			r.manual = r.manual || later || over != latest && behind
		}
	}
}

// setAside marks the requests that prove nothing about the webhook: somebody asked
// for them, or they are not its own. A loss that a backfill has made good is one
// all the same.
func (s *sides) setAside() {
	ours := map[textID]bool{}
	if s.webhook != "" {
		ours[s.id(strings.ToLower(s.webhook))] = true
	} else {
		for _, sub := range s.subscriptions {
			ours[s.id(strings.ToLower(sub.WebhookID))] = true
		}
	}
	byHand := map[textID]bool{}
	for i := range s.rows {
		byHand[s.rows[i].delivery] = byHand[s.rows[i].delivery] || s.rows[i].manual
	}
	for i := range s.copies {
		switch c := &s.copies[i]; {
		case c.synthetic:
			c.aside = "made by a backfill"
		case c.delivery != 0 && byHand[c.delivery]:
			c.aside = "sent again on request"
		case c.webhook != 0 && len(ours) > 0 && !ours[c.webhook]:
			c.aside = "not sent by this webhook, but by a backfill or by another one"
		}
	}
}

// clocks learns how the clocks differ: the poller's from the Date of the answers,
// the receiver's from requests that seem to come before their event, and from the
// log, which has when each of them began and ended.
func (s *sides) clocks() {
	var clock skew
	for i := range s.polls {
		p := &s.polls[i]
		if p.date != never {
			clock.learn(s.time(p.date), s.time(p.at), s.time(p.done))
		}
	}
	s.ahead, s.offset = span(clock.ahead()), clock
	for i := range s.copies {
		if c := &s.copies[i]; c.signed && c.aside == "" && c.occurred != never {
			s.hookLag = max(s.hookLag, c.occurred-c.at)
		}
	}
	low, high := s.bracket()
	if low <= high && (s.hookLag < low || s.hookLag > high) {
		s.hookLag = low + (high-low)/2
	}
	// A year is no difference of clocks but an entry that is wrong.
	if max(s.hookLag, -s.hookLag) > span(24*time.Hour) {
		s.hookLag = 0
	}
}

// bracket bounds how far the server's clock is ahead of the receiver's: an attempt
// began before the receiver got it and ended after the receiver's answer. Without
// such attempts, or where they contradict each other, low is not up to high.
func (s *sides) bracket() (low, high moment) {
	rows := map[textID]*logRow{}
	for i := range s.rows {
		if r := &s.rows[i]; r.http != 0 && r.attempted != never && r.completed > r.attempted {
			rows[r.delivery] = r
		}
	}
	low, high = never, latest
	for i := range s.copies {
		c := &s.copies[i]
		if r := rows[c.delivery]; c.delivery != 0 && r != nil {
			low, high = max(low, r.attempted-c.at), min(high, r.completed+span(shown)-c.done)
		}
	}
	if low == never {
		return 1, 0
	}
	return low, high
}

// observations learns when the poller looked, and brings its times to the
// server's clock.
func (s *sides) observations() {
	for _, w := range s.watches {
		var set map[textID]bool
		if len(w.Tickets) > 0 {
			set = map[textID]bool{}
			for _, t := range w.Tickets {
				set[s.id(strings.ToLower(t))] = true
			}
		}
		s.watching = append(s.watching, set)
	}
	walk := never
	for i := range s.polls {
		p := &s.polls[i]
		if Failure(s.text(p.failure)).Blind() {
			continue
		}
		switch {
		case p.ticket != 0:
			s.looked[p.ticket] = append(s.looked[p.ticket], p.at+s.ahead)
		case s.text(p.list) == string(ForChanges):
			if walk == never {
				walk = p.at + s.ahead
			}
			if p.last {
				s.walks, walk = append(s.walks, walk), never
			}
		}
	}
}

// lookAfter returns the first time from t on at which the poller looked at the
// ticket and got an answer.
func (s *sides) lookAfter(ticket textID, t moment) (moment, bool) {
	first, found := moment(0), false
	for _, looks := range [][]moment{s.looked[ticket], s.walks} {
		if i := sort.Search(len(looks), func(i int) bool { return looks[i] >= t }); i < len(looks) && (!found || looks[i] < first) {
			first, found = looks[i], true
		}
	}
	return first, found
}

// watched reports whether the poller watched the ticket at t.
func (s *sides) watched(ticket textID, t moment) bool {
	i := sort.Search(len(s.watches), func(i int) bool { return momentOf(s.watches[i].At)+s.ahead > t }) - 1
	return i >= 0 && (s.watching[i] == nil || s.watching[i][ticket])
}

// outages collects when the webhook was disabled and the receiver down.
func (s *sides) outages() {
	for _, g := range s.gaps {
		switch o := (stretch{momentOf(g.From), momentOf(g.To)}); g.Side {
		case SideReceiver:
			s.down = append(s.down, stretch{o.from + s.hookLag, o.to + s.hookLag})
		case SideWebhook:
			s.disabled = append(s.disabled, o)
		}
	}
	off := never
	for _, sub := range s.subscriptions {
		switch at := momentOf(sub.At); {
		case sub.Active && off != never:
			s.disabled, off = append(s.disabled, stretch{off, at}), never
		case !sub.Active && off == never:
			off = at
			if !sub.DisabledAt.IsZero() {
				off = min(off, momentOf(sub.DisabledAt))
			}
		}
	}
	if off != never {
		s.disabled = append(s.disabled, stretch{off, max(off, s.setupTo)})
	}
	s.disabled, s.down = union(s.disabled), union(s.down)
}

// union sorts stretches and joins those that overlap.
func union(all []stretch) []stretch {
	slices.SortFunc(all, func(a, b stretch) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to)) })
	var out []stretch
	for _, o := range all {
		if n := len(out); n > 0 && o.from <= out[n-1].to {
			out[n-1].to = max(out[n-1].to, o.to)
			continue
		}
		out = append(out, o)
	}
	return out
}

func within(all []stretch, t moment) bool {
	return slices.ContainsFunc(all, func(o stretch) bool { return o.holds(t) })
}

// coverage learns for which time it is known what the server knows.
func (s *sides) coverage() {
	known := map[Topic][]stretch{}
	for _, r := range s.readings {
		known[r.Topic] = append(known[r.Topic], stretch{momentOf(r.From), momentOf(r.To)})
	}
	s.log, s.feed = union(known[TopicDeliveries]), union(known[TopicFeed])
	s.hasFeed = len(s.feed) > 0 || slices.ContainsFunc(s.events, func(e event) bool { return e.fed.at != never })
	s.setupTo = never
	for _, o := range known[TopicWebhook] {
		s.setupTo = max(s.setupTo, o.to)
	}
	for _, sub := range s.subscriptions {
		s.setupTo = max(s.setupTo, momentOf(sub.At))
	}
}

// throughout reports whether one of the stretches goes from from to to.
func throughout(all []stretch, from, to moment) bool {
	return slices.ContainsFunc(all, func(o stretch) bool { return o.holds(from) && o.holds(to) })
}

// inLog is how soon an event is in the log: an attempt may be there only when it is
// over, which takes ten seconds at most.
const inLog = 30 * time.Second

// logTells reports whether the log would show a delivery of an event at t.
func (s *sides) logTells(t moment) bool { return throughout(s.log, t, t+span(inLog)) }

// feedTells reports whether the feed would show an event of a change that was
// committed by done: it was read after that. An event that occurred later and was
// committed earlier may be there without it.
func (s *sides) feedTells(updated, done moment) bool { return throughout(s.feed, updated, done) }

// staleFor is how old a payload of a server without an event feed can be: AlgaPSA
// keeps rows for 60 seconds (contract section 6, W5).
const staleFor = time.Minute

// window decides for which time both pipelines can be compared: from when both
// ran, and a margin, to before what may still be on its way. The margins are
// intervals of the poller, one and two, and no shorter than a payload can be old.
func (s *sides) window(q Question) {
	least := span(staleFor)
	if s.hasFeed {
		least = 0
	}
	s.settled = s.to - max(2*s.interval, least)
	s.from = s.to + 1
	var first []moment
	switch {
	case len(s.watches) == 0:
		return
	case len(s.receivers) > 0:
		first = append(first, momentOf(s.receivers[0].At)+s.hookLag)
	default:
		received := never
		for i := range s.copies {
			if c := &s.copies[i]; c.signed && (received == never || c.at < received) {
				received = c.at
			}
		}
		if received == never {
			return
		}
		first = append(first, received+s.hookLag)
	}
	first = append(first, momentOf(s.watches[0].At)+s.ahead)
	if len(s.subscriptions) > 0 {
		first = append(first, momentOf(s.subscriptions[0].At))
	}
	if q.Setup != nil && !q.Setup.Started.IsZero() {
		first = append(first, momentOf(q.Setup.Started))
	}
	s.from = slices.Max(first) + max(s.interval, least)
}

func (s *sides) inside(t moment) bool { return s.from <= t && t <= s.settled }

// subscription returns the webhook as it was at t; nil where the record does not
// have it: what nobody has looked at since may have been changed.
func (s *sides) subscription(t moment) *Subscription {
	if t > s.setupTo {
		return nil
	}
	i := sort.Search(len(s.subscriptions), func(i int) bool { return momentOf(s.subscriptions[i].At) > t }) - 1
	if len(s.subscriptions) == 0 {
		return nil
	}
	return s.subscriptions[max(i, 0)]
}

// lets says why a webhook does not send what is about the ticket; "" if it does.
func (sub *Subscription) lets(ticket string) string {
	if len(sub.Tickets) > 0 && !slices.ContainsFunc(sub.Tickets, func(t string) bool { return strings.EqualFold(t, ticket) }) {
		return "the webhook's entity_ids do not have the ticket"
	}
	return ""
}

// conditions reports whether the filter has more in it than entity_ids.
func (sub *Subscription) conditions() bool {
	if len(bytes.TrimSpace(sub.Filter)) == 0 {
		return false
	}
	var all map[string]json.RawMessage
	if json.Unmarshal(sub.Filter, &all) != nil {
		return true
	}
	for name, v := range all {
		v = bytes.TrimSpace(v)
		if name != "entity_ids" && !bytes.Equal(v, []byte("null")) && !bytes.Equal(v, []byte("[]")) && !bytes.Equal(v, []byte("{}")) {
			return true
		}
	}
	return false
}
