package e2e

import (
	"bytes"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the memory of the receivers

	"github.com/ticketwire/ticketwire/webhook"
)

// guideReceivers are the receivers of docs/receivers.md.
var guideReceivers = []struct {
	run   string   // the block with its command line
	needs []string // programs
	// table tells that the memory is a table in events.db: several processes can
	// share it, and a claim outlives its process.
	table bool
}{
	{"go", []string{"go"}, true},
	{"node", []string{"node"}, false},
	{"express", []string{"node"}, false},
	{"python", []string{"python3"}, true},
	{"php", []string{"php"}, true},
}

// Every receiver of the guide, as its reader would run it: real deliveries from
// the real server, then requests that nobody should send.
func TestReceiversOfTheGuide(t *testing.T) {
	t.Parallel()
	for _, c := range guideReceivers {
		t.Run(c.run, func(t *testing.T) {
			t.Parallel()
			need(t, c.needs...)
			r := installReceiver(t, c.run, c.table)
			d := openDesk(t)
			h := d.subscribe(t, r.url, nil, allTicketEvents...)
			r.secrets = h.Secret
			r.start(t)

			r.takesRealDeliveries(t, d, h)
			r.takesRotations(t, d, h)
			r.refusesForgeries(t)
			r.acknowledgesWhatItDoesNotKnow(t)
			r.bounds(t)
			r.reactsOnce(t)
			r.triesAgainAfterAFailure(t)
			r.saysThatACopyIsInProgress(t)
			r.survivesKills(t, c.table)
		})
	}
}

// guideReceiver is a receiver of the page in a directory of its own: one process,
// or two that share their memory.
type guideReceiver struct {
	dir, command string
	ports        []string // one per process
	url          string   // of the first, for the webhook
	secrets      string   // what the environment gets

	processes []*process
	sent      atomic.Int64 // requests, which go to the processes in turn
}

// installReceiver saves the page's files and, for Go, builds the program.
func installReceiver(t *testing.T, run string, shared bool) *guideReceiver {
	t.Helper()
	blocks := page(t, "receivers.md")
	r := &guideReceiver{dir: t.TempDir(), ports: []string{freePort(t)}}
	if shared {
		r.ports = append(r.ports, freePort(t))
	}
	r.url = r.urlOf(0)
	save(t, blocks, r.dir)
	for _, b := range blocks {
		if b.kind == "run" && b.name == run {
			r.command = strings.TrimSpace(b.text)
		}
	}
	if r.command == "" {
		t.Fatalf("the page has no command %q", run)
	}
	if run == "go" {
		build := exec.CommandContext(t.Context(), "go", "build", "-o", r.dir, filepath.Join(r.dir, "receiver.go"))
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	return r
}

func (r *guideReceiver) urlOf(i int) string {
	return "http://127.0.0.1:" + r.ports[i] + "/webhooks/alga"
}

// start starts the receiver and waits until it can be called.
func (r *guideReceiver) start(t *testing.T) {
	t.Helper()
	r.processes = nil
	for _, port := range r.ports {
		r.processes = append(r.processes, spawn(t, "sh",
			environment("PORT="+port, "SIGNING_SECRETS="+r.secrets, "EVENTS_FILE="+r.path("events.db")),
			"-c", `cd "$0" && exec `+r.command, r.dir))
		eventually(t, "the receiver listens", func() bool {
			conn, err := net.Dial("tcp", "127.0.0.1:"+port)
			if err != nil {
				return false
			}
			conn.Close()
			return true
		})
	}
}

func (r *guideReceiver) kill(t *testing.T) {
	t.Helper()
	for _, p := range r.processes {
		p.kill(t)
		p.wait(t)
	}
}

func (r *guideReceiver) restart(t *testing.T) {
	t.Helper()
	r.kill(t)
	r.start(t)
}

func (r *guideReceiver) path(name string) string { return filepath.Join(r.dir, name) }

// reactions returns how often the receiver has reacted to each event, by the
// line that it wrote.
func (r *guideReceiver) reactions(t *testing.T) map[string]int {
	t.Helper()
	text, err := os.ReadFile(r.path("tickets.log"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	lines := map[string]int{}
	for l := range strings.Lines(string(text)) {
		lines[strings.TrimSuffix(l, "\n")]++
	}
	return lines
}

// reacted returns how often the receiver has reacted to an event.
func (r *guideReceiver) reacted(t *testing.T, q request) int {
	t.Helper()
	n := 0
	for l, times := range r.reactions(t) {
		if strings.HasPrefix(l, q.id+" "+q.typ+" ") {
			n += times
		}
	}
	return n
}

// request is what the test sends itself. Empty header values are left out.
type request struct {
	id, typ             string // of the body
	headerID, headerTyp string
	body                []byte
	signature           string
}

// genuine returns a request that the receiver has to take: a new event, signed
// with its secret.
func (r *guideReceiver) genuine(typ string) request {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	q := request{typ: typ}
	q.id = fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	q.headerID, q.headerTyp = q.id, q.typ
	return q.with(r, `"title":"Drucker 🖨️ brennt"`)
}

// with replaces the body by one with more fields in its data, and signs it.
func (q request) with(r *guideReceiver, fields string) request {
	q.body = fmt.Appendf(nil, `{"event_id":%q,"event_type":%q,"occurred_at":"2026-03-09T08:14:02.140Z","tenant_id":%q,`+
		`"data":{"ticket_id":%q,"updated_at":"2026-03-09T08:14:02.140Z",%s}}`, q.id, q.typ, q.id, q.id, fields)
	return q.signed(r, 0)
}

// signed signs the body as of so much later than now.
func (q request) signed(r *guideReceiver, later time.Duration) request {
	q.signature = webhook.Sign(r.secret(), time.Now().Add(later), q.body)
	return q
}

func (r *guideReceiver) secret() string { s, _, _ := strings.Cut(r.secrets, ","); return s }

// post sends a request and returns the status of the answer, 0 for none.
func (r *guideReceiver) post(q request) int {
	url := r.urlOf(int(r.sent.Add(1)) % len(r.ports))
	req, err := http.NewRequest("POST", url, bytes.NewReader(q.body))
	if err != nil {
		return 0
	}
	req.Header.Set("Content-Type", "application/json")
	for name, value := range map[string]string{
		webhook.SignatureHeader: q.signature, webhook.EventIDHeader: q.headerID, webhook.EventTypeHeader: q.headerTyp,
	} {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	req.Close = true // a connection that outlives its receiver breaks the next request
	if len(q.body) > webhook.MaxBody {
		req.Header.Set("Expect", "100-continue") // else the answer can be lost behind the unread body
	}
	resp, err := httpClient.Do(req)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// expect posts a request and checks the answer, and how often the receiver has
// reacted to its event so far.
func (r *guideReceiver) expect(t *testing.T, what string, q request, status, reacted int) {
	t.Helper()
	if got := r.post(q); got != status {
		t.Errorf("%s: status %d, want %d", what, got, status)
	}
	if got := r.reacted(t, q); got != reacted {
		t.Errorf("%s: reacted %d times, want %d", what, got, reacted)
	}
}

func (r *guideReceiver) takesRealDeliveries(t *testing.T, d *desk, h hook) {
	t.Helper()
	d.work(t, d.newTicket(t, "Printer offline"), d.newTicket(t, "VPN down"))
	feed := d.feed(t, nil)
	types := map[string]bool{}
	for _, e := range feed {
		types[e.Type] = true
	}
	if len(types) != len(allTicketEvents) {
		t.Errorf("the work made events of %d types, want %d", len(types), len(allTicketEvents))
	}
	for _, row := range d.settled(t, h, len(feed)) {
		if row.Attempt != 1 {
			t.Errorf("event %s took %d attempts", row.EventID, row.Attempt)
		}
	}
	got := r.reactions(t)
	for _, e := range feed {
		if line := strings.Join([]string{e.ID, e.Type, e.Data.TicketID, e.Data.UpdatedAt}, " "); got[line] != 1 {
			t.Errorf("%d lines %q, want 1", got[line], line)
		}
	}
	if len(got) != len(feed) {
		t.Errorf("%d reactions to %d events", len(got), len(feed))
	}
	test := call[struct{ Success bool }](t, d, "POST", "/webhooks/"+h.ID+"/test", nil)
	if !test.Success || len(r.reactions(t)) != len(feed) {
		t.Errorf("the test delivery: success %t, %d reactions", test.Success, len(r.reactions(t))-len(feed))
	}
}

// takesRotations rotates the secret with a grace. The receiver knows the old
// one, then both, then the new one, and misses nothing.
func (r *guideReceiver) takesRotations(t *testing.T, d *desk, h hook) {
	t.Helper()
	rows := len(d.log(t, h))
	tk := d.newTicket(t, "Before the rotation")
	rotated := call[hook](t, d, "POST", "/webhooks/"+h.ID+"/secret/rotate", object{"grace_period_seconds": 3600})
	d.retitle(t, tk.ID, "In the grace, with the old secret")
	d.settled(t, h, rows+2)
	// The last list has an empty secret in it, which must verify nothing.
	for i, secrets := range []string{rotated.Secret + "," + h.Secret, rotated.Secret + ","} {
		r.secrets = secrets
		r.restart(t)
		d.retitle(t, tk.ID, fmt.Sprintf("In the grace, restart %d", i))
		d.settled(t, h, rows+3+i)
	}
	call[any](t, d, "POST", "/webhooks/"+h.ID+"/secret/promote", nil)
	d.retitle(t, tk.ID, "After the rotation")
	d.settled(t, h, rows+5)

	// Whichever of the signatures fits, one is enough.
	for what, signature := range map[string]func(request) string{
		"the first and last v1 fit": func(q request) string { return webhook.SignRotating(r.secret(), "other", time.Now(), q.body) },
		"the second v1 fits":        func(q request) string { return webhook.SignRotating("other", r.secret(), time.Now(), q.body) },
	} {
		q := r.genuine(webhook.TicketCreated)
		q.signature = signature(q)
		r.expect(t, what, q, 200, 1)
	}
}

func (r *guideReceiver) refusesForgeries(t *testing.T) {
	t.Helper()
	genuine := r.genuine(webhook.TicketUpdated)
	for _, c := range []struct {
		what   string
		status int
		forge  func(q *request)
	}{
		{"no signature", 401, func(q *request) { q.signature = "" }},
		{"another secret", 401, func(q *request) { q.signature = webhook.Sign("other", time.Now(), q.body) }},
		{"an empty secret", 401, func(q *request) { q.signature = webhook.Sign("", time.Now(), q.body) }},
		{"a changed body", 401, func(q *request) { q.body = bytes.Replace(q.body, []byte("brennt"), []byte("Brennt"), 1) }},
		{"no JSON, and not signed", 401, func(q *request) { q.body = []byte("{") }},
		{"six minutes old", 401, func(q *request) { *q = q.signed(r, -6*time.Minute) }},
		{"six minutes ahead", 401, func(q *request) { *q = q.signed(r, 6*time.Minute) }},
		{"no JSON, but signed", 400, func(q *request) { q.body = []byte("{"); *q = q.signed(r, 0) }},
		{"null, signed", 400, func(q *request) { q.body = []byte("null"); *q = q.signed(r, 0) }},
		{"an empty body, signed", 400, func(q *request) { q.body = nil; *q = q.signed(r, 0) }},
		{"another id in the header", 400, func(q *request) { q.headerID = r.genuine(q.typ).id }},
		{"no id in the header", 400, func(q *request) { q.headerID = "" }},
		{"another type in the header", 400, func(q *request) { q.headerTyp = webhook.TicketClosed }},
		{"no type in the header", 400, func(q *request) { q.headerTyp = "" }},
	} {
		q := genuine
		c.forge(&q)
		r.expect(t, c.what, q, c.status, 0)
	}
	// None of them has left a trace.
	r.expect(t, "the genuine one", genuine, 200, 1)
	r.expect(t, "four minutes old", r.genuine(webhook.TicketUpdated).signed(r, -4*time.Minute), 200, 1)
	r.expect(t, "four minutes ahead", r.genuine(webhook.TicketUpdated).signed(r, 4*time.Minute), 200, 1)

	resp, err := httpClient.Get(r.url)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode < 400 {
		t.Errorf("a GET gets status %d", resp.StatusCode)
	}
}

func (r *guideReceiver) acknowledgesWhatItDoesNotKnow(t *testing.T) {
	t.Helper()
	for _, typ := range []string{"ticket.merged", "project.created", webhook.Test} {
		r.expect(t, typ, r.genuine(typ), 200, 0)
	}
}

// bounds checks the largest body and the first that is too large.
func (r *guideReceiver) bounds(t *testing.T) {
	t.Helper()
	const limit = 1 << 20
	for size, status := range map[int]int{limit: 200, limit + 1: 413} {
		q := r.genuine(webhook.TicketUpdated)
		room := size - len(q.with(r, `"title":""`).body)
		q = q.with(r, `"title":"`+strings.Repeat("x", room)+`"`)
		if len(q.body) != size {
			t.Fatalf("the body has %d bytes, want %d", len(q.body), size)
		}
		r.expect(t, fmt.Sprintf("%d bytes", size), q, status, map[int]int{200: 1, 413: 0}[status])
	}
}

func (r *guideReceiver) reactsOnce(t *testing.T) {
	t.Helper()
	q := r.genuine(webhook.TicketUpdated)
	r.expect(t, "a first copy", q, 200, 1)
	r.expect(t, "a duplicate", q.signed(r, time.Second), 200, 1)
	alias := q
	alias.typ, alias.headerTyp = webhook.TicketClosed, webhook.TicketClosed
	r.expect(t, "another event type under the same id", alias.with(r, `"title":null`), 200, 1)

	const copies = 50
	q = r.genuine(webhook.TicketUpdated)
	statuses := make([]int, copies)
	var all sync.WaitGroup
	for i := range copies {
		all.Go(func() { statuses[i] = r.post(q) })
	}
	all.Wait()
	seen := map[int]int{}
	for _, s := range statuses {
		seen[s]++
	}
	if seen[200] == 0 || seen[200]+seen[503] != copies || r.reacted(t, q) != 1 {
		t.Errorf("%d copies at once: statuses %v, %d reactions; want 200 and 503, and one reaction", copies, seen, r.reacted(t, q))
	}
	r.expect(t, "one more copy", q, 200, 1)
}

// blockLog puts something else in the place of the log, so that the reaction
// fails or waits, and returns what puts the log back.
func (r *guideReceiver) blockLog(t *testing.T, with func(path string) error) (unblock func()) {
	t.Helper()
	log, aside := r.path("tickets.log"), r.path("tickets.aside")
	if err := os.Rename(log, aside); err != nil {
		t.Fatal(err)
	}
	if err := with(log); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.Remove(log); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(aside, log); err != nil {
			t.Fatal(err)
		}
	}
}

func (r *guideReceiver) triesAgainAfterAFailure(t *testing.T) {
	t.Helper()
	q := r.genuine(webhook.TicketUpdated)
	unblock := r.blockLog(t, func(path string) error { return os.Mkdir(path, 0o700) })
	for range 2 {
		if status := r.post(q); status != 500 {
			t.Errorf("a reaction that fails: status %d, want 500", status)
		}
	}
	unblock()
	r.expect(t, "after two failures", q, 200, 1)
	r.expect(t, "after a success", q, 200, 1)
}

// hang sends two copies of an event while the reaction waits: the log is a pipe
// that nobody reads. It returns when one of them was told that the other is
// being processed; the status of that one comes from the channel.
func (r *guideReceiver) hang(t *testing.T, q request) <-chan int {
	t.Helper()
	statuses := make(chan int, 2)
	for range 2 {
		go func() { statuses <- r.post(q) }()
	}
	if first := <-statuses; first != 503 {
		t.Errorf("a copy of what is being processed: status %d, want 503", first)
	}
	return statuses
}

func (r *guideReceiver) saysThatACopyIsInProgress(t *testing.T) {
	t.Helper()
	q := r.genuine(webhook.TicketAssigned)
	unblock := r.blockLog(t, func(path string) error { return syscall.Mkfifo(path, 0o600) })
	other := r.hang(t, q)
	text, err := os.ReadFile(r.path("tickets.log"))
	if err != nil || !strings.HasPrefix(string(text), q.id) || strings.Count(string(text), "\n") != 1 {
		t.Errorf("the reaction wrote %q, %v", text, err)
	}
	if status := <-other; status != 200 {
		t.Errorf("the copy that was processed: status %d, want 200", status)
	}
	unblock()
	r.expect(t, "a late copy", q, 200, 0) // its line went through the pipe
}

// survivesKills kills the receiver between two events, and in the middle of one.
func (r *guideReceiver) survivesKills(t *testing.T, table bool) {
	t.Helper()
	before := r.genuine(webhook.TicketUpdated)
	r.expect(t, "before the kill", before, 200, 1)
	unblock := r.blockLog(t, func(path string) error { return syscall.Mkfifo(path, 0o600) })
	q := r.genuine(webhook.TicketClosed)
	other := r.hang(t, q)
	r.kill(t)
	if status := <-other; status != 0 {
		t.Errorf("the receiver was killed and answered %d", status)
	}
	unblock()
	r.start(t)
	r.expect(t, "a duplicate after the kill", before, 200, 1)
	if table {
		r.expect(t, "the event that was interrupted", q, 503, 0)
		r.endLeases(t)
	}
	r.expect(t, "the event that was interrupted, when its claim has ended", q, 200, 1)
	r.restart(t)
	r.expect(t, "and after another kill", q, 200, 1)
}

// endLeases lets the time of every claim run out.
func (r *guideReceiver) endLeases(t *testing.T) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+r.path("events.db")+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	// The page's own tables have one form, package inbox has another.
	res, err := db.ExecContext(t.Context(), `update events set until = 1 where not done`)
	if err != nil {
		res, err = db.ExecContext(t.Context(), `update inbox_events set lease_until = 1 where state = 'claimed'`)
	}
	if err != nil {
		t.Fatal(err)
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		t.Errorf("%d claims were open, %v; want 1", n, err)
	}
}

// verifiers are programs that call the page's verify functions: a list of
// signatureCase comes on standard input, a list of booleans is wanted.
var verifiers = []struct {
	name    string
	command []string
}{
	{"node", []string{"node", "--input-type=module", "-e", `
		import { readFileSync } from "node:fs";
		import { verify } from "./tickets.mjs";
		const cases = JSON.parse(readFileSync(0));
		console.log(JSON.stringify(cases.map((c) => verify(c.header, Buffer.from(c.body, "base64"), c.now, c.secrets))));`}},
	{"python", []string{"python3", "-c", `
import base64, json, sys
from receiver import verify
print(json.dumps([verify(c["header"], base64.b64decode(c["body"]), c["now"], c["secrets"]) for c in json.load(sys.stdin)]))`}},
	{"php", []string{"php", "-r", `
		require "verify.php";
		$cases = json_decode(stream_get_contents(STDIN), true);
		echo json_encode(array_map(fn($c) => verify($c["header"], base64_decode($c["body"]), $c["now"], $c["secrets"]), $cases));`}},
}

type signatureCase struct {
	ID      string   `json:"id"`
	Header  string   `json:"header"`
	Body    []byte   `json:"body"`
	Now     int64    `json:"now"`
	Secrets []string `json:"secrets"`
	accept  bool
}

// signatureCases are the vectors of package webhook, and headers at the edges
// about which the package decides.
func signatureCases(t *testing.T) []signatureCase {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "webhook", "testdata", "vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Sign []struct {
			ID, Secret, Header string
			Timestamp          int64
			Body               []byte `json:"body_base64"`
		}
		Verify []struct {
			ID, Header string
			Secrets    []string
			Body       []byte `json:"body_base64"`
			Now        int64
			Accept     bool
		}
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	var cases []signatureCase
	for _, s := range v.Sign {
		cases = append(cases, signatureCase{s.ID, s.Header, s.Body, s.Timestamp, []string{s.Secret}, true})
	}
	for _, c := range v.Verify {
		cases = append(cases, signatureCase{c.ID, c.Header, c.Body, c.Now, c.Secrets, c.Accept})
	}
	if len(cases) < 40 {
		t.Fatalf("only %d vectors", len(cases))
	}
	now, body := time.Unix(1760000000, 0), []byte(`{"a":1}`)
	good := webhook.Sign("shh", now, body)
	_, sum, _ := strings.Cut(good, ",v1=")
	wrong := strings.Repeat("0", 64)
	for id, header := range map[string]string{
		"plus sign":                 "t=+1760000000,v1=" + sum,
		"space in t":                "t= 1760000000,v1=" + sum,
		"line feed after t":         "t=1760000000\n,v1=" + sum,
		"leading zeros":             "t=01760000000,v1=" + sum,
		"hexadecimal t":             "t=0x68e77800,v1=" + sum,
		"t with an exponent":        "t=176e7,v1=" + sum,
		"arabic digits":             "t=١٧٦٠٠٠٠٠٠٠,v1=" + sum,
		"65 digits":                 good + "0",
		"line feed after v1":        good + "\n",
		"one v1 is malformed":       good + ",v1=xyz",
		"an empty v1":               good + ",v1=",
		"v1 without a value":        "t=1760000000,v1=",
		"unknown keys":              good + ",v2=abc,nonce=1",
		"tabs":                      "\tt=1760000000\t,\tv1=" + sum + "\t",
		"fifty v1, the last fits":   "t=1760000000" + strings.Repeat(",v1="+wrong, 49) + ",v1=" + sum,
		"a header that is too long": good + strings.Repeat(",v1="+wrong, 60),
		"a megabyte":                strings.Repeat("t=1,", 1<<18),
	} {
		accept := webhook.Verify(header, body, now, "shh") == nil
		cases = append(cases, signatureCase{id, header, body, now.Unix(), []string{"", "shh"}, accept})
	}
	return cases
}

// The page's verify functions agree with the vectors and with package webhook.
func TestVerifyOfTheGuide(t *testing.T) {
	t.Parallel()
	cases := signatureCases(t)
	in, err := json.Marshal(cases)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range verifiers {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			need(t, v.command[0])
			dir := t.TempDir()
			save(t, page(t, "receivers.md"), dir)
			cmd := exec.CommandContext(t.Context(), v.command[0], v.command[1:]...)
			cmd.Dir, cmd.Stdin, cmd.Stderr = dir, bytes.NewReader(in), os.Stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			var got []bool
			if err := json.Unmarshal(out, &got); err != nil || len(got) != len(cases) {
				t.Fatalf("%d answers to %d cases: %q, %v", len(got), len(cases), out, err)
			}
			for i, c := range cases {
				if got[i] != c.accept {
					t.Errorf("%s: %t, want %t", c.ID, got[i], c.accept)
				}
			}
		})
	}
}
