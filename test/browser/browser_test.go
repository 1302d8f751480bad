package browser

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime/quotedprintable"
	"os"
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

// signIn opens the console in a new tab with a one-time link.
func (s *scene) signIn(t *testing.T) *tab {
	t.Helper()
	tb := newTab(t, chromium(t), s.app.PublicURL())
	tb.window(1280, 800, "light")
	tb.do(chromedp.Navigate(s.link(t)))
	tb.click("button.primary")
	tb.sees("Overview")
	return tb
}

// ownKey is the id of the key that tenant a began with.
func (s *scene) ownKey(t *testing.T) string {
	t.Helper()
	return must(s.app.Store().Keys(t.Context(), s.a.TenantID))(t)[0].KeyID
}

// A newcomer causes an event and watches it arrive, with the mouse alone.
func TestCauseAnEventAndWatch(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.hook(t, "Status board", "/board", nil)
	tb := s.signIn(t)
	tb.visit("/console/tickets")
	tb.sees("No tickets yet")
	tb.click("a.primary")
	tb.fill("input[name=title]", "Coffee machine on strike")
	tb.click("main button.primary")
	tb.sees("The ticket was created.")
	tb.sees("delivered") // without loading the page again
	tb.fill("textarea[name=comment_text]", "It wants beans.")
	tb.click("form[action$=comments] button")
	tb.sees("ticket.comment.added")
	tb.fill("select[name=status_id]", s.a.Statuses["In Progress"])
	tb.fill("select[name=assigned_to]", s.a.UserID)
	tb.fill("input[name=tags]", "coffee, urgent")
	tb.click("section[aria-labelledby=h-fields] button")
	tb.sees("ticket.status_changed")
	tb.sees("ticket.assigned")
	tb.fill("input[name=title]", "")
	tb.unchecked("section[aria-labelledby=h-fields] button")
	tb.click("section[aria-labelledby=h-fields] button")
	tb.sees("must contain at least 1 character")
}

// A webhook from its first day to its last.
func TestWebhookOfALife(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	tb := s.signIn(t)
	tb.visit("/console/webhooks/new")
	tb.fill("input[name=name]", "Night shift")
	tb.fill("input[name=url]", "http://169.254.169.254/latest")
	tb.fill("input[name=rate]", "0")
	tb.fill("select[name=cond_field]", "priority_name")
	tb.fill("input[name=cond_value]", "High")
	tb.click("main form > div:last-child button.primary")
	tb.sees("Number must be greater than or equal to 1")
	if text := eval[string](tb, "document.querySelector('input[name=url]').parentElement.innerText"); !strings.Contains(text, "169.254") && !strings.Contains(text, "not allowed") && len(text) < 10 {
		t.Errorf("nothing beside the address says what is wrong with it: %q", text)
	}
	tb.fill("input[name=url]", s.receiver.URL+"/night")
	tb.fill("input[name=rate]", "600")
	tb.fill("input[name=header_name]", "X-Room")
	tb.fill("input[name=header_value]", "a secret of the room")
	tb.click("button[formaction]")
	tb.sees(`"event_type": "ticket.`)
	tb.click("main form > div:last-child button.primary")
	tb.sees("It is not shown again.")
	secret := eval[string](tb, "document.getElementById('secret').textContent")
	if len(secret) != 43 {
		t.Errorf("the secret is %q", secret)
	}
	tb.click("a.primary")
	tb.sees("priority_name equals \"High\"")
	page := eval[string](tb, "location.pathname")
	html := eval[string](tb, "document.documentElement.outerHTML")
	if strings.Contains(html, secret) || strings.Contains(html, "secret of the room") {
		t.Error("a secret is in the page")
	}
	tb.click("form[action$='/test'] button")
	tb.sees("A test was sent.")
	tb.sees(`{"accepted":true}`)
	tb.visit(page)
	tb.click("form[action$='/rotate'] button")
	tb.sees("stays valid until")
	tb.click("a.primary")
	tb.click("form[action$='/promote'] button")
	tb.sees("only the new secret counts")
	tb.click("form[action$='/pause'] button")
	tb.sees("Somebody paused it.")
	s.open(t, "While nobody listened", "High")
	s.open(t, "Not for this one", "Low")
	tb.visit(page)
	tb.sees("1 event was not sent meanwhile")
	tb.click("button[name=replay]")
	tb.sees("What was missed is being queued")
	waitFor(t, "the missed event", func() bool { return s.got.Load() == 2 }) // the test, and the missed one
	tb.visit(page + "/edit")
	tb.fill("input[name=name]", "Day shift")
	tb.click("main form > div:last-child button.primary")
	tb.sees("Day shift")
	if w := must(s.app.Store().Webhook(t.Context(), s.a.TenantID, page[strings.LastIndex(page, "/")+1:]))(t); w.CustomHeaders["X-Room"] != "a secret of the room" {
		t.Errorf("the header was lost: %v", w.CustomHeaders)
	}
	tb.visit(page + "/replay")
	tb.click("input[value=all]")
	tb.click("main form button")
	tb.sees("1 event would be sent")
	tb.click("button[name=start]")
	tb.sees("done")
	waitFor(t, "the replayed event", func() bool { return s.got.Load() == 3 })
	tb.visit(page)
	tb.click("section[aria-labelledby=h-delete] summary")
	tb.click("button.danger")
	tb.sees("The webhook was deleted.")
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !done(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come", what)
		}
	}
}

// What fails is found, explained and sent again.
func TestDeliveryThatFails(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.down.Store(true)
	hook := s.hook(t, "Billing import", "/billing", nil)
	s.open(t, "One", "High")
	s.failed(t, hook)
	tb := s.signIn(t)
	tb.visit("/console/deliveries?code=5xx&status=failed&error=status&type=ticket.created&ticket=TKT-1000")
	tb.click("td.main a")
	tb.sees("503")
	tb.sees("Waits for its time on the retry schedule.")
	tb.click("section[aria-labelledby=h-request] details:last-of-type summary")
	if cmd := eval[string](tb, "document.getElementById('curl').textContent"); !strings.Contains(cmd, "curl -X POST 'http://127.0.0.1") || !strings.Contains(cmd, "X-Alga-Signature") {
		t.Errorf("the command is %q", cmd)
	}
	s.down.Store(false)
	tb.click("form[action$='/resend'] button")
	tb.sees("It was sent again, once.")
	tb.sees("by hand")
	tb.sees("Not sent: another attempt has delivered the event.")
	tb.visit("/console/deliveries?status=abandoned")
	tb.sees("given up")
}

// What is ticked is counted, explained and sent again, by the keyboard too.
func TestResendOfASelection(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.down.Store(true)
	once := func(sp *delivery.Spec) { sp.RetryConfig = &delivery.RetryConfig{MaxAttempts: new(1)} }
	s.hook(t, "Billing import", "/billing", once)
	s.hook(t, hostile, "/board", once)
	for _, title := range []string{"One", "Two", hostile} {
		s.open(t, title, "High")
	}
	waitFor(t, "six failures", func() bool {
		return len(must(s.app.Store().SearchDeliveries(t.Context(), s.a.TenantID, store.DeliverySearch{Status: "abandoned", Limit: 100}))(t).Rows) == 6
	})
	s.down.Store(false)
	tb := s.signIn(t)
	tb.visit("/console/deliveries?status=abandoned")
	tb.click(".chosen button")
	tb.sees("Tick the deliveries that are to be sent again first.")
	tb.accessible()
	tb.click("main a.button")
	tb.click("input[data-all]")
	if n := eval[float64](tb, `document.querySelectorAll("input[name=delivery]:checked").length`); n != 6 {
		t.Errorf("%g rows are ticked, want 6", n)
	}
	tb.click("input[data-all]")
	// Without a mouse: the space bar ticks, and Enter sends the form.
	_ = eval[bool](tb, `document.querySelector("input[name=delivery]").focus() === undefined`)
	tb.do(chromedp.KeyEvent(" "), chromedp.KeyEvent("\r"))
	tb.sees("1 event is sent again.")
	tb.do(chromedp.Navigate(tb.base + "/console/deliveries?status=abandoned"))
	tb.click("input[data-all]")
	tb.click(".chosen button")
	tb.sees("6 events are sent again.")
	tb.onScreens("dark")
	tb.click("button[name=start]")
	tb.sees("What can be sent again is being queued")
	waitFor(t, "the events", func() bool { return s.got.Load() == 6 })
	tb.sees("done")
	tb.accessible()
	tb.fits()
	tb.visit("/console/deliveries?status=abandoned")
	tb.click("input[data-all]")
	tb.click(".chosen button")
	tb.sees("Nothing is sent again, 6 are left alone.")
	tb.sees("was delivered")
	tb.click("input[value=all]")
	tb.click("main form button:not(.primary)")
	tb.sees("6 events are sent again.")
}

// Filters are chosen, shown, taken off one by one, and clear when they are wrong.
func TestFiltersOfTickets(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.open(t, "Ours", "High", "vpn")
	s.open(t, "Theirs", "Low")
	for i := range 110 {
		must(s.app.Store().CreateClient(t.Context(), time.Now(), s.a.TenantID, ticket.Client{Name: fmt.Sprintf("Customer %03d", i), BillingCycle: "monthly"}))(t)
	}
	must(s.app.Store().CreateClient(t.Context(), time.Now(), s.a.TenantID, ticket.Client{Name: "Zz " + hostile, BillingCycle: "monthly"}))(t)
	tb := s.signIn(t)
	tb.visit("/console/tickets")
	tb.click("summary")
	tb.fill("select[name=board]", s.a.BoardID)
	tb.fill("input[name=tags]", "vpn")
	tb.fill("input[name=opened_from]", "2020-01-01T00:00")
	tb.click("form.filters > .act button")
	tb.sees("Clear all")
	if text := tb.text(); !strings.Contains(text, "Ours") || strings.Contains(text, "Theirs") {
		t.Error("the filters do not filter")
	}
	tb.accessible()
	tb.click("a[aria-label='Without Tags vpn']")
	tb.sees("Theirs")
	if q := eval[string](tb, "location.search"); strings.Contains(q, "tags") || !strings.Contains(q, "board=") {
		t.Errorf("after taking off a chip the address is %q", q)
	}
	// Names that are too many for the page come while typing.
	_ = eval[bool](tb, `(document.querySelector("input[name=client]").focus(), true)`)
	tb.do(chromedp.KeyEvent("z"), chromedp.KeyEvent("z"))
	waitFor(t, "the names", func() bool {
		return eval[float64](tb, `document.querySelectorAll("#names-client option").length`) == 1
	})
	tb.fill("input[name=client]", "No such client")
	tb.click("form.filters > .act button")
	tb.sees("no client has this name")
	tb.onScreens("light")
}

// Who works on a ticket, what it carries, and its end.
func TestTicketIsEdited(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.hook(t, "Status board", "/board", nil)
	user := must(s.app.Store().AddUser(t.Context(), time.Now(), s.a.TenantID, ticket.User{FirstName: "Bo", LastName: hostile, Email: "bo@desk.example"}))(t)
	team := must(s.app.Store().AddTeam(t.Context(), time.Now(), s.a.TenantID, ticket.Team{Name: hostile}))(t)
	tk := s.open(t, "Edited", "High", "vpn", "printer")
	s.patch(t, tk.TicketID, ticket.Patch{AssignedTo: ticket.Some(&s.a.UserID)})
	tb := s.signIn(t)
	tb.visit("/msp/tickets/" + tk.Number)
	people := "section[aria-labelledby=h-people] "
	tb.click(people + "details:first-of-type summary")
	tb.fill("select[name=user_id]", user.UserID)
	tb.fill("input[name=role]", "on site")
	tb.click("form[action$='/agents'] button")
	tb.sees("The agent was added.")
	tb.click(people + "details:nth-of-type(2) summary")
	tb.fill("select[name=team_id]", team.TeamID)
	tb.click("form[action$='/team'] button")
	tb.sees("The ticket was given to the team.")
	tb.sees("on site")
	tb.click("button[aria-label='Remove the tag vpn']")
	tb.sees("The tag was removed.")
	tb.click("section[aria-labelledby=h-attributes] summary")
	tb.fill("textarea[name=attributes]", "{ \"asset\": }")
	tb.click("form[action$='/attributes'] button")
	tb.sees("is no JSON, see line 1")
	tb.onScreens("light")
	tb.fill("textarea[name=attributes]", "{ \"asset\": \"LP-1\" }")
	tb.click("form[action$='/attributes'] button")
	tb.sees("The attributes were saved.")
	tb.click(people + "details:nth-of-type(2) summary")
	tb.click("form[action$='/team/remove'] button")
	tb.sees("The team was taken off the ticket.")
	tb.click("form[action$='/agents/" + user.UserID + "/remove'] button")
	tb.sees("The agent was taken off the ticket.")
	got := must(s.app.Store().Ticket(t.Context(), s.a.TenantID, tk.TicketID))(t)
	if len(got.Tags) != 1 || got.AssignedTeamID != nil || !strings.Contains(string(got.Attributes), "LP-1") {
		t.Errorf("the ticket is %v %v %s", got.Tags, got.AssignedTeamID, got.Attributes)
	}
	tb.click("aside > p a.danger")
	tb.sees("no webhook hears of it")
	tb.click("main button.danger")
	tb.sees("The ticket was deleted.")
	if _, err := s.app.Store().Ticket(t.Context(), s.a.TenantID, tk.TicketID); err == nil {
		t.Error("the ticket is still there")
	}
}

// The overview and the events change without a reload.
func TestLivePages(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.hook(t, "Status board", "/board", nil)
	tb := s.signIn(t)
	tb.sees("Nothing was sent in this time")
	s.open(t, "First of the day", "Low")
	tb.sees("100 %")
	tb.visit("/console/events?type=ticket.created")
	tb.sees("First of the day")
	s.open(t, "Second of the day", "Low")
	tb.sees("Second of the day")
	first := eval[string](tb, "document.querySelector('.tail li').innerText")
	if !strings.Contains(first, "Second of the day") {
		t.Errorf("the newest event is not the first: %q", first)
	}
	tb.click("div.act a.button")
	tb.sees("Paused")
	s.open(t, "Third of the day", "Low")
	tb.do(chromedp.Sleep(time.Second))
	if strings.Contains(tb.text(), "Third of the day") {
		t.Error("a paused page goes on")
	}
	tb.click("div.act a.button")
	tb.sees("Third of the day")
	tb.click(".tail li a")
	tb.sees("Envelope")
}

func TestKeysOfTheConsole(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	tb := s.signIn(t)
	tb.visit("/console/keys/new")
	tb.fill("input[name=name]", "Poller")
	tb.click("input[value=some]")
	tb.click("input[value='ticket:read']")
	tb.fill("input[name=usage_limit]", "none")
	tb.click("main button.primary")
	tb.sees("must be a whole number")
	tb.fill("input[name=usage_limit]", "1000")
	tb.click("main button.primary")
	tb.sees("It is not shown again.")
	key := eval[string](tb, "document.getElementById('key').textContent")
	who := must(s.app.Store().Authenticate(t.Context(), time.Now(), key))(t)
	if len(who.Permissions) != 1 || !who.Can("ticket", "read") {
		t.Errorf("the key may do %v", who.Permissions)
	}
	tb.click("a.primary")
	tb.sees("Poller")
	tb.sees("1 of 1,000")
	tb.click("tbody tr:first-child td.main a")
	tb.sees("Last used")
	tb.fill("input[name=name]", "Poller of the night")
	tb.fill("select[name=rate]", "on")
	tb.fill("input[name=max_tokens]", "0")
	tb.click("main button.primary")
	tb.sees("greater than or equal to 1")
	tb.fill("input[name=max_tokens]", "15")
	tb.fill("input[name=refill_per_min]", "30")
	tb.click("main button.primary")
	tb.sees("Saved.")
	tb.sees("15 at once, 30 per minute")
	if who := must(s.app.Store().Authenticate(t.Context(), time.Now(), key))(t); who.Rate.MaxTokens == nil || *who.Rate.MaxTokens != 15 {
		t.Errorf("the key's limit is %+v", who.Rate)
	}
	tb.click("tbody tr:first-child summary")
	tb.click("tbody tr:first-child button.danger")
	tb.sees("The key was revoked.")
	if _, err := s.app.Store().Authenticate(t.Context(), time.Now(), key); err == nil {
		t.Error("the key still opens")
	}
	tb.click("form.me button")
	tb.sees("API key")
	tb.fill("#key", "wrong")
	tb.click("button.primary")
	tb.sees("Invalid API key")
	tb.fill("#key", s.b.APIKey)
	tb.click("button.primary")
	tb.sees("Eve Other")
}

// publish keeps a report for tenant a and returns the path of its page.
func (s *scene) publish(t *testing.T, text []byte) string {
	t.Helper()
	return "/console/cutover/" + must(s.app.Store().PublishCutoverReport(t.Context(), time.Now(), s.who, text))(t).ReportID
}

// sampleReport is a report with something of everything.
func sampleReport(t *testing.T) []byte {
	t.Helper()
	return must(os.ReadFile("../../internal/cutover/testdata/report.json"))(t)
}

func TestCutoverReports(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	tb := s.signIn(t)
	tb.visit("/console/cutover")
	tb.sees("No reports yet")
	tb.accessible()
	tb.upload([]byte("nonsense"))
	tb.click("form[enctype] button")
	tb.sees("invalid character")
	tb.upload(sampleReport(t))
	tb.click("form[enctype] button")
	tb.sees("The report was published.")
	tb.sees("The sender lost the event before it owed a delivery.")
	if n := eval[float64](tb, `[...document.querySelectorAll(".report svg")].filter(s => s.getBoundingClientRect().height > 50).length`); n != 3 {
		t.Errorf("%g pictures are shown, want 3", n)
	}
	tb.click(".report details summary")
	tb.visit("/console/cutover")
	tb.click("td.main a")
	tb.click(".act.last summary")
	tb.click(".act.last button.danger")
	tb.sees("The report was deleted.")
	tb.sees("No reports yet")
}

// Somebody without a key gets in with what is in his mail.
func TestSignInByMail(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	tb := newTab(t, chromium(t), s.app.PublicURL())
	tb.window(390, 844, "dark")
	tb.visit("/console/events")
	tb.fill("#address", hostile)
	tb.unchecked("form.other button")
	tb.click("form.other button")
	tb.sees("must be a mail address")
	tb.accessible()
	tb.fits()
	tb.fill("#address", "Ada@Desk.example")
	tb.click("form.other button")
	tb.sees("a mail with a link is on its way")
	tb.accessible()
	tb.fits()
	var mail string
	select {
	case mail = <-s.mails:
	case <-time.After(patience):
		t.Fatal("no mail came")
	}
	plain := must(io.ReadAll(quotedprintable.NewReader(strings.NewReader(mail[strings.Index(mail, "\r\n\r\n"):]))))(t)
	link := regexp.MustCompile(regexp.QuoteMeta(s.app.PublicURL()) + `/console/link\?token=[A-Za-z0-9_-]+`).FindString(string(plain))
	if link == "" {
		t.Fatalf("there is no link in\n%s", plain)
	}
	tb.do(chromedp.Navigate(link))
	tb.click("button.primary")
	tb.sees("Overview")
}

// Whatever somebody writes into a ticket, a header or an answer is text.
func TestHostileTexts(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	hook := s.hook(t, hostile, "/broken", func(sp *delivery.Spec) { sp.Description = new(hostile) })
	tk := s.open(t, hostile, "High", "<i>tag</i>")
	must(s.app.Store().AddComment(t.Context(), time.Now(), s.who, tk.TicketID, ticket.CommentDraft{Text: hostile}))(t)
	failed := s.failed(t, hook)
	key, _, err := s.app.Store().CreateKey(t.Context(), time.Now(), s.a.TenantID, store.KeyDraft{UserID: s.a.UserID, Name: hostile, UsageLimit: new(int64(1))})
	must(key, err)(t)
	quoted := must(json.Marshal(hostile))(t)
	report := s.publish(t, bytes.ReplaceAll(sampleReport(t), []byte("ticket.updated"), quoted[1:len(quoted)-1]))
	tb := s.signIn(t)
	for _, path := range []string{
		report, "/console/cutover", "/console/keys", "/console/keys/" + key.KeyID + "/edit", "/console/tickets", "/console/tickets?search=" + strings.ReplaceAll("<script>", "<", "%3C"), "/msp/tickets/" + tk.Number,
		"/console/webhooks", "/console/webhooks/" + hook.WebhookID, "/console/webhooks/" + hook.WebhookID + "/edit",
		"/console/deliveries", "/console/deliveries/" + failed, "/console/events", "/console/overview",
	} {
		tb.visit(path)
		if n := eval[float64](tb, `document.querySelectorAll("main script, main img, main i, main b:not(.report .card > b)").length`); n > 0 {
			t.Errorf("%s made elements of a text", path)
		}
		if text := tb.text(); strings.ContainsAny(text, "\u202e\x1b\x07\u200f") {
			t.Errorf("%s shows control characters", path)
		}
		tb.fits()
	}
	tb.visit("/console/deliveries/" + failed)
	tb.sees("<script>alert(1)</script>")
	tb.click("section[aria-labelledby=h-answer] summary")
	tb.sees("<b>bold</b>")
}

// Another tenant's ids are no ids.
func TestOtherTenant(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	hook, key, report := s.hook(t, "Status board", "/broken", nil), s.ownKey(t), s.publish(t, sampleReport(t))
	tk := s.open(t, "Ours", "High")
	failed := s.failed(t, hook)
	events := must(s.app.Store().Events(t.Context(), s.a.TenantID, store.FeedQuery{Types: []string{webhook.TicketCreated}}))(t)
	event := string(events.Envelopes[0])
	event = event[strings.Index(event, `"event_id":"`)+12:][:36]
	s.a, s.b = s.b, s.a
	tb := s.signIn(t)
	for _, path := range []string{
		"/msp/tickets/" + tk.TicketID, "/msp/tickets/" + tk.Number, "/console/webhooks/" + hook.WebhookID,
		"/console/webhooks/" + hook.WebhookID + "/edit", "/console/deliveries/" + failed, "/console/events/" + event,
		"/msp/tickets/" + tk.TicketID + "/delete", "/console/deliveries/resend?job=" + hook.WebhookID + "." + failed,
		"/console/keys/" + key + "/edit", report,
	} {
		status := eval[float64](tb, `(() => { const r = new XMLHttpRequest(); r.open("GET", "`+path+`", false); r.send(); return r.status; })()`)
		if status != 404 {
			t.Errorf("%s answers %g to another tenant", path, status)
		}
	}
	tb.visit("/console/tickets")
	tb.sees("No tickets yet")
}
