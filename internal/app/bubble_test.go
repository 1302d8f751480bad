package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/ticketwire/ticketwire/internal/api"
	"github.com/ticketwire/ticketwire/internal/app"
	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/test/pipe"
	"github.com/ticketwire/ticketwire/webhook"
)

// hit is one request that reached the receiver.
type hit struct {
	at      time.Time
	attempt string
	event   string
	kind    string
	body    []byte
	sigErr  error
}

// bubble is a whole service in fake time: its API, one receiver and one mail
// server are real servers on pipes, its store is the real one on disk.
type bubble struct {
	t        *testing.T
	app      *app.App
	cfg      app.Config
	api      *http.Client
	tenant   store.Bootstrapped
	start    time.Time
	receiver *pipe.Listener

	mu     sync.Mutex
	door   *pipe.Listener // of the API
	status int            // what the receiver answers
	secret string
	hits   []hit
	mails  []string
	noMail bool
	serve  http.HandlerFunc // receives in place of the bubble; nil for none
}

// openBubble starts everything. It must be called inside a synctest bubble.
func openBubble(t *testing.T, change func(*app.Config)) *bubble {
	b := &bubble{t: t, status: http.StatusOK, start: time.Now(), receiver: pipe.Listen()}
	mailPipes := pipe.Listen()
	policy := delivery.DefaultPolicy()
	policy.Jitter = 0
	cfg := app.Config{
		DataDir: t.TempDir(), PublicURL: "http://desk.example", Policy: policy, Retention: 30 * 24 * time.Hour,
		MaxWebhooks: 50, SMTPURL: "smtp://127.0.0.1:25?tls=none", MailFrom: "desk@example.com",
		Rate: api.DefaultRate(), Enforce: false, Log: slog.New(slog.DiscardHandler),
		DialTarget: b.receiver.Dial, DialMail: mailPipes.Dial,
	}
	if change != nil {
		change(&cfg)
	}
	b.cfg = cfg
	b.begin()
	var err error
	if b.tenant, err = b.app.Store().Bootstrap(t.Context(), time.Now(), store.BootstrapDraft{
		Tenant: "Bubble", Email: "creator@example.com", FirstName: "Mara", LastName: "Lindqvist",
	}); err != nil {
		t.Fatal(err)
	}
	hook := &http.Server{Handler: http.HandlerFunc(b.receive)}
	go hook.Serve(b.receiver)
	mailServer := smtp.NewServer(b)
	mailServer.Domain = "localhost"
	mailServer.AllowInsecureAuth = true
	mailServer.ErrorLog = log.New(io.Discard, "", 0) // it complains when a client hangs up after QUIT
	go mailServer.Serve(mailPipes)
	b.api = &http.Client{Transport: &http.Transport{DialContext: b.dial}}
	t.Cleanup(func() {
		stop, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		b.api.CloseIdleConnections()
		if err := b.app.Stop(stop); err != nil {
			t.Errorf("stop: %v", err)
		}
		hook.Close()
		mailServer.Close()
		synctest.Wait()
	})
	return b
}

// begin starts the service, or starts it again on its data.
func (b *bubble) begin() {
	b.t.Helper()
	door := pipe.Listen()
	b.cfg.Listener = door
	var err error
	if b.app, err = app.New(b.t.Context(), b.cfg); err == nil {
		err = b.app.Start(b.t.Context())
	}
	if err != nil {
		b.t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.door = door
}

// dial connects to the service, or fails while it does not run.
func (b *bubble) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	b.mu.Lock()
	door := b.door
	b.mu.Unlock()
	return door.Dial(ctx, network, addr)
}

func (b *bubble) receive(w http.ResponseWriter, r *http.Request) {
	if b.serve != nil {
		b.serve(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		b.t.Errorf("read a webhook: %v", err)
	}
	if r.URL.Path == "/hang" {
		<-r.Context().Done()
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hits = append(b.hits, hit{
		at: time.Now(), attempt: r.Header.Get(webhook.AttemptHeader), event: r.Header.Get(webhook.EventIDHeader),
		kind: r.Header.Get(webhook.EventTypeHeader), body: body,
		sigErr: webhook.Verify(r.Header.Get(webhook.SignatureHeader), body, time.Now(), b.secret),
	})
	w.WriteHeader(b.status)
}

func (b *bubble) answer(status int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status = status
}

// seen returns the requests for one event type so far.
func (b *bubble) seen(kind string) []hit {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []hit
	for _, h := range b.hits {
		if h.kind == kind {
			out = append(out, h)
		}
	}
	return out
}

func (b *bubble) mailed() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.mails...)
}

// refuseMail makes the SMTP server refuse for the moment what it is sent.
func (b *bubble) refuseMail(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.noMail = on
}

// NewSession, and the methods of mailSession below, make the bubble an SMTP
// server that keeps what it is sent.
func (b *bubble) NewSession(*smtp.Conn) (smtp.Session, error) { return mailSession{b}, nil }

type mailSession struct{ b *bubble }

func (mailSession) Reset()                               {}
func (mailSession) Logout() error                        { return nil }
func (mailSession) Mail(string, *smtp.MailOptions) error { return nil }
func (mailSession) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (s mailSession) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	if s.b.noMail {
		return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "later"}
	}
	s.b.mails = append(s.b.mails, string(text))
	return err
}

// ask makes a request of the service, whatever the answer is.
func (b *bubble) ask(method, path string, in any) (status int, text string) {
	b.t.Helper()
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			b.t.Fatal(err)
		}
	}
	r, err := http.NewRequestWithContext(b.t.Context(), method, "http://desk.example"+path, bytes.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("X-API-Key", b.tenant.APIKey)
	res, err := b.api.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return res.StatusCode, string(answer)
}

// call makes an API request and decodes the answer of a success.
func (b *bubble) call(method, path string, in any) map[string]any {
	b.t.Helper()
	status, text := b.ask(method, "/api/v1"+path, in)
	var out map[string]any
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		b.t.Fatalf("%s %s: %v", method, path, err)
	}
	if status >= 300 {
		b.t.Fatalf("%s %s answered %d: %v", method, path, status, out)
	}
	return out
}

func (b *bubble) createWebhook(more map[string]any) string {
	b.t.Helper()
	in := map[string]any{"name": "hook", "url": "http://receiver.example/in", "event_types": delivery.EventTypes()}
	maps.Copy(in, more)
	data := b.call("POST", "/webhooks", in)["data"].(map[string]any)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.secret = data["signing_secret"].(string)
	return data["webhook_id"].(string)
}

func (b *bubble) createTicket() string {
	b.t.Helper()
	data := b.call("POST", "/tickets", map[string]any{
		"title": "Printer", "board_id": b.tenant.BoardID, "client_id": b.tenant.ClientID,
		"status_id": b.tenant.Statuses["Open"], "priority_id": b.tenant.Priorities["High"],
	})["data"].(map[string]any)
	return data["ticket_id"].(string)
}

func (b *bubble) retitle(id string, n int) {
	b.t.Helper()
	b.call("PUT", "/tickets/"+id, map[string]any{"title": fmt.Sprintf("Printer %d", n)})
}

// deliveries returns the log of a webhook, newest first.
func (b *bubble) deliveries(webhookID, query string) []map[string]any {
	b.t.Helper()
	var out []map[string]any
	for _, d := range b.call("GET", "/webhooks/"+webhookID+"/deliveries?limit=100&"+query, nil)["data"].([]any) {
		out = append(out, d.(map[string]any))
	}
	return out
}

// sleep lets fake time pass and everything that falls due happen.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
