package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/api"
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
