package egress

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
)

// Our own listener is out of reach, whatever the operator opened: by address, by
// name, on every address of the machine when it listens on all of them.
func TestOwnAddressIsRefused(t *testing.T) {
	t.Parallel()
	ourselves := listen(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	other := listen(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	_, port, _ := net.SplitHostPort(ourselves.addr)
	for _, own := range []string{ourselves.addr, "0.0.0.0:" + port, "[::]:" + port, "[::ffff:127.0.0.1]:" + port} {
		cfg := config(t, "0.0.0.0/0,::/0")
		cfg.OwnAddrs = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:" + port), netip.MustParseAddrPort(own)}
		cfg.Resolver = startNameServer(t, 0, addrs("127.0.0.1"))
		client := newClient(t, cfg)
		for _, url := range []string{
			"http://127.0.0.1:%s/", "http://[::ffff:127.0.0.1]:%s/", "http://0.0.0.0:%s/", "http://2130706433:%s/",
			"http://hooks.example.com:%s/",
		} {
			url = strings.Replace(url, "%s", port, 1)
			wantErr(t, client.Do(t.Context(), post(url, patience)), delivery.ErrSSRF)
			if _, err := cfg.CheckURL(url); err == nil && !strings.Contains(url, "example") {
				t.Errorf("listening on %s, %s passes", own, url)
			}
		}
		if a := client.Do(t.Context(), post(other.url(), patience)); !a.OK() && a.Err != delivery.ErrConnect {
			t.Errorf("another port of the machine: %+v", a)
		}
	}
	if ourselves.conns.Load() != 0 {
		t.Error("we called ourselves")
	}
	if other.hits.Load() == 0 {
		t.Error("another port of the machine was not called")
	}
}

func TestOwnAddresses(t *testing.T) {
	t.Parallel()
	list, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	everywhere := newGuard(Config{AllowTargets: config(t, "0.0.0.0/0,::/0").AllowTargets, OwnAddrs: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:8080")}})
	for _, a := range list {
		addr := netip.MustParsePrefix(a.String()).Addr()
		if everywhere.allows(netip.AddrPortFrom(addr, 8080)) {
			t.Errorf("%s:8080 may be dialled", addr)
		}
		if !everywhere.allows(netip.AddrPortFrom(addr, 8081)) {
			t.Errorf("%s:8081 is refused", addr)
		}
	}
	if !everywhere.allows(netip.MustParseAddrPort("8.8.8.8:8080")) {
		t.Error("our port on another machine is refused")
	}
	public := newGuard(Config{OwnAddrs: []netip.AddrPort{netip.MustParseAddrPort("8.8.8.8:8080")}})
	if public.allows(netip.MustParseAddrPort("8.8.8.8:8080")) || !public.allows(netip.MustParseAddrPort("8.8.8.8:443")) {
		t.Error("a public address of ours: its own port may be dialled, or another one not")
	}
	loopback := newGuard(Config{AllowTargets: config(t, "0.0.0.0/0,::/0").AllowTargets, OwnAddrs: []netip.AddrPort{netip.MustParseAddrPort("[::1]:8080")}})
	if loopback.allows(netip.MustParseAddrPort("[::]:8080")) || !loopback.allows(netip.MustParseAddrPort("127.0.0.1:8080")) {
		t.Error("listening on ::1: no address may be dialled, or 127.0.0.1 not")
	}
}

func TestHTTPSOnly(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	plain := listen(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	secure := serveTLS(t, serverTLS(ca.certificate(t, 0, nil)), nil)
	cfg := config(t, "127.0.0.1")
	cfg.HTTPSOnly, cfg.RootCAs = true, ca.pool
	client := newClient(t, cfg)
	a := client.Do(t.Context(), post(plain.url(), patience))
	wantErr(t, a, delivery.ErrSSRF, "must use HTTPS")
	if plain.conns.Load() != 0 {
		t.Error("http was spoken")
	}
	if a := client.Do(t.Context(), post(secure.URL, patience)); !a.OK() {
		t.Errorf("https: %+v", a)
	}
	want := fault.Field("url", "Webhook URL must use HTTPS on this server")
	if _, err := cfg.CheckURL("http://hooks.example.com/"); !cmp.Equal(error(want), err) {
		t.Errorf("CheckURL: %v", err)
	}
	if _, err := cfg.CheckURL("https://hooks.example.com/"); err != nil {
		t.Errorf("CheckURL: %v", err)
	}
}
