package alga_test

import (
	"context"
	"database/sql"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/inbox"
	"github.com/ticketwire/ticketwire/test/alga"
	"github.com/ticketwire/ticketwire/test/pipe"
)

func TestMain(m *testing.M) {
	if os.Getenv(receiverDB) != "" { // see kill_test.go
		panic(receive()) // it returns only when it could not start
	}
	goleak.VerifyTestMain(m)
}

// place is the desk in fake time, with a receiver that its sender can reach.
type place struct {
	*alga.Server
	t    *testing.T
	http *http.Client // to the desk
	api  *client.Client

	mu       sync.Mutex
	receiver http.Handler // nil: nobody listens
}

// start makes the desk. It must be called inside a synctest bubble.
func start(t *testing.T, cfg alga.Config) *place {
	t.Helper()
	api, hook := pipe.Listen(), pipe.Listen()
	outbound := &http.Transport{DialContext: hook.Dial}
	cfg.Listener, cfg.Transport = api, outbound
	p := &place{t: t, http: &http.Client{Transport: &http.Transport{DialContext: api.Dial}}}
	p.Server = alga.Start(t, cfg)
	server := &http.Server{Handler: http.HandlerFunc(p.serve), ReadHeaderTimeout: time.Minute}
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(hook) }) // it ends with Close
	var err error
	if p.api, err = client.New(p.URL, alga.Key, client.WithHTTPClient(p.http)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		outbound.CloseIdleConnections()
		p.http.CloseIdleConnections()
		server.Close()
		running.Wait()
	})
	return p
}

// listen replaces the receiver; nil breaks every connection off.
func (p *place) listen(h http.Handler) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.receiver = h
}

func (p *place) serve(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	h := p.receiver
	p.mu.Unlock()
	if h == nil {
		panic(http.ErrAbortHandler)
	}
	h.ServeHTTP(w, r)
}

// hookURL is the address of the receiver.
const hookURL = "http://receiver.example/webhooks/alga"

// openInbox opens the inbox in a file, as a process that has just started does,
// and returns how that process ends.
func openInbox(t *testing.T, file string) (*inbox.Inbox, *sql.DB, func()) {
	t.Helper()
	db, err := openDB(file)
	if err != nil {
		t.Fatal(err)
	}
	box, err := inbox.Open(t.Context(), inbox.Config{DB: db, Dialect: inbox.SQLite, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	return box, db, func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}

func openDB(file string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", "file:"+filepath.ToSlash(file)+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(wal)&_pragma=synchronous(full)")
	if err != nil {
		return nil, err
	}
	_, err = db.ExecContext(context.Background(), `create table if not exists effects (event_id text not null, event_type text not null, stale bigint not null)`)
	return db, err
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func ptr[T any](v T) *T { return &v }
