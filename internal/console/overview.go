package console

import (
	"net/http"
	"time"

	"github.com/ticketwire/ticketwire/internal/store"
)

func overviewRoutes() []route {
	return []route{
		{"GET /console/overview", "webhook", "analytics", (*visit).showOverview},
		{"GET /console/overview/live", "webhook", "analytics", (*visit).liveOverview},
	}
}

// overview is how everything is doing.
type overview struct {
	Range     string // hour or day
	Rates     chart
	Latencies chart
	Now       string // attempts per minute at the moment
	Success   string
	Attempts  int64
	P50, P95  string
	Owed      store.Queue
	Overdue   bool // something has been due for a while
	Hooks     []hookView
	Troubled  bool // some of them need somebody
	Keys      []keyView
}

// overdue is how long something may be due before it is worth a word.
const overdue = 10 * time.Second

func (v *visit) overview() (overview, error) {
	o := overview{Range: "hour"}
	width, n := time.Minute, 60
	if v.r.URL.Query().Get("range") == "day" {
		o.Range, width, n = "day", 15*time.Minute, 96
	}
	minutes, err := v.store().Traffic(v.ctx, v.tenant(), v.now.Add(-time.Duration(n)*width))
	if err != nil {
		return o, err
	}
	bins := binsOf(minutes, v.now, width, n)
	o.Rates, o.Latencies = rates(bins, width, "15:04"), latencies(bins, "15:04")
	all := sum(bins)
	o.Attempts = all.Delivered + all.Failed
	o.Success, o.P50, o.P95 = "–", "–", "–"
	if o.Attempts > 0 {
		o.Success = percent(float64(all.Delivered) / float64(o.Attempts))
		p50, _ := all.quantile(.5)
		p95, _ := all.quantile(.95)
		o.P50, o.P95 = milliseconds(p50), milliseconds(p95)
	}
	last := binsOf(minutes, v.now, time.Minute, 5)
	five := sum(last)
	o.Now = trimmed(float64(five.Delivered+five.Failed) / 5)
	if o.Owed, err = v.store().Owed(v.ctx, v.tenant()); err != nil {
		return o, err
	}
	o.Overdue = o.Owed.OldestDue != nil && v.now.Sub(*o.Owed.OldestDue) > overdue
	if v.who.Check("webhook", "read") == nil {
		list, _, err := v.store().Webhooks(v.ctx, v.tenant(), store.WebhookQuery{WorstFirst: true, Limit: 8})
		if err != nil {
			return o, err
		}
		if o.Hooks, err = v.hookViews(list); err != nil {
			return o, err
		}
		for i := range o.Hooks {
			o.Troubled = o.Troubled || o.Hooks[i].Kind() != "good"
		}
	}
	if v.who.Check("api_key", "read") == nil {
		keys, err := v.keys()
		if err != nil {
			return o, err
		}
		for _, k := range keys {
			if k.Near != "" {
				o.Keys = append(o.Keys, k)
			}
		}
	}
	return o, nil
}

func (v *visit) showOverview() error {
	o, err := v.overview()
	if err != nil {
		return err
	}
	return v.page(http.StatusOK, "overview", "overview", "Overview", o)
}

// liveOverview sends the overview again every two seconds.
func (v *visit) liveOverview() error {
	return v.live(2*time.Second, func() (message, error) {
		o, err := v.overview()
		if err != nil {
			return message{}, err
		}
		body, err := v.fragment("overview", "live", o)
		return message{body: body}, err
	})
}
