package inbox

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

// The variables that make the test binary the receiver of testKills.
const (
	receiverDSN     = "TICKETWIRE_TEST_INBOX_DSN"
	receiverDialect = "TICKETWIRE_TEST_INBOX_DIALECT"
	receiverPrefix  = "TICKETWIRE_TEST_INBOX_PREFIX"
)

// receive is a real receiver: it keeps, it works, and it notes what it does in
// tables beside the inbox. It ends by being killed.
func receive() error {
	dialect, err := strconv.Atoi(os.Getenv(receiverDialect))
	if err != nil {
		return err
	}
	p := place{dialect: Dialect(dialect), dsn: os.Getenv(receiverDSN), prefix: os.Getenv(receiverPrefix)}
	db, err := p.connect()
	if err != nil {
		return err
	}
	ctx := context.Background()
	b, err := Open(ctx, Config{DB: db, Dialect: p.dialect, Prefix: p.prefix, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	f := effects{b: b, db: db, name: p.prefix + "effects"}
	go b.Work(ctx, f.react, Work{
		Lease: time.Second, Attempts: 100, Poll: 100 * time.Millisecond,
		Backoff: func(int) time.Duration { return 10 * time.Millisecond },
	})
	fmt.Fprintln(os.Stdout, l.Addr())
	server := &http.Server{Handler: webhook.NewInboxHandler(secrets, b.Keep, quiet()...), ReadHeaderTimeout: time.Minute}
	return server.Serve(l)
}

// react has one effect per event: those with an even number in a transaction
// with the mark, the others by themselves. An event that is done already when it
// comes is noted as one that must not have come.
func (f effects) react(ctx context.Context, e *webhook.Envelope) error {
	var state string
	if err := f.b.row(ctx, f.db, `select state from {p}events where event_id = $1`, e.EventID).Scan(&state); err != nil {
		return err
	}
	if state == "done" {
		_, err := f.db.ExecContext(ctx, `insert into `+f.name+` (event_id) values ('again')`)
		return err
	}
	if even(e.EventID) {
		return f.once(ctx, e)
	}
	_, err := f.db.ExecContext(ctx, `insert into `+f.name+` (event_id) values ($1)`, e.EventID)
	return err
}

func even(id string) bool {
	n, err := strconv.Atoi(id)
	return err == nil && n%2 == 0
}

// testKills ends a receiver with kill -9 twenty times under load: what it had
// acknowledged is processed, in a transaction exactly once, and nothing is
// processed after it was marked as done.
func testKills(t *testing.T, p place) {
	if testing.Short() {
		t.Skip("starts and kills processes for some seconds")
	}
	const kills, senders = 20, 4
	b := p.open(t)
	f := effectsTable(t, b, p.pool(t))
	var address atomic.Pointer[string]
	var (
		mu    sync.Mutex
		acked []string
		next  atomic.Int64
		over  = make(chan struct{})
		load  sync.WaitGroup
	)
	client := &http.Client{Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	for range senders {
		load.Go(func() {
			for {
				id := strconv.FormatInt(next.Add(1), 10)
				body := bodyOf(id, webhook.TicketUpdated, time.Now(), `"ticket_id":"T`+strconv.Itoa(rand.N(30))+`"`)
				for !deliver(client, address.Load(), body) { // as a sender: again, until it is acknowledged
					select {
					case <-over:
						return
					case <-time.After(10 * time.Millisecond):
					}
				}
				mu.Lock()
				acked = append(acked, id)
				mu.Unlock()
			}
		})
	}
	for range kills {
		stop := startReceiver(t, p, &address)
		<-time.After(20*time.Millisecond + rand.N(150*time.Millisecond))
		stop()
	}
	close(over)
	load.Wait()
	stop := startReceiver(t, p, &address)
	defer stop()
	drained(t, b)

	if s := stats(t, b); s.Dead != 0 {
		t.Errorf("%d dead letters", s.Dead)
	}
	if n := f.count(t.Context(), t, "again"); n != 0 {
		t.Errorf("%d events were processed after they were done", n)
	}
	repeated := 0
	for _, id := range acked {
		switch n := f.count(t.Context(), t, id); {
		case n == 0:
			t.Errorf("event %s was acknowledged and not processed", id)
		case n > 1 && even(id):
			t.Errorf("event %s has %d effects in spite of its transaction", id, n)
		case n > 1:
			repeated++
		}
	}
	if len(acked) < 100 {
		t.Errorf("only %d events were acknowledged: that proves little", len(acked))
	}
	t.Logf("%d kills, %d events acknowledged, 0 lost, %d processed more than once (without a transaction)", kills, len(acked), repeated)
}

// deliver sends an event and says whether it was acknowledged.
func deliver(client *http.Client, address *string, body []byte) bool {
	if address == nil {
		return false
	}
	req, err := http.NewRequest(http.MethodPost, "http://"+*address, bytes.NewReader(body))
	if err != nil {
		return false
	}
	sign(req.Header, body)
	res, err := client.Do(req)
	if err != nil {
		return false
	}
	res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// startReceiver starts a receiver process; stop ends it with kill -9.
func startReceiver(t *testing.T, p place, address *atomic.Pointer[string]) (stop func()) {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), receiverDSN+"="+p.dsn, fmt.Sprint(receiverDialect, "=", int(p.dialect)), receiverPrefix+"="+p.prefix)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	stop = sync.OnceFunc(func() {
		if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
		_ = cmd.Wait() // it was killed
	})
	t.Cleanup(stop)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		t.Fatalf("the receiver did not start: %v\n%s", err, &complaints)
	}
	line = strings.TrimSpace(line)
	address.Store(&line)
	return stop
}
