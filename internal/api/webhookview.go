package api

import (
	"encoding/json"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/webhook"
)

// What records say about the fields with one possible value.
const (
	payloadFormat = "json"
	contentType   = "application/json"
)

// webhookRecord is the record of contract section 3.3 with rate_limit,
// rate_limit_per_min, and the signing secret on create only. It has no security
// block, because that could only echo a secret (contract D35).
type webhookRecord struct {
	WebhookID             string                 `json:"webhook_id"`
	Tenant                string                 `json:"tenant"`
	Name                  string                 `json:"name"`
	Description           *string                `json:"description"`
	URL                   string                 `json:"url"`
	Method                string                 `json:"method"`
	EventTypes            []string               `json:"event_types"`
	PayloadFormat         string                 `json:"payload_format"`
	ContentType           string                 `json:"content_type"`
	CustomHeaders         map[string]string      `json:"custom_headers"`
	EventFilter           *delivery.Filter       `json:"event_filter"`
	PayloadFields         delivery.PayloadFields `json:"payload_fields"`
	PayloadTransformation *struct{}              `json:"payload_transformation"` // always null
	RetryConfig           *delivery.RetryConfig  `json:"retry_config"`
	RateLimit             *delivery.RateLimit    `json:"rate_limit"`
	RateLimitPerMin       *int                   `json:"rate_limit_per_min"` // null: no limit
	IsActive              bool                   `json:"is_active"`
	IsTestMode            bool                   `json:"is_test_mode"`
	VerifySSL             bool                   `json:"verify_ssl"`
	TLS                   *tlsView               `json:"tls"`
	Metadata              json.RawMessage        `json:"metadata"`
	Tags                  []string               `json:"tags"`
	TotalDeliveries       int64                  `json:"total_deliveries"`
	SuccessfulDeliveries  int64                  `json:"successful_deliveries"`
	FailedDeliveries      int64                  `json:"failed_deliveries"`
	LastDeliveryAt        *webhook.Time          `json:"last_delivery_at"`
	LastSuccessAt         *webhook.Time          `json:"last_success_at"`
	LastFailureAt         *webhook.Time          `json:"last_failure_at"`
	AutoDisabledAt        *webhook.Time          `json:"auto_disabled_at"`
	DisabledAt            *webhook.Time          `json:"disabled_at"`
	DisabledReason        *string                `json:"disabled_reason"` // user, failures or gone; null while active
	CreatedBy             string                 `json:"created_by"`
	CreatedAt             webhook.Time           `json:"created_at"`
	UpdatedAt             webhook.Time           `json:"updated_at"`
	SigningSecret         *string                `json:"signing_secret,omitempty"`
}

// webhookRecord renders w for the caller. The values of custom headers may be
// credentials: only who could replace them gets to see them.
func (c *call) webhookRecord(w *delivery.Webhook) webhookRecord {
	r := webhookRecord{
		WebhookID: w.WebhookID, Tenant: w.TenantID, Name: w.Name, Description: w.Description,
		URL: w.URL, Method: w.Method, EventTypes: w.EventTypes,
		PayloadFormat: payloadFormat, ContentType: contentType, CustomHeaders: w.CustomHeaders,
		EventFilter: w.EventFilter, PayloadFields: w.PayloadFields, RetryConfig: w.RetryConfig, RateLimit: w.RateLimit,
		IsActive: w.IsActive, IsTestMode: w.IsTestMode, VerifySSL: w.VerifySSL, TLS: viewTLS(w.TLS), Metadata: w.Metadata, Tags: w.Tags,
		TotalDeliveries: w.TotalDeliveries, SuccessfulDeliveries: w.SuccessfulDeliveries, FailedDeliveries: w.FailedDeliveries,
		LastDeliveryAt: wireTime(w.LastDeliveryAt), LastSuccessAt: wireTime(w.LastSuccessAt), LastFailureAt: wireTime(w.LastFailureAt),
		AutoDisabledAt: wireTime(w.AutoDisabledAt), DisabledAt: wireTime(w.DisabledAt), DisabledReason: textOrNull(w.DisabledReason),
		CreatedBy: w.CreatedBy, CreatedAt: webhook.At(w.CreatedAt), UpdatedAt: webhook.At(w.UpdatedAt),
	}
	if perMin, _, limited := w.RateLimit.PerMinute(); limited {
		r.RateLimitPerMin = &perMin
	}
	if len(w.CustomHeaders) == 0 {
		r.CustomHeaders = nil
	} else if !c.who.Can("webhook", "update") {
		r.CustomHeaders = make(map[string]string, len(w.CustomHeaders))
		for name := range w.CustomHeaders {
			r.CustomHeaders[name] = hidden
		}
	}
	return r
}

// healthView is the answer of contract section 3.8.
type healthView struct {
	WebhookID            string        `json:"webhook_id"`
	Status               string        `json:"status"`
	IsActive             bool          `json:"is_active"`
	AutoDisabledAt       *webhook.Time `json:"auto_disabled_at"`
	TotalDeliveries      int64         `json:"total_deliveries"`
	SuccessfulDeliveries int64         `json:"successful_deliveries"`
	FailedDeliveries     int64         `json:"failed_deliveries"`
	SuccessRate          float64       `json:"success_rate"` // 0..1 here, 0..100 in analytics (contract D29)
	LastDeliveryAt       *webhook.Time `json:"last_delivery_at"`
	LastSuccessAt        *webhook.Time `json:"last_success_at"`
	LastFailureAt        *webhook.Time `json:"last_failure_at"`
	CheckedAt            webhook.Time  `json:"checked_at"`
}

func viewHealth(w *delivery.Webhook, now time.Time) healthView {
	return healthView{
		WebhookID: w.WebhookID, Status: delivery.HealthStatus(w), IsActive: w.IsActive, AutoDisabledAt: wireTime(w.AutoDisabledAt),
		TotalDeliveries: w.TotalDeliveries, SuccessfulDeliveries: w.SuccessfulDeliveries, FailedDeliveries: w.FailedDeliveries,
		SuccessRate: w.SuccessRate(), LastDeliveryAt: wireTime(w.LastDeliveryAt),
		LastSuccessAt: wireTime(w.LastSuccessAt), LastFailureAt: wireTime(w.LastFailureAt), CheckedAt: webhook.At(now),
	}
}

// wireTime renders an instant that may be missing.
func wireTime(t *time.Time) *webhook.Time {
	if t == nil {
		return nil
	}
	return new(webhook.At(*t))
}

// textOrNull renders "" as null.
func textOrNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
