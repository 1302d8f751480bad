package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/fault"
)

// apiFlags say which server a command talks to, and as whom.
type apiFlags struct {
	URL    string `name:"url" help:"Base URL of the service." default:"http://127.0.0.1:8080"`
	APIKey string `name:"api-key" help:"API key; better given as TICKETWIRE_API_KEY, where other users cannot see it." placeholder:"KEY"`
}

func (f apiFlags) connect(opts ...client.Option) (*client.Client, error) {
	if f.APIKey == "" {
		return nil, usageError{errors.New("an API key is needed"), "TICKETWIRE_API_KEY=... ticketwire ..., or --api-key"}
	}
	c, err := client.New(f.URL, f.APIKey, append([]client.Option{client.WithUserAgent("ticketwire/" + version())}, opts...)...)
	if err != nil {
		return nil, usageError{fmt.Errorf("--url: %w", err), "--url http://127.0.0.1:8080"}
	}
	return c, nil
}

// kindOf classifies an error for the exit code: errors of ours by their kind,
// answers of a server by their status, and a server that cannot be reached as
// unavailable.
func kindOf(err error) fault.Kind {
	if e, is := errors.AsType[*client.Error](err); is {
		switch {
		case e.Status == http.StatusBadRequest, e.Status == http.StatusRequestEntityTooLarge:
			return fault.Invalid
		case e.Status == http.StatusUnauthorized, e.Status == http.StatusForbidden:
			return fault.Forbidden
		case e.Status == http.StatusNotFound:
			return fault.NotFound
		case e.Status == http.StatusConflict:
			return fault.Conflict
		case e.Status == http.StatusTooManyRequests, e.Status >= 502:
			return fault.Unavailable
		}
		return fault.Internal
	}
	if _, is := errors.AsType[*url.Error](err); is {
		return fault.Unavailable
	}
	return fault.KindOf(err)
}

type keysCmd struct {
	List   keysListCmd   `cmd:"" help:"List the tenant's API keys."`
	Create keysCreateCmd `cmd:"" help:"Make a key and show it, once."`
	Update keysUpdateCmd `cmd:"" help:"Change a key's name, limits or state."`
	Revoke keysRevokeCmd `cmd:"" help:"Delete a key; it stops working at once."`
}

// Help is shown below the subcommands.
func (keysCmd) Help() string {
	return `Examples:
  export TICKETWIRE_API_KEY=tw_...
  ticketwire keys list
  ticketwire keys create --name poller --permission ticket:read --rate 240/120
  ticketwire keys update 0199... --no-rate-limit
  ticketwire keys revoke 0199...`
}

type keysListCmd struct{ listFlags }

// Run prints the keys, never their text.
func (c *keysListCmd) Run(ctx context.Context, t terminal) error {
	api, err := c.connect()
	if err != nil {
		return err
	}
	return printList(t, c.listFlags, api.Keys(ctx), keyColumns())
}

func keyColumns() []column[client.Key] {
	return []column[client.Key]{
		{"ID", func(k *client.Key) string { return k.KeyID }},
		{"NAME", func(k *client.Key) string { return k.Name }},
		{"PREFIX", func(k *client.Key) string { return k.Prefix }},
		{"ACTIVE", func(k *client.Key) string { return strconv.FormatBool(k.Active) }},
		{"USED", func(k *client.Key) string {
			if k.UsageLimit != nil {
				return fmt.Sprintf("%d of %d", k.UsageCount, *k.UsageLimit)
			}
			return fmt.Sprint(k.UsageCount)
		}},
		{"LAST USED", func(k *client.Key) string { return stamp(k.LastUsedAt) }},
		{"EXPIRES", func(k *client.Key) string { return stamp(k.ExpiresAt) }},
		{"RATE", func(k *client.Key) string {
			switch r := k.RateLimit; {
			case r.Enabled != nil && !*r.Enabled:
				return "none"
			case r.MaxTokens != nil && r.RefillPerMin != nil:
				return fmt.Sprintf("%d/%d", *r.MaxTokens, *r.RefillPerMin)
			}
			return "default"
		}},
	}
}

// keyFlags are the settings of a key that create and update share.
type keyFlags struct {
	Permission  []string   `help:"Allow only this, as resource:action; repeat it. Default: all that the user may do." placeholder:"RESOURCE:ACTION"`
	Expires     *time.Time `help:"When the key stops working, as 2027-01-31T00:00:00Z." placeholder:"TIME"`
	UsageLimit  *int64     `help:"How many calls the key is good for." placeholder:"N"`
	Rate        *rateFlag  `help:"Its own rate limit: burst/refill per minute." placeholder:"BURST/REFILL" xor:"rate"`
	NoRateLimit bool       `help:"No rate limit at all." xor:"rate"`
}

func (f keyFlags) input() client.KeyInput {
	var in client.KeyInput
	if len(f.Permission) > 0 {
		in.Permissions = client.Set(f.Permission)
	}
	if f.Expires != nil {
		in.ExpiresAt = client.Set(*f.Expires)
	}
	if f.UsageLimit != nil {
		in.UsageLimit = client.Set(*f.UsageLimit)
	}
	switch {
	case f.NoRateLimit:
		in.RateLimit = client.Set(client.KeyRateLimit{Enabled: new(false)})
	case f.Rate != nil:
		in.RateLimit = client.Set(client.KeyRateLimit{Enabled: new(true), MaxTokens: &f.Rate.MaxTokens, RefillPerMin: &f.Rate.RefillPerMin})
	}
	return in
}

type keysCreateCmd struct {
	oneFlags
	keyFlags
	Name string `help:"What the key is for." required:"" placeholder:"NAME"`
	User string `help:"Whose key it is. Default: the caller's own user." placeholder:"USER_ID"`
}

// Run makes the key. Its text goes to standard output alone, so that it can be
// captured by a script.
func (c *keysCreateCmd) Run(ctx context.Context, t terminal) error {
	api, err := c.connect()
	if err != nil {
		return err
	}
	in := c.input()
	in.Name = client.Set(c.Name)
	if c.User != "" {
		in.UserID = client.Set(c.User)
	}
	k, err := api.CreateKey(ctx, in)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(t.out, k)
	}
	if _, err := fmt.Fprintln(t.out, k.APIKey); err != nil {
		return err
	}
	_, err = fmt.Fprintf(t.err, "Key %s is made. It is not shown again.\n", k.KeyID)
	return err
}

type keysUpdateCmd struct {
	oneFlags
	keyFlags
	ID     string  `arg:"" help:"The key's id, from keys list."`
	Name   *string `help:"New name." placeholder:"NAME"`
	Active *bool   `help:"Whether the key works." negatable:""`
}

// Run changes what was given and leaves the rest.
func (c *keysUpdateCmd) Run(ctx context.Context, t terminal) error {
	api, err := c.connect()
	if err != nil {
		return err
	}
	in := c.input()
	if c.Name != nil {
		in.Name = client.Set(*c.Name)
	}
	if c.Active != nil {
		in.Active = client.Set(*c.Active)
	}
	k, err := api.UpdateKey(ctx, c.ID, in)
	if err != nil {
		return err
	}
	return printOne(t, c.JSON, k, keyColumns())
}

type keysRevokeCmd struct {
	apiFlags
	IDs []string `arg:"" name:"id" help:"The keys' ids, from keys list."`
}

// Run deletes the keys one after the other and stops at the first failure.
func (c *keysRevokeCmd) Run(ctx context.Context, t terminal) error {
	api, err := c.connect()
	if err != nil {
		return err
	}
	for _, id := range c.IDs {
		if err := api.DeleteKey(ctx, id); err != nil {
			return fmt.Errorf("key %s: %w", id, err)
		}
	}
	_, err = fmt.Fprintln(t.err, "Revoked", strings.Join(c.IDs, ", "))
	return err
}
