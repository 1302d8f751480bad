package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// The lists of this file are for people who look for something in a history of
// millions of rows. They page by cursor and count nothing, and a page looks at a
// bounded number of rows: one that finds less than it was asked for says how far
// back it has looked, and its cursor goes on from there.

// scanLimit is how many rows a page looks at, all webhooks together.
const scanLimit = 5_000

// maxSearched bounds over how many webhooks one search goes.
const maxSearched = 200

// DeliverySearch asks for a page of the log of one webhook or of all. A zero
// field does not filter; times are those of DeliveryQuery.
type DeliverySearch struct {
	WebhookID string
	Status    string // as in DeliveryQuery
	Code      string // a status code, or a class such as 5xx
	ErrorType string
	EventType string
	EventID   string
	TicketID  string // only its 200 newest events
	From, To  *time.Time
	After     string // cursor of the page before
	Limit     int    // 1..100, default 25
}

// Found is a page of a search.
type Found[T any] struct {
	Rows []T
	Next string     // where to go on; "" at the end
	Back *time.Time // the page has less than it was asked for and has looked back to here; nil otherwise
}

// position is a place in a list that is newest first. "" is before every id, so
// that a position without one stands before all rows of its instant.
type position struct {
	at int64
	id string
}

// searchMark begins a cursor of a search.
const searchMark = "s1-"

func (p position) String() string { return searchMark + strconv.FormatInt(p.at, 36) + "-" + p.id }

func parsePosition(text string) (p position, given bool, err error) {
	if text == "" {
		return p, false, nil
	}
	body, ok := strings.CutPrefix(text, searchMark)
	at, id, cut := strings.Cut(body, "-")
	p.id = id
	p.at, err = strconv.ParseInt(at, 36, 64)
	if !ok || !cut || err != nil || len(id) > 40 {
		return p, false, fault.Field("after", "Invalid cursor")
	}
	return p, true, nil
}

// logKey is a row of the log that matches.
type logKey struct {
	position
	webhookID string
}

const logTime = "coalesce(d.attempted_at, d.due_at)"

// SearchDeliveries returns a page of the log, newest first. Searching all webhooks
// of a tenant that has more than 200 is Invalid with path webhook. An id that no
// event or ticket has finds nothing.
func (s *Store) SearchDeliveries(ctx context.Context, tenant string, q DeliverySearch) (Found[delivery.Delivery], error) {
	var out Found[delivery.Delivery]
	if q.Limit < 1 || q.Limit > maxLimit {
		q.Limit = defaultLimit
	}
	from, given, err := parsePosition(q.After)
	if err != nil {
		return out, err
	}
	s.show(ctx, tenant, lowerID(q.WebhookID))
	r := s.reader(ctx)
	var keys []logKey
	var floor *int64
	if q.EventID != "" || q.TicketID != "" {
		keys, err = q.ofEvents(r, tenant, from, given)
	} else {
		keys, floor, err = q.ofWebhooks(r, tenant, from, given)
	}
	if err != nil {
		return out, err
	}
	switch {
	case len(keys) > q.Limit:
		keys = keys[:q.Limit]
		out.Next = keys[q.Limit-1].String()
	case floor != nil:
		out.Next = position{at: *floor}.String()
		out.Back = new(instant(*floor))
	}
	out.Rows = make([]delivery.Delivery, len(keys))
	for i, k := range keys {
		if out.Rows[i], err = deliveryOf(r, tenant, k.webhookID, k.id); err != nil {
			return out, err
		}
	}
	return out, nil
}

// filter adds what does not choose the index.
func (q *DeliverySearch) filter(w *where) error {
	w.outcome(q.Status, q.EventType)
	return w.answered("code", q.Code, q.ErrorType)
}

// filters reports whether a row can fail to match.
func (q *DeliverySearch) filters() bool {
	return q.Status != "" || q.EventType != "" || q.ErrorType != "" || q.Code != ""
}

// span adds the times and the cursor.
func (q *DeliverySearch) span(w *where, from position, given bool) {
	if given {
		w.and(logTime+" <= ?", from.at)
		w.and("("+logTime+" < ? or d.delivery_id < ?)", from.at, from.id)
	}
	if q.From != nil {
		w.and(logTime+" >= ?", micros(*q.From))
	}
	if q.To != nil {
		w.and(logTime+" <= ?", micros(*q.To))
	}
}

// ofEvents reads the rows of one event, or of the events of one ticket. They are
// few, and found by the index of events.
func (q *DeliverySearch) ofEvents(r *reader, tenant string, from position, given bool) ([]logKey, error) {
	text, w, err := q.eventsText(tenant, from, given)
	if err != nil {
		return nil, err
	}
	rows, err := r.list(text, w.args...)
	keys, err := collect(rows, err, scanLogKey)
	if err != nil {
		return nil, fmt.Errorf("search deliveries of events: %w", err)
	}
	return keys, nil
}

func (q *DeliverySearch) eventsText(tenant string, from position, given bool) (string, *where, error) {
	w := &where{}
	with := ""
	w.and("d.tenant_id = ?", tenant)
	if q.EventID != "" {
		w.and("d.event_id = ?", lowerID(q.EventID))
	}
	if q.TicketID != "" {
		with = strings.NewReplacer("{ticket}", w.arg(lowerID(q.TicketID)), "{limit}", w.arg(shownOfTicket)).Replace(newestOfTicket)
		w.and("d.event_id in (select (select e.event_id from events e where e.seq = c.seq) from chain c where c.prev_seq is not null)")
	}
	if q.WebhookID != "" {
		w.and("d.webhook_id = ?", lowerID(q.WebhookID))
	}
	if err := q.filter(w); err != nil {
		return "", nil, err
	}
	q.span(w, from, given)
	return with + logKeys + w.String() + logOrderOfEvent + ` limit ` + w.arg(q.Limit+1), w, nil
}

// shownOfTicket is how many of a ticket's newest events a search looks at.
const shownOfTicket = 200

// newestOfTicket walks back from the newest event of a ticket, as chainOfTicket
// does, for a number of events. $1 is the tenant.
const newestOfTicket = `with recursive chain (seq, prev_seq, n) as (
		select e.seq, e.prev_seq, 1 from events e where e.seq = coalesce(
			(select t.last_seq from tickets t where t.tenant_id = $1 and t.ticket_id = {ticket}),
			(select d.last_seq from ticket_ends d where d.tenant_id = $1 and d.ticket_id = {ticket}))
		union all
		select c.prev_seq, (select e.prev_seq from events e where e.seq = c.prev_seq), c.n + 1 from chain c
			where c.prev_seq > 0 and c.n < {limit})
	`

// ofWebhooks merges the logs of the webhooks, each read from its own index. floor
// is how far all of them were looked through; nil if to the end.
func (q *DeliverySearch) ofWebhooks(r *reader, tenant string, from position, given bool) (keys []logKey, floor *int64, err error) {
	hooks := []string{lowerID(q.WebhookID)}
	if q.WebhookID == "" {
		rows, err := r.query(`select webhook_id from webhooks where tenant_id = $1 limit $2`, tenant, maxSearched+1)
		hooks, err = collect(rows, err, func(row scanner) (id string, err error) { err = row.Scan(&id); return id, err })
		if err != nil {
			return nil, nil, fmt.Errorf("list webhooks to search: %w", err)
		}
		if len(hooks) > maxSearched {
			return nil, nil, fault.Field("webhook", "choose a webhook: there are more than %d", maxSearched)
		}
	}
	if q.filters() {
		if floor, err = q.floor(r, tenant, hooks, from, given); err != nil {
			return nil, nil, err
		}
	}
	for _, hook := range hooks {
		w := &where{}
		w.and("d.tenant_id = ? and d.webhook_id = ?", tenant, hook)
		if err := q.filter(w); err != nil {
			return nil, nil, err
		}
		q.span(w, from, given)
		if floor != nil {
			w.and(logTime+" >= ?", *floor)
		}
		rows, err := r.list(logKeys+w.String()+logOrder+` limit `+w.arg(q.Limit+1), w.args...)
		found, err := collect(rows, err, scanLogKey)
		if err != nil {
			return nil, nil, fmt.Errorf("search deliveries: %w", err)
		}
		keys = append(keys, found...)
	}
	slices.SortFunc(keys, func(a, b logKey) int {
		return cmp.Or(cmp.Compare(b.at, a.at), strings.Compare(b.id, a.id))
	})
	return keys, floor, nil
}

const logKeys = `select ` + logTime + `, d.delivery_id, d.webhook_id from deliveries d where `

// floor finds the newest instant at which one of the logs has used up its share of
// the rows to look at. Only the index is read for it.
func (q *DeliverySearch) floor(r *reader, tenant string, hooks []string, from position, given bool) (floor *int64, err error) {
	for _, hook := range hooks {
		w := &where{}
		w.and("d.tenant_id = ? and d.webhook_id = ?", tenant, hook)
		q.span(w, from, given)
		rows, err := r.list(`select `+logTime+` from deliveries d where `+w.String()+logOrder+
			` limit 1 offset `+w.arg(scanLimit/len(hooks)), w.args...)
		at, err := collect(rows, err, func(row scanner) (at int64, err error) { err = row.Scan(&at); return at, err })
		if err != nil {
			return nil, fmt.Errorf("bound a search of deliveries: %w", err)
		}
		if len(at) > 0 && (floor == nil || at[0] > *floor) {
			floor = &at[0]
		}
	}
	return floor, nil
}

func scanLogKey(row scanner) (k logKey, err error) {
	err = row.Scan(&k.at, &k.id, &k.webhookID)
	return k, err
}

// DeliveriesOf returns the rows of some events, oldest first by event and by the
// time of the attempt, at most 500.
func (s *Store) DeliveriesOf(ctx context.Context, tenant string, eventIDs []string) ([]delivery.Delivery, error) {
	if len(eventIDs) == 0 {
		return []delivery.Delivery{}, nil
	}
	s.show(ctx, tenant, "")
	w := &where{}
	w.and("d.tenant_id = ?", tenant)
	w.in("d.event_id", lowerIDs(eventIDs))
	rows, err := s.reader(ctx).list(logRows+w.String()+` order by d.event_id, +`+logTime+`, d.delivery_id limit 500`, w.args...)
	list, err := collect(rows, err, scanDelivery)
	if err != nil {
		return nil, fmt.Errorf("read the deliveries of events: %w", err)
	}
	return list, nil
}

// FindDelivery returns one row of the log by its id alone, as Delivery does.
func (s *Store) FindDelivery(ctx context.Context, tenant, id string) (delivery.Delivery, error) {
	s.show(ctx, tenant, "")
	r := s.reader(ctx)
	var hook string
	err := r.row(`select webhook_id from deliveries where tenant_id = $1 and delivery_id = $2`, tenant, lowerID(id)).Scan(&hook)
	if err != nil {
		return delivery.Delivery{}, found(err, "Delivery not found")
	}
	return deliveryOf(r, tenant, hook, id)
}

// ListTickets returns a page of the tickets that match, the one that changed last
// first. Sort, order and page of the query are ignored.
func (s *Store) ListTickets(ctx context.Context, tenant string, q ticket.Query, after string) (Found[ticket.Ticket], error) {
	var out Found[ticket.Ticket]
	from, given, err := parsePosition(after)
	if err != nil {
		return out, err
	}
	if q.Limit < 1 || q.Limit > maxLimit {
		q.Limit = defaultLimit
	}
	r := s.reader(ctx)
	floor, err := ticketFloor(r, tenant, from, given)
	if err != nil {
		return out, err
	}
	w := ticketWhere(tenant, q)
	if given {
		w.and("t.updated_at <= ?", from.at)
		w.and("(t.updated_at < ? or t.ticket_id < ?)", from.at, from.id)
	}
	if floor != nil {
		w.and("t.updated_at >= ?", *floor)
	}
	rows, err := r.list(ticketColumns+`where `+w.String()+ticketOrder("updated_at", true)+` limit `+w.arg(q.Limit+1), w.args...)
	if out.Rows, err = collect(rows, err, scanTicket); err != nil {
		return out, fmt.Errorf("list tickets: %w", err)
	}
	switch {
	case len(out.Rows) > q.Limit:
		out.Rows = out.Rows[:q.Limit]
		last := &out.Rows[q.Limit-1]
		out.Next = position{micros(last.UpdatedAt.Time), last.TicketID}.String()
	case floor != nil:
		out.Next = position{at: *floor}.String()
		out.Back = new(instant(*floor))
	}
	return out, nil
}

// ticketFloor finds the instant to which one page looks back; nil for all.
func ticketFloor(r *reader, tenant string, from position, given bool) (*int64, error) {
	at := int64(1) << 62
	if given {
		at = from.at
	}
	var floor int64
	err := r.row(`select updated_at from tickets where tenant_id = $1 and updated_at <= $2
		order by updated_at desc limit 1 offset $3`, tenant, at, scanLimit).Scan(&floor)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, nil //nolint:nilnil // no floor
	case err != nil:
		return nil, fmt.Errorf("bound a list of tickets: %w", err)
	}
	return &floor, nil
}

// TicketEvents returns the newest events of a ticket, newest first, at most limit,
// and whether there are older ones.
func (s *Store) TicketEvents(ctx context.Context, tenant, ticketID string, limit int) (envelopes [][]byte, more bool, err error) {
	rows, err := s.reader(ctx).query(strings.NewReplacer("{ticket}", "$2", "{limit}", "$3").Replace(newestOfTicket)+
		`select (select e.body from events e where e.seq = c.seq) from chain c
			where c.prev_seq is not null order by c.seq desc`,
		tenant, lowerID(ticketID), limit+1)
	envelopes, err = collect(rows, err, func(row scanner) (body []byte, err error) { err = row.Scan(&body); return body, err })
	if err != nil {
		return nil, false, fmt.Errorf("read the events of a ticket: %w", err)
	}
	if more = len(envelopes) > limit; more {
		envelopes = envelopes[:limit]
	}
	return envelopes, more, nil
}

// EventSearch asks for events, newest first. A zero field does not filter.
type EventSearch struct {
	Types []string
	After string // cursor of the page before, which is not one of the feed
	Limit int    // 1..100, default 25
}

// SearchEvents returns a page of the tenant's events, newest first, with the
// cursor of the feed behind the newest event there is: whoever reads the feed
// after it gets what happens from now on.
func (s *Store) SearchEvents(ctx context.Context, tenant string, q EventSearch) (page Found[[]byte], feed string, err error) {
	from, given, err := parsePosition(q.After)
	if err != nil {
		return page, "", err
	}
	if q.Limit < 1 || q.Limit > maxLimit {
		q.Limit = defaultLimit
	}
	r := s.reader(ctx)
	top, err := topOf(r, tenant, 0)
	if err != nil {
		return page, "", err
	}
	last := top
	if given {
		last = min(top, from.at-1)
	}
	var floor int64
	err = r.row(`select seq from events where tenant_id = $1 and seq <= $2 order by seq desc limit 1 offset $3`,
		tenant, last, scanLimit).Scan(&floor)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return page, "", fmt.Errorf("bound a search of events: %w", err)
	}
	w := &where{}
	w.and("tenant_id = ? and seq <= ? and seq >= ?", tenant, last, floor)
	if len(q.Types) > 0 {
		w.in("event_type", q.Types)
	}
	type event struct {
		seq  int64
		body []byte
	}
	rows, err := r.list(`select seq, body from events where `+w.String()+` order by seq desc limit `+w.arg(q.Limit+1), w.args...)
	list, err := collect(rows, err, func(row scanner) (e event, err error) {
		err = row.Scan(&e.seq, &e.body)
		return e, err
	})
	if err != nil {
		return page, "", fmt.Errorf("search events: %w", err)
	}
	switch {
	case len(list) > q.Limit:
		list = list[:q.Limit]
		page.Next = position{at: list[q.Limit-1].seq}.String()
	case floor > 0:
		page.Next = position{at: floor}.String()
	}
	page.Rows = make([][]byte, len(list))
	for i, e := range list {
		page.Rows[i] = e.body
	}
	return page, formatCursor(top), nil
}
