package inbox

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/ticketwire/ticketwire/test/postgres"
	"github.com/ticketwire/ticketwire/webhook"
)

func TestMain(m *testing.M) {
	if os.Getenv(receiverDSN) != "" { // see crash_test.go
		panic(receive()) // it returns only when it could not start
	}
	goleak.VerifyTestMain(m)
}

// place is an empty database for one test.
type place struct {
	dialect Dialect
	dsn     string
	prefix  string
}

func (p place) driver() string {
	if p.dialect == SQLite {
		return "sqlite"
	}
	return "pgx"
}

// impatient is the place with a database that waits for a lock only briefly.
func (p place) impatient() place {
	switch {
	case p.dialect == SQLite:
		p.dsn = strings.Replace(p.dsn, "busy_timeout(10000)", "busy_timeout(100)", 1)
	case !strings.Contains(p.dsn, "://"):
		p.dsn += " lock_timeout=100ms"
	case strings.Contains(p.dsn, "?"):
		p.dsn += "&lock_timeout=100ms"
	default:
		p.dsn += "?lock_timeout=100ms"
	}
	return p
}

func (p place) pool(t testing.TB) *sql.DB {
	t.Helper()
	db, err := p.connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func (p place) connect() (*sql.DB, error) {
	db, err := sql.Open(p.driver(), p.dsn)
	if err == nil {
		db.SetMaxOpenConns(8)
		db.SetMaxIdleConns(8)
	}
	return db, err
}

// open opens the inbox of the place, with a pool of its own as another process
// would have.
func (p place) open(t testing.TB, change ...func(*Config)) *Inbox {
	t.Helper()
	cfg := Config{DB: p.pool(t), Dialect: p.dialect, Prefix: p.prefix, Log: slog.New(slog.DiscardHandler)}
	for _, c := range change {
		c(&cfg)
	}
	b, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sqlitePlace(t testing.TB) place {
	t.Helper()
	return place{
		dialect: SQLite, prefix: DefaultPrefix,
		dsn: "file:" + filepath.Join(t.TempDir(), "inbox.db") + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(wal)&_pragma=synchronous(full)",
	}
}

// behaviours hold on every database. Each gets a place of its own.
var behaviours = map[string]func(*testing.T, place){
	"claim":              testClaim,
	"claim model":        testClaimModel,
	"copies":             testCopies,
	"stale claim":        testStaleClaim,
	"open":               testOpenTogether,
	"keep":               testKeep,
	"keep and claim":     testKeepAndClaim,
	"poison":             testPoison,
	"discard":            testDiscard,
	"takeover":           testTakeover,
	"last attempt":       testLastAttempt,
	"transaction":        testTransaction,
	"handler in its tx":  testHandlerTransaction,
	"order":              testOrder,
	"order model":        testOrderModel,
	"keep beside work":   testKeepBesideWork,
	"skip stale":         testSkipStale,
	"drain":              testDrain,
	"commit fails":       testCommitFails,
	"given back":         testGivenBack,
	"locked":             testLocked,
	"away":               testAway,
	"purge":              testPurge,
	"purge along":        testPurgeAlong,
	"sender like Alga's": testAlga,
	"kills":              testKills,
}

func TestSQLite(t *testing.T) {
	t.Parallel()
	for name, behaviour := range behaviours {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			behaviour(t, sqlitePlace(t))
		})
	}
}

func TestPostgreSQL(t *testing.T) {
	t.Parallel()
	dsn := postgres.Start(t)
	n := 0
	for name, behaviour := range behaviours {
		n++
		p := place{dialect: PostgreSQL, dsn: dsn, prefix: fmt.Sprintf("t%d_", n)}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			behaviour(t, p)
		})
	}
}

const (
	testSecret = "kQ3v9xTn2b7LwUeYp0sJ4hGdR8aFzCmE1iOoXtVuNqA"
	patience   = 30 * time.Second
)

// start is when the tests begin, on a wire millisecond.
func start() time.Time { return time.Date(2026, 3, 4, 5, 6, 7, 891e6, time.UTC) }

// bodyOf makes the body of an event; data is the inside of the object.
func bodyOf(id, eventType string, occurred time.Time, data string) []byte {
	return fmt.Appendf(nil, `{"event_id":%q,"event_type":%q,"occurred_at":%q,"tenant_id":"t","data":{%s}}`,
		id, eventType, webhook.At(occurred), data)
}

// event makes an event of a ticket; "" for none.
func event(t testing.TB, id, ticket string, occurred time.Time) (*webhook.Envelope, []byte) {
	t.Helper()
	data := ""
	if ticket != "" {
		data = fmt.Sprintf(`"ticket_id":%q`, ticket)
	}
	body := bodyOf(id, webhook.TicketUpdated, occurred, data)
	return parsed(t, body), body
}

func parsed(t testing.TB, body []byte) *webhook.Envelope {
	t.Helper()
	e, err := webhook.Parse(request(body).Header, body)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// sign sets the headers of a delivery.
func sign(h http.Header, body []byte) {
	var e struct {
		ID   string `json:"event_id"`
		Type string `json:"event_type"`
	}
	_ = json.Unmarshal(body, &e) // the tests write only valid bodies
	h.Set(webhook.SignatureHeader, webhook.Sign(testSecret, time.Now(), body))
	h.Set(webhook.EventIDHeader, e.ID)
	h.Set(webhook.EventTypeHeader, e.Type)
}

// request makes the request of a sender.
func request(body []byte) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/webhooks/alga", bytes.NewReader(body))
	sign(r.Header, body)
	return r
}

// keep puts an event into the inbox.
func keep(t testing.TB, b *Inbox, now time.Time, id, ticket string, occurred time.Time) *webhook.Envelope {
	t.Helper()
	e, body := event(t, id, ticket, occurred)
	state, err := b.Keep(context.Background(), now, e, body)
	if err != nil || state != webhook.Fresh {
		t.Fatalf("Keep(%s) = %s, %v, want fresh", id, state, err)
	}
	return e
}

// work runs the worker until the test ends or stop is called.
func work(t testing.TB, b *Inbox, react webhook.Reaction, w Work) (stop func()) {
	t.Helper()
	if w.Poll == 0 {
		w.Poll = 20 * time.Millisecond
	}
	if w.Backoff == nil {
		w.Backoff = func(int) time.Duration { return time.Millisecond }
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.Work(ctx, react, w)
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// eventually asks until ok is true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	over := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-over:
			t.Fatalf("waited %s in vain: %s", patience, what)
		}
	}
}

// drained waits until nothing is queued.
func drained(t testing.TB, b *Inbox) {
	t.Helper()
	eventually(t, "the queue is empty", func() bool { return stats(t, b).Queued == 0 })
}

func stats(t testing.TB, b *Inbox) Stats {
	t.Helper()
	s, err := b.Stats(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// counter makes a reaction that succeeds and counts.
func counter(n *atomic.Int32) webhook.Reaction {
	return func(context.Context, *webhook.Envelope) error { n.Add(1); return nil }
}

func post(h http.Handler, body []byte) int {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, request(body))
	return w.Code
}

// quiet are the options of handlers under test.
func quiet(more ...webhook.Option) []webhook.Option {
	return append([]webhook.Option{webhook.WithLogger(slog.New(slog.DiscardHandler))}, more...)
}

func secrets() []string { return []string{testSecret} }
