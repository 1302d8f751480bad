package client

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Error is an answer of the server other than 2xx (contract section 1.2). Use
// errors.As to get at it.
type Error struct {
	Status  int    // HTTP status
	Code    string // VALIDATION_ERROR, NOT_FOUND, ...; empty where the answer had none
	Message string
	// Details is the answer's error.details as it came: for VALIDATION_ERROR a
	// list of issues with path and message. nil where there was none.
	Details json.RawMessage
	// RetryAfter is how long the server asked to wait; 0 where it did not.
	RetryAfter time.Duration
}

// Error names status, code and message, and of a list of issues the first,
// since "Validation failed" alone helps nobody.
func (e *Error) Error() string {
	if e.Code == "" {
		return fmt.Sprintf("server answered %d: %s", e.Status, e.Message)
	}
	var issues []struct {
		Path    []any  `json:"path"`
		Message string `json:"message"`
	}
	if json.Unmarshal(e.Details, &issues) != nil || len(issues) == 0 {
		return fmt.Sprintf("server answered %d %s: %s", e.Status, e.Code, e.Message)
	}
	first, path := issues[0].Message, make([]string, len(issues[0].Path))
	for i, key := range issues[0].Path {
		path[i] = fmt.Sprint(key)
	}
	if len(path) > 0 {
		first = strings.Join(path, ".") + ": " + first
	}
	return fmt.Sprintf("server answered %d %s: %s: %.*s", e.Status, e.Code, e.Message, maxMessage, first)
}

// maxMessage bounds what a foreign server can put into our logs.
const maxMessage = 1000

// errorFrom reads the error of an answer. It understands the contract's object,
// AlgaPSA's plain string for a missing key, and whatever a proxy answers.
func errorFrom(res *http.Response, body []byte, now time.Time) *Error {
	e := &Error{Status: res.StatusCode, RetryAfter: retryAfter(res.Header.Get("Retry-After"), now)}
	var outer struct {
		Error json.RawMessage `json:"error"`
	}
	var inner struct {
		Code    string          `json:"code"`
		Message string          `json:"message"`
		Details json.RawMessage `json:"details"`
	}
	if json.Unmarshal(body, &outer) == nil && json.Unmarshal(outer.Error, &inner) == nil {
		e.Code, e.Message, e.Details = inner.Code, inner.Message, inner.Details
	} else if outer.Error != nil {
		_ = json.Unmarshal(outer.Error, &e.Message) // neither object nor string: no message
	}
	if e.Message == "" {
		e.Message = http.StatusText(res.StatusCode)
	}
	if len(e.Message) > maxMessage {
		e.Message = strings.ToValidUTF8(e.Message[:maxMessage], "") // the cut may split a character
	}
	return e
}

// retryAfter reads both forms of Retry-After (RFC 9110 section 10.2.3). What
// it cannot read, and the past, is 0.
func retryAfter(s string, now time.Time) time.Duration {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		const most = int64(1<<63-1) / int64(time.Second)
		return time.Duration(max(0, min(n, most))) * time.Second
	}
	if t, err := http.ParseTime(s); err == nil {
		return max(0, t.Sub(now))
	}
	return 0
}
