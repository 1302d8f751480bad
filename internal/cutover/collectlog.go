package cutover

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/ticketwire/ticketwire/client"
)

// logOverlap is how far the log of deliveries is read again: a row is there when
// its attempt is over, in order of when that began.
const logOverlap = 2 * time.Minute

// deliveries reads the log of deliveries, newest first, down to where the last
// reading began or to the oldest row that was pending then, whichever is earlier,
// and notes the rows that are not as they were.
func (c *Collector) deliveries(ctx context.Context) (*Reading, error) {
	from := c.cfg.Since
	if back := c.place.Read[TopicDeliveries].Add(-logOverlap); back.After(from) {
		from = back
	}
	for _, d := range c.seen {
		if at := orderOf(&d); d.Status == statusPending && at.Before(from) {
			from = at
		}
	}
	var began time.Time
	for n, more := 1, true; more; n++ {
		var page *client.DeliveryPage
		poll, err := c.ask(ctx, func(ctx context.Context) (err error) {
			page, err = c.caller.api.DeliveriesPage(ctx, c.cfg.WebhookID, client.DeliveryFilter{From: from}, n, listPage)
			return err
		})
		if err != nil {
			return nil, err
		}
		if began.IsZero() {
			began, _ = poll.serverTime()
		}
		more = page.HasNext
		var entries []Entry
		for i := range page.Data {
			d := deliveryOf(&page.Data[i])
			if at := orderOf(&d); !at.IsZero() && at.Before(from) {
				more = false // AlgaPSA takes no notice of the filter
				continue
			}
			if was, known := c.seen[d.DeliveryID]; known && was == d {
				continue
			}
			c.seen[d.DeliveryID] = d
			d.At = poll.Done
			entries = append(entries, Entry{Delivery: &d})
		}
		if len(entries) > 0 {
			if err := c.record.Append(entries...); err != nil {
				return nil, err
			}
		}
		c.status.Deliveries += len(entries)
	}
	for id, d := range c.seen {
		if d.Status != statusPending && orderOf(&d).Before(began.Add(-2*logOverlap)) {
			delete(c.seen, id) // not read again
		}
	}
	return c.reading(TopicDeliveries, began), nil
}

// statusPending is the status of an attempt that is owed; AlgaPSA has no such rows.
const statusPending = "pending"

// orderOf is the time by which the log is ordered.
func orderOf(d *Delivery) time.Time {
	if d.AttemptedAt.IsZero() {
		return d.NextRetryAt
	}
	return d.AttemptedAt
}

// deliveryOf is a row of the log without the time of its reading.
func deliveryOf(d *client.Delivery) Delivery {
	out := Delivery{
		WebhookID: d.WebhookID, DeliveryID: d.DeliveryID, EventID: d.EventID, EventType: d.EventType,
		Attempt: d.AttemptNumber, Status: d.Status, Test: d.IsTest, Manual: d.IsManual, Ticket: aboutTicket(d),
	}
	if d.ResponseStatusCode != nil {
		out.HTTP = *d.ResponseStatusCode
	}
	if d.ErrorMessage != nil {
		out.Error = *d.ErrorMessage
	}
	for to, from := range map[*time.Time]*time.Time{
		&out.AttemptedAt: d.AttemptedAt, &out.CompletedAt: d.CompletedAt, &out.NextRetryAt: d.NextRetryAt,
	} {
		if from != nil {
			*to = from.UTC()
		}
	}
	return out
}

// aboutTicket is the ticket that a row is about, by its body where the server does
// not say; "" for none.
func aboutTicket(d *client.Delivery) string {
	if d.TicketID != nil {
		return *d.TicketID
	}
	var body struct {
		Data struct {
			TicketID string `json:"ticket_id"`
		} `json:"data"`
	}
	if json.Unmarshal(d.RequestBody, &body) != nil {
		return "" // the log does not show it
	}
	return body.Data.TicketID
}

// ClosingSweep reads the state of every ticket that changed since cfg.Since into
// the record, where the server has no feed, and returns how many that were. It may
// run beside a Collector. It asks until there is an answer.
func ClosingSweep(ctx context.Context, cfg CollectorConfig) (n int, err error) {
	a, err := newAsker(cfg.URL, cfg.Key, cfg.HTTP, cfg.Budget, cfg.Now)
	if err != nil {
		return 0, err
	}
	if feed, err := a.hasFeed(ctx); feed || err != nil {
		return 0, err
	}
	record, err := OpenRecord(cfg.Dir)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, record.Close()) }()
	_, err = a.changed(ctx, cfg.Since, func(t *client.Ticket, _ time.Time) error {
		truth, err := sweptTruth(t, cfg.Now())
		if err != nil {
			return err
		}
		n++
		return record.Append(Entry{Truth: truth})
	})
	return n, err
}

// sweptTruth is a ticket as a sweep shows it.
func sweptTruth(t *client.Ticket, at time.Time) (*Truth, error) {
	o, err := observe(t)
	if err != nil {
		return nil, err
	}
	return &Truth{At: at, Source: TruthOfSweep, Ticket: o.Ticket, UpdatedAt: o.UpdatedAt, Hash: o.Hash, Fields: o.Fields}, nil
}

// sweep walks through the tickets that changed since from, by the list, and notes
// the state of each. It returns how many that were, and the server's clock when the
// walk began.
func (c *Collector) sweep(ctx context.Context, from time.Time) (n int, began time.Time, err error) {
	w := walk{from: from, page: 1}
	noted := map[string]time.Time{}
	for !w.done {
		var page *client.TicketPage
		poll, err := c.ask(ctx, func(ctx context.Context) (err error) {
			page, err = c.caller.api.TicketsPage(ctx, w.filter(), w.page, listPage)
			return err
		})
		if err != nil {
			return len(noted), began, err
		}
		if began.IsZero() {
			began, _ = poll.serverTime()
		}
		last, err := lastUpdate(page.Data, !w.one)
		if err != nil {
			return len(noted), began, noAnswer{err, *poll}
		}
		var entries []Entry
		for i := range page.Data {
			truth, err := sweptTruth(&page.Data[i], poll.Done)
			if err != nil {
				return len(noted), began, noAnswer{err, *poll}
			}
			if at, was := noted[truth.Ticket]; was && !truth.UpdatedAt.After(at) {
				continue
			}
			noted[truth.Ticket] = truth.UpdatedAt
			entries = append(entries, Entry{Truth: truth})
		}
		if len(entries) > 0 {
			if err := c.record.Append(entries...); err != nil {
				return len(noted), began, err
			}
		}
		w = w.next(last, len(entries) > 0, page.HasNext)
	}
	return len(noted), began, nil
}
