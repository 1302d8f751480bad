package cutover

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

// A scene is a world in which one thing happens. Ticket a is watched, ticket b is
// not; both are there since an hour before the poller starts at 9:00, and the
// record ends at 11:00. Everything of interest happens at 9:30:10.
type scene struct {
	*world
	t *testing.T
}

var happens = day.Truncate(time.Hour).Add(30*time.Minute + 10*time.Second)

// changed lets a ticket change at happens + after, in a state of its own.
func (s *scene) changed(ticket string, after time.Duration) *worldChange {
	c := &worldChange{ticket: ticket, at: happens.Add(after), n: len(s.changes)}
	s.changes = append(s.changes, c)
	return c
}

// event is an event of the change, 20 ms after it, that the feed has.
func (s *scene) event(c *worldChange, id string) *worldEvent {
	return &worldEvent{change: c, id: id, typ: webhook.TicketUpdated, occurred: c.at.Add(20 * time.Millisecond)}
}

// fed puts an event into the feed.
func (s *scene) fed(e *worldEvent) *worldEvent {
	fields, hash, err := stateOf(e.change.data())
	if err != nil {
		s.t.Fatal(err)
	}
	s.entries = append(s.entries, Entry{Truth: &Truth{
		At: e.occurred.Add(20 * time.Second), Source: TruthOfFeed, EventID: e.id, EventType: e.typ, OccurredAt: micros(e.occurred),
		Ticket: e.change.ticket, UpdatedAt: micros(e.change.at), Hash: hash, Fields: fields,
	}})
	return e
}

// got lets the receiver get an event some time after it occurred, as delivery
// id-attempt.
func (s *scene) got(e *worldEvent, after time.Duration, attempt int, mods ...func(*Receipt)) {
	_, hash, err := stateOf(e.change.data())
	if err != nil {
		s.t.Fatal(err)
	}
	r := &Receipt{
		At: e.occurred.Add(after), Done: e.occurred.Add(after + time.Millisecond), HTTP: 200, Outcome: string(webhook.Kept), Signed: true,
		EventID: e.id, EventType: e.typ, DeliveryID: fmt.Sprintf("%s-%d", e.id, attempt), Attempt: attempt, OccurredAt: micros(e.occurred),
		Ticket: e.change.ticket, UpdatedAt: micros(e.change.at), Hash: hash, BodyHash: "b" + e.id,
		Body: fmt.Sprintf(`{"data":%s}`, e.change.data()),
	}
	for _, mod := range mods {
		mod(r)
	}
	s.entries = append(s.entries, Entry{Receipt: r})
}

// logged puts an attempt into the log.
func (s *scene) logged(e *worldEvent, attempt int, status string, mods ...func(*Delivery)) {
	at := e.occurred.Add(time.Second)
	d := &Delivery{
		At: at.Add(15 * time.Second), WebhookID: "w", DeliveryID: fmt.Sprintf("%s-%d", e.id, attempt), EventID: e.id, EventType: e.typ,
		Attempt: attempt, Status: status, AttemptedAt: at, CompletedAt: at.Add(5 * time.Millisecond),
	}
	for _, mod := range mods {
		mod(d)
	}
	s.entries = append(s.entries, Entry{Delivery: d})
}

// refusedWith makes a receipt one of a request that the receiver refused.
func refusedWith(status int, outcome webhook.Outcome) func(*Receipt) {
	return func(r *Receipt) {
		r.HTTP, r.Outcome, r.Signed = status, string(outcome), outcome == webhook.ReactionFailed
		if !r.Signed {
			r.OccurredAt, r.UpdatedAt, r.Ticket, r.Hash, r.Body = time.Time{}, time.Time{}, "", "", ""
		}
	}
}

// of finds the class of "change N", "event ID", "receipt DELIVERY", "truth
// TICKET", "poll", "gap" or "entry".
func (s *scene) of(r *Report, what string) Class {
	kind, id, _ := strings.Cut(what, " ")
	var found []Class
	for _, row := range r.Rows {
		name := map[Kind]string{EventKnown: row.EventID, CopyGot: row.DeliveryID, StateRead: row.Ticket}[row.Kind]
		if row.Kind == ChangeSeen {
			for _, c := range s.changes {
				if row.UpdatedAt.Equal(micros(webhook.At(c.at).Time)) && row.Ticket == c.ticket {
					name = fmt.Sprint(c.n)
				}
			}
		}
		if row.Kind == Kind(kind) && name == id {
			found = append(found, row.Class)
		}
	}
	found = slices.Compact(found)
	if len(found) != 1 {
		s.t.Errorf("%s has the classes %v", what, found)
		return ""
	}
	return found[0]
}

// TestClasses has what the record says of each class, and of its neighbours.
func TestClasses(t *testing.T) {
	t.Parallel()
	noFeed := func(s *scene) {
		s.without(TopicFeed)
	}
	noLog := func(s *scene) {
		s.without(TopicDeliveries)
	}
	types := func(types ...string) func(*scene) {
		return func(s *scene) {
			for _, e := range s.entries {
				if e.Subscription != nil {
					e.Subscription.EventTypes = types
				}
			}
		}
	}
	for _, tt := range []struct {
		name string
		play func(*scene)
		then []func(*scene) // after the record was written
		want map[string]Class
	}{
		{"the webhook first", func(s *scene) {
			s.got(s.fed(s.event(s.changed("a", 0), "e")), 80*time.Millisecond, 1)
		}, nil, map[string]Class{"change 2": WebhookFirst, "event e": WebhookFirst, "receipt e-1": WebhookFirst}},
		{"before the window", func(s *scene) {
			s.got(s.fed(s.event(s.changed("a", -29*time.Minute-30*time.Second), "e")), 80*time.Millisecond, 1)
		}, nil, map[string]Class{"change 2": Unsettled, "event e": Unsettled, "receipt e-1": Unsettled}},
		{"not settled, and not there", func(s *scene) {
			s.changed("a", 88*time.Minute)
		}, nil, map[string]Class{"change 2": Unsettled}},
		{"after a retry", func(s *scene) {
			e := s.fed(s.event(s.changed("a", 0), "e"))
			s.got(e, 80*time.Millisecond, 1, refusedWith(500, webhook.ReactionFailed))
			s.got(e, time.Minute, 2)
		}, nil, map[string]Class{"change 2": PollerFirstR, "event e": PollerFirstR, "receipt e-1": PollerFirstR, "receipt e-2": PollerFirstR}},
		{"slow", func(s *scene) {
			s.got(s.fed(s.event(s.changed("a", 0), "e")), 2*time.Minute, 1)
		}, nil, map[string]Class{"change 2": PollerFirstS, "event e": PollerFirstS}},
		{"two events of one change", func(s *scene) {
			c := s.changed("a", 0)
			e, f := s.fed(s.event(c, "e")), s.event(c, "f")
			f.typ, f.occurred = webhook.TicketClosed, f.occurred.Add(time.Millisecond)
			s.got(s.fed(f), 50*time.Millisecond, 1)
			s.got(e, 90*time.Millisecond, 1)
		}, nil, map[string]Class{"change 2": WebhookFirst, "event f": WebhookFirst, "event e": SameChange, "receipt e-1": OutOfOrder}},
		{"not watched", func(s *scene) {
			s.got(s.fed(s.event(s.changed("b", 0), "e")), 80*time.Millisecond, 1, func(r *Receipt) { r.Outcome = string(webhook.Unwatched) })
		}, nil, map[string]Class{"event e": NotWatched, "receipt e-1": NotWatched}},
		{"overwritten before the next poll", func(s *scene) {
			s.got(s.fed(s.event(s.changed("a", 0), "e")), 80*time.Millisecond, 1)
			s.got(s.fed(s.event(s.changed("a", 10*time.Second), "f")), 80*time.Millisecond, 1)
		}, nil, map[string]Class{"event e": Overwritten, "event f": WebhookFirst, "change 3": WebhookFirst}},
		{"overwritten, and what overwrote it is lost", func(s *scene) {
			s.got(s.fed(s.event(s.changed("a", 0), "e")), 80*time.Millisecond, 1)
			s.fed(s.event(s.changed("a", 10*time.Second), "f"))
		}, nil, map[string]Class{"event e": Overwritten, "event f": NeverSent, "change 3": NeverSent}},
		{"updated_at is not moved", func(s *scene) {
			c := s.changed("a", 0)
			e, f := s.fed(s.event(c, "e")), s.event(c, "f")
			f.occurred = f.occurred.Add(20 * time.Minute)
			s.got(e, 80*time.Millisecond, 1)
			s.got(s.fed(f), 80*time.Millisecond, 1)
		}, nil, map[string]Class{"change 2": WebhookFirst, "event e": WebhookFirst, "event f": Unmoved}},
		{"the poller was blind to the end", func(s *scene) {
			s.pollerBad = []stretch{{momentOf(happens.Add(-time.Minute)), momentOf(s.end)}}
			s.got(s.fed(s.event(s.changed("a", 0), "e")), 80*time.Millisecond, 1)
		}, nil, map[string]Class{"event e": PollerMissed, "poll ": ""}},
		{"a test", func(s *scene) {
			e := s.event(s.changed("b", 0), "e")
			e.typ = webhook.Test
			s.got(e, 0, 1, func(r *Receipt) { r.Outcome, r.Ticket, r.Hash = string(webhook.TestEvent), "", "" })
		}, nil, map[string]Class{"event e": NoEvent, "receipt e-1": NoEvent}},
		{"a backfill proves nothing", func(s *scene) {
			e := s.event(s.changed("a", 0), "e")
			s.got(e, 0, 0, func(r *Receipt) { r.Synthetic = true })
		}, []func(*scene){noFeed}, map[string]Class{"event e": NoEvent, "receipt e-0": NoEvent, "change 2": Unexplained}},
		{"a backfill of what was given up", func(s *scene) {
			e := s.fed(s.event(s.changed("a", 0), "e"))
			s.logged(e, 4, "abandoned", func(d *Delivery) { d.HTTP = 500 })
			s.got(e, 50*time.Minute, 1, func(r *Receipt) { r.DeliveryID, r.WebhookID = "backfilled", "of a backfill" })
		}, nil, map[string]Class{"change 2": Abandoned, "event e": Abandoned, "receipt backfilled": NoEvent}},
		{"what was given up, sent again by hand", func(s *scene) {
			e := s.fed(s.event(s.changed("a", 0), "e"))
			s.logged(e, 4, "abandoned", func(d *Delivery) { d.HTTP = 500 })
			s.logged(e, 1, "delivered", func(d *Delivery) { d.DeliveryID, d.HTTP, d.Manual = "by hand", 200, true })
			s.got(e, 50*time.Minute, 1, func(r *Receipt) { r.DeliveryID = "by hand" })
		}, nil, map[string]Class{"change 2": Abandoned, "event e": Abandoned, "receipt by hand": NoEvent}},
		{"what fell into an outage of the webhook, sent again by hand", func(s *scene) {
			e := s.fed(s.event(s.changed("a", 0), "e"))
			s.disabled = []stretch{{momentOf(happens.Add(-time.Minute)), momentOf(happens.Add(time.Minute))}}
			s.logged(e, 1, "delivered", func(d *Delivery) { d.DeliveryID, d.HTTP, d.Manual = "by hand", 200, true })
			s.got(e, 50*time.Minute, 1, func(r *Receipt) { r.DeliveryID = "by hand" })
		}, nil, map[string]Class{"change 2": Disabled, "event e": Disabled}},
		{"sent by hand, and the receiver does not know", func(s *scene) {
			e := s.fed(s.event(s.changed("a", 0), "e"))
			s.logged(e, 1, "delivered", func(d *Delivery) { d.HTTP, d.Manual = 200, true })
		}, nil, map[string]Class{"change 2": Unexplained}},
		{"a retry after a backfill", func(s *scene) {
			e := s.fed(s.event(s.changed("a", 0), "e"))
			s.got(e, 0, 1, refusedWith(500, webhook.ReactionFailed))
			s.got(e, 30*time.Second, 1, func(r *Receipt) { r.DeliveryID, r.WebhookID = "backfilled", "of a backfill" })
			s.got(e, time.Minute, 2, func(r *Receipt) { r.Outcome = string(webhook.Duplicate) })
		}, nil, map[string]Class{"change 2": PollerFirstR, "receipt backfilled": NoEvent, "receipt e-2": PollerFirstR}},
		{"given up as the webhook was switched off, and on again before the next attempt", func(s *scene) {
			e := s.fed(s.event(s.changed("a", 0), "e"))
			s.disabled = []stretch{{momentOf(happens.Add(2 * time.Minute)), momentOf(happens.Add(4 * time.Minute))}}
			s.logged(e, 2, "retrying", func(d *Delivery) { d.HTTP, d.NextRetryAt = 500, happens.Add(6*time.Minute) })
			s.logged(e, 3, "abandoned", func(d *Delivery) {
				d.AttemptedAt, d.CompletedAt, d.NextRetryAt = time.Time{}, happens.Add(2*time.Minute), happens.Add(6*time.Minute)
			})
		}, nil, map[string]Class{"change 2": Disabled, "event e": Disabled}},
		{"given up without an attempt, and nobody knows why", func(s *scene) {
			e := s.fed(s.event(s.changed("a", 0), "e"))
			s.logged(e, 1, "abandoned", func(d *Delivery) { d.AttemptedAt = time.Time{} })
		}, nil, map[string]Class{"change 2": Abandoned}},
		{"a cache that gives the first payload to a second change", func(s *scene) {
			c := s.changed("a", 0)
			s.got(s.event(c, "e"), 0, 1)
			f := s.event(s.changed("a", 500*time.Millisecond), "f")
			s.got(f, 0, 1, func(r *Receipt) { r.UpdatedAt = micros(c.at) })
		}, []func(*scene){noFeed, noLog}, map[string]Class{"event e": Overwritten, "change 3": WebhookFirst, "event f": WebhookFirst}},
		{"a payload of before, and it may be the first change's own", func(s *scene) {
			c := s.changed("a", 0)
			f := s.event(s.changed("a", 500*time.Millisecond), "f")
			s.got(f, 0, 1, func(r *Receipt) { r.UpdatedAt = micros(c.at) })
		}, []func(*scene){noFeed, noLog}, map[string]Class{"change 3": Unexplained}},
		{"still to be delivered", func(s *scene) {
			e := s.fed(s.event(s.changed("a", 70*time.Minute), "e"))
			s.logged(e, 1, "retrying", func(d *Delivery) { d.HTTP, d.NextRetryAt = 500, s.end })
		}, nil, map[string]Class{"change 2": Pending, "event e": Pending}},
		{"a retry that is long overdue", func(s *scene) {
			e := s.fed(s.event(s.changed("a", -27*time.Minute), "e"))
			s.logged(e, 1, "retrying", func(d *Delivery) { d.HTTP, d.NextRetryAt = 500, happens })
		}, nil, map[string]Class{"change 2": NeverSent}},
		{"given up", func(s *scene) {
			e := s.fed(s.event(s.changed("a", 0), "e"))
			s.logged(e, 4, "abandoned", func(d *Delivery) { d.Error = "connection refused" })
		}, nil, map[string]Class{"change 2": Abandoned, "event e": Abandoned}},
		{"given up while the receiver was down all the time", func(s *scene) {
			e := s.fed(s.event(s.changed("a", 0), "e"))
			s.down = []stretch{{momentOf(happens.Add(-time.Minute)), momentOf(happens.Add(time.Hour))}}
			s.logged(e, 4, "abandoned", func(d *Delivery) { d.Error = "connection refused" })
		}, nil, map[string]Class{"change 2": ReceiverDown, "event e": ReceiverDown, "gap ": ReceiverDown}},
		{"a receiver that was down for a moment explains nothing", func(s *scene) {
			s.fed(s.event(s.changed("a", 0), "e"))
			s.down = []stretch{{momentOf(happens), momentOf(happens.Add(3 * time.Second))}}
		}, nil, map[string]Class{"change 2": NeverSent}},
		{"refused for its signature", func(s *scene) {
			e := s.fed(s.event(s.changed("a", 0), "e"))
			s.got(e, 0, 4, refusedWith(401, webhook.BadSignature))
			s.logged(e, 4, "abandoned", func(d *Delivery) { d.HTTP = 401 })
		}, nil, map[string]Class{"change 2": Rejected, "event e": Rejected, "receipt e-4": Rejected}},
		{"refused by something before the receiver", func(s *scene) {
			e := s.fed(s.event(s.changed("a", 0), "e"))
			s.logged(e, 4, "abandoned", func(d *Delivery) { d.HTTP = 413 })
		}, nil, map[string]Class{"change 2": Rejected}},
		{"refused, without feed and log", func(s *scene) {
			s.got(s.event(s.changed("a", 0), "e"), 0, 1, refusedWith(401, webhook.BadSignature))
		}, []func(*scene){noFeed, noLog}, map[string]Class{"change 2": Rejected, "receipt e-1": Rejected}},
		{"not subscribed", func(s *scene) {
			s.fed(s.event(s.changed("a", 0), "e"))
		}, []func(*scene){types(webhook.TicketClosed)}, map[string]Class{"change 2": NotSubscribed, "event e": NotSubscribed}},
		{"not subscribed, but another event told of it", func(s *scene) {
			c := s.changed("a", 0)
			e, f := s.fed(s.event(c, "e")), s.event(c, "f")
			f.typ = webhook.TicketCommentAdded
			s.fed(f)
			s.got(e, 0, 1)
		}, nil, map[string]Class{"change 2": WebhookFirst, "event f": NotSubscribed}},
		{"another entity_ids", func(s *scene) {
			s.fed(s.event(s.changed("a", 0), "e"))
		}, []func(*scene){func(s *scene) {
			for _, e := range s.entries {
				if e.Subscription != nil {
					e.Subscription.Tickets = []string{"b"}
				}
			}
		}}, map[string]Class{"change 2": NotSubscribed}},
		{"a type that the receiver ignores", func(s *scene) {
			s.got(s.fed(s.event(s.changed("a", 0), "e")), 0, 1, func(r *Receipt) { r.Outcome = string(webhook.IgnoredType) })
		}, nil, map[string]Class{"change 2": NotSubscribed, "event e": NotSubscribed}},
		{"a comment, as no field changed, and no feed", func(s *scene) {
			s.changed("a", 0).state = "state 0"
			s.changes[0].state = "state 0"
		}, []func(*scene){noFeed}, map[string]Class{"change 2": NotSubscribed}},
		{"no event type", func(s *scene) {
			s.changed("a", 0)
		}, nil, map[string]Class{"change 2": NoType}},
		{"no event, and no feed that would tell", func(s *scene) {
			s.changed("a", 0)
		}, []func(*scene){noFeed}, map[string]Class{"change 2": Unexplained}},
		{"no event, no feed and no log, and time left", func(s *scene) {
			s.changed("a", 70*time.Minute)
		}, []func(*scene){noFeed, noLog}, map[string]Class{"change 2": Pending}},
		{"no event, no feed and no log, and no time left", func(s *scene) {
			s.changed("a", 0)
		}, []func(*scene){noFeed, noLog}, map[string]Class{"change 2": Unexplained}},
		{"in the feed, and no log", func(s *scene) {
			s.fed(s.event(s.changed("a", 0), "e"))
		}, []func(*scene){noLog}, map[string]Class{"change 2": Unexplained, "event e": Unexplained}},
		{"disabled", func(s *scene) {
			s.fed(s.event(s.changed("a", 0), "e"))
			s.disabled = []stretch{{momentOf(happens.Add(-time.Minute)), momentOf(happens.Add(time.Minute))}}
		}, nil, map[string]Class{"change 2": Disabled, "event e": Disabled, "gap ": ReceiverDown}},
		{"never sent", func(s *scene) {
			s.fed(s.event(s.changed("a", 0), "e"))
		}, nil, map[string]Class{"change 2": NeverSent, "event e": NeverSent}},
		{"lost on a ticket that nobody watches", func(s *scene) {
			s.fed(s.event(s.changed("b", 0), "e"))
		}, nil, map[string]Class{"event e": NeverSent}},
		{"delivered, and the receiver does not know", func(s *scene) {
			s.logged(s.fed(s.event(s.changed("a", 0), "e")), 1, "delivered", func(d *Delivery) { d.HTTP = 200 })
		}, nil, map[string]Class{"change 2": Unexplained, "event e": Unexplained}},
		{"noise", func(s *scene) {
			s.changes[0].at = micros(s.changes[0].at)
			last := s.changes[0].at
			s.entries = append(s.entries, Entry{Poll: &Poll{At: happens, Done: happens, Round: happens, Ticket: "a", HTTP: 200, Seen: []Observation{{
				Ticket: "a", UpdatedAt: last.Add(-time.Hour), Verdict: Older, Hash: "old", Fields: fieldsOf(s.t, `{"title":"old"}`),
			}}}})
		}, []func(*scene){func(s *scene) {
			s.changes = append(s.changes, &worldChange{ticket: "a", at: s.changes[0].at.Add(-time.Hour), n: 9})
		}}, map[string]Class{"change 9": Noise}},
		{"other fields", func(s *scene) {
			e := s.fed(s.event(s.changed("a", 0), "e"))
			s.got(e, 0, 1, func(r *Receipt) { r.Hash, r.Body = "other", `{"data":{"title":"other","is_closed":false}}` })
		}, nil, map[string]Class{"change 2": WebhookFirst, "event e": FieldsDiffer, "receipt e-1": FieldsDiffer}},
		{"a stale payload", func(s *scene) {
			e := s.fed(s.event(s.changed("a", 0), "e"))
			s.got(e, 0, 1, func(r *Receipt) { // the row as it was before
				r.UpdatedAt, r.Hash, r.Body = micros(s.changes[0].at), "stale", fmt.Sprintf(`{"data":%s}`, s.changes[0].data())
			})
		}, nil, map[string]Class{"change 2": WebhookFirst, "event e": StalePayload}},
		{"a payload that is ahead", func(s *scene) {
			e := s.fed(s.event(s.changed("a", 0), "e"))
			later := s.changed("a", 2*time.Minute)
			s.got(e, 3*time.Minute, 1, func(r *Receipt) {
				r.UpdatedAt, r.Hash, r.Body = micros(later.at), "later", fmt.Sprintf(`{"data":%s}`, later.data())
			})
			s.got(s.fed(s.event(later, "f")), 0, 1)
		}, nil, map[string]Class{"change 2": PollerFirstS, "event e": Followed, "change 3": WebhookFirst}},
		{"fields that are not sent", func(s *scene) {
			e := s.fed(s.event(s.changed("a", 0), "e"))
			s.got(e, 0, 1, func(r *Receipt) { r.Hash, r.Body = "less", `{"data":{"is_closed":false}}` })
		}, nil, map[string]Class{"event e": FieldsMissing}},
		{"out of order, and in the same moment", func(s *scene) {
			e := s.fed(s.event(s.changed("a", 0), "e"))
			f := s.fed(s.event(s.changed("a", 10*time.Minute), "f"))
			g := s.event(f.change, "g")
			g.typ = webhook.TicketClosed
			s.got(f, 0, 1)
			s.got(s.fed(g), time.Millisecond, 1)
			s.got(e, 12*time.Minute, 1)
		}, nil, map[string]Class{"receipt e-1": OutOfOrder, "receipt f-1": WebhookFirst, "receipt g-1": SameMoment, "event e": PollerFirstS}},
		{"duplicates", func(s *scene) {
			e := s.fed(s.event(s.changed("a", 0), "e"))
			s.got(e, 0, 1)
			s.got(e, time.Minute, 2)
			s.got(e, 2*time.Minute, 2)
			s.got(e, 3*time.Minute, 3, func(r *Receipt) { r.BodyHash = "another" })
			s.got(e, 4*time.Minute, 1, func(r *Receipt) { r.DeliveryID = "by hand" })
			s.logged(e, 1, "delivered", func(d *Delivery) { d.DeliveryID, d.Manual = "by hand", true })
			s.got(e, 5*time.Minute, 1, func(r *Receipt) { r.DeliveryID = "of another webhook" })
		}, nil, map[string]Class{
			"receipt e-1": WebhookFirst, "receipt e-3": OtherBody, "receipt by hand": NoEvent, "receipt of another webhook": Unexplained,
		}},
		{"a stranger", func(s *scene) {
			e := s.event(s.changed("b", 0), "")
			s.got(e, 0, 0, refusedWith(400, webhook.BadEnvelope), func(r *Receipt) { r.DeliveryID, r.EventType = "", "" })
		}, nil, map[string]Class{"receipt ": NoEvent}},
		{"a ticket that goes", func(s *scene) {
			s.entries = append(s.entries,
				Entry{Poll: &Poll{At: happens, Done: happens, Round: happens, Ticket: "a", HTTP: 404, Failure: NotFound}},
				Entry{Truth: &Truth{At: s.end, Source: TruthOfSweep, Ticket: "b", UpdatedAt: happens, Hash: "x"}})
			s.pollerOff = []stretch{{momentOf(happens), momentOf(s.end)}}
			s.got(s.fed(s.event(s.changed("a", -time.Second), "e")), time.Second, 1)
		}, nil, map[string]Class{"truth b": Unexplained, "event e": CreatedDeleted}},
		{"a ticket that the list does not show any more", func(s *scene) {
			s.pollerOff = []stretch{{momentOf(happens.Add(-5 * time.Second)), momentOf(s.end)}}
			s.got(s.fed(s.event(s.changed("a", 0), "e")), time.Second, 1)
			at := happens.Add(time.Minute)
			s.entries = append(s.entries,
				Entry{Poll: &Poll{At: at, Done: at, Round: at, HTTP: 200, List: &ListPage{For: ForChanges, Page: 1, Last: true}}},
				Entry{Poll: &Poll{At: at.Add(time.Minute), Done: at.Add(time.Minute), Round: at, Ticket: "a", HTTP: 404, Failure: NotFound}})
		}, nil, map[string]Class{"event e": CreatedDeleted}},
		{"the list does not show a change", func(s *scene) {
			s.pollerOff = []stretch{{momentOf(happens.Add(-5 * time.Second)), momentOf(s.end)}}
			s.got(s.fed(s.event(s.changed("a", 0), "e")), time.Second, 1)
			at := happens.Add(time.Minute)
			s.entries = append(s.entries, Entry{Poll: &Poll{At: at, Done: at, Round: at, HTTP: 200, List: &ListPage{For: ForChanges, Page: 1, Last: true}}})
		}, nil, map[string]Class{"event e": Unexplained}},
		{"a sweep", func(s *scene) {
			c := s.changed("a", 0)
			s.got(s.fed(s.event(c, "e")), 0, 1)
			s.entries = append(s.entries, Entry{Truth: &Truth{At: s.end, Source: TruthOfSweep, Ticket: "a", UpdatedAt: micros(c.at), Hash: "x"}})
		}, nil, map[string]Class{"truth a": WebhookFirst}},
		{"what says nothing", func(s *scene) {
			s.entries = append(s.entries, Entry{Receipt: &Receipt{}}, Entry{})
		}, nil, map[string]Class{"entry ": Unexplained}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := &scene{&world{start: day.Truncate(time.Hour), end: day.Truncate(time.Hour).Add(2 * time.Hour), interval: time.Minute, watched: []string{"a"}}, t}
			s.begin()
			s.changes = []*worldChange{{ticket: "a", at: s.start.Add(-time.Hour)}, {ticket: "b", at: s.start.Add(-time.Hour), n: 1}}
			tt.play(s)
			s.poll(0)
			s.finish()
			for _, then := range tt.then {
				then(s)
			}
			r, err := Compare(sequence(s.entries), Question{Setup: s.setup(), At: s.end})
			if err != nil {
				t.Fatal(err)
			}
			for what, want := range tt.want {
				if what == "poll " {
					want = PollerBlind
				}
				if got := s.of(r, what); got != want {
					t.Errorf("%s is %s, want %s", what, got, want)
				}
			}
			if t.Failed() {
				for _, row := range r.Rows {
					if row.Kind != PollFailed {
						t.Log(row)
					}
				}
			}
		})
	}
}

// Duplicates of one delivery id have several rows, so they are counted.
func TestDuplicatesAreCounted(t *testing.T) {
	t.Parallel()
	s := &scene{&world{start: day.Truncate(time.Hour), end: day.Truncate(time.Hour).Add(2 * time.Hour), interval: time.Minute, watched: []string{"a"}}, t}
	s.begin()
	s.changes = []*worldChange{{ticket: "a", at: s.start.Add(-time.Hour)}}
	e := s.fed(s.event(s.changed("a", 0), "e"))
	for i, attempt := range []int{1, 2, 2, 2, 3} {
		s.got(e, time.Duration(i)*time.Minute, attempt)
	}
	s.poll(0)
	s.finish()
	r, err := Compare(sequence(s.entries), Question{Setup: s.setup(), At: s.end})
	if err != nil {
		t.Fatal(err)
	}
	if n, m := r.Count(CopyGot, RetriedDelivery), r.Count(CopyGot, SameDelivery); n != 2 || m != 2 || r.Copies.Duplicates != 4 {
		t.Errorf("D1 %d, D2 %d, duplicates %d, want 2, 2 and 4", n, m, r.Copies.Duplicates)
	}
}

func fieldsOf(t *testing.T, text string) map[string]json.RawMessage {
	t.Helper()
	fields, _, err := stateOf(json.RawMessage(text))
	if err != nil {
		t.Fatal(err)
	}
	return fields
}
