package webhook

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// at makes a delivery of an event of testTicket that occurred so many
// milliseconds after the others.
func at(id string, ms int) []byte {
	when := At(time.Date(2026, 3, 9, 8, 14, 2, 0, time.UTC).Add(time.Duration(ms) * time.Millisecond))
	return fmt.Appendf(nil, `{"event_id":%q,"event_type":%q,"occurred_at":%q,"tenant_id":"t","data":{"ticket_id":%q}}`,
		id, TicketUpdated, when, testTicket)
}

func TestHandlerKeeps(t *testing.T) {
	t.Parallel()
	away := errors.New("the database is away")
	for _, tt := range []struct {
		name    string
		state   State
		err     error
		opts    []Option
		status  int
		outcome Outcome
		asked   int
	}{
		{"new", Fresh, nil, nil, 200, Kept, 1},
		{"known", Done, nil, nil, 200, Duplicate, 1},
		{"in somebody's hands", Running, nil, nil, 503, InProgress, 1},
		{"away", 0, away, nil, 503, StoreFailed, 1},
		{"nonsense", 0, nil, nil, 503, StoreFailed, 1},
		{"not watched", Fresh, nil, []Option{WithTickets("another")}, 200, Unwatched, 0},
		{"another type", Fresh, nil, []Option{WithEventTypes("project.created")}, 200, IgnoredType, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b, asked := newBench(nil), 0
			want := at(testID, 0)
			opts := append([]Option{WithNow(testNow), WithLogger(b.log), WithObserver(b.observe)}, tt.opts...)
			b.Handler = NewInboxHandler(NewSecretList(testSecret).All, func(ctx context.Context, now time.Time, e *Envelope, body []byte) (State, error) {
				asked++
				if _, limited := ctx.Deadline(); !limited || !now.Equal(testNow()) || e.EventID != testID || string(body) != string(want) {
					t.Errorf("kept %s at %s with %s", e.EventID, now, body)
				}
				return tt.state, tt.err
			}, opts...)
			b.want(t, signed(testID, TicketUpdated, want), tt.status, tt.outcome)
			err := b.receipts[0].Err
			if failed := tt.outcome == StoreFailed; asked != tt.asked || failed != (err != nil) || tt.err != nil && !errors.Is(err, tt.err) {
				t.Errorf("asked %d times, error %v", asked, err)
			}
			if n := b.Counts()[tt.outcome]; n != 1 {
				t.Errorf("%d of %s counted, want 1", n, tt.outcome)
			}
		})
	}
}

func TestHandlerCounts(t *testing.T) {
	t.Parallel()
	b := newBench(nil)
	if n := b.Counts(); len(n) != len(Outcomes()) {
		t.Errorf("%d outcomes at the start, want all %d", len(n), len(Outcomes()))
	}
	b.send(delivery(testID, TicketCreated))
	b.send(delivery(testID, TicketCreated))
	b.send(delivery(testID, Test))
	for range 3 {
		b.send(delivery(testID, "ticket.reopened"))
	}
	want := map[Outcome]int64{Processed: 1, Duplicate: 1, TestEvent: 1, IgnoredType: 3}
	for o, n := range b.Counts() {
		if n != want[o] {
			t.Errorf("%d of %s, want %d", n, o, want[o])
		}
	}
}

func TestHandlerStale(t *testing.T) {
	t.Parallel()
	for _, skip := range []bool{false, true} {
		var seen []string
		opts := []Option{}
		if skip {
			opts = append(opts, WithoutStale())
		}
		b := newBench(func(_ context.Context, e *Envelope) error {
			if e.Claim.State != Fresh || e.Claim.Fence == 0 || e.Claim.Key != KeyOf(e) {
				t.Errorf("claim %+v", e.Claim)
			}
			seen = append(seen, fmt.Sprint(e.EventID, e.Claim.Stale))
			return nil
		}, opts...)
		late, want := SkippedStale, []string{"2false", "3false"}
		if !skip {
			late, want = Processed, []string{"2false", "1true", "3false"}
		}
		b.want(t, signed("2", TicketUpdated, at("2", 5)), 200, Processed)
		b.want(t, signed("1", TicketUpdated, at("1", 4)), 200, late)
		b.want(t, signed("1", TicketUpdated, at("1", 4)), 200, Duplicate)
		b.want(t, signed("3", TicketUpdated, at("3", 5)), 200, Processed) // a tie
		if !slices.Equal(seen, want) {
			t.Errorf("skip %t: seen %v, want %v", skip, seen, want)
		}
	}
}

// A failed reaction is nothing that was done.
func TestHandlerStaleAfterFailure(t *testing.T) {
	t.Parallel()
	b := newBench(func(_ context.Context, e *Envelope) error {
		if e.EventID == "2" {
			return errors.New("no")
		}
		if e.Claim.Stale {
			t.Error("stale, though the newer event was not processed")
		}
		return nil
	})
	b.want(t, signed("2", TicketUpdated, at("2", 5)), 500, ReactionFailed)
	b.want(t, signed("1", TicketUpdated, at("1", 4)), 200, Processed)
}

func TestMemoryOfTicketsIsBounded(t *testing.T) {
	t.Parallel()
	const limit = 10
	m, now := NewMemory(0, limit), testNow()
	event := func(i int, occurred time.Time) *Envelope {
		return &Envelope{EventID: fmt.Sprint(i, occurred), EventType: "x", OccurredAt: At(occurred), Data: fmt.Appendf(nil, `{"ticket_id":"T%d"}`, i)}
	}
	for i := range 100 {
		c, err := m.Claim(t.Context(), now, event(i, now), DefaultLease)
		if err != nil {
			t.Fatal(err)
		}
		mustFinish(t, m, now, c)
		if n := len(m.newest) + len(m.older); n > limit {
			t.Fatalf("%d tickets are remembered, limit %d", n, limit)
		}
	}
	for i, want := range map[int]bool{99: true, 95: true, 1: false} {
		if c, _ := m.Claim(t.Context(), now, event(i, now.Add(-time.Second)), DefaultLease); c.Stale != want {
			t.Errorf("ticket %d: stale = %t, want %t", i, c.Stale, want)
		}
	}
}

func TestRefetch(t *testing.T) {
	t.Parallel()
	type ticket struct{ title string }
	broken := errors.New("429")
	var got *ticket
	var gotErr error
	asked := ""
	react := Refetch(OldPayload(5*time.Second),
		func(_ context.Context, id string) (*ticket, error) { asked = id; return got, gotErr },
		func(_ context.Context, _ *Envelope, current *ticket) error {
			if current != nil {
				return errors.New(current.title)
			}
			return nil
		})
	event := func(data string) *Envelope {
		occurred := time.Date(2026, 3, 9, 8, 14, 2, 0, time.UTC)
		return &Envelope{EventID: "1", OccurredAt: At(occurred), Data: []byte("{" + data + "}")}
	}
	const now = `"ticket_id":"T1","updated_at":"2026-03-09T08:14:01.990Z"`
	for _, tt := range []struct {
		name, data, asked string
		ticket            *ticket
		err, want         error
	}{
		{"fresh", `"ticket_id":"T1","updated_at":"2026-03-09T08:13:58.000Z"`, "", &ticket{"x"}, nil, nil},
		{"from a cache", `"ticket_id":"T1","updated_at":"2026-03-09T08:13:10.000Z"`, "t1", &ticket{"x"}, nil, errors.New("x")},
		{"without the field", `"ticket_id":"T1"`, "t1", &ticket{"x"}, nil, errors.New("x")},
		{"gone", `"ticket_id":"T1"`, "t1", nil, nil, nil},
		{"cannot get it", `"ticket_id":"T1"`, "t1", nil, broken, broken},
		{"no ticket", ``, "", &ticket{"x"}, nil, nil},
		{"of this change", now + `,"title":"b","changes":{"title":{"previous":"a","new":"b"},"due_date":{"previous":null,"new":"x"}}`, "", &ticket{"x"}, nil, nil},
		{"of before a quick change", now + `,"title":"a","changes":{"title":{"previous":"a","new":"b"}}`, "t1", &ticket{"x"}, nil, errors.New("x")},
		{"unassigned", now + `,"assigned_to":null,"changes":{"assigned_to":{"previous":"u","new":null}}`, "", &ticket{"x"}, nil, nil},
		{"of before a quick change of status", now + `,"status_id":"s1","previous_status_id":"s1"`, "t1", &ticket{"x"}, nil, errors.New("x")},
		{"of this change of status", now + `,"status_id":"s2","previous_status_id":"s1"`, "", &ticket{"x"}, nil, nil},
	} {
		asked, got, gotErr = "", tt.ticket, tt.err
		err := react(t.Context(), event(tt.data))
		same := errors.Is(err, tt.want) || err != nil && tt.want != nil && err.Error() == tt.want.Error()
		if !same || asked != tt.asked {
			t.Errorf("%s: error %v, want %v; asked %q, want %q", tt.name, err, tt.want, asked, tt.asked)
		}
	}
	for data, want := range map[string]string{now: "", now + `,"is_closed":true`: "", now + `,"is_closed":false`: "t1"} {
		e := event(data)
		e.EventType, asked, got, gotErr = TicketClosed, "", nil, nil
		if err := react(t.Context(), e); err != nil || asked != want {
			t.Errorf("closed, %s: asked %q, want %q; %v", data, asked, want, err)
		}
	}
	all := Refetch(nil, func(context.Context, string) (*ticket, error) { return &ticket{"y"}, nil },
		func(_ context.Context, _ *Envelope, current *ticket) error { return errors.New(current.title) })
	if err := all(t.Context(), event(`"ticket_id":"T1","updated_at":"2026-03-09T08:14:02.000Z"`)); err == nil || err.Error() != "y" {
		t.Errorf("without a condition: %v", err)
	}
}

func TestSecretFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "secrets")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := OpenSecretFile(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	write("# nothing yet\n\n")
	if _, err := OpenSecretFile(path); err == nil {
		t.Error("a file without a secret was accepted")
	}
	synctest.Test(t, func(t *testing.T) {
		write("# the signing secret\n old \r\n")
		f, err := OpenSecretFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want := func(when string, failed bool, secrets ...string) {
			t.Helper()
			if got := f.All(); !slices.Equal(got, secrets) || (f.Err() != nil) != failed {
				t.Errorf("%s: %q, %v, want %q", when, got, f.Err(), secrets)
			}
		}
		want("at first", false, "old")
		write("old\nnew\n")
		time.Sleep(rereadAfter - 1)
		want("not yet", false, "old")
		time.Sleep(time.Nanosecond)
		want("added", false, "old", "new")
		write("")
		time.Sleep(rereadAfter)
		want("half written", true, "old", "new")
		write("new")
		time.Sleep(rereadAfter)
		want("removed", false, "new")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rereadAfter)
		want("gone", true, "new")
	})
}

func BenchmarkSecretFile(b *testing.B) {
	path := filepath.Join(b.TempDir(), "secrets")
	if err := os.WriteFile(path, []byte(testSecret), 0o600); err != nil {
		b.Fatal(err)
	}
	f, err := OpenSecretFile(path)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if len(f.All()) != 1 {
			b.Fatal("no secret")
		}
	}
}
