// Package bench measures verification beside the libraries of others. It is a
// module of its own, so that theirs do not become dependencies of this one:
//
//	cd test/bench && go test -bench .
package bench

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	standard "github.com/standard-webhooks/standard-webhooks/libraries/go"
	stripe "github.com/stripe/stripe-go/v85"

	"github.com/ticketwire/ticketwire/webhook"
)

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// sizes are a small event, one as most are, and one with a long thread.
var sizes = []int{200, 2000, 100_000}

// body makes an event of about n bytes that all three libraries accept.
func body(n, id int) []byte {
	b, err := json.Marshal(map[string]any{
		"event_id": fmt.Sprintf("4f0c2f5e-9b1d-4c77-9f0e-%012d", id), "event_type": webhook.TicketCreated,
		"occurred_at": "2026-03-09T08:14:02.140Z", "tenant_id": "7c1d2f0a-5b64-4e0e-9a3b-2f6d8c41e7b5",
		"data": map[string]any{"ticket_id": "e2a94b77-6f10-4c58-8d3e-90b1c2d3e4f5", "title": strings.Repeat("x", n), "object": map[string]any{}},
		// What stripe-go asks for.
		"id": "evt_1", "object": "event", "api_version": stripe.APIVersion,
	})
	if err != nil {
		panic(err)
	}
	return b
}

// Their library accepts what a server with --standard-webhooks sends, the secret
// given raw or as the base64 of its text.
func TestStandardLibraryVerifies(t *testing.T) {
	t.Parallel()
	const secret, id = "zuhGMxRMnCuJbDpU1BfZBZ8IyXJ3rHhr8Tt2iFqS0nE", "4f0c2f5e-9b1d-4c77-9f0e-000000000001"
	now, text := time.Now(), []byte(`{"a":1}`)
	header := http.Header{}
	header.Set(webhook.StandardIDHeader, id)
	header.Set(webhook.StandardTimestampHeader, strconv.FormatInt(now.Unix(), 10))
	header.Set(webhook.StandardSignatureHeader, webhook.SignStandard(id, now, text, secret, "the one before"))
	raw, err := standard.NewWebhookRaw([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := standard.NewWebhook("whsec_" + base64.StdEncoding.EncodeToString([]byte(secret)))
	if err != nil {
		t.Fatal(err)
	}
	for name, wh := range map[string]*standard.Webhook{"raw": raw, "encoded": encoded} {
		if err := wh.Verify(text, header); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := wh.Verify([]byte(`{"a":2}`), header); err == nil {
			t.Errorf("%s: another body is accepted", name)
		}
	}
}

// BenchmarkVerify is the check of a signature, without reading the event.
func BenchmarkVerify(b *testing.B) {
	for _, n := range sizes {
		text, now := body(n, 1), time.Now()
		b.Run(fmt.Sprint("ticketwire/", n), func(b *testing.B) {
			header := webhook.Sign(secret, now, text)
			b.ReportAllocs()
			for b.Loop() {
				if err := webhook.Verify(header, text, now, secret); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprint("standard-webhooks/", n), func(b *testing.B) {
			wh, err := standard.NewWebhook(secret)
			if err != nil {
				b.Fatal(err)
			}
			sig, err := wh.Sign("msg_1", now, text)
			if err != nil {
				b.Fatal(err)
			}
			h := http.Header{}
			h.Set("webhook-id", "msg_1")
			h.Set("webhook-timestamp", strconv.FormatInt(now.Unix(), 10))
			h.Set("webhook-signature", sig)
			b.ReportAllocs()
			for b.Loop() {
				if err := wh.Verify(text, h); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprint("stripe-go/", n), func(b *testing.B) {
			header := fmt.Sprintf("t=%d,v1=%x", now.Unix(), stripe.ComputeSignature(now, text, secret))
			b.ReportAllocs()
			for b.Loop() {
				if err := stripe.ValidatePayload(text, header, secret); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// party is a receiver and how its sender signs.
type party struct {
	handler http.Handler
	sign    func(h http.Header, id string, text []byte)
}

// BenchmarkReceive is a whole request. Ours checks the envelope against the
// headers and remembers the event; theirs are as their documentation has it: read
// the body, verify, decode.
func BenchmarkReceive(b *testing.B) {
	for _, n := range sizes {
		for name, p := range parties(b) {
			b.Run(fmt.Sprint(name, "/", n), func(b *testing.B) {
				i := 0
				b.ReportAllocs()
				for b.Loop() {
					b.StopTimer()
					i++
					text := body(n, i)
					r, w := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(text)), httptest.NewRecorder()
					p.sign(r.Header, fmt.Sprintf("4f0c2f5e-9b1d-4c77-9f0e-%012d", i), text)
					b.StartTimer()
					if p.handler.ServeHTTP(w, r); w.Code != http.StatusOK {
						b.Fatal(w.Code, w.Body)
					}
				}
			})
		}
	}
}

func parties(b *testing.B) map[string]party {
	b.Helper()
	wh, err := standard.NewWebhook(secret)
	if err != nil {
		b.Fatal(err)
	}
	return map[string]party{
		"ticketwire": {
			webhook.NewHandler(webhook.NewSecretList(secret).All, func(context.Context, *webhook.Envelope) error { return nil },
				webhook.WithLogger(slog.New(slog.DiscardHandler)), webhook.WithDeduper(webhook.NewMemory(0, 1000))),
			func(h http.Header, id string, text []byte) {
				h.Set(webhook.SignatureHeader, webhook.Sign(secret, time.Now(), text))
				h.Set(webhook.EventIDHeader, id)
				h.Set(webhook.EventTypeHeader, webhook.TicketCreated)
			},
		},
		"standard-webhooks": {
			receiver(func(r *http.Request, text []byte) error {
				var e webhook.Envelope
				return errors.Join(wh.Verify(text, r.Header), json.Unmarshal(text, &e))
			}),
			func(h http.Header, id string, text []byte) {
				sig, err := wh.Sign(id, time.Now(), text)
				if err != nil {
					b.Fatal(err)
				}
				h.Set("webhook-id", id)
				h.Set("webhook-timestamp", strconv.FormatInt(time.Now().Unix(), 10))
				h.Set("webhook-signature", sig)
			},
		},
		"stripe-go": {
			receiver(func(r *http.Request, text []byte) error {
				_, err := stripe.ConstructEvent(text, r.Header.Get("Stripe-Signature"), secret)
				return err
			}),
			func(h http.Header, _ string, text []byte) {
				now := time.Now()
				h.Set("Stripe-Signature", fmt.Sprintf("t=%d,v1=%x", now.Unix(), stripe.ComputeSignature(now, text, secret)))
			},
		},
	}
}

func receiver(accept func(*http.Request, []byte) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, webhook.MaxBody))
		if err == nil {
			err = accept(r, text)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
}
