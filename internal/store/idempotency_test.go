package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

func TestIdempotency(t *testing.T) {
	t.Parallel()
	exercise(t, map[string]func(*testing.T, opener){
		"the first answer is kept":              firstAnswer,
		"of many at once one writes":            manyAtOnce,
		"a failed call keeps nothing":           failedCall,
		"an answer counts for a day":            answerExpires,
		"keys belong to caller and route":       keyScope,
		"an answer that is known later is kept": laterAnswer,
	})
}

// idempotency is a key whose answer is the number of the ticket.
func idempotency(d *desk, key, fingerprint string) *Idempotency {
	return &Idempotency{
		TenantID: d.TenantID, KeyID: "api-key", Key: key, Route: "POST /api/v1/tickets", Fingerprint: fingerprint, Now: start(),
		Render: func(v any) (int, []byte, error) {
			tk, ok := v.(ticket.Ticket)
			if !ok {
				return 0, nil, fmt.Errorf("render %T", v)
			}
			return 201, []byte(tk.Number), nil
		},
	}
}

// tickets counts the tenant's tickets.
func (d *desk) tickets() int {
	d.t.Helper()
	_, n, err := d.Tickets(context.Background(), d.TenantID, ticket.Query{Page: 1, Limit: 1})
	if err != nil {
		d.t.Fatal(err)
	}
	return n
}

func firstAnswer(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	i := idempotency(d, "k", "body")
	if _, _, found, err := d.Answer(t.Context(), i); found || err != nil {
		t.Fatalf("answered before the call: %v %v", found, err)
	}
	ctx := WithIdempotency(t.Context(), i)
	tk := must(d.CreateTicket(ctx, start(), d.Actor, d.draft("one")))(t)
	code, body, found, err := d.Answer(t.Context(), i)
	if code != 201 || string(body) != tk.Number || !found || err != nil {
		t.Errorf("answer %d %s %v %v", code, body, found, err)
	}
	_, err = d.CreateTicket(ctx, start(), d.Actor, d.draft("two"))
	if !errors.Is(err, ErrAnswered) || fault.KindOf(err) != fault.Conflict {
		t.Errorf("second call: %v", err)
	}
	if n := d.tickets(); n != 1 {
		t.Errorf("%d tickets", n)
	}
	_, _, _, err = d.Answer(t.Context(), idempotency(d, "k", "another body"))
	wantKind(t, "another body", err, fault.Conflict)
}

func manyAtOnce(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	var wg sync.WaitGroup
	var mu sync.Mutex
	wrote := 0
	for n := range 20 {
		wg.Go(func() {
			_, err := d.CreateTicket(WithIdempotency(context.Background(), idempotency(d, "k", "body")), start(), d.Actor, d.draft(fmt.Sprint(n)))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				wrote++
			} else if !errors.Is(err, ErrAnswered) {
				t.Error(err)
			}
		})
		// Calls without a key share commits with them and must not suffer.
		wg.Go(func() {
			if _, err := d.CreateTicket(context.Background(), start(), d.Actor, d.draft("free")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := d.tickets(); wrote != 1 || n != 21 {
		t.Errorf("%d calls wrote, %d tickets; want 1 and 21", wrote, n)
	}
}

func failedCall(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	i := idempotency(d, "k", "body")
	bad := d.draft("")
	if _, err := d.CreateTicket(WithIdempotency(t.Context(), i), start(), d.Actor, bad); err == nil {
		t.Fatal("a ticket without a title")
	}
	i.Render = func(any) (int, []byte, error) { return 0, nil, errors.New("cannot render") }
	if _, err := d.CreateTicket(WithIdempotency(t.Context(), i), start(), d.Actor, d.draft("one")); err == nil {
		t.Error("no error of the rendering")
	}
	if _, _, found, err := d.Answer(t.Context(), i); found || err != nil {
		t.Errorf("a failed call is answered: %v %v", found, err)
	}
	if n := d.tickets(); n != 0 {
		t.Errorf("%d tickets", n)
	}
}

func answerExpires(t *testing.T, open opener) {
	d := newDesk(t, open(t), "acme")
	i := idempotency(d, "k", "body")
	first := must(d.CreateTicket(WithIdempotency(t.Context(), i), start(), d.Actor, d.draft("one")))(t)
	i.Now = start().Add(24*time.Hour - time.Microsecond)
	if _, body, found, _ := d.Answer(t.Context(), i); !found || string(body) != first.Number {
		t.Error("forgotten within a day")
	}
	i.Now, i.Fingerprint = start().Add(24*time.Hour), "another body"
	if _, _, found, err := d.Answer(t.Context(), i); found || err != nil {
		t.Errorf("still answered after a day: %v %v", found, err)
	}
	second := must(d.CreateTicket(WithIdempotency(t.Context(), i), start(), d.Actor, d.draft("two")))(t)
	if _, body, found, err := d.Answer(t.Context(), i); !found || string(body) != second.Number || err != nil {
		t.Errorf("answer %s %v %v", body, found, err)
	}
}

func keyScope(t *testing.T, open opener) {
	s := open(t)
	d, other := newDesk(t, s, "acme"), newDesk(t, s, "other")
	i := idempotency(d, "k", "body")
	must(d.CreateTicket(WithIdempotency(t.Context(), i), start(), d.Actor, d.draft("one")))(t)
	for name, change := range map[string]func(*Idempotency){
		"tenant": func(i *Idempotency) { i.TenantID = other.TenantID },
		"caller": func(i *Idempotency) { i.KeyID = "another" },
		"route":  func(i *Idempotency) { i.Route = "POST /api/v1/webhooks" },
		"key":    func(i *Idempotency) { i.Key = "K" },
	} {
		j := idempotency(d, "k", "body")
		change(j)
		if _, _, found, err := s.Answer(t.Context(), j); found || err != nil {
			t.Errorf("another %s is answered: %v %v", name, found, err)
		}
	}
}

func laterAnswer(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	i := idempotency(d, "k", "body")
	i.Render = func(v any) (int, []byte, error) { return 200, []byte(v.(string)), nil }
	ctx := WithIdempotency(t.Context(), i)
	must(d.BeginTest(ctx, start(), d.TenantID, l.hook.WebhookID, "a", lease))(t)
	if err := d.KeepAnswer(ctx, "sent"); err != nil {
		t.Fatal(err)
	}
	if code, body, found, err := d.Answer(t.Context(), i); code != 200 || string(body) != "sent" || !found || err != nil {
		t.Errorf("answer %d %s %v %v", code, body, found, err)
	}
	if err := d.KeepAnswer(ctx, "again"); !errors.Is(err, ErrAnswered) {
		t.Errorf("kept twice: %v", err)
	}
	if err := d.KeepAnswer(t.Context(), "no key"); err != nil {
		t.Error(err)
	}
}
