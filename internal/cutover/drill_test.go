package cutover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/fault"
)

func TestDrillsAreAskedForAndMet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		request := DrillRequest{Kind: DrillRestart, Ticket: "a", Down: 3 * time.Second}
		if err := AskForDrill(t.Context(), dir, request, time.Minute); fault.KindOf(err) != fault.Conflict {
			t.Errorf("with nobody there: %v", err)
		}
		// What was asked of a process that is gone is not done by the next.
		if err := os.WriteFile(filepath.Join(dir, drillName), []byte(`{"kind":"retry"}`), 0o600); err != nil {
			t.Fatal(err)
		}
		var met []DrillRequest
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			done <- MeetDrills(ctx, dir, func(r DrillRequest) {
				time.Sleep(time.Second)
				met = append(met, r)
			})
		}()
		time.Sleep(10 * time.Second)
		began := time.Now()
		for range 2 {
			if err := AskForDrill(t.Context(), dir, request, time.Minute); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(began); took < 2*time.Second {
			t.Errorf("two drills of a second took %s", took)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff([]DrillRequest{request, request}, met); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	})
}

// scratchDesk is a server with one ticket.
type scratchDesk struct {
	mu     sync.Mutex
	title  string
	at     time.Time
	titles []string
	fail   []int // statuses of the next answers
}

func (d *scratchDesk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.fail) > 0 {
		w.WriteHeader(d.fail[0])
		d.fail = d.fail[1:]
		return
	}
	if r.Method == http.MethodPut {
		var in struct{ Title string }
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		d.title, d.at, d.titles = in.Title, d.at.Add(time.Second), append(d.titles, in.Title)
	}
	fmt.Fprintf(w, `{"data":{"ticket_id":"a","title":%q,"updated_at":%q}}`, d.title, d.at.Format(time.RFC3339Nano))
}

func TestScratchIsPutBack(t *testing.T) {
	t.Parallel()
	// A drill that was killed has left its mark.
	d := &scratchDesk{title: "Printer [x] [drill 17]", at: day}
	server := httptest.NewServer(d)
	defer server.Close()
	cfg := ScratchConfig{URL: server.URL, Key: "k", Ticket: "a", Budget: 1, Now: time.Now}
	s, err := OpenScratch(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	d.fail = []int{http.StatusServiceUnavailable} // it is tried again
	for n := range 2 {
		at, err := s.Edit(t.Context())
		if want := day.Add(time.Duration(n+1) * time.Second); err != nil || !at.Equal(want) {
			t.Errorf("%s, %v, want %s", at, err, want)
		}
	}
	if err := s.Restore(t.Context()); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"Printer [x] [drill 1]", "Printer [x] [drill 2]", "Printer [x]"}, d.titles); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	d.fail = []int{http.StatusForbidden}
	if _, err := s.Edit(t.Context()); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("an edit that is refused: %v", err)
	}
	d.title = strings.Repeat("ä", 250)
	if _, err := OpenScratch(t.Context(), cfg); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a title without room: %v", err)
	}
}

func TestTailShowsWhatFollows(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := OpenTail(dir); fault.KindOf(err) != fault.NotFound {
		t.Errorf("without a record: %v", err)
	}
	record, err := OpenRecord(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer record.Close()
	drill := func(note string) Entry { return Entry{Drill: &Drill{At: day, Kind: DrillEdit, Note: note}} }
	if err := record.Append(drill("before")); err != nil {
		t.Fatal(err)
	}
	// The end is inside of a line that somebody is writing.
	f, err := os.OpenFile(filepath.Join(dir, RecordName), os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("\n{\"drill\":{\"note\":\"bef"); err != nil {
		t.Fatal(err)
	}
	tail, err := OpenTail(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer tail.Close()
	if _, err := f.WriteString("ore\"}}\n"); err != nil {
		t.Fatal(err)
	}
	bounded, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if e, err := tail.Await(bounded, func(Entry) bool { return true }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%+v, %v, want nothing in time", e.Drill, err)
	}
	if err := record.Append(drill("one"), drill("two"), drill("three")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"two", "three"} {
		e, err := tail.Await(t.Context(), func(e Entry) bool { return e.Drill.Note == want })
		if err != nil || e.Drill.Note != want {
			t.Errorf("%+v, %v, want %s", e, err, want)
		}
	}
}
