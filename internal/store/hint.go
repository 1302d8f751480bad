package store

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// Hints go from node to node by NOTIFY: lanes with work for their node, and that a
// lease should be renewed at once, which tells who has come and gone and whether a
// webhook has changed. They are for speed, and what they say is in the database.
//
// A NOTIFY takes a lock of the whole database until its transaction has committed,
// so it is never part of one that does anything else, and hints that come while
// one is on its way share the next.
const (
	hintChannel = "ticketwire"
	hintBeat    = "beat"
	hintAll     = "all"
	hintLanes   = 100 // that fit into one NOTIFY; with more, all are looked at
)

// hints are on their way out. They are safe for concurrent use.
type hints struct {
	bell  chan struct{}
	mu    sync.Mutex
	lanes map[Lane]struct{}
	beat  bool
}

// add never blocks.
func (h *hints) add(lanes []Lane, beat bool) {
	h.mu.Lock()
	if h.lanes == nil {
		h.lanes = map[Lane]struct{}{}
	}
	for _, l := range lanes {
		h.lanes[l] = struct{}{}
	}
	h.beat = h.beat || beat
	h.mu.Unlock()
	select {
	case h.bell <- struct{}{}:
	default:
	}
}

// take returns what is to be said, as one text.
func (h *hints) take() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var words []string
	if h.beat {
		words = append(words, hintBeat)
	}
	if len(h.lanes) > hintLanes {
		words = append(words, hintAll)
	} else {
		for l := range h.lanes {
			words = append(words, l.TenantID+"/"+l.WebhookID)
		}
	}
	clear(h.lanes)
	h.beat = false
	return strings.Join(words, " ")
}

// sendHints sends what was added until the node leaves.
func (s *Store) sendHints(n *node) {
	for {
		select {
		case <-n.quit:
			return
		case <-n.hints.bell:
		}
		ctx, cancel := context.WithTimeout(context.Background(), nodeLease/2)
		s.notify(ctx, n.hints.take())
		cancel()
	}
}

// notify sends one hint. When it cannot, the queue is looked at without it.
func (s *Store) notify(ctx context.Context, text string) {
	if text != "" {
		_, _ = s.side.ExecContext(ctx, `select pg_notify($1, $2)`, hintChannel, text)
	}
}

// hearPause is between two tries to listen or two looks, and hearPatience how long a silent
// connection is trusted.
const (
	hearPause    = time.Second
	hearPatience = 10 * time.Second
)

// hear listens until the node leaves. After each new connection everything is
// looked at: what was said before is lost. Behind a pooler nobody can be called,
// and everything is looked at all the time.
func (s *Store) hear(n *node) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-n.quit:
			cancel()
		case <-ctx.Done():
		}
	}()
	for ctx.Err() == nil {
		switch {
		case !s.dialect.pooled:
			s.listen(ctx, n)
		case s.Among() > 1:
			s.tell(Committed{Look: true})
		}
		select {
		case <-ctx.Done():
		case <-time.After(hearPause):
		}
	}
}

// listen hears until the connection or ctx ends.
func (s *Store) listen(ctx context.Context, n *node) {
	conn, err := s.side.Conn(ctx)
	if err != nil {
		return
	}
	defer conn.Close()
	// The error ends this connection, and hear makes the next.
	_ = driverConn(conn, func(raw *pgx.Conn) error {
		defer raw.Close(context.Background()) //nolint:errcheck // it listens: nobody else may get it
		if _, err := raw.Exec(ctx, "listen "+hintChannel); err != nil {
			return err
		}
		s.tell(Committed{Refresh: true, Look: true})
		for {
			if err := s.hearOne(ctx, n, raw); err != nil {
				return err
			}
		}
	})
}

// hearOne waits for a hint. A connection that is silent is asked whether it lives.
func (s *Store) hearOne(ctx context.Context, n *node, c *pgx.Conn) error {
	patient, cancel := context.WithTimeout(ctx, hearPatience)
	defer cancel()
	got, err := c.WaitForNotification(patient)
	if err != nil {
		if ctx.Err() != nil || patient.Err() == nil {
			return err
		}
		return c.Ping(ctx)
	}
	var said Committed
	for word := range strings.FieldsSeq(got.Payload) {
		switch word {
		case hintBeat:
			select {
			case n.beat <- struct{}{}:
			default:
			}
		case hintAll:
			said.Look = true
		default:
			tenant, webhook, _ := strings.Cut(word, "/")
			if l := (Lane{tenant, webhook}); s.Mine(l) {
				said.Due = append(said.Due, l)
			}
		}
	}
	if said.Look || len(said.Due) > 0 {
		s.tell(said)
	}
	return nil
}
