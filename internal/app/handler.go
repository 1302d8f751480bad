package app

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/ticketwire/ticketwire/internal/api"
)

// probeLimit bounds a readiness probe and a metrics query.
const probeLimit = 5 * time.Second

// handler adds the operator's routes to the API.
func (a *App) handler(rest *api.Server, reg *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", rest)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		plain(w, http.StatusOK, "ok\n")
	})
	mux.HandleFunc("GET /readyz", a.ready)
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{Timeout: 2 * probeLimit}))
	return mux
}

// ready answers 200 only while a change could be stored and its deliveries could
// make progress. The reason is for the log: a stranger may ask this route.
func (a *App) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), probeLimit)
	defer cancel()
	err := a.engine.Ready()
	if err == nil {
		err = a.store.Ping(ctx)
	}
	if err != nil {
		a.cfg.Log.Warn("not ready", "error", err)
		plain(w, http.StatusServiceUnavailable, "not ready\n")
		return
	}
	plain(w, http.StatusOK, "ready\n")
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	io.WriteString(w, text) // a write error means that the caller has gone
}

// backlog exports what is owed, read from the store when somebody asks.
func (a *App) backlog() prometheus.Collector {
	return &backlogCollector{
		app:     a,
		pending: prometheus.NewDesc("ticketwire_deliveries_pending", "Deliveries that are owed, those that wait for a later time included.", nil, nil),
		due:     prometheus.NewDesc("ticketwire_deliveries_due", "Deliveries whose time has come.", nil, nil),
		age:     prometheus.NewDesc("ticketwire_oldest_due_seconds", "How long the oldest due delivery has been waiting.", nil, nil),
	}
}

type backlogCollector struct {
	app               *App
	pending, due, age *prometheus.Desc
}

func (c *backlogCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.pending
	ch <- c.due
	ch <- c.age
}

func (c *backlogCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), probeLimit)
	defer cancel()
	now := c.app.cfg.Now()
	b, err := c.app.store.Backlog(ctx, now)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(c.pending, err)
		return
	}
	age := 0.0
	if b.OldestDue != nil {
		age = max(0, now.Sub(*b.OldestDue).Seconds())
	}
	ch <- prometheus.MustNewConstMetric(c.pending, prometheus.GaugeValue, float64(b.Pending))
	ch <- prometheus.MustNewConstMetric(c.due, prometheus.GaugeValue, float64(b.Due))
	ch <- prometheus.MustNewConstMetric(c.age, prometheus.GaugeValue, age)
}
