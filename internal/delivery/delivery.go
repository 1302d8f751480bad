package delivery

import (
	"net/netip"
	"time"
)

// Status is where a delivery row stands (contract section 3.9 and P1).
type Status string

// The statuses of a delivery row. One row is one attempt.
const (
	Pending   Status = "pending"   // owed: due at DueAt, not sent yet
	Delivered Status = "delivered" // answered with a 2xx
	Retrying  Status = "retrying"  // failed, and the next attempt has its own pending row
	Abandoned Status = "abandoned" // failed or given up, nothing follows
)

// Why a pending row waits, or an abandoned one was never sent.
const (
	WaitDue             = "due"              // its time has not come, or it is being sent
	WaitRateLimited     = "rate_limited"     // the webhook's bucket is empty
	WaitBreakerOpen     = "breaker_open"     // the receiver hangs, or asked for a pause
	WaitWebhookDisabled = "webhook_disabled" // abandoned unsent: the webhook was switched off
	WaitSuperseded      = "superseded"       // abandoned unsent: a manual retry delivered the event first
)

// Delivery is one attempt to bring one event to one webhook, from the moment it
// is owed (contract P1).
type Delivery struct {
	TenantID   string
	DeliveryID string // also the X-Alga-Delivery-Id of the request
	WebhookID  string
	EventID    string
	EventType  string
	TicketID   string // "" for a test
	Attempt    int    // 1-based; counts requests really sent for this event and webhook
	Step       int    // position on the retry schedule: 0 for the first, n for the n-th retry
	Status     Status
	WaitReason string
	IsTest     bool
	IsManual   bool // asked for by a person; never continues the schedule

	DueAt       time.Time
	AttemptedAt *time.Time
	CompletedAt *time.Time
	NextRetryAt *time.Time // when the next row of the chain is due; for a pending row, DueAt
	CreatedAt   time.Time

	Body            []byte            // the frozen envelope, byte for byte as sent
	RequestHeaders  map[string]string // as sent, custom values and the signature redacted (contract P2)
	StatusCode      int               // 0: no answer
	ResponseHeaders map[string]string
	ResponseBody    string
	DurationMS      int64
	ErrorType       ErrorType
	ErrorMessage    string
}

// ErrorType classifies a failed attempt (contract P3).
type ErrorType string

// The classes of failure. "" means no failure.
const (
	ErrDNS      ErrorType = "dns"      // the name did not resolve
	ErrConnect  ErrorType = "connect"  // no connection, or it broke
	ErrSSRF     ErrorType = "ssrf"     // the address is one we refuse to call
	ErrTLS      ErrorType = "tls"      // the handshake or the certificate failed
	ErrTimeout  ErrorType = "timeout"  // the whole exchange ran over its limit
	ErrProtocol ErrorType = "protocol" // the answer was not HTTP, or broke its rules
	ErrStatus   ErrorType = "status"   // an answer outside 2xx
	ErrUnknown  ErrorType = "unknown"
)

// ErrorTypes are all of them, the usual ones first.
func ErrorTypes() []ErrorType {
	return []ErrorType{ErrStatus, ErrTimeout, ErrConnect, ErrDNS, ErrTLS, ErrSSRF, ErrProtocol, ErrUnknown}
}

// Answer is what one POST brought back. It is data, never an error: a refused
// connection is an Answer with Err set.
type Answer struct {
	StatusCode int // 0 when no status line arrived
	Headers    map[string]string
	Body       string // at most MaxStoredBody UTF-16 units, valid UTF-8
	RetryAfter []string
	Err        ErrorType // "" only for a 2xx whose exchange completed
	Message    string    // names phase and cause; no secrets, no addresses of private networks
	Duration   time.Duration
	RemoteAddr netip.AddrPort // the address that was dialled; invalid when none was

	// Interrupted says that we broke the exchange off ourselves, because the
	// program stops. Err is set too, but it is not the receiver's failure: the
	// lease is released and the attempt is not counted.
	Interrupted bool
}

// MaxStoredBody is how much of a receiver's answer is kept, in UTF-16 units
// (contract section 4.8).
const MaxStoredBody = 8192

// OK reports whether the attempt succeeded: a 2xx, completely received.
func (a Answer) OK() bool { return a.Err == "" && a.StatusCode >= 200 && a.StatusCode <= 299 }
