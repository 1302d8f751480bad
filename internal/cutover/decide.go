package cutover

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ticketwire/ticketwire/client"
)

// Verdict is what an observation of a ticket means.
type Verdict string

// The verdicts. The poller reacts to New and Changed only.
const (
	First   Verdict = "first"   // never seen before: where watching begins
	New     Verdict = "new"     // not there when the list was first read
	Changed Verdict = "changed" // updated_at is later than what was dealt with
	Same    Verdict = "same"    // the same updated_at
	// Older is an updated_at before the one that was dealt with: an answer of a
	// replica that lags, or of a database that was restored.
	Older Verdict = "older"
)

// Reacts reports whether the poller reacts.
func (v Verdict) Reacts() bool { return v == New || v == Changed }

// judge compares an observation with what was dealt with last. complete says
// that every ticket there was has been seen, so that an unknown one is new.
func judge(at time.Time, last *seen, complete bool) Verdict {
	switch {
	case last == nil && complete:
		return New
	case last == nil:
		return First
	case at.After(last.UpdatedAt):
		return Changed
	case at.Equal(last.UpdatedAt):
		return Same
	default:
		return Older
	}
}

// compared are the fields that polls and webhooks both show (the guide's field
// mapping; contract section 4.4). url is not among them: the ticket's is a stored
// link and the webhook's the deep link.
func compared() []string {
	return []string{
		"ticket_number", "title", "status_id", "status_name", "priority_id", "priority_name",
		"client_id", "client_name", "contact_name_id", "contact_name", "contact_email",
		"assigned_to", "assigned_to_name", "assigned_team_id", "board_id", "board_name", "category_id", "subcategory_id",
		"is_closed", "entered_at", "closed_at", "due_date", "tags",
	}
}

// changedAt returns when a ticket last changed. A ticket that was never updated
// has the time at which it was entered.
func changedAt(t *client.Ticket) (time.Time, error) {
	at := t.UpdatedAt
	if at == nil {
		at = t.EnteredAt
	}
	switch {
	case t.TicketID == "":
		return time.Time{}, errors.New("a ticket without ticket_id")
	case at == nil:
		return time.Time{}, fmt.Errorf("ticket %s has no updated_at", t.TicketID)
	}
	return micros(*at), nil
}

// observe reads the state of a ticket.
func observe(t *client.Ticket) (Observation, error) {
	at, err := changedAt(t)
	if err != nil {
		return Observation{}, err
	}
	fields, hash, err := stateOf(t.Raw)
	if err != nil {
		return Observation{}, fmt.Errorf("ticket %s: %w", t.TicketID, err)
	}
	return Observation{Ticket: t.TicketID, UpdatedAt: at, Hash: hash, Fields: fields}, nil
}

// stateOf picks the compared fields out of a ticket, or out of a webhook's data.
func stateOf(raw json.RawMessage) (map[string]json.RawMessage, string, error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, "", err
	}
	fields := map[string]json.RawMessage{}
	for _, name := range compared() {
		if v, has := all[name]; has {
			fields[name] = v
		}
	}
	// AlgaPSA has no is_closed before the first change of a ticket's status, while its
	// payloads say what the status says (contract section 2.1).
	if string(fields["is_closed"]) == "null" {
		if v := all["status_is_closed"]; v != nil && string(v) != "null" {
			fields["is_closed"] = v
		} else {
			delete(fields, "is_closed")
		}
	}
	// Tags are a set, and some answers have objects where others have texts.
	if v, has := fields["tags"]; has {
		var tags client.Tags
		if err := json.Unmarshal(v, &tags); err != nil {
			return nil, "", err
		}
		slices.Sort(tags)
		sorted, err := json.Marshal(append([]string{}, tags...))
		if err != nil {
			return nil, "", err
		}
		fields["tags"] = sorted
	}
	text, err := json.Marshal(fields) // in the order of the names
	if err != nil {
		return nil, "", err
	}
	sum := sha256.Sum256(text)
	return fields, hex.EncodeToString(sum[:12]), nil
}

// slot returns when the next round is due: the first of the times base, base +
// interval, ... behind now. Rounds that could not be made are left out, not made
// up for.
func slot(base time.Time, interval time.Duration, now time.Time) time.Time {
	past := now.Sub(base)
	if past < 0 { // the clock was set back
		return now.Add(interval)
	}
	return base.Add(past - past%interval + interval)
}

// late returns the gap of a poller that was due at due and comes only now, by a
// whole interval or more: it was not running, or the machine slept.
func late(due, now time.Time, interval time.Duration) *Gap {
	// The wall clock counts: the other one stands still while a machine sleeps.
	if now.Round(0).Sub(due.Round(0)) < interval {
		return nil
	}
	return &Gap{From: due, To: now, Side: SidePoller, Why: "the poller did not run, or the clock was set"}
}

// walk is a walk through the list of tickets in the order of updated_at. It does
// not count pages from the top, because a ticket that changes meanwhile moves to
// the end and everything behind it moves up, across the edge of a page. Each
// page begins at the last time of the one before.
//
// Where one time fills a whole page, that does not get on, and the pages of one
// time have no order of their own: AlgaPSA has no tie-breaker, so they can overlap
// and leave tickets out, always the same ones (contract section 2.3, W28). So the
// tickets of that time are read by their numbers. Those pages are counted, and
// read again until nothing new is in them.
type walk struct {
	from   time.Time // updated_from; zero for all
	one    bool      // reads the tickets of the time from alone, by their numbers
	page   int       // from 1
	high   time.Time // the latest updated_at so far
	clock  time.Time // the server's when the walk began
	began  time.Time // by our clock
	passes int       // how often the pages of from were read again
	fresh  bool      // this pass showed something that was not known
	done   bool
}

// maxPasses bounds how often the pages of one time are read again.
const maxPasses = 5

// shown is how exactly the API shows a time: all that looks like one is within
// it.
const shown = time.Millisecond

// overlap is how far walks go back behind the end of the last one, and for how
// long they do. updated_at is when a transaction began, so a change can appear
// behind later ones, by as long as its transaction took.
const overlap = 5 * time.Minute

// mark is up to where the list had been read at some time.
type mark struct{ at, high time.Time }

// settle takes the marks off the list that are older than overlap for a walk that
// began at began, and returns how far they went: all transactions up to there
// were over when the walk read them again. The zero time is none.
func settle(marks []mark, began time.Time) (time.Time, []mark) {
	var high time.Time
	for len(marks) > 0 && began.Sub(marks[0].at) >= overlap {
		high, marks = marks[0].high, marks[1:]
	}
	return high, marks
}

// cursorAfter returns where the next walk begins, after one that went up to high:
// behind what is settled, and no further back than overlap.
func cursorAfter(cursor, high, settled time.Time) time.Time {
	if !settled.IsZero() {
		settled = settled.Add(shown)
	}
	for _, t := range []time.Time{high.Add(-overlap), settled} {
		if t.After(cursor) {
			cursor = t
		}
	}
	return micros(cursor)
}

// next moves on behind a page whose last ticket has the time last. fresh says
// that something on it was not known, more that there are pages behind it.
func (w walk) next(last time.Time, fresh, more bool) walk {
	w.fresh = w.fresh || fresh
	if last.After(w.high) {
		w.high = last
	}
	moved := !w.one && last.After(w.from)
	switch {
	case w.page > 1 && w.fresh && (moved || !more) && w.passes < maxPasses:
		w.page, w.fresh = 1, false
		w.passes++
	case w.one && !more:
		w.one, w.from, w.page, w.passes, w.fresh = false, w.from.Add(shown), 1, 0, false
	case !more:
		w.done = true
	case moved:
		w.from, w.page, w.passes, w.fresh = last, 1, 0, false
	case !w.one && last.Equal(w.from) && !last.IsZero():
		w.one, w.page, w.passes, w.fresh = true, 1, 0, false
	default: // rows that were never updated are behind all others
		w.page++
	}
	return w
}

// filter is what the walk asks for next.
func (w walk) filter() client.TicketFilter {
	if w.one {
		return client.TicketFilter{UpdatedFrom: w.from, UpdatedTo: w.from.Add(shown), Sort: "ticket_number", Order: "asc"}
	}
	return client.TicketFilter{UpdatedFrom: w.from, Sort: "updated_at", Order: "asc"}
}
