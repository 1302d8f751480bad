package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// changeOver is a cutover start beside a desk, and the changes that flow meanwhile.
type changeOver struct {
	*desk
	state   string
	acts    string // what the reaction got, line by line
	port    string
	process *process
	tickets []ticket
	kills   int

	enough chan struct{} // ends the flow
	flow   sync.WaitGroup
	made   chan struct{} // one for each change
}

func openCutover(t *testing.T) *changeOver {
	t.Helper()
	c := &changeOver{desk: openDesk(t), state: filepath.Join(t.TempDir(), "cutover"), port: freePort(t), enough: make(chan struct{}), made: make(chan struct{}, 10000)}
	c.acts = filepath.Join(t.TempDir(), "acts.jsonl")
	for i := range 8 {
		c.tickets = append(c.tickets, c.newTicket(t, fmt.Sprintf("Ticket %d", i)))
	}
	c.run(t)
	// Failed deliveries come again at once, and no rate limit holds them up.
	hook := c.setup(t).Webhook
	call[object](t, c.desk, "PUT", "/webhooks/"+hook, object{
		"retry_config": object{"schedule": []int{100, 200, 400, 800, 800, 800, 800, 800, 800, 1600, 1600, 1600, 1600, 1600, 1600, 1600, 1600, 1600}},
		"rate_limit":   object{"enabled": false},
	})
	eventually(t, "the poller has seen all tickets once", func() bool {
		text, err := os.ReadFile(filepath.Join(c.state, "seen.jsonl"))
		return err == nil && bytes.Contains(text, []byte(`"complete":true`))
	})
	return c
}

// run starts cutover start, or starts it again.
func (c *changeOver) run(t *testing.T) {
	t.Helper()
	args := []string{"cutover", "start", "--state", c.state, "--listen", "127.0.0.1:" + c.port, "--collect", "300ms", "--budget", "1",
		"--exec", "cat >> " + c.acts, "--exec-timeout", "3s"}
	if c.process == nil {
		args = append(args, "--all", "--interval", "200ms", "--receiver-url", "http://127.0.0.1:"+c.port+"/webhooks/alga")
	}
	c.process = spawn(t, binary, environment("TICKETWIRE_URL="+c.url, "TICKETWIRE_API_KEY="+c.tenant.APIKey), args...)
	c.process.await(t, "the cutover runs", func(l string) bool { return strings.HasPrefix(l, "Cutover of webhook ") })
}

// crash kills the cutover, with what its reaction is doing or not.
func (c *changeOver) crash(t *testing.T) {
	t.Helper()
	c.process.kill(t)
	c.process.wait(t)
	c.kills++
	c.run(t)
}

// command runs another command of the cutover and returns what it prints.
func (c *changeOver) command(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, append([]string{"cutover"}, args...)...)
	cmd.Env = environment("TICKETWIRE_STATE="+c.state, "TICKETWIRE_API_KEY="+c.tenant.APIKey)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("cutover %v: %v\n%s%s", args, err, out.String(), errs.String())
	}
	return out.String()
}

// change changes tickets, one every few milliseconds, until the flow is to end.
func (c *changeOver) change(t *testing.T) {
	c.flow.Go(func() {
		tick := time.NewTicker(25 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-tick.C:
			case <-c.enough:
				return
			}
			id, body := c.tickets[rand.IntN(len(c.tickets))].ID, object{"title": fmt.Sprintf("Change %d", n)}
			if n%5 == 0 { // three events
				body["status_id"] = c.tenant.Statuses[[]string{"Closed", "Open"}[n/5%2]]
			}
			if status, err := c.try("PUT", "/tickets/"+id, body, nil); err != nil || status != 200 {
				t.Errorf("change: status %d, %v", status, err)
				return
			}
			c.made <- struct{}{}
		}
	})
}

// await waits for so many further changes.
func (c *changeOver) await(t *testing.T, changes int) {
	t.Helper()
	limit := time.After(patience)
	for range changes {
		select {
		case <-c.made:
		case <-limit:
			t.Fatal("the changes do not get through")
		}
	}
}

// cutoverSetup is what the test reads of cutover.json.
type cutoverSetup struct {
	Webhook string `json:"webhook_id"`
	Turns   []struct {
		From time.Time `json:"from"`
		Side string    `json:"side"`
	} `json:"turns"`
}

func (c *changeOver) setup(t *testing.T) cutoverSetup {
	t.Helper()
	var s cutoverSetup
	text, err := os.ReadFile(filepath.Join(c.state, "cutover.json"))
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s cutoverSetup) side(at string) string {
	when, _ := time.Parse(time.RFC3339, at) // the feed's times are of this form
	side := "poller"
	for _, turn := range s.Turns {
		if !when.Before(turn.From) {
			side = turn.Side
		}
	}
	return side
}

// reactions are the runs of the reaction, by ticket and updated_at.
func (c *changeOver) reactions(t *testing.T) map[[2]string][]string {
	t.Helper()
	text, err := os.ReadFile(c.acts)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	out := map[[2]string][]string{}
	for line := range strings.Lines(string(text)) {
		var e struct {
			SeenBy  string    `json:"seen_by"`
			Ticket  string    `json:"ticket_id"`
			Updated time.Time `json:"updated_at"`
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("the reaction got %q: %v", line, err)
		}
		key := [2]string{e.Ticket, e.Updated.UTC().Format("2006-01-02T15:04:05.000Z")}
		out[key] = append(out[key], e.SeenBy)
	}
	return out
}

// missing says which changes nobody has acted on: those of the receiver one by
// one, and of the poller, which cannot see them all, the last of each run of them.
func (c *changeOver) missing(t *testing.T, acts map[[2]string][]string) (out []string, byReceiver, byPoller int) {
	setup := c.setup(t)
	changes := map[string][]string{} // of each ticket, updated_at
	for _, e := range c.feed(t, nil) {
		if e.Type == "ticket.created" {
			continue
		}
		all := changes[e.Data.TicketID]
		if len(all) == 0 || all[len(all)-1] != e.Data.UpdatedAt {
			changes[e.Data.TicketID] = append(all, e.Data.UpdatedAt)
		}
	}
	for ticket, all := range changes {
		for i, at := range all {
			side := setup.side(at)
			last := i+1 == len(all) || setup.side(all[i+1]) != side
			acted := len(acts[[2]string{ticket, at}]) > 0
			switch {
			case side == "receiver" && acted:
				byReceiver++
			case side == "poller" && acted:
				byPoller++
			case side == "receiver", last:
				out = append(out, fmt.Sprintf("%s at %s, of the %s", ticket, at, side))
			}
		}
	}
	return out, byReceiver, byPoller
}

// finish ends the flow, waits until everything is acted on, and ends the cutover.
// It returns how many runs of the reaction were too many.
func (c *changeOver) finish(t *testing.T) (doubles int) {
	t.Helper()
	close(c.enough)
	c.flow.Wait()
	var missing []string
	defer func() {
		if len(missing) > 0 {
			t.Errorf("nobody acted on %d changes: %v", len(missing), missing)
		}
	}()
	var byReceiver, byPoller int
	eventually(t, "everything is acted on", func() bool {
		missing, byReceiver, byPoller = c.missing(t, c.reactions(t))
		return len(missing) == 0
	})
	c.collected(t)
	if err := c.process.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := c.process.wait(t); code != 0 {
		t.Errorf("cutover start ended with %d", code)
	}
	setup := c.setup(t)
	for key, sides := range c.reactions(t) {
		doubles += len(sides) - 1
		if i := slices.IndexFunc(sides, func(s string) bool { return s != setup.side(key[1]) }); i >= 0 {
			t.Errorf("the change of %v was acted on by %v, want the %s", key, sides, setup.side(key[1]))
		}
	}
	t.Logf("the receiver acted on %d changes, the poller on %d; %d runs too many with %d kills", byReceiver, byPoller, doubles, c.kills)
	if byReceiver == 0 || byPoller == 0 {
		t.Error("only one side had a turn")
	}
	return doubles
}

// collected waits until the record has every event of the feed and every row of
// the log in its last state.
func (c *changeOver) collected(t *testing.T) {
	t.Helper()
	hook := hook{ID: c.setup(t).Webhook}
	eventually(t, "the record has the feed and the log", func() bool {
		text, err := os.ReadFile(filepath.Join(c.state, "record.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		events, rows := map[string]bool{}, map[string]string{}
		for line := range bytes.Lines(text) {
			var e struct {
				Truth *struct {
					Event string `json:"event_id"`
				}
				Delivery *struct {
					ID     string `json:"delivery_id"`
					Status string
				}
			}
			if json.Unmarshal(line, &e) != nil {
				continue // cut off by a kill
			}
			if e.Truth != nil {
				events[e.Truth.Event] = true
			}
			if e.Delivery != nil {
				rows[e.Delivery.ID] = e.Delivery.Status
			}
		}
		for _, e := range c.feed(t, nil) {
			if e.Type != "ticket.created" && !events[e.ID] {
				return false
			}
		}
		for _, row := range c.log(t, hook) {
			if rows[row.ID] != row.Status {
				return false
			}
		}
		return true
	})
}

// Changes flow the whole time, and the turn goes to the receiver, back and there
// again, live: every change is acted on once, by the side whose turn it is.
func TestCutoverTakesTurnsLive(t *testing.T) {
	t.Parallel()
	c := openCutover(t)
	c.change(t)
	for _, turn := range [][]string{
		{"finish", "--force", "--why", "a test", "--margin", "1s"}, {"rollback", "--margin", "1s"},
		{"finish", "--force", "--why", "a test", "--margin", "1s"},
	} {
		c.await(t, 40)
		c.command(t, turn...)
		c.await(t, 100) // two seconds and more, so that it has begun
	}
	if doubles := c.finish(t); doubles > 0 {
		t.Errorf("the reaction ran %d times too many", doubles)
	}
	var status struct {
		Turn   struct{ Side string }
		Report struct {
			Coverage struct {
				Missed   int `json:"missed"`
				Doubtful int `json:"unexplained"`
			}
		}
	}
	if err := json.Unmarshal([]byte(c.command(t, "status", "--json")), &status); err != nil {
		t.Fatal(err)
	}
	if status.Turn.Side != "receiver" || status.Report.Coverage.Missed > 0 || status.Report.Coverage.Doubtful > 0 {
		t.Errorf("%+v", status)
	}
}

// The process of both sides is killed in the middle of its work, in every turn:
// nothing is lost, and what is repeated is what was being done.
func TestCutoverSurvivesKills(t *testing.T) {
	t.Parallel()
	c := openCutover(t)
	c.change(t)
	for _, turn := range [][]string{nil, {"finish", "--force", "--why", "a test", "--margin", "1s"}, {"rollback", "--margin", "1s"}} {
		if turn != nil {
			c.command(t, turn...)
		}
		for range 2 {
			c.await(t, 20+rand.IntN(60))
			c.crash(t)
		}
	}
	// Four workers of the receiver, and the poller.
	if doubles := c.finish(t); doubles > 5*c.kills {
		t.Errorf("the reaction ran %d times too many, with %d kills", doubles, c.kills)
	}
}

// Drills prove what they say against the running process.
func TestCutoverDrills(t *testing.T) {
	t.Parallel()
	c := openCutover(t)
	scratch := c.tickets[0]
	for _, drill := range [][]string{
		{"drill", "retry", "--ticket", scratch.ID, "--timeout", "25s"},
		{"drill", "restart", "--ticket", scratch.ID, "--timeout", "25s", "--down", "500ms"},
	} {
		if out := c.command(t, drill...); !strings.Contains(out, "arrived with attempt") || strings.Contains(out, "attempt 1,") {
			t.Errorf("%v printed %q", drill, out)
		}
	}
	out := c.command(t, "drill", "edit", "--ticket", scratch.ID, "--ticket", c.tickets[1].ID, "--count", "5")
	if !strings.HasPrefix(out, "5 changes") {
		t.Errorf("drill edit printed %q", out)
	}
	if got := call[ticket](t, c.desk, "GET", "/tickets/"+scratch.ID, nil); got.Title != scratch.Title {
		t.Errorf("the title is %q afterwards, want %q", got.Title, scratch.Title)
	}
	text, err := os.ReadFile(filepath.Join(c.state, "record.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"retry", "restart", "edit"} {
		if !bytes.Contains(text, []byte(`"kind":"`+kind+`"`)) {
			t.Errorf("the record has no drill %s", kind)
		}
	}
}
