package client

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	// DefaultTimeout bounds one request with its answer; every try of a call
	// has it anew.
	DefaultTimeout = 30 * time.Second

	// DefaultTries is how often a call is sent at most.
	DefaultTries = 4

	// DefaultMaxWait is the longest single wait before the next try. A server
	// that asks for more gets no further try: the call fails with the server's
	// error, whose RetryAfter the caller can act on.
	DefaultMaxWait = time.Minute
)

// Client calls the API of one tenant with one key. Use New. Safe for concurrent
// use.
type Client struct {
	base      *url.URL // ends in /api/v1
	key       string
	http      *http.Client
	userAgent string
	timeout   time.Duration
	tries     int
	maxWait   time.Duration
	maxAnswer int64
	now       func() time.Time
}

// Option changes a Client that New makes.
type Option func(*Client)

// WithHTTPClient replaces the client that sends the requests. Its
// CheckRedirect is not used: a redirect would carry the API key to another
// address.
func WithHTTPClient(h *http.Client) Option { return func(c *Client) { c.http = h } }

// WithTimeout replaces DefaultTimeout.
func WithTimeout(d time.Duration) Option { return func(c *Client) { c.timeout = d } }

// WithTries replaces DefaultTries; 1 turns retries off.
func WithTries(n int) Option { return func(c *Client) { c.tries = n } }

// WithMaxWait replaces DefaultMaxWait.
func WithMaxWait(d time.Duration) Option { return func(c *Client) { c.maxWait = d } }

// WithUserAgent replaces the User-Agent, which is "ticketwire-client".
func WithUserAgent(s string) Option { return func(c *Client) { c.userAgent = s } }

// WithNow replaces time.Now, for tests.
func WithNow(now func() time.Time) Option { return func(c *Client) { c.now = now } }

// New returns a client of the server at baseURL, with or without a trailing
// /api/v1. It does not call the server.
func New(baseURL, apiKey string, opts ...Option) (*Client, error) {
	u, err := url.Parse(baseURL)
	if err != nil {
		// url.Error repeats its input, which may hold a password.
		return nil, errors.New("client: the base URL cannot be parsed")
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("client: the base URL needs http:// or https:// and a host")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("client: the base URL must have no user, query or fragment")
	case apiKey == "":
		return nil, errors.New("client: the API key is empty")
	case strings.ContainsAny(apiKey, "\r\n\x00"):
		return nil, errors.New("client: the API key has a line break in it")
	}
	root := strings.TrimSuffix(strings.TrimRight(u.Path, "/"), "/api/v1")
	c := &Client{
		base:      &url.URL{Scheme: u.Scheme, Host: u.Host, Path: root + "/api/v1"},
		key:       apiKey,
		userAgent: "ticketwire-client",
		timeout:   DefaultTimeout,
		tries:     DefaultTries,
		maxWait:   DefaultMaxWait,
		maxAnswer: maxAnswer,
		now:       time.Now,
	}
	for _, o := range opts {
		o(c)
	}
	own := http.Client{Transport: transport()}
	if c.http != nil {
		own = *c.http
	}
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.http = &own
	return c, nil
}

// transport is the default transport with room for parallel callers: net/http
// keeps only two idle connections to a host.
func transport() http.RoundTripper {
	t, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return http.DefaultTransport // replaced by the program: its choice counts
	}
	t = t.Clone()
	t.MaxIdleConnsPerHost = 64
	return t
}

// CallOption changes one call.
type CallOption func(*call)

// WithIdempotencyKey sends X-Idempotency-Key: within 24 hours the server answers
// the same key, route and body with the first answer instead of doing the work
// twice. With it a call that creates something is retried after a lost
// connection. AlgaPSA ignores the header, so do not use it there.
func WithIdempotencyKey(key string) CallOption { return func(c *call) { c.idempotencyKey = key } }
