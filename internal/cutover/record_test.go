package cutover

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var day = time.Date(2026, 5, 5, 9, 0, 0, 123456000, time.UTC)

// everyKind has one entry of each kind with every field set.
func everyKind() []Entry {
	fields := map[string]json.RawMessage{"title": json.RawMessage(`"<b> & \"x\""`), "due_date": json.RawMessage(`null`)}
	return []Entry{
		{Watch: &Watch{At: day, Server: "https://desk.example", Interval: 60, Tickets: []string{"a", "b"}}},
		{Poll: &Poll{
			At: day, Done: day.Add(time.Second), Round: day, Ticket: "a", List: &ListPage{ForSweep, day, 2, 100, 250, true},
			HTTP: 200, Failure: Malformed, Error: "ticket x has no updated_at", Date: day.Truncate(time.Second), Limit: 120, Remaining: 7,
			Seen: []Observation{{Ticket: "a", UpdatedAt: day, Verdict: Changed, Hash: "h", Fields: fields}},
		}},
		{Receipt: &Receipt{
			At: day, Done: day, HTTP: 200, Outcome: "processed", Signed: true, EventID: "e", EventType: "ticket.updated", DeliveryID: "d",
			Attempt: 2, OccurredAt: day, Ticket: "a", UpdatedAt: day, Hash: "h", BodyHash: "b", Body: "{\"a\":\n1}", Synthetic: true,
		}},
		{Delivery: &Delivery{
			At: day, WebhookID: "w", DeliveryID: "d", EventID: "e", EventType: "ticket.updated", Ticket: "a", Attempt: 6, Status: "abandoned",
			HTTP: 500, Error: "x", Test: true, Manual: true, AttemptedAt: day, CompletedAt: day, NextRetryAt: day,
		}},
		{Truth: &Truth{At: day, Source: "feed", EventID: "e", EventType: "ticket.updated", OccurredAt: day, Ticket: "a", UpdatedAt: day, Hash: "h", Fields: fields}},
		{Gap: &Gap{From: day, To: day.Add(time.Hour), Side: SideClock, Why: "x", Ahead: -5}},
		{Subscription: &Subscription{
			At: day, WebhookID: "w", Active: true, EventTypes: []string{"ticket.updated"}, Tickets: []string{"a"}, Filter: json.RawMessage(`{}`),
			Fields: json.RawMessage(`["title"]`), DisabledAt: day, Why: "x", GivesUpAfter: 52560,
		}},
		{Receiver: &Receiver{
			At: day, Types: []string{"ticket.updated"}, Tickets: []string{"a"}, SecretFrom: "file", Silence: 3600, Refetch: true, SkipStale: true,
		}},
		{Reaction: &Reaction{At: day, EventID: "e", EventType: "ticket.updated", Ticket: "a", Attempt: 2, Acted: true, Stale: true, Error: "x"}},
		{Reconciler: &Reconciler{At: day, Every: 900}},
		{Turn: &Turn{At: day, From: day.Add(time.Second), Side: SideReceiver}},
		{Drill: &Drill{At: day, Kind: "retry", Ticket: "a", Note: "x"}},
	}
}

func openRecord(t *testing.T, dir string) *Record {
	t.Helper()
	r, err := OpenRecord(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// readAll returns the entries of a record and how many lines were torn.
func readAll(t testing.TB, dir string) ([]Entry, int) {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, RecordName))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := NewReader(f)
	var out []Entry
	for e, err := range r.Entries() {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out, r.Torn()
}

func TestRecordKeepsEveryField(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made", "below")
	r := openRecord(t, dir)
	if err := r.Append(everyKind()...); err != nil {
		t.Fatal(err)
	}
	got, torn := readAll(t, dir)
	if diff := cmp.Diff(everyKind(), got); diff != "" || torn != 0 {
		t.Errorf("torn %d, -want +got\n%s", torn, diff)
	}
	for _, wrong := range []Entry{{}, {Gap: &Gap{}, Watch: &Watch{}}} {
		if err := r.Append(wrong); err == nil {
			t.Errorf("an entry with other than one kind was accepted: %+v", wrong)
		}
	}
}

// Times are kept as UTC microseconds, and what the caller holds stays his.
func TestRecordTimes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := openRecord(t, dir)
	local := day.Add(789).In(time.FixedZone("", 2*3600))
	p := &Poll{At: local, Done: local, Round: local, Seen: []Observation{{UpdatedAt: local}}}
	if err := r.Append(Entry{Poll: p}); err != nil {
		t.Fatal(err)
	}
	got, _ := readAll(t, dir)
	if e := got[0].Poll; e.At != day || e.Seen[0].UpdatedAt != day {
		t.Errorf("read %v and %v, want %v", e.At, e.Seen[0].UpdatedAt, day)
	}
	if p.At != local || p.Seen[0].UpdatedAt != local {
		t.Error("the caller's poll was changed")
	}
}

// However a file is cut off, by a kill, a full disk or a power cut, what came
// before and after is read, and only the entry that was cut is missing.
func TestRecordAfterACut(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		kinds := everyKind()
		var want []Entry
		torn := 0
		for range rapid.IntRange(1, 4).Draw(rt, "processes") {
			r, err := OpenRecord(dir)
			if err != nil {
				rt.Fatal(err)
			}
			for range rapid.IntRange(0, 3).Draw(rt, "appends") {
				e := rapid.SampledFrom(kinds).Draw(rt, "entry")
				if err := r.Append(e); err != nil {
					rt.Fatal(err)
				}
				want = append(want, e)
			}
			// An append that did not return: any beginning of what it would write.
			b, err := encodeLines([]any{rapid.SampledFrom(kinds).Draw(rt, "cut entry")})
			if err != nil {
				rt.Fatal(err)
			}
			n := rapid.IntRange(0, len(b)-2).Draw(rt, "bytes") // without its end it is no line
			part := append(b[:n:n], make([]byte, rapid.IntRange(0, 3).Draw(rt, "zeros"))...)
			if _, err := r.lines.file.Write(part); err != nil {
				rt.Fatal(err)
			}
			if n > 1 {
				torn++
			}
			if err := r.Close(); err != nil {
				rt.Fatal(err)
			}
		}
		// The end of the last one may still come, so it is not torn yet.
		r, err := OpenRecord(dir)
		if err != nil {
			rt.Fatal(err)
		}
		if err := r.Append(kinds[0]); err != nil {
			rt.Fatal(err)
		}
		r.Close()
		got, n := readAll(t, dir)
		// A cut right before the closing bracket is the same for every reader.
		if diff := cmp.Diff(append(want, kinds[0]), got); diff != "" || n != torn {
			rt.Errorf("torn %d, want %d; -want +got\n%s", n, torn, diff)
		}
	})
}

// A reader that is at the end goes on when more comes, whatever part of a line
// it has seen.
func TestReaderFollows(t *testing.T) {
	t.Parallel()
	text, err := encodeLines([]any{everyKind()[0], everyKind()[5]})
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	r := NewReader(&file)
	var got []Entry
	for _, b := range text {
		file.WriteByte(b)
		switch e, err := r.Next(); {
		case err == nil:
			got = append(got, e)
		case !errors.Is(err, io.EOF):
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]Entry{everyKind()[0], everyKind()[5]}, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestReaderRefusesDamage(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"{\"gap\":{\"side\":\"poller\"}}\n{\"gap\":{\"side\":\"pol\x00ler\"}}\n": "line 2 is damaged",
		"{\"gap\":nonsense}\n":                    "line 1 is damaged",
		"{\"gap\":{\"from\":\"yesterday\"}}\n":    "line 1 is damaged",
		"\n{\"opinion\":{\"of\":\"the user\"}}\n": "line 2 is of a kind that this version does not know",
	} {
		var err error
		for _, err = range NewReader(strings.NewReader(text)).Entries() {
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// Both pipelines write at the same time.
func TestRecordHasSeveralWriters(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var all sync.WaitGroup
	for w := range 4 {
		r := openRecord(t, dir)
		for range 2 { // goroutines of one process
			all.Go(func() {
				for range 25 {
					if err := r.Append(Entry{Receipt: &Receipt{EventID: fmt.Sprint(w), Body: strings.Repeat("x", 10_000)}}, Entry{Gap: &Gap{}}); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	all.Wait()
	got, torn := readAll(t, dir)
	if len(got) != 400 || torn != 0 {
		t.Errorf("%d entries, %d torn, want 400", len(got), torn)
	}
	for i, e := range got {
		if (i%2 == 0) != (e.Receipt != nil) {
			t.Fatalf("entry %d: what was appended together is not together", i)
		}
	}
}

// A process that is killed again and again while it appends loses nothing that it
// said is written.
func TestRecordSurvivesKills(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	said := 0
	for round := range 10 {
		cmd := exec.CommandContext(t.Context(), self)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), appends+"=1")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Kill after a number of lines that differs from round to round.
		buf := make([]byte, 1)
		for lines := 0; lines < 5+7*round; {
			if _, err := io.ReadFull(out, buf); err != nil {
				t.Fatal(err)
			}
			if buf[0] == '\n' {
				lines++
				said++
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		rest, _ := io.ReadAll(out) // said before the kill arrived
		said += bytes.Count(rest, []byte("\n"))
		_ = cmd.Wait() // it was killed
	}
	got, torn := readAll(t, dir)
	// The one append of each process that was cut off may be there or not.
	if len(got) < said || len(got) > said+10 {
		t.Errorf("%d entries of %d that were acknowledged", len(got), said)
	}
	t.Logf("%d acknowledged, %d read, %d torn", said, len(got), torn)
}

// appendForever is the process that TestRecordSurvivesKills kills. It returns only
// when it cannot go on.
func appendForever() error {
	r, err := OpenRecord(".")
	if err != nil {
		return err
	}
	for {
		if err := r.Append(Entry{Receipt: &Receipt{Body: strings.Repeat("x", 100_000)}}); err != nil {
			return err
		}
		if _, err := os.Stdout.WriteString("written\n"); err != nil {
			return err
		}
	}
}

// The memory keeps the last of each ticket through restarts, and its file does
// not grow with time.
func TestMemory(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "seen.jsonl")
	m, err := openMemory(name)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]*seen{}
	for n := range 3000 {
		s := &seen{Ticket: fmt.Sprint("ticket ", n%7), UpdatedAt: day.Add(time.Duration(n) * time.Second), Hash: fmt.Sprint(n), Gone: n%2 == 0}
		if err := m.save(memoryLine{Seen: s}, memoryLine{Progress: &progress{Last: s.UpdatedAt, Complete: n > 5}}); err != nil {
			t.Fatal(err)
		}
		want[s.Ticket] = s
	}
	if info, err := os.Stat(name); err != nil || info.Size() > 300_000 {
		t.Errorf("the file has %d bytes, %v", info.Size(), err)
	}
	if err := m.close(); err != nil {
		t.Fatal(err)
	}
	again, err := openMemory(name)
	if err != nil {
		t.Fatal(err)
	}
	defer again.close()
	if diff := cmp.Diff(want, again.tickets); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if p := (progress{Last: day.Add(2999 * time.Second), Complete: true}); again.progress != p {
		t.Errorf("progress %+v, want %+v", again.progress, p)
	}
	if n := again.listed(); n != 3 && n != 4 {
		t.Errorf("%d tickets are listed", n)
	}
}

// What cannot be brought to the disk is not said to be there, and puts nothing in the
// place of what is: a device that takes everything cannot be synced.
func TestWhatIsNotOnTheDiskIsAnError(t *testing.T) {
	t.Parallel()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	l := &lines{file: null}
	if err := l.append(1); err == nil {
		t.Error("an append that was not synced is no error")
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(os.DevNull, name+".new"); err != nil {
		t.Fatal(err)
	}
	if err := replaceFile(name, []byte("new")); err == nil {
		t.Error("a file that was not synced is no error")
	}
	if text, err := os.ReadFile(name); string(text) != "old" {
		t.Errorf("%q is in its place, %v", text, err)
	}
}
