package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/webhook"
)

type signCmd struct {
	secretFlags
	File      string `arg:"" optional:"" help:"File with the body; standard input if it is missing or -." default:"-"`
	At        string `help:"Sign as of this time: how long ago (10m), a date and time, or unix seconds. Default: now." placeholder:"TIME"`
	Headers   bool   `help:"Print every header of the request, not the signature alone." xor:"form"`
	Curl      string `help:"Print a curl command that sends the request to this URL." placeholder:"URL" xor:"form"`
	WebhookID string `name:"webhook-id" help:"For X-Alga-Webhook-Id. Default: a new id." placeholder:"ID"`
	Attempt   int    `help:"For X-Alga-Delivery-Attempt." default:"1"`
	JSON      bool   `name:"json" help:"Print one JSON object with every header." xor:"form"`
}

// Help is shown below the flags.
func (signCmd) Help() string {
	return `Prints the value of X-Alga-Signature for the bytes of a body, exactly as they are: a
line break at the end of a file is signed too.

Examples:
  export TICKETWIRE_SECRET=...
  ticketwire sign event.json
  printf '{"a":1}' | ticketwire sign --at 1700000000
  ticketwire sign event.json --curl http://localhost:3000/webhooks/alga | sh`
}

// Run signs the body.
func (c *signCmd) Run(t terminal) error {
	secret, err := c.required()
	if err != nil {
		return err
	}
	at := time.Now()
	if c.At != "" {
		if at, err = parseMoment("--at", c.At, at); err != nil {
			return err
		}
	}
	body, err := readInput(c.File)
	if err != nil {
		return err
	}
	d := delivery.Delivery{WebhookID: c.WebhookID, DeliveryID: store.NewID(), Attempt: c.Attempt}
	if d.WebhookID == "" {
		d.WebhookID = store.NewID()
	}
	isEnvelope := identify(&d, body)
	signature := webhook.Sign(secret, at, body)
	if !c.Headers && c.Curl == "" && !c.JSON {
		_, err = fmt.Fprintln(t.out, signature)
		return err
	}
	if !isEnvelope {
		fmt.Fprintln(t.err, "The body is no envelope with event_id and event_type: the headers that repeat them are left out.")
	}
	headers := [][2]string{{webhook.SignatureHeader, signature}}
	for name, value := range d.Headers {
		if value != "" {
			headers = append(headers, [2]string{name, value})
		}
	}
	return c.print(t.out, headers, body)
}

func (c *signCmd) print(out io.Writer, headers [][2]string, body []byte) error {
	if c.JSON {
		object := make(map[string]string, len(headers))
		for _, h := range headers {
			object[h[0]] = h[1]
		}
		return printJSON(out, object)
	}
	var b strings.Builder
	if c.Curl == "" {
		for _, h := range headers {
			fmt.Fprintf(&b, "%s: %s\n", h[0], h[1])
		}
	} else {
		fmt.Fprintf(&b, "curl -sS -X POST %s", shellQuote(c.Curl))
		for _, h := range headers {
			fmt.Fprintf(&b, " \\\n  -H %s", shellQuote(h[0]+": "+h[1]))
		}
		data := "--data-raw " + shellQuote(string(body))
		if c.File != "-" {
			data = "--data-binary " + shellQuote("@"+c.File)
		}
		fmt.Fprintf(&b, " \\\n  %s\n", data)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// readInput reads a file, or standard input for "-". What is larger than a
// receiver reads is refused.
func readInput(name string) ([]byte, error) {
	in := io.Reader(os.Stdin)
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, usageError{err, ""}
		}
		defer f.Close()
		in = f
	}
	body, err := io.ReadAll(io.LimitReader(in, webhook.MaxBody+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", name, err)
	case len(body) > webhook.MaxBody:
		return nil, usageError{fmt.Errorf("%s is larger than the %d bytes that a receiver reads", name, webhook.MaxBody), ""}
	}
	return body, nil
}

// shellQuote makes one word of s for a POSIX shell.
func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
