package store

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
)

// DeliveryQuery is the list query of contract section 3.2. A zero field does not
// filter; times are inclusive and compare with attempted_at, or with the due
// time of what was not sent.
type DeliveryQuery struct {
	Status    string // a delivery.Status, or "failed" for retrying and abandoned (contract D13)
	EventType string
	EventID   string
	TicketID  string
	Code      string // a status code, or a class such as 5xx
	ErrorType string
	From, To  *time.Time
	Page      int // from 1
	Limit     int // 1..100, default 25
}

const (
	// bodyOfEvent is looked up for each row that is shown. As a join, a server might
	// read whole days of events for it: it does not know that a row has its event in
	// one of them.
	bodyOfEvent = `(select e.body from events e where e.tenant_id = d.tenant_id and e.seq = d.event_seq)`

	deliveryColumns = `d.tenant_id, d.delivery_id, d.webhook_id, d.event_id, d.event_type, d.ticket_id, d.attempt, d.step,
		d.status, d.wait_reason, d.is_test, d.is_manual, d.due_at, d.attempted_at, d.completed_at, d.next_retry_at,
		d.created_at, d.lease_until, coalesce(d.body, ` + bodyOfEvent + `), d.custom_headers, d.status_code, d.response_headers,
		d.response_body, d.duration_ms, d.error_type, d.error_message, h.wait_reason, h.wait_until`
	deliveryTables = ` from deliveries d
		left join webhook_health h on h.tenant_id = d.tenant_id and h.webhook_id = d.webhook_id`
)

// scanDelivery reads deliveryColumns. Why a pending row waits is not in the row:
// it changes for all rows of a lane at once, so it is kept with the lane.
func scanDelivery(row scanner) (delivery.Delivery, error) {
	var d delivery.Delivery
	var due, created int64
	var attempted, completed, retry, lease, waitUntil, code, duration sql.NullInt64
	var customHeaders, responseHeaders, response, laneReason sql.NullString
	err := row.Scan(&d.TenantID, &d.DeliveryID, &d.WebhookID, &d.EventID, &d.EventType, &d.TicketID, &d.Attempt, &d.Step,
		&d.Status, &d.WaitReason, &d.IsTest, &d.IsManual, &due, &attempted, &completed, &retry,
		&created, &lease, &d.Body, &customHeaders, &code, &responseHeaders,
		&response, &duration, &d.ErrorType, &d.ErrorMessage, &laneReason, &waitUntil)
	if err != nil {
		return d, err
	}
	if err := fromJSON(responseHeaders, &d.ResponseHeaders); err != nil {
		return d, fmt.Errorf("delivery %s: %w", d.DeliveryID, err)
	}
	d.DueAt, d.CreatedAt = instant(due), instant(created)
	d.AttemptedAt, d.CompletedAt, d.NextRetryAt = instantPtr(attempted), instantPtr(completed), instantPtr(retry)
	if d.AttemptedAt != nil {
		var custom []string
		if err := fromJSON(customHeaders, &custom); err != nil {
			return d, fmt.Errorf("delivery %s: %w", d.DeliveryID, err)
		}
		d.RequestHeaders = d.Logged(custom)
	}
	d.StatusCode, d.DurationMS, d.ResponseBody = int(code.Int64), duration.Int64, response.String
	if d.Status == delivery.Pending {
		next := d.DueAt
		d.NextRetryAt = &next
		d.WaitReason = delivery.WaitDue
		// What holds the lane up holds up the rows that come due before it ends,
		// but not the one that is being sent.
		held := !waitUntil.Valid || due <= waitUntil.Int64
		if laneReason.String != "" && held && !lease.Valid {
			d.WaitReason = laneReason.String
		}
	}
	return d, nil
}

// Delivery returns one row of the log with the body that was, or will be, sent.
// It works for a deleted webhook too (contract P7).
func (s *Store) Delivery(ctx context.Context, tenant, webhookID, deliveryID string) (delivery.Delivery, error) {
	s.show(ctx, tenant, lowerID(webhookID))
	return deliveryOf(s.reader(ctx), tenant, webhookID, deliveryID)
}

func deliveryOf(q querier, tenant, webhookID, deliveryID string) (delivery.Delivery, error) {
	d, err := scanDelivery(q.row(`select `+deliveryColumns+deliveryTables+`
		where d.tenant_id = $1 and d.delivery_id = $2 and d.webhook_id = $3`, tenant, lowerID(deliveryID), lowerID(webhookID)))
	if err != nil {
		return d, found(err, "Delivery not found")
	}
	return d, nil
}

// Deliveries returns one page of the webhook's log, newest first by the time of
// the attempt, and how many rows match in all.
func (s *Store) Deliveries(ctx context.Context, tenant, webhookID string, q DeliveryQuery) ([]delivery.Delivery, int, error) {
	webhookID = lowerID(webhookID)
	r := s.reader(ctx)
	// An empty page would say that nothing was sent; an unknown webhook is a 404.
	if _, err := closedOf(r, tenant, webhookID); err != nil {
		return nil, 0, err
	}
	s.show(ctx, tenant, webhookID)
	w, err := q.where(tenant, webhookID)
	if err != nil {
		return nil, 0, err
	}
	rows, err := r.list(logCount+w.String(), w.args...)
	counts, err := collect(rows, err, scanCount)
	if err != nil {
		return nil, 0, fmt.Errorf("count deliveries: %w", err)
	}
	rows, err = r.list(logRows+w.String()+q.order()+w.page(q.Page, min(q.Limit, maxLimit)), w.args...)
	list, err := collect(rows, err, scanDelivery)
	if err != nil {
		return nil, 0, fmt.Errorf("list deliveries: %w", err)
	}
	return list, counts[0], nil
}

// The parts of the statements of Deliveries, beside the conditions.
const (
	logCount = `select count(*) from deliveries d where `
	logRows  = `select ` + deliveryColumns + deliveryTables + ` where `
	logOrder = ` order by coalesce(d.attempted_at, d.due_at) desc, d.delivery_id desc`
	// An event has few rows: they are found by its index and sorted. The sign
	// keeps the database from walking the log in its order instead.
	logOrderOfEvent = ` order by +coalesce(d.attempted_at, d.due_at) desc, d.delivery_id desc`
)

func (q *DeliveryQuery) order() string {
	if q.EventID != "" {
		return logOrderOfEvent
	}
	return logOrder
}

// outcome restricts deliveries to a status, of which "failed" is two, and to an
// event type; "" does not restrict.
func (w *where) outcome(status, eventType string) {
	switch status {
	case "":
	case "failed":
		w.in("d.status", []string{string(delivery.Retrying), string(delivery.Abandoned)})
	default:
		w.and("d.status = ?", status)
	}
	if eventType != "" {
		w.and("d.event_type = ?", eventType)
	}
}

// answered restricts deliveries to a status code of the receiver, or a class of them
// such as 5xx, and to a class of failures; "" does not restrict. field is what the
// caller calls the code.
func (w *where) answered(field, code, errorType string) error {
	if errorType != "" {
		w.and("d.error_type = ?", errorType)
	}
	if class, isClass := strings.CutSuffix(code, "xx"); isClass && len(class) == 1 && class[0] >= '1' && class[0] <= '9' {
		n := int(class[0]-'0') * 100
		w.and("d.status_code >= ? and d.status_code <= ?", n, n+99)
	} else if code != "" {
		n, err := strconv.Atoi(code)
		if err != nil || n < 100 || n > 999 {
			return fault.Field(field, "must be a status code such as 503, or a class such as 5xx")
		}
		w.and("d.status_code = ?", n)
	}
	return nil
}

func (q *DeliveryQuery) where(tenant, webhookID string) (*where, error) {
	w := &where{}
	w.and("d.tenant_id = ? and d.webhook_id = ?", tenant, webhookID)
	w.outcome(q.Status, q.EventType)
	if q.EventID != "" {
		w.and("d.event_id = ?", lowerID(q.EventID))
	}
	if q.TicketID != "" {
		w.and("d.ticket_id = ?", lowerID(q.TicketID))
	}
	if q.From != nil {
		w.and("coalesce(d.attempted_at, d.due_at) >= ?", micros(*q.From))
	}
	if q.To != nil {
		w.and("coalesce(d.attempted_at, d.due_at) <= ?", micros(*q.To))
	}
	return w, w.answered("status_code", q.Code, q.ErrorType)
}

func scanCount(row scanner) (n int, err error) {
	err = row.Scan(&n)
	return n, err
}

// maxLimit is the longest page of the webhook and delivery lists.
const maxLimit = 100

// Backlog says how much is owed at this moment, over all tenants.
type Backlog struct {
	Pending   int64      // rows that wait for their attempt, due or not
	Due       int64      // of these, the ones whose time has come
	OldestDue *time.Time // since when the one that waits longest has been due; nil without due rows
	Mails     int64      // mails of the outbox that are neither sent nor given up
}

// handedByAll counts what the dispatchers of all nodes hold that has no row, also
// what a node held that has ended. A list counts as a whole until all of it is
// recorded; one with bodies of its own counts for more than it is.
func (s *Store) handedByAll(ctx context.Context) (n int64, err error) {
	err = s.reader(ctx).row(`select coalesce(sum(length(list) / $1), 0)::bigint from handovers`, listedLength).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count handovers: %w", err)
	}
	return n, nil
}

// Backlog counts the queue, and what was handed over. Counting walks over an index
// at some 15 ns a row, so ten million rows take a fraction of a second; a sum over
// cases in one walk took five times as long. The oldest row is at the head of a
// webhook's queue.
func (s *Store) Backlog(ctx context.Context, now time.Time) (Backlog, error) {
	var b Backlog
	var later int64
	var oldest sql.NullInt64
	err := s.reader(ctx).row(`select
			(select count(*) from deliveries where status = 'pending'),
			(select count(*) from deliveries where status = 'pending' and due_at > created_at and due_at > $1),
			(select min(head) from (select (select min(d.due_at) from deliveries d where d.tenant_id = w.tenant_id
				and d.webhook_id = w.webhook_id and d.status = 'pending') as head from webhooks w) heads where head <= $1),
			(select count(*) from mail_outbox where sent_at is null and failed_at is null)`,
		micros(now)).Scan(&b.Pending, &later, &oldest, &b.Mails)
	if err != nil {
		return Backlog{}, fmt.Errorf("count the backlog: %w", err)
	}
	b.Due = b.Pending - later
	n := s.handedCount.Load()
	if s.dialect.server {
		if n, err = s.handedByAll(ctx); err != nil {
			return Backlog{}, err
		}
	}
	if n > 0 {
		b.Pending, b.Due = b.Pending+n, b.Due+n
		if since := s.handedSince.Load(); since != 0 && (!oldest.Valid || since < oldest.Int64) {
			oldest = sql.NullInt64{Int64: since, Valid: true}
		}
	}
	b.OldestDue = instantPtr(oldest)
	return b, nil
}
