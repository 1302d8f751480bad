package store

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// meet makes both nodes of a pair know of each other, and returns the one that sends
// to the pair's webhook, and the other.
func (p *pair) meet(t *testing.T) (sends, accepts *desk, heard *dispatcher) {
	t.Helper()
	for _, d := range []*desk{p.a, p.b} { // the second came after the first had looked
		must(d.renew(t.Context(), d.node.Load()))(t)
	}
	if p.b.Mine(p.la.lane()) {
		return p.b, p.a, p.kb
	}
	return p.a, p.b, p.ka
}

// stranger makes a node that does nothing, and a store believe that all webhooks are
// its business.
func stranger(t *testing.T, d *desk) (id string) {
	t.Helper()
	id = NewID()
	if _, err := d.side.ExecContext(t.Context(), `insert into nodes (node_id, joined_at, lease_until)
		values ($1, 0, 9e15::bigint)`, id); err != nil {
		t.Fatal(err)
	}
	d.node.Load().members.Store(&membership{nodes: []string{id}})
	return id
}

// What one node gives, another gets as its own: with the body that the webhook asked
// for, and recorded it ends the list.
func TestWhatANodeIsGiven(t *testing.T) {
	t.Parallel()
	onServers(t, givenRecorded)
}

func givenRecorded(t *testing.T, pl place) {
	p := newPair(t, pl)
	_, _, err := p.a.UpdateWebhook(t.Context(), start(), p.a.Actor, p.la.hook.WebhookID, func(s *delivery.Spec) error {
		s.IsTestMode, s.PayloadFields = true, map[string][]string{"ticket": {"title"}}
		return nil
	}, false)
	if err != nil {
		t.Fatal(err)
	}
	sends, accepts, heard := p.meet(t)
	tk := accepts.create(start(), accepts.draft("one"))
	heard.await(t, "what it was given", func(c Committed) bool { return len(c.Handed) == 1 })
	got := heard.handed()[0]
	full := must(p.a.Event(t.Context(), p.a.TenantID, got.EventID))(t)
	if bytes.Equal(got.Body, full) || !bytes.Contains(got.Body, []byte(`"title":"one"`)) {
		t.Errorf("the body is %s", got.Body)
	}
	got.Body, got.own, got.seq, got.until, got.Since = nil, nil, 0, time.Time{}, time.Time{}
	want := Claimed{Owner: sends.node.Load().id, Generation: 1, Delivery: delivery.Delivery{
		TenantID: p.a.TenantID, DeliveryID: got.DeliveryID, WebhookID: p.la.hook.WebhookID, EventID: got.EventID,
		EventType: "ticket.created", TicketID: tk.TicketID, Attempt: 1, Status: delivery.Pending, WaitReason: delivery.WaitDue,
		IsTest: true, DueAt: start(), CreatedAt: start(),
	}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(Claimed{})); diff != "" {
		t.Errorf("given (-want +got):\n%s", diff)
	}
	l := &line{desk: sends, hook: p.la.hook}
	if shown := shapes(l.log(DeliveryQuery{})); !cmp.Equal(shown, []string{"1/0 pending test"}) {
		t.Errorf("the log of the node that sends shows %v", shown)
	}
	if rec := l.answer(l.batch(heard.handed()[0]), status(200), start()); rec[0].Fenced {
		t.Error("the result was refused")
	}
	if n := accepts.count("handovers"); n != 0 {
		t.Errorf("%d lists are left", n)
	}
	if shown := shapes(p.la.log(DeliveryQuery{})); !cmp.Equal(shown, []string{"1/0 delivered test"}) {
		t.Errorf("the log shows %v", shown)
	}
}

// A list whose event is gone ends, and nothing is sent without a body.
func TestWhatANodeIsGivenOfAnEventThatIsGone(t *testing.T) {
	t.Parallel()
	onServers(t, givenOfNothing)
}

func givenOfNothing(t *testing.T, pl place) {
	p := newPair(t, pl)
	sends, accepts, heard := p.meet(t)
	c := Claimed{seq: 1}
	c.TenantID, c.WebhookID, c.EventID, c.DeliveryID = p.a.TenantID, p.la.hook.WebhookID, NewID(), NewID()
	list := must(appendHanded([]byte{listVersion}, &c))(t)
	n := sends.node.Load()
	if _, err := accepts.side.ExecContext(t.Context(), `insert into handovers (handover_id, owner, list) values ($1, $2, $3)`,
		int64(1)<<50+1, n.id, list); err != nil {
		t.Fatal(err)
	}
	n.look()
	for end := time.Now().Add(20 * time.Second); sends.count("handovers") > 0 && time.Now().Before(end); <-time.After(time.Millisecond) {
		continue
	}
	if lists, got := sends.count("handovers"), heard.handed(); lists != 0 || len(got) != 0 {
		t.Errorf("%d lists, handed over %+v", lists, got)
	}
}

// A commit whose outcome was not known owes what its own list says, and not what a list
// of another node says that has got its number since.
func TestTheListOfAnotherIsLeftToIt(t *testing.T) {
	t.Parallel()
	onServers(t, func(t *testing.T, p place) {
		d := newDesk(t, openAt(t, p, guide), "acme")
		l := d.hook(start())
		d.create(start(), d.draft("one"))
		c := l.claimOne(start()).Deliveries[0]
		c.DeliveryID = NewID()
		list := must(appendHanded([]byte{listVersion}, &c))(t)
		for _, owner := range []string{"other", "mine"} {
			if _, err := d.side.ExecContext(t.Context(), `delete from handovers`); err != nil {
				t.Fatal(err)
			}
			if _, err := d.side.ExecContext(t.Context(), `insert into handovers (handover_id, owner, list) values (7, $1, $2)`, owner, list); err != nil {
				t.Fatal(err)
			}
			if err := d.do(t.Context(), func(x *tx) error { return x.recoverLate(&handover{id: 7, owner: "mine"}) }); err != nil {
				t.Fatal(err)
			}
			mine := 0
			if owner == "mine" {
				mine = 1
			}
			if lists, rows := d.count("handovers"), d.count("deliveries"); lists != 1-mine || rows != 1+mine {
				t.Errorf("of %s: %d lists, %d rows", owner, lists, rows)
			}
		}
	})
}

// What a node was given and has not taken is queued when it ends, once, whether it
// leaves or is taken over; a node that leaves is given nothing.
func TestWhatANodeHasNotTaken(t *testing.T) {
	t.Parallel()
	onServers(t, givenNotTaken)
}

func givenNotTaken(t *testing.T, pl place) {
	p := newPair(t, pl)
	id := stranger(t, p.a)
	p.a.create(start(), p.a.draft("untaken"))
	if n, rows := p.a.count("handovers"), p.a.count("deliveries"); n != 1 || rows != 0 {
		t.Fatalf("%d lists, %d rows", n, rows)
	}
	if _, err := p.b.side.ExecContext(t.Context(), `update nodes set leaving = true where node_id = $1`, id); err != nil {
		t.Fatal(err)
	}
	p.a.create(start(), p.a.draft("to one that leaves"))
	if n, rows := p.a.count("handovers"), p.a.count("deliveries"); n != 1 || rows != 1 {
		t.Fatalf("%d lists, %d rows", n, rows)
	}
	p.expire(t, id)
	for range 2 {
		if err := p.b.takeOver(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := p.lb.claim(start()); len(got.Deliveries) != 2 || p.a.count("handovers") != 0 {
		t.Errorf("claimed %+v", got)
	}
}

func TestALeavingNodeQueuesWhatItWasGiven(t *testing.T) {
	t.Parallel()
	onServers(t, givenAndLeft)
}

func givenAndLeft(t *testing.T, pl place) {
	p := newPair(t, pl)
	sends, accepts, heard := p.meet(t)
	deafen(t, sends)
	accepts.create(start(), accepts.draft("one"))
	if accepts.count("deliveries") != 0 {
		t.Fatal("it is a row")
	}
	if err := sends.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	must(accepts.renew(t.Context(), accepts.node.Load()))(t)
	l := &line{desk: accepts, hook: p.la.hook}
	if got := l.claim(start()); len(got.Deliveries) != 1 || len(heard.handed()) != 0 {
		t.Errorf("claimed %+v, %d handed over", got, len(heard.handed()))
	}
}

// A node that has lost everything takes nothing that it has read before: it is
// another's by now.
func TestWhatWasReadBeforeALossIsNotTaken(t *testing.T) {
	t.Parallel()
	onServers(t, givenBeforeLoss)
}

func givenBeforeLoss(t *testing.T, pl place) {
	p := newPair(t, pl)
	// b takes it in the name of a node that nobody is.
	n := &node{id: stranger(t, p.a)}
	p.b.node.Load().members.Store(&membership{nodes: []string{p.b.node.Load().id}})
	p.a.create(start(), p.a.draft("one"))
	// Its writer is busy until all is lost, so the lists are read before and taken after.
	release := hold(t, p.b.Store)
	done := make(chan error, 1)
	go func() {
		after := int64(0)
		_, err := p.b.takeLists(context.WithoutCancel(t.Context()), n, &after)
		done <- err
	}()
	awaitQueue(p.b.Store, 1)
	p.b.losses.Add(1)
	release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := p.kb.handed(); len(got) != 0 {
		t.Errorf("it has taken %+v", got)
	}
	after := int64(0)
	if _, err := p.b.takeLists(t.Context(), n, &after); err != nil || len(p.kb.handed()) != 1 {
		t.Errorf("%d taken when nothing was lost, %v", len(p.kb.handed()), err)
	}
}

// What a node takes until it has joined again is another's too: its dispatcher must not
// have anything of it once the node may send.
func TestWhatIsTakenBeforeJoiningAgainIsDropped(t *testing.T) {
	t.Parallel()
	onServers(t, takenBeforeJoining)
}

func takenBeforeJoining(t *testing.T, pl place) {
	p := newPair(t, pl)
	sends, accepts, heard := p.meet(t)
	// The writer does nothing until the list is read and the node knows that it is none.
	busy, free := make(chan struct{}), make(chan struct{})
	held := make(chan error, 1)
	go func() {
		held <- sends.enter(&call{done: make(chan struct{}), aside: func() { close(busy); <-free }})
	}()
	<-busy
	accepts.create(start(), accepts.draft("one"))
	awaitQueue(sends.Store, 1)
	if _, err := accepts.side.ExecContext(t.Context(), `delete from nodes where node_id = $1`, sends.node.Load().id); err != nil {
		t.Fatal(err)
	}
	joined := make(chan error, 1)
	go func() {
		_, err := sends.renew(context.WithoutCancel(t.Context()), sends.node.Load())
		joined <- err
	}()
	awaitQueue(sends.Store, 2)
	close(free)
	if err := errors.Join(<-held, <-joined); err != nil {
		t.Fatal(err)
	}
	heard.mu.Lock()
	kept, lost := heard.got[heard.kept:], heard.lost
	heard.mu.Unlock()
	if len(kept) != 0 || lost == 0 {
		t.Errorf("the dispatcher was told %d times that all is lost, and keeps %d deliveries", lost, len(kept))
	}
	l := &line{desk: sends, hook: p.la.hook}
	if got := l.claim(start()); len(got.Deliveries) != 1 {
		t.Errorf("%d deliveries are in the queue", len(got.Deliveries))
	}
}

// deafen keeps a store from reading, and with it from taking what it is given.
func deafen(t *testing.T, d *desk) {
	t.Helper()
	d.read.SetMaxOpenConns(1)
	conn, err := d.read.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
}

// A lane that had no room is given nothing for a while: what it is owed goes into
// the queue at once, and after that it is given something again.
func TestAFullLaneIsGivenNothing(t *testing.T) {
	t.Parallel()
	onServers(t, givenFull)
}

func givenFull(t *testing.T, pl place) {
	p := newPair(t, pl)
	sends, accepts, heard := p.meet(t)
	heard.fill(true)
	accepts.create(start(), accepts.draft("refused"))
	heard.await(t, "work", func(c Committed) bool { return len(c.Due) == 1 })
	heard.fill(false)
	n := accepts.node.Load()
	if !p.a.dialect.pooled {
		for end := time.Now().Add(20 * time.Second); !n.full.has(p.la.lane(), time.Now()) && time.Now().Before(end); <-time.After(time.Millisecond) {
			continue
		}
	} else {
		n.full.note(p.la.lane(), time.Now()) // nobody is called behind a pooler
	}
	accepts.create(start(), accepts.draft("queued"))
	if rows, given := sends.count("deliveries"), len(heard.handed()); rows != 2 || given != 0 {
		t.Errorf("%d rows, %d given", rows, given)
	}
	n.full.note(p.la.lane(), time.Now().Add(-fullPause))
	accepts.create(start(), accepts.draft("given"))
	heard.await(t, "what it was given", func(c Committed) bool { return len(c.Handed) == 1 })
}

// What there is no room for is queued in pages: every node waits while one commits.
func TestWhatIsRefusedIsQueuedInPages(t *testing.T) {
	t.Parallel()
	onServers(t, refusedInPages)
}

func refusedInPages(t *testing.T, pl place) {
	p := newPair(t, pl)
	sends, accepts, heard := p.meet(t)
	theirs := 1
	for range 49 {
		if l := p.a.hook(start()); sends.Mine(l.lane()) {
			theirs++
		}
	}
	heard.fill(true)
	events := showPage/theirs + 2
	release := hold(t, accepts.Store)
	var all sync.WaitGroup
	for range events {
		all.Go(func() { accepts.create(start(), accepts.draft("refused")) })
	}
	awaitQueue(accepts.Store, events)
	release()
	all.Wait()
	for end := time.Now().Add(20 * time.Second); accepts.count("deliveries") < theirs*events && time.Now().Before(end); <-time.After(time.Millisecond) {
		continue
	}
	var rows, most int
	err := sends.side.QueryRowContext(t.Context(), `select sum(n), max(n) from (select count(*) as n from deliveries group by xmin::text) c`).Scan(&rows, &most)
	if err != nil {
		t.Fatal(err)
	}
	if rows != theirs*events || most > showPage {
		t.Errorf("%d rows, %d of them in one transaction", rows, most)
	}
}

// Hints fit into what PostgreSQL lets one NOTIFY say, however many there are.
func TestHintsFit(t *testing.T) {
	t.Parallel()
	h := hints{bell: make(chan struct{}, 1)}
	for range hintLanes {
		h.add(hint{lanes: []Lane{{NewID(), NewID()}}, full: []Lane{{NewID(), NewID()}}, gave: []string{NewID()}, beat: true})
	}
	if n := len(h.take()); n >= 8000 {
		t.Errorf("%d bytes", n)
	}
}

// A node remembers the names that tickets show, until another changes one.
func TestNodesRememberNames(t *testing.T) {
	t.Parallel()
	onServers(t, namesRemembered)
}

func namesRemembered(t *testing.T, pl place) {
	p := newPair(t, pl)
	whole := p.a.create(start(), p.a.everything(t))
	shown := func(d *desk, title string) ticket.Ticket {
		t.Helper()
		p.a.update(start(), whole.TicketID, ticket.Patch{Title: ticket.Some(title + " by the other")}) // d has to read it again
		tk := p.b.update(start(), whole.TicketID, ticket.Patch{Title: ticket.Some(title)})
		if diff := cmp.Diff(must(d.Ticket(t.Context(), d.TenantID, whole.TicketID))(t), tk); diff != "" {
			t.Errorf("%s: the writer sees (-want +got):\n%s", title, diff)
		}
		return tk
	}
	first := shown(p.b, "first")
	if len(p.b.writer.recent.names) < 5 {
		t.Errorf("%d names are remembered", len(p.b.writer.recent.names))
	}
	second := shown(p.b, "second")
	if *first.EnteredByName != *second.EnteredByName {
		t.Errorf("entered by %s, then %s", *first.EnteredByName, *second.EnteredByName)
	}
	must(p.a.UpdateUser(t.Context(), p.a.TenantID, p.a.UserID, func(u *ticket.User) error { u.LastName = "Renamed"; return nil }))(t)
	if third := shown(p.b, "third"); !strings.HasSuffix(*third.EnteredByName, "Renamed") {
		t.Errorf("entered by %s", *third.EnteredByName)
	}
	// An id that is no text to PostgreSQL is nobody's, and no trouble for the batch.
	p.a.update(start(), whole.TicketID, ticket.Patch{Title: ticket.Some("by the other")})
	_, err := p.b.UpdateTicket(t.Context(), start(), p.b.Actor, "\xff\x00", ticket.Patch{Title: ticket.Some("x")})
	wantKind(t, "a ticket that nobody has", err, fault.NotFound)
}

// A key that was changed by another node counts as changed here after a hint, or
// behind a pooler and on an embedded database after a second.
func TestKeysAreRememberedForAMoment(t *testing.T) {
	t.Parallel()
	onServers(t, func(t *testing.T, pl place) {
		p := newPair(t, pl)
		keysRemembered(t, p.a, p.b.Store, !p.a.dialect.pooled)
	})
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t, openAt(t, place{dir: t.TempDir()}, guide), "acme")
		keysRemembered(t, d, beside(t, d.Store, guide), false)
	})
}

func keysRemembered(t *testing.T, d *desk, other *Store, hears bool) {
	t.Helper()
	key := must(d.Keys(t.Context(), d.TenantID))(t)[0]
	set := func(on bool) {
		t.Helper()
		must(d.UpdateKey(t.Context(), start(), d.TenantID, key.KeyID, func(k *APIKey) error { k.Active = on; return nil }))(t)
	}
	open := func(s *Store, at time.Time) bool {
		t.Helper()
		_, err := s.Authenticate(t.Context(), at, d.rows.APIKey)
		if err != nil && !fault.Is(err, fault.Unauthorized) {
			t.Fatal(err)
		}
		return err == nil
	}
	if !open(d.Store, start()) || !open(other, start()) {
		t.Fatal("the key does not open")
	}
	set(false)
	if open(d.Store, start()) {
		t.Error("the key opens where it was switched off")
	}
	if open(other, start().Add(keyMemory)) || open(other, start().Add(-time.Microsecond)) {
		t.Error("the key opens after its time, or before it")
	}
	set(true)
	if !hears {
		return
	}
	if !open(other, start().Add(keyMemory)) {
		t.Error("the key does not open again")
	}
	set(false)
	for end := time.Now().Add(20 * time.Second); open(other, start().Add(keyMemory)) && time.Now().Before(end); <-time.After(time.Millisecond) {
		continue
	}
	if open(other, start().Add(keyMemory)) {
		t.Error("the other node has not heard")
	}
}

// What was read before a change is not remembered after it.
func TestAKeyReadBeforeItsChangeIsNotKept(t *testing.T) {
	t.Parallel()
	var k credentials
	_, turn, _ := k.of("hash", start())
	k.forget()
	k.keep("hash", credential{active: true}, start(), turn)
	if _, _, found := k.of("hash", start()); found {
		t.Error("it is remembered")
	}
	_, turn, _ = k.of("hash", start())
	k.keep("hash", credential{active: true}, start(), turn)
	if _, _, found := k.of("hash", start()); !found {
		t.Error("nothing is remembered")
	}
}

// A list that cannot be read is in the way of no other, and no secret.
func TestAListThatCannotBeRead(t *testing.T) {
	t.Parallel()
	onServers(t, givenUnreadable)
}

func givenUnreadable(t *testing.T, pl place) {
	p := newPair(t, pl)
	id := stranger(t, p.a)
	damage := func(number int, owner string) {
		t.Helper()
		if _, err := p.b.side.ExecContext(t.Context(), `insert into handovers (handover_id, owner, list) values ($1, $2, $3)`,
			number, owner, []byte{99, 1}); err != nil {
			t.Fatal(err)
		}
	}
	damage(1, id)
	p.a.create(start(), p.a.draft("behind it"))
	p.expire(t, id)
	if err := p.b.takeOver(t.Context()); err == nil || !strings.Contains(err.Error(), "handover 1:") {
		t.Errorf("the takeover says %v", err)
	}
	if got := p.lb.claim(start()); len(got.Deliveries) != 1 || p.b.count("handovers") != 1 {
		t.Errorf("claimed %+v, %d lists are left", got, p.b.count("handovers"))
	}
	// Its owner goes on.
	damage(2, p.a.node.Load().id)
	if err := p.a.enroll(t.Context(), p.a.node.Load()); err != nil {
		t.Error(err)
	}
}

// A node that retires stays one that retires when it has to join again.
func TestANodeThatRetiresJoinsAgain(t *testing.T) {
	t.Parallel()
	onServers(t, retiresTwice)
}

func retiresTwice(t *testing.T, pl place) {
	p := newPair(t, pl)
	n := p.a.node.Load()
	if err := p.a.Retire(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := p.b.side.ExecContext(t.Context(), `delete from nodes where node_id = $1`, n.id); err != nil {
		t.Fatal(err)
	}
	must(p.a.renew(t.Context(), n))(t)
	must(p.b.renew(t.Context(), p.b.node.Load()))(t)
	if !p.b.Mine(p.la.lane()) || p.b.Among() != 1 {
		t.Errorf("the other counts %d nodes", p.b.Among())
	}
}
