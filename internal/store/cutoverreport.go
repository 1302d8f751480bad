package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// MaxCutoverReports is how many reports a tenant may have.
const MaxCutoverReports = 100

// CutoverReport is a published report of a cutover. What it says is for
// internal/cutover; here are the parts that lists show.
type CutoverReport struct {
	TenantID    string
	ReportID    string
	PublishedBy string // a user's id
	PublishedAt time.Time
	Verdict     string
	Headline    string
	Server      string // that the cutover is about; it need not be this one
	WebhookID   string // of that server
	WindowFrom  *time.Time
	WindowTo    time.Time
	Body        []byte // JSON; nil in lists
}

// noCutoverReport is the message for an id that the tenant does not have.
const noCutoverReport = "Cutover report not found"

// PublishCutoverReport keeps a report, as internal/cutover has read and written it,
// for the actor's tenant. A tenant that has MaxCutoverReports gets a Conflict.
func (s *Store) PublishCutoverReport(ctx context.Context, now time.Time, by ticket.Actor, body []byte) (CutoverReport, error) {
	var head struct {
		Verdict   string `json:"verdict"`
		Headline  string `json:"headline"`
		Server    string `json:"server"`
		WebhookID string `json:"webhook_id"`
		Window    struct {
			From *time.Time `json:"from"`
			To   time.Time  `json:"to"`
		} `json:"window"`
	}
	if err := json.Unmarshal(body, &head); err != nil {
		return CutoverReport{}, fmt.Errorf("read a cutover report: %w", err)
	}
	return write(ctx, s, func(t *tx) (CutoverReport, error) {
		have := 0
		if err := t.row(`select count(*) from cutover_reports where tenant_id = $1`, by.TenantID).Scan(&have); err != nil {
			return CutoverReport{}, fmt.Errorf("count cutover reports: %w", err)
		}
		if have >= MaxCutoverReports {
			return CutoverReport{}, fault.New(fault.Conflict, "There are %d cutover reports, and no more are kept; delete one first", have)
		}
		id := NewID()
		if err := t.change("insert into cutover_reports", `
			insert into cutover_reports (tenant_id, report_id, published_by, published_at, verdict, headline, server, webhook_id,
				window_from, window_to, body)
			values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
			by.TenantID, id, by.UserID, micros(now), head.Verdict, head.Headline, head.Server, head.WebhookID,
			microsPtr(head.Window.From), micros(head.Window.To), body); err != nil {
			return CutoverReport{}, err
		}
		return cutoverReportOf(t, by.TenantID, id)
	})
}

const cutoverReportColumns = `select tenant_id, report_id, published_by, published_at, verdict, headline, server, webhook_id,
	window_from, window_to`

func scanCutoverReport(row scanner, more ...any) (CutoverReport, error) {
	var r CutoverReport
	var published, to int64
	var from sql.NullInt64
	err := row.Scan(append([]any{
		&r.TenantID, &r.ReportID, &r.PublishedBy, &published, &r.Verdict, &r.Headline, &r.Server, &r.WebhookID, &from, &to,
	}, more...)...)
	r.PublishedAt, r.WindowFrom, r.WindowTo = instant(published), instantPtr(from), instant(to)
	return r, err
}

// CutoverReports returns the tenant's reports without their bodies, newest first.
func (s *Store) CutoverReports(ctx context.Context, tenant string) ([]CutoverReport, error) {
	rows, err := s.reader(ctx).query(cutoverReportColumns+` from cutover_reports where tenant_id = $1
		order by published_at desc, report_id desc`, tenant)
	return collect(rows, err, func(row scanner) (CutoverReport, error) { return scanCutoverReport(row) })
}

// CutoverReport returns one report with its body.
func (s *Store) CutoverReport(ctx context.Context, tenant, id string) (CutoverReport, error) {
	return cutoverReportOf(s.reader(ctx), tenant, id)
}

func cutoverReportOf(q querier, tenant, id string) (CutoverReport, error) {
	var body []byte
	r, err := scanCutoverReport(q.row(cutoverReportColumns+`, body from cutover_reports
		where tenant_id = $1 and report_id = $2`, tenant, lowerID(id)), &body)
	r.Body = body
	return r, found(err, noCutoverReport)
}

// DeleteCutoverReport removes a report.
func (s *Store) DeleteCutoverReport(ctx context.Context, tenant, id string) error {
	_, err := write(ctx, s, func(t *tx) (struct{}, error) {
		n, err := t.exec(`delete from cutover_reports where tenant_id = $1 and report_id = $2`, tenant, lowerID(id))
		if err == nil && n == 0 {
			err = fault.New(fault.NotFound, noCutoverReport)
		}
		return struct{}{}, err
	})
	return err
}
