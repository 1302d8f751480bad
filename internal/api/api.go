// Package api serves the REST contract: authentication, permissions, rate
// limits, validation and the wire shapes of contract sections 1 to 3.
//
// It holds what is peculiar to the wire (Zod-shaped issues, pagination, header
// names) and nothing else: the rules live in internal/ticket and
// internal/delivery, every change is one call of internal/store, and test
// deliveries and manual retries are sent by internal/dispatch.
package api

import (
	"context"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ticketwire/ticketwire/internal/dispatch"
	"github.com/ticketwire/ticketwire/internal/egress"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
)

// Config is what a Server needs. It is not changed after New.
type Config struct {
	Store     *store.Store
	Engine    *dispatch.Engine // sends test deliveries and manual retries
	Egress    egress.Config    // for the check of webhook URLs at create and update (contract P5)
	PublicURL string
	Rate      Rate             // the limit of keys and tenants that set none
	Enforce   bool             // false: observation mode (contract section 1.6)
	Now       func() time.Time // the clock; time.Now in production
	Log       *slog.Logger
	Metrics   prometheus.Registerer // nil: not exported
	OpenAPI   []byte                // the document served at /openapi.yaml
}

// Server is the HTTP handler of the API. It is safe for concurrent use.
type Server struct {
	cfg     Config
	mux     *http.ServeMux
	limiter *limiter
	metrics *metrics
}

// maxBody is the largest request body (contract P11).
const maxBody = 1 << 20

// New returns a Server.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg, mux: http.NewServeMux(), limiter: newLimiter(cfg.Rate), metrics: newMetrics(cfg.Metrics)}
	for _, rt := range s.routes() {
		s.mux.HandleFunc(rt.method+" /api/v1"+rt.path, s.serve(rt))
	}
	s.mux.HandleFunc("GET /openapi.yaml", s.openAPI)
	return s
}

// route is one operation: what it needs and what it does.
type route struct {
	method   string
	path     string // below /api/v1
	resource string // permission (contract section 1.1)
	action   string
	fn       func(*call) (answer, error)
}

// routes lists every operation of the API, in the order of the contract.
func (s *Server) routes() []route {
	var all []route
	for _, part := range [][]route{
		s.ticketRoutes(), s.commentRoutes(), s.tagRoutes(), s.resourceRoutes(),
		s.webhookRoutes(), s.deliveryRoutes(), s.replayRoutes(), s.eventRoutes(), s.keyRoutes(), s.cutoverReportRoutes(),
	} {
		all = append(all, part...)
	}
	return all
}

// call is one request on its way through a handler.
type call struct {
	ctx  context.Context
	now  time.Time
	who  store.Principal
	r    *http.Request
	srv  *Server
	idem *store.Idempotency // nil without X-Idempotency-Key
}

func (c *call) store() *store.Store { return c.srv.cfg.Store }
func (c *call) tenant() string      { return c.who.TenantID }

// ServeHTTP answers preflights, unknown paths and wrong methods in the shape of
// the contract, and passes everything else to its route.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	allowOrigin(w, r)
	if r.Method == http.MethodOptions {
		preflight(w)
		return
	}
	h, pattern := s.mux.Handler(r)
	if pattern != "" {
		s.mux.ServeHTTP(w, r)
		return
	}
	probe := &statusProbe{header: http.Header{}}
	h.ServeHTTP(probe, r)
	if probe.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", probe.header.Get("Allow"))
		s.refuse(w, fault.New(fault.MethodNotAllowed, "Method %s is not allowed here", r.Method))
		return
	}
	s.refuse(w, fault.New(fault.NotFound, "Route not found"))
}

// refuse answers a request that belongs to no route.
func (s *Server) refuse(w http.ResponseWriter, err error) {
	a := errorAnswer(err)
	a.write(w)
	s.metrics.answered(a.status, 0)
}

// statusProbe learns what ServeMux would answer on its own.
type statusProbe struct {
	header http.Header
	status int
}

func (p *statusProbe) Header() http.Header { return p.header }
func (p *statusProbe) WriteHeader(status int) {
	if p.status == 0 {
		p.status = status
	}
}
func (p *statusProbe) Write(b []byte) (int, error) {
	p.WriteHeader(http.StatusOK)
	return len(b), nil
}

func allowOrigin(w http.ResponseWriter, r *http.Request) {
	if o := r.Header.Get("Origin"); o != "" {
		w.Header().Set("Access-Control-Allow-Origin", o)
		w.Header().Set("Access-Control-Allow-Credentials", "true")
		w.Header().Add("Vary", "Origin")
	}
}

func preflight(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", "GET,POST,PUT,PATCH,DELETE,OPTIONS")
	h.Set("Access-Control-Allow-Headers", "Content-Type,Authorization,X-API-Key,X-Tenant-ID,X-Request-ID,X-Idempotency-Key")
	h.Set("Access-Control-Max-Age", "86400")
	w.WriteHeader(http.StatusNoContent)
}

// serve wraps a route: who is calling, may he, has he budget left, has he asked
// the same before; then the handler, the answer, and one log line.
func (s *Server) serve(rt route) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		start := s.cfg.Now()
		c := &call{ctx: r.Context(), now: start, r: r, srv: s}
		a, err := s.run(c, rt, w)
		if err != nil {
			a = errorAnswer(err)
		}
		a.write(w)
		took := s.cfg.Now().Sub(c.now)
		s.metrics.answered(a.status, took)
		s.logCall(c, rt, a, took, err)
	}
}

func (s *Server) run(c *call, rt route, w http.ResponseWriter) (a answer, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.metrics.panics.Inc()
			err = fault.New(fault.Internal, "panic: %v\n%s", p, debug.Stack())
		}
	}()
	if err := s.authenticate(c); err != nil {
		return answer{}, err
	}
	if err := s.limit(c, w); err != nil {
		return answer{}, err
	}
	if err := c.who.Check(rt.resource, rt.action); err != nil {
		return answer{}, err
	}
	if key := c.r.Header.Get("X-Idempotency-Key"); key != "" && (rt.method == http.MethodPost || rt.method == http.MethodPut) {
		return c.once(key, rt)
	}
	return rt.fn(c)
}

func (s *Server) openAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	w.Write(s.cfg.OpenAPI) // a write error means that the caller has gone
}

// logCall writes the one line of a request: no query strings and no bodies,
// since both may hold personal data.
func (s *Server) logCall(c *call, rt route, a answer, took time.Duration, err error) {
	level := slog.LevelInfo
	attrs := []slog.Attr{
		slog.String("method", rt.method), slog.String("route", "/api/v1"+rt.path), slog.Int("status", a.status),
		slog.Duration("took", took), slog.String("tenant", c.who.TenantID), slog.String("key", c.who.KeyID),
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
		if a.status >= 500 {
			level = slog.LevelError
		}
	}
	s.cfg.Log.LogAttrs(c.ctx, level, "request", attrs...)
}
