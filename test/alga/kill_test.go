package alga_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/inbox"
	"github.com/ticketwire/ticketwire/test/alga"
	"github.com/ticketwire/ticketwire/webhook"
)

// The variables that make the test binary a receiver.
const (
	receiverDB     = "TICKETWIRE_TEST_ALGA_DB"
	receiverSecret = "TICKETWIRE_TEST_ALGA_SECRET"
	receiverWay    = "TICKETWIRE_TEST_ALGA_WAY" // inbox or deduper
)

// receive is a receiver as a process of its own. It prints its address, and ends
// by being killed.
func receive() error {
	ctx := context.Background()
	db, err := openDB(os.Getenv(receiverDB))
	if err != nil {
		return err
	}
	box, err := inbox.Open(ctx, inbox.Config{DB: db, Dialect: inbox.SQLite, Log: quiet()})
	if err != nil {
		return err
	}
	secrets, react, lease := webhook.NewSecretList(os.Getenv(receiverSecret)).All, effects(box, db), 500*time.Millisecond
	h := webhook.NewHandler(secrets, react, webhook.WithDeduper(box), webhook.WithLease(lease), webhook.WithLogger(quiet()))
	if os.Getenv(receiverWay) == "inbox" {
		h = webhook.NewInboxHandler(secrets, box.Keep, webhook.WithLogger(quiet()))
		go box.Work(ctx, react, inbox.Work{Lease: lease, Attempts: 100, Poll: 50 * time.Millisecond})
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, l.Addr())
	return (&http.Server{Handler: h, ReadHeaderTimeout: time.Minute}).Serve(l)
}

// process starts the receiver and returns its address, and how to kill it.
func process(t *testing.T, env ...string) (address string, kill func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env, cmd.Stderr = append(os.Environ(), env...), os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line), func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // it was killed
	}
}

// A receiver that is killed again and again while AlgaPSA sends, and that comes
// back under another address: what was not abandoned had its effect once. The
// sender's schedule is 600 times as fast, so that it gives up after 16 seconds.
func TestKilledReceiver(t *testing.T) {
	if testing.Short() {
		t.Skip("starts and kills processes for some seconds")
	}
	t.Parallel()
	for _, way := range []string{"deduper", "inbox"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			s := alga.Start(t, alga.Config{Compress: 600, Webhooks: alga.Documented, Fate: func(e alga.Event) alga.Fate {
				return alga.Fate{Copies: e.N % 2} // each second event twice
			}})
			api, err := client.New(s.URL, alga.Key)
			if err != nil {
				t.Fatal(err)
			}
			hook, secret := s.Subscribe("http://127.0.0.1:9/", 1000)
			file := filepath.Join(t.TempDir(), "receiver.db")
			begin := func() func() {
				address, kill := process(t, receiverDB+"="+file, receiverSecret+"="+secret, receiverWay+"="+way)
				in := client.WebhookInput{URL: client.Set("http://" + address + "/hook")}
				if _, err := api.UpdateWebhook(t.Context(), hook, in); err != nil {
					t.Error(err)
				}
				return kill
			}
			kill := begin()
			for range 6 {
				before := len(s.Deliveries())
				for range 15 {
					id := s.Create("Printer")
					s.Update(alga.REST, alga.Change{Title: ptr("Plotter")}, id)
				}
				await(t, "deliveries", func() bool { return len(s.Deliveries()) >= before+10 })
				kill()
				kill = begin()
			}
			await(t, "the end of the queue", func() bool { return s.Waiting() == 0 })
			db, err := openDB(file)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			await(t, "the effects", func() bool { return len(counted(t, db)) == len(s.Events()) })
			kill()
			wantOnce(t, counted(t, db), s.Events())
			for _, d := range s.Deliveries() {
				if d.State == "abandoned" {
					t.Errorf("event %d was abandoned: the receiver was away for too long", d.Event.N)
				}
			}
		})
	}
}

// await waits until something is so.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for !is() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited a minute in vain for %s", what)
		}
	}
}
