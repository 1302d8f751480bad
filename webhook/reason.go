package webhook

import (
	"errors"
	"fmt"
	"time"
)

// Reason says why a request was refused. The texts are stable: they are safe
// to show to the sender, to count, and to compare. A Reason is an error itself,
// so that errors.Is(err, webhook.SignatureMismatch) works on whatever Verify
// and Parse return.
type Reason string

// Valid is the reason of no error: see ReasonOf.
const Valid Reason = "valid"

// The reasons of a *SignatureError, in the order in which they are checked.
const (
	NoSecret                Reason = "no_secret"                  // the receiver has no secret, or only empty ones
	MissingHeader           Reason = "missing_header"             // no X-Alga-Signature, or an empty one
	MalformedHeader         Reason = "malformed_header"           // longer than 4,096 characters, or a part that is not key=value
	MissingTimestamp        Reason = "missing_timestamp"          // no t
	DuplicateTimestamp      Reason = "duplicate_timestamp"        // more than one t
	MalformedTimestamp      Reason = "malformed_timestamp"        // t is not 1 to 12 ASCII digits
	MissingV1               Reason = "missing_v1"                 // no v1
	MalformedV1             Reason = "malformed_v1"               // a v1 that is not 64 hex digits
	TimestampOutOfTolerance Reason = "timestamp_out_of_tolerance" // t is too far from the receiver's clock, either way
	SignatureMismatch       Reason = "signature_mismatch"         // no v1 fits any secret and these body bytes
)

// The reasons of an *EnvelopeError.
const (
	MalformedJSON     Reason = "malformed_json"      // the body is not JSON
	MalformedEnvelope Reason = "malformed_envelope"  // JSON, but not an envelope of contract section 4.3
	MissingEventID    Reason = "missing_event_id"    // no event_id in the body, or none in the headers
	EventIDMismatch   Reason = "event_id_mismatch"   // body and X-Alga-Event-Id name different events
	EventTypeMismatch Reason = "event_type_mismatch" // body and X-Alga-Event-Type differ
)

// Error returns the reason's text.
func (r Reason) Error() string { return string(r) }

// ReasonOf returns the reason inside err, Valid for nil, and "" for an error
// that did not come from Verify or Parse.
func ReasonOf(err error) Reason {
	if err == nil {
		return Valid
	}
	var r Reason
	errors.As(err, &r)
	return r
}

// SignatureError is why Verify refused a request. It never holds a secret or a
// computed signature.
type SignatureError struct {
	Reason Reason
	// Skew is the header's time minus the receiver's, in whole seconds, where
	// the header had a readable time. A Skew that many requests share is a
	// wrong clock, not an attack.
	Skew time.Duration
}

// Error names the reason, and the skew where that is the reason.
func (e *SignatureError) Error() string {
	if e.Reason == TimestampOutOfTolerance {
		return fmt.Sprintf("webhook signature: %s (off by %s)", e.Reason, e.Skew)
	}
	return "webhook signature: " + string(e.Reason)
}

// Unwrap returns the Reason.
func (e *SignatureError) Unwrap() error { return e.Reason }

// EnvelopeError is why Parse refused a body.
type EnvelopeError struct {
	Reason Reason
	Detail string // which key or header, without values from the request; may be empty
}

// Error names the reason and the detail.
func (e *EnvelopeError) Error() string {
	if e.Detail == "" {
		return "webhook envelope: " + string(e.Reason)
	}
	return "webhook envelope: " + string(e.Reason) + " (" + e.Detail + ")"
}

// Unwrap returns the Reason.
func (e *EnvelopeError) Unwrap() error { return e.Reason }
