package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/test/alga"
)

// algaKey is where a script keeps its stand-in for AlgaPSA.
type algaKey struct{}

// algaDesk is the script command alga: start STATE makes a stand-in and sets the
// variables of our commands to it, create TITLE and retitle ID TITLE change its
// tickets, subscribe URL sets $WEBHOOK and $TICKETWIRE_SECRET, and request N FILE
// writes its N-th delivery as it was sent.
func algaDesk(t *testing.T) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) < 2 {
			ts.Fatalf("usage: alga start|create|retitle|subscribe|request ARGS")
		}
		desk := ts.Value(algaKey{}).(**alga.Server)
		switch args[0] {
		case "start":
			state := map[string]alga.WebhookAPI{"forbidden": alga.Forbidden, "broken": alga.Broken, "documented": alga.Documented}
			*desk = alga.Start(t, alga.Config{Webhooks: state[args[1]], Compress: 100})
			ts.Setenv("TICKETWIRE_URL", (*desk).URL)
			ts.Setenv("TICKETWIRE_API_KEY", alga.Key)
			for name, id := range map[string]string{
				"BOARD": alga.BoardID, "CLIENT": alga.ClientID, "OPEN": alga.Open, "CLOSED": alga.Closed, "HIGH": alga.High, "USER": alga.Mara,
			} {
				ts.Setenv(name, id)
			}
		case "create":
			fmt.Fprintln(ts.Stdout(), (*desk).Create(args[1]))
		case "retitle":
			(*desk).Update(alga.WebUI, alga.Change{Title: &args[2]}, args[1])
		case "subscribe":
			id, secret := (*desk).Subscribe(args[1], 0)
			ts.Setenv("WEBHOOK", id)
			ts.Setenv("TICKETWIRE_SECRET", secret)
		case "request":
			var n int
			_, err := fmt.Sscan(args[1], &n)
			ts.Check(err)
			d := (*desk).Deliveries()[n-1]
			var b bytes.Buffer
			fmt.Fprintf(&b, "POST /hook HTTP/1.1\r\nHost: receiver.example\r\nContent-Length: %d\r\n", len(d.Body))
			ts.Check(d.Header.Write(&b))
			fmt.Fprintf(&b, "\r\n%s", d.Body)
			ts.Check(os.WriteFile(ts.MkAbs(args[2]), b.Bytes(), 0o600))
		}
	}
}

func TestWebhookState(t *testing.T) {
	t.Parallel()
	at := time.Now()
	for want, w := range map[string]client.Webhook{
		"active":               {IsActive: true},
		"disabled":             {},
		"disabled by failures": {AutoDisabledAt: &at},
		// AlgaPSA, after it was switched on again.
		"active ": {IsActive: true, AutoDisabledAt: &at},
	} {
		for _, c := range webhookColumns() {
			if got := c.cell(&w); c.head == "STATE" && got != strings.TrimSpace(want) {
				t.Errorf("%+v is %q, want %q", w, got, want)
			}
		}
	}
}
