package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/internal/cutover"
)

// readyMade is ticketwire receive as a process on a port of its own. It may be
// killed and started again; the rest stays.
type readyMade struct {
	dir, port, admin string
	args             []string
	env              []string
	process          *process
}

func (r *readyMade) url() string             { return "http://127.0.0.1:" + r.port + "/webhooks/alga" }
func (r *readyMade) path(name string) string { return filepath.Join(r.dir, name) }

// newReadyMade prepares a receiver; %s in an argument is its directory.
func newReadyMade(t *testing.T, args ...string) *readyMade {
	t.Helper()
	r := &readyMade{dir: t.TempDir(), port: freePort(t), admin: freePort(t)}
	for _, a := range args {
		r.args = append(r.args, strings.ReplaceAll(a, "%s", r.dir))
	}
	return r
}

// start starts it and waits until it receives.
func (r *readyMade) start(t *testing.T) {
	t.Helper()
	r.process = spawn(t, binary, environment(r.env...), append([]string{
		"receive", "--data", r.path("data"), "--listen", "127.0.0.1:" + r.port, "--admin-listen", "127.0.0.1:" + r.admin,
	}, r.args...)...)
	r.process.await(t, "the receiver receives", func(l string) bool { return strings.Contains(l, "receives webhooks on") })
}

// lines decodes a file with a JSON object per line. A last line that a kill cut
// off is none.
func lines[T any](t *testing.T, name string) []T {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var out []T
	for l := range strings.Lines(string(text)) {
		var v T
		if json.Unmarshal([]byte(l), &v) == nil {
			out = append(out, v)
		}
	}
	return out
}

// setUp makes a cutover directory whose turn is the receiver's.
func setUp(t *testing.T, dir string) {
	t.Helper()
	s := &cutover.Setup{Server: "http://127.0.0.1", WebhookID: "W", Turns: []cutover.Turn{{From: time.Unix(0, 0).UTC(), Side: cutover.SideReceiver}}}
	if err := s.Save(dir); err != nil {
		t.Fatal(err)
	}
}

// killed is when a receiver was killed, and from when on there was another one.
type killed struct{ at, back time.Time }

// The receiver is killed twenty times while the real server sends. What it
// acknowledged is done; what is done is not done again; and the record says all
// of it, with the times in which nobody was there.
func TestReceiverIsKilledUnderLoad(t *testing.T) {
	t.Parallel()
	const (
		kills   = 20
		people  = 8
		workers = 4
	)
	d := openDesk(t, "--retry-schedule", "200ms,200ms,300ms,500ms,500ms,1s,1s,1s,1s,1s,2s,2s,2s,2s,2s")
	r := newReadyMade(t, "--append", "%s/events.jsonl", "--cutover", "%s/cutover", "--react-timeout", "2s")
	setUp(t, r.path("cutover"))
	h := d.subscribe(t, r.url(), nil, "ticket.updated")
	r.env = []string{"TICKETWIRE_SECRET=" + h.Secret}
	r.start(t)

	over := make(chan struct{})
	var load sync.WaitGroup
	for i := range people {
		tk := d.newTicket(t, fmt.Sprint("Desk ", i))
		load.Go(func() {
			for n := 0; ; n++ {
				if status, err := d.try("PUT", "/tickets/"+tk.ID, object{"title": fmt.Sprint(n)}, nil); err != nil || status != http.StatusOK {
					t.Errorf("update: status %d, %v", status, err)
					return
				}
				select {
				case <-over:
					return
				case <-time.After(rand.N(60 * time.Millisecond)):
				}
			}
		})
	}
	var log []killed
	for range kills {
		<-time.After(100*time.Millisecond + rand.N(300*time.Millisecond))
		r.process.kill(t)
		k := killed{at: time.Now()}
		r.process.wait(t)
		<-time.After(rand.N(200 * time.Millisecond))
		r.start(t)
		k.back = time.Now()
		log = append(log, k)
	}
	close(over)
	load.Wait()

	type key struct {
		EventID   string `json:"event_id"`
		EventType string `json:"event_type"`
	}
	updates := d.feed(t, map[string][]string{"types": {"ticket.updated"}})
	runs := map[string]int{}
	eventually(t, "every event is done", func() bool {
		clear(runs)
		for _, k := range lines[key](t, r.path("events.jsonl")) {
			runs[k.EventID]++
		}
		return len(runs) >= len(updates)
	})
	repeats := 0
	for _, e := range updates {
		if runs[e.ID] == 0 {
			t.Errorf("event %s is not done", e.ID)
		}
		repeats += runs[e.ID] - 1
	}
	if repeats > kills*workers {
		t.Errorf("%d repeats, and no more than %d can have been under way", repeats, kills*workers)
	}
	if len(updates) < 200 {
		t.Errorf("only %d events: that proves little", len(updates))
	}
	if err := r.process.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := r.process.wait(t); code != 0 {
		t.Errorf("after SIGTERM it ended with %d", code)
	}
	receipts := checkRecord(t, d, h, r.path("cutover"), log)
	t.Logf("%d kills, %d events, none lost, %d repeats; %d requests recorded", kills, len(updates), repeats, receipts)
}

// checkRecord compares the record with the log of the sender and the kills.
func checkRecord(t *testing.T, d *desk, h hook, dir string, log []killed) (receipts int) {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, cutover.RecordName))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	acknowledged, ran := map[string]bool{}, map[string]int{}
	var gaps []*cutover.Gap
	starts := 0
	for e, err := range cutover.NewReader(f).Entries() {
		switch {
		case err != nil:
			t.Fatal(err)
		case e.Receipt != nil:
			receipts++
			if e.Receipt.HTTP == http.StatusOK {
				acknowledged[e.Receipt.DeliveryID] = true
			}
		case e.Reaction != nil:
			// Every run is another attempt, until the event is done: a second first
			// one would be of an event that was done and forgotten.
			ran[fmt.Sprint(e.Reaction.EventID, " ", e.Reaction.Attempt)]++
		case e.Gap != nil:
			gaps = append(gaps, e.Gap)
		case e.Receiver != nil:
			starts++
		}
	}
	for run, n := range ran {
		if n > 1 {
			t.Errorf("attempt %s ran %d times", run, n)
		}
	}
	delivered := 0
	for page := 1; ; page++ {
		rows := call[[]delivery](t, d, "GET", fmt.Sprintf("/webhooks/%s/deliveries?limit=100&page=%d", h.ID, page), nil)
		if len(rows) == 0 {
			break
		}
		for _, row := range rows {
			if row.Status != "delivered" {
				continue
			}
			if delivered++; !acknowledged[row.ID] {
				t.Errorf("delivery %s was acknowledged and is not in the record", row.ID)
			}
		}
	}
	if delivered < 100 {
		t.Errorf("only %d deliveries in the sender's log", delivered)
	}
	if starts != len(log)+1 || len(gaps) != len(log) {
		t.Fatalf("the record has %d starts and %d gaps for %d kills", starts, len(gaps), len(log))
	}
	for i, k := range log {
		g := gaps[i]
		if early := k.at.Sub(g.From); early < 0 || early > 5*time.Second || g.To.Before(k.at) || g.To.After(k.back) {
			t.Errorf("killed at %s and back by %s, and the gap is %s to %s", k.at, k.back, g.From, g.To)
		}
	}
	return receipts
}

// A receiver that is asked to stop finishes what runs, and leaves what it
// acknowledged to the next one.
func TestReceiverStops(t *testing.T) {
	t.Parallel()
	d := openDesk(t)
	r := newReadyMade(t, "--exec", "cat >>%s/begun.txt; while [ ! -e %s/go ]; do sleep 0.02; done; echo done >>%s/done.txt")
	h := d.subscribe(t, r.url(), nil, allTicketEvents...)
	r.env = []string{"TICKETWIRE_SECRET=" + h.Secret}
	r.start(t)
	tk := d.newTicket(t, "Printer")
	d.retitle(t, tk.ID, "Printer on fire") // waits for the first in its queue
	d.settled(t, h, 2)
	eventually(t, "the reaction runs", func() bool {
		text, err := os.ReadFile(r.path("begun.txt"))
		return err == nil && strings.Contains(string(text), "ticket.created")
	})
	if err := r.process.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.process.await(t, "it stops", func(l string) bool { return strings.Contains(l, "stopping") })
	if err := os.WriteFile(r.path("go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code := r.process.wait(t); code != 0 {
		t.Errorf("it ended with %d", code)
	}
	text, err := os.ReadFile(r.path("done.txt"))
	if err != nil || strings.Count(string(text), "done") != 1 {
		t.Errorf("finished before the end: %q, %v", text, err)
	}
	r.start(t)
	eventually(t, "the next one does the rest", func() bool {
		text, err := os.ReadFile(r.path("begun.txt"))
		return err == nil && strings.Contains(string(text), "Printer on fire") && strings.Count(string(text), "ticket.created") == 1
	})
}

// A webhook that was disabled at the server is found out by silence, and by asking.
func TestReceiverMissesADisabledWebhook(t *testing.T) {
	t.Parallel()
	d := openDesk(t)
	r := newReadyMade(t, "--append", "%s/events.jsonl", "--silence", "2s", "--alarm-exec", "cat >>%s/alarms.jsonl")
	h := d.subscribe(t, r.url(), nil, allTicketEvents...)
	r.env = []string{"TICKETWIRE_SECRET=" + h.Secret, "TICKETWIRE_WEBHOOK=" + h.ID, "TICKETWIRE_URL=" + d.url, "TICKETWIRE_API_KEY=" + d.tenant.APIKey}
	r.start(t)
	d.newTicket(t, "Printer")
	d.settled(t, h, 1)
	call[any](t, d, "PUT", "/webhooks/"+h.ID, object{"is_active": false})
	d.newTicket(t, "Nobody hears of this one")
	type alarm struct {
		Kind, Text string
		Over       bool
	}
	said := map[string]string{}
	eventually(t, "both alarms", func() bool {
		for _, a := range lines[alarm](t, r.path("alarms.jsonl")) {
			said[fmt.Sprint(a.Kind, " ", a.Over)] = a.Text
		}
		return strings.Contains(said["silence false"], "disabled") && said["webhook false"] != ""
	})
	if text := said["silence false"]; !strings.Contains(text, "the limit is 2s; the server says that the webhook is disabled") {
		t.Errorf("the alarm says %q", text)
	}
	call[any](t, d, "PUT", "/webhooks/"+h.ID, object{"is_active": true, "replay_missed": true})
	eventually(t, "what was missed has come and the silence is over", func() bool {
		for _, a := range lines[alarm](t, r.path("alarms.jsonl")) {
			if a.Kind == "silence" && a.Over {
				return len(lines[event](t, r.path("events.jsonl"))) == 2
			}
		}
		return false
	})
}

// The section of the guide about the ready-made receiver, as its reader follows
// it.
func TestReadyMadeReceiverOfTheGuide(t *testing.T) {
	t.Parallel()
	need(t, "bash", "jq")
	d := openDesk(t)
	dir, port, admin := t.TempDir(), freePort(t), freePort(t)
	blocks := page(t, "receivers.md")
	save(t, blocks, dir)
	ports := strings.NewReplacer("9000", port)
	run := func(name string) *process {
		for _, b := range blocks {
			if b.kind == "run" && b.name == name {
				return spawn(t, "bash", environment("PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"),
					"TICKETWIRE_LISTEN=127.0.0.1:"+port, "TICKETWIRE_ADMIN_LISTEN=127.0.0.1:"+admin, "TICKETWIRE_RETRIES=0"),
					"-ec", `cd "$0" && eval "$1"`, dir, ports.Replace(b.text))
			}
		}
		t.Fatalf("the page has no block %s", name)
		return nil
	}
	h := d.subscribe(t, "http://127.0.0.1:"+port+"/webhooks/alga", nil, allTicketEvents...)
	if err := os.WriteFile(filepath.Join(dir, "secret.txt"), []byte(h.Secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := run("ready")
	p.await(t, "the receiver receives", func(l string) bool { return strings.Contains(l, "receives webhooks on") })
	reactions := filepath.Join(dir, "reactions.log")
	if err := os.Mkdir(reactions, 0o700); err != nil { // so that the reaction fails
		t.Fatal(err)
	}
	d.newTicket(t, "Printer")
	d.settled(t, h, 1)
	p.await(t, "a dead letter", func(l string) bool { return strings.Contains(l, "dead=true") })
	if err := os.Remove(reactions); err != nil {
		t.Fatal(err)
	}
	dead := run("ready-dead")
	dead.await(t, "the dead letter is listed", func(l string) bool { return strings.Contains(l, "ticket.created") })
	if code := dead.wait(t); code != 0 {
		t.Errorf("the commands about dead letters ended with %d", code)
	}
	eventually(t, "the reaction has run", func() bool {
		text, err := os.ReadFile(reactions)
		return err == nil && string(text) == "ticket.created: Printer\n"
	})
}
