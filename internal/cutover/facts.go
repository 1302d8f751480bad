package cutover

import (
	"encoding/json"
	"time"
)

// What the record has beside the observations of both pipelines: how they were
// set up, and what was done to them.

// Subscription is a webhook as the server had it at At. There is one when
// watching begins and another one for each change.
type Subscription struct {
	At         time.Time       `json:"at"`
	WebhookID  string          `json:"webhook_id"`
	Active     bool            `json:"active"`
	EventTypes []string        `json:"event_types"`
	Tickets    []string        `json:"tickets,omitempty"` // entity_ids of its filter; empty for all
	Filter     json.RawMessage `json:"filter,omitempty"`  // event_filter as it came
	Fields     json.RawMessage `json:"fields,omitempty"`  // payload_fields as it came
	DisabledAt time.Time       `json:"disabled_at,omitzero"`
	Why        string          `json:"why,omitempty"` // why it is disabled, where the server says so
	// GivesUpAfter is how long the sender tries an event, in seconds: what failed
	// all that time is abandoned.
	GivesUpAfter float64 `json:"gives_up_after,omitempty"`
}

// Receiver is written when a receiver starts. A second one is a restart.
type Receiver struct {
	At         time.Time `json:"at"`
	Types      []string  `json:"types,omitempty"`   // event types it handles; empty for those of the contract
	Tickets    []string  `json:"tickets,omitempty"` // tickets it handles; empty for all
	SecretFrom string    `json:"secret_from"`       // file, environment, flag or config
	Silence    float64   `json:"silence,omitempty"` // seconds without an event until it raises the alarm; 0 for no alarm
	Refetch    bool      `json:"refetch,omitempty"` // it reads the ticket again before it reacts
	SkipStale  bool      `json:"skip_stale,omitempty"`
}

// Reading says for which time the record has what the server knows of a topic. A
// Collector writes one whenever it has read all that was new, also if that was
// nothing: without it nobody could tell a server that has nothing to say from a
// collector that has stopped.
type Reading struct {
	At    time.Time `json:"at"`
	Topic Topic     `json:"topic"`
	From  time.Time `json:"from"` // by the server's clock, as To
	To    time.Time `json:"to"`
}

// Reaction is one run of the receiver's reaction to an event.
type Reaction struct {
	At        time.Time `json:"at"` // it ended
	EventID   string    `json:"event_id"`
	EventType string    `json:"event_type"`
	Ticket    string    `json:"ticket,omitempty"`
	Attempt   int       `json:"attempt"`         // of the reaction, from 1
	Acted     bool      `json:"acted,omitempty"` // false: it was the other side's turn, so nothing was done
	Stale     bool      `json:"stale,omitempty"` // a newer event of the ticket was done before
	Error     string    `json:"err,omitempty"`
}

// Reconciler is written when a standing reconciler starts.
type Reconciler struct {
	At    time.Time `json:"at"`
	Every float64   `json:"every"` // seconds from one sweep to the next
}

// Drill is a proof that somebody asked for: something was done on purpose, and
// the comparison looks for what should have come of it.
type Drill struct {
	At     time.Time `json:"at"`
	Kind   string    `json:"kind"` // restart, retry or edit
	Ticket string    `json:"ticket,omitempty"`
	Note   string    `json:"note,omitempty"`
}
