package dispatch

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ticketwire/ticketwire/internal/delivery"
)

// metrics are what an operator watches; docs/operations.md has the table. Labels
// have fixed sets of values, and a webhook or tenant never becomes one. Every
// value is there from the start: a rule on a series that appears with its first
// failure would miss that failure.
type metrics struct {
	attempts     *prometheus.CounterVec
	duration     prometheus.Histogram
	delay        prometheus.Histogram
	inFlight     prometheus.Gauge
	waiting      *prometheus.GaugeVec
	waited       *prometheus.HistogramVec
	breakersOpen prometheus.Gauge
	disabled     *prometheus.CounterVec
	panics       prometheus.Counter
	recordErrors prometheus.Counter
	fenced       prometheus.Counter
	mails        *prometheus.CounterVec
}

// The outcomes of trying to send a mail.
const (
	mailSent      = "sent"
	mailRetrying  = "retrying"  // failed, and will be tried again
	mailAbandoned = "abandoned" // failed for good
)

// noError is the error_type of an attempt that succeeded.
const noError = "none"

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
		delay: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "ticketwire_delivery_delay_seconds", Help: "Time from when an attempt was due to when it was sent, waits for limits and breakers included.",
			Buckets: []float64{.005, .025, .1, .5, 1, 5, 15, 60, 300, 1800, 7200},
		}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ticketwire_deliveries_in_flight", Help: "Requests under way.",
		}),
		waiting: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "ticketwire_webhooks_waiting", Help: "Webhooks with due deliveries that wait for their rate limit, or for a receiver that hung or asked for a pause.",
		}, []string{"reason"}),
		waited: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "ticketwire_webhook_wait_seconds", Help: "How long such waits took, counted when they end.",
			Buckets: []float64{.1, .5, 1, 2.5, 5, 15, 30, 60},
		}, []string{"reason"}),
		breakersOpen: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ticketwire_breakers_open", Help: "Webhooks whose receiver hangs, so that it gets one request at a time.",
		}),
		disabled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ticketwire_webhooks_disabled_total", Help: "Webhooks switched off after continuous failures, or because the receiver answered 410.",
		}, []string{"reason"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ticketwire_delivery_panics_total", Help: "Panics in an attempt; the delivery stays owed.",
		}),
		recordErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ticketwire_record_errors_total", Help: "Times a batch of results could not be written and was tried again.",
		}),
		fenced: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ticketwire_results_fenced_total", Help: "Results that came after their lease was lost; the delivery is sent again.",
		}),
		mails: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ticketwire_mails_total", Help: "Tries to send a mail by outcome.",
		}, []string{"outcome"}),
	}
	m.fill()
	if reg != nil {
		reg.MustRegister(m.attempts, m.duration, m.delay, m.inFlight, m.waiting, m.waited, m.breakersOpen, m.disabled,
			m.panics, m.recordErrors, m.fenced, m.mails)
	}
	return m
}

// fill makes every series that there can be.
func (m *metrics) fill() {
	m.attempts.WithLabelValues(string(delivery.Delivered), noError)
	for _, class := range []delivery.ErrorType{
		delivery.ErrDNS, delivery.ErrConnect, delivery.ErrSSRF, delivery.ErrTLS, delivery.ErrTimeout, delivery.ErrProtocol,
		delivery.ErrStatus, delivery.ErrUnknown,
	} {
		m.attempts.WithLabelValues(string(delivery.Retrying), string(class))
		m.attempts.WithLabelValues(string(delivery.Abandoned), string(class))
	}
	for _, reason := range []string{delivery.WaitRateLimited, delivery.WaitBreakerOpen} {
		m.waiting.WithLabelValues(reason)
		m.waited.WithLabelValues(reason)
	}
	for _, reason := range []string{delivery.DisabledByFailures, delivery.DisabledGone} {
		m.disabled.WithLabelValues(reason)
	}
	for _, outcome := range []string{mailSent, mailRetrying, mailAbandoned} {
		m.mails.WithLabelValues(outcome)
	}
}

// mark exports why a lane waits; "" says that it goes on.
func (s *scheduler) mark(l *lane, now time.Time, reason string) {
	if l.reason == reason {
		return
	}
	m := s.e.metrics
	if l.reason != "" {
		m.waiting.WithLabelValues(l.reason).Dec()
		m.waited.WithLabelValues(l.reason).Observe(now.Sub(l.since).Seconds())
	}
	if reason != "" {
		m.waiting.WithLabelValues(reason).Inc()
	}
	l.reason, l.since = reason, now
}

// markBreaker exports whether a lane's breaker is open.
func (s *scheduler) markBreaker(l *lane, open bool) {
	switch {
	case open && !l.open:
		s.e.metrics.breakersOpen.Inc()
	case !open && l.open:
		s.e.metrics.breakersOpen.Dec()
	}
	l.open = open
}
