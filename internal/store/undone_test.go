package store

import (
	"context"
	"errors"
	"runtime"
	"testing"

	"github.com/ticketwire/ticketwire/internal/fault"
)

// What is handed over belongs to a transaction like all else: these tests let it fail
// at its last moment, call by call, and between two results of one list.
func TestHandoversThatAreUndone(t *testing.T) {
	t.Parallel()
	exercise(t, map[string]func(*testing.T, opener){
		"a commit that fails takes everything back":        commitFails,
		"a call that fails after it has handed over":       failsHandedOver,
		"a crash between two deliveries of one list":       crashInAList,
		"a statement whose failure nobody has noticed":     failsUnnoticed,
		"a release that fails is made when it comes again": releaseFails,
	})
}

// together runs calls in one transaction, in this order, and returns their errors.
func (d *desk) together(calls ...func() error) []error {
	d.t.Helper()
	release := hold(d.t, d.Store)
	errs := make([]error, len(calls))
	done := make(chan struct{}, len(calls))
	for i, call := range calls {
		go func() { errs[i] = call(); done <- struct{}{} }()
		for len(d.writer.calls) <= i {
			runtime.Gosched()
		}
	}
	release()
	for range calls {
		<-done
	}
	return errs
}

// creates is a call that makes a ticket.
func (d *desk) creates(ctx context.Context, title string) func() error {
	return func() error {
		_, err := d.CreateTicket(ctx, start(), d.Actor, d.draft(title))
		return err
	}
}

// spoilsTheCommit is a call that goes well, in a transaction that cannot be committed.
func (d *desk) spoilsTheCommit() func() error {
	if !d.dialect.server {
		var err error
		done := make(chan struct{})
		if eerr := d.enter(&call{done: done, aside: func() { err = d.writer.exec(`pragma foreign_keys = on`) }}); eerr != nil || err != nil {
			d.t.Fatal(eerr, err)
		}
	}
	return func() error {
		return d.do(context.Background(), func(x *tx) error {
			for _, q := range []string{
				`create table parents (id bigint primary key)`,
				`create table children (id bigint references parents (id) deferrable initially deferred)`,
				`insert into children (id) values (1)`,
			} {
				if _, err := x.w.conn.ExecContext(context.Background(), q); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// records is a call that records a success.
func (l *line) records(c Claimed) func() error {
	return func() error {
		_, err := l.Record(context.Background(), []Result{l.answered(&l.hook, c, status(200), start())})
		return err
	}
}

// restarted opens the database as the process after a crash, and returns the ids of
// what it finds owed to a webhook.
func (l *line) restarted() (ids []string) {
	l.t.Helper()
	after := beside(l.t, l.Store, guide)
	if err := after.ReleaseAll(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
	b := must(after.Claim(l.t.Context(), start(), ClaimRequest{Lane: l.lane(), Owner: "next", Limit: 10, Lease: lease}))(l.t)
	for _, c := range b.Deliveries {
		ids = append(ids, c.DeliveryID)
	}
	return ids
}

// owedTo makes a ticket that two webhooks hear of, and returns them with what each is
// handed, in one list.
func (d *desk) owedTo(k *taker) (one, two *line, first, second Claimed) {
	d.t.Helper()
	one, two = d.hook(start()), d.hook(start())
	d.create(start(), d.draft("one"))
	if len(k.got) != 2 {
		d.t.Fatalf("%d handed over", len(k.got))
	}
	first, second = k.got[0], k.got[1]
	if first.WebhookID != one.hook.WebhookID {
		first, second = second, first
	}
	return one, two, first, second
}

func commitFails(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	k := d.take()
	one, two, first, second := d.owedTo(k)
	for i, err := range d.together(one.records(first), d.creates(t.Context(), "two"), d.spoilsTheCommit()) {
		if !fault.Is(err, fault.Unavailable) {
			t.Errorf("call %d returned %v", i, err)
		}
	}
	if k.reserved-k.cancelled != 2 || len(k.got) != 2 {
		t.Errorf("%d reserved, %d cancelled, %d handed over", k.reserved, k.cancelled, len(k.got))
	}
	if tickets, events, rows, lists := d.count("tickets"), d.count("events"), d.count("deliveries"), d.count("handovers"); tickets != 1 || events != 1 || rows != 0 || lists != 1 {
		t.Errorf("%d tickets, %d events, %d rows, %d lists", tickets, events, rows, lists)
	}
	// The result that comes again is recorded, and what the list owes beside it stays
	// owed.
	if got := one.answer(one.batch(first), status(200), start()); got[0].Fenced {
		t.Error("the result was taken for somebody else's")
	}
	// What is settled stays so when a later commit fails.
	d.together(d.spoilsTheCommit())
	if err := d.Ping(t.Context()); err != nil || d.handedCount.Load() != 1 {
		t.Errorf("%d handed over (%v)", d.handedCount.Load(), err)
	}
	if ids := two.restarted(); len(ids) != 1 || ids[0] != second.DeliveryID {
		t.Errorf("%q is owed after a crash, want %q", ids, second.DeliveryID)
	}
}

func failsHandedOver(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l, k := d.hook(start()), d.take()
	failure := errors.New("cannot render")
	fails := WithIdempotency(t.Context(), &Idempotency{
		TenantID: d.TenantID, KeyID: "key", Key: "once", Route: "POST /tickets", Now: start(),
		Render: func(any) (int, []byte, error) { return 0, nil, failure },
	})
	errs := d.together(d.creates(fails, "one"), d.creates(t.Context(), "two"))
	if !errors.Is(errs[0], failure) || errs[1] != nil {
		t.Errorf("got %v", errs)
	}
	if k.reserved-k.cancelled != 1 || len(k.got) != 1 {
		t.Fatalf("%d reserved, %d cancelled, %d handed over", k.reserved, k.cancelled, len(k.got))
	}
	l.answer(l.batch(k.got...), status(200), start())
	if rows, lists := d.count("deliveries"), d.count("handovers"); rows != 1 || lists != 0 {
		t.Errorf("%d rows, %d lists", rows, lists)
	}
}

func crashInAList(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	one, two, first, second := d.owedTo(d.take())
	one.answer(one.batch(first), status(200), start())
	if ids := two.restarted(); len(ids) != 1 || ids[0] != second.DeliveryID {
		t.Errorf("%q is owed, want %q", ids, second.DeliveryID)
	}
	if got := one.log(DeliveryQuery{}); len(got) != 1 || got[0].DeliveryID != first.DeliveryID {
		t.Errorf("the log has %+v", got)
	}
}

func releaseFails(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l, _, first, _ := d.owedTo(d.take())
	gives := func() error { return d.Release(context.Background(), []Claimed{first}) }
	if errs := d.together(gives, d.spoilsTheCommit()); !fault.Is(errs[0], fault.Unavailable) {
		t.Errorf("got %v", errs)
	}
	if err := gives(); err != nil {
		t.Fatal(err)
	}
	if b := l.claimOne(start()); b.Deliveries[0].DeliveryID != first.DeliveryID {
		t.Errorf("claimed %+v", b.Deliveries[0])
	}
}

// failsUnnoticed has a call that goes on after a statement has failed. To PostgreSQL the
// transaction is lost then, and its commit a rollback that reports no error.
func failsUnnoticed(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme") // without webhooks nothing is left to be said but commit
	errs := d.together(d.creates(t.Context(), "one"), func() error {
		return d.do(context.Background(), func(x *tx) error {
			_, _ = x.exec(`insert into tenants (tenant_id) values (null)`)
			return nil
		})
	})
	made := 0
	if errs[0] == nil {
		made = 1
	}
	if n := d.count("tickets"); n != made {
		t.Errorf("the call returned %v, and there are %d tickets", errs[0], n)
	}
}
