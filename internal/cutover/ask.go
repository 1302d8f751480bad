package cutover

import (
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

// meter is the transport of the poller's client. It keeps of the last answer
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
	h := http.Client{Transport: http.DefaultTransport}
	if base != nil {
		h = *base
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

// ask waits for the budget, makes one request with send and completes the poll
// with how it went. Its error is the end of the poller: the context's, or that
// whatever answers is not the API or does not take the key. Any other failure is
// in the poll.
func (p *Poller) ask(ctx context.Context, poll *Poll, send func(context.Context) error) error {
	for {
		now := p.cfg.Now()
		wait := p.budget.take(now)
		if wait <= 0 {
			break
		}
		p.show(now.Add(wait))
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
	poll.At = p.cfg.Now()
	err := send(ctx)
	if ctx.Err() != nil {
		return ctx.Err() // broken off by us, so it says nothing
	}
	poll.Done = p.cfg.Now()
	p.meter.describe(poll)
	p.budget.learn(poll.Done, poll.Limit)
	if err == nil {
		p.answered = true
		return nil
	}
	poll.Failure, poll.Error = classify(err, poll.Ticket != ""), err.Error()
	answer, _ := errors.AsType[*client.Error](err)
	if poll.Failure == RateLimited || poll.HTTP == http.StatusServiceUnavailable && answer != nil && answer.RetryAfter > 0 {
		p.budget.pause(poll.Done, answer.RetryAfter, rand.Float64())
	}
	switch poll.Failure {
	case NotFound:
		p.answered = true
	case Refused, Malformed:
		if !p.answered {
			return err
		}
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
