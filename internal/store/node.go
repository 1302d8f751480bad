package store

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Several processes may deliver from one server; each is a node with a row in
// nodes and a lease in the database's time, which it renews. Everything that a
// node holds (leases of rows, lists of handovers) carries its id. When its lease
// has ended, another node deletes its row and puts what it held into the queue, in
// transactions behind the gate. Each transaction of the writer looks for the row
// of its own node: one that was given up meanwhile, as when the process stood
// still, finds it gone, forgets what it held, and whatever it records of that is
// fenced off.
//
// Each webhook is the business of one node, the one of highest rank among those
// that live. So its order, its limits, its breaker and its concurrency are those
// of one process, without a word between nodes. What it owes of a change that
// another node has accepted comes to it as a list (given.go), or as a row where it
// cannot take one, and a hint goes to it after the commit. The hint may be lost;
// lists and queue are looked at anyway.
const (
	nodeBeat  = 2 * time.Second
	nodeLease = 8 * time.Second
	// nodeMargin is how much sooner a node stops by its own clock.
	nodeMargin = time.Second
	// gainedPause is how long a node leaves a webhook alone that it has taken from
	// another, which may not know yet, and gainedMemory how long it takes what the
	// other has sent into account.
	gainedPause  = nodeBeat + nodeMargin
	gainedMemory = time.Minute
)

// node is this process among others. The zero value is alone and always in office.
type node struct {
	id      string
	beat    chan struct{} // renews the lease at once
	quit    chan struct{}
	done    sync.WaitGroup
	leaving sync.Once

	refused  atomic.Pointer[error]      // why the last try to renew failed; nil: it did not
	until    atomic.Pointer[time.Time]  // by this process's clock, monotonic
	since    atomic.Pointer[time.Time]  // in office without a break, by the same clock
	members  atomic.Pointer[membership] // who lives
	webhooks atomic.Int64               // what gate.webhooks was when it was last looked at
	hints    hints
	taking   atomic.Bool   // over, from another
	retired  atomic.Bool   // see Retire
	given    chan struct{} // another may have given it something
	full     fullLanes
}

// membership is who lives, as of a time.
type membership struct {
	nodes  []string // in the order of their ids, which is that of their age
	since  time.Time
	before [][]string // memberships that ended less than gainedMemory ago
}

// databaseNow is the server's clock in microseconds.
const databaseNow = `(extract(epoch from clock_timestamp()) * 1000000)::bigint`

// Join makes this process a node of its server, under the name that its leases
// carry; it then leads, delivers and is taken over until Leave. On an embedded
// database, which has one process that delivers, it does nothing.
func (s *Store) Join(ctx context.Context, owner string) error {
	if !s.dialect.server {
		return nil
	}
	n := &node{id: owner, beat: make(chan struct{}, 1), quit: make(chan struct{}), given: make(chan struct{}, 1)}
	n.hints.bell = make(chan struct{}, 1)
	s.node.Store(n)
	if err := s.enroll(ctx, n); err != nil {
		s.node.Store(nil)
		return fmt.Errorf("join the nodes of the database: %w", err)
	}
	if _, err := s.renew(ctx, n); err != nil {
		s.node.Store(nil)
		return fmt.Errorf("join the nodes of the database: %w", err)
	}
	n.done.Go(func() { s.keepLease(n) })
	n.done.Go(func() { s.sendHints(n) })
	n.done.Go(func() { s.hear(n) })
	n.done.Go(func() { s.takeGiven(n) })
	return nil
}

// Retire lets the other nodes send what is owed from now on, while this one finishes
// what it has begun. Leave follows.
func (s *Store) Retire(ctx context.Context) error {
	n := s.node.Load()
	if n == nil {
		return nil
	}
	n.retired.Store(true)
	if _, err := s.side.ExecContext(ctx, `update nodes set leaving = true where node_id = $1`, n.id); err != nil {
		return fmt.Errorf("retire from the nodes: %w", err)
	}
	s.notify(ctx, hintBeat)
	return nil
}

// Leave ends what Join began. Others then take over what is left at once; call it
// when nothing is. It is safe to call twice.
func (s *Store) Leave(ctx context.Context) error {
	n := s.node.Load()
	if n == nil {
		return nil
	}
	var err error
	n.leaving.Do(func() {
		close(n.quit)
		n.done.Wait()
		err = s.do(ctx, func(t *tx) error {
			// What it was given and has not taken any more.
			t.w.lose()
			if _, _, err := t.releaseHeldBy(`= $2`, maxInPage, n.id); err != nil {
				return err
			}
			return t.change("leave the nodes", `delete from nodes where node_id = $1`, n.id)
		})
		s.node.Store(nil)
		if err == nil {
			s.notify(ctx, hintBeat)
		}
	})
	return err
}

// enroll inserts the row of the node. What it held before is another's, or goes into
// the queue: it may not know any more what it has sent. Its dispatcher hears that on
// the writer's goroutine: before, a commit could still hand it something, or a list
// be taken.
func (s *Store) enroll(ctx context.Context, n *node) error {
	return s.do(ctx, func(t *tx) error {
		t.w.lose()
		if in := s.intake.Load(); in != nil {
			in.Lost()
		}
		if _, _, err := t.releaseHeldBy(`= $2`, maxInPage, n.id); err != nil {
			return err
		}
		return t.change("join the nodes", `insert into nodes (node_id, joined_at, lease_until, leaving)
			values ($1, `+databaseNow+`, `+databaseNow+` + $2, $3)
			on conflict (node_id) do update set lease_until = excluded.lease_until`,
			n.id, nodeLease.Microseconds(), n.retired.Load())
	})
}

// InOffice reports whether this process holds what it has leased: an embedded
// database is its own, and on a server its lease runs and it knows what time it is.
// Nothing may be sent while it does not.
func (s *Store) InOffice() bool {
	n := s.node.Load()
	if n == nil {
		return !s.dialect.server
	}
	now, until, a := s.cfg.Now(), n.until.Load(), s.anchor.Load()
	return until != nil && now.Before(*until) && !a.lost(now)
}

// Office is InOffice with the reason: nil, or why nothing may be sent.
func (s *Store) Office() error {
	if s.InOffice() {
		return nil
	}
	err := errors.New("the lease of this node has ended, or its clock was set a moment ago")
	if n := s.node.Load(); n != nil {
		if cause := n.refused.Load(); cause != nil {
			err = fmt.Errorf("%w: %w", err, *cause)
		}
	}
	return err
}

// Leads reports whether this process runs the jobs that one is enough for: the
// oldest node does. For a moment two may believe it, and what they do is right
// also then.
func (s *Store) Leads() bool {
	m, me := s.membership()
	return m == nil || len(m.nodes) > 0 && m.nodes[0] == me
}

// Among returns how many nodes share the work, this one included.
func (s *Store) Among() int {
	if m, _ := s.membership(); m != nil {
		return max(1, len(m.nodes))
	}
	return 1
}

// membership returns who lives, and the id of this process's node; nil without one.
func (s *Store) membership() (m *membership, me string) {
	n := s.node.Load()
	if n == nil {
		return nil, ""
	}
	return n.members.Load(), n.id
}

// Mine reports whether this process sends what the lane is owed.
func (s *Store) Mine(l Lane) bool {
	m, me := s.membership()
	return m == nil || ranksFirst(m.nodes, me, l)
}

// senderOf returns the node that sends what the lane is owed; "" when there is none,
// and on an embedded database.
func (s *Store) senderOf(l Lane) string {
	if m, _ := s.membership(); m != nil {
		return first(m.nodes, l)
	}
	return ""
}

// Gained says of a lane that is Mine whether it was another node's a moment ago:
// then nothing should be sent before the pause is over, and the limit be taken for
// used up.
func (s *Store) Gained(l Lane) (pause time.Duration, gained bool) {
	m, me := s.membership()
	if m == nil {
		return 0, false
	}
	age := s.cfg.Now().Sub(m.since)
	if age > gainedMemory {
		return 0, false
	}
	for _, nodes := range m.before {
		if len(nodes) > 0 && !ranksFirst(nodes, me, l) {
			return max(0, gainedPause-age), true
		}
	}
	return 0, false
}

// ranksFirst reports whether a lane is the business of a node among others.
func ranksFirst(nodes []string, me string, l Lane) bool {
	return len(nodes) == 0 || first(nodes, l) == me
}

// first is rendezvous hashing: when a node comes or goes, only its lanes move.
func first(nodes []string, l Lane) (node string) {
	if len(nodes) == 1 {
		return nodes[0]
	}
	rank := func(n string) uint64 {
		h := fnv.New64a()
		h.Write([]byte(n))
		h.Write([]byte(l.TenantID))
		h.Write([]byte(l.WebhookID))
		x := h.Sum64() // its last bytes hardly reach the high bits: mix them
		x ^= x >> 33
		x *= 0xff51afd7ed558ccd
		x ^= x >> 33
		return x
	}
	var highest uint64
	for _, n := range nodes {
		if r := rank(n); node == "" || r > highest {
			node, highest = n, r
		}
	}
	return node
}

// staying returns a context that ends when the node leaves, or with cancel.
func (n *node) staying() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		select {
		case <-n.quit:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// keepLease renews the lease until the node leaves.
func (s *Store) keepLease(n *node) {
	timer := time.NewTimer(nodeBeat)
	defer timer.Stop()
	for {
		select {
		case <-n.quit:
			return
		case <-timer.C:
		case <-n.beat:
		}
		ctx, cancel := context.WithTimeout(context.Background(), nodeLease/2)
		dead, err := s.renew(ctx, n)
		cancel()
		n.refused.Store(refusal(err))
		n.look()
		if in := s.intake.Load(); in != nil {
			in.Office(s.Office())
		}
		if dead && n.taking.CompareAndSwap(false, true) {
			n.done.Go(func() {
				defer n.taking.Store(false)
				_ = s.takeOver(context.Background()) // the next beat finds what is left
			})
		}
		wait := nodeBeat
		if err != nil {
			wait = nodeBeat / 4 // the lease runs on meanwhile, and InOffice ends with it
		}
		timer.Reset(wait)
	}
}

// refusal is err for node.refused.
func refusal(err error) *error {
	if err == nil {
		return nil
	}
	err = connectError{err}
	return &err
}

// renew renews the lease and learns who lives. dead says that there is a node to
// take over from, or a list of one that somebody has not finished with.
func (s *Store) renew(ctx context.Context, n *node) (dead bool, err error) {
	before := s.cfg.Now()
	var now, webhooks int64
	var held bool
	var alive, listed string
	err = s.side.QueryRowContext(ctx, `with held as (
			update nodes set lease_until = `+databaseNow+` + $2 where node_id = $1 returning node_id)
		select `+databaseNow+`, exists (select 1 from held), g.webhooks,
			exists (select 1 from nodes where lease_until <= `+databaseNow+` and node_id <> $1)
				or exists (select 1 from handovers where owner not in (select node_id from nodes)),
			coalesce((select string_agg(node_id, ',' order by node_id) from nodes 
				where (lease_until > `+databaseNow+` or node_id = $1) and not leaving), ''),
			coalesce((select string_agg(node_id, ',' order by node_id) from nodes where not leaving), '')
		from gate g`, n.id, nodeLease.Microseconds()).Scan(&now, &held, &webhooks, &dead, &alive, &listed)
	if err != nil {
		return false, fmt.Errorf("renew the lease of the node: %w", err)
	}
	after := s.cfg.Now()
	if !held { // another has taken over
		if err := s.enroll(ctx, n); err != nil {
			return false, fmt.Errorf("join the nodes again: %w", err)
		}
		return s.renew(ctx, n)
	}
	if !s.InOffice() {
		n.since.Store(&before)
	}
	// An answer that took long says little about when it was true.
	if trip := after.Sub(before); trip < nodeMargin || s.anchor.Load().lost(after) {
		s.anchor.Store(&anchor{here: before.Add(trip / 2), there: time.UnixMicro(now)})
	}
	n.until.Store(new(before.Add(nodeLease - nodeMargin)))
	// When the database was away, it was for the others too: they get the time to
	// renew theirs before anybody takes over, and their webhooks stay theirs.
	waits := before.Sub(*n.since.Load()) < nodeLease
	if old := n.members.Load(); waits && old != nil {
		alive = strings.Join(slices.DeleteFunc(strings.Split(listed, ","), func(id string) bool {
			return !slices.Contains(old.nodes, id) && !slices.Contains(strings.Split(alive, ","), id)
		}), ",")
	}
	var nodes []string
	if alive != "" {
		nodes = strings.Split(alive, ",")
	}
	if n.meet(nodes, after) {
		s.tell(Committed{Moved: true})
	}
	if n.webhooks.Swap(webhooks) != webhooks {
		s.credentials.forget()
		s.tell(Committed{Refresh: true})
	}
	return dead && !waits, nil
}

// meet notes who lives, and reports whether that is news.
func (n *node) meet(nodes []string, now time.Time) bool {
	old := n.members.Load()
	if old != nil && slices.Equal(old.nodes, nodes) {
		return false
	}
	next := &membership{nodes: nodes, since: now}
	switch {
	case old != nil:
		if now.Sub(old.since) < gainedMemory {
			next.before = old.before
		}
		next.before = append(slices.Clip(next.before), old.nodes)
	case len(nodes) > 1: // the others were here before us
		next.before = [][]string{slices.DeleteFunc(slices.Clone(nodes), func(id string) bool { return id == n.id })}
	}
	n.members.Store(next)
	return true
}

// tell gives the dispatcher news that no commit of this process has made.
func (s *Store) tell(c Committed) {
	if in := s.intake.Load(); in != nil {
		in.Commit(c)
	}
}

// orphanPage bounds one transaction of takeOver, which others wait for; maxInPage
// is more than a node can hold.
const (
	orphanPage = 500
	maxInPage  = 1_000_000
)

// takeOver queues what nodes hold whose lease has ended, and ends them. A list that
// cannot be read stays, and is an error when all else is done.
func (s *Store) takeOver(ctx context.Context) error {
	var unreadable error
	_, err := write(ctx, s, func(t *tx) (int64, error) {
		return t.exec(`delete from nodes where lease_until <= ` + databaseNow)
	})
	for more := true; err == nil && more; {
		more, err = write(ctx, s, func(t *tx) (bool, error) {
			more, bad, err := t.releaseHeldBy(`not in (select node_id from nodes)`, orphanPage)
			unreadable = bad
			return more, err
		})
	}
	if err = errors.Join(err, unreadable); err != nil {
		return fmt.Errorf("take over from a node that has ended: %w", err)
	}
	return nil
}

// releaseHeldBy voids the leases and ends the lists whose owner meets a condition,
// with at most one argument, a page of each, and reports whether there may be more. It
// passes over lists that cannot be read, and says so in unreadable.
func (t *tx) releaseHeldBy(owner string, page int, arg ...any) (more bool, unreadable, err error) {
	rows, err := t.query(`select handover_id, list from handovers where owner `+owner+` order by handover_id limit $1`, append([]any{page/10 + 1}, arg...)...)
	lists, err := collect(rows, err, func(r scanner) (id int64, err error) {
		var list []byte
		if err := r.Scan(&id, &list); err != nil {
			return 0, err
		}
		if _, err := readList(list); err != nil {
			unreadable = errors.Join(unreadable, fmt.Errorf("handover %d: %w", id, err))
			return 0, nil
		}
		return id, nil
	})
	if err != nil {
		return false, nil, fmt.Errorf("read handovers: %w", err)
	}
	recovered := 0
	for _, id := range lists {
		if id == 0 {
			continue
		}
		recovered++
		if err := t.recoverList(id); err != nil {
			return false, nil, err
		}
	}
	rows, err = t.query(`update deliveries set lease_owner = null, lease_until = null
		where status = 'pending' and (tenant_id, delivery_id) in (select tenant_id, delivery_id from deliveries
			where status = 'pending' and lease_until is not null and lease_owner `+owner+` limit $1)
		returning tenant_id, webhook_id`, append([]any{page}, arg...)...)
	lanes, err := collect(rows, err, func(r scanner) (l Lane, err error) {
		err = r.Scan(&l.TenantID, &l.WebhookID)
		return l, err
	})
	if err != nil {
		return false, nil, fmt.Errorf("release deliveries: %w", err)
	}
	for _, l := range lanes {
		t.due(l)
	}
	_, err = t.exec(`update mail_outbox set lease_owner = null, lease_until = null
		where mail_id in (select mail_id from mail_outbox where sent_at is null and failed_at is null
			and lease_until is not null and lease_owner `+owner+` limit $1)`, append([]any{page}, arg...)...)
	if err != nil {
		return false, nil, fmt.Errorf("release mails: %w", err)
	}
	return len(lists) > page/10 && recovered > 0 || len(lanes) == page, unreadable, nil
}

// anchor is a moment on two clocks.
type anchor struct {
	here  time.Time // by this process's, with its monotonic reading
	there time.Time // by the database's
}

// lost reports that the way from the anchor to now is not known: the clock on the
// wall was set since, or the machine was suspended, which stops the monotonic one.
func (a *anchor) lost(now time.Time) bool {
	if a == nil {
		return true
	}
	return (now.Round(0).Sub(a.here.Round(0)) - now.Sub(a.here)).Abs() > nodeMargin
}

// Clock returns the clock of the database: what it showed at the last renewal of
// the lease, and what has passed since by the monotonic reading of base. So it does
// not matter what the clock of this machine shows, nor that somebody sets it. On an
// embedded database it is base itself, and on a server until Join.
func (s *Store) Clock(base func() time.Time) func() time.Time {
	if !s.dialect.server {
		return base
	}
	return func() time.Time {
		now, a := base(), s.anchor.Load()
		if a == nil {
			return now
		}
		return a.there.Add(now.Sub(a.here))
	}
}
