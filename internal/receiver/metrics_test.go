package receiver

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

// The numbers are those of what happened.
func TestMetricsTell(t *testing.T) {
	t.Parallel()
	base := time.Now().Add(-24 * time.Hour).Truncate(time.Second)
	var now atomic.Int64
	set := func(after time.Duration) { now.Store(base.Add(after).UnixMicro()) }
	set(0)
	var got seen
	got.fail(errors.New("no"))
	cfg := config(t, got.react)
	cfg.Now = func() time.Time { return time.UnixMicro(now.Load()) }
	cfg.Backoff = func(int) time.Duration { return time.Hour }
	r, c := start(t, cfg), caller(t)
	tells := func(want ...string) {
		t.Helper()
		_, text := get(t, c, r.AdminURL()+"/metrics")
		for _, line := range want {
			if !strings.Contains(text, "\nticketwire_receiver_"+line+"\n") {
				t.Errorf("the metrics lack %s:\n%s", line, regexp.MustCompile(`(?m)^ticketwire_receiver_[a-z_]+ .*$`).FindAllString(text, -1))
			}
		}
	}
	sent := func(body []byte) {
		t.Helper()
		req := request(t, r.URL(), body)
		req.Header.Set(webhook.SignatureHeader, webhook.Sign(secret, cfg.Now().Add(40*time.Second), body))
		if status, text := send(t, c, req); status != 200 {
			t.Errorf("the answer is %d %s", status, text)
		}
	}
	set(50 * time.Second)
	test := strings.Replace(string(envelope("E0", "T1", base)), "ticket.updated", webhook.Test, 1)
	sent([]byte(test)) // no sign of life, and neither is what nobody signed
	if status, _ := send(t, c, request(t, r.URL(), envelope("E1", "T1", base))); status != 401 {
		t.Errorf("a request of another day is answered with %d", status)
	}
	tells("ready 1", "last_event_age_seconds 50", "queue 0", "queue_oldest_seconds 0", "clock_skew_seconds 40")
	sent(envelope("E1", "T1", base))
	sent(envelope("E2", "T1", base.Add(time.Second)))
	eventually(t, "the failure is written down", func() bool {
		_, text := get(t, c, r.AdminURL()+"/metrics")
		return strings.Contains(text, `ticketwire_receiver_reactions_total{result="reaction_failed"} 1`)
	})
	set(140 * time.Second)
	tells("last_event_age_seconds 90", "queue 2", "queue_oldest_seconds 90", "reaction_duration_seconds_count 1", "dead_letters 0")
}

// The second table of docs/operations.md is what a receiver exports, every value of
// every label is there before anything has happened, and the rules of
// docs/alerts.yaml speak of nothing else.
func TestMetricsAreAsDocumented(t *testing.T) {
	t.Parallel()
	_, text := get(t, caller(t), start(t, config(t, new(seen).react)).AdminURL()+"/metrics")
	kinds := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`).FindAllStringSubmatch(text, -1) {
		kinds[m[1]] = m[2]
	}
	var want strings.Builder
	want.WriteString("| metric | type | labels | what it says |\n| --- | --- | --- | --- |\n")
	for _, m := range regexp.MustCompile(`(?m)^# HELP (ticketwire_\S+) (.*)$`).FindAllStringSubmatch(text, -1) {
		var label string
		var values []string
		for _, l := range regexp.MustCompile(`(?m)^`+m[1]+`\{(\w+)="([^"]*)"\}`).FindAllStringSubmatch(text, -1) {
			label, values = l[1], append(values, l[2])
		}
		if label != "" {
			label = fmt.Sprintf("`%s`: %s", label, strings.Join(values, ", "))
		}
		fmt.Fprintf(&want, "| `%s` | %s | %s | %s |\n", m[1], kinds[m[1]], label, m[2])
	}
	page, err := os.ReadFile("../../docs/operations.md")
	must(t, err)
	if !strings.Contains(string(page), want.String()) {
		t.Errorf("docs/operations.md does not have this table:\n%s", want.String())
	}

	rules, err := os.ReadFile("../../docs/alerts.yaml")
	must(t, err)
	names := regexp.MustCompile(`\bticketwire_receiver_[a-z_]+`).FindAllString(string(rules), -1)
	slices.Sort(names)
	if names = slices.Compact(names); len(names) < 4 {
		t.Fatalf("found only %v in the rules", names)
	}
	for _, name := range names {
		if kinds[name] == "" {
			t.Errorf("the rules speak of %s, which no receiver exports", name)
		}
	}
	for _, m := range regexp.MustCompile(`\bticketwire_receiver_alarm\{(kind="\w+")\}`).FindAllStringSubmatch(string(rules), -1) {
		if !strings.Contains(text, "ticketwire_receiver_alarm{"+m[1]+"} ") {
			t.Errorf("the rules speak of an alarm with %s, which there is not", m[1])
		}
	}
}
