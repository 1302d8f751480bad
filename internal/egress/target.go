package egress

import (
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/ticketwire/ticketwire/internal/fault"
)

// CheckVerify checks a webhook's verify_ssl when it is created or changed. The error
// is a *fault.Error of kind Invalid with the path ["verify_ssl"].
func (c Config) CheckVerify(verify bool) error {
	if !verify && c.RefuseInsecureTLS {
		return fault.Field("verify_ssl", "certificates must be verified on this server; trust your own authority with tls.ca_bundle instead")
	}
	return nil
}

// CheckURL checks a webhook's URL when it is created or changed (contract
// section 3.3 and P5) and returns it parsed, with a literal address in its usual
// spelling. It looks nothing up: a name that resolves to a private address
// passes here and is refused at every dial. The error is a *fault.Error of kind
// Invalid with the path ["url"].
func (c Config) CheckURL(raw string) (*url.URL, error) {
	u, bad := newGuard(c).target(raw)
	if bad != nil {
		return nil, fault.Field("url", "%s", bad.msg)
	}
	return u, nil
}

// badTarget is why a URL is not called. Its text is for the caller.
type badTarget struct {
	msg     string
	refused bool // well formed, but a place we do not call
}

// refusedMessage is the same for every refused place, so that the answers do
// not map our network.
const refusedMessage = "Webhook URL must not point to a private, reserved or local address, unless the operator opens its network with serve --allow-targets"

// target parses and checks raw. Only what every parser reads alike is let
// through, because the host decides who gets the data.
func (g *guard) target(raw string) (*url.URL, *badTarget) {
	for _, b := range []byte(raw) {
		if b <= ' ' || b == 0x7f || b == '\\' {
			return nil, &badTarget{msg: "Webhook URL must not contain spaces, control characters or backslashes"}
		}
	}
	u, err := url.Parse(raw)
	if err != nil {
		return nil, &badTarget{msg: "Webhook URL is not a valid URL"}
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil, &badTarget{msg: "Webhook URL must use HTTP or HTTPS protocol"}
	}
	if g.httpsOnly && u.Scheme != "https" {
		return nil, &badTarget{msg: "Webhook URL must use HTTPS on this server", refused: true}
	}
	if u.User != nil {
		return nil, &badTarget{msg: "Webhook URL must not contain a user name or password"}
	}
	port, ok := portOf(u)
	if !ok {
		return nil, &badTarget{msg: "Webhook URL must have a port between 1 and 65535"}
	}
	host := u.Hostname()
	literal, ok := parseHost(host)
	if !ok {
		return nil, &badTarget{msg: "Webhook URL has no valid host; write an international name in its xn-- form"}
	}
	if literal.IsValid() {
		host = literal.String()
	}
	if !g.allowsHost(host, literal, port) {
		return nil, &badTarget{msg: refusedMessage, refused: true}
	}
	if len(g.opened) == 0 && !portAllowed(port) {
		return nil, &badTarget{msg: "Webhook URL must use port 80, 443 or one above 1023 that is not a database's", refused: true}
	}
	switch explicit := u.Port(); {
	case explicit != "":
		u.Host = net.JoinHostPort(host, strconv.Itoa(int(port)))
	case literal.Is6():
		u.Host = "[" + host + "]"
	default:
		u.Host = host
	}
	return u, nil
}

// allowsHost judges a host before any lookup. literal is invalid for a name.
func (g *guard) allowsHost(host string, literal netip.Addr, port uint16) bool {
	if literal.IsValid() {
		return g.allows(netip.AddrPortFrom(literal, port)) ||
			// A public address on a wrong port gets the message about the port.
			g.allows(netip.AddrPortFrom(literal, 443)) && len(g.opened) == 0
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	switch {
	case under(name, "localhost"):
		return g.opens(netip.AddrFrom4([4]byte{127, 0, 0, 1})) || g.opens(netip.IPv6Loopback())
	case name == "metadata.google.internal":
		return g.opens(netip.AddrFrom4([4]byte{169, 254, 169, 254}))
	case under(name, "internal"), under(name, "local"), under(name, "localdomain"), under(name, "home.arpa"):
		// Such names live in private networks. With one opened they may be meant,
		// and the check at the dial decides.
		return g.opensPrivate()
	}
	return true
}

// opensPrivate reports whether the operator opened more than loopback.
func (g *guard) opensPrivate() bool {
	for _, p := range g.opened {
		if !p.Addr().IsLoopback() {
			return true
		}
	}
	return false
}

// under reports whether name is domain or below it.
func under(name, domain string) bool {
	rest, ok := strings.CutSuffix(name, domain)
	return ok && (rest == "" || strings.HasSuffix(rest, "."))
}

// portOf is the port that will be dialled.
func portOf(u *url.URL) (uint16, bool) {
	if u.Port() == "" {
		if u.Scheme == "https" {
			return 443, true
		}
		return 80, true
	}
	n, err := strconv.ParseUint(u.Port(), 10, 16)
	return uint16(n), err == nil && n > 0
}

// parseHost recognises an address in any spelling that some resolver accepts,
// and returns the invalid Addr for a name. It reports false for what is neither.
func parseHost(host string) (netip.Addr, bool) {
	if strings.Contains(host, ":") {
		addr, err := netip.ParseAddr(host)
		return addr.Unmap(), err == nil && addr.Zone() == ""
	}
	host = strings.TrimSuffix(host, ".")
	if len(host) > 253 {
		return netip.Addr{}, false
	}
	labels := strings.Split(host, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, notHostRune) {
			return netip.Addr{}, false
		}
	}
	if !numeric(labels[len(labels)-1]) {
		return netip.Addr{}, true
	}
	// As in the WHATWG URL standard: a host that ends in a number is an IPv4
	// address or nothing.
	return parseIPv4(labels)
}

// notHostRune finds what is in no ASCII host name. Other scripts are refused
// because their digits and dots fold to ASCII in some clients.
func notHostRune(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
}

// numeric reports whether a label is a number as inet_aton reads it.
func numeric(label string) bool {
	if !strings.ContainsFunc(label, func(r rune) bool { return r < '0' || r > '9' }) {
		return true
	}
	_, err := ipv4Part(label)
	return err == nil
}

// parseIPv4 reads one to four parts, the last of which fills the rest of the
// address: 127.1 and 2130706433 are 127.0.0.1.
func parseIPv4(parts []string) (netip.Addr, bool) {
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var addr uint64
	for i, part := range parts {
		n, err := ipv4Part(part)
		last := i == len(parts)-1
		if err != nil || !last && n > 255 || last && n >= 1<<(8*(5-len(parts))) {
			return netip.Addr{}, false
		}
		if last {
			addr |= n
		} else {
			addr |= n << (8 * (3 - i))
		}
	}
	return netip.AddrFrom4([4]byte{byte(addr >> 24), byte(addr >> 16), byte(addr >> 8), byte(addr)}), true
}

// ipv4Part reads a decimal, octal (0...) or hexadecimal (0x...) number.
func ipv4Part(s string) (uint64, error) {
	lower := strings.ToLower(s)
	if rest, ok := strings.CutPrefix(lower, "0x"); ok {
		if rest == "" {
			return 0, nil
		}
		return strconv.ParseUint(rest, 16, 64)
	}
	if len(s) > 1 && s[0] == '0' {
		return strconv.ParseUint(s[1:], 8, 64)
	}
	return strconv.ParseUint(s, 10, 64)
}
