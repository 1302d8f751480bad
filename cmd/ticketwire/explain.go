package main

import (
	"crypto/hmac"
	"crypto/md5"  //nolint:gosec // a scheme that others use, to recognise it
	"crypto/sha1" //nolint:gosec // a scheme that others use, to recognise it
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

// received is a webhook request as somebody has it in his hands.
type received struct {
	signature []string // lines of X-Alga-Signature
	body      []byte
	header    http.Header // the whole request's; nil where only the signature is known
	secret    string
	others    []string // secrets that it may have been signed with instead
	now       time.Time
	tolerance time.Duration
}

// cause is one thing that is wrong with a request, or that would be wrong for
// another receiver.
type cause struct {
	Name   string `json:"cause"` // stable
	Detail string `json:"detail"`
	Fix    string `json:"fix"`
}

// verdict is what verify found out.
type verdict struct {
	Valid  bool           `json:"valid"`
	Reason webhook.Reason `json:"reason"`
	Skew   int64          `json:"skew_seconds"` // the signature's time minus now
	Causes []cause        `json:"causes,omitempty"`
	Notes  []cause        `json:"notes,omitempty"` // no failure here, but of other receivers
}

// check verifies r as a receiver does.
func check(r received) verdict {
	v := webhook.Verifier{
		Secrets: func() []string { return []string{r.secret} }, Tolerance: r.tolerance,
		Now: func() time.Time { return r.now },
	}
	err := v.Verify(strings.Join(r.signature, ","), r.body)
	if err == nil && r.header != nil {
		_, err = webhook.Parse(r.header, r.body)
	}
	out := verdict{Valid: err == nil, Reason: webhook.ReasonOf(err)}
	f := readForm(r.signature)
	if sec, ok := f.seconds(); ok {
		out.Skew = sec - r.now.Unix()
	}
	return out
}

// explain is check with the causes. It tries each usual mistake, and each two of
// them together, until the signature fits.
func explain(r received) verdict {
	v := check(r)
	f := readForm(r.signature)
	if v.Valid {
		v.Notes = append(f.observations(), f.rotation(r)...)
		return v
	}
	if bad := envelopeCause(v.Reason); bad != nil {
		v.Causes = []cause{*bad}
		return v
	}
	found, fits := search(r, f)
	shape := v.Reason != webhook.SignatureMismatch && v.Reason != webhook.TimestampOutOfTolerance
	if shape {
		v.Causes, v.Notes = append(f.changes, missing(f)...), f.notes
	} else {
		v.Notes = f.observations()
	}
	v.Causes = append(v.Causes, found...)
	if c := age(v.Skew, r.tolerance); c != nil && len(f.times) > 0 {
		v.Causes = append(v.Causes, *c)
	}
	if !fits && len(f.sums) > 0 && len(f.times) > 0 {
		v.Causes = append(v.Causes, unexplained(r, f)...)
	}
	return v
}

// form is a signature header read with goodwill.
type form struct {
	times   []string
	sums    [][]byte // of any length
	changes []cause  // what a receiver refuses
	notes   []cause  // what ours accepts and others may not
}

const (
	fixHeader = "Pass the header on as it came: no proxy or framework may split, merge or rewrite it."
	fixRaw    = "Verify the raw bytes of the request before anything parses them: express.raw(), request.get_data(), io.ReadAll. Serialising again does not give the same bytes."
)

// readForm takes whatever looks like times and signatures out of a header.
func readForm(lines []string) form {
	var f form
	text := ""
	for i, line := range lines {
		if i > 0 && strings.Contains(line, "=") {
			text += ","
		}
		text += line // without a key it is the rest of the line before
	}
	change := func(next, name, detail string) {
		if next != text {
			text = next
			f.changes = append(f.changes, cause{name, detail, fixHeader})
		}
	}
	if len(lines) > 1 {
		f.changes = append(f.changes, cause{"header_split", fmt.Sprintf("The header came as %d lines.", len(lines)), fixHeader})
	}
	if s, err := url.QueryUnescape(text); err == nil && strings.Contains(strings.ToLower(text), "%3d") {
		change(s, "header_escaped", "The header is percent-encoded.")
	}
	change(regexp.MustCompile(`(?i)^\s*x-alga-signature\s*[:=]\s*`).ReplaceAllString(text, ""), "header_name_inside", "The value begins with the header's own name.")
	change(strings.NewReplacer(`"`, "", "'", "").Replace(text), "header_quoted", "The header has quotes around it.")
	if tight := regexp.MustCompile(`\s*,\s*`).ReplaceAllString(strings.TrimSpace(text), ","); tight != text {
		text = tight
		f.notes = append(f.notes, cause{"header_spaces", "The header has spaces at its commas. Receivers that cut it there and look for \"v1=\" find nothing behind a space.", fixHeader})
	}
	change(strings.Join(strings.Fields(text), ""), "header_spaces", "The header has spaces or line breaks inside its parts.")
	if !strings.Contains(text, ",") {
		change(strings.ReplaceAll(text, ";", ","), "header_separator", "The parts of the header are separated by semicolons instead of commas.")
	}
	upper := false
	for part := range strings.SplitSeq(text, ",") {
		if part == "" {
			continue
		}
		key, value, found := strings.Cut(part, "=")
		if !found {
			key, value = "v1", part // bare digits
		}
		lower := strings.ToLower(key)
		upper = upper || found && lower != key && (lower == "t" || lower == "v1")
		switch lower {
		case "t":
			f.times = append(f.times, value)
		case "v1", "sha1", "sha256", "sha512", "v0", "s", "signature":
			if value != "" {
				f.addSum(value)
			}
			if lower != "v1" || !found {
				f.changes = append(f.changes, cause{"header_scheme", fmt.Sprintf("The header has %.20q where \"v1=\" belongs: it is that of another system.", part), "The header is t=<unix seconds>,v1=<64 hex digits>."})
			}
		}
	}
	if upper {
		f.changes = append(f.changes, cause{"header_upper_case", "The keys t and v1 are written in upper case.", fixHeader})
	}
	f.oneTime()
	// A header is a few parts; each of its times and signatures costs thousands of
	// hashes.
	const most = 4
	f.times, f.sums = f.times[:min(len(f.times), most)], f.sums[:min(len(f.sums), most)]
	return f
}

// observations are what stands out in a header that was understood.
func (f *form) observations() []cause { return slices.Concat(f.changes, f.notes) }

// addSum reads a digest in hex, or in base64 by mistake.
func (f *form) addSum(value string) {
	if b, err := hex.DecodeString(value); err == nil {
		f.sums = append(f.sums, b)
		if strings.ToLower(value) != value {
			f.notes = append(f.notes, cause{"header_upper_case", "The digits of the signature are upper case. Receivers that compare texts refuse them.", "Compare bytes, or make the digits lower case; look for what changes the header on its way."})
		}
		return
	}
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		b, err := enc.DecodeString(value)
		if err != nil {
			continue
		}
		if inner, err := hex.DecodeString(string(b)); err == nil {
			b = inner
		}
		f.sums = append(f.sums, b)
		f.changes = append(f.changes, cause{"header_base64", "The signature is base64; it has to be 64 hex digits.", "Encode the HMAC's 32 bytes with hex."})
		return
	}
}

// oneTime folds a header that came twice.
func (f *form) oneTime() {
	if len(f.times) < 2 {
		return
	}
	same := len(slices.Compact(slices.Clone(f.times))) == 1
	f.changes = append(f.changes, cause{"header_duplicated", fmt.Sprintf("The header has %d times in it: it was sent or added more than once.", len(f.times)), fixHeader})
	if same {
		f.times = f.times[:1]
	}
}

// seconds returns the first time as unix seconds, of milliseconds too.
func (f *form) seconds() (int64, bool) {
	if len(f.times) == 0 {
		return 0, false
	}
	if t, err := time.Parse(time.RFC3339Nano, f.times[0]); err == nil {
		return t.Unix(), true
	}
	n, err := strconv.ParseInt(f.times[0], 10, 64)
	if n > 1e11 {
		n /= 1000
	}
	return n, err == nil
}

// rotation notes that a header has the signatures of two secrets.
func (f *form) rotation(r received) []cause {
	if len(f.sums) < 2 || len(f.times) != 1 {
		return nil
	}
	var fit []string
	for i, s := range f.sums {
		if hmac.Equal(s, digest(sha256.New, []byte(r.secret), []byte(f.times[0]+"."), r.body)) {
			fit = append(fit, strconv.Itoa(i+1))
		}
	}
	return []cause{{
		"rotation", fmt.Sprintf("The header has %d signatures, of an old and a new secret: a rotation is in its grace period. Yours fits number %s. A receiver that looks at one of them alone may see another one.", len(f.sums), strings.Join(fit, " and ")),
		"Accept the request when any v1 fits, and change to the new secret before the grace period ends.",
	}}
}

func missing(f form) []cause {
	switch {
	case len(f.times) == 0 && len(f.sums) == 0:
		return []cause{{"header_missing", "There is no signature in the header.", "Pass X-Alga-Signature on; proxies and serverless gateways drop headers that they do not know."}}
	case len(f.times) == 0:
		return []cause{{"header_cut", "The header has a signature and no time (t=): it was cut at its comma, or a proxy kept one part of it.", fixHeader}}
	case len(f.sums) == 0:
		return []cause{{"header_cut", "The header has a time and no signature (v1=): it was cut at its comma, or a proxy kept one part of it.", fixHeader}}
	}
	return nil
}

func envelopeCause(r webhook.Reason) *cause {
	switch r {
	case webhook.EventIDMismatch, webhook.EventTypeMismatch, webhook.MissingEventID:
		return &cause{"envelope_headers", "The signature is right. X-Alga-Event-Id or X-Alga-Event-Type does not repeat what the body says; these headers are not signed.", "Believe the body. A request whose headers were changed may be a replay under a new id: refuse it."}
	case webhook.MalformedJSON, webhook.MalformedEnvelope:
		return &cause{"envelope", "The signature is right, and the body is not an envelope of ticket events.", "The body needs event_id, event_type, occurred_at and an object data."}
	}
	return nil
}

// age says what a time outside of the tolerance means.
func age(skew int64, tolerance time.Duration) *cause {
	off := time.Duration(skew) * time.Second
	if off.Abs() <= tolerance || skew > 1e9 || skew < -1e9 {
		return nil
	}
	c := &cause{"timestamp_old", fmt.Sprintf("The signature is %s old; receivers accept %s.", -off, tolerance), "A request from a log or a queue is judged with --at, as of when it came. Live requests that are all off by the same time mean a wrong clock: set this machine's by NTP."}
	if skew > 0 {
		c = &cause{"timestamp_future", fmt.Sprintf("The signature's time is %s ahead of the clock here; receivers accept %s.", off, tolerance), "One of the two clocks is wrong: set this machine's by NTP."}
	}
	if rest := off.Abs().Round(30 * time.Minute); (off.Abs()-rest).Abs() < 2*time.Minute && rest >= 30*time.Minute {
		c.Detail += " That is about a whole number of half hours: a local time was taken for UTC, perhaps."
	}
	return c
}

var generated = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

// unexplained is the last resort: no mistake that is known makes the signature
// fit.
func unexplained(r received, f form) []cause {
	if n := len(f.sums[0]); n != sha256.Size {
		name := map[int]string{md5.Size: "MD5", sha1.Size: "SHA-1", sha512.Size384: "SHA-384", sha512.Size: "SHA-512"}[n]
		if name == "" {
			return []cause{{"header_cut", fmt.Sprintf("The signature has %d hex digits and needs 64: it was cut, or is of another scheme.", 2*n), fixHeader}}
		}
		return []cause{{"algorithm", fmt.Sprintf("The signature has %d hex digits, as %s has; it has to be HMAC-SHA256, 64 digits.", 2*n, name), "Sign with HMAC-SHA256."}}
	}
	if len(r.body) == 0 {
		return []cause{{"body_empty", "The body is empty: a middleware has read it, most likely.", fixRaw}}
	}
	detail := "No usual mistake makes the signature fit: this is another secret, or the body was altered."
	if !generated.MatchString(r.secret) {
		detail += fmt.Sprintf(" The secret has %d characters; those that the service makes have 43 of A-Z, a-z, 0-9, - and _.", len(r.secret))
	}
	if len(f.sums) > 1 {
		detail += " The header has the signatures of two secrets, because a rotation is under way, and yours is neither."
	}
	return []cause{{"wrong_secret", detail, "Compare with the secret that was shown when the webhook was made or last rotated. Webhooks, tenants and environments have one each; give the others with --other-secret to have them tried."}}
}

// digest is the HMAC of the parts.
func digest(h func() hash.Hash, key []byte, parts ...[]byte) []byte {
	m := hmac.New(h, key)
	for _, p := range parts {
		m.Write(p) // a hash never returns an error
	}
	return m.Sum(nil)
}
