package api

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/ticketwire/ticketwire/internal/cutover"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/webhook"
)

// cutoverReportRoutes keep reports of cutovers for people to read in the console.
// They are ours.
func (s *Server) cutoverReportRoutes() []route {
	return []route{
		{http.MethodGet, "/cutover-reports", "webhook", "read", (*call).listCutoverReports},
		{http.MethodPost, "/cutover-reports", "webhook", "update", (*call).publishCutoverReport},
		{http.MethodGet, "/cutover-reports/{id}", "webhook", "read", (*call).getCutoverReport},
		{http.MethodDelete, "/cutover-reports/{id}", "webhook", "update", (*call).deleteCutoverReport},
	}
}

// cutoverReportRecord is a report as lists show it, and the report itself where one
// was asked for.
type cutoverReportRecord struct {
	ReportID    string          `json:"report_id"`
	Verdict     string          `json:"verdict"`
	Headline    string          `json:"headline"`
	Server      string          `json:"server"`
	WebhookID   string          `json:"webhook_id"`
	WindowFrom  *webhook.Time   `json:"window_from"`
	WindowTo    webhook.Time    `json:"window_to"`
	PublishedBy string          `json:"published_by"`
	PublishedAt webhook.Time    `json:"published_at"`
	Report      json.RawMessage `json:"report,omitempty"`
}

func viewCutoverReport(r store.CutoverReport) cutoverReportRecord {
	return cutoverReportRecord{
		ReportID: r.ReportID, Verdict: r.Verdict, Headline: r.Headline, Server: r.Server, WebhookID: r.WebhookID,
		WindowFrom: wireTime(r.WindowFrom), WindowTo: webhook.At(r.WindowTo), PublishedBy: r.PublishedBy, PublishedAt: webhook.At(r.PublishedAt),
	}
}

func (c *call) listCutoverReports() (answer, error) {
	list, err := c.store().CutoverReports(c.ctx, c.tenant())
	if err != nil {
		return answer{}, err
	}
	records := make([]cutoverReportRecord, len(list))
	for i, r := range list {
		records[i] = viewCutoverReport(r)
	}
	return ok(records), nil
}

// publishCutoverReport takes the report itself as the body. What it does not know is
// refused and not dropped: a part that is missing would be missed by nobody.
func (c *call) publishCutoverReport() (answer, error) {
	raw, err := c.readBody()
	if err != nil {
		return answer{}, err
	}
	report, err := cutover.ParseReport(raw)
	if err != nil {
		return answer{}, err
	}
	body, err := json.Marshal(report)
	if err != nil {
		return answer{}, err
	}
	return change(c,
		func(ctx context.Context) (store.CutoverReport, error) {
			return c.store().PublishCutoverReport(ctx, c.now, c.who.Actor(), body)
		},
		func(r store.CutoverReport) answer { return created(viewCutoverReport(r)) })
}

func (c *call) getCutoverReport() (answer, error) {
	id, err := c.id("id", "cutover report")
	if err != nil {
		return answer{}, err
	}
	r, err := c.store().CutoverReport(c.ctx, c.tenant(), id)
	if err != nil {
		return answer{}, err
	}
	record := viewCutoverReport(r)
	record.Report = r.Body
	return ok(record), nil
}

func (c *call) deleteCutoverReport() (answer, error) {
	id, err := c.id("id", "cutover report")
	if err != nil {
		return answer{}, err
	}
	return change(c,
		func(ctx context.Context) (struct{}, error) {
			return struct{}{}, c.store().DeleteCutoverReport(ctx, c.tenant(), id)
		},
		func(struct{}) answer { return noContent() })
}
