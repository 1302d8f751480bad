package cutover

import (
	"cmp"
	"slices"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

// samplesKept is how many observations of a class are in a report.
const samplesKept = 20

// fill puts the numbers into a report.
func (c *comparison) fill(r *Report, rules Rules) {
	r.Rows = c.out
	r.Record = Counts{Entries: c.lines, Broken: len(c.broken), Later: c.later, Other: c.other}
	r.Waived = slices.Sorted(slices.Values(rules.Waived))
	c.countClasses(r)
	c.fillWindow(r, rules)
	c.fillCoverage(r, rules)
	c.fillLag(r)
	c.fillAttempts(r)
	c.fillRequests(r)
	c.fillRecall(r)
	r.Read = Read{c.time(end(c.feed)), c.time(end(c.log)), c.time(c.setupTo)}
	c.fillTraffic(r)
	c.fillSafety(r)
	r.Drills = []Proof{c.restart(), c.retry()}
	r.Blind.Receiver, r.Blind.Disabled = c.length(c.down), c.length(c.disabled)
	r.Blind.Exposed = r.Changes(ReceiverDown, Disabled)
	r.Recovery = c.recovery
	r.Clocks = Clocks{Poller: secs(c.ahead), Receiver: secs(c.hookLag), Publish: distribution(c.delays)}
	r.Clocks.Least, r.Clocks.Most = c.offset.low.Seconds(), c.offset.high.Seconds()
	if len(c.delays) > 0 {
		r.Clocks.Earliest = secs(c.delays[0])
	}
	c.fillPlots(r)
}

// end is where the last of some stretches ends; never for none.
func end(all []stretch) moment {
	if len(all) == 0 {
		return never
	}
	return all[len(all)-1].to
}

func secs(m moment) float64 { return float64(m) / 1e6 }

func distribution(sorted []moment) Distribution {
	n := len(sorted)
	if n == 0 {
		return Distribution{}
	}
	return Distribution{N: n, Median: secs(sorted[(n-1)/2]), P95: secs(quantile(sorted, 95)), Max: secs(sorted[n-1])}
}

func ratio(part, whole int) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

func (c *comparison) countClasses(r *Report) {
	r.Classes = make([]ClassCount, 0, len(Classes()))
	place := map[Class]int{}
	for i, info := range Classes() {
		place[info.Class] = i
		r.Classes = append(r.Classes, ClassCount{Class: info.Class, Weight: info.Weight, Title: info.Title, Kinds: map[Kind]int{}, Samples: []Row{}})
	}
	for _, row := range r.Rows {
		n := &r.Classes[place[row.Class]]
		n.Total++
		n.Kinds[row.Kind]++
		if len(n.Samples) < samplesKept {
			n.Samples = append(n.Samples, row)
		}
	}
}

// Count is how many observations of a kind are in the classes.
func (r *Report) Count(kind Kind, classes ...Class) int {
	n := 0
	for i := range r.Classes {
		if slices.Contains(classes, r.Classes[i].Class) {
			n += r.Classes[i].Kinds[kind]
		}
	}
	return n
}

// Changes is how many changes are in the classes.
func (r *Report) Changes(classes ...Class) int { return r.Count(ChangeSeen, classes...) }

// of returns the classes of a weight.
func of(w Weight) []Class {
	var out []Class
	for _, i := range Classes() {
		if i.Weight == w {
			out = append(out, i.Class)
		}
	}
	return out
}

func (c *comparison) fillWindow(r *Report, rules Rules) {
	w := &r.Window
	w.Settled, w.To = c.time(c.settled), c.time(c.to)
	w.Required = cmp.Or(rules.Window, DefaultWindow.Seconds())
	w.Weekdays = []string{}
	if c.from > c.settled {
		return
	}
	w.From, w.Seconds = c.time(c.from), secs(c.settled-c.from)
	var hours [7]float64
	for at := w.From; at.Before(w.Settled); {
		end := at.Truncate(24 * time.Hour).Add(24 * time.Hour)
		if end.After(w.Settled) {
			end = w.Settled
		}
		hours[at.Weekday()] += end.Sub(at).Hours()
		at = end
	}
	for d := range 7 {
		day := time.Weekday((d + 1) % 7) // from Monday
		if hours[day] >= 1 {
			w.Weekdays = append(w.Weekdays, day.String())
		}
		if day != time.Saturday && day != time.Sunday {
			w.Business += hours[day]
		}
	}
	perHour := map[time.Time]int{}
	for i := range c.changes {
		if g := &c.changes[i]; !g.begins && c.inside(g.updated) {
			perHour[c.time(g.updated).Truncate(time.Hour)]++
		}
	}
	for hour, n := range perHour {
		if n > w.Peak || n == w.Peak && hour.Before(w.PeakHour) {
			w.Peak, w.PeakHour = n, hour
		}
	}
}

func (c *comparison) fillCoverage(r *Report, rules Rules) {
	v := &r.Coverage
	v.Allowed = cmp.Or(rules.MissRate, DefaultMissRate)
	v.Matched = r.Changes(WebhookFirst, PollerFirstR, PollerFirstS)
	v.Missed = r.Changes(of(Lost)...)
	for i := range c.events {
		counted := c.standsAs[i] == told && c.changes[c.changeOf[i]].class.Info().Weight == Lost
		if c.classOf[i].Info().Weight == Lost && !counted {
			v.Events++
		}
	}
	v.Eligible, v.Untold = v.Matched+v.Missed, c.untoldOf
	for i := range r.Classes {
		n := &r.Classes[i]
		if n.Class != Unsettled {
			v.Changes += n.Kinds[ChangeSeen]
		}
	}
	v.Rate = ratio(v.Matched, v.Eligible)
	v.MissBound = missBound(v.Missed, v.Eligible)
	v.Needed = cleanNeeded(v.Allowed)
	if r.Window.Seconds > 0 {
		v.PerDay = float64(v.Eligible) / r.Window.Seconds * 24 * 3600
	}
	switch more := v.Needed - v.Eligible; {
	case more <= 0:
	case v.PerDay == 0:
		v.MoreDays = -1
	default:
		v.MoreDays = float64(more) / v.PerDay
	}
	seen := map[[2]moment]bool{}
	for i := range c.events {
		if e := &c.events[i]; c.classOf[i] == Overwritten && !seen[[2]moment{moment(e.ticket), e.updated}] {
			seen[[2]moment{moment(e.ticket), e.updated}] = true
			v.Unseen++
		}
	}
	for i := range c.changes {
		if !c.changes[i].begins && c.inside(c.changes[i].updated) {
			v.Repeated += int(c.changes[i].repeats)
		}
	}
	v.Mismatched = r.Count(EventKnown, of(Mismatch)...)
	for i := range r.Classes {
		if r.Classes[i].Class == Unexplained {
			v.Doubtful = r.Classes[i].Total
		}
	}
	for _, l := range c.drills {
		if l.Kind == "edit" {
			v.Synthetic++
		}
	}
}

// fillLag measures the changes that both saw.
func (c *comparison) fillLag(r *Report) {
	var poll, first, handled, gain []moment
	r.Slowest = []Slow{}
	for i := range c.changes {
		g := &c.changes[i]
		if g.class.Info().Weight != Good || g.first < 0 {
			continue
		}
		p := &c.copies[g.first]
		came, done := p.at, never
		for _, h := range g.hits {
			e := &c.events[h]
			for n := e.copies; n < e.copiesTo; n++ {
				if c.copies[n].signed && c.copies[n].aside == "" {
					came = min(came, c.copies[n].at)
				}
			}
			if e.handled != never && (done == never || e.handled < done) {
				done = e.handled
			}
		}
		if done == never && c.text(p.outcome) == string(webhook.Processed) {
			done = p.done // it reacted before it answered
		}
		poll = append(poll, max(0, g.done-g.updated))
		first = append(first, max(0, came+c.hookLag-g.updated))
		gain = append(gain, g.done-p.at-c.hookLag)
		if done != never {
			handled = append(handled, max(0, done+c.hookLag-g.updated))
		}
		r.Slowest = append(r.Slowest, Slow{
			Ticket: c.text(g.ticket), UpdatedAt: c.time(g.updated), EventID: c.text(c.events[p.event].id), Attempt: int(p.attempt),
			Webhook: secs(max(0, p.at+c.hookLag-g.updated)), Poll: secs(max(0, g.done-g.updated)),
		})
	}
	for _, l := range [][]moment{poll, first, handled, gain} {
		slices.Sort(l)
	}
	r.Lag = Lag{distribution(poll), distribution(first), distribution(handled), distribution(gain)}
	r.Plots.Poll, r.Plots.Webhook = spread(poll), spread(first)
	slices.SortStableFunc(r.Slowest, func(a, b Slow) int { return cmp.Compare(b.Webhook, a.Webhook) })
	r.Slowest = r.Slowest[:min(10, len(r.Slowest)):min(10, len(r.Slowest))]
}

func (c *comparison) fillAttempts(r *Report) {
	a := Attempts{Histogram: map[int]int{}}
	failed := func(at moment) {
		if c.inside(at) && c.time(at).After(a.LastFailure) {
			a.LastFailure = c.time(at)
		}
	}
	for i := range c.events {
		e := &c.events[i]
		for n := e.copies; n < e.copiesTo; n++ {
			if p := &c.copies[n]; p.signed && p.http/100 != 2 {
				failed(p.at + c.hookLag)
			}
		}
		for n := e.rows; n < e.rowsTo; n++ {
			if l := &c.rows[n]; l.completed != never && c.text(l.status) != "delivered" && !l.test {
				failed(l.completed)
			}
		}
		t := c.taken[i]
		if t < 0 || c.classOf[i] == Unsettled || c.classOf[i] == NoEvent {
			continue
		}
		p := &c.copies[t]
		a.Events++
		a.Histogram[max(1, int(p.attempt))]++
		if e.occurred != never {
			a.Longest = max(a.Longest, secs(p.at+c.hookLag-e.occurred))
		}
	}
	a.First = ratio(a.Histogram[1], a.Events)
	r.Attempts = a
	d := Copies{
		Duplicates: r.Count(CopyGot, RetriedDelivery, SameDelivery), OtherBody: r.Count(CopyGot, OtherBody),
		OutOfOrder: r.Count(CopyGot, OutOfOrder), SameMoment: r.Count(CopyGot, SameMoment), Stale: r.Count(EventKnown, StalePayload),
	}
	for i := range r.Classes {
		d.Receipts += r.Classes[i].Kinds[CopyGot]
	}
	for i := range c.copies {
		switch p := &c.copies[i]; {
		case !p.signed:
		case p.aside != "":
			d.Others++
		default:
			d.Own++
		}
	}
	about := 0
	for i := range c.events {
		if c.taken[i] >= 0 && c.standsAs[i] == told && c.classOf[i] != Unsettled {
			about++
		}
		if c.events[i].acted > 1 {
			d.ReactedTwice++
		}
	}
	d.StaleShare = ratio(d.Stale, about)
	r.Copies = d
}

// fillRecall compares both sides with a third observer.
func (c *comparison) fillRecall(r *Report) {
	type key struct {
		ticket  textID
		updated moment
	}
	truth, caught := map[key]bool{}, map[key]bool{}
	know := func(ticket textID, updated moment) {
		if updated == never || !c.inside(updated) || !c.watched(ticket, updated) {
			return
		}
		if g, has := c.at(ticket, updated); !has || !c.changes[g].begins {
			truth[key{ticket, updated}] = true
		}
	}
	for i := range c.events {
		e := &c.events[i]
		if c.taken[i] >= 0 {
			caught[key{e.ticket, e.updated}] = true
			if c.standsAs[i] == told { // the payload may be of another time
				caught[key{e.ticket, c.changes[c.changeOf[i]].updated}] = true
			}
		}
		if e.fed.at != never {
			r.Recall.Source = "feed"
			know(e.ticket, e.fed.updated)
		}
	}
	if r.Recall.Source == "" {
		for _, s := range c.sweeps {
			r.Recall.Source = "sweep"
			know(s.ticket, s.updated)
		}
	}
	poller, hook := 0, 0
	for k := range truth {
		if _, has := c.at(k.ticket, k.updated); has {
			poller++
		}
		if caught[k] {
			hook++
		}
	}
	r.Recall.Changes, r.Recall.Poller, r.Recall.Webhook = len(truth), ratio(poller, len(truth)), ratio(hook, len(truth))
}

func (c *comparison) fillTraffic(r *Report) {
	seen := map[string]int{}
	for i := range c.events {
		e := &c.events[i]
		taken, passed := c.came(e)
		if taken < 0 && passed < 0 || c.classOf[i] == Unsettled || c.classOf[i] == NoEvent {
			continue
		}
		seen[c.text(e.typ)]++
		r.Traffic.Events++
		if c.watched(e.ticket, c.began(e)) {
			r.Traffic.Watched++
		}
	}
	r.Traffic.Share = ratio(r.Traffic.Watched, r.Traffic.Events)
	// A server that does not show the webhook, as AlgaPSA, leaves open what it
	// subscribes to: then each type that tells of a ticket has to be seen or waived.
	subscribed := ticketTypes()
	if sub := c.subscription(c.to); sub != nil && len(sub.EventTypes) > 0 {
		subscribed = sub.EventTypes
	} else {
		r.unread = true
	}
	r.Types = []Type{}
	for _, t := range slices.Compact(slices.Sorted(slices.Values(subscribed))) {
		r.Types = append(r.Types, Type{Name: t, Seen: seen[t], Waived: slices.Contains(r.Waived, t)})
	}
}

func (c *comparison) fillSafety(r *Report) {
	if n := len(c.receivers); n > 0 {
		last := c.receivers[n-1]
		r.Safety = Safety{Receiver: true, Silence: last.Silence, SecretFrom: last.SecretFrom, Refetch: last.Refetch}
	}
	if n := len(c.reconcilers); n > 0 {
		r.Safety.Reconciler = c.reconcilers[n-1].Every
	}
	s := Setup{}
	for _, t := range c.turns {
		s.Turns = append(s.Turns, *t)
	}
	r.Safety.Acts = s.Acts(c.time(c.to))
}
