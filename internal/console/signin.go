package console

import (
	"context"
	"net/http"
	"net/mail"
	"net/netip"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
)

// cookieName is the session's cookie. Over TLS it has the prefix that keeps other
// hosts of the domain from setting it.
const cookieName = "ticketwire-session"

func (s *Server) secure() bool { return strings.HasPrefix(s.cfg.PublicURL, "https://") }

func (s *Server) cookieName() string {
	if s.secure() {
		return "__Host-" + cookieName
	}
	return cookieName
}

func (s *Server) setCookie(w http.ResponseWriter, token string, life time.Duration) {
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // Secure where there is TLS
		Name: s.cookieName(), Value: token, Path: "/", MaxAge: int(life.Seconds()),
		HttpOnly: true, Secure: s.secure(), SameSite: http.SameSiteLaxMode,
	})
}

// visitor returns whose session the request belongs to. The error is Unauthorized
// without one.
func (s *Server) visitor(ctx context.Context, now time.Time, r *http.Request) (store.Principal, error) {
	c, err := r.Cookie(s.cookieName())
	if err != nil {
		return store.Principal{}, signInFirst
	}
	return s.cfg.Store.Session(ctx, now, c.Value)
}

// signInPage is what the page for signing in shows.
type signInPage struct {
	Next  string // where to go afterwards
	Link  string // the one-time link that was opened; "" for the form with a key
	Error string
	Mail  bool // a link can be mailed
	Asked bool // and somebody has asked for one
	// Address is what was typed into the form for a mail, and Wrong what is wrong
	// with it.
	Address, Wrong string
}

// local returns a path of the console or of a deep link, and "/console/" for
// anything that could lead elsewhere.
func local(next string) string {
	ours := strings.HasPrefix(next, "/console/") || strings.HasPrefix(next, "/msp/")
	if !ours || strings.ContainsAny(next, "\\\r\n\t") {
		return "/console/"
	}
	return next
}

func (s *Server) showSignIn(w http.ResponseWriter, r *http.Request) {
	next := local(r.URL.Query().Get("next"))
	if _, err := s.visitor(r.Context(), s.cfg.Now(), r); err == nil {
		http.Redirect(w, r, next, http.StatusSeeOther) //nolint:gosec // a path of ours, see local
		return
	}
	s.signInPage(w, http.StatusOK, signInPage{Next: next})
}

func (s *Server) signInPage(w http.ResponseWriter, status int, p signInPage) {
	f := s.frame(nil, "", "Sign in")
	p.Mail = s.cfg.Mail
	f.Data = p
	s.render(w, status, "signin", f)
}

func (s *Server) signIn(w http.ResponseWriter, r *http.Request) {
	next := local(r.FormValue("next"))
	token, err := s.cfg.Store.SignIn(r.Context(), s.cfg.Now(), strings.TrimSpace(r.PostFormValue("key")))
	if err != nil {
		s.signInFailed(w, signInPage{Next: next}, err)
		return
	}
	s.signedIn(w, r, token, next)
}

// showLink asks before it uses the link up: programs that look at what is in a mail
// follow links too.
func (s *Server) showLink(w http.ResponseWriter, r *http.Request) {
	s.signInPage(w, http.StatusOK, signInPage{Link: r.URL.Query().Get("token")})
}

func (s *Server) useLink(w http.ResponseWriter, r *http.Request) {
	token, err := s.cfg.Store.UseLink(r.Context(), s.cfg.Now(), r.PostFormValue("token"))
	if err != nil {
		s.signInFailed(w, signInPage{Next: "/console/"}, err)
		return
	}
	s.signedIn(w, r, token, "/console/")
}

func (s *Server) signedIn(w http.ResponseWriter, r *http.Request, token, next string) {
	s.setCookie(w, token, store.SessionLife)
	s.cfg.Log.InfoContext(r.Context(), "signed in to the console")
	http.Redirect(w, r, next, http.StatusSeeOther) //nolint:gosec // a path of ours, see local
}

func (s *Server) signInFailed(w http.ResponseWriter, p signInPage, err error) {
	p.Error = messageOf(err)
	kind := fault.KindOf(err)
	if kind != fault.Unauthorized {
		s.cfg.Log.Error("sign in to the console", "error", err)
	}
	s.signInPage(w, kind.HTTPStatus(), p)
}

// maxAddress is how long a mail address may be (RFC 5321 section 4.5.3.1).
const maxAddress = 254

// mailLink mails a link to whoever has the address. The answer is the same whether
// there is somebody.
func (s *Server) mailLink(w http.ResponseWriter, r *http.Request) {
	p := signInPage{Next: local(r.FormValue("next")), Address: strings.TrimSpace(r.PostFormValue("address"))}
	if a, err := mail.ParseAddress(p.Address); err != nil || a.Address != p.Address || len(p.Address) > maxAddress {
		p.Wrong = "must be a mail address, such as ada@example.com"
		s.signInPage(w, http.StatusBadRequest, p)
		return
	}
	switch err := s.cfg.Store.MailLinks(r.Context(), s.cfg.Now(), p.Address, network(r.RemoteAddr)); {
	case fault.Is(err, fault.RateLimited):
		p.Wrong = messageOf(err)
		s.signInPage(w, http.StatusTooManyRequests, p)
	case err != nil:
		s.signInFailed(w, p, err)
	default:
		s.cfg.Engine.MailDue()
		p.Asked = true
		s.signInPage(w, http.StatusOK, p)
	}
}

// network is what whoever asks cannot change easily: his address, or the 64 bits of
// an IPv6 address that his provider has given him. remote is his also where he comes
// through a trusted proxy, by the work of internal/app.
func network(remote string) string {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	a := at.Addr().Unmap()
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return remote
	}
	return p.String()
}

func (s *Server) signOut(w http.ResponseWriter, r *http.Request) {
	if c, err := r.Cookie(s.cookieName()); err == nil {
		if err := s.cfg.Store.SignOut(r.Context(), c.Value); err != nil {
			s.fail(w, r, nil, err)
			return
		}
	}
	s.setCookie(w, "", -time.Second)
	http.Redirect(w, r, "/console/sign-in", http.StatusSeeOther)
}
