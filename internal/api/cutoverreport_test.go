package api_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/store"
)

// reportOf is a report of a comparison, changed.
func reportOf(t *testing.T, change map[string]any) map[string]any {
	t.Helper()
	text, err := os.ReadFile("../cutover/testdata/report.json")
	must(t, err)
	var out map[string]any
	must(t, json.Unmarshal(text, &out))
	maps.Copy(out, change)
	return out
}

func TestCutoverReportLifecycle(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	report := reportOf(t, nil)
	made := h.do(t, "POST", "/cutover-reports", h.a.APIKey, report, "X-Idempotency-Key", "k").want(t, http.StatusCreated)
	again := h.do(t, "POST", "/cutover-reports", h.a.APIKey, report, "X-Idempotency-Key", "k").want(t, http.StatusCreated)
	if !bytes.Equal(made.Raw, again.Raw) {
		t.Errorf("the repeated call answered %s, first %s", again.Raw, made.Raw)
	}
	record := made.data(t)
	id := record["report_id"].(string)
	window := report["window"].(map[string]any)
	want := map[string]any{
		"report_id": id, "verdict": "NO-GO", "headline": report["headline"], "server": report["server"], "webhook_id": report["webhook_id"],
		"window_from": wire(window["from"]), "window_to": wire(window["to"]), "published_by": h.a.UserID, "published_at": record["published_at"],
	}
	if diff := cmp.Diff(want, record); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
	list := h.do(t, "GET", "/cutover-reports", h.a.APIKey, nil).want(t, http.StatusOK).list(t)
	if diff := cmp.Diff([]map[string]any{want}, list); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	got := h.do(t, "GET", "/cutover-reports/"+id, h.a.APIKey, nil).want(t, http.StatusOK).data(t)
	if diff := cmp.Diff(report, got["report"]); diff != "" {
		t.Errorf("report (-published +got):\n%s", diff)
	}
	// Another tenant has no such report.
	for _, method := range []string{"GET", "DELETE"} {
		h.do(t, method, "/cutover-reports/"+id, h.b.APIKey, nil).wantError(t, http.StatusNotFound, "NOT_FOUND")
		h.do(t, method, "/cutover-reports/7", h.a.APIKey, nil).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
	}
	if list := h.do(t, "GET", "/cutover-reports", h.b.APIKey, nil).want(t, http.StatusOK).list(t); len(list) != 0 {
		t.Errorf("another tenant has %v", list)
	}
	h.do(t, "DELETE", "/cutover-reports/"+id, h.a.APIKey, nil).want(t, http.StatusNoContent)
	h.do(t, "GET", "/cutover-reports/"+id, h.a.APIKey, nil).wantError(t, http.StatusNotFound, "NOT_FOUND")
}

// wire is a time as the API writes it.
func wire(v any) any { return strings.Replace(v.(string), "Z", ".000Z", 1) }

func TestCutoverReportIsRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.refuses(t, "POST", "/cutover-reports", []refusal{
		{name: "no report", body: map[string]any{}, issue: "verdict custom"},
		{name: "no verdict", body: reportOf(t, map[string]any{"verdict": "MAYBE"}), issue: "verdict custom"},
		{name: "another type", body: reportOf(t, map[string]any{"headline": 7}), issue: "headline custom"},
		{name: "no window", body: reportOf(t, map[string]any{"window": map[string]any{}}), issue: "window.to custom"},
		{name: "a class of another version", body: reportOf(t, map[string]any{"classes": []any{map[string]any{"class": "Z"}}}), issue: "classes.0.class custom"},
	})
	for body, want := range map[string]string{"nonsense": "invalid character", "[]": "must be an object", `{"verdict":`: "unexpected EOF", " ": "EOF"} {
		e := h.do(t, "POST", "/cutover-reports", h.a.APIKey, json.RawMessage(body)).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
		if !strings.Contains(e["message"].(string), want) {
			t.Errorf("%s: %v", body, e)
		}
	}
	e := h.do(t, "POST", "/cutover-reports", h.a.APIKey, reportOf(t, map[string]any{"extra": 1})).wantError(t, http.StatusBadRequest, "VALIDATION_ERROR")
	if !strings.Contains(e["message"].(string), `unknown field "extra"`) {
		t.Errorf("an unknown field: %v", e)
	}
	h.do(t, "POST", "/cutover-reports", h.a.APIKey, reportOf(t, map[string]any{"headline": long(1 << 20)})).
		wantError(t, http.StatusRequestEntityTooLarge, "PAYLOAD_TOO_LARGE")
	reader := h.keyOf(t, h.a.TenantID, store.KeyDraft{UserID: h.a.UserID, Name: "reader", Permissions: []string{"webhook:read"}})
	h.do(t, "POST", "/cutover-reports", reader, reportOf(t, nil)).wantError(t, http.StatusForbidden, "FORBIDDEN")
	h.do(t, "GET", "/cutover-reports", reader, nil).want(t, http.StatusOK)
	if list := h.do(t, "GET", "/cutover-reports", h.a.APIKey, nil).want(t, http.StatusOK).list(t); len(list) != 0 {
		t.Errorf("refused bodies left %v", list)
	}
	for range store.MaxCutoverReports {
		h.do(t, "POST", "/cutover-reports", h.a.APIKey, reportOf(t, nil)).want(t, http.StatusCreated)
	}
	h.do(t, "POST", "/cutover-reports", h.a.APIKey, reportOf(t, nil)).wantError(t, http.StatusConflict, "CONFLICT")
}
