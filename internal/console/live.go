package console

import (
	"bytes"
	"fmt"
	"net/http"
	"time"

	"github.com/ticketwire/ticketwire/internal/fault"
)

// maxViewers bounds the live pages of all visitors. Each holds a connection and
// what it sends next, and nothing more.
const maxViewers = 500

// liveWrite bounds one write to a live page: who does not read is left.
const liveWrite = 10 * time.Second

// message is what a live page is sent.
type message struct {
	id   string // where to go on after a broken connection; "" for nowhere
	body []byte
}

// live sends what next returns, at once and then on every tick, until the visitor
// leaves, his session ends or the server stops. A message without a body only keeps
// the connection open.
func (v *visit) live(every time.Duration, next func() (message, error)) error {
	defer v.srv.viewers.Add(-1)
	if v.srv.viewers.Add(1) > maxViewers {
		return fault.New(fault.Unavailable, "There are too many live pages; this one is not live")
	}
	h := v.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // proxies pass it on as it comes
	out := http.NewResponseController(v.w)
	if err := out.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("keep a live page open: %w", err)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		m, err := next()
		if err != nil {
			return err
		}
		if err := out.SetWriteDeadline(v.srv.cfg.Now().Add(liveWrite)); err != nil {
			return fmt.Errorf("keep a live page open: %w", err)
		}
		v.w.Write(m.encode())
		if out.Flush() != nil {
			return nil // the visitor has left
		}
		select {
		case <-v.ctx.Done():
			return nil
		case <-v.srv.closing.Done():
			return nil
		case <-tick.C:
		}
		v.now = v.srv.cfg.Now()
		if _, err := v.srv.visitor(v.ctx, v.now, v.r); err != nil {
			return nil // the session has ended, and so does its page
		}
	}
}

func (m message) encode() []byte {
	var b bytes.Buffer
	if m.id != "" {
		fmt.Fprintf(&b, "id: %s\n", m.id)
	}
	if len(m.body) == 0 {
		b.WriteString(": still here\n\n")
		return b.Bytes()
	}
	for line := range bytes.SplitSeq(bytes.TrimSpace(m.body), []byte("\n")) {
		b.WriteString("data: ")
		b.Write(bytes.TrimRight(line, "\r"))
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	return b.Bytes()
}
