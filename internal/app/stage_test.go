package app_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/app"
	"github.com/ticketwire/ticketwire/internal/cutover"
	"github.com/ticketwire/ticketwire/internal/receiver"
	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/test/alga"
	"github.com/ticketwire/ticketwire/test/pipe"
	"github.com/ticketwire/ticketwire/webhook"
)

// stage is a cutover in a bubble with all its programs: a server (ours, or the
// stand-in for AlgaPSA), the poller, the collector and the receiver, which write
// one record; and a proxy in front of the API and one in front of the receiver, in
// which faults are put. It knows by name what happened.
type stage struct {
	*desk
	alga  *alga.Server // nil: it is our own
	data  string       // data directory of our own
	hook  string
	watch []string // ids; nil for all tickets, by the list
	began time.Time
	rules cutover.Rules

	rec   *cutover.Record
	rcv   *receiver.Receiver
	inbox *http.Client  // to the receiver itself
	skew  time.Duration // how far the clocks of the integrator's programs are ahead
	deny  atomic.Bool   // the receiver refuses what it would keep
	ends  []func()

	smu     sync.Mutex
	way     func(http.ResponseWriter, *parcel) // in front of the receiver; nil passes everything on
	ids     map[string]string                  // label -> ticket
	changed map[string]string                  // ticket and updated_at -> name
	events  map[string]string                  // event id and type -> name
}

// parcel is a webhook on its way to the receiver.
type parcel struct {
	header http.Header
	body   []byte
}

// attempt is which one of its event it is, as the sender counts.
func (p *parcel) attempt() string { return p.header.Get(webhook.AttemptHeader) }

// ours makes a stage with our own server. The labels are tickets that are there
// from the beginning; those that begin with "x" are not watched. hook is what the
// webhook is made with.
func ours(t *testing.T, hook map[string]any, labels ...string) *stage {
	s := &stage{}
	s.desk = openDesk(t, func(c *app.Config) { c.PerWebhook, s.data = 1, c.DataDir })
	s.hook = s.createWebhook(hook)
	s.serve = s.front
	s.enter(labels, s.createTicket)
	return s
}

// algas makes a stage with the stand-in for AlgaPSA.
func algas(t *testing.T, cfg alga.Config, labels ...string) *stage {
	b := &bubble{t: t, start: time.Now(), receiver: pipe.Listen(), tenant: store.Bootstrapped{APIKey: alga.Key}}
	api := pipe.Listen()
	outbound := &http.Transport{DialContext: b.receiver.Dial}
	cfg.Listener, cfg.Transport = api, outbound
	b.api = &http.Client{Transport: &http.Transport{DialContext: api.Dial}}
	s := &stage{alga: alga.Start(t, cfg)}
	hook := &http.Server{Handler: http.HandlerFunc(b.receive), ReadHeaderTimeout: time.Minute}
	go hook.Serve(b.receiver)
	t.Cleanup(func() {
		outbound.CloseIdleConnections()
		b.api.CloseIdleConnections()
		hook.Close()
	})
	s.desk = deskOf(b)
	s.hook, s.secret = s.alga.Subscribe("http://receiver.example/in", 0)
	s.serve = s.front
	s.enter(labels, func() string { return s.alga.Create("Printer") })
	return s
}

func (s *stage) enter(labels []string, create func() string) {
	s.on(says(http.StatusOK)) // before there is a receiver
	s.ids, s.changed, s.events = map[string]string{}, map[string]string{}, map[string]string{}
	for _, label := range labels {
		s.did(label+"0", func() { s.ids[label] = create() })
		if !strings.HasPrefix(label, "x") {
			s.watch = append(s.watch, s.ids[label])
		}
		sleep(time.Second)
	}
}

// ready starts everything, and returns when both sides have run long enough for
// what follows to be compared, seven seconds after a look of the poller.
func (s *stage) ready() {
	s.t.Helper()
	s.start()
	sleep(3*time.Minute + 7*time.Second)
}

func (s *stage) start() {
	s.t.Helper()
	s.began = time.Now()
	s.receives(nil)
	s.on(nil)
	s.ends = append(s.ends, s.polls(nil), s.collects())
}

// polls starts the poller and returns what stops it.
func (s *stage) polls(change func(*cutover.Config)) func() {
	stop := s.polling(s.watch, func(c *cutover.Config) {
		c.Now = s.clock
		if change != nil {
			change(c)
		}
	})
	return sync.OnceFunc(func() { stop() })
}

// collects starts the collector and returns what stops it.
func (s *stage) collects() func() {
	return sync.OnceFunc(s.collecting(s.hook, s.began, func(c *cutover.CollectorConfig) { c.Now = s.clock }))
}

// receives starts a receiver in the place of the one before, if there was one.
func (s *stage) receives(change func(*receiver.Config)) {
	s.t.Helper()
	if s.rec == nil {
		var err error
		if s.rec, err = cutover.OpenRecord(s.dir); err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() { s.rec.Close() })
	}
	door := pipe.Listen()
	cfg := receiver.Config{
		Listener: door, Path: "/in", DataDir: filepath.Join(s.dir, "receiver"), Record: s.rec, SecretFrom: "file",
		Secrets: func() []string { return []string{s.secret} }, Tickets: s.watch,
		React:  func(context.Context, *receiver.Event) error { return nil },
		Refuse: func(*webhook.Envelope) bool { return s.deny.Load() },
		Log:    slog.New(slog.DiscardHandler), Now: s.clock,
	}
	if change != nil {
		change(&cfg)
	}
	r, err := receiver.New(s.t.Context(), cfg)
	if err == nil {
		err = r.Start(s.t.Context())
	}
	if err != nil {
		s.t.Fatal(err)
	}
	inbox := &http.Client{Transport: &http.Transport{DialContext: door.Dial}}
	s.smu.Lock()
	s.rcv, s.inbox = r, inbox
	s.smu.Unlock()
	s.t.Cleanup(s.hangsUp(r, inbox))
}

// hangsUp returns what stops a receiver; it may be called twice.
func (s *stage) hangsUp(r *receiver.Receiver, inbox *http.Client) func() {
	return func() {
		inbox.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := r.Stop(ctx); err != nil {
			s.t.Error(err)
		}
	}
}

// clock is that of the integrator's machine.
func (s *stage) clock() time.Time { return time.Now().Add(s.skew) }

// away stops the receiver.
func (s *stage) away() { s.hangsUp(s.rcv, s.inbox)() }

// on puts a fault in front of the receiver; nil takes it away.
func (s *stage) on(way func(http.ResponseWriter, *parcel)) {
	s.smu.Lock()
	defer s.smu.Unlock()
	s.way = way
}

// front is what the sender meets.
func (s *stage) front(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	s.smu.Lock()
	way := s.way
	s.smu.Unlock()
	p := &parcel{r.Header.Clone(), body}
	if way == nil {
		s.pass(w, p)
		return
	}
	way(w, p)
}

// pass brings a parcel to the receiver and its answer to the sender, over a way
// that takes a while. A receiver that is not there breaks the connection off.
func (s *stage) pass(w http.ResponseWriter, p *parcel) {
	s.smu.Lock()
	inbox := s.inbox
	s.smu.Unlock()
	time.Sleep(20 * time.Millisecond)
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://receiver.example/in", bytes.NewReader(p.body))
	if err != nil {
		s.t.Error(err)
		return
	}
	r.Header = p.header.Clone()
	res, err := inbox.Do(r)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	time.Sleep(20 * time.Millisecond)
	w.WriteHeader(res.StatusCode)
	w.Write(text)
}

// says makes the proxy answer in place of the receiver.
func says(status int) func(http.ResponseWriter, *parcel) {
	return func(w http.ResponseWriter, _ *parcel) { w.WriteHeader(status) }
}

// breaksOff breaks each connection off.
func breaksOff(http.ResponseWriter, *parcel) { panic(http.ErrAbortHandler) }

// once lets the fault have the first parcel and passes the others on.
func (s *stage) once(fault func(http.ResponseWriter, *parcel)) func(http.ResponseWriter, *parcel) {
	var used sync.Once
	return func(w http.ResponseWriter, p *parcel) {
		way := s.pass
		used.Do(func() { way = fault })
		way(w, p)
	}
}

// rewritten returns a parcel with another data, signed as the sender signs.
func (s *stage) rewritten(p *parcel, change func(data map[string]any)) *parcel {
	var e map[string]any
	if err := json.Unmarshal(p.body, &e); err != nil {
		s.t.Error(err)
		return p
	}
	change(e["data"].(map[string]any))
	body, err := json.Marshal(e)
	if err != nil {
		s.t.Error(err)
	}
	out := &parcel{p.header.Clone(), body}
	out.header.Set(webhook.SignatureHeader, webhook.Sign(s.secret, time.Now(), body))
	return out
}

// shows makes the proxy in front of the API change what the poller is shown of a
// ticket.
func (s *stage) shows(change func(ticket map[string]any)) {
	s.breaks(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.UserAgent(), "ticketwire-poll") || !strings.HasPrefix(r.URL.Path, "/api/v1/tickets/") {
			return false
		}
		in, err := http.NewRequestWithContext(r.Context(), r.Method, "http://desk.example"+r.URL.RequestURI(), nil)
		if err != nil {
			s.t.Error(err)
			return false
		}
		in.Header.Set("X-API-Key", r.Header.Get("X-API-Key"))
		res, err := s.api.Do(in)
		if err != nil {
			s.t.Error(err)
			return false
		}
		defer res.Body.Close()
		var answer map[string]any
		if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
			s.t.Error(err)
		}
		change(answer["data"].(map[string]any))
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			s.t.Error(err)
		}
		return true
	})
}

// pollerGets makes the proxy answer the poller in place of the server, and nobody
// else.
func (s *stage) pollerGets(fault func(http.ResponseWriter, *http.Request) bool) {
	s.breaks(func(w http.ResponseWriter, r *http.Request) bool {
		return strings.HasPrefix(r.UserAgent(), "ticketwire-poll") && fault(w, r)
	})
}

// did lets a change happen and gives it, and its events, a name: the label of its
// ticket and a number.
func (s *stage) did(name string, change func()) {
	s.t.Helper()
	before := len(s.known())
	change()
	id := s.ids[strings.TrimRight(name, "0123456789")]
	if at, there := s.stateOf(id); there {
		if key := id + at.UTC().String(); s.changed[key] == "" {
			s.changed[key] = name
		}
	}
	for _, e := range s.known()[before:] {
		s.events[e.EventID+e.EventType] = name + " " + strings.TrimPrefix(e.EventType, "ticket.")
	}
}

// retitles changes the title of a ticket: one event.
func (s *stage) retitles(name string) {
	s.t.Helper()
	s.did(name, func() { s.changeTitle(s.ids[strings.TrimRight(name, "0123456789")], "Printer "+name) })
}

func (s *stage) changeTitle(id, title string) {
	s.t.Helper()
	if s.alga != nil {
		s.alga.Update(alga.REST, alga.Change{Title: &title}, id)
		return
	}
	s.call("PUT", "/tickets/"+id, map[string]any{"title": title})
}

// known returns all events that there are, oldest first.
func (s *stage) known() []client.Event {
	s.t.Helper()
	var out []client.Event
	if s.alga != nil {
		for _, e := range s.alga.Events() {
			out = append(out, client.Event{EventID: e.ID, EventType: e.Type})
		}
		return out
	}
	for _, e := range s.call("GET", "/events?limit=1000", nil)["data"].([]any) {
		e := e.(map[string]any)
		out = append(out, client.Event{EventID: e["event_id"].(string), EventType: e["event_type"].(string)})
	}
	return out
}

// stateOf returns the updated_at of a ticket that is there.
func (s *stage) stateOf(id string) (time.Time, bool) {
	s.t.Helper()
	c, err := client.New("http://desk.example", s.tenant.APIKey, client.WithHTTPClient(s.api))
	if err != nil {
		s.t.Fatal(err)
	}
	got, err := c.Ticket(s.t.Context(), id)
	if answer, is := errors.AsType[*client.Error](err); is && answer.Status == http.StatusNotFound {
		return time.Time{}, false
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return *got.UpdatedAt, true
}

// damages runs a statement on the database of our own server, as somebody does who
// goes behind its back.
func (s *stage) damages(statement string, args ...any) {
	s.t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(s.data, "ticketwire.db")+"?_pragma=busy_timeout(5000)")
	if err != nil {
		s.t.Fatal(err)
	}
	res, err := db.ExecContext(s.t.Context(), statement, args...)
	var n int64
	if err == nil {
		n, err = res.RowsAffected()
	}
	if err = errors.Join(err, db.Close()); err != nil || n == 0 {
		s.t.Fatalf("%d rows changed: %v", n, err)
	}
}

// ended stops everything and compares. It returns the record too.
func (s *stage) ended() (*cutover.Report, []cutover.Entry) {
	s.t.Helper()
	for _, end := range s.ends {
		end()
	}
	s.away()
	synctest.Wait()
	record := s.record()
	r, err := cutover.Compare(entries(record), cutover.Question{Setup: &cutover.Setup{
		Server: "http://desk.example", WebhookID: s.hook, Tickets: s.watch, Interval: 60, Started: s.began, Rules: s.rules,
	}})
	if err != nil {
		s.t.Fatal(err)
	}
	return r, record
}

// named returns the names of all observations by class.
func (s *stage) named(r *cutover.Report) map[cutover.Class][]string {
	out := map[cutover.Class][]string{}
	copies := map[string]int{}
	label := func(id string) string {
		for label, ticket := range s.ids {
			if ticket == id {
				return label
			}
		}
		return "list"
	}
	for _, row := range r.Rows {
		event := s.events[row.EventID+row.EventType]
		if event == "" {
			event = "other " + row.EventType
		}
		name := string(row.Kind) + " "
		switch change := s.changed[row.Ticket+row.UpdatedAt.String()]; row.Kind {
		case cutover.ChangeSeen, cutover.StateRead:
			if change == "" {
				change = label(row.Ticket)
			}
			name += change
		case cutover.EventKnown:
			name += event
		case cutover.CopyGot:
			copies[event]++
			name += fmt.Sprint(event, " ", copies[event])
		case cutover.PollFailed:
			name += label(row.Ticket)
		case cutover.TimeLost:
			side, _, _ := strings.Cut(row.Reason, ",")
			name += side
		}
		out[row.Class] = append(out[row.Class], name)
	}
	for class := range out {
		slices.Sort(out[class])
		out[class] = slices.Compact(out[class])
	}
	return out
}
