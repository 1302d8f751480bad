package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/ticketwire/ticketwire/client"
)

// The subcommands of webhooks that are about what was sent.

func deliveryColumns() []column[client.Delivery] {
	return []column[client.Delivery]{
		{"ID", func(d *client.Delivery) string { return d.DeliveryID }},
		{"ATTEMPTED", func(d *client.Delivery) string { return stamp(d.AttemptedAt) }},
		{"TYPE", func(d *client.Delivery) string { return d.EventType }},
		{"EVENT", func(d *client.Delivery) string { return d.EventID }},
		{"ATTEMPT", func(d *client.Delivery) string { return strconv.Itoa(d.AttemptNumber) }},
		{"STATUS", func(d *client.Delivery) string { return d.Status }},
		{"ANSWER", func(d *client.Delivery) string { return text(d.ResponseStatusCode) }},
		{"NEXT RETRY", func(d *client.Delivery) string { return stamp(d.NextRetryAt) }},
		{"ERROR", func(d *client.Delivery) string {
			switch {
			case d.ErrorMessage == nil && d.WaitReason != nil && d.Status == "abandoned":
				return "not sent: " + *d.WaitReason
			case d.ErrorMessage == nil && d.WaitReason != nil:
				return "waits: " + *d.WaitReason
			}
			return text(d.ErrorMessage)
		}},
	}
}

func deliveryDetails() []column[client.Delivery] {
	return append(deliveryColumns(), []column[client.Delivery]{
		{"TOOK", func(d *client.Delivery) string { return text(d.DurationMS) + " ms" }},
		{"REQUEST HEADERS", func(d *client.Delivery) string { return string(d.RequestHeaders) }},
		{"REQUEST BODY", func(d *client.Delivery) string { return string(d.RequestBody) }},
		{"RESPONSE HEADERS", func(d *client.Delivery) string { return string(d.ResponseHeaders) }},
		{"RESPONSE BODY", func(d *client.Delivery) string { return text(d.ResponseBody) }},
	}...)
}

// webhookList names a webhook whose list is printed.
type webhookList struct {
	listFlags
	ID string `arg:"" help:"The webhook's id, from webhooks list."`
}

// window reads --since and --until.
func window(since, until string) (from, to time.Time, err error) {
	now := time.Now()
	if since != "" {
		if from, err = parseMoment("--since", since, now); err != nil {
			return from, to, err
		}
	}
	if until != "" {
		to, err = parseMoment("--until", until, now)
	}
	return from, to, err
}

type webhooksDeliveriesCmd struct {
	webhookList
	Delivery string `arg:"" optional:"" help:"Show this attempt with its request and answer."`
	Status   string `help:"pending, delivered, retrying, abandoned, or failed for the last two." placeholder:"STATUS"`
	Type     string `help:"Only this event type." placeholder:"TYPE"`
	Event    string `help:"Only attempts of this event." placeholder:"ID"`
	Ticket   string `help:"Only events of this ticket." placeholder:"ID"`
	Code     string `help:"Only attempts that the receiver answered with this status code, or a class such as 5xx." placeholder:"CODE"`
	Error    string `help:"Only failures of this class: dns, connect, ssrf, tls, timeout, protocol, status or unknown." placeholder:"CLASS"`
	Since    string `help:"Attempts since then: how long ago (2h), a date and time, or unix seconds." placeholder:"TIME"`
	Until    string `help:"Attempts until then." placeholder:"TIME"`
}

// Run prints the attempts, newest first.
func (c *webhooksDeliveriesCmd) Run(ctx context.Context, t terminal) error {
	api, err := c.connect()
	if err != nil {
		return err
	}
	if c.Delivery != "" {
		d, err := api.Delivery(ctx, c.ID, c.Delivery)
		if err != nil {
			return err
		}
		return printOne(t, c.JSON, d, deliveryDetails())
	}
	f := client.DeliveryFilter{Status: c.Status, EventType: c.Type, EventID: c.Event, TicketID: c.Ticket, StatusCode: c.Code, ErrorType: c.Error}
	if f.From, f.To, err = window(c.Since, c.Until); err != nil {
		return err
	}
	return printList(t, c.listFlags, api.Deliveries(ctx, c.ID, f), deliveryColumns())
}

type webhooksRetryCmd struct {
	apiFlags
	ID         string   `arg:"" help:"The webhook's id, from webhooks list."`
	Deliveries []string `arg:"" name:"delivery" help:"The deliveries' ids, from webhooks deliveries."`
	JSON       bool     `name:"json" help:"Print a JSON array of the new attempts."`
}

// Run retries one after the other and stops at the first that is not accepted.
func (c *webhooksRetryCmd) Run(ctx context.Context, t terminal) error {
	api, err := c.connect()
	if err != nil {
		return err
	}
	done := []*client.Delivery{}
	var failed error
	for _, id := range c.Deliveries {
		d, err := api.RetryDelivery(ctx, c.ID, id)
		if err != nil {
			failed = fmt.Errorf("delivery %s: %w", id, err)
			break
		}
		done = append(done, d)
	}
	if c.JSON {
		err = printJSON(t.out, done)
	} else if len(done) > 0 {
		err = printTable(t.out, done, deliveryColumns())
	}
	return errors.Join(failed, err)
}

func replayColumns() []column[client.Replay] {
	return []column[client.Replay]{
		{"ID", func(r *client.Replay) string { return r.ReplayID }},
		{"STATUS", func(r *client.Replay) string { return r.Status }},
		{"ONLY", func(r *client.Replay) string { return r.Only }},
		{"SINCE", func(r *client.Replay) string { return stamp(&r.Since) }},
		{"UNTIL", func(r *client.Replay) string { return stamp(&r.Until) }},
		{"QUEUED", func(r *client.Replay) string { return strconv.Itoa(r.Queued) }},
		{"LEFT ALONE", func(r *client.Replay) string { return strconv.Itoa(r.Skipped) }},
		{"FINISHED", func(r *client.Replay) string { return stamp(r.FinishedAt) }},
	}
}

type webhooksReplayCmd struct {
	oneWebhook
	Since  string   `help:"Events since then: how long ago (2h), a date and time, or unix seconds." placeholder:"TIME"`
	Until  string   `help:"Events until then. Default: now." placeholder:"TIME"`
	Event  []string `help:"This event, in place of a time; repeat it, up to 200 times." sep:"none" placeholder:"ID"`
	Only   string   `help:"failed: what was given up or missed; all: what was delivered, too." enum:"failed,all" default:"failed"`
	DryRun bool     `help:"Count, and send nothing."`
}

// input reads what to replay: the events of a time, or chosen ones.
func (c *webhooksReplayCmd) input() (in client.ReplayInput, err error) {
	in = client.ReplayInput{Only: c.Only, EventIDs: c.Event}
	switch {
	case c.Event != nil && c.Since+c.Until != "":
		return in, usageError{errors.New("--event means these events, and --since and --until mean a time: leave one of them out"), ""}
	case c.Event == nil && c.Since == "":
		return in, usageError{errors.New("it is not said what to replay: --since or --event is needed"), "ticketwire webhooks replay " + c.ID + " --since 2h --dry-run"}
	}
	in.Since, in.Until, err = window(c.Since, c.Until)
	return in, err
}

// Run starts the replay, which the server goes on with.
func (c *webhooksReplayCmd) Run(ctx context.Context, t terminal) error {
	in, err := c.input()
	if err != nil {
		return err
	}
	api, err := c.connect()
	if err != nil {
		return err
	}
	if !c.DryRun {
		r, err := api.StartReplay(ctx, c.ID, in)
		if err != nil {
			return err
		}
		return printOne(t, c.JSON, r, replayColumns())
	}
	n, err := api.CountReplay(ctx, c.ID, in)
	if err != nil {
		return err
	}
	columns := []column[client.ReplayCount]{
		{"GIVEN UP", func(n *client.ReplayCount) string { return strconv.Itoa(n.Abandoned) }},
		{"MISSED", func(n *client.ReplayCount) string { return strconv.Itoa(n.Missed) }},
		{"DELIVERED", func(n *client.ReplayCount) string { return strconv.Itoa(n.Delivered) }},
		{"TOTAL", func(n *client.ReplayCount) string { return strconv.Itoa(n.Total) }},
	}
	for i := range n.LeftAlone {
		columns = append(columns, column[client.ReplayCount]{
			"LEFT ALONE", func(n *client.ReplayCount) string { return n.LeftAlone[i].EventID + " " + n.LeftAlone[i].Reason },
		})
	}
	return printOne(t, c.JSON, n, columns)
}

type webhooksReplaysCmd struct {
	webhookList
	Cancel string `help:"End this replay; what it has queued is sent." placeholder:"ID"`
}

// Run prints the replays, newest first.
func (c *webhooksReplaysCmd) Run(ctx context.Context, t terminal) error {
	api, err := c.connect()
	if err != nil {
		return err
	}
	if c.Cancel != "" {
		r, err := api.CancelReplay(ctx, c.ID, c.Cancel)
		if err != nil {
			return err
		}
		return printOne(t, c.JSON, r, replayColumns())
	}
	return printList(t, c.listFlags, api.Replays(ctx, c.ID), replayColumns())
}

type webhooksMissedCmd struct{ webhookList }

// Run prints what enable --replay-missed would send.
func (c *webhooksMissedCmd) Run(ctx context.Context, t terminal) error {
	api, err := c.connect()
	if err != nil {
		return err
	}
	return printList(t, c.listFlags, api.MissedEvents(ctx, c.ID), []column[client.MissedEvent]{
		{"EVENT", func(m *client.MissedEvent) string { return m.EventID }},
		{"TYPE", func(m *client.MissedEvent) string { return m.EventType }},
		{"TICKET", func(m *client.MissedEvent) string { return m.TicketID }},
		{"OCCURRED", func(m *client.MissedEvent) string { return stamp(&m.OccurredAt) }},
		{"REASON", func(m *client.MissedEvent) string { return m.Reason }},
	})
}

type webhooksStatsCmd struct {
	oneFlags
	ID    string `arg:"" optional:"" help:"The webhook's id, from webhooks list. Default: all of them together."`
	Since string `help:"Attempts since then: how long ago (24h), a date and time, or unix seconds. Default: 30 days ago." placeholder:"TIME"`
	Until string `help:"Attempts until then. Default: now." placeholder:"TIME"`
}

// Run measures.
func (c *webhooksStatsCmd) Run(ctx context.Context, t terminal) error {
	api, err := c.connect()
	if err != nil {
		return err
	}
	from, to, err := window(c.Since, c.Until)
	if err != nil {
		return err
	}
	a, err := api.WebhookAnalytics(ctx, c.ID, from, to)
	if err != nil {
		return err
	}
	return printOne(t, c.JSON, a, []column[client.WebhookAnalytics]{
		{"FROM", func(a *client.WebhookAnalytics) string { return stamp(&a.DateFrom) }},
		{"TO", func(a *client.WebhookAnalytics) string { return stamp(&a.DateTo) }},
		{"ATTEMPTS", func(a *client.WebhookAnalytics) string { return strconv.FormatInt(a.Metrics.TotalDeliveries, 10) }},
		{"SUCCEEDED", func(a *client.WebhookAnalytics) string {
			return fmt.Sprintf("%d (%.2f %%)", a.Metrics.SuccessfulDeliveries, a.Metrics.SuccessRate)
		}},
		{"BY STATUS", func(a *client.WebhookAnalytics) string { return counts(a.Metrics.ByStatus) }},
		{"BY TYPE", func(a *client.WebhookAnalytics) string { return counts(a.Metrics.ByEventType) }},
		{"RESPONSE TIME", func(a *client.WebhookAnalytics) string {
			r := a.Metrics.ResponseTime
			return fmt.Sprintf("%.0f ms on average; p50 %d, p95 %d, p99 %d ms", a.Metrics.AverageResponseTime, r.P50, r.P95, r.P99)
		}},
	})
}
