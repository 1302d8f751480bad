package console

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/webhook"
)

func resendRoutes() []route {
	return []route{
		{"POST /console/deliveries/resend", "webhook", "retry", (*visit).resendTicked},
		{"GET /console/deliveries/resend", "webhook", "read", (*visit).showResent},
	}
}

// resendPage is what the ticked rows of the log come to, before they are sent and,
// where not all of it can begin, afterwards.
type resendPage struct {
	Ticked []string // ids of deliveries
	All    bool     // what was delivered is sent once more
	Begun  bool     // some of it is being sent, and Ticked is the rest
	Lanes  []*resendLane
	List   string // the query of the list in which they were ticked
	Error  string
}

// resendLane is the part that goes to one webhook.
type resendLane struct {
	Webhook string // its id
	Name    string
	Count   store.ReplayCount
	Left    []leftRow // what is not sent
	Problem string    // why nothing of it can be sent now; "" if it can
	Replay  string    // the id of the job that sends it; "" before
	ids     []string  // of its ticked deliveries
	events  []string
	ticked  []deliveryRow // the newest ticked row of each event
}

// leftRow is a row that is not sent again, and why.
type leftRow struct {
	deliveryRow
	Why string
}

// Back is the address of the list.
func (p *resendPage) Back() string {
	if p.List == "" {
		return "/console/deliveries"
	}
	return "/console/deliveries?" + p.List
}

// Total is how many events would be sent.
func (p *resendPage) Total() (n int) {
	for _, l := range p.Lanes {
		if l.Problem == "" {
			n += l.Count.Total()
		}
	}
	return n
}

// LeftAlone is how many would not be.
func (p *resendPage) LeftAlone() (n int) {
	for _, l := range p.Lanes {
		if n += len(l.Left); l.Problem != "" {
			n += len(l.events) - len(l.Count.Left) // which are in l.Left
		}
	}
	return n
}

// leftBecause says in words why a row is not sent again.
func leftBecause(reason string) string {
	switch reason {
	case store.LeftDelivered:
		return "was delivered"
	case store.LeftPending:
		return "is waiting for its next attempt anyway"
	case store.LeftNotOwed:
		return "was never meant for this webhook"
	case store.LeftExpired:
		return "is too old: the log may have forgotten what became of it"
	case store.LeftUnknown:
		return "is not in the event feed any more"
	}
	return reason
}

// resendTicked counts first, and sends only when the visitor has seen the count.
// Each webhook has a replay of its own.
func (v *visit) resendTicked() error {
	p := resendPage{
		Ticked: slices.Compact(slices.Sorted(slices.Values(v.form["delivery"]))), All: v.form.Get("only") == store.ReplayAll,
	}
	if list, err := url.ParseQuery(v.form.Get("list")); err == nil {
		p.List = list.Encode()
	}
	switch n := len(p.Ticked); {
	case n == 0:
		p.Error = "Tick the deliveries that are to be sent again first."
	case n > store.MaxReplayEvents:
		p.Error = "At most " + num(store.MaxReplayEvents) + " deliveries can be sent again at once; replay a time for more."
	}
	if p.Error != "" {
		return v.page(http.StatusBadRequest, "resend", "deliveries", "Send again", &p)
	}
	if err := v.lanesOf(&p); err != nil {
		return err
	}
	for _, l := range p.Lanes {
		if err := v.countLane(l, p.query(l)); err != nil {
			return err
		}
	}
	slices.SortStableFunc(p.Lanes, func(a, b *resendLane) int { return cmp.Compare(min(b.Count.Total(), 1), min(a.Count.Total(), 1)) })
	if !v.form.Has("start") {
		return v.page(http.StatusOK, "resend", "deliveries", "Send again", &p)
	}
	return v.startResend(&p)
}

func (p *resendPage) query(l *resendLane) store.ReplayQuery {
	q := store.ReplayQuery{EventIDs: l.events, Only: store.ReplayFailed}
	if p.All {
		q.Only = store.ReplayAll
	}
	return q
}

// lanesOf sorts what was ticked by webhook. An event is sent once, however many of
// its attempts were ticked. Tests are no events and cannot be replayed.
func (v *visit) lanesOf(p *resendPage) error {
	lanes := map[string]*resendLane{}
	for _, id := range slices.Backward(p.Ticked) { // the newest first: ids grow with time
		d, err := v.store().FindDelivery(v.ctx, v.tenant(), id)
		if err != nil {
			return err
		}
		row := rowsOf([]delivery.Delivery{d})[0]
		l := lanes[d.WebhookID]
		if l == nil {
			l = &resendLane{Webhook: d.WebhookID}
			lanes[d.WebhookID], p.Lanes = l, append(p.Lanes, l)
		}
		l.ids = append(l.ids, id)
		switch {
		case d.EventType == webhook.Test:
			l.Left = append(l.Left, leftRow{row, "was a test: send a new one from the page of the webhook"})
		case !slices.Contains(l.events, d.EventID):
			l.events, l.ticked = append(l.events, d.EventID), append(l.ticked, row)
		}
	}
	return nil
}

// countLane says what would be sent to a webhook, and why not.
func (v *visit) countLane(l *resendLane, q store.ReplayQuery) error {
	w, err := v.store().Webhook(v.ctx, v.tenant(), l.Webhook)
	if fault.Is(err, fault.NotFound) {
		l.Webhook, l.Name, l.Problem = "", "A deleted webhook", "It was deleted, and gets nothing any more."
		return nil
	}
	if err != nil {
		return err
	}
	l.Name = w.Name
	if len(l.events) == 0 {
		return nil
	}
	l.Count, err = v.store().CountReplay(v.ctx, v.now, v.tenant(), l.Webhook, q)
	if formFailed(err) {
		l.Problem = messageOf(err)
		return nil
	}
	for _, left := range l.Count.Left {
		row := l.ticked[slices.Index(l.events, left.EventID)]
		l.Left = append(l.Left, leftRow{row, leftBecause(left.Reason)})
	}
	return err
}

// startResend begins the replays and shows how they go on, or which could not begin.
func (v *visit) startResend(p *resendPage) error {
	failed := false
	var jobs []string
	for _, l := range p.Lanes {
		if l.Problem != "" || l.Count.Total() == 0 {
			continue
		}
		job, err := v.store().StartReplay(v.ctx, v.now, v.tenant(), l.Webhook, p.query(l))
		switch {
		case formFailed(err):
			l.Problem, failed = messageOf(err), true
		case err != nil:
			return err
		default:
			l.Replay, jobs = job.ReplayID, append(jobs, l.Webhook+"."+job.ReplayID)
		}
	}
	switch {
	case failed || len(jobs) == 0:
		// The page goes on with the rest: what has begun is not sent once more.
		p.Begun, p.Ticked = len(jobs) > 0, nil
		for _, l := range p.Lanes {
			if l.Replay == "" {
				p.Ticked = append(p.Ticked, l.ids...)
			}
		}
		return v.page(http.StatusConflict, "resend", "deliveries", "Send again", p)
	case len(jobs) == 1:
		hook, job, _ := strings.Cut(jobs[0], ".")
		return v.redirect("/console/webhooks/"+hook+"/replays/"+job, "resending")
	}
	return v.redirect("/console/deliveries/resend?"+url.Values{"job": jobs}.Encode(), "resending")
}

// showResent shows several replays beside each other.
func (v *visit) showResent() error {
	var jobs []jobPage
	for _, pair := range v.r.URL.Query()["job"] {
		hook, id, _ := strings.Cut(pair, ".")
		if len(jobs) == store.MaxReplayEvents {
			break
		}
		job, err := v.store().Replay(v.ctx, v.tenant(), hook, id)
		if err != nil {
			return err
		}
		w, err := v.store().Webhook(v.ctx, v.tenant(), hook)
		if err != nil {
			return err
		}
		jobs = append(jobs, jobPage{Replay: job, Name: w.Name})
	}
	if len(jobs) == 0 {
		return v.redirect("/console/deliveries", "")
	}
	return v.page(http.StatusOK, "resent", "deliveries", "Sent again", jobs)
}
