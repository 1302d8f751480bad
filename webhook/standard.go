package webhook

import (
	"encoding/base64"
	"strconv"
	"time"
)

// The headers of Standard Webhooks, which a server may send beside those of the
// contract, so that receivers can verify with the libraries of that specification
// (https://github.com/standard-webhooks/standard-webhooks).
const (
	StandardIDHeader        = "webhook-id"        // the event id
	StandardTimestampHeader = "webhook-timestamp" // Unix seconds of the attempt
	StandardSignatureHeader = "webhook-signature" // v1,<base64>, one for each secret, with spaces between
)

// SignStandard returns the value of the webhook-signature header for body sent at t
// under an event id, with one signature for each secret: two during a rotation, of
// which a receiver accepts either.
//
// The key is the text of the secret as UTF-8 bytes, as for Sign. Libraries that
// take a raw key get the secret as it is; the others want "whsec_" and the base64
// of that text. Safe for concurrent use.
func SignStandard(id string, t time.Time, body []byte, secrets ...string) string {
	prefix := append([]byte(id), '.')
	prefix = append(strconv.AppendInt(prefix, t.Unix(), 10), '.')
	var out []byte
	for i, secret := range secrets {
		if i > 0 {
			out = append(out, ' ')
		}
		out = append(out, "v1,"...)
		out = base64.StdEncoding.AppendEncode(out, mac(secret, prefix, body))
	}
	return string(out)
}
