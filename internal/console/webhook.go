package console

import (
	"cmp"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
)

func webhookRoutes() []route {
	return []route{
		{"GET /console/webhooks", "webhook", "read", (*visit).listWebhooks},
		{"GET /console/webhooks/new", "webhook", "create", (*visit).newWebhook},
		{"POST /console/webhooks/new", "webhook", "create", (*visit).createWebhook},
		{"POST /console/webhooks/preview", "webhook", "read", (*visit).previewPayload},
		{"GET /console/webhooks/{id}", "webhook", "read", (*visit).showWebhook},
		{"GET /console/webhooks/{id}/edit", "webhook", "update", (*visit).editWebhook},
		{"POST /console/webhooks/{id}/edit", "webhook", "update", (*visit).updateWebhook},
		{"POST /console/webhooks/{id}/test", "webhook", "test", (*visit).testWebhook},
		{"POST /console/webhooks/{id}/pause", "webhook", "update", (*visit).pauseWebhook},
		{"POST /console/webhooks/{id}/enable", "webhook", "update", (*visit).enableWebhook},
		{"POST /console/webhooks/{id}/rotate", "webhook", "manage_security", (*visit).rotateSecret},
		{"POST /console/webhooks/{id}/promote", "webhook", "manage_security", (*visit).promoteSecret},
		{"POST /console/webhooks/{id}/delete", "webhook", "delete", (*visit).deleteWebhook},
	}
}

// hookView is a webhook and how it is doing.
type hookView struct {
	delivery.Webhook
	Health string // delivery.HealthStatus
	Queue  store.Queue
}

// Kind is the colour of its state.
func (h *hookView) Kind() string {
	switch {
	case h.Health == delivery.Failing, h.Health == delivery.Disabled && h.DisabledReason != delivery.DisabledByUser:
		return "bad"
	case h.Health == delivery.Disabled:
		return "idle"
	case h.Queue.Waits != "":
		return "warn"
	}
	return "good"
}

// State is its state in a word or two.
func (h *hookView) State() string {
	switch {
	case h.Health == delivery.Disabled && h.DisabledReason == delivery.DisabledByUser:
		return "paused"
	case h.Health == delivery.Disabled:
		return "switched off"
	case h.Health == delivery.Failing:
		return "failing"
	case h.Queue.Waits != "":
		return "slowed down"
	}
	return "healthy"
}

// Why explains a state that is not healthy; "" for one that is.
func (h *hookView) Why() string {
	switch h.Health {
	case delivery.Disabled:
		return disabledBecause(h.DisabledReason)
	case delivery.Failing:
		return "Its newest attempt failed."
	}
	return waitsBecause(h.Queue.Waits)
}

func disabledBecause(reason string) string {
	switch reason {
	case delivery.DisabledByFailures:
		return "Nothing but failures for so long that it was switched off."
	case delivery.DisabledGone:
		return "Its receiver answered 410 Gone, which asks for no more."
	case delivery.DisabledByUser:
		return "Somebody paused it."
	}
	return ""
}

// waitsBecause says in a sentence why rows wait; "" for those that only are not due.
func waitsBecause(reason string) string {
	switch reason {
	case delivery.WaitRateLimited:
		return "Its rate limit is used up for the moment; what waits goes out as the limit allows and uses up no attempt."
	case delivery.WaitBreakerOpen:
		return "The receiver hangs or asked for a pause. It gets one request at a time until it answers; waiting uses up no attempt."
	}
	return ""
}

// Rate is the share of successful attempts, in percent.
func (h *hookView) Rate() string { return percent(h.SuccessRate()) }

// hookList is the list of webhooks.
type hookList struct {
	Hooks []hookView
	Query string
	More  string
	Total int
}

func (v *visit) listWebhooks() error {
	q := v.r.URL.Query()
	page := pageNumber(q.Get("page"))
	list, total, err := v.store().Webhooks(v.ctx, v.tenant(), store.WebhookQuery{
		Query: q.Get("search"), WorstFirst: true, Page: page, Limit: shownHooks,
	})
	if err != nil {
		return err
	}
	p := hookList{Query: q.Get("search"), Total: total}
	if p.Hooks, err = v.hookViews(list); err != nil {
		return err
	}
	if page*shownHooks < total {
		p.More = nextPage(v.r, page)
	}
	return v.page(http.StatusOK, "webhooks", "webhooks", "Webhooks", p)
}

// shownHooks is the size of a page of webhooks.
const shownHooks = 50

func (v *visit) hookViews(list []delivery.Webhook) ([]hookView, error) {
	out := make([]hookView, len(list))
	for i := range list {
		h, err := v.hookView(list[i])
		if err != nil {
			return nil, err
		}
		out[i] = h
	}
	return out, nil
}

func (v *visit) hookView(w delivery.Webhook) (hookView, error) {
	q, err := v.store().Queue(v.ctx, v.now, store.Lane{TenantID: v.tenant(), WebhookID: w.WebhookID})
	if fault.Is(err, fault.NotFound) {
		err = nil // deleted a moment ago
	}
	return hookView{Webhook: w, Health: delivery.HealthStatus(&w), Queue: q}, err
}

// hookPage is one webhook.
type hookPage struct {
	hookView
	Warnings  []string
	Brings    *tlsView   // to TLS; nil for nothing
	DisableAt *time.Time // when it will be switched off if it goes on like this
	Recent    []deliveryRow
	Grace     bool // two secrets are valid
	Missed    int  // events that an outage has kept back
	Outage    *store.Outage
	Replays   []store.Replay
	Error     string // what was wrong with the last form
	schedule  []time.Duration
}

// Limit is the outbound limit in words.
func (p *hookPage) Limit() string {
	perMinute, burst, limited := p.RateLimit.PerMinute()
	if !limited {
		return "none"
	}
	return fmt.Sprintf("%d per minute, %d at once", perMinute, burst)
}

// Schedule is what happens after a failed attempt, in words.
func (p *hookPage) Schedule() string {
	if len(p.schedule) == 0 {
		return "no retries"
	}
	return "retries after " + strings.ReplaceAll(delivery.FormatSchedule(p.schedule), ",", ", ")
}

func (v *visit) showWebhook() error { return v.webhookPage(http.StatusOK, nil) }

func (v *visit) webhookPage(status int, problem error) error {
	w, err := v.store().Webhook(v.ctx, v.tenant(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	var p hookPage
	if problem != nil {
		p.Error = messageOf(problem)
	}
	if p.hookView, err = v.hookView(w); err != nil {
		return err
	}
	p.Brings = viewTLS(w.TLS, v.now)
	p.Warnings, p.schedule = w.Warnings(), v.srv.cfg.Policy.ScheduleFor(w.RetryConfig)
	if after := v.srv.cfg.Policy.DisableAfter; w.IsActive && w.FailingSince != nil && after > 0 {
		p.DisableAt = new(w.FailingSince.Add(after))
	}
	if v.who.Can("webhook", "manage_security") {
		secrets, err := v.store().Secrets(v.ctx, v.now, v.tenant(), w.WebhookID)
		if err != nil {
			return err
		}
		p.Grace = secrets.Previous != ""
	}
	if !w.IsActive {
		if p.Outage, _, p.Missed, err = v.store().Missed(v.ctx, v.now, v.tenant(), w.WebhookID, 1, 1); err != nil {
			return err
		}
	}
	found, err := v.store().SearchDeliveries(v.ctx, v.tenant(), store.DeliverySearch{WebhookID: w.WebhookID, Limit: 10})
	if err != nil {
		return err
	}
	p.Recent = rowsOf(found.Rows)
	if p.Replays, _, err = v.store().Replays(v.ctx, v.tenant(), w.WebhookID, 1, 5); err != nil {
		return err
	}
	return v.page(status, "webhook", "webhooks", w.Name, &p)
}

// testWebhook sends a test and shows what came back.
func (v *visit) testWebhook() error {
	e := v.srv.cfg.Engine
	batch, err := v.store().BeginTest(v.ctx, v.now, v.tenant(), v.r.PathValue("id"), e.Owner(), e.Lease())
	if err != nil {
		return err
	}
	return v.send(batch, "tested")
}

// send makes the one delivery of a batch outside the queue and shows it.
func (v *visit) send(b store.Batch, done string) error {
	list, err := v.srv.cfg.Engine.Send(v.ctx, b)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "The delivery was broken off, try again")
	}
	return v.redirect("/console/deliveries/"+list[0].DeliveryID, done)
}

func (v *visit) pauseWebhook() error { return v.switchWebhook(false, false, "paused") }

func (v *visit) enableWebhook() error {
	return v.switchWebhook(true, v.form.Has("replay"), "enabled")
}

func (v *visit) switchWebhook(on, replay bool, done string) error {
	id := v.r.PathValue("id")
	_, n, err := v.store().UpdateWebhook(v.ctx, v.now, v.who.Actor(), id, func(s *delivery.Spec) error {
		s.IsActive = on
		return nil
	}, replay)
	if formFailed(err) {
		return v.webhookPage(fault.KindOf(err).HTTPStatus(), err)
	}
	if err != nil {
		return err
	}
	if n > 0 {
		done = "replaying"
	}
	return v.redirect("/console/webhooks/"+id, done)
}

// secretPage shows a secret that was made this moment, once.
type secretPage struct {
	Webhook string // its id
	Name    string
	Secret  string
	Until   *time.Time // how long the one before is valid too
	Created bool
}

func (v *visit) rotateSecret() error {
	grace, err := time.ParseDuration(cmp.Or(v.form.Get("grace"), "0s"))
	if err != nil || grace < 0 || grace > maxGrace {
		return v.webhookPage(http.StatusBadRequest, fault.Field("grace", "must be between 0 and 7 days"))
	}
	w, err := v.store().Webhook(v.ctx, v.tenant(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	secret, err := v.store().RotateSecret(v.ctx, v.now, v.tenant(), w.WebhookID, grace)
	if formFailed(err) {
		return v.webhookPage(fault.KindOf(err).HTTPStatus(), err)
	}
	if err != nil {
		return err
	}
	p := secretPage{Webhook: w.WebhookID, Name: w.Name, Secret: secret}
	if grace > 0 {
		p.Until = new(v.now.Add(grace))
	}
	return v.page(http.StatusOK, "secret", "webhooks", "New secret", p)
}

// maxGrace is the longest time that two secrets are valid beside each other
// (contract section 4.2).
const maxGrace = 7 * 24 * time.Hour

func (v *visit) promoteSecret() error {
	id := v.r.PathValue("id")
	if err := v.store().PromoteSecret(v.ctx, v.now, v.tenant(), id); err != nil {
		return err
	}
	return v.redirect("/console/webhooks/"+id, "promoted")
}

func (v *visit) deleteWebhook() error {
	if err := v.store().DeleteWebhook(v.ctx, v.now, v.who.Actor(), v.r.PathValue("id")); err != nil {
		return err
	}
	return v.redirect("/console/webhooks", "deleted")
}
