package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/fault"
)

// Scripts go by the exit code, and people by what is said to try next.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	answer := func(status int) error { return fmt.Errorf("call: %w", &client.Error{Status: status, Message: "m"}) }
	for _, c := range []struct {
		err  error
		code int
		try  string
	}{
		{errors.New("disk I/O error"), 1, ""},
		{context.DeadlineExceeded, 6, ""},
		{usageError{errors.New("wrong"), "this"}, 2, "Try:   this"},
		{fault.New(fault.Invalid, "m"), 2, ""}, {fault.New(fault.BadReference, "m"), 2, ""}, {fault.New(fault.TooLarge, "m"), 2, ""},
		{fault.New(fault.Unauthorized, "m"), 3, ""}, {fault.New(fault.Forbidden, "m"), 3, ""}, {fault.New(fault.ProductDenied, "m"), 3, ""},
		{fault.New(fault.NotFound, "m"), 4, ""}, {fault.New(fault.Conflict, "m"), 5, ""},
		{fault.New(fault.RateLimited, "m"), 6, ""}, {fault.New(fault.Unavailable, "m"), 6, ""}, {fault.New(fault.BadGateway, "m"), 6, ""},
		{answer(http.StatusBadRequest), 2, ""}, {answer(http.StatusRequestEntityTooLarge), 2, ""},
		{answer(http.StatusUnauthorized), 3, ""}, {answer(http.StatusForbidden), 3, ""},
		{answer(http.StatusNotFound), 4, ""}, {answer(http.StatusConflict), 5, ""},
		{answer(http.StatusTooManyRequests), 6, ""}, {answer(http.StatusBadGateway), 6, ""}, {answer(http.StatusServiceUnavailable), 6, ""},
		{answer(http.StatusInternalServerError), 1, ""},
		{answer(http.StatusSeeOther), 1, "--url with the base address"},
		{&url.Error{Op: "Get", URL: "http://127.0.0.1:1", Err: syscall.ECONNREFUSED}, 6, "start the service"},
		{&net.OpError{Op: "listen", Err: syscall.EADDRINUSE}, 1, "another address with --listen"},
	} {
		var said bytes.Buffer
		if got := (terminal{err: &said}).fail(c.err); got != c.code || !strings.Contains(said.String(), "Error: ") ||
			strings.Contains(said.String(), "Try:") != (c.try != "") || !strings.Contains(said.String(), c.try) {
			t.Errorf("%v is exit code %d, want %d and %q:\n%s", c.err, got, c.code, c.try, said.String())
		}
	}
	invalid := &fault.Error{Kind: fault.Invalid, Message: "Validation failed", Issues: []fault.Issue{
		{Path: []any{"payload_fields", "ticket", 1}, Message: "unknown"}, {Path: []any{"url"}, Message: "Required"},
	}}
	if got, want := message(fmt.Errorf("save: %w", invalid)), "payload_fields.ticket.1: unknown; url: Required"; got != want {
		t.Errorf("the message is %q, want %q", got, want)
	}
}

// A setting that cannot work is refused before anything is done, with the flag's name.
func TestCommandsRefuseSettings(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	id := "5b1c9f3e-7a24-4d88-b0f1-6c4d2e8f0a55"
	for command, flags := range map[string][]string{
		"poll --all --api-key k --state " + t.TempDir(): {
			"--interval=0s", "--jitter=-0.1", "--jitter=1.1", "--budget=0", "--budget=1.5", "--timeout=0s", "--exec-timeout=0s", "--count=-1", "--once --count=2",
		},
		"cutover start --all --receiver-url http://127.0.0.1:1/ --api-key k --state " + t.TempDir(): {
			"--interval=-1s", "--jitter=2", "--budget=0", "--timeout=0s", "--exec-timeout=0s", "--collect=0s", "--path=hook", "--tls-cert=x", "--tls-key=x",
		},
		"receive run --secret s --data " + t.TempDir(): {
			"--tls-cert=x", "--tls-key=x", "--path=hook", "--max-body=0", "--workers=0", "--retries=-1", "--react-timeout=0s", "--silence=0s", "--silence=-1h",
			"--subject=x", "--nats=nats://127.0.0.1:1", "--forward=http://127.0.0.1:1/ --forward-timeout=0s",
		},
		"backfill --to http://127.0.0.1:1/ --secret s --api-key k --state " + t.TempDir(): {"--budget=0", "--budget=2", "--retry=soon", "--timeout=0s", "--until=soon"},
		"reconcile --once --api-key k --state " + t.TempDir():                             {"--every=0s", "--alarm-timeout=0s", "--budget=0", "--since=soon"},
		"listen --forward-to http://127.0.0.1:1/ --api-key k --state " + empty + ".json":  {"--poll=0s", "--retry=soon", "--timeout=0s", "--since=1700000000000", "--secret-file=" + empty},
		"trigger ticket.created --to http://127.0.0.1:1/ --secret s":                      {"--count=0", "--timeout=0s", "--secret-file=" + empty},
		"verify --secret s --signature x":                                                 {"--tolerance=999ms", "--at=soon"},
		"webhooks replay " + id + " --api-key k":                                          {"--since=soon", "--since=1h --until=soon"},
		"tickets list --api-key k":                                                        {"--since=soon"},
	} {
		for _, flag := range flags {
			var said bytes.Buffer
			code := run(append(strings.Fields(command), strings.Fields(flag)...), terminal{out: &said, err: &said})
			all := strings.Fields(flag)
			name, _, _ := strings.Cut(all[len(all)-1], "=")
			if name = strings.TrimPrefix(name, "--forward-"); code != exitUsage || !strings.Contains(said.String(), name) {
				t.Errorf("%s %s is exit code %d, want %d and the flag:\n%s", command, flag, code, exitUsage, said.String())
			}
		}
	}
}

func TestTake(t *testing.T) {
	t.Parallel()
	walk := func(yield func(*int, error) bool) {
		for i := range 3 {
			if !yield(&i, nil) {
				return
			}
		}
	}
	for limit, want := range map[int]int{0: 3, 1: 1, 2: 2, 3: 3, 4: 3} {
		rows, more, err := take(walk, limit)
		if len(rows) != want || more != (want < 3) || err != nil {
			t.Errorf("limit %d takes %d, more: %t, %v", limit, len(rows), more, err)
		}
	}
}

// What is given on the command line is what is asked of the server.
func TestInputsAreTheFlags(t *testing.T) {
	t.Parallel()
	at := time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC)
	config := jsonFlag(`{"max_attempts":2}`)
	for want, in := range map[string]any{
		`{}`: keyFlags{}.input(),
		`{"permissions":["ticket:read"],"expires_at":"2027-01-31T00:00:00Z","usage_limit":5,"rate_limit":{"enabled":true,"max_tokens":7,"refill_per_min":9}}`: keyFlags{
			Permission: []string{"ticket:read"}, Expires: &at, UsageLimit: new(int64(5)), Rate: &rateFlag{MaxTokens: 7, RefillPerMin: 9},
		}.input(),
		`{"rate_limit":{"enabled":false}}`: keyFlags{NoRateLimit: true}.input(),
		`{"method":"PUT","custom_headers":{"X-A":"b"},"retry_config":{"max_attempts":2},"event_filter":{"max_attempts":2},"verify_ssl":false}`: webhookFlags{
			Method: new("PUT"), Header: map[string]string{"X-A": "b"}, Retries: &config, Filter: &config, VerifyTLS: new(false),
		}.input(),
		`{"tls":{"ca_bundle":"c","client_cert":"a","client_key":"b"},"payload_fields":null}`: webhookFlags{
			ClientCert: []byte("a"), ClientKey: []byte("b"), CABundle: []byte("c"), Fields: []string{"all"},
		}.input(),
	} {
		if got := sortedKeys(t, plainJSON(in)); got != sortedKeys(t, []byte(want)) {
			t.Errorf("the input is %s, want %s", got, want)
		}
	}
}

// sortedKeys is an object with its members in order.
func sortedKeys(t *testing.T, text []byte) string {
	t.Helper()
	ms, err := members(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	slices.SortFunc(ms, func(a, b member) int { return strings.Compare(a.key, b.key) })
	return string(object(ms))
}

// A list says at a look why a webhook gets nothing.
func TestStateOfAWebhook(t *testing.T) {
	t.Parallel()
	columns := webhookColumns()
	state := columns[slices.IndexFunc(columns, func(c column[client.Webhook]) bool { return c.head == "STATE" })].cell
	early, late := time.Unix(1, 0), time.Unix(2, 0)
	for want, w := range map[string]client.Webhook{
		"active":  {IsActive: true, LastFailureAt: &early, LastSuccessAt: &late, AutoDisabledAt: &early},
		"failing": {IsActive: true, LastFailureAt: &late, LastSuccessAt: &early}, "disabled": {DisabledReason: new("user")},
		"disabled by a 410": {DisabledReason: new("gone"), AutoDisabledAt: &late}, "disabled by failures": {AutoDisabledAt: &late},
	} {
		if got := state(&w); got != want {
			t.Errorf("%+v is %q, want %q", w, got, want)
		}
	}
}
