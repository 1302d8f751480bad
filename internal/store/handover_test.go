package store

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
)

func TestHandovers(t *testing.T) {
	t.Parallel()
	exercise(t, map[string]func(*testing.T, opener){
		"a delivery has no row until it is recorded":     handedRecorded,
		"a failed one goes on as planned":                handedFails,
		"who looks finds it":                             handedShown,
		"one that is given back waits in the queue":      handedReleased,
		"what is undone was not handed over":             handedRolledBack,
		"a crash leaves it owed":                         handedCrash,
		"a retry by hand waits for it":                   handedRetry,
		"a replay does not repeat it":                    handedReplay,
		"the end of its webhook leaves it to be sent":    handedDisabled,
		"its own body and test mode come back":           handedShapes,
		"the backlog counts it":                          handedBacklog,
		"lists go with the last of their deliveries":     handedLists,
		"two results for one delivery are recorded once": handedTwice,
		"retention leaves its event":                     handedOld,
		"successes are counted without a look":           handedUnseen,
	})
}

// taker is an intake that takes everything, or nothing.
type taker struct {
	got       []Claimed
	reserved  int
	cancelled int
	full      bool
}

// take registers a taker with the store.
func (d *desk) take() *taker {
	k := &taker{}
	d.SetIntake(&Intake{
		Owner: "engine", Lease: lease,
		Reserve: func(Lane, int) bool {
			if k.full {
				return false
			}
			k.reserved++
			return true
		},
		Cancel: func(c []Claimed) { k.cancelled += len(c) },
		Commit: func(c Committed) { k.got = append(k.got, c.Handed...) },
	})
	return k
}

// batch wraps handed deliveries for line.answer.
func (l *line) batch(c ...Claimed) Batch {
	return Batch{Target: Target{Webhook: l.current()}, Deliveries: c}
}

// rows counts the rows of a table without the store's help.
func (d *desk) count(table string) (n int) {
	d.t.Helper()
	if err := d.read.QueryRowContext(d.t.Context(), `select count(*) from `+table).Scan(&n); err != nil {
		d.t.Fatal(err)
	}
	return n
}

func handedRecorded(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l, k := d.hook(start()), d.take()
	d.create(start(), d.draft("one"))
	if len(k.got) != 1 || d.count("deliveries") != 0 || d.count("handovers") != 1 {
		t.Fatalf("handed %d, %d rows, %d lists", len(k.got), d.count("deliveries"), d.count("handovers"))
	}
	c := k.got[0]
	sameBody(t, c.Body, must(d.Event(t.Context(), d.TenantID, c.EventID))(t))
	l.answer(l.batch(c), status(200), start().Add(time.Second))
	if d.count("handovers") != 0 {
		t.Error("the list is still there")
	}
	row := l.log(DeliveryQuery{})[0]
	if shape(row) != "1/0 delivered" || row.DeliveryID != c.DeliveryID || row.StatusCode != 200 || !row.DueAt.Equal(c.DueAt.Truncate(time.Microsecond)) {
		t.Errorf("row %+v", row)
	}
	sameBody(t, row.Body, c.Body)
	if h := l.current(); h.SuccessfulDeliveries != 1 {
		t.Errorf("health %+v", h.Health)
	}
}

func handedFails(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l, k := d.hook(start()), d.take()
	d.create(start(), d.draft("one"))
	l.answer(l.batch(k.got[0]), status(500), start())
	if diff := cmp.Diff([]string{"1/0 retrying", "2/1 pending"}, byID(l.log(DeliveryQuery{}))); diff != "" {
		t.Error(diff)
	}
	next := l.claimOne(start().Add(time.Minute))
	sameBody(t, next.Deliveries[0].Body, k.got[0].Body)
}

func handedShown(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l, k := d.hook(start()), d.take()
	other := d.hook(start())
	d.create(start(), d.draft("one"))
	row := l.log(DeliveryQuery{})[0]
	if shape(row) != "1/0 pending" || row.DeliveryID != k.got[0].DeliveryID && row.DeliveryID != k.got[1].DeliveryID {
		t.Errorf("row %+v", row)
	}
	if n := d.count("deliveries"); n != 1 {
		t.Errorf("%d rows, want only that of the webhook that was asked for", n)
	}
	if n := len(l.claim(start()).Deliveries); n != 0 {
		t.Error("it can be claimed while it is being sent")
	}
	for _, c := range k.got {
		hook := l
		if c.WebhookID == other.hook.WebhookID {
			hook = other
		}
		if rec := hook.answer(hook.batch(c), status(200), start()); rec[0].Fenced {
			t.Error("its lease does not hold any more")
		}
	}
	if got := must(d.Delivery(t.Context(), d.TenantID, l.hook.WebhookID, row.DeliveryID))(t); got.Status != delivery.Delivered {
		t.Errorf("row %+v", got)
	}
	if d.count("deliveries") != 2 || d.count("handovers") != 0 {
		t.Errorf("%d rows, %d lists", d.count("deliveries"), d.count("handovers"))
	}
}

func handedReleased(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l, k := d.hook(start()), d.take()
	d.create(start(), d.draft("one"))
	if err := d.Release(t.Context(), k.got); err != nil {
		t.Fatal(err)
	}
	again := l.claimOne(start())
	if c := again.Deliveries[0]; c.DeliveryID != k.got[0].DeliveryID || c.Attempt != 1 || c.Generation <= k.got[0].Generation {
		t.Errorf("claimed %+v", c)
	}
	// Who gave it back has nothing to say about it any more.
	if rec := l.answer(l.batch(k.got[0]), status(500), start()); !rec[0].Fenced {
		t.Error("recorded without a lease")
	}
	l.answer(again, status(200), start())
}

func handedRolledBack(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l, k := d.hook(start()), d.take()
	d.create(start(), d.draft("one"))
	first := k.got[0]
	// One call records what was handed over and then fails, the others of its
	// batch hand over or fail before they have written anything. It comes first, so
	// that the batch runs again for its sake.
	entered, block := make(chan struct{}), make(chan struct{})
	go func() { _ = d.do(context.Background(), func(*tx) error { close(entered); <-block; return nil }) }()
	<-entered
	create := func(title string) func() error {
		return func() error {
			_, err := d.CreateTicket(context.Background(), start(), d.Actor, d.draft(title))
			return err
		}
	}
	undone := func() error {
		return d.do(context.Background(), func(x *tx) error {
			r := l.answered(&l.hook, first, status(200), start())
			if _, err := x.recordAttempt(&r); err != nil {
				return err
			}
			return fault.New(fault.Internal, "undone")
		})
	}
	results := make(chan error, 3)
	for i, call := range []func() error{undone, create("two"), create("")} {
		go func() { results <- call() }()
		for len(d.writer.calls) <= i {
			runtime.Gosched()
		}
	}
	close(block)
	failed := 0
	for range 3 {
		if err := <-results; err != nil {
			failed++
		}
	}
	if failed != 2 || k.reserved-k.cancelled != len(k.got) || len(k.got) != 2 {
		t.Errorf("%d failed; %d reserved, %d cancelled, %d handed over", failed, k.reserved, k.cancelled, len(k.got))
	}
	if n := d.count("deliveries"); n != 0 {
		t.Errorf("%d rows", n)
	}
	l.answer(l.batch(k.got...), status(200), start())
	if got := l.log(DeliveryQuery{Status: "delivered"}); len(got) != 2 || d.count("handovers") != 0 {
		t.Errorf("%d delivered, %d lists", len(got), d.count("handovers"))
	}
}

func handedCrash(t *testing.T, open opener) {
	s := open(t, guide)
	d := newDesk(t, s, "acme")
	l, k := d.hook(start()), d.take()
	for range 3 {
		d.create(start(), d.draft("x"))
	}
	l.answer(l.batch(k.got[1]), status(200), start())
	// A second process that opens the database is the one after the crash.
	after := beside(t, s, guide)
	for range 2 { // and one that crashed in its start
		if err := after.ReleaseAll(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	got := must(after.Claim(t.Context(), start(), ClaimRequest{Lane: l.lane(), Owner: "next", Limit: 10, Lease: lease}))(t)
	var ids, want []string
	for i, c := range got.Deliveries {
		ids = append(ids, c.DeliveryID)
		if c.Attempt != 1 || c.TicketID == "" || c.EventType != "ticket.created" || !c.DueAt.Equal(start().Truncate(time.Microsecond)) {
			t.Errorf("%d: %+v", i, c)
		}
		sameBody(t, c.Body, must(d.Event(t.Context(), d.TenantID, c.EventID))(t))
	}
	want = []string{k.got[0].DeliveryID, k.got[2].DeliveryID}
	slices.Sort(ids)
	slices.Sort(want)
	if diff := cmp.Diff(want, ids); diff != "" {
		t.Error(diff)
	}
	if n := d.count("handovers"); n != 0 {
		t.Errorf("%d lists", n)
	}
}

func handedRetry(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l, k := d.hook(start()), d.take()
	d.create(start(), d.draft("one"))
	_, err := l.retry(start(), k.got[0].DeliveryID)
	wantKind(t, "retry of what is being sent", err, fault.Conflict)
	if rec := l.answer(l.batch(k.got[0]), status(500), start()); rec[0].Fenced {
		t.Error("the refused retry took the lease")
	}
	if c := must(l.retry(start(), k.got[0].DeliveryID))(t).Deliveries[0]; c.Attempt != 2 {
		t.Errorf("manual attempt %+v", c)
	}
}

func handedReplay(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l, k := d.hook(start()), d.take()
	d.create(start(), d.draft("one"))
	l.active(start(), false, false)
	if n := l.active(start().Add(time.Second), true, true); n != 0 {
		t.Errorf("%d replayed while it is being sent", n)
	}
	l.answer(l.batch(k.got[0]), status(200), start().Add(time.Second))
	if diff := cmp.Diff([]string{"1/0 delivered"}, byID(l.log(DeliveryQuery{}))); diff != "" {
		t.Error(diff)
	}
}

func handedDisabled(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l, k := d.hook(start()), d.take()
	d.create(start(), d.draft("sent"))
	d.create(start(), d.draft("given back"))
	l.active(start(), false, false)
	l.answer(l.batch(k.got[0]), status(200), start())
	if err := d.Release(t.Context(), k.got[1:]); err != nil {
		t.Fatal(err)
	}
	l.claim(start())
	want := []string{"1/0 abandoned webhook_disabled", "1/0 delivered"}
	if got := shapes(l.log(DeliveryQuery{})); !slices.Equal(got, want) && !slices.Equal(got, []string{want[1], want[0]}) {
		t.Errorf("log %v", got)
	}
}

func handedShapes(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start(), func(s *delivery.Spec) {
		s.IsTestMode = true
		s.PayloadFields = map[string][]string{"ticket": {"title"}}
	})
	k := d.take()
	d.create(start(), d.draft("one"))
	full := must(d.Event(t.Context(), d.TenantID, k.got[0].EventID))(t)
	if bytes.Equal(k.got[0].Body, full) || !k.got[0].IsTest {
		t.Fatalf("handed %+v", k.got[0])
	}
	after := beside(t, d.Store, guide)
	if err := after.ReleaseAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := must(after.Claim(t.Context(), start(), ClaimRequest{Lane: l.lane(), Owner: "next", Limit: 10, Lease: lease}))(t)
	if len(got.Deliveries) != 1 || !got.Deliveries[0].IsTest {
		t.Fatalf("claimed %+v", got.Deliveries)
	}
	sameBody(t, got.Deliveries[0].Body, k.got[0].Body)
}

func handedBacklog(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l, k := d.hook(start()), d.take()
	d.create(start(), d.draft("one"))
	k.full = true
	d.create(start().Add(time.Second), d.draft("two"))
	oldest := start().Truncate(time.Microsecond)
	if diff := cmp.Diff(Backlog{Pending: 2, Due: 2, OldestDue: &oldest}, must(d.Store.Backlog(t.Context(), start().Add(time.Minute)))(t)); diff != "" {
		t.Error(diff)
	}
	l.answer(l.batch(k.got[0]), status(200), start())
	oldest = oldest.Add(time.Second)
	if diff := cmp.Diff(Backlog{Pending: 1, Due: 1, OldestDue: &oldest}, must(d.Store.Backlog(t.Context(), start().Add(time.Minute)))(t)); diff != "" {
		t.Error(diff)
	}
}

func handedLists(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l, other, k := d.hook(start()), d.hook(start()), d.take()
	d.create(start(), d.draft("one"))
	for i, c := range k.got {
		hook := l
		if c.WebhookID == other.hook.WebhookID {
			hook = other
		}
		hook.answer(hook.batch(c), status(200), start())
		if n := d.count("handovers"); n != 1-i {
			t.Errorf("after %d of 2: %d lists", i+1, n)
		}
	}
}

func handedTwice(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l, k := d.hook(start()), d.take()
	d.create(start(), d.draft("one"))
	rec := l.answer(l.batch(k.got[0], k.got[0]), status(200), start())
	if rec[0].Fenced || !rec[1].Fenced {
		t.Errorf("recorded %+v", rec)
	}
	if h := l.current(); h.TotalDeliveries != 1 {
		t.Errorf("health %+v", h.Health)
	}
}

func handedOld(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide, func(c *Config) { c.Retention = time.Hour }), "acme")
	l, k := d.hook(start()), d.take()
	d.younger(d.create(start(), d.draft("one")).TicketID)
	late := start().Add(1000 * time.Hour)
	d.sweep(late)
	if err := d.Release(t.Context(), k.got); err != nil {
		t.Fatal(err)
	}
	// Its lease is the engine's as long as that lives.
	if c := l.claimOne(late).Deliveries[0]; c.DeliveryID != k.got[0].DeliveryID {
		t.Errorf("claimed %+v", c)
	} else {
		sameBody(t, c.Body, k.got[0].Body)
	}
}

// A webhook whose results are all successes is not read for them, and its health is
// what it would have been, whatever the order in which they are recorded.
func handedUnseen(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l, k := d.hook(start()), d.take()
	var want delivery.Health
	record := func(code int, ends ...time.Duration) {
		t.Helper()
		var results []Result
		for _, end := range ends {
			d.create(start(), d.draft("one"))
			at := start().Add(end)
			results = append(results, l.answered(&l.hook, k.got[len(k.got)-1], status(code), at))
			want.Record(code == 200, at)
		}
		for _, rec := range must(d.Record(t.Context(), results))(t) {
			if rec.Fenced {
				t.Error("a result was refused")
			}
		}
		if diff := cmp.Diff(want, l.current().Health, cmpopts.EquateApproxTime(0)); diff != "" {
			t.Errorf("health (-want +got):\n%s", diff)
		}
	}
	record(500, 5*time.Second)
	record(200, 9*time.Second, 7*time.Second)
	record(200, 8*time.Second)
	record(500, 12*time.Second, 6*time.Second)
	record(200, 3*time.Second, 20*time.Second, 11*time.Second)
	if err := d.DeleteWebhook(t.Context(), start(), d.Actor, l.hook.WebhookID); err != nil {
		t.Fatal(err)
	}
	if len(d.writer.recent.there) != 0 {
		t.Error("a deleted webhook is remembered")
	}
}

// SQLite ends a transaction by itself when a statement finds the disk full. Then
// nothing of the batch may be left, neither on the disk nor in memory.
func TestAFullDiskUndoesAllOfABatch(t *testing.T) {
	t.Parallel()
	d := newDesk(t, openAt(t, place{dir: t.TempDir()}, guide), "acme")
	l, k := d.hook(start()), d.take()
	entered, block := make(chan struct{}), make(chan struct{})
	pages := func(n int) error {
		return d.do(context.Background(), func(x *tx) error {
			close(entered)
			<-block
			return x.w.exec(fmt.Sprint("pragma max_page_count = ", n))
		})
	}
	var used int
	if err := d.read.QueryRowContext(t.Context(), "pragma page_count").Scan(&used); err != nil {
		t.Fatal(err)
	}
	limited := make(chan error, 1)
	go func() { limited <- pages(used + 30) }()
	<-entered
	const callers = 20
	errs := make(chan error, callers)
	for range callers {
		go func() {
			draft := d.draft("large")
			draft.Description = new(strings.Repeat("x", 20_000))
			_, err := d.CreateTicket(context.Background(), start(), d.Actor, draft)
			errs <- err
		}()
	}
	for len(d.writer.calls) < callers {
		runtime.Gosched()
	}
	close(block)
	if err := <-limited; err != nil {
		t.Fatal(err)
	}
	made := 0
	for range callers {
		err := <-errs
		if err == nil {
			made++
			continue
		}
		wantKind(t, "a full disk", err, fault.Unavailable)
	}
	if made == callers {
		t.Fatal("the disk was not full")
	}
	entered, block = make(chan struct{}), make(chan struct{})
	close(block)
	if err := pages(1 << 30); err != nil {
		t.Fatal(err)
	}
	if err := d.Ping(t.Context()); err != nil {
		t.Errorf("the store does not recover: %v", err)
	}
	d.create(start(), d.draft("after"))
	if tickets, events := d.count("tickets"), d.count("events"); tickets != made+1 || events != made+1 || len(k.got) != made+1 {
		t.Errorf("%d acknowledged, %d tickets, %d events, %d handed over", made+1, tickets, events, len(k.got))
	}
	if k.reserved-k.cancelled != len(k.got) {
		t.Errorf("%d reserved, %d cancelled, %d handed over", k.reserved, k.cancelled, len(k.got))
	}
	l.answer(l.batch(k.got...), status(200), start())
	if n, lists := d.count("deliveries"), d.count("handovers"); n != made+1 || lists != 0 {
		t.Errorf("%d rows, %d lists", n, lists)
	}
}

// FuzzReadList feeds lists that nobody has written: they are refused, and what
// is read comes out the same when it is written again.
func FuzzReadList(f *testing.F) {
	c := Claimed{Delivery: delivery.Delivery{TenantID: NewID(), WebhookID: NewID(), EventID: NewID(), DeliveryID: NewID(), IsTest: true}, seq: 1 << 40}
	for _, own := range [][]byte{nil, {}, []byte(`{"a":1}`)} {
		c.own = own
		list, err := appendHanded([]byte{listVersion}, &c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(list)
		f.Add(list[:len(list)-1])
		first := slices.Concat([]byte{1}, list[1:1+listedIDs], list[1+listedIDs+8:]) // of version 1
		f.Add(first)
		if owed, err := readList(first); err != nil || len(owed) != 1 || owed[0].seq != 0 || owed[0].delivery != c.DeliveryID || !owed[0].isTest {
			f.Fatalf("a list of version 1 is read as %+v, %v", owed, err)
		}
	}
	f.Fuzz(func(t *testing.T, list []byte) {
		owed, err := readList(list)
		if err != nil {
			return
		}
		again := []byte{listVersion}
		for _, d := range owed {
			again, err = appendHanded(again, &Claimed{Delivery: delivery.Delivery{
				TenantID: d.tenant, WebhookID: d.webhook, EventID: d.event, DeliveryID: d.delivery, IsTest: d.isTest,
			}, own: d.body, seq: d.seq})
			if err != nil {
				t.Fatal(err)
			}
		}
		back, err := readList(again)
		if err != nil || !cmp.Equal(owed, back, cmp.AllowUnexported(listed{})) {
			t.Fatalf("%+v came back as %+v, %v", owed, back, err)
		}
	})
}
