package api

import (
	"time"

	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/webhook"
)

func (c *call) getHealth() (answer, error) {
	w, err := c.webhook()
	if err != nil {
		return answer{}, err
	}
	return ok(viewHealth(&w, c.now)), nil
}

// analyticsView is the answer of contract section 3.8.
type analyticsView struct {
	WebhookID string       `json:"webhook_id,omitempty"` // "" for all webhooks of the tenant
	DateFrom  webhook.Time `json:"date_from"`
	DateTo    webhook.Time `json:"date_to"`
	Metrics   metricsView  `json:"metrics"`
}

type metricsView struct {
	Total        int             `json:"total_deliveries"`
	Successful   int             `json:"successful_deliveries"`
	Failed       int             `json:"failed_deliveries"`
	SuccessRate  float64         `json:"success_rate"`          // percent with two decimals (contract D29)
	AverageMS    float64         `json:"average_response_time"` // milliseconds
	ByStatus     map[string]int  `json:"deliveries_by_status"`
	ByEventType  map[string]int  `json:"deliveries_by_event_type"`
	Timeline     []dayView       `json:"deliveries_timeline"`
	ResponseTime percentilesView `json:"response_time_percentiles"`
}

type dayView struct {
	Date       string `json:"date"` // UTC, YYYY-MM-DD
	Successful int    `json:"successful"`
	Failed     int    `json:"failed"`
}

// percentilesView is in milliseconds; all zero without an attempt.
type percentilesView struct {
	P50 int64 `json:"p50"`
	P90 int64 `json:"p90"`
	P95 int64 `json:"p95"`
	P99 int64 `json:"p99"`
}

// defaultPeriod is what analytics cover when no dates are given (contract
// section 3.2).
const defaultPeriod = 30 * 24 * time.Hour

func (c *call) webhookAnalytics() (answer, error) {
	w, err := c.webhook()
	if err != nil {
		return answer{}, err
	}
	return c.analytics(w.WebhookID)
}

func (c *call) tenantAnalytics() (answer, error) { return c.analytics("") }

func (c *call) analytics(webhookID string) (answer, error) {
	p := c.params()
	from, to := p.moment("date_from", false), p.moment("date_to", true)
	if to == nil {
		to = &c.now
	}
	if from == nil {
		from = new(to.Add(-defaultPeriod))
	}
	if from.After(*to) {
		p.issue("date_from", "custom", "date_from is after date_to", nil)
	}
	if err := p.err(); err != nil {
		return answer{}, err
	}
	a, err := c.store().Analytics(c.ctx, c.tenant(), webhookID, *from, *to)
	if err != nil {
		return answer{}, err
	}
	return ok(analyticsView{
		WebhookID: webhookID, DateFrom: webhook.At(*from), DateTo: webhook.At(*to), Metrics: viewMetrics(a),
	}), nil
}

func viewMetrics(a store.Analytics) metricsView {
	m := metricsView{
		Total: a.Total, Successful: a.Successful, Failed: a.Failed, SuccessRate: a.SuccessRate, AverageMS: a.AverageMS,
		ByStatus: a.ByStatus, ByEventType: a.ByEventType, Timeline: make([]dayView, len(a.Timeline)),
		ResponseTime: percentilesView{P50: a.P50, P90: a.P90, P95: a.P95, P99: a.P99},
	}
	for i, d := range a.Timeline {
		m.Timeline[i] = dayView(d)
	}
	return m
}
