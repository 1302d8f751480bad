package console

import (
	"net/http"
	"net/url"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
)

func replayRoutes() []route {
	return []route{
		{"GET /console/webhooks/{id}/replay", "webhook", "retry", (*visit).replayForm},
		{"POST /console/webhooks/{id}/replay", "webhook", "retry", (*visit).startReplay},
		{"GET /console/webhooks/{id}/replays/{replay}", "webhook", "read", (*visit).showReplay},
		{"GET /console/webhooks/{id}/replays/{replay}/progress", "webhook", "read", (*visit).replayProgress},
		{"POST /console/webhooks/{id}/replays/{replay}/cancel", "webhook", "retry", (*visit).cancelReplay},
	}
}

// replayPage is the form of a replay, and what it would send.
type replayPage struct {
	Webhook, Name string
	Form          url.Values
	Count         *store.ReplayCount // nil before it was counted
	Error         string
}

func (v *visit) replayForm() error {
	return v.replayPage(url.Values{"from": {v.now.UTC().AddDate(0, 0, -1).Format("2006-01-02T15:04")}}, nil, nil)
}

func (v *visit) replayPage(form url.Values, count *store.ReplayCount, problem error) error {
	w, err := v.store().Webhook(v.ctx, v.tenant(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	p := replayPage{Webhook: w.WebhookID, Name: w.Name, Form: form, Count: count}
	status := http.StatusOK
	if problem != nil {
		p.Error, status = messageOf(problem), fault.KindOf(problem).HTTPStatus()
	}
	return v.page(status, "replay", "webhooks", "Replay", p)
}

// startReplay counts first, and starts the job only when the visitor has seen the
// count.
func (v *visit) startReplay() error {
	f, id := v.form, v.r.PathValue("id")
	from, to, err := times(f)
	q := store.ReplayQuery{Until: to, Only: store.ReplayFailed}
	if f.Get("only") == store.ReplayAll {
		q.Only = store.ReplayAll
	}
	switch {
	case err != nil:
	case from == nil:
		err = fault.Field("from", "say from when on")
	case from.After(v.now):
		err = fault.Field("from", "is in the future")
	case to != nil && to.Before(*from):
		err = fault.Field("to", "is before from")
	case to != nil && to.After(v.now):
		q.Until = nil // the end of this minute, or of today
		q.Since = *from
	default:
		q.Since = *from
	}
	if err == nil && !f.Has("start") {
		var n store.ReplayCount
		if n, err = v.store().CountReplay(v.ctx, v.now, v.tenant(), id, q); err == nil {
			return v.replayPage(f, &n, nil)
		}
	}
	var job store.Replay
	if err == nil {
		if job, err = v.store().StartReplay(v.ctx, v.now, v.tenant(), id, q); err == nil {
			return v.redirect("/console/webhooks/"+id+"/replays/"+job.ReplayID, "replaying")
		}
	}
	if formFailed(err) {
		return v.replayPage(f, nil, err)
	}
	return err
}

// jobPage is a replay job.
type jobPage struct {
	store.Replay
	Name string
}

func (v *visit) job() (jobPage, error) {
	job, err := v.store().Replay(v.ctx, v.tenant(), v.r.PathValue("id"), v.r.PathValue("replay"))
	return jobPage{Replay: job}, err
}

func (v *visit) showReplay() error {
	p, err := v.job()
	if err != nil {
		return err
	}
	w, err := v.store().Webhook(v.ctx, v.tenant(), p.WebhookID)
	if err != nil {
		return err
	}
	p.Name = w.Name
	return v.page(http.StatusOK, "job", "webhooks", "Replay", p)
}

func (v *visit) replayProgress() error {
	p, err := v.job()
	if err != nil {
		return err
	}
	return v.part("job", "progress", p)
}

func (v *visit) cancelReplay() error {
	id, job := v.r.PathValue("id"), v.r.PathValue("replay")
	_, err := v.store().CancelReplay(v.ctx, v.now, v.tenant(), id, job)
	if err != nil && !fault.Is(err, fault.Conflict) { // it has ended meanwhile: its page says so
		return err
	}
	return v.redirect("/console/webhooks/"+id+"/replays/"+job, "")
}
