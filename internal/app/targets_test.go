package app_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/app"
	"github.com/ticketwire/ticketwire/internal/store"
)

// A webhook to the service itself is refused, in whatever networks the operator
// opened, when it is saved and when a name turns out to lead home.
func TestWebhooksCannotCallTheService(t *testing.T) {
	t.Parallel()
	for _, listen := range []string{"127.0.0.1:0", ":0"} {
		a := run(t, app.Config{
			Listen: listen, DataDir: t.TempDir(), PublicURL: "https://198.51.100.7",
			AllowTargets: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")},
			Log:          slog.New(slog.NewTextHandler(t.Output(), nil)),
		})
		b, err := a.Store().Bootstrap(t.Context(), time.Now(), store.BootstrapDraft{
			Tenant: "Acme", Email: "ada@acme.example", FirstName: "Ada", LastName: "Lovelace",
		})
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(a.Addr())
		post := func(path string, body map[string]any) (int, string) {
			t.Helper()
			sent, _ := json.Marshal(body)
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://127.0.0.1:"+port+"/api/v1"+path, bytes.NewReader(sent))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-API-Key", b.APIKey)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			answer, _ := io.ReadAll(resp.Body)
			return resp.StatusCode, string(answer)
		}
		create := func(url string) (int, string) {
			t.Helper()
			return post("/webhooks", map[string]any{"name": "loop", "url": url, "event_types": []string{"ticket.created"}})
		}
		for _, url := range []string{"http://127.0.0.1:" + port + "/api/v1/tickets", "http://0.0.0.0:" + port, "https://198.51.100.7/api/v1/tickets"} {
			if status, answer := create(url); status != http.StatusBadRequest || !strings.Contains(answer, "must not point to") {
				t.Errorf("listening on %s, %s: %d %s", listen, url, status, answer)
			}
		}
		if status, answer := create("http://198.51.100.7/"); status != http.StatusCreated {
			t.Errorf("another port of the public address: %d %s", status, answer)
		}
		if _, answer := post("/webhooks/test", map[string]any{
			"test_event_type": "ticket.created", "override_url": "http://localhost:" + port + "/healthz",
		}); !strings.Contains(answer, `"error_type":"ssrf"`) {
			t.Errorf("listening on %s, by name: %s", listen, answer)
		}
	}
}
