package cutover

import (
	"cmp"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/client"
)

// meter is the transport of a caller's client. It keeps of the last answer
// what the client does not hand on. Used by one goroutine.
type meter struct {
	base   http.RoundTripper
	status int
	header http.Header
}

func (m *meter) RoundTrip(r *http.Request) (*http.Response, error) {
	m.status, m.header = 0, nil
	res, err := m.base.RoundTrip(r)
	if err == nil {
		m.status, m.header = res.StatusCode, res.Header
	}
	return res, err
}

// connect returns a client whose answers the meter sees; base sends its requests
// and may be nil. It has one try: a failure is an observation of its own, and
// who asks decides when to ask again.
func connect(url, key string, base *http.Client, agent string, timeout time.Duration, now func() time.Time) (*client.Client, *meter, error) {
	var h http.Client
	if base != nil {
		h = *base
	}
	if h.Transport == nil {
		h.Transport = http.DefaultTransport
	}
	m := &meter{base: h.Transport}
	h.Transport = m
	api, err := client.New(url, key, client.WithHTTPClient(&h), client.WithTries(1),
		client.WithTimeout(timeout), client.WithUserAgent(agent), client.WithNow(now))
	return api, m, err
}

// describe writes what the answer said about itself into a poll.
func (m *meter) describe(p *Poll) {
	p.HTTP = m.status
	if d, err := http.ParseTime(m.header.Get("Date")); err == nil {
		p.Date = d
	}
	limit, err := strconv.Atoi(m.header.Get("X-RateLimit-Limit"))
	if err != nil || limit <= 0 {
		return
	}
	p.Limit = limit
	// AlgaPSA says -1 when it does not know.
	if n, err := strconv.Atoi(m.header.Get("X-RateLimit-Remaining")); err == nil {
		p.Remaining = max(n, 0)
	}
}

// serverTime is the server's clock when it made the answer, at the earliest and at
// the latest: Date has whole seconds, and was written at some time of the exchange.
func (p *Poll) serverTime() (earliest, latest time.Time) {
	if p.Date.IsZero() {
		return p.At, p.Done
	}
	took := p.Done.Sub(p.At)
	return p.Date.Add(-took), p.Date.Add(time.Second + took)
}

// caller makes requests within a budget, each once. Used by one goroutine.
type caller struct {
	api    *client.Client
	meter  *meter
	budget *budget
	now    func() time.Time
}

// newCaller returns one that uses a share of the key's limit. h may be nil, and
// timeout 0.
func newCaller(url, key string, h *http.Client, share float64, timeout time.Duration, agent string, now func() time.Time) (*caller, error) {
	c := &caller{budget: newBudget(share), now: now}
	var err error
	c.api, c.meter, err = connect(url, key, h, agent, cmp.Or(timeout, client.DefaultTimeout), now)
	return c, err
}

// call waits for the budget, makes one request with send and completes the poll
// with how it went. waits is told until when it waits; it may be nil. ended is
// the context's error; any other failure is in the poll, and in err.
func (c *caller) call(ctx context.Context, poll *Poll, waits func(until time.Time), send func(context.Context) error) (err, ended error) {
	for {
		now := c.now()
		wait := c.budget.take(now)
		if wait <= 0 {
			break
		}
		if waits != nil {
			waits(now.Add(wait))
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
	poll.At = c.now()
	err = send(ctx)
	if ctx.Err() != nil {
		return nil, ctx.Err() // broken off by us, so it says nothing
	}
	poll.Done = c.now()
	c.meter.describe(poll)
	c.budget.learn(poll.Done, poll.Limit)
	if err == nil {
		return nil, nil
	}
	poll.Failure, poll.Error = classify(err, poll.Ticket != ""), err.Error()
	answer, _ := errors.AsType[*client.Error](err)
	if poll.Failure == RateLimited || poll.HTTP == http.StatusServiceUnavailable && answer != nil && answer.RetryAfter > 0 {
		c.budget.pause(poll.Done, answer.RetryAfter, rand.Float64())
	}
	return err, nil
}

// ask makes one request with send. Its error is the end of the poller: the
// context's, or that whatever answers is not the API or does not take the key.
// Any other failure is in the poll.
func (p *Poller) ask(ctx context.Context, poll *Poll, send func(context.Context) error) error {
	err, ended := p.caller.call(ctx, poll, p.show, send)
	if ended != nil {
		return ended
	}
	switch {
	case err == nil, poll.Failure == NotFound:
		p.answered = true
	case (poll.Failure == Refused || poll.Failure == Malformed) && !p.answered:
		return err
	}
	return nil
}

// classify says what kind of no observation an error is. A 404 means that the
// ticket is gone only if it says so in the words of the API (contract section
// 2): any other may come from a proxy, or from a wrong base URL.
func classify(err error, oneTicket bool) Failure {
	answer, answered := errors.AsType[*client.Error](err)
	var network net.Error
	switch {
	case oneTicket && answered && answer.Status == http.StatusNotFound && answer.Code == "NOT_FOUND" &&
		strings.EqualFold(answer.Message, "ticket not found"):
		return NotFound
	case answered && answer.Status == http.StatusTooManyRequests:
		return RateLimited
	case answered && answer.Status >= 500:
		return ServerError
	case answered:
		return Refused
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return Timeout
	case network != nil, errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe):
		return Network // no answer, or one that broke off
	default:
		return Malformed
	}
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
