package egress

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ticketwire/ticketwire/internal/delivery"
)

func TestMain(m *testing.M) {
	// net/http tells the standard logger what it thinks of a receiver.
	log.SetOutput(io.Discard)
	// net reads the settings of its resolver once, and what it makes then must not
	// belong to the bubble of a test.
	_, _ = (&net.Resolver{PreferGo: true}).LookupHost(context.Background(), "localhost")
	goleak.VerifyTestMain(m)
}

// patience is a timeout that a healthy exchange never meets, impatience one
// that a hanging receiver meets soon.
const (
	patience   = 20 * time.Second
	impatience = 500 * time.Millisecond
)

// receiver is a raw TCP server whose behaviour is a function of the connection.
type receiver struct {
	addr  string
	conns atomic.Int32
	hits  atomic.Int32  // complete requests read by readRequest
	done  chan struct{} // closed when the test ends
}

// listen starts a receiver on 127.0.0.1. Connections are closed when their
// handler returns and when the test ends.
func listen(t *testing.T, handle func(r *receiver, c *net.TCPConn)) *receiver {
	t.Helper()
	return listenOn(t, "127.0.0.1:0", handle)
}

func listenOn(t *testing.T, addr string, handle func(r *receiver, c *net.TCPConn)) *receiver {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{addr: l.Addr().String(), done: make(chan struct{})}
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.conns.Add(1)
			mu.Lock()
			open[c] = true
			mu.Unlock()
			wg.Go(func() {
				defer func() {
					c.Close()
					mu.Lock()
					delete(open, c)
					mu.Unlock()
				}()
				handle(r, c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		close(r.done)
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return r
}

func (r *receiver) url() string { return "http://" + r.addr + "/hook" }

func (r *receiver) port() uint16 { return netip.MustParseAddrPort(r.addr).Port() }

// readRequest reads one request with its body and counts it.
func (r *receiver) readRequest(br *bufio.Reader) bool {
	req, err := http.ReadRequest(br)
	if err != nil {
		return false
	}
	if _, err := io.Copy(io.Discard, req.Body); err != nil {
		return false
	}
	r.hits.Add(1)
	return true
}

// answering reads one request, writes answer and closes.
func answering(answer string) func(*receiver, *net.TCPConn) {
	return func(r *receiver, c *net.TCPConn) {
		if r.readRequest(bufio.NewReader(c)) {
			io.WriteString(c, answer)
		}
	}
}

// untilClosed blocks until the other side is gone.
func untilClosed(c net.Conn) { io.Copy(io.Discard, c) }

// reset closes with RST instead of FIN.
func reset(c *net.TCPConn) { c.SetLinger(0) }

func newClient(t *testing.T, cfg Config) *Client {
	t.Helper()
	c := New(cfg)
	t.Cleanup(c.Close)
	return c
}

// localClient may call 127.0.0.1 only.
func localClient(t *testing.T) *Client { return newClient(t, config(t, "127.0.0.1")) }

func post(url string, timeout time.Duration) Request {
	return Request{
		Method:    http.MethodPost,
		URL:       url,
		Header:    http.Header{"content-type": {"application/json"}, "X-Alga-Signature": {"t=1,v1=00"}},
		Body:      []byte(`{"a":1}`),
		VerifySSL: true,
		Timeout:   timeout,
	}
}

// wantErr checks the class of a failure and that its message says enough and
// not too much.
func wantErr(t *testing.T, a delivery.Answer, class delivery.ErrorType, words ...string) {
	t.Helper()
	if a.Err != class || a.OK() || a.Interrupted {
		t.Errorf("got %+v, want class %s", a, class)
	}
	if a.Message == "" {
		t.Error("a failure without a message")
	}
	for _, w := range words {
		if !bytes.Contains([]byte(a.Message), []byte(w)) {
			t.Errorf("message %q does not say %q", a.Message, w)
		}
	}
}
