package crash

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// desk is one data directory with a tenant in it, and the server that runs on
// it. The server may be ended and started again; the rest stays. A test ends and
// starts it from one goroutine, while others make requests.
type desk struct {
	dir    string
	store  []string // flags that say where the data is; nil: in dir
	args   []string // of every server, beyond those of serve
	wrap   []string // a program that runs the server, such as a tracer
	clock  string   // the file that sets the clock of every server; "": the machine's clock
	binary string   // the program; "": as it is shipped, or with failpoints when they are needed
	tenant tenant

	url     *atomic.Pointer[string] // of the running or the last server
	server  *server
	outages []outage
}

// server is a running program. What it printed last is kept for a failed test.
type server struct {
	cmd   *exec.Cmd
	ready time.Time
	gone  chan struct{} // closed when it has ended

	mu   sync.Mutex
	last []string // guarded by mu
}

// outage is the time between the end of a server and the readiness of the next.
type outage struct{ down, ready time.Time }

// tenant is what ticketwire bootstrap --json prints.
type tenant struct {
	ID         string            `json:"tenant_id"`
	APIKey     string            `json:"api_key"`
	BoardID    string            `json:"board_id"`
	ClientID   string            `json:"client_id"`
	Statuses   map[string]string `json:"statuses"`
	Priorities map[string]string `json:"priorities"`
}

// newDesk makes a data directory with a tenant. No server runs yet.
func newDesk(t *testing.T, args ...string) *desk {
	t.Helper()
	return newDeskIn(t, t.TempDir(), args...)
}

func newDeskIn(t *testing.T, dir string, args ...string) *desk {
	t.Helper()
	d := &desk{dir: dir, args: args, url: new(atomic.Pointer[string])}
	d.tenant = d.bootstrap(t, "First")
	return d
}

// another is a further tenant on the same server. It follows the restarts of d,
// which alone ends and starts it.
func (d *desk) another(t *testing.T, name string) *desk {
	t.Helper()
	return &desk{dir: d.dir, store: d.store, url: d.url, tenant: d.bootstrap(t, name)}
}

// restored is a copy of the data directory elsewhere. No server runs yet.
func (d *desk) restored(dir string) *desk {
	return &desk{dir: dir, url: new(atomic.Pointer[string]), tenant: d.tenant}
}

// openDesk is newDesk with a server of the normal build.
func openDesk(t *testing.T, args ...string) *desk {
	t.Helper()
	d := newDesk(t, args...)
	d.start(t, "")
	return d
}

func (d *desk) bootstrap(t *testing.T, name string) tenant {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), normal, append([]string{"bootstrap", "--json", "--tenant", name}, d.place()...)...)
	cmd.Env = environment("")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("bootstrap: %v", err)
	}
	var made tenant
	if err := json.Unmarshal(out, &made); err != nil {
		t.Fatalf("bootstrap printed %q: %v", out, err)
	}
	return made
}

// place is the flags that say where the data is.
func (d *desk) place() []string {
	if d.store != nil {
		return d.store
	}
	return []string{"--data", d.dir}
}

// environment is the one of the test without settings of the program.
func environment(faults string) []string {
	var out []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "TICKETWIRE_") {
			out = append(out, e)
		}
	}
	return append(out, "TICKETWIRE_FAILPOINTS="+faults)
}

// start starts the server and waits until it is ready. With faults, or a clock
// of its own, it is the build that has failpoints.
func (d *desk) start(t *testing.T, faults string) {
	t.Helper()
	if err := d.tryStart(t, faults); err != nil {
		t.Fatal(err)
	}
}

// tryStart is start for a server that may refuse to. The error has what it said.
func (d *desk) tryStart(t *testing.T, faults string) error {
	t.Helper()
	binary := normal
	switch {
	case d.binary != "":
		binary = d.binary
	case faults != "" || d.clock != "":
		binary = faulty
	}
	line := append(append([]string{}, d.wrap...), binary, "serve", "--listen", "127.0.0.1:0",
		"--allow-targets", "127.0.0.0/8", "--api-rate", "1000000/1000000", "--retry-jitter", "0", "--log-level", "error")
	line = append(append(line, d.place()...), d.args...)
	s := &server{cmd: exec.Command(line[0], line[1:]...), gone: make(chan struct{})}
	s.cmd.Env = append(environment(faults), "TICKETWIRE_FAILPOINT_CLOCK="+d.clock)
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stderr = s.cmd.Stdout // one pipe for both, in the order they came
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan string, 1)
	go s.read(out, ready)
	t.Cleanup(func() { s.end(t) })
	select {
	case address := <-ready:
		s.ready = time.Now()
		d.url.Store(&address)
	case <-s.gone:
		return fmt.Errorf("the server did not start (%s):\n%s", s.cmd.ProcessState, s.printed())
	case <-time.After(patience):
		return fmt.Errorf("the server is not ready after %s:\n%s", patience, s.printed())
	}
	if d.server != nil {
		d.outages[len(d.outages)-1].ready = s.ready
	}
	d.server = s
	return nil
}

// read keeps the last lines until the process has ended.
func (s *server) read(out io.Reader, ready chan<- string) {
	defer close(s.gone)
	scan := bufio.NewScanner(out)
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		line := scan.Text()
		if _, address, found := strings.Cut(line, " is ready on "); found && len(ready) == 0 {
			ready <- address
		}
		s.mu.Lock()
		s.last = append(s.last[max(0, len(s.last)-10):], line)
		s.mu.Unlock()
	}
	_ = s.cmd.Wait() // the code is in ProcessState
}

func (s *server) printed() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.last, "\n")
}

// end is the cleanup of every server.
func (s *server) end(t *testing.T) {
	if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	<-s.gone
	if t.Failed() {
		t.Logf("a server printed last:\n%s", s.printed())
	}
}

// kill ends the server the hard way and waits until it is gone.
func (d *desk) kill(t *testing.T) {
	t.Helper()
	d.signal(t, syscall.SIGKILL)
	d.ended(t)
}

func (d *desk) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := d.server.cmd.Process.Signal(s); err != nil {
		t.Fatalf("%s: %v", s, err)
	}
}

// ended waits until the server has ended, and returns its exit code: -1 when a
// signal ended it.
func (d *desk) ended(t *testing.T) int {
	t.Helper()
	select {
	case <-d.server.gone:
	case <-time.After(patience):
		t.Fatalf("the server did not end:\n%s", d.server.printed())
	}
	d.outages = append(d.outages, outage{down: time.Now()})
	return d.server.cmd.ProcessState.ExitCode()
}

// killedItself waits until a failpoint has ended the server.
func (d *desk) killedItself(t *testing.T) {
	t.Helper()
	d.ended(t)
	state, is := d.server.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !is || !state.Signaled() || state.Signal() != syscall.SIGKILL {
		t.Fatalf("the server ended with %s, want the signal of its failpoint:\n%s", d.server.cmd.ProcessState, d.server.printed())
	}
}

// terminate asks the server to stop, as a service manager does, and returns its
// exit code.
func (d *desk) terminate(t *testing.T) int {
	t.Helper()
	d.signal(t, syscall.SIGTERM)
	return d.ended(t)
}

// httpClient keeps its connections: a load that dials for each change would run
// out of ports before it finds anything.
var httpClient = &http.Client{
	Timeout:   30 * time.Second,
	Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 10 * time.Second},
}

// try makes one request of the API. out gets the answer; err is set when there
// was no whole answer, as while the server is down.
func (d *desk) try(ctx context.Context, method, path string, body, out any) (status int, err error) {
	var in io.Reader = http.NoBody
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return 0, err
		}
		in = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, *d.url.Load()+path, in)
	if err != nil {
		return 0, err
	}
	req.Header.Set("X-API-Key", d.tenant.APIKey)
	req.Header.Set("Content-Type", "application/json")
	resp, err := httpClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	if out != nil && resp.StatusCode < 300 {
		err = json.Unmarshal(text, out)
	}
	return resp.StatusCode, err
}

// call is try for a request that has to succeed. It returns the answer's data.
func call[T any](t *testing.T, d *desk, method, path string, body any) T {
	t.Helper()
	var out struct{ Data T }
	status, err := d.try(t.Context(), method, "/api/v1"+path, body, &out)
	if err != nil || status >= 300 {
		t.Fatalf("%s %s: status %d, %v", method, path, status, err)
	}
	return out.Data
}

// object is any JSON object.
type object = map[string]any

type ticket struct {
	ID        string `json:"ticket_id"`
	Title     string `json:"title"`
	UpdatedAt string `json:"updated_at"`
}

func (d *desk) newTicket(t *testing.T, title string) ticket {
	t.Helper()
	return call[ticket](t, d, "POST", "/tickets", object{
		"title": title, "board_id": d.tenant.BoardID, "client_id": d.tenant.ClientID,
		"status_id": d.tenant.Statuses["Open"], "priority_id": d.tenant.Priorities["Medium"],
	})
}

// burst makes n tickets as fast as it goes.
func (d *desk) burst(t *testing.T, n int) {
	t.Helper()
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for i := worker; i < n && !t.Failed(); i += 8 {
				status, err := d.try(t.Context(), "POST", "/api/v1/tickets", object{
					"title": "Burst " + strconv.Itoa(i), "board_id": d.tenant.BoardID, "client_id": d.tenant.ClientID,
					"status_id": d.tenant.Statuses["Open"], "priority_id": d.tenant.Priorities["Medium"],
				}, nil)
				if err != nil || status >= 300 {
					t.Errorf("make a ticket: status %d, %v", status, err)
				}
			}
		})
	}
	all.Wait()
}

type hook struct {
	ID     string `json:"webhook_id"`
	Secret string `json:"signing_secret"`
}

// subscribe makes a webhook without a rate limit; extra fields replace its own.
func (d *desk) subscribe(t *testing.T, target string, extra object, types ...string) hook {
	t.Helper()
	body := object{"name": "crash", "url": target, "event_types": types, "rate_limit": object{"enabled": false}}
	maps.Copy(body, extra)
	return call[hook](t, d, "POST", "/webhooks", body)
}

// delivery is one row of the delivery log.
type delivery struct {
	ID          string  `json:"delivery_id"`
	EventID     string  `json:"event_id"`
	Status      string  `json:"status"`
	Attempt     int     `json:"attempt_number"`
	IsManual    bool    `json:"is_manual"`
	IsTest      bool    `json:"is_test"`
	NextRetryAt *string `json:"next_retry_at"`
	AttemptedAt *string `json:"attempted_at"`
}

// log reads a webhook's delivery log to its end, while nothing is written to it.
func (d *desk) log(t *testing.T, h hook) []delivery {
	t.Helper()
	var all []delivery
	for page := 1; ; page++ {
		var out struct {
			Data       []delivery
			Pagination struct{ HasNext bool }
		}
		path := fmt.Sprintf("/api/v1/webhooks/%s/deliveries?limit=100&page=%d", h.ID, page)
		if status, err := d.try(t.Context(), "GET", path, nil, &out); err != nil || status != http.StatusOK {
			t.Fatalf("read the delivery log: status %d, %v", status, err)
		}
		all = append(all, out.Data...)
		if !out.Pagination.HasNext {
			return all
		}
	}
}

// event is an envelope, of the feed or as it arrived.
type event struct {
	ID         string `json:"event_id"`
	Type       string `json:"event_type"`
	Tenant     string `json:"tenant_id"`
	OccurredAt string `json:"occurred_at"`
	Data       struct {
		TicketID  string `json:"ticket_id"`
		Title     string `json:"title"`
		UpdatedAt string `json:"updated_at"`
	} `json:"data"`
}

// feed reads the event feed to its end: what happened, whatever was delivered.
func (d *desk) feed(t *testing.T, types ...string) []event {
	t.Helper()
	q := url.Values{"limit": {"1000"}}
	if len(types) > 0 {
		q.Set("types", strings.Join(types, ","))
	}
	var all []event
	for {
		var page struct {
			Data []event `json:"data"`
			Next string  `json:"next_cursor"`
			More bool    `json:"has_more"`
		}
		if status, err := d.try(t.Context(), "GET", "/api/v1/events?"+q.Encode(), nil, &page); err != nil || status != http.StatusOK {
			t.Fatalf("read the event feed: status %d, %v", status, err)
		}
		all = append(all, page.Data...)
		if !page.More {
			return all
		}
		q.Set("after", page.Next)
	}
}

// metric reads one value of /metrics that has no labels; ok is false when the
// server cannot tell.
func (d *desk) metric(t *testing.T, name string) (value float64, ok bool) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, *d.url.Load()+"/metrics", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := httpClient.Do(req)
	if err != nil {
		return 0, false
	}
	defer resp.Body.Close()
	scan := bufio.NewScanner(resp.Body)
	for scan.Scan() {
		if text, found := strings.CutPrefix(scan.Text(), name+" "); found {
			value, err := strconv.ParseFloat(text, 64)
			return value, err == nil
		}
	}
	return 0, false
}

// ready asks /readyz.
func (d *desk) ready(t *testing.T) bool {
	t.Helper()
	status, err := d.try(t.Context(), "GET", "/readyz", nil, nil)
	return err == nil && status == http.StatusOK
}

// drain waits until nothing is owed any more.
func (d *desk) drain(t *testing.T, limit time.Duration) {
	t.Helper()
	within(t, limit, "everything that is owed goes out", func() bool {
		owed, ok := d.metric(t, "ticketwire_deliveries_pending")
		return ok && owed == 0
	})
}
