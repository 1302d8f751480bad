package egress

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/fault"
)

func config(t testing.TB, csv string) Config {
	t.Helper()
	targets, err := ParseNetworks(csv)
	if err != nil {
		t.Fatal(err)
	}
	return Config{AllowTargets: targets}
}

func TestCheckURLPasses(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"https://hooks.example.com/a?b=c":   "https://hooks.example.com/a?b=c",
		"http://hooks.example.com":          "http://hooks.example.com",
		"HTTPS://Hooks.Example.COM:8443/":   "https://Hooks.Example.COM:8443/",
		"https://hooks.example.com.:443/x":  "https://hooks.example.com.:443/x",
		"http://redis-hooks/":               "http://redis-hooks/",
		"http://xn--mnchen-3ya.example/":    "http://xn--mnchen-3ya.example/",
		"http://my_host.example/":           "http://my_host.example/",
		"http://134744072/":                 "http://8.8.8.8/",
		"http://0x8.8.8.8:08080/":           "http://8.8.8.8:8080/",
		"https://[2606:4700:4700::1111]/":   "https://[2606:4700:4700::1111]/",
		"https://[::ffff:8.8.8.8]:1024/":    "https://8.8.8.8:1024/",
		"https://a.example/%0a?q=%20#frag":  "https://a.example/%0a?q=%20#frag",
		"http://localhost.example.com/":     "http://localhost.example.com/",
		"http://notlocalhost/":              "http://notlocalhost/",
		"http://internal.example.com/":      "http://internal.example.com/",
		"http://1.2.3.4.example.com:65535/": "http://1.2.3.4.example.com:65535/",
	} {
		u, err := Config{}.CheckURL(raw)
		if err != nil {
			t.Errorf("%s: %v", raw, err)
			continue
		}
		if u.String() != want {
			t.Errorf("%s: got %s, want %s", raw, u, want)
		}
	}
}

func TestCheckURLRefusesPrivatePlaces(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{
		"http://2130706433/", "http://0x7f.1/", "http://0x7F000001/", "http://127.1/", "http://0/", "http://0x/",
		"http://017700000001/", "http://0177.0.0.1/", "http://127.0.0.1./", "http://127.0.0.1:8080/x",
		"http://[::ffff:7f00:1]/", "http://[::1]:8080/", "http://[::]/", "http://[fd00:ec2::254]/",
		"http://[64:ff9b::a9fe:a9fe]/", "http://169.254.169.254/latest/meta-data/", "http://168.63.129.16/",
		"http://10.0.0.5/", "http://100.64.0.1/", "http://192.168.0.1/", "http://255.255.255.255/",
		"HTTP://LOCALHOST", "http://localhost./", "http://a.b.localhost/", "http://LocalHost:9000/",
		"http://metadata.google.internal/computeMetadata/", "http://metadata.google.internal./",
		"http://db.internal/", "http://printer.local", "http://localhost.localdomain/", "http://router.home.arpa/",
	} {
		_, err := Config{}.CheckURL(raw)
		if err == nil {
			t.Errorf("%s passes", raw)
			continue
		}
		want := fault.Field("url", refusedMessage)
		if diff := cmp.Diff(want, err); diff != "" {
			t.Errorf("%s (-want +got):\n%s", raw, diff)
		}
	}
}

func TestCheckURLRefusesMalformed(t *testing.T) {
	t.Parallel()
	tests := []struct{ raw, word string }{
		{"", "HTTP or HTTPS"},
		{"//host/x", "HTTP or HTTPS"},
		{"file:///etc/passwd", "HTTP or HTTPS"},
		{"gopher://a.example/", "HTTP or HTTPS"},
		{"ftp://a.example/", "HTTP or HTTPS"},
		{"dict://a.example/", "HTTP or HTTPS"},
		{"unix:///run/docker.sock", "HTTP or HTTPS"},
		{"javascript:alert(1)", "HTTP or HTTPS"},
		{"hooks.example.com/x", "HTTP or HTTPS"},
		{"http://good@127.0.0.1/", "user name"},
		{"http://good:80@127.0.0.1", "user name"},
		{"http://u:p4ssw0rd@hooks.example.com/", "user name"},
		{"http://@hooks.example.com/", "user name"},
		{"http://hooks.exa\tmple.com/", "spaces"},
		{"http://hooks.example.com/\n", "spaces"},
		{"http://hooks.example.com/\r\nX-Evil: 1", "spaces"},
		{" http://hooks.example.com/", "spaces"},
		{"http://hooks.example.com/a b", "spaces"},
		{"http://good\\@127.0.0.1/", "backslash"},
		{"http://hooks.example.com:0/", "port"},
		{"http://hooks.example.com:65536/", "port"},
		{"http://hooks.example.com:99999999999999999999/", "port"},
		{"http://hooks.example.com:22/", "port 80"},
		{"http://8.8.8.8:25/", "port 80"},
		{"http://hooks.example.com:6379/", "port 80"},
		{"http://hooks.example.com:http/", "valid URL"},
		{"http://", "host"},
		{"http:///path", "host"},
		{"http://?x", "host"},
		{"http:hooks.example.com", "host"},
		{"http://./", "host"},
		{"http://a..example/", "host"},
		{"http://1.2.3.4.5/", "host"},
		{"http://1.2.3.256/", "host"},
		{"http://4294967296/", "host"},
		{"http://09.1.1.1/", "host"},
		{"http://[fe80::1%25lo]/", "host"},
		{"http://１２７.0.0.1/", "host"},
		{"http://ⓛocalhost/", "host"},
		{"http://münchen.example/", "xn--"},
		{"http://a,b.example/", "host"},
		{"http://" + strings.Repeat("a.", 127) + "example/", "host"},
		{"http://" + strings.Repeat("a", 64) + ".example/", "host"},
	}
	for _, tt := range tests {
		_, err := Config{}.CheckURL(tt.raw)
		if err == nil {
			t.Errorf("%q passes", tt.raw)
			continue
		}
		f, ok := err.(*fault.Error)
		if !ok || f.Kind != fault.Invalid || len(f.Issues) != 1 || !cmp.Equal(f.Issues[0].Path, []any{"url"}) {
			t.Errorf("%q: not an issue of the field url: %#v", tt.raw, err)
			continue
		}
		if msg := f.Issues[0].Message; !strings.Contains(msg, tt.word) || strings.Contains(msg, "p4ssw0rd") {
			t.Errorf("%q: message %q does not speak of %q", tt.raw, msg, tt.word)
		}
	}
}

func TestCheckURLWithOpenedNetworks(t *testing.T) {
	t.Parallel()
	loopback, intranet := config(t, "127.0.0.0/8,::1"), config(t, "10.0.0.0/8")
	tests := []struct {
		cfg  Config
		raw  string
		pass bool
	}{
		{loopback, "http://127.0.0.1:9000/", true},
		{loopback, "http://127.0.0.1:22/", true},
		{loopback, "http://2130706433:9000/", true},
		{loopback, "http://[::1]:9000/", true},
		{loopback, "http://localhost:9000/", true},
		{loopback, "http://x.localhost.:9000/", true},
		{loopback, "http://10.0.0.5/", false},
		{loopback, "http://metadata.google.internal/", false},
		{loopback, "http://db.internal/", false},
		{loopback, "http://169.254.169.254/", false},
		{intranet, "http://10.0.0.5:81/", true},
		{intranet, "http://hooks.internal:81/", true},
		{intranet, "http://metadata.google.internal/", false},
		{intranet, "http://localhost/", false},
		{intranet, "http://127.0.0.1/", false},
	}
	for _, tt := range tests {
		if _, err := tt.cfg.CheckURL(tt.raw); (err == nil) != tt.pass {
			t.Errorf("%v %s: %v", tt.cfg.AllowTargets, tt.raw, err)
		}
	}
}

// FuzzTarget looks for a URL that passes although its host, read as an address
// in some way, is private.
func FuzzTarget(f *testing.F) {
	for _, s := range []string{"http://127.0.0.1/", "http://0x7f.1:80/", "https://[::1]/", "http://a.example:8080/x?y#z", "http://1.2.3.4."} {
		f.Add(s)
	}
	g := newGuard(Config{})
	f.Fuzz(func(t *testing.T, raw string) {
		u, bad := g.target(raw)
		if bad != nil {
			return
		}
		if addr, err := netip.ParseAddr(u.Hostname()); err == nil && !g.allows(netip.AddrPortFrom(addr, 443)) {
			t.Errorf("%q passes as %s", raw, u)
		}
		if again, bad := g.target(u.String()); bad != nil || again.Host != u.Host {
			t.Errorf("%q passes as %s, which does not pass: %v", raw, u, bad)
		}
	})
}
