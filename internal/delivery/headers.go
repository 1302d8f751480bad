package delivery

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/ticketwire/ticketwire/webhook"
)

// Redacted stands for what is secret in a header of the log (contract P2).
const Redacted = "[REDACTED]"

// Headers yields the headers of the request but the signature and the custom
// ones (contract section 4.1).
func (d *Delivery) Headers(yield func(name, value string) bool) {
	_ = yield("content-type", "application/json") &&
		yield(webhook.WebhookIDHeader, d.WebhookID) &&
		yield(webhook.EventIDHeader, d.EventID) &&
		yield(webhook.EventTypeHeader, d.EventType) &&
		yield(webhook.DeliveryIDHeader, d.DeliveryID) &&
		yield(webhook.AttemptHeader, strconv.Itoa(d.Attempt))
}

// Logged returns the headers of a request that was sent, as the log shows them:
// the values of the custom ones and the digits of signatures may be secrets
// (contract P2). others names what this request had beside those of all: the
// custom ones, and those of Standard Webhooks.
func (d *Delivery) Logged(others []string) map[string]string {
	out := maps.Collect(d.Headers)
	if d.AttemptedAt == nil {
		return out
	}
	sent := strconv.FormatInt(d.AttemptedAt.Unix(), 10)
	out[webhook.SignatureHeader] = "t=" + sent + ",v1=" + Redacted
	for _, name := range others {
		switch name {
		case webhook.StandardIDHeader:
			out[name] = d.EventID
		case webhook.StandardTimestampHeader:
			out[name] = sent
		case webhook.StandardSignatureHeader:
			out[name] = "v1," + Redacted
		default:
			out[name] = Redacted
		}
	}
	return out
}

// Bounds of custom_headers (contract P6).
const (
	maxHeaders     = 50
	maxHeaderBytes = 8 << 10 // names and values together
)

// ReservedHeader reports whether a webhook may not set this header, in any
// letter case: it is ours, or it changes how the request is framed (contract
// P6). Authorization is allowed.
func ReservedHeader(name string) bool {
	name = strings.ToLower(name)
	for _, prefix := range [...]string{"x-alga-", "webhook-", "content-", "proxy-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	switch name {
	case "host", "connection", "te", "trailer", "transfer-encoding", "upgrade", "keep-alive", "expect", "http2-settings":
		return true
	}
	return false
}

// checkHeaders validates custom_headers. Issues come in the order of the names,
// so that an answer does not depend on a map's order.
func (is *issues) checkHeaders(headers map[string]string) {
	if len(headers) > maxHeaders {
		is.custom(at("custom_headers"), "at most %d headers, got %d", maxHeaders, len(headers))
		return
	}
	bytes := 0
	seen := make(map[string]string, len(headers))
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		path, value := at("custom_headers", name), headers[name]
		bytes += len(name) + len(value)
		lower := strings.ToLower(name)
		first, twice := seen[lower]
		seen[lower] = name
		switch {
		case !token(name):
			is.custom(path, "not a valid header name")
		case ReservedHeader(name):
			is.custom(path, "header %s is reserved and cannot be set", name)
		case twice:
			is.custom(path, "same header as %s", first)
		}
		if strings.ContainsFunc(value, control) {
			is.custom(path, "header values must not contain control characters")
		}
	}
	if bytes > maxHeaderBytes {
		is.custom(at("custom_headers"), "at most %d bytes of names and values, got %d", maxHeaderBytes, bytes)
	}
}

// token reports whether s is a token of RFC 9110 section 5.6.2.
func token(s string) bool {
	for i := range len(s) {
		c := s[i]
		alnum := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !alnum && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

// control reports whether r is a C0 control character or DEL, a tab included.
func control(r rune) bool { return r < ' ' || r == 0x7f }
