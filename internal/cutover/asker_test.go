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
	if _, err := c.sweep(t.Context(), time.Time{}); err != nil {
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
