package egress

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/delivery"
)

func TestRequestBytes(t *testing.T) {
	t.Parallel()
	seen := make(chan string, 1)
	r := listen(t, func(_ *receiver, c *net.TCPConn) {
		buf := make([]byte, 4096)
		n, _ := c.Read(buf) // one read: head and body leave in one write
		seen <- string(buf[:n])
		io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
	})
	req := post(r.url()+"?q=1#frag", patience)
	req.Header = http.Header{
		"content-type":      {"application/json"},
		"X-Alga-Signature":  {"t=1,v1=00"},
		"X-Alga-Webhook-Id": {"w1"},
		"x-alga-signature":  {"t=1,v1=evil"},
		"Content-Type":      {"text/evil"},
		"authorization":     {"Bearer x"},
		"x-Custom":          {"a"},
		"X-Custom":          {"b"},
		"Host":              {"evil.example"},
		"Content-Length":    {"99"},
		"Transfer-Encoding": {"chunked"},
		"connection":        {"close"},
		"Accept-Encoding":   {"gzip"},
		"Expect":            {"100-continue"},
		"Proxy-Connection":  {"x"},
	}
	a := newClient(t, Config{AllowTargets: config(t, "127.0.0.1").AllowTargets, UserAgent: "Ticketwire/1.2"}).Do(t.Context(), req)
	if !a.OK() || a.StatusCode != 204 {
		t.Fatalf("got %+v", a)
	}
	want := "POST /hook?q=1 HTTP/1.1\r\n" +
		"Host: " + r.addr + "\r\n" +
		"User-Agent: Ticketwire/1.2\r\n" +
		"Content-Length: 7\r\n" +
		"Accept-Encoding: gzip\r\n" +
		"X-Alga-Signature: t=1,v1=00\r\n" +
		"X-Alga-Webhook-Id: w1\r\n" +
		"X-Custom: b\r\n" +
		"authorization: Bearer x\r\n" +
		"content-type: application/json\r\n" +
		"\r\n" + `{"a":1}`
	if diff := cmp.Diff(want, <-seen); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
}

// A header that is never sent must not be taken when a webhook is saved.
func TestWhatIsNotSentIsRefused(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade", "expect",
		"content-encoding", "http2-settings", "proxy-connection", "proxy-authorization",
	} {
		if sent := outgoing(http.Header{name: {"x"}}, "Ticketwire"); len(sent) != 1 {
			t.Errorf("%s is sent: %v", name, sent)
		}
		if !delivery.ReservedHeader(name) {
			t.Errorf("%s is taken, and not sent", name)
		}
	}
}

func TestCustomUserAgentReplacesOurs(t *testing.T) {
	t.Parallel()
	got := outgoing(http.Header{"user-agent": {"mine"}}, "Ticketwire")
	if diff := cmp.Diff(http.Header{"User-Agent": {"mine"}}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestStatuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		answer string
		code   int
		err    delivery.ErrorType
	}{
		{"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, ""},
		{"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok", 201, ""},
		{"HTTP/1.0 202 Accepted\r\n\r\nuntil eof", 202, ""},
		{"HTTP/1.1 204 No Content\r\n\r\n", 204, ""},
		{"HTTP/1.1 299 Fine\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 299, ""},
		{"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, ""},
		{"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, ""},
		{"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", 101, delivery.ErrStatus},
		{"HTTP/1.1 199 Odd\r\n\r\n", 0, delivery.ErrConnect},
		{"HTTP/1.1 300 Choices\r\nContent-Length: 0\r\n\r\n", 300, delivery.ErrStatus},
		{"HTTP/1.1 304 Not Modified\r\n\r\n", 304, delivery.ErrStatus},
		{"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 404, delivery.ErrStatus},
		{"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n", 410, delivery.ErrStatus},
		{"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", 500, delivery.ErrStatus},
		{"HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n", 600, delivery.ErrStatus},
		{"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n", 999, delivery.ErrStatus},
		{"HTTP/1.1 1000 Odd\r\n\r\n", 0, delivery.ErrProtocol},
		{"HTTP/1.1 20 Odd\r\n\r\n", 0, delivery.ErrProtocol},
		{"SSH-2.0-OpenSSH_9.9\r\n", 0, delivery.ErrProtocol},
		{"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", 0, delivery.ErrProtocol},
		{"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", 0, delivery.ErrProtocol},
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk", 0, delivery.ErrProtocol},
		{"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", 200, delivery.ErrConnect},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 200, delivery.ErrProtocol},
		{"HTTP/1.1 200 OK\r\nX-Big: " + strings.Repeat("x", 128<<10) + "\r\n\r\n", 0, delivery.ErrProtocol},
		{strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </"+strings.Repeat("x", 1000)+">\r\n\r\n", 200), 0, delivery.ErrProtocol},
		{"", 0, delivery.ErrConnect},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%.40q", tt.answer), func(t *testing.T) {
			t.Parallel()
			r := listen(t, answering(tt.answer))
			a := localClient(t).Do(t.Context(), post(r.url(), patience))
			if a.StatusCode != tt.code || a.Err != tt.err || a.OK() != (tt.err == "") {
				t.Errorf("got %+v", a)
			}
			if tt.err != "" {
				wantErr(t, a, tt.err, r.addr)
			}
			if r.hits.Load() != 1 {
				t.Errorf("%d requests for one attempt", r.hits.Load())
			}
		})
	}
}

// TestSwitchedConnectionIsLeft keeps a connection open after a 101: what follows on it
// is no body, and has no end.
func TestSwitchedConnectionIsLeft(t *testing.T) {
	t.Parallel()
	r := listen(t, func(r *receiver, c *net.TCPConn) {
		r.readRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
		untilClosed(c)
	})
	a := localClient(t).Do(t.Context(), post(r.url(), patience))
	wantErr(t, a, delivery.ErrStatus, r.addr)
	if a.StatusCode != http.StatusSwitchingProtocols || a.Duration > patience/2 {
		t.Errorf("got %+v", a)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	target := listen(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	for _, code := range []int{301, 302, 303, 307, 308} {
		r := listen(t, answering(fmt.Sprintf("HTTP/1.1 %d Moved\r\nLocation: %s\r\nRefresh: 0; url=%[2]s\r\nAlt-Svc: h2=\"%s\"\r\nContent-Length: 0\r\n\r\n",
			code, target.url(), target.addr)))
		a := localClient(t).Do(t.Context(), post(r.url(), patience))
		wantErr(t, a, delivery.ErrStatus, "redirects are not followed")
		if a.StatusCode != code {
			t.Errorf("status %d, want %d", a.StatusCode, code)
		}
	}
	if n := target.conns.Load(); n != 0 {
		t.Errorf("the target of a redirect was contacted %d times", n)
	}
}

func TestHangingReceivers(t *testing.T) {
	t.Parallel()
	big := []byte(strings.Repeat("x", 64<<20)) // more than the socket buffers take
	tests := []struct {
		name   string
		body   []byte
		handle func(*receiver, *net.TCPConn)
		code   int
		word   string
	}{
		{"never reads", big, func(r *receiver, _ *net.TCPConn) { <-r.done }, 0, "sending the request"},
		{"never answers", nil, func(r *receiver, c *net.TCPConn) {
			r.readRequest(bufio.NewReader(c))
			untilClosed(c)
		}, 0, "waiting for the answer"},
		{"stops in the status line", nil, func(r *receiver, c *net.TCPConn) {
			r.readRequest(bufio.NewReader(c))
			io.WriteString(c, "HTTP/1.")
			untilClosed(c)
		}, 0, "waiting for the answer"},
		{"stops in the header", nil, func(r *receiver, c *net.TCPConn) {
			r.readRequest(bufio.NewReader(c))
			io.WriteString(c, "HTTP/1.1 200 OK\r\nX-A: ")
			untilClosed(c)
		}, 0, "waiting for the answer"},
		{"only 1xx", nil, func(r *receiver, c *net.TCPConn) {
			r.readRequest(bufio.NewReader(c))
			io.WriteString(c, "HTTP/1.1 102 Processing\r\n\r\n")
			untilClosed(c)
		}, 0, "waiting for the answer"},
		{"body never ends", nil, func(r *receiver, c *net.TCPConn) {
			r.readRequest(bufio.NewReader(c))
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nstart")
			untilClosed(c)
		}, 200, "reading the answer"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := listen(t, tt.handle)
			req := post(r.url(), impatience)
			if tt.body != nil {
				req.Body = tt.body
			}
			a := localClient(t).Do(t.Context(), req)
			wantErr(t, a, delivery.ErrTimeout, r.addr, "500ms", tt.word)
			if a.StatusCode != tt.code || a.Duration < impatience || a.Duration > patience {
				t.Errorf("status %d after %v", a.StatusCode, a.Duration)
			}
			if tt.code == 200 && a.Body != "start" {
				t.Errorf("body %q", a.Body)
			}
		})
	}
}

func TestBrokenConnections(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		handle func(*receiver, *net.TCPConn)
		code   int
	}{
		{"RST after accept", func(_ *receiver, c *net.TCPConn) { reset(c) }, 0},
		{"FIN after accept", func(*receiver, *net.TCPConn) {}, 0},
		{"RST after the request", func(r *receiver, c *net.TCPConn) {
			r.readRequest(bufio.NewReader(c))
			reset(c)
		}, 0},
		{"half-close before the status", func(r *receiver, c *net.TCPConn) {
			r.readRequest(bufio.NewReader(c))
			c.CloseWrite()
			untilClosed(c)
		}, 0},
		{"FIN in the body", func(r *receiver, c *net.TCPConn) {
			r.readRequest(bufio.NewReader(c))
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nstart")
			c.CloseWrite()
			untilClosed(c)
		}, 200},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := listen(t, tt.handle)
			a := localClient(t).Do(t.Context(), post(r.url(), patience))
			wantErr(t, a, delivery.ErrConnect, r.addr)
			if a.StatusCode != tt.code {
				t.Errorf("status %d", a.StatusCode)
			}
			if n := r.conns.Load(); n != 1 {
				t.Errorf("%d connections for one attempt", n)
			}
		})
	}
}

func TestNothingListens(t *testing.T) {
	t.Parallel()
	r := listen(t, func(_ *receiver, c *net.TCPConn) { untilClosed(c) })
	// The port of a connection is taken, and nobody listens on it.
	taken, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addr := taken.LocalAddr().String()
	a := localClient(t).Do(t.Context(), post("http://"+addr+"/?token=hunter2", patience))
	wantErr(t, a, delivery.ErrConnect, addr, "connection refused")
	if strings.Contains(a.Message, "hunter2") {
		t.Errorf("message %q holds the query", a.Message)
	}
}

func TestHTTPSToAPlainPort(t *testing.T) {
	t.Parallel()
	r := listen(t, func(_ *receiver, c *net.TCPConn) {
		io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
		untilClosed(c)
	})
	a := localClient(t).Do(t.Context(), post("https://"+r.addr+"/", patience))
	wantErr(t, a, delivery.ErrTLS, r.addr, "does not speak TLS")
}

// A reused connection that dies under a request is where a transport may send
// twice. The receiver must see one request per attempt.
func TestClosedOnReuseIsNotSentTwice(t *testing.T) {
	t.Parallel()
	for _, ending := range []struct {
		name string
		end  func(*net.TCPConn)
	}{{"FIN", func(*net.TCPConn) {}}, {"RST", reset}} {
		t.Run(ending.name, func(t *testing.T) {
			t.Parallel()
			r := listen(t, func(r *receiver, c *net.TCPConn) {
				br := bufio.NewReader(c)
				if !r.readRequest(br) {
					return
				}
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				r.readRequest(br)
				ending.end(c)
			})
			client := localClient(t)
			req := post(r.url(), patience)
			// This header makes Go's transport believe that a repeat is safe.
			req.Header["Idempotency-Key"] = []string{"k"}
			for attempt := int32(1); attempt <= 6; attempt++ {
				a := client.Do(t.Context(), req)
				if r.hits.Load() != attempt {
					t.Fatalf("attempt %d: the receiver saw %d requests (%+v)", attempt, r.hits.Load(), a)
				}
				if attempt%2 == 1 && !a.OK() {
					t.Errorf("attempt %d on a fresh connection: %+v", attempt, a)
				}
				if attempt%2 == 0 {
					wantErr(t, a, delivery.ErrConnect)
				}
			}
		})
	}
}

// The receiver closes idle connections faster than we do. That is noticed
// before the next request, which goes over a new one.
func TestIdleConnectionClosedByReceiver(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{}, 4)
	r := listen(t, func(r *receiver, c *net.TCPConn) {
		answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")(r, c)
		c.CloseWrite()
		untilClosed(c) // ends when the client has seen it and closed too
		closed <- struct{}{}
	})
	client := localClient(t)
	for range 4 {
		if a := client.Do(t.Context(), post(r.url(), patience)); !a.OK() {
			t.Fatalf("got %+v", a)
		}
		<-closed
	}
	if r.hits.Load() != 4 || r.conns.Load() != 4 {
		t.Errorf("%d requests on %d connections", r.hits.Load(), r.conns.Load())
	}
}

func TestConnectionsAreReused(t *testing.T) {
	t.Parallel()
	r := listen(t, func(r *receiver, c *net.TCPConn) {
		br := bufio.NewReader(c)
		for r.readRequest(br) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	client := localClient(t)
	for range 20 {
		if a := client.Do(t.Context(), post(r.url(), patience)); !a.OK() || a.Body != "ok" {
			t.Fatalf("got %+v", a)
		}
	}
	if n := r.conns.Load(); n != 1 {
		t.Errorf("%d connections for 20 requests in a row", n)
	}
}

func TestInterrupted(t *testing.T) {
	t.Parallel()
	for _, head := range []string{"", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"} {
		ctx, stop := context.WithCancel(t.Context())
		r := listen(t, func(r *receiver, c *net.TCPConn) {
			r.readRequest(bufio.NewReader(c))
			io.WriteString(c, head)
			stop()
			untilClosed(c)
		})
		a := localClient(t).Do(ctx, post(r.url(), patience))
		if !a.Interrupted || a.Err == "" || a.OK() {
			t.Errorf("got %+v", a)
		}
		if a.Duration > patience/2 {
			t.Errorf("it went on for %s", a.Duration)
		}
		stop()
	}
}

func TestBadRequestsAreAnswers(t *testing.T) {
	t.Parallel()
	client := localClient(t)
	tests := []struct {
		change func(*Request)
		class  delivery.ErrorType
	}{
		{func(r *Request) { r.URL = "" }, delivery.ErrUnknown},
		{func(r *Request) { r.URL = "http://user:hunter2@a.example/" }, delivery.ErrUnknown},
		{func(r *Request) { r.URL = "http://10.0.0.1/" }, delivery.ErrSSRF},
		{func(r *Request) { r.Method = "BAD METHOD" }, delivery.ErrUnknown},
		{func(r *Request) { r.Header = http.Header{"X-A": {"a\r\nX-Evil: 1"}} }, delivery.ErrUnknown},
		{func(r *Request) { r.Header = http.Header{"X A": {"a"}} }, delivery.ErrUnknown},
	}
	for _, tt := range tests {
		req := post("http://127.0.0.1:1/", patience)
		tt.change(&req)
		a := client.Do(t.Context(), req)
		wantErr(t, a, tt.class)
		if strings.Contains(a.Message, "hunter2") {
			t.Errorf("message %q holds a password", a.Message)
		}
	}
}

// Bytes that come, or go, one at a time do not win time: the limit is one for the
// whole exchange.
func TestDrops(t *testing.T) {
	t.Parallel()
	const head = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
	tests := []struct {
		name string
		play func(c net.Conn)
		code int
		word string
	}{
		{"request read by drops", func(c net.Conn) {
			for {
				time.Sleep(time.Second)
				if _, err := io.CopyN(io.Discard, c, 64<<10); err != nil {
					return
				}
			}
		}, 0, "sending the request"},
		{"status line by drops", func(c net.Conn) {
			http.ReadRequest(bufio.NewReader(c))
			go io.Copy(io.Discard, c)
			drip(c, head)
		}, 0, "waiting for the answer"},
		{"header by drops", func(c net.Conn) {
			http.ReadRequest(bufio.NewReader(c))
			go io.Copy(io.Discard, c)
			io.WriteString(c, head[:20])
			drip(c, head[20:])
		}, 0, "waiting for the answer"},
		{"body by drops", func(c net.Conn) {
			http.ReadRequest(bufio.NewReader(c))
			go io.Copy(io.Discard, c)
			io.WriteString(c, head)
			drip(c, strings.Repeat("x", 100))
		}, 200, "reading the answer"},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			done := make(chan struct{})
			client := New(Config{DialContext: func(context.Context, string, string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				go func() {
					defer close(done)
					defer theirs.Close()
					tt.play(theirs)
				}()
				return ours, nil
			}})
			defer client.Close()
			req := post("http://hooks.example/", 0)
			req.Body = make([]byte, 1<<20)
			a := client.Do(t.Context(), req)
			wantErr(t, a, delivery.ErrTimeout, tt.word)
			if a.Duration != DefaultTimeout || a.StatusCode != tt.code {
				t.Errorf("%s: status %d after %v", tt.name, a.StatusCode, a.Duration)
			}
			<-done
		})
	}
}

// drip writes a byte each second until nobody reads it any more.
func drip(c net.Conn, s string) {
	for _, b := range []byte(s) {
		if _, err := c.Write([]byte{b}); err != nil {
			return
		}
		time.Sleep(time.Second)
	}
}

// A receiver that needs almost the whole limit is in time, one that needs a
// little more is not. The limit covers the body too.
func TestTimeLimit(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		head, body time.Duration
		err        delivery.ErrorType
	}{
		{9900 * time.Millisecond, 0, ""},
		{5 * time.Second, 4900 * time.Millisecond, ""},
		{10100 * time.Millisecond, 0, delivery.ErrTimeout},
		{5 * time.Second, 5100 * time.Millisecond, delivery.ErrTimeout},
	} {
		synctest.Test(t, func(t *testing.T) {
			done := make(chan struct{})
			client := New(Config{DialContext: func(context.Context, string, string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				go func() {
					defer close(done)
					defer theirs.Close()
					http.ReadRequest(bufio.NewReader(theirs))
					time.Sleep(tt.head)
					io.WriteString(theirs, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n")
					time.Sleep(tt.body)
					io.WriteString(theirs, "ok")
				}()
				return ours, nil
			}})
			defer client.Close()
			req := post("http://hooks.example/", 0) // the default of 10 s
			req.Body = nil
			a := client.Do(t.Context(), req)
			if a.Err != tt.err {
				t.Errorf("%v + %v: got %+v", tt.head, tt.body, a)
			}
			if want := min(tt.head+tt.body, DefaultTimeout); a.Duration != want {
				t.Errorf("%v + %v: took %v", tt.head, tt.body, a.Duration)
			}
			<-done
		})
	}
}
