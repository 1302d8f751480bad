package cutover

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ticketwire/ticketwire/webhook"
)

// expectChange is what the world knows of a change that the poller saw.
func (w *world) expectChange(c *worldChange, from, settled time.Time) Class {
	if c.at.Before(from) || c.at.After(settled) {
		return Unsettled
	}
	var first *worldEvent
	for _, e := range c.events {
		if !e.taken.IsZero() && !e.unwritten && (first == nil || e.taken.Before(first.taken)) {
			first = e
		}
	}
	switch {
	case first == nil:
	case !first.taken.After(c.seen):
		return WebhookFirst
	case first.attempt > 1:
		return PollerFirstR
	default:
		return PollerFirstS
	}
	for _, class := range []Class{Pending, Rejected, Abandoned, NeverSent, Unexplained, Disabled} {
		for _, e := range c.events {
			if e.unwritten && class == Unexplained || e.taken.IsZero() && e.fate == class {
				return class
			}
		}
	}
	return Unexplained
}

// expectEvent is what the world knows of an event that was sent.
func (w *world) expectEvent(e *worldEvent, from, settled time.Time) []Class {
	c := e.change
	watched := slices.Contains(w.watched, c.ticket)
	began := e.occurred
	if !c.seen.IsZero() {
		began = c.at
	}
	switch {
	case began.Before(from) || began.After(settled):
		return []Class{Unsettled}
	case e.unwritten:
		return []Class{Unexplained}
	case e.taken.IsZero():
		return []Class{e.fate}
	case !watched:
		return []Class{NotWatched}
	case !c.seen.IsZero() && e.stale:
		return []Class{StalePayload}
	case !c.seen.IsZero():
		return []Class{WebhookFirst, PollerFirstR, PollerFirstS, SameChange}
	}
	for _, later := range w.changes {
		if later.ticket == c.ticket && later.n > c.n && !later.seen.IsZero() {
			return []Class{Overwritten}
		}
	}
	return []Class{PollerMissed} // it did not look any more
}

// Whatever happens in a world, every observation has one class, and the one that
// the world knows to be right: what is lost is missed and nothing else is.
func TestCompareFindsWhatHappened(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		r, err := Compare(sequence(w.entries), Question{Setup: w.setup(), At: w.end})
		if err != nil {
			t.Fatal(err)
		}
		from, settled := w.start.Add(time.Minute), w.end.Add(-2*time.Minute)
		if !r.Window.From.Equal(from) || !r.Window.Settled.Equal(settled) {
			t.Fatalf("window %v to %v, want %v to %v", r.Window.From, r.Window.Settled, from, settled)
		}
		changes, events, copies := map[string]Row{}, map[string]Row{}, 0
		for _, row := range r.Rows {
			switch key := fmt.Sprint(row.Ticket, row.UpdatedAt); row.Kind {
			case ChangeSeen:
				if _, twice := changes[key]; twice {
					t.Fatalf("twice: %v", row)
				}
				changes[key] = row
			case EventKnown:
				if _, twice := events[row.EventID]; twice {
					t.Fatalf("twice: %v", row)
				}
				events[row.EventID] = row
			case CopyGot:
				copies++
			}
		}
		seen, sent := 0, 0
		for _, c := range w.changes {
			if !c.seen.IsZero() {
				seen++
				got := changes[fmt.Sprint(c.ticket, micros(webhook.At(c.at).Time))]
				if want := w.expectChange(c, from, settled); got.Class != want {
					t.Fatalf("change %d of %s at %v is %v, want %s%s", c.n, c.ticket, c.at, got, want, w.story(c.ticket))
				}
			}
			for _, e := range c.events {
				sent++
				if want := w.expectEvent(e, from, settled); !slices.Contains(want, events[e.id].Class) {
					t.Fatalf("event %s of change %d of %s is %v, want %s%s", e.id, c.n, c.ticket, events[e.id], want, w.story(c.ticket))
				}
			}
		}
		if len(changes) != seen || len(events) != sent {
			t.Errorf("%d changes and %d events, want %d and %d", len(changes), len(events), seen, sent)
		}
		received := 0
		for _, e := range w.entries {
			if e.Receipt != nil {
				received++
			}
		}
		if copies != received {
			t.Errorf("%d receipts, want %d", copies, received)
		}
		for _, row := range r.Rows {
			if row.Class.Info().Title == "unexplained" && row.Class != Unexplained || row.Class == "" {
				t.Errorf("no class: %v", row)
			}
		}
	})
}

// Without the log and the feed less can be told, but what is lost is never
// explained away: it is late, or refused, or unexplained.
func TestCompareWithoutLogAndFeed(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		keepLog := rapid.Bool().Draw(t, "log")
		w.without(TopicFeed)
		if !keepLog {
			w.without(TopicDeliveries)
		}
		r, err := Compare(sequence(w.entries), Question{Setup: w.setup(), At: w.end})
		if err != nil {
			t.Fatal(err)
		}
		from, settled := w.start.Add(time.Minute), w.end.Add(-2*time.Minute)
		rows := map[string]Row{}
		for _, row := range r.Rows {
			if row.Kind == ChangeSeen {
				rows[fmt.Sprint(row.Ticket, row.UpdatedAt)] = row
			}
		}
		for _, c := range w.changes {
			if c.seen.IsZero() {
				continue
			}
			got := rows[fmt.Sprint(c.ticket, micros(webhook.At(c.at).Time))]
			switch want := w.expectChange(c, from, settled); want.Info().Weight {
			case Lost, Doubt:
				partly := slices.ContainsFunc(c.events, func(e *worldEvent) bool { return e.fate == got.Class }) // what the record knows of
				if !partly && !slices.Contains([]Class{Pending, Rejected, Abandoned, NeverSent, Unexplained, ReceiverDown}, got.Class) {
					t.Fatalf("change %d of %s at %v is %v, and the world knows %s%s", c.n, c.ticket, c.at, got, want, w.story(c.ticket))
				}
				if got.Class == Pending && c.at.Add(worldGivesUp).Before(w.end) && !keepLog {
					t.Fatalf("%v: the sender cannot still try", got)
				}
			case Good:
				if got.Class != want {
					t.Fatalf("change %d of %s at %v is %v, want %s%s", c.n, c.ticket, c.at, got, want, w.story(c.ticket))
				}
			}
		}
	})
}

// When the collector stops, nothing that needs it is said of what is later: what
// was lost then is neither explained nor called lost by the sender.
func TestCompareWhenTheCollectorStops(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		stop := w.start.Add(time.Duration(rapid.IntRange(0, int(w.end.Sub(w.start).Seconds())).Draw(t, "stop")) * time.Second)
		w.entries = slices.DeleteFunc(w.entries, func(e Entry) bool {
			return e.Truth != nil && e.Truth.At.After(stop) || e.Delivery != nil && e.Delivery.At.After(stop) || e.Reading != nil ||
				e.Gap != nil && e.Gap.Side == SideWebhook && e.Gap.From.After(stop)
		})
		for _, e := range w.entries {
			if e.Gap != nil && e.Gap.Side == SideWebhook && e.Gap.To.After(stop) {
				e.Gap.To = stop // the collector notes these too, as far as it knows them
			}
		}
		if read := stop.Add(-worldReads); read.After(w.start) { // what happened later was not read by stop
			for _, topic := range []Topic{TopicFeed, TopicDeliveries, TopicWebhook} {
				w.read(topic, w.start, read)
			}
		}
		r, err := Compare(sequence(w.entries), Question{Setup: w.setup(), At: w.end})
		if err != nil {
			t.Fatal(err)
		}
		rows := map[string]Row{}
		for _, row := range r.Rows {
			if row.Kind == ChangeSeen {
				rows[fmt.Sprint(row.Ticket, row.UpdatedAt)] = row
			}
			late := row.At.After(stop)
			if row.Kind == ChangeSeen {
				late = row.UpdatedAt.After(stop)
			}
			if late && (row.Class == NeverSent || row.Class == NoType || row.Class == NotSubscribed) {
				t.Fatalf("the collector stopped at %s: %v", stop, row)
			}
		}
		for _, c := range w.changes {
			if c.seen.IsZero() {
				continue
			}
			got := rows[fmt.Sprint(c.ticket, micros(webhook.At(c.at).Time))]
			want := w.expectChange(c, w.start.Add(time.Minute), w.end.Add(-2*time.Minute))
			switch want.Info().Weight {
			case Good:
				if got.Class != want {
					t.Fatalf("change %d of %s is %v, want %s%s", c.n, c.ticket, got, want, w.story(c.ticket))
				}
			case Lost, Doubt:
				partly := slices.ContainsFunc(c.events, func(e *worldEvent) bool { return e.fate == got.Class })
				if !partly && !slices.Contains([]Class{Pending, Rejected, Abandoned, NeverSent, Unexplained, ReceiverDown}, got.Class) {
					t.Fatalf("change %d of %s is %v, and the world knows %s%s", c.n, c.ticket, got, want, w.story(c.ticket))
				}
			}
		}
	})
}

// render is a report in all its forms.
func render(t interface{ Fatal(...any) }, r *Report) []byte {
	var b bytes.Buffer
	for _, write := range []func() error{
		func() error { return r.WriteText(&b) }, func() error { return r.WriteMarkdown(&b) }, func() error { return r.WriteJSON(&b) },
		func() error { return r.WriteCSV(&b) }, func() error { return r.WriteHTML(&b) },
	} {
		if err := write(); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// The records of two machines may be joined either way, and in between.
func TestCompareTakesAnyOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		q := Question{Setup: w.setup()}
		r, err := Compare(sequence(w.entries), q)
		if err != nil {
			t.Fatal(err)
		}
		other := rapid.Permutation(w.entries).Draw(t, "order")
		if rapid.Bool().Draw(t, "twice") { // joined with itself
			other = append(other, w.entries...)
		}
		again, err := Compare(sequence(other), q)
		if err != nil {
			t.Fatal(err)
		}
		again.Record.Entries = r.Record.Entries
		if a, b := render(t, r), render(t, again); !bytes.Equal(a, b) {
			t.Fatalf("the order of the lines shows:\n%s", firstDifference(a, b))
		}
	})
}

func firstDifference(a, b []byte) string {
	x, y := bytes.Split(a, []byte("\n")), bytes.Split(b, []byte("\n"))
	for i := range min(len(x), len(y)) {
		if !bytes.Equal(x[i], y[i]) {
			return fmt.Sprintf("%s\n%s", x[i], y[i])
		}
	}
	return "one is longer"
}
