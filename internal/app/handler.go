package app

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/ticketwire/ticketwire/internal/api"
	"github.com/ticketwire/ticketwire/internal/egress"
)

// probeLimit bounds a readiness probe and a metrics query.
const probeLimit = 5 * time.Second

// handler adds the operator's routes and the console to the API. All of them see the
// client's address, also behind a proxy that is trusted.
func (a *App) handler(rest *api.Server, reg *prometheus.Registry, targets egress.Config) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", rest)
	a.console(mux, targets, rest)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		plain(w, http.StatusOK, "ok\n")
	})
	mux.HandleFunc("GET /readyz", a.ready)
	// What can be told is told, above all while the store cannot be read.
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		Timeout: 2 * probeLimit, ErrorHandling: promhttp.ContinueOnError, Registry: reg,
	}))
	return proxies(a.cfg.TrustedProxies).reveal(mux)
}

// ready answers 200 only while a change could be stored and its deliveries could
// make progress. The reason is for the log: a stranger may ask this route.
func (a *App) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), probeLimit)
	defer cancel()
	if err := a.readyNow(ctx); err != nil {
		a.cfg.Log.Warn("not ready", "error", err)
		plain(w, http.StatusServiceUnavailable, "not ready\n")
		return
	}
	plain(w, http.StatusOK, "ready\n")
}

// readyNow returns nil, or the reason of ours why deliveries cannot be taken or
// made.
func (a *App) readyNow(ctx context.Context) error {
	if err := a.engine.Ready(); err != nil {
		return err
	}
	return a.store.Ping(ctx)
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	io.WriteString(w, text) // a write error means that the caller has gone
}
