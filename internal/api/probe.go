package api

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/dispatch"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/webhook"
)

// testView is the answer of both tests (contract section 3.6). It is a 200 even
// when the target failed, because the test itself was made.
type testView struct {
	TestID         string             `json:"test_id"`
	DeliveryID     string             `json:"delivery_id,omitempty"`
	Success        bool               `json:"success"`
	StatusCode     int                `json:"status_code,omitempty"`
	ResponseTimeMS *int64             `json:"response_time_ms,omitempty"`
	ResponseBody   string             `json:"response_body,omitempty"`
	ErrorType      delivery.ErrorType `json:"error_type,omitempty"`
	ErrorMessage   string             `json:"error_message,omitempty"`
	TestedAt       webhook.Time       `json:"tested_at"`
}

// testWebhook sends a webhook.test event to a webhook, active or not.
// test_event_type is checked and has no effect (contract D14).
func (c *call) testWebhook() (answer, error) {
	id, err := c.id("id", "webhook")
	if err != nil {
		return answer{}, err
	}
	o, err := c.object()
	if err != nil {
		return answer{}, err
	}
	o.enum("test_event_type", delivery.EventTypes()...)
	if err := o.err(); err != nil {
		return answer{}, err
	}
	e := c.srv.cfg.Engine
	batch, err := c.store().BeginTest(c.ctx, c.now, c.tenant(), id, e.Owner(), e.Lease())
	if err != nil {
		return answer{}, err
	}
	d, err := c.send(batch)
	if err != nil {
		return answer{}, err
	}
	v := testView{
		TestID: d.EventID, DeliveryID: d.DeliveryID, Success: d.Status == delivery.Delivered,
		StatusCode: d.StatusCode, ResponseTimeMS: &d.DurationMS, ResponseBody: d.ResponseBody,
		ErrorType: d.ErrorType, ErrorMessage: d.ErrorMessage, TestedAt: webhook.At(c.now),
	}
	return c.settle(ok(v))
}

// testAdHoc sends an event of the caller's making to a webhook or to any public
// address, and records nothing (contract section 3.6).
func (c *call) testAdHoc() (answer, error) {
	o, err := c.object()
	if err != nil {
		return answer{}, err
	}
	o.need("test_event_type", "string")
	eventType := orZero(o.enum("test_event_type", delivery.EventTypes()...))
	id := o.uuid("webhook_id")
	target := o.text("override_url", 1, 2048)
	payload := o.raw("test_payload")
	if err := o.err(); err != nil {
		return answer{}, err
	}
	if target != nil {
		if err := c.checkOverride(*target); err != nil {
			return answer{}, err
		}
	}
	p := dispatch.Probe{
		EventID: store.NewID(), EventType: eventType, Webhook: delivery.Spec{Method: "POST", VerifySSL: true},
	}
	switch {
	case id != nil:
		if err := c.aimAtWebhook(&p, *id); err != nil {
			return answer{}, err
		}
	case target == nil:
		return answer{}, fault.New(fault.Invalid, "No webhook URL provided for testing")
	}
	if target != nil {
		p.URL = *target
		// Custom headers and certificates are credentials for the webhook's own
		// address.
		p.Webhook.CustomHeaders, p.Webhook.TLS = nil, nil
	}
	if p.Body, err = c.testBody(&p, payload); err != nil {
		return answer{}, err
	}
	return c.settle(ok(c.probe(p)))
}

// checkOverride applies the rule of webhook URLs to the override.
func (c *call) checkOverride(target string) error {
	_, err := c.srv.cfg.Egress.CheckURL(target)
	if e, is := errors.AsType[*fault.Error](err); is {
		for i := range e.Issues {
			e.Issues[i].Path = []any{"override_url"}
		}
	}
	return err
}

// aimAtWebhook makes the probe look like a delivery of the webhook, signed with
// its secret.
func (c *call) aimAtWebhook(p *dispatch.Probe, id string) error {
	w, err := c.store().Webhook(c.ctx, c.tenant(), id)
	if err != nil {
		return err
	}
	if p.Secrets, err = c.store().Secrets(c.ctx, c.now, c.tenant(), id); err != nil {
		return err
	}
	p.WebhookID, p.URL, p.Webhook = w.WebhookID, w.URL, w.Spec
	return nil
}

// testBody makes the envelope. Without a payload its data is that of a test
// event (contract section 4.7).
func (c *call) testBody(p *dispatch.Probe, payload json.RawMessage) ([]byte, error) {
	if payload == nil {
		data := struct {
			WebhookID   string `json:"webhook_id,omitempty"`
			WebhookName string `json:"webhook_name,omitempty"`
			IsTest      bool   `json:"is_test"`
		}{p.WebhookID, p.Webhook.Name, true}
		var err error
		if payload, err = encodeJSON(data); err != nil {
			return nil, err
		}
	}
	return encodeJSON(webhook.Envelope{
		EventID: p.EventID, EventType: p.EventType, OccurredAt: webhook.At(c.now), TenantID: c.tenant(), Data: payload,
	})
}

// probe sends p and says what came of it in the words of the delivery log.
func (c *call) probe(p dispatch.Probe) testView {
	// A caller who hangs up still learns by his idempotency key what came of it.
	a := c.srv.cfg.Engine.Probe(context.WithoutCancel(c.ctx), p)
	verdict := delivery.Policy{}.Decide(&delivery.Webhook{}, &delivery.Delivery{IsTest: true}, a, c.now, 0)
	return testView{
		TestID: p.EventID, Success: verdict.Status == delivery.Delivered,
		StatusCode: a.StatusCode, ResponseTimeMS: new(a.Duration.Milliseconds()), ResponseBody: a.Body,
		ErrorType: verdict.ErrorType, ErrorMessage: verdict.ErrorMessage, TestedAt: webhook.At(c.now),
	}
}
