package client

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Webhook is a subscription as the API answers it (contract section 3.3).
type Webhook struct {
	WebhookID            string            `json:"webhook_id"`
	Tenant               string            `json:"tenant"`
	Name                 string            `json:"name"`
	Description          *string           `json:"description"`
	URL                  string            `json:"url"`
	Method               string            `json:"method"`
	EventTypes           []string          `json:"event_types"`
	CustomHeaders        map[string]string `json:"custom_headers"` // values may be redacted
	EventFilter          json.RawMessage   `json:"event_filter"`
	PayloadFields        json.RawMessage   `json:"payload_fields"`
	RetryConfig          json.RawMessage   `json:"retry_config"`
	RateLimitPerMin      *int              `json:"rate_limit_per_min"`
	IsActive             bool              `json:"is_active"`
	IsTestMode           bool              `json:"is_test_mode"`
	VerifySSL            bool              `json:"verify_ssl"`
	TLS                  json.RawMessage   `json:"tls"`              // Ticketwire only; says which credentials there are, without the key
	TotalDeliveries      int64             `json:"total_deliveries"` // attempts, not events
	SuccessfulDeliveries int64             `json:"successful_deliveries"`
	FailedDeliveries     int64             `json:"failed_deliveries"`
	LastDeliveryAt       *time.Time        `json:"last_delivery_at"`
	LastSuccessAt        *time.Time        `json:"last_success_at"`
	LastFailureAt        *time.Time        `json:"last_failure_at"`
	AutoDisabledAt       *time.Time        `json:"auto_disabled_at"` // set while it is off after 24 h of failures
	DisabledAt           *time.Time        `json:"disabled_at"`      // Ticketwire only, like the reason: since when it is off, by whomever
	DisabledReason       *string           `json:"disabled_reason"`  // user, failures or gone
	CreatedAt            *time.Time        `json:"created_at"`
	UpdatedAt            *time.Time        `json:"updated_at"`

	// SigningSecret is there in the answer to CreateWebhook and never again.
	SigningSecret string `json:"signing_secret,omitempty"`
}

// WebhookFilter restricts and sorts Webhooks. Unset fields do not restrict.
type WebhookFilter struct {
	Name, URL, EventType, Query string
	IsActive, HasFailures       *bool
	Sort                        string // created_at if empty
	Order                       string // "asc" or "desc"; "desc" if empty
}

// Webhooks walks through the tenant's webhooks. An error comes as the last
// pair.
func (c *Client) Webhooks(ctx context.Context, f WebhookFilter) iter.Seq2[*Webhook, error] {
	q := make(query)
	q.text("name", f.Name)
	q.text("url", f.URL)
	q.text("event_type", f.EventType)
	q.text("query", f.Query)
	q.flag("is_active", f.IsActive)
	q.flag("has_failures", f.HasFailures)
	q.text("sort", f.Sort)
	q.text("order", f.Order)
	return pages[Webhook](ctx, c, url.Values(q), "webhooks")
}

// Webhook returns one webhook, without its secret.
func (c *Client) Webhook(ctx context.Context, id string) (*Webhook, error) {
	return one[Webhook](ctx, c, call{method: http.MethodGet, path: []string{"webhooks", id}})
}

// WebhookInput is what CreateWebhook and UpdateWebhook send. Name, URL and
// EventTypes are required to create; in an update, fields that are not set stay
// as they are. The values of the fields of type any encode to the objects that
// docs/openapi.yaml describes, a map as well as a struct.
type WebhookInput struct {
	Name          Field[string]            `json:"name,omitzero"`
	Description   Field[string]            `json:"description,omitzero"`
	URL           Field[string]            `json:"url,omitzero"`
	EventTypes    Field[[]string]          `json:"event_types,omitzero"`
	Method        Field[string]            `json:"method,omitzero"`
	CustomHeaders Field[map[string]string] `json:"custom_headers,omitzero"`
	EventFilter   Field[any]               `json:"event_filter,omitzero"`   // such as {"entity_ids": ["..."]}
	PayloadFields Field[any]               `json:"payload_fields,omitzero"` // such as {"ticket": ["title", "status_name"]}
	RetryConfig   Field[any]               `json:"retry_config,omitzero"`   // such as {"schedule": [60000, 300000]}, in milliseconds
	RateLimit     Field[any]               `json:"rate_limit,omitzero"`     // such as {"enabled": true, "requests_per_minute": 600}
	VerifySSL     Field[bool]              `json:"verify_ssl,omitzero"`
	TLS           Field[any]               `json:"tls,omitzero"`       // Ticketwire only: client_cert, client_key and ca_bundle in PEM form
	IsActive      Field[bool]              `json:"is_active,omitzero"` // true enables a disabled webhook again

	// ReplayMissed, beside IsActive true, also sends what the webhook would
	// have received while it was disabled; see Replays. Ticketwire only.
	ReplayMissed bool `json:"replay_missed,omitempty"`
}

// CreateWebhook subscribes. Keep the answer's SigningSecret: it is not shown
// again. Without WithIdempotencyKey it is not sent again after a lost
// connection.
func (c *Client) CreateWebhook(ctx context.Context, in WebhookInput, opts ...CallOption) (*Webhook, error) {
	return one[Webhook](ctx, c, call{method: http.MethodPost, path: []string{"webhooks"}, in: in}, opts...)
}

// UpdateWebhook changes a webhook and returns it.
func (c *Client) UpdateWebhook(ctx context.Context, id string, in WebhookInput, opts ...CallOption) (*Webhook, error) {
	return one[Webhook](ctx, c, call{method: http.MethodPut, path: []string{"webhooks", id}, in: in}, opts...)
}

// DeleteWebhook ends a subscription. After a lost connection it is sent again,
// and then a 404 can mean that the first one worked.
func (c *Client) DeleteWebhook(ctx context.Context, id string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: []string{"webhooks", id}}, nil)
}

// WebhookHealth says how a webhook fares (contract section 3.8).
type WebhookHealth struct {
	WebhookID            string     `json:"webhook_id"`
	Status               string     `json:"status"` // healthy, failing while the last failure is newer than the last success, or disabled
	IsActive             bool       `json:"is_active"`
	AutoDisabledAt       *time.Time `json:"auto_disabled_at"`
	TotalDeliveries      int64      `json:"total_deliveries"` // attempts, not events
	SuccessfulDeliveries int64      `json:"successful_deliveries"`
	FailedDeliveries     int64      `json:"failed_deliveries"`
	SuccessRate          float64    `json:"success_rate"` // 0 to 1; 1 before the first attempt
	LastDeliveryAt       *time.Time `json:"last_delivery_at"`
	LastSuccessAt        *time.Time `json:"last_success_at"`
	LastFailureAt        *time.Time `json:"last_failure_at"`
	CheckedAt            time.Time  `json:"checked_at"`
}

// WebhookHealth returns the health of a webhook.
func (c *Client) WebhookHealth(ctx context.Context, id string) (*WebhookHealth, error) {
	return one[WebhookHealth](ctx, c, call{method: http.MethodGet, path: []string{"webhooks", id, "health"}})
}

// WebhookAnalytics is how deliveries fared in a time (contract section 3.8). Tests
// are left out.
type WebhookAnalytics struct {
	DateFrom time.Time `json:"date_from"`
	DateTo   time.Time `json:"date_to"`
	Metrics  struct {
		TotalDeliveries      int64            `json:"total_deliveries"` // attempts, not events
		SuccessfulDeliveries int64            `json:"successful_deliveries"`
		FailedDeliveries     int64            `json:"failed_deliveries"`
		SuccessRate          float64          `json:"success_rate"`          // percent; 100 without an attempt
		AverageResponseTime  float64          `json:"average_response_time"` // milliseconds
		ByStatus             map[string]int64 `json:"deliveries_by_status"`  // what is owed and was given up unsent included
		ByEventType          map[string]int64 `json:"deliveries_by_event_type"`
		Timeline             []struct {
			Date       string `json:"date"` // UTC, as 2026-03-09
			Successful int64  `json:"successful"`
			Failed     int64  `json:"failed"`
		} `json:"deliveries_timeline"` // oldest first; days without attempts are left out
		ResponseTime struct {
			P50 int64 `json:"p50"`
			P90 int64 `json:"p90"`
			P95 int64 `json:"p95"`
			P99 int64 `json:"p99"`
		} `json:"response_time_percentiles"` // milliseconds
	} `json:"metrics"`
}

// WebhookAnalytics measures the deliveries of a webhook, or with an empty id those
// of all. A zero from is 30 days before to, a zero to is now.
func (c *Client) WebhookAnalytics(ctx context.Context, id string, from, to time.Time) (*WebhookAnalytics, error) {
	q := make(query)
	q.time("date_from", from)
	q.time("date_to", to)
	path := []string{"webhooks", "analytics"}
	if id != "" {
		path = []string{"webhooks", id, "analytics"}
	}
	return one[WebhookAnalytics](ctx, c, call{method: http.MethodGet, path: path, query: url.Values(q)})
}

// TestResult is what came of a test delivery. A nil pointer means that it did
// not get that far.
type TestResult struct {
	TestID         string     `json:"test_id"` // the event_id of the test event
	DeliveryID     string     `json:"delivery_id"`
	Success        bool       `json:"success"`
	StatusCode     *int       `json:"status_code"`
	ResponseTimeMS *int64     `json:"response_time_ms"`
	ResponseBody   *string    `json:"response_body"`
	ErrorMessage   *string    `json:"error_message"`
	TestedAt       *time.Time `json:"tested_at"`
}

// TestWebhook sends a webhook.test event to the receiver, now and once. A
// receiver that fails is not an error: look at Success. Without
// WithIdempotencyKey it is not sent again after a lost connection.
func (c *Client) TestWebhook(ctx context.Context, id string, opts ...CallOption) (*TestResult, error) {
	return one[TestResult](ctx, c, call{method: http.MethodPost, path: []string{"webhooks", id, "test"}, in: struct{}{}}, opts...)
}

// TestEvent is what SendTestEvent sends. EventType is required, and WebhookID or URL.
type TestEvent struct {
	EventType string `json:"test_event_type"`
	WebhookID string `json:"webhook_id,omitempty"`   // signs with its secret; without URL its receiver is called
	URL       string `json:"override_url,omitempty"` // another receiver
	Payload   any    `json:"test_payload,omitempty"` // encodes to an object, the envelope's data; that of a test event if nil
}

// SendTestEvent sends an event of the caller's making to a receiver, now and
// once. Nothing is recorded. A receiver that fails is not an error: look at
// Success. Without WithIdempotencyKey it is not sent again after a lost
// connection.
func (c *Client) SendTestEvent(ctx context.Context, in TestEvent, opts ...CallOption) (*TestResult, error) {
	return one[TestResult](ctx, c, call{method: http.MethodPost, path: []string{"webhooks", "test"}, in: in}, opts...)
}

// RotateSecret replaces the signing secret and returns the new one, which is
// not shown again. A grace keeps the old one valid for that time, at most seven
// days, so that receivers can change over; without it, and with AlgaPSA always,
// the old one ends at once. Whole seconds count.
//
// Without WithIdempotencyKey it is not sent again after a lost connection: that
// would rotate twice.
func (c *Client) RotateSecret(ctx context.Context, id string, grace time.Duration, opts ...CallOption) (string, error) {
	a := call{method: http.MethodPost, path: []string{"webhooks", id, "secret", "rotate"}}
	if grace > 0 {
		a.in = map[string]int64{"grace_period_seconds": int64(grace / time.Second)}
	}
	answer, err := one[struct {
		SigningSecret string `json:"signing_secret"`
	}](ctx, c, a, opts...)
	if err != nil {
		return "", err
	}
	return answer.SigningSecret, nil
}

// PromoteSecret ends the grace period of a rotation: the old secret stops being
// valid. Without a grace period it changes nothing. Ticketwire only.
func (c *Client) PromoteSecret(ctx context.Context, id string) error {
	return c.do(ctx, call{method: http.MethodPost, path: []string{"webhooks", id, "secret", "promote"}}, nil)
}

// Delivery is one attempt to deliver an event (contract section 3.9).
type Delivery struct {
	DeliveryID         string          `json:"delivery_id"` // = X-Alga-Delivery-Id
	WebhookID          string          `json:"webhook_id"`
	EventID            string          `json:"event_id"`
	EventType          string          `json:"event_type"`
	TicketID           *string         `json:"ticket_id"`   // Ticketwire only
	Status             string          `json:"status"`      // pending, delivered, retrying, abandoned
	WaitReason         *string         `json:"wait_reason"` // Ticketwire only: why a pending attempt waits, or an abandoned one was never sent
	AttemptNumber      int             `json:"attempt_number"`
	RequestHeaders     json.RawMessage `json:"request_headers"`
	RequestBody        json.RawMessage `json:"request_body"`
	ResponseStatusCode *int            `json:"response_status_code"`
	ResponseHeaders    json.RawMessage `json:"response_headers"`
	ResponseBody       *string         `json:"response_body"`
	DurationMS         *int64          `json:"duration_ms"`
	ErrorType          *string         `json:"error_type"` // Ticketwire only
	ErrorMessage       *string         `json:"error_message"`
	NextRetryAt        *time.Time      `json:"next_retry_at"`
	IsTest             bool            `json:"is_test"`
	IsManual           bool            `json:"is_manual"`    // Ticketwire only: a retry by hand, or a replay
	AttemptedAt        *time.Time      `json:"attempted_at"` // nil while it is pending
	CompletedAt        *time.Time      `json:"completed_at"`
}

// UnmarshalJSON reads an attempt. AlgaPSA's published code spells the keys of the
// log in camel case (contract section 3.9).
func (d *Delivery) UnmarshalJSON(b []byte) error {
	type plain Delivery // without this method
	var p plain
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	if p.DeliveryID == "" {
		var keys map[string]json.RawMessage
		if err := json.Unmarshal(b, &keys); err != nil {
			return err
		}
		spelt := make(map[string]json.RawMessage, len(keys))
		for k, v := range keys {
			spelt[snakeCase(k)] = v
		}
		again, err := json.Marshal(spelt)
		if err == nil {
			err = json.Unmarshal(again, &p)
		}
		if err != nil {
			return err
		}
	}
	*d = Delivery(p)
	return nil
}

func snakeCase(key string) string {
	var b strings.Builder
	for _, r := range key {
		if unicode.IsUpper(r) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// DeliveryFilter restricts Deliveries. Unset fields do not restrict.
type DeliveryFilter struct {
	Status   string // a Delivery's status; "failed" means retrying and abandoned
	From, To time.Time

	EventType, EventID, TicketID string // Ticketwire only, like what follows
	StatusCode                   string // of the receiver, or a class of them such as 5xx
	ErrorType                    string // a Delivery's
}

func (f DeliveryFilter) values() url.Values {
	q := make(query)
	q.text("status", f.Status)
	q.time("from_date", f.From)
	q.time("to_date", f.To)
	q.text("event_type", f.EventType)
	q.text("event_id", f.EventID)
	q.text("ticket_id", f.TicketID)
	q.text("status_code", f.StatusCode)
	q.text("error_type", f.ErrorType)
	return url.Values(q)
}

func (f DeliveryFilter) wants(d *Delivery) bool {
	switch f.Status {
	case "":
		return true
	case "failed":
		return d.Status == "retrying" || d.Status == "abandoned"
	}
	return d.Status == f.Status
}

// Deliveries walks through the attempts of a webhook, newest first. An error
// comes as the last pair. AlgaPSA does not apply the filter (contract section 5,
// D13), so the status is compared here again.
func (c *Client) Deliveries(ctx context.Context, webhookID string, f DeliveryFilter) iter.Seq2[*Delivery, error] {
	return func(yield func(*Delivery, error) bool) {
		for d, err := range pages[Delivery](ctx, c, f.values(), "webhooks", webhookID, "deliveries") {
			if (err != nil || f.wants(d)) && !yield(d, err) {
				return
			}
		}
	}
}

// DeliveryPage is one page of a webhook's deliveries.
type DeliveryPage struct {
	Data    []Delivery
	HasNext bool // whether there is a page behind this one
}

// DeliveriesPage returns page n, from 1, of the attempts of a webhook, with at
// most limit of them, 1 to 100; there may be fewer although more are behind it.
// It is for those who pace the requests of a walk themselves; Deliveries makes
// the whole walk.
func (c *Client) DeliveriesPage(ctx context.Context, webhookID string, f DeliveryFilter, n, limit int) (*DeliveryPage, error) {
	q := f.values()
	q.Set("limit", strconv.Itoa(limit))
	p, err := onePage[Delivery](ctx, c, q, n, "webhooks", webhookID, "deliveries")
	if err != nil {
		return nil, err
	}
	unwanted := func(d Delivery) bool { return !f.wants(&d) }
	return &DeliveryPage{Data: slices.DeleteFunc(p.Data, unwanted), HasNext: p.Pagination.HasNext}, nil
}

// Delivery returns one attempt. Ticketwire knows those of a deleted webhook too,
// until retention removes them.
func (c *Client) Delivery(ctx context.Context, webhookID, deliveryID string) (*Delivery, error) {
	return one[Delivery](ctx, c, call{method: http.MethodGet, path: []string{"webhooks", webhookID, "deliveries", deliveryID}})
}

// RetryDelivery sends a failed delivery again, now, and returns the new attempt,
// which the receiver accepted. Where it did not, the error is a 502 whose Details
// are the attempt; a delivery that cannot be retried is a 409. Without
// WithIdempotencyKey it is not sent again after a lost connection.
func (c *Client) RetryDelivery(ctx context.Context, webhookID, deliveryID string, opts ...CallOption) (*Delivery, error) {
	return one[Delivery](ctx, c, call{method: http.MethodPost, path: []string{"webhooks", webhookID, "deliveries", deliveryID, "retry"}}, opts...)
}
