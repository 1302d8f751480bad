package cutover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/fault"
)

const (
	// feedPage is how many events are read at once.
	feedPage = 200
	// maxSweeps bounds how often the list is compared with what was delivered.
	maxSweeps = 20
	// movingSweeps is how many sweeps in a row must find nothing but what has just
	// changed, before that is taken for the usual traffic.
	movingSweeps = 3
	// askGone bounds how many tickets are asked for by their ids.
	askGone = 100
	// liveLook is the pause between two looks at the webhook, or at a replay.
	liveLook = 5 * time.Second
	// replayStalls is how long a replay may bring nothing new before it is taken
	// for ended.
	replayStalls = 10 * time.Minute
)

// Run does what the plan says and returns what came of it, also with an error.
// Broken off at any moment, by a kill too, it goes on with the next Look and Run:
// nothing is skipped, and at most one event is sent again, under the same id.
func (b *Backfill) Run(ctx context.Context, p *Plan) (*BackfillReport, error) {
	r := &b.report
	r.Source, r.From, r.Until, r.Notes = p.Source, p.From, p.Until, append(r.Notes, p.Notes...)
	err := b.run(ctx, p)
	r.Requests = b.ask.requests
	return r, err
}

func (b *Backfill) run(ctx context.Context, p *Plan) error {
	if !p.Resumed {
		if err := b.ledger.save(ledgerLine{Job: b.jobOf(p)}); err != nil {
			return err
		}
	}
	j := b.ledger.job
	b.goesLive()
	var end time.Time
	var err error
	if j.Source == FromReplay {
		end, err = b.replay(ctx, j)
	} else {
		end, err = b.deliverAll(ctx, j)
	}
	if err == nil {
		err = b.vanished(ctx)
	}
	if err != nil {
		return err
	}
	switched, err := b.enable(ctx)
	if err != nil {
		return err
	}
	if switched {
		// What happened between the last sweep and the switch went to nobody.
		if end, err = b.deliverAll(ctx, j); err != nil {
			return err
		}
	}
	if b.report.Differ > 0 {
		return fault.New(fault.Unavailable, "%d tickets differ from what the receiver has", b.report.Differ)
	}
	if !j.Until.IsZero() && j.Until.Before(end) {
		end = j.Until
	}
	if err := b.ledger.finish(end); err != nil {
		return err
	}
	return b.awaitLive(ctx)
}

// goesLive notes from when on the webhook brings changes by itself.
func (b *Backfill) goesLive() {
	if b.hook == nil {
		return
	}
	if b.report.Webhook == "" {
		b.report.Webhook = "disabled"
	}
	if b.hook.IsActive {
		b.liveFrom = b.clock().Add(time.Second) // a Date has no fractions
		if b.report.Webhook == "disabled" {
			b.report.Webhook = "active"
		}
	}
}

// deliverAll delivers what was missed, then compares the list of tickets with
// what was delivered until they agree. It returns the server's clock when the
// last comparison began.
func (b *Backfill) deliverAll(ctx context.Context, j *job) (time.Time, error) {
	at := b.ledger.place
	if err := b.learn(ctx, j); err != nil {
		return time.Time{}, err
	}
	var err error
	if j.Source == FromFeed {
		err = b.readFeed(ctx, j, &at)
	} else {
		from := j.From
		if at.Updated.After(from) {
			from = at.Updated
		}
		_, err = b.sweep(ctx, j, from, &at)
	}
	from, before := j.From, b.clock()
	for n := 1; err == nil; n++ {
		var s swept
		if err = b.learn(ctx, j); err != nil {
			break
		}
		if s, err = b.sweep(ctx, j, from, &at); err != nil {
			break
		}
		b.report.Sweeps++
		b.report.Moving = s.moving
		b.show("sweep %d: %d tickets differ", b.report.Sweeps, s.differ)
		switch {
		case s.differ == 0:
		case n >= movingSweeps && s.oldest.After(before):
			b.report.Moving += s.differ
		case n < maxSweeps:
			from, before = s.began.Add(-overlap), s.began
			continue
		}
		b.report.Differ = 0
		if n == maxSweeps {
			b.report.Differ = s.differ
		}
		return s.began, nil
	}
	return time.Time{}, err
}

// learn reads what the receiver has accepted by now from others: from its record,
// or from the sender's log, where the source has no event ids to tell them by.
func (b *Backfill) learn(ctx context.Context, j *job) error {
	if err := b.record.read(b.acks); err != nil || !b.record.last.IsZero() || b.hook == nil || j.Source == FromFeed {
		return err
	}
	since, now := j.From, b.clock()
	if b.logRead.After(since) {
		since = b.logRead
	}
	err := b.ask.delivered(ctx, b.cfg.WebhookID, since, b.acks)
	if _, answered := errors.AsType[*client.Error](err); answered && !b.feed {
		if b.logRead.IsZero() {
			b.report.Notes = append(b.report.Notes, "The server does not show its log of deliveries: what live traffic has delivered is delivered again, under other ids.")
		}
		err = nil
	}
	b.logRead = now.Add(-overlap)
	return err
}

// readFeed sends the events behind at, up to the present end of the feed.
func (b *Backfill) readFeed(ctx context.Context, j *job, at *place) error {
	for {
		f := client.EventFilter{Limit: feedPage}
		if at.Cursor == "" {
			f.Since = j.From
		}
		var page *client.EventPage
		if err := b.ask.ask(ctx, func(ctx context.Context) (err error) {
			page, err = b.ask.api.Events(ctx, at.Cursor, f)
			return err
		}); err != nil {
			return fmt.Errorf("read the event feed: %w", err)
		}
		for i := range page.Data {
			if err := b.forward(ctx, j, &page.Data[i]); err != nil {
				return err
			}
		}
		moved := at.Cursor != page.NextCursor
		at.Cursor = page.NextCursor
		if moved && !b.counting {
			if err := b.ledger.save(ledgerLine{Place: at}); err != nil {
				return err
			}
		}
		if !page.HasMore {
			return nil
		}
		if !moved {
			return errors.New("read the event feed: the server has more but its cursor does not move")
		}
	}
}

// forward sends one event of the feed, unless the receiver has it or the webhook
// would not get it.
func (b *Backfill) forward(ctx context.Context, j *job, e *client.Event) error {
	if !j.Until.IsZero() && e.OccurredAt.After(j.Until) {
		return nil
	}
	l, err := letterOf(e)
	if err != nil {
		return err
	}
	switch {
	case !b.want.event(l.key.EventType, l.ticket, e.Data):
		b.report.Filtered++
		b.pass(l.ticket, l.updatedAt)
		return nil
	case b.acks.accepted(l.key) || b.ledger.acks.accepted(l.key):
		b.report.Known++
		return nil
	}
	if l.body, err = b.want.cut(e.Raw); err != nil {
		return err
	}
	return b.deliver(ctx, l)
}

// deliver sends a letter and notes that it was accepted, or counts it.
func (b *Backfill) deliver(ctx context.Context, l *letter) error {
	if b.counting {
		b.acks.add(l.key, l.ticket, l.updatedAt)
	} else {
		if err := l.post(ctx, b.cfg.Send, b.cfg.Retries, b.cfg.Show); err != nil {
			return err
		}
		if err := b.ledger.save(ledgerLine{Accepted: &accepted{l.key.EventID, l.key.EventType, l.ticket, l.updatedAt}}); err != nil {
			return err
		}
	}
	b.report.Sent[l.key.EventType]++
	if l.synthetic {
		b.report.Synthetic++
	}
	b.show("%s of ticket %s, %d sent", l.key.EventType, l.ticket, b.ledger.sent)
	return nil
}

func (b *Backfill) pass(ticket string, at time.Time) {
	if at.After(b.passed[ticket]) {
		b.passed[ticket] = at
	}
}

// covers reports whether the receiver has the ticket as it was at t, or does not
// want to.
func (b *Backfill) covers(ticket string, t time.Time) bool {
	passed, has := b.passed[ticket]
	return has && !passed.Before(t) || b.acks.covers(ticket, t) || b.ledger.acks.covers(ticket, t)
}

// swept is what a sweep found.
type swept struct {
	differ  int             // tickets that the receiver did not have as they are
	tickets map[string]bool // of a replay: which
	oldest  time.Time       // change among them
	moving  int             // tickets that changed while live traffic flows
	began   time.Time       // by the server's clock
}

// sweep compares every ticket that changed from then on with what the receiver
// has, and delivers what differs. What the feed explains is sent from there, and
// the rest as synthetic events. at is saved as the walk comes on; nil while
// counting.
func (b *Backfill) sweep(ctx context.Context, j *job, from time.Time, at *place) (swept, error) {
	s := swept{tickets: map[string]bool{}}
	var differ []*client.Ticket
	moving := map[string]bool{}
	began, err := b.ask.changed(ctx, from, func(t *client.Ticket, changed time.Time) error {
		id := strings.ToLower(t.TicketID)
		b.shown[id] = true
		switch {
		case !j.Until.IsZero() && changed.After(j.Until), b.covers(id, changed):
			return nil
		case !b.liveFrom.IsZero() && changed.After(b.liveFrom):
			moving[id] = true
			return nil
		}
		s.differ++
		if j.Source == FromReplay {
			s.tickets[id] = true
		}
		if s.oldest.IsZero() {
			s.oldest = changed
		}
		if j.Source == FromFeed && !b.counting {
			differ = append(differ, t) // an event of its own may explain it
			return nil
		}
		if err := b.repair(ctx, j, t); err != nil || at == nil || j.Source != FromList || s.differ%feedPage != 0 || !changed.After(at.Updated) {
			return err
		}
		at.Updated = changed
		return b.ledger.save(ledgerLine{Place: at})
	})
	s.moving, s.began = len(moving), began
	if err != nil || len(differ) == 0 {
		return s, err
	}
	if err := b.readFeed(ctx, j, at); err != nil {
		return s, err
	}
	for _, t := range differ {
		if err := b.repair(ctx, j, t); err != nil {
			return s, err
		}
	}
	return s, nil
}

// repair sends synthetic events for a ticket that the receiver does not have as
// it is. A replay has no receiver of its own to send to.
func (b *Backfill) repair(ctx context.Context, j *job, t *client.Ticket) error {
	changed, err := changedAt(t)
	id := strings.ToLower(t.TicketID)
	if err != nil || j.Source == FromReplay || b.covers(id, changed) {
		return err
	}
	had := b.acks.newest[id]
	if sent := b.ledger.acks.newest[id]; sent.After(had) {
		had = sent
	}
	letters, err := synthesize(t, changed, had, j.From, b.want)
	if err != nil {
		return err
	}
	if len(letters) == 0 {
		b.report.Filtered++
		b.pass(id, changed)
	}
	for _, l := range letters {
		if b.acks.accepted(l.key) || b.ledger.acks.accepted(l.key) {
			b.report.Known++
			b.acks.add(l.key, id, l.updatedAt)
			continue
		}
		if err := b.deliver(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

// vanished asks for the tickets that the receiver or the poller know and that the
// list did not show: a deleted one has no event, and no place in the list.
func (b *Backfill) vanished(ctx context.Context) error {
	ids, err := b.known()
	if err != nil {
		return err
	}
	if len(ids) > askGone {
		b.report.Notes = append(b.report.Notes, fmt.Sprintf("%d known tickets did not change and were not asked for. Whether any was deleted, poll --all --once finds out.", len(ids)))
		return nil
	}
	for _, id := range ids {
		err := b.ask.ask(ctx, func(ctx context.Context) error {
			_, err := b.ask.api.Ticket(ctx, id)
			return err
		})
		if err != nil && classify(err, true) != NotFound {
			return err
		}
		if err != nil && !slices.Contains(b.report.Deleted, id) {
			b.report.Deleted = append(b.report.Deleted, id)
		}
	}
	return nil
}

// countReplay asks the server how many events a replay would queue.
func (b *Backfill) countReplay(ctx context.Context, j *job) (map[string]int, error) {
	var n *client.ReplayCount
	err := b.ask.ask(ctx, func(ctx context.Context) (err error) {
		n, err = b.ask.api.CountReplay(ctx, b.cfg.WebhookID, client.ReplayInput{Since: j.From, Until: j.Until})
		return err
	})
	if err != nil {
		return nil, err
	}
	return map[string]int{"abandoned": n.Abandoned, "missed": n.Missed}, nil
}

// replay lets the server send again what failed, waits for it, and compares with
// the server's log until all is delivered or nothing more comes.
func (b *Backfill) replay(ctx context.Context, j *job) (time.Time, error) {
	if _, err := b.enable(ctx); err != nil {
		return time.Time{}, err
	}
	if !b.hook.IsActive {
		return time.Time{}, fault.New(fault.Conflict, "the webhook is disabled, and the server replays to active ones: enable it")
	}
	if err := b.replayJob(ctx, j); err != nil {
		return time.Time{}, err
	}
	best, since := -1, b.cfg.Now()
	for {
		if err := b.learn(ctx, j); err != nil {
			return time.Time{}, err
		}
		s, err := b.sweep(ctx, j, j.From, nil)
		if err != nil {
			return time.Time{}, err
		}
		planned, err := b.planned(ctx, s.tickets)
		if err != nil {
			return time.Time{}, err
		}
		b.report.Sweeps++
		b.report.Differ, b.report.Moving = s.differ-planned, s.moving+planned
		b.show("%d tickets differ", s.differ)
		if best < 0 || s.differ < best {
			best, since = s.differ, b.cfg.Now()
		}
		if b.report.Differ == 0 || b.cfg.Now().Sub(since) >= replayStalls {
			if planned > 0 {
				b.report.Notes = append(b.report.Notes, fmt.Sprintf("%d tickets wait for a retry that the server has planned: those are not replayed.", planned))
			}
			return s.began, nil
		}
		if err := sleep(ctx, liveLook); err != nil {
			return time.Time{}, err
		}
	}
}

// planned counts the tickets of which the sender has an attempt to come that is
// not due soon.
func (b *Backfill) planned(ctx context.Context, tickets map[string]bool) (int, error) {
	if len(tickets) == 0 {
		return 0, nil
	}
	waits, soon := map[string]bool{}, b.clock().Add(time.Minute)
	err := b.ask.log(ctx, b.cfg.WebhookID, client.DeliveryFilter{Status: "pending"}, time.Time{}, func(d *client.Delivery, e *client.Event) bool {
		if l, err := letterOf(e); err == nil && tickets[l.ticket] && d.NextRetryAt != nil && d.NextRetryAt.After(soon) {
			waits[l.ticket] = true
		}
		return true
	})
	return len(waits), err
}

// replayJob starts the server's job, or goes on with the one that it started, and
// waits for its end.
func (b *Backfill) replayJob(ctx context.Context, j *job) error {
	id := b.ledger.place.Replay
	for {
		var r *client.Replay
		err := b.ask.ask(ctx, func(ctx context.Context) (err error) {
			if id != "" {
				r, err = b.ask.api.Replay(ctx, b.cfg.WebhookID, id)
				return err
			}
			r, err = b.ask.api.StartReplay(ctx, b.cfg.WebhookID, client.ReplayInput{Since: j.From, Until: j.Until})
			return err
		})
		if err != nil {
			return fmt.Errorf("replay: %w", err)
		}
		if id == "" {
			id = r.ReplayID
			if err := b.ledger.save(ledgerLine{Place: &place{Replay: id}}); err != nil {
				return err
			}
		}
		b.report.Replayed = r.Queued
		b.show("replay %s: %d queued", r.Status, r.Queued)
		switch r.Status {
		case "done":
			return nil
		case "cancelled":
			return fault.New(fault.Conflict, "the server cancelled the replay %s", id)
		}
		if err := sleep(ctx, liveLook); err != nil {
			return err
		}
	}
}

// enable switches a disabled webhook on, if that was asked for, and reports
// whether it did.
func (b *Backfill) enable(ctx context.Context) (bool, error) {
	if b.hook == nil || b.hook.IsActive || !b.cfg.Enable {
		return false, nil
	}
	err := b.ask.ask(ctx, func(ctx context.Context) (err error) {
		b.hook, err = b.ask.api.UpdateWebhook(ctx, b.cfg.WebhookID, client.WebhookInput{IsActive: client.Set(true)})
		return err
	})
	if err != nil {
		return false, fmt.Errorf("enable the webhook: %w", err)
	}
	b.hook.IsActive = true // whatever the answer to an update shows
	b.report.Webhook, b.enabled = "enabled", b.clock()
	b.goesLive()
	return true, nil
}

// awaitLive waits until the webhook that this run enabled has delivered something
// by itself.
func (b *Backfill) awaitLive(ctx context.Context) error {
	if b.enabled.IsZero() || b.cfg.Wait <= 0 {
		return nil
	}
	until := b.cfg.Now().Add(b.cfg.Wait)
	for {
		var h *client.Webhook
		if err := b.ask.ask(ctx, func(ctx context.Context) (err error) {
			h, err = b.ask.api.Webhook(ctx, b.cfg.WebhookID)
			return err
		}); err != nil {
			return err
		}
		if h.LastSuccessAt != nil && !h.LastSuccessAt.Before(b.enabled) {
			b.report.Live = true
			return nil
		}
		if !b.cfg.Now().Before(until) {
			return fault.New(fault.Unavailable, "nothing is missing, and the webhook is enabled, but no live event has arrived within %s", b.cfg.Wait)
		}
		b.show("waits for the first live event")
		if err := sleep(ctx, liveLook); err != nil {
			return err
		}
	}
}
