package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// The commands of this file are the operator's: they work on the data directory or the database,
// whether or not the server runs, and need no API key.

type checkCmd struct {
	storeFlags
}

// Help is shown below the flags.
func (checkCmd) Help() string {
	return `Reads the whole database and says whether it is sound: "ok" and exit code 0, or what
is wrong and exit code 1; and whether the key file opens the secrets of webhooks. It takes about three seconds for a gigabyte and holds up no
server that runs on it. serve makes the same check of a database below 64 MB.
Of PostgreSQL it checks the connection and the schema; pg_amcheck reads the pages.

Example:
  ticketwire check --data ./ticketwire-data`
}

// Run checks the database.
func (c *checkCmd) Run(ctx context.Context, t terminal) (err error) {
	s, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer closing(s, &err)
	checked, err := s.Check(ctx, 0)
	if err != nil {
		return err
	}
	switch unopened, of, err := s.CheckSecrets(ctx); {
	case err != nil:
		return err
	case unopened > 0:
		return fmt.Errorf("the key file does not open the secrets of %d of %d webhooks: it is not the one of this database, or lacks a key", unopened, of)
	}
	if !checked {
		fmt.Fprintln(t.out, "ok: the server is reachable and its schema is current; its pages are checked by pg_amcheck")
		return nil
	}
	fmt.Fprintln(t.out, "ok")
	return nil
}

type tenantsCmd struct {
	List   tenantsListCmd   `cmd:"" help:"List the tenants."`
	Update tenantsUpdateCmd `cmd:"" help:"Suspend, resume or limit a tenant."`
}

type tenantsListCmd struct {
	storeFlags
	JSON bool `name:"json" help:"Print a JSON array."`
}

// Run prints every tenant.
func (c *tenantsListCmd) Run(ctx context.Context, t terminal) (err error) {
	s, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer closing(s, &err)
	tenants, err := s.Tenants(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(t.out, tenants)
	}
	w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tNAME\tPRODUCT\tSUSPENDED\tPREFIX\tCREATED")
	for _, x := range tenants {
		fmt.Fprintf(w, "%s\t%s\t%s\t%t\t%s\t%s\n", x.TenantID, x.Name, x.Product, x.Suspended, x.TicketPrefix, stamp(&x.CreatedAt))
	}
	return w.Flush()
}

type tenantsUpdateCmd struct {
	storeFlags
	ID           string    `arg:"" help:"The tenant's id, from tenants list."`
	Name         *string   `help:"New name." placeholder:"NAME"`
	Suspended    *bool     `help:"Whether its keys are refused." negatable:""`
	Product      *string   `help:"psa, or algadesk, which has no webhooks." placeholder:"PRODUCT"`
	TicketPrefix *string   `help:"What new ticket numbers begin with." placeholder:"TEXT"`
	Rate         *rateFlag `help:"Rate limit of each of its keys: burst/refill per minute." placeholder:"BURST/REFILL" xor:"rate"`
	NoRateLimit  bool      `help:"No rate limit for its keys." xor:"rate"`
	DefaultRate  bool      `help:"Back to the server's rate limit." xor:"rate"`
}

// Run changes what was given and leaves the rest.
func (c *tenantsUpdateCmd) Run(ctx context.Context, t terminal) (err error) {
	s, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer closing(s, &err)
	next, err := s.UpdateTenant(ctx, c.ID, func(x *store.Tenant) error {
		setIf(&x.Name, c.Name)
		setIf(&x.Suspended, c.Suspended)
		setIf(&x.Product, c.Product)
		setIf(&x.TicketPrefix, c.TicketPrefix)
		switch {
		case c.NoRateLimit:
			off := false
			x.Rate = store.RateLimit{Enabled: &off}
		case c.DefaultRate:
			x.Rate = store.RateLimit{}
		case c.Rate != nil:
			x.Rate = store.RateLimit{MaxTokens: &c.Rate.MaxTokens, RefillPerMin: &c.Rate.RefillPerMin}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return printJSON(t.out, next)
}

func setIf[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

type usersCmd struct {
	Add    usersAddCmd    `cmd:"" help:"Add a user to a tenant, with a first API key."`
	Update usersUpdateCmd `cmd:"" help:"Change a user's name, address, permissions or state."`
}

type userFlags struct {
	Email      *string  `help:"Mail address." placeholder:"ADDRESS"`
	FirstName  *string  `help:"First name." placeholder:"NAME"`
	LastName   *string  `help:"Last name." placeholder:"NAME"`
	Permission []string `help:"What the user may do, as resource:action; repeat it. Default when adding: everything." placeholder:"RESOURCE:ACTION"`
}

func (f userFlags) apply(u *ticket.User) {
	setIf(&u.Email, f.Email)
	setIf(&u.FirstName, f.FirstName)
	setIf(&u.LastName, f.LastName)
	if len(f.Permission) > 0 {
		u.Permissions = f.Permission
	}
}

type usersAddCmd struct {
	storeFlags
	userFlags
	Tenant string `arg:"" help:"The tenant's id, from tenants list."`
}

// Run makes the user and a key and prints both; the key is shown this once.
func (c *usersAddCmd) Run(ctx context.Context, t terminal) (err error) {
	s, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer closing(s, &err)
	u := ticket.User{Permissions: store.AllPermissions()}
	c.apply(&u)
	now := time.Now()
	u, err = s.AddUser(ctx, now, c.Tenant, u)
	if err != nil {
		return err
	}
	k, text, err := s.CreateKey(ctx, now, c.Tenant, store.KeyDraft{UserID: u.UserID, Name: "first key"})
	if err != nil {
		return err
	}
	return printJSON(t.out, map[string]string{"user_id": u.UserID, "api_key_id": k.KeyID, "api_key": text})
}

type usersUpdateCmd struct {
	storeFlags
	userFlags
	Tenant   string `arg:"" help:"The tenant's id, from tenants list."`
	ID       string `arg:"" help:"The user's id."`
	Inactive *bool  `help:"Whether the user's keys are refused." negatable:""`
}

// Run changes what was given and leaves the rest.
func (c *usersUpdateCmd) Run(ctx context.Context, t terminal) (err error) {
	s, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer closing(s, &err)
	u, err := s.UpdateUser(ctx, c.Tenant, c.ID, func(u *ticket.User) error {
		c.apply(u)
		setIf(&u.IsInactive, c.Inactive)
		return nil
	})
	if err != nil {
		return err
	}
	return printJSON(t.out, u)
}

type prioritiesCmd struct {
	Add prioritiesAddCmd `cmd:"" help:"Add a priority to a tenant; the API has no route for it."`
}

type prioritiesAddCmd struct {
	storeFlags
	Tenant string `arg:"" help:"The tenant's id, from tenants list."`
	Name   string `arg:"" help:"Name of the priority."`
	Order  int    `help:"Its place in lists." placeholder:"N"`
}

// Run prints the priority that was made.
func (c *prioritiesAddCmd) Run(ctx context.Context, t terminal) (err error) {
	s, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer closing(s, &err)
	p, err := s.AddPriority(ctx, time.Now(), c.Tenant, ticket.Priority{Name: c.Name, OrderNumber: c.Order})
	if err != nil {
		return err
	}
	return printJSON(t.out, p)
}
