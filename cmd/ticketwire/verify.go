package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

type verifyCmd struct {
	secretFlags
	File        string        `arg:"" optional:"" help:"File with the body, or with --request the whole request; standard input if it is missing or -." default:"-"`
	Signature   []string      `help:"Value of the X-Alga-Signature header; repeat it for a header that came in several lines." sep:"none" placeholder:"HEADER" xor:"header"`
	Request     bool          `help:"The file is a whole HTTP request: request line, headers, empty line, body." xor:"header"`
	Explain     bool          `help:"Name the cause when the request is not valid."`
	OtherSecret []string      `help:"With --explain, a secret that it may have been signed with instead: the one before or after a rotation, another webhook's. Repeat it." sep:"none" placeholder:"SECRET"`
	At          string        `help:"Judge as of this time: how long ago (10m), a date and time, or unix seconds. Default: now." placeholder:"TIME"`
	Tolerance   time.Duration `help:"How far the signature's time may be from that, either way." default:"5m"`
	JSON        bool          `name:"json" help:"Print one JSON object."`
}

// Help is shown below the flags.
func (verifyCmd) Help() string {
	return `Judges a request as a receiver does: valid is exit code 0, anything else 1. With
--explain it tries what usually goes wrong, and says which of it makes the signature
fit: a body that was parsed and serialised again, a secret with a line break, a header
that a proxy changed, a wrong clock, another algorithm.

Examples:
  export TICKETWIRE_SECRET=...
  ticketwire verify body.json --signature "t=1700000000,v1=..." --explain
  ticketwire verify --request captured.http --explain --at 2027-01-31T08:00:00Z
  ticketwire verify --request captured.http --other-secret "$OLD_SECRET" --explain --json`
}

// Run judges the request.
func (c *verifyCmd) Run(t terminal) error {
	r, notes, err := c.received()
	if err != nil {
		return err
	}
	v := check(r)
	if c.Explain {
		v = explain(r)
		v.Notes = append(v.Notes, notes...)
	}
	if c.JSON {
		err = printJSON(t.out, v)
	} else {
		err = v.print(t.out)
	}
	if err == nil && !v.Valid {
		err = fmt.Errorf("the request is not valid: %w", v.Reason)
	}
	return err
}

func (v verdict) print(out io.Writer) error {
	var b strings.Builder
	if v.Valid {
		fmt.Fprintln(&b, "valid")
	} else {
		fmt.Fprintf(&b, "invalid: %s\n", v.Reason)
	}
	for _, group := range []struct {
		title  string
		causes []cause
	}{{"Cause", v.Causes}, {"Note", v.Notes}} {
		for _, c := range group.causes {
			fmt.Fprintf(&b, "\n%-6s %s: %s\n%-6s %s\n", group.title+":", c.Name, printable(c.Detail), "Fix:", c.Fix)
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// received collects what the flags and files say. The notes are about things
// that the request itself no longer shows.
func (c *verifyCmd) received() (r received, notes []cause, err error) {
	if r.secret, err = c.required(); err != nil {
		return r, nil, err
	}
	if !c.Request && len(c.Signature) == 0 {
		return r, nil, usageError{errors.New("the signature header is needed"), "--signature \"t=...,v1=...\", or --request with a file that has the whole request"}
	}
	if c.Tolerance < time.Second {
		return r, nil, usageError{errors.New("--tolerance must be a second or more"), "--tolerance 5m"}
	}
	r.now = time.Now()
	if c.At != "" {
		if r.now, err = parseMoment("--at", c.At, r.now); err != nil {
			return r, nil, err
		}
	}
	r.tolerance, r.others = c.Tolerance, c.OtherSecret
	notes = c.secretNotes()
	text, err := readInput(c.File)
	if err != nil {
		return r, nil, err
	}
	if !c.Request {
		r.signature, r.body = c.Signature, text
		return r, notes, nil
	}
	header, body, more, err := parseRequest(text)
	if err != nil {
		return r, nil, usageError{fmt.Errorf("--request: %w", err), "the file begins like: POST /webhooks/alga HTTP/1.1"}
	}
	r.signature, r.header, r.body = header.Values(webhook.SignatureHeader), header, body
	return r, append(notes, more...), nil
}

// secretNotes tells of line breaks that were dropped here and that the
// receiver's own program may keep.
func (c *verifyCmd) secretNotes() []cause {
	if c.SecretFile == "" {
		return nil
	}
	text, err := os.ReadFile(c.SecretFile)
	if err != nil || !bytes.HasSuffix(text, []byte("\n")) {
		return nil
	}
	return []cause{{"secret_file", "The file with the secret ends with a line break, which was dropped here.", "A program that reads the file has to drop it too."}}
}

// parseRequest reads a request as it was captured: line ends may be LF, and
// Content-Length may be missing or wrong, which is a note.
func parseRequest(text []byte) (header http.Header, body []byte, notes []cause, err error) {
	in := textproto.NewReader(bufio.NewReader(bytes.NewReader(text)))
	first, err := in.ReadLine()
	if err != nil || len(strings.Fields(first)) < 2 || strings.HasSuffix(strings.Fields(first)[0], ":") {
		return nil, nil, nil, errors.New("there is no request line")
	}
	fields, err := in.ReadMIMEHeader()
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, nil, fmt.Errorf("headers: %w", err)
	}
	header = http.Header(fields)
	rest := io.Reader(in.R)
	if strings.EqualFold(header.Get("Transfer-Encoding"), "chunked") {
		rest = httputil.NewChunkedReader(rest)
	}
	if body, err = io.ReadAll(rest); err != nil {
		return nil, nil, nil, fmt.Errorf("body: %w", err)
	}
	if n, err := strconv.Atoi(header.Get("Content-Length")); err == nil && n >= 0 {
		switch {
		case n < len(body):
			body = body[:n] // an editor's line break, or the next request
		case n > len(body):
			notes = append(notes, cause{"body_cut", fmt.Sprintf("Content-Length is %d and the body has %d bytes.", n, len(body)), "Capture the whole body; line ends that were converted change its length too."})
		}
	}
	if strings.EqualFold(header.Get("Content-Encoding"), "gzip") {
		if z, err := gzip.NewReader(bytes.NewReader(body)); err == nil {
			if plain, err := io.ReadAll(io.LimitReader(z, webhook.MaxBody)); err == nil {
				notes = append(notes, cause{"body_compressed", "The body was compressed on its way; it was unpacked here.", "Unpack before verifying: the signature covers the body that the service sent, which is not compressed."})
				body = plain
			}
		}
	}
	return header, body, notes, nil
}
