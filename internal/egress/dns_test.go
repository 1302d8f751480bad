package egress

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
)

const (
	rcodeServFail = 2
	rcodeNXDomain = 3

	typeA     = 1
	typeCNAME = 5
	typeAAAA  = 28

	// maxDatagram is what Go's resolver takes over UDP.
	maxDatagram = 1232
)

// record is one answer. Its name is the question's unless it has one.
type record struct {
	name []byte // as in RFC 1035 section 3.1
	kind uint16
	data []byte
}

// startNameServer answers every question of type A from a script: one list of
// addresses per lookup, the last one for all that follow. Each address is of the
// type A or AAAA that it belongs to.
func startNameServer(t *testing.T, rcode byte, script ...[]netip.Addr) *net.Resolver {
	t.Helper()
	var mu sync.Mutex
	return serveNames(t, rcode, func(kind uint16) []record {
		mu.Lock()
		defer mu.Unlock()
		if len(script) == 0 || kind != typeA {
			return nil
		}
		list := script[0]
		if len(script) > 1 {
			script = script[1:]
		}
		return recordsOf(list, typeA)
	})
}

// recordsOf keeps the addresses of one type.
func recordsOf(list []netip.Addr, kind uint16) []record {
	var out []record
	for _, a := range list {
		if a.Is4() == (kind == typeA) {
			out = append(out, record{kind: kind, data: a.AsSlice()})
		}
	}
	return out
}

// serveNames starts a name server on loopback, UDP and TCP, and returns a
// resolver that asks it.
func serveNames(t *testing.T, rcode byte, answer func(kind uint16) []record) *net.Resolver {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp := listen(t, func(_ *receiver, c *net.TCPConn) {
		for {
			var size [2]byte
			if _, err := io.ReadFull(c, size[:]); err != nil {
				return
			}
			query := make([]byte, binary.BigEndian.Uint16(size[:]))
			if _, err := io.ReadFull(c, query); err != nil {
				return
			}
			full := reply(query, rcode, answer)
			c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(full))), full...))
		}
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			full := reply(buf[:n], rcode, answer)
			if len(full) > maxDatagram {
				// Truncated: ask again over TCP.
				full = reply(buf[:n], rcode, func(uint16) []record { return nil })
				full[2] |= 0x02
			}
			pc.WriteTo(full, from)
		}
	})
	t.Cleanup(func() {
		pc.Close()
		wg.Wait()
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		if strings.HasPrefix(network, "tcp") {
			return new(net.Dialer).DialContext(ctx, "tcp", tcp.addr)
		}
		return new(net.Dialer).DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
}

// reply builds an answer as in RFC 1035 section 4.1 with a TTL of 0.
func reply(query []byte, rcode byte, answer func(kind uint16) []record) []byte {
	const header = 12
	end := header
	for query[end] != 0 {
		end += int(query[end]) + 1
	}
	end += 5 // the root label, type and class
	records := answer(binary.BigEndian.Uint16(query[end-4:]))

	out := append([]byte{}, query[:end]...)
	binary.BigEndian.PutUint16(out[2:], 0x8180|uint16(rcode))
	binary.BigEndian.PutUint16(out[6:], uint16(len(records)))
	clear(out[8:header])
	for _, r := range records {
		name := r.name
		if name == nil {
			name = []byte{0xc0, header}
		}
		out = append(out, name...)
		out = binary.BigEndian.AppendUint16(out, r.kind)
		out = append(out, 0, 1, 0, 0, 0, 0)
		out = binary.BigEndian.AppendUint16(out, uint16(len(r.data)))
		out = append(out, r.data...)
	}
	return out
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
	d := newGuardedDialer(newGuard(Config{}), Config{})
	if _, err := d.race(t.Context(), "tcp", []netip.AddrPort{netip.MustParseAddrPort(r.addr)}); err == nil || !strings.Contains(err.Error(), "not a permitted target") {
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

// Names that lead nowhere are failures to look up, soon found.
func TestNamesThatLeadNowhere(t *testing.T) {
	t.Parallel()
	other := []byte("\x05other\x07example\x00")
	loop := []record{
		{kind: typeCNAME, data: other},
		{name: other, kind: typeCNAME, data: []byte{0xc0, 12}},
	}
	tests := []struct {
		name    string
		records []record
	}{
		{"CNAME loop", loop},
		{"CNAME to itself", []record{{kind: typeCNAME, data: []byte{0xc0, 12}}}},
		{"500 links", slices.Repeat(loop, 250)},
		{"an address of another name", []record{{name: other, kind: typeCNAME, data: []byte{1, 2, 3, 4}}}},
		{"an address of three bytes", []record{{kind: typeA, data: []byte{127, 0, 0}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := config(t, "0.0.0.0/0,::/0")
			cfg.Resolver = serveNames(t, 0, func(uint16) []record { return tt.records })
			a := newClient(t, cfg).Do(t.Context(), post("http://hooks.example.com/", patience))
			wantErr(t, a, delivery.ErrDNS, "hooks.example.com")
			if a.Duration > lookupLimit+patience/2 {
				t.Errorf("took %v", a.Duration)
			}
		})
	}
}

// TestPrivateAddressesDoNotHideADeadReceiver has the private address first, as the
// resolver sorts them. Were it tried and refused, the attempt would count as blocked,
// which is final, although the receiver is only down.
func TestPrivateAddressesDoNotHideADeadReceiver(t *testing.T) {
	t.Parallel()
	d := newGuardedDialer(newGuard(Config{}), Config{Resolver: startNameServer(t, 0, addrs("127.0.0.1", "8.8.8.8"))})
	judge := d.net.ControlContext
	var dialled []string
	d.net.ControlContext = func(ctx context.Context, network, address string, c syscall.RawConn) error {
		dialled = append(dialled, address)
		return cmp.Or(judge(ctx, network, address, c), error(syscall.ECONNREFUSED)) // nothing leaves this machine
	}
	_, err := d.dial(t.Context(), "tcp", "hooks.example.com:80")
	if e, ok := errors.AsType[*dialError](err); !ok || e.class != delivery.ErrConnect {
		t.Errorf("got %v, want an error of the connection", err)
	}
	if !slices.Equal(dialled, []string{"8.8.8.8:80"}) {
		t.Errorf("dialled %q", dialled)
	}
}

// Of 500 addresses, which come over TCP, each is checked, and only the first few
// that are permitted are dialled.
func TestManyAddresses(t *testing.T) {
	t.Parallel()
	var private, mixed []netip.Addr
	for i := range 500 {
		private = append(private, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
		mixed = append(mixed, private[i], netip.AddrFrom4([4]byte{127, 0, byte(i >> 8), byte(i)}))
	}
	refused := newClient(t, Config{Resolver: startNameServer(t, 0, private)})
	wantErr(t, refused.Do(t.Context(), post("http://hooks.example.com/", patience)), delivery.ErrSSRF)

	d := newGuardedDialer(newGuard(config(t, "127.0.0.0/8")), Config{Resolver: startNameServer(t, 0, mixed)})
	var dialled atomic.Int32
	d.net.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
		dialled.Add(1)
		if !strings.HasPrefix(address, "127.0.") {
			t.Errorf("%s was dialled", address)
		}
		return syscall.ECONNREFUSED
	}
	if _, err := d.dial(t.Context(), "tcp", "hooks.example.com:80"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v", err)
	}
	if n := dialled.Load(); n != maxAddresses {
		t.Errorf("%d addresses were dialled, want %d", n, maxAddresses)
	}
}

// The addresses of both families are checked, each by itself.
func TestMixedFamilies(t *testing.T) {
	t.Parallel()
	private, public, client := twoHosts(t, 0)
	for _, list := range [][]netip.Addr{
		addrs("::1", "::ffff:127.0.0.1", "fd00::1", "127.0.0.2"),
		addrs("127.0.0.2", "10.0.0.1", "64:ff9b::7f00:1"),
		addrs("127.0.0.1", "::ffff:127.0.0.2"),
	} {
		cfg := config(t, "127.0.0.2")
		cfg.Resolver = serveNames(t, 0, func(kind uint16) []record { return recordsOf(list, kind) })
		if a := newClient(t, cfg).Do(t.Context(), post(named(public), patience)); !a.OK() {
			t.Errorf("%v: got %+v", list, a)
		}
	}
	client.Close()
	if private.conns.Load() != 0 || public.hits.Load() != 3 {
		t.Errorf("private dialled %d times, public hit %d times", private.conns.Load(), public.hits.Load())
	}
}

// No answer tells which ports of a private address are open: not by its class,
// its words or its time, because nothing is dialled.
func TestNoPortScan(t *testing.T) {
	t.Parallel()
	open := listen(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	client := newClient(t, Config{Resolver: startNameServer(t, 0, addrs("127.0.0.1"))})
	for _, url := range []string{
		"http://127.0.0.1:%s/", "https://127.0.0.1:%s/", "http://[::ffff:127.0.0.1]:%s/", "http://2130706433:%s/",
		"http://localhost:%s/", "http://hooks.example.com:%s/", "https://hooks.example.com:%s/",
	} {
		messages := map[string]bool{}
		_, port, _ := net.SplitHostPort(open.addr)
		for _, p := range []string{port, "1", "22", "80", "443", "6379", "65535"} {
			if strings.Contains(url, "example") && !portAllowed(netip.MustParseAddrPort("127.0.0.1:"+p).Port()) {
				continue // refused by its number alone
			}
			a := client.Do(t.Context(), post(fmt.Sprintf(url, p), patience))
			wantErr(t, a, delivery.ErrSSRF)
			messages[strings.ReplaceAll(a.Message, ":"+p, "")] = true
			if a.RemoteAddr.IsValid() {
				t.Errorf("%s port %s: the answer names %v", url, p, a.RemoteAddr)
			}
		}
		if len(messages) != 1 {
			t.Errorf("%s: messages tell ports apart: %v", url, messages)
		}
	}
	if open.conns.Load() != 0 {
		t.Error("a private address was dialled")
	}
}

// A resolver that says nothing, or says it after half a minute, costs five
// seconds, not the whole exchange.
func TestSlowResolver(t *testing.T) {
	t.Parallel()
	for name, dial := range map[string]func(ctx context.Context) (net.Conn, error){
		"unreachable": func(ctx context.Context) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
		"slow": func(context.Context) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				defer theirs.Close()
				io.ReadFull(theirs, make([]byte, 1))
				time.Sleep(30 * time.Second)
				theirs.Write([]byte("late"))
			}()
			return ours, nil
		},
	} {
		t.Run(name, func(t *testing.T) { testSlowResolver(t, dial) })
	}
}

func testSlowResolver(t *testing.T, dial func(context.Context) (net.Conn, error)) {
	synctest.Test(t, func(t *testing.T) {
		slow := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}
		d := newGuardedDialer(newGuard(Config{}), Config{Resolver: slow})
		start := time.Now()
		_, err := d.dial(t.Context(), "tcp", "hooks.example.com:443")
		x := exchange{host: "hooks.example.com", parent: t.Context()}
		a := x.failed(t.Context(), delivery.Answer{}, err)
		wantErr(t, a, delivery.ErrDNS, "5s")
		if d := time.Since(start); d != lookupLimit {
			t.Errorf("took %v", d)
		}
		time.Sleep(time.Minute) // what the resolver began comes to its end
	})
}

// TestProxyOfTheEnvironmentIsIgnored runs itself in a process that begins with the
// variables: net/http reads them once, for whoever asks first.
func TestProxyOfTheEnvironmentIsIgnored(t *testing.T) {
	t.Parallel()
	const begun = "TEST_WITH_PROXY"
	if os.Getenv(begun) != "" {
		r := listen(t, answering("HTTP/1.1 204 No Content\r\n\r\n"))
		cfg := config(t, "127.0.0.1")
		cfg.Resolver = startNameServer(t, 0, addrs("127.0.0.1"))
		if a := newClient(t, cfg).Do(t.Context(), post(named(r), patience)); a.StatusCode != http.StatusNoContent {
			t.Errorf("got %+v", a)
		}
		return
	}
	proxy := listen(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=1m")
	again.Env = append(os.Environ(), begun+"=1")
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"} {
		again.Env = append(again.Env, name+"=http://"+proxy.addr)
	}
	if out, err := again.CombinedOutput(); err != nil || proxy.conns.Load() != 0 {
		t.Errorf("%v, the proxy was contacted %d times\n%s", err, proxy.conns.Load(), out)
	}
}
