package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ticketwire/ticketwire/internal/cutover"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/receiver"
)

type cutoverStatusCmd struct {
	stateFlag
	Watch bool          `help:"Show it again and again, until a signal."`
	Every time.Duration `help:"From one look to the next with --watch." default:"5s"`
	JSON  bool          `name:"json" help:"Print a JSON object."`
}

// Help is shown below the flags.
func (cutoverStatusCmd) Help() string {
	return `Shows how a cutover goes, from what is in its directory: when each side saw something last,
gaps, what waits for a reaction, the classes so far, and what is missing for GO. It asks
nobody and changes nothing.`
}

// cutoverStatus is how a cutover goes.
type cutoverStatus struct {
	At       time.Time      `json:"at"`
	Server   string         `json:"server"`
	Webhook  string         `json:"webhook_id"`
	Started  time.Time      `json:"started"`
	Turn     cutover.Turn   `json:"turn"`
	Poller   pollerStatus   `json:"poller"`
	Receiver receiverStatus `json:"receiver"`
	Sender   senderStatus   `json:"sender"`
	Gaps     []cutover.Gap  `json:"gaps"` // the last ones

	Report *cutover.Report `json:"report"`
}

type pollerStatus struct {
	Last     time.Time `json:"last,omitzero"` // the last answer
	Tickets  int       `json:"tickets"`       // watched; 0 for all
	Interval float64   `json:"interval"`
	Requests int       `json:"requests"`
	Changes  int       `json:"changes"`
	Failures int       `json:"without_observation"`
	Blind    float64   `json:"blind"`
}

type receiverStatus struct {
	Alive    time.Time `json:"alive,omitzero"` // zero: it runs elsewhere, or never did
	Last     time.Time `json:"last,omitzero"`  // the last request that was signed
	Type     string    `json:"last_event_type,omitempty"`
	Requests int       `json:"requests"`
	Refused  int       `json:"refused"` // not answered with 2xx
	Acted    int       `json:"acted"`
	Failed   int       `json:"reactions_failed"`
	Queued   *int      `json:"queued"` // null: its inbox is elsewhere
	Dead     *int      `json:"dead"`
}

type senderStatus struct {
	Looked     time.Time `json:"looked,omitzero"` // the collector
	Active     *bool     `json:"active"`          // null: not known
	Why        string    `json:"why,omitempty"`
	Deliveries int       `json:"deliveries"`
	Events     int       `json:"events"`
}

// gapsShown is how many gaps a status has.
const gapsShown = 5

// Run prints the status once, or until ctx ends.
func (c *cutoverStatusCmd) Run(ctx context.Context, t terminal) error {
	if c.Every <= 0 {
		return usageError{errors.New("--every must be positive"), "--every 5s"}
	}
	for first := true; first || pause(ctx, c.Every) == nil; first = false {
		s, err := c.look(ctx, time.Now())
		if err != nil {
			return err
		}
		switch {
		case c.JSON && c.Watch:
			err = json.NewEncoder(t.out).Encode(s)
		case c.JSON:
			err = printJSON(t.out, s)
		default:
			if c.Watch && newProgress(t).w != nil {
				fmt.Fprint(t.out, "\x1b[H\x1b[2J")
			}
			err = s.write(t.out)
		}
		if err != nil || !c.Watch {
			return err
		}
	}
	return nil
}

// look reads the directory.
func (c *cutoverStatusCmd) look(ctx context.Context, now time.Time) (*cutoverStatus, error) {
	setup, err := cutover.LoadSetup(c.State)
	if err != nil {
		return nil, err
	}
	s := &cutoverStatus{
		At: now.UTC(), Server: setup.Server, Webhook: setup.WebhookID, Started: setup.Started, Gaps: []cutover.Gap{},
		Turn:     setup.Turns[len(setup.Turns)-1],
		Poller:   pollerStatus{Tickets: len(setup.Tickets), Interval: setup.Interval},
		Receiver: receiverStatus{Alive: receiver.Alive(c.State)},
	}
	var numbers cutover.Numbers
	if s.Report, err = c.report(setup, func(e cutover.Entry) { numbers.Add(e); s.add(e) }); err != nil {
		return nil, err
	}
	p := &s.Poller
	p.Last, p.Requests, p.Changes, p.Failures = numbers.To, numbers.Requests, numbers.Changes, numbers.NoObservation()
	p.Blind = numbers.Blind.Seconds()
	if info, err := os.Stat(filepath.Join(c.State, "collect.json")); err == nil {
		s.Sender.Looked = info.ModTime().UTC()
	}
	return s, s.Receiver.queue(ctx, c.State)
}

// queue counts what waits for a reaction.
func (r *receiverStatus) queue(ctx context.Context, dir string) (err error) {
	inbox, err := receiver.OpenStore(ctx, receiver.StoreConfig{Dir: dir, MustExist: true, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	if fault.KindOf(err) == fault.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	defer closing(inbox, &err)
	stats, err := inbox.Stats(ctx)
	if err == nil {
		r.Queued, r.Dead = &stats.Queued, &stats.Dead
	}
	return err
}

// add takes from an entry what is shown.
func (s *cutoverStatus) add(e cutover.Entry) {
	switch {
	case e.Receipt != nil:
		r := &s.Receiver
		r.Requests++
		if e.Receipt.HTTP > 299 {
			r.Refused++
		}
		if e.Receipt.Signed {
			r.Last, r.Type = e.Receipt.At, e.Receipt.EventType
		}
	case e.Reaction != nil && e.Reaction.Error != "":
		s.Receiver.Failed++
	case e.Reaction != nil && e.Reaction.Acted:
		s.Receiver.Acted++
	case e.Subscription != nil:
		s.Sender.Active, s.Sender.Why = &e.Subscription.Active, e.Subscription.Why
	case e.Delivery != nil:
		s.Sender.Deliveries++
	case e.Truth != nil:
		s.Sender.Events++
	case e.Gap != nil && e.Gap.Side != cutover.SideClock:
		s.Gaps = append(s.Gaps, *e.Gap)
		s.Gaps = s.Gaps[max(0, len(s.Gaps)-gapsShown):]
	}
}

// write prints the status for people.
func (s *cutoverStatus) write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) { fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	line("cutover", "webhook %s at %s, since %s", s.Webhook, s.Server, s.Started.Local().Format(time.DateTime))
	line("turn", "the %s acts on changes since %s", s.Turn.Side, s.Turn.From.Local().Format(time.DateTime))
	if s.Turn.Why != "" {
		line("", "%s, by %s", printable(s.Turn.Why), printable(s.Turn.By))
	}
	watched := "all tickets"
	if s.Poller.Tickets > 0 {
		watched = fmt.Sprintf("%d tickets", s.Poller.Tickets)
	}
	line("poller", "last answer %s; %s every %s; %d requests, %d changes, %d without an observation, blind %s", s.ago(s.Poller.Last), watched,
		seconds(s.Poller.Interval), s.Poller.Requests, s.Poller.Changes, s.Poller.Failures, seconds(s.Poller.Blind).Round(time.Second))
	s.Receiver.write(line, s)
	state := "not known"
	if s.Sender.Active != nil {
		if state = "enabled"; !*s.Sender.Active {
			state = "DISABLED: " + s.Sender.Why
		}
	}
	line("sender", "looked at %s; the webhook is %s; %d lines about deliveries, %d about events", s.ago(s.Sender.Looked), printable(state), s.Sender.Deliveries, s.Sender.Events)
	for _, g := range s.Gaps {
		line("gap", "%s of the %s since %s: %s", g.To.Sub(g.From).Round(time.Second), g.Side, g.From.Local().Format(time.DateTime), printable(g.Why))
	}
	var classes []string
	for _, c := range s.Report.Classes {
		if c.Total > 0 {
			classes = append(classes, fmt.Sprintf("%s %d", c.Class, c.Total))
		}
	}
	line("classes", "%s", strings.Join(classes, "  "))
	line("verdict", "%s: %s", s.Report.Outcome, printable(s.Report.Headline))
	if c := s.Report.Coverage; c.MoreDays > 0 {
		line("time", "about %.1f days at %.1f changes a day, or: ticketwire cutover drill edit", c.MoreDays, c.PerDay)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	printFindings(out, s.Report)
	return nil
}

func (r *receiverStatus) write(line func(name, format string, args ...any), s *cutoverStatus) {
	alive := "runs elsewhere, or not at all"
	if !r.Alive.IsZero() {
		alive = "alive " + s.ago(r.Alive)
	}
	last := "no event yet"
	if !r.Last.IsZero() {
		last = fmt.Sprintf("last event %s (%s)", s.ago(r.Last), printable(r.Type))
	}
	line("receiver", "%s; %s; %d requests, %d refused; %d reactions, %d failed", alive, last, r.Requests, r.Refused, r.Acted, r.Failed)
	if r.Queued != nil {
		line("queue", "%d wait for a reaction, %d have failed for good", *r.Queued, *r.Dead)
	}
}

func (s *cutoverStatus) ago(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return max(0, s.At.Sub(t)).Round(time.Second).String() + " ago"
}

// printFindings says what stands between a report and GO, and what to do about it.
func printFindings(w io.Writer, r *cutover.Report) {
	for _, part := range []struct {
		title string
		all   []cutover.Finding
	}{{"must be put right:", r.Blockers}, {"not proved yet:", r.Unproved}} {
		if len(part.all) > 0 {
			fmt.Fprintln(w, part.title)
		}
		for _, f := range part.all {
			fmt.Fprintf(w, "  %s\n      %s\n", printable(f.Title), printable(f.Command))
		}
	}
}
