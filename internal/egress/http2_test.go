package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
)

// http2Client may call 127.0.0.1 and trusts ca.
func http2Client(t *testing.T, ca *authority) *Client {
	t.Helper()
	cfg := config(t, "127.0.0.1")
	cfg.RootCAs = ca.pool
	return newClient(t, cfg)
}

func (r *receiver) secureURL() string { return "https://" + r.addr + "/hook" }

// greet sends the settings that a connection begins with.
func greet(next func(*receiver, *h2conn)) func(*receiver, *h2conn) {
	return func(r *receiver, c *h2conn) {
		if c.send(settings()) {
			next(r, c)
		}
	}
}

// each answers every request of a connection with the same frames.
func each(frames func(stream uint32) [][]byte) func(*receiver, *h2conn) {
	return greet(func(_ *receiver, c *h2conn) {
		for stream := range c.requests {
			if !c.send(frames(stream)...) {
				return
			}
		}
	})
}

// What a receiver does to a stream or a connection is a failure of one class,
// the request is not sent again in secret, and the next attempt is not stuck.
func TestHTTP2Misbehaviour(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	one := func(f func(stream uint32) []byte) func(*receiver, *h2conn) {
		return each(func(s uint32) [][]byte { return [][]byte{f(s)} })
	}
	tests := []struct {
		name   string
		handle func(*receiver, *h2conn)
		code   int
		class  delivery.ErrorType
		word   string
	}{
		{"GOAWAY for a stream it did not take", one(func(uint32) []byte { return goAway(0, codeNo) }), 0, delivery.ErrConnect, "waiting for the answer"},
		{"GOAWAY with an error", one(func(uint32) []byte { return goAway(0, codeEnhanceYouCalm) }), 0, delivery.ErrConnect, "waiting for the answer"},
		{"GOAWAY and the end", greet(func(_ *receiver, c *h2conn) {
			c.send(goAway(<-c.requests, codeInternal))
		}), 0, delivery.ErrConnect, "waiting for the answer"},
		{"the end without GOAWAY", greet(func(_ *receiver, c *h2conn) { <-c.requests }), 0, delivery.ErrConnect, "waiting for the answer"},
		{"RST_STREAM refused", one(func(s uint32) []byte { return resetStream(s, codeRefusedStream) }), 0, delivery.ErrConnect, "reset by the receiver"},
		{"RST_STREAM cancel", one(func(s uint32) []byte { return resetStream(s, codeCancel) }), 0, delivery.ErrConnect, "reset by the receiver"},
		{"RST_STREAM internal", one(func(s uint32) []byte { return resetStream(s, codeInternal) }), 0, delivery.ErrConnect, "reset by the receiver"},
		{"RST_STREAM protocol", one(func(s uint32) []byte { return resetStream(s, codeProtocol) }), 0, delivery.ErrConnect, "reset by the receiver"},
		{"RST_STREAM in the body", each(func(s uint32) [][]byte {
			return [][]byte{headers(s, 0), data(s, 0, "start"), resetStream(s, codeInternal)}
		}), 200, delivery.ErrConnect, "reading the answer: reset by the receiver"},
		{"no settings first", func(_ *receiver, c *h2conn) {
			c.send(headers(<-c.requests, flagEndStream))
			<-c.requests
		}, 0, delivery.ErrProtocol, ""},
		{"HTTP/1.1 after all", func(_ *receiver, c *h2conn) {
			<-c.requests
			c.send([]byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
			<-c.requests
		}, 0, delivery.ErrProtocol, ""},
		{"PUSH_PROMISE", one(func(s uint32) []byte { return frame(framePush, flagEndHeaders, s, 0, 0, 0, 2, status200) }), 0, delivery.ErrProtocol, ""},
		{"window overflow", each(func(uint32) [][]byte {
			return [][]byte{frame(frameWindowUpdate, 0, 0, 0x7f, 0xff, 0xff, 0xff), frame(frameWindowUpdate, 0, 0, 0x7f, 0xff, 0xff, 0xff)}
		}), 0, delivery.ErrProtocol, ""},
		{"frame longer than allowed", each(func(s uint32) [][]byte {
			return [][]byte{headers(s, 0), data(s, flagEndStream, strings.Repeat("x", frameBuffer+1))}
		}), 200, delivery.ErrProtocol, "too large"},
		{"broken compression", one(func(s uint32) []byte { return frame(frameHeaders, flagEndHeaders|flagEndStream, s, 0xff, 0xff, 0xff) }), 0, delivery.ErrProtocol, ""},
		{"DATA before HEADERS", one(func(s uint32) []byte { return data(s, flagEndStream, "ok") }), 0, delivery.ErrProtocol, ""},
		{"no status", one(func(s uint32) []byte {
			return frame(frameHeaders, flagEndHeaders|flagEndStream, s, field("x-a", "b")...)
		}), 0, delivery.ErrProtocol, "status"},
		{"odd status", one(func(s uint32) []byte {
			return frame(frameHeaders, flagEndHeaders|flagEndStream, s, field(":status", "2xx")...)
		}), 0, delivery.ErrProtocol, "status"},
		{"upper case field", one(func(s uint32) []byte { return headers(s, flagEndStream, field("X-A", "b")) }), 0, delivery.ErrProtocol, ""},
		{"line break in a field", one(func(s uint32) []byte { return headers(s, flagEndStream, field("x-a", "b\r\nx-evil: 1")) }), 0, delivery.ErrProtocol, ""},
		{"header list too long", each(func(s uint32) [][]byte {
			long := field("x-a", strings.Repeat("v", 100))
			var block []byte
			for range 1000 { // from one field in the table of 4 KiB a receiver can make as many as it likes
				block = append(block, long...)
			}
			frames := [][]byte{frame(frameHeaders, 0, s, append([]byte{status200}, block[:frameBuffer-1]...)...)}
			for rest := block[frameBuffer-1:]; len(rest) > 0; {
				n := min(len(rest), frameBuffer)
				frames, rest = append(frames, frame(frameContinuation, 0, s, rest[:n]...)), rest[n:]
			}
			return append(frames, frame(frameContinuation, flagEndHeaders, s))
		}), 0, delivery.ErrProtocol, ""},
		{"longer than its length", each(func(s uint32) [][]byte {
			return [][]byte{headers(s, 0, field("content-length", "5")), data(s, flagEndStream, "0123456789")}
		}), 200, delivery.ErrProtocol, "Content-Length"},
		{"shorter than its length", each(func(s uint32) [][]byte {
			return [][]byte{headers(s, 0, field("content-length", "10")), data(s, flagEndStream, "01234")}
		}), 200, delivery.ErrConnect, "too early"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := listenHTTP2(t, ca, tt.handle)
			client := http2Client(t, ca)
			for attempt := range int32(3) {
				a := client.Do(t.Context(), post(r.secureURL(), patience))
				wantErr(t, a, tt.class, r.addr, tt.word)
				if a.StatusCode != tt.code {
					t.Errorf("status %d, want %d", a.StatusCode, tt.code)
				}
				if n := r.hits.Load(); n > attempt+1 {
					t.Errorf("%d requests for %d attempts", n, attempt+1)
				}
			}
		})
	}
}

// A receiver that goes away politely is left, and answers what it had taken.
func TestHTTP2GoAwayAfterTheRequest(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	r := listenHTTP2(t, ca, each(func(s uint32) [][]byte {
		return [][]byte{goAway(s, codeNo), headers(s, 0), data(s, flagEndStream, "ok")}
	}))
	client := http2Client(t, ca)
	for n := int32(1); n <= 3; n++ {
		if a := client.Do(t.Context(), post(r.secureURL(), patience)); !a.OK() || a.Body != "ok" {
			t.Fatalf("got %+v", a)
		}
		if r.conns.Load() != n || r.hits.Load() != n {
			t.Errorf("attempt %d: %d requests on %d connections", n, r.hits.Load(), r.conns.Load())
		}
	}
}

// Rapid reset in the other direction: a receiver that resets every stream costs
// one failure each, on the same connection, and leaves nothing behind.
func TestHTTP2ResetOfEveryStream(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	r := listenHTTP2(t, ca, each(func(s uint32) [][]byte { return [][]byte{resetStream(s, codeCancel)} }))
	client := http2Client(t, ca)
	const attempts = 200
	for range attempts {
		wantErr(t, client.Do(t.Context(), post(r.secureURL(), patience)), delivery.ErrConnect)
	}
	if r.hits.Load() != attempts || r.conns.Load() != 1 {
		t.Errorf("%d requests on %d connections", r.hits.Load(), r.conns.Load())
	}
}

// A flood of frames instead of an answer costs the time limit and no more
// memory than its buffers. Afterwards the connection is not kept.
func TestHTTP2Floods(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	tests := []struct {
		name  string
		first func(stream uint32) []byte
		flood func(stream uint32) []byte
		class delivery.ErrorType
		code  int
	}{
		{"SETTINGS", nil, func(uint32) []byte { return settings() }, delivery.ErrTimeout, 0},
		{"PING", nil, func(uint32) []byte { return frame(framePing, 0, 0, make([]byte, 8)...) }, delivery.ErrTimeout, 0},
		{"unknown frames", nil, func(uint32) []byte { return frame(frameUnknown, 0, 0) }, delivery.ErrTimeout, 0},
		{"RST_STREAM of others", nil, func(s uint32) []byte { return resetStream(s+2, codeCancel) }, delivery.ErrTimeout, 0},
		{"empty DATA", func(s uint32) []byte { return headers(s, 0) }, func(s uint32) []byte { return data(s, 0, "") }, delivery.ErrTimeout, 200},
		{"1xx", nil, func(s uint32) []byte { return frame(frameHeaders, flagEndHeaders, s, field(":status", "103")...) }, delivery.ErrProtocol, 0},
		{"CONTINUATION", func(s uint32) []byte { return frame(frameHeaders, 0, s, status200) },
			func(s uint32) []byte { return frame(frameContinuation, 0, s, field("x-a", "b")...) }, delivery.ErrProtocol, 0},
		{"empty CONTINUATION", func(s uint32) []byte { return frame(frameHeaders, 0, s, status200) },
			func(s uint32) []byte { return frame(frameContinuation, 0, s) }, delivery.ErrTimeout, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			over := make(chan struct{})
			r := listenHTTP2(t, ca, greet(func(_ *receiver, c *h2conn) {
				defer close(over)
				stream := <-c.requests
				if tt.first != nil {
					c.send(tt.first(stream))
				}
				var batch [][]byte
				for range 64 {
					batch = append(batch, tt.flood(stream))
				}
				for c.send(batch...) {
				}
			}))
			client := http2Client(t, ca)
			a := client.Do(t.Context(), post(r.secureURL(), impatience))
			wantErr(t, a, tt.class)
			if a.StatusCode != tt.code || a.Duration > patience/2 || r.hits.Load() != 1 {
				t.Errorf("status %d after %v, %d requests", a.StatusCode, a.Duration, r.hits.Load())
			}
			// The idle timeout does the same a little later.
			for again := time.Tick(impatience / 50); ; {
				client.Close()
				select {
				case <-over:
					return
				case <-again:
				}
			}
		})
	}
}

// Frames that mean nothing do not keep a connection that no request uses.
func TestHTTP2IdleConnectionIsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		closed := make(chan time.Time, 1)
		client := pipeHTTP2(t, func(_ int, c *h2conn) {
			go c.read(new(receiver))
			c.send(settings())
			go func() {
				for c.send(frame(framePing, 0, 0, make([]byte, 8)...)) {
					time.Sleep(time.Second)
				}
				closed <- time.Now()
			}()
			for s := range c.requests {
				c.send(headers(s, flagEndStream))
			}
		})
		if a := client.Do(t.Context(), post("https://hooks.example/", 0)); !a.OK() {
			t.Fatalf("got %+v", a)
		}
		used := time.Now()
		if kept := (<-closed).Sub(used); kept < idleTimeout || kept > idleTimeout+2*time.Second {
			t.Errorf("the connection was kept for %v", kept)
		}
	})
}

// A window that stays closed holds back the request's body, and nothing else.
func TestHTTP2ZeroWindow(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	r := listenHTTP2(t, ca, func(r *receiver, c *h2conn) {
		c.send(settings(settingInitialWindow, 0))
		for range c.requests {
		}
	})
	req := post(r.secureURL(), impatience)
	req.Body = make([]byte, 128<<10) // twice what may be sent before the settings arrive
	a := http2Client(t, ca).Do(t.Context(), req)
	wantErr(t, a, delivery.ErrTimeout, "sending the request")
	if a.Duration > patience/2 {
		t.Errorf("took %v", a.Duration)
	}
}

// pipeHTTP2 makes a client whose connections are pipes: they hold no bytes, and
// they work in a bubble of fake time. handle gets the number of the connection,
// from 0, and the receiver's end, which nobody reads yet.
func pipeHTTP2(t *testing.T, handle func(n int, c *h2conn)) *Client {
	t.Helper()
	ca := newAuthority(t)
	cert := ca.certificate(t, 0, func(c *x509.Certificate) { c.DNSNames = []string{"hooks.example"} })
	n := 0
	client := New(Config{RootCAs: ca.pool, DialContext: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		number := n
		n++
		go func() {
			defer theirs.Close()
			if c := accept(theirs, &tls.Config{Certificates: []tls.Certificate{cert}}); c != nil {
				handle(number, c)
			}
		}()
		return ours, nil
	}})
	t.Cleanup(client.Close)
	return client
}

// A connection whose other end is gone without a word is found out and left,
// although requests that time out do not close it.
func TestHTTP2DeadConnectionIsReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := pipeHTTP2(t, func(n int, c *h2conn) {
			go c.read(new(receiver))
			c.send(settings())
			for s := range c.requests {
				if n > 0 {
					c.send(headers(s, flagEndStream))
				}
			}
		})
		start := time.Now()
		for {
			a := client.Do(t.Context(), post("https://hooks.example/", 2*time.Second))
			if a.OK() {
				break
			}
			if a.Err != delivery.ErrTimeout && a.Err != delivery.ErrConnect {
				t.Errorf("got %+v", a)
			}
			if d := time.Since(start); d > pingAfter+pingLimit+2*time.Second {
				t.Fatalf("no new connection after %v", d)
			}
		}
		synctest.Wait() // so that the connection is idle when it is closed
	})
}

// A receiver that sends and takes nothing in jams the connection: our answers to
// its frames block, and the reading of the body behind them. Do returns all the
// same, and the connection is cut.
func TestHTTP2JammedConnection(t *testing.T) {
	t.Parallel()
	cut := make(chan struct{})
	client := pipeHTTP2(t, func(_ int, c *h2conn) {
		defer close(cut)
		go c.send(settings())
		stream := c.untilSettled()
		// The client would give back the window that this takes, and nobody reads it.
		c.send(headers(stream, 0), data(stream, 0, strings.Repeat("x", 12<<10)))
		for pause := time.Tick(impatience / 5); c.send(data(stream, 0, "y")); <-pause {
		}
	})
	a := client.Do(t.Context(), post("https://hooks.example/", impatience))
	wantErr(t, a, delivery.ErrTimeout, "reading the answer")
	// Without the leash the write limit would end it, but later.
	if a.StatusCode != 200 || a.Duration >= writeLimit {
		t.Errorf("status %d after %v", a.StatusCode, a.Duration)
	}
	<-cut
}

// untilSettled reads until the first request is complete and the settings are
// acknowledged, so that the client has nothing left to write.
func (c *h2conn) untilSettled() (stream uint32) {
	for settled := false; !settled || stream == 0; {
		kind, flags, id, err := c.skip()
		switch {
		case err != nil:
			return 0
		case kind == frameSettings && flags&flagAck != 0:
			settled = true
		case (kind == frameHeaders || kind == frameData) && flags&flagEndStream != 0:
			stream = id
		}
	}
	return stream
}
