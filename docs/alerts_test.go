package docs_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// Every rule of alerts.yaml has a case in alerts_test.yaml in which it fires and
// one in which it does not; make alerts runs them. A rule without both is a
// guess.
func TestEveryRuleHasItsCases(t *testing.T) {
	t.Parallel()
	rules, err := os.ReadFile("alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	cases, err := os.ReadFile("alerts_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	fires, quiet := map[string]bool{}, map[string]bool{}
	for _, m := range regexp.MustCompile(`alertname: (\w+)\n +exp_alerts:(.*)`).FindAllStringSubmatch(string(cases), -1) {
		if strings.TrimSpace(m[2]) == "[]" {
			quiet[m[1]] = true
		} else {
			fires[m[1]] = true
		}
	}
	blocks := strings.Split(string(rules), "- alert: ")[1:]
	for _, block := range blocks {
		name, _, _ := strings.Cut(block, "\n")
		if !fires[name] || !quiet[name] {
			t.Errorf("%s: a case in which it fires: %t, one in which it does not: %t", name, fires[name], quiet[name])
		}
		for _, part := range []string{"severity: ", "summary: ", "description: "} {
			if !strings.Contains(block, part) {
				t.Errorf("%s has no %s", name, strings.TrimSuffix(part, ": "))
			}
		}
	}
	if len(blocks) < 10 || len(blocks) != len(fires) || len(blocks) != len(quiet) {
		t.Errorf("%d rules, %d cases that fire, %d that do not", len(blocks), len(fires), len(quiet))
	}
}
