package browser

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
)

var pictures = flag.String("pictures", "", "directory into which TestPictures puts a picture of every page")

// TestPictures takes the pictures of docs/console.
func TestPictures(t *testing.T) {
	if *pictures == "" {
		t.Skip("without -pictures DIR no pictures are taken")
	}
	s := newScene(t)
	worked, good, broken := s.work(t)
	s.morning(t)
	tb := newTab(t, chromium(t), s.app.PublicURL())
	tb.window(1280, 800, "light")
	tb.visit("/console/")
	save(t, tb, "sign-in")
	tb.do(chromedp.Navigate(s.link(t)))
	tb.click("button.primary")
	tb.sees("Tickets")
	for _, page := range []struct{ name, path string }{
		{"overview", "/console/overview"},
		{"events", "/console/events"},
		{"keys", "/console/keys"},
		{"new-key", "/console/keys/new"},
		{"tickets", "/console/tickets"},
		{"ticket", "/msp/tickets/" + worked.Number},
		{"new-ticket", "/console/tickets/new"},
		{"webhooks", "/console/webhooks"},
		{"webhook", "/console/webhooks/" + broken.WebhookID},
		{"webhook-good", "/console/webhooks/" + good.WebhookID},
		{"webhook-edit", "/console/webhooks/" + good.WebhookID + "/edit"},
		{"deliveries", "/console/deliveries"},
		{"delivery", "/console/deliveries/" + s.failed(t, broken)},
		{"replay", "/console/webhooks/" + good.WebhookID + "/replay"},
		{"not-found", "/msp/tickets/nothing"},
	} {
		for _, size := range []struct {
			name          string
			width, height int64
			theme         string
		}{{"", 1280, 800, "light"}, {"-dark", 1280, 800, "dark"}, {"-phone", 390, 844, "light"}, {"-phone-dark", 390, 844, "dark"}} {
			tb.window(size.width, size.height, size.theme)
			tb.visit(page.path)
			save(t, tb, page.name+size.name)
		}
	}
}

func save(t *testing.T, tb *tab, name string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(*pictures, name+".png"), tb.picture(), 0o600); err != nil {
		t.Fatal(err)
	}
}
