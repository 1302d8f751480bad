package app_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ticketwire/ticketwire/internal/cutover"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/receiver"
	"github.com/ticketwire/ticketwire/webhook"
)

// guide is somebody who follows the guide, with one reaction for both sides.
type guide struct {
	*changeOver
	p       *pipelines
	acted   *cutover.Acted
	refused sync.Map // tickets whose next event is refused, for a drill
}

// openGuide starts a cutover on a Sunday.
func openGuide(t *testing.T) *guide {
	sleep(37 * time.Hour) // bubbles begin on a Saturday
	g := &guide{changeOver: &changeOver{acts: map[changed][]cutover.Side{}}}
	g.p = openPipelines(t, 1, 0, time.Minute, func(p *pipelines) {
		g.desk, g.turns = p.desk, cutover.FollowTurns(p.desk.dir)
		var err error
		if g.acted, err = cutover.OpenActed(p.desk.dir); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { g.acted.Close() })
		p.keeps = true
		p.acts = func(ctx context.Context, k seenKey, side cutover.Side) error {
			_, err := g.acted.Do(ctx, k.ticket, k.updated, func(context.Context) error {
				g.changeOver.acted(k.ticket, k.updated, side)
				return nil
			})
			return err
		}
		p.config = func(cfg *receiver.Config) {
			cfg.Acts = g.turns.Receives
			cfg.React = func(ctx context.Context, e *receiver.Event) error {
				return p.acts(ctx, seenKey{e.TicketID(), cutover.ChangeOf(e.Envelope)}, cutover.SideReceiver)
			}
			cfg.Refuse = func(e *webhook.Envelope) bool {
				_, refused := g.refused.LoadAndDelete(e.TicketID())
				return refused
			}
			if p.secret != "" { // a webhook is there
				name := filepath.Join(p.desk.dir, "secret")
				if err := os.WriteFile(name, []byte(p.secret+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				secrets, err := webhook.OpenSecretFile(name)
				if err != nil {
					t.Fatal(err)
				}
				cfg.Secrets = secrets.All
			}
		}
		p.types = []string{
			webhook.TicketCreated, webhook.TicketUpdated, webhook.TicketStatusChanged,
			webhook.TicketAssigned, webhook.TicketClosed, webhook.TicketCommentAdded,
		}
	})
	return g
}

// drill asks for a drill, changes the ticket, and waits for the event, as the
// command does.
func (g *guide) drill(kind string) {
	g.t.Helper()
	ticket := g.p.ids[0]
	ctx, cancel := context.WithCancel(g.t.Context())
	met := make(chan error, 1)
	go func() {
		met <- cutover.MeetDrills(ctx, g.p.desk.dir, func(d cutover.DrillRequest) {
			switch d.Kind {
			case cutover.DrillRetry:
				g.refused.Store(d.Ticket, true)
			case cutover.DrillRestart:
				from := time.Now()
				g.p.hangUp(ctx)
				go g.p.comesBack(from, d.Down)
			}
		})
	}()
	sleep(time.Second)
	began := time.Now()
	request := cutover.DrillRequest{Kind: kind, Ticket: ticket, Down: 10 * time.Second}
	if err := cutover.AskForDrill(g.t.Context(), g.p.desk.dir, request, 90*time.Second); err != nil {
		g.t.Fatal(err)
	}
	scratch, err := cutover.OpenScratch(g.t.Context(), cutover.ScratchConfig{
		URL: "http://desk.example", Key: g.tenant.APIKey, HTTP: g.http, Ticket: ticket, Budget: 0.25, Now: time.Now,
	})
	if err != nil {
		g.t.Fatal(err)
	}
	tail, err := cutover.OpenTail(g.p.desk.dir)
	if err != nil {
		g.t.Fatal(err)
	}
	defer tail.Close()
	at, err := scratch.Edit(g.t.Context())
	if err != nil {
		g.t.Fatal(err)
	}
	bounded, done := context.WithTimeout(g.t.Context(), 5*time.Minute)
	defer done()
	if _, err = tail.Await(bounded, func(e cutover.Entry) bool {
		r := e.Receipt
		return r != nil && r.Ticket == ticket && r.UpdatedAt.Equal(at) && r.HTTP < 300 && r.Attempt > 1
	}); err != nil {
		g.t.Fatalf("drill %s: %v", kind, err)
	}
	if err := scratch.Restore(g.t.Context()); err != nil {
		g.t.Fatal(err)
	}
	if err := g.p.record.Append(cutover.Entry{Drill: &cutover.Drill{At: began, Kind: kind, Ticket: ticket}}); err != nil {
		g.t.Fatal(err)
	}
	cancel()
	if err := <-met; err != nil {
		g.t.Error(err)
	}
	sleep(time.Minute)
}

// reconciles starts the standing reconciler.
func (g *guide) reconciles() (stop func()) {
	g.t.Helper()
	s, err := cutover.OpenSweeper(cutover.SweeperConfig{
		URL: "http://desk.example", Key: g.tenant.APIKey, HTTP: g.http, Dir: g.p.desk.dir, Every: 15 * time.Minute, Budget: 0.25, Now: time.Now,
	})
	if err != nil {
		g.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(g.t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- s.Run(ctx, func(sweep cutover.Sweep, err error) {
			if err != nil || len(sweep.Missed) > 0 {
				g.t.Errorf("a sweep of the reconciler: %+v, %v", sweep, err)
			}
		})
	}()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			g.t.Error(err)
		}
		s.Close()
	}
}

// finish does what the command does: it sweeps where there is no feed, judges, and
// takes the turn.
func (g *guide) finish() (*cutover.Report, error) {
	g.t.Helper()
	setup, err := g.turns.Setup()
	if err != nil {
		g.t.Fatal(err)
	}
	if n, err := cutover.ClosingSweep(g.t.Context(), cutover.CollectorConfig{
		URL: setup.Server, Key: g.tenant.APIKey, HTTP: g.http, Dir: g.p.desk.dir, Since: setup.Started, Budget: 0.25, Now: time.Now,
	}); n != 0 || err != nil {
		g.t.Errorf("the closing sweep of a server with a feed read %d tickets, %v", n, err)
	}
	report := g.p.compare()
	if report.Outcome != cutover.Go && report.Outcome != cutover.GoWithReconciler {
		return report, nil
	}
	clock, err := cutover.ServerClock(g.t.Context(), setup.Server, g.tenant.APIKey, g.http, time.Now)
	if err != nil {
		g.t.Fatal(err)
	}
	_, err = cutover.TakeTurn(g.p.desk.dir, cutover.Turn{At: time.Now(), From: clock.Add(5 * time.Second), Side: cutover.SideReceiver})
	return report, err
}

// The whole guide: start, a day and an hour with 299 clean changes and more, both
// drills, alarm and reconciler, a report that says GO, finish, work, rollback. Each
// change is acted on once, by the side whose turn it is.
func TestGuideLeadsToGo(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("a day of both pipelines takes too long under the race detector")
	}
	synctest.Test(t, func(t *testing.T) {
		g := openGuide(t)
		began := time.Now()
		g.p.work(30*time.Minute, 8)
		if report, err := g.finish(); report.Outcome != cutover.Extend || report.Exit != 20 || err != nil {
			t.Errorf("after half an hour the verdict is %s, exit code %d, %v", report.Outcome, report.Exit, err)
		}
		if side, err := g.turns.Acts(time.Now().Add(time.Hour)); side != cutover.SidePoller || err != nil {
			t.Errorf("finish gave the turn to the %s against the report, %v", side, err)
		}
		stop := g.reconciles()
		defer func() { stop() }()
		g.p.work(12*time.Hour, 200)
		g.drill(cutover.DrillRetry)
		g.drill(cutover.DrillRestart)
		g.p.work(12*time.Hour, 250)
		sleep(10 * time.Minute)
		report, err := g.finish()
		if err != nil {
			t.Fatal(err)
		}
		if report.Outcome != cutover.Go || report.Exit != 0 || len(report.Blockers)+len(report.Unproved) > 0 || report.Coverage.Eligible < 299 {
			var text bytes.Buffer
			if err := report.WriteText(&text); err != nil {
				t.Fatal(err)
			}
			t.Fatal(text.String())
		}
		t.Logf("%s: %s", report.Outcome, report.Headline)

		g.p.work(time.Hour, 60) // through the switch
		if _, err := g.finish(); fault.KindOf(err) != fault.Conflict {
			t.Errorf("finish in the receiver's turn: %v", err)
		}
		g.turn(cutover.SidePoller) // rollback
		g.p.work(time.Hour, 60)
		sleep(5 * time.Minute)
		g.judge(began)
		for change, sides := range g.acts {
			if len(sides) != 1 {
				t.Errorf("the change of %+v was acted on by %v", change, sides)
			}
		}
		if report = g.p.compare(); report.Outcome != cutover.Go || report.Coverage.Missed+report.Coverage.Events > 0 {
			t.Errorf("after the rollback the verdict is %s: %s", report.Outcome, report.Headline)
		}
	})
}
