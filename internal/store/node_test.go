package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// Each lane is the business of one of the nodes that live, and when one goes only
// its lanes move.
func TestEachLaneHasOneNode(t *testing.T) {
	t.Parallel()
	var nodes []string
	for range 5 {
		nodes = append(nodes, NewID())
	}
	count := map[string]int{}
	for range 2000 {
		l := Lane{NewID(), NewID()}
		owner := ""
		for _, n := range nodes {
			if ranksFirst(nodes, n, l) {
				if owner != "" {
					t.Fatalf("%s and %s both send %v", owner, n, l)
				}
				owner = n
			}
		}
		count[owner]++
		for _, n := range nodes[1:] {
			if moved := ranksFirst(nodes[1:], n, l); moved != (n == owner) && owner != nodes[0] {
				t.Errorf("%v moved although its node stays", l)
			}
		}
	}
	for _, n := range nodes {
		if count[n] < 300 || count[n] > 500 {
			t.Errorf("%d of 2000 lanes for one of five nodes", count[n])
		}
	}
}

// A node stops by its own clock before anybody may take over from it, and also when it
// does not know any more what time it is.
func TestANodeIsInOfficeAsLongAsItsLease(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	now := begin
	s := &Store{cfg: Config{Now: func() time.Time { return now }}}
	n := &node{}
	s.node.Store(n)
	n.until.Store(new(begin.Add(time.Minute)))
	for _, c := range []struct {
		what   string
		now    time.Time
		anchor *anchor
		in     bool
	}{
		{"at first", begin, &anchor{here: begin}, true},
		{"before the end", begin.Add(time.Minute - time.Microsecond), &anchor{here: begin}, true},
		{"at the end", begin.Add(time.Minute), &anchor{here: begin}, false},
		{"without knowing the time", begin, nil, false},
	} {
		now = c.now
		s.anchor.Store(c.anchor)
		if s.InOffice() != c.in {
			t.Errorf("%s: in office %t, want %t", c.what, !c.in, c.in)
		}
	}
	n.until.Store(nil)
	if s.InOffice() {
		t.Error("in office without a lease")
	}
}

// The lease ends for its node before it ends for the server.
func TestALeaseEndsForItsNodeFirst(t *testing.T) {
	t.Parallel()
	onServers(t, func(t *testing.T, p place) {
		s, id := openAt(t, p), NewID()
		if err := s.Join(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Leave(context.Background()); err != nil {
				t.Error(err)
			}
		})
		until, now := *s.node.Load().until.Load(), time.Now()
		var left int64
		err := s.side.QueryRowContext(t.Context(), `select lease_until - `+databaseNow+` from nodes where node_id = $1`, id).Scan(&left)
		if err != nil {
			t.Fatal(err)
		}
		if ends := now.Add(time.Duration(left) * time.Microsecond); !until.Before(ends) {
			t.Errorf("the node is in office for %s after the end of its lease", until.Sub(ends))
		}
	})
}

// dispatcher is a stand-in for the one of a node: it takes everything and notes
// what it hears. Its fields are read through its methods.
type dispatcher struct {
	id   string
	mu   sync.Mutex
	full bool
	got  []Claimed
	news []Committed
	lost int
	kept int // of got, what came before it was last told that all is lost
}

func (k *dispatcher) intake() *Intake {
	return &Intake{
		Office: func(error) {},
		Owner:  k.id, Lease: lease,
		Reserve: func(Lane, int) bool { k.mu.Lock(); defer k.mu.Unlock(); return !k.full },
		Cancel:  func([]Claimed) {},
		Commit: func(c Committed) {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.got, k.news = append(k.got, c.Handed...), append(k.news, c)
		},
		Lost: func() { k.mu.Lock(); defer k.mu.Unlock(); k.lost, k.kept = k.lost+1, len(k.got) },
	}
}

func (k *dispatcher) fill(full bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.full = full
}

func (k *dispatcher) handed() []Claimed {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.got)
}

// await waits for news that meets a condition.
func (k *dispatcher) await(t *testing.T, what string, is func(Committed) bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-time.After(time.Millisecond) {
		k.mu.Lock()
		heard := slices.ContainsFunc(k.news, is)
		k.mu.Unlock()
		if heard {
			return
		}
	}
	t.Fatalf("heard nothing of %s", what)
}

// pair is two nodes with a desk and a webhook.
type pair struct {
	a, b   *desk
	la, lb *line
	ka, kb *dispatcher
}

func newPair(t *testing.T, pl place) *pair {
	t.Helper()
	p := &pair{a: newDesk(t, openAt(t, pl, guide), "acme")}
	second := *p.a
	second.Store = openAt(t, pl, guide)
	p.b = &second
	p.la = p.a.hook(start())
	p.lb = &line{desk: p.b, hook: p.la.hook}
	p.ka, p.kb = &dispatcher{id: NewID()}, &dispatcher{id: NewID()}
	for d, k := range map[*desk]*dispatcher{p.a: p.ka, p.b: p.kb} {
		if err := d.Join(t.Context(), k.id); err != nil {
			t.Fatal(err)
		}
		d.SetIntake(k.intake())
	}
	return p
}

// What a node holds whose lease has ended is another's, and the node itself, when
// it wakes up, does no harm: what it records is refused, what it commits is kept,
// and nothing is handed to its dispatcher before it has joined again.
func TestANodeIsTakenOver(t *testing.T) {
	t.Parallel()
	onServers(t, takenOver)
}

func takenOver(t *testing.T, pl place) {
	p := newPair(t, pl)
	// Both hold something: a has it whatever the rank of the webhook says.
	alone := &membership{nodes: []string{p.a.node.Load().id}}
	p.a.node.Load().members.Store(alone)
	p.a.create(start(), p.a.draft("handed"))
	p.ka.fill(true)
	p.a.create(start(), p.a.draft("claimed"))
	claimed := must(p.a.Claim(t.Context(), start(), ClaimRequest{Lane: p.la.lane(), Owner: p.a.node.Load().id, Limit: 1, Lease: time.Hour}))(t)
	p.ka.fill(false)
	if len(p.ka.handed()) != 1 || len(claimed.Deliveries) != 1 {
		t.Fatalf("%d handed over, %d claimed", len(p.ka.handed()), len(claimed.Deliveries))
	}
	if got := p.lb.claim(start()); len(got.Deliveries) != 0 {
		t.Fatalf("the other node claims what is being sent: %+v", got)
	}
	p.expire(t, p.a.node.Load().id)
	p.b.node.Load().since.Store(new(start())) // for long enough to judge others
	if !must(p.b.renew(t.Context(), p.b.node.Load()))(t) {
		t.Fatal("nobody is found dead")
	}
	if err := p.b.takeOver(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := p.lb.claim(start())
	if len(got.Deliveries) != 2 || got.Deliveries[0].Attempt != 1 {
		t.Fatalf("the other node has %+v", got)
	}
	// The node wakes up.
	for i, rec := range p.la.answer(p.la.batch(p.ka.handed()[0], claimed.Deliveries[0]), status(200), start()) {
		if !rec.Fenced {
			t.Errorf("result %d was recorded", i)
		}
	}
	p.a.create(start(), p.a.draft("late"))
	if len(p.ka.handed()) != 1 {
		t.Error("a commit handed something to the dispatcher of a node that is none")
	}
	_, err := p.a.Claim(t.Context(), start(), ClaimRequest{Lane: p.la.lane(), Owner: "a", Limit: 1, Lease: time.Hour})
	wantKind(t, "a claim of a node that is none", err, fault.Unavailable)
	must(p.a.renew(t.Context(), p.a.node.Load()))(t)
	p.ka.mu.Lock()
	defer p.ka.mu.Unlock()
	if p.ka.lost != 1 || !p.a.InOffice() {
		t.Errorf("told %d times that it lost all, in office: %t", p.ka.lost, p.a.InOffice())
	}
	for _, rec := range p.lb.answer(got, status(200), start()) {
		if rec.Fenced {
			t.Error("the result of the node that took over was refused")
		}
	}
	want := []string{"1/0 delivered", "1/0 delivered", "1/0 pending"}
	if diff := cmp.Diff(want, shapes(p.lb.log(DeliveryQuery{}))); diff != "" {
		t.Error(diff)
	}
}

// Two nodes that both believe that they are the oldest look for webhooks to switch
// off, for reminders and for mail to send at the same time: each is switched off
// once, with one mail and one reminder, and each mail is one node's.
func TestTwoNodesDisableOnce(t *testing.T) {
	t.Parallel()
	onServers(t, disableOnce)
}

func disableOnce(t *testing.T, pl place) {
	alone := func(c *Config) { c.Policy.WarnAfter = nil }
	d := newDesk(t, openAt(t, pl, guide, mails, alone), "acme")
	nodes := []*Store{d.Store, openAt(t, pl, guide, mails, alone)}
	const webhooks = 20
	for range webhooks {
		d.hook(start()).fail(start())
	}
	at := start().Add(25 * time.Hour)
	both := func(what string, f func(s *Store, node string) (int, error)) {
		t.Helper()
		var all sync.WaitGroup
		var done atomic.Int64
		for i, s := range nodes {
			for range 4 {
				all.Go(func() {
					n, err := f(s, fmt.Sprint("node ", i))
					if err != nil {
						t.Error(err)
					}
					done.Add(int64(n))
				})
			}
		}
		all.Wait()
		if n := done.Load(); n != webhooks {
			t.Errorf("%d %s, want %d", n, what, webhooks)
		}
	}
	both("were switched off", func(s *Store, _ string) (int, error) {
		lanes, err := s.DisableOverdue(t.Context(), at)
		return len(lanes), err
	})
	both("mails were claimed", func(s *Store, node string) (int, error) {
		mails, err := s.ClaimMail(t.Context(), at, node, lease, 2*webhooks)
		return len(mails), err
	})
	at = at.Add(week)
	both("reminders were claimed", func(s *Store, node string) (int, error) {
		if more, err := s.Remind(t.Context(), at, webhooks); err != nil || more {
			return 0, fmt.Errorf("more: %t, %w", more, err)
		}
		mails, err := s.ClaimMail(t.Context(), at, node, lease, 3*webhooks)
		mails = slices.DeleteFunc(mails, func(m OutboxMail) bool { return !strings.HasPrefix(m.Subject, "reminder ") })
		return len(mails), err
	})
}

// After the database was away for longer than a lease every lease has ended. Who is
// the first to come back leaves the others theirs for as long as a lease, so that no
// webhook goes to him and back again; then who has not come is gone.
func TestAllNodesComeBack(t *testing.T) {
	t.Parallel()
	onServers(t, comeBack)
}

func comeBack(t *testing.T, pl place) {
	p := newPair(t, pl)
	a := p.a.node.Load()
	renew := func() (dead bool, nodes int) {
		dead = must(p.a.renew(t.Context(), a))(t)
		return dead, len(a.members.Load().nodes)
	}
	if dead, n := renew(); dead || n != 2 {
		t.Fatalf("%d nodes, dead: %t", n, dead)
	}
	a.until.Store(new(start())) // it is over
	p.expire(t, p.b.node.Load().id)
	if dead, n := renew(); dead || n != 2 {
		t.Errorf("after the database %d nodes, dead: %t", n, dead)
	}
	a.since.Store(new(start())) // for long enough to judge others
	p.expire(t, p.b.node.Load().id)
	if dead, n := renew(); !dead || n != 1 {
		t.Errorf("long after the database %d nodes, dead: %t", n, dead)
	}
}

// A node that has lost what it held, and cannot join again, goes on to write, also
// when others of the batch fail too.
func TestANodeThatCannotJoinAgain(t *testing.T) {
	t.Parallel()
	onServers(t, cannotJoin)
}

func cannotJoin(t *testing.T, pl place) {
	p := newPair(t, pl)
	p.a.node.Load().members.Store(&membership{nodes: []string{p.a.node.Load().id}})
	p.a.create(start(), p.a.draft("one"))
	errLate := errors.New("after the write")
	err := together(t, p.a.Store,
		func() error {
			return p.a.do(t.Context(), func(x *tx) error {
				return errors.Join(x.change("", `insert into handovers (handover_id, list) values (2, $1)`, []byte{}), errLate)
			})
		},
		func() error {
			rec, err := p.a.Record(t.Context(), []Result{p.la.answered(&p.la.hook, p.ka.handed()[0], status(200), start())})
			if err == nil && rec[0].Fenced {
				err = errors.New("the result was refused")
			}
			return err
		},
		func() error {
			errJoin := errors.New("it cannot join")
			err := p.a.do(t.Context(), func(x *tx) error {
				x.w.lose()
				return errors.Join(x.change("", `insert into handovers (handover_id, list) values (3, $1)`, []byte{}), errJoin)
			})
			if !errors.Is(err, errJoin) {
				return fmt.Errorf("it has joined: %w", err)
			}
			return nil
		},
	)
	if !errors.Is(err, errLate) || err.Error() != errLate.Error() {
		t.Error(err)
	}
	if got := shapes(p.la.log(DeliveryQuery{})); !slices.Equal(got, []string{"1/0 delivered"}) {
		t.Errorf("the log shows %v", got)
	}
}

// A node that has begun to take over, and could not go on, does so with a later beat:
// the row of the one that has ended is gone by then.
func TestATakeoverGoesOn(t *testing.T) {
	t.Parallel()
	onServers(t, takeoverGoesOn)
}

func takeoverGoesOn(t *testing.T, pl place) {
	p := newPair(t, pl)
	id := stranger(t, p.a)
	p.a.create(start(), p.a.draft("orphan"))
	p.expire(t, id)
	// It ends after its first transaction, which waits for the writer until then.
	ctx, cancel := context.WithCancel(t.Context())
	release := hold(t, p.b.Store)
	done := make(chan error, 1)
	go func() { done <- p.b.takeOver(ctx) }()
	awaitQueue(p.b.Store, 1)
	cancel()
	release()
	if err := <-done; err == nil || p.a.count("handovers") != 1 {
		t.Fatalf("it has taken over: %v", err)
	}
	p.b.node.Load().since.Store(new(start())) // for long enough to judge others
	if must(p.b.renew(t.Context(), p.b.node.Load()))(t) {
		if err := p.b.takeOver(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := p.lb.claim(start()); len(got.Deliveries) != 1 || p.a.count("handovers") != 0 {
		t.Errorf("%d deliveries are in the queue, %d lists are left", len(got.Deliveries), p.a.count("handovers"))
	}
	if must(p.b.renew(t.Context(), p.b.node.Load()))(t) {
		t.Error("there is still something to take over")
	}
}

// expire ends the lease of a node, as time does.
func (p *pair) expire(t *testing.T, id string) {
	t.Helper()
	if _, err := p.b.side.ExecContext(t.Context(), `update nodes set lease_until = 0 where node_id = $1`, id); err != nil {
		t.Fatal(err)
	}
}

// What one node accepts and another sends is given to the other, and where it has no
// room it waits as a row. It hears of both, as it does of a changed webhook. Behind a
// pooler it looks for itself.
func TestNodesHearOfEachOther(t *testing.T) {
	t.Parallel()
	onServers(t, hearOfEachOther)
}

func hearOfEachOther(t *testing.T, pl place) {
	p := newPair(t, pl)
	for _, d := range []*desk{p.a, p.b} { // the second came after the first had looked
		must(d.renew(t.Context(), d.node.Load()))(t)
	}
	sender, other, heard := p.a, p.b, p.ka
	if p.b.Mine(p.la.lane()) {
		sender, other, heard = p.b, p.a, p.kb
	}
	if sender.Mine(p.la.lane()) == other.Mine(p.la.lane()) {
		t.Fatal("the webhook is nobody's, or both's")
	}
	other.create(start(), other.draft("given"))
	heard.await(t, "what it was given", func(c Committed) bool { return len(c.Handed) == 1 })
	if n := len(p.ka.handed()) + len(p.kb.handed()); n != 1 {
		t.Errorf("%d handed over, also to the wrong node", n)
	}
	heard.fill(true)
	other.create(start(), other.draft("refused"))
	heard.await(t, "work", func(c Committed) bool { return len(c.Due) == 1 && c.Due[0] == p.la.lane() })
	heard.fill(false)
	if _, _, err := other.UpdateWebhook(t.Context(), start(), other.Actor, p.la.hook.WebhookID,
		func(s *delivery.Spec) error { s.Name = "new"; return nil }, false); err != nil {
		t.Fatal(err)
	}
	heard.await(t, "a changed webhook", func(c Committed) bool { return c.Refresh })
	if a, b := p.a.Leads(), p.b.Leads(); a == b {
		t.Errorf("lead: %t and %t", a, b)
	}
	if err := sender.Retire(t.Context()); err != nil {
		t.Fatal(err)
	}
	must(other.renew(t.Context(), other.node.Load()))(t)
	if !other.Mine(p.la.lane()) || !other.Leads() {
		t.Error("the webhook of a node that retires is not taken")
	}
	if pause, gained := other.Gained(p.la.lane()); !gained || pause > gainedPause {
		t.Errorf("gained: %t, left alone for %s", gained, pause)
	}
}

// A reader of the feed misses nothing although the nodes commit whenever they get
// to it: the server holds some of them up between the number and the commit.
func TestFeedAmongNodesIsComplete(t *testing.T) {
	t.Parallel()
	onServers(t, feedAmongNodes)
}

func feedAmongNodes(t *testing.T, p place) {
	stores := []*Store{openAt(t, p), openAt(t, p), openAt(t, p)}
	d := newDesk(t, stores[0], "acme")
	for _, q := range []string{
		`create function slow() returns trigger language plpgsql as $$ begin
			perform pg_sleep(random() * 0.01); return new; end $$`,
		`create trigger slow after insert on events for each row execute function slow()`,
	} {
		if _, err := d.read.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	const changes = 40
	var wg sync.WaitGroup
	for i, s := range stores {
		for range 2 {
			tk := d.create(start(), d.draft(fmt.Sprint("ticket ", i)))
			wg.Go(func() {
				for n := range changes {
					if _, err := s.UpdateTicket(context.Background(), start(), d.Actor, tk.TicketID,
						ticket.Patch{Title: ticket.Some(fmt.Sprint(n))}); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	cursor, seen, last := "", map[string]bool{}, false
	for {
		page := must(stores[2].Events(t.Context(), d.TenantID, FeedQuery{After: cursor, Limit: 3}))(t)
		for _, raw := range page.Envelopes {
			seen[envelopeOf(t, raw).EventID] = true
		}
		cursor = page.Next
		if page.More {
			continue
		}
		if last {
			break
		}
		select {
		case <-done:
			last = true
		default:
		}
	}
	if want := d.count("events"); len(seen) != want || want != 6*(changes+1) {
		t.Errorf("the reader saw %d of %d events", len(seen), want)
	}
}

// The bucket of an API key is one for all nodes.
func TestOneBucketForAllNodes(t *testing.T) {
	t.Parallel()
	onServers(t, oneBucket)
}

func oneBucket(t *testing.T, p place) {
	stores := []*Store{openAt(t, p), openAt(t, p)}
	spend := func(now time.Time, n int) (allowed int) {
		t.Helper()
		for i := range n {
			took, known, err := stores[i%2].TakeToken(t.Context(), now, "t", "k", 10, 60)
			if err != nil || !known {
				t.Fatal(known, err)
			}
			if took.Allowed {
				allowed++
			}
			if took.Left < 0 || took.Left >= 10 {
				t.Errorf("%+v", took)
			}
		}
		return allowed
	}
	for _, c := range []struct {
		after      time.Duration
		ask, allow int
	}{{0, 25, 10}, {500 * time.Millisecond, 3, 0}, {1500 * time.Millisecond, 3, 1}, {time.Hour, 25, 10}, {0, 1, 0}} {
		if got := spend(start().Add(c.after), c.ask); got != c.allow {
			t.Errorf("after %s %d of %d were allowed, want %d", c.after, got, c.ask, c.allow)
		}
	}
	if _, known, err := openAt(t, place{dir: t.TempDir()}).TakeToken(t.Context(), start(), "t", "k", 1, 1); known || err != nil {
		t.Errorf("an embedded database has a bucket: %t, %v", known, err)
	}
}
