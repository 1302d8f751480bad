package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/ticketwire/ticketwire/internal/failpoint"
	"github.com/ticketwire/ticketwire/internal/fault"
)

// writer runs every write on one goroutine and one connection. Calls that wait
// at the same time share one transaction, and so one fsync. A lone call commits
// at once.
//
// A call that fails takes nobody with it. Nearly all failures come before the
// call has written anything (a ticket that is not there, a status of another
// board): then there is nothing to undo. Only when a call fails after a write is
// the transaction rolled back and the others run again, each in a savepoint of
// its own. So fn may run more than once, and must keep no state between runs.
type writer struct {
	s     *Store
	conn  *sql.Conn
	calls chan *call
	done  chan struct{}

	checkpointer *checkpointer
	committed    int // calls since the last checkpoint; owned by the writer goroutine

	refused atomic.Uint64 // see Load
	panics  atomic.Uint64

	mu     sync.RWMutex // guards closed against a send on calls
	closed bool
	failed atomic.Bool // the last commit that had something to write could not be made

	stmts      map[string]prepared       // owned by the writer goroutine
	updates    [8]string                 // texts of ticketUpdate; owned by the writer goroutine
	subscribed map[string]*subscriptions // by tenant; owned by the writer goroutine
	recent     recent                    // owned by the writer goroutine
	handovers  handovers                 // owned by the writer goroutine
	shared     shared                    // owned by the writer goroutine
}

type call struct {
	fn func(*tx) error
	// aside runs in place of fn, on the writer's goroutine and between transactions:
	// it may touch what the writer knows, and nothing of the database.
	aside func()
	on    ticketKey // the ticket that fn will ask for; zero: none, or it is not known
	err   error
	tx    *tx
	done  chan struct{}
}

func startWriter(s *Store) (*writer, error) {
	conn, err := s.write.Conn(context.Background())
	if err != nil {
		return nil, fmt.Errorf("open the write connection: %w", err)
	}
	w := &writer{
		s:     s,
		conn:  conn,
		calls: make(chan *call, s.cfg.QueueLimit),
		done:  make(chan struct{}),
		stmts: map[string]prepared{},

		subscribed: map[string]*subscriptions{},
		recent:     newRecent(),
		handovers:  handovers{by: map[string]*handed{}},
		shared:     shared{patience: serverPatience},
	}
	if s.dialect.checkpoint != "" {
		w.checkpointer = startCheckpointer(s)
	}
	go w.run()
	return w, nil
}

func (w *writer) stop() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.calls)
	}
	w.mu.Unlock()
	<-w.done
}

// checkpoint asks for one when enough was committed.
func (w *writer) checkpoint(calls int) {
	every := checkpointEvery
	if calls == 1 {
		every = checkpointLone
	}
	if w.committed += calls; w.committed >= every && w.checkpointer != nil {
		w.committed = 0
		w.checkpointer.nudge()
	}
}

// errClosed is what a call gets when the store is shutting down.
var errClosed = fault.New(fault.Unavailable, "The service is shutting down")

// do runs fn in a transaction and returns once it is durable. It does not give
// up when ctx ends after fn was queued: the caller must learn what happened to
// its write. A full queue is an answer at once, not a wait (contract P12).
func (s *Store) do(ctx context.Context, fn func(*tx) error) error {
	return s.doTo(ctx, ticketKey{}, fn)
}

// doTo is do for a change of a ticket, which the writer of a server reads together
// with those of other calls.
func (s *Store) doTo(ctx context.Context, on ticketKey, fn func(*tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.enter(&call{fn: fn, on: on, done: make(chan struct{})})
}

// enter queues a call and waits for its end.
func (s *Store) enter(c *call) error {
	s.writer.mu.RLock()
	if s.writer.closed {
		s.writer.mu.RUnlock()
		return errClosed
	}
	select {
	case s.writer.calls <- c:
		s.writer.mu.RUnlock()
	default:
		s.writer.mu.RUnlock()
		s.writer.refused.Add(1)
		return fault.New(fault.Unavailable, "The service is overloaded, try again")
	}
	<-c.done
	return c.err
}

// Load says how busy the writer is.
type Load struct {
	Waiting int    // calls in its queue now
	Refused uint64 // calls that found the queue full, since Open
	Panics  uint64 // calls that panicked, since Open
}

// Load reads the counters; it waits for nobody.
func (s *Store) Load() Load {
	w := s.writer
	return Load{Waiting: len(w.calls), Refused: w.refused.Load(), Panics: w.panics.Load()}
}

// write is do for a function with a result. When ctx carries an idempotency key
// the answer is recorded in the same transaction (see idempotency.go).
func write[T any](ctx context.Context, s *Store, fn func(*tx) (T, error)) (T, error) {
	return writeTo(ctx, s, ticketKey{}, fn)
}

func writeTo[T any](ctx context.Context, s *Store, on ticketKey, fn func(*tx) (T, error)) (T, error) {
	var out T
	idem := idempotencyOf(ctx)
	err := s.doTo(ctx, on, func(t *tx) (err error) {
		if out, err = fn(t); err != nil || idem == nil {
			return err
		}
		return t.recordAnswer(idem, out)
	})
	if err != nil {
		var zero T
		return zero, err
	}
	return out, nil
}

func (w *writer) run() {
	defer close(w.done)
	defer func() {
		for _, st := range w.stmts {
			st.Close()
		}
		w.conn.Close()
		if w.checkpointer != nil {
			w.checkpointer.stop()
		}
	}()
	busy := false
	for first := range w.calls {
		if w.runAside(first) {
			continue
		}
		batch := w.fill(append(make([]*call, 0, 64), first))
		// Callers that were answered by the last commit come back in a moment, if
		// they get to run: a commit for each few of them would cost all of them.
		// A lone call waits for nobody.
		for rounds := 0; (busy || len(batch) > 1) && rounds < gatherRounds; rounds++ {
			had := len(batch)
			runtime.Gosched()
			if batch = w.fill(batch); len(batch) == had {
				break
			}
		}
		busy = len(batch) > 1
		w.commit(batch)
	}
}

// gatherRounds bounds how often the writer lets others run before it commits.
const gatherRounds = 8

// fill adds the calls that are waiting.
func (w *writer) fill(batch []*call) []*call {
	for len(batch) < w.s.cfg.CommitLimit {
		select {
		case c, ok := <-w.calls:
			if !ok {
				return batch
			}
			if !w.runAside(c) {
				batch = append(batch, c)
			}
		default:
			return batch
		}
	}
	return batch
}

// runAside runs a call that needs no transaction, and reports whether it is one.
func (w *writer) runAside(c *call) bool {
	if c.aside == nil {
		return false
	}
	c.aside()
	close(c.done)
	return true
}

// commit runs a batch in one transaction. When the transaction as a whole fails
// (the disk is full, the database is locked by another process for too long),
// every call of it fails and nothing of it is kept.
func (w *writer) commit(batch []*call) {
	ended := w.s.cfg.Commit(len(batch))
	err := w.try(batch)
	if err != nil && w.s.dialect.server {
		err = w.tryAgain(batch, err)
	}
	ended(err)
	wrote := false
	for _, c := range batch {
		if err != nil {
			c.err = unavailable(err)
		}
		wrote = wrote || c.tx != nil && c.tx.wrote
	}
	if err != nil || wrote {
		w.failed.Store(err != nil)
	}
	w.report(batch)
	// Before the batch is answered: who calls after that has not waited.
	if err != nil && (isBusy(err) || w.s.dialect.server) {
		w.refuseWaiting(err)
	}
	for _, c := range batch {
		close(c.done)
	}
	w.checkpoint(len(batch))
}

// try runs a batch in one transaction, or in a second one with savepoints.
func (w *writer) try(batch []*call) error {
	clean, err := w.attempt(batch, false)
	if err == nil && !clean {
		_, err = w.attempt(batch, true)
	}
	return err
}

// refuseWaiting gives the calls in the queue the error of a batch that waited for
// another process's lock, or for a server, in vain. They have waited as long as the batch, and
// would otherwise wait for the next ones too.
func (w *writer) refuseWaiting(err error) {
	for range len(w.calls) {
		c := <-w.calls
		c.err = unavailable(err)
		close(c.done)
	}
}

func unavailable(err error) error {
	return fault.Wrap(fault.Unavailable, fmt.Errorf("commit: %w", err), "The store cannot write now, try again")
}

// report tells the dispatcher what the batch has left for it, once for all calls
// of the batch.
func (w *writer) report(batch []*call) {
	in := w.s.intake.Load()
	var all Committed
	handed := 0
	for _, c := range batch {
		if c.tx != nil && c.err == nil {
			handed += len(c.tx.out.Handed)
		}
	}
	all.Handed = slices.Grow(all.Handed, handed)
	for _, c := range batch {
		t := c.tx
		switch {
		case t == nil:
		case c.err != nil:
			t.cancel()
		case t.intake != in && len(t.out.Handed) > 0:
			// The dispatcher was exchanged meanwhile: the leases are the old one's.
			t.intake.Commit(t.out)
		default:
			all.Due = append(all.Due, t.out.Due...)
			all.Handed = append(all.Handed, t.out.Handed...)
			all.Changed = append(all.Changed, t.out.Changed...)
			all.Replay = all.Replay || t.out.Replay
		}
		if c.err == nil && t != nil && t.moved {
			w.s.credentials.forget()
		}
	}
	if w.s.dialect.server {
		w.reportShared(&all)
	}
	if in != nil && (all.Replay || all.Refresh || len(all.Due)+len(all.Handed)+len(all.Changed) > 0) {
		in.Commit(all)
	}
}

// cancel gives back what a call reserved that did not commit.
func (t *tx) cancel() {
	if len(t.out.Handed) == 0 {
		return
	}
	t.intake.Cancel(t.out.Handed)
	t.out.Handed = nil
}

// attempt runs the calls in one transaction. clean is false when a call failed
// after it had written, which cannot happen with savepoints: then nothing is
// kept, and the batch has to run again.
//
// When the disk fails, SQLite may have ended the transaction by itself. Going on
// would commit one statement after the other, so that ends the batch.
func (w *writer) attempt(batch []*call, savepoints bool) (clean bool, err error) {
	if err := w.begin(batch); err != nil {
		return false, err
	}
	in := w.s.intake.Load()
	if w.shared.away {
		in = nil
	}
	for _, c := range batch {
		if c.tx != nil { // of the run before, which was rolled back
			c.tx.cancel()
		}
		c.tx = &tx{w: w, intake: in}
		if savepoints {
			if c.err, err = w.runApart(c); err != nil {
				return false, errors.Join(err, w.rollback())
			}
			continue
		}
		c.err = w.protect(c)
		switch {
		case w.shared.err != nil && !isTrouble(w.shared.err) && !w.broken():
			// It may be that of another call.
			return false, w.rollback()
		case c.err == nil:
		case isTrouble(c.err) || w.broken():
			return false, errors.Join(c.err, w.rollback())
		case c.tx.wrote || w.aborted():
			return len(batch) == 1, w.rollback()
		}
	}
	if err := w.end(batch); err != nil {
		if w.shared.err != nil && !savepoints && !isTrouble(err) && !w.broken() {
			return false, w.rollback()
		}
		return false, errors.Join(err, w.rollback())
	}
	return true, nil
}

// begin begins a transaction, alone among all that write to the database.
func (w *writer) begin(batch []*call) error {
	if w.s.dialect.server {
		return w.beginShared(batch)
	}
	if err := w.exec(w.s.dialect.begin); err != nil {
		return err
	}
	if err := w.refresh(); err != nil {
		return errors.Join(err, w.rollback())
	}
	return nil
}

// rollback undoes the transaction, and what the writer remembers of it. SQLite
// may have rolled back by itself, as it does when the disk is full.
func (w *writer) rollback() error {
	if w.s.dialect.server {
		return w.rollbackShared()
	}
	w.recent.forget()
	w.handovers.unsettle(0)
	return ignoreNoTx(w.exec("rollback"))
}

// end commits, and with it makes durable what the calls have done.
func (w *writer) end(batch []*call) error {
	if w.s.dialect.server {
		if err := w.sealShared(batch); err != nil {
			return err
		}
	}
	made, err := w.seal(batch)
	if err != nil {
		return err
	}
	if err := failpoint.Hit(failpoint.StoreCommit); err != nil {
		return err
	}
	if w.s.dialect.server {
		if err := w.commitShared(batch, made); err != nil {
			return err
		}
	} else if err := w.exec("commit"); err != nil {
		return err
	}
	w.keep(batch, made)
	// What is committed cannot fail any more; a test may only end the process here.
	_ = failpoint.Hit(failpoint.StoreCommitted)
	return nil
}

// runApart runs one call so that its failure undoes its own writes only. broken
// says that the transaction is good for nothing any more.
func (w *writer) runApart(c *call) (failed, broken error) {
	if err := w.exec("savepoint c"); err != nil {
		return nil, fmt.Errorf("savepoint: %w", err)
	}
	mark := len(w.handovers.settled)
	err := w.protect(c)
	if ferr := w.flush(); ferr != nil {
		err = ferr
	}
	if isTrouble(err) || err != nil && w.broken() {
		return nil, err
	}
	if err != nil {
		w.shared.drop()
		w.recent.forget()
		w.handovers.unsettle(mark)
		if err := w.exec("rollback to c"); err != nil {
			return nil, fmt.Errorf("undo a call: %w", err)
		}
	}
	return err, w.exec("release c")
}

// protect turns a panic in a call into its error, so that one defect cannot stop
// every write of the process.
func (w *writer) protect(c *call) (err error) {
	defer func() {
		if p := recover(); p != nil {
			w.panics.Add(1)
			err = fmt.Errorf("panic in a transaction: %v\n%s", p, debug.Stack())
		}
	}()
	return c.fn(c.tx)
}

// ignoreNoTx drops the error of a rollback when SQLite has already rolled back by
// itself, as it does when the disk is full.
func ignoreNoTx(err error) error {
	if err != nil && isNoTransaction(err) {
		return nil
	}
	return err
}
