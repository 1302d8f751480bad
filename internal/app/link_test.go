//go:build !noconsole

package app_test

import (
	"io"
	"mime/quotedprintable"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
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
