package cutover

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

// The comparison. The poller is the control, the webhook the candidate, and what
// the event feed, or a sweep at the end, knows is the judge of both. Every
// observation gets exactly one class; see Kind for what is one, Class for what
// there is, and docs/decisions/0019-the-comparison.md for why.
//
//	change   X1 outside | P8 no change | P5 gone | B1, B2r, B2s an event told of it
//	         | P1-P7, X3, U by what became of the events that should have
//	event    W6 a test | X1 outside | taken: M1-M4 says something else than the
//	         poll, B1, B2r, B2s the first of its change, B3 a further one, W1-W5
//	         there is no change, U | not taken: P1-P7, X3, U
//	receipt  X1 outside | W6 | after one that was taken: D1-D3, W6, U | O1, O2 |
//	         the class of its event | P3 refused | U
//	truth    X1 outside | the class of the change, or else of the event | U
//	poll     X2
//	gap      X2, X3
//	entry    U
//
// Nothing is explained by default: what fits no rule is U, and U blocks.

// Question is what is asked of a record.
type Question struct {
	Setup *Setup    // nil: only what the record says
	At    time.Time // judge as of then, by what was written until then; zero for the last time in the record
	Dir   string    // the cutover directory, for the commands in the report; DefaultDir if empty
}

// DefaultDir is the cutover directory if nobody names another.
const DefaultDir = "ticketwire-cutover"

// Compare reads a record and says whether the webhooks caught what the poller
// caught. The report is a function of the entries, whatever their order, and of
// the question. An error is one of the record's.
func Compare(entries iter.Seq2[Entry, error], q Question) (*Report, error) {
	server, hook := "", ""
	if q.Setup != nil {
		server, hook = q.Setup.Server, q.Setup.WebhookID
	}
	d := newDigest(hook, q.At)
	for e, err := range entries {
		if err != nil {
			return nil, err
		}
		d.add(e)
	}
	d.order()
	m := match(newSides(d, q))
	c := &comparison{matcher: m, names: compared(), ignore: map[string]bool{}, ignoring: map[string]int{}}
	r := &Report{Server: server, WebhookID: hook}
	var rules Rules
	if q.Setup != nil {
		rules = q.Setup.Rules
	}
	if server == "" && len(d.watches) > 0 {
		r.Server = d.watches[len(d.watches)-1].Server
	}
	if hook == "" && len(d.subscriptions) > 0 {
		r.WebhookID = d.subscriptions[len(d.subscriptions)-1].WebhookID
	}
	r.Rules = c.rules(rules.Ignore)
	c.classify()
	for i := range r.Rules {
		if r.Rules[i].Void == "" {
			r.Rules[i].Hits = c.ignoring[r.Rules[i].Field]
		}
	}
	c.fill(r, rules)
	r.decide(rules, cmp.Or(q.Dir, DefaultDir))
	return r, nil
}

// comparison is a matched record on the way to a report.
type comparison struct {
	*matcher
	names    []string        // the compared fields
	ignore   map[string]bool // those whose differences do not count
	ignoring map[string]int  // how often that was so

	strangers  []int32 // copies that were refused and are about no ticket that is known
	taken      []int32 // of each event, the first copy that was taken; -1 for none
	classOf    []Class // of each event
	misordered map[int32]Class
	brought    map[textID]moment // the latest updated_at of a ticket that a synthetic event told of
	recovery   Recovery
	untoldOf   int // changes of which nothing is known
	out        []Row
}

// classify gives every observation its class.
func (c *comparison) classify() {
	c.taken = make([]int32, len(c.events))
	c.brought = map[textID]moment{}
	for i := range c.copies {
		if p := &c.copies[i]; p.synthetic && p.signed && p.http/100 == 2 {
			c.brought[p.ticket] = max(c.brought[p.ticket], p.updated)
		}
	}
	for i := range c.events {
		c.taken[i], _ = c.came(&c.events[i])
	}
	for i := range c.copies {
		p := &c.copies[i]
		if p.http/100 == 4 && p.ticket == 0 && (p.event < 0 || !c.events[p.event].known()) && (p.event >= 0 || p.delivery != 0) {
			c.strangers = append(c.strangers, int32(i))
		}
	}
	for i := range c.changes {
		if g := &c.changes[i]; !g.begins {
			c.classifyChange(g)
			c.recover(g.class, g.ticket, g.updated, g.hits...)
			c.rowOfChange(g)
		}
	}
	for i := range c.others {
		c.classifyOther(&c.others[i])
		c.rowOfChange(&c.others[i])
	}
	c.classOf = make([]Class, len(c.events))
	for i := range c.events {
		if e := &c.events[i]; e.known() {
			class, why := c.classifyEvent(int32(i))
			c.classOf[i] = class
			c.recover(class, e.ticket, known(e.updated, e.occurred), int32(i))
			c.out = append(c.out, Row{
				Kind: EventKnown, Class: class, At: c.time(c.began(e)), Ticket: c.text(e.ticket), EventID: c.text(e.id), EventType: c.text(e.typ),
				UpdatedAt: c.time(e.updated), Reason: why,
			})
		}
	}
	c.sequence()
	for i := range c.copies {
		c.classifyCopy(int32(i))
	}
	c.classifySweeps()
	c.classifyLosses()
	slices.SortFunc(c.out, func(a, b Row) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Kind, b.Kind), strings.Compare(a.Ticket, b.Ticket),
			strings.Compare(a.EventID, b.EventID), strings.Compare(a.EventType, b.EventType), strings.Compare(a.DeliveryID, b.DeliveryID),
			a.UpdatedAt.Compare(b.UpdatedAt), cmp.Compare(a.Class, b.Class), strings.Compare(a.Reason, b.Reason))
	})
}

func (c *comparison) classifyChange(g *change) {
	for _, i := range g.hits {
		if t := c.taken[i]; t >= 0 && (g.first < 0 || c.copies[t].at < c.copies[g.first].at) {
			g.first = t
		}
	}
	switch {
	case !c.inside(g.updated):
		g.class = Unsettled
	case g.first >= 0:
		g.class = c.whoWasFirst(g)
	case g.state != 0 && g.state == g.before && g.updated/1000 == g.previous/1000:
		g.class, g.reason = Noise, "the same state and millisecond as before"
	default:
		if g.class, g.reason = c.lost(g); g.class == Pending && len(g.hits) == 0 {
			c.untoldOf++
		}
	}
}

func (c *comparison) whoWasFirst(g *change) Class {
	p := &c.copies[g.first]
	switch {
	case p.at+c.hookLag <= g.done:
		return WebhookFirst
	case p.attempt > 1:
		return PollerFirstR
	default:
		return PollerFirstS
	}
}

// lost says why no event told of a change. Of several events that should have, the
// one that may still come counts, and else the one that must not be lost.
func (c *comparison) lost(g *change) (Class, string) {
	rank := []Class{Pending, Rejected, Abandoned, NeverSent, Unexplained, ReceiverDown, Disabled, NotSubscribed}
	best, class, why := len(rank), Class(""), ""
	for _, i := range g.hits {
		e := &c.events[i]
		if c.backfilled(e) {
			continue // which proves nothing about webhooks
		}
		got, reason := c.fate(e)
		if n := slices.Index(rank, got); n < best {
			best, class, why = n, got, fmt.Sprintf("%s %s: %s", c.text(e.typ), c.text(e.id), reason)
		}
	}
	if class != "" {
		return class, why
	}
	return c.unheard(g)
}

// sent reports whether the server itself knows the event.
func (e *event) sent() bool { return e.fed.at != never || e.rowsTo > e.rows }

// recover counts an observation if nothing brought it when it was due, and whether
// something did afterwards: the event itself, or a synthetic one of that state of
// the ticket or a later one.
func (c *comparison) recover(class Class, ticket textID, at moment, events ...int32) {
	if w := class.Info().Weight; w != Lost && w != Exposed && (w != Doubt || ticket == 0) {
		return
	}
	c.recovery.Lost++
	itself := slices.ContainsFunc(events, func(i int32) bool {
		e := &c.events[i]
		return slices.ContainsFunc(c.copies[e.copies:e.copiesTo], func(p copied) bool { return p.aside != "" && p.signed && p.http/100 == 2 })
	})
	if itself || c.brought[ticket] >= at {
		c.recovery.Recovered++
	}
}

// known is the first of two moments that is known.
func known(a, b moment) moment {
	if a == never {
		return b
	}
	return a
}

func (c *comparison) classifyOther(g *change) {
	switch {
	case !c.inside(g.at):
		g.class = Unsettled
	case g.gone:
		g.class, g.reason = NoType, "the ticket is gone, and there is no event type for that"
	case g.updated < c.lastSeen(g):
		g.class, g.reason = Noise, "an updated_at before the one that was seen last: a replica that lags, or a database that was restored"
	default:
		g.class, g.reason = Noise, "other fields at the same updated_at: "+c.why(g)
	}
}

// lastSeen is the latest updated_at of the ticket that had been seen when g was.
func (c *comparison) lastSeen(g *change) moment {
	r := c.ofTicket[g.ticket]
	for i := r[1] - 1; i >= r[0] && r[1] > 0; i-- {
		if c.changes[i].done <= g.done {
			return c.changes[i].updated
		}
	}
	return never
}

func (c *comparison) why(g *change) string {
	diff, missing, _ := c.differences(g.before, g.state)
	return strings.Join(append(diff, missing...), "; ")
}

func (c *comparison) rowOfChange(g *change) {
	row := Row{Kind: ChangeSeen, Class: g.class, At: c.time(g.done), Ticket: c.text(g.ticket), UpdatedAt: c.time(g.updated), Reason: g.reason}
	if g.first >= 0 {
		p := &c.copies[g.first]
		row.DeliveryID = c.text(p.delivery)
		row.EventID, row.EventType = c.text(c.events[p.event].id), c.text(c.events[p.event].typ)
	}
	c.out = append(c.out, row)
}

func (c *comparison) classifyEvent(i int32) (Class, string) {
	e := &c.events[i]
	if why := c.staged(e); why != "" {
		return NoEvent, why
	}
	began := c.began(e)
	var g *change
	if c.standsAs[i] == told {
		g = &c.changes[c.changeOf[i]]
		began = g.updated
	}
	if !c.inside(began) {
		return Unsettled, ""
	}
	taken, passed := c.came(e)
	watched := c.text(e.ticket) != "" && c.watched(e.ticket, began)
	switch {
	case taken >= 0 && g != nil:
		if class, why := c.content(e, g); class != "" {
			return class, why
		}
		if taken == g.first {
			return g.class, g.reason
		}
		return SameChange, ""
	case taken >= 0 || passed >= 0 && !watched:
		return c.alone(i, watched)
	}
	class, why := c.fate(e)
	if class == NotSubscribed && !watched {
		return NotWatched, why
	}
	return class, why
}

// staged says why an event is none of a ticket's; "" if it is one.
func (c *comparison) staged(e *event) string {
	if c.text(e.typ) == webhook.Test {
		return "a test delivery"
	}
	if slices.ContainsFunc(c.rows[e.rows:e.rowsTo], func(r logRow) bool { return r.test }) {
		return "a test delivery"
	}
	if c.backfilled(e) {
		return c.copies[e.copies].aside
	}
	return ""
}

// alone says why no change that the poller saw belongs to an event.
func (c *comparison) alone(i int32, watched bool) (Class, string) {
	e := &c.events[i]
	began := c.began(e)
	_, everSeen := c.ofTicket[e.ticket]
	look, looked := c.lookAfter(e.ticket, began+c.fresh)
	goneAt, gone := c.vanishedAfter(e.ticket, began+c.fresh)
	switch p := c.standsAs[i]; {
	case !watched && e.ticket == 0:
		return NotWatched, "not about a ticket"
	case !watched:
		return NotWatched, ""
	case p == between:
		return Overwritten, "the next poll shows the change of " + c.clock(c.changes[c.changeOf[i]].updated)
	case p == unmoved:
		return Unmoved, ""
	case p == earlier:
		return PollerMissed, "before the poller first saw the ticket, at " + c.clock(c.changes[c.changeOf[i]].done)
	case gone:
		return CreatedDeleted, "the ticket was gone for the poller at " + c.clock(goneAt)
	case !looked:
		return PollerMissed, "the poller had no answer for the ticket after it"
	case !everSeen && c.text(e.typ) == webhook.TicketCreated:
		return CreatedDeleted, "created, and never seen by the poller"
	default:
		return Unexplained, fmt.Sprintf("the poll at %s should show the change of %s and does not", c.clock(look), c.clock(max(e.updated, began)))
	}
}

// vanishedAfter returns when the poller was told that the ticket is not there, if
// no answer about it, which can take a while to be asked for where the list is
// polled, came between t and that.
func (c *comparison) vanishedAfter(ticket textID, t moment) (moment, bool) {
	at, gone := c.goneAt[ticket]
	asked := c.looked[ticket]
	i := sort.Search(len(asked), func(i int) bool { return asked[i] >= t })
	return at, gone && (i == len(asked) || asked[i] >= at)
}

// sequence finds the copies that came out of order.
func (c *comparison) sequence() {
	c.misordered = map[int32]Class{}
	var firsts []int32
	for i := range c.events {
		if t := c.taken[i]; t >= 0 && c.events[i].ticket != 0 && c.events[i].occurred != never {
			firsts = append(firsts, t)
		}
	}
	slices.SortFunc(firsts, func(a, b int32) int {
		p, q := &c.copies[a], &c.copies[b]
		return cmp.Or(c.compareText(p.ticket, q.ticket), cmp.Compare(p.at, q.at), cmp.Compare(p.occurred, q.occurred), c.compareCopies(*p, *q))
	})
	var latest moment
	var seen map[moment]bool
	for n, i := range firsts {
		p := &c.copies[i]
		if n == 0 || c.copies[firsts[n-1]].ticket != p.ticket {
			latest, seen = never, map[moment]bool{}
		}
		switch {
		case p.occurred < latest:
			c.misordered[i] = OutOfOrder
		case seen[p.occurred]:
			c.misordered[i] = SameMoment
		}
		latest = max(latest, p.occurred)
		seen[p.occurred] = true
	}
}

// classifyCopy classifies one webhook request.
func (c *comparison) classifyCopy(i int32) {
	p := &c.copies[i]
	row := Row{Kind: CopyGot, At: c.time(p.at + c.hookLag), Ticket: c.text(p.ticket), DeliveryID: c.text(p.delivery), UpdatedAt: c.time(p.updated)}
	if p.event >= 0 {
		row.EventID, row.EventType = c.text(c.events[p.event].id), c.text(c.events[p.event].typ)
	}
	row.Class, row.Reason = c.judgeCopy(i)
	c.out = append(c.out, row)
}

func (c *comparison) judgeCopy(i int32) (Class, string) {
	p := &c.copies[i]
	outcome := c.text(p.outcome)
	switch {
	case !c.inside(p.at + c.hookLag):
		return Unsettled, ""
	case outcome == string(webhook.TestEvent):
		return NoEvent, "a test delivery"
	case p.synthetic:
		return NoEvent, p.aside
	case p.event < 0 && !p.signed && p.delivery == 0 && p.http/100 == 4:
		return NoEvent, "a request that is no delivery: no signature that fits, and no ids"
	case p.event < 0 && p.http/100 == 4, p.event >= 0 && !c.events[p.event].known() && p.http/100 == 4:
		return Rejected, fmt.Sprintf("answered %d (%s)", p.http, outcome)
	case p.event < 0 || !c.events[p.event].known():
		return Unexplained, fmt.Sprintf("answered %d (%s), and about no event that is known", p.http, outcome)
	}
	class, why := c.again(i)
	switch {
	case class == OtherBody:
		return class, why
	case p.aside != "":
		return NoEvent, p.aside
	case class != "":
		return class, why
	}
	if class, is := c.misordered[i]; is {
		return class, c.staleness(p)
	}
	class = c.classOf[p.event]
	if p.http/100 != 2 && c.taken[p.event] >= 0 {
		return class, fmt.Sprintf("answered %d (%s); the event was taken later", p.http, outcome)
	}
	return class, ""
}

// again says what a copy is of which the receiver had taken one before; "" for a
// first one.
func (c *comparison) again(i int32) (Class, string) {
	p := &c.copies[i]
	e := &c.events[p.event]
	genuine, taken := int32(-1), false
	for n := e.copies; n < i; n++ {
		if q := &c.copies[n]; q.signed && !q.synthetic {
			taken = taken || q.http/100 == 2 && q.aside == ""
			if genuine < 0 {
				genuine = n
			}
		}
	}
	switch {
	case genuine >= 0 && p.signed && p.body != c.copies[genuine].body:
		return OtherBody, "another body than the copy at " + c.clock(c.copies[genuine].at)
	case !taken:
		return "", ""
	}
	before := c.copies[e.copies:i]
	row := slices.IndexFunc(c.rows[e.rows:e.rowsTo], func(r logRow) bool { return r.delivery == p.delivery })
	switch {
	case p.delivery != 0 && slices.ContainsFunc(before, func(q copied) bool { return q.delivery == p.delivery }):
		return SameDelivery, ""
	case p.attempt > 1:
		return RetriedDelivery, fmt.Sprintf("attempt %d", p.attempt)
	case row < 0 && c.logTells(p.at+c.hookLag):
		return Unexplained, "a first attempt after one that was taken, which is not in the webhook's log: does another webhook send to this receiver?"
	default:
		return NoEvent, "a first attempt after one that was taken: sent again on request"
	}
}

// staleness says what the receiver did with a copy that came late.
func (c *comparison) staleness(p *copied) string {
	if c.text(p.outcome) == string(webhook.SkippedStale) {
		return "skipped as stale"
	}
	return c.text(p.outcome)
}

// classifySweeps compares what a sweep read at the end with what both sides knew.
func (c *comparison) classifySweeps() {
	told := map[[2]moment]Class{}
	for i := range c.events {
		if e := &c.events[i]; e.updated != never && c.taken[i] >= 0 {
			told[[2]moment{moment(e.ticket), e.updated}] = c.classOf[i]
		}
	}
	swept := map[[2]moment]bool{} // sweeps overlap
	for _, s := range c.sweeps {
		key := [2]moment{moment(s.ticket), s.updated}
		if swept[key] {
			continue
		}
		swept[key] = true
		row := Row{Kind: StateRead, At: c.time(s.at), Ticket: c.text(s.ticket), UpdatedAt: c.time(s.updated)}
		g, seen := c.at(s.ticket, s.updated)
		class, has := told[key]
		switch {
		case !c.inside(s.updated), seen && c.changes[g].begins:
			row.Class = Unsettled
		case seen:
			row.Class, row.Reason = c.changes[g].class, c.changes[g].reason
		case has:
			row.Class = class
		default:
			row.Class, row.Reason = Unexplained, "neither the poller nor a webhook told of this change"
		}
		c.out = append(c.out, row)
	}
}

// classifyLosses has what is no observation for a reason that is known, and what
// says nothing.
func (c *comparison) classifyLosses() {
	for i := range c.polls {
		if p := &c.polls[i]; Failure(c.text(p.failure)).Blind() {
			c.out = append(c.out, Row{Kind: PollFailed, Class: PollerBlind, At: c.time(p.at + c.ahead), Ticket: c.text(p.ticket), Reason: c.text(p.failure)})
		}
	}
	for _, g := range c.gaps {
		row := Row{Kind: TimeLost, Class: ReceiverDown, At: g.From}
		row.Reason = fmt.Sprintf("%s, until %s: %s", g.Side, c.clock(momentOf(g.To)), clip(g.Why))
		switch g.Side {
		case SideClock:
			continue // in the figures
		case SidePoller:
			row.Class = PollerBlind
		}
		c.out = append(c.out, row)
	}
	for _, why := range c.broken {
		c.out = append(c.out, Row{Kind: LineBroken, Class: Unexplained, Reason: why})
	}
}
