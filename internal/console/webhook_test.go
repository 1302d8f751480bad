package console_test

import (
	"bufio"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/console"
	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// The page of a webhook says how it is doing and what it missed, and switching it on
// sends that only when it is asked to.
func TestStatesOfAWebhook(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	var code atomic.Int64
	code.Store(500)
	hook, gone := d.hook(t, "Hook", &code), d.hook(t, "Gone", &code)
	path := "/console/webhooks/" + hook.WebhookID
	b := d.signedIn(t, d.a.APIKey)
	has := func(path string, parts ...string) string {
		t.Helper()
		_, page := b.get(path)
		for _, part := range parts {
			if !strings.Contains(page, part) {
				t.Errorf("%s is without %q", path, part)
			}
		}
		return page
	}
	has(path, `<span class="badge good">healthy</span>`)
	d.open(t, "a")
	d.rows(t, hook.WebhookID, "abandoned", 1)
	has(path, `<span class="badge bad">failing</span>`, "If no attempt succeeds, it is switched off")
	b.post(path+"/pause", nil)
	if page := has(path, `<span class="badge idle">paused</span>`, "It has missed nothing so far."); strings.Contains(page, "If no attempt succeeds") {
		t.Error("a paused webhook is said to be switched off soon")
	}
	code.Store(410)
	d.open(t, "b")
	d.until(t, "the webhook is switched off", func() bool {
		return strings.Contains(has("/console/webhooks/"+gone.WebhookID), `<span class="badge bad">switched off</span>`)
	})
	code.Store(200)
	has(path, "<strong>1</strong> event was not sent meanwhile")
	if r, _ := b.post(path+"/enable", nil); r.Header.Get("Location") != path+"?done=enabled" {
		t.Errorf("switching on leads to %q", r.Header.Get("Location"))
	}
	b.post(path+"/pause", nil)
	d.open(t, "c")
	if r, _ := b.post(path+"/enable", url.Values{"replay": {"on"}}); r.Header.Get("Location") != path+"?done=replaying" {
		t.Errorf("switching on with what was missed leads to %q", r.Header.Get("Location"))
	}
	d.rows(t, hook.WebhookID, "delivered", 1)

	// A secret, with and without the one before.
	if r, page := b.post(path+"/rotate", url.Values{"grace": {"-1h"}}); r.StatusCode != http.StatusBadRequest || !strings.Contains(page, "between 0 and 7 days") {
		t.Errorf("a negative grace answers %d", r.StatusCode)
	}
	if _, page := b.post(path+"/rotate", url.Values{"grace": {"168h"}}); !strings.Contains(page, "The secret before stays valid until") {
		t.Error("the page of a new secret does not say how long the other one is valid")
	}
	has(path, "The new secret and the one before are both valid.")
	b.post(path+"/promote", nil)
	if page := has(path); strings.Contains(page, "both valid") {
		t.Error("the old secret is valid after it was ended")
	}
	if _, page := b.post(path+"/rotate", nil); !strings.Contains(page, "The secret before is not valid any more.") {
		t.Error("the page of a new secret does not say that it is the only one")
	}
}

// The form of a webhook changes what it shows and nothing else, and is held to the
// rules of the server.
func TestWebhookForm(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example", func(c *console.Config) { c.Egress.RefuseInsecureTLS = true })
	b := d.signedIn(t, d.a.APIKey)
	spec := delivery.Spec{
		Name: "n", URL: "http://10.0.0.1/in", Method: "POST", EventTypes: []string{"ticket.created"}, VerifySSL: true, IsActive: true,
		CustomHeaders: map[string]string{"X-Room": "1", "X-Team": "ops"}, PayloadFields: delivery.PayloadFields{"project": {"name"}, "ticket": {"title"}},
		EventFilter: &delivery.Filter{EntityIDs: []string{store.NewID(), store.NewID()}, Tags: []string{"a", "b"}, Conditions: []delivery.Condition{
			{Field: "priority_name", Operator: "equals", Value: "High"}, {Field: "is_closed", Operator: "equals", Value: true}, {Field: "title", Operator: "equals", Value: "5"},
		}},
		RetryConfig: &delivery.RetryConfig{Schedule: []int64{1000, 60_000}, Timeout: new(int64(2500))},
		RateLimit:   &delivery.RateLimit{RequestsPerMinute: new(30), BurstLimit: new(3)}, IsTestMode: true,
	}
	hook, _, err := d.store.CreateWebhook(t.Context(), time.Now(), d.who, spec)
	if err != nil {
		t.Fatal(err)
	}
	edit := "/console/webhooks/" + hook.WebhookID + "/edit"
	// What a browser sends back of the form as it is.
	shown := func() url.Values {
		_, page := b.get(edit)
		form := url.Values{}
		for _, field := range regexp.MustCompile(`<input[^>]* name="[^>]*>|<textarea[^>]* name="([^"]*)"[^>]*>([^<]*)<|<select name="([^"]*)"[^>]*>(?:<option[^>]*>[^<]*(?:</option>)?)*`).FindAllStringSubmatch(page, -1) {
			attr := func(name string) string {
				if m := regexp.MustCompile(` ` + name + `="([^"]*)"`).FindStringSubmatch(field[0]); m != nil {
					return html.UnescapeString(m[1])
				}
				return ""
			}
			box := regexp.MustCompile(`type="(checkbox|radio)"`).MatchString(field[0])
			switch {
			case field[1] != "":
				form.Add(field[1], html.UnescapeString(field[2]))
			case field[3] != "":
				value := ""
				if m := regexp.MustCompile(`<option(?: value="([^"]*)")? selected>([^<]*)`).FindStringSubmatch(field[0]); m != nil {
					value = html.UnescapeString(m[1] + m[2])
				}
				form.Add(field[3], value)
			case !box:
				form.Add(attr("name"), attr("value"))
			case strings.Contains(field[0], " checked"):
				value := attr("value")
				if value == "" {
					value = "on"
				}
				form.Add(attr("name"), value)
			}
		}
		return form
	}
	save := func(form url.Values) delivery.Spec {
		t.Helper()
		if r, page := b.post(edit, form); r.StatusCode != http.StatusSeeOther {
			t.Fatalf("saving %v answers %d: %s", form, r.StatusCode, page)
		}
		return must(d.store.Webhook(t.Context(), d.a.TenantID, hook.WebhookID))(t).Spec
	}
	if diff := cmp.Diff(hook.Spec, save(shown())); diff != "" {
		t.Errorf("saving the form as it is has changed (-before +after):\n%s", diff)
	}
	form := shown()
	form["header_keep"] = []string{"X-Team"}
	form.Set("no_limit", "on")
	form.Set("fields_mode", "all")
	form.Del("is_test_mode")
	form["cond_field"], form["cond_op"], form["cond_value"] = []string{"priority_name"}, []string{"in"}, []string{"High, Low"}
	want := hook.Spec
	want.CustomHeaders, want.PayloadFields = map[string]string{"X-Team": "ops"}, delivery.PayloadFields{"project": {"name"}}
	want.RateLimit, want.IsTestMode = &delivery.RateLimit{Enabled: new(false)}, false
	filter := *hook.EventFilter
	filter.Conditions = []delivery.Condition{{Field: "priority_name", Operator: "in", Value: []any{"High", "Low"}}}
	want.EventFilter = &filter
	if diff := cmp.Diff(want, save(form)); diff != "" {
		t.Errorf("the form made (-want +got):\n%s", diff)
	}
	for _, c := range []struct{ field, value, want string }{
		{"url", "http://10.0.0.2/in", "10.0.0.2"}, {"verify_ssl", "", "verify_ssl"}, {"description", strings.Repeat("ä", 5001), "at most 5000 characters"},
		{"header_value", "x", "a header needs a name"},
	} {
		form := shown()
		form.Set(c.field, c.value)
		if c.value == "" {
			form.Del(c.field)
		}
		if r, page := b.post(edit, form); r.StatusCode != http.StatusBadRequest || !strings.Contains(page, c.want) {
			t.Errorf("%s=%.20q answers %d without %q", c.field, c.value, r.StatusCode, c.want)
		}
	}
	if r, _ := b.post("/console/webhooks/new", url.Values{"name": {"Off"}, "url": {"https://hooks.example/"}, "method": {"POST"}, "event_types": {"ticket.created"}, "verify_ssl": {"on"}}); r.StatusCode != http.StatusOK {
		t.Errorf("making a webhook answers %d", r.StatusCode)
	}
	list, _, err := d.store.Webhooks(t.Context(), d.a.TenantID, store.WebhookQuery{Query: "Off", Limit: 1})
	if err != nil || len(list) != 1 || list[0].IsActive {
		t.Errorf("a webhook that is not to be active is %+v, %v", list, err)
	}
}

// The log is filtered by each of its fields, and the page of a delivery shows the
// attempts at its webhook and a command that is safe to paste.
func TestDeliveriesAreFound(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	var one, two atomic.Int64
	one.Store(503)
	two.Store(200)
	first, second := d.hook(t, "First", &one), d.hook(t, "Second", &two)
	w, _, err := d.store.UpdateWebhook(t.Context(), time.Now(), d.who, first.WebhookID, func(s *delivery.Spec) error {
		s.CustomHeaders = map[string]string{"Authorization": "Bearer hunter2", "X-Room": "1"}
		return nil
	}, false)
	must(w, err)(t)
	tickets := []ticket.Ticket{d.open(t, "it's `id`"), d.open(t, "b")}
	failed := d.rows(t, first.WebhookID, "abandoned", 2)
	d.rows(t, second.WebhookID, "delivered", 2)
	b := d.signedIn(t, d.a.APIKey)
	row := must(d.store.FindDelivery(t.Context(), d.a.TenantID, failed[0]))(t)
	if row.TicketID != tickets[0].TicketID {
		row = must(d.store.FindDelivery(t.Context(), d.a.TenantID, failed[1]))(t)
	}
	for query, want := range map[string]int{
		"": 4, "webhook=" + first.WebhookID: 2, "status=delivered": 2, "code=503": 2, "code=+5XX": 2, "code=2xx": 2, "error=status": 2, "error=dns": 0,
		"type=ticket.created": 4, "type=ticket.closed": 0, "event=+" + row.EventID: 2, "ticket=" + tickets[1].Number: 2, "to=2020-01-01": 0,
	} {
		if r, page := b.get("/console/deliveries?" + query); r.StatusCode != http.StatusOK || strings.Count(page, `name="delivery"`) != want {
			t.Errorf("%s answers %d with %d rows, want %d", query, r.StatusCode, strings.Count(page, `name="delivery"`), want)
		}
	}
	_, page := b.get("/console/deliveries/" + row.DeliveryID)
	_, command, _ := strings.Cut(page, "aria-label=\"curl command\">")
	command, _, _ = strings.Cut(html.UnescapeString(command), "</pre>")
	if !strings.Contains(command, `"title":"it'\''s `+"`id`") || strings.Contains(command, "REDACTED") ||
		!strings.Contains(command, "# left out, since their values are not kept: Authorization, X-Alga-Signature, X-Room") {
		t.Errorf("the command is\n%s", command)
	}
	if strings.Contains(page, "hunter2") {
		t.Error("the page shows the value of a header that is a credential")
	}
	if n := strings.Count(page, ">Attempt "); n != 1 || !strings.Contains(page, "Send again now") {
		t.Errorf("the page has %d attempts, want that of its webhook, and offers to send it again", n)
	}
	one.Store(200)
	r, _ := b.post("/console/deliveries/"+row.DeliveryID+"/resend", nil)
	to, _, _ := strings.Cut(r.Header.Get("Location"), "?")
	for _, path := range []string{"/console/deliveries/" + row.DeliveryID, to} {
		if _, page := b.get(path); strings.Count(page, "Attempt ") < 2 || strings.Contains(page, "Send again now") {
			t.Errorf("%s does not have both attempts, or offers to send what was delivered", path)
		}
	}
}

// A replay is counted before it is sent, and its time is one that makes sense.
func TestReplayOfATime(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	var code atomic.Int64
	code.Store(200)
	hook := d.hook(t, "Hook", &code)
	d.open(t, "a")
	d.rows(t, hook.WebhookID, "delivered", 1)
	b := d.signedIn(t, d.a.APIKey)
	path := "/console/webhooks/" + hook.WebhookID + "/replay"
	today, tomorrow := time.Now().UTC().Format(time.DateOnly), time.Now().UTC().AddDate(0, 0, 1).Format(time.DateOnly)
	for _, c := range []struct {
		form   url.Values
		status int
		want   string
	}{
		{url.Values{}, http.StatusBadRequest, "say from when on"},
		{url.Values{"from": {"2026-03-05"}, "to": {"2026-03-04"}}, http.StatusBadRequest, "is before from"},
		{url.Values{"from": {today}, "to": {today}, "only": {"all"}}, http.StatusOK, "<strong>1</strong>"},
		{url.Values{"from": {today}, "to": {tomorrow}, "only": {"all"}}, http.StatusOK, "<strong>1</strong>"},
		{url.Values{"from": {today}}, http.StatusOK, "<strong>0</strong>"},
	} {
		if r, page := b.post(path, c.form); r.StatusCode != c.status || !strings.Contains(page, c.want) {
			t.Errorf("%v answers %d without %q", c.form, r.StatusCode, c.want)
		}
	}
	replays, _, err := d.store.Replays(t.Context(), d.a.TenantID, hook.WebhookID, 1, 5)
	if err != nil || len(replays) != 0 {
		t.Errorf("counting has begun %d replays, %v", len(replays), err)
	}
	r, _ := b.post(path, url.Values{"from": {today}, "only": {"all"}, "start": {"on"}})
	job, _, _ := strings.Cut(r.Header.Get("Location"), "?")
	if !strings.HasPrefix(job, "/console/webhooks/"+hook.WebhookID+"/replays/") {
		t.Fatalf("starting answers %d and leads to %q", r.StatusCode, r.Header.Get("Location"))
	}
	d.rows(t, hook.WebhookID, "delivered", 2)
	// One that has ended meanwhile is not cancelled, and its page says how it ended.
	d.until(t, "the replay has ended", func() bool {
		_, page := b.get(job + "/progress")
		return !strings.Contains(page, "hx-trigger")
	})
	if r, _ := b.post(job+"/cancel", nil); r.Header.Get("Location") != job {
		t.Errorf("cancelling answers %d", r.StatusCode)
	}
}

// Events are filtered by type and ticket, those that are there and those that follow.
func TestEventsAreFiltered(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	one := d.open(t, "one")
	d.open(t, "two")
	if _, err := d.store.UpdateTicket(t.Context(), time.Now(), d.who, one.TicketID, ticket.Patch{Title: ticket.Some("one more")}); err != nil {
		t.Fatal(err)
	}
	b := d.signedIn(t, d.a.APIKey)
	titles := func(text string) []string {
		var out []string
		for _, m := range regexp.MustCompile(`<bdi>(one|two|one more)</bdi>`).FindAllStringSubmatch(text, -1) {
			out = append(out, m[1])
		}
		return out
	}
	for query, want := range map[string][]string{
		"": {"one more", "two", "one"}, "type=ticket.updated": {"one more"}, "ticket=" + one.Number: {"one more", "one"},
		"type=ticket.created&ticket=" + one.Number: {"one"},
	} {
		_, page := b.get("/console/events?" + query)
		if got := titles(page); !slices.Equal(got, want) {
			t.Errorf("%q has %q, want %q", query, got, want)
		}
		if strings.Count(page, "sse-connect") != 1 {
			t.Errorf("%q does not go on", query)
		}
		resp, err := b.c.Do(must(http.NewRequestWithContext(t.Context(), http.MethodGet, d.url+"/console/events/live?"+query, nil))(t))
		if err != nil {
			t.Fatal(err)
		}
		var first strings.Builder
		for lines := bufio.NewScanner(resp.Body); lines.Scan() && lines.Text() != ""; { // to the end of a message
			first.WriteString(lines.Text())
		}
		resp.Body.Close()
		if got := titles(first.String()); !slices.Equal(got, want) {
			t.Errorf("live, %q has %q, want %q", query, got, want)
		}
	}
	if _, page := b.get("/console/events?live=off"); strings.Contains(page, "sse-connect") {
		t.Error("a page that is paused goes on")
	}
}
