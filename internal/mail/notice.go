package mail

import (
	"fmt"
	"html"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Limits of text that a tenant or a receiver chose, in runes.
const (
	maxSubject = 200
	maxName    = 100
	maxError   = 500
)

// isoTime is how times look on the wire (contract P14), in UTC.
const isoTime = "2006-01-02T15:04:05.000Z"

// DisabledNotice is what the mail about a disabled webhook says.
type DisabledNotice struct {
	ID           string // of the outbox row
	To           string // address of the user who created the webhook
	UserName     string // "" greets without a name
	WebhookID    string
	WebhookName  string
	Gone         bool          // the receiver answered 410 (contract D19); else 24 hours of failures
	DisabledAt   time.Time     // when it was switched off
	FailingSince time.Time     // zero if unknown
	DisableAfter time.Duration // how long it failed before that; 0: 24 hours
	LastError    string        // of the last attempt
	PublicURL    string        // base of the links, without a slash at the end
	Page         string        // of the webhook in the console; "" where there is none
}

// WarningNotice is what the mail about a webhook that keeps failing says.
type WarningNotice struct {
	ID           string
	To           string
	UserName     string
	WebhookID    string
	WebhookName  string
	FailingSince time.Time
	DisableAt    time.Time // when it will be switched off if nothing changes; zero: never
	LastError    string
	PublicURL    string
	Page         string // as in DisabledNotice
}

// ReminderNotice is what the mail about a webhook that stays disabled says.
type ReminderNotice struct {
	ID          string
	To          string
	UserName    string
	WebhookID   string
	WebhookName string
	Gone        bool      // as in DisabledNotice
	DisabledAt  time.Time // when it was switched off
	LastError   string
	Missed      int       // events that can still be replayed
	AtLeast     bool      // they are so many or more
	DeletedFrom time.Time // when the oldest of them is deleted; zero if there are none
	GoneBefore  time.Time // what was missed before is deleted already; zero while nothing is
	Last        bool      // no other reminder follows
	PublicURL   string
	Page        string // as in DisabledNotice
}

// LinkNotice is what the mail with a link to the console says.
type LinkNotice struct {
	ID         string
	To         string
	UserName   string
	TenantName string
	Link       string    // opens one session of the console
	Until      time.Time // when it ends
}

// Link writes the mail that somebody gets who has asked to sign in.
func Link(l LinkNotice) Message {
	tenant := oneLine(l.TenantName, maxName)
	var b body
	b.greet(l.UserName)
	b.paragraph(fmt.Sprintf(`Somebody, you most likely, has asked to sign in to the Ticketwire console of "%s". This link does it, once, until %s:`, tenant, iso(l.Until)))
	b.link(l.Link)
	b.paragraph("If it was not you, leave it alone: nothing happens without the link. Do not pass it on.")
	return Message{ID: l.ID, To: l.To, Subject: fmt.Sprintf(`Sign in to "%s"`, tenant), Text: b.text.String(), HTML: b.page()}
}

// Disabled writes the mail that is sent once when a webhook is switched off
// (contract section 4.11 and P8).
func Disabled(d DisabledNotice) Message {
	name := oneLine(d.WebhookName, maxName)
	subject := fmt.Sprintf(`Webhook "%s" was disabled after repeated delivery failures`, name)
	reason := fmt.Sprintf(`Your webhook "%s" was disabled after %s of continuous failures. Nothing is sent to it any more.`,
		name, span(d.DisableAfter))
	if d.Gone {
		subject = fmt.Sprintf(`Webhook "%s" was disabled: the receiver answered 410 Gone`, name)
		reason = fmt.Sprintf(`Your webhook "%s" was disabled because the receiver answered 410 Gone, which says that the address is not in use any more. Nothing is sent to it now.`, name)
	}
	var b body
	b.greet(d.UserName)
	b.paragraph(reason)
	b.facts(
		"Webhook", name,
		"Webhook id", oneLine(d.WebhookID, maxName),
		"Disabled at", iso(d.DisabledAt),
		"Failing since", iso(d.FailingSince),
		"Last error", oneLine(d.LastError, maxError),
	)
	b.reactivate(d.PublicURL, d.WebhookID, "Events of the meantime are kept. To receive them too, reactivate with:")
	b.whatFailed(d.PublicURL, d.WebhookID)
	b.inConsole(d.Page)
	return Message{ID: d.ID, To: d.To, Subject: subject, Text: b.text.String(), HTML: b.page()}
}

// Reminder writes the mail about a webhook that was switched off and still is.
func Reminder(r ReminderNotice) Message {
	name := oneLine(r.WebhookName, maxName)
	reason := "after continuous failures"
	if r.Gone {
		reason = "because the receiver answered 410 Gone"
	}
	var b body
	b.greet(r.UserName)
	b.paragraph(fmt.Sprintf(`Your webhook "%s" has been disabled since %s, %s. Nothing is sent to it.`, name, iso(r.DisabledAt), reason))
	b.facts(
		"Webhook", name,
		"Webhook id", oneLine(r.WebhookID, maxName),
		"Disabled at", iso(r.DisabledAt),
		"Last error", oneLine(r.LastError, maxError),
		"Missed events that can be replayed", missed(r),
	)
	switch {
	case !r.GoneBefore.IsZero():
		b.paragraph(fmt.Sprintf("What it missed before %s is deleted and cannot be replayed any more. The rest follows as it gets as old.", iso(r.GoneBefore)))
	case !r.DeletedFrom.IsZero():
		b.paragraph(fmt.Sprintf("The oldest of what it has missed will be deleted at %s. From then on it cannot be replayed.", iso(r.DeletedFrom)))
	}
	b.reactivate(r.PublicURL, r.WebhookID, "To receive what is kept of the meantime too, reactivate with:")
	b.whatFailed(r.PublicURL, r.WebhookID)
	b.inConsole(r.Page)
	if r.Last {
		b.paragraph("This is the last reminder.")
	} else {
		b.paragraph("If the webhook is not in use any more, delete it. That ends these reminders too.")
	}
	return Message{
		ID: r.ID, To: r.To,
		Subject: fmt.Sprintf(`Webhook "%s" is still disabled`, name),
		Text:    b.text.String(),
		HTML:    b.page(),
	}
}

// missed says how many events can still be replayed; "" if that is not known.
func missed(r ReminderNotice) string {
	switch {
	case !r.AtLeast:
		return strconv.Itoa(r.Missed)
	case r.Missed == 0:
		return ""
	}
	return fmt.Sprintf("at least %d", r.Missed)
}

// Warning writes the mail about a webhook that keeps failing and may be
// switched off.
func Warning(w WarningNotice) Message {
	name := oneLine(w.WebhookName, maxName)
	var b body
	b.greet(w.UserName)
	b.paragraph(fmt.Sprintf(`Every delivery to your webhook "%s" has failed since %s.`, name, iso(w.FailingSince)))
	b.facts(
		"Webhook", name,
		"Webhook id", oneLine(w.WebhookID, maxName),
		"Failing since", iso(w.FailingSince),
		"Will be disabled at", iso(w.DisableAt),
		"Last error", oneLine(w.LastError, maxError),
	)
	b.paragraph("Please fix the endpoint. Failed deliveries are retried, and one success ends this warning.")
	b.whatFailed(w.PublicURL, w.WebhookID)
	b.inConsole(w.Page)
	return Message{
		ID: w.ID, To: w.To,
		Subject: fmt.Sprintf(`Webhook "%s" is failing`, name),
		Text:    b.text.String(),
		HTML:    b.page(),
	}
}

func apiLink(base, id string) string {
	return strings.TrimSuffix(base, "/") + "/api/v1/webhooks/" + url.PathEscape(id)
}

// body writes the text and the HTML form of a mail side by side, so that they
// never say different things.
type body struct {
	text strings.Builder
	html strings.Builder
}

func (b *body) greet(user string) {
	if user = oneLine(user, maxName); user != "" {
		b.paragraph("Hello " + user + ",")
		return
	}
	b.paragraph("Hello,")
}

func (b *body) paragraph(s string) {
	b.text.WriteString(s + "\n\n")
	b.html.WriteString("<p>" + html.EscapeString(s) + "</p>\n")
}

func (b *body) code(s string) {
	b.text.WriteString("    " + strings.ReplaceAll(s, "\n", "\n    ") + "\n\n")
	b.html.WriteString("<pre>" + html.EscapeString(s) + "</pre>\n")
}

// reactivate says how a webhook is switched on, without and, after a sentence about
// that, with what it has missed.
func (b *body) reactivate(base, webhookID, withMissed string) {
	b.paragraph("Please fix the endpoint and reactivate the webhook:")
	b.code("PUT " + apiLink(base, webhookID) + "\n" + `{"is_active": true}`)
	b.paragraph(withMissed)
	b.code(`{"is_active": true, "replay_missed": true}`)
}

// whatFailed leads to the part of the delivery log that a mail is about.
func (b *body) whatFailed(base, webhookID string) {
	b.paragraph("What failed, and why:")
	b.code("GET " + apiLink(base, webhookID) + "/deliveries?status=failed")
}

// inConsole leads to the page that shows and does all of it.
func (b *body) inConsole(page string) {
	if page != "" {
		b.paragraph("Or all of that in the console:")
		b.link(page)
	}
}

func (b *body) link(address string) {
	b.text.WriteString(address + "\n\n")
	b.html.WriteString(`<p><a href="` + html.EscapeString(address) + `">` + html.EscapeString(address) + "</a></p>\n")
}

// facts takes pairs of label and value and leaves out empty values.
func (b *body) facts(pairs ...string) {
	b.html.WriteString("<table>\n")
	for pair := range slices.Chunk(pairs, 2) {
		if pair[1] == "" {
			continue
		}
		b.text.WriteString(pair[0] + ": " + pair[1] + "\n")
		b.html.WriteString("<tr><td>" + html.EscapeString(pair[0]) + "</td><td>" + html.EscapeString(pair[1]) + "</td></tr>\n")
	}
	b.text.WriteString("\n")
	b.html.WriteString("</table>\n")
}

func (b *body) page() string {
	return "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"></head><body>\n" + b.html.String() + "</body></html>\n"
}

// oneLine makes foreign text fit for a header or a line: no control characters,
// so no CR or LF, none that reverse the reading direction, and at most limit
// runes.
func oneLine(s string, limit int) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n == limit {
			b.WriteRune('…')
			break
		}
		switch {
		case unicode.Is(unicode.Bidi_Control, r):
			continue
		case unicode.IsControl(r), r == '\u2028', r == '\u2029':
			r = ' '
		}
		b.WriteRune(r)
		n++
	}
	return strings.TrimSpace(b.String())
}

func iso(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(isoTime)
}

// span writes a duration as people say it.
func span(d time.Duration) string {
	switch {
	case d <= 0:
		return "24 hours"
	case d == time.Hour:
		return "1 hour"
	case d%time.Hour == 0:
		return fmt.Sprintf("%d hours", d/time.Hour)
	}
	return d.String()
}
