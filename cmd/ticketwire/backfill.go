package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/internal/cutover"
	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/webhook"
)

// deliverFlags say how what was missed gets to the receiver. Backfill and
// reconcile have them.
type deliverFlags struct {
	secretFlags
	receiverFlags
	To      string  `help:"URL of the receiver, the one that the webhook has or one of this machine." placeholder:"URL"`
	Webhook string  `help:"The webhook that missed something." placeholder:"ID"`
	Retry   string  `help:"Delay before each further try of a request that failed; none for no retries." default:"1s,5s,30s,2m"`
	Budget  float64 `help:"Share of the API key's rate limit to use at most (above 0 to 1)." default:"0.5"`
	State   string  `help:"Cutover directory: the record of the receiver, if it keeps one, and how far this has come. Default: ticketwire-cutover." default:"ticketwire-cutover" placeholder:"DIR" type:"path"`
}

// check finds what is wrong with the flags.
func (c *deliverFlags) check() ([]time.Duration, error) {
	if c.Budget <= 0 || c.Budget > 1 {
		return nil, usageError{errors.New("--budget must be above 0 and at most 1"), "--budget 0.5"}
	}
	retries, err := delivery.ParseSchedule(c.Retry)
	if err != nil {
		return nil, usageError{fmt.Errorf("--retry: %w", err), "--retry 1s,5s,30s,2m"}
	}
	return retries, nil
}

// way returns what signs and sends to the receiver. Call done afterwards.
func (c *deliverFlags) way() (send cutover.Send, done func(), err error) {
	if c.To == "" {
		return nil, nil, usageError{errors.New("there is nobody to deliver to"), "--to http://127.0.0.1:9000/webhooks/alga"}
	}
	secret, err := c.required()
	if err != nil {
		return nil, nil, err
	}
	s, err := c.sender("--to", c.To)
	if err != nil {
		return nil, nil, err
	}
	return func(ctx context.Context, body []byte, attempt int) cutover.Reply {
		a := s.post(ctx, body, attempt, webhook.Sign(secret, time.Now(), body))
		wait, _ := delivery.ParseRetryAfter(a.RetryAfter, time.Now())
		return cutover.Reply{OK: a.OK(), Status: a.StatusCode, Text: outcome(a), RetryAfter: wait}
	}, s.client.Close, nil
}

type backfillCmd struct {
	apiFlags
	deliverFlags
	Source    string        `help:"Where to get it: feed, replay or list. Default: feed where the server has one, else list." enum:"feed,replay,list," default:"" placeholder:"SOURCE"`
	From      string        `help:"Begin with what happened then or later: how long ago (3h), a date and time, or unix seconds; --since is the same." placeholder:"TIME" aliases:"since"`
	Until     string        `help:"End with what happened until then. Default: the present end." placeholder:"TIME"`
	Threshold time.Duration `help:"An outage that is shorter is left to the sender's retries. Default: 14h, 2h where the server has no event feed."`
	Yes       bool          `short:"y" help:"Take the window that was worked out."`
	DryRun    bool          `help:"Count what would be sent, and send nothing."`
	Enable    bool          `help:"At the end, switch the webhook on again."`
	Wait      time.Duration `help:"After that, wait so long for the first live event; 0 does not wait." default:"15m"`
	JSON      bool          `name:"json" help:"Print one JSON object at the end."`
}

// Help is shown below the flags.
func (backfillCmd) Help() string {
	return `Brings a receiver what it missed in an outage that was longer than the sender tries:
14 h 36 m for Ticketwire, 2 h 36 m for AlgaPSA. Each event is posted to the receiver's own
URL, signed, with its original id and body, so it goes through the same handler, dedupe
and stale guard as live traffic, which goes on meanwhile.

Without --from it works the window out, from the webhook, its log and the record of the
receiver, prints it, and sends nothing until --yes or --from says so.

Sources:
  feed    the events themselves, in order (Ticketwire, which keeps them for 30 days)
  replay  the server sends them to the webhook again, at the webhook's rate (Ticketwire)
  list    the tickets that changed, as they are now, as synthetic events (any AlgaPSA):
          ticket.created, ticket.closed or ticket.updated with "synthetic": true beside
          data, an id that is always the same for the same state, and without url and
          suppression flags. States in between are lost. Deleted tickets are reported
          where they are known: no event type says so.

At the end the list of tickets is compared with what was delivered, until none differs.
Then --enable switches a disabled webhook on, what happened up to that moment is
delivered too, and the first live event is awaited.

Killed at any moment, the same command goes on where it was. At most one event is sent
twice then, under the same id. A receiver that answers 4xx ends it at once, any other
failure after the retries, and nothing behind that event is sent.

Examples:
  export TICKETWIRE_API_KEY=tw_... TICKETWIRE_SECRET=...
  ticketwire backfill --to http://127.0.0.1:9000/webhooks/alga --webhook 0199...
  ticketwire backfill --to http://127.0.0.1:9000/webhooks/alga --webhook 0199... --yes --enable
  ticketwire backfill --to http://127.0.0.1:9000/webhooks/alga --since 20h --dry-run
  ticketwire backfill --source replay --webhook 0199... --from 2027-01-31T08:00:00Z

Exit codes: 0 nothing is missing; 1 the receiver refused an event; 2 the window is a guess
and --yes was not given, or a flag is wrong; 3 the key is refused; 4 there is no such
webhook; 5 another backfill uses the directory, or the webhook is disabled and a replay
needs it; 6 server or receiver do not answer, tickets still differ, or no live event came.`
}

// Run looks, and delivers if it may.
func (c *backfillCmd) Run(ctx context.Context, t terminal) (err error) {
	retries, err := c.check()
	if err != nil {
		return err
	}
	if _, err := c.connect(); err != nil {
		return err
	}
	now := time.Now()
	cfg := cutover.BackfillConfig{
		URL: c.URL, Key: c.APIKey, Dir: c.State, WebhookID: c.Webhook, Source: cutover.Source(c.Source), To: c.To,
		Threshold: c.Threshold, Budget: c.Budget, Retries: retries, Enable: c.Enable, Wait: c.Wait, Now: time.Now,
	}
	for _, m := range []struct {
		flag, text string
		to         *time.Time
	}{{"--from", c.From, &cfg.From}, {"--until", c.Until, &cfg.Until}} {
		if m.text == "" {
			continue
		}
		if *m.to, err = parseMoment(m.flag, m.text, now); err != nil {
			return err
		}
	}
	if cfg.Source != cutover.FromReplay && !c.DryRun {
		send, done, err := c.way()
		if err != nil {
			return err
		}
		defer done()
		cfg.Send = send
	}
	show := newProgress(t)
	show.begin("backfill")
	cfg.Show = func(what string) { show.note("%s", printable(what)) }
	b, err := cutover.OpenBackfill(cfg)
	if err != nil {
		return err
	}
	defer closing(b, &err)
	defer show.end()
	p, err := b.Look(ctx)
	if err != nil {
		return err
	}
	return c.proceed(ctx, t, b, p, show)
}

// proceed does what the plan says, as far as it may.
func (c *backfillCmd) proceed(ctx context.Context, t terminal, b *cutover.Backfill, p *cutover.Plan, show *progress) error {
	asks := p.Guessed && p.Needed && !c.Yes
	if c.DryRun || asks {
		if err := b.Count(ctx, p); err != nil {
			return err
		}
	}
	show.end()
	if !c.JSON {
		fmt.Fprint(t.err, planText(p))
	}
	switch {
	case c.DryRun || p.Guessed && !p.Needed && !c.Yes:
		if c.JSON {
			return printJSON(t.out, p)
		}
		return nil
	case asks:
		return usageError{errors.New("this window is a guess: say that it is right"), c.command(p)}
	}
	r, err := b.Run(ctx, p)
	show.end()
	if c.JSON {
		err = errors.Join(err, printJSON(t.out, r))
	} else {
		fmt.Fprint(t.out, c.reportText(r, p.Notes, err == nil))
	}
	if ctx.Err() != nil {
		return errors.New("interrupted; the same command goes on from here")
	}
	return err
}

// planText says what would be done, and why.
func planText(p *cutover.Plan) string {
	var b strings.Builder
	for _, why := range p.Why {
		fmt.Fprintf(&b, "Found:   %s.\n", why)
	}
	if p.Needed || !p.Guessed || len(p.Notes) > 0 {
		fmt.Fprintf(&b, "Window:  %s to %s (%s), from the %s\n", wireMoment(p.From), wireMoment(p.Until), p.Until.Sub(p.From).Round(time.Second), p.Source)
	}
	if p.Counts != nil {
		fmt.Fprintf(&b, "Missing: %s\n", counts(p.Counts))
	}
	for _, n := range p.Notes {
		fmt.Fprintf(&b, "Note:    %s\n", n)
	}
	return b.String()
}

// reportText says what came of it, but for the notes that were there before.
func (c *backfillCmd) reportText(r *cutover.BackfillReport, noted []string, complete bool) string {
	var b strings.Builder
	if r.Source == cutover.FromReplay {
		fmt.Fprintf(&b, "Replayed by the server: %d events.\n", r.Replayed)
	} else {
		fmt.Fprintf(&b, "Delivered: %s.\n", counts(r.Sent))
	}
	if r.Synthetic > 0 {
		fmt.Fprintf(&b, "Synthetic: %d of them, from the tickets as they are now; the states in between are lost.\n", r.Synthetic)
	}
	if r.Known > 0 {
		fmt.Fprintf(&b, "Not sent, as the receiver has it: %d.\n", r.Known)
	}
	if r.Filtered > 0 {
		fmt.Fprintf(&b, "Not sent, as the webhook does not want it: %d.\n", r.Filtered)
	}
	for _, id := range r.Deleted {
		fmt.Fprintf(&b, "Deleted, which no event says: ticket %s.\n", printable(id))
	}
	for _, n := range r.Notes {
		if !slices.Contains(noted, n) {
			fmt.Fprintf(&b, "Note: %s\n", n)
		}
	}
	if r.Sweeps > 0 {
		fmt.Fprintf(&b, "%d tickets differ", r.Differ)
		if r.Moving > 0 {
			fmt.Fprintf(&b, "; %d changed meanwhile, which live traffic brings", r.Moving)
		}
		b.WriteString(".\n")
	}
	switch {
	case r.Webhook == "disabled" && complete:
		fmt.Fprintf(&b, "The webhook is still disabled, and what happens until it is not goes to nobody. Switch it on, with what happens meanwhile:\n  %s --enable\n", c.words())
	case r.Webhook == "enabled" && r.Live:
		b.WriteString("The webhook is enabled, and a live event has arrived. Done.\n")
	case r.Webhook == "enabled":
		b.WriteString("The webhook is enabled.\n")
	}
	return b.String()
}

func counts[N int | int64](n map[string]N) string {
	if len(n) == 0 {
		return "nothing"
	}
	var parts []string
	sum := N(0)
	for _, kind := range slices.Sorted(maps.Keys(n)) {
		parts = append(parts, fmt.Sprintf("%d %s", n[kind], kind))
		sum += n[kind]
	}
	return fmt.Sprintf("%d (%s)", sum, strings.Join(parts, ", "))
}

// wireMoment writes a time so that --from takes it.
func wireMoment(t time.Time) string { return t.UTC().Truncate(time.Second).Format(time.RFC3339) }

// command is the one that does what the plan says. Keys and secrets stay in the
// environment.
func (c *backfillCmd) command(p *cutover.Plan) string {
	return c.words() + " --from " + wireMoment(p.From)
}

func (c *backfillCmd) words() string {
	words := []string{"ticketwire backfill --url", shellWord(c.URL)}
	for _, f := range []struct{ flag, value string }{
		{"--to", c.To}, {"--webhook", c.Webhook}, {"--source", c.Source}, {"--secret-file", c.SecretFile},
	} {
		if f.value != "" {
			words = append(words, f.flag, shellWord(f.value))
		}
	}
	return strings.Join(append(words, "--state", shellWord(c.State)), " ")
}
