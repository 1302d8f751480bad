package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/cutover"
)

// watchFlags say which tickets to poll.
type watchFlags struct {
	IDs     []string `name:"ids" help:"Ids of the tickets to watch." placeholder:"ID"`
	IDsFile string   `name:"ids-file" help:"File with ids, one on a line; # begins a comment, - is standard input." placeholder:"FILE"`
	Query   string   `help:"Watch the tickets that fit this query of GET /tickets now." placeholder:"KEY=VALUE&..."`
	All     bool     `help:"Watch all tickets, new ones too, by their list."`
}

type pollCmd struct {
	apiFlags
	watchFlags

	Interval time.Duration `help:"From one round to the next." default:"60s"`
	Jitter   float64       `help:"A round is late by up to this share of the interval (0 to 1)." default:"0.05"`
	Budget   float64       `help:"Share of the API key's rate limit to use at most (above 0 to 1)." default:"0.5"`
	Timeout  time.Duration `help:"How long to wait for an answer." default:"10s"`
	State    string        `help:"Cutover directory: the record, and what has been seen." default:"ticketwire-cutover" placeholder:"DIR" type:"path"`

	Exec        string        `help:"Shell command to run for each change, with the event on its standard input. Without it events are lines of JSON on standard output." placeholder:"CMD"`
	ExecTimeout time.Duration `help:"How long the command may take." default:"1m"`
	Once        bool          `help:"Make one round, for cron."`
	Count       int           `help:"Make so many rounds." placeholder:"N"`
	Quiet       bool          `short:"q" help:"No summary."`
}

// Help is shown below the flags.
func (pollCmd) Help() string {
	return `Polls tickets for changes, against Ticketwire and AlgaPSA. This is the pipeline that
webhooks replace, without the flaws that such loops have: the first look at a ticket is
no change, times are compared as times, a 404, 429 or 5xx is no observation, Retry-After
is obeyed, and a restart repeats and skips nothing. What it sees goes into the record in
the cutover directory. If a cutover was started there, events are those for which it is
the poller's turn: after cutover finish it goes on watching and acts no more.

An event is an object with ticket_id, change (changed, or new with --all),
previous_updated_at, updated_at, seen_at and the ticket. If the command fails, the
change is seen again in the next round: events come at least once.

A ticket shows its last state only. What changed twice between two rounds is one event.

Examples:
  ticketwire poll --url https://desk.example.com --ids-file watched.txt
  ticketwire poll --all --interval 30s | jq -r .ticket.title
  ticketwire poll --query 'is_open=true&board_name=Support' --exec ./react.sh
  ticketwire poll --ids 0199...,0199... --once --quiet

Exit codes: 0 done, or ended by a signal; 1 a command failed in the last round of --once
or --count; 3 the key is refused; 5 another poller uses the directory; 6 the last round
of --once or --count was without an answer for some ticket.`
}

// Run polls until a signal, or for the rounds asked for.
func (c *pollCmd) Run(ctx context.Context, t terminal) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	api, err := c.connect()
	if err != nil {
		return err
	}
	ids, err := c.watched(ctx, api)
	if err != nil {
		return err
	}
	warnOfBudget(t, len(ids), c.Interval, c.Budget)
	show := newProgress(t)
	show.begin("poll")
	p, err := cutover.Open(cutover.Config{
		URL: c.URL, Key: c.APIKey, Dir: c.State, IDs: ids,
		Interval: c.Interval, Jitter: c.Jitter, Budget: c.Budget, Timeout: c.Timeout, Rounds: c.rounds(),
		React: func(ctx context.Context, change cutover.Change) error {
			show.end()
			err := c.react(ctx, t, change)
			if err != nil {
				fmt.Fprintf(t.err, "ticket %s: the reaction failed and will be repeated: %v\n", change.Ticket, err)
			}
			return err
		},
		Show: func(s cutover.Status) {
			if s.Until.IsZero() {
				show.note("%s", statusLine(s, time.Now()))
			} else {
				show.rest("%s", statusLine(s, time.Now()))
			}
		},
		Now: time.Now,
	})
	if err != nil {
		return err
	}
	defer closing(p, &err)
	err = p.Run(ctx)
	show.end()
	if !c.Quiet && p.Numbers().Requests > 0 {
		fmt.Fprint(t.err, summary(p.Numbers()))
	}
	if err == nil && ctx.Err() == nil {
		err = p.Incomplete()
	}
	return err
}

// check finds what is wrong with the flags.
func (c *pollCmd) check() error {
	var wrong string
	switch {
	case c.All && c.byID():
		wrong = "--all watches every ticket: leave --ids, --ids-file and --query out"
	case !c.All && !c.byID():
		wrong = "say what to watch: --ids, --ids-file or --query, or --all"
	case c.Interval <= 0:
		wrong = "--interval must be positive"
	case c.Jitter < 0 || c.Jitter > 1:
		wrong = "--jitter must be 0 to 1"
	case c.Budget <= 0 || c.Budget > 1:
		wrong = "--budget must be above 0 and at most 1"
	case c.Timeout <= 0 || c.ExecTimeout <= 0:
		wrong = "--timeout and --exec-timeout must be positive"
	case c.Count < 0:
		wrong = "--count must not be negative"
	case c.Once && c.Count > 1:
		wrong = "--once is --count 1: give one of them"
	default:
		return nil
	}
	return usageError{errors.New(wrong), "ticketwire poll --help"}
}

func (c *pollCmd) rounds() int {
	if c.Once {
		return 1
	}
	return c.Count
}

func (c *watchFlags) byID() bool { return len(c.IDs) > 0 || c.IDsFile != "" || c.Query != "" }

// ticketID is the form of a ticket's id; its number is something else.
var ticketID = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// watched returns the watch list; nil for all tickets.
func (c *watchFlags) watched(ctx context.Context, api *client.Client) ([]string, error) {
	if c.All {
		return nil, nil
	}
	ids := slices.Clone(c.IDs)
	if c.IDsFile != "" {
		more, err := readIDs("--ids-file", c.IDsFile)
		if err != nil {
			return nil, err
		}
		ids = append(ids, more...)
	}
	for _, id := range ids {
		if !ticketID.MatchString(id) {
			return nil, usageError{fmt.Errorf("%q is not the id of a ticket: ids are UUIDs, the ticket_id of the API", id), "ticketwire poll --query ticket_number=" + url.QueryEscape(id)}
		}
	}
	if c.Query != "" {
		q, err := url.ParseQuery(strings.TrimPrefix(c.Query, "?"))
		if err != nil {
			return nil, usageError{fmt.Errorf("--query: %w", err), "--query 'is_open=true&board_name=Support'"}
		}
		for t, err := range api.Tickets(ctx, client.TicketFilter{Sort: "ticket_number", Order: "asc", Other: q}) {
			if err != nil {
				return nil, fmt.Errorf("--query: %w", err)
			}
			ids = append(ids, t.TicketID)
		}
	}
	if len(ids) == 0 {
		return nil, usageError{errors.New("there is no ticket to watch"), "ticketwire poll --all"}
	}
	return ids, nil
}

// readIDs reads the file of a flag.
func readIDs(flag, name string) ([]string, error) {
	in := io.Reader(os.Stdin)
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, usageError{fmt.Errorf("%s: %w", flag, err), ""}
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	var ids []string
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" {
			ids = append(ids, line)
		}
	}
	return ids, nil
}

// warnOfBudget says when a watch list is more than the budget allows, for a key
// with the limit that keys have.
func warnOfBudget(t terminal, tickets int, interval time.Duration, budget float64) {
	const usual = 60 // requests per minute (contract section 1.6)
	need, may := float64(tickets)/interval.Minutes(), usual*budget
	if need > may {
		fmt.Fprintf(t.err, "%d tickets every %s are %.0f requests per minute; a key that may make %d leaves %.0f of them to the budget, so rounds will take longer. --all needs two requests per round.\n",
			tickets, interval, need, usual, may)
	}
}

// pollEvent is what the command or the reader of standard output gets.
type pollEvent struct {
	TicketID string          `json:"ticket_id"`
	Change   cutover.Verdict `json:"change"`
	Previous *time.Time      `json:"previous_updated_at"` // null for a new ticket
	Updated  time.Time       `json:"updated_at"`
	SeenAt   time.Time       `json:"seen_at"`
	Ticket   json.RawMessage `json:"ticket"`
}

func (c *pollCmd) react(ctx context.Context, t terminal, change cutover.Change) error {
	e := pollEvent{
		TicketID: change.Ticket, Change: change.Verdict, Updated: change.UpdatedAt,
		SeenAt: change.SeenAt.UTC().Truncate(time.Microsecond), Ticket: change.Raw,
	}
	if !change.Previous.IsZero() {
		e.Previous = &change.Previous
	}
	var line bytes.Buffer
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		return err
	}
	if c.Exec == "" {
		_, err := t.out.Write(line.Bytes())
		return err
	}
	// A signal lets the command finish: broken off, it would run again.
	return runCommand(context.WithoutCancel(ctx), t, "--exec", c.Exec, c.ExecTimeout, line.Bytes())
}

func statusLine(s cutover.Status, now time.Time) string {
	n := s.Numbers
	text := fmt.Sprintf("%d tickets, %d requests, %d changes", s.Watched, n.Requests, n.Changes)
	if missed := n.NoObservation(); missed > 0 {
		text += fmt.Sprintf(", %d without an observation, blind %s", missed, n.BlindAt(now).Round(time.Second))
	}
	if s.Owed > 0 {
		text += fmt.Sprintf(", %d reactions failed", s.Owed)
	}
	if !s.Until.IsZero() {
		text += ", next " + s.Until.Format("15:04:05")
	}
	return text
}

// summary is what polling came to, and what webhooks would save of it.
func summary(n *cutover.Numbers) string {
	var b strings.Builder
	fmt.Fprintf(&b, "requests   %d, of which %d showed a change; %d changes", n.Requests, n.Useful, n.Changes)
	if n.Gone > 0 {
		fmt.Fprintf(&b, ", %d tickets gone", n.Gone)
	}
	b.WriteString("\n")
	if n.Changes > 0 {
		median, p95, longest := n.Lag()
		fmt.Fprintf(&b, "lag        median %s, 95 %% within %s, longest %s\n", short(median), short(p95), short(longest))
	}
	if n.NoObservation() > 0 {
		var kinds []string
		for _, f := range slices.Sorted(maps.Keys(n.Failures)) {
			kinds = append(kinds, fmt.Sprintf("%s %d", f, n.Failures[f]))
		}
		fmt.Fprintf(&b, "no answer  %d requests without an observation: %s\n", n.NoObservation(), strings.Join(kinds, ", "))
	}
	if n.Blind > 0 {
		fmt.Fprintf(&b, "blind      %s, when a change could not be seen\n", n.Blind.Round(time.Second))
	}
	if ahead := n.ClockAhead(); ahead != 0 {
		fmt.Fprintf(&b, "clock      the server's is %s ahead of this machine's; lags are corrected\n", ahead.Round(100*time.Millisecond))
	}
	perHour := n.PerHour()
	fmt.Fprintf(&b, "rate       %.0f requests per hour, %.0f per day", perHour, 24*perHour)
	if share := n.LimitShare(); share > 0 {
		fmt.Fprintf(&b, ", %.0f %% of what the key may do", 100*share)
	}
	fmt.Fprintf(&b, "\nwebhooks   would save %.0f requests per day, and send 1 to 3 for each change instead\n", 24*perHour)
	return b.String()
}
