package e2e

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stopping waits for the server to say that it has heard the signal.
func (d *desk) stopping(t *testing.T) {
	t.Helper()
	d.server.await(t, "the server says that it is stopping", func(l string) bool { return strings.Contains(l, "msg=stopping") })
}

// A server that is asked to stop finishes what it has begun: nothing is sent
// twice because of a restart.
func TestTerminateFinishesWhatIsInFlight(t *testing.T) {
	t.Parallel()
	d := openDesk(t)
	answer := make(chan struct{})
	r := receive(t, func(n int) {
		if n == 1 {
			<-answer
		}
	})
	h := d.subscribe(t, r.url, nil, "ticket.created")
	first := d.newTicket(t, "In flight")
	r.await(t, "the event arrives", count(1))
	d.terminate(t)
	d.stopping(t)
	select {
	case <-d.server.gone:
		t.Error("the server did not wait for the receiver")
	case <-time.After(time.Second): // a slow receiver
	}
	close(answer)
	if code := d.server.wait(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}

	d.start(t)
	rows := d.settled(t, h, 1)
	// What the restart could send again comes before what is made after it.
	d.newTicket(t, "After the restart")
	r.await(t, "the next event arrives", count(2))
	d.settled(t, h, 2)
	got := r.arrived()
	if len(got) != 2 || got[0].eventID != rows[0].EventID || got[1].eventID == rows[0].EventID {
		t.Errorf("ticket %s arrived as %v", first.ID, eventIDs(got))
	}
}

// Whoever sends a second signal does not want to wait, and loses nothing by it.
func TestSecondSignalExitsAtOnce(t *testing.T) {
	t.Parallel()
	d := openDesk(t)
	open := make(chan struct{})
	r := receive(t, func(n int) {
		if n == 1 {
			<-open
		}
	})
	defer close(open)
	h := d.subscribe(t, r.url, nil, "ticket.created")
	d.newTicket(t, "Held up")
	r.await(t, "the event arrives", count(1))
	d.terminate(t)
	d.stopping(t)
	asked := time.Now()
	// The first of these may be taken for an echo of the first signal.
	for repeat, gone := time.NewTicker(100*time.Millisecond), false; !gone; {
		select {
		case <-d.server.gone:
			gone = true
		case <-repeat.C:
			_ = d.server.cmd.Process.Signal(syscall.SIGTERM) // it may be gone just now
		}
	}
	if code := d.server.wait(t); code != 1 {
		t.Errorf("exit code %d, want 1: not everything was finished", code)
	}
	// The exchange alone could last ten seconds.
	if took := time.Since(asked); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	d.start(t)
	got := r.await(t, "the event arrives again", count(2))
	if got[0].eventID != got[1].eventID {
		t.Errorf("%s arrived first and %s after the restart", got[0].eventID, got[1].eventID)
	}
	d.settled(t, h, 1)
}

// Two servers on one data directory would send everything twice.
func TestSecondServerIsRefused(t *testing.T) {
	t.Parallel()
	d := openDesk(t)
	second := exec.CommandContext(t.Context(), binary, d.serve()...)
	second.Env = environment()
	out, err := second.CombinedOutput()
	text := string(out)
	if code := second.ProcessState.ExitCode(); err == nil || code < 1 {
		t.Errorf("exit code %d (%v), want a failure", code, err)
	}
	if !strings.Contains(text, "Error:") || !strings.Contains(text, d.dir) || strings.Contains(text, "goroutine") {
		t.Errorf("it says %q, want one error that names the data directory", text)
	}
	if got := d.newTicket(t, "The first one goes on").ID; got == "" {
		t.Error("the first server does not work any more")
	}
}
