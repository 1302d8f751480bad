package crash

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

// perWebhook is how many requests one webhook may have in flight (the default
// of --per-webhook): so many can be sent twice when the server is killed.
const perWebhook = 16

// evidence is what a case has left: the ledger, what arrived, and when the server was
// away.
type evidence struct {
	desk     *desk
	acked    []change
	arrivals []*arrival
	hooks    []hook
	types    []string // the events that the hooks get
	secrets  []string // that were in force at some time, beside those of hooks
	ownClock bool     // the servers had another clock than the receivers
}

// verdict is what the evidence says.
type verdict struct {
	acked, events, requests int
	lost                    int           // acknowledged changes or events of the feed that a webhook never got
	repeats                 int           // requests that came again because of a crash
	most                    int           // repeats after one crash
	recovery                time.Duration // longest time from ready to the last interrupted delivery
	down                    time.Duration // longest time from a kill to ready
}

func (v verdict) String() string {
	return fmt.Sprintf("%d acknowledged changes, %d events, %d requests: %d lost, %d repeated (at most %d after one crash), "+
		"ready again after %s, last interrupted delivery %s later",
		v.acked, v.events, v.requests, v.lost, v.repeats, v.most,
		v.down.Round(time.Millisecond), v.recovery.Round(time.Millisecond))
}

type key struct{ hook, id string }

// judge compares everything with everything. It is an error when
//   - an acknowledged change has no event in the feed, or an event of the feed
//     has not arrived at each webhook;
//   - something arrived that is not in the feed, or is another tenant's;
//   - an event came with two bodies, or a signature is wrong;
//   - a delivery was repeated without a crash between, or more often after one
//     crash than can have been in flight.
func judge(t *testing.T, e evidence) verdict {
	t.Helper()
	feed := e.desk.feed(t, e.types...)
	v := verdict{acked: len(e.acked), events: len(feed), requests: len(e.arrivals)}
	first := e.first(t)
	v.lost = e.lost(t, feed, first)
	e.signatures(t)
	e.repeats(t, &v)
	e.recovery(first, &v)
	for _, o := range e.desk.outages {
		v.down = max(v.down, o.ready.Sub(o.down))
	}
	return v
}

// first returns what arrived first of each event at each webhook. All that comes
// later has the same bytes, and nothing is another tenant's.
func (e *evidence) first(t *testing.T) map[key]*arrival {
	t.Helper()
	first := map[key]*arrival{}
	for _, a := range e.arrivals {
		k := key{a.hook, a.event.ID}
		if b := first[k]; b == nil {
			first[k] = a
		} else if !bytes.Equal(a.body, b.body) {
			t.Errorf("event %s came with two bodies:\n%s\n%s", a.event.ID, a.body, b.body)
		}
		if a.event.Tenant != e.desk.tenant.ID {
			t.Errorf("event %s of tenant %s arrived at a webhook of tenant %s", a.event.ID, a.event.Tenant, e.desk.tenant.ID)
		}
	}
	return first
}

// lost counts what is missing and reports the first few.
func (e *evidence) lost(t *testing.T, feed []event, first map[key]*arrival) (lost int) {
	t.Helper()
	miss := func(format string, args ...any) {
		if lost++; lost <= 5 {
			t.Errorf(format, args...)
		}
	}
	known, changes := map[string]bool{}, map[change]bool{}
	for _, ev := range feed {
		known[ev.ID] = true
		changes[change{ticket: ev.Data.TicketID, updatedAt: ev.Data.UpdatedAt}] = true
		for _, h := range e.hooks {
			if first[key{h.ID, ev.ID}] == nil {
				miss("event %s (%s) never arrived at webhook %s", ev.ID, ev.Data.Title, h.ID)
			}
		}
	}
	for _, c := range e.acked {
		if !changes[change{ticket: c.ticket, updatedAt: c.updatedAt}] {
			miss("the change of ticket %s at %s was acknowledged and is in no event", c.ticket, c.updatedAt)
		}
	}
	for k := range first {
		if !known[k.id] {
			t.Errorf("event %s arrived and is not in the feed", k.id)
		}
	}
	if lost > 5 {
		t.Errorf("%d lost in all", lost)
	}
	return lost
}

func (e *evidence) signatures(t *testing.T) {
	t.Helper()
	secrets := e.secrets
	for _, h := range e.hooks {
		secrets = append(secrets, h.Secret)
	}
	wrong := 0
	for _, a := range e.arrivals {
		at := a.at
		if seconds, err := strconv.ParseInt(strings.TrimPrefix(stamp(a.signature), "t="), 10, 64); e.ownClock && err == nil {
			at = time.Unix(seconds, 0)
		}
		if err := webhook.Verify(a.signature, a.body, at, secrets...); err != nil {
			if wrong++; wrong <= 5 {
				t.Errorf("the signature of event %s: %v", a.event.ID, err)
			}
		}
	}
}

// repeats attributes every delivery that came twice to the outage between.
func (e *evidence) repeats(t *testing.T, v *verdict) {
	t.Helper()
	before := map[key]*arrival{} // by delivery
	after := make([]int, len(e.desk.outages))
	for _, a := range e.arrivals {
		k := key{a.hook, a.delivery}
		b := before[k]
		before[k] = a
		if b == nil {
			continue
		}
		v.repeats++
		if a.attempt != b.attempt {
			t.Errorf("delivery %s was attempt %d and is attempt %d: a crash uses up no attempt", a.delivery, b.attempt, a.attempt)
		}
		i := e.between(b.at, a.at)
		if i < 0 {
			t.Errorf("delivery %s was sent twice, and no crash was between", a.delivery)
			continue
		}
		after[i]++
	}
	for _, n := range after {
		v.most = max(v.most, n)
	}
	if limit := perWebhook * len(e.hooks); v.most > limit {
		t.Errorf("%d deliveries were repeated after one crash; %d can have been in flight", v.most, limit)
	}
}

// between returns the last outage between two requests, or -1. What a dying
// server had written is read by the receiver after its end, and a request may be
// there a moment before the new server says that it is ready.
func (e *evidence) between(a, b time.Time) int {
	for i, o := range slices.Backward(e.desk.outages) {
		if b.After(o.down) {
			if a.Before(o.ready) {
				return i
			}
			break
		}
	}
	return -1
}

// recovery measures how long after the restart the last delivery went out that
// the outage had interrupted: one that was repeated, or that was acknowledged
// before and first sent after it.
func (e *evidence) recovery(first map[key]*arrival, v *verdict) {
	note := func(before time.Time, a *arrival) {
		if i := e.between(before, a.at); i >= 0 {
			v.recovery = max(v.recovery, a.at.Sub(e.desk.outages[i].ready))
		}
	}
	events := map[change]key{}
	for k, a := range first {
		events[change{ticket: a.event.Data.TicketID, updatedAt: a.event.Data.UpdatedAt}] = k
	}
	for _, c := range e.acked {
		if k, arrived := events[change{ticket: c.ticket, updatedAt: c.updatedAt}]; arrived {
			note(c.at, first[k])
		}
	}
	last := map[key]*arrival{}
	for _, a := range e.arrivals {
		k := key{a.hook, a.delivery}
		if b := last[k]; b != nil {
			note(b.at, a)
		}
		last[k] = a
	}
}
