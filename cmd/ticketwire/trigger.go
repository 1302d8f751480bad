package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/webhook"
)

type triggerCmd struct {
	apiFlags
	secretFlags
	receiverFlags
	Type         string   `arg:"" help:"Event type: ticket.created, ticket.updated, ticket.status_changed, ticket.assigned, ticket.closed, ticket.comment.added or webhook.test; any other with --from."`
	To           string   `help:"Send to this receiver, signed with --secret." placeholder:"URL" xor:"target"`
	Webhook      string   `help:"Let the server at --url send to this webhook instead, signed with its secret." placeholder:"ID" xor:"target"`
	Set          []string `help:"Set a value of the envelope, as data.title=\"New title\" or data.is_closed=true; repeat it. What is not JSON is text." sep:"none" placeholder:"PATH=VALUE"`
	From         string   `help:"File with an envelope to start from; it gets a new event_id and time." placeholder:"FILE"`
	Count        int      `help:"How many events to send, one after the other." default:"1"`
	Duplicate    bool     `help:"Send each event twice, as a retry does: the receiver has to accept both and react once."`
	BadSignature bool     `help:"Sign with another secret: the receiver has to refuse it."`
	Old          bool     `help:"Sign as of an hour ago: the receiver has to refuse it."`
	JSON         bool     `name:"json" help:"Print one JSON object per request, one a line."`
}

// Help is shown below the flags.
func (triggerCmd) Help() string {
	return `Sends an event that nobody caused, complete and signed as the service does it, and
prints what the receiver answered. Exit code 0 means that the receiver did what it
should: a 2xx, or with --bad-signature and --old a 4xx.

Examples:
  export TICKETWIRE_SECRET=...
  ticketwire trigger ticket.created --to http://localhost:3000/webhooks/alga
  ticketwire trigger ticket.updated --to http://localhost:3000/webhooks/alga --set data.title="Changed" --set 'data.tags=["a"]'
  ticketwire trigger ticket.closed --to http://localhost:3000/webhooks/alga --duplicate
  ticketwire trigger ticket.created --to http://localhost:3000/webhooks/alga --bad-signature
  TICKETWIRE_API_KEY=... ticketwire trigger ticket.assigned --webhook 0199...`
}

// triggered is one request and its answer.
type triggered struct {
	EventID    string `json:"event_id"`
	EventType  string `json:"event_type"`
	Attempt    int    `json:"attempt"`
	StatusCode int    `json:"status_code"` // 0 when none came
	DurationMS int64  `json:"duration_ms"`
	Answer     string `json:"answer"` // the beginning of the body, or why there is none
	AsExpected bool   `json:"as_expected"`

	took time.Duration
}

// Run sends the events.
func (c *triggerCmd) Run(ctx context.Context, t terminal) error {
	switch {
	case c.To == "" && c.Webhook == "":
		return usageError{errors.New("there is nobody to send to"), "--to http://localhost:3000/webhooks/alga, or --webhook ID"}
	case c.Count < 1:
		return usageError{fmt.Errorf("--count is %d, want 1 or more", c.Count), ""}
	case c.From == "" && !slices.Contains(madeEventTypes(), c.Type):
		return usageError{fmt.Errorf("%q is no type that can be made up", c.Type), strings.Join(madeEventTypes(), ", ") + "; others need --from"}
	case c.Webhook != "" && (c.Duplicate || c.BadSignature || c.Old):
		return usageError{errors.New("--duplicate, --bad-signature and --old need --to: the server sends valid requests only"), ""}
	}
	send, done, err := c.way()
	if err != nil {
		return err
	}
	defer done()
	sent, wrong := 0, 0
	for range c.Count {
		e, err := c.event(time.Now())
		if err != nil {
			return err
		}
		attempts := 1
		if c.Duplicate {
			attempts = 2
		}
		for n := range attempts {
			r, err := send(ctx, e, n+1)
			if err != nil {
				return err
			}
			if ctx.Err() != nil {
				return fmt.Errorf("interrupted: %w", context.Cause(ctx))
			}
			sent++
			if !r.AsExpected {
				wrong++
			}
			if err := c.print(t, r); err != nil {
				return err
			}
		}
	}
	switch {
	case wrong > 0 && (c.BadSignature || c.Old):
		return fmt.Errorf("the receiver did not refuse %d of %d requests, which it has to with a 4xx", wrong, sent)
	case wrong > 0:
		return fmt.Errorf("the receiver did not accept %d of %d requests", wrong, sent)
	}
	return nil
}

func (c *triggerCmd) print(t terminal, r triggered) error {
	if c.JSON {
		_, err := fmt.Fprintf(t.out, "%s\n", plainJSON(r))
		return err
	}
	verdict := ""
	switch {
	case r.AsExpected && (c.BadSignature || c.Old):
		verdict = "  (refused, as it should be)"
	case !r.AsExpected && (c.BadSignature || c.Old):
		verdict = "  (it had to be refused)"
	}
	_, err := fmt.Fprintf(t.out, "%-21s %s  attempt %d  %s  in %s%s\n", r.EventType, r.EventID, r.Attempt, r.Answer,
		short(r.took), verdict)
	return err
}

// event makes one event from the template or the file, and the --set values.
func (c *triggerCmd) event(now time.Time) (json.RawMessage, error) {
	e := madeEvent(c.Type, now)
	raw := json.RawMessage(plainJSON(e))
	if c.From != "" {
		text, err := os.ReadFile(c.From)
		if err != nil {
			return nil, usageError{fmt.Errorf("--from: %w", err), ""}
		}
		raw = text
		for _, m := range []member{{"event_id", plainJSON(e.EventID)}, {"event_type", plainJSON(c.Type)}, {"occurred_at", plainJSON(e.OccurredAt)}} {
			if raw, err = setAt(raw, []string{m.key}, m.value); err != nil {
				return nil, usageError{fmt.Errorf("--from: %s: %w", c.From, err), ""}
			}
		}
	}
	for _, s := range c.Set {
		path, text, found := strings.Cut(s, "=")
		if !found || path == "" {
			return nil, usageError{fmt.Errorf("--set: %q has no =", s), `--set data.title="New title"`}
		}
		value := json.RawMessage(text)
		if !json.Valid(value) {
			value = plainJSON(text)
		}
		var err error
		if raw, err = setAt(raw, strings.Split(path, "."), value); err != nil {
			return nil, usageError{fmt.Errorf("--set: %s: %w", path, err), `--set data.title="New title"`}
		}
	}
	return compact(raw)
}

type sendFunc = func(ctx context.Context, envelope json.RawMessage, attempt int) (triggered, error)

// way returns how an event is sent: by us, or by the server.
func (c *triggerCmd) way() (send sendFunc, done func(), err error) {
	if c.Webhook != "" {
		api, err := c.connect()
		if err != nil {
			return nil, nil, err
		}
		return func(ctx context.Context, envelope json.RawMessage, attempt int) (triggered, error) {
			return c.byServer(ctx, api, envelope, attempt)
		}, func() {}, nil
	}
	secret, err := c.required()
	if err != nil {
		return nil, nil, err
	}
	s, err := c.sender("--to", c.To)
	if err != nil {
		return nil, nil, err
	}
	return func(ctx context.Context, envelope json.RawMessage, attempt int) (triggered, error) {
		return c.direct(ctx, s, secret, envelope, attempt), nil
	}, s.client.Close, nil
}

// direct sends the event from here.
func (c *triggerCmd) direct(ctx context.Context, s *sender, secret string, envelope json.RawMessage, attempt int) triggered {
	at := time.Now()
	if c.Old {
		at = at.Add(-time.Hour)
	}
	if c.BadSignature {
		secret = store.NewID() // nobody's
	}
	a := s.post(ctx, envelope, attempt, webhook.Sign(secret, at, envelope))
	var d delivery.Delivery
	identify(&d, envelope)
	expected := a.OK()
	if c.BadSignature || c.Old {
		expected = a.StatusCode >= 400 && a.StatusCode <= 499
	}
	return triggered{
		EventID: d.EventID, EventType: d.EventType, Attempt: attempt, StatusCode: a.StatusCode,
		DurationMS: a.Duration.Milliseconds(), took: a.Duration, Answer: outcome(a), AsExpected: expected,
	}
}

// byServer lets the server send the event's data to a webhook.
func (c *triggerCmd) byServer(ctx context.Context, api *client.Client, envelope json.RawMessage, attempt int) (triggered, error) {
	var e webhook.Envelope
	if err := json.Unmarshal(envelope, &e); err != nil {
		return triggered{}, usageError{fmt.Errorf("the event is no envelope: %w", err), ""}
	}
	var (
		r   *client.TestResult
		err error
	)
	if e.EventType == webhook.Test {
		r, err = api.TestWebhook(ctx, c.Webhook)
	} else {
		r, err = api.SendTestEvent(ctx, client.TestEvent{EventType: e.EventType, WebhookID: c.Webhook, Payload: e.Data})
	}
	if err != nil {
		return triggered{}, err
	}
	a := delivery.Answer{
		StatusCode: orZero(r.StatusCode), Body: orZero(r.ResponseBody), Message: orZero(r.ErrorMessage),
		Duration: time.Duration(orZero(r.ResponseTimeMS)) * time.Millisecond,
	}
	return triggered{
		EventID: r.TestID, EventType: e.EventType, Attempt: attempt, StatusCode: a.StatusCode,
		DurationMS: a.Duration.Milliseconds(), took: a.Duration, Answer: outcome(a), AsExpected: r.Success,
	}, nil
}

// orZero returns what p points to, or the zero value.
func orZero[T any](p *T) T {
	if p == nil {
		return *new(T)
	}
	return *p
}
