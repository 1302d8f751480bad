package cutover

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/webhook"
)

// desk is a server without a feed whose clock, tickets and failures are the test's. It
// is used by one goroutine.
type desk struct {
	*httptest.Server
	t       *testing.T
	dir     string // of the reconciler, with the receiver's record
	clock   time.Time
	changed map[string]time.Time // ticket -> updated_at
	breaks  bool
	sent    []string // tickets that were repaired
	sending func(ticket string) Reply
}

func newDesk(t *testing.T) *desk {
	answer := func(w http.ResponseWriter, v any) {
		if err := json.NewEncoder(w).Encode(v); err != nil {
			t.Error(err)
		}
	}
	d := &desk{t: t, dir: t.TempDir(), clock: day.Truncate(time.Second), changed: map[string]time.Time{}}
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", d.clock.Format(http.TimeFormat))
		switch {
		case d.breaks:
			w.WriteHeader(http.StatusBadRequest)
		case r.URL.Path == "/api/v1/tickets":
			from, err := time.Parse(time.RFC3339, r.URL.Query().Get("updated_from"))
			rows := d.rows()
			if err == nil {
				rows = slices.DeleteFunc(rows, func(t listed) bool { return t.UpdatedAt.Before(from) })
			}
			answer(w, map[string]any{"data": rows, "pagination": map[string]any{"total": len(rows), "hasNext": false}})
		case strings.HasPrefix(r.URL.Path, "/api/v1/tickets/"):
			i := slices.IndexFunc(d.rows(), func(t listed) bool { return strings.HasSuffix(r.URL.Path, t.TicketID) })
			answer(w, map[string]any{"data": d.rows()[i]})
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(d.Close)
	d.got("another", d.clock) // so that the record says what the receiver has
	return d
}

// listed is a ticket as the desk answers it.
type listed struct {
	TicketID  string    `json:"ticket_id"`
	Title     string    `json:"title"`
	EnteredAt time.Time `json:"entered_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// rows are all tickets in the order of updated_at.
func (d *desk) rows() []listed {
	rows := []listed{}
	for id, at := range d.changed {
		rows = append(rows, listed{id, "one", day.Add(-24 * time.Hour), at})
	}
	slices.SortFunc(rows, func(a, b listed) int {
		return cmp.Or(a.UpdatedAt.Compare(b.UpdatedAt), strings.Compare(a.TicketID, b.TicketID))
	})
	return rows
}

// got notes that the receiver has a ticket as it was then.
func (d *desk) got(ticket string, at time.Time) {
	d.t.Helper()
	r := openRecord(d.t, d.dir)
	if err := r.Append(Entry{Receipt: &Receipt{
		At: d.clock, Done: d.clock, HTTP: 200, Outcome: string(webhook.Kept), Signed: true, EventID: ticket + at.String(), EventType: webhook.TicketUpdated,
		OccurredAt: at, Ticket: ticket, UpdatedAt: at,
	}}); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) sweeper(repair bool) *Sweeper {
	d.t.Helper()
	s, err := OpenSweeper(SweeperConfig{
		URL: d.URL, Key: "k", HTTP: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, Dir: d.dir, Since: d.clock,
		Every: time.Minute, Budget: 1, Repair: repair, Now: func() time.Time { return d.clock },
		Send: func(_ context.Context, body []byte, _ int) Reply {
			var e webhook.Envelope
			if err := json.Unmarshal(body, &e); err != nil {
				d.t.Error(err)
			}
			if d.sending != nil {
				if r := d.sending(e.TicketID()); !r.OK {
					return r
				}
			}
			d.sent = append(d.sent, e.TicketID())
			return Reply{OK: true, Status: 200}
		},
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}

// sweep sweeps once, in a reconciler that was started anew.
func (d *desk) sweep(repair bool) (Sweep, error) {
	d.t.Helper()
	s := d.sweeper(repair)
	out, err := s.Sweep(d.t.Context())
	if cerr := s.Close(); cerr != nil {
		d.t.Error(cerr)
	}
	return out, err
}

// want sweeps once and compares what it came to.
func (d *desk) want(what string, late, caught, changes int, missed ...Missed) {
	d.t.Helper()
	got, err := d.sweep(false)
	if err != nil {
		d.t.Fatalf("%s: %v", what, err)
	}
	if got.Late != late || got.Caught != caught || got.Changes != changes || !slices.EqualFunc(got.Missed, missed, func(a, b Missed) bool {
		return a.Ticket == b.Ticket && a.Since.Equal(b.Since) && a.UpdatedAt.Equal(b.UpdatedAt)
	}) {
		d.t.Errorf("%s: %+v, want %d late, %d of %d caught and %+v missed", what, got, late, caught, changes, missed)
	}
}

// A newer change of a ticket is not settled by the older one, which has come by now: it
// has a time of its own. What was missed is not caught when it comes after all.
func TestAnOlderChangeSettlesNoNewerOne(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	began := d.clock
	at := func(after time.Duration) { d.clock = began.Add(after) }
	first, second := began.Add(time.Minute), began.Add(3*time.Minute)
	d.want("nothing has changed", 0, 0, 0)
	d.changed["a"] = first
	at(2 * time.Minute)
	d.want("a change", 1, 0, 0)
	d.changed["a"] = second
	at(4 * time.Minute)
	d.want("another one", 1, 0, 0)
	at(5 * time.Minute)
	d.got("a", first)
	d.want("the first one came", 1, 0, 0)
	d.clock = second.Add(LateAlga - time.Second)
	d.want("the second one may still come", 1, 0, 0)
	d.clock = second.Add(LateAlga)
	missed := Missed{Ticket: "a", Since: second, UpdatedAt: second}
	d.want("it has not", 0, 0, 1, missed)
	d.want("and is counted once", 0, 0, 1, missed)
	d.got("a", second)
	d.want("it came after all", 0, 0, 1)
	d.changed["b"] = d.clock
	d.got("b", d.clock)
	d.want("one that came at once", 0, 1, 2)
}

// updated_at is when a transaction began: what appears behind the time of the last
// sweep is found too.
func TestAChangeThatIsCommittedLate(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.clock = d.clock.Add(time.Hour)
	d.want("nothing has changed", 0, 0, 0)
	d.changed["a"] = d.clock.Add(time.Second - overlap)
	d.clock = d.clock.Add(time.Minute)
	d.want("it appears", 1, 0, 0)
}

// A sweep that does not come to its end begins again where it began, and what it has
// repaired until then is known: also to one that is started after a kill.
func TestASweepThatIsBrokenOff(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	began := d.clock
	d.want("nothing has changed", 0, 0, 0)
	d.changed["a"], d.changed["b"] = began.Add(time.Minute), began.Add(2*time.Minute)
	d.clock = began.Add(LateAlga + time.Hour)
	d.breaks = true
	if _, err := d.sweep(true); err == nil {
		t.Error("a server that fails is no error")
	}
	d.breaks = false
	saved := func() (st standing) {
		text, err := os.ReadFile(filepath.Join(d.dir, "reconcile.json"))
		if err == nil {
			err = json.Unmarshal(text, &st)
		}
		if err != nil {
			t.Error(err)
		}
		return st
	}
	d.sending = func(ticket string) Reply {
		if ticket == "a" {
			return Reply{OK: true}
		}
		if sent := saved().Sent["a"]; !sent.Equal(d.changed["a"]) { // as a kill would leave it
			t.Errorf("ticket a is noted as repaired up to %v", sent)
		}
		return Reply{Status: 400, Text: "no"}
	}
	if _, err := d.sweep(true); err == nil {
		t.Error("a receiver that refuses is no error")
	}
	if got := saved().Cursor; !got.Equal(began.Add(-overlap)) {
		t.Errorf("the next sweep begins at %v", got)
	}
	d.sending = nil
	got, err := d.sweep(true)
	if err != nil || len(got.Missed) != 1 || got.Missed[0].Ticket != "b" || got.Changes != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	if !slices.Equal(d.sent, []string{"a", "b"}) {
		t.Errorf("repaired %v", d.sent)
	}
}

// What a reconciler knows outlasts it.
func TestAReconcilerRemembers(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	s := d.sweeper(false)
	want := standing{
		Server: d.URL, Cursor: day, Judged: map[string]time.Time{"a": day},
		Owed: map[string]*owed{"b": {Since: day, UpdatedAt: day.Add(time.Second), Missed: true, Told: true}},
		Sent: map[string]time.Time{"c": day}, Days: map[string]*tally{"2026-05-05": {Caught: 3, Missed: 1}}, EnteredTo: day, Entered: 7,
	}
	s.state = want
	if err := s.save(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = d.sweeper(false)
	defer s.Close()
	if diff := gocmp.Diff(want, s.state); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for at, has := range map[time.Time]bool{day: true, day.Add(time.Microsecond): false} {
		if got := s.has("c", at); got != has {
			t.Errorf("has what was repaired up to %v, as of %v: %t", day, at, got)
		}
	}
}

// What is of no use any more is forgotten, and nothing before.
func TestAReconcilerForgets(t *testing.T) {
	t.Parallel()
	const next = time.Microsecond
	old := day.AddDate(0, 0, -rememberedDays)
	both := func(bound time.Time) map[string]time.Time {
		return map[string]time.Time{"kept": bound, "old": bound.Add(-next)}
	}
	s := &Sweeper{acks: newAcks(), state: standing{
		Cursor: day.Add(-overlap), Judged: both(day.Add(-overlap)), Sent: both(old),
		Days: map[string]*tally{old.Format(time.DateOnly): {}, old.AddDate(0, 0, 1).Format(time.DateOnly): {}},
	}}
	for id, at := range both(old) {
		s.acks.add(webhook.Key{EventID: id}, id, at)
	}
	s.forget(day)
	for name, left := range map[string]map[string]time.Time{"judged": s.state.Judged, "sent": s.state.Sent, "newest": s.acks.newest} {
		if _, kept := left["kept"]; !kept || len(left) != 1 {
			t.Errorf("%s: %v", name, left)
		}
	}
	if !s.acks.accepted(webhook.Key{EventID: "kept"}) || len(s.acks.events) != 1 {
		t.Errorf("events: %v", s.acks.events)
	}
	if len(s.state.Days) != 1 || s.state.Days[old.AddDate(0, 0, 1).Format(time.DateOnly)] == nil {
		t.Errorf("days: %v", s.state.Days)
	}
}
