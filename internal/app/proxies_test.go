package app

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// trustedProxies are those of the tests below.
func trustedProxies(t testing.TB) proxies {
	t.Helper()
	networks, err := ParseProxies("10.0.0.0/8,2001:db8:1::/48, ::ffff:192.168.7.1 ,fe80::/10")
	if err != nil {
		t.Fatal(err)
	}
	return networks
}

func TestClientBehindProxies(t *testing.T) {
	t.Parallel()
	trusted := trustedProxies(t)
	tests := []struct {
		name      string
		peer      string
		forwarded []string
		want      string
	}{
		{"no header", "10.0.0.1:5000", nil, "10.0.0.1:5000"},
		{"an empty header", "10.0.0.1:5000", []string{""}, "10.0.0.1:5000"},
		{"nobody trusts the peer", "192.0.2.1:5000", []string{"198.51.100.1"}, "192.0.2.1:5000"},
		{"nobody trusts the peer, who names a proxy", "192.0.2.1:5000", []string{"198.51.100.1, 10.0.0.2"}, "192.0.2.1:5000"},
		{"one proxy", "10.0.0.1:5000", []string{"192.0.2.1"}, "192.0.2.1:0"},
		{"one proxy, and what the client made up", "10.0.0.1:5000", []string{"198.51.100.1, 10.0.0.3,192.0.2.1"}, "192.0.2.1:0"},
		{"three proxies", "10.0.0.1:5000", []string{"192.0.2.1, 10.0.0.3\t, \t10.0.0.2"}, "192.0.2.1:0"},
		{"three proxies, a line each", "10.0.0.1:5000", []string{"198.51.100.1", "192.0.2.1", "10.0.0.3", "10.0.0.2"}, "192.0.2.1:0"},
		{"proxies only", "10.0.0.1:5000", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3:0"},
		{"what is no address ends the way at the proxy", "10.0.0.1:5000", []string{"192.0.2.1, unknown, 10.0.0.2"}, "10.0.0.2:0"},
		{"what is no address ends the way at the peer", "10.0.0.1:5000", []string{"192.0.2.1, unix:"}, "10.0.0.1:5000"},
		{"an entry that is empty", "10.0.0.1:5000", []string{"192.0.2.1,,10.0.0.2"}, "10.0.0.2:0"},
		{"an entry that is empty, at the end", "10.0.0.1:5000", []string{"192.0.2.1,"}, "10.0.0.1:5000"},
		{"an entry that is empty, at the front", "10.0.0.1:5000", []string{",10.0.0.2"}, "10.0.0.2:0"},
		{"left of the client anything may stand", "10.0.0.1:5000", []string{"<script>,,[::, 192.0.2.1"}, "192.0.2.1:0"},
		{"ports", "10.0.0.1:5000", []string{"192.0.2.1:1234, 10.0.0.2:443"}, "192.0.2.1:1234"},
		{"a port that is none", "10.0.0.1:5000", []string{"192.0.2.1:65536"}, "10.0.0.1:5000"},
		{"a port that is missing", "10.0.0.1:5000", []string{"192.0.2.1:"}, "10.0.0.1:5000"},
		{"IPv6", "[2001:db8:1::1]:5000", []string{"2001:db8:2::1, 2001:db8:1::2"}, "[2001:db8:2::1]:0"},
		{"IPv6 in brackets", "[2001:db8:1::1]:5000", []string{"[2001:db8:2::1], [2001:db8:1::2]"}, "[2001:db8:2::1]:0"},
		{"IPv6 with ports", "[2001:db8:1::1]:5000", []string{"[2001:db8:2::1]:1234, [2001:db8:1::2]:443"}, "[2001:db8:2::1]:1234"},
		{"IPv6 half in brackets", "10.0.0.1:5000", []string{"[2001:db8:2::1"}, "10.0.0.1:5000"},
		{"IPv6 half in brackets, the other", "10.0.0.1:5000", []string{"2001:db8:2::1]"}, "10.0.0.1:5000"},
		{"IPv4 in brackets", "10.0.0.1:5000", []string{"[192.0.2.1]"}, "10.0.0.1:5000"},
		{"IPv4 as IPv6", "[::ffff:10.0.0.1]:5000", []string{"::ffff:192.0.2.1, ::ffff:a00:2"}, "192.0.2.1:0"},
		{"a proxy listed as IPv6", "192.168.7.1:5000", []string{"192.0.2.1"}, "192.0.2.1:0"},
		{"a zone", "[fe80::1%eth0]:5000", []string{"2001:db8:2::1, fe80::2%eth1"}, "[2001:db8:2::1]:0"},
		{"a peer without address", "pipe", []string{"192.0.2.1"}, "pipe"},
		{
			"as many proxies as are followed", "10.0.0.1:5000",
			[]string{"192.0.2.1" + strings.Repeat(",10.0.0.2", maxHops-1)}, "192.0.2.1:0",
		},
		{
			"more proxies than are followed", "10.0.0.1:5000",
			[]string{"192.0.2.1" + strings.Repeat(",10.0.0.2", maxHops)}, "10.0.0.2:0",
		},
	}
	for _, tt := range tests {
		if got := trusted.client(tt.peer, tt.forwarded); got != tt.want {
			t.Errorf("%s: %s with %q comes from %s, want %s", tt.name, tt.peer, tt.forwarded, got, tt.want)
		}
	}
}

// Where somebody is trusted, handlers see the client, and the request of the server
// stays as it is. Where nobody is, they see what came.
func TestRevealLeavesTheRequest(t *testing.T) {
	t.Parallel()
	for want, trusted := range map[string]proxies{"192.0.2.1:0": trustedProxies(t), "10.0.0.1:5000": nil} {
		var seen string
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.RemoteAddr = "10.0.0.1:5000"
		r.Header.Set("x-forwarded-for", "192.0.2.1")
		trusted.reveal(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			seen = r.RemoteAddr
		})).ServeHTTP(httptest.NewRecorder(), r)
		if seen != want || r.RemoteAddr != "10.0.0.1:5000" {
			t.Errorf("the handler sees %s, want %s; the server has %s", seen, want, r.RemoteAddr)
		}
	}
}

// FuzzClient builds a chain of proxies behind a client, which sends a header of its
// own, and looks for one that hides the client or makes another of him.
func FuzzClient(f *testing.F) {
	// What a hop may be written as, and who that is. Of each kind some are trusted,
	// some not, and the last are nobody.
	forms := []struct{ text, addr string }{
		{"10.0.0.2", "10.0.0.2"}, {"10.255.0.1:80", "10.255.0.1"}, {" [2001:db8:1::7]", "2001:db8:1::7"}, {"::ffff:10.1.1.1\t", "10.1.1.1"},
		{"192.0.2.1", "192.0.2.1"}, {"203.0.113.9:65535", "203.0.113.9"}, {"[2001:db8:2::7]:1", "2001:db8:2::7"}, {"::ffff:198.51.100.1", "198.51.100.1"},
		{"", ""}, {"unknown", ""}, {"_hidden", ""}, {"10.0.0", ""}, {"for=192.0.2.1", ""}, {"192.0.2.1 10.0.0.1", ""}, {"10.0.0.0/8", ""}, {"010.0.0.1", ""},
	}
	f.Add("", []byte{})
	f.Add("198.51.100.1, 10.0.0.9", []byte{4, 0, 1})
	f.Add("192.0.2.77", []byte{2, 3})
	f.Add("[::1\n,,,10.0.0.1", []byte{9, 4, 128, 3})
	f.Add(strings.Repeat("10.0.0.1,", 2*maxHops), []byte{6})
	trusted := trustedProxies(f)
	const peer = "10.0.0.1"
	f.Fuzz(func(t *testing.T, sent string, chain []byte) {
		lines := strings.Split(sent, "\n")
		for _, b := range chain {
			text := forms[b%16].text
			if b >= 128 { // some proxies add a line, others to the last one
				lines = append(lines, text)
			} else {
				lines[len(lines)-1] += "," + text
			}
		}
		// Who it is, by the chain alone, as far as the chain tells.
		want, told := peer, false
		for i, b := range slices.Backward(chain) {
			addr := forms[b%16].addr
			if addr == "" || len(chain)-i > maxHops {
				told = true
				break
			}
			want = addr
			if b%16 >= 4 {
				told = true
				break
			}
		}
		text := trusted.client(peer+":5000", lines)
		got, err := netip.ParseAddrPort(text)
		if err != nil {
			t.Fatalf("%q comes from %q, which is no address", lines, text)
		}
		if told && got.Addr().String() != want {
			t.Errorf("%q comes from %s, want %s", lines, got, want)
		}
		// All of the chain are proxies, so the client is the last whom the header names.
		entries := strings.FieldsFunc(sent, func(r rune) bool { return r == ',' || r == '\n' })
		if told || len(chain) >= maxHops || len(entries) == 0 || !strings.HasSuffix(sent, entries[len(entries)-1]) {
			return
		}
		if a, err := netip.ParseAddr(entries[len(entries)-1]); err == nil && got.Addr() != a.Unmap().WithZone("") && !trusted.trust(a.Unmap().WithZone("")) {
			t.Errorf("%q comes from %s, want %s", lines, got, a)
		}
	})
}
