package app

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/ticketwire/ticketwire/internal/egress"
)

// targets says whom webhooks may call, and which way.
func (a *App) targets() egress.Config {
	return egress.Config{
		AllowTargets: a.cfg.AllowTargets, OwnAddrs: a.ownAddrs(),
		HTTPSOnly: a.cfg.HTTPSOnly, RefuseInsecureTLS: a.cfg.VerifyTLS,
		Proxy: a.cfg.EgressProxy, Bind: a.cfg.EgressBind,
		UserAgent: strings.TrimSuffix("Ticketwire/"+a.cfg.Version, "/"), DialContext: a.cfg.DialTarget,
	}
}

// ownAddrs are the addresses that lead back to this program: what it listens on,
// and the public URL if its host is an address. A public name is not among them:
// behind one, other services may stand beside this one.
func (a *App) ownAddrs() []netip.AddrPort {
	var own []netip.AddrPort
	if ap, err := netip.ParseAddrPort(a.Addr()); err == nil { // tests listen on other things
		own = append(own, ap)
	}
	u, err := url.Parse(a.cfg.PublicURL)
	if err != nil {
		return own
	}
	addr, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		return own
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	switch {
	case err == nil:
	case u.Scheme == "https":
		port = 443
	default:
		port = 80
	}
	return append(own, netip.AddrPortFrom(addr, uint16(port)))
}
