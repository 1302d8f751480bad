package cutover

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/webhook"
)

func TestChangedAt(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name              string
		occurred, updated time.Duration
		none              bool
		want              time.Duration
	}{
		{"first event of a change", 0, 0, false, 0},
		{"third event of a change", 2 * time.Millisecond, 0, false, 0},
		{"published a second later", time.Second, 0, false, 0},
		{"stale payload", time.Minute, 0, false, time.Minute},
		{"payload of a later change", 0, time.Second, false, 0},
		{"payload without updated_at", time.Second, 0, true, time.Second},
	} {
		ms := day.Truncate(time.Millisecond)
		updated := ms.Add(c.updated)
		data := `{"ticket_id":"a","updated_at":"` + webhook.At(updated).String() + `"}`
		if c.none {
			updated, data = time.Time{}, `{"ticket_id":"a"}`
		}
		e := &webhook.Envelope{OccurredAt: webhook.At(ms.Add(c.occurred)), Data: []byte(data)}
		if got := ChangedAt(ms.Add(c.occurred), updated); !got.Equal(ms.Add(c.want)) {
			t.Errorf("%s: %s after, want %s", c.name, got.Sub(ms), c.want)
		}
		if got := ChangeOf(e); !got.Equal(ms.Add(c.want)) {
			t.Errorf("%s: the envelope's is %s after, want %s", c.name, got.Sub(ms), c.want)
		}
	}
}

// A turn takes effect for whoever follows the directory, at once and without a
// restart.
func TestTurnsAreFollowed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	turns := FollowTurns(dir)
	want := func(after time.Duration, want Side) {
		t.Helper()
		if got, err := turns.Acts(day.Add(after)); got != want || err != nil {
			t.Errorf("%s after: %s, %v, want %s", after, got, err, want)
		}
	}
	want(0, SidePoller) // no cutover
	if _, err := turns.Setup(); fault.KindOf(err) != fault.NotFound {
		t.Errorf("without a setup: %v", err)
	}
	if _, err := TakeTurn(dir, Turn{At: day, From: day, Side: SideReceiver}); fault.KindOf(err) != fault.NotFound {
		t.Errorf("a turn without a setup: %v", err)
	}
	if err := (&Setup{Server: "s", Turns: []Turn{{At: day, From: day, Side: SidePoller}}}).Save(dir); err != nil {
		t.Fatal(err)
	}
	want(time.Hour, SidePoller)
	for i := range 20 {
		side := []Side{SideReceiver, SidePoller}[i%2]
		from := time.Duration(i+1) * time.Minute
		turn, err := TakeTurn(dir, Turn{At: day, From: day.Add(from), Side: side, Why: "w", By: "b"})
		if err != nil || !turn.From.Equal(day.Add(from)) {
			t.Fatalf("%+v, %v", turn, err)
		}
		want(from, side)
		want(from-1, []Side{SidePoller, SideReceiver}[i%2])
	}
	if _, err := TakeTurn(dir, Turn{At: day, From: day.Add(time.Hour), Side: SidePoller}); fault.KindOf(err) != fault.Conflict {
		t.Errorf("the poller's turn again: %v", err)
	}
	// A clock that went back does not put a turn before the one that is there.
	turn, err := TakeTurn(dir, Turn{At: day, From: day, Side: SideReceiver})
	if err != nil || !turn.From.After(day.Add(20*time.Minute)) {
		t.Errorf("%+v, %v", turn, err)
	}
	if ours, err := turns.Receives(&webhook.Envelope{OccurredAt: webhook.At(day.Add(time.Hour))}); !ours || err != nil {
		t.Errorf("%t, %v", ours, err)
	}
	if err := os.WriteFile(filepath.Join(dir, SetupName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if side, err := turns.Acts(day); err == nil {
		t.Errorf("a setup that cannot be read says %s", side)
	}
	if err := os.Remove(filepath.Join(dir, SetupName)); err != nil {
		t.Fatal(err)
	}
	if side, err := turns.Acts(day); err == nil {
		t.Errorf("a setup that is gone says %s", side)
	}
	f, err := os.Open(filepath.Join(dir, RecordName))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	noted := 0
	for e, err := range NewReader(f).Entries() {
		if err != nil || e.Turn == nil {
			t.Errorf("%+v, %v", e, err)
		}
		noted++
	}
	if noted != 21 {
		t.Errorf("%d turns in the record, want 21", noted)
	}
}

// Whoever changes the setup sees what the one before has done, or is told to try
// again.
func TestSetupIsChangedByOneAtATime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := (&Setup{}).Save(dir); err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for done := 0; done < 10; {
				_, err := ChangeSetup(dir, func(s *Setup) (*Setup, error) { s.Interval++; return s, nil })
				switch {
				case err == nil:
					done++
				case fault.KindOf(err) != fault.Conflict:
					t.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	refused := errors.New("no")
	if _, err := ChangeSetup(dir, func(s *Setup) (*Setup, error) { s.Interval = 0; return s, refused }); !errors.Is(err, refused) {
		t.Errorf("%v, want what the function returned", err)
	}
	got, err := LoadSetup(dir)
	if diff := cmp.Diff(&Setup{Interval: 80}, got); diff != "" || err != nil {
		t.Errorf("%v, -want +got\n%s", err, diff)
	}
}
