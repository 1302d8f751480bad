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
)

var pictures = flag.String("pictures", "", "directory into which TestPictures puts a picture of every page")

// TestPictures takes the pictures of docs/console: what is best seen of each part.
func TestPictures(t *testing.T) {
	t.Parallel()
	if *pictures == "" {
		t.Skip("without -pictures DIR no pictures are taken")
	}
	shots := []struct {
		state, name   string
		width, height int64
		theme         string
	}{
		{"overview", "overview", 1280, 800, "light"}, {"overview", "overview-phone", 390, 844, "dark"},
		{"ticket", "ticket", 1280, 800, "light"}, {"webhook", "webhook", 1280, 800, "light"},
		{"deliveries", "deliveries", 1280, 800, "light"}, {"delivery", "delivery", 1280, 800, "dark"},
		{"delivery", "delivery-phone", 390, 844, "light"}, {"report", "cutover-report", 1280, 800, "light"},
	}
	tourOf(t, func(tb *tab, state string) {
		for _, shot := range shots {
			if shot.state == state {
				tb.window(shot.width, shot.height, shot.theme)
				save(t, tb, shot.name)
			}
		}
	})
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
