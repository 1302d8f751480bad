package delivery

import (
	"fmt"
	"strings"
	"time"
)

// maxRetryAfter is how far a receiver's Retry-After may push a retry whose own
// delay is shorter.
const maxRetryAfter = time.Hour

// Decide says what follows from an answer. now is the END of the attempt, so a
// slow failure does not shorten the delay; jitter is a random number in [0,1).
//
//   - A 2xx is Delivered.
//   - An address that we refuse to call is Abandoned at once: it will not become
//     acceptable by waiting (contract section 4.8).
//   - 410 is Abandoned and asks to disable the webhook, where the policy says so
//     (contract D19). A test never disables.
//   - A test or a manual attempt is Abandoned when it fails: only the chain that
//     the event itself started uses the schedule.
//   - Anything else is Retrying while the schedule has a delay left for d.Step.
func (p Policy) Decide(w *Webhook, d *Delivery, a Answer, now time.Time, jitter float64) Verdict {
	if a.OK() {
		return Verdict{Status: Delivered}
	}
	v := Verdict{Status: Abandoned}
	v.ErrorType, v.ErrorMessage = a.failure()
	if a.Err == ErrSSRF {
		return v
	}
	if a.StatusCode == statusGone && v.ErrorType == ErrStatus && p.GoneDisables {
		if w.IsActive && !d.IsTest {
			v.Disable = DisabledGone
		}
		return v
	}
	schedule := p.ScheduleFor(w.RetryConfig)
	if d.IsTest || d.IsManual || d.Step >= len(schedule) {
		return v
	}
	v.Status = Retrying
	v.RetryAt = now.Add(p.wait(schedule[d.Step], a, now, jitter))
	return v
}

// wait returns how long after now the retry comes: never before the schedule's
// delay, and after a 429 or 503 as late as the receiver asks, but not later
// than an hour where the schedule itself is shorter.
func (p Policy) wait(delay time.Duration, a Answer, now time.Time, jitter float64) time.Duration {
	delay += time.Duration(float64(delay) * p.Jitter * jitter)
	if a.StatusCode != statusTooManyRequests && a.StatusCode != statusUnavailable {
		return delay
	}
	asked, ok := ParseRetryAfter(a.RetryAfter, now)
	if !ok {
		return delay
	}
	return max(delay, min(asked, maxRetryAfter))
}

// failure classifies an answer that is not OK and puts it into words.
func (a Answer) failure() (ErrorType, string) {
	if a.Err != "" && a.Err != ErrStatus {
		if a.Message != "" {
			return a.Err, a.Message
		}
		return a.Err, fmt.Sprintf("delivery failed (%s)", a.Err)
	}
	if a.StatusCode == 0 {
		return ErrUnknown, "no answer from the receiver"
	}
	msg := fmt.Sprintf("receiver answered %d", a.StatusCode)
	if text := statusText(a.StatusCode); text != "" {
		msg += " " + text
	}
	if a.StatusCode >= 300 && a.StatusCode <= 399 {
		msg += "; redirects are not followed"
	}
	return ErrStatus, msg
}

// The statuses that the rules treat specially.
const (
	statusGone            = 410
	statusTooManyRequests = 429
	statusUnavailable     = 503
)

// statusText names the statuses that receivers answer in practice. This package
// does not import net/http, which has the full list.
func statusText(code int) string {
	switch code {
	case 301:
		return "Moved Permanently"
	case 302:
		return "Found"
	case 303:
		return "See Other"
	case 304:
		return "Not Modified"
	case 307:
		return "Temporary Redirect"
	case 308:
		return "Permanent Redirect"
	case 400:
		return "Bad Request"
	case 401:
		return "Unauthorized"
	case 403:
		return "Forbidden"
	case 404:
		return "Not Found"
	case 405:
		return "Method Not Allowed"
	case 408:
		return "Request Timeout"
	case 409:
		return "Conflict"
	case statusGone:
		return "Gone"
	case 413:
		return "Content Too Large"
	case 415:
		return "Unsupported Media Type"
	case 422:
		return "Unprocessable Content"
	case statusTooManyRequests:
		return "Too Many Requests"
	case 500:
		return "Internal Server Error"
	case 501:
		return "Not Implemented"
	case 502:
		return "Bad Gateway"
	case statusUnavailable:
		return "Service Unavailable"
	case 504:
		return "Gateway Timeout"
	}
	return ""
}

// farFuture is what an absurdly large Retry-After counts as: far over every
// bound of ours, and far under the range of a time.Duration.
const farFuture = 365 * 24 * time.Hour

// ParseRetryAfter reads the Retry-After fields of one answer (RFC 9110 section
// 10.2.3) and returns the longest wait that any of them asks for. ok is false
// when none can be read.
//
//   - 120 is that many seconds; 120.6 is not in the RFC but occurs, and is
//     rounded up to 121.
//   - An HTTP date in any of its three forms is the time until then; a date in
//     the past is 0.
//   - A negative number, an empty field and anything else are ignored.
//   - Two fields, or numbers joined by a comma, give the larger.
//   - The result is between 0 and a year.
func ParseRetryAfter(values []string, now time.Time) (wait time.Duration, ok bool) {
	for _, v := range values {
		w, valid := retryAfter(v, now)
		if valid {
			wait, ok = max(wait, w), true
		}
	}
	return wait, ok
}

// retryAfter reads one field. A date in the past gives a negative wait, which
// the maximum in ParseRetryAfter turns into 0.
func retryAfter(v string, now time.Time) (wait time.Duration, ok bool) {
	v = strings.TrimSpace(v)
	for _, layout := range [...]string{
		"Mon, 02 Jan 2006 15:04:05 GMT",  // IMF-fixdate
		"Monday, 02-Jan-06 15:04:05 GMT", // obsolete, RFC 850
		time.ANSIC,                       // obsolete, asctime
	} {
		if at, err := time.Parse(layout, v); err == nil {
			return min(at.Sub(now), farFuture), true
		}
	}
	// A proxy may have joined two fields into one.
	for part := range strings.SplitSeq(v, ",") {
		if w, valid := seconds(strings.TrimSpace(part)); valid {
			wait, ok = max(wait, w), true
		}
	}
	return wait, ok
}

// seconds reads ASCII digits with an optional fraction, which rounds up.
func seconds(s string) (time.Duration, bool) {
	whole, fraction, dot := strings.Cut(s, ".")
	if !digits(whole) || dot && !digits(fraction) {
		return 0, false
	}
	limit := int64(farFuture / time.Second)
	n := int64(0)
	for i := range len(whole) {
		n = min(n*10+int64(whole[i]-'0'), limit)
	}
	if strings.Trim(fraction, "0") != "" {
		n = min(n+1, limit)
	}
	return time.Duration(n) * time.Second, true
}

// digits reports whether s is one or more ASCII digits.
func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
