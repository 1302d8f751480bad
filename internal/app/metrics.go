package app

import (
	"context"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// readyLimit bounds the readiness probe of a scrape: while the store hangs, the
// other numbers are wanted most.
const readyLimit = 2 * time.Second

// commits exports what the store's writer does.
type commits struct {
	now    func() time.Time
	calls  prometheus.Histogram
	took   prometheus.Histogram
	failed prometheus.Counter
}

func newCommits(now func() time.Time) *commits {
	return &commits{
		now: now,
		calls: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "ticketwire_commit_calls", Help: "Calls that shared one commit.",
			Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128, 256},
		}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "ticketwire_commit_duration_seconds", Help: "Time for one commit with all of its calls, the sync of the disk included.",
			Buckets: []float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
		}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ticketwire_commit_errors_total", Help: "Commits that failed with all of their calls: the disk is full, or another process holds the database.",
		}),
	}
}

// begin is the listener of store.Config.Commit.
func (c *commits) begin(calls int) (ended func(error)) {
	start := c.now()
	return func(err error) {
		c.took.Observe(c.now().Sub(start).Seconds())
		c.calls.Observe(float64(calls))
		if err != nil {
			c.failed.Inc()
		}
	}
}

// register exports everything that is not exported by the package that knows it.
func (a *App) register(reg prometheus.Registerer) {
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "ticketwire_build_info", Help: "1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": a.cfg.Version, "go": runtime.Version()},
	})
	info.Set(1)
	reg.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), info,
		a.commits.calls, a.commits.took, a.commits.failed, newBacklogCollector(a),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "ticketwire_ready", Help: "1 while /readyz answers 200: a change could be stored and deliveries could make progress.",
		}, a.readiness),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "ticketwire_nodes", Help: "Nodes that share the work, this one included, as it counts them; 1 with the embedded database.",
		}, func() float64 { return float64(a.store.Among()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "ticketwire_in_office", Help: "1 while this node holds its lease, without which it sends nothing; always 1 with the embedded database.",
		}, a.inOffice),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "ticketwire_writer_waiting", Help: "Calls in the queue of the store's writer.",
		}, func() float64 { return float64(a.store.Load().Waiting) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "ticketwire_writer_refused_total", Help: "Calls that were refused because that queue was full; the API answered 503.",
		}, func() float64 { return float64(a.store.Load().Refused) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "ticketwire_writer_panics_total", Help: "Panics in a call of the store; nothing of the call was written.",
		}, func() float64 { return float64(a.store.Load().Panics) }),
	)
}

func (a *App) readiness() float64 {
	ctx, cancel := context.WithTimeout(context.Background(), readyLimit)
	defer cancel()
	if a.readyNow(ctx) != nil {
		return 0
	}
	return 1
}

func (a *App) inOffice() float64 {
	if a.store.InOffice() {
		return 1
	}
	return 0
}

// backlogCollector exports what is owed, read from the store when somebody asks.
type backlogCollector struct {
	app                            *App
	pending, due, age, idle, mails *prometheus.Desc
}

func newBacklogCollector(a *App) *backlogCollector {
	desc := func(name, help string) *prometheus.Desc { return prometheus.NewDesc(name, help, nil, nil) }
	return &backlogCollector{
		app:     a,
		pending: desc("ticketwire_deliveries_pending", "Deliveries that are owed, those that wait for a later time included."),
		due:     desc("ticketwire_deliveries_due", "Deliveries whose time has come."),
		age:     desc("ticketwire_oldest_due_seconds", "How long the oldest due delivery has been waiting."),
		idle:    desc("ticketwire_dispatcher_idle_seconds", "How long no attempt was begun although deliveries were due; 0 when none is."),
		mails:   desc("ticketwire_mails_pending", "Mails in the outbox."),
	}
}

// Describe is part of prometheus.Collector.
func (c *backlogCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.pending, c.due, c.age, c.idle, c.mails} {
		ch <- d
	}
}

// Collect is part of prometheus.Collector.
func (c *backlogCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), probeLimit)
	defer cancel()
	now := c.app.cfg.Now()
	b, err := c.app.store.Backlog(ctx, now)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(c.pending, err)
		return
	}
	var age, idle time.Duration
	if b.OldestDue != nil {
		age = now.Sub(*b.OldestDue)
		idle = min(age, now.Sub(c.app.engine.LastAttempt()))
	}
	for _, g := range []struct {
		desc  *prometheus.Desc
		value float64
	}{
		{c.pending, float64(b.Pending)},
		{c.due, float64(b.Due)},
		{c.age, max(0, age.Seconds())},
		{c.idle, max(0, idle.Seconds())},
		{c.mails, float64(b.Mails)},
	} {
		ch <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, g.value)
	}
}
