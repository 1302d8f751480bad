package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/webhook"
)

// deliveryRoutes are what webhooks send and what became of it: the log, manual
// retries, tests, signature checks, health and analytics (contract sections 3.6
// to 3.9).
func (s *Server) deliveryRoutes() []route {
	return []route{
		{http.MethodPost, "/webhooks/test", "webhook", "test", (*call).testAdHoc},
		{http.MethodPost, "/webhooks/verify", "webhook", "verify", (*call).verifySignature},
		{http.MethodGet, "/webhooks/analytics", "webhook", "analytics", (*call).tenantAnalytics},
		{http.MethodPost, "/webhooks/{id}/test", "webhook", "test", (*call).testWebhook},
		{http.MethodGet, "/webhooks/{id}/health", "webhook", "read", (*call).getHealth},
		{http.MethodGet, "/webhooks/{id}/analytics", "webhook", "analytics", (*call).webhookAnalytics},
		{http.MethodGet, "/webhooks/{id}/deliveries", "webhook", "read", (*call).listDeliveries},
		{http.MethodGet, "/webhooks/{id}/deliveries/{delivery_id}", "webhook", "read", (*call).getDelivery},
		{http.MethodPost, "/webhooks/{id}/deliveries/{delivery_id}/retry", "webhook", "retry", (*call).retryDelivery},
	}
}

// deliveryRecord is the record of contract section 3.9 with what P1 and P3 add.
type deliveryRecord struct {
	Tenant             string            `json:"tenant"`
	DeliveryID         string            `json:"delivery_id"`
	WebhookID          string            `json:"webhook_id"`
	EventID            string            `json:"event_id"`
	EventType          string            `json:"event_type"`
	TicketID           *string           `json:"ticket_id"` // null for a test
	RequestHeaders     map[string]string `json:"request_headers"`
	RequestBody        json.RawMessage   `json:"request_body"`
	ResponseStatusCode *int              `json:"response_status_code"`
	ResponseHeaders    map[string]string `json:"response_headers"`
	ResponseBody       *string           `json:"response_body"`
	Status             delivery.Status   `json:"status"`
	WaitReason         *string           `json:"wait_reason"`
	AttemptNumber      int               `json:"attempt_number"`
	DurationMS         *int64            `json:"duration_ms"`
	ErrorType          *string           `json:"error_type"`
	ErrorMessage       *string           `json:"error_message"`
	NextRetryAt        *webhook.Time     `json:"next_retry_at"`
	IsTest             bool              `json:"is_test"`
	IsManual           bool              `json:"is_manual"`
	AttemptedAt        *webhook.Time     `json:"attempted_at"` // null until it is sent
	CompletedAt        *webhook.Time     `json:"completed_at"`
}

func viewDelivery(d *delivery.Delivery) deliveryRecord {
	r := deliveryRecord{
		Tenant: d.TenantID, DeliveryID: d.DeliveryID, WebhookID: d.WebhookID, EventID: d.EventID, EventType: d.EventType,
		TicketID: textOrNull(d.TicketID), RequestHeaders: d.RequestHeaders, RequestBody: d.Body, ResponseHeaders: d.ResponseHeaders,
		Status: d.Status, WaitReason: textOrNull(d.WaitReason), AttemptNumber: d.Attempt,
		ErrorType: textOrNull(string(d.ErrorType)), ErrorMessage: textOrNull(d.ErrorMessage),
		NextRetryAt: wireTime(d.NextRetryAt), IsTest: d.IsTest, IsManual: d.IsManual,
		AttemptedAt: wireTime(d.AttemptedAt), CompletedAt: wireTime(d.CompletedAt),
	}
	if d.StatusCode != 0 {
		r.ResponseStatusCode, r.ResponseBody = &d.StatusCode, &d.ResponseBody
	}
	if d.AttemptedAt != nil {
		r.DurationMS = &d.DurationMS
	}
	return r
}

// deliveryStatuses are the values of the status filter: those that rows have,
// and failed, which means every attempt that did not deliver (contract D13).
func deliveryStatuses() []string {
	return []string{
		string(delivery.Pending), string(delivery.Delivered), "failed", string(delivery.Retrying), string(delivery.Abandoned),
	}
}

func errorTypes() (texts []string) {
	for _, e := range delivery.ErrorTypes() {
		texts = append(texts, string(e))
	}
	return texts
}

func (c *call) listDeliveries() (answer, error) {
	id, err := c.id("id", "webhook")
	if err != nil {
		return answer{}, err
	}
	p := c.params()
	pg := p.paging("attempted_at", []string{"attempted_at"}, true)
	q := store.DeliveryQuery{
		Status:    p.choice("status", deliveryStatuses()),
		EventType: p.choice("event_type", append(delivery.EventTypes(), webhook.Test)),
		EventID:   p.uuid("event_id"), TicketID: p.uuid("ticket_id"),
		Code: strings.ToLower(p.text("status_code")), ErrorType: p.choice("error_type", errorTypes()),
		From: p.moment("from_date", false), To: p.moment("to_date", true),
		Page: pg.page, Limit: pg.limit,
	}
	if !pg.desc {
		p.issue("order", "custom", "the delivery log is newest first", nil)
	}
	if err := p.err(); err != nil {
		return answer{}, err
	}
	list, total, err := c.store().Deliveries(c.ctx, c.tenant(), id, q)
	if err != nil {
		return answer{}, err
	}
	records := make([]deliveryRecord, len(list))
	for i := range list {
		records[i] = viewDelivery(&list[i])
	}
	return page(records, pg, total, p.filters), nil
}

// deliveryIDs reads the two ids of a delivery's path.
func (c *call) deliveryIDs() (webhookID, deliveryID string, err error) {
	if webhookID, err = c.id("id", "webhook"); err != nil {
		return "", "", err
	}
	deliveryID, err = c.id("delivery_id", "delivery")
	return webhookID, deliveryID, err
}

func (c *call) getDelivery() (answer, error) {
	webhookID, deliveryID, err := c.deliveryIDs()
	if err != nil {
		return answer{}, err
	}
	d, err := c.store().Delivery(c.ctx, c.tenant(), webhookID, deliveryID)
	if err != nil {
		return answer{}, err
	}
	return ok(viewDelivery(&d)), nil
}

// retryDelivery sends a failed delivery again, now and once. What came of it is
// recorded either way, and a receiver that failed again is a 502 with the record
// in its details.
func (c *call) retryDelivery() (answer, error) {
	webhookID, deliveryID, err := c.deliveryIDs()
	if err != nil {
		return answer{}, err
	}
	e := c.srv.cfg.Engine
	batch, err := c.store().BeginRetry(c.ctx, c.now, c.tenant(), webhookID, deliveryID, e.Owner(), e.Lease())
	if err != nil {
		return answer{}, err
	}
	d, err := c.send(batch)
	if err != nil {
		return answer{}, err
	}
	record := viewDelivery(&d)
	if d.Status == delivery.Delivered {
		return c.settle(ok(record))
	}
	failed := fault.New(fault.BadGateway, "The receiver did not accept the delivery: %s", d.ErrorMessage)
	failed.Details = record
	return c.settle(errorAnswer(failed))
}

// send makes the one delivery of a batch outside the queue.
func (c *call) send(b store.Batch) (delivery.Delivery, error) {
	list, err := c.srv.cfg.Engine.Send(c.ctx, b)
	if err != nil {
		return delivery.Delivery{}, fault.Wrap(fault.Unavailable, err, "The delivery was broken off, try again")
	}
	return list[0], nil
}

// settle stores the answer of a route that sends over the network under the
// caller's idempotency key. It cannot be stored in the transaction that began
// the delivery, since the answer was not known then (contract P10).
func (c *call) settle(a answer) (answer, error) {
	if c.idem == nil {
		return a, nil
	}
	c.idem.Render = func(any) (int, []byte, error) {
		body, err := a.encode()
		return a.status, body, err
	}
	// The delivery was made: its answer is kept even for a caller who hung up.
	ctx := store.WithIdempotency(context.WithoutCancel(c.ctx), c.idem)
	return a, c.store().KeepAnswer(ctx, nil)
}
