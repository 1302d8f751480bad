package receiver

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

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
