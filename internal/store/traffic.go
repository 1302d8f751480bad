package store

import (
	"context"
	"fmt"
	"time"
)

// trafficLife is how long the minutes of traffic are kept.
const trafficLife = 25 * time.Hour

// latencyClasses is how many classes of durations are told apart.
const latencyClasses = 11

// LatencyBounds returns the upper bounds of Minute.Latency in milliseconds. The
// class after the last bound is open.
func LatencyBounds() [latencyClasses - 1]int64 {
	return [...]int64{10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000}
}

// Minute is what the attempts that ended in one minute came to, tests left out.
type Minute struct {
	Start             time.Time
	Delivered, Failed int64
	Latency           [latencyClasses]int64 // attempts by duration, see LatencyBounds
}

// minuteKey is a row of delivery_minutes.
type minuteKey struct {
	tenant string
	minute int64
}

// count notes one attempt.
func (m *Minute) count(ok bool, took time.Duration) {
	if ok {
		m.Delivered++
	} else {
		m.Failed++
	}
	class := 0
	for _, bound := range LatencyBounds() {
		if took.Milliseconds() < bound {
			break
		}
		class++
	}
	m.Latency[class]++
}

// addMinutes adds what a batch of results came to.
func (t *tx) addMinutes(minutes map[minuteKey]*Minute) error {
	for k, m := range minutes {
		args := []any{k.tenant, k.minute, m.Delivered, m.Failed}
		for _, n := range m.Latency {
			args = append(args, n)
		}
		if err := t.change("count attempts by minute", `
			insert into delivery_minutes (tenant_id, minute, delivered, failed, under_10, under_25, under_50, under_100,
				under_250, under_500, under_1000, under_2500, under_5000, under_10000, slower)
			values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
			on conflict (tenant_id, minute) do update set
				delivered = delivery_minutes.delivered + excluded.delivered,
				failed = delivery_minutes.failed + excluded.failed,
				under_10 = delivery_minutes.under_10 + excluded.under_10,
				under_25 = delivery_minutes.under_25 + excluded.under_25,
				under_50 = delivery_minutes.under_50 + excluded.under_50,
				under_100 = delivery_minutes.under_100 + excluded.under_100,
				under_250 = delivery_minutes.under_250 + excluded.under_250,
				under_500 = delivery_minutes.under_500 + excluded.under_500,
				under_1000 = delivery_minutes.under_1000 + excluded.under_1000,
				under_2500 = delivery_minutes.under_2500 + excluded.under_2500,
				under_5000 = delivery_minutes.under_5000 + excluded.under_5000,
				under_10000 = delivery_minutes.under_10000 + excluded.under_10000,
				slower = delivery_minutes.slower + excluded.slower`, args...); err != nil {
			return err
		}
	}
	return nil
}

// Traffic returns the minutes of a tenant from the one that holds from on, oldest
// first. Minutes without attempts are left out, and so is what is more than a day
// ago.
func (s *Store) Traffic(ctx context.Context, tenant string, from time.Time) ([]Minute, error) {
	rows, err := s.reader(ctx).query(`select minute, delivered, failed, under_10, under_25, under_50, under_100,
			under_250, under_500, under_1000, under_2500, under_5000, under_10000, slower
		from delivery_minutes where tenant_id = $1 and minute >= $2 order by minute`, tenant, from.Unix()/60)
	list, err := collect(rows, err, func(row scanner) (m Minute, err error) {
		var minute int64
		dest := []any{&minute, &m.Delivered, &m.Failed}
		for i := range m.Latency {
			dest = append(dest, &m.Latency[i])
		}
		err = row.Scan(dest...)
		m.Start = time.Unix(minute*60, 0).UTC()
		return m, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the traffic: %w", err)
	}
	return list, nil
}

// maxOwed bounds how many pending rows are counted for a page.
const maxOwed = 100_000

// Queue is what waits for one webhook, or for all webhooks of a tenant.
type Queue struct {
	Pending   int64      // rows that wait for their attempt, due or not; counted up to 100,000
	OldestDue *time.Time // when the first of them is or was due; nil without any
	Waits     string     // delivery.WaitRateLimited or WaitBreakerOpen while they hold the webhook up; "" otherwise
}

// Queue says what one webhook is owed.
func (s *Store) Queue(ctx context.Context, now time.Time, l Lane) (Queue, error) {
	s.show(ctx, l.TenantID, l.WebhookID)
	return s.queueOf(s.reader(ctx), now, l)
}

func (s *Store) queueOf(r *reader, now time.Time, l Lane) (q Queue, err error) {
	var oldest, until *int64
	err = r.row(`select
			(select count(*) from (select 1 from deliveries d where d.tenant_id = h.tenant_id and d.webhook_id = h.webhook_id
				and d.status = 'pending' limit $1) n),
			(select min(d.due_at) from deliveries d where d.tenant_id = h.tenant_id and d.webhook_id = h.webhook_id
				and d.status = 'pending'),
			h.wait_reason, h.wait_until
		from webhook_health h where h.tenant_id = $2 and h.webhook_id = $3`,
		maxOwed, l.TenantID, lowerID(l.WebhookID)).Scan(&q.Pending, &oldest, &q.Waits, &until)
	if err != nil {
		return Queue{}, found(err, "Webhook not found")
	}
	if oldest != nil {
		q.OldestDue = new(instant(*oldest))
	}
	if q.Pending == 0 || until != nil && *until < micros(now) {
		q.Waits = ""
	}
	return q, nil
}

// Owed says what all webhooks of a tenant together are owed.
func (s *Store) Owed(ctx context.Context, tenant string) (q Queue, err error) {
	s.show(ctx, tenant, "")
	var oldest *int64
	err = s.reader(ctx).row(`select
			(select count(*) from (select 1 from deliveries d where d.tenant_id = $1 and d.status = 'pending' limit $2) n),
			(select min(head) from (select (select min(d.due_at) from deliveries d where d.tenant_id = w.tenant_id
				and d.webhook_id = w.webhook_id and d.status = 'pending') as head from webhooks w where w.tenant_id = $1) heads)`,
		tenant, maxOwed).Scan(&q.Pending, &oldest)
	if err != nil {
		return Queue{}, fmt.Errorf("count what is owed: %w", err)
	}
	if oldest != nil {
		q.OldestDue = new(instant(*oldest))
	}
	return q, nil
}
