package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/webhook"
)

// What the commands of the developer's desk share: sign, verify, trigger and
// listen make or judge a webhook request without a server.

// secretFlags name a signing secret.
type secretFlags struct {
	Secret     string `help:"Signing secret; better given as TICKETWIRE_SECRET, where other users cannot see it." placeholder:"SECRET"`
	SecretFile string `help:"File with the signing secret, taken before --secret; line breaks at its end are dropped." placeholder:"FILE"`
}

// given returns the secret, or "" where there is none.
func (f secretFlags) given() (string, error) {
	if f.SecretFile == "" {
		return f.Secret, nil
	}
	text, err := os.ReadFile(f.SecretFile)
	if err != nil {
		return "", usageError{fmt.Errorf("--secret-file: %w", err), ""}
	}
	secret := strings.TrimRight(string(text), "\r\n")
	if secret == "" {
		return "", usageError{fmt.Errorf("--secret-file: %s is empty", f.SecretFile), ""}
	}
	return secret, nil
}

// required is given for commands that cannot do without.
func (f secretFlags) required() (string, error) {
	secret, err := f.given()
	if err == nil && secret == "" {
		err = usageError{errors.New("a signing secret is needed"), "TICKETWIRE_SECRET=... ticketwire ..., --secret or --secret-file"}
	}
	return secret, err
}

// parseMoment reads a time of a flag: how long ago (2h), a date and time, or
// unix seconds.
func parseMoment(flag, text string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil {
		return now.Add(-ago), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	if unix, err := strconv.ParseInt(text, 10, 64); err == nil && unix >= 0 && unix < 1e12 {
		return time.Unix(unix, 0), nil
	}
	return time.Time{}, usageError{
		fmt.Errorf("%s: %q is no time", flag, text),
		flag + " 2h, " + flag + " 2027-01-31T08:00:00Z or " + flag + " 1700000000",
	}
}

// identify fills in what the headers say about the event in body. What is not an
// envelope leaves them out.
func identify(d *delivery.Delivery, body []byte) (isEnvelope bool) {
	var e webhook.Envelope
	if json.Unmarshal(body, &e) != nil || e.EventID == "" || e.EventType == "" {
		return false
	}
	d.EventID, d.EventType = e.EventID, e.EventType
	return true
}

// printable keeps text of others from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}
