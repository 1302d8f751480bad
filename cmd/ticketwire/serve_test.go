package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ticketwire/ticketwire/internal/api"
	"github.com/ticketwire/ticketwire/internal/app"
	"github.com/ticketwire/ticketwire/internal/delivery"
)

// The defaults stand in the flags, where the help shows them, and in the
// packages, where the rules are. They must say the same.
func TestFlagDefaultsAreThePolicy(t *testing.T) {
	t.Parallel()
	var f serviceFlags
	parser, err := kong.New(&f, kong.Vars{"warn_after": defaultWarnAfter})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(nil); err != nil {
		t.Fatal(err)
	}
	got, err := f.policy()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(delivery.DefaultPolicy(), got); diff != "" {
		t.Errorf("the flags differ from delivery.DefaultPolicy (-policy +flags):\n%s", diff)
	}
	if got := api.Rate(f.APIRate); got != api.DefaultRate() {
		t.Errorf("--api-rate is %v, api.DefaultRate %v", got, api.DefaultRate())
	}
}

// A setting that cannot work is refused at the start, with the flag's name.
func TestServeRefusesSettings(t *testing.T) {
	t.Parallel()
	for _, arg := range []string{
		"--in-flight=0", "--in-flight=-1", "--per-webhook=0", "--max-webhooks=-1", "--retention=0s", "--retention=-1h",
		"--public-url=desk.example.com", "--public-url=ftp://desk.example.com", "--public-url=https://",
		"--trusted-proxies=lb.example.com", "--trusted-proxies=10.0.0.0/33", "--trusted-proxies=0.0.0.0/0", "--trusted-proxies=10.0.0.1,::/0",
		"--trusted-proxies=::ffff:0.0.0.0/96",
		"--egress-proxy=proxy:3128", "--egress-proxy=http://proxy/path", "--egress-proxy=http://ada@proxy:3128",
		"--egress-bind=eth0", "--egress-bind=192.0.2.1", "--egress-bind=0.0.0.0",
	} {
		var f serviceFlags
		parser, err := kong.New(&f, kong.Vars{"warn_after": defaultWarnAfter})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.Parse([]string{arg}); err != nil {
			t.Fatal(err)
		}
		flag, _, _ := strings.Cut(arg, "=")
		_, err = f.config(io.Discard)
		if _, is := errors.AsType[usageError](err); !is || !strings.Contains(err.Error(), flag) {
			t.Errorf("%s: got %v, want a usage error that names the flag", arg, err)
		}
	}
}

// What is said on the command line is what the service does.
func TestServeFlagsReachTheService(t *testing.T) {
	t.Parallel()
	var f serviceFlags
	parser, err := kong.New(&f, kong.Vars{"warn_after": defaultWarnAfter})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse([]string{
		"--data=d", "--database-url=postgres://h/n", "--secret-key-file=k", "--listen=:1", "--public-url=https://p", "--tls-cert=c", "--tls-key=y",
		"--trusted-proxies=10.0.0.1", "--retry-schedule=1s,2s", "--retry-jitter=0.5", "--request-timeout=3s", "--disable-after=12h",
		"--remind-every=4h", "--no-gone-disables", "--allow-targets=10.0.0.0/8", "--https-only", "--no-allow-insecure-tls", "--in-flight=5",
		"--egress-bind=127.0.0.1", "--per-webhook=6", "--max-webhooks=7", "--comment-threads", "--standard-webhooks", "--retention=8h",
		"--api-rate=9/10", "--no-rate-limit-enforce", "--smtp-url=smtp://m:25", "--mail-from=a@example.com", "--log-level=warn", "--log-format=json",
	}); err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	got, err := f.config(&logged)
	if err != nil {
		t.Fatal(err)
	}
	got.Log.Info("not wanted")
	got.Log.Warn("wanted")
	if line := logged.String(); !strings.HasPrefix(line, "{") || strings.Contains(line, "not wanted") || !strings.Contains(line, `"level":"WARN"`) {
		t.Errorf("the log has %s", line)
	}
	want := app.Config{
		DataDir: "d", DatabaseURL: "postgres://h/n", SecretKeyFile: "k", Listen: ":1", PublicURL: "https://p", TLSCert: "c", TLSKey: "y", Version: version(),
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32")}, Policy: delivery.Policy{
			Schedule: []time.Duration{time.Second, 2 * time.Second}, Jitter: 0.5, Timeout: 3 * time.Second, DisableAfter: 12 * time.Hour,
			WarnAfter: []time.Duration{time.Hour}, RemindEvery: 4 * time.Hour, // who is switched off after 12 hours is not warned then
		},
		AllowTargets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, HTTPSOnly: true, VerifyTLS: true, EgressBind: netip.MustParseAddr("127.0.0.1"),
		InFlight: 5, PerWebhook: 6, MaxWebhooks: 7, Threads: true, Standard: true, Retention: 8 * time.Hour, Rate: api.Rate{MaxTokens: 9, RefillPerMin: 10},
		SMTPURL: "smtp://m:25", MailFrom: "a@example.com", Log: got.Log,
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b *slog.Logger) bool { return a == b }), cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})); diff != "" {
		t.Errorf("the configuration (-want +got):\n%s", diff)
	}
	if grace := (&serveCmd{f}).grace(); grace != 8*time.Second {
		t.Errorf("a stop waits %s, want longer than the slowest request", grace)
	}
}

// Who is trusted is who is listed, and by default nobody.
func TestServeTrustsListedProxies(t *testing.T) {
	t.Parallel()
	for list, want := range map[string]string{
		"":                                    "[]",
		"10.1.0.4, 10.2.3.4/16,2001:db8::/64": "[10.1.0.4/32 10.2.0.0/16 2001:db8::/64]",
	} {
		var f serviceFlags
		parser, err := kong.New(&f, kong.Vars{"warn_after": defaultWarnAfter})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.Parse([]string{"--trusted-proxies=" + list}); err != nil {
			t.Fatal(err)
		}
		cfg, err := f.config(io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(cfg.TrustedProxies); got != want {
			t.Errorf("%q: %s is trusted, want %s", list, got, want)
		}
	}
}

// Receivers make net/http write to the standard logger. That is for those who
// look for it, in the service's own form, and on one line.
func TestNetHTTPLogs(t *testing.T) { //nolint:paralleltest // the logger belongs to the process
	before, flags := log.Writer(), log.Flags()
	defer func() {
		log.SetOutput(before)
		log.SetFlags(flags)
	}()
	for level, want := range map[slog.Level]string{
		slog.LevelInfo:  "",
		slog.LevelDebug: "level=DEBUG msg=\"from a receiver: \\x1b[2J\\nlevel=ERROR\"\n",
	} {
		var out bytes.Buffer
		netHTTPLogsTo(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level})))
		log.Printf("from a receiver: %s", "\x1b[2J\nlevel=ERROR")
		_, line, _ := strings.Cut(out.String(), " ") // without the time
		if line != want {
			t.Errorf("at %v: got %q, want %q", level, line, want)
		}
	}
}
