package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ticketwire/ticketwire/internal/receiver"
)

// natsOut publishes events. It connects in the background, as often as it has to:
// while there is no connection publishing fails, and the receiver repeats it.
type natsOut struct {
	conn    *nats.Conn
	stream  jetstream.JetStream
	subject string
	core    bool // publish without a stream
}

func openNATS(f *reactionFlags, log *slog.Logger) (*natsOut, error) {
	opts := []nats.Option{
		nats.Name("ticketwire receive"), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
		// What could not be sent is repeated by the receiver, not by a buffer.
		nats.ReconnectBufSize(-1),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { log.Warn("the connection to NATS is lost", "error", err) }),
		nats.ReconnectHandler(func(*nats.Conn) { log.Info("connected to NATS") }),
	}
	if f.Creds != "" {
		opts = append(opts, nats.UserCredentials(f.Creds))
	}
	conn, err := nats.Connect(f.NATS, opts...)
	if err != nil {
		return nil, usageError{fmt.Errorf("--nats: %w", err), "--nats nats://127.0.0.1:4222"}
	}
	stream, err := jetstream.New(conn)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("--nats: %w", err)
	}
	return &natsOut{conn: conn, stream: stream, subject: f.Subject, core: f.Core}, nil
}

// publish returns when the event is in the stream that has the subject, or, with
// --nats-core, when it is with the server: who is not subscribed then misses it.
//
// A stream drops what comes twice within its window, two minutes unless it is
// configured: Nats-Msg-Id is the event.
func (n *natsOut) publish(ctx context.Context, e *receiver.Event) error {
	line, err := eventLine(e)
	if err != nil {
		return err
	}
	msg := &nats.Msg{Subject: n.subject, Data: line[:len(line)-1], Header: nats.Header{
		nats.MsgIdHdr: {e.Claim.Key.EventID + "/" + e.EventType},
	}}
	if n.core {
		if err = n.conn.PublishMsg(msg); err == nil {
			err = n.conn.FlushWithContext(ctx)
		}
	} else {
		_, err = n.stream.PublishMsg(ctx, msg)
	}
	switch {
	case errors.Is(err, jetstream.ErrNoStreamResponse):
		return fmt.Errorf("--nats: no stream has the subject %s: make one, or give --nats-core", n.subject)
	case err != nil:
		return fmt.Errorf("--nats: %w", err)
	}
	return nil
}

func (n *natsOut) close() error {
	n.conn.Close()
	return nil
}
