package app_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/api"
	"github.com/ticketwire/ticketwire/internal/app"
	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/test/postgres"
)

// series is one metric of a scrape.
type series struct {
	help, kind string
	labels     map[string][]string // values by name, in the order of the scrape
}

// scraped is a server that has just started, scraped over HTTP: what an alert
// rule has to work with from the first minute.
func scraped(t *testing.T) (metrics map[string]*series, text string) {
	t.Helper()
	text = scrape(t, run(t, measured(t.TempDir(), "", time.Now)))
	return parse(text), text
}

// run starts a server that runs until the test ends.
func run(t *testing.T, cfg app.Config) *app.App {
	t.Helper()
	cfg.Policy, cfg.Rate = delivery.DefaultPolicy(), api.DefaultRate()
	a, err := app.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // that of the test has ended
		defer cancel()
		if err := a.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return a
}

// measured is the configuration of a server whose metrics are looked at.
func measured(dir, databaseURL string, now func() time.Time) app.Config {
	return app.Config{
		Listen: "127.0.0.1:0", DataDir: dir, DatabaseURL: databaseURL, Now: now, Version: "1.2.3",
		Retention: time.Hour, Log: slog.New(slog.DiscardHandler),
	}
}

// scrape returns what Prometheus gets.
func scrape(t *testing.T, a *app.App) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+a.Addr()+"/metrics", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d, %v", resp.StatusCode, err)
	}
	return string(body)
}

// A node exports how many share the work, and whether it may send.
func TestNodesExportHowManyTheyAre(t *testing.T) {
	t.Parallel()
	told := func(a *app.App) string {
		lines := regexp.MustCompile(`(?m)^ticketwire_(?:nodes|in_office) .*$`).FindAllString(scrape(t, a), -1)
		return strings.Join(lines, ", ")
	}
	if got, want := told(run(t, measured(t.TempDir(), "", time.Now))), "ticketwire_in_office 1, ticketwire_nodes 1"; got != want {
		t.Errorf("embedded: %s, want %s", got, want)
	}
	dir, url := t.TempDir(), postgres.URL(t, postgres.Start(t)) // the directory has the key only
	var ahead atomic.Int64
	first := run(t, measured(dir, url, func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }))
	for _, a := range []*app.App{run(t, measured(dir, url, time.Now)), first} {
		await(t, "two nodes that share the work", func() bool { return told(a) == "ticketwire_in_office 1, ticketwire_nodes 2" })
	}
	await(t, "a node without its lease", func() bool {
		ahead.Add(int64(time.Hour)) // it is renewed between this and the scrape now and then
		return told(first) == "ticketwire_in_office 0, ticketwire_nodes 2"
	})
	await(t, "a node with its lease again", func() bool { return told(first) == "ticketwire_in_office 1, ticketwire_nodes 2" })
}

// await waits for what comes with the next renewal of a lease.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); <-time.After(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

var label = regexp.MustCompile(`(\w+)="([^"]*)"`)

// parse reads the text form of Prometheus as far as our own metrics need it.
func parse(text string) map[string]*series {
	out := map[string]*series{}
	var now *series
	for scan := bufio.NewScanner(strings.NewReader(text)); scan.Scan(); {
		line := scan.Text()
		if help, is := strings.CutPrefix(line, "# HELP "); is {
			name, words, _ := strings.Cut(help, " ")
			now = &series{help: words, labels: map[string][]string{}}
			out[name] = now
			continue
		}
		if kind, is := strings.CutPrefix(line, "# TYPE "); is {
			_, now.kind, _ = strings.Cut(kind, " ")
			continue
		}
		for _, m := range label.FindAllStringSubmatch(line, -1) {
			if m[1] != "le" && !slices.Contains(now.labels[m[1]], m[2]) {
				now.labels[m[1]] = append(now.labels[m[1]], m[2])
			}
		}
	}
	return out
}

// The table of docs/operations.md is what a server exports, neither more nor
// less, and every value of every label is there before anything has happened.
func TestMetricsAreAsDocumented(t *testing.T) {
	t.Parallel()
	metrics, _ := scraped(t)
	var want strings.Builder
	want.WriteString("| metric | type | labels | what it says |\n| --- | --- | --- | --- |\n")
	for _, name := range slices.Sorted(maps.Keys(metrics)) {
		if !strings.HasPrefix(name, "ticketwire_") {
			continue
		}
		m := metrics[name]
		fmt.Fprintf(&want, "| `%s` | %s | %s | %s |\n", name, m.kind, m.told(name), m.help)
	}
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), want.String()) {
		t.Errorf("docs/operations.md does not have this table:\n%s", want.String())
	}
	for _, other := range []string{"go_goroutines", "process_start_time_seconds", "process_open_fds", "promhttp_metric_handler_errors_total"} {
		if metrics[other] == nil {
			t.Errorf("%s is missing", other)
		}
	}
}

// told writes labels with their values. Those of the build differ from one to the
// next.
func (s *series) told(name string) string {
	var out []string
	for _, l := range slices.Sorted(maps.Keys(s.labels)) {
		text := "`" + l + "`"
		if name != "ticketwire_build_info" {
			text += ": " + strings.Join(s.labels[l], ", ")
		}
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}

// Every metric that a shipped rule speaks of is one that a server exports: a rule
// with a misspelt name never fires, and promtool cannot know. Those of receivers
// are tested in their package.
func TestRulesSpeakOfMetricsThatExist(t *testing.T) {
	t.Parallel()
	metrics, text := scraped(t)
	rules, err := os.ReadFile("../../docs/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`\b(ticketwire|go|process|promhttp)_[a-z0-9_]+`).FindAllString(string(rules), -1)
	names = slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, "ticketwire_receiver_") })
	slices.Sort(names)
	if names = slices.Compact(names); len(names) < 10 {
		t.Fatalf("found only %v in the rules", names)
	}
	for _, name := range names {
		if metrics[name] == nil && !regexp.MustCompile(`(?m)^`+name+`[{ ]`).MatchString(text) {
			t.Errorf("the rules speak of %s, which no server exports", name)
		}
	}
}
