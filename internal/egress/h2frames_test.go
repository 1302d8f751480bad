package egress

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
)

// Frame types, flags, settings and errors of HTTP/2 (RFC 9113 sections 6, 7).
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	frameReset        = 0x3
	frameSettings     = 0x4
	framePush         = 0x5
	framePing         = 0x6
	frameGoAway       = 0x7
	frameWindowUpdate = 0x8
	frameContinuation = 0x9
	frameUnknown      = 0xbe

	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4

	settingInitialWindow = 0x4

	codeNo             = 0x0
	codeProtocol       = 0x1
	codeInternal       = 0x2
	codeRefusedStream  = 0x7
	codeCancel         = 0x8
	codeEnhanceYouCalm = 0xb
)

// h2conn is the receiver's end of an HTTP/2 connection, written by hand so that
// it can break every rule.
type h2conn struct {
	net.Conn
	br *bufio.Reader
	// requests are the streams whose requests arrived in full. Closed when the
	// client is gone.
	requests chan uint32
	mu       sync.Mutex // guards writes

	// credits are what the client takes on the whole connection: one number for
	// each time it gave some. Nobody has to spend them.
	credits chan int

	// What the client's own frames say, for who reads them.
	increment uint32 // of the last window update
	window    uint32 // that a stream begins with; known when a request has come
}

// accept makes an HTTP/2 connection of an accepted one: handshake and preface.
// nil when the client does not get so far.
func accept(c net.Conn, cfg *tls.Config) *h2conn {
	cfg = cfg.Clone()
	cfg.NextProtos = []string{"h2"}
	conn := tls.Server(c, cfg)
	if conn.Handshake() != nil {
		return nil
	}
	h := &h2conn{Conn: conn, br: bufio.NewReader(conn), requests: make(chan uint32, 1024), credits: make(chan int, 1024)}
	preface := make([]byte, len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
	if _, err := io.ReadFull(h.br, preface); err != nil {
		return nil
	}
	return h
}

// listenHTTP2 starts a receiver that speaks HTTP/2 by hand. Each request counts
// as a hit when its headers arrive; handle sees it when it is complete.
func listenHTTP2(t *testing.T, ca *authority, handle func(r *receiver, c *h2conn)) *receiver {
	t.Helper()
	cfg := &tls.Config{Certificates: []tls.Certificate{ca.certificate(t, 0, nil)}}
	return listen(t, func(r *receiver, raw *net.TCPConn) {
		c := accept(raw, cfg)
		if c == nil {
			return
		}
		var wg sync.WaitGroup
		defer wg.Wait()
		defer c.Close()
		wg.Go(func() { c.read(r) })
		handle(r, c)
	})
}

// read takes in what the client sends until it is gone.
func (c *h2conn) read(r *receiver) {
	defer close(c.requests)
	for {
		kind, flags, stream, err := c.skip()
		if err != nil {
			return
		}
		switch {
		case kind == frameHeaders:
			r.hits.Add(1)
		case kind == frameWindowUpdate && stream == 0:
			select {
			case c.credits <- int(c.increment):
			default:
			}
		}
		if (kind == frameHeaders || kind == frameData) && flags&flagEndStream != 0 {
			c.requests <- stream
		}
	}
}

// skip reads one frame and forgets its payload, but for what is about windows.
func (c *h2conn) skip() (kind, flags byte, stream uint32, err error) {
	var head [9]byte
	if _, err := io.ReadFull(c.br, head[:]); err != nil {
		return 0, 0, 0, err
	}
	payload := io.LimitReader(c.br, int64(head[0])<<16|int64(head[1])<<8|int64(head[2]))
	switch head[3] {
	case frameWindowUpdate:
		err = binary.Read(payload, binary.BigEndian, &c.increment)
	case frameSettings:
		var pair struct {
			ID    uint16
			Value uint32
		}
		for binary.Read(payload, binary.BigEndian, &pair) == nil {
			if pair.ID == settingInitialWindow {
				c.window = pair.Value
			}
		}
	}
	if err == nil {
		_, err = io.Copy(io.Discard, payload)
	}
	return head[3], head[4], binary.BigEndian.Uint32(head[5:]), err
}

// frame encodes one frame.
func frame(kind, flags byte, stream uint32, payload ...byte) []byte {
	n := len(payload)
	head := []byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags}
	return append(binary.BigEndian.AppendUint32(head, stream), payload...)
}

// send writes frames at once and reports whether the client still takes them.
func (c *h2conn) send(frames ...[]byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := frames[0]
	if len(frames) > 1 {
		all = slices.Concat(frames...)
	}
	_, err := c.Write(all)
	return err == nil
}

// settings is a SETTINGS frame of one setting, or an empty one.
func settings(pairs ...uint32) []byte {
	var payload []byte
	for i := 0; i+1 < len(pairs); i += 2 {
		payload = binary.BigEndian.AppendUint16(payload, uint16(pairs[i]))
		payload = binary.BigEndian.AppendUint32(payload, pairs[i+1])
	}
	return frame(frameSettings, 0, 0, payload...)
}

func resetStream(stream, code uint32) []byte {
	return frame(frameReset, 0, stream, binary.BigEndian.AppendUint32(nil, code)...)
}

func goAway(last, code uint32) []byte {
	payload := binary.BigEndian.AppendUint32(nil, last)
	return frame(frameGoAway, 0, 0, binary.BigEndian.AppendUint32(payload, code)...)
}

// field is a header field without compression (RFC 7541 section 6.2.2). Name and
// value are shorter than 127 bytes.
func field(name, value string) []byte {
	out := append([]byte{0, byte(len(name))}, name...)
	return append(append(out, byte(len(value))), value...)
}

// status200 is ":status: 200" in the static table (RFC 7541 appendix A).
const status200 = 0x88

// headers is a complete HEADERS frame with status 200 and more fields.
func headers(stream uint32, flags byte, fields ...[]byte) []byte {
	block := []byte{status200}
	for _, f := range fields {
		block = append(block, f...)
	}
	return frame(frameHeaders, flags|flagEndHeaders, stream, block...)
}

func data(stream uint32, flags byte, text string) []byte {
	return frame(frameData, flags, stream, []byte(text)...)
}
