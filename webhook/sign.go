package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"time"
)

// The headers of a webhook request (contract section 4.1). Only the body and
// the signature's own timestamp are signed; none of the other headers is, so
// use them for routing and logs, and the body for decisions.
const (
	SignatureHeader  = "X-Alga-Signature"        // t=<unix seconds>,v1=<64 hex digits>
	EventIDHeader    = "X-Alga-Event-Id"         // the body's event_id; the same for every attempt and webhook
	EventTypeHeader  = "X-Alga-Event-Type"       // the body's event_type
	WebhookIDHeader  = "X-Alga-Webhook-Id"       // the webhook that the delivery belongs to
	DeliveryIDHeader = "X-Alga-Delivery-Id"      // new for every attempt
	AttemptHeader    = "X-Alga-Delivery-Attempt" // decimal, from 1
)

// signatureLen is the length of one ",v1=<hex>" part.
const signatureLen = len(",v1=") + 2*sha256.Size

// Sign returns the value of the X-Alga-Signature header for body sent at t:
// "t=<unix seconds>,v1=<hex>", one v1, lower-case, no space, because receivers
// in the field parse exactly that (contract section 4.2).
//
// The key is the text of secret as UTF-8 bytes. A signing secret looks like
// base64url, but decoding it gives a key that no receiver uses. Every attempt
// signs anew with its own time over the unchanged body. Safe for concurrent
// use.
func Sign(secret string, t time.Time, body []byte) string {
	b := appendTime(make([]byte, 0, 32+signatureLen), t)
	sum := mac(secret, b[len("t="):], body)
	return string(appendSum(b, sum))
}

// SignRotating is Sign for the grace period of a secret rotation. It returns
// "t=..,v1=<old>,v1=<new>,v1=<old>": verifiers that look at the first or at the
// last v1 alone accept it with the old secret, and those that try every v1
// accept it with either (contract section 4.2).
func SignRotating(oldSecret, newSecret string, t time.Time, body []byte) string {
	b := appendTime(make([]byte, 0, 32+3*signatureLen), t)
	prefix := b[len("t="):]
	before, after := mac(oldSecret, prefix, body), mac(newSecret, prefix, body)
	b = appendSum(b, before)
	b = append(b, ',')
	b = appendSum(b, after)
	b = append(b, ',')
	return string(appendSum(b, before))
}

// appendTime appends "t=<unix seconds>." to b. What follows "t=" is the start
// of the signed message as it stands; appendSum turns the full stop into the
// header's comma afterwards, which saves a second buffer.
func appendTime(b []byte, t time.Time) []byte {
	b = append(b, "t="...)
	b = strconv.AppendInt(b, t.Unix(), 10)
	return append(b, '.')
}

// appendSum puts "v1=<hex of sum>" behind b, whose last byte is the separator
// and becomes a comma.
func appendSum(b, sum []byte) []byte {
	b[len(b)-1] = ','
	b = append(b, "v1="...)
	return hex.AppendEncode(b, sum)
}

// mac returns the HMAC-SHA256 of prefix and body, where prefix ends with the decimal
// timestamp and a full stop.
func mac(secret string, prefix, body []byte) []byte {
	h := hmac.New(sha256.New, []byte(secret))
	h.Write(prefix) // a hash never returns an error
	h.Write(body)
	return h.Sum(make([]byte, 0, sha256.Size))
}
