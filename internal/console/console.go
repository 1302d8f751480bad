// Package console is the web console: tickets, webhooks and every delivery, live,
// for people. Pages are made here and complete before any script runs; htmx, which
// is embedded, only saves reloading them.
//
// It decides nothing that the API decides: who may do what is asked of
// store.Principal, every change is the store method that the API calls, and what is
// wrong with an input is said by internal/ticket and internal/delivery. It holds
// sessions, templates, charts and the names of form fields. No page shows a secret
// but the one that a person has just made.
package console

import (
	"context"
	"embed"
	"log/slog"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/dispatch"
	"github.com/ticketwire/ticketwire/internal/egress"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
)

// Config is what a Server needs. It is not changed after New.
type Config struct {
	Store     *store.Store
	Engine    *dispatch.Engine // sends test deliveries and manual retries
	Egress    egress.Config    // for the check of webhook URLs, as in the API
	PublicURL string           // https: the session's cookie is only sent over TLS
	Threads   bool             // see store.Config: what the preview of a payload shows
	Policy    delivery.Policy  // when a webhook that only fails is switched off
	Mail      bool             // mails are sent, so a link can be mailed
	// Remaining says by key id how many calls API keys have left, without those that
	// the API has not seen lately; nil where there is no API.
	Remaining func(ctx context.Context, now time.Time, tenant string, keys []store.APIKey) (map[string]store.Remaining, error)
	Now       func() time.Time // the clock; time.Now in production
	Log       *slog.Logger
}

// Server is the HTTP handler of /console and of the deep links below /msp. It is
// safe for concurrent use.
type Server struct {
	cfg     Config
	mux     *http.ServeMux
	pages   pages
	viewers atomic.Int64 // of live pages
	closing context.Context
	close   context.CancelFunc
}

//go:embed static
var static embed.FS

// maxForm is the largest form, in bytes: a body as the API takes it, and what a form
// puts around a file.
const maxForm = 1<<20 + 16<<10

// New returns a Server.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg, mux: http.NewServeMux(), pages: parsePages()}
	s.closing, s.close = context.WithCancel(context.Background())
	files := http.StripPrefix("/console/", http.FileServerFS(static))
	s.mux.HandleFunc("GET /console/static/{name}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=3600")
		files.ServeHTTP(w, r)
	})
	s.mux.HandleFunc("GET /console/sign-in", s.showSignIn)
	s.mux.HandleFunc("POST /console/sign-in", s.signIn)
	if cfg.Mail {
		s.mux.HandleFunc("POST /console/sign-in/mail", s.mailLink)
	}
	s.mux.HandleFunc("GET /console/link", s.showLink)
	s.mux.HandleFunc("POST /console/link", s.useLink)
	s.mux.HandleFunc("POST /console/sign-out", s.signOut)
	for _, rt := range s.routes() {
		s.mux.HandleFunc(rt.pattern, s.serve(rt))
	}
	s.mux.HandleFunc("/", s.unknown)
	return s
}

// Close ends the live pages, which would hold up the end of the HTTP server. It
// may be called more than once.
func (s *Server) Close() { s.close() }

// route is one page or action: what it needs and what it does. An empty resource
// needs a session and nothing else.
type route struct {
	pattern  string
	resource string
	action   string
	fn       func(*visit) error
}

func (s *Server) routes() []route {
	all := []route{{"GET /console/{$}", "", "", (*visit).start}, {"GET /console", "", "", (*visit).start}}
	for _, part := range [][]route{
		ticketRoutes(), ticketEditRoutes(), webhookRoutes(), replayRoutes(), deliveryRoutes(), resendRoutes(),
		overviewRoutes(), eventRoutes(), keyRoutes(), cutoverRoutes(),
	} {
		all = append(all, part...)
	}
	return all
}

// visit is one request of somebody who is signed in.
type visit struct {
	ctx  context.Context
	now  time.Time
	who  store.Principal
	form url.Values // of a POST
	w    http.ResponseWriter
	r    *http.Request
	srv  *Server
}

func (v *visit) store() *store.Store { return v.srv.cfg.Store }
func (v *visit) tenant() string      { return v.who.TenantID }

// policy lets a page load what this server embeds and nothing else; there is no
// inline script and no inline style to allow.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// ServeHTTP guards every answer: no other site may frame a page, post a form or
// learn an address.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := http.NewCrossOriginProtection().Check(r); err != nil {
		s.fail(w, r, nil, fault.Wrap(fault.Forbidden, err, "This form came from another site"))
		return
	}
	s.mux.ServeHTTP(w, r)
}

// serve wraps a route: whose session is it, may he, then the page, and one log line.
func (s *Server) serve(rt route) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v := &visit{ctx: r.Context(), now: s.cfg.Now(), r: r, srv: s}
		counted := &counting{ResponseWriter: w}
		v.w = counted
		err := s.run(v, rt)
		if err != nil {
			s.fail(counted, r, v, err)
		}
		level := slog.LevelInfo
		attrs := []slog.Attr{
			slog.String("route", rt.pattern), slog.Int("status", counted.status), slog.Duration("took", s.cfg.Now().Sub(v.now)),
			slog.String("tenant", v.who.TenantID), slog.String("user", v.who.User.UserID),
		}
		if err != nil {
			attrs = append(attrs, slog.String("error", err.Error()))
			if counted.status >= http.StatusInternalServerError {
				level = slog.LevelError
			}
		}
		s.cfg.Log.LogAttrs(v.ctx, level, "console", attrs...)
	}
}

// signInFirst is the error of a request without a session.
var signInFirst = fault.New(fault.Unauthorized, "Sign in first") //nolint:gochecknoglobals // a sentinel

func (s *Server) run(v *visit, rt route) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			err = fault.New(fault.Internal, "panic: %v\n%s", p, debug.Stack())
		}
	}()
	if v.who, err = s.visitor(v.ctx, v.now, v.r); err != nil {
		return err
	}
	if rt.resource != "" {
		if err := v.who.Check(rt.resource, rt.action); err != nil {
			return err
		}
	}
	if v.r.Method == http.MethodPost {
		if err := v.r.ParseForm(); err != nil {
			return fault.Wrap(fault.Invalid, err, "The form cannot be read, or is larger than %d KiB", maxForm>>10)
		}
		// A database of UTF-8 takes no other text, and PostgreSQL no NUL.
		v.form = v.r.PostForm //nolint:forbidigo // the field of that name, not the function
		for _, list := range v.form {
			for i, text := range list {
				list[i] = strings.ReplaceAll(strings.ToValidUTF8(strings.ReplaceAll(text, "\r\n", "\n"), "\uFFFD"), "\x00", "\uFFFD")
			}
		}
	}
	return rt.fn(v)
}

// unknown answers what is no page.
func (s *Server) unknown(w http.ResponseWriter, r *http.Request) {
	v := &visit{ctx: r.Context(), now: s.cfg.Now(), r: r, srv: s, w: w}
	var err error
	if v.who, err = s.visitor(v.ctx, v.now, r); err == nil {
		err = fault.New(fault.NotFound, "There is no such page")
	}
	s.fail(w, r, v, err)
}

// fail answers with the page of an error. Who is not signed in is sent to sign in
// and comes back to where he wanted to go.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, v *visit, err error) {
	kind := fault.KindOf(err)
	if kind == fault.Unauthorized {
		to := "/console/sign-in"
		if r.Method == http.MethodGet && r.Header.Get("Hx-Request") == "" {
			to += "?next=" + url.QueryEscape(r.URL.RequestURI())
		}
		if r.Header.Get("Hx-Request") != "" {
			w.Header().Set("Hx-Redirect", to)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		http.Redirect(w, r, to, http.StatusSeeOther)
		return
	}
	f := s.frame(v, "", titleOf(kind))
	f.Data = messageOf(err)
	s.render(w, kind.HTTPStatus(), "error", f)
}

// redirect sends the browser to a page after a form. done names a sentence of
// notices that the page begins with; "" for none.
func (v *visit) redirect(to, done string) error {
	if done != "" {
		mark := "?"
		if strings.Contains(to, "?") {
			mark = "&"
		}
		to += mark + "done=" + done
	}
	http.Redirect(v.w, v.r, to, http.StatusSeeOther)
	return nil
}

// start shows the first page that the visitor may see.
func (v *visit) start() error {
	for _, n := range navigation() {
		if v.who.Check(n.Resource, n.Action) == nil {
			return v.redirect(n.Path, "")
		}
	}
	return fault.New(fault.Forbidden, "Your user may see nothing here; ask whoever administers your desk for permissions")
}

// counting learns the status of an answer.
type counting struct {
	http.ResponseWriter
	status int
}

func (c *counting) WriteHeader(status int) {
	if c.status == 0 {
		c.status = status
	}
	c.ResponseWriter.WriteHeader(status)
}

func (c *counting) Write(b []byte) (int, error) {
	if c.status == 0 {
		c.status = http.StatusOK
	}
	return c.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (c *counting) Unwrap() http.ResponseWriter { return c.ResponseWriter }
