package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/egress"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/webhook"
)

// madeWebhook is the X-Alga-Webhook-Id of requests that no webhook is behind.
const madeWebhook = "7d0e1f2a-3b4c-4d5e-8f60-718293a4b5c6"

// sender sends requests to one receiver as the service would send them.
type sender struct {
	client   *egress.Client
	target   string
	timeout  time.Duration
	insecure bool // any certificate will do
}

// receiverFlags say how a receiver is called.
type receiverFlags struct {
	Timeout  time.Duration `help:"Limit for a whole exchange with the receiver." default:"10s"`
	Insecure bool          `help:"Accept any certificate of the receiver."`
}

// sender returns a sender to target. Close it. Every address is allowed, because
// the receiver is named by whoever runs the command.
func (f receiverFlags) sender(flag, target string) (*sender, error) {
	u, err := url.Parse(target)
	hint := flag + " http://localhost:3000/webhooks/alga"
	switch {
	case err == nil && u.User != nil, err != nil && strings.Contains(target, "@"):
		// It would be refused at every request, see egress.Config.CheckURL.
		return nil, usageError{fmt.Errorf("%s must not contain a user name or password", flag), hint}
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, usageError{fmt.Errorf("%s: %q is not an http or https URL", flag, target), hint}
	}
	if f.Timeout <= 0 {
		return nil, usageError{errors.New("--timeout must be positive"), "--timeout 10s"}
	}
	return &sender{
		client: egress.New(egress.Config{
			AllowTargets: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")},
			UserAgent:    "Ticketwire/" + version(),
		}),
		target: target, timeout: f.Timeout, insecure: f.Insecure,
	}, nil
}

// post sends body once with the signature and returns the receiver's answer.
func (s *sender) post(ctx context.Context, body []byte, attempt int, signature string) delivery.Answer {
	d := delivery.Delivery{WebhookID: madeWebhook, DeliveryID: store.NewID(), Attempt: attempt}
	identify(&d, body)
	header := http.Header{webhook.SignatureHeader: {signature}}
	for name, value := range d.Headers {
		header[name] = []string{value}
	}
	return s.client.Do(ctx, egress.Request{
		Method: http.MethodPost, URL: s.target, Header: header, Body: body, VerifySSL: !s.insecure, Timeout: s.timeout,
	})
}

// outcome says in a few words what a receiver answered.
func outcome(a delivery.Answer) string {
	if a.StatusCode == 0 {
		return printable(a.Message)
	}
	text := strconv.Itoa(a.StatusCode)
	if a.OK() {
		return text
	}
	if a.StatusCode < 300 { // the status was good and the rest did not arrive
		return text + " " + printable(a.Message)
	}
	if body := strings.Join(strings.Fields(printable(a.Body)), " "); body != "" {
		const most = 120
		if r := []rune(body); len(r) > most {
			body = string(r[:most]) + "..."
		}
		text += " " + body
	}
	return text
}
