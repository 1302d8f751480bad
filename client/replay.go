package client

import (
	"context"
	"iter"
	"net/http"
	"time"
)

// Replay is a job of the server that sends a webhook events again.
// Ticketwire only, like everything in this file.
type Replay struct {
	ReplayID     string     `json:"replay_id"`
	WebhookID    string     `json:"webhook_id"`
	Since        time.Time  `json:"since"`
	Until        time.Time  `json:"until"`
	Only         string     `json:"only"`          // "failed", "all", or "missed" for the job of WebhookInput.ReplayMissed
	Status       string     `json:"status"`        // running, done, cancelled
	CancelReason *string    `json:"cancel_reason"` // user, webhook_disabled or webhook_deleted; nil unless cancelled
	EventCount   *int       `json:"event_count"`   // how many events were chosen; nil for those of a time
	Queued       int        `json:"queued"`        // events so far
	Skipped      int        `json:"skipped"`       // events that were looked at and left alone so far
	CreatedAt    time.Time  `json:"created_at"`
	FinishedAt   *time.Time `json:"finished_at"` // nil while it runs
}

// ReplayInput says what to replay: the events of a time, or the chosen ones.
type ReplayInput struct {
	Since time.Time // events that occurred then or later; required without EventIDs
	Until time.Time // events that occurred until then; zero means now

	// EventIDs are the events to replay, at most 200. Since and Until are left zero
	// then. A list of none is an error of the server; nil means a time.
	EventIDs []string

	// Only is "failed" (the default) for events that were given up, or not
	// queued since the webhook was disabled; "all" adds those that were
	// delivered.
	Only string
}

// replayBody is ReplayInput on the wire.
type replayBody struct {
	Since    time.Time `json:"since,omitzero"`
	Until    time.Time `json:"until,omitzero"`
	EventIDs []string  `json:"event_ids,omitzero"`
	Only     string    `json:"only,omitempty"`
	DryRun   bool      `json:"dry_run,omitempty"`
}

func (in ReplayInput) call(webhookID string, dryRun bool) call {
	body := replayBody{Since: in.Since.UTC(), Until: in.Until.UTC(), EventIDs: in.EventIDs, Only: in.Only, DryRun: dryRun}
	return call{method: http.MethodPost, path: []string{"webhooks", webhookID, "replay"}, in: body}
}

// StartReplay makes a replay, or returns the one that runs already with the same
// input. A webhook has one at a time: with another input the error is a 409.
// Without WithIdempotencyKey it is not sent again after a lost connection.
func (c *Client) StartReplay(ctx context.Context, webhookID string, in ReplayInput, opts ...CallOption) (*Replay, error) {
	return one[Replay](ctx, c, in.call(webhookID, false), opts...)
}

// ReplayCount is how many events StartReplay would queue.
type ReplayCount struct {
	Abandoned int `json:"abandoned"` // were given up
	Missed    int `json:"missed"`    // were not queued since the webhook was disabled
	Delivered int `json:"delivered"` // were delivered; with "all" only
	Total     int `json:"total"`

	// LeftAlone are those of ReplayInput.EventIDs that would not be queued.
	LeftAlone []LeftAlone `json:"left_alone"`
}

// LeftAlone is an event that was chosen for a replay and that it does not queue.
type LeftAlone struct {
	EventID string `json:"event_id"`
	Reason  string `json:"reason"` // delivered, pending, not_owed, expired or unknown
}

// CountReplay counts and changes nothing.
func (c *Client) CountReplay(ctx context.Context, webhookID string, in ReplayInput) (*ReplayCount, error) {
	return one[ReplayCount](ctx, c, in.call(webhookID, true))
}

// Replays walks through the replays of a webhook, newest first. An error comes
// as the last pair.
func (c *Client) Replays(ctx context.Context, webhookID string) iter.Seq2[*Replay, error] {
	return pages[Replay](ctx, c, nil, "webhooks", webhookID, "replays")
}

// Replay returns one replay.
func (c *Client) Replay(ctx context.Context, webhookID, replayID string) (*Replay, error) {
	return one[Replay](ctx, c, call{method: http.MethodGet, path: []string{"webhooks", webhookID, "replays", replayID}})
}

// CancelReplay ends a replay and returns it. What it has queued is sent. One
// that has ended is a 409.
func (c *Client) CancelReplay(ctx context.Context, webhookID, replayID string) (*Replay, error) {
	return one[Replay](ctx, c, call{method: http.MethodDelete, path: []string{"webhooks", webhookID, "replays", replayID}})
}

// MissedEvent is an event that a webhook did not get since it was disabled.
type MissedEvent struct {
	EventID    string    `json:"event_id"`
	EventType  string    `json:"event_type"`
	TicketID   string    `json:"ticket_id"`
	OccurredAt time.Time `json:"occurred_at"`
	Reason     string    `json:"reason"` // dropped, if it was owed before; not_queued
}

// MissedEvents walks through what a webhook has missed in the time in which it
// is disabled, or was last, oldest first. WebhookInput.ReplayMissed sends it. An
// error comes as the last pair.
func (c *Client) MissedEvents(ctx context.Context, webhookID string) iter.Seq2[*MissedEvent, error] {
	return pages[MissedEvent](ctx, c, nil, "webhooks", webhookID, "missed")
}
