package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"
)

// benchReport is what bench prints with --json. A figure that was not measured,
// or is void, is null.
type benchReport struct {
	Quick   bool    `json:"quick"` // small queues: webhooks_cost_ratio, startup and history say little
	Seconds float64 `json:"seconds"`
	Version string  `json:"version"`
	Go      string  `json:"go"`
	OS      string  `json:"os"`
	Arch    string  `json:"arch"`
	Cores   int     `json:"cores"`
	Load    float64 `json:"load_average"` // of the machine, before the first run
	Bytes   int     `json:"body_bytes"`   // of the bare loop, as those of the service

	BarePerS    *float64 `json:"bare_per_s"`
	EnginePerS  *float64 `json:"engine_per_s"`
	EngineRatio *float64 `json:"engine_ratio"` // ratios are to bare_per_s
	APIPerS     *float64 `json:"api_per_s"`
	APIRatio    *float64 `json:"api_ratio"`
	DrainPerS   *float64 `json:"drain_per_s"`
	DrainRatio  *float64 `json:"drain_ratio"`
	Backlog     int      `json:"drain_backlog"`
	CPUPer1000  *float64 `json:"cpu_s_per_1000"` // of the service and its writers in the engine run
	RSSMB       *float64 `json:"rss_mb"`         // highest in the engine run

	// Of --postgres alone. What the database used is that of its whole server, and
	// not known when that is on another machine.
	DatabaseCPUPer1000      *float64 `json:"database_cpu_s_per_1000"` // in the engine run
	Nodes                   int      `json:"nodes"`
	NodesPerS               *float64 `json:"nodes_per_s"`
	NodesRatio              *float64 `json:"nodes_ratio"`
	NodesCPUPer1000         *float64 `json:"nodes_cpu_s_per_1000"` // of all nodes together
	NodesDatabaseCPUPer1000 *float64 `json:"nodes_database_cpu_s_per_1000"`

	LatencyP50 *float64 `json:"latency_p50_ms"`
	LatencyP99 *float64 `json:"latency_p99_ms"`
	Fanout10   *float64 `json:"fanout_10_ms"` // until the last of them has it
	Fanout1000 *float64 `json:"fanout_1000_ms"`

	NeighbourAloneP99 *float64 `json:"neighbour_alone_p99_ms"`
	NeighbourP99      *float64 `json:"neighbour_p99_ms"`
	NeighbourRatio    *float64 `json:"neighbour_p99_ratio"`
	DeadQueue         int      `json:"neighbour_dead_queue"`

	EventCost    []eventCost `json:"webhooks_cost"`
	WebhooksCost *float64    `json:"webhooks_cost_ratio"` // CPU per event, most webhooks to fewest
	Startup      []startup   `json:"startup"`
	HistoryRows  int64       `json:"history_rows"`
	HistoryPerS  *float64    `json:"history_per_s"`
	HistoryRatio *float64    `json:"history_ratio"`

	Lost       int64    `json:"lost"`
	Duplicated int64    `json:"duplicated"`
	Void       []string `json:"void"` // runs that lost something

	bareSent int64
	bareTook time.Duration
}

// describe notes what the figures were measured on.
func (r *benchReport) describe(quick bool, length time.Duration) {
	r.Quick, r.Seconds, r.Version = quick, length.Seconds(), version()
	r.Go, r.OS, r.Arch, r.Cores = runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0)
	r.Load = loadAverage()
	r.EventCost, r.Startup, r.Void = []eventCost{}, []startup{}, []string{}
}

// count adds what a run lost and what came more than once.
func (r *benchReport) count(run string, lost, duplicated int64) {
	r.Lost += lost
	r.Duplicated += duplicated
	if lost > 0 && !slices.Contains(r.Void, run) {
		r.Void = append(r.Void, run)
	}
}

// bare adds one run of the bare loop.
func (r *benchReport) bare(bytes int, sent int64, took time.Duration) {
	r.Bytes, r.bareSent, r.bareTook = bytes, r.bareSent+sent, r.bareTook+took
	r.BarePerS = new(float64(r.bareSent) / r.bareTook.Seconds())
}

// finish withdraws what is void and computes the ratios.
func (r *benchReport) finish() {
	for run, figure := range map[string]**float64{
		"bare": &r.BarePerS, "engine": &r.EnginePerS, "api": &r.APIPerS, "drain": &r.DrainPerS, "history": &r.HistoryPerS, "nodes": &r.NodesPerS,
	} {
		if slices.Contains(r.Void, run) {
			*figure = nil
		}
	}
	r.EngineRatio = ratio(r.EnginePerS, r.BarePerS)
	r.APIRatio = ratio(r.APIPerS, r.BarePerS)
	r.DrainRatio = ratio(r.DrainPerS, r.BarePerS)
	r.NodesRatio = ratio(r.NodesPerS, r.BarePerS)
	r.HistoryRatio = ratio(r.HistoryPerS, r.BarePerS)
	r.NeighbourRatio = ratio(r.NeighbourP99, r.NeighbourAloneP99)
	if n := len(r.EventCost); n > 0 {
		r.WebhooksCost = ratio(&r.EventCost[n-1].CPUUS, &r.EventCost[0].CPUUS)
	}
}

// ratio is nil where it has no meaning.
func ratio(a, b *float64) *float64 {
	if a == nil || b == nil || *b == 0 {
		return nil
	}
	return new(*a / *b)
}

// table writes the figures for people. Figures that were not measured are left out.
func (r *benchReport) table(to io.Writer) error {
	fmt.Fprintf(to, "ticketwire %s, %s, %s/%s, %d cores, load average %.1f, %g s per run\n\n",
		r.Version, r.Go, r.OS, r.Arch, r.Cores, r.Load, r.Seconds)
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "figure\tvalue\tof bare loop")
	perS := func(what string, v, of *float64) { r.line(w, what, v, "%.0f/s", of) }
	perS(fmt.Sprintf("bare loop of signed POSTs of %d bytes, %d in flight", r.Bytes, benchInFlight), r.BarePerS, nil)
	perS("engine: changes delivered and recorded", r.EnginePerS, r.EngineRatio)
	perS("API: the same by PUT, 32 clients", r.APIPerS, r.APIRatio)
	perS(fmt.Sprintf("drain of %d committed changes", r.Backlog), r.DrainPerS, r.DrainRatio)
	r.line(w, "CPU of the engine run per 1,000 changes", r.CPUPer1000, "%.3f s", nil)
	r.line(w, "  of the server of the database", r.DatabaseCPUPer1000, "%.3f s", nil)
	r.line(w, "memory in the engine run, highest", r.RSSMB, "%.0f MB", nil)
	perS(fmt.Sprintf("nodes: API with %d on one database, %d webhooks", r.Nodes, benchShares), r.NodesPerS, r.NodesRatio)
	r.line(w, "  CPU of the nodes per 1,000 changes", r.NodesCPUPer1000, "%.3f s", nil)
	r.line(w, "  CPU of the server of the database", r.NodesDatabaseCPUPer1000, "%.3f s", nil)
	r.line(w, "latency at 50/s, p50", r.LatencyP50, "%.2f ms", nil)
	r.line(w, "latency at 50/s, p99", r.LatencyP99, "%.2f ms", nil)
	r.line(w, "one event to 10 webhooks", r.Fanout10, "%.1f ms", nil)
	r.line(w, "one event to 1,000 webhooks", r.Fanout1000, "%.1f ms", nil)
	r.line(w, "100 healthy webhooks alone, p99", r.NeighbourAloneP99, "%.2f ms", nil)
	r.line(w, fmt.Sprintf("beside a dead one with %d queued, p99", r.DeadQueue), r.NeighbourP99, "%.2f ms", nil)
	r.line(w, "  that is", r.NeighbourRatio, "%.2f times", nil)
	for _, c := range r.EventCost {
		r.line(w, fmt.Sprintf("CPU per event, %d of %d webhooks match%s", matching, c.Webhooks, r.small()), &c.CPUUS, "%.0f µs", nil)
	}
	r.line(w, "  most to fewest", r.WebhooksCost, "%.2f times", nil)
	for _, s := range r.Startup {
		what := fmt.Sprintf("start with %d pending%s: ", s.Pending, r.small())
		r.line(w, what+"ready", &s.ReadyMS, "%.0f ms", nil)
		r.line(w, what+"first delivery", &s.FirstMS, "%.0f ms", nil)
		r.line(w, what+"memory", &s.RSSMB, "%.0f MB", nil)
	}
	perS(fmt.Sprintf("engine behind %d rows of history%s", r.HistoryRows, r.small()), r.HistoryPerS, r.HistoryRatio)
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(to, "\nLost: %d   Arrived more than once: %d\n", r.Lost, r.Duplicated)
	if r.Quick {
		fmt.Fprintln(to, "(*) quick: far smaller than in a full run. Quote figures of a full run only.")
	}
	for _, run := range r.Void {
		fmt.Fprintln(to, "VOID:", run, "lost events")
	}
	return err
}

// line writes one figure unless it is missing.
func (r *benchReport) line(w io.Writer, what string, v *float64, format string, of *float64) {
	if v == nil {
		return
	}
	share := ""
	if of != nil {
		share = fmt.Sprintf("%.2f", *of)
	}
	fmt.Fprintf(w, "%s\t"+format+"\t%s\n", what, *v, share)
}

// small marks what a quick run has scaled down.
func (r *benchReport) small() string {
	if r.Quick {
		return " (*)"
	}
	return ""
}
