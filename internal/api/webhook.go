package api

import (
	"context"
	"net/http"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/egress"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/webhook"
)

// webhookRoutes are the subscriptions themselves (contract section 3.2). What
// is sent and what became of it is in deliveryRoutes.
func (s *Server) webhookRoutes() []route {
	return []route{
		{http.MethodGet, "/webhooks", "webhook", "read", (*call).listWebhooks},
		{http.MethodPost, "/webhooks", "webhook", "create", (*call).createWebhook},
		{http.MethodGet, "/webhooks/events", "webhook", "read", (*call).listEventTypes},
		{http.MethodGet, "/webhooks/templates", "webhook", "read", (*call).noTemplates},
		{http.MethodPost, "/webhooks/templates", "webhook", "system_settings", (*call).noTemplates},
		{http.MethodGet, "/webhooks/{id}", "webhook", "read", (*call).getWebhook},
		{http.MethodPut, "/webhooks/{id}", "webhook", "update", (*call).updateWebhook},
		{http.MethodDelete, "/webhooks/{id}", "webhook", "delete", (*call).deleteWebhook},
		{http.MethodGet, "/webhooks/{id}/subscriptions", "webhook", "read", (*call).getSubscriptions},
		{http.MethodPost, "/webhooks/{id}/secret/rotate", "webhook", "manage_security", (*call).rotateSecret},
		{http.MethodPost, "/webhooks/{id}/secret/promote", "webhook", "manage_security", (*call).promoteSecret},
	}
}

func (c *call) listWebhooks() (answer, error) {
	p := c.params()
	pg := p.paging("created_at", store.WebhookSortColumns(), true)
	q := store.WebhookQuery{
		Name: p.text("name"), URL: p.text("url"), EventType: p.choice("event_type", delivery.EventTypes()),
		Query: p.text("query"), PayloadFormat: p.text("payload_format"),
		IsActive: p.boolean("is_active"), IsTestMode: p.boolean("is_test_mode"), HasFailures: p.boolean("has_failures"),
		LastDeliveryFrom: p.moment("last_delivery_from", false), LastDeliveryTo: p.moment("last_delivery_to", true),
		RateMin: p.number("delivery_rate_min"), RateMax: p.number("delivery_rate_max"),
		Sort: pg.sort, Desc: pg.desc, Page: pg.page, Limit: pg.limit,
	}
	if err := p.err(); err != nil {
		return answer{}, err
	}
	list, total, err := c.store().Webhooks(c.ctx, c.tenant(), q)
	if err != nil {
		return answer{}, err
	}
	records := make([]webhookRecord, len(list))
	for i := range list {
		records[i] = c.webhookRecord(&list[i])
	}
	return page(records, pg, total, p.filters), nil
}

func (c *call) createWebhook() (answer, error) {
	o, err := c.object()
	if err != nil {
		return answer{}, err
	}
	o.need("name", "string")
	o.need("url", "string")
	o.need("event_types", "array")
	patch := readSpec(o, c.srv.cfg.Egress)
	spec := delivery.Spec{Method: "POST", VerifySSL: true, IsActive: true}
	patch.apply(&spec)
	o.merge(egress.CheckTLS(c.now, spec.TLS))
	if err := o.err(); err != nil {
		return answer{}, err
	}
	return change(c,
		func(ctx context.Context) (store.CreatedWebhook, error) {
			w, secret, err := c.store().CreateWebhook(ctx, c.now, c.who.Actor(), spec)
			return store.CreatedWebhook{Webhook: w, Secret: secret}, err
		},
		func(w store.CreatedWebhook) answer {
			r := c.webhookRecord(&w.Webhook)
			r.SigningSecret = &w.Secret
			return withWarnings(created(r), &w.Webhook)
		})
}

func (c *call) getWebhook() (answer, error) {
	w, err := c.webhook()
	if err != nil {
		return answer{}, err
	}
	return ok(c.webhookRecord(&w)), nil
}

// webhook loads the webhook that the path names.
func (c *call) webhook() (delivery.Webhook, error) {
	id, err := c.id("id", "webhook")
	if err != nil {
		return delivery.Webhook{}, err
	}
	return c.store().Webhook(c.ctx, c.tenant(), id)
}

// updateWebhook merges the body into the webhook. Making it active again starts
// a new failing streak, and with replay_missed also sends what it missed
// (contract P8).
func (c *call) updateWebhook() (answer, error) {
	id, err := c.id("id", "webhook")
	if err != nil {
		return answer{}, err
	}
	o, err := c.object()
	if err != nil {
		return answer{}, err
	}
	patch := readSpec(o, c.srv.cfg.Egress)
	replay := o.flag("replay_missed")
	if replay && !o.flag("is_active") {
		o.custom("replay_missed", "needs is_active: true, because only a webhook that is switched on again has missed anything")
	}
	if err := o.err(); err != nil {
		return answer{}, err
	}
	apply := func(s *delivery.Spec) error {
		patch.apply(s)
		if !o.has("tls") {
			return nil // a certificate that has expired since is no reason to refuse a new name
		}
		return egress.CheckTLS(c.now, s.TLS)
	}
	return change(c,
		func(ctx context.Context) (store.UpdatedWebhook, error) {
			w, n, err := c.store().UpdateWebhook(ctx, c.now, c.who.Actor(), id, apply, replay)
			return store.UpdatedWebhook{Webhook: w, Replayed: n}, err
		},
		func(w store.UpdatedWebhook) answer {
			a := withWarnings(ok(c.webhookRecord(&w.Webhook)), &w.Webhook)
			if replay {
				a.note("replayed", w.Replayed)
			}
			return a
		})
}

func (c *call) deleteWebhook() (answer, error) {
	id, err := c.id("id", "webhook")
	if err != nil {
		return answer{}, err
	}
	return change(c,
		func(ctx context.Context) (struct{}, error) {
			return struct{}{}, c.store().DeleteWebhook(ctx, c.now, c.who.Actor(), id)
		},
		func(struct{}) answer { return noContent() })
}

func (*call) listEventTypes() (answer, error) { return ok(delivery.EventTypes()), nil }

// noTemplates keeps the word from being taken for a webhook's id.
func (*call) noTemplates() (answer, error) {
	return answer{}, fault.New(fault.NotFound, "Webhook templates are not offered")
}

func (c *call) getSubscriptions() (answer, error) {
	w, err := c.webhook()
	if err != nil {
		return answer{}, err
	}
	return ok(map[string]any{"webhook_id": w.WebhookID, "event_types": w.EventTypes}), nil
}

// maxGrace is the longest time, in seconds, that two secrets are valid beside
// each other (contract section 4.2).
const maxGrace = 604800

// rotatedView is the answer of a rotation: the only one beside create that
// holds a secret.
type rotatedView struct {
	WebhookID     string        `json:"webhook_id"`
	SigningSecret string        `json:"signing_secret"`
	PreviousUntil *webhook.Time `json:"previous_secret_expires_at,omitempty"`
}

func (c *call) rotateSecret() (answer, error) {
	id, err := c.id("id", "webhook")
	if err != nil {
		return answer{}, err
	}
	o, err := c.object()
	if err != nil {
		return answer{}, err
	}
	grace := time.Duration(orZero(o.integer("grace_period_seconds", 0, maxGrace))) * time.Second
	if err := o.err(); err != nil {
		return answer{}, err
	}
	return change(c,
		func(ctx context.Context) (store.RotatedSecret, error) {
			secret, err := c.store().RotateSecret(ctx, c.now, c.tenant(), id, grace)
			return store.RotatedSecret{WebhookID: id, Secret: secret}, err
		},
		func(r store.RotatedSecret) answer {
			v := rotatedView{WebhookID: r.WebhookID, SigningSecret: r.Secret}
			if grace > 0 {
				v.PreviousUntil = new(webhook.At(c.now.Add(grace)))
			}
			return ok(v)
		})
}

// promoteSecret ends the grace of a rotation. Outside one it changes nothing.
func (c *call) promoteSecret() (answer, error) {
	id, err := c.id("id", "webhook")
	if err != nil {
		return answer{}, err
	}
	return change(c,
		func(ctx context.Context) (struct{}, error) {
			return struct{}{}, c.store().PromoteSecret(ctx, c.now, c.tenant(), id)
		},
		func(struct{}) answer { return ok(map[string]any{"webhook_id": id}) })
}

// withWarnings adds remarks on the webhook to an answer's meta.
func withWarnings(a answer, w *delivery.Webhook) answer {
	if list := w.Warnings(); len(list) > 0 {
		a.note("warnings", list)
	}
	return a
}

// note adds one key to the answer's meta.
func (a *answer) note(key string, v any) {
	if a.meta == nil {
		a.meta = map[string]any{}
	}
	a.meta[key] = v
}
