package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/webhook"
)

// journal records what the demo's two pipelines learned and prints it as it
// happens. It is safe for concurrent use: the receiver, the poller and the work
// write to it at the same time.
type journal struct {
	t     terminal
	start time.Time

	mu       sync.Mutex
	numbers  map[string]string // ticket id -> number
	changes  map[moment]*change
	events   map[string]bool // event ids that were processed
	requests int             // the poller's
	repeats  int             // duplicates that the receiver saw and ignored
	live     bool            // print events as they arrive
	refusals chan struct{}
}

// moment identifies a change: a ticket's updated_at moves with each of them.
type moment struct {
	ticket string
	at     int64 // milliseconds
}

// change is one change and when either pipeline learned of it.
type change struct {
	made, hooked, polled time.Time
	types                []string
	what                 string
	printed              bool
}

func newJournal(t terminal) *journal {
	return &journal{
		t: t, start: time.Now(), numbers: map[string]string{}, changes: map[moment]*change{},
		events: map[string]bool{}, refusals: make(chan struct{}, 16),
	}
}

func (j *journal) know(ticketID, number string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.numbers[ticketID] = number
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
	c.types = append(c.types, strings.TrimPrefix(e.EventType, "ticket."))
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
	fmt.Fprintf(j.t.out, "%5.1fs  %-9s  %-28s webhook after %s\n", c.made.Sub(j.start).Seconds(), j.numbers[m.ticket], c.what, short(c.hooked.Sub(c.made)))
}

func (j *journal) polled(now time.Time, ticket string, updatedAt time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	c := j.at(moment{ticket, updatedAt.UnixMilli()})
	c.polled = now
	if !c.made.IsZero() {
		fmt.Fprintf(j.t.out, "%5.1fs  %-9s  %-28s poller  after %s\n", now.Sub(j.start).Seconds(), j.numbers[ticket], c.what, short(now.Sub(c.made)))
	}
}

// requested notes how many requests the poller made.
func (j *journal) requested(n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.requests = n
}

func (j *journal) observed(r webhook.Receipt) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case r.Outcome == webhook.Duplicate:
		j.repeats++
	case r.Outcome == webhook.Processed && r.Attempt > 1:
		fmt.Fprintf(j.t.out, "%5.1fs  (%s arrived with attempt %d)\n", time.Since(j.start).Seconds(), r.Event.EventType, r.Attempt)
	}
}

// refused notes that the receiver turned a request away because it is down.
func (j *journal) refused() {
	select {
	case j.refusals <- struct{}{}:
	default:
	}
}

func (j *journal) awaitRefusal(ctx context.Context) error {
	select {
	case <-j.refusals:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
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

// summary prints what either pipeline caught.
func (j *journal) summary(total, missing int) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	var made, hooked, polled int
	var hookLag, pollLag []time.Duration
	for _, c := range j.changes {
		if c.made.IsZero() {
			continue
		}
		made++
		if !c.hooked.IsZero() {
			hooked++
			hookLag = append(hookLag, c.hooked.Sub(c.made))
		}
		if !c.polled.IsZero() {
			polled++
			pollLag = append(pollLag, c.polled.Sub(c.made))
		}
	}
	w := tabwriter.NewWriter(j.t.out, 0, 0, 3, ' ', 0)
	fmt.Fprintf(w, "\n\tpoller\twebhook\n")
	fmt.Fprintf(w, "changes seen\t%d of %d\t%d of %d\n", polled, made, hooked, made)
	fmt.Fprintf(w, "delay, median\t%s\t%s\n", short(median(pollLag)), short(median(hookLag)))
	fmt.Fprintf(w, "delay, worst\t%s\t%s\n", short(worst(pollLag)), short(worst(hookLag)))
	fmt.Fprintf(w, "requests\t%d\t%d\n", j.requests, len(j.events)+j.repeats)
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(j.t.out, "\nEvents in the feed: %d. Received and verified: %d. Missing: %d. Duplicates ignored: %d.\n", total, total-missing, missing, j.repeats)
	if polled < made {
		fmt.Fprintln(j.t.out, "The poller sees a ticket's last state only: what changed twice between two polls, it saw once.")
	}
	return nil
}

func median(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[len(d)/2]
}

func worst(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	return slices.Max(d)
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
