package app_test

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/cutover"
	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/webhook"
)

// tally is what a report has to say, found out without it: from the event feed, from
// what passed on the wire, and from the notes of what was broken. It shares nothing
// with the comparison but the names of the classes.
type tally struct {
	*pipelines
	report   *cutover.Report
	from, to time.Time     // the window
	ahead    time.Duration // the server's clock, of the receiver's
	events   []*fact
	changes  map[seenKey][]*fact // the events of each change
	deleted  map[string]bool
	last     map[string]time.Time // updated_at of the last change of each ticket
	polled   map[string][]seenKey // what the poller saw of each ticket, in order

	class   map[string]cutover.Class // of each observation
	counted map[cutover.Class]int    // changes
	poll    []time.Duration
	hook    []time.Duration
}

// fact is one event of the feed and what became of it.
type fact struct {
	key               webhook.Key
	ticket            string
	occurred, updated time.Time
	fate              cutover.Class // "" for one that was taken
	taken             *passed       // the first delivery of the webhook that the receiver took
}

func (f *fact) change() seenKey { return seenKey{f.ticket, f.updated} }

// judge compares the record and wants the report to say what the tally says.
func (p *pipelines) judge() *tally {
	p.t.Helper()
	report := p.compare()
	y := p.tally(report)
	y.check(p.t, report)
	return y
}

// tally counts what is in the report's window.
func (p *pipelines) tally(report *cutover.Report) *tally {
	p.t.Helper()
	w := report.Window
	y := &tally{
		pipelines: p, report: report, from: w.From, to: w.Settled, changes: map[seenKey][]*fact{}, deleted: map[string]bool{}, last: map[string]time.Time{},
		ahead:  time.Duration(report.Clocks.Receiver * float64(time.Second)).Round(time.Microsecond),
		polled: map[string][]seenKey{}, class: map[string]cutover.Class{}, counted: map[cutover.Class]int{},
	}
	api, err := client.New("http://desk.example", p.tenant.APIKey, client.WithHTTPClient(p.api))
	if err != nil {
		p.t.Fatal(err)
	}
	for page, err := range api.EventPages(p.t.Context(), "", client.EventFilter{Limit: 1000}) {
		if err != nil {
			p.t.Fatal(err)
		}
		for _, e := range page.Data {
			w := webhook.Envelope{Data: e.Data}
			d, err := w.Ticket()
			if err != nil {
				p.t.Fatal(err)
			}
			f := &fact{key: webhook.Key{EventID: e.EventID, EventType: e.EventType}, ticket: d.TicketID, occurred: e.OccurredAt, updated: d.UpdatedAt.Time}
			y.events = append(y.events, f)
			y.changes[f.change()] = append(y.changes[f.change()], f)
			y.last[f.ticket] = f.updated
			y.deleted[f.ticket] = !slices.Contains(p.ids, f.ticket)
			f.fate, f.taken = y.fateOf(f)
		}
	}
	for k := range p.seen {
		y.polled[k.ticket] = append(y.polled[k.ticket], k)
	}
	for _, all := range y.polled {
		slices.SortFunc(all, func(a, b seenKey) int { return a.updated.Compare(b.updated) })
	}
	y.classify()
	return y
}

func within(all []cut, t time.Time) bool {
	return slices.ContainsFunc(all, func(c cut) bool { return c.holds(t) })
}

// fateOf says what became of an event: it was taken, or it was lost, and how.
func (y *tally) fateOf(f *fact) (cutover.Class, *passed) {
	var own []passed
	for _, x := range y.wire[f.key] {
		if !x.byOther {
			own = append(own, x)
		}
	}
	slices.SortFunc(own, func(a, b passed) int { return a.at.Compare(b.at) })
	for i := range own {
		if own[i].taken {
			return "", &own[i]
		}
	}
	schedule := delivery.DefaultPolicy().Schedule
	switch n := len(own); {
	case n == 0 && within(y.disabled, f.occurred):
		return cutover.Disabled, nil
	case n == 0:
		return cutover.NeverSent, nil
	case n <= len(schedule):
		// Switching a webhook off gives up what it is owed.
		due := own[n-1].at.Add(schedule[n-1])
		if slices.ContainsFunc(y.disabled, func(c cut) bool { return c.from.After(own[n-1].at) && c.from.Before(due) }) {
			return cutover.Disabled, nil
		}
		return cutover.Pending, nil
	case !slices.ContainsFunc(own, func(x passed) bool { return !within(y.down, x.at) }):
		return cutover.ReceiverDown, nil
	default:
		return cutover.Abandoned, nil
	}
}

func (y *tally) inside(t time.Time) bool { return !t.Before(y.from) && !t.After(y.to) }

// classify gives each change that the poller saw, and each event, its class.
func (y *tally) classify() {
	first := map[seenKey]*fact{}
	for k, at := range y.seen {
		row := "change " + k.ticket + k.updated.String()
		all := y.changes[k]
		worst := cutover.Class("")
		for _, f := range all {
			if f.taken != nil && (first[k] == nil || f.taken.at.Before(first[k].taken.at)) {
				first[k] = f
			}
			for _, c := range []cutover.Class{cutover.Pending, cutover.Abandoned, cutover.NeverSent, cutover.ReceiverDown, cutover.Disabled} {
				if f.fate == c && worst == "" {
					worst = c
				}
			}
		}
		switch f := first[k]; {
		case !y.inside(k.updated):
			y.class[row] = cutover.Unsettled
		case len(all) == 0:
			y.class[row] = "no event"
		case f == nil:
			y.class[row] = worst
		default:
			y.class[row] = y.whoWasFirst(f, at)
			y.poll = append(y.poll, at.Sub(k.updated))
			y.hook = append(y.hook, y.reached(all).Add(y.ahead).Sub(k.updated))
		}
		if c := y.class[row]; c != cutover.Unsettled {
			y.counted[c]++
		}
	}
	for _, f := range y.events {
		row := "event " + f.key.EventID + f.key.EventType
		at, polled := y.seen[f.change()]
		began := f.occurred
		if polled {
			began = f.updated
		}
		switch {
		case !y.inside(began):
			y.class[row] = cutover.Unsettled
		case f.fate != "": // of whatever ticket
			y.class[row] = f.fate
		case y.watched != nil && !slices.Contains(y.watched, f.ticket):
			y.class[row] = cutover.NotWatched
		case polled && f == first[f.change()]:
			y.class[row] = y.whoWasFirst(f, at)
		case polled:
			y.class[row] = cutover.SameChange
		case f.updated.Equal(y.began[f.ticket]):
			y.class[row] = cutover.PollerMissed
		case y.seenAfter(f):
			y.class[row] = cutover.Overwritten
		case y.deleted[f.ticket]:
			y.class[row] = cutover.CreatedDeleted
		default:
			y.class[row] = cutover.PollerMissed
		}
	}
}

func (y *tally) whoWasFirst(f *fact, seen time.Time) cutover.Class {
	switch {
	case !f.taken.at.Add(y.ahead).After(seen):
		return cutover.WebhookFirst
	case f.taken.attempt > 1:
		return cutover.PollerFirstR
	default:
		return cutover.PollerFirstS
	}
}

// seenAfter reports whether the poller saw a later change of the ticket.
func (y *tally) seenAfter(f *fact) bool {
	return slices.ContainsFunc(y.polled[f.ticket], func(k seenKey) bool { return k.updated.After(f.updated) })
}

// reached is when the receiver first had a request about a change.
func (y *tally) reached(all []*fact) (at time.Time) {
	for _, f := range all {
		for _, x := range y.wire[f.key] {
			if x.reached && !x.byOther && (at.IsZero() || x.at.Before(at)) {
				at = x.at
			}
		}
	}
	return at
}

// lost is how many changes and events of the window nothing brought when they were
// due.
func (y *tally) lost() (n int) {
	for _, c := range y.class {
		switch c {
		case cutover.Abandoned, cutover.NeverSent, cutover.ReceiverDown, cutover.Disabled:
			n++
		}
	}
	return n
}

// check compares the report with the tally, row by row and in its figures.
func (y *tally) check(t *testing.T, r *cutover.Report) {
	t.Helper()
	rows := map[string]cutover.Class{}
	for _, row := range r.Rows {
		switch row.Kind {
		case cutover.ChangeSeen:
			if row.UpdatedAt.IsZero() { // gone: not a change that an event could tell of
				if !y.deleted[row.Ticket] || row.Class != cutover.NoType && row.Class != cutover.Unsettled {
					t.Errorf("%s", row)
				}
				continue
			}
			rows["change "+row.Ticket+row.UpdatedAt.String()] = row.Class
		case cutover.EventKnown:
			rows["event "+row.EventID+row.EventType] = row.Class
		}
		if row.Class == cutover.Unexplained {
			t.Errorf("%s", row)
		}
	}
	wrong := 0
	for k, want := range y.class {
		got, has := rows[k]
		// Of what was before the cutover the record need not know.
		if got != want && !(!has && want == cutover.Unsettled) {
			if wrong++; wrong <= 10 {
				t.Errorf("%s: the report says %q, want %q: %s", k, got, want, y.explain(k))
			}
		}
	}
	for k := range rows {
		if _, has := y.class[k]; !has {
			t.Errorf("%s is in the report and never was", k)
		}
	}
	if wrong > 0 {
		t.Errorf("%d observations have another class", wrong)
	}
	y.checkFigures(t, r)
}

// explain is what the tally knows of a row.
func (y *tally) explain(row string) string {
	for _, f := range y.events {
		if row == "event "+f.key.EventID+f.key.EventType || row == "change "+f.ticket+f.updated.String() {
			return fmt.Sprintf("%+v, seen %s, %+v", *f, y.seen[f.change()], y.wire[f.key])
		}
	}
	return "no event"
}

// equal compares a figure.
func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: the report says %v, want %v", what, got, want)
	}
}

func (y *tally) checkFigures(t *testing.T, r *cutover.Report) {
	t.Helper()
	c := r.Coverage
	matched := y.counted[cutover.WebhookFirst] + y.counted[cutover.PollerFirstR] + y.counted[cutover.PollerFirstS]
	missed := y.counted[cutover.Abandoned] + y.counted[cutover.NeverSent]
	equal(t, "matched", c.Matched, matched)
	equal(t, "missed", c.Missed, missed)
	equal(t, "eligible", c.Eligible, matched+missed)
	equal(t, "exposed", r.Blind.Exposed, y.counted[cutover.Disabled]+y.counted[cutover.ReceiverDown])
	equal(t, "late", r.Changes(cutover.PollerFirstR), y.counted[cutover.PollerFirstR])
	equal(t, "unexplained", c.Doubtful, 0)
	equal(t, "mismatched", c.Mismatched, 0)
	lost, histogram, unseen, truth, polled, hooked := 0, map[int]int{}, map[seenKey]bool{}, map[seenKey]bool{}, 0, 0
	taken := map[seenKey]bool{}
	for _, f := range y.events {
		class := y.class["event "+f.key.EventID+f.key.EventType]
		if f.taken != nil {
			taken[f.change()] = true
			if class != cutover.Unsettled {
				histogram[f.taken.attempt]++
			}
		}
		_, seen := y.seen[f.change()]
		lostAlone := !seen || y.class["change "+f.ticket+f.updated.String()] != cutover.Abandoned
		if class == cutover.Abandoned && lostAlone {
			lost++
		}
		if class == cutover.Overwritten {
			unseen[f.change()] = true
		}
		if y.inside(f.updated) && (y.watched == nil || slices.Contains(y.watched, f.ticket)) && !f.updated.Equal(y.began[f.ticket]) {
			truth[f.change()] = true
		}
	}
	for k := range truth {
		if _, has := y.seen[k]; has {
			polled++
		}
		if taken[k] {
			hooked++
		}
	}
	equal(t, "further events that were lost", c.Events, lost)
	equal(t, "changes that only webhooks saw", c.Unseen, len(unseen))
	if !maps.Equal(r.Attempts.Histogram, histogram) {
		t.Errorf("attempts: the report says %v, want %v", r.Attempts.Histogram, histogram)
	}
	equal(t, "changes of the feed", r.Recall.Changes, len(truth))
	equal(t, "recall of the poller", r.Recall.Poller, float64(polled)/float64(len(truth)))
	equal(t, "recall of webhooks", r.Recall.Webhook, float64(hooked)/float64(len(truth)))
	y.checkTimes(t, r)
}

// checkTimes compares what was measured. Time is exact in a bubble; only what is
// looked at now and then, as the webhook is, is known to an interval.
func (y *tally) checkTimes(t *testing.T, r *cutover.Report) {
	t.Helper()
	// The times of a ticket's events rise, so several of one moment are some
	// milliseconds ahead of the clock.
	if y.ahead < 0 || y.ahead > 5*time.Millisecond {
		t.Errorf("the server's clock is %s ahead of the receiver's, which is the same", y.ahead)
	}
	equal(t, "polls that were measured", r.Lag.Poll.N, len(y.poll))
	for _, l := range []struct {
		what string
		all  []time.Duration
		got  cutover.Distribution
	}{{"lag of the poller", y.poll, r.Lag.Poll}, {"lag of webhooks", y.hook, r.Lag.FirstByte}} {
		slices.Sort(l.all)
		n := len(l.all)
		for _, q := range []struct {
			what string
			got  float64
			want time.Duration
		}{{"median", l.got.Median, l.all[(n-1)/2]}, {"p95", l.got.P95, l.all[(n*95+99)/100-1]}, {"max", l.got.Max, l.all[n-1]}} {
			if math.Abs(q.got-q.want.Seconds()) > 0.002 {
				t.Errorf("%s, %s: the report says %g s, want %s", l.what, q.what, q.got, q.want)
			}
		}
	}
	for _, b := range []struct {
		what string
		cuts []cut
		got  float64
		each time.Duration
	}{
		{"receiver down", y.down, r.Blind.Receiver, 3 * time.Second},
		{"webhook disabled", y.disabled, r.Blind.Disabled, collectEvery + time.Second},
		{"poller blind", y.blind, r.Blind.Poller, 2*y.interval + 30*time.Second},
	} {
		total := time.Duration(0)
		for _, c := range b.cuts {
			from, to := c.from, c.to
			if from.Before(y.from) {
				from = y.from
			}
			total += max(0, to.Sub(from))
		}
		if off := math.Abs(b.got - total.Seconds()); off > (time.Duration(len(b.cuts)) * b.each).Seconds() {
			t.Errorf("%s: the report says %g s, want %s", b.what, b.got, total)
		}
	}
}

// agrees compares what the receiver's program has with what the service has.
func (p *pipelines) agrees(t *testing.T) {
	t.Helper()
	api, err := client.New("http://desk.example", p.tenant.APIKey, client.WithHTTPClient(p.api))
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for truth, err := range api.Tickets(t.Context(), client.TicketFilter{Sort: "entered_at", Order: "asc"}) {
		if err != nil {
			t.Fatal(err)
		}
		m, want := p.mirror[truth.TicketID], mirrored{title: *truth.Title, closed: *truth.IsClosed}
		if truth.AssignedTo != nil {
			want.assigns = *truth.AssignedTo
		}
		if m.at = (time.Time{}); m != want {
			t.Errorf("ticket %s: the receiver has %+v, the service %+v", truth.TicketID, m, want)
		}
	}
	for k, n := range p.effects {
		if n != 1 {
			t.Errorf("%d effects of %s", n, cmp.Or(k.EventType, "?")+" "+k.EventID)
		}
	}
}
