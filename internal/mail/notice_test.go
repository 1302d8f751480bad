package mail

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func disabledNotice() DisabledNotice {
	return DisabledNotice{
		ID: "m1", To: "ada@example.org", UserName: "Ada Lovelace",
		WebhookID: "0198c0de-0000-7000-8000-000000000002", WebhookName: "Cutover",
		DisabledAt:   time.Date(2026, 3, 1, 12, 0, 0, 5e6, time.FixedZone("", 3600)),
		FailingSince: time.Date(2026, 2, 28, 11, 0, 0, 0, time.UTC),
		DisableAfter: 24 * time.Hour,
		LastError:    "hooks.example.com answered with status 500",
		PublicURL:    "https://tickets.example.com/",
		Page:         "https://tickets.example.com/console/webhooks/0198c0de-0000-7000-8000-000000000002",
	}
}

func TestDisabled(t *testing.T) {
	t.Parallel()
	m := Disabled(disabledNotice())
	if m.ID != "m1" || m.To != "ada@example.org" || m.Subject != `Webhook "Cutover" was disabled after repeated delivery failures` {
		t.Errorf("got %+v", m)
	}
	want := `Hello Ada Lovelace,

Your webhook "Cutover" was disabled after 24 hours of continuous failures. Nothing is sent to it any more.

Webhook: Cutover
Webhook id: 0198c0de-0000-7000-8000-000000000002
Disabled at: 2026-03-01T11:00:00.005Z
Failing since: 2026-02-28T11:00:00.000Z
Last error: hooks.example.com answered with status 500

Please fix the endpoint and reactivate the webhook:

    PUT https://tickets.example.com/api/v1/webhooks/0198c0de-0000-7000-8000-000000000002
    {"is_active": true}

Events of the meantime are kept. To receive them too, reactivate with:

    {"is_active": true, "replay_missed": true}

What failed, and why:

    GET https://tickets.example.com/api/v1/webhooks/0198c0de-0000-7000-8000-000000000002/deliveries?status=failed

Or all of that in the console:

https://tickets.example.com/console/webhooks/0198c0de-0000-7000-8000-000000000002

`
	if diff := cmp.Diff(want, m.Text); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
	for _, part := range []string{
		"<p>Hello Ada Lovelace,</p>", "<td>2026-03-01T11:00:00.005Z</td>",
		"{&#34;is_active&#34;: true, &#34;replay_missed&#34;: true}",
		"deliveries?status=failed</pre>", `<a href="https://tickets.example.com/console/webhooks/0198c0de-0000-7000-8000-000000000002">`,
	} {
		if !strings.Contains(m.HTML, part) {
			t.Errorf("the HTML form lacks %s:\n%s", part, m.HTML)
		}
	}
}

func TestDisabledGone(t *testing.T) {
	t.Parallel()
	d := disabledNotice()
	d.Gone, d.UserName, d.FailingSince = true, "", time.Time{}
	m := Disabled(d)
	if m.Subject != `Webhook "Cutover" was disabled: the receiver answered 410 Gone` {
		t.Errorf("subject %q", m.Subject)
	}
	if !strings.HasPrefix(m.Text, "Hello,\n") || !strings.Contains(m.Text, "410 Gone") ||
		strings.Contains(m.Text, "24 hours") || strings.Contains(m.Text, "Failing since") {
		t.Errorf("text:\n%s", m.Text)
	}
}

func TestDisabledAfter(t *testing.T) {
	t.Parallel()
	for after, want := range map[time.Duration]string{0: "24 hours", time.Hour: "1 hour", 48 * time.Hour: "48 hours", 90 * time.Minute: "1h30m0s"} {
		d := disabledNotice()
		d.DisableAfter = after
		if text := Disabled(d).Text; !strings.Contains(text, "was disabled after "+want+" of continuous") {
			t.Errorf("%s:\n%s", after, text)
		}
	}
}

func TestWarning(t *testing.T) {
	t.Parallel()
	since := time.Date(2026, 2, 28, 11, 0, 0, 0, time.UTC)
	w := WarningNotice{
		ID: "m2", To: "ada@example.org", UserName: "Ada", WebhookID: "w1", WebhookName: "Cutover",
		FailingSince: since, DisableAt: since.Add(24 * time.Hour), LastError: "refused", PublicURL: "https://tickets.example.com",
	}
	m := Warning(w)
	want := `Hello Ada,

Every delivery to your webhook "Cutover" has failed since 2026-02-28T11:00:00.000Z.

Webhook: Cutover
Webhook id: w1
Failing since: 2026-02-28T11:00:00.000Z
Will be disabled at: 2026-03-01T11:00:00.000Z
Last error: refused

Please fix the endpoint. Failed deliveries are retried, and one success ends this warning.

What failed, and why:

    GET https://tickets.example.com/api/v1/webhooks/w1/deliveries?status=failed

`
	if diff := cmp.Diff(want, m.Text); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
	if m.Subject != `Webhook "Cutover" is failing` || m.ID != "m2" || m.To != w.To {
		t.Errorf("got %+v", m)
	}
	w.DisableAt = time.Time{}
	if strings.Contains(Warning(w).Text, "Will be disabled") {
		t.Error("a date for what never happens")
	}
}

func reminderNotice() ReminderNotice {
	return ReminderNotice{
		ID: "m4", To: "ada@example.org", UserName: "Ada", WebhookID: "w1", WebhookName: "Cutover",
		DisabledAt: time.Date(2026, 3, 1, 11, 0, 0, 0, time.UTC), LastError: "refused",
		Missed: 12, DeletedFrom: time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC),
		PublicURL: "https://tickets.example.com", Page: "https://tickets.example.com/console/webhooks/w1",
	}
}

func TestReminder(t *testing.T) {
	t.Parallel()
	m := Reminder(reminderNotice())
	want := `Hello Ada,

Your webhook "Cutover" has been disabled since 2026-03-01T11:00:00.000Z, after continuous failures. Nothing is sent to it.

Webhook: Cutover
Webhook id: w1
Disabled at: 2026-03-01T11:00:00.000Z
Last error: refused
Missed events that can be replayed: 12

The oldest of what it has missed will be deleted at 2026-03-31T12:00:00.000Z. From then on it cannot be replayed.

Please fix the endpoint and reactivate the webhook:

    PUT https://tickets.example.com/api/v1/webhooks/w1
    {"is_active": true}

To receive what is kept of the meantime too, reactivate with:

    {"is_active": true, "replay_missed": true}

What failed, and why:

    GET https://tickets.example.com/api/v1/webhooks/w1/deliveries?status=failed

Or all of that in the console:

https://tickets.example.com/console/webhooks/w1

If the webhook is not in use any more, delete it. That ends these reminders too.

`
	if diff := cmp.Diff(want, m.Text); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
	if m.Subject != `Webhook "Cutover" is still disabled` || m.ID != "m4" || m.To != "ada@example.org" {
		t.Errorf("got %+v", m)
	}
	for _, part := range []string{"<td>12</td>", "2026-03-31T12:00:00.000Z", `<a href="https://tickets.example.com/console/webhooks/w1">`} {
		if !strings.Contains(m.HTML, part) {
			t.Errorf("the HTML form lacks %s:\n%s", part, m.HTML)
		}
	}
}

// What is said of the missed events depends on what is known of them, and left.
func TestReminderOfWhatIsLeft(t *testing.T) {
	t.Parallel()
	const (
		counted = "can be replayed: "
		will    = "will be deleted at 2026-03-31"
		gone    = "missed before 2026-03-05T11:00:00.000Z is deleted"
		last    = "This is the last reminder."
	)
	for name, c := range map[string]struct {
		change  func(*ReminderNotice)
		with    []string
		without []string
	}{
		"nothing missed": {
			func(r *ReminderNotice) { r.Missed, r.DeletedFrom = 0, time.Time{} },
			[]string{counted + "0\n"}, []string{"deleted at", gone, last},
		},
		"more than was counted": {
			func(r *ReminderNotice) { r.Missed, r.AtLeast = 10_000, true },
			[]string{counted + "at least 10000\n", will}, []string{gone, last},
		},
		"none of those that were looked at": {
			func(r *ReminderNotice) { r.Missed, r.AtLeast = 0, true },
			[]string{will}, []string{counted, gone, last},
		},
		"the oldest are gone, after 410": {
			func(r *ReminderNotice) {
				r.GoneBefore, r.Last, r.Gone = time.Date(2026, 3, 5, 11, 0, 0, 0, time.UTC), true, true
			},
			[]string{counted + "12\n", gone, last, "because the receiver answered 410 Gone"}, []string{will, "delete it", "24 hours"},
		},
	} {
		r := reminderNotice()
		c.change(&r)
		text := Reminder(r).Text
		for _, part := range c.with {
			if !strings.Contains(text, part) {
				t.Errorf("%s: the mail lacks %q:\n%s", name, part, text)
			}
		}
		for _, part := range c.without {
			if strings.Contains(text, part) {
				t.Errorf("%s: the mail has %q:\n%s", name, part, text)
			}
		}
	}
}

// Names and errors come from tenants and receivers.
func TestForeignTextStaysText(t *testing.T) {
	t.Parallel()
	var (
		user   = "A\n\nLog in at http://evil.example"
		name   = "<script>alert(1)</script>\r\nBcc: x@example.net\u2028\u2029" + strings.Repeat("ä", maxName)
		id     = "w\r\nBcc: y"
		failed = "\x1b[31m\u202e" + strings.Repeat("ö", 2*maxError)
		base   = `javascript:alert("1")//`
	)
	d, w, r := disabledNotice(), WarningNotice{}, reminderNotice()
	d.UserName, d.WebhookName, d.WebhookID, d.LastError, d.PublicURL, d.Page = user, name, id, failed, base, ""
	w.UserName, w.WebhookName, w.WebhookID, w.LastError, w.PublicURL = user, name, id, failed, base
	r.UserName, r.WebhookName, r.WebhookID, r.LastError, r.PublicURL, r.Page = user, name, id, failed, base, ""
	for _, m := range []Message{Disabled(d), Warning(w), Reminder(r)} {
		if strings.ContainsAny(m.Subject, "\r\n\u2028\u2029") {
			t.Errorf("subject %q", m.Subject)
		}
		if strings.Contains(m.HTML, "<script") || strings.Contains(m.HTML, "href=") || strings.Contains(m.HTML, `"1"`) {
			t.Errorf("HTML:\n%s", m.HTML)
		}
		if strings.ContainsAny(m.Text, "\r\x1b\u202e\u2028\u2029") || strings.Contains(m.Text, "\nLog in") || strings.Contains(m.Text, "\nBcc") {
			t.Errorf("text:\n%q", m.Text)
		}
		if strings.Contains(m.Text, strings.Repeat("ä", maxName-40)) || strings.Contains(m.Text, strings.Repeat("ö", maxError)) {
			t.Errorf("the name or the error is not cut:\n%s", m.Text)
		}
	}
}

func TestLink(t *testing.T) {
	t.Parallel()
	m := Link(LinkNotice{
		ID: "m3", To: "ada@example.org", UserName: "Ada <b>\r\nBcc: x", TenantName: "Harbour\r\n\u202eDesk <i>",
		Link: "https://tickets.example.com/console/link?token=a&b", Until: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
	})
	if m.ID != "m3" || m.To != "ada@example.org" || m.Subject != `Sign in to "Harbour  Desk <i>"` {
		t.Errorf("got %+v", m)
	}
	want := `Hello Ada <b>  Bcc: x,

Somebody, you most likely, has asked to sign in to the Ticketwire console of "Harbour  Desk <i>". This link does it, once, until 2026-03-01T12:00:00.000Z:

https://tickets.example.com/console/link?token=a&b

If it was not you, leave it alone: nothing happens without the link. Do not pass it on.

`
	if diff := cmp.Diff(want, m.Text); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
	for _, part := range []string{`<a href="https://tickets.example.com/console/link?token=a&amp;b">https://`, "Desk &lt;i&gt;", "Ada &lt;b&gt;"} {
		if !strings.Contains(m.HTML, part) {
			t.Errorf("the page is without %q:\n%s", part, m.HTML)
		}
	}
}
