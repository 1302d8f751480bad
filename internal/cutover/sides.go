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
	hookLag  moment // how far it is at least ahead of the receiver's
	interval moment // of the poller
	givesUp  moment // how long the sender tries

	from, settled, to moment // the window; from is after settled where there is none

	watching []map[textID]bool // of each watch; nil for all tickets
	walks    []moment          // when walks through the list began that reached the end
	looked   map[textID][]moment
	disabled []stretch // the webhook was
	down     []stretch // the receiver was
	logFrom  moment    // the log of deliveries is known from here
	logTo    moment    // to here; never without a log
	feedFrom moment
	feedTo   moment
}

// stretch is a time from, to.
type stretch struct{ from, to moment }

func (s stretch) holds(t moment) bool { return s.from <= t && t <= s.to }

// defaultGivesUp is how long a sender tries that does not say it: the guide's
// schedule, 1 min + 5 min + 30 min + 2 h + 12 h.
const defaultGivesUp = 14*time.Hour + 36*time.Minute

func newSides(d *digest, q Question) *sides {
	s := &sides{digest: d, to: d.last, interval: span(time.Minute), givesUp: span(defaultGivesUp), looked: map[textID][]moment{}}
	s.logFrom, s.logTo, s.feedFrom, s.feedTo = never, never, never, never
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
	s.clocks()
	s.observations()
	s.outages()
	s.coverage()
	s.window(q)
	return s
}

// seconds reads a number of seconds, up to ten years.
func seconds(n float64) moment { return int64(min(max(n, 0), 10*366*24*3600) * 1e6) }

// clocks learns how the clocks differ: the poller's from the Date of the answers,
// the receiver's from requests that seem to come before their event.
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
		if c := &s.copies[i]; c.signed && !c.synthetic && c.occurred != never {
			s.hookLag = max(s.hookLag, c.occurred-c.at)
		}
	}
	// A year is no difference of clocks but an entry that is wrong.
	if s.hookLag > span(24*time.Hour) {
		s.hookLag = 0
	}
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
		s.disabled = append(s.disabled, stretch{off, max(off, s.to)})
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

// coverage learns for which time the log of deliveries and the feed are known.
func (s *sides) coverage() {
	began := never
	if len(s.subscriptions) > 0 { // they are collected with the log and the feed
		began = momentOf(s.subscriptions[0].At)
	}
	for i := range s.rows {
		r := &s.rows[i]
		for _, t := range []moment{r.attempted, began} {
			if t != never && (s.logFrom == never || t < s.logFrom) {
				s.logFrom = t
			}
		}
		s.logTo = max(s.logTo, r.read)
	}
	for i := range s.events {
		f := s.events[i].fed
		if f.at == never {
			continue
		}
		for _, t := range []moment{f.occurred, began} {
			if t != never && (s.feedFrom == never || t < s.feedFrom) {
				s.feedFrom = t
			}
		}
		s.feedTo = max(s.feedTo, f.occurred)
	}
}

// logTells reports whether the log would show a delivery of an event at t. An
// attempt may be in it only when it is over, which takes ten seconds at most.
func (s *sides) logTells(t moment) bool {
	return s.logTo != never && s.logFrom <= t && t+span(30*time.Second) <= s.logTo
}

// feedTells reports whether the feed would show an event at t: it has later ones.
func (s *sides) feedTells(t moment) bool {
	return s.feedTo != never && s.feedFrom <= t && t <= s.feedTo
}

// window decides for which time both pipelines can be compared: from when both
// ran, and a margin, to before what may still be on its way.
func (s *sides) window(q Question) {
	s.settled = s.to - max(2*s.interval, span(time.Minute))
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
	s.from = slices.Max(first) + max(s.interval, span(time.Minute))
}

func (s *sides) inside(t moment) bool { return s.from <= t && t <= s.settled }

// subscription returns the webhook as it was at t; nil where the record does not
// have it.
func (s *sides) subscription(t moment) *Subscription {
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
