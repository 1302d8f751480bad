package receiver

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/internal/cutover"
	"github.com/ticketwire/ticketwire/webhook"
)

// exchange is one request while it is handled. The answer is held back until it
// is known whether it may be given; headers are set at once.
type exchange struct {
	http.ResponseWriter
	status  int
	answer  bytes.Buffer
	body    bytes.Buffer // as far as it was read
	receipt webhook.Receipt
}

// WriteHeader holds the status back.
func (x *exchange) WriteHeader(status int) { x.status = status }

// Write holds the text back.
func (x *exchange) Write(b []byte) (int, error) { return x.answer.Write(b) }

// refuse replaces the answer by a 503.
func (x *exchange) refuse(text string) {
	x.status = http.StatusServiceUnavailable
	x.answer.Reset()
	x.answer.WriteString(text + "\n")
}

type exchangeKey struct{}

// observe gets the receipt to the exchange that it belongs to.
func observe(ctx context.Context, rec webhook.Receipt) {
	if x, is := ctx.Value(exchangeKey{}).(*exchange); is {
		x.receipt = rec
	}
}

// receive handles what comes to the public address. Nothing but webhooks is
// there.
func (r *Receiver) receive(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path != r.cfg.Path {
		http.Error(w, "not found", http.StatusNotFound)
		return
	}
	at := r.cfg.Now()
	x := &exchange{ResponseWriter: w}
	if req.Body != nil {
		body := decoded(w, req, r.cfg.MaxBody)
		req.Body = struct {
			io.Reader
			io.Closer
		}{io.TeeReader(body, &x.body), body}
	}
	r.handler.ServeHTTP(x, req.WithContext(context.WithValue(req.Context(), exchangeKey{}, x)))
	r.notice(req, x, at)
	if err := r.recordReceipt(req, x, at); err != nil {
		r.alarms.set(Unstored, err.Error())
		x.receipt.Outcome = webhook.StoreFailed
		x.refuse("the record is not available")
	}
	r.metrics.requests.WithLabelValues(string(x.receipt.Outcome)).Inc()
	w.WriteHeader(x.status)
	_, _ = w.Write(x.answer.Bytes()) // the sender reads the status; if it is gone it will come again
}

// decoded returns the body without the compression of a proxy on the way: what
// is signed is what the sender sent. How much may come out is bounded by who
// reads it.
func decoded(w http.ResponseWriter, req *http.Request, most int64) io.ReadCloser {
	coding := strings.ToLower(strings.TrimSpace(req.Header.Get("Content-Encoding")))
	if coding == "" || coding == "identity" {
		return req.Body
	}
	req.ContentLength = -1
	return &gunzip{coding: coding, packed: http.MaxBytesReader(w, req.Body, most)}
}

// gunzip unpacks when it is read first, so that a bad body is an error of
// reading.
type gunzip struct {
	coding string
	packed io.ReadCloser
	plain  *gzip.Reader
}

// Read is io.Reader's.
func (g *gunzip) Read(b []byte) (int, error) {
	if g.plain == nil {
		if g.coding != "gzip" && g.coding != "x-gzip" {
			return 0, fmt.Errorf("a body with Content-Encoding %.20q cannot be read: gzip can", g.coding)
		}
		var err error
		if g.plain, err = gzip.NewReader(g.packed); err != nil {
			return 0, fmt.Errorf("unpack the body: %w", err)
		}
	}
	return g.plain.Read(b)
}

// Close is io.Closer's.
func (g *gunzip) Close() error { return g.packed.Close() }

var errRefused = errors.New("refused on purpose, for a drill")

// keep keeps an event, unless a drill wants it to come again.
func (r *Receiver) keep(ctx context.Context, now time.Time, e *webhook.Envelope, body []byte) (webhook.State, error) {
	if r.cfg.Refuse != nil && r.cfg.Refuse(e) {
		return 0, errRefused
	}
	return r.store.Keep(ctx, now, e, body)
}

// signedTime finds the time in a signature that was good.
var signedTime = regexp.MustCompile(`(?:^|,)[ \t]*t=([0-9]{1,12})`)

// notice takes from a request what alarms and metrics live on.
func (r *Receiver) notice(req *http.Request, x *exchange, at time.Time) {
	rec := x.receipt
	if rec.Outcome == webhook.StoreFailed && !errors.Is(rec.Err, errRefused) {
		r.alarms.set(Unstored, rec.Err.Error())
	}
	if rec.Event == nil {
		return
	}
	if m := signedTime.FindStringSubmatch(req.Header.Get(webhook.SignatureHeader)); m != nil {
		if unix, err := strconv.ParseInt(m[1], 10, 64); err == nil {
			r.metrics.skew.Set(time.Unix(unix, 0).Sub(at.Truncate(time.Second)).Seconds())
		}
	}
	if rec.Event.EventType != webhook.Test {
		r.pulse.event(at)
	}
}

// Who does not know the secret must not fill the disk through the record: of
// what nobody signed so many requests are written down, and the rest is not.
const (
	strangeRate  = 10 // per second
	strangeBurst = 1000
)

// recordReceipt writes the request into the record of a cutover, before the
// answer leaves: what was acknowledged is in the record.
func (r *Receiver) recordReceipt(req *http.Request, x *exchange, at time.Time) error {
	if r.journal == nil {
		return nil
	}
	receipt := cutover.NewReceipt(at, r.cfg.Now(), req.Header, x.body.Bytes(), x.receipt)
	if !receipt.Signed && !r.strange.AllowN(at, 1) {
		return nil
	}
	return r.journal.append(cutover.Entry{Receipt: receipt})
}
