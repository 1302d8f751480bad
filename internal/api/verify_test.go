package api_test

import (
	"database/sql"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

// verifies reports whether a receiver with this one secret would accept d.
func verifies(d delivered, secret string, now time.Time) bool {
	return webhook.Verify(d.Header.Get(webhook.SignatureHeader), d.Body, now, secret) == nil
}

// TestVerifyVectors runs the vectors of the contract's verify endpoint against
// the route. Their webhook has a fixed id and secret, so a row of ours is given
// both.
func TestVerifyVectors(t *testing.T) {
	t.Parallel()
	var set *settings
	h := newHarness(t, func(s *settings) { set = s })
	raw, err := os.ReadFile("../../webhook/testdata/vectors.json")
	must(t, err)
	vectors := decode[struct {
		Endpoint struct {
			WebhookID string `json:"webhook_id"`
			Secret    string `json:"signing_secret"`
			Cases     []struct {
				ID        string
				Request   json.RawMessage
				Status    int
				Data      *struct{ Valid bool }
				ErrorCode string `json:"error_code"`
			}
		} `json:"verify_endpoint"`
	}](t, raw).Endpoint
	if len(vectors.Cases) < 10 {
		t.Fatalf("only %d vectors", len(vectors.Cases))
	}

	made := h.createWebhook(t, nowhere)["webhook_id"]
	db, err := sql.Open("sqlite", filepath.Join(set.store.Dir, "ticketwire.db"))
	must(t, err)
	defer db.Close()
	sealed := set.store.Vault.Seal("webhooks.secret/"+h.a.TenantID+"/"+vectors.WebhookID, []byte(vectors.Secret))
	for _, q := range []string{
		`update webhooks set webhook_id = $1, secret = $2 where webhook_id = $3`,
		`update webhook_health set webhook_id = $1, wait_reason = substr($2, 1, 0) where webhook_id = $3`,
	} {
		_, err = db.Exec(q, vectors.WebhookID, sealed, made)
		must(t, err)
	}

	for _, v := range vectors.Cases {
		t.Run(v.ID, func(t *testing.T) {
			r := h.do(t, "POST", "/webhooks/verify", h.a.APIKey, v.Request)
			if v.ErrorCode != "" {
				r.wantError(t, v.Status, v.ErrorCode)
				return
			}
			if got := r.want(t, v.Status).at("data", "valid"); got != v.Data.Valid {
				t.Errorf("valid is %v, want %v", got, v.Data.Valid)
			}
		})
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	made := h.createWebhook(t, nowhere)
	id, old := made["webhook_id"].(string), made["signing_secret"].(string)
	body, at := `{"title":"Zürich – 東京"}`, time.Unix(1760000000, 0)
	ask := func(signature string, more ...map[string]any) *response {
		t.Helper()
		return h.do(t, "POST", "/webhooks/verify", h.a.APIKey, merged(map[string]any{
			"algorithm": "sha256", "signature": signature, "body": body, "webhook_id": id,
		}, more...))
	}
	valid := func(want bool, r *response) {
		t.Helper()
		if got := r.want(t, http.StatusOK).at("data", "valid"); got != want {
			t.Errorf("valid is %v, want %v", got, want)
		}
	}
	header := webhook.Sign(old, at, []byte(body))
	bare := header[len("t=1760000000,v1="):]
	valid(true, ask(header))
	valid(true, ask(bare, map[string]any{"timestamp": 1760000000}))
	valid(false, ask(bare, map[string]any{"timestamp": 1760000000.5}))
	valid(false, ask(bare, map[string]any{"timestamp": -1760000000}))
	valid(false, ask(bare, map[string]any{"timestamp": 1760000001}))
	valid(false, ask(header, map[string]any{"body": body + " "}))
	valid(false, ask(header, map[string]any{"algorithm": "sha1"}))
	valid(false, ask(""))
	valid(true, ask(webhook.Sign(old, time.Unix(0, 0), []byte(body))))
	valid(true, ask(webhook.Sign(old, time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC), []byte(body))))

	// During a grace both secrets count, afterwards only the new one.
	rotated := h.do(t, "POST", "/webhooks/"+id+"/secret/rotate", h.a.APIKey, map[string]any{"grace_period_seconds": 600}).want(t, http.StatusOK)
	fresh := webhook.Sign(rotated.text("data", "signing_secret"), at, []byte(body))
	valid(true, ask(header))
	valid(true, ask(fresh))
	valid(true, ask(webhook.SignRotating(old, rotated.text("data", "signing_secret"), at, []byte(body))))
	h.do(t, "POST", "/webhooks/"+id+"/secret/promote", h.a.APIKey, nil).want(t, http.StatusOK)
	valid(false, ask(header))
	valid(true, ask(fresh))

	e := h.do(t, "POST", "/webhooks/verify", h.a.APIKey, map[string]any{"algorithm": "sha256", "signature": "x", "body": ""}).
		wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
	if e["message"] != "webhook_id or secret_vault_path is required" {
		t.Errorf("message %q", e["message"])
	}
	path := map[string]any{"algorithm": "sha256", "signature": "x", "body": "", "secret_vault_path": "kv/webhooks/1"}
	e = h.do(t, "POST", "/webhooks/verify", h.a.APIKey, path).wantError(t, http.StatusNotFound, "NOT_FOUND")
	if e["message"] != "Webhook signing secret not found" {
		t.Errorf("message %q", e["message"])
	}
	h.refuses(t, "POST", "/webhooks/verify", []refusal{
		{
			name: "unknown id", body: map[string]any{"algorithm": "sha256", "signature": "x", "body": "", "webhook_id": unknownID},
			status: http.StatusNotFound, code: "NOT_FOUND", message: "Webhook signing secret not found",
		},
		{name: "no algorithm", body: map[string]any{"signature": "x", "body": "", "webhook_id": id}, issue: "algorithm invalid_type"},
		{name: "no signature", body: map[string]any{"algorithm": "sha256", "body": "", "webhook_id": id}, issue: "signature invalid_type"},
		{name: "body is an object", body: map[string]any{"algorithm": "sha256", "signature": "x", "body": map[string]any{}, "webhook_id": id}, issue: "body invalid_type"},
		{name: "bad id", body: map[string]any{"algorithm": "sha256", "signature": "x", "body": "", "webhook_id": "7"}, issue: "webhook_id invalid_string"},
		{name: "timestamp is text", body: map[string]any{"algorithm": "sha256", "signature": "x", "body": "", "webhook_id": id, "timestamp": "1"}, issue: "timestamp invalid_type"},
		{name: "not JSON", body: `{"algorithm"`},
	})
}
