package cutover

import (
	"fmt"
	"slices"
	"sort"
	"time"
)

// What a drill is to prove is proved by the record, whether or not somebody asked
// for it.

// asked is when the last drill of a kind was asked for.
func (c *comparison) asked(kind string) time.Time {
	var at time.Time
	for _, l := range c.drills {
		if l.Kind == kind {
			at = l.At
		}
	}
	return at
}

// restart looks for a start of the receiver in the window with events that were
// taken before and after.
func (c *comparison) restart() Proof {
	p := Proof{Kind: "restart", Asked: c.asked("restart")}
	var taken []moment
	for i := range c.events {
		if t := c.taken[i]; t >= 0 && c.inside(c.copies[t].at+c.hookLag) {
			taken = append(taken, c.copies[t].at)
		}
	}
	slices.Sort(taken)
	for i, v := range c.receivers {
		at := momentOf(v.At)
		if i == 0 || !c.inside(at+c.hookLag) {
			continue
		}
		n := sort.Search(len(taken), func(i int) bool { return taken[i] >= at })
		if n > 0 && n < len(taken) {
			p.Proved, p.At = true, v.At
			p.Evidence = fmt.Sprintf("the receiver started again at %s; events were taken at %s and %s", c.clock(at), c.clock(taken[n-1]), c.clock(taken[n]))
		}
	}
	return p
}

// retry looks for an event that was taken at a later attempt, after one that
// failed.
func (c *comparison) retry() Proof {
	p := Proof{Kind: "retry", Asked: c.asked("retry")}
	for i := range c.events {
		e, t := &c.events[i], c.taken[i]
		if t < 0 || c.copies[t].attempt < 2 || !c.inside(c.copies[t].at+c.hookLag) {
			continue
		}
		failed := ""
		for n := e.copies; n < t && failed == ""; n++ {
			if q := &c.copies[n]; q.http/100 != 2 {
				failed = fmt.Sprintf("answered %d at %s", q.http, c.clock(q.at))
			}
		}
		for n := e.rows; n < e.rowsTo && failed == ""; n++ {
			if l := &c.rows[n]; l.attempt < c.copies[t].attempt && c.text(l.status) != "delivered" && l.completed != never {
				failed = fmt.Sprintf("attempt %d failed at %s: %s", l.attempt, c.clock(l.completed), c.answer(l))
			}
		}
		at := c.time(c.copies[t].at)
		if failed == "" {
			continue
		}
		evidence := fmt.Sprintf("event %s: %s, and attempt %d was taken at %s", c.text(e.id), failed, c.copies[t].attempt, c.clock(c.copies[t].at))
		if !p.Proved || at.Before(p.At) || at.Equal(p.At) && evidence < p.Evidence {
			p.Proved, p.At, p.Evidence = true, at, evidence
		}
	}
	return p
}
