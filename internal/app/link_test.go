//go:build !noconsole

package app_test

import (
	"fmt"
	"io"
	"log/slog"
	"mime/quotedprintable"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ticketwire/ticketwire/internal/app"
)

// post sends a form of the console and returns status and page; redirects are not
// followed.
func (b *bubble) post(path string, form url.Values) (int, string) {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, "http://desk.example"+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := b.api.Transport.RoundTrip(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	page, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return res.StatusCode, string(page)
}

// Somebody without a key types his address, and the link in the mail that comes
// signs him in, at once, and once.
func TestLinkComesByMail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := openBubble(t, nil)
		for _, address := range []string{"nobody@example.com", "Creator@Example.com"} {
			if status, page := b.post("/console/sign-in/mail", url.Values{"address": {address}}); status != http.StatusOK || !strings.Contains(page, "on its way") {
				t.Fatalf("asking answers %d: %s", status, page)
			}
		}
		sleep(time.Second)
		mails := b.mailed()
		if len(mails) != 1 || !strings.Contains(mails[0], "To: <creator@example.com>") || !strings.Contains(mails[0], `Subject: Sign in to "Bubble"`) {
			t.Fatalf("the mails are %q", mails)
		}
		text, err := io.ReadAll(quotedprintable.NewReader(strings.NewReader(mails[0])))
		if err != nil && len(text) == 0 {
			t.Fatal(err)
		}
		links := regexp.MustCompile(`http://desk\.example/console/link\?token=([A-Za-z0-9_-]+)`).FindStringSubmatch(string(text))
		if len(links) != 2 {
			t.Fatalf("there is no link in\n%s", text)
		}
		for i, want := range []int{http.StatusSeeOther, http.StatusUnauthorized} {
			if status, _ := b.post("/console/link", url.Values{"token": {links[1]}}); status != want {
				t.Errorf("use %d of the link answers %d, want %d", i+1, status, want)
			}
		}
	})
}

// A mail that waited for its server until its link had ended is not sent.
func TestLateLinkIsNotSent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := openBubble(t, nil)
		b.refuseMail(true)
		b.post("/console/sign-in/mail", url.Values{"address": {"creator@example.com"}})
		sleep(10 * time.Minute)
		b.refuseMail(false)
		sleep(24 * time.Hour)
		if mails := b.mailed(); len(mails) != 0 {
			t.Errorf("it was sent: %q", mails)
		}
		backlog, err := b.app.Store().Backlog(t.Context(), time.Now())
		if err != nil || backlog.Mails != 0 {
			t.Errorf("%d mails wait, %v", backlog.Mails, err)
		}
	})
}

// The limit of mails with links counts clients, and not the two proxies that are
// between. Where no proxy is trusted, it counts the last proxy; and what a client says
// of himself never counts.
func TestLinkLimitCountsClients(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		trusted []netip.Prefix
		other   int // status of a request of another client, after 20 of one
	}{
		{"the proxies are trusted", []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, http.StatusOK},
		{"nobody is trusted", nil, http.StatusTooManyRequests},
		{"others are trusted", []netip.Prefix{netip.MustParsePrefix("127.0.0.3/32")}, http.StatusTooManyRequests},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := run(t, app.Config{
				Listen: "127.0.0.1:0", TrustedProxies: tt.trusted, DataDir: t.TempDir(),
				SMTPURL: "smtp://127.0.0.1:25?tls=none", MailFrom: "desk@example.com", // nobody has an account, so nothing is sent
				Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
			})
			front := appendingProxy(t, appendingProxy(t, a.PublicURL()))
			// Around the proxies, somebody is who he is, whoever he says he is.
			for n := range 20 {
				for from, to := range map[string]string{"127.0.0.2": front, "127.0.0.4": a.PublicURL()} {
					if status := askForLink(t, from, to, n); status != http.StatusOK {
						t.Fatalf("request %d from %s answers %d", n+1, from, status)
					}
				}
			}
			for _, one := range []struct {
				from, to string
				want     int
			}{
				{"127.0.0.2", front, http.StatusTooManyRequests},
				{"127.0.0.3", front, tt.other},
				{"127.0.0.4", a.PublicURL(), http.StatusTooManyRequests},
			} {
				if status := askForLink(t, one.from, one.to, 20); status != one.want {
					t.Errorf("one more from %s answers %d, want %d", one.from, status, one.want)
				}
			}
		})
	}
}

// appendingProxy starts a proxy that adds whom it was asked by to the header as it
// came, which is what load balancers do, and returns its URL.
func appendingProxy(t *testing.T, behind string) string {
	t.Helper()
	to, err := url.Parse(behind)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	s := httptest.NewServer(&httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
			r.SetXForwarded()
		},
	})
	t.Cleanup(func() {
		s.Close()
		transport.CloseIdleConnections()
	})
	return s.URL
}

// askForLink asks for a mail, from an address of this machine, and says of itself that
// it is another one, a different one for each n.
func askForLink(t *testing.T, from, base string, n int) (status int) {
	t.Helper()
	form := url.Values{"address": {fmt.Sprintf("nobody%d@example.com", n)}}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/console/sign-in/mail", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("X-Forwarded-For", fmt.Sprintf("198.51.100.%d", n))
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	client := &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode
}
