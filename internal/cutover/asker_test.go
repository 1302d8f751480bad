package cutover

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/client"
)

// The pages of one time are read again when something new was on them, by a backfill
// and by a collector too: a ticket that moved away has pulled another one across their
// edge. What was shown before is not shown again unless it has changed.
func TestPagesThatChangeAreReadAgain(t *testing.T) {
	t.Parallel()
	const at, later = "2026-05-05T09:00:00.000Z", "2026-05-05T10:00:00.000Z"
	page := func(more string, id, updated string) string {
		one := strings.Replace(algaTicket(updated, ""), ticketA, id, 1)
		return `{"data":[` + one + `],"pagination":{"total":3,"hasNext":` + more + `}}`
	}
	script := []string{
		page("true", "a", at), page("true", "a", at), // one time fills a page, so its tickets are read by their numbers
		page("true", "a", at), page("false", "b", at), // b is new: again
		page("true", "c", at), page("false", "b", at), // c had moved to a page that was read: again
		page("true", "c", at), page("false", "b", at),
		page("false", "a", later), // what is behind that time
	}
	h := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	want := []string{"a", "b", "c", "a"}

	url, asked := answering(t, script...)
	a, err := newAsker(url, "k", h, 1, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	if _, err := a.changed(t.Context(), time.Time{}, func(t *client.Ticket, _ time.Time) error {
		got = append(got, t.TicketID)
		return nil
	}); err != nil || !slices.Equal(got, want) || len(*asked) != len(script) {
		t.Errorf("a backfill: %v after %d requests, %v; want %v after %d", got, len(*asked), err, want, len(script))
	}

	url, asked = answering(t, script...)
	dir := t.TempDir()
	c, err := OpenCollector(CollectorConfig{URL: url, Key: "k", HTTP: h, Dir: dir, WebhookID: "w", Interval: time.Minute, Budget: 1, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, _, err := c.sweep(t.Context(), time.Time{}); err != nil {
		t.Fatal(err)
	}
	entries, _ := readAll(t, dir)
	got = nil
	for _, e := range entries {
		got = append(got, e.Truth.Ticket)
	}
	if !slices.Equal(got, want) || len(*asked) != len(script) {
		t.Errorf("a collector: %v after %d requests, want %v after %d", got, len(*asked), want, len(script))
	}
}

// A collector's sweep begins where the last one began that came to its end, by the
// server's clock, whatever ours says, and by overlap before that.
func TestCollectorSweepsByTheServersClock(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{0, 20 * time.Minute, -20 * time.Minute} {
		d := newDesk(t)
		began := d.clock
		c, err := OpenCollector(CollectorConfig{
			URL: d.URL, Key: "k", HTTP: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, Dir: t.TempDir(), WebhookID: "w",
			Since: began.Add(-time.Hour), Interval: time.Minute, Budget: 1, Now: func() time.Time { return d.clock.Add(ahead) },
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.noFeed = true
		want := func(what string, after time.Duration, n int) {
			t.Helper()
			d.clock = began.Add(after)
			if err := c.sweepNow(t.Context()); err != nil || c.status.Tickets != n {
				t.Errorf("our clock is ahead by %s: %s: %d tickets, %v; want %d", ahead, what, c.status.Tickets, err, n)
			}
		}
		want("nothing has changed", 0, 0)
		d.changed["late"], d.changed["old"] = began.Add(2*time.Second-overlap), began.Add(-2*time.Second-overlap)
		d.changed["soon"] = began.Add(time.Minute)
		want("it is not time", sweepEvery-time.Second, 0)
		d.breaks, d.clock = true, began.Add(sweepEvery)
		if err := c.sweepNow(t.Context()); err == nil {
			t.Error("a server that fails is no error")
		}
		d.breaks = false
		want("one that was committed late, and one that is new", sweepEvery+time.Minute, 2)
	}
}
