package inbox_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite"

	"github.com/ticketwire/ticketwire/inbox"
	"github.com/ticketwire/ticketwire/webhook"
)

const secret = "the signing secret that creating the webhook returned"

// openSQLite opens a database as the package comment recommends.
func openSQLite() (db *sql.DB, remove func(), err error) {
	dir, err := os.MkdirTemp("", "inbox-example-")
	if err != nil {
		return nil, nil, err
	}
	db, err = sql.Open("sqlite", "file:"+filepath.Join(dir, "receiver.db")+
		"?_pragma=busy_timeout(10000)&_pragma=journal_mode(wal)&_pragma=synchronous(full)")
	return db, func() { _ = errors.Join(db.Close(), os.RemoveAll(dir)) }, err
}

// send does what the sender does.
func send(h http.Handler, id string) {
	body := fmt.Appendf(nil, `{"event_id":%q,"event_type":"ticket.created","occurred_at":"2026-03-09T08:14:02.140Z",`+
		`"tenant_id":"7c1d2f0a-5b64-4e0e-9a3b-2f6d8c41e7b5","data":{"ticket_id":"e2a94b77-6f10-4c58-8d3e-90b1c2d3e4f5"}}`, id)
	req := httptest.NewRequest(http.MethodPost, "/webhooks/alga", bytes.NewReader(body))
	req.Header.Set(webhook.SignatureHeader, webhook.Sign(secret, time.Now(), body))
	req.Header.Set(webhook.EventIDHeader, id)
	req.Header.Set(webhook.EventTypeHeader, webhook.TicketCreated)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	fmt.Fprintln(os.Stdout, w.Code, w.Body)
}

// A receiver that takes events at once and works on them in its own time.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	db, remove, err := openSQLite()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer remove()
	box, err := inbox.Open(ctx, inbox.Config{DB: db, Dialect: inbox.SQLite})
	if err != nil {
		fmt.Println(err)
		return
	}
	handler := webhook.NewInboxHandler(webhook.NewSecretList(secret).All, box.Keep)
	send(handler, "4f0c2f5e-9b1d-4c77-9f0e-000000000001")
	send(handler, "4f0c2f5e-9b1d-4c77-9f0e-000000000001") // a retry

	done := make(chan struct{})
	go func() {
		defer close(done)
		box.Work(ctx, func(_ context.Context, e *webhook.Envelope) error {
			fmt.Println("processing", e.EventType)
			cancel() // for the example: one event is enough
			return nil
		}, inbox.Work{})
	}()
	<-done
	stats, err := box.Stats(context.Background())
	fmt.Println(stats.Queued, err)
	// Output:
	// 200 ok: kept
	//
	// 200 ok: duplicate
	//
	// processing ticket.created
	// 0 <nil>
}

// Effects in the database of the inbox happen exactly once: they are committed
// with the mark, or not at all.
func ExampleInbox_FinishTx() {
	ctx := context.Background()
	db, remove, err := openSQLite()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer remove()
	box, err := inbox.Open(ctx, inbox.Config{DB: db, Dialect: inbox.SQLite})
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := db.ExecContext(ctx, `create table invoices (event_id text)`); err != nil {
		fmt.Println(err)
		return
	}
	react := func(ctx context.Context, e *webhook.Envelope) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }() // does nothing after a commit
		if _, err := tx.ExecContext(ctx, `insert into invoices (event_id) values ($1)`, e.EventID); err != nil {
			return err
		}
		if err := box.FinishTx(ctx, tx, time.Now(), e.Claim); err != nil {
			return err
		}
		return tx.Commit()
	}
	// It works in a handler that reacts while the sender waits, as here, and in
	// Work.
	handler := webhook.NewHandler(webhook.NewSecretList(secret).All, react, webhook.WithDeduper(box))
	send(handler, "4f0c2f5e-9b1d-4c77-9f0e-000000000001")
	send(handler, "4f0c2f5e-9b1d-4c77-9f0e-000000000001")
	var n int
	err = db.QueryRowContext(ctx, `select count(*) from invoices`).Scan(&n)
	fmt.Println(n, err)
	// Output:
	// 200 ok
	//
	// 200 ok: duplicate
	//
	// 1 <nil>
}

// What failed in every attempt waits for a person.
func ExampleInbox_DeadLetters() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	db, remove, err := openSQLite()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer remove()
	box, err := inbox.Open(ctx, inbox.Config{DB: db, Dialect: inbox.SQLite, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println(err)
		return
	}
	send(webhook.NewInboxHandler(webhook.NewSecretList(secret).All, box.Keep), "4f0c2f5e-9b1d-4c77-9f0e-000000000001")
	box.Work(ctx, func(context.Context, *webhook.Envelope) error { return errors.New("no such customer") }, inbox.Work{
		Attempts: 2,
		Backoff:  func(int) time.Duration { return time.Millisecond },
		Observe: func(_ context.Context, r inbox.Result) {
			fmt.Println("attempt", r.Attempt, r.Outcome, r.Dead)
			if r.Dead {
				cancel()
			}
		},
	})
	ctx = context.Background()
	letters, err := box.DeadLetters(ctx, inbox.DeadLetter{}, 100)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, l := range letters {
		fmt.Println(l.Key.EventType, l.Attempts, l.Error)
		fmt.Println(box.Replay(ctx, time.Now(), l.Key))
	}
	stats, err := box.Stats(ctx)
	fmt.Println(stats.Queued, stats.Dead, err)
	// Output:
	// 200 ok: kept
	//
	// attempt 1 reaction_failed false
	// attempt 2 reaction_failed true
	// ticket.created 2 no such customer
	// <nil>
	// 1 0 <nil>
}
