package cutover

import (
	"testing"
	"time"
)

// The margins of the window are intervals of the poller. Without an event feed a
// payload can be a minute old, which they do not go below.
func TestMargins(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name        string
		interval    time.Duration
		feed        bool
		first, last time.Duration
	}{
		{"as the guide polls", time.Minute, true, time.Minute, 2 * time.Minute},
		{"slowly", 10 * time.Minute, false, 10 * time.Minute, 20 * time.Minute},
		{"quickly", 6 * time.Second, true, 6 * time.Second, 12 * time.Second},
		{"quickly, without a feed", 6 * time.Second, false, time.Minute, time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			end := day.Add(2 * time.Hour)
			entries := []Entry{
				{Watch: &Watch{At: day, Interval: tt.interval.Seconds()}},
				{Receiver: &Receiver{At: day}},
				{Subscription: &Subscription{At: day, WebhookID: "w", Active: true}},
				{Receiver: &Receiver{At: end}},
			}
			if tt.feed {
				entries = append(entries, Entry{Truth: &Truth{At: end, Source: TruthOfFeed, EventID: "e", EventType: "ticket.updated", OccurredAt: end, Ticket: "a", UpdatedAt: end}})
			}
			r, err := Compare(func(yield func(Entry, error) bool) {
				for _, e := range entries {
					if !yield(e, nil) {
						return
					}
				}
			}, Question{})
			if err != nil {
				t.Fatal(err)
			}
			if w := r.Window; !w.From.Equal(day.Add(tt.first)) || !w.Settled.Equal(end.Add(-tt.last)) {
				t.Errorf("the window is %s to %s, want %s to %s", w.From, w.Settled, day.Add(tt.first), end.Add(-tt.last))
			}
		})
	}
}
