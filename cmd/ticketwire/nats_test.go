package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ticketwire/ticketwire/internal/receiver"
	"github.com/ticketwire/ticketwire/webhook"
)

// startNATS runs a server in this process; port -1 picks one.
func startNATS(t *testing.T, dir string, port int) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, JetStream: dir != "", StoreDir: dir, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(30 * time.Second) {
		t.Fatal("the NATS server did not start")
	}
	return s
}

func natsEvent(id string) *receiver.Event {
	raw := []byte(`{"event_id":"` + id + `", "event_type":"ticket.created"}`)
	e := &webhook.Envelope{EventID: id, EventType: webhook.TicketCreated, Raw: raw}
	e.Claim.Key = webhook.KeyOf(e)
	return &receiver.Event{Envelope: e, Attempt: 1}
}

// publisher connects as receive does, and closes with the test.
func publisher(t *testing.T, url string, core bool) *reaction {
	t.Helper()
	f := &reactionFlags{NATS: url, Subject: "tickets.in", Core: core}
	r, err := f.reaction(terminal{}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// What a reaction has published is in the stream, once per event however often it
// runs, and what is not in the stream is not done.
func TestPublishIntoAStream(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := startNATS(t, dir, -1)
	conn, err := nats.Connect(s.ClientURL(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stream, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "TICKETS", Subjects: []string{"tickets.>"}, MaxMsgs: 3, Discard: jetstream.DiscardNew})
	if err != nil {
		t.Fatal(err)
	}
	r := publisher(t, s.ClientURL(), false)
	for _, id := range []string{"E1", "E2", "E1"} {
		if err := r.run(ctx, natsEvent(id)); err != nil {
			t.Fatal(err)
		}
	}
	info, err := stream.Info(ctx)
	if err != nil || info.State.Msgs != 2 {
		t.Fatalf("the stream has %+v, %v", info.State, err)
	}
	m, err := stream.GetMsg(ctx, 1)
	if err != nil || string(m.Data) != `{"event_id":"E1","event_type":"ticket.created"}` || m.Header.Get("Nats-Msg-Id") != "e1/ticket.created" {
		t.Errorf("the message is %s with %v, %v", m.Data, m.Header, err)
	}
	if err := r.run(ctx, natsEvent("E3")); err != nil {
		t.Fatal(err)
	}
	if err := r.run(ctx, natsEvent("E4")); err == nil || !strings.HasPrefix(err.Error(), "--nats: ") {
		t.Errorf("a stream that is full took it: %v", err)
	}

	// Without a server it fails, and works again when there is one.
	port := s.Addr().(*net.TCPAddr).Port
	s.Shutdown()
	s.WaitForShutdown()
	short, stop := context.WithTimeout(ctx, 300*time.Millisecond)
	defer stop()
	if err := r.run(short, natsEvent("E5")); err == nil {
		t.Error("published without a server")
	}
	startNATS(t, dir, port)
	for {
		err := r.run(ctx, natsEvent("E1")) // the stream knows it: no room is needed
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("it does not come back: %v", err)
		}
		if pause(ctx, 20*time.Millisecond) != nil {
			t.Fatal("it does not come back")
		}
	}
}

// Without a stream nothing is done, unless that is what was asked for: then those
// who are subscribed get it.
func TestPublishWithoutAStream(t *testing.T) {
	t.Parallel()
	for name, dir := range map[string]string{"no stream": t.TempDir(), "no JetStream": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startNATS(t, dir, -1)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			err := publisher(t, s.ClientURL(), false).run(ctx, natsEvent("E1"))
			if err == nil || !strings.Contains(err.Error(), "no stream has the subject tickets.in: make one, or give --nats-core") {
				t.Errorf("without a stream: %v", err)
			}
			conn, err := nats.Connect(s.ClientURL())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			sub, err := conn.SubscribeSync("tickets.in")
			if err == nil {
				err = conn.Flush()
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := publisher(t, s.ClientURL(), true).run(ctx, natsEvent("E2")); err != nil {
				t.Fatal(err)
			}
			if m, err := sub.NextMsgWithContext(ctx); err != nil || m.Header.Get("Nats-Msg-Id") != "e2/ticket.created" {
				t.Errorf("the subscriber got %v, %v", m, err)
			}
		})
	}
}

// A server that is not there yet is no reason not to start.
func TestNATSThatIsNotThere(t *testing.T) {
	t.Parallel()
	r := publisher(t, "nats://127.0.0.1:1", false)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := r.run(ctx, natsEvent("E1")); err == nil {
		t.Error("published to nobody")
	}
	for _, f := range []*reactionFlags{{NATS: "nats://127.0.0.1:1"}, {Subject: "x"}} {
		_, err := f.reaction(terminal{}, slog.New(slog.DiscardHandler), nil)
		if _, is := errors.AsType[usageError](err); !is {
			t.Errorf("%+v: %v", f, err)
		}
	}
}
