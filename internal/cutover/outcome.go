package cutover

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

// decide comes to the verdict: what must be put right is NO-GO, what has not been
// proved yet is EXTEND, and what webhooks cannot tell needs a reconciler.
func (r *Report) decide(rules Rules, dir string) {
	r.Blockers, r.Unproved, r.Notes = []Finding{}, []Finding{}, []Finding{}
	v := advice{r, quoted(cmp.Or(r.WebhookID, "WEBHOOK")), dir}
	v.origin()
	v.losses()
	v.contents()
	v.operation()
	v.proofs(rules)
	v.reminders()
	switch n := len(r.Blockers); {
	case n > 0:
		r.Outcome, r.Exit = NoGo, 30
		r.Headline = plural(n, "thing", "things") + " must be put right: " + titles(r.Blockers)
	case len(r.Unproved) > 0:
		r.Outcome, r.Exit = Extend, 20
		r.Headline = v.extend()
	case r.Changes(NoType) > 0:
		r.Outcome, r.Exit = GoWithReconciler, 10
		r.Headline = fmt.Sprintf("nothing was missed but %s that no event type tells of: keep the reconciler", plural(r.Changes(NoType), "change", "changes"))
	default:
		r.Outcome, r.Exit = Go, 0
		r.Headline = fmt.Sprintf("none of %s was missed, so at most %s are, with 95 %% confidence", plural(r.Coverage.Eligible, "change", "changes"), percent(r.Coverage.MissBound))
	}
	if r.Outcome == Go || r.Outcome == GoWithReconciler {
		r.Notes = append(r.Notes, Finding{Code: "next", Title: "the receiver can take the turn", Command: v.cutover("finish")})
	}
}

// advice finds what stands in the way of GO.
type advice struct {
	*Report
	webhook, dir string
}

func (v *advice) block(f Finding) { v.Blockers = append(v.Blockers, f) }
func (v *advice) wait(f Finding)  { v.Unproved = append(v.Unproved, f) }

// cutover is a subcommand of ticketwire cutover.
func (v *advice) cutover(command string) string {
	text := fmt.Sprintf("ticketwire cutover %s --state %s", command, quoted(v.dir))
	if strings.HasPrefix(command, "drill ") {
		text += " --ticket ID"
	}
	return text
}

// quoted is a text as a shell takes it.
func quoted(text string) string {
	if text != "" && strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./") == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// evidenceShown is how many pieces of evidence a finding has.
const evidenceShown = 5

// evidence lists observations in the classes, first those that have a kind before
// others.
func (v *advice) evidence(kind Kind, classes ...Class) []string {
	var out []string
	rest := 0
	for i := range v.Classes {
		n := &v.Classes[i]
		if !slices.Contains(classes, n.Class) {
			continue
		}
		total := n.Total
		if kind != "" {
			total = n.Kinds[kind]
		}
		listed := 0
		for _, row := range n.Samples {
			if (kind == "" || row.Kind == kind) && len(out) < evidenceShown {
				out = append(out, row.String())
				listed++
			}
		}
		rest += total - listed
	}
	if rest > 0 {
		out = append(out, fmt.Sprintf("and %d more", rest))
	}
	return out
}

// String is a row on one line.
func (r Row) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", r.Class, r.Kind)
	if !r.At.IsZero() {
		b.WriteString(" " + r.At.Format("2006-01-02 15:04:05Z"))
	}
	if r.Ticket != "" {
		b.WriteString(" ticket " + r.Ticket)
	}
	if r.EventID != "" {
		fmt.Fprintf(&b, " %s %s", r.EventType, r.EventID)
	}
	if r.Reason != "" {
		b.WriteString(": " + r.Reason)
	}
	return b.String()
}

func (v *advice) losses() {
	add := func(class Class, cause, command string) {
		changes, events := v.Changes(class), v.Count(EventKnown, class)
		if changes+events == 0 {
			return
		}
		kind := ChangeSeen
		if changes == 0 {
			kind = EventKnown
		}
		v.block(Finding{
			Code: string(class), Title: fmt.Sprintf("%s, %s missed: %s", plural(changes, "change", "changes"), plural(events, "event", "events"), strings.TrimPrefix(class.Info().Title, "poll only: ")),
			Evidence: v.evidence(kind, class), Cause: cause, Command: command,
		})
	}
	add(Abandoned, "The receiver, or what is before it, failed for longer than the sender tries.",
		fmt.Sprintf("ticketwire webhooks deliveries %s --status abandoned", v.webhook))
	add(Rejected, "The receiver has another secret than the webhook, a clock that is wrong, or a limit that is too low; or a proxy changes or refuses the requests.",
		fmt.Sprintf("ticketwire webhooks deliveries %s --status failed", v.webhook))
	add(NeverSent, "The sender lost the event before it owed a delivery.",
		fmt.Sprintf("ticketwire webhooks replay %s --since %s --dry-run", v.webhook, v.firstOf(NeverSent)))
	if n := v.Changes(NotSubscribed); n > 0 {
		v.block(Finding{
			Code: string(NotSubscribed), Title: plural(n, "change", "changes") + " that the webhook or the receiver is not set up for",
			Evidence: v.evidence(ChangeSeen, NotSubscribed),
			Cause:    "An event type is missing from the subscription, or a filter leaves the ticket out.",
			Command:  fmt.Sprintf("ticketwire webhooks update %s --types %s --filter null", v.webhook, strings.Join(v.types(), ",")),
		})
	}
	if v.Coverage.Doubtful > 0 {
		v.block(Finding{
			Code: string(Unexplained), Title: plural(v.Coverage.Doubtful, "observation", "observations") + " without an explanation",
			Evidence: v.evidence("", Unexplained),
			Cause:    "The record lacks what would tell, such as the log of deliveries or the event feed; or something is wrong that has no name yet.",
			Command:  v.cutover("status"),
		})
	}
}

// firstOf is when the first observation in a class was, as --since takes it.
func (v *advice) firstOf(class Class) string {
	for i := range v.Classes {
		if n := &v.Classes[i]; n.Class == class && len(n.Samples) > 0 {
			return n.Samples[0].At.Format("2006-01-02T15:04:05Z")
		}
	}
	return "24h"
}

// ticketTypes are the event types that tell of what a poll of a ticket can show.
func ticketTypes() []string {
	return []string{
		webhook.TicketCreated, webhook.TicketUpdated, webhook.TicketStatusChanged,
		webhook.TicketAssigned, webhook.TicketClosed, webhook.TicketCommentAdded,
	}
}

// types are the event types that the webhook subscribes to and those that tickets
// have.
func (v *advice) types() []string {
	all := ticketTypes()
	for _, t := range v.Types {
		if !slices.Contains(all, t.Name) {
			all = append(all, t.Name)
		}
	}
	return all
}

func (v *advice) contents() {
	if n := v.Coverage.Mismatched; n > 0 && !v.Safety.Refetch {
		v.block(Finding{
			Code: "M1+M3", Title: plural(n, "payload", "payloads") + " that said something else than the poll",
			Evidence: v.evidence(EventKnown, StalePayload, FieldsDiffer),
			Cause:    "The sender keeps payloads for a while, or reads them before the change is committed. A receiver that runs elsewhere needs it too: ticketwire receive --refetch.",
			Command:  v.cutover("start --refetch"),
		})
	}
	if n := v.Copies.OtherBody; n > 0 {
		v.block(Finding{
			Code: string(OtherBody), Title: plural(n, "copy", "copies") + " of an event with another body",
			Evidence: v.evidence(CopyGot, OtherBody),
			Cause:    "Somebody who knows the secret sends other events under ids that are taken, or the sender makes the body anew for each attempt.",
			Command:  fmt.Sprintf("ticketwire webhooks rotate %s", v.webhook),
		})
	}
	if v.Safety.SecretFrom == "config" {
		v.block(Finding{
			Code: "secret", Title: "the signing secret is in a configuration file",
			Evidence: []string{"the receiver says that it has its secret from: config"},
			Cause:    "Configuration files are copied and committed.",
			Command:  "ticketwire receive --secret-file FILE",
		})
	}
}

// origin finds that the record is of another webhook.
func (v *advice) origin() {
	if c := v.Copies; c.Own == 0 && c.Others > 0 {
		v.block(Finding{
			Code: "webhook", Title: fmt.Sprintf("no request came from webhook %s, and %s from elsewhere", v.webhook, count(c.Others)),
			Cause:   "The cutover was started with the id of another webhook, or nothing but backfills has arrived.",
			Command: "ticketwire cutover start --webhook ID --state DIR",
		})
	}
}

// lagCounts is how many changes it takes to compare 95 % of them. Of fewer, that is
// the slowest one, which a single retry decides, and half of them are compared; of
// fewer than lagLeast a retry decides that too, and nothing is said.
const (
	lagCounts = 20
	lagLeast  = 5
)

func (v *advice) operation() {
	first, poll, share := v.Lag.FirstByte.P95, v.Lag.Poll.P95, "95 %"
	if v.Lag.Poll.N < lagCounts {
		first, poll, share = v.Lag.FirstByte.Median, v.Lag.Poll.Median, "half"
	}
	if v.Lag.Poll.N >= lagLeast && first >= poll {
		v.block(Finding{
			Code: "lag", Title: fmt.Sprintf("webhooks are not faster: %s within %s, polls %s", share, duration(first), duration(poll)),
			Evidence: []string{fmt.Sprintf("the slowest: %s", slowest(v.Slowest))},
			Cause:    "Retries, a queue of the sender, or a rate limit of the webhook.",
			Command:  fmt.Sprintf("ticketwire webhooks deliveries %s --status failed", v.webhook),
		})
	}
}

func slowest(all []Slow) string {
	if len(all) == 0 {
		return "none"
	}
	return fmt.Sprintf("event %s of ticket %s, %s after the change, attempt %d", all[0].EventID, all[0].Ticket, duration(all[0].Webhook), all[0].Attempt)
}

// proofs finds what has not been seen yet.
func (v *advice) proofs(rules Rules) {
	c, w := v.Coverage, v.Window
	switch {
	case w.From.IsZero():
		v.wait(Finding{
			Code: "window", Title: "the poller and the receiver have not run together long enough to compare anything",
			Cause: "The record of one side is missing, or both have only just begun.", Command: v.cutover("status"),
		})
	case w.Seconds < w.Required:
		v.wait(Finding{
			Code: "window", Title: fmt.Sprintf("a window of %s: %s more", duration(w.Required), duration(w.Required-w.Seconds)),
			Cause: "Both pipelines have to go on running.", Command: v.cutover("report"),
		})
	}
	if busy := min(8, w.Required/3600); !w.From.IsZero() && w.Business < busy {
		v.wait(Finding{
			Code: "busy", Title: fmt.Sprintf("the window has %.1f of %.0f hours from Monday to Friday", w.Business, busy),
			Cause: "It has no busy time in it yet.", Command: v.cutover("report"),
		})
	}
	if c.MissBound > c.Allowed {
		v.wait(Finding{
			Code: "bound", Title: fmt.Sprintf("%d of %d changes for at most %s missed; now it is at most %s", c.Eligible, c.Needed, percent(c.Allowed), percent(c.MissBound)),
			Cause: atThisRate(c), Command: v.cutover("drill edit"),
		})
	}
	var unseen []string
	for _, t := range v.Types {
		if t.Seen == 0 && !t.Waived {
			unseen = append(unseen, t.Name)
		}
	}
	if len(unseen) > 0 {
		cause := "Nothing of the kind happened. A type that is not needed can be left out of the subscription, or waived by name in " + SetupName + "."
		if v.unread {
			cause = "The record does not have what the webhook subscribes to, so every type of a ticket counts. One that it does not subscribe to, or that is not needed, can be waived by name in " + SetupName + "."
		}
		v.wait(Finding{Code: "types", Title: "not seen yet: " + strings.Join(unseen, ", "), Cause: cause, Command: v.cause(unseen[0])})
	}
	if n := c.Untold; n > 0 {
		v.wait(Finding{
			Code: "untold", Title: plural(n, "change", "changes") + " of which nothing has come yet, and no log says that it will",
			Evidence: v.evidence(ChangeSeen, Pending),
			Cause:    "The sender may still try. Without its log nobody can tell that from a loss before its time is over.", Command: v.cutover("report"),
		})
	}
	for _, p := range v.Drills {
		if p.Proved {
			continue
		}
		what := map[string]string{
			"restart": "no restart of the receiver with events before and after it",
			"retry":   "no event that was taken at a later attempt, after one that failed",
		}[p.Kind]
		if !p.Asked.IsZero() {
			what += fmt.Sprintf(", though it was tried at %s", p.Asked.Format("2006-01-02 15:04Z"))
		}
		v.wait(Finding{Code: p.Kind, Title: what, Cause: "It has not happened in the window.", Command: v.cutover("drill " + p.Kind)})
	}
	if v.Safety.Silence == 0 {
		v.wait(Finding{Code: "silence", Title: "no alarm for silence", Cause: "The receiver was started without one.", Command: "ticketwire receive --silence 1h"})
	}
	if v.Safety.Reconciler == 0 {
		v.wait(Finding{Code: "reconciler", Title: "no reconciler", Cause: "None was started.", Command: "ticketwire reconcile --state " + quoted(v.dir)})
	}
}

// cause is a command after which there is an event of the type.
func (v *advice) cause(eventType string) string {
	switch eventType {
	case "ticket.created":
		return "ticketwire tickets create --help"
	case "ticket.assigned":
		return "ticketwire tickets update ID --assign USER_ID"
	case "ticket.status_changed", "ticket.closed":
		return "ticketwire tickets update ID --status STATUS_ID"
	case "ticket.comment.added":
		return "ticketwire tickets comment ID TEXT"
	default:
		return v.cutover("drill edit")
	}
}

func atThisRate(c Coverage) string {
	switch {
	case c.MoreDays < 0:
		return "There was no change in the window yet."
	case c.PerDay > 0 && c.MoreDays > 0:
		return fmt.Sprintf("At %.1f changes a day, %s more.", c.PerDay, days(c.MoreDays))
	default:
		return "What was missed counts against it for as long as it is in the window."
	}
}

// reminders are what else to know.
func (v *advice) reminders() {
	note := func(code, title string) { v.Notes = append(v.Notes, Finding{Code: code, Title: title}) }
	for _, read := range []struct {
		what string
		to   time.Time
	}{{"event feed", v.Read.Feed}, {"log of deliveries", v.Read.Deliveries}, {"webhook's setup", v.Read.Webhook}} {
		if !read.to.IsZero() && read.to.Before(v.Window.Settled) {
			note("collector", fmt.Sprintf("the %s was last read at %s: what was lost after that cannot be told", read.what, read.to.Format("2006-01-02 15:04:05Z")))
		}
	}
	if n := v.Changes(Pending); n > 0 {
		note("P1", plural(n, "change is", "changes are")+" late and will be judged later")
	}
	if n := v.Blind.Exposed; n > 0 {
		v.Notes = append(v.Notes, Finding{
			Code: "exposure", Title: plural(n, "change", "changes") + " while the webhook or the receiver was off",
			Evidence: v.evidence(ChangeSeen, ReceiverDown, Disabled), Command: fmt.Sprintf("ticketwire webhooks missed %s", v.webhook),
		})
	}
	if r := v.Recovery; r.Recovered > 0 {
		note("recovery", fmt.Sprintf("a backfill or a resend has brought %s of %s changes and events that were missed, exposed or unexplained; they count as that all the same", count(r.Recovered), count(r.Lost)))
	}
	if n := v.Changes(NoType); n > 0 {
		v.Notes = append(v.Notes, Finding{Code: "P5", Title: plural(n, "change", "changes") + " that no event type tells of", Evidence: v.evidence(ChangeSeen, NoType)})
	}
	if n := v.Count(CopyGot, SameDelivery); n > 0 {
		v.Notes = append(v.Notes, Finding{Code: "D2", Title: plural(n, "request", "requests") + " came twice: a proxy repeats them, or somebody does", Evidence: v.evidence(CopyGot, SameDelivery)})
	}
	if n := v.Coverage.Mismatched; n > 0 && v.Safety.Refetch {
		note("refetch", plural(n, "payload", "payloads")+" said something else than the poll; the receiver reads the ticket again, so keep that on")
	}
	if n := v.Copies.ReactedTwice; n > 0 {
		note("twice", plural(n, "event", "events")+" acted on more than once: events come at least once, so the reaction must bear it")
	}
	for _, s := range v.Rules {
		if s.Void != "" {
			note("rule", fmt.Sprintf("the rule to ignore %s does not count: %s", s.Field, s.Void))
		}
	}
	if v.Traffic.Events > 0 && v.Traffic.Share < 0.2 {
		note("filter", fmt.Sprintf("%s of the events are about tickets that are watched: entity_ids in the webhook's filter would spare the rest", percent(v.Traffic.Share)))
	}
}

// extend says how far it is.
func (v *advice) extend() string {
	c := v.Coverage
	switch {
	case v.Window.From.IsZero():
		return "nothing to compare yet"
	case c.MissBound > c.Allowed:
		text := fmt.Sprintf("clean so far: %d of %d changes for at most %s missed (now at most %s)", c.Eligible, c.Needed, percent(c.Allowed), percent(c.MissBound))
		if c.MoreDays > 0 {
			text += ", about " + days(max(c.MoreDays, (v.Window.Required-v.Window.Seconds)/86400)) + " more"
		}
		return text
	default:
		return "clean so far; still to be proved: " + titles(v.Unproved)
	}
}

func titles(all []Finding) string {
	var out []string
	for _, f := range all {
		out = append(out, f.Title)
	}
	return strings.Join(out, "; ")
}
