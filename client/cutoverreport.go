package client

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// CutoverReport is a published report of a cutover, without the report itself.
// AlgaPSA has none.
type CutoverReport struct {
	ReportID    string     `json:"report_id"`
	Verdict     string     `json:"verdict"` // GO, GO WITH RECONCILER, EXTEND or NO-GO
	Headline    string     `json:"headline"`
	Server      string     `json:"server"`
	WebhookID   string     `json:"webhook_id"`
	WindowFrom  *time.Time `json:"window_from"` // nil when both pipelines had not run together yet
	WindowTo    time.Time  `json:"window_to"`
	PublishedBy string     `json:"published_by"` // a user's id
	PublishedAt time.Time  `json:"published_at"`
}

// PublishCutoverReport keeps a report, as ticketwire cutover report --format json
// writes it, where the tenant's people can read it. Without WithIdempotencyKey it is
// not sent again after a lost connection.
func (c *Client) PublishCutoverReport(ctx context.Context, report json.RawMessage, opts ...CallOption) (*CutoverReport, error) {
	return one[CutoverReport](ctx, c, call{method: http.MethodPost, path: []string{"cutover-reports"}, in: report}, opts...)
}
