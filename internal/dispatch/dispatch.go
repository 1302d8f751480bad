// Package dispatch is the engine that brings deliveries to receivers: it claims
// what is due, posts it, lets internal/delivery decide what follows, and records
// the result. It also runs the jobs that belong to deliveries: switching off
// webhooks that only fail, sending the mail about it, replays, and retention.
//
// The database is the truth. The engine holds no delivery that it could lose:
// what it has claimed is leased, and what it has sent but not recorded is sent
// again under the same event id. It leaves the rules to internal/delivery, the
// request to internal/egress and every statement to internal/store.
package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/egress"
	"github.com/ticketwire/ticketwire/internal/mail"
	"github.com/ticketwire/ticketwire/internal/store"
)

// Config is what an Engine needs. It is not changed after New.
type Config struct {
	Store    *store.Store
	Client   *egress.Client
	Policy   delivery.Policy
	Mail     *mail.Sender // nil: mail stays in the outbox
	Now      func() time.Time
	Random   func() float64 // jitter, in [0,1); nil: math/rand
	Log      *slog.Logger
	Metrics  prometheus.Registerer // nil: not exported
	InFlight int                   // requests at once, all webhooks together; 0: 256
	PerLane  int                   // requests at once to one webhook; 0: 16
	Standard bool                  // also sign as Standard Webhooks has it
}

// Engine delivers. Start it once, Stop it once; Send and Probe may be called
// concurrently in between.
type Engine struct {
	cfg     Config
	owner   string
	sched   *scheduler
	waits   *waits
	orders  chan order // for a goroutine that is free
	results chan store.Result
	mailDue chan struct{} // the outbox may have something to send
	failed  chan struct{} // a webhook's health changed for the worse

	sending  context.Context // ends when Stop gives up on requests in flight
	giveUp   context.CancelFunc
	stop     chan struct{} // closed when Stop begins
	stopOnce sync.Once
	started  atomic.Bool
	loops    sync.WaitGroup // scheduler and jobs
	attempts sync.WaitGroup // goroutines that send; they end with the engine
	errands  sync.WaitGroup // what is claimed, looked up and given back beside the scheduler
	recorder sync.WaitGroup
	trouble  trouble
	stuck    atomic.Bool  // results wait that the store has refused
	last     atomic.Int64 // when an attempt was last begun, in microseconds since 1970; 0: never
	metrics  *metrics
}

// claimMargin is how long past the longest request timeout a lease lasts: time
// to record the result while the database is slow.
const claimMargin = 30 * time.Second

// maxTimeout is the longest timeout that a webhook can ask for (contract section
// 3.3, retry_config.timeout).
const maxTimeout = 30 * time.Second

// errStopping ends a request that outlived the grace of Stop, so that a shutdown
// is not taken for a failed attempt.
var errStopping = errors.New("the server is stopping")

// New returns an engine that is not running yet.
func New(cfg Config) *Engine {
	if cfg.InFlight == 0 {
		cfg.InFlight = 256
	}
	if cfg.PerLane == 0 {
		cfg.PerLane = 16
	}
	if cfg.Random == nil {
		cfg.Random = rand.Float64
	}
	sending, giveUp := context.WithCancelCause(context.Background())
	e := &Engine{
		cfg:     cfg,
		owner:   store.NewID(),
		orders:  make(chan order),
		results: make(chan store.Result, cfg.InFlight),
		waits:   newWaits(),
		mailDue: make(chan struct{}, 1),
		failed:  make(chan struct{}, 1),
		sending: sending,
		giveUp:  func() { giveUp(errStopping) },
		stop:    make(chan struct{}),
		metrics: newMetrics(cfg.Metrics),
	}
	e.sched = newScheduler(e)
	return e
}

// Owner names this engine in leases.
func (e *Engine) Owner() string { return e.owner }

// Lease is how long a claim is held before another node may take it over.
func (e *Engine) Lease() time.Duration { return max(e.cfg.Policy.Timeout, maxTimeout) + claimMargin }

// Start takes over what an earlier process left and begins to deliver. It
// returns when the engine listens for work.
func (e *Engine) Start(ctx context.Context) error {
	if err := e.cfg.Store.Join(ctx, e.owner); err != nil {
		return err
	}
	if err := e.cfg.Store.ReleaseAll(ctx); err != nil {
		return err
	}
	in := e.sched.intake
	e.cfg.Store.SetIntake(&store.Intake{
		Owner: e.owner, Lease: e.Lease(), Reserve: in.reserve, Cancel: in.cancel, Commit: in.commit, Lost: in.lose, Office: e.office(),
	})
	e.recorder.Go(e.record)
	e.loops.Go(e.sched.run)
	e.loops.Go(e.tellWaits)
	e.loops.Go(e.guardHealth)
	e.loops.Go(e.remind)
	e.loops.Go(e.sweep)
	e.loops.Go(e.replay)
	if e.cfg.Mail != nil {
		e.loops.Go(e.sendMail)
	}
	e.started.Store(true)
	return nil
}

// Stop claims nothing more, lets requests in flight finish until ctx ends, then
// breaks them off and gives their leases back. It returns when everything that
// was sent is recorded, or ctx has ended and the store cannot be reached. It is
// safe to call twice.
func (e *Engine) Stop(ctx context.Context) {
	e.stopOnce.Do(func() {
		defer e.giveUp()
		e.cfg.Store.SetIntake(nil)
		close(e.stop)
		if !e.started.Load() {
			return
		}
		if err := e.cfg.Store.Retire(ctx); err != nil {
			e.cfg.Log.Warn("could not retire from the nodes, the others will notice", "error", err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			e.loops.Wait()
			e.attempts.Wait()
			e.errands.Wait()
			close(e.results)
			e.recorder.Wait()
		}()
		select {
		case <-done:
		case <-ctx.Done():
			e.giveUp()
			<-done
		}
		if err := e.cfg.Store.Leave(context.WithoutCancel(ctx)); err != nil {
			e.cfg.Log.Warn("could not leave the nodes, the others will notice", "error", err)
		}
	})
}

// Ready returns nil while deliveries can make progress, and otherwise the reason
// of ours why they cannot.
func (e *Engine) Ready() error {
	if !e.started.Load() {
		return errors.New("the dispatcher has not started")
	}
	select {
	case <-e.stop:
		return errStopping
	default:
	}
	return errors.Join(e.cfg.Store.Office(), e.trouble.get())
}

// LastAttempt is when an attempt of the queue was last begun; the zero time when
// none was. It is safe for concurrent use.
func (e *Engine) LastAttempt() time.Time {
	us := e.last.Load()
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us)
}

// trouble remembers which parts of the engine cannot reach the store now.
type trouble struct {
	mu sync.Mutex
	by map[string]error
}

// set notes the newest outcome of a part; nil clears it.
func (t *trouble) set(part string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		delete(t.by, part)
		return
	}
	if t.by == nil {
		t.by = map[string]error{}
	}
	t.by[part] = err
}

func (t *trouble) get() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, err := range t.by {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// nudge sends without waiting: one pending signal is as good as many.
func nudge(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
