package mail

import (
	"strings"
	"testing"

	"github.com/ticketwire/ticketwire/internal/fault"
)

func TestParseServer(t *testing.T) {
	t.Parallel()
	tests := map[string]server{
		"smtp://mail.example.com":                            {host: "mail.example.com", port: 587, tls: tlsStartTLS},
		"smtp://mail.example.com:25?tls=none":                {host: "mail.example.com", port: 25, tls: tlsNone},
		"smtp://mail.example.com:25/?tls=opportunistic":      {host: "mail.example.com", port: 25, tls: tlsOpportunistic},
		"smtp://u%40example.com:p%3A%2F@mail.example.com:25": {host: "mail.example.com", port: 25, user: "u@example.com", password: "p:/", tls: tlsStartTLS},
		"smtps://u:p@mail.example.com":                       {host: "mail.example.com", port: 465, user: "u", password: "p", tls: tlsImplicit},
		"smtp://localhost:1025":                              {host: "localhost", port: 1025, tls: tlsOpportunistic},
		"smtp://u:p@127.0.0.1:1025?tls=none":                 {host: "127.0.0.1", port: 1025, user: "u", password: "p", tls: tlsNone},
		"smtp://u:p@[::ffff:127.0.0.1]:1025?tls=none":        {host: "::ffff:127.0.0.1", port: 1025, user: "u", password: "p", tls: tlsNone},
		"smtp://u:p@LocalHost":                               {host: "LocalHost", port: 587, user: "u", password: "p", tls: tlsOpportunistic},
		"smtp://[::1]:1025?tls=starttls":                     {host: "::1", port: 1025, tls: tlsStartTLS},
	}
	for raw, want := range tests {
		got, err := parseServer(raw)
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v", raw, got, err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	const from = "Ticketwire <noreply@example.com>"
	tests := []struct{ url, from, word string }{
		{"", from, "smtp-url"},
		{"mail.example.com:587", from, "smtp-url"},
		{"http://u:hunter2@mail.example.com", from, "scheme"},
		{"smtp://u:hunter2@", from, "smtp-url"},
		{"smtp://u:hunter2@mail.example.com:0", from, "port"},
		{"smtp://u:hunter2@mail.example.com:65536", from, "port"},
		{"smtp://u:hunter2@mail.example.com:x", from, "smtp-url"},
		{"smtp://u:hunter2%zz@mail.example.com", from, "smtp-url"},
		{"smtp://u:hunter2@mail.example.com/path", from, "smtp-url"},
		{"smtp://u:hunter2@mail.example.com#x", from, "smtp-url"},
		{"smtp://u@mail.example.com", from, "belong together"},
		{"smtp://:hunter2@mail.example.com", from, "belong together"},
		{"smtp://u:hunter2@mail.example.com?tls=none", from, "login needs"},
		{"smtp://u:hunter2@mail.example.com?tls=opportunistic", from, "login needs"},
		{"smtp://u:hunter2@mail.example.com?tls=maybe", from, "tls must be"},
		{"smtp://u:hunter2@mail.example.com?tls=none&tls=starttls", from, "only option"},
		{"smtp://u:hunter2@mail.example.com?timeout=5", from, "only option"},
		{"smtps://u:hunter2@mail.example.com?tls=starttls", from, "smtps"},
		{"smtp://mail.example.com", "", "mail-from"},
		{"smtp://mail.example.com", "Ticketwire", "mail-from"},
		{"smtp://mail.example.com", "a@example.com\r\nBcc: b@example.com", "mail-from"},
	}
	for _, tt := range tests {
		_, err := New(Config{URL: tt.url, From: tt.from})
		if err == nil {
			t.Errorf("%s, %q: accepted", tt.url, tt.from)
			continue
		}
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), tt.word) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s, %q: error %q", tt.url, tt.from, err)
		}
	}
}
