package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// MaxBody is the largest body that a receiver reads, in bytes, unless its Verifier
// has another bound. A larger one is answered with 413 after at most one byte more
// was read.
const MaxBody = 1 << 20

// firstRead bounds the memory that a Content-Length alone can claim.
const firstRead = 16 << 10

// refusal is a request that ends before the integrator's code sees it.
type refusal struct {
	outcome Outcome
	status  int
	text    string // for the sender
	err     error  // for the log
}

// receive reads, verifies and parses a request, in that order: nothing looks
// into a body that was not signed.
func (v *Verifier) receive(w http.ResponseWriter, r *http.Request) (*Envelope, []byte, *refusal) {
	most := v.MaxBody
	if most <= 0 {
		most = MaxBody
	}
	body, bad := readBody(w, r, most)
	if bad != nil {
		return nil, nil, bad
	}
	// Several header lines mean one list (RFC 9110 section 5.2). Taking the
	// first alone would let another one through unseen.
	header := strings.Join(r.Header.Values(SignatureHeader), ",")
	if err := v.Verify(header, body); err != nil {
		return nil, nil, &refusal{BadSignature, http.StatusUnauthorized, "signature refused: " + string(ReasonOf(err)), err}
	}
	e, err := Parse(r.Header, body)
	if err != nil {
		return nil, nil, &refusal{BadEnvelope, http.StatusBadRequest, "envelope refused: " + string(ReasonOf(err)), err}
	}
	e.Raw = body
	return e, body, nil
}

// readBody returns the raw body of at most most bytes, or why there is none.
func readBody(w http.ResponseWriter, r *http.Request, most int64) ([]byte, *refusal) {
	if r.ContentLength > most {
		// The body stays unread, and so the connection cannot be used again.
		w.Header().Set("Connection", "close")
		return nil, tooLarge(most)
	}
	if r.Body == nil {
		return nil, consumed()
	}
	body := make([]byte, 0, min(max(r.ContentLength, 0)+1, firstRead))
	in := http.MaxBytesReader(w, r.Body, most)
	for {
		n, err := in.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if err == io.EOF {
			break
		}
		var over *http.MaxBytesError
		switch {
		case errors.As(err, &over):
			return nil, tooLarge(most)
		case errors.Is(err, http.ErrBodyReadAfterClose):
			return nil, consumed()
		case err != nil:
			return nil, &refusal{BadRequest, http.StatusBadRequest, "the request body ended early", fmt.Errorf("read body: %w", err)}
		}
		if len(body) == cap(body) {
			body = append(body, 0)[:len(body)]
		}
	}
	// A body that a middleware has read does not fail, it is just empty.
	if len(body) == 0 && r.ContentLength != 0 || int64(len(body)) < r.ContentLength {
		return nil, consumed()
	}
	return body, nil
}

func tooLarge(most int64) *refusal {
	text := fmt.Sprintf("the request body is larger than %d bytes", most)
	return &refusal{TooLarge, http.StatusRequestEntityTooLarge, text, errors.New(text)}
}

func consumed() *refusal {
	const text = "the request body was already read: put the webhook handler before any middleware that parses bodies, because the signature covers the raw bytes"
	return &refusal{BadRequest, http.StatusBadRequest, text, errors.New(text)}
}

// envelopeKey is the context key of Middleware.
type envelopeKey struct{}

// Middleware verifies each request and hands it to next with the body as it
// was received and the envelope in the context, for FromContext. It answers
// what it refuses as Handler does (400, 401, 413). It does not deduplicate, and
// it leaves the method and the choice of event types to next.
func (v *Verifier) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e, body, bad := v.receive(w, r)
		if bad != nil {
			http.Error(w, bad.text, bad.status)
			return
		}
		r = r.WithContext(context.WithValue(r.Context(), envelopeKey{}, e))
		r.Body = io.NopCloser(bytes.NewReader(body))
		r.ContentLength = int64(len(body))
		next.ServeHTTP(w, r)
	})
}

// FromContext returns the verified envelope that Middleware put into ctx.
func FromContext(ctx context.Context) (*Envelope, bool) {
	e, ok := ctx.Value(envelopeKey{}).(*Envelope)
	return e, ok
}
