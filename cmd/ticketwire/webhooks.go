package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/client"
)

type webhooksCmd struct {
	List       webhooksListCmd       `cmd:"" help:"List the tenant's webhooks."`
	Get        webhooksGetCmd        `cmd:"" help:"Show a webhook."`
	Create     webhooksCreateCmd     `cmd:"" help:"Subscribe, and show the signing secret, once."`
	Update     webhooksUpdateCmd     `cmd:"" help:"Change a webhook."`
	Delete     webhooksDeleteCmd     `cmd:"" help:"End subscriptions."`
	Test       webhooksTestCmd       `cmd:"" help:"Send a test event now, and show the receiver's answer."`
	Rotate     webhooksRotateCmd     `cmd:"" help:"Replace the signing secret, and show the new one, once."`
	Promote    webhooksPromoteCmd    `cmd:"" help:"End the grace period of a rotation: the old secret stops being valid."`
	Enable     webhooksEnableCmd     `cmd:"" help:"Switch a disabled webhook on again."`
	Disable    webhooksDisableCmd    `cmd:"" help:"Switch a webhook off: it gets nothing more, not even what it is owed."`
	Deliveries webhooksDeliveriesCmd `cmd:"" help:"List the attempts of a webhook, or show one of them."`
	Retry      webhooksRetryCmd      `cmd:"" help:"Send failed deliveries again, now."`
	Replay     webhooksReplayCmd     `cmd:"" help:"Send the events of a time, or chosen ones, again, in the background."`
	Replays    webhooksReplaysCmd    `cmd:"" help:"List the replays of a webhook, or cancel one."`
	Missed     webhooksMissedCmd     `cmd:"" help:"List what a webhook has missed while it was disabled."`
	Stats      webhooksStatsCmd      `cmd:"" help:"Measure the deliveries of a webhook, or of all."`
}

// Help is shown below the subcommands.
func (webhooksCmd) Help() string {
	return `Examples:
  export TICKETWIRE_API_KEY=tw_...
  ticketwire webhooks create --name "Ops bridge" --to https://example.com/webhooks/alga --types ticket.created,ticket.closed
  ticketwire webhooks deliveries 0199... --status failed --since 24h
  ticketwire webhooks rotate 0199... --grace 24h
  ticketwire webhooks enable 0199... --replay-missed
  ticketwire webhooks replay 0199... --since 2h --dry-run`
}

func webhookColumns() []column[client.Webhook] {
	return []column[client.Webhook]{
		{"ID", func(w *client.Webhook) string { return w.WebhookID }},
		{"NAME", func(w *client.Webhook) string { return w.Name }},
		{"STATE", func(w *client.Webhook) string {
			switch { // AlgaPSA does not clear auto_disabled_at of an active one
			case w.IsActive && w.LastFailureAt != nil && (w.LastSuccessAt == nil || w.LastFailureAt.After(*w.LastSuccessAt)):
				return "failing"
			case w.IsActive:
				return "active"
			case text(w.DisabledReason) == "gone":
				return "disabled by a 410"
			case w.AutoDisabledAt != nil:
				return "disabled by failures"
			}
			return "disabled"
		}},
		{"DELIVERED", func(w *client.Webhook) string {
			return fmt.Sprintf("%d of %d attempts", w.SuccessfulDeliveries, w.TotalDeliveries)
		}},
		{"LAST FAILURE", func(w *client.Webhook) string { return stamp(w.LastFailureAt) }},
		{"TYPES", func(w *client.Webhook) string { return strings.Join(w.EventTypes, ",") }},
		{"URL", func(w *client.Webhook) string { return w.URL }},
	}
}

// webhookDetails are the rest of what there is to say about one webhook.
func webhookDetails() []column[client.Webhook] {
	return append(webhookColumns(), []column[client.Webhook]{
		{"METHOD", func(w *client.Webhook) string { return w.Method }},
		{"DESCRIPTION", func(w *client.Webhook) string { return text(w.Description) }},
		{"LAST SUCCESS", func(w *client.Webhook) string { return stamp(w.LastSuccessAt) }},
		{"DISABLED", func(w *client.Webhook) string { return stamp(w.DisabledAt) }},
		{"RATE", func(w *client.Webhook) string { return text(w.RateLimitPerMin) + " per minute" }},
		{"FILTER", func(w *client.Webhook) string { return string(w.EventFilter) }},
		{"FIELDS", func(w *client.Webhook) string { return string(w.PayloadFields) }},
		{"VERIFY TLS", func(w *client.Webhook) string { return strconv.FormatBool(w.VerifySSL) }},
		{"TLS", func(w *client.Webhook) string { return string(w.TLS) }},
		{"CREATED", func(w *client.Webhook) string { return stamp(w.CreatedAt) }},
	}...)
}

type webhooksListCmd struct {
	listFlags
	Type     string `help:"Only those that subscribe to this event type." placeholder:"TYPE"`
	Active   *bool  `help:"Only active ones; --no-active only disabled ones." negatable:""`
	Failures *bool  `help:"Only those with failed attempts; --no-failures only those without." negatable:""`
	Search   string `help:"Part of the name, URL or description." placeholder:"TEXT"`
}

// Run prints the webhooks, without secrets.
func (c *webhooksListCmd) Run(ctx context.Context, t terminal) error {
	api, err := c.connect()
	if err != nil {
		return err
	}
	return printList(t, c.listFlags, api.Webhooks(ctx, client.WebhookFilter{
		EventType: c.Type, IsActive: c.Active, HasFailures: c.Failures, Query: c.Search,
	}), webhookColumns())
}

// oneWebhook names a webhook.
type oneWebhook struct {
	oneFlags
	ID string `arg:"" help:"The webhook's id, from webhooks list."`
}

type webhooksGetCmd struct{ oneWebhook }

// Run shows everything but the secret.
func (c *webhooksGetCmd) Run(ctx context.Context, t terminal) error {
	api, err := c.connect()
	if err != nil {
		return err
	}
	w, err := api.Webhook(ctx, c.ID)
	if err != nil {
		return err
	}
	return printOne(t, c.JSON, w, webhookDetails())
}

// jsonFlag is a flag whose value is JSON.
type jsonFlag json.RawMessage

// UnmarshalText refuses what is not JSON.
func (j *jsonFlag) UnmarshalText(text []byte) error {
	if !json.Valid(text) {
		return errors.New("want JSON")
	}
	*j = append(jsonFlag(nil), text...)
	return nil
}

// webhookFlags are the settings that create and update share.
type webhookFlags struct {
	Name          *string           `help:"What the webhook is for." placeholder:"NAME"`
	To            *string           `help:"The receiver's URL." placeholder:"URL"`
	Types         []string          `help:"Event types to send." placeholder:"TYPE"`
	Description   *string           `help:"More words about it." placeholder:"TEXT"`
	Method        *string           `help:"POST, PUT or PATCH." placeholder:"METHOD"`
	Header        map[string]string `help:"A header to send along; repeat it. In an update the ones that are given replace all." placeholder:"NAME=VALUE"`
	Fields        []string          `help:"Send only these fields of the ticket; all sends everything again." placeholder:"FIELD"`
	Filter        *jsonFlag         `help:"The event_filter, such as {\"entity_ids\": [...]}, or null." placeholder:"JSON"`
	Retries       *jsonFlag         `help:"The retry_config, or null." placeholder:"JSON"`
	RatePerMinute *int              `help:"Requests per minute at most." placeholder:"N"`
	VerifyTLS     *bool             `name:"verify-tls" help:"Whether the receiver's certificate is checked." negatable:""`
	ClientCert    []byte            `help:"PEM certificate chain for a receiver that asks for one." type:"filecontent" placeholder:"FILE"`
	ClientKey     []byte            `help:"Its private key." type:"filecontent" placeholder:"FILE"`
	CABundle      []byte            `name:"ca-bundle" help:"PEM certificates to trust beside those of the system." type:"filecontent" placeholder:"FILE"`
}

func (f webhookFlags) input() client.WebhookInput {
	var in client.WebhookInput
	setField(&in.Name, f.Name)
	setField(&in.URL, f.To)
	setField(&in.Description, f.Description)
	setField(&in.Method, f.Method)
	setField(&in.VerifySSL, f.VerifyTLS)
	if len(f.Types) > 0 {
		in.EventTypes = client.Set(f.Types)
	}
	if len(f.Header) > 0 {
		in.CustomHeaders = client.Set(f.Header)
	}
	switch {
	case len(f.Fields) == 1 && f.Fields[0] == "all":
		in.PayloadFields = client.Null[any]()
	case len(f.Fields) > 0:
		in.PayloadFields = client.Set[any](map[string][]string{"ticket": f.Fields})
	}
	if f.Filter != nil {
		in.EventFilter = client.Set[any](json.RawMessage(*f.Filter))
	}
	if f.Retries != nil {
		in.RetryConfig = client.Set[any](json.RawMessage(*f.Retries))
	}
	if f.RatePerMinute != nil {
		in.RateLimit = client.Set[any](map[string]any{"enabled": true, "requests_per_minute": *f.RatePerMinute})
	}
	if credentials := f.tls(); len(credentials) > 0 {
		in.TLS = client.Set[any](credentials)
	}
	return in
}

// tls are the parts that were given; the others stay as they are.
func (f webhookFlags) tls() map[string]string {
	parts := map[string]string{}
	for name, text := range map[string][]byte{"client_cert": f.ClientCert, "client_key": f.ClientKey, "ca_bundle": f.CABundle} {
		if len(text) > 0 {
			parts[name] = string(text)
		}
	}
	return parts
}

// setField sets a field of an update to a flag that was given.
func setField[T any](to *client.Field[T], from *T) {
	if from != nil {
		*to = client.Set(*from)
	}
}

type webhooksCreateCmd struct {
	oneFlags
	webhookFlags
}

// Run subscribes. The secret goes to standard output alone, so that it can be
// captured by a script.
func (c *webhooksCreateCmd) Run(ctx context.Context, t terminal) error {
	if c.Name == nil || c.To == nil || len(c.Types) == 0 {
		return usageError{errors.New("--name, --to and --types are needed"), `ticketwire webhooks create --name "Ops bridge" --to https://example.com/webhooks/alga --types ticket.created`}
	}
	api, err := c.connect()
	if err != nil {
		return err
	}
	w, err := api.CreateWebhook(ctx, c.input())
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(t.out, w)
	}
	fmt.Fprintf(t.err, "Webhook %s is made. Its signing secret is not shown again:\n", w.WebhookID)
	_, err = fmt.Fprintln(t.out, w.SigningSecret)
	return err
}

type webhooksUpdateCmd struct {
	oneWebhook
	webhookFlags
	NoTLS  bool  `name:"no-tls" help:"Take its client certificate, key and CA bundle away."`
	Active *bool `help:"Whether it gets events; see enable for what it has missed." negatable:""`
}

// Run changes what was given and leaves the rest.
func (c *webhooksUpdateCmd) Run(ctx context.Context, t terminal) error {
	in := c.input()
	if c.NoTLS {
		if !in.TLS.IsZero() {
			return usageError{errors.New("--no-tls takes away what --client-cert, --client-key and --ca-bundle give: leave one of them out"), ""}
		}
		in.TLS = client.Null[any]()
	}
	setField(&in.IsActive, c.Active)
	return c.update(ctx, t, in)
}

func (c *oneWebhook) update(ctx context.Context, t terminal, in client.WebhookInput) error {
	api, err := c.connect()
	if err != nil {
		return err
	}
	w, err := api.UpdateWebhook(ctx, c.ID, in)
	if err != nil {
		return err
	}
	return printOne(t, c.JSON, w, webhookDetails())
}

type webhooksEnableCmd struct {
	oneWebhook
	ReplayMissed bool `help:"Send what it has missed, too."`
}

// Run switches the webhook on.
func (c *webhooksEnableCmd) Run(ctx context.Context, t terminal) error {
	return c.update(ctx, t, client.WebhookInput{IsActive: client.Set(true), ReplayMissed: c.ReplayMissed})
}

type webhooksDisableCmd struct{ oneWebhook }

// Run switches the webhook off.
func (c *webhooksDisableCmd) Run(ctx context.Context, t terminal) error {
	return c.update(ctx, t, client.WebhookInput{IsActive: client.Set(false)})
}

type webhooksDeleteCmd struct {
	apiFlags
	IDs []string `arg:"" name:"id" help:"The webhooks' ids, from webhooks list."`
}

// Run deletes the webhooks one after the other and stops at the first failure.
func (c *webhooksDeleteCmd) Run(ctx context.Context, t terminal) error {
	api, err := c.connect()
	if err != nil {
		return err
	}
	for _, id := range c.IDs {
		if err := api.DeleteWebhook(ctx, id); err != nil {
			return fmt.Errorf("webhook %s: %w", id, err)
		}
	}
	_, err = fmt.Fprintln(t.err, "Deleted", strings.Join(c.IDs, ", "))
	return err
}

type webhooksTestCmd struct{ oneWebhook }

// Run sends a test event. A receiver that does not accept it is exit code 1.
func (c *webhooksTestCmd) Run(ctx context.Context, t terminal) error {
	api, err := c.connect()
	if err != nil {
		return err
	}
	r, err := api.TestWebhook(ctx, c.ID)
	if err != nil {
		return err
	}
	err = printOne(t, c.JSON, r, []column[client.TestResult]{
		{"EVENT", func(r *client.TestResult) string { return r.TestID }},
		{"ACCEPTED", func(r *client.TestResult) string { return strconv.FormatBool(r.Success) }},
		{"STATUS", func(r *client.TestResult) string { return text(r.StatusCode) }},
		{"TOOK", func(r *client.TestResult) string { return text(r.ResponseTimeMS) + " ms" }},
		{"BODY", func(r *client.TestResult) string { return text(r.ResponseBody) }},
		{"ERROR", func(r *client.TestResult) string { return text(r.ErrorMessage) }},
	})
	if err == nil && !r.Success {
		err = errors.New("the receiver did not accept the test event")
	}
	return err
}

type webhooksRotateCmd struct {
	oneWebhook
	Grace time.Duration `help:"How long the old secret stays valid beside the new one, at most 168h. Default: it ends at once."`
}

// Run rotates. The secret goes to standard output alone.
func (c *webhooksRotateCmd) Run(ctx context.Context, t terminal) error {
	api, err := c.connect()
	if err != nil {
		return err
	}
	secret, err := api.RotateSecret(ctx, c.ID, c.Grace)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(t.out, map[string]string{"webhook_id": c.ID, "signing_secret": secret})
	}
	if c.Grace > 0 {
		fmt.Fprintf(t.err, "Both secrets are valid for %s. The new one is not shown again:\n", c.Grace)
	} else {
		fmt.Fprintln(t.err, "The old secret is not valid any more. The new one is not shown again:")
	}
	_, err = fmt.Fprintln(t.out, secret)
	return err
}

type webhooksPromoteCmd struct {
	apiFlags
	ID string `arg:"" help:"The webhook's id, from webhooks list."`
}

// Run ends the grace period.
func (c *webhooksPromoteCmd) Run(ctx context.Context, t terminal) error {
	api, err := c.connect()
	if err != nil {
		return err
	}
	if err := api.PromoteSecret(ctx, c.ID); err != nil {
		return err
	}
	_, err = fmt.Fprintln(t.err, "Only the newest secret of", c.ID, "is valid.")
	return err
}
