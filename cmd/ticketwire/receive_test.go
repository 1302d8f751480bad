package main

import (
	"bytes"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/receiver"
	"github.com/ticketwire/ticketwire/webhook"
)

// What is said on the command line is what the receiver does.
func TestReceiveFlagsReachTheReceiver(t *testing.T) {
	t.Parallel()
	const id, other = "5b1c9f3e-7a24-4d88-b0f1-6c4d2e8f0a55", "6b1c9f3e-7a24-4d88-b0f1-6c4d2e8f0a55"
	dir := t.TempDir()
	file := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	watch := file("watch", "# some\n"+other+" # this one\n")
	setup := `{"server":"http://127.0.0.1:1","webhook_id":"W1","tickets":["` + other + `"],"turns":[{"from":"2020-01-01T00:00:00Z","side":"receiver"}]}`
	file("cutover.json", setup)
	config := func(args ...string) receiver.Config {
		t.Helper()
		var c receiveRunCmd
		parser, err := kong.New(&c, kong.Resolvers(tomlFile{"secret": "of the file"}))
		if err != nil {
			t.Fatal(err)
		}
		k, err := parser.Parse(append([]string{"--data=" + dir}, args...))
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := c.config(k, terminal{out: io.Discard, err: io.Discard}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if cfg.Record != nil {
			if err := cfg.Record.Close(); err != nil {
				t.Error(err)
			}
		}
		return cfg
	}
	got := config("--listen=:1", "--path=/p", "--tls-cert=c", "--tls-key=k", "--admin-listen=none", "--database-url=postgres://h/n", "--secret=of the flag",
		"--watch="+id, "--watch-file="+watch, "--types=ticket.created", "--skip-stale", "--max-body=5", "--workers=6", "--react-timeout=7s", "--retries=8",
		"--silence=auto", "--webhook=w", "--refetch", "--api-key=k", "--alarm-exec=true")
	if got.OnAlarm == nil || got.Refetch == nil || got.Watch == nil || got.Watch.WebhookID != "w" || strings.Join(got.Secrets(), " ") != "of the flag" {
		t.Errorf("the configuration is %+v", got)
	}
	got.Secrets, got.OnAlarm, got.Refetch, got.Watch, got.Log, got.Now = nil, nil, nil, nil, nil, nil
	want := receiver.Config{
		Listen: ":1", Path: "/p", TLSCert: "c", TLSKey: "k", DataDir: dir, DatabaseURL: "postgres://h/n", Tickets: []string{id, other},
		Types: []string{"ticket.created"}, SkipStale: true, MaxBody: 5, Workers: 6, Lease: 7 * time.Second, Attempts: 9, SecretFrom: "flag", Silence: receiver.LearnSilence,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the configuration (-want +got):\n%s", diff)
	}
	// By default nobody is told of a silence, and the cutover says what to watch.
	if got = config(); got.SecretFrom != "config" || got.Silence != 0 || got.AdminListen == "" || got.Tickets != nil || got.Watch != nil || got.Attempts != 15 {
		t.Errorf("by default the configuration is %+v", got)
	}
	if got = config("--cutover="+dir, "--api-key=k", "--silence=1h"); got.Silence != time.Hour || got.Watch == nil || got.Watch.WebhookID != "W1" || strings.Join(got.Tickets, " ") != other || got.Acts == nil {
		t.Errorf("in a cutover the configuration is %+v", got)
	}
	if got = config("--cutover="+dir, "--watch="+id); got.Watch != nil || strings.Join(got.Tickets, " ") != id {
		t.Errorf("in a cutover, with a ticket of its own and no key, the configuration is %+v", got)
	}
}

// The line of an event is its envelope, and behind it what the receiver knows.
func TestEventLine(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*receiver.Event){
		``:               func(*receiver.Event) {},
		`,"stale":true`:  func(e *receiver.Event) { e.Claim.Stale = true },
		`,"ticket":null`: func(e *receiver.Event) { e.Refetched = true },
		`,"stale":true,"ticket":{"a":1}`: func(e *receiver.Event) {
			e.Claim.Stale, e.Refetched, e.Current = true, true, &client.Ticket{Raw: []byte("{ \"a\": 1 }")}
		},
	} {
		e := natsEvent("e1")
		change(e)
		line, err := eventLine(e)
		if got := string(line); got != `{"event_id":"e1","event_type":"ticket.created"`+want+"}\n" || err != nil {
			t.Errorf("the line is %s, %v", got, err)
		}
	}
}

// A file that gets the events is its owner's, and a line that was cut off does not
// spoil the next one. What comes behind a part that failed does not run.
func TestAppend(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "events.jsonl")
	var out bytes.Buffer
	r, err := (&reactionFlags{Append: file, Exec: "cat", ReactTimeout: time.Minute}).reaction(terminal{out: &out}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"e1", "e2"} {
		if err := r.run(t.Context(), natsEvent(id)); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("the file is %v, %v", info.Mode(), err)
	}
	text, err := os.ReadFile(file)
	if err != nil || string(text) != out.String() {
		t.Errorf("the file has %q, and the command got %q: %v", text, out.String(), err)
	}
	whole := string(text)
	if err := os.Truncate(file, int64(len(whole)-3)); err != nil {
		t.Fatal(err)
	}
	if err := r.run(t.Context(), natsEvent("e3")); err != nil {
		t.Fatal(err)
	}
	if text, err = os.ReadFile(file); err != nil || !strings.HasPrefix(string(text), whole[:len(whole)-3]+"\n{\"event_id\":\"e3\"") {
		t.Errorf("behind a line that was cut off the file has %q, %v", text, err)
	}
	out.Reset()
	r, err = (&reactionFlags{Append: filepath.Join(file, "x"), Exec: "cat", ReactTimeout: time.Minute}).reaction(terminal{out: &out}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.run(t.Context(), natsEvent("e4")); err == nil || !strings.HasPrefix(err.Error(), "--append: ") || out.Len() > 0 {
		t.Errorf("a file that cannot be written is %v, and the command got %q", err, out.String())
	}
}

// What is forwarded is signed with the first secret and says which attempt it is.
// What its target answers is cut and steers no terminal, and a target with a password,
// which no request would be sent to, is refused.
func TestForward(t *testing.T) {
	t.Parallel()
	e := natsEvent("e1")
	e.Attempt = 3
	answer := http.StatusOK
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		err := webhook.Verify(r.Header.Get(webhook.SignatureHeader), body, time.Now(), "first")
		if err != nil || !bytes.Equal(body, e.Raw) || r.Header.Get("X-Alga-Delivery-Attempt") != "3" || !strings.HasPrefix(r.UserAgent(), "Ticketwire/") {
			t.Errorf("forwarded %s with %v: %v", body, r.Header, err)
		}
		w.WriteHeader(answer)
		io.WriteString(w, "\x1b[31m"+strings.Repeat("no ", 100))
	}))
	t.Cleanup(target.Close)
	f := &reactionFlags{Forward: target.URL, To: receiverFlags{Timeout: 30 * time.Second}}
	r, err := f.reaction(terminal{}, slog.New(slog.DiscardHandler), func() []string { return []string{"first", "second"} })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	if err := r.run(t.Context(), e); err != nil {
		t.Error(err)
	}
	answer = http.StatusServiceUnavailable
	err = r.run(t.Context(), e)
	if err == nil || !strings.Contains(err.Error(), "503 [31mno no ") || !strings.HasSuffix(err.Error(), "...") {
		t.Errorf("a receiver that is not ready is %v", err)
	}
	for _, secret := range []string{"http://ada:hunter2@127.0.0.1:1/", "http://ada:hunter2@127.0.0.1:x/", "http://ada:hunter2%@h/"} {
		if _, err := f.To.sender("--forward", secret); err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "--forward must not contain") {
			t.Errorf("a target with a password is %v", err)
		}
	}
	// Nobody's certificate will do, unless it is said.
	secure := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	for insecure, want := range map[bool]bool{false: false, true: true} {
		s, err := receiverFlags{Timeout: 30 * time.Second, Insecure: insecure}.sender("--to", secure.URL)
		if err != nil {
			t.Fatal(err)
		}
		if a := s.post(t.Context(), e.Raw, 1, ""); a.OK() != want {
			t.Errorf("insecure %t: %+v", insecure, a)
		}
		s.client.Close()
	}
}
