package api

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what an operator watches of the API; docs/operations.md has the
// table. The class of a status is the only label: routes, tenants and keys are in
// the log.
type metrics struct {
	requests    *prometheus.HistogramVec
	rateLimited prometheus.Counter
	panics      prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "ticketwire_api_request_duration_seconds", Help: "API requests by the class of their status, and how long they took.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 30},
		}, []string{"class"}),
		rateLimited: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ticketwire_api_rate_limited_total", Help: "API requests over the rate limit of their key, those that observation mode let through included.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ticketwire_api_panics_total", Help: "Panics in a request; it was answered with 500.",
		}),
	}
	for _, class := range []string{"2xx", "4xx", "5xx"} {
		m.requests.WithLabelValues(class)
	}
	if reg != nil {
		reg.MustRegister(m.requests, m.rateLimited, m.panics)
	}
	return m
}

// answered counts a request.
func (m *metrics) answered(status int, took time.Duration) {
	class := "2xx" // no route redirects
	switch {
	case status >= http.StatusInternalServerError:
		class = "5xx"
	case status >= http.StatusBadRequest:
		class = "4xx"
	}
	m.requests.WithLabelValues(class).Observe(took.Seconds())
}
