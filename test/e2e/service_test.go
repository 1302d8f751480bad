package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// desk is one data directory with a tenant in it, and the server that runs on
// it. The server may be killed and started again; the rest stays.
type desk struct {
	dir    string
	extra  []string // arguments of the server
	server *process
	url    string // of the running server
	tenant tenant
}

// tenant is what ticketwire bootstrap --json prints.
type tenant struct {
	APIKey     string            `json:"api_key"`
	UserID     string            `json:"user_id"`
	BoardID    string            `json:"board_id"`
	ClientID   string            `json:"client_id"`
	Statuses   map[string]string `json:"statuses"`
	Priorities map[string]string `json:"priorities"`
}

// openDesk starts a server on an empty data directory and makes its tenant while
// the server runs; extra are arguments of the server.
func openDesk(t *testing.T, extra ...string) *desk {
	t.Helper()
	d := &desk{dir: t.TempDir(), extra: extra}
	d.start(t)
	cmd := exec.CommandContext(t.Context(), binary, "bootstrap", "--json", "--data", d.dir)
	cmd.Env = environment()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("bootstrap: %v", err)
	}
	if err := json.Unmarshal(out, &d.tenant); err != nil {
		t.Fatalf("bootstrap printed %q: %v", out, err)
	}
	return d
}

// serve is the command line of a server that any receiver of a test can be
// called by.
func (d *desk) serve() []string {
	return append([]string{
		"serve", "--data", d.dir, "--listen", "127.0.0.1:0", "--allow-targets", "127.0.0.0/8",
		"--api-rate", "100000/100000",
	}, d.extra...)
}

// start starts the server and waits until it is ready.
func (d *desk) start(t *testing.T) {
	t.Helper()
	d.server = spawn(t, binary, environment(), d.serve()...)
	line := d.server.await(t, "the server is ready", func(l string) bool { return strings.Contains(l, " is ready on http://") })
	d.url = line[strings.Index(line, "http://"):]
}

// kill ends the server the hard way and waits until it is gone.
func (d *desk) kill(t *testing.T) {
	t.Helper()
	d.server.kill(t)
	d.server.wait(t)
}

// environment is the one of the test without settings of the program.
func environment(extra ...string) []string {
	var out []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "TICKETWIRE_") {
			out = append(out, e)
		}
	}
	return append(out, extra...)
}

var httpClient = &http.Client{Timeout: 20 * time.Second}

// try makes one request. out gets the answer's data; err is set when there was
// no answer, as while the server is down.
func (d *desk) try(method, path string, body, out any) (status int, err error) {
	var in io.Reader = http.NoBody
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return 0, err
		}
		in = bytes.NewReader(text)
	}
	req, err := http.NewRequest(method, d.url+"/api/v1"+path, in)
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
	status, err := d.try(method, path, body, &out)
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

// newTicket makes a ticket; extra fields are added to the required ones.
func (d *desk) newTicket(t *testing.T, title string) ticket {
	t.Helper()
	return call[ticket](t, d, "POST", "/tickets", object{
		"title": title, "board_id": d.tenant.BoardID, "client_id": d.tenant.ClientID,
		"status_id": d.tenant.Statuses["Open"], "priority_id": d.tenant.Priorities["Medium"],
	})
}

func (d *desk) retitle(t *testing.T, id, title string) {
	t.Helper()
	call[ticket](t, d, "PUT", "/tickets/"+id, object{"title": title})
}

type hook struct {
	ID     string `json:"webhook_id"`
	Secret string `json:"signing_secret"`
}

// subscribe makes a webhook without a rate limit; extra fields replace its own.
func (d *desk) subscribe(t *testing.T, target string, extra object, types ...string) hook {
	t.Helper()
	body := object{"name": "e2e", "url": target, "event_types": types, "rate_limit": object{"enabled": false}}
	maps.Copy(body, extra)
	return call[hook](t, d, "POST", "/webhooks", body)
}

// delivery is one row of the delivery log.
type delivery struct {
	ID      string `json:"delivery_id"`
	EventID string `json:"event_id"`
	Status  string `json:"status"`
	Attempt int    `json:"attempt_number"`
}

// log returns the newest hundred rows of a webhook's delivery log.
func (d *desk) log(t *testing.T, h hook) []delivery {
	t.Helper()
	return call[[]delivery](t, d, "GET", "/webhooks/"+h.ID+"/deliveries?limit=100", nil)
}

// settled waits until the log has n rows and every one is delivered, and returns
// them. A receiver's answer is recorded a moment after it was given.
func (d *desk) settled(t *testing.T, h hook, n int) []delivery {
	t.Helper()
	var rows []delivery
	eventually(t, "the delivery log is settled", func() bool {
		rows = d.log(t, h)
		for _, r := range rows {
			if r.Status != "delivered" {
				return false
			}
		}
		return len(rows) == n
	})
	return rows
}

// event is an envelope of the event feed.
type event struct {
	ID   string `json:"event_id"`
	Type string `json:"event_type"`
	Data struct {
		TicketID  string `json:"ticket_id"`
		Title     string `json:"title"`
		UpdatedAt string `json:"updated_at"`
	} `json:"data"`
}

// feed reads the event feed to its end: what happened, whatever was delivered.
func (d *desk) feed(t *testing.T, query url.Values) []event {
	t.Helper()
	q := url.Values{"limit": {"1000"}}
	maps.Copy(q, query)
	var all []event
	for {
		var page struct {
			Data []event `json:"data"`
			Next string  `json:"next_cursor"`
			More bool    `json:"has_more"`
		}
		if status, err := d.try("GET", "/events?"+q.Encode(), nil, &page); err != nil || status != http.StatusOK {
			t.Fatalf("read the event feed: status %d, %v", status, err)
		}
		all = append(all, page.Data...)
		if !page.More {
			return all
		}
		q.Set("after", page.Next)
	}
}

// eventually asks until ok is true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited %s in vain: %s", patience, what)
		}
	}
}

// terminate asks a process to stop, as a service manager does.
func (d *desk) terminate(t *testing.T) {
	t.Helper()
	if err := d.server.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}
