package e2e

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// allTicketEvents are the events that the service delivers.
var allTicketEvents = []string{
	"ticket.created", "ticket.updated", "ticket.status_changed", "ticket.assigned", "ticket.closed", "ticket.comment.added",
}

// line is what receiver.mjs prints.
type line struct {
	Listening string `json:"listening"`
	Processed string `json:"processed"`
	Duplicate string `json:"duplicate"`
	Rejected  string `json:"rejected"`
	EventID   string `json:"event_id"`
	EventType string `json:"event_type"`
	TicketID  string `json:"ticket_id"`
	Reacted   bool   `json:"reacted"`
	Attempt   string `json:"attempt"`
	V1s       int    `json:"v1s"`
}

// nodeReceiver is a running receiver.mjs and the webhook that calls it.
type nodeReceiver struct {
	*process
	hook hook
}

// processed returns what it has processed, by event id. Anything else that it
// printed fails the test.
func (r *nodeReceiver) processed(t *testing.T) map[string]line {
	t.Helper()
	out := map[string]line{}
	for _, l := range printedJSON[line](t, r.process) {
		switch {
		case l.Processed != "":
			if _, twice := out[l.Processed]; twice {
				t.Errorf("event %s was processed twice", l.Processed)
			}
			out[l.Processed] = l
		case l.Duplicate != "":
			t.Errorf("event %s arrived twice", l.Duplicate)
		case l.Rejected != "":
			t.Errorf("event %s was rejected: %s", l.EventID, l.Rejected)
		}
	}
	return out
}

// The guide's receiver, in Express, with both ways to read a repeated v1: every
// event arrives once and is verified, before, during and after a rotation.
func TestExpressReceivers(t *testing.T) {
	t.Parallel()
	for _, parser := range []string{"first", "last"} {
		t.Run(parser+" v1 wins", func(t *testing.T) {
			t.Parallel()
			d := openDesk(t)
			watched := []ticket{d.newTicket(t, "Printer offline"), d.newTicket(t, "VPN down")}
			other := d.newTicket(t, "Not ours")
			r := &nodeReceiver{process: script(t, "receiver.mjs",
				"SECRET=not known yet", "PARSER="+parser, "WATCHED="+watched[0].ID+","+watched[1].ID)}
			r.hook = d.subscribe(t, awaitJSON[line](t, r.process, "listening").Listening, nil, allTicketEvents...)
			r.setSecret(t, r.hook.Secret)

			before := d.feed(t, nil)
			d.work(t, watched[0], other)
			r.sawExactly(t, d, before, 1, watched)

			rotated := call[hook](t, d, "POST", "/webhooks/"+r.hook.ID+"/secret/rotate", object{"grace_period_seconds": 3600})
			before = d.feed(t, nil)
			d.retitle(t, watched[1].ID, "VPN down in the grace")
			r.sawExactly(t, d, before, 3, watched)

			call[any](t, d, "POST", "/webhooks/"+r.hook.ID+"/secret/promote", nil)
			r.setSecret(t, rotated.Secret)
			before = d.feed(t, nil)
			d.retitle(t, watched[1].ID, "VPN down after the rotation")
			r.sawExactly(t, d, before, 1, watched)

			// And the old secret is of no use any more.
			r.setSecret(t, r.hook.Secret)
			d.retitle(t, watched[1].ID, "VPN down for those who missed it")
			if got := awaitJSON[line](t, r.process, "rejected"); got.Rejected != "bad signature" {
				t.Errorf("after the rotation the old secret got %q", got.Rejected)
			}
		})
	}
}

// work is a day at the desk on two tickets: every kind of event at least once.
func (d *desk) work(t *testing.T, a, b ticket) {
	t.Helper()
	d.newTicket(t, "Another one")
	d.retitle(t, a.ID, "Printer offline in warehouse 3")
	call[ticket](t, d, "PUT", "/tickets/"+a.ID+"/assignment", object{"assigned_to": d.tenant.UserID})
	call[ticket](t, d, "PUT", "/tickets/"+a.ID+"/status", object{"status_id": d.tenant.Statuses["In Progress"]})
	call[any](t, d, "POST", "/tickets/"+a.ID+"/comments", object{"comment_text": "Turned it off and on again."})
	call[ticket](t, d, "PUT", "/tickets/"+a.ID, object{"status_id": d.tenant.Statuses["Closed"]})
	d.retitle(t, b.ID, "Not ours, renamed")
}

// wantOfWork are the events that work makes, by type.
var wantOfWork = map[string]int{
	"ticket.created": 1, "ticket.updated": 5, "ticket.status_changed": 2, "ticket.assigned": 1,
	"ticket.closed": 1, "ticket.comment.added": 1,
}

func (r *nodeReceiver) setSecret(t *testing.T, secret string) {
	t.Helper()
	done := len(linesWith(r.process, `{"replaced":`))
	r.tell(t, fmt.Sprintf(`{"secret":%q}`, secret))
	eventually(t, "the receiver has its new secret", func() bool { return len(linesWith(r.process, `{"replaced":`)) > done })
}

func linesWith(p *process, prefix string) []string {
	return slices.DeleteFunc(p.printed(), func(l string) bool { return !strings.HasPrefix(l, prefix) })
}

// sawExactly waits until the receiver has every event of the feed that is not in
// before, and checks that it got each once, at the first attempt, under a header
// with v1s signatures, and reacted to the watched tickets only.
func (r *nodeReceiver) sawExactly(t *testing.T, d *desk, before []event, v1s int, watched []ticket) {
	t.Helper()
	fresh := d.feed(t, nil)[len(before):]
	if len(fresh) > 1 {
		types := map[string]int{}
		for _, e := range fresh {
			types[e.Type]++
		}
		if !maps.Equal(types, wantOfWork) {
			t.Errorf("the changes made the events %v, want %v", types, wantOfWork)
		}
	}
	var got map[string]line
	eventually(t, "every event is processed", func() bool {
		got = r.processed(t)
		return t.Failed() || !slices.ContainsFunc(fresh, func(e event) bool { return got[e.ID].Processed == "" })
	})
	for _, e := range fresh {
		want := line{
			Processed: e.ID, EventType: e.Type, TicketID: e.Data.TicketID, Attempt: "1", V1s: v1s,
			Reacted: slices.ContainsFunc(watched, func(w ticket) bool { return w.ID == e.Data.TicketID }),
		}
		if got[e.ID] != want {
			t.Errorf("event %s arrived as %+v, want %+v", e.ID, got[e.ID], want)
		}
	}
}

// The loop that the guide starts from: what webhooks replace has to go on
// working during the cutover. It sees changes, not events, and pays for every
// look.
func TestPollerOfTheGuide(t *testing.T) {
	t.Parallel()
	d := openDesk(t)
	var ids []string
	for i := range 6 {
		ids = append(ids, d.newTicket(t, fmt.Sprintf("Watched %d", i)).ID)
	}
	p := script(t, "poller.mjs", "API_URL="+d.url, "API_KEY="+d.tenant.APIKey, "WATCHED="+strings.Join(ids, ","))
	awaitJSON[object](t, p, "ready")
	type round struct {
		Requests int      `json:"requests"`
		Failed   int      `json:"failed"`
		Changed  []string `json:"changed"`
	}
	rounds := 0
	look := func(want ...string) {
		t.Helper()
		rounds++
		p.tell(t, "now")
		eventually(t, "the round is over", func() bool { return len(linesWith(p, `{"requests":`)) == rounds })
		all := printedJSON[round](t, p)
		got := all[len(all)-1]
		if got.Requests != 6 || got.Failed != 0 || !slices.Equal(got.Changed, want) {
			t.Errorf("round %d: %+v, want 6 requests and changes of %v", rounds, got, want)
		}
	}
	look()
	d.retitle(t, ids[1], "Changed once")
	d.retitle(t, ids[4], "Changed twice")
	d.retitle(t, ids[4], "Changed twice, seen once")
	look(ids[1], ids[4])
	look()
	if got := len(d.feed(t, url.Values{"types": {"ticket.updated"}})); got != 3 {
		t.Errorf("the feed has %d updates, want 3: it has what the poller cannot see", got)
	}
}
