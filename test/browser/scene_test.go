// Package browser tests the console in a real browser: Debian's chromium, headless.
package browser

import (
	"context"
	"database/sql"
	"io"
	"log"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	_ "modernc.org/sqlite" // the charts' history is written into the database

	"github.com/ticketwire/ticketwire/internal/api"
	"github.com/ticketwire/ticketwire/internal/app"
	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/ticket"
	"github.com/ticketwire/ticketwire/webhook"
)

// patience is how long a test waits for what happens in the background. It is only
// ever spent in full by a test that fails.
const patience = 30 * time.Second

// hostile is a text that does harm where it is not escaped, hides where control
// characters are let through, and reads backwards where its direction is obeyed.
const hostile = `"><script>alert(1)</script><img src=x onerror=alert(1)> ` + "\u202egnp.exe\u202c \x1b[31m\x07 \u200f"

// scene is a running service with two tenants and receivers.
type scene struct {
	app  *app.App
	dir  string
	a, b store.Bootstrapped
	who  ticket.Actor // of tenant a

	receiver *httptest.Server
	mails    chan string  // what the SMTP server was sent
	down     atomic.Bool  // the receiver answers 503
	got      atomic.Int64 // requests that were accepted
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{}
	s.receiver = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if s.down.Load() || r.URL.Path == "/broken" {
			w.Header().Set("X-Reason", "<b>bold</b>")
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, "down for a restart "+hostile)
			return
		}
		if r.URL.Path == "/gone" {
			w.WriteHeader(http.StatusGone)
			return
		}
		s.got.Add(1)
		io.WriteString(w, `{"accepted":true}`)
	}))
	t.Cleanup(s.receiver.Close)
	s.mails = make(chan string, 100)
	policy := delivery.DefaultPolicy()
	policy.Jitter = 0
	policy.Schedule = []time.Duration{500 * time.Millisecond, 30 * time.Minute, 2 * time.Hour}
	s.dir = t.TempDir()
	a, err := app.New(t.Context(), app.Config{
		Listen: "127.0.0.1:0", DataDir: s.dir, Version: "test", Policy: policy,
		AllowTargets: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		SMTPURL:      "smtp://" + s.smtp(t) + "?tls=none", MailFrom: "desk@example.com",
		Rate: api.DefaultRate(), Enforce: true, Retention: 720 * time.Hour, MaxWebhooks: 50,
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.app = a
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := a.Stop(ctx); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	s.a = s.bootstrap(t, "Harbour Desk", "Ada", "Lovelace")
	s.b = s.bootstrap(t, "Other Desk", "Eve", "Other")
	s.who = ticket.Actor{TenantID: s.a.TenantID, UserID: s.a.UserID, Name: new("Ada Lovelace")}
	return s
}

// smtp starts an SMTP server that keeps what it is sent, and returns its address.
func (s *scene) smtp(t *testing.T) string {
	t.Helper()
	listener := must((&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0"))(t)
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return mailSession{s}, nil }))
	server.ErrorLog = log.New(io.Discard, "", 0)
	var served sync.WaitGroup
	served.Go(func() { server.Serve(listener) })
	t.Cleanup(func() {
		server.Close()
		served.Wait()
	})
	return listener.Addr().String()
}

type mailSession struct{ s *scene }

func (mailSession) Reset()                               {}
func (mailSession) Logout() error                        { return nil }
func (mailSession) Mail(string, *smtp.MailOptions) error { return nil }
func (mailSession) Rcpt(string, *smtp.RcptOptions) error { return nil }

// Data keeps a mail.
func (m mailSession) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	m.s.mails <- string(text)
	return err
}

func (s *scene) bootstrap(t *testing.T, name, first, last string) store.Bootstrapped {
	t.Helper()
	return must(s.app.Store().Bootstrap(t.Context(), time.Now(), store.BootstrapDraft{
		Tenant: name, Email: first + "@desk.example", FirstName: first, LastName: last,
	}))(t)
}

// link is a one-time link for tenant a's user.
func (s *scene) link(t *testing.T) string {
	t.Helper()
	token := must(s.app.Store().NewLink(t.Context(), time.Now(), s.a.TenantID, s.a.UserID))(t)
	return s.app.PublicURL() + "/console/link?token=" + url.QueryEscape(token)
}

// open opens a ticket of tenant a.
func (s *scene) open(t *testing.T, title, priority string, tags ...string) ticket.Ticket {
	t.Helper()
	return must(s.app.Store().CreateTicket(t.Context(), time.Now(), s.who, ticket.Draft{
		Title: title, BoardID: s.a.BoardID, ClientID: s.a.ClientID, StatusID: s.a.Statuses["Open"],
		PriorityID: s.a.Priorities[priority], ContactNameID: &s.a.ContactID, Tags: tags,
	}))(t)
}

func (s *scene) patch(t *testing.T, id string, p ticket.Patch) {
	t.Helper()
	must(s.app.Store().UpdateTicket(t.Context(), time.Now(), s.who, id, p))(t)
}

// hook subscribes the receiver, at a path, to all that fires.
func (s *scene) hook(t *testing.T, name, path string, change func(*delivery.Spec)) delivery.Webhook {
	t.Helper()
	spec := delivery.Spec{
		Name: name, URL: s.receiver.URL + path, Method: "POST", VerifySSL: true, IsActive: true,
		EventTypes: []string{
			webhook.TicketCreated, webhook.TicketUpdated, webhook.TicketStatusChanged,
			webhook.TicketAssigned, webhook.TicketClosed, webhook.TicketCommentAdded,
		},
	}
	if change != nil {
		change(&spec)
	}
	w, _, err := s.app.Store().CreateWebhook(t.Context(), time.Now(), s.who, spec)
	return must(w, err)(t)
}

// work is a morning at the desk: something of everything that the pages show.
func (s *scene) work(t *testing.T) (worked ticket.Ticket, good, broken delivery.Webhook) {
	t.Helper()
	ctx := t.Context()
	good = s.hook(t, "Status board", "/board", nil)
	s.hook(t, "Chat of the night shift", "/chat", func(sp *delivery.Spec) {
		sp.EventTypes = []string{webhook.TicketCreated, webhook.TicketClosed}
		sp.CustomHeaders = map[string]string{"X-Room": "night"}
	})
	broken = s.hook(t, "Billing import", "/broken", func(sp *delivery.Spec) {
		sp.EventTypes = []string{webhook.TicketStatusChanged, webhook.TicketClosed}
	})
	for _, line := range []struct{ title, priority, tag string }{
		{"VPN drops every ten minutes", "High", "vpn"}, {"New laptop for the accounts team", "Low", "hardware"},
		{"Shared mailbox is full", "Medium", "mail"}, {"Door badge does not open floor 2", "Medium", "access"},
		{"Phone system: no ring tone since the update of Tuesday night, only on the handsets of the second floor, and only when the caller is outside", "High", "phone"},
	} {
		s.open(t, line.title, line.priority, line.tag)
	}
	worked = s.open(t, "Label printer offline in warehouse 3", "High", "printer", "warehouse")
	s.patch(t, worked.TicketID, ticket.Patch{AssignedTo: ticket.Some(&s.a.UserID)})
	s.patch(t, worked.TicketID, ticket.Patch{StatusID: ticket.Some(s.a.Statuses["In Progress"])})
	must(s.app.Store().AddComment(ctx, time.Now(), s.who, worked.TicketID, ticket.CommentDraft{
		Text: "Power-cycled the switch; the printer answers again, but drops jobs over 40 labels.",
	}))(t)
	s.patch(t, worked.TicketID, ticket.Patch{Title: ticket.Some("Label printer drops large jobs in warehouse 3")})
	return worked, good, broken
}

// delivery waits until n deliveries of a webhook have a status, and is the newest.
func (s *scene) delivery(t *testing.T, w delivery.Webhook, status delivery.Status, n int) (id string) {
	t.Helper()
	waitFor(t, string(status)+" delivery to "+w.Name, func() bool {
		rows := must(s.app.Store().SearchDeliveries(t.Context(), s.a.TenantID, store.DeliverySearch{
			WebhookID: w.WebhookID, Status: string(status),
		}))(t).Rows
		if len(rows) < n {
			return false
		}
		id = rows[0].DeliveryID
		return true
	})
	return id
}

// failed is a failed delivery of a webhook, which has been retried once.
func (s *scene) failed(t *testing.T, w delivery.Webhook) string {
	t.Helper()
	return s.delivery(t, w, delivery.Retrying, 2)
}

// morning makes an hour of traffic that there was not, for the charts.
func (s *scene) morning(t *testing.T) {
	t.Helper()
	db := must(sql.Open("sqlite", "file:"+filepath.Join(s.dir, "ticketwire.db")+"?_pragma=busy_timeout(5000)"))(t)
	defer db.Close()
	minute := time.Now().Unix() / 60
	for i := int64(1); i < 60; i++ {
		n := 40 + 25*math.Sin(float64(i)/9) + float64(i*7%11)
		failed := 0.0
		if i > 14 && i < 22 {
			failed = n / 3
		}
		must(db.ExecContext(t.Context(), `insert into delivery_minutes (tenant_id, minute, delivered, failed, under_10, under_25,
			under_50, under_100, under_250, under_500, under_1000, under_2500, under_5000, under_10000, slower)
			values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, $10, 0, 0, 0, 0)`,
			s.a.TenantID, minute-i, int(n-failed), int(failed), int(n/5), int(n/3), int(n/5), int(n/8), int(n/9), int(failed/4)))(t)
	}
}
