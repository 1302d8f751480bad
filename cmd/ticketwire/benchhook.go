package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/ticketwire/ticketwire/webhook"
)

// benchHookCmd is the receiver of bench in its own process, so that what it
// costs is not charged to the service. It answers 200 to everything at once and
// remembers what arrived; it does not verify signatures, which is work of the
// integrator's machine.
type benchHookCmd struct{}

// Paths of the receiver. Only benchPost records what arrives.
const (
	benchPost     = "/hook"
	benchHang     = "/hang" // never answers
	benchReset    = "/control/reset"
	benchCount    = "/control/count"
	benchArrivals = "/control/arrivals"
)

// arrivalKey names one delivery: an event on its way to a webhook.
type arrivalKey struct{ event, webhook [16]byte }

// arrival is when a delivery came first, in nanoseconds since 1970, and how
// often it came.
type arrival struct {
	first  int64
	copies uint32
}

// arrivalSize is a key and its arrival on the wire.
const arrivalSize = 16 + 16 + 8 + 4

// arrivalLog remembers deliveries. The shards keep its locks from being what is
// measured.
type arrivalLog struct {
	distinct atomic.Int64
	shards   [64]struct {
		sync.Mutex
		seen map[arrivalKey]arrival
	}
}

func newArrivalLog() *arrivalLog {
	l := &arrivalLog{}
	for i := range l.shards {
		l.shards[i].seen = map[arrivalKey]arrival{}
	}
	return l
}

// note records an arrival at now.
func (l *arrivalLog) note(now time.Time, k arrivalKey) {
	s := &l.shards[k.event[15]%uint8(len(l.shards))] // the last byte of a UUIDv7 is random
	s.Lock()
	a, again := s.seen[k]
	if !again {
		a.first = now.UnixNano()
	}
	a.copies++
	s.seen[k] = a
	s.Unlock()
	if !again {
		l.distinct.Add(1)
	}
}

// dump writes everything in records of arrivalSize.
func (l *arrivalLog) dump(to io.Writer) error {
	w := bufio.NewWriterSize(to, 64<<10)
	var buf []byte
	for i := range l.shards {
		s := &l.shards[i]
		s.Lock()
		for k, a := range s.seen {
			buf = append(append(buf[:0], k.event[:]...), k.webhook[:]...)
			buf = binary.LittleEndian.AppendUint64(buf, uint64(a.first))
			buf = binary.LittleEndian.AppendUint32(buf, a.copies)
			if _, err := w.Write(buf); err != nil {
				s.Unlock()
				return err
			}
		}
		s.Unlock()
	}
	return w.Flush()
}

// Run serves on a free loopback port, prints its URL, and ends when its
// standard input does, however the parent ended.
func (benchHookCmd) Run(ctx context.Context, t terminal) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for webhooks: %w", err)
	}
	// A port may have been somebody else's a moment ago, who is still called: only
	// who knows the address is counted.
	secret := "/" + rand.Text()
	server := &http.Server{Handler: http.StripPrefix(secret, benchHookHandler()), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	parent := make(chan struct{})
	go func() {
		defer close(parent)
		_, _ = io.Copy(io.Discard, os.Stdin) // whatever ends it, the parent is gone
	}()
	fmt.Fprintln(t.out, "http://"+l.Addr().String()+secret)
	select {
	case err = <-served:
	case <-parent:
	case <-ctx.Done():
	}
	return errors.Join(err, server.Close())
}

// benchHookHandler is the receiver and its control routes.
func benchHookHandler() http.Handler {
	var log atomic.Pointer[arrivalLog]
	log.Store(newArrivalLog())
	mux := http.NewServeMux()
	mux.HandleFunc(benchPost, func(w http.ResponseWriter, r *http.Request) {
		now := time.Now() // the head is parsed by now, so this is late rather than early
		var k arrivalKey
		var err1, err2 error
		k.event, err1 = uuid.Parse(r.Header.Get(webhook.EventIDHeader))
		k.webhook, err2 = uuid.Parse(r.Header.Get(webhook.WebhookIDHeader))
		_, err3 := io.Copy(io.Discard, r.Body)
		if err := errors.Join(err1, err2, err3); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		log.Load().note(now, k)
	})
	mux.HandleFunc(benchHang, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then does the server notice that the client hangs up
		<-r.Context().Done()
	})
	mux.HandleFunc(benchReset, func(http.ResponseWriter, *http.Request) { log.Store(newArrivalLog()) })
	mux.HandleFunc(benchCount, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, strconv.FormatInt(log.Load().distinct.Load(), 10))
	})
	mux.HandleFunc(benchArrivals, func(w http.ResponseWriter, _ *http.Request) {
		if err := log.Load().dump(w); err != nil {
			panic(http.ErrAbortHandler) // the client must not take half of it for all
		}
	})
	return mux
}
