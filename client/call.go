package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// maxAnswer bounds what is read of one answer: a feed page of 1,000 events with
// the largest payloads stays below it.
const maxAnswer = 256 << 20

// firstWait is the wait before the first retry where the server names none; it
// doubles with every further one.
const firstWait = 250 * time.Millisecond

// call is one call of the API.
type call struct {
	method         string
	path           []string // below /api/v1, each part escaped on its own
	query          url.Values
	in             any // JSON body; nil for none
	idempotencyKey string
}

// do sends the call until it has an answer worth returning, and decodes a 2xx
// into out unless out is nil. A failure to get an answer is returned wrapped,
// any other answer as *Error.
func (c *Client) do(ctx context.Context, a call, out any, opts ...CallOption) error {
	for _, o := range opts {
		o(&a)
	}
	for _, p := range a.path {
		// Such an id would be cleaned away and the call reach another route.
		if p == "" || p == "." || p == ".." {
			return fmt.Errorf("%s %s: %q is not an id", a.method, strings.Join(a.path, "/"), p)
		}
	}
	var body []byte
	if a.in != nil {
		var err error
		if body, err = json.Marshal(a.in); err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
	}
	for try := 1; ; try++ {
		answer, err := c.once(ctx, a, body)
		if err == nil {
			if out == nil {
				return nil
			}
			if err := json.Unmarshal(answer, out); err != nil {
				return fmt.Errorf("decode answer to %s %s: %w", a.method, c.url(a).Path, err)
			}
			return nil
		}
		wait, again := c.retry(ctx, a, err, try)
		if !again {
			return err
		}
		if sleep(ctx, wait) != nil {
			return err // the reason for waiting says more than the deadline
		}
	}
}

// once sends the call once and returns the body of a 2xx.
func (c *Client) once(ctx context.Context, a call, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, fmt.Errorf("no answer within %s: %w", c.timeout, context.DeadlineExceeded))
	defer cancel()
	u := c.url(a)
	var reader io.Reader
	if a.in != nil {
		reader = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, a.method, u.String(), reader)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", a.method, u.Path, err)
	}
	req.Header.Set("X-API-Key", c.key)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.userAgent)
	if a.in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if a.idempotencyKey != "" {
		req.Header.Set("X-Idempotency-Key", a.idempotencyKey)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, lostError{err}
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, c.maxAnswer+1))
	switch {
	case err != nil:
		return nil, lostError{fmt.Errorf("%s %s: read answer: %w", a.method, u.Path, err)}
	case int64(len(answer)) > c.maxAnswer:
		return nil, fmt.Errorf("%s %s: the answer is larger than %d bytes", a.method, u.Path, c.maxAnswer)
	case res.StatusCode < 200 || res.StatusCode > 299:
		return nil, errorFrom(res, answer, c.now())
	}
	return answer, nil
}

// url returns where a call goes.
func (c *Client) url(a call) *url.URL {
	u := c.base.JoinPath(escaped(a.path)...)
	u.RawQuery = a.query.Encode()
	return u
}

// escaped keeps an id from being read as more than one part of a path.
func escaped(parts []string) []string {
	out := make([]string, len(parts))
	for i, p := range parts {
		out[i] = url.PathEscape(p)
	}
	return out
}

// lostError marks a request that got no answer: whether the server did the work
// is unknown.
type lostError struct{ error }

func (e lostError) Unwrap() error { return e.error }

// retry decides whether a failed try gets another one, and when.
//
// 429 means that the server did nothing. 503 means the same when the server
// says when to come back; without that it may come from a proxy behind which
// the work went on. So it counts, like a lost connection, as unknown, and only
// a call that may be repeated is repeated.
func (c *Client) retry(ctx context.Context, a call, err error, try int) (time.Duration, bool) {
	if try >= c.tries {
		return 0, false
	}
	repeatable := a.method != http.MethodPost || a.idempotencyKey != ""
	wait := backoff(try)
	var (
		answer *Error
		lost   lostError
	)
	switch {
	case errors.As(err, &answer):
		told := answer.RetryAfter > 0
		if answer.Status != http.StatusTooManyRequests &&
			(answer.Status != http.StatusServiceUnavailable || !repeatable && !told) {
			return 0, false
		}
		if told {
			// Clients that were told the same second must not come together.
			wait = answer.RetryAfter + rand.N(100*time.Millisecond)
		}
		if answer.RetryAfter > c.maxWait {
			return 0, false
		}
	case !errors.As(err, &lost) || !repeatable:
		return 0, false
	}
	wait = min(wait, c.maxWait)
	// A wait that the caller's deadline cuts off is time wasted.
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= wait {
		return 0, false
	}
	return wait, true
}

// backoff returns a random time around firstWait * 2^(try-1).
func backoff(try int) time.Duration {
	d := firstWait << min(try-1, 10)
	return d/2 + rand.N(d)
}

// sleep waits, or returns early with the context's error.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
