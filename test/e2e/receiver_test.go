package e2e

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"
)

// arrival is one request of the service to a receiver.
type arrival struct {
	at      time.Time
	header  http.Header
	body    []byte
	eventID string
}

// receiver is an endpoint inside the test. It notes what arrives before it
// answers, so that a test can act while a request is open.
type receiver struct {
	url    string
	answer func(n int) // called before the 200 for the n-th request, from 1

	mu       sync.Mutex
	arrivals []arrival     // guarded by mu
	changed  chan struct{} // guarded by mu; closed and replaced with every arrival
}

// receive starts a receiver. answer may block to keep the sender waiting; nil
// answers at once.
func receive(t *testing.T, answer func(n int)) *receiver {
	t.Helper()
	r := &receiver{answer: answer, changed: make(chan struct{})}
	server := httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(server.Close)
	r.url = server.URL + "/webhooks/alga"
	return r
}

func (r *receiver) serve(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // the sender was killed
	}
	r.mu.Lock()
	r.arrivals = append(r.arrivals, arrival{
		at: time.Now(), header: req.Header.Clone(), body: body, eventID: req.Header.Get("X-Alga-Event-Id"),
	})
	n := len(r.arrivals)
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
	if r.answer != nil {
		r.answer(n)
	}
	w.WriteHeader(http.StatusOK)
}

func (r *receiver) arrived() []arrival {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.arrivals)
}

// await waits until what arrived satisfies enough, and returns it.
func (r *receiver) await(t *testing.T, what string, enough func([]arrival) bool) []arrival {
	t.Helper()
	limit := time.After(patience)
	for {
		r.mu.Lock()
		got, changed := slices.Clone(r.arrivals), r.changed
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
func count(n int) func([]arrival) bool {
	return func(a []arrival) bool { return len(a) >= n }
}

// eventIDs are the different events that arrived, with how often each did.
func eventIDs(arrivals []arrival) map[string]int {
	ids := map[string]int{}
	for _, a := range arrivals {
		ids[a.eventID]++
	}
	return ids
}
