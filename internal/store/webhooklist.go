package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/vault"
)

// WebhookQuery is the list query of contract section 3.2. A zero field does not
// filter; times and rates are inclusive.
type WebhookQuery struct {
	Name, URL                         string // contains, without case
	EventType                         string // subscribed to
	Query                             string // contained in name, URL or description, without case
	PayloadFormat                     string // every webhook is "json", so another one matches none
	IsActive, IsTestMode, HasFailures *bool
	LastDeliveryFrom, LastDeliveryTo  *time.Time
	RateMin, RateMax                  *float64 // share of successful attempts in percent, 100 before the first
	Sort                              string   // one of WebhookSortColumns; default "created_at"
	Desc                              bool
	WorstFirst                        bool // instead of Sort: switched off by us, failing, paused by hand, then the rest
	Page                              int  // from 1
	Limit                             int  // 1..100, default 25; more counts as 100
}

// WebhookSortColumns are the names that sort= accepts.
func WebhookSortColumns() []string {
	return []string{
		"created_at", "updated_at", "name", "url", "is_active", "total_deliveries", "successful_deliveries",
		"failed_deliveries", "last_delivery_at", "last_success_at", "last_failure_at",
	}
}

// Webhooks returns one page of the tenant's webhooks and how many match in all. One
// whose headers or credentials the key file does not open comes without them.
func (s *Store) Webhooks(ctx context.Context, tenant string, q WebhookQuery) ([]delivery.Webhook, int, error) {
	if q.Sort == "" {
		q.Sort = "created_at"
	}
	if !slices.Contains(WebhookSortColumns(), q.Sort) {
		return nil, 0, fault.Field("sort", "Unknown sort column %q", q.Sort)
	}
	w := &where{}
	w.and("w.tenant_id = ?", tenant)
	w.and("w.deleted_at is null")
	q.filter(w)
	r := s.reader(ctx)
	rows, err := r.list(`select count(*)`+webhookTables+` where `+w.String(), w.args...)
	counts, err := collect(rows, err, scanCount)
	if err != nil {
		return nil, 0, fmt.Errorf("count webhooks: %w", err)
	}
	order := " asc"
	if q.Desc {
		order = " desc"
	}
	// The id settles ties, so that pages neither repeat nor miss a row. Sort is
	// one of our own names, and each is a column of one of the two tables only.
	by := q.Sort + order + `, w.webhook_id` + order
	if q.WorstFirst {
		by = worstFirst
	}
	rows, err = r.list(`select `+webhookColumns+webhookTables+` where `+w.String()+` order by `+by+w.page(q.Page, min(q.Limit, maxLimit)), w.args...)
	scanned, err := collect(rows, err, func(row scanner) (webhookRow, error) {
		var r webhookRow
		err := row.Scan(r.dest()...)
		return r, err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("list webhooks: %w", err)
	}
	list := make([]delivery.Webhook, len(scanned))
	for i := range scanned {
		list[i], err = scanned[i].webhook(s)
		if errors.Is(err, vault.ErrUnopened) {
			list[i], err = scanned[i].closed()
		}
		if err != nil {
			return nil, 0, err
		}
	}
	return list, counts[0], nil
}

// worstFirst is the order of trouble, see delivery.HealthStatus; within it, whoever
// has been in trouble longest.
const worstFirst = `case when not w.is_active and w.disabled_reason <> 'user' then 0
		when w.is_active and h.last_failure_at > coalesce(h.last_success_at, 0) then 1
		when not w.is_active then 2 else 3 end,
	coalesce(w.disabled_at, h.failing_since, 0), w.name, w.webhook_id`

func (q *WebhookQuery) filter(w *where) {
	w.contains(q.Name, "w.name")
	w.contains(q.URL, "w.url")
	w.contains(q.Query, "w.name", "w.url", "coalesce(w.description, '')")
	if q.EventType != "" {
		// The names are distinct as JSON strings, and none is folded to another.
		w.contains(`"`+q.EventType+`"`, "w.event_types")
	}
	if q.PayloadFormat != "" && q.PayloadFormat != "json" {
		w.and("1 = 0")
	}
	if q.IsActive != nil {
		w.and("w.is_active = ?", *q.IsActive)
	}
	if q.IsTestMode != nil {
		w.and("w.is_test_mode = ?", *q.IsTestMode)
	}
	if q.HasFailures != nil {
		w.and("(h.failed_deliveries > 0) = ?", *q.HasFailures)
	}
	if q.LastDeliveryFrom != nil {
		w.and("h.last_delivery_at >= ?", micros(*q.LastDeliveryFrom))
	}
	if q.LastDeliveryTo != nil {
		w.and("h.last_delivery_at <= ?", micros(*q.LastDeliveryTo))
	}
	rate := "(case when h.total_deliveries = 0 then 100.0 else 100.0 * h.successful_deliveries / h.total_deliveries end)"
	if q.RateMin != nil {
		w.and(rate+" >= ?", *q.RateMin)
	}
	if q.RateMax != nil {
		w.and(rate+" <= ?", *q.RateMax)
	}
}
