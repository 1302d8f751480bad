package cutover

import (
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ticketwire/ticketwire/client"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	last := &seen{UpdatedAt: day}
	for _, tt := range []struct {
		at       time.Time
		last     *seen
		complete bool
		want     Verdict
	}{
		{day, nil, false, First},
		{day, nil, true, New},
		{day.Add(time.Microsecond), last, false, Changed},
		{day.Add(time.Hour), last, true, Changed},
		{day, last, true, Same},
		{day.In(time.FixedZone("", 3600)), last, true, Same}, // as texts they differ
		{day.Add(-time.Microsecond), last, true, Older},
		{day.Add(time.Hour), &seen{UpdatedAt: day, Gone: true}, true, Changed},
	} {
		if got := judge(tt.at, tt.last, tt.complete); got != tt.want {
			t.Errorf("judge(%v, %+v, %t) = %s, want %s", tt.at, tt.last, tt.complete, got, tt.want)
		}
	}
}

func ticketOf(t testing.TB, text string) *client.Ticket {
	t.Helper()
	var out client.Ticket
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return &out
}

func TestObserve(t *testing.T) {
	t.Parallel()
	hash := func(text string) string {
		t.Helper()
		o, err := observe(ticketOf(t, `{"ticket_id":"a","updated_at":"2026-05-05T09:00:00.123Z",`+text+`}`))
		if err != nil {
			t.Fatal(err)
		}
		return o.Hash
	}
	base := hash(`"title":"x","tags":["a","b"]`)
	for text, same := range map[string]bool{
		`"tags":["b","a"],"title":"x"`:                            true,  // a set, and keys have no order
		`"title":"x","tags":[{"tag_text":"a"},{"tag_text":"b"}]`:  true,  // AlgaPSA's form
		`"title":"x","tags":["a","b"],"url":"https://x","sla":1}`: true,  // not what webhooks carry
		`"title":"y","tags":["a","b"]`:                            false, // a change
		`"title":"x","tags":["a"]`:                                false,
		`"title":"x","tags":["a","b"],"due_date":null`:            false, // null is not missing
		`"title":"x","tags":["a","b"],"is_closed":null`:           true,  // AlgaPSA's, before a status was changed
	} {
		if got := hash(trimBrace(text)); (got == base) != same {
			t.Errorf("%s: the same state is %t, want %t", text, got == base, same)
		}
	}
	o, err := observe(ticketOf(t, `{"ticket_id":"a","updated_at":null,"entered_at":"2026-05-05T09:00:00Z"}`))
	if err != nil || !o.UpdatedAt.Equal(day.Truncate(time.Second)) {
		t.Errorf("a ticket that was never updated: %+v, %v", o, err)
	}
	for _, text := range []string{`{"updated_at":"2026-05-05T09:00:00Z"}`, `{"ticket_id":"a"}`} {
		if _, err := observe(ticketOf(t, text)); err == nil {
			t.Errorf("%s is no observation", text)
		}
	}
}

func trimBrace(s string) string {
	for len(s) > 0 && s[len(s)-1] == '}' && json.Unmarshal([]byte("{"+s), new(any)) == nil {
		s = s[:len(s)-1]
	}
	return s
}

// A round is due at the next of the fixed times, never at once, and never more
// than an interval away.
func TestSlot(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		interval := time.Duration(rapid.Int64Range(1, int64(time.Hour)).Draw(rt, "interval"))
		now := day.Add(time.Duration(rapid.Int64Range(-int64(time.Hour), int64(100*time.Hour)).Draw(rt, "now")))
		got := slot(day, interval, now)
		if wait := got.Sub(now); wait <= 0 || wait > interval {
			rt.Errorf("the wait is %v of %v", wait, interval)
		}
		if !now.Before(day) && got.Sub(day)%interval != 0 {
			rt.Errorf("%v is none of the fixed times", got.Sub(day))
		}
	})
}

func TestLate(t *testing.T) {
	t.Parallel()
	if g := late(day, day.Add(59*time.Second), time.Minute); g != nil {
		t.Errorf("within an interval: %+v", g)
	}
	g := late(day, day.Add(time.Minute), time.Minute)
	if g == nil || !g.From.Equal(day) || !g.To.Equal(day.Add(time.Minute)) || g.Side != SidePoller {
		t.Errorf("an interval late: %+v", g)
	}
}

// row is a ticket in the list of the model below.
type row struct{ id, at int }

// listModel is a server's list in the order of updated_at, in pages of three. Of
// equal times the order is another one on each page, and the same whenever that
// page is read, as without a tie-breaker. The list of one time is in the order of
// the ids.
func listModel(rows []row, from int, one bool, page int) (out []row, more bool) {
	sorted := slices.Clone(rows)
	slices.SortFunc(sorted, func(a, b row) int {
		if one {
			return cmp.Compare(a.id, b.id)
		}
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare((a.id*7+page*5)%13, (b.id*7+page*5)%13))
	})
	for _, r := range sorted {
		if r.at == from || r.at > from && !one {
			out = append(out, r)
		}
	}
	const size = 3
	begin := min((page-1)*size, len(out))
	end := min(begin+size, len(out))
	return out[begin:end], end < len(out)
}

// Where one time fills a page, its tickets are read by their numbers. One that
// moves away pulls another across the edge of a page that was read, so the pages
// are read again.
func TestPagesOfOneTimeAreReadAgain(t *testing.T) {
	t.Parallel()
	later := day.Add(time.Hour)
	pages := []struct {
		last  time.Time
		fresh bool
		more  bool
		want  walk // what is asked for next
	}{
		{day, true, true, walk{from: day, page: 1}},                                                 // the first page moved to day
		{day, true, true, walk{from: day, page: 1, one: true}},                                      // a whole page of day
		{day, true, true, walk{from: day, page: 2, one: true}},                                      //
		{day, true, true, walk{from: day, page: 3, one: true}},                                      //
		{day, false, false, walk{from: day, page: 1, one: true}},                                    // the end of day, but something was new: again
		{day, false, true, walk{from: day, page: 2, one: true}},                                     //
		{day.Add(shown), true, false, walk{from: day, page: 1, one: true}},                          // here is what had been skipped
		{day, false, true, walk{from: day, page: 2, one: true}},                                     // so again
		{day, false, false, walk{from: day.Add(shown), page: 1}},                                    // nothing new: on
		{later, true, true, walk{from: later, page: 1}},                                             //
		{later, false, true, walk{from: later, page: 1, one: true}},                                 // a whole page of later
		{later, true, false, walk{from: later.Add(shown), page: 1}},                                 // which was all of it
		{time.Time{}, true, true, walk{from: later.Add(shown), page: 2}},                            // rows that were never updated
		{time.Time{}, true, false, walk{from: later.Add(shown), page: 1}},                           //
		{time.Time{}, false, true, walk{from: later.Add(shown), page: 2}},                           //
		{time.Time{}, false, false, walk{from: later.Add(shown), page: 2, done: true, fresh: true}}, // the end
	}
	w := walk{page: 1}
	for i, p := range pages {
		w = w.next(p.last, p.fresh, p.more)
		if w.from != p.want.from || w.one != p.want.one || w.page != p.want.page || w.done != p.want.done {
			t.Fatalf("after page %d: %+v, want %+v", i, w, p.want)
		}
	}
	// A server on which the pages never agree is not read for ever.
	w = walk{from: day, page: 1}
	for n := 0; !w.done; n++ {
		if n > 20 {
			t.Fatal("the walk does not end")
		}
		w = w.next(day, true, w.page == 1 && w.from.Equal(day))
	}
	for asked, want := range map[walk]client.TicketFilter{
		{}:                     {Sort: "updated_at", Order: "asc"},
		{from: day}:            {UpdatedFrom: day, Sort: "updated_at", Order: "asc"},
		{from: day, one: true}: {UpdatedFrom: day, UpdatedTo: day.Add(time.Millisecond), Sort: "ticket_number", Order: "asc"},
	} {
		if got := asked.filter(); !reflect.DeepEqual(got, want) {
			t.Errorf("%+v asks for %+v, want %+v", asked, got, want)
		}
	}
}

// A walk over a list that changes under it ends, and some more walks, as later
// rounds make them, see the last state of every ticket.
func TestWalksSeeEverything(t *testing.T) {
	t.Parallel()
	at := func(n int) time.Time { return day.Add(time.Duration(n) * 10 * time.Minute) }
	rapid.Check(t, func(rt *rapid.T) {
		var rows []row
		clock := 1
		for id := range rapid.IntRange(1, 12).Draw(rt, "tickets") {
			rows = append(rows, row{id, clock})
			clock += rapid.IntRange(0, 1).Draw(rt, "later")
		}
		seenAt := map[int]int{}
		read := func(change bool) {
			w := walk{page: 1}
			for steps := 0; !w.done; steps++ {
				if steps > 500 {
					rt.Fatal("the walk does not end")
				}
				from := 0
				if !w.from.IsZero() {
					from = int((w.from.Sub(day) + 10*time.Minute - 1) / (10 * time.Minute))
				}
				got, more := listModel(rows, from, w.one, w.page)
				fresh, last := false, 0
				for _, r := range got {
					fresh = fresh || seenAt[r.id] != r.at
					seenAt[r.id] = max(seenAt[r.id], r.at)
					last = r.at
				}
				var lastAt time.Time
				if last > 0 {
					lastAt = at(last)
				}
				w = w.next(lastAt, fresh, more)
				if change && rapid.Bool().Draw(rt, "changes") {
					clock++
					rows[rapid.IntRange(0, len(rows)-1).Draw(rt, "which")].at = clock
				}
				if steps > 30 {
					change = false
				}
			}
		}
		read(true)
		// What the last walks missed for want of an order is found by more of them.
		for range 5 {
			read(false)
		}
		for _, r := range rows {
			if seenAt[r.id] != r.at {
				rt.Errorf("ticket %d was seen at %d, is at %d", r.id, seenAt[r.id], r.at)
			}
		}
	})
}

func TestCursor(t *testing.T) {
	t.Parallel()
	var none time.Time
	for _, tt := range []struct {
		name                  string
		cursor, high, settled time.Time
		want                  time.Time
	}{
		{"an empty list", none, none, none, none},
		{"the first walk", none, day, none, day.Add(-overlap)},
		{"nothing new, not settled", day.Add(-overlap), day, none, day.Add(-overlap)},
		{"settled", day.Add(-overlap), day, day, day.Add(time.Millisecond)},
		{"never back", day, day.Add(time.Minute), none, day},
	} {
		if got := cursorAfter(tt.cursor, tt.high, tt.settled); !got.Equal(tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	marks := []mark{{day, day.Add(1)}, {day.Add(time.Minute), day.Add(2)}, {day.Add(overlap), day.Add(3)}}
	high, rest := settle(marks, day.Add(overlap+time.Minute))
	if !high.Equal(day.Add(2)) || len(rest) != 1 {
		t.Errorf("settled up to %v, %d marks left", high, len(rest))
	}
	if high, rest := settle(marks, day.Add(overlap-1)); !high.IsZero() || len(rest) != 3 {
		t.Errorf("too early: settled up to %v, %d marks left", high, len(rest))
	}
}

// Whatever the poller asks for, and whatever limits it is told: over no time it
// makes more requests than its share of the server's bucket, and it never asks
// before the server said it may.
func TestBudget(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		share := rapid.SampledFrom([]float64{0.05, 0.25, 0.5, 1}).Draw(rt, "share")
		limit := rapid.SampledFrom([]int{40, 120, 600}).Draw(rt, "limit")
		b := newBudget(share)
		now := day
		b.learn(now, limit)
		var spent []time.Time
		var until time.Time
		for range rapid.IntRange(1, 300).Draw(rt, "steps") {
			switch rapid.IntRange(0, 9).Draw(rt, "step") {
			case 0:
				now = now.Add(time.Duration(rapid.IntRange(0, 60_000).Draw(rt, "ms")) * time.Millisecond)
			case 1:
				asked := time.Duration(rapid.IntRange(1, 100).Draw(rt, "asked")) * time.Second
				b.pause(now, asked, rapid.Float64Range(0, 1).Draw(rt, "spread"))
				if t := now.Add(asked); t.After(until) {
					until = t
				}
			default:
				wait := b.take(now)
				if wait > 0 {
					now = now.Add(wait)
					continue
				}
				if now.Before(until) {
					rt.Fatalf("asked %v too early", until.Sub(now))
				}
				spent = append(spent, now)
			}
		}
		for i := range spent {
			for j := i; j < len(spent); j++ {
				minutes := spent[j].Sub(spent[i]).Minutes()
				most := share * (float64(limit) + minutes*float64(limit)/2)
				if n := j - i + 1; float64(n) > max(1, most)+1e-6*float64(n)+0.5 {
					rt.Fatalf("%d requests in %.2f minutes, at most %.1f", n, minutes, most)
				}
			}
		}
	})
}

func TestPauses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		asked  time.Duration
		spread float64
		want   time.Duration
	}{
		{0, 0, untoldPause}, {time.Second, 0, time.Second}, {time.Second, 1, 1100 * time.Millisecond},
		{time.Hour, 1, time.Hour + 5*time.Second}, {1 << 62, 0, maxPause},
	} {
		b := newBudget(0.5)
		b.pause(day, tt.asked, tt.spread)
		if got := b.take(day); got != tt.want {
			t.Errorf("asked for %v, spread %v: waits %v, want %v", tt.asked, tt.spread, got, tt.want)
		}
		b.pause(day, 1, 0) // a shorter one does not end it
		if got := b.take(day); got < tt.want {
			t.Errorf("asked for %v: waits only %v after a shorter one", tt.asked, got)
		}
	}
}

// However far the clocks are apart, the bounds hold the truth, and get narrow.
func TestSkew(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		ahead := time.Duration(rapid.Int64Range(-int64(24*time.Hour), int64(24*time.Hour)).Draw(rt, "ahead"))
		var s skew
		now := day
		for range rapid.IntRange(1, 30).Draw(rt, "answers") {
			sent := now.Add(time.Duration(rapid.IntRange(0, 5000).Draw(rt, "pause")) * time.Millisecond)
			made := sent.Add(time.Duration(rapid.IntRange(0, 300).Draw(rt, "there")) * time.Millisecond)
			now = made.Add(time.Duration(rapid.IntRange(0, 300).Draw(rt, "back")) * time.Millisecond)
			s.learn(made.Add(ahead).Truncate(time.Second), sent, now)
			if s.low > ahead || s.high < ahead {
				rt.Fatalf("the server is %v ahead, not %v to %v", ahead, s.low, s.high)
			}
		}
		if got := s.ahead(); got != 0 && (got-ahead).Abs() > 800*time.Millisecond {
			rt.Errorf("said %v, is %v", got, ahead)
		}
		if s.ahead() == 0 && ahead.Abs() > 1600*time.Millisecond {
			rt.Errorf("%v is not noticed", ahead)
		}
	})
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	at := func(seconds int) time.Time { return day.Add(time.Duration(seconds) * time.Second) }
	poll := func(ticket string, second int, f Failure, seen ...Observation) Entry {
		return Entry{Poll: &Poll{At: at(second), Done: at(second + 1), Round: at(second), Ticket: ticket, Failure: f, Limit: 120, Seen: seen}}
	}
	change := func(second int) Observation { return Observation{Ticket: "a", UpdatedAt: at(second), Verdict: Changed} }
	var n Numbers
	for _, e := range []Entry{
		{Watch: &Watch{Interval: 60, Tickets: []string{"a", "b"}}},
		poll("a", 0, "", Observation{Ticket: "a", UpdatedAt: at(0), Verdict: First}),
		poll("b", 0, NotFound),
		poll("a", 60, Timeout),
		poll("b", 62, ServerError), // blind for both from here
		poll("a", 120, "", change(70)),
		poll("b", 122, NotFound), // an answer: 60 to 123
		poll("a", 180, "", change(70)),
		{Gap: &Gap{From: at(240), To: at(600), Side: SidePoller}},
		{Gap: &Gap{From: at(0), To: at(9999), Side: SideClock}},
		poll("b", 600, RateLimited),
		{Watch: &Watch{At: at(640), Interval: 60, Tickets: []string{"a"}}}, // b is watched no more: 600 to 640
		poll("a", 640, "", change(635)),
	} {
		n.Add(e)
	}
	if n.Requests != 9 || n.Changes != 2 || n.Useful != 2 || n.Gone != 1 || n.NoObservation() != 5 {
		t.Errorf("numbers %+v", n)
	}
	if want := (63 + 360 + 40) * time.Second; n.Blind != want {
		t.Errorf("blind %v, want %v", n.Blind, want)
	}
	if median, p95, longest := n.Lag(); median != 6*time.Second || p95 != 51*time.Second || longest != 51*time.Second {
		t.Errorf("lags %v %v %v", median, p95, longest)
	}
	// 700 seconds, of which it was down for 360.
	if got := fmt.Sprintf("%.1f %.3f", n.PerHour(), n.LimitShare()); got != "95.3 0.026" {
		t.Errorf("requests per hour and share: %s", got)
	}
}
