package egress

import (
	"bufio"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/delivery"
)

func TestAnswerIsStored(t *testing.T) {
	t.Parallel()
	r := listen(t, answering("HTTP/1.1 429 Slow Down\r\nRetry-After: 7\r\nretry-after: 9\r\nX-Odd: a\xffb\r\n"+
		"Content-Length: 12\r\n\r\n<b>\x00\xff\x1b[31m=x"))
	a := localClient(t).Do(t.Context(), post(r.url(), patience))
	wantErr(t, a, delivery.ErrStatus, r.addr, "429")
	if want := "<b>\ufffd\ufffd\x1b[31m=x"; a.Body != want {
		t.Errorf("body %q, want %q", a.Body, want)
	}
	if diff := cmp.Diff([]string{"7", "9"}, a.RetryAfter); diff != "" {
		t.Errorf("Retry-After (-want +got):\n%s", diff)
	}
	want := map[string]string{"retry-after": "7, 9", "x-odd": "a\ufffdb", "content-length": "12"}
	if diff := cmp.Diff(want, a.Headers); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	if a.RemoteAddr != netip.MustParseAddrPort(r.addr) || a.Duration <= 0 {
		t.Errorf("remote %v, duration %v", a.RemoteAddr, a.Duration)
	}
}

func TestEndlessBodies(t *testing.T) {
	const parallel = 50
	var sent atomic.Int64
	r := listen(t, func(r *receiver, c *net.TCPConn) {
		r.readRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\n")
		chunk := []byte(strings.Repeat("é", 16<<10))
		for {
			n, err := c.Write(chunk)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	client := localClient(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var wg sync.WaitGroup
	for range parallel {
		wg.Go(func() {
			a := client.Do(t.Context(), post(r.url(), patience))
			if !a.OK() || len(utf16.Encode([]rune(a.Body))) != delivery.MaxStoredBody {
				t.Errorf("status %d %s %q, body of %d bytes", a.StatusCode, a.Err, a.Message, len(a.Body))
			}
		})
	}
	wg.Wait()
	runtime.ReadMemStats(&after)
	// All garbage included, so that it does not depend on the collector.
	if each := (after.TotalAlloc - before.TotalAlloc) / parallel; each > 1<<20 {
		t.Errorf("an endless body costs %d bytes of memory", each)
	}
	if client.Do(t.Context(), post(r.url(), patience)); r.conns.Load() != parallel+1 {
		t.Error("a connection with an unread body was used again")
	}
}

func TestBodyBeyondItsLength(t *testing.T) {
	t.Parallel()
	r := listen(t, func(r *receiver, c *net.TCPConn) {
		r.readRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\n0123456789")
		for {
			if _, err := c.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	})
	a := localClient(t).Do(t.Context(), post(r.url(), patience))
	if !a.OK() || a.Body != "0123456789" {
		t.Errorf("got %+v", a)
	}
}

func TestCompressedAnswerIsNotInflated(t *testing.T) {
	t.Parallel()
	r := listen(t, answering("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00"))
	a := localClient(t).Do(t.Context(), post(r.url(), patience))
	if !a.OK() || a.Body != "\x1f\ufffd\x08\ufffd" {
		t.Errorf("got %+v", a)
	}
}

func TestStoredText(t *testing.T) {
	t.Parallel()
	tests := []struct {
		raw   string
		limit int
		want  string
	}{
		{"", 3, ""},
		{"abc", 3, "abc"},
		{"abcd", 3, "abc"},
		{"ééé", 2, "éé"},
		{"ab😀", 4, "ab😀"},
		{"ab😀", 3, "ab"}, // no half of a surrogate pair
		{"a\x00b", 9, "a\ufffdb"},
		{"a\xe2\x82", 9, "a\ufffd\ufffd"},
		{"\xed\xa0\x80", 9, "\ufffd\ufffd\ufffd"},
	}
	for _, tt := range tests {
		if got := storedText([]byte(tt.raw), tt.limit); got != tt.want {
			t.Errorf("%q to %d: got %q, want %q", tt.raw, tt.limit, got, tt.want)
		}
	}
}
