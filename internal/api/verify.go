package api

import (
	"strconv"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/webhook"
)

// verifySignature checks a signature the way a receiver would, but for its age
// (contract section 3.7). During a rotation's grace the previous secret counts
// too, because receivers accept it.
func (c *call) verifySignature() (answer, error) {
	o, err := c.object()
	if err != nil {
		return answer{}, err
	}
	o.need("algorithm", "string")
	algorithm := orZero(o.enum("algorithm", "sha1", "sha256", "sha512"))
	signature := o.needText("signature", 0, 0)
	body := o.needText("body", 0, 0)
	unix := o.number("timestamp", -anyInt, anyInt)
	id := o.uuid("webhook_id")
	o.text("secret_vault_path", 0, 0)
	if err := o.err(); err != nil {
		return answer{}, err
	}
	if id == nil && !o.has("secret_vault_path") {
		return answer{}, fault.New(fault.Invalid, "webhook_id or secret_vault_path is required")
	}
	noSecret := fault.New(fault.NotFound, "Webhook signing secret not found")
	if id == nil {
		return answer{}, noSecret // there are no paths into a vault here
	}
	secrets, err := c.store().Secrets(c.ctx, c.now, c.tenant(), *id)
	if fault.Is(err, fault.NotFound) {
		return answer{}, noSecret
	}
	if err != nil {
		return answer{}, err
	}
	valid := algorithm == "sha256" && signatureFits(signature, unix, body, secrets, c.now)
	return ok(map[string]any{"valid": valid}), nil
}

// anyAge makes the receiver's replay window too wide to matter.
const anyAge = time.Duration(1<<63 - 1)

// signatureFits takes a whole header value, or bare hex with the time that was
// signed.
func signatureFits(signature string, unix *float64, body string, s store.Secrets, now time.Time) bool {
	header := signature
	if !strings.Contains(header, "v1=") {
		if unix == nil || *unix != float64(int64(*unix)) {
			return false
		}
		header = "t=" + strconv.FormatInt(int64(*unix), 10) + ",v1=" + signature
	}
	v := webhook.Verifier{
		Secrets:   func() []string { return []string{s.Current, s.Previous} },
		Tolerance: anyAge,
		Now:       func() time.Time { return now },
	}
	return v.Verify(header, []byte(body)) == nil
}
