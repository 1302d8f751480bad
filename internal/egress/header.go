package egress

import (
	"maps"
	"net/http"
	"slices"
	"strings"
)

// outgoing is what we send: the caller's headers in their spelling, each name
// once, plus our User-Agent unless the caller has one. Custom headers were
// checked when the webhook was saved (contract P6); this is the second line, so
// that nothing can double a signature (contract W14).
func outgoing(h http.Header, userAgent string) http.Header {
	out := make(http.Header, len(h)+1)
	out["User-Agent"] = []string{userAgent}
	for name, values := range h {
		if contractSpelling(name) {
			out[name] = values
		}
	}
	if len(out) == len(h)+1 { // no custom ones
		return out
	}
	taken := make(map[string]bool, len(h))
	for name := range out {
		if name != "User-Agent" {
			taken[strings.ToLower(name)] = true
		}
	}
	// In order, so that of two spellings the same one wins each time.
	for _, name := range slices.Sorted(maps.Keys(h)) {
		lower := strings.ToLower(name)
		if taken[lower] || owned(lower) {
			continue
		}
		taken[lower] = true
		switch lower {
		case "user-agent":
			// The transport knows only this spelling; another one would leave
			// two of them.
			out["User-Agent"] = h[name]
		case "content-type":
			out["content-type"] = h[name]
		default:
			out[name] = h[name]
		}
	}
	return out
}

// contractSpelling reports whether name is written as in contract section 4.1.
func contractSpelling(name string) bool {
	return name == "content-type" || strings.HasPrefix(name, "X-Alga-") && name == http.CanonicalHeaderKey(name)
}

// owned reports whether a header belongs to the connection and not to the message.
// All of them are among those that no webhook may set, so nothing that was saved is
// left out.
func owned(lower string) bool {
	switch lower {
	case "host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer",
		"upgrade", "expect", "content-encoding", "http2-settings":
		return true
	}
	return strings.HasPrefix(lower, "proxy-")
}
