package cutover

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
)

// order brings the digest into the order of time and drops what is in it twice:
// somebody may have joined a file with itself. Nothing behind it depends on the
// order in which the lines came.
func (d *digest) order() {
	d.orderPolls()
	d.orderCopies()
	d.orderRows()
	d.orderReactions()
	slices.SortFunc(d.sweeps, d.compareSweeps)
	d.sweeps = slices.CompactFunc(d.sweeps, func(a, b sweptState) bool { return a == b })
	slices.Sort(d.broken)
	d.broken = slices.Compact(d.broken)
	d.watches = ordered(d.watches, func(w *Watch) moment { return momentOf(w.At) })
	d.gaps = ordered(d.gaps, func(g *Gap) moment { return momentOf(g.From) })
	d.subscriptions = ordered(d.subscriptions, func(s *Subscription) moment { return momentOf(s.At) })
	d.readings = ordered(d.readings, func(r *Reading) moment { return momentOf(r.At) })
	d.receivers = ordered(d.receivers, func(r *Receiver) moment { return momentOf(r.At) })
	d.reconcilers = ordered(d.reconcilers, func(r *Reconciler) moment { return momentOf(r.At) })
	d.turns = ordered(d.turns, func(t *Turn) moment { return momentOf(t.At) })
	d.drills = ordered(d.drills, func(l *Drill) moment { return momentOf(l.At) })
	d.eventOf, d.stateOf = nil, nil // nothing is added any more
	for i := range d.events {
		d.settleEvent(&d.events[i])
	}
}

// ordered sorts what there are few of, and drops equal ones.
func ordered[T any](all []*T, at func(*T) moment) []*T {
	text := make(map[*T]string, len(all))
	for _, v := range all {
		b, err := json.Marshal(v)
		if err != nil { // raw JSON that is none
			b = []byte(err.Error())
		}
		text[v] = string(b)
	}
	slices.SortFunc(all, func(a, b *T) int { return cmp.Or(cmp.Compare(at(a), at(b)), strings.Compare(text[a], text[b])) })
	return slices.CompactFunc(all, func(a, b *T) bool { return text[a] == text[b] })
}

func (d *digest) compareText(a, b textID) int {
	if a == b {
		return 0
	}
	return strings.Compare(d.text(a), d.text(b))
}

func (d *digest) compareStates(a, b int32) int {
	if a == b {
		return 0
	}
	return strings.Compare(d.states[a].hash, d.states[b].hash)
}

func (d *digest) compareEvents(a, b int32) int {
	if a == b || a < 0 || b < 0 {
		return cmp.Compare(min(a, 0), min(b, 0))
	}
	x, y := &d.events[a], &d.events[b]
	return cmp.Or(d.compareText(x.id, y.id), d.compareText(x.typ, y.typ))
}

func (d *digest) compareLooks(a, b look) int {
	return cmp.Or(cmp.Compare(a.done, b.done), cmp.Compare(a.at, b.at), d.compareText(a.ticket, b.ticket),
		cmp.Compare(a.updated, b.updated), d.compareText(a.verdict, b.verdict), d.compareStates(a.state, b.state))
}

func (d *digest) orderPolls() {
	compare := func(a, b polled) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.done, b.done), cmp.Compare(a.round, b.round), d.compareText(a.ticket, b.ticket),
			d.compareText(a.list, b.list), cmp.Compare(a.page, b.page), d.compareText(a.failure, b.failure), cmp.Compare(a.http, b.http),
			cmp.Compare(a.date, b.date), cmp.Compare(a.limit, b.limit), slices.CompareFunc(d.looks[a.from:a.to], d.looks[b.from:b.to], d.compareLooks))
	}
	if !slices.IsSortedFunc(d.polls, compare) {
		slices.SortFunc(d.polls, compare)
	}
	d.polls = slices.CompactFunc(d.polls, func(a, b polled) bool { return compare(a, b) == 0 })
}

func (d *digest) compareCopies(a, b copied) int {
	if c := cmp.Or(d.compareEvents(a.event, b.event), cmp.Compare(a.at, b.at), cmp.Compare(a.done, b.done)); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(a.attempt, b.attempt), d.compareText(a.delivery, b.delivery), d.compareText(a.webhook, b.webhook), cmp.Compare(a.http, b.http),
		d.compareText(a.outcome, b.outcome), d.compareText(a.body, b.body), compareBool(a.signed, b.signed),
		compareBool(a.synthetic, b.synthetic), cmp.Compare(a.occurred, b.occurred), cmp.Compare(a.updated, b.updated),
		d.compareText(a.ticket, b.ticket), d.compareStates(a.state, b.state))
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	default:
		return -1
	}
}

func (d *digest) orderCopies() {
	slices.SortFunc(d.copies, d.compareCopies)
	d.copies = slices.CompactFunc(d.copies, func(a, b copied) bool { return d.compareCopies(a, b) == 0 })
	for i := 0; i < len(d.copies); {
		n := i + 1
		for n < len(d.copies) && d.copies[n].event == d.copies[i].event {
			n++
		}
		if e := d.copies[i].event; e >= 0 {
			d.events[e].copies, d.events[e].copiesTo = int32(i), int32(n)
		}
		i = n
	}
}

func (d *digest) orderRows() {
	slices.SortFunc(d.rows, func(a, b logRow) int {
		return cmp.Or(d.compareEvents(a.event, b.event), cmp.Compare(a.attempted, b.attempted), cmp.Compare(a.attempt, b.attempt),
			d.compareText(a.delivery, b.delivery))
	})
	for i := 0; i < len(d.rows); {
		n := i + 1
		for n < len(d.rows) && d.rows[n].event == d.rows[i].event {
			n++
		}
		e := &d.events[d.rows[i].event]
		e.rows, e.rowsTo = int32(i), int32(n)
		i = n
	}
	d.rowOf = nil
}

func (d *digest) orderReactions() {
	slices.SortFunc(d.reactions, func(a, b reacted) int {
		return cmp.Or(cmp.Compare(a.at, b.at), d.compareEvents(a.event, b.event), cmp.Compare(a.attempt, b.attempt),
			compareBool(a.ok, b.ok), compareBool(a.acted, b.acted), compareBool(a.stale, b.stale))
	})
	d.reactions = slices.Compact(d.reactions)
	for _, r := range d.reactions {
		e := &d.events[r.event]
		if !r.ok {
			continue
		}
		if e.handled == never {
			e.handled = r.at
		}
		if r.acted {
			e.acted++
		}
	}
}

func (d *digest) compareSweeps(a, b sweptState) int {
	return cmp.Or(d.compareText(a.ticket, b.ticket), cmp.Compare(a.at, b.at), cmp.Compare(a.updated, b.updated), d.compareStates(a.state, b.state))
}

// settleEvent decides what an event says: what a signed copy says, or else the
// feed, or else a copy that was refused, or the log.
func (d *digest) settleEvent(e *event) {
	copies := d.copies[e.copies:e.copiesTo]
	for i := range copies {
		if c := &copies[i]; c.signed {
			e.ticket, e.occurred, e.updated, e.state, e.signed = c.ticket, c.occurred, c.updated, c.state, true
			return
		}
	}
	if f := e.fed; f.at != never {
		e.ticket, e.occurred, e.updated, e.state = f.ticket, f.occurred, f.updated, f.state
		return
	}
	for i := range copies {
		if c := &copies[i]; c.ticket != 0 {
			e.ticket, e.occurred, e.updated, e.state = c.ticket, c.occurred, c.updated, c.state
			return
		}
	}
	for i := e.rows; i < e.rowsTo && e.ticket == 0; i++ {
		e.ticket = d.rows[i].ticket
	}
}

// backfilled reports whether all that is known of an event are requests that are
// not the webhook's.
func (d *digest) backfilled(e *event) bool {
	copies := d.copies[e.copies:e.copiesTo]
	return len(copies) > 0 && !e.sent() && !slices.ContainsFunc(copies, func(p copied) bool { return p.aside == "" })
}

// known reports whether an event is one, and not just an id in the header of a
// request that anybody may have sent.
func (e *event) known() bool { return e.signed || e.fed.at != never || e.rowsTo > e.rows }
