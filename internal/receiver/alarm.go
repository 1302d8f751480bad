package receiver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ticketwire/ticketwire/client"
)

// Kind says what an alarm is about.
type Kind string

// The kinds of alarms.
const (
	Silent    Kind = "silence" // no event came for so long
	Disabled  Kind = "webhook" // the webhook is disabled or gone at its server
	Unwatched Kind = "server"  // the server did not say how the webhook is, several times in a row
	Unstored  Kind = "store"   // the inbox, the record or the data directory cannot be written
)

// Alarm is something that a person should know.
type Alarm struct {
	At   time.Time `json:"at"`
	Kind Kind      `json:"kind"`
	Over bool      `json:"over"` // it has ended
	Text string    `json:"text"`
}

// LearnSilence is the value of Config.Silence that takes the limit from the
// traffic: half as long again as the longest pause between two events in the
// last two weeks, and ten minutes at least. For the first day, and before twenty
// events have come, there is no limit.
const LearnSilence time.Duration = -1

// alarms knows which alarms are on. Safe for concurrent use.
type alarms struct {
	r     *Receiver
	queue chan Alarm

	mu       sync.Mutex
	on       map[Kind]bool
	failures int // questions in a row that the server did not answer; of watch alone
}

const (
	askTimeout  = 30 * time.Second
	askFailures = 3 // unanswered questions in a row that are an alarm
	queuedMost  = 64
)

func newAlarms(r *Receiver) *alarms {
	return &alarms{r: r, on: map[Kind]bool{}, queue: make(chan Alarm, queuedMost)}
}

// set begins an alarm, or ends it where text is empty. An alarm that is on
// already is not raised again.
func (a *alarms) set(kind Kind, text string) {
	a.mu.Lock()
	was := a.on[kind]
	a.on[kind] = text != ""
	a.mu.Unlock()
	if was == (text != "") {
		return
	}
	alarm := Alarm{At: a.r.cfg.Now().UTC().Truncate(time.Millisecond), Kind: kind, Over: was, Text: text}
	if was {
		alarm.Text = "over"
		a.r.log.Info("alarm is over", "alarm", string(kind))
	} else {
		a.r.log.Error("alarm", "alarm", string(kind), "text", text)
	}
	select {
	case a.queue <- alarm:
	default: // whoever is called hangs; the log has it
	}
}

func (a *alarms) isOn(kind Kind) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.on[kind]
}

// tell calls who wants to know.
func (a *alarms) tell() {
	for {
		select {
		case alarm := <-a.queue:
			if a.r.cfg.OnAlarm != nil {
				a.r.cfg.OnAlarm(a.r.quit, alarm)
			}
		case <-a.r.quit.Done():
			return
		}
	}
}

// watch looks for silence, and asks the server, from outside of the handler: it
// is not called while nothing comes.
func (a *alarms) watch() {
	look := time.NewTicker(a.lookEvery())
	defer look.Stop()
	var ask <-chan time.Time
	if w := a.r.cfg.Watch; w != nil {
		ticker := time.NewTicker(w.Every)
		defer ticker.Stop()
		ask = ticker.C
		a.ask()
	}
	for {
		select {
		case <-look.C:
			a.listen()
		case <-ask:
			a.ask()
		case <-a.r.quit.Done():
			return
		}
	}
}

// lookEvery is often enough to be late by a tenth at most.
func (a *alarms) lookEvery() time.Duration {
	if s := a.r.cfg.Silence; s > 0 {
		return min(max(s/10, 10*time.Millisecond), beatEvery)
	}
	return beatEvery
}

// listen raises the alarm of silence, with what the server says about it.
func (a *alarms) listen() {
	now := a.r.cfg.Now()
	limit := a.r.cfg.Silence
	if limit == LearnSilence {
		limit = a.r.pulse.usual(now)
	}
	quiet := now.Sub(a.r.pulse.quietSince())
	if limit == 0 || quiet < limit {
		a.set(Silent, "")
		return
	}
	if a.isOn(Silent) {
		return
	}
	text := fmt.Sprintf("no event came for %s; the limit is %s", quiet.Round(time.Millisecond), limit)
	if a.r.cfg.Watch != nil {
		text += "; " + a.ask()
	}
	a.set(Silent, text)
}

// ask asks the server for the webhook and returns what it says.
func (a *alarms) ask() string {
	w := a.r.cfg.Watch
	ctx, cancel := context.WithTimeout(a.r.quit, askTimeout)
	defer cancel()
	hook, err := w.API.Webhook(ctx, w.WebhookID)
	if a.r.quit.Err() != nil {
		return "the receiver is stopping"
	}
	answer, is := errors.AsType[*client.Error](err)
	gone := is && answer.Status == http.StatusNotFound && answer.Code != ""
	if err != nil && !gone {
		a.failures++
		a.r.log.Warn("the server does not say how the webhook is", "error", err)
		text := fmt.Sprintf("the server does not say how the webhook is: %v", err)
		if a.failures >= askFailures {
			a.set(Unwatched, text)
		}
		return text
	}
	a.failures = 0
	a.set(Unwatched, "")
	if gone {
		text := fmt.Sprintf("the webhook %s is not there any more", w.WebhookID)
		a.set(Disabled, text)
		return text
	}
	text := stateOf(hook)
	if hook.IsActive {
		a.set(Disabled, "")
	} else {
		a.set(Disabled, text)
	}
	return text
}

// stateOf says in a few words how a webhook is.
func stateOf(h *client.Webhook) string {
	text := "the server says that the webhook is enabled"
	if !h.IsActive {
		text = "the server says that the webhook is disabled"
	}
	var more []string
	for _, x := range []struct {
		what string
		at   *time.Time
	}{{"disabled for its failures", h.AutoDisabledAt}, {"last success", h.LastSuccessAt}, {"last failure", h.LastFailureAt}} {
		if x.at != nil {
			more = append(more, x.what+" "+x.at.UTC().Format(time.RFC3339))
		}
	}
	return strings.Join(slices.Insert(more, 0, text), ", ")
}
