package egress

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/delivery"
)

// costOf runs f so many times at once and returns the memory that all of it
// took, garbage and stacks included, so that it does not depend on the
// collector. No test of memory may run beside others.
func costOf(parallel int, f func()) uint64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var wg sync.WaitGroup
	for range parallel {
		wg.Go(f)
	}
	wg.Wait()
	runtime.ReadMemStats(&after)
	stacks := after.StackInuse - min(after.StackInuse, before.StackInuse)
	return after.TotalAlloc - before.TotalAlloc + stacks
}

// maxCost is what so many hostile answers at once may take. The race detector
// makes pools forget on purpose, which costs as much again.
const (
	hostile = 50
	maxCost = (10 + 10*raceDetector) << 20
)

// wantCut checks the answer to a body of é without end: a success of its status,
// cut.
func wantCut(t *testing.T, a delivery.Answer) {
	t.Helper()
	if !a.OK() || utf8.RuneCountInString(a.Body) != delivery.MaxStoredBody {
		t.Errorf("status %d %s %q, body of %d bytes", a.StatusCode, a.Err, a.Message, len(a.Body))
	}
}

func TestEndlessBodies(t *testing.T) {
	for _, head := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\n",
		"HTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n",
	} {
		chunk := []byte(strings.Repeat("é", 16<<10))
		r := listen(t, func(r *receiver, c *net.TCPConn) {
			r.readRequest(bufio.NewReader(c))
			io.WriteString(c, head)
			for {
				if _, err := c.Write(chunk); err != nil {
					return
				}
			}
		})
		client := localClient(t)
		cost := costOf(hostile, func() { wantCut(t, client.Do(t.Context(), post(r.url(), patience))) })
		if cost > maxCost {
			t.Errorf("%q: %d endless bodies cost %d bytes of memory", head, hostile, cost)
		}
		if client.Do(t.Context(), post(r.url(), patience)); r.conns.Load() != hostile+1 {
			t.Errorf("%q: a connection with an unread body was used again", head)
		}
	}
}

// Over HTTP/2 a receiver may send as much as our windows allow before anybody
// has read it. This one fills them.
func TestEndlessBodiesHTTP2(t *testing.T) {
	ca := newAuthority(t)
	r := listenHTTP2(t, ca, greet(func(_ *receiver, c *h2conn) {
		chunk := data(0, 0, strings.Repeat("é", frameBuffer/2))
		window := 65535 // RFC 9113 section 6.9.2
		for stream := range c.requests {
			c.send(headers(stream, 0))
			binary.BigEndian.PutUint32(chunk[5:], stream)
			for range c.window / frameBuffer {
				for ; window < frameBuffer; window += <-c.credits {
				}
				window -= frameBuffer
				c.send(chunk)
			}
		}
	}))
	client := http2Client(t, ca)
	wantCut(t, client.Do(t.Context(), post(r.secureURL(), patience)))
	cost := costOf(hostile, func() { wantCut(t, client.Do(t.Context(), post(r.secureURL(), patience))) })
	if cost > maxCost {
		t.Errorf("%d endless bodies cost %d bytes of memory", hostile, cost)
	}
}

// What is compressed stays compressed: a bomb is 64 KiB of bytes to us. No
// receiver is asked for compression either.
func TestCompressionBombs(t *testing.T) {
	zeros := make([]byte, 10<<20)
	var member, deflated bytes.Buffer
	gz, _ := gzip.NewWriterLevel(&member, gzip.BestCompression)
	gz.Write(zeros)
	gz.Close()
	fl, _ := flate.NewWriter(&deflated, flate.BestCompression)
	fl.Write(zeros)
	fl.Close()
	tests := []struct {
		encoding string
		bomb     []byte // times 1,000: about 10 MB that want to be 10 GB
	}{
		{"gzip", member.Bytes()},
		{"x-gzip", member.Bytes()},
		{"deflate", deflated.Bytes()},
		{"br", []byte("\xcf\xff\xff\x7f\xf8\x27\x00\xe2\xb1\x40\x20\xf7\xfe\xff")},
		{"zstd", []byte("\x28\xb5\x2f\xfd\xa4\xff\xff\xff\xff")},
		{"gzip, gzip, gzip", member.Bytes()},
	}
	for _, tt := range tests {
		asked := make(chan string, hostile)
		r := listen(t, func(r *receiver, c *net.TCPConn) {
			req, err := http.ReadRequest(bufio.NewReader(c))
			if err != nil {
				return
			}
			asked <- req.Header.Get("Accept-Encoding")
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", tt.encoding, 1000*len(tt.bomb))
			for range 1000 {
				c.Write(tt.bomb)
			}
		})
		want := storedText(string(bytes.Repeat(tt.bomb, 1+keptBodyBytes/len(tt.bomb))), delivery.MaxStoredBody)
		client := localClient(t)
		cost := costOf(hostile/10, func() {
			a := client.Do(t.Context(), post(r.url(), patience))
			// A bomb that is small before it explodes arrives in full.
			if !a.OK() || !strings.HasPrefix(want, a.Body) || a.Headers["content-encoding"] != tt.encoding {
				t.Errorf("%s: got status %d %s, %d bytes", tt.encoding, a.StatusCode, a.Message, len(a.Body))
			}
		})
		close(asked)
		for accepted := range asked {
			if accepted != "" {
				t.Errorf("we asked for %q", accepted)
			}
		}
		if cost > maxCost/2 {
			t.Errorf("%s: %d bombs cost %d bytes of memory", tt.encoding, hostile/10, cost)
		}
	}
}

// A length that lies is found out by what arrives.
func TestContentLengthLies(t *testing.T) {
	t.Parallel()
	const ten = "0123456789"
	tests := []struct {
		name, head, body string
		code             int
		class            delivery.ErrorType
		stored           string
	}{
		{"longer than sent", "Content-Length: 11", ten, 200, delivery.ErrConnect, ten},
		{"1 GB, 10 bytes sent", "Content-Length: 1000000000", ten, 200, delivery.ErrConnect, ten},
		{"2^63 - 1, 10 bytes sent", "Content-Length: 9223372036854775807", ten, 200, delivery.ErrConnect, ten},
		{"2^63", "Content-Length: 9223372036854775808", ten, 0, delivery.ErrProtocol, ""},
		{"negative", "Content-Length: -10", ten, 0, delivery.ErrProtocol, ""},
		{"with a sign", "Content-Length: +10", ten, 0, delivery.ErrProtocol, ""},
		{"hexadecimal", "Content-Length: 0xa", ten, 0, delivery.ErrProtocol, ""},
		{"with a fraction", "Content-Length: 10.0", ten, 0, delivery.ErrProtocol, ""},
		{"empty", "Content-Length:", ten, 0, delivery.ErrProtocol, ""},
		{"two different", "Content-Length: 10\r\nContent-Length: 5", ten, 0, delivery.ErrProtocol, ""},
		{"two different in one line", "Content-Length: 10, 5", ten, 0, delivery.ErrProtocol, ""},
		{"two equal", "Content-Length: 10\r\nContent-Length: 10", ten, 200, "", ten},
		{"chunked as well", "Content-Length: 3\r\nTransfer-Encoding: chunked", "a\r\n" + ten + "\r\n0\r\n\r\n", 200, "", ten},
		{"chunk without end", "Transfer-Encoding: chunked", "a\r\n01234", 200, delivery.ErrConnect, "01234"},
		{"chunk longer than its size", "Transfer-Encoding: chunked", "5\r\n" + ten + "\r\n0\r\n\r\n", 200, delivery.ErrProtocol, "01234"},
		{"chunk with a negative size", "Transfer-Encoding: chunked", "-5\r\n" + ten, 200, delivery.ErrProtocol, ""},
		{"chunk of 2^64", "Transfer-Encoding: chunked", "10000000000000000\r\n" + ten, 200, delivery.ErrProtocol, ""},
		{"chunks with much ado", "Transfer-Encoding: chunked", strings.Repeat("1;"+strings.Repeat("x", 2000)+"\r\na\r\n", 100), 200, delivery.ErrProtocol, ""},
		{"trailer without end", "Transfer-Encoding: chunked", "0\r\n" + strings.Repeat("X-A: b\r\n", 10000), 200, delivery.ErrProtocol, ""},
		{"gzip as transfer encoding", "Transfer-Encoding: gzip, chunked", "0\r\n\r\n", 0, delivery.ErrProtocol, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := listen(t, answering("HTTP/1.1 200 OK\r\n"+tt.head+"\r\n\r\n"+tt.body))
			a := localClient(t).Do(t.Context(), post(r.url(), patience))
			if a.StatusCode != tt.code || a.Err != tt.class || !strings.HasPrefix(a.Body, tt.stored) {
				t.Errorf("got %+v", a)
			}
			if tt.class != "" {
				wantErr(t, a, tt.class, r.addr)
			}
			if r.hits.Load() != 1 {
				t.Errorf("%d requests for one attempt", r.hits.Load())
			}
		})
	}
}

// Bytes beyond the announced length are no part of the answer, and no answer to
// the next request either: their connection is left.
func TestBodyBeyondItsLength(t *testing.T) {
	t.Parallel()
	const answer = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n%s\r\n0123456789"
	for name, more := range map[string]string{
		"a gigabyte":     strings.Repeat("x", 1<<20),
		"another answer": "HTTP/1.1 299 Smuggled\r\nContent-Length: 0\r\n\r\n",
	} {
		for _, header := range []string{"", "Connection: close\r\n"} {
			t.Run(name+" "+header, func(t *testing.T) {
				t.Parallel()
				left := make(chan struct{}, 1)
				r := listen(t, func(r *receiver, c *net.TCPConn) {
					r.readRequest(bufio.NewReader(c))
					fmt.Fprintf(c, answer, header)
					for range 1024 {
						if _, err := io.WriteString(c, more); err != nil {
							break
						}
					}
					c.CloseWrite()
					untilClosed(c)
					left <- struct{}{}
				})
				client := localClient(t)
				for n := range int32(2) {
					a := client.Do(t.Context(), post(r.url(), patience))
					if a.StatusCode != 200 || a.Body != "0123456789" {
						t.Errorf("got %+v", a)
					}
					<-left
					if r.conns.Load() != n+1 || r.hits.Load() != n+1 {
						t.Errorf("%d requests on %d connections", r.hits.Load(), r.conns.Load())
					}
				}
			})
		}
	}
}

// A connection that is reset in the body loses what had not been read, so only
// the class is certain.
func TestResetInTheBody(t *testing.T) {
	t.Parallel()
	r := listen(t, func(r *receiver, c *net.TCPConn) {
		r.readRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nstart")
		reset(c)
	})
	client := localClient(t)
	for range 20 {
		a := client.Do(t.Context(), post(r.url(), patience))
		wantErr(t, a, delivery.ErrConnect, r.addr)
		if a.StatusCode != 0 && a.StatusCode != 200 {
			t.Errorf("status %d", a.StatusCode)
		}
	}
}

// Whatever a receiver answers is stored as text that every store and JSON parser
// takes; making it harmless on a page or in a table is up to who shows it.
func TestOddTextIsStored(t *testing.T) {
	t.Parallel()
	tests := []struct{ raw, want string }{
		{"\xff\xfe\x00", "\ufffd\ufffd\ufffd"},
		{"a\x00b", "a\ufffdb"},
		{"\xc0\xaf\xed\xa0\x80\xf5", strings.Repeat("\ufffd", 6)}, // overlong, half a pair, beyond Unicode
		{"<script>alert(1)</script>", "<script>alert(1)</script>"},
		{"\x1b[2J\x1b]0;owned\x07", "\x1b[2J\x1b]0;owned\x07"},
		{"=cmd|' /C calc'!A0", "=cmd|' /C calc'!A0"},
		{"\u202e\u2028\ufeff", "\u202e\u2028\ufeff"},
		{"\r\nlevel=ERROR msg=forged", "\r\nlevel=ERROR msg=forged"},
	}
	for _, tt := range tests {
		r := listen(t, answering(fmt.Sprintf("HTTP/1.1 500 Oops\r\nContent-Length: %d\r\n\r\n%s", len(tt.raw), tt.raw)))
		a := localClient(t).Do(t.Context(), post(r.url(), patience))
		if a.StatusCode != 500 || a.Body != tt.want {
			t.Errorf("%q: status %d, stored as %q", tt.raw, a.StatusCode, a.Body)
		}
		if a.Message != r.addr+" answered with status 500" {
			t.Errorf("%q reached the message %q", tt.raw, a.Message)
		}
	}
}

// A reason phrase, a header and a first line that are not HTTP may reach the
// message, short and on one line.
func TestOddTextInMessages(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{
		"\x1b[2JSSH-2.0\r\nlevel=ERROR\r\n\r\n",
		"HTTP/1.1 200 OK\r\nX\x1b[31m\x00: y\r\n\r\n",
		"HTTP/1.1 \x1b[2J\r\n\r\n",
		strings.Repeat("\xff", 100000) + "\n\n",
	} {
		r := listen(t, answering(answer))
		a := localClient(t).Do(t.Context(), post(r.url(), patience))
		wantErr(t, a, delivery.ErrProtocol, r.addr)
		if len(a.Message) > 1000 || strings.ContainsFunc(a.Message, func(r rune) bool { return r < ' ' }) {
			t.Errorf("%.20q: message %q", answer, a.Message)
		}
	}
}

// Nothing in an answer makes us call anybody, and nothing is remembered for the
// next request.
func TestAnswersGiveNoOrders(t *testing.T) {
	t.Parallel()
	target := listen(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	requests := make(chan string, 2)
	r := listen(t, func(r *receiver, c *net.TCPConn) {
		br := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			io.Copy(io.Discard, req.Body)
			req.Header.Del("X-Alga-Signature")
			requests <- fmt.Sprint(req.Method, req.Host, req.URL, req.Header)
			fmt.Fprintf(c, "HTTP/1.1 103 Early Hints\r\nLink: <%s>; rel=preconnect\r\n\r\n"+
				"HTTP/1.1 200 OK\r\nAlt-Svc: h3=%[2]q, h2=%[2]q; ma=9999\r\nLocation: %[1]s\r\nContent-Location: %[1]s\r\n"+
				"Link: <%[1]s>; rel=preload\r\nRefresh: 0; url=%[1]s\r\nSet-Cookie: a=b\r\nStrict-Transport-Security: max-age=9999\r\n"+
				"Upgrade: h2c\r\nAccept-CH: DPR\r\nContent-Length: 0\r\n\r\n", target.url(), target.addr)
		}
	})
	client := localClient(t)
	for range 2 {
		if a := client.Do(t.Context(), post(r.url(), patience)); !a.OK() || a.StatusCode != 200 {
			t.Fatalf("got %+v", a)
		}
	}
	if diff := cmp.Diff(<-requests, <-requests); diff != "" {
		t.Errorf("the second request differs (-first +second):\n%s", diff)
	}
	if target.conns.Load() != 0 {
		t.Error("the receiver sent us elsewhere")
	}
}
