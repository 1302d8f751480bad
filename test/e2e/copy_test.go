package e2e

import (
	"database/sql"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/ticketwire/ticketwire/test/postgres"
	"github.com/ticketwire/ticketwire/webhook"
)

// copied is what ticketwire copy --json prints.
type copied struct {
	Identical bool    `json:"identical"`
	Copied    int64   `json:"copied"`
	Resumed   bool    `json:"resumed"`
	Seconds   float64 `json:"seconds"`
	Tables    []struct {
		Name     string `json:"name"`
		Rows     int64  `json:"rows"`
		Checksum string `json:"checksum"`
	} `json:"tables"`
	Next string `json:"next"`
}

func (c *copied) rows(table string) int64 {
	for _, t := range c.Tables {
		if t.Name == table {
			return t.Rows
		}
	}
	return -1
}

// copyDesk runs the command to its end.
func copyDesk(t *testing.T, from, to string, more ...string) copied {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, append([]string{"copy", "--json", "--from", from, "--to", to}, more...)...)
	cmd.Env = environment()
	var told strings.Builder
	cmd.Stderr = &told
	out, err := cmd.Output()
	var c copied
	if jerr := json.Unmarshal(out, &c); err != nil || jerr != nil || !c.Identical {
		t.Fatalf("copy from %s to %s: %v, %s\n%s", from, to, err, told.String(), out)
	}
	return c
}

// busyDesk is a desk with something in every table that a service fills, killed
// while a receiver held what it had been handed. owed are the events that this
// receiver has not accepted.
func busyDesk(t *testing.T, held, trusted *receiver, ca, failing string) (d *desk, h hook, owed []event) {
	t.Helper()
	d = openDesk(t, "--retry-schedule", "1h,1h", "--warn-after", "1ms")
	ok := receive(t, nil)
	delivered := d.subscribe(t, ok.url, object{"payload_fields": object{"ticket": []string{"title", "status_name"}}}, allTicketEvents...)
	d.subscribe(t, failing, nil, "ticket.created")
	a, b := d.newTicket(t, "Printer offline"), d.newTicket(t, "VPN \u00fc\U0001f600 down")
	d.work(t, a, b)
	call[any](t, d, "PUT", "/tickets/"+a.ID, object{"tags": []string{"a", "b"}})
	call[any](t, d, "POST", "/webhooks/"+delivered.ID+"/secret/rotate", object{"grace_period_seconds": 3600})
	repeated(t, d, "once", object{
		"title": "Once", "board_id": d.tenant.BoardID, "client_id": d.tenant.ClientID,
		"status_id": d.tenant.Statuses["Open"], "priority_id": d.tenant.Priorities["Medium"],
	})
	ok.await(t, "what is delivered arrives", count(9))
	call[any](t, d, "POST", "/webhooks/"+delivered.ID+"/replay", object{
		"since": time.Now().Add(-time.Hour).UTC().Format(time.RFC3339), "only": "all",
	})
	d.subscribe(t, trusted.url, object{"tls": object{"ca_bundle": ca}}, "ticket.updated")
	h = d.subscribe(t, held.url, object{"custom_headers": object{"X-Team": "ops"}}, "ticket.updated")
	before := len(d.feed(t, nil))
	for i := range 40 {
		d.retitle(t, b.ID, fmt.Sprintf("held %d", i))
	}
	held.await(t, "some of it is under way", count(1))
	owed = d.feed(t, nil)[before:]
	d.kill(t)
	return d, h, owed
}

// repeated makes a ticket under an idempotency key and returns its id.
func repeated(t *testing.T, d *desk, key string, body object) string {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.url+"/api/v1/tickets", strings.NewReader(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-API-Key", d.tenant.APIKey)
	req.Header.Set("X-Idempotency-Key", key)
	res, err := httpClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var out struct{ Data ticket }
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil || res.StatusCode > 299 {
		t.Fatalf("status %d, %v", res.StatusCode, err)
	}
	return out.Data.ID
}

// An installation that was killed at work moves to PostgreSQL and back. Each time
// the copy is identical, what was owed goes out, signed by the same secret, and the
// feed goes on where it was.
func TestCopyMovesALiveInstallation(t *testing.T) {
	t.Parallel()
	open := make(chan struct{})
	held := receive(t, func(int) { <-open })
	failing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "not \x00 now \xff", http.StatusServiceUnavailable)
	}))
	t.Cleanup(failing.Close)
	trusted := &receiver{changed: make(chan struct{})}
	overTLS := httptest.NewTLSServer(http.HandlerFunc(trusted.serve))
	t.Cleanup(overTLS.Close)
	trusted.url = overTLS.URL
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: overTLS.Certificate().Raw}))
	d, h, owed := busyDesk(t, held, trusted, ca, failing.URL)
	inFlight := eventIDs(held.arrived())

	server, back := postgres.URL(t, postgres.Start(t)), filepath.Join(t.TempDir(), "back")
	there := copyDesk(t, "sqlite:"+d.dir, server)
	for _, table := range []string{
		"tenants", "users", "api_keys", "tickets", "ticket_tags", "comments", "events", "webhooks", "webhook_health",
		"deliveries", "handovers", "idempotency_keys", "replay_jobs", "mail_outbox",
	} {
		if there.rows(table) < 1 {
			t.Errorf("there is nothing in %s to copy", table)
		}
	}
	returned := copyDesk(t, server, "sqlite:"+back, "--secret-key-file", filepath.Join(d.dir, "secret.key"))
	for i, x := range returned.Tables {
		if x.Rows != there.Tables[i].Rows {
			t.Errorf("%s: %d rows came back of %d", x.Name, x.Rows, there.Tables[i].Rows)
		}
	}

	// On PostgreSQL it goes on.
	d.extra = append(d.extra, "--database-url", server)
	close(open)
	d.start(t)
	held.await(t, "what was owed arrives", func(a []arrival) bool { return len(eventIDs(a)) == len(owed) })
	d.settled(t, h, len(owed))
	for id, n := range eventIDs(held.arrived()) {
		if n > 1+inFlight[id] || !slices.ContainsFunc(owed, func(e event) bool { return e.ID == id }) {
			t.Errorf("event %s arrived %d times, %d of them before the kill", id, n, inFlight[id])
		}
	}
	for i, a := range held.arrived() {
		if err := webhook.Verify(a.header.Get(webhook.SignatureHeader), a.body, a.at, h.Secret); err != nil {
			t.Errorf("request %d: %v", i, err)
		}
		if got := a.header.Get("X-Team"); got != "ops" {
			t.Errorf("request %d has the custom header %q", i, got)
		}
	}
	before := d.feed(t, nil)
	once := object{
		"title": "Once", "board_id": d.tenant.BoardID, "client_id": d.tenant.ClientID,
		"status_id": d.tenant.Statuses["Open"], "priority_id": d.tenant.Priorities["Medium"],
	}
	tk := repeated(t, d, "once", once)
	if n := len(d.feed(t, nil)); n != len(before) {
		t.Error("a repeated call was taken for a new one")
	}
	atTrusted := len(trusted.arrived())
	d.retitle(t, tk, "on PostgreSQL")
	trusted.await(t, "an update arrives where the copied authority is trusted", count(atTrusted+1))
	if after := d.feed(t, nil); len(after) != len(before)+1 || !slices.Equal(after[:len(before)], before) {
		t.Errorf("the feed does not go on where it was: %d events, then %d", len(before), len(after))
	}
	d.terminate(t)
	d.server.wait(t)

	// And back in a directory, into which the first way back has led already.
	again := filepath.Join(t.TempDir(), "again")
	c := copyDesk(t, server, "sqlite:"+again, "--secret-key-file", filepath.Join(d.dir, "secret.key"))
	if c.Next != "ticketwire serve --data "+again {
		t.Errorf("to go on with: %q", c.Next)
	}
	d.dir, d.extra = again, nil
	d.start(t)
	n := len(held.arrived())
	d.retitle(t, tk, "back again")
	held.await(t, "an update arrives", count(n+1))
	if after := d.feed(t, nil); len(after) != len(before)+2 || !slices.Equal(after[:len(before)], before) {
		t.Errorf("the feed does not go on where it was: %d events, then %d", len(before)+1, len(after))
	}
}

// Ten kills at random moments of one copy, in each direction: the run that gets
// through is identical.
func TestKillsOfACopy(t *testing.T) {
	t.Parallel()
	const events = 30_000
	d := openDesk(t)
	tk := d.newTicket(t, "many events")
	d.retitle(t, tk.ID, "renamed")
	d.terminate(t)
	d.server.wait(t)
	multiply(t, d.dir, events)
	key := []string{"--secret-key-file", filepath.Join(t.TempDir(), "key")}
	copyFile(t, filepath.Join(d.dir, "secret.key"), key[1])
	newServer := func() string { return postgres.URL(t, postgres.Start(t)) }
	newDir := func() string { return "sqlite:" + filepath.Join(t.TempDir(), "back") }
	server, there := killedCopy(t, "sqlite:"+d.dir, newServer, key)
	_, back := killedCopy(t, server, newDir, key)
	if n := there.rows("events"); n < events {
		t.Errorf("%d events were copied", n)
	}
	for i, x := range back.Tables {
		if x != there.Tables[i] {
			t.Errorf("there it was %+v, and back %+v", there.Tables[i], x)
		}
	}

	// Undisturbed, for the figure.
	for _, way := range [][2]string{{"sqlite:" + d.dir, newServer()}, {server, newDir()}} {
		c := copyDesk(t, way[0], way[1], key...)
		t.Logf("undisturbed: %d rows in %.1f s, compared: %.0f rows per second", c.Copied, c.Seconds, float64(c.Copied)/c.Seconds)
	}
}

// killedCopy kills a copy ten times at random moments and lets it end then. A run
// that is sooner done than killed is followed by one to another target.
func killedCopy(t *testing.T, from string, target func() string, key []string) (to string, c copied) {
	t.Helper()
	to = target()
	for kills, runs := 0, 1; kills < 10; runs++ {
		if runs > 60 {
			t.Fatalf("only %d of %d runs were killed", kills, runs)
		}
		p := spawn(t, binary, environment(), append([]string{"copy", "--json", "--from", from, "--to", to}, key...)...)
		select {
		case <-p.gone:
			if code := p.wait(t); code != 0 {
				t.Fatalf("the copy ended with %d: %v", code, p.printed())
			}
			to = target()
		case <-time.After(time.Duration(50+rand.IntN(350)) * time.Millisecond):
			p.kill(t)
			p.wait(t)
			kills++
		}
	}
	c = copyDesk(t, from, to, key...)
	t.Logf("from %.6s after ten kills: %d rows were left to copy", from, c.Copied)
	return to, c
}

// multiply gives the desk's events copies, each under a number and an id of its own.
func multiply(t *testing.T, dir string, n int) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, "ticketwire.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), `with recursive n(i) as (select 1 union all select i + 1 from n where i < ?)
		insert into events (prev_seq, tenant_id, event_id, event_type, ticket_id, occurred_at, created_at, body)
		select 0, tenant_id, event_id || '-' || i, event_type, ticket_id, occurred_at, created_at, body || i
		from n, (select * from events order by seq limit 1)`, n); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
