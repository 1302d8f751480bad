package store

import (
	"context"
	"fmt"
	"math"
	"time"
)

// Analytics are the metrics of contract section 3.8, computed from the rows of
// the log. Tests are left out. The totals, the timeline and the times are about
// attempts that were sent; ByStatus and ByEventType also count what is owed or
// was given up unsent.
type Analytics struct {
	From, To           time.Time
	Total              int
	Successful, Failed int
	SuccessRate        float64 // percent, two decimals; 100 without attempts
	AverageMS          float64 // of the whole exchange, two decimals; 0 without attempts
	ByStatus           map[string]int
	ByEventType        map[string]int
	Timeline           []Day // oldest first, days without attempts left out
	P50, P90, P95, P99 int64 // milliseconds, nearest rank; 0 without attempts
}

// Day is one day, in UTC, of a timeline.
type Day struct {
	Date               string // 2006-01-02
	Successful, Failed int
}

// microsPerDay stands in the text of a statement too.
const microsPerDay = 86_400_000_000

// analyticsRows is every row of the tenant in the time range. It goes through
// the webhooks so that the log's index serves both one of them and all; a cross
// join is what makes SQLite keep that order.
const analyticsRows = ` from webhooks w cross join deliveries d
	where w.tenant_id = $1 and ($2 = '' or w.webhook_id = $2) and d.tenant_id = w.tenant_id and d.webhook_id = w.webhook_id
		and coalesce(d.attempted_at, d.due_at) >= $3 and coalesce(d.attempted_at, d.due_at) <= $4 and not d.is_test`

// Analytics sums up the log between two instants, both inclusive, of one webhook
// or, with an empty webhookID, of all the tenant's, deleted ones included.
func (s *Store) Analytics(ctx context.Context, tenant, webhookID string, from, to time.Time) (Analytics, error) {
	a := Analytics{From: from, To: to, ByStatus: map[string]int{}, ByEventType: map[string]int{}, Timeline: []Day{}}
	r := s.reader(ctx)
	if webhookID != "" {
		if _, err := closedOf(r, tenant, webhookID); err != nil {
			return Analytics{}, err
		}
	}
	s.show(ctx, tenant, lowerID(webhookID))
	args := []any{tenant, lowerID(webhookID), micros(from), micros(to)}
	if err := a.counts(r, args); err != nil {
		return Analytics{}, fmt.Errorf("analytics: %w", err)
	}
	if err := a.timeline(r, args); err != nil {
		return Analytics{}, fmt.Errorf("analytics: %w", err)
	}
	if err := a.durations(r, args); err != nil {
		return Analytics{}, fmt.Errorf("analytics: %w", err)
	}
	a.SuccessRate = 100
	if a.Total > 0 {
		a.SuccessRate = math.Round(10000*float64(a.Successful)/float64(a.Total)) / 100
	}
	return a, nil
}

func (a *Analytics) counts(r *reader, args []any) error {
	rows, err := r.query(`select d.status, d.event_type, count(*)`+analyticsRows+` group by d.status, d.event_type`, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var status, eventType string
		var n int
		if err := rows.Scan(&status, &eventType, &n); err != nil {
			return err
		}
		a.ByStatus[status] += n
		a.ByEventType[eventType] += n
	}
	return rows.Err()
}

func (a *Analytics) timeline(r *reader, args []any) error {
	rows, err := r.query(`select d.attempted_at / 86400000000, sum(case when d.status = 'delivered' then 1 else 0 end), count(*)`+
		analyticsRows+` and d.attempted_at is not null group by d.attempted_at / 86400000000 order by 1`, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var day int64
		var ok, all int
		if err := rows.Scan(&day, &ok, &all); err != nil {
			return err
		}
		a.Timeline = append(a.Timeline, Day{
			Date: instant(day * microsPerDay).Format(time.DateOnly), Successful: ok, Failed: all - ok,
		})
		a.Total += all
		a.Successful += ok
		a.Failed += all - ok
	}
	return rows.Err()
}

// durations reads how often each duration occurs: in milliseconds there are few
// different ones, however long the log is.
func (a *Analytics) durations(r *reader, args []any) error {
	rows, err := r.query(`select d.duration_ms, count(*)`+analyticsRows+`
		and d.duration_ms is not null group by d.duration_ms order by d.duration_ms`, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	type bin struct{ ms, n int64 }
	var bins []bin
	var all, sum int64
	for rows.Next() {
		var b bin
		if err := rows.Scan(&b.ms, &b.n); err != nil {
			return err
		}
		bins = append(bins, b)
		all += b.n
		sum += b.ms * b.n
	}
	if err := rows.Err(); err != nil || all == 0 {
		return err
	}
	a.AverageMS = math.Round(100*float64(sum)/float64(all)) / 100
	percentile := func(p float64) int64 {
		rank := int64(math.Ceil(p * float64(all)))
		for _, b := range bins {
			if rank -= b.n; rank <= 0 {
				return b.ms
			}
		}
		return bins[len(bins)-1].ms
	}
	a.P50, a.P90, a.P95, a.P99 = percentile(0.50), percentile(0.90), percentile(0.95), percentile(0.99)
	return nil
}
