package alga_test

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ticketwire/ticketwire/inbox"
	"github.com/ticketwire/ticketwire/test/alga"
	"github.com/ticketwire/ticketwire/webhook"
)

// hit is a request as a receiver sees it.
type hit struct {
	at     time.Time
	header http.Header
	body   []byte
}

// answering is a receiver that notes what comes and answers as it is told.
type answering struct {
	status int
	mu     sync.Mutex
	hits   []hit
}

func (a *answering) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	a.mu.Lock()
	a.hits = append(a.hits, hit{time.Now(), r.Header.Clone(), body})
	a.mu.Unlock()
	w.WriteHeader(a.status)
}

// took returns what came so far.
func (a *answering) took() []hit {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.hits)
}

// Five requests at 0, 1, 6, 36 and 156 minutes, with the same bytes under the same
// event id, and a new delivery id and signature each.
func TestSchedule(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := start(t, alga.Config{})
		id, secret := p.Subscribe(hookURL, 0)
		a := &answering{status: http.StatusServiceUnavailable}
		p.listen(a)
		begun := time.Now()
		p.Create("Printer")
		time.Sleep(20 * time.Hour)
		hits := a.took()
		if len(hits) != 5 {
			t.Fatalf("%d requests, want 5", len(hits))
		}
		deliveryIDs := map[string]bool{}
		for i, h := range hits {
			due := []time.Duration{0, time.Minute, 6 * time.Minute, 36 * time.Minute, 156 * time.Minute}[i]
			if late := h.at.Sub(begun) - due; late < 0 || late > 5*2*time.Second { // each look is up to 2 s late
				t.Errorf("attempt %d came after %s, want %s", i+1, h.at.Sub(begun), due)
			}
			if string(h.body) != string(hits[0].body) || h.header.Get(webhook.AttemptHeader) != strconv.Itoa(i+1) ||
				h.header.Get(webhook.EventIDHeader) != hits[0].header.Get(webhook.EventIDHeader) || h.header.Get(webhook.WebhookIDHeader) != id {
				t.Errorf("attempt %d: %v %s", i+1, h.header, h.body)
			}
			deliveryIDs[h.header.Get(webhook.DeliveryIDHeader)] = true
			v := webhook.Verifier{Secrets: webhook.NewSecretList(secret).All, Now: func() time.Time { return h.at }, Tolerance: time.Second}
			if err := v.Verify(h.header.Get(webhook.SignatureHeader), h.body); err != nil {
				t.Errorf("attempt %d: %v", i+1, err)
			}
		}
		if len(deliveryIDs) != 5 {
			t.Errorf("%d delivery ids for 5 attempts", len(deliveryIDs))
		}
	})
}

// The payloads have the keys of the contract's examples, in their order, but for
// what AlgaPSA does otherwise.
func TestPayloadsHaveTheKeysOfTheContract(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := start(t, alga.Config{FreshPayloads: true, InOrder: true})
		p.Subscribe(hookURL, 0)
		a := &answering{status: http.StatusOK}
		p.listen(a)
		id := p.Create("Printer")
		p.Comment(id, "hello", false)
		p.Update(alga.WebUI, alga.Change{Status: ptr(alga.InProgress)}, id)
		p.Update(alga.WebUI, alga.Change{Assign: ptr(alga.Mara)}, id)
		p.Update(alga.WebUI, alga.Change{Tags: []string{"vip"}}, id)
		p.Update(alga.REST, alga.Change{Status: ptr(alga.Closed)}, id)
		time.Sleep(time.Minute)
		files := map[string]string{"ticket.comment.added": "ticket.comment.added.with-thread"}
		var types []string
		for _, h := range a.took() {
			kind := h.header.Get(webhook.EventTypeHeader)
			types = append(types, kind)
			name := kind
			if files[kind] != "" {
				name = files[kind]
			}
			want, err := os.ReadFile(filepath.Join("..", "..", "webhook", "testdata", "payloads", name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			wantKeys, gotKeys := keys(t, want), keys(t, h.body)
			if !slices.Contains(wantKeys, "data.comments") {
				wantKeys = append(wantKeys, "data.comments") // D9
			}
			wantKeys = slices.DeleteFunc(wantKeys, func(k string) bool { return k == "data.comment.author_type" }) // D8
			if !slices.Equal(gotKeys, wantKeys) {
				t.Errorf("%s has the keys\n%q, want\n%q", kind, gotKeys, wantKeys)
			}
		}
		want := []string{
			"ticket.created", "ticket.comment.added", "ticket.status_changed", "ticket.updated", "ticket.assigned", "ticket.updated",
			"ticket.updated", "ticket.closed",
		}
		if !slices.Equal(types, want) {
			t.Errorf("events %q, want %q", types, want)
		}
	})
}

// keys lists the keys of a payload in their order: those of the envelope, of data
// and of the comment.
func keys(t *testing.T, text []byte) []string {
	t.Helper()
	var out []string
	var walk func(prefix string, text []byte)
	walk = func(prefix string, text []byte) {
		dec := json.NewDecoder(strings.NewReader(string(text)))
		if _, err := dec.Token(); err != nil {
			t.Fatal(err)
		}
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				t.Fatal(err)
			}
			var value json.RawMessage
			if err := dec.Decode(&value); err != nil {
				t.Fatal(err)
			}
			name := prefix + key.(string)
			out = append(out, name)
			if name == "data" || name == "data.comment" {
				walk(name+".", value)
			}
		}
	}
	walk("", text)
	return out
}

// A burst at the usual limit of 100 per minute loses events: those over it use up
// their attempts without being sent (W2). A receiver cannot know; whoever
// compares can.
func TestBurstsLoseEvents(t *testing.T) {
	t.Parallel()
	for _, waits := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := start(t, alga.Config{LimitWaits: waits})
			p.Subscribe(hookURL, 0)
			a := &answering{status: http.StatusOK}
			p.listen(a)
			for range 300 {
				p.Create("Printer")
			}
			time.Sleep(time.Hour)
			if n := len(a.took()); waits && n != 300 || !waits && (n < 110 || n > 200) || p.Waiting() != 0 {
				t.Errorf("the limit waits: %t, %d of 300 arrived, %d wait", waits, n, p.Waiting())
			}
		})
	}
}

// Redirects are followed. A 307 brings body and signature to where it points; a
// 302 brings a GET without a body, which our handler must not answer with a 2xx,
// because that would count as delivered.
func TestRedirects(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]int{http.StatusTemporaryRedirect: 1, http.StatusPermanentRedirect: 1, http.StatusFound: 5, http.StatusSeeOther: 5} {
		synctest.Test(t, func(t *testing.T) {
			p := start(t, alga.Config{})
			_, secret := p.Subscribe("http://old.example/hook", 0)
			var c collect
			mux := http.NewServeMux()
			mux.Handle("old.example/", http.RedirectHandler(hookURL, status))
			mux.Handle("receiver.example/", webhook.NewHandler(webhook.NewSecretList(secret).All, c.react, webhook.WithLogger(quiet())))
			p.listen(mux)
			p.Create("Printer")
			time.Sleep(3 * time.Hour)
			last := p.Deliveries()[len(p.Deliveries())-1]
			delivered := want == 1
			if got := c.took(); len(p.Deliveries()) != want || (len(got) == 1) != delivered || (last.State == "delivered") != delivered {
				t.Errorf("%d: %d reactions, %d attempts, the last one %s %d %s", status, len(got), len(p.Deliveries()), last.State, last.Status, last.Answer)
			}
		})
	}
}

// A long thread makes every event of its ticket large (W23): too large for a
// receiver with the usual bound, which has to be raised for AlgaPSA.
func TestLongThreads(t *testing.T) {
	t.Parallel()
	for most, want := range map[int64]string{0: "abandoned", 8 << 20: "delivered"} {
		synctest.Test(t, func(t *testing.T) {
			p := start(t, alga.Config{})
			id := p.Create("Printer")
			for range 5 {
				p.Comment(id, strings.Repeat("as I said before, ", 15000), false)
			}
			_, secret := p.Subscribe(hookURL, 0)
			var c collect
			p.listen(webhook.NewHandler(webhook.NewSecretList(secret).All, c.react, webhook.WithMaxBody(most), webhook.WithLogger(quiet())))
			p.Update(alga.WebUI, alga.Change{Status: ptr(alga.Closed)}, id) // status_changed and closed
			time.Sleep(4 * time.Hour)
			for _, d := range p.Deliveries() {
				if d.State != want && d.State != "retrying" {
					t.Errorf("bound %d: attempt %d of %s is %s: %d %s", most, d.Attempt, d.Event.Type, d.State, d.Status, d.Answer)
				}
			}
			if got := len(c.took()); (got == 2) != (want == "delivered") {
				t.Errorf("bound %d: %d reactions", most, got)
			}
		})
	}
}

// An event that was held back comes after newer ones of its ticket: it is marked,
// or left out where that was asked for, in each of the three memories.
func TestLateEventsAreStale(t *testing.T) {
	t.Parallel()
	for _, memory := range []string{"memory", "deduper", "inbox"} {
		for _, skip := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				p := start(t, alga.Config{Fate: func(e alga.Event) alga.Fate {
					if e.N == 2 {
						return alga.Fate{Hold: 10 * time.Minute}
					}
					return alga.Fate{}
				}})
				_, secret := p.Subscribe(hookURL, 0)
				var c collect
				secrets, opts := webhook.NewSecretList(secret).All, []webhook.Option{webhook.WithLogger(quiet())}
				if skip {
					opts = append(opts, webhook.WithoutStale())
				}
				box, _, end := openInbox(t, filepath.Join(t.TempDir(), "inbox.db"))
				defer end()
				switch memory {
				case "memory":
					p.listen(webhook.NewHandler(secrets, c.react, opts...))
				case "deduper":
					p.listen(webhook.NewHandler(secrets, c.react, append(opts, webhook.WithDeduper(box))...))
				case "inbox":
					ctx, cancel := context.WithCancel(t.Context())
					var work sync.WaitGroup
					work.Go(func() { box.Work(ctx, c.react, inbox.Work{SkipStale: skip}) })
					defer work.Wait()
					defer cancel()
					p.listen(webhook.NewInboxHandler(secrets, box.Keep, opts...))
				}
				id := p.Create("Printer")
				for range 3 {
					time.Sleep(time.Second)
					p.Update(alga.REST, alga.Change{}, id)
				}
				time.Sleep(time.Hour)
				stale := map[bool]int{}
				for _, e := range c.took() {
					stale[e.Claim.Stale]++
				}
				// Those of one look arrive in any order, so more than one can be late.
				if total := stale[false] + stale[true]; skip && (stale[true] != 0 || total > 3) || !skip && (stale[true] == 0 || total != 4) {
					t.Errorf("%s, skipping %t: stale %v", memory, skip, stale)
				}
			})
		}
	}
}

// The ids in headers are not signed: a captured request under another id is
// refused, and so is one that is too old.
func TestCapturedRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := start(t, alga.Config{})
		_, secret := p.Subscribe(hookURL, 0)
		a := &answering{status: http.StatusOK}
		p.listen(a)
		p.Create("Printer")
		time.Sleep(time.Minute)
		captured := a.took()[0]
		var c collect
		h := webhook.NewHandler(webhook.NewSecretList(secret).All, c.react, webhook.WithLogger(quiet()))
		p.listen(h)
		again := func(change map[string]string) int {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, hookURL, strings.NewReader(string(captured.body)))
			if err != nil {
				t.Fatal(err)
			}
			r.Header = maps.Clone(captured.header)
			for k, v := range change {
				r.Header.Set(k, v)
			}
			w := new(deaf)
			h.ServeHTTP(w, r)
			return w.status
		}
		for name, tt := range map[string]struct {
			change map[string]string
			want   int
		}{
			"another id":   {map[string]string{webhook.EventIDHeader: "e2a94b77-6f10-4c58-8d3e-90b1c2d3e4f5"}, 400},
			"another type": {map[string]string{webhook.EventTypeHeader: "ticket.closed"}, 400},
			"as it was":    {nil, 200},
		} {
			if got := again(tt.change); got != tt.want {
				t.Errorf("%s: %d, want %d", name, got, tt.want)
			}
		}
		time.Sleep(10 * time.Minute)
		if got := again(nil); got != 401 {
			t.Errorf("ten minutes later: %d, want 401", got)
		}
		if got := c.took(); len(got) != 1 {
			t.Errorf("%d reactions, want 1", len(got))
		}
	})
}
