package app_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ticketwire/ticketwire/internal/api"
	"github.com/ticketwire/ticketwire/internal/app"
	"github.com/ticketwire/ticketwire/webhook"
)

// What an operator forbids is forbidden.
func TestOperatorsLimits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := openBubble(t, func(c *app.Config) {
			c.HTTPSOnly, c.VerifyTLS, c.MaxWebhooks, c.PublicURL = true, true, 1, "https://desk.example//"
			c.Rate, c.Enforce = api.Rate{MaxTokens: 6, RefillPerMin: 1}, true
		})
		if got := b.app.PublicURL(); got != "https://desk.example" {
			t.Errorf("the public URL is %s", got)
		}
		hook := func(url string, verify bool) map[string]any {
			return map[string]any{"name": "n", "url": url, "verify_ssl": verify, "event_types": []string{webhook.TicketCreated}}
		}
		const receiver = "https://receiver.example/in"
		for _, x := range []struct {
			in     any
			status int
			says   string
		}{
			{hook("http://receiver.example/in", true), 400, "must use HTTPS"},
			{hook(receiver, false), 400, "verify_ssl"},
			{hook(receiver, true), 201, "signing_secret"},
			{hook(receiver, true), 409, "1 webhook"},
		} {
			if status, text := b.ask("POST", "/api/v1/webhooks", x.in); status != x.status || !strings.Contains(text, x.says) {
				t.Errorf("%v: %d %s, want %d with %q", x.in, status, text, x.status, x.says)
			}
		}
		for i, want := range []int{200, 200, 429} {
			if status, text := b.ask("GET", "/api/v1/webhooks", nil); status != want {
				t.Errorf("call %d answers %d %s, want %d", 5+i, status, text, want)
			}
		}
	})
}

// What a request to a receiver has beside the contract's is for the operator to say.
func TestOperatorsRequests(t *testing.T) {
	t.Parallel()
	for _, on := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := openBubble(t, func(c *app.Config) {
				if on {
					c.Standard, c.Threads, c.Version = true, true, "1.2.3"
				}
			})
			var mu sync.Mutex
			var agent, body string
			var standard bool
			b.serve = func(_ http.ResponseWriter, r *http.Request) {
				text, _ := io.ReadAll(r.Body)
				mu.Lock()
				defer mu.Unlock()
				agent, body, standard = r.Header.Get("User-Agent"), string(text), r.Header.Get(webhook.StandardSignatureHeader) != ""
			}
			b.createWebhook(map[string]any{"event_types": []string{webhook.TicketUpdated}})
			id := b.createTicket()
			b.call("POST", "/tickets/"+id+"/comments", map[string]any{"comment_text": "a note"})
			sleep(time.Minute)
			b.retitle(id, 1)
			sleep(time.Minute)
			mu.Lock()
			defer mu.Unlock()
			want := "Ticketwire"
			if on {
				want = "Ticketwire/1.2.3"
			}
			if agent != want || standard != on || strings.Contains(body, "a note") != on {
				t.Errorf("asked for %t: sent by %q, Standard Webhooks %t, %s", on, agent, standard, body)
			}
		})
	}
}

// What is owed is what the metrics say.
func TestMetricsOfTheBacklog(t *testing.T) {
	t.Parallel()
	for _, one := range []func(*app.Config){func(c *app.Config) { c.PerWebhook = 1 }, func(c *app.Config) { c.InFlight = 1 }} {
		synctest.Test(t, func(t *testing.T) { backlogOf(t, openBubble(t, one)) })
	}
}

func backlogOf(t *testing.T, b *bubble) {
	t.Helper()
	tells := func(want string) {
		t.Helper()
		_, text := b.ask("GET", "/metrics", nil)
		got := regexp.MustCompile(`(?m)^ticketwire_(?:(?:deliveries|mails|oldest|dispatcher)_(?:due|pending|due_seconds|idle_seconds)|ready) .*$`).FindAllString(text, -1)
		if line := strings.ReplaceAll(strings.Join(got, ", "), "ticketwire_", ""); line != want {
			t.Errorf("after %s the metrics are\n%s, want\n%s", time.Since(b.start), line, want)
		}
	}
	tells("deliveries_due 0, deliveries_pending 0, dispatcher_idle_seconds 0, mails_pending 0, oldest_due_seconds 0, ready 1")
	// One of three is asked for at a time, and hangs for ten seconds.
	b.createWebhook(map[string]any{"url": "http://receiver.example/hang", "event_types": []string{webhook.TicketCreated}})
	for range 3 {
		b.createTicket()
	}
	b.refuseMail(true)
	b.post("/console/sign-in/mail", url.Values{"address": {"creator@example.com"}})
	sleep(13 * time.Second)
	tells("deliveries_due 2, deliveries_pending 3, dispatcher_idle_seconds 3, mails_pending 1, oldest_due_seconds 13, ready 1")
}

// Whoever is slow, or has no end, is cut off.
func TestServerIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := openBubble(t, nil)
		for _, x := range []struct {
			name, send string
			rest       time.Duration // before the answer is read
			after      time.Duration // the connection ends
			says       string
		}{
			{"half a header", "GET /healthz HTTP/1.1\r\nHost: x\r\n", 0, 10 * time.Second, ""},
			{
				"half a body", "POST /api/v1/tickets HTTP/1.1\r\nHost: x\r\nX-API-Key: " + b.tenant.APIKey + "\r\nContent-Length: 9\r\n\r\n{", 0,
				30 * time.Second, "HTTP/1.1 400",
			},
			{"nothing more", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 0, 2 * time.Minute, "HTTP/1.1 200"},
			{"nobody who reads", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 61 * time.Second, 61 * time.Second, ""},
			{"a header without end", "GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 80<<10), 0, 0, "HTTP/1.1 431"},
		} {
			conn, err := b.dial(t.Context(), "tcp", "")
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			go io.WriteString(conn, x.send) // the server may not take all of it
			time.Sleep(x.rest)
			text, _ := io.ReadAll(bufio.NewReader(conn))
			if took := time.Since(began); took.Truncate(time.Second) != x.after || !strings.HasPrefix(string(text), x.says) || x.says == "" && len(text) > 0 {
				t.Errorf("%s: after %s %.100q, want %s and %q", x.name, took, text, x.after, x.says)
			}
			conn.Close()
		}
	})
}

// The service speaks TLS 1.2 or later, and HTTP/2, and its links say so.
func TestTLS(t *testing.T) {
	t.Parallel()
	other := httptest.NewUnstartedServer(nil) // it has a certificate for 127.0.0.1
	other.StartTLS()
	defer other.Close()
	cert := other.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cfg := measured(t.TempDir(), "", time.Now)
	for name, block := range map[*string]*pem.Block{
		&cfg.TLSCert: {Type: "CERTIFICATE", Bytes: cert.Certificate[0]}, &cfg.TLSKey: {Type: "PRIVATE KEY", Bytes: key},
	} {
		*name = filepath.Join(t.TempDir(), "file.pem")
		if err := os.WriteFile(*name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a := run(t, cfg)
	if want := "https://" + a.Addr(); a.PublicURL() != want {
		t.Errorf("the public URL is %s, want %s", a.PublicURL(), want)
	}
	roots := x509.NewCertPool()
	roots.AddCert(other.Certificate())
	if conn, err := tls.Dial("tcp", a.Addr(), &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil {
		conn.Close()
		t.Error("it speaks TLS 1.1")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MaxVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport}).Get(a.PublicURL() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.ProtoMajor != 2 {
		t.Errorf("it speaks %s", res.Proto)
	}
}

// A start that fails leaves nothing open, and one service at a time delivers
// from a directory.
func TestStartsThatFail(t *testing.T) {
	t.Parallel()
	cfg := measured(t.TempDir(), "", time.Now)
	bad := cfg
	bad.SMTPURL = "ftp://mail.example.com"
	if _, err := app.New(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "smtp-url") {
		t.Fatalf("a wrong setting: %v", err)
	}
	first, err := app.New(t.Context(), cfg)
	if err != nil {
		t.Fatalf("after a start that failed: %v", err)
	}
	if _, err := app.New(t.Context(), cfg); err == nil {
		t.Error("two services deliver from one directory")
	}
	bad = cfg
	bad.Listen = first.Addr()
	if _, err := app.New(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "listen on "+first.Addr()) {
		t.Errorf("a port that is taken: %v", err)
	}
	if err := first.Stop(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
}

// Webhooks whose secrets the key file does not open get nothing: that is an error in
// the log of the start.
func TestAnotherKeyFileIsLogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		other := measured(t.TempDir(), "", time.Now)
		s, err := app.Open(t.Context(), other)
		if err == nil {
			err = s.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		b := openBubble(t, nil)
		b.createWebhook(nil)
		for _, file := range []string{"", filepath.Join(other.DataDir, "secret.key")} {
			var logged bytes.Buffer
			b.cfg.SecretKeyFile, b.cfg.Log = file, slog.New(slog.NewTextHandler(&logged, nil))
			b.restart(t, time.Second)
			synctest.Wait()
			if is := strings.Contains(logged.String(), "level=ERROR msg=\"the key file does not open the secrets of webhooks"); is != (file != "") || is && !strings.Contains(logged.String(), "unopened=1 tried=1") {
				t.Errorf("with the key file %q is logged: %s", file, logged.String())
			}
		}
	})
}
