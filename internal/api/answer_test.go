package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/ticket"
	"github.com/ticketwire/ticketwire/webhook"
)

func TestErrorAnswer(t *testing.T) {
	t.Parallel()
	withDetails := fault.New(fault.Conflict, "held")
	withDetails.Details = map[string]any{"code": "DEPENDENCIES_EXIST"}
	for _, tc := range []struct {
		err    error
		status int
		body   string
	}{
		{fault.New(fault.Invalid, "a"), 400, `{"error":{"code":"VALIDATION_ERROR","message":"a"}}`},
		{
			fault.Field("b", "c"), 400,
			`{"error":{"code":"VALIDATION_ERROR","details":[{"code":"custom","message":"c","path":["b"]}],"message":"Validation failed"}}`,
		},
		{fault.New(fault.BadReference, "d"), 400, `{"error":{"code":"BAD_REQUEST","message":"d"}}`},
		{fault.New(fault.Unauthorized, "e"), 401, `{"error":{"code":"UNAUTHORIZED","message":"e"}}`},
		{fault.New(fault.Forbidden, "f"), 403, `{"error":{"code":"FORBIDDEN","message":"f"}}`},
		{fault.New(fault.ProductDenied, "g"), 403, `{"error":{"code":"PRODUCT_ACCESS_DENIED","message":"g"}}`},
		{fault.New(fault.NotFound, "<h>"), 404, `{"error":{"code":"NOT_FOUND","message":"<h>"}}`},
		{fault.New(fault.MethodNotAllowed, "i"), 405, `{"error":{"code":"METHOD_NOT_ALLOWED","message":"i"}}`},
		{withDetails, 409, `{"error":{"code":"CONFLICT","details":{"code":"DEPENDENCIES_EXIST"},"message":"held"}}`},
		{fault.New(fault.TooLarge, "j"), 413, `{"error":{"code":"PAYLOAD_TOO_LARGE","message":"j"}}`},
		{fault.New(fault.RateLimited, "k"), 429, `{"error":{"code":"RATE_LIMITED","message":"k"}}`},
		{fault.Wrap(fault.BadGateway, errors.New("secret"), "l"), 502, `{"error":{"code":"BAD_GATEWAY","message":"l"}}`},
		{fault.Wrap(fault.Invalid, io.ErrUnexpectedEOF, "cut off"), 400, `{"error":{"code":"VALIDATION_ERROR","message":"cut off"}}`},
		{io.ErrUnexpectedEOF, 503, `{"error":{"code":"UNAVAILABLE","message":"The store cannot be reached now, try again"}}`},
		{fmt.Errorf("m: %w", fault.New(fault.Unavailable, "n")), 503, `{"error":{"code":"UNAVAILABLE","message":"n"}}`},
		{context.Canceled, 503, `{"error":{"code":"UNAVAILABLE","message":"The request was cut short, try again"}}`},
		{errors.New("secret"), 500, `{"error":{"code":"INTERNAL_ERROR","message":"An unexpected error occurred"}}`},
		{fault.New(fault.Internal, "secret"), 500, `{"error":{"code":"INTERNAL_ERROR","message":"An unexpected error occurred"}}`},
	} {
		a := errorAnswer(tc.err)
		if a.status != tc.status || string(a.raw) != tc.body {
			t.Errorf("%v: %d %s, want %d %s", tc.err, a.status, a.raw, tc.status, tc.body)
		}
		if retry := a.header.Get("Retry-After"); (retry != "") != (tc.status == 503) {
			t.Errorf("%v: Retry-After %q", tc.err, retry)
		}
	}
}

// An answer that cannot be encoded is a failure like any other, not half a body.
func TestAnswerThatCannotBeEncoded(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	ok(func() {}).write(w)
	if want := `{"error":{"code":"INTERNAL_ERROR","message":"An unexpected error occurred"}}`; w.Code != 500 || w.Body.String() != want {
		t.Errorf("%d %s, want 500 %s", w.Code, w.Body, want)
	}
}

// A bucket is forgotten after an hour, and not before: a new one is full.
func TestIdleBuckets(t *testing.T) {
	t.Parallel()
	slow := Rate{MaxTokens: 2, RefillPerMin: 1}
	l, now := newLimiter(slow), time.Date(2031, 5, 1, 12, 0, 0, 0, time.UTC)
	take := func(key string) float64 { return l.take(store.Principal{KeyID: key}, slow, now).Left }
	take("idle")
	take("idle")
	now = now.Add(90 * time.Second)
	if left := take("idle"); left != 0.5 {
		t.Errorf("%v tokens are left after a minute and a half, want 0.5", left)
	}
	now = now.Add(time.Hour + time.Second)
	if take("other"); len(l.buckets) != 1 {
		t.Errorf("%d buckets are kept, want the one in use", len(l.buckets))
	}
}

// A server without a rate, or with half of one, has no limit.
func TestNoRate(t *testing.T) {
	t.Parallel()
	for _, r := range []Rate{{}, {MaxTokens: 1}, {RefillPerMin: 1}} {
		if _, limited := newLimiter(r).rateOf(store.RateLimit{}); limited {
			t.Errorf("%+v limits", r)
		}
	}
}

func TestViewMetrics(t *testing.T) {
	t.Parallel()
	got := viewMetrics(store.Analytics{P50: 1, P90: 2, P95: 3, P99: 4, AverageMS: 5})
	if want := (percentilesView{P50: 1, P90: 2, P95: 3, P99: 4}); got.ResponseTime != want || got.AverageMS != 5 {
		t.Errorf("%+v with an average of %v, want %+v and 5", got.ResponseTime, got.AverageMS, want)
	}
}

// A comment in short has the values that it has in full. A contact's cannot be
// made over the API.
func TestViewMarkdown(t *testing.T) {
	t.Parallel()
	at := webhook.At(time.Date(2031, 5, 1, 12, 0, 0, 0, time.UTC))
	full := ticket.Comment{
		CommentID: "1", TicketID: "2", Markdown: new("3"), AuthorType: "4", IsInternal: true, IsResolution: true, CreatedAt: at,
		UpdatedAt: &at, CreatedBy: new("5"), CreatedByName: new("6"), AuthorContactID: new("7"), AuthorContactName: new("8"),
		ThreadID: "9", ParentCommentID: new("10"), DeletedAt: &at,
	}
	keys := func(v any) (m map[string]any) {
		b, err := encodeJSON(v)
		if err == nil {
			err = json.Unmarshal(b, &m)
		}
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	inFull := keys(full)
	for key, v := range keys(viewMarkdown([]ticket.Comment{full})[0]) {
		if v == nil || v != inFull[key] {
			t.Errorf("%s is %v, in full %v", key, v, inFull[key])
		}
	}
}
