package store

import (
	"context"
	"fmt"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/failpoint"
	"github.com/ticketwire/ticketwire/internal/fault"
)

// Result is what came of one claimed delivery.
type Result struct {
	Claimed
	Answer             delivery.Answer
	Verdict            delivery.Verdict
	StartedAt, EndedAt time.Time
	CustomHeaders      []string // the names of those that were sent; their values are not kept (contract P2)
}

// Recorded says what recording a Result did.
type Recorded struct {
	Lane
	Fenced      bool // the lease was lost: nothing was written, whoever holds it now records
	Disabled    bool // this failure switched the webhook off
	NoRecipient bool // it did, and there is nobody who could be mailed about it
}

// Record writes what came of a batch in one transaction: the attempts, the
// retries that follow, the health of the webhooks, and the end of those that
// have failed for too long, with the mail about it. The answers are in the order
// of the results.
func (s *Store) Record(ctx context.Context, results []Result) ([]Recorded, error) {
	if err := failpoint.Hit(failpoint.Record); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "The store cannot write now, try again")
	}
	return write(ctx, s, func(t *tx) ([]Recorded, error) {
		b := recording{tx: t, webhooks: map[Lane]*recorded{}, minutes: map[minuteKey]*Minute{}}
		b.spare(results)
		if t.w.s.dialect.server {
			if err := b.complete(results); err != nil {
				return nil, err
			}
			if err := b.load(results); err != nil {
				return nil, err
			}
		}
		out := make([]Recorded, len(results))
		for i := range results {
			var err error
			if out[i], err = b.record(&results[i]); err != nil {
				return nil, fmt.Errorf("record delivery %s: %w", results[i].DeliveryID, err)
			}
		}
		return out, b.save()
	})
}

// recording is the state of one Record: each webhook is read and written once
// per batch.
type recording struct {
	tx       *tx
	held     map[string]bool // deliveries of the queue that complete has found held; nil: none were asked for
	webhooks map[Lane]*recorded
	minutes  map[minuteKey]*Minute
}

type recorded struct {
	delivery.Webhook      // empty when it is spared
	gone             bool // deleted: only the log is kept
	dirty            bool // its health has changed
	spared           bool // known to be there, and not read: all of its results are successes
	won              int  // of these, the ones that count
	lastWon          time.Time
}

// spare spares reading the webhooks that are known to be there and whose results are
// all successes: these change the health in a way that does not depend on what it is.
func (b *recording) spare(results []Result) {
	failed := map[Lane]bool{}
	for i := range results {
		if results[i].Verdict.Status != delivery.Delivered {
			failed[results[i].Lane()] = true
		}
	}
	for i := range results {
		if l := results[i].Lane(); !failed[l] && b.tx.w.recent.there[l] {
			b.webhooks[l] = &recorded{spared: true}
		}
	}
}

// count counts an attempt in the health.
func (w *recorded) count(ok bool, at time.Time) {
	if !w.spared {
		w.Health.Record(ok, at)
		w.dirty = true
		return
	}
	w.won++
	if at.After(w.lastWon) {
		w.lastWon = at
	}
}

func (b *recording) webhook(l Lane) (*recorded, error) {
	if w, ok := b.webhooks[l]; ok {
		return w, nil
	}
	w := &recorded{}
	var err error
	w.Webhook, err = closedOf(b.tx, l.TenantID, l.WebhookID)
	switch {
	case fault.Is(err, fault.NotFound):
		w.gone = true
	case err != nil:
		return nil, err
	default:
		b.tx.w.recent.noteThere(l)
	}
	b.webhooks[l] = w
	return w, nil
}

func (b *recording) save() error {
	for l, w := range b.webhooks {
		var err error
		switch {
		case w.won > 0:
			err = b.tx.saveSuccesses(l, w.won, w.lastWon)
		case w.dirty:
			err = b.tx.saveHealth(&w.Webhook)
		}
		if err != nil {
			return err
		}
	}
	return b.tx.addMinutes(b.minutes)
}

// count adds an attempt to its minute.
func (b *recording) count(r *Result, ok bool) {
	k := minuteKey{r.TenantID, r.EndedAt.Unix() / 60}
	if b.minutes[k] == nil {
		b.minutes[k] = &Minute{}
	}
	b.minutes[k].count(ok, r.Answer.Duration)
}

func (b *recording) record(r *Result) (Recorded, error) {
	out := Recorded{Lane: Lane{r.TenantID, r.WebhookID}}
	held, asked := b.held[r.DeliveryID]
	if asked {
		b.held[r.DeliveryID] = false
	} else {
		var err error
		if held, err = b.tx.recordAttempt(r); err != nil {
			return out, err
		}
	}
	if !held {
		out.Fenced = true
		return out, nil
	}
	w, err := b.webhook(out.Lane)
	if err != nil {
		return out, err
	}
	ok := r.Verdict.Status == delivery.Delivered
	counts := !w.gone && r.Counts(r.Answer)
	if counts {
		w.count(ok, r.EndedAt)
		b.count(r, ok)
	}
	// Rows beside this one exist only where a person asked for an attempt, and
	// that moves the number of the others past 1.
	alone := r.Attempt == 1 && !r.IsManual
	switch {
	case ok && !alone:
		err = b.tx.supersede(r)
	case r.Verdict.Status == delivery.Retrying:
		err = b.tx.scheduleNext(r, w, alone)
	}
	if err != nil || ok || !counts || !w.IsActive {
		return out, err
	}
	reason := r.Verdict.Disable
	if reason == "" && b.tx.w.s.cfg.Policy.DisableDue(w.Health, true, r.EndedAt) {
		reason = delivery.DisabledByFailures
	}
	if reason == "" {
		return out, nil
	}
	out.Disabled, out.NoRecipient, err = b.tx.disable(r.EndedAt, &w.Webhook, reason, r.Verdict.ErrorMessage)
	return out, err
}

// insertRecorded inserts the row of a first attempt that was handed over, with its
// result, and insertManyRecorded a column of them, see merge.go.
const (
	insertRecorded = recordedColumns + `
		values (1, 0, 1, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)`

	insertManyRecorded = recordedColumns + `
		select 1, 0, 1, u.* from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[],
			$8::boolean[], $9::bigint[], $10::bigint[], $11::bytea[], $12::text[], $13::bigint[], $14::bigint[], $15::bigint[],
			$16::text[], $17::bigint[], $18::text[], $19::text[], $20::bigint[], $21::text[], $22::text[]) u`
	recordedKinds = "ttttttioiib" + outcomeKinds

	recordedColumns = `insert into deliveries (attempt, step, generation, tenant_id, delivery_id, webhook_id, event_id,
		event_type, ticket_id, event_seq, is_test, due_at, created_at, body, status, attempted_at, completed_at, next_retry_at,
		custom_headers, status_code, response_headers, response_body, duration_ms, error_type, error_message)`
)

// completeClaimed completes the row of a delivery of the queue whose lease is still
// held.
const completeClaimed = `update deliveries set lease_owner = null, lease_until = null, status = $5, attempted_at = $6,
		completed_at = $7, next_retry_at = $8, custom_headers = $9, status_code = $10, response_headers = $11,
		response_body = $12, duration_ms = $13, error_type = $14, error_message = $15
	where tenant_id = $1 and delivery_id = $2 and lease_owner = $3 and generation = $4 and status = 'pending'`

// complete completes the rows of all deliveries of the queue among the results in
// one round trip.
func (b *recording) complete(results []Result) error {
	var ids []string
	var rows [][]any
	b.held = map[string]bool{}
	for i := range results {
		r := &results[i]
		_, again := b.held[r.DeliveryID] // twice in a batch: the second one finds the row complete
		if again || b.tx.w.handovers.by[r.DeliveryID] != nil {
			continue
		}
		b.held[r.DeliveryID] = false
		args, err := r.completion()
		if err != nil {
			return fmt.Errorf("record delivery %s: %w", r.DeliveryID, err)
		}
		ids, rows = append(ids, r.DeliveryID), append(rows, args)
	}
	counts, err := b.tx.execMany(completeClaimed, rows)
	if err != nil {
		return fmt.Errorf("complete deliveries: %w", err)
	}
	for i, n := range counts {
		b.held[ids[i]] = n == 1
	}
	return nil
}

// load reads the webhooks of the results in one round trip.
func (b *recording) load(results []Result) error {
	var list []asked
	for i := range results {
		l := results[i].Lane()
		if b.webhooks[l] != nil {
			continue
		}
		w := &recorded{gone: true}
		b.webhooks[l] = w
		list = append(list, asked{oneWebhook, []any{l.TenantID, l.WebhookID}, func(row scanner) error {
			var r webhookRow
			if err := row.Scan(r.dest()...); err != nil {
				return err
			}
			var err error
			w.Webhook, err = r.closed()
			w.gone = false
			b.tx.w.recent.noteThere(l)
			return err
		}})
	}
	if err := b.tx.ask(list); err != nil {
		return fmt.Errorf("read webhooks: %w", err)
	}
	return nil
}

// completion has the arguments of completeClaimed.
func (r *Result) completion() ([]any, error) {
	outcome, err := r.outcome()
	return append([]any{r.TenantID, r.DeliveryID, r.Owner, r.Generation}, outcome...), err
}

// outcome is what a row of deliveries says about its attempt, as outcomeKinds has it.
func (r *Result) outcome() ([]any, error) {
	customHeaders, err := jsonText(r.CustomHeaders)
	if err != nil {
		return nil, err
	}
	responseHeaders, err := jsonText(r.Answer.Headers)
	if err != nil {
		return nil, err
	}
	// Null says that no status line arrived; a zero would be a status.
	var code, response, retryAt any
	if r.Answer.StatusCode != 0 {
		code, response = r.Answer.StatusCode, r.Answer.Body
	}
	if r.Verdict.Status == delivery.Retrying {
		retryAt = micros(r.Verdict.RetryAt)
	}
	return []any{
		string(r.Verdict.Status), micros(r.StartedAt), micros(r.EndedAt), retryAt, customHeaders, code, responseHeaders,
		response, r.Answer.Duration.Milliseconds(), string(r.Verdict.ErrorType), r.Verdict.ErrorMessage,
	}, nil
}

const outcomeKinds = "tiiitittitt"

// recordAttempt completes the row if the lease is still held. What was handed
// over has none yet and gets it complete.
func (t *tx) recordAttempt(r *Result) (held bool, err error) {
	d := t.w.handovers.by[r.DeliveryID]
	if d == nil {
		args, err := r.completion()
		if err != nil {
			return false, err
		}
		n, err := t.exec(completeClaimed, args...)
		return n == 1, err
	}
	outcome, err := r.outcome()
	if err != nil {
		return false, err
	}
	err = t.change("insert delivery", insertRecorded, append([]any{
		d.TenantID, d.DeliveryID, d.WebhookID, d.EventID, d.EventType, d.TicketID,
		d.seq, d.IsTest, micros(d.DueAt), micros(d.CreatedAt), nullBlob(d.own),
	}, outcome...)...)
	if err != nil {
		return false, err
	}
	t.w.handovers.settle(d)
	return true, nil
}

// scheduleNext inserts the row of the next attempt. When there is no point in
// sending it any more, because the webhook was switched off or a person's
// attempt has delivered the event, it is there all the same and says so: the
// log of a chain always ends with the reason why nothing follows.
func (t *tx) scheduleNext(r *Result, w *recorded, alone bool) error {
	status, reason, completed := delivery.Pending, "", any(nil)
	switch {
	case w.gone || !w.IsActive:
		// The replay looks for rows that ended since the switch-off, and this
		// attempt may have ended before it.
		end := r.EndedAt
		if w.DisabledAt != nil && w.DisabledAt.After(end) {
			end = *w.DisabledAt
		}
		status, reason, completed = delivery.Abandoned, delivery.WaitWebhookDisabled, micros(end)
	case !alone:
		c, err := t.chainOf(r.TenantID, r.WebhookID, r.EventID)
		if err != nil {
			return err
		}
		if c.deliveredSince(r.CreatedAt) {
			status, reason, completed = delivery.Abandoned, delivery.WaitSuperseded, micros(r.EndedAt)
		}
	}
	err := t.change("schedule the next attempt", `insert into deliveries (tenant_id, delivery_id, webhook_id, event_id, event_type, ticket_id,
			attempt, step, status, wait_reason, is_test, due_at, completed_at, created_at, body, event_seq)
		select tenant_id, $3, webhook_id, event_id, event_type, ticket_id,
			attempt + 1, step + 1, $4, $5, is_test, $6, $7, $8, body, event_seq
		from deliveries where tenant_id = $1 and delivery_id = $2`,
		r.TenantID, r.DeliveryID, NewID(), string(status), reason, micros(r.Verdict.RetryAt), completed, micros(r.EndedAt))
	if err != nil {
		return err
	}
	if status == delivery.Pending && !r.Verdict.RetryAt.After(r.EndedAt) {
		t.due(Lane{r.TenantID, r.WebhookID})
	}
	return nil
}

// supersede gives up the attempts that are still owed for an event that has
// been delivered now. One that is being sent keeps its row.
func (t *tx) supersede(r *Result) error {
	return t.change("supersede the pending attempt", `update deliveries set status = 'abandoned', wait_reason = 'superseded',
			completed_at = $4, lease_owner = null, lease_until = null
		where tenant_id = $1 and event_id = $2 and webhook_id = $3 and status = 'pending'
			and (lease_until is null or lease_until <= $4 and lease_owner <> $5)`,
		r.TenantID, r.EventID, r.WebhookID, micros(r.EndedAt), t.w.s.owner())
}
