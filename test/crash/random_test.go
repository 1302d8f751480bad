package crash

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestRandomFaults makes one kind of trouble after the other while two tenants
// work and their receivers are of moderate quality. The seed decides what is
// done, in which order and for how long; the moments are those of the machine.
// In the end the receivers are healthy, everything drains, and the books must
// balance.
func TestRandomFaults(t *testing.T) {
	t.Parallel()
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	length := time.Duration(*seconds) * time.Second
	if length == 0 {
		length = form(12*time.Second, 2*time.Minute)
	}
	t.Logf("repeat it with -run TestRandomFaults -seconds %.0f -seed %d", length.Seconds(), s)

	c := newChaos(t, s, length)
	over := time.After(length)
	for done := false; !done; {
		select {
		case <-over:
			done = true
		default:
			c.fault(t)
		}
	}
	c.settle(t)
	c.check(t)
}

// chaos is a service with two tenants under faults.
type chaos struct {
	random *rand.Rand // of the test's goroutine
	desk   *desk
	first  *party
	second *party
	most   time.Duration  // how long one fault may last
	filler string         // a file that can fill the disk; "" when it cannot be filled
	count  map[string]int // faults by name
}

// party is a tenant with a receiver and two webhooks that get the same events:
// one that is left alone, and one that people edit.
type party struct {
	desk    *desk
	load    *load
	r       *receiver
	steady  hook
	edited  hook
	secrets []string // every one that was in force
	off     bool     // the edited webhook is disabled
	usual   func(*arrival) reply
}

func newChaos(t *testing.T, seed uint64, length time.Duration) *chaos {
	t.Helper()
	c := &chaos{
		random: rand.New(rand.NewPCG(seed, 0)), count: map[string]int{},
		most: min(10*time.Second, max(1500*time.Millisecond, length/15)),
	}
	dir, err := smallDisk(t, 128+4*int(length.Seconds()))
	if err == nil {
		c.filler = filepath.Join(dir, "filler")
	} else {
		t.Logf("the disk does not fill up in this run, since it needs the right to mount one: %v", err)
		dir = t.TempDir()
	}
	// The retries are short and the exchange is shorter, so that whole chains
	// fit into a run.
	d := newDeskIn(t, filepath.Join(dir, "data"), "--retry-schedule", "200ms,400ms,600ms,800ms,1s", "--request-timeout", "1s")
	d.clock = filepath.Join(t.TempDir(), "clock")
	d.start(t, "")
	c.desk = d
	c.first = newParty(t, d, rand.NewPCG(seed, 1))
	c.second = newParty(t, d.another(t, "Second"), rand.NewPCG(seed, 2))
	c.first.load.start(t, 150)
	c.second.load.start(t, 50)
	return c
}

func newParty(t *testing.T, d *desk, source rand.Source) *party {
	t.Helper()
	p := &party{desk: d, usual: moody(rand.New(source))}
	p.r = receive(t, p.usual)
	p.steady = d.subscribe(t, p.r.url, nil, "ticket.updated")
	p.edited = d.subscribe(t, p.r.url, nil, "ticket.updated")
	p.secrets = []string{p.steady.Secret, p.edited.Secret}
	p.load = newLoad(t, d)
	return p
}

// moody is a receiver of moderate quality: 70 % of its answers are a 200. It
// spares the last attempts, so that a lost event is our fault and not the
// schedule's end.
func moody(r *rand.Rand) func(*arrival) reply {
	var mu sync.Mutex
	return func(a *arrival) reply {
		mu.Lock()
		p := r.IntN(100)
		mu.Unlock()
		switch {
		case p < 70 || a.attempt > 3:
			return reply{wait: time.Duration(p) * 100 * time.Microsecond}
		case p < 80:
			return reply{status: http.StatusInternalServerError}
		case p < 85:
			return reply{wait: 1500 * time.Millisecond} // longer than the sender waits
		case p < 90:
			return reply{reset: true}
		case p < 91:
			return reply{status: http.StatusTooManyRequests, header: http.Header{"Retry-After": {"1"}}}
		case p < 95:
			return reply{status: http.StatusTooManyRequests}
		}
		return reply{status: http.StatusBadGateway, body: func(w http.ResponseWriter) {
			for range 20 {
				_, _ = w.Write([]byte("slow "))
				_ = http.NewResponseController(w).Flush()
				pause(10 * time.Millisecond)
			}
		}}
	}
}

// fault makes one kind of trouble and waits until the server runs again.
func (c *chaos) fault(t *testing.T) {
	t.Helper()
	pause(time.Duration(100+c.random.IntN(900)) * time.Millisecond)
	p := c.first
	if c.random.IntN(2) == 0 {
		p = c.second
	}
	var name string
	switch n := c.random.IntN(100); {
	case n < 18:
		name = "kill -9"
		c.desk.kill(t)
		c.restart(t)
	case n < 28:
		name = "SIGTERM"
		if code := c.desk.terminate(t); code != 0 {
			t.Errorf("exit code %d after SIGTERM", code)
		}
		c.restart(t)
	case n < 36:
		name = "SIGSTOP"
		// As a suspended machine: what it had in flight may have run into its time
		// limit when it goes on.
		c.desk.signal(t, syscall.SIGSTOP)
		c.last()
		c.desk.signal(t, syscall.SIGCONT)
	case n < 46:
		name = "store locked"
		unlock := lockDatabase(t, c.desk)
		c.last()
		unlock()
	case n < 54 && c.filler != "":
		name = "disk full"
		c.fillDisk(t)
	case n < 64:
		name = "clock set"
		c.desk.setClock(t, time.Duration(c.random.IntN(361)-180)*time.Minute)
	case n < 74:
		name = p.strike(c.random, c.length())
	case n < 81:
		name = "secret rotated"
		p.rotate(t, c.random)
	case n < 91:
		name = "webhook edited"
		p.edit(t, c.random)
	default:
		name = "webhook switched"
		p.toggle(t)
	}
	c.count[name]++
}

// last lets a fault last.
func (c *chaos) last() { pause(c.length()) }

// length is how long a fault lasts.
func (c *chaos) length() time.Duration {
	return 200*time.Millisecond + time.Duration(c.random.Int64N(int64(c.most)))
}

// restart starts the server, every other time with something in its store or its
// attempts that will fail after a while.
func (c *chaos) restart(t *testing.T) {
	t.Helper()
	at := 20 + c.random.IntN(300)
	rules := []struct{ name, rule string }{
		{"store refuses", fmt.Sprintf("store.commit=error@%d:%s", at, c.most/3)},
		{"store refuses results", fmt.Sprintf("store.record=error@%d:%s", at, c.most/3)},
		{"store is slow", fmt.Sprintf("store.commit=sleep(40ms)@%dx%d", at, 50)},
		{"attempts panic", fmt.Sprintf("dispatch.attempt=panic@%dx%d", at, 5)},
	}
	faults := ""
	if n := c.random.IntN(2 * len(rules)); n < len(rules) {
		faults = rules[n].rule
		c.count[rules[n].name]++
	}
	c.desk.start(t, faults)
}

func (c *chaos) fillDisk(t *testing.T) {
	t.Helper()
	fill(t, c.filler)
	c.last()
	if err := os.Remove(c.filler); err != nil {
		t.Fatal(err)
	}
}

// strike makes all of a party's receiver worse for a while: its connections are
// reset, its answers never come, or they come late. As ever, it spares the last
// attempts.
func (p *party) strike(random *rand.Rand, lasts time.Duration) (name string) {
	var all reply
	switch random.IntN(3) {
	case 0:
		name, all = "receiver resets", reply{reset: true}
	case 1:
		name, all = "receiver hangs", reply{wait: 1500 * time.Millisecond}
	default:
		name, all = "receiver is slow", reply{wait: 600 * time.Millisecond}
	}
	p.r.behave(func(a *arrival) reply {
		if a.attempt > 3 {
			return reply{}
		}
		return all
	})
	pause(lasts)
	p.r.behave(p.usual)
	return name
}

// insist is call while the store may fail: a 503 has changed nothing, so it is
// asked again.
func insist[T any](t *testing.T, d *desk, method, path string, body any) T {
	t.Helper()
	var out struct{ Data T }
	eventually(t, method+" "+path+" succeeds", func() bool {
		status, err := d.try(t.Context(), method, "/api/v1"+path, body, &out)
		if err != nil || status >= 300 && status != http.StatusServiceUnavailable {
			t.Fatalf("%s %s: status %d, %v", method, path, status, err)
		}
		return status < 300
	})
	return out.Data
}

// rotate gives one of the webhooks a new secret, with and without a grace. The
// grace of the rotation before ends, since two cannot run at once.
func (p *party) rotate(t *testing.T, random *rand.Rand) {
	t.Helper()
	h := []hook{p.steady, p.edited}[random.IntN(2)]
	grace := []int{0, 1, 3600}[random.IntN(3)]
	insist[any](t, p.desk, "POST", "/webhooks/"+h.ID+"/secret/promote", nil)
	fresh := insist[hook](t, p.desk, "POST", "/webhooks/"+h.ID+"/secret/rotate", object{"grace_period_seconds": grace})
	p.secrets = append(p.secrets, fresh.Secret)
}

// edit changes what a webhook sends to and how much.
func (p *party) edit(t *testing.T, random *rand.Rand) {
	t.Helper()
	insist[any](t, p.desk, "PUT", "/webhooks/"+p.edited.ID, []object{
		{"url": p.r.url + "/moved"},
		{"url": p.r.url},
		{"custom_headers": object{"X-Desk": "crash"}},
		{"rate_limit": object{"enabled": true, "requests_per_minute": 1000, "burst_limit": 5}},
		{"rate_limit": object{"enabled": false}},
	}[random.IntN(5)])
}

// toggle switches the webhook off, or on again with what it has missed.
func (p *party) toggle(t *testing.T) {
	t.Helper()
	change := object{"is_active": false}
	if p.off {
		change = object{"is_active": true, "replay_missed": true}
	}
	insist[any](t, p.desk, "PUT", "/webhooks/"+p.edited.ID, change)
	p.off = !p.off
}

// settle ends the trouble and lets everything that is owed go out.
func (c *chaos) settle(t *testing.T) {
	t.Helper()
	// Retries that were planned while the clock was ahead are due as well.
	c.desk.setClock(t, 4*time.Hour)
	c.first.settle(t)
	c.second.settle(t)
	c.desk.drain(t, 3*patience)
	t.Logf("faults: %v", c.count)
}

// settle ends the load, makes the receiver healthy and switches all webhooks on.
func (p *party) settle(t *testing.T) {
	t.Helper()
	p.load.end()
	p.r.behave(nil)
	if p.off {
		p.toggle(t)
	}
	insist[any](t, p.desk, "PUT", "/webhooks/"+p.edited.ID, object{"rate_limit": object{"enabled": false}})
	within(t, patience, "no replay has anything left to queue", func() bool {
		for _, r := range call[[]struct{ Status string }](t, p.desk, "GET", "/webhooks/"+p.edited.ID+"/replays?limit=100", nil) {
			if r.Status == "running" {
				return false
			}
		}
		return true
	})
}

// check holds the log and the feed of a party against what it has sent and received,
// and returns how many of its changes were refused, which is only ever by a 503, and
// how many had no answer.
func (p *party) check(t *testing.T) (refused, silent int) {
	t.Helper()
	byStatus, silent := p.load.refusals()
	for status := range byStatus {
		if status != http.StatusServiceUnavailable {
			t.Errorf("changes were answered with %d", status)
		}
	}
	checkLog(t, p.desk, p.steady, p.r.arrived(), 6)
	checkRetries(t, p.desk.log(t, p.steady), p.r.arrived())
	checkTimes(t, p.desk.feed(t))
	return byStatus[http.StatusServiceUnavailable], silent
}

// check balances the books.
func (c *chaos) check(t *testing.T) {
	t.Helper()
	for _, p := range []*party{c.first, c.second} {
		p.desk.outages = c.desk.outages
		v := judge(t, evidence{
			desk: p.desk, acked: p.load.acknowledged(), arrivals: p.r.arrived(),
			hooks: []hook{p.steady, p.edited}, types: []string{"ticket.updated"}, secrets: p.secrets, ownClock: true,
		})
		refused, silent := p.check(t)
		t.Logf("%d acknowledged changes, %d refused, %d unanswered; %d events, %d requests: %d lost, %d repeated (at most %d after one crash)",
			v.acked, refused, silent, v.events, v.requests, v.lost, v.repeats, v.most)
	}
	c.desk.terminate(t)
	db := c.desk.open(t)
	if n := number(t, db, "select count(*) from deliveries where lease_owner is not null or lease_until is not null"); n > 0 {
		t.Errorf("%d leases are left", n)
	}
	intact(t, filepath.Join(c.desk.dir, "ticketwire.db"))
}
