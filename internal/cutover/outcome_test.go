package cutover

import (
	"slices"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

// TestVerdicts begins with a record that allows everything and takes one thing
// away, or adds one.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	entry := func(pick func(Entry) bool) func(*scene) {
		return func(s *scene) { s.entries = slices.DeleteFunc(s.entries, pick) }
	}
	for _, tt := range []struct {
		name          string
		before, after func(*scene)
		rules         func(*Rules)
		want          Outcome
		exit          int
		code          string // of the first finding
	}{
		{name: "all is well", want: Go},
		{name: "a change without an event type", before: func(s *scene) { s.changed("a", 40*time.Minute) }, want: GoWithReconciler, exit: 10, code: "P5"},
		{name: "too few changes", rules: func(r *Rules) { r.MissRate = 0.01 }, want: Extend, exit: 20, code: "bound"},
		{name: "too short", rules: func(r *Rules) { r.Window = 0 }, want: Extend, exit: 20, code: "window"},
		{name: "a type that was not seen", rules: func(r *Rules) { r.Waived = nil }, want: Extend, exit: 20, code: "types"},
		{name: "no restart", after: entry(func(e Entry) bool { return e.Receiver != nil && e.Receiver.At.After(happens) }), want: Extend, exit: 20, code: "restart"},
		{name: "no retry", before: func(s *scene) {
			entry(func(e Entry) bool {
				return e.Receipt != nil && e.Receipt.EventID == "retried" && e.Receipt.Attempt == 1
			})(s)
		}, want: Extend, exit: 20, code: "retry"},
		{name: "no silence alarm", after: func(s *scene) {
			for _, e := range s.entries {
				if e.Receiver != nil {
					e.Receiver.Silence = 0
				}
			}
		}, want: Extend, exit: 20, code: "silence"},
		{name: "no reconciler", after: entry(func(e Entry) bool { return e.Reconciler != nil }), want: Extend, exit: 20, code: "reconciler"},
		{name: "a secret in the configuration", after: func(s *scene) {
			for _, e := range s.entries {
				if e.Receiver != nil {
					e.Receiver.SecretFrom = "config"
				}
			}
		}, want: NoGo, exit: 30, code: "secret"},
		{name: "lost", before: func(s *scene) { s.fed(s.event(s.changed("a", 40*time.Minute), "lost")) }, want: NoGo, exit: 30, code: "P7"},
		{name: "an event is lost whose change is not", before: func(s *scene) {
			c := s.changed("a", 40*time.Minute)
			e := s.event(c, "closed")
			e.typ = webhook.TicketClosed
			s.fed(e)
			s.got(s.fed(s.event(c, "updated")), time.Millisecond, 1)
		}, want: NoGo, exit: 30, code: "P7"},
		{name: "not subscribed", before: func(s *scene) {
			e := s.event(s.changed("a", 40*time.Minute), "comment")
			e.typ = webhook.TicketCommentAdded
			s.fed(e)
		}, want: NoGo, exit: 30, code: "P4"},
		{name: "unexplained", before: func(s *scene) { s.entries = append(s.entries, Entry{}) }, want: NoGo, exit: 30, code: "U"},
		{name: "another body", before: func(s *scene) {
			e := &worldEvent{change: s.changes[2], id: "fine-0", typ: webhook.TicketUpdated, occurred: s.changes[2].at.Add(20 * time.Millisecond)}
			s.got(e, time.Minute, 2, func(r *Receipt) { r.BodyHash = "another" })
		}, want: NoGo, exit: 30, code: "D3"},
		{name: "a mismatch", before: func(s *scene) {
			s.got(s.fed(s.event(s.changed("a", 40*time.Minute), "x")), 0, 1, func(r *Receipt) { r.Hash, r.Body = "x", `{"data":{"title":"x","is_closed":false}}` })
		}, want: NoGo, exit: 30, code: "M1+M3"},
		{name: "a mismatch, and the ticket is read again", before: func(s *scene) {
			s.got(s.fed(s.event(s.changed("a", 40*time.Minute), "x")), 0, 1, func(r *Receipt) { r.Hash, r.Body = "x", `{"data":{"title":"x","is_closed":false}}` })
		}, after: func(s *scene) {
			for _, e := range s.entries {
				if e.Receiver != nil {
					e.Receiver.Refetch = true
				}
			}
		}, want: Go, code: "refetch"},
		{name: "two mismatches", before: func(s *scene) {
			for i, id := range []string{"x", "y"} {
				e := s.fed(s.event(s.changed("a", time.Duration(40+i)*time.Minute), id))
				s.got(e, 0, 1, func(r *Receipt) { r.Hash, r.Body = "x", `{"data":{"title":"x","is_closed":false}}` })
			}
		}, want: NoGo, exit: 30, code: "M1+M3"},
		{name: "a mismatch in a field that somebody answers for", before: func(s *scene) {
			s.got(s.fed(s.event(s.changed("a", 40*time.Minute), "x")), 0, 1, func(r *Receipt) { r.Hash, r.Body = "x", `{"data":{"title":"x","is_closed":false}}` })
		}, rules: func(r *Rules) {
			r.Ignore = []Ignore{{Field: "title", Owner: "Ann", Until: happens.Add(24 * time.Hour)}}
		}, want: Go},
		{name: "a rule that has expired", before: func(s *scene) {
			s.got(s.fed(s.event(s.changed("a", 40*time.Minute), "x")), 0, 1, func(r *Receipt) { r.Hash, r.Body = "x", `{"data":{"title":"x","is_closed":false}}` })
		}, rules: func(r *Rules) {
			r.Ignore = []Ignore{{Field: "title", Owner: "Ann", Until: happens}}
		}, want: NoGo, exit: 30, code: "M1+M3"},
		{name: "the webhook is not shown, and every type was seen", before: func(s *scene) {
			for i, typ := range ticketTypes() {
				e := s.event(s.changed("a", time.Duration(30+2*i)*time.Minute), "of "+typ)
				e.typ = typ
				s.got(s.fed(e), time.Millisecond, 1)
			}
		}, after: entry(func(e Entry) bool { return e.Subscription != nil }), rules: func(r *Rules) { r.Waived = nil }, want: Go},
		{name: "the webhook is not shown", after: entry(func(e Entry) bool { return e.Subscription != nil }), want: Extend, exit: 20, code: "types"},
		{
			name: "a change that may still be told of", before: func(s *scene) { s.changed("a", 80*time.Minute) },
			after: entry(func(e Entry) bool {
				return e.Truth != nil || e.Delivery != nil || e.Reading != nil && e.Reading.Topic != TopicWebhook
			}),
			want: Extend, exit: 20, code: "untold",
		},
		{name: "all requests are of another webhook", after: func(s *scene) {
			for _, e := range s.entries {
				if e.Receipt != nil {
					e.Receipt.WebhookID = "other"
				}
			}
		}, want: NoGo, exit: 30, code: "webhook"},
		{name: "one of a few is slow", after: func(s *scene) {
			for _, e := range s.entries {
				if e.Receipt != nil && e.Receipt.Attempt > 1 {
					e.Receipt.At = e.Receipt.At.Add(5 * time.Minute)
				}
			}
		}, want: Go},
		{name: "slower than polling", after: func(s *scene) {
			for _, e := range s.entries {
				if e.Receipt != nil {
					e.Receipt.At = e.Receipt.At.Add(5 * time.Minute)
				}
			}
		}, want: NoGo, exit: 30, code: "lag"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := &scene{&world{start: day.Truncate(time.Hour), end: day.Truncate(time.Hour).Add(2 * time.Hour), interval: time.Minute, watched: []string{"a"}}, t}
			s.begin()
			s.changes = []*worldChange{{ticket: "a", at: s.start.Add(-time.Hour)}, {ticket: "b", at: s.start.Add(-time.Hour), n: 1}}
			for i := range 8 {
				s.got(s.fed(s.event(s.changed("a", time.Duration(i)*2*time.Minute), "fine-"+string(rune('0'+i)))), 20*time.Millisecond, 1)
			}
			retried := s.fed(s.event(s.changed("a", 20*time.Minute), "retried"))
			s.got(retried, 20*time.Millisecond, 1, refusedWith(500, webhook.ReactionFailed))
			s.got(retried, 20*time.Second, 2)
			s.entries = append(s.entries, Entry{Receiver: &Receiver{At: happens.Add(15 * time.Minute), SecretFrom: "file", Silence: 3600}})
			if tt.before != nil {
				tt.before(s)
			}
			s.poll(0)
			s.finish()
			if tt.after != nil {
				tt.after(s)
			}
			setup := s.setup()
			setup.Rules = Rules{Waived: []string{webhook.TicketClosed}, MissRate: 0.3, Window: 3600}
			if tt.rules != nil {
				tt.rules(&setup.Rules)
			}
			r, err := Compare(sequence(s.entries), Question{Setup: setup, At: s.end})
			if err != nil {
				t.Fatal(err)
			}
			code := ""
			for _, all := range [][]Finding{r.Blockers, r.Unproved, r.Notes} {
				if code == "" && len(all) > 0 {
					code = all[0].Code
				}
			}
			if r.Outcome != tt.want || r.Exit != tt.exit || tt.code != "" && code != tt.code {
				t.Errorf("%s, exit %d, %q; want %s, %d, %q: %s", r.Outcome, r.Exit, code, tt.want, tt.exit, tt.code, r.Headline)
			}
		})
	}
}

// Of a handful of changes a single retry is half of them, and says nothing.
func TestFewChangesAreNotSlow(t *testing.T) {
	t.Parallel()
	for n, blocked := range map[int]bool{0: false, lagLeast - 1: false, lagLeast: true, lagCounts: true} {
		v := &advice{Report: &Report{Lag: Lag{Poll: Distribution{N: n, Median: 2, P95: 3}, FirstByte: Distribution{N: n, Median: 4, P95: 5}}}}
		v.operation()
		if got := len(v.Blockers) > 0; got != blocked {
			t.Errorf("of %d changes: blocked %t", n, got)
		}
	}
}
