package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ticketwire/ticketwire/internal/receiver"
	"github.com/ticketwire/ticketwire/webhook"
)

// reactionFlags say what becomes of an event that was received.
type reactionFlags struct {
	Exec    string        `help:"Shell command to run for each event, with the event on its standard input." placeholder:"CMD"`
	Forward string        `help:"Receiver that gets each event as a webhook of its own, signed anew; a 2xx is done." placeholder:"URL"`
	Append  string        `help:"File that gets each event as a line of JSON, synced to the disk." placeholder:"FILE" type:"path"`
	NATS    string        `name:"nats" help:"NATS server that gets each event on --subject, for the JetStream stream that has it." placeholder:"URL"`
	Subject string        `help:"Subject for --nats." placeholder:"SUBJECT"`
	Core    bool          `name:"nats-core" help:"Publish to who is subscribed at the time; no stream is needed."`
	Creds   string        `name:"nats-creds" help:"Credentials file for --nats." placeholder:"FILE"`
	To      receiverFlags `embed:"" prefix:"forward-"`

	ReactTimeout time.Duration `help:"How long one reaction may take." default:"1m"`
	Retries      int           `help:"How often a reaction that failed is repeated, after 1 s, 2 s, 4 s and so on up to 10 min." default:"14"`
	Workers      int           `help:"Reactions at once, each for another ticket." default:"4"`
}

// reaction is what the flags ask for. All parts run, in this order; if one fails,
// all run again.
type reaction struct {
	parts []func(context.Context, *receiver.Event) error
	ends  []func() error
}

func (r *reaction) run(ctx context.Context, e *receiver.Event) error {
	for _, part := range r.parts {
		if err := part(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the connections.
func (r *reaction) Close() error {
	var err error
	for _, end := range r.ends {
		err = errors.Join(err, end())
	}
	return err
}

// reaction makes what the flags ask for. Close it.
func (f *reactionFlags) reaction(t terminal, log *slog.Logger, secrets func() []string) (*reaction, error) {
	r := new(reaction)
	if f.Append != "" {
		r.parts = append(r.parts, (&eventFile{name: f.Append}).add)
	}
	if (f.NATS == "") != (f.Subject == "") {
		return nil, usageError{errors.New("--nats and --subject belong together"), "--nats nats://127.0.0.1:4222 --subject tickets"}
	}
	if f.NATS != "" {
		n, err := openNATS(f, log)
		if err != nil {
			return nil, err
		}
		r.parts, r.ends = append(r.parts, n.publish), append(r.ends, n.close)
	}
	if f.Forward != "" {
		out, err := f.To.sender("--forward", f.Forward)
		if err != nil {
			return nil, errors.Join(err, r.Close())
		}
		r.parts = append(r.parts, func(ctx context.Context, e *receiver.Event) error { return forward(ctx, out, secrets, e) })
		r.ends = append(r.ends, func() error { out.client.Close(); return nil })
	}
	if f.Exec != "" {
		r.parts = append(r.parts, func(ctx context.Context, e *receiver.Event) error {
			line, err := eventLine(e)
			if err != nil {
				return err
			}
			return runCommand(ctx, t, "--exec", f.Exec, f.ReactTimeout, line)
		})
	}
	if len(r.parts) == 0 {
		out := &locked{out: t.out}
		r.parts = append(r.parts, func(_ context.Context, e *receiver.Event) error {
			line, err := eventLine(e)
			if err == nil {
				_, err = out.Write(line)
			}
			return err
		})
	}
	return r, nil
}

// locked keeps the lines of several reactions apart.
type locked struct {
	mu  sync.Mutex
	out io.Writer
}

// Write writes at once.
func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.Write(b)
}

// eventLine is the event on one line: the envelope as it was signed, without
// space, and behind it what this receiver knows.
func eventLine(e *receiver.Event) ([]byte, error) {
	text, err := compact(e.Raw)
	if err != nil {
		return nil, err
	}
	if !e.Claim.Stale && !e.Refetched {
		return append(text, '\n'), nil
	}
	ms, err := members(text)
	if err != nil {
		return nil, err
	}
	if e.Claim.Stale {
		ms = append(ms, member{"stale", json.RawMessage("true")})
	}
	if e.Refetched {
		now := json.RawMessage("null")
		if e.Current != nil {
			if now, err = compact(e.Current.Raw); err != nil {
				return nil, err
			}
		}
		ms = append(ms, member{"ticket", now})
	}
	return append(object(ms), '\n'), nil
}

// forward sends the signed bytes on. The signature is a new one: that of the
// sender may be too old by now.
func forward(ctx context.Context, out *sender, secrets func() []string, e *receiver.Event) error {
	all := secrets()
	if len(all) == 0 {
		return errors.New("--forward: there is no secret to sign with")
	}
	if a := out.post(ctx, e.Raw, e.Attempt, webhook.Sign(all[0], time.Now(), e.Raw)); !a.OK() {
		return fmt.Errorf("--forward %s: %s", out.target, outcome(a))
	}
	return nil
}

// eventFile is a file that events are added to. It is opened for each, so that it
// can be moved away at any time.
type eventFile struct {
	mu   sync.Mutex
	name string
}

// add returns when the event is on the disk.
func (f *eventFile) add(_ context.Context, e *receiver.Event) error {
	line, err := eventLine(e)
	if err == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		err = appendLine(f.name, line)
	}
	if err != nil {
		return fmt.Errorf("--append: %w", err)
	}
	return nil
}

func appendLine(name string, line []byte) (err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer closing(f, &err)
	info, err := f.Stat()
	if err != nil {
		return err
	}
	last := []byte{'\n'}
	if info.Mode().IsRegular() && info.Size() > 0 {
		if _, err := f.ReadAt(last, info.Size()-1); err != nil {
			return err
		}
	}
	if last[0] != '\n' { // a kill or a full disk has cut the line before
		line = append([]byte{'\n'}, line...)
	}
	if _, err := f.Write(line); err != nil {
		return err
	}
	if err := f.Sync(); err != nil || info.Size() > 0 {
		return err
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync() // a new file has a new name to keep
}
