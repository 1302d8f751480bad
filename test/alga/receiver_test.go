package alga_test

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/inbox"
	"github.com/ticketwire/ticketwire/test/alga"
	"github.com/ticketwire/ticketwire/webhook"
)

// effects writes an effect together with the mark of the inbox.
func effects(box *inbox.Inbox, db *sql.DB) webhook.Reaction {
	return func(ctx context.Context, e *webhook.Envelope) error {
		if _, err := e.Ticket(); err != nil {
			return err
		}
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if err := box.FinishTx(ctx, tx, time.Now(), e.Claim); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `insert into effects (event_id, event_type, stale) values ($1, $2, $3)`,
			e.EventID, e.EventType, e.Claim.Stale); err != nil {
			return err
		}
		return tx.Commit()
	}
}

// counted returns how often each event had its effect.
func counted(t *testing.T, db *sql.DB) map[webhook.Key]int {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), `select event_id, event_type from effects`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	out := map[webhook.Key]int{}
	for rows.Next() {
		var k webhook.Key
		if err := rows.Scan(&k.EventID, &k.EventType); err != nil {
			t.Fatal(err)
		}
		out[k]++
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// wantOnce wants one effect for each event that is in want, and no other.
func wantOnce(t *testing.T, got map[webhook.Key]int, want []alga.Event) {
	t.Helper()
	for _, e := range want {
		k := webhook.Key{EventID: e.ID, EventType: e.Type}
		if got[k] != 1 {
			t.Errorf("event %d, %s, had %d effects, want 1", e.N, e.Type, got[k])
		}
		delete(got, k)
	}
	if len(got) != 0 {
		t.Errorf("effects of what nobody sent: %v", got)
	}
}

// running is the receiver of one process.
type running struct {
	handler http.Handler
	db      *sql.DB
	end     func()
}

// ways are the two ways to use the inbox.
var ways = map[string]func(t *testing.T, file string, secret func() []string) running{
	"deduper": func(t *testing.T, file string, secret func() []string) running {
		box, db, end := openInbox(t, file)
		return running{webhook.NewHandler(secret, effects(box, db), webhook.WithDeduper(box), webhook.WithLogger(quiet())), db, end}
	},
	"inbox": func(t *testing.T, file string, secret func() []string) running {
		box, db, end := openInbox(t, file)
		ctx, cancel := context.WithCancel(t.Context())
		var work sync.WaitGroup
		work.Go(func() { box.Work(ctx, effects(box, db), inbox.Work{}) })
		return running{webhook.NewInboxHandler(secret, box.Keep, webhook.WithLogger(quiet())), db, func() {
			cancel()
			work.Wait()
			end()
		}}
	},
}

// A day at a desk, with all that AlgaPSA's sender does to a receiver, and with a
// receiver that fails, hangs up, is away and is started again: each event has its
// effect once.
func TestReceiverAgainstAlgaPSA(t *testing.T) {
	if testing.Short() {
		t.Skip("the database takes minutes under the race detector")
	}
	t.Parallel()
	for way, open := range ways {
		for _, shared := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, shared ids %t", way, shared), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { day(t, shared, open) })
			})
		}
	}
}

func day(t *testing.T, shared bool, open func(t *testing.T, file string, secret func() []string) running) {
	p := start(t, alga.Config{SharedIDs: shared, Fate: func(e alga.Event) alga.Fate {
		switch e.N % 7 {
		case 2:
			return alga.Fate{Copies: 2}
		case 4:
			return alga.Fate{Hold: 20 * time.Minute}
		case 5:
			return alga.Fate{Copies: 1, Hold: 3 * time.Second}
		}
		return alga.Fate{}
	}})
	_, secret := p.Subscribe(hookURL, 1000)
	file := filepath.Join(t.TempDir(), "receiver.db")
	secrets := webhook.NewSecretList(secret).All
	now := open(t, file, secrets)
	p.listen(now.handler)

	busy := func() { // one of everything, some of it in the same minute
		id := p.Create("Printer offline")
		if _, err := p.api.UpdateTicket(t.Context(), id, client.TicketUpdate{Title: client.Set("Printer <on> fire & smoke"), AssignedTo: client.Set(alga.Mara)}); err != nil {
			t.Fatal(err)
		}
		if _, err := p.api.AddComment(t.Context(), id, client.CommentInput{Text: "é \u2028 ✅ </script>", IsInternal: true}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		p.Update(alga.WebUI, alga.Change{Status: ptr(alga.InProgress)}, id)
		p.Update(alga.WebUI, alga.Change{Assign: ptr(alga.Jonas)}, id)
		p.Update(alga.WebUI, alga.Change{Tags: []string{"vip", "printer"}}, id)
		time.Sleep(2 * time.Minute)
		if _, err := p.api.UpdateTicket(t.Context(), id, client.TicketUpdate{StatusID: client.Set(alga.Closed)}); err != nil {
			t.Fatal(err)
		}
		p.Update(alga.WebUI, alga.Change{Status: ptr(alga.Open)}, id)
	}
	busy()
	time.Sleep(time.Minute)
	// It fails for half an hour, then hangs for a minute.
	p.listen(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "deploying", http.StatusBadGateway) }))
	busy()
	time.Sleep(30 * time.Minute)
	p.listen(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then is it told that the sender has hung up
		<-r.Context().Done()
	}))
	busy()
	time.Sleep(time.Minute)
	// It does the work, and the sender does not get the answer.
	behind := now.handler
	p.listen(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		behind.ServeHTTP(new(deaf), r)
		panic(http.ErrAbortHandler)
	}))
	busy()
	time.Sleep(30 * time.Minute)
	// It ends and starts again on its file.
	p.listen(nil)
	busy()
	time.Sleep(time.Minute)
	now.end()
	now = open(t, file, secrets)
	defer func() { now.end() }()
	p.listen(now.handler)
	busy()
	time.Sleep(3 * time.Hour)

	if n := p.Waiting(); n != 0 {
		t.Errorf("%d deliveries wait", n)
	}
	attempts := map[int]int{}
	for _, d := range p.Deliveries() {
		attempts[d.Attempt]++
		if d.State == "abandoned" {
			t.Errorf("event %d was abandoned", d.Event.N)
		}
	}
	if len(attempts) < 4 {
		t.Errorf("attempts %v: the receiver was not away for long enough", attempts)
	}
	wantOnce(t, counted(t, now.db), p.Events())
}

// deaf is an answer that nobody gets.
type deaf struct {
	header http.Header
	status int
}

func (d *deaf) Header() http.Header {
	if d.header == nil {
		d.header = http.Header{}
	}
	return d.header
}
func (d *deaf) Write(b []byte) (int, error) { return len(b), nil }
func (d *deaf) WriteHeader(status int)      { d.status = status }

// collect is a receiver that keeps what it gets.
type collect struct {
	mu  sync.Mutex
	got []*webhook.Envelope
}

func (c *collect) react(_ context.Context, e *webhook.Envelope) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got = append(c.got, e)
	return nil
}

// took returns what came since the last time, in the order of occurred_at.
func (c *collect) took() []*webhook.Envelope {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.got
	c.got = nil
	slices.SortStableFunc(out, func(a, b *webhook.Envelope) int { return a.OccurredAt.Compare(b.OccurredAt.Time) })
	return out
}

// data reads a payload.
func data(t *testing.T, e *webhook.Envelope) *webhook.TicketData {
	t.Helper()
	d, err := e.Ticket()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A second change within a minute ships the row of before it (W5). The payload
// alone would make a reaction act on it; with Refetch it acts on the ticket as it
// is.
func TestStalePayloadsAreRefetched(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := start(t, alga.Config{})
		_, secret := p.Subscribe(hookURL, 0)
		var c collect
		var stale, refetched atomic.Int32
		get := func(ctx context.Context, id string) (*client.Ticket, error) { return p.api.Ticket(ctx, id) }
		p.listen(webhook.NewHandler(webhook.NewSecretList(secret).All, webhook.Refetch(webhook.OldPayload(5*time.Second), get,
			func(ctx context.Context, e *webhook.Envelope, now *client.Ticket) error {
				d := data(t, e)
				truth, err := p.api.Ticket(ctx, d.TicketID)
				if err != nil {
					return err
				}
				sent := *d.Title + ", " + *d.StatusName
				want := *truth.Title + ", " + *truth.StatusName
				acted := sent
				if now != nil {
					refetched.Add(1)
					acted = *now.Title + ", " + *now.StatusName
				}
				if sent != want {
					stale.Add(1)
				}
				if acted != want {
					t.Errorf("%s at %s: acted on %q, the ticket is %q", e.EventType, e.OccurredAt, acted, want)
				}
				return c.react(ctx, e)
			}), webhook.WithLogger(quiet())))
		id := p.Create("first")
		retitle := func(title string) {
			if _, err := p.api.UpdateTicket(t.Context(), id, client.TicketUpdate{Title: client.Set(title)}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Minute) // the cache is empty
		retitle("a")
		time.Sleep(3 * time.Second) // so soon that the times alone do not show it
		retitle("b")
		time.Sleep(20 * time.Second)
		retitle("c")
		time.Sleep(2 * time.Minute)
		p.Update(alga.WebUI, alga.Change{Status: ptr(alga.InProgress)}, id)
		time.Sleep(3 * time.Second)
		p.Update(alga.WebUI, alga.Change{Status: ptr(alga.Resolved)}, id)
		time.Sleep(2 * time.Minute)
		p.Update(alga.WebUI, alga.Change{Status: ptr(alga.Open)}, id)
		time.Sleep(3 * time.Second)
		if _, err := p.api.UpdateTicket(t.Context(), id, client.TicketUpdate{StatusID: client.Set(alga.Closed)}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		p.Update(alga.WebUI, alga.Change{Assign: ptr(alga.Mara)}, id)
		time.Sleep(time.Minute)
		got := c.took()
		if stale.Load() < 6 || int(refetched.Load()) == len(got) || len(got) != 13 {
			t.Errorf("%d events, %d payloads were stale, %d were fetched again", len(got), stale.Load(), refetched.Load())
		}
	})
}

// The whole thread is on every payload, internal comments too (D9), and a comment
// has no author_type (D8).
func TestThreadIsRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := start(t, alga.Config{})
		_, secret := p.Subscribe(hookURL, 0)
		var c collect
		p.listen(webhook.NewHandler(webhook.NewSecretList(secret).All, c.react, webhook.WithLogger(quiet())))
		id := p.Create("Printer")
		for n := range 40 {
			time.Sleep(3 * time.Second)
			p.Comment(id, fmt.Sprintf("comment %d <b>&amp;</b> \u2028", n), n%2 == 1)
		}
		time.Sleep(10 * time.Second)
		got := c.took()
		if len(got) != 41 {
			t.Fatalf("%d events, want 41", len(got))
		}
		for n, e := range got {
			d := data(t, e)
			if d.Comments == nil || len(*d.Comments) != n {
				t.Fatalf("event %d has the thread %v", n, d.Comments)
			}
			for i, m := range *d.Comments {
				if want := fmt.Sprintf("comment %d <b>&amp;</b> \u2028", i); m.Text != want || m.IsInternal != (i%2 == 1) || m.CreatedAt.IsZero() || m.UpdatedAt != nil {
					t.Errorf("event %d, comment %d: %+v", n, i, m)
				}
			}
			if n > 0 && (d.Comment == nil || d.Comment.Text != (*d.Comments)[n-1].Text || d.Comment.AuthorType != nil) {
				t.Errorf("event %d: comment %+v", n, d.Comment)
			}
		}
	})
}
