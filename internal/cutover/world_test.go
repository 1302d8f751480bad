package cutover

import (
	"cmp"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/ticketwire/ticketwire/webhook"
)

// A world is a server with tickets that change, a poller, a webhook and a
// receiver, as they behave and as they go wrong. It writes the record that the
// real programs write, and it knows what became of everything.

// worldChange is one change of a ticket.
type worldChange struct {
	ticket string
	at     time.Time
	n      int    // which change of its ticket
	state  string // its title; empty for one of its own
	events []*worldEvent
	seen   time.Time // when the answer of the poll was there that showed it; zero for never
}

// worldEvent is one event of a change, and what became of it.
type worldEvent struct {
	change    *worldChange
	id, typ   string
	occurred  time.Time
	stale     bool // the payload is that of the change before
	fate      Class
	taken     time.Time // when it was taken; zero for never
	attempt   int
	unwritten bool // the receiver took it, and its record does not say so
}

type world struct {
	start, end time.Time
	interval   time.Duration
	watched    []string
	entries    []Entry
	changes    []*worldChange
	pollerOff  []stretch // no poll at all, with a gap
	pollerBad  []stretch // every answer is a failure
	down       []stretch // the receiver
	disabled   []stretch // the webhook
	hasLog     bool
	hasFeed    bool
	serial     int
}

var schedule = []time.Duration{time.Minute, 5 * time.Minute, 30 * time.Minute}

const (
	worldGivesUp = 36 * time.Minute
	worldReads   = 20 * time.Second // until the collector has read an event
)

func during(all []stretch, t time.Time) bool { return within(all, momentOf(t)) }

// drawWorld makes a world and lets it run.
func drawWorld(t *rapid.T) *world {
	w := &world{start: day.Truncate(time.Second), interval: time.Minute, hasLog: true, hasFeed: true}
	w.end = w.start.Add(time.Duration(rapid.IntRange(60, 180).Draw(t, "minutes")) * time.Minute)
	all := []string{"t0", "t1", "t2", "t3"}
	w.watched = all[:rapid.IntRange(1, 3).Draw(t, "watched")]
	w.pollerOff = w.drawStretches(t, "poller off", 1, 10)
	w.pollerBad = w.drawStretches(t, "poller bad", 2, 10)
	w.down = w.drawStretches(t, "receiver down", 2, 5)
	w.disabled = w.drawStretches(t, "webhook disabled", 1, 20)
	w.begin()
	for _, ticket := range all {
		w.drawChanges(t, ticket)
	}
	w.poll(rapid.IntRange(0, 3000).Draw(t, "jitter"))
	for _, c := range w.changes {
		for _, e := range c.events {
			w.send(t, e)
		}
	}
	w.finish()
	return w
}

// begin writes what the programs write when they start.
func (w *world) begin() {
	w.entries = append(w.entries,
		Entry{Watch: &Watch{At: w.start, Server: "https://desk.example", Interval: w.interval.Seconds(), Tickets: w.watched}},
		Entry{Receiver: &Receiver{At: w.start, SecretFrom: "file", Silence: 3600}},
		Entry{Reconciler: &Reconciler{At: w.start, Every: 900}},
		Entry{Subscription: w.subscription(w.start, true)})
}

// finish writes the gaps, and what comes at the end.
func (w *world) finish() {
	for _, o := range w.pollerOff {
		w.gap(o, SidePoller)
	}
	for _, o := range w.down {
		w.gap(o, SideReceiver)
	}
	for _, o := range w.disabled {
		w.gap(o, SideWebhook)
	}
	w.read(TopicFeed, w.start, w.end)
	w.read(TopicDeliveries, w.start, w.end)
	w.read(TopicWebhook, w.start, w.end)
}

// read writes that a collector has read everything of that time.
func (w *world) read(topic Topic, from, to time.Time) {
	w.entries = append(w.entries, Entry{Reading: &Reading{At: to, Topic: topic, From: from, To: to}})
}

// without takes a topic out of the record.
func (w *world) without(topic Topic) {
	w.entries = slices.DeleteFunc(w.entries, func(e Entry) bool {
		return topic == TopicFeed && e.Truth != nil || topic == TopicDeliveries && e.Delivery != nil || e.Reading != nil && e.Reading.Topic == topic
	})
}

func (w *world) subscription(at time.Time, active bool) *Subscription {
	return &Subscription{At: at, WebhookID: "w", Active: active, EventTypes: []string{webhook.TicketUpdated, webhook.TicketClosed}, GivesUpAfter: worldGivesUp.Seconds()}
}

func (w *world) gap(o stretch, side Side) {
	w.entries = append(w.entries, Entry{Gap: &Gap{From: time.UnixMicro(o.from).UTC(), To: time.UnixMicro(o.to).UTC(), Side: side, Why: "x"}})
}

func (w *world) drawStretches(t *rapid.T, name string, most, minutes int) []stretch {
	var out []stretch
	whole := int(w.end.Sub(w.start).Seconds())
	for range rapid.IntRange(0, most).Draw(t, name) {
		from := w.start.Add(time.Duration(rapid.IntRange(120, whole-60).Draw(t, name+" from")) * time.Second)
		to := from.Add(time.Duration(rapid.IntRange(1, minutes*60).Draw(t, name+" for")) * time.Second)
		out = append(out, stretch{momentOf(from), momentOf(to)})
	}
	return union(out)
}

// drawChanges makes the changes of a ticket and their events.
func (w *world) drawChanges(t *rapid.T, ticket string) {
	at := w.start.Add(-time.Hour)
	w.changes = append(w.changes, &worldChange{ticket: ticket, at: at})
	at = w.start
	for n := 1; n <= 25; n++ {
		at = at.Add(time.Duration(rapid.IntRange(2000, 900_000).Draw(t, "pause")) * time.Millisecond)
		if !at.Before(w.end.Add(-time.Second)) {
			return
		}
		c := &worldChange{ticket: ticket, at: at, n: n}
		types := []string{webhook.TicketUpdated, webhook.TicketClosed}[:rapid.IntRange(1, 2).Draw(t, "events")]
		occurred := at
		for _, typ := range types {
			occurred = occurred.Add(time.Duration(rapid.IntRange(1, 150).Draw(t, "publish")) * time.Millisecond)
			w.serial++
			c.events = append(c.events, &worldEvent{change: c, id: fmt.Sprintf("e%04d", w.serial), typ: typ, occurred: occurred})
		}
		before := w.changes[len(w.changes)-1]
		if rapid.IntRange(0, 9).Draw(t, "stale") == 0 && c.at.Sub(before.at) > 40*time.Second && n > 1 {
			c.events[0].stale = true
		}
		w.changes = append(w.changes, c)
	}
}

// of returns the last change of a ticket that was committed by t.
func (w *world) of(ticket string, t time.Time) *worldChange {
	var last *worldChange
	for _, c := range w.changes {
		if c.ticket == ticket && !c.at.After(t) {
			last = c
		}
	}
	return last
}

// data is what a ticket, or a webhook's data, says after its n-th change.
func (c *worldChange) data() json.RawMessage {
	title := cmp.Or(c.state, fmt.Sprintf("state %d", c.n))
	return json.RawMessage(fmt.Sprintf(`{"ticket_id":%q,"updated_at":%q,"title":%q,"is_closed":false}`, c.ticket, webhook.At(c.at), title))
}

// poll runs the poller.
func (w *world) poll(jitter int) {
	last := map[string]*worldChange{}
	for round := w.start; round.Before(w.end); round = round.Add(w.interval) {
		for i, ticket := range w.watched {
			at := round.Add(time.Duration(jitter+i*50) * time.Millisecond)
			if during(w.pollerOff, at) {
				continue
			}
			p := &Poll{At: at, Done: at.Add(40 * time.Millisecond), Round: round, Ticket: ticket, HTTP: 200, Date: at.Truncate(time.Second)}
			w.entries = append(w.entries, Entry{Poll: p})
			if during(w.pollerBad, at) {
				p.HTTP, p.Failure, p.Error = 503, ServerError, "busy"
				continue
			}
			c := w.of(ticket, at)
			fields, hash, _ := stateOf(c.data())
			o := Observation{Ticket: ticket, UpdatedAt: micros(webhook.At(c.at).Time), Hash: hash, Verdict: Same}
			switch {
			case last[ticket] == nil:
				o.Verdict, o.Fields = First, fields
			case c != last[ticket]:
				o.Verdict, o.Fields = Changed, fields
				c.seen = p.Done
			}
			last[ticket] = c
			p.Seen = []Observation{o}
		}
	}
}

// send lets the sender and the receiver deal with an event.
func (w *world) send(t *rapid.T, e *worldEvent) {
	shown := e.change
	if e.stale {
		shown = w.changes[slices.Index(w.changes, e.change)-1]
	}
	body := fmt.Sprintf(`{"event_id":%q,"event_type":%q,"occurred_at":%q,"tenant_id":"x","data":%s}`, e.id, e.typ, webhook.At(e.occurred), shown.data())
	fields, hash, _ := stateOf(shown.data())
	if w.hasFeed {
		read := e.occurred.Add(worldReads)
		if read.After(w.end) {
			read = w.end
		}
		w.entries = append(w.entries, Entry{Truth: &Truth{
			At: read, Source: TruthOfFeed, EventID: e.id, EventType: e.typ, OccurredAt: micros(webhook.At(e.occurred).Time),
			Ticket: e.change.ticket, UpdatedAt: micros(webhook.At(shown.at).Time), Hash: hash, Fields: fields,
		}})
	}
	what := rapid.SampledFrom([]string{"", "", "", "", "", "", "", "lost", "abandoned", "rejected", "fails", "repeated", "retried", "slow", "unwritten"}).Draw(t, "delivery")
	switch {
	case during(w.disabled, e.occurred):
		e.fate = Disabled
		return
	case what == "lost":
		e.fate = NeverSent
		return
	}
	at := e.occurred.Add(time.Duration(rapid.IntRange(5, 400).Draw(t, "way")) * time.Millisecond)
	if what == "slow" {
		at = at.Add(time.Duration(rapid.IntRange(1, 200).Draw(t, "late")) * time.Second)
		// A server with a feed has a row for what it owes.
		if seen := e.occurred.Add(15 * time.Second); w.hasFeed && seen.Before(at) && seen.Before(w.end) {
			w.log(&Delivery{At: seen, WebhookID: "w", DeliveryID: e.id + "-1", EventID: e.id, EventType: e.typ, Attempt: 1, Status: "pending", NextRetryAt: at})
		}
	}
	receipt := func(at time.Time, attempt, status int, outcome webhook.Outcome, delivery string) {
		r := &Receipt{
			At: at, Done: at.Add(time.Millisecond), HTTP: status, Outcome: string(outcome), EventID: e.id, EventType: e.typ,
			DeliveryID: delivery, Attempt: attempt, BodyHash: "b" + e.id,
		}
		if status != 401 {
			r.Signed, r.OccurredAt, r.UpdatedAt = true, micros(webhook.At(e.occurred).Time), micros(webhook.At(shown.at).Time)
			r.Ticket, r.Hash, r.Body = e.change.ticket, hash, body
		}
		if at.Before(w.end) {
			w.entries = append(w.entries, Entry{Receipt: r})
		}
	}
	for attempt := 1; ; attempt++ {
		delivery := e.id + "-" + strconv.Itoa(attempt)
		row := &Delivery{At: at.Add(15 * time.Second), WebhookID: "w", DeliveryID: delivery, EventID: e.id, EventType: e.typ, Attempt: attempt, AttemptedAt: at, CompletedAt: at.Add(2 * time.Millisecond)}
		if !at.Before(w.end.Add(-30 * time.Second)) {
			// It is owed, and the record ends.
			e.fate = Pending
			if during(w.disabled, w.end) {
				e.fate = Disabled
			}
			w.log(&Delivery{At: w.end, WebhookID: "w", DeliveryID: delivery, EventID: e.id, EventType: e.typ, Attempt: attempt, Status: "pending", NextRetryAt: at})
			return
		}
		if during(w.disabled, at) && attempt > 1 {
			e.fate = Disabled // the rest is dropped
			return
		}
		ok := false
		switch {
		case during(w.down, at):
			row.Error = "connection refused"
		case what == "abandoned", what == "fails" && attempt == 1:
			row.HTTP = 500
			receipt(at, attempt, 500, webhook.ReactionFailed, delivery)
		case what == "rejected":
			row.HTTP = 401
			receipt(at, attempt, 401, webhook.BadSignature, delivery)
		default:
			row.HTTP, ok = 200, true
		}
		if ok {
			row.Status = "delivered"
			w.log(row)
			e.taken, e.attempt, e.unwritten = at, attempt, what == "unwritten"
			if !e.unwritten {
				receipt(at, attempt, 200, webhook.Kept, delivery)
			}
			again := at.Add(30 * time.Second)
			switch what {
			case "repeated":
				receipt(again, attempt, 200, webhook.Duplicate, delivery)
			case "retried":
				receipt(again, attempt+1, 200, webhook.Duplicate, e.id+"-again")
			}
			return
		}
		if attempt > len(schedule) {
			row.Status = "abandoned"
			w.log(row)
			e.fate = Abandoned
			if row.HTTP == 401 || what == "rejected" {
				e.fate = Rejected
			}
			return
		}
		row.Status, row.NextRetryAt = "retrying", at.Add(schedule[attempt-1])
		w.log(row)
		at = at.Add(schedule[attempt-1])
	}
}

func (w *world) log(d *Delivery) {
	if w.hasLog {
		w.entries = append(w.entries, Entry{Delivery: d})
	}
}

func sequence(entries []Entry) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for _, e := range entries {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (w *world) setup() *Setup {
	return &Setup{Server: "https://desk.example", WebhookID: "w", Tickets: w.watched, Interval: w.interval.Seconds(), Started: w.start}
}

// story tells what happened to a ticket, for a failure.
func (w *world) story(ticket string) string {
	var b strings.Builder
	for _, c := range w.changes {
		if c.ticket != ticket {
			continue
		}
		fmt.Fprintf(&b, "\n%d at %s, seen %s:", c.n, c.at.Format("15:04:05.000"), c.seen.Format("15:04:05.000"))
		for _, e := range c.events {
			fmt.Fprintf(&b, " [%s %s stale %t fate %s taken %s attempt %d unwritten %t]", e.id, e.occurred.Format("15:04:05.000"), e.stale, e.fate, e.taken.Format("15:04:05.000"), e.attempt, e.unwritten)
		}
	}
	return b.String()
}
