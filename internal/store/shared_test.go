package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/ticket"
	"github.com/ticketwire/ticketwire/test/postgres"
)

// relay stands between a store and its server, and breaks what goes through.
type relay struct {
	network, server string
	mode            atomic.Int32
	mu              sync.Mutex
	open            map[net.Conn]bool
	all             sync.WaitGroup
}

// What a relay does.
const (
	relayAll         = iota
	dropBeforeCommit // ends the connection in place of the next commit
	dropAfterCommit  // ends it in place of the answer to the next commit
	dropAndRefuse    // the same, and lets nobody in afterwards
	refuseAll
)

// throughRelay returns the place behind a relay.
func throughRelay(t *testing.T, p place) (place, *relay) {
	t.Helper()
	cfg, err := pgx.ParseConfig(p.url)
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{open: map[net.Conn]bool{}}
	r.network, r.server = pgconn.NetworkAddress(cfg.Host, cfg.Port)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if r.mode.Load() == refuseAll {
				c.Close()
				continue
			}
			r.all.Go(func() { r.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		r.cut()
		r.all.Wait()
	})
	host, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return place{dir: p.dir, url: fmt.Sprintf("host=%s port=%s user=%s password='%s' dbname=%s sslmode=disable",
		host, port, cfg.User, cfg.Password, cfg.Database)}, r
}

// cut ends all connections.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.open {
		c.Close()
	}
}

func (r *relay) serve(client net.Conn) {
	server, err := net.Dial(r.network, r.server)
	if err != nil {
		client.Close()
		return
	}
	r.mu.Lock()
	r.open[client], r.open[server] = true, true
	r.mu.Unlock()
	var mute atomic.Bool
	var both sync.WaitGroup
	both.Go(func() { r.forward(client, server, &mute) })
	buf := make([]byte, 1<<16)
	for {
		n, err := server.Read(buf)
		if n > 0 && !mute.Load() {
			_, err = client.Write(buf[:n])
		}
		if err != nil || mute.Load() {
			break
		}
	}
	client.Close()
	server.Close()
	both.Wait()
	r.mu.Lock()
	delete(r.open, client)
	delete(r.open, server)
	r.mu.Unlock()
}

// forward passes on what the client says.
func (r *relay) forward(client, server net.Conn, mute *atomic.Bool) {
	// The driver sends the name that it has given to the prepared statement, and
	// through a pooler its text.
	digest := sha256.Sum256([]byte("commit"))
	name, text := []byte("stmt_"+hex.EncodeToString(digest[:24])), []byte("\x00commit\x00")
	buf := make([]byte, 1<<16)
	for {
		n, err := client.Read(buf)
		if bytes.Contains(buf[:n], name) || bytes.Contains(buf[:n], text) {
			switch r.mode.Load() {
			case dropBeforeCommit:
				r.mode.Store(relayAll)
				client.Close()
				server.Close()
				return
			case dropAfterCommit:
				r.mode.Store(relayAll)
				mute.Store(true)
			case dropAndRefuse:
				r.mode.Store(refuseAll)
				mute.Store(true)
			}
		}
		if n > 0 {
			if _, werr := server.Write(buf[:n]); werr != nil {
				return
			}
		}
		if err != nil {
			server.Close()
			return
		}
	}
}

// What a commit has made is known, whenever the connection ends: the call that
// waits for it learns the truth, and nothing is made twice or lost.
func TestTheOutcomeOfACommitIsKnown(t *testing.T) {
	t.Parallel()
	for where, relayed := range map[string]func(*testing.T) (place, *relay){
		"postgres":        func(t *testing.T) (place, *relay) { return throughRelay(t, onPostgres(t)) },
		"before a pooler": func(t *testing.T) (place, *relay) { return throughRelay(t, pooled(t, onPostgres(t))) },
		"behind a pooler": func(t *testing.T) (place, *relay) {
			p, r := throughRelay(t, onPostgres(t))
			return pooled(t, p), r
		},
	} {
		for when, mode := range map[string]int32{"before the commit": dropBeforeCommit, "after the commit": dropAfterCommit} {
			t.Run(where+"/"+when, func(t *testing.T) {
				t.Parallel()
				p, r := relayed(t)
				outcomeIsKnown(t, p, r, mode)
			})
		}
	}
}

func outcomeIsKnown(t *testing.T, p place, r *relay, mode int32) {
	t.Helper()
	d := newDesk(t, openAt(t, p, guide), "acme")
	l, k := d.hook(start()), d.take()
	r.mode.Store(mode)
	d.create(start(), d.draft("one"))
	if r.mode.Load() != relayAll {
		t.Fatal("the connection did not end")
	}
	if n := d.count("tickets"); n != 1 || len(k.got) != 1 || k.reserved-k.cancelled != 1 {
		t.Fatalf("%d tickets, %d handed over, %d reserved", n, len(k.got), k.reserved-k.cancelled)
	}
	r.mode.Store(mode)
	if rec := l.answer(l.batch(k.got[0]), status(200), start()); rec[0].Fenced {
		t.Error("its result was refused")
	}
	if log := l.log(DeliveryQuery{Status: "delivered"}); len(log) != 1 || d.count("deliveries") != 1 || d.count("handovers") != 0 {
		t.Errorf("%d delivered, %d rows, %d lists", len(log), d.count("deliveries"), d.count("handovers"))
	}
	if w := must(d.Webhook(t.Context(), d.TenantID, l.hook.WebhookID))(t); w.TotalDeliveries != 1 {
		t.Errorf("%d counted", w.TotalDeliveries)
	}
}

// When the server does not come back in time the call fails, and its change may
// have been made all the same. Then what it owes is sent.
func TestWhatAnUnsureCommitOwesIsSent(t *testing.T) {
	t.Parallel()
	onServers(t, unsureCommitOwes)
}

func unsureCommitOwes(t *testing.T, p place) {
	p, r := throughRelay(t, p)
	s := openAt(t, p, guide)
	s.writer.shared.patience = 100 * time.Millisecond // its goroutine waits for a call
	d := newDesk(t, s, "acme")
	l, k := d.hook(start()), d.take()
	d.create(start(), d.draft("before"))
	r.mode.Store(dropAndRefuse)
	_, err := d.CreateTicket(t.Context(), start(), d.Actor, d.draft("unsure"))
	wantKind(t, "a commit without an answer", err, fault.Unavailable)
	if len(k.got) != 1 || k.reserved-k.cancelled != 1 {
		t.Errorf("%d handed over, %d reserved", len(k.got), k.reserved-k.cancelled)
	}
	if err := d.Ping(t.Context()); err == nil {
		t.Error("the store says that it is well")
	}
	r.mode.Store(relayAll)
	d.create(start(), d.draft("after"))
	if n := d.count("tickets"); n != 3 || len(k.got) != 2 {
		t.Errorf("%d tickets, %d handed over", n, len(k.got))
	}
	if b := l.claimOne(start()); len(b.Deliveries) != 1 {
		t.Errorf("claimed %+v", b)
	}
	if err := d.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// Calls that wait behind a batch that has waited for a server in vain are told that
// nothing became of them.
func TestWhatWaitsForAServerInVain(t *testing.T) {
	t.Parallel()
	onServers(t, waitsInVain)
}

func waitsInVain(t *testing.T, p place) {
	p, r := throughRelay(t, p)
	s := openAt(t, p, guide, func(c *Config) { c.CommitLimit = 1 })
	s.writer.shared.patience = 100 * time.Millisecond // its goroutine waits for a call
	d := newDesk(t, s, "acme")
	busy, free := make(chan struct{}), make(chan struct{})
	errs := make(chan error, 3)
	go func() {
		var once sync.Once
		errs <- d.do(context.Background(), func(*tx) error { once.Do(func() { close(busy); <-free }); return nil })
	}()
	<-busy
	for range 2 {
		go func() { errs <- d.creates(context.Background(), "waits")() }()
	}
	for len(d.writer.calls) < 2 {
		runtime.Gosched()
	}
	r.mode.Store(refuseAll)
	r.cut()
	close(free)
	for range 3 {
		wantKind(t, "a call without a server", <-errs, fault.Unavailable)
	}
	r.mode.Store(relayAll)
	d.create(start(), d.draft("after"))
	var n int // by a connection that was not cut
	if err := beside(t, s, guide).read.QueryRowContext(t.Context(), `select count(*) from tickets`).Scan(&n); err != nil || n != 1 {
		t.Errorf("%d tickets (%v)", n, err)
	}
}

// A server that is killed forgets a transaction of which nothing has reached its log,
// and gives its number to another. The one that was forgotten is not taken for made.
func TestTheNumberOfALostTransactionIsAnothers(t *testing.T) {
	t.Parallel()
	server := postgres.Own(t)
	p := place{dir: t.TempDir(), url: server.URL()}
	lost, other := openAt(t, p, guide), openAt(t, p, guide)
	status := func(s *Store, xid string) (status string) {
		t.Helper()
		if err := s.side.QueryRowContext(t.Context(), `select coalesce(pg_xact_status($1::text::xid8), '')`, xid).Scan(&status); err != nil && postgresCode(err) != "22023" {
			t.Fatal(err)
		}
		return status
	}
	mail := func(id string) func(*tx) error {
		return func(x *tx) error {
			_, err := x.exec(`insert into mail_outbox (mail_id, tenant_id, dedupe_key, recipient, subject, text_body, html_body, due_at, created_at)
				values ($1, 't', $1, 'r', 's', 't', 'h', 0, 0)`, id)
			return err
		}
	}
	reused := false
	for try := range 20 {
		id, killed := fmt.Sprint("mail ", try), false
		err := lost.do(t.Context(), func(x *tx) error {
			if err := mail(id)(x); err != nil || killed {
				return err
			}
			killed = true
			xid := x.w.shared.xid
			server.Stop(t, "QUIT")
			server.Start(t)
			if err := other.do(t.Context(), mail(id+" of another")); err != nil {
				return err
			}
			reused = reused || status(other, xid) == "committed"
			return nil
		})
		var kept int
		if serr := other.reader(t.Context()).row(`select count(*) from mail_outbox where mail_id = $1`, id).Scan(&kept); serr != nil {
			t.Fatal(serr)
		}
		if err == nil && kept != 1 || err != nil && !fault.Is(err, fault.Unavailable) {
			t.Errorf("the call returned %v and left %d rows", err, kept)
		}
		if reused {
			return
		}
	}
	t.Error("no number was given again: nothing is proven")
}

// A server that takes over from another may not have come to the number of a
// transaction yet: that one died with the other, and is made again.
func TestANumberThatTheServerHasNotGiven(t *testing.T) {
	t.Parallel()
	onServers(t, func(t *testing.T, p place) {
		p, r := throughRelay(t, p)
		d := newDesk(t, openAt(t, p, guide), "acme")
		r.mode.Store(dropBeforeCommit)
		runs := 0
		err := d.do(t.Context(), func(x *tx) error {
			if runs++; runs == 1 {
				x.w.shared.xid = "1000000000000"
			}
			_, err := x.exec(`insert into mail_outbox (mail_id, tenant_id, dedupe_key, recipient, subject, text_body, html_body, due_at, created_at)
				values ('m', 't', 'm', 'r', 's', 't', 'h', 0, 0)`)
			return err
		})
		if n := d.count("mail_outbox"); err != nil || runs != 2 || n != 1 {
			t.Errorf("the call returned %v after %d runs and left %d rows", err, runs, n)
		}
	})
}

// When the server has crashed since, the number of a transaction may be another's, so
// that it was committed says nothing: the call fails, does not run again, and what it
// owes is sent if it was made.
func TestACommitUnderACrashIsAmbiguous(t *testing.T) {
	t.Parallel()
	onServers(t, ambiguousCommit)
}

func ambiguousCommit(t *testing.T, p place) {
	direct := openAt(t, p, guide)
	behind, r := throughRelay(t, p)
	s := openAt(t, behind, guide)
	d := newDesk(t, s, "acme")
	l, k := d.hook(start()), d.take()
	d.create(start(), d.draft("before"))
	r.mode.Store(dropAndRefuse)
	done := make(chan error, 1)
	go func() {
		_, err := d.CreateTicket(t.Context(), start(), d.Actor, d.draft("unsure"))
		done <- err
	}()
	count := func() (n int) {
		t.Helper()
		if err := direct.side.QueryRowContext(t.Context(), `select count(*) from tickets`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for end := time.Now().Add(20 * time.Second); count() < 2 && time.Now().Before(end); <-time.After(time.Millisecond) {
		continue
	}
	// As a crash leaves the table.
	if _, err := direct.side.ExecContext(t.Context(), `truncate lives`); err != nil {
		t.Fatal(err)
	}
	r.mode.Store(relayAll)
	wantKind(t, "a commit under a crash", <-done, fault.Unavailable)
	d.create(start(), d.draft("after"))
	if n := count(); n != 3 || len(k.got) != 2 {
		t.Errorf("%d tickets, %d handed over", n, len(k.got))
	}
	if b := l.claimOne(start()); len(b.Deliveries) != 1 {
		t.Errorf("claimed %+v", b)
	}
}

// Sessions that are terminated under load, and transactions that the server gives
// up (class 40), cost nobody anything: what was acknowledged is there once.
func TestTerminatedSessionsLoseNothing(t *testing.T) {
	t.Parallel()
	onServers(t, terminatedSessions)
}

func terminatedSessions(t *testing.T, p place) {
	d := newDesk(t, openAt(t, p), "acme")
	for _, q := range []string{
		`create function unlucky() returns trigger language plpgsql as $$ begin
			if random() < 0.05 then raise exception 'could not serialize access' using errcode = '40001'; end if; return new; end $$`,
		`create trigger unlucky before insert on events for each row execute function unlucky()`,
	} {
		if _, err := d.read.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	const writers, changes = 8, 40
	var acknowledged, failed atomic.Int64
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for n := range changes {
				_, err := d.CreateTicket(context.Background(), start(), d.Actor, d.draft(fmt.Sprint(i, " ", n)))
				switch {
				case err == nil:
					acknowledged.Add(1)
				case fault.Is(err, fault.Unavailable):
					failed.Add(1)
				default:
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	operator := openAt(t, p)
	kills := 0
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		case <-time.After(20 * time.Millisecond):
			kills++
			// All sessions of the database but the operator's own.
			_, _ = operator.read.ExecContext(t.Context(), `select pg_terminate_backend(pid) from pg_stat_activity
				where datname = current_database() and pid <> pg_backend_pid()`) // it may meet the operator's next session
		}
	}
	t.Logf("%d acknowledged, %d failed, sessions terminated %d times", acknowledged.Load(), failed.Load(), kills)
	titles, twice := 0, 0
	err := d.reader(t.Context()).row(`select count(distinct title), count(*) - count(distinct title) from tickets`).Scan(&titles, &twice)
	if err != nil {
		t.Fatal(err)
	}
	if int64(titles) < acknowledged.Load() || titles > writers*changes || twice > 0 {
		t.Errorf("%d acknowledged, %d there, %d of them twice", acknowledged.Load(), titles, twice)
	}
	if events := d.count("events"); events != titles {
		t.Errorf("%d tickets and %d events", titles, events)
	}
}

// A session that the server has ended while nobody used it refuses no read.
func TestReadsOutliveTheirSessions(t *testing.T) {
	t.Parallel()
	onServers(t, func(t *testing.T, p place) {
		d := newDesk(t, openAt(t, p), "acme")
		d.create(start(), d.draft("one"))
		operator := openAt(t, p)
		// As many sessions as there may be, all in use at once.
		atOnce := func(query string) {
			t.Helper()
			var wg sync.WaitGroup
			for range 2 * d.read.Stats().MaxOpenConnections {
				wg.Go(func() {
					if _, err := d.ListTickets(t.Context(), d.TenantID, ticket.Query{Search: query}, ""); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
		}
		for range 5 {
			atOnce("one")
			must(operator.read.ExecContext(t.Context(), `select pg_terminate_backend(pid) from pg_stat_activity
				where datname = current_database() and pid <> pg_backend_pid() and state = 'idle'`))(t)
			atOnce("one")
		}
	})
}

// PostgreSQL keeps no byte 0 in a text, and nothing that is not UTF-8.
func TestTextsThatPostgresDoesNotTake(t *testing.T) {
	t.Parallel()
	d := newDesk(t, openAt(t, onPostgres(t)), "acme")
	l := d.hook(start())
	d.create(start(), d.draft("one"))
	must(d.SearchTickets(t.Context(), d.TenantID, ticket.SearchQuery{Text: "\x00", Limit: 10}))(t)
	a := status(200)
	a.Body = "\x00\xfe"
	l.answer(l.claimOne(start()), a, start())
	if got := l.log(DeliveryQuery{})[0].ResponseBody; got != strings.Repeat("\uFFFD", 2) {
		t.Errorf("answer stored as %q", got)
	}
}

// One of many statements, or of many questions, that fails takes its call with it
// and nobody else's, and the connection is good for the next.
func TestManyAtOnceFailAlone(t *testing.T) {
	t.Parallel()
	onServers(t, func(t *testing.T, p place) {
		s := openAt(t, p)
		n := 0
		mail := func(id string) []any { return []any{id, "1"} }
		insert := func(rows ...[]any) func() error {
			return func() error {
				return s.do(t.Context(), func(tx *tx) error {
					counts, err := tx.execMany(`insert into mail_outbox (mail_id, tenant_id, dedupe_key, recipient, subject, text_body,
						html_body, due_at, created_at) values ($1, 't', $1, 'r', 's', 't', 'h', 1 / $2::text::int, 0)`, rows)
					if err == nil && len(counts) != len(rows) {
						err = fmt.Errorf("%d counts", len(counts))
					}
					return err
				})
			}
		}
		ask := func(divisor string, scan func(scanner) error) func() error {
			q := asked{`select 1 / $1::text::int from gate`, []any{"1"}, func(row scanner) error { return row.Scan(&n) }}
			return func() error {
				return s.do(t.Context(), func(tx *tx) error {
					return tx.ask([]asked{q, {q.text, []any{divisor}, scan}, q})
				})
			}
		}
		scanned := func(row scanner) error { return row.Scan(&n) }
		failing := func(what string, fn func() error) func() error {
			return func() error {
				if err := fn(); err == nil || strings.Contains(err.Error(), "try again") {
					return fmt.Errorf("%s: %w", what, err)
				}
				return nil
			}
		}
		calls := []func() error{
			insert(mail("a"), mail("b")),
			failing("a question", ask("0", scanned)),
			insert(mail("c")),
			failing("a statement", insert(mail("never"), []any{"nor", "0"}, mail("nor this"))),
			ask("1", scanned),
			failing("a scan", ask("1", func(scanner) error { return errLate })),
			insert(mail("d")),
		}
		for _, call := range calls[1:6] { // alone
			if err := call(); err != nil {
				t.Error(err)
			}
		}
		if _, err := s.read.Exec(`delete from mail_outbox`); err != nil {
			t.Fatal(err)
		}
		if err := together(t, s, calls...); err != nil {
			t.Error(err)
		}
		var ids string
		if err := s.read.QueryRow(`select string_agg(mail_id, ' ' order by mail_id) from mail_outbox`).Scan(&ids); err != nil || ids != "a b c d" {
			t.Errorf("%q was kept, %v", ids, err)
		}
	})
}
