package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/ticketwire/ticketwire/internal/app"
	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/store"
)

type bootstrapCmd struct {
	storeFlags
	Tenant       string `help:"Name of the tenant." default:"Example Desk"`
	Email        string `help:"Mail address of its first user." default:"admin@example.com"`
	TicketPrefix string `help:"What ticket numbers begin with." default:"TKT-"`
	JSON         bool   `name:"json" help:"Print one JSON object."`
}

// Help is shown below the flags.
func (bootstrapCmd) Help() string {
	return `Makes a tenant, a user with every permission and an API key, a board with its statuses,
priorities, a client and a contact: all that is needed to create a ticket. The key is
shown once. Works on the data directory or the database, whether or not the server runs.

Examples:
  ticketwire bootstrap --tenant "Harbour Desk" --email me@example.com
  ticketwire bootstrap --json | jq -r .api_key`
}

// open opens the store for administration.
func (f *storeFlags) open(ctx context.Context) (*store.Store, error) {
	return app.Open(ctx, app.Config{
		DataDir: f.Data, DatabaseURL: f.DatabaseURL, SecretKeyFile: f.SecretKeyFile,
		Policy: delivery.DefaultPolicy(), Log: slog.New(slog.DiscardHandler),
	})
}

// Run makes the tenant.
func (c *bootstrapCmd) Run(ctx context.Context, t terminal) (err error) {
	s, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer closing(s, &err)
	b, err := s.Bootstrap(ctx, time.Now(), store.BootstrapDraft{
		Tenant: c.Tenant, Email: c.Email, TicketPrefix: c.TicketPrefix, FirstName: "Admin", LastName: "User",
	})
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(t.out, b)
	}
	w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	for _, l := range [][2]string{
		{"tenant_id", b.TenantID}, {"user_id", b.UserID}, {"api_key", b.APIKey}, {"board_id", b.BoardID},
		{"client_id", b.ClientID}, {"contact_id", b.ContactID},
	} {
		fmt.Fprintf(w, "%s\t%s\n", l[0], l[1])
	}
	for _, group := range []struct {
		name string
		ids  map[string]string
	}{{"status", b.Statuses}, {"priority", b.Priorities}} {
		for _, name := range slices.Sorted(maps.Keys(group.ids)) {
			fmt.Fprintf(w, "%s %s\t%s\n", group.name, name, group.ids[name])
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintln(t.err, "The API key is not shown again.")
	return err
}

// closing closes c and keeps the first error.
func closing(c io.Closer, err *error) {
	if cerr := c.Close(); cerr != nil && *err == nil {
		*err = cerr
	}
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
