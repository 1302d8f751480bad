package app

import (
	"net/url"
	"strings"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/mail"
	"github.com/ticketwire/ticketwire/internal/store"
)

// mails lets the store put texts into the outbox without knowing how they are
// written: the text is made in the transaction that disables the webhook, so
// that neither can happen without the other.
func mails(cfg Config) store.Mails {
	return store.Mails{
		Link: func(n store.LinkNotice) store.MailText {
			return textOf(mail.Link(mail.LinkNotice{
				UserName: n.UserName, TenantName: n.TenantName, Until: n.Until,
				Link: strings.TrimSuffix(cfg.PublicURL, "/") + "/console/link?token=" + url.QueryEscape(n.Token),
			}))
		},
		Disabled: func(n store.Notice) store.MailText {
			return textOf(mail.Disabled(mail.DisabledNotice{
				UserName: n.UserName, WebhookID: n.WebhookID, WebhookName: n.WebhookName,
				Gone: n.Reason == delivery.DisabledGone, DisabledAt: n.At, FailingSince: n.Since,
				DisableAfter: cfg.Policy.DisableAfter, LastError: n.LastError, PublicURL: cfg.PublicURL, Page: pageOf(cfg, n.WebhookID),
			}))
		},
		Warning: func(n store.Notice) store.MailText {
			w := mail.WarningNotice{
				UserName: n.UserName, WebhookID: n.WebhookID, WebhookName: n.WebhookName,
				FailingSince: n.Since, LastError: n.LastError, PublicURL: cfg.PublicURL, Page: pageOf(cfg, n.WebhookID),
			}
			if cfg.Policy.DisableAfter > 0 {
				w.DisableAt = n.Since.Add(cfg.Policy.DisableAfter)
			}
			return textOf(mail.Warning(w))
		},
		Reminder: func(n store.Notice) store.MailText {
			return textOf(mail.Reminder(mail.ReminderNotice{
				UserName: n.UserName, WebhookID: n.WebhookID, WebhookName: n.WebhookName,
				Gone: n.Reason == delivery.DisabledGone, DisabledAt: n.At, LastError: n.LastError,
				Missed: n.Missed.Kept, AtLeast: n.Missed.AtLeast, DeletedFrom: n.Missed.DeletedFrom, GoneBefore: n.Missed.GoneBefore, Last: n.Final,
				PublicURL: cfg.PublicURL, Page: pageOf(cfg, n.WebhookID),
			}))
		},
	}
}

// pageOf is where the console shows a webhook.
func pageOf(cfg Config, webhookID string) string {
	if !HasConsole {
		return ""
	}
	return strings.TrimSuffix(cfg.PublicURL, "/") + "/console/webhooks/" + url.PathEscape(webhookID)
}

func textOf(m mail.Message) store.MailText {
	return store.MailText{Subject: m.Subject, Text: m.Text, HTML: m.HTML}
}
