package webhook_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

func ExampleSign() {
	header := webhook.Sign("shh", time.Unix(1700000000, 0), []byte(`{"a":1}`))
	fmt.Println(header)
	// Output: t=1700000000,v1=be310eac0f84daf469d630347a950258de768b365563ab68f29f2f783473d547
}

func ExampleVerify() {
	body := []byte(`{"a":1}`)
	sent := time.Unix(1700000000, 0)
	header := webhook.Sign("shh", sent, body)

	fmt.Println(webhook.Verify(header, body, sent, "shh"))
	err := webhook.Verify(header, body, sent.Add(6*time.Minute), "shh")
	fmt.Println(errors.Is(err, webhook.TimestampOutOfTolerance), err)
	// Output:
	// <nil>
	// true webhook signature: timestamp_out_of_tolerance (off by -6m0s)
}

// A rotation without a failed delivery: the receiver accepts both secrets
// before the sender changes over, and drops the old one afterwards.
func ExampleSecretList() {
	now, body := time.Unix(1700000000, 0), []byte(`{"a":1}`)
	secrets := webhook.NewSecretList("old", "new")
	v := webhook.Verifier{Secrets: secrets.All, Now: func() time.Time { return now }}

	fmt.Println(v.Verify(webhook.Sign("old", now, body), body))
	secrets.Set("new")
	fmt.Println(v.Verify(webhook.Sign("old", now, body), body))
	fmt.Println(v.Verify(webhook.Sign("new", now, body), body))
	// Output:
	// <nil>
	// webhook signature: signature_mismatch
	// <nil>
}

func ExampleNewHandler() {
	const secret = "the signing secret that creating the webhook returned"
	handler := webhook.NewHandler(webhook.NewSecretList(secret).All,
		func(ctx context.Context, e *webhook.Envelope) error {
			t, err := e.Ticket()
			if err != nil {
				return err
			}
			fmt.Println(e.EventType, *t.TicketNumber, *t.Title)
			return nil
		})
	receiver := httptest.NewServer(handler)
	defer receiver.Close()

	// What the sender does. The second delivery is a retry: it does not react.
	body := []byte(`{"event_id":"4f0c2f5e-9b1d-4c77-9f0e-000000000001","event_type":"ticket.created",` +
		`"occurred_at":"2026-03-09T08:14:02.140Z","tenant_id":"7c1d2f0a-5b64-4e0e-9a3b-2f6d8c41e7b5",` +
		`"data":{"ticket_id":"e2a94b77-6f10-4c58-8d3e-90b1c2d3e4f5","ticket_number":"TKT-1042","title":"Label printer offline"}}`)
	for range 2 {
		req, err := http.NewRequest(http.MethodPost, receiver.URL, bytes.NewReader(body))
		if err != nil {
			fmt.Println(err)
			return
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set(webhook.SignatureHeader, webhook.Sign(secret, time.Now(), body))
		req.Header.Set(webhook.EventIDHeader, "4f0c2f5e-9b1d-4c77-9f0e-000000000001")
		req.Header.Set(webhook.EventTypeHeader, webhook.TicketCreated)
		res, err := receiver.Client().Do(req)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(res.Status)
		res.Body.Close()
	}
	// Output:
	// ticket.created TKT-1042 Label printer offline
	// 200 OK
	// 200 OK
}

func ExampleVerifier_Middleware() {
	v := &webhook.Verifier{Secrets: webhook.NewSecretList("shh").All}
	handler := v.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e, _ := webhook.FromContext(r.Context())
		fmt.Println(e.EventType)
		w.WriteHeader(http.StatusOK)
	}))

	body := []byte(`{"event_id":"1","event_type":"webhook.test","occurred_at":"2026-03-09T07:59:00.000Z","tenant_id":"2","data":{}}`)
	req := httptest.NewRequest(http.MethodPost, "/webhooks/alga", bytes.NewReader(body))
	req.Header.Set(webhook.SignatureHeader, webhook.Sign("shh", time.Now(), body))
	req.Header.Set(webhook.EventIDHeader, "1")
	req.Header.Set(webhook.EventTypeHeader, webhook.Test)
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, req)
	fmt.Println(w.Code)
	// Output:
	// webhook.test
	// 200
}

// Secrets in a file, one per line, can be rotated without a restart.
func ExampleOpenSecretFile() {
	path := filepath.Join(os.TempDir(), "webhook-secrets-example")
	defer os.Remove(path)
	if err := os.WriteFile(path, []byte("# 2026\nthe new secret\nthe old secret\n"), 0o600); err != nil {
		fmt.Println(err)
		return
	}
	secrets, err := webhook.OpenSecretFile(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = webhook.NewHandler(secrets.All, func(context.Context, *webhook.Envelope) error { return nil })
	fmt.Println(len(secrets.All()), secrets.Err())
	// Output: 2 <nil>
}

// The reaction gets the ticket as it is now when the payload may be older than
// its event. With the client package, get is
//
//	func(ctx context.Context, id string) (*client.Ticket, error) {
//		t, err := api.Ticket(ctx, id)
//		if e, ok := errors.AsType[*client.Error](err); ok && e.Status == http.StatusNotFound {
//			return nil, nil
//		}
//		return t, err
//	}
func ExampleRefetch() {
	type ticket struct{ Status string }
	react := webhook.Refetch(webhook.OldPayload(5*time.Second),
		func(_ context.Context, id string) (*ticket, error) { return &ticket{Status: "Closed"}, nil },
		func(_ context.Context, e *webhook.Envelope, current *ticket) error {
			d, err := e.Ticket()
			if err != nil {
				return err
			}
			status := *d.StatusName
			if current != nil {
				status = current.Status
			}
			fmt.Println(e.EventType, "sent", *d.StatusName, "is", status)
			return nil
		})
	e := &webhook.Envelope{
		EventID: "1", EventType: webhook.TicketClosed, OccurredAt: webhook.At(time.Date(2026, 3, 9, 8, 15, 0, 0, time.UTC)),
		Data: []byte(`{"ticket_id":"e2a94b77-6f10-4c58-8d3e-90b1c2d3e4f5","status_name":"Open","updated_at":"2026-03-09T08:14:10.000Z"}`),
	}
	fmt.Println(react(context.Background(), e))
	// Output:
	// ticket.closed sent Open is Closed
	// <nil>
}
