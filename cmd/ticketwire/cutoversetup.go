package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/cutover"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/webhook"
)

// defaultInterval is the poller's, as in the guide.
const defaultInterval = time.Minute

// everyEvent are the event types that move updated_at: whatever the poller can
// see, one of them tells.
func everyEvent() []string {
	return []string{
		webhook.TicketCreated, webhook.TicketUpdated, webhook.TicketStatusChanged,
		webhook.TicketAssigned, webhook.TicketClosed, webhook.TicketCommentAdded,
	}
}

// prepare makes the setup, or takes the one that is there if nothing was asked for
// that is not in it.
func (c *cutoverStartCmd) prepare(ctx context.Context, t terminal) (*cutover.Setup, error) {
	return cutover.ChangeSetup(c.State, func(old *cutover.Setup) (*cutover.Setup, error) {
		if old != nil {
			return old, c.fits(ctx, old)
		}
		return c.begin(ctx, t)
	})
}

// fits compares the flags with the setup of before.
func (c *cutoverStartCmd) fits(ctx context.Context, old *cutover.Setup) error {
	differs := func(flag, given string, has any) error {
		return usageError{
			fmt.Errorf("%s %s: the cutover in %s was started with %v", flag, given, c.State, has),
			"leave " + flag + " out to go on with it, or begin another one with --state DIR",
		}
	}
	if c.URL != "" && baseURL(c.URL) != old.Server {
		return differs("--url", c.URL, old.Server)
	}
	c.URL = old.Server
	if c.Webhook != "" && !strings.EqualFold(c.Webhook, old.WebhookID) {
		return differs("--webhook", c.Webhook, old.WebhookID)
	}
	if every := seconds(old.Interval); c.Interval != 0 && c.Interval != every {
		return differs("--interval", c.Interval.String(), every)
	}
	switch {
	case c.All && len(old.Tickets) > 0:
		return differs("--all", "", fmt.Sprintf("a list of %d tickets", len(old.Tickets)))
	case !c.byID():
		return nil
	}
	api, err := c.api()
	if err != nil {
		return err
	}
	ids, err := c.watched(ctx, api)
	if err != nil {
		return err
	}
	if !slices.Equal(sortedIDs(ids), old.Tickets) {
		has := fmt.Sprintf("%d tickets", len(old.Tickets))
		if len(old.Tickets) == 0 {
			has = "--all"
		}
		return differs("--ids, --ids-file or --query", fmt.Sprintf("(%d tickets)", len(ids)), has+", which are other ones")
	}
	return nil
}

func (c *cutoverStartCmd) api() (*client.Client, error) {
	return apiFlags{URL: c.URL, APIKey: c.APIKey}.connect()
}

// begin makes a new setup, and the webhook if there is none.
func (c *cutoverStartCmd) begin(ctx context.Context, t terminal) (*cutover.Setup, error) {
	switch {
	case !c.All && !c.byID():
		return nil, usageError{errors.New("say what to watch: --ids, --ids-file or --query, or --all"), "ticketwire cutover start --help"}
	case c.Webhook == "" && c.ReceiverURL == "":
		return nil, usageError{
			errors.New("which webhook? --webhook takes one that is there, and --receiver-url makes one"),
			"--receiver-url https://hooks.example.com" + c.Path,
		}
	}
	c.URL = baseURL(cmp.Or(c.URL, "http://127.0.0.1:8080"))
	api, err := c.api()
	if err != nil {
		return nil, err
	}
	ids, err := c.watched(ctx, api)
	if err != nil {
		return nil, err
	}
	now, err := cutover.ServerClock(ctx, c.URL, c.APIKey, nil, time.Now)
	if err != nil {
		return nil, err
	}
	if c.Webhook == "" {
		if err := c.subscribe(ctx, t, api); err != nil {
			return nil, err
		}
	} else if _, err := api.Webhook(ctx, c.Webhook); kindOf(err) == fault.NotFound {
		return nil, fmt.Errorf("--webhook: %w", err)
	}
	now = now.UTC()
	return &cutover.Setup{
		Server: c.URL, WebhookID: strings.ToLower(c.Webhook), Tickets: sortedIDs(ids),
		Interval: cmp.Or(c.Interval, defaultInterval).Seconds(), Started: now,
		Turns: []cutover.Turn{{At: time.Now().UTC(), From: now, Side: cutover.SidePoller}},
	}, nil
}

// subscribe makes the webhook and puts its secret where the receiver reads it. The
// file is there before the webhook is, so that the secret, which is shown once, is
// not lost for want of a place.
func (c *cutoverStartCmd) subscribe(ctx context.Context, t terminal, api *client.Client) (err error) {
	name := c.secretFile()
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("make the file of the signing secret: %w", err)
	}
	defer closing(f, &err)
	w, err := api.CreateWebhook(ctx, client.WebhookInput{
		Name: client.Set("ticketwire cutover"), URL: client.Set(c.ReceiverURL), EventTypes: client.Set(everyEvent()),
	})
	if err != nil {
		return fmt.Errorf("make the webhook: %w", err)
	}
	if err = f.Truncate(0); err == nil {
		if _, err = f.WriteString(w.SigningSecret + "\n"); err == nil {
			err = f.Sync()
		}
	}
	if err != nil {
		return fmt.Errorf("keep the signing secret of webhook %s: %w", w.WebhookID, err)
	}
	c.Webhook = w.WebhookID
	fmt.Fprintf(t.err, "Webhook %s is made. Its signing secret is in %s.\n", w.WebhookID, name)
	return nil
}

func (c *cutoverStartCmd) secretFile() string {
	return cmp.Or(c.SecretFile, filepath.Join(c.State, "secret"))
}

// sortedIDs is a watch list in the form in which lists are compared; nil for all.
func sortedIDs(ids []string) []string {
	var out []string
	for _, id := range ids {
		out = append(out, strings.ToLower(id))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
