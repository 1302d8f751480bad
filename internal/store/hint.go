package store

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// Hints go from node to node by NOTIFY: lanes with work for their node, nodes that
// were given something, lanes that should be given nothing for a while, and that a
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
	hintGave    = "gave:" // and the node
	hintFull    = "full:" // and the lane
	hintLanes   = 58      // that fit into one NOTIFY, with as many that are full and some nodes; with more, all are looked at
)

// hint is something for other nodes to know.
type hint struct {
	lanes []Lane   // have work
	full  []Lane   // should be given nothing for a while
	gave  []string // nodes that were given something
	beat  bool     // leases should be renewed
}

// hints are on their way out. They are safe for concurrent use.
type hints struct {
	bell        chan struct{}
	mu          sync.Mutex
	lanes, full map[Lane]struct{}
	gave        map[string]struct{}
	beat        bool
}

// add never blocks.
func (h *hints) add(what hint) {
	h.mu.Lock()
	if h.lanes == nil {
		h.lanes, h.full, h.gave = map[Lane]struct{}{}, map[Lane]struct{}{}, map[string]struct{}{}
	}
	for _, l := range what.lanes {
		h.lanes[l] = struct{}{}
	}
	for _, l := range what.full {
		if len(h.full) < hintLanes/2 {
			h.full[l] = struct{}{}
		}
	}
	for _, id := range what.gave {
		h.gave[id] = struct{}{}
	}
	h.beat = h.beat || what.beat
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
	for l := range h.full {
		words = append(words, hintFull+l.TenantID+"/"+l.WebhookID)
	}
	for id := range h.gave {
		if len(words) < 2*hintLanes {
			words = append(words, hintGave+id)
		}
	}
	clear(h.lanes)
	clear(h.full)
	clear(h.gave)
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
	ctx, cancel := n.staying()
	defer cancel()
	for ctx.Err() == nil {
		switch {
		case !s.dialect.pooled:
			s.listen(ctx, n)
		case s.Among() > 1:
			s.tell(Committed{Look: true})
			n.look()
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
		n.look()
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
		full, isFull := strings.CutPrefix(word, hintFull)
		switch {
		case word == hintBeat:
			select {
			case n.beat <- struct{}{}:
			default:
			}
		case word == hintAll:
			said.Look = true
		case word == hintGave+n.id:
			n.look()
		case strings.HasPrefix(word, hintGave):
		case isFull:
			n.full.note(laneOf(full), s.cfg.Now())
		default:
			if l := laneOf(word); s.Mine(l) {
				said.Due = append(said.Due, l)
			}
		}
	}
	if said.Look || len(said.Due) > 0 {
		s.tell(said)
	}
	return nil
}

// laneOf reads a lane as hints write it.
func laneOf(word string) Lane {
	tenant, webhook, _ := strings.Cut(word, "/")
	return Lane{tenant, webhook}
}
