package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/webhook"
)

const defaultState = ".ticketwire-listen.json"

type listenCmd struct {
	apiFlags
	secretFlags
	receiverFlags
	feedFlags
	ForwardTo   string `help:"Receiver that gets the events." placeholder:"URL"`
	Retry       string `help:"Delay before each retry of what the receiver did not accept; none for no retries." default:"1s,3s,10s"`
	Once        bool   `help:"Exit when caught up."`
	State       string `help:"File that keeps the place in the feed and the local secret. Default: ${default_state}." default:"${default_state}" placeholder:"FILE"`
	PrintSecret bool   `help:"Print the secret that requests are signed with, and exit."`
	JSON        bool   `name:"json" help:"Print one JSON object per event, one a line."`
}

// Help is shown below the flags.
func (listenCmd) Help() string {
	return `Reads the event feed of a server and posts each event to a receiver on this machine, in
order and signed as the service does it. The server needs no webhook and no way to reach
this machine. The place in the feed is saved after each event: the next run begins with
what happened meanwhile. When the connection breaks it says so, tries until it is back,
and catches up.

The signing secret is made on the first run and stays the same; --secret takes another.

Examples:
  export TICKETWIRE_API_KEY=tw_...
  export WEBHOOK_SECRET=$(ticketwire listen --print-secret)
  ticketwire listen --forward-to http://localhost:3000/webhooks/alga
  ticketwire listen --forward-to http://localhost:3000/webhooks/alga --since 2h --types ticket.created,ticket.closed
  ticketwire listen --forward-to http://localhost:3000/webhooks/alga --since 1h --once --json`
}

// listener is one run of listen.
type listener struct {
	*follower
	cmd      *listenCmd
	out      *sender
	secret   string
	retries  []time.Duration
	accepted int
	failed   []forwarded
}

// Run forwards events until it is interrupted.
func (c *listenCmd) Run(ctx context.Context, t terminal) error {
	state, err := loadListenState(c.State)
	if err != nil {
		return err
	}
	secret, err := c.given()
	if err != nil {
		return err
	}
	if secret == "" {
		secret = state.Secret
	}
	if c.PrintSecret {
		if err := state.save(); err != nil {
			return err
		}
		_, err := fmt.Fprintln(t.out, secret)
		return err
	}
	l := &listener{cmd: c, secret: secret}
	if l.follower, err = c.newFollower(c.apiFlags, t, state, c.Once); err != nil {
		return err
	}
	if err := l.prepare(); err != nil {
		return err
	}
	defer l.out.client.Close()
	if err := l.begin(ctx); err != nil {
		return err
	}
	l.ready(ctx)
	err = l.run(ctx, func(e *client.Event) error { return l.forward(ctx, e) })
	err = errors.Join(err, l.state.save())
	l.summary()
	if err == nil && len(l.failed) > 0 {
		err = fmt.Errorf("the receiver did not accept %d of %d events", len(l.failed), l.accepted+len(l.failed))
	}
	return err
}

// prepare checks the flags of forwarding.
func (l *listener) prepare() (err error) {
	c := l.cmd
	if c.ForwardTo == "" {
		return usageError{errors.New("there is nobody to forward to"), "--forward-to http://localhost:3000/webhooks/alga"}
	}
	if l.retries, err = delivery.ParseSchedule(c.Retry); err != nil {
		return usageError{fmt.Errorf("--retry: %w", err), "--retry 1s,3s,10s"}
	}
	l.out, err = c.sender("--forward-to", c.ForwardTo)
	return err
}

// ready is said only after the feed has answered.
func (l *listener) ready(ctx context.Context) {
	whose := "the secret that --print-secret prints"
	if l.secret != l.state.Secret {
		whose = "the secret that was given"
	}
	l.note("Ready: events of %s go to %s, signed with %s.", l.server, l.cmd.ForwardTo, whose)
	u, err := url.Parse(l.cmd.ForwardTo)
	if err != nil {
		return // sender has read it before
	}
	port := u.Port()
	if port == "" {
		port = u.Scheme // net knows http and https
	}
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		l.note("The receiver is not there yet: %v", err)
		return
	}
	conn.Close()
}

// forward posts one event until the receiver accepts it or the retries are used
// up. The error is ctx's.
func (l *listener) forward(ctx context.Context, e *client.Event) error {
	f := newForwarded(e)
	for {
		f.Attempts++
		a := l.out.post(ctx, e.Raw, f.Attempts, webhook.Sign(l.secret, time.Now(), e.Raw))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f.StatusCode, f.took, f.DurationMS = a.StatusCode, a.Duration, a.Duration.Milliseconds()
		f.Answer, f.Accepted = outcome(a), a.OK()
		if f.Accepted || f.Attempts > len(l.retries) {
			break
		}
		wait := l.retries[f.Attempts-1]
		l.note("%s %s: %s, again in %s", f.EventType, f.EventID, f.Answer, wait)
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
	if f.Accepted {
		l.accepted++
	} else {
		l.failed = append(l.failed, f)
	}
	line := f.line()
	if l.cmd.JSON {
		line = string(plainJSON(f))
	}
	_, err := fmt.Fprintln(l.t.out, line)
	return err
}
