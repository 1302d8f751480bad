package cutover

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

// What became of an event that did not get through, and of a change that no event
// tells of.

// Outcomes of a receiver that acknowledges what it does not handle.
func ignored(outcome string) bool {
	return outcome == string(webhook.IgnoredType) || outcome == string(webhook.Unwatched)
}

// came finds the first copy of an event that the receiver took, and the first one
// that it acknowledged without handling it; -1 for none. What a backfill or a
// person sent says nothing about the webhook.
func (c *comparison) came(e *event) (taken, passed int32) {
	taken, passed = -1, -1
	for i := e.copies; i < e.copiesTo; i++ {
		p := &c.copies[i]
		switch {
		case !p.signed || p.http/100 != 2 || p.aside != "":
		case ignored(c.text(p.outcome)):
			if passed < 0 {
				passed = i
			}
		case taken < 0:
			taken = i
		}
	}
	return taken, passed
}

// refused finds the first copy that the receiver refused for what it was; -1 for
// none.
func (c *comparison) refused(e *event) int32 {
	for i := e.copies; i < e.copiesTo; i++ {
		if c.copies[i].http/100 == 4 && c.copies[i].aside == "" {
			return i
		}
	}
	return -1
}

// began is when an event was, as far as that is known.
func (c *comparison) began(e *event) moment {
	switch {
	case e.occurred != never:
		return e.occurred
	case e.rowsTo > e.rows && c.rows[e.rows].attempted != never:
		return c.rows[e.rows].attempted
	case e.updated != never:
		return e.updated
	case e.copiesTo > e.copies:
		return c.copies[e.copies].at + c.hookLag
	case e.rowsTo > e.rows:
		return c.rows[e.rows].read
	}
	return never
}

// fate says what became of an event that the receiver did not take.
func (c *comparison) fate(e *event) (Class, string) {
	began := c.began(e)
	_, passed := c.came(e)
	refused := c.refused(e)
	if passed >= 0 {
		return NotSubscribed, fmt.Sprintf("the receiver answered %s at %s: it is not set up for this", c.text(c.copies[passed].outcome), c.clock(c.copies[passed].at))
	}
	if class, why := c.logged(e, began, refused); class != "" {
		return class, why
	}
	tries := c.to < began+c.givesUp
	failed := slices.DeleteFunc(slices.Clone(c.copies[e.copies:e.copiesTo]), func(p copied) bool { return p.aside != "" })
	switch {
	case refused >= 0 && tries:
		return Pending, fmt.Sprintf("the receiver answered %d at %s; the sender may try until %s", c.copies[refused].http, c.clock(c.copies[refused].at), c.clock(began+c.givesUp))
	case refused >= 0:
		p := &c.copies[refused]
		return Rejected, fmt.Sprintf("the receiver answered %d (%s) at %s", p.http, c.text(p.outcome), c.clock(p.at))
	case len(failed) > 0 && tries:
		return Pending, fmt.Sprintf("the receiver failed at %s; the sender may try until %s", c.clock(failed[len(failed)-1].at), c.clock(began+c.givesUp))
	case len(failed) > 0:
		return Abandoned, fmt.Sprintf("the receiver failed %d times, and the time of the retries was over at %s", len(failed), c.clock(began+c.givesUp))
	}
	return c.unsent(e, began)
}

// logged says what the log of deliveries tells of an event; "" if nothing.
func (c *comparison) logged(e *event, began moment, refused int32) (Class, string) {
	rows := c.rows[e.rows:e.rowsTo]
	waits := false
	var last *logRow
	var gaveUp *logRow // without an attempt, as a server does when it switches the webhook off
	for i := range rows {
		r := &rows[i]
		switch status := c.text(r.status); {
		case r.manual && (status != "delivered" || c.received(e, r.delivery)):
			continue
		case status == "abandoned" && r.attempted == never:
			gaveUp = r
		case status == "delivered":
			return Unexplained, fmt.Sprintf("the log says that delivery %s was answered %d at %s, and the receiver's record has no such request", c.text(r.delivery), r.http, c.clock(max(r.completed, r.attempted)))
		case status == "pending":
			waits = true
		}
		last = r
	}
	if last == nil {
		return "", ""
	}
	over := began + c.givesUp + span(time.Hour)
	dropped := !waits && c.text(last.status) == "retrying" && within(c.disabled, last.next)
	waits = waits || c.text(last.status) == "retrying"
	switch {
	case gaveUp != nil && within(c.disabled, gaveUp.completed):
		return Disabled, "the webhook was disabled at " + c.clock(gaveUp.completed) + ", and what it was owed given up"
	case gaveUp != nil:
		return Abandoned, fmt.Sprintf("given up at %s, before attempt %d", c.clock(gaveUp.completed), gaveUp.attempt)
	case dropped:
		return Disabled, "the webhook was disabled at " + c.clock(last.next) + ", when the next attempt was due"
	case waits && within(c.disabled, min(c.to, c.setupTo)) && c.to <= c.setupTo+span(inLog):
		return Disabled, "the webhook was disabled while the sender still tried"
	case waits && c.to > over && !c.logTells(over):
		return Unexplained, fmt.Sprintf("the log said %s when it was read at %s, and nobody has read it since the time of the retries was over", c.text(last.status), c.clock(last.read))
	case waits && c.to > over:
		return NeverSent, fmt.Sprintf("the log still says %s, but the time of the retries was over at %s", c.text(last.status), c.clock(began+c.givesUp))
	case waits:
		return Pending, fmt.Sprintf("attempt %d is %s%s", last.attempt, c.text(last.status), c.due(last))
	case refused >= 0:
		p := &c.copies[refused]
		return Rejected, fmt.Sprintf("the receiver answered %d (%s) at %s", p.http, c.text(p.outcome), c.clock(p.at))
	case last.http/100 == 4:
		return Rejected, fmt.Sprintf("attempt %d was answered %d at %s, by the receiver or something before it", last.attempt, last.http, c.clock(last.attempted))
	case !slices.ContainsFunc(rows, func(r logRow) bool { return !r.manual && !within(c.down, r.attempted) }):
		return ReceiverDown, fmt.Sprintf("all attempts, the last of them number %d, were made while the receiver was down", last.attempt)
	}
	return Abandoned, fmt.Sprintf("given up after attempt %d at %s: %s", last.attempt, c.clock(max(last.completed, last.attempted)), c.answer(last))
}

// received reports whether the receiver's record has a delivery of an event.
func (c *comparison) received(e *event, delivery textID) bool {
	return slices.ContainsFunc(c.copies[e.copies:e.copiesTo], func(p copied) bool { return p.delivery == delivery })
}

func (c *comparison) due(r *logRow) string {
	if r.next == never {
		return ""
	}
	return ", the next one is due at " + c.clock(r.next)
}

func (c *comparison) answer(r *logRow) string {
	if r.err != 0 {
		return c.text(r.err)
	}
	return fmt.Sprintf("answered %d", r.http)
}

// unsent says what became of an event of the feed of which neither the receiver
// nor the log knows anything.
func (c *comparison) unsent(e *event, began moment) (Class, string) {
	sub := c.subscription(began)
	if sub != nil {
		if !slices.Contains(sub.EventTypes, c.text(e.typ)) {
			return NotSubscribed, "the webhook does not subscribe to " + c.text(e.typ)
		}
		if why := sub.lets(c.text(e.ticket)); why != "" {
			return NotSubscribed, why
		}
	}
	switch {
	case within(c.disabled, began):
		return Disabled, "the webhook was disabled"
	case sub != nil && sub.conditions() && c.logTells(began):
		return NotSubscribed, "the webhook's filter has conditions, which the comparison does not follow; the log has no delivery"
	case c.logTells(began):
		return NeverSent, "the feed has the event, the webhook subscribes to it, and the log has no delivery"
	}
	return c.untold(began, "the event")
}

// untold is for what nothing tells about, as far as the log is known.
func (c *comparison) untold(began moment, what string) (Class, string) {
	over := began + c.givesUp
	for _, o := range c.down {
		if o.holds(began) && o.to >= min(over, c.to) {
			return ReceiverDown, "the receiver was down as long as the sender tried"
		}
	}
	if c.to < over {
		return Pending, fmt.Sprintf("there is no log of deliveries for this time, so the sender may still try, until %s", c.clock(over))
	}
	return Unexplained, fmt.Sprintf("%s did not come, and there is no log of deliveries for this time: given up or never sent, nobody can tell", what)
}

// unheard says why no event tells of a change, where none is known.
func (c *comparison) unheard(g *change) (Class, string) {
	if c.feedTells(g.updated, g.done) {
		return NoType, "the feed has no event for this change"
	}
	sub := c.subscription(g.updated)
	if sub != nil {
		if why := sub.lets(c.text(g.ticket)); why != "" {
			return NotSubscribed, why
		}
		possible := c.possible(g)
		if !slices.ContainsFunc(possible, func(t string) bool { return slices.Contains(sub.EventTypes, t) }) {
			return NotSubscribed, "the webhook does not subscribe to " + strings.Join(possible, " or ")
		}
	}
	switch {
	case within(c.disabled, g.updated):
		return Disabled, "the webhook was disabled"
	case sub != nil && g.before != 0 && g.state == g.before && !slices.Contains(sub.EventTypes, webhook.TicketCommentAdded):
		return NotSubscribed, "no field changed, so it was a comment, and the webhook does not subscribe to " + webhook.TicketCommentAdded
	case sub != nil && sub.conditions():
		return NotSubscribed, "the webhook's filter has conditions, which the comparison does not follow"
	}
	if p := c.stranger(g.updated); p != nil {
		return Rejected, fmt.Sprintf("the receiver answered %d (%s) to a request at %s that did not say which ticket it was about", p.http, c.text(p.outcome), c.clock(p.at))
	}
	if c.logTells(g.updated) {
		return Unexplained, "the log has no delivery for this change, and without the event feed nobody can tell a change that has no event from one whose event was lost"
	}
	return c.untold(g.updated, "an event for this change")
}

// possible returns the event types that can tell of a change (contract section
// 4.4).
func (c *comparison) possible(g *change) []string {
	if g.isNew {
		return []string{webhook.TicketCreated}
	}
	types := []string{webhook.TicketUpdated}
	a, b := c.states[g.before].fields, c.states[g.state].fields
	if g.before == 0 || g.state == 0 || a == nil || b == nil {
		return append(types, webhook.TicketStatusChanged, webhook.TicketAssigned, webhook.TicketClosed, webhook.TicketCommentAdded)
	}
	moved := func(fields ...string) bool {
		return slices.ContainsFunc(fields, func(f string) bool { return a[c.places[f]] != b[c.places[f]] })
	}
	if moved("status_id", "status_name") {
		types = append(types, webhook.TicketStatusChanged)
	}
	if moved("assigned_to", "assigned_team_id") {
		types = append(types, webhook.TicketAssigned)
	}
	if moved("is_closed", "closed_at") {
		types = append(types, webhook.TicketClosed)
	}
	if g.state == g.before {
		types = append(types, webhook.TicketCommentAdded)
	}
	return types
}

// stranger finds a request that was refused, whose ticket is not known, at the
// time of the first attempt for a change.
func (c *comparison) stranger(updated moment) *copied {
	for _, i := range c.strangers {
		if p := &c.copies[i]; p.attempt <= 1 && p.at+c.hookLag >= updated-c.early && p.at+c.hookLag <= updated+span(time.Minute) {
			return p
		}
	}
	return nil
}

// clock writes a moment.
func (s *sides) clock(m moment) string {
	if m == never {
		return "an unknown time"
	}
	return s.time(m).Format("2006-01-02 15:04:05.000Z")
}
