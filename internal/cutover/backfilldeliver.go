package cutover

import (
	"context"
	"crypto/sha1" //nolint:gosec // what makes a UUID of version 5; nothing is protected by it
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/webhook"
)

// Reply is what a receiver answered to one request.
type Reply struct {
	OK         bool
	Status     int           // 0 for no answer
	Text       string        // status and the beginning of the body, or why there is none
	RetryAfter time.Duration // 0 where it does not say
}

// Send signs body and posts it to the receiver. attempt counts from 1.
type Send func(ctx context.Context, body []byte, attempt int) Reply

// letter is an event on its way to the receiver: one of the feed, or a synthetic
// one.
type letter struct {
	key       webhook.Key
	ticket    string
	updatedAt time.Time // of data; occurred_at where data has none
	synthetic bool
	body      []byte
}

// post sends a letter until the receiver accepts it. What a receiver refuses with
// a 4xx it would refuse again, so that is the end at once.
func (l *letter) post(ctx context.Context, send Send, retries []time.Duration, show func(string)) error {
	for attempt := 1; ; attempt++ {
		a := send(ctx, l.body, attempt)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		what := fmt.Sprintf("the receiver did not accept %s %s: %s", l.key.EventType, l.key.EventID, a.Text)
		switch {
		case a.OK:
			return nil
		case a.Status >= 400 && a.Status <= 499 && a.Status != 408 && a.Status != 425 && a.Status != 429:
			return errors.New(what + " (it would refuse it again; a 401 is mostly another secret). Nothing behind this event was sent")
		case attempt > len(retries):
			return fault.New(fault.BadGateway, "%s, %d times. Nothing behind this event was sent; the same command goes on from here", what, attempt)
		}
		wait := max(retries[attempt-1], min(a.RetryAfter, maxPause))
		if show != nil {
			show(what + ", again in " + wait.String())
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// acks is what the receiver has accepted, whoever sent it.
type acks struct {
	newest map[string]time.Time // ticket -> the latest updated_at
	events map[webhook.Key]time.Time
}

func newAcks() *acks { return &acks{map[string]time.Time{}, map[webhook.Key]time.Time{}} }

func (a *acks) add(k webhook.Key, ticket string, updatedAt time.Time) {
	if k.EventID != "" {
		a.events[k] = updatedAt
	}
	if updatedAt.After(a.newest[ticket]) {
		a.newest[ticket] = updatedAt
	}
}

func (a *acks) accepted(k webhook.Key) bool {
	_, has := a.events[k]
	return has
}

// covers reports whether the receiver has the ticket as it was at t, or later.
func (a *acks) covers(ticket string, t time.Time) bool {
	newest, has := a.newest[ticket]
	return has && !newest.Before(t)
}

// receipts reads the record of a cutover for what the receiver accepted. A later
// read goes on from the end of the one before.
type receipts struct {
	file    *os.File // nil: there is no record
	reader  *Reader
	whole   bool      // a synthetic event stands for the whole state of its ticket
	last    time.Time // the latest receipt of a real event; zero without one
	longest Gap       // the longest time between two of them
}

func openReceipts(dir string) (*receipts, error) {
	f, err := os.Open(filepath.Join(dir, RecordName))
	if errors.Is(err, fs.ErrNotExist) {
		return &receipts{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the record: %w", err)
	}
	return &receipts{file: f, reader: NewReader(f)}, nil
}

func (r *receipts) close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}

// read adds what is new in the record.
func (r *receipts) read(to *acks) error {
	if r.reader == nil {
		return nil
	}
	for e, err := range r.reader.Entries() {
		if err != nil {
			return err
		}
		p := e.Receipt
		if p == nil || p.HTTP < 200 || p.HTTP > 299 || !p.Signed || p.Ticket == "" {
			continue
		}
		at := p.UpdatedAt
		if at.IsZero() {
			at = p.OccurredAt
		}
		if p.Synthetic && !r.whole {
			at = time.Time{} // another one of the same state may be owed still
		}
		to.add(webhook.Key{EventID: p.EventID, EventType: p.EventType}, strings.ToLower(p.Ticket), at)
		if p.Synthetic {
			continue // the sender did not send it
		}
		if !r.last.IsZero() && p.At.Sub(r.last) > r.longest.To.Sub(r.longest.From) {
			r.longest = Gap{From: r.last, To: p.At, Side: SideReceiver}
		}
		r.last = p.At
	}
	return nil
}

// delivered reads the sender's log for what the receiver accepted since then. The
// log is newest first, and AlgaPSA ignores its filters.
func (a *asker) delivered(ctx context.Context, webhookID string, since time.Time, to *acks) error {
	return a.log(ctx, webhookID, client.DeliveryFilter{Status: "delivered", From: since}, since, func(d *client.Delivery, e *client.Event) bool {
		if l, err := letterOf(e); d.Status == "delivered" && err == nil && l.ticket != "" {
			to.add(l.key, l.ticket, l.updatedAt)
		}
		return true
	})
}

// log walks through the sender's log of real deliveries, newest first, to since
// or until visit wants no more.
func (a *asker) log(ctx context.Context, webhookID string, f client.DeliveryFilter, since time.Time, visit func(*client.Delivery, *client.Event) bool) error {
	for n := 1; ; n++ {
		var page *client.DeliveryPage
		if err := a.ask(ctx, func(ctx context.Context) (err error) {
			page, err = a.api.DeliveriesPage(ctx, webhookID, f, n, listPage)
			return err
		}); err != nil {
			return err
		}
		for i := range page.Data {
			d := &page.Data[i]
			if d.AttemptedAt != nil && d.AttemptedAt.Before(since) {
				return nil
			}
			var e client.Event
			if d.IsTest || json.Unmarshal(d.RequestBody, &e) != nil {
				continue
			}
			if !visit(d, &e) {
				return nil
			}
		}
		if len(page.Data) == 0 || !page.HasNext {
			return nil
		}
	}
}

// letterOf reads what an envelope is about.
func letterOf(e *client.Event) (*letter, error) {
	l := &letter{key: webhook.Key{EventID: strings.ToLower(e.EventID), EventType: e.EventType}, updatedAt: micros(e.OccurredAt), body: e.Raw}
	var d struct {
		TicketID  string       `json:"ticket_id"`
		UpdatedAt webhook.Time `json:"updated_at"`
	}
	if len(e.Data) > 0 {
		if err := json.Unmarshal(e.Data, &d); err != nil {
			return nil, fmt.Errorf("event %s: %w", e.EventID, err)
		}
	}
	l.ticket = strings.ToLower(d.TicketID)
	if !d.UpdatedAt.IsZero() {
		l.updatedAt = micros(d.UpdatedAt.Time)
	}
	return l, nil
}

// wanted is what a webhook asks for. The nil one is everything.
type wanted struct {
	types  []string
	filter *delivery.Filter
	fields delivery.PayloadFields
}

// wantedBy reads the subscription of a webhook. AlgaPSA looks at the ids of its
// filter and at nothing else in it, which can have any form (contract section 4.6).
func wantedBy(h *client.Webhook, ours bool) (*wanted, error) {
	w := &wanted{types: h.EventTypes}
	var ids *struct {
		EntityIDs []string `json:"entity_ids"`
	}
	var filter any = &ids
	if ours {
		filter = &w.filter
	}
	if len(h.EventFilter) > 0 {
		if err := json.Unmarshal(h.EventFilter, filter); err != nil {
			return nil, fmt.Errorf("event_filter of the webhook: %w", err)
		}
	}
	if ids != nil {
		w.filter = &delivery.Filter{EntityIDs: ids.EntityIDs}
	}
	if len(h.PayloadFields) > 0 {
		if err := json.Unmarshal(h.PayloadFields, &w.fields); err != nil {
			return nil, fmt.Errorf("payload_fields of the webhook: %w", err)
		}
	}
	if w.filter != nil {
		for i, id := range w.filter.EntityIDs {
			w.filter.EntityIDs[i] = strings.ToLower(id)
		}
	}
	return w, nil
}

func (w *wanted) kind(eventType string) bool { return w == nil || slices.Contains(w.types, eventType) }

// event reports whether the webhook would get this event.
func (w *wanted) event(eventType, ticket string, data json.RawMessage) bool {
	if !w.kind(eventType) {
		return false
	}
	if w == nil || w.filter == nil {
		return true
	}
	var d *webhook.TicketData
	if json.Unmarshal(data, &d) != nil {
		d = nil // fails every condition, as at the server
	}
	return w.filter.Match(ticket, d)
}

// cut leaves of an event's body what the webhook's payload_fields leave of it.
func (w *wanted) cut(body []byte) ([]byte, error) {
	if w == nil || w.fields["ticket"] == nil {
		return body, nil
	}
	return delivery.FromFull(body, delivery.Shape{Fields: w.fields})
}

// keeps reports whether a field of a ticket is in the webhook's payloads.
func (w *wanted) keeps(field string) bool {
	return w == nil || w.fields["ticket"] == nil || field == "ticket_id" || slices.Contains(w.fields["ticket"], field)
}

// syntheticSpace is the namespace of the ids of synthetic events.
const syntheticSpace = "\x5d\x0c\x5f\x62\x8a\x3e\x4f\x0e\x9b\x8d\x21\x77\xc4\x19\xe6\x03"

// syntheticID is a UUID of version 5: the same state of a ticket always makes the
// same id, so that a repeat is a duplicate.
func syntheticID(ticket string, updatedAt time.Time, kind string) string {
	h := sha1.New() //nolint:gosec // see the import
	io.WriteString(h, syntheticSpace+ticket+"|"+updatedAt.UTC().Format(time.RFC3339Nano)+"|"+kind)
	b := h.Sum(nil)[:16]
	b[6], b[8] = b[6]&0x0f|0x50, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// dataFields are the keys of data that a polled ticket has, in the order of
// contract section 4.4. url is not among them: the ticket's is another one. The
// suppression flags are those of a change, and nobody knows the change.
func dataFields() []string {
	return []string{
		"ticket_id", "ticket_number", "title", "status_id", "status_name", "priority_id", "priority_name",
		"client_id", "client_name", "contact_name_id", "contact_name", "contact_email",
		"assigned_to", "assigned_to_name", "assigned_team_id", "board_id", "board_name", "category_id", "subcategory_id",
		"is_closed", "entered_at", "updated_at", "closed_at", "due_date", "tags",
	}
}

// synthesize makes the events that lead a receiver to the state of a ticket whose
// own events are not to be had: created if the ticket is younger than from,
// closed if it was closed since, and updated if it is neither. had is the state
// that the receiver has, zero for none. A webhook that wants none of them gets
// none.
func synthesize(t *client.Ticket, at, had, from time.Time, w *wanted) ([]*letter, error) {
	closed := t.IsClosed != nil && *t.IsClosed || t.IsClosed == nil && t.StatusIsClosed != nil && *t.StatusIsClosed
	isNew := had.IsZero() && t.EnteredAt != nil && !t.EnteredAt.Before(from)
	var kinds []string
	if isNew {
		kinds = append(kinds, webhook.TicketCreated)
	}
	if closed && t.ClosedAt != nil && t.ClosedAt.After(had) && !t.ClosedAt.Before(from) {
		kinds = append(kinds, webhook.TicketClosed)
	}
	kinds = slices.DeleteFunc(kinds, func(k string) bool { return !w.kind(k) })
	if len(kinds) == 0 && !(isNew && t.EnteredAt.Equal(at)) {
		kinds = append(kinds, webhook.TicketUpdated)
	}
	data, err := syntheticData(t, at, closed, w)
	if err != nil {
		return nil, err
	}
	id := strings.ToLower(t.TicketID)
	var out []*letter
	for _, kind := range kinds {
		if !w.event(kind, id, data) {
			continue
		}
		l := &letter{key: webhook.Key{EventID: syntheticID(id, at, kind), EventType: kind}, ticket: id, updatedAt: at, synthetic: true}
		if l.body, err = encode(struct {
			EventID    string          `json:"event_id"`
			EventType  string          `json:"event_type"`
			OccurredAt webhook.Time    `json:"occurred_at"`
			TenantID   string          `json:"tenant_id"`
			Synthetic  bool            `json:"synthetic"`
			Data       json.RawMessage `json:"data"`
		}{l.key.EventID, kind, webhook.At(at), t.Tenant, true, data}); err != nil {
			return nil, err
		}
		if n := len(out); n > 0 {
			out[n-1].updatedAt = time.Time{} // only the last one says that all were accepted
		}
		out = append(out, l)
	}
	return out, nil
}

// syntheticData is a ticket in the shape of a webhook's data. What the answer of
// the API does not have is left out.
func syntheticData(t *client.Ticket, at time.Time, closed bool, w *wanted) (json.RawMessage, error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(t.Raw, &all); err != nil {
		return nil, fmt.Errorf("ticket %s: %w", t.TicketID, err)
	}
	out := []byte{'{'}
	for _, name := range dataFields() {
		v, has := all[name]
		var err error
		switch name {
		case "is_closed":
			v, has = json.RawMessage(fmt.Sprint(closed)), true
		case "updated_at":
			if v, err = json.Marshal(webhook.At(at)); err != nil {
				return nil, err
			}
		case "tags":
			if has {
				tags := slices.Sorted(slices.Values(t.Tags))
				if v, err = encode(append([]string{}, tags...)); err != nil {
					return nil, err
				}
			}
		}
		if !has || !w.keeps(name) {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(append(append(append(out, '"'), name...), '"', ':'), v...)
	}
	return append(out, '}'), nil
}

// encode writes JSON in which text is as it is, as the service writes it.
func encode(v any) ([]byte, error) {
	b, err := encodeLines([]any{v})
	if err != nil {
		return nil, err
	}
	return b[1 : len(b)-1], nil // without the line breaks
}
