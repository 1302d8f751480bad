package dispatch

import "github.com/prometheus/client_golang/prometheus"

// metrics are what an operator watches. Labels have fixed sets of values: a
// webhook or tenant never becomes one.
type metrics struct {
	attempts     *prometheus.CounterVec
	duration     prometheus.Histogram
	inFlight     prometheus.Gauge
	rateLimited  prometheus.Counter
	breaker      prometheus.Counter
	disabled     prometheus.Counter
	panics       prometheus.Counter
	recordErrors prometheus.Counter
	mails        *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ticketwire_delivery_attempts_total",
			Help: "Attempts by what became of them and the class of the failure.",
		}, []string{"status", "error_type"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "ticketwire_delivery_duration_seconds", Help: "Time from the first byte sent to the end of the answer.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ticketwire_deliveries_in_flight", Help: "Requests under way.",
		}),
		rateLimited: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ticketwire_delivery_rate_limit_waits_total", Help: "Times a webhook had to wait for its rate limit.",
		}),
		breaker: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ticketwire_delivery_breaker_pauses_total", Help: "Times a webhook paused because its receiver hung or asked for it.",
		}),
		disabled: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ticketwire_webhooks_disabled_total", Help: "Webhooks switched off after continuous failures.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ticketwire_delivery_panics_total", Help: "Panics in an attempt; the delivery stays owed.",
		}),
		recordErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ticketwire_record_errors_total", Help: "Times a batch of results could not be written and was tried again.",
		}),
		mails: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ticketwire_mails_total", Help: "Mails by outcome.",
		}, []string{"outcome"}),
	}
	if reg != nil {
		reg.MustRegister(m.attempts, m.duration, m.inFlight, m.rateLimited, m.breaker, m.disabled, m.panics, m.recordErrors, m.mails)
	}
	return m
}
