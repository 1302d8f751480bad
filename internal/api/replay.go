package api

import (
	"context"
	"net/http"
	"time"

	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/webhook"
)

// replayRoutes send again what a webhook has not had. None of them is in the
// contract but replay_missed, which makes the same kind of job (contract P8).
func (s *Server) replayRoutes() []route {
	return []route{
		{http.MethodGet, "/webhooks/{id}/missed", "webhook", "read", (*call).listMissed},
		{http.MethodPost, "/webhooks/{id}/replay", "webhook", "retry", (*call).startReplay},
		{http.MethodGet, "/webhooks/{id}/replays", "webhook", "read", (*call).listReplays},
		{http.MethodGet, "/webhooks/{id}/replays/{replay_id}", "webhook", "read", (*call).getReplay},
		{http.MethodDelete, "/webhooks/{id}/replays/{replay_id}", "webhook", "retry", (*call).cancelReplay},
	}
}

// replayRecord is a replay job on the wire.
type replayRecord struct {
	ReplayID     string        `json:"replay_id"`
	WebhookID    string        `json:"webhook_id"`
	Since        webhook.Time  `json:"since"`
	Until        webhook.Time  `json:"until"`
	Only         string        `json:"only"`
	Status       string        `json:"status"`
	CancelReason *string       `json:"cancel_reason"`
	EventCount   *int          `json:"event_count"` // how many were chosen; null for a time
	Queued       int           `json:"queued"`
	Skipped      int           `json:"skipped"`
	CreatedAt    webhook.Time  `json:"created_at"`
	FinishedAt   *webhook.Time `json:"finished_at"`
}

func viewReplay(r *store.Replay) replayRecord {
	var chosen *int
	if r.EventIDs != nil {
		chosen = new(len(r.EventIDs))
	}
	return replayRecord{
		ReplayID: r.ReplayID, WebhookID: r.WebhookID, Since: webhook.At(r.Since), Until: webhook.At(r.Until),
		Only: r.Only, Status: r.Status, CancelReason: textOrNull(r.CancelReason),
		EventCount: chosen, Queued: r.Queued, Skipped: r.Skipped,
		CreatedAt: webhook.At(r.CreatedAt), FinishedAt: wireTime(r.FinishedAt),
	}
}

// replayCount is the answer of a dry run: for a time with its ends, for events that
// were chosen with those of them that are left alone.
type replayCount struct {
	WebhookID string        `json:"webhook_id"`
	Since     *webhook.Time `json:"since,omitempty"`
	Until     *webhook.Time `json:"until,omitempty"`
	Only      string        `json:"only"`
	Abandoned int           `json:"abandoned"`
	Missed    int           `json:"missed"`
	Delivered int           `json:"delivered"`
	Total     int           `json:"total"`
	LeftAlone []leftAlone   `json:"left_alone,omitzero"`
}

type leftAlone struct {
	EventID string `json:"event_id"`
	Reason  string `json:"reason"`
}

// startReplay makes a job, or says what it would queue.
func (c *call) startReplay() (answer, error) {
	id, err := c.id("id", "webhook")
	if err != nil {
		return answer{}, err
	}
	o, err := c.object()
	if err != nil {
		return answer{}, err
	}
	chosen := o.has("event_ids")
	if !chosen {
		o.need("since", "string")
	}
	q := store.ReplayQuery{Since: orZero(o.datetime("since")), Until: o.datetime("until"), Only: store.ReplayFailed}
	if only := o.enum("only", store.ReplayFailed, store.ReplayAll); only != nil {
		q.Only = *only
	}
	dry := o.flag("dry_run")
	o.only("since", "until", "event_ids", "only", "dry_run")
	checkTimes(o, c.now, q)
	if chosen {
		q.EventIDs = o.uuids("event_ids", 1, store.MaxReplayEvents)
		for _, key := range []string{"since", "until"} {
			if o.has(key) {
				o.custom(key, "means a time, and event_ids means these events: leave one of them out")
			}
		}
	}
	if err := o.err(); err != nil {
		return answer{}, err
	}
	if dry {
		return c.countReplay(id, q)
	}
	return change(c,
		func(ctx context.Context) (store.Replay, error) {
			return c.store().StartReplay(ctx, c.now, c.tenant(), id, q)
		},
		func(r store.Replay) answer { return answer{status: http.StatusAccepted, data: viewReplay(&r)} })
}

// checkTimes notes a span that cannot hold an event.
func checkTimes(o *object, now time.Time, q store.ReplayQuery) {
	switch {
	case q.Since.After(now):
		o.custom("since", "is in the future")
	case q.Until == nil:
	case q.Until.After(now):
		o.custom("until", "is in the future; leave it out to replay what has happened until now")
	case q.Until.Before(q.Since):
		o.custom("until", "is before since")
	}
}

func (c *call) countReplay(id string, q store.ReplayQuery) (answer, error) {
	n, err := c.store().CountReplay(c.ctx, c.now, c.tenant(), id, q)
	if err != nil {
		return answer{}, err
	}
	out := replayCount{
		WebhookID: id, Only: q.Only, Abandoned: n.Abandoned, Missed: n.Missed, Delivered: n.Delivered, Total: n.Total(),
	}
	if q.EventIDs != nil {
		out.LeftAlone = make([]leftAlone, len(n.Left))
		for i, e := range n.Left {
			out.LeftAlone[i] = leftAlone(e)
		}
		return ok(out), nil
	}
	until := c.now
	if q.Until != nil {
		until = *q.Until
	}
	out.Since, out.Until = new(webhook.At(q.Since)), new(webhook.At(until))
	return ok(out), nil
}

func (c *call) listReplays() (answer, error) {
	id, err := c.id("id", "webhook")
	if err != nil {
		return answer{}, err
	}
	p := c.params()
	pg := p.paging("created_at", []string{"created_at"}, true)
	if !pg.desc {
		p.issue("order", "custom", "replays are listed newest first", nil)
	}
	if err := p.err(); err != nil {
		return answer{}, err
	}
	list, total, err := c.store().Replays(c.ctx, c.tenant(), id, pg.page, pg.limit)
	if err != nil {
		return answer{}, err
	}
	records := make([]replayRecord, len(list))
	for i := range list {
		records[i] = viewReplay(&list[i])
	}
	return page(records, pg, total, p.filters), nil
}

// replayIDs reads the two ids of a replay's path.
func (c *call) replayIDs() (webhookID, replayID string, err error) {
	if webhookID, err = c.id("id", "webhook"); err != nil {
		return "", "", err
	}
	replayID, err = c.id("replay_id", "replay")
	return webhookID, replayID, err
}

func (c *call) getReplay() (answer, error) {
	webhookID, replayID, err := c.replayIDs()
	if err != nil {
		return answer{}, err
	}
	r, err := c.store().Replay(c.ctx, c.tenant(), webhookID, replayID)
	if err != nil {
		return answer{}, err
	}
	return ok(viewReplay(&r)), nil
}

// cancelReplay ends a job and answers with how far it has come.
func (c *call) cancelReplay() (answer, error) {
	webhookID, replayID, err := c.replayIDs()
	if err != nil {
		return answer{}, err
	}
	return change(c,
		func(ctx context.Context) (store.Replay, error) {
			return c.store().CancelReplay(ctx, c.now, c.tenant(), webhookID, replayID)
		},
		func(r store.Replay) answer { return ok(viewReplay(&r)) })
}

// missedRecord is an event that an outage kept back.
type missedRecord struct {
	EventID    string       `json:"event_id"`
	EventType  string       `json:"event_type"`
	TicketID   string       `json:"ticket_id"`
	OccurredAt webhook.Time `json:"occurred_at"`
	Reason     string       `json:"reason"` // dropped or not_queued
}

// listMissed shows what a replay of the last outage would send, so that its
// owner can decide.
func (c *call) listMissed() (answer, error) {
	id, err := c.id("id", "webhook")
	if err != nil {
		return answer{}, err
	}
	p := c.params()
	pg := p.paging("occurred_at", []string{"occurred_at"}, true)
	pg.desc = false
	p.oneOf("order", "asc", []string{"asc"})
	if err := p.err(); err != nil {
		return answer{}, err
	}
	out, list, total, err := c.store().Missed(c.ctx, c.now, c.tenant(), id, pg.page, pg.limit)
	if err != nil {
		return answer{}, err
	}
	records := make([]missedRecord, len(list))
	for i, e := range list {
		records[i] = missedRecord{
			EventID: e.EventID, EventType: e.EventType, TicketID: e.TicketID, OccurredAt: webhook.At(e.OccurredAt), Reason: "not_queued",
		}
		if e.Dropped {
			records[i].Reason = "dropped"
		}
	}
	a := page(records, pg, total, p.filters)
	a.note("disabled_at", nil)
	a.note("enabled_at", nil)
	a.note("disabled_reason", nil)
	if out != nil {
		a.note("disabled_at", webhook.At(out.DisabledAt))
		a.note("enabled_at", wireTime(out.EnabledAt))
		a.note("disabled_reason", out.Reason)
	}
	return a, nil
}
