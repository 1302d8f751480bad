package egress

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestGuardRefusesReservedAddresses(t *testing.T) {
	t.Parallel()
	g := newGuard(Config{})
	for _, s := range []string{
		"0.0.0.0", "0.1.2.3", "10.0.0.5", "100.64.0.1", "127.0.0.1", "127.254.254.254",
		"169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1",
		"192.168.0.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1",
		"239.255.255.255", "240.0.0.1", "255.255.255.255", "192.88.99.1", "168.63.129.16",
		"::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:169.254.169.254",
		"::ffff:0:127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b::808:808", "64:ff9b:1::1", "100::1",
		"2001::1", "2001:db8::1", "2002:7f00:1::", "3fff::1", "fc00::1", "fd00:ec2::254",
		"fe80::1", "fe80::1%lo", "fec0::1", "ff02::1", "2606:4700:4700::1111%lo",
	} {
		if g.allows(netip.AddrPortFrom(netip.MustParseAddr(s), 443)) {
			t.Errorf("%s may be dialled", s)
		}
	}
	if g.allows(netip.AddrPort{}) {
		t.Error("no address at all may be dialled")
	}
}

func TestGuardLetsPublicAddressesPass(t *testing.T) {
	t.Parallel()
	g := newGuard(Config{})
	for _, s := range []string{
		"9.255.255.255", "11.0.0.0", "100.63.255.254", "100.128.0.1", "172.15.255.255", "172.32.0.0",
		"192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255",
		"::ffff:8.8.8.8", "2001:4860:4860::8888", "2606:4700:4700::1111", "64:ff9c::1",
	} {
		for _, port := range []uint16{80, 443, 1024, 8080, 65535} {
			if !g.allows(netip.AddrPortFrom(netip.MustParseAddr(s), port)) {
				t.Errorf("%s port %d is refused", s, port)
			}
		}
	}
}

func TestGuardPorts(t *testing.T) {
	t.Parallel()
	public := netip.MustParseAddr("8.8.8.8")
	for _, port := range []uint16{0, 1, 22, 25, 53, 79, 81, 444, 1023, 3306, 5432, 6379, 11211, 27017} {
		if newGuard(Config{}).allows(netip.AddrPortFrom(public, port)) {
			t.Errorf("port %d of a public address may be dialled", port)
		}
	}
	opened := newGuard(Config{AllowTargets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	if !opened.allows(netip.MustParseAddrPort("10.1.2.3:81")) {
		t.Error("an opened network is not open on port 81")
	}
	if opened.allows(netip.AddrPortFrom(public, 81)) {
		t.Error("opening one network opened port 81 of others")
	}
}

func TestGuardOpensOnlyWhatIsListed(t *testing.T) {
	t.Parallel()
	targets, err := ParseNetworks("10.0.0.0/8, 127.0.0.1,fd00::/8,::ffff:192.168.7.0/120,168.63.129.16")
	if err != nil {
		t.Fatal(err)
	}
	g := newGuard(Config{AllowTargets: targets})
	for s, want := range map[string]bool{
		"10.255.255.255": true, "::ffff:10.0.0.1": true, "127.0.0.1": true, "fd00:ec2::254": true,
		"192.168.7.255": true, "168.63.129.16": true, "8.8.8.8": true,
		"127.0.0.2": false, "11.0.0.0": true, "172.16.0.1": false, "192.168.8.0": false, "fc00::1": false, "::1": false,
	} {
		if got := g.allows(netip.AddrPortFrom(netip.MustParseAddr(s), 443)); got != want {
			t.Errorf("%s: allowed = %v, want %v", s, got, want)
		}
	}
}

func TestParseNetworks(t *testing.T) {
	t.Parallel()
	tests := []struct {
		csv  string
		want []string
	}{
		{"", nil},
		{" , ", nil},
		{"127.0.0.1", []string{"127.0.0.1/32"}},
		{"::1", []string{"::1/128"}},
		{"10.1.2.3/8,fd12::1/16", []string{"10.0.0.0/8", "fd12::/16"}},
		{"::ffff:10.0.0.0/104", []string{"10.0.0.0/8"}},
		{"0.0.0.0/0,::/0", []string{"0.0.0.0/0", "::/0"}},
	}
	for _, tt := range tests {
		got, err := ParseNetworks(tt.csv)
		if err != nil {
			t.Errorf("%q: %v", tt.csv, err)
			continue
		}
		var text []string
		for _, p := range got {
			text = append(text, p.String())
		}
		if diff := cmp.Diff(tt.want, text); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tt.csv, diff)
		}
	}
	for _, csv := range []string{"10.0.0.0/33", "localhost", "10.0.0", "fe80::1%lo", "10.0.0.0/8;127.0.0.1", "::ffff:0.0.0.0/95"} {
		if got, err := ParseNetworks(csv); err == nil {
			t.Errorf("%q was read as %v", csv, got)
		}
	}
}
