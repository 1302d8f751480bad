package store

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ticketwire/ticketwire/internal/delivery"
)

// What one node accepts and another sends goes the way of what is handed over: one
// list for each such node is part of the commit, under the name of that node, which
// reads it and takes it into its memory. As a row of the queue it would be written
// three times, claimed behind the gate, and keep the lane from taking what its own
// node accepts.
//
// The node hears of it by a hint and looks anyway with each beat. The numbers of
// lists grow in the order of the commits, so it asks for what came after the last.
// Until it has taken a list, the list is what it holds like any other: when it ends,
// another queues what is in it. It is given nothing any more once it has said that
// it leaves, which a commit learns behind the gate.

// listsOfCommit is how many numbers of lists a commit has: that of the gate is its
// alone, 0 is the list of its own node, and the others are what it gives.
const listsOfCommit = 1 << 16

func (w *writer) listID(n int) int64 { return w.recent.version*listsOfCommit + int64(n) }

// giveTo gives a delivery to the node that sends it, and reports false if that is
// not possible now.
func (t *tx) giveTo(now time.Time, o owed, d delivery.Delivery) bool {
	n, node := t.w.s.node.Load(), t.w.s.senderOf(o.lane)
	if n == nil || t.w.shared.away || !t.w.shared.nodes[node] || n.full.has(o.lane, t.w.s.cfg.Now()) {
		return false
	}
	t.given = append(t.given, Claimed{Delivery: d, Owner: node, Since: now, own: o.body, seq: o.seq})
	return true
}

// give inserts the lists of what the calls of a batch give to other nodes.
func (w *writer) give(batch []*call) error {
	var lists map[string][]byte // by node
	for _, c := range batch {
		if c.err != nil {
			continue
		}
		for i := range c.tx.given {
			d := &c.tx.given[i]
			if lists == nil {
				lists = map[string][]byte{}
			}
			list := lists[d.Owner]
			if list == nil {
				w.shared.gave = append(w.shared.gave, d.Owner)
				list = []byte{listVersion}
			}
			var err error
			if lists[d.Owner], err = appendHanded(list, d); err != nil {
				return err
			}
		}
	}
	for i, node := range w.shared.gave {
		err := w.change("insert handover", `insert into handovers (handover_id, owner, list) values ($1, $2, $3)`,
			w.listID(i+1), node, lists[node])
		if err != nil {
			return err
		}
	}
	return nil
}

// look makes the node look soon for what it was given.
func (n *node) look() {
	select {
	case n.given <- struct{}{}:
	default:
	}
}

// takeGiven takes what other nodes give until the node leaves. After an error it rests:
// a node that is overloaded must not read the same lists with every hint.
func (s *Store) takeGiven(n *node) {
	ctx, cancel := n.staying()
	defer cancel()
	for after := int64(0); ; {
		select {
		case <-n.quit:
			return
		case <-n.given:
		}
		for more := true; more; {
			var err error
			if more, err = s.takeLists(ctx, n, &after); err != nil {
				more = false
				select {
				case <-n.quit:
				case <-time.After(hearPause):
					n.look()
				}
			}
		}
	}
}

// givenList is a list that another node has made for this one. One that cannot be read
// stays where it is, in the way of no other: the backlog counts it, and the next start
// says what is wrong with it.
type givenList struct {
	id         int64
	owed       []listed
	took       []Claimed
	unreadable bool
}

// How many lists are read at once, and for how long a lane is given nothing that
// could not take something.
const (
	givenPage = 64
	fullPause = 5 * time.Second
)

// takeLists takes a page of lists, and reports whether there may be more.
func (s *Store) takeLists(ctx context.Context, n *node, after *int64) (more bool, err error) {
	losses := s.losses.Load()
	lists, err := s.givenLists(ctx, n, *after)
	if err != nil || len(lists) == 0 {
		return false, err
	}
	if err := s.readGiven(ctx, n, lists); err != nil {
		return false, err
	}
	var refused []Claimed
	var full []Lane
	kept := true
	err = s.enter(&call{done: make(chan struct{}), aside: func() {
		// What was read before this node lost everything is another's.
		if kept = s.losses.Load() == losses; kept {
			refused, full = s.writer.adopt(lists)
		}
	}})
	if err != nil {
		return false, err
	}
	*after = lists[len(lists)-1].id
	if kept {
		if len(full) > 0 {
			n.hints.add(hint{full: full})
		}
		s.refuse(ctx, lists, refused, losses)
	}
	return len(lists) == givenPage, nil
}

// givenLists reads the lists after a number that others have made for this node.
func (s *Store) givenLists(ctx context.Context, n *node, after int64) ([]*givenList, error) {
	rows, err := s.reader(ctx).query(`select handover_id, list from handovers
		where handover_id > $1 and owner = $2 and handover_id % $3 <> 0 order by handover_id limit $4`, after, n.id, listsOfCommit, givenPage)
	lists, err := collect(rows, err, func(r scanner) (*givenList, error) {
		var g givenList
		var list []byte
		if err := r.Scan(&g.id, &list); err != nil {
			return nil, err
		}
		owed, err := readList(list)
		g.owed, g.unreadable = owed, err != nil
		return &g, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read what other nodes give: %w", err)
	}
	return lists, nil
}

// eventsOfGiven reads events by their numbers. The limit makes PostgreSQL look each up
// in its day; "seq = any" would be planned anew each time, for the days at hand.
const eventsOfGiven = `select e.* from unnest((select $1::bigint[])) as n (seq) cross join lateral
	(select seq, event_type, ticket_id, created_at, body from events where events.seq = n.seq limit 1) e`

// readGiven fills in what the lists do not say: it is in the events.
func (s *Store) readGiven(ctx context.Context, n *node, lists []*givenList) error {
	type event struct {
		seq, created int64
		kind, ticket string
		body         []byte
	}
	var seqs []int64
	for _, g := range lists {
		for i := range g.owed {
			seqs = append(seqs, g.owed[i].seq)
		}
	}
	slices.Sort(seqs)
	rows, err := s.reader(ctx).query(eventsOfGiven, slices.Compact(seqs))
	events, err := collect(rows, err, func(r scanner) (e event, err error) {
		err = r.Scan(&e.seq, &e.kind, &e.ticket, &e.created, &e.body)
		return e, err
	})
	if err != nil {
		return fmt.Errorf("read the events of what other nodes give: %w", err)
	}
	by := make(map[int64]*event, len(events))
	for i := range events {
		by[events[i].seq] = &events[i]
	}
	now, lease := s.Clock(s.cfg.Now)(), time.Duration(0)
	if in := s.intake.Load(); in != nil {
		lease = in.Lease
	}
	for _, g := range lists {
		for i := range g.owed {
			o := &g.owed[i]
			e := by[o.seq]
			if e == nil {
				continue
			}
			c := Claimed{Owner: n.id, Since: now, Generation: 1, until: now.Add(lease), own: o.body, seq: o.seq}
			c.Delivery = delivery.Delivery{
				TenantID: o.tenant, DeliveryID: o.delivery, WebhookID: o.webhook, EventID: o.event, EventType: e.kind, TicketID: e.ticket,
				Attempt: 1, Status: delivery.Pending, WaitReason: delivery.WaitDue, IsTest: o.isTest,
				DueAt: instant(e.created), CreatedAt: instant(e.created), Body: e.body,
			}
			if o.body != nil {
				c.Body = o.body
			}
			g.took = append(g.took, c)
		}
	}
	return nil
}

// adopt remembers given lists as if the commits had been its own, and hands what
// there is room for to the dispatcher. The rest is to be released; full are the lanes
// of it that have no room.
func (w *writer) adopt(lists []*givenList) (refused []Claimed, full []Lane) {
	in := w.s.intake.Load()
	var all Committed
	for _, g := range lists {
		if len(g.took) == 0 {
			continue
		}
		h := &handover{id: g.id, owner: g.took[0].Owner, since: g.took[0].CreatedAt, left: len(g.took)}
		w.handovers.open = append(w.handovers.open, h)
		for _, c := range g.took {
			w.handovers.by[c.DeliveryID] = &handed{Claimed: c, of: h}
			ours := in != nil && w.s.Mine(c.Lane())
			if ours && in.Reserve(c.Lane(), len(c.Body)) {
				all.Handed = append(all.Handed, c)
				continue
			}
			refused = append(refused, c)
			if ours && !slices.Contains(full, c.Lane()) {
				full = append(full, c.Lane())
			}
		}
	}
	w.tellHanded()
	if len(all.Handed) > 0 {
		in.Commit(all)
	}
	return refused, full
}

// refuse queues what there is no room for, and ends lists whose events are gone. It
// does not give up as long as all that is this node's to do.
func (s *Store) refuse(ctx context.Context, lists []*givenList, refused []Claimed, losses int64) {
	lists = slices.DeleteFunc(lists, func(g *givenList) bool { return len(g.took) > 0 || g.unreadable })
	for wait := 50 * time.Millisecond; len(refused)+len(lists) > 0 && s.losses.Load() == losses; wait = min(2*wait, time.Second) {
		page := refused[:min(len(refused), showPage)] // every node waits for it
		err := s.Release(ctx, page)
		if err == nil {
			if refused = refused[len(page):]; len(refused) > 0 {
				continue
			}
			err = s.do(ctx, func(t *tx) error {
				for _, g := range lists {
					if err := t.recoverList(g.id); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// fullLanes are lanes of other nodes that had no room for something a moment ago: what
// they are owed goes into the queue. The zero value is ready, and safe for concurrent
// use.
type fullLanes struct {
	mu    sync.Mutex
	until map[Lane]time.Time
}

// maxFull bounds how many are remembered; over it, all are forgotten.
const maxFull = 4096

func (f *fullLanes) note(l Lane, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.until == nil || len(f.until) >= maxFull {
		f.until = map[Lane]time.Time{}
	}
	f.until[l] = now.Add(fullPause)
}

func (f *fullLanes) has(l Lane, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	until, found := f.until[l]
	if found && !now.Before(until) {
		delete(f.until, l)
		return false
	}
	return found
}
