package crash

import (
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

// arrival is one request of the service to a receiver. It is not changed once it
// was noted, but for status.
type arrival struct {
	at        time.Time
	hook      string // the webhook it was for
	delivery  string
	attempt   int
	signature string
	body      []byte
	event     event
	status    int // answered; 0 when nothing was or could be
}

// reply is what a receiver answers. The zero reply is a 200 at once.
type reply struct {
	status int
	wait   time.Duration
	hold   <-chan struct{} // answered when it is closed
	reset  bool            // the connection is reset instead
	header http.Header
	body   func(w http.ResponseWriter) // writes the body
}

// receiver is an endpoint inside the test: it outlives the servers that call it.
// Every request is noted, with its body as it came, before it is answered.
type receiver struct {
	url  string
	quit chan struct{}

	mu      sync.Mutex
	answer  func(*arrival) reply // guarded by mu; nil: 200
	got     []*arrival           // guarded by mu
	changed chan struct{}        // guarded by mu; closed and replaced with every arrival
}

// receive starts a receiver; nil answers 200 at once.
func receive(t *testing.T, answer func(*arrival) reply) *receiver {
	t.Helper()
	r := &receiver{answer: answer, quit: make(chan struct{}), changed: make(chan struct{})}
	s := httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(r.quit) }) // first: Close waits for open requests
	r.url = s.URL + "/webhooks/alga"
	return r
}

func (r *receiver) serve(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // the sender was killed while it sent: nothing has arrived
	}
	a := &arrival{
		at: time.Now(), hook: req.Header.Get(webhook.WebhookIDHeader), delivery: req.Header.Get(webhook.DeliveryIDHeader),
		signature: req.Header.Get(webhook.SignatureHeader), body: body,
	}
	a.attempt, _ = strconv.Atoi(req.Header.Get(webhook.AttemptHeader)) // 0 is never right
	_ = json.Unmarshal(body, &a.event)                                 // neither is an event without an id
	r.mu.Lock()
	answer := r.answer
	r.got = append(r.got, a)
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
	var p reply
	if answer != nil {
		p = answer(a)
	}
	r.reply(w, a, p)
}

func (r *receiver) reply(w http.ResponseWriter, a *arrival, p reply) {
	if p.wait > 0 {
		select {
		case <-time.After(p.wait):
		case <-r.quit:
		}
	}
	if p.hold != nil {
		select {
		case <-p.hold:
		case <-r.quit:
		}
	}
	if p.reset {
		reset(w)
	}
	if p.status == 0 {
		p.status = http.StatusOK
	}
	r.mu.Lock()
	a.status = p.status
	r.mu.Unlock()
	maps.Copy(w.Header(), p.header)
	w.WriteHeader(p.status)
	if p.body != nil {
		p.body(w)
	}
}

// reset ends the connection of a request with a RST: nothing lingers.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		_ = conn.(*net.TCPConn).SetLinger(0) // it is gone already, then
		conn.Close()
	}
	panic(http.ErrAbortHandler)
}

// behave exchanges the answers from now on.
func (r *receiver) behave(answer func(*arrival) reply) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

func (r *receiver) arrived() []*arrival {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// await waits until what arrived satisfies enough, and returns it.
func (r *receiver) await(t *testing.T, what string, enough func([]*arrival) bool) []*arrival {
	t.Helper()
	limit := time.After(patience)
	for {
		r.mu.Lock()
		got, changed := slices.Clone(r.got), r.changed
		r.mu.Unlock()
		if enough(got) {
			return got
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("waited %s in vain: %s; %d requests arrived", patience, what, len(got))
		}
	}
}

// count accepts n requests or more.
func count(n int) func([]*arrival) bool {
	return func(a []*arrival) bool { return len(a) >= n }
}
