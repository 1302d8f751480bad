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
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

// A signature is made of a key, a time, a body and a scheme. Each has the form
// that is right and those of usual mistakes; search looks for the fewest
// mistakes that make the signature fit.

// key is a form of the secret.
type key struct {
	bytes []byte
	cause *cause // nil for the secret as it was given
}

// signedTime is a form of the time.
type signedTime struct {
	text  string
	cause *cause
}

// scheme computes a signature.
type scheme struct {
	sum   func(key []byte, t string, body []byte) []byte
	cause *cause // nil for the right one
}

// pairsUpTo bounds the bodies for which two mistakes are tried together, because
// that is some thousand hashes of the body.
const pairsUpTo = 64 << 10

// search returns what is wrong, apart from the header's form and its age, and
// whether the signature then fits.
func search(r received, f form) ([]cause, bool) {
	if len(f.sums) == 0 {
		return nil, false
	}
	keys, times, bodies, schemes := keyForms(r), timeForms(f), spellings(r.body), schemesOf(r)
	fits := func(k key, t signedTime, b spelling, s scheme) bool {
		sum := s.sum(k.bytes, t.text, b.body)
		return slices.ContainsFunc(f.sums, func(have []byte) bool { return hmac.Equal(have, sum) })
	}
	pairs := len(r.body) <= pairsUpTo
	for mistakes := range 3 {
		if mistakes == 2 && !pairs {
			break
		}
		for ki, k := range keys {
			for bi, b := range bodies {
				for si, s := range schemes {
					made := min(ki, 1) + min(bi, 1) + min(si, 1)
					if made != mistakes {
						continue
					}
					for _, t := range times {
						if fits(k, t, b, s) {
							return causesOf(r, k, t, b, s), true
						}
					}
				}
			}
		}
	}
	if t, ok := signedMilliseconds(f, func(t signedTime) bool { return fits(keys[0], t, bodies[0], schemes[0]) }); ok {
		return []cause{*t.cause}, true
	}
	return nil, false
}

func causesOf(r received, k key, t signedTime, b spelling, s scheme) []cause {
	var out []cause
	for _, c := range []*cause{k.cause, t.cause, s.cause} {
		if c != nil {
			out = append(out, *c)
		}
	}
	if b.cause != "" {
		detail := fmt.Sprintf("The signature fits %s.", b.form)
		if b.cause == "body_reserialised" {
			detail = "The body was parsed and serialised again. " + detail
		}
		if len(r.body) == 0 {
			detail = "The body is empty. " + detail
		}
		out = append(out, cause{b.cause, detail, fixRaw})
	}
	return out
}

const fixSecret = "Use the secret as it was shown, as text: its UTF-8 bytes are the key. Drop line breaks and spaces around it when it comes from a file or a variable."

// keyForms are the secret and what is made of it by mistake, on either side.
func keyForms(r received) []key {
	out := []key{{bytes: []byte(r.secret)}}
	add := func(b []byte, name, detail string) {
		if len(b) > 0 && !slices.ContainsFunc(out, func(k key) bool { return string(k.bytes) == string(b) }) {
			out = append(out, key{b, &cause{name, detail, fixSecret}})
		}
	}
	s := strings.TrimSpace(r.secret)
	add([]byte(s), "secret_whitespace", "The secret that was given has a space or line break around it; the signature fits without.")
	for text, what := range map[string]string{"\n": "a line break at its end", "\r\n": "a CRLF at its end", " ": "a space at its end"} {
		add([]byte(s+text), "secret_whitespace", "The request was signed with the secret and "+what+".")
	}
	add([]byte(" "+s), "secret_whitespace", "The request was signed with the secret and a space at its start.")
	bare := strings.Trim(s, "\"'")
	add([]byte(bare), "secret_quoted", "The secret that was given has quotes around it; the signature fits without.")
	add([]byte(`"`+s+`"`), "secret_quoted", "The request was signed with the secret and quotes around it.")
	add([]byte("'"+s+"'"), "secret_quoted", "The request was signed with the secret and quotes around it.")
	if _, value, found := strings.Cut(bare, "="); found {
		add([]byte(strings.Trim(value, "\"' ")), "secret_assignment", "The secret that was given is a whole line NAME=value; the signature fits the value.")
	}
	add([]byte(strings.TrimPrefix(s, "\uFEFF")), "secret_bom", "The secret that was given begins with a byte order mark; the signature fits without.")
	for _, prefix := range []string{"whsec_", "sha256="} {
		add([]byte(strings.TrimPrefix(s, prefix)), "secret_prefix", "The signature fits the secret without "+prefix+" at its start.")
		add([]byte(prefix+s), "secret_prefix", "The signature fits the secret with "+prefix+" at its start.")
	}
	for _, enc := range []*base64.Encoding{base64.RawURLEncoding, base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding} {
		if b, err := enc.DecodeString(strings.TrimPrefix(s, "whsec_")); err == nil {
			add(b, "secret_decoded", "The request was signed with the bytes that the secret decodes to as base64.")
		}
		add([]byte(enc.EncodeToString([]byte(s))), "secret_encoded", "The request was signed with the secret encoded as base64; the one that was given is decoded.")
	}
	if b, err := hex.DecodeString(s); err == nil {
		add(b, "secret_decoded", "The request was signed with the bytes that the secret decodes to as hex.")
	}
	add([]byte(hex.EncodeToString([]byte(s))), "secret_encoded", "The request was signed with the secret encoded as hex.")
	for i, other := range r.others {
		add([]byte(other), "other_secret", fmt.Sprintf("The request was signed with --other-secret number %d: the secret before or after a rotation, or another webhook's.", i+1))
		out[len(out)-1].cause.Fix = "Use that secret. During a rotation accept both, until the grace period ends."
	}
	return out
}

// timeForms are the times of the header, and what a sender may have signed
// instead.
func timeForms(f form) []signedTime {
	if len(f.times) == 0 {
		return []signedTime{{}} // some schemes have none
	}
	var out []signedTime
	for _, t := range f.times {
		var c *cause
		if parsed, err := time.Parse(time.RFC3339Nano, t); err == nil {
			c = &cause{"timestamp_form", "The time in the header is a date; it has to be unix seconds.", "Send t as unix seconds."}
			out = append(out, signedTime{strconv.FormatInt(parsed.Unix(), 10), c})
		}
		if len(t) == 13 {
			c = &cause{"timestamp_milliseconds", "The time in the header is in milliseconds; it has to be unix seconds.", "Divide by 1000 and drop the fraction before signing: Math.floor(Date.now() / 1000)."}
			out = append(out, signedTime{t[:10], c})
		}
		out = append(out, signedTime{t, c})
	}
	return out
}

// signedMilliseconds tries each millisecond of the header's second: the sender
// wrote seconds and signed milliseconds.
func signedMilliseconds(f form, fits func(signedTime) bool) (signedTime, bool) {
	if len(f.times) == 0 || len(f.times[0]) != 10 {
		return signedTime{}, false
	}
	c := &cause{"timestamp_milliseconds", "The header has the time in seconds, and the signature is over milliseconds.", "Sign the very text that stands behind t=."}
	for ms := range 1000 {
		if t := (signedTime{fmt.Sprintf("%s%03d", f.times[0], ms), c}); fits(t) {
			return t, true
		}
	}
	return signedTime{}, false
}

// schemesOf are the right scheme and those of other systems.
func schemesOf(r received) []scheme {
	const fix = "Sign \"<t>.<raw body>\" with HMAC-SHA256 and write the digest as 64 hex digits."
	out := []scheme{{sum: func(key []byte, t string, body []byte) []byte {
		return digest(sha256.New, key, []byte(t+"."), body)
	}}}
	add := func(name, detail string, sum func(key []byte, t string, body []byte) []byte) {
		out = append(out, scheme{sum, &cause{name, detail, fix}})
	}
	for name, h := range map[string]func() hash.Hash{"SHA-1": sha1.New, "SHA-384": sha512.New384, "SHA-512": sha512.New, "MD5": md5.New} {
		add("algorithm", "The signature is HMAC-"+name+"; it has to be HMAC-SHA256.", func(key []byte, t string, body []byte) []byte {
			return digest(h, key, []byte(t+"."), body)
		})
		add("algorithm", "The signature is HMAC-"+name+" of the body alone; it has to be HMAC-SHA256 of time and body.", func(key []byte, _ string, body []byte) []byte {
			return digest(h, key, body)
		})
	}
	add("scheme", "The signature covers the body alone, as GitHub's does; the time has to be signed too.", func(key []byte, _ string, body []byte) []byte {
		return digest(sha256.New, key, body)
	})
	for sep, what := range map[string]string{"": "nothing", ":": "a colon", "\n": "a line break", ",": "a comma"} {
		add("scheme", "Between time and body the signature has "+what+" instead of a full stop.", func(key []byte, t string, body []byte) []byte {
			return digest(sha256.New, key, []byte(t+sep), body)
		})
	}
	add("scheme", "The signature is over t=<time>.<body>; it has to be over the time's digits without t=.", func(key []byte, t string, body []byte) []byte {
		return digest(sha256.New, key, []byte("t="+t+"."), body)
	})
	add("scheme", "The signature is Slack's, over v0:<time>:<body>.", func(key []byte, t string, body []byte) []byte {
		return digest(sha256.New, key, []byte("v0:"+t+":"), body)
	})
	add("scheme", "The signature is over body and time in the wrong order.", func(key []byte, t string, body []byte) []byte {
		return digest(sha256.New, key, body, []byte("."+t))
	})
	add("scheme", "Secret and message changed places in the HMAC.", func(key []byte, t string, body []byte) []byte {
		return digest(sha256.New, append([]byte(t+"."), body...), key)
	})
	add("scheme", "The signature is a plain SHA-256 of secret and message, not an HMAC.", func(key []byte, t string, body []byte) []byte {
		sum := sha256.Sum256(slices.Concat(key, []byte(t+"."), body))
		return sum[:]
	})
	for _, name := range []string{webhook.EventIDHeader, webhook.DeliveryIDHeader, webhook.WebhookIDHeader} {
		if id := r.header.Get(name); id != "" {
			add("scheme", "The signature is that of Standard Webhooks, over <id>.<time>.<body>.", func(key []byte, t string, body []byte) []byte {
				return digest(sha256.New, key, []byte(id+"."+t+"."), body)
			})
		}
	}
	return out
}
