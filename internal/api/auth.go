package api

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
)

// authenticate finds out who is calling (contract section 1.1). Every reason to
// reject a key gives the same answer, so that a caller cannot probe for keys.
func (s *Server) authenticate(c *call) error {
	key := c.r.Header.Get("X-API-Key")
	if key == "" {
		return fault.New(fault.Unauthorized, "API key required")
	}
	who, err := s.cfg.Store.Authenticate(c.ctx, c.now, key)
	if err != nil {
		return err
	}
	if t := c.r.Header.Get("X-Tenant-Id"); t != "" && !strings.EqualFold(t, who.TenantID) {
		return fault.New(fault.Unauthorized, "Invalid API key")
	}
	c.who = who
	return nil
}

// once runs a handler under an idempotency key (contract P10). The answer is
// stored in the transaction of the change itself, so a repeated request gets
// the first answer even when the caller never saw it because we crashed.
func (c *call) once(key string, rt route) (answer, error) {
	if len(key) > 255 || !utf8.ValidString(key) {
		return answer{}, fault.Field("X-Idempotency-Key", "must be valid UTF-8 of at most 255 bytes")
	}
	body, err := c.readBody()
	if err != nil {
		return answer{}, err
	}
	sum := sha256.Sum256(body)
	c.idem = &store.Idempotency{
		TenantID: c.who.TenantID, KeyID: c.who.KeyID, Key: key, Now: c.now,
		Route: c.r.Method + " " + c.r.URL.Path, Fingerprint: hex.EncodeToString(sum[:]),
	}
	if a, found, err := c.firstAnswer(); found || err != nil {
		return a, err
	}
	a, err := rt.fn(c)
	if fault.Is(err, fault.Conflict) {
		// Another request with the key may have won the race meanwhile.
		if first, found, ferr := c.firstAnswer(); found || ferr != nil {
			return first, ferr
		}
	}
	return a, err
}

func (c *call) firstAnswer() (answer, bool, error) {
	status, body, found, err := c.store().Answer(c.ctx, c.idem)
	if err != nil || !found {
		return answer{}, false, err
	}
	return answer{status: status, raw: body, header: http.Header{"X-Idempotent-Replay": {"true"}}}, true, nil
}
