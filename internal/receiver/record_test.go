package receiver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ticketwire/ticketwire/internal/cutover"
	"github.com/ticketwire/ticketwire/test/pipe"
	"github.com/ticketwire/ticketwire/webhook"
)

func receipt(e cutover.Entry) *cutover.Receipt   { return e.Receipt }
func reaction(e cutover.Entry) *cutover.Reaction { return e.Reaction }
func gapOf(e cutover.Entry) *cutover.Gap         { return e.Gap }
func started(e cutover.Entry) *cutover.Receiver  { return e.Receiver }

// What came in, what was answered and what was done is in the record.
func TestRecord(t *testing.T) {
	t.Parallel()
	var got seen
	turn := time.Now().Truncate(time.Millisecond)
	cfg := config(t, got.react)
	dir := t.TempDir()
	cfg.Record = openRecord(t, dir)
	cfg.Acts = func(e *webhook.Envelope) (bool, error) { return !e.OccurredAt.Before(turn), nil }
	cfg.Tickets, cfg.Types = []string{"T1"}, []string{webhook.TicketUpdated}
	r, c := start(t, cfg), caller(t)

	before, after := envelope("E1", "T1", turn.Add(-time.Hour)), envelope("E2", "T1", turn)
	synthetic := []byte(strings.Replace(string(envelope("E3", "T1", turn.Add(time.Hour))), `"tenant_id"`, `"synthetic":true,"tenant_id"`, 1))
	accepted(t, c, r, before)
	accepted(t, c, r, after)
	accepted(t, c, r, after) // a copy
	accepted(t, c, r, synthetic)
	accepted(t, c, r, envelope("E4", "T2", turn)) // nobody watches T2
	accepted(t, c, r, bytes.Replace(envelope("E8", "T1", turn), []byte("ticket.updated"), []byte("ticket.closed"), 1))
	forged := request(t, r.URL(), envelope("E5", "T1", turn))
	forged.Header.Set(webhook.SignatureHeader, webhook.Sign("wrong", time.Now(), before))
	if status, _ := send(t, c, forged); status != 401 {
		t.Errorf("a forged request was answered with %d", status)
	}
	moved := request(t, r.URL(), envelope("E6", "T1", turn))
	moved.Header.Set(webhook.EventIDHeader, strings.Repeat("x", 1000))
	if status, _ := send(t, c, moved); status != 400 {
		t.Errorf("a captured body under another id was answered with %d", status)
	}
	got.await(t, 2)
	accepted(t, c, r, envelope("E7", "T1", turn.Add(-time.Minute))) // older than what was done
	var all []cutover.Entry
	eventually(t, "every reaction is written down", func() bool {
		all = written(t, dir)
		return len(pick(all, reaction)) == 4
	})
	if _, text := get(t, c, r.AdminURL()+"/metrics"); !strings.Contains(text, "\nticketwire_receiver_left_to_poller_total 2\n") {
		t.Error("the metrics do not show what was left to the poller")
	}

	var lines []string
	for _, x := range pick(all, receipt) {
		lines = append(lines, fmt.Sprint(x.HTTP, " ", x.Outcome, " ", x.Signed, " ", x.EventID, " ", x.Ticket, " ", x.Synthetic, " ", x.Body != ""))
		if x.At.After(x.Done) || x.BodyHash == "" || x.Attempt != 1 || !strings.HasPrefix(x.DeliveryID, "D-") {
			t.Errorf("a receipt is %+v", x)
		}
	}
	if want := []string{
		"200 kept true E1 t1 false true", "200 kept true E2 t1 false true", "200 duplicate true E2 t1 false true",
		"200 kept true E3 t1 true true", "200 unwatched true E4 t2 false true",
		"200 ignored_type true E8 t1 false true",
		"401 bad_signature false E5  false false", "400 bad_envelope true E6  false false", "200 kept true E7 t1 false true",
	}; !slices.Equal(lines, want) {
		t.Errorf("the receipts are\n%s", strings.Join(lines, "\n"))
	}
	if x := pick(all, receipt)[1]; !x.OccurredAt.Equal(turn) || !x.UpdatedAt.Equal(turn) || x.Hash == "" || x.Body != string(after) {
		t.Errorf("the receipt of E2 is %+v", x)
	}
	lines = nil
	for _, x := range pick(all, reaction) {
		lines = append(lines, fmt.Sprint(x.EventID, " ", x.Ticket, " ", x.Attempt, " ", x.Acted, " ", x.Stale, " ", x.Error))
	}
	if want := []string{"E1 t1 1 false false ", "E2 t1 1 true false ", "E3 t1 1 true false ", "E7 t1 1 false true "}; !slices.Equal(lines, want) {
		t.Errorf("the reactions are\n%s", strings.Join(lines, "\n"))
	}
	if s := pick(all, started); len(s) != 1 || s[0].SecretFrom != "config" || !slices.Equal(s[0].Tickets, []string{"T1"}) || len(pick(all, gapOf)) != 0 {
		t.Errorf("the beginning is %+v", s)
	}
}

// A failed reaction, and one that panics, is in the record with its reason.
func TestRecordOfFailures(t *testing.T) {
	t.Parallel()
	cfg := config(t, func(_ context.Context, e *Event) error {
		switch e.Attempt {
		case 1:
			return errors.New("no")
		case 2:
			panic("oh")
		}
		return nil
	})
	dir := t.TempDir()
	cfg.Record = openRecord(t, dir)
	r, c := start(t, cfg), caller(t)
	accepted(t, c, r, envelope("E1", "T1", time.Now()))
	var got []*cutover.Reaction
	eventually(t, "three reactions", func() bool {
		got = pick(written(t, dir), reaction)
		return len(got) == 3
	})
	for i, want := range []string{"no", "reaction panicked: oh", ""} {
		if got[i].Attempt != i+1 || !got[i].Acted || got[i].Error != want {
			t.Errorf("reaction %d is %+v, want the error %q", i, got[i], want)
		}
	}
}

// A receiver that was away says for how long.
func TestGapOfARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := config(t, new(seen).react)
	cfg.Record = openRecord(t, dir)
	var now atomic.Int64
	set := func(at time.Time) { now.Store(at.UnixMicro()) }
	cfg.Now = func() time.Time { return time.UnixMicro(now.Load()) }
	stopped := time.Now().Truncate(time.Microsecond)
	again := stopped.Add(time.Hour)
	set(stopped.Add(-time.Hour))
	r := start(t, cfg)
	set(stopped)
	stop(t, r)
	set(again)
	stop(t, start(t, cfg))
	set(stopped) // a clock that was set back tells of no gap
	start(t, cfg)
	gaps := pick(written(t, dir), gapOf)
	if len(gaps) != 1 || !gaps[0].From.Equal(stopped) || !gaps[0].To.Equal(again) || gaps[0].Side != cutover.SideReceiver {
		t.Errorf("the gaps are %+v", gaps)
	}
	if n := len(pick(written(t, dir), started)); n != 3 {
		t.Errorf("%d starts are written down", n)
	}
}

// When the record can be written again it says since when it could not, once.
func TestGapOfARecordThatFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := time.Date(2027, 1, 4, 8, 0, 0, 0, time.UTC)
	began := now
	j := &journal{record: openRecord(t, dir), now: func() time.Time { return now }}
	entry := cutover.Entry{Receiver: &cutover.Receiver{At: now}}
	must(t, j.record.Close())
	for range 3 {
		if err := j.append(entry); err == nil || j.failing() == nil {
			t.Fatal("a closed record was written")
		}
		now = now.Add(time.Minute)
	}
	j.record = openRecord(t, dir)
	must(t, j.append())
	must(t, j.append(entry))
	all := written(t, dir)
	if g := pick(all, gapOf); len(g) != 1 || len(all) != 2 || !g[0].From.Equal(began) || !g[0].To.Equal(now) || g[0].Why != "the record could not be written" || j.failing() != nil {
		t.Errorf("the gaps are %+v, failing %v", g, j.failing())
	}
}

// A reaction that is not in the record is not done.
func TestReactionThatIsNotRecorded(t *testing.T) {
	t.Parallel()
	var got seen
	cfg := config(t, nil)
	cfg.Record = openRecord(t, t.TempDir())
	answered := make(chan struct{}) // the receipt is written before that
	cfg.React = func(ctx context.Context, e *Event) error {
		<-answered
		return errors.Join(got.react(ctx, e), cfg.Record.Close())
	}
	r, c := start(t, cfg), caller(t)
	accepted(t, c, r, envelope("E1", "T1", time.Now()))
	close(answered)
	if e := got.await(t, 2)[1]; e.EventID != "E1" || e.Attempt != 2 {
		t.Errorf("then came %s, attempt %d", e.EventID, e.Attempt)
	}
}

// A receiver that stood still, as with its machine, says so. While it lives its file
// says when, from the start on.
func TestBeat(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var slept atomic.Int64
		cfg := config(t, new(seen).react)
		cfg.Listener, cfg.AdminListen = pipe.Listen(), ""
		cfg.Record = openRecord(t, dir)
		cfg.Now = func() time.Time { return time.Now().Add(time.Duration(slept.Load())) }
		r, err := New(t.Context(), cfg)
		must(t, err)
		defer stop(t, r)
		must(t, r.begin())
		if a := Alive(cfg.DataDir); !a.Equal(time.Now()) {
			t.Errorf("after the start alive is %s", a)
		}
		r.tasks.Go(r.beat)
		time.Sleep(time.Minute + time.Second)
		if a := Alive(cfg.DataDir); time.Since(a) > beatEvery {
			t.Errorf("alive is %s, %s ago", a, time.Since(a))
		}
		if g := pick(written(t, dir), gapOf); len(g) != 0 {
			t.Errorf("a receiver that runs has gaps: %+v", g)
		}
		fell := time.Now()
		slept.Store(int64(time.Hour))
		time.Sleep(2 * beatEvery)
		g := pick(written(t, dir), gapOf)
		if len(g) != 1 || fell.Sub(g[0].From) > beatEvery || g[0].To.Sub(fell.Add(time.Hour)) > beatEvery || !strings.Contains(g[0].Why, "stood still") {
			t.Errorf("the gaps are %+v", g)
		}
	})
}

// What cannot be written down is not acknowledged.
func TestRecordThatFails(t *testing.T) {
	t.Parallel()
	var got seen
	cfg := config(t, got.react)
	cfg.Record = openRecord(t, t.TempDir())
	r, c := start(t, cfg), caller(t)
	must(t, cfg.Record.Close())
	if status, text := send(t, c, request(t, r.URL(), envelope("E1", "T1", time.Now()))); status != 503 || text != "the record is not available" {
		t.Errorf("the answer is %d %s", status, text)
	}
	if status, _ := get(t, c, r.AdminURL()+"/readyz"); status != 503 || !r.alarms.isOn(Unstored) {
		t.Errorf("readiness is %d", status)
	}
	if _, text := get(t, c, r.AdminURL()+"/metrics"); !strings.Contains(text, `ticketwire_receiver_requests_total{outcome="store_failed"} 1`) ||
		!strings.Contains(text, `ticketwire_receiver_requests_total{outcome="kept"} 0`) {
		t.Error("the metrics count it as kept")
	}
}

// Who does not know the secret cannot fill the record.
func TestRecordIsBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := time.Now()
	cfg := config(t, new(seen).react)
	cfg.Record = openRecord(t, dir)
	cfg.Now = func() time.Time { return now }
	r, c := start(t, cfg), caller(t)
	for range strangeBurst + 50 {
		req := request(t, r.URL(), []byte("{}"))
		req.Header.Set(webhook.SignatureHeader, "t=1")
		send(t, c, req)
	}
	accepted(t, c, r, envelope("E1", "T1", now))
	if n := len(pick(written(t, dir), receipt)); n != strangeBurst+1 {
		t.Errorf("%d receipts are written, want %d", n, strangeBurst+1)
	}
}

// An event that a drill refuses comes again and is kept then. That is no alarm.
func TestRefusedForADrill(t *testing.T) {
	t.Parallel()
	var got seen
	var refused atomic.Bool
	cfg := config(t, got.react)
	dir := t.TempDir()
	cfg.Record = openRecord(t, dir)
	cfg.Refuse = func(e *webhook.Envelope) bool { return e.EventID == "E1" && refused.CompareAndSwap(false, true) }
	r, c := start(t, cfg), caller(t)
	body := envelope("E1", "T1", time.Now())
	if status, _ := send(t, c, request(t, r.URL(), body)); status != 503 {
		t.Errorf("answered with %d", status)
	}
	if r.alarms.isOn(Unstored) {
		t.Error("a drill is an alarm")
	}
	accepted(t, c, r, body)
	got.await(t, 1)
	var codes []int
	for _, x := range pick(written(t, dir), receipt) {
		codes = append(codes, x.HTTP)
	}
	if !slices.Equal(codes, []int{503, 200}) {
		t.Errorf("the receipts are %v", codes)
	}
}

// While nobody knows whose turn it is, an event is not done.
func TestTurnThatIsNotKnown(t *testing.T) {
	t.Parallel()
	var got seen
	var asked atomic.Int32
	cfg := config(t, got.react)
	dir := t.TempDir()
	cfg.Record = openRecord(t, dir)
	cfg.Backoff = func(int) time.Duration { return time.Millisecond }
	cfg.Acts = func(*webhook.Envelope) (bool, error) {
		if asked.Add(1) < 3 {
			return false, errors.New("no setup")
		}
		return true, nil
	}
	r, c := start(t, cfg), caller(t)
	accepted(t, c, r, envelope("E1", "T1", time.Now()))
	got.await(t, 1)
	var lines []string
	eventually(t, "every try is written down", func() bool {
		lines = nil
		for _, x := range pick(written(t, dir), reaction) {
			lines = append(lines, fmt.Sprint(x.Attempt, " ", x.Acted, " ", x.Error))
		}
		return len(lines) == 3
	})
	if want := []string{"1 false no setup", "2 false no setup", "3 true "}; !slices.Equal(lines, want) {
		t.Errorf("the reactions are %q", lines)
	}
}
