package mail

import (
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/ticketwire/ticketwire/internal/fault"
)

// tlsMode is how a session becomes encrypted.
type tlsMode int

const (
	tlsStartTLS      tlsMode = iota // mandatory upgrade
	tlsOpportunistic                // upgrade if the server offers it
	tlsNone
	tlsImplicit // smtps://
)

// server is the parsed smtp-url.
type server struct {
	host     string
	port     int
	user     string // "" for no login
	password string
	tls      tlsMode
}

func (s server) addr() string { return net.JoinHostPort(s.host, strconv.Itoa(s.port)) }

// loopback reports whether the server is on this machine.
func (s server) loopback() bool {
	addr, err := netip.ParseAddr(s.host)
	return strings.EqualFold(s.host, "localhost") || err == nil && addr.IsLoopback()
}

// parseServer never quotes raw in an error, since it may hold a password.
func parseServer(raw string) (server, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return server{}, fault.New(fault.Invalid, "smtp-url: not a valid URL; expected smtp://user:password@host:587")
	}
	if u.Hostname() == "" || u.Path != "" && u.Path != "/" || u.Fragment != "" {
		return server{}, fault.New(fault.Invalid, "smtp-url: expected smtp://user:password@host:587 or smtps://host:465")
	}
	s := server{host: u.Hostname(), user: u.User.Username()}
	s.password, _ = u.User.Password()
	if (s.user == "") != (s.password == "") {
		return server{}, fault.New(fault.Invalid, "smtp-url: user and password belong together")
	}
	if s.tls, err = s.tlsModeOf(u); err != nil {
		return server{}, err
	}
	if s.port, err = smtpPort(u, s.tls); err != nil {
		return server{}, err
	}
	if s.user != "" && !s.loopback() && (s.tls == tlsNone || s.tls == tlsOpportunistic) {
		return server{}, fault.New(fault.Invalid, "smtp-url: a login needs tls=starttls or smtps://, except on a loopback host")
	}
	return s, nil
}

func (s server) tlsModeOf(u *url.URL) (tlsMode, error) {
	query := u.Query()
	wanted := query.Get("tls")
	for key, values := range query {
		if key != "tls" || len(values) != 1 {
			return 0, fault.New(fault.Invalid, "smtp-url: the only option is tls=starttls|opportunistic|none")
		}
	}
	switch u.Scheme {
	case "smtps":
		if wanted != "" {
			return 0, fault.New(fault.Invalid, "smtp-url: smtps:// is always encrypted, so tls= has no meaning")
		}
		return tlsImplicit, nil
	case "smtp":
	default:
		return 0, fault.New(fault.Invalid, "smtp-url: the scheme must be smtp or smtps")
	}
	switch wanted {
	case "":
		if s.loopback() {
			return tlsOpportunistic, nil
		}
		return tlsStartTLS, nil
	case "starttls":
		return tlsStartTLS, nil
	case "opportunistic":
		return tlsOpportunistic, nil
	case "none":
		return tlsNone, nil
	}
	return 0, fault.New(fault.Invalid, "smtp-url: tls must be starttls, opportunistic or none")
}

func smtpPort(u *url.URL, mode tlsMode) (int, error) {
	if u.Port() == "" {
		if mode == tlsImplicit {
			return 465, nil // RFC 8314 section 3.3
		}
		return 587, nil
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil || port == 0 {
		return 0, fault.New(fault.Invalid, "smtp-url: the port must be between 1 and 65535")
	}
	return int(port), nil
}
