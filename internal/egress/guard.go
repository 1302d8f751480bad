package egress

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"code.dny.dev/ssrf"
)

// azureWire is the address of the Azure host's own services. It looks public,
// but from inside Azure it answers with the machine's secrets.
const azureWire = "168.63.129.16/32"

// pastNAT64 lies just behind the NAT64 block and is nobody's private network.
// The library refuses all that is outside 2000::/3, so it is opened by hand.
const pastNAT64 = "64:ff9c::/32"

// guard decides which addresses may be dialled: public ones on the usual ports,
// and whatever the operator opened, but never ourselves. It is immutable.
type guard struct {
	opened    []netip.Prefix
	own       []netip.AddrPort
	httpsOnly bool
	public    *ssrf.Guardian
}

func newGuard(cfg Config) *guard {
	return &guard{
		opened:    cfg.AllowTargets,
		own:       cfg.OwnAddrs,
		httpsOnly: cfg.HTTPSOnly,
		public: ssrf.New(
			ssrf.WithAnyPort(),
			ssrf.WithDeniedV4Prefixes(netip.MustParsePrefix(azureWire)),
			ssrf.WithAllowedV6Prefixes(netip.MustParsePrefix(pastNAT64)),
		),
	}
}

// allows reports whether ap may be dialled. The operator's networks come first
// and are open on every port.
func (g *guard) allows(ap netip.AddrPort) bool {
	addr := ap.Addr().Unmap() // ::ffff:127.0.0.1 is 127.0.0.1 to the kernel
	if g.isOwn(netip.AddrPortFrom(addr, ap.Port())) {
		return false
	}
	if g.opens(addr) {
		return true
	}
	return portAllowed(ap.Port()) && g.public.SafeAddr(addr) == nil
}

// isOwn reports whether ap leads to this program.
func (g *guard) isOwn(ap netip.AddrPort) bool {
	for _, own := range g.own {
		if own.Port() != ap.Port() {
			continue
		}
		addr := own.Addr().Unmap()
		switch {
		case addr == ap.Addr():
			return true
		case addr.IsUnspecified():
			return ofThisMachine(ap.Addr())
		case ap.Addr().IsUnspecified() && addr.IsLoopback():
			return true // the kernel takes no address for loopback
		}
	}
	return false
}

// ofThisMachine asks the kernel each time: addresses come and go while the
// program runs. It is asked about our own port only, so hardly ever.
func ofThisMachine(addr netip.Addr) bool {
	if addr.IsLoopback() || addr.IsUnspecified() {
		return true
	}
	list, err := net.InterfaceAddrs()
	if err != nil {
		return true // not known to be somebody else
	}
	return slices.ContainsFunc(list, func(a net.Addr) bool {
		p, err := netip.ParsePrefix(a.String())
		return err == nil && p.Addr().Unmap() == addr
	})
}

// opens reports whether the operator opened addr.
func (g *guard) opens(addr netip.Addr) bool {
	for _, p := range g.opened {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// portAllowed keeps webhooks away from services that are not HTTP: below 1024
// only 80 and 443, and no well-known databases above.
func portAllowed(port uint16) bool {
	switch port {
	case 80, 443:
		return true
	case 1433, 1521, 3306, 5432, 6379, 11211, 27017:
		return false
	}
	return port >= 1024
}

// ParseNetworks reads a setting such as --allow-targets: networks in CIDR form or
// single addresses, separated by commas. An IPv4 network in IPv6 form means the IPv4
// network. The error quotes the item; whoever calls names the setting.
func ParseNetworks(csv string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for item := range strings.SplitSeq(csv, ",") {
		item = strings.TrimSpace(item)
		if item == "" {
			continue
		}
		p, err := parseNetwork(item)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

func parseNetwork(item string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(item); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(item)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is neither an address nor a network such as 10.0.0.0/8", item)
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, fmt.Errorf("%q mixes IPv4 and IPv6", item)
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}
