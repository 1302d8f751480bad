package cutover

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ticketwire/ticketwire/internal/fault"
)

// appends is set in the environment of the process that appends, see
// record_test.go.
const appends = "APPEND_FOREVER"

func TestMain(m *testing.M) {
	if os.Getenv(appends) != "" {
		panic(appendForever())
	}
	goleak.VerifyTestMain(m)
}

const ticketA = "e2a94b77-6f10-4c58-8d3e-90b1c2d3e4f5"

// answering is a server that answers the next texts in turn, the last one for
// ever, with the headers that AlgaPSA sends.
func answering(t *testing.T, texts ...string) (url string, asked *[]string) {
	t.Helper()
	asked = new([]string)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = append(*asked, r.URL.RequestURI())
		text := texts[0]
		if len(texts) > 1 {
			texts = texts[1:]
		}
		w.Header().Set("X-RateLimit-Limit", "120")
		w.Header().Set("X-RateLimit-Remaining", "-1") // its limiter is out of reach
		status := http.StatusOK
		if strings.Contains(text, "NOT_FOUND") {
			status = http.StatusNotFound
		}
		w.WriteHeader(status)
		fmt.Fprint(w, text)
	}))
	t.Cleanup(s.Close)
	return s.URL, asked
}

// oneRound runs one round and returns what it reacted to.
func oneRound(t *testing.T, url, dir string, ids ...string) ([]Change, *Poller, error) {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	var got []Change
	p, err := Open(Config{
		URL: url, Key: "k", HTTP: &http.Client{Transport: transport}, Dir: dir, IDs: ids, Interval: time.Hour, Budget: 1, Rounds: 1, Now: time.Now,
		React: func(_ context.Context, c Change) error {
			got = append(got, c)
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	err = p.Run(t.Context())
	return got, p, errors.Join(err, p.Close())
}

// One ticket in the shape in which AlgaPSA answers it (contract section 2.1):
// without tags and board_name, is_closed null, objects where others have texts.
func algaTicket(updated, more string) string {
	return `{"ticket_id":"` + ticketA + `","ticket_number":"TIC1042","title":"Printer","is_closed":null,"entered_at":"2026-05-05T08:00:00.000Z",` +
		`"updated_at":"` + updated + `","assigned_to":null,"assigned_to_name":null,"documents":[],"description_html":"<p>x</p>"` + more + `}`
}

func TestPollingAlgaPSA(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i, step := range []struct {
		answer string
		reacts bool
		seen   Verdict // "" for none
		fields bool    // whether the record has them
	}{
		{`{"data":` + algaTicket("2026-05-05T09:00:00.000Z", "") + `}`, false, First, true},
		{`{"data":` + algaTicket("2026-05-05T09:00:00.000Z", "") + `}`, false, Same, false},
		{`{"data":` + algaTicket("2026-05-05T09:00:00Z", "") + `}`, false, Same, false}, // another text, the same time
		// A tag does not move updated_at: seen and recorded once, and no change.
		{`{"data":` + algaTicket("2026-05-05T09:00:00.000Z", `,"tags":[{"tag_id":"1","tag_text":"vip"}]`) + `}`, false, Same, true},
		{`{"data":` + algaTicket("2026-05-05T09:00:00.000Z", `,"tags":[{"tag_id":"1","tag_text":"vip"}]`) + `}`, false, Same, false},
		{`{"error":{"code":"NOT_FOUND","message":"ticket not found"}}`, false, "", false},
		// It is back, in a later state and with a time that sorts before as a text.
		{`{"data":` + algaTicket("2026-05-05T10:00:00.5Z", "") + `}`, true, Changed, true},
		{`{"data":` + algaTicket("2026-05-05T10:00:00.500Z", "") + `}`, false, Same, false},
		// The answer of a replica that lags.
		{`{"data":` + algaTicket("2026-05-05T09:00:00.000Z", `,"tags":[]`) + `}`, false, Older, true},
		{`{"data":` + algaTicket("2026-05-05T10:00:00.500Z", "") + `}`, false, Same, false},
		{`{"data":null}`, false, "", false},
	} {
		url, _ := answering(t, step.answer)
		got, p, err := oneRound(t, url, dir, strings.ToUpper(ticketA))
		if (err != nil) != (step.answer == `{"data":null}`) {
			t.Fatalf("step %d: %v", i, err)
		}
		if err != nil {
			continue // a first answer that is not the API's ends it
		}
		if (len(got) == 1) != step.reacts {
			t.Errorf("step %d: reactions %+v", i, got)
		}
		entries, _ := readAll(t, dir)
		var polls []*Poll
		for _, e := range entries {
			if e.Poll != nil {
				polls = append(polls, e.Poll)
			}
		}
		last := polls[len(polls)-1]
		switch {
		case step.seen == "":
			if len(last.Seen) != 0 || last.Failure != NotFound {
				t.Errorf("step %d: %+v", i, last)
			}
		case len(last.Seen) != 1 || last.Seen[0].Verdict != step.seen || (last.Seen[0].Fields != nil) != step.fields:
			t.Errorf("step %d: %+v, want %s, fields %t", i, last.Seen, step.seen, step.fields)
		}
		if last.Limit != 120 || last.Remaining != 0 || p.Incomplete() != nil {
			t.Errorf("step %d: limit %d, remaining %d, incomplete %v", i, last.Limit, last.Remaining, p.Incomplete())
		}
	}
}

// What a run counts is what a reader of its record counts.
func TestNumbersAreAFunctionOfTheRecord(t *testing.T) {
	t.Parallel()
	url, _ := answering(t, `{"data":`+algaTicket("2026-05-05T09:00:00.000Z", "")+`}`, `{"data":`+algaTicket("2026-05-05T09:00:01.000Z", "")+`}`)
	dir := t.TempDir()
	_, _, err := oneRound(t, url, dir, ticketA)
	if err != nil {
		t.Fatal(err)
	}
	before, _ := readAll(t, dir)
	_, p, err := oneRound(t, url, dir, ticketA)
	if err != nil {
		t.Fatal(err)
	}
	all, _ := readAll(t, dir)
	var n Numbers
	for _, e := range all[len(before):] {
		n.Add(e)
	}
	if got, want := fmt.Sprintf("%+v", n), fmt.Sprintf("%+v", *p.Numbers()); got != want || n.Changes != 1 {
		t.Errorf("read %s\nlive %s", got, want)
	}
}

// A first answer that cannot be the API's, or that refuses the key, ends the
// poller; so does a list that is not in the order that was asked for.
func TestPollerGivesUp(t *testing.T) {
	t.Parallel()
	other := strings.Replace(algaTicket("2026-05-05T08:00:00.000Z", ""), ticketA, strings.Replace(ticketA, "e2", "e3", 1), 1)
	for answer, want := range map[string]string{
		`<html>sign in</html>`:                          "decode answer",
		`{"error":{"code":"NOT_FOUND","message":"no"}}`: "404 NOT_FOUND",
		`{"data":[` + algaTicket("2026-05-05T09:00:00.000Z", "") + `,` + other + `],"pagination":{"hasNext":false,"total":2}}`: "does not sort its list by updated_at",
	} {
		url, _ := answering(t, answer)
		if _, _, err := oneRound(t, url, t.TempDir()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", answer, err, want)
		}
	}
}

// The list is asked for as AlgaPSA can answer it.
func TestListRequests(t *testing.T) {
	t.Parallel()
	page := `{"data":[` + algaTicket("2026-05-05T09:00:00.000Z", "") + `],"pagination":{"page":1,"limit":100,"total":1,"totalPages":1,"hasNext":false,"hasPrev":false}}`
	url, asked := answering(t, page)
	dir := t.TempDir()
	for range 2 {
		if got, _, err := oneRound(t, url, dir); err != nil || len(got) != 0 {
			t.Fatal(got, err)
		}
	}
	want := []string{
		"/api/v1/tickets?limit=100&order=asc&page=1&sort=updated_at",
		"/api/v1/tickets?limit=1&page=1",
		"/api/v1/tickets?limit=100&order=asc&page=1&sort=updated_at&updated_from=2026-05-05T08%3A55%3A00Z",
		"/api/v1/tickets?limit=1&page=1",
	}
	if !slices.Equal(*asked, want) {
		t.Errorf("asked %q, want %q", *asked, want)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := func(url, at string) (*Poller, error) {
		return Open(Config{URL: url, Key: "k", Dir: at, Interval: time.Minute, Budget: 0.5, Now: time.Now})
	}
	first, err := open("http://127.0.0.1:1", dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open("http://127.0.0.1:1", dir); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second poller: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("{\"seen\":nonsense}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	damaged := t.TempDir()
	if err := os.Rename(file, filepath.Join(damaged, "seen.jsonl")); err != nil {
		t.Fatal(err)
	}
	for name, try := range map[string][2]string{
		"a damaged memory": {"http://127.0.0.1:1", damaged}, "no URL": {"desk", dir},
		"a file as directory": {"http://127.0.0.1:1", filepath.Join(damaged, "seen.jsonl")},
	} {
		if p, err := open(try[0], try[1]); err == nil {
			t.Errorf("%s was accepted", name)
			p.Close()
		}
	}
	// What was refused has let go of the directory.
	if _, err := open("http://127.0.0.1:1", damaged); fault.Is(err, fault.Conflict) {
		t.Errorf("still locked: %v", err)
	}
}

// A sweep goes on where a request of it failed: with the same page, and with the same
// ticket of those that the list left out.
func TestASweepGoesOnWhereItFailed(t *testing.T) {
	t.Parallel()
	const at, broken = "2026-05-05T09:00:00.000Z", `<html>busy</html>`
	page := func(more string, id string) string {
		return `{"data":[` + strings.Replace(algaTicket(at, ""), ticketA, id, 1) + `],"pagination":{"total":2,"hasNext":` + more + `}}`
	}
	url, asked := answering(t, broken, page("true", "a"), page("false", "b"), broken, `{"error":{"code":"NOT_FOUND","message":"ticket not found"}}`)
	p, err := Open(Config{
		URL: url, Key: "k", HTTP: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, Dir: t.TempDir(),
		Interval: time.Hour, Budget: 1, Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	updated, err := time.Parse(time.RFC3339, at)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a", "b", "c"} {
		if err := p.memory.save(memoryLine{Seen: &seen{Ticket: id, UpdatedAt: updated}}); err != nil {
			t.Fatal(err)
		}
	}
	p.answered, p.sweep = true, &sweep{page: 1, seen: map[string]bool{}}
	for range 3 { // rounds
		p.failure = nil
		if err := p.goOnSweeping(t.Context(), day); err != nil {
			t.Fatal(err)
		}
	}
	const list = "/api/v1/tickets?limit=100&order=asc&page="
	want := []string{list + "1&sort=ticket_number", list + "1&sort=ticket_number", list + "2&sort=ticket_number", "/api/v1/tickets/c", "/api/v1/tickets/c"}
	if !slices.Equal(*asked, want) || p.sweep != nil {
		t.Errorf("asked %q, want %q; the sweep is over: %t", *asked, want, p.sweep == nil)
	}
	for id, s := range p.memory.tickets {
		if s.Gone != (id == "c") || s.Unlisted {
			t.Errorf("ticket %s: %+v", id, s)
		}
	}
}

// A ticket that is ahead of the server's clock does not take the walks with it: what
// changes until then is seen.
func TestATicketOfTheFutureHidesNothing(t *testing.T) {
	t.Parallel()
	d, dir := newDesk(t), t.TempDir()
	d.changed["ahead"], d.changed["b"] = d.clock.Add(2*time.Hour), d.clock.Add(-time.Hour)
	if got, _, err := oneRound(t, d.URL, dir); err != nil || len(got) != 0 {
		t.Fatal(got, err)
	}
	d.clock = d.clock.Add(10 * time.Minute)
	d.changed["b"] = d.clock
	if got, _, err := oneRound(t, d.URL, dir); err != nil || len(got) != 1 || got[0].Ticket != "b" {
		t.Errorf("reacted to %+v, %v", got, err)
	}
}
