package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/webhook"
)

// newTestBench is a bench whose receiver runs in the test.
func newTestBench(t *testing.T) *bench {
	t.Helper()
	receiver := httptest.NewServer(benchHookHandler())
	t.Cleanup(receiver.Close)
	return &bench{
		cmd: &benchCmd{Quick: true}, t: terminal{out: io.Discard, err: io.Discard}, show: newProgress(terminal{}),
		length: 100 * time.Millisecond, dir: t.TempDir(), hook: &benchHook{url: receiver.URL, client: receiver.Client()},
	}
}

// deliver posts an event to the receiver as the webhook would get it.
func deliver(t *testing.T, b *bench, event, hook string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.hook.url+benchPost, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(webhook.EventIDHeader, event)
	req.Header.Set(webhook.WebhookIDHeader, hook)
	res, err := b.hook.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	return res.StatusCode
}

func TestBenchReceiver(t *testing.T) {
	t.Parallel()
	b := newTestBench(t)
	before := time.Now()
	ids := make([]string, 300)
	for i := range ids {
		ids[i] = store.NewID()
		deliver(t, b, ids[i], ids[0])
	}
	deliver(t, b, ids[7], ids[0])
	deliver(t, b, ids[7], ids[1])
	if code := deliver(t, b, "no id", ids[0]); code != http.StatusBadRequest {
		t.Errorf("an event without an id is answered with %d", code)
	}
	if n, err := b.hook.count(t.Context()); n != 301 || err != nil {
		t.Errorf("count is %d, %v, want 301", n, err)
	}
	got, err := b.hook.arrivals(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, id := range ids {
		a := got[arrivalKey{uuid.MustParse(id), uuid.MustParse(ids[0])}]
		want := uint32(1)
		if i == 7 {
			want = 2
		}
		if at := time.Unix(0, a.first); a.copies != want || at.Before(before) || at.After(time.Now()) {
			t.Errorf("arrival %d is %d times at %s, want %d times", i, a.copies, at, want)
		}
	}
	if len(got) != 301 {
		t.Errorf("%d arrivals, want 301", len(got))
	}
	if err := b.hook.reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := b.hook.count(t.Context()); n != 0 || err != nil {
		t.Errorf("count after a reset is %d, %v", n, err)
	}
}

// TestBenchFindsLosses: three changes of which one does not arrive, and one
// arrives twice. The deliveries are never started; the test makes them.
func TestBenchFindsLosses(t *testing.T) {
	t.Parallel()
	b := newTestBench(t)
	s, err := b.open(t.Context(), benchSetting{tickets: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	if err := inParallel(t.Context(), 2, 3, s.touchNext); err != nil {
		t.Fatal(err)
	}
	var ids []string
	err = s.events(t.Context(), func(envelope []byte) error {
		id, err := benchEventID(envelope)
		ids = append(ids, uuid.UUID(id).String())
		return err
	})
	if len(ids) != 3 || err != nil {
		t.Fatalf("the feed has %d events, %v, want the 3 changes", len(ids), err)
	}
	hooks := []string{store.NewID(), store.NewID()}
	for _, hook := range hooks {
		deliver(t, b, ids[0], hook)
		deliver(t, b, ids[1], hook)
	}
	deliver(t, b, ids[0], hooks[0])
	deliver(t, b, ids[2], hooks[0]) // and not to the other
	deliver(t, b, store.NewID(), hooks[0])
	b.report.describe(true, b.length)
	if err := s.judge(t.Context(), "engine", 3, len(hooks)); err != nil {
		t.Fatal(err)
	}
	if b.report.Lost != 1 || b.report.Duplicated != 1 || !slices.Equal(b.report.Void, []string{"engine"}) {
		t.Errorf("lost %d, duplicated %d, void %v; want 1, 1, engine", b.report.Lost, b.report.Duplicated, b.report.Void)
	}
}

func TestBenchReportWithdrawsVoidFigures(t *testing.T) {
	t.Parallel()
	var r benchReport
	r.describe(false, time.Second)
	r.bare(1200, 3000, time.Second)
	r.bare(1200, 1000, time.Second)
	r.EnginePerS, r.DrainPerS = new(1000.0), new(500.0)
	r.NeighbourAloneP99, r.NeighbourP99 = new(2.0), new(3.0)
	r.EventCost = []eventCost{{Webhooks: 10, CPUUS: 50}, {Webhooks: 1000, CPUUS: 20}, {Webhooks: 100_000, CPUUS: 75}}
	r.count("engine", 0, 2)
	r.count("drain", 4, 0)
	r.count("drain", 1, 0)
	r.finish()
	text, err := json.Marshal(&r)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{
		"bare_per_s": 2000.0, "engine_per_s": 1000.0, "engine_ratio": 0.5, "drain_per_s": nil, "drain_ratio": nil,
		"api_per_s": nil, "neighbour_p99_ratio": 1.5, "webhooks_cost_ratio": 1.5, "lost": 5.0, "duplicated": 2.0,
	} {
		if got[key] != want {
			t.Errorf("%s is %v, want %v", key, got[key], want)
		}
	}
	var table bytes.Buffer
	if err := r.table(&table); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1000/s", "0.50", "VOID: drain", "Lost: 5"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table does not say %q:\n%s", want, &table)
		}
	}
	if strings.Contains(table.String(), "500/s") {
		t.Errorf("the table shows a void figure:\n%s", &table)
	}
}

func TestPercentile(t *testing.T) {
	t.Parallel()
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i+1) * time.Millisecond
	}
	for _, tc := range []struct {
		of   []time.Duration
		p    float64
		want float64
	}{
		{nil, 99, 0},
		{hundred[:1], 50, 1},
		{hundred, 50, 50},
		{hundred, 99, 99},
		{hundred, 100, 100},
		{hundred[:3], 50, 2},
		{hundred[:3], 99, 3},
	} {
		if got := percentile(tc.of, tc.p); got != tc.want {
			t.Errorf("percentile(%d values, %g) = %g, want %g", len(tc.of), tc.p, got, tc.want)
		}
	}
}

func TestInParallelEndsWithTheFirstError(t *testing.T) {
	t.Parallel()
	err := inParallel(t.Context(), 4, 1<<40, func(_ context.Context, i int) error {
		if i == 100 {
			return io.ErrUnexpectedEOF
		}
		return nil
	})
	if err != io.ErrUnexpectedEOF {
		t.Errorf("got %v", err)
	}
}
