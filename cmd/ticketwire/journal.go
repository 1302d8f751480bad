package main

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/webhook"
)

// journal prints what the demo's two pipelines learn as it happens. It is safe for
// concurrent use: the receiver, the poller and the work write to it at the same
// time.
type journal struct {
	t     terminal
	start time.Time

	mu      sync.Mutex
	numbers map[string]string // ticket id -> number
	changes map[moment]*change
	events  map[string]bool // event ids that were processed
	live    bool            // print events as they arrive
}

// moment identifies a change: a ticket's updated_at moves with each of them.
type moment struct {
	ticket string
	at     int64 // milliseconds
}

// change is one change and when either pipeline learned of it.
type change struct {
	made, hooked time.Time
	what         string
	printed      bool
	overtaken    bool // a poll showed it, or one behind it
}

func newJournal(t terminal) *journal {
	return &journal{t: t, start: time.Now(), numbers: map[string]string{}, changes: map[moment]*change{}, events: map[string]bool{}}
}

// at returns the record of a change; the webhook often arrives before the call
// that made the change has returned. The caller holds mu.
func (j *journal) at(m moment) *change {
	c := j.changes[m]
	if c == nil {
		c = &change{}
		j.changes[m] = c
	}
	return c
}

func (j *journal) changed(at time.Time, t *client.Ticket, what string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.numbers[t.TicketID] = *t.TicketNumber
	m := moment{t.TicketID, t.UpdatedAt.UnixMilli()}
	c := j.at(m)
	c.made, c.what = at, what
	j.print(m, c)
}

// received is the reaction of the receiver.
func (j *journal) received(now time.Time, e *webhook.Envelope) error {
	d, err := e.Ticket()
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events[e.EventID] = true
	if j.live {
		fmt.Fprintf(j.t.out, "%s  %-9s  %s\n", now.Format("15:04:05.000"), j.numbers[d.TicketID], e.EventType)
	}
	if d.UpdatedAt == nil {
		return nil
	}
	m := moment{d.TicketID, d.UpdatedAt.UnixMilli()}
	c := j.at(m)
	if c.hooked.IsZero() {
		c.hooked = now
	}
	j.print(m, c)
	return nil
}

// print shows a change once both the change and its first event are known. The
// caller holds mu.
func (j *journal) print(m moment, c *change) {
	if c.printed || c.made.IsZero() || c.hooked.IsZero() {
		return
	}
	c.printed = true
	j.line(c.hooked, m.ticket, c.what, "webhook after "+short(c.hooked.Sub(c.made)))
}

// polled is the reaction of the poller. What changed before and was not seen, it
// never sees.
func (j *journal) polled(now time.Time, ticket string, updatedAt time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var shown []moment
	for m, c := range j.changes {
		if m.ticket == ticket && m.at <= updatedAt.UnixMilli() && !c.overtaken && !c.made.IsZero() {
			shown = append(shown, m)
		}
	}
	slices.SortFunc(shown, func(a, b moment) int { return cmp.Compare(a.at, b.at) })
	for _, m := range shown {
		c := j.changes[m]
		c.overtaken = true
		if m.at == updatedAt.UnixMilli() {
			j.line(now, ticket, c.what, "poller  after "+short(now.Sub(c.made)))
		} else {
			j.line(now, ticket, c.what, "poller  never: it changed again between two polls")
		}
	}
}

func (j *journal) line(at time.Time, ticket, what, learned string) {
	fmt.Fprintf(j.t.out, "%5.1fs  %-9s  %-28s %s\n", at.Sub(j.start).Seconds(), j.numbers[ticket], what, learned)
}

func (j *journal) has(eventID string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.events[eventID]
}

// announce prints every event from now on.
func (j *journal) announce() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.live = true
}

func (j *journal) note(text string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	fmt.Fprintf(j.t.out, "%5.1fs  (%s)\n", time.Since(j.start).Seconds(), text)
}

// short rounds a duration to what a reader takes in.
func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d >= 10*time.Millisecond:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	default:
		return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
	}
}
