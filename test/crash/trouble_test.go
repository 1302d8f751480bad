package crash

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// Case 9: the disk is full. Nothing is half-written, what cannot be stored is
// refused, and everything goes on by itself when there is room again.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	dir, err := smallDisk(t, 96)
	if err != nil {
		t.Skipf("a disk of its own needs the right to mount one: %v", err)
	}
	data := filepath.Join(dir, "data")
	d := newDeskIn(t, data)
	d.start(t, "")
	r := receive(t, briefly)
	h := d.subscribe(t, r.url, nil, "ticket.updated")
	l := startLoad(t, d, 300)
	l.reach(t, 100)
	filler := filepath.Join(dir, "filler")
	fill(t, filler)
	eventually(t, "the API refuses changes", func() bool { refused, _ := l.refusals(); return refused[http.StatusServiceUnavailable] >= 50 })
	if d.ready(t) {
		t.Error("the server says that it is ready while it cannot write")
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	acked := l.count()
	l.reach(t, acked+100)
	l.end()
	eventually(t, "the server is ready again", func() bool { return d.ready(t) })
	d.drain(t, patience)
	refused, silent := l.refusals()
	for status := range refused {
		if status != http.StatusServiceUnavailable && status != http.StatusInsufficientStorage {
			t.Errorf("a full disk was answered with %d", status)
		}
	}
	if silent > 0 {
		t.Errorf("%d requests were not answered", silent)
	}
	v := judge(t, evidence{desk: d, acked: l.acknowledged(), arrivals: r.arrived(), hooks: []hook{h}, types: []string{"ticket.updated"}})
	t.Logf("refused: %v; %s", refused, v)
	// A refused change has left nothing: the feed has what was acknowledged.
	if v.events != v.acked {
		t.Errorf("%d events of %d acknowledged changes", v.events, v.acked)
	}
	checkLog(t, d, h, r.arrived(), 1)
	d.terminate(t)
	intact(t, filepath.Join(data, "ticketwire.db"))
}

// smallDisk mounts a disk of so many megabytes until the test ends.
func smallDisk(t *testing.T, megabytes int) (dir string, err error) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+strconv.Itoa(megabytes)+"m"); err != nil {
		return "", err
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir, nil
}

// fill writes until the disk is full.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := make([]byte, 64<<10); err == nil; {
		_, err = f.Write(chunk)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// intact checks a database that no server has open.
func intact(t *testing.T, file string) {
	t.Helper()
	db := openDatabase(t, file)
	defer db.Close()
	var say string
	if err := db.QueryRowContext(t.Context(), "pragma integrity_check").Scan(&say); err != nil || say != "ok" {
		t.Errorf("%s: %s, %v", filepath.Base(file), say, err)
	}
}

// Case 13: a backup of a running server, restored on another directory. What was
// acknowledged before it began is in it, under the same ids, and what had been
// delivered goes out once more at most.
func TestBackupUnderLoad(t *testing.T) {
	t.Parallel()
	d := openDesk(t)
	r := receive(t, briefly)
	h := d.subscribe(t, r.url, nil, "ticket.updated")
	l := startLoad(t, d, 300)
	l.reach(t, form(300, 3000))
	acked := l.acknowledged()
	copied := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(copied, 0o700); err != nil {
		t.Fatal(err)
	}
	db := d.open(t)
	if _, err := db.ExecContext(t.Context(), "vacuum into ?", filepath.Join(copied, "ticketwire.db")); err != nil {
		t.Fatal(err)
	}
	during := l.count() - len(acked)
	key, err := os.ReadFile(filepath.Join(d.dir, "secret.key"))
	if err == nil {
		err = os.WriteFile(filepath.Join(copied, "secret.key"), key, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	l.reach(t, l.count()+100)
	d.kill(t)
	l.end()
	old := r.arrived()

	restored := d.restored(copied)
	intact(t, filepath.Join(copied, "ticketwire.db"))
	restored.start(t, "")
	restored.drain(t, patience)
	feed := restored.feed(t, "ticket.updated")
	changes := map[change]bool{}
	for _, ev := range feed {
		changes[change{ticket: ev.Data.TicketID, updatedAt: ev.Data.UpdatedAt}] = true
	}
	for _, c := range acked {
		if !changes[change{ticket: c.ticket, updatedAt: c.updatedAt}] {
			t.Errorf("the change of ticket %s at %s is not in the backup", c.ticket, c.updatedAt)
		}
	}
	// The ids and bytes are those of the first server, and each came again once
	// at most.
	before, bodies, again := map[string]bool{}, map[string]string{}, map[string]int{}
	for _, a := range old {
		before[a.event.ID], bodies[a.event.ID] = true, string(a.body)
	}
	for _, a := range r.arrived()[len(old):] {
		again[a.event.ID]++
		if body, known := bodies[a.event.ID]; known && body != string(a.body) {
			t.Errorf("event %s came with another body after the restore", a.event.ID)
		}
	}
	for _, ev := range feed {
		if n := again[ev.ID]; n > 1 || n == 0 && !before[ev.ID] {
			t.Errorf("event %s came %d times after the restore, and before it: %t", ev.ID, n, before[ev.ID])
		}
	}
	t.Logf("%d changes before the backup, %d while it was made; %d of %d events came again after the restore",
		len(acked), during, len(again), len(feed))
	checkLog(t, restored, h, r.arrived()[len(old):], 1)
}

// Case 15: the store fails for a while, as a whole and only for the results. No
// attempt is used up, nothing acknowledged is lost, and /readyz says so.
func TestStoreErrors(t *testing.T) {
	t.Parallel()
	for name, point := range map[string]string{"every commit": "store.commit", "only results": "store.record"} {
		for _, lasts := range form([]time.Duration{4 * time.Second}, []time.Duration{10 * time.Second, 5 * time.Minute}) {
			t.Run(name+" for "+lasts.String(), func(t *testing.T) {
				t.Parallel()
				d := newDesk(t)
				d.start(t, point+"=error@150:"+lasts.String())
				r := receive(t, briefly)
				h := d.subscribe(t, r.url, nil, "ticket.updated")
				l := startLoad(t, d, 200)
				eventually(t, "the server says that it is not ready", func() bool { return !d.ready(t) })
				began := time.Now()
				within(t, lasts+patience, "the server is ready again", func() bool { return d.ready(t) })
				if away := time.Since(began); away < lasts/2 {
					t.Errorf("the server was not ready for %s only", away)
				}
				l.reach(t, l.count()+100)
				l.end()
				d.drain(t, patience+lasts) // what came in meanwhile goes out now
				refused, silent := l.refusals()
				v := judge(t, evidence{desk: d, acked: l.acknowledged(), arrivals: r.arrived(), hooks: []hook{h}, types: []string{"ticket.updated"}})
				t.Logf("refused: %v; %s", refused, v)
				if silent > 0 || len(refused) > 1 || refused[http.StatusServiceUnavailable] == 0 != (point == "store.record") {
					t.Errorf("the outage was answered with %v, and %d times not at all", refused, silent)
				}
				checkLog(t, d, h, r.arrived(), 1)
			})
		}
	}
}

// Case 16: a panic in an attempt ends neither the process nor the delivery.
func TestPanicInAnAttempt(t *testing.T) {
	t.Parallel()
	const panics = 5
	d := newDesk(t)
	d.start(t, "dispatch.attempt=panic@20x"+strconv.Itoa(panics))
	r := receive(t, briefly)
	h := d.subscribe(t, r.url, nil, "ticket.updated")
	l := startLoad(t, d, 200)
	l.reach(t, 100)
	l.end()
	d.drain(t, patience)
	v := judge(t, evidence{desk: d, acked: l.acknowledged(), arrivals: r.arrived(), hooks: []hook{h}, types: []string{"ticket.updated"}})
	t.Log(v)
	if n, _ := d.metric(t, "ticketwire_delivery_panics_total"); n != panics {
		t.Errorf("%v panics were counted, want %d", n, panics)
	}
	checkLog(t, d, h, r.arrived(), 1)
}

// A defect that hits a delivery at every attempt costs the others nothing and is
// not tried without a pause.
func TestPanicInEveryAttempt(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.start(t, "dispatch.attempt=panic@1:1h")
	r := receive(t, nil)
	d.subscribe(t, r.url, nil, "ticket.created")
	d.newTicket(t, "Poison")
	eventually(t, "an attempt panics", func() bool { n, _ := d.metric(t, "ticketwire_delivery_panics_total"); return n > 0 })
	pause(2 * time.Second)
	if n, _ := d.metric(t, "ticketwire_delivery_panics_total"); n > 20 {
		t.Errorf("%v attempts panicked in two seconds", n)
	}
	d.newTicket(t, "The API works")
}

// Case 130: the server ends between the end of a webhook and the mail about it.
func TestKillBeforeTheMail(t *testing.T) {
	t.Parallel()
	post := &postOffice{}
	d := newDesk(t, "--smtp-url", "smtp://"+post.open(t)+"?tls=none", "--disable-after", "1s")
	d.start(t, "dispatch.mail=kill")
	r := receive(t, func(*arrival) reply { return reply{status: 500} })
	h := d.subscribe(t, r.url, nil, "ticket.created")
	d.newTicket(t, "Fails")
	d.killedItself(t)
	if n := len(post.all()); n != 0 {
		t.Fatalf("%d mails before the kill", n)
	}
	d.start(t, "")
	eventually(t, "the mail goes out", func() bool { return len(post.all()) > 0 })
	type state struct {
		IsActive bool `json:"is_active"`
	}
	if call[state](t, d, "GET", "/webhooks/"+h.ID, nil).IsActive {
		t.Error("the mail went out, and the webhook is active")
	}
	d.terminate(t)
	if all := post.all(); len(all) != 1 || !strings.Contains(all[0], h.ID) {
		t.Errorf("%d mails, want one about webhook %s:\n%s", len(all), h.ID, strings.Join(all, "\n----\n"))
	}
}

// postOffice is an SMTP server that keeps what it gets.
type postOffice struct {
	mu    sync.Mutex
	mails []string // guarded by mu
}

func (p *postOffice) open(t *testing.T) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := smtp.NewServer(p)
	s.Domain = "localhost"
	go func() { _ = s.Serve(l) }() // it ends with Close
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

func (p *postOffice) all() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.mails...)
}

// NewSession begins a connection.
func (p *postOffice) NewSession(*smtp.Conn) (smtp.Session, error) { return letter{p}, nil }

// letter is one session; it takes everything.
type letter struct{ office *postOffice }

func (letter) Mail(string, *smtp.MailOptions) error { return nil }
func (letter) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (letter) Reset()                               {}
func (letter) Logout() error                        { return nil }

func (l letter) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	l.office.mu.Lock()
	defer l.office.mu.Unlock()
	l.office.mails = append(l.office.mails, string(text))
	return nil
}
