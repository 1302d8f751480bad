package egress

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/netip"
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

// ada is who the proxies of these tests know, and adasLine how a head says it.
const (
	ada      = "ada:hunter2@"
	adasLine = "Basic YWRhOmh1bnRlcjI="
)

// connectProxy is a CONNECT proxy.
type connectProxy struct {
	*receiver
	mu    sync.Mutex
	asked []string // targets, in the order they came
	peers []string // who asked, without the port
}

// startProxy starts one that takes clients with the right Proxy-Authorization only,
// over TLS if cfg is not nil.
func startProxy(t *testing.T, cfg *tls.Config, auth string) *connectProxy {
	t.Helper()
	p := new(connectProxy)
	p.receiver = listen(t, func(_ *receiver, raw *net.TCPConn) {
		var c net.Conn = raw
		if cfg != nil {
			secured := tls.Server(raw, cfg)
			if secured.Handshake() != nil || secured.ConnectionState().NegotiatedProtocol == "h2" {
				return // what is below speaks HTTP/1.1
			}
			c = secured
		}
		p.serve(c, auth)
	})
	return p
}

func (p *connectProxy) serve(c net.Conn, auth string) {
	br := bufio.NewReader(c)
	req, err := http.ReadRequest(br)
	if err != nil {
		return
	}
	peer, _, _ := net.SplitHostPort(c.RemoteAddr().String())
	p.mu.Lock()
	p.asked, p.peers = append(p.asked, req.RequestURI), append(p.peers, peer)
	p.mu.Unlock()
	switch {
	case req.Method != http.MethodConnect || req.Host != req.RequestURI:
		io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
		return
	case req.Header.Get("Proxy-Authorization") != auth:
		io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n")
		return
	}
	carry(c, br, req.RequestURI)
}

// carry is a tunnel to addr.
func carry(c net.Conn, br *bufio.Reader, addr string) {
	server, err := net.Dial("tcp", addr)
	if err != nil {
		io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nno!")
		return
	}
	io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
	var wg sync.WaitGroup
	wg.Go(func() {
		io.Copy(server, br)
		server.Close()
	})
	io.Copy(c, server)
	c.Close()
	wg.Wait()
}

// targets returns what was asked for and forgets it.
func (p *connectProxy) targets() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	asked := p.asked
	p.asked = nil
	return asked
}

// through adds a proxy to cfg.
func through(t *testing.T, cfg Config, url string) Config {
	t.Helper()
	p, err := ParseProxy(url)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Proxy = p
	return cfg
}

// wantProxied checks that the exchange went through p to the address of r, and that
// the log of deliveries will show the receiver.
func wantProxied(t *testing.T, a delivery.Answer, p *connectProxy, addr string) {
	t.Helper()
	if !a.OK() || a.RemoteAddr.String() != addr {
		t.Errorf("got %+v, want an answer of %s", a, addr)
	}
	if asked := p.targets(); !slices.Equal(asked, []string{addr}) {
		t.Errorf("the proxy was asked for %q, want %s", asked, addr)
	}
}

// Plain and TLS receivers, with a certificate of ours and without, over proxies of
// both kinds: what runs in the tunnel is what ran without it, and one tunnel carries
// one request after the other.
func TestProxy(t *testing.T) {
	t.Parallel()
	ca, clients := newAuthority(t), newAuthority(t)
	right := clients.clientCertificate(t, "right", nil)
	byName := ca.certificate(t, 0, func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"hooks.example.com"} })
	ofProxy := serverTLS(ca.certificate(t, 0, nil))
	ofProxy.NextProtos = []string{"h2", "http/1.1"}
	for _, scheme := range []string{"http", "https"} {
		for _, user := range []string{"", ada} {
			t.Run(scheme+"://"+user, func(t *testing.T) {
				t.Parallel()
				auth, layer := "", (*tls.Config)(nil)
				if user != "" {
					auth = adasLine
				}
				if scheme == "https" {
					layer = ofProxy
				}
				proxy := startProxy(t, layer, auth)
				cfg := through(t, config(t, "127.0.0.1"), scheme+"://"+user+proxy.addr)
				cfg.RootCAs = ca.pool
				cfg.Resolver = startNameServer(t, 0, addrs("127.0.0.1"))
				client := newClient(t, cfg)

				plain := listen(t, func(r *receiver, c *net.TCPConn) {
					for br := bufio.NewReader(c); r.readRequest(br); {
						io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
					}
				})
				wantProxied(t, client.Do(t.Context(), post(plain.url(), patience)), proxy, plain.addr)
				for range 10 {
					if a := client.Do(t.Context(), post(plain.url(), patience)); !a.OK() || a.RemoteAddr.String() != plain.addr {
						t.Errorf("again: %+v", a)
					}
				}
				if n := plain.conns.Load(); n != 1 || plain.hits.Load() != 11 || proxy.conns.Load() != 1 {
					t.Errorf("%d requests on %d connections, %d of them through the proxy", plain.hits.Load(), n, proxy.conns.Load())
				}

				named := serveTLS(t, serverTLS(byName), nil).Listener.Addr().String()
				a := client.Do(t.Context(), post(strings.Replace("https://"+named, "127.0.0.1", "hooks.example.com", 1), patience))
				wantProxied(t, a, proxy, named)
				if a.Body != "HTTP/2.0" {
					t.Errorf("%s was spoken", a.Body)
				}

				mutual := serveTLS(t, demanding(t, ca, clients, 0), shown)
				a = client.Do(t.Context(), postWith(mutual.URL, right))
				wantProxied(t, a, proxy, mutual.Listener.Addr().String())
				if !strings.HasPrefix(a.Body, `"right"`) {
					t.Errorf("the receiver saw the certificate of %s", a.Body)
				}
				proxy.targets()
				wantErr(t, client.Do(t.Context(), postWith("https://"+named, nil)), delivery.ErrTLS, "cannot validate certificate for 127.0.0.1")
			})
		}
	}
}

// A proxy that leads elsewhere cannot show the receiver's certificate.
func TestProxyInTheMiddle(t *testing.T) {
	t.Parallel()
	ca, strangers := newAuthority(t), newAuthority(t)
	other := serveTLS(t, serverTLS(strangers.certificate(t, 0, nil)), nil).Listener.Addr().String()
	proxy := listen(t, func(_ *receiver, c *net.TCPConn) {
		br := bufio.NewReader(c)
		http.ReadRequest(br)
		carry(c, br, other)
	})
	cfg := through(t, config(t, "127.0.0.1"), "http://"+proxy.addr)
	cfg.RootCAs = ca.pool
	wantErr(t, newClient(t, cfg).Do(t.Context(), post("https://127.0.0.1:4433/", patience)), delivery.ErrTLS, "unknown authority")
}

// The proxy is asked for addresses that were looked up and checked here, and for no
// other; what is refused is refused without a word to it.
func TestProxyTargetsAreChecked(t *testing.T) {
	t.Parallel()
	ok := answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	ourselves, public := listen(t, ok), listenOn(t, "127.0.0.2:0", ok)
	proxy := startProxy(t, nil, "")
	cfg := through(t, config(t, "127.0.0.2"), "http://"+proxy.addr)
	cfg.AllowTargets = append(cfg.AllowTargets, config(t, "127.0.0.1").AllowTargets...)
	cfg.OwnAddrs = []netip.AddrPort{netip.MustParseAddrPort(ourselves.addr)}
	for _, url := range []string{"http://10.0.0.1/", "https://169.254.169.254/", "http://[fd00::1]/", ourselves.url()} {
		wantErr(t, newClient(t, cfg).Do(t.Context(), post(url, patience)), delivery.ErrSSRF)
	}
	cfg.AllowTargets = config(t, "127.0.0.2").AllowTargets // the proxy's own network need not be open
	cfg.Resolver = startNameServer(t, 0,
		addrs("127.0.0.1", "10.0.0.1"), addrs("127.0.0.2"), addrs("127.0.0.1"), addrs("10.0.0.1", "127.0.0.2"), addrs("127.0.0.1"))
	client := newClient(t, cfg)
	for i, want := range []delivery.ErrorType{delivery.ErrSSRF, "", delivery.ErrSSRF, "", delivery.ErrSSRF} {
		if a := client.Do(t.Context(), post(named(public), patience)); a.Err != want {
			t.Errorf("lookup %d: got %+v, want %q", i, a, want)
		}
	}
	if asked := proxy.targets(); !slices.Equal(asked, []string{public.addr, public.addr}) || proxy.conns.Load() != 2 || public.hits.Load() != 2 {
		t.Errorf("%d connections to the proxy, which was asked for %q; the receiver had %d requests", proxy.conns.Load(), asked, public.hits.Load())
	}
	cfg.Resolver = startNameServer(t, rcodeNXDomain, nil)
	wantErr(t, newClient(t, cfg).Do(t.Context(), post("http://hooks.example.com/", patience)), delivery.ErrDNS)
	if ourselves.conns.Load() != 0 || proxy.conns.Load() != 2 {
		t.Error("something else was called")
	}
}

// Whatever a proxy does, the exchange ends, and the message says that it was the
// proxy. It does not repeat what the proxy said: that may be our password.
func TestHostileProxies(t *testing.T) {
	t.Parallel()
	echo := " hunter2 " + strings.TrimPrefix(adasLine, "Basic ")
	tests := map[string]struct {
		answer string
		end    func(r *receiver, c *net.TCPConn)
		class  delivery.ErrorType
		words  string
	}{
		"403":            {"HTTP/1.1 403" + echo + "\r\nX: " + echo + "\r\n\r\n" + echo, nil, delivery.ErrConnect, "the egress proxy answered CONNECT with status 403"},
		"407":            {"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\n\r\n", nil, delivery.ErrConnect, "status 407"},
		"502":            {"HTTP/1.0 502 Bad Gateway\r\nContent-Length: 999999\r\n\r\n", nil, delivery.ErrConnect, "status 502"},
		"a redirect":     {"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\n\r\n", nil, delivery.ErrConnect, "status 302"},
		"101":            {"HTTP/1.1 101 Switching Protocols\r\n\r\n", nil, delivery.ErrConnect, "status 101"},
		"no such status": {"HTTP/1.1 099 Odd\r\n\r\n", nil, delivery.ErrConnect, "status 99"},
		"garbage":        {"\x05\x00" + echo + "\r\n\r\n", nil, delivery.ErrConnect, "is not valid HTTP"},
		"a bad header":   {"HTTP/1.1 200 OK\r\n" + echo + "\r\n\r\n", nil, delivery.ErrConnect, "is not valid HTTP"},
		"close":          {"", nil, delivery.ErrConnect, "the egress proxy closed the connection"},
		"reset":          {"", func(_ *receiver, c *net.TCPConn) { reset(c) }, delivery.ErrConnect, "the egress proxy closed the connection"},
		"half a head":    {"HTTP/1.1 200 OK\r\nX: ", nil, delivery.ErrConnect, "the egress proxy closed the connection"},
		"silence":        {"", func(_ *receiver, c *net.TCPConn) { untilClosed(c) }, delivery.ErrTimeout, "connecting"},
		"200 and stop":   {"HTTP/1.1 200 OK\r\nX: y\r\n", func(_ *receiver, c *net.TCPConn) { untilClosed(c) }, delivery.ErrTimeout, "connecting"},
		"1xx and stop":   {"HTTP/1.1 100 Continue\r\n\r\n", func(_ *receiver, c *net.TCPConn) { untilClosed(c) }, delivery.ErrTimeout, "connecting"},
		"endless header": {"HTTP/1.1 200 OK\r\n", endless("X-Pad: " + echo + "\r\n"), delivery.ErrConnect, "a head of more than 16384 bytes"},
		"endless line":   {"HTTP/1.1 ", endless("2"), delivery.ErrConnect, "a head of more than 16384 bytes"},
		"endless 1xx":    {"", endless("HTTP/1.1 102 Processing\r\n\r\n"), delivery.ErrConnect, "a head of more than 16384 bytes"},
		"closed tunnel":  {"HTTP/1.1 200 OK\r\n\r\n", nil, delivery.ErrConnect, "broke while"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proxy := listen(t, func(r *receiver, c *net.TCPConn) {
				http.ReadRequest(bufio.NewReader(c))
				io.WriteString(c, tt.answer)
				if tt.end != nil {
					tt.end(r, c)
				}
			})
			limit := patience
			if tt.class == delivery.ErrTimeout {
				limit = impatience
			}
			client := newClient(t, through(t, Config{}, "http://"+ada+proxy.addr))
			a := client.Do(t.Context(), post("http://8.8.8.8/hook", limit))
			wantErr(t, a, tt.class, "8.8.8.8", tt.words)
			for _, secret := range []string{"hunter2", strings.Fields(echo)[1], proxy.addr} {
				if strings.Contains(a.Message, secret) {
					t.Errorf("message %q holds %q", a.Message, secret)
				}
			}
			if a.Duration > patience/2 {
				t.Errorf("took %v", a.Duration)
			}
		})
	}
}

// endless writes text until nobody takes it.
func endless(text string) func(*receiver, *net.TCPConn) {
	return func(_ *receiver, c *net.TCPConn) {
		for chunk := strings.Repeat(text, 100); ; {
			if _, err := io.WriteString(c, chunk); err != nil {
				return
			}
		}
	}
}

func TestProxyCannotBeReached(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	gone := listen(t, func(*receiver, *net.TCPConn) {})
	plain := listen(t, func(_ *receiver, c *net.TCPConn) { io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") })
	secure := startProxy(t, serverTLS(ca.certificate(t, 0, nil)), "")
	for url, words := range map[string]string{
		"http://127.0.0.3:1":       "connection refused", // nothing listens there
		"http://proxy.example.com": "its name cannot be looked up",
		"https://" + plain.addr:    "TLS with it failed",
		"https://" + gone.addr:     "",
		"https://" + secure.addr:   "TLS with it failed", // nobody trusts its authority
	} {
		cfg := through(t, Config{Resolver: startNameServer(t, rcodeNXDomain, nil)}, strings.Replace(url, "://", "://"+ada, 1))
		a := newClient(t, cfg).Do(t.Context(), post("http://8.8.8.8/hook", patience))
		wantErr(t, a, delivery.ErrConnect, "connect to 8.8.8.8: the egress proxy cannot be reached: ", words)
		if strings.Contains(a.Message, "hunter2") || strings.Contains(a.Message, "127.0.0.1") || strings.Contains(a.Message, "proxy.example") {
			t.Errorf("message %q says too much", a.Message)
		}
	}
	if len(secure.targets()) != 0 {
		t.Error("a proxy that nobody trusts was asked for something, with our password")
	}
}

// A proxy that does not answer the dial, or TLS, is found out after five seconds, and
// once: not for each address of the receiver.
func TestDeadProxy(t *testing.T) {
	t.Parallel()
	for url, dial := range map[string]connectFunc{
		"http://192.0.2.1": func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
		"https://192.0.2.1": func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go io.Copy(io.Discard, theirs)
			return ours, nil
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			d := newGuardedDialer(newGuard(Config{}), through(t, Config{}, url))
			d.proxy.dial = dial
			start := time.Now()
			_, err := d.race(t.Context(), "tcp", []netip.AddrPort{netip.MustParseAddrPort("8.8.8.8:80"), netip.MustParseAddrPort("8.8.4.4:80")})
			x := exchange{host: "hooks.example.com", parent: t.Context()}
			a := x.failed(t.Context(), delivery.Answer{}, &dialError{delivery.ErrConnect, err})
			wantErr(t, a, delivery.ErrConnect, "the egress proxy cannot be reached: no answer within 5s")
			if took := time.Since(start); took != proxyLimit {
				t.Errorf("took %v", took)
			}
		})
	}
}

// A head that comes a byte a second runs over the limit of the exchange, and the dial
// ends soon after it.
func TestProxyByDrops(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		d := newGuardedDialer(newGuard(Config{}), through(t, Config{}, "http://192.0.2.1"))
		d.proxy.dial = func(context.Context, string, string) (net.Conn, error) { return ours, nil }
		go func() {
			http.ReadRequest(bufio.NewReader(theirs))
			for _, b := range []byte("HTTP/1.1 200 " + strings.Repeat("x", 100)) {
				if _, err := theirs.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
			t.Error("all of it was read")
		}()
		client := New(Config{DialContext: d.dial})
		defer client.Close()
		a := client.Do(t.Context(), post("http://8.8.8.8/", 0))
		wantErr(t, a, delivery.ErrTimeout, "connecting")
		if a.Duration != DefaultTimeout {
			t.Errorf("took %v", a.Duration)
		}
		time.Sleep(dialLimit + time.Second)
	})
}

// A receiver's next address is asked for when the proxy cannot reach the first, and
// not when it is us that it does not take.
func TestProxyAndSeveralAddresses(t *testing.T) {
	t.Parallel()
	r := listenOn(t, "127.0.0.2:0", answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	for user, want := range map[string]int{ada: 2, "": 1} {
		proxy := startProxy(t, nil, adasLine)
		cfg := through(t, config(t, "127.0.0.0/8"), "http://"+user+proxy.addr)
		cfg.Resolver = startNameServer(t, 0, addrs("127.0.0.3", "127.0.0.2")) // nothing listens on the first
		a := newClient(t, cfg).Do(t.Context(), post(named(r), patience))
		if asked := proxy.targets(); len(asked) != want || a.OK() != (user == ada) {
			t.Errorf("as %q: asked for %q, got %+v", user, asked, a)
		}
	}
}

// A proxy that fails for one address of a receiver does not break off the way to
// another that is under way.
func TestProxyFailsBesideASlowAddress(t *testing.T) {
	t.Parallel()
	r := listenOn(t, "127.0.0.2:0", answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	var asked atomic.Int64
	refused := make(chan struct{})
	proxy := listen(t, func(_ *receiver, c *net.TCPConn) {
		head := bufio.NewReader(c)
		http.ReadRequest(head)
		if asked.Add(1) > 1 {
			io.WriteString(c, "HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")
			untilClosed(c)
			close(refused)
			return
		}
		<-refused
		c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) // whoever breaks off does so by then
		head.Peek(1)
		c.SetReadDeadline(time.Time{})
		io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")(r, c)
	})
	cfg := through(t, config(t, "127.0.0.0/8"), "http://"+proxy.addr)
	cfg.Resolver = startNameServer(t, 0, addrs("127.0.0.2", "127.0.0.3", "127.0.0.4"))
	if a := newClient(t, cfg).Do(t.Context(), post(named(r), patience)); !a.OK() || asked.Load() != 2 {
		t.Errorf("asked %d times, got %+v", asked.Load(), a)
	}
}

// What comes in one packet with the head of the answer belongs to the receiver, as
// does what comes after interim answers.
func TestProxyEarlyBytes(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("early", 2<<10)
	for _, head := range []string{"HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nX: y\r\n\r\nHTTP/1.0 204 Yes\r\nContent-Length: 7\r\n\r\n"} {
		proxy := listen(t, func(_ *receiver, c *net.TCPConn) {
			http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, head+big)
			io.Copy(c, c)
		})
		d := newGuardedDialer(newGuard(Config{}), through(t, Config{}, "http://"+proxy.addr))
		conn, err := d.dial(t.Context(), "tcp", "8.8.8.8:443")
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(patience))
		io.WriteString(conn, "late")
		got := make([]byte, len(big)+len("late"))
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != big+"late" {
			t.Errorf("%v, got %d bytes: %.20q", err, len(got), got)
		}
		conn.Close()
	}
}

// Whoever waits for a proxy can be stopped, and what it began ends.
func TestProxyInterrupted(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	left := make(chan struct{})
	proxy := listen(t, func(_ *receiver, c *net.TCPConn) {
		http.ReadRequest(bufio.NewReader(c))
		stop()
		untilClosed(c)
		close(left)
	})
	client := newClient(t, through(t, Config{}, "http://"+proxy.addr))
	if a := client.Do(ctx, post("http://8.8.8.8/", patience)); !a.Interrupted || a.Duration > patience/2 {
		t.Errorf("got %+v", a)
	}
	client.Close()
	<-left
}

func TestBind(t *testing.T) {
	t.Parallel()
	var from atomic.Value
	r := listen(t, func(r *receiver, c *net.TCPConn) {
		from.Store(c.RemoteAddr().(*net.TCPAddr).IP.String())
		answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")(r, c)
	})
	cfg := config(t, "127.0.0.1,::1")
	var err error
	if cfg.Bind, err = ParseBind("::ffff:127.0.0.2"); err != nil {
		t.Fatal(err)
	}
	cfg.Resolver = startNameServer(t, 0, addrs("127.0.0.1"))
	if a := newClient(t, cfg).Do(t.Context(), post(named(r), patience)); !a.OK() || from.Load() != "127.0.0.2" {
		t.Errorf("from %v: %+v", from.Load(), a)
	}
	wantErr(t, newClient(t, cfg).Do(t.Context(), post("http://10.0.0.1/", patience)), delivery.ErrSSRF)
	wantErr(t, newClient(t, cfg).Do(t.Context(), post("http://[::1]:8080/", patience)), delivery.ErrConnect, "no address of the family of the server's --egress-bind")

	proxy := startProxy(t, nil, "")
	a := newClient(t, through(t, cfg, "http://"+proxy.addr)).Do(t.Context(), post(r.url(), patience))
	wantProxied(t, a, proxy, r.addr)
	if !slices.Equal(proxy.peers, []string{"127.0.0.2"}) || from.Load() != "127.0.0.1" {
		t.Errorf("from %q to the proxy, from %v to the receiver", proxy.peers, from.Load())
	}
	// What the proxy can reach is its own business.
	d := newGuardedDialer(newGuard(cfg), through(t, cfg, "http://[::1]:3128"))
	if _, err := d.dial(t.Context(), "tcp", "[::1]:80"); !isFinal(err) || !strings.Contains(err.Error(), "no connection") {
		t.Errorf("got %v", err)
	}

	cfg = config(t, "127.0.0.1")
	cfg.Bind = netip.MustParseAddr("192.0.2.1") // was ours when the program began
	wantErr(t, newClient(t, cfg).Do(t.Context(), post(r.url(), patience)), delivery.ErrConnect, syscall.EADDRNOTAVAIL.Error())
}

func TestParseBind(t *testing.T) {
	t.Parallel()
	for raw, words := range map[string]string{
		"eth0": "is not an IP address", "127.0.0.1:80": "is not an IP address", "": "is not an IP address", "10.0.0.0/8": "is not an IP address",
		"0.0.0.0": "is not an IP address", "::": "is not an IP address",
		"::1%lo":    "is not an IP address",
		"192.0.2.1": "is not an address of this machine", "2001:db8::1": "is not an address of this machine",
		"224.0.0.1": "is not an address of this machine", "255.255.255.255": "is not an address of this machine",
		"127.255.255.255": "is not an address of this machine",
	} {
		if addr, err := ParseBind(raw); err == nil || !strings.Contains(err.Error(), words) || addr.IsValid() {
			t.Errorf("%q: %v, %v", raw, addr, err)
		}
	}
}

func TestParseProxy(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]Proxy{
		"http://proxy.example.com":                       {"proxy.example.com:80", "proxy.example.com", false, ""},
		"https://proxy.example.com./":                    {"proxy.example.com.:443", "proxy.example.com", true, ""},
		"http://[fd00::1]:3128":                          {"[fd00::1]:3128", "fd00::1", false, ""},
		"http://ada:hunter2@10.1.0.4:3128":               {"10.1.0.4:3128", "10.1.0.4", false, "Proxy-Authorization: " + adasLine + "\r\n"},
		"http://ada%40x:p%3A%2F%0D%0A@proxy.example.com": {"proxy.example.com:80", "proxy.example.com", false, "Proxy-Authorization: Basic YWRhQHg6cDovDQo=\r\n"},
	} {
		if got, err := ParseProxy(raw); err != nil || *got != want {
			t.Errorf("%q: %+v, %v", raw, got, err)
		}
	}
	for raw, words := range map[string]string{
		"proxy:3128": "must be an http or https URL", "10.1.0.4:3128": "not a valid URL", "socks5://ada:hunter2@proxy": "must be an http or https URL",
		"http://": "has no host", "http://:3128": "has no host", "http://ada:hunter2@proxy:0": "port between", "http://proxy:70000": "port between",
		"http://proxy/hunter2": "must end after the port", "http://proxy?hunter2": "must end after the port", "http://proxy#hunter2": "must end after the port",
		"http://hunter2@proxy": "belong together", "http://ada:@proxy": "belong together", "http://:hunter2@proxy": "belong together",
		"http://a%3Ab:hunter2@proxy": "a colon", "http://ada:hunter2%@proxy": "not a valid URL", "http://ada:hunter2/@proxy": "not a valid URL",
	} {
		if _, err := ParseProxy(raw); err == nil || !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", raw, err)
		}
	}
}
