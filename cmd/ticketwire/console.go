package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/internal/app"
	"github.com/ticketwire/ticketwire/internal/store"
)

type consoleCmd struct {
	Link consoleLinkCmd `cmd:"" help:"Print a link that signs a user in to the web console, once."`
}

type consoleLinkCmd struct {
	storeFlags
	URL    string `name:"url" help:"Where the server is reached." default:"http://127.0.0.1:8080"`
	Tenant string `help:"The tenant's id, from tenants list; not needed when there is one." placeholder:"ID"`
	Email  string `help:"Mail address of the user; not needed when the tenant has one." placeholder:"ADDRESS"`
}

// Help is shown below the flags.
func (consoleLinkCmd) Help() string {
	return `The link is good for 15 minutes and one use. Whoever opens it may do what the user may
do, for 12 hours or until he signs out. Works on the data directory, whether or not the
server runs.

Examples:
  ticketwire console link
  ticketwire console link --url https://desk.example.com --email ada@example.com`
}

// Run prints the link.
func (c *consoleLinkCmd) Run(ctx context.Context, t terminal) (err error) {
	if !app.HasConsole {
		return errors.New("this build of ticketwire has no console")
	}
	base, err := url.Parse(c.URL)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" {
		return usageError{errors.New("--url must be an http or https URL"), "--url https://desk.example.com"}
	}
	s, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer closing(s, &err)
	tenant, err := c.tenant(ctx, s)
	if err != nil {
		return err
	}
	users, total, err := s.Users(ctx, tenant, store.ResourceQuery{Email: c.Email, Limit: 2})
	switch {
	case err != nil:
		return err
	case total == 0:
		return fmt.Errorf("the tenant has no user with the address %q", c.Email)
	case total > 1:
		return usageError{errors.New("the tenant has several users: say which with --email"), "--email ada@example.com"}
	}
	link, err := consoleLink(ctx, s, time.Now(), c.URL, tenant, users[0].UserID)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(t.out, link)
	return err
}

// tenant is the one that was named, or the only one.
func (c *consoleLinkCmd) tenant(ctx context.Context, s *store.Store) (string, error) {
	if c.Tenant != "" {
		return c.Tenant, nil
	}
	tenants, err := s.Tenants(ctx)
	switch {
	case err != nil:
		return "", err
	case len(tenants) == 0:
		return "", errors.New("there is no tenant yet: ticketwire bootstrap makes one")
	case len(tenants) > 1:
		return "", usageError{errors.New("there are several tenants: say which with --tenant"), "ticketwire tenants list"}
	}
	return tenants[0].TenantID, nil
}

// consoleLink makes a link that signs a user in to the console, once.
func consoleLink(ctx context.Context, s *store.Store, now time.Time, base, tenant, user string) (string, error) {
	token, err := s.NewLink(ctx, now, tenant, user)
	if err != nil {
		return "", fmt.Errorf("make a link to the console: %w", err)
	}
	return strings.TrimRight(base, "/") + "/console/link?token=" + url.QueryEscape(token), nil
}
