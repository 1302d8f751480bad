package app

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/ticketwire/ticketwire/internal/egress"
)

// maxHops bounds how many proxies a request is followed through. Real chains have
// three or four; a longer one is somebody who wants to keep the server busy.
const maxHops = 32

// ParseProxies reads --trusted-proxies: networks in CIDR form or single addresses,
// separated by commas. A network of all addresses is an error, since then every
// client could say who he is.
func ParseProxies(csv string) ([]netip.Prefix, error) {
	networks, err := egress.ParseNetworks(csv)
	if err != nil {
		return nil, err
	}
	for _, n := range networks {
		if n.Bits() == 0 {
			return nil, fmt.Errorf("%s is every address, so any client could choose the address that he is counted by; name the proxies only", n)
		}
	}
	return networks, nil
}

// proxies are the networks whose machines tell the truth about whom they ask for.
type proxies []netip.Prefix

// reveal puts the client's address into RemoteAddr, for everything behind it. Nothing
// else that a proxy says is read: scheme and host of links and cookies are those of
// the public URL, which no request can change.
func (p proxies) reveal(next http.Handler) http.Handler {
	if len(p) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := *r // the request itself is the server's (http.Handler)
		seen.RemoteAddr = p.client(r.RemoteAddr, r.Header.Values("X-Forwarded-For"))
		next.ServeHTTP(w, &seen)
	})
}

// client returns address and port of whoever a request comes from: going back from
// peer, the other end of the connection, the first that is no proxy of ours. Each
// proxy adds to the right of X-Forwarded-For whom it was asked by, so what stands left
// of an address is only as true as that address is trusted, and the leftmost entries
// are whatever the client has sent. An entry that is no address ends the way, since
// nobody knows who is meant; then, and when all are proxies, the last address that was
// read is the client. The port is 0 where none was told.
func (p proxies) client(peer string, forwarded []string) string {
	at, ok := hop(peer)
	if !ok { // a test's pipe
		return peer
	}
	rest := strings.Join(forwarded, ",") // several lines are one list (RFC 9110 section 5.2)
	for range maxHops {
		if rest == "" || !p.trust(at.Addr()) {
			break
		}
		comma := strings.LastIndexByte(rest, ',')
		before, ok := hop(strings.Trim(rest[comma+1:], " \t"))
		if !ok {
			break
		}
		at, rest = before, rest[:max(comma, 0)]
	}
	return at.String()
}

func (p proxies) trust(a netip.Addr) bool {
	return slices.ContainsFunc(p, func(n netip.Prefix) bool { return n.Contains(a) })
}

// hop reads an address as proxies write it: alone or with a port, IPv6 with brackets
// or without. A zone is dropped, since it names an interface of another machine.
func hop(text string) (at netip.AddrPort, ok bool) {
	if strings.HasSuffix(text, "]") {
		text += ":0"
	}
	at, err := netip.ParseAddrPort(text)
	if err != nil {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return netip.AddrPort{}, false
		}
		at = netip.AddrPortFrom(a, 0)
	}
	return netip.AddrPortFrom(at.Addr().Unmap().WithZone(""), at.Port()), true
}
