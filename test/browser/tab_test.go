package browser

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// chromium starts the browser once for a test and gives it a context.
func chromium(t *testing.T) context.Context {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		t.Fatal("there is no chromium on this machine; make packages installs it")
	}
	ctx, cancel := chromedp.NewExecAllocator(context.Background(),
		append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox,
			chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("disable-lcd-text", true))...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // it ends with the allocator in any case
		cancel()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start the browser: %v", err)
	}
	return ctx
}

// tab is one page of the browser. What it writes to its log fails the test at the
// end: script errors and what the content security policy has refused are there.
type tab struct {
	t    *testing.T
	ctx  context.Context
	base string

	mu  sync.Mutex
	log []string
}

func newTab(t *testing.T, browser context.Context, base string) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser)
	tb := &tab{t: t, ctx: ctx, base: base}
	messages := chromedp.Console(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for m, err := range messages {
			if err != nil {
				return
			}
			if m.Type == "debug" {
				continue // advice of the browser to those who write pages
			}
			// The status of a page that was meant to fail is no error of a script.
			if m.Source == "network" && strings.Contains(m.Text, "the server responded with a status of 4") {
				continue
			}
			tb.mu.Lock()
			tb.log = append(tb.log, m.String())
			tb.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		tb.mu.Lock()
		defer tb.mu.Unlock()
		for _, m := range tb.log {
			t.Errorf("the browser's log says: %s", m)
		}
	})
	return tb
}

// do runs actions within the patience of a test.
func (tb *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		tb.t.Fatalf("in the browser: %v\n%s", err, tb.text())
	}
}

// eval returns the value of an expression.
func eval[T any](tb *tab, expression string) T {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		tb.t.Fatalf("evaluate %s: %v", expression, err)
	}
	return v
}

// visit opens a path of the service.
func (tb *tab) visit(path string) {
	tb.t.Helper()
	tb.do(chromedp.Navigate(tb.base + path))
}

// text is what a person reads.
func (tb *tab) text() string {
	ctx, cancel := context.WithTimeout(tb.ctx, 5*time.Second)
	defer cancel()
	s, err := chromedp.Run(ctx, chromedp.Evaluate[string]("document.body.innerText"))
	if err != nil {
		return err.Error()
	}
	return s
}

// sees waits until the page says something.
func (tb *tab) sees(text string) {
	tb.t.Helper()
	deadline := time.Now().Add(patience)
	for !strings.Contains(tb.text(), text) {
		if time.Now().After(deadline) {
			tb.t.Fatalf("the page does not say %q:\n%s", text, tb.text())
		}
		tb.do(chromedp.Sleep(50 * time.Millisecond))
	}
}

// click presses the first element of a CSS selector.
func (tb *tab) click(selector string) {
	tb.t.Helper()
	tb.do(chromedp.Click(chromedp.CSS(selector)))
}

// fill replaces what a field holds.
func (tb *tab) fill(selector, text string) {
	tb.t.Helper()
	tb.do(chromedp.WaitReady(chromedp.CSS(selector)))
	if !eval[bool](tb, fmt.Sprintf(`(() => {
		const field = document.querySelector(%q);
		field.value = %q;
		field.dispatchEvent(new Event("input", {bubbles: true}));
		field.dispatchEvent(new Event("change", {bubbles: true}));
		return field.value === %q;
	})()`, selector, text, text)) {
		tb.t.Fatalf("%s does not take %q", selector, text)
	}
}

// upload gives a text to the field for a file.
func (tb *tab) upload(text []byte) {
	tb.t.Helper()
	_ = eval[any](tb, fmt.Sprintf(`(() => { const files = new DataTransfer(); files.items.add(new File([%q], "report.json"));
		document.querySelector("input[type=file]").files = files.files; return null; })()`, text))
}

// unchecked lets the form of a button be sent with what the browser would refuse.
func (tb *tab) unchecked(button string) {
	tb.t.Helper()
	_ = eval[bool](tb, fmt.Sprintf("document.querySelector(%q).form.noValidate = true", button))
}

// window sets the size of the page and the theme.
func (tb *tab) window(width, height int64, theme string) {
	tb.t.Helper()
	tb.do(chromedp.EmulateViewport(width, height), chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}},
		})
		return err
	}))
}

// picture is what the window shows, as a PNG.
func (tb *tab) picture() []byte {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.ctx, patience)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		tb.t.Fatalf("take a picture: %v", err)
	}
	return png
}

// accessible holds the page to the rules of axe-core. What it finds is an error for
// somebody who cannot see, or has no mouse.
func (tb *tab) accessible() {
	tb.t.Helper()
	axe, err := os.ReadFile("node_modules/axe-core/axe.min.js")
	if err != nil {
		tb.t.Fatalf("%v; npm ci --prefix test/browser installs it", err)
	}
	_ = eval[any](tb, string(axe)+"; null")
	ctx, cancel := context.WithTimeout(tb.ctx, patience)
	defer cancel()
	found, err := chromedp.Run(ctx, chromedp.Evaluate[string](`axe.run().then(r => r.violations.map(v =>
		v.id + ": " + v.help + "\n" + v.nodes.map(n => "  " + n.html.slice(0, 200) + "\n  " + n.failureSummary).join("\n")).join("\n"))`,
		chromedp.EvalAwaitPromise))
	if err != nil {
		tb.t.Fatalf("run axe: %v", err)
	}
	if found != "" {
		tb.t.Errorf("%s is not accessible:\n%s", eval[string](tb, "location.pathname"), found)
	}
}

// fits fails the test if the page is wider than the window, or if a sheet cuts off
// what is on it, and names what reaches too far.
func (tb *tab) fits() {
	tb.t.Helper()
	type tooWide struct {
		What, Of string
		Over     float64
		Elements []string
	}
	for _, w := range eval[[]tooWide](tb, `[document.documentElement, ...document.querySelectorAll(".sheet")].map(box => {
		const inner = box === document.documentElement ? innerWidth : box.clientWidth
		const edge = box === document.documentElement ? innerWidth : box.getBoundingClientRect().left + inner
		return {
			What: box.className || "the page", Of: location.pathname, Over: box.scrollWidth - inner,
			Elements: [...box.querySelectorAll("*")].filter(e => e.getBoundingClientRect().right > edge + .5).map(e => e.outerHTML.slice(0, 120)),
		}
	}).filter(w => w.Over > 0)`) {
		tb.t.Errorf("%s of %s is %g pixels too wide in a window of %g; beyond the edge:\n%s", w.What, w.Of, w.Over,
			eval[float64](tb, "innerWidth"), strings.Join(w.Elements, "\n"))
	}
}

// lengthen gives the page the longest times and durations that it can come to show.
func (tb *tab) lengthen() {
	tb.t.Helper()
	_ = eval[any](tb, `for (const time of document.querySelectorAll("main time")) if (/ ago|now|^in /.test(time.textContent)) time.textContent = "23 h 59 min ago";
		for (const answer of document.querySelectorAll("td[data-label=Answer] .muted")) answer.textContent = "29,999\u00a0ms";
		null`)
}

// onScreens holds the page to being accessible and to fitting, on a desk and on a phone.
func (tb *tab) onScreens(theme string) {
	tb.t.Helper()
	for _, size := range [][2]int64{{1280, 800}, {390, 844}} {
		tb.window(size[0], size[1], theme)
		tb.accessible()
		tb.fits()
	}
}
