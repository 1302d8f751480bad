package app

import (
	"strings"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/store"
)

// What the store knows is in the mails, with links to this installation.
func TestMailsSayWhatIsKnown(t *testing.T) {
	t.Parallel()
	at := func(hour int) time.Time { return time.Date(2026, 3, 1, hour, 0, 0, 0, time.UTC) }
	cfg := Config{PublicURL: "https://desk.example/", Policy: delivery.Policy{DisableAfter: 36 * time.Hour}}
	page := `href="https://desk.example/console/webhooks/w1"`
	if !HasConsole {
		page = ""
	}
	failing := store.Notice{
		UserName: "Ada", WebhookID: "w1", WebhookName: "Orders", Reason: delivery.DisabledByFailures,
		Since: at(1), At: at(2), LastError: "refused",
	}
	with := func(change func(*store.Notice)) store.Notice {
		n := failing
		change(&n)
		return n
	}
	gone := with(func(n *store.Notice) { n.Reason = delivery.DisabledGone })
	never := cfg
	never.Policy.DisableAfter = 0
	for _, x := range []struct {
		name    string
		mail    store.MailText
		with    []string
		without string
	}{
		{
			"disabled", mails(cfg).Disabled(failing),
			[]string{"Ada", "Orders", "w1", "2026-03-01T01:00:00.000Z", "2026-03-01T02:00:00.000Z", "after 36 hours", "refused", "https://desk.example/api/v1", page}, "410",
		},
		{"gone", mails(cfg).Disabled(gone), []string{"410 Gone"}, "36 hours"},
		{
			"failing", mails(cfg).Warning(failing),
			[]string{"Ada", "Orders", "w1", "2026-03-01T01:00:00.000Z", "Will be disabled at", "2026-03-02T13:00:00.000Z", "refused", "https://desk.example/api/v1", page}, "410",
		},
		{"failing for ever", mails(never).Warning(failing), nil, "Will be disabled at"},
		{
			"still disabled", mails(cfg).Reminder(with(func(n *store.Notice) {
				n.Missed = store.MissedSoFar{Kept: 7, AtLeast: true, DeletedFrom: at(3)}
			})),
			[]string{"Ada", "Orders", "w1", "2026-03-01T02:00:00.000Z", "at least 7", "2026-03-01T03:00:00.000Z", "refused", "https://desk.example/api/v1", page}, "last reminder",
		},
		{
			"the last time", mails(cfg).Reminder(with(func(n *store.Notice) {
				n.Reason, n.Final, n.Missed.GoneBefore = delivery.DisabledGone, true, at(4)
			})),
			[]string{"410 Gone", "2026-03-01T04:00:00.000Z", "last reminder"}, "at least",
		},
		{
			"link", mails(cfg).Link(store.LinkNotice{UserName: "Ada", TenantName: "Acme", Token: "a+b&c", Until: at(5)}),
			[]string{"Ada", "Acme", "2026-03-01T05:00:00.000Z", `"https://desk.example/console/link?token=a%2Bb%26c"`}, "a+b",
		},
	} {
		for _, part := range x.with {
			if !strings.Contains(x.mail.HTML, part) {
				t.Errorf("%s: the mail lacks %q:\n%s", x.name, part, x.mail.HTML)
			}
		}
		if x.mail.Subject == "" || x.mail.Text == "" || strings.Contains(x.mail.Text, x.without) {
			t.Errorf("%s: the mail is without a part, or has %q:\n%s", x.name, x.without, x.mail.Text)
		}
	}
}
