package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// A delivery whose lane keeps up goes straight from its commit to the dispatcher
// and comes back a moment later, sent. Until then it has no row of its own: all
// that one commit hands over is listed in one row of handovers, in the
// transaction that owes it, and recording an attempt inserts its row of the log
// complete. That halves what a delivery costs, since a row that is inserted as
// pending and then completed is written twice, with every index that it is in.
//
// Who reads the log has the rows made first (show). A delivery that the
// dispatcher cannot send soon goes into the queue as a row (Release), and after
// a crash the lists say what was owed (ReleaseAll).

// handed is a delivery that the dispatcher holds and that has no row.
type handed struct {
	Claimed
	of *handover
}

// handover is a row of the table. It belongs to the writer's goroutine.
type handover struct {
	id    int64
	owner string
	since time.Time
	left  int // of its deliveries, those without a row
}

// handovers is what the writer knows of the deliveries that were handed over.
// All of it belongs to the writer's goroutine.
type handovers struct {
	by      map[string]*handed // by delivery id
	open    []*handover        // oldest first; those with nothing left are dropped from the front
	settled []*handed          // have a row as of the transaction at hand
	sealed  int                // of settled, those whose handover has counted them
}

// settle notes that a delivery has a row as of this transaction.
func (h *handovers) settle(d *handed) {
	delete(h.by, d.DeliveryID)
	h.settled = append(h.settled, d)
}

// unsettle takes back what was settled after a mark: its rows were rolled back. After
// lose there is less than that.
func (h *handovers) unsettle(mark int) {
	mark = min(mark, len(h.settled))
	for i := mark; i < len(h.settled); i++ {
		d := h.settled[i]
		h.by[d.DeliveryID] = d
		if i < h.sealed {
			d.of.left++
		}
	}
	h.settled = h.settled[:mark]
	h.sealed = min(h.sealed, mark)
}

// lose forgets everything: it is another node's now.
func (w *writer) lose() {
	w.handovers = handovers{by: map[string]*handed{}}
	w.s.losses.Add(1)
}

// seal ends a transaction: it deletes the lists of which nothing is left, inserts
// those of what the calls of the batch give to other nodes, and returns the list of
// what they hand over here, nil if that is nothing.
func (w *writer) seal(batch []*call) (*handover, error) {
	h := &w.handovers
	for h.sealed < len(h.settled) {
		of := h.settled[h.sealed].of
		of.left--
		h.sealed++
		if of.left > 0 {
			continue
		}
		if err := w.change("end a handover", `delete from handovers where handover_id = $1`, of.id); err != nil {
			return nil, err
		}
	}
	if err := w.give(batch); err != nil {
		return nil, err
	}
	list := []byte{listVersion}
	made := &handover{}
	for _, c := range batch {
		if c.err != nil {
			continue
		}
		for i := range c.tx.out.Handed {
			var err error
			if list, err = appendHanded(list, &c.tx.out.Handed[i]); err != nil {
				return nil, err
			}
			made.left++
			made.owner = c.tx.out.Handed[i].Owner
		}
	}
	if made.left == 0 {
		return nil, nil
	}
	if w.s.dialect.server {
		made.id = w.listID(0)
		return made, w.change("insert handover", `insert into handovers (handover_id, owner, list) values ($1, $2, $3)`, made.id, made.owner, list)
	}
	st, err := w.stmt(`insert into handovers (owner, list) values ($1, $2) returning handover_id`)
	if err != nil {
		return nil, err
	}
	if err := st.QueryRowContext(context.Background(), made.owner, list).Scan(&made.id); err != nil {
		return nil, fmt.Errorf("insert handover: %w", err)
	}
	return made, nil
}

// keep remembers what a transaction that is committed now has handed over and
// settled.
func (w *writer) keep(batch []*call, made *handover) {
	h := &w.handovers
	clear(h.settled)
	h.settled, h.sealed = h.settled[:0], 0
	if made != nil {
		for _, c := range batch {
			if c.err != nil {
				continue
			}
			for i := range c.tx.out.Handed {
				d := &handed{Claimed: c.tx.out.Handed[i], of: made}
				if made.since.IsZero() || d.CreatedAt.Before(made.since) {
					made.since = d.CreatedAt
				}
				h.by[d.DeliveryID] = d
			}
		}
		h.open = append(h.open, made)
	}
	w.tellHanded()
}

// tellHanded drops the lists of which nothing is left, and says to others what is.
func (w *writer) tellHanded() {
	h := &w.handovers
	for len(h.open) > 0 && h.open[0].left == 0 {
		h.open = h.open[1:]
	}
	oldest := int64(0)
	if len(h.open) > 0 {
		oldest = micros(h.open[0].since)
	}
	w.s.handedCount.Store(int64(len(h.by)))
	w.s.handedSince.Store(oldest)
}

// insertHanded makes a pending row of a delivery that was handed over. With its
// lease it stays with the dispatcher; without, anybody may claim it.
func (t *tx) insertHanded(d *handed, leased bool) error {
	var owner, until any
	if leased {
		owner, until = d.Owner, micros(d.until)
	}
	err := t.change("insert delivery", insertPending,
		d.TenantID, d.DeliveryID, d.WebhookID, d.EventID, d.EventType, d.TicketID,
		d.Attempt, d.IsTest, micros(d.DueAt), micros(d.CreatedAt), nullBlob(d.own), owner, until, d.Generation, d.seq)
	if err != nil {
		return err
	}
	t.w.handovers.settle(d)
	return nil
}

// showPage bounds one transaction of show: others wait for it.
const showPage = 500

// show makes rows of what the dispatcher holds of a tenant, or of one of its
// webhooks, so that statements about rows see all there is. It stops after
// showPage rows, and more says so.
func (t *tx) show(tenant, webhookID string) (more bool, err error) {
	n := 0
	for _, d := range t.w.handovers.by {
		if d.TenantID != tenant || webhookID != "" && d.WebhookID != webhookID {
			continue
		}
		if n++; n > showPage {
			return true, nil
		}
		if err := t.insertHanded(d, true); err != nil {
			return false, err
		}
	}
	return false, nil
}

// showPatience is how long a reader waits for the writer to show what is being
// sent at this moment.
const showPatience = time.Second

// show is the same for a reader of the log. When the store cannot write, or not
// soon, the reader gets what there is: a log without what is being sent at this
// moment is better than none.
func (s *Store) show(ctx context.Context, tenant, webhookID string) {
	// Readers must not be what fills the queue of those who write.
	if s.handedCount.Load() == 0 || len(s.writer.calls) > cap(s.writer.calls)/2 {
		return
	}
	patient, cancel := context.WithTimeout(ctx, showPatience)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer cancel()
		for more := true; more && patient.Err() == nil; {
			err := s.do(patient, func(t *tx) (err error) {
				more, err = t.show(tenant, webhookID)
				return err
			})
			if err != nil {
				return // it is that of every write, and told there
			}
		}
	}()
	select {
	case <-done:
	case <-patient.Done():
	}
}

// recoverHeld puts into the queue what this process was handed and has not sent.
func (t *tx) recoverHeld() error {
	for _, d := range t.w.handovers.by {
		if err := t.insertHanded(d, false); err != nil {
			return err
		}
	}
	return nil
}

// recoverHanded puts into the queue what was handed over and has no row, whether
// this process or one before it owed it.
func (t *tx) recoverHanded() error {
	if err := t.recoverHeld(); err != nil {
		return err
	}
	rows, err := t.query(`select handover_id from handovers order by handover_id`)
	lists, err := collect(rows, err, func(r scanner) (id int64, err error) {
		err = r.Scan(&id)
		return id, err
	})
	if err != nil {
		return fmt.Errorf("read handovers: %w", err)
	}
	for _, id := range lists {
		if err := t.recoverList(id); err != nil {
			return err
		}
	}
	return nil
}

// recoverList puts into the queue what a list owes, and ends it. One that is gone
// owes nothing.
func (t *tx) recoverList(id int64) error {
	rows, err := t.query(`delete from handovers where handover_id = $1 returning list`, id)
	lists, err := collect(rows, err, func(r scanner) (list []byte, err error) {
		err = r.Scan(&list)
		return list, err
	})
	if err != nil {
		return fmt.Errorf("end handover %d: %w", id, err)
	}
	for _, list := range lists {
		owed, err := readList(list)
		if err != nil {
			return fmt.Errorf("handover %d: %w", id, err)
		}
		for _, d := range owed {
			// What was recorded before the end has its row.
			err = t.change("insert a delivery that was handed over", `insert into deliveries (tenant_id, delivery_id, webhook_id,
					event_id, event_type, ticket_id, attempt, step, status, is_test, due_at, created_at, body, generation, event_seq)
				select e.tenant_id, $3, $4, e.event_id, e.event_type, e.ticket_id,
					1, 0, 'pending', $5, e.created_at, e.created_at, $6, 1, e.seq
				from events e where e.tenant_id = $1 and e.event_id = $2
					and not exists (select 1 from deliveries d where d.tenant_id = $1 and d.delivery_id = $3)`,
				d.tenant, d.event, d.delivery, d.webhook, d.isTest, nullBlob(d.body))
			if err != nil {
				return err
			}
			t.due(Lane{d.tenant, d.webhook})
		}
	}
	return nil
}

// listVersion is the first byte of a list, so that another form can follow. Lists
// of version 1 have no numbers of events.
const listVersion = 2

// listed is what a list says of one delivery; the rest is in its event.
type listed struct {
	tenant, webhook, event, delivery string
	seq                              int64 // of the event
	isTest                           bool
	body                             []byte // its own; nil: the event's
}

// appendHanded adds a delivery to a list: four ids, the number of the event, a byte
// of flags, and the length and bytes of a body of its own.
func appendHanded(list []byte, c *Claimed) ([]byte, error) {
	for _, text := range [...]string{c.TenantID, c.WebhookID, c.EventID, c.DeliveryID} {
		id, err := uuid.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("hand over: id %q: %w", text, err)
		}
		list = append(list, id[:]...)
	}
	list = binary.BigEndian.AppendUint64(list, uint64(c.seq))
	flags := byte(0)
	if c.IsTest {
		flags |= flagTest
	}
	if c.own != nil {
		flags |= flagOwnBody
	}
	list = append(list, flags)
	if c.own != nil {
		list = append(binary.AppendUvarint(list, uint64(len(c.own))), c.own...)
	}
	return list, nil
}

const (
	flagTest = 1 << iota
	flagOwnBody
)

var errList = errors.New("a list of handed over deliveries cannot be read")

// readList returns the deliveries of a list. One without a byte is what Ping
// writes.
func readList(list []byte) ([]listed, error) {
	if len(list) == 0 {
		return nil, nil
	}
	version := list[0]
	if version < 1 || version > listVersion {
		return nil, fmt.Errorf("%w: version %d", errList, version)
	}
	var out []listed
	for rest := list[1:]; len(rest) > 0; {
		d, left, err := readHanded(rest, version)
		if err != nil {
			return nil, err
		}
		out, rest = append(out, d), left
	}
	return out, nil
}

// What a delivery takes in a list, in bytes: its ids, the number of its event, and
// its flags.
const (
	listedIDs    = 4 * 16
	listedLength = listedIDs + 8 + 1
)

// readHanded takes the first delivery off what follows the version.
func readHanded(list []byte, version byte) (d listed, rest []byte, err error) {
	length := listedLength
	if version == 1 {
		length -= 8
	}
	if len(list) < length {
		return d, nil, errList
	}
	id := func(i int) string { return uuid.UUID(list[16*i : 16*i+16]).String() }
	d.tenant, d.webhook, d.event, d.delivery = id(0), id(1), id(2), id(3)
	if version > 1 {
		d.seq = int64(binary.BigEndian.Uint64(list[listedIDs:]))
	}
	flags := list[length-1]
	d.isTest = flags&flagTest != 0
	rest = list[length:]
	if flags&flagOwnBody == 0 {
		return d, rest, nil
	}
	n, size := binary.Uvarint(rest)
	if size <= 0 || n > uint64(len(rest)-size) {
		return d, nil, errList
	}
	rest = rest[size:]
	d.body = rest[:n]
	return d, rest[n:], nil
}
