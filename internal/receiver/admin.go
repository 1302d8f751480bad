package receiver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/ticketwire/ticketwire/inbox"
	"github.com/ticketwire/ticketwire/webhook"
)

// probeLimit bounds a readiness probe and a metrics query.
const probeLimit = 5 * time.Second

// adminHandler has what operators ask for.
func (r *Receiver) adminHandler(reg *prometheus.Registry) http.Handler {
	r.metrics.register(reg)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, req *http.Request) {
		ctx, cancel := context.WithTimeout(req.Context(), probeLimit)
		defer cancel()
		if err := r.Ready(ctx); err != nil {
			r.log.Warn("not ready", "error", err)
			plain(w, http.StatusServiceUnavailable, "not ready\n")
			return
		}
		plain(w, http.StatusOK, "ready\n")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		Timeout: 2 * probeLimit, ErrorHandling: promhttp.ContinueOnError, Registry: reg,
	}))
	return mux
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	io.WriteString(w, text) // a write error means that the caller has gone
}

// Ready returns nil while an event that comes now would be acknowledged, or the
// reason of ours why not.
func (r *Receiver) Ready(ctx context.Context) error {
	if r.quit.Err() != nil {
		return errors.New("the receiver is stopping")
	}
	if !slices.ContainsFunc(r.cfg.Secrets(), func(s string) bool { return s != "" }) {
		return errors.New("there is no signing secret")
	}
	return r.storable(ctx)
}

// storable returns nil while everything that has to be written can be.
func (r *Receiver) storable(ctx context.Context) error {
	if err := r.store.Probe(ctx); err != nil {
		return err
	}
	if err := r.room(); err != nil {
		return err
	}
	if r.journal != nil {
		if err := r.journal.failing(); err != nil {
			return err
		}
	}
	return r.pulse.failing()
}

// roomy is how much there has to be on the disk for a receiver to be ready. The
// little that a probe of the inbox needs often fits when an event does not.
const roomy = 64 << 10

// room returns nil while there is room for more events where they are kept and
// written down.
func (r *Receiver) room() error {
	dirs := []string{r.cfg.DataDir}
	if r.cfg.Record != nil {
		dirs = append(dirs, r.cfg.Record.Dir())
	}
	r.probing.Lock()
	defer r.probing.Unlock()
	for _, dir := range dirs {
		name := filepath.Join(dir, "receiver.probe")
		err := os.WriteFile(name, make([]byte, roomy), 0o600)
		if rerr := os.Remove(name); err == nil {
			err = rerr
		}
		if err != nil {
			return fmt.Errorf("there is no room for more events: %w", err)
		}
	}
	return nil
}

// lookAtStorage ends the alarm about storage when it is over, and begins it when
// no request has.
func (r *Receiver) lookAtStorage() {
	if !r.alarms.isOn(Unstored) && r.pulse.failing() == nil {
		return // the next request will tell
	}
	ctx, cancel := context.WithTimeout(r.quit, probeLimit)
	defer cancel()
	if err := r.storable(ctx); err != nil {
		r.alarms.set(Unstored, err.Error())
		return
	}
	r.alarms.set(Unstored, "")
}

// metrics counts what happens. All labels are from lists of this program.
type metrics struct {
	r         *Receiver
	requests  *prometheus.CounterVec
	reactions *prometheus.CounterVec
	left      prometheus.Counter
	took      prometheus.Histogram
	skew      prometheus.Gauge
	alarm     *prometheus.Desc
	queue     *prometheus.Desc
	age       *prometheus.Desc
	dead      *prometheus.Desc
}

func newMetrics(r *Receiver) *metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("ticketwire_receiver_"+name, help, labels, nil)
	}
	m := &metrics{
		r: r,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ticketwire_receiver_requests_total", Help: "Webhook requests by what became of them.",
		}, []string{"outcome"}),
		reactions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ticketwire_receiver_reactions_total", Help: "Events that were processed, by result; dead is a failure that was the last one.",
		}, []string{"result"}),
		left: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ticketwire_receiver_left_to_poller_total", Help: "Events without a reaction because it was the poller's turn; they are counted as processed too.",
		}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "ticketwire_receiver_reaction_duration_seconds", Help: "Time for one run of the reaction.",
			Buckets: []float64{.001, .005, .025, .1, .5, 1, 2.5, 5, 10, 30, 60},
		}),
		skew: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ticketwire_receiver_clock_skew_seconds", Help: "How far the sender's clock was ahead of ours at the last signed request; the time on the way counts against it.",
		}),
		alarm: desc("alarm", "1 while the alarm is on.", "kind"),
		queue: desc("queue", "Events that were acknowledged and are not done."),
		age:   desc("queue_oldest_seconds", "How long the oldest of them has been waiting."),
		dead:  desc("dead_letters", "Events that failed in every attempt and wait for a person."),
	}
	for _, o := range webhook.Outcomes() {
		m.requests.WithLabelValues(string(o))
	}
	for _, result := range []string{
		string(webhook.Processed), string(webhook.SkippedStale), string(webhook.ReactionFailed), string(webhook.StoreFailed), "dead",
	} {
		m.reactions.WithLabelValues(result)
	}
	return m
}

// reacted is the observer of the worker.
func (m *metrics) reacted(_ context.Context, res inbox.Result) {
	result := string(res.Outcome)
	if res.Dead {
		result = "dead"
	}
	m.reactions.WithLabelValues(result).Inc()
	m.took.Observe(res.Took.Seconds())
}

func (m *metrics) register(reg prometheus.Registerer) {
	reg.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.requests, m.reactions, m.left, m.took, m.skew, m,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "ticketwire_receiver_ready", Help: "1 while /readyz answers 200: an event that comes now would be acknowledged.",
		}, func() float64 {
			ctx, cancel := context.WithTimeout(context.Background(), probeLimit)
			defer cancel()
			return number(m.r.Ready(ctx) == nil)
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "ticketwire_receiver_last_event_age_seconds", Help: "How long ago the last event came; since the start where none has.",
		}, func() float64 {
			last := m.r.pulse.last()
			if last.IsZero() {
				last = m.r.pulse.started
			}
			return m.r.cfg.Now().Sub(last).Seconds()
		}),
	)
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Describe is part of prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.alarm, m.queue, m.age, m.dead} {
		ch <- d
	}
}

// Collect is part of prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, k := range []Kind{Silent, Disabled, Unwatched, Unstored} {
		ch <- prometheus.MustNewConstMetric(m.alarm, prometheus.GaugeValue, number(m.r.alarms.isOn(k)), string(k))
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeLimit)
	defer cancel()
	s, err := m.r.store.Stats(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(m.queue, err)
		return
	}
	age := 0.0
	if !s.Oldest.IsZero() {
		age = m.r.cfg.Now().Sub(s.Oldest).Seconds()
	}
	ch <- prometheus.MustNewConstMetric(m.queue, prometheus.GaugeValue, float64(s.Queued))
	ch <- prometheus.MustNewConstMetric(m.age, prometheus.GaugeValue, age)
	ch <- prometheus.MustNewConstMetric(m.dead, prometheus.GaugeValue, float64(s.Dead))
}
