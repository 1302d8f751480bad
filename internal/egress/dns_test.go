package egress

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
)

// nameServer answers every A question on loopback UDP from a script: one list of
// addresses per lookup, the last one for all that follow.
type nameServer struct {
	mu     sync.Mutex
	script [][]netip.Addr
	rcode  byte
}

const (
	rcodeServFail = 2
	rcodeNXDomain = 3
)

func startNameServer(t *testing.T, rcode byte, script ...[]netip.Addr) *net.Resolver {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{script: script, rcode: rcode}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo(s.answer(buf[:n]), from)
		}
	})
	t.Cleanup(func() {
		pc.Close()
		wg.Wait()
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
}

// answer builds a reply as in RFC 1035 section 4.1 with a TTL of 0.
func (s *nameServer) answer(query []byte) []byte {
	const header = 12
	end := header
	for query[end] != 0 {
		end += int(query[end]) + 1
	}
	end += 5 // the root label, type and class
	isA := binary.BigEndian.Uint16(query[end-4:]) == 1

	var addrs []netip.Addr
	s.mu.Lock()
	if isA && len(s.script) > 0 {
		addrs = s.script[0]
		if len(s.script) > 1 {
			s.script = s.script[1:]
		}
	}
	s.mu.Unlock()

	reply := append([]byte{}, query[:end]...)
	binary.BigEndian.PutUint16(reply[2:], 0x8180|uint16(s.rcode))
	binary.BigEndian.PutUint16(reply[6:], uint16(len(addrs)))
	clear(reply[8:header])
	for _, a := range addrs {
		reply = append(reply, 0xc0, header, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
		reply = append(reply, a.AsSlice()...)
	}
	return reply
}

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// twoHosts starts receivers on one port of 127.0.0.1 and 127.0.0.2. The second
// stands for a public address: it is the only one the client may call.
func twoHosts(t *testing.T, rcode byte, script ...[]netip.Addr) (private, public *receiver, c *Client) {
	t.Helper()
	ok := func(r *receiver, c *net.TCPConn) {
		r.readRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	}
	public = listenOn(t, "127.0.0.2:0", ok)
	private = listenOn(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), public.port()).String(), ok)
	cfg := config(t, "127.0.0.2")
	cfg.Resolver = startNameServer(t, rcode, script...)
	return private, public, newClient(t, cfg)
}

func named(r *receiver) string {
	_, port, _ := net.SplitHostPort(r.addr)
	return "http://hooks.example.com:" + port + "/"
}

func TestNameWithPrivateAddressIsRefused(t *testing.T) {
	t.Parallel()
	private, public, client := twoHosts(t, 0, addrs("127.0.0.1", "10.0.0.1", "169.254.169.254"))
	a := client.Do(t.Context(), post(named(public), patience))
	wantErr(t, a, delivery.ErrSSRF, "hooks.example.com")
	for _, secret := range []string{"127.0.0.1", "10.0.0.1"} {
		if strings.Contains(a.Message, secret) {
			t.Errorf("message %q names a private address", a.Message)
		}
	}
	if private.conns.Load() != 0 || a.RemoteAddr.IsValid() {
		t.Errorf("the private address was dialled: %+v", a)
	}
	// A port where nothing listens looks the same.
	closed := client.Do(t.Context(), post("http://hooks.example.com:9/", patience))
	if want := strings.ReplaceAll(a.Message, named(public)[len("http://hooks.example.com"):len(named(public))-1], ":9"); closed.Message != want || closed.Err != a.Err {
		t.Errorf("closed port: %q, open port: %q", closed.Message, a.Message)
	}
}

func TestRebindingIsRefusedAtTheDial(t *testing.T) {
	t.Parallel()
	private, public, client := twoHosts(t, 0, addrs("127.0.0.2"), addrs("127.0.0.1"), addrs("127.0.0.2"), addrs("127.0.0.1"))
	for i, want := range []delivery.ErrorType{"", delivery.ErrSSRF, "", delivery.ErrSSRF, delivery.ErrSSRF} {
		if a := client.Do(t.Context(), post(named(public), patience)); a.Err != want {
			t.Errorf("lookup %d: got %+v, want %q", i, a, want)
		}
	}
	if private.conns.Load() != 0 || public.hits.Load() != 2 {
		t.Errorf("private dialled %d times, public hit %d times", private.conns.Load(), public.hits.Load())
	}
}

func TestMixedAddressesDialThePublicOnes(t *testing.T) {
	t.Parallel()
	many := addrs("127.0.0.1", "10.0.0.1", "127.0.0.2")
	private, public, client := twoHosts(t, 0, many)
	if a := client.Do(t.Context(), post(named(public), patience)); !a.OK() {
		t.Errorf("got %+v", a)
	}
	if private.conns.Load() != 0 || public.hits.Load() != 1 {
		t.Errorf("private dialled %d times, public hit %d times", private.conns.Load(), public.hits.Load())
	}
}

// The socket-level check stands alone too: it refuses what the list of looked-up
// addresses would have let through.
func TestSocketCheck(t *testing.T) {
	t.Parallel()
	r := listen(t, answering("HTTP/1.1 200 OK\r\n\r\n"))
	d := newGuardedDialer(newGuard(nil), nil)
	if _, err := d.race(t.Context(), "tcp", []string{r.addr}); err == nil || !strings.Contains(err.Error(), "not a permitted target") {
		t.Errorf("got %v", err)
	}
	if r.conns.Load() != 0 {
		t.Error("the address was dialled")
	}
}

func TestSecondAddressIsTried(t *testing.T) {
	t.Parallel()
	// Nothing listens on 127.0.0.3, so the first address refuses at once.
	cfg := config(t, "127.0.0.0/8")
	r := listen(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	cfg.Resolver = startNameServer(t, 0, addrs("127.0.0.3", "127.0.0.1"))
	if a := newClient(t, cfg).Do(t.Context(), post(named(r), patience)); !a.OK() {
		t.Errorf("got %+v", a)
	}
}

func TestLookupFailures(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		rcode byte
		word  string
	}{
		{"NXDOMAIN", rcodeNXDomain, "no such host"},
		{"SERVFAIL", rcodeServFail, "name server failed"},
		{"no records", 0, "no such host"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := Config{Resolver: startNameServer(t, tt.rcode)}
			a := newClient(t, cfg).Do(t.Context(), post("https://hooks.example.com/", patience))
			wantErr(t, a, delivery.ErrDNS, "hooks.example.com", tt.word)
			if strings.Contains(a.Message, "127.0.0.1") {
				t.Errorf("message %q names our resolver", a.Message)
			}
		})
	}
}

func TestManyAddresses(t *testing.T) {
	t.Parallel()
	var many []netip.Addr
	for i := range 60 { // as many as fit into a plain UDP answer with room to spare
		many = append(many, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}))
	}
	cfg := Config{Resolver: startNameServer(t, 0, many)}
	wantErr(t, newClient(t, cfg).Do(t.Context(), post("http://hooks.example.com/", patience)), delivery.ErrSSRF)
}

// A resolver that says nothing costs five seconds, not the whole exchange.
func TestSilentResolver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		silent := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		d := newGuardedDialer(newGuard(nil), silent)
		start := time.Now()
		_, err := d.dial(t.Context(), "tcp", "hooks.example.com:443")
		x := exchange{host: "hooks.example.com", parent: t.Context()}
		a := x.failed(t.Context(), delivery.Answer{}, err)
		wantErr(t, a, delivery.ErrDNS, "5s")
		if d := time.Since(start); d != lookupLimit {
			t.Errorf("took %v", d)
		}
	})
}

func TestProxyOfTheEnvironmentIsIgnored(t *testing.T) {
	proxy := listen(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"} {
		t.Setenv(name, "http://"+proxy.addr)
	}
	r := listen(t, answering("HTTP/1.1 204 No Content\r\n\r\n"))
	cfg := config(t, "127.0.0.1")
	cfg.Resolver = startNameServer(t, 0, addrs("127.0.0.1"))
	a := newClient(t, cfg).Do(t.Context(), post(named(r), patience))
	if a.StatusCode != 204 || proxy.conns.Load() != 0 {
		t.Errorf("got %+v, proxy contacted %d times", a, proxy.conns.Load())
	}
}
