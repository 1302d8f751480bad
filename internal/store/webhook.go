package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/ticket"
	"github.com/ticketwire/ticketwire/internal/vault"
)

// Secrets are the opened signing secrets of a webhook. They must not be logged.
type Secrets struct {
	Current  string
	Previous string // "" outside the grace of a rotation (contract section 4.2)

	previousUntil time.Time
}

// At returns the secrets that count at a time: a grace may have ended since they
// were read.
func (s Secrets) At(now time.Time) Secrets {
	if !now.Before(s.previousUntil) {
		s.Previous = ""
	}
	return s
}

// CreatedWebhook is what CreateWebhook hands to Idempotency.Render.
type CreatedWebhook struct {
	Webhook delivery.Webhook
	Secret  string // shown this once
}

// UpdatedWebhook is what UpdateWebhook hands to Idempotency.Render.
type UpdatedWebhook struct {
	Webhook  delivery.Webhook
	Replayed int // missed events that were queued (contract P8)
}

// RotatedSecret is what RotateSecret hands to Idempotency.Render.
type RotatedSecret struct {
	WebhookID string
	Secret    string // shown this once
}

const (
	webhookColumns = `w.tenant_id, w.webhook_id, w.created_by, w.name, w.description, w.url, w.method,
		w.event_types, w.custom_headers, w.event_filter, w.payload_fields, w.verify_ssl, w.tls, w.is_active,
		w.is_test_mode, w.retry_config, w.rate_limit, w.metadata, w.tags, w.disabled_at, w.disabled_reason,
		w.created_at, w.updated_at, h.total_deliveries, h.successful_deliveries, h.failed_deliveries,
		h.last_delivery_at, h.last_success_at, h.last_failure_at, h.failing_since, h.warnings_sent, h.auto_disabled_at`
	webhookTables = ` from webhooks w join webhook_health h on h.tenant_id = w.tenant_id and h.webhook_id = w.webhook_id`
)

// webhookRow is a webhook on its way out of the database. Its JSON columns and
// its sealed headers are opened by value, not by Scan, so that a list can scan
// all rows first.
type webhookRow struct {
	w                                                                     delivery.Webhook
	eventTypes, tags                                                      string
	headers, tls, filter, fields, retry, rate, metadata                   sql.NullString
	disabledAt, lastDelivery, lastSuccess, lastFailure, failing, disabled sql.NullInt64
	createdAt, updatedAt                                                  int64
}

// dest lists the places of webhookColumns.
func (r *webhookRow) dest() []any {
	w := &r.w
	return []any{
		&w.TenantID, &w.WebhookID, &w.CreatedBy, &w.Name, &w.Description, &w.URL, &w.Method,
		&r.eventTypes, &r.headers, &r.filter, &r.fields, &w.VerifySSL, &r.tls, &w.IsActive,
		&w.IsTestMode, &r.retry, &r.rate, &r.metadata, &r.tags, &r.disabledAt, &w.DisabledReason,
		&r.createdAt, &r.updatedAt, &w.TotalDeliveries, &w.SuccessfulDeliveries, &w.FailedDeliveries,
		&r.lastDelivery, &r.lastSuccess, &r.lastFailure, &r.failing, &w.WarningsSent, &r.disabled,
	}
}

// webhook opens the row.
func (r *webhookRow) webhook(s *Store) (delivery.Webhook, error) {
	if _, err := r.closed(); err != nil {
		return delivery.Webhook{}, err
	}
	w := &r.w
	if err := s.unseal(headersPlace(w.TenantID, w.WebhookID), r.headers, &w.CustomHeaders); err != nil {
		return delivery.Webhook{}, fmt.Errorf("headers of webhook %s: %w", w.WebhookID, err)
	}
	if err := s.unseal(tlsPlace(w.TenantID, w.WebhookID), r.tls, &w.TLS); err != nil {
		return delivery.Webhook{}, fmt.Errorf("tls of webhook %s: %w", w.WebhookID, err)
	}
	return *w, nil
}

// closed is the row without what is sealed: whoever deals with many webhooks must
// not fail for one that does not open.
func (r *webhookRow) closed() (delivery.Webhook, error) {
	w := &r.w
	for _, c := range []struct {
		text sql.NullString
		into any
	}{
		{sql.NullString{String: r.eventTypes, Valid: true}, &w.EventTypes},
		{sql.NullString{String: r.tags, Valid: true}, &w.Tags},
		{r.filter, &w.EventFilter},
		{r.fields, &w.PayloadFields},
		{r.retry, &w.RetryConfig},
		{r.rate, &w.RateLimit},
		{r.metadata, &w.Metadata},
	} {
		if err := fromJSON(c.text, c.into); err != nil {
			return delivery.Webhook{}, fmt.Errorf("webhook %s: %w", w.WebhookID, err)
		}
	}
	w.DisabledAt = instantPtr(r.disabledAt)
	w.LastDeliveryAt, w.LastSuccessAt, w.LastFailureAt = instantPtr(r.lastDelivery), instantPtr(r.lastSuccess), instantPtr(r.lastFailure)
	w.FailingSince, w.AutoDisabledAt = instantPtr(r.failing), instantPtr(r.disabled)
	w.CreatedAt, w.UpdatedAt = instant(r.createdAt), instant(r.updatedAt)
	return *w, nil
}

// unseal opens a sealed JSON column into v; a null column leaves v alone.
func (s *Store) unseal(place string, sealed sql.NullString, v any) error {
	if !sealed.Valid {
		return nil
	}
	plain, err := s.cfg.Vault.Open(place, sealed.String)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(plain, v); err != nil {
		// The error of Unmarshal could quote a credential.
		return fault.New(fault.Internal, "the sealed value is not the JSON it should be")
	}
	return nil
}

// seal is the reverse of unseal.
func (s *Store) seal(place string, v any) (any, error) {
	plain, err := json.Marshal(v)
	if err != nil {
		return nil, fault.New(fault.Internal, "a value to seal cannot be written as JSON")
	}
	return s.cfg.Vault.Seal(place, plain), nil
}

// A sealed value opens at its own place only, so that nobody who can write to
// the database can give a webhook the secret or the headers of another.
func secretPlace(tenant, id string) string  { return "webhooks.secret/" + tenant + "/" + id }
func headersPlace(tenant, id string) string { return "webhooks.custom_headers/" + tenant + "/" + id }
func tlsPlace(tenant, id string) string     { return "webhooks.tls/" + tenant + "/" + id }

const oneWebhook = `select ` + webhookColumns + webhookTables + `
	where w.tenant_id = $1 and w.webhook_id = $2 and w.deleted_at is null`

// webhookOf loads a webhook that is not deleted.
func (s *Store) webhookOf(q querier, tenant, id string) (delivery.Webhook, error) {
	r, err := rowOf(q, tenant, id)
	if err != nil {
		return delivery.Webhook{}, err
	}
	return r.webhook(s)
}

// closedOf is webhookOf without what is sealed, for all who send nothing: the log
// of a webhook is there also when its credentials do not open.
func closedOf(q querier, tenant, id string) (delivery.Webhook, error) {
	r, err := rowOf(q, tenant, id)
	if err != nil {
		return delivery.Webhook{}, err
	}
	return r.closed()
}

func rowOf(q querier, tenant, id string) (r webhookRow, err error) {
	err = q.row(oneWebhook, tenant, lowerID(id)).Scan(r.dest()...)
	return r, found(err, "Webhook not found")
}

// Webhook returns one webhook of the tenant.
func (s *Store) Webhook(ctx context.Context, tenant, id string) (delivery.Webhook, error) {
	return s.webhookOf(s.reader(ctx), tenant, id)
}

// CreateWebhook stores a webhook of the actor and returns it with its signing
// secret, which is shown this once. One webhook more than Config.MaxWebhooks is
// a Conflict (contract P11).
func (s *Store) CreateWebhook(ctx context.Context, now time.Time, a ticket.Actor, spec delivery.Spec) (delivery.Webhook, string, error) {
	if err := spec.Validate(); err != nil {
		return delivery.Webhook{}, "", err
	}
	out, err := write(ctx, s, func(t *tx) (CreatedWebhook, error) { return t.createWebhook(now, a, spec) })
	return out.Webhook, out.Secret, err
}

func (t *tx) createWebhook(now time.Time, a ticket.Actor, spec delivery.Spec) (CreatedWebhook, error) {
	if err := t.roomForWebhooks(a.TenantID, 1); err != nil {
		return CreatedWebhook{}, err
	}
	return t.insertWebhook(now, a, spec)
}

// roomForWebhooks refuses n webhooks more if the tenant would have too many.
func (t *tx) roomForWebhooks(tenant string, n int) error {
	subscribed, err := t.subscribed(tenant)
	if err != nil {
		return err
	}
	if have, limit := subscribed.count(), t.w.s.cfg.MaxWebhooks; have+n > limit {
		return fault.New(fault.Conflict, "The tenant has %d webhooks, and %d is the limit", have, limit)
	}
	return nil
}

func (t *tx) insertWebhook(now time.Time, a ticket.Actor, spec delivery.Spec) (CreatedWebhook, error) {
	s := t.w.s
	w := delivery.Webhook{
		TenantID: a.TenantID, WebhookID: NewID(), CreatedBy: a.UserID, Spec: spec,
		CreatedAt: now, UpdatedAt: now,
	}
	secret := vault.NewSigningSecret()
	_, err := t.exec(`insert into webhooks (tenant_id, webhook_id, created_by, name, url, method, event_types,
			verify_ssl, is_active, is_test_mode, tags, secret, created_at, updated_at)
		values ($1, $2, $3, '', '', '', '[]', true, false, false, '[]', $4, $5, $5)`,
		w.TenantID, w.WebhookID, w.CreatedBy,
		s.cfg.Vault.Seal(secretPlace(w.TenantID, w.WebhookID), []byte(secret)), micros(now))
	if err != nil {
		return CreatedWebhook{}, fmt.Errorf("insert webhook: %w", err)
	}
	if _, err := t.exec(`insert into webhook_health (tenant_id, webhook_id) values ($1, $2)`, w.TenantID, w.WebhookID); err != nil {
		return CreatedWebhook{}, fmt.Errorf("insert webhook health: %w", err)
	}
	if err := t.saveSpec(&w); err != nil {
		return CreatedWebhook{}, err
	}
	if !w.IsActive {
		// A replay after the first activation starts here.
		if err := t.markDisabled(now, &w, delivery.DisabledByUser); err != nil {
			return CreatedWebhook{}, err
		}
	}
	w, err = s.webhookOf(t, w.TenantID, w.WebhookID)
	return CreatedWebhook{Webhook: w, Secret: secret}, err
}

// saveSpec writes the configurable part of w and tells every process that the
// tenant's subscriptions have changed.
func (t *tx) saveSpec(w *delivery.Webhook) error {
	if w.Tags == nil {
		w.Tags = []string{}
	}
	var cols [7]any
	for i, v := range []any{w.EventTypes, w.EventFilter, w.PayloadFields, w.RetryConfig, w.RateLimit, w.Metadata, w.Tags} {
		var err error
		if cols[i], err = jsonText(v); err != nil {
			return fmt.Errorf("webhook %s: %w", w.WebhookID, err)
		}
	}
	var headers, credentials any
	var err error
	if len(w.CustomHeaders) > 0 {
		if headers, err = t.w.s.seal(headersPlace(w.TenantID, w.WebhookID), w.CustomHeaders); err != nil {
			return fmt.Errorf("headers of webhook %s: %w", w.WebhookID, err)
		}
	}
	if w.TLS != nil {
		if credentials, err = t.w.s.seal(tlsPlace(w.TenantID, w.WebhookID), w.TLS); err != nil {
			return fmt.Errorf("tls of webhook %s: %w", w.WebhookID, err)
		}
	}
	_, err = t.exec(`update webhooks set name = $3, description = $4, url = $5, method = $6, event_types = $7,
			event_filter = $8, payload_fields = $9, retry_config = $10, rate_limit = $11, metadata = $12, tags = $13,
			custom_headers = $14, verify_ssl = $15, is_active = $16, is_test_mode = $17, updated_at = $18, tls = $19
		where tenant_id = $1 and webhook_id = $2`,
		w.TenantID, w.WebhookID, w.Name, w.Description, w.URL, w.Method, cols[0],
		cols[1], cols[2], cols[3], cols[4], cols[5], cols[6],
		headers, w.VerifySSL, w.IsActive, w.IsTestMode, micros(w.UpdatedAt), credentials)
	if err != nil {
		return fmt.Errorf("save webhook: %w", err)
	}
	return t.subscriptionChanged(w.TenantID, w.WebhookID)
}

// UpdateWebhook runs change on the current spec inside the transaction, more
// than once if need be, and stores what comes out, if it is valid. A webhook that stops being active
// drops what it is owed (contract P7); one that becomes active again starts
// without its past failures, and with replayMissed also gets what it missed
// since it was switched off, oldest first (contract P8). replayed says how many
// events that are; a replay job queues them.
func (s *Store) UpdateWebhook(ctx context.Context, now time.Time, a ticket.Actor, id string, change func(*delivery.Spec) error, replayMissed bool) (w delivery.Webhook, replayed int, err error) {
	lane := Lane{a.TenantID, lowerID(id)}
	var missed *missedCount
	if replayMissed {
		if missed, err = s.countMissed(ctx, now, lane, change); err != nil {
			return delivery.Webhook{}, 0, err
		}
	}
	out, err := write(ctx, s, func(t *tx) (UpdatedWebhook, error) {
		w, err := s.webhookOf(t, lane.TenantID, lane.WebhookID)
		if err != nil {
			return UpdatedWebhook{}, err
		}
		wasActive := w.IsActive
		if err := change(&w.Spec); err != nil {
			return UpdatedWebhook{}, err
		}
		if err := w.Spec.Validate(); err != nil {
			return UpdatedWebhook{}, err
		}
		w.UpdatedAt = now
		if err := t.saveSpec(&w); err != nil {
			return UpdatedWebhook{}, err
		}
		n := 0
		switch {
		case wasActive && !w.IsActive:
			err = t.switchOff(now, &w, delivery.DisabledByUser)
		case !wasActive && w.IsActive:
			if err = t.switchOn(now, &w); err == nil && replayMissed {
				n, err = t.replayMissed(now, &w, missed)
			}
		}
		if err != nil {
			return UpdatedWebhook{}, err
		}
		// What waits for a limit that was lifted need not wait any longer.
		t.due(lane)
		t.changed(lane)
		w, err = s.webhookOf(t, lane.TenantID, lane.WebhookID)
		return UpdatedWebhook{Webhook: w, Replayed: n}, err
	})
	return out.Webhook, out.Replayed, err
}

// switchOff drops what an inactive webhook is owed, and the replay of what it
// was not, and notes from which event on it misses something.
func (t *tx) switchOff(now time.Time, w *delivery.Webhook, reason string) error {
	if err := t.markDisabled(now, w, reason); err != nil {
		return err
	}
	l := Lane{w.TenantID, w.WebhookID}
	if err := t.cancelReplay(now, l, CancelledByDisable); err != nil {
		return err
	}
	return t.abandonOwed(now, l)
}

// markDisabled notes when and why w stopped being active.
func (t *tx) markDisabled(now time.Time, w *delivery.Webhook, reason string) error {
	_, err := t.exec(`update webhooks set is_active = false, disabled_at = $3, disabled_reason = $4,
			disabled_seq = (select coalesce(max(e.seq), 0) from events e where e.tenant_id = $1)
		where tenant_id = $1 and webhook_id = $2`, w.TenantID, w.WebhookID, micros(now), reason)
	if err != nil {
		return fmt.Errorf("mark webhook disabled: %w", err)
	}
	w.IsActive = false
	return t.subscriptionChanged(w.TenantID, w.WebhookID)
}

// switchOn ends the outage and forgets the failures before it.
func (t *tx) switchOn(now time.Time, w *delivery.Webhook) error {
	// Rows that a crash left behind belong to the outage too: they are not sent
	// unless the owner asks for it.
	if err := t.abandonOwed(now, Lane{w.TenantID, w.WebhookID}); err != nil {
		return err
	}
	if err := t.endOutage(now, w); err != nil {
		return err
	}
	if err := t.dropReminders(now, Lane{w.TenantID, w.WebhookID}, allReminders, "the webhook is active again"); err != nil {
		return err
	}
	w.Reenable()
	return t.saveHealth(w)
}

// abandonPage bounds one statement of abandonOwed.
const abandonPage = 1000

// abandonOwed gives up what the lane is owed. A row under a live lease is being
// sent at this moment: it keeps its row, so that the log has its outcome.
func (t *tx) abandonOwed(now time.Time, l Lane) error {
	for {
		// The order is that of the queue's index, which keeps the log out of it.
		n, err := t.exec(`update deliveries set status = 'abandoned', wait_reason = 'webhook_disabled', completed_at = $3,
				lease_owner = null, lease_until = null
			where status = 'pending' and (tenant_id, delivery_id) in (select d.tenant_id, d.delivery_id from deliveries d
				where d.tenant_id = $1 and d.webhook_id = $2 and d.status = 'pending'
					and (d.lease_until is null or d.lease_until <= $3 and d.lease_owner <> $5)
				order by d.due_at, d.delivery_id limit $4)`, l.TenantID, l.WebhookID, micros(now), abandonPage, t.w.s.owner())
		if err != nil {
			return fmt.Errorf("abandon deliveries: %w", err)
		}
		if n < abandonPage {
			return nil
		}
	}
}

// DeleteWebhook removes the webhook from every route. Its secrets go at once;
// its deliveries stay readable by id until retention ends (contract P7).
func (s *Store) DeleteWebhook(ctx context.Context, now time.Time, a ticket.Actor, id string) error {
	lane := Lane{a.TenantID, lowerID(id)}
	_, err := write(ctx, s, func(t *tx) (struct{}, error) {
		n, err := t.exec(`update webhooks set deleted_at = $3, updated_at = $3, is_active = false, secret = '',
				previous_secret = null, previous_expires_at = null, custom_headers = null, tls = null
			where tenant_id = $1 and webhook_id = $2 and deleted_at is null`, lane.TenantID, lane.WebhookID, micros(now))
		if err != nil {
			return struct{}{}, fmt.Errorf("delete webhook: %w", err)
		}
		if n == 0 {
			return struct{}{}, fault.New(fault.NotFound, "Webhook not found")
		}
		t.changed(lane)
		if err := t.subscriptionChanged(lane.TenantID, lane.WebhookID); err != nil {
			return struct{}{}, err
		}
		if err := t.cancelReplay(now, lane, CancelledByDeletion); err != nil {
			return struct{}{}, err
		}
		if err := t.dropReminders(now, lane, allReminders, "the webhook was deleted"); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, t.abandonOwed(now, lane)
	})
	return err
}

// saveHealth writes what the attempts of w have shown.
func (t *tx) saveHealth(w *delivery.Webhook) error {
	return t.change("save webhook health", `update webhook_health set total_deliveries = $3, successful_deliveries = $4, failed_deliveries = $5,
			last_delivery_at = $6, last_success_at = $7, last_failure_at = $8, failing_since = $9, warnings_sent = $10,
			auto_disabled_at = $11
		where tenant_id = $1 and webhook_id = $2`,
		w.TenantID, w.WebhookID, w.TotalDeliveries, w.SuccessfulDeliveries, w.FailedDeliveries,
		microsPtr(w.LastDeliveryAt), microsPtr(w.LastSuccessAt), microsPtr(w.LastFailureAt),
		microsPtr(w.FailingSince), w.WarningsSent, microsPtr(w.AutoDisabledAt))
}

// saveSuccesses is saveHealth for some successes, the last of them at a time, whatever
// the health is; see delivery.Health.Record.
func (t *tx) saveSuccesses(l Lane, n int, last time.Time) error {
	return t.change("save webhook health", `update webhook_health set total_deliveries = total_deliveries + $3,
			successful_deliveries = successful_deliveries + $3,
			last_delivery_at = case when last_delivery_at > $4 then last_delivery_at else $4 end,
			last_success_at = case when last_success_at > $4 then last_success_at else $4 end,
			failing_since = null, warnings_sent = 0
		where tenant_id = $1 and webhook_id = $2`, l.TenantID, l.WebhookID, n, micros(last))
}
