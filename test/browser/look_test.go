package browser

import (
	"bytes"
	"flag"
	"image"
	"image/color"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/chromedp/chromedp"
)

var pictures = flag.String("pictures", "", "directory into which TestPictures puts a picture of every page")

// TestPictures takes the pictures of docs/console.
func TestPictures(t *testing.T) {
	t.Parallel()
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
	for _, page := range []struct {
		name, path string
		every      bool // in every theme and size, not only on a screen by day
	}{
		{"overview", "/console/overview", true},
		{"tickets", "/console/tickets", false},
		{"ticket", "/msp/tickets/" + worked.Number, true},
		{"webhooks", "/console/webhooks", false},
		{"webhook", "/console/webhooks/" + broken.WebhookID, false},
		{"webhook-edit", "/console/webhooks/" + good.WebhookID + "/edit", false},
		{"delivery", "/console/deliveries/" + s.failed(t, broken), true},
		{"deliveries", "/console/deliveries", false},
		{"events", "/console/events", false},
		{"keys", "/console/keys", false},
		{"key", "/console/keys/" + s.ownKey(t) + "/edit", false},
		{"cutover-report", s.publish(t, sampleReport(t)), false},
	} {
		for _, size := range []struct {
			name          string
			width, height int64
			theme         string
		}{{"", 1280, 800, "light"}, {"-dark", 1280, 800, "dark"}, {"-phone", 390, 844, "light"}, {"-phone-dark", 390, 844, "dark"}} {
			if size.name != "" && !page.every {
				continue
			}
			tb.window(size.width, size.height, size.theme)
			tb.visit(page.path)
			save(t, tb, page.name+size.name)
		}
	}
}

// maxPicture is the largest picture, in bytes: they are part of every clone.
const maxPicture = 150_000

func save(t *testing.T, tb *tab, name string) {
	t.Helper()
	var out bytes.Buffer
	// The browser is in a hurry; whoever clones the repository is not.
	encoder := png.Encoder{CompressionLevel: png.BestCompression}
	if err := encoder.Encode(&out, paletted(must(png.Decode(bytes.NewReader(tb.picture())))(t))); err != nil {
		t.Fatal(err)
	}
	if out.Len() > maxPicture {
		t.Errorf("the picture %s has %d bytes, want at most %d", name, out.Len(), maxPicture)
	}
	if err := os.WriteFile(filepath.Join(*pictures, name+".png"), out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// paletted is a picture in its 256 most frequent colours, which a page hardly has
// more of.
func paletted(in image.Image) image.Image {
	counts := map[color.Color]int{}
	area := in.Bounds()
	for y := area.Min.Y; y < area.Max.Y; y++ {
		for x := area.Min.X; x < area.Max.X; x++ {
			counts[in.At(x, y)]++
		}
	}
	colours := slices.SortedFunc(maps.Keys(counts), func(a, b color.Color) int { return counts[b] - counts[a] })
	out := image.NewPaletted(area, colours[:min(256, len(colours))])
	nearest := map[color.Color]uint8{}
	for c := range counts {
		nearest[c] = uint8(out.Palette.Index(c))
	}
	for y := area.Min.Y; y < area.Max.Y; y++ {
		for x := area.Min.X; x < area.Max.X; x++ {
			out.SetColorIndex(x, y, nearest[in.At(x, y)])
		}
	}
	return out
}
