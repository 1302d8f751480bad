// Package fault gives every layer below the edges one error type: a kind that
// the edges map to an HTTP status or an exit code, a message that is safe to
// show to the caller, the fields that were wrong, and the wrapped cause.
//
// It leaves what a body or a page says to internal/api and internal/console, and
// exit codes to cmd/ticketwire, and never logs.
package fault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// Kind says what sort of failure an error is. The zero Kind is Internal, so an
// error that nobody classified is never shown to a caller.
type Kind int

// The kinds, in the order of contract section 1.2.
const (
	Internal         Kind = iota // a defect or an outage of ours; the message stays inside
	Invalid                      // the input breaks a rule; Issues say which (400 VALIDATION_ERROR)
	BadReference                 // the input names something that does not exist (400 BAD_REQUEST)
	Unauthorized                 // no key, or a key that does not open anything (401)
	Forbidden                    // the key's owner lacks the permission (403)
	ProductDenied                // the tenant's product does not include the route (403 PRODUCT_ACCESS_DENIED)
	NotFound                     // no such row for this tenant (404)
	MethodNotAllowed             // the path exists, the method does not (405)
	Conflict                     // the state forbids the change (409)
	TooLarge                     // the request body is over the limit (413)
	RateLimited                  // the caller's budget is spent (429)
	BadGateway                   // the receiver behind us failed (502)
	Unavailable                  // we cannot do it now, a retry may succeed (503)
)

// HTTPStatus returns the status with which the API and the console answer (contract
// section 1.2).
func (k Kind) HTTPStatus() int {
	switch k {
	case Invalid, BadReference:
		return http.StatusBadRequest
	case Unauthorized:
		return http.StatusUnauthorized
	case Forbidden, ProductDenied:
		return http.StatusForbidden
	case NotFound:
		return http.StatusNotFound
	case MethodNotAllowed:
		return http.StatusMethodNotAllowed
	case Conflict:
		return http.StatusConflict
	case TooLarge:
		return http.StatusRequestEntityTooLarge
	case RateLimited:
		return http.StatusTooManyRequests
	case BadGateway:
		return http.StatusBadGateway
	case Unavailable:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

// Issue is one thing wrong with an input, in the shape of the issues that Zod
// makes, because clients parse them (contract section 1.2). Code, Path and
// Message are always sent; Extra holds the keys that only some codes have
// (expected, received, minimum, options, ...).
type Issue struct {
	Code    string
	Path    []any // object keys (string) and list positions (int), outermost first
	Message string
	Extra   map[string]any
}

// Error is the one error type that crosses package boundaries.
type Error struct {
	Kind    Kind
	Message string  // for the caller: no secrets, no SQL, no addresses of ours
	Issues  []Issue // for Invalid
	Details any     // sent as error.details when there are no Issues
	Err     error   // the cause, for the log; never sent to the caller
}

// Error returns the message with the cause behind it, for logs.
func (e *Error) Error() string {
	if e.Err != nil {
		return e.Message + ": " + e.Err.Error()
	}
	return e.Message
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// New makes an error of kind k whose message the caller will see.
func New(k Kind, format string, args ...any) *Error {
	return &Error{Kind: k, Message: fmt.Sprintf(format, args...)}
}

// Wrap makes an error of kind k with a cause. The cause is for the log only.
func Wrap(k Kind, err error, format string, args ...any) *Error {
	return &Error{Kind: k, Message: fmt.Sprintf(format, args...), Err: err}
}

// Field makes an Invalid error about one field, with the hand-made issue shape
// {code: "custom", path, message} of contract section 1.2.
func Field(path, format string, args ...any) *Error {
	msg := fmt.Sprintf(format, args...)
	return &Error{
		Kind:    Invalid,
		Message: "Validation failed",
		Issues:  []Issue{{Code: "custom", Path: []any{path}, Message: msg}},
	}
}

// KindOf returns the kind of err: that of the first *Error in its chain,
// Unavailable for an expired or cancelled context, Internal otherwise.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return Unavailable
	}
	return Internal
}

// Is reports whether err is of kind k.
func Is(err error, k Kind) bool { return err != nil && KindOf(err) == k }
