package inbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	db := sqlitePlace(t).pool(t)
	for want, cfg := range map[string]Config{
		"DB":        {Dialect: SQLite},
		"Dialect":   {DB: db},
		"Prefix":    {DB: db, Dialect: SQLite, Prefix: `x"; drop table y; --`},
		"Retention": {DB: db, Dialect: SQLite, Retention: -time.Hour},
	} {
		if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "Config."+want) {
			t.Errorf("%s: error %v", want, err)
		}
	}
}

func TestOpenRefusesNewer(t *testing.T) {
	t.Parallel()
	p := sqlitePlace(t)
	b := p.open(t)
	_, err := b.exec(t.Context(), b.db, `insert into {p}schema (version) values (2)`)
	must(t, err)
	if _, err := Open(t.Context(), Config{DB: b.db, Dialect: SQLite}); err == nil || !strings.Contains(err.Error(), "newer release") {
		t.Errorf("error %v", err)
	}
}

func TestOpenWarns(t *testing.T) {
	t.Parallel()
	good := sqlitePlace(t)
	hasty, careless := good, good
	hasty.dsn = strings.Replace(good.dsn, "busy_timeout(10000)", "busy_timeout(0)", 1)
	careless.dsn = strings.Replace(good.dsn, "synchronous(full)", "synchronous(normal)", 1)
	for _, c := range []struct {
		name      string
		place     place
		retention time.Duration
		want      string
	}{
		{"as it should be", good, 0, ""},
		{"longer", good, 100 * 24 * time.Hour, ""},
		{"short retention", good, 24 * time.Hour, "forgets events earlier"},
		{"no waiting", hasty, 0, "busy_timeout"},
		{"no sync", careless, 0, "synchronous"},
	} {
		var log bytes.Buffer
		c.place.open(t, func(cfg *Config) {
			cfg.Retention, cfg.Log = c.retention, slog.New(slog.NewTextHandler(&log, nil))
		})
		if c.want == "" && log.Len() > 0 || !strings.Contains(log.String(), c.want) {
			t.Errorf("%s: logged %q, want %q", c.name, &log, c.want)
		}
	}
}

// TestPlans asks SQLite how it runs every statement of the package: none reads a
// table from one end to the other, but for the two that count what is open, and
// those read an index that holds nothing else.
func TestPlans(t *testing.T) {
	t.Parallel()
	b := sqlitePlace(t).open(t)
	statements := statementsOf(t)
	if len(statements) < 20 {
		t.Fatalf("found only %d statements", len(statements))
	}
	for _, q := range statements {
		for _, step := range plan(t, b, q) {
			open := strings.Contains(q, "count(*)") && strings.Contains(step, "INDEX inbox_events_") || strings.Contains(q, "{p}schema")
			if strings.HasPrefix(step, "SCAN") && !open || strings.Contains(step, "TEMP B-TREE FOR ORDER BY") {
				t.Errorf("%q in\n%s", step, q)
			}
		}
	}
}

func plan(t *testing.T, b *Inbox, q string) []string {
	t.Helper()
	marks := slices.Compact(slices.Sorted(slices.Values(regexp.MustCompile(`\$\d`).FindAllString(q, -1))))
	rows, err := b.db.QueryContext(t.Context(), "explain query plan "+b.text(q), make([]any, len(marks))...)
	must(t, err)
	defer rows.Close()
	var steps []string
	for rows.Next() {
		var id, parent, unused int
		var step string
		must(t, rows.Scan(&id, &parent, &unused, &step))
		steps = append(steps, step)
	}
	must(t, rows.Err())
	return steps
}

// statementsOf returns the statements in the source of the package, so that none
// can be forgotten.
func statementsOf(t *testing.T) []string {
	t.Helper()
	var out []string
	packages, err := parser.ParseDir(token.NewFileSet(), ".", func(f fs.FileInfo) bool { return !strings.HasSuffix(f.Name(), "_test.go") }, 0) //nolint:staticcheck // files of one package, without build tags
	must(t, err)
	for _, p := range packages {
		ast.Inspect(p, func(n ast.Node) bool {
			lit, is := n.(*ast.BasicLit)
			if !is || lit.Kind != token.STRING {
				return true
			}
			text, err := strconv.Unquote(lit.Value)
			must(t, err)
			if verb, _, _ := strings.Cut(text, " "); slices.Contains([]string{"select", "insert", "update", "delete"}, verb) && strings.Contains(text, "{p}") {
				out = append(out, text)
			}
			return true
		})
	}
	return out
}

// Some drivers bind numbered arguments in the order of their first appearance.
func TestArgumentsAppearInOrder(t *testing.T) {
	t.Parallel()
	for _, q := range statementsOf(t) {
		highest := 0
		for _, m := range regexp.MustCompile(`\$(\d)`).FindAllStringSubmatch(q, -1) {
			n, err := strconv.Atoi(m[1])
			must(t, err)
			if n > highest+1 {
				t.Errorf("$%d comes before $%d in\n%s", n, highest+1, q)
			}
			highest = max(highest, n)
		}
	}
}

func TestDefaultBackoff(t *testing.T) {
	t.Parallel()
	var sum time.Duration
	for failures, want := range []time.Duration{
		1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second, 10: 512 * time.Second,
		11: 10 * time.Minute, 14: 10 * time.Minute, 1000: 10 * time.Minute,
	} {
		if d := DefaultBackoff(failures); want > 0 && (d > want || d <= want*9/10) {
			t.Errorf("after %d failures %s, want %s less a tenth at most", failures, d, want)
		}
	}
	for failures := 1; failures < (Work{}).withDefaults().Attempts; failures++ {
		sum += DefaultBackoff(failures)
	}
	if sum < 50*time.Minute || sum > time.Hour {
		t.Errorf("the default attempts take %s, want about an hour", sum)
	}
}

// TestSchedule runs the worker in fake time: attempts come when Backoff says, the
// last failure is final, and an outage of the other side costs no event.
func TestSchedule(t *testing.T) {
	t.Parallel()
	p := sqlitePlace(t)
	synctest.Test(t, func(t *testing.T) {
		db, err := p.connect()
		must(t, err)
		defer db.Close()
		b, err := Open(t.Context(), Config{DB: db, Dialect: SQLite, Log: slog.New(slog.DiscardHandler)})
		must(t, err)
		began := time.Now()
		keep(t, b, began, "e1", "T1", began)
		ctx, cancel := context.WithCancel(t.Context())
		var got []time.Duration
		var worker sync.WaitGroup
		worker.Go(func() {
			b.Work(ctx, func(context.Context, *webhook.Envelope) error {
				got = append(got, time.Since(began))
				return errors.New("down")
			}, Work{Attempts: 4, Poll: time.Hour, Backoff: func(n int) time.Duration { return time.Duration(n) * time.Minute }})
		})
		time.Sleep(24 * time.Hour)
		cancel()
		worker.Wait()
		if want := []time.Duration{0, time.Minute, 3 * time.Minute, 6 * time.Minute}; !slices.Equal(got, want) {
			t.Errorf("attempts after %v, want %v", got, want)
		}
		if s := stats(t, b); s.Dead != 1 || s.Queued != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// ticketNow is what the API would answer.
type ticketNow struct {
	status  string
	updated time.Time
}

// testAlga sends what AlgaPSA sends: a payload from its cache, two types under
// one event id, events out of order, and the whole comment thread.
func testAlga(t *testing.T, p place) {
	b := p.open(t)
	h := webhook.NewInboxHandler(secrets, b.Keep, quiet()...)
	at := func(s int) time.Time {
		return time.Now().Add(-time.Hour).Truncate(time.Second).Add(time.Duration(s) * time.Second)
	}
	payload := func(status string, updated time.Time, more string) string {
		return fmt.Sprintf(`"ticket_id":"T1","status_name":%q,"updated_at":%q%s`, status, webhook.At(updated), more)
	}
	truth := ticketNow{"Closed", at(30)}
	var (
		mu       sync.Mutex
		fetched  int
		seen     []string
		messages int
	)
	react := webhook.Refetch(webhook.OldPayload(5*time.Second),
		func(_ context.Context, id string) (*ticketNow, error) {
			mu.Lock()
			defer mu.Unlock()
			if fetched++; id != "t1" {
				t.Errorf("fetched %s", id)
			}
			return &truth, nil
		},
		func(_ context.Context, e *webhook.Envelope, current *ticketNow) error {
			d, err := e.Ticket()
			if err != nil {
				return err
			}
			status := *d.StatusName
			if current != nil {
				status = current.status
			}
			mu.Lock()
			defer mu.Unlock()
			if d.Comments != nil {
				messages = len(*d.Comments)
			}
			seen = append(seen, fmt.Sprintf("%s %s %s stale=%t", e.EventID, e.EventType, status, e.Claim.Stale))
			return nil
		})
	thread := `,"comments":[{"comment_id":"c1","text":"a","author":null,"is_internal":true,"is_resolution":false,"created_at":"2026-03-04T05:06:07.000Z","updated_at":null},` +
		`{"comment_id":"c2","text":"b","author":"Ada","is_internal":false,"is_resolution":false,"created_at":"2026-03-04T05:06:08.000Z","updated_at":null}],` +
		`"comment":{"text":"b","author":"Ada","timestamp":"2026-03-04T05:06:08.000Z","is_internal":false}`
	send := func(bodies ...[]byte) {
		t.Helper()
		for _, body := range bodies {
			if code := post(h, body); code != 200 {
				t.Fatalf("answer %d to %s", code, body)
			}
		}
	}
	// The close, 30 seconds after the start, is sent with the state of second 1:
	// twice, under one id. The comment of second 10 comes last.
	send(
		bodyOf("e1", webhook.TicketCreated, at(1), payload("Open", at(1), "")),
		bodyOf("e2", webhook.TicketUpdated, at(30), payload("Open", at(1), "")),
		bodyOf("e2", webhook.TicketClosed, at(30), payload("Open", at(1), "")),
		bodyOf("e2", webhook.TicketClosed, at(30), payload("Open", at(1), "")), // and a retry
	)
	work(t, b, react, Work{})
	drained(t, b)
	send(bodyOf("e3", webhook.TicketCommentAdded, at(10), payload("Open", at(9), thread)))
	drained(t, b)
	mu.Lock()
	defer mu.Unlock()
	want := []string{
		"e1 ticket.created Open stale=false",
		"e2 ticket.updated Closed stale=false",
		"e2 ticket.closed Closed stale=false",
		"e3 ticket.comment.added Open stale=true",
	}
	if !slices.Equal(seen, want) || fetched != 2 || messages != 2 {
		t.Errorf("%d fetched, %d messages, seen\n%s\nwant\n%s", fetched, messages, strings.Join(seen, "\n"), strings.Join(want, "\n"))
	}
}
