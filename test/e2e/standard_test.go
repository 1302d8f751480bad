package e2e

import (
	"strconv"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

// Whoever asks for the headers of Standard Webhooks gets them, nobody else.
func TestStandardWebhooks(t *testing.T) {
	t.Parallel()
	for _, on := range []bool{true, false} {
		d := openDesk(t, "--standard-webhooks="+strconv.FormatBool(on))
		r := receive(t, nil)
		h := d.subscribe(t, r.url, nil, "ticket.created")
		d.newTicket(t, "Signed twice")
		got := r.await(t, "the event arrives", count(1))[0]
		sent, err := strconv.ParseInt(got.header.Get("webhook-timestamp"), 10, 64)
		want := ""
		if on {
			want = webhook.SignStandard(got.header.Get("webhook-id"), time.Unix(sent, 0), got.body, h.Secret)
		}
		if signature := got.header.Get("webhook-signature"); signature != want || (err == nil) != on || on && got.header.Get("webhook-id") != got.eventID {
			t.Errorf("asked for: %t, sent %v", on, got.header)
		}
	}
}
