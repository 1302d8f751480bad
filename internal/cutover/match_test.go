package cutover

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

// toldOf is an event for a matcher: when it occurred, and updated_at of its payload.
type toldOf struct {
	occurred, updated time.Time
	typ               string // empty for updated
}

// matchedTo has the events of a ticket matched to what polls at those times showed, in
// the order of the times. feed says whether the server has one.
func matchedTo(t *testing.T, polls, shown []time.Time, feed bool, events ...toldOf) *matcher {
	t.Helper()
	d := newDigest("", time.Time{})
	for i, at := range polls {
		o := Observation{Ticket: "a", UpdatedAt: shown[i], Verdict: Changed, Hash: fmt.Sprint(shown[i])}
		switch {
		case i == 0:
			o.Verdict = First
		case shown[i].Equal(shown[i-1]):
			o.Verdict = Same
		}
		d.add(Entry{Poll: &Poll{At: at, Done: at.Add(40 * time.Millisecond), Round: at, Ticket: "a", HTTP: 200, Seen: []Observation{o}}})
	}
	for i, e := range events {
		if e.typ == "" {
			e.typ = webhook.TicketUpdated
		}
		d.add(Entry{Receipt: &Receipt{
			At: e.occurred, Done: e.occurred, HTTP: 200, Outcome: string(webhook.Kept), Signed: true, EventID: fmt.Sprintf("e%04d", i), EventType: e.typ,
			DeliveryID: fmt.Sprint(i), Attempt: 1, OccurredAt: e.occurred, Ticket: "a", UpdatedAt: e.updated, Hash: "h", BodyHash: "b",
		}})
	}
	if feed {
		d.add(Entry{Reading: &Reading{At: polls[0], Topic: TopicFeed, From: polls[0], To: polls[len(polls)-1]}})
	}
	d.order()
	return match(newSides(d, Question{}))
}

// TestWhichChangeAnEventTellsOf goes to the bounds of the rules: up to when an event
// can be about a change, and when it is about another one, or about none that the
// poller saw.
func TestWhichChangeAnEventTellsOf(t *testing.T) {
	t.Parallel()
	at := func(text string) time.Time {
		t.Helper()
		out, err := time.Parse("15:04:05.999999", text)
		if err != nil {
			t.Fatal(err)
		}
		return out.AddDate(2026, 4, 4)
	}
	const fresh, early, next = 2 * time.Second, anyway, time.Microsecond
	polls := []time.Time{
		at("09:00:00"), at("09:01:00"), at("09:31:00"), at("09:32:00"), at("09:33:00"), at("09:41:00"), at("09:42:00"), at("09:50:10.5"), at("09:50:12"), at("09:51:00"),
	}
	c := []time.Time{at("08:00:00"), at("09:30:10"), at("09:31:59.9"), at("09:40:10"), at("09:50:10"), at("09:50:11")}
	shown := []time.Time{c[0], c[0], c[1], c[2], c[2], c[3], c[3], c[4], c[5], c[5]}
	overwritten := c[4].Add(500 * time.Millisecond) // updated_at that no poll showed
	second := c[4].Add(1500 * time.Millisecond)
	for _, tt := range []struct {
		name   string
		events []toldOf // the last one is judged
		feed   bool
		stance stance
		change int
	}{
		{"its own", []toldOf{{c[1].Add(20 * time.Millisecond), c[1], ""}}, false, told, 1},
		{"of before the poller", []toldOf{{polls[0].Add(fresh), c[0], ""}}, false, earlier, 0},
		{"and later", []toldOf{{polls[0].Add(fresh + next), c[0], ""}}, false, unmoved, 0},

		{"a stale payload, surely before the poll", []toldOf{{polls[2].Add(-early), c[0], ""}}, false, told, 1},
		{"and perhaps after it", []toldOf{{polls[2].Add(-early + next), c[0], ""}}, false, unmoved, 1},
		{"a stale payload, soon after the change", []toldOf{{c[2].Add(fresh), c[0], ""}}, false, told, 2},
		{"and not so soon", []toldOf{{c[2].Add(fresh + next), c[0], ""}}, false, unmoved, 2},
		{"after the poll, and the next one shows another change", []toldOf{{polls[2].Add(30 * time.Second), c[1], ""}}, false, between, 2},

		{"a payload that is ahead", []toldOf{{polls[2].Add(-early), c[3], ""}}, false, told, 1},
		{"and its change was seen before", []toldOf{{polls[2].Add(-early + next), c[3], ""}}, false, told, 3},

		{"its own, and another change in the same moment", []toldOf{{c[4].Add(fresh), c[4], ""}}, false, told, 4},
		{"the payload of the change before", []toldOf{{c[4].Add(fresh + next), c[4], ""}}, false, told, 5},
		{"overwritten", []toldOf{{overwritten.Add(fresh), overwritten, ""}}, false, between, 5},
		{"the payload of what was overwritten", []toldOf{{overwritten.Add(fresh + next), overwritten, ""}}, false, told, 5},

		// Of two events with one updated_at the later one may be a second change's.
		{"two of a type", []toldOf{{c[4], c[4], ""}, {second, c[4], ""}}, false, told, 5},
		{"two that a change can have", []toldOf{{c[4], c[4], ""}, {second, c[4], webhook.TicketClosed}}, false, told, 4},
		{"an update after the creation", []toldOf{{c[4], c[4], webhook.TicketCreated}, {second, c[4], ""}}, false, told, 5},
		{"an update after a comment", []toldOf{{c[4], c[4], webhook.TicketCommentAdded}, {second, c[4], ""}}, false, told, 5},
		{"a comment after an update", []toldOf{{c[4], c[4], ""}, {second, c[4], webhook.TicketCommentAdded}}, false, told, 5},
		{"two at once", []toldOf{{second, c[4], ""}, {second, c[4], ""}}, false, told, 4},
		{"the first of three", []toldOf{{c[4], c[4], ""}, {c[4].Add(time.Second), c[4], webhook.TicketClosed}, {second, c[4], ""}}, false, told, 5},
		{"a server with a feed has no such payloads", []toldOf{{c[4], c[4], ""}, {second, c[4], ""}}, true, told, 4},
		{"two of what was overwritten", []toldOf{{overwritten, overwritten, ""}, {second, overwritten, ""}}, false, told, 5},
	} {
		m := matchedTo(t, polls, shown, tt.feed, tt.events...)
		if len(m.changes) != len(c) {
			t.Fatalf("%s: %d changes", tt.name, len(m.changes))
		}
		m.fresh, m.early = span(fresh), span(early)
		last := int32(slices.IndexFunc(m.events, func(e event) bool { return m.text(e.id) == fmt.Sprintf("e%04d", len(tt.events)-1) }))
		if s, change := m.find(last); s != tt.stance || change != int32(tt.change) {
			t.Errorf("%s: stance %d to change %d, want %d to %d", tt.name, s, change, tt.stance, tt.change)
		}
	}
}

// How much earlier and later than updated_at events occur is learned from those that
// are of a change for certain, within bounds.
func TestDelaysAreMeasured(t *testing.T) {
	t.Parallel()
	s := func(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
	for _, tt := range []struct {
		name         string
		delays       []time.Duration // one for each change
		early, fresh time.Duration
	}{
		{"none", nil, anyway, s(2)},
		{"at once", []time.Duration{0, 0, 0}, anyway, s(1)},
		{"seconds", []time.Duration{s(1), s(3), s(4)}, anyway, s(8)},
		{"half a minute", []time.Duration{s(20), s(20), s(20)}, anyway, s(30)},
		{"a clock that is behind", []time.Duration{s(-2), s(-2), s(-2)}, anyway + s(2), s(1)},
		{"one that is wrong", []time.Duration{s(-600), s(-600), s(-600)}, anyway + s(300), s(1)},
		{"a few are of other changes", append(slices.Repeat([]time.Duration{s(-3)}, 1), slices.Repeat([]time.Duration{s(-1)}, 39)...), anyway + s(1), s(1)},
	} {
		polls, shown := []time.Time{day}, []time.Time{day.Add(-time.Hour)}
		var events []toldOf
		for i, d := range tt.delays {
			updated := day.Add(time.Duration(i+1) * time.Hour)
			polls, shown = append(polls, updated.Add(time.Minute)), append(shown, updated)
			events = append(events, toldOf{updated.Add(d), updated, ""})
		}
		m := matchedTo(t, polls, shown, false, events...)
		if m.early != span(tt.early) || m.fresh != span(tt.fresh) {
			t.Errorf("%s: %d µs earlier and %d later, want %d and %d", tt.name, m.early, m.fresh, span(tt.early), span(tt.fresh))
		}
	}
}
