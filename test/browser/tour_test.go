package browser

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/ticket"
	"github.com/ticketwire/ticketwire/webhook"
)

// tour goes through the console: every page in every state that it has.
type tour struct {
	*scene
	t    *testing.T
	tb   *tab
	look func(state string)

	worked              ticket.Ticket
	good, broken, slow  delivery.Webhook
	gone, paused, bring delivery.Webhook
}

// at opens a page and looks at it.
func (r *tour) at(name, path string) {
	r.t.Helper()
	r.tb.visit(path)
	r.look(name)
}

// after looks at what a button leads to.
func (r *tour) after(name, selector, sees string) {
	r.t.Helper()
	r.tb.click(selector)
	r.tb.sees(sees)
	r.look(name)
}

// tourOf calls look in every state, in a window for a desk by day.
func tourOf(t *testing.T, look func(tb *tab, state string)) {
	t.Helper()
	s := newScene(t)
	r := &tour{scene: s, t: t, tb: newTab(t, chromium(t), s.app.PublicURL())}
	r.look = func(state string) {
		look(r.tb, state)
		r.tb.window(1280, 800, "light")
	}
	r.tb.window(1280, 800, "light")
	r.signingIn()
	r.beginning()
	r.worked, r.good, r.broken = s.work(t)
	s.morning(t)
	r.trouble()
	r.tickets()
	r.webhooks()
	r.deliveries()
	r.replays()
	r.rest()
}

// Every page is for everybody, in every state, on every screen, in both themes.
func TestPagesAreAccessible(t *testing.T) {
	t.Parallel()
	tourOf(t, func(tb *tab, state string) {
		for _, screen := range []struct {
			width, height int64
			theme         string
		}{{1280, 800, "dark"}, {360, 740, "light"}} {
			tb.window(screen.width, screen.height, screen.theme)
			tb.accessible()
			tb.fits()
		}
		tb.window(1024, 768, "light") // two columns with the least room
		tb.fits()
		tb.lengthen()
		for _, width := range []int64{1280, 1024, 360} {
			tb.window(width, 740, "light")
			tb.fits()
		}
		if t.Failed() {
			t.Fatalf("that was %s", state)
		}
	})
}

func (r *tour) signingIn() {
	r.at("sign-in", "/console/sign-in")
	r.tb.fill("#key", "wrong")
	r.after("sign-in-wrong", "button.primary", "Invalid API key")
	r.tb.fill("#address", "ada")
	r.tb.unchecked("form.other button")
	r.after("sign-in-address", "form.other button", "must be a mail address")
	r.tb.fill("#address", "ada@desk.example")
	r.after("sign-in-mailed", "form.other button", "is on its way")
	r.tb.do(chromedp.Navigate(r.link(r.t)))
	r.look("sign-in-link")
	r.tb.click("button.primary")
	r.tb.sees("Overview")
}

// beginning is a desk on its first day.
func (r *tour) beginning() {
	for _, name := range []string{"overview", "tickets", "webhooks", "deliveries", "events", "cutover"} {
		r.at(name+"-empty", "/console/"+name)
	}
}

// trouble adds what does not go well, and what is written to do harm.
func (r *tour) trouble() {
	t := r.t
	events := func(types ...string) func(*delivery.Spec) {
		return func(sp *delivery.Spec) { sp.EventTypes = types }
	}
	r.gone = r.hook(t, "Old intranet", "/gone", events(webhook.TicketCommentAdded))
	r.paused = r.hook(t, "Reporting, until the move is over", "/reports", events(webhook.TicketCreated))
	r.slow = r.hook(t, "Archive", "/archive", func(sp *delivery.Spec) {
		sp.EventTypes = []string{webhook.TicketCreated}
		sp.RateLimit = &delivery.RateLimit{RequestsPerMinute: new(1)}
	})
	server := httptest.NewTLSServer(nil)
	server.Close() // only its certificate is wanted
	cert := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(server.TLS.Certificates[0].PrivateKey))(t)})
	r.bring = r.hook(t, "Vault of the bank", "/bank", func(sp *delivery.Spec) {
		sp.URL, sp.EventTypes = "https://127.0.0.1:1/bank", []string{webhook.TicketAssigned}
		sp.TLS = &delivery.TLS{ClientCert: cert, ClientKey: string(key), CABundle: cert}
		sp.CustomHeaders = map[string]string{"X-Branch": "7"}
		sp.EventFilter = &delivery.Filter{Tags: []string{"vpn", "printer"}}
	})
	w, _, err := r.app.Store().UpdateWebhook(t.Context(), time.Now(), r.who, r.paused.WebhookID, func(sp *delivery.Spec) error {
		sp.IsActive = false
		return nil
	}, false)
	must(w, err)(t)
	long := r.open(t, strings.Repeat("Unpausenuebersetzungsfehlerbehebung", 4)+" "+hostile, "Low", strings.Repeat("tag", 16), "עברית")
	must(r.app.Store().AddComment(t.Context(), time.Now(), r.who, long.TicketID, ticket.CommentDraft{Text: strings.Repeat("x", 300) + " " + hostile}))(t)
	r.open(t, "הדפסת תוויות לא עובדת במחסן 3", "High")
	for _, d := range []store.KeyDraft{
		{Name: "Poller of the accounts team", UsageLimit: new(int64(1000)), Permissions: []string{"ticket:read"}},
		{Name: "Nearly over", ExpiresAt: new(time.Now().Add(30 * time.Hour))},
		{Name: "Of last year", ExpiresAt: new(time.Now().Add(-2000 * time.Hour))},
	} {
		d.UserID = r.a.UserID
		k, _, err := r.app.Store().CreateKey(t.Context(), time.Now(), r.a.TenantID, d)
		must(k, err)(t)
	}
	r.patch(t, r.worked.TicketID, ticket.Patch{AssignedTo: ticket.Some[*string](nil)})
	r.patch(t, r.worked.TicketID, ticket.Patch{AssignedTo: ticket.Some(&r.a.UserID)})
	waitFor(t, "the webhook that is gone", func() bool {
		return !must(r.app.Store().Webhook(t.Context(), r.a.TenantID, r.gone.WebhookID))(t).IsActive
	})
}

func (r *tour) tickets() {
	r.at("overview", "/console/overview")
	r.at("overview-day", "/console/overview?range=day")
	r.at("tickets", "/console/tickets")
	r.at("tickets-filtered", "/console/tickets?board="+r.a.BoardID+"&client="+r.a.ClientID+"&tags=printer&opened_from=2026-01-01T00%3A00&statuses="+r.a.Statuses["Open"])
	r.at("tickets-none", "/console/tickets?search=nothing")
	r.at("tickets-errors", "/console/tickets?client=Nobody&closed_from=soon")
	r.at("ticket-new", "/console/tickets/new")
	r.tb.unchecked("main button.primary")
	r.after("ticket-new-errors", "main button.primary", "must contain at least 1 character")
	path := "/msp/tickets/" + r.worked.Number
	r.at("ticket", path)
	_ = eval[bool](r.tb, `document.querySelectorAll("details").forEach(d => { d.open = true }) === undefined`)
	r.look("ticket-open")
	r.at("ticket-delete", path+"/delete")
	for _, tk := range must(r.app.Store().ListTickets(r.t.Context(), r.a.TenantID, ticket.Query{Search: "Unpausen"}, ""))(r.t).Rows {
		r.at("ticket-hostile", "/msp/tickets/"+tk.Number)
	}
	for _, tk := range must(r.app.Store().ListTickets(r.t.Context(), r.a.TenantID, ticket.Query{Search: "הדפסת"}, ""))(r.t).Rows {
		r.at("ticket-rtl", "/msp/tickets/"+tk.Number)
	}
	r.at("ticket-missing", "/msp/tickets/nothing")
}

func (r *tour) webhooks() {
	r.failed(r.t, r.broken)
	r.at("webhooks", "/console/webhooks")
	for name, w := range map[string]delivery.Webhook{
		"webhook": r.broken, "webhook-healthy": r.good, "webhook-off": r.gone, "webhook-paused": r.paused, "webhook-slow": r.slow, "webhook-tls": r.bring,
	} {
		r.at(name, "/console/webhooks/"+w.WebhookID)
	}
	r.at("webhook-new", "/console/webhooks/new")
	r.tb.unchecked("main form > div:last-child button.primary")
	r.tb.fill("input[name=url]", "http://169.254.169.254/latest")
	r.tb.fill("input[name=rate]", "0")
	r.tb.fill("textarea[name=client_cert]", "none")
	r.tb.fill("select[name=cond_field]", "priority_name")
	r.after("webhook-new-errors", "main form > div:last-child button.primary", "greater than or equal to 1")
	r.at("webhook-edit", "/console/webhooks/"+r.good.WebhookID+"/edit")
	r.after("webhook-preview", "button[formaction]", `"event_type": "ticket.`)
	r.at("webhook-edit-tls", "/console/webhooks/"+r.bring.WebhookID+"/edit")
	r.after("webhook-edit-tls-open", "details:has(textarea[name=client_cert]) summary", "Its private key")
	page := "/console/webhooks/" + r.good.WebhookID
	r.tb.visit(page)
	r.after("webhook-secret", "form[action$='/rotate'] button", "It is not shown again.")
	r.at("webhook-grace", page)
}

func (r *tour) deliveries() {
	failed := r.failed(r.t, r.broken)
	r.at("deliveries", "/console/deliveries")
	r.at("deliveries-errors", "/console/deliveries?code=x&status=failed")
	r.at("deliveries-none", "/console/deliveries?ticket=TKT-1&webhook="+r.good.WebhookID)
	r.at("delivery", "/console/deliveries/"+failed)
	r.at("delivery-delivered", "/console/deliveries/"+r.delivery(r.t, r.good, "delivered", 1))
	r.at("delivery-due", "/console/deliveries/"+r.delivery(r.t, r.broken, "pending", 1))
	r.at("delivery-no-answer", "/console/deliveries/"+r.delivery(r.t, r.bring, "retrying", 1))
	r.at("delivery-given-up", "/console/deliveries/"+r.delivery(r.t, r.gone, "abandoned", 1))
	r.tb.visit("/console/deliveries?status=retrying")
	r.tb.click("input[data-all]")
	r.look("deliveries-chosen")
	r.after("resend", ".chosen button", "left alone")
	r.tb.visit("/console/deliveries?status=delivered")
	r.tb.click("input[data-all]")
	r.tb.click(".chosen button")
	r.tb.click("input[value=all]")
	r.after("resend-count", "main form button:not(.primary)", "delivered before")
	r.after("resend-progress", "button[name=start]", "is being queued")
	r.tb.visit("/console/deliveries")
	r.after("resend-nothing", ".chosen button", "Tick the deliveries")
}

// replays looks at jobs that have ended and at one that takes hours.
func (r *tour) replays() {
	page := "/console/webhooks/" + r.slow.WebhookID
	r.at("replay", page+"/replay")
	r.tb.click("input[value=all]")
	r.after("replay-count", "main form button", "would be sent")
	r.tb.fill("input[name=from]", "2100-01-01T00:00")
	r.after("replay-error", "main form button", "is in the future")
	newest := func(w delivery.Webhook) store.Replay {
		r.t.Helper()
		list, _, err := r.app.Store().Replays(r.t.Context(), r.a.TenantID, w.WebhookID, 1, 1)
		return must(list, err)(r.t)[0]
	}
	waitFor(r.t, "the replay", func() bool { return newest(r.good).Status != "running" })
	r.at("replay-done", "/console/webhooks/"+r.good.WebhookID+"/replays/"+newest(r.good).ReplayID)
	r.at("replay-running", page+"/replays/"+newest(r.slow).ReplayID)
	r.at("webhook-replaying", page)
}

func (r *tour) rest() {
	r.at("events", "/console/events")
	r.after("events-paused", "div.act a.button", "Paused")
	r.after("event", ".tail li a", "Envelope")
	r.at("keys", "/console/keys")
	r.at("key-new", "/console/keys/new")
	r.tb.fill("input[name=name]", "Poller of the night")
	r.tb.fill("input[name=usage_limit]", "none")
	r.after("key-new-errors", "main button.primary", "must be a whole number")
	r.tb.fill("input[name=usage_limit]", "")
	r.after("key-shown", "main button.primary", "It is not shown again.")
	r.at("key", "/console/keys/"+r.ownKey(r.t)+"/edit")
	report := sampleReport(r.t)
	r.at("report", r.publish(r.t, report))
	good := bytes.Replace(report, []byte(`"verdict": "NO-GO"`), []byte(`"verdict": "GO"`), 1)
	good = regexp.MustCompile(`"exit_code": [0-9]+`).ReplaceAll(good, []byte(`"exit_code": 0`))
	good = regexp.MustCompile(`"headline": ".*"`).ReplaceAll(good, []byte(`"headline": "nothing stands between this report and the cutover"`))
	r.at("report-go", r.publish(r.t, good))
	r.at("cutover", "/console/cutover")
	r.tb.upload([]byte("nonsense"))
	r.after("cutover-error", "form[enctype] button", "invalid character")
	r.at("missing", "/console/nothing")
}
