package crash

import (
	"math/rand/v2"
	"net/http"
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

	c := newChaos(t, s)
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
}

func newChaos(t *testing.T, seed uint64) *chaos {
	t.Helper()
	// The retries are short and the exchange is shorter, so that whole chains
	// fit into a run.
	d := openDesk(t, "--retry-schedule", "200ms,400ms,600ms,800ms,1s", "--request-timeout", "1s")
	c := &chaos{random: rand.New(rand.NewPCG(seed, 0)), desk: d, count: map[string]int{}}
	c.first = newParty(t, d, rand.NewPCG(seed, 1))
	c.second = newParty(t, d.another(t, "Second"), rand.NewPCG(seed, 2))
	c.first.load.start(t, 150)
	c.second.load.start(t, 50)
	return c
}

func newParty(t *testing.T, d *desk, source rand.Source) *party {
	t.Helper()
	p := &party{desk: d, r: receive(t, moody(rand.New(source)))}
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
	case n < 25:
		name = "kill -9"
		c.desk.kill(t)
		c.desk.start(t, "")
	case n < 35:
		name = "SIGTERM"
		if code := c.desk.terminate(t); code != 0 {
			t.Errorf("exit code %d after SIGTERM", code)
		}
		c.desk.start(t, "")
	case n < 45:
		name = "SIGSTOP"
		c.freeze(t)
	case n < 60:
		name = "store locked"
		unlock := lockDatabase(t, c.desk)
		pause(time.Duration(c.random.IntN(form(2000, 15_000))) * time.Millisecond)
		unlock()
	case n < 70:
		name = "secret rotated"
		p.rotate(t, c.random)
	case n < 85:
		name = "webhook edited"
		p.edit(t, c.random)
	default:
		name = "webhook switched"
		p.toggle(t)
	}
	c.count[name]++
}

// freeze stops the server as a suspended machine does. What it had in flight
// may have run into its time limit when it goes on.
func (c *chaos) freeze(t *testing.T) {
	t.Helper()
	c.desk.signal(t, syscall.SIGSTOP)
	pause(time.Duration(200+c.random.IntN(form(1500, 10_000))) * time.Millisecond)
	c.desk.signal(t, syscall.SIGCONT)
}

// rotate gives one of the webhooks a new secret, with and without a grace. The
// grace of the rotation before ends, since two cannot run at once.
func (p *party) rotate(t *testing.T, random *rand.Rand) {
	t.Helper()
	h := []hook{p.steady, p.edited}[random.IntN(2)]
	grace := []int{0, 1, 3600}[random.IntN(3)]
	call[any](t, p.desk, "POST", "/webhooks/"+h.ID+"/secret/promote", nil)
	fresh := call[hook](t, p.desk, "POST", "/webhooks/"+h.ID+"/secret/rotate", object{"grace_period_seconds": grace})
	p.secrets = append(p.secrets, fresh.Secret)
}

// edit changes what a webhook sends to and how much.
func (p *party) edit(t *testing.T, random *rand.Rand) {
	t.Helper()
	call[any](t, p.desk, "PUT", "/webhooks/"+p.edited.ID, []object{
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
	call[any](t, p.desk, "PUT", "/webhooks/"+p.edited.ID, change)
	p.off = !p.off
}

// settle ends the trouble and lets everything that is owed go out.
func (c *chaos) settle(t *testing.T) {
	t.Helper()
	for _, p := range []*party{c.first, c.second} {
		p.load.end()
		p.r.behave(nil)
		if p.off {
			p.toggle(t)
		}
		call[any](t, p.desk, "PUT", "/webhooks/"+p.edited.ID, object{"rate_limit": object{"enabled": false}})
		within(t, patience, "no replay has anything left to queue", func() bool {
			for _, r := range call[[]struct{ Status string }](t, p.desk, "GET", "/webhooks/"+p.edited.ID+"/replays?limit=100", nil) {
				if r.Status == "running" {
					return false
				}
			}
			return true
		})
	}
	c.desk.drain(t, 2*patience)
	t.Logf("faults: %v", c.count)
}

// check balances the books.
func (c *chaos) check(t *testing.T) {
	t.Helper()
	for _, p := range []*party{c.first, c.second} {
		p.desk.outages = c.desk.outages
		v := judge(t, evidence{
			desk: p.desk, acked: p.load.acknowledged(), arrivals: p.r.arrived(),
			hooks: []hook{p.steady, p.edited}, types: []string{"ticket.updated"}, secrets: p.secrets,
		})
		refused, silent := p.load.refusals()
		t.Logf("%d acknowledged changes, %d refused, %d unanswered; %d events, %d requests: %d lost, %d repeated (at most %d after one crash)",
			v.acked, refused[http.StatusServiceUnavailable], silent, v.events, v.requests, v.lost, v.repeats, v.most)
		for status := range refused {
			if status != http.StatusServiceUnavailable {
				t.Errorf("changes were answered with %d", status)
			}
		}
		checkLog(t, p.desk, p.steady, p.r.arrived(), 6)
	}
	c.desk.terminate(t)
	db := c.desk.open(t)
	if n := number(t, db, "select count(*) from deliveries where lease_owner is not null or lease_until is not null"); n > 0 {
		t.Errorf("%d leases are left", n)
	}
	intact(t, filepath.Join(c.desk.dir, "ticketwire.db"))
}
