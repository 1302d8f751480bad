package console_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// hook is a webhook whose receiver answers with the code, and gives up at once.
func (d *desk) hook(t *testing.T, name string, code *atomic.Int64) delivery.Webhook {
	t.Helper()
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(code.Load())) }))
	t.Cleanup(receiver.Close)
	w, _, err := d.store.CreateWebhook(t.Context(), time.Now(), d.who, delivery.Spec{
		Name: name, URL: receiver.URL, Method: "POST", EventTypes: []string{"ticket.created"}, VerifySSL: true, IsActive: true,
		RetryConfig: &delivery.RetryConfig{MaxAttempts: new(1)},
	})
	return must(w, err)(t)
}

func (d *desk) open(t *testing.T, title string) ticket.Ticket {
	t.Helper()
	return must(d.store.CreateTicket(t.Context(), time.Now(), d.who, ticket.Draft{
		Title: title, BoardID: d.a.BoardID, ClientID: d.a.ClientID, StatusID: d.a.Statuses["Open"], PriorityID: d.a.Priorities["Low"],
	}))(t)
}

// rows waits until so many rows of the log have a status and returns their ids.
func (d *desk) rows(t *testing.T, hook, status string, n int) []string {
	t.Helper()
	var ids []string
	d.until(t, fmt.Sprintf("%d rows are %s", n, status), func() bool {
		found := must(d.store.SearchDeliveries(t.Context(), d.a.TenantID, store.DeliverySearch{WebhookID: hook, Status: status, Limit: 100}))(t)
		ids = nil
		for _, row := range found.Rows {
			ids = append(ids, row.DeliveryID)
		}
		return len(ids) == n
	})
	return ids
}

// until waits for what happens in the background.
func (d *desk) until(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !is(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// What is ticked is counted first, and then sent: an event once, whatever failed,
// and to each webhook what is its own.
func TestResendOfASelection(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	var one, two atomic.Int64
	one.Store(500)
	two.Store(500)
	first, second := d.hook(t, "First", &one), d.hook(t, "Second", &two)
	for _, title := range []string{"a", "b", "c"} {
		d.open(t, title)
	}
	failed, also := d.rows(t, first.WebhookID, "abandoned", 3), d.rows(t, second.WebhookID, "abandoned", 3)
	one.Store(200)
	two.Store(200)
	d.open(t, "d")
	delivered := d.rows(t, first.WebhookID, "delivered", 1)
	b := d.signedIn(t, d.a.APIKey)

	_, list := b.get("/console/deliveries?status=abandoned")
	if n := strings.Count(list, `name="delivery"`); n != 6 || !strings.Contains(list, `action="/console/deliveries/resend"`) {
		t.Errorf("the list has %d boxes", n)
	}
	form := url.Values{"delivery": {failed[0], failed[1], also[0], delivered[0]}, "list": {"status=abandoned&x=%22%3E"}}
	r, page := b.post("/console/deliveries/resend", form)
	for _, want := range []string{"<strong>3</strong> events are sent again, 1 is left alone.", "was delivered", "Send 3 now", `href="/console/deliveries?status=abandoned&amp;x=%22%3E"`} {
		if r.StatusCode != http.StatusOK || !strings.Contains(page, want) {
			t.Errorf("counting answers %d without %q", r.StatusCode, want)
		}
	}
	if n := len(d.rows(t, first.WebhookID, "delivered", 1)); n != 1 {
		t.Error("counting has sent something")
	}
	form.Set("only", "all")
	if _, page := b.post("/console/deliveries/resend", form); !strings.Contains(page, "Send 4 now") {
		t.Error("what was delivered is not counted")
	}
	form.Del("only")
	form.Set("start", "on")
	r, _ = b.post("/console/deliveries/resend", form)
	to := r.Header.Get("Location")
	if r.StatusCode != http.StatusSeeOther || !strings.HasPrefix(to, "/console/deliveries/resend?job=") {
		t.Fatalf("sending answers %d and leads to %q", r.StatusCode, to)
	}
	d.rows(t, first.WebhookID, "delivered", 3)
	d.rows(t, second.WebhookID, "delivered", 2)
	if r, page := b.get(to); r.StatusCode != http.StatusOK || len(regexp.MustCompile(`id="progress-`).FindAllString(page, -1)) != 2 {
		t.Errorf("the progress answers %d", r.StatusCode)
	}
	if r, _ := d.signedIn(t, d.b.APIKey).get(to); r.StatusCode != http.StatusNotFound {
		t.Errorf("the progress answers %d to another tenant", r.StatusCode)
	}
	// Once more: what was sent is left alone, and the rest goes to one webhook.
	form["delivery"] = []string{failed[0], failed[1], failed[2]}
	if r, _ = b.post("/console/deliveries/resend", form); !strings.HasPrefix(r.Header.Get("Location"), "/console/webhooks/"+first.WebhookID+"/replays/") {
		t.Errorf("sending to one webhook answers %d and leads to %q", r.StatusCode, r.Header.Get("Location"))
	}
	d.rows(t, first.WebhookID, "delivered", 4)
	if r, page := b.post("/console/deliveries/resend", form); r.StatusCode != http.StatusConflict || !strings.Contains(page, "Nothing is sent again, 3 are left alone.") {
		t.Errorf("sending what was delivered answers %d", r.StatusCode)
	}
}

func TestWhatCannotBeResent(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	var code atomic.Int64
	code.Store(500)
	hook, gone := d.hook(t, "<i>Paused</i>", &code), d.hook(t, "Gone", &code)
	d.open(t, "a")
	failed, lost := d.rows(t, hook.WebhookID, "abandoned", 1), d.rows(t, gone.WebhookID, "abandoned", 1)
	b := d.signedIn(t, d.a.APIKey)
	b.post("/console/webhooks/"+hook.WebhookID+"/test", nil)
	test := d.rows(t, hook.WebhookID, "abandoned", 2)[0]
	b.post("/console/webhooks/"+hook.WebhookID+"/pause", nil)
	b.post("/console/webhooks/"+gone.WebhookID+"/delete", nil)
	form := url.Values{"delivery": {failed[0], lost[0], test}}
	r, page := b.post("/console/deliveries/resend", form)
	for _, want := range []string{"Nothing is sent again, 3 are left alone.", "was a test", "not active", "was deleted", "&lt;i&gt;Paused"} {
		if r.StatusCode != http.StatusOK || !strings.Contains(page, want) {
			t.Errorf("counting answers %d without %q", r.StatusCode, want)
		}
	}
	if strings.Contains(page, `name="start"`) {
		t.Error("the page offers to send nothing")
	}
	many := url.Values{}
	for range store.MaxReplayEvents + 1 {
		many.Add("delivery", store.NewID())
	}
	for what, form := range map[string]url.Values{"nothing": {}, "too many": many} {
		if r, page := b.post("/console/deliveries/resend", form); r.StatusCode != http.StatusBadRequest || !strings.Contains(page, `role="alert"`) {
			t.Errorf("%s ticked answers %d", what, r.StatusCode)
		}
	}
	if r, _ := d.signedIn(t, d.b.APIKey).post("/console/deliveries/resend", form); r.StatusCode != http.StatusNotFound {
		t.Errorf("another tenant's rows answer %d", r.StatusCode)
	}
	if _, page := d.signedIn(t, d.key(t, "webhook:read")).get("/console/deliveries"); strings.Contains(page, "checkbox") {
		t.Error("who may not retry is offered boxes")
	}
}

// Where one of two webhooks is busy, the page says what has begun, counts the rest
// once, and sends again only what has not begun.
func TestResendThatHalfBegins(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	var free, busy atomic.Int64
	free.Store(200)
	busy.Store(200)
	first, second := d.hook(t, "Free", &free), d.hook(t, "Busy", &busy)
	d.open(t, "a")
	sent := append(d.rows(t, first.WebhookID, "delivered", 1), d.rows(t, second.WebhookID, "delivered", 1)...)
	busy.Store(500)
	d.open(t, "b")
	sent = append(sent, d.rows(t, second.WebhookID, "abandoned", 1)...)
	// A replay that its rate limit makes last.
	w, _, err := d.store.UpdateWebhook(t.Context(), time.Now(), d.who, second.WebhookID, func(s *delivery.Spec) error {
		s.RateLimit = &delivery.RateLimit{RequestsPerMinute: new(1), BurstLimit: new(1)}
		return nil
	}, false)
	must(w, err)(t)
	for range 3 {
		d.open(t, "c")
	}
	running := must(d.store.StartReplay(t.Context(), time.Now(), d.a.TenantID, second.WebhookID, store.ReplayQuery{Since: time.Now().Add(-time.Hour), Only: store.ReplayAll}))(t)
	b := d.signedIn(t, d.a.APIKey)
	r, page := b.post("/console/deliveries/resend", url.Values{"delivery": sent, "only": {"all"}, "start": {"on"}})
	if r.StatusCode != http.StatusConflict || !strings.Contains(page, running.ReplayID) || !strings.Contains(page, "It has begun") {
		t.Fatalf("%d %s", r.StatusCode, page)
	}
	if !strings.Contains(page, "<strong>1</strong> event is sent again, 2 are left alone.") {
		t.Error("the count is not that of what has begun and of the rest")
	}
	if strings.Contains(page, `name="start"`) || strings.Contains(page, `name="delivery" value="`+sent[0]) || strings.Count(page, `name="delivery"`) != 2 {
		t.Error("the page sends again what has begun")
	}
	// What its webhook has had is among what cannot begin, and counts once.
	r, page = b.post("/console/deliveries/resend", url.Values{"delivery": sent[1:], "start": {"on"}})
	if r.StatusCode != http.StatusConflict || !strings.Contains(page, "Nothing is sent again, 2 are left alone.") {
		t.Errorf("%d %s", r.StatusCode, page)
	}
}
