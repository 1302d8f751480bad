package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Several processes may write to one server. Every transaction that writes passes
// the gate: a lock that admits one writer at a time, as SQLite does by itself, and
// that is given back with the commit. So events get their numbers in the order of
// their commits, nothing that a transaction has read is changed under it, and the
// number that it draws tells whether another process has been there since. What
// waits on one node shares a commit, so the gate is passed a few hundred times a
// second and not once for each call.
//
// A process that stands still inside the gate is thrown out by the server after
// gateLimit.
const (
	gateLimit    = "8000" // milliseconds, to wait for the gate and to be silent inside
	gateSettings = `select set_config('lock_timeout', $1, true), set_config('idle_in_transaction_session_timeout', $1, true),
		set_config('synchronous_commit', case current_setting('synchronous_commit') when 'off' then 'on'
			else current_setting('synchronous_commit') end, true)`
	gateNumber = `7468624` // any number; ours
	takeGate   = `select pg_advisory_xact_lock(` + gateNumber + `)`
	passGate   = `select nextval('gate_version'), webhooks, pg_current_xact_id()::text,
		(select coalesce(max(seq), 0) from events where seq >= $1), ` + lifeOfServer + ` from gate`
	whoIsNode = `select node_id, leaving from nodes`
	// lifeOfServer is another number after each crash of the server, and 0 until
	// beginLife: the table is not logged, so that a crash empties it.
	lifeOfServer = `coalesce((select life from lives), 0)`
	beginLife    = `insert into lives (life) values (1 + random()) on conflict do nothing`
	moveHooks    = `update gate set webhooks = webhooks + 1`
)

// deferred is a statement whose count of rows does not matter. It is sent with the
// next one that has an answer to wait for.
type deferred struct {
	what, text string
	args       []any
}

// session gives fn the driver's connection of the writer.
func (w *writer) session(fn func(*pgx.Conn) error) error {
	return driverConn(w.conn, fn)
}

// broken reports whether the writer's connection has ended.
func (w *writer) broken() bool {
	if !w.s.dialect.server {
		return false
	}
	closed := true
	err := w.session(func(c *pgx.Conn) error { closed = c.IsClosed(); return nil })
	return err != nil || closed
}

// aborted reports whether a statement has failed and the transaction with it: to
// PostgreSQL a transaction is good for nothing after that, and a commit would be a
// rollback that calls itself a success.
func (w *writer) aborted() bool {
	if !w.s.dialect.server {
		return false
	}
	status := byte('E')
	err := w.session(func(c *pgx.Conn) error { status = c.PgConn().TxStatus(); return nil })
	return err != nil || status == 'E'
}

// shared is what the writer of a server knows of its transaction.
type shared struct {
	xid      string          // of the transaction at hand
	life     float64         // of the server, as it began; 0: not known
	newest   int64           // an event that was committed, the newest or one before it: no day before it has to be looked at for the newest
	webhooks int64           // gate.webhooks as it is in it
	moved    bool            // it has moved that by one
	known    int64           // gate.webhooks as of which recent.checked is right
	foreign  bool            // another process has moved it since this one looked
	away     bool            // this process is no node: nothing may be handed to its dispatcher
	nodes    map[string]bool // by id, those that take something new
	gave     []string        // nodes that the transaction gives something to
	crowded  bool            // another process was behind the gate since the transaction before
	deferred []deferred
	err      error // of a deferred statement, which may belong to any call of the transaction
	unsure   *unsure
	patience time.Duration // see serverPatience
	late     []*handover   // whose commit was found out about when nobody waited for it any more
}

// settled reports whether everything is known about the transactions before.
func (s *shared) settled() bool { return s.unsure == nil && len(s.late) == 0 }

var errUnsettled = errors.New("what became of an earlier commit is not known yet")

// unsure is a commit of which nobody has heard whether it was made: the connection
// ended under it. The server knows.
type unsure struct {
	xid   string
	life  float64 // of the server that gave the xid
	batch []*call
	made  *handover
}

// drop forgets what was deferred, after a rollback.
func (s *shared) drop() {
	clear(s.deferred)
	s.deferred, s.err = s.deferred[:0], nil
}

// beginShared begins a transaction, passes the gate, and reads the tickets that the
// calls of a batch will ask for, in one round trip. Where others pass the gate too, the
// tickets are read with it: none that is remembered will be right.
func (w *writer) beginShared(batch []*call) error {
	w.shared.drop()
	if !w.shared.settled() {
		return errUnsettled
	}
	sh, n := &w.shared, w.s.node.Load()
	var version, seq int64
	sh.away, sh.moved, sh.gave = false, false, sh.gave[:0]
	clear(sh.nodes)
	var tickets bareTickets
	err := w.session(func(c *pgx.Conn) error {
		b := &pgx.Batch{}
		b.Queue(w.s.dialect.begin)
		b.Queue(gateSettings, gateLimit)
		b.Queue(takeGate)
		b.Queue(passGate, sh.newest).QueryRow(func(row pgx.Row) error { return row.Scan(&version, &sh.webhooks, &sh.xid, &seq, &sh.life) })
		if n != nil {
			sh.away = true
			b.Queue(whoIsNode).Query(func(rows pgx.Rows) error { return sh.meet(rows, n.id) })
		}
		if sh.crowded {
			for _, q := range tickets.of(batch, nil) {
				w.s.dialect.texts(q.args)
				q.queue(b)
			}
		}
		return c.SendBatch(context.Background(), b).Close()
	})
	if err != nil {
		return errors.Join(fmt.Errorf("pass the gate: %w", err), w.leave())
	}
	if sh.away {
		w.lose()
	}
	sh.newest = seq
	sh.foreign = n != nil && n.webhooks.Swap(sh.webhooks) != sh.webhooks
	if sh.webhooks != sh.known {
		clear(w.recent.checked)
		clear(w.recent.targets)
		clear(w.recent.there)
		clear(w.recent.names)
		w.s.credentials.forget()
	}
	if sh.crowded = version != w.recent.version+1; sh.crowded {
		w.recent.forgetTickets()
		w.recent.seq = 0
	}
	if w.recent.seq == 0 {
		w.recent.seq = seq
	}
	w.recent.version, sh.known = version, sh.webhooks
	err = w.fetch(batch, tickets)
	if err == nil && sh.life == 0 {
		err = w.postpone("begin the life of the server", beginLife, nil)
	}
	if err != nil {
		return errors.Join(err, w.rollback())
	}
	return nil
}

// meet learns who is a node, and whether this process is.
func (s *shared) meet(rows pgx.Rows, me string) error {
	if s.nodes == nil {
		s.nodes = map[string]bool{}
	}
	for rows.Next() {
		var id string
		var leaving bool
		if err := rows.Scan(&id, &leaving); err != nil {
			return err
		}
		if id == me {
			s.away = false
		}
		if !leaving {
			s.nodes[id] = true
		}
	}
	return rows.Err()
}

// sealShared ends a transaction that has changed webhooks, or made a replay, so
// that every node hears of it.
func (w *writer) sealShared(batch []*call) error {
	for _, c := range batch {
		if c.err != nil || len(c.tx.out.Changed) == 0 && !c.tx.out.Replay && !c.tx.moved {
			continue
		}
		w.shared.moved = true
		return w.change("tell of changed webhooks", moveHooks)
	}
	return nil
}

// reportShared notes and tells other nodes what a commit means to them, and keeps
// in all what is this node's.
func (w *writer) reportShared(all *Committed) {
	n := w.s.node.Load()
	if n == nil {
		return
	}
	all.Refresh, w.shared.foreign = w.shared.foreign, false
	changed := w.shared.moved
	if changed {
		n.webhooks.CompareAndSwap(w.shared.webhooks, w.shared.webhooks+1)
	}
	var theirs []Lane
	ours := all.Due[:0]
	for _, l := range all.Due {
		if w.s.Mine(l) {
			ours = append(ours, l)
		} else {
			theirs = append(theirs, l)
		}
	}
	all.Due = ours
	if (changed || len(theirs)+len(w.shared.gave) > 0) && w.s.Among() > 1 {
		n.hints.add(hint{lanes: theirs, gave: w.shared.gave, beat: changed})
	}
}

// leave ends a transaction, if there is one.
func (w *writer) leave() error {
	if w.broken() {
		return nil
	}
	return w.session(func(c *pgx.Conn) error {
		if c.PgConn().TxStatus() == 'I' {
			return nil
		}
		_, err := c.Exec(context.Background(), "rollback")
		return err
	})
}

// rollbackShared undoes the transaction, and what the writer remembers of it,
// unless it may have been committed.
func (w *writer) rollbackShared() error {
	w.shared.drop()
	w.recent.forget()
	if w.shared.unsure != nil {
		return nil
	}
	w.handovers.unsettle(0)
	return w.leave()
}

// commitShared sends what was deferred and the commit, in one round trip: after a
// statement that fails the server runs no other. When the connection ends before
// the answer, the outcome is not known: the next connection asks for it.
func (w *writer) commitShared(batch []*call, made *handover) error {
	if w.aborted() {
		return errors.New("commit: a statement of the transaction has failed")
	}
	err := w.send("commit")
	if err == nil && w.shared.moved {
		w.shared.known++
	}
	if err != nil && w.broken() {
		w.shared.unsure = &unsure{xid: w.shared.xid, life: w.shared.life, batch: batch, made: made}
	}
	return err
}

// serverPatience is how long a batch waits for a server that was there a moment
// ago: it may be starting again.
const serverPatience = 5 * time.Second

// tryAgain runs a batch again that has failed with the server or its connection.
// It gives up at once where the batch before it has waited in vain.
func (w *writer) tryAgain(batch []*call, err error) error {
	end := w.s.cfg.Now().Add(w.shared.patience)
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, 500*time.Millisecond) {
		code := postgresCode(err)
		passing := strings.HasPrefix(code, "40") || strings.HasPrefix(code, "25") || strings.HasPrefix(code, "57")
		if !passing && w.shared.settled() && !w.broken() {
			return err
		}
		committed, cerr := w.connect(batch)
		if errors.Is(cerr, errAmbiguous) {
			return cerr // it may have been made: it must not run again
		}
		if cerr == nil {
			if committed {
				return nil
			}
			if err = w.try(batch); err == nil {
				return nil
			}
		} else {
			err = cerr
		}
		if w.failed.Load() || w.s.cfg.Now().Add(wait).After(end) {
			return err
		}
		<-time.After(wait)
	}
}

// connect makes the writer's connection anew if it has ended, and finds out what
// became of the commit that it ended in: committed says that the batch is done.
func (w *writer) connect(batch []*call) (committed bool, err error) {
	if w.broken() {
		for _, st := range w.stmts {
			st.Close()
		}
		clear(w.stmts)
		w.conn.Close()
		ctx, cancel := context.WithTimeout(context.Background(), connectLimit)
		defer cancel()
		conn, err := w.s.write.Conn(ctx)
		if err != nil {
			return false, fmt.Errorf("connect to PostgreSQL: %w", err)
		}
		w.conn = conn
	}
	u := w.shared.unsure
	if u == nil {
		return false, w.recoverLate()
	}
	made, sure, err := w.outcome(u)
	if err != nil {
		return false, err
	}
	w.shared.unsure = nil
	ours := len(batch) > 0 && len(u.batch) > 0 && batch[0] == u.batch[0]
	switch {
	case !made:
		w.handovers.unsettle(0)
	case !sure:
		// Rather twice than not at all: what it has recorded is recorded again, and
		// what it owes is queued if its list is there.
		w.handovers.unsettle(0)
		if u.made != nil {
			w.shared.late = append(w.shared.late, u.made)
		}
		if ours {
			return false, errors.Join(errAmbiguous, w.recoverLate())
		}
	case ours:
		w.keep(batch, u.made)
	default:
		// Its calls were told that it failed, and so was the dispatcher: what it has
		// handed over goes into the queue.
		w.keep(nil, nil)
		if u.made != nil {
			w.shared.late = append(w.shared.late, u.made)
		}
	}
	return made && ours, w.recoverLate()
}

// errAmbiguous is the end of a commit that nobody can tell any more.
var errAmbiguous = errors.New("the server has crashed under a commit, which it may have made or not")

// outcome asks what became of a transaction. One that the server has never heard
// of died with another server.
//
// A server that crashes forgets a transaction of which nothing has reached its log,
// and gives its number to another after that. So if it has crashed since, and says
// that the number was committed, it is not sure whose that is.
func (w *writer) outcome(u *unsure) (committed, sure bool, err error) {
	for end := w.s.cfg.Now().Add(w.shared.patience); ; {
		var status sql.NullString
		var life float64
		err := w.conn.QueryRowContext(context.Background(), `select pg_xact_status($1::text::xid8), `+lifeOfServer, u.xid).Scan(&status, &life)
		crashed := u.life == 0 || life != u.life
		switch {
		case postgresCode(err) == "22023":
			return false, true, nil
		case err != nil:
			return false, false, fmt.Errorf("ask for the outcome of a commit: %w", err)
		case status.String != "in progress" || crashed:
			return status.String == "committed", !crashed, nil
		case w.s.cfg.Now().After(end):
			return false, false, errors.New("ask for the outcome of a commit: the server is still at it")
		}
		<-time.After(20 * time.Millisecond)
	}
}

// recoverLate queues what lists owe whose commits were found out about too late.
func (w *writer) recoverLate() error {
	for late := w.shared.late; len(late) > 0; late = late[1:] {
		w.shared.late = nil
		c := &call{fn: func(t *tx) error { return t.recoverLate(late[0]) }}
		err := w.try([]*call{c})
		if err == nil {
			err = c.err
		}
		if err != nil {
			w.shared.late = late
			return fmt.Errorf("queue what an unsure commit has owed: %w", err)
		}
		w.report([]*call{c})
	}
	return nil
}

// recoverLate queues what a list owes if it was made. After a crash another node may
// have made one of its number.
func (t *tx) recoverLate(h *handover) error {
	var made bool
	err := t.row(`select exists (select 1 from handovers where handover_id = $1 and owner = $2)`, h.id, h.owner).Scan(&made)
	if err != nil || !made {
		return err
	}
	return t.recoverList(h.id)
}

// postpone defers a statement.
func (w *writer) postpone(what, text string, args []any) error {
	if w.shared.err != nil {
		return w.shared.err
	}
	// The driver sends a statement faster that it knows.
	if _, w.shared.err = w.stmt(text); w.shared.err == nil {
		w.s.dialect.texts(args)
		w.shared.deferred = append(w.shared.deferred, deferred{what, text, args})
	}
	return w.shared.err
}

// flush sends what was deferred, together.
func (w *writer) flush() error {
	if w.shared.err != nil || len(w.shared.deferred) == 0 {
		return w.shared.err
	}
	return w.send("")
}

// send sends what was deferred and then last, if that is not empty.
func (w *writer) send(last string) error {
	s := &w.shared
	if s.err != nil {
		return s.err
	}
	var list []deferred
	if list, s.err = merge(s.deferred); s.err == nil && last != "" {
		_, s.err = w.stmt(last)
		list = append(list, deferred{what: last, text: last})
	}
	if s.err == nil {
		s.err = w.session(func(c *pgx.Conn) error {
			b := &pgx.Batch{}
			for i := range list {
				b.Queue(list[i].text, list[i].args...)
			}
			results := c.SendBatch(context.Background(), b)
			for i := range list {
				if _, err := results.Exec(); err != nil {
					_ = results.Close() // the same error
					return changeError(list[i].what, err)
				}
			}
			return results.Close()
		})
	}
	clear(s.deferred)
	s.deferred = s.deferred[:0]
	return s.err
}

// execMany runs a statement on a server once for each row of arguments, all in one
// round trip, and returns how many rows each of them has changed.
func (t *tx) execMany(q string, args [][]any) ([]int64, error) {
	if len(args) == 0 {
		return nil, nil
	}
	b := &pgx.Batch{}
	for _, row := range args {
		if _, err := t.stmt(q, row); err != nil {
			return nil, err
		}
		b.Queue(q, row...)
	}
	counts := make([]int64, len(args))
	return counts, t.w.session(func(c *pgx.Conn) error {
		results := c.SendBatch(context.Background(), b)
		for i := range counts {
			tag, err := results.Exec()
			if err != nil {
				_ = results.Close() // the same error
				return err
			}
			counts[i] = tag.RowsAffected()
		}
		return results.Close()
	})
}

// asked is a query with what to do with each of its rows.
type asked struct {
	text string
	args []any
	scan func(scanner) error
}

// queue adds the query to what is sent together.
func (q asked) queue(b *pgx.Batch) {
	b.Queue(q.text, q.args...).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			if err := q.scan(rows); err != nil {
				return err
			}
		}
		return rows.Err()
	})
}

// ask runs queries on a server, all in one round trip.
func (t *tx) ask(list []asked) error {
	if len(list) == 0 {
		return nil
	}
	b := &pgx.Batch{}
	for i := range list {
		if _, err := t.stmt(list[i].text, list[i].args); err != nil {
			return err
		}
		list[i].queue(b)
	}
	return t.w.session(func(c *pgx.Conn) error { return c.SendBatch(context.Background(), b).Close() })
}
