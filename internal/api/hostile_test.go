package api_test

import (
	"bytes"
	"net/http"
	"testing"
)

// TestOddAnswersAreData: whatever a receiver answers comes back as a JSON string
// of text, and nothing of it gets out of that string.
func TestOddAnswersAreData(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for raw, want := range map[string]string{
		"\xff\xfe\x00ok":                 "\ufffd\ufffd\ufffdok",
		"</script><script>alert(1)":      "</script><script>alert(1)",
		"\x1b[2J\x1b]0;owned\x07":        "\x1b[2J\x1b]0;owned\x07",
		"=cmd|' /C calc'!A0":             "=cmd|' /C calc'!A0",
		"a\r\nlevel=ERROR msg=forged":    "a\r\nlevel=ERROR msg=forged",
		"\u2028\u202e\"}],\"data\":null": "\u2028\u202e\"}],\"data\":null",
	} {
		rc := h.receiver(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			w.Write([]byte(raw))
		})
		id := h.createWebhook(t, rc.URL, map[string]any{"is_active": false})["webhook_id"].(string)
		tested := h.do(t, "POST", "/webhooks/"+id+"/test", h.a.APIKey, nil).want(t, http.StatusOK)
		if got := tested.text("data", "response_body"); got != want {
			t.Errorf("%q: the test answers %q", raw, got)
		}
		read := h.do(t, "GET", "/webhooks/"+id+"/deliveries/"+tested.text("data", "delivery_id"), h.a.APIKey, nil).want(t, http.StatusOK)
		if got := read.text("data", "response_body"); got != want {
			t.Errorf("%q: the delivery has %q", raw, got)
		}
		for _, r := range []*response{tested, read} {
			if r.Header.Get("Content-Type") != "application/json" || r.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("the answer may be taken for something else: %v", r.Header)
			}
			if bytes.ContainsFunc(r.Raw, func(c rune) bool { return c < ' ' && c != '\n' }) {
				t.Errorf("%q: the answer holds control characters: %q", raw, r.Raw)
			}
		}
	}
}
