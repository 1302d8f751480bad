package delivery

import (
	"encoding/json"
	"time"
)

// Webhook is one subscription: what a tenant configured (Spec), and what has
// happened to it since (Health). It never holds a signing secret: those stay
// sealed in the store and are opened only to sign.
type Webhook struct {
	TenantID  string
	WebhookID string
	CreatedBy string // the user who is mailed when it is disabled
	Spec
	Health
	DisabledAt     *time.Time // when it last stopped being active, by hand or by us; nil while active
	DisabledReason string     // why: DisabledByUser, DisabledByFailures or DisabledGone; "" while active
	CreatedAt      time.Time
	UpdatedAt      time.Time
}

// Why a webhook is not active.
const (
	DisabledByUser     = "user"     // PUT {"is_active": false}
	DisabledByFailures = "failures" // nothing but failures for Policy.DisableAfter
	DisabledGone       = "gone"     // the receiver answered 410 (contract D19)
)

// Spec is the configurable part of a webhook (contract section 3.3).
type Spec struct {
	Name          string
	Description   *string
	URL           string
	Method        string // POST, PUT or PATCH (contract D38)
	EventTypes    []string
	CustomHeaders map[string]string // may hold credentials: sealed at rest
	EventFilter   *Filter
	PayloadFields PayloadFields // nil: everything
	VerifySSL     bool
	TLS           *TLS // nil: no client certificate, the system's authorities
	IsActive      bool
	IsTestMode    bool // deliveries are marked is_test and count for nothing
	RetryConfig   *RetryConfig
	RateLimit     *RateLimit      // nil: DefaultRatePerMinute
	Metadata      json.RawMessage // an object as it was sent, with every digit of its numbers
	Tags          []string        // labels of the webhook itself, not a filter
}

// PayloadFields is the payload_fields map of contract section 4.5: entity name
// to allowed fields. A missing entity or a nil list means every field; an empty
// list means only the id.
type PayloadFields map[string][]string

// Filter is the event_filter of contract section 4.6 and D34. All parts that
// are given must match. Empty parts match everything.
type Filter struct {
	EntityIDs  []string    `json:"entity_ids,omitempty"` // ticket ids, lower case
	Tags       []string    `json:"tags,omitempty"`       // any of them, compared without case
	Conditions []Condition `json:"conditions,omitempty"` // all of them
}

// Condition compares one payload key of contract section 4.4 with a value.
type Condition struct {
	Field    string `json:"field"`
	Operator string `json:"operator"` // equals, not_equals, contains, not_contains, greater_than, less_than, in, not_in
	Value    any    `json:"value"`
}

// RetryConfig overrides the server's schedule for one webhook (contract D20).
// All delays and the timeout are milliseconds, as on the wire; nil means not
// given.
type RetryConfig struct {
	Schedule          []int64  `json:"schedule,omitempty"`           // 1..20 delays; replaces the schedule
	Strategy          *string  `json:"strategy,omitempty"`           // exponential_backoff, linear_backoff, fixed_interval, custom (custom needs schedule)
	MaxAttempts       *int     `json:"max_attempts,omitempty"`       // 1..10 requests in all
	InitialDelay      *int64   `json:"initial_delay,omitempty"`      // >= 1
	MaxDelay          *int64   `json:"max_delay,omitempty"`          // >= 1000
	BackoffMultiplier *float64 `json:"backoff_multiplier,omitempty"` // >= 1
	Timeout           *int64   `json:"timeout,omitempty"`            // 1000..30000, whole exchange
}

// RateLimit is the rate_limit object of contract D21. Enabled nil counts as
// true when RequestsPerMinute is given.
type RateLimit struct {
	Enabled           *bool `json:"enabled,omitempty"`
	RequestsPerMinute *int  `json:"requests_per_minute,omitempty"` // 1..1000
	BurstLimit        *int  `json:"burst_limit,omitempty"`         // bucket size, 1..1000; default RequestsPerMinute
}

// DefaultRatePerMinute is the outbound limit of a webhook that sets none
// (contract section 4.10).
const DefaultRatePerMinute = 100

// Health is what the attempts of a webhook have shown so far. Counters move
// once per attempt that was really sent, test deliveries excepted.
type Health struct {
	TotalDeliveries      int64
	SuccessfulDeliveries int64
	FailedDeliveries     int64
	LastDeliveryAt       *time.Time
	LastSuccessAt        *time.Time
	LastFailureAt        *time.Time
	FailingSince         *time.Time // first failure since the last success or re-enable; nil while healthy
	WarningsSent         int        // how many of Policy.WarnAfter were mailed in this streak
	AutoDisabledAt       *time.Time
}
